"""Which model is better: both answer the same records, and the mean difference of their scores is judged."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from customization.bootstrap import Interval, bootstrap_intervals
from customization.evaluation import BASE, CUSTOM, IN_USE, Prediction
from customization.formats import TestRecord
from customization.scoring import PrimaryMetric, choose_primary_metric, label_set, metrics_for, normalized, score
from customization.texts import Sentence

Verdict = Literal["better", "worse", "inconclusive", "not compared"]

MINIMUM_PAIRS = 30
MAXIMUM_SHARE = 0.05
HISTOGRAM_BINS = 10

_EXAMPLES = 5
_MAXIMUM_CATEGORIES = 30
_TIE = 1e-9
_SIMILAR = 0.1
_Z_95 = 1.96
_HOPELESS = 20
_CUT_REASONS = {"max_tokens", "model_context_window_exceeded"}
_NO_PREDICTION = "no answer is stored"


class ComparisonSettings(msgspec.Struct, frozen=True, rename="camel"):
    """`minimum_gain` is in score (0.02 is two points); `max_tokens` is what the models were asked with."""

    minimum_gain: float = 0.0
    primary_metric: str | None = None
    max_tokens: int = 256
    seed: int = 0


class RecordResult(msgspec.Struct, frozen=True, rename="camel"):
    """A test record with every model's answer and scores by side; a failed answer has no scores."""

    record_id: str
    category: str
    prompt: str
    reference: str
    predictions: dict[str, Prediction]
    scores: dict[str, dict[str, float]]


class ModelResult(msgspec.Struct, frozen=True, rename="camel"):
    """One model's scores over the records that were compared, and how its answers went over all records."""

    side: str
    scores: dict[str, Interval]
    histogram: tuple[int, ...]
    answered: int
    failed: int
    cut: int
    median_latency_ms: float
    input_tokens: int | None
    output_tokens: int | None
    commonest_error: str = ""


class Difference(msgspec.Struct, frozen=True, rename="camel"):
    """The primary metric of the custom model minus that of `side`, over the pairs that both answered."""

    side: str
    pairs: int
    wins: int
    losses: int
    ties: int
    gain: Interval
    deviation: float


class CategoryResult(msgspec.Struct, frozen=True, rename="camel"):
    category: str
    pairs: int
    baseline: float
    custom: float
    gain: Interval


class Example(msgspec.Struct, frozen=True, rename="camel"):
    """A record for the reader; `scores` are those of the primary metric, by side."""

    record_id: str
    category: str
    prompt: str
    reference: str
    answers: dict[str, str]
    scores: dict[str, float]


