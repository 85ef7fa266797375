"""What a run leaves for people: its report, the page of its data set, the notification."""

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import msgspec

from customization import budget, leases, notices
from customization.answering import read_test_records
from customization.catalogue import load_catalogue
from customization.comparison import Comparison
from customization.dataset_page import DatasetPage, render_dataset
from customization.history import read_history, runs_csv
from customization.inference import build_question
from customization.json_types import JsonObject
from customization.leases import Lease
from customization.links import Links
from customization.money import Estimate, Settlement, estimate, load_prices, settle
from customization.prepared import read_profile, usage_of
from customization.profile import Profile
from customization.report import (
    MODEL_PLACE,
    FailureReport,
    FileReport,
    ReportData,
    ResourceReport,
    StageReport,
    TimelineEntry,
    call_as_python,
    render_report,
    report_json,
)
from customization.results import comparison_key, read_metrics
from customization.runs import FAILED, SUCCEEDED, Call, Plan, note, read_plan

if TYPE_CHECKING:
    from customization.gateway import Gateway

_HTML = "text/html; charset=utf-8"
# What a run does after each entry of its timeline, as far as it takes long
_PARTS = {
    "PlanRun": "beforeTraining",
    "CreateCustomizationJob": "ofTraining",
    "CreateModelDeployment": "ofServing",
    "CreateProvisionedThroughput": "ofServing",
}


