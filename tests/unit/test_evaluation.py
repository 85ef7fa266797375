"""Asking all records of a shard."""

import threading
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customization.catalogue import load_catalogue
from customization.errors import AccessDenied, RequestRejected, ServiceUnavailable, Throttled
from customization.evaluation import (
    Prediction,
    answer_records,
    asker,
    decode_predictions,
    encode_predictions,
)
from customization.formats import TestRecord, Turn
from customization.inference import Call, InferenceSettings
from customization.json_types import JsonObject, as_list, as_object

RECORDS = [TestRecord(f"r{number}", (Turn("user", f"question {number}"),), "") for number in range(40)]


def asked(call: Call) -> str:
    message = as_object(as_list(call.parameters["messages"], "messages")[0], "message")
    return str(as_object(as_list(message["content"], "content")[0], "block")["text"])


def reply(call: Call) -> JsonObject:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": f"re: {asked(call)}"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 2, "outputTokens": 3, "totalTokens": 5},
    }


def ask_through(send: Callable[[Call], JsonObject]) -> Callable[[TestRecord], Prediction]:
    ticks = iter(range(10_000))
    return asker(
        model=load_catalogue().find("amazon.nova-micro-v1:0:128k"),
        model_id="amazon.nova-micro-v1:0",
        side="base",
        inference=InferenceSettings(),
        send=send,
        timer=lambda: next(ticks) / 4,
    )


def no_pause(_seconds: float) -> None:
    return


def test_answers_come_in_the_order_of_the_records_whatever_order_they_arrive_in() -> None:
    first_may_answer = threading.Event()

    def send(call: Call) -> JsonObject:
        if asked(call) == "question 0":
            assert first_may_answer.wait(10)
        if asked(call) == "question 39":
            first_may_answer.set()
        return reply(call)

    answers = answer_records(RECORDS, ask_through(send), 4, no_pause)
    assert [answer.text for answer in answers] == [f"re: question {number}" for number in range(40)]


def test_a_prediction_has_tokens_side_and_the_latency_of_the_injected_timer() -> None:
    (answer,) = answer_records(RECORDS[:1], ask_through(reply), 1, no_pause)
    assert answer == Prediction("r0", "base", "re: question 0", 2, 3, "end_turn", 250.0)


@pytest.mark.parametrize("error", [RequestRejected("too long"), ServiceUnavailable("model error")])
def test_a_record_that_fails_is_recorded_with_its_error_and_the_others_are_answered(error: Exception) -> None:
    def send(call: Call) -> JsonObject:
        if asked(call) == "question 3":
            raise error
        return reply(call)

    answers = answer_records(RECORDS, ask_through(send), 4, no_pause)
    assert [answer.record_id for answer in answers if answer.error] == ["r3"]
    assert answers[3].error == f"{type(error).__name__}: {error}"
    assert len(answers) == len(RECORDS)


def test_what_concerns_all_records_ends_the_shard_without_asking_the_rest() -> None:
    calls = []

    def send(call: Call) -> JsonObject:
        calls.append(call)
        raise AccessDenied("no bedrock:InvokeModel")

    with pytest.raises(AccessDenied):
        answer_records(RECORDS, ask_through(send), 2, no_pause)
    assert len(calls) < len(RECORDS)


def test_throttling_slows_down_and_then_recovers_without_losing_a_record() -> None:
    pauses: list[float] = []
    tries = Counter[str]()

    def send(call: Call) -> JsonObject:
        tries[asked(call)] += 1
        if tries[asked(call)] < 3:
            raise Throttled("slow down")
        return reply(call)

    answers = answer_records(RECORDS, ask_through(send), 8, pauses.append)
    assert [answer.text for answer in answers] == [f"re: question {number}" for number in range(40)]
    assert sorted(pauses) == [1] * 40 + [2] * 40


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

    answer_records(RECORDS[:8], ask, 8, no_pause)
    assert max(seen) <= 4


def test_endless_throttling_is_raised_after_two_minutes_of_pauses() -> None:
    pauses: list[float] = []

    def send(_call: Call) -> JsonObject:
        raise Throttled("slow down")

    with pytest.raises(Throttled):
        answer_records(RECORDS[:1], ask_through(send), 1, pauses.append)
    assert sum(pauses) == 127


@given(st.lists(st.builds(Prediction, st.text(), st.text(), text=st.text(), error=st.text())))
def test_predictions_survive_json_lines(predictions: list[Prediction]) -> None:
    assert decode_predictions(encode_predictions(predictions)) == predictions
