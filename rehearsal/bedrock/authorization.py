"""What IAM must allow for a call: actions and resources by the Service Authorization Reference."""

from typing import TYPE_CHECKING

from customization.json_types import JsonObject, as_list, as_object
from rehearsal.bedrock.account import Account
from rehearsal.bedrock.base_models import PROFILE_PREFIX, PROFILE_REGIONS, BaseModels, foundation_id
from rehearsal.bedrock.errors import ServiceError
from rehearsal.bedrock.protocol import Request

if TYPE_CHECKING:
    from collections.abc import Callable

Permission = tuple[str, str]
# Whoever serves or asks an encrypted model decrypts it.
_DECRYPTING = (
    "CreateCustomModelDeployment",
    "UpdateCustomModelDeployment",
    "CreateProvisionedModelThroughput",
    "Converse",
    "InvokeModel",
)
# Where an identifier may be a name: the parameter, and the resources among which it is looked up.
_IDENTIFIERS = {
    "GetModelCustomizationJob": ("jobIdentifier", "model-customization-job"),
    "StopModelCustomizationJob": ("jobIdentifier", "model-customization-job"),
    "GetCustomModel": ("modelIdentifier", "custom-model"),
    "DeleteCustomModel": ("modelIdentifier", "custom-model"),
    "GetProvisionedModelThroughput": ("provisionedModelId", "provisioned-model"),
    "DeleteProvisionedModelThroughput": ("provisionedModelId", "provisioned-model"),
    "UpdateProvisionedModelThroughput": ("provisionedModelId", "provisioned-model"),
    "GetCustomModelDeployment": ("customModelDeploymentIdentifier", "custom-model-deployment"),
    "DeleteCustomModelDeployment": ("customModelDeploymentIdentifier", "custom-model-deployment"),
    "UpdateCustomModelDeployment": ("customModelDeploymentIdentifier", "custom-model-deployment"),
    "TagResource": ("resourceARN", ""),
    "UntagResource": ("resourceARN", ""),
    "ListTagsForResource": ("resourceARN", ""),
}


_TAG_LISTS = ("tags", "jobTags", "customModelTags")


def request_tags(request: Request) -> dict[str, str]:
    """Return the tags that stand in every list of tags of a request."""
    lists = [
        {(str(tag["key"]), str(tag["value"])) for tag in (as_object(item, name) for item in as_list(tags, name))}
        for name, tags in request.parameters.items()
        if name in _TAG_LISTS
    ]
    return dict(set.intersection(*lists)) if lists else {}


