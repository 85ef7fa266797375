"""Which records train, validate and test: decided by content and seed alone, never by place or time.

Every record has a place on a ring of 2^64, given by its content and the seed. The test records are those from 0 up to a
tenth of the ring, the validation records those from the middle on. So equal records fall into one split, and appending
records moves no other record, but for the bounds: below 30 test records (or the model's minimum of validation records)
the next ones up to a fifth of the ring join, above 1,000 the last ones leave. Both only ever move a record into the
training data when others are appended, so what an earlier model learnt from never becomes a test record of a later one
(a file that barely has the records that its base model needs is split less, and so excepted).
"""

import math
import sys
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import compress
from typing import NamedTuple

import msgspec

MIN_TEST_RECORDS = 30  # below, the comparison is inconclusive
MAX_SPLIT_RECORDS = 1_000
LEAST_OF_CATEGORY = 3

_RING = 1 << 64
_USUAL = _RING // 10
_WIDEST = _RING // 5
_VALIDATION_START = _RING // 2
# Odd factors, so that multiplying is a bijection; the first is the golden ratio's of Fibonacci hashing
_SCATTER = 0x9E3779B97F4A7C15
_SEED_STEP = 0xD1B54A32D192ED03
_TOGETHER = 10_000

# The least test records (None: no test split) and whether to make a validation split: what is tried, best first, until
# enough is left to train on.
_ATTEMPTS = ((MIN_TEST_RECORDS, True), (0, True), (MIN_TEST_RECORDS, False), (0, False), (None, True), (None, False))

# What becomes of a record
TRAIN, VALIDATION, TEST, LEAKED, CUT, REPEATED, UNASKED = range(7)


