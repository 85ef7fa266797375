"""Data that were trained on are not trained on again: each of these finds the run done, says so, and starts nothing."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from customization.json_types import JsonObject, as_object
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.history import Happening


@pytest.fixture(scope="module")
def events() -> list[JsonObject]:
    """Return the events that have started executions."""
    return []


@pytest.fixture(scope="module")
def done(deployed: Pipeline, events: list[JsonObject]) -> Pipeline:
    """Return a pipeline that has done one run; its tests forget nothing."""

    def remember(happening: "Happening") -> None:
        if happening.kind == "event-delivered" and "StartRun" in happening.name:
            events.append(as_object(happening.detail["event"], "event"))

    deployed.forget()
    deployed.aws.watch(remember)
    execution = deployed.run(deployed.folder())
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    return deployed


@pytest.fixture(autouse=True)
def _nothing_is_started(done: Pipeline) -> Iterator[None]:
    trained = done.billed()["trainingTokens"]
    told, before = len(done.subjects()), len(done.executions())
    yield
    ends = [done.states(execution)[-1] for execution in done.executions()[before:]]
    assert [end for end in ends if end != "JoinedWaitingRun"] == ["DuplicateRun"]
    assert [subject.split(":")[0] for subject in done.subjects()[told:]] == ["Already done"]
    assert len(done.jobs()) == len(done.runs()) == 1
    assert done.billed()["trainingTokens"] == trained
    assert done.what_bills() == []


def test_an_event_that_is_delivered_twice_starts_no_second_job(done: Pipeline, events: list[JsonObject]) -> None:
    done.aws.publish(events[0])
    done.finish()


def test_the_same_bytes_dropped_again_start_no_second_job(done: Pipeline) -> None:
    done.run(done.folder())


def test_a_start_from_the_console_on_the_same_bytes_starts_no_second_job(done: Pipeline) -> None:
    done.ask(done.request())
