"""Writes the sample data sets from the phrases in content/: `python -m samples.generate`."""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

SAMPLES = Path(__file__).parent
_Kind = TypeVar("_Kind")

# Of all pairs of product and situation one in ten is never trained on, and the others in three of their phrasings.
_HELD_OUT_PAIR = 10
_PHRASINGS = 3
# One in three of the trained pairs is tested too, in words that were not trained on.
_TESTED_PAIR = 3


class Situation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A question is a statement and a request; the answer is the same whatever their words."""

    category: str
    name: str
    statements: list[str]
    requests: list[str]
    held_out_statement: str
    held_out_request: str
    answer: str
    says_order: bool = False


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    greetings: list[str]
    closings: list[str]
    moments: list[str]
    order_phrases: list[str]
    order_letters: str
    products: list[dict[str, str]]
    situations: list[Situation]


class Handbook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    paragraphs: list[str]
    rules: list[str]


class Record(msgspec.Struct, frozen=True):
    prompt: str
    completion: str
    category: str


class Support(msgspec.Struct, frozen=True):
    train: list[Record]
    test: list[Record]


def generated_files() -> dict[str, bytes]:
    """Return the content of every generated file by its path under samples/."""
    japanese = _read("support-ja", Content)
    support_ja = support(japanese)
    support_en = support(_read("support-en", Content), separator=" ")
    handbook = list(_handbook(_read("handbook-ja", Handbook), japanese.products))
    known = support(msgspec.structs.replace(japanese, products=japanese.products[::3]))
    in_handbook_only = [product for place, product in enumerate(japanese.products) if place % 3]
    unknown = support(msgspec.structs.replace(japanese, products=in_handbook_only))
    tutorial = support(msgspec.structs.replace(japanese, situations=japanese.situations[::3]))
    return {
        "support-ja/train.jsonl": _lines(support_ja.train),
        "support-ja/test.jsonl": _lines(support_ja.test),
        "support-en/train.jsonl": _lines(support_en.train),
        "support-en/test.jsonl": _lines(support_en.test),
        "handbook-ja/pretrain.jsonl": _lines([{"input": text} for text in handbook]),
        "handbook-ja/train.jsonl": _lines(known.train),
        "handbook-ja/test.jsonl": _lines(unknown.test),
        "tutorial-titan/train.jsonl": _lines(_with_roles(tutorial.train[40:])),
        "tutorial-titan/validation.jsonl": _lines(_with_roles(tutorial.train[:40])),
        "tutorial-titan/test.jsonl": _lines(_with_roles(tutorial.test)),
    }


def support(content: Content, separator: str = "") -> Support:
    """Return training and test records; `separator` stands between the sentences of a question."""
    split = Support([], [])
    for column, product in enumerate(content.products):
        for row, situation in enumerate(content.situations):
            questions = _Questions(content, product, situation, separator)
            if (column + 3 * row) % _HELD_OUT_PAIR == 0:
                split.test.append(questions.known(column + row, row))
                split.test.append(questions.asked(situation.held_out_statement, situation.requests[column % 3]))
                continue
            split.train.extend(
                questions.known(column + row + each, column + 2 * row + each) for each in range(_PHRASINGS)
            )
            if (column + 2 * row) % _TESTED_PAIR == 0:
                split.test.append(questions.held_out((column + 2 * row) // _TESTED_PAIR))
    split.train.sort(key=lambda record: _digest("order", record.prompt))
    return split


class _Questions:
    def __init__(self, content: Content, product: dict[str, str], situation: Situation, separator: str) -> None:
        self._content = content
        self._product = product
        self._situation = situation
        self._separator = separator

    def known(self, statement: int, request: int) -> Record:
        """Return a question in words that are trained on."""
        statements, requests = self._situation.statements, self._situation.requests
        return self.asked(statements[statement % len(statements)], requests[request % len(requests)])

    def held_out(self, turn: int) -> Record:
        """Return a question whose statement, request or both are not trained on."""
        situation = self._situation
        statement = situation.statements[turn % len(situation.statements)]
        request = situation.requests[turn % len(situation.requests)]
        return self.asked(
            statement if turn % 3 == 0 else situation.held_out_statement,
            request if turn % 3 == 1 else situation.held_out_request,
        )

    def asked(self, statement: str, request: str) -> Record:
        """Return a question with everything that varies picked by its own words."""
        content, situation = self._content, self._situation
        words = (self._product["name"], situation.name, statement, request)
        fields = {
            **self._product,
            "product": self._product["name"],
            "moment": _pick(content.moments, "moment", *words),
            "order": f"{_pick(content.order_letters, 'letter', *words)}{_digest('order', *words) % 100_000:05}",
        }
        order = _pick(content.order_phrases, "phrase", *words) if situation.says_order else ""
        closing = _pick(content.closings, "closing", *words)
        prompt = _pick(content.greetings, "greeting", *words) + statement + self._separator + request + order + closing
        return Record(prompt.format(**fields), situation.answer.format(**fields), situation.category)


def _handbook(handbook: Handbook, products: Sequence[dict[str, str]]) -> Iterator[str]:
    for product in products:
        for paragraph in handbook.paragraphs:
            yield paragraph.format(product=product["name"], **product)
    yield from handbook.rules


def _with_roles(records: Sequence[Record]) -> list[Record]:
    """Return the records with the roles written into their prompts, as tutorials for Titan Text do."""
    return [msgspec.structs.replace(record, prompt=f"お客様: {record.prompt}\nエージェント:") for record in records]


def _read(name: str, kind: type[_Kind]) -> _Kind:
    return msgspec.convert(tomllib.loads((SAMPLES / "content" / f"{name}.toml").read_text(encoding="utf-8")), kind)


def _lines(records: Sequence[Record] | Sequence[dict[str, str]]) -> bytes:
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


def _pick(choices: Sequence[str], *key: str) -> str:
    return choices[_digest(*key) % len(choices)]


def _digest(*key: str) -> int:
    """Return a number that looks random and is the same in every version of Python."""
    return int.from_bytes(hashlib.sha256(json.dumps(key).encode()).digest()[:8], "big")


if __name__ == "__main__":
    for path, data in generated_files().items():
        (SAMPLES / path).parent.mkdir(exist_ok=True)
        (SAMPLES / path).write_bytes(data)
