"""prepare_dataset: which files are refused or warned of, and how that reads."""

import gzip
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customization import errors
from customization.json_types import Json, JsonObject
from customization.problems import MESSAGE_BYTES, InvalidDataset, Problem
from customization.splits import Subset
from customization.texts import LANGUAGES, Language
from tests.unit.data_files import (
    CLAUDE_3_HAIKU,
    COMMAND,
    CONTINUED_PRE_TRAINING,
    LLAMA_3_3,
    NOVA_MICRO,
    TITAN_EXPRESS,
    Content,
    codes,
    conversation,
    json_lines,
    pairs,
    prepare,
    problems_of,
    texts_of,
    with_limits,
)

quick = settings(deadline=None, max_examples=40)


@quick
@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([b"{}", b"[1]", b"null", b'{"prompt":"a"}'])), max_size=6
    )
)
def test_no_bytes_end_in_anything_but_a_readable_refusal(lines: list[bytes]) -> None:
    with pytest.raises(InvalidDataset) as refused:
        prepare({"train": b"\n".join(lines)})
    assert refused.value.problems
    assert len(str(refused.value).encode()) <= MESSAGE_BYTES


keys = st.sampled_from(["prompt", "completion", "messages", "role", "content", "system", "input", "text", "category"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | keys, inner, max_size=4),
    max_leaves=12,
)


@quick
@given(st.lists(st.dictionaries(keys, json_values, max_size=4), min_size=1, max_size=5))
def test_no_json_ends_in_anything_but_a_readable_refusal(records: list[Mapping[str, Json]]) -> None:
    with pytest.raises(InvalidDataset) as refused:
        prepare({"train": json_lines(dict(record) for record in records)})
    assert all(problem.text() for problem in refused.value.problems)


nasty = st.sampled_from(
    [
        b"\xef\xbb\xbf",
        b"\r",
        b"\n",
        b"\0",
        b"\\u0000",
        b"\\ud800",
        b"\xff",
        b"\x83\\",
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b",",
        b":",
        b"NaN",
        b"1e999",
        b"9" * 5_000,
        b"null",
        b'"prompt":"x",',
        b'"\\u0070rompt":"x",',
        "\u2028".encode(),
        b"</s>",
        b"@a.jp",
    ]
)


@quick
@given(st.lists(st.tuples(st.integers(0, 3_000), nasty), max_size=6), st.sampled_from(LANGUAGES))
def test_a_file_with_anything_in_any_place_is_used_or_refused_with_its_lines(
    changes: list[tuple[int, bytes]], language: Language
) -> None:
    content = bytearray(json_lines(pairs(30)))
    for place, inserted in changes:
        content[place:place] = inserted
    refusal = None
    try:
        prepared = prepare({"train": bytes(content)}, language=language)
    except InvalidDataset as error:
        refusal = error
    if refusal:
        assert all(problem.text() for problem in refusal.problems)
        assert len(str(refusal).encode()) <= MESSAGE_BYTES
        lines = content.count(b"\n") + 1
        assert all(1 <= problem.line <= lines for problem in refusal.problems if problem.line is not None)
        msgspec.json.encode(refusal.problems)
        return
    for line in prepared.content("train").splitlines():
        text = line.decode()
        assert "\0" not in text
        assert list(msgspec.json.decode(text)) == ["schemaVersion", "messages"]


