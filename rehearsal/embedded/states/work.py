"""What Task and Map states do in one attempt."""

import itertools
import threading
import uuid
from typing import TYPE_CHECKING

from customization.json_types import Json, JsonObject, as_object, as_text
from rehearsal.embedded.states.control import Control
from rehearsal.embedded.states.errors import ExecutionEnded, StateError, query_error
from rehearsal.embedded.states.expressions import check_size, encode, timestamp
from rehearsal.embedded.states.flow import Flow, Surroundings
from rehearsal.embedded.states.history import History

if TYPE_CHECKING:
    from rehearsal.clock import Signal

_MOST_CHILDREN = 10_000  # Step Functions quotas: parallel child executions of a Map Run; MaxConcurrency 0 means this


class Interpreter(Flow):
    """Runs the states of one execution, or of one child of a Map state."""

    def __init__(self, flow: JsonObject, context: JsonObject, around: Surroundings) -> None:
        super().__init__(flow, context, around)
        self.map_runs: dict[str, _MapRun] = {}

    def work(self, name: str, state: JsonObject, value: Json) -> Json:
        return (_run_task if state["Type"] == "Task" else _run_map)(self, name, state, value)


def _run_task(run: Interpreter, name: str, state: JsonObject, value: Json) -> Json:
    """Return the integration's result; raises StateError, States.Timeout without a cause after TimeoutSeconds."""
    states = run.states_object(value)
    arguments = run.scope.evaluate(state.get("Arguments", value), states, "Arguments")
    check_size(arguments, name)
    seconds = run.number(state["TimeoutSeconds"], states, "TimeoutSeconds") if "TimeoutSeconds" in state else None
    resource = as_text(state["Resource"], "Resource")
    service, action = resource.removesuffix(".sync").rsplit(":", 2)[-2:]
    kind: JsonObject = {"resourceType": service, "resource": action}
    history = run.around.history
    history.add("TaskScheduled", ("taskScheduledEventDetails", {**kind, "parameters": encode(arguments)}))
    history.add("TaskStarted", ("taskStartedEventDetails", kind))
    attempt = _Attempt(run, name, resource, arguments)
    if not attempt.finished_within(seconds):
        history.add("TaskTimedOut", ("taskTimedOutEventDetails", {**kind, "error": "States.Timeout"}))
        raise StateError("States.Timeout", None)
    if attempt.error is not None:
        error: JsonObject = {"error": attempt.error.error, "cause": attempt.error.cause}
        history.add("TaskFailed", ("taskFailedEventDetails", {**kind, **error}))
        raise attempt.error
    history.add("TaskSucceeded", ("taskSucceededEventDetails", {**kind, "output": encode(attempt.result)}))
    return attempt.result


class _Attempt:
    """A call that goes on in its own thread, so that a timeout or StopExecution need not wait for it."""

    def __init__(self, run: Interpreter, state: str, resource: str, arguments: Json) -> None:
        self._run = run
        self._state = state
        self._resource = resource
        self._arguments = arguments
        self._finished: Signal = run.around.control.clock.signal(f"{resource} in {run.around.execution_arn}")
        self.result: Json = None
        self.error: StateError | None = None

    def finished_within(self, seconds: float | None) -> bool:
        control = self._run.around.control
        control.clock.spawn(self._call, self._resource)
        return control.wait(self._finished, seconds)

    def _call(self) -> None:
        try:
            self.result = self._run.around.tasks.run(self._resource, self._arguments, self._state)
        except StateError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001  a fault of the emulator must end the execution, not hang it
            self.error = StateError("States.Runtime", f"The rehearsal itself failed: {error!r}")
        self._finished.set()


def _run_map(run: Interpreter, name: str, state: JsonObject, value: Json) -> Json:
    """Return the outputs of the children that succeeded, in order of their items.

    Raises StateError States.ExceedToleratedFailureThreshold, which carries no child's error, as the service does.
    """
    states = run.states_object(value)
    items = run.scope.evaluate(state.get("Items", value), states, "Items")
    if not isinstance(items, list):
        raise query_error(f"The field 'Items' must evaluate to an array, found {encode(items)}.")
    inputs = [_child_input(run, state, value, index, item) for index, item in enumerate(items)]
    run.around.tasks.check_child_executions_allowed()
    history = run.around.history
    history.add("MapStateStarted", ("mapStateStartedEventDetails", {"length": len(inputs)}))
    if run.redrives and name in run.map_runs:
        run.redrives = False  # a Retry of the state starts another Map Run
        map_run = run.map_runs[name] = run.map_runs[name].redriven()
        redriven: JsonObject = {"mapRunArn": map_run.arn, "redriveCount": map_run.redrives}
        history.add("MapRunRedriven", ("mapRunRedrivenEventDetails", redriven))
    else:
        map_run = run.map_runs[name] = _MapRun(run, name, state, inputs)
        history.add("MapRunStarted", ("mapRunStartedEventDetails", {"mapRunArn": map_run.arn}))
    try:
        outputs = map_run.outputs()
    except StateError as error:
        history.add("MapRunFailed", ("mapRunFailedEventDetails", {"error": error.error, "cause": error.cause}))
        history.add("MapStateFailed")
        raise
    history.add("MapRunSucceeded")
    history.add("MapStateSucceeded")
    return outputs


