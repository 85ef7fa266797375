"""Operations on model customization jobs."""

from concurrent.futures import Future
from datetime import datetime
from typing import TYPE_CHECKING

from customization.catalogue import SUPPORTED_TYPES, BaseModel
from customization.json_types import Json, JsonObject, as_list, as_object, as_text
from rehearsal.bedrock.account import Account, CustomModel, page, tag_list, timestamp
from rehearsal.bedrock.base_models import END_OF_LIFE, INVALID_MODEL, BaseModels, state_of
from rehearsal.bedrock.errors import conflict, not_found, quota_exceeded, validation
from rehearsal.bedrock.faults import Faults
from rehearsal.bedrock.hyperparameters import read_hyper_parameters
from rehearsal.bedrock.jobs import Fate, Job, Phase, Progress, Trained
from rehearsal.bedrock.ledger import Charge, Ledger
from rehearsal.bedrock.protocol import Request, Response
from rehearsal.bedrock.trainer import Trainer, write_outputs
from rehearsal.bedrock.training_data import DataSource, split_uri

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

# Quotas of an account in a Region: "Scheduled customization jobs" and "Custom models per account".
JOBS_IN_PROGRESS = 10
CUSTOM_MODELS = 100
FATES: tuple[Fate, ...] = ("job-fails-validation", "job-fails", "job-stalls", "job-stopped", "job-stopping")


