"""What an execution of the synthesized state machine does, with functions that answer by a script."""

import json
import re
from collections.abc import Mapping
from datetime import timedelta

import pytest

from customization.json_types import Json, JsonObject
from customization.notices import NOT_TOLD
from rehearsal.embedded.states.errors import StateError
from tests.infra.machine import Answer, definition, execute

NOTHING: JsonObject = {}
PLANNED: JsonObject = {
    "outcome": "planned",
    "runId": "support-ja-0123456789",
    "attempt": 1,
    "dataset": "support-ja",
    "action": "run",
    "data": "newest",
    "language": "ja",
    "stages": 1,
    "servingMode": "on-demand",
    "subject": "planned",
    "message": "planned",
}
CREATED: JsonObject = {"jobArn": "job-0", "status": "InProgress", "waitSeconds": 60}
SERVED: JsonObject = {"servingArn": "serving-0", "status": "Creating", "waitSeconds": 30}
DONE: JsonObject = {"status": "Completed", "waitSeconds": 0}
IN_USE: JsonObject = {
    "status": "Active",
    "waitSeconds": 0,
    "modelArn": "model-0",
    "subject": "in use",
    "message": "in use",
}
SWAPPING: JsonObject = {"status": "Updating", "waitSeconds": 60, "modelArn": "", "subject": "", "message": ""}
SERVED_IN_USE: JsonObject = {"servingArn": "serving-9", "modelName": "9", "baseModelIdentifier": "base"}


@pytest.fixture(scope="module")
def machine(templates: dict[str, JsonObject]) -> JsonObject:
    return definition(templates["pipeline"])


def _script(**changes: Answer | list[Answer]) -> dict[str, Answer | list[Answer]]:
    """Return the answers of a run that goes well, with `changes`."""
    return {
        "topic": {"MessageId": "1"},
        "poll_uploads": {"status": "complete", "waitSeconds": 0},
        "plan_run": PLANNED,
        "check_preconditions": {"baselineAvailable": True, "modelInUse": {}, "notes": []},
        "prepare_dataset": {"testShards": 3, "estimatedUsd": 1.5, "subject": "estimate", "message": "estimate"},
        "is_within_budget": {"subject": "start", "message": "start"},
        "evaluate_shard": {"answered": 10, "failed": 1},
        "create_customization_job": CREATED,
        "poll_customization_job": [{"status": "InProgress", "waitSeconds": 60}, DONE],
        "collect_training_metrics": lambda payload: {"modelArn": f"model-{payload['stage']}"},
        "create_model_deployment": SERVED,
        "poll_model_deployment": [SERVED, {"status": "Active", "waitSeconds": 0}],
        "create_provisioned_throughput": SERVED,
        "poll_provisioned_throughput": [SERVED, {"status": "InService", "waitSeconds": 0}],
        "compare_models": {"verdict": "better", "promote": True},
        "promote_model": {"status": "Active", "waitSeconds": 0},
        "change_model_in_use": IN_USE,
        "release_serving": {"released": []},
        "release_model": NOTHING,
        "publish_report": {"reportUri": "s3://report", "subject": "done", "message": "done"},
        "record_failure": {"error": "E", "cause": "C", "fix": "F", "subject": "failed", "message": "C F"},
        "release_resources": lambda payload: {"released": [], "message": f"{payload.get('message', '')} - released"},
        **changes,
    }


def _subjects(notices: list[JsonObject]) -> list[Json]:
    return [notice["Subject"] for notice in notices]


def test_a_run_goes_from_upload_to_report_by_on_demand_deployment(machine: JsonObject) -> None:
    execution, script = execute(machine, _script())
    assert execution.outcome.status == "SUCCEEDED", execution.outcome
    assert json.loads(execution.outcome.output or "") == {
        "runId": "support-ja-0123456789",
        "verdict": "better",
        "reportUri": "s3://report",
    }
    shards = ["evaluate_shard"] * 3
    assert script.modules() == [
        *("poll_uploads", "plan_run", "check_preconditions", "prepare_dataset", "is_within_budget"),
        *shards,
        *("create_customization_job", "poll_customization_job", "poll_customization_job", "collect_training_metrics"),
        *("create_model_deployment", "poll_model_deployment", "poll_model_deployment"),
        *shards,
        *("release_serving", "compare_models", "promote_model", "release_model", "publish_report"),
    ]
    assert _subjects(script.notices) == ["start", "done"]


