"""A rehearsed pipeline with the questions that tests ask of it."""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from boto3.dynamodb.types import TypeDeserializer

from customization.json_types import Json, JsonObject, as_list, as_object
from rehearsal.clock import Signal
from rehearsal.embedded.states.history import Happening
from rehearsal.run import Rehearsal

if TYPE_CHECKING:
    from mypy_boto3_bedrock.type_defs import GetModelCustomizationJobResponseTypeDef

    from rehearsal.embedded.front import Notification
    from rehearsal.embedded.states.machines import Execution

_LONGEST_WAIT = timedelta(days=3).total_seconds()


class Pipeline(Rehearsal):
    """A rehearsal whose files arrive, unless a test lets time pass between them, at one moment."""

    def drop(self, dataset: str, files: Mapping[str, bytes]) -> None:
        with self.clock.hold():
            super().drop(dataset, files)

    def put(self, key: str, content: bytes) -> None:
        """Put one object into the data bucket."""
        s3 = self.aws.session().client("s3")
        s3.put_object(Bucket=self.outputs["DataBucketName"], Key=key, Body=content)

    def run(self, dataset: str, files: Mapping[str, bytes]) -> "Execution":
        """Drop files, let the run end and return the execution that did it."""
        before = len(self.aws.executions())
        self.drop(dataset, files)
        return next(execution for execution in self.finish()[before:] if not self.has_joined(execution))

    def ask(self, request: Json) -> "Execution":
        """Start from the console, let the run end and return its execution."""
        arn = self.start(request)
        self.finish()
        return self.aws.wait_for_execution(arn)

    def has_joined(self, execution: "Execution") -> bool:
        """Return whether the execution left its file to another that waits for the same folder."""
        return "JoinedWaitingRun" in self.states(execution)

    def states(self, execution: "Execution") -> list[str]:
        """Return the names of the states that the execution has entered, in order."""
        return [
            str(event["details"][1]["name"])
            for event in list(execution.history.events)
            if event["details"] is not None and event["type"].endswith("StateEntered")
        ]

    def entering(self, state: str) -> Signal:
        """Return a signal that is set when an execution enters the state."""
        signal = self.clock.signal(f"{state} is entered")

        def notice(happening: Happening) -> None:
            if happening.kind == "state-entered" and happening.name == state:
                signal.set()

        self.aws.watch(notice)
        return signal

    def stop_at(self, state: str, begin: Callable[[], object], after: timedelta = timedelta()) -> "Execution":
        """Begin a run and stop its execution, as a person does in the console, so long after it came to a state."""
        entered = self.entering(state)
        with self.clock.hold():
            begin()
            assert entered.wait(_LONGEST_WAIT), f"no execution came to {state}"
            if after:  # a sleep of no time lets everybody else go on until they wait
                self.clock.sleep(after.total_seconds())
            running = [execution for execution in self.aws.executions() if execution.outcome.status == "RUNNING"]
            for execution in running:
                self.aws.session().client("stepfunctions").stop_execution(executionArn=execution.arn)
        self.finish()
        [stopped] = running
        return stopped

    def pass_time(self, **amount: float) -> None:
        """Let so much time pass, with every sweep that falls into it."""
        self.clock.advance(timedelta(**amount).total_seconds())
        self.finish()

    def jobs(self) -> "list[GetModelCustomizationJobResponseTypeDef]":
        """Return every customization job that was ever created, oldest first."""
        bedrock = self.aws.session().client("bedrock")
        summaries = bedrock.list_model_customization_jobs(sortOrder="Ascending")["modelCustomizationJobSummaries"]
        return [bedrock.get_model_customization_job(jobIdentifier=summary["jobArn"]) for summary in summaries]

    def models(self) -> list[str]:
        """Return the names of the custom models that are there."""
        bedrock = self.aws.session().client("bedrock")
        return [model["modelName"] for model in bedrock.list_custom_models()["modelSummaries"]]

    def open_leases(self) -> list[JsonObject]:
        """Return the leases that are not closed."""
        function = next(iter(self.aws.deployed.functions.values()))
        client = self.aws.session().client("dynamodb")
        read = TypeDeserializer()
        items = client.scan(TableName=dict(function.environment)["LEASES_TABLE"])["Items"]
        rows: list[JsonObject] = [
            {name: json.loads(json.dumps(read.deserialize(value), default=float)) for name, value in item.items()}
            for item in items
        ]
        return [row for row in rows if row["state"] == "OPEN"]

    def subjects(self) -> list[str]:
        """Return the subjects of all notifications, in order."""
        return [told.subject for told in self.aws.notifications]

    def told_of(self, execution: "Execution") -> "list[Notification]":
        """Return the notifications that point to an execution."""
        return [told for told in self.aws.notifications if execution.arn in told.message]

    def row_of(self, execution: "Execution") -> JsonObject:
        """Return the row that an execution owns in the table of runs."""
        owned = [row for row in self.rows() if row.get("executionArn") == execution.arn]
        return next(row for row in owned if not str(row["runId"]).startswith("uploads#"))

    def parameter(self, dataset: str) -> JsonObject | None:
        """Return the parameter that names the data set's model in use, or None."""
        ssm = self.aws.session().client("ssm")
        found = ssm.get_parameters_by_path(Path="/dev", Recursive=True)["Parameters"]
        values = [item["Value"] for item in found if item["Name"].endswith(f"/datasets/{dataset}/model")]
        return as_object(json.loads(values[0]), "parameter") if values else None

    def object_of(self, execution: "Execution", name: str) -> bytes:
        """Return a file beside the report of the execution's run."""
        return self.artifact(f"runs/{self.row_of(execution)['runId']}/{name}")

    def document(self, execution: "Execution", name: str) -> JsonObject:
        """Return a JSON file beside the report of the execution's run."""
        return as_object(json.loads(self.object_of(execution, name)), name)

    def predictions(self, execution: "Execution") -> list[JsonObject]:
        """Return predictions.jsonl."""
        found = self.object_of(execution, "evaluation/predictions.jsonl")
        return [as_object(json.loads(line), "predictions.jsonl") for line in found.splitlines()]

    def what_bills(self) -> list[str]:
        """Return what runs or bills, in Bedrock's eyes and in the leases', beside custom models."""
        live = [arn for arn in self.bedrock.live_resources() if ":custom-model/" not in arn]
        leased = [f"lease {row['kind']} {row['resourceName']}" for row in self.open_leases() if row["kind"] != "model"]
        return live + leased


def sides_answered(predictions: list[JsonObject]) -> dict[str, int]:
    """Return how many records each side has answered."""
    counts: dict[str, int] = {}
    for record in predictions:
        for side, prediction in as_object(record["predictions"], "predictions").items():
            counts[side] = counts.get(side, 0) + (not as_object(prediction, side)["error"])
    return counts


def stages_of(report: JsonObject) -> list[JsonObject]:
    """Return the training stages of a report."""
    return [as_object(stage, "stage") for stage in as_list(report["stages"], "stages")]
