"""What AWS refuses or breaks on the way: what passes is waited for, the rest ends the run with its cause and fix."""

import json
from pathlib import Path

import pytest

from customization.json_types import Json, JsonObject, as_list, as_object
from rehearsal.embedded.faults import FunctionFault, Kill, Throttle
from tests.workflow import data
from tests.workflow.checks import assert_failed
from tests.workflow.conftest import Assemble, Rehearse
from tests.workflow.pipeline import sides_answered


class Faults:
    """Breaks a call of each of `functions`, all when there are none named, `times` times."""

    def __init__(
        self, *functions: str, before: FunctionFault | None = None, after: FunctionFault | None = None, times: int = 1
    ) -> None:
        self._functions = functions
        self._before = before
        self._after = after
        self._times = times
        self.broken: dict[str, int] = {}

    def before_invoke(self, function: str, _: Json) -> None:
        if self._before and self._strikes(function):
            raise self._before

    def after_invoke(self, function: str, *_: object) -> None:
        if self._after and self._strikes(function):
            raise self._after

    def _strikes(self, function: str) -> bool:
        if (self._functions and function not in self._functions) or self.broken.get(function, 0) >= self._times:
            return False
        self.broken[function] = self.broken.get(function, 0) + 1
        return True


@pytest.mark.parametrize(
    ("fault", "at", "error", "says"),
    [
        ("job-fails", "PollCustomizationJob", "CustomizationJobFailed", "internal error when processing the request"),
        ("job-fails-validation", "PollCustomizationJob", "CustomizationJobFailed", "please try again"),
        (
            "job-fails=Input size exceeded in file train.jsonl",
            "PollCustomizationJob",
            "CustomizationJobFailed",
            "A record has more tokens than the base model takes",
        ),
        ("job-stopped", "PollCustomizationJob", "CustomizationJobStopped", "was stopped before it was done"),
        ("job-stalls", "PollCustomizationJob", "CustomizationJobStalled", "has not started after 24 h"),
        (
            "refuse:1=CreateModelCustomizationJob/ValidationException",
            "CreateCustomizationJob",
            "CustomizationJobFailed",
            "Bedrock refused the model customization job",
        ),
        ("serving-fails", "PollModelDeployment", "ServingFailed", "internal error when processing the request"),
        ("serving-stuck", "PollModelDeployment", "ServingFailed", "expected to be ready within 3:00:00"),
    ],
)
def test_what_fails_in_bedrock_ends_the_run_with_its_cause_and_releases_what_bills(
    rehearse: Rehearse, fault: str, at: str, error: str, says: str
) -> None:
    pipeline = rehearse(faults=[fault])
    execution = pipeline.run("shop", data.labelled())
    pipeline.pass_time(hours=1)
    assert_failed(pipeline, execution, at=at, error=error, says=says)


def test_a_throughput_that_fails_ends_the_run_and_is_deleted(rehearse: Rehearse) -> None:
    pipeline = rehearse(faults=["serving-fails"])
    execution = pipeline.run("shop", data.labelled(serving={"mode": "provisioned"}))
    says = "internal error when processing the request"
    assert_failed(pipeline, execution, at="PollProvisionedThroughput", error="ServingFailed", says=says)


def test_an_account_without_model_units_is_told_which_quota_to_raise_before_anything_is_started(
    rehearse: Rehearse,
) -> None:
    pipeline = rehearse(faults=["no-model-units"])
    execution = pipeline.run("shop", data.labelled(serving={"mode": "provisioned"}))
    assert_failed(pipeline, execution, at="CheckPreconditions", error="PreconditionFailed", says="L-BE77399C")
    assert pipeline.jobs() == []


@pytest.mark.parametrize(
    "fault",
    [
        "throttled",
        "model-not-ready",
        "refuse:6=CreateModelCustomizationJob/ThrottlingException",
        "refuse:6=CreateCustomModelDeployment/ServiceQuotaExceededException",
        "lose-answer=CreateModelCustomizationJob",
        "lose-answer=CreateCustomModelDeployment",
    ],
)
def test_what_passes_by_itself_is_waited_for(rehearse: Rehearse, fault: str) -> None:
    pipeline = rehearse(faults=[fault])
    execution = pipeline.run("shop", data.labelled())
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert sides_answered(pipeline.predictions(execution)) == {"base": 6, "custom": 6}
    assert len(pipeline.jobs()) == 1
    assert pipeline.what_bills() == []


@pytest.mark.parametrize("fault", [Faults(before=Throttle()), Faults(after=Kill())], ids=["throttled", "killed"])
def test_every_function_may_be_throttled_or_die_after_its_work_and_nothing_is_done_twice(
    rehearse: Rehearse, fault: Faults
) -> None:
    pipeline = rehearse(function_faults=fault)
    execution = pipeline.run("shop", data.labelled())
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert {"plan_run", "create_customization_job", "create_model_deployment", "publish_report"} <= fault.broken.keys()
    assert len(pipeline.jobs()) == 1
    assert len(pipeline.models()) == 1
    assert pipeline.row_of(execution)["attempt"] == 1
    assert pipeline.what_bills() == []


