"""Many plain lines at a time: the result is the one that care gives, whatever the lines hold."""

import json
from collections.abc import Iterator
from typing import NamedTuple
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from customization import files, reading
from customization.catalogue import FINE_TUNING
from customization.dataset import PreparationRequest, Stage, prepare_dataset
from customization.formats import ENCODERS, PLAIN_READERS, content_of
from customization.json_types import JsonObject
from customization.plain import PlainReader
from customization.problems import InvalidDataset, Problem
from customization.respelling import converted
from tests.unit.data_files import (
    CLAUDE_3_HAIKU,
    NOVA_MICRO,
    TITAN_EXPRESS,
    MemoryFile,
    Prepared,
    json_lines,
    pairs,
    with_limits,
)

quick = settings(deadline=None, max_examples=60)

# Texts with what checks look for, and with what JSON escapes
telling = st.sampled_from(
    [
        *("User: hi", "a bot:", "[eos]", "x </s>", "mail me: a.b@host.jp", "tel 03-1234-5678", "4111 1111 1111 1111"),
        *(
            "",
            " ",
            "\u3000",
            "\0",
            '"',
            '"prompt":"',
            "\\",
            "\n\n",
            "\u2028",
            "\uff10\uff19\uff10\u2212\uff11\uff12\uff13\uff14\u2212\uff15\uff16\uff17\uff18",
            "😀",
            "é",
        ),
    ]
)
texts = st.lists(st.one_of(telling, st.text(max_size=4)), max_size=3).map(" ".join)
FORMATS = ("prompt_completion", "bedrock-conversation-2024", "claude_messages", "openai_chat")


class Style(NamedTuple):
    """How a line is spelt."""

    spaces: bool
    escapes: bool
    end: bytes
    extra: bytes


COMPACT = Style(spaces=False, escapes=False, end=b"\n", extra=b"")
styles = st.builds(
    Style,
    st.booleans(),
    st.booleans(),
    st.sampled_from([b"\n", b"\n", b"\r\n", b" \n", b"\n\n"]),
    st.sampled_from(
        [b"", b"", b"", b'"prompt":"",', b'"messages":[],', b'"category":"c",', b'"system":"",', b'"id":1,']
    ),
)


def record_of(turns: list[str], system: str, record_format: str) -> JsonObject:
    if record_format == "prompt_completion":
        return {"prompt": turns[0], "completion": turns[1], **({"system": system} if system else {})}
    roles = [("user", "assistant")[index % 2] for index in range(len(turns))]
    messages: JsonObject
    if record_format == "bedrock-conversation-2024":
        blocks = [{"role": role, "content": [{"text": text}]} for role, text in zip(roles, turns, strict=True)]
        messages = {"schemaVersion": record_format, "messages": blocks}  # type: ignore[dict-item]  # lists are invariant
        return messages | ({"system": [{"text": system}]} if system else {})
    plain = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=True)]
    if record_format == "openai_chat" and system:
        plain.insert(0, {"role": "system", "content": system})
    messages = {"messages": plain}  # type: ignore[dict-item]  # lists are invariant
    return messages | ({"system": system} if system and record_format == "claude_messages" else {})


