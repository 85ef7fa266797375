"""A sample of a file's records, the same for the same content whatever its order, and what is measured in it.

A record's digest decides whether it is sampled, by bits that have no part in the splits.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain, pairwise
from typing import NamedTuple
from zlib import crc32

from customization.columns import Columns
from customization.profile import Sample

SAMPLED_RECORDS = 250
SAMPLED_CHARACTERS = 100  # of each prompt and each completion
COMPARED_RECORDS = 1_000
COMPARED_CHARACTERS = 300  # of each prompt
SIMILAR = 0.9  # share of common runs of characters from which records are taken for nearly the same

_LOW_BITS = (1 << 32) - 1
_RUN = 5
_SKETCH = 16
_SHARED = 4

# Ranges of Unicode blocks by script; marks, digits and punctuation belong to none.
_SCRIPTS = (
    ("japanese", (0x3041, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),
    ("han", (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF), (0x3005, 0x3007)),
    ("hangul", (0xAC00, 0xD7AF), (0x1100, 0x11FF), (0x3130, 0x318F)),
    (
        "cyrillic",
        (0x0400, 0x052F),
    ),
    ("latin", (0x0041, 0x024F), (0x1E00, 0x1EFF), (0xFF21, 0xFF5A)),
)


class SampledRecord(NamedTuple):
    """The start of a record's last prompt and of its completion; `place`: its place among the file's records."""

    key: int
    place: int
    prompt: str
    completion: str


class Sampler:
    """Keeps the records whose digests end in the lowest bits; equal records count once."""

    def __init__(self, records: int) -> None:
        self._records = records
        self._bound = _LOW_BITS + 1
        self._kept: dict[int, SampledRecord] = {}

    def add(self, digests: Sequence[int], columns: Columns, before: int) -> None:
        """Take the records with these digests, which `before` others of the file precede."""
        bound = self._bound
        for place in [place for place, digest in enumerate(digests) if digest & _LOW_BITS < bound]:
            prompt, completion = columns.prompts[place], columns.completions[place]
            self._kept.setdefault(
                digests[place],
                SampledRecord(
                    digests[place] & _LOW_BITS,
                    before + place,
                    prompt[:COMPARED_CHARACTERS],
                    completion[:SAMPLED_CHARACTERS],
                ),
            )
        if len(self._kept) > 2 * self._records:
            self._prune()

    def _prune(self) -> None:
        lowest = sorted(self._kept.items(), key=lambda item: (item[1].key, item[0]))[: self._records]
        self._kept = dict(lowest)
        self._bound = lowest[-1][1].key + 1

    def sampled(self) -> list[SampledRecord]:
        """Return the sample in an order that follows from the records' content."""
        if self._kept:
            self._prune()
        return list(self._kept.values())


def bigrams_of(record: SampledRecord) -> list[tuple[str, str] | int]:
    """Return the pairs of neighbouring words, or of characters where the text is of a script without spaces."""
    pairs: list[tuple[str, str] | int] = []
    for text in (record.prompt[:SAMPLED_CHARACTERS], record.completion[:SAMPLED_CHARACTERS]):
        # Of scripts without spaces nearly all characters have three bytes
        if len(text.encode()) > 2 * len(text):
            units = text.encode("utf-16-le")
            even = len(units) // 4 * 4
            odd = (len(units) - 2) // 4 * 4 + 2
            pairs += array("I", units[:even])
            pairs += array("I", units[2:odd])
        else:
            words = text.lower().split()
            pairs += pairwise(words)
    return pairs


def measure(
    sample: Sequence[SampledRecord], bigrams: Sequence[Sequence[tuple[str, str] | int]], *, compare_similar: bool
) -> Sample | None:
    """Return what the first 250 of the sampled records show, None of an empty sample; all are compared if asked for.

    `bigrams` are those of the first 250.
    """
    if not sample:
        return None
    distinct = set[tuple[str, str] | int]()
    for pairs in bigrams:
        distinct.update(pairs)
    texts = [text for record in sample[:SAMPLED_RECORDS] for text in (record.prompt, record.completion)]
    letters = Counter("".join([text[:SAMPLED_CHARACTERS] for text in texts]))
    return Sample(
        records=len(bigrams),
        characters=letters.total(),
        scripts=_shares(letters),
        bigrams=sum(map(len, bigrams)),
        distinct_bigrams=len(distinct),
        compared=len(sample) if compare_similar else 0,
        similar=count_similar(sample) if compare_similar else 0,
    )


def seen_share(
    tested: Iterable[Sequence[tuple[str, str] | int]], trained: Iterable[Sequence[tuple[str, str] | int]]
) -> float | None:
    """Return which share of the tested records' bigrams the trained ones have too, None where either has none."""
    known = set(chain.from_iterable(trained))
    asked = list(chain.from_iterable(tested))
    return sum(map(known.__contains__, asked)) / len(asked) if asked and known else None


def count_similar(sample: Sequence[SampledRecord]) -> int:
    """Return how many of the sampled prompts nearly repeat an earlier one.

    Two that share four of the 16 lowest hashes of their runs of five characters are compared: similar are those of
    which at least 90 % of the runs are common.
    """
    by_run: dict[int, list[int]] = {}
    runs: list[set[int]] = []
    similar = 0
    for place, record in enumerate(sample):
        own = _runs(record.prompt)
        lowest = sorted(own)[:_SKETCH]
        shared = Counter(other for run in lowest for other in by_run.get(run, ()))
        others = [other for other, count in shared.items() if count >= min(_SHARED, len(lowest))]
        similar += any(len(own & runs[other]) >= SIMILAR * len(own | runs[other]) for other in others)
        runs.append(own)
        for run in lowest:
            if len(by_run.setdefault(run, [])) < _SKETCH:
                by_run[run].append(place)
    return similar


def _runs(text: str) -> set[int]:
    plain = " ".join(text.lower().split())
    return {crc32(plain[start : start + _RUN].encode()) for start in range(max(1, len(plain) - _RUN + 1))}


def _shares(letters: Counter[str]) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for letter, count in letters.items():
        if letter.isalpha():
            counts[_script_of(letter)] += count
    total = counts.total()
    return {script: count / total for script, count in counts.most_common()}


@lru_cache(maxsize=50_000)
def _script_of(letter: str) -> str:
    code = ord(letter)
    for script, *ranges in _SCRIPTS:
        if any(first <= code <= last for first, last in ranges):
            return script
    return "other"
