"""What was tried for a data set: its runs from the table of runs, compared with each other."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from customization.errors import ResourceNotFound
from customization.json_types import Json, JsonObject
from customization.model_in_use import read_in_use
from customization.runs import MOST_STAGES, is_run
from customization.texts import one_line

if TYPE_CHECKING:
    from customization.gateway import Gateway

# A rehearsal leaves the run's row under this name beside its report.
ROW_FILE = "row.json"
_BY_DATASET = "byDataset"
_CHECKSUM_DIGITS = 12
# What a spreadsheet takes for a formula when a cell begins with it (OWASP, "CSV Injection")
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
_LONGEST_CELL = 8_000  # Excel takes 32,767 characters


class ScoreInterval(msgspec.Struct, frozen=True, rename="camel"):
    """A mean score, or a mean difference of scores, with its 95 % interval; 0.02 is two points."""

    mean: float
    low: float
    high: float


class Change(msgspec.Struct, frozen=True, rename="camel"):
    """A setting in which a run differs from the run before it; empty where one of the two has it not."""

    setting: str
    before: str
    after: str


class RunSummary(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A run as the table of runs knows it; what did not come to pass is empty or None.

    `settings` are what was asked for, as text by dotted name; checksums of the data files are among them. `scores` are
    those of `metric` by side, `gains` the custom model's score minus that of another side. `minutes` are those before
    training (beforeTraining), of it (ofTraining) and of serving (ofServing). Times are ISO 8601 in UTC.
    """

    run_id: str
    dataset: str
    name: str = ""
    state: str
    attempt: int = 1
    verdict: str = ""
    reason: str = ""
    is_in_use: bool = False
    promoted_at: str = ""
    started_at: str
    ended_at: str = ""
    base_model_identifier: str = ""
    model_arn: str = ""
    execution_arn: str = ""
    settings: dict[str, str] = {}
    changes: tuple[Change, ...] = ()
    records: dict[str, int] = {}
    training_loss: float | None = None
    validation_loss: float | None = None
    metric: str = ""
    pairs: int = 0
    scores: dict[str, ScoreInterval] = {}
    gains: dict[str, ScoreInterval] = {}
    estimated_usd: float | None = None
    spent_usd: float | None = None
    minutes: dict[str, float] = {}
    report_key: str = ""
    error: str = ""


def read_history(gateway: "Gateway", dataset: str) -> tuple[RunSummary, ...]:
    """Return every run of a data set, newest first."""
    in_use = read_in_use(gateway, dataset)
    rows = gateway.runs.query(_BY_DATASET, "dataset", dataset)
    return summarize(rows, in_use.promoted_run_id if in_use else "")


def read_run(gateway: "Gateway", run_id: str) -> RunSummary:
    """Return one run by itself; raises ResourceNotFound."""
    row = gateway.runs.get(run_id)
    if row is None:
        raise ResourceNotFound.of("error.runGone", runId=run_id)
    return _summary(row, "")


def summarize(rows: Iterable[JsonObject], run_in_use: str = "") -> tuple[RunSummary, ...]:
    """Return the runs among the rows, newest first, each with what differs from the run that started before it."""
    planned = [row for row in rows if is_run(str(row["runId"])) and row.get("startedAt")]
    summaries: list[RunSummary] = []
    for row in sorted(planned, key=lambda row: str(row["startedAt"])):
        summary = _summary(row, run_in_use)
        if summaries:
            summary = msgspec.structs.replace(summary, changes=_changes(summaries[-1].settings, summary.settings))
        summaries.append(summary)
    return tuple(reversed(summaries))


def _summary(row: JsonObject, run_in_use: str) -> RunSummary:
    stage = max((number for number in range(MOST_STAGES) if row.get(f"modelArn{number}")), default=0)
    known = {name: value for name, value in row.items() if value is not None}
    return msgspec.convert(
        {
            **known,
            "isInUse": row["runId"] == run_in_use,
            "modelArn": str(row.get(f"modelArn{stage}") or ""),
            "trainingLoss": row.get(f"trainingLoss{stage}"),
            "validationLoss": row.get(f"validationLoss{stage}"),
            "settings": _settings(row),
            "changes": (),
        },
        RunSummary,
        strict=False,
    )


