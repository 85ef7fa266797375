"""What a run leaves: a report, scores, a model where one is wanted, and a bill that somebody asked for."""

import json
import random
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from customization.json_types import JsonObject, as_list, as_object
from rehearsal.synthesis import ROOT
from tests.workflow import data
from tests.workflow.conftest import Rehearse
from tests.workflow.pipeline import Pipeline, sides_answered

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution

# The day for which sources show Titan Text and its contemporaries offered
LATE = date(2025, 1, 18)


def folder(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_run_ends_with_a_report_that_names_the_rehearsal_and_the_scores_of_every_record(rehearse: Rehearse) -> None:
    pipeline = rehearse()
    execution = pipeline.run("shop", data.labelled(test=32))
    row = pipeline.row_of(execution)
    output = as_object(json.loads(str(execution.outcome.output)), "output")
    bucket = pipeline.outputs["ArtifactBucketName"]
    assert output == {
        "runId": row["runId"],
        "verdict": "better",
        "reportUri": f"s3://{bucket}/runs/{row['runId']}/report.html",
    }
    page = pipeline.object_of(execution, "report.html").decode()
    assert 'class="rehearsal"' in page
    assert "<script" not in page
    for record in pipeline.predictions(execution):
        assert as_object(record["scores"], "scores").keys() == {"base", "custom"}
    report = pipeline.document(execution, "report.json")
    assert report["isRehearsal"] is True
    assert [subject.split(":")[0] for subject in pipeline.subjects()] == ["Started", "Better"]
    assert pipeline.what_bills() == []


def test_a_run_is_billed_what_its_report_says(rehearse: Rehearse) -> None:
    pipeline = rehearse()
    execution = pipeline.run("shop", data.labelled(keepModel="never"))
    report = pipeline.document(execution, "report.json")
    settled = as_object(report["settlement"], "settlement")
    billed = sum(entry.usd or 0.0 for entry in pipeline.bedrock.ledger() if entry.item != "storage")
    assert settled["actualUsd"] == pytest.approx(billed, rel=0.2)
    assert pipeline.row_of(execution)["spentUsd"] == settled["actualUsd"]
    [month] = [row for row in pipeline.rows() if str(row["runId"]).startswith("month#")]
    assert month["committedUsd"] == pytest.approx(settled["actualUsd"])


def test_an_estimate_spends_nothing_and_the_run_can_be_started_afterwards(rehearse: Rehearse) -> None:
    pipeline = rehearse()
    execution = pipeline.run("shop", data.labelled(action="estimate"))
    assert pipeline.states(execution)[-1] == "EstimateReady"
    assert pipeline.bedrock.ledger() == []
    assert pipeline.jobs() == []
    assert pipeline.open_leases() == []
    [told] = pipeline.aws.notifications
    assert told.subject.startswith("Estimate: ")
    assert "training (FINE_TUNING): " in told.message

    again = pipeline.ask({"dataset": "shop", "acceptUnknownPrices": data.ACCEPTED})
    assert pipeline.states(again)[-1] == "RunSucceeded"


def test_a_better_model_is_promoted_and_kept_for_the_hours_asked_for_and_then_withdrawn(rehearse: Rehearse) -> None:
    pipeline = rehearse()
    execution = pipeline.run("shop", data.labelled(test=32, promote="if-better", serving={"keep": 5}))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    ended = pipeline.clock.now()
    parameter = pipeline.parameter("shop")
    assert parameter is not None
    [deployment] = [arn for arn in pipeline.bedrock.live_resources() if ":custom-model-deployment/" in arn]
    assert parameter["arn"] == deployment
    assert str(parameter["until"]) == (ended + timedelta(hours=5)).isoformat()

    pipeline.pass_time(hours=4, minutes=50)
    assert deployment in pipeline.bedrock.live_resources()
    pipeline.pass_time(minutes=30)
    assert pipeline.what_bills() == []
    assert pipeline.parameter("shop") is None
    assert pipeline.subjects()[-1].startswith("No longer in use: shop-")
    assert len(pipeline.models()) == 1


def test_a_kept_model_is_released_when_somebody_asks(rehearse: Rehearse) -> None:
    pipeline = rehearse()
    pipeline.run("shop", data.labelled(test=32, promote="if-better", serving={"mode": "provisioned", "keep": 48}))
    assert pipeline.parameter("shop") is not None
    execution = pipeline.ask({"dataset": "shop", "action": "release"})
    assert pipeline.states(execution)[-1] == "RunReleased"
    assert pipeline.bedrock.live_resources() == []
    assert pipeline.open_leases() == []
    assert pipeline.parameter("shop") is None


@pytest.mark.parametrize(("keep_model", "models"), [("never", 0), ("if-better", 1), ("always", 1)])
def test_a_model_stays_as_the_request_says(rehearse: Rehearse, keep_model: str, models: int) -> None:
    pipeline = rehearse()
    pipeline.run("shop", data.labelled(keepModel=keep_model))
    assert len(pipeline.models()) == models
    assert len(pipeline.open_leases()) == models
    assert pipeline.parameter("shop") is None


def test_a_run_on_a_subset_is_never_promoted(rehearse: Rehearse) -> None:
    pipeline = rehearse()
    files = data.labelled(train=140, test=32, promote="if-better", subset={"records": 100})
    execution = pipeline.run("shop", files)
    assert as_object(pipeline.row_of(execution)["records"], "records")["train"] == 100
    assert pipeline.row_of(execution)["verdict"] == "better"
    assert "PromoteModel" not in pipeline.states(execution)
    assert pipeline.parameter("shop") is None
    assert "promote: a run on a subset is never promoted" in str(pipeline.document(execution, "report.json")["notes"])


def test_pre_training_alone_is_not_compared_and_serves_nothing(rehearse: Rehearse) -> None:
    pipeline = rehearse(LATE)
    model = "amazon.titan-text-lite-v1:0:4k"
    files = {"pretrain.jsonl": data.lines(data.texts(60)), "run.json": data.request(baseModelIdentifier=model)}
    execution = pipeline.run("shop", files)
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert pipeline.row_of(execution)["verdict"] == "not compared"
    assert not {"CreateModelDeployment", "CreateProvisionedThroughput"} & set(pipeline.states(execution))
    assert pipeline.object_of(execution, "training-metrics-1.json")


def with_shuffled_completions(lines: bytes) -> bytes:
    records: list[JsonObject] = [json.loads(line) for line in lines.splitlines()]
    completions = [record["completion"] for record in records]
    random.Random(0).shuffle(completions)  # noqa: S311  the same order every time
    pairs = zip(records, completions, strict=True)
    return data.lines([{**record, "completion": completion} for record, completion in pairs])


def test_completions_shuffled_among_the_prompts_teach_the_model_nothing_that_helps(rehearse: Rehearse) -> None:
    pipeline = rehearse()
    files = folder(ROOT / "samples" / "support-en")
    files["run.json"] = data.request(evaluation={"primaryMetric": "exactMatch"})
    learnt = pipeline.run("right", files)
    confused = pipeline.run("shuffled", {**files, "train.jsonl": with_shuffled_completions(files["train.jsonl"])})
    assert pipeline.row_of(learnt)["verdict"] == "better"
    assert pipeline.row_of(confused)["verdict"] != "better"
    assert last_validation_loss(pipeline, confused) > 2 * last_validation_loss(pipeline, learnt)


def last_validation_loss(pipeline: Pipeline, execution: "Execution") -> float:
    metrics = pipeline.document(execution, "training-metrics-1.json")
    last = as_object(as_list(metrics["validation"], "validation")[-1], "validation")
    return float(str(last["loss"]))


def test_the_tutorial_of_titan_text_express_runs_with_the_parameters_it_gives(rehearse: Rehearse) -> None:
    pipeline = rehearse(LATE)
    execution = pipeline.run("tutorial-titan", folder(ROOT / "samples" / "tutorial-titan"))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    [job] = pipeline.jobs()
    asked = {name: job["hyperParameters"][name] for name in ("epochCount", "batchSize", "learningRate")}
    assert asked == {"epochCount": "3", "batchSize": "8", "learningRate": "0.00001"}
    assert len(job["validationDataConfig"]["validators"]) == 1
    assert sides_answered(pipeline.predictions(execution)) == {"base": 74, "custom": 74}
    assert pipeline.row_of(execution)["verdict"] in {"better", "worse", "inconclusive"}
    [hours] = [entry for entry in pipeline.bedrock.ledger() if entry.item == "provisionedThroughput"]
    served = (hours.until - hours.since).total_seconds() / 3600
    assert hours.quantity == pytest.approx(served, abs=1)  # one model unit, for as long as it was served
    request = as_object(pipeline.document(execution, "report.json")["request"], "request")
    inference = as_object(request["inference"], "inference")
    assert (request["modelUnits"], inference["maxTokens"], inference["temperature"]) == (1, 256, 0.7)
    assert pipeline.what_bills() == []


def test_a_job_of_a_day_takes_at_most_a_thousand_events(rehearse: Rehearse) -> None:
    pipeline = rehearse(faults=["job-slow=24"])
    execution = pipeline.run("shop", data.labelled())
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    [job] = pipeline.jobs()
    assert job["endTime"] - job["creationTime"] > timedelta(hours=24)
    assert len(execution.history.events) <= 1000
