"""Every end that Bedrock documents, and executions that end from outside while they wait.

What was started is released, told with cause and fix, and the same request can be run again.
"""

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from customization.failures import explain
from customization.json_types import as_object
from customization.texts import Language, wording
from rehearsal.embedded.faults import Nonsense
from rehearsal.templates import listed, states
from stacks.states import TASKS
from tests.workflow.checks import (
    assert_nothing_is_left,
    assert_runs_again,
    assert_sentence,
    assert_told_truthfully,
    fields_of,
    pass_sweeps,
    run_scenario,
)
from tests.workflow.matrix import (
    ENDS,
    HALTED,
    HALTS,
    JOB,
    PROVISIONED,
    SCENARIOS,
    SWAPPED,
    USUAL,
    End,
    Halt,
    Scenario,
    is_halt_sampled,
)
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from customization.json_types import Json
    from rehearsal.embedded.states.machines import Execution

LONGEST_WAIT = timedelta(days=3).total_seconds()
MACHINE_TIMEOUT = timedelta(days=28)


def _ends() -> list[object]:
    return [
        pytest.param(
            end,
            "ja" if number % 2 else "en",
            id=f"{end.of}-{end.how[:50]}",
            marks=() if end.sampled else pytest.mark.exhaustive,
        )
        for number, end in enumerate(ENDS)
    ]


@pytest.mark.parametrize(("end", "language"), _ends())
def test_an_end_in_bedrock_is_told_with_its_cause_and_fix_and_the_run_can_be_started_again(
    pipeline: Pipeline, end: End, language: Language
) -> None:
    end.scenario.before(pipeline)
    pipeline.inject(end.fault)
    answered_before = pipeline.bedrock.answers.copy()
    throughputs, deployments = pipeline.created("provisioned-model"), pipeline.created("custom-model-deployment")
    execution = run_scenario(pipeline, end.scenario, language=language)
    pipeline.inject()
    pass_sweeps(pipeline, end.hours)

    assert_ended(pipeline, execution, end, language)
    assert_told_truthfully(pipeline, execution)
    assert pipeline.created("provisioned-model") - throughputs <= 1
    assert pipeline.created("custom-model-deployment") - deployments <= 1
    if end.scenario is SWAPPED:  # the model that was in use stays so, and is served
        assert [arn for arn in pipeline.what_bills() if arn.startswith("arn:")] == [(pipeline.parameter() or {})["arn"]]
    else:
        assert_nothing_is_left(pipeline)
    assert_runs_again(pipeline, end.scenario, _broken_off(pipeline) if end.of == JOB else ())
    pipeline.ask({"dataset": pipeline.dataset, "action": "release"})
    assert pipeline.what_bills() == []
    answers = pipeline.bedrock.answers - answered_before
    assert all(count == 1 for count in answers.values()), answers


def _broken_off(pipeline: Pipeline) -> list[str]:
    ends = [job["status"] for job in pipeline.jobs() if job["status"] != "Completed"]
    assert len(ends) == 1
    return list(map(str, ends))


def assert_ended(pipeline: Pipeline, execution: "Execution", end: End, language: Language) -> None:
    """The run failed, and says in its language what is known of such an end."""
    row = pipeline.row_of(execution)
    assert (execution.outcome.status, row["state"], row["language"]) == ("FAILED", "FAILED", language)
    assert (row["error"], row["cause"]) == (end.error, execution.outcome.cause)
    assert row["reportKey"]
    assert_sentence(str(row["cause"]))
    if end.known:
        assert end.how.partition(": ")[2] in str(row["cause"])
        assert str(row["cause"]).endswith(f" - {end.known.cause[language]}")
        assert row["fix"] == end.known.fix[language]
    else:
        assert row["fix"] == explain(str(row["error"]), "", language).fix != wording("notice.startAgain", language)


