"""Waiting in line for a quota: first come, first served."""

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from customization import budget, quota_queue
from customization.errors import QuotaUnavailable
from customization.runs import Call
from tests.unit.fakes import NOW, GatewayInMemory

if TYPE_CHECKING:
    from customization.json_types import JsonObject


def run_of(gateway: GatewayInMemory, name: str, minutes: int = 0) -> Call:
    """Return a call of a run that has an execution of its own."""
    gateway.runs.put({"runId": name, "executionArn": f"arn:{name}", "attempt": 1, "state": "RUNNING"})
    return Call(now=NOW + timedelta(minutes=minutes), execution_arn=f"arn:{name}", run_id=name, attempt=1)


def _create(*, room: bool) -> None:
    if not room:
        raise QuotaUnavailable("10 of 10")


def ask(gateway: GatewayInMemory, call: Call, *, room: bool, wanted: str = quota_queue.JOB, minutes: int = 0) -> bool:
    """Return whether the run got what it asked for so many minutes later."""
    try:
        with quota_queue.turn(
            gateway, replace(call, now=call.now + timedelta(minutes=minutes)), wanted, is_there=False
        ):
            _create(room=room)
    except QuotaUnavailable:
        return False
    return True


def ticket(gateway: GatewayInMemory, call: Call) -> tuple[object, object, object]:
    row = gateway.runs.get(call.run_id) or {}
    return row.get("waitingFor"), row.get("queuedAt"), row.get("runsAhead")


def test_nobody_stands_in_line_while_there_is_room(gateway: GatewayInMemory) -> None:
    for name in ("first", "second"):
        call = run_of(gateway, name)
        assert ask(gateway, call, room=True)
        assert ticket(gateway, call) == (None, None, None)


def test_nobody_overtakes_a_run_that_was_refused_before(gateway: GatewayInMemory) -> None:
    first, second, third = (run_of(gateway, name, at) for at, name in enumerate(("z-first", "m-second", "a-third")))
    assert not ask(gateway, first, room=False)
    assert not ask(gateway, second, room=True)
    assert not ask(gateway, third, room=True)
    assert ticket(gateway, third) == (quota_queue.JOB, third.now.isoformat(), 2)

    assert not ask(gateway, second, room=True, minutes=5)
    assert ask(gateway, first, room=True, minutes=5)
    assert ticket(gateway, first)[0] == ""
    assert not ask(gateway, third, room=True, minutes=5)
    assert ask(gateway, second, room=True, minutes=10)
    assert ask(gateway, third, room=True, minutes=10)


def test_a_run_keeps_its_place_however_often_it_asks(gateway: GatewayInMemory) -> None:
    first, second = run_of(gateway, "z-first"), run_of(gateway, "a-second", 1)
    for minutes in (0, 5, 10):
        assert not ask(gateway, first, room=False, minutes=minutes)
        assert not ask(gateway, second, room=True, minutes=minutes)
    assert ticket(gateway, first) == (quota_queue.JOB, first.now.isoformat(), 0)


def test_a_run_that_has_ended_holds_up_nobody(gateway: GatewayInMemory) -> None:
    first, second = run_of(gateway, "a-first"), run_of(gateway, "b-second", 1)
    assert not ask(gateway, first, room=False)
    gateway.runs.update(first.run_id, {"state": "ABORTED"})
    assert ask(gateway, second, room=True)


def test_there_is_one_line_for_each_quota(gateway: GatewayInMemory) -> None:
    first, second = run_of(gateway, "a-first"), run_of(gateway, "b-second", 1)
    assert not ask(gateway, first, room=False, wanted=quota_queue.DEPLOYMENT)
    assert ask(gateway, second, room=True, wanted=quota_queue.JOB)


def test_what_is_there_already_needs_no_turn_and_gives_the_place_up(gateway: GatewayInMemory) -> None:
    first, second = run_of(gateway, "a-first"), run_of(gateway, "b-second", 1)
    assert not ask(gateway, first, room=False)
    assert not ask(gateway, second, room=True)
    with quota_queue.turn(gateway, second, quota_queue.JOB, is_there=True):
        pass
    assert ticket(gateway, second)[0] == ""
    with pytest.raises(ValueError, match="broken"), quota_queue.turn(gateway, first, quota_queue.JOB, is_there=True):
        raise ValueError("broken")
    assert ticket(gateway, first)[0] == quota_queue.JOB


def test_a_run_that_ends_in_line_has_spent_nothing(gateway: GatewayInMemory) -> None:
    call = run_of(gateway, "a-first")
    training: JsonObject = {"customizationType": "FINE_TUNING", "tokens": 5e6, "epochs": 1}
    usage: JsonObject = {"model": "amazon.nova-micro-v1:0:128k", "region": "us-east-1", "training": [training]}
    gateway.runs.update(call.run_id, {"month": "month#2026-11", "usage": usage, "jobName0": "dev-0a1b2c3d-a-1"})
    gateway.runs.put({"runId": "month#2026-11", "committedUsd": 5, "reserved#a-first#1": 5})
    assert not ask(gateway, call, room=False)
    budget.give_back(gateway, call.run_id, 1, call.now)
    assert (gateway.runs.get("month#2026-11") or {})["committedUsd"] == 0
