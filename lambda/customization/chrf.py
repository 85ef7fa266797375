"""chrF of one answer against one reference: the same number as sacrebleu's, to the last bit, which a test holds.

The library itself takes a tenth of a second to import and counts the n-grams several times more slowly.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A character is ten bits of a key and the longest n-gram six characters: 60 bits, which tell all n-grams apart.
_CHARACTER_BITS = 10
_MOST_CHARACTERS = 2**_CHARACTER_BITS - 1
_LONGEST = 6
_BETA = 2
# What sacrebleu calls these settings, and the version whose score this is.
SIGNATURE = f"nrefs:1|case:lc|eff:yes|nc:{_LONGEST}|nw:0|space:no|version:2.6.0"


def sentence_chrf(answer: str, reference: str) -> float:
    """Return chrF of one answer between 0 and 1 (Popović 2015: up to 6 characters, beta 2); equal texts have 1."""
    if answer == reference:
        return 1.0
    answered, expected = ("".join(text.lower().split()) for text in (answer, reference))
    precision = recall = 0.0
    orders = 0
    for order, matches in enumerate(_matches(answered, expected), start=1):
        offered, wanted = len(answered) - order + 1, len(expected) - order + 1
        if offered > 0 and wanted > 0:
            precision += matches / offered
            recall += matches / wanted
            orders += 1
    if not precision + recall:
        return 0.0
    precision, recall = precision / orders, recall / orders
    score = (1 + _BETA**2) * precision * recall
    score /= (_BETA**2 * precision) + recall
    return 100 * score / 100  # sacrebleu's scores go to 100, which costs a bit


def _matches(answered: str, expected: str) -> Sequence[int]:
    """Return how many n-grams of one character, of two, ... both have."""
    distinct = sorted(set(answered + expected))
    if len(distinct) > _MOST_CHARACTERS:
        return [(_counted(answered, order) & _counted(expected, order)).total() for order in range(1, _LONGEST + 1)]
    alphabet = _characters("".join(distinct))
    ours, theirs = (_ngrams(np.searchsorted(alphabet, _characters(text)) + 1) for text in (answered, expected))
    # An n-gram matches as often as both have it: the first of ours match, as many as theirs are.
    earlier = np.arange(len(ours)) - np.searchsorted(ours, ours)
    offered = np.searchsorted(theirs, ours, "right") - np.searchsorted(theirs, ours)
    return _lengths(ours[earlier < offered])


def _counted(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))


def _characters(text: str) -> "NDArray[np.uint32]":
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _ngrams(numbers: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Return every n-gram of the numbers, up to the longest, as one number each, sorted."""
    grams = [numbers]
    for order in range(1, _LONGEST):
        grams.append((grams[-1][:-1] << _CHARACTER_BITS) | numbers[order:])
    return np.sort(np.concatenate(grams))


def _lengths(keys: "NDArray[np.int64]") -> list[int]:
    """Return how many keys have 1, 2, ... characters: no number is 0, so a longer n-gram is a larger key."""
    bounds = np.searchsorted(keys, [1 << (_CHARACTER_BITS * order) for order in range(_LONGEST)])
    return [int(count) for count in np.diff([*bounds, len(keys)])]
