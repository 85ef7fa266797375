"""StopExecution skips every Catch: the sweeper leaves nothing behind, and the same request can be run again."""

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.workflow.checks import assert_settled
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution


def assert_recorded_and_released(pipeline: Pipeline, execution: "Execution") -> None:
    row = pipeline.row_of(execution)
    assert (row["state"], row["cause"]) == ("ABORTED", "Somebody stopped the execution.")
    assert row["fix"]
    assert f"Aborted: {row['runId']}" in pipeline.subjects()
    pipeline.pass_time(hours=1)
    assert pipeline.what_bills() == []
    assert pipeline.subjects().count(f"Aborted: {row['runId']}") == 1


def test_a_run_that_is_stopped_in_training_stops_its_job_and_a_second_start_trains_again(pipeline: Pipeline) -> None:
    # The shortest job of the stand-in takes 35 minutes.
    stopped = pipeline.interrupt(
        "WaitForCustomizationJob", pipeline.folder(), pipeline.stop, after=timedelta(minutes=30)
    )
    assert_recorded_and_released(pipeline, stopped)
    assert [job["status"] for job in pipeline.jobs()] == ["Stopped"]

    again = pipeline.ask(pipeline.request())
    assert again.outcome.status == "SUCCEEDED", again.outcome.cause
    assert [job["status"] for job in pipeline.jobs()] == ["Stopped", "Completed"]
    assert pipeline.row_of(again)["attempt"] == 2
    assert pipeline.what_bills() == []


@pytest.mark.parametrize(
    ("mode", "state"),
    [
        pytest.param("on-demand", "WaitForModelDeployment", marks=pytest.mark.exhaustive),
        pytest.param("provisioned", "WaitForProvisionedThroughput", marks=pytest.mark.exhaustive),
        ("provisioned", "EvaluateCustomModel"),
    ],
)
def test_a_run_that_is_stopped_while_its_model_is_served_ends_the_serving_and_a_second_start_adopts_the_model(
    pipeline: Pipeline, mode: str, state: str
) -> None:
    stopped = pipeline.interrupt(state, pipeline.folder(serving={"mode": mode}), pipeline.stop)
    assert_recorded_and_released(pipeline, stopped)

    again = pipeline.ask(pipeline.request(serving={"mode": mode}))
    assert again.outcome.status == "SUCCEEDED", again.outcome.cause
    assert len(pipeline.jobs()) == 1
    assert pipeline.what_bills() == []


@pytest.mark.exhaustive
def test_what_a_stopped_run_has_spent_is_settled_though_it_is_started_again_before_anybody_has_seen_its_end(
    pipeline: Pipeline,
) -> None:
    with pipeline.without_status_events(), pipeline.without_sweeps():
        pipeline.interrupt("WaitForCustomizationJob", pipeline.folder(), pipeline.stop, after=timedelta(minutes=30))
        again = pipeline.ask(pipeline.request())
        assert again.outcome.status == "SUCCEEDED", again.outcome.cause
    pipeline.pass_time(hours=1)
    assert [row["attempt"] for row in pipeline.runs()] == [2]
    [month] = [row for row in pipeline.rows() if str(row["runId"]).startswith("month#")]
    assert sum(name.startswith("spent#") for name in month) == 2
    assert_settled(pipeline)
    assert not [row for row in pipeline.rows() if str(row["runId"]).startswith("replaced#")]
    assert sum(subject.startswith("Aborted: ") for subject in pipeline.subjects()) == 1
