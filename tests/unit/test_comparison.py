"""The verdict, and the numbers that it rests on."""

import random
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
import scipy.stats  # type: ignore[import-untyped]  # SciPy publishes no types
from hypothesis import given, settings
from hypothesis import strategies as st

from customization.bootstrap import bootstrap_intervals
from customization.comparing import compare, not_compared, score_records
from customization.comparison import Comparison, ComparisonSettings
from customization.evaluation import Prediction
from customization.formats import TestRecord, Turn
from customization.texts import LANGUAGES, Sentence, say
from customization.training_metrics import Finding

WORDS = [f"word{number}" for number in range(12)]
REFERENCE = " ".join(WORDS)
PLAIN = ComparisonSettings()
LABELS = ("Good", "bad", "mixed")
OVERFITTED = Finding(
    "overfitting",
    3,
    Sentence("finding.overfitting", {"epoch": "3", "best": "1.0", "last": "2.0"}),
    Sentence("advice.fewerEpochs", {"epoch": "3", "best": "1.0", "last": "2.0", "epochCount": "2"}),
)
DIVERGED = Finding("divergence", 1, Sentence("finding.notFinite", {"epoch": "1"}), Sentence("advice.atLimits"))
TOO_SHORT = Finding(
    "underTraining",
    2,
    Sentence("finding.stillFalling", {"epoch": "2", "last": "2.0"}),
    Sentence("advice.raiseTo", {"name": "epochCount", "now": "2", "try": "4"}),
)


def records(count: int, categories: Sequence[str] = ("",)) -> list[TestRecord]:
    return [
        TestRecord(
            f"r{number:04}",
            (Turn("user", f"question {number}"),),
            f"{REFERENCE} {number}",
            category=categories[number % len(categories)],
        )
        for number in range(count)
    ]


def answers(side: str, count: int, right: Callable[[int], int], stop: str = "end_turn") -> list[Prediction]:
    """Return answers that hold so many of the reference's words."""
    return [
        Prediction(f"r{number:04}", side, " ".join(WORDS[: right(number)]), 10, 5, stop, 100.0)
        for number in range(count)
    ]


def verdict(
    base: Sequence[Prediction],
    custom: Sequence[Prediction],
    count: int = 60,
    settings: ComparisonSettings = PLAIN,
    categories: Sequence[str] = ("",),
) -> Comparison:
    return compare(score_records(records(count, categories), {"base": base, "custom": custom}), settings)


def draw(seed: int, low: int, high: int) -> Callable[[int], int]:
    numbers = random.Random(seed).choices(range(low, high), k=2000)  # noqa: S311 - test data
    return lambda number: numbers[number]


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_is_that_of_scipys_paired_percentile_bootstrap(seed: int) -> None:
    gains = np.random.default_rng(seed).choice([-0.5, 0.0, 0.1, 0.7], size=80)
    (ours,) = bootstrap_intervals(gains[:, None].tolist(), seed)
    theirs = scipy.stats.bootstrap(
        (gains,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(seed + 100)
    ).confidence_interval
    spread = float(theirs.high - theirs.low)
    assert ours.mean == pytest.approx(gains.mean())
    # Two runs of 10,000 resamples differ by about one percent of the interval at its ends.
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * spread)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * spread)


def test_the_interval_is_the_same_for_the_same_seed_and_covers_many_rows_piece_by_piece() -> None:
    rows = np.random.default_rng(0).random((3000, 2)).tolist()
    assert bootstrap_intervals(rows, 7) == bootstrap_intervals(rows, 7)
    assert bootstrap_intervals(rows, 7) != bootstrap_intervals(rows, 8)
    expected = 1.96 * np.std([row[0] for row in rows]) / 3000**0.5
    interval = bootstrap_intervals(rows, 7)[0]
    assert interval.high - interval.mean == pytest.approx(expected, rel=0.05)


