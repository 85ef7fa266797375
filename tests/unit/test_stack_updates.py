"""A stack that is deployed again becomes what its new template says, or stays what it was and tells why."""

import copy
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from customization.json_types import Json, JsonObject, as_object
from rehearsal.clock import VirtualClock
from rehearsal.embedded.aws import EmbeddedAws
from tests.unit.assembly_harness import allow, arn, definition, function, invoke, pipeline, ref, role, write

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

START = datetime(2025, 1, 18, 9, tzinfo=UTC)
RETAINED: JsonObject = {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}


class Stack:
    """One stack, created and updated through CloudFormation's API."""

    def __init__(self, aws: EmbeddedAws, name: str) -> None:
        self.aws = aws
        self._name = name
        self._client = aws.session().client("cloudformation")

    def create(self, resources: JsonObject, **outputs: Json) -> None:
        self._client.create_stack(StackName=self._name, TemplateBody=_template(resources, outputs))

    def update(self, resources: JsonObject, **outputs: Json) -> str:
        """Update the stack through a change set, as the CDK CLI does, and return its status."""
        names = {"StackName": self._name, "ChangeSetName": "deploy"}
        self._client.create_change_set(**names, TemplateBody=_template(resources, outputs), ChangeSetType="UPDATE")
        described = self._client.describe_change_set(**names)
        if described["Status"] == "FAILED":
            return str(described["StatusReason"])
        self._client.execute_change_set(**names)
        self._client.delete_change_set(**names)
        return self.status

    @property
    def status(self) -> str:
        return str(self._client.describe_stacks(StackName=self._name)["Stacks"][0]["StackStatus"])

    def events(self) -> list[tuple[str, str]]:
        """Return what happened since the last creation or update began, oldest first, the stack itself left out."""
        found: list[tuple[str, str]] = []
        for event in self._client.describe_stack_events(StackName=self._name)["StackEvents"]:
            if event["LogicalResourceId"] != self._name:
                found.append((event["LogicalResourceId"], event["ResourceStatus"]))
            elif event.get("ResourceStatusReason") == "User Initiated":
                break
        return found[::-1]

    def reason(self) -> str:
        """Return why the last update was taken back."""
        events = self._client.describe_stack_events(StackName=self._name)["StackEvents"]
        failed = (event for event in events if event["ResourceStatus"] == "UPDATE_ROLLBACK_IN_PROGRESS")
        return str(next(failed)["ResourceStatusReason"])

    def physical(self, logical_id: str) -> str:
        found = self._client.describe_stack_resources(StackName=self._name)["StackResources"]
        return str(next(item["PhysicalResourceId"] for item in found if item["LogicalResourceId"] == logical_id))


def _template(resources: JsonObject, outputs: JsonObject) -> str:
    written = {name: {"Value": value, "Export": {"Name": f"Tried:{name}"}} for name, value in outputs.items()}
    return json.dumps({"Resources": resources, **({"Outputs": written} if written else {})})


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[EmbeddedAws]:
    with EmbeddedAws(VirtualClock(START), region="us-east-1", applications={}, log_dir=tmp_path) as aws:
        yield aws
        assert aws.problems == []


@pytest.fixture
def stack(aws: EmbeddedAws) -> Stack:
    return Stack(aws, "Tried")


def topic(**properties: Json) -> JsonObject:
    return {"Type": "AWS::SNS::Topic", "Properties": properties}


def topics(aws: EmbeddedAws) -> list[str]:
    return [item["TopicArn"] for item in aws.session().client("sns").list_topics()["Topics"]]


def test_what_is_new_is_made_what_is_gone_is_deleted_and_the_rest_is_left_alone(aws: EmbeddedAws, stack: Stack) -> None:
    stack.create({"Kept": topic(), "Gone": topic()})
    kept = stack.physical("Kept")
    assert stack.update({"Kept": topic(), "New": topic()}) == "UPDATE_COMPLETE"
    assert stack.events() == [("New", "CREATE_COMPLETE"), ("Gone", "DELETE_COMPLETE")]
    assert stack.physical("Kept") == kept
    assert sorted(topics(aws)) == sorted([kept, stack.physical("New")])


def test_what_is_retained_stays_when_it_is_taken_out_or_replaced(aws: EmbeddedAws, stack: Stack) -> None:
    stack.create({"Out": topic() | RETAINED, "Other": topic(TopicName="first") | RETAINED})
    before = topics(aws)
    assert stack.update({"Other": topic(TopicName="second") | RETAINED}) == "UPDATE_COMPLETE"
    assert [event for event in stack.events() if event[1] == "DELETE_SKIPPED"] == [
        ("Other", "DELETE_SKIPPED"),
        ("Out", "DELETE_SKIPPED"),
    ]
    assert set(before) < set(topics(aws))


