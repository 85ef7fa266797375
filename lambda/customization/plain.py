"""Lines that are plainly of their file's format, read many at a time.

A line is plain when the decoder of its format takes it, nothing in it wants a decision, and it is certain that no key
stands in it twice. All other lines are for the careful reader of records.py, which alone finds problems.
"""

from collections.abc import Callable, Sequence
from operator import sub
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from customization.columns import Columns
from customization.formats import (
    ASSISTANT,
    CLAUDE_MESSAGES,
    CONVERSATION,
    INPUT_ONLY,
    MESSAGES,
    OPENAI_CHAT,
    PROMPT_COMPLETION,
    USER,
    NotPlainError,
    TextBlock,
)
from customization.records import MAX_LINE_BYTES

NOT_PLAIN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, NotPlainError)

_PAIR: Final = 2  # turns


class _Shape(NamedTuple):
    """A line without its texts; `most`: how much longer than its content it can be without room for a key once more.

    A line that begins with `spaced` has that many `spaces` more at least.
    """

    most: int = 0
    spaced: bytes = b"{"
    spaces: int = 0


_NO_SHAPE: Final = _Shape()
_PARTED: Final = 2  # bytes of the content of a question and its answer that are no text
_PAIR_SHAPE: Final = _Shape(len('{"prompt":"","completion":""}') + len('"prompt":"",') - 1 - _PARTED)
_INPUT_SHAPE: Final = _Shape(len('{"input":""}') + len('"input":"",') - 1)
_CONVERSATION_SHAPE: Final = _Shape(
    len(
        '{"schemaVersion":"bedrock-conversation-2024","messages":[{"role":"user","content":[{"text":""}]},'
        '{"role":"assistant","content":[{"text":""}]}]}'
    )
    + len('"text":"",')
    - 1
    - _PARTED,
    b'{"schemaVersion": "bedrock-conversation-2024", "messages": [{"role": "user", "content": [{"text": "',
    7,
)

_Optional = str | UnsetType


