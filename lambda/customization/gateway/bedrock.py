"""Amazon Bedrock's control plane: customization jobs, custom models, and how they are served."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, cast

import msgspec

from customization import errors
from customization.gateway.calls import named_errors

if TYPE_CHECKING:
    from mypy_boto3_bedrock import BedrockClient
    from mypy_boto3_bedrock.literals import CustomizationTypeType
    from mypy_boto3_bedrock.type_defs import GetModelCustomizationJobResponseTypeDef, TagTypeDef

ON_DEMAND = "on-demand"
PROVISIONED = "provisioned"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A model customization job as Bedrock describes it."""

    arn: str
    name: str
    status: str
    phases: Mapping[str, str]
    base_model: str
    customization_type: str
    hyper_parameters: Mapping[str, str]
    created: datetime
    ended: datetime | None
    output_uri: str
    output_model_arn: str
    failure_message: str
    training_loss: float | None
    validation_losses: tuple[float, ...]

    @property
    def has_started(self) -> bool:
        """Return whether training is past NotStarted; a job that names no phases counts as started.

        Jobs have stood for days with their data validated and their training NotStarted, without a failure message.
        """
        return self.phases.get("Training", "") != "NotStarted"

    @property
    def phase(self) -> str:
        """Return the phase under way, in the words of Bedrock's console."""
        for name, status in reversed(list(self.phases.items())):
            if status not in {"NotStarted", ""}:
                return f"{name}: {status}"
        return self.status


class JobSummary(msgspec.Struct, frozen=True, kw_only=True):
    arn: str
    name: str
    created: datetime


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a model customization job is created from."""

    name: str
    base_model: str
    customization_type: str
    hyper_parameters: Mapping[str, str]
    training_uri: str
    validation_uri: str
    output_uri: str
    role_arn: str
    key_arn: str
    tags: Mapping[str, str]
    token: str
    vpc_config: Mapping[str, list[str]] = {}


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A custom model deployment (on-demand) or a provisioned throughput."""

    arn: str
    name: str
    mode: str
    status: str
    model_arn: str
    failure_message: str
    created: datetime
    units: int = 0
    update_status: str = ""

    @property
    def is_ready(self) -> bool:
        """Return whether it answers."""
        return self.status in {"Active", "InService"}

    @property
    def is_changing(self) -> bool:
        """Return whether it is being made or let serve another model, until when AWS deletes it not."""
        return self.status in {"Creating", "Updating"} or self.update_status == "Updating"


class FoundationModel(msgspec.Struct, frozen=True, kw_only=True):
    identifier: str
    lifecycle_status: str


@contextmanager
def _looked_up() -> Iterator[None]:
    """Raise ResourceNotFound, too, where Bedrock calls what it does not know invalid instead of answering 404.

    A base model that has ended is answered with "The provided model identifier is invalid."; no source says which of
    the two a name gets that nothing has.
    """
    try:
        with named_errors():
            yield
    except errors.RequestRejected as error:
        if "identifier is invalid" in str(error):
            raise errors.ResourceNotFound(str(error)) from error
        raise


def _tag_list(tags: Mapping[str, str]) -> "list[TagTypeDef]":
    return [{"key": key, "value": value} for key, value in tags.items()]


def _job(answer: "GetModelCustomizationJobResponseTypeDef") -> Job:
    details = answer.get("statusDetails", {})
    phases = {
        "Validation": details.get("validationDetails", {}).get("status", ""),
        "Data processing": details.get("dataProcessingDetails", {}).get("status", ""),
        "Training": details.get("trainingDetails", {}).get("status", ""),
    }
    return Job(
        arn=answer["jobArn"],
        name=answer["jobName"],
        status=answer.get("status", ""),
        phases=phases if any(phases.values()) else {},
        base_model=answer["baseModelArn"],
        customization_type=answer.get("customizationType", ""),
        hyper_parameters=answer.get("hyperParameters", {}),
        created=answer["creationTime"],
        ended=answer.get("endTime"),
        output_uri=answer["outputDataConfig"]["s3Uri"],
        output_model_arn=answer.get("outputModelArn", ""),
        failure_message=answer.get("failureMessage", ""),
        training_loss=answer.get("trainingMetrics", {}).get("trainingLoss"),
        validation_losses=tuple(metric.get("validationLoss", 0.0) for metric in answer.get("validationMetrics", [])),
    )


