"""A cause is a sentence, and a documented message comes with what to do."""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from customization import errors, handlers, leases, publishing, serving, training
from customization.errors import (
    BudgetExceeded,
    CustomizationJobStopped,
    PipelineError,
    PreconditionFailed,
    RequestRejected,
    ServingFailed,
)
from customization.failures import Example, Known, explain, load_document, load_failures, record_failure
from customization.gateway import Gateway
from customization.json_types import JsonObject
from customization.leases import Lease
from customization.planning import plan_run
from customization.release_and_report import release
from customization.releasing import release_all
from customization.runs import Call, Plan, save_plan
from customization.texts import LANGUAGES, Language, Sentence, load_texts, wording
from tests.unit.fakes import BedrockInMemory, GatewayInMemory

PACKAGE = Path(errors.__file__).parent
# Commands at a terminal, what the sweeper logs, and what no data get to that were validated
IN_ENGLISH_ALONE = {"commands.py", "teardown.py", "validate.py", "sweeper.py", "catalogue.py", "formats.py"}

ROW = "support-0123456789"


def lambda_cause(error: str, message: str) -> str:
    return json.dumps({"errorType": error, "errorMessage": message, "stackTrace": ["  File ..."]})


def test_the_stack_trace_of_a_function_is_not_shown() -> None:
    failure = explain("InvalidDataset", lambda_cause("InvalidDataset", "train.jsonl line 3: not JSON"))
    assert failure.cause == "train.jsonl line 3: not JSON"


@pytest.mark.parametrize(
    ("error", "message", "fix"),
    [
        ("CustomizationJobFailed", "Encountered an internal error when processing the request.", "Start the run again"),
        ("CustomizationJobFailed", "Could not validate GetObject permissions to access Amazon S3 bucket: b", "Deploy"),
        ("QuotaUnavailable", "Your account does not currently have any no commitment model units", "L-BE77399C"),
        ("Sandbox.Timedout", "Task timed out after 900.00 seconds", "subset"),
        ("AccessDenied", "User: x is not authorized to perform: bedrock:CreateModelCustomizationJob", "Deploy again"),
        ("States.Timeout", "", "Start the run again"),
        ("States.Runtime", "An error occurred while executing the state 'PlanRun'", "a fault of this pipeline"),
        ("Runtime.ExitError", "RequestId: 1 Error: Runtime exited with error: signal: killed", "smaller files"),
        ("Lambda.TooManyRequestsException", "Rate Exceeded.", "Start the run again later"),
    ],
)
def test_a_documented_failure_comes_with_its_fix(error: str, message: str, fix: str) -> None:
    failure = explain(error, lambda_cause(error, message))
    assert fix in failure.fix
    assert message in failure.cause


# What a run ends with that ends so; else it is the error of the call
ERRORS_OF_ENDS = {
    "validation": "CustomizationJobFailed",
    "training": "CustomizationJobFailed",
    "throughput": "ServingFailed",
    "deployment": "ServingFailed",
    "CreateModelCustomizationJob/ValidationException": "CustomizationJobFailed",
    "CreateModelCustomizationJob/AccessDeniedException": "AccessDenied",
    "Converse/ResourceNotFoundException": "States.ExceedToleratedFailureThreshold",
}
EXAMPLES = [(known, example) for known in load_failures() for example in known.examples]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("known", "example"), EXAMPLES, ids=[f"{example.end}: {example.message}"[:60] for _, example in EXAMPLES]
)
def test_a_message_that_bedrock_sends_gets_the_cause_and_the_fix_that_are_written_for_it(
    known: Known, example: Example, language: Language
) -> None:
    error = ERRORS_OF_ENDS.get(example.end, "QuotaUnavailable")
    message = f"support-0123456789: first line\n{example.message}"
    if error.startswith("States."):  # the pipeline hands on what ended the shard
        message = f"ResourceNotFound: {message}"
    failure = explain(error, lambda_cause(error, message), language)
    assert failure.cause == f"{message} - {known.cause[language]}"
    assert failure.fix == known.fix[language]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("ServiceUnavailable", "CreateModelCustomizationJob: internal error when processing the request"),
        ("States.ExceedToleratedFailureThreshold", "ServiceUnavailable: Converse: unexpected error when processing"),
    ],
)
def test_an_error_of_bedrock_outside_jobs_and_servings_promises_no_new_job(error: str, message: str) -> None:
    assert explain(error, message).fix == explain("ServiceUnavailable", "").fix


