"""A shard of answers: asked once, kept, and found again."""

import threading
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from customization import answering
from customization.evaluation import CUSTOM
from customization.formats import TestRecord, Turn
from customization.gateway.bedrock import BedrockRuntime
from customization.json_types import JsonObject
from customization.preparation import SHARD_RECORDS, data_key
from customization.runs import Call, Plan
from tests.unit.fakes import GatewayInMemory

SERVING = "arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/0123456789ab"


class _Asked:
    """Stands for the runtime; notes who asked for which model."""

    def __init__(self) -> None:
        self.models: list[str] = []

    def ask(self, _operation: str, parameters: JsonObject) -> JsonObject:
        self.models.append(str(parameters["modelId"]))
        message: JsonObject = {"role": "assistant", "content": [{"text": "yes"}]}
        return {"output": {"message": message}, "stopReason": "end_turn", "usage": {"inputTokens": 1}}


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
    records = [TestRecord(f"r{number}", (Turn("user", "?"),), "yes") for number in range(SHARD_RECORDS + 5)]
    claimed.artifacts.put(data_key(plan, "test"), msgspec.json.Encoder().encode_lines(records))
    monkeypatch.setattr(answering, "read_profile", lambda *_: SimpleNamespace(test_digest="digest"))
    monkeypatch.setattr(_Watched, "asked", _Asked())
    monkeypatch.setattr(_Watched, "makers", set())
    claimed.__class__ = _Watched
    return cast("_Watched", claimed)


def test_the_client_is_made_before_the_threads_that_share_it(watched: _Watched, plan: Plan, call: Call) -> None:
    answering.answer_shard(watched, plan, call, side=CUSTOM, shard=0, serving_arn=SERVING)
    assert len(watched.asked.models) == SHARD_RECORDS
    assert watched.makers == {threading.current_thread().name}


def test_answers_that_are_kept_are_not_asked_for_again(watched: _Watched, plan: Plan, call: Call) -> None:
    for _ in range(2):
        answered = answering.answer_shard(watched, plan, call, side=CUSTOM, shard=1, serving_arn=SERVING)
        assert answered == {"answered": 5, "failed": 0}
    assert watched.asked.models == [SERVING] * 5
