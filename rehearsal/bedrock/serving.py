"""Operations on provisioned throughputs and custom model deployments."""

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from customization.catalogue import BaseModel
from customization.json_types import JsonObject
from rehearsal.bedrock.account import Account, Serving, page, tag_list, timestamp
from rehearsal.bedrock.base_models import INVALID_MODEL, BaseModels, state_of
from rehearsal.bedrock.errors import conflict, not_found, quota_exceeded, validation
from rehearsal.bedrock.faults import Faults
from rehearsal.bedrock.ledger import HOUR, Charge, Ledger
from rehearsal.bedrock.protocol import Request, Response

# Quotas of an account in a Region: "Total custom model deployments" and "In-progress custom model deployments".
DEPLOYMENTS = 10
DEPLOYMENTS_IN_PROGRESS = 2
# A deployment was seen Active after about 8 minutes.
DEPLOYMENT_MINUTES = (7.0, 9.0)
THROUGHPUT_MINUTES = (10.0, 20.0)
UPDATE_MINUTES = (4.0, 6.0)
COMMITMENTS = {"OneMonth": timedelta(days=30), "SixMonths": timedelta(days=180)}


class _Servings:
    """What both ways of serving have in common."""

    def __init__(self, account: Account, base_models: BaseModels, ledger: Ledger, faults: Faults) -> None:
        self._account = account
        self._base_models = base_models
        self._ledger = ledger
        self._faults = faults

    def _known_token(self, request: Request) -> str | None:
        return self._account.known_token(request.operation.name, request.parameters)

    def _new(
        self, arn: str, name: str, model: tuple[str, BaseModel], now: datetime, bounds: tuple[float, float]
    ) -> Serving:
        expected = now + self._account.minutes(f"{arn}/creating", *bounds)
        failure = self._faults.strike("serving-fails") or ""
        stuck = self._faults.strike("serving-stuck") is not None
        return Serving(
            arn=arn,
            name=name,
            model_arn=model[0],
            base=model[1],
            created=now,
            expected_at=expected,
            ready_at=None if stuck or failure else expected,
            failure=failure,
        )

    def _keep(self, request: Request, serving: Serving, resources: dict[str, Serving]) -> None:
        self._account.tag(serving.arn, tag_list(request.parameters.get("tags")))
        self._account.remember_token(request.operation.name, request.parameters, serving.arn)
        resources[serving.arn] = serving

    def _remove(self, serving: Serving, now: datetime, resources: dict[str, Serving]) -> None:
        # What is stuck in Creating can be deleted once it should have been ready.
        creating = now < serving.expected_at
        if creating or serving.is_updating(now):
            raise conflict(
                f"The resource cannot be deleted while it is {'being created' if creating else 'being updated'}."
            )
        del resources[serving.arn]
        self._account.tags.pop(serving.arn, None)

    def _redirect(self, serving: Serving, model_arn: str, now: datetime) -> None:
        serving.model_arn = serving.current_arn(now)
        serving.desired_arn = model_arn
        serving.update_fails = self._faults.strike("update-fails") is not None
        serving.update_ends = now + self._account.minutes(f"{serving.arn}/updating/{now.isoformat()}", *UPDATE_MINUTES)
        serving.updated = now

    def _selected(
        self, resources: dict[str, Serving], request: Request, status: Callable[[Serving], str]
    ) -> list[Serving]:
        wanted = request.parameters
        return [
            serving
            for serving in resources.values()
            if str(wanted.get("nameContains", "")) in serving.name
            and wanted.get("statusEquals") in (None, status(serving))
            and wanted.get("modelArnEquals") in (None, serving.model_arn)
        ]


def _modified(serving: Serving, now: datetime) -> datetime:
    moments = [serving.created, serving.expected_at, serving.updated, serving.update_ends]
    return max(moment for moment in moments if moment and moment <= now)


