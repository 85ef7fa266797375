"""What people may do who get a managed policy of the outputs, and where the outputs send them."""

import re

import pytest

from customization.json_types import JsonObject, as_object, as_text
from tests.infra.synthesis import ROOT, at, resources
from tests.infra.test_permissions import OWN_TAG, REPORTS, Statement, statements_of, text_of

DATA, ARTIFACTS, KEY = "<DataBucket>", "<ArtifactBucket>", "<Key>"
STATES = "arn:aws:states:us-east-1:<AWS::AccountId>"
STACKS = "arn:aws:cloudformation:us-east-1:<AWS::AccountId>:stack"
PARAMETERS = "arn:aws:ssm:us-east-1:<AWS::AccountId>:parameter/dev/<DeploymentId>/datasets/*"
BEDROCK = "arn:aws:bedrock:us-east-1:<AWS::AccountId>"


@pytest.fixture(scope="module")
def pipeline(templates: dict[str, JsonObject]) -> JsonObject:
    return templates["pipeline"]


def via(service: str) -> JsonObject:
    return {"StringEquals": {"kms:ViaService": [f"{service}.us-east-1.amazonaws.com"]}}


def below(*prefixes: str) -> JsonObject:
    return {"StringLike": {"s3:prefix": [*prefixes]}}


# Each statement: actions, resources, conditions
ALLOWED: dict[str, list[tuple[set[str], set[str], JsonObject]]] = {
    "DataContributor": [
        ({"s3:PutObject", "s3:AbortMultipartUpload"}, {f"{DATA}/incoming/*"}, {}),
        ({"s3:ListBucket"}, {DATA}, below("incoming/*")),
        # Amazon S3 guide, "Uploading and copying objects using multipart upload": parts are decrypted again
        ({"kms:Decrypt", "kms:GenerateDataKey"}, {KEY}, via("s3")),
    ],
    "ReportReader": [
        ({"s3:GetObject"}, {f"{ARTIFACTS}/{report}" for report in REPORTS}, {}),
        ({"s3:ListBucket"}, {ARTIFACTS}, below("runs/*", "datasets/*")),
        ({"kms:Decrypt"}, {KEY}, via("s3")),
    ],
    "RunOperator": [
        ({"states:StartExecution", "states:ListExecutions", "states:DescribeStateMachine"}, {"<Machine>"}, {}),
        (
            {"states:DescribeExecution", "states:GetExecutionHistory"},
            {f"{STATES}:execution:<Machine.Name>:*", f"{STATES}:execution:<Machine.Name>/*:*"},
            {},
        ),
        (
            {"states:StopExecution", "states:RedriveExecution", "states:ListMapRuns"},
            {f"{STATES}:execution:<Machine.Name>:*"},
            {},
        ),
        ({"states:DescribeMapRun", "states:ListExecutions"}, {f"{STATES}:mapRun:<Machine.Name>/*"}, {}),
        ({"dynamodb:GetItem", "dynamodb:Scan"}, {"<RunsTable>"}, {}),
        ({"dynamodb:Query"}, {"<RunsTable>/index/byDataset"}, {}),
        ({"kms:Decrypt"}, {KEY}, via("dynamodb")),
        ({"ssm:GetParameter"}, {PARAMETERS}, {}),
        (
            {"cloudformation:DescribeStacks"},
            {f"{STACKS}/Customization-dev-{name}/*" for name in ("Storage", "Pipeline")},
            {},
        ),
    ],
    "InvokeServedModel": [
        (
            {"bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"},
            {f"{BEDROCK}:custom-model-deployment/*", f"{BEDROCK}:provisioned-model/*"},
            OWN_TAG,
        ),
        ({"ssm:GetParameter"}, {PARAMETERS}, {}),
        ({"kms:Decrypt"}, {KEY}, via("bedrock")),
    ],
}


def plain(resource: str) -> str:
    """Return a resource without the digits that CDK puts into the names of exports and machines."""
    exported = re.sub(r"<ExportsOutputFnGetAtt(\w+?)[0-9A-F]{8}Arn[0-9A-F]{8}>", r"<\1>", resource)
    return re.sub(r"<Customization\w*?(\.Name)?>", r"<Machine\1>", exported)


def readable(statement: Statement) -> tuple[set[str], set[str], JsonObject]:
    return set(statement.actions), {plain(resource) for resource in statement.resources}, statement.conditions


def policies_of_people(pipeline: JsonObject) -> dict[str, JsonObject]:
    """Return the properties of the policies that no role of the deployment has."""
    found = {
        re.sub("[0-9A-F]{8}$", "", name): as_object(policy["Properties"], name)
        for name, policy in resources(pipeline, "AWS::IAM::ManagedPolicy").items()
    }
    return {name: properties for name, properties in found.items() if "Roles" not in properties}


def test_people_may_do_what_their_policy_is_for_and_nothing_else(pipeline: JsonObject) -> None:
    found = {
        name: [readable(statement) for statement in statements_of(properties)]
        for name, properties in policies_of_people(pipeline).items()
    }
    assert found == ALLOWED


def test_no_policy_of_people_has_a_name_that_another_stage_could_have(pipeline: JsonObject) -> None:
    for name, properties in policies_of_people(pipeline).items():
        assert set(properties) == {"Description", "Path", "PolicyDocument"}, name


def test_the_outputs_say_where_to_go_next(templates: dict[str, JsonObject]) -> None:
    found = as_object(templates["pipeline"]["Outputs"], "Outputs").items()
    outputs = {name: as_object(output, name) for name, output in found if "Export" not in as_object(output, name)}
    assert [name for name, output in outputs.items() if "Description" not in output] == []
    told = {name: text_of(output["Value"]) for name, output in outputs.items()}
    assert plain(told["DropLocation"]).startswith("s3://<ExportsOutputRefDataBucket")
    assert told["DropLocation"].endswith("/incoming/")
    console = "https://us-east-1.console.aws.amazon.com"
    machine = f"{console}/states/home?region=us-east-1#/statemachines/view/"
    assert plain(told["StateMachineUrl"]) == f"{machine}<Machine>"
    (dashboard,) = resources(templates["operations"], "AWS::CloudWatch::Dashboard").values()
    name = as_text(at(dashboard, "Properties", "DashboardName"), "name")
    assert told["DashboardUrl"] == f"{console}/cloudwatch/home?region=us-east-1#dashboards/dashboard/{name}"
    policies = {name.removesuffix("PolicyArn") for name in told if name.endswith("PolicyArn")}
    assert (policies, "TopicArn" in told) == (set(ALLOWED), True)


def test_the_checklist_names_outputs_inputs_and_targets_that_exist(templates: dict[str, JsonObject]) -> None:
    text = (ROOT / "docs" / "first-deployment.md").read_text()
    outputs = {name for template in templates.values() for name in as_object(template.get("Outputs", {}), "Outputs")}
    named = set(re.findall(r"`(\w+(?:Arn|Url|Location|Name))`|<(\w+Name)>", text))
    assert {first or second for first, second in named} - outputs == set()
    assert {f"{kind}PolicyArn" for kind in ALLOWED} <= {first for first, _ in named}
    assert [path for path in re.findall(r"(?:samples|lambda)/[\w./-]+", text) if not (ROOT / path).exists()] == []
    makefile = (ROOT / "Makefile").read_text()
    assert [name for name in re.findall(r"`make ([a-z]+)", text) if f"\n{name}:" not in makefile] == []