def test_a_property_that_cannot_change_makes_a_new_resource_to_which_others_are_pointed(
    aws: EmbeddedAws, stack: Stack
) -> None:
    def resources(path: str) -> JsonObject:
        replaced = role("lambda", allow("s3:ListAllMyBuckets", "*"))
        as_object(replaced["Properties"], "role")["Path"] = path
        policy: JsonObject = {
            "PolicyName": "own",
            "PolicyDocument": {"Version": "2012-10-17", "Statement": [allow("sns:Publish", "*")]},
            "Roles": [ref("Role")],
        }
        managed: JsonObject = {"PolicyDocument": policy["PolicyDocument"], "Roles": [ref("Role")]}
        return {
            "Role": replaced,
            "Policy": {"Type": "AWS::IAM::Policy", "Properties": policy},
            "Managed": {"Type": "AWS::IAM::ManagedPolicy", "Properties": managed},
        }

    stack.create(resources("/"))
    first = stack.physical("Role")
    assert stack.update(resources("/teams/")) == "UPDATE_COMPLETE"
    second = stack.physical("Role")
    roles = {found["RoleName"]: found["Path"] for found in aws.session().client("iam").list_roles()["Roles"]}
    assert (first != second, roles) == (True, {second: "/teams/"})
    iam = aws.session().client("iam")
    assert iam.list_role_policies(RoleName=second)["PolicyNames"] == ["p", "own"]
    [attached] = iam.list_attached_role_policies(RoleName=second)["AttachedPolicies"]
    assert attached["PolicyArn"] == stack.physical("Managed")
    assert iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]["AttachmentCount"] == 1


def test_a_template_that_says_the_same_changes_nothing(stack: Stack) -> None:
    stack.create({"Kept": topic()})
    assert "didn't contain changes" in stack.update({"Kept": topic()})
    assert stack.status == "CREATE_COMPLETE"
    with pytest.raises(ClientError, match="No updates are to be performed"):
        stack._client.update_stack(StackName="Tried", TemplateBody=_template({"Kept": topic()}, {}))
    template = _template({"Kept": topic(), "New": topic()}, {})
    stack._client.update_stack(StackName="Tried", TemplateBody=template)
    assert stack.status == "UPDATE_COMPLETE"


def test_change_sets_of_one_name_belong_to_their_stacks_and_are_gone_once_deleted(aws: EmbeddedAws) -> None:
    client, names = aws.session().client("cloudformation"), {"ChangeSetName": "deploy"}
    for stack in ("One", "Two"):
        template = _template({stack: topic(TopicName=stack)}, {})
        client.create_change_set(StackName=stack, **names, TemplateBody=template, ChangeSetType="CREATE")
    client.execute_change_set(StackName="One", **names)
    assert client.describe_change_set(StackName="Two", **names)["ExecutionStatus"] == "AVAILABLE"
    assert [topic_arn.rpartition(":")[2] for topic_arn in topics(aws)] == ["One"]
    client.delete_change_set(StackName="Two", **names)
    client.delete_change_set(StackName="Two", **names)
    with pytest.raises(client.exceptions.ChangeSetNotFoundException):
        client.describe_change_set(StackName="Two", **names)
    assert client.describe_change_set(StackName="One", **names)["ExecutionStatus"] == "EXECUTE_COMPLETE"


