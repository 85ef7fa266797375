"""Bodies of InvokeModel by family of models: what they ask for, and how the family writes its answer."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from customization.json_types import Json, JsonObject, as_list, as_object, as_text
from rehearsal.bedrock.errors import ServiceError, validation
from rehearsal.bedrock.training_data import render_prompt

if TYPE_CHECKING:
    from rehearsal.bedrock.language_model import Generation

# The answer's length where a body says nothing.
DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True)
class Ask:
    """One question to a language model."""

    prompt: str
    max_tokens: int = DEFAULT_MAX_TOKENS
    temperature: float = 1.0
    top_p: float = 1.0
    stop_sequences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Field:
    """A field of a body: its type and bounds; `path` of nested fields is dotted."""

    kind: type[str] | type[float] | type[list[str]]
    minimum: float = 0.0
    maximum: float = float("inf")
    required: bool = False


@dataclass(frozen=True)
class Family:
    fields: Mapping[str, Field]
    read: Callable[[JsonObject], Ask]
    write: "Callable[[Ask, Generation], JsonObject]"


def malformed(what: str) -> ServiceError:
    """Return the error for a body that breaks the family's schema, in Bedrock's wording."""
    return validation(f"Malformed input request: {what}, please reformat your input and try again.")


def read_body(family: Family, payload: bytes) -> Ask:
    """Return what the body asks; raises ServiceError (ValidationException) naming the field that is wrong."""
    try:
        body: Json = json.loads(payload)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise malformed("expected a JSON object")
    flat = _flatten(body, {name.rpartition(".")[0] for name in family.fields if "." in name})
    for name in flat:
        if name not in family.fields:
            raise malformed(f"#: extraneous key [{name.rsplit('.', 1)[-1]}] is not permitted")
    for name, field in family.fields.items():
        _check_field(name, field, flat)
    try:
        return family.read(flat)
    except (TypeError, KeyError, ValueError) as error:
        raise malformed(f"#: {error}") from error


def _flatten(body: JsonObject, nested: set[str]) -> JsonObject:
    flat: JsonObject = {}
    for name, value in body.items():
        if name in nested and isinstance(value, dict):
            flat.update({f"{name}.{key}": item for key, item in value.items()})
        else:
            flat[name] = value
    return flat


def _check_field(name: str, field: Field, flat: JsonObject) -> None:
    pointer = "#/" + name.replace(".", "/")
    value = flat.get(name)
    if value is None:
        if field.required:
            raise malformed(f"#: required key [{name}] not found")
        return
    if field.kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise malformed(f"{pointer}: expected type: Number, found: {type(value).__name__}")
        if value < field.minimum:
            raise malformed(f"{pointer}: {value} is not greater or equal to {field.minimum}")
        if value > field.maximum:
            raise malformed(f"{pointer}: {value} is not less or equal to {field.maximum}")
    elif not isinstance(value, str if field.kind is str else list):
        raise malformed(f"{pointer}: expected type: {field.kind.__name__}, found: {type(value).__name__}")


def _ask(prompt: str, flat: JsonObject, names: tuple[str, str, str, str]) -> Ask:
    max_tokens, temperature, top_p, stop = names
    return Ask(
        prompt=prompt,
        max_tokens=int(_number(flat.get(max_tokens), DEFAULT_MAX_TOKENS)),
        temperature=_number(flat.get(temperature), Ask.temperature),
        top_p=_number(flat.get(top_p), Ask.top_p),
        stop_sequences=tuple(as_text(item, stop) for item in as_list(flat.get(stop) or [], stop)),
    )


def _number(value: Json, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) else otherwise


def _read_titan(flat: JsonObject) -> Ask:
    group = "textGenerationConfig"
    names = f"{group}.maxTokenCount", f"{group}.temperature", f"{group}.topP", f"{group}.stopSequences"
    return _ask(as_text(flat["inputText"], "inputText"), flat, names)


def _write_titan(_: Ask, generation: "Generation") -> JsonObject:
    reasons = {"end_turn": "FINISH", "max_tokens": "LENGTH", "stop_sequence": "STOP_CRITERIA_MET"}
    result: JsonObject = {
        "tokenCount": generation.output_tokens,
        "outputText": generation.text,
        "completionReason": reasons[generation.stop_reason],
    }
    return {"inputTextTokenCount": generation.input_tokens, "results": [result]}


def _read_cohere(flat: JsonObject) -> Ask:
    return _ask(as_text(flat["prompt"], "prompt"), flat, ("max_tokens", "temperature", "p", "stop_sequences"))


def _write_cohere(ask: Ask, generation: "Generation") -> JsonObject:
    reason = "MAX_TOKENS" if generation.stop_reason == "max_tokens" else "COMPLETE"
    return {"generations": [{"text": generation.text, "finish_reason": reason}], "prompt": ask.prompt}


def _read_llama(flat: JsonObject) -> Ask:
    return _ask(as_text(flat["prompt"], "prompt"), flat, ("max_gen_len", "temperature", "top_p", ""))


def _write_llama(_: Ask, generation: "Generation") -> JsonObject:
    return {
        "generation": generation.text,
        "prompt_token_count": generation.input_tokens,
        "generation_token_count": generation.output_tokens,
        "stop_reason": "length" if generation.stop_reason == "max_tokens" else "stop",
    }


def _read_nova(flat: JsonObject) -> Ask:
    group = "inferenceConfig"
    names = f"{group}.maxTokens", f"{group}.temperature", f"{group}.topP", f"{group}.stopSequences"
    return _ask(read_messages(flat["messages"], flat.get("system")), flat, names)


def _write_nova(_: Ask, generation: "Generation") -> JsonObject:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": generation.text}]}},
        "stopReason": generation.stop_reason,
        "usage": {
            "inputTokens": generation.input_tokens,
            "outputTokens": generation.output_tokens,
            "totalTokens": generation.input_tokens + generation.output_tokens,
        },
    }


def _read_claude(flat: JsonObject) -> Ask:
    prompt = read_messages(flat["messages"], flat.get("system"))
    return _ask(prompt, flat, ("max_tokens", "temperature", "top_p", "stop_sequences"))


def _write_claude(_: Ask, generation: "Generation") -> JsonObject:
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": generation.text}],
        "stop_reason": generation.stop_reason,
        "usage": {"input_tokens": generation.input_tokens, "output_tokens": generation.output_tokens},
    }


def read_messages(messages: Json, system: Json) -> str:
    """Return the prompt for messages and system, each a text or a list of {text} blocks.

    Raises ServiceError (ValidationException), in Bedrock's wording, when the roles do not alternate from user to user.
    """
    turns = []
    for message in as_list(messages, "messages"):
        entry = as_object(message, "message")
        turns.append((as_text(entry["role"], "role"), _content(entry["content"])))
    roles = [role for role, _ in turns]
    if not roles or roles[0] != "user":
        raise validation(
            "A conversation must start with a user message. "
            "Try again with a conversation that starts with a user message."
        )
    if roles != (["user", "assistant"] * len(roles))[: len(roles)]:
        raise validation(
            "A conversation must alternate between user and assistant roles. Make sure the conversation alternates "
            "between user and assistant roles and try again."
        )
    if roles[-1] != "user":
        raise validation(
            "A conversation must end with a user message. Try again with a conversation that ends with a user message."
        )
    return render_prompt(_content(system) if system else "", turns)


def _content(value: Json) -> str:
    if isinstance(value, str):
        return value
    texts = []
    for block in as_list(value, "content"):
        entry = as_object(block, "content block")
        if "text" not in entry:
            raise validation(f"The rehearsal knows only text, found a content block of {', '.join(entry)}.")
        texts.append(as_text(entry["text"], "text"))
    return "\n".join(texts)


_UNIT = Field(float, 0.0, 1.0)
FAMILIES: dict[str, Family] = {
    "amazon.titan-text": Family(
        {
            "inputText": Field(str, required=True),
            "textGenerationConfig.maxTokenCount": Field(float, 0, 8192),
            "textGenerationConfig.temperature": _UNIT,
            "textGenerationConfig.topP": _UNIT,
            "textGenerationConfig.stopSequences": Field(list),
        },
        _read_titan,
        _write_titan,
    ),
    "cohere.command": Family(
        {
            "prompt": Field(str, required=True),
            "max_tokens": Field(float, 1, 4096),
            "temperature": Field(float, 0.0, 5.0),
            "p": _UNIT,
            "k": Field(float, 0, 500),
            "stop_sequences": Field(list),
            "return_likelihoods": Field(str),
        },
        _read_cohere,
        _write_cohere,
    ),
    "meta.llama": Family(
        {
            "prompt": Field(str, required=True),
            "max_gen_len": Field(float, 1, 8192),
            "temperature": _UNIT,
            "top_p": _UNIT,
        },
        _read_llama,
        _write_llama,
    ),
    "amazon.nova": Family(
        {
            "schemaVersion": Field(str),
            "system": Field(list),
            "messages": Field(list, required=True),
            "inferenceConfig.maxTokens": Field(float, 1, 65_535),
            "inferenceConfig.temperature": _UNIT,
            "inferenceConfig.topP": _UNIT,
            "inferenceConfig.topK": Field(float, 0, 128),
            "inferenceConfig.stopSequences": Field(list),
        },
        _read_nova,
        _write_nova,
    ),
    "anthropic.claude": Family(
        {
            "anthropic_version": Field(str, required=True),
            "max_tokens": Field(float, 1, 4096, required=True),
            "system": Field(str),
            "messages": Field(list, required=True),
            "temperature": _UNIT,
            "top_p": _UNIT,
            "top_k": Field(float, 0, 500),
            "stop_sequences": Field(list),
        },
        _read_claude,
        _write_claude,
    ),
}
# These answer Converse without a system prompt only.
WITHOUT_SYSTEM = ("amazon.titan-text", "cohere.command")


def family_of(identifier: str) -> tuple[str, Family]:
    """Return the family's name, which model ids begin with, and the family; raises ServiceError for any other model."""
    for prefix, family in FAMILIES.items():
        if identifier.startswith(prefix):
            return prefix, family
    raise validation(f"The rehearsal cannot ask the model {identifier}.")
