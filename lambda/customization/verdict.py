"""The verdict on a comparison, why, and the one thing to do next."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from customization.evaluation import BASE, CUSTOM, IN_USE
from customization.texts import Sentence
from customization.training_metrics import DIVERGENCE, OVERFITTING, UNDER_TRAINING, Finding

if TYPE_CHECKING:
    from customization.comparison import CategoryResult, Comparison, ComparisonSettings, Difference, ModelResult

Verdict = Literal["better", "worse", "inconclusive", "not compared"]

MINIMUM_PAIRS = 30
MAXIMUM_SHARE = 0.05
# Scores that differ by less are the same.
TIE = 1e-9

_Z_95 = 1.96
_HOPELESS = 20
_NAMED_CATEGORIES = 3
# compare_models knows which run it is
_PROMOTE = Sentence("nextStep.better", {"dataset": "<dataset>", "runId": "<runId>"})


def judge(comparison: "Comparison", settings: "ComparisonSettings") -> tuple[Verdict, Sentence, Sentence]:
    """Return the verdict, why, and what to do next, from the comparison's numbers and the training's findings.

    What the training did wrong comes before what the scores alone suggest: more test records cannot mend it.
    """
    difference = comparison.difference(comparison.baseline)
    doubt = _doubt(comparison, difference, settings)
    if doubt or difference is None:
        return "inconclusive", *(doubt or _too_few_pairs(0))
    gain, values, terms = difference.gain, _values(comparison, difference), _terms(comparison)
    if gain.low > settings.minimum_gain:
        return "better", Sentence("reason.better", values, terms), _PROMOTE
    if gain.high < 0:
        step = after_training(settings.findings, comparison.categories) or _after_a_loss(comparison.categories)
        return "worse", Sentence("reason.worse", values, terms), step
    if settings.minimum_gain > 0 and gain.high <= settings.minimum_gain:
        values["minimumGain"] = points(settings.minimum_gain)
        step = after_training(settings.findings) or Sentence("nextStep.gainTooSmall")
        return "inconclusive", Sentence("reason.gainTooSmall", values, terms), step
    step = after_training(settings.findings) or _more_records(difference, settings)
    return "inconclusive", Sentence("reason.undecided", values, terms), step


def against_in_use(comparison: "Comparison") -> Sentence | None:
    """Return how the custom model stands against the model in use; None without one, or where it is the baseline."""
    in_use = next((model for model in comparison.models if model.side == IN_USE), None)
    if in_use is None or comparison.baseline != BASE:
        return None
    if _has_failed(in_use, comparison.records) or _is_cut(in_use):
        values = {"failed": str(in_use.failed), "cut": str(in_use.cut), "records": str(comparison.records)}
        return Sentence("reason.againstInUseUnreliable", values)
    difference = comparison.difference(IN_USE)
    pairs = difference.pairs if difference else 0
    if difference is None or pairs < MINIMUM_PAIRS:
        return Sentence("reason.againstInUseTooFewPairs", {"pairs": str(pairs), "minimum": str(MINIMUM_PAIRS)})
    gain = difference.gain
    outcome = "Better" if gain.low > 0 else "Worse" if gain.high < 0 else "Undecided"
    return Sentence(f"reason.againstInUse{outcome}", _gain_values(difference), _terms(comparison, IN_USE))


def after_training(findings: Sequence[Finding], categories: "Sequence[CategoryResult]" = ()) -> Sentence | None:
    """Return what to change in a training that overfitted or diverged, or None, and where it lost."""
    found = {finding.kind: finding for finding in findings}
    if OVERFITTING in found:
        values, lost = found[OVERFITTING].advice.values, _most_lost(categories)
        if lost:
            return Sentence("nextStep.overfittingInCategories", values | {"categories": lost})
        return Sentence("nextStep.overfitting", values)
    return found[DIVERGENCE].advice if DIVERGENCE in found else None


def percent(value: float) -> str:
    """Return a score between 0 and 1 as a percentage with one decimal."""
    return f"{value * 100:.1f} %"


def points(value: float) -> str:
    """Return a difference of scores in percentage points, signed."""
    return f"{value * 100:+.1f}"


def _doubt(
    comparison: "Comparison", difference: "Difference | None", settings: "ComparisonSettings"
) -> tuple[Sentence, Sentence] | None:
    """Return why the numbers cannot carry a verdict, and what to do, or None when they can."""
    compared = [model for model in comparison.models if model.side in {comparison.baseline, CUSTOM}]
    for model in compared:
        if _has_failed(model, comparison.records):
            values = {"failed": str(model.failed), "records": str(comparison.records)}
            return (
                Sentence("reason.failed", values, {"model": f"side.{model.side}"}),
                Sentence("nextStep.failed", {"error": model.commonest_error}),
            )
    for model in compared:
        if _is_cut(model):
            values = {"cut": str(model.cut), "answered": str(model.answered), "maxTokens": str(settings.max_tokens)}
            return (
                Sentence("reason.cut", values, {"model": f"side.{model.side}"}),
                Sentence("nextStep.cut", {"maxTokens": str(settings.max_tokens * 2)}),
            )
    pairs = difference.pairs if difference else 0
    return _too_few_pairs(pairs) if pairs < MINIMUM_PAIRS else None


def _has_failed(model: "ModelResult", records: int) -> bool:
    return model.failed > MAXIMUM_SHARE * records


def _is_cut(model: "ModelResult") -> bool:
    return model.cut > MAXIMUM_SHARE * model.answered


def _too_few_pairs(pairs: int) -> tuple[Sentence, Sentence]:
    values = {"pairs": str(pairs), "minimum": str(MINIMUM_PAIRS)}
    missing = {"missing": str(MINIMUM_PAIRS - pairs)}
    return Sentence("reason.tooFewPairs", values), Sentence("nextStep.tooFewPairs", missing)


def _values(comparison: "Comparison", difference: "Difference") -> dict[str, str]:
    metric = comparison.primary.metric if comparison.primary else ""
    means = {model.side: model.scores[metric].mean for model in comparison.models if metric in model.scores}
    return {
        "baseline": percent(means[comparison.baseline]),
        "custom": percent(means[CUSTOM]),
        **_gain_values(difference),
    }


def _gain_values(difference: "Difference") -> dict[str, str]:
    return {
        "gain": points(difference.gain.mean),
        "low": points(difference.gain.low),
        "high": points(difference.gain.high),
        "pairs": str(difference.pairs),
    }


def _terms(comparison: "Comparison", side: str = "") -> dict[str, str]:
    metric = comparison.primary.metric if comparison.primary else ""
    return {"metric": f"metricName.{metric}", "model": f"side.{side or comparison.baseline}"}


def _after_a_loss(categories: "Sequence[CategoryResult]") -> Sentence:
    lost = _most_lost(categories)
    return Sentence("nextStep.worseInCategories", {"categories": lost}) if lost else Sentence("nextStep.worse")


def _most_lost(categories: "Sequence[CategoryResult]") -> str:
    """Return the categories that lost most, with their loss in points; '' where nothing tells categories apart."""
    lost = sorted((item for item in categories if item.gain.mean < 0), key=lambda item: item.gain.mean)
    if len(categories) < 2:  # noqa: PLR2004 - one category is all records
        return ""
    return ", ".join(f"{item.category} ({points(item.gain.mean)})" for item in lost[:_NAMED_CATEGORIES])


def _more_records(difference: "Difference", settings: "ComparisonSettings") -> Sentence:
    """Return about how many more records would decide at the difference seen, unless that is out of reach."""
    distance = abs(difference.gain.mean - settings.minimum_gain)
    needed = math.ceil((_Z_95 * difference.deviation / distance) ** 2) if distance > TIE else math.inf
    if needed <= _HOPELESS * difference.pairs:
        total = max(int(needed), difference.pairs + 1)
        return Sentence("nextStep.undecided", {"needed": str(total), "more": str(total - difference.pairs)})
    trained_too_little = next((item.advice for item in settings.findings if item.kind == UNDER_TRAINING), None)
    return trained_too_little or Sentence("nextStep.alike")
