"""What runs leave in the logs: metrics for every alarm and graph, lines that name their run, and none of the data."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import pytest

from customization.json_types import Json, JsonObject, as_list, as_object
from tests.infra.metrics import Named, named_metrics
from tests.infra.synthesis import read
from tests.workflow import data
from tests.workflow.conftest import Assemble, Deploy
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.history import Happening
    from rehearsal.embedded.states.machines import Execution

NAMESPACE = "BedrockModelCustomization"
# These take a verdict that six test records do not give, or a call that is throttled for long (test_metrics.py)
NOT_HERE = {"RunsBetter", "RunsWorse", "RunsNotCompared", "Throttles"}
# A line that is no record is quoted to whoever sees the findings
BROKEN = "Tell me where the lighthouse keeper hides"
# Bedrock guide, "Troubleshooting" of custom models: the beginning of the record follows
TOO_LONG = "Input size exceeded in file train.jsonl for record starting with"
# What a log has of a text would be its beginning: quotations are cut
TELLING = 15


class Logs:
    """Collects what functions write, from now on: one text a line, by function."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.lines: list[tuple[str, str]] = []
        pipeline.aws.watch(self._hear)

    def _hear(self, happening: "Happening") -> None:
        if happening.kind == "log":
            self.lines += [(happening.name, line) for line in str(happening.detail["text"]).splitlines()]

    def said(self) -> list[tuple[str, JsonObject]]:
        """Return the lines in JSON, by function."""
        return [(name, as_object(json.loads(line), name)) for name, line in self.lines if line.startswith("{")]

    def values(self, metric: str) -> list[float]:
        """Return what was told of a metric, in order."""
        return [float(str(as_list(said[metric], metric)[0])) for _, said in self.said() if metric in said]

    def emitted(self) -> Iterator[Named]:
        """Yield the metrics that CloudWatch makes of the lines in its embedded metric format."""
        for function, said in self.said():
            for item in as_list(as_object(said.get("_aws", {}), function).get("CloudWatchMetrics", []), function):
                told = as_object(item, function)
                for names in as_list(told["Dimensions"], function):
                    pairs = sorted((str(name), str(said[str(name)])) for name in as_list(names, function))
                    for metric in as_list(told["Metrics"], function):
                        name = str(as_object(metric, function)["Name"])
                        yield Named(str(told["Namespace"]), name, tuple(pairs))


class Story(NamedTuple):
    """What happened once for all tests of this module."""

    pipeline: Pipeline
    logs: Logs
    succeeded: "Execution"
    refused: "Execution"
    failed: "Execution"
    promotion: "Execution"
    overdue: list[float]


@pytest.fixture(scope="module")
def story(deploy: Deploy) -> Iterator[Story]:
    """Tell of runs: one succeeds and is promoted, others have refused data, a failed job, model units that stay."""
    with deploy() as pipeline:
        logs = Logs(pipeline)
        pipeline.forget()
        succeeded = pipeline.run(pipeline.folder())
        mixed = pipeline.folder() | {"train.jsonl": data.lines(data.pairs(100, 20_000)) + f'"{BROKEN}"\n'.encode()}
        refused = pipeline.run(mixed, "refused")
        pipeline.inject(f"job-fails-validation={TOO_LONG} {data.pairs(1, 30_000)[0]['prompt']}")
        failed = pipeline.run(data.labelled(start=30_000), "failed")
        run_id = pipeline.row_of(succeeded)["runId"]
        promotion = pipeline.ask({"dataset": pipeline.dataset, "action": "promote", "data": run_id})
        pipeline.inject("refuse:99=DeleteProvisionedModelThroughput/AccessDeniedException")
        pipeline.interrupt("EvaluateCustomModel", pipeline.folder(serving={"mode": "provisioned"}), pipeline.stop)
        before = len(logs.values("OverdueLeases"))
        end_lease_and_base_model(pipeline, pipeline.row_of(succeeded))
        pipeline.pass_time(minutes=15)
        pipeline.inject()
        pipeline.pass_time(minutes=15)
        overdue = logs.values("OverdueLeases")[before:]
        yield Story(pipeline, logs, succeeded, refused, failed, promotion, overdue)