def test_an_evaluation_that_loses_its_model_ends_inconclusive_with_the_reason_and_the_same_request_asks_the_rest(
    pipeline: Pipeline,
) -> None:
    def delete(_: "Execution") -> None:
        bedrock = pipeline.aws.session().client("bedrock")
        [arn] = pipeline.what_serves()
        bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)

    fields: dict[str, Json] = {"promote": "if-better", "serving": {"keep": 2}}
    execution = pipeline.interrupt("EvaluateCustomModel", pipeline.folder(100, 32, **fields), delete)
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    row = pipeline.row_of(execution)
    assert (row["state"], row["verdict"]) == ("SUCCEEDED", "inconclusive")
    reason = wording("reason.modelLost", "en").partition("$")[0]
    assert str(row["reason"]).startswith(reason)
    assert reason in pipeline.told_of(execution)[-1].message
    assert reason in pipeline.object_of(execution, "report.html").decode()
    assert pipeline.parameter() is None
    pipeline.pass_time(hours=1)
    assert pipeline.what_bills() == []

    again = pipeline.ask(pipeline.request(**fields))
    assert (pipeline.row_of(again)["attempt"], pipeline.row_of(again)["verdict"]) == (2, "better")
    assert len(pipeline.jobs()) == 1
    assert pipeline.parameter()
    assert_nothing_is_left(pipeline)


def _halts() -> list[object]:
    return [
        pytest.param(wait, how, id=f"{wait}-{how}", marks=() if is_halt_sampled(wait, how) else pytest.mark.exhaustive)
        for wait, how in HALTED
    ]


@pytest.mark.parametrize(("wait", "how"), _halts())
def test_an_execution_that_ends_while_it_waits_is_released_and_told_by_the_sweeper(
    pipeline: Pipeline, wait: str, how: str
) -> None:
    scenario, halt = SCENARIOS.get(wait, USUAL), HALTS[how]
    scenario.before(pipeline)
    answered_before = pipeline.bedrock.answers.copy()
    throughputs, deployments = pipeline.created("provisioned-model"), pipeline.created("custom-model-deployment")
    jobs = len(pipeline.jobs())
    if halt.is_told:
        execution = halt_at(pipeline, wait, scenario, halt)
    else:
        with pipeline.without_status_events():
            execution = halt_at(pipeline, wait, scenario, halt)
    pass_sweeps(pipeline)

    assert execution.outcome.status == halt.status
    assert_halt_is_told(pipeline, execution, halt)
    if scenario.dropped:
        assert_nothing_is_left(pipeline)
    else:  # the model that was in use before stays so, and is what callers get
        assert_model_in_use_is_served(pipeline)
    assert pipeline.created("provisioned-model") - throughputs <= 1
    assert pipeline.created("custom-model-deployment") - deployments <= 1
    assert len(pipeline.jobs()) - jobs <= 1
    again = pipeline.ask(pipeline.request(**fields_of(pipeline, scenario)))
    assert again.outcome.status == "SUCCEEDED", again.outcome.cause
    pipeline.ask({"dataset": pipeline.dataset, "action": "release"})
    assert pipeline.what_bills() == []
    answers = pipeline.bedrock.answers - answered_before
    assert all(count == 1 for count in answers.values()), answers


def assert_model_in_use_is_served(pipeline: Pipeline) -> None:
    """The deployment that the parameter names serves the model that the row tells of; without one they name that.

    After weeks none may be in use any more.
    """
    in_use = [row["modelArn"] for row in pipeline.rows() if row["runId"] == f"promoted#{pipeline.dataset}"]
    named = [str(parameter["arn"]) for parameter in [pipeline.parameter()] if parameter]
    assert [pipeline.what_serves().get(arn, arn) for arn in named] == in_use


def assert_halt_is_told(pipeline: Pipeline, execution: "Execution", halt: Halt) -> None:
    """The sweeper has recorded and told the end, once."""
    [row] = [row for row in pipeline.rows() if row.get("executionArn") == execution.arn and row.get("cause")]
    assert (row["state"], row["cause"]) == (halt.status, wording(f"ended.{halt.status}", "en"))
    assert sum(str(row["cause"]) in told.message for told in pipeline.told_of(execution)) == 1
    assert_told_truthfully(pipeline, execution)


