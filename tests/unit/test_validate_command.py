"""The command that checks data files on any machine: its output, exit codes, and what it needs."""

import gzip
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from customization import validate
from customization.json_types import Json, JsonObject, as_object
from customization.validate import main
from tests.unit.data_files import (
    CLAUDE_3_HAIKU,
    LLAMA_3_3,
    NOVA_MICRO,
    TITAN_EXPRESS,
    Content,
    json_lines,
    pairs,
    texts_of,
    varied,
)

ROOT = Path(__file__).parents[2]
BROKEN = b'{"prompt": "a", "completion": ""}\n\n{"prompt": "a"}\n'


def written(folder: Path, content: Content, name: str = "train.jsonl") -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json_lines(content))
    return str(path)


def listed(value: Json) -> list[JsonObject]:
    assert isinstance(value, list)
    return [as_object(item, "item") for item in value]


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str, model: str = NOVA_MICRO) -> tuple[int, JsonObject]:
    code = main([*arguments, "--model", model, "--format", "json"])
    return code, as_object(json.loads(capsys.readouterr().out), "output")


def codes_of(result: JsonObject) -> set[Json]:
    return {problem["code"] for problem in listed(result["problems"])}


def test_json_has_verdict_problems_counts_and_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, BROKEN)
    code, result = as_json(capsys, file)
    assert code == 1
    assert set(result) == {"verdict", "problems", "counts", "profile"}
    assert (result["verdict"], result["counts"]) == ("reject", {"error": 2, "warning": 0, "note": 1})
    first = listed(result["problems"])[0]
    assert {"severity", "code", "file", "line", "field", "message", "fix", "found", "allowed"} <= set(first)
    assert (first["code"], first["file"], first["line"], first["field"]) == ("empty_text", file, 1, "completion")
    assert result["profile"] == {file: None}


def test_an_accepted_file_comes_with_its_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, varied(1_300))
    code, result = as_json(capsys, file)
    assert (code, result["verdict"], result["problems"]) == (0, "accept", [])
    profile = as_object(as_object(result["profile"], "profile")[file], file)
    assert listed(profile["files"])[0]["records"] == 1_300


def test_warnings_do_not_fail_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = as_json(capsys, written(tmp_path, pairs(50)))
    assert (code, result["verdict"]) == (0, "warn")


def test_files_beside_the_training_file_are_checked_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = written(tmp_path, pairs(200)), written(tmp_path, pairs(40), "test.jsonl")
    validation = written(tmp_path, pairs(20, 100), "validation.jsonl")
    _, alone = as_json(capsys, train)
    code, result = as_json(capsys, train, "--validation", validation, "--test", test)
    assert code == 0
    assert "leaked" in codes_of(result) - codes_of(alone)


def test_a_validation_file_alone_has_the_bounds_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = written(tmp_path, pairs(31), "validation.jsonl")
    code, result = as_json(capsys, few, "--role", "validation", model=CLAUDE_3_HAIKU)
    assert (code, codes_of(result)) == (1, {"too_few_records"})
    many = written(tmp_path, pairs(1_001), "validation.jsonl")
    assert as_json(capsys, many, "--role", "validation", model=LLAMA_3_3)[1]["verdict"] == "reject"
    assert as_json(capsys, many, "--role", "test", model=LLAMA_3_3)[1]["verdict"] == "accept"


def test_several_files_are_checked_each_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = written(tmp_path, pairs(50)), written(tmp_path, BROKEN, "other.jsonl")
    code, result = as_json(capsys, good, bad)
    assert code == 1
    assert {problem["file"] for problem in listed(result["problems"]) if problem["severity"] == "error"} == {bad}
    assert as_object(result["profile"], "profile")[good]


