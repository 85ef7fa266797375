"""How a state ends when it does not succeed."""


class StateError(Exception):
    """A state failed with an error name and, except after a timeout, a cause."""

    def __init__(self, error: str, cause: str | None) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause


class ExecutionEnded(Exception):  # noqa: N818  not an error: it unwinds an execution that was stopped or timed out
    """The execution was ended from outside while a state ran."""


def query_error(message: str) -> StateError:
    """Return the error of an expression that cannot be evaluated; Retry and Catch see it."""
    return StateError("States.QueryEvaluationError", message)


def runtime_error(message: str) -> StateError:
    """Return the error that no Retry and no Catch sees."""
    return StateError("States.Runtime", message)
