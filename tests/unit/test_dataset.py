"""prepare_dataset: what is written for each base model, and the profile."""

import tracemalloc
from collections.abc import Iterator
from typing import NoReturn

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customization.catalogue import load_catalogue
from customization.dataset import PreparationRequest, Stage, prepare_dataset
from customization.formats import TestRecord
from customization.json_types import JsonObject
from customization.splits import Subset
from tests.unit.data_files import (
    CLAUDE_3_HAIKU,
    CONTINUED_PRE_TRAINING,
    FINE_TUNING,
    NOVA_MICRO,
    TITAN_EXPRESS,
    Content,
    conversation,
    model_of,
    pair,
    pairs,
    prepare,
    texts_of,
    with_limits,
)

quick = settings(deadline=None, max_examples=40)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (TITAN_EXPRESS, {"prompt": "Be brief.\n\nHi", "completion": "Hello"}),
        (
            NOVA_MICRO,
            {
                "schemaVersion": "bedrock-conversation-2024",
                "system": [{"text": "Be brief."}],
                "messages": [
                    {"role": "user", "content": [{"text": "Hi"}]},
                    {"role": "assistant", "content": [{"text": "Hello"}]},
                ],
            },
        ),
        (
            CLAUDE_3_HAIKU,
            {
                "system": "Be brief.",
                "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
            },
        ),
    ],
)
def test_examples_are_written_in_the_format_of_the_base_model(model: str, line: JsonObject) -> None:
    files: dict[str, Content] = {"train": pairs(60), "validation": [conversation("Hi", "Hello", system="Be brief.")]}
    assert prepare(files, with_limits(model, min_validation_records=1)).records("validation") == [line]


def test_every_text_model_takes_pairs_for_fine_tuning() -> None:
    for model in load_catalogue().text_models():
        prepared = prepare({"train": pairs(300)}, model)
        counts = {name: file.records for name, file in prepared.profile.prepared.items()}
        assert sum(counts.values()) == 300
        assert counts.keys() == {"train", "validation", "test"}


def test_records_keep_the_order_of_the_file_and_no_record_is_in_two_splits() -> None:
    train = pairs(400)
    prepared = prepare({"train": train}, TITAN_EXPRESS)
    order = {str(record["prompt"]): number for number, record in enumerate(train)}
    asked = [msgspec.convert(record, TestRecord) for record in prepared.records("test")]
    written = {
        "train": [order[str(record["prompt"])] for record in prepared.records("train")],
        "validation": [order[str(record["prompt"])] for record in prepared.records("validation")],
        "test": [order[record.turns[0].text] for record in asked],
    }
    assert all(numbers == sorted(numbers) for numbers in written.values())
    assert sorted(number for numbers in written.values() for number in numbers) == list(range(400))


def test_the_outcome_depends_on_content_and_seed_alone() -> None:
    first, again = prepare({"train": pairs(300)}), prepare({"train": pairs(300)})
    other_seed = prepare({"train": pairs(300)}, split_seed=1)
    assert first.content("train") == again.content("train")
    assert first.profile == again.profile
    assert first.profile.test_digest != other_seed.profile.test_digest


def test_a_test_record_has_the_question_the_reference_and_an_id_that_no_seed_or_model_changes() -> None:
    test: list[JsonObject] = [{"prompt": "感情を分類: 最高", "completion": "ポジティブ", "category": "感情"}]
    nova = prepare({"train": pairs(50), "test": test})
    titan = prepare({"train": pairs(50), "test": test}, TITAN_EXPRESS, split_seed=7)
    record = msgspec.convert(nova.records("test")[0], TestRecord)
    assert (record.turns[0].text, record.reference, record.category) == ("感情を分類: 最高", "ポジティブ", "感情")
    assert nova.content("test") == titan.content("test")
    assert len(record.record_id) == 16


