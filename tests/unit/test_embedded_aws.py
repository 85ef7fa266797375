"""The embedded AWS as a whole: every place where it goes through moto, or around it, has its test here."""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from customization.json_types import Json, JsonObject, as_object
from rehearsal.clock import VirtualClock
from rehearsal.embedded import moto_services, workers
from rehearsal.embedded.aws import EmbeddedAws
from rehearsal.embedded.faults import FunctionFault, Hang, Kill, TaskCall, Throttle, Twice
from rehearsal.embedded.template_check import UnsupportedTemplateError
from tests.unit.assembly_harness import allow, arn, definition, function, imported, invoke, pipeline, role, write

START = datetime(2025, 1, 18, 9, tzinfo=UTC)
ECHO: JsonObject = {"Ask": invoke("Echo", "{% $states.input %}")}


class Bedrock:
    """Answers every call with what it was asked, and lets callers need what a test says."""

    def __init__(self) -> None:
        self.needs: list[tuple[str, str]] = []
        self.tagged: dict[str, str] = {}
        self.asked: dict[str, str] = {}

    def handle(self, method: str, path: str, *_: object) -> tuple[int, Mapping[str, str], bytes]:
        summary: JsonObject = {"modelDetails": {"modelArn": f"arn:{method}", "modelId": path}}
        return 200, {"Content-Type": "application/json"}, json.dumps(summary).encode()

    def authorization(self, *_: object) -> list[tuple[str, str]]:
        return self.needs

    def tags(self, _: str) -> Mapping[str, str]:
        return self.tagged

    def request_tags(self, *_: object) -> Mapping[str, str]:
        return self.asked


class Broken:
    """Raises the faults that a test has put before or after the calls of a function."""

    def __init__(self) -> None:
        self.before: list[FunctionFault] = []
        self.after: list[FunctionFault] = []
        self.functions: list[str] = []

    def before_call(self, call: TaskCall) -> None:
        self.functions.append(call.function)
        if self.before:
            raise self.before.pop(0)

    def after_call(self, _: TaskCall) -> None:
        if self.after:
            raise self.after.pop(0)


class Deployed:
    """A deployed assembly and what a test does with it."""

    def __init__(self, aws: EmbeddedAws, outputs: dict[str, dict[str, str]], bedrock: Bedrock, faults: Broken) -> None:
        self.aws = aws
        self.storage = outputs["Storage"]
        self.pipeline = outputs["Pipeline"]
        self.bedrock = bedrock
        self.faults = faults

    def run(self, value: Json = "") -> JsonObject:
        """Start the machine, wait, and return what DescribeExecution tells of it."""
        states = self.aws.session().client("stepfunctions")
        started = states.start_execution(stateMachineArn=self.pipeline["MachineArn"], input=json.dumps(value))
        self.aws.wait_for_execution(started["executionArn"], 60)
        described = states.describe_execution(executionArn=started["executionArn"])
        found: JsonObject = {key: str(described.get(key)) for key in ("status", "error", "cause", "output")}
        return found

    def call(self, service: str, operation: str, **parameters: Json) -> JsonObject:
        """Let the function Call make an AWS call with its role, and return the execution."""
        return self.run({"service": service, "operation": operation, "parameters": parameters})


Deploy = Callable[[JsonObject], Deployed]


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    bedrock, faults = Bedrock(), Broken()
    aws = EmbeddedAws(
        VirtualClock(START),
        region="us-east-1",
        applications={"bedrock": bedrock},
        log_dir=tmp_path / "logs",
        faults=faults,
    )

    def deploy(resources: JsonObject) -> Deployed:
        return Deployed(aws, aws.deploy(write(tmp_path / "assembly", resources)), bedrock, faults)

    with aws:
        yield deploy


def test_a_machine_runs_the_deployed_version_of_a_function_with_the_templates_environment(deploy: Deploy) -> None:
    found = deploy(pipeline(ECHO)).run({"text": 'he said "no"\n'})

    assert found["status"] == "SUCCEEDED"
    output = json.loads(str(found["output"]))
    assert output["event"] == {"text": 'he said "no"\n'}
    assert output["stage"] == "dev"