def end_lease_and_base_model(pipeline: Pipeline, run: JsonObject) -> None:
    """Let the budget of what bills have paid for it until long ago, and put the run's model in use as a legacy one."""
    database = pipeline.aws.session().client("dynamodb")
    [lease] = [lease for lease in pipeline.open_leases() if lease["kind"] == "provisioned"]
    database.update_item(
        TableName=pipeline.outputs["LeasesTableName"],
        Key={"resourceName": {"S": str(lease["resourceName"])}},
        UpdateExpression="SET hardEnd = :end",
        ExpressionAttributeValues={":end": {"S": "2026-11-01T00:00:00+00:00"}},
    )
    arn = str(run["modelArn0"])
    name = pipeline.aws.session().client("bedrock").get_custom_model(modelIdentifier=arn)["modelName"]
    row = {
        "runId": "promoted#old",
        "promotedRunId": str(run["runId"]),
        "trainingId": "0123456789",
        "baseModelIdentifier": "cohere.command-text-v14:7:4k",
        "modelName": name,
        "modelArn": arn,
    }
    items = {name: {"S": value} for name, value in row.items()}
    database.put_item(TableName=pipeline.outputs["RunsTableName"], Item=items)


def test_each_metric_of_an_alarm_or_a_graph_is_one_that_functions_write_with_the_same_dimensions(
    story: Story, assemble: Assemble
) -> None:
    environment = dict(next(iter(story.pipeline.aws.deployed.functions.values())).environment)
    template = read(assemble("us-east-1") / "Customization-dev-Operations.template.json")
    named = {
        metric._replace(
            dimensions=tuple(
                (name, value.replace("import:Customization-dev-Storage:DeploymentId", environment["DEPLOYMENT_ID"]))
                for name, value in metric.dimensions
            )
        )
        for metric in named_metrics(template)
        if metric.namespace == NAMESPACE
    }
    written = set(story.logs.emitted())
    assert {metric.dimensions for metric in written} == {metric.dimensions for metric in named}
    assert {metric.name for metric in named - written} == NOT_HERE
    # What nobody looks at would be paid for all the same
    assert written <= named


def test_what_outlives_its_lease_sets_off_the_alarm_until_it_is_gone(story: Story) -> None:
    assert max(story.overdue) >= 1
    assert story.overdue[-1] == 0
    assert story.pipeline.what_bills() == []


def test_the_sweeper_tells_what_bills_while_it_bills(story: Story) -> None:
    # No source gives the price of a throughput of this base model
    assert max(story.logs.values("UnpricedResources")) == 1
    assert max(story.logs.values("LiveResources")) >= 1
    assert (story.logs.values("LiveUsdPerHour")[-1], story.logs.values("LiveResources")[-1]) == (0, 0)
    assert story.logs.values("RunsStopped") == [1]
    assert sum(story.logs.values("SweeperActions")) >= 1


def test_a_model_in_use_of_a_legacy_base_model_sets_off_the_alarm(story: Story) -> None:
    assert story.logs.values("LegacyModels")[-1] == 1


def test_the_report_tells_money_quality_and_time(story: Story) -> None:
    row = story.pipeline.row_of(story.succeeded)
    [line] = [said for _, said in story.logs.said() if "SpentUsd" in said and said["runId"] == row["runId"]]
    assert line["SpentUsd"] == [row["spentUsd"]]
    assert line["EstimatedUsd"] == [row["estimatedUsd"]]
    assert line["TrainingLoss"] == [row["trainingLoss0"]]
    scores = as_object(row["scores"], "scores")
    assert line["CustomModelScore"] == [as_object(scores["custom"], "custom")["mean"]]
    minutes = [float(str(as_list(line[f"Minutes{part}"], part)[0])) for part in ("BeforeTraining", "OfTraining")]
    assert 0 < sum(minutes) < (story.pipeline.clock.now() - story.succeeded.started).total_seconds() / 60
    assert minutes[1] > 30  # the shortest job of the stand-in takes 35


