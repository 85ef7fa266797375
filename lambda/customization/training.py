"""Model customization jobs: created once for each trainingId, watched, and read."""

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from customization import budget, leases, quota_queue
from customization.catalogue import load_catalogue
from customization.errors import (
    Conflict,
    CustomizationJobFailed,
    CustomizationJobStalled,
    CustomizationJobStopped,
    QuotaUnavailable,
    RequestRejected,
)
from customization.gateway.bedrock import Job, JobRequest
from customization.identity import job_name, resource_tags
from customization.json_types import JsonObject
from customization.leases import Lease
from customization.runs import Call, Plan, note
from customization.training_metrics import TrainingMetrics, find_metrics_files, read_training_metrics

if TYPE_CHECKING:
    from customization.gateway import Gateway

FIRST_POLL_SECONDS = 60
# 15 minutes would make a job of 24 hours more than 1,000 history events, at 9 a poll.
LAST_POLL_SECONDS = 1200
# The poll knows why it stops a job, and may come 20 minutes after the job's time: the sweeper comes after it.
_LAST_LOOK = timedelta(seconds=2 * LAST_POLL_SECONDS)
# What stands before the text of a record in Bedrock's messages (Bedrock guide, "Troubleshooting" of custom models)
_QUOTING = "record starting with"


def create_job(gateway: "Gateway", plan: Plan, call: Call, stage: int) -> JsonObject:
    """Start the job of a stage and return {jobArn, status, waitSeconds}.

    A job of the same trainingId that is under way, or that has completed and whose model lives, is adopted; only
    `force` trains again, and only a job that failed or was stopped makes the next number.

    Raises:
        QuotaUnavailable: the account runs as many jobs as it may, or other runs wait longer for the next.
        CustomizationJobFailed: Bedrock refused the job.
    """
    name, job = _choose(gateway, plan, call, stage)
    with quota_queue.turn(gateway, call, quota_queue.JOB, is_there=job is not None):
        budget.renew(gateway, plan, call)
        leases.open_lease(gateway, _lease(gateway, plan, call, name, leases.JOB))
        leases.open_lease(gateway, _lease(gateway, plan, call, name, leases.MODEL))
        if job is None:
            job = _create(gateway, plan, name, stage)
        # Another run may have created it after this one had looked
        if f"/{plan.prefix}" not in job.output_uri:
            note(gateway, call, {f"jobAdopted{stage}": True})
    return {"jobArn": job.arn, "status": job.status, "waitSeconds": FIRST_POLL_SECONDS}


def _choose(gateway: "Gateway", plan: Plan, call: Call, stage: int) -> tuple[str, Job | None]:
    """Return the name for the stage's job and the job itself where one is adopted."""
    recorded_under = f"jobName{stage}"
    row = gateway.runs.get(plan.run_id) or {}
    if row.get(recorded_under) and row.get("jobAttempt") == plan.attempt:
        name = str(row[recorded_under])
        return name, gateway.bedrock.job(name)
    name, job = _next(gateway, plan, stage)
    adopted: JsonObject = {f"jobAdopted{stage}": True} if job else {}
    note(gateway, call, {recorded_under: name, "jobAttempt": plan.attempt, **adopted})
    return name, job


def _next(gateway: "Gateway", plan: Plan, stage: int) -> tuple[str, Job | None]:
    """Return the first name of the training that is free, or that of the job that can be adopted, with the job."""
    number = 1
    while True:
        name = job_name(gateway.settings.name_prefix, plan.stages[stage].training_id, number)
        job = gateway.bedrock.job(name)
        if job is None or (not plan.force and _can_be_adopted(gateway, job)):
            return name, job
        number += 1


def adoptable_job(gateway: "Gateway", plan: Plan, stage: int) -> Job | None:
    """Return the job of an earlier run that CreateCustomizationJob would adopt, or None when it would start one."""
    return _next(gateway, plan, stage)[1]


def _can_be_adopted(gateway: "Gateway", job: Job) -> bool:
    if not gateway.settings.owns(gateway.bedrock.tags(job.arn)):
        return False
    if job.status == "Completed":
        return gateway.bedrock.model_is_there(job.output_model_arn)
    return job.status == "InProgress"


def _lease(gateway: "Gateway", plan: Plan, call: Call, name: str, kind: str) -> Lease:
    longest = timedelta(hours=gateway.settings.defaults.job_end_hours)
    return Lease(
        resource_name=name if kind == leases.JOB else f"{name}{leases.MODEL_SUFFIX}",
        kind=kind,
        run_id=plan.run_id,
        dataset=plan.dataset,
        execution_arn=call.execution_arn,
        opened_at=call.now,
        hard_end=call.now + longest + (_LAST_LOOK if kind == leases.JOB else leases.MODEL_RETENTION),
        keep_until=None if kind == leases.JOB else call.now + leases.MODEL_RETENTION,
    )


def _create(gateway: "Gateway", plan: Plan, name: str, stage: int) -> Job:
    try:
        gateway.bedrock.create_job(_request(gateway, plan, name, stage))
    except QuotaUnavailable as error:
        raise QuotaUnavailable.of("error.jobQuota", model=plan.base_model_identifier, reason=str(error)) from error
    except (Conflict, RequestRejected) as error:
        job = gateway.bedrock.job(name)
        if job is None:
            raise CustomizationJobFailed.of("error.jobRefused", job=name, reason=str(error)) from error
        return job
    job = gateway.bedrock.job(name)
    if job is None:
        raise CustomizationJobFailed.of("error.jobVanished", job=name)
    return job


