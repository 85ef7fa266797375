"""Which records train, validate and test: decided by content and seed alone, never by place or time.

Every record has a place on a ring of 2^64, given by its content and the seed. The test records are those from 0 up to a
tenth of the ring, the validation records those from the middle on. So equal records fall into one split, and appending
records moves no other record, but for the bounds: below 30 test records (or the model's minimum of validation records)
the next ones up to a fifth of the ring join, above 1,000 the last ones leave. Both only ever move a record into the
training data when others are appended, so what an earlier model learnt from never becomes a test record of a later one
(a file that barely has the records that its base model needs is split less, and so excepted).
"""

import heapq
import math
from array import array
from bisect import bisect_left
from collections.abc import Container, Sequence

import msgspec

MIN_TEST_RECORDS = 30  # below, the comparison is inconclusive
MAX_SPLIT_RECORDS = 1_000

_RING = 1 << 64
_USUAL = _RING // 10
_WIDEST = _RING // 5
_VALIDATION_START = _RING // 2

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
    """Return the place of a record on the ring: the finalizer of SplitMix64, a bijection that scatters evenly."""
    value = (digest + (seed + 1) * 0x9E3779B97F4A7C15) & (_RING - 1)
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & (_RING - 1)
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & (_RING - 1)
    return value ^ (value >> 31)


def split_training_file(digests: Sequence[int], held_out: Container[int], rules: SplitRules) -> bytearray:
    """Return what becomes of each record of a training file: TRAIN, VALIDATION, TEST, LEAKED or CUT.

    Records that `held_out` contains (those of a given validation or test file) are LEAKED, those beyond the subset CUT.
    Splits that would leave fewer training records than the model needs are made smaller or not at all.
    """
    places = array("Q", (place_of(digest, rules.seed) for digest in digests))
    fates = bytearray(LEAKED if digest in held_out else TRAIN for digest in digests)
    for test_records, validation in _ATTEMPTS:
        if (test_records is not None and not rules.test) or (validation and not rules.validation):
            continue
        attempt = _with_splits(places, fates, rules, test_records, validation=validation)
        if _is_enough(attempt, rules):
            fates = attempt
            break
    _cut_to_subset(fates, places, rules)
    return fates


def choose_test_records(digests: Sequence[int], seed: int, most: int, fates: bytearray | None = None) -> bytearray:
    """Return what becomes of each test record: of equal ones the first is asked, of the rest the `most` first places.

    `fates` limits the choice to its TEST records, for a test split that was cut out of a training file.
    """
    chosen = bytearray(fates) if fates is not None else bytearray([TEST]) * len(digests)
    first: dict[int, int] = {}
    for index, digest in enumerate(digests):
        if chosen[index] == TEST and first.setdefault(place_of(digest, seed), index) != index:
            chosen[index] = REPEATED
    if len(first) > most:
        for place in heapq.nlargest(len(first) - most, first):
            chosen[first[place]] = UNASKED
    return chosen


def _with_splits(
    places: Sequence[int], fates: bytearray, rules: SplitRules, test_records: int | None, *, validation: bool
) -> bytearray:
    attempt = bytearray(fates)
    if test_records is not None:
        # Equal test records are asked once, so only distinct ones count towards the bounds.
        near = sorted({place for place, fate in zip(places, fates, strict=True) if place < _WIDEST and fate == TRAIN})
        _assign(attempt, places, 0, _cut(near, test_records, MAX_SPLIT_RECORDS), TEST)
    if validation:
        distances = ((place - _VALIDATION_START) % _RING for place in places)
        near = sorted(d for d, fate in zip(distances, fates, strict=True) if d < _WIDEST and fate == TRAIN)
        cut = _cut(near, rules.min_validation, min(rules.max_validation, MAX_SPLIT_RECORDS))
        _assign(attempt, places, _VALIDATION_START, cut, VALIDATION)
    return attempt


def _cut(near: Sequence[int], least: int, most: int) -> int:
    """Return the distance below which records belong to a split: a tenth of the ring, unless a bound moves it."""
    usual = bisect_left(near, _USUAL)
    if usual > most:
        return near[most]
    if usual < least:
        return near[least - 1] + 1 if least <= len(near) else _WIDEST
    return _USUAL


def _assign(fates: bytearray, places: Sequence[int], start: int, cut: int, fate: int) -> None:
    for index, place in enumerate(places):
        if (place - start) % _RING < cut and fates[index] == TRAIN:
            fates[index] = fate


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
    training = sorted((index for index, fate in enumerate(fates) if fate == TRAIN), key=places.__getitem__)
    wanted = rules.subset.records
    if wanted is None:
        wanted = math.ceil((1.0 if rules.subset.share is None else rules.subset.share) * len(training))
    for index in training[max(wanted, rules.min_training, rules.min_total - fates.count(VALIDATION)) :]:
        fates[index] = CUT
