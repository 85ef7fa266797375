"""Two deployments in one account, side by side or one after the other: neither touches what the other has."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from rehearsal.synthesis import synthesize
from tests.workflow import data
from tests.workflow.conftest import MODELS, Assemble, Deploy
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    import boto3

    from customization.json_types import JsonObject
    from rehearsal.embedded.states.machines import Execution

pytestmark = pytest.mark.exhaustive

DATASET = "shop"
Outputs = dict[str, str]


@contextmanager
def seen_from(pipeline: Pipeline, outputs: Outputs) -> Iterator[None]:
    """Let the pipeline's questions be about another deployment."""
    own, pipeline.outputs = pipeline.outputs, outputs
    yield
    pipeline.outputs = own


def deploy_beside(pipeline: Pipeline, assembly: Path) -> Outputs:
    deployed: Mapping[str, Mapping[str, str]] = pipeline.aws.deploy(assembly)
    return {name: value for outputs in deployed.values() for name, value in outputs.items()}


def delete_stacks(pipeline: Pipeline, names: Sequence[str]) -> None:
    """Delete stacks of stage dev, once nobody has the policies of people any more: IAM refuses it before."""
    session = pipeline.aws.session()
    iam, cloudformation = session.client("iam"), session.client("cloudformation")
    for policy in [arn for name, arn in pipeline.outputs.items() if name.endswith("PolicyArn")]:
        for role in iam.list_entities_for_policy(PolicyArn=policy)["PolicyRoles"]:
            iam.detach_role_policy(RoleName=role["RoleName"], PolicyArn=policy)
    for name in names:
        cloudformation.delete_stack(StackName=f"Customization-dev-{name}")
        with pytest.raises(ClientError, match="does not exist"):
            cloudformation.describe_stacks(StackName=f"Customization-dev-{name}")


def running_execution(pipeline: Pipeline) -> "Execution":
    """Return the one execution of the deployment that runs."""
    machine = pipeline.outputs["StateMachineArn"]
    [running] = [
        execution
        for execution in pipeline.executions()
        if execution.machine.arn == machine and execution.outcome.status == "RUNNING"
    ]
    return running


def prefix(pipeline: Pipeline, stage: str, outputs: Outputs) -> str:
    """Return what the names of a deployment begin with."""
    functions = pipeline.aws.deployed.functions.values()
    ids = {
        dict(function.environment)["DEPLOYMENT_ID"]
        for function in functions
        if dict(function.environment).get("RUNS_TABLE") == outputs["RunsTableName"]
    }
    [deployment_id] = ids
    return f"{stage}-{deployment_id}-"


def live(pipeline: Pipeline, kind: str) -> list[str]:
    return [arn for arn in pipeline.bedrock.live_resources() if f":{kind}/" in arn]


