"""Who may do what: one role a function, nothing it does not need, and what bills or deletes held by few."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from customization.catalogue import load_catalogue
from customization.json_types import Json, JsonObject, as_object, as_text
from customization.preconditions import CUSTOM_MODELS_CODE, DEPLOYMENTS_CODE, MODEL_UNITS_CODE
from customization.settings import VARIABLES, read_settings
from stacks.permissions import AREAS
from tests.infra.machine import function_modules
from tests.infra.synthesis import at, listed, resources, synthesize

# IAM knows no resource for these (Service Authorization Reference)
WITHOUT_RESOURCE = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "bedrock:GetFoundationModelAvailability",
    "bedrock:ListModelCustomizationJobs",
    "bedrock:ListCustomModels",
    "bedrock:ListCustomModelDeployments",
    "bedrock:ListProvisionedModelThroughputs",
}
# Step Functions guide, "Using CloudWatch Logs to log execution history" and "Trace Step Functions request data"
WATCHING = {
    *(f"logs:{operation}LogDelivery" for operation in ("Create", "Get", "Update", "Delete")),
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
}
# What costs money, ends something or reaches people, and the only functions that may
POWERS = {
    "bedrock:CreateModelCustomizationJob": {"create_customization_job"},
    "bedrock:CreateCustomModelDeployment": {"create_model_deployment"},
    "bedrock:CreateProvisionedModelThroughput": {"create_provisioned_throughput"},
    "bedrock:InvokeModel": {"evaluate_shard"},
    "bedrock:TagResource": {"create_customization_job", "create_model_deployment", "create_provisioned_throughput"},
    "bedrock:StopModelCustomizationJob": {"poll_customization_job", "release_resources", "sweep"},
    "bedrock:DeleteCustomModel": {"release_model", "release_resources", "sweep"},
    "bedrock:UpdateCustomModelDeployment": {"promote_model", "change_model_in_use", "sweep"},
    "bedrock:DeleteCustomModelDeployment": {
        "create_model_deployment",
        "promote_model",
        "release_serving",
        "release_resources",
        "sweep",
    },
    "bedrock:DeleteProvisionedModelThroughput": {
        "create_provisioned_throughput",
        "promote_model",
        "release_serving",
        "release_resources",
        "sweep",
    },
    "iam:PassRole": {"create_customization_job"},
    "kms:CreateGrant": {"create_customization_job"},
    "ssm:PutParameter": {"promote_model", "change_model_in_use", "release_resources", "sweep"},
    "ssm:DeleteParameter": {"release_resources", "sweep"},
    "sns:Publish": {"explain_unused_upload", "release_resources", "sweep"},
    "sqs:SendMessage": {"explain_unused_upload", "sweep"},
    "states:DescribeExecution": {"poll_uploads", "plan_run", "release_resources", "sweep"},
}
# Service Authorization Reference. Of a job, the model and the job it makes are asked for as well
KINDS = {
    "bedrock:CreateModelCustomizationJob": {"foundation-model", "custom-model", "model-customization-job"},
    "bedrock:CreateProvisionedModelThroughput": {"custom-model", "foundation-model"},
    "bedrock:CreateCustomModelDeployment": {"custom-model"},
    "bedrock:UpdateCustomModelDeployment": {"custom-model", "custom-model-deployment"},
    "bedrock:InvokeModel": {"foundation-model", "inference-profile", "custom-model-deployment", "provisioned-model"},
    **{
        f"bedrock:{verb}{name}": {kind}
        for name, kind in {
            "ModelCustomizationJob": "model-customization-job",
            "CustomModel": "custom-model",
            "CustomModelDeployment": "custom-model-deployment",
            "ProvisionedModelThroughput": "provisioned-model",
            "FoundationModel": "foundation-model",
        }.items()
        for verb in ("Get", "Stop", "Delete")
    },
}
# What lets a model answer or answers; custom models, deployments and throughputs bear tags, base models do not
SERVING = {"bedrock:CreateCustomModelDeployment", "bedrock:CreateProvisionedModelThroughput", "bedrock:InvokeModel"}
AMAZONS = {"foundation-model", "inference-profile"}
OWN_TAG: JsonObject = {
    "StringEquals": {"aws:ResourceTag/deployment": {"Fn::ImportValue": "Customization-dev-Storage:DeploymentId"}}
}
# For whose sake a service assumes a role, within the account and Region
ASSUMING = {"states.amazonaws.com": "*", "events.amazonaws.com": "rule/*"}
REPORTS = {"runs/*/report.html", "runs/*/report.json", "datasets/*/index.html", "datasets/*/runs.csv"}
WRITTEN = {
    "plan_run": {"runs/*/manifest.json"},
    "prepare_dataset": {"runs/*/data/*", "runs/*/estimate.json", *REPORTS},
    "collect_training_metrics": {"runs/*/training-metrics-*.json"},
    "evaluate_shard": {"answers/*"},
    "compare_models": {"runs/*/evaluation/*"},
    "publish_report": REPORTS,
    "release_resources": REPORTS,
}
LISTED = {
    "poll_uploads": {"incoming/*"},
    "plan_run": {"incoming/*", "runs/*"},
    "prepare_dataset": {"incoming/*", "runs/*"},
    "collect_training_metrics": {"runs/*"},
    "evaluate_shard": {"answers/*"},
    "compare_models": {"runs/*", "answers/*"},
    "publish_report": {"runs/*"},
    "release_resources": {"runs/*"},
}


@dataclass(frozen=True)
class Statement:
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: JsonObject


@pytest.fixture(scope="module")
def pipeline(templates: dict[str, JsonObject]) -> JsonObject:
    return templates["pipeline"]


@pytest.fixture(scope="module")
def by_function(pipeline: JsonObject) -> dict[str, list[Statement]]:
    return statements_by_function(pipeline)


def statements_by_function(pipeline: JsonObject) -> dict[str, list[Statement]]:
    """Return every statement of each function's role."""
    functions, policies = resources(pipeline, "AWS::Lambda::Function"), _policies_by_role(pipeline)
    return {
        module: [
            statement
            for policy in policies[as_text(at(functions[name], "Properties", "Role", "Fn::GetAtt", 0), name)]
            for statement in statements_of(policy)
        ]
        for name, module in function_modules(pipeline).items()
    }


