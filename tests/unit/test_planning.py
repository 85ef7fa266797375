"""The same bytes and the same request are the same run, and every mistake is named before anything starts."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from customization.errors import InvalidRunRequest
from customization.json_types import Json, JsonObject
from customization.money import AnswersUsage, TrainingUsage, Usage, check_budget, estimate, load_prices
from customization.planning import plan_run
from customization.runs import Call, read_plan
from tests.unit.fakes import EXECUTION, NOW, GatewayInMemory
from tests.unit.test_uploads import event

SECOND = EXECUTION.replace("first", "second")
CONSOLE: JsonObject = {"dataset": "support"}


@pytest.fixture
def fresh(call: Call) -> Call:
    return replace(call, run_id="", attempt=0)


@pytest.fixture
def dropped(gateway: GatewayInMemory) -> GatewayInMemory:
    gateway.data.put("incoming/support/train.jsonl", b'{"prompt": "a", "completion": "b"}\n')
    return gateway


def refusal(gateway: GatewayInMemory, call: Call, asked: Json) -> str:
    with pytest.raises(InvalidRunRequest) as caught:
        plan_run(gateway, asked, call)
    return str(caught.value)


def test_a_drop_and_the_same_data_from_the_console_are_one_run(dropped: GatewayInMemory, fresh: Call) -> None:
    first = plan_run(dropped, event(), fresh)
    assert first["outcome"] == "planned"
    again = plan_run(dropped, CONSOLE, replace(fresh, execution_arn=SECOND))
    assert again["outcome"] == "duplicate"
    assert again["runId"] == first["runId"]
    assert EXECUTION in str(again["message"])


def test_the_same_bytes_uploaded_again_are_the_same_run(dropped: GatewayInMemory, fresh: Call) -> None:
    first = plan_run(dropped, CONSOLE, fresh)
    dropped.data.put("incoming/support/train.jsonl", b'{"prompt": "a", "completion": "b"}\n')
    assert plan_run(dropped, CONSOLE, fresh)["runId"] == first["runId"]


@pytest.mark.parametrize(
    "change", [{"hyperParameters": {"epochCount": 3}}, {"subset": {"records": 10}}, {"inference": {"maxTokens": 9}}]
)
def test_what_changes_the_outcome_makes_another_run(dropped: GatewayInMemory, fresh: Call, change: JsonObject) -> None:
    assert plan_run(dropped, CONSOLE, fresh)["runId"] != plan_run(dropped, {**CONSOLE, **change}, fresh)["runId"]


@pytest.mark.parametrize("change", [{"budgetUsd": 5}, {"name": "try"}, {"tags": {"team": "a"}}, {"force": True}])
def test_what_does_not_change_the_outcome_makes_the_same_run(
    dropped: GatewayInMemory, fresh: Call, change: JsonObject
) -> None:
    assert plan_run(dropped, CONSOLE, fresh)["runId"] == plan_run(dropped, {**CONSOLE, **change}, fresh)["runId"]


def test_force_trains_again_for_every_drop_and_not_for_every_delivery_of_its_event(
    dropped: GatewayInMemory, fresh: Call
) -> None:
    dropped.data.put("incoming/support/run.json", b'{"force": true}')
    run_id = str(plan_run(dropped, event(), replace(fresh, now=NOW + timedelta(minutes=1)))["runId"])
    dropped.runs.update(run_id, {"state": "SUCCEEDED"})
    dropped.executions[SECOND] = "RUNNING"
    second = replace(fresh, execution_arn=SECOND, now=NOW + timedelta(hours=3))
    assert plan_run(dropped, event(), second)["outcome"] == "duplicate"
    assert plan_run(dropped, {**event(), "time": "2026-11-22T11:59:00Z"}, second)["attempt"] == 2


def test_the_versions_of_the_files_are_pinned(dropped: GatewayInMemory, fresh: Call) -> None:
    run_id = str(plan_run(dropped, CONSOLE, fresh)["runId"])
    pinned = read_plan(dropped, run_id).files["train.jsonl"]
    dropped.data.put("incoming/support/train.jsonl", b"something else\n")
    found = b"".join(dropped.data.chunks(pinned.key, pinned.version_id))
    assert found == b'{"prompt": "a", "completion": "b"}\n'


def test_the_files_of_an_earlier_run_can_be_run_again(dropped: GatewayInMemory, fresh: Call) -> None:
    run_id = str(plan_run(dropped, CONSOLE, fresh)["runId"])
    dropped.data.put("incoming/support/train.jsonl", b"something else\n")
    again = plan_run(dropped, {**CONSOLE, "data": run_id, "hyperParameters": {"epochCount": 3}}, fresh)
    assert read_plan(dropped, str(again["runId"])).files == read_plan(dropped, run_id).files


def test_run_json_in_the_folder_is_the_request_of_a_drop(dropped: GatewayInMemory, fresh: Call) -> None:
    dropped.data.put("incoming/support/run.json", b'{"hyperParameters": {"epochCount": 4}, "language": "ja"}')
    plan = read_plan(dropped, str(plan_run(dropped, event(), fresh)["runId"]))
    assert plan.stages[0].hyper_parameters["epochCount"] == "4"
    assert plan.language == "ja"


def ready_inputs(message: str) -> list[str]:
    return [line.partition("   ")[0] for line in message.splitlines() if line.startswith("{")]


def test_an_empty_input_is_answered_with_one_that_can_be_pasted_and_is_within_the_budget(
    dropped: GatewayInMemory, fresh: Call
) -> None:
    message = refusal(dropped, fresh, {})
    assert '{"dataset": "support", "acceptUnknownPrices": ["customAnswers"]}   (train.jsonl)' in message
    [pasted] = ready_inputs(message)
    planned = plan_run(dropped, json.loads(pasted), fresh)
    plan = read_plan(dropped, str(planned["runId"]))
    answers = AnswersUsage(input_tokens=1_000, output_tokens=1_000)
    usage = Usage(
        model=plan.base_model_identifier,
        region=plan.region,
        training=(TrainingUsage("FINE_TUNING", tokens=1_000, epochs=2),),
        baseline=answers,
        custom=answers,
        serving_mode=plan.serving_mode,
        serving_hours=1,
        stored_models=1,
    )
    check_budget(estimate(usage, load_prices(), fresh.now), plan.budget_usd, plan.accept_unknown_prices)


def test_a_folder_without_data_to_train_on_is_no_ready_input(dropped: GatewayInMemory, fresh: Call) -> None:
    dropped.data.put("incoming/halves/validation.jsonl", b"{}\n")
    dropped.data.put("incoming/texts/pretrain.jsonl", b"{}\n")
    datasets = [json.loads(line)["dataset"] for line in ready_inputs(refusal(dropped, fresh, {}))]
    assert datasets == ["support", "texts"]


def test_an_empty_input_without_any_data_says_where_to_drop_them(gateway: GatewayInMemory, fresh: Call) -> None:
    assert "Nothing lies under s3://data/incoming/ yet" in refusal(gateway, fresh, {})


def test_a_folder_without_data_is_refused_naming_it(gateway: GatewayInMemory, fresh: Call) -> None:
    assert "incoming/support/ holds no files" in refusal(gateway, fresh, CONSOLE)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"baseModelIdentifier": ', "run.json: not JSON"),
        (b"\xff\xfe{", "byte 0 is not UTF-8"),
        (b"[1]", "expected an object"),
        (b'{"dataset": "other"}', "found 'other', expected 'support'"),
        (b'{"epochs": 3}', "epochs: unknown field"),
        (b'{"baseModelIdentifier": "amazon.nova-mikro-v1:0:128k"}', "did you mean amazon.nova-micro-v1:0:128k"),
        (b'{"hyperParameters": {"epochCount": 99}}', "hyperParameters.epochCount: found 99"),
    ],
)
def test_a_wrong_run_json_is_refused_naming_what_is_wrong(
    dropped: GatewayInMemory, fresh: Call, body: bytes, told: str
) -> None:
    dropped.data.put("incoming/support/run.json", body)
    assert told in refusal(dropped, fresh, event())


@pytest.mark.parametrize(
    "asked",
    [{"action": "promote", "data": "support-0123456789"}, {"action": "rollback"}, {"action": "release"}],
)
def test_what_acts_on_earlier_runs_is_handed_on_and_is_no_run_itself(
    dropped: GatewayInMemory, fresh: Call, asked: JsonObject
) -> None:
    planned = plan_run(dropped, {**CONSOLE, **asked}, fresh)
    assert planned.items() >= {"outcome": "planned", "runId": "", "attempt": 0, "dataset": "support"}.items()
    assert planned.items() >= {"data": "newest", **asked}.items()
    assert plan_run(dropped, CONSOLE, fresh)["attempt"] == 1


def test_to_promote_the_run_must_be_named(dropped: GatewayInMemory, fresh: Call) -> None:
    assert "name the runId whose model is to be in use" in refusal(dropped, fresh, {**CONSOLE, "action": "promote"})


def test_nothing_is_claimed_for_a_request_that_is_refused(dropped: GatewayInMemory, fresh: Call) -> None:
    refusal(dropped, fresh, {**CONSOLE, "baseModelIdentifier": "nova"})
    assert plan_run(dropped, CONSOLE, fresh)["attempt"] == 1
