"""What a run came to: the comparison, the report and the notification."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from customization import budget, leases
from customization.answering import model_of, read_answers, read_test_records
from customization.catalogue import load_catalogue
from customization.comparison import Comparison, ComparisonSettings, RecordResult, compare, not_compared, score_records
from customization.evaluation import BASE, CUSTOM, IN_USE
from customization.inference import build_call
from customization.json_types import JsonObject
from customization.leases import Lease
from customization.model_in_use import read_in_use
from customization.money import AnswersUsage, Settlement, Usage, estimate, load_prices, settle
from customization.preparation import read_profile, usage_of
from customization.report import (
    FileReport,
    ReportData,
    ResourceReport,
    StageReport,
    TimelineEntry,
    call_as_python,
    render_report,
    report_json,
)
from customization.runs import SUCCEEDED, Call, Plan, note
from customization.texts import Sentence, say
from customization.training_metrics import TrainingMetrics

if TYPE_CHECKING:
    from customization.gateway import Gateway


def _comparison_key(plan: Plan) -> str:
    return f"{plan.prefix}evaluation/comparison.json"


def compare_models(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Compare base, custom model and, where its answers are kept, the model in use; return {verdict, promote}.

    Every record's answers and scores are kept in predictions.jsonl.
    """
    comparison = not_compared()
    if read_profile(gateway, plan).test_records and plan.serving_mode != "none":
        results = _results(gateway, plan)
        comparison = compare(
            results,
            ComparisonSettings(
                minimum_gain=plan.evaluation.minimum_gain,
                primary_metric=plan.evaluation.primary_metric,
                max_tokens=plan.inference.max_tokens,
            ),
        )
        lines = msgspec.json.Encoder().encode_lines(results)
        gateway.artifacts.put(f"{plan.prefix}evaluation/predictions.jsonl", lines, "application/x-ndjson")
    is_improvement = comparison.verdict == "better" and not comparison.is_worse_than(IN_USE)
    promote = plan.promote == "if-better" and is_improvement
    if comparison.verdict == "better":
        step = _after_a_gain(plan, is_promoted=promote, is_improvement=is_improvement)
        comparison = msgspec.structs.replace(comparison, next_step=step)
    gateway.artifacts.put(_comparison_key(plan), msgspec.json.encode(comparison))
    metric = comparison.primary.metric if comparison.primary else ""
    scores: JsonObject = {
        model.side: msgspec.to_builtins(model.scores[metric]) for model in comparison.models if metric in model.scores
    }
    row: JsonObject = {"verdict": comparison.verdict, "reason": say(comparison.reason, "en")}
    note(gateway, call, {**row, "metric": metric, "scores": scores})
    return {"verdict": comparison.verdict, "promote": promote}


def _after_a_gain(plan: Plan, *, is_promoted: bool, is_improvement: bool) -> Sentence:
    """Return what to do with a model that answers better than its base model."""
    run = {"dataset": plan.dataset, "runId": plan.run_id}
    if is_promoted:
        return Sentence("nextStep.promoted", {"dataset": plan.dataset})
    if plan.subset is not None:
        return Sentence("nextStep.betterOnSubset")
    return Sentence("nextStep.better" if is_improvement else "nextStep.betterThanBaseOnly", run)


def _results(gateway: "Gateway", plan: Plan) -> list[RecordResult]:
    records = read_test_records(gateway, plan)
    models = {side: model_of(plan, side) for side in (BASE, CUSTOM)}
    in_use = read_in_use(gateway, plan.dataset)
    if in_use and in_use.training_id != plan.training_id:
        models[IN_USE] = in_use.training_id
    answers = {side: read_answers(gateway, plan, model, len(records)) for side, model in models.items()}
    return score_records(
        records, {side: given for side, given in answers.items() if given}, plan.evaluation.primary_metric
    )


def publish_report(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Write report.html and report.json, close the run's row and return {reportUri, subject, message}."""
    data = _report_data(gateway, plan, call)
    key = f"{plan.prefix}report.html"
    gateway.artifacts.put(key, render_report(data).encode(), "text/html; charset=utf-8")
    gateway.artifacts.put(f"{plan.prefix}report.json", report_json(data))
    spent = data.settlement.actual_usd if data.settlement else 0.0
    budget.give_back(gateway, plan.run_id, call.attempt, spent)
    note(gateway, call, {"state": SUCCEEDED, "endedAt": call.now.isoformat(), "spentUsd": spent, "reportKey": key})
    comparison = data.comparison or not_compared()
    return {
        "reportUri": gateway.artifacts.uri(key),
        "subject": f"{comparison.verdict.capitalize()}: {plan.run_id}"[:99],
        "message": _message(gateway, plan, data, comparison, key),
    }


def _message(gateway: "Gateway", plan: Plan, data: ReportData, comparison: Comparison, key: str) -> str:
    billing = [item.name for item in data.resources if item.state != "released"]
    lines = [
        say(comparison.reason, plan.language),
        say(comparison.next_step, plan.language),
        f"{data.settlement.actual_usd:.2f} USD" if data.settlement else "",
        "" if not billing else f"Still bills: {', '.join(billing)}",
        gateway.artifacts.uri(key),
        plan.execution_arn,
    ]
    return "\n\n".join(line for line in lines if line)


def _report_data(gateway: "Gateway", plan: Plan, call: Call) -> ReportData:
    comparison = msgspec.json.decode(gateway.artifacts.read(_comparison_key(plan)), type=Comparison)
    held = _leases(gateway, plan)
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
        started_at=plan.started_at,
        ended_at=call.now,
        comparison=comparison,
        stages=stages,
        profile=read_profile(gateway, plan),
        request=_request(plan),
        estimate=budget.read_estimate(gateway, plan),
        settlement=_settlement(gateway, plan, comparison, held, call),
        resources=tuple(_resource(lease) for lease in held),
        timeline=tuple(_timeline(gateway, plan, stages, held, call.now)),
        files=tuple(FileReport(pin.key, pin.version_id, pin.size, pin.sha256) for pin in plan.files.values()),
        notes=tuple(_notes(gateway, plan)),
        call=_example_call(gateway, plan, held),
    )


