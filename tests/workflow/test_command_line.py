"""`python -m rehearsal`, as a person runs it, and what its exit code says."""

import sys
from pathlib import Path

import pytest

from rehearsal.__main__ import FAILED, NOT_BETTER, SUCCEEDED, main
from tests.workflow.data import labelled


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "support"
    folder.mkdir()
    for name, content in labelled().items():
        (folder / name).write_bytes(content)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, out: Path, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rehearsal", str(folder), "--out", str(out), *arguments])
    return main()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], SUCCEEDED, "Verdict: inconclusive"),
        pytest.param(["--require", "better"], NOT_BETTER, "Verdict: inconclusive", marks=pytest.mark.exhaustive),
        pytest.param(["--fault", "job-fails"], FAILED, "What to do: ", marks=pytest.mark.exhaustive),
        (["--set", "hyperParameters.epochCount=99"], FAILED, "hyperParameters.epochCount: found 99"),
    ],
)
def test_the_exit_code_and_the_last_lines_say_how_the_run_ended(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    told: str,
) -> None:
    assert run(monkeypatch, data, tmp_path / "out", *arguments) == code
    shown = capsys.readouterr().out
    assert told in shown
    assert "Traceback" not in shown
    assert "Joined" not in shown
    assert ("its storage costs 1.95 USD a month on AWS: arn:" in shown) is (code in (SUCCEEDED, NOT_BETTER))
    reports = list((tmp_path / "out").glob("support-*/report.html"))
    was_planned = "hyperParameters" not in told
    assert bool(reports) is was_planned


def test_a_folder_whose_name_names_no_data_set_is_to_be_renamed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, data.rename(tmp_path / "My_Data"), tmp_path / "out") == FAILED
    shown = capsys.readouterr().out
    assert "found 'My_Data'; move it: aws s3 mv" in shown
    assert "rename My_Data instead." in shown
