"""The history of an execution, and the stream of what happens for those who watch."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, TypedDict

from customization.json_types import JsonObject
from rehearsal.clock import VirtualClock
from rehearsal.embedded.states.errors import runtime_error

_MOST_EVENTS = 25_000  # Step Functions quotas: maximum execution history size


@dataclass(frozen=True)
class Happening:
    """One thing that happened, for progress displays and tests.

    `kind` is execution-started, execution-ended, state-entered, state-exited, state-retried, state-caught, item-ended,
    event-delivered or log; `name` is the state, function, rule or machine; `at` is virtual time.
    """

    at: datetime
    kind: str
    name: str
    execution_arn: str
    detail: JsonObject


Watcher: TypeAlias = Callable[[Happening], None]


class HistoryEvent(TypedDict):
    timestamp: datetime
    type: str
    id: int
    previousEventId: int
    details: tuple[str, JsonObject] | None


class History:
    """Events in the shape of GetExecutionHistory; `details` is the type's own key with its value."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.events: list[HistoryEvent] = []

    def add(self, kind: str, details: tuple[str, JsonObject] | None = None) -> None:
        """Append an event; raises StateError States.Runtime beyond 25,000 events as the service does."""
        with self._lock:
            if len(self.events) >= _MOST_EVENTS and not kind.startswith("Execution"):
                raise runtime_error(f"The execution reached the maximum number of history events ({_MOST_EVENTS}).")
            number = len(self.events) + 1
            self.events.append(
                {
                    "timestamp": self._clock.now(),
                    "type": kind,
                    "id": number,
                    "previousEventId": number - 1,
                    "details": details,
                },
            )