class CustomizationJobs:
    def __init__(
        self,
        *,
        account: Account,
        base_models: BaseModels,
        trainer: Trainer,
        ledger: Ledger,
        faults: Faults,
        s3_client_for_role: "Callable[[str], S3Client]",
    ) -> None:
        self._account = account
        self._base_models = base_models
        self._trainer = trainer
        self._ledger = ledger
        self._faults = faults
        self._s3 = s3_client_for_role

    def create(self, request: Request, now: datetime) -> Response:
        """CreateModelCustomizationJob."""
        parameters = request.parameters
        known = self._account.known_token(request.operation.name, parameters)
        if known:
            return Response({"jobArn": known})
        _refuse_what_is_not_rehearsed(parameters)
        base, source = self._base(as_text(parameters["baseModelIdentifier"], "baseModelIdentifier"), now)
        self._check_names_and_quotas(parameters, now)
        job = self._new_job(parameters, base, source, now)
        self._account.tag(job.arn, tag_list(parameters.get("jobTags")))
        self._account.tag(job.model_arn, tag_list(parameters.get("customModelTags")))
        self._account.jobs[job.arn] = job
        self._account.remember_token(request.operation.name, parameters, job.arn)
        self._trainer.start(job)
        return Response({"jobArn": job.arn})

    def get(self, request: Request, now: datetime) -> Response:
        """GetModelCustomizationJob."""
        job = self._account.find_job(str(request.parameters["jobIdentifier"]))
        return Response(self._describe(job, job.progress(now)))

    def list(self, request: Request, now: datetime) -> Response:
        """ListModelCustomizationJobs."""
        parameters = request.parameters
        jobs = [
            job
            for job in self._account.jobs.values()
            if str(parameters.get("nameContains", "")) in job.name
            and parameters.get("statusEquals") in (None, job.progress(now).status)
        ]

        def summarize(job: Job) -> JsonObject:
            return _summarize(job, job.progress(now), self._base_arn(job))

        key = "modelCustomizationJobSummaries"
        return Response(page(jobs, parameters, lambda job: job.created, summarize, key))

    def stop(self, request: Request, now: datetime) -> Response:
        """StopModelCustomizationJob."""
        job = self._account.find_job(str(request.parameters["jobIdentifier"]))
        status = job.progress(now).status
        if status != "InProgress":
            raise conflict(f"The model customization job cannot be stopped because its status is {status}.")
        job.stop_requested = now
        job.cancelled.set()
        return Response()

    def settle(self, now: datetime) -> None:
        """Carry out what the jobs that ended by `now` leave behind: output files, custom models and charges."""
        for job in self._account.jobs.values():
            if not job.settled:
                progress = job.progress(now)
                if progress.ended:
                    self._finish(job, progress, progress.ended)

    def close(self) -> None:
        """Give up every training that is not done."""
        for job in self._account.jobs.values():
            job.cancelled.set()
        self._trainer.close()

    def _finish(self, job: Job, progress: Progress, ended: datetime) -> None:
        job.settled = True
        if progress.status != "Completed":
            job.cancelled.set()
        else:
            trained = job.trained.result()
            job.metrics = _metrics(trained)
            # A run of weeks has many jobs: their weights live on in their custom models only.
            job.trained = Future()
            job.output_failure = write_outputs(self._s3, job, trained, ended)
            if job.output_failure:
                return
            source = (
                job.source.arn if job.source else self._account.arn("foundation-model", job.base.base_model_identifier)
            )
            self._account.models[job.model_arn] = CustomModel(
                arn=job.model_arn,
                name=job.model_name,
                base=job.base,
                source_arn=source,
                job=job,
                created=ended,
                language_model=trained.language_model,
            )
        tokens = job.billed_tokens(progress) / 1000
        identifier = job.base.base_model_identifier
        self._ledger.add(Charge(job.arn, identifier, "trainingTokens", tokens, job.created, ended))

    def _base(self, identifier: str, now: datetime) -> tuple[BaseModel, CustomModel | None]:
        base = self._base_models.customizable(identifier)
        source = None if base else self._account.find_model(identifier)
        base = base or (source.base if source else None)
        state = state_of(base, now) if base else "NOT_YET"
        if state == "ENDED":
            raise not_found(END_OF_LIFE)
        if base is None or state == "NOT_YET" or self._account.region not in base.customization_regions:
            raise validation(INVALID_MODEL)
        if state == "LEGACY":
            raise validation(
                f"The model {base.base_model_identifier} is LEGACY: it takes no new model customization jobs."
            )
        return base, source

    def _check_names_and_quotas(self, parameters: JsonObject, now: datetime) -> None:
        name, model_name = parameters["jobName"], parameters["customModelName"]
        jobs = self._account.jobs.values()
        running = [job for job in jobs if job.progress(now).ended is None]
        if any(job.name == name for job in jobs):
            raise conflict(f"The provided job name is currently in use: {name}")
        names = {job.model_name for job in running} | {model.name for model in self._account.models.values()}
        if model_name in names:
            raise conflict(f"The provided custom model name is currently in use: {model_name}")
        if len(running) >= JOBS_IN_PROGRESS:
            raise quota_exceeded(f"You have reached the limit of {JOBS_IN_PROGRESS} scheduled customization jobs.")
        if len(self._account.models) + len(running) >= CUSTOM_MODELS:
            raise quota_exceeded(f"You have reached the limit of {CUSTOM_MODELS} custom models per account.")

    def _new_job(self, parameters: JsonObject, base: BaseModel, source: CustomModel | None, now: datetime) -> Job:
        kind = str(parameters.get("customizationType", "FINE_TUNING"))
        if kind not in base.training_format:
            raise validation(f"The model {base.base_model_identifier} does not support the customization type {kind}.")
        given = as_object(parameters.get("hyperParameters", {}), "hyperParameters")
        plan = read_hyper_parameters(base, kind, {name: str(value) for name, value in given.items()})
        name, model_name = str(parameters["jobName"]), str(parameters["customModelName"])
        identifier = base.base_model_identifier
        fate, value = self._fate()
        slow = self._faults.strike("job-slow") if fate == "completes" else None
        return Job(
            arn=self._account.arn("model-customization-job", f"{identifier}/{self._account.take_id('job', name)}"),
            name=name,
            model_name=model_name,
            model_arn=self._account.arn("custom-model", f"{identifier}/{self._account.take_id('model', model_name)}"),
            base=base,
            source=source,
            parameters=parameters,
            role_arn=str(parameters["roleArn"]),
            created=now,
            data_source=_data_source(parameters, base, kind, plan.batch_size),
            plan=plan,
            fate=fate,
            failure=value,
            training_hours=float(slow) if slow else None,
            stopping_hours=float(value) if fate == "job-stopping" else None,
            account=self._account,
        )

    def _fate(self) -> tuple[Fate, str]:
        for fate in FATES:
            value = self._faults.strike(fate)
            if value is not None:
                return fate, value
        return "completes", ""

    def _base_arn(self, job: Job) -> str:
        return self._account.arn("foundation-model", job.base.base_model_identifier)

    def _describe(self, job: Job, progress: Progress) -> JsonObject:
        parameters = job.parameters
        description: JsonObject = {
            "jobArn": job.arn,
            "jobName": job.name,
            "outputModelName": job.model_name,
            "roleArn": job.role_arn,
            "status": progress.status,
            "statusDetails": _status_details(progress),
            "creationTime": timestamp(job.created),
            "lastModifiedTime": timestamp(progress.modified),
            "endTime": timestamp(progress.ended),
            "failureMessage": progress.failure or None,
            "baseModelArn": self._base_arn(job),
            "customizationType": job.data_source.customization_type,
            "outputModelKmsKeyArn": job.key_arn,
            "validationDataConfig": parameters.get("validationDataConfig", {"validators": []}),
        }
        for member in ("clientRequestToken", "hyperParameters", "trainingDataConfig", "outputDataConfig", "vpcConfig"):
            description[member] = parameters.get(member)
        return description | self._results(job, progress)

    def _results(self, job: Job, progress: Progress) -> JsonObject:
        if progress.status != "Completed":
            return {}
        return {"outputModelArn": job.model_arn, **job.metrics}


