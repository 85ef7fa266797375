import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customization.json_types import Json, JsonObject, as_object
from rehearsal.embedded.states.definition import UnsupportedDefinitionError, check_definition
from rehearsal.embedded.states.errors import StateError
from tests.unit.machine_harness import MACHINE, Run, task

CATCH: JsonObject = {
    "ErrorEquals": ["States.ALL"],
    "Assign": {"error": "{% $states.errorOutput.Error %}", "failedState": "{% $states.context.State.Name %}"},
    "Next": "Caught",
}
CAUGHT: JsonObject = {"Type": "Succeed", "Output": {"error": "{% $error %}", "in": "{% $failedState %}"}}


def failing(*errors: str) -> Callable[[JsonObject], Json]:
    """Return a task that fails with each of `errors` in turn and then succeeds."""
    left = list(errors)

    def answer(_: JsonObject) -> Json:
        if left:
            raise StateError(left.pop(0), "because")
        return "done"

    return answer


@given(st.text())
def test_any_text_passes_through_expressions_unchanged(text: str) -> None:
    states: JsonObject = {
        "Keep": {"Type": "Pass", "Assign": {"kept": "{% $states.input.text %}"}, "Next": "Give"},
        "Give": {"Type": "Succeed", "Output": "{% $kept %}"},
    }
    assert json.loads(str(Run(states, value={"text": text}).finish().output)) == text


def test_null_is_a_value_and_nothing_is_an_error() -> None:
    give: JsonObject = {"Give": {"Type": "Succeed", "Output": "{% $states.input.field %}"}}
    assert Run(give, value={"field": None}).finish().output == "null"

    outcome = Run(give, value={}).finish().execution.outcome
    assert outcome.error == "States.QueryEvaluationError"
    assert "returned nothing" in str(outcome.cause)


def test_assign_and_output_see_the_variables_from_before() -> None:
    states: JsonObject = {
        "First": {"Type": "Pass", "Assign": {"n": 1}, "Next": "Second"},
        "Second": {"Type": "Pass", "Assign": {"n": "{% $n + 1 %}"}, "Output": "{% $n %}", "Next": "Third"},
        "Third": {"Type": "Succeed", "Output": ["{% $states.input %}", "{% $n %}"]},
    }
    assert Run(states).finish().output == "[1,2]"


def test_the_context_object_tells_virtual_times_and_names() -> None:
    states: JsonObject = {
        "Wait": {"Type": "Wait", "Seconds": 90, "Next": "Give"},
        "Give": {
            "Type": "Succeed",
            "Output": [
                "{% $states.context.Execution.StartTime %}",
                "{% $states.context.State.EnteredTime %}",
                "{% $now() %}",
                "{% $states.context.Execution.Id %}",
                "{% $states.context.State.Name %}",
            ],
        },
    }
    assert json.loads(str(Run(states).finish().output)) == [
        "2025-01-18T09:00:00.000Z",
        "2025-01-18T09:01:30.000Z",
        "2025-01-18T09:01:30.000Z",
        "arn:aws:states:us-east-1:123456789012:execution:pipeline:first",
        "Give",
    ]


def test_retries_back_off_on_virtual_time_and_are_counted_anew_for_each_entry() -> None:
    retry: Json = [{"ErrorEquals": ["Throttled"], "IntervalSeconds": 10, "BackoffRate": 2, "MaxAttempts": 2}]
    outcomes = iter(["Throttled", "Throttled", "", "Throttled", "Throttled", ""])

    def answer(payload: JsonObject) -> Json:
        error = next(outcomes)
        if error:
            raise StateError(error, "because")
        return payload

    run = Run({"Ask": task(Retry=retry, Next="Again"), "Again": task(Retry=retry)}, answer).finish()

    assert run.execution.outcome.status == "SUCCEEDED"
    assert run.seconds == 2 * (10 + 20)