def test_the_last_answer_of_a_conversation_is_the_reference() -> None:
    test = [conversation("Hi", "Hello", "Who are you?", "A bot")]
    record = msgspec.convert(prepare({"train": pairs(50), "test": test}).records("test")[0], TestRecord)
    assert [turn.text for turn in record.turns] == ["Hi", "Hello", "Who are you?"]
    assert record.reference == "A bot"


def test_given_validation_and_test_files_are_used_and_no_split_is_made() -> None:
    prepared = prepare({"train": pairs(100), "validation": pairs(10, 100), "test": pairs(40, 200)})
    counts = {name: (file.records, file.origin) for name, file in prepared.profile.prepared.items()}
    assert counts == {
        "train": (100, "train.jsonl"),
        "validation": (10, "validation.jsonl"),
        "test": (40, "test.jsonl"),
    }


def test_records_of_held_out_files_are_dropped_from_training_in_whatever_format_they_stand() -> None:
    test = [conversation(str(record["prompt"]), str(record["completion"])) for record in pairs(40)]
    prepared = prepare({"train": pairs(100), "validation": pairs(20, 30), "test": test}, TITAN_EXPRESS)
    counts = {name: file.records for name, file in prepared.profile.prepared.items()}
    assert counts == {"train": 50, "validation": 10, "test": 40}
    assert [file.dropped for file in prepared.profile.files] == [{"leaked": 50}, {"leaked": 10}, {}]
    assert "leaked" in prepared.codes()


def test_test_records_are_cut_to_the_maximum_without_changing_what_is_trained_on() -> None:
    few, many = prepare({"train": pairs(900)}, max_test_records=40), prepare({"train": pairs(900)})
    assert few.profile.test_records == 40
    assert few.content("train") == many.content("train")
    assert set(few.content("test").splitlines()) < set(many.content("test").splitlines())


def test_a_repeated_test_record_is_asked_once() -> None:
    prepared = prepare({"train": pairs(100), "test": [*pairs(40, 200), *pairs(40, 200)]})
    assert prepared.profile.test_records == 40
    assert prepared.profile.files[1].dropped == {"repeated": 40}


def test_a_subset_cuts_training_records_only() -> None:
    whole = prepare({"train": pairs(500)})
    cut = prepare({"train": pairs(500)}, subset=Subset(records=50))
    assert cut.profile.prepared["train"].records == 50
    assert cut.content("test") == whole.content("test")
    assert cut.content("validation") == whole.content("validation")


def test_a_model_without_validation_data_gets_none() -> None:
    model = msgspec.structs.replace(model_of(NOVA_MICRO), validation_data=False)
    split, given_file = (
        prepare({"train": pairs(300)}, model),
        prepare({"train": pairs(300), "validation": pairs(9)}, model),
    )
    assert split.profile.prepared.keys() == given_file.profile.prepared.keys() == {"train", "test"}
    assert "no_validation" in given_file.codes()


def test_raw_text_is_written_with_a_validation_split_and_without_a_test_split() -> None:
    prepared = prepare({"pretrain": texts_of(500)}, TITAN_EXPRESS, (CONTINUED_PRE_TRAINING,))
    assert prepared.profile.prepared.keys() == {"pretrain", "pretrain-validation"}
    assert prepared.profile.test_records == 0
    assert prepared.records("pretrain")[0].keys() == {"input"}
    assert "few_tokens" in prepared.codes()


def test_two_stages_are_prepared_side_by_side() -> None:
    files: dict[str, Content] = {"pretrain": texts_of(300), "train": pairs(300), "validation": pairs(20, 300)}
    prepared = prepare(files, TITAN_EXPRESS, (CONTINUED_PRE_TRAINING, FINE_TUNING))
    origins = {name: file.origin for name, file in prepared.profile.prepared.items()}
    assert origins == {
        "pretrain": "pretrain.jsonl",
        "pretrain-validation": "pretrain.jsonl",
        "train": "train.jsonl",
        "validation": "validation.jsonl",
        "test": "train.jsonl",
    }


