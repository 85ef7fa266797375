"""Whatever comes twice, late, in another order or at the same moment makes one job and one serving."""

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from customization.json_types import JsonObject, as_list, as_object
from customization.money import TRAINING
from tests.workflow import data
from tests.workflow.pipeline import Pipeline, stages_of

if TYPE_CHECKING:
    from rehearsal.embedded.states.history import Happening

pytestmark = pytest.mark.exhaustive


def count_served(pipeline: Pipeline) -> list[str]:
    """Return a list that gets every execution from now on that asks a served custom model."""
    asked: list[str] = []

    def notice(happening: "Happening") -> None:
        if happening.kind == "state-entered" and happening.name == "EvaluateCustomModel":
            asked.append(happening.execution_arn)

    pipeline.aws.watch(notice)
    return asked


def ends(pipeline: Pipeline) -> list[str]:
    return sorted(pipeline.states(execution)[-1] for execution in pipeline.executions())


def test_the_same_request_started_three_times_at_the_same_moment_makes_one_run(pipeline: Pipeline) -> None:
    served = count_served(pipeline)
    folder = pipeline.folder()
    for name in ("train.jsonl", "test.jsonl"):
        pipeline.put(f"incoming/{pipeline.dataset}/{name}", folder[name])
    with pipeline.clock.hold():
        for _ in range(3):
            pipeline.start(pipeline.request())
    pipeline.finish()
    assert sorted(set(ends(pipeline))) == ["DuplicateRun", "RunSucceeded"]
    assert ends(pipeline).count("RunSucceeded") == 1
    [run] = pipeline.runs()
    assert (run["state"], run["attempt"]) == ("SUCCEEDED", 1)
    assert (len(pipeline.jobs()), len(served)) == (1, 1)
    assert pipeline.what_bills() == []


def test_events_that_come_twice_and_in_the_reverse_order_make_one_run(pipeline: Pipeline) -> None:
    events: list[JsonObject] = []

    def remember(happening: "Happening") -> None:
        if happening.kind == "event-delivered" and "StartRun" in happening.name:
            events.append(as_object(happening.detail["event"], "event"))

    pipeline.aws.watch(remember)
    served = count_served(pipeline)
    with pipeline.clock.hold():
        pipeline.drop(pipeline.dataset, pipeline.folder())
        pipeline.clock.sleep(10)
        for event in [*reversed(events), *events]:
            pipeline.aws.publish(event)
        pipeline.clock.sleep(3 * 3600)
        for event in list(events)[:2]:
            pipeline.aws.publish(event)
    pipeline.finish()
    [run] = pipeline.runs()
    assert (run["state"], run["attempt"]) == ("SUCCEEDED", 1)
    assert set(ends(pipeline)) == {"DuplicateRun", "JoinedWaitingRun", "RunSucceeded"}
    assert ends(pipeline).count("RunSucceeded") == 1
    assert (len(pipeline.jobs()), len(served)) == (1, 1)
    assert pipeline.what_bills() == []


def test_two_data_sets_at_once_make_a_job_and_a_row_each(pipeline: Pipeline) -> None:
    with pipeline.clock.hold():
        for number in range(2):
            pipeline.drop(f"{pipeline.dataset}-{number}", data.labelled(start=(700 + number) * 1_000))
    pipeline.finish()
    rows = pipeline.runs()
    assert [row["state"] for row in rows] == ["SUCCEEDED", "SUCCEEDED"]
    assert len({row["dataset"] for row in rows}) == len({row["jobName0"] for row in rows}) == 2
    assert len(pipeline.jobs()) == len(pipeline.models()) == 2
    assert pipeline.what_bills() == []


def trained_usd(pipeline: Pipeline, run: JsonObject) -> tuple[bool, float]:
    """Return whether a run's report says that another run has trained its model, and what it has paid for training."""
    report = as_object(json.loads(pipeline.artifact(f"runs/{run['runId']}/report.json")), "report")
    items = as_list(as_object(report["settlement"], "settlement")["items"], "items")
    paid = [as_object(item, "item") for item in items]
    usd = sum(float(str(item["actualUsd"])) for item in paid if item["name"] == TRAINING)
    return bool(stages_of(report)[0]["wasAdopted"]), usd