def test_retries_end_at_their_maximum_and_leave_the_error_to_catch() -> None:
    retry: Json = [{"ErrorEquals": ["Throttled"], "IntervalSeconds": 100, "MaxDelaySeconds": 150, "MaxAttempts": 2}]
    run = Run({"Ask": task(Retry=retry, Catch=[CATCH]), "Caught": CAUGHT}, failing(*["Throttled"] * 9)).finish()

    assert json.loads(str(run.output)) == {"error": "Throttled", "in": "Ask"}
    assert run.seconds == 100 + 150


def test_full_jitter_waits_at_most_the_interval() -> None:
    retry: Json = [{"ErrorEquals": ["Throttled"], "IntervalSeconds": 1000, "JitterStrategy": "FULL"}]
    assert 0 < Run({"Ask": task(Retry=retry)}, failing("Throttled")).finish().seconds < 1000


def test_an_error_of_another_name_is_not_retried() -> None:
    retry: Json = [{"ErrorEquals": ["Throttled"]}]
    outcome = Run({"Ask": task(Retry=retry)}, failing("InvalidDataset")).finish().execution.outcome
    assert (outcome.status, outcome.error, outcome.cause) == ("FAILED", "InvalidDataset", "because")


@pytest.mark.parametrize("error", ["States.Runtime", "States.DataLimitExceeded"])
def test_an_error_of_the_service_itself_passes_every_catch_of_all(error: str) -> None:
    run = Run({"Ask": task(Catch=[CATCH]), "Caught": CAUGHT}, failing(error)).finish()
    assert run.execution.outcome.error == error


def test_a_task_that_takes_too_long_times_out_without_a_cause() -> None:
    caught: JsonObject = {**CATCH, "Output": "{% $exists($states.errorOutput.Cause) %}"}
    run = Run(
        {"Ask": task(TimeoutSeconds=60, Catch=[caught]), "Caught": {"Type": "Succeed"}},
        lambda _: run.clock.sleep(3600),
    )
    run.finish()

    assert run.output == "false"
    assert run.execution.outcome.stopped is not None
    assert (run.execution.outcome.stopped - run.execution.started).total_seconds() == 60


def test_a_catch_that_expects_a_cause_after_a_timeout_fails_as_on_aws() -> None:
    caught: JsonObject = {**CATCH, "Output": "{% $states.errorOutput.Cause %}"}
    run = Run(
        {"Ask": task(TimeoutSeconds=60, Catch=[caught]), "Caught": {"Type": "Succeed"}},
        lambda _: run.clock.sleep(3600),
    )
    assert run.finish().execution.outcome.error == "States.QueryEvaluationError"


def test_a_choice_without_a_match_and_default_cannot_be_caught() -> None:
    states: JsonObject = {
        "Choose": {"Type": "Choice", "Choices": [{"Condition": "{% $states.input = 1 %}", "Next": "One"}]},
        "One": {"Type": "Succeed"},
    }
    assert Run(states, value=1).finish().execution.outcome.status == "SUCCEEDED"
    outcome = Run(states, value=2).finish().execution.outcome
    assert outcome.error == "States.Runtime"
    assert "does not point to a next state" in str(outcome.cause)


def test_a_condition_must_be_a_boolean() -> None:
    states: JsonObject = {
        "Choose": {"Type": "Choice", "Choices": [{"Condition": "{% 'yes' %}", "Next": "One"}], "Default": "One"},
        "One": {"Type": "Succeed"},
    }
    assert Run(states).finish().execution.outcome.error == "States.QueryEvaluationError"


def test_a_machine_that_takes_too_long_times_out() -> None:
    states: JsonObject = {"Wait": {"Type": "Wait", "Seconds": 7200, "Next": "End"}, "End": {"Type": "Succeed"}}
    run = Run(states, timeout=3600).finish()
    assert run.execution.outcome.status == "TIMED_OUT"
    assert run.seconds == 3600
    assert run.changes == ["RUNNING", "TIMED_OUT"]


def test_stopping_wakes_a_waiting_execution_and_passes_every_catch() -> None:
    run = Run(
        {"Ask": task(Catch=[CATCH]), "Caught": CAUGHT},
        lambda _: run.clock.sleep(7200),
    )
    with run.clock.hold():
        run.execution.start()
        run.clock.call_at(run.execution.started.replace(hour=10), lambda: run.execution.stop("Manual", "enough"))
    run.clock.wait_until_idle(20)

    outcome = run.execution.outcome
    assert (outcome.status, outcome.error, outcome.cause) == ("ABORTED", "Manual", "enough")
    assert run.visited() == ["Ask"]
    assert run.execution.history.events[-1]["type"] == "ExecutionAborted"


