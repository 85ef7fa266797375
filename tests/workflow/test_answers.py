"""Every record is asked once, whatever happens to the functions that ask, and of every model that there is to ask."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from customization.json_types import JsonObject, as_object
from rehearsal.embedded.faults import FunctionFault, Kill, Twice
from rehearsal.synthesis import ROOT
from tests.workflow.pipeline import Pipeline, sides_answered

RECORDS = 60
# What is under way when a function dies: a question a thread, and the answers since the last were stored
IN_FLIGHT = 8 + 2 * 8


def newly_answered(pipeline: Pipeline, before: "Counter[tuple[str, str]]") -> "Counter[tuple[str, str]]":
    return pipeline.bedrock.answers - before


@pytest.mark.parametrize(
    ("fault", "most_again"),
    [(Kill(calls=24), IN_FLIGHT), (Twice(), RECORDS // 3)],
    ids=["killed midway", "twice at once"],
)
def test_each_record_is_answered_once_except_those_under_way(
    pipeline: Pipeline, fault: FunctionFault, most_again: int
) -> None:
    before = Counter(pipeline.bedrock.answers)
    pipeline.function_faults.strike("evaluate_shard", before=fault)
    execution = pipeline.run(pipeline.folder(test=RECORDS))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert pipeline.function_faults.broken == ["evaluate_shard"]
    assert sides_answered(pipeline.predictions(execution)) == {"base": RECORDS, "custom": RECORDS}
    answers = newly_answered(pipeline, before)
    assert len(answers) == 2 * RECORDS
    assert max(answers.values()) <= 2
    assert answers.total() - 2 * RECORDS <= most_again


def answered_by(pipeline: Pipeline, arn: str, before: "Counter[tuple[str, str]]") -> int:
    return sum(count for (model, _), count in newly_answered(pipeline, before).items() if model == arn)


def command(pipeline: Pipeline, *arguments: str) -> str:
    """Run a command of a person's terminal against the embedded AWS."""
    access = {"AWS_ACCESS_KEY_ID": "AKIAREHEARSALDEPLOYR", "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": "us-east-1"}
    done = subprocess.run(  # noqa: S603  this interpreter with this project's own module
        [sys.executable, "-m", "customization.commands", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": "lambda",
            "AWS_ENDPOINT_URL": pipeline.aws.endpoint_url,
            **access,
        },
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def notes_of(document: JsonObject) -> str:
    return str(document["notes"])


def check_second_run(pipeline: Pipeline, first: JsonObject, in_use: JsonObject) -> JsonObject:
    """Run again with other test records: the model in use is asked, then swapped behind its ARN; return the row."""
    before = Counter(pipeline.bedrock.answers)
    run = pipeline.run(pipeline.folder(test=40, promote="if-better", hyperParameters={"epochCount": 3}))
    row, states = pipeline.row_of(run), pipeline.states(run)
    assert states.index("EvaluateModelInUse") < states.index("CreateCustomizationJob")
    # Nothing stands between the last answer and the release of what may bill by the hour
    assert states[states.index("EvaluateCustomModel") + 1] == "ReleaseServing"
    assert answered_by(pipeline, str(first["modelArn0"]), before) == 40
    assert sides_answered(pipeline.predictions(run)) == {"base": 40, "custom": 40, "inUse": 40}
    assert f"not those of the run before, {first['runId']}" in notes_of(pipeline.document(run, "report.json"))
    assert as_object(row["gains"], "gains").keys() == {"base", "inUse"}
    assert row["promoted"] is True
    assert "WaitForPromotion" in states
    assert pipeline.parameter() == in_use
    deployments = [arn for arn in pipeline.bedrock.live_resources() if ":custom-model-deployment/" in arn]
    assert deployments == [in_use["arn"]]
    return row


def check_compared_run(pipeline: Pipeline, first: JsonObject, second: JsonObject) -> None:
    """Compare with the first run: what is stored of it and of the second is not asked again."""
    before = Counter(pipeline.bedrock.answers)
    request = pipeline.request(evaluation={"compareWith": first["runId"]}, hyperParameters={"epochCount": 1})
    run = pipeline.ask(request)
    sides = sides_answered(pipeline.predictions(run))
    assert sides == {"base": 40, "custom": 40, "inUse": 40, "compareWith": 32}
    assert answered_by(pipeline, str(second["modelArn0"]), before) == 0
    assert answered_by(pipeline, str(first["modelArn0"]), before) == 0
    note = f"Run {first['runId']} is compared by its stored answers: 32 of the 40 test records are in both runs"
    assert note in notes_of(pipeline.document(run, "report.json"))


def check_commands(pipeline: Pipeline, second: JsonObject) -> None:
    told = command(pipeline, "runs", pipeline.dataset)
    assert f"{second['runId']}  2026-11-22" in told
    assert "better, IN USE" in told
    assert "hyperParameters.epochCount" in told
    told = command(pipeline, "ask", pipeline.dataset, "How can I repair the lamp of order 7?")
    assert f"Model in use of run {second['runId']}" in told
    assert "is not served" not in told


@pytest.mark.exhaustive
def test_the_model_in_use_answers_the_same_records_and_is_swapped_behind_its_deployment(pipeline: Pipeline) -> None:
    keep: JsonObject = {"mode": "on-demand", "keep": 100}
    first = pipeline.row_of(pipeline.run(pipeline.folder(test=32, promote="if-better", serving=keep)))
    in_use = pipeline.parameter()
    assert in_use is not None
    second = check_second_run(pipeline, first, in_use)
    check_compared_run(pipeline, first, second)
    check_commands(pipeline, second)

    rolled = pipeline.ask({"dataset": pipeline.dataset, "action": "rollback"})
    assert "WaitForModelInUse" in pipeline.states(rolled)
    assert pipeline.parameter() == in_use
    bedrock = pipeline.aws.session().client("bedrock")
    served = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=str(in_use["arn"]))
    assert served["modelArn"] == first["modelArn0"]
