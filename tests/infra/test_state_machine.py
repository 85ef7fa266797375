"""What the state machine promises: nothing fails unseen, nothing loops, nothing waits for ever, every turn is wired."""

import re
from datetime import timedelta

import pytest

from customization import errors
from customization.json_types import Json, JsonObject, as_int, as_list, as_object, as_text
from tests.infra.machine import all_states, caught, definition, function_modules, states, transitions
from tests.infra.synthesis import at, resources

# Step Functions guide, "Handling errors": what the Lambda integration reports of the service and of a function's crash
LAMBDA_ERRORS = {
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.TooManyRequestsException",
    "Sandbox.Timedout",
    "Runtime.ExitError",
}
# Publishing has no list of transient errors, and a notice that comes twice does no harm. Alone and last, as it must be.
PUBLISHING_ERRORS = {"States.ALL"}
SHARED_MODULES = {
    "ReleaseRun": "release_resources",
    "EvaluateBaselineShard": "evaluate_shard",
    "EvaluateModelInUseShard": "evaluate_shard",
    "EvaluateCustomModelShard": "evaluate_shard",
}
# A notice that is lost undoes nothing; the failure's own notice is the last thing before the end
LENIENT_NOTICES = {
    "NotifyStart": "IsBaselineNeeded",
    "NotifyDuplicate": "DuplicateRun",
    "NotifyModelInUse": "ModelInUseChanged",
    "NotifyEstimate": "EstimateReady",
    "NotifySuccess": "RunSucceeded",
    "NotifyFailure": "RunFailed",
}


@pytest.fixture(scope="module")
def pipeline(templates: dict[str, JsonObject]) -> JsonObject:
    return templates["pipeline"]


@pytest.fixture(scope="module")
def machine(pipeline: JsonObject) -> JsonObject:
    return definition(pipeline)


def _reachable(flow: dict[str, JsonObject], start: str) -> set[str]:
    """Return the states that an execution may enter after `start`."""
    seen: set[str] = set()
    waiting = [name for name, _ in transitions(flow[start])]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += [following for following, _ in transitions(flow[name])]
    return seen


def _kind(flow: dict[str, JsonObject], kind: str) -> dict[str, JsonObject]:
    return {name: state for name, state in flow.items() if state["Type"] == kind}


def test_every_state_can_be_reached_and_says_what_it_does(machine: JsonObject) -> None:
    flow = states(machine)
    start = as_text(machine["StartAt"], "StartAt")
    assert _reachable(flow, start) | {start} == set(flow)
    assert [name for name, state in all_states(machine).items() if not state.get("Comment")] == []


def test_every_choice_has_a_way_out_when_nothing_fits(machine: JsonObject) -> None:
    flow = states(machine)
    two_way = {"IsBaselineNeeded", "IsModelInUseAsked", "HasAnotherStage", "ShouldPromote"}
    for name, choice in _kind(flow, "Choice").items():
        assert (choice["Default"] == "UnexpectedStatus") is (name not in two_way), name
        assert (set(as_object(choice.get("Assign", {}), name)) == {"failedState", "cause"}) is (name not in two_way)


def test_every_error_of_a_function_or_map_ends_in_the_failure_and_nowhere_else(machine: JsonObject) -> None:
    flow = states(machine)
    # A model in use that does not answer is not compared, and the run goes on
    assert [rule["Next"] for rule in caught(flow["EvaluateModelInUse"])] == ["CreateCustomizationJob"]
    working = set(_kind(flow, "Task")) - set(LENIENT_NOTICES) | set(_kind(flow, "Map"))
    for name in working - {"EvaluateModelInUse"}:
        (rule,) = caught(flow[name])
        assert rule["ErrorEquals"] == ["States.ALL"], name
        handler = as_text(rule["Next"], name)
        ends = {end for end in _reachable(flow, handler) if not list(transitions(flow[end]))}
        assert ends == {"RunFailed"}, name
    assert flow["RunFailed"]["Type"] == "Fail"