def test_a_result_above_the_quota_fails_the_execution() -> None:
    run = Run({"Ask": task(Catch=[CATCH]), "Caught": CAUGHT}, lambda _: "x" * 262_144).finish()
    assert run.execution.outcome.error == "States.DataLimitExceeded"


def test_a_fault_of_the_rehearsal_ends_the_execution_and_says_so() -> None:
    def broken(_: JsonObject) -> Json:
        raise KeyError("nothing")

    outcome = Run({"Ask": task()}, broken).finish().execution.outcome
    assert outcome.error == "States.Runtime"
    assert "rehearsal itself" in str(outcome.cause)


def shards(count: int, **fields: Json) -> JsonObject:
    """Return a Distributed Map over numbers."""
    child = task(Arguments={"FunctionName": "f", "Payload": "{% $states.input %}"})
    processor: JsonObject = {
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
        "StartAt": "Shard",
        "States": {"Shard": child},
    }
    selector: JsonObject = {
        "shard": "{% $states.context.Map.Item.Value %}",
        "execution": "{% $states.context.Execution.Id %}",
    }
    items: list[Json] = list(range(count))
    return {"Type": "Map", "Items": items, "ItemSelector": selector, "ItemProcessor": processor, "End": True, **fields}


def test_a_map_runs_its_children_side_by_side_within_its_concurrency_and_keeps_their_order() -> None:
    running: list[int] = []
    most: list[int] = []

    def answer(payload: JsonObject) -> Json:
        running.append(1)
        most.append(len(running))
        run.clock.sleep(60)
        running.pop()
        return payload["shard"]

    run = Run({"Shards": shards(10, MaxConcurrency=4)}, answer)
    run.finish()

    assert run.output == "[0,1,2,3,4,5,6,7,8,9]"
    assert max(most) == 4
    assert run.seconds == 3 * 60


def test_children_have_an_execution_of_their_own_and_no_variables_of_the_parent() -> None:
    child: JsonObject = {
        "Type": "Pass",
        "Output": {"mine": "{% $states.context.Execution.Id %}", "sees": "{% $exists($secret) %}"},
        "End": True,
    }
    shard = shards(1)
    shard["ItemProcessor"] = {**as_object(shard["ItemProcessor"], "ItemProcessor"), "States": {"Shard": child}}
    states: JsonObject = {"Keep": {"Type": "Pass", "Assign": {"secret": 1}, "Next": "Shards"}, "Shards": shard}
    [found] = json.loads(str(Run(states).finish().output))

    assert found["sees"] is False
    assert found["mine"].startswith("arn:aws:states:us-east-1:123456789012:execution:pipeline/Shards:")


@pytest.mark.parametrize(
    ("fields", "failed", "status"),
    [
        ({}, 1, "FAILED"),
        ({"ToleratedFailureCount": 2}, 2, "SUCCEEDED"),
        ({"ToleratedFailureCount": 2}, 3, "FAILED"),
        ({"ToleratedFailurePercentage": 20}, 2, "SUCCEEDED"),
        ({"ToleratedFailurePercentage": 20}, 3, "FAILED"),
    ],
)
def test_a_map_fails_above_its_tolerated_failures(fields: JsonObject, failed: int, status: str) -> None:
    def answer(payload: JsonObject) -> Json:
        if int(str(payload["shard"])) < failed:
            raise StateError("EvaluationFailed", "because")
        return payload["shard"]

    outcome = Run({"Shards": shards(10, **fields)}, answer).finish().execution.outcome
    assert outcome.status == status
    assert outcome.error == (None if status == "SUCCEEDED" else "States.ExceedToleratedFailureThreshold")