def test_the_same_bytes_as_two_data_sets_at_once_are_trained_on_once(pipeline: Pipeline) -> None:
    with pipeline.clock.hold():
        for number in range(2):
            pipeline.drop(f"{pipeline.dataset}-{number}", pipeline.folder())
    pipeline.finish()
    rows = pipeline.runs()
    assert [row["state"] for row in rows] == ["SUCCEEDED", "SUCCEEDED"]
    assert len(pipeline.jobs()) == 1
    assert pipeline.what_bills() == []
    # One of them has paid for the training, and the other says whose it was
    trained = dict(trained_usd(pipeline, row) for row in rows)
    assert trained[True] == 0 < trained[False]
    [month] = [row for row in pipeline.rows() if str(row["runId"]).startswith("month#")]
    spent = sum(float(str(row["spentUsd"])) for row in rows)
    assert float(str(month["committedUsd"])) == pytest.approx(spent)


def test_a_request_that_is_changed_while_its_run_trains_is_a_run_of_its_own_on_the_same_job(pipeline: Pipeline) -> None:
    def change(_: object) -> None:
        changed = data.request(inference={"maxTokens": 64})
        pipeline.put(f"incoming/{pipeline.dataset}/run.json", changed)

    pipeline.interrupt("WaitForCustomizationJob", pipeline.folder(), change)
    rows = pipeline.runs()
    assert [(row["state"], row["attempt"]) for row in rows] == [("SUCCEEDED", 1), ("SUCCEEDED", 1)]
    assert len({row["runId"] for row in rows}) == 2
    assert len(pipeline.jobs()) == 1
    assert pipeline.what_bills() == []


def test_data_that_change_while_a_run_trains_are_a_training_of_their_own(pipeline: Pipeline) -> None:
    def change(_: object) -> None:
        pipeline.put(f"incoming/{pipeline.dataset}/train.jsonl", data.lines(data.pairs(101, 900_000)))

    pipeline.interrupt("WaitForCustomizationJob", pipeline.folder(), change)
    first, second = pipeline.runs()
    assert [first["state"], second["state"]] == ["SUCCEEDED", "SUCCEEDED"]
    assert first["jobName0"] != second["jobName0"]
    manifest = [pipeline.artifact(f"runs/{row['runId']}/manifest.json") for row in (first, second)]
    assert manifest[0] != manifest[1]
    assert pipeline.what_bills() == []


def test_a_file_that_comes_minutes_after_its_run_has_begun_makes_a_run_only_when_it_starts_one(
    pipeline: Pipeline,
) -> None:
    folder = pipeline.folder()
    with pipeline.clock.hold():
        pipeline.drop(pipeline.dataset, {name: folder[name] for name in ("train.jsonl", "run.json")})
        pipeline.clock.sleep(timedelta(minutes=10).total_seconds())
        pipeline.put(f"incoming/{pipeline.dataset}/test.jsonl", folder["test.jsonl"])
    pipeline.finish()
    [run] = pipeline.runs()
    assert run["state"] == "SUCCEEDED"

    again = pipeline.ask(pipeline.request())
    assert again.outcome.status == "SUCCEEDED", again.outcome.cause
    assert len(pipeline.runs()) == 2
    assert pipeline.what_bills() == []


def drop_twice(pipeline: Pipeline) -> None:
    """Drop the same bytes as two data sets."""
    for number in range(2):
        pipeline.drop(f"{pipeline.dataset}-{number}", pipeline.folder())


@pytest.mark.parametrize("place", [0, 1])
def test_a_job_that_two_runs_wait_for_goes_on_when_one_of_them_is_stopped(pipeline: Pipeline, place: int) -> None:
    with pipeline.clock.hold():
        drop_twice(pipeline)
        pipeline.clock.sleep(timedelta(minutes=30).total_seconds())
        waiting = [item for item in pipeline.executions() if item.outcome.status == "RUNNING"]
        assert len(waiting) == 2
        pipeline.stop(waiting[place])
    pipeline.finish()
    assert sorted(str(row["state"]) for row in pipeline.runs()) == ["ABORTED", "SUCCEEDED"]
    assert [job["status"] for job in pipeline.jobs()] == ["Completed"]
    assert pipeline.what_bills() == []


@pytest.mark.parametrize("done_first", [0, 1])
def test_a_model_that_one_run_does_not_keep_goes_with_the_last_run_that_works_with_it(
    pipeline: Pipeline, done_first: int
) -> None:
    """One run serves nothing, and is done before the other has created its throughput."""
    with pipeline.clock.hold():
        for number in range(2):
            mode = "none" if number == done_first else "provisioned"
            folder = pipeline.folder(keepModel="never", serving={"mode": mode}, budgetUsd=100)
            pipeline.drop(f"{pipeline.dataset}-{number}", folder)
    pipeline.finish()
    assert [(row["state"], row.get("error")) for row in pipeline.runs()] == [("SUCCEEDED", None)] * 2
    assert len(pipeline.jobs()) == 1
    assert pipeline.models() == []
    assert pipeline.open_leases() == []