def line_of(record: JsonObject, style: Style) -> bytes:
    separators = (", ", ": ") if style.spaces else (",", ":")
    text = json.dumps(record, ensure_ascii=style.escapes, separators=separators).encode("utf-8", "surrogatepass")
    return b"{" + style.extra + text[1:] + style.end


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Draw a file: good records first, so that its format is known, then whatever lines there may be."""
    record_format = draw(st.sampled_from(FORMATS))
    lengths = st.just(2) if record_format == "prompt_completion" else st.sampled_from([2, 2, 2, 4])
    turns = lengths.flatmap(lambda count: st.lists(texts, min_size=count, max_size=count))
    records = st.builds(record_of, turns, st.one_of(st.just(""), texts), st.just(record_format))
    good = [
        line_of(record_of([f"question {number}", f"answer {number}"], "", record_format), COMPACT)
        for number in range(40)
    ]
    wild = draw(st.lists(st.builds(line_of, records, styles), max_size=12))
    lines = draw(st.permutations([*good[1:], *wild]))
    return b"".join([good[0], *lines])


class Outcome(NamedTuple):
    problems: list[Problem]
    files: dict[str, list[JsonObject]]
    figures: object


def outcome_of(content: bytes, identifier: str, *, with_care: bool) -> Outcome:
    model = with_limits(identifier, min_training_records=1, min_total_records=1, min_validation_records=1)
    request = PreparationRequest(stages=(Stage(FINE_TUNING, model, 1),))
    prepared = Prepared()

    def never_plain(_reader: PlainReader, _lines: list[bytes], _format: str) -> None:
        return None

    with (
        patch.object(reading, "_FEW_LINES", 2),
        patch.object(files, "NUMBERS_IN_ALL_OF", 20),
        patch.object(PlainReader, "read", never_plain if with_care else PlainReader.read),
    ):
        try:
            profile = prepare_dataset(request, {"train": MemoryFile("train.jsonl", content)}, prepared.open)
        except InvalidDataset as refusal:
            return Outcome(sorted(refusal.problems, key=repr), {}, None)
    sizes = {name: msgspec.structs.replace(file, bytes=0) for name, file in profile.prepared.items()}
    written = {name: prepared.records(name) for name in prepared.sinks}
    warnings = sorted([*profile.warnings, *profile.notes], key=repr)
    return Outcome(warnings, written, (profile.files, sizes, profile.representativeness, profile.test_digest))


@quick
@given(contents(), st.sampled_from([NOVA_MICRO, TITAN_EXPRESS, CLAUDE_3_HAIKU]))
@example(
    json_lines(pairs(60)) + b'{"prompt":"","prompt":"a","completion":"b"}\n' + json_lines(pairs(20, 70)), TITAN_EXPRESS
)
def test_plain_lines_have_the_result_that_care_gives(content: bytes, identifier: str) -> None:
    assert outcome_of(content, identifier, with_care=False) == outcome_of(content, identifier, with_care=True)


def test_of_plain_lines_hardly_any_is_read_with_care() -> None:
    read = reading.LineReader._read_carefully  # how many lines take the slow way shows nowhere else
    careful: list[int] = []

    def counted(reader: reading.LineReader, lines: list[bytes]) -> reading.Part:
        careful.append(len(lines))
        return read(reader, lines)

    with patch.object(reading.LineReader, "_read_carefully", counted):
        outcome_of(json_lines(pairs(2_000)), TITAN_EXPRESS, with_care=False)
    assert sum(careful) < 40


@pytest.mark.parametrize("spaces", [True, False])
@pytest.mark.parametrize(
    "extra",
    [b'"prompt":"",', b'"completion":"",', b'"prompt": "x", ', b'"pr\\u006fmpt":"",'],
)
def test_a_key_that_stands_twice_is_never_plain(extra: bytes, spaces: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    style = Style(spaces=spaces, escapes=False, end=b"\n", extra=b"")
    good = [line_of({"prompt": "a", "completion": text}, style) for text in ("b", 'say "b"', "b\nc" * 9)]
    assert PlainReader().read(good, "prompt_completion") is not None
    for line in good:
        repeated = line.replace(b"{", b"{" + extra)
        assert PlainReader().read([*good, repeated], "prompt_completion") is None


@quick
@given(st.lists(st.tuples(texts, texts, st.booleans()), min_size=1, max_size=5), st.sampled_from(FORMATS))
def test_texts_in_another_format_say_the_same(drawn: list[tuple[str, str, bool]], source: str) -> None:
    style = Style(spaces=True, escapes=True, end=b"\n", extra=b"")
    lines = [line_of(record_of([one, other], "Be brief." * has, source), style) for one, other, has in drawn]
    before = [PLAIN_READERS[source](line) for line in lines]
    for target in ("bedrock-conversation-2024", "claude_messages", "prompt_completion"):
        after = converted(lines, source, target).splitlines(keepends=True)
        direct = [ENCODERS[target](record) for record in before]
        read = PLAIN_READERS[target]
        assert [content_of(read(line)) for line in after] == [content_of(read(line)) for line in direct]


def _chunks(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


@given(st.lists(st.binary(max_size=30), max_size=8), st.integers(1, 9))
def test_lists_of_lines_hold_every_line_whatever_the_chunks(parts: list[bytes], size: int) -> None:
    content = b"\n".join(parts)
    assert b"".join(line for lines in reading.together(_chunks(content, size)) for line in lines) == content
