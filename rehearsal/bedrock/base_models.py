"""Base models as Bedrock describes them on a given day, and the inference profiles of those asked through one."""

import re
from datetime import date, datetime, timedelta

from customization.catalogue import BaseModel, Catalogue, State
from customization.json_types import JsonObject
from rehearsal.bedrock.account import Account, page
from rehearsal.bedrock.errors import not_found, validation
from rehearsal.bedrock.faults import Faults
from rehearsal.bedrock.protocol import Request, Response

INVALID_MODEL = "The provided model identifier is invalid."
END_OF_LIFE = (
    "This model version has reached the end of its life. Please refer to the AWS documentation for more details."
)
# The Regions over which a profile with the prefix us. spreads its requests.
PROFILE_REGIONS = ("us-east-1", "us-east-2", "us-west-2")
PROFILE_PREFIX = "us."
PROFILED = ("amazon.nova", "meta.llama3", "anthropic.")
# GetFoundationModel knows no reinforcement fine-tuning.
DESCRIBED_TYPES = frozenset({"FINE_TUNING", "CONTINUED_PRE_TRAINING", "DISTILLATION"})
# For a change of state that no source dates: a run that began on the last day on which a source shows the model offered
# is not cut off at midnight.
RUN_OUT = timedelta(days=14)


def state_of(model: BaseModel, now: datetime) -> State:
    """Return the model's lifecycle state at `now`: the catalogue's, or ACTIVE for as long as a begun run may take."""
    day, lifecycle = now.date(), model.lifecycle
    state = model.state_on(day)
    dated = {"LEGACY": lifecycle.legacy_from, "ENDED": lifecycle.end_of_life}.get(state)
    if state in {"LEGACY", "ENDED"} and dated is None and day <= lifecycle.offered_as_of + RUN_OUT:
        return "ACTIVE"
    return state


def foundation_id(identifier: str) -> str:
    """Return the model id of a foundation-model ARN; any other identifier as it is."""
    return identifier.rsplit(":foundation-model/", 1)[-1]