def _child_input(run: Interpreter, state: JsonObject, value: Json, index: int, item: Json) -> Json:
    if "ItemSelector" not in state:
        return item
    context: JsonObject = {**run.context, "Map": {"Item": {"Index": index, "Value": item}}}
    return run.scope.evaluate(state["ItemSelector"], {"input": value, "context": context}, "ItemSelector")


class _MapRun:
    """The child executions of a Distributed Map: each has its own context object and variables, and a history."""

    def __init__(
        self, run: Interpreter, name: str, state: JsonObject, inputs: list[Json], before: "_MapRun | None" = None
    ) -> None:
        self._run = run
        self._name = name
        self._state = state
        self._flow = as_object(state["ItemProcessor"], "ItemProcessor")
        self._inputs = inputs
        states = run.states_object(None)
        limit = run.number(state.get("MaxConcurrency", 0), states, "MaxConcurrency")
        self._tolerated = self._tolerated_failures(state, states)
        self._label = as_text(state.get("Label", name), "Label")
        machine = as_object(run.context["StateMachine"], "StateMachine")
        self._machine_arn = f"{machine['Id']}/{self._label}"
        self.redrives: int = before.redrives + 1 if before else 0
        self.arn: str = before.arn if before else self._new_arn()
        self.done: dict[int, Json] = dict(before.done) if before else {}
        self._todo = [index for index in range(len(inputs)) if index not in self.done]
        self._width = min(int(limit) or _MOST_CHILDREN, len(self._todo))
        self._next = itertools.count()
        self._count = threading.Lock()
        self._failed = 0
        self._working = self._width
        self._done = run.around.control.clock.signal(f"Map Run {self.arn}")

    def _new_arn(self) -> str:
        around = self._run.around
        identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{around.execution_arn}/{self._name}/{len(around.history.events)}")
        return f"{self._machine_arn.replace(':stateMachine:', ':mapRun:')}:{identity}"

    def redriven(self) -> "_MapRun":
        """Return this Map Run with only those children to run that have not succeeded.

        A child begins anew, which for a child of one state is what Step Functions does.
        """
        return _MapRun(self._run, self._name, self._state, self._inputs, before=self)

    def _tolerated_failures(self, state: JsonObject, states: JsonObject) -> float:
        bounds = []
        if "ToleratedFailureCount" in state:
            bounds.append(self._run.number(state["ToleratedFailureCount"], states, "ToleratedFailureCount"))
        if "ToleratedFailurePercentage" in state:
            field = "ToleratedFailurePercentage"
            bounds.append(self._run.number(state[field], states, field) / 100 * len(self._inputs))
        return min(bounds, default=0)

    def outputs(self) -> Json:
        """Run the children, at most MaxConcurrency at a time, until all ended or too many failed."""
        if not self._todo:
            return [self.done[index] for index in sorted(self.done)]
        with self._run.around.control.child() as control:
            for _ in range(self._width):
                control.clock.spawn(lambda: self._work(control), self._machine_arn)
            try:
                self._run.around.control.wait(self._done)
            finally:
                control.end()
        if self._failed > self._tolerated:
            raise StateError(
                "States.ExceedToleratedFailureThreshold",
                "The specified tolerated failure threshold was exceeded",
            )
        return [self.done[index] for index in sorted(self.done)]

    def _work(self, control: Control) -> None:
        try:
            while self._failed <= self._tolerated and (at := next(self._next)) < len(self._todo):
                self._child(self._todo[at], control)
        except ExecutionEnded:
            pass
        finally:
            with self._count:
                self._working -= 1
            if not self._working or self._failed > self._tolerated:
                self._done.set()

    def _child(self, index: int, control: Control) -> None:
        name = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.arn}/{index}"))
        arn = f"{self._machine_arn.replace(':stateMachine:', ':execution:')}:{name}"
        parent = as_object(self._run.context["Execution"], "Execution")
        context: JsonObject = {
            "Execution": {
                "Id": arn,
                "Input": self._inputs[index],
                "Name": name,
                "RoleArn": parent["RoleArn"],
                "StartTime": timestamp(control.clock.now()),
            },
            "StateMachine": {"Id": self._machine_arn, "Name": self._machine_arn.rsplit(":", 1)[-1]},
        }
        around = self._run.around
        inside = Surroundings(around.tasks, control, History(control.clock), around.watch, arn)
        detail: JsonObject = {"index": index, "items": len(self._inputs), "error": None, "cause": None}
        try:
            self.done[index] = Interpreter(self._flow, context, inside).run(self._inputs[index])
        except StateError as error:
            with self._count:
                self._failed += 1
            detail.update({"error": error.error, "cause": error.cause})
        self._run.tell("item-ended", self._name, detail)
