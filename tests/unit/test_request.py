import json
import re
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customization import money, scoring
from customization.catalogue import SUPPORTED_TYPES
from customization.errors import InvalidRunRequest
from customization.json_types import Json, JsonObject, as_object
from customization.request import (
    CustomizationType,
    DataFile,
    Metric,
    RunRequest,
    UnknownPriceItem,
    parse_request,
    plain_number,
    run_request_schema,
)
from customization.settings import Defaults
from customization.uploads import DATA_FILES

DEFAULTS = Defaults(
    base_model_identifier="amazon.nova-micro-v1:0:128k",
    budget_usd=20,
    monthly_budget_usd=200,
    settle_seconds=60,
    job_start_hours=24,
    job_end_hours=96,
    language="ja",
)


def parsed(**fields: Json) -> RunRequest:
    return parse_request({"dataset": "support-ja", **fields}, DEFAULTS)


def refused(**fields: Json) -> str:
    """Return the refusal in English, unless the fields ask for another language than that of the deployment."""
    with pytest.raises(InvalidRunRequest) as refusal:
        parsed(**{"language": "en", **fields})
    return str(refusal.value)


def test_a_data_set_is_enough_and_cdk_json_decides_the_rest() -> None:
    request = parsed()
    assert (request.action, request.data, request.promote, request.keep_model) == (
        "run",
        "newest",
        "never",
        "if-better",
    )
    assert (request.base_model_identifier, request.budget_usd, request.language) == (
        "amazon.nova-micro-v1:0:128k",
        20,
        "ja",
    )
    assert request.serving.model_dump() == {"mode": "auto", "model_units": 1, "keep": False}
    assert request.inference.model_dump() == {
        "max_tokens": 256,
        "temperature": 0,
        "top_p": None,
        "stop_sequences": (),
        "system": "",
    }
    assert (request.evaluation.max_records, request.evaluation.minimum_gain) == (500, 0)


def test_what_the_request_says_comes_before_cdk_json() -> None:
    request = parsed(baseModelIdentifier="amazon.nova-pro-v1:0:300k", budgetUsd=3, language="en")
    assert (request.base_model_identifier, request.budget_usd, request.language) == (
        "amazon.nova-pro-v1:0:300k",
        3,
        "en",
    )


def test_a_request_without_data_set_is_told_what_to_name() -> None:
    with pytest.raises(InvalidRunRequest, match="dataset: missing; expected the name of a folder under incoming/"):
        parse_request({"language": "en"}, DEFAULTS)


@pytest.mark.parametrize(
    ("document", "kind"), [(None, "null"), (["You sell lamps"], "リスト"), ("You sell lamps", "文字列"), (3, "数値")]
)
def test_a_request_that_is_no_object_is_refused_with_the_kind_of_what_it_is(document: Json, kind: str) -> None:
    with pytest.raises(InvalidRunRequest) as refusal:
        parse_request(document, DEFAULTS)
    assert kind in str(refusal.value)
    assert "lamps" not in str(refusal.value)


def test_all_problems_are_reported_at_once_each_with_its_path() -> None:
    message = refused(servng={}, budgetUsd="20", serving={"mode": "ondemand", "modelUnits": 0}, promote="yes")
    assert message.splitlines()[0] == "The run request has 5 problems:"
    assert [line.split(":")[0] for line in message.splitlines()[1:]] == [
        "- budgetUsd",
        "- serving.mode",
        "- serving.modelUnits",
        "- promote",
        "- servng",
    ]


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({"basemodelIdentifier": "x"}, "baseModelIdentifier"),
        ({"serving": {"modelUnit": 1}}, "modelUnits"),
        ({"evaluation": {"maxrecords": 1}}, "maxRecords"),
        ({"inference": {"maxToken": 1}}, "maxTokens"),
        ({"subset": {"record": 1}}, "records"),
        ({"serving": {"mode": "on_demand"}}, "on-demand"),
        ({"acceptUnknownPrices": ["trainings"]}, "training"),
        ({"expect": ["train.json"]}, "train.jsonl"),
    ],
)
def test_a_near_miss_is_told_what_is_meant(fields: JsonObject, meant: str) -> None:
    assert f"did you mean {meant}?" in refused(**fields)


def test_a_field_like_no_other_is_told_which_there_are() -> None:
    message = refused(serving={"zzz": 1})
    assert "serving.zzz: unknown field; expected one of mode, modelUnits, keep" in message


def test_a_text_that_is_no_unicode_is_refused_as_such() -> None:
    assert "not Unicode" in refused(name="\ud800")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused(number: float) -> None:
    assert "- budgetUsd: " in refused(budgetUsd=number)


