"""What people do with a deployment, each with the one managed policy that is meant for it."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import boto3
from botocore.exceptions import ClientError

from tests.workflow.pipeline import Pipeline


@dataclass(frozen=True)
class Place:
    """Where people look: a run that has ended and whose model is in use and served."""

    outputs: Mapping[str, str]
    dataset: str
    run_id: str
    execution: str
    parameter: str

    @classmethod
    def of(cls, pipeline: Pipeline) -> "Place":
        """Return the place of the last run of `pipeline`."""
        row = pipeline.runs()[-1]
        ssm = pipeline.aws.session().client("ssm")
        pages = ssm.get_paginator("get_parameters_by_path").paginate(Path="/dev", Recursive=True)
        names = [item["Name"] for page in pages for item in page["Parameters"]]
        [parameter] = [name for name in names if name.endswith(f"/datasets/{row['dataset']}/model")]
        return cls(pipeline.outputs, str(row["dataset"]), str(row["runId"]), str(row["executionArn"]), parameter)

    def data(self, name: str) -> dict[str, str]:
        return {"Bucket": self.outputs["DataBucketName"], "Key": f"incoming/{self.dataset}/{name}"}

    def artifact(self, key: str) -> dict[str, str]:
        return {"Bucket": self.outputs["ArtifactBucketName"], "Key": key}


Act = Callable[[boto3.Session, Place], object]


def _give_up_an_upload(person: boto3.Session, place: Place) -> None:
    s3, there = person.client("s3"), place.data("large.csv")
    upload = s3.create_multipart_upload(Bucket=there["Bucket"], Key=there["Key"])["UploadId"]
    s3.abort_multipart_upload(Bucket=there["Bucket"], Key=there["Key"], UploadId=upload)


def _redrive(person: boto3.Session, place: Place) -> None:
    states = person.client("stepfunctions")
    with suppress(states.exceptions.ExecutionNotRedrivable):
        states.redrive_execution(executionArn=place.execution)


def _ask_the_model_in_use(person: boto3.Session, place: Place) -> str:
    found = person.client("ssm").get_parameter(Name=place.parameter)["Parameter"]["Value"]
    answer = person.client("bedrock-runtime").converse(
        modelId=json.loads(found)["arn"], messages=[{"role": "user", "content": [{"text": "How do I pay?"}]}]
    )
    return answer["output"]["message"]["content"][0]["text"]


def _get(key: str) -> Act:
    def get(person: boto3.Session, place: Place) -> bytes:
        there = place.artifact(key.format(run=place.run_id, dataset=place.dataset))
        return person.client("s3").get_object(Bucket=there["Bucket"], Key=there["Key"])["Body"].read()

    return get


def _list(bucket: str, prefix: str) -> Act:
    def keys(person: boto3.Session, place: Place) -> int:
        return person.client("s3").list_objects_v2(Bucket=place.outputs[bucket], Prefix=prefix)["KeyCount"]

    return keys


ACTS: dict[str, dict[str, Act]] = {
    "DataContributor": {
        "drops a file": lambda person, place: person.client("s3").put_object(
            Bucket=place.data("")["Bucket"], Key=place.data("notes.txt")["Key"], Body=b"none"
        ),
        "gives up a large upload": _give_up_an_upload,
        "looks what lies there": _list("DataBucketName", "incoming/"),
    },
    "ReportReader": {
        "reads the page": _get("runs/{run}/report.html"),
        "reads the report as data": _get("runs/{run}/report.json"),
        "compares the runs": _get("datasets/{dataset}/index.html"),
        "reads the table of runs": _get("datasets/{dataset}/runs.csv"),
        "looks for reports": _list("ArtifactBucketName", "runs/"),
    },
    "RunOperator": {
        "starts a run": lambda person, place: person.client("stepfunctions").start_execution(
            stateMachineArn=place.outputs["StateMachineArn"], input="{}"
        ),
        "lists executions": lambda person, place: person.client("stepfunctions").list_executions(
            stateMachineArn=place.outputs["StateMachineArn"]
        ),
        "sees the graph": lambda person, place: person.client("stepfunctions").describe_state_machine(
            stateMachineArn=place.outputs["StateMachineArn"]
        ),
        "sees an execution": lambda person, place: person.client("stepfunctions").describe_execution(
            executionArn=place.execution
        ),
        "sees its steps": lambda person, place: person.client("stepfunctions").get_execution_history(
            executionArn=place.execution
        ),
        "stops it": lambda person, place: person.client("stepfunctions").stop_execution(executionArn=place.execution),
        "redrives it": _redrive,
        "sees a run": lambda person, place: person.client("dynamodb").get_item(
            TableName=place.outputs["RunsTableName"], Key={"runId": {"S": place.run_id}}
        ),
        "sees all runs": lambda person, place: person.client("dynamodb").scan(TableName=place.outputs["RunsTableName"]),
        "sees the runs of a data set": lambda person, place: person.client("dynamodb").query(
            TableName=place.outputs["RunsTableName"],
            IndexName="byDataset",
            KeyConditionExpression="dataset = :dataset",
            ExpressionAttributeValues={":dataset": {"S": place.dataset}},
        ),
        "sees which model is in use": lambda person, place: person.client("ssm").get_parameter(Name=place.parameter),
        "reads the outputs": lambda person, _: [
            person.client("cloudformation").describe_stacks(StackName=f"Customization-dev-{name}")
            for name in ("Storage", "Pipeline")
        ],
    },
    "InvokeServedModel": {"asks the model in use": _ask_the_model_in_use},
}

# What a policy is not for
REFUSED: dict[str, dict[str, Act]] = {
    "DataContributor": {
        "reads data": lambda person, place: person.client("s3").get_object(
            Bucket=place.data("")["Bucket"], Key=place.data("train.jsonl")["Key"]
        ),
        "deletes data": lambda person, place: person.client("s3").delete_object(
            Bucket=place.data("")["Bucket"], Key=place.data("train.jsonl")["Key"]
        ),
        "writes elsewhere": lambda person, place: person.client("s3").put_object(
            Bucket=place.data("")["Bucket"], Key="elsewhere/train.jsonl", Body=b""
        ),
        "lists everything": lambda person, place: person.client("s3").list_objects_v2(Bucket=place.data("")["Bucket"]),
        "reads a report": _get("runs/{run}/report.html"),
    },
    "ReportReader": {
        "reads training data": _get("runs/{run}/data/train-0.jsonl"),
        "reads predictions": _get("runs/{run}/evaluation/predictions.jsonl"),
        "lists answers": _list("ArtifactBucketName", "answers/"),
        "changes a report": lambda person, place: person.client("s3").put_object(
            Bucket=place.artifact("")["Bucket"], Key=f"runs/{place.run_id}/report.html", Body=b""
        ),
    },
    "RunOperator": {
        "drops a file": ACTS["DataContributor"]["drops a file"],
        "asks the model in use": _ask_the_model_in_use,
        "forges a run": lambda person, place: person.client("dynamodb").put_item(
            TableName=place.outputs["RunsTableName"], Item={"runId": {"S": "forged"}}
        ),
        "reads the leases": lambda person, place: person.client("dynamodb").scan(
            TableName=place.outputs["LeasesTableName"]
        ),
        "promotes behind the back": lambda person, place: person.client("ssm").put_parameter(
            Name=place.parameter, Value="{}", Overwrite=True
        ),
    },
    "InvokeServedModel": {
        "asks a base model": lambda person, _: person.client("bedrock-runtime").converse(
            modelId="amazon.nova-micro-v1:0", messages=[{"role": "user", "content": [{"text": "How do I pay?"}]}]
        ),
        "starts a run": ACTS["RunOperator"]["starts a run"],
    },
}


def is_refused(act: Act, person: boto3.Session, place: Place) -> bool:
    """Return whether IAM refuses what somebody does; any other refusal is raised."""
    try:
        act(person, place)
    except ClientError as error:
        if error.response["Error"]["Code"] in {"AccessDenied", "AccessDeniedException"}:
            return True
        raise
    return False


def serve_a_model(pipeline: Pipeline) -> Place:
    """Run this test's data into a model that is in use and served, and return where people look for it."""
    execution = pipeline.run(pipeline.folder(test=32, promote="if-better", serving={"keep": 100}, budgetUsd=200))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    return Place.of(pipeline)


def people_at_work(pipeline: Pipeline) -> None:
    """Walk what people do with a deployment beside dropping and reading."""
    place = serve_a_model(pipeline)
    refused = [
        f"{kind} {name}"
        for kind, acts in ACTS.items()
        for name, act in acts.items()
        if is_refused(act, pipeline.person(kind), place)
    ]
    pipeline.finish()
    assert refused == []
