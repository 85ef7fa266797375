"""What holds after every run that did not succeed."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from customization.failures import explain
from customization.json_types import Json, JsonObject, as_object
from customization.runs import GREEN, is_run
from customization.texts import read_language, wording
from tests.workflow.matrix import Scenario
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution

_BEFORE_THE_END = ("Started", "Estimate", "Already done")
# What the rows of an execution say that came to such an end; others do what no row stands for
_ROWS_OF_ENDS: Mapping[str, list[Json]] = {"RunSucceeded": ["SUCCEEDED"], "EstimateReady": ["ESTIMATED"]}
# What the notices of ends begin with that do not point to their own execution
_ABOUT_ANOTHER = {"DuplicateRun": "Already done", "RunReleased": "Released"}
# The sweeper is called every 15
_ONE_SWEEP_MINUTES = 16


def assert_failed(pipeline: Pipeline, execution: "Execution", *, at: str, error: str, says: str) -> None:
    """The execution, the table of runs and one notification tell the same sentence, and nothing bills any more."""
    assert (execution.outcome.status, execution.outcome.error) == ("FAILED", error), execution.outcome.cause
    cause = str(execution.outcome.cause)
    assert says in cause
    assert_sentence(cause)

    row = pipeline.row_of(execution)
    assert (row["state"], row["failedState"], row["error"], row["cause"]) == ("FAILED", at, error, cause)
    assert row["fix"]
    [told] = [told for told in pipeline.told_of(execution) if told.subject.startswith("Failed")]
    assert told.subject.startswith(f"Failed at {at}: ")
    assert cause in told.message
    assert str(row["fix"]) in told.message
    assert pipeline.what_bills() == []


def assert_refused(pipeline: Pipeline, execution: "Execution", *, at: str, error: str, says: str) -> None:
    """The run failed before anything was started that costs money."""
    assert_failed(pipeline, execution, at=at, error=error, says=says)
    assert len(pipeline.told_of(execution)) == 1
    assert pipeline.jobs() == []
    assert pipeline.billed() == {}


def assert_sentence(text: str) -> None:
    """A cause is for people: no JSON, no stack trace."""
    assert "stackTrace" not in text
    assert "Traceback" not in text
    assert not text.startswith("{")


def fields_of(pipeline: Pipeline, scenario: Scenario) -> dict[str, Json]:
    """Return the fields of the scenario's request."""
    about: dict[str, Json] = {} if scenario.data is None else {"data": pipeline.runs()[scenario.data]["runId"]}
    return {**scenario.fields, **about}


def run_scenario(pipeline: Pipeline, scenario: Scenario, **fields: Json) -> "Execution":
    """Start the scenario's run, let it end and return its execution."""
    asked = fields_of(pipeline, scenario) | fields
    if scenario.dropped:
        return pipeline.run(pipeline.folder(100, scenario.test, **asked))
    return pipeline.ask(pipeline.request(**asked))


def assert_told_truthfully(pipeline: Pipeline, execution: "Execution", *, unhandled: str = "") -> None:
    """A green end is a run that succeeded; any other is in the table of runs and a notification, cause and fix.

    `unhandled` is the Task of the failure path that itself has failed for good.
    """
    rows, states = pipeline.rows_of(execution), pipeline.states(execution)
    assert_sentence(execution.outcome.cause or "")
    if execution.outcome.status == "SUCCEEDED":
        assert [row["state"] for row in rows] == _ROWS_OF_ENDS.get(states[-1], [])
        assert_success_is_told(pipeline, execution, rows)
        return
    told = [notice for notice in pipeline.told_of(execution) if not notice.subject.startswith(_BEFORE_THE_END)]
    assert told, f"nobody heard of the {execution.outcome.status} execution: {execution.outcome.cause}"
    assert not any("stackTrace" in notice.message for notice in told)
    assert rows, f"no row tells of the {execution.outcome.status} execution: {execution.outcome.cause}"
    for row in rows:
        if row["state"] == "FAILED" and "failedState" not in row:  # no Catch has seen it: the sweeper says what it was
            known = explain(
                str(execution.outcome.error), execution.outcome.cause or "", read_language(row.get("language")) or "en"
            )
            assert (row["error"], row["cause"], row["fix"]) == (known.error, known.cause, known.fix)
        assert_row_is_told(row, [notice.message for notice in told], is_unrecorded=unhandled == "RecordFailure")
        if unhandled != "ReleaseResources" and "ReleaseResources" in states:  # what Catch does not catch ends all
            assert_reported(pipeline, row)


