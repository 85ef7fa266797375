"""Redriving an execution is harmless: it ends right, or it notices that another has taken its run over."""

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.workflow.checks import assert_nothing_is_left
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution

pytestmark = pytest.mark.exhaustive


def redrive(pipeline: Pipeline, execution: "Execution") -> "Execution":
    """Redrive an execution as a person does in the console, and let it end."""
    pipeline.person("RunOperator").client("stepfunctions").redrive_execution(executionArn=execution.arn)
    pipeline.finish()
    return execution


def committed_usd(pipeline: Pipeline) -> float:
    [month] = [row for row in pipeline.rows() if str(row["runId"]).startswith("month#")]
    return float(str(month["committedUsd"]))


def test_a_redrive_of_a_failed_execution_changes_nothing(pipeline: Pipeline) -> None:
    pipeline.inject("job-fails")
    failed = pipeline.run(pipeline.folder())
    before = pipeline.row_of(failed), pipeline.subjects(), pipeline.billed(), committed_usd(pipeline)
    assert redrive(pipeline, failed).outcome.status == "FAILED"
    assert (pipeline.row_of(failed), pipeline.subjects(), pipeline.billed(), committed_usd(pipeline)) == before
    assert pipeline.what_bills() == []


def test_a_redrive_of_a_run_that_was_stopped_in_training_ends_with_its_job_stopped(pipeline: Pipeline) -> None:
    stopped = pipeline.interrupt("WaitForCustomizationJob", pipeline.folder(), pipeline.stop, timedelta(minutes=30))
    pipeline.pass_time(hours=1)
    redrive(pipeline, stopped)
    assert (stopped.outcome.status, stopped.outcome.error) == ("FAILED", "CustomizationJobStopped")
    assert pipeline.row_of(stopped)["state"] == "FAILED"
    assert len(pipeline.jobs()) == 1
    assert pipeline.what_bills() == []

    again = pipeline.ask(pipeline.request())
    assert again.outcome.status == "SUCCEEDED", again.outcome.cause
    assert pipeline.what_bills() == []


@pytest.mark.parametrize("state", ["EvaluateBaseline", "CompareModels", "PublishReport"])
def test_a_redrive_of_a_run_that_was_stopped_between_jobs_and_servings_ends_the_run(
    pipeline: Pipeline, state: str
) -> None:
    stopped = pipeline.interrupt(state, pipeline.folder(), pipeline.stop)
    pipeline.pass_time(hours=1)
    assert pipeline.what_bills() == []
    redrive(pipeline, stopped)
    assert stopped.outcome.status == "SUCCEEDED", stopped.outcome.cause
    assert pipeline.row_of(stopped)["state"] == "SUCCEEDED"
    assert pipeline.states(stopped).count("PlanRun") == 1
    assert len([job for job in pipeline.jobs() if job["status"] == "Completed"]) == 1
    assert committed_usd(pipeline) == pytest.approx(pipeline.row_of(stopped)["spentUsd"])
    pipeline.pass_time(hours=1)
    assert pipeline.what_bills() == []


def test_a_redriven_run_that_dies_again_is_recorded_told_and_settled_again(pipeline: Pipeline) -> None:
    stopped = pipeline.interrupt("EvaluateBaseline", pipeline.folder(), pipeline.stop)
    pipeline.pass_time(hours=1)
    trains = pipeline.entering("WaitForCustomizationJob")
    with pipeline.clock.hold():
        pipeline.person("RunOperator").client("stepfunctions").redrive_execution(executionArn=stopped.arn)
        assert trains.wait(86_400)
        assert "cause" not in pipeline.row_of(stopped)
        pipeline.stop(stopped)
    pipeline.finish()
    pipeline.pass_time(hours=1)
    assert pipeline.row_of(stopped)["state"] == "ABORTED"
    assert [subject.partition(":")[0] for subject in pipeline.subjects()] == ["Started", "Aborted", "Aborted"]
    assert_nothing_is_left(pipeline)


@pytest.mark.parametrize("mode", ["on-demand", "provisioned"])
def test_a_redriven_execution_touches_nothing_of_the_attempt_that_has_taken_its_run_over(
    pipeline: Pipeline, mode: str
) -> None:
    request = pipeline.request(serving={"mode": mode})
    stopped = pipeline.interrupt("WaitForCustomizationJob", pipeline.folder(serving={"mode": mode}), pipeline.stop)
    pipeline.pass_time(hours=1)
    served = pipeline.entering("EvaluateCustomModel")
    with pipeline.clock.hold():
        arn = pipeline.start(request)
        served.wait(86_400)
        pipeline.person("RunOperator").client("stepfunctions").redrive_execution(executionArn=stopped.arn)
    pipeline.finish()
    assert (stopped.outcome.status, stopped.outcome.error) == ("FAILED", "RunSuperseded")
    second = pipeline.aws.wait_for_execution(arn)
    assert second.outcome.status == "SUCCEEDED", second.outcome.cause
    [row] = pipeline.runs()
    assert (row["state"], row["attempt"], row["executionArn"]) == ("SUCCEEDED", 2, arn)
    assert "error" not in row
    assert pipeline.what_bills() == []
    pipeline.pass_time(hours=1)
    assert [subject for subject in pipeline.subjects() if subject.startswith("Failed")] == [
        f"Failed at PollCustomizationJob: {row['runId']}"
    ]


def test_a_run_that_succeeded_cannot_be_redriven(pipeline: Pipeline) -> None:
    done = pipeline.run(pipeline.folder(action="estimate"))
    states = pipeline.aws.session().client("stepfunctions")
    with pytest.raises(states.exceptions.ExecutionNotRedrivable, match="SUCCEEDED"):
        states.redrive_execution(executionArn=done.arn)
