"""Small data sets: a few intents that the stand-in learns in a second."""

import json
from collections.abc import Sequence

from customization.json_types import Json, JsonObject
from customization.money import ITEM_NAMES

ACCEPTED: list[Json] = [*ITEM_NAMES]

_ANSWERS = {
    "send back": "Returns are free within 14 days.",
    "pay for": "We take cards and bank transfers.",
    "repair": "Repairs take two weeks.",
    "exchange": "Exchanges need the receipt.",
}
_THINGS = ("kettle", "lamp", "chair", "radio", "clock", "tent", "printer", "drill")


def pairs(count: int, start: int = 0) -> list[JsonObject]:
    """Return records of prompt and completion, each prompt once; the same numbers give the same records."""
    intents = list(_ANSWERS)
    return [
        {
            "prompt": f"How can I {intents[number % 4]} the {_THINGS[number // 4 % 8]} of order {number}?",
            "completion": _ANSWERS[intents[number % 4]],
        }
        for number in range(start, start + count)
    ]


def texts(count: int, start: int = 0) -> list[JsonObject]:
    """Return records for continued pre-training."""
    chapters = list(_ANSWERS.items())
    return [
        {"input": f"{number}. To {intent} a {_THINGS[number // 4 % 8]}: {answer}"}
        for number in range(start, start + count)
        for intent, answer in [chapters[number % 4]]
    ]


def lines(records: Sequence[JsonObject]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def request(**fields: Json) -> bytes:
    """Return a run.json that accepts what no source gives a price for."""
    return json.dumps({"acceptUnknownPrices": ACCEPTED, **fields}).encode()


def labelled(train: int = 100, test: int = 6, start: int = 0, **fields: Json) -> dict[str, bytes]:
    """Return a folder to fine-tune on; 100 records are the least that every model takes.

    Another `start`, a multiple of 1,000, gives other records: what was trained on before would be adopted.
    """
    return {
        "train.jsonl": lines(pairs(train, start)),
        "test.jsonl": lines(pairs(test, start + 500)),
        "run.json": request(**fields),
    }