def test_what_runs_that_stopped_or_failed_have_spent_is_counted_too(story: Story) -> None:
    counted = {said["runId"] for _, said in story.logs.said() if "SpentUsd" in said}
    spending = {row["runId"]: row["state"] for row in story.pipeline.runs() if row.get("spentUsd") is not None}
    assert sorted(map(str, spending.values())) == ["ABORTED", "FAILED", "SUCCEEDED"]
    assert counted == set(spending)


def test_every_line_of_a_run_names_the_run_and_its_execution(story: Story) -> None:
    runs = {story.pipeline.row_of(run)["runId"]: run.arn for run in (story.succeeded, story.refused)}
    nameless = {"poll_uploads", "sweep", "explain_unused_upload"}
    lines = [(name, said) for name, said in story.logs.said() if name not in nameless and "_aws" not in said]
    # A promotion is none of a run's
    lines = [(name, said) for name, said in lines if said["executionArn"] != story.promotion.arn]
    assert len(lines) > 20
    assert {name for name, said in lines if not said["runId"]} == set()
    for run, arn in runs.items():
        named = [said for _, said in lines if said["executionArn"] == arn]
        assert {said["runId"] for said in named} == {run}
    assert {said["executionArn"] for name, said in story.logs.said() if name == "poll_uploads"} >= set(runs.values())


def texts_of(records: list[JsonObject]) -> set[str]:
    return {str(record[field]) for record in records for field in ("prompt", "completion")}


def test_no_log_has_a_prompt_a_completion_or_an_answer(story: Story) -> None:
    places = ((100, 1_000), (6, 1_500), (100, 20_000), (100, 30_000), (6, 30_500))
    uploaded = [record for count, start in places for record in data.pairs(count, start)]
    answers: set[str] = set()
    for record in story.pipeline.predictions(story.succeeded):
        for prediction in as_object(record["predictions"], "predictions").values():
            answers.add(str(as_object(prediction, "prediction")["text"]))
    texts = (texts_of(uploaded) | answers | {BROKEN}) - {""}
    assert len(texts) > 200
    logged = "\n".join(line for _, line in story.logs.lines)
    assert "InvalidDataset" in logged
    assert f"{TOO_LONG}..." in logged
    assert BROKEN in str(story.pipeline.document(story.refused, "data/problems.json"))
    assert f"{TOO_LONG} How can I" in str(story.pipeline.row_of(story.failed)["cause"])
    assert {"change_model_in_use", "record_failure"} <= {name for name, _ in story.logs.lines}
    beginnings = {text.strip()[:TELLING] for text in texts}
    assert [text for text in beginnings if len(text) > 3 and text in logged] == []


def test_a_poll_tells_the_phase_and_the_losses_of_the_job(story: Story) -> None:
    polled: list[JsonObject] = [
        as_object(said["result"], "result")
        for name, said in story.logs.said()
        if name == "poll_customization_job" and said["executionArn"] == story.succeeded.arn
    ]
    phases: list[Json] = [answer["phase"] for answer in polled]
    assert phases[-1] == "Training: Completed"
    assert len(set(map(str, phases))) > 2
    assert isinstance(polled[-1]["trainingLoss"], float)


def test_nor_has_one_the_prompt_of_a_request_that_is_refused(story: Story) -> None:
    asked: list[tuple[Json, str]] = [({"system": [BROKEN]}, ".system: found a list"), (BROKEN, ": found a string")]
    for inference, found in asked:
        refused = story.pipeline.ask(story.pipeline.request(inference=inference))
        assert refused.outcome.error == "InvalidRunRequest"
        logged = "\n".join(line for _, line in story.logs.lines)
        assert f"inference{found}; expected" in logged
        assert BROKEN[:TELLING] not in logged