class _Pair(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    prompt: str
    completion: str
    system: _Optional = UNSET
    category: _Optional = UNSET


class _Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    input: str


class _UserBlock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    role: Literal["user"]
    content: tuple[TextBlock]


class _AssistantBlock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    role: Literal["assistant"]
    content: tuple[TextBlock]


class _Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    role: str
    content: tuple[TextBlock]


class _Conversation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    schema_version: Literal["bedrock-conversation-2024"] = msgspec.field(name="schemaVersion")
    system: tuple[TextBlock] | UnsetType = UNSET
    category: _Optional = UNSET


class _ShortConversation(_Conversation, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    messages: tuple[_UserBlock, _AssistantBlock]


class _LongConversation(_Conversation, frozen=True, forbid_unknown_fields=True, gc=False, kw_only=True):
    messages: tuple[_Block, ...]


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    role: str
    content: str


class _Chat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    messages: tuple[_Message, ...]
    system: _Optional = UNSET
    category: _Optional = UNSET


_decode_pair = msgspec.json.Decoder(_Pair).decode
_decode_input = msgspec.json.Decoder(_Input).decode
_decode_short = msgspec.json.Decoder(_ShortConversation).decode
_decode_long = msgspec.json.Decoder(_LongConversation).decode
_decode_chat = msgspec.json.Decoder(_Chat).decode


def _given(values: list[_Optional]) -> list[str] | None:
    """Return the values with "" for those that are not there, None when none is."""
    if values.count(UNSET) == len(values):
        return None
    return ["" if isinstance(value, UnsetType) else value for value in values]


def _finish(
    columns: Columns, lines: Sequence[bytes], shape: "_Shape", quotes: int | list[int], *optional: list[_Optional]
) -> Columns:
    """Return the columns if no key stands twice in a line and no text has a NUL; raises NotPlainError.

    A line that is hardly longer than its shape and its texts has no room for another key. Any other has two quotation
    marks around each of its keys and strings, `quotes` in all and 4 more for each optional field, and those within its
    texts, which stand there as often as in the contents unless they are written as escapes.
    """
    wanted = quotes if isinstance(quotes, list) else [quotes] * len(lines)
    most = shape.most
    for values in optional:
        if values.count(UNSET) < len(values):
            wanted = [count if value is UNSET else count + 4 for count, value in zip(wanted, values, strict=True)]
            most = 0
    contents = columns.contents
    for place, room in enumerate(map(sub, map(len, lines), map(len, contents))):
        if room > most:
            line = lines[place]
            if room <= most + shape.spaces and line.startswith(shape.spaced):
                continue
            count = line.count(b'"') - wanted[place]
            if count and (count != contents[place].count(b'"') or b"\\u0022" in line):
                raise NotPlainError
    if max(map(len, lines)) > MAX_LINE_BYTES or b"\0" in columns.whole:
        raise NotPlainError
    columns.is_as_written = columns.is_as_written and not any([line.endswith(b"\r\n") for line in lines])  # noqa: C419 - faster than a generator
    return columns


def _read_pairs(lines: Sequence[bytes]) -> Columns:
    pairs = list(map(_decode_pair, lines))
    systems: list[_Optional] = [pair.system for pair in pairs]
    categories: list[_Optional] = [pair.category for pair in pairs]
    given = _given(systems)
    columns = Columns.of_pairs([pair.prompt for pair in pairs], [pair.completion for pair in pairs], given)
    columns.categories = _given(categories)
    columns.is_as_written = given is None and columns.categories is None
    return _finish(columns, lines, _PAIR_SHAPE, 8, systems, categories)


def _read_inputs(lines: Sequence[bytes]) -> Columns:
    columns = Columns.of_texts([line.input for line in map(_decode_input, lines)])
    columns.is_as_written = True
    return _finish(columns, lines, _INPUT_SHAPE, 4)


def _read_short_conversations(lines: Sequence[bytes]) -> Columns:
    conversations = list(map(_decode_short, lines))
    systems, messages = _system_blocks(conversations), [conversation.messages for conversation in conversations]
    columns = Columns.of_pairs(
        [pair[0].content[0].text for pair in messages], [pair[1].content[0].text for pair in messages], _given(systems)
    )
    return _finish_conversations(columns, lines, conversations, 26, systems)


def _read_long_conversations(lines: Sequence[bytes]) -> Columns:
    conversations = list(map(_decode_long, lines))
    systems = _system_blocks(conversations)
    columns = _of_messages(
        [[(message.role, message.content[0].text) for message in each.messages] for each in conversations],
        _given(systems) or [""] * len(lines),
    )
    quotes = [6 + 10 * len(conversation.messages) for conversation in conversations]
    return _finish_conversations(columns, lines, conversations, quotes, systems)


def _system_blocks(conversations: Sequence[_Conversation]) -> list[_Optional]:
    return [UNSET if isinstance(each.system, UnsetType) else each.system[0].text for each in conversations]


def _finish_conversations(
    columns: Columns,
    lines: Sequence[bytes],
    conversations: Sequence[_Conversation],
    quotes: int | list[int],
    systems: list[_Optional],
) -> Columns:
    categories: list[_Optional] = [conversation.category for conversation in conversations]
    columns.categories = _given(categories)
    # An empty system prompt is left out when a record is written anew
    columns.is_as_written = columns.categories is None and "" not in systems
    if systems.count(UNSET) < len(systems):
        counts = quotes if isinstance(quotes, list) else [quotes] * len(lines)
        quotes = [count if value is UNSET else count + 6 for count, value in zip(counts, systems, strict=True)]
    shape = _CONVERSATION_SHAPE if quotes == 26 else _NO_SHAPE  # noqa: PLR2004 - two messages, no system prompt
    return _finish(columns, lines, shape, quotes, categories)


def _read_chats(lines: Sequence[bytes]) -> Columns:
    """Read OpenAI's chats, whose system prompt is the first message."""
    chats = list(map(_decode_chat, lines))
    turns = [[(message.role, message.content) for message in chat.messages] for chat in chats]
    if any([chat.system is not UNSET for chat in chats]):  # noqa: C419 - faster than a generator
        raise NotPlainError
    systems = [messages.pop(0)[1] if messages and messages[0][0] == "system" else UNSET for messages in turns]
    if "" in systems:
        raise NotPlainError
    columns = _of_messages(turns, _given(systems) or [""] * len(lines))
    return _finish_chats(columns, lines, chats, None)


def _read_claude(lines: Sequence[bytes]) -> Columns:
    chats = list(map(_decode_chat, lines))
    systems: list[_Optional] = [chat.system for chat in chats]
    columns = _of_messages(
        [[(message.role, message.content) for message in chat.messages] for chat in chats],
        _given(systems) or [""] * len(lines),
    )
    columns.is_as_written = "" not in systems
    return _finish_chats(columns, lines, chats, systems)


def _read_messages(lines: Sequence[bytes]) -> Columns:
    """Read messages without a system prompt: one would tell whose format the file has, which is not decided here."""
    chats = list(map(_decode_chat, lines))
    if any([chat.system is not UNSET for chat in chats]):  # noqa: C419 - faster than a generator
        raise NotPlainError
    turns = [[(message.role, message.content) for message in chat.messages] for chat in chats]
    columns = _of_messages(turns, [""] * len(lines))
    columns.is_as_written = True
    return _finish_chats(columns, lines, chats, None)


def _finish_chats(
    columns: Columns, lines: Sequence[bytes], chats: Sequence[_Chat], systems: list[_Optional] | None
) -> Columns:
    categories: list[_Optional] = [chat.category for chat in chats]
    columns.categories = _given(categories)
    columns.is_as_written = columns.is_as_written and columns.categories is None
    quotes = [2 + 8 * len(chat.messages) for chat in chats]
    return _finish(columns, lines, _NO_SHAPE, quotes, categories, *([systems] if systems else []))


def _of_messages(messages: list[list[tuple[str, str]]], systems: list[str]) -> Columns:
    """Return the columns of messages whose roles alternate as they must; raises NotPlainError."""
    if all([len(each) == _PAIR and each[0][0] == USER and each[1][0] == ASSISTANT for each in messages]):  # noqa: C419 - faster than a generator
        pairs = [each[0][1] for each in messages], [each[1][1] for each in messages]
        return Columns.of_pairs(*pairs, systems if any(systems) else None)
    for each in messages:
        if not each or [role for role, _ in each] != [USER, ASSISTANT] * (len(each) // 2):
            raise NotPlainError
    return Columns.of_turns([[text for _, text in each] for each in messages], systems)


# Tried in this order; what reads single turns alone is faster.
_READERS: dict[str, tuple[Callable[[Sequence[bytes]], Columns], ...]] = {
    PROMPT_COMPLETION: (_read_pairs,),
    INPUT_ONLY: (_read_inputs,),
    CONVERSATION: (_read_short_conversations, _read_long_conversations),
    OPENAI_CHAT: (_read_chats,),
    CLAUDE_MESSAGES: (_read_claude,),
    MESSAGES: (_read_messages,),
}


class PlainReader:
    """Reads plain lines of a file; once a way of reading did not do, it is not tried again."""

    def __init__(self) -> None:
        self._skipped = 0

    def read(self, lines: Sequence[bytes], record_format: str) -> Columns | None:
        """Return the columns of the lines, None when one of them is not plain."""
        readers = _READERS[record_format]
        for place in range(min(self._skipped, len(readers) - 1), len(readers)):
            try:
                columns = readers[place](lines)
            except NOT_PLAIN:
                continue
            self._skipped = place
            return columns
        return None