def test_the_value_before_of_a_parameter_is_what_was_given_not_what_that_stood_for(aws: EmbeddedAws) -> None:
    client, ssm = aws.session().client("cloudformation"), aws.session().client("ssm")
    ssm.put_parameter(Name="/version", Value="30", Type="String")
    parameter: JsonObject = {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/version"}
    template: JsonObject = {"Parameters": {"Version": parameter}, "Resources": {"Topic": topic()}}
    client.create_stack(StackName="Tried", TemplateBody=json.dumps(template))
    template["Resources"] = {"Topic": topic(DisplayName=ref("Version"))}
    names = {"StackName": "Tried", "ChangeSetName": "deploy"}
    client.create_change_set(
        **names,
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": "Version", "UsePreviousValue": True}],
        ChangeSetType="UPDATE",
    )
    client.execute_change_set(**names)
    assert client.describe_stacks(StackName="Tried")["Stacks"][0]["StackStatus"] == "UPDATE_COMPLETE"
    assert _topic_name(aws) == "30"


def _topic_name(aws: EmbeddedAws) -> str:
    [found] = topics(aws)
    return str(aws.session().client("sns").get_topic_attributes(TopicArn=found)["Attributes"]["DisplayName"])


def test_an_update_that_fails_is_taken_back_and_says_why(aws: EmbeddedAws, stack: Stack) -> None:
    parameter: JsonObject = {
        "Type": "AWS::SSM::Parameter",
        "Properties": {"Name": "/tried", "Type": "String", "Value": "old"},
    }
    stack.create({"Parameter": parameter, "Topic": topic(TopicName="first"), "Gone": topic()}, Arn=ref("Topic"))
    before = sorted(topics(aws))
    changed = copy.deepcopy(parameter)
    as_object(changed["Properties"], "parameter")["Value"] = "new"
    bad: JsonObject = {"Type": "AWS::Lambda::Permission", "Properties": {"FunctionName": "nobody", "Principal": "a"}}
    template: JsonObject = {"Parameter": changed, "New": topic(), "Topic": topic(TopicName="second"), "Bad": bad}
    assert stack.update(template) == "UPDATE_ROLLBACK_COMPLETE"
    assert stack.reason() == "Bad: there is no function nobody"
    assert ("Bad", "CREATE_FAILED") in stack.events()
    found = aws.session().client("ssm").get_parameter(Name=stack.physical("Parameter"))["Parameter"]["Value"]
    assert (found, sorted(topics(aws))) == ("old", before)
    # and it can be updated again
    assert (
        stack.update({"Parameter": changed, "Topic": topic(TopicName="first")}, Arn=ref("Topic")) == "UPDATE_COMPLETE"
    )


def test_what_the_rehearsal_cannot_change_is_named_and_not_dropped(stack: Stack) -> None:
    bucket: JsonObject = {"Type": "AWS::S3::Bucket", "Properties": {}}
    stack.create({"Bucket": bucket})
    encryption: JsonObject = {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    changed: JsonObject = {"BucketEncryption": {"ServerSideEncryptionConfiguration": [encryption]}}
    assert stack.update({"Bucket": {**bucket, "Properties": changed}}) == "UPDATE_ROLLBACK_COMPLETE"
    assert stack.reason() == "Bucket: the rehearsal cannot change BucketEncryption of AWS::S3::Bucket"


def test_an_export_that_another_stack_imports_is_neither_changed_nor_taken_away(aws: EmbeddedAws, stack: Stack) -> None:
    stack.create({"Topic": topic(TopicName="first")}, TopicName={"Fn::GetAtt": ["Topic", "TopicName"]})
    user: JsonObject = {"Topic": topic(DisplayName={"Fn::ImportValue": "Tried:TopicName"})}
    Stack(aws, "User").create(user)
    assert stack.update({"Topic": topic(TopicName="first")}) == "UPDATE_ROLLBACK_COMPLETE"
    assert stack.reason() == "Export Tried:TopicName cannot be deleted as it is in use by User"
    renamed = stack.update({"Topic": topic(TopicName="second")}, TopicName={"Fn::GetAtt": ["Topic", "TopicName"]})
    assert renamed == "UPDATE_ROLLBACK_COMPLETE"
    assert stack.reason() == "Export Tried:TopicName cannot be updated as it is in use by User"
    assert [topic_arn.rpartition(":")[2] for topic_arn in topics(aws)][:1] == ["first"]


def test_a_managed_policy_that_somebody_has_keeps_its_stack_from_being_deleted(aws: EmbeddedAws, stack: Stack) -> None:
    policy: JsonObject = {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": document("s3:GetObject")}}
    stack.create({"Policy": policy})
    arn = stack.physical("Policy")
    assert aws.session_of_person(arn).client("sts").get_caller_identity()["Account"] == "123456789012"
    stack._client.delete_stack(StackName="Tried")
    assert stack.status == "DELETE_FAILED"
    iam = aws.session().client("iam")
    [person] = iam.list_entities_for_policy(PolicyArn=arn)["PolicyRoles"]
    iam.detach_role_policy(RoleName=person["RoleName"], PolicyArn=arn)
    stack._client.delete_stack(StackName="Tried")
    with pytest.raises(ClientError, match="does not exist"):
        assert stack.status
    with pytest.raises(ClientError, match="NoSuchEntity"):
        iam.get_policy(PolicyArn=arn)


def _role_policies(aws: EmbeddedAws, stack: Stack) -> object:
    iam, name = aws.session().client("iam"), stack.physical("Changed")
    [found] = aws._moto.role_policies(iam.get_role(RoleName=name)["Role"]["Arn"])
    tags = iam.list_role_tags(RoleName=name)["Tags"]
    return json.loads(found)["Statement"][0]["Action"], [tag["Value"] for tag in tags]


def _managed(aws: EmbeddedAws, stack: Stack) -> object:
    iam, name = aws.session().client("iam"), stack.physical("Changed")
    version = iam.get_policy(PolicyArn=name)["Policy"]["DefaultVersionId"]
    return iam.get_policy_version(PolicyArn=name, VersionId=version)["PolicyVersion"]["Document"]["Statement"][0][
        "Action"
    ]


def _key(aws: EmbeddedAws, stack: Stack) -> object:
    kms, name = aws.session().client("kms"), stack.physical("Changed")
    tags = kms.list_resource_tags(KeyId=name)["Tags"]
    return json.loads(kms.get_key_policy(KeyId=name, PolicyName="default")["Policy"])["Statement"], [
        tag["TagValue"] for tag in tags
    ]


def _bucket(aws: EmbeddedAws, stack: Stack) -> object:
    s3: S3Client = aws.session().client("s3")
    name = stack.physical("Changed")
    status = s3.get_bucket_versioning(Bucket=name).get("Status")
    tags = s3.get_bucket_tagging(Bucket=name)["TagSet"]
    return status, name in aws.deployed.event_buckets, [tag["Value"] for tag in tags]


def _log_group(aws: EmbeddedAws, _: Stack) -> object:
    [group] = aws.session().client("logs").describe_log_groups()["logGroups"]
    return group.get("retentionInDays")


def _queue(aws: EmbeddedAws, stack: Stack) -> object:
    sqs, url = aws.session().client("sqs"), stack.physical("Changed")
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    return found["VisibilityTimeout"], list(sqs.list_queue_tags(QueueUrl=url)["Tags"].values())


def _topic(aws: EmbeddedAws, stack: Stack) -> object:
    sns, name = aws.session().client("sns"), stack.physical("Changed")
    tags = sns.list_tags_for_resource(ResourceArn=name)["Tags"]
    return sns.get_topic_attributes(TopicArn=name)["Attributes"]["DisplayName"], [tag["Value"] for tag in tags]


def _table(aws: EmbeddedAws, stack: Stack) -> object:
    database = aws.session().client("dynamodb")
    table = database.describe_table(TableName=stack.physical("Changed"))["Table"]
    tags = database.list_tags_of_resource(ResourceArn=table["TableArn"])["Tags"]
    return table["DeletionProtectionEnabled"], [tag["Value"] for tag in tags]


def _rule(aws: EmbeddedAws, _: Stack) -> object:
    [rule] = aws.deployed.rules.values()
    return rule.enabled, rule.pattern


def tagged(value: str) -> list[Json]:
    return [{"Key": "team", "Value": value}]


def document(action: str) -> JsonObject:
    return {"Version": "2012-10-17", "Statement": [allow(action, "*")]}


TABLE: JsonObject = {
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
}
EVENTS: JsonObject = {"NotificationConfiguration": {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}}
Look = Callable[[EmbeddedAws, Stack], object]
CHANGES: list[tuple[str, Look, JsonObject, JsonObject, object, object]] = [
    (
        "AWS::IAM::Role",
        _role_policies,
        {**as_object(role("lambda", allow("s3:GetObject", "*"))["Properties"], "role"), "Tags": tagged("a")},
        {**as_object(role("lambda", allow("s3:PutObject", "*"))["Properties"], "role"), "Tags": tagged("b")},
        ("s3:GetObject", ["a"]),
        ("s3:PutObject", ["b"]),
    ),
    (
        "AWS::IAM::ManagedPolicy",
        _managed,
        {"PolicyDocument": document("s3:GetObject")},
        {"PolicyDocument": document("s3:PutObject")},
        "s3:GetObject",
        "s3:PutObject",
    ),
    (
        "AWS::KMS::Key",
        _key,
        {"KeyPolicy": {"Version": "2012-10-17", "Statement": []}, "Tags": tagged("a")},
        {"KeyPolicy": {"Version": "2012-10-17", "Statement": [allow("kms:*", "*")]}, "Tags": tagged("b")},
        ([], ["a"]),
        ([allow("kms:*", "*")], ["b"]),
    ),
    (
        "AWS::S3::Bucket",
        _bucket,
        {**EVENTS, "VersioningConfiguration": {"Status": "Suspended"}, "Tags": tagged("a")},
        {"VersioningConfiguration": {"Status": "Enabled"}, "Tags": tagged("b")},
        ("Suspended", True, ["a"]),
        ("Enabled", False, ["b"]),
    ),
    ("AWS::Logs::LogGroup", _log_group, {"RetentionInDays": 90}, {"RetentionInDays": 30}, 90, 30),
    (
        "AWS::SQS::Queue",
        _queue,
        {"VisibilityTimeout": 30, "Tags": tagged("a")},
        {"VisibilityTimeout": 60, "Tags": tagged("b")},
        ("30", ["a"]),
        ("60", ["b"]),
    ),
    (
        "AWS::SNS::Topic",
        _topic,
        {"DisplayName": "old", "Tags": tagged("a")},
        {"DisplayName": "new", "Tags": tagged("b")},
        ("old", ["a"]),
        ("new", ["b"]),
    ),
    (
        "AWS::DynamoDB::Table",
        _table,
        {**TABLE, "DeletionProtectionEnabled": True, "Tags": tagged("a")},
        {**TABLE, "DeletionProtectionEnabled": False, "Tags": tagged("b")},
        (True, ["a"]),
        (False, ["b"]),
    ),
    (
        "AWS::Events::Rule",
        _rule,
        {"EventPattern": {"source": ["a"]}, "State": "ENABLED"},
        {"EventPattern": {"source": ["b"]}, "State": "DISABLED"},
        (True, {"source": ["a"]}),
        (False, {"source": ["b"]}),
    ),
]


@pytest.mark.parametrize(("kind", "look", "old", "new", "seen", "changed"), CHANGES, ids=[row[0] for row in CHANGES])
def test_what_can_change_in_place_does_under_the_same_name_and_back(
    aws: EmbeddedAws,
    stack: Stack,
    kind: str,
    look: Look,
    old: JsonObject,
    new: JsonObject,
    seen: object,
    changed: object,
) -> None:
    stack.create({"Changed": {"Type": kind, "Properties": old}})
    name = stack.physical("Changed")
    assert look(aws, stack) == seen
    for properties, expected in ((new, changed), (old, seen)):
        assert stack.update({"Changed": {"Type": kind, "Properties": properties}}) == "UPDATE_COMPLETE", stack.reason()
        assert (look(aws, stack), stack.physical("Changed")) == (expected, name)


def _states(payload: str) -> JsonObject:
    return {"Ask": invoke("Echo", payload)}


def test_a_new_version_of_a_function_is_called_by_the_new_definition_and_the_old_one_stays(tmp_path: Path) -> None:
    resources = pipeline(_states("old"))
    with EmbeddedAws(VirtualClock(START), region="us-east-1", applications={}, log_dir=tmp_path / "logs") as aws:
        outputs = aws.deploy(write(tmp_path / "assembly", resources))["Pipeline"]
        stack, states = Stack(aws, "Pipeline"), aws.session().client("stepfunctions")

        def said() -> JsonObject:
            started = states.start_execution(stateMachineArn=outputs["MachineArn"], input="{}")["executionArn"]
            aws.wait_for_execution(started, 60)
            return as_object(json.loads(states.describe_execution(executionArn=started)["output"]), "output")

        assert (said()["event"], said()["stage"]) == ("old", "dev")
        changed = copy.deepcopy(resources)
        changed["Echo"] = function("echo", Environment={"Variables": {"STAGE": "prod"}})
        changed["EchoVersion2"] = {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": ref("Echo")}}
        retained = copy.deepcopy(changed)
        retained["EchoVersion"] = as_object(resources["EchoVersion"], "version") | RETAINED
        machine = as_object(changed["Machine"], "machine")
        text = definition(_states("new"))
        machine["Properties"] = {
            "DefinitionString": json.loads(json.dumps(text).replace('"EchoVersion"', '"EchoVersion2"')),
            "RoleArn": arn("MachineRole"),
        }
        outs: dict[str, Json] = {"MachineArn": ref("Machine")}
        assert stack.update({**retained, "Machine": resources["Machine"]}, **outs) == "UPDATE_COMPLETE", stack.reason()
        assert (said()["event"], said()["stage"]) == ("old", "dev")
        del retained["EchoVersion"]
        assert stack.update({**retained, "Machine": machine}, **outs) == "UPDATE_COMPLETE", stack.reason()
        assert (said()["event"], said()["stage"]) == ("new", "prod")
        assert ("EchoVersion", "DELETE_SKIPPED") in stack.events()
        versions = sorted(found.version for found in aws.deployed.functions.values() if "-Echo-" in found.name)
        assert versions == ["$LATEST", "1", "2"]
