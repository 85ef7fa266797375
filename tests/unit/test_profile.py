"""Figures about the data: tokens by script, lengths, totals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customization.formats import Example, RawText, Turn
from customization.profile import (
    Size,
    TokenEstimate,
    Totals,
    estimate_tokens,
    length_quantiles,
    most_tokens,
    size_of,
)

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


@given(st.lists(st.text(), max_size=5), st.lists(st.text(), max_size=5))
def test_totals_without_some_records_are_those_of_the_others(some: list[str], others: list[str]) -> None:
    def totals(texts: list[str]) -> Totals:
        added = Totals()
        for text in texts:
            added.add(size_of(Example((Turn("user", text), Turn("assistant", text)))))
        return added

    assert vars(totals(some + others).without([totals(some)])) == vars(totals(others))


@given(st.lists(st.integers(1, 50), min_size=1))
def test_quantiles_are_lengths_that_so_many_records_do_not_exceed(lengths: list[int]) -> None:
    quantiles = length_quantiles({length: lengths.count(length) for length in lengths})
    assert quantiles.max == max(lengths)
    for share, quantile in ((0.5, quantiles.p50), (0.9, quantiles.p90)):
        assert sum(length <= quantile for length in lengths) >= share * len(lengths)
        assert sum(length < quantile for length in lengths) < share * len(lengths)
