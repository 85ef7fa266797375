"""How a model is asked one record, and how its answer is read: pure, the gateway makes the call.

A model is asked the way it was trained. Models trained on messages are asked through Converse. Models trained on
prompt/completion pairs get the prompt as it stood in the training file, with nothing around it, in the body of their
family: a chat template or a role cue that training did not show would measure the template, so whoever wants one writes
it into the prompts of train.jsonl and test.jsonl. Base model and custom model are asked with the same bytes.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from customization.catalogue import BaseModel
from customization.errors import RequestRejected
from customization.formats import TestRecord, prompt_of
from customization.json_types import Json, JsonObject, as_list, as_object, as_text

END_TURN = "end_turn"
MAX_TOKENS = "max_tokens"
STOP_SEQUENCE = "stop_sequence"

# Why an answer ended, in the words of Titan Text, Command and Llama; any other reason is passed on as it is.
_STOP_REASONS: Mapping[str, str] = {
    "FINISH": END_TURN,
    "FINISHED": END_TURN,
    "LENGTH": MAX_TOKENS,
    "STOP_CRITERIA_MET": STOP_SEQUENCE,
    "COMPLETE": END_TURN,
    "MAX_TOKENS": MAX_TOKENS,
    "stop": END_TURN,
    "length": MAX_TOKENS,
}
_MOST_TOKENS = 2**53  # what every reader of JSON can hold
_MOST_DIGITS = 20
_TOKEN_HEADERS = ("x-amzn-bedrock-input-token-count", "x-amzn-bedrock-output-token-count")


class InferenceSettings(msgspec.Struct, frozen=True, rename="camel"):
    """How every model of a comparison is asked; `system` serves records that bring none of their own."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float | None = None
    stop_sequences: tuple[str, ...] = ()
    system: str = ""


class Question(msgspec.Struct, frozen=True):
    """What Bedrock's runtime is asked. The body of invoke_model is an object, which the gateway writes as JSON.

    `cut_at` holds the stop sequences of a family whose body has no field for them: the answer is cut when it is read.
    """

    operation: Literal["converse", "invoke_model"]
    parameters: JsonObject
    cut_at: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """An answer; token counts are None where the service gave none."""

    text: str
    input_tokens: int | None
    output_tokens: int | None
    stop_reason: str


def build_question(model: BaseModel, model_id: str, record: TestRecord, inference: InferenceSettings) -> Question:
    """Return what asks `model_id` (a base model's id or the ARN that serves a custom model) for one record."""
    if model.ask_by == "converse":
        return Question("converse", _converse_parameters(model_id, record, inference))
    body = {"titan_text": _titan_body, "cohere_command": _cohere_body, "llama": _llama_body}[model.ask_by]
    prompt = prompt_of(record.turns, record.system or inference.system)
    return Question(
        "invoke_model",
        {"modelId": model_id, "body": body(prompt, inference)},
        cut_at=inference.stop_sequences if model.ask_by == "llama" else (),
    )


def read_answer(model: BaseModel, question: Question, response: JsonObject) -> Answer:
    """Return the answer in Bedrock's `response`; raises RequestRejected when it has not the family's shape."""
    read = {
        "converse": _read_converse,
        "titan_text": _read_titan,
        "cohere_command": _read_cohere,
        "llama": _read_llama,
    }[model.ask_by]
    try:
        answer = read(response)
    except (KeyError, IndexError, TypeError) as error:
        raise RequestRejected.of(
            "error.strangeAnswer",
            model=str(question.parameters["modelId"]),
            family=model.ask_by,
            problem=repr(error),
            fields=", ".join(response) or "-",
        ) from error
    return _cut(msgspec.structs.replace(answer, text=_unicode(answer.text)), question.cut_at)