def test_a_function_sees_its_own_variables_folder_and_session_only(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOBODYS", "business")
    deployed = deploy(pipeline({"Ask": invoke("Variables", {})}))
    output = json.loads(str(deployed.run()["output"]))
    environment = output["environment"]

    assert "NOBODYS" not in environment
    assert environment["STAGE"] == "dev"
    assert environment["AWS_ENDPOINT_URL"] == deployed.aws.endpoint_url
    assert environment["AWS_REGION"] == "us-east-1"
    assert environment["AWS_SESSION_TOKEN"]
    assert environment["LAMBDA_TASK_ROOT"] == output["folder"]
    assert (Path(output["folder"]) / "handlers.py").is_file()
    assert json.loads(str(deployed.run()["output"]))["process"] == output["process"]


def test_an_error_of_a_function_has_lambdas_shape(deploy: Deploy) -> None:
    found = deploy(pipeline({"Ask": invoke("Fail", {})})).run()
    cause = json.loads(str(found["cause"]))

    assert found["error"] == "ValueError"
    assert cause["errorMessage"] == 'no "good"'
    assert cause["stackTrace"][0].startswith('  File "')
    assert cause["requestId"]


def test_a_function_whose_process_dies_ends_with_an_exit_error_and_gets_a_new_one(deploy: Deploy) -> None:
    deployed = deploy(pipeline({"Ask": invoke("Die", {})}))
    for _ in range(2):
        assert deployed.run()["error"] == "Runtime.ExitError"


def test_a_function_whose_module_is_not_there_says_so(deploy: Deploy) -> None:
    resources = pipeline(ECHO)
    resources["Echo"] = function("x.echo")
    found = deploy(resources).run()
    assert found["error"] == "Runtime.ImportModuleError"
    assert "Unable to import module 'handlers.x'" in str(found["cause"])


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        ("slow", "Sandbox.Timedout"),
        ("huge", "Function.ResponseSizeTooLarge"),
        ("strange", "Runtime.MarshalError"),
        ("missing", "Runtime.HandlerNotFound"),
    ],
)
def test_an_answer_that_lambda_would_not_give_is_the_error_that_it_gives(
    deploy: Deploy, handler: str, error: str
) -> None:
    resources = pipeline(ECHO)
    resources["Echo"] = function(handler, Timeout=1)
    assert deploy(resources).run()["error"] == error


@pytest.mark.parametrize(
    ("fault", "error", "seconds"),
    [
        (Throttle(), "Lambda.TooManyRequestsException", 0),
        (Hang(), "Sandbox.Timedout", 60),
        (Kill(), "Runtime.ExitError", 0),
        (FunctionFault("ServiceUnavailable", "injected"), "ServiceUnavailable", 0),
    ],
)
def test_a_fault_before_a_call_ends_it_as_lambda_would(
    deploy: Deploy, fault: FunctionFault, error: str, seconds: int
) -> None:
    deployed = deploy(pipeline(ECHO))
    deployed.faults.before.append(fault)

    assert deployed.run()["error"] == error
    assert deployed.aws.clock.now() == START + timedelta(seconds=seconds)
    assert deployed.faults.functions == ["handlers"]


def test_a_fault_after_a_call_loses_the_answer_of_work_that_was_done(deploy: Deploy) -> None:
    writes = pipeline(
        {"Ask": invoke("Call", "{% $states.input %}")},
        allow("dynamodb:PutItem", imported("TableArn")),
    )
    deployed = deploy(writes)
    deployed.faults.after.append(Kill())
    item: JsonObject = {"id": {"S": "done"}}
    found = deployed.call("dynamodb", "put_item", TableName=deployed.storage["TableName"], Item=item)

    assert found["error"] == "Runtime.ExitError"
    table = deployed.aws.session().client("dynamodb")
    assert table.get_item(TableName=deployed.storage["TableName"], Key={"id": {"S": "done"}})["Item"] == item


WRITES = allow(["dynamodb:PutItem", "dynamodb:GetItem"], imported("TableArn"))


