"""chrF as sacrebleu computes it, with its n-grams counted several times as fast."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.chrf import CHRF

# A character is ten bits of a key and the longest n-gram six characters: 60 bits, which tell all n-grams apart.
_CHARACTER_BITS = 10
_MOST_CHARACTERS = 2**_CHARACTER_BITS - 1


class _QuickCHRF(CHRF):
    """sacrebleu's chrF of one sentence: formula, smoothing and signature are the library's, the counts the same."""

    def _extract_reference_info(self, refs: Sequence[str]) -> dict[str, list[str]]:  # type: ignore[override]  # only the next method reads it
        return {"ref_ngrams": list(refs)}

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict[str, list[str]]) -> list[int]:
        (reference,) = ref_kwargs["ref_ngrams"]
        answered, expected = "".join(hypothesis.split()), "".join(reference.split())
        if len(set(answered + expected)) > _MOST_CHARACTERS:
            return super()._compute_segment_statistics(hypothesis, super()._extract_reference_info([reference]))
        _, numbers = np.unique(_characters(answered + expected), return_inverse=True)
        ours = _ngrams(numbers[: len(answered)] + 1, self.char_order)
        theirs = _ngrams(numbers[len(answered) :] + 1, self.char_order)
        # An n-gram matches as often as both have it: the first of ours match, as many as theirs are.
        earlier = np.arange(len(ours)) - np.searchsorted(ours, ours)
        offered = np.searchsorted(theirs, ours, "right") - np.searchsorted(theirs, ours)
        lengths = _lengths(ours[earlier < offered], self.char_order)
        statistics: list[int] = []
        for order in range(1, self.char_order + 1):
            wanted = max(len(expected) - order + 1, 0)
            statistics += [max(len(answered) - order + 1, 0) if wanted else 0, wanted, lengths[order - 1]]
        return statistics


@lru_cache(maxsize=1)
def _scorer() -> CHRF:
    return _QuickCHRF(lowercase=True)


def sentence_chrf(answer: str, reference: str) -> float:
    """Return chrF of one answer between 0 and 1 (Popović 2015: up to 6 characters, beta 2); equal texts have 1."""
    if answer == reference:
        return 1.0
    return float(_scorer().sentence_score(answer, [reference]).score) / 100


def signature() -> str:
    """Return sacrebleu's signature of the score, which names its settings and the version of the library."""
    # sacrebleu knows the number of references once it has scored something.
    scorer = _scorer()
    scorer.sentence_score("a", ["a"])
    return str(scorer.get_signature())


def _characters(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _ngrams(numbers: NDArray[np.int64], longest: int) -> NDArray[np.int64]:
    """Return every n-gram of the numbers, from one of them to `longest`, as one number each, sorted."""
    grams = [numbers]
    for order in range(1, longest):
        grams.append((grams[-1][:-1] << _CHARACTER_BITS) | numbers[order:])
    return np.sort(np.concatenate(grams))


def _lengths(keys: NDArray[np.int64], longest: int) -> list[int]:
    """Return how many keys have 1, 2, ... characters: no number is 0, so a longer n-gram is a larger key."""
    bounds = np.searchsorted(keys, [1 << (_CHARACTER_BITS * order) for order in range(longest)])
    return [int(count) for count in np.diff([*bounds, len(keys)])]