def test_stopping_an_execution_stops_the_children_of_its_map() -> None:
    calls: list[Json] = []

    def answer(payload: JsonObject) -> Json:
        calls.append(payload["shard"])
        run.clock.sleep(600)
        return None

    run = Run({"Shards": shards(10, MaxConcurrency=2)}, answer)
    with run.clock.hold():
        run.execution.start()
        run.clock.call_at(run.execution.started.replace(minute=5), lambda: run.execution.stop(None, None))
    run.clock.wait_until_idle(20)

    assert run.execution.outcome.status == "ABORTED"
    assert sorted(map(str, calls)) == ["0", "1"]


def test_a_map_whose_role_may_not_start_its_own_machine_fails() -> None:
    def forbid() -> None:
        raise StateError("States.Permissions", "not authorized to perform: states:StartExecution")

    run = Run({"Shards": shards(1)})
    run.tasks.children_allowed = forbid
    assert run.finish().execution.outcome.error == "States.Permissions"


def test_the_history_tells_every_step_with_virtual_times() -> None:
    retry: Json = [{"ErrorEquals": ["Throttled"], "IntervalSeconds": 30}]
    run = Run({"Ask": task(Retry=retry)}, failing("Throttled")).finish()
    told = [
        (event["type"], (event["timestamp"] - run.execution.started).seconds) for event in run.execution.history.events
    ]

    assert told == [
        ("ExecutionStarted", 0),
        ("TaskStateEntered", 0),
        ("TaskScheduled", 0),
        ("TaskStarted", 0),
        ("TaskFailed", 0),
        ("TaskScheduled", 30),
        ("TaskStarted", 30),
        ("TaskSucceeded", 30),
        ("TaskStateExited", 30),
        ("ExecutionSucceeded", 30),
    ]


def test_an_endless_loop_ends_at_the_limit_of_the_history() -> None:
    states: JsonObject = {"Loop": {"Type": "Pass", "Next": "Loop"}}
    outcome = Run(states).finish().execution.outcome
    assert outcome.error == "States.Runtime"
    assert "25000" in str(outcome.cause)


@pytest.mark.parametrize(
    ("states", "problem"),
    [
        ({"A": {"Type": "Parallel", "Branches": [], "End": True}}, "A: state type Parallel"),
        ({"A": task(HeartbeatSeconds=5)}, "A: field HeartbeatSeconds .* heartbeats"),
        ({"A": {"Type": "Pass", "InputPath": "$.a", "End": True}}, "A: field InputPath"),
        ({"A": task(Resource="arn:aws:states:::sqs:sendMessage")}, "A: integration arn:aws:states:::sqs:sendMessage"),
        ({"A": shards(1, ResultWriter={})}, "A: field ResultWriter"),
        ({"A": {"Type": "Pass", "Next": "B"}}, "A: there is no state 'B'"),
        ({"A": {"Type": "Pass"}}, "A: exactly one of Next and End"),
        ({"A": {"Type": "Succeed", "Output": "{% $eval('1') %}"}}, r"A/Output: function \$eval"),
        ({"A": {"Type": "Succeed", "Output": "{% 1 + %}"}}, "A/Output: .*end of expression"),
    ],
)
def test_a_definition_that_would_not_run_as_on_aws_is_refused_by_place(states: JsonObject, problem: str) -> None:
    with pytest.raises(UnsupportedDefinitionError, match=problem):
        check_definition({"QueryLanguage": "JSONata", "StartAt": "A", "States": states})


def test_jsonpath_is_refused() -> None:
    with pytest.raises(UnsupportedDefinitionError, match="QueryLanguage must be JSONata"):
        check_definition({"StartAt": "A", "States": {"A": {"Type": "Succeed"}}})


def test_the_detail_of_a_status_change_event_is_that_of_step_functions() -> None:
    run = Run({"Ask": task(Catch=[])}, failing("Broken"), value={"a": 1}).finish()
    detail = run.execution.status_change()
    assert run.changes == ["RUNNING", "FAILED"]
    assert {key: detail[key] for key in ("stateMachineArn", "status", "input", "startDate", "error")} == {
        "stateMachineArn": MACHINE,
        "status": "FAILED",
        "input": '{"a":1}',
        "startDate": 1737190800000,
        "error": "Broken",
    }
