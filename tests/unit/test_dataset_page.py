"""The page that compares the runs of a data set."""

from typing import Literal

import msgspec
import pytest

from customization.dataset_page import DatasetPage, render_dataset
from customization.history import Change, RunSummary, ScoreInterval
from tests.unit.fakes import NOW
from tests.unit.test_report import EVIL, Page

BASE = ScoreInterval(0.2, 0.1, 0.3)
CUSTOM = ScoreInterval(0.75, 0.7, 0.8)


def summary(number: int, text: str = "text") -> RunSummary:
    return RunSummary(
        run_id=f"support-ja-{number:010d}",
        dataset="support-ja",
        name=text,
        state="SUCCEEDED",
        verdict="better",
        is_in_use=True,
        started_at=f"2026-11-0{number}T09:15:00+00:00",
        changes=(
            Change("hyperParameters.epochCount", "2", text),
            Change("inference.system", "", text * 40),
            Change("data.train.jsonl", "a", "b"),
            Change("data.test.jsonl", "", "b"),
            Change("data.validation.jsonl", "a", ""),
        ),
        training_loss=0.5,
        metric="rougeL",
        pairs=40,
        scores={"base": BASE, "custom": CUSTOM},
        gains={"base": ScoreInterval(0.55, 0.5, 0.6)},
        estimated_usd=2.0,
        spent_usd=1.5,
        report_key=f"runs/support-ja-{number:010d}/report.html",
        error=text,
    )


def failed(number: int) -> RunSummary:
    started = f"2026-11-0{number}T09:15:00+00:00"
    return RunSummary(run_id=f"support-ja-{number:010d}", dataset="support-ja", state="FAILED", started_at=started)


def page(*runs: RunSummary, language: Literal["en", "ja"] = "en") -> DatasetPage:
    links = {run.run_id: f"https://console/{run.run_id}" for run in runs if run.report_key}
    return DatasetPage(dataset="support-ja", language=language, is_rehearsal=False, now=NOW, runs=runs, links=links)


def test_every_run_is_told_with_what_differed_its_scores_losses_cost_state_and_links() -> None:
    shown = Page(render_dataset(page(summary(2), failed(1))))
    assert shown.open == []
    for told in (
        *("support-ja-0000000002", "succeeded", "Better", "in use", "hyperParameters.epochCount: 2 → text"),
        *("inference.system: (default) → text", "train.jsonl changed", "test.jsonl added", "validation.jsonl left out"),
        *("0.500 · ", "20.0 %", "75.0 %70.0 % … 80.0 %", "+55.0", "1.50", "estimated 2.00"),
        *("support-ja-0000000001", "failed", "first run"),
    ):
        assert told in shown.text, told
    links = [value for tag, name, value in shown.attributes if tag == "a" and name == "href"]
    assert links == ["../../runs/support-ja-0000000002/report.html", "https://console/support-ja-0000000002"]
    assert shown.tags.count("svg") == 1
    assert not {"script", "link", "img", "iframe"} & set(shown.tags)


def test_data_is_escaped_in_the_page_of_a_data_set() -> None:
    plain, hostile = (Page(render_dataset(page(summary(1, text), failed(2)))) for text in ("text", EVIL))
    assert sorted(plain.tags) == sorted(hostile.tags)
    assert "<script>alert(1)</script>" in hostile.text


@pytest.mark.parametrize("runs", [(), (failed(1),), (failed(3), failed(2))])
def test_a_data_set_without_a_compared_run_has_a_page_without_a_chart(runs: tuple[RunSummary, ...]) -> None:
    shown = Page(render_dataset(page(*runs)))
    assert "svg" not in shown.tags
    assert ("No run yet." in shown.text) is (runs == ())


def test_scores_of_different_metrics_are_not_drawn_together() -> None:
    other = msgspec.structs.replace(summary(1), metric="chrF", name="other metric")
    html = render_dataset(page(summary(3), summary(2), other))
    labels = [value for tag, name, value in Page(html).attributes if tag == "svg" and name == "aria-label"]
    assert [label.count("75%") for label in labels] == [2]


def test_the_page_has_the_same_structure_in_both_languages() -> None:
    english, japanese = (Page(render_dataset(page(summary(1), failed(2), language=it))) for it in ("en", "ja"))
    assert english.tags == japanese.tags
    assert "hyperParameters.epochCount: 2 → text" in japanese.text
    assert "train.jsonl を変更" in japanese.text
    assert "失敗" in japanese.text
