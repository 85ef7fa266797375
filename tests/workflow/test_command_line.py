"""`python -m rehearsal`, as a person runs it, and what its exit code says."""

import sys
from pathlib import Path

import msgspec
import pytest

from customization.report import ReportData
from customization.verdict import percent
from rehearsal.__main__ import DEFAULT_DATA, FAILED, NOT_BETTER, SUCCEEDED, main
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


@pytest.mark.exhaustive
def test_the_sample_that_make_run_rehearses_is_neither_out_of_reach_of_the_base_model_nor_learnt_by_heart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, DEFAULT_DATA, tmp_path) == SUCCEEDED
    [written] = tmp_path.glob("support-ja-*/report.json")
    comparison = msgspec.json.decode(written.read_bytes(), type=ReportData).comparison
    assert comparison
    assert comparison.primary
    base, custom = (
        model.scores[comparison.primary.metric].mean
        for side in ("base", "custom")
        for model in comparison.models
        if model.side == side
    )
    assert 0 < base < custom < 1
    shown = " ".join(capsys.readouterr().out.split())
    assert f" rose from {percent(base)} to {percent(custom)}. " in shown


def test_a_folder_whose_name_names_no_data_set_is_to_be_renamed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, data.rename(tmp_path / "My_Data"), tmp_path / "out") == FAILED
    shown = capsys.readouterr().out
    assert "found 'My_Data'; move it: aws s3 mv" in shown
    assert "rename My_Data instead." in shown
