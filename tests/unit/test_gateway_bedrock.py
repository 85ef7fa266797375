"""Every call of Bedrock that the gateway makes is one that the service model, patterns and bounds included, takes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import boto3
import msgspec
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.stub import Stubber

from customization.catalogue import load_catalogue
from customization.errors import (
    AccessDenied,
    ModelNotReady,
    QuotaUnavailable,
    RequestRejected,
    ServiceUnavailable,
    TransientError,
)
from customization.formats import TestRecord, Turn
from customization.gateway import Gateway
from customization.gateway.bedrock import Bedrock, JobRequest
from customization.gateway.calls import CONNECT_SECONDS, READ_SECONDS
from customization.gateway.runtime import ASKED_AGAIN_SECONDS, BedrockRuntime
from customization.identity import job_name, resource_tags, serving_name
from customization.inference import InferenceSettings, build_question, read_answer
from customization.json_types import JsonObject
from tests.unit.bedrock_harness import NOVA, ROLE, Rehearsal, conversations
from tests.unit.fakes import NOW, SETTINGS

PREFIX = "longstage-0a1b2c3d-"
RUN = f"{'a' * 30}-0123456789"
TAGS = resource_tags("longstage", "0a1b2c3d", RUN, "a" * 30, {"cost centre": "a/b:c=d+e@f-g_h.i"})


@pytest.fixture
def rehearsal() -> Iterator[Rehearsal]:
    started = Rehearsal()
    yield started
    started.close()


@pytest.fixture
def bedrock(rehearsal: Rehearsal) -> Bedrock:
    return Bedrock(rehearsal.control)


def job_request(rehearsal: Rehearsal) -> JobRequest:
    name = job_name(PREFIX, "0123456789", 12)
    return JobRequest(
        name=name,
        base_model=NOVA,
        customization_type="FINE_TUNING",
        hyper_parameters={"epochCount": "2", "learningRate": "0.00001"},
        training_uri=rehearsal.put("train.jsonl", conversations(10)),
        validation_uri="",
        output_uri=f"s3://bucket/runs/{RUN}/bedrock/1/",
        role_arn=ROLE,
        key_arn=SETTINGS.key_arn,
        tags=TAGS,
        token=name,
    )


def trained(rehearsal: Rehearsal, bedrock: Bedrock) -> str:
    """Return the ARN of a custom model that a job has made."""
    request = job_request(rehearsal)
    bedrock.create_job(request)
    job = bedrock.job(request.name)
    assert job is not None
    assert not job.has_started
    assert [item.name for item in bedrock.jobs_in_progress()] == [request.name]
    rehearsal.wait(minutes=600)
    job = bedrock.job(job.arn)
    assert job is not None
    assert (job.status, bedrock.tags(job.arn)) == ("Completed", TAGS)
    return job.output_model_arn


@pytest.mark.parametrize(
    "network", [{}, {"subnetIds": ["subnet-0123456789abcdef0"], "securityGroupIds": ["sg-0123456789abcdef0"]}]
)
def test_a_job_gets_the_key_of_its_model_and_the_network_of_the_deployment_if_there_is_one(
    rehearsal: Rehearsal, bedrock: Bedrock, network: dict[str, list[str]]
) -> None:
    request = msgspec.structs.replace(job_request(rehearsal), vpc_config=network)
    job = rehearsal.control.get_model_customization_job(jobIdentifier=bedrock.create_job(request))
    assert (job.get("vpcConfig", {}), job["outputModelKmsKeyArn"]) == (network, SETTINGS.key_arn)


@pytest.mark.parametrize("mode", ["on-demand", "provisioned"])
def test_a_model_is_trained_served_asked_and_removed(rehearsal: Rehearsal, bedrock: Bedrock, mode: str) -> None:
    model_arn = trained(rehearsal, bedrock)
    name = serving_name(PREFIX, RUN, 1)
    arn = bedrock.serve(mode=mode, name=name, model_arn=model_arn, tags=TAGS, units=1, token="t")  # noqa: S106  no secret
    rehearsal.wait(minutes=60)
    served = bedrock.served(mode, name)
    assert served is not None
    assert (served.is_ready, served.arn, bedrock.tags(arn)) == (True, arn, TAGS)
    assert [(item.name, item.mode) for item in bedrock.all_served()] == [(name, mode)]
    record = TestRecord("r", (Turn("user", "question 3"),), "answer 3 is here", "be kind")
    call = build_question(
        load_catalogue().find(NOVA), arn, record, InferenceSettings(top_p=0.9, stop_sequences=("END",))
    )
    runtime = BedrockRuntime(rehearsal.runtime)
    with pytest.raises(ModelNotReady):
        runtime.ask(call.operation, call.parameters)
    answer = read_answer(load_catalogue().find(NOVA), call, runtime.ask(call.operation, call.parameters))
    assert answer.stop_reason == "end_turn"
    assert answer.input_tokens
    bedrock.stop_serving(mode, arn)
    bedrock.stop_serving(mode, arn)
    assert bedrock.served(mode, name) is None
    bedrock.delete_model(model_arn)
    assert not bedrock.model_is_there(model_arn)


class SlowBedrock:
    """Fails a number of times before it answers, each time after some seconds; these pass on a clock of its own."""

    def __init__(self, seconds: float, failures: int, error: Exception) -> None:
        self.now, self.calls = 0.0, 0
        self._seconds, self._failures, self._error = seconds, failures, error

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def converse(self, **_: object) -> JsonObject:
        self.calls += 1
        self.pause(self._seconds)
        if self.calls <= self._failures:
            raise self._error
        return {"output": {}, "stopReason": "end_turn", "usage": {}}

    def ask(self) -> JsonObject:
        runtime = BedrockRuntime(self, lambda: self.now, self.pause)  # type: ignore[arg-type]  # has the call made
        return runtime.ask("converse", {})


TIMEOUT = ReadTimeoutError(endpoint_url="https://bedrock-runtime.us-east-1.amazonaws.com")


def said(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Converse")  # type: ignore[typeddict-item]  # the members that are read


@pytest.mark.parametrize("error", [said("ThrottlingException", 429), said("InternalServerException", 500), TIMEOUT])
def test_a_question_that_fails_soon_is_asked_three_times_more(error: Exception) -> None:
    passes = SlowBedrock(seconds=0.2, failures=3, error=error)
    assert passes.ask()["stopReason"] == "end_turn"
    stays = SlowBedrock(seconds=0.2, failures=9, error=error)
    with pytest.raises(TransientError):
        stays.ask()
    assert (passes.calls, stays.calls) == (4, 4)


@pytest.mark.parametrize("seconds", [3.0, 7.5, 120.0])
def test_no_question_is_asked_again_later_than_some_seconds_after_it_was_asked_first(seconds: float) -> None:
    slow = SlowBedrock(seconds, failures=9, error=TIMEOUT)
    with pytest.raises(ServiceUnavailable):
        slow.ask()
    assert slow.now <= ASKED_AGAIN_SECONDS + seconds
    assert slow.calls == 1 or seconds < ASKED_AGAIN_SECONDS


def test_the_client_that_asks_leaves_asking_again_to_the_gateway() -> None:
    config = vars(Gateway(SETTINGS).runtime._client.meta.config)["_user_provided_options"]
    assert config["retries"] == {"mode": "standard", "total_max_attempts": 1}
    assert (config["connect_timeout"], config["read_timeout"]) == (CONNECT_SECONDS, READ_SECONDS)


@contextmanager
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Stubber, Bedrock]]:
    """Yield Bedrock as the gateway sees it, and what answers in its place."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    client = boto3.client("bedrock", region_name="us-east-1")
    with Stubber(client) as stub:
        yield stub, Bedrock(client)
        stub.assert_no_pending_responses()


