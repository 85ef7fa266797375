"""Operations on custom models, and on the tags of every resource."""

from datetime import datetime

from customization.json_types import JsonObject, as_list
from rehearsal.bedrock.account import Account, CustomModel, page, tag_list, timestamp
from rehearsal.bedrock.errors import conflict, not_found
from rehearsal.bedrock.ledger import MONTH, Charge, Ledger
from rehearsal.bedrock.protocol import Request, Response


class CustomModels:
    def __init__(self, account: Account, ledger: Ledger) -> None:
        self._account = account
        self._ledger = ledger

    def get(self, request: Request, now: datetime) -> Response:  # noqa: ARG002  every operation has the same signature
        """GetCustomModel."""
        model = self._account.find_model(str(request.parameters["modelIdentifier"]))
        parameters = model.job.parameters
        description: JsonObject = {
            "modelArn": model.arn,
            "modelName": model.name,
            "jobName": model.job.name,
            "jobArn": model.job.arn,
            "baseModelArn": model.source_arn,
            "customizationType": model.job.data_source.customization_type,
            "creationTime": timestamp(model.created),
            "modelKmsKeyArn": model.job.key_arn,
            "modelStatus": "Active",
        }
        for member in ("hyperParameters", "trainingDataConfig", "validationDataConfig", "outputDataConfig"):
            description[member] = parameters.get(member)
        return Response(description | model.job.metrics)

    def list(self, request: Request, now: datetime) -> Response:  # noqa: ARG002  every operation has this shape
        """ListCustomModels."""
        parameters = request.parameters
        models = [
            model
            for model in self._account.models.values()
            if str(parameters.get("nameContains", "")) in model.name
            and parameters.get("baseModelArnEquals") in (None, model.source_arn)
            and parameters.get("foundationModelArnEquals") in (None, self._foundation_arn(model))
            and parameters.get("modelStatus") in (None, "Active")
            and parameters.get("isOwned") in (None, True)
        ]
        return Response(page(models, parameters, lambda model: model.created, self._summarize, "modelSummaries"))

    def delete(self, request: Request, now: datetime) -> Response:
        """DeleteCustomModel."""
        model = self._account.find_model(str(request.parameters["modelIdentifier"]))
        servings = (*self._account.throughputs.values(), *self._account.deployments.values())
        users = [serving.arn for serving in servings if model.arn in serving.models_in_use(now)]
        if users:
            raise conflict(f"The custom model is in use and cannot be deleted; it is used by {', '.join(users)}")
        self._ledger.add(self.storage(model, now))
        del self._account.models[model.arn]
        self._account.tags.pop(model.arn, None)
        return Response()

    def storage(self, model: CustomModel, now: datetime) -> Charge:
        """Return what storing the model has cost from its creation until `now`."""
        months = (now - model.created) / MONTH
        return Charge(model.arn, model.base.base_model_identifier, "storage", months, model.created, now)

    def _foundation_arn(self, model: CustomModel) -> str:
        return self._account.arn("foundation-model", model.base.base_model_identifier)

    def _summarize(self, model: CustomModel) -> JsonObject:
        return {
            "modelArn": model.arn,
            "modelName": model.name,
            "creationTime": timestamp(model.created),
            "baseModelArn": model.source_arn,
            "baseModelName": model.base.base_model_identifier.partition(":")[0],
            "customizationType": model.job.data_source.customization_type,
            "ownerAccountId": self._account.number,
            "modelStatus": "Active",
        }


class Tags:
    def __init__(self, account: Account) -> None:
        self._account = account

    def add(self, request: Request, now: datetime) -> Response:  # noqa: ARG002  every operation has this shape
        """TagResource."""
        self._account.tag(self._resource(request), tag_list(request.parameters["tags"]))
        return Response()

    def remove(self, request: Request, now: datetime) -> Response:  # noqa: ARG002  every operation has this shape
        """UntagResource."""
        tags = self._account.tags.get(self._resource(request), {})
        for key in as_list(request.parameters["tagKeys"], "tagKeys"):
            tags.pop(str(key), None)
        return Response()

    def list(self, request: Request, now: datetime) -> Response:  # noqa: ARG002  every operation has this shape
        """ListTagsForResource."""
        tags = self._account.tags.get(self._resource(request), {})
        return Response({"tags": [{"key": key, "value": value} for key, value in tags.items()]})

    def _resource(self, request: Request) -> str:
        arn = str(request.parameters["resourceARN"])
        account = self._account
        if not any(
            arn in resources for resources in (account.jobs, account.models, account.throughputs, account.deployments)
        ):
            raise not_found(f"The resource {arn} does not exist.")
        return arn
