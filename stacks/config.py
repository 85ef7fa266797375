"""The settings of one deployment: what cdk.json names, what `-c name=value` overrides, and what of it is allowed."""

import difflib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

_CATALOGUE = Path(__file__).parent.parent / "lambda" / "customization" / "data" / "catalogue.json"
_TYPES = {"FINE_TUNING", "CONTINUED_PRE_TRAINING"}
_EMAIL = r"^[^@\s]+@[^@\s]+\.[^@\s]+$"
_TAG_CHARACTERS = r"^[\w\s.:/=+@-]*$"
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
_RETENTION_DAYS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731),
    *(1096, 1827, 2192, 2557, 2922, 3288, 3653),
)


class ConfigurationError(Exception):
    """The settings of cdk.json or of `-c` cannot be used; the message lists every problem."""


class _Lifecycle(BaseModel):
    state: Literal["ACTIVE", "LEGACY", "ENDED"]
    as_of: str
    model_config = ConfigDict(alias_generator=to_camel)


class _CatalogueModel(BaseModel):
    base_model_identifier: str
    inference_model_id: str
    customization_types: set[str]
    customization_regions: list[str]
    modality: str
    lifecycle: _Lifecycle
    model_config = ConfigDict(alias_generator=to_camel)

    @property
    def is_active(self) -> bool:
        return self.lifecycle.state == "ACTIVE"

    @property
    def described(self) -> str:
        """Return the identifier, with the state that a source last gave a model which takes no new jobs."""
        state = f" ({self.lifecycle.state} as of {self.lifecycle.as_of})"
        return self.base_model_identifier + ("" if self.is_active else state)


class _Catalogue(BaseModel):
    models: list[_CatalogueModel]


@cache
def _base_models() -> list[_CatalogueModel]:
    models = _Catalogue.model_validate_json(_CATALOGUE.read_bytes()).models
    return [model for model in models if model.modality == "text" and model.customization_types & _TYPES]


def asked_base_models(region: str) -> list[str]:
    """Return by what ids the base models are asked that can be customized in a Region: of models or of profiles."""
    return sorted({model.inference_model_id for model in _base_models() if region in model.customization_regions})


