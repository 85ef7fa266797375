"""What must never be lost or read by others: the buckets, tables and the key, and the role that Bedrock trains with."""

import pytest
from aws_cdk.assertions import Template

from customization import leftovers
from customization.json_types import Json, JsonObject
from tests.infra.synthesis import at, listed, resources

# Another id is another resource: CloudFormation would make an empty one and leave the old one behind
FROZEN = {
    "AccessLogBucketDA470295": "AWS::S3::Bucket",
    "ArtifactBucket7410C9EF": "AWS::S3::Bucket",
    "CustomizationRoleE12BC787": "AWS::IAM::Role",
    "DataBucketE3889A50": "AWS::S3::Bucket",
    "Key961B73FD": "AWS::KMS::Key",
    "LeasesTableBC467872": "AWS::DynamoDB::Table",
    "RunsTable9D121A51": "AWS::DynamoDB::Table",
}
# These exist only where a setting asks for copies, and hold nothing
ROLES_OF_COPIES = ("BackupRole", "ReplicationRole")
KEY = {"Fn::GetAtt": ["Key961B73FD", "Arn"]}
ACCOUNT: JsonObject = {"Ref": "AWS::AccountId"}


@pytest.fixture(scope="module")
def storage(templates: dict[str, JsonObject]) -> JsonObject:
    return templates["storage"]


@pytest.fixture(scope="module")
def template(storage: JsonObject) -> Template:
    return Template.from_json(storage)


def test_the_ids_of_what_holds_state_are_frozen_in_every_stage(
    storage: JsonObject, governed: dict[str, JsonObject]
) -> None:
    for version in (storage, governed["storage"]):
        assert {name: found["Type"] for name, found in resources(version).items() if name in FROZEN} == FROZEN
        kinds = set(FROZEN.values())
        holding = {name for name, found in resources(version).items() if found["Type"] in kinds}
        assert {name for name in holding if not name.startswith(ROLES_OF_COPIES)} == set(FROZEN)


def test_what_holds_data_is_retained_when_the_stack_goes(storage: JsonObject) -> None:
    holding = {name for name, kind in FROZEN.items() if kind != "AWS::IAM::Role"}
    assert len(holding) > len(FROZEN) / 2
    for name in holding:
        found = resources(storage)[name]
        assert (found["DeletionPolicy"], found["UpdateReplacePolicy"]) == ("Retain", "Retain"), name


@pytest.mark.parametrize(("bucket", "old_version_days"), [("DataBucketE3889A50", 365), ("ArtifactBucket7410C9EF", 30)])
def test_buckets_are_versioned_encrypted_with_the_key_private_and_logged(
    storage: JsonObject, bucket: str, old_version_days: int
) -> None:
    properties = at(resources(storage)[bucket], "Properties")
    encryption = at(properties, "BucketEncryption", "ServerSideEncryptionConfiguration", 0)
    assert at(encryption, "ServerSideEncryptionByDefault") == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    assert at(encryption, "BucketKeyEnabled") is True
    assert at(properties, "VersioningConfiguration", "Status") == "Enabled"
    assert set(_values(at(properties, "PublicAccessBlockConfiguration"))) == {True}
    assert at(properties, "LoggingConfiguration", "DestinationBucketName") == {"Ref": "AccessLogBucketDA470295"}
    rules = listed(at(properties, "LifecycleConfiguration", "Rules"))
    assert [at(rule, "Status") for rule in rules] == ["Enabled", "Enabled"]
    assert at(rules[0], "NoncurrentVersionExpiration", "NoncurrentDays") == old_version_days
    assert at(rules[1], "AbortIncompleteMultipartUpload", "DaysAfterInitiation") == 2


def test_only_the_data_bucket_sends_events_and_no_function_comes_along(storage: JsonObject) -> None:
    sending = {
        name
        for name, bucket in resources(storage, "AWS::S3::Bucket").items()
        if "NotificationConfiguration" in _keys(bucket["Properties"])
    }
    assert sending == {"DataBucketE3889A50"}
    enabled = at(resources(storage)["DataBucketE3889A50"], "Properties", "NotificationConfiguration")
    assert enabled == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    assert resources(storage, "AWS::Lambda::Function") == {}


