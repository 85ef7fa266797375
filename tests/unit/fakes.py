"""Bedrock and Step Functions in memory, as the domain sees them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from customization.errors import Conflict
from customization.gateway import ExecutionEnd, Gateway
from customization.gateway.bedrock import FoundationModel, Job, JobRequest, JobSummary, ServedModel
from customization.settings import Defaults, Settings

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
EXECUTION = "arn:aws:states:us-east-1:123456789012:execution:Customization:first"
SETTINGS = Settings(
    data_bucket="data",
    artifact_bucket="artifacts",
    runs_table="runs",
    leases_table="leases",
    topic_arn="arn:aws:sns:us-east-1:123456789012:topic",
    customization_role_arn="arn:aws:iam::123456789012:role/customization",
    key_arn="arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000",
    stage="dev",
    deployment_id="0a1b2c3d",
    region="us-east-1",
    defaults=Defaults(
        base_model_identifier="amazon.nova-micro-v1:0:128k",
        budget_usd=20,
        monthly_budget_usd=200,
        settle_seconds=60,
        job_start_hours=24,
        job_end_hours=96,
        language="en",
    ),
)


@dataclass
class BedrockInMemory:
    """The control plane as the domain sees it; `refusals` are raised by the next creating call."""

    jobs: dict[str, Job] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    serving: dict[str, ServedModel] = field(default_factory=dict)
    swaps: list[tuple[str, str]] = field(default_factory=list)
    tag_sets: dict[str, dict[str, str]] = field(default_factory=dict)
    refusals: list[Exception] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)

    def _refuse(self) -> None:
        if self.refusals:
            raise self.refusals.pop(0)

    def foundation_model(self, identifier: str) -> FoundationModel | None:
        return FoundationModel(identifier=identifier, lifecycle_status="ACTIVE")

    def create_job(self, request: JobRequest) -> str:
        self._refuse()
        arn = (
            f"arn:aws:bedrock:us-east-1:123456789012:model-customization-job/{request.base_model}/{len(self.jobs):012d}"
        )
        self.jobs[request.name] = job(request.name, arn=arn, output_uri=request.output_uri)
        self.tag_sets[arn] = dict(request.tags)
        self.created.append(request.name)
        return arn

    def job(self, identifier: str) -> Job | None:
        return next((job for job in self.jobs.values() if identifier in {job.name, job.arn}), None)

    def stop_job(self, identifier: str) -> None:
        found = self.job(identifier)
        assert found is not None
        self.jobs[found.name] = msgspec.structs.replace(found, status="Stopping")

    def jobs_in_progress(self) -> list[JobSummary]:
        return [
            JobSummary(arn=job.arn, name=job.name, created=job.created)
            for job in self.jobs.values()
            if job.status == "InProgress"
        ]

    def model_is_there(self, identifier: str) -> bool:
        return identifier in self.models

    def model_names(self) -> list[str]:
        return sorted(self.models)

    def model_arns(self) -> dict[str, str]:
        return {name: f"arn:model/{name}" for name in sorted(self.models)}

    def delete_model(self, identifier: str) -> None:
        name = identifier.removeprefix("arn:model/")
        if name in self.busy:
            raise Conflict(f"{name} is being served")
        self.models.discard(name)

    def serve(self, *, mode: str, name: str, model_arn: str, tags: dict[str, str], units: int, token: str) -> str:
        self._refuse()
        assert units >= 1
        kind = "custom-model-deployment" if mode == "on-demand" else "provisioned-model"
        arn = f"arn:aws:bedrock:us-east-1:123456789012:{kind}/{name}"
        self.tokens.append(token)
        if token in self.tokens[:-1]:  # answered with what it created before, be that gone or not
            return arn
        self.serving[name] = ServedModel(
            arn=arn, name=name, mode=mode, status="Creating", model_arn=model_arn, failure_message="", created=NOW
        )
        self.tag_sets[arn] = dict(tags)
        self.created.append(name)
        return arn

    def served(self, mode: str, identifier: str) -> ServedModel | None:
        return next(
            (item for item in self.serving.values() if item.mode == mode and identifier in {item.name, item.arn}), None
        )

    def all_served(self) -> list[ServedModel]:
        return list(self.serving.values())

    def swap_model(self, deployment_arn: str, model_arn: str) -> None:
        found = next(item for item in self.serving.values() if item.arn == deployment_arn)
        self.serving[found.name] = msgspec.structs.replace(found, update_status="Updating")
        self.swaps.append((deployment_arn, model_arn))

    def end_swap(self, status: str = "UpdateCompleted") -> None:
        """Let the last swap come to its end."""
        arn, model_arn = self.swaps[-1]
        found = next(item for item in self.serving.values() if item.arn == arn)
        served = model_arn if status == "UpdateCompleted" else found.model_arn
        self.serving[found.name] = msgspec.structs.replace(
            found, update_status=status, model_arn=served, status="Active"
        )

    def stop_serving(self, mode: str, identifier: str) -> None:
        found = self.served(mode, identifier)
        if found is None:
            return
        if found.status == "Creating" and found.name in self.busy:
            raise Conflict(f"{found.name} is being created")
        del self.serving[found.name]

    def tags(self, arn: str) -> dict[str, str]:
        return self.tag_sets.get(arn, {})


def job(
    name: str, *, arn: str = "arn:job", status: str = "InProgress", output_uri: str = "s3://artifacts/runs/x/bedrock/1/"
) -> Job:
    return Job(
        arn=arn,
        name=name,
        status=status,
        phases={},
        base_model="amazon.nova-micro-v1:0:128k",
        customization_type="FINE_TUNING",
        hyper_parameters={},
        created=NOW,
        ended=None,
        output_uri=output_uri,
        output_model_arn=f"arn:model/{name}" if status == "Completed" else "",
        failure_message="",
        training_loss=None,
        validation_losses=(),
    )


class GatewayInMemory(Gateway):
    """`executions` maps an execution's ARN to its status; what is not there is unknown to Step Functions.

    `execution_errors` maps it to the error that it ended with, `execution_causes` to the cause.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.executions: dict[str, str] = {EXECUTION: "RUNNING"}
        self.execution_errors: dict[str, str] = {}
        self.execution_causes: dict[str, str] = {}
        self.published: list[tuple[str, str]] = []

    def execution_status(self, arn: str) -> ExecutionEnd:
        error, cause = self.execution_errors.get(arn, ""), self.execution_causes.get(arn, "")
        return ExecutionEnd(self.executions.get(arn, "GONE"), error, cause)

    def publish(self, subject: str, message: str) -> None:
        self.published.append((subject, message))


def settled(gateway: Gateway, run_id: str, *, reserved_usd: float) -> str:
    """Let the reservation of a run's first attempt be given back, and return the key of its month."""
    month = "month#2026-11"
    gateway.runs.update(run_id, {"month": month, "reservedUsd": reserved_usd})
    gateway.runs.put({"runId": month, "committedUsd": 1, f"reserved#{run_id}#1": "settled", f"spent#{run_id}#1": 1})
    return month
