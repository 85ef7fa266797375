"""Reading records of every format, converting them, and what is refused because it would be lost."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customization.errors import InvalidDataset
from customization.formats import (
    CLAUDE_MESSAGES,
    CONVERSATION,
    ENCODERS,
    INPUT_ONLY,
    PROMPT_COMPLETION,
    Example,
    RawText,
    Record,
    Turn,
    as_test_record,
    digest_of,
    prompt_of,
)
from customization.json_types import Json, JsonObject
from customization.problems import Problem, Problems
from customization.records import RecordReader, split_lines
from customization.shapes import suggest_mapping

GREETING = Example((Turn("user", "こんにちは"), Turn("assistant", "いらっしゃいませ")), system="丁寧に答える")

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
single_turns = st.builds(lambda user, answer: (Turn("user", user), Turn("assistant", answer)), texts, texts)
conversations = st.lists(single_turns, min_size=1, max_size=3).map(lambda turns: sum(turns, ()))


def read(*lines: bytes, field_mapping: dict[str, str] | None = None) -> tuple[list[Record], list[Problem], str | None]:
    problems = Problems()
    reader = RecordReader("train.jsonl", problems, field_mapping)
    records = [record for _, record in reader.records(line + b"\n" for line in lines)]
    return records, problems.of("error", "warning", "note"), reader.format


def read_object(value: JsonObject, field_mapping: dict[str, str] | None = None) -> tuple[list[Record], list[Problem]]:
    records, problems, _ = read(msgspec.json.encode(value), field_mapping=field_mapping)
    return records, problems


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            {"prompt": "感情を分類:", "completion": "ポジティブ"},
            Example((Turn("user", "感情を分類:"), Turn("assistant", "ポジティブ"))),
        ),
        ({"input": "AWS Lambda はサーバーレスです。"}, RawText("AWS Lambda はサーバーレスです。")),
        (
            {"prompt": "お客様: 返品したいです。\nエージェント:", "completion": " 承知しました。", "category": "返品"},
            Example(
                (Turn("user", "お客様: 返品したいです。\nエージェント:"), Turn("assistant", " 承知しました。")),
                category="返品",
            ),
        ),
        (
            {
                "messages": [
                    {"role": "system", "content": "丁寧に答える"},
                    {"role": "user", "content": "こんにちは"},
                    {"role": "assistant", "content": "いらっしゃいませ"},
                ]
            },
            GREETING,
        ),
        (
            {
                "system": "丁寧に答える",
                "messages": [
                    {"role": "user", "content": "こんにちは"},
                    {"role": "assistant", "content": [{"type": "text", "text": "いらっしゃいませ"}]},
                ],
            },
            GREETING,
        ),
        (
            {
                "schemaVersion": "bedrock-conversation-2024",
                "system": [{"text": "丁寧に答える"}],
                "messages": [
                    {"role": "user", "content": [{"text": "こんにちは"}]},
                    {"role": "assistant", "content": [{"text": "いらっしゃいませ"}]},
                ],
            },
            GREETING,
        ),
    ],
)
def test_each_format_is_read_alike_as_first_and_as_later_record(value: JsonObject, expected: Record) -> None:
    line = msgspec.json.encode(value)
    records, problems, _ = read(line, line)
    assert records == [expected, expected]
    assert problems == []


def test_messages_without_a_system_prompt_may_turn_out_to_be_openai_chat() -> None:
    plain = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    chat = {"messages": [{"role": "system", "content": "s"}, *plain["messages"]]}
    records, problems, found = read(*(msgspec.json.encode(value) for value in (plain, chat, plain)))
    assert [record.system for record in records if isinstance(record, Example)] == ["", "s", ""]
    assert (problems, found) == ([], "openai_chat")


def test_a_record_of_another_format_is_refused_with_its_line() -> None:
    _, problems, _ = read(b'{"prompt": "a", "completion": "b"}', b"", b'{"input": "c"}')
    assert [(problem.code, problem.line) for problem in problems] == [("blank_line", 2), ("mixed_formats", 3)]
    assert "raw text (input)" in problems[1].what


def test_an_openai_record_in_a_file_of_claude_messages_is_refused() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    claude = msgspec.json.encode({"system": "s", "messages": turns})
    chat = msgspec.json.encode({"messages": [{"role": "system", "content": "s"}, *turns]})
    assert [problem.code for problem in read(claude, chat)[1]] == ["mixed_formats"]


@pytest.mark.parametrize(
    ("value", "mapping"),
    [
        ({"question": "q", "answer": "a"}, {"question": "prompt", "answer": "completion"}),
        ({"instruction": "i", "output": "o"}, {"instruction": "prompt", "output": "completion"}),
        (
            {"instruction": "i", "input": "x", "output": "o"},
            {"instruction": "prompt", "input": "prompt", "output": "completion"},
        ),
        ({"prompt": "p", "referenceResponse": "r", "category": "c"}, {"referenceResponse": "completion"}),
        ({"質問": "q", "回答": "a"}, {"質問": "prompt", "回答": "completion"}),
        ({"text": "t", "id": 1}, {"text": "input"}),
    ],
)
def test_the_error_on_other_keys_offers_the_mapping_with_which_the_file_is_read(
    value: JsonObject, mapping: dict[str, str]
) -> None:
    _, problems = read_object(value)
    assert problems[0].code == "unknown_format"
    assert msgspec.json.encode(mapping).decode() in problems[0].fix
    assert suggest_mapping(value) == mapping
    records, problems = read_object(value, mapping)
    assert len(records) == 1
    assert {problem.code for problem in problems} <= {"extra_field"}


def test_keys_without_an_apparent_mapping_are_named() -> None:
    _, problems = read_object({"question_id": 1, "turns": ["a"]})
    assert "question_id, turns" in problems[0].found


def test_texts_mapped_to_one_key_are_joined_in_the_order_of_the_mapping() -> None:
    value: JsonObject = {"output": "o", "input": "x", "instruction": "i"}
    mapping = {"instruction": "prompt", "input": "prompt", "output": "completion"}
    assert read_object(value, mapping)[0] == [Example((Turn("user", "i\n\nx"), Turn("assistant", "o")))]


def test_a_mapping_between_keys_of_the_format_holds_for_every_line() -> None:
    line = b'{"prompt": "a", "completion": "b"}'
    records, _, _ = read(line, line, field_mapping={"prompt": "completion", "completion": "prompt"})
    assert records == [Example((Turn("user", "b"), Turn("assistant", "a")))] * 2


TURNS: list[Json] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("value", "code", "field"),
    [
        ({"prompt": "a"}, "missing_field", "completion"),
        ({"prompt": "a", "completion": 1}, "wrong_type", "completion"),
        ({"prompt": "a", "completion": None}, "wrong_type", "completion"),
        ({"input": ["a"]}, "wrong_type", "input"),
        ({"messages": "a"}, "wrong_type", "messages"),
        ({"messages": ["a"]}, "wrong_type", "messages[0]"),
        ({"messages": [{"role": "user"}]}, "missing_field", "messages[0].content"),
        ({"messages": [{"content": "a"}]}, "missing_field", "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "wrong_type", "messages[0].content"),
        ({"messages": TURNS, "tools": [{"type": "function"}]}, "tools", "tools"),
        ({"messages": [*TURNS, {"role": "tool", "content": "x"}]}, "tools", "messages[2]"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "tools", "messages[0]"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": "b", "weight": 0}]}, "weight", "messages[1].weight"),
        (
            {"messages": [{"role": "user", "content": [{"image": {"format": "png"}}]}]},
            "media",
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "media",
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"reasoningContent": {}}]}]},
            "reasoning",
            "messages[0].content[0]",
        ),
        ({"messages": [{"role": "user", "content": [{"toolResult": {}}]}]}, "tools", "messages[0].content[0]"),
        ({"schemaVersion": "x", "messages": TURNS}, "wrong_type", "messages[0].content"),
        ({"system": 1, "messages": TURNS}, "wrong_type", "system"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_field(value: JsonObject, code: str, field: str) -> None:
    _, problems = read_object(value)
    assert (code, 1, field) in [(problem.code, problem.line, problem.field) for problem in problems]
    assert any(problem.severity == "error" for problem in problems)


def test_a_key_that_no_format_knows_is_warned_of_on_any_line() -> None:
    records, problems, _ = read(
        b'{"prompt": "a", "completion": "b"}', b'{"prompt": "a", "completion": "b", "id": 7, "note": null}'
    )
    assert len(records) == 2
    assert [(problem.code, problem.line, problem.field) for problem in problems] == [
        ("extra_field", 2, "id"),
        ("extra_field", 2, "note"),
    ]


def test_a_category_that_is_no_string_is_not_used() -> None:
    records, problems = read_object({"prompt": "a", "completion": "b", "category": 3})
    assert [record.category for record in records if isinstance(record, Example)] == [""]
    assert [(problem.code, problem.found) for problem in problems] == [("category_ignored", "a number")]


def test_several_text_blocks_are_joined_and_a_foreign_schema_version_is_noted() -> None:
    blocks: Json = [{"text": "a"}, {"text": "b"}]
    answer: Json = {"role": "assistant", "content": [{"text": "c"}]}
    question: Json = {"role": "user", "content": blocks}
    value: JsonObject = {"schemaVersion": "tooluse-dataset-2024", "messages": [question, answer]}
    records, problems = read_object(value)
    assert records == [Example((Turn("user", "a\nb"), Turn("assistant", "c")))]
    assert {problem.code for problem in problems} == {"joined_blocks", "schema_version"}


@given(single_turns, st.sampled_from([PROMPT_COMPLETION, CLAUDE_MESSAGES, CONVERSATION]))
def test_a_single_turn_survives_every_format(turns: tuple[Turn, ...], target: str) -> None:
    example = Example(turns)
    records, problems, found = read(ENCODERS[target](example))
    assert (records, problems) == ([example], [])
    assert found in (target, "messages")


@given(conversations, texts, st.sampled_from([CLAUDE_MESSAGES, CONVERSATION]))
def test_a_conversation_with_a_system_prompt_survives_the_message_formats(
    turns: tuple[Turn, ...], system: str, target: str
) -> None:
    example = Example(turns, system)
    assert read(ENCODERS[target](example))[:2] == ([example], [])


@given(texts)
def test_raw_text_survives(text: str) -> None:
    assert read(ENCODERS[INPUT_ONLY](RawText(text)))[:2] == ([RawText(text)], [])


def test_a_category_stays_out_of_training_files_and_of_the_digest() -> None:
    labelled = Example(GREETING.turns, GREETING.system, "挨拶")
    for encode in (ENCODERS[PROMPT_COMPLETION], ENCODERS[CLAUDE_MESSAGES], ENCODERS[CONVERSATION]):
        assert encode(labelled) == encode(GREETING)
    assert digest_of(labelled) == digest_of(GREETING)
    assert as_test_record(labelled).category == "挨拶"


def test_a_system_prompt_goes_before_the_prompt_in_training_as_when_asking() -> None:
    line = msgspec.json.decode(ENCODERS[PROMPT_COMPLETION](GREETING), type=dict[str, str])
    record = as_test_record(GREETING)
    assert line["prompt"] == prompt_of(record.turns, record.system) == "丁寧に答える\n\nこんにちは"


@pytest.mark.parametrize(
    ("target", "record"),
    [
        (PROMPT_COMPLETION, Example(GREETING.turns * 2)),
        (PROMPT_COMPLETION, RawText("a")),
        (CONVERSATION, RawText("a")),
        (CLAUDE_MESSAGES, RawText("a")),
        (INPUT_ONLY, GREETING),
    ],
)
def test_a_conversion_that_would_lose_something_is_refused(target: str, record: Record) -> None:
    with pytest.raises(InvalidDataset):
        ENCODERS[target](record)


@given(conversations, conversations)
def test_digests_tell_records_apart(one: tuple[Turn, ...], other: tuple[Turn, ...]) -> None:
    assert (digest_of(Example(one)) == digest_of(Example(other))) == (one == other)


def test_text_that_moves_between_turns_or_into_the_system_prompt_changes_the_digest() -> None:
    turns = (Turn("user", "ab"), Turn("assistant", "c"))
    others = [
        Example((Turn("user", "a"), Turn("assistant", "bc"))),
        Example((Turn("user", "b"), Turn("assistant", "c")), system="a"),
    ]
    assert digest_of(Example(turns)) not in {digest_of(other) for other in others}


@given(st.lists(st.binary(max_size=30), max_size=8), st.integers(1, 9), st.integers(1, 12))
def test_lines_do_not_depend_on_how_the_stream_is_cut(parts: list[bytes], size: int, limit: int) -> None:
    content = b"\n".join(parts)
    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    whole = [line[: limit + 1] for line in content.split(b"\n")]
    cut = [line.removesuffix(b"\n") for line in split_lines(chunks, limit)]
    assert [line[: limit + 1] for line in cut] == (whole if whole[-1] else whole[:-1])
    assert all(len(line) <= max(limit + 1, size) for line in cut)
