"""How models are asked and their answers read."""

from typing import cast

import botocore.session
import pytest
from botocore.validate import ParamValidator

from customization.catalogue import load_catalogue
from customization.errors import RequestRejected
from customization.formats import PROMPT_COMPLETION, Example, TestRecord, Turn, prompt_of
from customization.inference import Answer, InferenceSettings, Question, build_question, read_answer
from customization.json_types import JsonObject

NOVA = "amazon.nova-micro-v1:0:128k"
TITAN = "amazon.titan-text-express-v1:0:8k"
COMMAND = "cohere.command-text-v14:7:4k"
LLAMA = "meta.llama3-1-8b-instruct-v1:0:128k"
ARN = "arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/abcdef123456"

RECORD = TestRecord("r1", (Turn("user", "質問です"),), "回答です", system="丁寧に")
PLAIN = InferenceSettings()
FULL = InferenceSettings(max_tokens=9, temperature=0.5, top_p=0.9, stop_sequences=("END",), system="unused")


def call_of(identifier: str, inference: InferenceSettings, record: TestRecord = RECORD) -> Question:
    return build_question(load_catalogue().find(identifier), ARN, record, inference)


def answer_of(identifier: str, response: JsonObject, inference: InferenceSettings = PLAIN) -> Answer:
    return read_answer(load_catalogue().find(identifier), call_of(identifier, inference), response)


def test_converse_gets_the_turns_and_only_the_options_that_are_set() -> None:
    assert call_of(NOVA, PLAIN).parameters == {
        "modelId": ARN,
        "messages": [{"role": "user", "content": [{"text": "質問です"}]}],
        "inferenceConfig": {"maxTokens": 256, "temperature": 0.0},
        "system": [{"text": "丁寧に"}],
    }
    config = call_of(NOVA, FULL).parameters["inferenceConfig"]
    assert config == {"maxTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]}
    bare = TestRecord("r2", RECORD.turns, "")
    assert "system" not in call_of(NOVA, PLAIN, bare).parameters
    assert call_of(NOVA, FULL, bare).parameters["system"] == [{"text": "unused"}]


@pytest.mark.parametrize("inference", [PLAIN, FULL])
def test_converse_parameters_have_the_shapes_of_the_service_model(inference: InferenceSettings) -> None:
    shape = botocore.session.get_session().get_service_model("bedrock-runtime").operation_model("Converse").input_shape
    assert shape
    report = ParamValidator().validate(call_of(NOVA, inference).parameters, shape)
    assert report.generate_report() == ""


def test_each_family_gets_its_own_body() -> None:
    prompt = "丁寧に\n\n質問です"
    assert call_of(TITAN, FULL).parameters["body"] == {
        "inputText": prompt,
        "textGenerationConfig": {"maxTokenCount": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]},
    }
    assert call_of(COMMAND, FULL).parameters["body"] == {
        "prompt": prompt,
        "max_tokens": 9,
        "temperature": 0.5,
        "p": 0.9,
        "stop_sequences": ["END"],
    }
    assert call_of(LLAMA, FULL).parameters["body"] == {
        "prompt": prompt,
        "max_gen_len": 9,
        "temperature": 0.5,
        "top_p": 0.9,
    }


def test_every_prompt_model_is_asked_with_the_bytes_that_it_was_trained_on() -> None:
    example = Example((*RECORD.turns, Turn("assistant", RECORD.reference)), RECORD.system)
    trained_on = prompt_of(example.turns[:-1], example.system)
    asked = 0
    for model in load_catalogue().text_models():
        if PROMPT_COMPLETION not in model.training_format.values():
            continue
        body = cast("JsonObject", build_question(model, ARN, RECORD, PLAIN).parameters["body"])
        assert trained_on in (body.get("prompt"), body.get("inputText"))
        asked += 1
    assert asked


def test_every_model_with_messages_is_asked_through_converse() -> None:
    for model in load_catalogue().text_models():
        operation = build_question(model, ARN, RECORD, PLAIN).operation
        assert (operation == "converse") == (PROMPT_COMPLETION not in model.training_format.values())


def test_converse_answers_are_read_without_the_reasoning() -> None:
    answer = answer_of(
        NOVA,
        {
            "output": {
                "message": {
                    "role": "assistant",
                    "content": [{"reasoningContent": {"reasoningText": {"text": "hm"}}}, {"text": "a"}, {"text": "b"}],
                }
            },
            "stopReason": "max_tokens",
            "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5},
        },
    )
    assert answer == Answer("ab", 3, 2, "max_tokens")


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("FINISH", "end_turn"),
        ("LENGTH", "max_tokens"),
        ("STOP_CRITERIA_MET", "stop_sequence"),
        ("CONTENT_FILTERED", "CONTENT_FILTERED"),
    ],
)
def test_titan_answers_are_read(reason: str, meaning: str) -> None:
    response: JsonObject = {
        "inputTextTokenCount": 4,
        "results": [{"tokenCount": 6, "outputText": "\nhello", "completionReason": reason}],
    }
    assert answer_of(TITAN, response) == Answer("\nhello", 4, 6, meaning)


def test_command_answers_take_their_token_counts_from_the_headers_if_there_are_any() -> None:
    body: JsonObject = {"generations": [{"text": "hello", "finish_reason": "MAX_TOKENS"}], "prompt": "x"}
    assert answer_of(COMMAND, body) == Answer("hello", None, None, "max_tokens")
    headers: JsonObject = {
        "HTTPHeaders": {"x-amzn-bedrock-input-token-count": "12", "x-amzn-bedrock-output-token-count": "7"}
    }
    assert answer_of(COMMAND, body | {"ResponseMetadata": headers}) == Answer("hello", 12, 7, "max_tokens")


def test_llama_answers_are_cut_at_stop_sequences_because_its_body_knows_none() -> None:
    response: JsonObject = {
        "generation": "yes END no END",
        "prompt_token_count": 5,
        "generation_token_count": 8,
        "stop_reason": "length",
    }
    assert answer_of(LLAMA, response) == Answer("yes END no END", 5, 8, "max_tokens")
    assert answer_of(LLAMA, response, FULL) == Answer("yes ", 5, 8, "stop_sequence")


@pytest.mark.parametrize("identifier", [NOVA, TITAN, COMMAND, LLAMA])
@pytest.mark.parametrize("response", [{}, {"output": []}, {"results": []}, {"generations": ["x"]}, {"generation": 3}])
def test_a_response_of_another_shape_is_refused_naming_the_model(identifier: str, response: JsonObject) -> None:
    with pytest.raises(RequestRejected, match="custom-model-deployment/abcdef123456: the response is not that of"):
        answer_of(identifier, response)
