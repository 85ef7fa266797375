"""A wrong use of `python -m rehearsal` ends with exit code 2 and one message, before anything is synthesized."""

import sys
from pathlib import Path

import pytest

from rehearsal.__main__ import WRONG_USE, main
from rehearsal.bedrock.faults import FAULTS


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
