"""A deployed pipeline in an embedded AWS with a stand-in of Bedrock: what the command line and the tests drive."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import boto3
from boto3.dynamodb.types import TypeDeserializer

from customization.catalogue import load_catalogue
from customization.json_types import Json, JsonObject
from customization.money import load_prices
from rehearsal.bedrock.faults import Fault
from rehearsal.bedrock.quotas import ServiceQuotas
from rehearsal.bedrock.service import BedrockService
from rehearsal.clock import VirtualClock
from rehearsal.embedded.aws import EmbeddedAws
from rehearsal.embedded.faults import Faults

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_stepfunctions.type_defs import DescribeExecutionOutputTypeDef

    from rehearsal.embedded.states.machines import Execution

ACCOUNT = "123456789012"
# What a run leaves for people to read
_REPORTS = ("report.html", "report.json", "index.html", "runs.csv")
# What an account has whose request for model units was granted.
MODEL_UNITS = 10


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and when to rehearse: `log_dir` gets a file for each function.

    `assembly` is a synthesized app; without one nothing is deployed until somebody does, such as the CDK CLI.
    """

    assembly: Path | None
    region: str
    date: datetime
    log_dir: Path
    seed: int = 0
    bedrock_faults: Sequence[Fault] = ()
    function_faults: Faults | None = None
    port: int = 0


class Rehearsal:
    """A context manager: inside, the pipeline is deployed and waits for data."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self.clock = VirtualClock(setting.date)
        self.bedrock = BedrockService(
            clock=self.clock,
            region=setting.region,
            account=ACCOUNT,
            s3_client_for_role=self._s3_of_role,
            catalogue=load_catalogue(),
            prices=load_prices(),
            seed=setting.seed,
            model_units=MODEL_UNITS,
            faults=setting.bedrock_faults,
        )
        self.aws = EmbeddedAws(
            self.clock,
            region=setting.region,
            applications={"bedrock": self.bedrock, "servicequotas": self._quotas()},
            log_dir=setting.log_dir,
            faults=setting.function_faults,
            port=setting.port,
        )
        self.outputs: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.aws.start()
        if self._setting.assembly is not None:
            deployed = self.aws.deploy(self._setting.assembly)
            self.outputs = {name: value for outputs in deployed.values() for name, value in outputs.items()}
        return self

    def find_outputs(self) -> None:
        """Learn what the stacks are called inside, after somebody else has deployed them."""
        stacks = self.aws.session().client("cloudformation").describe_stacks()["Stacks"]
        self.outputs = {
            output["OutputKey"]: output["OutputValue"] for stack in stacks for output in stack.get("Outputs", [])
        }

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bedrock.close()
        self.aws.stop()

    def _quotas(self) -> ServiceQuotas:
        has_none = any(fault.name == "no-model-units" for fault in self._setting.bedrock_faults)
        return ServiceQuotas(self._setting.region, ACCOUNT, 0 if has_none else MODEL_UNITS)

    def _s3_of_role(self, role_arn: str) -> "S3Client":
        return self.aws.session_of_role(role_arn, "bedrock").client("s3")

    def person(self, kind: str) -> boto3.Session:
        """Return a session of somebody with one managed policy of the outputs alone, such as DataContributor."""
        return self.aws.session_of_person(self.outputs[f"{kind}PolicyArn"])

    def drop(self, dataset: str, files: Mapping[str, bytes]) -> None:
        """Put files under incoming/<dataset>/ at one moment, run.json last, as a DataContributor does."""
        s3 = self.person("DataContributor").client("s3")
        with self.clock.hold():
            for name in sorted(files, key=lambda name: name == "run.json"):
                s3.put_object(Bucket=self.outputs["DataBucketName"], Key=f"incoming/{dataset}/{name}", Body=files[name])

    def start(self, request: Json) -> str:
        """Start an execution with an input of the console, as a RunOperator does, and return its ARN."""
        states = self.person("RunOperator").client("stepfunctions")
        return states.start_execution(stateMachineArn=self.outputs["StateMachineArn"], input=json.dumps(request))[
            "executionArn"
        ]

    def finish(self) -> "list[Execution]":
        """Let time run until nothing is under way, and return the executions in the order of their start."""
        self.aws.wait_until_idle()
        return self.aws.executions()

    def described_executions(self) -> "list[DescribeExecutionOutputTypeDef]":
        """Return what a RunOperator sees of every execution, in the order of their start."""
        states = self.person("RunOperator").client("stepfunctions")
        pages = states.get_paginator("list_executions").paginate(stateMachineArn=self.outputs["StateMachineArn"])
        found = [execution["executionArn"] for page in pages for execution in page["executions"]]
        return [states.describe_execution(executionArn=arn) for arn in reversed(found)]

    def rows(self) -> list[JsonObject]:
        """Return the table of runs, as a RunOperator sees it."""
        client = self.person("RunOperator").client("dynamodb")
        read = TypeDeserializer()
        items = client.scan(TableName=self.outputs["RunsTableName"])["Items"]
        return [
            {name: json.loads(json.dumps(read.deserialize(value), default=float)) for name, value in item.items()}
            for item in items
        ]

    def runs(self) -> list[JsonObject]:
        """Return the rows of runs that were planned, oldest first."""
        return sorted((row for row in self.rows() if "dataset" in row), key=lambda row: str(row["startedAt"]))

    def artifact(self, key: str) -> bytes:
        """Return an object of the artifact bucket; what is for people is read as a ReportReader does."""
        is_report = key.rpartition("/")[2] in _REPORTS
        s3 = (self.person("ReportReader") if is_report else self.aws.session()).client("s3")
        return s3.get_object(Bucket=self.outputs["ArtifactBucketName"], Key=key)["Body"].read()

    def artifact_keys(self, prefix: str = "") -> list[str]:
        """Return the keys of the artifact bucket under `prefix`, as a ReportReader lists the folders of reports."""
        has_reports = prefix.startswith(("runs/", "datasets/"))
        s3 = (self.person("ReportReader") if has_reports else self.aws.session()).client("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.outputs["ArtifactBucketName"], Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]
