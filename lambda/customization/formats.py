"""The records of the data files: the formats that are read, what they mean, and the formats that base models take.

Formats as in the user guide of Amazon Bedrock, "Prepare data for fine-tuning": prompt_completion, input_only (continued
pre-training), bedrock-conversation-2024, claude_messages; and the chat format of OpenAI, which many data sets come in.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from customization.errors import InvalidDataset

PROMPT_COMPLETION = "prompt_completion"
INPUT_ONLY = "input_only"
CONVERSATION = "bedrock-conversation-2024"
CLAUDE_MESSAGES = "claude_messages"
OPENAI_CHAT = "openai_chat"
# Messages without a system prompt look the same for Claude and OpenAI: a later record may tell which it is.
MESSAGES = "messages"

ASSISTANT: Final = "assistant"
USER: Final = "user"
Role = Literal["user", "assistant"]


class Turn(msgspec.Struct, frozen=True, gc=False):
    """What one side says. Bedrock's roles are user and assistant; any other is refused when records are checked."""

    role: str
    text: str


class Example(msgspec.Struct, frozen=True):
    """A labelled record: the last turn is the assistant's answer that a model learns or is compared with."""

    turns: tuple[Turn, ...]
    system: str = ""
    category: str = ""


class RawText(msgspec.Struct, frozen=True, gc=False):
    """A record of continued pre-training."""

    text: str


Record = Example | RawText