def test_a_model_in_use_that_answers_is_asked_the_same_records_before_the_training(machine: JsonObject) -> None:
    asked: JsonObject = {"baselineAvailable": False, "modelInUse": SERVED_IN_USE}
    execution, script = execute(machine, _script(check_preconditions=asked))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome
    shards = [payload for module, payload in script.calls if module == "evaluate_shard"]
    assert [payload["side"] for payload in shards] == ["inUse"] * 3 + ["custom"] * 3
    assert all(payload["modelInUse"] == SERVED_IN_USE for payload in shards)
    modules = script.modules()
    assert modules.index("evaluate_shard") < modules.index("create_customization_job")


def test_a_model_in_use_that_does_not_answer_does_not_stop_the_run(machine: JsonObject) -> None:
    def answer(payload: JsonObject) -> JsonObject:
        if payload["side"] == "inUse":
            raise StateError("ResourceNotFound", "somebody has deleted it")
        return {"answered": 10, "failed": 0}

    asked: JsonObject = {"baselineAvailable": True, "modelInUse": SERVED_IN_USE}
    execution, script = execute(machine, _script(check_preconditions=asked, evaluate_shard=answer))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome
    assert "record_failure" not in script.modules()


def test_a_shard_whose_time_is_over_is_called_again_until_it_is_done(machine: JsonObject) -> None:
    over = StateError("EvaluationUnfinished", "40 of 500 records were not asked")
    execution, script = execute(
        machine,
        _script(
            prepare_dataset={"testShards": 1, "estimatedUsd": 1.5, "subject": "s", "message": "m"},
            evaluate_shard=[*[over] * 20, {"answered": 500, "failed": 0}],
        ),
    )
    assert execution.outcome.status == "SUCCEEDED", execution.outcome
    assert script.modules().count("evaluate_shard") == 20 + 2


def test_promotion_waits_until_the_deployment_serves_the_other_model(machine: JsonObject) -> None:
    execution, script = execute(machine, _script(promote_model=[SWAPPING, SWAPPING, IN_USE]))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome
    assert script.modules()[-5:] == [*["promote_model"] * 3, "release_model", "publish_report"]
    planned: JsonObject = {**PLANNED, "action": "rollback"}
    execution, script = execute(machine, _script(plan_run=planned, change_model_in_use=[SWAPPING, IN_USE]))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome
    assert _subjects(script.notices) == ["in use"]


def test_every_function_is_sent_what_the_contract_names(machine: JsonObject) -> None:
    execution, script = execute(machine, _script())
    run = {"executionArn": execution.arn, "runId": "support-ja-0123456789", "attempt": 1}
    for module, payload in script.calls:
        sent = {name: value for name, value in payload.items() if name != "now"}
        assert re.fullmatch(r"2025-01-18T\d\d:\d\d:\d\d\.\d{3}Z", str(payload["now"]))
        if module in ("poll_uploads", "plan_run"):
            started = {"startedAt": "2025-01-18T09:00:00.000Z"} if module == "poll_uploads" else {}
            assert sent == {"executionArn": execution.arn, "input": {"dataset": "support-ja"}, **started}
        else:
            assert run.items() <= sent.items(), module
    assert script.payload("poll_customization_job").items() >= {"stage": 0, "jobArn": "job-0"}.items()
    assert script.payload("create_model_deployment")["modelArn"] == "model-0"
    assert script.payload("promote_model").items() >= {"servingArn": "serving-0", "modelArn": "model-0"}.items()
    asked = [(p["side"], p["shard"], p["servingArn"]) for module, p in script.calls if module == "evaluate_shard"]
    assert sorted(asked, key=str) == [
        *(("base", shard, "") for shard in range(3)),
        *(("custom", shard, "serving-0") for shard in range(3)),
    ]