@pytest.mark.parametrize("field", ["commitmentDuration", "commitment"])
def test_a_commitment_is_refused_because_the_pipeline_never_buys_one(field: str) -> None:
    assert f"serving.{field}: this pipeline never buys a commitment" in refused(serving={field: "OneMonth"})


@given(st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,29}", fullmatch=True))
def test_a_data_set_may_be_named_in_lower_case_with_single_dashes(name: str) -> None:
    assert parse_request({"dataset": name}, DEFAULTS).dataset == name


@pytest.mark.parametrize("name", ["", "Support", "a--b", "-a", "a-", "a_b", "a/b", "a.b", "日本", "a" * 31, "a\n"])
def test_any_other_name_of_a_data_set_is_refused_with_an_example(name: str) -> None:
    assert "such as support-ja" in refused(dataset=name)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00001, "0.00001"), ("0.00001", "0.00001"), ("1e-5", "0.00001"), (8, "8"), (8.0, "8"), ("10", "10"), (0, "0")],
)
def test_a_hyperparameter_reaches_bedrock_as_a_plain_decimal(value: Json, text: str) -> None:
    assert parsed(hyperParameters={"learningRate": value}).hyper_parameters_of("FINE_TUNING") == {"learningRate": text}


@given(st.one_of(st.integers(-(10**9), 10**9), st.floats(1e-12, 1e9), st.just(0.0)))
def test_the_plain_decimal_of_a_number_is_that_number_without_exponent(value: float) -> None:
    text = plain_number(value)
    assert Decimal(text) == Decimal(str(value))
    assert "e" not in text.lower()


@pytest.mark.parametrize("value", [True, None, "two", [], {}, "NaN", "Infinity", "", "1e999999"])
def test_a_hyperparameter_that_is_no_number_is_refused_by_its_name(value: Json) -> None:
    message = refused(hyperParameters={"epochCount": 2, "learningRate": value})
    assert "- hyperParameters.learningRate: found " in message
    assert "epochCount" not in message


def test_hyperparameters_may_be_keyed_by_customization_type() -> None:
    request = parsed(hyperParameters={"FINE_TUNING": {"epochCount": 3}, "CONTINUED_PRE_TRAINING": {"epochCount": 1}})
    assert request.hyper_parameters_of("FINE_TUNING") == {"epochCount": "3"}
    assert request.hyper_parameters_of("CONTINUED_PRE_TRAINING") == {"epochCount": "1"}


@pytest.mark.parametrize("value", [{"FINE_TUNING": {"epochCount": 3}, "epochCount": 1}, {"FINE_TUNING": 3}])
def test_a_mixture_of_keyed_and_plain_hyperparameters_is_refused(value: JsonObject) -> None:
    assert "hyperParameters: expected hyperparameters, or an object for each of" in refused(hyperParameters=value)


@pytest.mark.parametrize("keep", [False, True, 4, 0.5, 720])
def test_serving_is_kept_for_hours_or_not_or_without_end(keep: Json) -> None:
    assert parsed(serving={"keep": keep}).serving.keep == keep


@pytest.mark.parametrize("keep", [0, -1, 721, "4", None])
def test_any_other_way_of_keeping_is_refused_in_one_line(keep: Json) -> None:
    assert refused(serving={"keep": keep}).count("serving.keep") == 1


@pytest.mark.parametrize("subset", [{}, {"records": 200, "share": 0.1}])
def test_a_subset_is_a_number_or_a_share(subset: JsonObject) -> None:
    assert "subset: expected one of records and share" in refused(subset=subset)


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1])
def test_a_share_lies_between_nothing_and_everything(share: Json) -> None:
    assert "subset.share" in refused(subset={"share": share})


def test_earlier_data_are_those_of_the_same_data_set() -> None:
    assert parsed(data="support-ja-0123456789").data == "support-ja-0123456789"
    assert "expected a run of dataset support-ja" in refused(data="other-0123456789")
    assert 'expected "newest" or a runId' in refused(data="latest")


def test_promoting_needs_the_run_whose_model_is_meant() -> None:
    assert "data: found" in refused(action="promote")


@pytest.mark.parametrize("tags", [{"run": "x"}, {"aws:x": "y"}, {"": "y"}, {"team": "é"}, {"k" * 129: ""}])
def test_tags_that_bedrock_or_the_sweeper_could_not_bear_are_refused(tags: JsonObject) -> None:
    assert f"- tags.{next(iter(tags))[:70]}" in refused(tags=tags)


def test_more_tags_than_bedrock_takes_beside_the_own_ones_are_refused() -> None:
    assert parsed(tags={str(number): "" for number in range(46)}).tags
    assert "tags: found 47; expected at most 46" in refused(tags={str(number): "" for number in range(47)})


