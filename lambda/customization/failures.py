"""What went wrong, as sentences: the cause in AWS's words and ours, and what to do next."""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from customization.json_types import JsonObject
from customization.runs import FAILED, Call, note

if TYPE_CHECKING:
    from customization.gateway import Gateway

# Step Functions takes at most 256 and 32,768 characters (Fail state); people read far less.
LONGEST_CAUSE = 8000
# A Distributed Map ends with these, and without the cause of the item that failed.
_MAP_ERRORS = {"States.ExceedToleratedFailureThreshold", "States.ItemReaderFailed"}


class _Known(msgspec.Struct, frozen=True):
    pattern: str
    cause: str
    fix: str
    source: str


class _Document(msgspec.Struct, frozen=True):
    failures: tuple[_Known, ...]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """`cause` holds the original message whole, and what is known of it."""

    error: str
    cause: str
    fix: str


@cache
def _known() -> tuple[_Known, ...]:
    text = (Path(__file__).parent / "data" / "failures.json").read_bytes()
    return msgspec.json.decode(text, type=_Document).failures


def explain(error: str, cause: str) -> Failure:
    """Return a failure in sentences; a message that nobody has documented passes through whole."""
    message = _message(cause)
    for known in _known():
        if re.search(known.pattern, f"{error}: {message}"):
            return Failure(error=error, cause=f"{message or error} - {known.cause}"[:LONGEST_CAUSE], fix=known.fix)
    fix = "Mend what is named above and start the run again: what was done is adopted."
    return Failure(error=error, cause=(message or error)[:LONGEST_CAUSE], fix=fix)


def _message(cause: str) -> str:
    """Return the sentence inside a Lambda function's cause, which is JSON with a stack trace."""
    try:
        document = json.loads(cause)
    except ValueError:
        return cause.strip()
    if not isinstance(document, dict):
        return cause.strip()
    return str(document.get("errorMessage") or document.get("Cause") or cause).strip()


def record_failure(gateway: "Gateway", call: Call, error: str, cause: str, failed_state: str) -> JsonObject:
    """Write into the run's row how it ended and return {error, cause, fix, subject, message} for the notification."""
    if error in _MAP_ERRORS:
        cause = str((gateway.runs.get(call.run_id) or {}).get("shardError") or cause)
    failure = explain(error, cause)
    ended: JsonObject = {
        "state": FAILED,
        "error": failure.error,
        "cause": failure.cause,
        "fix": failure.fix,
        "failedState": failed_state,
        "endedAt": call.now.isoformat(),
    }
    if call.run_id:
        note(gateway, call, ended)
    else:
        name = f"unplanned#{call.execution_arn.rsplit(':', 1)[-1]}"
        gateway.runs.put({"runId": name, "executionArn": call.execution_arn, "attempt": 0, **ended})
    title = call.run_id or "a request that started no run"
    return {
        "error": failure.error,
        "cause": failure.cause,
        "fix": failure.fix,
        "subject": f"Failed at {failed_state}: {title}"[:99],
        "message": f"{title} failed at {failed_state} with {failure.error}.\n\nCause: {failure.cause}\n\nWhat to do: "
        f"{failure.fix}\n\nWhatever the run had started that bills is being released.\n"
        f"Execution: {call.execution_arn}\n",
    }
