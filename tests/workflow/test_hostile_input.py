"""Hostile keys, requests, data and artifacts through the whole pipeline: nothing of them does anything."""

import csv
import io
import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from customization.json_types import Json, JsonObject
from tests.workflow import data
from tests.workflow.checks import assert_refused
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution

pytestmark = pytest.mark.exhaustive

HOSTILE = "=1+1 <script>alert(1)</script>{{7*7}} {% $states.input %} ${x} {0} %s \x1b[2J\u202e"
KEYS = ["データ", "a%2e%2e%2fb", "a+b c%20d", "..", "a/../../b", "'; reboot; '", "$(reboot)", "a\nb\x01", "", "é" * 490]


class Page(HTMLParser):
    """The tags of a page, and where its links lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [str(value) for name, value in attrs if name in {"href", "src"}]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def assert_readable(pipeline: Pipeline) -> None:
    """No message of this test moves a cursor, and each subject is what Amazon SNS takes."""
    for told in pipeline.notifications():
        assert all(character.isprintable() or character == "\n" for character in told.message), ascii(told.message)
        assert told.subject.isascii()
        assert told.subject.isprintable()
        assert len(told.subject) < 100


def drop_at(pipeline: Pipeline, key: str) -> None:
    """Put an object, or say so where the S3 of the rehearsal takes no such key."""
    if key.isprintable():
        pipeline.put(key, data.lines(data.pairs(100)))
        return
    events = pipeline.aws._events
    bucket = pipeline.outputs["DataBucketName"]
    detail: JsonObject = {"bucket": {"name": bucket}, "object": {"key": key, "size": 1}}
    pipeline.aws.publish(events.event("aws.s3", "Object Created", [f"arn:aws:s3:::{bucket}"], detail))


@pytest.mark.parametrize("folder", KEYS, ids=ascii)
def test_whatever_key_a_file_is_dropped_under_it_is_refused_with_one_message(pipeline: Pipeline, folder: str) -> None:
    drop_at(pipeline, f"incoming/{folder}/train.jsonl")
    pipeline.finish()
    [execution] = pipeline.executions()
    assert_refused(pipeline, execution, at="PollUploads", error="InvalidRunRequest", says="; move it: aws s3 mv ")
    assert "\n" not in str(execution.outcome.cause)
    assert_readable(pipeline)


def test_files_that_no_run_will_use_are_explained_whatever_their_keys(pipeline: Pipeline) -> None:
    for folder in KEYS:
        drop_at(pipeline, f"incoming/{folder}/{folder[:10]}.csv")
        pipeline.finish()
    assert pipeline.executions() == []
    assert pipeline.subjects() == ["No run will use a file you dropped"] * len(KEYS)
    assert_readable(pipeline)


def nested(depth: int) -> Json:
    value: Json = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "request_",
    [
        {"source": "aws.s3"},
        {"source": "aws.s3", "detail": {"bucket": {"name": 1}, "object": {"key": "incoming/x/train.jsonl"}}},
        {"dataset": "{% $states.input %}"},
        {"dataset": "shop", "name": nested(90)},
        {"dataset": "shop", **{f"k{name}": HOSTILE for name in range(2_000)}},
        {"dataset": "shop", "inference": {"maxTokens": 10**40}},
        {"dataset": "shop", "x" * 200_000: 1},
        [HOSTILE] * 100,
        HOSTILE,
    ],
)
def test_whatever_is_typed_into_the_console_is_refused_with_one_message(pipeline: Pipeline, request_: Json) -> None:
    execution = pipeline.ask(request_)
    assert (execution.outcome.status, execution.outcome.error) == ("FAILED", "InvalidRunRequest")
    assert len(pipeline.told_of(execution)) == 1
    assert_readable(pipeline)
    assert pipeline.jobs() == []


@pytest.mark.parametrize("body", [b"\xff\xfe{\x00}\x00", b"[" * 100_000, b'{"name": "' + b"x" * 300_000 + b'"}', b""])
def test_whatever_run_json_holds_it_is_refused_with_one_message(pipeline: Pipeline, body: bytes) -> None:
    execution = pipeline.run({"train.jsonl": data.lines(data.pairs(100)), "run.json": body})
    assert_refused(pipeline, execution, at="PlanRun", error="InvalidRunRequest", says="/run.json: ")
    assert_readable(pipeline)


def hostile_folder(pipeline: Pipeline) -> dict[str, bytes]:
    """Return a folder whose every text is code for somebody."""
    files = pipeline.folder()
    for name in ("train.jsonl", "test.jsonl"):
        records: list[JsonObject] = [json.loads(line) for line in files[name].splitlines()]
        changed: list[JsonObject] = [
            {"prompt": f"{HOSTILE} {record['prompt']}", "completion": f"{record['completion']} {HOSTILE}"}
            for record in records
        ]
        files[name] = data.lines([{**record, "category": HOSTILE} for record in changed])
    files["run.json"] = data.request(name=HOSTILE, inference={"system": HOSTILE, "stopSequences": [HOSTILE * 9]})
    return files


def test_texts_that_are_code_for_a_page_a_sheet_or_a_state_machine_stay_texts(pipeline: Pipeline) -> None:
    execution = pipeline.run(hostile_folder(pipeline))
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert pipeline.document(execution, "manifest.json")["name"] == HOSTILE
    folder = f"datasets/{pipeline.dataset}/"
    pages = pipeline.object_of(execution, "report.html"), pipeline.artifact(f"{folder}index.html")
    for html in pages:
        page = Page(html.decode())
        assert not page.tags & {"script", "iframe", "img", "object", "form", "base", "link"}
        assert page.handlers == []
        assert all(link.startswith(("https://us-east-1.console.aws.amazon.com/", "../../runs/")) for link in page.links)
        assert b"<script" not in html
    sheet = csv.reader(io.StringIO(pipeline.artifact(f"{folder}runs.csv").decode("utf-8-sig"), newline=""))
    cells = [cell for row in sheet for cell in row]
    assert any(cell.startswith("'=1+1 <script>") for cell in cells)
    assert not any(cell.startswith(("=", "+", "@", "\t")) for cell in cells)
    assert_readable(pipeline)
    assert pipeline.what_bills() == []


def test_a_manifest_that_is_tampered_with_in_training_ends_the_run_by_name_and_stops_its_job(
    pipeline: Pipeline,
) -> None:
    def tamper(execution: "Execution") -> None:
        key = f"runs/{pipeline.row_of(execution)['runId']}/manifest.json"
        s3 = pipeline.aws.session().client("s3")
        body = pipeline.artifact(key).replace(b'"dataset"', b'"data"')
        s3.put_object(Bucket=pipeline.outputs["ArtifactBucketName"], Key=key, Body=body)

    execution = pipeline.interrupt("WaitForCustomizationJob", pipeline.folder(), tamper)
    assert (execution.outcome.status, execution.outcome.error) == ("FAILED", "ArtifactUnreadable")
    assert "/manifest.json: Object missing required field `dataset`" in str(execution.outcome.cause)
    assert pipeline.subjects()[-1].startswith("Failed at PollCustomizationJob: ")
    pipeline.pass_time(hours=1)
    assert pipeline.what_bills() == []
    assert [job["status"] for job in pipeline.jobs()] == ["Stopped"]
    again = pipeline.ask(pipeline.request())
    assert again.outcome.status == "SUCCEEDED", again.outcome.cause
    assert pipeline.what_bills() == []