@pytest.mark.parametrize(("operation", "rest"), [("put_item", "Item"), ("get_item", "Key")])
def test_a_function_that_is_killed_midway_has_done_its_first_change_and_dies_even_where_it_makes_none(
    deploy: Deploy, operation: str, rest: str
) -> None:
    deployed = deploy(pipeline(CALL, WRITES))
    kill = Kill(changes=1)
    deployed.faults.before.append(kill)
    asked: JsonObject = {"TableName": deployed.storage["TableName"], rest: {"id": {"S": "done"}}}
    assert deployed.call("dynamodb", operation, **asked)["error"] == "Runtime.ExitError"
    assert kill.deaths == 1
    table = deployed.aws.session().client("dynamodb")
    found = table.get_item(TableName=deployed.storage["TableName"], Key={"id": {"S": "done"}})
    assert ("Item" in found) == (operation == "put_item")
    assert deployed.call("dynamodb", operation, **asked)["status"] == "SUCCEEDED"


@pytest.mark.parametrize(("operation", "rest"), [("put_item", "Item"), ("get_item", "Key")])
def test_a_function_that_is_called_twice_at_once_has_both_calls_under_way_before_either_changes_anything(
    deploy: Deploy, operation: str, rest: str
) -> None:
    deployed = deploy(pipeline(CALL, WRITES))
    asked: JsonObject = {"TableName": deployed.storage["TableName"], rest: {"id": {"S": "done"}}}
    for number in range(2):  # with workers that have to be started, and with warm ones
        twice = Twice()
        deployed.faults.before.append(twice)
        assert deployed.call("dynamodb", operation, **asked)["status"] == "SUCCEEDED"
        assert twice.meetings == 1
        actions = [call.action for call in deployed.aws.calls if call.action.startswith("dynamodb:")]
        assert len(actions) == 2 * (number + 1)
    assert deployed.call("dynamodb", operation, **asked)["status"] == "SUCCEEDED"


def test_logs_of_functions_are_told_and_kept_in_files(deploy: Deploy, tmp_path: Path) -> None:
    deployed = deploy(pipeline({"Ask": invoke("Fail", {})}))
    told: list[Json] = []
    deployed.aws.watch(lambda happening: told.append(happening.detail) if happening.kind == "log" else None)
    deployed.run()

    assert 'no "good"' in str(told)
    assert 'no "good"' in (tmp_path / "logs" / "handlers.log").read_text()


CALL: JsonObject = {"Ask": invoke("Call", "{% $states.input %}")}
OBJECTS: Json = {"Fn::Join": ["", [imported("BucketArn"), "/runs/*"]]}
VIA_S3: JsonObject = {"Condition": {"StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com"}}}


def test_a_role_may_do_what_its_policy_allows_and_every_call_is_recorded(deploy: Deploy) -> None:
    key = allow(["kms:Decrypt", "kms:GenerateDataKey"], imported("KeyArn"), **VIA_S3)
    deployed = deploy(pipeline(CALL, allow(["s3:PutObject", "s3:GetObject"], OBJECTS), key))
    bucket = deployed.storage["BucketName"]

    assert deployed.call("s3", "put_object", Bucket=bucket, Key="runs/a", Body="text")["status"] == "SUCCEEDED"
    found = deployed.call("s3", "get_object", Bucket=bucket, Key="runs/a")
    assert json.loads(str(found["output"]))["body"] == "text"
    assert [
        (call.action, call.allowed) for call in deployed.aws.calls if call.action.split(":")[0] in ("s3", "kms")
    ] == [
        ("s3:PutObject", True),
        ("kms:GenerateDataKey", True),
        ("s3:GetObject", True),
        ("kms:Decrypt", True),
    ]


@pytest.mark.parametrize(
    ("statements", "missing"),
    [
        ([allow("s3:GetObject", OBJECTS)], "s3:PutObject"),
        ([allow("s3:PutObject", {"Fn::Join": ["", [imported("BucketArn"), "/other/*"]]})], "s3:PutObject"),
        ([allow("s3:PutObject", OBJECTS)], "kms:GenerateDataKey"),
        (
            [
                allow("s3:PutObject", OBJECTS),
                allow(
                    "kms:GenerateDataKey",
                    imported("KeyArn"),
                    Condition={"StringEquals": {"kms:ViaService": "bedrock.us-east-1.amazonaws.com"}},
                ),
            ],
            "kms:GenerateDataKey",
        ),
        (
            [
                allow("s3:*", "*"),
                allow("kms:*", "*"),
                {"Effect": "Deny", "Action": "s3:PutObject", "Resource": OBJECTS},
            ],
            "s3:PutObject",
        ),
    ],
)
def test_a_missing_permission_is_denied_naming_action_and_resource(
    deploy: Deploy, statements: list[Json], missing: str
) -> None:
    deployed = deploy(pipeline(CALL, *statements))
    found = deployed.call("s3", "put_object", Bucket=deployed.storage["BucketName"], Key="runs/a", Body="text")

    assert found["error"] == "AccessDenied"
    assert f"is not authorized to perform: {missing} on resource: arn:aws:" in str(found["cause"])
    assert [call.action for call in deployed.aws.calls if not call.allowed] == [missing]


