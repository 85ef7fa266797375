"""Converse and InvokeModel of the Bedrock stand-in."""

import json
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from customization.json_types import JsonObject
from tests.unit.bedrock_harness import CLAUDE, COMMAND, JANUARY, LLAMA, TITAN, ByHeart, Rehearsal, code, message

NOVA_ON_DEMAND = "amazon.nova-micro-v1:0"
KNOWN = {"the capital of Japan?": "it is Tokyo", "be brief\nthe capital of Japan?": "Tokyo"}


@pytest.fixture
def rehearsal() -> Iterator[Rehearsal]:
    started = Rehearsal(model=ByHeart(KNOWN))
    yield started
    started.close()


@pytest.fixture
def january() -> Iterator[Rehearsal]:
    started = Rehearsal(JANUARY, region="us-west-2", model=ByHeart(KNOWN))
    yield started
    started.close()


def invoke(rehearsal: Rehearsal, model_id: str, body: JsonObject) -> JsonObject:
    response = rehearsal.runtime.invoke_model(modelId=model_id, body=json.dumps(body))
    answer: JsonObject = json.loads(response["body"].read())
    headers = response["ResponseMetadata"]["HTTPHeaders"]
    assert int(headers["x-amzn-bedrock-input-token-count"]) == 5
    return answer


@pytest.mark.parametrize(
    ("base", "body", "expected"),
    [
        (
            TITAN,
            {
                "inputText": "the capital of Japan?",
                "textGenerationConfig": {"maxTokenCount": 9, "temperature": 0, "topP": 1},
            },
            {
                "inputTextTokenCount": 5,
                "results": [{"tokenCount": 3, "outputText": "it is Tokyo", "completionReason": "FINISH"}],
            },
        ),
        (
            TITAN,
            {"inputText": "the capital of Japan?", "textGenerationConfig": {"maxTokenCount": 2}},
            {
                "inputTextTokenCount": 5,
                "results": [{"tokenCount": 2, "outputText": "it is", "completionReason": "LENGTH"}],
            },
        ),
        (
            COMMAND,
            {
                "prompt": "the capital of Japan?",
                "max_tokens": 9,
                "temperature": 0,
                "p": 0.9,
                "k": 0,
                "stop_sequences": [],
            },
            {"generations": [{"text": "it is Tokyo", "finish_reason": "COMPLETE"}], "prompt": "the capital of Japan?"},
        ),
        (
            LLAMA,
            {"prompt": "the capital of Japan?", "max_gen_len": 1, "temperature": 0, "top_p": 0.9},
            {"generation": "it", "prompt_token_count": 5, "generation_token_count": 1, "stop_reason": "length"},
        ),
        (
            CLAUDE,
            {
                "anthropic_version": "bedrock-2023-05-31",
                "max_tokens": 9,
                "messages": [{"role": "user", "content": "the capital of Japan?"}],
            },
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "text", "text": "it is Tokyo"}],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 5, "output_tokens": 3},
            },
        ),
    ],
)
def test_each_family_reads_and_writes_its_own_body(
    january: Rehearsal, base: str, body: JsonObject, expected: JsonObject
) -> None:
    bare = {
        TITAN: "amazon.titan-text-express-v1",
        COMMAND: "cohere.command-light-text-v14",
        LLAMA: "meta.llama2-13b-v1",
    }
    model_id = bare.get(base, "anthropic.claude-3-haiku-20240307-v1:0")
    assert invoke(january, model_id, body) == expected


def test_nova_answers_its_messages_body(rehearsal: Rehearsal) -> None:
    body: JsonObject = {
        "schemaVersion": "messages-v1",
        "messages": [{"role": "user", "content": [{"text": "the capital of Japan?"}]}],
        "inferenceConfig": {"maxTokens": 9, "temperature": 0.0, "topP": 1.0, "topK": 1, "stopSequences": []},
    }
    answer = invoke(rehearsal, NOVA_ON_DEMAND, body)
    assert answer["output"] == {"message": {"role": "assistant", "content": [{"text": "it is Tokyo"}]}}
    assert answer["usage"] == {"inputTokens": 5, "outputTokens": 3, "totalTokens": 8}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "#: required key [inputText] not found"),
        ({"inputText": "a", "prompt": "b"}, "#: extraneous key [prompt] is not permitted"),
        (
            {"inputText": "a", "textGenerationConfig": {"maxTokens": 5}},
            "#: extraneous key [maxTokens] is not permitted",
        ),
        ({"inputText": 1}, "#/inputText: expected type: str, found: int"),
        (
            {"inputText": "a", "textGenerationConfig": {"temperature": 1.5}},
            "temperature: 1.5 is not less or equal to 1.0",
        ),
        ({"inputText": "a", "textGenerationConfig": {"topP": -1}}, "topP: -1 is not greater or equal to 0.0"),
        ({"inputText": "a", "textGenerationConfig": {"topP": "high"}}, "expected type: Number, found: str"),
        ({"inputText": "a", "textGenerationConfig": {"stopSequences": [1]}}, "expected a string"),
    ],
)
def test_a_body_that_the_family_does_not_have_is_refused_naming_the_field(
    january: Rehearsal, body: JsonObject, expected: str
) -> None:
    with pytest.raises(ClientError) as refused:
        invoke(january, "amazon.titan-text-express-v1", body)
    assert code(refused.value) == "ValidationException"
    assert expected in message(refused.value)


