"""Data that were trained on are not trained on again: each of these finds the run done, says so, and starts nothing."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from customization.json_types import JsonObject, as_object
from tests.workflow import data
from tests.workflow.conftest import Deploy
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.history import Happening


@pytest.fixture(scope="module")
def events() -> list[JsonObject]:
    """Return the events that have started executions."""
    return []


@pytest.fixture(scope="module")
def pipeline(deploy: Deploy, events: list[JsonObject]) -> Iterator[Pipeline]:
    """Return a pipeline that has done one run."""

    def remember(happening: "Happening") -> None:
        if happening.kind == "event-delivered" and "StartRun" in happening.name:
            events.append(as_object(happening.detail["event"], "event"))

    with deploy() as pipeline:
        pipeline.aws.watch(remember)
        execution = pipeline.run("shop", data.labelled())
        assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
        yield pipeline


@pytest.fixture(autouse=True)
def _nothing_is_started(pipeline: Pipeline) -> Iterator[None]:
    trained = [entry.quantity for entry in pipeline.bedrock.ledger() if entry.item == "trainingTokens"]
    told, before = len(pipeline.subjects()), len(pipeline.aws.executions())
    yield
    ends = [pipeline.states(execution)[-1] for execution in pipeline.aws.executions()[before:]]
    assert [end for end in ends if end != "JoinedWaitingRun"] == ["DuplicateRun"]
    assert [subject.split(":")[0] for subject in pipeline.subjects()[told:]] == ["Already done"]
    assert len(pipeline.jobs()) == len(pipeline.runs()) == 1
    assert [entry.quantity for entry in pipeline.bedrock.ledger() if entry.item == "trainingTokens"] == trained
    assert pipeline.what_bills() == []


def test_an_event_that_is_delivered_twice_starts_no_second_job(pipeline: Pipeline, events: list[JsonObject]) -> None:
    pipeline.aws.publish(events[0])
    pipeline.finish()


def test_the_same_bytes_dropped_again_start_no_second_job(pipeline: Pipeline) -> None:
    pipeline.run("shop", data.labelled())


def test_a_start_from_the_console_on_the_same_bytes_starts_no_second_job(pipeline: Pipeline) -> None:
    pipeline.ask({"dataset": "shop", "acceptUnknownPrices": data.ACCEPTED})
