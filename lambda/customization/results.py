"""What a run came to: every record scored, and base, custom model and the model in use compared."""

from typing import TYPE_CHECKING

import msgspec

from customization.answering import read_test_records
from customization.compared_models import predictions_key, read_compared, scores_for_row
from customization.comparing import compare, not_compared, score_records
from customization.comparison import Comparison, ComparisonSettings
from customization.evaluation import IN_USE
from customization.json_types import JsonObject
from customization.prepared import read_profile
from customization.runs import Call, Plan, note
from customization.texts import Sentence, say
from customization.training_metrics import Finding, TrainingMetrics

if TYPE_CHECKING:
    from customization.gateway import Gateway


def comparison_key(plan: Plan) -> str:
    """Return where the comparison of a run lies."""
    return f"{plan.prefix}evaluation/comparison.json"


def compare_models(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Compare the models that have answered the run's test records; return {verdict, promote}.

    Every record's answers and scores are kept in predictions.jsonl.
    """
    findings = _findings(gateway, plan)
    comparison = not_compared(findings=findings)
    profile = read_profile(gateway, plan)
    notes: list[str] = []
    if profile.test_records and plan.serving_mode != "none":
        records = read_test_records(gateway, plan)
        compared = read_compared(gateway, plan, records)
        notes = [say(sentence, plan.language) for sentence in compared.notes]
        results = score_records(records, compared.answers, plan.evaluation.primary_metric)
        comparison = compare(
            results,
            ComparisonSettings(
                minimum_gain=plan.evaluation.minimum_gain,
                primary_metric=plan.evaluation.primary_metric,
                max_tokens=plan.inference.max_tokens,
                findings=findings,
            ),
        )
        comparison = _unless_lost(gateway, call, comparison)
        lines = msgspec.json.Encoder().encode_lines(results)
        gateway.artifacts.put(predictions_key(plan.run_id), lines, "application/x-ndjson")
    is_improvement = comparison.verdict == "better" and not comparison.is_worse_than(IN_USE)
    promote = plan.promote == "if-better" and is_improvement
    if comparison.verdict == "better":
        step = _after_a_gain(plan, is_promoted=promote, is_improvement=is_improvement)
        comparison = msgspec.structs.replace(comparison, next_step=step)
    gateway.artifacts.put(comparison_key(plan), msgspec.json.encode(comparison))
    row: JsonObject = {"verdict": comparison.verdict, "reason": say(comparison.reason, plan.language)}
    scores = scores_for_row(comparison, profile.test_digest)
    note(gateway, call, {**row, **scores, "comparisonNotes": [*notes]})
    return {"verdict": comparison.verdict, "promote": promote}


def _unless_lost(gateway: "Gateway", call: Call, comparison: Comparison) -> Comparison:
    """Return `comparison`, without a verdict on a model that was gone before it had answered every record."""
    lost = (gateway.runs.get(call.run_id) or {}).get("modelLost")
    if not lost:
        return comparison
    reason, step = Sentence("reason.modelLost", {"arn": str(lost)}), Sentence("nextStep.modelLost")
    return msgspec.structs.replace(comparison, verdict="inconclusive", reason=reason, next_step=step)


def _after_a_gain(plan: Plan, *, is_promoted: bool, is_improvement: bool) -> Sentence:
    """Return what to do with a model that answers better than its base model."""
    run = {"dataset": plan.dataset, "runId": plan.run_id}
    if is_promoted:
        return Sentence("nextStep.promoted", {"dataset": plan.dataset})
    if plan.subset is not None:
        return Sentence("nextStep.betterOnSubset")
    return Sentence("nextStep.better" if is_improvement else "nextStep.betterThanBaseOnly", run)


def _findings(gateway: "Gateway", plan: Plan) -> tuple[Finding, ...]:
    """Return what the metrics of the last stage, which made the custom model, say of its training."""
    metrics = read_metrics(gateway, plan, len(plan.stages))
    return metrics.findings if metrics else ()


def read_metrics(gateway: "Gateway", plan: Plan, stage: int) -> TrainingMetrics | None:
    """Return what was measured in a stage, counted from 1, or None while nothing is."""
    return gateway.artifacts.decoded_if_there(f"{plan.prefix}training-metrics-{stage}.json", TrainingMetrics)
