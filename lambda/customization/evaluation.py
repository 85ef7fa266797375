"""Asking a model every record of a shard: concurrent, slower when throttled, no record dropped, no answer lost."""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from customization.catalogue import BaseModel
from customization.errors import EvaluationUnfinished, RequestRejected, ServiceUnavailable, Throttled
from customization.formats import TestRecord
from customization.inference import InferenceSettings, Question, build_question, read_answer
from customization.json_types import JsonObject

BASE = "base"
CUSTOM = "custom"
IN_USE = "inUse"
COMPARE_WITH = "compareWith"
SIDES = (BASE, CUSTOM, IN_USE, COMPARE_WITH)

# The map runs so many shards at once (stacks/states.py), and each asks so many records at once.
SHARDS_AT_ONCE = 4
CONCURRENCY = 8
# The last answers of a shard come one by one, and a function has to start: both are small beside so many records. At
# 8 at once and 10 seconds an answer the function's 15 minutes are enough for them.
_MOST_RECORDS = 500
# Fewer are not worth a function of their own.
_FEWEST_RECORDS = 25

# A throttled record is tried again after 1, 2, 4, ... at most 30 seconds, as long as any answer comes within these.
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_PATIENCE_SECONDS = 300.0
_REST_SECONDS = 0.5
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


def shard_count(records: int) -> int:
    """Return into how many shards that many test records are cut: a multiple of those at once, so that all end alike.

    A last shard that runs alone would leave the others' concurrency unused.
    """
    rounds = math.ceil(records / (SHARDS_AT_ONCE * _MOST_RECORDS))
    return min(SHARDS_AT_ONCE * rounds, math.ceil(records / _FEWEST_RECORDS))


def shard_range(records: int, shard: int) -> range:
    """Return the places of a shard's records among all of them; shards differ by one record at most."""
    count = shard_count(records)
    return range(records * shard // count, records * (shard + 1) // count)


def asker(
    *,
    model: BaseModel,
    model_id: str,
    side: str,
    inference: InferenceSettings,
    send: Callable[[Question], JsonObject],
    timer: Callable[[], float],
) -> Callable[[TestRecord], Prediction]:
    """Return a function that asks one record through `send`; `timer` gives seconds.

    What concerns this record alone is put into its prediction: a refusal, or a model that keeps failing on it. What
    concerns all of them (Throttled, ModelNotReady, AccessDenied, ResourceNotFound) is raised.
    """

    def ask(record: TestRecord) -> Prediction:
        question = build_question(model, model_id, record, inference)
        began = timer()
        try:
            answer = read_answer(model, question, send(question))
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


def in_threads(works: Sequence[Callable[[], None]]) -> None:
    """Do all of `works` at once and return when the last is done."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast and how long a shard is asked.

    `timer` gives seconds and `pause` waits for some; from `ends_at` of the timer on no further record is asked.
    `together` does several things at once.
    """

    timer: Callable[[], float]
    pause: Callable[[float], None]
    concurrency: int = CONCURRENCY
    ends_at: float = math.inf
    together: Callable[[Sequence[Callable[[], None]]], None] = in_threads


def answer_records(
    records: Sequence[TestRecord],
    ask: Callable[[TestRecord], Prediction],
    pace: Pace,
    keep: Callable[[list[Prediction]], None] = lambda _: None,
) -> list[Prediction]:
    """Return one prediction a record, in the records' order.

    `keep` is given all predictions so far, whenever as many new ones have come as are asked at once, and at the end,
    however that comes about. Throttling halves how many are asked at once, which recovers by one with every round of
    answers.

    Raises:
        Throttled: no answer came for five minutes.
        EvaluationUnfinished: the shard's time was over.
    """
    shard = _Shard(records, ask, pace, keep)
    pace.together([shard.work] * pace.concurrency)
    return shard.result()


class _Shard:
    """What the threads that ask one shard share."""

    def __init__(
        self,
        records: Sequence[TestRecord],
        ask: Callable[[TestRecord], Prediction],
        pace: Pace,
        keep: Callable[[list[Prediction]], None],
    ) -> None:
        self._records, self._ask, self._pace, self._keep = records, ask, pace, keep
        self._waiting = deque(records)
        self._predictions: dict[str, Prediction] = {}
        self._kept = 0
        self._limit, self._inside, self._answered_since = pace.concurrency, 0, 0
        self._last_answer = pace.timer()
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._keeping = threading.Lock()

    def work(self) -> None:
        """Ask one record after the other until none waits; several threads do this."""
        try:
            self._ask_all()
        except Exception as error:  # noqa: BLE001  whatever ends one thread ends the shard, and `result` raises it
            self._error = self._error or error

    def result(self) -> list[Prediction]:
        """Return the predictions, or raise what ended the shard; either way they have been kept."""
        predictions = self._so_far()
        if len(predictions) > self._kept:
            self._keep(predictions)
        if self._error is not None:
            raise self._error
        missing = sum(1 for record in self._records if record.record_id not in self._predictions)
        if missing:
            raise EvaluationUnfinished.of("error.unfinished", missing=str(missing), records=str(len(self._records)))
        return predictions

    def _ask_all(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while (record := self._next()) is not None:
            try:
                prediction = self._ask(record)
            except Throttled:
                if self._put_back(record) > _PATIENCE_SECONDS:
                    raise
                self._pace.pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                pause = _FIRST_PAUSE_SECONDS
                self._take(prediction)
                self._keep_some()

    def _next(self) -> TestRecord | None:
        """Return the next record once another may be asked; None when none waits, or when the shard has to end."""
        while self._error is None and self._pace.timer() < self._pace.ends_at:
            with self._lock:
                if not self._waiting:
                    return None
                if self._inside < self._limit:
                    self._inside += 1
                    return self._waiting.popleft()
            self._pace.pause(_REST_SECONDS)
        return None

    def _take(self, prediction: Prediction) -> None:
        with self._lock:
            self._inside -= 1
            self._predictions[prediction.record_id] = prediction
            self._last_answer = self._pace.timer()
            self._answered_since += 1
            if self._answered_since >= self._limit:
                self._limit = min(self._limit + 1, self._pace.concurrency)
                self._answered_since = 0

    def _put_back(self, record: TestRecord) -> float:
        """Let fewer in and return for how many seconds nothing has been answered."""
        with self._lock:
            self._inside -= 1
            # Behind the others: should it be this record alone that is throttled, they go on
            self._waiting.append(record)
            self._limit = max(self._limit // 2, 1)
            self._answered_since = 0
            return self._pace.timer() - self._last_answer

    def _keep_some(self) -> None:
        if len(self._predictions) - self._kept < self._pace.concurrency or not self._keeping.acquire(blocking=False):
            return
        try:
            so_far = self._so_far()
            self._keep(so_far)
            self._kept = len(so_far)
        finally:
            self._keeping.release()

    def _so_far(self) -> list[Prediction]:
        with self._lock:
            found = self._predictions
            return [found[record.record_id] for record in self._records if record.record_id in found]


def encode_predictions(predictions: Iterable[Prediction]) -> bytes:
    """Return the predictions as JSON lines."""
    return msgspec.json.Encoder().encode_lines(list(predictions))


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
