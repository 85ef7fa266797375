"""docs/data-formats.md says what the code does: its examples, verdicts, limits and options are run or compared."""

import gzip
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from customization.catalogue import CONTINUED_PRE_TRAINING, FINE_TUNING, Limits, load_catalogue
from customization.formats import PROMPT_COMPLETION
from customization.json_types import JsonObject
from customization.problems import InvalidDataset, Problem, Problems, load_rules
from customization.records import RecordReader
from customization.validate import main
from tests.unit.data_files import NOVA_MICRO, Content, conversation, json_lines, pairs, prepare

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "data-formats.md").read_text()
GOOD = json_lines(pairs(60))
FIRST = b'{"prompt": "a question", "completion": "an answer"}\n'


def after(mark: str) -> str:
    return TEXT.partition(f"<!-- {mark}")[2].partition("-->")[2]


def table_rows(mark: str) -> list[list[str]]:
    """Return the cells of the first table after the mark, without its head."""
    lines = [line for line in after(mark).partition("\n\n")[0].strip().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def answered(answer: str, prompt: str = "a question") -> Content:
    return [*pairs(60), {"prompt": prompt, "completion": answer}]


def blocks(*more: JsonObject, version: str = "bedrock-conversation-2024") -> Content:
    return [
        {
            "schemaVersion": version,
            "messages": [
                {"role": "user", "content": [{"text": f"question {number}"}]},
                {"role": "assistant", "content": [{"text": f"answer {number}"}, *more]},
            ],
        }
        for number in range(60)
    ]


def messages(*turns: JsonObject) -> Content:
    return [{"messages": [*turns]}, conversation("a question", "an answer")]


ASKED: JsonObject = {"role": "user", "content": "a question"}
CALLED: JsonObject = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}
TEST_FILE = pairs(40)
LONG = "How can I return the blue jacket that I ordered last week, which is one size too small for me?"

