"""What a run leaves: a report, scores, a model where one is wanted, and a bill that somebody asked for."""

import json
import random
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from customization.json_types import JsonObject, as_list, as_object
from rehearsal.synthesis import ROOT
from tests.workflow import data
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution


def test_a_run_ends_with_a_report_that_names_the_rehearsal_and_the_scores_of_every_record(pipeline: Pipeline) -> None:
    execution = pipeline.run(pipeline.folder(test=32))
    run = pipeline.row_of(execution)["runId"]
    output = as_object(json.loads(str(execution.outcome.output)), "output")
    uri = f"s3://{pipeline.outputs['ArtifactBucketName']}/runs/{run}/report.html"
    assert output == {"runId": run, "verdict": "better", "reportUri": uri}
    page = pipeline.object_of(execution, "report.html").decode()
    assert 'class="rehearsal"' in page
    assert "<script" not in page
    for record in pipeline.predictions(execution):
        assert as_object(record["scores"], "scores").keys() == {"base", "custom"}
    assert pipeline.document(execution, "report.json")["isRehearsal"] is True
    assert [subject.split(":")[0] for subject in pipeline.subjects()] == ["Started", "Better"]
    started, ended = (told.message for told in pipeline.notifications())
    assert "- train: 91 records, about " in started
    assert "About 1.5 to 4 hours" in started
    assert uri in ended
    assert execution.arn in ended
    assert ended.startswith("The custom model answers better than the base model")
    assert ended.count("  Expected: ") == 3
    assert "Cost: " in ended
    assert "- custom model dev-" in ended
    assert pipeline.what_bills() == []


def test_a_run_is_billed_what_its_report_says(pipeline: Pipeline) -> None:
    execution = pipeline.run(pipeline.folder(keepModel="never"))
    settled = as_object(pipeline.document(execution, "report.json")["settlement"], "settlement")
    billed = sum(usd for item, (_, usd) in pipeline.billed().items() if item != "storage")
    # Bedrock does not say how many tokens it has trained on
    assert settled["actualUsd"] == pytest.approx(billed, rel=0.2)
    assert pipeline.row_of(execution)["spentUsd"] == settled["actualUsd"]
    [month] = [row for row in pipeline.rows() if str(row["runId"]).startswith("month#")]
    assert month["committedUsd"] == pytest.approx(settled["actualUsd"])


def test_an_estimate_spends_nothing_and_the_run_can_be_started_afterwards(pipeline: Pipeline) -> None:
    execution = pipeline.run(pipeline.folder(action="estimate"))
    assert pipeline.states(execution)[-1] == "EstimateReady"
    assert pipeline.billed() == {}
    assert pipeline.jobs() == []
    assert pipeline.open_leases() == []
    [told] = pipeline.notifications()
    assert told.subject.startswith("Estimate: ")
    assert "Training (FINE_TUNING): " in told.message
    report = pipeline.document(execution, "report.json")
    assert (report["state"], report["settlement"]) == ("estimated", None)
    assert f"runs/{pipeline.row_of(execution)['runId']}/report.html" in told.message

    again = pipeline.ask(pipeline.request())
    assert pipeline.states(again)[-1] == "RunSucceeded"


def test_a_better_model_is_promoted_and_kept_for_the_hours_asked_for_and_then_withdrawn(pipeline: Pipeline) -> None:
    execution = pipeline.run(pipeline.folder(test=32, promote="if-better", serving={"keep": 5}))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    ended = pipeline.clock.now()
    parameter = pipeline.parameter()
    assert parameter is not None
    [deployment] = [arn for arn in pipeline.bedrock.live_resources() if ":custom-model-deployment/" in arn]
    assert parameter["arn"] == deployment
    # The machine's clock tells milliseconds
    until = datetime.fromisoformat(str(parameter["until"]))
    assert abs(until - (ended + timedelta(hours=5))) < timedelta(seconds=1)

    pipeline.pass_time(hours=4, minutes=50)
    assert deployment in pipeline.bedrock.live_resources()
    pipeline.pass_time(minutes=30)
    assert pipeline.what_bills() == []
    assert pipeline.parameter() is None
    assert pipeline.subjects()[-1].startswith("No longer in use: ")
    assert len(pipeline.models()) == 1


def test_a_kept_model_is_released_when_somebody_asks(pipeline: Pipeline) -> None:
    pipeline.run(
        pipeline.folder(test=32, promote="if-better", serving={"mode": "provisioned", "keep": 48}, budgetUsd=300)
    )
    assert pipeline.parameter() is not None
    execution = pipeline.ask({"dataset": pipeline.dataset, "action": "release"})
    assert pipeline.states(execution)[-1] == "RunReleased"
    assert pipeline.bedrock.live_resources() == []
    assert pipeline.open_leases() == []
    assert pipeline.parameter() is None


@pytest.mark.parametrize(("keep_model", "models"), [("never", 0), ("if-better", 1), ("always", 1)])
def test_a_model_stays_as_the_request_says(pipeline: Pipeline, keep_model: str, models: int) -> None:
    pipeline.run(pipeline.folder(keepModel=keep_model))
    assert len(pipeline.models()) == models
    assert len(pipeline.open_leases()) == models
    assert pipeline.parameter() is None


def test_a_run_on_a_subset_is_never_promoted(pipeline: Pipeline) -> None:
    execution = pipeline.run(pipeline.folder(train=140, test=32, promote="if-better", subset={"records": 100}))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert as_object(pipeline.row_of(execution)["records"], "records")["train"] == 100
    assert pipeline.row_of(execution)["verdict"] == "better"
    assert "PromoteModel" not in pipeline.states(execution)
    assert pipeline.parameter() is None
    assert "promote: a run on a subset is never promoted" in str(pipeline.document(execution, "report.json")["notes"])


def with_shuffled_completions(lines: bytes) -> bytes:
    records: list[JsonObject] = [json.loads(line) for line in lines.splitlines()]
    completions = [record["completion"] for record in records]
    random.Random(0).shuffle(completions)  # noqa: S311  the same order every time
    pairs = zip(records, completions, strict=True)
    return data.lines([{**record, "completion": completion} for record, completion in pairs])


def last_validation_loss(pipeline: Pipeline, execution: "Execution") -> float:
    metrics = pipeline.document(execution, "training-metrics-1.json")
    last = as_object(as_list(metrics["validation"], "validation")[-1], "validation")
    return float(str(last["loss"]))


@pytest.mark.exhaustive
def test_completions_shuffled_among_the_prompts_teach_the_model_nothing_that_helps(pipeline: Pipeline) -> None:
    samples = ROOT / "samples" / "support-en"
    files = {name: (samples / name).read_bytes() for name in ("train.jsonl", "test.jsonl")}
    files["run.json"] = data.request(evaluation={"primaryMetric": "exactMatch"})
    learnt = pipeline.run(files, "right")
    confused = pipeline.run({**files, "train.jsonl": with_shuffled_completions(files["train.jsonl"])}, "shuffled")
    assert pipeline.row_of(learnt)["verdict"] == "better"
    assert pipeline.row_of(confused)["verdict"] != "better"
    assert last_validation_loss(pipeline, confused) > 2 * last_validation_loss(pipeline, learnt)


@pytest.mark.exhaustive
def test_a_job_of_a_day_takes_at_most_a_thousand_events(pipeline: Pipeline) -> None:
    pipeline.inject("job-slow=24")
    execution = pipeline.run(pipeline.folder())
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    [job] = pipeline.jobs()
    assert job["endTime"] - job["creationTime"] > timedelta(hours=24)
    assert len(execution.history.events) <= 1000
