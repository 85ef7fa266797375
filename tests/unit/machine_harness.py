"""Runs state machine definitions with tasks that are plain functions."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from customization.json_types import Json, JsonObject, as_object
from rehearsal.clock import VirtualClock
from rehearsal.embedded.states.definition import check_definition
from rehearsal.embedded.states.machines import Execution, Machine

if TYPE_CHECKING:
    from rehearsal.embedded.states.history import Happening

START = datetime(2025, 1, 18, 9, tzinfo=UTC)
MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:pipeline"
INVOKE = "arn:aws:states:::lambda:invoke"


class TasksInMemory:
    """Tasks whose payload goes to a function; `children_allowed` raises when children are forbidden."""

    def __init__(self, answer: Callable[[JsonObject], Json]) -> None:
        self._answer = answer
        self.children_allowed: Callable[[], None] = lambda: None

    def run(self, resource: str, arguments: Json, _: str) -> Json:
        assert resource == INVOKE
        payload = as_object(as_object(arguments, "Arguments")["Payload"], "Payload")
        return {"Payload": self._answer(payload)}

    def check_child_executions_allowed(self) -> None:
        self.children_allowed()


class Run:
    """An execution that has been started."""

    def __init__(
        self,
        states: JsonObject,
        answer: Callable[[JsonObject], Json] = lambda payload: payload,
        value: Json = None,
        timeout: int | None = None,
    ) -> None:
        value = {} if value is None else value
        definition: JsonObject = {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states}
        if timeout is not None:
            definition["TimeoutSeconds"] = timeout
        check_definition(definition)
        self.clock = VirtualClock(START)
        self.happenings: list[Happening] = []
        self.changes: list[str] = []
        self.tasks = TasksInMemory(answer)
        self.execution = Execution(
            arn=f"{MACHINE.replace(':stateMachine:', ':execution:')}:first",
            machine=Machine(MACHINE, "pipeline", "arn:aws:iam::123456789012:role/machine", definition),
            input=value,
            clock=self.clock,
            tasks=self.tasks,
            watch=self.happenings.append,
            on_change=lambda execution: self.changes.append(execution.outcome.status),
        )

    def finish(self) -> "Run":
        """Start it and wait until it has ended."""
        self.execution.start()
        self.clock.wait_until_idle(20)
        return self

    def redrive(self) -> "Run":
        """Redrive it and wait until it has ended again."""
        assert self.execution.redrive_obstacle() is None
        self.execution.redrive()
        self.clock.wait_until_idle(20)
        return self

    @property
    def output(self) -> str | None:
        return self.execution.outcome.output

    @property
    def seconds(self) -> float:
        """Return the virtual seconds since the start."""
        return (self.clock.now() - START).total_seconds()

    def visited(self) -> list[str]:
        """Return the names of the states in the order they were entered."""
        return [happening.name for happening in self.happenings if happening.kind == "state-entered"]


def task(**fields: Json) -> JsonObject:
    """Return a Task that passes its state's input on as payload and its result as output."""
    return {
        "Type": "Task",
        "Resource": INVOKE,
        "Arguments": {"FunctionName": "f", "Payload": "{% $states.input %}"},
        "Output": "{% $states.result.Payload %}",
        **({} if "Next" in fields else {"End": True}),
        **fields,
    }