class Subset(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many of the training records to use: a number of records, or a share above 0 and up to 1."""

    records: int | None = None
    share: float | None = None


class SplitRules(msgspec.Struct, frozen=True, kw_only=True):
    """What to make of a training file. Minima hold for what remains to train on; 0 validation records: make none."""

    seed: int = 0
    test: bool = False
    validation: bool = False
    min_training: int = 1
    min_validation: int = 1
    max_validation: int = MAX_SPLIT_RECORDS
    min_total: int = 0
    subset: Subset | None = None


def place_of(digest: int, seed: int) -> int:
    """Return the place of a record on the ring: a bijection that scatters digests evenly, near ones too."""
    return (digest * (_SCATTER + 2 * seed * _SEED_STEP)) & (_RING - 1)


def split_training_file(
    digests: Sequence[int], held_out: Container[int], rules: SplitRules, categories: Sequence[int] = ()
) -> bytearray:
    """Return what becomes of each record of a training file: TRAIN, VALIDATION, TEST, LEAKED or CUT.

    Records that `held_out` contains (those of a given validation or test file) are LEAKED, those beyond the subset CUT.
    Splits that would leave fewer training records than the model needs are made smaller or not at all. `categories`
    are codes, one a record where there are any: each category is in the splits in proportion, but for chance, and has
    at least three of its records in each where so many lie near.
    """
    places = _places(digests, rules.seed)
    fates = bytearray(LEAKED if leaked else TRAIN for leaked in map(held_out.__contains__, digests))
    for test_records, validation in _ATTEMPTS:
        if (test_records is not None and not rules.test) or (validation and not rules.validation):
            continue
        attempt = _with_splits(places, fates, rules, _Wanted(test_records, validation), categories)
        if _is_enough(attempt, rules):
            fates = attempt
            break
    _cut_to_subset(fates, places, rules)
    return fates


def choose_test_records(
    digests: Sequence[int],
    seed: int,
    most: int,
    fates: bytearray | None = None,
    categories: Sequence[int] = (),
) -> bytearray:
    """Return what becomes of each test record: of equal ones the first is asked, of the rest the `most` first places.

    `fates` limits the choice to its TEST records, for a test split that was cut out of a training file. Where there are
    categories, each keeps its share.
    """
    chosen = bytearray(fates) if fates is not None else bytearray([TEST]) * len(digests)
    first: dict[int, int] = {}
    for index in _indexes(chosen, TEST):
        if first.setdefault(place_of(digests[index], seed), index) != index:
            chosen[index] = REPEATED
    for index in _in_proportion(first, categories)[most:]:
        chosen[index] = UNASKED
    return chosen


def _in_proportion(first: Mapping[int, int], categories: Sequence[int]) -> list[int]:
    """Return the records by place, the categories mixed so that each has its share of the first n, whatever n."""
    ordered = [first[place] for place in sorted(first)]
    if not categories:
        return ordered
    members: dict[int, list[int]] = {}
    for index in ordered:
        members.setdefault(categories[index], []).append(index)
    share = {index: (rank + 0.5) / len(own) for own in members.values() for rank, index in enumerate(own)}
    return sorted(ordered, key=share.__getitem__)


class _Wanted(NamedTuple):
    """The least test records (None: no test split), and whether to make a validation split."""

    test_records: int | None
    validation: bool


class _Split(NamedTuple):
    """A split to make: where on the ring it begins, and the least and most records that it is to have."""

    fate: int
    start: int
    least: int
    most: int


def _places(digests: Sequence[int], seed: int) -> "array[int]":
    """Return the places of all digests, some thousand at a time, since Python's integers take four times the memory."""
    factor, mask, places = _SCATTER + 2 * seed * _SEED_STEP, _RING - 1, array("Q")
    for start in range(0, len(digests), _TOGETHER):
        places.extend(array("Q", [(digest * factor) & mask for digest in digests[start : start + _TOGETHER]]))
    return places


def _indexes(fates: bytearray, fate: int) -> Iterable[int]:
    return compress(range(len(fates)), map(fate.__eq__, fates))


def _with_splits(
    places: "array[int]", fates: bytearray, rules: SplitRules, wanted: _Wanted, categories: Sequence[int]
) -> bytearray:
    attempt = bytearray(fates)
    if wanted.test_records is not None:
        _hold_out(attempt, places, _Split(TEST, 0, wanted.test_records, MAX_SPLIT_RECORDS), categories)
    if wanted.validation:
        most = min(rules.max_validation, MAX_SPLIT_RECORDS)
        _hold_out(attempt, places, _Split(VALIDATION, _VALIDATION_START, rules.min_validation, most), categories)
    return attempt


def _hold_out(fates: bytearray, places: "array[int]", split: _Split, categories: Sequence[int]) -> None:
    """Give the split its records, out of those that are for training; equal ones go along with each other.

    Equal test records are asked once, so only distinct ones count towards the bounds.
    """
    start, end = split.start, split.start + _WIDEST  # no split reaches over the end of the ring
    near = [index for index in _between(places, start, end) if start <= places[index] < end and fates[index] == TRAIN]
    distances = Counter(places[index] - start for index in near)
    if split.fate == TEST:
        distances = Counter(distances.keys())
    ordered = sorted(distances.elements())
    cut = _cut(ordered, split.least, split.most)
    chosen = {distance for distance in distances if distance < cut}
    if categories:
        room = split.most - bisect_left(ordered, cut)
        members = [(places[index] - start, categories[index]) for index in near]
        chosen |= _few_of_each(members, distances, chosen, room)
    for index in near:
        if places[index] - start in chosen:
            fates[index] = split.fate


def _between(places: "array[int]", start: int, end: int) -> Iterable[int]:
    """Return, fast, a few more than the records between two places: those whose highest byte lies so."""
    highest = places.tobytes()[7 if sys.byteorder == "little" else 0 :: 8]
    wanted = bytes(start >> 56 <= byte <= end >> 56 for byte in range(256))
    return compress(range(len(places)), highest.translate(wanted))


def _few_of_each(
    members: Iterable[tuple[int, int]], distances: Mapping[int, int], chosen: AbstractSet[int], room: int
) -> set[int]:
    """Return the distances at which categories with fewer than three records in `chosen` have their next ones.

    `members` are the distances and categories of all records within the fifth of the ring that a split may reach to:
    so appended records only ever move others back into the training data. `room`: for how many more records.
    """
    counts: Counter[int] = Counter()
    added: set[int] = set()
    for distance, category in sorted(set(members)):
        if distance not in chosen and distance not in added:
            if counts[category] >= LEAST_OF_CATEGORY or distances[distance] > room:
                continue
            room -= distances[distance]
            added.add(distance)
        counts[category] += 1
    return added


def _cut(near: Sequence[int], least: int, most: int) -> int:
    """Return the distance below which records belong to a split: a tenth of the ring, unless a bound moves it.

    Equal records go along with each other, so that `most` may leave fewer than `least`.
    """
    cut = _USUAL
    if bisect_left(near, cut) < least:
        cut = near[least - 1] + 1 if least <= len(near) else _WIDEST
    return near[most] if bisect_left(near, cut) > most else cut


def _is_enough(fates: bytearray, rules: SplitRules) -> bool:
    training, validation = fates.count(TRAIN), fates.count(VALIDATION)
    return (
        training >= rules.min_training
        and training + validation >= rules.min_total
        and (not validation or validation >= rules.min_validation)
    )


def _cut_to_subset(fates: bytearray, places: Sequence[int], rules: SplitRules) -> None:
    """Leave the records whose places come first, so that a smaller subset is contained in a larger one."""
    if rules.subset is None:
        return
    training = sorted(_indexes(fates, TRAIN), key=places.__getitem__)
    wanted = rules.subset.records
    if wanted is None:
        wanted = math.ceil((1.0 if rules.subset.share is None else rules.subset.share) * len(training))
    for index in training[max(wanted, rules.min_training, rules.min_total - fates.count(VALIDATION)) :]:
        fates[index] = CUT
