"""Executions: their life from start to end, and the events that EventBridge gets about them."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from customization.json_types import Json, JsonObject
from rehearsal.clock import VirtualClock
from rehearsal.embedded.states.control import Control
from rehearsal.embedded.states.errors import ExecutionEnded, StateError
from rehearsal.embedded.states.expressions import check_size, encode, timestamp
from rehearsal.embedded.states.flow import Surroundings, Tasks
from rehearsal.embedded.states.history import Happening, History, Watcher
from rehearsal.embedded.states.work import Interpreter

REDRIVABLE_FOR = timedelta(days=14)  # Step Functions quotas: redrivable period
_MOST_EVENTS_TO_REDRIVE = 24_999  # RedriveExecution, API reference
_ENDED = {
    "SUCCEEDED": ("ExecutionSucceeded", "executionSucceededEventDetails"),
    "FAILED": ("ExecutionFailed", "executionFailedEventDetails"),
    "ABORTED": ("ExecutionAborted", "executionAbortedEventDetails"),
    "TIMED_OUT": ("ExecutionTimedOut", "executionTimedOutEventDetails"),
}


@dataclass(frozen=True)
class Machine:
    arn: str
    name: str
    role_arn: str
    definition: JsonObject


@dataclass
class Outcome:
    """How an execution stands; `output` is JSON text."""

    status: str = "RUNNING"
    output: str | None = None
    error: str | None = None
    cause: str | None = None
    stopped: datetime | None = None


@dataclass
class Execution:
    """One run of a machine; `on_change` is called after it has started, been redriven and ended."""

    arn: str
    machine: Machine
    input: Json
    clock: VirtualClock
    tasks: Tasks
    watch: Watcher
    on_change: Callable[["Execution"], None]
    outcome: Outcome = field(default_factory=Outcome)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.name = self.arn.rsplit(":", 1)[-1]
        self.started = self.clock.now()
        self.history = History(self.clock)
        self.redriven: list[datetime] = []
        self._control = Control(self.clock)
        self._ending = threading.Lock()
        self._cancel_timeout: Callable[[], None] = lambda: None
        self._left = threading.Event()
        self._interpreter = Interpreter(self.machine.definition, self._context(), self._around())

    def start(self) -> None:
        """Run the machine in a thread of its own."""
        details: JsonObject = {"input": encode(self.input), "roleArn": self.machine.role_arn}
        self.history.add("ExecutionStarted", ("executionStartedEventDetails", details))
        with self.clock.hold():
            self._go(self._begin)

    def redrive(self) -> None:
        """Go on from the state that did not end, as RedriveExecution does; ask `redrive_obstacle` before."""
        with self.clock.hold():
            self._left.wait()  # until what was stopped has noticed
            self._left.clear()
            self.ended.clear()
            self.redriven.append(self.clock.now())
            self._control = Control(self.clock)
            self.outcome = Outcome()
            details: JsonObject = {"redriveCount": len(self.redriven)}
            self.history.add("ExecutionRedriven", ("executionRedrivenEventDetails", details))
            self._go(lambda: self._interpreter.redrive(self._context(), self._around()))

    def redrive_obstacle(self) -> str | None:
        """Return why the execution cannot be redriven, None when it can (API reference, DescribeExecution)."""
        if self.outcome.stopped is None or self.outcome.status == "SUCCEEDED":
            return f"Execution is {self.outcome.status} and cannot be redriven"
        if len(self.history.events) >= _MOST_EVENTS_TO_REDRIVE:
            return "Execution history event limit exceeded"
        if self.clock.now() - self.outcome.stopped > REDRIVABLE_FOR:
            return "Execution redrivable period exceeded"
        return None

    def _go(self, work: Callable[[], Json]) -> None:
        self._tell("execution-started")
        self.on_change(self)
        seconds = self.machine.definition.get("TimeoutSeconds")
        if isinstance(seconds, int | float):
            due = self.clock.now() + timedelta(seconds=seconds)
            self._cancel_timeout = self.clock.call_at(due, lambda: self._end("TIMED_OUT"), foreground=True)
        self.clock.spawn(lambda: self._run(work), self.arn)

    def stop(self, error: str | None, cause: str | None) -> None:
        """End it as StopExecution does; nothing happens when it has ended already."""
        with self.clock.hold():
            self._end("ABORTED", error=error, cause=cause)

    def _around(self) -> Surroundings:
        return Surroundings(self.tasks, self._control, self.history, self.watch, self.arn)

    def _begin(self) -> Json:
        check_size(self.input, "input")
        return self._interpreter.run(self.input)

    def _run(self, work: Callable[[], Json]) -> None:
        try:
            self._end("SUCCEEDED", output=encode(work()))
        except ExecutionEnded:
            return
        except StateError as error:
            self._end("FAILED", error=error.error, cause=error.cause)
        except Exception as error:  # a fault of the emulator must not leave the execution running for ever
            self._end("FAILED", error="States.Runtime", cause=f"The rehearsal itself failed: {error!r}")
            raise
        finally:
            self._left.set()

    def _context(self) -> JsonObject:
        return {
            "Execution": {
                "Id": self.arn,
                "Input": self.input,
                "Name": self.name,
                "RoleArn": self.machine.role_arn,
                "StartTime": timestamp(self.started),
                "RedriveCount": len(self.redriven),
                **({"RedriveTime": timestamp(self.redriven[-1])} if self.redriven else {}),
            },
            "StateMachine": {"Id": self.machine.arn, "Name": self.machine.name},
        }

    def _end(
        self, status: str, *, output: str | None = None, error: str | None = None, cause: str | None = None
    ) -> None:
        with self._ending:
            if self.outcome.status != "RUNNING":
                return
            self.outcome = Outcome(status, output, error, cause, self.clock.now())
        kind, key = _ENDED[status]
        details: JsonObject = {"output": output} if status == "SUCCEEDED" else {"error": error, "cause": cause}
        self.history.add(kind, (key, {name: value for name, value in details.items() if value is not None}))
        self._cancel_timeout()
        self._control.end()
        self._tell("execution-ended")
        self.on_change(self)
        self.ended.set()

    def _tell(self, kind: str) -> None:
        detail: JsonObject = {"status": self.outcome.status, "error": self.outcome.error, "cause": self.outcome.cause}
        self.watch(Happening(self.clock.now(), kind, self.machine.name, self.arn, detail))

    def status_change(self) -> JsonObject:
        """Return the detail of the event Step Functions Execution Status Change as it stands."""
        outcome = self.outcome
        return {
            "executionArn": self.arn,
            "stateMachineArn": self.machine.arn,
            "name": self.name,
            "status": outcome.status,
            "startDate": _milliseconds(self.started),
            "stopDate": None if outcome.stopped is None else _milliseconds(outcome.stopped),
            "input": encode(self.input),
            "inputDetails": {"included": True},
            "output": outcome.output,
            "outputDetails": None if outcome.output is None else {"included": True},
            "stateMachineVersionArn": None,
            "stateMachineAliasArn": None,
            "redriveCount": len(self.redriven),
            "redriveDate": _milliseconds(self.redriven[-1]) if self.redriven else None,
            "redriveStatus": "NOT_REDRIVABLE" if self.redrive_obstacle() else "REDRIVABLE",
            "error": outcome.error,
            "cause": outcome.cause,
        }


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