def test_two_stages_are_two_jobs_and_provisioned_throughput_serves_the_last_model(machine: JsonObject) -> None:
    plan = {**PLANNED, "stages": 2, "servingMode": "provisioned"}
    _, script = execute(machine, _script(plan_run=plan, poll_customization_job=DONE))
    stages = [payload["stage"] for module, payload in script.calls if module == "create_customization_job"]
    assert stages == [0, 1]
    assert script.payload("create_provisioned_throughput")["modelArn"] == "model-1"
    assert "create_model_deployment" not in script.modules()


@pytest.mark.parametrize(
    ("changes", "skipped"),
    [
        ({"plan_run": {**PLANNED, "servingMode": "none"}}, "create_model_deployment"),
        ({"compare_models": {"verdict": "worse", "promote": False}}, "promote_model"),
        (
            {
                "check_preconditions": {"baselineAvailable": False, "modelInUse": {}, "notes": ["gone"]},
                "plan_run": {**PLANNED, "servingMode": "none"},
            },
            "evaluate_shard",
        ),
    ],
)
def test_what_is_not_needed_is_skipped(
    machine: JsonObject, changes: Mapping[str, Answer | list[Answer]], skipped: str
) -> None:
    execution, script = execute(machine, _script(**changes))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome
    assert skipped not in script.modules()


def test_a_run_without_test_records_asks_nobody(machine: JsonObject) -> None:
    none: JsonObject = {"testShards": 0, "estimatedUsd": 1.5, "subject": "estimate", "message": "estimate"}
    execution, script = execute(machine, _script(prepare_dataset=none))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome
    assert "evaluate_shard" not in script.modules()


@pytest.mark.parametrize(
    ("changes", "last", "output", "subjects"),
    [
        ({"poll_uploads": {"status": "joined", "waitSeconds": 0}}, "poll_uploads", {}, []),
        (
            {"plan_run": {**PLANNED, "outcome": "duplicate"}},
            "plan_run",
            {"runId": "support-ja-0123456789"},
            ["planned"],
        ),
        (
            {"plan_run": {**PLANNED, "action": "release"}},
            "release_resources",
            {"runId": "support-ja-0123456789"},
            [],
        ),
        (
            {"plan_run": {**PLANNED, "action": "promote", "data": "support-ja-0123456789"}},
            "change_model_in_use",
            {"dataset": "support-ja", "modelArn": "model-0"},
            ["in use"],
        ),
        (
            {"plan_run": {**PLANNED, "action": "rollback"}},
            "change_model_in_use",
            {"dataset": "support-ja", "modelArn": "model-0"},
            ["in use"],
        ),
        (
            {"plan_run": {**PLANNED, "action": "estimate"}},
            "prepare_dataset",
            {"runId": "support-ja-0123456789", "estimatedUsd": 1.5},
            ["estimate"],
        ),
    ],
)
def test_what_is_no_training_ends_green_and_early(
    machine: JsonObject,
    changes: Mapping[str, Answer | list[Answer]],
    last: str,
    output: JsonObject,
    subjects: list[str],
) -> None:
    execution, script = execute(machine, _script(**changes))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome
    assert (script.modules()[-1], json.loads(execution.outcome.output or "")) == (last, output)
    assert _subjects(script.notices) == subjects


def test_a_folder_that_fills_is_looked_at_again_after_the_seconds_that_were_asked_for(machine: JsonObject) -> None:
    polls: list[Answer] = [{"status": "waiting", "waitSeconds": 45}, {"status": "complete", "waitSeconds": 0}]
    _, script = execute(machine, _script(poll_uploads=polls))
    times = [payload["now"] for module, payload in script.calls if module == "poll_uploads"]
    assert times == ["2025-01-18T09:00:00.000Z", "2025-01-18T09:00:45.000Z"]


FUNCTIONS_BEFORE_THE_END = [name for name in _script() if name not in ("topic", "record_failure", "release_resources")]


