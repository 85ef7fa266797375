"""Which records train, validate and test."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st

from customization.splits import (
    CUT,
    LEAKED,
    MAX_SPLIT_RECORDS,
    MIN_TEST_RECORDS,
    REPEATED,
    TEST,
    TRAIN,
    UNASKED,
    VALIDATION,
    SplitRules,
    Subset,
    choose_test_records,
    place_of,
    split_training_file,
)

BOTH = SplitRules(test=True, validation=True)

digests = st.integers(0, 2**64 - 1)
few = st.lists(digests, max_size=60)
# Small numbers, so that records repeat
repeating = st.lists(st.integers(0, 400), min_size=1, max_size=600)
quick = settings(deadline=None, max_examples=60)


def fates_of(records: Sequence[int], rules: SplitRules = BOTH) -> dict[int, int]:
    """Return the fate of each distinct record; fails when equal records have different ones."""
    found: dict[int, int] = {}
    for digest, fate in zip(records, split_training_file(records, (), rules), strict=True):
        assert found.setdefault(digest, fate) == fate
    return found


@quick
@given(repeating, st.integers(0, 5))
def test_equal_records_fall_into_one_split_wherever_they_stand(records: list[int], seed: int) -> None:
    rules = SplitRules(seed=seed, test=True, validation=True)
    assert fates_of(records, rules) == fates_of(records[::-1], rules)


@quick
@given(st.sets(digests, min_size=20, max_size=400), st.sets(digests, max_size=400))
def test_appending_records_moves_none_but_into_training(before: set[int], appended: set[int]) -> None:
    earlier = fates_of(sorted(before))
    later = fates_of([*sorted(before), *sorted(appended - before)])
    assert all(later[digest] in (earlier[digest], TRAIN) for digest in before)


def test_with_more_than_30_test_records_appending_moves_no_record_at_all() -> None:
    records = list(range(2_000))
    earlier, later = fates_of(records[:1_000]), fates_of(records)
    assert {digest: later[digest] for digest in earlier} == earlier


def test_a_large_file_gives_a_tenth_to_each_split() -> None:
    fates = split_training_file(range(5_000), (), BOTH)
    assert 420 < fates.count(TEST) < 580
    assert 420 < fates.count(VALIDATION) < 580
    assert fates.count(TRAIN) == 5_000 - fates.count(TEST) - fates.count(VALIDATION)


def test_a_small_file_gives_up_to_a_fifth_for_30_test_records() -> None:
    fates = split_training_file(range(200), (), BOTH)
    assert fates.count(TEST) == MIN_TEST_RECORDS


def test_no_split_grows_beyond_1000_records_and_what_leaves_it_trains() -> None:
    fates = split_training_file(range(15_000), (), BOTH)
    assert fates.count(TEST) == fates.count(VALIDATION) == MAX_SPLIT_RECORDS
    assert fates.count(TRAIN) == 13_000


def test_a_validation_split_keeps_the_bounds_of_the_model() -> None:
    least = split_training_file(range(250), (), SplitRules(validation=True, min_validation=32))
    most = split_training_file(range(250), (), SplitRules(validation=True, max_validation=5))
    assert (least.count(VALIDATION), most.count(VALIDATION)) == (32, 5)


@quick
@given(repeating, st.integers(1, 100), st.integers(0, 200), st.integers(1, 40))
def test_splits_leave_what_the_model_needs_or_are_not_made(
    records: list[int], min_training: int, min_total: int, min_validation: int
) -> None:
    rules = SplitRules(
        test=True, validation=True, min_training=min_training, min_total=min_total, min_validation=min_validation
    )
    fates = split_training_file(records, (), rules)
    training, validation = fates.count(TRAIN), fates.count(VALIDATION)
    if TEST in fates or VALIDATION in fates:
        assert training >= min_training
        assert training + validation >= min_total
    assert validation == 0 or validation >= min_validation
    if len(records) < min_training:
        assert training == len(records)


def test_nothing_is_held_out_unless_asked_for() -> None:
    assert set(split_training_file(range(300), (), SplitRules())) == {TRAIN}
    assert set(split_training_file(range(300), (), SplitRules(test=True))) == {TRAIN, TEST}


@quick
@given(repeating, st.sets(st.integers(0, 400), max_size=50))
def test_records_of_a_held_out_file_are_leaked_and_no_others(records: list[int], held_out: set[int]) -> None:
    fates = split_training_file(records, held_out, BOTH)
    assert [digest in held_out for digest in records] == [fate == LEAKED for fate in fates]


@quick
@given(repeating, st.integers(1, 300), st.integers(1, 300))
def test_a_smaller_subset_is_contained_in_a_larger_one(records: list[int], one: int, other: int) -> None:
    def training(count: int) -> set[int]:
        rules = SplitRules(test=True, validation=True, subset=Subset(records=count))
        fates = split_training_file(records, (), rules)
        return {index for index, fate in enumerate(fates) if fate == TRAIN}

    small, large = training(min(one, other)), training(max(one, other))
    assert small <= large
    assert len(large) <= max(one, other)


def test_a_subset_cuts_training_records_only_and_not_below_the_minimum() -> None:
    whole = split_training_file(range(1_000), (), BOTH)
    half = split_training_file(range(1_000), (), SplitRules(test=True, validation=True, subset=Subset(share=0.5)))
    assert half.count(TRAIN) == -(-whole.count(TRAIN) // 2)
    assert all(before == after or (before, after) == (TRAIN, CUT) for before, after in zip(whole, half, strict=True))
    tiny = SplitRules(test=True, validation=True, min_training=8, subset=Subset(records=1))
    assert split_training_file(range(1_000), (), tiny).count(TRAIN) == 8
    total = SplitRules(validation=True, min_total=100, subset=Subset(records=1))
    fates = split_training_file(range(1_000), (), total)
    assert fates.count(TRAIN) + fates.count(VALIDATION) >= 100


@quick
@given(repeating, st.integers(1, 40))
def test_each_test_record_is_asked_once_and_no_more_than_the_maximum(records: list[int], most: int) -> None:
    chosen = choose_test_records(records, 0, most)
    asked = [digest for digest, fate in zip(records, chosen, strict=True) if fate == TEST]
    assert len(asked) == len(set(asked)) == min(most, len(set(records)))
    assert chosen.count(REPEATED) + chosen.count(UNASKED) == len(records) - len(asked)
    more = choose_test_records(records, 0, most + 5)
    assert all(later == TEST for fate, later in zip(chosen, more, strict=True) if fate == TEST)


def test_the_choice_of_test_records_leaves_the_other_splits_alone() -> None:
    fates = split_training_file(range(3_000), (), BOTH)
    chosen = choose_test_records(range(3_000), 0, 50, fates)
    assert chosen.count(TEST) == 50
    assert all(after in (before, UNASKED) for before, after in zip(fates, chosen, strict=True))
    assert (chosen.count(TRAIN), chosen.count(VALIDATION)) == (fates.count(TRAIN), fates.count(VALIDATION))


def test_another_seed_holds_out_other_records() -> None:
    def held_out(seed: int) -> set[int]:
        fates = split_training_file(range(5_000), (), SplitRules(seed=seed, test=True))
        return {index for index, fate in enumerate(fates) if fate == TEST}

    assert len(held_out(0) & held_out(1)) < 0.2 * len(held_out(0))


@given(few, st.integers(0, 9))
def test_places_of_different_records_differ(records: list[int], seed: int) -> None:
    assert len({place_of(digest, seed) for digest in records}) == len(set(records))


codes_of_400 = st.binary(min_size=400, max_size=400).map(lambda drawn: [byte % 5 for byte in drawn])


def held(fates: bytearray, fate: int) -> set[int]:
    return {index for index, each in enumerate(fates) if each == fate}


@quick
@given(repeating, codes_of_400, st.integers(1, 100))
def test_with_categories_too_appended_records_move_others_only_into_training(
    records: list[int], categories: list[int], kept: int
) -> None:
    kept = min(kept, len(records))
    before = split_training_file(records[:kept], (), BOTH, categories[:kept])
    after = split_training_file(records, (), BOTH, categories[: len(records)])
    for one, other in zip(before, after, strict=False):
        assert other in (one, TRAIN) or VALIDATION not in before or TEST not in before


def test_each_category_is_in_the_splits_by_its_share_and_a_rare_one_is_there_too() -> None:
    categories = [1 if number % 10 else 2 for number in range(4_000)]
    categories[::100] = [3] * 40
    fates = split_training_file(range(4_000), (), BOTH, categories)
    for fate in (TEST, VALIDATION):
        counts = Counter(categories[index] for index in held(fates, fate))
        assert 0.85 < counts[1] / counts.total() < 0.95
        assert 0.05 < counts[2] / counts.total() < 0.13
        assert counts[3] >= 3


@quick
@given(st.integers(0, 1_000), st.integers(20, 60))
def test_a_category_of_few_records_is_tested_when_they_lie_near(start: int, count: int) -> None:
    digests = [place_of(number, 1) for number in range(start, start + 2_000)]
    categories = [1] * (2_000 - count) + [2] * count
    tested = held(split_training_file(digests, (), SplitRules(test=True), categories), TEST)
    near = sum(place_of(digest, 0) < 2**64 // 5 for digest in digests[-count:])
    assert sum(categories[index] == 2 for index in tested) >= min(3, near)


@quick
@given(repeating, codes_of_400)
def test_equal_records_stay_together_whatever_their_categories(records: list[int], categories: list[int]) -> None:
    fates = split_training_file(records, (), BOTH, categories[: len(records)])
    assert all(len({fates[index] for index, other in enumerate(records) if other == one}) == 1 for one in records[:5])


@quick
@given(repeating, codes_of_400, st.integers(1, 20))
@example([0, 1, 1], [0] * 400, 1)
def test_a_validation_split_keeps_to_its_most_records_with_categories_too(
    records: list[int], categories: list[int], most: int
) -> None:
    rules = SplitRules(validation=True, max_validation=most)
    assert split_training_file(records, (), rules, categories[: len(records)]).count(VALIDATION) <= most


def test_of_test_records_each_category_keeps_its_share() -> None:
    categories = [1 + (number % 4 == 0) for number in range(1_000)]
    chosen = held(choose_test_records(range(1_000), 0, 100, categories=categories), TEST)
    assert sum(categories[index] == 2 for index in chosen) == 25
    more = held(choose_test_records(range(1_000), 0, 130, categories=categories), TEST)
    assert chosen < more