def _parse_text(value: object) -> object:
    """Return what the JSON text in `value` says: a list or map comes from `-c name=value` as text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        return value


def _require_retention(days: int) -> int:
    if days not in _RETENTION_DAYS:
        raise ValueError
    return days


def _require_customizable_model(region: str) -> str:
    regions = sorted({name for model in _base_models() for name in model.customization_regions})
    if region not in regions:
        raise ValueError(f"a Region in which a model can be customized: {', '.join(map(_describe_region, regions))}")
    return region


def _describe_region(region: str) -> str:
    """Return the Region, with a remark where no model takes new jobs; that is no refusal: a day of old is rehearsed."""
    models = [model for model in _base_models() if region in model.customization_regions]
    if any(model.is_active for model in models):
        return region
    return f"{region} (no model there takes new jobs as of {max(model.lifecycle.as_of for model in models)})"


def _require_base_model_of_region(identifier: str, info: ValidationInfo[None]) -> str:
    region = info.data.get("region")
    allowed = [model for model in _base_models() if region is None or region in model.customization_regions]
    if identifier not in {model.base_model_identifier for model in allowed}:
        named = ", ".join(model.described for model in sorted(allowed, key=lambda model: not model.is_active))
        raise ValueError(
            f"a base model that can be customized in {region or 'some Region'}: {named}{_elsewhere(allowed)}"
        )
    return identifier


def _elsewhere(models: list[_CatalogueModel]) -> str:
    """Return where to deploy instead where none of `models` takes new jobs, else nothing."""
    if any(model.is_active for model in models):
        return ""
    regions = sorted({name for model in _base_models() if model.is_active for name in model.customization_regions})
    return f"; none of them takes new jobs, so set region to {' or '.join(regions)}"


def _require_room_for_a_run(monthly_budget: float, info: ValidationInfo[None]) -> float:
    budget = info.data.get("budget_usd", 0.0)
    if monthly_budget < budget:
        raise ValueError(f"at least budgetUsd ({budget:g})")
    return monthly_budget


def _require_end_after_start(hours: float, info: ValidationInfo[None]) -> float:
    start = info.data.get("job_start_hours", 0.0)
    if hours <= start:
        raise ValueError(f"more than jobStartHours ({start:g})")
    return hours


def _refuse_reserved_stage(stage: str) -> str:
    # It begins the names of parameters (Systems Manager API, PutParameter)
    if stage.startswith(("aws", "ssm")):
        raise ValueError("a name that does not begin with aws or ssm, which Systems Manager keeps for itself")
    return stage


def _refuse_reserved_tags(tags: dict[str, str]) -> dict[str, str]:
    if any(key.lower().startswith("aws:") for key in tags):
        raise ValueError("keys that do not begin with aws:")
    return tags


_Email = Annotated[str, StringConstraints(pattern=_EMAIL)]
_TagKey = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=_TAG_CHARACTERS)]
_TagValue = Annotated[str, StringConstraints(max_length=256, pattern=_TAG_CHARACTERS)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Vpc(_Group):
    """Where functions and customization jobs are attached; the bounds are those of VpcConfig in Bedrock and Lambda."""

    subnet_ids: tuple[Annotated[str, StringConstraints(pattern=r"^subnet-([0-9a-f]{8}|[0-9a-f]{17})$")], ...] = Field(
        min_length=1, max_length=16
    )
    security_group_ids: tuple[Annotated[str, StringConstraints(pattern=r"^sg-([0-9a-f]{8}|[0-9a-f]{17})$")], ...] = (
        Field(min_length=1, max_length=5)
    )


class Replication(_Group):
    """A bucket, versioned and of another Region, and the key that encrypts what is copied into it."""

    bucket_arn: str = Field(pattern=r"^arn:aws[a-z-]*:s3:::[a-z0-9.-]{3,63}$")
    key_arn: str = Field(pattern=r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[\w-]+$")


_FromContext = BeforeValidator(_parse_text)


class DeploymentConfig(BaseModel):
    """The settings, as docs/settings.md lists them.

    A field's title says what it decides. Its description says what is allowed and is part of the message when a value
    is not.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        coerce_numbers_to_str=True,
        validate_default=True,
    )

    stage: Annotated[str, AfterValidator(_refuse_reserved_stage)] = Field(
        title="Tells deployments of one account apart: it is in every name",
        default="dev",
        pattern=r"^[a-z][a-z0-9]{0,8}$",
        description="a lower-case letter and up to 8 lower-case letters or digits, such as dev or prod",
    )
    region: Annotated[str, AfterValidator(_require_customizable_model)] = Field(
        title="Where everything is deployed and models are customized",
        default="us-east-1",
        description="a Region in which a model can be customized",
    )
    account: str | None = Field(
        title="The account of the deployment",
        default=None,
        pattern=r"^\d{12}$",
        description="the 12 digits of an AWS account as text, or null for the account of the credentials",
    )
    base_model_identifier: Annotated[str, AfterValidator(_require_base_model_of_region)] = Field(
        title="The base model of requests that name none",
        default="amazon.nova-micro-v1:0:128k",
        description="a baseModelIdentifier of the catalogue",
    )
    budget_usd: float = Field(
        title="What one run may spend when its request names no budgetUsd",
        default=20,
        gt=0,
        le=1e6,
        description="US dollars for one run, above 0",
    )
    monthly_budget_usd: Annotated[float, AfterValidator(_require_room_for_a_run)] = Field(
        title="What all runs of a calendar month may spend together",
        default=200,
        le=1e7,
        description="US dollars a month",
    )
    settle_seconds: int = Field(
        title="How long a folder has to be without a new file before its run starts",
        default=60,
        ge=5,
        le=3600,
        description="5 to 3600 seconds",
    )
    job_start_hours: float = Field(
        title="A customization job that has not begun to train after this time is stopped",
        default=24,
        gt=0,
        le=240,
        description="above 0, up to 240 hours",
    )
    job_end_hours: Annotated[float, AfterValidator(_require_end_after_start)] = Field(
        title="A customization job that has not ended after this time is stopped",
        default=96,
        le=480,
        description="up to 480 hours",
    )
    language: Literal["en", "ja"] = Field(
        title="The language of reports and notifications when the request names none",
        default="en",
        description="en or ja",
    )
    notification_emails: Annotated[tuple[_Email, ...], _FromContext] = Field(
        title="Who is told of the start, end and failure of runs; SNS asks each address to confirm",
        default=(),
        description='a list of e-mail addresses, such as ["team@example.com"]',
    )
    permissions_boundary: str | None = Field(
        title="The permissions boundary of every role",
        default=None,
        pattern=r"^(arn:aws[a-z-]*:iam::(\d{12}|aws):policy/[\w+=,.@/-]+|[\w+=,.@-]{1,128})$",
        description="the ARN or the name of a managed policy, or null",
    )
    role_path: str = Field(
        title="The path of every role",
        default="/",
        max_length=512,
        pattern=r"^/([\w+=,.@-]+/)*$",
        description="/ or a path that begins and ends with /, such as /teams/ml/",
    )
    tags: Annotated[dict[_TagKey, _TagValue], _FromContext, AfterValidator(_refuse_reserved_tags)] = Field(
        title="The tags of every resource that takes tags",
        default={},
        max_length=40,
        description="up to 40 keys of 1-128 and values of 0-256 letters, digits, spaces or any of _ . : / = + - @",
    )
    log_retention_days: Annotated[int, AfterValidator(_require_retention)] = Field(
        title="How long CloudWatch keeps the logs",
        default=90,
        description=f"one of {', '.join(map(str, _RETENTION_DAYS))}",
    )
    reserved_concurrency: Annotated[int | None, _FromContext] = Field(
        title="Calls that Lambda reserves for each function",
        default=None,
        ge=4,  # the shards that one run asks a model for at once; a test compares it
        le=1000,
        description="null, or 4 to 1000 calls at once that each function keeps for itself and never exceeds",
    )
    vpc: Annotated[Vpc | None, _FromContext] = Field(
        title="The network of functions and customization jobs",
        default=None,
        description='null, or 1 to 16 subnets and 1 to 5 security groups: {"subnetIds": ["subnet-..."], '
        '"securityGroupIds": ["sg-..."]}',
    )
    backup_vault: Annotated[str | None, _FromContext] = Field(
        title="Daily copies of the tables, kept for 35 days",
        default=None,
        pattern=r"^[a-zA-Z0-9_-]{2,50}$",
        description="null, or the name of a backup vault of this account and Region",
    )
    replication: Annotated[Replication | None, _FromContext] = Field(
        title="Copies of every new object in another Region",
        default=None,
        description='null, or {"bucketArn": "arn:aws:s3:::...", "keyArn": "arn:aws:kms:..."}: a versioned bucket of '
        "another Region, and the key that encrypts the copies",
    )

    @property
    def dashboard_name(self) -> str:
        """Return the name of the dashboard: those of all Regions of an account share their names."""
        return f"Customization-{self.stage}-{self.region}"

    @property
    def request_defaults(self) -> str:
        """Return as JSON the settings that a run request falls back to."""
        names = (
            "base_model_identifier budget_usd monthly_budget_usd settle_seconds job_start_hours job_end_hours language"
        )
        return self.model_dump_json(by_alias=True, include=set(names.split()))


