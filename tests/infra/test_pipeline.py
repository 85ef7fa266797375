"""The stack around the state machine: functions, triggers, topic and the queue of what could not be delivered."""

import json
import re
from pathlib import Path

import pytest

from customization import answering, evaluation, failures
from customization.gateway.calls import CONNECT_SECONDS, READ_SECONDS
from customization.gateway.runtime import ASKED_AGAIN_SECONDS
from customization.json_types import Json, JsonObject, as_list, as_object, as_text
from stacks import states
from stacks.functions import FUNCTIONS
from tests.infra.machine import function_modules
from tests.infra.synthesis import ROOT, at, listed, resources

STARTS_A_RUN = (
    "incoming/support-ja/train.jsonl",
    "incoming/support-ja/pretrain.jsonl",
    "incoming/a/run.json",
)
JOB_OUTPUT = "runs/support-ja-0123456789/bedrock/1/model-customization-job-abcdefghijkl"
STARTS_NOTHING = (
    "incoming/support-ja/validation.jsonl",
    "incoming/support-ja/test.jsonl",
    "incoming/support-ja/train.csv",
    "incoming/support-ja/my-train.jsonl.bak",
    "incoming/train.jsonl",
    "archive/incoming/support-ja/train.jsonl",
    "train.jsonl",
    # What Bedrock and the pipeline themselves write
    "runs/support-ja-0123456789/data/train.jsonl",
    "runs/support-ja-0123456789/data/files.json",
    "runs/support-ja-0123456789/manifest.json",
    "runs/support-ja-0123456789/bedrock/1/.write_access_check_file.temp",
    f"{JOB_OUTPUT}/training_artifacts/step_wise_training_metrics.csv",
    f"{JOB_OUTPUT}/validation_artifacts/post_fine_tuning_validation/validation/validation_metrics.csv",
    f"{JOB_OUTPUT}/input_status/train.jsonl/manifest.report.csv",
    f"{JOB_OUTPUT}/validated_data/train.jsonl/validated_prompts.jsonl",
    "answers/0123456789/0000.jsonl",
)


@pytest.fixture(scope="module")
def pipeline(templates: dict[str, JsonObject]) -> JsonObject:
    return templates["pipeline"]


def _rule(pipeline: JsonObject, prefix: str) -> JsonObject:
    (found,) = [
        rule for name, rule in resources(pipeline, "AWS::Events::Rule").items() if name.startswith(f"Triggers{prefix}")
    ]
    return as_object(found["Properties"], prefix)


def _matches(conditions: Json, key: str) -> bool:
    """Say whether an EventBridge pattern on an object's key fits: its `*` stands for any characters, `/` too."""
    for item in as_list(conditions, "key"):
        match item:
            case {"wildcard": str(pattern)} if re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), key):
                return True
            case {"prefix": str(prefix)} if key.startswith(prefix):
                return True
            case str() if item == key:
                return True
    return False


@pytest.mark.parametrize("key", STARTS_A_RUN)
def test_the_files_that_people_drop_start_a_run(pipeline: JsonObject, key: str) -> None:
    pattern = at(_rule(pipeline, "StartRun"), "EventPattern")
    assert _matches(at(pattern, "detail", "object", "key"), key)


@pytest.mark.parametrize("key", STARTS_NOTHING)
def test_no_other_file_and_nothing_that_bedrock_writes_starts_a_run(pipeline: JsonObject, key: str) -> None:
    pattern = at(_rule(pipeline, "StartRun"), "EventPattern")
    assert not _matches(at(pattern, "detail", "object", "key"), key)


def test_only_objects_created_in_the_data_bucket_are_listened_to(pipeline: JsonObject) -> None:
    for prefix in ("StartRun", "ExplainUnusedUpload"):
        pattern = at(_rule(pipeline, prefix), "EventPattern")
        assert (at(pattern, "source"), at(pattern, "detail-type")) == (["aws.s3"], ["Object Created"])
        (bucket,) = listed(at(pattern, "detail", "bucket", "name"))
        assert as_text(at(bucket, "Fn::ImportValue"), prefix).split(":")[1].startswith("ExportsOutputRefDataBucket")


def test_every_file_below_incoming_is_looked_at_by_the_function_that_explains(pipeline: JsonObject) -> None:
    keys = at(_rule(pipeline, "ExplainUnusedUpload"), "EventPattern", "detail", "object", "key")
    for key in (*STARTS_A_RUN, "incoming/support-ja/train.csv", "incoming/train.jsonl", "incoming/a/b/train.jsonl"):
        assert _matches(keys, key)
    assert not _matches(keys, "runs/support-ja-0123456789/data/train.jsonl")


