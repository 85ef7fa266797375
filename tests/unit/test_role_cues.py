"""Role cues: which are recognized, that asking for it takes them off everywhere alike, and where that is offered."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customization.answering import read_test_records
from customization.formats import Example, RawText, TestRecord, Turn
from customization.inference import build_question
from customization.json_types import JsonObject
from customization.planning import plan_run
from customization.preparation import prepare
from customization.prepared import data_key
from customization.problems import Problem
from customization.role_cues import strip_role_cues, without_role_cues
from customization.runs import Call, read_plan
from tests.unit.data_files import (
    CLAUDE_3_HAIKU,
    NOVA_MICRO,
    TITAN_EXPRESS,
    codes,
    conversation,
    json_lines,
    model_of,
    pairs,
    problems_of,
)
from tests.unit.data_files import prepare as prepare_files
from tests.unit.fakes import GatewayInMemory

HINT = '"stripRoleCues": true'


def cued(count: int, *, user: str = "User: ", assistant: str = "Bot:", start: int = 0) -> list[JsonObject]:
    return [
        {"prompt": f"{user}{record['prompt']}\n{assistant}", "completion": f" {record['completion']}"}
        for record in pairs(count, start)
    ]


def stripped(prompt: str, completion: str = "b", system: str = "") -> tuple[list[str], str]:
    example = without_role_cues(Example((Turn("user", prompt), Turn("assistant", completion)), system))
    return [turn.text for turn in example.turns], example.system


@pytest.mark.parametrize(
    ("prompt", "completion", "turns"),
    [
        ("User: Hi\nBot:", " Hello", ["Hi", "Hello"]),
        ("お客様: 返品したいです。\nエージェント:", " 承知しました。", ["返品したいです。", "承知しました。"]),
        ("\n\nHuman: Hi\n\nAssistant:", " Hello", ["Hi", "Hello"]),
        ("質問：返品できますか\n回答：", "はい", ["返品できますか", "はい"]),
        ("Q: Hi\nA:", "Hello", ["Hi", "Hello"]),
        ("USER : Hi\r\nassistant :\r\n", "Hello", ["Hi", "Hello"]),
        ("User: Hi", "Bot: Hello", ["Hi", "Hello"]),
        ("Customer: Hi", "Agent: Hello", ["Hi", "Hello"]),
        ("Hi\nBot:", "Hello", ["Hi", "Hello"]),
        ("User:\n    indented\nBot:", "ok", ["    indented", "ok"]),
        ("User: a\nBot: b\nUser: c\nBot:", " d", ["a", "b", "c", "d"]),
        ("Q: which?\nA: one\nB: two\nA:", "b", ["which?\nA: one\nB: two", "b"]),
    ],
)
def test_cues_that_name_the_two_sides_come_off(prompt: str, completion: str, turns: list[str]) -> None:
    assert stripped(prompt, completion) == (turns, "")


@pytest.mark.parametrize(
    "prompt",
    [
        "Text: great phone\nSentiment:",
        "感情を分類:",
        "Question: what is a lease?",
        "Customer: Acme\nOrder: 12",
        "以下を要約してください。\n回答:",
        "Use this: User",
        "Superuser: Hi",
    ],
)
def test_labels_of_a_task_stay_in_the_prompt(prompt: str) -> None:
    example = Example((Turn("user", prompt), Turn("assistant", " b")))
    assert without_role_cues(example) is example


def test_a_system_cue_becomes_the_system_prompt() -> None:
    assert stripped("System: Be brief.\nUser: Hi\nBot:", system="Be kind.") == (["Hi", "b"], "Be kind.\n\nBe brief.")


def test_every_prompt_of_a_conversation_loses_its_cues_and_raw_text_keeps_everything() -> None:
    turns = (Turn("user", "User: a"), Turn("assistant", "Bot: b"), Turn("user", "User: c"), Turn("assistant", "d"))
    assert [turn.text for turn in without_role_cues(Example(turns)).turns] == ["a", "b", "c", "d"]
    assert strip_role_cues(RawText("User: a\nBot:")) == RawText("User: a\nBot:")


@given(st.text(min_size=1).map(str.strip).filter(lambda text: text and ":" not in text and "：" not in text))
def test_whatever_stands_between_cues_is_what_remains(text: str) -> None:
    assert stripped(f"ユーザー: {text}\nアシスタント:", f" {text}") == ([text, text], "")


def test_nova_refuses_cues_that_it_reserves_and_the_fix_names_the_field() -> None:
    problems = problems_of({"train": cued(50)})
    assert set(codes(problems)) == {"reserved_role_cue"}
    assert HINT in problems[0].fix


def test_a_reserved_word_that_is_no_cue_offers_no_stripping() -> None:
    within: list[JsonObject] = [{"prompt": "User: what does Bot: mean here\nBot:", "completion": "x"}]
    problems = problems_of({"train": [*pairs(50), *within]})
    assert codes(problems) == ["reserved_word"]
    assert HINT not in problems[0].fix


def of_code(problems: tuple[Problem, ...], code: str) -> list[str]:
    return [problem.text() for problem in problems if problem.code == code]


@pytest.mark.parametrize("model", [NOVA_MICRO, CLAUDE_3_HAIKU])
def test_cues_that_messages_would_repeat_are_warned_of_with_the_offer(model: str) -> None:
    train = cued(200, user="お客様: ", assistant="エージェント:")
    (told,) = of_code(prepare_files({"train": train}, model).profile.warnings, "role_cues")
    assert "お客様: … エージェント:" in told
    assert HINT in told


def test_a_model_that_takes_prompts_keeps_its_cues_unasked() -> None:
    assert "role_cues" not in prepare_files({"train": cued(200)}, TITAN_EXPRESS).codes()


def test_a_few_cued_prompts_make_no_habit() -> None:
    train = [*pairs(190), *cued(10, user="お客様: ", assistant="エージェント:", start=190)]
    assert "role_cues" not in prepare_files({"train": train}).codes()


def test_stripping_makes_the_same_files_as_data_without_cues() -> None:
    with_cues = {"train": cued(200), "validation": cued(20, start=200), "test": cued(40, start=300)}
    without = {"train": pairs(200), "validation": pairs(20, 200), "test": pairs(40, 300)}
    for model in (NOVA_MICRO, TITAN_EXPRESS):
        prepared = prepare_files(with_cues, model, strip_role_cues=True)
        plain = prepare_files(without, model)
        assert {name: prepared.content(name) for name in prepared.sinks} == {
            name: plain.content(name) for name in plain.sinks
        }
        assert len(of_code(prepared.profile.notes, "role_cues_removed")) == 3


def test_asking_to_strip_what_is_not_there_is_told() -> None:
    assert "no_role_cues" in prepare_files({"train": pairs(50)}, strip_role_cues=True).codes()


def test_earlier_turns_within_a_prompt_become_messages_and_are_refused_where_only_one_turn_is_taken() -> None:
    train: list[JsonObject] = [
        {"prompt": f"User: a{number}\nBot: b\nUser: c\nBot:", "completion": " d"} for number in range(50)
    ]
    files = {"train": train, "validation": pairs(10), "test": pairs(1, 10)}
    first = prepare_files(files, strip_role_cues=True).records("train")[0]
    assert first == conversation_2024("a0", "b", "c", "d")
    assert set(codes(problems_of({"train": train}, TITAN_EXPRESS, strip_role_cues=True))) == {"multi_turn"}


def conversation_2024(*texts: str) -> JsonObject:
    messages = conversation(*texts)["messages"]
    assert isinstance(messages, list)
    return {
        "schemaVersion": "bedrock-conversation-2024",
        "messages": [
            {"role": message["role"], "content": [{"text": message["content"]}]}
            for message in messages
            if isinstance(message, dict)
        ],
    }


def test_a_run_that_strips_trains_and_asks_without_cues_and_is_a_training_of_its_own(
    gateway: GatewayInMemory, call: Call
) -> None:
    gateway.data.put("incoming/support/train.jsonl", json_lines(cued(60)))
    fresh = replace(call, run_id="", attempt=0)
    plans = []
    for fields in ({}, {"stripRoleCues": True}):
        run = plan_run(gateway, {"dataset": "support", **fields}, fresh)
        plans.append(read_plan(gateway, str(run["runId"])))
    assert plans[0].training_id != plans[1].training_id
    plan = plans[1]
    prepare(gateway, plan, replace(call, run_id=plan.run_id, attempt=plan.attempt))
    records: list[TestRecord] = read_test_records(gateway, plan)
    asked = build_question(model_of(NOVA_MICRO), "any", records[0], plan.inference)
    assert b"User:" not in gateway.artifacts.read(data_key(plan, "train"))
    assert "User:" not in str(asked.parameters)
    assert records[0].turns[0].text.startswith("How do I return")