@pytest.mark.parametrize("module", FUNCTIONS_BEFORE_THE_END)
def test_any_function_that_fails_is_recorded_released_told_and_ends_red(machine: JsonObject, module: str) -> None:
    plan = {
        **PLANNED,
        "servingMode": "provisioned" if "provisioned" in module else "on-demand",
        "action": "promote" if module == "change_model_in_use" else "run",
    }
    broken = _script(plan_run=plan) | {module: StateError("AccessDenied", "the role lacks a permission")}
    execution, script = execute(machine, broken)
    assert (execution.outcome.status, execution.outcome.error, execution.outcome.cause) == ("FAILED", "E", "C")
    # Shards that were already under way may answer after one has failed
    assert [name for name in script.modules() if name != "evaluate_shard"][-2:] == [
        "record_failure",
        "release_resources",
    ]
    assert _subjects(script.notices)[-1] == "failed"
    if module == "evaluate_shard":
        expected = ("States.ExceedToleratedFailureThreshold", "EvaluateBaseline")
    else:
        expected = ("AccessDenied", "".join(word.capitalize() for word in module.split("_")))
    recorded = script.payload("record_failure")
    assert (recorded["error"], recorded["failedState"]) == expected


def test_a_failure_before_the_plan_has_no_run_but_is_told(machine: JsonObject) -> None:
    _, script = execute(machine, _script(plan_run=StateError("InvalidRunRequest", "dataset: expected a name")))
    recorded = script.payload("record_failure")
    assert (recorded["runId"], recorded["attempt"]) == ("", 0)
    assert _subjects(script.notices) == ["failed"]


def test_what_promotes_is_sent_the_request_and_a_failure_touches_no_run(machine: JsonObject) -> None:
    asked: JsonObject = {"action": "promote", "dataset": "support-ja", "data": "support-ja-0123456789"}
    planned: JsonObject = {**PLANNED, **asked, "runId": "", "attempt": 0}
    gone = StateError("InvalidRunRequest", "data: the custom model does not exist any more")
    _, script = execute(machine, _script(plan_run=planned, change_model_in_use=gone))
    assert asked.items() <= script.payload("change_model_in_use").items()
    assert {script.payload(module)["language"] for module in ("change_model_in_use", "record_failure")} == {"ja"}
    for module in ("record_failure", "release_resources"):
        payload = script.payload(module)
        assert (payload["runId"], payload["attempt"]) == ("", 0)
        assert "support-ja-0123456789" not in str(payload)


def test_a_task_that_times_out_has_no_cause_and_is_recorded_all_the_same(machine: JsonObject) -> None:
    _, script = execute(machine, _script(check_preconditions=StateError("States.Timeout", None)))
    recorded = script.payload("record_failure")
    assert (recorded["error"], recorded["cause"]) == ("States.Timeout", "")


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        (
            json.dumps({"errorType": "X", "errorMessage": 'line 3: "no"\n\\ 行', "stackTrace": ["  File"]}),
            'line 3: "no"\n\\ 行',
        ),
        (json.dumps({"errorMessage": "行"}, ensure_ascii=False, separators=(",", ":")), "行"),
        (json.dumps({"errorMessage": "x" * 20_000}), "x" * 20_000),
        ('{"errorMessage": "cut o', '{"errorMessage": "cut o'),
        ('{"errorMessage": null}', '{"errorMessage": null}'),
        ("the role lacks a permission", "the role lacks a permission"),
    ],
)
def test_a_cause_is_the_sentence_in_what_a_function_raises_though_the_failure_cannot_be_recorded(
    machine: JsonObject, cause: str, sentence: str
) -> None:
    broken = _script(check_preconditions=StateError("X", cause), record_failure=StateError("AccessDenied", cause))
    execution, script = execute(machine, broken)
    assert execution.outcome.cause == script.payload("record_failure")["cause"] == sentence
    (notice,) = script.notices
    assert str(notice["Message"]).count(sentence) == 2


def test_what_bills_is_released_and_told_though_the_failure_cannot_be_recorded(machine: JsonObject) -> None:
    broken = _script(
        is_within_budget=StateError("BudgetExceeded", 'it\'s "over" 20 USD\nby 5'),
        record_failure=StateError("AccessDenied", "no table"),
    )
    execution, script = execute(machine, broken)
    assert script.modules()[-2:] == ["record_failure", "release_resources"]
    (notice,) = script.notices
    assert notice["Subject"] == "Failed: support-ja-0123456789"
    assert notice["Message"] == (
        'IsWithinBudget ended with BudgetExceeded: it\'s "over" 20 USD\nby 5\n\n'
        f"The failure could not be recorded: no table\n\n{execution.arn} - released"
    )
    assert (execution.outcome.status, execution.outcome.error) == ("FAILED", "BudgetExceeded")