class BaseModels:
    def __init__(self, account: Account, catalogue: Catalogue, faults: Faults) -> None:
        self._account = account
        self._faults = faults
        self._customizable = {model.base_model_identifier: model for model in catalogue.models}
        self._inferable = {model.inference_model_id.removeprefix(PROFILE_PREFIX): model for model in catalogue.models}
        self._profiles = {
            PROFILE_PREFIX + identifier: model
            for identifier, model in self._inferable.items()
            if identifier.startswith(PROFILED)
        }

    def customizable(self, identifier: str) -> BaseModel | None:
        """Return the model with that customization id or foundation-model ARN, None when there is none."""
        return self._customizable.get(foundation_id(identifier))

    def on_demand(self, model_id: str) -> BaseModel | None:
        """Return the model that answers on demand under an id, profile id or ARN of either, None when none does.

        Raises ServiceError (ValidationException) for a model that only answers through an inference profile.
        """
        identifier = model_id.rsplit("/", 1)[-1]
        if identifier in self._profiles:
            return self._profiles[identifier]
        model = self._inferable.get(identifier)
        if model and model.inference_model_id.startswith(PROFILE_PREFIX):
            raise validation(
                f"Invocation of model ID {identifier} with on-demand throughput isn't supported. "
                "Retry your request with the ID or ARN of an inference profile that contains this model."
            )
        return model

    def profile_of(self, model_id: str) -> BaseModel | None:
        """Return the model behind an inference profile's id or ARN, None when it is no profile."""
        return self._profiles.get(model_id.rsplit("/", 1)[-1])

    def require_offered(self, model: BaseModel, now: datetime) -> None:
        """Raise ServiceError unless the model can be asked at `now`: legacy ones can."""
        state = state_of(model, now)
        if state == "ENDED":
            raise not_found(END_OF_LIFE)
        if state == "NOT_YET":
            raise validation(INVALID_MODEL)

    def get(self, request: Request, now: datetime) -> Response:
        """GetFoundationModel."""
        identifier = foundation_id(str(request.parameters["modelIdentifier"]))
        model = self._customizable.get(identifier) or self._inferable.get(identifier)
        if model is None or state_of(model, now) in {"ENDED", "NOT_YET"}:
            raise not_found("Could not resolve the foundation model from the provided model identifier.")
        return Response({"modelDetails": self._describe(identifier, model, now)})

    def list(self, request: Request, now: datetime) -> Response:
        """ListFoundationModels: one page."""
        wanted = request.parameters
        summaries = [
            self._describe(identifier, model, now)
            for identifier, model in {**self._inferable, **self._customizable}.items()
            if state_of(model, now) in {"ACTIVE", "LEGACY"}
        ]
        filters = {
            "byCustomizationType": "customizationsSupported",
            "byOutputModality": "outputModalities",
            "byInferenceType": "inferenceTypesSupported",
        }
        for parameter, member in filters.items():
            if parameter in wanted:
                summaries = [entry for entry in summaries if wanted[parameter] in _texts(entry, member)]
        if "byProvider" in wanted:
            summaries = [entry for entry in summaries if entry["providerName"] == wanted["byProvider"]]
        return Response({"modelSummaries": [*summaries]})

    def availability(self, request: Request, now: datetime) -> Response:
        """GetFoundationModelAvailability."""
        identifier = str(request.parameters["modelId"])
        model = self._customizable.get(identifier) or self._inferable.get(identifier)
        if model is None or state_of(model, now) in {"ENDED", "NOT_YET"}:
            raise not_found(INVALID_MODEL)
        is_refused = self._faults.is_in_effect("base-model-unavailable")
        return Response(
            {
                "modelId": identifier,
                "agreementAvailability": {"status": "AVAILABLE"},
                "authorizationStatus": "AUTHORIZED",
                "entitlementAvailability": "NOT_AVAILABLE" if is_refused else "AVAILABLE",
                "regionAvailability": "AVAILABLE",
            }
        )

    def get_profile(self, request: Request, now: datetime) -> Response:
        """GetInferenceProfile."""
        identifier = str(request.parameters["inferenceProfileIdentifier"]).rsplit("/", 1)[-1]
        model = self._profiles.get(identifier)
        if model is None or state_of(model, now) in {"ENDED", "NOT_YET"}:
            raise not_found("The provided inference profile identifier is invalid.")
        return Response(self._describe_profile(identifier))

    def list_profiles(self, request: Request, now: datetime) -> Response:
        """ListInferenceProfiles."""
        offered = [name for name, model in self._profiles.items() if state_of(model, now) in {"ACTIVE", "LEGACY"}]
        if request.parameters.get("typeEquals") == "APPLICATION":
            offered = []
        key = "inferenceProfileSummaries"
        return Response(page(offered, request.parameters, lambda _: now, self._describe_profile, key))

    def _describe(self, identifier: str, model: BaseModel, now: datetime) -> JsonObject:
        # The id with a context suffix is the one that is customized and provisioned; the bare one answers on demand.
        customizable = identifier in self._customizable
        profile_only = model.inference_model_id.startswith(PROFILE_PREFIX)
        inference = ["PROVISIONED"] if customizable else []
        if identifier in self._inferable and not profile_only:
            inference.append("ON_DEMAND")
        lifecycle = model.lifecycle
        return {
            "modelArn": self._account.arn("foundation-model", identifier),
            "modelId": identifier,
            "modelName": model.name,
            "providerName": model.provider,
            "inputModalities": ["TEXT"],
            "outputModalities": [model.modality.upper()],
            "responseStreamingSupported": model.modality == "text",
            "customizationsSupported": [*(DESCRIBED_TYPES.intersection(model.customization_types))]
            if customizable
            else [],
            "inferenceTypesSupported": [*inference],
            "modelLifecycle": {
                "status": state_of(model, now),
                "startOfLifeTime": _midnight(lifecycle.offered_from),
                "legacyTime": _midnight(lifecycle.legacy_from),
                "endOfLifeTime": _midnight(lifecycle.end_of_life),
            },
        }

    def _describe_profile(self, identifier: str) -> JsonObject:
        model = self._profiles[identifier]
        bare = identifier.removeprefix(PROFILE_PREFIX)
        return {
            "inferenceProfileName": re.sub("[^0-9a-zA-Z]+", " ", f"US {model.name}"),
            "inferenceProfileId": identifier,
            "inferenceProfileArn": self._account.arn("inference-profile", identifier),
            "models": [
                {"modelArn": f"arn:aws:bedrock:{region}::foundation-model/{bare}"} for region in PROFILE_REGIONS
            ],
            "status": "ACTIVE",
            "type": "SYSTEM_DEFINED",
        }


def _texts(entry: JsonObject, member: str) -> list[str]:
    value = entry[member]
    return [str(item) for item in value] if isinstance(value, list) else []


def _midnight(day: date | None) -> str | None:
    return f"{day.isoformat()}T00:00:00Z" if day else None
