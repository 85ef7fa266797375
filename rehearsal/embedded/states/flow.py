"""Walks through states: what each type does, and Retry and Catch; Task and Map are in `work`."""

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from customization.json_types import Json, JsonObject, as_list, as_object, as_text
from rehearsal.embedded.states.control import Control
from rehearsal.embedded.states.errors import StateError, query_error, runtime_error
from rehearsal.embedded.states.expressions import Scope, check_size, encode, timestamp
from rehearsal.embedded.states.history import Happening, History, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable

_NEVER_CAUGHT = "States.Runtime"
_NOT_IN_ALL = (_NEVER_CAUGHT, "States.DataLimitExceeded")


class Tasks(Protocol):
    """What the machine's role may do outside the machine."""

    def run(self, resource: str, arguments: Json, state: str, /) -> Json:
        """Return the result of an integration such as arn:aws:states:::lambda:invoke for a state; raises StateError."""

    def check_child_executions_allowed(self) -> None:
        """Raise StateError unless the role may start child executions of its own machine."""


@dataclass(frozen=True)
class Surroundings:
    """What an execution and its children share."""

    tasks: Tasks
    control: Control
    history: History
    watch: Watcher
    execution_arn: str


@dataclass(frozen=True)
class _Step:
    """Where the execution goes: the next state's name, or None at the end, and the value it carries."""

    next: str | None
    output: Json