def test_a_notice_is_told_once_its_topic_answers_again(machine: JsonObject) -> None:
    trouble = [StateError("States.Timeout", None)] * 6 + [StateError("SNS.InternalErrorException", "no")] * 6
    execution, script = execute(machine, _script(topic=[*trouble, {"MessageId": "1"}]))
    assert execution.outcome.status == "SUCCEEDED"
    # The start is not tried for long; all others are the result, told at last
    assert len(script.notices) == len(trouble) + 1
    starts = script.notices.count(script.notices[0])
    assert starts == 4
    assert script.notices.count(script.notices[-1]) == len(script.notices) - starts


def test_a_failure_ends_red_though_releasing_and_telling_fail_too(machine: JsonObject) -> None:
    lost = StateError("SNS.AuthorizationErrorException", "no")
    execution, _ = execute(
        machine,
        _script(
            publish_report=StateError("AccessDenied", "x"), release_resources=StateError("Conflict", "y"), topic=lost
        ),
    )
    assert (execution.outcome.status, execution.outcome.error) == ("FAILED", f"E{NOT_TOLD}")


def test_a_run_succeeds_though_no_notice_arrives(machine: JsonObject) -> None:
    execution, script = execute(machine, _script(topic=StateError("SNS.AuthorizationErrorException", "no")))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome
    assert "record_failure" not in script.modules()


@pytest.mark.parametrize(
    ("changes", "state", "cause"),
    [
        ({"poll_uploads": {"status": "odd", "waitSeconds": 0}}, "AreUploadsComplete", "No branch for odd"),
        (
            {"plan_run": {**PLANNED, "action": "borrow"}},
            "WhatIsPlanned",
            'No branch for {"outcome":"planned","action":"borrow"}',
        ),
        (
            {"poll_customization_job": {"status": "Paused", "waitSeconds": 60}},
            "IsCustomizationJobFinished",
            "No branch for Paused",
        ),
        ({"plan_run": {**PLANNED, "servingMode": "magic"}}, "IsServingNeeded", "No branch for magic"),
        (
            {"poll_model_deployment": {"status": "Failed", "waitSeconds": 1}},
            "IsModelDeploymentActive",
            "No branch for Failed",
        ),
    ],
)
def test_a_status_that_nobody_knows_ends_the_run_instead_of_being_waited_for(
    machine: JsonObject, changes: Mapping[str, Answer | list[Answer]], state: str, cause: str
) -> None:
    _, script = execute(machine, _script(**changes))
    recorded = script.payload("record_failure")
    assert (recorded["error"], recorded["failedState"], recorded["cause"]) == ("UnexpectedStatus", state, cause)


def test_transient_errors_are_tried_again_and_a_quota_is_waited_for(machine: JsonObject) -> None:
    full = StateError("QuotaUnavailable", "10 jobs are scheduled")
    execution, script = execute(
        machine,
        _script(
            plan_run=[StateError("Throttled", "slow down"), PLANNED],
            create_customization_job=[full, full, CREATED],
        ),
    )
    assert execution.outcome.status == "SUCCEEDED", execution.outcome
    times = [str(payload["now"])[11:16] for module, payload in script.calls if module == "create_customization_job"]
    # Each attempt has its own time, as what it creates is paid for from then on
    minutes = [int(time[:2]) * 60 + int(time[3:]) for time in times]
    assert [minute - minutes[0] for minute in minutes] == [0, 5, 10]
    assert execution.outcome.stopped is not None
    assert execution.outcome.stopped - execution.started > timedelta(minutes=10)


def test_a_look_at_the_job_costs_nine_events_and_all_else_of_a_run_fewer_than_140(machine: JsonObject) -> None:
    look: Answer = {"status": "InProgress", "waitSeconds": 900}
    few, _ = execute(machine, _script(poll_customization_job=DONE))
    many, _ = execute(machine, _script(poll_customization_job=[*[look] * 96, DONE]))
    assert len(many.history.events) == len(few.history.events) + 96 * 9
    assert len(few.history.events) < 140
    assert many.outcome.stopped is not None
    assert many.outcome.stopped - many.started >= timedelta(hours=24)