# What each row of the table of verdicts is tried with: the training file, which is for Nova Micro
FILES: dict[str, Callable[[], Content]] = {
    "no line end after the last line": GOOD.rstrip,
    "U+2028 and U+2029 inside a text": lambda: answered("one\u2028two\u2029three"),
    r"characters written as `\u` escapes, also in pairs": lambda: (
        GOOD + FIRST.replace(b"answer", rb"\u611f\ud83d\ude00")
    ),
    "a byte order mark of UTF-8": lambda: b"\xef\xbb\xbf" + GOOD,
    "CR LF line ends": lambda: GOOD.replace(b"\n", b"\r\n"),
    "blank lines": lambda: GOOD.replace(b"\n", b"\n\n \t\n"),
    "a foreign schemaVersion": lambda: blocks(version="v1"),
    "several text blocks in a message": lambda: blocks({"text": "and more"}),
    "keys that the format does not have": lambda: [{**record, "id": 1} for record in pairs(60)],
    "repeated records": lambda: [*pairs(60), *pairs(3)],
    "records that a test file has too": lambda: [*pairs(60, 1_000), *TEST_FILE[:2]],
    "prompts that a test file has too, with another completion": lambda: [
        *pairs(60, 1_000),
        {**TEST_FILE[0], "completion": "another answer"},
    ],
    "completions of very few characters": lambda: [{**record, "completion": "ok"} for record in pairs(60)],
    "one completion that is 90 % of the data": lambda: [
        *({**record, "completion": "yes, of course"} for record in pairs(600)),
        *pairs(20),
    ],
    "end-of-text markers in completions": lambda: answered("an answer<|im_end|>"),
    "a reserved word in an answer": lambda: answered("Bot: an answer"),
    "an e-mail address": lambda: answered("write to jane.doe@shop-of-jane.com"),
    "a telephone number": lambda: answered("090-1234-5678 に電話してください"),
    "a number of a payment card": lambda: answered("it was 4111 1111 1111 1111 all right"),
    "a Japanese My Number": lambda: answered("マイナンバーは 1234 5678 9018 です"),
    "records that nearly repeat one another": lambda: [
        {"prompt": f"{LONG} {number}", "completion": f"{LONG} {number}"} for number in range(100, 160)
    ],
    "the same prompts again and again": lambda: [
        {**record, "prompt": f"question {number % 20}"} for number, record in enumerate(pairs(60))
    ],
    "fewer records than are recommended": lambda: pairs(60),
    "a line end of CR alone": lambda: GOOD.replace(b"\n", b"\r"),
    "bytes that are not UTF-8": lambda: GOOD + FIRST.replace(b"answer", b"\xff\xfe"),
    "Shift_JIS": lambda: '{"prompt": "表を作成して", "completion": "ソースを見てください"}\n'.encode("cp932"),
    "EUC-JP": lambda: '{"prompt": "表を作成して", "completion": "ソースを見てください"}\n'.encode("euc_jp"),
    "UTF-16 with a byte order mark": lambda: GOOD.decode().encode("utf-16"),
    "UTF-16 without a byte order mark": lambda: GOOD.decode().encode("utf-16-be"),
    "gzip under a .jsonl name": lambda: gzip.compress(GOOD),
    "a JSON array instead of lines": lambda: b"[" + GOOD.rstrip().replace(b"\n", b",\n") + b"]",
    "a record over several lines": lambda: b'{"prompt": "a question",\n "completion": "an answer"}\n',
    "a table (CSV or TSV)": lambda: b"prompt,completion\na question,an answer\n",
    "an empty file": lambda: b"",
    "only blank lines": lambda: b"\n\r\n \n",
    "NaN": lambda: GOOD + b'{"prompt": "a question", "completion": NaN}\n',
    "Infinity": lambda: GOOD + b'{"prompt": "a question", "completion": "an answer", "score": -Infinity}\n',
    "a line that was cut off": lambda: GOOD[:-20],
    "a line that is no object": lambda: GOOD + b'"a question"\n',
    "a key twice in an object": lambda: GOOD + FIRST.replace(b"{", b'{"prompt": "another", '),
    "half of a surrogate pair": lambda: GOOD + FIRST.replace(b"answer", rb"\ud83d"),
    "the byte NUL": lambda: GOOD + FIRST.replace(b"answer", b"\0"),
    "an escaped NUL": lambda: GOOD + FIRST.replace(b"answer", rb"\u0000"),
    "a line of 20 MB": lambda: GOOD + FIRST.replace(b"answer", b"a" * 20_000_000),
    "values nested 100,000 deep": lambda: GOOD + b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "keys of no known format": lambda: [{"a": "b"}],
    "records of two formats": lambda: [*pairs(60), conversation("a question", "an answer")],
    "a missing field": lambda: [*pairs(60), {"prompt": "a question"}],
    "a number for a text": lambda: [*pairs(60), {"prompt": "a question", "completion": 7}],
    "an empty text": lambda: answered(""),
    "a text of white space": lambda: answered("\u3000\n"),
    "roles out of order": lambda: messages(ASKED, ASKED),
    "`content: null` beside tool calls": lambda: messages(ASKED, CALLED),
    "an image": lambda: blocks({"image": {"format": "png"}}),
    "a reserved word in a prompt for Nova": lambda: answered("an answer", "what is [EOS] for?"),
    "fewer records than the base model takes": lambda: pairs(3),
    "more records than the base model takes": lambda: pairs(26_000),
    "a record that is too long for the base model": lambda: answered("word " * 40_000),
}
ROWS = table_rows("verdicts")
# What is said of all small files of made-up records
COMMON = {"`few_records`", "`few_test_records`", "`no_split`", "`similar_records`", "`unlike_training`"}


def outcome(name: str) -> tuple[str, list[Problem]]:
    """Return the verdict on a row's file and the problems that decide it."""
    files: dict[str, Content] = {"train": FILES[name]()}
    if "test file" in name:
        files["test"] = TEST_FILE
    try:
        profile = prepare(files).profile
    except InvalidDataset as refusal:
        return "refused", [problem for problem in refusal.problems if problem.severity == "error"]
    others = COMMON - {code for row, _, code in ROWS if row == name}
    warnings = [problem for problem in profile.warnings if f"`{problem.code}`" not in others]
    notes = [problem for problem in profile.notes if f"`{problem.code}`" not in others]
    return "warned" if warnings else "repaired" if notes else "accepted", warnings or notes


def test_the_table_of_verdicts_and_the_files_that_it_is_tried_with_have_the_same_rows() -> None:
    assert [row[0] for row in ROWS] == list(FILES)