def test_95_of_100_intervals_hold_the_true_mean() -> None:
    random_numbers = np.random.default_rng(5)
    held = sum(
        interval.low <= 0.3 <= interval.high
        for interval in bootstrap_intervals((random_numbers.random((100, 200)) < 0.3).astype(float).tolist(), 1)
    )
    assert 180 <= held <= 198


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40))
def test_any_gains_have_an_interval_within_their_range(gains: list[float]) -> None:
    (interval,) = bootstrap_intervals([[gain] for gain in gains], 0)
    assert min(gains) - 1e-9 <= interval.low <= interval.high <= max(gains) + 1e-9


def test_a_clear_gain_is_better_and_says_by_how_much() -> None:
    result = verdict(answers("base", 60, draw(1, 2, 7)), answers("custom", 60, draw(2, 7, 12)))
    assert result.verdict == "better"
    difference = result.difference("base")
    assert difference
    assert difference.gain.low > 0
    assert (difference.wins, difference.losses, difference.pairs) == (60, 0, 60)
    sentence = say(result.reason, "en")
    assert f"{difference.gain.mean * 100:+.1f} points" in sentence
    assert "60 test records" in sentence
    assert not result.is_worse_than("base")


def test_a_clear_loss_is_worse_and_names_the_categories_that_lost_most() -> None:
    result = verdict(
        answers("base", 90, lambda _: 10),
        answers("custom", 90, lambda number: [10, 8, 1][number % 3]),
        count=90,
        categories=("same", "slightly", "badly"),
    )
    assert result.verdict == "worse"
    assert result.is_worse_than("base")
    step = say(result.next_step, "en")
    assert step.index("badly") < step.index("slightly")
    assert "same" not in step
    assert {item.category: item.pairs for item in result.categories} == {"same": 30, "slightly": 30, "badly": 30}


def test_a_loss_without_categories_points_to_the_examples() -> None:
    result = verdict(answers("base", 60, lambda _: 10), answers("custom", 60, lambda _: 2))
    assert result.next_step.code == "nextStep.worse"


@pytest.mark.parametrize(
    ("finding", "step"),
    [
        (OVERFITTED, "Train again with epochCount 2: from epoch 3 on"),
        (DIVERGED, "The hyperparameters are at the limits"),
        (TOO_SHORT, "Read the examples that lost most"),
    ],
)
def test_a_loss_after_a_bad_training_wants_another_training(finding: Finding, step: str) -> None:
    settings = ComparisonSettings(findings=(finding,))
    result = verdict(answers("base", 60, lambda _: 10), answers("custom", 60, lambda _: 2), settings=settings)
    assert result.verdict == "worse"
    assert say(result.next_step, "en").startswith(step)


def test_a_loss_by_overfitting_names_the_epoch_count_and_the_categories() -> None:
    result = verdict(
        answers("base", 60, lambda _: 10),
        answers("custom", 60, lambda number: [10, 1][number % 2]),
        settings=ComparisonSettings(findings=(OVERFITTED,)),
        categories=("same", "badly"),
    )
    step = say(result.next_step, "en")
    assert "epochCount 2" in step
    assert "badly (" in step


def test_equal_answers_of_a_training_that_was_too_short_want_the_longer_one() -> None:
    alike = answers("base", 60, lambda _: 6), answers("custom", 60, lambda _: 6)
    short, overfitted = (verdict(*alike, settings=ComparisonSettings(findings=(it,))) for it in (TOO_SHORT, OVERFITTED))
    assert say(short.next_step, "en") == "Raise epochCount from 2, for example to 4."
    assert overfitted.next_step.code == "nextStep.overfitting"


def test_findings_do_not_hide_that_there_are_too_few_records_nor_stop_a_better_model() -> None:
    settings = ComparisonSettings(findings=(OVERFITTED,))
    good = answers("base", 60, lambda _: 2), answers("custom", 60, lambda _: 11)
    assert verdict(*good, settings=settings).next_step.code == "nextStep.better"
    assert verdict(*good, count=20, settings=settings).next_step.code == "nextStep.tooFewPairs"


