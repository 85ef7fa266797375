import re
from collections.abc import Collection
from datetime import date

import pytest

from customization.catalogue import BaseModel, HyperParameter, load_catalogue
from customization.errors import InvalidRunRequest
from customization.json_types import Json
from customization.request import parse_request
from customization.resolution import ResolvedRequest, resolve
from customization.settings import Defaults
from customization.texts import LANGUAGES

CATALOGUE = load_catalogue()
TODAY = date(2026, 11, 22)
TITAN_DAY = date(2025, 1, 18)
MICRO = "amazon.nova-micro-v1:0:128k"
EXPRESS = "amazon.titan-text-express-v1:0:8k"
LLAMA_33 = "meta.llama3-3-70b-instruct-v1:0:128k"
TRAIN = ("train.jsonl",)
PRETRAIN = ("pretrain.jsonl",)
DEFAULTS = Defaults(
    base_model_identifier=MICRO,
    budget_usd=20,
    monthly_budget_usd=200,
    settle_seconds=60,
    job_start_hours=24,
    job_end_hours=96,
    language="en",
)


def resolved(
    model: str = MICRO,
    files: Collection[str] = TRAIN,
    *,
    region: str = "us-east-1",
    today: date = TODAY,
    **fields: Json,
) -> ResolvedRequest:
    request = parse_request({"dataset": "support-ja", "baseModelIdentifier": model, **fields}, DEFAULTS)
    return resolve(request, files=files, catalogue=CATALOGUE, region=region, today=today)


def refused(
    model: str = MICRO,
    files: Collection[str] = TRAIN,
    *,
    region: str = "us-east-1",
    today: date = TODAY,
    **fields: Json,
) -> str:
    with pytest.raises(InvalidRunRequest) as refusal:
        resolved(model, files, region=region, today=today, **fields)
    return str(refusal.value)


@pytest.mark.parametrize("model", CATALOGUE.text_models(), ids=lambda model: model.name)
def test_every_text_model_resolves_with_its_defaults_on_a_day_on_which_it_is_offered(model: BaseModel) -> None:
    for region in model.customization_regions:
        day = model.lifecycle.offered_as_of
        result = resolved(model.base_model_identifier, region=region, today=day)
        assert [stage.customization_type for stage in result.stages] == ["FINE_TUNING"]
        assert result.serving_mode in {"on-demand", "provisioned"}
        assert result.warnings == ()


def test_a_retired_model_still_resolves_because_bedrock_itself_is_asked_later() -> None:
    assert resolved(EXPRESS, today=TODAY).model.name == "Titan Text G1 - Express"


def test_the_files_decide_what_is_trained_and_pre_training_comes_first() -> None:
    stages = resolved(EXPRESS, (*TRAIN, *PRETRAIN), today=TITAN_DAY).stages
    assert [(stage.customization_type, stage.training_file) for stage in stages] == [
        ("CONTINUED_PRE_TRAINING", "pretrain.jsonl"),
        ("FINE_TUNING", "train.jsonl"),
    ]


def test_a_named_customization_type_leaves_the_other_file_alone() -> None:
    stages = resolved(EXPRESS, (*TRAIN, *PRETRAIN), customizationType="FINE_TUNING").stages
    assert [stage.customization_type for stage in stages] == ["FINE_TUNING"]


def test_a_named_customization_type_without_its_file_is_refused_naming_the_file() -> None:
    message = refused(EXPRESS, TRAIN, customizationType="CONTINUED_PRE_TRAINING")
    assert "trains on pretrain.jsonl, but incoming/support-ja/ holds train.jsonl" in message


@pytest.mark.parametrize("files", [(), ("test.jsonl",)])
def test_a_folder_without_training_data_is_refused_naming_what_is_expected(files: Collection[str]) -> None:
    assert "expected train.jsonl for fine-tuning or pretrain.jsonl" in refused(files=files)


def test_a_file_that_is_expected_and_missing_is_refused_naming_it_and_where_it_should_be() -> None:
    expected: Json = ["train.jsonl", "test.jsonl", "validation.jsonl"]
    assert resolved(files=("train.jsonl", "test.jsonl", "validation.jsonl"), expect=expected).stages
    here = refused(expect=expected)
    assert "expect: incoming/support-ja/ lacks test.jsonl, validation.jsonl; upload what is missing, or take" in here
    earlier = refused(expect=expected, data="support-ja-0123456789")
    assert "expect: the files of run support-ja-0123456789 lack test.jsonl, validation.jsonl; take it out" in earlier


def test_a_type_that_the_model_lacks_is_refused_naming_those_that_have_it() -> None:
    assert f"choose amazon.titan-text-lite-v1:0:4k or {EXPRESS}" in refused(files=PRETRAIN, today=TITAN_DAY)


def test_a_type_that_only_retired_models_have_is_refused_saying_so() -> None:
    message = refused(files=(*TRAIN, *PRETRAIN))
    assert "no model that would do takes new jobs today" in message
    assert EXPRESS in message
    assert "use customizationType FINE_TUNING with train.jsonl" in message


