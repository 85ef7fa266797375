"""Every Task of the state machine, broken in every way: what was started is released, told and can be run again.

The Tasks are those that the machine is built from, so that a new one is in the matrix by itself.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from customization.json_types import Json, JsonObject, as_object
from rehearsal.embedded.faults import FunctionFault, Hang, Kill, Nonsense, Throttle, Twice
from stacks.states import NOTICES, TASKS
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution

SHARDS = ("EvaluateModelInUseShard", "EvaluateBaselineShard", "EvaluateCustomModelShard")
TASK_STATES = (*(task.name for task in TASKS), *SHARDS, *NOTICES)
# What a shard that was killed or stopped had in flight is asked again: nobody knows that it was answered. Of two copies
# at once each asks what the other has not stored yet.
IN_FLIGHT = 24


@dataclass(frozen=True)
class Scenario:
    """A run that comes to certain states: fields of its request, what was done before, what breaks on the way."""

    fields: Mapping[str, Json] = field(default_factory=dict)
    before: Callable[[Pipeline], None] = lambda _: None
    bedrock_fault: str = ""
    test: int = 6
    jobs: int = 1
    dropped: bool = True


def _run_before(pipeline: Pipeline) -> None:
    done = pipeline.run(pipeline.folder(test=32))
    assert done.outcome.status == "SUCCEEDED", done.outcome.cause


def _promote_before(pipeline: Pipeline) -> None:
    served: JsonObject = {"mode": "on-demand", "keep": 2}
    done = pipeline.run(pipeline.folder(test=32, promote="if-better", serving=served))
    assert pipeline.parameter(), done.outcome.cause


USUAL = Scenario()
PROVISIONED = Scenario({"serving": {"mode": "provisioned"}})
PROMOTED = Scenario({"promote": "if-better", "serving": {"keep": 2}}, test=32)
FAILING = Scenario(bedrock_fault="serving-fails")
ESTIMATE = Scenario({"action": "estimate"})
DUPLICATE = Scenario(before=_run_before, dropped=False)
RELEASE = Scenario({"action": "release"}, before=_run_before, dropped=False)
CHANGE = Scenario({"action": "promote"}, before=_run_before, dropped=False)
SECOND = Scenario({"hyperParameters": {"epochCount": 3}}, before=_promote_before, test=34, jobs=2)
SCENARIOS: Mapping[str, Scenario] = {
    "EvaluateModelInUseShard": SECOND,
    "CreateProvisionedThroughput": PROVISIONED,
    "PollProvisionedThroughput": PROVISIONED,
    "PromoteModel": PROMOTED,
    "RecordFailure": FAILING,
    "ReleaseResources": FAILING,
    "NotifyFailure": FAILING,
    "NotifyEstimate": ESTIMATE,
    "NotifyDuplicate": DUPLICATE,
    "ReleaseRun": RELEASE,
    "ChangeModelInUse": CHANGE,
    "NotifyModelInUse": CHANGE,
}


@dataclass(frozen=True)
class Kind:
    """A way to break; `absorbed` where Retry makes up for it, `of_functions` where only a function can break so."""

    before: FunctionFault | None = None
    after: FunctionFault | None = None
    times: int = 1
    stops: bool = False
    of_functions: bool = False
    absorbed: bool = False


KINDS: Mapping[str, Kind] = {
    "raises-before": Kind(before=FunctionFault("Broken", "injected")),
    "raises-after": Kind(after=FunctionFault("Broken", "injected")),
    "times-out": Kind(after=Hang(), absorbed=True),
    "throttled-twice": Kind(before=Throttle(), times=2, absorbed=True),
    "killed-midway": Kind(before=Kill(calls=3), of_functions=True, absorbed=True),
    "nonsense": Kind(after=Nonsense('{"nobody": "expects this"}'), of_functions=True),
    "too-much": Kind(after=Nonsense(json.dumps({"text": "x" * 300_000})), of_functions=True),
    "stopped": Kind(stops=True),
    "twice-at-once": Kind(before=Twice(), absorbed=True),
}
CELLS = [
    (state, kind)
    for state in TASK_STATES
    for kind, how in KINDS.items()
    if state not in NOTICES or not how.of_functions
]


def _is_sampled(state: str, kind: str) -> bool:
    """Return whether `make test` runs the cell: one a Task, the kinds in turn."""
    kinds = [name for name, how in KINDS.items() if state not in NOTICES or not how.of_functions]
    return kind == kinds[TASK_STATES.index(state) % len(kinds)]


def _cells() -> list[object]:
    return [
        pytest.param(
            state, kind, id=f"{state}-{kind}", marks=() if _is_sampled(state, kind) else pytest.mark.exhaustive
        )
        for state, kind in CELLS
    ]


def test_the_matrix_has_every_task_of_the_synthesized_machine(pipeline: Pipeline) -> None:
    [machine] = pipeline.aws.deployed.machines.values()

    def tasks(states: JsonObject) -> set[str]:
        found = set()
        for name, value in states.items():
            state = as_object(value, name)
            if state["Type"] == "Task":
                found.add(name)
            if state["Type"] == "Map":
                found |= tasks(as_object(as_object(state["ItemProcessor"], name)["States"], name))
        return found

    assert tasks(as_object(machine.definition["States"], "States")) == set(TASK_STATES)


@pytest.mark.parametrize(("state", "kind"), _cells())
def test_a_task_that_breaks_leaves_nothing_behind_and_the_run_can_be_started_again(
    pipeline: Pipeline, state: str, kind: str
) -> None:
    scenario, how = SCENARIOS.get(state, USUAL), KINDS[kind]
    scenario.before(pipeline)
    if scenario.bedrock_fault:
        pipeline.inject(scenario.bedrock_fault)
    answered_before = pipeline.bedrock.answers.copy()
    pipeline.function_faults.strike(
        state, before=how.before, after=how.after, times=how.times, do=_stopper(pipeline) if how.stops else None
    )
    execution = _start(pipeline, scenario)
    assert pipeline.function_faults.broken == [state] * how.times, f"no scenario of the matrix comes to {state}"
    pipeline.inject()
    pipeline.pass_time(hours=1)  # what AWS refuses to delete while it is being created goes with a later sweep

    assert_told_truthfully(pipeline, execution)
    assert_nothing_is_left(pipeline)
    if how.absorbed and scenario is not FAILING:
        assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    if scenario is ESTIMATE:
        return
    assert_runs_again(pipeline, scenario)
    assert_nothing_is_left(pipeline)
    in_flight = IN_FLIGHT if state in SHARDS and kind in {"killed-midway", "stopped", "twice-at-once"} else 0
    answers = pipeline.bedrock.answers - answered_before
    assert sum(count - 1 for count in answers.values()) <= in_flight, answers


def _stopper(pipeline: Pipeline) -> Callable[[], None]:
    def stop() -> None:
        running = [execution for execution in pipeline.executions() if execution.outcome.status == "RUNNING"]
        pipeline.stop(running[-1])

    return stop


def _start(pipeline: Pipeline, scenario: Scenario) -> "Execution":
    fields = _fields(pipeline, scenario)
    if scenario.dropped:
        return pipeline.run(pipeline.folder(100, scenario.test, **fields))
    return pipeline.ask(pipeline.request(**fields))


def _fields(pipeline: Pipeline, scenario: Scenario) -> dict[str, Json]:
    if scenario is CHANGE:
        return {**scenario.fields, "data": pipeline.runs()[0]["runId"]}
    return dict(scenario.fields)


def assert_told_truthfully(pipeline: Pipeline, execution: "Execution") -> None:
    """A green end is a run that succeeded; any other is in the table of runs and a notification, cause and fix."""
    rows = [row for row in pipeline.runs() if row.get("executionArn") == execution.arn]
    status, last = execution.outcome.status, pipeline.states(execution)[-1]
    if status == "SUCCEEDED":
        if last == "RunSucceeded":
            assert [row["state"] for row in rows] == ["SUCCEEDED"]
        return
    told = pipeline.told_of(execution)
    assert told, f"nobody heard of the {status} execution: {execution.outcome.cause}"
    for row in rows:
        if row["state"] in {"SUCCEEDED", "ESTIMATED"}:  # what failed came after the result: it is stored
            continue
        assert row["state"] in {"FAILED", "ABORTED"}, row
        assert row["cause"], row
        assert row["fix"], row
        if pipeline.function_faults.broken != ["RecordFailure"]:  # the one that would have found cause and fix
            texts = str(row["cause"]), str(row["fix"])
            assert any(all(text in notice.message for text in texts) for notice in told), told
    assert not any("stackTrace" in notice.message for notice in told)


def assert_nothing_is_left(pipeline: Pipeline) -> None:
    """Nothing bills and no job runs, but what a promotion keeps, which the table of runs tells."""
    kept = pipeline.parameter()
    if kept and kept["until"]:
        pipeline.pass_time(hours=3)
    assert pipeline.what_bills() == []
    assert all(job["status"] != "InProgress" for job in pipeline.jobs())


def assert_runs_again(pipeline: Pipeline, scenario: Scenario) -> None:
    """The same request succeeds, and adopts what is there: a second job only where the first was stopped."""
    again = pipeline.ask(pipeline.request(**_fields(pipeline, scenario)))
    assert again.outcome.status == "SUCCEEDED", again.outcome.cause
    finished = [job["status"] for job in pipeline.jobs() if job["status"] != "Stopped"]
    assert finished == ["Completed"] * scenario.jobs, finished