class Comparison(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The verdict with what it rests on.

    `baseline` is the side compared with: the base model, else the one in use. `primary` is None without a pair.
    """

    verdict: Verdict
    reason: Sentence
    next_step: Sentence
    records: int = 0
    minimum_gain: float = 0.0
    baseline: str = ""
    primary: PrimaryMetric | None = None
    models: tuple[ModelResult, ...] = ()
    differences: tuple[Difference, ...] = ()
    categories: tuple[CategoryResult, ...] = ()
    best: tuple[Example, ...] = ()
    worst: tuple[Example, ...] = ()
    most_changed: tuple[Example, ...] = ()

    def difference(self, side: str) -> Difference | None:
        """Return how the custom model differs from `side`, or None when that side answered nothing."""
        return next((difference for difference in self.differences if difference.side == side), None)

    def is_worse_than(self, side: str) -> bool:
        """Return whether the custom model is worse than `side` with 95 % confidence."""
        difference = self.difference(side)
        return difference is not None and difference.gain.high < 0


def not_compared(code: str = "noTestRecords") -> Comparison:
    """Return the comparison of a run that has nothing to compare: noTestRecords, noBaseline or noAnswers."""
    return Comparison(verdict="not compared", reason=Sentence(f"reason.{code}"), next_step=Sentence(f"nextStep.{code}"))


def score_records(
    records: Sequence[TestRecord], predictions: Mapping[str, Sequence[Prediction]], primary_metric: str | None = None
) -> list[RecordResult]:
    """Return the records with every side's answers and scores, paired by record id and in the records' order.

    `primary_metric` is the one that the request asks for, which is computed whatever the references look like.
    """
    references = [record.reference for record in records]
    metrics = list(dict.fromkeys([*metrics_for(references), *([primary_metric] if primary_metric else [])]))
    labels = label_set(references) or {normalized(reference) for reference in references}
    by_side = {side: {answer.record_id: answer for answer in answers} for side, answers in predictions.items()}
    results = []
    for record in records:
        answers = {
            side: found.get(record.record_id) or Prediction(record.record_id, side, error=_NO_PREDICTION)
            for side, found in by_side.items()
        }
        scores = {
            side: score(answer.text, record.reference, metrics, labels)
            for side, answer in answers.items()
            if not answer.error
        }
        prompt = "\n\n".join(turn.text for turn in record.turns)
        results.append(RecordResult(record.record_id, record.category, prompt, record.reference, answers, scores))
    return results


def compare(results: Sequence[RecordResult], settings: ComparisonSettings) -> Comparison:
    """Return the verdict on the custom model: its answers against the base model's, else against those in use.

    The 95 % paired bootstrap interval of the mean difference is held against `minimum_gain`; inconclusive below 30
    pairs and when more than 5 % of either model's answers failed or were cut by maxTokens.
    """
    if not results:
        return not_compared()
    sides = [side for side in (BASE, CUSTOM, IN_USE) if side in results[0].predictions]
    if CUSTOM not in sides:
        return not_compared("noAnswers")
    baseline = next((side for side in (BASE, IN_USE) if side in sides), "")
    if not baseline:
        return not_compared("noBaseline")
    primary, pairs = _primary(results, settings), _pairs(results, baseline)
    models = tuple(_model_result(side, results, baseline, primary.metric, settings.seed) for side in sides)
    comparison = Comparison(
        verdict="inconclusive",
        reason=Sentence(""),
        next_step=Sentence(""),
        records=len(results),
        minimum_gain=settings.minimum_gain,
        baseline=baseline,
        primary=primary if pairs else None,
        models=models,
        differences=tuple(
            _difference(side, both, primary.metric, settings.seed)
            for side in (BASE, IN_USE)
            if (both := _pairs(results, side))
        ),
        categories=_categories(pairs, baseline, primary.metric, settings.seed),
        **_examples(pairs, baseline, primary.metric),
    )
    verdict, reason, next_step = judge(comparison, settings)
    return msgspec.structs.replace(comparison, verdict=verdict, reason=reason, next_step=next_step)


# compare_models knows which run it is
_PROMOTE = Sentence("nextStep.better", {"dataset": "<dataset>", "runId": "<runId>"})


def judge(comparison: Comparison, settings: ComparisonSettings) -> tuple[Verdict, Sentence, Sentence]:
    """Return the verdict, why, and what to do next, from the comparison's numbers."""
    difference = comparison.difference(comparison.baseline)
    doubt = _doubt(comparison, difference, settings)
    if doubt or difference is None:
        return "inconclusive", *(doubt or _too_few_pairs(0))
    gain, values, terms = difference.gain, _values(comparison, difference), _terms(comparison)
    if gain.low > settings.minimum_gain:
        return "better", Sentence("reason.better", values, terms), _PROMOTE
    if gain.high < 0:
        return "worse", Sentence("reason.worse", values, terms), _after_a_loss(comparison.categories)
    if settings.minimum_gain > 0 and gain.high <= settings.minimum_gain:
        values["minimumGain"] = points(settings.minimum_gain)
        return "inconclusive", Sentence("reason.gainTooSmall", values, terms), Sentence("nextStep.gainTooSmall")
    return "inconclusive", Sentence("reason.undecided", values, terms), _more_records(difference, settings)


def percent(value: float) -> str:
    """Return a score between 0 and 1 as a percentage with one decimal."""
    return f"{value * 100:.1f} %"


def points(value: float) -> str:
    """Return a difference of scores in percentage points, signed."""
    return f"{value * 100:+.1f}"


def _doubt(
    comparison: Comparison, difference: Difference | None, settings: ComparisonSettings
) -> tuple[Sentence, Sentence] | None:
    """Return why the numbers cannot carry a verdict, and what to do, or None when they can."""
    compared = [model for model in comparison.models if model.side in {comparison.baseline, CUSTOM}]
    for model in compared:
        if model.failed > MAXIMUM_SHARE * comparison.records:
            values = {"failed": str(model.failed), "records": str(comparison.records)}
            return (
                Sentence("reason.failed", values, {"model": f"side.{model.side}"}),
                Sentence("nextStep.failed", {"error": model.commonest_error}),
            )
    for model in compared:
        if model.cut > MAXIMUM_SHARE * model.answered:
            values = {"cut": str(model.cut), "answered": str(model.answered), "maxTokens": str(settings.max_tokens)}
            return (
                Sentence("reason.cut", values, {"model": f"side.{model.side}"}),
                Sentence("nextStep.cut", {"maxTokens": str(settings.max_tokens * 2)}),
            )
    pairs = difference.pairs if difference else 0
    return _too_few_pairs(pairs) if pairs < MINIMUM_PAIRS else None


def _too_few_pairs(pairs: int) -> tuple[Sentence, Sentence]:
    values = {"pairs": str(pairs), "minimum": str(MINIMUM_PAIRS)}
    missing = {"missing": str(MINIMUM_PAIRS - pairs)}
    return Sentence("reason.tooFewPairs", values), Sentence("nextStep.tooFewPairs", missing)


def _values(comparison: Comparison, difference: Difference) -> dict[str, str]:
    metric = comparison.primary.metric if comparison.primary else ""
    means = {model.side: model.scores[metric].mean for model in comparison.models if metric in model.scores}
    return {
        "baseline": percent(means[comparison.baseline]),
        "custom": percent(means[CUSTOM]),
        "gain": points(difference.gain.mean),
        "low": points(difference.gain.low),
        "high": points(difference.gain.high),
        "pairs": str(difference.pairs),
    }


def _terms(comparison: Comparison) -> dict[str, str]:
    metric = comparison.primary.metric if comparison.primary else ""
    return {"metric": f"metricName.{metric}", "model": f"side.{comparison.baseline}"}


def _after_a_loss(categories: Sequence[CategoryResult]) -> Sentence:
    lost = sorted((item for item in categories if item.gain.mean < 0), key=lambda item: item.gain.mean)[:3]
    if len(categories) > 1 and lost:
        named = ", ".join(f"{item.category} ({points(item.gain.mean)})" for item in lost)
        return Sentence("nextStep.worseInCategories", {"categories": named})
    return Sentence("nextStep.worse")


def _more_records(difference: Difference, settings: ComparisonSettings) -> Sentence:
    """Return about how many records would decide at the difference seen, unless that is out of reach."""
    distance = abs(difference.gain.mean - settings.minimum_gain)
    needed = math.ceil((_Z_95 * difference.deviation / distance) ** 2) if distance > _TIE else math.inf
    if needed > _HOPELESS * difference.pairs:
        return Sentence("nextStep.alike")
    return Sentence("nextStep.undecided", {"needed": str(max(needed, difference.pairs + 1))})


def _primary(results: Sequence[RecordResult], settings: ComparisonSettings) -> PrimaryMetric:
    if settings.primary_metric:
        return PrimaryMetric(settings.primary_metric, Sentence("metric.requested"))
    return choose_primary_metric([result.reference for result in results])


def _pairs(results: Sequence[RecordResult], side: str) -> list[RecordResult]:
    return [result for result in results if side in result.scores and CUSTOM in result.scores]


def _model_result(side: str, results: Sequence[RecordResult], baseline: str, primary: str, seed: int) -> ModelResult:
    other = baseline if side == CUSTOM else side
    scored = [pair.scores[side] for pair in _pairs(results, other)]
    answers = [result.predictions[side] for result in results]
    given = [answer for answer in answers if not answer.error]
    metrics = list(scored[0]) if scored else []
    intervals = bootstrap_intervals([list(scores.values()) for scores in scored], seed) if scored else []
    bins = Counter(min(int(scores[primary] * HISTOGRAM_BINS), HISTOGRAM_BINS - 1) for scores in scored)
    commonest = Counter(answer.error for answer in answers if answer.error).most_common(1)
    return ModelResult(
        side=side,
        scores=dict(zip(metrics, intervals, strict=True)),
        histogram=tuple(bins[number] for number in range(HISTOGRAM_BINS)),
        answered=len(given),
        failed=len(answers) - len(given),
        cut=sum(answer.stop_reason in _CUT_REASONS for answer in given),
        median_latency_ms=statistics.median(answer.latency_ms for answer in given) if given else 0.0,
        input_tokens=_total([answer.input_tokens for answer in given]),
        output_tokens=_total([answer.output_tokens for answer in given]),
        commonest_error=commonest[0][0] if commonest else "",
    )


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _difference(side: str, pairs: Sequence[RecordResult], metric: str, seed: int) -> Difference:
    gains = [pair.scores[CUSTOM][metric] - pair.scores[side][metric] for pair in pairs]
    wins, losses = sum(gain > _TIE for gain in gains), sum(gain < -_TIE for gain in gains)
    return Difference(
        side=side,
        pairs=len(gains),
        wins=wins,
        losses=losses,
        ties=len(gains) - wins - losses,
        gain=bootstrap_intervals([[gain] for gain in gains], seed)[0],
        deviation=statistics.stdev(gains) if len(gains) > 1 else 0.0,
    )


def _categories(pairs: Sequence[RecordResult], baseline: str, metric: str, seed: int) -> tuple[CategoryResult, ...]:
    """Return the largest categories, by name; none when the records name no category."""
    members: dict[str, list[RecordResult]] = defaultdict(list)
    for pair in pairs:
        if pair.category:
            members[pair.category].append(pair)
    largest = sorted(members, key=lambda name: (-len(members[name]), name))[:_MAXIMUM_CATEGORIES]
    return tuple(
        CategoryResult(
            category=name,
            pairs=len(members[name]),
            baseline=statistics.fmean(pair.scores[baseline][metric] for pair in members[name]),
            custom=statistics.fmean(pair.scores[CUSTOM][metric] for pair in members[name]),
            gain=_difference(baseline, members[name], metric, seed).gain,
        )
        for name in sorted(largest)
    )


def _examples(pairs: Sequence[RecordResult], baseline: str, metric: str) -> dict[str, tuple[Example, ...]]:
    """Return the records that gained most, that lost most, and whose answer changed most at a similar score."""

    def gain(pair: RecordResult) -> float:
        return pair.scores[CUSTOM][metric] - pair.scores[baseline][metric]

    def change(pair: RecordResult) -> float:
        return 1 - score(pair.predictions[CUSTOM].text, pair.predictions[baseline].text, ["rougeL"])["rougeL"]

    ranked = sorted(pairs, key=lambda pair: (gain(pair), pair.record_id))
    worst = [pair for pair in ranked if gain(pair) < -_TIE][:_EXAMPLES]
    best = [pair for pair in reversed(ranked) if gain(pair) > _TIE][:_EXAMPLES]
    shown = {pair.record_id for pair in (*worst, *best)}
    alike = [pair for pair in pairs if pair.record_id not in shown and abs(gain(pair)) <= _SIMILAR]
    alike = [pair for pair in alike if change(pair) > _TIE]
    changed = sorted(alike, key=lambda pair: (-change(pair), pair.record_id))[:_EXAMPLES]
    return {
        "best": tuple(_example(pair, metric) for pair in best),
        "worst": tuple(_example(pair, metric) for pair in worst),
        "most_changed": tuple(_example(pair, metric) for pair in changed),
    }


def _example(pair: RecordResult, metric: str) -> Example:
    return Example(
        record_id=pair.record_id,
        category=pair.category,
        prompt=pair.prompt,
        reference=pair.reference,
        answers={side: answer.text for side, answer in pair.predictions.items()},
        scores={side: scores[metric] for side, scores in pair.scores.items()},
    )