def test_the_machine_is_started_with_the_event_as_it_is_by_a_role_that_can_do_nothing_else(
    pipeline: JsonObject,
) -> None:
    (target,) = listed(at(_rule(pipeline, "StartRun"), "Targets"))
    (machine,) = resources(pipeline, "AWS::StepFunctions::StateMachine")
    assert at(target, "Arn") == {"Ref": machine}
    assert not {"Input", "InputPath", "InputTransformer"} & set(as_object(target, "target"))
    role = as_text(at(target, "RoleArn", "Fn::GetAtt", 0), "role")
    policies = [
        policy
        for policy in resources(pipeline, "AWS::IAM::ManagedPolicy").values()
        if {"Ref": role} in listed(as_object(policy["Properties"], role).get("Roles", []))
    ]
    (statement,) = [
        found for policy in policies for found in listed(at(policy, "Properties", "PolicyDocument", "Statement"))
    ]
    assert statement == {"Action": "states:StartExecution", "Effect": "Allow", "Resource": {"Ref": machine}}


def _target_module(pipeline: JsonObject, prefix: str) -> str:
    (target,) = listed(at(_rule(pipeline, prefix), "Targets"))
    return function_modules(pipeline)[as_text(at(target, "Arn", "Fn::GetAtt", 0), prefix)]


def test_the_sweeper_hears_of_every_end_without_failure_handling_and_looks_by_itself_too(pipeline: JsonObject) -> None:
    pattern = at(_rule(pipeline, "SweepAfterDeadExecution"), "EventPattern")
    (machine,) = resources(pipeline, "AWS::StepFunctions::StateMachine")
    assert at(pattern, "detail-type") == ["Step Functions Execution Status Change"]
    assert at(pattern, "detail") == {
        "status": ["ABORTED", "TIMED_OUT", "FAILED"],
        "stateMachineArn": [{"Ref": machine}],
    }
    assert at(_rule(pipeline, "SweepRegularly"), "ScheduleExpression") == "rate(15 minutes)"
    assert {_target_module(pipeline, f"Sweep{which}") for which in ("AfterDeadExecution", "Regularly")} == {"sweep"}
    assert _target_module(pipeline, "ExplainUnusedUpload") == "explain_unused_upload"


def test_what_cannot_be_delivered_and_what_fails_goes_to_the_queue(pipeline: JsonObject) -> None:
    (queue,) = resources(pipeline, "AWS::SQS::Queue")
    arn = {"Fn::GetAtt": [queue, "Arn"]}
    for rule in resources(pipeline, "AWS::Events::Rule").values():
        for target in listed(at(rule, "Properties", "Targets")):
            assert at(target, "DeadLetterConfig", "Arn") == arn
    functions = resources(pipeline, "AWS::Lambda::Function")
    with_queue = {
        module
        for name, module in function_modules(pipeline).items()
        if as_object(functions[name]["Properties"], name).get("DeadLetterConfig") == {"TargetArn": arn}
    }
    assert with_queue == {"sweep", "explain_unused_upload"}


def test_only_the_rules_call_their_functions_and_put_events_into_the_queue(pipeline: JsonObject) -> None:
    rules = resources(pipeline, "AWS::Events::Rule")
    targets = {name: at(rule, "Properties", "Targets", 0, "Arn") for name, rule in rules.items()}
    permissions = [found["Properties"] for found in resources(pipeline, "AWS::Lambda::Permission").values()]
    assert {as_text(at(found, "Principal"), "principal") for found in permissions} == {"events.amazonaws.com"}
    calling = {
        as_text(at(found, "SourceArn", "Fn::GetAtt", 0), "rule"): at(found, "FunctionName") for found in permissions
    }
    assert calling == {name: arn for name, arn in targets.items() if "Function" in str(arn)}

    (policy,) = resources(pipeline, "AWS::SQS::QueuePolicy").values()
    statements = listed(at(policy, "Properties", "PolicyDocument", "Statement"))
    allowed = [statement for statement in statements if at(statement, "Effect") == "Allow"]
    assert {str(at(statement, "Principal")) for statement in allowed} == {"{'Service': 'events.amazonaws.com'}"}
    sources = [as_object(at(statement, "Condition", "ArnEquals"), "ArnEquals") for statement in allowed]
    assert {str(at(source, "aws:SourceArn", "Fn::GetAtt", 0)) for source in sources} == set(rules)


def test_queue_and_topic_are_encrypted_and_refuse_plain_http(pipeline: JsonObject) -> None:
    (queue,) = resources(pipeline, "AWS::SQS::Queue").values()
    (topic,) = resources(pipeline, "AWS::SNS::Topic").values()
    for resource in (queue, topic):
        assert "ImportValue" in str(at(resource, "Properties", "KmsMasterKeyId"))
    for kind in ("AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy"):
        (policy,) = resources(pipeline, kind).values()
        refusals = [
            as_object(statement, kind)
            for statement in listed(at(policy, "Properties", "PolicyDocument", "Statement"))
            if at(statement, "Effect") == "Deny"
        ]
        assert [refusal["Condition"] for refusal in refusals] == [{"Bool": {"aws:SecureTransport": "false"}}]