class Flow(ABC):
    """Runs a flow (StartAt, States) with one set of variables; `context` is the context object without State."""

    def __init__(self, flow: JsonObject, context: JsonObject, around: Surroundings) -> None:
        self.flow = flow
        self.context = context
        self.around = around
        self._clock = around.control.clock
        self.scope = Scope(self._clock.now, around.execution_arn)
        self._random = random.Random(around.execution_arn)  # noqa: S311  repeatable jitter
        self._position: tuple[str, Json] | None = None
        self.redrives = False
        self._kinds: dict[str, Callable[[str, JsonObject, Json], _Step]] = {
            "Pass": self._pass,
            "Succeed": self._pass,
            "Wait": self._wait,
            "Choice": self._choice,
            "Fail": self._fail,
            "Task": self._attempted,
            "Map": self._attempted,
        }

    def run(self, value: Json) -> Json:
        """Return the flow's output; raises StateError when it fails and ExecutionEnded when it is ended."""
        return self._walk(as_text(self.flow["StartAt"], "StartAt"), value)

    def redrive(self, context: JsonObject, around: Surroundings) -> Json:
        """Go on as `run`, from the state that did not end, with the variables that there were then.

        That state begins anew, its Retry counters too: what its earlier attempts did is not undone.
        """
        self.context, self.around = context, around
        beginning = as_text(self.flow["StartAt"], "StartAt"), as_object(context["Execution"], "Execution")["Input"]
        name, value = self._position or beginning
        self.redrives = True
        return self._walk(name, value)

    def _walk(self, start: str, value: Json) -> Json:
        states = as_object(self.flow["States"], "States")
        name: str | None = start
        while name is not None:
            self._position = (name, value)
            step = self._enter(name, as_object(states[name], name), value)
            self.redrives = False
            name, value = step.next, step.output
        return value

    def _enter(self, name: str, state: JsonObject, value: Json) -> _Step:
        kind = as_text(state["Type"], name)
        entered: JsonObject = {"EnteredTime": timestamp(self._clock.now()), "Name": name, "RetryCount": 0}
        self.context["State"] = entered
        history = self.around.history
        details: JsonObject = {"name": name, "input": encode(value), "inputDetails": {"truncated": False}}
        history.add(f"{kind}StateEntered", ("stateEnteredEventDetails", details))
        self.tell("state-entered", name, {"type": kind})
        step = self._kinds[kind](name, state, value)
        check_size(step.output, name)
        details = {"name": name, "output": encode(step.output), "outputDetails": {"truncated": False}}
        history.add(f"{kind}StateExited", ("stateExitedEventDetails", details))
        self.tell("state-exited", name, {"type": kind, "output": step.output})
        return step

    def tell(self, kind: str, name: str, detail: JsonObject) -> None:
        """Let those who watch know."""
        self.around.watch(Happening(self._clock.now(), kind, name, self.around.execution_arn, detail))

    def _leave(self, name: str, fields: JsonObject, default: Json, states: JsonObject) -> _Step:
        """Evaluate Assign and Output with the same variables, as the service does, and only then assign."""
        assigned = as_object(self.scope.evaluate(fields.get("Assign", {}), states, "Assign"), "Assign")
        output = self.scope.evaluate(fields["Output"], states, "Output") if "Output" in fields else default
        check_size(assigned, name)
        self.scope.variables.update(assigned)
        following = fields.get("Next")
        return _Step(None if following is None else as_text(following, "Next"), output)

    def states_object(self, value: Json, **more: Json) -> JsonObject:
        """Return what `$states` is bound to."""
        return {"input": value, "context": self.context, **more}

    @abstractmethod
    def work(self, name: str, state: JsonObject, value: Json) -> Json:
        """Return the result of one attempt of a Task or Map; raises StateError and ExecutionEnded."""

    def _pass(self, name: str, state: JsonObject, value: Json) -> _Step:
        return self._leave(name, state, value, self.states_object(value))

    def _wait(self, name: str, state: JsonObject, value: Json) -> _Step:
        states = self.states_object(value)
        seconds = self.number(state["Seconds"], states, "Seconds")
        self.around.control.sleep(seconds)
        return self._leave(name, state, value, states)

    def _choice(self, name: str, state: JsonObject, value: Json) -> _Step:
        states = self.states_object(value)
        for at, item in enumerate(as_list(state["Choices"], "Choices")):
            rule = as_object(item, "Choices")
            field = f"Choices[{at}]/Condition"
            holds = self.scope.evaluate(rule["Condition"], states, field)
            if not isinstance(holds, bool):
                raise query_error(f"The field '{field}' must evaluate to a boolean, found {encode(holds)}.")
            if holds:
                return self._leave(name, rule, value, states)
        if "Default" not in state:
            raise runtime_error(
                f"Failed to transition out of the state '{name}'. The state does not point to a next state.",
            )
        return self._leave(name, {**state, "Next": state["Default"]}, value, states)

    def _fail(self, name: str, state: JsonObject, value: Json) -> _Step:
        texts = {
            field: self.scope.evaluate(state[field], self.states_object(value), field)
            for field in ("Error", "Cause")
            if field in state
        }
        for field, text in texts.items():
            if not isinstance(text, str):
                raise query_error(f"The field '{field}' of '{name}' must evaluate to a string, found {encode(text)}.")
        cause = texts.get("Cause")
        raise StateError(str(texts.get("Error", "")), None if cause is None else str(cause))

    def _attempted(self, name: str, state: JsonObject, value: Json) -> _Step:
        """Run a Task or Map with its Retry and Catch; attempts are counted from each entry of the state."""
        attempts: dict[int, int] = {}
        while True:
            try:
                result = self.work(name, state, value)
                check_size(result, name)
                return self._leave(name, state, result, self.states_object(value, result=result))
            except StateError as error:
                if not self._retried(name, state, error, attempts):
                    return self._caught(name, state, value, error)

    def _retried(self, name: str, state: JsonObject, error: StateError, attempts: dict[int, int]) -> bool:
        for at, item in enumerate(as_list(state.get("Retry", []), "Retry")):
            rule = as_object(item, "Retry")
            if not _matches(rule, error.error):
                continue
            done = attempts.get(at, 0)
            if done >= _plain_number(rule, "MaxAttempts", 3):
                return False
            attempts[at] = done + 1
            delay = _plain_number(rule, "IntervalSeconds", 1) * _plain_number(rule, "BackoffRate", 2) ** done
            delay = min(delay, _plain_number(rule, "MaxDelaySeconds", delay))
            if rule.get("JitterStrategy") == "FULL":
                delay = self._random.uniform(0, delay)
            self.tell("state-retried", name, {"error": error.error, "cause": error.cause, "seconds": delay})
            self.around.control.sleep(delay)
            as_object(self.context["State"], "State")["RetryCount"] = sum(attempts.values())
            return True
        return False

    def _caught(self, name: str, state: JsonObject, value: Json, error: StateError) -> _Step:
        for item in as_list(state.get("Catch", []), "Catch"):
            rule = as_object(item, "Catch")
            if _matches(rule, error.error):
                self.tell("state-caught", name, {"error": error.error, "cause": error.cause})
                output: JsonObject = {"Error": error.error}
                if error.cause is not None:
                    output["Cause"] = error.cause
                return self._leave(name, rule, output, self.states_object(value, errorOutput=output))
        raise error

    def number(self, value: Json, states: JsonObject, field: str) -> float:
        """Return a field that is a number or evaluates to one; raises States.QueryEvaluationError otherwise."""
        found = self.scope.evaluate(value, states, field)
        if isinstance(found, bool) or not isinstance(found, int | float) or found < 0:
            message = f"The field '{field}' must evaluate to a number that is not negative, found {encode(found)}."
            raise query_error(message)
        return found


def _matches(rule: JsonObject, error: str) -> bool:
    names = as_list(rule["ErrorEquals"], "ErrorEquals")
    if error == _NEVER_CAUGHT:
        return False
    if error in names:
        return True
    if "States.ALL" in names:
        return error not in _NOT_IN_ALL
    return "States.TaskFailed" in names and error not in (*_NOT_IN_ALL, "States.Timeout")


def _plain_number(rule: JsonObject, field: str, default: float) -> float:
    value = rule.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{field}: expected a number, found {value!r}")
    return value
