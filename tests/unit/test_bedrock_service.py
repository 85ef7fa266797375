"""Faults, permissions and the edges of the Bedrock stand-in's protocol."""

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from rehearsal.bedrock.errors import ServiceError
from rehearsal.bedrock.faults import FAULTS, parse_fault
from rehearsal.bedrock.protocol import find_operation, parse_request, service_model
from tests.unit.bedrock_harness import ACCOUNT, NOVA, ROLE, Rehearsal, code, conversations

NOVA_ON_DEMAND = "amazon.nova-micro-v1:0"


def status_of(rehearsal: Rehearsal) -> str:
    return rehearsal.control.get_model_customization_job(jobIdentifier="job")["status"]


def test_a_failing_job_gives_the_chosen_message_and_bills_nothing() -> None:
    rehearsal = Rehearsal(faults=["job-fails:1=Automated tests flagged this fine-tuning job"])
    rehearsal.create_job()
    rehearsal.wait(hours=12)
    described = rehearsal.control.get_model_customization_job(jobIdentifier="job")
    assert described["status"] == "Failed"
    assert described["failureMessage"] == "Automated tests flagged this fine-tuning job"
    assert described["statusDetails"]["trainingDetails"]["status"] == "Failed"
    assert rehearsal.service.ledger() == []
    rehearsal.train("again")
    rehearsal.close()


def test_a_stalled_job_never_starts_training_and_can_be_stopped() -> None:
    rehearsal = Rehearsal(faults=["job-stalls"])
    rehearsal.create_job()
    rehearsal.wait(days=3)
    described = rehearsal.control.get_model_customization_job(jobIdentifier="job")
    assert described["status"] == "InProgress"
    assert described["statusDetails"]["trainingDetails"]["status"] == "NotStarted"
    rehearsal.control.stop_model_customization_job(jobIdentifier="job")
    rehearsal.wait(minutes=10)
    assert status_of(rehearsal) == "Stopped"
    assert rehearsal.service.ledger() == []
    rehearsal.close()


@pytest.mark.parametrize(
    ("fault", "hours", "expected"),
    [
        ("job-stopped", 12, "Stopped"),
        ("job-fails-validation", 1, "Failed"),
        ("job-slow=30", 20, "InProgress"),
        ("job-slow=30", 40, "Completed"),
    ],
)
def test_a_job_ends_as_the_fault_says(fault: str, hours: float, expected: str) -> None:
    rehearsal = Rehearsal(faults=[fault])
    rehearsal.create_job()
    rehearsal.wait(hours=hours)
    assert status_of(rehearsal) == expected
    rehearsal.close()


def test_serving_that_fails_says_why_and_one_that_is_stuck_can_be_deleted_later() -> None:
    rehearsal = Rehearsal(faults=["serving-fails:1=no capacity", "serving-stuck:2"])
    model = rehearsal.train()
    rehearsal.control.create_custom_model_deployment(modelDeploymentName="fails", modelArn=model)
    rehearsal.wait(minutes=30)
    failed = rehearsal.control.get_custom_model_deployment(customModelDeploymentIdentifier="fails")
    assert (failed["status"], failed["failureMessage"]) == ("Failed", "no capacity")
    rehearsal.control.delete_custom_model_deployment(customModelDeploymentIdentifier="fails")
    rehearsal.control.create_custom_model_deployment(modelDeploymentName="stuck", modelArn=model)
    rehearsal.wait(hours=3)
    stuck = rehearsal.control.get_custom_model_deployment(customModelDeploymentIdentifier="stuck")
    assert stuck["status"] == "Creating"
    rehearsal.control.delete_custom_model_deployment(customModelDeploymentIdentifier="stuck")
    rehearsal.close()


