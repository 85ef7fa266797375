"""What holds after every run that did not succeed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from customization.json_types import Json, as_object
from tests.workflow.matrix import Scenario
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution

_BEFORE_THE_END = ("Started", "Estimate", "Already done")


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


def assert_told_truthfully(pipeline: Pipeline, execution: "Execution") -> None:
    """A green end is a run that succeeded; any other is in the table of runs and a notification, cause and fix."""
    rows = [row for row in pipeline.runs() if row.get("executionArn") == execution.arn]
    status, last = execution.outcome.status, pipeline.states(execution)[-1]
    assert_sentence(execution.outcome.cause or "")
    if status == "SUCCEEDED":
        if last == "RunSucceeded":
            assert [row["state"] for row in rows] == ["SUCCEEDED"]
        return
    told = [notice for notice in pipeline.told_of(execution) if not notice.subject.startswith(_BEFORE_THE_END)]
    assert told, f"nobody heard of the {status} execution: {execution.outcome.cause}"
    for row in rows:
        if row["state"] in {"SUCCEEDED", "ESTIMATED"}:  # what failed came after the result: it is stored
            continue
        assert row["state"] in {"FAILED", "ABORTED", "TIMED_OUT"}, row
        assert row["cause"], row
        assert row["fix"], row
        assert_sentence(str(row["cause"]))
        if pipeline.function_faults.broken != ["RecordFailure"]:  # the one that would have found cause and fix
            texts = str(row["cause"]), str(row["fix"])
            assert any(all(text in notice.message for text in texts) for notice in told), told
            assert_reported(pipeline, execution)
    assert not any("stackTrace" in notice.message for notice in told)


def assert_reported(pipeline: Pipeline, execution: "Execution") -> None:
    """Where the failure path has written a report, it tells what the table of runs tells."""
    row = pipeline.row_of(execution)
    if row["state"] == "FAILED" and row.get("reportKey"):
        failure = as_object(pipeline.document(execution, "report.json")["failure"], "failure")
        assert [failure[name] for name in ("error", "cause", "fix")] == [
            row[name] for name in ("error", "cause", "fix")
        ]


def assert_nothing_is_left(pipeline: Pipeline) -> None:
    """Nothing bills, no job runs and no reservation stands, but what a promotion keeps."""
    kept = pipeline.parameter()
    if kept and kept["until"]:
        pipeline.pass_time(hours=3)
    assert pipeline.what_bills() == []
    assert all(job["status"] != "InProgress" for job in pipeline.jobs())
    assert_settled(pipeline)


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