def asks_again(pipeline: Pipeline, wait: str) -> tuple[str, str]:
    """Return the Task that decides a wait, and the status with which it asks to be called again."""
    [machine] = pipeline.aws.deployed.machines.values()
    found = states(machine.definition)
    rules = [as_object(rule, "rule") for state in found.values() for rule in listed(state.get("Choices", []))]
    [condition] = [str(rule["Condition"]) for rule in rules if rule["Next"] == wait]
    return str(found[wait]["Next"]), condition.split("'")[1]


def halt_at(pipeline: Pipeline, wait: str, scenario: Scenario, halt: Halt) -> "Execution":
    """Let the scenario's execution wait for ever in that state, and end there."""
    name, status = asks_again(pipeline, wait)
    kept = next(task.keeps for task in TASKS if task.name == name)
    for_ever = MACHINE_TIMEOUT + timedelta(days=1)
    answer = dict.fromkeys(kept, "") | {"status": status, "waitSeconds": for_ever.total_seconds()}
    pipeline.function_faults.strike(name, after=Nonsense(json.dumps(answer)))
    entered, fields = pipeline.entering(wait), fields_of(pipeline, scenario)
    with pipeline.without_sweeps():
        with pipeline.clock.hold():
            if scenario.dropped:
                files = pipeline.folder(100, scenario.test, **fields)
                if wait == "WaitForUploads":  # run.json would start a second execution, which joins the first
                    files = {"train.jsonl": files["train.jsonl"]}
                pipeline.drop(pipeline.dataset, files)
            else:
                pipeline.start(pipeline.request(**fields))
            assert entered.wait(LONGEST_WAIT), f"no execution came to {wait}"
            pipeline.clock.sleep(1)  # an event about the same folder joins the execution that waits for it
            [execution] = [each for each in pipeline.executions() if each.outcome.status == "RUNNING"]
            if halt.status == "ABORTED":
                pipeline.stop(execution)
        pipeline.finish()
    return execution


@pytest.mark.parametrize(
    ("state", "scenario", "kind"),
    [
        ("WaitForCustomizationJob", USUAL, "job"),
        pytest.param("EvaluateCustomModel", USUAL, "on-demand", marks=pytest.mark.exhaustive),
        ("EvaluateCustomModel", PROVISIONED, "provisioned"),
    ],
    ids=["job", "deployment", "throughput"],
)
def test_a_stopped_execution_is_released_within_two_minutes_by_the_event_about_it(
    pipeline: Pipeline, state: str, scenario: Scenario, kind: str
) -> None:
    with pipeline.without_sweeps():
        stopped = pipeline.interrupt(state, pipeline.folder(100, 6, **scenario.fields), pipeline.stop)
        pipeline.clock.advance(120)
        assert [job["status"] for job in pipeline.jobs() if job["status"] == "InProgress"] == []
        if kind != "job":  # a job that was stopped is Stopping for minutes, and its lease stays open for so long
            assert pipeline.what_bills() == []
            assert minutes_to_close(pipeline, stopped, kind) <= 2
    pipeline.pass_time(hours=1)
    assert pipeline.what_bills() == []


@pytest.mark.exhaustive
def test_a_stopped_execution_is_released_by_the_schedule_where_the_event_about_it_is_lost(pipeline: Pipeline) -> None:
    with pipeline.without_status_events():
        stopped = pipeline.interrupt(
            "EvaluateCustomModel", pipeline.folder(serving={"mode": "provisioned"}), pipeline.stop
        )
    pipeline.pass_time(minutes=16)
    assert pipeline.what_bills() == []
    assert minutes_to_close(pipeline, stopped, "provisioned") <= 15


def minutes_to_close(pipeline: Pipeline, execution: "Execution", kind: str) -> float:
    """Return the virtual minutes from the end of the execution until its lease of that kind was closed."""
    [closed] = [
        datetime.fromisoformat(str(lease["closedAt"]))
        for lease in pipeline.leases()
        if lease["executionArn"] == execution.arn and lease["kind"] == kind
    ]
    assert execution.outcome.stopped
    return (closed - execution.outcome.stopped).total_seconds() / 60
