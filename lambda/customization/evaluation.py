"""Asking a model every record of a shard: concurrent, slower when throttled, no record dropped."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from customization.catalogue import BaseModel
from customization.errors import RequestRejected, ServiceUnavailable, Throttled
from customization.formats import TestRecord
from customization.inference import Call, InferenceSettings, build_call, read_answer
from customization.json_types import JsonObject

BASE = "base"
CUSTOM = "custom"
IN_USE = "inUse"
SIDES = (BASE, CUSTOM, IN_USE)

# A throttled record is tried again after 1, 2, 4, ... seconds: two minutes in all before the shard gives up.
_ATTEMPTS = 8
_FIRST_PAUSE_SECONDS = 1.0
_MAX_ERROR_CHARACTERS = 500


class Prediction(msgspec.Struct, frozen=True, rename="camel"):
    """One model's answer to one record, or the error it ended with; token counts are None where none were given."""

    record_id: str
    side: str
    text: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    stop_reason: str = ""
    latency_ms: float = 0.0
    error: str = ""


def asker(
    *,
    model: BaseModel,
    model_id: str,
    side: str,
    inference: InferenceSettings,
    send: Callable[[Call], JsonObject],
    timer: Callable[[], float],
) -> Callable[[TestRecord], Prediction]:
    """Return a function that asks one record through `send`; `timer` gives seconds.

    What concerns this record alone is put into its prediction: a refusal, or a model that keeps failing on it. What
    concerns all of them (Throttled, ModelNotReady, AccessDenied, ResourceNotFound) is raised.
    """

    def ask(record: TestRecord) -> Prediction:
        call = build_call(model, model_id, record, inference)
        began = timer()
        try:
            answer = read_answer(model, call, send(call))
        except (RequestRejected, ServiceUnavailable) as error:
            text = f"{type(error).__name__}: {error}"[:_MAX_ERROR_CHARACTERS]
            return Prediction(record.record_id, side, latency_ms=_milliseconds(timer() - began), error=text)
        return Prediction(
            record.record_id,
            side,
            text=answer.text,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            stop_reason=answer.stop_reason,
            latency_ms=_milliseconds(timer() - began),
        )

    return ask


def answer_records(
    records: Sequence[TestRecord],
    ask: Callable[[TestRecord], Prediction],
    concurrency: int,
    pause: Callable[[float], None],
) -> list[Prediction]:
    """Return one prediction a record, in the records' order; `pause` waits for a number of seconds.

    Throttling halves the concurrency, which recovers by one with every round of answers; raises Throttled when a record
    was throttled eight times in a row, and whatever else `ask` raises.
    """
    pace = _Pace(concurrency)

    def answer(record: TestRecord) -> Prediction:
        for attempt in range(_ATTEMPTS):
            try:
                with pace:
                    return ask(record)
            except Throttled:
                if attempt == _ATTEMPTS - 1:
                    raise
                pace.slow_down()
                pause(_FIRST_PAUSE_SECONDS * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    executor = ThreadPoolExecutor(max_workers=concurrency)
    try:
        return list(executor.map(answer, records))
    finally:
        executor.shutdown(cancel_futures=True)


def encode_predictions(predictions: Iterable[Prediction]) -> bytes:
    """Return the predictions as JSON lines."""
    return msgspec.json.Encoder().encode_lines(list(predictions))


def decode_predictions(lines: bytes) -> list[Prediction]:
    """Return the predictions of JSON lines; raises msgspec.ValidationError for anything else."""
    return msgspec.json.Decoder(Prediction).decode_lines(lines)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


class _Pace:
    """Lets as many threads in as the service bears: half as many after throttling, one more after each full round."""

    def __init__(self, limit: int) -> None:
        self._most = limit
        self._limit = limit
        self._inside = 0
        self._answered = 0
        self._condition = threading.Condition()

    def __enter__(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._inside < self._limit)
            self._inside += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._condition:
            self._inside -= 1
            self._answered += kind is None
            if self._answered >= self._limit:
                self._limit = min(self._limit + 1, self._most)
                self._answered = 0
            self._condition.notify_all()

    def slow_down(self) -> None:
        with self._condition:
            self._limit = max(self._limit // 2, 1)
            self._answered = 0