def test_what_is_not_there_is_an_answer_and_no_error(bedrock: Bedrock) -> None:
    assert bedrock.job("nothing") is None
    assert bedrock.served("on-demand", "nothing") is None
    assert bedrock.served("provisioned", "nothing") is None
    assert bedrock.foundation_model("amazon.titan-text-express-v1:0:8k") is None
    assert not bedrock.model_is_there("nothing")
    bedrock.delete_model("nothing")
    bedrock.stop_serving("provisioned", "nothing")
    bedrock.stop_job("nothing")


@pytest.mark.parametrize(
    ("operation", "look_up"),
    [
        ("get_model_customization_job", lambda bedrock: bedrock.job("nothing")),
        ("get_custom_model", lambda bedrock: bedrock.model_is_there("nothing")),
        ("get_custom_model_deployment", lambda bedrock: bedrock.served("on-demand", "nothing")),
        ("get_provisioned_model_throughput", lambda bedrock: bedrock.served("provisioned", "nothing")),
        ("get_foundation_model", lambda bedrock: bedrock.foundation_model("nothing")),
        ("get_custom_model", lambda bedrock: bedrock.delete_model("nothing")),
    ],
)
def test_a_name_that_bedrock_calls_invalid_instead_of_unknown_is_absent_too(
    operation: str, look_up: Callable[[Bedrock], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with stubbed(monkeypatch) as (stub, bedrock):
        stub.add_client_error(operation, "ValidationException", "The provided model identifier is invalid.", 400)
        stub.add_client_error(operation, "ValidationException", "1 validation error detected", 400)
        assert not look_up(bedrock)
        with pytest.raises(RequestRejected, match="1 validation error detected"):
            look_up(bedrock)


ARN = "arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/abcdefghijkl"
SERVED: JsonObject = {"modelArn": ARN, "modelDeploymentName": "n", "customModelDeploymentArn": ARN, "status": "Active"}


@pytest.mark.parametrize("is_there", [False, True])
def test_what_serves_a_model_and_is_deleted_by_somebody_else_meanwhile_is_no_missing_permission(
    monkeypatch: pytest.MonkeyPatch, *, is_there: bool
) -> None:
    with stubbed(monkeypatch) as (stub, bedrock):
        stub.add_client_error("delete_custom_model_deployment", "AccessDeniedException", "not authorized", 403)
        if is_there:
            stub.add_response("get_custom_model_deployment", SERVED | {"createdAt": NOW})
        else:
            stub.add_client_error("get_custom_model_deployment", "ResourceNotFoundException", "gone", 404)
        with pytest.raises(AccessDenied) if is_there else nullcontext():
            bedrock.stop_serving("on-demand", ARN)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_model_that_is_deleted_by_somebody_else_meanwhile_is_no_missing_permission(
    monkeypatch: pytest.MonkeyPatch, *, is_there: bool
) -> None:
    model = {"modelArn": ARN, "modelName": "n", "creationTime": NOW}
    with stubbed(monkeypatch) as (stub, bedrock):
        stub.add_response("get_custom_model", model)
        stub.add_client_error("delete_custom_model", "AccessDeniedException", "not authorized", 403)
        if is_there:
            stub.add_response("get_custom_model", model)
        else:
            stub.add_client_error("get_custom_model", "ResourceNotFoundException", "gone", 404)
        with pytest.raises(AccessDenied) if is_there else nullcontext():
            bedrock.delete_model("n")


def test_a_base_model_is_described(bedrock: Bedrock) -> None:
    found = bedrock.foundation_model(NOVA)
    assert found is not None
    assert found.lifecycle_status == "ACTIVE"
    assert bedrock.has_access(NOVA)


def test_a_base_model_that_the_account_is_not_entitled_to_is_told_from_others() -> None:
    rehearsal = Rehearsal(faults=["base-model-unavailable"])
    bedrock = Bedrock(rehearsal.control)
    assert bedrock.foundation_model(NOVA) is not None
    assert not bedrock.has_access(NOVA)
    rehearsal.close()


def test_missing_model_units_are_told_from_other_refusals() -> None:
    rehearsal = Rehearsal(faults=["no-model-units"])
    bedrock = Bedrock(rehearsal.control)
    model_arn = trained(rehearsal, bedrock)
    with pytest.raises(QuotaUnavailable, match="model units"):
        bedrock.serve(mode="provisioned", name="n", model_arn=model_arn, tags=TAGS, units=1, token="t")  # noqa: S106  no secret
    rehearsal.close()
