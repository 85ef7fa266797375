"""What AWS refuses or breaks on the way: what passes is waited for, the rest ends the run with its cause and fix."""

import pytest

from customization.json_types import as_list, as_object
from rehearsal.embedded.faults import FunctionFault, Kill, Throttle
from tests.workflow.checks import assert_failed
from tests.workflow.pipeline import Pipeline, sides_answered


@pytest.mark.parametrize(
    ("fault", "at", "error", "says"),
    [
        ("job-fails", "PollCustomizationJob", "CustomizationJobFailed", "internal error when processing the request"),
        ("job-stopped", "PollCustomizationJob", "CustomizationJobStopped", "was stopped before it was done"),
        pytest.param(
            *("job-stalls", "PollCustomizationJob", "CustomizationJobStalled", "has not started after 24 h"),
            marks=pytest.mark.exhaustive,
        ),
        (
            "refuse:1=CreateModelCustomizationJob/ValidationException",
            "CreateCustomizationJob",
            "CustomizationJobFailed",
            "Bedrock refused the model customization job",
        ),
        (
            "refuse:6=Converse/AccessDeniedException",
            "EvaluateBaseline",
            "States.ExceedToleratedFailureThreshold",
            "AccessDenied: Converse",
        ),
        ("serving-fails", "PollModelDeployment", "ServingFailed", "internal error when processing the request"),
        pytest.param(
            *("serving-stuck", "PollModelDeployment", "ServingFailed", "expected to be ready within 3:00:00"),
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_what_fails_in_bedrock_ends_the_run_with_its_cause_and_releases_what_bills(
    pipeline: Pipeline, fault: str, at: str, error: str, says: str
) -> None:
    pipeline.inject(fault)
    execution = pipeline.run(pipeline.folder())
    pipeline.pass_time(hours=1)
    assert_failed(pipeline, execution, at=at, error=error, says=says)


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
def test_what_passes_by_itself_is_waited_for(pipeline: Pipeline, fault: str) -> None:
    pipeline.inject(fault)
    execution = pipeline.run(pipeline.folder())
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert sides_answered(pipeline.predictions(execution)) == {"base": 6, "custom": 6}
    assert len(pipeline.jobs()) == 1
    assert pipeline.what_bills() == []


@pytest.mark.parametrize("fault", [{"before": Throttle()}, {"after": Kill()}], ids=["throttled", "killed"])
def test_every_function_may_be_throttled_or_die_after_its_work_and_nothing_is_done_twice(
    pipeline: Pipeline, fault: dict[str, FunctionFault]
) -> None:
    pipeline.function_faults.strike(before=fault.get("before"), after=fault.get("after"))
    execution = pipeline.run(pipeline.folder())
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    broken = pipeline.function_faults.broken
    assert {"plan_run", "create_customization_job", "create_model_deployment", "publish_report"} <= {*broken}
    assert len(pipeline.jobs()) == 1
    assert len(pipeline.models()) == 1
    assert pipeline.row_of(execution)["attempt"] == 1
    assert pipeline.what_bills() == []


def test_a_base_model_that_cannot_be_asked_is_left_out_with_a_note(pipeline: Pipeline) -> None:
    pipeline.inject("base-model-unavailable")
    execution = pipeline.run(pipeline.folder())
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert "EvaluateBaseline" not in pipeline.states(execution)
    assert sides_answered(pipeline.predictions(execution)) == {"custom": 6}
    assert pipeline.row_of(execution)["verdict"] == "not compared"
    notes = as_list(pipeline.document(execution, "report.json")["notes"], "notes")
    assert any("cannot be asked" in str(note) for note in notes)


def test_answers_that_fail_are_recorded_and_make_the_verdict_inconclusive(pipeline: Pipeline) -> None:
    # Four failures in a row fail a record: of 104, each of 32 records takes at most three without failing
    pipeline.inject("answers-fail:104")
    execution = pipeline.run(pipeline.folder(test=32))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    answered = sides_answered(pipeline.predictions(execution))
    assert answered["base"] < 31
    assert len(pipeline.predictions(execution)) == 32
    assert pipeline.row_of(execution)["verdict"] == "inconclusive"


def test_a_run_that_failed_in_evaluation_adopts_its_model_when_it_is_started_again(pipeline: Pipeline) -> None:
    def deny(_: object) -> None:
        pipeline.inject("refuse:6=Converse/AccessDeniedException")

    execution = pipeline.interrupt("WaitForModelDeployment", pipeline.folder(), deny)
    error = "States.ExceedToleratedFailureThreshold"
    assert_failed(pipeline, execution, at="EvaluateCustomModel", error=error, says="AccessDenied: Converse")

    pipeline.inject()
    again = pipeline.ask(pipeline.request())
    assert again.outcome.status == "SUCCEEDED", again.outcome.cause
    assert len(pipeline.jobs()) == 1
    assert pipeline.row_of(again)["attempt"] == 2
    [stage] = as_list(pipeline.document(again, "report.json")["stages"], "stages")
    assert as_object(stage, "stage")["wasAdopted"]
    assert pipeline.what_bills() == []


@pytest.mark.parametrize("function", ["record_failure", "release_resources"])
def test_what_fails_while_a_failure_is_handled_is_made_up_for_by_the_sweeper(pipeline: Pipeline, function: str) -> None:
    pipeline.inject("serving-fails")
    pipeline.function_faults.strike(function, before=FunctionFault("Broken", "injected"))
    execution = pipeline.run(pipeline.folder())
    assert execution.outcome.status == "FAILED"
    pipeline.pass_time(hours=1)
    assert pipeline.row_of(execution)["state"] == "FAILED"
    assert pipeline.row_of(execution)["cause"]
    assert any(told.subject.startswith("Failed") for told in pipeline.told_of(execution))
    assert pipeline.what_bills() == []
