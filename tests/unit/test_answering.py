"""A shard of answers: asked once, kept as they come, and found again."""

import threading
from itertools import count
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from customization import answering
from customization.answering import AskedModel, answer_shard, asked_model, read_answers, tokens_asked_for
from customization.catalogue import load_catalogue
from customization.errors import AccessDenied, BudgetExceeded, ResourceNotFound, ServiceUnavailable, Throttled
from customization.evaluation import BASE, CONCURRENCY, CUSTOM, IN_USE, shard_range
from customization.formats import TestRecord, Turn
from customization.gateway.runtime import BedrockRuntime
from customization.json_types import JsonObject, as_list, as_object
from customization.model_in_use import ServedModelInUse
from customization.money import AnswersUsage
from customization.prepared import data_key
from customization.runs import Call, Plan
from tests.unit.fakes import BedrockInMemory, GatewayInMemory, settled

SERVED = "dev-0a1b2c3d-support-0123456789"
SERVING = f"arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/{SERVED}"
TRAINED = "dev-0a1b2c3d-aaaaaaaaaa-1"
RECORDS = 105
FIRST_SHARD = len(shard_range(RECORDS, 0))


class _Asked:
    """Stands for the runtime; notes what was asked for, and breaks on what `breaks` maps a question to."""

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.models: set[str] = set()
        self.breaks: dict[str, Exception] = {}
        self._lock = threading.Lock()

    def ask(self, _operation: str, parameters: JsonObject) -> JsonObject:
        message = as_object(as_list(parameters["messages"], "messages")[-1], "message")
        question = str(as_object(as_list(message["content"], "content")[0], "block")["text"])
        with self._lock:
            if question in self.breaks:
                raise self.breaks[question]
            self.questions.append(question)
            self.models.add(str(parameters["modelId"]))
        reply: JsonObject = {"role": "assistant", "content": [{"text": "yes"}]}
        usage: JsonObject = {"inputTokens": 3, "outputTokens": 1}
        return {"output": {"message": reply}, "stopReason": "end_turn", "usage": usage}


class _Watched(GatewayInMemory):
    """Notes which thread makes the runtime's client."""

    asked = _Asked()
    makers: set[str] = set()  # noqa: RUF012  one gateway a test

    @property
    def runtime(self) -> BedrockRuntime:
        self.makers.add(threading.current_thread().name)
        return cast("BedrockRuntime", self.asked)