def labelled(
    side: str, given_answers: Sequence[str], failed: Sequence[int] = (), references: Sequence[str] = LABELS
) -> tuple[list[TestRecord], list[Prediction]]:
    asked = [
        TestRecord(f"r{number}", (Turn("user", "?"),), references[number % len(references)])
        for number in range(len(given_answers))
    ]
    return asked, [
        Prediction(f"r{number}", side, text, error="lost" if number in failed else "")
        for number, text in enumerate(given_answers)
    ]


def test_a_confusion_table_counts_for_each_expected_label_what_was_answered() -> None:
    asked, base = labelled("base", ["no idea"] * 36)
    _, custom = labelled("custom", ["GOOD.", "it is bad", "bad"] * 12, failed=[0])
    result = compare(score_records(asked, {"base": base, "custom": custom}), PLAIN)
    tables = {table.side: table for table in result.confusions}
    assert tables["custom"].labels == ("Good", "bad", "mixed")
    assert tables["custom"].counts == ((11, 0, 0, 0), (0, 12, 0, 0), (0, 12, 0, 0))
    assert tables["base"].counts == ((0, 0, 0, 11), (0, 0, 0, 12), (0, 0, 0, 12))
    assert result.primary
    assert result.primary.metric == "labelAccuracy"


def test_references_that_are_no_labels_have_no_confusion_table_and_tell_chrfs_signature() -> None:
    result = verdict(answers("base", 60, draw(1, 2, 7)), answers("custom", 60, draw(2, 7, 12)))
    assert result.confusions == ()
    assert "version:" in result.signatures["chrF"]
    assert "chrF" in result.models[0].scores


def test_noise_is_inconclusive_and_tells_about_how_many_records_would_decide() -> None:
    result = verdict(answers("base", 60, draw(11, 0, 11)), answers("custom", 60, draw(12, 1, 12)))
    assert (result.verdict, result.reason.code) == ("inconclusive", "reason.undecided")
    needed = int(result.next_step.values["needed"])
    assert 60 < needed <= 1200
    assert f"about {needed - 60} more test records ({needed} in all)" in say(result.next_step, "en")


def test_the_number_of_records_that_would_decide_does_decide() -> None:
    base, custom = draw(11, 0, 10), draw(12, 1, 11)
    few = verdict(answers("base", 40, base), answers("custom", 40, custom), count=40)
    assert few.reason.code == "reason.undecided"
    needed = int(few.next_step.values["needed"])
    many = verdict(answers("base", needed * 2, base), answers("custom", needed * 2, custom), count=needed * 2)
    assert many.verdict == "better"


def test_equal_answers_are_ties_and_no_number_of_records_is_promised() -> None:
    result = verdict(answers("base", 60, lambda _: 6), answers("custom", 60, lambda _: 6))
    assert (result.verdict, result.next_step.code) == ("inconclusive", "nextStep.alike")
    difference = result.difference("base")
    assert difference
    assert (difference.wins, difference.losses, difference.ties) == (0, 0, 60)
    assert result.best == result.worst == ()


def test_a_gain_below_the_minimum_that_was_asked_for_is_not_better() -> None:
    base, custom = answers("base", 60, lambda _: 6), answers("custom", 60, lambda _: 7)
    assert verdict(base, custom).verdict == "better"
    result = verdict(base, custom, settings=ComparisonSettings(minimum_gain=0.2))
    assert (result.verdict, result.reason.code) == ("inconclusive", "reason.gainTooSmall")
    assert "+20.0 points" in say(result.reason, "en")


@pytest.mark.parametrize(("pairs", "expected"), [(29, "reason.tooFewPairs"), (30, "reason.better")])
def test_fewer_than_30_pairs_are_inconclusive(pairs: int, expected: str) -> None:
    result = verdict(answers("base", pairs, lambda _: 2), answers("custom", pairs, lambda _: 11), count=pairs)
    assert result.reason.code == expected