def test_every_bucket_refuses_plain_http(storage: JsonObject) -> None:
    refusing = set()
    for policy in resources(storage, "AWS::S3::BucketPolicy").values():
        for statement in listed(at(policy, "Properties", "PolicyDocument", "Statement")):
            if at(statement, "Effect") == "Deny" and at(statement, "Principal") == {"AWS": "*"}:
                assert at(statement, "Condition") == {"Bool": {"aws:SecureTransport": "false"}}
                assert at(statement, "Action") == "s3:*"
                bucket = str(at(policy, "Properties", "Bucket", "Ref"))
                arn: Json = {"Fn::GetAtt": [bucket, "Arn"]}
                assert at(statement, "Resource") == [arn, {"Fn::Join": ["", [arn, "/*"]]}]
                refusing.add(bucket)
    assert refusing == set(resources(storage, "AWS::S3::Bucket"))


def test_only_log_delivery_of_these_two_buckets_may_write_access_logs(storage: JsonObject) -> None:
    policies = resources(storage, "AWS::S3::BucketPolicy").values()
    allowed = [
        statement
        for policy in policies
        for statement in listed(at(policy, "Properties", "PolicyDocument", "Statement"))
        if at(statement, "Effect") == "Allow"
    ]
    assert {str(at(statement, "Principal")) for statement in allowed} == {"{'Service': 'logging.s3.amazonaws.com'}"}
    assert [at(statement, "Condition", "StringEquals") for statement in allowed] == [{"aws:SourceAccount": ACCOUNT}] * 2
    sources = [at(statement, "Condition", "ArnLike", "aws:SourceArn", "Fn::GetAtt", 0) for statement in allowed]
    assert sources == ["DataBucketE3889A50", "ArtifactBucket7410C9EF"]


