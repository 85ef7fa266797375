"""The pages that a run leaves, as a browser shows them, and the call that the report gives, as a person runs it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it publishes no types

from customization.json_types import as_object
from customization.report import ReportData, render_report
from docs.render.report_schema import report_schema
from tests.workflow import data
from tests.workflow.browser import Browser, find_browser
from tests.workflow.conftest import Deploy
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution

SECTIONS = {
    *("scores", "confusion", "categories", "examples", "answers", "training", "data", "cost", "resources", "timeline"),
    *("request", "lineage", "call"),
}
NARROW, WIDE = 360, 1280


@pytest.fixture(scope="module")
def deployed(deploy: Deploy) -> Iterator[Pipeline]:
    with deploy() as pipeline:
        pipeline.forget()
        yield pipeline


@pytest.fixture(scope="module")
def run(deployed: Pipeline) -> "Execution":
    """A run whose model goes on being served for an hour."""
    files = deployed.folder(test=40, serving={"keep": 1})
    records = [
        {**msgspec.json.decode(line), "category": f"intent {number % 4}"}
        for number, line in enumerate(files["test.jsonl"].splitlines())
    ]
    execution = deployed.run({**files, "test.jsonl": data.lines(records)})
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    return execution


@pytest.fixture(scope="module")
def report(deployed: Pipeline, run: "Execution") -> ReportData:
    return msgspec.json.decode(deployed.object_of(run, "report.json"), type=ReportData)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with Browser(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def test_the_report_of_a_run_keeps_to_the_schema(deployed: Pipeline, run: "Execution") -> None:
    assert not list(Draft202012Validator(report_schema()).iter_errors(deployed.document(run, "report.json")))


def test_the_call_in_the_report_asks_the_model_that_is_served(
    deployed: Pipeline, report: ReportData, tmp_path: Path
) -> None:
    script = tmp_path / "call.py"
    script.write_text(report.call)
    credentials = deployed.aws.session().get_credentials()
    assert credentials is not None
    environment = {
        "AWS_ENDPOINT_URL": deployed.aws.endpoint_url,
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
    }
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)  # noqa: S603  what the report says
    assert done.returncode == 0, done.stderr
    answers = {str(record["completion"]) for record in data.pairs(4)}
    assert any(answer in done.stdout for answer in answers), done.stdout


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "light"), (NARROW, "dark")])
def test_a_browser_shows_every_section_without_a_complaint(
    browser: Browser, report: ReportData, tmp_path: Path, language: Literal["en", "ja"], width: int, scheme: str
) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_report(msgspec.structs.replace(report, language=language)))
    tab = browser.open(page, width=width, scheme=scheme)
    assert tab.trouble() == []
    shown = tab.value("[...document.querySelectorAll('section')].filter(s => s.offsetHeight > 40).map(s => s.id)")
    assert set(msgspec.convert(shown, list[str])) == SECTIONS
    assert tab.value("document.documentElement.scrollWidth") == width
    drawn = tab.value("[...document.querySelectorAll('svg')].every(s => s.getBoundingClientRect().height > 40)")
    assert drawn is True
    assert tab.value("document.documentElement.lang") == language
    lightness = tab.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (int(str(lightness)) < 60) is (scheme == "dark")


def test_the_page_of_a_data_set_links_every_report(
    browser: Browser, deployed: Pipeline, run: "Execution", tmp_path: Path
) -> None:
    row = deployed.row_of(run)
    folder = tmp_path / "datasets" / str(row["dataset"])
    folder.mkdir(parents=True)
    for name in ("index.html", "runs.csv"):
        (folder / name).write_bytes(deployed.artifact(f"datasets/{row['dataset']}/{name}"))
    for width in (WIDE, NARROW):
        tab = browser.open(folder / "index.html", width=width)
        assert tab.trouble() == []
        assert tab.value("document.documentElement.scrollWidth") == width
    first = tab.value("document.querySelector('.runs a').href")
    assert first == (tmp_path / "runs" / str(row["runId"]) / "report.html").as_uri()
    assert str(row["runId"]) in (folder / "runs.csv").read_text("utf-8-sig")


def test_a_run_that_fails_leaves_a_report_of_what_went_wrong_and_what_was_released(deployed: Pipeline) -> None:
    deployed.inject("job-fails")
    execution = deployed.run(data.labelled(start=50_000, language="ja"), "failing")
    assert execution.outcome.status == "FAILED"
    report = deployed.document(execution, "report.json")
    assert not list(Draft202012Validator(report_schema()).iter_errors(report))
    failure = as_object(report["failure"], "failure")
    assert failure["state"] == "PollCustomizationJob"
    assert failure["cause"] == deployed.row_of(execution)["cause"]
    told = deployed.notifications()[-1].message
    assert "この実行で課金が続くものはありません" in told or "解放" in told
    assert f"runs/{deployed.row_of(execution)['runId']}/report.html" in told
    page = deployed.object_of(execution, "report.html").decode()
    assert str(failure["fix"]) in page
    assert "失敗" in deployed.artifact("datasets/failing/index.html").decode()