def test_without_model_units_no_throughput_can_be_bought() -> None:
    rehearsal = Rehearsal(faults=["no-model-units"])
    model = rehearsal.train()
    with pytest.raises(ClientError, match=r"no commitment model units reserved for amazon\.nova-micro") as refused:
        rehearsal.provision(model)
    assert code(refused.value) == "ServiceQuotaExceededException"
    rehearsal.close()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("throttled:2", "ThrottlingException"),
        ("answers-fail:2", "InternalServerException"),
        ("base-model-unavailable:2", "AccessDeniedException"),
        ("refuse:2=Converse/ServiceUnavailableException", "ServiceUnavailableException"),
        ("lose-answer:2=Converse", "InternalServerException"),
    ],
)
def test_inference_fails_as_often_as_the_fault_says(fault: str, expected: str) -> None:
    rehearsal = Rehearsal(faults=[fault])
    for _ in range(2):
        with pytest.raises(ClientError) as refused:
            rehearsal.ask(NOVA_ON_DEMAND, "hello")
        assert code(refused.value) == expected
    assert rehearsal.ask(NOVA_ON_DEMAND, "hello") == "hello"
    rehearsal.close()


def test_a_refused_creation_leaves_nothing_and_a_lost_answer_leaves_the_job() -> None:
    rehearsal = Rehearsal(faults=["refuse", "lose-answer"])
    with pytest.raises(ClientError) as refused:
        rehearsal.create_job()
    assert code(refused.value) == "ThrottlingException"
    assert rehearsal.control.list_model_customization_jobs()["modelCustomizationJobSummaries"] == []
    with pytest.raises(ClientError) as refused:
        rehearsal.create_job()
    assert code(refused.value) == "InternalServerException"
    assert status_of(rehearsal) == "InProgress"
    rehearsal.close()


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_of_the_table_can_be_asked_for_by_its_name_alone(name: str) -> None:
    assert parse_fault(name).name == name
    assert parse_fault(f"{name}:3").times == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fails",
        "job-fails:x",
        "throttled=5",
        "job-slow=long",
        "refuse=Converse",
        "refuse=Converse/ConflictException",
        "refuse=Nothing/ThrottlingException",
        "lose-answer=Nothing",
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="fault"):
        parse_fault(text)


@given(st.text(max_size=60))
def test_no_fault_text_ends_in_anything_but_a_named_refusal(text: str) -> None:
    with suppress(ValueError):
        assert parse_fault(text).name in FAULTS


def test_what_the_rehearsal_does_not_know_is_refused_and_says_so() -> None:
    rehearsal = Rehearsal()
    with pytest.raises(ClientError, match="The rehearsal does not know ListGuardrails of Amazon Bedrock"):
        rehearsal.control.list_guardrails()
    status, _, body = rehearsal.service.handle("GET", "/nowhere", "", {}, b"")
    assert (status, "GET /nowhere" in body.decode()) == (501, True)
    rehearsal.close()


