"""The report of a run: one HTML page that needs nothing else, and the same as JSON."""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from pprint import pformat
from typing import Literal, Protocol

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from customization.charts import Captions, bar_chart, line_chart
from customization.comparison import HISTOGRAM_BINS, Comparison, ModelResult
from customization.inference import Call
from customization.money import Estimate, Settlement
from customization.profile import Profile
from customization.texts import Sentence, say
from customization.training_metrics import TrainingMetrics

_LONGEST_TEXT = 2000
_MOST_CATEGORIES_IN_CHART = 12


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
    """A resource of the run; `hourly_usd` is None where no source gives a price."""

    name: str
    kind: Literal["job", "model", "on-demand", "provisioned"]
    state: Literal["released", "billing", "kept"]
    hourly_usd: float | None = None
    until: datetime | None = None


class ReportData(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What is known of a run: everything but its names may be missing. Times are UTC.

    `request` is the run request as JSON, `call` the lines by which a person asks the model (`call_as_python`).
    """

    run_id: str
    dataset: str
    state: Literal["succeeded", "failed", "estimated"]
    language: Literal["en", "ja"] = "en"
    is_rehearsal: bool = False
    name: str = ""
    region: str = ""
    base_model: str = ""
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
    call: str = ""


def render_report(data: ReportData) -> str:
    """Return the page: HTML in UTF-8 with its style and charts inside, no script, nothing fetched."""
    language = data.language

    def text(code: str, **values: str) -> str:
        return say(Sentence(code, values), language)

    def sentence(said: Sentence) -> str:
        return say(said, language)

    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            comparison=data.comparison,
            t=text,
            say=sentence,
            charts=_Charts(data, text),
            request_rows=_rows(data.request),
        )
    )


def report_json(data: ReportData) -> bytes:
    """Return the same data as JSON, for programs."""
    return msgspec.json.format(msgspec.json.encode(data), indent=1)


def call_as_python(call: Call, region: str) -> str:
    """Return a call as lines that can be pasted into Python: strings are written as literals, so data stays data."""
    lines = ["import json", "import boto3", "", f'client = boto3.client("bedrock-runtime", region_name={region!r})']
    if call.operation == "converse":
        lines += [
            f"parameters = {pformat(call.parameters, width=100, sort_dicts=False)}",
            "response = client.converse(**parameters)",
            'print(response["output"]["message"]["content"])',
        ]
    else:
        lines += [
            f"body = {pformat(call.parameters['body'], width=100, sort_dicts=False)}",
            f"response = client.invoke_model(modelId={call.parameters['modelId']!r}, body=json.dumps(body))",
            'print(json.load(response["body"]))',
        ]
    return "\n".join(lines)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "first_upper": lambda text: text[:1].upper() + text[1:],
        "percent": lambda value: f"{value * 100:.1f} %",
        "points": lambda value: f"{value * 100:+.1f}",
        "number": lambda value: f"{value:,.6g}" if isinstance(value, float) else f"{value:,}",
        "usd": lambda value: f"{value:,.2f}" if value == 0 or abs(value) >= 0.01 else f"{value:.6f}",  # noqa: PLR2004 - a cent
        "short": _short,
        "moment": lambda moment: f"{moment:%Y-%m-%d %H:%M}",
        "duration": _duration,
    }
    return environment


class _Text(Protocol):
    """Puts a code into the language of the page."""

    def __call__(self, code: str, **values: str) -> str: ...


class _Charts:
    """The page's charts; the template asks for those that it has data for."""

    def __init__(self, data: ReportData, text: _Text) -> None:
        self._comparison = data.comparison
        self._text = text

    def _side(self, side: str) -> str:
        return self._text(f"side.{side}")

    def scores(self) -> Markup:
        """Return the mean of each metric for each model, with its interval."""
        models = [model for model in self._models() if model.scores]
        metrics = list(models[0].scores)
        told = "; ".join(
            f"{self._side(model.side)}: "
            + ", ".join(
                f"{self._text(f'metricName.{metric}')} {mean.mean:.0%}" for metric, mean in model.scores.items()
            )
            for model in models
        )
        return bar_chart(
            Captions(self._text("scores.chart"), told),
            [self._text(f"metricName.{metric}") for metric in metrics],
            {self._side(model.side): [model.scores[metric] for metric in metrics] for model in models},
            horizontal=True,
            form=_as_percent,
            highest=1.0,
        )

    def distribution(self) -> Markup:
        """Return how many records have which score."""
        models = [model for model in self._models() if model.scores]
        width = 100 // HISTOGRAM_BINS
        labels = [str(start) for start in range(0, 100, width)]
        told = "; ".join(f"{self._side(model.side)}: {', '.join(map(str, model.histogram))}" for model in models)
        captions = Captions(
            self._text("distribution.chart"),
            told,
            x=self._text("distribution.score"),
            y=self._text("distribution.records"),
        )
        series = {self._side(model.side): list(model.histogram) for model in models}
        return bar_chart(captions, labels, series, form="{:.0f}".format)

    def categories(self) -> Markup:
        """Return the score of both models in the largest categories."""
        comparison = self._comparison
        if comparison is None:
            return Markup()
        shown = sorted(comparison.categories, key=lambda item: -item.pairs)[:_MOST_CATEGORIES_IN_CHART]
        told = "; ".join(f"{item.category}: {item.baseline:.0%} - {item.custom:.0%}" for item in shown)
        return bar_chart(
            Captions(self._text("categories.chart"), told),
            [item.category for item in shown],
            {
                self._side(comparison.baseline): [item.baseline for item in shown],
                self._side("custom"): [item.custom for item in shown],
            },
            horizontal=True,
            form=_as_percent,
            highest=1.0,
        )

    def losses(self, metrics: TrainingMetrics) -> Markup:
        """Return the losses of one stage by step."""
        series = {
            self._text("training.loss"): [(float(point.step), point.loss) for point in metrics.training],
            self._text("training.validationLoss"): [(float(point.step), point.loss) for point in metrics.validation],
        }
        missing = self._text("report.notAvailable")
        told = self._text(
            "training.chartDescription",
            first=_loss(metrics.first_training_loss, missing),
            last=_loss(metrics.final_training_loss, missing),
            firstValidation=_loss(metrics.first_validation_loss, missing),
            lastValidation=_loss(metrics.final_validation_loss, missing),
        )
        captions = Captions(self._text("training.chart"), told, x=self._text("training.step"))
        return line_chart(captions, {name: points for name, points in series.items() if points})

    def _models(self) -> tuple[ModelResult, ...]:
        return self._comparison.models if self._comparison else ()


def _as_percent(value: float) -> str:
    return f"{value * 100:.0f} %"


def _loss(loss: float | None, missing: str) -> str:
    return missing if loss is None else f"{loss:.3f}"


def _short(text: str, length: int = _LONGEST_TEXT) -> str:
    return text if len(text) <= length else f"{text[:length]} …"


def _duration(span: float) -> str:
    """Return seconds as people say them."""
    minutes = round(span / 60)
    if minutes < 60:  # noqa: PLR2004 - an hour
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _rows(value: object, path: str = "") -> list[tuple[str, str]]:
    """Return the leaves of a request as (field, value)."""
    if isinstance(value, dict) and value:
        return [row for key, item in value.items() for row in _rows(item, f"{path}.{key}" if path else str(key))]
    if isinstance(value, str):
        return [(path, value)]
    return [(path, msgspec.json.encode(value).decode())] if path else []