def test_the_first_record_tells_the_kind_of_customization(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = written(tmp_path, texts_of(50))
    assert codes_of(as_json(capsys, raw, model=TITAN_EXPRESS)[1]) == {"few_tokens"}
    assert codes_of(as_json(capsys, raw, model=NOVA_MICRO)[1]) == {"unlabelled"}
    asked = as_json(capsys, raw, "--type", "FINE_TUNING", model=TITAN_EXPRESS)[1]
    assert codes_of(asked) == {"unlabelled"}


def test_the_request_s_options_hold_here_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other: list[JsonObject] = [{"question": f"q {number}", "answer": f"a {number}"} for number in range(50)]
    file = written(tmp_path, other)
    assert codes_of(as_json(capsys, file)[1]) == {"unknown_format"}
    mapping = '{"question": "prompt", "answer": "completion"}'
    assert as_json(capsys, file, "--field-mapping", mapping)[1]["verdict"] != "reject"
    long = written(tmp_path, [*pairs(50), {"prompt": "word " * 2_800, "completion": "b"}], "long.jsonl")
    assert as_json(capsys, long, model=TITAN_EXPRESS)[0] == 0
    assert as_json(capsys, long, "--batch-size", "4", model=TITAN_EXPRESS)[0] == 1
    cues = written(tmp_path, [{"prompt": f"User: {n}?\nBot:", "completion": f"a {n}"} for n in range(50)], "cues.jsonl")
    assert as_json(capsys, cues)[0] == 1
    assert as_json(capsys, cues, "--strip-role-cues")[0] == 0


def test_the_table_stands_in_columns_also_in_japanese(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, BROKEN)
    assert main([file, "--model", NOVA_MICRO]) == 1
    english = capsys.readouterr().out.splitlines()
    assert english[0].startswith(f"{file} for Nova Micro, FINE_TUNING: rejected")
    first = next(line for line in english if "the text is empty" in line)
    assert english[1].index("Problem") == first.index("the text is empty")
    assert main([file, "--model", NOVA_MICRO, "--language", "ja"]) == 1
    japanese = capsys.readouterr().out.splitlines()
    assert "テキストが空か、空白だけです" in japanese[2]
    starts = [
        line.encode("cp932").index(text.encode("cp932"))
        for line, text in zip(japanese[1:3], ("問題", "テキスト"), strict=True)
    ]
    assert starts[0] == starts[1], "CP932 has one byte a column"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required"),
        (["FILE"], "--model"),
        (["FILE", "--model", "amazon.nova-micro"], "did you mean amazon.nova-micro-v1:0:128k"),
        (["FILE", "--model", "openai.gpt-oss-20b"], "is not customized with text records"),
        (["missing.jsonl", "--model", NOVA_MICRO], "'missing.jsonl': found no file"),
        ([".", "--model", NOVA_MICRO], "found a folder"),
        (["FILE", "FILE", "--model", NOVA_MICRO, "--test", "FILE"], "expected one FILE"),
        (["FILE", "--model", NOVA_MICRO, "--type", "CONTINUED_PRE_TRAINING"], "offers no CONTINUED_PRE_TRAINING"),
        (["FILE", "--model", NOVA_MICRO, "--batch-size", "x"], "expected a whole number"),
        (["FILE", "--model", NOVA_MICRO, "--field-mapping", "a=b"], "expected JSON such as"),
    ],
)
def test_wrong_use_ends_with_2_and_says_what_was_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    file = written(tmp_path, pairs(50))
    given = [file if argument == "FILE" else argument for argument in arguments]
    try:
        code: object = main(given)
    except SystemExit as wrong:
        code = wrong.code
    assert code == 2
    assert said in capsys.readouterr().err


def test_a_name_that_bedrock_refuses_in_a_key_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, plain = as_json(capsys, written(tmp_path, pairs(50)))
    _, odd = as_json(capsys, written(tmp_path, pairs(50), "2026-11-22 09:00=感情.jsonl"))
    assert codes_of(odd) - codes_of(plain) == {"file_name"}
    assert any("':'" in str(problem["message"]) for problem in listed(odd["problems"]))


def test_long_files_show_their_progress_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, pairs(50))
    main([file, "--model", NOVA_MICRO])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(validate, "_PROGRESS_SECONDS", 0.0)
    main([file, "--model", NOVA_MICRO])
    assert "100 %" in capsys.readouterr().err


def run(*arguments: str, path: Path = ROOT / "lambda") -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - this very interpreter
        [sys.executable, *arguments], env={"PYTHONPATH": str(path)}, capture_output=True, text=True, check=False
    )


def test_it_runs_from_a_clone_without_what_only_the_functions_need(tmp_path: Path) -> None:
    good = run("-m", "customization.validate", written(tmp_path, pairs(50)), "--model", NOVA_MICRO)
    assert (good.returncode, good.stderr) == (0, "")
    packed = written(tmp_path, gzip.compress(BROKEN), "packed.jsonl")
    bad = run("-m", "customization.validate", packed, "--model", NOVA_MICRO, "--language", "ja")
    assert (bad.returncode, bad.stderr) == (1, "")
    assert "圧縮" in bad.stdout
    absent = ("boto3", "botocore", "aws_lambda_powertools", "numpy", "jinja2", "rich")
    loaded = run("-c", f"import customization.validate, sys; print([m for m in {absent!r} if m in sys.modules])")
    assert loaded.stdout == "[]\n"


@pytest.mark.exhaustive
def test_the_installed_script_runs_with_msgspec_and_pydantic_alone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "lambda" / "customization", source / "lambda" / "customization")
    shutil.copy(ROOT / "pyproject.toml", source)
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    subprocess.run([binaries / "pip", "install", "--quiet", source], check=True)  # noqa: S603 - the environment made above
    listed_packages = subprocess.run([binaries / "pip", "list", "--format", "json"], capture_output=True, check=True)  # noqa: S603 - as above
    names = {package["name"].lower() for package in json.loads(listed_packages.stdout)}
    assert {"msgspec", "pydantic"} <= names
    assert not names & {"boto3", "numpy", "jinja2", "aws-lambda-powertools"}
    outcome = subprocess.run(  # noqa: S603 - as above
        [binaries / "customization-validate", written(tmp_path, BROKEN), "--model", NOVA_MICRO, "--language", "ja"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (outcome.returncode, outcome.stderr) == (1, "")
    assert "テキストが空" in outcome.stdout
