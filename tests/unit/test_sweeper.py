"""The schedule is the backstop: no execution ends without a word, though the event about its end is lost."""

from dataclasses import replace
from datetime import timedelta

import pytest

from customization.failures import explain, record_failure
from customization.gateway import ExecutionEnd
from customization.json_types import JsonObject
from customization.planning import plan_run
from customization.runs import Call, trace, unplanned
from customization.sweeper import sweep
from customization.texts import LANGUAGES, Language
from customization.uploads import poll_uploads
from tests.unit.fakes import EXECUTION, NOW, GatewayInMemory
from tests.unit.test_uploads import event

TRACE = unplanned(EXECUTION)
CONSOLE: JsonObject = {"dataset": "support"}


@pytest.fixture
def fresh(call: Call) -> Call:
    return replace(call, run_id="", attempt=0)


def sweep_twice(gateway: GatewayInMemory) -> list[str]:
    """Return the subjects of what two sweeps tell."""
    for _ in range(2):
        assert sweep(gateway, NOW).refused == ()
    return [subject for subject, _ in gateway.published]


@pytest.mark.parametrize("input_", [event(), CONSOLE], ids=["drop", "console"])
@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT", "FAILED"])
def test_an_execution_that_dies_before_it_has_a_run_is_recorded_and_told_once(
    gateway: GatewayInMemory, fresh: Call, input_: JsonObject, status: str
) -> None:
    poll_uploads(gateway, input_, fresh, NOW)
    assert sweep(gateway, NOW).runs == ()
    gateway.executions[EXECUTION] = status
    told = f"{status.capitalize().replace('_', ' ')}: a request that started no run"
    assert sweep_twice(gateway) == [told]
    row = gateway.runs.get(TRACE) or {}
    assert (row["state"], row["endedWith"], bool(row["cause"]), bool(row["fix"])) == (status, status, True, True)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("States.DataLimitExceeded", "The state/task 'PlanRun' returned a result larger than 262144 bytes."),
        ("States.Runtime", "An error occurred while executing the state 'PlanRun'."),
        ("ServingFailed", "No capacity"),  # where RecordFailure itself has failed
    ],
)
def test_what_no_catch_has_seen_is_told_with_its_cause_and_fix_by_the_schedule(
    claimed: GatewayInMemory, call: Call, error: str, cause: str, language: Language
) -> None:
    claimed.runs.update(call.run_id, {"language": language})
    claimed.executions[EXECUTION] = "FAILED"
    claimed.execution_errors[EXECUTION], claimed.execution_causes[EXECUTION] = f"{error} (not told)", cause
    assert sweep_twice(claimed) == [f"Failed: {call.run_id}"]
    row, known = claimed.runs.get(call.run_id) or {}, explain(error, cause, language)
    assert (row["error"], row["cause"], row["fix"]) == (error, known.cause, known.fix)
    [(_, message)] = claimed.published
    assert known.cause in message
    assert known.fix in message


def test_what_no_catch_has_seen_is_told_as_its_event_says(claimed: GatewayInMemory, call: Call) -> None:
    sweep(claimed, NOW, (EXECUTION.replace("first", "second"), ExecutionEnd("FAILED", "States.DataLimitExceeded", "")))
    [(_, message)] = claimed.published
    assert "A state handed on more than 256 KiB." in message
    assert (claimed.runs.get(call.run_id) or {})["state"] == "RUNNING"


def test_an_execution_that_has_told_that_another_owns_its_run_is_not_told_again(
    claimed: GatewayInMemory, call: Call
) -> None:
    second = EXECUTION.replace("first", "second")
    claimed.executions[second] = "RUNNING"
    claimed.runs.update(call.run_id, {"executionArn": second, "attempt": 2})
    before = claimed.runs.get(call.run_id)
    record_failure(claimed, call, "RunSuperseded", "second has the run", "PollCustomizationJob")
    for _ in range(2):  # an event may come twice
        sweep(claimed, NOW, (EXECUTION, ExecutionEnd("FAILED", "RunSuperseded", "second has the run")))
    assert claimed.published == []
    assert claimed.runs.get(call.run_id) == before


@pytest.mark.parametrize("action", ["rollback", "release"])
def test_an_execution_that_dies_while_it_acts_on_earlier_runs_is_told_in_its_language(
    gateway: GatewayInMemory, fresh: Call, action: str
) -> None:
    plan_run(gateway, {**CONSOLE, "action": action, "language": "ja"}, fresh)
    gateway.executions[EXECUTION] = "ABORTED"
    assert sweep_twice(gateway) == ["Aborted: a request that started no run"]
    assert "実行が人の手で停止されました。" in gateway.published[0][1]


