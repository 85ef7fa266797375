"""The report of a run: one HTML page that needs nothing else, and the same as JSON."""

from collections.abc import Mapping
from datetime import datetime
from pprint import pformat
from typing import Literal

import msgspec

from customization.comparison import Comparison
from customization.figures import Figures
from customization.inference import Question
from customization.money import Estimate, Settlement
from customization.pages import environment
from customization.profile import Profile
from customization.texts import Language, Sentence, say, term
from customization.training_metrics import TrainingMetrics

# Stands in the call of a model that is not served any more
MODEL_PLACE = "ARN OF WHAT SERVES THE MODEL"


class FailureReport(msgspec.Struct, frozen=True, rename="camel"):
    """`state` is the state of the machine that failed."""

    error: str
    cause: str
    fix: str
    state: str


class StageReport(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One model customization job; `base_model` is a base model's id, or the custom model that the first stage made."""

    customization_type: str
    training_id: str
    base_model: str
    hyper_parameters: dict[str, str] = {}
    job_name: str = ""
    job_arn: str = ""
    model_arn: str = ""
    was_adopted: bool = False
    metrics: TrainingMetrics | None = None


class FileReport(msgspec.Struct, frozen=True, rename="camel"):
    """A file that the run used, pinned; `size` in bytes."""

    key: str
    version_id: str
    size: int
    sha256: str


class TimelineEntry(msgspec.Struct, frozen=True, rename="camel"):
    at: datetime
    state: str
    note: str = ""


class ResourceReport(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A resource of the run; `hourly_usd` is None where no source gives a price.

    With `is_endless` it stays until somebody releases it, whatever `until` says.
    """

    name: str
    kind: Literal["job", "model", "on-demand", "provisioned"]
    state: Literal["released", "billing", "kept"]
    hourly_usd: float | None = None
    until: datetime | None = None
    is_endless: bool = False


class ReportData(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What is known of a run: everything but its names may be missing. Times are UTC.

    `request` is the run request as JSON, `call` the lines by which a person asks the model (`call_as_python`);
    `served_arn` is empty where nothing serves it any more.
    """

    run_id: str
    dataset: str
    state: Literal["succeeded", "failed", "estimated"]
    language: Language = "en"
    is_rehearsal: bool = False
    name: str = ""
    region: str = ""
    base_model: str = ""
    execution_arn: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    failure: FailureReport | None = None
    comparison: Comparison | None = None
    stages: tuple[StageReport, ...] = ()
    profile: Profile | None = None
    request: Mapping[str, object] = {}
    estimate: Estimate | None = None
    settlement: Settlement | None = None
    resources: tuple[ResourceReport, ...] = ()
    timeline: tuple[TimelineEntry, ...] = ()
    files: tuple[FileReport, ...] = ()
    notes: tuple[str, ...] = ()
    served_arn: str = ""
    call: str = ""


def render_report(data: ReportData) -> str:
    """Return the page: HTML in UTF-8 with its style and charts inside, no script, nothing fetched."""
    language = data.language

    def text(code: str, **values: str) -> str:
        return say(Sentence(code, values), language)

    def sentence(said: Sentence) -> str:
        return say(said, language)

    def name(family: str, code: str) -> str:
        return term(family, code, language)

    return (
        environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            comparison=data.comparison,
            t=text,
            term=name,
            say=sentence,
            charts=Figures(data, text),
            request_rows=_rows(data.request),
        )
    )


def report_json(data: ReportData) -> bytes:
    """Return the same data as JSON, for programs."""
    return msgspec.json.format(msgspec.json.encode(data), indent=1)


def call_as_python(question: Question, region: str) -> str:
    """Return lines of Python that ask it: strings are written as literals, so data stays data."""
    lines = ["import json", "import boto3", "", f'client = boto3.client("bedrock-runtime", region_name={region!r})']
    if question.operation == "converse":
        lines += [
            f"parameters = {pformat(question.parameters, width=100, sort_dicts=False)}",
            "response = client.converse(**parameters)",
            'print(response["output"]["message"]["content"])',
        ]
    else:
        lines += [
            f"body = {pformat(question.parameters['body'], width=100, sort_dicts=False)}",
            f"response = client.invoke_model(modelId={question.parameters['modelId']!r}, body=json.dumps(body))",
            'print(json.load(response["body"]))',
        ]
    return "\n".join(lines)


def _rows(value: object, path: str = "") -> list[tuple[str, str]]:
    """Return the leaves of a request as (field, value)."""
    if isinstance(value, dict) and value:
        return [row for key, item in value.items() for row in _rows(item, f"{path}.{key}" if path else str(key))]
    if isinstance(value, str):
        return [(path, value)]
    return [(path, msgspec.json.encode(value).decode())] if path else []