class Bedrock:
    """The control plane: every method raises the names of `errors`."""

    def __init__(self, client: "BedrockClient") -> None:
        self._client = client

    def foundation_model(self, identifier: str) -> FoundationModel | None:
        """Return what Bedrock says of a base model, or None where it knows none of that id."""
        try:
            with _looked_up():
                details = self._client.get_foundation_model(modelIdentifier=identifier)["modelDetails"]
        except errors.ResourceNotFound:
            return None
        lifecycle = details.get("modelLifecycle", {"status": "ACTIVE"})
        return FoundationModel(identifier=details["modelId"], lifecycle_status=lifecycle["status"])

    def has_access(self, identifier: str) -> bool:
        """Return whether the account is entitled to a base model that exists."""
        with named_errors():
            availability = self._client.get_foundation_model_availability(modelId=identifier)
        return availability["entitlementAvailability"] == "AVAILABLE"

    def create_job(self, request: JobRequest) -> str:
        """Start a model customization job and return its ARN."""
        validation = {"validationDataConfig": {"validators": [{"s3Uri": request.validation_uri}]}}
        network = {"vpcConfig": request.vpc_config}
        with named_errors():
            return self._client.create_model_customization_job(
                jobName=request.name,
                customModelName=request.name,
                roleArn=request.role_arn,
                baseModelIdentifier=request.base_model,
                customizationType=cast("CustomizationTypeType", request.customization_type),
                hyperParameters=request.hyper_parameters,
                trainingDataConfig={"s3Uri": request.training_uri},
                **(validation if request.validation_uri else {}),  # type: ignore[arg-type]  # one member, present or not
                **(network if request.vpc_config else {}),  # type: ignore[arg-type]  # one member, present or not
                outputDataConfig={"s3Uri": request.output_uri},
                customModelKmsKeyId=request.key_arn,
                jobTags=_tag_list(request.tags),
                customModelTags=_tag_list(request.tags),
                clientRequestToken=request.token,
            )["jobArn"]

    def job(self, identifier: str) -> Job | None:
        """Return the job of that name or ARN, or None."""
        try:
            with _looked_up():
                return _job(self._client.get_model_customization_job(jobIdentifier=identifier))
        except errors.ResourceNotFound:
            return None

    def stop_job(self, identifier: str) -> None:
        """Ask a job to stop; one that is no longer in progress is left as it is."""
        try:
            with named_errors():
                self._client.stop_model_customization_job(jobIdentifier=identifier)
        except (errors.Conflict, errors.ResourceNotFound):
            return

    def jobs_in_progress(self) -> list[JobSummary]:
        """Return the jobs that are in progress in the account and Region."""
        with named_errors():
            pages = self._client.get_paginator("list_model_customization_jobs").paginate(statusEquals="InProgress")
            return [
                JobSummary(arn=job["jobArn"], name=job["jobName"], created=job["creationTime"])
                for page in pages
                for job in page.get("modelCustomizationJobSummaries", [])
            ]

    def model_is_there(self, identifier: str) -> bool:
        """Return whether a custom model of that name or ARN exists."""
        try:
            with _looked_up():
                self._client.get_custom_model(modelIdentifier=identifier)
        except errors.ResourceNotFound:
            return False
        return True

    def model_names(self) -> list[str]:
        """Return the names of the custom models of the account and Region."""
        with named_errors():
            pages = self._client.get_paginator("list_custom_models").paginate(isOwned=True)
            return [model["modelName"] for page in pages for model in page.get("modelSummaries", [])]

    def model_arns(self) -> dict[str, str]:
        """Return the ARNs of the custom models of the account and Region by their names."""
        with named_errors():
            pages = self._client.get_paginator("list_custom_models").paginate(isOwned=True)
            return {model["modelName"]: model["modelArn"] for page in pages for model in page.get("modelSummaries", [])}

    def delete_model(self, identifier: str) -> None:
        """Delete a custom model; raises Conflict while something serves it.

        By its ARN: the permission holds for models that bear this deployment's tag, and a name bears none.
        """
        try:
            with _looked_up():
                arn = self._client.get_custom_model(modelIdentifier=identifier)["modelArn"]
                self._client.delete_custom_model(modelIdentifier=arn)
        except errors.ResourceNotFound:
            return
        except errors.AccessDenied:
            # IAM finds no tags on what somebody else has deleted meanwhile
            if self.model_is_there(identifier):
                raise

    def serve(self, *, mode: str, name: str, model_arn: str, tags: Mapping[str, str], units: int, token: str) -> str:
        """Create a deployment or a provisioned throughput of `units` model units, uncommitted; return its ARN."""
        with named_errors():
            if mode == ON_DEMAND:
                return self._client.create_custom_model_deployment(
                    modelDeploymentName=name, modelArn=model_arn, tags=_tag_list(tags), clientRequestToken=token
                )["customModelDeploymentArn"]
            return self._client.create_provisioned_model_throughput(
                provisionedModelName=name,
                modelId=model_arn,
                modelUnits=units,
                tags=_tag_list(tags),
                clientRequestToken=token,
            )["provisionedModelArn"]

    def served(self, mode: str, identifier: str) -> ServedModel | None:
        """Return the deployment or provisioned throughput of that name or ARN, or None."""
        try:
            with _looked_up():
                return self._deployment(identifier) if mode == ON_DEMAND else self._throughput(identifier)
        except errors.ResourceNotFound:
            return None

    def _deployment(self, identifier: str) -> ServedModel:
        answer = self._client.get_custom_model_deployment(customModelDeploymentIdentifier=identifier)
        return ServedModel(
            arn=answer["customModelDeploymentArn"],
            name=answer["modelDeploymentName"],
            mode=ON_DEMAND,
            status=answer["status"],
            model_arn=answer["modelArn"],
            failure_message=answer.get("failureMessage", ""),
            created=answer["createdAt"],
            update_status=answer.get("updateDetails", {}).get("updateStatus", ""),
        )

    def swap_model(self, deployment_arn: str, model_arn: str) -> None:
        """Let a deployment serve another custom model under its ARN; `served` tells when that has come to pass."""
        with named_errors():
            self._client.update_custom_model_deployment(
                customModelDeploymentIdentifier=deployment_arn, modelArn=model_arn
            )

    def _throughput(self, identifier: str) -> ServedModel:
        answer = self._client.get_provisioned_model_throughput(provisionedModelId=identifier)
        return ServedModel(
            arn=answer["provisionedModelArn"],
            name=answer["provisionedModelName"],
            mode=PROVISIONED,
            status=answer["status"],
            model_arn=answer["modelArn"],
            failure_message=answer.get("failureMessage", ""),
            created=answer["creationTime"],
            units=answer["modelUnits"],
        )

    def all_served(self) -> Iterator[ServedModel]:
        """Yield every deployment and provisioned throughput of the account and Region."""
        with named_errors():
            for page in self._client.get_paginator("list_custom_model_deployments").paginate():
                for item in page.get("modelDeploymentSummaries", []):
                    yield ServedModel(
                        arn=item["customModelDeploymentArn"],
                        name=item["customModelDeploymentName"],
                        mode=ON_DEMAND,
                        status=item["status"],
                        model_arn=item["modelArn"],
                        failure_message=item.get("failureMessage", ""),
                        created=item["createdAt"],
                    )
            for listed in self._client.get_paginator("list_provisioned_model_throughputs").paginate():
                for summary in listed.get("provisionedModelSummaries", []):
                    yield ServedModel(
                        arn=summary["provisionedModelArn"],
                        name=summary["provisionedModelName"],
                        mode=PROVISIONED,
                        status=summary["status"],
                        model_arn=summary["modelArn"],
                        failure_message="",
                        created=summary["creationTime"],
                        units=summary["modelUnits"],
                    )

    def stop_serving(self, mode: str, identifier: str) -> None:
        """Delete a deployment or provisioned throughput; one that is gone is fine; raises Conflict while it changes."""
        try:
            with named_errors():
                if mode == ON_DEMAND:
                    self._client.delete_custom_model_deployment(customModelDeploymentIdentifier=identifier)
                else:
                    self._client.delete_provisioned_model_throughput(provisionedModelId=identifier)
        except errors.ResourceNotFound:
            return
        except errors.AccessDenied:
            # As for a model
            if self.served(mode, identifier) is not None:
                raise

    def tags(self, arn: str) -> dict[str, str]:
        """Return the tags of a Bedrock resource."""
        with named_errors():
            return {tag["key"]: tag["value"] for tag in self._client.list_tags_for_resource(resourceARN=arn)["tags"]}
