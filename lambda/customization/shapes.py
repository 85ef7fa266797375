"""What a JSON object of a data file says as a record: the careful reading, which names every field that is wrong."""

from collections.abc import Callable, Iterable, Mapping

from customization.formats import (
    ASSISTANT,
    CLAUDE_MESSAGES,
    CONVERSATION,
    INPUT_ONLY,
    MESSAGES,
    OPENAI_CHAT,
    PROMPT_COMPLETION,
    USER,
    Example,
    RawText,
    Record,
    Turn,
)
from customization.json_types import Json, JsonObject
from customization.problems import excerpt
from customization.texts import Sentence

# Adds a problem of the line that is being read: its code, the field, what was found, what is allowed.
Report = Callable[[str, str, str | Sentence, str | Sentence], None]

SYSTEM_ROLES = ("system", "developer")
FORMAT_NAMES = {
    PROMPT_COMPLETION: "prompt/completion",
    INPUT_ONLY: "raw text (input)",
    OPENAI_CHAT: "OpenAI chat",
    CLAUDE_MESSAGES: "Claude messages",
    MESSAGES: "messages",
    CONVERSATION: "Bedrock conversation",
}
USED_KEYS = {
    PROMPT_COMPLETION: ("prompt", "completion", "system", "category"),
    INPUT_ONLY: ("input",),
    OPENAI_CHAT: ("messages", "category"),
    CLAUDE_MESSAGES: ("messages", "system", "category"),
    MESSAGES: ("messages", "system", "category"),
    CONVERSATION: ("schemaVersion", "messages", "system", "category"),
}
# What a fieldMapping may lead to
FORMAT_KEYS = ("prompt", "completion", "messages", "input", "system", "category")
_TOOL_KEYS = ("tools", "toolConfig", "functions", "function_call", "tool_calls", "tool_call_id", "tool_choice")
_TOOL_ROLES = ("tool", "function")
_BLOCKS = {
    **dict.fromkeys(("toolUse", "toolResult", "tool_use", "tool_result"), "tools"),
    **dict.fromkeys(("image", "video", "document", "audio", "image_url", "input_audio", "file"), "media"),
    **dict.fromkeys(("reasoningContent", "thinking", "redacted_thinking"), "reasoning"),
}
_KINDS = {
    type(None): "found.null",
    bool: "found.boolean",
    int: "found.number",
    float: "found.number",
    str: "found.string",
    list: "found.list",
}
# Keys of other tools' data sets in lower case, as they are tried; those in one tuple make up a prompt together
_PROMPT_KEYS = (
    *(("instruction", "input"), ("instruction", "context"), ("context", "question"), ("指示", "入力")),
    *(("文脈", "質問"), ("prompt",), ("question",), ("instruction",), ("query",), ("input",), ("user",)),
    *(("質問",), ("質問文",), ("問題",), ("指示",), ("プロンプト",), ("入力",)),
)
_COMPLETION_KEYS = (
    *("completion", "answer", "output", "response", "referenceresponse", "target", "label", "assistant"),
    *("回答", "回答文", "答え", "解答", "応答", "返答", "出力", "ラベル"),
)
_SYSTEM_KEYS = ("system_prompt", "system_message", "システムプロンプト")
_MESSAGES_KEYS = ("conversation", "conversations", "dialogue", "dialog", "会話")
_TEXT_KEYS = ("text", "content", "body", "document", "本文", "テキスト")


def rename_keys(value: JsonObject, field_mapping: Mapping[str, str]) -> JsonObject:
    """Return the object under the mapping's keys; texts that come under one key are joined by a blank line."""
    if not any(key in value for key in field_mapping):
        return value
    order = [*(key for key in field_mapping if key in value), *(key for key in value if key not in field_mapping)]
    renamed: JsonObject = {}
    for key in order:
        target, text = field_mapping.get(key, key), value[key]
        earlier = renamed.get(target)
        if isinstance(earlier, str) and isinstance(text, str):
            renamed[target] = "\n\n".join(part for part in (earlier, text) if part)
        elif target not in renamed:
            renamed[target] = text
    return renamed


def suggest_mapping(value: JsonObject) -> dict[str, str]:
    """Return the fieldMapping under which the object would be a record, empty when none is apparent.

    Keys are compared without case and outer blanks, since tables have headers such as `Question`.
    """
    texts = {key.strip().lower(): key for key, text in value.items() if isinstance(text, str)}
    completion = _first(_COMPLETION_KEYS, texts)
    prompts = next((keys for keys in _PROMPT_KEYS if all(key in texts for key in keys)), ())
    found: dict[str, str] = {}
    if completion and prompts:
        found = dict.fromkeys(prompts, "prompt") | {completion: "completion"}
        system = _first(_SYSTEM_KEYS, texts)
        found |= {system: "system"} if system else {}
    elif not completion and not prompts and (text := _first(_TEXT_KEYS, texts)):
        found = {text: "input"}
    else:
        chats = {key.strip().lower(): key for key, messages in value.items() if _are_messages(messages)}
        chat = _first(_MESSAGES_KEYS, chats)
        return {chats[chat]: "messages"} if chat else {}
    return {texts[name]: target for name, target in found.items() if texts[name] != target}


def format_of(value: JsonObject) -> str | None:
    """Return the format of the object by its keys, None when they are of no known one."""
    if "messages" in value:
        return _messages_format(value)
    keys = [key for key in ("prompt", "completion") if key in value]
    if len(keys) == 2 or (keys and not suggest_mapping(value)):  # noqa: PLR2004 - both keys
        return PROMPT_COMPLETION
    if "input" in value and not suggest_mapping(value):
        return INPUT_ONLY
    return None