def _request(gateway: "Gateway", plan: Plan, name: str, stage: int) -> JobRequest:
    planned = plan.stages[stage]
    files = gateway.artifacts.decoded(f"{plan.prefix}data/files.json", list[dict[str, str]])[stage]
    return JobRequest(
        name=name,
        base_model=plan.base_model_identifier if stage == 0 else _model_of_stage(gateway, plan, stage - 1),
        customization_type=planned.customization_type,
        hyper_parameters=planned.hyper_parameters,
        training_uri=files["training"],
        validation_uri=files.get("validation", ""),
        output_uri=gateway.artifacts.uri(f"{plan.prefix}bedrock/{stage + 1}/"),
        role_arn=gateway.settings.customization_role_arn,
        key_arn=gateway.settings.key_arn,
        tags=resource_tags(
            gateway.settings.stage, gateway.settings.deployment_id, plan.run_id, plan.dataset, plan.tags
        ),
        token=name,
        vpc_config=gateway.settings.vpc_config,
    )


def _model_of_stage(gateway: "Gateway", plan: Plan, stage: int) -> str:
    name = str((gateway.runs.get(plan.run_id) or {}).get(f"jobName{stage}"))
    job = gateway.bedrock.job(name)
    if job is None or not job.output_model_arn:
        raise CustomizationJobFailed.of("error.stageModelGone", stage=str(stage + 1), job=name)
    return job.output_model_arn


def poll_job(gateway: "Gateway", call: Call, job_arn: str) -> JsonObject:
    """Return {status, waitSeconds, phase, phases, trainingLoss, validationLosses} of a job for whoever watches it.

    The wait grows with the job's age from 1 to 20 minutes. Losses are there as soon as Bedrock tells them.

    Raises:
        CustomizationJobFailed: with Bedrock's failure message.
        CustomizationJobStopped: somebody stopped it.
        CustomizationJobStalled: it did not start or end in time; it has been stopped.
    """
    job = gateway.bedrock.job(job_arn)
    if job is None:
        raise CustomizationJobFailed.of("error.jobGone", job=job_arn)
    note(gateway, call, {"phase": job.phase})
    if job.status == "Failed":
        if job.failure_message:
            raise _failed(gateway, call, job)
        raise CustomizationJobFailed.of("error.jobFailedSilently", job=job.name)
    if job.status == "Stopped":
        raise CustomizationJobStopped.of("error.jobStopped", job=job.name)
    age = call.now - job.created
    if job.status in {"InProgress", "Stopping"}:
        _stop_if_stalled(gateway, job, age)
    half = int(age.total_seconds() / 2)
    wait = max(FIRST_POLL_SECONDS, min(LAST_POLL_SECONDS, half))
    return {
        "status": job.status,
        "waitSeconds": wait,
        "phase": job.phase,
        "phases": dict(job.phases),
        "trainingLoss": job.training_loss,
        "validationLosses": list(job.validation_losses),
    }


def _failed(gateway: "Gateway", call: Call, job: Job) -> CustomizationJobFailed:
    """Return what to raise: it is logged, so that the beginning of a record is told by the run's row alone."""
    told, starting, record = job.failure_message.partition(_QUOTING)
    if record:
        note(gateway, call, {"jobFailure": job.failure_message})
    reason = f"{told}{starting}..." if record else job.failure_message
    return CustomizationJobFailed.of("error.jobFailed", job=job.name, reason=reason)


def _stop_if_stalled(gateway: "Gateway", job: Job, age: timedelta) -> None:
    limits = gateway.settings.defaults
    hours = age / timedelta(hours=1)
    if hours >= limits.job_end_hours:
        code = "error.jobNotDone" if job.status == "InProgress" else "error.jobStopping"
    elif hours >= limits.job_start_hours and not job.has_started and job.status == "InProgress":
        code = "error.jobNotStarted"
    else:
        return
    gateway.bedrock.stop_job(job.arn)
    raise CustomizationJobStalled.of(code, job=job.name, hours=f"{hours:.0f}")


def collect_metrics(gateway: "Gateway", plan: Plan, call: Call, stage: int, job_arn: str) -> JsonObject:
    """Read what Bedrock wrote about a completed job, keep it beside the run, and return {modelArn}.

    The job bills no more, so its lease ends, and the time for which its model is kept begins.
    """
    job = gateway.bedrock.job(job_arn)
    if job is None or not job.output_model_arn:
        raise CustomizationJobFailed.of("error.noOutputModel", job=job_arn)
    metrics = _metrics(gateway, plan, job)
    gateway.artifacts.put(f"{plan.prefix}training-metrics-{stage + 1}.json", msgspec.json.encode(metrics))
    learnt: JsonObject = {
        f"jobArn{stage}": job.arn,
        f"modelArn{stage}": job.output_model_arn,
        f"trainingLoss{stage}": metrics.final_training_loss,
        f"validationLoss{stage}": metrics.final_validation_loss,
    }
    note(gateway, call, learnt)
    leases.keep(gateway, f"{job.name}{leases.MODEL_SUFFIX}", call.now + leases.MODEL_RETENTION)
    leases.release_run(gateway, call, (leases.JOB,), "it has completed")
    return {"modelArn": job.output_model_arn}


def _metrics(gateway: "Gateway", plan: Plan, job: Job) -> TrainingMetrics:
    prefix = job.output_uri.removeprefix(gateway.artifacts.uri(""))
    folder = f"/model-customization-job-{job.arn.rsplit('/', 1)[-1]}/"
    # The whole prefix, since nothing says whether Bedrock sets one more slash between the prefix and its folder
    keys = [item.key for item in gateway.artifacts.listed(prefix) if folder in item.key]
    training, validation = find_metrics_files(keys)
    return read_training_metrics(
        gateway.artifacts.read(training) if training else None,
        gateway.artifacts.read(validation) if validation else None,
        job.hyper_parameters,
        load_catalogue().find(plan.base_model_identifier).hyper_parameters.get(job.customization_type, ()),
    )
