"""Weeks of runs meet no quota: of each data set the best models stay, and the others for 14 days."""

import json
from datetime import timedelta

import pytest

from customization.json_types import JsonObject
from tests.workflow.pipeline import Pipeline

pytestmark = pytest.mark.exhaustive

RUNS = 120
HOURS_BETWEEN = 9
COMPARED_EVERY = 15
SWEPT_EVERY = 4


def _folder(pipeline: Pipeline, asked: JsonObject) -> dict[str, bytes]:
    return {**pipeline.folder(test=32), "run.json": json.dumps(asked).encode()}


@pytest.mark.minutes
def test_120_runs_in_seven_weeks_meet_no_quota_and_leave_the_best_three_models(pipeline: Pipeline) -> None:
    most_models = 0
    for number in range(RUNS):
        # Each trains anew on the same files, and some are compared
        asked = pipeline.request(
            hyperParameters={"epochCount": 1, "learningRate": 1e-5 + number * 1e-7},
            serving={"mode": "none" if number % COMPARED_EVERY else "on-demand"},
        )
        with pipeline.without_sweeps():  # there are more in so many runs than a test can wait for
            execution = pipeline.ask(asked) if number else pipeline.run(_folder(pipeline, asked))
        assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
        most_models = max(most_models, len(pipeline.models()))
        pipeline.skip_time(hours=HOURS_BETWEEN)
        if number % SWEPT_EVERY == 0:
            pipeline.pass_time(minutes=16)
    runs_within_retention = timedelta(days=14) / timedelta(hours=HOURS_BETWEEN) + SWEPT_EVERY
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
