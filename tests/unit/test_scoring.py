"""Scores of answers against references."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import LCSseq
from sacrebleu.metrics.chrf import CHRF

from customization import chrf, scoring
from customization.json_types import Json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_width_case_and_white_space_do_not_count() -> None:
    assert scoring.exact_match("  \uff21\uff22\uff23\u3000ｶﾞ\n", "abc ガ") == 1
    assert scoring.exact_match("Straße", "STRASSE") == 1
    assert scoring.exact_match("abc", "abd") == 0


def test_japanese_is_compared_by_character_and_english_by_word() -> None:
    assert scoring.units("返品はcheapです") == ("返", "品", "は", "cheap", "で", "す")
    assert scoring.units("The cat's 2nd, day") == ("the", "cat", "s", "2nd", "day")
    assert scoring.units("안녕 world") == ("안", "녕", "world")


def test_contains_looks_at_whole_words_but_at_any_characters_of_japanese() -> None:
    assert scoring.contains("the cat sat", "cat sat") == 1
    assert scoring.contains("the cat sat", "at") == 0
    assert scoring.contains("返品は14日以内です", "14日以内") == 1


@pytest.mark.parametrize(
    ("answer", "reference", "token_f1", "rouge_l"),
    [
        ("a b c d", "a b c d", 1.0, 1.0),
        ("d c b a", "a b c d", 1.0, 0.25),  # the same words, the longest common sequence is one word
        ("a b", "a b c d", 2 * 1.0 * 0.5 / 1.5, 2 * 1.0 * 0.5 / 1.5),
        ("a a a", "a b", 2 * (1 / 3) * 0.5 / (1 / 3 + 0.5), 0.4),  # a word counts as often as both have it
        ("x", "a", 0.0, 0.0),
        ("", "a", 0.0, 0.0),
        ("", "", 1.0, 1.0),
        ("猫が好き", "猫は好き", 0.75, 0.75),
    ],
)
def test_token_f1_and_rouge_l_of_known_pairs(answer: str, reference: str, token_f1: float, rouge_l: float) -> None:
    assert scoring.token_f1(answer, reference) == pytest.approx(token_f1)
    assert scoring.rouge_l(answer, reference) == pytest.approx(rouge_l)


@given(st.lists(st.sampled_from("abcde"), max_size=90), st.lists(st.sampled_from("abcde"), max_size=90))
def test_the_longest_common_subsequence_is_that_of_rapidfuzz(ours: list[str], theirs: list[str]) -> None:
    assert scoring._longest_common(ours, theirs) == LCSseq.similarity(ours, theirs)


@given(st.text(), st.text())
def test_every_score_of_any_text_lies_between_0_and_1_and_is_1_for_the_reference_itself(one: str, other: str) -> None:
    scores = scoring.score(one, other, scoring.METRICS, (scoring.normalized(other),))
    assert all(0 <= value <= 1 for value in scores.values())
    same = scoring.score(one, one, [scoring.EXACT_MATCH, scoring.CONTAINS, scoring.TOKEN_F1, scoring.ROUGE_L])
    assert set(same.values()) == {1.0}


@given(st.text(alphabet="ab cé\u3000あア猫\n.", max_size=20), st.text(alphabet="ab cé\u3000あア猫\n.", max_size=20))
def test_chrf_is_that_of_sacrebleu(answer: str, reference: str) -> None:
    theirs = CHRF(lowercase=True).sentence_score(answer, [reference]).score / 100
    assert chrf.sentence_chrf(answer, reference) == (1 if answer == reference else theirs)


def test_chrf_of_more_characters_than_fit_into_a_key_is_that_of_sacrebleu_too() -> None:
    answer = "".join(chr(0x4E00 + number) for number in range(1100))
    reference = answer[50:] + "abc"
    assert chrf.sentence_chrf(answer, reference) == CHRF(lowercase=True).sentence_score(answer, [reference]).score / 100


def test_chrf_tells_its_settings_and_the_library_and_looks_at_normalized_text() -> None:
    assert scoring.chrf("\uff21\uff22 CD", "ab cd") == 1
    assert 0 < scoring.chrf("cats", "cat") < 1
    theirs = CHRF(lowercase=True)
    theirs.sentence_score("a", ["a"])  # it knows the number of references once it has scored something
    assert scoring.signatures([scoring.CHRF]) == {scoring.CHRF: str(theirs.get_signature())}
    assert scoring.signatures([scoring.ROUGE_L]) == {}


@given(JSON)
def test_json_matches_itself_whatever_its_key_order_layout_or_fence(value: Json) -> None:
    text = json.dumps(value, indent=2, sort_keys=True)
    assert scoring.json_match(f"```json\n{text}\n```", json.dumps(value)) == 1
    assert scoring.json_valid(text, "") == 1


def test_json_match_counts_fields_by_path_and_value() -> None:
    reference = '{"name": "Ann", "tags": ["a", "b"], "age": 1}'
    assert scoring.json_match('{"age": 1.0, "tags": ["a", "b"], "name": "ANN"}', reference) == 1
    assert scoring.json_match('{"name": "Ann", "tags": ["b", "a"], "age": 1}', reference) == 0.5
    assert scoring.json_match('{"name": "Ann", "tags": ["a", "b"], "age": true}', reference) == 0.75
    assert scoring.json_match('{"a": {"b": 1}}', '{"a/b": 1}') == 0


@pytest.mark.parametrize("text", ["", "{", "Sure! {}", "NaN", "[" * 100_000, "1" * 5000])
def test_what_is_not_json_scores_0_and_raises_nothing(text: str) -> None:
    assert scoring.json_valid(text, "") == 0
    assert scoring.json_match(text, "{}") == 0


def test_a_label_is_found_in_a_sentence_unless_two_are_named() -> None:
    labels = ("good", "not good", "bad")
    assert scoring.named_label("Good.", labels) == "good"
    assert scoring.named_label("The sentiment is bad", labels) == "bad"
    assert scoring.named_label("It is not good", labels) == "not good"
    assert scoring.named_label("good or bad", labels) == ""
    assert scoring.named_label("none of them", labels) == ""
    assert scoring.named_label("b+", ("b+", "b-")) == "b+"
    assert scoring.named_label("it is b", ("b+", "b-")) == ""


@pytest.mark.parametrize(
    ("references", "metric"),
    [
        (["positive", "negative"] * 20, scoring.LABEL_ACCURACY),
        (["ポジティブ", "ネガティブ"] * 20, scoring.LABEL_ACCURACY),
        ([f'{{"id": {number}}}' for number in range(30)], scoring.JSON_MATCH),
        ([f"{number}" for number in range(30)], scoring.EXACT_MATCH),
        ([f"answer number {number} with a few words" for number in range(30)], scoring.TOKEN_F1),
        ([f"{number} " + "many words in one long answer " * 5 for number in range(30)], scoring.ROUGE_L),
        (
            [
                f"お問い合わせありがとうございます。注文番号{number}の商品は到着後14日以内であれば返品できます。マイページからお手続きください。"
                for number in range(30)
            ],
            scoring.ROUGE_L,
        ),
        (["the same answer"] * 30, scoring.EXACT_MATCH),
        ([f"คุณสามารถคืนสินค้า {number} ได้ภายในสิบสี่วัน" for number in range(30)], scoring.CHRF),
    ],
)
def test_the_primary_metric_follows_from_what_the_references_look_like(references: list[str], metric: str) -> None:
    chosen = scoring.choose_primary_metric(references)
    assert chosen.metric == metric
    assert metric in scoring.metrics_for(references)


def test_chrf_informs_where_answers_are_texts_and_not_for_labels_json_or_a_word() -> None:
    texts = [f"answer number {number} with a few words" for number in range(30)]
    assert scoring.CHRF in scoring.metrics_for(texts)
    for others in (["yes", "no"] * 20, [f'{{"id": {number}}}' for number in range(30)], list(map(str, range(30)))):
        assert scoring.CHRF not in scoring.metrics_for(others)


def test_of_very_many_labels_none_is_looked_for_inside_an_answer() -> None:
    few, many = [f"label {number}" for number in range(100)], [f"label {number}" for number in range(101)]
    assert scoring.named_label("it is label 7", few) == "label 7"
    assert scoring.named_label("it is label 7", many) == ""
    assert scoring.named_label("Label 7", many) == "label 7"


def test_a_stray_broken_reference_does_not_hide_that_the_others_are_json() -> None:
    references = [f'{{"id": {number}}}' for number in range(40)] + ["{"]
    assert scoring.choose_primary_metric(references).metric == scoring.JSON_MATCH