def needed(rehearsal: Rehearsal, call: Callable[[], object]) -> set[tuple[str, str]]:
    """Return what IAM must allow for the HTTP request that `call` sends."""
    seen: list[tuple[str, str]] = []
    handle = rehearsal.service.handle

    def record(method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> object:
        seen.extend(rehearsal.service.authorization(method, path, query, body))
        return handle(method, path, query, headers, body)

    rehearsal.service.handle = record  # type: ignore[method-assign,assignment]  # until deleted below
    call()
    del rehearsal.service.handle
    return set(seen)


def test_a_job_needs_its_models_its_tags_and_its_role() -> None:
    rehearsal = Rehearsal()
    training = rehearsal.put("train.jsonl", conversations(20))

    def create() -> None:
        rehearsal.control.create_model_customization_job(
            jobName="job",
            customModelName="model",
            roleArn=ROLE,
            baseModelIdentifier=NOVA,
            trainingDataConfig={"s3Uri": training},
            outputDataConfig={"s3Uri": "s3://artifacts/out"},
            jobTags=[{"key": "run", "value": "a"}],
            customModelTags=[{"key": "run", "value": "a"}],
        )

    permissions = needed(rehearsal, create)
    rehearsal.wait(hours=12)
    job = rehearsal.control.get_model_customization_job(jobIdentifier="job")
    create_action = "bedrock:CreateModelCustomizationJob"
    assert permissions == {
        (create_action, f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA}"),
        (create_action, job["jobArn"]),
        (create_action, job["outputModelArn"]),
        ("bedrock:TagResource", job["jobArn"]),
        ("bedrock:TagResource", job["outputModelArn"]),
        ("iam:PassRole", ROLE),
    }
    by_name = needed(rehearsal, lambda: rehearsal.control.get_model_customization_job(jobIdentifier="job"))
    assert by_name == {("bedrock:GetModelCustomizationJob", job["jobArn"])}
    rehearsal.close()


def test_serving_and_inference_need_the_resources_of_the_service_authorization_reference() -> None:
    rehearsal = Rehearsal()
    model = rehearsal.train()
    create = partial(rehearsal.control.create_custom_model_deployment, modelDeploymentName="one", modelArn=model)
    deploy = needed(rehearsal, lambda: create(tags=[{"key": "run", "value": "a"}]))
    rehearsal.wait(minutes=10)
    described = rehearsal.control.get_custom_model_deployment(customModelDeploymentIdentifier="one")
    arn = described["customModelDeploymentArn"]
    assert deploy == {("bedrock:CreateCustomModelDeployment", model), ("bedrock:TagResource", arn)}
    rehearsal.warm(arn)
    assert needed(rehearsal, lambda: rehearsal.ask(arn, "hello")) == {("bedrock:InvokeModel", arn)}
    asked = needed(rehearsal, lambda: rehearsal.ask("us.amazon.nova-2-lite-v1:0", "hello"))
    profile = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:inference-profile/us.amazon.nova-2-lite-v1:0"
    regions = ("us-east-1", "us-east-2", "us-west-2")
    models = {f"arn:aws:bedrock:{region}::foundation-model/amazon.nova-2-lite-v1:0" for region in regions}
    assert asked == {("bedrock:InvokeModel", resource) for resource in {profile, *models}}
    assert needed(rehearsal, rehearsal.control.list_custom_models) == {("bedrock:ListCustomModels", "*")}
    delete = needed(
        rehearsal, lambda: rehearsal.control.delete_custom_model_deployment(customModelDeploymentIdentifier="one")
    )
    assert delete == {("bedrock:DeleteCustomModelDeployment", arn)}
    rehearsal.close()


def test_throughputs_updates_and_look_ups_need_their_resources() -> None:
    rehearsal = Rehearsal()
    model = rehearsal.train()
    control = rehearsal.control
    bought = needed(
        rehearsal,
        lambda: control.create_provisioned_model_throughput(
            provisionedModelName="one", modelId="job", modelUnits=1, tags=[{"key": "run", "value": "a"}]
        ),
    )
    throughput = control.get_provisioned_model_throughput(provisionedModelId="one")["provisionedModelArn"]
    assert bought == {("bedrock:CreateProvisionedModelThroughput", model), ("bedrock:TagResource", throughput)}
    deployment = rehearsal.deploy(model)
    swap = needed(
        rehearsal,
        lambda: control.update_custom_model_deployment(customModelDeploymentIdentifier=deployment, modelArn=model),
    )
    assert swap == {("bedrock:UpdateCustomModelDeployment", arn) for arn in (deployment, model)}
    move = needed(
        rehearsal,
        lambda: control.update_provisioned_model_throughput(provisionedModelId="one", desiredModelId=NOVA),
    )
    base = f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA}"
    assert move == {("bedrock:UpdateProvisionedModelThroughput", arn) for arn in (throughput, base)}
    described = needed(rehearsal, lambda: control.get_foundation_model(modelIdentifier=NOVA))
    assert described == {("bedrock:GetFoundationModel", base)}
    listed = needed(rehearsal, lambda: control.list_tags_for_resource(resourceARN=model))
    assert listed == {("bedrock:ListTagsForResource", model)}
    rehearsal.close()