@pytest.fixture(scope="module")
def prod(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prod") / "assembly"
    settings = {"stage": "prod", "region": "us-east-1", "baseModelIdentifier": MODELS["us-east-1"]}
    return synthesize(folder, settings)


def run_in_both_and_stop_ours(pipeline: Pipeline, theirs: Outputs) -> None:
    """Drop the same folder into both deployments and stop the first one's execution while both train."""
    folder = data.labelled(test=32, serving={"keep": 100}, promote="if-better", budgetUsd=200)
    entered = pipeline.entering("WaitForCustomizationJob")
    with pipeline.clock.hold():
        pipeline.drop(DATASET, folder)
        with seen_from(pipeline, theirs):
            pipeline.drop(DATASET, folder)
        entered.wait(86_400)
        pipeline.clock.sleep(600)
        pipeline.stop(running_execution(pipeline))
    pipeline.finish()
    pipeline.pass_time(hours=2)


def parameters(pipeline: Pipeline) -> list[str]:
    """Return the stages that have a model in use."""
    pages = (
        pipeline.aws.session().client("ssm").get_paginator("get_parameters_by_path").paginate(Path="/", Recursive=True)
    )
    found = [item["Name"] for page in pages for item in page["Parameters"]]
    return [name.split("/")[1] for name in found if name.endswith("/model")]


def test_the_same_data_dropped_into_two_stages_make_two_of_everything_and_each_sweeper_keeps_to_its_own(
    deploy: Deploy, prod: Path
) -> None:
    with deploy() as pipeline:
        prod_outputs = deploy_beside(pipeline, prod)
        pipeline.forget()
        ours, theirs = prefix(pipeline, "dev", pipeline.outputs), prefix(pipeline, "prod", prod_outputs)
        run_in_both_and_stop_ours(pipeline, prod_outputs)
        jobs = {
            str(job["jobName"]).rpartition("-")[0].rpartition("-")[0] + "-": job["status"] for job in pipeline.jobs()
        }
        assert jobs == {ours: "Stopped", theirs: "Completed"}
        [row] = pipeline.runs()
        with seen_from(pipeline, prod_outputs):
            [other_row] = pipeline.runs()
        assert (row["runId"], row["state"], other_row["state"]) == (other_row["runId"], "ABORTED", "SUCCEEDED")
        [served] = live(pipeline, "custom-model-deployment")

        request: JsonObject = {"dataset": DATASET, "acceptUnknownPrices": data.ACCEPTED}
        request["serving"] = {"mode": "on-demand"}
        again = pipeline.ask(request)
        assert again.outcome.status == "SUCCEEDED", again.outcome.cause
        assert len(pipeline.jobs()) == 3
        pipeline.pass_time(hours=2)
        assert live(pipeline, "custom-model-deployment") == [served]
        assert parameters(pipeline) == ["prod"]
        assert_no_role_may_end_what_is_foreign(pipeline, ours, served)
        assert_no_role_may_serve_or_ask_what_is_foreign(pipeline, ours, served)
        assert_no_role_may_change_what_is_served_elsewhere(pipeline, ours, served)
        assert_model_units_end_by_their_own_deployment_alone(pipeline, ours, theirs)


def session_of(pipeline: Pipeline, ours: str, module: str) -> "boto3.Session":
    """Return a session of the role of one of the functions of the deployment whose names begin with `ours`."""
    [role] = {
        function.role_arn
        for function in pipeline.aws.deployed.functions.values()
        if f"{dict(function.environment)['STAGE']}-{dict(function.environment)['DEPLOYMENT_ID']}-" == ours
        and function.handler.split(".")[-2] == module
    }
    return pipeline.aws.session_of_role(role, "lambda")


def foreign_model(pipeline: Pipeline, ours: str) -> str:
    """Return the ARN of a custom model of the other deployment."""
    return _model_arn(pipeline, next(name for name in pipeline.models() if not name.startswith(ours)))


def own_model(pipeline: Pipeline, ours: str) -> str:
    return _model_arn(pipeline, next(name for name in pipeline.models() if name.startswith(ours)))


def _model_arn(pipeline: Pipeline, name: str) -> str:
    return pipeline.aws.session().client("bedrock").get_custom_model(modelIdentifier=name)["modelArn"]


def create_model_units(pipeline: Pipeline, prefix: str, name: str, model: str) -> str:
    """Return the ARN of a throughput with the name and the tag that the deployment of that prefix gives."""
    created = (
        pipeline.aws.session()
        .client("bedrock")
        .create_provisioned_model_throughput(
            provisionedModelName=prefix + name,
            modelId=model,
            modelUnits=1,
            tags=[{"key": "deployment", "value": prefix.split("-")[1]}],
        )
    )
    return created["provisionedModelArn"]


def assert_model_units_end_by_their_own_deployment_alone(pipeline: Pipeline, ours: str, theirs: str) -> None:
    """Whatever role may end model units, which cost most of all, ends its own deployment's and no other's."""
    roles = ("create_provisioned_throughput", "promote_model", "release_serving", "release_resources", "sweep")
    own = {
        module: create_model_units(pipeline, ours, f"own{number}", own_model(pipeline, ours))
        for number, module in enumerate(roles)
    }
    foreign = create_model_units(pipeline, theirs, "foreign", foreign_model(pipeline, ours))
    pipeline.skip_time(hours=1)  # Bedrock deletes none that is Creating
    for module, arn in own.items():
        bedrock = session_of(pipeline, ours, module).client("bedrock")
        with pytest.raises(ClientError, match=f"AccessDenied.*DeleteProvisionedModelThroughput on resource: {foreign}"):
            bedrock.delete_provisioned_model_throughput(provisionedModelId=foreign)
        bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
    assert live(pipeline, "provisioned-model") == [foreign]


def assert_no_role_may_serve_or_ask_what_is_foreign(pipeline: Pipeline, ours: str, served: str) -> None:
    """IAM keeps this deployment's functions from another's models; base models answer everybody."""
    model = foreign_model(pipeline, ours)
    with pytest.raises(ClientError, match="AccessDenied"):
        session_of(pipeline, ours, "create_model_deployment").client("bedrock").create_custom_model_deployment(
            modelDeploymentName="foreign", modelArn=model
        )
    with pytest.raises(ClientError, match="AccessDenied"):
        session_of(pipeline, ours, "create_provisioned_throughput").client(
            "bedrock"
        ).create_provisioned_model_throughput(provisionedModelName="foreign", modelId=model, modelUnits=1)
    asker = session_of(pipeline, ours, "evaluate_shard").client("bedrock-runtime")
    with pytest.raises(ClientError, match="AccessDenied"):
        asker.converse(modelId=served, messages=[{"role": "user", "content": [{"text": "How do I pay?"}]}])
    asker.converse(
        modelId="amazon.nova-micro-v1:0", messages=[{"role": "user", "content": [{"text": "How do I pay?"}]}]
    )


def assert_no_role_may_change_what_is_served_elsewhere(pipeline: Pipeline, ours: str, served: str) -> None:
    """Not even for a model of its own may a role take another deployment's deployment."""
    model = own_model(pipeline, ours)
    for module in ("promote_model", "change_model_in_use", "sweep"):
        bedrock = session_of(pipeline, ours, module).client("bedrock")
        with pytest.raises(ClientError, match=f"AccessDenied.*UpdateCustomModelDeployment on resource: {served}"):
            bedrock.update_custom_model_deployment(customModelDeploymentIdentifier=served, modelArn=model)


def assert_no_role_may_end_what_is_foreign(pipeline: Pipeline, ours: str, served: str) -> None:
    """IAM keeps this deployment's functions from another's resources, whatever their code would do."""
    model = foreign_model(pipeline, ours)
    job = next(job["jobArn"] for job in pipeline.jobs() if not job["jobName"].startswith(ours))
    for module in ("sweep", "release_resources", "release_serving", "release_model"):
        bedrock = session_of(pipeline, ours, module).client("bedrock")
        with pytest.raises(ClientError, match="AccessDenied"):
            bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=served)
        with pytest.raises(ClientError, match="AccessDenied"):
            bedrock.delete_custom_model(modelIdentifier=model)
        with pytest.raises(ClientError, match="AccessDenied"):
            bedrock.stop_model_customization_job(jobIdentifier=job)


