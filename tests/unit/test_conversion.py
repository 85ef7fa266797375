"""docs/data-conversion.md against the code: every cell of the conversion table, and every mapping that it names."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from customization.catalogue import load_catalogue
from customization.json_types import Json, JsonObject
from customization.problems import InvalidDataset, load_rules
from customization.role_cues import EXAMPLES
from customization.shapes import rename_keys, suggest_mapping
from tests.unit.data_files import (
    CLAUDE_3_HAIKU,
    CONTINUED_PRE_TRAINING,
    FINE_TUNING,
    NOVA_MICRO,
    TITAN_EXPRESS,
    Prepared,
    codes,
    prepare,
)

PAGE = (Path(__file__).parents[2] / "docs" / "data-conversion.md").read_text()
MODELS = {
    "prompt_completion": (TITAN_EXPRESS, FINE_TUNING),
    "bedrock-conversation-2024": (NOVA_MICRO, FINE_TUNING),
    "claude_messages": (CLAUDE_3_HAIKU, FINE_TUNING),
    "input_only": (TITAN_EXPRESS, CONTINUED_PRE_TRAINING),
}
RECORDS = 40


def tables() -> Iterator[list[list[str]]]:
    """Yield the tables of the page as rows of cells, the row of dashes left out."""
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in block.splitlines()]
        yield [rows[0], *rows[2:]]


FORMATS, CONVERSIONS, REASONS, MAPPINGS = tables()
TARGETS = CONVERSIONS[0][2:]


def message(role: str, content: Json, **fields: Json) -> JsonObject:
    return {"role": role, "content": content, **fields}


def chat(*roles: str, **fields: Json) -> Callable[[int], JsonObject]:
    """Return what makes the n-th record: a message of each role."""
    return lambda number: {
        "messages": [message(role, f"{role} says {place} in {number}") for place, role in enumerate(roles)],
        **fields,
    }


def bedrock(*contents: Json, **fields: Json) -> Callable[[int], JsonObject]:
    """Return what makes the n-th record: `contents` by user and assistant in turns, the number in the first."""

    def make(number: int) -> JsonObject:
        roles = ("user", "assistant")
        messages: list[Json] = [message(roles[place % 2], content) for place, content in enumerate(contents)]
        first: Json = [{"text": f"What of {number}?"}]
        return {
            "schemaVersion": "bedrock-conversation-2024",
            "messages": [message("user", first), *messages[1:]],
            **fields,
        }

    return make


QUESTION: Json = [{"text": "the number goes here"}]
ANSWER: Json = [{"text": "An answer."}]
MAKERS: dict[tuple[str, str], Callable[[int], JsonObject]] = {
    ("prompt_completion", "one question and its answer"): lambda n: {"prompt": f"What of {n}?", "completion": "This."},
    ("prompt_completion", "a system prompt"): lambda n: {
        "system": "Be kind.",
        "prompt": f"{n}?",
        "completion": "This.",
    },
    ("prompt_completion", "a prompt without completion"): lambda n: {"prompt": f"What of {n}?"},
    ("input_only", "raw text"): lambda n: {"input": f"Page {n} of the manual."},
    ("bedrock-conversation-2024", "one question and its answer"): bedrock(QUESTION, ANSWER),
    ("bedrock-conversation-2024", "a system prompt"): bedrock(QUESTION, ANSWER, system=[{"text": "Be kind."}]),
    ("bedrock-conversation-2024", "several turns"): bedrock(QUESTION, ANSWER, [{"text": "And then?"}], ANSWER),
    ("bedrock-conversation-2024", "several text blocks in a message"): bedrock(
        QUESTION, [{"text": "One."}, {"text": "Two."}]
    ),
    ("bedrock-conversation-2024", "another schemaVersion"): bedrock(QUESTION, ANSWER, schemaVersion="other"),
    ("bedrock-conversation-2024", "tool calls"): bedrock(QUESTION, [{"toolUse": {"name": "look_up"}}]),
    ("bedrock-conversation-2024", "an image"): bedrock(QUESTION, ANSWER, [{"image": {"format": "png"}}], ANSWER),
    ("bedrock-conversation-2024", "reasoning"): bedrock(QUESTION, [{"reasoningContent": {}}, {"text": "So."}]),
    ("claude_messages", "one question and its answer"): chat("user", "assistant"),
    ("claude_messages", "a system prompt"): chat("user", "assistant", system="Be kind."),
    ("claude_messages", "several turns"): chat("user", "assistant", "user", "assistant", system="Be kind."),
    ("claude_messages", "an image"): lambda n: {
        "messages": [message("user", [{"type": "image", "source": {"data": str(n)}}]), message("assistant", "A cat.")]
    },
    ("claude_messages", "a message of the assistant first"): chat("assistant", "user", "assistant", system="Be kind."),
    ("openai_chat", "one question and its answer"): chat("user", "assistant"),
    ("openai_chat", "a system message"): chat("system", "user", "assistant"),
    ("openai_chat", "a developer message"): chat("developer", "user", "assistant"),
    ("openai_chat", "several turns"): chat("system", "user", "assistant", "user", "assistant"),
    ("openai_chat", "a system message between the turns"): chat("user", "assistant", "system", "user", "assistant"),
    ("openai_chat", "two user messages in a row"): chat("user", "user", "assistant"),
    ("openai_chat", "tool calls"): lambda n: {
        "messages": [message("user", f"{n}?"), message("assistant", None, tool_calls=[{"id": "1"}])]
    },
    ("openai_chat", "a message of weight 0"): lambda n: {
        "messages": [message("user", f"{n}?"), message("assistant", "Not this.", weight=0)]
    },
}


def convert(records: list[JsonObject], target: str) -> Prepared:
    model, kind = MODELS[target]
    return prepare({"pretrain" if kind == CONTINUED_PRE_TRAINING else "train": records}, model, (kind,))


def texts_in(value: Json) -> list[str]:
    """Return every text of a record, but not those that only say what kind of thing it is."""
    if isinstance(value, dict):
        return [
            text for key, inner in value.items() if key not in ("role", "schemaVersion") for text in texts_in(inner)
        ]
    if isinstance(value, list):
        return [text for inner in value for text in texts_in(inner)]
    return [value] if isinstance(value, str) else []


def test_the_table_has_every_format_and_every_record_that_the_tests_know() -> None:
    assert [(row[0], row[1]) for row in CONVERSIONS[1:]] == list(MAKERS)
    assert set(TARGETS) == set(MODELS) == {row[0].strip("`") for row in FORMATS[1:]}
    used = {name for model in load_catalogue().text_models() for name in model.training_format.values()}
    assert used & {*MODELS} == {*MODELS}
    assert {name for name in used if name not in MODELS} <= {"openai_chat_rft"}


@pytest.mark.parametrize(
    ("source", "target", "cell"),
    [(row[0:2], target, cell) for row in CONVERSIONS[1:] for target, cell in zip(TARGETS, row[2:], strict=True)],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value).split(" ")[0],
)
def test_a_record_is_converted_or_refused_as_the_table_says(source: list[str], target: str, cell: str) -> None:
    records = [MAKERS[source[0], source[1]](number) for number in range(RECORDS)]
    named = re.findall("`(.*?)`", cell)
    if cell.startswith("refused"):
        with pytest.raises(InvalidDataset) as refusal:
            convert(records, target)
        assert {*codes([problem for problem in refusal.value.problems if problem.severity == "error"])} == {*named}
        return
    prepared = convert(records, target)
    written = [record for name in prepared.sinks for record in prepared.records(name)]
    assert {*codes(list(prepared.profile.notes))} - {"no_split", "unasked"} == {*named}
    assert len(written) == RECORDS
    everything = "\n".join(text for record in written for text in texts_in(record))
    assert all(text in everything for record in records for text in texts_in(record))


def test_every_reason_that_the_table_gives_is_explained_and_worded() -> None:
    given = {code for row in CONVERSIONS[1:] for cell in row[2:] for code in re.findall("`(.*?)`", cell)}
    explained = {row[0].strip("`") for row in REASONS[1:]}
    assert given == explained
    assert explained <= load_rules().keys()


@pytest.mark.parametrize("row", MAPPINGS[1:], ids=lambda row: str(row[0]))
def test_the_mappings_of_the_page_are_those_that_errors_offer(row: list[str]) -> None:
    keys, mapping = re.findall("`(.*?)`", row[0]), json.loads(row[1].strip("`"))
    value: JsonObject = {key: f"text of {key}" for key in keys}
    if "messages" in mapping.values():
        value = {keys[0]: [message("user", "a"), message("assistant", "b")]}
    assert suggest_mapping(value) == mapping
    assert set(rename_keys(value, mapping)) == set(mapping.values())


def test_the_page_names_cues_that_are_recognized() -> None:
    assert all(cue in PAGE for cue in re.findall(r"\w+:", EXAMPLES))