@pytest.fixture
def watched(claimed: GatewayInMemory, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> _Watched:
    records = [TestRecord(f"r{number}", (Turn("user", f"q{number}"),), "yes") for number in range(RECORDS)]
    claimed.artifacts.put(data_key(plan, "test"), msgspec.json.Encoder().encode_lines(records))
    profile = SimpleNamespace(test_digest="digest", test_records=RECORDS)
    monkeypatch.setattr(answering, "read_profile", lambda *_: profile)
    monkeypatch.setattr(_Watched, "asked", _Asked())
    monkeypatch.setattr(_Watched, "makers", set())
    claimed.__class__ = _Watched
    return cast("_Watched", claimed)


@pytest.fixture
def custom(claimed: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan) -> AskedModel:
    claimed.runs.update(plan.run_id, {"jobName0": TRAINED})
    bedrock.serve(mode="on-demand", name=SERVED, model_arn=f"arn:model/{TRAINED}", tags={}, units=1, token="")
    return asked_model(claimed, plan, CUSTOM, SERVING, None)


def test_the_client_is_made_before_the_threads_that_share_it(
    watched: _Watched, plan: Plan, call: Call, custom: AskedModel
) -> None:
    answer_shard(watched, plan, call, custom, 0)
    assert watched.asked.models == {SERVING}
    assert watched.makers == {threading.current_thread().name}


def test_each_shard_asks_its_own_records_and_what_is_kept_is_not_asked_for_again(
    watched: _Watched, plan: Plan, call: Call, custom: AskedModel
) -> None:
    for _ in range(2):
        for shard in range(4):
            answered = answer_shard(watched, plan, call, custom, shard)
            assert answered == {"answered": len(shard_range(RECORDS, shard)), "failed": 0}
    assert sorted(watched.asked.questions) == sorted(f"q{number}" for number in range(RECORDS))
    kept = read_answers(watched, plan, TRAINED, IN_USE)
    assert {answer.record_id for answer in kept} == {f"r{number}" for number in range(RECORDS)}
    assert {answer.side for answer in kept} == {IN_USE}


def test_a_redriven_run_reserves_again_before_it_asks(
    watched: _Watched, plan: Plan, call: Call, custom: AskedModel
) -> None:
    month = settled(watched, call.run_id, reserved_usd=12.5)
    answer_shard(watched, plan, call, custom, 0)
    assert (watched.runs.get(month) or {})["committedUsd"] == 12.5


def test_a_redriven_run_asks_nothing_where_the_month_has_no_room_for_it_any_more(
    watched: _Watched, plan: Plan, call: Call, custom: AskedModel
) -> None:
    settled(watched, call.run_id, reserved_usd=201.5)
    with pytest.raises(BudgetExceeded):
        answer_shard(watched, plan, call, custom, 0)
    assert str((watched.runs.get(call.run_id) or {})["shardError"]).startswith("BudgetExceeded: monthlyBudgetUsd: ")
    assert watched.asked.questions == []


@pytest.mark.parametrize("error", [AccessDenied("no bedrock:InvokeModel any more"), Throttled("slow down")])
def test_a_shard_that_breaks_off_keeps_its_answers_and_the_next_call_asks_the_rest_alone(
    watched: _Watched, plan: Plan, call: Call, custom: AskedModel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    passing = count(step=0.1)
    clock = SimpleNamespace(monotonic=lambda: next(passing), perf_counter=lambda: 0.0, sleep=lambda _: None)
    monkeypatch.setattr(answering, "time", clock)
    watched.asked.breaks["q20"] = error
    with pytest.raises(type(error)):
        answer_shard(watched, plan, call, custom, 0)
    row = watched.runs.get(call.run_id) or {}
    assert (row["shardError"], row["shardErrorOf"]) == (f"{type(error).__name__}: {error}", "custom/0")
    assert 20 - CONCURRENCY < len(watched.asked.questions) < FIRST_SHARD
    watched.asked.breaks.clear()
    assert answer_shard(watched, plan, call, custom, 0) == {"answered": FIRST_SHARD, "failed": 0}
    assert len(watched.asked.questions) == len(set(watched.asked.questions)) == FIRST_SHARD


def test_what_ended_a_shard_stands_until_that_shard_is_asked_again(
    watched: _Watched, plan: Plan, call: Call, custom: AskedModel
) -> None:
    watched.asked.breaks["q20"] = AccessDenied("no bedrock:InvokeModel any more")
    with pytest.raises(AccessDenied):
        answer_shard(watched, plan, call, custom, 0)
    answer_shard(watched, plan, call, custom, 1)
    assert "shardError" in (watched.runs.get(call.run_id) or {})
    watched.asked.breaks.clear()
    answer_shard(watched, plan, call, custom, 0)
    assert {"shardError", "shardErrorOf"}.isdisjoint(watched.runs.get(call.run_id) or {})


@pytest.mark.parametrize("error", [ResourceNotFound("Converse: Model not found."), AccessDenied("it has no tags")])
def test_a_custom_model_that_is_lost_ends_its_shard_with_what_was_answered_and_any_other_fails_it(
    watched: _Watched, bedrock: BedrockInMemory, plan: Plan, call: Call, custom: AskedModel, error: Exception
) -> None:
    bedrock.serving.clear()
    watched.asked.breaks["q20"] = error
    answered = answer_shard(watched, plan, call, custom, 0)
    kept = read_answers(watched, plan, TRAINED, CUSTOM)
    assert answered == {"answered": len(kept), "failed": FIRST_SHARD - len(kept)}
    assert 20 - CONCURRENCY < len(kept) < FIRST_SHARD
    assert (watched.runs.get(call.run_id) or {})["modelLost"] == SERVING
    with pytest.raises(type(error)):
        answer_shard(watched, plan, call, asked_model(watched, plan, BASE, "", None), 0)


def test_a_model_that_is_trained_again_does_not_get_the_answers_of_the_one_before(
    watched: _Watched, plan: Plan, call: Call, custom: AskedModel
) -> None:
    answer_shard(watched, plan, call, custom, 0)
    watched.runs.update(call.run_id, {"jobName0": TRAINED.replace("-1", "-2")})
    answer_shard(watched, plan, call, asked_model(watched, plan, CUSTOM, SERVING, None), 0)
    assert len(watched.asked.questions) == 2 * FIRST_SHARD


def test_what_could_not_be_answered_is_counted_and_asked_again_by_whoever_comes_next(
    watched: _Watched, plan: Plan, call: Call, custom: AskedModel
) -> None:
    watched.asked.breaks["q3"] = ServiceUnavailable("model error")
    assert answer_shard(watched, plan, call, custom, 0) == {"answered": FIRST_SHARD - 1, "failed": 1}
    [failed] = [answer for answer in read_answers(watched, plan, TRAINED, CUSTOM) if answer.error]
    assert (failed.record_id, failed.error) == ("r3", "ServiceUnavailable: model error")
    watched.asked.breaks.clear()
    assert answer_shard(watched, plan, call, custom, 0) == {"answered": FIRST_SHARD, "failed": 0}
    assert watched.asked.questions.count("q3") == 1
    assert len(watched.asked.questions) == FIRST_SHARD


def test_two_calls_for_one_shard_at_the_same_time_lose_no_answer_and_leave_one_a_record(
    watched: _Watched, plan: Plan, call: Call, custom: AskedModel
) -> None:
    calls = [threading.Thread(target=answer_shard, args=(watched, plan, call, custom, 0)) for _ in range(2)]
    for thread in calls:
        thread.start()
    for thread in calls:
        thread.join()
    assert len(watched.asked.questions) <= 2 * FIRST_SHARD
    kept = read_answers(watched, plan, TRAINED, CUSTOM)
    assert sorted(answer.record_id for answer in kept) == sorted(f"r{number}" for number in range(FIRST_SHARD))


def test_the_run_counts_the_tokens_that_it_has_asked_for_and_not_those_it_found(
    watched: _Watched, plan: Plan, call: Call, custom: AskedModel
) -> None:
    for _ in range(2):
        for shard in range(4):
            answer_shard(watched, plan, call, custom, shard)
    row = watched.runs.get(call.run_id) or {}
    assert tokens_asked_for(row, CUSTOM) == AnswersUsage(3 * RECORDS, RECORDS)
    assert tokens_asked_for(row, BASE) == AnswersUsage()


def test_the_model_in_use_is_asked_as_its_own_base_model_wants(claimed: GatewayInMemory, plan: Plan) -> None:
    other = "meta.llama3-1-8b-instruct-v1:0:128k"
    asked = asked_model(claimed, plan, IN_USE, "", ServedModelInUse(SERVING, "other-1", other))
    assert (asked.model_id, asked.kept_under, asked.base) == (SERVING, "other-1", load_catalogue().find(other))
    base = asked_model(claimed, plan, BASE, SERVING, None)
    assert base.model_id == base.kept_under == base.base.inference_model_id