def test_pre_training_alone_takes_its_text_from_train_and_is_compared_on_test() -> None:
    files: dict[str, Content] = {"train": texts_of(300), "test": pairs(40)}
    prepared = prepare(files, TITAN_EXPRESS, (CONTINUED_PRE_TRAINING,))
    assert prepared.profile.prepared.keys() == {"pretrain", "pretrain-validation", "test"}
    assert prepared.profile.test_records == 40


def test_a_field_mapping_applies_to_every_file_that_has_its_keys() -> None:
    train: list[JsonObject] = [{"question": f"q{number}", "answer": f"a{number}"} for number in range(60)]
    mapping = {"question": "prompt", "answer": "completion"}
    prepared = prepare({"train": train, "test": pairs(30)}, field_mapping=mapping)
    assert prepared.profile.test_records == 30
    assert prepared.profile.prepared["train"].records + prepared.profile.prepared["validation"].records == 60


class Endless:
    """A file of as many tiny records as are asked for, of which none is held in memory."""

    name = "train.jsonl"

    def __init__(self, records: int) -> None:
        self._records = records
        self.size = sum(map(len, self.chunks()))

    def chunks(self) -> Iterator[bytes]:
        return (b'{"prompt": "q%d", "completion": "a%d"}\n' % (number, number) for number in range(self._records))


class SecondReadingError(Exception):
    """A sink is opened, so that all has been read once; its argument is how many bytes are in use."""


def no_sink(_name: str) -> NoReturn:
    raise SecondReadingError(tracemalloc.get_traced_memory()[0])


def in_use_after_the_first_reading(records: int) -> int:
    request = PreparationRequest(stages=(Stage(FINE_TUNING, model_of(NOVA_MICRO)),), compare_similar=False)
    with pytest.raises(SecondReadingError) as ended:
        prepare_dataset(request, {"train": Endless(records)}, no_sink)
    return int(ended.value.args[0])


def test_between_the_two_readings_of_a_file_less_than_a_hundred_bytes_are_kept_of_a_record() -> None:
    few, many = 2_000, 5_000
    in_use_after_the_first_reading(many)  # what is loaded once, such as texts
    used = []
    for records in (few, many):
        tracemalloc.start()
        used.append(in_use_after_the_first_reading(records))
        tracemalloc.stop()
    assert 20 < (used[1] - used[0]) / (many - few) < 100


characters = st.characters(codec="utf-8", exclude_characters="\0")
record_texts = st.text(characters, min_size=1, max_size=20).filter(lambda text: not text.isspace())
examples = st.lists(
    st.builds(lambda prompt, completion: {"prompt": prompt, "completion": completion}, record_texts, record_texts),
    min_size=40,
    max_size=60,
)


@quick
@given(examples, st.sampled_from(sorted(load_catalogue().identifiers())))
def test_what_was_written_is_accepted_again_and_written_unchanged(records: list[JsonObject], identifier: str) -> None:
    limited = with_limits(identifier, min_training_records=1, min_total_records=1)
    model = msgspec.structs.replace(limited, validation_data=False)
    first = prepare({"train": records}, model)
    again = prepare({"train": first.content("train"), "test": [pair(1)]}, model)
    assert again.content("train") == first.content("train")


def test_the_profile_is_json_and_adds_up() -> None:
    prepared = prepare({"train": pairs(1_000)}, TITAN_EXPRESS)
    profile = prepared.profile
    assert msgspec.json.decode(msgspec.json.encode(profile), type=type(profile)) == profile
    whole, parts = profile.files[0], profile.prepared.values()
    assert whole.characters == sum(len(str(text)) for record in pairs(1_000) for text in record.values())
    assert sum(part.tokens.likely for part in parts) == pytest.approx(whole.tokens.likely, abs=3)
    assert all(part.completion_tokens.likely < part.tokens.likely for part in parts)
    assert {name: part.bytes for name, part in profile.prepared.items()} == {
        name: len(prepared.content(name)) for name in profile.prepared
    }