@pytest.mark.parametrize(("failed", "expected"), [(5, "reason.better"), (6, "reason.failed")])
@pytest.mark.parametrize("side", ["base", "custom"])
def test_more_than_5_percent_of_failed_answers_are_inconclusive(side: str, failed: int, expected: str) -> None:
    given_answers = {
        "base": answers("base", 100, lambda _: 2),
        "custom": answers("custom", 100, lambda _: 11),
    }
    broken = [Prediction(f"r{number:04}", side, error="RequestRejected: no") for number in range(failed)]
    given_answers[side] = broken + given_answers[side][failed:]
    result = verdict(given_answers["base"], given_answers["custom"], count=100)
    assert result.reason.code == expected
    model = next(model for model in result.models if model.side == side)
    assert (model.failed, model.commonest_error) == (failed, "RequestRejected: no")
    difference = result.difference("base")
    assert difference
    assert difference.pairs == 100 - failed


@pytest.mark.parametrize(("cut", "expected"), [(5, "reason.better"), (6, "reason.cut")])
def test_more_than_5_percent_of_cut_answers_are_inconclusive(cut: int, expected: str) -> None:
    custom = answers("custom", cut, lambda _: 11, "max_tokens") + answers("custom", 100, lambda _: 11)[cut:]
    result = verdict(answers("base", 100, lambda _: 2), custom, count=100)
    assert result.reason.code == expected
    if expected == "reason.cut":
        assert "512" in say(result.next_step, "en")


def test_a_record_without_a_stored_answer_counts_as_failed() -> None:
    result = verdict(answers("base", 60, lambda _: 2)[:50], answers("custom", 60, lambda _: 11))
    assert result.reason.code == "reason.failed"
    assert result.models[0].failed == 10


@pytest.mark.parametrize(
    ("in_use", "code", "said"),
    [
        (answers("inUse", 60, lambda _: 4), "againstInUseBetter", "Against the model in use it is better: on 60 test"),
        (answers("inUse", 60, lambda _: 11), "againstInUseWorse", "Against the model in use it is worse"),
        (answers("inUse", 60, draw(3, 7, 10)), "againstInUseUndecided", "nothing is decided"),
        (answers("inUse", 60, lambda _: 4, "max_tokens"), "againstInUseUnreliable", "60 were cut off"),
        (answers("inUse", 20, lambda _: 4), "againstInUseUnreliable", "40 failed"),
    ],
)
def test_the_comparison_says_how_the_model_stands_against_the_one_in_use(
    in_use: list[Prediction], code: str, said: str
) -> None:
    predictions = {"base": answers("base", 60, lambda _: 2), "custom": answers("custom", 60, draw(4, 7, 10))}
    result = compare(score_records(records(60), predictions | {"inUse": in_use}), PLAIN)
    assert result.verdict == "better"
    assert result.against_in_use
    assert result.against_in_use.code == f"reason.{code}"
    assert said in say(result.against_in_use, "en")
    assert all(say(result.against_in_use, language) for language in LANGUAGES)
    assert compare(score_records(records(60), predictions), PLAIN).against_in_use is None


def test_the_model_of_another_run_is_compared_on_the_records_that_both_runs_asked() -> None:
    predictions = {
        "base": answers("base", 60, lambda _: 2),
        "custom": answers("custom", 60, lambda _: 9),
        "compareWith": answers("compareWith", 40, lambda _: 6),
    }
    result = compare(score_records(records(60), predictions), PLAIN)
    assert (result.verdict, result.baseline) == ("better", "base")
    difference = result.difference("compareWith")
    assert difference
    assert (difference.pairs, difference.wins) == (40, 40)
    assert {model.side: model.failed for model in result.models}["compareWith"] == 0
    del predictions["base"]
    assert compare(score_records(records(60), predictions), PLAIN).baseline == "compareWith"


def test_few_records_say_nothing_against_the_model_in_use_and_without_a_base_model_it_is_the_baseline() -> None:
    predictions = {side: answers(side, 20, lambda _: 5) for side in ("base", "custom", "inUse")}
    few = compare(score_records(records(20), predictions), PLAIN).against_in_use
    assert few
    assert few.code == "reason.againstInUseTooFewPairs"
    del predictions["base"]
    assert compare(score_records(records(20), predictions), PLAIN).against_in_use is None


