"""Which model is better: both answer the same records, and the mean difference of their scores is judged."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from customization.bootstrap import bootstrap_intervals
from customization.comparison import (
    HISTOGRAM_BINS,
    CategoryResult,
    Comparison,
    ComparisonSettings,
    Confusion,
    Difference,
    Example,
    ModelResult,
    PrimaryMetric,
    RecordResult,
)
from customization.evaluation import COMPARE_WITH, CUSTOM, SIDES, Prediction
from customization.formats import TestRecord
from customization.scoring import (
    choose_primary_metric,
    label_set,
    metrics_for,
    named_label,
    normalized,
    score,
    signatures,
)
from customization.texts import Sentence
from customization.training_metrics import Finding
from customization.verdict import TIE, after_training, against_in_use, judge

_EXAMPLES = 5
_MAXIMUM_CATEGORIES = 30
_SIMILAR = 0.1
_CUT_REASONS = {"max_tokens", "model_context_window_exceeded"}
# A custom model is compared with the first of these that has answered.
_BASELINES = tuple(side for side in SIDES if side != CUSTOM)
_NO_PREDICTION = "no answer is stored"


def not_compared(code: str = "noTestRecords", findings: Sequence[Finding] = ()) -> Comparison:
    """Return the comparison of a run that has nothing to compare: noTestRecords, noBaseline or noAnswers."""
    step = after_training(findings) or Sentence(f"nextStep.{code}")
    return Comparison(verdict="not compared", reason=Sentence(f"reason.{code}"), next_step=step)


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
            if side != COMPARE_WITH or record.record_id in found
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
    """Return the verdict on the custom model: its answers against those of the baseline.

    The 95 % paired bootstrap interval of the mean difference is held against `minimum_gain`; inconclusive below 30
    pairs and when more than 5 % of either model's answers failed or were cut by maxTokens.
    """
    if not results:
        return not_compared(findings=settings.findings)
    answered = {side for result in results for side in result.predictions}
    sides = [side for side in SIDES if side in answered]
    if CUSTOM not in sides:
        return not_compared("noAnswers", settings.findings)
    baseline = next((side for side in _BASELINES if side in sides), "")
    if not baseline:
        return not_compared("noBaseline", settings.findings)
    comparison = _measured(results, settings, sides, baseline)
    verdict, reason, next_step = judge(comparison, settings)
    return msgspec.structs.replace(
        comparison, verdict=verdict, reason=reason, next_step=next_step, against_in_use=against_in_use(comparison)
    )


def _measured(
    results: Sequence[RecordResult], settings: ComparisonSettings, sides: Sequence[str], baseline: str
) -> Comparison:
    """Return the comparison with every number and no verdict yet."""
    primary, pairs = _primary(results, settings), _pairs(results, baseline)
    best, worst, changed = _examples(pairs, baseline, primary.metric)
    models = tuple(_model_result(side, results, baseline, primary.metric, settings.seed) for side in sides)
    return Comparison(
        verdict="inconclusive",
        reason=Sentence(""),
        next_step=Sentence(""),
        records=len(results),
        minimum_gain=settings.minimum_gain,
        baseline=baseline,
        primary=primary if pairs else None,
        signatures=signatures({metric for model in models for metric in model.scores}),
        models=models,
        differences=tuple(
            _difference(side, both, primary.metric, settings.seed)
            for side in _BASELINES
            if (both := _pairs(results, side))
        ),
        confusions=_confusions(results, pairs, sides),
        categories=_categories(pairs, baseline, primary.metric, settings.seed),
        best=best,
        worst=worst,
        most_changed=changed,
    )


def _primary(results: Sequence[RecordResult], settings: ComparisonSettings) -> PrimaryMetric:
    if settings.primary_metric:
        return PrimaryMetric(settings.primary_metric, Sentence("metric.requested"))
    return choose_primary_metric([result.reference for result in results])


def _pairs(results: Sequence[RecordResult], side: str) -> list[RecordResult]:
    return [result for result in results if side in result.scores and CUSTOM in result.scores]


def _model_result(side: str, results: Sequence[RecordResult], baseline: str, primary: str, seed: int) -> ModelResult:
    other = baseline if side == CUSTOM else side
    scored = [pair.scores[side] for pair in _pairs(results, other)]
    answers = [result.predictions[side] for result in results if side in result.predictions]
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
    wins, losses = sum(gain > TIE for gain in gains), sum(gain < -TIE for gain in gains)
    return Difference(
        side=side,
        pairs=len(gains),
        wins=wins,
        losses=losses,
        ties=len(gains) - wins - losses,
        gain=bootstrap_intervals([[gain] for gain in gains], seed)[0],
        deviation=statistics.stdev(gains) if len(gains) > 1 else 0.0,
    )


def _confusions(
    results: Sequence[RecordResult], pairs: Sequence[RecordResult], sides: Sequence[str]
) -> tuple[Confusion, ...]:
    """Return each model's confusion table with the commonest label first; none when the references are no labels."""
    spellings = Counter(result.reference.strip() for result in results)
    spelled: dict[str, str] = {}
    for text, _ in spellings.most_common():
        spelled.setdefault(normalized(text), text)
    known = label_set([result.reference for result in results])
    labels = [label for label in spelled if label in known]
    places = {label: place for place, label in enumerate(labels)}
    tables = []
    for side in sides if labels else ():
        counts = [[0] * (len(labels) + 1) for _ in labels]
        for pair in pairs:
            if side in pair.scores:
                answered = named_label(pair.predictions[side].text, places)
                counts[places[normalized(pair.reference)]][places.get(answered, len(labels))] += 1
        tables.append(Confusion(side, tuple(spelled[label] for label in labels), tuple(map(tuple, counts))))
    return tuple(tables)


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


def _examples(pairs: Sequence[RecordResult], baseline: str, metric: str) -> Iterator[tuple[Example, ...]]:
    """Yield the records that gained most, that lost most, and whose answer changed most at a similar score."""

    def gain(pair: RecordResult) -> float:
        return pair.scores[CUSTOM][metric] - pair.scores[baseline][metric]

    def change(pair: RecordResult) -> float:
        return 1 - score(pair.predictions[CUSTOM].text, pair.predictions[baseline].text, ["rougeL"])["rougeL"]

    ranked = sorted(pairs, key=lambda pair: (gain(pair), pair.record_id))
    worst = [pair for pair in ranked if gain(pair) < -TIE][:_EXAMPLES]
    best = [pair for pair in reversed(ranked) if gain(pair) > TIE][:_EXAMPLES]
    shown = {pair.record_id for pair in (*worst, *best)}
    alike = [pair for pair in pairs if pair.record_id not in shown and abs(gain(pair)) <= _SIMILAR]
    changes = sorted((-change(pair), pair.record_id, number) for number, pair in enumerate(alike))[:_EXAMPLES]
    changed = [alike[number] for lost, _, number in changes if lost < -TIE]
    for chosen in (best, worst, changed):
        yield tuple(_example(pair, metric) for pair in chosen)


def _example(pair: RecordResult, metric: str) -> Example:
    return Example(
        record_id=pair.record_id,
        category=pair.category,
        prompt=pair.prompt,
        reference=pair.reference,
        answers={side: answer.text for side, answer in pair.predictions.items()},
        scores={side: scores[metric] for side, scores in pair.scores.items()},
    )