def statements_of_role(pipeline: JsonObject, role: str) -> Iterator[Statement]:
    """Yield what the policies of a role allow, by the logical id of the role."""
    for policy in _policies_by_role(pipeline)[role]:
        yield from statements_of(policy)


def _policies_by_role(pipeline: JsonObject) -> dict[str, list[JsonObject]]:
    found: defaultdict[str, list[JsonObject]] = defaultdict(list)
    for name, policy in resources(pipeline, "AWS::IAM::ManagedPolicy").items():
        properties = as_object(policy["Properties"], name)
        for role in listed(properties.get("Roles", [])):
            found[as_text(at(role, "Ref"), name)].append(properties)
    return found


def statements_of(policy: Json) -> Iterator[Statement]:
    for found in listed(at(policy, "PolicyDocument", "Statement")):
        statement = as_object(found, "Statement")
        assert statement["Effect"] == "Allow"
        yield Statement(
            tuple(as_text(action, "Action") for action in listed(statement["Action"])),
            tuple(text_of(resource) for resource in listed(statement["Resource"])),
            as_object(statement.get("Condition", {}), "Condition"),
        )


def text_of(value: Json) -> str:
    """Return a resource with its references written as the last word of what they name."""
    match value:
        case str():
            return value
        case {"Fn::Join": ["", list(parts)]}:
            return "".join(map(text_of, parts))
        case {"Fn::ImportValue": str(export)}:
            return f"<{export.rpartition(':')[2]}>"
        case {"Fn::GetAtt": [str(name), str(attribute)]}:
            return f"<{name}.{attribute}>"
        case {"Ref": str(name)}:
            return f"<{name}>"
        case _:
            raise ValueError(value)


