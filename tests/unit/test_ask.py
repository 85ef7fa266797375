"""Base model and model in use are asked the same, side by side."""

from types import SimpleNamespace

import msgspec
import pytest

from customization import promotion
from customization.commands import ask_both
from customization.errors import ResourceNotFound
from customization.json_types import JsonObject, as_object
from customization.runs import Call, Plan, save_plan
from tests.unit.fakes import BedrockInMemory, GatewayInMemory

MODEL = "arn:model/trained"


@pytest.fixture
def promoted(claimed: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call) -> list[JsonObject]:
    """The questions that reach Bedrock, after a model has been put in use that a deployment serves."""
    bedrock.models |= {"trained", MODEL}
    name = f"dev-0a1b2c3d-{plan.run_id}"
    arn = bedrock.serve(mode="on-demand", name=name, model_arn=MODEL, tags={}, units=1, token=name)
    bedrock.serving[name] = msgspec.structs.replace(bedrock.serving[name], status="Active")
    save_plan(claimed, plan)
    promotion.promote(claimed, msgspec.structs.replace(plan, keep=6.0), call, serving_arn=arn, model_arn=MODEL)
    questions: list[JsonObject] = []

    def ask(_operation: str, parameters: JsonObject) -> JsonObject:
        questions.append(parameters)
        text = "in use says\nyes" if ":custom-model-deployment/" in str(parameters["modelId"]) else "base says no"
        message: JsonObject = {"role": "assistant", "content": [{"text": text}]}
        usage: JsonObject = {"inputTokens": 5, "outputTokens": 3}
        return {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}

    claimed.__dict__["runtime"] = SimpleNamespace(ask=ask)
    return questions


def test_both_get_the_same_question_with_the_settings_of_the_run(
    promoted: list[JsonObject], claimed: GatewayInMemory, plan: Plan
) -> None:
    told = ask_both(claimed, plan.dataset, "May I?")
    base, in_use = promoted
    assert {name: value for name, value in base.items() if name != "modelId"} == {
        name: value for name, value in in_use.items() if name != "modelId"
    }
    assert as_object(base["inferenceConfig"], "config")["maxTokens"] == plan.inference.max_tokens
    assert told.index("base says no") < told.index("Model in use of run") < told.index("  in use says\n  yes\n")
    assert "5 -> 3 tokens" in told


def test_a_model_in_use_that_nothing_serves_is_named_with_what_to_do(
    promoted: list[JsonObject], claimed: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan
) -> None:
    bedrock.serving.clear()
    told = ask_both(claimed, plan.dataset, "May I?")
    assert len(promoted) == 1
    assert f"is not served: nothing answers for {MODEL}" in told


def test_without_a_model_in_use_the_request_that_promotes_one_is_told(gateway: GatewayInMemory) -> None:
    with pytest.raises(ResourceNotFound, match='"action": "promote"'):
        ask_both(gateway, "support", "May I?")