class TestRecord(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A question for the models that are compared: the turns up to the last user turn, and the reference answer."""

    __test__ = False  # pytest: this is no class of tests

    record_id: str
    turns: tuple[Turn, ...]
    reference: str
    system: str = ""
    category: str = ""


class PromptCompletionLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    prompt: str
    completion: str
    system: str = ""
    category: str = ""


class InputLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    input: str


class OpenAiMessageLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "user", "assistant"]
    content: str


class OpenAiChatLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    messages: tuple[OpenAiMessageLine, ...]
    category: str = ""


class ClaudeMessageLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    role: Role
    content: str


class ClaudeMessagesLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    system: str = ""
    messages: tuple[ClaudeMessageLine, ...]
    category: str = ""


class TextBlock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    text: str


class BlockMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Role
    content: tuple[TextBlock, ...]


class ConversationLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    schema_version: str = msgspec.field(default="", name="schemaVersion")
    system: tuple[TextBlock, ...] = ()
    messages: tuple[BlockMessage, ...]
    category: str = ""


class NotPlainError(Exception):
    """A line decodes, but reading it needs a decision that only the careful reader makes."""


_decode_pair = msgspec.json.Decoder(PromptCompletionLine).decode
_decode_input = msgspec.json.Decoder(InputLine).decode
_decode_openai = msgspec.json.Decoder(OpenAiChatLine).decode
_decode_claude = msgspec.json.Decoder(ClaudeMessagesLine).decode
_decode_conversation = msgspec.json.Decoder(ConversationLine).decode
_encode = msgspec.json.Encoder().encode


def _plain_pair(line: bytes) -> Record:
    pair = _decode_pair(line)
    return Example((Turn(USER, pair.prompt), Turn(ASSISTANT, pair.completion)), pair.system, pair.category)


def _plain_input(line: bytes) -> Record:
    return RawText(_decode_input(line).input)


def _plain_openai(line: bytes) -> Record:
    chat = _decode_openai(line)
    messages, system = chat.messages, ""
    if messages and messages[0].role == "system":
        system, messages = messages[0].content, messages[1:]
        if not system:
            raise NotPlainError
    return Example(tuple([Turn(message.role, message.content) for message in messages]), system, chat.category)


def _plain_claude(line: bytes) -> Record:
    chat = _decode_claude(line)
    return Example(
        tuple([Turn(message.role, message.content) for message in chat.messages]), chat.system, chat.category
    )


def _plain_conversation(line: bytes) -> Record:
    conversation = _decode_conversation(line)
    messages, system = conversation.messages, conversation.system
    turns = tuple([Turn(message.role, message.content[0].text) for message in messages if len(message.content) == 1])
    if len(turns) < len(messages) or len(system) > 1:
        raise NotPlainError
    return Example(turns, system[0].text if system else "", conversation.category)


# Each reads a record that is plainly of its format and raises msgspec's errors, UnicodeDecodeError, RecursionError or
# NotPlainError for any other: the careful reader of records.py then finds out what is wrong or wants a note.
PLAIN_READERS: dict[str, Callable[[bytes], Record]] = {
    PROMPT_COMPLETION: _plain_pair,
    INPUT_ONLY: _plain_input,
    OPENAI_CHAT: _plain_openai,
    CLAUDE_MESSAGES: _plain_claude,
    MESSAGES: _plain_claude,
    CONVERSATION: _plain_conversation,
}


def roles_alternate(turns: Sequence[Turn]) -> bool:
    """Tell whether user and assistant take turns, the user first and the assistant last."""
    roles = [turn.role for turn in turns]
    return bool(roles) and roles == [USER, ASSISTANT] * (len(roles) // 2)


def prompt_of(turns: Sequence[Turn], system: str = "") -> str:
    """Return the prompt for a base model without messages: the system prompt, a blank line, the one user turn.

    Training files and questions use this one function, so that a model is asked the way it was trained. Raises
    InvalidDataset for more than one turn.
    """
    if len(turns) != 1:
        raise InvalidDataset(f"A prompt is made of one user turn, found {len(turns)}; split the conversation.")
    return f"{system}\n\n{turns[0].text}" if system else turns[0].text


def _encode_pair(record: Record) -> bytes:
    example = _labelled(record)
    return _encode(PromptCompletionLine(prompt_of(example.turns[:-1], example.system), example.turns[-1].text))


def _encode_input(record: Record) -> bytes:
    if isinstance(record, Example):
        raise InvalidDataset("A labelled record cannot be written as raw text.")
    return _encode(InputLine(record.text))


def _encode_claude(record: Record) -> bytes:
    example = _labelled(record)
    messages = tuple([ClaudeMessageLine(_role(turn), turn.text) for turn in example.turns])
    return _encode(ClaudeMessagesLine(system=example.system, messages=messages))


def _encode_conversation(record: Record) -> bytes:
    example = _labelled(record)
    return _encode(
        ConversationLine(
            schema_version=CONVERSATION,
            system=(TextBlock(example.system),) if example.system else (),
            messages=tuple([BlockMessage(_role(turn), (TextBlock(turn.text),)) for turn in example.turns]),
        )
    )


def _role(turn: Turn) -> Role:
    if turn.role == ASSISTANT:
        return ASSISTANT
    if turn.role == USER:
        return USER
    raise InvalidDataset(f"A turn is of user or assistant, found {turn.role!r}.")


def _labelled(record: Record) -> Example:
    if isinstance(record, RawText):
        raise InvalidDataset("Raw text has no completion and cannot be written as a labelled record.")
    return record


# Each returns the line, without its end, that Bedrock reads: UTF-8, no other keys than the format has. They raise
# InvalidDataset where something would be lost; prepare_dataset refuses such records before, naming their lines.
ENCODERS: dict[str, Callable[[Record], bytes]] = {
    PROMPT_COMPLETION: _encode_pair,
    INPUT_ONLY: _encode_input,
    CLAUDE_MESSAGES: _encode_claude,
    CONVERSATION: _encode_conversation,
}


def content_of(record: Record) -> bytes:
    """Return what the record says: its texts, system prompt first, parted by a byte that UTF-8 never has."""
    if isinstance(record, RawText):
        return record.text.encode()
    return b"\xff".join([record.system.encode(), *(turn.text.encode() for turn in record.turns)])


def digest_of(record: Record) -> int:
    """Return 64 bits of the SHA-256 of what the record says, whatever its format, key order or escapes.

    The category is no part of it, nor are the roles, which follow from the order.
    """
    return int.from_bytes(hashlib.sha256(content_of(record)).digest()[:8], "big")


def as_test_record(example: Example) -> TestRecord:
    """Return the example as a question and its reference answer; the id follows from the content alone."""
    return TestRecord(
        f"{digest_of(example):016x}", example.turns[:-1], example.turns[-1].text, example.system, example.category
    )


def encode_test_record(record: Record) -> bytes:
    """Return a labelled record as a TestRecord line of test.jsonl, without its end."""
    return _encode(as_test_record(_labelled(record)))
