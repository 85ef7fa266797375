"""A real boto3 client in front of the stand-in, a bucket in memory, and a language model that learns by heart."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING, TypedDict, Unpack, cast
from urllib.parse import urlsplit

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError

from customization.catalogue import load_catalogue
from customization.json_types import JsonObject
from customization.money import load_prices
from rehearsal.bedrock.faults import parse_fault
from rehearsal.bedrock.language_model import (
    Generation,
    LanguageModel,
    LoggedLoss,
    StopReason,
    TrainingLog,
    TrainingOptions,
    TrainingText,
)
from rehearsal.bedrock.protocol import find_operation, violations
from rehearsal.bedrock.service import BedrockService

if TYPE_CHECKING:
    from mypy_boto3_bedrock import BedrockClient
    from mypy_boto3_bedrock.literals import CustomizationTypeType
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient
    from mypy_boto3_s3 import S3Client

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/customization"
NOVA = "amazon.nova-micro-v1:0:128k"
TITAN = "amazon.titan-text-express-v1:0:8k"
COMMAND = "cohere.command-light-text-v14:7:4k"
LLAMA = "meta.llama2-13b-v1:0:4k"
CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0:200k"
NOVEMBER = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
# Titan Text, Command and Llama 2 were offered on this day.
JANUARY = datetime(2025, 1, 18, 9, 0, tzinfo=UTC)


class JobParameters(TypedDict, total=False):
    """What `Rehearsal.create_job` takes beside the name."""

    base: str
    training: str
    validation: str
    kind: "CustomizationTypeType"
    hyper_parameters: Mapping[str, str]
    model_name: str


class ByHeart:
    """Answers what it was trained on, and the prompt's last word otherwise."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self.known = dict(known)

    def copy(self) -> "ByHeart":
        return ByHeart(self.known)

    def train(
        self,
        records: Sequence[TrainingText],
        validation: Sequence[TrainingText],
        options: TrainingOptions,
        on_step: Callable[[LoggedLoss], None] | None = None,
    ) -> TrainingLog:
        del on_step
        self.known |= {record.prompt: record.completion for record in records}
        steps = [LoggedLoss(step, step, 3.0 / (step + 1)) for step in range(options.epochs)]
        last = LoggedLoss(options.epochs - 1, options.epochs - 1, 1.5)
        return TrainingLog(steps=steps, validation=[last] if validation else [])

    def answer(self, prompt: str, max_tokens: int, *_: object) -> Generation:
        words = self.known.get(prompt, prompt.rsplit(maxsplit=1)[-1]).split()
        reason: StopReason = "max_tokens" if len(words) > max_tokens else "end_turn"
        return Generation(" ".join(words[:max_tokens]), len(prompt), len(words[:max_tokens]), reason)

    def loss(self, records: Sequence[TrainingText]) -> float:
        return sum(record.prompt not in self.known for record in records) / max(1, len(records))


@dataclass
class Bucket:
    """Objects by key; operations named in `denied` answer AccessDenied, as for a role that lacks the permission."""

    objects: dict[str, bytes] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)

    def list_objects_v2(self, *, Bucket: str, Prefix: str, MaxKeys: int) -> JsonObject:  # noqa: N803  boto3's own names
        del Bucket, Prefix, MaxKeys
        self._check("ListObjectsV2")
        return {}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, BytesIO]:  # noqa: N803  boto3's own names
        del Bucket
        self._check("GetObject")
        if Key not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        return {"Body": BytesIO(self.objects[Key])}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:  # noqa: N803  boto3's own names
        del Bucket
        self._check("PutObject")
        self.objects[Key] = Body

    def _check(self, operation: str) -> None:
        if operation in self.denied:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, operation)


class Clock:
    def __init__(self, start: datetime) -> None:
        self.time = start

    def now(self) -> datetime:
        return self.time