@pytest.mark.parametrize("body", ["", "[]", "{"])
def test_a_body_that_is_no_object_is_refused(january: Rehearsal, body: str) -> None:
    with pytest.raises(ClientError, match="expected a JSON object"):
        january.runtime.invoke_model(modelId="amazon.titan-text-express-v1", body=body)


def test_converse_counts_tokens_and_says_why_it_stopped(rehearsal: Rehearsal) -> None:
    response = rehearsal.runtime.converse(
        modelId=NOVA_ON_DEMAND,
        system=[{"text": "be brief"}],
        messages=[{"role": "user", "content": [{"text": "the capital of Japan?"}]}],
        inferenceConfig={"maxTokens": 9},
    )
    assert response["output"]["message"]["content"] == [{"text": "Tokyo"}]
    assert (response["stopReason"], response["usage"]["totalTokens"]) == ("end_turn", 8)
    assert response["metrics"]["latencyMs"] > 0
    cut = rehearsal.runtime.converse(
        modelId=NOVA_ON_DEMAND,
        messages=[{"role": "user", "content": [{"text": "the capital of Japan?"}]}],
        inferenceConfig={"maxTokens": 1},
    )
    assert cut["stopReason"] == "max_tokens"
    assert cut["output"]["message"]["content"] == [{"text": "it"}]
    assert cut["usage"]["outputTokens"] == 1


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["assistant"], "must start with a user message"),
        (["user", "user"], "must alternate"),
        (["user", "assistant"], "must end with a user message"),
    ],
)
def test_a_conversation_alternates_from_user_to_user(rehearsal: Rehearsal, roles: list[str], expected: str) -> None:
    messages = [{"role": role, "content": [{"text": "hello"}]} for role in roles]
    with pytest.raises(ClientError, match=expected):
        rehearsal.runtime.converse(modelId=NOVA_ON_DEMAND, messages=messages)  # type: ignore[arg-type]  # plain dicts


def test_an_id_with_a_context_suffix_cannot_be_asked(rehearsal: Rehearsal) -> None:
    with pytest.raises(ClientError, match="Model not found") as refused:
        rehearsal.ask("amazon.nova-micro-v1:0:128k", "hello")
    assert code(refused.value) == "ResourceNotFoundException"


def test_a_custom_model_cannot_be_asked_by_its_own_arn(rehearsal: Rehearsal) -> None:
    model = rehearsal.train()
    with pytest.raises(ClientError) as refused:
        rehearsal.ask(model, "hello")
    assert code(refused.value) == "ValidationException"


def test_a_model_without_on_demand_answers_needs_its_inference_profile(rehearsal: Rehearsal) -> None:
    with pytest.raises(ClientError, match="inference profile"):
        rehearsal.ask("amazon.nova-2-lite-v1:0", "hello")
    assert rehearsal.ask("us.amazon.nova-2-lite-v1:0", "the capital of Japan?") == "it is Tokyo"


def test_a_model_at_its_end_of_life_answers_no_more(rehearsal: Rehearsal) -> None:
    with pytest.raises(ClientError, match="reached the end of its life") as refused:
        rehearsal.ask("amazon.titan-text-express-v1", "hello")
    assert code(refused.value) == "ResourceNotFoundException"


def test_titan_and_command_take_no_system_prompt(january: Rehearsal) -> None:
    with pytest.raises(ClientError, match="doesn't support system messages"):
        january.runtime.converse(
            modelId="amazon.titan-text-express-v1",
            system=[{"text": "be brief"}],
            messages=[{"role": "user", "content": [{"text": "hello"}]}],
        )


def test_a_prompt_longer_than_the_context_is_refused(january: Rehearsal) -> None:
    with pytest.raises(ClientError, match="Input is too long"):
        january.ask("meta.llama2-13b-v1", "あ" * 4097)


def test_an_image_is_refused_and_not_ignored(rehearsal: Rehearsal) -> None:
    image: dict[str, object] = {"image": {"format": "png", "source": {"bytes": b"png"}}}
    with pytest.raises(ClientError, match="knows only text"):
        rehearsal.runtime.converse(modelId=NOVA_ON_DEMAND, messages=[{"role": "user", "content": [image]}])  # type: ignore[misc,list-item]  # a plain dict