def test_a_lost_notice_does_not_change_how_a_run_ends(machine: JsonObject) -> None:
    flow = states(machine)
    assert {name: as_text(next(caught(flow[name]))["Next"], name) for name in LENIENT_NOTICES} == LENIENT_NOTICES


def test_the_notice_of_an_end_is_tried_for_about_an_hour_and_that_of_a_start_for_seconds(machine: JsonObject) -> None:
    for name in LENIENT_NOTICES:
        [rule] = (as_object(item, name) for item in as_list(states(machine)[name]["Retry"], name))
        attempts, interval = (as_int(rule[key], name) for key in ("MaxAttempts", "IntervalSeconds"))
        pauses = [min(interval * 2**attempt, as_int(rule["MaxDelaySeconds"], name)) for attempt in range(attempts)]
        # Full jitter makes half of it
        least, most = (0, 30) if name == "NotifyStart" else (3_000, 4_500)
        assert least < sum(pauses) / 2 < most
        # Scheduled, started, submitted and failed, beside the 334 of a run, which tells its start and its end
        assert 334 + 2 * attempts * 4 < 1_000


def test_failure_handling_goes_forward_only(machine: JsonObject) -> None:
    flow = states(machine)
    for name in ("RecordFailure", "ReleaseResources", "NotifyFailure"):
        assert name not in _reachable(flow, name)


def test_every_failure_keeps_error_cause_and_state_for_people(machine: JsonObject) -> None:
    flow = states(machine)
    for name, state in flow.items():
        for rule in caught(state):
            if rule["Next"] == "RecordFailure":
                assert set(as_object(rule["Assign"], name)) == {"error", "cause", "failedState"}


def test_every_task_retries_only_what_passes_by_itself_with_full_jitter(machine: JsonObject) -> None:
    transient = {error.__name__ for error in errors.TransientError.__subclasses__()}
    for name, task in _kind(all_states(machine), "Task").items():
        retried: set[str] = set()
        for rule in (as_object(item, name) for item in as_list(task["Retry"], name)):
            found = {as_text(error, name) for error in as_list(rule["ErrorEquals"], name)}
            retried |= found
            assert rule["BackoffRate"] in (1, 2)
            assert as_int(rule["MaxAttempts"], name) >= 2
            if found != {"QuotaUnavailable"}:
                longest = 600 if found == PUBLISHING_ERRORS else 120
                assert (rule["JitterStrategy"], rule["MaxDelaySeconds"]) == ("FULL", longest), name
        goes_on = {"QuotaUnavailable"} if name.startswith("Create") else set()
        goes_on |= {"EvaluationUnfinished"} if name.endswith("Shard") else set()
        expected = PUBLISHING_ERRORS if name in LENIENT_NOTICES else transient | LAMBDA_ERRORS | goes_on
        assert retried == expected, name
        assert hasattr(errors, "EvaluationUnfinished")
        assert hasattr(errors, "QuotaUnavailable")


def test_a_run_waits_days_for_a_quota_and_stays_below_25000_events(machine: JsonObject) -> None:
    attempts = {}
    for name, task in _kind(states(machine), "Task").items():
        for rule in (as_object(item, name) for item in as_list(task["Retry"], name)):
            if rule["ErrorEquals"] == ["QuotaUnavailable"]:
                attempts[name] = as_int(rule["MaxAttempts"], name)
                assert as_int(rule["IntervalSeconds"], name) * attempts[name] >= timedelta(days=5).total_seconds()
    # Two stages and the serving, each attempt 3 events (scheduled, started, failed), beside two jobs of 96 hours
    longest_jobs = 2 * 96 * 3 * 9
    waits = 2 * attempts["CreateCustomizationJob"] + max(attempts.values())
    assert waits * 3 + longest_jobs + 1000 < 25_000


