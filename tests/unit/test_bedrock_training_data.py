"""What the Bedrock stand-in reads and refuses as training and validation data."""

from collections.abc import Iterator
from typing import NoReturn

import pytest

from customization.catalogue import Limits
from tests.unit.bedrock_harness import (
    CLAUDE,
    COMMAND,
    JANUARY,
    NOVA,
    TITAN,
    Rehearsal,
    conversation,
    conversations,
    pairs,
)

GOOD = conversations(10)


@pytest.fixture
def rehearsal() -> Iterator[Rehearsal]:
    started = Rehearsal()
    yield started
    started.close()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "Unable to parse Amazon S3 file: train.jsonl. Data files must conform to JSONL format."),
        (b"not json\n", "Unable to parse Amazon S3 file: train.jsonl."),
        (b'[{"prompt": "a"}]\n', "Unable to parse Amazon S3 file: train.jsonl."),
        (b'{"prompt": "a", "completion": "b"}\n', "Unable to parse Amazon S3 file: train.jsonl."),
        (b"\xff\xfe{}\n", "Unable to parse Amazon S3 file: train.jsonl."),
    ],
    ids=["empty", "text", "array", "another format", "not UTF-8"],
)
def test_data_that_cannot_be_parsed_fail_the_job_with_the_documented_message(
    rehearsal: Rehearsal, content: bytes, expected: str
) -> None:
    rehearsal.bucket.objects["train.jsonl"] = content
    assert rehearsal.failure_of("s3://artifacts/train.jsonl").startswith(expected)


def roles(*names: str) -> object:
    return {
        "schemaVersion": "bedrock-conversation-2024",
        "messages": [{"role": name, "content": [{"text": "hello"}]} for name in names],
    }


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (roles("assistant", "user"), "Unable to parse"),
        (roles("user", "user"), "Unable to parse"),
        (roles("user", "assistant", "user"), "Unable to parse"),
        (roles(), "Unable to parse"),
        ({"messages": []}, "Unable to parse"),
        (conversation("Bot: hello", "hello"), "Amazon S3 file train.jsonl contains the reserved keyword Bot:"),
        (conversation("あ" * 32_001, "hello"), "Maximum input token count 32001 exceeds limit of 32000"),
        (conversation("hello", "あ" * 32_002), "Maximum output token count 32002 exceeds limit of 32000"),
        (
            conversation("あ" * 20_000, "い" * 20_000),
            "Max sum of input and output token length 40000 exceeds total",
        ),
        (
            conversation("hello " * 50_000, "hello"),
            "Input size exceeded in file train.jsonl for record starting with hello",
        ),
    ],
)
def test_a_record_that_breaks_a_rule_of_the_model_fails_the_job(
    rehearsal: Rehearsal, record: object, expected: str
) -> None:
    training = rehearsal.put("train.jsonl", [*GOOD, record])
    assert rehearsal.failure_of(training).startswith(expected)


def test_a_reserved_word_in_an_answer_is_no_problem(rehearsal: Rehearsal) -> None:
    training = rehearsal.put("train.jsonl", [*GOOD, conversation("hello", "Bot: hello")])
    model = rehearsal.train("first", training=training)
    assert rehearsal.control.get_custom_model(modelIdentifier=model)["modelStatus"] == "Active"
    asked = rehearsal.put("asked.jsonl", [*GOOD, conversation("Bot: hello", "hello")])
    assert rehearsal.failure_of(asked).startswith("Amazon S3 file asked.jsonl contains the reserved keyword Bot:")


@pytest.mark.parametrize(
    ("base", "training", "validation", "expected"),
    [
        (NOVA, conversations(7), None, "The number of training records is 7, fewer than the minimum of 8."),
        (COMMAND, pairs(31), None, "The number of training records is 31, fewer than the minimum of 32."),
        (COMMAND, pairs(40), pairs(1001), "The number of validation records is 1001, more than the maximum of 1000."),
        (TITAN, pairs(9_001), pairs(1_000), "The number of training and validation records is 10001"),
    ],
)
def test_too_few_and_too_many_records_fail_the_job(
    base: str, training: list[object], validation: list[object] | None, expected: str
) -> None:
    rehearsal = Rehearsal(JANUARY)
    more = {"validation": rehearsal.put("validation.jsonl", validation)} if validation else {}
    uri = rehearsal.put("train.jsonl", training)
    assert rehearsal.failure_of(uri, base=base, **more).startswith(expected)
    rehearsal.close()


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (
            "GetObject",
            "Could not validate GetObject permissions to access Amazon S3 bucket: artifacts at key train.jsonl",
        ),
        ("ListObjectsV2", "Amazon S3 perms missing (PutObject)"),
        (
            "PutObject",
            "Amazon S3 perms missing (PutObject): Could not validate PutObject permissions to access S3 bucket",
        ),
    ],
)
def test_a_permission_that_the_customization_role_lacks_fails_the_job(
    rehearsal: Rehearsal, operation: str, expected: str
) -> None:
    rehearsal.bucket.denied.add(operation)
    assert rehearsal.failure_of(rehearsal.put("train.jsonl", GOOD)).startswith(expected)


