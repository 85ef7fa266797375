"""What holds after every run that did not succeed."""

from typing import TYPE_CHECKING

from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution


def assert_failed(pipeline: Pipeline, execution: "Execution", *, at: str, error: str, says: str) -> None:
    """The execution, the table of runs and one notification tell the same sentence, and nothing bills any more."""
    assert (execution.outcome.status, execution.outcome.error) == ("FAILED", error), execution.outcome.cause
    cause = str(execution.outcome.cause)
    assert says in cause
    assert "stackTrace" not in cause
    assert "Traceback" not in cause
    assert not cause.startswith("{")

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