def test_every_task_waits_a_little_longer_than_its_function_may_take(pipeline: JsonObject, machine: JsonObject) -> None:
    modules = function_modules(pipeline)
    functions = resources(pipeline, "AWS::Lambda::Function")
    timeouts = {module: as_int(at(functions[name], "Properties", "Timeout"), name) for name, module in modules.items()}
    for name, task in _kind(all_states(machine), "Task").items():
        if name not in LENIENT_NOTICES:
            module = as_text(at(task, "Arguments", "FunctionName"), name)
            assert task["TimeoutSeconds"] == timeouts[module] + 60, name
        else:
            assert task["TimeoutSeconds"] == 30
    assert as_int(machine["TimeoutSeconds"], "machine") == timedelta(days=28).total_seconds()


def test_a_task_is_named_after_the_module_of_its_handler(machine: JsonObject) -> None:
    for name, task in _kind(all_states(machine), "Task").items():
        if name not in LENIENT_NOTICES:
            words = re.findall("[A-Z][a-z]*", name)
            expected = SHARED_MODULES.get(name, "_".join(words).lower())
            assert at(task, "Arguments", "FunctionName") == expected


def test_tasks_call_versions_that_outlive_a_redeploy(pipeline: JsonObject, machine: JsonObject) -> None:
    versions = resources(pipeline, "AWS::Lambda::Version")
    assert {version["DeletionPolicy"] for version in versions.values()} == {"Retain"}
    called = {as_text(at(version, "Properties", "FunctionName", "Ref"), name) for name, version in versions.items()}
    from_events = {"sweep", "explain_unused_upload"}
    assert {function_modules(pipeline)[name] for name in called} == set(
        function_modules(pipeline).values()
    ) - from_events
    # `definition` names a function only by way of its version
    tasks = [task for name, task in _kind(all_states(machine), "Task").items() if name not in LENIENT_NOTICES]
    assert {as_text(at(task, "Arguments", "FunctionName"), "name") for task in tasks} == {
        function_modules(pipeline)[name] for name in called
    }


def _used(value: Json) -> set[str]:
    """Return the variables that the expressions in `value` read."""
    if isinstance(value, dict):
        return {name for key, item in value.items() if key != "ItemProcessor" for name in _used(item)}
    if isinstance(value, list):
        return {name for item in value for name in _used(item)}
    if isinstance(value, str) and value.startswith("{%"):
        without_text = re.sub(r"'[^']*'", "", value)
        functions = {"exists", "match", "now", "parse", "substring", "string", "sum", "states"}
        own = set(re.findall(r"\$(\w+) :=", without_text))
        return set(re.findall(r"\$(\w+)", without_text)) - functions - own
    return set()


def test_no_state_reads_a_variable_that_may_be_missing(machine: JsonObject) -> None:
    flow = states(machine)
    start = as_text(machine["StartAt"], "StartAt")
    known: dict[str, set[str]] = {start: set()}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        for following, assigned in transitions(flow[name]):
            before = known.get(following)
            after = known[name] | set(assigned) if before is None else before & (known[name] | set(assigned))
            if after != before:
                known[following] = after
                waiting.append(following)
    missing = {name: _used(state) - known[name] for name, state in flow.items()}
    assert {name: variables for name, variables in missing.items() if variables} == {}


def test_it_logs_every_event_encrypted_and_without_data_and_traces(pipeline: JsonObject) -> None:
    (machine,) = resources(pipeline, "AWS::StepFunctions::StateMachine").values()
    properties = as_object(machine["Properties"], "machine")
    logging = as_object(properties["LoggingConfiguration"], "logging")
    assert (logging["Level"], logging["IncludeExecutionData"]) == ("ALL", False)
    group = as_text(at(logging, "Destinations", 0, "CloudWatchLogsLogGroup", "LogGroupArn", "Fn::GetAtt", 0), "group")
    assert "KmsKeyId" in as_object(resources(pipeline)[group]["Properties"], group)
    assert at(properties, "TracingConfiguration", "Enabled") is True
