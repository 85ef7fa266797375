"""Asking all records of a shard."""

import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evaluation import BAR, MANY_RECORDS, Service, VirtualEvaluation, compare
from customization.catalogue import load_catalogue
from customization.errors import AccessDenied, EvaluationUnfinished, RequestRejected, ServiceUnavailable, Throttled
from customization.evaluation import (
    CONCURRENCY,
    SHARDS_AT_ONCE,
    Pace,
    Prediction,
    answer_records,
    asker,
    encode_predictions,
    shard_count,
    shard_range,
)
from customization.formats import TestRecord, Turn
from customization.inference import InferenceSettings, Question
from customization.json_types import JsonObject, as_list, as_object

RECORDS = [TestRecord(f"r{number}", (Turn("user", f"question {number}"),), "") for number in range(40)]


def asked(call: Question) -> str:
    message = as_object(as_list(call.parameters["messages"], "messages")[0], "message")
    return str(as_object(as_list(message["content"], "content")[0], "block")["text"])


def reply(call: Question) -> JsonObject:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": f"re: {asked(call)}"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 2, "outputTokens": 3, "totalTokens": 5},
    }


def ask_through(send: Callable[[Question], JsonObject]) -> Callable[[TestRecord], Prediction]:
    ticks = iter(range(10_000))
    return asker(
        model=load_catalogue().find("amazon.nova-micro-v1:0:128k"),
        model_id="amazon.nova-micro-v1:0",
        side="base",
        inference=InferenceSettings(),
        send=send,
        timer=lambda: next(ticks) / 4,
    )


