"""The wording of problems in both languages, and how they are told, stored and quoted."""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from string import Template

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customization.catalogue import load_catalogue
from customization.failures import explain
from customization.json_types import JsonObject, as_object
from customization.planning import plan_run
from customization.preparation import prepare
from customization.prepared import STAGE_FILES, data_key
from customization.problems import (
    EXCERPT_CHARACTERS,
    MESSAGE_BYTES,
    Findings,
    InvalidDataset,
    Problems,
    Words,
    excerpt,
    load_rules,
)
from customization.request import DATASET
from customization.runs import Call, Plan, read_plan
from tests.unit import data_files
from tests.unit.data_files import json_lines, pairs
from tests.unit.fakes import GatewayInMemory

PACKAGE = Path(__file__).parents[2] / "lambda" / "customization"
JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")


def places(words: Words) -> set[str]:
    return set(Template(f"{words.what} {words.allowed} {words.fix}").get_identifiers())


@pytest.mark.parametrize("code", load_rules())
def test_a_problem_says_the_same_in_english_and_japanese(code: str) -> None:
    rule = load_rules()[code]
    assert places(rule.en) == places(rule.ja)
    assert (bool(rule.en.allowed), bool(rule.en.fix)) == (bool(rule.ja.allowed), bool(rule.ja.fix))
    assert JAPANESE.search(rule.ja.what)
    assert not JAPANESE.search(rule.en.what + rule.en.fix)
    assert rule.severity != "error" or rule.en.fix
    assert all(Template(text).is_valid() for words in (rule.en, rule.ja) for text in (words.what, words.fix))


def added_codes() -> Iterator[str]:
    """Yield the codes that calls of `add`, `_report` and `report` name."""
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                code = node.args[0].value
                is_code = isinstance(code, str) and re.fullmatch("[a-z0-9]+(_[a-z0-9]+)+|nul|tools|media|weight", code)
                if name in {"_report", "report", "Malformation"} or (name == "add" and is_code):
                    yield str(code)


def test_no_code_is_without_words_and_no_words_without_a_use() -> None:
    assert set(added_codes()) <= set(load_rules())
    source = "\n".join(path.read_text() for path in PACKAGE.glob("*.py"))
    assert [code for code in load_rules() if f'"{code}"' not in source] == []


@given(st.text(max_size=400))
def test_an_excerpt_is_short_printable_and_can_be_stored(text: str) -> None:
    quoted = excerpt(text)
    assert len(quoted) <= EXCERPT_CHARACTERS
    assert quoted.isprintable()
    msgspec.json.encode(quoted)


@pytest.mark.parametrize(
    "secret", ["jane.doe@shop.co.jp", "090-1234-5678", "+81 90 1234 5678", "4111 1111 1111 1111", "123456789018"]
)
@pytest.mark.parametrize("before", ["", "call ", "a" * 20])
def test_an_excerpt_hides_personal_data(secret: str, before: str) -> None:
    quoted = excerpt(f"{before}{secret} today")
    assert not any(part in quoted for part in (secret, secret[:6], secret[-6:]))
    assert "…" in quoted


def test_a_report_quotes_neither_long_lines_nor_personal_data() -> None:
    broken = b'{"prompt": "write to jane.doe@shop.co.jp or 090-1234-5678", "completion": "' + b"x" * 5_000
    odd = b'{"' + b"k" * 5_000 + b'": 1, "jane.doe@shop.co.jp": 2}'
    text = b'"jane.doe@shop.co.jp, 4111 1111 1111 1111"'
    with pytest.raises(InvalidDataset) as refused:
        data_files.prepare({"train": b"\n".join([json_lines(pairs(1)), broken, odd, text])})
    message = str(refused.value)
    assert len(message) < 2_000
    assert not any(secret in message for secret in ("jane", "shop.co", "1234", "4111"))


def bad_lines() -> bytes:
    lines = [f'{{"prompt": "{"返" * number}", "completion": {number}}}'.encode() for number in range(60)]
    broken = [f'{{"prompt": "感情{number}" "completion": "ポジティブ"}}'.encode() for number in range(60)]
    return b"\n".join([*lines, *broken, b"[]", "ソース".encode("cp932")])


