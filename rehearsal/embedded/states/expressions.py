"""JSONata as Step Functions evaluates it.

Values are bound, never pasted into an expression's text, so quotes and line breaks in data are safe.
"""

import json
import random
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache

from jsonata.jexception import JException
from jsonata.jsonata import Jsonata
from jsonata.utils import Utils

from customization.json_types import Json, JsonObject, as_text
from rehearsal.embedded.states.errors import StateError, query_error

_PREFIX, _SUFFIX = "{%", "%}"
LIMIT_BYTES = 262_144  # Step Functions quotas: input or output of a task, state or execution, and one variable
_one_at_a_time = threading.Lock()  # jsonata-python keeps the instance under evaluation in shared state


class _Undefined:
    """What an expression returns that selects nothing."""


_UNDEFINED = _Undefined()


class _Function(Jsonata.JLambda):
    def __init__(self, answer: Callable[[Sequence[Json]], Json]) -> None:
        self._answer = answer

    def call(self, input: object, args: Sequence[Json] | None) -> Json:  # noqa: A002, ARG002  jsonata-python's names
        return self._answer(args or [])


class Scope:
    """The variables of one execution, and the virtual time that `$now()` and `$millis()` answer."""

    def __init__(self, now: Callable[[], datetime], seed: str) -> None:
        self.variables: JsonObject = {}
        bits = random.Random(seed).getrandbits  # noqa: S311  repeatable on purpose
        self._functions: dict[str, Callable[[Sequence[Json]], Json]] = {
            "now": lambda _: timestamp(now()),
            "millis": lambda _: int(now().timestamp() * 1000),
            "uuid": lambda _: str(uuid.UUID(int=bits(128), version=4)),
            "parse": lambda arguments: _json(json.loads(as_text(arguments[0], "$parse"))),
        }

    def evaluate(self, value: Json, states: JsonObject, field: str) -> Json:
        """Return `value` with every expression in it evaluated.

        Raises StateError States.QueryEvaluationError naming `field` when an expression fails or selects nothing.
        """
        if isinstance(value, dict):
            return {key: self.evaluate(item, states, f"{field}/{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [self.evaluate(item, states, f"{field}[{at}]") for at, item in enumerate(value)]
        if not is_expression(value):
            return value
        text = expression_text(value)
        result = self._run(text, states, field)
        if isinstance(result, _Undefined):
            raise query_error(
                f"The JSONata expression '{text}' specified for the field '{field}' returned nothing (undefined).",
            )
        return result

    def _run(self, text: str, states: JsonObject, field: str) -> Json | _Undefined:
        try:
            with _one_at_a_time:
                compiled = _compiled(text)
                frame = compiled.create_frame()
                for name, function in self._functions.items():
                    frame.bind(name, _Function(function))
                for name, value in {**self.variables, "states": states}.items():
                    frame.bind(name, Utils.NULL_VALUE if value is None else value)
                return _plain(compiled.evaluate(None, frame))
        except (JException, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
            message = f"The JSONata expression '{text}' specified for the field '{field}' threw an error: {error}"
            raise query_error(message) from error


def is_expression(value: Json) -> bool:
    """Return whether a field's value is JSONata and not a literal."""
    return isinstance(value, str) and value.startswith(_PREFIX) and value.endswith(_SUFFIX)


def expression_text(value: Json) -> str:
    """Return what stands between the expression marks."""
    return str(value)[len(_PREFIX) : -len(_SUFFIX)].strip()


def syntax_problem(value: Json) -> str | None:
    """Return why an expression does not parse, or None."""
    try:
        with _one_at_a_time:
            _compiled(expression_text(value))
    except JException as error:
        return str(error)
    return None


def timestamp(moment: datetime) -> str:
    """Return a time as Step Functions writes it into the context object: UTC, milliseconds, Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def encode(value: Json) -> str:
    """Return compact JSON text, as histories and API answers carry it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def check_size(value: Json, what: str) -> None:
    """Raise StateError States.DataLimitExceeded, which no Catch sees, when `value` is over 256 KiB of UTF-8 JSON."""
    if len(encode(value).encode()) > LIMIT_BYTES:
        raise StateError(
            "States.DataLimitExceeded",
            f"The state/task '{what}' returned a result with a size exceeding the maximum number of bytes limit.",
        )


@lru_cache(maxsize=4096)
def _compiled(text: str) -> Jsonata:
    compiled = Jsonata(text)
    compiled.set_output_convert_nulls(False)  # null and undefined differ for Step Functions
    return compiled


def _plain(value: object) -> Json | _Undefined:
    if value is None:
        return _UNDEFINED
    return _json(value)


def _json(value: object) -> Json:
    if value is None or isinstance(value, Utils.NullValue):
        return None
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_json(item) for item in value]
    raise ValueError(f"a {type(value).__name__} is no JSON value")