def test_a_base_model_that_cannot_be_asked_is_left_out_with_a_note(rehearse: Rehearse) -> None:
    pipeline = rehearse(faults=["base-model-unavailable"])
    execution = pipeline.run("shop", data.labelled())
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert "EvaluateBaseline" not in pipeline.states(execution)
    assert sides_answered(pipeline.predictions(execution)) == {"custom": 6}
    assert pipeline.row_of(execution)["verdict"] == "not compared"
    notes = as_list(pipeline.document(execution, "report.json")["notes"], "notes")
    assert any("cannot be asked" in str(note) for note in notes)


def test_answers_that_fail_are_recorded_and_make_the_verdict_inconclusive(rehearse: Rehearse) -> None:
    pipeline = rehearse(faults=["answers-fail:32"])  # the client asks four times before a record has failed
    execution = pipeline.run("shop", data.labelled(test=32))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    answered = sides_answered(pipeline.predictions(execution))
    assert answered["base"] < 31
    assert answered["custom"] == len(pipeline.predictions(execution)) == 32
    assert pipeline.row_of(execution)["verdict"] == "inconclusive"


def test_a_run_that_failed_in_evaluation_adopts_its_model_when_it_is_started_again(rehearse: Rehearse) -> None:
    class CustomShardFails(Faults):
        def before_invoke(self, function: str, payload: Json) -> None:
            if function == "evaluate_shard" and as_object(payload, "payload")["side"] == "custom":
                super().before_invoke(function, payload)

    denied = FunctionFault("ResourceNotFound", "the deployment is gone")
    pipeline = rehearse(function_faults=CustomShardFails(before=denied))
    execution = pipeline.run("shop", data.labelled())
    assert_failed(
        pipeline,
        execution,
        at="EvaluateCustomModel",
        error="States.ExceedToleratedFailureThreshold",
        says="",
    )

    again = pipeline.ask({"dataset": "shop", "acceptUnknownPrices": data.ACCEPTED})
    assert again.outcome.status == "SUCCEEDED", again.outcome.cause
    assert len(pipeline.jobs()) == 1
    assert pipeline.row_of(again)["attempt"] == 2
    [stage] = as_list(pipeline.document(again, "report.json")["stages"], "stages")
    assert as_object(stage, "stage")["wasAdopted"]
    assert pipeline.what_bills() == []


@pytest.mark.parametrize("function", ["record_failure", "release_resources"])
def test_what_fails_while_a_failure_is_handled_is_made_up_for_by_the_sweeper(rehearse: Rehearse, function: str) -> None:
    fault = Faults(function, before=FunctionFault("Broken", "injected"), times=3)
    pipeline = rehearse(faults=["serving-fails"], function_faults=fault)
    execution = pipeline.run("shop", data.labelled())
    assert execution.outcome.status == "FAILED"
    pipeline.pass_time(hours=1)
    assert pipeline.row_of(execution)["state"] == "FAILED"
    assert pipeline.row_of(execution)["cause"]
    assert pipeline.told_of(execution)[-1].subject.startswith("Failed")
    assert pipeline.what_bills() == []


def _without(action: str, assembly: Path, folder: Path) -> Path:
    """Return a copy of the assembly in which no role may do `action`; one role could."""
    folder.mkdir()
    taken = 0

    def take_away(value: Json) -> Json:
        nonlocal taken
        if isinstance(value, list):
            return [take_away(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        allowed = value.get("Action")
        actions = allowed if isinstance(allowed, list) else [allowed]
        if value.get("Effect") != "Allow" or action not in actions:
            return {name: take_away(inner) for name, inner in value.items()}
        taken += 1
        return {**value, "Action": [other for other in actions if other != action] or ["sts:GetCallerIdentity"]}

    for path in assembly.iterdir():
        if path.name.endswith(".template.json"):
            template: JsonObject = json.loads(path.read_bytes())
            (folder / path.name).write_text(json.dumps(take_away(template)))
        else:
            (folder / path.name).symlink_to(path)
    assert taken == 1
    return folder


@pytest.mark.parametrize(
    ("action", "at"),
    [
        ("bedrock:CreateModelCustomizationJob", "CreateCustomizationJob"),
        ("bedrock:CreateCustomModelDeployment", "CreateModelDeployment"),
    ],
)
def test_a_role_without_a_permission_fails_the_run_at_the_state_that_needs_it(
    rehearse: Rehearse, assemble: Assemble, tmp_path: Path, action: str, at: str
) -> None:
    pipeline = rehearse(assembly=_without(action, assemble("us-east-1"), tmp_path / "assembly"))
    execution = pipeline.run("shop", data.labelled())
    pipeline.pass_time(hours=1)
    assert_failed(pipeline, execution, at=at, error="AccessDenied", says=f"not authorized to perform: {action}")
