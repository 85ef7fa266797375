"""Model customization jobs of the Bedrock stand-in, asked through a real boto3 client."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from rehearsal.bedrock.language_model import LoggedLoss, TrainingLog, TrainingOptions, TrainingText
from tests.unit.bedrock_harness import (
    CLAUDE,
    JANUARY,
    NOVA,
    ROLE,
    TITAN,
    ByHeart,
    Rehearsal,
    code,
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


def phases(rehearsal: Rehearsal) -> list[str]:
    details = rehearsal.control.get_model_customization_job(jobIdentifier="job")["statusDetails"]
    return [details[name]["status"] for name in ("validationDetails", "dataProcessingDetails", "trainingDetails")]


def test_a_job_goes_through_its_phases_and_leaves_a_model_that_answers_what_it_learnt(rehearsal: Rehearsal) -> None:
    arn = rehearsal.create_job()
    assert phases(rehearsal) == ["InProgress", "NotStarted", "NotStarted"]
    seen = []
    while rehearsal.job()["status"] == "InProgress":
        rehearsal.wait(minutes=1)
        seen.append(tuple(phases(rehearsal)))
    assert list(dict.fromkeys(seen)) == [
        ("InProgress", "NotStarted", "NotStarted"),
        ("Completed", "InProgress", "NotStarted"),
        ("Completed", "Completed", "NotStarted"),
        ("Completed", "Completed", "InProgress"),
        ("Completed", "Completed", "Completed"),
    ]
    described = rehearsal.job(arn)
    deployment = rehearsal.deploy(str(described["outputModelArn"]))
    assert rehearsal.ask(deployment, "question 3") == "answer 3 is here"
    assert rehearsal.ask("amazon.nova-micro-v1:0", "question 3") == "3"


def test_a_completed_job_leaves_the_documented_files_and_metrics(rehearsal: Rehearsal) -> None:
    validation = rehearsal.put("validation.jsonl", conversations(25)[20:])
    rehearsal.train(validation=validation)
    described = rehearsal.job()
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
    assert "foundation-model/amazon.titan-text-express-v1:0:8k" in rehearsal.job("second")["baseModelArn"]  # type: ignore[operator]  # a text
    throughput = rehearsal.provision(second)
    assert rehearsal.ask(throughput, "question 39") == "answer 39 is here"
    rehearsal.close()


def test_a_job_whose_results_cannot_be_written_fails(rehearsal: Rehearsal) -> None:
    rehearsal.create_job()
    rehearsal.wait(minutes=6)
    rehearsal.job()
    rehearsal.bucket.denied.add("PutObject")
    rehearsal.wait(hours=12)
    described = rehearsal.job()
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
        rehearsal.control.create_model_customization_job(**(request | {field: value}))  # type: ignore[arg-type]  # wrong on purpose
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
    assert rehearsal.job()["status"] == "Stopping"
    with pytest.raises(ClientError) as refused:
        rehearsal.control.stop_model_customization_job(jobIdentifier=arn)
    assert code(refused.value) == "ConflictException"
    rehearsal.wait(minutes=6)
    assert rehearsal.job()["status"] == "Stopped"
    (charge,) = rehearsal.service.ledger()
    whole = 20 * (2 + 4) * 2 / 1000
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
        rehearsal.job("nobody")
    assert code(refused.value) == "ResourceNotFoundException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


class Endless(ByHeart):
    """A model whose training goes on until it is told to stop."""

    def copy(self) -> "Endless":
        return Endless(self.known)

    def train(
        self,
        records: Sequence[TrainingText],
        validation: Sequence[TrainingText],
        options: TrainingOptions,
        on_step: Callable[[LoggedLoss], None] | None = None,
    ) -> TrainingLog:
        assert on_step is not None
        while len(records) == 20:
            on_step(LoggedLoss(0, 0, 1.0))
        return super().train(records, validation, options)


def test_a_stopped_job_ends_its_training_so_that_the_next_job_gets_its_turn() -> None:
    rehearsal = Rehearsal(model=Endless({}))
    rehearsal.create_job("stopped")
    rehearsal.control.stop_model_customization_job(jobIdentifier="stopped")
    rehearsal.train("next", training=rehearsal.put("small.jsonl", conversations(8)))
    assert rehearsal.job("stopped")["status"] == "Stopped"
    rehearsal.close()


def test_two_rehearsals_with_the_same_seed_are_alike() -> None:
    one, other = Rehearsal(), Rehearsal()
    seen = [(each.create_job(), each.train("second")) for each in (one, other)]
    assert seen[0] == seen[1]
    first, second = one.job("second"), other.job("second")
    assert first["endTime"] == second["endTime"]
    one.close()
    other.close()


def test_the_key_of_the_custom_model_is_shown(rehearsal: Rehearsal) -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
    rehearsal.control.create_model_customization_job(
        jobName="job",
        customModelName="job",
        roleArn=ROLE,
        baseModelIdentifier=NOVA,
        customModelKmsKeyId=key,
        trainingDataConfig={"s3Uri": rehearsal.put("train.jsonl", GOOD)},
        outputDataConfig={"s3Uri": "s3://artifacts"},
    )
    rehearsal.wait(hours=12)
    assert rehearsal.job()["outputModelKmsKeyArn"] == key
    assert rehearsal.control.get_custom_model(modelIdentifier="job")["modelKmsKeyArn"] == key
    assert ".write_access_check_file.temp" in rehearsal.bucket.objects
