"""What a test or a person can break on purpose in a function call."""

from typing import Protocol

from customization.json_types import Json


class FunctionFault(Exception):  # noqa: N818  a fault is injected, it is no error of this program
    """Raised by a hook: the function call ends with this error type and message instead of running."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


class Throttle(FunctionFault):
    """Lambda refuses the call: Lambda.TooManyRequestsException in a state machine."""

    def __init__(self) -> None:
        super().__init__("TooManyRequestsException", "Rate Exceeded.")


class Hang(FunctionFault):
    """The function runs until its timeout, in virtual time, and ends with Sandbox.Timedout."""

    def __init__(self) -> None:
        super().__init__("Sandbox.Timedout", "injected")


class Kill(FunctionFault):
    """The function's process dies: Runtime.ExitError."""

    def __init__(self) -> None:
        super().__init__("Runtime.ExitError", "injected")


class Faults(Protocol):
    """Hooks around every function call; `function` is the handler's module name, such as plan_run."""

    def before_invoke(self, function: str, payload: Json, /) -> None:
        """Called before the handler runs; a FunctionFault raised here keeps it from running."""

    def after_invoke(self, function: str, payload: Json, result: str, /) -> None:
        """Called after the handler returned JSON text; a FunctionFault raised here loses the answer, not the work."""


class NoFaults:
    """Breaks nothing."""

    def before_invoke(self, function: str, payload: Json) -> None:
        pass

    def after_invoke(self, function: str, payload: Json, result: str) -> None:
        pass