def test_a_missing_object_is_told_only_to_those_who_may_list(deploy: Deploy) -> None:
    read = allow("s3:GetObject", {"Fn::Join": ["", [imported("QuietArn"), "/*"]]})
    listing = allow("s3:ListBucket", imported("QuietArn"), Condition={"StringLike": {"s3:prefix": ["runs/*"]}})
    deployed = deploy(pipeline(CALL, read, listing))
    quiet = deployed.storage["QuietName"]

    found = deployed.call("s3", "list_objects_v2", Bucket=quiet, Prefix="runs/")
    assert found["status"] == "SUCCEEDED"
    found = deployed.call("s3", "list_objects_v2", Bucket=quiet, Prefix="other/")
    assert "s3:ListBucket" in str(found["cause"])
    # Reading has no prefix, so the condition does not hold and S3 does not tell that the object is missing.
    found = deployed.call("s3", "get_object", Bucket=quiet, Key="nothing")
    assert "AccessDenied" in str(found["cause"])


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "action", "allowed"),
    [
        (
            "dynamodb",
            "get_item",
            {"TableName": "{TableName}", "Key": {"id": {"S": "1"}}},
            "dynamodb:GetItem",
            "{TableArn}",
        ),
        ("dynamodb", "scan", {"TableName": "{TableName}"}, "dynamodb:Scan", "{TableArn}"),
        (
            "ssm",
            "put_parameter",
            {"Name": "/dev/a", "Value": "1", "Type": "String"},
            "ssm:PutParameter",
            "arn:aws:ssm:us-east-1:123456789012:parameter/dev/*",
        ),
        ("s3", "list_objects_v2", {"Bucket": "{QuietName}"}, "s3:ListBucket", "{QuietArn}"),
    ],
)
def test_each_service_is_authorized_by_its_own_action_and_resource(
    deploy: Deploy,
    *,
    service: str,
    operation: str,
    parameters: JsonObject,
    action: str,
    allowed: str,
) -> None:
    resource = imported(allowed.strip("{}")) if allowed.startswith("{") else allowed
    deployed = deploy(pipeline(CALL, allow(action, resource)))
    values: JsonObject = {
        name: value.format(**deployed.storage) if isinstance(value, str) else value
        for name, value in parameters.items()
    }

    assert deployed.call(service, operation, **values)["status"] == "SUCCEEDED"
    [call] = [call for call in deployed.aws.calls if call.action == action]
    assert call.allowed


def test_bedrock_is_asked_what_a_call_needs_and_tags_count_as_conditions(deploy: Deploy) -> None:
    own: JsonObject = {"Condition": {"StringEquals": {"aws:ResourceTag/deployment": "abcd"}}}
    model = "arn:aws:bedrock:us-east-1:123456789012:custom-model/x"
    deployed = deploy(pipeline(CALL, allow("bedrock:DeleteCustomModel", "*", **own)))
    deployed.bedrock.needs = [("bedrock:DeleteCustomModel", model)]
    ask: JsonObject = {"modelIdentifier": "amazon.nova-micro-v1:0"}

    deployed.bedrock.tagged = {"deployment": "other"}
    found = deployed.call("bedrock", "get_foundation_model", **ask)
    assert "not authorized to perform: bedrock:DeleteCustomModel" in str(found["cause"])
    deployed.bedrock.tagged = {"deployment": "abcd"}
    found = deployed.call("bedrock", "get_foundation_model", **ask)
    assert "/foundation-models/amazon.nova-micro-v1" in str(found["output"])


