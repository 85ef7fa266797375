"""Runs on the day for which sources show Titan Text offered."""

import json
from collections.abc import Iterator
from datetime import date

import pytest

from customization.json_types import JsonObject, as_object
from rehearsal.embedded.faults import FunctionFault
from rehearsal.synthesis import ROOT
from tests.workflow import data
from tests.workflow.checks import assert_failed, assert_settled
from tests.workflow.conftest import Deploy
from tests.workflow.pipeline import Pipeline, sides_answered, stages_of

TITAN_LITE = "amazon.titan-text-lite-v1:0:4k"


@pytest.fixture(scope="module")
def deployed(deploy: Deploy) -> Iterator[Pipeline]:
    with deploy(date(2025, 1, 18)) as pipeline:
        yield pipeline


@pytest.mark.exhaustive
def test_the_tutorial_of_titan_text_express_runs_with_the_parameters_it_gives(pipeline: Pipeline) -> None:
    tutorial = ROOT / "samples" / "tutorial-titan"
    execution = pipeline.run({file.name: file.read_bytes() for file in tutorial.iterdir()}, tutorial.name)
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    [job] = pipeline.jobs()
    asked = {name: job["hyperParameters"][name] for name in ("epochCount", "batchSize", "learningRate")}
    assert asked == {"epochCount": "3", "batchSize": "8", "learningRate": "0.00001"}
    assert len(job["validationDataConfig"]["validators"]) == 1
    assert sides_answered(pipeline.predictions(execution)) == {"base": 74, "custom": 74}
    assert pipeline.row_of(execution)["verdict"] in {"better", "worse", "inconclusive"}
    request = as_object(pipeline.document(execution, "report.json")["request"], "request")
    inference = as_object(request["inference"], "inference")
    assert (request["modelUnits"], inference["maxTokens"], inference["temperature"]) == (1, 256, 0.7)
    assert "provisionedThroughput" in pipeline.billed()
    assert pipeline.what_bills() == []


def test_pre_training_alone_is_not_compared_and_serves_nothing(pipeline: Pipeline) -> None:
    request = data.request(baseModelIdentifier=TITAN_LITE)
    execution = pipeline.run({"pretrain.jsonl": data.lines(data.texts(60)), "run.json": request})
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert pipeline.row_of(execution)["verdict"] == "not compared"
    assert not {"CreateModelDeployment", "CreateProvisionedThroughput"} & set(pipeline.states(execution))
    assert pipeline.object_of(execution, "training-metrics-1.json")


@pytest.mark.exhaustive
def test_a_run_whose_second_stage_failed_adopts_the_model_of_the_first_when_it_is_started_again(
    pipeline: Pipeline,
) -> None:
    def break_next_job(_: object) -> None:
        pipeline.inject("job-fails")

    request = pipeline.request(baseModelIdentifier=TITAN_LITE, budgetUsd=100)
    files = {
        **pipeline.folder(),
        "pretrain.jsonl": data.lines(data.texts(60)),
        "run.json": json.dumps(request).encode(),
    }
    execution = pipeline.interrupt("WaitForCustomizationJob", files, break_next_job)
    says = "internal error when processing the request"
    assert_failed(pipeline, execution, at="PollCustomizationJob", error="CustomizationJobFailed", says=says)

    pipeline.inject()
    again = pipeline.ask(request)
    assert again.outcome.status == "SUCCEEDED", again.outcome.cause
    kinds = [(job["customizationType"], job["status"]) for job in pipeline.jobs()]
    assert kinds == [
        ("CONTINUED_PRE_TRAINING", "Completed"),
        ("FINE_TUNING", "Failed"),
        ("FINE_TUNING", "Completed"),
    ]
    stages = stages_of(pipeline.document(again, "report.json"))
    assert [stage["wasAdopted"] for stage in stages] == [True, False]
    assert stages[1]["baseModel"] == pipeline.jobs()[0]["outputModelArn"]


@pytest.mark.exhaustive
def test_what_a_slow_evaluation_has_used_of_the_reserved_hours_is_not_kept_on_top_of_them(pipeline: Pipeline) -> None:
    """Three hours are reserved, of which the evaluation takes more than the one that was estimated."""
    # Each is tried again after a minute on average
    slow = FunctionFault("EvaluationUnfinished", "the time of one call was not enough")
    pipeline.function_faults.strike("EvaluateCustomModelShard", before=slow, times=60)
    serving: JsonObject = {"mode": "provisioned", "keep": 2}
    files = pipeline.folder(baseModelIdentifier=TITAN_LITE, serving=serving, budgetUsd=24)
    execution = pipeline.run(files)
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    [lease] = [row for row in pipeline.leases() if row["kind"] == "provisioned"]
    assert lease["keepUntil"] == lease["hardEnd"]
    says = f"until {str(lease['hardEnd'])[:16].replace('T', ' ')} UTC"
    [told] = [item for item in pipeline.told_of(execution) if "Started" not in item.subject]
    assert f"The budget pays for what serves the model {says}, not for all of the 2 hours" in told.message
    assert told.message.count(says) == 2
    pipeline.pass_time(hours=4)
    assert pipeline.what_bills() == []
    assert pipeline.billed()["provisionedThroughput"][0] == 3
    assert_settled(pipeline)
