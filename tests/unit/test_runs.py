"""One execution owns a run; who is not the owner touches nothing."""

from dataclasses import replace

import pytest

from customization.errors import RunSuperseded
from customization.gateway import ExecutionEnd
from customization.json_types import JsonObject
from customization.runs import Call, Claim, Plan, claim_run, note, owned_plan, read_call, save_plan
from tests.unit.fakes import EXECUTION, NOW, GatewayInMemory

ROW: JsonObject = {"runId": "support-0123456789", "dataset": "support", "startedAt": NOW.isoformat()}
SECOND = EXECUTION.replace("first", "second")


def claim(gateway: GatewayInMemory, execution: str, *, force: bool = False) -> Claim:
    return claim_run(gateway, ROW, execution, force=force)


def test_the_first_execution_gets_attempt_one_and_keeps_it_when_it_asks_again(gateway: GatewayInMemory) -> None:
    assert claim(gateway, EXECUTION).attempt == 1
    assert claim(gateway, EXECUTION).attempt == 1


def test_a_run_under_way_is_not_started_twice(gateway: GatewayInMemory) -> None:
    claim(gateway, EXECUTION)
    duplicate = claim(gateway, SECOND).duplicate_of
    assert duplicate is not None
    assert duplicate["executionArn"] == EXECUTION


def test_a_run_that_succeeded_is_not_repeated(gateway: GatewayInMemory) -> None:
    claim(gateway, EXECUTION)
    gateway.runs.update("support-0123456789", {"state": "SUCCEEDED"})
    gateway.executions[EXECUTION] = "SUCCEEDED"
    assert claim(gateway, SECOND).duplicate_of is not None


def test_a_run_that_succeeded_but_lost_its_model_before_the_last_answer_is_tried_again(
    gateway: GatewayInMemory,
) -> None:
    claim(gateway, EXECUTION)
    gateway.runs.update("support-0123456789", {"state": "SUCCEEDED", "modelLost": "Model not found."})
    gateway.executions |= {EXECUTION: "SUCCEEDED", SECOND: "SUCCEEDED"}
    assert claim(gateway, SECOND) == Claim(attempt=2, duplicate_of=None)
    gateway.runs.update("support-0123456789", {"state": "SUCCEEDED"})
    assert claim(gateway, EXECUTION).duplicate_of is not None


@pytest.mark.parametrize("ended", ["FAILED", "ABORTED", "TIMED_OUT"])
def test_a_run_that_did_not_succeed_is_tried_again_by_the_next_execution(gateway: GatewayInMemory, ended: str) -> None:
    claim(gateway, EXECUTION)
    gateway.runs.update("support-0123456789", {"state": ended})
    gateway.executions[EXECUTION] = ended
    assert claim(gateway, SECOND) == Claim(attempt=2, duplicate_of=None)


def test_a_run_whose_execution_died_unnoticed_is_tried_again(gateway: GatewayInMemory) -> None:
    claim(gateway, EXECUTION)
    gateway.executions[EXECUTION] = "ABORTED"
    assert claim(gateway, SECOND).attempt == 2


def test_of_two_executions_that_try_a_run_again_at_the_same_moment_one_owns_it(
    gateway: GatewayInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = EXECUTION.replace("first", "third")
    claim(gateway, EXECUTION)
    gateway.executions.update({EXECUTION: "FAILED", SECOND: "RUNNING", third: "RUNNING"})
    ask = gateway.execution_status

    def overtake(arn: str) -> ExecutionEnd:
        monkeypatch.setattr(gateway, "execution_status", ask)
        assert claim(gateway, third).attempt == 2
        return ask(arn)

    monkeypatch.setattr(gateway, "execution_status", overtake)
    repeated = claim(gateway, SECOND)
    assert repeated.duplicate_of is not None
    assert repeated.duplicate_of["executionArn"] == third


def test_an_execution_that_lost_its_run_is_told_so_and_changes_nothing(
    claimed: GatewayInMemory, plan: Plan, call: Call
) -> None:
    save_plan(claimed, plan)
    assert owned_plan(claimed, call) == plan
    claimed.runs.update(call.run_id, {"executionArn": SECOND, "attempt": 2})
    with pytest.raises(RunSuperseded, match="second"):
        owned_plan(claimed, call)
    note(claimed, call, {"state": "FAILED"})
    row = claimed.runs.get(call.run_id)
    assert row is not None
    assert row["state"] == "RUNNING"


@pytest.mark.parametrize("state", ["ABORTED", "TIMED_OUT", "FAILED"])
def test_a_redriven_run_is_running_again_and_has_no_end(
    claimed: GatewayInMemory, plan: Plan, call: Call, state: str
) -> None:
    save_plan(claimed, plan)
    before = claimed.runs.get(call.run_id)
    claimed.runs.update(call.run_id, {"state": state, "cause": "c", "fix": "f", "spentUsd": 1, "endedAt": "now"})
    owned_plan(claimed, call, goes_on=False)
    assert (claimed.runs.get(call.run_id) or {})["state"] == state
    owned_plan(claimed, call)
    assert claimed.runs.get(call.run_id) == before


@pytest.mark.parametrize("state", ["SUCCEEDED", "ESTIMATED"])
def test_a_run_that_has_its_result_keeps_it(claimed: GatewayInMemory, plan: Plan, call: Call, state: str) -> None:
    save_plan(claimed, plan)
    claimed.runs.update(call.run_id, {"state": state, "spentUsd": 1})
    owned_plan(claimed, call)
    row = claimed.runs.get(call.run_id) or {}
    assert (row["state"], row["spentUsd"]) == (state, 1)


def test_a_call_without_a_run_is_read_as_one(call: Call) -> None:
    event: JsonObject = {"now": "2026-11-22T09:00:00Z", "executionArn": EXECUTION}
    assert read_call(event) == replace(call, run_id="", attempt=0)


def test_force_repeats_a_run_that_succeeded_but_none_that_is_under_way(gateway: GatewayInMemory) -> None:
    claim(gateway, EXECUTION)
    assert claim(gateway, SECOND, force=True).duplicate_of is not None
    gateway.runs.update("support-0123456789", {"state": "SUCCEEDED"})
    gateway.executions[EXECUTION] = "SUCCEEDED"
    assert claim(gateway, SECOND, force=True).attempt == 2
