import json

import pytest

from customization.json_types import JsonObject
from rehearsal.embedded.authorization import Place, UnknownActionError, demands
from rehearsal.embedded.policies import Demand, evaluate, policy_problems
from rehearsal.embedded.requests import HttpRequest

PLACE = Place("123456789012", "us-east-1")
KEY = "arn:aws:s3:::data/runs/a/data/train.jsonl"


def document(**statement: object) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Resource": "*", **statement}})


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ({"Action": "s3:GetObject"}, True),
        ({"Action": "S3:getobject"}, True),
        ({"Action": ["s3:PutObject", "s3:Get*"]}, True),
        ({"Action": "s3:GetObject?"}, False),
        ({"Action": "*"}, True),
        ({"NotAction": "s3:PutObject"}, True),
        ({"NotAction": "s3:*"}, False),
        ({"Action": "s3:*", "Resource": "arn:aws:s3:::data/runs/*/data/*"}, True),
        ({"Action": "s3:*", "Resource": "arn:aws:s3:::data/runs/[ab]/*"}, False),
        ({"Action": "s3:*", "Resource": "arn:aws:s3:::DATA/*"}, False),
        ({"Action": "s3:*", "NotResource": "arn:aws:s3:::data/runs/*"}, False),
        ({"Action": "s3:*", "Condition": {"StringEquals": {"k": ["x", "v"]}}}, True),
        ({"Action": "s3:*", "Condition": {"StringEquals": {"k": "V"}}}, False),
        ({"Action": "s3:*", "Condition": {"StringLike": {"k": "v*"}}}, True),
        ({"Action": "s3:*", "Condition": {"StringNotEquals": {"k": "v"}}}, False),
        ({"Action": "s3:*", "Condition": {"StringEquals": {"absent": "v"}}}, False),
        ({"Action": "s3:*", "Condition": {"StringEqualsIfExists": {"absent": "v"}}}, True),
        ({"Action": "s3:*", "Condition": {"StringNotEquals": {"absent": "v"}}}, True),
        ({"Action": "s3:*", "Condition": {"StringEquals": {"k": "v", "absent": "v"}}}, False),
        ({"Action": "s3:*", "Condition": {"Bool": {"secure": "true"}}}, True),
        ({"Action": "s3:*", "Condition": {"Null": {"k": "false"}}}, True),
        ({"Action": "s3:*", "Condition": {"Null": {"k": "true"}}}, False),
        ({"Action": "s3:*", "Condition": {"Null": {"absent": "true"}}}, True),
        ({"Action": "s3:*", "Condition": {"Null": {"absent": "false"}}}, False),
        ({"Action": "s3:*", "Condition": {"ForAllValues:StringEquals": {"k": ["v", "w"]}}}, True),
        ({"Action": "s3:*", "Condition": {"ForAllValues:StringEquals": {"k": "w"}}}, False),
        ({"Action": "s3:*", "Condition": {"ForAllValues:StringEquals": {"absent": "w"}}}, True),
        ({"Effect": "Deny", "Action": "s3:*"}, False),
    ],
)
def test_a_statement_allows_as_iam_documents_it(statement: JsonObject, allowed: bool) -> None:  # noqa: FBT001  a case's value
    demand = Demand("s3:GetObject", KEY, {"k": "v", "secure": "true"})
    assert evaluate([document(**statement)], demand).allowed is allowed


def test_a_denial_wins_over_every_permission() -> None:
    verdict = evaluate(
        [document(Action="*"), document(Effect="Deny", Action="s3:GetObject")], Demand("s3:GetObject", KEY)
    )
    assert verdict.denied
    assert not verdict.allowed


def test_a_resource_policy_counts_for_the_principals_it_names() -> None:
    policy = document(Action="sqs:SendMessage", Principal={"Service": ["events.amazonaws.com"]})
    demand = Demand("sqs:SendMessage", "arn:aws:sqs:us-east-1:123456789012:lost")
    assert evaluate([policy], demand, "events.amazonaws.com").allowed
    assert not evaluate([policy], demand, "sns.amazonaws.com").allowed


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (
            {"Action": "*", "Condition": {"DateLessThan": {"aws:CurrentTime": "2025"}}},
            "condition operator DateLessThan",
        ),
        (
            {"Action": "*", "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o"}}},
            "condition key aws:PrincipalOrgID",
        ),
        ({"Action": "*", "Resource": "arn:aws:s3:::${aws:username}/*"}, "policy variables"),
        ({"Action": "*", "NotPrincipal": "*"}, "NotPrincipal"),
    ],
)
def test_what_is_not_evaluated_is_named(statement: JsonObject, problem: str) -> None:
    assert problem in list(policy_problems(json.loads(document(**statement))))


