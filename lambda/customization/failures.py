"""What went wrong, as sentences: the cause in AWS's words and ours, and what to do next."""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from customization import notices
from customization.json_types import JsonObject
from customization.links import Links
from customization.runs import FAILED, Call, last_job_name, note, unplanned
from customization.texts import Language, Sentence, say, wording

if TYPE_CHECKING:
    from customization.gateway import Gateway

# Step Functions takes at most 256 and 32,768 characters (Fail state); people read far less.
LONGEST_CAUSE = 8000
# A Distributed Map ends with these, and without the cause of the item that failed.
_MAP_ERRORS = {"States.ExceedToleratedFailureThreshold", "States.ItemReaderFailed"}


class Example(msgspec.Struct, frozen=True):
    """A message as Bedrock sends it.

    `end` is what ends with it: the validation or the training of a job, a throughput, a deployment, or the call of an
    operation, as Operation/ErrorCode.
    """

    end: str
    message: str


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`cause` and `fix` are sentences by language; an error that this pipeline words itself needs no further cause."""

    pattern: str
    fix: dict[str, str]
    source: str
    cause: dict[str, str] = {}
    examples: tuple[Example, ...] = ()


class _Document(msgspec.Struct, frozen=True):
    failures: tuple[Known, ...]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """`cause` holds the original message whole, and what is known of it."""

    error: str
    cause: str
    fix: str


@cache
def load_failures() -> tuple[Known, ...]:
    """Return what is known of failures, from data/failures.json; the first whose pattern is found counts."""
    text = (Path(__file__).parent / "data" / "failures.json").read_bytes()
    return msgspec.json.decode(text, type=_Document).failures


def explain(error: str, cause: str, language: Language = "en") -> Failure:
    """Return a failure in sentences; a message that nobody has documented passes through whole."""
    message = _message(cause)
    for known in load_failures():
        if re.search(known.pattern, f"{error}: {message}"):
            told = " - ".join(filter(None, (message or error, known.cause.get(language))))
            return Failure(error=error, cause=told[:LONGEST_CAUSE], fix=known.fix[language])
    return Failure(error=error, cause=(message or error)[:LONGEST_CAUSE], fix=wording("notice.startAgain", language))


def _message(cause: str) -> str:
    """Return the sentence inside a Lambda function's cause, which is JSON with a stack trace."""
    try:
        document = json.loads(cause)
    except (ValueError, RecursionError):
        return cause.strip()
    if not isinstance(document, dict):
        return cause.strip()
    return str(document.get("errorMessage") or document.get("Cause") or cause).strip()


def _unabridged(gateway: "Gateway", call: Call, error: str, cause: str, language: Language) -> str:
    """Return the cause with all that Bedrock said: no log has what a function raised of a record, but people see it."""
    row = gateway.runs.get(call.run_id) if error == "CustomizationJobFailed" else None
    if not row or "jobFailure" not in row:
        return cause
    values = {"job": last_job_name(row), "reason": str(row["jobFailure"])}
    return say(Sentence("error.jobFailed", values), language)


def record_failure(
    gateway: "Gateway", call: Call, error: str, cause: str, failed_state: str, *, language: Language | None = None
) -> JsonObject:
    """Write into the run's row how it ended and return {error, cause, fix, subject, message} for the notification.

    `language` is that of a request that started no run, where it could be read.
    """
    if error in _MAP_ERRORS:
        cause = str((gateway.runs.get(call.run_id) or {}).get("shardError") or cause)
    language = language or notices.language_of(gateway, call.run_id or unplanned(call.execution_arn))
    failure = explain(error, _unabridged(gateway, call, error, cause, language), language)
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
        row: JsonObject = {"runId": unplanned(call.execution_arn), "executionArn": call.execution_arn, "attempt": 0}
        gateway.runs.put(row | {"language": language} | ended)
    told = notices.failed(
        title=call.run_id,
        state=failed_state,
        error=failure.error,
        cause=failure.cause,
        fix=failure.fix,
        language=language,
        link=Links.of(gateway.settings).execution(call.execution_arn),
    )
    return {"error": failure.error, "cause": failure.cause, "fix": failure.fix, **told.payload()}