def test_tags_that_a_call_asks_for_count_as_conditions(deploy: Deploy) -> None:
    own: JsonObject = {"Condition": {"StringEquals": {"aws:RequestTag/deployment": "abcd"}}}
    deployed = deploy(pipeline(CALL, allow("bedrock:TagResource", "*", **own)))
    deployed.bedrock.needs = [("bedrock:TagResource", "arn:aws:bedrock:us-east-1:123456789012:custom-model/x")]
    for asked, status in ({}, "FAILED"), ({"deployment": "other"}, "FAILED"), ({"deployment": "abcd"}, "SUCCEEDED"):
        deployed.bedrock.asked = asked
        found = deployed.call("bedrock", "get_foundation_model", modelIdentifier="amazon.nova-micro-v1:0")
        assert found["status"] == status


def test_a_service_that_nobody_stands_in_for_is_refused_and_reported(deploy: Deploy) -> None:
    deployed = deploy(pipeline(CALL))
    found = deployed.call("ec2", "describe_vpcs")
    assert found["status"] == "FAILED"
    assert "ec2" in deployed.aws.problems[0]


def test_a_machine_without_permission_for_a_function_fails_at_that_task(deploy: Deploy) -> None:
    resources = pipeline(ECHO)
    resources["MachineRole"] = role("states", allow("lambda:InvokeFunction", arn("Fail")))
    found = deploy(resources).run()
    assert found["error"] == "Lambda.AWSLambdaException"
    assert "is not authorized to perform: lambda:InvokeFunction" in str(found["cause"])


def test_a_role_that_the_service_may_not_assume_is_refused(deploy: Deploy) -> None:
    resources = pipeline(ECHO)
    resources["MachineRole"] = role("lambda", allow("lambda:*", "*"))
    assert "states.amazonaws.com is not authorized to perform: sts:AssumeRole" in str(deploy(resources).run()["cause"])


def test_a_message_is_published_with_the_machines_role_and_recorded(deploy: Deploy) -> None:
    publish: JsonObject = {
        "Tell": {
            "Type": "Task",
            "Resource": "arn:aws:states:::sns:publish",
            "Arguments": {"TopicArn": "<Topic>", "Subject": "Done", "Message": "{% 'a' & $states.input.text %}"},
            "End": True,
        }
    }
    deployed = deploy(pipeline(publish))
    assert deployed.run({"text": "b"})["status"] == "SUCCEEDED"
    [told] = deployed.aws.notifications
    assert (told.subject, told.message, told.at) == ("Done", "ab", START)


def test_publishing_without_permission_fails_at_that_state(deploy: Deploy) -> None:
    publish: JsonObject = {
        "Tell": {
            "Type": "Task",
            "Resource": "arn:aws:states:::sns:publish",
            "Arguments": {"TopicArn": "<Topic>", "Message": "a"},
            "End": True,
        }
    }
    resources = pipeline(publish)
    resources["MachineRole"] = role("states", allow("sns:Publish", "arn:aws:sns:us-east-1:123456789012:other"))
    found = deploy(resources).run()
    assert found["error"] == "SNS.AuthorizationErrorException"
    assert "not authorized to perform: sns:Publish" in str(found["cause"])


def test_the_bucket_has_the_properties_that_moto_drops(deploy: Deploy) -> None:
    deployed = deploy(pipeline(ECHO))
    s3 = deployed.aws.session().client("s3")
    bucket = deployed.storage["BucketName"]

    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert block["BlockPublicAcls"]
    assert block["RestrictPublicBuckets"]


def test_objects_and_uploads_bear_virtual_times(deploy: Deploy) -> None:
    deployed = deploy(pipeline(ECHO))
    deployed.aws.clock.advance(3600)
    s3 = deployed.aws.session().client("s3")
    bucket = deployed.storage["QuietName"]
    s3.put_object(Bucket=bucket, Key="a", Body=b"1")
    s3.create_multipart_upload(Bucket=bucket, Key="b")

    assert s3.head_object(Bucket=bucket, Key="a")["LastModified"] == START + timedelta(hours=1)
    [upload] = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert upload["Initiated"] == START + timedelta(hours=1)


def test_a_conditional_write_lets_one_of_two_in(deploy: Deploy) -> None:
    deployed = deploy(pipeline(ECHO))
    table = deployed.aws.session().client("dynamodb")
    parameters: dict[str, Json] = {"TableName": deployed.storage["TableName"]}
    table.put_item(
        TableName=str(parameters["TableName"]), Item={"id": {"S": "1"}}, ConditionExpression="attribute_not_exists(id)"
    )
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        table.put_item(
            TableName=str(parameters["TableName"]),
            Item={"id": {"S": "1"}},
            ConditionExpression="attribute_not_exists(id)",
        )