def _example_call(gateway: "Gateway", plan: Plan, held: list[Lease]) -> str:
    """Return how the served model is asked a test record, as Python, where it is still served."""
    kept = next((lease for lease in held if lease.kind == plan.serving_mode and lease.state == "OPEN"), None)
    served = gateway.bedrock.served(plan.serving_mode, kept.bedrock_name) if kept else None
    records = read_test_records(gateway, plan) if served else []
    if served is None or not records:
        return ""
    model = load_catalogue().find(plan.base_model_identifier)
    return call_as_python(build_call(model, served.arn, records[0], plan.inference), plan.region)


def _leases(gateway: "Gateway", plan: Plan) -> list[Lease]:
    """Return the leases of the run's resources, closed ones too, in the order in which they were opened."""
    return sorted(leases.of_run(gateway, plan.run_id), key=lambda lease: lease.opened_at)


def _stages(gateway: "Gateway", plan: Plan) -> Iterator[StageReport]:
    row = gateway.runs.get(plan.run_id) or {}
    base = plan.base_model_identifier
    for number, stage in enumerate(plan.stages):
        metrics = gateway.artifacts.read_if_there(f"{plan.prefix}training-metrics-{number + 1}.json")
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
            metrics=msgspec.json.decode(metrics, type=TrainingMetrics) if metrics else None,
        )
        base = model_arn


def _request(plan: Plan) -> JsonObject:
    shown: JsonObject = msgspec.to_builtins(plan)
    hidden = {"files", "stages", "warnings", "executionArn", "runId", "attempt", "startedAt"}
    return {name: value for name, value in shown.items() if name not in hidden}


def _settlement(gateway: "Gateway", plan: Plan, comparison: Comparison, held: list[Lease], call: Call) -> Settlement:
    """Set what was used beside the estimate: tokens as the models counted them, hours as the lease ran."""
    asked = {model.side: AnswersUsage(model.input_tokens or 0, model.output_tokens or 0) for model in comparison.models}
    expected = usage_of(plan, read_profile(gateway, plan))
    served = next((lease for lease in held if lease.kind == plan.serving_mode), None)
    hours = ((served.closed_at or call.now) - served.opened_at).total_seconds() / 3600 if served else 0.0
    actual = Usage(
        model=expected.model,
        region=expected.region,
        training=expected.training,
        baseline=asked.get(BASE, AnswersUsage()),
        custom=asked.get(CUSTOM, AnswersUsage()),
        serving_mode=expected.serving_mode,
        model_units=expected.model_units,
        serving_hours=hours,
        stored_models=sum(1 for lease in held if lease.kind == leases.MODEL and lease.state == "OPEN"),
        stored_months=expected.stored_months,
    )
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
    )


def _timeline(
    gateway: "Gateway", plan: Plan, stages: tuple[StageReport, ...], held: list[Lease], now: datetime
) -> list[TimelineEntry]:
    entries = [TimelineEntry(plan.started_at, "PlanRun"), TimelineEntry(now, "PublishReport")]
    for stage in stages:
        job = gateway.bedrock.job(stage.job_arn) if stage.job_arn else None
        if job is not None:
            entries.append(TimelineEntry(job.created, "CreateCustomizationJob", stage.job_name))
            entries.append(TimelineEntry(job.ended or now, "CollectTrainingMetrics", stage.job_name))
    for lease in held:
        if lease.kind == plan.serving_mode:
            created = "CreateModelDeployment" if lease.kind == "on-demand" else "CreateProvisionedThroughput"
            entries.append(TimelineEntry(lease.opened_at, created, lease.bedrock_name))
            if lease.closed_at:
                entries.append(TimelineEntry(lease.closed_at, "ReleaseServing", lease.closed_because))
    return sorted(entries, key=lambda entry: entry.at)


def _notes(gateway: "Gateway", plan: Plan) -> Iterator[str]:
    yield from plan.warnings
    row = gateway.runs.get(plan.run_id) or {}
    noted = row.get("notes")
    yield from (str(item) for item in (noted if isinstance(noted, list) else []))
