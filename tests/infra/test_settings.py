"""What needs money or a network is switched on by a setting: what changes, and that a rule is kept then."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from customization.json_types import Json, JsonObject, as_object, as_text
from customization.settings import read_settings
from docs.render.settings_page import read_acknowledged
from stacks.nag import UNSET
from tests.infra.machine import function_modules
from tests.infra.synthesis import at, listed, resources
from tests.infra.test_permissions import statements_by_function, statements_of_role

SUBNETS = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
GROUPS = ["sg-0123456789abcdef0"]
EC2 = "arn:aws:ec2:us-west-2:123456789012:"
CHOSEN = {f"{EC2}subnet/{id_}" for id_ in SUBNETS} | {f"{EC2}security-group/{id_}" for id_ in GROUPS}
JOBS = "arn:aws:bedrock:us-west-2:123456789012:model-customization-job/*"
COPIES, COPIES_KEY = "arn:aws:s3:::copies-of-dev", "arn:aws:kms:eu-west-1:123456789012:key/"


@pytest.fixture(scope="module")
def storage(governed: dict[str, JsonObject]) -> JsonObject:
    return governed["storage"]


@pytest.fixture(scope="module")
def pipeline(governed: dict[str, JsonObject]) -> JsonObject:
    return governed["pipeline"]


@pytest.mark.parametrize("setting", sorted(UNSET))
def test_the_rule_of_a_setting_is_acknowledged_while_it_is_off_and_kept_when_it_is_on(
    setting: str,
    templates: dict[str, JsonObject],
    governed: dict[str, JsonObject],
    assembly: Path,
    governed_assembly: Path,
) -> None:
    assert templates
    assert governed
    off, on = (
        {finding.rule_name for finding in read_acknowledged((folder / "validation-report.json").read_bytes())}
        for folder in (assembly, governed_assembly)
    )
    assert UNSET[setting].rule in off
    assert UNSET[setting].rule not in on


def test_by_default_no_function_reserves_calls_or_has_a_network_and_nothing_is_copied(
    templates: dict[str, JsonObject],
) -> None:
    for function in resources(templates["pipeline"], "AWS::Lambda::Function").values():
        assert not {"VpcConfig", "ReservedConcurrentExecutions"} & set(as_object(function["Properties"], "function"))
    kinds = {str(found["Type"]) for found in resources(templates["storage"]).values()}
    assert not [kind for kind in kinds if kind.startswith("AWS::Backup::")]
    assert "ReplicationConfiguration" not in str(templates["storage"])


def test_every_function_keeps_its_calls_and_is_attached_to_the_network(pipeline: JsonObject) -> None:
    functions = resources(pipeline, "AWS::Lambda::Function")
    assert len(functions) > 20
    for name, function in functions.items():
        assert at(function, "Properties", "ReservedConcurrentExecutions") == 5, name
        assert at(function, "Properties", "VpcConfig") == {"SubnetIds": SUBNETS, "SecurityGroupIds": GROUPS}, name


def test_lambda_alone_makes_interfaces_of_functions_and_only_in_the_network(pipeline: JsonObject) -> None:
    own: JsonObject = {"Null": {"lambda:SourceFunctionArn": "true"}}
    expected = {
        ("ec2:CreateNetworkInterface",): {f"{EC2}network-interface/*", *CHOSEN},
        ("ec2:AssignPrivateIpAddresses", "ec2:DeleteNetworkInterface", "ec2:UnassignPrivateIpAddresses"): {f"{EC2}*/*"},
        ("ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"): {"*"},
    }
    by_function = statements_by_function(pipeline)
    assert set(by_function) == set(function_modules(pipeline).values())
    for module, statements in by_function.items():
        found = [statement for statement in statements if statement.actions[0].startswith("ec2:")]
        assert {statement.actions: set(statement.resources) for statement in found} == expected, module
        assert all(statement.conditions == own for statement in found), module


def test_a_function_is_made_once_its_role_may_attach_it(pipeline: JsonObject) -> None:
    (policy,) = [name for name in resources(pipeline, "AWS::IAM::ManagedPolicy") if name.startswith("NetworkPerm")]
    for name, function in resources(pipeline, "AWS::Lambda::Function").items():
        assert policy in listed(function["DependsOn"]), name


def test_customization_jobs_may_do_in_the_network_what_bedrocks_guide_lists(storage: JsonObject) -> None:
    made = _text_of({"aws:RequestTag/BedrockManaged": "true"}, {"aws:RequestTag/BedrockModelCustomizationJobArn": JOBS})
    own = _text_of(
        {"ec2:ResourceTag/BedrockManaged": "true"},
        {
            "ec2:Subnet": [f"{EC2}subnet/{id_}" for id_ in SUBNETS],
            "ec2:ResourceTag/BedrockModelCustomizationJobArn": JOBS,
        },
    )
    tagged: JsonObject = {
        "StringEquals": {"ec2:CreateAction": "CreateNetworkInterface"},
        "ForAllValues:StringEquals": {"aws:TagKeys": ["BedrockManaged", "BedrockModelCustomizationJobArn"]},
    }
    interfaces = {f"{EC2}network-interface/*"}
    described = {f"ec2:Describe{kind}" for kind in ("DhcpOptions", "NetworkInterfaces", "Vpcs", "Subnets")}
    ended = {"CreateNetworkInterfacePermission", "DeleteNetworkInterface", "DeleteNetworkInterfacePermission"}
    expected: list[tuple[set[str], set[str], JsonObject]] = [
        ({*described, "ec2:DescribeSecurityGroups"}, {"*"}, {}),
        ({"ec2:CreateNetworkInterface"}, interfaces, made),
        ({"ec2:CreateNetworkInterface"}, CHOSEN, {}),
        ({f"ec2:{action}" for action in ended}, interfaces, own),
        ({"ec2:CreateTags"}, interfaces, tagged),
    ]
    found = [
        (set(statement.actions), set(statement.resources), statement.conditions)
        for statement in statements_of_role(storage, "CustomizationRoleE12BC787")
        if statement.actions[0].startswith("ec2:")
    ]
    assert found == expected


def test_the_network_of_jobs_reaches_the_functions_in_their_environment(
    templates: dict[str, JsonObject], pipeline: JsonObject
) -> None:
    for name, function in resources(pipeline, "AWS::Lambda::Function").items():
        variables = as_object(at(function, "Properties", "Environment", "Variables"), name)
        texts = {key: value if isinstance(value, str) else key for key, value in variables.items()}
        settings = read_settings({**texts, "AWS_REGION": "us-west-2"})
        assert settings.vpc_config == {"subnetIds": SUBNETS, "securityGroupIds": GROUPS}, name
    for function in resources(templates["pipeline"], "AWS::Lambda::Function").values():
        assert "VPC_CONFIG" not in as_object(at(function, "Properties", "Environment", "Variables"), "variables")


def test_both_tables_are_copied_into_the_vault_every_day_and_the_copies_end(storage: JsonObject) -> None:
    (plan_id, plan), (_, selection) = (
        *resources(storage, "AWS::Backup::BackupPlan").items(),
        *resources(storage, "AWS::Backup::BackupSelection").items(),
    )
    (rule,) = listed(at(plan, "Properties", "BackupPlan", "BackupPlanRule"))
    assert (at(rule, "TargetBackupVault"), at(rule, "Lifecycle")) == ("Default", {"DeleteAfterDays": 35})
    assert at(selection, "Properties", "BackupPlanId") == {"Ref": plan_id}
    arns = [{"Fn::GetAtt": [name, "Arn"]} for name in resources(storage, "AWS::DynamoDB::Table")]
    assert listed(at(selection, "Properties", "BackupSelection", "Resources")) == arns
    role = as_text(at(selection, "Properties", "BackupSelection", "IamRoleArn", "Fn::GetAtt", 0), "role")
    tables = {f"<{name}.Arn>" for name in resources(storage, "AWS::DynamoDB::Table")}
    copied = {f"dynamodb:{it}" for it in ("CreateBackup", "DescribeTable", "ListTagsOfResource", "StartAwsBackupJob")}
    assert _allowed(storage, role) == [
        (copied, tables),
        ({"dynamodb:DeleteBackup", "dynamodb:DescribeBackup"}, {f"{table}/backup/*" for table in tables}),
        (
            {"backup:CopyIntoBackupVault", "backup:DescribeBackupVault"},
            {"arn:aws:backup:us-west-2:123456789012:backup-vault:Default"},
        ),
        ({"kms:Decrypt", "kms:GenerateDataKey"}, {"<Key961B73FD.Arn>"}),
    ]


def test_every_bucket_is_copied_with_the_key_of_the_other_region(storage: JsonObject) -> None:
    buckets = resources(storage, "AWS::S3::Bucket")
    roles = set()
    for bucket in buckets.values():
        assert at(bucket, "Properties", "VersioningConfiguration", "Status") == "Enabled"
        (rule,) = listed(at(bucket, "Properties", "ReplicationConfiguration", "Rules"))
        assert (at(rule, "Status"), at(rule, "Filter"), at(rule, "DeleteMarkerReplication", "Status")) == (
            "Enabled",
            {"Prefix": ""},
            "Disabled",
        )
        assert at(rule, "SourceSelectionCriteria", "SseKmsEncryptedObjects", "Status") == "Enabled"
        assert at(rule, "Destination", "Bucket") == COPIES
        assert str(at(rule, "Destination", "EncryptionConfiguration", "ReplicaKmsKeyID")).startswith(COPIES_KEY)
        roles.add(as_text(at(bucket, "Properties", "ReplicationConfiguration", "Role", "Fn::GetAtt", 0), "role"))
    (role,) = roles
    sources = {f"<{name}.Arn>" for name in buckets}
    read = {f"s3:GetObjectVersion{what}" for what in ("Acl", "ForReplication", "Tagging")}
    assert _allowed(storage, role) == [
        ({"s3:GetReplicationConfiguration", "s3:ListBucket"}, sources),
        (read, {f"{source}/*" for source in sources}),
        ({f"s3:Replicate{what}" for what in ("Object", "Tags")}, {f"{COPIES}/*"}),
        ({"kms:Decrypt"}, {"<Key961B73FD.Arn>"}),
        ({"kms:Encrypt", "kms:GenerateDataKey"}, {f"{COPIES_KEY}00000000-0000-0000-0000-000000000000"}),
    ]


def test_no_role_for_copies_uses_a_key_but_through_its_service(storage: JsonObject) -> None:
    services = {"BackupRole": {"dynamodb.us-west-2"}, "ReplicationRole": {"s3.us-west-2", "s3.eu-west-1"}}
    for prefix, expected in services.items():
        (role,) = [name for name in resources(storage, "AWS::IAM::Role") if name.startswith(prefix)]
        via = {
            str(at(statement.conditions, "StringEquals", "kms:ViaService")).removesuffix(".amazonaws.com")
            for statement in statements_of_role(storage, role)
            if statement.actions[0].startswith("kms:")
        }
        assert via == expected


@pytest.mark.exhaustive
@pytest.mark.parametrize("which", ["as cdk.json has it", "with everything switched on"])
def test_cfn_lint_finds_nothing_but_what_is_known(
    which: str,
    templates: dict[str, JsonObject],
    governed: dict[str, JsonObject],
    assembly: Path,
    governed_assembly: Path,
) -> None:
    folder, synthesized, region = {
        "as cdk.json has it": (assembly, templates, "us-east-1"),
        "with everything switched on": (governed_assembly, governed, "us-west-2"),
    }[which]
    paths = map(str, sorted(folder.glob("*.template.json")))
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--format", "json", "--regions", region, "--", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our templates
    found = sorted(_finding(item, synthesized["pipeline"]) for item in listed(json.loads(done.stdout)))
    kinds = {"AWS::Lambda::Function": "Role", "AWS::StepFunctions::StateMachine": "RoleArn"}
    # CDK writes down that whatever has a role waits for it, which GetAtt says too
    known = [
        ("W3005", name, as_text(at(resource, "Properties", role, "Fn::GetAtt", 0), name))
        for kind, role in kinds.items()
        for name, resource in resources(synthesized["pipeline"], kind).items()
    ]
    # The stack that people look at last tells where to drop data, which lies in another
    assert found == sorted([*known, ("W6001", "DropLocation", "")])


def _finding(found: Json, pipeline: JsonObject) -> tuple[str, str, str]:
    """Return the rule, the resource or output, and what it needlessly depends on."""
    rule = as_text(at(found, "Rule", "Id"), "Id")
    path = [step for step in listed(at(found, "Location", "Path")) if isinstance(step, str | int)]
    return rule, str(path[1]), str(at(pipeline, *path)) if rule == "W3005" else ""


def _allowed(template: JsonObject, role: str) -> list[tuple[set[str], set[str]]]:
    statements = statements_of_role(template, role)
    return [(set(statement.actions), set(statement.resources)) for statement in statements]


def _text_of(equal: JsonObject, arns: JsonObject) -> JsonObject:
    return {"StringEquals": equal, "ArnEquals": arns}
