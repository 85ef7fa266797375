"""Many records side by side: what is kept and checked of them, a list for each property."""

from collections.abc import Sequence
from itertools import repeat
from operator import add
from typing import Final, Self

from customization.formats import Example, RawText, Record

_joined: Final = b"\xff".join
_PAIR: Final = 2  # turns


class Columns:
    """What is kept and checked of many records, a list each; all lists but `categories` are as long as the records.

    `contents` holds what a record says: its system prompt and turns in UTF-8, parted by a byte that UTF-8 never has.
    `prompts` holds the last user turns, and for raw text the whole texts; completions of raw text are empty.
    `whole` is all contents together. `blank` names the records with a text that is empty or only white space. Hashes
    are valid in this process only. `is_plain`: all were read as plain lines, so that their roles are right;
    `is_as_written`: and their lines are what would be written of them.
    """

    def __init__(
        self, prompts: list[str], completions: list[str], contents: list[bytes], characters: list[int]
    ) -> None:
        self.prompts = prompts
        self.completions = completions
        self.contents = contents
        self.characters = characters
        self.completion_characters = list(map(len, completions))
        self.completion_bytes = self.completion_characters
        self.whole = _joined(contents)
        self.prompt_hashes: list[int] = []
        self.turns: list[int] | None = None
        self.blank: list[int] = []
        self.with_system = 0
        self.categories: list[str] | None = None
        self.is_raw = False
        self.is_plain = True
        self.is_as_written = False

    @classmethod
    def of_texts(cls, texts: list[str]) -> Self:
        """Return the columns of records of raw text."""
        columns = cls(texts, [""] * len(texts), list(map(str.encode, texts)), list(map(len, texts)))
        columns.is_raw = True
        columns.prompt_hashes = list(map(hash, texts))
        columns.blank = _blank(texts)
        return columns

    @classmethod
    def of_pairs(cls, prompts: list[str], completions: list[str], systems: list[str] | None = None) -> Self:
        """Return the columns of labelled records of one turn."""
        heads, tails = list(map(str.encode, prompts)), list(map(str.encode, completions))
        characters = list(map(add, map(len, prompts), map(len, completions)))
        if systems is None:
            columns = cls(prompts, completions, list(map(_joined, zip(repeat(b""), heads, tails))), characters)
            columns.prompt_hashes = list(map(hash, prompts))
        else:
            contents = list(map(_joined, zip(map(str.encode, systems), heads, tails, strict=True)))
            columns = cls(prompts, completions, contents, list(map(add, characters, map(len, systems))))
            pairs = zip(systems, prompts, strict=True)
            columns.prompt_hashes = [hash((system, prompt)) if system else hash(prompt) for system, prompt in pairs]
            columns.with_system = len(systems) - systems.count("")
        columns.completion_bytes = list(map(len, tails))
        columns.blank = _blank(prompts, completions, spaces=systems or ())
        return columns

    @classmethod
    def of_turns(cls, turns: list[list[str]], systems: list[str]) -> Self:
        """Return the columns of labelled records of any number of turns, also of none."""
        completions = [texts[-1] if texts else "" for texts in turns]
        parts = list(zip(systems, turns, strict=True))
        columns = cls(
            [texts[-2] if len(texts) > 1 else "" for texts in turns],
            completions,
            [_joined([system.encode(), *map(str.encode, texts)]) for system, texts in parts],
            [len(system) + sum(map(len, texts)) for system, texts in parts],
        )
        columns.completion_bytes = [len(text.encode()) for text in completions]
        columns.prompt_hashes = [
            hash((system, *texts[:-1])) if system or len(texts) != _PAIR else hash(texts[0]) for system, texts in parts
        ]
        columns.turns = list(map(len, turns))
        columns.with_system = len(systems) - systems.count("")
        columns.blank = [
            index
            for index, (system, texts) in enumerate(parts)
            if not all(texts) or any(map(str.isspace, texts)) or system.isspace()
        ]
        return columns

    @classmethod
    def of_records(cls, records: Sequence[Record]) -> Self:
        """Return the columns of records as the careful reader gives them, all labelled or all raw text."""
        if records and isinstance(records[0], RawText):
            columns = cls.of_texts([record.text for record in records if isinstance(record, RawText)])
            columns.is_plain = False
            return columns
        examples = [record for record in records if isinstance(record, Example)]
        columns = cls.of_turns(
            [[turn.text for turn in example.turns] for example in examples], [example.system for example in examples]
        )
        if any(example.category for example in examples):
            columns.categories = [example.category for example in examples]
        columns.is_plain = False
        return columns

    def utf8_bytes(self) -> list[int]:
        """Return the UTF-8 bytes of each record's texts."""
        sizes = map(len, self.contents)
        if self.is_raw:
            return list(sizes)
        if self.turns is None:
            return [size - _PAIR for size in sizes]
        return [size - turns for size, turns in zip(sizes, self.turns, strict=True)]


def _blank(*texts: list[str], spaces: Sequence[str] = ()) -> list[int]:
    """Return the places at which a text is empty or white space, or one of `spaces` is white space."""
    if all(map(all, texts)) and not any(any(map(str.isspace, column)) for column in (*texts, spaces)):
        return []
    found = {index for column in texts for index, text in enumerate(column) if not text or text.isspace()}
    return sorted(found.union(index for index, text in enumerate(spaces) if text.isspace()))
