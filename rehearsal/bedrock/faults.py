"""Faults that the rehearsal injects by name: the table that `--help` prints, and the state of those in effect."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Lock

from rehearsal.bedrock.protocol import COMMON_STATUS, SERVICES, service_model


@dataclass(frozen=True)
class FaultKind:
    """`value` and `times` are what a fault has when none is given; times None stands for always."""

    does: str
    value: str = ""
    times: int | None = None


INTERNAL_ERROR = "Encountered an internal error when processing the request."

FAULTS: dict[str, FaultKind] = {
    "job-fails": FaultKind(
        "the customization job fails half-way through training; value: its failureMessage", INTERNAL_ERROR
    ),
    "job-fails-validation": FaultKind(
        "the customization job fails when its data are validated; value: its failureMessage",
        "Encountered an unexpected error when processing the request, please try again",
    ),
    "job-stalls": FaultKind("the customization job stays InProgress with its training NotStarted"),
    "job-stopped": FaultKind("somebody stops the customization job half-way through training"),
    "job-stopping": FaultKind(
        "somebody stops the customization job half-way through training, and it is Stopping for long; value: hours",
        "30",
    ),
    "job-slow": FaultKind("training takes long; value: hours", "100"),
    "serving-fails": FaultKind(
        "the deployment or throughput ends as Failed; value: its failureMessage", INTERNAL_ERROR
    ),
    "update-fails": FaultKind("a deployment that is given another custom model ends its update as UpdateFailed"),
    "serving-stuck": FaultKind("the deployment or throughput stays Creating"),
    "no-model-units": FaultKind("the account's quota of model units is 0, as it is in a new account"),
    "base-model-unavailable": FaultKind("the account has no access to base models, so they cannot be asked"),
    "throttled": FaultKind("inference is throttled", times=5),
    "answers-fail": FaultKind("inference answers an internal error", times=5),
    "model-not-ready": FaultKind("inference with a custom model answers that the model is not ready", times=3),
    "refuse": FaultKind(
        "an operation answers an error and does nothing; value: Operation/ErrorCode or Operation/ErrorCode: message",
        "CreateModelCustomizationJob/ThrottlingException",
        times=1,
    ),
    "lose-answer": FaultKind(
        "an operation does its work and answers an internal error; value: Operation",
        "CreateModelCustomizationJob",
        times=1,
    ),
}


@dataclass(frozen=True)
class Fault:
    name: str
    value: str
    times: int | None


def parse_fault(text: str) -> Fault:
    """Return the fault that `name`, `name:times`, `name=value` or `name:times=value` asks for.

    Raises ValueError saying what was expected.
    """
    name = re.split("[:=]", text, maxsplit=1)[0]
    rest = text.removeprefix(name)
    kind = FAULTS.get(name)
    if kind is None:
        raise ValueError(
            f"fault {text!r}: expected name, name:times or name:times=value, name one of {', '.join(FAULTS)}"
        )
    match = re.fullmatch(r"(?::([1-9]\d*))?(?:=(.+))?", rest, re.DOTALL)
    if match is None:
        raise ValueError(
            f"fault {name}: expected nothing, :times or :times=value after the name, times a whole number from 1; "
            f"found {rest!r}"
        )
    fault = Fault(name, match[2] or kind.value, int(match[1]) if match[1] else kind.times)
    if match[2] and not kind.value:
        raise ValueError(f"fault {fault.name} takes no value; it means: {kind.does}")
    if fault.name in {"job-slow", "job-stopping"} and not re.fullmatch(r"\d+(\.\d+)?", fault.value):
        raise ValueError(f"fault {fault.name}: expected a number of hours, found {fault.value!r}")
    if fault.name in {"refuse", "lose-answer"}:
        _check_operation(fault)
    return fault


def _check_operation(fault: Fault) -> None:
    operation, _, error = fault.value.partition(":")[0].partition("/")
    for service in SERVICES:
        model = service_model(service)
        if operation in model.operation_names:
            modelled = {shape.name for shape in model.operation_model(operation).error_shapes} | COMMON_STATUS.keys()
            if fault.name == "lose-answer" or error in modelled:
                return
            raise ValueError(f"fault {fault.name}: {operation} answers {', '.join(sorted(modelled))}, not {error!r}")
    raise ValueError(f"fault {fault.name}: expected an operation of Amazon Bedrock, found {operation!r}")


class Faults:
    """The faults in effect; each counts its strikes across all threads."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._lock = Lock()
        self.replace(faults)

    def replace(self, faults: Iterable[Fault]) -> None:
        """Let these faults, and no others, be in effect from now on."""
        with self._lock:
            self._faults = list(faults)
            self._left = [fault.times for fault in self._faults]

    def is_in_effect(self, name: str) -> bool:
        """Return whether a fault of that name would strike now; none is used up."""
        with self._lock:
            return any(fault.name == name and left != 0 for fault, left in zip(self._faults, self._left, strict=True))

    def strike(self, name: str, value_prefix: str = "") -> str | None:
        """Return the value of a fault of that name that strikes now and use one strike up; None for none."""
        with self._lock:
            for number, fault in enumerate(self._faults):
                left = self._left[number]
                if fault.name == name and fault.value.startswith(value_prefix) and left != 0:
                    self._left[number] = None if left is None else left - 1
                    return fault.value
        return None
