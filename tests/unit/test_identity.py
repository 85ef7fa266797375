import re

import pytest
from botocore.session import get_session
from hypothesis import given
from hypothesis import strategies as st

from customization.identity import (
    answers_id,
    digest,
    job_name,
    parameter_name,
    request_token,
    resource_tags,
    run_id,
    serving_name,
    training_id,
)

DATASETS = st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,29}", fullmatch=True)
STAGES = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
HEX_8 = st.from_regex(r"[0-9a-f]{8}", fullmatch=True)
BEDROCK = get_session().get_service_model("bedrock")
HEX_10 = st.from_regex(r"[0-9a-f]{10}", fullmatch=True)


def training(**changes: object) -> str:
    content: dict[str, object] = {
        "checksums": {"train.jsonl": "a", "validation.jsonl": "b"},
        "base": "amazon.nova-micro-v1:0:128k",
        "customization_type": "FINE_TUNING",
        "hyper_parameters": {"epochCount": "2", "learningRate": "0.00001"},
        "subset": None,
        "field_mapping": {},
        "strip_role_cues": False,
        "split_seed": 7,
    }
    return training_id(**(content | changes))  # type: ignore[arg-type] # the point is to change one at a time


def accepts(shape_name: str, value: str) -> bool:
    """Tell whether the service model of Amazon Bedrock takes `value` for a shape."""
    shape = BEDROCK.shape_for(shape_name)
    length, pattern = len(value), str(shape.metadata.get("pattern", ".*"))
    fits = shape.metadata.get("min", 0) <= length <= shape.metadata.get("max", length)
    return fits and re.fullmatch(pattern, value) is not None


def test_the_same_training_has_the_same_id_whatever_the_order_of_its_parts() -> None:
    reordered = training(
        checksums={"validation.jsonl": "b", "train.jsonl": "a"},
        hyper_parameters={"learningRate": "0.00001", "epochCount": "2"},
    )
    assert re.fullmatch("[0-9a-f]{10}", reordered)
    assert reordered == training()


@pytest.mark.parametrize(
    "change",
    [
        {"checksums": {"train.jsonl": "A", "validation.jsonl": "b"}},
        {"checksums": {"train.jsonl": "a"}},
        {"base": "0123456789"},
        {"customization_type": "CONTINUED_PRE_TRAINING"},
        {"hyper_parameters": {"epochCount": "3", "learningRate": "0.00001"}},
        {"subset": {"records": 200}},
        {"field_mapping": {"question": "prompt"}},
        {"strip_role_cues": True},
        {"split_seed": 8},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_what_is_learnt_changes_the_training_id(change: dict[str, object]) -> None:
    assert training(**change) != training()


def test_a_run_is_told_apart_by_its_trainings_inference_evaluation_and_serving() -> None:
    def run(**changes: object) -> str:
        content: dict[str, object] = {
            "dataset": "support-ja",
            "training_ids": ["0123456789"],
            "inference": {"maxTokens": 256},
            "evaluation": {"maxRecords": 500},
            "serving": {"mode": "on-demand"},
        }
        return run_id(**(content | changes))  # type: ignore[arg-type] # as above

    changed = [
        run(training_ids=["0123456789", "9876543210"]),
        run(inference={"maxTokens": 100}),
        run(evaluation={"maxRecords": 10}),
        run(serving={"mode": "none"}),
    ]
    assert re.fullmatch("support-ja-[0-9a-f]{10}", run())
    assert len({run(), run(), *changed}) == 5


def test_answers_are_found_again_only_for_the_same_model_settings_and_records() -> None:
    ids = {
        answers_id(model=model, inference={"maxTokens": tokens}, test_records=records)
        for model in ("a", "b")
        for tokens in (1, 2)
        for records in ("x", "y")
    }
    assert len(ids) == 8


def test_values_that_json_cannot_hold_have_no_digest() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(float("nan"))


@given(stage=STAGES, deployment=HEX_8, training=HEX_10, number=st.integers(1, 9999))
def test_bedrock_takes_every_job_name_as_the_name_of_job_model_and_token(
    stage: str, deployment: str, training: str, number: int
) -> None:
    name = job_name(f"{stage}-{deployment}-", training, number)
    assert accepts("JobName", name)
    assert accepts("CustomModelName", name)
    assert accepts("IdempotencyToken", name)


@given(stage=STAGES, deployment=HEX_8, dataset=DATASETS, unique=HEX_10, attempt=st.integers(1, 999))
def test_bedrock_takes_every_serving_name_and_the_unique_part_of_the_run_survives(
    stage: str, deployment: str, dataset: str, unique: str, attempt: int
) -> None:
    name = serving_name(f"{stage}-{deployment}-", f"{dataset}-{unique}", attempt)
    assert accepts("ModelDeploymentName", name)
    assert accepts("ProvisionedModelName", name)
    assert accepts("IdempotencyToken", f"{name[:50]}1")
    assert name.startswith(f"{stage}-{deployment}-")
    assert name.endswith(f"-{unique}" if attempt == 1 else f"-{unique}-{attempt}")


@given(stage=STAGES, deployment=HEX_8, dataset=DATASETS)
def test_ssm_takes_every_parameter_name(stage: str, deployment: str, dataset: str) -> None:
    # AWS Systems Manager, PutParameter: 1,011 characters of these, and not the prefixes aws and ssm.
    name = parameter_name(stage, deployment, dataset)
    assert re.fullmatch(r"(/[a-zA-Z0-9_.-]+){1,15}", name)
    assert name == f"/{stage}/{deployment}/datasets/{dataset}/model"


@given(stage=STAGES, deployment=HEX_8, dataset=DATASETS, unique=HEX_10)
def test_bedrock_takes_every_tag(stage: str, deployment: str, dataset: str, unique: str) -> None:
    tags = resource_tags(stage, deployment, f"{dataset}-{unique}", dataset)
    assert tags == {"deployment": deployment, "stage": stage, "run": f"{dataset}-{unique}", "dataset": dataset}
    assert all(accepts("TagKey", key) and accepts("TagValue", value) for key, value in tags.items())


def test_the_tags_of_a_request_never_replace_those_by_which_a_deployment_knows_its_own() -> None:
    tags = resource_tags("dev", "01234567", "a-0", "a", {"team": "ml", "deployment": "ffffffff"})
    assert tags["team"] == "ml"
    assert tags["deployment"] == "01234567"


def test_a_name_that_bedrock_would_refuse_for_its_length_is_never_made() -> None:
    with pytest.raises(ValueError, match="shorten the stage"):
        job_name("a" * 50 + "-01234567-", "0123456789", 1)


def test_a_token_repeats_for_the_same_call_and_differs_for_another() -> None:
    assert request_token("job", 1) == request_token("job", 1) != request_token("job", 2)
    assert accepts("IdempotencyToken", request_token("a/b c", 1))
