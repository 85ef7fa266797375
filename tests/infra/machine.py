"""The state machine of the synthesized template, as plain JSON and as a run with scripted functions."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from customization.json_types import Json, JsonObject, as_object, as_text
from rehearsal.clock import VirtualClock
from rehearsal.embedded.states.definition import check_definition
from rehearsal.embedded.states.errors import StateError
from rehearsal.embedded.states.machines import Execution, Machine
from rehearsal.templates import definition, function_modules, listed, states

__all__ = ["Answer", "all_states", "caught", "definition", "execute", "function_modules", "states", "transitions"]

_ARN = "arn:aws:states:us-east-1:123456789012:stateMachine:Pipeline"

Answer = JsonObject | StateError | Callable[[JsonObject], JsonObject]


def all_states(flow: JsonObject) -> dict[str, JsonObject]:
    """Return the states of `flow` and those inside of its maps by name."""
    found: dict[str, JsonObject] = {}
    for name, state in states(flow).items():
        found[name] = state
        if state["Type"] == "Map":
            found |= states(as_object(state["ItemProcessor"], "ItemProcessor"))
    return found


def caught(state: JsonObject) -> Iterator[JsonObject]:
    for rule in listed(state.get("Catch", [])):
        yield as_object(rule, "Catch")


def transitions(state: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    """Yield every state that `state` may lead to, with what is assigned on the way."""
    own = as_object(state.get("Assign", {}), "Assign")
    for field in ("Next", "Default"):
        if field in state:
            yield as_text(state[field], field), own
    for rule in (*listed(state.get("Choices", [])), *caught(state)):
        fields = as_object(rule, "rule")
        yield as_text(fields["Next"], "Next"), as_object(fields.get("Assign", {}), "Assign")


class Script:
    """What functions answer and what the topic gets, instead of AWS; an answer may be a list that is used up."""

    def __init__(self, clock: VirtualClock, answers: Mapping[str, Answer | list[Answer]]) -> None:
        self.calls: list[tuple[str, JsonObject]] = []
        self.notices: list[JsonObject] = []
        self._clock = clock
        self._answers = {name: list(answer) if isinstance(answer, list) else answer for name, answer in answers.items()}

    def run(self, resource: str, arguments: Json, _: str) -> Json:
        called = as_object(arguments, resource)
        if resource.endswith("sns:publish"):
            answer = self._next("topic")
            self.notices.append(called)
            return self._say(answer, called)
        module, payload = as_text(called["FunctionName"], "FunctionName"), as_object(called["Payload"], "Payload")
        self.calls.append((module, payload))
        return {"Payload": self._say(self._next(module), payload), "StatusCode": 200}

    def check_child_executions_allowed(self) -> None:
        """Let maps start children."""

    def modules(self) -> list[str]:
        return [module for module, _ in self.calls]

    def payload(self, module: str) -> JsonObject:
        """Return what the last call of `module` was sent."""
        return [payload for name, payload in self.calls if name == module][-1]

    def _next(self, name: str) -> Answer:
        answer = self._answers[name]
        if isinstance(answer, list):
            return answer.pop(0) if len(answer) > 1 else answer[0]
        return answer

    def _say(self, answer: Answer, payload: JsonObject) -> JsonObject:
        if isinstance(answer, StateError):
            raise answer
        return answer(payload) if callable(answer) else answer


def execute(machine: JsonObject, answers: Mapping[str, Answer | list[Answer]]) -> tuple[Execution, Script]:
    """Run `machine` to its end in virtual time."""
    check_definition(machine)
    clock = VirtualClock(datetime(2025, 1, 18, 9, 0, tzinfo=UTC))
    script = Script(clock, answers)
    execution = Execution(
        arn=f"{_ARN.replace(':stateMachine:', ':execution:')}:test",
        machine=Machine(_ARN, "Pipeline", "arn:aws:iam::123456789012:role/Machine", machine),
        input={"dataset": "support-ja"},
        clock=clock,
        tasks=script,
        watch=lambda _: None,
        on_change=lambda _: None,
    )
    execution.start()
    clock.wait_until_idle(60)
    return execution, script
