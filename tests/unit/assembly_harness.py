"""A small cloud assembly in the shape that the CDK writes: two stacks, a few functions, a machine, rules."""

import json
from pathlib import Path

from customization.json_types import Json, JsonObject

HANDLERS = """
import os
import time

import boto3


def echo(event, context):
    return {"event": event, "function": context.function_name, "stage": os.environ.get("STAGE")}


def call(event, context):
    client = boto3.client(event["service"])
    answer = getattr(client, event["operation"])(**event["parameters"])
    answer.pop("ResponseMetadata", None)
    body = answer.pop("Body", None)
    return {"answer": str(answer), "body": body.read().decode() if body else None}


def fail(event, context):
    raise ValueError('no "good"')


def die(event, context):
    os._exit(3)


def variables(event, context):
    return {"environment": dict(os.environ), "folder": os.getcwd(), "process": os.getpid()}


def slow(event, context):
    time.sleep(5)


def huge(event, context):
    return "x" * 7_000_000


def strange(event, context):
    return object()
"""
FUNCTIONS = {"Echo": "echo", "Call": "call", "Fail": "fail", "Die": "die", "Variables": "variables"}


def ref(name: str) -> JsonObject:
    return {"Ref": name}


def arn(name: str) -> JsonObject:
    return {"Fn::GetAtt": [name, "Arn"]}


def imported(name: str) -> JsonObject:
    return {"Fn::ImportValue": f"Storage:{name}"}


def trust(service: str) -> JsonObject:
    statement: JsonObject = {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"Service": f"{service}.amazonaws.com"},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def role(service: str, *statements: Json) -> JsonObject:
    policy: JsonObject = {"PolicyName": "p", "PolicyDocument": {"Version": "2012-10-17", "Statement": [*statements]}}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {"AssumeRolePolicyDocument": trust(service), "Policies": [policy] if statements else []},
    }


def allow(actions: Json, resource: Json, **more: Json) -> JsonObject:
    return {"Effect": "Allow", "Action": actions, "Resource": resource, **more}


def storage() -> JsonObject:
    encryption: JsonObject = {
        "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": arn("Key")}
    }
    insecure: JsonObject = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn("Bucket"), {"Fn::Join": ["", [arn("Bucket"), "/*"]]}],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return {
        "Key": {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": {"Version": "2012-10-17", "Statement": []}}},
        "Bucket": {
            "Type": "AWS::S3::Bucket",
            "Properties": {
                "BucketEncryption": {"ServerSideEncryptionConfiguration": [encryption]},
                "VersioningConfiguration": {"Status": "Enabled"},
                "PublicAccessBlockConfiguration": {"BlockPublicAcls": True, "RestrictPublicBuckets": True},
                "NotificationConfiguration": {"EventBridgeConfiguration": {"EventBridgeEnabled": True}},
            },
        },
        "BucketPolicy": {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {
                "Bucket": ref("Bucket"),
                "PolicyDocument": {"Version": "2012-10-17", "Statement": [insecure]},
            },
        },
        "Quiet": {"Type": "AWS::S3::Bucket", "Properties": {}},
        "Table": {
            "Type": "AWS::DynamoDB::Table",
            "Properties": {
                "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
                "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            },
        },
        "Alarm": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"Threshold": 1}},
    }


def outputs() -> JsonObject:
    values: JsonObject = {
        "BucketName": ref("Bucket"),
        "BucketArn": arn("Bucket"),
        "QuietName": ref("Quiet"),
        "QuietArn": arn("Quiet"),
        "TableName": ref("Table"),
        "TableArn": arn("Table"),
        "KeyArn": arn("Key"),
        "AlarmArn": arn("Alarm"),
    }
    return {name: {"Value": value, "Export": {"Name": f"Storage:{name}"}} for name, value in values.items()}


def function(handler: str, role_name: str = "FunctionRole", **more: Json) -> JsonObject:
    return {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "Code": {"S3Bucket": {"Fn::Sub": "assets-${AWS::AccountId}"}, "S3Key": "code.zip"},
            "Handler": f"handlers.{handler}",
            "Role": arn(role_name),
            "Runtime": "python3.14",
            "Timeout": 60,
            "Environment": {"Variables": {"STAGE": "dev"}},
            **more,
        },
    }


def definition(states: JsonObject) -> JsonObject:
    """Return a machine over functions: in `states` the text <Echo> stands for that function's version."""
    text = json.dumps({"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states})
    parts: list[Json] = []
    while "<" in text:
        before, _, rest = text.partition("<")
        name, _, text = rest.partition(">")
        parts += [before, ref(name)]
    return {"Fn::Join": ["", [*parts, text]]}


def invoke(name: str, payload: Json, **fields: Json) -> JsonObject:
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": f"<{name}Version>", "Payload": payload},
        "Output": "{% $states.result.Payload %}",
        "End": True,
        **fields,
    }


def pipeline(states: JsonObject, *statements: Json) -> JsonObject:
    """Return functions whose role may do `statements`, and a machine that may call them and publish."""
    versions: JsonObject = {
        f"{name}Version": {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": ref(name)}}
        for name in FUNCTIONS
    }
    functions: list[Json] = [{"Fn::Join": ["", [arn(name), ":*"]]} for name in FUNCTIONS]
    machine_role = role("states", allow("lambda:InvokeFunction", functions), allow("sns:Publish", ref("Topic")))
    return {
        "FunctionRole": role("lambda", *statements),
        **{name: function(handler) for name, handler in FUNCTIONS.items()},
        **versions,
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "runs"}},
        "MachineRole": machine_role,
        "Machine": {
            "Type": "AWS::StepFunctions::StateMachine",
            "Properties": {"DefinitionString": definition(states), "RoleArn": arn("MachineRole")},
        },
    }


def write(folder: Path, pipeline_resources: JsonObject) -> Path:
    """Write the assembly into `folder` and return it."""
    code = folder / "code"
    code.mkdir(parents=True, exist_ok=True)
    (code / "handlers.py").write_text(HANDLERS)
    templates: dict[str, JsonObject] = {
        "Storage": {"Resources": storage(), "Outputs": outputs()},
        "Pipeline": {
            "Resources": pipeline_resources,
            "Outputs": {"MachineArn": {"Value": ref("Machine")}} if "Machine" in pipeline_resources else {},
        },
    }
    for name, template in templates.items():
        (folder / f"{name}.template.json").write_text(json.dumps(template))
    destination = {"bucketName": "assets-${AWS::AccountId}", "objectKey": "code.zip"}
    asset = {"source": {"path": "code", "packaging": "zip"}, "destinations": {"here": destination}}
    (folder / "Pipeline.assets.json").write_text(json.dumps({"files": {"code": asset}}))
    stack = "aws:cloudformation:stack"
    artifacts = {
        "Pipeline": {
            "type": stack,
            "dependencies": ["Storage", "Pipeline.assets"],
            "properties": {"templateFile": "Pipeline.template.json"},
        },
        "Pipeline.assets": {"type": "cdk:asset-manifest", "properties": {"file": "Pipeline.assets.json"}},
        "Storage": {"type": stack, "properties": {"templateFile": "Storage.template.json"}},
    }
    (folder / "manifest.json").write_text(json.dumps({"artifacts": artifacts}))
    return folder