class Time:
    """Seconds that only pauses and answers let pass."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self._lock = threading.Lock()

    def pause(self, seconds: float) -> None:
        with self._lock:
            self.pauses.append(seconds)
            self.now += seconds

    def pace(self, concurrency: int = 4, ends_at: float = math.inf) -> Pace:
        return Pace(timer=lambda: self.now, pause=self.pause, concurrency=concurrency, ends_at=ends_at)


def test_answers_come_in_the_order_of_the_records_whatever_order_they_arrive_in() -> None:
    first_may_answer = threading.Event()

    def send(call: Question) -> JsonObject:
        if asked(call) == "question 0":
            assert first_may_answer.wait(10)
        if asked(call) == "question 39":
            first_may_answer.set()
        return reply(call)

    answers = answer_records(RECORDS, ask_through(send), Time().pace())
    assert [answer.text for answer in answers] == [f"re: question {number}" for number in range(40)]


def test_a_prediction_has_tokens_side_and_the_latency_of_the_injected_timer() -> None:
    (answer,) = answer_records(RECORDS[:1], ask_through(reply), Time().pace(1))
    assert answer == Prediction("r0", "base", "re: question 0", 2, 3, "end_turn", 250.0)


@pytest.mark.parametrize("error", [RequestRejected("too long"), ServiceUnavailable("model error")])
def test_a_record_that_fails_is_recorded_with_its_error_and_the_others_are_answered(error: Exception) -> None:
    def send(call: Question) -> JsonObject:
        if asked(call) == "question 3":
            raise error
        return reply(call)

    answers = answer_records(RECORDS, ask_through(send), Time().pace())
    assert [answer.record_id for answer in answers if answer.error] == ["r3"]
    assert answers[3].error == f"{type(error).__name__}: {error}"
    assert len(answers) == len(RECORDS)


def test_what_concerns_all_records_ends_the_shard_without_asking_the_rest_and_keeps_what_was_answered() -> None:
    calls, kept = [], list[Prediction]()

    def send(call: Question) -> JsonObject:
        calls.append(call)
        if len(calls) > 10:
            raise AccessDenied("no bedrock:InvokeModel any more")
        return reply(call)

    with pytest.raises(AccessDenied):
        answer_records(RECORDS, ask_through(send), Time().pace(2), lambda so_far: kept.__setitem__(slice(None), so_far))
    assert len(calls) <= 12
    assert [answer.text for answer in kept] == [f"re: {asked(call)}" for call in calls[: len(kept)]]
    assert len(kept) == 10


def test_throttling_slows_down_and_then_recovers_without_losing_a_record() -> None:
    tries = Counter[str]()
    pauses = list[float]()

    def send(call: Question) -> JsonObject:
        tries[asked(call)] += 1
        if tries[asked(call)] < 3:
            raise Throttled("slow down")
        return reply(call)

    answers = answer_records(RECORDS, ask_through(send), Pace(timer=lambda: 0.0, pause=pauses.append, concurrency=8))
    assert [answer.text for answer in answers] == [f"re: question {number}" for number in range(40)]
    assert set(tries.values()) == {3}
    assert {1, 2} <= set(pauses)


def test_throttling_halves_how_many_are_asked_at_once() -> None:
    lock, inside, seen = threading.Lock(), 0, list[int]()
    together = threading.Barrier(8, timeout=10)
    started = 0

    def ask(record: TestRecord) -> Prediction:
        nonlocal inside, started
        with lock:
            inside, started = inside + 1, started + 1
            is_first_round = started <= 8
            if not is_first_round:
                seen.append(inside)
        try:
            if is_first_round:
                together.wait()
                raise Throttled("all eight at once")
            return Prediction(record.record_id, "base")
        finally:
            with lock:
                inside -= 1

    answer_records(RECORDS[:8], ask, Pace(timer=lambda: 0.0, pause=lambda _: time.sleep(0.001), concurrency=8))
    assert max(seen) <= 4


def test_a_service_that_takes_few_questions_a_minute_slows_an_evaluation_down_and_does_not_end_it() -> None:
    taken = list[float]()

    class Slow(VirtualEvaluation):
        def _ask(self, record: TestRecord) -> Prediction:
            if sum(1 for at in taken if at > self._now() - 60) >= 10:
                raise Throttled("ten questions a minute")
            taken.append(self._now())
            return super()._ask(record)

    seconds = Slow(Service(), 120).seconds()
    assert len(taken) == 120
    assert 11 * 60 <= seconds <= 15 * 60


def test_ten_thousand_records_take_at_most_15_percent_more_than_latency_and_concurrency_allow() -> None:
    assert compare(Service(), MANY_RECORDS).ratio <= BAR


def test_throttling_without_one_answer_is_raised_after_five_minutes_of_pauses() -> None:
    clock = Time()

    def send(_call: Question) -> JsonObject:
        raise Throttled("slow down")

    with pytest.raises(Throttled):
        answer_records(RECORDS[:1], ask_through(send), clock.pace(1))
    assert 300 < clock.now < 340
    assert max(clock.pauses) == 30


def test_when_the_time_is_over_what_was_answered_is_kept_and_the_rest_is_left_to_the_next_call() -> None:
    clock, kept = Time(), list[Prediction]()

    def ask(record: TestRecord) -> Prediction:
        clock.pause(1)
        return Prediction(record.record_id, "base")

    with pytest.raises(EvaluationUnfinished, match="records of a shard were not asked"):
        answer_records(RECORDS, ask, clock.pace(1, ends_at=25), lambda so_far: kept.__setitem__(slice(None), so_far))
    assert [answer.record_id for answer in kept] == [f"r{number}" for number in range(25)]


def test_answers_are_kept_whenever_a_round_of_them_has_come() -> None:
    kept = list[int]()
    answer_records(RECORDS, ask_through(reply), Time().pace(1), lambda so_far: kept.append(len(so_far)))
    assert kept == list(range(1, 41))
    kept.clear()
    answer_records(RECORDS, ask_through(reply), Time().pace(8), lambda so_far: kept.append(len(so_far)))
    assert kept[-1] == 40
    assert all(later - earlier >= 8 for earlier, later in itertools.pairwise(kept[:-1]))


@given(st.integers(0, 30_000))
def test_shards_hold_every_record_once_and_end_alike(records: int) -> None:
    shards = [shard_range(records, shard) for shard in range(shard_count(records))]
    assert [place for shard in shards for place in shard] == list(range(records))
    sizes = {len(shard) for shard in shards}
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    assert max(sizes, default=0) <= 500
    if records >= 25 * SHARDS_AT_ONCE:
        assert len(shards) % SHARDS_AT_ONCE == 0
        assert min(sizes) >= 2 * CONCURRENCY


@given(st.lists(st.builds(Prediction, st.text(), st.text(), text=st.text(), error=st.text())))
def test_predictions_survive_json_lines(predictions: list[Prediction]) -> None:
    assert msgspec.json.Decoder(Prediction).decode_lines(encode_predictions(predictions)) == predictions
