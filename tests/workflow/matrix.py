"""What is broken on purpose, where, and which of it `make test` runs; `make docs` prints that into docs/.

The Tasks, Maps and Waits are those that the machine is built from, and the messages are those of data/failures.json, so
that a new one is in the matrix by itself.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from customization.evaluation import CONCURRENCY, SHARDS_AT_ONCE, shard_count
from customization.failures import Known, load_failures
from customization.json_types import Json, JsonObject
from rehearsal.embedded.faults import FunctionFault, Hang, Kill, Nonsense, Throttle, Twice
from stacks.states import EVALUATIONS, NOTICES, TASKS, WAITS, shard_of
from tests.workflow.pipeline import Pipeline

SHARDS = tuple(map(shard_of, EVALUATIONS))
TASK_STATES = (*(task.name for task in TASKS), *SHARDS, *NOTICES)


@dataclass(frozen=True)
class Scenario:
    """A run that comes to certain states: fields of its request, what was done before, what breaks on the way.

    `jobs` are those that have completed once the run has succeeded, with the ones before. `data` is the number of the
    run, oldest first, that the request is about.
    """

    fields: Mapping[str, Json] = field(default_factory=dict)
    before: Callable[[Pipeline], None] = lambda _: None
    bedrock_fault: str = ""
    test: int = 6
    jobs: int = 1
    dropped: bool = True
    data: int | None = None


def _run_before(pipeline: Pipeline) -> None:
    done = pipeline.run(pipeline.folder(test=32))
    assert done.outcome.status == "SUCCEEDED", done.outcome.cause


def _promote_before(pipeline: Pipeline, hours: float = 2, epochs: int = 2) -> None:
    served: JsonObject = {"mode": "on-demand", "keep": hours}
    fields: dict[str, Json] = {"hyperParameters": {"epochCount": epochs}, "promote": "if-better", "serving": served}
    done = pipeline.run(pipeline.folder(100, 32, **fields))
    assert pipeline.parameter(), done.outcome.cause


def _promote_weaker_before(pipeline: Pipeline) -> None:
    _promote_before(pipeline, hours=12, epochs=1)


def _promote_weaker_and_run_before(pipeline: Pipeline) -> None:
    _promote_weaker_before(pipeline)
    # The machine's timeout is longer than a model is kept of which nobody has said so
    done = pipeline.ask(pipeline.request(hyperParameters={"epochCount": 5}, keepModel="always"))
    assert done.outcome.status == "SUCCEEDED", done.outcome.cause


USUAL = Scenario()
PROVISIONED = Scenario({"serving": {"mode": "provisioned"}})
PROMOTED = Scenario({"promote": "if-better", "serving": {"keep": 2}}, test=32)
FAILING = Scenario(bedrock_fault="serving-fails")
ESTIMATE = Scenario({"action": "estimate"}, jobs=0)
DUPLICATE = Scenario(before=_run_before, dropped=False)
RELEASE = Scenario({"action": "release"}, before=_run_before, dropped=False)
CHANGE = Scenario({"action": "promote"}, before=_run_before, dropped=False, data=0)
SECOND = Scenario({"hyperParameters": {"epochCount": 3}}, before=_promote_before, test=34, jobs=2)
_BETTER: Mapping[str, Json] = {"promote": "if-better", "hyperParameters": {"epochCount": 5}}
SWAPPED = Scenario(_BETTER, before=_promote_weaker_before, jobs=2, dropped=False)
CHANGED = Scenario({"action": "promote"}, before=_promote_weaker_and_run_before, jobs=2, dropped=False, data=1)
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
    "WaitForProvisionedThroughput": PROVISIONED,
    "WaitForPromotion": SWAPPED,
    "WaitForModelInUse": CHANGED,
}


@dataclass(frozen=True)
class Kind:
    """A way to break; `absorbed` where Retry makes up for it, `of_functions` where only a function can break so."""

    does: str
    before: Callable[[], FunctionFault] | None = None
    after: FunctionFault | None = None
    times: int = 1
    stops: bool = False
    of_functions: bool = False
    absorbed: bool = False


_TOO_MUCH = Nonsense(json.dumps({"text": "x" * 300_000}))
KINDS: Mapping[str, Kind] = {
    "raises-before": Kind("raises before its side effect", before=partial(FunctionFault, "Broken", "injected")),
    "raises-after": Kind("raises after its side effect", after=FunctionFault("Broken", "injected")),
    "times-out": Kind("times out after its side effect", after=Hang(), absorbed=True),
    "throttled-twice": Kind("is throttled twice", before=Throttle, times=2, absorbed=True),
    "killed-midway": Kind(
        "its process exits right after its first change in AWS, or at its end where it makes none",
        before=partial(Kill, changes=1),
        of_functions=True,
        absorbed=True,
    ),
    "killed-for-good": Kind(
        "its process and those of both retries exit, each right after its second change, or at its end",
        before=partial(Kill, changes=2),
        times=3,
        of_functions=True,
    ),
    "nonsense": Kind("returns nonsense", after=Nonsense('{"nobody": "expects this"}'), of_functions=True),
    "too-much": Kind("returns more than 256 KiB: States.DataLimitExceeded", after=_TOO_MUCH, of_functions=True),
    "stopped": Kind("the execution is stopped there (StopExecution)", stops=True),
    "twice-at-once": Kind(
        "its retry runs twice at once, both before either changes anything", before=Twice, absorbed=True
    ),
}


# More test records than may be in flight, so that paying for all of them twice is noticed
TEST_RECORDS = 100
# What a shard that was killed or stopped had in flight is asked again: nobody knows that it was answered. While a few
# answers are stored, more come. Of two copies at once each asks what the other had not stored when it began.
IN_FLIGHT = {
    "killed-midway": 3 * CONCURRENCY,
    "killed-for-good": 3 * 3 * CONCURRENCY,
    "stopped": SHARDS_AT_ONCE * CONCURRENCY,
    "twice-at-once": TEST_RECORDS // shard_count(TEST_RECORDS),
}


def kinds_of(state: str) -> list[str]:
    """Return the ways in which a Task can break."""
    return [name for name, how in KINDS.items() if state not in NOTICES or not how.of_functions]


CELLS = [(state, kind) for state in TASK_STATES for kind in kinds_of(state)]


def is_cell_sampled(state: str, kind: str) -> bool:
    """Return whether `make test` runs the cell: one a Task, the kinds in turn."""
    kinds = kinds_of(state)
    return kind == kinds[TASK_STATES.index(state) % len(kinds)]


@dataclass(frozen=True)
class End:
    """How something ends in Bedrock. `known` has the cause and the fix that are told; None where Bedrock says nothing.

    `hours` are those after the run within which the last of it is gone.
    """

    of: str
    how: str
    fault: str
    error: str
    scenario: Scenario = USUAL
    known: Known | None = None
    hours: float = 1
    sampled: bool = False


JOB, THROUGHPUT, DEPLOYMENT = "customization job", "provisioned throughput", "on-demand deployment"
_MESSAGE_ENDS = {
    "validation": (JOB, "job-fails-validation", "CustomizationJobFailed", USUAL),
    "training": (JOB, "job-fails", "CustomizationJobFailed", USUAL),
    "throughput": (THROUGHPUT, "serving-fails", "ServingFailed", PROVISIONED),
    "deployment": (DEPLOYMENT, "serving-fails", "ServingFailed", USUAL),
}


_SAMPLED_ENDS = {"throughput"}
# What ends with the error of a call, by Operation/ErrorCode; a Map tells of its items only that one has failed
_REFUSED = {
    "Converse/ResourceNotFoundException": "States.ExceedToleratedFailureThreshold",
    "CreateModelCustomizationJob/AccessDeniedException": "AccessDenied",
    "CreateModelCustomizationJob/ValidationException": "CustomizationJobFailed",
}


def _documented_ends() -> Iterable[End]:
    """Yield an end for every message of data/failures.json; a quota is waited for, so its errors end nothing."""
    for known in load_failures():
        for example in known.examples:
            sampled = example.end in _SAMPLED_ENDS
            how = f"Failed: {example.message}"
            if example.end in _MESSAGE_ENDS:
                of, fault, error, scenario = _MESSAGE_ENDS[example.end]
                yield End(of, how, f"{fault}={example.message}", error, scenario, known, sampled=sampled)
            elif "ServiceQuotaExceeded" not in example.end:
                fault = f"refuse:6={example.end}: {example.message}"
                error = _REFUSED[example.end]
                yield End(example.end, f"refused: {example.message}", fault, error, known=known, sampled=sampled)


ENDS: Sequence[End] = (
    *_documented_ends(),
    End(JOB, "Stopped", "job-stopped", "CustomizationJobStopped", sampled=True),
    End(JOB, "Stopping for 30 hours, then Stopped", "job-stopping=30", "CustomizationJobStopped"),
    End(JOB, "Stopping for 120 hours", "job-stopping=120", "CustomizationJobStalled", hours=30),
    End(JOB, "InProgress, its training NotStarted for ever", "job-stalls", "CustomizationJobStalled"),
    End(JOB, "InProgress, its training never done", "job-slow=1000", "CustomizationJobStalled"),
    End(THROUGHPUT, "Creating for ever", "serving-stuck", "ServingFailed", PROVISIONED),
    End(DEPLOYMENT, "Creating for ever", "serving-stuck", "ServingFailed", sampled=True),
    End(DEPLOYMENT, "UpdateFailed, behind the ARN of the model in use", "update-fails", "ServingFailed", SWAPPED),
)


@dataclass(frozen=True)
class Halt:
    """How an execution ends from outside while it waits; `is_told` tells whether EventBridge delivers that event."""

    does: str
    status: str
    is_told: bool = True


HALTS: Mapping[str, Halt] = {
    "stopped": Halt("StopExecution", "ABORTED"),
    "stopped-unnoticed": Halt("StopExecution, and the event about it is lost", "ABORTED", is_told=False),
    "timed-out": Halt("the machine's timeout of 28 days: States.Timeout", "TIMED_OUT"),
}
_SAMPLED_HALTS = {("WaitForCustomizationJob", "timed-out"), ("WaitForModelDeployment", "stopped-unnoticed")}
HALTED = [(wait, how) for wait in WAITS for how in HALTS]


def is_halt_sampled(wait: str, how: str) -> bool:
    """Return whether `make test` runs the end of an execution in that state."""
    return (wait, how) in _SAMPLED_HALTS


def _in_flight() -> str:
    return ", ".join(f"{answers} (`{kind}`)" for kind, answers in IN_FLIGHT.items())


CHECKS = (
    "the execution is green only where the run has succeeded, and its cause is a sentence, no JSON of a stack trace",
    "the table of runs and the notification say what happened, with cause and fix",
    "so does the report of a failed run, which is missing only where no Catch sees the end: States.DataLimitExceeded",
    "a green end is told, and its report tells of a success",
    "one sweep later no job is InProgress, and nothing bills but what a promotion keeps or AWS did not delete by then",
    "an hour later nothing bills but what a promotion keeps, and the parameter names nothing that is gone",
    "there is no second job, throughput or deployment for the run, and no answer was paid for twice",
    f"but answers on their way to a shard that breaks off: at most {_in_flight()} of {TEST_RECORDS}",
    "the same request runs again and succeeds, and adopts what is there",
)


def table() -> str:
    """Return docs/fault-matrix.md."""
    told = [[end.of, end.how.replace("|", "\\|"), end.error, "x" if end.sampled else ""] for end in ENDS]
    page = (
        "# Fault matrix",
        _INTRODUCTION,
        f"After each fault the tests check that\n\n{_listed(CHECKS)}",
        _counts(),
        "## Every Task, broken in every way",
        _listed(f"`{name}`: {how.does}{_ABSORBED * how.absorbed}" for name, how in KINDS.items()),
        "**x** is what `make test` runs, x is left to the exhaustive tests, and - is what cannot happen there.",
        _markdown(["Task", *KINDS], ([state, *(_mark(state, kind) for kind in KINDS)] for state in TASK_STATES)),
        "## Every end of a job, a throughput and a deployment",
        "The messages are those of `lambda/customization/data/failures.json`, which has their sources.",
        _markdown(["of", "how it ends", "error of the run", "make test"], told),
        "## An execution that ends from outside while it waits",
        _listed(f"`{name}`: {how.does}" for name, how in HALTS.items()),
        _markdown(
            ["state", *HALTS],
            ([wait, *("**x**" if is_halt_sampled(wait, how) else "x" for how in HALTS)] for wait in WAITS),
        ),
        _HALTED,
    )
    return "\n\n".join(page)


_INTRODUCTION = """\
What is broken on purpose in whole runs of the rehearsal. `make docs` writes this page from what the tests iterate
over: [tests/workflow/matrix.py](../tests/workflow/matrix.py)."""
_ABSORBED = " (a retry makes up for it)"
_HALTED = """\
What a stopped execution was training or serving is released within two virtual minutes after the event about its end,
and by the next scheduled sweep where that event is lost. AWS refuses to delete what is still being created: that goes
with a later sweep. While a folder fills, or a model in use is changed by hand, a row of its own stands for the
execution in the table of runs. Only one that is stopped before its first function has written that row leaves no trace:
it has done nothing, and where the event is lost nobody is told."""


def _counts() -> str:
    cells = sum(is_cell_sampled(*cell) for cell in CELLS)
    ends, halts = sum(end.sampled for end in ENDS), sum(is_halt_sampled(*cell) for cell in HALTED)
    return (
        f"`make test` runs {cells} of {len(CELLS)} cells of Tasks, {ends} of {len(ENDS)} ends in Bedrock and {halts} "
        f"of {len(HALTED)} ends of executions. `make test-all` runs the rest."
    )


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _mark(state: str, kind: str) -> str:
    if kind not in kinds_of(state):
        return "-"
    return "**x**" if is_cell_sampled(state, kind) else "x"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