WRONG_EVERYWHERE: JsonObject = {
    "dataset": "A",
    "name": "x" * 300,
    "expect": "a",
    "baseModelIdentifier": 1,
    "customizationType": "FINE_TUNINGS",
    "hyperParameters": {"epochCount": "two"},
    "subset": {"records": 0, "share": 2},
    "fieldMapping": {"question": "prompts", "answer": "x"},
    "stripRoleCues": 1,
    "budgetUsd": "x",
    "serving": 4,
    "inference": {"maxTokens": 1.5, "temperature": 3, "topP": 0, "stopSequences": [""], "system": 1},
    "evaluation": {"minimumGain": 1, "compareWith": "x", "maxRecord": 1},
    "tags": {"run": "x", "aws:a": "b", "é": ""},
    "commitmentDuration": "OneMonth",
}


@pytest.mark.parametrize(
    ("language", "foreign"), [("ja", r"[a-z]+ing\b|\b(expected|found|should|less|more)\b"), ("en", "[ぁ-ん]")]
)
def test_every_mistake_is_told_in_the_language_of_the_request(language: str, foreign: str) -> None:
    message = refused(**WRONG_EVERYWHERE, language=language)
    told = [line.removeprefix("- ").partition(": ") for line in message.splitlines()[1:]]
    assert len(told) == 25
    for path, _, text in told:
        assert "Input should" not in text, path
        assert not re.search(foreign, re.sub(r'"[^"]*"|\b[a-z]+[A-Z]\w+', "", text.split("。")[0])), (path, text)


@pytest.mark.parametrize(
    "asked",
    [
        {"inference": {"system": ["You sell lamps"]}},
        {"inference": {"system": {"text": "You sell lamps"}}},
        {"inference": {"stopSequences": {"text": "You sell lamps"}}},
        {"inference": {"stopSequences": "You sell lamps"}},
        {"inference": {"maxTokens": "You sell lamps"}},
        {"inference": ["You sell lamps"]},
        {"inference": "You sell lamps"},
        {"hyperParameters": ["You sell lamps"]},
        {"serving": {"keep": ["You sell lamps"]}},
    ],
)
def test_what_may_hold_a_prompt_is_told_by_its_kind_since_messages_are_logged(asked: JsonObject) -> None:
    message = refused(**asked)
    assert "lamps" not in message
    assert re.search("found (a list|an object|a string); expected", message)


def test_a_number_among_the_settings_of_inference_is_quoted() -> None:
    assert "inference.temperature: found 3; expected" in refused(inference={"temperature": 3})
    assert "inference.system: found 7; expected" in refused(inference={"system": 7})


def test_an_unknown_language_is_refused_in_that_of_the_deployment() -> None:
    assert "リクエストに誤りが 1 件あります" in refused(language="de")


def test_a_field_mapping_leads_to_keys_of_the_formats() -> None:
    assert parsed(fieldMapping={"question": "prompt", "answer": "completion"}).field_mapping["question"] == "prompt"
    assert 'fieldMapping.question: found "prompts"' in refused(fieldMapping={"question": "prompts"})
    assert "did you mean prompt?" in refused(fieldMapping={"question": "prompts"})


def test_a_long_value_is_quoted_in_short() -> None:
    message = refused(promote="x" * 1000)
    assert f'found "{"x" * 79}...; expected "never" or "if-better"' in message


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hyperParameters": {"FINE_TUNING": {"epochCount": 1}}, "serving": {"keep": True}, "subset": {"records": 3}},
        {
            "hyperParameters": {"epochCount": "2"},
            "serving": {"keep": 2.5},
            "expect": ["test.jsonl"],
            "tags": {"a": "b"},
        },
    ],
)
def test_a_request_survives_being_kept_as_json(fields: JsonObject) -> None:
    request = parsed(**fields)
    assert RunRequest.model_validate_json(request.model_dump_json(by_alias=True)) == request


def test_the_schema_names_every_field_as_people_write_it_and_requires_the_data_set_alone() -> None:
    schema = run_request_schema()
    assert schema["required"] == ["dataset"]
    assert schema["additionalProperties"] is False
    properties = as_object(schema["properties"], "properties")
    assert properties.keys() == json.loads(parsed().model_dump_json(by_alias=True)).keys()


def test_the_names_that_a_request_may_use_are_those_of_the_modules_that_serve_them() -> None:
    assert get_args(UnknownPriceItem) == money.ITEM_NAMES
    assert get_args(Metric) == scoring.METRICS
    assert get_args(CustomizationType) == SUPPORTED_TYPES
    assert get_args(DataFile) == DATA_FILES
