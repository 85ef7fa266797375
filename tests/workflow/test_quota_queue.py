"""More runs at once than the account's quotas allow: they wait in line, first come, first served, and none fails."""

from typing import TYPE_CHECKING

import pytest

from customization.json_types import Json, JsonObject
from tests.workflow import data
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.history import Happening

pytestmark = pytest.mark.exhaustive

PATIENCE_S = 900


def drop_at_once(pipeline: Pipeline, count: int, **request: Json) -> None:
    """Drop so many different data sets, one a second as an upload of many folders does, and let their runs end."""
    with pipeline.clock.hold():
        for number in range(count):
            files = data.labelled(100, 6, (1_000 + number) * 1_000, **request)
            pipeline.drop(f"{pipeline.dataset}-{number:02d}", files)
            pipeline.clock.sleep(1)
    pipeline.aws.wait_until_idle(PATIENCE_S)


def watch_line(pipeline: Pipeline, state: str) -> list[tuple[str, str]]:
    """Return a list that gets (what became of it, execution) for every attempt of the state from now on."""
    seen: list[tuple[str, str]] = []

    def notice(happening: "Happening") -> None:
        if happening.name == state and happening.kind in {"state-retried", "state-exited"}:
            seen.append((happening.kind, happening.execution_arn))

    pipeline.aws.watch(notice)
    return seen


def assert_served_in_order(pipeline: Pipeline, seen: list[tuple[str, str]], waiting: int) -> None:
    """Every run succeeded, and those that had to wait were served in the order of their tickets."""
    rows = {str(row["executionArn"]): row for row in pipeline.runs()}
    assert {row["state"] for row in rows.values()} == {"SUCCEEDED"}
    waited = {arn for kind, arn in seen if kind == "state-retried"}
    assert len(waited) >= waiting
    served = [arn for kind, arn in seen if kind == "state-exited" and arn in waited]
    assert served == sorted(waited, key=lambda arn: (str(rows[arn]["queuedAt"]), str(rows[arn]["runId"])))
    assert {rows[arn]["waitingFor"] for arn in waited} == {""}
    assert pipeline.what_bills() == []


def test_fifty_drops_at_once_wait_for_the_ten_jobs_of_the_account(pipeline: Pipeline) -> None:
    seen = watch_line(pipeline, "CreateCustomizationJob")
    drop_at_once(pipeline, 50, serving={"mode": "none"})
    assert_served_in_order(pipeline, seen, 40)
    jobs = pipeline.jobs()
    assert len(jobs) == 50
    for job in jobs:
        beside = [other for other in jobs if other["creationTime"] <= job["creationTime"] < other["endTime"]]
        assert len(beside) <= 10
    waits = [len(execution.history.events) for execution in pipeline.executions()]
    assert max(waits) < 25_000


@pytest.mark.parametrize(
    ("serving", "state", "waiting"),
    [
        ({"mode": "on-demand"}, "CreateModelDeployment", 3),
        ({"mode": "provisioned", "modelUnits": 8}, "CreateProvisionedThroughput", 3),
    ],
)
def test_models_wait_for_the_deployments_and_the_model_units_of_the_account(
    pipeline: Pipeline, serving: JsonObject, state: str, waiting: int
) -> None:
    seen = watch_line(pipeline, state)
    drop_at_once(pipeline, 8, serving=serving, budgetUsd=200)
    assert_served_in_order(pipeline, seen, waiting)