@pytest.mark.parametrize(("name", "verdict", "code"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_of_the_table_of_verdicts_is_what_happens(name: str, verdict: str, code: str) -> None:
    found, problems = outcome(name)
    assert found == verdict, problems
    codes = {problem.code for problem in problems}
    assert code.strip("`") in codes if code else not codes
    if verdict == "refused":
        assert codes == {code.strip("`")}
    assert all(len(problem.text()) < 600 for problem in problems)


def test_shift_jis_and_euc_jp_are_called_by_their_names() -> None:
    assert "Shift_JIS" in outcome("Shift_JIS")[1][0].found
    assert "EUC-JP" in outcome("EUC-JP")[1][0].found


def examples() -> Iterator[tuple[str, str]]:
    formats = TEXT.partition("## What is done")[0]
    for name, section in re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", formats, re.MULTILINE | re.DOTALL):
        for block in re.findall(r"```json\n(.*?)```", section, re.DOTALL):
            yield name, block


@pytest.mark.parametrize(("name", "block"), list(examples()))
def test_an_example_of_a_format_is_read_as_that_format_without_a_word(name: str, block: str) -> None:
    problems = Problems()
    reader = RecordReader("train.jsonl", problems)
    read = list(reader.records(line.encode() + b"\n" for line in block.splitlines()))
    assert len(read) == len(block.splitlines())
    assert reader.format == name
    assert problems.of("error", "warning", "note") == []


def test_the_formats_that_base_models_take_are_described_with_the_models() -> None:
    taken: dict[str, set[str]] = {}
    for model in load_catalogue().text_models():
        for kind in model.supported_types:
            taken.setdefault(model.training_format[kind], set()).add(model.name.replace(" G1 -", "").split(" 8B")[0])
    described = dict(re.findall(r"^### (\S+)\n\n(.*?)$", TEXT, re.MULTILINE))
    assert set(taken) | {"openai_chat"} == set(described)
    families = {
        "Titan Text": PROMPT_COMPLETION,
        "Nova": "bedrock-conversation-2024",
        "Claude 3 Haiku": "claude_messages",
    }
    for family, name in families.items():
        assert family in described[name]
        assert any(model.startswith(family) for model in taken[name])


def amounts(least: int | None, most: int | None) -> str:
    if least is None:
        return f"≤ {most:,}" if most is not None else ""
    return f"{least:,} to {most:,}" if most is not None else f"≥ {least:,}"


def tokens(limits: Limits) -> str:
    if limits.max_prompt_tokens:
        return f"prompt {limits.max_prompt_tokens:,}, completion {limits.max_completion_tokens:,}"
    least, parts = 1, []
    for upper, most in limits.tokens_by_batch_size:
        if upper is None and least == 1:
            return f"{most:,}"
        sizes = f"{least} and more" if upper is None else str(upper) if upper == least else f"{least}-{upper}"
        parts.append(f"{most:,} (batchSize {sizes})")
        least = (upper or 0) + 1
    return ", ".join(parts)


def file_sizes(limits: Limits) -> str:
    sizes = [(limits.max_training_bytes, "training"), (limits.max_validation_bytes, "validation")]
    return ", ".join(f"{size // 1_000_000:,} MB {use}" for size, use in sizes if size)


def limits_table() -> list[list[str]]:
    """Return the rows that the table of limits must have; models with the same limits share one."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for model in load_catalogue().text_models():
        for kind in model.supported_types:
            limits = model.limits[kind]
            words = " ".join(f"`{word}`" for word in limits.reserved_words)
            cells = (
                "fine-tuning" if kind == FINE_TUNING else "continued pre-training",
                f"[{model.training_format[kind]}](#{model.training_format[kind]})",
                amounts(limits.min_training_records, limits.max_training_records),
                amounts(limits.min_validation_records, limits.max_validation_records),
                amounts(limits.min_total_records, limits.max_total_records),
                tokens(limits),
                file_sizes(limits),
                words,
            )
            rows.setdefault(cells, []).append(model.name)
    return [[", ".join(names), *cells] for cells, names in rows.items()]


def test_the_table_of_limits_is_what_the_catalogue_holds() -> None:
    expected = limits_table()
    assert table_rows("limits") == expected, "\n".join(f"| {' | '.join(row)} |" for row in expected)


def test_the_recommended_amounts_and_doubtful_words_are_those_of_the_catalogue() -> None:
    text = after("limits")
    for model in load_catalogue().text_models():
        for kind in model.supported_types:
            limits = model.limits[kind]
            amount = limits.recommended_training_tokens if kind == CONTINUED_PRE_TRAINING else None
            assert f"{amount or limits.recommended_training_records:,}" in text
            assert all(f"`{word}`" in text for word in limits.doubtful_words)


def test_every_code_that_is_named_exists() -> None:
    named = {row[2].strip("`") for row in ROWS if row[2]}
    assert named <= set(load_rules())


def test_the_options_of_the_command_are_all_described(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    options = set(re.findall(r"(--[a-z-]+)", capsys.readouterr().out)) - {"--help"}
    assert options <= set(re.findall(r"(--[a-z-]+)", TEXT.partition("## Check files")[2]))
    assert NOVA_MICRO in TEXT