def _holders(by_function: dict[str, list[Statement]]) -> dict[str, set[str]]:
    holders: defaultdict[str, set[str]] = defaultdict(set)
    for module, statements in by_function.items():
        for statement in statements:
            for action in statement.actions:
                holders[action].add(module)
    return holders


def test_every_function_has_a_role_and_a_policy_of_its_own(pipeline: JsonObject) -> None:
    functions = resources(pipeline, "AWS::Lambda::Function")
    roles = [as_text(at(function, "Properties", "Role", "Fn::GetAtt", 0), name) for name, function in functions.items()]
    assert len(set(roles)) == len(functions)
    own = [
        listed(at(policy, "Properties", "Roles"))
        for name, policy in resources(pipeline, "AWS::IAM::ManagedPolicy").items()
        if "RolePermissions" in name
    ]
    assert all([{"Ref": role}] in own for role in roles)


def test_roles_hold_no_policies_of_aws_and_none_that_would_hide_inside_them(templates: dict[str, JsonObject]) -> None:
    for template in templates.values():
        assert not resources(template, "AWS::IAM::Policy")
        for name, role in resources(template, "AWS::IAM::Role").items():
            assert not {"ManagedPolicyArns", "Policies"} & set(as_object(role["Properties"], name)), name


def test_what_a_role_needs_from_its_first_moment_waits_for_its_policy(pipeline: JsonObject) -> None:
    waiting = resources(pipeline, "AWS::Lambda::Function") | resources(pipeline, "AWS::StepFunctions::StateMachine")
    for name, resource in waiting.items():
        role = next(role for role in listed(resource["DependsOn"]) if "RolePermissions" not in str(role))
        policies = [
            policy
            for policy, found in resources(pipeline, "AWS::IAM::ManagedPolicy").items()
            if as_object(found["Properties"], policy).get("Roles") == [{"Ref": role}] and "RolePermissions" in policy
        ]
        assert len(policies) == 1, name
        assert set(policies) < set(listed(resource["DependsOn"])), name


def test_every_policy_is_within_what_iam_takes(templates: dict[str, JsonObject], tmp_path: Path) -> None:
    ids = [f"{number:017x}" for number in range(16)]
    largest = {"subnetIds": [f"subnet-{id_}" for id_ in ids], "securityGroupIds": [f"sg-{id_}" for id_ in ids[:5]]}
    with_network = synthesize(tmp_path / "cdk.out", {"vpc": json.dumps(largest), "account": "123456789012"})
    assert f"subnet-{ids[-1]}" in str(with_network["pipeline"])
    for template in (*templates.values(), *with_network.values()):
        for name, policy in resources(template, "AWS::IAM::ManagedPolicy").items():
            document = at(policy, "Properties", "PolicyDocument")
            text = json.dumps(_written_out(document), separators=(",", ":"))
            # IAM guide, "IAM and AWS STS quotas": without white space, and with names and ids written out
            assert len(text) < 6144, name


def _written_out(value: Json) -> Json:
    match value:
        case {"Fn::Join": ["", list(parts)]}:
            return "".join(str(_written_out(part)) for part in parts)
        case {"Ref": "AWS::AccountId"}:
            return "123456789012"
        case {"Fn::ImportValue": _} | {"Fn::GetAtt": _} | {"Ref": _}:
            return "arn:aws:service:us-east-1:123456789012:" + "n" * 64
        case dict():
            return {key: _written_out(inner) for key, inner in value.items()}
        case list():
            return [_written_out(inner) for inner in value]
        case _:
            return value


