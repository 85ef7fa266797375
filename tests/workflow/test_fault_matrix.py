"""Every Task of the state machine, broken in every way: what was started is released, told and can be run again."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rehearsal.embedded.faults import FunctionFault, Kill, TaskCall, Twice
from tests.infra.machine import all_states
from tests.workflow.checks import (
    assert_nothing_is_left,
    assert_runs_again,
    assert_told_truthfully,
    pass_sweeps,
    run_scenario,
)
from tests.workflow.matrix import (
    CELLS,
    DEPLOYMENT,
    ENDS,
    FAILING,
    HALTED,
    IN_FLIGHT,
    JOB,
    KINDS,
    SCENARIOS,
    SHARDS,
    TASK_STATES,
    TEST_RECORDS,
    THROUGHPUT,
    USUAL,
    is_cell_sampled,
    is_halt_sampled,
    table,
)
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution


def _cells() -> list[object]:
    return [
        pytest.param(
            state, kind, id=f"{state}-{kind}", marks=() if is_cell_sampled(state, kind) else pytest.mark.exhaustive
        )
        for state, kind in CELLS
    ]


def test_the_page_about_the_matrix_is_that_of_the_tests() -> None:
    page = Path(__file__).parents[2] / "docs" / "fault-matrix.md"
    assert page.read_text() == table() + "\n", "make docs writes it anew"


def test_the_matrix_has_every_task_and_wait_of_the_synthesized_machine(pipeline: Pipeline) -> None:
    [machine] = pipeline.aws.deployed.machines.values()
    found = all_states(machine.definition)
    assert {name for name, state in found.items() if state["Type"] == "Task"} == set(TASK_STATES)
    assert {name for name, state in found.items() if state["Type"] == "Wait"} == {wait for wait, _ in HALTED}


def test_what_make_test_runs_is_a_tenth_of_the_matrix_with_every_task_and_every_kind() -> None:
    sampled = [cell for cell in CELLS if is_cell_sampled(*cell)]
    assert {state for state, _ in sampled} == set(TASK_STATES)
    assert {kind for _, kind in sampled} == set(KINDS)
    assert len(sampled) == pytest.approx(len(CELLS) / 10, rel=0.2)
    assert {end.of for end in ENDS if end.sampled} >= {JOB, THROUGHPUT, DEPLOYMENT}
    assert {how for wait, how in HALTED if is_halt_sampled(wait, how)} >= {"stopped-unnoticed", "timed-out"}


@pytest.mark.parametrize(("state", "kind"), _cells())
def test_a_task_that_breaks_leaves_nothing_behind_and_the_run_can_be_started_again(
    pipeline: Pipeline, state: str, kind: str
) -> None:
    scenario, how = SCENARIOS.get(state, USUAL), KINDS[kind]
    in_flight = IN_FLIGHT.get(kind, 0) if state in SHARDS else 0
    if in_flight:
        scenario = replace(scenario, test=TEST_RECORDS)
    scenario.before(pipeline)
    if scenario.bedrock_fault:
        pipeline.inject(scenario.bedrock_fault)
    throughputs, deployments = pipeline.created("provisioned-model"), pipeline.created("custom-model-deployment")
    answered_before = pipeline.bedrock.answers.copy()
    fault = how.before() if how.before else None
    stopped: list[Execution] = []
    stop = _stopper(pipeline, stopped) if how.stops else None
    pipeline.function_faults.strike(state, before=fault, after=how.after, times=how.times, do=stop)
    ended = run_scenario(pipeline, scenario)
    [execution] = stopped or [ended]
    assert pipeline.function_faults.broken == [state] * how.times, f"no scenario of the matrix comes to {state}"
    assert_struck(fault, how.times)
    pipeline.inject()
    pass_sweeps(pipeline)

    assert_told_truthfully(pipeline, execution, unhandled="" if how.absorbed else state)
    assert_nothing_is_left(pipeline)
    assert pipeline.created("provisioned-model") - throughputs <= 1
    assert pipeline.created("custom-model-deployment") - deployments <= 1
    if how.stops:
        assert execution.outcome.status == "ABORTED"
    if how.absorbed and scenario is not FAILING:
        assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert_runs_again(pipeline, scenario, may_stop_a_job=execution.outcome.status != "SUCCEEDED")
    assert_nothing_is_left(pipeline)
    answers = pipeline.bedrock.answers - answered_before
    assert sum(count - 1 for count in answers.values()) <= in_flight, answers


def assert_struck(fault: FunctionFault | None, times: int) -> None:
    """What was to happen inside of the function has happened: its process died, or two calls were under way at once."""
    if isinstance(fault, Kill):
        assert fault.deaths == times
    if isinstance(fault, Twice):
        assert fault.meetings == times


def _stopper(pipeline: Pipeline, stopped: "list[Execution]") -> Callable[[TaskCall], None]:
    """Return what stops the execution that makes a call, and puts it into `stopped`."""

    def stop(call: TaskCall) -> None:
        running, told = pipeline.running(), json.dumps(call.payload)
        # Of the two executions of a folder one calls; a notice may name another one than its own
        [execution] = [each for each in running if each.arn in told] if len(running) > 1 else running
        pipeline.stop(execution)
        stopped.append(execution)

    return stop