@pytest.mark.parametrize("side", ["base", "custom"])
def test_a_model_that_answered_nothing_is_named_with_its_error(side: str) -> None:
    predictions = {"base": answers("base", 60, lambda _: 2), "custom": answers("custom", 60, lambda _: 11)}
    predictions[side] = [Prediction(f"r{number:04}", side, error="ServiceUnavailable: lost") for number in range(60)]
    result = compare(score_records(records(60), predictions), PLAIN)
    assert (result.verdict, result.reason.code, result.primary) == ("inconclusive", "reason.failed", None)
    assert result.reason.terms["model"] == f"side.{side}"
    assert "ServiceUnavailable: lost" in say(result.next_step, "en")


def test_the_model_in_use_is_compared_on_the_same_records() -> None:
    predictions = {
        "base": answers("base", 60, lambda _: 2),
        "custom": answers("custom", 60, lambda _: 6),
        "inUse": answers("inUse", 60, lambda _: 10),
    }
    result = compare(score_records(records(60), predictions), PLAIN)
    assert (result.verdict, result.baseline) == ("better", "base")
    assert result.is_worse_than("inUse")
    del predictions["base"]
    result = compare(score_records(records(60), predictions), PLAIN)
    assert (result.verdict, result.baseline) == ("worse", "inUse")
    assert "model in use" in say(result.reason, "en")


@pytest.mark.parametrize(
    ("predictions", "code"),
    [
        ({"base": answers("base", 60, lambda _: 2)}, "reason.noAnswers"),
        ({"custom": answers("custom", 60, lambda _: 2)}, "reason.noBaseline"),
        ({}, "reason.noAnswers"),
    ],
)
def test_a_side_that_is_missing_leaves_nothing_to_compare(predictions: dict[str, list[Prediction]], code: str) -> None:
    result = compare(score_records(records(60), predictions), PLAIN)
    assert (result.verdict, result.reason.code) == ("not compared", code)


def test_a_run_without_test_records_is_not_compared() -> None:
    assert compare([], PLAIN) == not_compared()
    assert not_compared().verdict == "not compared"


def test_an_overfitted_training_without_test_records_says_which_epoch_count_to_try() -> None:
    assert not_compared(findings=[OVERFITTED]).next_step.code == "nextStep.overfitting"
    assert compare([], ComparisonSettings(findings=(OVERFITTED,))).verdict == "not compared"


def test_the_metric_that_the_request_names_decides() -> None:
    settings = ComparisonSettings(primary_metric="labelAccuracy")
    predictions = {"base": answers("base", 60, lambda _: 2), "custom": answers("custom", 60, lambda _: 11)}
    result = compare(score_records(records(60), predictions, "labelAccuracy"), settings)
    assert result.primary
    assert (result.primary.metric, result.primary.reason.code) == ("labelAccuracy", "metric.requested")


def test_examples_are_the_largest_gains_the_largest_losses_and_the_changes_at_a_similar_score() -> None:
    base = answers("base", 60, lambda _: 6)
    custom = answers("custom", 60, lambda number: {3: 12, 7: 11, 9: 0, 11: 2}.get(number, 6))
    custom[20] = msgspec.structs.replace(custom[20], text=" ".join(WORDS[6:]))
    result = verdict(base, custom)
    assert [example.record_id for example in result.best] == ["r0003", "r0007"]
    assert [example.record_id for example in result.worst] == ["r0009", "r0011"]
    assert [example.record_id for example in result.most_changed] == ["r0020"]
    assert result.best[0].answers["custom"] == REFERENCE
    assert result.best[0].scores["custom"] > result.best[0].scores["base"]


def test_the_histogram_counts_every_compared_record_once() -> None:
    result = verdict(answers("base", 60, draw(1, 0, 12)), answers("custom", 60, draw(2, 0, 12)))
    for model in result.models:
        assert sum(model.histogram) == 60


def test_a_comparison_survives_json() -> None:
    asked, base = labelled("base", ["bad"] * 36)
    result = compare(score_records(asked, {"base": base, "custom": labelled("custom", ["Good"] * 36)[1]}), PLAIN)
    assert msgspec.json.decode(msgspec.json.encode(result), type=Comparison) == result