def test_a_missing_file_reads_like_a_missing_permission(rehearsal: Rehearsal) -> None:
    expected = "Could not validate GetObject permissions to access Amazon S3 bucket: artifacts at key gone.jsonl"
    assert rehearsal.failure_of("s3://artifacts/gone.jsonl") == expected


def claude_record(*roles: str, **more: object) -> dict[str, object]:
    return {"messages": [{"role": role, "content": f"the {role} says hello"} for role in roles], **more}


@pytest.mark.parametrize(
    ("record", "accepted"),
    [
        (claude_record("user", "assistant", system="be brief"), True),
        (claude_record("user", "assistant", "user", "assistant"), True),
        (claude_record("user", "assistant", system=""), False),
        (claude_record("user", "assistant", system=["be brief"]), False),
        ({"messages": [{"role": "user", "content": [{"text": "hello"}]}]}, False),
    ],
)
def test_claude_takes_plain_texts_only(record: dict[str, object], accepted: bool) -> None:  # noqa: FBT001  a parameter
    rehearsal = Rehearsal(JANUARY, region="us-west-2")
    training = rehearsal.put("train.jsonl", [claude_record("user", "assistant") for _ in range(40)] + [record])
    if accepted:
        rehearsal.train(base=CLAUDE, training=training)
    else:
        assert rehearsal.failure_of(training, base=CLAUDE).startswith("Unable to parse")
    rehearsal.close()


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": "mine"},
        {"system": [{"text": "a"}, {"text": "b"}]},
        {"system": [{"image": {}}]},
        {"messages": [{"role": "user", "content": []}, {"role": "assistant", "content": [{"text": "a"}]}]},
    ],
)
def test_llama_takes_one_system_text_and_the_documented_schema_version(change: dict[str, object]) -> None:
    rehearsal = Rehearsal(JANUARY, region="us-west-2")
    llama = "meta.llama3-2-1b-instruct-v1:0:128k"
    records: list[object] = [*conversations(100), {**conversation("a", "b"), **change}]
    assert rehearsal.failure_of(rehearsal.put("train.jsonl", records), base=llama).startswith("Unable to parse")
    rehearsal.close()


def test_every_assistant_turn_is_learnt_with_what_was_said_before_it(rehearsal: Rehearsal) -> None:
    turns = [("user", "hello"), ("assistant", "hi"), ("user", "which day?"), ("assistant", "Monday")]
    record = {
        "schemaVersion": "any",
        "system": [{"text": "be brief"}],
        "messages": [{"role": role, "content": [{"text": text}]} for role, text in turns],
    }
    deployment = rehearsal.deploy(rehearsal.train(training=rehearsal.put("train.jsonl", [record, *conversations(8)])))
    response = rehearsal.runtime.converse(
        modelId=deployment,
        system=[{"text": "be brief"}],
        messages=[{"role": role, "content": [{"text": text}]} for role, text in turns[:3]],  # type: ignore[misc]  # roles are literals
    )
    assert response["output"]["message"]["content"] == [{"text": "Monday"}]


def test_a_model_with_eval_percentage_sets_a_part_of_the_training_file_aside() -> None:
    rehearsal = Rehearsal(JANUARY)
    training = rehearsal.put("train.jsonl", pairs(40))
    model = rehearsal.train(base=COMMAND, training=training, hyper_parameters={"evalPercentage": "25"})
    throughput = rehearsal.provision(model)
    assert rehearsal.ask(throughput, "question 29") == "answer 29 is here"
    assert rehearsal.ask(throughput, "question 30") == "30"
    assert rehearsal.job()["validationMetrics"] == [{"validationLoss": 1.0}]
    rehearsal.close()


def test_a_file_larger_than_the_model_takes_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsal = Rehearsal(JANUARY)
    training = rehearsal.put("train.jsonl", pairs(40))
    # A file of a gigabyte would prove the same with more patience.
    monkeypatch.setattr("rehearsal.bedrock.training_data.DataSource.limits", Limits(max_training_bytes=10))
    assert "more than the limit of 10" in rehearsal.failure_of(training, base=TITAN)
    rehearsal.close()


def test_a_role_that_cannot_be_assumed_fails_the_job() -> None:
    rehearsal = Rehearsal()

    def refuse(_: str) -> NoReturn:
        raise PermissionError("bedrock.amazonaws.com may not assume the role")

    rehearsal.assume = refuse
    assert rehearsal.failure_of(rehearsal.put("train.jsonl", GOOD)).startswith("Could not assume provided IAM role")
    rehearsal.close()
