"""Custom models, throughputs, deployments, tags and bills of the Bedrock stand-in."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError

from customization.money import load_prices
from tests.unit.bedrock_harness import LLAMA, NOVA, Rehearsal, code, conversations, pairs

LLAMA_3 = "meta.llama3-1-8b-instruct-v1:0:128k"


@pytest.fixture
def rehearsal() -> Iterator[Rehearsal]:
    started = Rehearsal()
    yield started
    started.close()


def test_a_deployment_is_creating_for_minutes_and_then_active(rehearsal: Rehearsal) -> None:
    model = rehearsal.train()
    arn = rehearsal.control.create_custom_model_deployment(modelDeploymentName="one", modelArn=model)
    identifier = arn["customModelDeploymentArn"]

    def status() -> str:
        return rehearsal.control.get_custom_model_deployment(customModelDeploymentIdentifier="one")["status"]

    assert status() == "Creating"
    with pytest.raises(ClientError) as refused:
        rehearsal.ask(identifier, "question 1")
    assert code(refused.value) == "ModelNotReadyException"
    rehearsal.wait(minutes=10)
    assert status() == "Active"
    rehearsal.warm(identifier)
    assert rehearsal.ask(identifier, "question 1") == "answer 1 is here"


def test_a_deleted_deployment_answers_no_more_and_frees_its_model(rehearsal: Rehearsal) -> None:
    model = rehearsal.train()
    deployment = rehearsal.deploy(model)
    with pytest.raises(ClientError) as refused:
        rehearsal.control.delete_custom_model(modelIdentifier=model)
    assert code(refused.value) == "ConflictException"
    rehearsal.control.delete_custom_model_deployment(customModelDeploymentIdentifier=deployment)
    for call in (
        lambda: rehearsal.ask(deployment, "question 1"),
        lambda: rehearsal.control.get_custom_model_deployment(customModelDeploymentIdentifier=deployment),
    ):
        with pytest.raises(ClientError) as refused:
            call()
        assert code(refused.value) == "ResourceNotFoundException"
    rehearsal.control.delete_custom_model(modelIdentifier=model)
    assert rehearsal.service.live_resources() == []
    assert rehearsal.control.list_custom_models()["modelSummaries"] == []


def test_what_is_being_created_cannot_be_deleted_yet(rehearsal: Rehearsal) -> None:
    model = rehearsal.train()
    rehearsal.control.create_custom_model_deployment(modelDeploymentName="one", modelArn=model)
    with pytest.raises(ClientError) as refused:
        rehearsal.control.delete_custom_model_deployment(customModelDeploymentIdentifier="one")
    assert code(refused.value) == "ConflictException"
    rehearsal.wait(minutes=10)
    rehearsal.control.delete_custom_model_deployment(customModelDeploymentIdentifier="one")


def test_a_deployment_swaps_its_model_in_place_and_the_old_one_answers_until_then(rehearsal: Rehearsal) -> None:
    first = rehearsal.train("first")
    renamed = [dict(record) for record in conversations(20)]
    training = rehearsal.put("other.jsonl", [*renamed, *conversations(21)[20:]])
    second = rehearsal.train("second", training=training)
    deployment = rehearsal.deploy(first)
    rehearsal.control.update_custom_model_deployment(customModelDeploymentIdentifier=deployment, modelArn=second)

    def described() -> tuple[str, str]:
        answer = rehearsal.control.get_custom_model_deployment(customModelDeploymentIdentifier=deployment)
        return answer["modelArn"], answer["updateDetails"]["updateStatus"]

    assert described() == (first, "Updating")
    assert rehearsal.ask(deployment, "question 20") == "20"
    for model in (first, second):
        with pytest.raises(ClientError) as refused:
            rehearsal.control.delete_custom_model(modelIdentifier=model)
        assert code(refused.value) == "ConflictException"
    rehearsal.wait(minutes=10)
    assert described() == (second, "UpdateCompleted")
    assert rehearsal.ask(deployment, "question 20") == "answer 20 is here"
    rehearsal.control.delete_custom_model(modelIdentifier=first)


def test_two_deployments_in_progress_and_ten_in_all_are_the_quota(rehearsal: Rehearsal) -> None:
    model = rehearsal.train()

    def create(number: int) -> None:
        rehearsal.control.create_custom_model_deployment(modelDeploymentName=f"d{number}", modelArn=model)

    create(0)
    create(1)
    with pytest.raises(ClientError, match="in-progress") as refused:
        create(2)
    assert code(refused.value) == "ServiceQuotaExceededException"
    for number in range(2, 10):
        rehearsal.wait(minutes=10)
        create(number)
    rehearsal.wait(minutes=10)
    with pytest.raises(ClientError, match="limit of 10") as refused:
        create(10)
    assert code(refused.value) == "ServiceQuotaExceededException"


def test_names_are_taken_without_a_conflict_error_of_their_own(rehearsal: Rehearsal) -> None:
    model = rehearsal.train()
    rehearsal.deploy(model, "same")
    rehearsal.provision(model, name="same")
    for create in (
        lambda: rehearsal.control.create_custom_model_deployment(modelDeploymentName="same", modelArn=model),
        lambda: rehearsal.control.create_provisioned_model_throughput(
            provisionedModelName="same", modelId=model, modelUnits=1
        ),
    ):
        with pytest.raises(ClientError) as refused:
            create()
        assert code(refused.value) == "ValidationException"


def test_a_model_without_on_demand_serving_has_no_deployment() -> None:
    rehearsal = Rehearsal(datetime(2025, 1, 18, tzinfo=UTC), "us-east-1")
    model = rehearsal.train(base=LLAMA, training=rehearsal.put("train.jsonl", pairs(30)))
    with pytest.raises(ClientError, match="On-demand deployment is not supported") as refused:
        rehearsal.control.create_custom_model_deployment(modelDeploymentName="one", modelArn=model)
    assert code(refused.value) == "ValidationException"
    rehearsal.close()


def test_a_model_customized_before_deployments_existed_needs_a_throughput() -> None:
    rehearsal = Rehearsal(datetime(2025, 7, 1, tzinfo=UTC))
    model = rehearsal.train()
    rehearsal.wait(days=30)
    with pytest.raises(ClientError, match="customized on 2025-07-01"):
        rehearsal.control.create_custom_model_deployment(modelDeploymentName="one", modelArn=model)
    rehearsal.provision(model)
    rehearsal.close()


def test_a_throughput_bills_every_hour_that_begins_between_its_purchase_and_its_end() -> None:
    rehearsal = Rehearsal()
    training = rehearsal.put("train.jsonl", conversations(20))
    model = rehearsal.train(base="amazon.nova-2-lite-v1:0:256k", training=training)
    arn = rehearsal.provision(model, units=2)
    described = rehearsal.control.get_provisioned_model_throughput(provisionedModelId=arn)
    rehearsal.wait(hours=3)
    rehearsal.control.delete_provisioned_model_throughput(provisionedModelId="throughput")
    hours = math.ceil((rehearsal.clock.time - described["creationTime"]).total_seconds() / 3600)
    rehearsal.wait(hours=5)
    (charge,) = [entry for entry in rehearsal.service.ledger() if entry.item == "provisionedThroughput"]
    assert charge.quantity == pytest.approx(2 * hours, abs=0.001)
    assert charge.usd == pytest.approx(2 * hours * 60.5, abs=0.1)
    with pytest.raises(ClientError):
        rehearsal.ask(arn, "question 1")


def test_the_ledger_holds_training_storage_and_tokens_and_knows_what_has_no_price(rehearsal: Rehearsal) -> None:
    model = rehearsal.train(hyper_parameters={"epochCount": "3"})
    deployment = rehearsal.deploy(model)
    rehearsal.ask(deployment, "question 1")
    rehearsal.ask(deployment, "question 2")
    rehearsal.ask("amazon.nova-micro-v1:0", "question 2")
    rehearsal.wait(days=30)
    entries = {entry.item: entry for entry in rehearsal.service.ledger()}
    # A prompt has two tokens here, a completion four.
    tokens = 3 * 20 * (2 + 4)
    assert entries["trainingTokens"].quantity == pytest.approx(tokens / 1000)
    assert entries["trainingTokens"].usd == pytest.approx(tokens / 1000 * 0.001)
    assert entries["customInputTokens"].quantity == pytest.approx(0.004)
    assert entries["customOutputTokens"].quantity == pytest.approx(0.008)
    price = load_prices().find(NOVA, "customInputTokens", "us-east-1", rehearsal.clock.time.date())
    assert (entries["customInputTokens"].usd is None) == (price is None)
    assert entries["inputTokens"].usd == pytest.approx(0.002 * 0.000035, abs=1e-6)
    assert entries["storage"].quantity == pytest.approx(1.0, abs=0.05)
    assert set(rehearsal.service.live_resources()) == {model, deployment}


def test_what_was_called_with_the_same_token_is_made_once(rehearsal: Rehearsal) -> None:
    model = rehearsal.train()
    arns = {
        rehearsal.control.create_custom_model_deployment(
            modelDeploymentName=name, modelArn=model, clientRequestToken="once"
        )["customModelDeploymentArn"]
        for name in ("one", "two")
    }
    assert len(arns) == 1
    assert len(rehearsal.control.list_custom_model_deployments()["modelDeploymentSummaries"]) == 1


def test_tags_are_kept_added_removed_and_bounded(rehearsal: Rehearsal) -> None:
    model = rehearsal.train()
    arn = rehearsal.control.create_custom_model_deployment(
        modelDeploymentName="one", modelArn=model, tags=[{"key": "run", "value": "a"}, {"key": "stage", "value": "dev"}]
    )["customModelDeploymentArn"]
    rehearsal.control.tag_resource(resourceARN=arn, tags=[{"key": "run", "value": "b"}])
    rehearsal.control.untag_resource(resourceARN=arn, tagKeys=["stage"])
    assert rehearsal.control.list_tags_for_resource(resourceARN=arn)["tags"] == [{"key": "run", "value": "b"}]
    assert rehearsal.service.tags(arn) == {"run": "b"}
    with pytest.raises(ClientError) as refused:
        rehearsal.control.tag_resource(resourceARN=arn, tags=[{"key": f"k{n}", "value": ""} for n in range(50)])
    assert code(refused.value) == "TooManyTagsException"
    with pytest.raises(ClientError) as refused:
        rehearsal.control.list_tags_for_resource(resourceARN=arn[:-1] + "x")
    assert code(refused.value) == "ResourceNotFoundException"


def test_throughputs_and_deployments_are_listed_by_status(rehearsal: Rehearsal) -> None:
    model = rehearsal.train()
    rehearsal.provision(model, name="ready")
    rehearsal.control.create_provisioned_model_throughput(provisionedModelName="new", modelId=model, modelUnits=1)
    listed = rehearsal.control.list_provisioned_model_throughputs(statusEquals="Creating")
    assert [summary["provisionedModelName"] for summary in listed["provisionedModelSummaries"]] == ["new"]
    rehearsal.deploy(model, "one")
    deployments = rehearsal.control.list_custom_model_deployments(statusEquals="Active", modelArnEquals=model)
    assert [item["customModelDeploymentName"] for item in deployments["modelDeploymentSummaries"]] == ["one"]


def test_a_throughput_can_be_renamed_and_moved_to_a_sibling_model(rehearsal: Rehearsal) -> None:
    first, second = rehearsal.train("first"), rehearsal.train("second")
    rehearsal.provision(first)
    rehearsal.control.update_provisioned_model_throughput(
        provisionedModelId="throughput", desiredProvisionedModelName="renamed", desiredModelId=second
    )
    described = rehearsal.control.get_provisioned_model_throughput(provisionedModelId="renamed")
    assert (described["status"], described["modelArn"], described["desiredModelArn"]) == ("Updating", first, second)
    with pytest.raises(ClientError) as refused:
        rehearsal.control.delete_provisioned_model_throughput(provisionedModelId="renamed")
    assert code(refused.value) == "ConflictException"
    rehearsal.wait(minutes=10)
    described = rehearsal.control.get_provisioned_model_throughput(provisionedModelId="renamed")
    assert (described["status"], described["modelArn"]) == ("InService", second)


def test_a_committed_throughput_cannot_be_deleted(rehearsal: Rehearsal) -> None:
    model = rehearsal.train()
    rehearsal.control.create_provisioned_model_throughput(
        provisionedModelName="month", modelId=model, modelUnits=1, commitmentDuration="OneMonth"
    )
    rehearsal.wait(days=10)
    with pytest.raises(ClientError) as refused:
        rehearsal.control.delete_provisioned_model_throughput(provisionedModelId="month")
    assert code(refused.value) == "ConflictException"


def test_a_legacy_base_model_has_no_new_throughput() -> None:
    rehearsal = Rehearsal(region="us-west-2")
    with pytest.raises(ClientError, match="takes no new Provisioned Throughput"):
        rehearsal.control.create_provisioned_model_throughput(provisionedModelName="one", modelId=LLAMA_3, modelUnits=1)
    rehearsal.close()


def test_base_models_are_described_as_of_the_clocks_date() -> None:
    today, then = Rehearsal(), Rehearsal(datetime(2025, 1, 18, tzinfo=UTC))
    titan = "amazon.titan-text-express-v1:0:8k"
    described = then.control.get_foundation_model(modelIdentifier=titan)["modelDetails"]
    assert described["modelLifecycle"]["status"] == "ACTIVE"
    assert described["inferenceTypesSupported"] == ["PROVISIONED"]
    assert sorted(described["customizationsSupported"]) == ["CONTINUED_PRE_TRAINING", "FINE_TUNING"]
    with pytest.raises(ClientError) as refused:
        today.control.get_foundation_model(modelIdentifier=titan)
    assert code(refused.value) == "ResourceNotFoundException"
    bare = today.control.get_foundation_model(modelIdentifier="amazon.nova-micro-v1:0")["modelDetails"]
    assert bare["inferenceTypesSupported"] == ["ON_DEMAND"]
    assert bare["customizationsSupported"] == []
    active = today.control.list_foundation_models(byCustomizationType="FINE_TUNING", byProvider="Amazon")
    assert {NOVA} <= {summary["modelId"] for summary in active["modelSummaries"]}
    assert titan not in {summary["modelId"] for summary in active["modelSummaries"]}
    available = today.control.get_foundation_model_availability(modelId="amazon.nova-micro-v1:0")
    assert available["authorizationStatus"] == "AUTHORIZED"
    profile = today.control.get_inference_profile(inferenceProfileIdentifier="us.amazon.nova-2-lite-v1:0")
    assert len(profile["models"]) == 3
    listed = today.control.list_inference_profiles()["inferenceProfileSummaries"]
    assert profile["inferenceProfileArn"] in {summary["inferenceProfileArn"] for summary in listed}
    today.close()
    then.close()