def publish_report(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Write report and data set page, close the run's row and return {reportUri, subject, message}."""
    held = _leases(gateway, plan)
    data = _report_data(gateway, plan, call, held)
    key = _put_report(gateway, plan, data)
    budget.give_back(gateway, plan.run_id, call.attempt, call.now)
    ended: JsonObject = {"state": SUCCEEDED, "endedAt": call.now.isoformat(), "reportKey": key}
    note(gateway, call, {**ended, "minutes": _minutes(data.timeline)})
    publish_dataset(gateway, plan, call.now)
    told = notices.finished(
        data,
        held,
        execution_arn=plan.execution_arn,
        key=key,
        links=Links.of(gateway.settings),
        kept_short=_kept_short(gateway.runs.get(plan.run_id) or {}),
    )
    return {"reportUri": gateway.artifacts.uri(key), **told.payload()}


def publish_estimate(gateway: "Gateway", plan: Plan, call: Call) -> str:
    """Write the report of a run that was only estimated, and return its key."""
    data = msgspec.structs.replace(_known_data(gateway, plan, call, [], "PrepareDataset"), state="estimated")
    key = _put_report(gateway, plan, data)
    note(gateway, call, {"reportKey": key})
    publish_dataset(gateway, plan, call.now)
    return key


def publish_failure(gateway: "Gateway", call: Call) -> str:
    """Write the report of a run that failed, once its resources are released.

    Returns the report's key; nothing is written, and "" returned, where another attempt owns the run by now.
    """
    row = gateway.runs.get(call.run_id) or {}
    if row.get("state") != FAILED or row.get("attempt") != call.attempt:
        return ""
    plan = read_plan(gateway, call.run_id)
    failure = FailureReport(
        error=str(row.get("error") or ""),
        cause=str(row.get("cause") or ""),
        fix=str(row.get("fix") or ""),
        state=str(row.get("failedState") or ""),
    )
    there = sorted(leases.of_run_there(gateway, plan.run_id), key=_opened)
    data = msgspec.structs.replace(
        _known_data(gateway, plan, call, there, "ReleaseResources"), state="failed", failure=failure
    )
    key = _put_report(gateway, plan, data)
    note(gateway, call, {"reportKey": key})
    publish_dataset(gateway, plan, call.now)
    return key


def publish_dataset(gateway: "Gateway", plan: Plan, now: datetime) -> None:
    """Write the page that compares all runs of the data set, and the same as runs.csv."""
    folder = f"datasets/{plan.dataset}/"
    runs = read_history(gateway, plan.dataset)
    links = Links.of(gateway.settings)
    page = DatasetPage(
        dataset=plan.dataset,
        language="ja" if plan.language == "ja" else "en",
        is_rehearsal=gateway.settings.is_rehearsal,
        now=now,
        runs=runs,
        links={run.run_id: links.artifact(run.report_key) for run in runs if run.report_key},
    )
    gateway.artifacts.put(f"{folder}index.html", render_dataset(page).encode(), _HTML)
    gateway.artifacts.put(f"{folder}runs.csv", runs_csv(runs, gateway.artifacts.uri), "text/csv; charset=utf-8")


def _put_report(gateway: "Gateway", plan: Plan, data: ReportData) -> str:
    key = f"{plan.prefix}report.html"
    gateway.artifacts.put(key, render_report(data).encode(), _HTML)
    gateway.artifacts.put(f"{plan.prefix}report.json", report_json(data), "application/json")
    return key


def _report_data(gateway: "Gateway", plan: Plan, call: Call, held: list[Lease]) -> ReportData:
    comparison = gateway.artifacts.decoded(comparison_key(plan), Comparison)
    served_arn = _served_arn(gateway, plan, held)
    return msgspec.structs.replace(
        _known_data(gateway, plan, call, held, "PublishReport"),
        comparison=comparison,
        settlement=_settlement(gateway, plan, call),
        served_arn=served_arn,
        call=_example_call(gateway, plan, served_arn),
    )


def _known_data(gateway: "Gateway", plan: Plan, call: Call, held: list[Lease], state: str) -> ReportData:
    """Return what is known however far the run came; `state` of the machine is the one that reports."""
    stages = tuple(_stages(gateway, plan))
    return ReportData(
        run_id=plan.run_id,
        dataset=plan.dataset,
        state="succeeded",
        language="ja" if plan.language == "ja" else "en",
        is_rehearsal=gateway.settings.is_rehearsal,
        name=plan.name,
        region=plan.region,
        base_model=plan.base_model_identifier,
        execution_arn=plan.execution_arn,
        started_at=plan.started_at,
        ended_at=call.now,
        stages=stages,
        profile=gateway.artifacts.decoded_if_there(f"{plan.prefix}data/profile.json", Profile),
        request=_request(plan),
        estimate=gateway.artifacts.decoded_if_there(f"{plan.prefix}estimate.json", Estimate),
        resources=tuple(_resource(lease) for lease in held),
        timeline=(*_timeline(gateway, plan, stages, held, call.now), TimelineEntry(call.now, state)),
        files=tuple(FileReport(pin.key, pin.version_id, pin.size, pin.sha256) for pin in plan.files.values()),
        notes=tuple(_notes(gateway, plan)),
    )


def _stages(gateway: "Gateway", plan: Plan) -> Iterator[StageReport]:
    """Yield the run's customization jobs with what is known of them."""
    row = gateway.runs.get(plan.run_id) or {}
    base = plan.base_model_identifier
    for number, stage in enumerate(plan.stages):
        model_arn = str(row.get(f"modelArn{number}") or "")
        yield StageReport(
            customization_type=stage.customization_type,
            training_id=stage.training_id,
            base_model=base,
            hyper_parameters=stage.hyper_parameters,
            job_name=str(row.get(f"jobName{number}") or ""),
            job_arn=str(row.get(f"jobArn{number}") or ""),
            model_arn=model_arn,
            was_adopted=bool(row.get(f"jobAdopted{number}")),
            metrics=read_metrics(gateway, plan, number + 1),
        )
        base = model_arn


def _served_arn(gateway: "Gateway", plan: Plan, held: list[Lease]) -> str:
    """Return what serves the model still, or nothing."""
    kept = next((lease for lease in _serving(plan, held) if lease.state == "OPEN"), None)
    served = gateway.bedrock.served(plan.serving_mode, kept.identifier) if kept else None
    return served.arn if served else ""


def _serving(plan: Plan, held: list[Lease]) -> list[Lease]:
    """Return the leases of what serves the model of this attempt: another one's may be kept beside it."""
    own = (lease for lease in held if lease.execution_arn == plan.execution_arn)
    return [lease for lease in own if lease.kind == plan.serving_mode]


def _example_call(gateway: "Gateway", plan: Plan, served_arn: str) -> str:
    """Return how the model is asked a test record, as Python."""
    records = read_test_records(gateway, plan) if read_profile(gateway, plan).test_records else []
    if not records:
        return ""
    model = load_catalogue().find(plan.base_model_identifier)
    return call_as_python(build_question(model, served_arn or MODEL_PLACE, records[0], plan.inference), plan.region)


def _leases(gateway: "Gateway", plan: Plan) -> list[Lease]:
    """Return the leases of the run's resources, closed ones too, in the order in which they were opened."""
    return sorted(leases.of_run(gateway, plan.run_id), key=_opened)


def _opened(lease: Lease) -> datetime:
    return lease.opened_at


def _request(plan: Plan) -> JsonObject:
    shown: JsonObject = msgspec.to_builtins(plan)
    hidden = {"files", "stages", "warnings", "executionArn", "runId", "attempt", "startedAt"}
    return {name: value for name, value in shown.items() if name not in hidden}


def _settlement(gateway: "Gateway", plan: Plan, call: Call) -> Settlement:
    """Set what was used beside the estimate."""
    row = gateway.runs.get(plan.run_id) or {}
    actual = budget.used(gateway, row, usage_of(plan, read_profile(gateway, plan)), call.now)
    return settle(budget.read_estimate(gateway, plan), estimate(actual, load_prices(), call.now))


def _resource(lease: Lease) -> ResourceReport:
    state: Literal["released", "billing", "kept"] = "kept" if lease.keep_until else "billing"
    kinds: dict[str, Literal["job", "model", "on-demand", "provisioned"]] = {
        "job": "job",
        "model": "model",
        "on-demand": "on-demand",
        "provisioned": "provisioned",
    }
    return ResourceReport(
        name=lease.bedrock_name,
        kind=kinds[lease.kind],
        state="released" if lease.state == "CLOSED" else state,
        hourly_usd=lease.hourly_usd,
        until=lease.keep_until,
        is_endless=notices.is_endless(lease),
    )


def _timeline(
    gateway: "Gateway", plan: Plan, stages: tuple[StageReport, ...], held: list[Lease], now: datetime
) -> list[TimelineEntry]:
    entries = [TimelineEntry(plan.started_at, "PlanRun")]
    for stage in stages:
        job = gateway.bedrock.job(stage.job_arn) if stage.job_arn else None
        if job is not None:
            entries.append(TimelineEntry(job.created, "CreateCustomizationJob", stage.job_name))
            entries.append(TimelineEntry(job.ended or now, "CollectTrainingMetrics", stage.job_name))
    for lease in _serving(plan, held):
        created = "CreateModelDeployment" if lease.kind == "on-demand" else "CreateProvisionedThroughput"
        entries.append(TimelineEntry(lease.opened_at, created, lease.bedrock_name))
        if lease.closed_at:
            entries.append(TimelineEntry(lease.closed_at, "ReleaseServing", lease.bedrock_name))
    return sorted(entries, key=lambda entry: entry.at)


def _minutes(timeline: tuple[TimelineEntry, ...]) -> JsonObject:
    """Return where the minutes of the run went; the model of an earlier run took none of them for its training."""
    started = next(entry.at for entry in timeline if entry.state == "PlanRun")
    spent: dict[str, float] = {}
    for entry, following in pairwise(entry for entry in timeline if entry.at >= started):
        if part := _PARTS.get(entry.state):
            spent[part] = spent.get(part, 0.0) + (following.at - entry.at).total_seconds() / 60
    return {part: round(minutes, 1) for part, minutes in spent.items()}


def _notes(gateway: "Gateway", plan: Plan) -> Iterator[str]:
    yield from plan.warnings
    row = gateway.runs.get(plan.run_id) or {}
    for noted in (row.get("notes"), row.get("comparisonNotes")):
        yield from (str(item) for item in (noted if isinstance(noted, list) else []))
    yield from filter(None, (_kept_short(row),))


def _kept_short(row: JsonObject) -> str:
    """Return what ReleaseServing noted of a model that the budget serves for a shorter time than was asked for."""
    return str(row.get("keptShort") or "")