def read_record(value: JsonObject, record_format: str, report: Report) -> Record | None:
    """Return the object as a record, None when a problem that was reported forbids it."""
    _report_extra_keys(value, USED_KEYS[record_format], "", report)
    if record_format == INPUT_ONLY:
        text = _text(value, "input", "input", report)
        return None if text is None else RawText(text)
    if record_format == PROMPT_COMPLETION:
        prompt = _text(value, "prompt", "prompt", report)
        completion = _text(value, "completion", "completion", report)
        system = _optional_text(value, "system", report)
        if prompt is None or completion is None or system is None:
            return None
        return Example((Turn(USER, prompt), Turn(ASSISTANT, completion)), system, _category(value, report))
    return _read_messages(value, record_format, report)


def _first(names: Iterable[str], found: Mapping[str, str]) -> str:
    return next((name for name in names if name in found), "")


def _are_messages(value: Json) -> bool:
    entries = _list(value)
    return bool(entries) and all(isinstance(entry, dict) and {"role", "content"} <= entry.keys() for entry in entries)


def _messages_format(value: JsonObject) -> str:
    messages, system = value["messages"], value.get("system")
    entries = [entry for entry in messages if isinstance(entry, dict)] if isinstance(messages, list) else []
    blocks = [block for entry in entries for block in _list(entry.get("content"))] + _list(system)
    if "schemaVersion" in value or any(isinstance(block, dict) and "type" not in block for block in blocks):
        return CONVERSATION
    if system is not None:
        return CLAUDE_MESSAGES
    return OPENAI_CHAT if any(entry.get("role") in SYSTEM_ROLES for entry in entries) else MESSAGES


def _read_messages(value: JsonObject, record_format: str, report: Report) -> Example | None:
    messages = value["messages"]
    if not isinstance(messages, list):
        report("wrong_type", "messages", kind_of(messages), Sentence("allowed.messages"))
        return None
    if record_format == CONVERSATION and value.get("schemaVersion") != CONVERSATION:
        report("schema_version", "schemaVersion", "", "")
    system_text = _content(value, "system", record_format, report) if value.get("system") is not None else ""
    turns = [
        _read_message(message, f"messages[{index}]", record_format, report) for index, message in enumerate(messages)
    ]
    read = [turn for turn in turns if turn is not None]
    if system_text is None or len(read) < len(turns):
        return None
    systems = [system_text] if system_text else []
    while record_format == OPENAI_CHAT and read and read[0].role in SYSTEM_ROLES:
        systems.append(read.pop(0).text)
    return Example(tuple(read), "\n\n".join(systems), _category(value, report))


def _read_message(message: Json, field: str, record_format: str, report: Report) -> Turn | None:
    if not isinstance(message, dict):
        report("wrong_type", field, kind_of(message), Sentence("allowed.message"))
        return None
    role = _text(message, "role", f"{field}.role", report)
    if role in _TOOL_ROLES or any(message.get(key) for key in _TOOL_KEYS):
        report("tools", field, "", "")
        return None
    if message.get("weight") == 0:
        report("weight", f"{field}.weight", "0", "")
        return None
    _report_extra_keys(message, ("role", "content", "weight"), f"{field}.", report)
    text = _content(message, "content", record_format, report, f"{field}.")
    return None if role is None or text is None else Turn(role, text)


def _content(value: JsonObject, key: str, record_format: str, report: Report, prefix: str = "") -> str | None:
    """Return the text of a content or system field: a string, or text blocks, which are joined by line breaks."""
    content, field = value.get(key), prefix + key
    if isinstance(content, str) and record_format != CONVERSATION:
        return content
    if not isinstance(content, list):
        allowed = Sentence("allowed.blocks" if record_format == CONVERSATION else "allowed.string")
        report(
            "wrong_type" if key in value else "missing_field", field, kind_of(content) if key in value else "", allowed
        )
        return None
    texts = [_block_text(block, f"{field}[{index}]", report) for index, block in enumerate(content)]
    if len(texts) > 1:
        report("joined_blocks", field, "", "")
    return "\n".join(text for text in texts if text is not None) if None not in texts else None


def _block_text(block: Json, field: str, report: Report) -> str | None:
    if not isinstance(block, dict):
        report("wrong_type", field, kind_of(block), Sentence("allowed.block"))
        return None
    lost = next((_BLOCKS[key] for key in (*block, str(block.get("type"))) if key in _BLOCKS), None)
    if lost:
        report(lost, field, "", "")
        return None
    _report_extra_keys(block, ("text", "type"), f"{field}.", report)
    return _text(block, "text", f"{field}.text", report)


def _report_extra_keys(value: JsonObject, used: Iterable[str], prefix: str, report: Report) -> None:
    for key in value:
        if key in _TOOL_KEYS and value[key]:
            report("tools", prefix + key, "", "")
        elif key not in used:
            report("extra_field", prefix + excerpt(key)[1:-1], "", "")


def _text(value: JsonObject, key: str, field: str, report: Report) -> str | None:
    text = value.get(key)
    if isinstance(text, str):
        return text
    if key in value:
        report("wrong_type", field, kind_of(text), Sentence("allowed.string"))
    else:
        report("missing_field", field, "", Sentence("allowed.string"))
    return None


def _optional_text(value: JsonObject, key: str, report: Report) -> str | None:
    return "" if value.get(key) is None else _text(value, key, key, report)


def _category(value: JsonObject, report: Report) -> str:
    category = value.get("category")
    if isinstance(category, str) or category is None:
        return category or ""
    report("category_ignored", "category", kind_of(category), Sentence("allowed.string"))
    return ""


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def kind_of(value: object) -> Sentence:
    """Return the kind of a JSON value, such as "a list"."""
    return Sentence(_KINDS.get(type(value), "found.object"))