def test_an_attribute_of_a_type_without_effect_can_be_exported(deploy: Deploy) -> None:
    assert deploy(pipeline(ECHO)).storage["AlarmArn"].startswith("arn:aws:cloudwatch:us-east-1:123456789012:alarm:")


@pytest.mark.parametrize(
    ("name", "resource", "problem"),
    [
        ("Queue", {"Type": "AWS::Kinesis::Stream", "Properties": {}}, "Queue: resource type AWS::Kinesis::Stream"),
        (
            "Topic",
            {"Type": "AWS::SNS::Topic", "Properties": {"FifoTopic": True}},
            "Topic: property AWS::SNS::Topic FifoTopic",
        ),
        (
            "FunctionRole",
            role("lambda", allow("s3:*", "*", Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})),
            "FunctionRole: condition operator IpAddress",
        ),
        ("Topic", {"Type": "AWS::SNS::Topic", "UpdatePolicy": {}}, "Topic: attribute UpdatePolicy"),
    ],
)
def test_a_template_with_what_would_be_dropped_silently_is_refused_before_anything_is_made(
    deploy: Deploy, name: str, resource: JsonObject, problem: str
) -> None:
    with pytest.raises(UnsupportedTemplateError, match=problem):
        deploy({**pipeline(ECHO), name: resource})


def test_what_a_rule_cannot_do_here_is_refused(deploy: Deploy) -> None:
    cron: JsonObject = {"ScheduleExpression": "cron(0 1 * * ? *)", "Targets": []}
    with pytest.raises(UnsupportedTemplateError, match=r"only rate\(...\) is built"):
        deploy({**pipeline(ECHO), "Rule": {"Type": "AWS::Events::Rule", "Properties": cron}})


def test_a_definition_that_cannot_run_is_refused(deploy: Deploy) -> None:
    resources = pipeline(ECHO)
    machine = as_object(resources["Machine"], "Machine")
    bad = definition({"A": {"Type": "Parallel", "Branches": [], "End": True}})
    machine["Properties"] = {**as_object(machine["Properties"], "Machine"), "DefinitionString": bad}
    with pytest.raises(ValueError, match="state type Parallel"):
        deploy(resources)


def test_the_api_of_step_functions_answers_as_the_service(deploy: Deploy) -> None:
    deployed = deploy(pipeline(ECHO))
    states = deployed.aws.session().client("stepfunctions")
    machine = deployed.pipeline["MachineArn"]
    first = states.start_execution(stateMachineArn=machine, name="first", input='{"a": 1}')
    deployed.aws.wait_for_execution(first["executionArn"])

    with pytest.raises(ClientError, match="ExecutionAlreadyExists"):
        states.start_execution(stateMachineArn=machine, name="first", input='{"a": 2}')
    with pytest.raises(ClientError, match="InvalidExecutionInput"):
        states.start_execution(stateMachineArn=machine, input="{")
    with pytest.raises(ClientError, match="InvalidName"):
        states.start_execution(stateMachineArn=machine, name="a b")
    with pytest.raises(ClientError, match="ExecutionDoesNotExist"):
        states.describe_execution(executionArn=f"{first['executionArn']}x")
    [listed] = states.list_executions(stateMachineArn=machine, statusFilter="SUCCEEDED")["executions"]
    assert (listed["name"], listed["startDate"]) == ("first", START)
    history = states.get_execution_history(executionArn=first["executionArn"], reverseOrder=True)["events"]
    assert (history[0]["type"], history[-1]["type"]) == ("ExecutionSucceeded", "ExecutionStarted")
    assert states.describe_state_machine(stateMachineArn=machine)["type"] == "STANDARD"


def test_an_execution_without_a_name_gets_one(deploy: Deploy) -> None:
    deployed = deploy(pipeline(ECHO))
    deployed.run()
    assert len(deployed.aws.executions()[0].name) == 36


