"""What went wrong, as sentences: the cause in AWS's words and ours, and what to do next."""

import json
import re
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from customization import notices
from customization.json_types import JsonObject
from customization.links import Links
from customization.runs import FAILED, SHARD_ERROR, SHARD_ERROR_OF, Call, last_job_name, note, unplanned
from customization.texts import Language, Sentence, say, wording

if TYPE_CHECKING:
    from customization.gateway import Gateway

# Step Functions takes at most 256 and 32,768 characters (Fail state); people read far less.
LONGEST_CAUSE = 8000
# A Distributed Map ends with these, and without the cause of the item that failed.
_MAP_ERRORS = {"States.ExceedToleratedFailureThreshold", "States.ItemReaderFailed"}
# The side that each of them asks (customization.evaluation); a test compares it with stacks/states.py
SIDES_ASKED = {"EvaluateBaseline": "base", "EvaluateModelInUse": "inUse", "EvaluateCustomModel": "custom"}


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


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """data/failures.json: what is known of failures, read on the day `as_of` in `sources`, which have names."""

    as_of: date
    sources: dict[str, str]
    failures: tuple[Known, ...]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """`cause` holds the original message whole, and what is known of it."""

    error: str
    cause: str
    fix: str


@cache
def load_document() -> Document:
    """Return data/failures.json."""
    text = (Path(__file__).parent / "data" / "failures.json").read_bytes()
    return msgspec.json.decode(text, type=Document)


def load_failures() -> tuple[Known, ...]:
    """Return what is known of failures; the first whose pattern is found counts.

    The patterns of what this pipeline words itself come first and ask for its name alone: what follows may be words of
    people, such as a field of their request.
    """
    return load_document().failures


def explain(error: str, cause: str, language: Language = "en") -> Failure:
    """Return a failure in sentences; a message that nobody has documented passes through whole."""
    message = _message(cause)
    # What ended a shard has its own name before it
    said = [f"{error}: {message}", *([message] if error in _MAP_ERRORS else [])]
    for known in load_failures():
        if any(re.search(known.pattern, text) for text in said):
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
    """Write down how the execution ended and return {error, cause, fix, subject, message} for the notification.

    That is in the run's row, or in one of its own where it has no run, or none any more.

    `language` is that of a request that started no run, where it could be read.
    """
    if error in _MAP_ERRORS:
        cause = _shard_error(gateway, call, failed_state) or cause
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
    if not (call.run_id and note(gateway, call, ended)):
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


def _shard_error(gateway: "Gateway", call: Call, failed_state: str) -> str:
    """Return what ended a shard of the Map `failed_state`, empty where no shard of it has said so.

    Another Map's may stand there: that the model in use cannot be asked ends no run.
    """
    row = gateway.runs.get(call.run_id) or {}
    side = SIDES_ASKED.get(failed_state)
    return str(row.get(SHARD_ERROR) or "") if str(row.get(SHARD_ERROR_OF)).partition("/")[0] == side else ""