@pytest.mark.parametrize(
    ("message", "codes"),
    [
        ("You have reached the limit of 10 scheduled customization jobs.", []),
        ("In line for the next job, with 3 that asked earlier ahead.", []),
        ("You have reached the limit of 2 in-progress custom model deployments.", ["L-430C95DD"]),
        ("CreateCustomModelDeployment: Too many.", ["L-1EF80F3E"]),
        ("You have reached the limit of 100 custom models per account.", ["L-CB5B847D"]),
        ("no commitment model units reserved for meta.llama3-1-8b", ["L-BE77399C", "L-3632DE15"]),
    ],
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_quota_is_told_with_its_code_where_it_can_be_raised(
    message: str, codes: list[str], language: Language
) -> None:
    assert re.findall(r"L-\w{8}", explain("QuotaUnavailable", f"a job for a model: {message}", language).fix) == codes


def test_every_known_failure_names_its_source() -> None:
    document = load_document()
    assert {known.source for known in document.failures} == {*document.sources}


def error_classes() -> list[type[Exception]]:
    """Return every error that a state can end with."""
    bases = {errors.PipelineError, errors.TransientError}
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    return [each for each in classes if each not in bases]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("error", error_classes())
def test_every_error_has_a_fix_of_its_own_in_every_language(error: type[Exception], language: Language) -> None:
    fix = explain(error.__name__, "Something", language).fix
    assert fix != wording("notice.startAgain", language)
    assert fix.isascii() == (language == "en")


# What AWS says follows these names, and may decide
OF_AWS = {"AccessDenied", "Conflict", "QuotaUnavailable", "RequestRejected", "ResourceNotFound"}
OF_BEDROCK = {"CustomizationJobFailed", "ServingFailed"}
OWN = [
    each.__name__
    for each in error_classes()
    if issubclass(each, PipelineError) and each.__name__ not in OF_AWS | OF_BEDROCK
]
WORDS = [*(example.message for _, example in EXAMPLES), *(f"{each.__name__}: it" for each in error_classes())]


@pytest.mark.parametrize("error", OWN)
@pytest.mark.parametrize("end", ["", "States.ExceedToleratedFailureThreshold"])
def test_no_word_of_a_request_or_of_data_decides_what_is_said_of_an_error_of_this_pipeline(
    error: str, end: str
) -> None:
    fix = explain(error, "").fix
    for words in (*WORDS, "\n- ".join(WORDS), "unknown field 'model units'", "States.Timeout: Task timed out"):
        assert explain(end or error, f"{error}: {words}" if end else words).fix == fix, words


def worded_in_place() -> Iterator[str]:
    """Yield every place where an error of this pipeline is raised with text instead of a code of data/texts.json."""
    named = {each.__name__ for each in error_classes() if issubclass(each, PipelineError)}
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in named:
                first = node.args[0] if node.args else None
                if path.name not in IN_ENGLISH_ALONE and isinstance(first, ast.Constant | ast.JoinedStr | ast.BinOp):
                    yield f"{path.name}:{node.lineno}"


def test_what_ends_a_run_is_worded_in_data() -> None:
    assert list(worded_in_place()) == []


def test_an_error_says_its_sentence_and_its_reasons_in_a_language() -> None:
    place = {"model": "m", "region": "r"}
    error = PreconditionFailed(
        Sentence("precondition.failed", {"model": "Nova"}),
        [
            (Sentence("precondition.check", {"check": "model"}), Sentence("precondition.modelUnknown", place)),
            (Sentence("precondition.noModelOffered"),),
        ],
    )
    assert str(error).splitlines() == [
        "Nova cannot be customized now; nothing was started:",
        "- model: Bedrock does not know m in r.",
        "- No model of the catalogue is offered any more.",
    ]
    error.put_into("ja")
    assert str(error).splitlines()[2] == f"- {load_texts()['precondition.noModelOffered']['ja']}"
    error.put_into("en")
    assert str(error).splitlines()[2] == f"- {load_texts()['precondition.noModelOffered']['ja']}"


def context() -> LambdaContext:
    made = LambdaContext()
    made._aws_request_id = "request"
    return made


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"runId": ROW}, "job-1 は完了前に停止されました"),
        ({"language": "ja"}, "job-1 は完了前に停止されました"),
        ({"runId": "", "language": ""}, "job-1 was stopped"),
    ],
)
def test_a_function_raises_in_the_language_of_its_run(
    claimed: GatewayInMemory, event: JsonObject, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed.runs.update(ROW, {"language": "ja"})
    monkeypatch.setattr(handlers, "connect", lambda: claimed)

    @handlers.task
    def function(_event: JsonObject, _gateway: Gateway) -> JsonObject:
        raise CustomizationJobStopped.of("error.jobStopped", job="job-1")

    with pytest.raises(CustomizationJobStopped, match=says):
        function(event, context())


def test_the_language_of_a_run_that_cannot_be_read_hides_no_error(
    claimed: GatewayInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> JsonObject:
        raise errors.AccessDenied("not authorized to perform: dynamodb:GetItem")

    monkeypatch.setattr(handlers, "connect", lambda: claimed)
    monkeypatch.setattr(claimed.runs, "get", refuse)

    @handlers.task
    def function(_event: JsonObject, _gateway: Gateway) -> JsonObject:
        raise BudgetExceeded(Sentence("budget.exceeded"))

    with pytest.raises(BudgetExceeded, match="does not fit"):
        function({"runId": ROW}, context())


def test_a_request_that_was_refused_in_its_language_is_told_in_it(gateway: GatewayInMemory, call: Call) -> None:
    unplanned_call = Call(now=call.now, execution_arn=call.execution_arn, run_id="", attempt=0)
    with pytest.raises(errors.InvalidRunRequest):
        plan_run(gateway, {"dataset": "support", "language": "ja", "budgetUsd": -1}, unplanned_call)
    told = record_failure(gateway, unplanned_call, "InvalidRunRequest", "budgetUsd", "PlanRun")
    assert told["fix"] == explain("InvalidRunRequest", "budgetUsd", "ja").fix


def test_an_undocumented_message_passes_through_whole() -> None:
    assert explain("CustomizationJobFailed", "the moon is in the wrong place").cause == "the moon is in the wrong place"


def test_a_failed_run_is_recorded_and_told(claimed: GatewayInMemory, call: Call) -> None:
    told = record_failure(claimed, call, "ServingFailed", lambda_cause("ServingFailed", "No capacity"), "PollX")
    row = claimed.runs.get(ROW)
    assert row is not None
    assert (row["state"], row["cause"], row["failedState"]) == ("FAILED", "No capacity", "PollX")
    assert told["subject"] == f"Failed at PollX: {ROW}"
    assert "No capacity" in str(told["message"])


def test_a_failure_before_the_run_was_planned_leaves_a_row_too(gateway: GatewayInMemory, call: Call) -> None:
    unplanned = Call(now=call.now, execution_arn=call.execution_arn, run_id="", attempt=0)
    record_failure(gateway, unplanned, "InvalidRunRequest", "dataset: missing", "PlanRun")
    row = gateway.runs.get("unplanned#first")
    assert row is not None
    assert row["cause"] == "dataset: missing"


def test_the_cause_of_a_map_is_that_of_the_shard_that_failed(claimed: GatewayInMemory, call: Call) -> None:
    error = "AccessDenied: not authorized to perform: bedrock:InvokeModel"
    claimed.runs.update(ROW, {"shardError": error, "shardErrorOf": "base/3"})
    told = record_failure(claimed, call, "States.ExceedToleratedFailureThreshold", "", "EvaluateBaseline")
    assert "bedrock:InvokeModel" in str(told["cause"])


def test_the_cause_of_a_map_is_not_that_of_a_shard_of_another(claimed: GatewayInMemory, call: Call) -> None:
    claimed.runs.update(ROW, {"shardError": "AccessDenied: bedrock:InvokeModel", "shardErrorOf": "inUse/0"})
    told = record_failure(claimed, call, "States.ExceedToleratedFailureThreshold", "one failed", "EvaluateCustomModel")
    assert str(told["cause"]).startswith("one failed - ")
    assert "AccessDenied" not in str(told["message"])


def test_what_bedrock_quotes_of_a_record_is_told_to_people(claimed: GatewayInMemory, call: Call) -> None:
    said = "Input size exceeded in file train.jsonl for record starting with Where is my lamp"
    claimed.runs.update(ROW, {"jobName0": "job-1", "jobFailure": said})
    cut = lambda_cause("CustomizationJobFailed", f"job-1: {said.removesuffix(' Where is my lamp')}...")
    told = record_failure(claimed, call, "CustomizationJobFailed", cut, "PollCustomizationJob", language="ja")
    for text in (told["cause"], told["message"], (claimed.runs.get(ROW) or {})["cause"]):
        assert f"job-1: {said}" in str(text)
    assert "profile.json" in str(told["fix"])


def test_a_failure_before_the_run_was_planned_releases_nothing(gateway: GatewayInMemory, call: Call) -> None:
    assert release_all(gateway, replace(call, run_id=""), "said") == {"released": [], "message": "said"}


def test_a_report_that_cannot_be_written_takes_nothing_from_the_failure_path(
    claimed: GatewayInMemory, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise RuntimeError("no charts today")

    monkeypatch.setattr(publishing, "publish_failure", fail)
    done = release(claimed, call, dataset="", message="said")
    assert str(done.answer["message"]).startswith("said\n\nNothing of this run bills any more.")
    assert (done.run and done.run.run_id, done.problem) == (call.run_id, "RuntimeError: no charts today")


def test_an_attempt_that_was_overtaken_writes_no_report(claimed: GatewayInMemory, call: Call) -> None:
    claimed.runs.update(ROW, {"state": "FAILED", "attempt": 2})
    assert publishing.publish_failure(claimed, call) == ""
    done = release(claimed, call, dataset="", message="said")
    assert (done.problem, "Report" in str(done.answer["message"])) == ("", False)


@pytest.mark.parametrize("status", ["Failed", "Stopped", "Stopping", ""])
def test_a_model_that_its_job_has_not_made_is_not_said_to_bill(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call, status: str
) -> None:
    save_plan(claimed, plan)
    claimed.artifacts.put(f"{plan.prefix}data/files.json", b'[{"training": "s3://artifacts/train.jsonl"}]')
    training.create_job(claimed, plan, call, 0)
    [name] = bedrock.created
    if status:
        bedrock.jobs[name] = msgspec.structs.replace(bedrock.jobs[name], status=status)
    else:
        bedrock.jobs.clear()
    claimed.runs.update(ROW, {"state": "FAILED"})
    told = str(release(claimed, call, dataset="", message="said").answer["message"])
    assert "custom model" not in told
    row = claimed.leases.get(f"{name}{leases.MODEL_SUFFIX}") or {}
    assert (row["state"], row["createdAt"]) == ("CLOSED" if status in {"Failed", "Stopped"} else "OPEN", None)
    report = msgspec.json.decode(claimed.artifacts.read(f"{plan.prefix}report.json"))
    assert leases.MODEL not in [resource["kind"] for resource in report["resources"]]

    bedrock.models.add(name)
    leases.open_lease(claimed, msgspec.convert({**row, "state": "OPEN"}, Lease))
    assert f"custom model {name}" in str(release_all(claimed, call, "said")["message"])


def test_what_was_refused_at_its_creation_is_said_to_have_never_been_there_and_not_to_bill(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    bedrock.refusals.append(RequestRejected("The model is not Active"))
    with pytest.raises(ServingFailed):
        serving.create_serving(claimed, plan, call, "arn:model", entered_at="now")
    told = str(release_all(claimed, call, "said")["message"])
    assert "was never there" in told
    assert "Nothing of this run bills any more." in told


def test_what_a_failed_run_releases_and_what_still_bills_is_told(claimed: GatewayInMemory, call: Call) -> None:
    claimed.runs.update(ROW, {"language": "ja"})
    told = str(release_all(claimed, call, "said")["message"])
    assert told.startswith("said\n\n")
    assert "この実行で課金が続くものはありません。" in told
