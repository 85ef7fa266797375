"""Figures about the data: tokens by script, lengths, duplicates, variety, and what they warn of."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customization.formats import Example, RawText, Turn
from customization.json_types import JsonObject
from customization.profile import (
    Size,
    TokenEstimate,
    estimate_tokens,
    histogram,
    length_quantiles,
    most_tokens,
    size_of,
)
from tests.unit.data_files import TITAN_EXPRESS, pairs, prepare, problems_of, with_limits

RUSSIAN = "Как мне открыть банковский счёт и какие документы для этого нужны? Пожалуйста, ответьте подробно."
JAPANESE = "時間管理能力を向上させる方法を教えてください。"
ENGLISH = "How do I open a bank account and which documents do I need for it?"


def tokens_of(text: str) -> TokenEstimate:
    return estimate_tokens(len(text), len(text.encode()))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # Counted with the vocabularies of Llama 3, Claude 2 and a SentencePiece model of 32,000 tokens
        ("お客様: 注文した商品がまだ届きません。発送の状況を教えてください。\nエージェント:", (28, 37, 47)),
        (ENGLISH * 20, (320, 320, 320)),
        (RUSSIAN, (29, 41, 50)),
        ("은행 계좌를 개설하려면 어떤 서류가 필요한가요? 자세히 알려 주세요." * 5, (110, 201, 225)),
    ],
)
def test_the_tokens_of_three_vocabularies_lie_between_low_and_high(text: str, tokens: tuple[int, ...]) -> None:
    estimate = tokens_of(text)
    assert estimate.low <= estimate.likely <= estimate.high
    assert all(estimate.low <= count <= estimate.high for count in tokens)


def test_japanese_has_several_times_the_tokens_that_six_characters_each_would_give() -> None:
    assert tokens_of(JAPANESE).likely > 4 * len(JAPANESE) / 6


@given(st.text())
def test_no_estimate_exceeds_the_bound_that_needs_no_estimate(text: str) -> None:
    size = len(text.encode())
    for characters_per_token in (6.0, 3.0):
        estimate = estimate_tokens(len(text), size, characters_per_token)
        assert max(estimate.low, estimate.likely, estimate.high) <= most_tokens(size) + 1


def test_a_model_with_fewer_characters_per_token_has_a_higher_low_estimate() -> None:
    assert estimate_tokens(600, 600, 3.0).low == 200
    assert estimate_tokens(600, 600).low == 100


def test_sizes_count_characters_and_bytes_of_all_texts_and_of_the_completion() -> None:
    example = Example((Turn("user", "はい"), Turn("assistant", "ok")), system="あ")
    assert size_of(example) == Size(5, 11, 2, 2)
    assert size_of(RawText("はい")) == Size(2, 6, 0, 0)


@given(st.lists(st.integers(1, 50), min_size=1))
def test_quantiles_are_lengths_that_so_many_records_do_not_exceed(lengths: list[int]) -> None:
    quantiles = length_quantiles({length: lengths.count(length) for length in lengths})
    assert quantiles.max == max(lengths)
    for share, quantile in ((0.5, quantiles.p50), (0.9, quantiles.p90)):
        assert sum(length <= quantile for length in lengths) >= share * len(lengths)
        assert sum(length < quantile for length in lengths) < share * len(lengths)


@given(st.lists(st.one_of(st.integers(0, 50), st.integers(0, 100_000)), min_size=1))
def test_every_record_is_in_the_bin_of_its_length(lengths: list[int]) -> None:
    bins = histogram({length: lengths.count(length) for length in lengths})
    assert len(bins) <= 20
    assert bins[0].least == 0
    assert all(one.most + 1 == other.least for one, other in pairwise(bins))
    for each in bins:
        assert each.records == sum(each.least <= length <= each.most for length in lengths)


WORDS = ("delivery", "invoice", "refund", "parcel", "address", "account", "password", "receipt", "warranty", "contract")


def varied(count: int, start: int = 0) -> list[JsonObject]:
    """Return records of random words: any two are unlike each other."""
    source = random.Random(start)  # noqa: S311 - texts, no secrets
    return [
        {"prompt": " ".join(source.choices(WORDS, k=12)), "completion": " ".join(source.choices(WORDS, k=6))}
        for _ in range(count)
    ]


def test_the_profile_names_scripts_completions_categories_and_distinct_texts() -> None:
    labels: list[JsonObject] = [
        {
            "prompt": f"感情を分類してください: 商品番号{number}",
            "completion": "はい" if number % 4 else "いいえ",
            "category": "感情",
        }
        for number in range(200)
    ]
    file = prepare({"train": [*labels, *labels[:20]]}).profile.files[0]
    assert (file.duplicates, file.counted, file.distinct_prompts, file.distinct_completions) == (20, 220, 200, 2)
    assert [(each.text, each.records) for each in file.completions] == [("はい", 165), ("いいえ", 55)]
    assert file.categories == {"感情": 220}
    assert file.sample is not None
    assert file.sample.scripts["han"] > 0.4
    assert 0.9 < sum(file.sample.scripts.values()) < 1.1
    assert file.short_completions == 165


def test_the_sample_and_its_figures_do_not_depend_on_the_order_of_the_records() -> None:
    records = varied(1_500)
    one, other = prepare({"train": records}), prepare({"train": records[::-1]})
    assert one.profile.files[0].sample == other.profile.files[0].sample
    assert one.profile.representativeness == other.profile.representativeness
    assert one.profile.representativeness is not None
    assert one.profile.representativeness > 0.9


def test_test_records_about_something_else_are_unlike_training() -> None:
    foreign: list[JsonObject] = [{"prompt": f"天気は{number}ですか" * 3, "completion": "晴れ"} for number in range(60)]
    prepared = prepare({"train": varied(300), "test": foreign})
    assert prepared.profile.representativeness == 0
    assert "unlike_training" in prepared.codes()


def test_records_that_nearly_repeat_another_are_counted_in_the_sample() -> None:
    text = "Please send the parcel back to our warehouse in Osaka and keep the receipt until the refund has arrived. "
    alike: list[JsonObject] = [{"prompt": f"{text * 2}{number}", "completion": f"{number}"} for number in range(150)]
    prepared = prepare({"train": [*varied(150), *alike]})
    sample = prepared.profile.files[0].sample
    assert sample is not None
    assert sample.compared == 300
    assert 140 <= sample.similar <= 150
    assert "similar_records" in prepared.codes()
    assert "similar_records" not in prepare({"train": varied(300)}).codes()


def test_short_completions_and_repeated_prompts_are_warned_of() -> None:
    short: list[JsonObject] = [{"prompt": f"q{number % 20}", "completion": f" {number % 10} "} for number in range(200)]
    assert {"short_completions", "few_distinct_prompts"} <= prepare({"train": short}).codes()


def test_more_records_than_can_ever_fit_are_refused_and_not_counted_further() -> None:
    model = with_limits(TITAN_EXPRESS, max_total_records=100)
    problems = problems_of({"train": [*pairs(1_500), {"prompt": "a"}]}, model)
    assert {problem.code for problem in problems} == {"too_many_records", "missing_field"}
    assert any("1,500 training" in problem.found for problem in problems)
