"""More runs at once than the account's quotas allow: they wait in line, first come, first served, and none fails.

A quota that never leaves room ends the run after days, with nothing held.
"""

from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import pytest

from customization.failures import explain
from customization.json_types import Json, JsonObject
from rehearsal.embedded.faults import FunctionFault
from stacks.states import LONGEST_QUOTA_WAIT
from tests.workflow import data
from tests.workflow.checks import assert_failed, assert_nothing_is_left, assert_reported, assert_runs_again
from tests.workflow.matrix import Scenario
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.history import Happening
    from rehearsal.embedded.states.machines import Execution

pytestmark = pytest.mark.exhaustive

PATIENCE_S = 900
JOBS_AT_ONCE = 10
# All have asked for a job, most of them again and again, and none is done: the shortest takes 35 minutes
IN_LINE = timedelta(minutes=25)


def drop_many(pipeline: Pipeline, count: int, *, seconds_apart: float = 1, **request: Json) -> list[JsonObject]:
    """Drop so many different data sets, let their runs end, and return the rows of those that waited on the way.

    A second apart is how an upload of many folders drops them.
    """
    with pipeline.clock.hold():
        for number in range(count):
            files = data.labelled(100, 6, (1_000 + number) * 1_000, **request)
            pipeline.drop(f"{pipeline.dataset}-{number:02d}", files)
            if seconds_apart:
                pipeline.clock.sleep(seconds_apart)
        pipeline.clock.sleep(IN_LINE.total_seconds())
        waiting = [row for row in pipeline.runs() if row.get("waitingFor")]
    pipeline.aws.wait_until_idle(PATIENCE_S)
    return sorted(waiting, key=_ticket)


def _ticket(row: JsonObject) -> tuple[str, str]:
    return str(row["queuedAt"]), str(row["runId"])


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
    assert served == sorted(waited, key=lambda arn: _ticket(rows[arn]))
    assert {rows[arn]["waitingFor"] for arn in waited} == {""}
    assert pipeline.what_bills() == []


def assert_shown_in_line(line: list[JsonObject], waiting: int) -> None:
    """While they waited, every one but those with a job was shown in the table of runs, with its place."""
    assert [row["runsAhead"] for row in line] == [*range(waiting)]
    assert {(row["waitingFor"], row["state"]) for row in line} == {("customization job", "RUNNING")}
    assert all(str(row["startedAt"]) <= str(row["queuedAt"]) for row in line)


def datasets_in_order_of_jobs(pipeline: Pipeline) -> list[str]:
    """Return the data sets in the order in which Bedrock has got their jobs, never more than ten at once."""
    jobs, dataset_of = pipeline.jobs(), {row["jobName0"]: str(row["dataset"]) for row in pipeline.runs()}
    for job in jobs:
        beside = [other for other in jobs if other["creationTime"] <= job["creationTime"] < other["endTime"]]
        assert len(beside) <= JOBS_AT_ONCE
    return [dataset_of[job["jobName"]] for job in jobs]


@pytest.mark.minutes
def test_fifty_drops_wait_for_the_ten_jobs_of_the_account_in_the_order_in_which_they_were_dropped(
    pipeline: Pipeline,
) -> None:
    seen = watch_line(pipeline, "CreateCustomizationJob")
    line = drop_many(pipeline, 50, serving={"mode": "none"})
    assert_shown_in_line(line, 40)
    assert_served_in_order(pipeline, seen, 40)
    dropped = [f"{pipeline.dataset}-{number:02d}" for number in range(50)]
    assert [row["dataset"] for row in line] == dropped[JOBS_AT_ONCE:]
    assert datasets_in_order_of_jobs(pipeline) == dropped
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
    drop_many(pipeline, 8, serving=serving, budgetUsd=200)
    assert_served_in_order(pipeline, seen, waiting)


def test_drops_of_one_moment_wait_in_the_order_of_their_tickets(pipeline: Pipeline) -> None:
    line = drop_many(pipeline, 16, seconds_apart=0, serving={"mode": "none"})
    assert_shown_in_line(line, 6)
    assert {row["state"] for row in pipeline.runs()} == {"SUCCEEDED"}
    served = datasets_in_order_of_jobs(pipeline)
    assert len(served) == 16
    assert served[JOBS_AT_ONCE:] == [row["dataset"] for row in line]
    assert pipeline.what_bills() == []


# In the words of AWS where they are known: quotas of the AWS General Reference, and public issue threads
WITHOUT_ROOM = {
    "CreateCustomizationJob": (
        "CreateModelCustomizationJob",
        "You have reached the limit of 10 scheduled customization jobs.",
        "none",
    ),
    "CreateModelDeployment": (
        "CreateCustomModelDeployment",
        "You have reached the limit of 10 custom model deployments.",
        "on-demand",
    ),
    "CreateProvisionedThroughput": (
        "CreateProvisionedModelThroughput",
        "Your account does not currently have any no commitment model units reserved for amazon.nova-micro-v1:0:128k.",
        "provisioned",
    ),
}


@pytest.mark.parametrize("state", WITHOUT_ROOM)
def test_a_quota_that_never_leaves_room_ends_the_run_after_five_days_with_its_cause_and_fix_and_nothing_held(
    pipeline: Pipeline, state: str
) -> None:
    operation, message, mode = WITHOUT_ROOM[state]
    pipeline.inject(f"refuse:9999={operation}/ServiceQuotaExceededException: {message}")
    shorten(pipeline, state, message)
    with pipeline.without_sweeps():
        pipeline.drop(pipeline.dataset, pipeline.folder(serving={"mode": mode}))
        pipeline.aws.wait_until_idle(PATIENCE_S)
    pipeline.inject()
    pipeline.pass_time(hours=1)

    [execution] = [found for found in pipeline.executions() if not pipeline.has_joined(found)]
    assert_failed(pipeline, execution, at=state, error="QuotaUnavailable", says=message)
    assert_waited_five_days(execution, state)
    row, known = pipeline.row_of(execution), explain("QuotaUnavailable", message)
    assert str(row["cause"]).endswith(known.cause)
    assert row["fix"] == known.fix
    assert_reported(pipeline, row)
    assert_nothing_is_left(pipeline)
    assert_runs_again(pipeline, Scenario({"serving": {"mode": mode}}))


def shorten(pipeline: Pipeline, state: str, message: str) -> None:
    """Let only the first and the last 20 attempts be refused by Bedrock: the 1,400 between them would take minutes."""
    attempts, first = count(), 20
    between = round(LONGEST_QUOTA_WAIT.to_minutes() / 5) - 2 * first
    refusal = FunctionFault("QuotaUnavailable", message)
    pipeline.function_faults.strike(state, before=refusal, times=between, only=lambda _: next(attempts) >= first)


def assert_waited_five_days(execution: "Execution", state: str) -> None:
    """The last attempt came so long after the first, and an execution may be redriven for as many events again."""
    events = list(execution.history.events)
    [entered] = [
        event["timestamp"]
        for event in events
        if event["details"] is not None and event["details"][1].get("name") == state and "Entered" in event["type"]
    ]
    refused = [event["timestamp"] for event in events if event["type"] == "TaskFailed"]
    assert refused[-1] - entered == timedelta(seconds=LONGEST_QUOTA_WAIT.to_seconds()) == timedelta(days=5)
    assert len(events) < 12_500