def test_japanese_counts_in_bytes_and_every_kind_is_named_before_one_is_repeated() -> None:
    with pytest.raises(InvalidDataset) as refused:
        data_files.prepare({"train": bad_lines(), "test": b""}, language="ja")
    message = str(refused.value)
    assert len(message.encode()) <= MESSAGE_BYTES
    assert message.startswith("データファイルに 123 件の誤りがあります")
    for text in (
        "値の型が違います",
        "コンマがありません",
        "オブジェクトではありません",
        "Shift_JIS",
        "1 件もありません",
    ):
        assert text in message
    assert "ほかに同じ種類が" in message
    cause = json.dumps({"errorMessage": message, "errorType": "InvalidDataset"})
    assert len(cause) < 32_768
    assert explain("InvalidDataset", cause, "ja").cause == message


def test_counts_are_of_all_problems_and_the_verdict_is_of_the_worst() -> None:
    problems = Problems()
    assert Findings.of([]).verdict == "accept"
    problems.add("blank_line", "a", 1)
    problems.add("blank_line", "a", 2)
    assert Findings.of(problems.of("note")).counts == {"error": 0, "warning": 0, "note": 2}
    assert Findings.of(problems.of("note")).verdict == "accept"
    for line in range(50):
        problems.add("extra_field", "a", line, field="id")
    assert Findings.of(problems.of("warning", "note")).verdict == "warn"
    problems.add("nul", "a", 1)
    found = Findings.of(problems.of("error", "warning", "note"))
    assert (found.verdict, found.counts) == ("reject", {"error": 1, "warning": 50, "note": 2})
    assert len(found.problems) == 22


def planned(gateway: GatewayInMemory, call: Call, training: bytes) -> tuple[Plan, Call]:
    gateway.data.put("incoming/support/train.jsonl", training)
    fresh = replace(call, run_id="", attempt=0)
    run = plan_run(gateway, {"dataset": "support", "language": "ja"}, fresh)
    plan = read_plan(gateway, str(run["runId"]))
    return plan, replace(call, run_id=plan.run_id, attempt=plan.attempt)


def stored(gateway: GatewayInMemory, plan: Plan) -> JsonObject:
    return as_object(json.loads(gateway.artifacts.read(f"{plan.prefix}data/problems.json")), "problems.json")


def test_a_refused_run_keeps_all_problems_and_its_cause_says_where(gateway: GatewayInMemory, call: Call) -> None:
    plan, call = planned(gateway, call, b"\xef\xbb\xbf" + bad_lines())
    with pytest.raises(InvalidDataset) as refused:
        prepare(gateway, plan, call)
    assert f"s3://artifacts/{plan.prefix}data/problems.json" in str(refused.value)
    assert len(str(refused.value).encode()) <= MESSAGE_BYTES
    found = stored(gateway, plan)
    assert found["verdict"] == "reject"
    assert found["counts"] == {"error": 122, "warning": 0, "note": 1}
    assert JAPANESE.search(json.dumps(found["problems"], ensure_ascii=False))


def test_an_accepted_run_keeps_its_warnings_and_notes_too(gateway: GatewayInMemory, call: Call) -> None:
    plan, call = planned(gateway, call, json_lines(pairs(60)).replace(b"\n", b"\r\n"))
    prepare(gateway, plan, call)
    found = stored(gateway, plan)
    assert (found["verdict"], as_object(found["counts"], "counts")["error"]) == ("warn", 0)
    text = json.dumps(found["problems"])
    assert '"few_records"' in text
    assert '"cr_lf"' in text


@pytest.mark.parametrize("dataset", ["a", "support-ja", "0-1-2-3-4-5-6-7-8-9-a-b-c-d-e-f"])
def test_bedrock_takes_the_keys_of_prepared_files(plan: Plan, dataset: str) -> None:
    assert re.fullmatch(DATASET, dataset)
    named = msgspec.structs.replace(plan, run_id=f"{dataset}-0123456789")
    allowed = re.compile(f"[{load_catalogue().s3_key_characters}]+")
    assert all(allowed.fullmatch(data_key(named, name)) for files in STAGE_FILES.values() for name in files)