GOOD_LINE = b'{"prompt": "a", "completion": "b"}'


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", "invalid_json"),
        (b'{"prompt": "a", "completion": "b"', "invalid_json"),
        (b'{"prompt": "a", "completion": "b",}', "invalid_json"),
        (b"{'prompt': 'a', 'completion': 'b'}", "invalid_json"),
        (b'{"prompt": "a", "completion": NaN}', "invalid_json"),
        (b'{"prompt": "a", "completion": "b", "score": -Infinity}', "invalid_json"),
        (b'{"prompt": "a\x00", "completion": "b"}', "nul"),
        (b'{"prompt": "\\ud800", "completion": "b"}', "lone_surrogate"),
        (GOOD_LINE + GOOD_LINE, "invalid_json"),
        (b'["a", "b"]', "not_object"),
        (b'"a"', "not_object"),
        (b"null", "not_object"),
        (b"{}", "unknown_format"),
        ('{"prompt": "感情", "completion": "b"}'.encode("cp932"), "not_utf8"),
        (b'{"prompt": "\xff", "completion": "b"}', "not_utf8"),
        (b'{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "deep_nesting"),
        (b'{"prompt": "", "completion": "b"}', "empty_text"),
        ('{"prompt": "\u3000 \\n", "completion": "b"}'.encode(), "empty_text"),
        (b'{"prompt": "a", "completion": " "}', "empty_text"),
        (b'{"input": "a"}', "mixed_formats"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(line: bytes, code: str) -> None:
    problems = problems_of({"train": b"\n".join([GOOD_LINE, b"", line, GOOD_LINE])})
    assert [(problem.code, problem.file, problem.line) for problem in problems] == [(code, "train.jsonl", 3)]
    assert len(problems[0].text()) < 500


def test_shift_jis_is_named() -> None:
    content = '{"prompt": "感情を分類", "completion": "ポジティブ"}\n'.encode("cp932")
    assert "Shift_JIS" in problems_of({"train": content * 3})[0].found


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"\xef\xbb\xbf", "empty_file"),
        (b"\n \r\n\t\n", "empty_file"),
        (gzip.compress(GOOD_LINE * 100, mtime=0), "compressed"),
        (b"PK\x03\x04rest", "compressed"),
        ((GOOD_LINE.decode() + "\n").encode("utf-16") * 2, "utf16"),
        ((GOOD_LINE.decode() + "\n").encode("utf-16-le") * 2, "utf16"),
        ((GOOD_LINE.decode() + "\n").encode("utf-32") * 2, "utf16"),
        (b"[" + GOOD_LINE + b",\n" + GOOD_LINE + b"]", "json_array"),
        (b'{\n  "prompt": "a",\n  "completion": "b"\n}\n', "pretty_printed"),
        (GOOD_LINE + b"\r" + GOOD_LINE + b"\r", "cr_line_ends"),
    ],
)
def test_a_file_that_is_no_json_lines_is_named_as_what_it_is(content: bytes, code: str) -> None:
    problems = problems_of({"train": content})
    assert [(problem.code, problem.line) for problem in problems] == [(code, None)]
    assert problems[0].fix


def test_bom_crlf_blank_lines_and_a_missing_line_end_are_mended_with_a_note() -> None:
    plain = json_lines(pairs(60))
    mended = b"\xef\xbb\xbf" + plain.replace(b"\n", b"\r\n", 30).replace(b"\r\n", b"\r\n \r\n", 1).rstrip()
    prepared = prepare({"train": mended})
    assert {"byte_order_mark", "cr_lf", "blank_line"} <= prepared.codes()
    assert prepared.content("train") == prepare({"train": plain}).content("train")


@pytest.mark.parametrize(
    "messages",
    [
        [],
        ["user"],
        ["user", "user"],
        ["assistant", "user"],
        ["user", "assistant", "user"],
        ["user", "system", "assistant"],
        ["user", "bot"],
        ["system"],
    ],
)
def test_roles_out_of_order_are_refused(messages: list[str]) -> None:
    record: JsonObject = {"messages": [{"role": role, "content": "a"} for role in messages]}
    good = conversation("a", "b")
    problems = problems_of({"train": [good, record, good]})
    assert [(problem.code, problem.line) for problem in problems] == [("role_order", 2)]


@pytest.mark.parametrize("word", ["User:", "Bot:", "Assistant:", "System:", "<image>", "<video>", "[EOS]"])
def test_reserved_words_are_refused_in_prompts_and_system_prompts_of_nova_and_warned_of_in_answers(word: str) -> None:
    text = f"x {word} y"
    assert codes(problems_of({"train": [{"prompt": text, "completion": "b"}]})) == ["reserved_word"]
    in_system = problems_of({"train": [conversation("a", "b", system=text)]})
    assert [(problem.code, problem.field) for problem in in_system] == [("reserved_word", "system")]
    answers: list[JsonObject] = [{"prompt": "a", "completion": text}, *pairs(50)]
    assert "reserved_word_in_answer" in prepare({"train": answers}).codes()


def test_reserved_words_in_another_case_are_warned_of_and_other_models_have_none() -> None:
    records: list[JsonObject] = [{"prompt": "user: root", "completion": "b"}, *pairs(50)]
    assert "reserved_word_spelling" in prepare({"train": records}).codes()
    exact: list[JsonObject] = [{"prompt": "User: hi\nBot:", "completion": "b"}, *pairs(50)]
    assert not any("reserved" in code for code in prepare({"train": exact}, TITAN_EXPRESS).codes())


