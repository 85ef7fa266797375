"""The settings: what a person may write in cdk.json or after -c, and what they are told when it cannot be used."""

import json

import msgspec
import pytest

from customization.cdk_settings import Chosen
from customization.evaluation import SHARDS_AT_ONCE
from customization.json_types import Json, JsonObject, as_object
from stacks.config import ConfigurationError, DeploymentConfig, read_config
from tests.infra.synthesis import ROOT, read

NETWORK: JsonObject = {"subnetIds": ["subnet-01234567"], "securityGroupIds": ["sg-01234567"]}
COPIES: JsonObject = {
    "bucketArn": "arn:aws:s3:::copies",
    "keyArn": "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000",
}


def problems_of(**settings: Json) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read_config({"settings": settings})
    heading, *problems = str(caught.value).splitlines()
    assert "cdk.json" in heading
    return [problem.strip() for problem in problems]


def test_cdk_json_names_every_setting_with_its_default() -> None:
    settings = as_object(as_object(read(ROOT / "cdk.json")["context"], "context")["settings"], "settings")
    assert read_config({"settings": settings}) == DeploymentConfig()
    assert set(settings) == {field.alias for field in DeploymentConfig.model_fields.values()}


def test_commands_look_where_a_deployment_without_settings_would_be() -> None:
    deployed, chosen = DeploymentConfig(), Chosen()
    assert msgspec.structs.asdict(chosen) == {name: getattr(deployed, name) for name in chosen.__struct_fields__}


def test_a_setting_after_c_overrides_cdk_json_and_is_text() -> None:
    config = read_config({"settings": {"stage": "dev", "budgetUsd": 20}, "stage": "prod", "budgetUsd": "35.5"})
    assert (config.stage, config.budget_usd) == ("prod", 35.5)


def test_lists_and_maps_after_c_are_json_text() -> None:
    config = read_config({"notificationEmails": '["a@example.com"]', "tags": '{"team": "ml"}'})
    assert (config.notification_emails, config.tags) == (("a@example.com",), {"team": "ml"})


def test_settings_with_parts_are_given_as_json_after_c_and_null_is_off() -> None:
    text = {"vpc": json.dumps(NETWORK), "replication": json.dumps(COPIES), "reservedConcurrency": "8"}
    config = read_config(text)
    assert config.vpc is not None
    assert (config.vpc.subnet_ids, config.vpc.security_group_ids) == (("subnet-01234567",), ("sg-01234567",))
    assert config.replication is not None
    assert (config.replication.bucket_arn, config.reserved_concurrency) == (COPIES["bucketArn"], 8)
    assert read_config({"settings": text, **dict.fromkeys([*text, "backupVault"], "null")}) == DeploymentConfig()


def test_a_function_keeps_at_least_the_calls_that_one_evaluation_makes_at_once() -> None:
    assert read_config({"reservedConcurrency": SHARDS_AT_ONCE}).reserved_concurrency == SHARDS_AT_ONCE
    with pytest.raises(ConfigurationError):
        read_config({"reservedConcurrency": SHARDS_AT_ONCE - 1})


def test_context_of_others_is_left_alone() -> None:
    context = {"@aws-cdk/core:stackRelativeExports": True, "availability-zones:account=1": ["a"], "owner": "me"}
    assert read_config(context) == DeploymentConfig()


