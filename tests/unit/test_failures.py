"""A cause is a sentence, and a documented message comes with what to do."""

import json
from dataclasses import replace

import pytest

from customization import publishing
from customization.failures import explain, record_failure
from customization.handlers import release_resources
from customization.promotion import release_all
from customization.runs import Call
from tests.unit.fakes import GatewayInMemory

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
    ],
)
def test_a_documented_failure_comes_with_its_fix(error: str, message: str, fix: str) -> None:
    failure = explain(error, lambda_cause(error, message))
    assert fix in failure.fix
    assert message in failure.cause


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
    claimed.runs.update(ROW, {"shardError": "AccessDenied: not authorized to perform: bedrock:InvokeModel"})
    told = record_failure(claimed, call, "States.ExceedToleratedFailureThreshold", "", "EvaluateBaseline")
    assert "bedrock:InvokeModel" in str(told["cause"])


def test_a_failure_before_the_run_was_planned_releases_nothing(gateway: GatewayInMemory, call: Call) -> None:
    assert release_all(gateway, replace(call, run_id=""), "said") == {"released": [], "message": "said"}


def test_a_report_that_cannot_be_written_takes_nothing_from_the_failure_path(
    claimed: GatewayInMemory, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise RuntimeError("no charts today")

    monkeypatch.setattr(publishing, "publish_failure", fail)
    assert release_resources._reported(claimed, call, "said") == "said"


def test_an_attempt_that_was_overtaken_writes_no_report(claimed: GatewayInMemory, call: Call) -> None:
    claimed.runs.update(ROW, {"state": "FAILED", "attempt": 2})
    assert publishing.publish_failure(claimed, call) == ""
    assert release_resources._reported(claimed, call, "said") == "said"


def test_what_a_failed_run_releases_and_what_still_bills_is_told(claimed: GatewayInMemory, call: Call) -> None:
    claimed.runs.update(ROW, {"language": "ja"})
    told = str(release_all(claimed, call, "said")["message"])
    assert told.startswith("said\n\n")
    assert "この実行で課金が続くものはありません。" in told