def test_a_function_can_be_invoked_over_the_api(deploy: Deploy) -> None:
    deployed = deploy(pipeline(ECHO))
    name = next(function.name for function in deployed.aws.deployed.functions.values())
    client = deployed.aws.session().client("lambda")
    answer = client.invoke(FunctionName=name, Payload=b'{"a": 1}')
    assert json.loads(answer["Payload"].read())["event"] == {"a": 1}
    with pytest.raises(ClientError, match="Function not found"):
        client.invoke(FunctionName="nobody")


def test_the_same_process_can_start_one_after_another(deploy: Deploy, tmp_path: Path) -> None:
    deploy(pipeline(ECHO)).aws.stop()
    again = EmbeddedAws(VirtualClock(START), region="eu-west-1", applications={}, log_dir=tmp_path)
    with again:
        assert again.session().client("s3").list_buckets()["Buckets"] == []


def test_a_change_set_creates_a_stack_with_outputs_and_exports_as_the_cdk_cli_needs(deploy: Deploy) -> None:
    deployed = deploy(pipeline(ECHO))
    stacks = deployed.aws.session().client("cloudformation")
    template: JsonObject = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": imported("TableName")}}},
        "Outputs": {"TopicArn": {"Value": {"Ref": "Topic"}, "Export": {"Name": "Other:TopicArn"}}},
    }
    made = {"StackName": "Other", "ChangeSetName": "first"}
    stacks.create_change_set(**made, TemplateBody=json.dumps(template), ChangeSetType="CREATE")
    stacks.execute_change_set(**made)

    [stack] = stacks.describe_stacks(StackName="Other")["Stacks"]
    [output] = stack["Outputs"]
    assert output["OutputValue"].startswith("arn:aws:sns:us-east-1:123456789012:Other-Topic")
    assert "Other:TopicArn" in {export["Name"] for export in stacks.list_exports()["Exports"]}


def test_a_protected_stack_is_not_deleted_and_a_deleted_one_acts_no_more(deploy: Deploy) -> None:
    deployed = deploy(pipeline(ECHO))
    stacks = deployed.aws.session().client("cloudformation")
    stacks.update_termination_protection(StackName="Pipeline", EnableTerminationProtection=True)
    with pytest.raises(ClientError, match="TerminationProtection is enabled"):
        stacks.delete_stack(StackName="Pipeline")
    assert deployed.aws.deployed.machines

    stacks.update_termination_protection(StackName="Pipeline", EnableTerminationProtection=False)
    stack_id = stacks.describe_stacks(StackName="Pipeline")["Stacks"][0]["StackId"]
    stacks.delete_stack(StackName="Pipeline")
    stacks.describe_stacks(StackName=stack_id)
    assert not deployed.aws.deployed.machines
    assert not deployed.aws.deployed.functions


def test_code_that_the_cdk_cli_has_uploaded_is_unpacked(deploy: Deploy) -> None:
    deployed = deploy(pipeline(ECHO))
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("handlers.py", "def echo(event, context): return 'uploaded'")
    s3 = deployed.aws.session().client("s3")
    s3.put_object(Bucket=deployed.storage["QuietName"], Key="uploaded.zip", Body=archive.getvalue())
    code: JsonObject = {"S3Bucket": deployed.storage["QuietName"], "S3Key": "uploaded.zip"}
    template: JsonObject = {"Resources": {"FunctionRole": role("lambda"), "New": function("echo", Code=code)}}
    deployed.aws.session().client("cloudformation").create_stack(StackName="New", TemplateBody=json.dumps(template))

    name = next(found.name for found in deployed.aws.deployed.functions.values() if found.name.startswith("New-"))
    answer = deployed.aws.session().client("lambda").invoke(FunctionName=name, Payload=b"{}")
    assert json.loads(answer["Payload"].read()) == "uploaded"


def test_a_private_name_that_moto_has_moved_is_named_at_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(moto_services._SEAMS, "moto.s3.models", ("s3_backends", "S3Backend.gone"))
    moto_services.load.cache_clear()
    with pytest.raises(moto_services.MovedSeamError, match=r"moto has moved: moto\.s3\.models\.S3Backend\.gone;"):
        moto_services.load()


def test_where_a_fork_is_not_safe_a_worker_is_a_new_interpreter(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_CAN_FORK", False)
    deployed = deploy(pipeline({"Ask": invoke("Fail", {})}))
    assert deployed.run()["error"] == "ValueError"
    assert deployed.run()["error"] == "ValueError"