def test_a_deployment_that_was_destroyed_and_made_again_adopts_nothing_of_the_old_one(
    deploy: Deploy, assemble: Assemble
) -> None:
    with deploy() as pipeline:
        pipeline.forget()
        folder = data.labelled(test=32, serving={"keep": 700}, promote="if-better", budgetUsd=200)
        first = pipeline.run(folder, DATASET)
        assert first.outcome.status == "SUCCEEDED", first.outcome.cause
        old, old_prefix = pipeline.row_of(first), prefix(pipeline, "dev", pipeline.outputs)
        [served] = live(pipeline, "custom-model-deployment")

        delete_stacks(pipeline, ("Operations", "Pipeline", "Storage"))
        pipeline.outputs = deploy_beside(pipeline, assemble("us-east-1"))
        new_prefix = prefix(pipeline, "dev", pipeline.outputs)
        assert new_prefix != old_prefix

        second = pipeline.run(folder, DATASET)
        assert second.outcome.status == "SUCCEEDED", second.outcome.cause
        row = pipeline.row_of(second)
        assert (row["runId"], row["trainingId"]) == (old["runId"], old["trainingId"])
        assert [str(job["jobName"]).startswith(new_prefix) for job in pipeline.jobs()] == [False, True]
        assert "jobAdopted0" not in row
        pipeline.pass_time(hours=2)
        deployments = live(pipeline, "custom-model-deployment")
        assert len(deployments) == 2
        assert served in deployments
        released = pipeline.ask({"dataset": DATASET, "action": "release"})
        assert pipeline.states(released)[-1] == "RunReleased"
        pipeline.pass_time(hours=2)
        assert live(pipeline, "custom-model-deployment") == [served]
        assert len(pipeline.models()) == 1
        assert pipeline.models()[0].startswith(old_prefix)