def request(method: str, target: str, body: JsonObject | None = None, **headers: str) -> HttpRequest:
    path, _, query = target.partition("?")
    known = {name.replace("_", "-"): value for name, value in headers.items()}
    scope = known.pop("scope", "s3")
    known["authorization"] = f"AWS4-HMAC-SHA256 Credential=ASIA/20250118/us-east-1/{scope}/aws4_request, Signature=0"
    return HttpRequest(method, path, query, known, json.dumps(body or {}).encode())


@pytest.mark.parametrize(
    ("asked", "actions"),
    [
        (request("GET", "/"), [("s3:ListAllMyBuckets", "*")]),
        (request("GET", "/data?list-type=2"), [("s3:ListBucket", "arn:aws:s3:::data")]),
        (request("HEAD", "/data"), [("s3:ListBucket", "arn:aws:s3:::data")]),
        (request("GET", "/data?uploads"), [("s3:ListBucketMultipartUploads", "arn:aws:s3:::data")]),
        (request("GET", "/data?versions"), [("s3:ListBucketVersions", "arn:aws:s3:::data")]),
        (request("HEAD", "/data/a%20b"), [("s3:GetObject", "arn:aws:s3:::data/a b")]),
        (request("GET", "/data/a?versionId=1"), [("s3:GetObjectVersion", "arn:aws:s3:::data/a")]),
        (request("POST", "/data/a?uploads"), [("s3:PutObject", "arn:aws:s3:::data/a")]),
        (request("PUT", "/data/a?partNumber=1&uploadId=2"), [("s3:PutObject", "arn:aws:s3:::data/a")]),
        (request("DELETE", "/data/a?uploadId=2"), [("s3:AbortMultipartUpload", "arn:aws:s3:::data/a")]),
        (request("DELETE", "/data/a"), [("s3:DeleteObject", "arn:aws:s3:::data/a")]),
        (request("GET", "/a", host="data.localhost:4566"), [("s3:GetObject", "arn:aws:s3:::data/a")]),
        (
            request("PUT", "/data/a", x_amz_copy_source="/other/b?versionId=1"),
            [("s3:PutObject", "arn:aws:s3:::data/a"), ("s3:GetObject", "arn:aws:s3:::other/b")],
        ),
        (
            request(
                "POST",
                "/",
                {"TransactItems": [{"Put": {"TableName": "t"}}, {"ConditionCheck": {"TableName": "u"}}]},
                scope="dynamodb",
                x_amz_target="DynamoDB_20120810.TransactWriteItems",
            ),
            [
                ("dynamodb:PutItem", "arn:aws:dynamodb:us-east-1:123456789012:table/t"),
                ("dynamodb:ConditionCheckItem", "arn:aws:dynamodb:us-east-1:123456789012:table/u"),
            ],
        ),
        (
            request(
                "POST",
                "/",
                {"TableName": "t", "IndexName": "byDataset"},
                scope="dynamodb",
                x_amz_target="DynamoDB_20120810.Query",
            ),
            [("dynamodb:Query", "arn:aws:dynamodb:us-east-1:123456789012:table/t/index/byDataset")],
        ),
        (
            request("POST", "/2015-03-31/functions/plan/invocations?Qualifier=3", scope="lambda"),
            [("lambda:InvokeFunction", "arn:aws:lambda:us-east-1:123456789012:function:plan:3")],
        ),
        (
            request(
                "POST", "/", {"executionArn": "arn:x"}, scope="states", x_amz_target="AWSStepFunctions.StopExecution"
            ),
            [("states:StopExecution", "arn:x")],
        ),
        (
            request("POST", "/", {"Name": "/dev/a"}, scope="ssm", x_amz_target="AmazonSSM.GetParameter"),
            [("ssm:GetParameter", "arn:aws:ssm:us-east-1:123456789012:parameter/dev/a")],
        ),
        (
            request("POST", "/", {}, scope="servicequotas", x_amz_target="ServiceQuotasV20190624.GetServiceQuota"),
            [("servicequotas:GetServiceQuota", "*")],
        ),
    ],
)
def test_a_call_needs_the_actions_and_resources_of_the_service_authorization_reference(
    asked: HttpRequest, actions: list[tuple[str, str]]
) -> None:
    assert [(demand.action, demand.resource) for demand in demands(asked, PLACE)] == actions


def test_a_service_whose_actions_are_unknown_is_refused() -> None:
    with pytest.raises(UnknownActionError, match="glue"):
        demands(request("POST", "/", scope="glue"), PLACE)


def test_listing_tells_its_prefix_to_conditions_and_reading_has_none() -> None:
    [listing] = demands(request("GET", "/data?list-type=2&prefix=incoming%2Fa%2F"), PLACE)
    [reading] = demands(request("GET", "/data/incoming/a/train.jsonl"), PLACE)
    assert listing.context["s3:prefix"] == "incoming/a/"
    assert "s3:prefix" not in reading.context