def test_a_region_without_the_model_is_refused_naming_its_regions_and_the_models_that_are_there() -> None:
    message = refused(LLAMA_33, today=TITAN_DAY)
    assert "only in us-west-2: deploy there; in us-east-1 choose amazon.nova-micro-v1:0:128k" in message


@pytest.mark.parametrize("model", ["amazon.nova-canvas-v1:0", "openai.gpt-oss-20b"])
def test_a_model_of_another_kind_is_refused_by_name_with_those_that_are_run(model: str) -> None:
    message = refused(model)
    assert model in message
    assert "which this pipeline does not run; choose amazon.nova-micro-v1:0:128k or" in message


def test_an_unknown_model_is_refused_with_the_one_that_is_meant() -> None:
    assert f"did you mean {MICRO}?" in refused("amazon.nova-micro-v1:0")


def test_hyperparameters_are_filled_from_the_catalogue_as_text() -> None:
    (stage,) = resolved(hyperParameters={"epochCount": 3}).stages
    assert stage.hyper_parameters == {"epochCount": "3", "learningRate": "0.00001", "learningRateWarmupSteps": "10"}
    assert stage.batch_size is None


def test_the_batch_size_is_known_where_the_model_has_one() -> None:
    (stage,) = resolved(EXPRESS, hyperParameters={"batchSize": 8}).stages
    assert stage.batch_size == 8


def test_each_stage_gets_its_own_hyperparameters() -> None:
    keyed: Json = {"CONTINUED_PRE_TRAINING": {"epochCount": 1}, "FINE_TUNING": {"epochCount": 4}}
    stages = resolved(EXPRESS, (*TRAIN, *PRETRAIN), hyperParameters=keyed).stages
    assert [stage.hyper_parameters["epochCount"] for stage in stages] == ["1", "4"]


def test_hyperparameters_of_a_stage_that_does_not_run_are_refused() -> None:
    message = refused(hyperParameters={"CONTINUED_PRE_TRAINING": {"epochCount": 1}})
    assert "hyperParameters.CONTINUED_PRE_TRAINING: this run has no such stage; expected FINE_TUNING" in message


def test_every_bad_hyperparameter_is_named_with_what_the_model_takes() -> None:
    message = refused(hyperParameters={"epochCount": 6, "learningRate": 1, "epochs": 2, "learningRateWarmupSteps": 1.5})
    assert "hyperParameters.epochCount: found 6; Nova Micro takes 1 to 5" in message
    assert "hyperParameters.learningRate: found 1; Nova Micro takes 0.000001 to 0.0001" in message
    assert (
        "hyperParameters.epochs: Nova Micro has none of that name for FINE_TUNING; did you mean epochCount?" in message
    )
    assert "hyperParameters.learningRateWarmupSteps: found 1.5; expected a whole number" in message


@pytest.mark.parametrize("rate", [0.000001, 0.0001])
def test_the_ends_of_a_range_belong_to_it(rate: float) -> None:
    assert resolved(hyperParameters={"learningRate": rate}).warnings == ()


@pytest.mark.parametrize(
    ("name", "value"), [("epochCount", 10), ("batchSize", 1), ("learningRate", 0.5), ("learningRateWarmupSteps", 200)]
)
def test_a_value_that_is_allowed_but_unusual_passes_with_a_warning(name: str, value: float) -> None:
    (warning,) = resolved(EXPRESS, hyperParameters={name: value}).warnings
    assert warning.startswith(f"hyperParameters.{name}: ")
    assert "is usual" in warning


# What rarely needs leaving, whatever the model: where its own range is narrower, that range holds
USUAL = {
    "epochCount": (1, 5),
    "batchSize": (4, 32),
    "learningRate": (0.000001, 0.0001),
    "learningRateWarmupSteps": (0, 100),
}


def values_to_try(parameter: HyperParameter) -> list[float]:
    """Return the ends of both ranges and what lies beside the usual one, as far as the model takes it."""
    low, high = USUAL[parameter.name]
    beside = [low * 0.5, high * 2] if parameter.type == "float" else [low - 1, high + 1]
    ends = [bound for bound in (parameter.minimum, parameter.maximum) if bound is not None]
    least = -1 if parameter.minimum is None else parameter.minimum
    most = 10**9 if parameter.maximum is None else parameter.maximum
    return [value for value in (low, high, *beside, *ends) if least <= value <= most]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("model", CATALOGUE.text_models(), ids=lambda model: model.name)
def test_every_model_warns_of_what_is_unusual_and_of_nothing_else_in_the_language_of_the_run(
    model: BaseModel, language: str
) -> None:
    told = {"en": "is unusual", "ja": "一般的な値ではありません"}[language]
    tried = 0
    for parameter in [known for known in model.hyper_parameters["FINE_TUNING"] if known.name in USUAL]:
        low, high = USUAL[parameter.name]
        has_one_value = parameter.minimum is not None and parameter.minimum == parameter.maximum
        for value in values_to_try(parameter):
            result = resolved(
                model.base_model_identifier,
                region=model.customization_regions[0],
                language=language,
                hyperParameters={parameter.name: value},
            )
            is_unusual = not low <= value <= high and not has_one_value
            assert any(told in warning for warning in result.warnings) == is_unusual, (parameter.name, value)
            tried += 1
    assert tried > 4


