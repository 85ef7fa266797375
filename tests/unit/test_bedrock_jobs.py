"""Model customization jobs of the Bedrock stand-in, asked through a real boto3 client."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from tests.unit.bedrock_harness import (
    CLAUDE,
    COMMAND,
    JANUARY,
    NOVA,
    TITAN,
    Rehearsal,
    code,
    conversation,
    conversations,
    message,
    pairs,
)

GOOD = conversations(10)


@pytest.fixture
def rehearsal() -> Iterator[Rehearsal]:
    started = Rehearsal()
    yield started
    started.close()


def job(rehearsal: Rehearsal, identifier: str = "job") -> dict[str, object]:
    return dict(rehearsal.control.get_model_customization_job(jobIdentifier=identifier))


def phases(rehearsal: Rehearsal) -> list[str]:
    details = rehearsal.control.get_model_customization_job(jobIdentifier="job")["statusDetails"]
    return [details[name]["status"] for name in ("validationDetails", "dataProcessingDetails", "trainingDetails")]


def failure_of(rehearsal: Rehearsal, training: str, **parameters: str) -> str:
    rehearsal.create_job("job", training=training, **parameters)  # type: ignore[arg-type]
    rehearsal.wait(minutes=5)
    described = job(rehearsal)
    assert described["status"] == "Failed"
    return str(described["failureMessage"])


def test_a_job_goes_through_its_phases_and_leaves_a_model_that_answers_what_it_learnt(rehearsal: Rehearsal) -> None:
    arn = rehearsal.create_job()
    assert phases(rehearsal) == ["InProgress", "NotStarted", "NotStarted"]
    seen = []
    while job(rehearsal)["status"] == "InProgress":
        rehearsal.wait(minutes=1)
        seen.append(tuple(phases(rehearsal)))
    assert list(dict.fromkeys(seen)) == [
        ("InProgress", "NotStarted", "NotStarted"),
        ("Completed", "InProgress", "NotStarted"),
        ("Completed", "Completed", "NotStarted"),
        ("Completed", "Completed", "InProgress"),
        ("Completed", "Completed", "Completed"),
    ]
    described = job(rehearsal, arn)
    deployment = rehearsal.deploy(str(described["outputModelArn"]))
    assert rehearsal.ask(deployment, "question 3") == "answer 3 is here"
    assert rehearsal.ask("amazon.nova-micro-v1:0", "question 3") == "3"


def test_a_completed_job_leaves_the_documented_files_and_metrics(rehearsal: Rehearsal) -> None:
    validation = rehearsal.put("validation.jsonl", conversations(25)[20:])
    rehearsal.train(validation=validation)
    described = job(rehearsal)
    folder = f"out/model-customization-job-{str(described['jobArn']).rsplit('/', 1)[-1]}/"
    written = {key.removeprefix(folder): content.decode() for key, content in rehearsal.bucket.objects.items()}
    assert written["training_artifacts/step_wise_training_metrics.csv"].splitlines() == [
        "step_number,epoch_number,training_loss,perplexity",
        "0,0,3.000000,20.085537",
        "1,1,1.500000,4.481689",
    ]
    nested = "validation_artifacts/post_fine_tuning_validation/validation/validation_metrics.csv"
    assert written[nested].startswith("step_number,epoch_number,validation_loss,perplexity\n1,1,1.5")
    assert written["out/.write_access_check_file.temp"] == ""
    assert described["trainingMetrics"] == {"trainingLoss": 1.5}
    assert described["validationMetrics"] == [{"validationLoss": 1.0}]


def test_before_2026_validation_metrics_lie_where_the_user_guide_shows_them() -> None:
    rehearsal = Rehearsal(JANUARY)
    training = rehearsal.put("train.jsonl", pairs(40))
    rehearsal.train(base=TITAN, training=training, validation=rehearsal.put("validation.jsonl", pairs(5)))
    key = "validation_artifacts/post_fine_tuning_validation/validation_metrics.csv"
    assert any(written.endswith(key) for written in rehearsal.bucket.objects)
    rehearsal.close()


def test_a_second_stage_continues_from_the_first_stages_model() -> None:
    rehearsal = Rehearsal(JANUARY)
    texts = rehearsal.put("pretrain.jsonl", [{"input": f"text {number}"} for number in range(5)])
    first = rehearsal.train("first", base=TITAN, training=texts, kind="CONTINUED_PRE_TRAINING")
    second = rehearsal.train("second", base=first, training=rehearsal.put("train.jsonl", pairs(40)))
    described = rehearsal.control.get_custom_model(modelIdentifier=second)
    assert described["baseModelArn"] == first
    assert "foundation-model/amazon.titan-text-express-v1:0:8k" in job(rehearsal, "second")["baseModelArn"]  # type: ignore[operator]
    throughput = rehearsal.provision(second)
    assert rehearsal.ask(throughput, "question 39") == "answer 39 is here"
    rehearsal.close()


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
    assert failure_of(rehearsal, "s3://artifacts/train.jsonl").startswith(expected)


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
        (conversation("あ" * 20_000, "い" * 20_000), "Max sum of input and output token count 40000 exceeds"),
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
    assert failure_of(rehearsal, training).startswith(expected)


def test_a_reserved_word_in_an_answer_is_no_problem(rehearsal: Rehearsal) -> None:
    training = rehearsal.put("train.jsonl", [*GOOD, conversation("hello", "Bot: hello")])
    rehearsal.train(training=training)


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
    assert failure_of(rehearsal, uri, base=base, **more).startswith(expected)
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
            "Amazon S3 perms missing (PutObject): Could not validate PutObject permissions to access S3 bucket: artifacts",
        ),
    ],
)
def test_a_permission_that_the_customization_role_lacks_fails_the_job(
    rehearsal: Rehearsal, operation: str, expected: str
) -> None:
    rehearsal.bucket.denied.add(operation)
    assert failure_of(rehearsal, rehearsal.put("train.jsonl", GOOD)).startswith(expected)


def test_a_missing_file_reads_like_a_missing_permission(rehearsal: Rehearsal) -> None:
    expected = "Could not validate GetObject permissions to access Amazon S3 bucket: artifacts at key gone.jsonl"
    assert failure_of(rehearsal, "s3://artifacts/gone.jsonl") == expected


def test_a_job_whose_results_cannot_be_written_fails(rehearsal: Rehearsal) -> None:
    rehearsal.create_job()
    rehearsal.wait(minutes=6)
    job(rehearsal)
    rehearsal.bucket.denied.add("PutObject")
    rehearsal.wait(hours=12)
    described = job(rehearsal)
    assert described["status"] == "Failed"
    assert "step_wise_training_metrics.csv" in str(described["failureMessage"])
    assert rehearsal.control.list_custom_models()["modelSummaries"] == []


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("jobName", "a_b", "'jobName' failed to satisfy constraint: Member must satisfy regular expression pattern"),
        ("jobName", "a" + "-" * 61 + "!", "'jobName' failed to satisfy constraint"),
        ("jobName", "a" * 64, "Member must have length less than or equal to 63"),
        ("customModelName", "a.b", "'customModelName' failed to satisfy constraint"),
        ("roleArn", "role", "'roleArn' failed to satisfy constraint"),
        ("baseModelIdentifier", "Nova Micro", "'baseModelIdentifier' failed to satisfy constraint"),
        ("customizationType", "TUNING", "Member must satisfy enum value set: [FINE_TUNING"),
        ("trainingDataConfig", {"s3Uri": "s3://artifacts/dt=2026/train.jsonl"}, "'trainingDataConfig.s3Uri' failed"),
        ("trainingDataConfig", {"s3Uri": "s3://artifacts/folder/"}, "Uri should be a file, not a directory"),
        ("clientRequestToken", "-", "'clientRequestToken' failed to satisfy constraint"),
        ("jobTags", [{"key": "a#", "value": ""}], "'jobTags.1.member.key' failed to satisfy constraint"),
        ("baseModelIdentifier", "amazon.titan-image-generator-v9:0", "The provided model identifier is invalid."),
        ("customizationType", "DISTILLATION", "The rehearsal does not know the customization type DISTILLATION."),
        ("customizationType", "CONTINUED_PRE_TRAINING", "does not support the customization type"),
        ("hyperParameters", {"epochCount": "6"}, "Hyperparameter epochCount has the value '6'"),
        ("hyperParameters", {"epochCount": "2.5"}, "it must be of type integer between 1 and 5"),
        ("hyperParameters", {"learningRate": "nan"}, "Hyperparameter learningRate has the value 'nan'"),
        ("hyperParameters", {"batchSize": "8"}, "Hyperparameter batchSize is not supported"),
    ],
)
def test_a_request_outside_the_documented_bounds_is_refused(
    rehearsal: Rehearsal, field: str, value: object, expected: str
) -> None:
    request: dict[str, object] = {
        "jobName": "job",
        "customModelName": "job",
        "roleArn": "arn:aws:iam::123456789012:role/customization",
        "baseModelIdentifier": NOVA,
        "trainingDataConfig": {"s3Uri": "s3://artifacts/train.jsonl"},
        "outputDataConfig": {"s3Uri": "s3://artifacts/out"},
        "hyperParameters": {},
    }
    with pytest.raises(ClientError) as refused:
        rehearsal.control.create_model_customization_job(**(request | {field: value}))  # type: ignore[arg-type]
    # An identifier that names neither a base nor a custom model is looked up and not found.
    assert code(refused.value) in {"ValidationException", "ResourceNotFoundException"}
    assert expected in message(refused.value)
    assert rehearsal.control.list_model_customization_jobs()["modelCustomizationJobSummaries"] == []


def test_job_names_are_taken_for_ever_and_model_names_while_the_model_lives(rehearsal: Rehearsal) -> None:
    rehearsal.train()
    with pytest.raises(ClientError) as refused:
        rehearsal.create_job("job")
    assert (code(refused.value), refused.value.response["ResponseMetadata"]["HTTPStatusCode"]) == (
        "ConflictException",
        400,
    )
    with pytest.raises(ClientError) as refused:
        rehearsal.create_job("other", model_name="job")
    assert code(refused.value) == "ConflictException"
    rehearsal.control.delete_custom_model(modelIdentifier="job")
    rehearsal.create_job("other", model_name="job")


def test_the_same_token_makes_one_job(rehearsal: Rehearsal) -> None:
    training = rehearsal.put("train.jsonl", GOOD)

    def create(name: str) -> str:
        return rehearsal.control.create_model_customization_job(
            jobName=name,
            customModelName=name,
            roleArn="arn:aws:iam::123456789012:role/customization",
            baseModelIdentifier=NOVA,
            trainingDataConfig={"s3Uri": training},
            outputDataConfig={"s3Uri": "s3://artifacts/out"},
            clientRequestToken="once",
        )["jobArn"]

    with ThreadPoolExecutor(8) as executor:
        arns = set(executor.map(create, ["one"] * 8))
    assert len(arns) == 1
    assert len(rehearsal.control.list_model_customization_jobs()["modelCustomizationJobSummaries"]) == 1


def test_the_eleventh_job_in_progress_is_one_too_many(rehearsal: Rehearsal) -> None:
    for number in range(10):
        rehearsal.create_job(f"job-{number}")
    with pytest.raises(ClientError) as refused:
        rehearsal.create_job("job-10")
    assert code(refused.value) == "ServiceQuotaExceededException"
    rehearsal.control.stop_model_customization_job(jobIdentifier="job-3")
    rehearsal.wait(minutes=10)
    rehearsal.create_job("job-10")


def test_the_hundred_and_first_custom_model_is_one_too_many(rehearsal: Rehearsal) -> None:
    for batch in range(10):
        for number in range(10):
            rehearsal.create_job(f"job-{batch}-{number}")
        rehearsal.wait(hours=6)
    with pytest.raises(ClientError) as refused:
        rehearsal.create_job("job-100")
    assert code(refused.value) == "ServiceQuotaExceededException"
    assert (
        len(list(rehearsal.control.get_paginator("list_custom_models").paginate(PaginationConfig={"PageSize": 30})))
        == 4
    )


def test_stopping_takes_minutes_and_bills_what_was_trained_until_then(rehearsal: Rehearsal) -> None:
    arn = rehearsal.create_job()
    while phases(rehearsal)[2] != "InProgress":
        rehearsal.wait(minutes=1)
    rehearsal.wait(minutes=5)
    rehearsal.control.stop_model_customization_job(jobIdentifier=arn)
    assert job(rehearsal)["status"] == "Stopping"
    with pytest.raises(ClientError) as refused:
        rehearsal.control.stop_model_customization_job(jobIdentifier=arn)
    assert code(refused.value) == "ConflictException"
    rehearsal.wait(minutes=6)
    assert job(rehearsal)["status"] == "Stopped"
    (charge,) = rehearsal.service.ledger()
    whole = sum(len(f"question {n} answer {n} is here".split()) + 3 for n in range(20)) * 2 / 1000
    assert 0 < charge.quantity < whole
    assert rehearsal.service.live_resources() == []


def test_jobs_are_listed_in_pages_by_status_and_name(rehearsal: Rehearsal) -> None:
    for number in range(5):
        rehearsal.create_job(f"job-{number}")
        rehearsal.wait(minutes=1)
    rehearsal.control.stop_model_customization_job(jobIdentifier="job-2")
    rehearsal.wait(minutes=10)
    paginator = rehearsal.control.get_paginator("list_model_customization_jobs")
    found = [
        summary["jobName"]
        for page in paginator.paginate(
            statusEquals="InProgress", sortOrder="Ascending", PaginationConfig={"PageSize": 2}
        )
        for summary in page["modelCustomizationJobSummaries"]
    ]
    assert found == ["job-0", "job-1", "job-3", "job-4"]
    named = rehearsal.control.list_model_customization_jobs(nameContains="b-2")["modelCustomizationJobSummaries"]
    assert [summary["status"] for summary in named] == ["Stopped"]
    since = rehearsal.control.list_model_customization_jobs(creationTimeAfter=rehearsal.clock.time)
    assert since["modelCustomizationJobSummaries"] == []


@pytest.mark.parametrize(("base", "expected"), [(TITAN, "ResourceNotFoundException"), (CLAUDE, "ValidationException")])
def test_a_model_that_is_gone_or_not_offered_in_the_region_takes_no_job(base: str, expected: str) -> None:
    rehearsal = Rehearsal() if base == TITAN else Rehearsal(JANUARY)
    with pytest.raises(ClientError) as refused:
        rehearsal.create_job(base=base)
    assert code(refused.value) == expected
    rehearsal.close()


def test_a_legacy_model_takes_no_job() -> None:
    rehearsal = Rehearsal(region="us-west-2")
    with pytest.raises(ClientError, match="LEGACY: it takes no new model customization jobs"):
        rehearsal.create_job(base="meta.llama3-3-70b-instruct-v1:0:128k")
    rehearsal.close()


def test_an_unknown_job_is_not_found(rehearsal: Rehearsal) -> None:
    with pytest.raises(ClientError) as refused:
        job(rehearsal, "nobody")
    assert code(refused.value) == "ResourceNotFoundException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_two_rehearsals_with_the_same_seed_are_alike() -> None:
    one, other = Rehearsal(), Rehearsal()
    seen = [(each.create_job(), each.train("second")) for each in (one, other)]
    assert seen[0] == seen[1]
    first, second = job(one, "second"), job(other, "second")
    assert first["endTime"] == second["endTime"]
    one.close()
    other.close()
