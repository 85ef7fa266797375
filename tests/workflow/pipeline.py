"""A rehearsed pipeline with the questions that tests ask of it."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from boto3.dynamodb.types import TypeDeserializer

from customization.json_types import Json, JsonObject, as_list, as_object
from customization.runs import UPLOADS
from rehearsal.bedrock.faults import parse_fault
from rehearsal.embedded.faults import FunctionFault, TaskCall
from rehearsal.embedded.states.history import Happening
from rehearsal.run import Rehearsal, Setting
from tests.workflow import data

if TYPE_CHECKING:
    from mypy_boto3_bedrock.type_defs import GetModelCustomizationJobResponseTypeDef

    from rehearsal.embedded.front import Notification
    from rehearsal.embedded.states.machines import Execution

_LONGEST_WAIT = timedelta(days=3).total_seconds()
# Statuses in which AWS deletes neither throughput nor deployment
_REFUSES = {"Creating", "Updating"}


class FunctionFaults:
    """Breaks calls of functions and states, once a test says which."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._before: FunctionFault | None = None
        self._after: FunctionFault | None = None
        self._do: Callable[[TaskCall], None] | None = None
        self.broken: list[str] = []

    def strike(
        self,
        *places: str,
        before: FunctionFault | None = None,
        after: FunctionFault | None = None,
        do: Callable[[TaskCall], None] | None = None,
        times: int = 1,
        only: Callable[[JsonObject], bool] = lambda _: True,
    ) -> None:
        """Break so many calls of each of `places`, functions or states, whose payload `only` takes; all when none.

        `do` is done after the work of such a call, before its answer is known.
        """
        self._before, self._after, self._do, self._times = before, after, do, times
        self._places, self._only = places, only

    def before_call(self, call: TaskCall, /) -> None:
        if self._before and self._strikes(call):
            raise self._before

    def after_call(self, call: TaskCall, /) -> None:
        if (self._after or self._do) and self._strikes(call):
            if self._do:
                self._do(call)
            if self._after:
                raise self._after

    def _strikes(self, call: TaskCall) -> bool:
        place = next((place for place in self._places if place in {call.function, call.state}), None)
        if self._places and place is None:
            return False
        place = place or call.function
        if self.broken.count(place) >= self._times or not self._only(as_object(call.payload, call.function)):
            return False
        self.broken.append(place)
        return True


class Entering:
    """Whether a state is entered by an execution of this test."""

    def __init__(self, pipeline: "Pipeline", state: str) -> None:
        self._pipeline, self._state, self._is_entered = pipeline, state, False
        self._told = pipeline.clock.signal(f"{state} is entered, or no execution runs any more")
        pipeline.aws.watch(self._notice)

    def _notice(self, happening: Happening) -> None:
        if happening.kind == "state-entered" and happening.name == self._state:
            self._is_entered = True
            self._told.set()
        elif happening.kind == "execution-ended" and not self._pipeline.running():
            self._told.set()

    def wait(self, seconds: float) -> bool:
        """Return whether the state was entered within `seconds` of virtual time, and before the last execution ended.

        The calling thread must hold the clock.
        """
        self._told.wait(seconds)
        return self._is_entered