def test_alarms_of_this_account_may_publish_to_the_topic(pipeline: JsonObject) -> None:
    (policy,) = resources(pipeline, "AWS::SNS::TopicPolicy").values()
    (statement,) = [
        as_object(found, "statement")
        for found in listed(at(policy, "Properties", "PolicyDocument", "Statement"))
        if at(found, "Effect") == "Allow"
    ]
    assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert statement["Action"] == "sns:Publish"
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_every_handler_module_has_a_function_and_every_function_a_module(pipeline: JsonObject) -> None:
    handlers = ROOT / "lambda" / "customization" / "handlers"
    modules = {path.stem for path in handlers.glob("*.py")} - {"__init__"}
    assert set(function_modules(pipeline).values()) == modules
    for function in resources(pipeline, "AWS::Lambda::Function").values():
        assert re.fullmatch(r"customization\.handlers\.\w+\.handler", str(at(function, "Properties", "Handler")))


def test_functions_run_on_arm_traced_with_an_encrypted_log_that_ends(pipeline: JsonObject) -> None:
    groups = resources(pipeline, "AWS::Logs::LogGroup")
    used = []
    for name, function in resources(pipeline, "AWS::Lambda::Function").items():
        properties = as_object(function["Properties"], name)
        assert (properties["Runtime"], properties["Architectures"]) == ("python3.14", ["arm64"])
        assert properties["TracingConfig"] == {"Mode": "Active"}
        used.append(as_text(at(properties, "LoggingConfig", "LogGroup", "Ref"), name))
    assert len(set(used)) == len(used)
    for name, group in groups.items():
        assert at(group, "Properties", "RetentionInDays") == 90, name
        assert "ImportValue" in str(at(group, "Properties", "KmsKeyId"))
        assert group["DeletionPolicy"] == "Delete"


def test_only_functions_that_score_or_draw_carry_the_evaluation_layer(pipeline: JsonObject) -> None:
    functions = resources(pipeline, "AWS::Lambda::Function")
    layers = {module: functions[name] for name, module in function_modules(pipeline).items()}
    heavy = {module for module, found in layers.items() if len(listed(at(found, "Properties", "Layers"))) > 1}
    assert heavy == {"compare_models", "publish_report", "prepare_dataset", "release_resources"}


def test_all_functions_share_one_asset_that_holds_the_package_and_nothing_else(
    pipeline: JsonObject, assembly: Path
) -> None:
    codes = [at(function, "Properties", "Code") for function in resources(pipeline, "AWS::Lambda::Function").values()]
    assert codes == [codes[0]] * len(codes)
    (folder,) = (path for path in assembly.glob("asset.*") if path.is_dir())
    assert [path.name for path in folder.iterdir()] == ["customization"]
    assert list(folder.rglob("__pycache__")) == []
    assert (folder / "customization" / "handlers" / "plan_run.py").is_file()


def test_the_stack_is_protected_and_names_nothing_that_cloudformation_can_name(
    pipeline: JsonObject, assembly: Path
) -> None:
    manifest: Json = json.loads((assembly / "manifest.json").read_bytes())
    assert at(manifest, "artifacts", "Customization-dev-Pipeline", "properties", "terminationProtection") is True
    named = ("FunctionName", "RoleName", "LogGroupName", "TopicName", "QueueName", "StateMachineName", "Name")
    for name, resource in resources(pipeline).items():
        if resource["Type"] not in ("AWS::Lambda::Version", "AWS::Lambda::Permission"):
            assert [key for key in as_object(resource["Properties"], name) if key in named] == [], name


def test_the_map_runs_as_many_shards_at_once_as_they_are_cut_for() -> None:
    assert states.SHARDS_AT_ONCE == evaluation.SHARDS_AT_ONCE
    assert states.EVALUATIONS == failures.SIDES_ASKED
    assert {*states.EVALUATIONS.values()} <= {*evaluation.SIDES}


def test_a_shard_whose_answers_come_late_keeps_them_before_its_function_is_stopped() -> None:
    longest_question_s = ASKED_AGAIN_SECONDS + CONNECT_SECONDS + READ_SECONDS
    to_keep_them_s = 20
    whole_s = answering.ASKING_SECONDS + longest_question_s + to_keep_them_s
    assert whole_s <= FUNCTIONS["evaluate_shard"].timeout_s
