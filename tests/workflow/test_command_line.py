"""`python -m rehearsal`, as a person runs it, and what its exit code says."""

import sys
from pathlib import Path

import pytest

from rehearsal.__main__ import FAILED, NOT_BETTER, SUCCEEDED, main
from tests.workflow.data import labelled


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
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    told: str,
) -> None:
    folder = tmp_path / "support"
    folder.mkdir()
    for name, content in labelled().items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["rehearsal", str(folder), "--out", str(tmp_path / "out"), *arguments])
    assert main() == code
    shown = capsys.readouterr().out
    assert told in shown
    assert "Traceback" not in shown
    reports = list((tmp_path / "out").glob("support-*/report.html"))
    was_planned = "hyperParameters" not in told
    assert bool(reports) is was_planned
