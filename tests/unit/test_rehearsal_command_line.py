"""A wrong use of `python -m rehearsal` ends with exit code 2 and one message, before anything is synthesized."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest

from rehearsal.__main__ import WRONG_USE, _keep_serving, _request_in, main
from rehearsal.bedrock.faults import FAULTS
from rehearsal.run import Rehearsal, Setting


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "support"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    return folder


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rehearsal", "--out", str(tmp_path / "out"), *arguments])
    return main()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--fault", "job-explodes"], "job-explodes"),
        (["--fault", "job-slow:x"], "fault job-slow: expected nothing, :times or :times=value after the name"),
        (["--fault", "job-slow:0"], "times a whole number from 1; found ':0'"),
        (["--date", "yesterday"], "--date yesterday: expected a day such as 2025-01-18"),
        (["--set", "epochCount"], "--set epochCount: expected FIELD=VALUE"),
        (["--set", "name.first=a", "--set", "name=b", "--set", "name.first=a"], "name is no object"),
    ],
)
def test_a_wrong_argument_is_named(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    assert run(monkeypatch, tmp_path, str(data), *arguments) == WRONG_USE
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{\n "budgetUsd": 20,\n}', "line 3"),
        ('["budgetUsd"]', "it holds no JSON object"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_request_that_cannot_be_read_is_not_replaced_by_the_fields_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    content: str,
    problem: str,
) -> None:
    (data / "run.json").write_text(content)
    assert run(monkeypatch, tmp_path, str(data), "--set", "budgetUsd=5") == WRONG_USE
    message = capsys.readouterr().err
    assert "--set budgetUsd=5: run.json cannot take it" in message
    assert problem in message


@pytest.mark.parametrize("content", ['{"budgetUsd": 20,}', '["budgetUsd"]'])
def test_a_request_that_cannot_be_read_is_left_to_the_pipeline_where_no_field_is_given(content: str) -> None:
    assert _request_in({"run.json": content.encode()}, []) == {}


def test_a_field_of_the_command_line_is_laid_over_the_request() -> None:
    files = {"run.json": b'\xef\xbb\xbf{"budgetUsd": 20, "hyperParameters": {"batchSize": 1}}'}
    assert _request_in(files, ["hyperParameters.epochCount=3"]) == {
        "budgetUsd": 20,
        "hyperParameters": {"batchSize": 1, "epochCount": 3},
    }


def test_files_that_no_run_reads_are_named_beside_those_that_one_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tests.jsonl", "notes.txt", ".DS_Store", "validation.jsonl"):
        (data / name).write_text("")
    # The command ends before the synthesis
    run(monkeypatch, tmp_path, str(data), "--date", "yesterday")
    told = "not used: notes.txt, tests.jsonl; a run reads train.jsonl, pretrain.jsonl, validation.jsonl, test.jsonl"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("out", ["taken", "taken/below"])
def test_a_place_for_the_reports_that_is_no_folder_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    (tmp_path / "taken").write_text("")
    assert run(monkeypatch, tmp_path, str(data), "--out", str(tmp_path / out)) == WRONG_USE
    assert f"--out {tmp_path / out}: " in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, tmp_path, str(tmp_path / "nowhere")) == WRONG_USE
    assert "nowhere is no folder" in capsys.readouterr().err


def test_a_folder_without_data_is_told_what_it_should_hold(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.csv").write_text("a,b\n")
    assert run(monkeypatch, tmp_path, str(tmp_path)) == WRONG_USE
    message = capsys.readouterr().err
    assert "data.csv" in message
    assert "expected train.jsonl or pretrain.jsonl" in message


def test_the_help_lists_every_fault_and_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "--help")
    shown = capsys.readouterr().out
    for name in FAULTS:
        assert name in shown
    assert "exit codes: 0" in shown


def test_the_aws_that_is_kept_answers_with_what_is_told_to_export_until_it_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed: list[list[str]] = []

    def look_and_interrupt(_seconds: float) -> None:
        told = dict(re.findall(r"(AWS_[A-Z_]+)=(\S+)", capsys.readouterr().out))
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        pages = boto3.Session().client("s3").list_objects_v2(Bucket="artifacts", Prefix="runs/")
        listed.append([item["Key"] for item in pages["Contents"]])
        raise KeyboardInterrupt

    monkeypatch.setattr("rehearsal.__main__.time.sleep", look_and_interrupt)
    setting = Setting(assembly=None, region="us-east-1", date=datetime(2026, 11, 22, tzinfo=UTC), log_dir=tmp_path)
    with Rehearsal(setting) as rehearsal:
        rehearsal.outputs = {"ArtifactBucketName": "artifacts"}
        s3 = rehearsal.aws.session().client("s3")
        s3.create_bucket(Bucket="artifacts")
        s3.put_object(Bucket="artifacts", Key="runs/a/report.html", Body=b"")
        _keep_serving(rehearsal)
    assert listed == [["runs/a/report.html"]]