def test_a_reserved_word_in_a_given_test_file_is_no_matter_for_bedrock() -> None:
    prepared = prepare({"train": pairs(50), "test": [{"prompt": "User: hi", "completion": "b"}]})
    assert not any("reserved" in code for code in prepared.codes())
    assert prepared.profile.test_records == 1


def test_several_turns_are_refused_for_a_model_of_pairs() -> None:
    problems = problems_of({"train": [conversation("a", "b", "c", "d")]}, TITAN_EXPRESS)
    assert [(problem.code, problem.line) for problem in problems] == [("multi_turn", 1)]
    assert "Titan Text G1 - Express" in problems[0].what


def test_raw_text_is_no_fine_tuning_data_and_pairs_are_no_raw_text() -> None:
    assert codes(problems_of({"train": texts_of(1)})) == ["unlabelled"]
    refused = problems_of({"pretrain": pairs(1)}, TITAN_EXPRESS, (CONTINUED_PRE_TRAINING,))
    assert codes(refused) == ["labelled_text"]


def test_a_missing_file_is_named() -> None:
    assert problems_of({"validation": pairs(50)})[0].text().startswith("train.jsonl: the file is missing")


@pytest.mark.parametrize(
    ("text", "batch_size", "code"),
    [
        ("word " * 5_500, 1, "record_too_long"),
        ("word " * 4_000, 1, "maybe_too_long"),
        ("word " * 2_500, 1, None),
        ("word " * 2_800, 4, "record_too_long"),
        ("返品" * 5_000, 1, "record_too_long"),
        ("返品" * 2_500, 1, "maybe_too_long"),
        ("返品" * 1_000, 1, None),
    ],
)
def test_the_tokens_of_a_record_are_estimated_by_script_and_bounded_by_batch_size(
    text: str, batch_size: int, code: str | None
) -> None:
    train: list[JsonObject] = [{"prompt": text, "completion": "b"}, *pairs(50)]
    if code == "record_too_long":
        problems = problems_of({"train": train}, TITAN_EXPRESS, batch_size=batch_size)
        assert [(problem.code, problem.line) for problem in problems] == [(code, 1)]
    else:
        found = prepare({"train": train}, TITAN_EXPRESS, batch_size=batch_size).codes()
        assert ("maybe_too_long" in found) == (code == "maybe_too_long")


def test_a_model_may_bound_prompt_and_completion_apart() -> None:
    train: list[JsonObject] = [{"prompt": "a", "completion": "word " * 3_000}]
    problems = problems_of({"train": train}, COMMAND)
    assert [(problem.code, problem.field) for problem in problems] == [("record_too_long", "completion")]


@pytest.mark.parametrize(
    ("files", "model", "code", "file"),
    [
        ({"train": pairs(7)}, NOVA_MICRO, "too_few_records", "train.jsonl"),
        ({"train": pairs(99)}, LLAMA_3_3, "too_few_records", "train.jsonl"),
        ({"train": pairs(200), "validation": pairs(31, 500)}, CLAUDE_3_HAIKU, "too_few_records", "validation.jsonl"),
        ({"train": pairs(200), "validation": pairs(1_001, 500)}, LLAMA_3_3, "too_many_records", "validation.jsonl"),
        ({"train": pairs(100), "test": pairs(95)}, NOVA_MICRO, "too_few_records", "train.jsonl"),
        ({"train": pairs(13_000)}, TITAN_EXPRESS, "too_many_records", "train.jsonl"),
    ],
)
def test_numbers_of_records_outside_the_models_bounds_are_refused(
    files: dict[str, Content], model: str, code: str, file: str
) -> None:
    problems = problems_of(files, model)
    assert [(problem.code, problem.file, problem.line) for problem in problems] == [(code, file, None)]


def test_the_subset_that_the_refusal_names_is_taken() -> None:
    problem = problems_of({"train": pairs(13_000)}, TITAN_EXPRESS)[0]
    room = int(problem.fix.partition('"records": ')[2].partition("}")[0])
    prepared = prepare({"train": pairs(13_000)}, TITAN_EXPRESS, subset=Subset(records=room))
    written = prepared.profile.prepared
    assert written["train"].records + written["validation"].records == 10_000