def _metrics(trained: Trained) -> JsonObject:
    losses: list[Json] = [{"validationLoss": round(loss, 6)} for loss in trained.validation_losses]
    last = trained.log.steps[-1][2] if trained.log.steps else None
    return {
        "trainingMetrics": None if last is None else {"trainingLoss": round(last, 6)},
        "validationMetrics": losses or None,
    }


def _refuse_what_is_not_rehearsed(parameters: JsonObject) -> None:
    kind = parameters.get("customizationType", "FINE_TUNING")
    if kind not in SUPPORTED_TYPES:
        raise validation(f"The rehearsal does not know the customization type {kind}.")
    if "customizationConfig" in parameters:
        raise validation("The rehearsal does not know customizationConfig.")
    training = as_object(parameters["trainingDataConfig"], "trainingDataConfig")
    if "s3Uri" not in training:
        raise validation("The rehearsal does not know trainingDataConfig without s3Uri.")
    for uri in (as_text(training["s3Uri"], "s3Uri"), *_validation_uris(parameters)):
        if not split_uri(uri)[1] or uri.endswith("/"):
            raise validation(
                "Invalid training input data configuration. Check the input data S3 Uris (Uri should be a file, "
                "not a directory) and retry request"
            )


def _validation_uris(parameters: JsonObject) -> list[str]:
    config = as_object(parameters.get("validationDataConfig", {}), "validationDataConfig")
    validators = as_list(config.get("validators", []), "validators")
    return [as_text(as_object(entry, "validator")["s3Uri"], "s3Uri") for entry in validators]


def _data_source(parameters: JsonObject, base: BaseModel, kind: str, batch_size: int) -> DataSource:
    uris = _validation_uris(parameters)
    if uris and not base.validation_data:
        raise validation(f"The model {base.base_model_identifier} takes no validation data.")
    return DataSource(
        base=base,
        customization_type=kind,
        batch_size=batch_size,
        training_uri=as_text(as_object(parameters["trainingDataConfig"], "trainingDataConfig")["s3Uri"], "s3Uri"),
        validation_uris=tuple(uris),
        output_uri=as_text(as_object(parameters["outputDataConfig"], "outputDataConfig")["s3Uri"], "s3Uri"),
    )


def _status_details(progress: Progress) -> JsonObject:
    names = ("validationDetails", "dataProcessingDetails", "trainingDetails")
    return {name: _describe_phase(phase) for name, phase in zip(names, progress.phases, strict=True)}


def _describe_phase(phase: Phase) -> JsonObject:
    return {
        "status": phase.status,
        "creationTime": timestamp(phase.started),
        "lastModifiedTime": timestamp(phase.modified),
    }


def _summarize(job: Job, progress: Progress, base_arn: str) -> JsonObject:
    completed = progress.status == "Completed"
    return {
        "jobArn": job.arn,
        "baseModelArn": base_arn,
        "jobName": job.name,
        "status": progress.status,
        "statusDetails": _status_details(progress),
        "creationTime": timestamp(job.created),
        "lastModifiedTime": timestamp(progress.modified),
        "endTime": timestamp(progress.ended),
        "customModelArn": job.model_arn if completed else None,
        "customModelName": job.model_name if completed else None,
        "customizationType": job.data_source.customization_type,
    }