_NAMES = [field.alias or name for name, field in DeploymentConfig.model_fields.items()]


def read_config(context: Mapping[str, object]) -> DeploymentConfig:
    """Return the settings under the key `settings`, overridden by every key that is a setting's name (`-c stage=prod`).

    Raises ConfigurationError naming every bad key, what was given and what is allowed.
    """
    settings = _parse_text(context.get("settings", {}))
    if not isinstance(settings, dict):
        raise ConfigurationError(f"settings: {settings!r} was given; allowed: a map of {', '.join(_NAMES)}")
    misspelt = {key: context[key] for key in context if key not in _NAMES and _nearest(key) and key != "settings"}
    overrides = {name: context[name] for name in _NAMES if name in context}
    try:
        return DeploymentConfig.model_validate(settings | overrides | misspelt)
    except ValidationError as error:
        problems = "\n".join(f"  {_describe(problem)}" for problem in error.errors())
        raise ConfigurationError(
            f"The settings of this deployment cannot be used. Mend them in cdk.json or with -c name=value:\n{problems}"
        ) from error


def _describe(problem: ErrorDetails) -> str:
    name, *rest = map(str, problem["loc"])
    if problem["type"] == "extra_forbidden" and not rest:
        near = _nearest(name)
        return f"{name}: there is no such setting; " + (
            f"{near} is meant?" if near else f"allowed: {', '.join(_NAMES)}"
        )
    field = next(field for key, field in DeploymentConfig.model_fields.items() if name in (key, field.alias))
    own_text = problem["msg"].removeprefix("Value error, ") if problem["type"] == "value_error" else ""
    path = ".".join([field.alias or name, *rest])
    return f"{path}: {problem['input']!r} was given; allowed: {own_text or field.description}"


def _nearest(name: str) -> str | None:
    """Return the setting that `name` is probably a slip of: context also holds what is none of ours."""
    return next(iter(difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.75)), None)