@pytest.mark.parametrize(
    ("key", "given", "allowed"),
    [
        ("stage", "Prod", "lower-case letter"),
        ("stage", "abcdefghij", "up to 8"),
        ("stage", "", "such as dev"),
        ("stage", "ssmtest", "does not begin with aws or ssm"),
        ("account", "12345", "12 digits"),
        ("budgetUsd", 0, "above 0"),
        ("budgetUsd", "twenty", "US dollars"),
        ("monthlyBudgetUsd", 5, "at least budgetUsd (20)"),
        ("settleSeconds", 1, "5 to 3600"),
        ("jobStartHours", -1, "above 0"),
        ("jobEndHours", 24, "more than jobStartHours (24)"),
        ("language", "fr", "en or ja"),
        ("notificationEmails", ["nobody"], "e-mail addresses"),
        ("notificationEmails", "a@example.com", "team@example.com"),
        ("permissionsBoundary", "arn:aws:iam::1:role/x", "managed policy"),
        ("rolePath", "teams", "begins and ends with /"),
        ("tags", {"aws:team": "ml"}, "do not begin with aws:"),
        ("tags", {"team": "a#b"}, "letters, digits"),
        ("logRetentionDays", 8, "one of 1, 3, 5"),
        ("reservedConcurrency", 3, "4 to 1000"),
        ("backupVault", "a vault", "name of a backup vault"),
        ("vpc", "subnet-01234567", '{"subnetIds"'),
        ("vpc.subnetIds", {**NETWORK, "subnetIds": []}, "1 to 16 subnets and 1 to 5"),
        ("vpc.subnetIds.0", {**NETWORK, "subnetIds": ["subnet-1", "subnet-01234567"]}, "1 to 16 subnets and 1 to 5"),
        ("vpc.securityGroupIds", {"subnetIds": ["subnet-01234567"]}, "1 to 16 subnets and 1 to 5"),
        ("vpc.zone", {**NETWORK, "zone": "a"}, "1 to 16 subnets and 1 to 5"),
        ("replication.bucketArn", {**COPIES, "bucketArn": "copies"}, '{"bucketArn"'),
        ("replication.keyArn", {**COPIES, "keyArn": "alias/copies"}, '{"bucketArn"'),
    ],
)
def test_a_bad_setting_is_named_with_what_was_given_and_what_is_allowed(key: str, given: Json, allowed: str) -> None:
    (problem,) = problems_of(**{key.partition(".")[0]: given})
    assert problem.startswith(key)
    assert "was given" in problem
    assert allowed in problem


def test_all_bad_settings_are_named_at_once() -> None:
    problems = problems_of(stage="PROD", region="mars-1", language="fr", budgetUsd=-1)
    assert [problem.partition(":")[0] for problem in problems] == ["stage", "region", "budgetUsd", "language"]


def test_a_region_without_a_customizable_model_is_refused_naming_those_that_have_one() -> None:
    (problem,) = problems_of(region="eu-central-1")
    assert "'eu-central-1' was given" in problem
    assert problem.endswith("us-east-1, us-west-2 (no model there takes new jobs as of 2026-10)")


def test_a_base_model_of_another_region_is_refused_naming_those_of_this_region() -> None:
    (problem,) = problems_of(region="us-west-2", baseModelIdentifier="amazon.nova-micro-v1:0:128k")
    assert "can be customized in us-west-2" in problem
    assert "meta.llama3-1-8b-instruct-v1:0:128k (LEGACY as of 2026-10)" in problem
    assert "amazon.titan-text-express-v1:0:8k (ENDED as of 2026-10)" in problem
    assert problem.endswith("none of them takes new jobs, so set region to us-east-1")


def test_base_models_that_take_new_jobs_are_named_first() -> None:
    (problem,) = problems_of(baseModelIdentifier="gpt")
    named = problem.partition("us-east-1: ")[2]
    assert named.startswith("amazon.nova-micro-v1:0:128k, amazon.nova-lite-v1:0:300k, ")
    assert named.index("amazon.nova-2-lite-v1:0:256k") < named.index("(ENDED")
    assert "set region" not in problem


def test_a_model_that_is_ended_today_is_accepted_because_days_of_old_are_rehearsed() -> None:
    titan = "amazon.titan-text-express-v1:0:8k"
    for region in ("us-east-1", "us-west-2"):
        assert read_config({"region": region, "baseModelIdentifier": titan}).base_model_identifier == titan


def test_the_default_base_model_is_checked_against_the_region_too() -> None:
    (problem,) = problems_of(region="us-west-2")
    assert problem.startswith("baseModelIdentifier")


def test_an_unknown_setting_is_refused_and_a_near_one_suggested() -> None:
    assert problems_of(budgetUSD=20) == ["budgetUSD: there is no such setting; budgetUsd is meant?"]
    (problem,) = problems_of(colour="red")
    assert "there is no such setting" in problem
    assert "notificationEmails" in problem


def test_a_misspelt_setting_after_c_is_refused_instead_of_ignored() -> None:
    with pytest.raises(ConfigurationError, match="stgae: there is no such setting; stage is meant"):
        read_config({"stgae": "prod"})


def test_settings_that_are_no_map_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="allowed: a map of stage, region"):
        read_config({"settings": "[1]"})


def test_the_defaults_of_requests_carry_the_names_of_the_run_request() -> None:
    assert json.loads(read_config({"settleSeconds": "5"}).request_defaults) == {
        "baseModelIdentifier": "amazon.nova-micro-v1:0:128k",
        "budgetUsd": 20,
        "monthlyBudgetUsd": 200,
        "settleSeconds": 5,
        "jobStartHours": 24,
        "jobEndHours": 96,
        "language": "en",
    }