def assert_success_is_told(pipeline: Pipeline, execution: "Execution", rows: Sequence[JsonObject]) -> None:
    """People heard of a green end, and the report of a run says that it succeeded."""
    if pipeline.has_joined(execution):
        return
    about_another = next((_ABOUT_ANOTHER[state] for state in pipeline.states(execution) if state in _ABOUT_ANOTHER), "")
    if about_another:
        told = [each for each in pipeline.notifications() if each.subject.startswith(about_another)]
    else:
        told = [each for each in pipeline.told_of(execution) if not each.subject.startswith("Started")]
    assert told, "nobody heard of the end"
    for row in rows:
        assert report_of(pipeline, row)["state"] == str(row["state"]).lower()


def report_of(pipeline: Pipeline, row: JsonObject) -> JsonObject:
    """Return the report of a run as JSON."""
    key = str(row["reportKey"]).replace(".html", ".json")
    return as_object(json.loads(pipeline.artifact(key)), key)


def assert_row_is_told(row: JsonObject, messages: Sequence[str], *, is_unrecorded: bool = False) -> None:
    """One message has what the row tells of an end: cause and fix, or that there is a result all the same."""
    if row["state"] in GREEN:  # what failed came after the result: it is stored
        done = wording("notice.done", "en").replace("$runId", str(row["runId"]))
        assert any(done in message for message in messages), messages
        return
    assert row["state"] in {"FAILED", "ABORTED", "TIMED_OUT"}, row
    assert row["cause"], row
    assert row["fix"], row
    assert_sentence(str(row["cause"]))
    texts = str(row["cause"]), str(row["fix"])
    is_told = any(all(text in message for text in texts) for message in messages)
    assert is_told or (is_unrecorded and any("could not be recorded" in message for message in messages)), messages


def assert_reported(pipeline: Pipeline, row: JsonObject) -> None:
    """The report of a run whose failure path has recorded its end tells what the table of runs tells."""
    if is_run(str(row["runId"])) and row["state"] == "FAILED" and row.get("failedState"):
        failure = as_object(report_of(pipeline, row)["failure"], "failure")
        told = ("error", "cause", "fix")
        assert [failure[name] for name in told] == [row[name] for name in told]


def pass_sweeps(pipeline: Pipeline, hours: float = 1) -> None:
    """Let hours pass; after one sweep only what a promotion keeps is left, and what AWS did not delete by then."""
    pipeline.pass_time(minutes=_ONE_SWEEP_MINUTES)
    in_use, last_sweep = pipeline.parameter() or {}, pipeline.clock.now() - timedelta(minutes=_ONE_SWEEP_MINUTES)
    left = pipeline.deletable_since()
    assert [arn for arn, since in left.items() if since and since < last_sweep and arn != in_use.get("arn")] == [], left
    pipeline.pass_time(minutes=hours * 60 - _ONE_SWEEP_MINUTES)


def assert_nothing_is_left(pipeline: Pipeline) -> None:
    """Nothing bills, no job runs and no reservation stands, but what a promotion keeps, which is there."""
    assert_model_in_use_is_there(pipeline)
    kept = pipeline.parameter()
    if kept and kept["until"]:
        pipeline.pass_time(hours=3)
        assert_model_in_use_is_there(pipeline)
    assert pipeline.what_bills() == []
    assert all(job["status"] != "InProgress" for job in pipeline.jobs())
    assert_settled(pipeline)


def assert_model_in_use_is_there(pipeline: Pipeline) -> None:
    """The parameter, where there is one, names a model or what serves one that Bedrock has."""
    assert {str(kept["arn"]) for kept in [pipeline.parameter()] if kept} <= {*pipeline.bedrock.live_resources()}


def assert_settled(pipeline: Pipeline) -> None:
    """No month has a reservation any more, and what it has committed is what its runs have spent."""
    for month in (row for row in pipeline.rows() if str(row["runId"]).startswith("month#")):
        assert {value for name, value in month.items() if name.startswith("reserved#")} <= {"settled"}, month
        spent = sum(float(str(value)) for name, value in month.items() if name.startswith("spent#"))
        assert float(str(month["committedUsd"])) == pytest.approx(spent), month


def assert_runs_again(
    pipeline: Pipeline, scenario: Scenario, broken: Sequence[str] = (), *, may_stop_a_job: bool = False
) -> None:
    """The same request succeeds and adopts what is there: a second job only where the first has `broken` off.

    One job `may_stop` where what broke may have ended it.
    """
    again = pipeline.ask(pipeline.request(**fields_of(pipeline, scenario)))
    assert again.outcome.status == "SUCCEEDED", again.outcome.cause
    ends = sorted(str(job["status"]) for job in pipeline.jobs())
    usual = sorted([*broken, *["Completed"] * scenario.jobs])
    assert ends == usual or (may_stop_a_job and ends == sorted([*usual, "Stopped"])), ends