def test_a_model_with_a_key_of_its_own_needs_that_key_wherever_it_is_made_served_or_asked() -> None:
    rehearsal = Rehearsal()
    key = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/00000000-0000-0000-0000-000000000000"
    training = rehearsal.put("train.jsonl", conversations(20))
    create = needed(
        rehearsal,
        lambda: rehearsal.control.create_model_customization_job(
            jobName="job",
            customModelName="job",
            roleArn=ROLE,
            baseModelIdentifier=NOVA,
            customModelKmsKeyId=key,
            trainingDataConfig={"s3Uri": training},
            outputDataConfig={"s3Uri": "s3://artifacts/out"},
        ),
    )
    actions = {action for action, resource in create if resource == key}
    assert actions == {"kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey", "kms:CreateGrant"}
    rehearsal.wait(hours=12)
    model = rehearsal.control.get_custom_model(modelIdentifier="job")["modelArn"]
    deploy = needed(
        rehearsal,
        lambda: rehearsal.control.create_custom_model_deployment(modelDeploymentName="one", modelArn=model),
    )
    assert ("kms:Decrypt", key) in deploy
    rehearsal.wait(minutes=10)
    (deployment,) = rehearsal.control.list_custom_model_deployments()["modelDeploymentSummaries"]
    arn = deployment["customModelDeploymentArn"]
    rehearsal.warm(arn)
    assert needed(rehearsal, lambda: rehearsal.ask(arn, "hello")) == {
        ("bedrock:InvokeModel", arn),
        ("kms:Decrypt", key),
    }
    rehearsal.close()


def test_what_is_asked_about_nothing_needs_a_permission_on_that_name() -> None:
    rehearsal = Rehearsal()
    path = "/model-customization-jobs/nobody"
    arn = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:model-customization-job/nobody"
    assert rehearsal.service.authorization("GET", path, "", b"") == [("bedrock:GetModelCustomizationJob", arn)]
    assert rehearsal.service.authorization("POST", "/model-customization-jobs", "", b"{}") == []
    assert rehearsal.service.authorization("GET", "/guardrails", "", b"") == []
    rehearsal.close()


def test_every_operation_of_both_service_models_is_found_by_its_request_line() -> None:
    for service in ("bedrock", "bedrock-runtime"):
        model = service_model(service)
        for name in model.operation_names:
            http = model.operation_model(name).http
            path = str(http["requestUri"]).replace("{", "").replace("}", "").replace("+", "")
            found = find_operation(http["method"], path)
            assert found is not None
            assert found[0].name == name


def test_an_arn_in_a_path_is_read_with_encoded_and_with_plain_slashes() -> None:
    arn = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:custom-model/amazon.nova-micro-v1:0:128k/abcdefabcdef"
    for path in (f"/custom-models/{arn}", "/custom-models/" + arn.replace(":", "%3A").replace("/", "%2F")):
        found = find_operation("DELETE", path)
        assert found is not None
        assert found[1] == {"modelIdentifier": arn}


@settings(deadline=None)
@given(st.binary(max_size=200), st.text(max_size=80))
def test_no_body_and_no_query_end_in_anything_but_a_named_refusal(body: bytes, query: str) -> None:
    for name in ("CreateModelCustomizationJob", "ListCustomModels", "TagResource"):
        operation = service_model("bedrock").operation_model(name)
        with suppress(ServiceError):
            assert parse_request(operation, {}, query, {}, body).operation is operation


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


JOB_SHAPE = service_model("bedrock").operation_model("CreateModelCustomizationJob").input_shape
assert JOB_SHAPE is not None
JOB_MEMBERS = JOB_SHAPE.members


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(JOB_MEMBERS, JSON)))
def test_no_job_request_ends_in_anything_but_a_named_refusal(request: object) -> None:
    operation = service_model("bedrock").operation_model("CreateModelCustomizationJob")
    with suppress(ServiceError):
        parse_request(operation, {}, "", {}, json.dumps(request).encode())


def test_neither_the_name_of_a_file_nor_that_of_a_job_changes_what_is_learnt() -> None:
    losses = []
    for key, name in (("runs/support-en/train.jsonl", "one"), ("x.jsonl", "two")):
        rehearsal = Rehearsal()
        rehearsal.train(name, training=rehearsal.put(key, conversations(20)))
        job = rehearsal.control.get_model_customization_job(jobIdentifier=name)
        losses.append((job["trainingMetrics"], [entry.quantity for entry in rehearsal.service.ledger()][:1]))
        rehearsal.close()
    assert losses[0] == losses[1]