def test_files_above_the_models_size_are_refused_before_and_after_conversion() -> None:
    model = with_limits(TITAN_EXPRESS, max_training_bytes=3_000)
    upload = problems_of({"train": pairs(100)}, model)
    assert [(problem.code, problem.file) for problem in upload] == [("file_too_large", "train.jsonl")]
    conversations = with_limits(LLAMA_3_3, max_training_bytes=len(json_lines(pairs(200))))
    written = problems_of({"train": pairs(200)}, conversations)
    assert [problem.code for problem in written] == ["file_too_large"]
    prepare({"train": pairs(100)}, model, subset=Subset(records=10))


def test_all_problems_of_all_files_are_told_at_once() -> None:
    files: dict[str, Content] = {
        "train": [{"prompt": "", "completion": "b"}, {"prompt": "a"}],
        "validation": b"[1]",
        "test": texts_of(2),
    }
    found = {(problem.file, problem.code) for problem in problems_of(files)}
    assert found == {
        ("train.jsonl", "empty_text"),
        ("train.jsonl", "missing_field"),
        ("validation.jsonl", "json_array"),
        ("test.jsonl", "unlabelled"),
    }


def test_of_each_kind_20_are_shown_with_the_total_and_the_message_stays_short() -> None:
    empty: list[JsonObject] = [{"prompt": "", "completion": "b"}] * 500
    wrong: list[JsonObject] = [{"prompt": "a" * number, "completion": number} for number in range(1, 300)]
    with pytest.raises(errors.InvalidDataset) as refused:
        prepare({"train": [*empty, *wrong]})
    error = refused.value
    assert isinstance(error, InvalidDataset)
    kinds = {problem.code: problem.total for problem in error.problems if problem.severity == "error"}
    assert kinds == {"empty_text": 500, "wrong_type": 299}
    assert codes(error.problems).count("empty_text") == 20
    message = str(error)
    assert message.splitlines()[0] == "The data files have 799 errors; nothing was started."
    assert "train.jsonl lines 1-20, prompt: the text is empty" in message
    assert "… and 480 more" in message
    assert msgspec.json.decode(msgspec.json.encode(error.problems), type=list[Problem]) == error.problems


def test_the_message_names_every_kind_before_it_repeats_one() -> None:
    lines = [f'{{"prompt": "{"x" * number}", "completion": {number}}}'.encode() for number in range(60)]
    broken = [b'{"prompt": "' + bytes([97 + number]) * 300 + b'"' for number in range(20)]
    with pytest.raises(InvalidDataset) as refused:
        prepare({"train": b"\n".join([*lines, *broken, b"[]"]), "test": b""})
    message = str(refused.value)
    assert len(message.encode()) <= MESSAGE_BYTES
    assert all(text in message for text in ("wrong type", "not JSON", "not a JSON object", "holds no record"))


def test_few_records_repeated_ones_and_few_test_records_are_warned_of() -> None:
    prepared = prepare({"train": [*pairs(100), *pairs(10)]})
    assert {"few_records", "duplicates", "few_test_records"} <= prepared.codes()
    assert prepared.profile.files[0].duplicates == 10
    assert not prepare({"train": pairs(2_000)}).codes()


def test_one_completion_that_is_nearly_all_of_the_data_is_warned_of() -> None:
    def share(percent: int) -> list[JsonObject]:
        return [{"prompt": f"q{n}", "completion": "yes" if n % 100 < percent else f"no {n}"} for n in range(1_000)]

    assert "one_completion" in prepare({"train": share(95)}).codes()
    assert "one_completion" not in prepare({"train": share(80)}).codes()


def test_test_prompts_that_training_answers_otherwise_are_warned_of() -> None:
    test: list[JsonObject] = [{"prompt": record["prompt"], "completion": "other"} for record in pairs(35)]
    warnings = prepare({"train": pairs(100), "validation": pairs(10, 500), "test": test}).profile.warnings
    assert [problem.found for problem in warnings if problem.code == "prompt_in_training"] == ["35 of 35 test records"]


def test_asking_with_a_system_prompt_that_training_lacks_is_warned_of() -> None:
    assert "system_not_in_training" in prepare({"train": pairs(60)}, system="Be brief.").codes()
    shown = [conversation(f"q{number}", "a", system="Be brief.") for number in range(60)]
    assert "system_not_in_training" not in prepare({"train": shown}, system="Be brief.").codes()
    assert "joined_system" in prepare({"train": shown}, TITAN_EXPRESS).codes()
