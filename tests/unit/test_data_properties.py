"""What holds for all data: conversion there and back, output that is valid input, splits, ids that follow content."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from customization.formats import TestRecord
from customization.json_types import Json, JsonObject
from customization.planning import plan_run
from customization.runs import Call, read_plan
from tests.unit.data_files import (
    CLAUDE_3_HAIKU,
    CONTINUED_PRE_TRAINING,
    FINE_TUNING,
    NOVA_MICRO,
    TITAN_EXPRESS,
    Content,
    Prepared,
    json_lines,
    pair,
    pairs,
    prepare,
    with_limits,
)
from tests.unit.fakes import GatewayInMemory

quick = settings(deadline=None, max_examples=25)
few = settings(deadline=None, max_examples=12)  # hundreds of records each
ROLES = ("user", "assistant")
# Without NUL, which is refused, and without what reserved words, end-of-text markers and role cues are made of
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0:：<>[]|/"), min_size=1).filter(
    lambda text: bool(text.strip())
)


class Talk(NamedTuple):
    """A labelled record, whatever its format: what is said by user and assistant in turns."""

    system: str
    said: tuple[str, ...]


def talks(turns: int) -> st.SearchStrategy[Talk]:
    said = st.integers(1, turns).flatmap(lambda pairs_of: st.tuples(*[texts] * (2 * pairs_of)))
    return st.builds(Talk, st.just("") | texts, said)


def _messages(talk: Talk, content: Callable[[str], Json]) -> list[Json]:
    return [{"role": ROLES[place % 2], "content": content(text)} for place, text in enumerate(talk.said)]


def as_pair(talk: Talk) -> JsonObject:
    return {"system": talk.system, "prompt": talk.said[0], "completion": talk.said[1]}


def as_claude(talk: Talk) -> JsonObject:
    messages = _messages(talk, lambda text: text)
    return {"system": talk.system, "messages": messages} if talk.system else {"messages": messages}


def as_openai(talk: Talk) -> JsonObject:
    system: list[Json] = [{"role": "system", "content": talk.system}] if talk.system else []
    return {"messages": [*system, *_messages(talk, lambda text: text)]}


def as_bedrock(talk: Talk) -> JsonObject:
    system: JsonObject = {"system": [{"text": talk.system}]} if talk.system else {}
    messages = _messages(talk, lambda text: [{"text": text}])
    return {"schemaVersion": "bedrock-conversation-2024", **system, "messages": messages}


def pair_as_written(talk: Talk) -> JsonObject:
    """Return what a model without messages takes: its prompt begins with the system prompt."""
    prompt = f"{talk.system}\n\n{talk.said[0]}" if talk.system else talk.said[0]
    return {"prompt": prompt, "completion": talk.said[1]}


SOURCES = {"prompt_completion": as_pair, "claude_messages": as_claude, "openai_chat": as_openai, "bedrock": as_bedrock}
TARGETS = {TITAN_EXPRESS: pair_as_written, CLAUDE_3_HAIKU: as_claude, NOVA_MICRO: as_bedrock}
ASKED: list[JsonObject] = [{"prompt": "what: else", "completion": "held: out"}]
HELD_OUT: list[JsonObject] = [{"prompt": "held: out", "completion": "held: out"}]


def trained_on(train: Content, model: str, kind: str = FINE_TUNING) -> Prepared:
    """Prepare a file all of whose records train; nothing else is asked of the data than their shape."""
    small = with_limits(model, min_training_records=1, min_validation_records=1, min_total_records=1)
    labelled = kind == FINE_TUNING
    held_out: list[JsonObject] = HELD_OUT if labelled else [{"input": "held: out"}]
    files: dict[str, Content] = {"validation": held_out, "test": ASKED} if labelled else {"validation": held_out}
    return prepare({"train" if labelled else "pretrain": train, **files}, small, (kind,))


REPAIRS = {"byte_order_mark", "cr_lf", "blank_line", "schema_version", "joined_blocks", "joined_system"}


@quick
@given(st.data(), st.sampled_from([*SOURCES]), st.sampled_from([*TARGETS]))
def test_what_is_accepted_becomes_the_same_record_in_every_format(data: st.DataObject, source: str, model: str) -> None:
    single = source == "prompt_completion" or model == TITAN_EXPRESS
    given_talks = data.draw(st.lists(talks(1 if single else 3), min_size=1, max_size=4))
    prepared = trained_on([SOURCES[source](talk) for talk in given_talks], model)
    written = prepared.records("train")
    assert written == [TARGETS[model](talk) for talk in given_talks]
    back = trained_on(prepared.content("train"), NOVA_MICRO).records("train")
    without_system_field = [
        Talk("", (str(pair_as_written(talk)["prompt"]), talk.said[1])) for talk in given_talks if single
    ]
    assert back == [as_bedrock(talk) for talk in (without_system_field if model == TITAN_EXPRESS else given_talks)]


@quick
@given(st.lists(talks(2), min_size=1, max_size=4), st.sampled_from([CLAUDE_3_HAIKU, NOVA_MICRO]))
def test_what_was_written_is_valid_input_that_is_written_unchanged(given_talks: list[Talk], model: str) -> None:
    once = trained_on([as_openai(talk) for talk in given_talks], model)
    again = trained_on(once.content("train"), model)
    assert again.content("train") == once.content("train")
    assert again.codes() & REPAIRS == set()


@quick
@given(st.lists(texts, min_size=1, max_size=5))
def test_raw_text_is_written_as_it_came(given_texts: list[str]) -> None:
    records: list[JsonObject] = [{"input": text} for text in given_texts]
    once = trained_on(records, TITAN_EXPRESS, CONTINUED_PRE_TRAINING)
    assert once.records("pretrain") == records
    again = trained_on(once.content("pretrain"), TITAN_EXPRESS, CONTINUED_PRE_TRAINING)
    assert again.content("pretrain") == once.content("pretrain")


def splits_of(train: list[JsonObject], seed: int) -> dict[str, set[str]]:
    """Return the prompts of each split; a test record that is not asked would be missing."""
    prepared = prepare({"train": train}, TITAN_EXPRESS, split_seed=seed, max_test_records=10_000)
    asked = [json.loads(line) for line in prepared.content("test").splitlines()]
    return {
        "train": {str(record["prompt"]) for record in prepared.records("train")},
        "validation": {str(record["prompt"]) for record in prepared.records("validation")},
        "test": {record["turns"][0]["text"] for record in asked},
    }


def with_categories(records: list[JsonObject], every: int) -> list[JsonObject]:
    """Return the records, each n-th of them in a category of its own kind; 0 for no categories."""
    return [
        {**record, "category": "rare" if every and number % every == 0 else "common"} if every else record
        for number, record in enumerate(records)
    ]


records_of_a_file = st.tuples(st.integers(200, 400), st.integers(0, 10_000), st.sampled_from([0, 2, 20])).map(
    lambda drawn: with_categories(pairs(drawn[0], drawn[1]), drawn[2])
)


@few
@given(records_of_a_file, st.integers(0, 5), st.randoms(use_true_random=False))
def test_splits_share_no_record_lose_none_and_do_not_depend_on_the_order(
    train: list[JsonObject], seed: int, random: "Shuffler"
) -> None:
    splits = splits_of(train, seed)
    everything = [prompt for split in splits.values() for prompt in split]
    assert len(everything) == len(set(everything)) == len(train)
    shuffled = [*train]
    random.shuffle(shuffled)
    assert splits_of(shuffled, seed) == splits


class Shuffler(NamedTuple):
    shuffle: Callable[[list[JsonObject]], None]


@few
@given(records_of_a_file, st.integers(1, 60), st.integers(0, 5))
def test_appended_records_never_make_a_record_of_an_earlier_training_one_of_the_held_out(
    train: list[JsonObject], appended: int, seed: int
) -> None:
    before = splits_of(train, seed)
    after = splits_of([*train, *pairs(appended, 20_000)], seed)
    assert before["train"] <= after["train"]
    for split in ("validation", "test"):
        assert before[split] <= after[split] | after["train"]


@few
@given(st.integers(0, 10_000), st.integers(60, 120), st.integers(0, 5))
def test_a_category_is_in_every_split_and_keeps_its_share_of_what_is_asked(start: int, rare: int, seed: int) -> None:
    train: list[JsonObject] = [
        {**pair(start + number), "category": "rare" if number < rare else "common"} for number in range(600)
    ]
    rare_prompts = {str(record["prompt"]) for record in train[:rare]}
    splits = splits_of(train, seed)
    assert all(len(split & rare_prompts) >= 3 for split in splits.values())
    asked = prepare({"train": train}, TITAN_EXPRESS, split_seed=seed, max_test_records=20).records("test")
    share = len(splits["test"] & rare_prompts) / len(splits["test"])
    assert len(asked) == 20
    assert abs([record["category"] for record in asked].count("rare") - 20 * share) <= 1


FILES = {
    "train.jsonl": json_lines(pairs(20)),
    "validation.jsonl": json_lines(pairs(9, 20)),
    "test.jsonl": json_lines(pairs(5, 30)),
}
WAYS = ("put", "put with checksum", "parts", "again")


class Bucket:
    """The data bucket as S3 is: it tells what a checksum is of, which the stand-in leaves out."""

    def __init__(self, gateway: GatewayInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
        self._client = gateway.data._client
        self._kinds: dict[str, str] = {}
        self._head = self._client.head_object
        monkeypatch.setattr(self._client, "head_object", self._head_with_type)

    def _head_with_type(self, **parameters: str) -> dict[str, object]:
        found: dict[str, object] = dict(self._head(**parameters))  # type: ignore[arg-type] # passed on as it came
        kind = self._kinds.get(parameters["Key"])
        return {**found, "ChecksumType": kind} if kind else found

    def upload(self, key: str, body: bytes, way: str) -> None:
        if way == "parts":
            self._upload_parts(key, body)
            return
        if way == "again":
            self._client.put_object(Bucket="data", Key=key, Body=b"an earlier version")
        if way == "put with checksum":
            self._client.put_object(Bucket="data", Key=key, Body=body, ChecksumAlgorithm="SHA256")
            self._kinds[key] = "FULL_OBJECT"
        else:
            self._client.put_object(Bucket="data", Key=key, Body=body)

    def _upload_parts(self, key: str, body: bytes) -> None:
        place = {"Bucket": "data", "Key": key}
        upload = self._client.create_multipart_upload(Bucket="data", Key=key, ChecksumAlgorithm="SHA256")["UploadId"]
        part = self._client.upload_part(
            Bucket="data", Key=key, UploadId=upload, PartNumber=1, Body=body, ChecksumAlgorithm="SHA256"
        )
        parts = [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}]
        self._client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts})  # type: ignore[arg-type,typeddict-item] # one part of it
        self._kinds[key] = "COMPOSITE"


@pytest.fixture
def bucket(gateway: GatewayInMemory, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return Bucket(gateway, monkeypatch)


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(sorted(FILES)), st.lists(st.sampled_from(WAYS), min_size=3, max_size=3), st.uuids())
def test_the_same_content_is_the_same_training_whatever_the_order_the_time_and_the_way_of_upload(
    gateway: GatewayInMemory, bucket: Bucket, call: Call, order: Sequence[str], ways: Sequence[str], folder: object
) -> None:
    dataset = f"d{str(folder).replace('-', '')[:20]}"
    for name, way in zip(order, ways, strict=True):
        bucket.upload(f"incoming/{dataset}/{name}", FILES[name], way)
    fresh = replace(call, run_id="", attempt=0, execution_arn=f"{call.execution_arn}-{dataset}")
    plan = read_plan(gateway, str(plan_run(gateway, {"dataset": dataset}, fresh)["runId"]))
    assert {name: pinned.sha256 for name, pinned in plan.files.items()} == {
        name: hashlib.sha256(body).hexdigest() for name, body in FILES.items()
    }
    first = read_plan(gateway, _first_run(gateway, bucket, call))
    assert plan.training_id == first.training_id


def _first_run(gateway: GatewayInMemory, bucket: Bucket, call: Call) -> str:
    """Return the run of the plainest upload."""
    for name, body in FILES.items():
        bucket.upload(f"incoming/first/{name}", body, "put")
    return str(plan_run(gateway, {"dataset": "first"}, replace(call, run_id="", attempt=0))["runId"])


def test_other_content_is_another_training(gateway: GatewayInMemory, bucket: Bucket, call: Call) -> None:
    first = read_plan(gateway, _first_run(gateway, bucket, call))
    for name, body in FILES.items():
        bucket.upload(f"incoming/second/{name}", body + json_lines(pairs(1, 99)), "put")
    second = str(plan_run(gateway, {"dataset": "second"}, replace(call, run_id="", attempt=0))["runId"])
    assert read_plan(gateway, second).training_id != first.training_id


def test_a_test_record_reads_back_as_the_record_that_it_was_made_from() -> None:
    prepared = trained_on(pairs(3), NOVA_MICRO)
    records = [json.loads(line) for line in prepared.content("test").splitlines()]
    assert [(record["turns"], record["reference"]) for record in records] == [
        ([{"role": "user", "text": "what: else"}], "held: out")
    ]
    assert {*records[0]} <= {*TestRecord.__struct_encode_fields__}
