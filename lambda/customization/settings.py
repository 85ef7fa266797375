"""The environment of every function, read once."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from customization.texts import Language

VARIABLES = (
    "DATA_BUCKET",
    "ARTIFACT_BUCKET",
    "RUNS_TABLE",
    "LEASES_TABLE",
    "TOPIC_ARN",
    "CUSTOMIZATION_ROLE_ARN",
    "KEY_ARN",
    "STAGE",
    "DEPLOYMENT_ID",
    "DEFAULTS",
    "AWS_REGION",
)


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What cdk.json decides for requests that do not say otherwise."""

    base_model_identifier: str
    budget_usd: float
    monthly_budget_usd: float
    settle_seconds: int
    job_start_hours: float
    job_end_hours: float
    language: "Language"


@dataclass(frozen=True, kw_only=True)
class Settings:
    data_bucket: str
    artifact_bucket: str
    runs_table: str
    leases_table: str
    topic_arn: str
    customization_role_arn: str
    key_arn: str
    stage: str
    deployment_id: str
    region: str
    defaults: Defaults
    # subnetIds and securityGroupIds of customization jobs; empty where they need no network of the account
    vpc_config: Mapping[str, list[str]] = field(default_factory=dict)
    is_rehearsal: bool = False

    @property
    def deployment(self) -> str:
        """Return what tells this deployment from others, as tags, metrics and names have it."""
        return f"{self.stage}-{self.deployment_id}"

    @property
    def name_prefix(self) -> str:
        """Return what every name outside CloudFormation begins with."""
        return f"{self.deployment}-"

    def owns(self, tags: Mapping[str, str]) -> bool:
        """Return whether a Bedrock resource with these tags is of this deployment."""
        return tags.get("deployment") == self.deployment_id

    def may_own(self, name: str, tags: Mapping[str, str]) -> bool:
        """Return whether a resource is of this deployment by its tag, or by its name where no tag says whose it is."""
        return self.owns(tags) or ("deployment" not in tags and name.startswith(self.name_prefix))


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings in `environment`; raises KeyError naming every variable that is missing."""
    missing = [name for name in VARIABLES if not environment.get(name)]
    if missing:
        raise KeyError(f"the function's environment lacks {', '.join(missing)}")
    defaults = json.loads(environment["DEFAULTS"])
    return Settings(
        data_bucket=environment["DATA_BUCKET"],
        artifact_bucket=environment["ARTIFACT_BUCKET"],
        runs_table=environment["RUNS_TABLE"],
        leases_table=environment["LEASES_TABLE"],
        topic_arn=environment["TOPIC_ARN"],
        customization_role_arn=environment["CUSTOMIZATION_ROLE_ARN"],
        key_arn=environment["KEY_ARN"],
        stage=environment["STAGE"],
        deployment_id=environment["DEPLOYMENT_ID"],
        region=environment["AWS_REGION"],
        vpc_config=json.loads(environment.get("VPC_CONFIG", "{}")),
        is_rehearsal=bool(environment.get("AWS_ENDPOINT_URL")),
        defaults=Defaults(
            base_model_identifier=defaults["baseModelIdentifier"],
            budget_usd=float(defaults["budgetUsd"]),
            monthly_budget_usd=float(defaults["monthlyBudgetUsd"]),
            settle_seconds=int(defaults["settleSeconds"]),
            job_start_hours=float(defaults["jobStartHours"]),
            job_end_hours=float(defaults["jobEndHours"]),
            language=defaults["language"],
        ),
    )


@cache
def current_settings() -> Settings:
    """Return the settings of this process; raises KeyError as `read_settings` does."""
    return read_settings(os.environ)
