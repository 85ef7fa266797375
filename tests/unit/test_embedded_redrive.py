"""Redriving an execution goes on from the state that did not end, as Step Functions does."""

from datetime import timedelta

import pytest

from customization.json_types import Json, JsonObject, as_object
from rehearsal.embedded.states.errors import StateError
from tests.unit.machine_harness import START, Run, task

EVENTS = {"ExecutionRedriven", "MapRunStarted", "MapRunRedriven"}


def special_events(run: Run) -> list[str]:
    return [event["type"] for event in run.execution.history.events if event["type"] in EVENTS]


def test_a_redrive_repeats_the_failed_state_with_its_variables_and_retries_and_none_before_it() -> None:
    calls: list[Json] = []

    def answer(payload: JsonObject) -> Json:
        calls.append(payload)
        if len(calls) < 6:
            raise StateError("Throttled", "slow down")
        return "done"

    retry: Json = [{"ErrorEquals": ["Throttled"], "IntervalSeconds": 10, "MaxAttempts": 2}]
    told: JsonObject = {"kept": "{% $kept %}", "redrives": "{% $states.context.Execution.RedriveCount %}"}
    states: JsonObject = {
        "Keep": {"Type": "Pass", "Assign": {"kept": "{% $states.input.n + 1 %}"}, "Output": {"n": 7}, "Next": "Work"},
        "Work": task(Retry=retry, Output=told),
    }
    run = Run(states, answer, {"n": 1}).finish()
    assert (run.execution.outcome.error, len(calls)) == ("Throttled", 3)
    run.redrive()
    assert (run.execution.outcome.status, len(calls)) == ("SUCCEEDED", 6)
    assert run.output == '{"kept":2,"redrives":1}'
    assert calls == [{"n": 7}] * 6
    assert run.visited() == ["Keep", "Work", "Work"]
    assert run.changes == ["RUNNING", "FAILED", "RUNNING", "SUCCEEDED"]
    assert special_events(run) == ["ExecutionRedriven"]
    detail = run.execution.status_change()
    assert (detail["redriveCount"], detail["redriveStatus"]) == (1, "NOT_REDRIVABLE")


def test_a_redrive_of_an_execution_that_ended_in_a_fail_state_fails_again() -> None:
    run = Run({"End": {"Type": "Fail", "Error": "Broken", "Cause": "as ever"}}).finish().redrive()
    assert (run.execution.outcome.status, run.execution.outcome.error) == ("FAILED", "Broken")
    assert run.visited() == ["End", "End"]


def test_a_stopped_wait_begins_anew_and_the_timeout_of_the_machine_too() -> None:
    run = Run({"Wait": {"Type": "Wait", "Seconds": 100, "End": True}}, timeout=150)
    with run.clock.hold():
        run.execution.start()
        run.clock.sleep(90)
        run.execution.stop(None, None)
    run.clock.wait_until_idle(20)
    assert run.execution.outcome.status == "ABORTED"
    run.redrive()
    assert (run.execution.outcome.status, run.seconds) == ("SUCCEEDED", 190)


def test_only_the_children_of_a_map_that_have_not_succeeded_run_again() -> None:
    seen: list[Json] = []

    def answer(payload: JsonObject) -> Json:
        seen.append(payload["n"])
        if payload["n"] == 2 and seen.count(2) == 1:
            raise StateError("Broken", "once")
        return payload["n"]

    child: JsonObject = {
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
        "StartAt": "Child",
        "States": {"Child": task()},
    }
    item: JsonObject = {"n": "{% $states.context.Map.Item.Value %}"}
    each: JsonObject = {
        "Type": "Map",
        "Items": [1, 2, 3],
        "ItemSelector": item,
        "MaxConcurrency": 1,
        "ItemProcessor": child,
        "End": True,
    }
    run = Run({"Each": each}, answer).finish()
    assert run.execution.outcome.error == "States.ExceedToleratedFailureThreshold"
    assert seen == [1, 2]
    run.redrive()
    assert run.output == "[1,2,3]"
    assert seen == [1, 2, 2, 3]
    assert special_events(run) == ["MapRunStarted", "ExecutionRedriven", "MapRunRedriven"]
    arns = {
        as_object(event["details"][1], "details")["mapRunArn"]
        for event in run.execution.history.events
        if event["details"] is not None and event["type"] in {"MapRunStarted", "MapRunRedriven"}
    }
    assert len(arns) == 1


@pytest.mark.parametrize(("days", "reason"), [(13, None), (15, "Execution redrivable period exceeded")])
def test_an_execution_is_redrivable_for_14_days(days: int, reason: str | None) -> None:
    run = Run({"End": {"Type": "Fail"}}).finish()
    run.clock.advance(timedelta(days=days).total_seconds())
    assert run.clock.now() == START + timedelta(days=days)
    assert run.execution.redrive_obstacle() == reason


def test_what_has_succeeded_is_not_redrivable() -> None:
    run = Run({"End": {"Type": "Succeed"}}).finish()
    assert run.execution.redrive_obstacle() == "Execution is SUCCEEDED and cannot be redriven"
