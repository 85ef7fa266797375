"""What was tried for a data set, as the table of runs knows it."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customization.commands import tell_rehearsed_runs
from customization.errors import ResourceNotFound
from customization.history import (
    ROW_FILE,
    RunSummary,
    describe_change,
    describe_runs,
    runs_csv,
    summarize,
)
from customization.json_types import Json, JsonObject
from customization.texts import one_line

INTERVAL: JsonObject = {"mean": 0.5, "low": 0.4, "high": 0.6}


def row(run: str, day: int, **changes: Json) -> JsonObject:
    values: JsonObject = {
        "runId": run,
        "dataset": "support",
        "state": "SUCCEEDED",
        "attempt": 1,
        "executionArn": f"arn:execution:{run}",
        "startedAt": f"2026-11-{day:02}T09:00:00+00:00",
        "baseModelIdentifier": "amazon.nova-micro-v1:0:128k",
        "files": {"train.jsonl": "a" * 64},
        "stages": [{"customizationType": "FINE_TUNING", "hyperParameters": {"epochCount": "2"}, "trainingId": run}],
        "subset": None,
        "inference": {"maxTokens": 256, "stopSequences": []},
        "verdict": "better",
        "metric": "rougeL",
        "pairs": 32,
        "scores": {"base": INTERVAL, "custom": {"mean": 0.75, "low": 0.7, "high": 0.8}},
        "gains": {"base": {"mean": 0.25, "low": 0.2, "high": 0.3}},
        "modelArn0": f"arn:model/{run}",
        "trainingLoss0": 0.1,
        "validationLoss0": None,
        "records": {"train": 100, "test": 32},
        "spentUsd": 1.25,
        "estimatedUsd": 2,
        "reportKey": f"runs/{run}/report.html",
    }
    return values | changes


def uri(key: str) -> str:
    return f"s3://artifacts/{key}"


def test_runs_come_newest_first_each_with_what_differs_from_the_one_before() -> None:
    stages: list[Json] = [{"customizationType": "FINE_TUNING", "hyperParameters": {"epochCount": "3"}}]
    rows: list[JsonObject] = [
        row("support-b", 2, stages=stages),
        row("support-c", 3, stages=stages, files={"train.jsonl": "b" * 64, "test.jsonl": "c" * 64}),
        row("support-a", 1),
        {"runId": "promoted#support", "promotedRunId": "support-b"},
    ]
    newest, middle, oldest = summarize(rows, "support-b")
    assert [run.run_id for run in (newest, middle, oldest)] == ["support-c", "support-b", "support-a"]
    assert [run.is_in_use for run in (newest, middle, oldest)] == [False, True, False]
    assert [describe_change(change) for change in middle.changes] == ["hyperParameters.epochCount 2 -> 3"]
    assert [describe_change(change) for change in newest.changes] == ["train.jsonl changed", "test.jsonl added"]
    assert oldest.changes == ()
    assert (oldest.training_loss, oldest.validation_loss, oldest.model_arn) == (0.1, None, "arn:model/support-a")


def test_two_stages_have_their_own_settings_and_the_last_model_counts() -> None:
    stages: list[Json] = [
        {"customizationType": "CONTINUED_PRE_TRAINING", "hyperParameters": {"epochCount": "1"}},
        {"customizationType": "FINE_TUNING", "hyperParameters": {"epochCount": "2"}},
    ]
    (run,) = summarize([row("support-a", 1, stages=stages, modelArn1="arn:model/second", trainingLoss1=0.05)])
    assert (run.model_arn, run.training_loss) == ("arn:model/second", 0.05)
    assert run.settings["customizationType"] == "CONTINUED_PRE_TRAINING + FINE_TUNING"
    assert run.settings["hyperParameters.FINE_TUNING.epochCount"] == "2"


def test_a_run_that_never_came_far_is_listed_with_what_there_is() -> None:
    given_up: JsonObject = {
        "runId": "support-a",
        "dataset": "support",
        "state": "FAILED",
        "error": "InvalidDataset",
        "startedAt": "2026-11-01T09:00:00+00:00",
    }
    (run,) = summarize([given_up])
    assert (run.state, run.verdict, run.scores, run.spent_usd) == ("FAILED", "", {}, None)
    assert "InvalidDataset" in describe_runs([run], uri)


def cells(content: bytes) -> list[dict[str, str]]:
    assert content.startswith("\N{BYTE ORDER MARK}".encode())
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def test_the_csv_has_a_row_a_run_with_losses_scores_intervals_cost_and_link() -> None:
    runs = summarize([row("support-a", 1, name="最初"), row("support-b", 2)])
    newest, oldest = cells(runs_csv(runs, uri))
    assert oldest["name"] == "最初"
    assert (newest["runId"], newest["verdict"], newest["spentUsd"]) == ("support-b", "better", "1.25")
    assert (newest["customScore"], newest["customScoreLow"], newest["customScoreHigh"]) == ("0.75", "0.7", "0.8")
    assert (newest["gain"], newest["gainLow"], newest["gainOverInUse"]) == ("0.25", "0.2", "")
    assert newest["report"] == "s3://artifacts/runs/support-b/report.html"


@given(st.text())
def test_no_cell_of_the_csv_is_a_formula_whatever_somebody_called_a_run(name: str) -> None:
    run = RunSummary(run_id="support-a", dataset="support", name=name, state="FAILED", started_at="2026-11-01")
    (found,) = cells(runs_csv([run], uri))
    assert not found["name"].startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"))
    assert found["name"].removeprefix("'") == one_line(name).removeprefix("'")


def test_rehearsals_are_told_of_from_their_output_folder(tmp_path: Path) -> None:
    for number, run in enumerate(("support-a", "support-b"), start=1):
        (tmp_path / run).mkdir()
        (tmp_path / run / ROW_FILE).write_text(json.dumps(row(run, number)))
    told = tell_rehearsed_runs(tmp_path, "support")
    assert told.index("support-b") < told.index("support-a")
    assert "+25.0 points over base (+20.0 to +30.0)" in told
    assert str(tmp_path / "support-a" / "report.html") in told
    with pytest.raises(ResourceNotFound, match="no rehearsed run of other"):
        tell_rehearsed_runs(tmp_path, "other")
