"""Plain lines of one format as lines of another, the texts spelt as they were: they need not be read for that."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from customization.formats import (
    ASSISTANT,
    CLAUDE_MESSAGES,
    CONVERSATION,
    INPUT_ONLY,
    MESSAGES,
    OPENAI_CHAT,
    PROMPT_COMPLETION,
    USER,
)

_PAIR: Final = 2  # turns


class _RawPair(msgspec.Struct, gc=False):
    prompt: Raw
    completion: Raw
    system: Raw = Raw()


class _RawInput(msgspec.Struct, gc=False):
    input: Raw


class _RawText(msgspec.Struct, gc=False):
    text: Raw


class _RawBlock(msgspec.Struct, gc=False):
    content: tuple[_RawText]


class _RawConversation(msgspec.Struct, gc=False):
    messages: tuple[_RawBlock, ...]
    system: tuple[_RawText, ...] = ()


class _RawMessage(msgspec.Struct, gc=False):
    role: str
    content: Raw


class _RawChat(msgspec.Struct, gc=False):
    messages: tuple[_RawMessage, ...]
    system: Raw = Raw()


# The texts of a record as they stand in its line, in quotation marks: the system prompt, empty for none, and the turns
_Texts = tuple[bytes | Raw, Sequence[bytes | Raw]]

_raw_pair = msgspec.json.Decoder(_RawPair).decode
_raw_input = msgspec.json.Decoder(_RawInput).decode
_raw_conversation = msgspec.json.Decoder(_RawConversation).decode
_raw_chat = msgspec.json.Decoder(_RawChat).decode


def _texts_of_pairs(lines: Iterable[bytes]) -> Iterator[_Texts]:
    return ((pair.system, (pair.prompt, pair.completion)) for pair in map(_raw_pair, lines))


def _texts_of_inputs(lines: Iterable[bytes]) -> Iterator[_Texts]:
    return ((b"", (line.input,)) for line in map(_raw_input, lines))


def _texts_of_conversations(lines: Iterable[bytes]) -> Iterator[_Texts]:
    for conversation in map(_raw_conversation, lines):
        system = conversation.system
        yield system[0].text if system else b"", [each.content[0].text for each in conversation.messages]


def _texts_of_chats(lines: Iterable[bytes]) -> Iterator[_Texts]:
    for chat in map(_raw_chat, lines):
        messages, system = chat.messages, chat.system
        if messages[0].role not in (USER, ASSISTANT):
            system, messages = messages[0].content, messages[1:]
        yield system, [message.content for message in messages]


class _Frame(NamedTuple):
    """What stands around the texts of a record in a line of a format."""

    before_system: bytes
    after_system: bytes
    start: bytes  # without a system prompt
    between: tuple[bytes, bytes]  # before a text of the assistant, of the user
    end: bytes


_FRAMES = {
    PROMPT_COMPLETION: _Frame(b"", b"", b'{"prompt":', (b',"completion":', b""), b"}\n"),
    INPUT_ONLY: _Frame(b"", b"", b'{"input":', (b"", b""), b"}\n"),
    CLAUDE_MESSAGES: _Frame(
        b'{"system":',
        b',"messages":[{"role":"user","content":',
        b'{"messages":[{"role":"user","content":',
        (b'},{"role":"assistant","content":', b'},{"role":"user","content":'),
        b"}]}\n",
    ),
    CONVERSATION: _Frame(
        b'{"schemaVersion":"bedrock-conversation-2024","system":[{"text":',
        b'}],"messages":[{"role":"user","content":[{"text":',
        b'{"schemaVersion":"bedrock-conversation-2024","messages":[{"role":"user","content":[{"text":',
        (b'}]},{"role":"assistant","content":[{"text":', b'}]},{"role":"user","content":[{"text":'),
        b"}]}]}\n",
    ),
}
_TEXTS: dict[str, Callable[[Iterable[bytes]], Iterator[_Texts]]] = {
    PROMPT_COMPLETION: _texts_of_pairs,
    INPUT_ONLY: _texts_of_inputs,
    CONVERSATION: _texts_of_conversations,
    OPENAI_CHAT: _texts_of_chats,
    CLAUDE_MESSAGES: _texts_of_chats,
    MESSAGES: _texts_of_chats,
}
_LONGEST_EMPTY: Final = 2  # a text in its quotation marks


def converted(lines: Iterable[bytes], source: str, target: str) -> bytes:
    """Return plain lines of the source format as lines of the target format, their texts spelt as they were.

    The records must have been accepted for the target: they hold what it can hold and nothing that it cannot.
    """
    frame = _FRAMES[target]
    start, end, before_second = frame.start, frame.end, frame.between[0]
    parts: list[bytes | Raw] = []
    for system, texts in _TEXTS[source](lines):
        if len(texts) == _PAIR and len(memoryview(system)) <= _LONGEST_EMPTY:
            parts += (start, texts[0], before_second, texts[1], end)
        else:
            parts += _framed(bytes(system), texts, target)
    return b"".join(parts)


def _framed(system: bytes, texts: Sequence[bytes | Raw], target: str) -> Iterator[bytes | Raw]:
    frame, (first, *others) = _FRAMES[target], texts
    if len(system) <= _LONGEST_EMPTY:
        yield from (frame.start, first)
    elif target == PROMPT_COMPLETION:  # as prompt_of joins them
        yield from (frame.start, system[:-1], b"\\n\\n", bytes(first)[1:])
    else:
        yield from (frame.before_system, system, frame.after_system, first)
    for index, text in enumerate(others):
        yield from (frame.between[index % 2], text)
    yield frame.end


def are_of_format(source: str, target: str) -> bool:
    """Tell whether a plain line of the source format, written as it is, is one of the target format."""
    return source == target or (source == MESSAGES and target == CLAUDE_MESSAGES)
