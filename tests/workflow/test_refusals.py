"""What cannot be run gets one clear message; nothing is started and nothing is lost."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

from customization.failures import explain
from tests.workflow import data
from tests.workflow.checks import assert_failed, assert_refused
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from customization.json_types import Json, JsonObject
    from rehearsal.embedded.states.machines import Execution

# What a deployment without settings has, as stacks/config.py says
MONTHLY_USD = 200


def execution_of(pipeline: Pipeline, key: str, content: bytes) -> "Execution":
    """Put one object and return the execution that it started."""
    pipeline.put(key, content)
    pipeline.finish()
    [execution] = pipeline.executions()
    return execution


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"budgetUsd": 5,', "{folder}run.json: not JSON"),
        (b'{"budgetUsd": "\xff"}', "{folder}run.json: byte 15 is not UTF-8"),
        (b"[]", "{folder}run.json: expected an object"),
        (b'{"dataset": "other"}', "{folder}run.json: dataset: found 'other', expected '{dataset}'"),
        (b'{"bugetUsd": 5}', "bugetUsd: unknown field; did you mean budgetUsd?"),
        (
            b'{"serving": {"commitmentDuration": "OneMonth"}}',
            "serving.commitmentDuration: this pipeline never buys a commitment",
        ),
        (
            b'{"baseModelIdentifier": "amazon.nova-mikro-v1:0:128k"}',
            'found "amazon.nova-mikro-v1:0:128k", which the catalogue does not hold; did you mean amazon.nova-micro-v1',
        ),
        (
            b'{"baseModelIdentifier": "meta.llama3-3-70b-instruct-v1:0:128k"}',
            "baseModelIdentifier: Llama 3.3 70B Instruct cannot be customized in us-east-1, only in us-west-2",
        ),
        (b'{"baseModelIdentifier": "amazon.nova-canvas-v1:0"}', "is an image model, which this pipeline does not run"),
        (
            b'{"customizationType": "CONTINUED_PRE_TRAINING"}',
            "customizationType: CONTINUED_PRE_TRAINING trains on pretrain.jsonl, but {folder} holds train.jsonl",
        ),
        (
            b'{"hyperParameters": {"epochCount": 50}}',
            "hyperParameters.epochCount: found 50; Nova Micro takes 1 to 5",
        ),
        (
            b'{"hyperParameters": {"epochs": 2}}',
            "hyperParameters.epochs: Nova Micro has none of that name for FINE_TUNING; did you mean epochCount?",
        ),
    ],
)
def test_a_run_request_that_cannot_be_run_is_refused_naming_the_field(
    pipeline: Pipeline, content: bytes, says: str
) -> None:
    execution = pipeline.run({"train.jsonl": data.lines(data.pairs(100)), "run.json": content})
    says = says.format(folder=f"incoming/{pipeline.dataset}/", dataset=pipeline.dataset)
    assert_refused(pipeline, execution, at="PlanRun", error="InvalidRunRequest", says=says)


def test_a_start_from_the_console_without_a_file_that_it_expects_is_refused_naming_the_file(pipeline: Pipeline) -> None:
    pipeline.put(f"incoming/{pipeline.dataset}/train.jsonl", data.lines(data.pairs(100)))
    pipeline.finish()
    execution = pipeline.ask(pipeline.request(expect=["train.jsonl", "test.jsonl"]))
    says = f"expect: incoming/{pipeline.dataset}/ lacks test.jsonl; upload what is missing, or take it out of expect"
    assert_refused(pipeline, execution, at="PlanRun", error="InvalidRunRequest", says=says)


def test_all_problems_of_a_request_are_told_at_once(pipeline: Pipeline) -> None:
    request: Json = {"dataset": "shop", "budgetUsd": -1, "language": "fr", "serving": {"modelUnits": 0}}
    execution = pipeline.ask(request)
    for field in ("budgetUsd", "language", "serving.modelUnits"):
        assert_refused(pipeline, execution, at="PlanRun", error="InvalidRunRequest", says=f"- {field}: ")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"train.jsonl": b""}, "train.jsonl: the file holds no record"),
        ({"train.jsonl": data.lines(data.pairs(2)) + b'{"prompt": "a"\n'}, "train.jsonl line 3"),
        ({"train.jsonl": data.lines(data.pairs(5)) + b'{"prompt": "a"}\n'}, "train.jsonl line 6"),
        ({"train.jsonl": data.lines(data.pairs(100)), "test.jsonl": b"{}\n"}, "test.jsonl line 1"),
    ],
)
def test_bad_data_are_refused_naming_the_line(pipeline: Pipeline, files: Mapping[str, bytes], says: str) -> None:
    execution = pipeline.run({**files, "run.json": data.request()})
    assert_refused(pipeline, execution, at="PrepareDataset", error="InvalidDataset", says=says)


def test_a_run_above_its_budget_is_refused_with_the_amounts(pipeline: Pipeline) -> None:
    execution = pipeline.run(pipeline.folder(budgetUsd=0.001))
    says = "budgetUsd: found 0.00, the estimate is"
    assert_refused(pipeline, execution, at="IsWithinBudget", error="BudgetExceeded", says=says)


@pytest.mark.exhaustive
def test_runs_that_begin_together_cannot_overshoot_the_months_budget(pipeline: Pipeline) -> None:
    model = "amazon.nova-2-lite-v1:0:256k"  # an hour of its model unit costs more than 60 USD
    request = data.request(baseModelIdentifier=model, serving={"mode": "provisioned"}, budgetUsd=100)
    committed: list[float] = []
    watched = ("is_within_budget", "publish_report", "release_resources")
    pipeline.function_faults.strike(*watched, do=lambda _: committed.append(committed_usd(pipeline)), times=99)
    with pipeline.clock.hold():
        for number in range(6):
            files = {**data.labelled(start=500_000 + number * 1_000), "run.json": request}
            pipeline.drop(f"{pipeline.dataset}-{number}", files)
    pipeline.finish()
    runs = {state: [run for run in pipeline.runs() if run["state"] == state] for state in ("SUCCEEDED", "FAILED")}
    assert [len(found) for found in runs.values()] == [3, 3]
    for execution in pipeline.executions():
        if execution.outcome.status == "FAILED":
            says = "monthlyBudgetUsd: this run needs 6"
            assert_failed(pipeline, execution, at="IsWithinBudget", error="BudgetExceeded", says=says)
            fix = explain("BudgetExceeded", str(pipeline.row_of(execution)["cause"])).fix
            assert pipeline.row_of(execution)["fix"] == fix
    assert {job["jobName"] for job in pipeline.jobs()} == {run["jobName0"] for run in runs["SUCCEEDED"]}
    assert len(pipeline.jobs()) == 3
    needed = {state: [float(str(run["estimatedUsd"])) for run in found] for state, found in runs.items()}
    # What a run has spent comes to its estimate but for a hundredth
    assert max(committed) == pytest.approx(sum(needed["SUCCEEDED"]), rel=0.01)
    assert MONTHLY_USD - min(needed["FAILED"]) < max(committed) <= MONTHLY_USD
    assert month_of(pipeline) == {
        "runId": month_of(pipeline)["runId"],
        "committedUsd": pytest.approx(sum(float(str(run["spentUsd"])) for run in runs["SUCCEEDED"])),
        **{f"reserved#{run['runId']}#1": "settled" for run in runs["SUCCEEDED"]},
        **{f"spent#{run['runId']}#1": run["spentUsd"] for run in runs["SUCCEEDED"]},
    }


def month_of(pipeline: Pipeline) -> "JsonObject":
    """Return the row of the month."""
    [month] = [row for row in pipeline.rows() if str(row["runId"]).startswith("month#")]
    return month


def committed_usd(pipeline: Pipeline) -> float:
    return float(str(month_of(pipeline).get("committedUsd", 0)))


def test_a_price_that_nobody_knows_has_to_be_accepted(pipeline: Pipeline) -> None:
    execution = pipeline.run(pipeline.folder(acceptUnknownPrices=[], serving={"mode": "provisioned"}))
    says = "acceptUnknownPrices: no price is known for provisionedThroughput"
    assert_refused(pipeline, execution, at="IsWithinBudget", error="BudgetExceeded", says=says)


def test_a_request_without_data_is_refused_naming_the_files_to_upload(pipeline: Pipeline) -> None:
    execution = execution_of(pipeline, "incoming/empty/run.json", b"{}")
    says = "incoming/empty/ holds no files; expected train.jsonl"
    assert_refused(pipeline, execution, at="PlanRun", error="InvalidRunRequest", says=says)


@pytest.mark.parametrize(
    ("key", "moved_to"),
    [
        ("incoming/My_Data/train.jsonl", "incoming/my-data/train.jsonl"),
        ("incoming/shop/old/train.jsonl", "incoming/shop-old/train.jsonl"),
        ("incoming/a+b c%20データ/train.jsonl", "incoming/a-b-c-20/train.jsonl"),
    ],
)
def test_a_folder_that_names_no_data_set_is_refused_with_the_command_that_mends_it(
    pipeline: Pipeline, key: str, moved_to: str
) -> None:
    execution = execution_of(pipeline, key, data.lines(data.pairs(100)))
    bucket = pipeline.outputs["DataBucketName"]
    says = f"move it: aws s3 mv 's3://{bucket}/{key}' s3://{bucket}/{moved_to}"
    assert_refused(pipeline, execution, at="PollUploads", error="InvalidRunRequest", says=says)


def test_the_consoles_empty_input_lists_inputs_that_can_be_pasted(pipeline: Pipeline) -> None:
    pipeline.put("incoming/halves/validation.jsonl", b"")
    unpriced = pipeline.run({"train.jsonl": data.lines(data.pairs(100, 7_000))})
    assert unpriced.outcome.error == "BudgetExceeded"
    listed = pipeline.ask({})
    ready = f'{{"dataset": "{pipeline.dataset}", "acceptUnknownPrices": ["customAnswers"]}}'
    assert f"\n{ready}   (train.jsonl)" in str(listed.outcome.cause)
    assert "halves" not in str(listed.outcome.cause)
    pasted = pipeline.ask(json.loads(ready))
    assert pasted.outcome.status == "SUCCEEDED", pasted.outcome.cause


def test_a_file_that_does_not_come_ends_the_wait_after_two_hours(pipeline: Pipeline) -> None:
    began = pipeline.clock.now()
    files = {"train.jsonl": data.lines(data.pairs(100)), "run.json": data.request(expect=["test.jsonl"])}
    execution = pipeline.run(files)
    says = "is not complete after 2:00:00:\n- test.jsonl of 'expect' in run.json is missing"
    assert_refused(pipeline, execution, at="PollUploads", error="UploadsIncomplete", says=says)
    assert (pipeline.clock.now() - began).total_seconds() < 2.1 * 3600


def test_files_that_no_run_will_use_are_explained_once_a_folder(pipeline: Pipeline) -> None:
    for name in ("Train.jsonl", "notes.csv"):
        pipeline.put(f"incoming/misnamed/{name}", b"{}")
        pipeline.finish()
    assert pipeline.executions() == []
    [told] = pipeline.notifications()
    assert "incoming/misnamed/Train.jsonl" in told.message
    assert "train.jsonl, pretrain.jsonl, validation.jsonl, test.jsonl, run.json" in told.message
    assert f"s3://{pipeline.outputs['DataBucketName']}/incoming/misnamed/train.jsonl" in told.message
