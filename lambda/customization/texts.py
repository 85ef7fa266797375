"""What people read, by code and language: the wording lives in data/texts.json."""

from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Literal, TypeAlias, get_args

import msgspec

Language: TypeAlias = Literal["en", "ja"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
LONGEST_LINE = 1_000


class Sentence(msgspec.Struct, frozen=True, rename="camel"):
    """A sentence before it is put into a language: its code in data/texts.json, and what stands in its places.

    `values` are put in as they are, `terms` are codes of their own.
    """

    code: str
    values: dict[str, str] = {}
    terms: dict[str, str] = {}


@lru_cache(maxsize=1)
def load_texts() -> dict[str, dict[str, str]]:
    """Return code → language → wording; the file is read once a process."""
    return msgspec.json.decode(
        (Path(__file__).parent / "data" / "texts.json").read_bytes(), type=dict[str, dict[str, str]]
    )


def read_language(value: object) -> Language | None:
    """Return `value` where it is a language, else None."""
    return next((language for language in LANGUAGES if language == value), None)


def wording(code: str, language: Language) -> str:
    """Return the wording of a code; raises KeyError for one that is not translated."""
    return load_texts()[code][language]


def say(sentence: Sentence, language: Language) -> str:
    """Return the sentence in that language; values are data, so HTML must be escaped afterwards."""
    terms = {name: wording(code, language) for name, code in sentence.terms.items()}
    return Template(wording(sentence.code, language)).substitute(sentence.values | terms)


def printable(text: str) -> str:
    """Return `text` with its line feeds and a space for every other character that is not to be seen.

    Those could move a terminal's cursor, turn the direction of writing or, as lone surrogates, not be stored at all.
    """
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    """Return `text` on one line without control characters, cut after `longest` characters."""
    line = " ".join(printable(text[: longest * 4]).split())
    return line if len(line) <= longest else f"{line[:longest]} ..."


def term(family: str, name: str, language: Language) -> str:
    """Return the wording of a name such as a unit, or the name itself where it has none."""
    return load_texts().get(f"{family}.{name}", {}).get(language, name)