class Throughputs(_Servings):
    def create(self, request: Request, now: datetime) -> Response:
        """CreateProvisionedModelThroughput."""
        known = self._known_token(request)
        if known:
            return Response({"provisionedModelArn": known})
        parameters = request.parameters
        name = str(parameters["provisionedModelName"])
        model_arn, base = self._model(str(parameters["modelId"]))
        state = state_of(base, now)
        if state != "ACTIVE":
            raise validation(
                f"The model {base.base_model_identifier} is {state}: it takes no new Provisioned Throughput."
            )
        if not base.serving.provisioned_throughput:
            raise validation(f"Provisioned Throughput is not supported for {base.base_model_identifier}.")
        if any(throughput.name == name for throughput in self._account.throughputs.values()):
            raise validation(f"The provided provisioned model name is currently in use: {name}")
        if self._faults.strike("no-model-units") is not None:
            raise quota_exceeded(
                "Your account does not currently have any no commitment model units reserved for "
                f"{base.base_model_identifier}."
            )
        units, commitment = int(str(parameters["modelUnits"])), str(parameters.get("commitmentDuration", ""))
        in_use = sum(item.units for item in self._account.throughputs.values() if not item.commitment)
        if not commitment and in_use + units > self._account.model_units:
            raise quota_exceeded(
                f"You have reached the limit of {self._account.model_units} no commitment model units for "
                f"{base.base_model_identifier}."
            )
        arn = self._account.arn("provisioned-model", self._account.take_id("throughput", name))
        serving = self._new(arn, name, (model_arn, base), now, THROUGHPUT_MINUTES)
        serving.units, serving.commitment = units, commitment
        self._keep(request, serving, self._account.throughputs)
        return Response({"provisionedModelArn": arn})

    def get(self, request: Request, now: datetime) -> Response:
        """GetProvisionedModelThroughput."""
        throughput = self._account.find_throughput(str(request.parameters["provisionedModelId"]))
        return Response({**self._describe(throughput, now), "failureMessage": _failure(throughput, now)})

    def list(self, request: Request, now: datetime) -> Response:
        """ListProvisionedModelThroughputs."""
        throughputs = self._selected(self._account.throughputs, request, lambda item: self._status(item, now))
        key = "provisionedModelSummaries"
        describe = partial(self._describe, now=now)
        return Response(page(throughputs, request.parameters, lambda item: item.created, describe, key))

    def update(self, request: Request, now: datetime) -> Response:
        """UpdateProvisionedModelThroughput: another name, or a model of the same base."""
        throughput = self._account.find_throughput(str(request.parameters["provisionedModelId"]))
        if self._status(throughput, now) != "InService":
            raise validation(
                f"The provisioned model is {self._status(throughput, now)}; it must be InService to be updated."
            )
        if "desiredProvisionedModelName" in request.parameters:
            throughput.name = str(request.parameters["desiredProvisionedModelName"])
        if "desiredModelId" in request.parameters:
            model_arn, base = self._model(str(request.parameters["desiredModelId"]))
            if base != throughput.base:
                raise validation("The desired model must have the same base model as the provisioned model.")
            self._redirect(throughput, model_arn, now)
        return Response()

    def delete(self, request: Request, now: datetime) -> Response:
        """DeleteProvisionedModelThroughput."""
        throughput = self._account.find_throughput(str(request.parameters["provisionedModelId"]))
        if throughput.commitment and now < throughput.created + COMMITMENTS[throughput.commitment]:
            raise conflict("The provisioned model cannot be deleted before its commitment ends.")
        self._remove(throughput, now, self._account.throughputs)
        self._ledger.add(self.charge(throughput, now))
        return Response()

    def charge(self, throughput: Serving, now: datetime) -> Charge:
        """Return what the throughput has cost since it was purchased: no source says that an hour is divided."""
        hours, since = throughput.units * math.ceil((now - throughput.created) / HOUR), throughput.created
        return Charge(throughput.arn, throughput.base.base_model_identifier, "provisionedThroughput", hours, since, now)

    def _model(self, identifier: str) -> tuple[str, BaseModel]:
        base = self._base_models.customizable(identifier)
        if base:
            return self._account.arn("foundation-model", base.base_model_identifier), base
        model = self._account.find_model(identifier)
        return model.arn, model.base

    def _status(self, throughput: Serving, now: datetime) -> str:
        if throughput.has_failed(now):
            return "Failed"
        if not throughput.is_ready(now):
            return "Creating"
        return "Updating" if throughput.is_updating(now) else "InService"

    def _describe(self, throughput: Serving, now: datetime) -> JsonObject:
        current = throughput.current_arn(now)
        length = COMMITMENTS.get(throughput.commitment)
        return {
            "provisionedModelName": throughput.name,
            "provisionedModelArn": throughput.arn,
            "modelUnits": throughput.units,
            "desiredModelUnits": throughput.units,
            "modelArn": current,
            "desiredModelArn": throughput.desired_arn or current,
            "foundationModelArn": self._account.arn("foundation-model", throughput.base.base_model_identifier),
            "status": self._status(throughput, now),
            "commitmentDuration": throughput.commitment or None,
            "commitmentExpirationTime": timestamp(throughput.created + length) if length else None,
            "creationTime": timestamp(throughput.created),
            "lastModifiedTime": timestamp(_modified(throughput, now)),
        }


def _failure(serving: Serving, now: datetime) -> str | None:
    return serving.failure if serving.has_failed(now) else None