def test_refusals_and_warnings_are_in_the_language_of_the_run() -> None:
    parameters: Json = {"epochs": 1, "epochCount": 6}
    serving: Json = {"mode": "none", "keep": 4}
    message = refused(region="us-west-2", language="ja", hyperParameters=parameters, serving=serving)
    assert message.startswith("リクエストに誤りが 4 件あります:")
    assert not re.search(r"\b(expected|found|choose|upload|only)\b", message)
    warnings = resolved(language="ja", promote="if-better", subset={"records": 200}, serving={"modelUnits": 2}).warnings
    assert [warning.split(":")[0] for warning in warnings] == ["serving.modelUnits", "promote"]
    assert "昇格できません" in warnings[1]


def test_a_range_that_aws_does_not_publish_passes_with_a_warning() -> None:
    result = resolved("amazon.nova-2-lite-v1:0:256k", hyperParameters={"epochCount": 2})
    assert result.stages[0].hyper_parameters == {"epochCount": "2"}
    assert "AWS publishes no range for Nova 2 Lite" in result.warnings[0]


def test_what_aws_wants_left_out_with_validation_data_is_sent_only_when_asked_for() -> None:
    command = "cohere.command-text-v14:7:4k"
    assert "learningRate" not in resolved(command).stages[0].hyper_parameters
    asked = resolved(command, hyperParameters={"learningRate": 0.00001})
    assert asked.stages[0].hyper_parameters["learningRate"] == "0.00001"
    assert "leave it out when validation data is given" in asked.warnings[0]


def test_auto_serves_on_demand_where_model_region_and_date_allow_it() -> None:
    assert resolved().serving_mode == "on-demand"
    assert resolved(today=date(2025, 7, 15)).serving_mode == "provisioned"
    assert resolved(EXPRESS, today=TITAN_DAY).serving_mode == "provisioned"
    assert resolved(LLAMA_33, region="us-west-2").serving_mode == "on-demand"


@pytest.mark.parametrize(
    ("model", "mode", "expected"),
    [
        (EXPRESS, "on-demand", "Express has no on-demand deployment; expected provisioned or none"),
        (LLAMA_33, "provisioned", "Llama 3.3 70B Instruct has no provisioned throughput; expected on-demand or none"),
    ],
)
def test_a_way_of_serving_that_the_model_lacks_is_refused_naming_those_it_has(
    model: str, mode: str, expected: str
) -> None:
    assert expected in refused(model, region="us-west-2", serving={"mode": mode})


def test_a_model_customized_before_deployments_existed_is_refused_with_the_date() -> None:
    message = refused(LLAMA_33, region="us-west-2", today=TITAN_DAY)
    assert "only if customized from 2025-07-16 on; expected none" in message


def test_keeping_without_end_is_refused_where_every_hour_is_billed() -> None:
    assert "serving.keep: found true" in refused(EXPRESS, serving={"keep": True})
    assert resolved(serving={"keep": True}).request.serving.keep is True
    assert resolved(EXPRESS, serving={"keep": 4}).request.serving.keep == 4


def test_keeping_what_is_not_served_is_refused() -> None:
    assert "serving.keep: mode none serves nothing to keep" in refused(serving={"mode": "none", "keep": 4})


def test_model_units_without_a_throughput_are_told_to_have_no_effect() -> None:
    assert "serving.modelUnits" in resolved(serving={"modelUnits": 2}).warnings[0]


def test_pre_training_alone_without_test_records_is_not_served() -> None:
    assert resolved(EXPRESS, PRETRAIN).serving_mode == "none"
    assert resolved(EXPRESS, (*PRETRAIN, "test.jsonl")).serving_mode == "provisioned"


@pytest.mark.parametrize("serving", [{"mode": "provisioned"}, {"keep": 4}])
def test_serving_what_nothing_can_be_asked_is_refused_naming_the_missing_file(serving: Json) -> None:
    assert "upload test.jsonl" in refused(EXPRESS, PRETRAIN, serving=serving)


def test_a_run_on_a_subset_or_without_evaluation_is_never_promoted_and_says_so() -> None:
    assert resolved(promote="if-better").promote == "if-better"
    for result in (
        resolved(promote="if-better", subset={"records": 200}),
        resolved(promote="if-better", serving={"mode": "none"}),
        resolved(EXPRESS, PRETRAIN, promote="if-better"),
    ):
        assert result.promote == "never"
        assert any(warning.startswith("promote: ") for warning in result.warnings)


def test_problems_of_files_model_region_and_serving_are_reported_together() -> None:
    message = refused(
        MICRO,
        PRETRAIN,
        region="us-west-2",
        serving={"mode": "provisioned", "keep": True},
        hyperParameters={"epochs": 1},
    )
    assert message.startswith("The run request has 4 problems:")