def test_an_execution_that_succeeds_without_a_run_leaves_nothing_behind(gateway: GatewayInMemory, fresh: Call) -> None:
    plan_run(gateway, {**CONSOLE, "action": "release"}, fresh)
    gateway.executions[EXECUTION] = "SUCCEEDED"
    assert sweep_twice(gateway) == []
    assert gateway.runs.get(TRACE) is None


def test_a_run_stands_for_its_execution_as_soon_as_it_is_planned(gateway: GatewayInMemory, fresh: Call) -> None:
    gateway.data.put("incoming/support/train.jsonl", b'{"prompt": "a", "completion": "b"}\n')
    poll_uploads(gateway, CONSOLE, fresh, NOW)
    run_id = plan_run(gateway, CONSOLE, fresh)["runId"]
    assert gateway.runs.get(TRACE) is None
    trace(gateway, EXECUTION)  # as PlanRun leaves it when it is stopped half-way
    gateway.executions[EXECUTION] = "ABORTED"
    assert sweep_twice(gateway) == [f"Aborted: {run_id}"]
    assert gateway.runs.get(TRACE) is None


@pytest.mark.parametrize("state", ["SUCCEEDED", "ESTIMATED"])
@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT", "FAILED"])
def test_a_result_that_is_stored_and_was_not_told_is_told_once_by_the_schedule(
    claimed: GatewayInMemory, call: Call, state: str, status: str
) -> None:
    claimed.runs.update(call.run_id, {"state": state})
    claimed.executions[EXECUTION] = status
    assert sweep_twice(claimed) == [f"Done: {call.run_id}"]
    assert (claimed.runs.get(call.run_id) or {})["state"] == state


@pytest.mark.parametrize(
    ("status", "error", "is_told"),
    [
        ("FAILED", "ServingFailed", False),
        ("FAILED", "ServingFailed (not told)", True),
        ("ABORTED", "", True),
        ("TIMED_OUT", "States.Timeout", True),
        ("GONE", "", False),
    ],
)
def test_a_failure_is_told_once_by_the_schedule_where_its_execution_has_not_told_it(
    claimed: GatewayInMemory, call: Call, status: str, error: str, *, is_told: bool
) -> None:
    recorded: JsonObject = {"state": "FAILED", "error": "ServingFailed", "cause": "No capacity", "fix": "Wait"}
    claimed.runs.update(call.run_id, {**recorded, "failedState": "PollX"})
    claimed.executions[EXECUTION], claimed.execution_errors[EXECUTION] = status, error
    assert sweep_twice(claimed) == [f"Failed at PollX: {call.run_id}"] * is_told
    assert (claimed.runs.get(call.run_id) or {}).items() >= recorded.items()


@pytest.mark.parametrize("status", ["SUCCEEDED", "ABORTED", "GONE"])
def test_an_execution_that_has_ended_is_asked_for_its_status_once(
    claimed: GatewayInMemory, call: Call, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    asked: list[str] = []

    def answer(arn: str) -> ExecutionEnd:
        asked.append(arn)
        return ExecutionEnd(status)

    claimed.runs.update(call.run_id, {"state": "SUCCEEDED"})
    monkeypatch.setattr(claimed, "execution_status", answer)
    sweep_twice(claimed)
    assert asked == [EXECUTION]


def test_sweeps_at_the_same_moment_tell_a_notice_once(
    claimed: GatewayInMemory, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(subject: str, message: str) -> None:
        claimed.published.append((subject, message))
        assert sweep(claimed, NOW + timedelta(seconds=1)).refused == ()

    monkeypatch.setattr(claimed, "publish", publish)
    claimed.executions[EXECUTION] = "ABORTED"
    assert sweep_twice(claimed) == [f"Aborted: {call.run_id}"]
    assert {"untold", "tellingSince"}.isdisjoint(claimed.runs.get(call.run_id) or {})


def test_a_notice_whose_sweep_died_is_told_by_the_next_that_the_schedule_starts(
    claimed: GatewayInMemory, call: Call
) -> None:
    notice: JsonObject = {"subject": "Done: x", "message": "It is done."}
    claimed.runs.update(call.run_id, {"untold": notice, "tellingSince": NOW.isoformat()})
    sweep(claimed, NOW + timedelta(minutes=1))
    assert claimed.published == []
    sweep(claimed, NOW + timedelta(minutes=15))
    assert claimed.published == [("Done: x", "It is done.")]