class Deployments(_Servings):
    def create(self, request: Request, now: datetime) -> Response:
        """CreateCustomModelDeployment."""
        known = self._known_token(request)
        if known:
            return Response({"customModelDeploymentArn": known})
        parameters = request.parameters
        name = str(parameters["modelDeploymentName"])
        model_arn, base = self._model(str(parameters["modelArn"]), now)
        deployments = self._account.deployments.values()
        if any(deployment.name == name for deployment in deployments):
            raise validation(f"The provided model deployment name is currently in use: {name}")
        if len(deployments) >= DEPLOYMENTS:
            raise quota_exceeded(f"You have reached the limit of {DEPLOYMENTS} custom model deployments.")
        in_progress = [item for item in deployments if self._status(item, now) == "Creating" or item.is_updating(now)]
        if len(in_progress) >= DEPLOYMENTS_IN_PROGRESS:
            raise quota_exceeded(
                f"You have reached the limit of {DEPLOYMENTS_IN_PROGRESS} in-progress custom model deployments."
            )
        arn = self._account.arn("custom-model-deployment", self._account.take_id("deployment", name))
        deployment = self._new(arn, name, (model_arn, base), now, DEPLOYMENT_MINUTES)
        deployment.description = str(parameters.get("description", ""))
        self._keep(request, deployment, self._account.deployments)
        return Response({"customModelDeploymentArn": arn})

    def get(self, request: Request, now: datetime) -> Response:
        """GetCustomModelDeployment."""
        deployment = self._account.find_deployment(str(request.parameters["customModelDeploymentIdentifier"]))
        ended = "UpdateFailed" if deployment.update_fails else "UpdateCompleted"
        update: JsonObject = {
            "modelArn": deployment.desired_arn,
            "updateStatus": "Updating" if deployment.is_updating(now) else ended,
        }
        return Response(
            {
                "customModelDeploymentArn": deployment.arn,
                "modelDeploymentName": deployment.name,
                "modelArn": deployment.current_arn(now),
                "createdAt": timestamp(deployment.created),
                "lastUpdatedAt": timestamp(_modified(deployment, now)),
                "status": self._status(deployment, now),
                "description": deployment.description or None,
                "updateDetails": update if deployment.desired_arn else None,
                "failureMessage": _failure(deployment, now),
            }
        )

    def list(self, request: Request, now: datetime) -> Response:
        """ListCustomModelDeployments."""
        deployments = self._selected(self._account.deployments, request, lambda item: self._status(item, now))

        def summarize(deployment: Serving) -> JsonObject:
            return {
                "customModelDeploymentArn": deployment.arn,
                "customModelDeploymentName": deployment.name,
                "modelArn": deployment.current_arn(now),
                "createdAt": timestamp(deployment.created),
                "lastUpdatedAt": timestamp(_modified(deployment, now)),
                "status": self._status(deployment, now),
                "failureMessage": _failure(deployment, now),
            }

        key = "modelDeploymentSummaries"
        return Response(page(deployments, request.parameters, lambda item: item.created, summarize, key))

    def update(self, request: Request, now: datetime) -> Response:
        """UpdateCustomModelDeployment: another custom model behind the same ARN."""
        deployment = self._account.find_deployment(str(request.parameters["customModelDeploymentIdentifier"]))
        model_arn, base = self._model(str(request.parameters["modelArn"]), now)
        if self._status(deployment, now) != "Active" or deployment.is_updating(now):
            raise validation("The custom model deployment must be Active and not under update to be updated.")
        if base != deployment.base:
            raise validation("The custom model must have the same base model as the deployed one.")
        self._redirect(deployment, model_arn, now)
        return Response({"customModelDeploymentArn": deployment.arn})

    def delete(self, request: Request, now: datetime) -> Response:
        """DeleteCustomModelDeployment."""
        deployment = self._account.find_deployment(str(request.parameters["customModelDeploymentIdentifier"]))
        self._remove(deployment, now, self._account.deployments)
        return Response()

    def _model(self, arn: str, now: datetime) -> tuple[str, BaseModel]:
        model = self._account.models.get(arn)
        if model is None:
            raise not_found(INVALID_MODEL)
        if not model.base.serves_on_demand(self._account.region, model.created.date()):
            raise validation(
                f"On-demand deployment is not supported for {model.base.base_model_identifier} customized on "
                f"{model.created.date()} in {self._account.region}."
            )
        self._base_models.require_offered(model.base, now)
        return model.arn, model.base

    def _status(self, deployment: Serving, now: datetime) -> str:
        if deployment.has_failed(now):
            return "Failed"
        return "Active" if deployment.is_ready(now) else "Creating"