class Authorization:
    def __init__(self, account: Account, base_models: BaseModels) -> None:
        self._account = account
        self._base_models = base_models
        self._finders: dict[str, Callable[[str], str]] = {
            "model-customization-job": lambda identifier: account.find_job(identifier).arn,
            "custom-model": lambda identifier: account.find_model(identifier).arn,
            "provisioned-model": lambda identifier: account.find_throughput(identifier).arn,
            "custom-model-deployment": lambda identifier: account.find_deployment(identifier).arn,
        }

    def needed(self, request: Request) -> list[Permission]:
        """Return every (action, resource ARN) that the caller needs; `*` where an action has no resource types."""
        name, parameters = request.operation.name, request.parameters
        if name in _IDENTIFIERS:
            parameter, kind = _IDENTIFIERS[name]
            needed = [(f"bedrock:{name}", self._resource(kind, str(parameters[parameter])))]
            return needed + self._updates(name, parameters) + self._keys(name, parameters)
        special = {
            "CreateModelCustomizationJob": self._create_job,
            "CreateProvisionedModelThroughput": self._create_throughput,
            "CreateCustomModelDeployment": self._create_deployment,
            "GetFoundationModel": self._get_foundation_model,
            "GetInferenceProfile": self._get_profile,
            "Converse": self._invoke,
            "InvokeModel": self._invoke,
        }.get(name)
        needed = special(parameters) if special else [(f"bedrock:{name}", "*")]
        return needed + self._keys(name, parameters)

    def _keys(self, name: str, parameters: JsonObject) -> list[Permission]:
        """Return what the caller needs of a custom model's key, by the guide's "Encryption of custom models"."""
        key = str(parameters.get("customModelKmsKeyId", ""))
        if ":key/" in key:
            return [(f"kms:{action}", key) for action in ("Decrypt", "GenerateDataKey", "DescribeKey", "CreateGrant")]
        if name not in _DECRYPTING:
            return []
        identifier = str(parameters.get("modelArn") or parameters.get("modelId"))
        account = self._account
        serving = account.deployments.get(identifier) or account.throughputs.get(identifier)
        model = account.models.get(serving.model_arn if serving else identifier)
        return [("kms:Decrypt", model.job.key_arn)] if model and model.job.key_arn else []

    def _resource(self, kind: str, identifier: str) -> str:
        """Return the ARN behind a name or id; one that is not there could have any id."""
        if identifier.startswith("arn:"):
            return identifier
        try:
            return self._finders[kind](identifier)
        except ServiceError:
            return self._account.arn(kind, identifier)

    def _updates(self, name: str, parameters: JsonObject) -> list[Permission]:
        if name == "UpdateCustomModelDeployment":
            return [(f"bedrock:{name}", str(parameters["modelArn"]))]
        if name == "UpdateProvisionedModelThroughput" and "desiredModelId" in parameters:
            return [(f"bedrock:{name}", self._model(str(parameters["desiredModelId"])))]
        return []

    def _model(self, identifier: str) -> str:
        if self._base_models.customizable(identifier):
            return self._account.arn("foundation-model", foundation_id(identifier))
        return self._resource("custom-model", identifier)

    def _create_job(self, parameters: JsonObject) -> list[Permission]:
        action = "bedrock:CreateModelCustomizationJob"
        source = self._model(str(parameters["baseModelIdentifier"]))
        root = source.partition("/")[2].rpartition("/")[0] if ":custom-model/" in source else source.partition("/")[2]
        job_id = self._account.next_id("job", str(parameters["jobName"]))
        model_id = self._account.next_id("model", str(parameters["customModelName"]))
        job = self._account.arn("model-customization-job", f"{root}/{job_id}")
        model = self._account.arn("custom-model", f"{root}/{model_id}")
        needed = [(action, source), (action, job), (action, model), ("iam:PassRole", str(parameters["roleArn"]))]
        needed += [("bedrock:TagResource", job)] if parameters.get("jobTags") else []
        needed += [("bedrock:TagResource", model)] if parameters.get("customModelTags") else []
        return needed

    def _create_throughput(self, parameters: JsonObject) -> list[Permission]:
        identifier = self._account.next_id("throughput", str(parameters["provisionedModelName"]))
        needed = [("bedrock:CreateProvisionedModelThroughput", self._model(str(parameters["modelId"])))]
        tagged = [("bedrock:TagResource", self._account.arn("provisioned-model", identifier))]
        return needed + (tagged if parameters.get("tags") else [])

    def _create_deployment(self, parameters: JsonObject) -> list[Permission]:
        identifier = self._account.next_id("deployment", str(parameters["modelDeploymentName"]))
        needed = [("bedrock:CreateCustomModelDeployment", str(parameters["modelArn"]))]
        tagged = [("bedrock:TagResource", self._account.arn("custom-model-deployment", identifier))]
        return needed + (tagged if parameters.get("tags") else [])

    def _get_foundation_model(self, parameters: JsonObject) -> list[Permission]:
        identifier = foundation_id(str(parameters["modelIdentifier"]))
        return [("bedrock:GetFoundationModel", self._account.arn("foundation-model", identifier))]

    def _get_profile(self, parameters: JsonObject) -> list[Permission]:
        identifier = str(parameters["inferenceProfileIdentifier"]).rsplit("/", 1)[-1]
        return [("bedrock:GetInferenceProfile", self._account.arn("inference-profile", identifier))]

    def _invoke(self, parameters: JsonObject) -> list[Permission]:
        action, model_id = "bedrock:InvokeModel", str(parameters["modelId"])
        if self._base_models.profile_of(model_id):
            profile = model_id.rsplit("/", 1)[-1]
            bare = profile.removeprefix(PROFILE_PREFIX)
            models = [f"arn:aws:bedrock:{region}::foundation-model/{bare}" for region in PROFILE_REGIONS]
            return [(action, self._account.arn("inference-profile", profile)), *((action, model) for model in models)]
        if model_id.startswith("arn:"):
            return [(action, model_id)]
        return [(action, self._account.arn("foundation-model", model_id))]
