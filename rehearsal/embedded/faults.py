"""What a test or a person can break on purpose in a call that a state, a rule or a schedule makes."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from customization.json_types import Json

PUBLISH = "sns:publish"
# Real seconds: a worker has to start, on a machine that may be busy
_MEETS_WITHIN = 30.0


@dataclass(frozen=True)
class TaskCall:
    """`function` is the handler's module name, or PUBLISH; `state` the Task that calls, "" for rules and schedules."""

    function: str
    payload: Json
    state: str = ""


class FunctionFault(Exception):  # noqa: N818  a fault is injected, it is no error of this program
    """Raised by a hook: the call ends with this error type and message."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


class Throttle(FunctionFault):
    """The service refuses the call: Lambda.TooManyRequestsException in a state machine."""

    def __init__(self) -> None:
        super().__init__("TooManyRequestsException", "Rate Exceeded.")


class Hang(FunctionFault):
    """The function runs until its timeout, in virtual time, and ends with Sandbox.Timedout."""

    def __init__(self) -> None:
        super().__init__("Sandbox.Timedout", "injected")


class Kill(FunctionFault):
    """The function's process dies, Runtime.ExitError: at once, or in the middle of its work.

    That is once `calls` of its calls to AWS are answered or `changes` of those that change something are done, at the
    latest when its handler has ended. `deaths` counts the processes that have died so.
    """

    def __init__(self, *, calls: int | None = None, changes: int | None = None) -> None:
        super().__init__("Runtime.ExitError", "injected")
        self.calls = calls
        self.changes = changes
        self.deaths = 0

    @property
    def is_midway(self) -> bool:
        return self.calls is not None or self.changes is not None


class Twice(FunctionFault):
    """The call is made twice at once, as when a retry overtakes what it should replace; one answer counts.

    Neither changes anything before the other is about to do so, too. `meetings` counts the times that both were there.
    """

    def __init__(self) -> None:
        super().__init__("Twice", "injected")
        self.meetings = 0

    def meeting(self) -> Callable[[], None]:
        """Return what each of two threads calls, and what keeps it until the other has come, or for half a minute."""
        barrier = threading.Barrier(2, action=self._met, timeout=_MEETS_WITHIN)

        def meet() -> None:
            with suppress(threading.BrokenBarrierError):
                barrier.wait()

        return meet

    def _met(self) -> None:
        self.meetings += 1


class Nonsense(FunctionFault):
    """The function's answer is replaced by this JSON text."""

    def __init__(self, answer: str) -> None:
        super().__init__("Nonsense", "injected")
        self.answer = answer


class Faults(Protocol):
    """Hooks around every call."""

    def before_call(self, call: TaskCall, /) -> None:
        """Called first; a fault raised here keeps the work from being done, apart from Twice and a Kill midway."""

    def after_call(self, call: TaskCall, /) -> None:
        """Called after the work was done; a fault raised here loses the answer, not the work."""


class NoFaults:
    """Breaks nothing."""

    def before_call(self, call: TaskCall) -> None:
        pass

    def after_call(self, call: TaskCall) -> None:
        pass