def _unicode(text: str) -> str:
    """Return an answer with U+FFFD for halves of characters, which JSON lets pass and no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _converse_parameters(model_id: str, record: TestRecord, inference: InferenceSettings) -> JsonObject:
    config: JsonObject = {"maxTokens": inference.max_tokens, "temperature": inference.temperature}
    if inference.top_p is not None:
        config["topP"] = inference.top_p
    if inference.stop_sequences:
        config["stopSequences"] = list(inference.stop_sequences)
    parameters: JsonObject = {
        "modelId": model_id,
        "messages": [{"role": turn.role, "content": [{"text": turn.text}]} for turn in record.turns],
        "inferenceConfig": config,
    }
    system = record.system or inference.system
    if system:
        parameters["system"] = [{"text": system}]
    return parameters


def _titan_body(prompt: str, inference: InferenceSettings) -> JsonObject:
    config: JsonObject = {"maxTokenCount": inference.max_tokens, "temperature": inference.temperature}
    if inference.top_p is not None:
        config["topP"] = inference.top_p
    if inference.stop_sequences:
        config["stopSequences"] = list(inference.stop_sequences)
    return {"inputText": prompt, "textGenerationConfig": config}


def _cohere_body(prompt: str, inference: InferenceSettings) -> JsonObject:
    body: JsonObject = {"prompt": prompt, "max_tokens": inference.max_tokens, "temperature": inference.temperature}
    if inference.top_p is not None:
        body["p"] = inference.top_p
    if inference.stop_sequences:
        body["stop_sequences"] = list(inference.stop_sequences)
    return body


def _llama_body(prompt: str, inference: InferenceSettings) -> JsonObject:
    body: JsonObject = {"prompt": prompt, "max_gen_len": inference.max_tokens, "temperature": inference.temperature}
    if inference.top_p is not None:
        body["top_p"] = inference.top_p
    return body


def _read_converse(response: JsonObject) -> Answer:
    message = as_object(as_object(response["output"], "output")["message"], "output.message")
    blocks = [as_object(block, "content block") for block in as_list(message["content"], "content")]
    usage = as_object(response["usage"], "usage")
    return Answer(
        text="".join(as_text(block["text"], "text") for block in blocks if "text" in block),
        input_tokens=_count(usage.get("inputTokens")),
        output_tokens=_count(usage.get("outputTokens")),
        stop_reason=as_text(response["stopReason"], "stopReason"),
    )


def _read_titan(response: JsonObject) -> Answer:
    result = as_object(as_list(response["results"], "results")[0], "results[0]")
    return Answer(
        text=as_text(result["outputText"], "outputText"),
        input_tokens=_count(response.get("inputTextTokenCount")),
        output_tokens=_count(result.get("tokenCount")),
        stop_reason=_stop_reason(result.get("completionReason")),
    )


def _read_cohere(response: JsonObject) -> Answer:
    generation = as_object(as_list(response["generations"], "generations")[0], "generations[0]")
    # Command's body has no token counts; Bedrock gives them in the headers of InvokeModel.
    given, answered = (_header_count(response, header) for header in _TOKEN_HEADERS)
    return Answer(
        text=as_text(generation["text"], "text"),
        input_tokens=given,
        output_tokens=answered,
        stop_reason=_stop_reason(generation.get("finish_reason")),
    )


def _read_llama(response: JsonObject) -> Answer:
    return Answer(
        text=as_text(response["generation"], "generation"),
        input_tokens=_count(response.get("prompt_token_count")),
        output_tokens=_count(response.get("generation_token_count")),
        stop_reason=_stop_reason(response.get("stop_reason")),
    )


def _stop_reason(reason: Json) -> str:
    return _STOP_REASONS.get(reason, reason) if isinstance(reason, str) else ""


def _count(value: Json) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MOST_TOKENS else None


def _header_count(response: JsonObject, header: str) -> int | None:
    metadata = response.get("ResponseMetadata")
    headers = metadata.get("HTTPHeaders") if isinstance(metadata, dict) else None
    value = headers.get(header) if isinstance(headers, dict) else None
    return _count(int(value)) if isinstance(value, str) and value.isdecimal() and len(value) <= _MOST_DIGITS else None


def _cut(answer: Answer, stop_sequences: tuple[str, ...]) -> Answer:
    """Return the answer up to the first of the stop sequences, which is not part of it."""
    ends = [end for stop in stop_sequences if stop and (end := answer.text.find(stop)) >= 0]
    if not ends:
        return answer
    return msgspec.structs.replace(answer, text=answer.text[: min(ends)], stop_reason=STOP_SEQUENCE)
