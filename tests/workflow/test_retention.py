"""Weeks of runs meet no quota: of each data set the best models stay, and the others for 14 days."""

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.workflow import data
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution

pytestmark = pytest.mark.exhaustive

RUNS = 120
HOURS_BETWEEN = 9
COMPARED_EVERY = 15


def run_without_sweeps(pipeline: Pipeline, files: dict[str, bytes]) -> "Execution":
    """Let a run end without the scheduled sweeps: there are more in so many runs than a test can wait for."""
    pipeline.aws._events._fire = lambda _: None  # type: ignore[method-assign, assignment]  # the test takes the rules away
    execution = pipeline.run(files)
    del pipeline.aws._events._fire
    return execution


def test_120_runs_in_seven_weeks_meet_no_quota_and_leave_the_best_three_models(pipeline: Pipeline) -> None:
    most_models = 0
    for number in range(RUNS):
        is_compared = number % COMPARED_EVERY == 0
        mode = "on-demand" if is_compared else "none"
        files = data.labelled(100, 32 if is_compared else 6, (2_000 + number) * 1_000, serving={"mode": mode})
        if is_compared:  # scores on other test records say nothing about each other
            files["test.jsonl"] = data.lines(data.pairs(32, 1_999_500))
        execution = run_without_sweeps(pipeline, files)
        assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
        most_models = max(most_models, len(pipeline.models()))
        pipeline.skip_time(hours=HOURS_BETWEEN)
        if number % 2:
            pipeline.pass_time(minutes=16)
    runs_within_retention = timedelta(days=15) / timedelta(hours=HOURS_BETWEEN)
    assert most_models <= runs_within_retention + 3
    assert {row["state"] for row in pipeline.runs()} == {"SUCCEEDED"}
    assert len(pipeline.jobs()) == len(pipeline.runs()) == RUNS

    pipeline.skip_time(days=15)
    pipeline.pass_time(minutes=16)
    scored = {str(row["jobName0"]) for row in pipeline.runs() if row.get("scores")}
    assert len(scored) == RUNS / COMPARED_EVERY
    assert len(pipeline.models()) == 3
    assert set(pipeline.models()) <= scored
    assert pipeline.what_bills() == []