def _settings(row: JsonObject) -> dict[str, str]:
    stages = row.get("stages")
    chosen: JsonObject = {"baseModelIdentifier": row.get("baseModelIdentifier"), "data": _data(row.get("files"))}
    stage_list = [stage for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    if stage_list:
        chosen["customizationType"] = " + ".join(str(stage.get("customizationType")) for stage in stage_list)
    for stage in stage_list:
        kind = str(stage.get("customizationType"))
        chosen["hyperParameters" if len(stage_list) == 1 else f"hyperParameters.{kind}"] = stage.get("hyperParameters")
    asked = ("subset", "fieldMapping", "stripRoleCues", "inference", "evaluation", "servingMode")
    chosen |= {name: row.get(name) for name in asked}
    return dict(_flat(chosen, ""))


def _data(files: Json) -> Json:
    """Return the first digits of each file's checksum: enough to see that a file has changed."""
    return {name: str(value)[:_CHECKSUM_DIGITS] for name, value in files.items()} if isinstance(files, dict) else None


def _flat(value: Json, name: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for inner, found in value.items():
            yield from _flat(found, f"{name}.{inner}" if name else inner)
    elif isinstance(value, list):
        if value:
            yield name, ", ".join(map(str, value))
    elif value is not None and value != "":
        yield name, str(value)


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Change, ...]:
    names = dict.fromkeys([*after, *before])
    return tuple(
        Change(name, before.get(name, ""), after.get(name, "")) for name in names if before.get(name) != after.get(name)
    )


def describe_change(change: Change) -> str:
    """Return a change as one line; what the data are is told by checksums, so only that they changed is said."""
    if change.setting.startswith("data."):
        what = "changed" if change.before and change.after else ("added" if change.after else "left out")
        return f"{change.setting.removeprefix('data.')} {what}"
    return f"{change.setting} {change.before or '(default)'} -> {change.after or '(default)'}"


def runs_csv(runs: Iterable[RunSummary], uri: Callable[[str], str]) -> bytes:
    """Return the runs as CSV for a spreadsheet, with a byte order mark; no cell of theirs is taken for a formula.

    `uri` makes the address of a report of its key.
    """
    out = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for run in runs:
        cells = {name: _cell(value) for name, value in _columns(run, uri).items()}
        if writer is None:
            writer = csv.DictWriter(out, fieldnames=list(cells), lineterminator="\r\n")
            writer.writeheader()
        writer.writerow(cells)
    return out.getvalue().encode("utf-8-sig")


def _columns(run: RunSummary, uri: Callable[[str], str]) -> dict[str, str | float | None]:
    intervals = {f"{side}Score": run.scores.get(side) for side in ("base", "custom", "inUse")}
    intervals |= {"gain": run.gains.get("base"), "gainOverInUse": run.gains.get("inUse")}
    numbers = {
        f"{name}{part}": getattr(interval, part.lower() or "mean") if interval else None
        for name, interval in intervals.items()
        for part in ("", "Low", "High")
    }
    return {
        "runId": run.run_id,
        "name": run.name,
        "state": run.state,
        "verdict": run.verdict,
        "isInUse": str(run.is_in_use).lower(),
        "startedAt": run.started_at,
        "endedAt": run.ended_at,
        "baseModelIdentifier": run.base_model_identifier,
        "changes": "; ".join(describe_change(change) for change in run.changes),
        "trainRecords": run.records.get("train"),
        "trainingLoss": run.training_loss,
        "validationLoss": run.validation_loss,
        "metric": run.metric,
        "pairs": run.pairs,
        **numbers,
        "estimatedUsd": run.estimated_usd,
        "spentUsd": run.spent_usd,
        "modelArn": run.model_arn,
        "report": uri(run.report_key) if run.report_key else "",
    }


def _cell(value: str | float | None) -> str | float:
    if isinstance(value, str):
        text = one_line(value, _LONGEST_CELL)
        return f"'{text}" if text.startswith(_FORMULA) else text
    return "" if value is None else value


def describe_runs(runs: Iterable[RunSummary], uri: Callable[[str], str]) -> str:
    """Return the runs as text for a terminal, a paragraph each."""
    return "\n\n".join("\n".join(_lines(run, uri)) for run in runs)


def _lines(run: RunSummary, uri: Callable[[str], str]) -> Iterable[str]:
    marks = [run.state, run.verdict, "IN USE" if run.is_in_use else ""]
    title = f"{run.run_id}  {run.started_at[:16].replace('T', ' ')}  {', '.join(filter(None, marks))}"
    details = {
        "name": run.name,
        "changed": "; ".join(describe_change(change) for change in run.changes),
        "losses": ", ".join(
            f"{what} {loss:.4f}"
            for what, loss in (("training", run.training_loss), ("validation", run.validation_loss))
            if loss is not None
        ),
        run.metric or "scores": _scores(run),
        "cost": _cost(run),
        "error": run.error,
        "report": uri(run.report_key) if run.report_key else "",
    }
    yield title
    yield from (f"  {label:14}{one_line(text)}" for label, text in details.items() if text)


def _scores(run: RunSummary) -> str:
    means = ", ".join(f"{side} {score.mean:.1%}" for side, score in run.scores.items())
    gains = ", ".join(
        f"{gain.mean * 100:+.1f} points over {side} ({gain.low * 100:+.1f} to {gain.high * 100:+.1f})"
        for side, gain in run.gains.items()
    )
    return "; ".join(filter(None, (means, gains)))


def _cost(run: RunSummary) -> str:
    spent = f"{run.spent_usd:.2f} USD" if run.spent_usd is not None else ""
    estimated = f"{run.estimated_usd:.2f} USD estimated" if run.estimated_usd is not None else ""
    return ", ".join(filter(None, (spent, estimated)))
