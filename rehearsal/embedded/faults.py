"""What a test or a person can break on purpose in a call that a state, a rule or a schedule makes."""

from dataclasses import dataclass
from typing import Protocol

from customization.json_types import Json

PUBLISH = "sns:publish"


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
    """The function's process dies, Runtime.ExitError: once `calls` of its calls to AWS are answered, None at once."""

    def __init__(self, calls: int | None = None) -> None:
        super().__init__("Runtime.ExitError", "injected")
        self.calls = calls


class Twice(FunctionFault):
    """The call is made twice at once, as when a retry overtakes what it should replace; one answer counts."""

    def __init__(self) -> None:
        super().__init__("Twice", "injected")


class Nonsense(FunctionFault):
    """The function's answer is replaced by this JSON text."""

    def __init__(self, answer: str) -> None:
        super().__init__("Nonsense", "injected")
        self.answer = answer


class Faults(Protocol):
    """Hooks around every call."""

    def before_call(self, call: TaskCall, /) -> None:
        """Called first; a fault raised here keeps the work from being done, apart from Twice and Kill with calls."""

    def after_call(self, call: TaskCall, /) -> None:
        """Called after the work was done; a fault raised here loses the answer, not the work."""


class NoFaults:
    """Breaks nothing."""

    def before_call(self, call: TaskCall) -> None:
        pass

    def after_call(self, call: TaskCall) -> None:
        pass
