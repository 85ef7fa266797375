"""Tables become train.jsonl by a command, and every mistake is named by line and column."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from customization.problems import Problems
from customization.records import RecordReader
from customization.tabular import MISTAKES, WRITTEN, WRONG_USE, main
from tests.unit.data_files import json_lines

LAMBDA = Path(__file__).parents[2] / "lambda"


class Run:
    """The outcome of one call of the command in a folder of its own."""

    def __init__(self, code: int, told: str, out: Path) -> None:
        self.code = code
        self.told = told
        self.out = out

    def records(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.out.read_bytes().splitlines()]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator["Runner"]:
    limit = csv.field_size_limit()
    yield Runner(tmp_path, capsys)
    csv.field_size_limit(limit)  # it is the process's, and the command is a process of its own


class Runner:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.out = folder / "train.jsonl"
        self._capsys = capsys

    def __call__(self, content: str | bytes, *options: str, name: str = "data.csv") -> Run:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        code = main([str(path), "--out", str(self.out), *options])
        captured = self._capsys.readouterr()
        return Run(code, captured.out + captured.err, self.out)


QUESTIONS = "質問,回答\n返品したい,承知しました\n送料は,無料です\n"
ANSWERS = [
    {"prompt": "返品したい", "completion": "承知しました"},
    {"prompt": "送料は", "completion": "無料です"},
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932"])
@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_table_of_any_encoding_separator_and_line_end_is_read(
    run: Runner, encoding: str, name: str, delimiter: str, line_end: str
) -> None:
    content = QUESTIONS.replace(",", delimiter).replace("\n", line_end).encode(encoding)
    done = run(content, name=name)
    assert (done.code, done.records()) == (WRITTEN, ANSWERS)
    assert ("CP932" if encoding == "cp932" else "UTF-8") in done.told
    assert "質問 → prompt, 回答 → completion" in done.told


def test_a_tab_file_keeps_its_commas(run: Runner) -> None:
    done = run("prompt\tcompletion\na,b,c\td\n", name="a.tsv")
    assert done.records() == [{"prompt": "a,b,c", "completion": "d"}]


def test_quoted_cells_hold_separators_quotes_and_line_breaks(run: Runner) -> None:
    done = run('prompt,completion\n"a, ""b""\nc","d\r\ne"\n')
    assert done.records() == [{"prompt": 'a, "b"\nc', "completion": "d\r\ne"}]


@pytest.mark.parametrize(
    ("header", "options", "record"),
    [
        ("Prompt,Completion", (), {"prompt": "1", "completion": "2"}),
        ("input,output", (), {"prompt": "1", "completion": "2"}),
        ("input,instruction,output", (), {"prompt": "2\n\n1", "completion": "3"}),
        ("prompt,completion,system,category", (), {"prompt": "1", "completion": "2", "system": "3", "category": "4"}),
        ("text,id", (), {"input": "1"}),
        ("a=b,c", ("--mapping", "a=b=prompt, c=completion"), {"prompt": "1", "completion": "2"}),
        ("id,客,店", ("--mapping", "客=prompt,店=completion"), {"prompt": "2", "completion": "3"}),
    ],
)
def test_columns_lead_to_the_keys_of_a_record(
    run: Runner, header: str, options: tuple[str, ...], record: dict[str, str]
) -> None:
    cells = ",".join(str(number + 1) for number in range(header.count(",") + 1))
    done = run(f"{header}\n{cells}\n", *options)
    assert (done.code, done.records()) == (WRITTEN, [record])


def test_columns_that_are_not_used_are_named(run: Runner) -> None:
    assert "Columns that were not used: id, note" in run("id,prompt,completion,note\n1,a,b,c\n").told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("prompt,completion\na,b\nc\n", "data.csv line 3: the row has another number of cells than the header"),
        ("prompt,completion\na,b,c\n", "line 2: the row has another number of cells"),
        ("prompt,completion\n,b\n", "line 2, column 1 (prompt): the text is empty"),
        ('id,質問,回答\n1,"a\nb", \n', "line 2, column 3 (回答): the text is empty"),
        ('prompt,completion\n"a\nb",c\nd,\n', "line 4, column 2 (completion)"),
        ('prompt,completion\na,"b\n', "line 2: the quotes of the row are broken"),
        ('prompt,completion\n"a"b,c\n', "line 2: the quotes of the row are broken"),
        (f"prompt,completion\n{'a' * 99},b\n\0c,d\n", "line 3, column 1 (prompt): a text holds the character NUL"),
        ("What is this?,Who knows\na,b\n", "the header names no columns that make a record"),
        ("prompt,prompt,completion\na,b,c\n", "the header has a name more than once"),
        ("prompt,completion\n", "the file holds no record"),
        (b"", "the file holds no record"),
        (QUESTIONS.encode("utf-16"), "the file is UTF-16"),
        (b"prompt,completion\na,b\n\x81\xff,c\n", "line 3: the bytes are neither UTF-8 nor CP932"),
    ],
)
def test_a_mistake_is_named_by_line_and_column_and_nothing_is_written(
    run: Runner, content: str | bytes, told: str
) -> None:
    done = run(content)
    assert told in done.told
    assert done.code == MISTAKES
    assert [path.name for path in run.folder.iterdir()] == ["data.csv"]


def test_every_mistake_is_named_at_once_and_in_japanese_where_asked(run: Runner) -> None:
    done = run("prompt,completion\n,b\nc,\nd\n", "--language", "ja")
    assert "2 行目、1 列目 (prompt)" in done.told
    assert "誤りが 3 件あります" in done.told


def test_blank_rows_and_empty_cells_behind_the_last_column_are_passed_over(run: Runner) -> None:
    assert run("\nprompt,completion\n\na,b,,\n,\n , \n").records() == [{"prompt": "a", "completion": "b"}]


def test_a_column_of_the_mapping_that_the_table_lacks_is_named(run: Runner) -> None:
    done = run(QUESTIONS, "--mapping", "question=prompt,回答=completion")
    assert done.code == MISTAKES
    assert "the header has no column question" in done.told


def test_an_existing_file_is_replaced_only_when_asked(run: Runner) -> None:
    run.out.write_text("mine")
    assert run(QUESTIONS).code == WRONG_USE
    assert run.out.read_text() == "mine"
    assert run(QUESTIONS, "--overwrite").records() == ANSWERS


@pytest.mark.parametrize("mapping", ["question", "question=answer", "=prompt"])
def test_a_mapping_that_is_none_is_wrong_use(run: Runner, mapping: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(QUESTIONS, "--mapping", mapping)
    assert ended.value.code == WRONG_USE


def test_the_command_runs_from_a_clone_and_tells_wrong_use_by_its_exit_code(tmp_path: Path) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "customization.tabular", *arguments]
        environment = {"PYTHONPATH": str(LAMBDA), "PYTHONUTF8": "1"}
        return subprocess.run(  # noqa: S603 - this interpreter and the test's own arguments
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    missing = call("missing.csv")
    assert (missing.returncode, "missing.csv" in missing.stderr) == (WRONG_USE, True)
    (tmp_path / "data.csv").write_text(QUESTIONS, encoding="cp932")
    done = call("data.csv")
    assert (done.returncode, done.stderr) == (WRITTEN, "")
    assert (tmp_path / "train.jsonl").read_bytes() == json_lines([dict(answer) for answer in ANSWERS])


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(lambda text: text.strip())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6))
def test_whatever_a_spreadsheet_writes_is_what_the_records_hold(run: Runner, rows: list[tuple[str, str]]) -> None:
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("prompt", "completion"), *rows])
    done = run(table.getvalue().encode("utf-8-sig"), "--overwrite")
    assert [(record["prompt"], record["completion"]) for record in done.records()] == rows
    problems = Problems()
    lines = [*RecordReader("train.jsonl", problems).records(io.BytesIO(done.out.read_bytes()))]
    assert len(lines) == len(rows)
    assert problems.of("error") == []