def test_roles_trust_one_service_each_and_not_for_other_accounts(pipeline: JsonObject) -> None:
    trusted: defaultdict[str, int] = defaultdict(int)
    for role in resources(pipeline, "AWS::IAM::Role").values():
        (statement,) = listed(at(role, "Properties", "AssumeRolePolicyDocument", "Statement"))
        service = as_text(at(statement, "Principal", "Service"), "service")
        trusted[service] += 1
        conditions = as_object(at(statement, "Condition"), service)
        assert conditions["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
        assert set(conditions) == {"StringEquals", *(["ArnLike"] if service in ASSUMING else [])}
        if service in ASSUMING:
            source = text_of(at(conditions, "ArnLike", "aws:SourceArn"))
            assert source == f"arn:aws:{service.partition('.')[0]}:us-east-1:<AWS::AccountId>:{ASSUMING[service]}"
    assert dict(trusted) == {
        "lambda.amazonaws.com": len(resources(pipeline, "AWS::Lambda::Function")),
        "states.amazonaws.com": 1,
        "events.amazonaws.com": 1,
    }


def test_no_action_is_a_pattern_and_only_actions_without_a_resource_have_a_star(
    by_function: dict[str, list[Statement]],
) -> None:
    for module, statements in by_function.items():
        for statement in statements:
            assert [action for action in statement.actions if "*" in action] == [], module
            if "*" in statement.resources:
                assert set(statement.actions) <= WITHOUT_RESOURCE, module
            else:
                assert not set(statement.actions) & WITHOUT_RESOURCE, module


@pytest.mark.parametrize("action", sorted(POWERS))
def test_what_costs_ends_or_tells_is_held_by_few(by_function: dict[str, list[Statement]], action: str) -> None:
    assert _holders(by_function)[action] == POWERS[action]


def test_nothing_else_creates_deletes_stops_or_passes(by_function: dict[str, list[Statement]]) -> None:
    verbs = ("Create", "Delete", "Stop", "Update", "Put", "Pass", "Tag", "Untag", "Invoke", "Publish", "Send")
    changing = {
        action
        for action in _holders(by_function)
        if action.partition(":")[2].startswith(verbs) and action.partition(":")[0] in ("bedrock", "iam", "ssm", "sns")
    }
    assert changing == {action for action in POWERS if action.partition(":")[0] in ("bedrock", "iam", "ssm", "sns")}


def test_whatever_ends_deletes_or_swaps_is_bound_to_this_deployments_tag(
    by_function: dict[str, list[Statement]],
) -> None:
    for module, statements in by_function.items():
        for statement in statements:
            if any(action.startswith(("bedrock:Delete", "bedrock:Stop", "bedrock:U")) for action in statement.actions):
                assert statement.conditions == OWN_TAG, module


def test_tags_are_put_on_new_resources_alone_and_only_this_deployments(
    by_function: dict[str, list[Statement]],
) -> None:
    own: Json = {"Fn::ImportValue": "Customization-dev-Storage:DeploymentId"}
    tagging = [found for each in by_function.values() for found in each if "bedrock:TagResource" in found.actions]
    assert {resource.split(":")[-1] for found in tagging for resource in found.resources} == {
        "custom-model/*",
        "model-customization-job/*",
        "custom-model-deployment/*",
        "provisioned-model/*",
    }
    for statement in tagging:
        assert statement.actions == ("bedrock:TagResource",)
        assert statement.conditions == {
            "StringEquals": {"aws:RequestTag/deployment": own},
            "StringEqualsIfExists": {"aws:ResourceTag/deployment": own},
        }


def _kind(resource: str) -> str:
    return resource.partition("/")[0].rpartition(":")[2]


def test_bedrocks_actions_are_granted_on_resources_that_they_have(by_function: dict[str, list[Statement]]) -> None:
    for module, statements in by_function.items():
        found: defaultdict[str, set[str]] = defaultdict(set)
        for statement in statements:
            for action in (action for action in statement.actions if action in KINDS):
                found[action] |= set(map(_kind, statement.resources))
        for action, kinds in found.items():
            assert kinds == KINDS[action], (module, action)


def test_only_this_deployments_models_are_served_and_asked_and_base_models_need_no_tag(
    by_function: dict[str, list[Statement]],
) -> None:
    for module, statements in by_function.items():
        for statement in (found for found in statements if SERVING & set(found.actions)):
            kinds = set(map(_kind, statement.resources))
            # No tag of ours is on what is Amazon's: a condition there would shut everybody out
            assert kinds <= AMAZONS or not kinds & AMAZONS, module
            assert statement.conditions == ({} if kinds <= AMAZONS else OWN_TAG), module


def test_the_quotas_that_are_asked_for_may_be_read_and_no_others(by_function: dict[str, list[Statement]]) -> None:
    codes = (CUSTOM_MODELS_CODE, DEPLOYMENTS_CODE, MODEL_UNITS_CODE)
    quotas = {f"arn:aws:servicequotas:us-east-1:<AWS::AccountId>:bedrock/{code}" for code in codes}
    action = "servicequotas:GetServiceQuota"
    (statement,) = [found for found in by_function["check_preconditions"] if action in found.actions]
    assert (statement.actions, set(statement.resources), statement.conditions) == ((action,), quotas, {})


def test_the_customization_role_alone_can_be_passed_and_to_bedrock_alone(
    by_function: dict[str, list[Statement]],
) -> None:
    (statement,) = [found for found in by_function["create_customization_job"] if "iam:PassRole" in found.actions]
    assert statement.actions == ("iam:PassRole",)
    (role,) = statement.resources
    assert role.startswith("<ExportsOutputFnGetAttCustomizationRole")
    assert statement.conditions == {"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}}


def test_bedrocks_resources_are_those_of_this_account_and_region_or_amazons_models(
    by_function: dict[str, list[Statement]],
) -> None:
    for module, statements in by_function.items():
        for statement in statements:
            if statement.actions[0].startswith("bedrock:") and statement.resources != ("*",):
                for resource in statement.resources:
                    own = resource.startswith("arn:aws:bedrock:us-east-1:<AWS::AccountId>:")
                    amazons = resource == "arn:aws:bedrock:us-east-1::foundation-model/*"
                    asked = "::foundation-model/" in resource and module == "evaluate_shard"
                    assert own or amazons or asked, (module, resource)


def test_base_models_are_asked_that_can_be_customized_in_the_region_and_no_others(
    by_function: dict[str, list[Statement]],
) -> None:
    expected = set()
    for model in load_catalogue().text_models():
        if "us-east-1" in model.customization_regions:
            bare = model.inference_model_id.removeprefix("us.")
            # A profile of the United States answers in any of its Regions
            area = "us-east-1" if bare == model.inference_model_id else "*"
            expected.add(f"arn:aws:bedrock:{area}::foundation-model/{bare}")
            if area == "*":
                expected.add(f"arn:aws:bedrock:us-east-1:<AWS::AccountId>:inference-profile/{model.inference_model_id}")
    asking = [found for found in by_function["evaluate_shard"] if "bedrock:InvokeModel" in found.actions]
    assert {arn for found in asking for arn in found.resources if found.conditions == {}} == expected
    assert "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0" in expected


def test_each_area_of_an_inference_profile_is_known() -> None:
    for model in load_catalogue().text_models():
        area, _, rest = model.inference_model_id.partition(".")
        assert model.base_model_identifier.startswith(rest if area in AREAS else model.inference_model_id)


def test_each_function_writes_its_own_artifacts_and_none_writes_data_or_bedrocks_output(
    by_function: dict[str, list[Statement]],
) -> None:
    written: defaultdict[str, set[str]] = defaultdict(set)
    for module, statements in by_function.items():
        for statement in statements:
            if "s3:PutObject" in statement.actions:
                assert all(
                    resource.startswith("<ExportsOutputFnGetAttArtifactBucket") for resource in statement.resources
                )
                written[module] |= {resource.partition("/")[2] for resource in statement.resources}
            assert not {action for action in statement.actions if action.startswith("s3:Delete")}
    assert written == WRITTEN


def test_people_s_data_is_read_by_those_alone_who_settle_pin_or_prepare_it(
    by_function: dict[str, list[Statement]],
) -> None:
    readers = {
        module
        for module, statements in by_function.items()
        for statement in statements
        for resource in statement.resources
        if resource.startswith("<ExportsOutputFnGetAttDataBucket") and "/" in resource
    }
    assert readers == {"poll_uploads", "plan_run", "prepare_dataset"}


def test_each_function_lists_its_own_folders_and_is_told_that_an_object_is_missing(
    by_function: dict[str, list[Statement]],
) -> None:
    listed_folders: defaultdict[str, set[str]] = defaultdict(set)
    for module, statements in by_function.items():
        for statement in (found for found in statements if "s3:ListBucket" in found.actions):
            # Reading has no prefix: without IfExists S3 would answer 403 where nothing is
            assert set(statement.conditions) == {"StringLikeIfExists"}, module
            prefixes = listed(at(statement.conditions, "StringLikeIfExists", "s3:prefix"))
            listed_folders[module] |= {as_text(prefix, module) for prefix in prefixes}
    assert listed_folders == LISTED


def test_each_function_writes_to_its_own_log_group(
    pipeline: JsonObject, by_function: dict[str, list[Statement]]
) -> None:
    functions = resources(pipeline, "AWS::Lambda::Function")
    for name, module in function_modules(pipeline).items():
        group = as_text(at(functions[name], "Properties", "LoggingConfig", "LogGroup", "Ref"), name)
        (statement,) = [found for found in by_function[module] if found.actions[0].startswith("logs:")]
        assert statement.actions == ("logs:CreateLogStream", "logs:PutLogEvents")
        assert statement.resources == (f"<{group}.Arn>",)


def _key_services(statements: list[Statement]) -> dict[str, set[str]]:
    """Return the services through which the key may be used, with the actions."""
    services: defaultdict[str, set[str]] = defaultdict(set)
    for statement in statements:
        if statement.actions[0].startswith("kms:"):
            (resource,) = statement.resources
            assert resource.startswith("<ExportsOutputFnGetAttKey")
            assert set(statement.conditions) == {"StringEquals"}
            via = listed(at(statement.conditions, "StringEquals", "kms:ViaService"))
            for service in via:
                services[as_text(service, "service").removesuffix(".us-east-1.amazonaws.com")] |= set(statement.actions)
    return services


def test_every_function_may_use_the_key_through_the_encrypted_services_that_it_calls(
    by_function: dict[str, list[Statement]],
) -> None:
    for module, statements in by_function.items():
        called = {action.partition(":")[0] for statement in statements for action in statement.actions}
        services = _key_services(statements)
        assert set(services) - {"bedrock"} == called & {"s3", "dynamodb", "sns", "sqs"}, module
        for service in set(services) - {"bedrock"}:
            encrypts = service in {"sns", "sqs"} or (service == "s3" and module in WRITTEN)
            assert services[service] == {"kms:Decrypt", *(["kms:GenerateDataKey"] if encrypts else [])}, module


def test_who_makes_serves_or_asks_an_encrypted_model_may_use_its_key_through_bedrock(
    by_function: dict[str, list[Statement]],
) -> None:
    through_bedrock = {
        module: _key_services(statements)["bedrock"]
        for module, statements in by_function.items()
        if "bedrock" in _key_services(statements)
    }
    assert through_bedrock == {
        "create_customization_job": {"kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey", "kms:CreateGrant"},
        "create_model_deployment": {"kms:Decrypt"},
        "create_provisioned_throughput": {"kms:Decrypt"},
        "promote_model": {"kms:Decrypt"},
        "change_model_in_use": {"kms:Decrypt"},
        "sweep": {"kms:Decrypt"},
        "evaluate_shard": {"kms:Decrypt"},
    }


def test_the_state_machine_calls_its_functions_and_its_topic_and_starts_itself_for_maps(pipeline: JsonObject) -> None:
    (machine,) = resources(pipeline, "AWS::StepFunctions::StateMachine").values()
    role = as_text(at(machine, "Properties", "RoleArn", "Fn::GetAtt", 0), "role")
    statements = {action: found for found in statements_of_role(pipeline, role) for action in found.actions}
    modules = function_modules(pipeline)
    invoked = {
        modules[resource.removeprefix("<").partition(".")[0]]
        for resource in statements["lambda:InvokeFunction"].resources
    }
    assert invoked == set(modules.values()) - {"sweep", "explain_unused_upload"}
    assert all(resource.endswith(".Arn>:*") for resource in statements["lambda:InvokeFunction"].resources)
    assert statements["sns:Publish"].resources == ("<TopicBFC7AF6E>",)
    assert _key_services([statements["kms:Decrypt"]]) == {"sns": {"kms:Decrypt", "kms:GenerateDataKey"}}
    assert {action for action, found in statements.items() if found.resources == ("*",)} == WATCHING
    own = {action: found.resources for action, found in statements.items() if action.startswith("states:")}
    (machine_arn,) = own.pop("states:StartExecution")
    execution = f"arn:aws:states:us-east-1:<AWS::AccountId>:execution:{machine_arn.removesuffix('>')}.Name>"
    assert own == {
        "states:DescribeExecution": (f"{execution}:*",),
        "states:StopExecution": (f"{execution}:*",),
        "states:RedriveExecution": (f"{execution}/*:*",),
    }


def test_the_rule_starts_this_machine_and_nothing_else(pipeline: JsonObject) -> None:
    (machine,) = resources(pipeline, "AWS::StepFunctions::StateMachine")
    (role,) = [
        name
        for name, found in resources(pipeline, "AWS::IAM::Role").items()
        if "events.amazonaws.com" in str(found["Properties"])
    ]
    assert list(statements_of_role(pipeline, role)) == [Statement(("states:StartExecution",), (f"<{machine}>",), {})]


def test_every_function_writes_traces(by_function: dict[str, list[Statement]]) -> None:
    traces = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
    for module, statements in by_function.items():
        unscoped = {action for found in statements if found.resources == ("*",) for action in found.actions}
        assert traces <= unscoped, module


def test_executions_are_described_of_this_machine_and_of_those_it_replaced(
    pipeline: JsonObject, by_function: dict[str, list[Statement]]
) -> None:
    (machine,) = resources(pipeline, "AWS::StepFunctions::StateMachine")
    for module in POWERS["states:DescribeExecution"]:
        (statement,) = [found for found in by_function[module] if "states:DescribeExecution" in found.actions]
        executions = "arn:aws:states:us-east-1:<AWS::AccountId>:execution"
        # CloudFormation gives a machine its logical id and a random end as name
        assert statement.resources == (f"{executions}:<{machine}.Name>:*", f"{executions}:{machine}-*:*")


def test_every_function_gets_the_environment_that_the_settings_read(pipeline: JsonObject) -> None:
    for name, function in resources(pipeline, "AWS::Lambda::Function").items():
        environment = as_object(at(function, "Properties", "Environment", "Variables"), name)
        own = {variable for variable in environment if not variable.startswith(("POWERTOOLS_", "OPENBLAS_"))}
        assert own | {"AWS_REGION"} == set(VARIABLES), name
        assert (environment["STAGE"], environment["POWERTOOLS_SERVICE_NAME"]) == ("dev", "customization")


def test_the_settings_can_be_read_from_the_environment(pipeline: JsonObject) -> None:
    function = next(iter(resources(pipeline, "AWS::Lambda::Function").values()))
    variables = as_object(at(function, "Properties", "Environment", "Variables"), "environment")
    texts = {name: text_of(value) for name, value in variables.items()}
    settings = read_settings({**texts, "AWS_REGION": "us-east-1"})
    assert settings.defaults.base_model_identifier == "amazon.nova-micro-v1:0:128k"
    assert (settings.defaults.budget_usd, settings.defaults.monthly_budget_usd) == (20, 200)
    assert json.loads(texts["DEFAULTS"])["language"] == "en"