@pytest.mark.parametrize("key_name", ["runId", "resourceName"])
def test_tables_are_protected_recoverable_encrypted_and_on_demand(template: Template, key_name: str) -> None:
    template.has_resource_properties(
        "AWS::DynamoDB::Table",
        {
            "KeySchema": [{"AttributeName": key_name, "KeyType": "HASH"}],
            "BillingMode": "PAY_PER_REQUEST",
            "DeletionProtectionEnabled": True,
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
            "SSESpecification": {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": KEY},
        },
    )


def test_runs_are_found_by_data_set_in_the_order_of_their_start(template: Template) -> None:
    template.has_resource_properties(
        "AWS::DynamoDB::Table",
        {
            "GlobalSecondaryIndexes": [
                {
                    "IndexName": "byDataset",
                    "KeySchema": [
                        {"AttributeName": "dataset", "KeyType": "HASH"},
                        {"AttributeName": "startedAt", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "ALL"},
                }
            ]
        },
    )


def test_the_key_rotates_and_its_policy_gives_each_principal_no_more_than_this(storage: JsonObject) -> None:
    properties = at(resources(storage)["Key961B73FD"], "Properties")
    assert at(properties, "EnableKeyRotation") is True
    table = {
        _principal(statement): (listed(at(statement, "Action")), _keys(statement).get("Condition"))
        for statement in listed(at(properties, "KeyPolicy", "Statement"))
    }
    own_account: Json = {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    log_groups = {"Fn::Join": ["", ["arn:aws:logs:us-east-1:", ACCOUNT, ":log-group:*"]]}
    rules = {"Fn::Join": ["", ["arn:aws:events:us-east-1:", ACCOUNT, ":rule/*"]]}
    assert table == {
        "account root": (["kms:*"], None),
        "logs.us-east-1.amazonaws.com": (
            ["kms:Decrypt*", "kms:Describe*", "kms:Encrypt*", "kms:GenerateDataKey*", "kms:ReEncrypt*"],
            {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": log_groups}},
        ),
        "cloudwatch.amazonaws.com": (["kms:Decrypt", "kms:GenerateDataKey*"], own_account),
        "events.amazonaws.com": (["kms:Decrypt", "kms:GenerateDataKey*"], {"ArnLike": {"aws:SourceArn": rules}}),
        "CustomizationRoleE12BC787": (
            ["kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"],
            {"StringEquals": {"kms:ViaService": "bedrock.us-east-1.amazonaws.com"}},
        ),
    }


def test_only_customization_jobs_of_this_account_may_assume_the_customization_role(storage: JsonObject) -> None:
    jobs = {"Fn::Join": ["", ["arn:aws:bedrock:us-east-1:", ACCOUNT, ":model-customization-job/*"]]}
    role = resources(storage)["CustomizationRoleE12BC787"]
    assert at(role, "Properties", "AssumeRolePolicyDocument", "Statement") == [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"Service": "bedrock.amazonaws.com"},
            "Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}, "ArnEquals": {"aws:SourceArn": jobs}},
        }
    ]


def test_the_customization_role_reads_prepared_files_and_writes_its_own_folders_and_sees_nothing_else(
    storage: JsonObject,
) -> None:
    (policy,) = resources(storage, "AWS::IAM::ManagedPolicy").values()
    assert at(policy, "Properties", "Roles") == [{"Ref": "CustomizationRoleE12BC787"}]
    bucket = {"Fn::GetAtt": ["ArtifactBucket7410C9EF", "Arn"]}
    statements = listed(at(policy, "Properties", "PolicyDocument", "Statement"))
    allowed = {
        str(at(statement, "Resource")): sorted(map(str, listed(at(statement, "Action"))))
        for statement in statements[:3]
    }
    assert allowed == {
        str(bucket): ["s3:ListBucket"],
        str({"Fn::Join": ["", [bucket, "/runs/*/data/*"]]}): ["s3:GetObject"],
        str({"Fn::Join": ["", [bucket, "/runs/*/bedrock/*"]]}): ["s3:GetObject", "s3:PutObject"],
    }
    assert [at(statement, "Resource") for statement in statements[3:]] == [KEY, KEY]


def test_the_customization_role_uses_the_key_for_its_files_and_for_the_model_it_makes(storage: JsonObject) -> None:
    (policy,) = resources(storage, "AWS::IAM::ManagedPolicy").values()
    through = {
        str(at(statement, "Condition", "StringEquals", "kms:ViaService")): sorted(
            map(str, listed(at(statement, "Action")))
        )
        for statement in listed(at(policy, "Properties", "PolicyDocument", "Statement"))
        if at(statement, "Resource") == KEY
    }
    assert through == {
        "s3.us-east-1.amazonaws.com": ["kms:Decrypt", "kms:GenerateDataKey"],
        "bedrock.us-east-1.amazonaws.com": [
            "kms:CreateGrant",
            "kms:Decrypt",
            "kms:DescribeKey",
            "kms:GenerateDataKey",
        ],
    }


def test_the_deployment_id_is_the_first_block_of_the_stacks_uuid(storage: JsonObject) -> None:
    outputs = [at(output, "Value") for output in _keys(storage["Outputs"]).values() if "DeploymentId" in str(output)]
    uuid = {"Fn::Select": [2, {"Fn::Split": ["/", {"Ref": "AWS::StackId"}]}]}
    assert outputs == [{"Fn::Select": [0, {"Fn::Split": ["-", uuid]}]}]


def test_what_stays_bears_the_tag_by_which_it_is_found_when_the_stack_is_gone(storage: JsonObject) -> None:
    uuid: Json = {"Fn::Select": [2, {"Fn::Split": ["/", {"Ref": "AWS::StackId"}]}]}
    deployment: Json = {"Fn::Select": [0, {"Fn::Split": ["-", uuid]}]}
    tag: JsonObject = {"Key": leftovers.TAG, "Value": {"Fn::Join": ["", ["dev-", deployment]]}}
    for name in FROZEN:
        assert tag in listed(at(resources(storage)[name], "Properties", "Tags")), name


def _keys(value: Json) -> JsonObject:
    assert isinstance(value, dict)
    return value


def _values(value: Json) -> list[Json]:
    return list(_keys(value).values())


def _principal(statement: Json) -> str:
    principal = _keys(at(statement, "Principal"))
    if "Service" in principal:
        return str(principal["Service"])
    arn = _keys(principal["AWS"])
    if "Fn::GetAtt" in arn:
        return str(at(arn, "Fn::GetAtt", 0))
    assert arn == {"Fn::Join": ["", ["arn:aws:iam::", ACCOUNT, ":root"]]}
    return "account root"