class Pipeline(Rehearsal):
    """A rehearsal that the tests of a module share: each begins with `forget` and then sees its own doings only.

    Starting a pipeline takes longer than a run in one whose functions are warm.
    """

    def __init__(self, setting: Setting, function_faults: FunctionFaults) -> None:
        super().__init__(setting)
        self.function_faults = function_faults
        self._test = 0

    def forget(self) -> None:
        """Remove what earlier tests have left, and make of the rest the state from which this test counts."""
        self._test += 1
        self.bedrock.inject([])
        self.function_faults.clear()
        self.aws.problems.clear()
        session = self.aws.session()
        bedrock = session.client("bedrock")
        for model in self.models():
            bedrock.delete_custom_model(modelIdentifier=model)
        database = session.client("dynamodb")
        for table, key in (("RUNS_TABLE", "runId"), ("LEASES_TABLE", "resourceName")):
            for item in database.scan(TableName=self._variable(table))["Items"]:
                database.delete_item(TableName=self._variable(table), Key={key: item[key]})
        self._created_before = set(self.bedrock.created)
        self._jobs_before = len(self._all_jobs())
        self._executions_before = len(self.aws.executions())
        self._notifications_before = len(self.aws.notifications)
        self._charges_before = self._charges()

    @property
    def dataset(self) -> str:
        """Return the name of this test's data set."""
        return f"shop-{self._test}"

    def folder(self, train: int = 100, test: int = 6, **fields: Json) -> dict[str, bytes]:
        """Return a folder with records of this test's own."""
        return data.labelled(train, test, self._test * 1_000, **fields)

    def request(self, **fields: Json) -> JsonObject:
        """Return an input for the console on this test's data set."""
        return {"dataset": self.dataset, "acceptUnknownPrices": data.ACCEPTED, **fields}

    def inject(self, *faults: str) -> None:
        """Let Bedrock break in the ways named."""
        self.bedrock.inject([parse_fault(fault) for fault in faults])

    def put(self, key: str, content: bytes) -> None:
        """Put one object into the data bucket."""
        s3 = self.person("DataContributor").client("s3")
        s3.put_object(Bucket=self.outputs["DataBucketName"], Key=key, Body=content)

    def run(self, files: Mapping[str, bytes], dataset: str = "") -> "Execution":
        """Drop files, let the run end and return the execution that did it."""
        before = len(self.aws.executions())
        self.drop(dataset or self.dataset, files)
        return next(execution for execution in self.finish()[before:] if not self.has_joined(execution))

    def ask(self, request: Json) -> "Execution":
        """Start from the console, let the run end and return its execution."""
        arn = self.start(request)
        self.finish()
        return self.aws.wait_for_execution(arn)

    def executions(self) -> "list[Execution]":
        """Return the executions of this test in the order of their start."""
        return self.aws.executions()[self._executions_before :]

    def running(self) -> "list[Execution]":
        """Return the executions of this test that have not ended."""
        return [execution for execution in self.executions() if execution.outcome.status == "RUNNING"]

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

    def entering(self, state: str) -> "Entering":
        """Return what can be waited for until an execution enters the state."""
        return Entering(self, state)

    def interrupt(
        self,
        state: str,
        files: Mapping[str, bytes],
        action: "Callable[[Execution], None]",
        after: timedelta = timedelta(),
    ) -> "Execution":
        """Drop files, do something to their execution so long after it came to a state, and let the run end."""
        entered = self.entering(state)
        with self.clock.hold():
            self.drop(self.dataset, files)
            assert entered.wait(_LONGEST_WAIT), f"no execution came to {state}"
            if after:  # a sleep of no time lets everybody else go on until they wait
                self.clock.sleep(after.total_seconds())
            [running] = self.running()
            action(running)
        self.finish()
        return running

    def stop(self, execution: "Execution") -> None:
        """Stop an execution as a person does in the console."""
        self.person("RunOperator").client("stepfunctions").stop_execution(executionArn=execution.arn)

    def role_of(self, kind: str) -> str:
        """Return the ARN of the role that stands for people of a kind, such as DataContributor."""
        return self.aws._moto.role_of_people(self.outputs[f"{kind}PolicyArn"])

    def pass_time(self, **amount: float) -> None:
        """Let so much time pass, with every sweep that falls into it."""
        self.clock.advance(timedelta(**amount).total_seconds())
        self.finish()

    def skip_time(self, **amount: float) -> None:
        """Let so much time pass without the scheduled sweeps."""
        with self.without_sweeps():
            self.clock.advance(timedelta(**amount).total_seconds())

    @contextmanager
    def without_sweeps(self) -> Iterator[None]:
        """Leave the scheduled sweeps out: of days there are more than a test can wait for."""
        self.aws._events._fire = lambda _: None  # type: ignore[method-assign, assignment]  # events are lost on purpose
        try:
            yield
        finally:
            del self.aws._events._fire

    @contextmanager
    def without_status_events(self) -> Iterator[None]:
        """Lose the events about executions: EventBridge delivers them with best effort only."""
        publish = self.aws._events.publish
        self.aws._events.publish = (  # type: ignore[method-assign]  # until deleted below
            lambda event: None if event["source"] == "aws.states" else publish(event)
        )
        try:
            yield
        finally:
            del self.aws._events.publish

    def created(self, kind: str) -> int:
        """Return how many resources of a kind, as ARNs name it, this test has created."""
        return sum(f":{kind}/" in arn for arn in self.bedrock.created - self._created_before)

    def jobs(self) -> "list[GetModelCustomizationJobResponseTypeDef]":
        """Return every customization job that this test has created, oldest first."""
        bedrock = self.aws.session().client("bedrock")
        return [bedrock.get_model_customization_job(jobIdentifier=arn) for arn in self._all_jobs()[self._jobs_before :]]

    def models(self) -> list[str]:
        """Return the names of the custom models that are there."""
        bedrock = self.aws.session().client("bedrock")
        return [model["modelName"] for model in bedrock.list_custom_models()["modelSummaries"]]

    def open_leases(self) -> list[JsonObject]:
        """Return the leases that are not closed."""
        return [row for row in self.leases() if row["state"] == "OPEN"]

    def leases(self) -> list[JsonObject]:
        """Return every lease of this test, closed ones too."""
        read = TypeDeserializer()
        items = self.aws.session().client("dynamodb").scan(TableName=self._variable("LEASES_TABLE"))["Items"]
        rows: list[JsonObject] = [
            {name: json.loads(json.dumps(read.deserialize(value), default=float)) for name, value in item.items()}
            for item in items
        ]
        return rows

    def notifications(self) -> "list[Notification]":
        """Return every message that was published in this test, in order."""
        return self.aws.notifications[self._notifications_before :]

    def subjects(self) -> list[str]:
        """Return the subjects of this test's messages, in order."""
        return [told.subject for told in self.notifications()]

    def told_of(self, execution: "Execution") -> "list[Notification]":
        """Return the messages that point to an execution."""
        return [told for told in self.notifications() if execution.arn in told.message]

    def row_of(self, execution: "Execution") -> JsonObject:
        """Return the row that an execution owns in the table of runs."""
        return self.rows_of(execution)[0]

    def rows_of(self, execution: "Execution") -> list[JsonObject]:
        """Return the rows that tell of an execution: that of its run, and that of an end that no run stands for."""
        owned = [row for row in self.rows() if row.get("executionArn") == execution.arn]
        return [row for row in owned if not str(row["runId"]).startswith(UPLOADS)]

    def parameter(self) -> JsonObject | None:
        """Return the parameter that names the model in use of this test's data set, or None."""
        ssm = self.aws.session().client("ssm")
        place = f"/{self._variable('STAGE')}/{self._variable('DEPLOYMENT_ID')}/datasets/{self.dataset}/model"
        found = ssm.get_parameters(Names=[place])["Parameters"]
        return as_object(json.loads(found[0]["Value"]), "parameter") if found else None

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

    def deletable_since(self) -> dict[str, datetime | None]:
        """Return since when AWS lets go of what runs or bills, by ARN; None while it refuses that."""
        bedrock, since = self.aws.session().client("bedrock"), dict[str, datetime | None]()
        for arn in self.bedrock.live_resources():
            if ":model-customization-job/" in arn:
                job = bedrock.get_model_customization_job(jobIdentifier=arn)
                since[arn] = None if job["status"] == "Stopping" else job["creationTime"]
            elif ":provisioned-model/" in arn:
                units = bedrock.get_provisioned_model_throughput(provisionedModelId=arn)
                since[arn] = None if units["status"] in _REFUSES else units["lastModifiedTime"]
            elif ":custom-model-deployment/" in arn:
                served = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=arn)
                statuses = {served["status"], served.get("updateDetails", {}).get("updateStatus")}
                since[arn] = None if statuses & _REFUSES else served["lastUpdatedAt"]
        return since

    def what_serves(self) -> dict[str, str]:
        """Return the ARNs of the models that are served, by the ARN of what serves them."""
        bedrock = self.aws.session().client("bedrock")
        deployments = bedrock.list_custom_model_deployments()["modelDeploymentSummaries"]
        throughputs = bedrock.list_provisioned_model_throughputs()["provisionedModelSummaries"]
        served = {item["customModelDeploymentArn"]: item["modelArn"] for item in deployments}
        return served | {item["provisionedModelArn"]: item["modelArn"] for item in throughputs}

    def billed(self) -> dict[str, tuple[float, float]]:
        """Return what Bedrock has billed in this test: quantity and, as far as its price is known, USD of each item."""
        sums: dict[str, tuple[float, float]] = {}
        for key, (quantity, usd) in self._charges().items():
            quantity_before, usd_before = self._charges_before.get(key, (0.0, 0.0))
            if quantity > quantity_before:
                so_far = sums.get(key[1], (0.0, 0.0))
                sums[key[1]] = (so_far[0] + quantity - quantity_before, so_far[1] + usd - usd_before)
        return sums

    def _charges(self) -> dict[tuple[str, str], tuple[float, float]]:
        return {(entry.resource, entry.item): (entry.quantity, entry.usd or 0.0) for entry in self.bedrock.ledger()}

    def _all_jobs(self) -> list[str]:
        pages = self.aws.session().client("bedrock").get_paginator("list_model_customization_jobs")
        return [
            summary["jobArn"]
            for page in pages.paginate(sortOrder="Ascending")
            for summary in page["modelCustomizationJobSummaries"]
        ]

    def _variable(self, name: str) -> str:
        """Return an environment variable that all functions share."""
        return dict(next(iter(self.aws.deployed.functions.values())).environment)[name]


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