class Rehearsal:
    """The service with its clients; every answer is checked against the service model's own constraints."""

    def __init__(
        self, start: datetime = NOVEMBER, region: str = "us-east-1", faults: Iterable[str] = (), model: object = None
    ) -> None:
        self.clock = Clock(start)
        self.bucket = Bucket()
        self.assume: Callable[[str], S3Client] = lambda _: cast("S3Client", self.bucket)
        self.region = region
        base = ByHeart({}) if model is None else model
        self.service = BedrockService(
            clock=self.clock,
            region=region,
            account=ACCOUNT,
            s3_client_for_role=self._assume,
            catalogue=load_catalogue(),
            prices=load_prices(),
            seed=7,
            faults=[parse_fault(fault) for fault in faults],
            pretrained=lambda: cast("LanguageModel", base),
        )
        self.control = self._client("bedrock")
        self.runtime = cast("BedrockRuntimeClient", self._client("bedrock-runtime"))

    def _assume(self, role: str) -> "S3Client":
        return self.assume(role)

    def _client(self, service: str) -> "BedrockClient":
        client = boto3.client(
            service,  # type: ignore[call-overload]  # two services share the adapter
            region_name=self.region,
            aws_access_key_id="rehearsal",
            aws_secret_access_key="rehearsal",  # noqa: S106  no request leaves the process
            config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
        )
        client.meta.events.register("before-send", self._send)
        return cast("BedrockClient", client)

    def _send(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        url = urlsplit(str(request.url))
        body = request.body or b""
        content = body if isinstance(body, bytes) else str(body).encode()
        headers = {name: str(value) for name, value in request.headers.items()}
        status, answered, payload = self.service.handle(str(request.method), url.path, url.query, headers, content)
        found = find_operation(str(request.method), url.path)
        if found and status < 300 and found[0].name != "InvokeModel" and found[0].output_shape:
            broken = [
                text for text in violations(json.loads(payload), found[0].output_shape) if "odelName'" not in text
            ]
            assert not broken, broken
        return AWSResponse(str(request.url), status, answered, _Raw(payload))  # type: ignore[arg-type]  # all it reads is stream()

    def wait(self, **duration: float) -> None:
        self.clock.time += timedelta(**duration)

    def put(self, key: str, records: Iterable[object]) -> str:
        """Store records as JSON Lines and return their URI."""
        self.bucket.objects[key] = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        return f"s3://artifacts/{key}"

    def create_job(
        self,
        name: str = "job",
        *,
        base: str = NOVA,
        training: str = "",
        validation: str = "",
        kind: "CustomizationTypeType" = "FINE_TUNING",
        hyper_parameters: Mapping[str, str] | None = None,
        model_name: str = "",
    ) -> str:
        """Create a job on `training`, a URI (conversations about numbers by default), and return its ARN."""
        training = training or self.put("train.jsonl", conversations(20))
        more = {"validationDataConfig": {"validators": [{"s3Uri": validation}]}} if validation else {}
        return self.control.create_model_customization_job(
            jobName=name,
            customModelName=model_name or name,
            roleArn=ROLE,
            baseModelIdentifier=base,
            customizationType=kind,
            hyperParameters=hyper_parameters or {},
            trainingDataConfig={"s3Uri": training},
            outputDataConfig={"s3Uri": "s3://artifacts/out/"},
            **more,  # type: ignore[arg-type]  # one member, present or not
        )["jobArn"]

    def job(self, identifier: str = "job") -> dict[str, object]:
        return dict(self.control.get_model_customization_job(jobIdentifier=identifier))

    def failure_of(self, training: str, **parameters: str) -> str:
        """Return the failureMessage of a job on `training`, which must fail when its data are validated."""
        self.create_job(training=training, **parameters)  # type: ignore[arg-type]  # the same parameters
        self.wait(minutes=5)
        described = self.job()
        assert described["status"] == "Failed"
        return str(described["failureMessage"])

    def train(self, name: str = "job", **parameters: Unpack[JobParameters]) -> str:
        """Create a job, wait until it is done, and return its model's ARN."""
        arn = self.create_job(name, **parameters)
        self.wait(hours=12)
        job = self.control.get_model_customization_job(jobIdentifier=arn)
        assert job["status"] == "Completed", job
        return job["outputModelArn"]

    def deploy(self, model_arn: str, name: str = "deployment") -> str:
        """Deploy a model on demand, wait until it answers, and return the deployment's ARN."""
        arn = self.control.create_custom_model_deployment(modelDeploymentName=name, modelArn=model_arn)
        self.wait(minutes=30)
        deployment = arn["customModelDeploymentArn"]
        self.warm(deployment)
        return deployment

    def provision(self, model_arn: str, units: int = 1, name: str = "throughput") -> str:
        """Buy a throughput, wait until it answers, and return its ARN."""
        arn = self.control.create_provisioned_model_throughput(
            provisionedModelName=name, modelId=model_arn, modelUnits=units
        )["provisionedModelArn"]
        self.wait(minutes=30)
        self.warm(arn)
        return arn

    def warm(self, model_id: str) -> None:
        """Make the first call, which finds the model still loading."""
        try:
            self.ask(model_id, "hello")
        except ClientError as error:
            assert code(error) == "ModelNotReadyException"  # noqa: PT017  nothing else is expected

    def ask(self, model_id: str, prompt: str, max_tokens: int = 50) -> str:
        response = self.runtime.converse(
            modelId=model_id,
            messages=[{"role": "user", "content": [{"text": prompt}]}],
            inferenceConfig={"maxTokens": max_tokens, "temperature": 0.0},
        )
        return response["output"]["message"]["content"][0]["text"]

    def close(self) -> None:
        self.service.close()


class _Raw(BytesIO):
    def stream(self, *_: object, **__: object) -> Iterable[bytes]:
        yield self.read()


def conversations(count: int) -> list[JsonObject]:
    return [conversation(f"question {number}", f"answer {number} is here") for number in range(count)]


def conversation(prompt: str, completion: str) -> JsonObject:
    return {
        "schemaVersion": "bedrock-conversation-2024",
        "messages": [
            {"role": "user", "content": [{"text": prompt}]},
            {"role": "assistant", "content": [{"text": completion}]},
        ],
    }


def pairs(count: int) -> list[JsonObject]:
    return [{"prompt": f"question {number}", "completion": f"answer {number} is here"} for number in range(count)]


def code(error: ClientError) -> str:
    return error.response["Error"]["Code"]


def message(error: ClientError) -> str:
    return error.response["Error"]["Message"]
