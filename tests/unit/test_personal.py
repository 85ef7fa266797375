"""Likely personal data: found by kind, in either language, and not where a number is something else."""

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customization.personal import CARD, EMAIL, MY_NUMBER, PHONE, kinds_in
from tests.unit.data_files import NOVA_MICRO, TITAN_EXPRESS, pairs, prepare

if TYPE_CHECKING:
    from customization.json_types import JsonObject


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to taro.yamada+shop@mail.co.jp, please", EMAIL),
        ("<anna@firma.de>", EMAIL),
        ("お電話は03-1234-5678まで", PHONE),
        ("携帯 090-1234-5678", PHONE),
        ("携帯09012345678です", PHONE),
        ("フリーダイヤル 0120-123-456", PHONE),
        ("電話：\uff10\uff13\u2212\uff11\uff12\uff13\uff14\u2212\uff15\uff16\uff17\uff18", PHONE),
        ("TEL (03) 1234-5678", PHONE),
        ("call +81 90 1234 5678", PHONE),
        ("call (555) 123-4567 today", PHONE),
        ("card 4111 1111 1111 1111", CARD),
        ("card 4111111111111111.", CARD),
        ("3782-822463-10005", CARD),
        ("番号は 1234 5678 9018", MY_NUMBER),
        ("マイナンバー: 123456789018", MY_NUMBER),
    ],
)
def test_personal_data_is_found_by_its_kind(text: str, kind: str) -> None:
    assert list(kinds_in(text)) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "user@example.com",
        "@taro said so",
        "a @ b",
        "order 12345678",
        "on 2026-11-22 10:30:00",
        "2026/11/22",
        "192.168.100.200",
        "ISBN 978-4-00-310101-8",
        "1,234,567,890 yen",
        "card 4111 1111 1111 1112",
        "番号は 1234 5678 9012",
        "注文番号 123456789018",
        "v1.2.3-4567",
        "0.12345678901",
    ],
)
def test_other_numbers_and_addresses_are_left_alone(text: str) -> None:
    assert list(kinds_in(text)) == []


@given(st.text(alphabet=st.sampled_from("0123456789 -.()+@a\uff10\u2212")))
def test_any_text_is_read_to_its_end(text: str) -> None:
    assert set(kinds_in(text)) <= {EMAIL, PHONE, CARD, MY_NUMBER}


def test_a_long_text_of_at_signs_and_digits_takes_no_time_to_speak_of() -> None:
    assert list(kinds_in("a" * 300_000 + "@" * 1_000 + "1" * 300_000)) == []


def test_personal_data_is_warned_of_by_line_and_field_and_not_quoted() -> None:
    train: list[JsonObject] = [
        *pairs(50),
        {"prompt": "Who?", "completion": "Write to taro@mail.jp or call 03-1234-5678"},
    ]
    prepared = prepare({"train": train}, TITAN_EXPRESS)
    found = [problem for problem in prepared.profile.warnings if problem.code.startswith("personal_")]
    assert {(problem.code, problem.line, problem.field) for problem in found} == {
        (EMAIL, 51, "completion"),
        (PHONE, 51, "completion"),
    }
    assert not any("taro" in repr(problem) or "1234" in repr(problem) for problem in found)


def test_end_markers_in_answers_are_warned_of() -> None:
    train: list[JsonObject] = [
        *pairs(50),
        {"prompt": "a </s>", "completion": "b"},
        {"prompt": "a", "completion": "b </s>"},
    ]
    warnings = [
        problem for problem in prepare({"train": train}, NOVA_MICRO).profile.warnings if problem.code == "end_marker"
    ]
    assert [(problem.line, "</s>" in problem.what) for problem in warnings] == [(52, True)]
