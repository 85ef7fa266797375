from datetime import date

import msgspec
import pytest

from customization.catalogue import BaseModel, Limits, load_catalogue
from customization.errors import InvalidRunRequest
from customization.formats import INPUT_ONLY, PROMPT_COMPLETION
from customization.texts import say

CATALOGUE = load_catalogue()
TODAY = date(2026, 11, 22)
TITAN_DAY = date(2025, 1, 18)
EXPRESS = CATALOGUE.find("amazon.titan-text-express-v1:0:8k")
NOVA_MICRO = "amazon.nova-micro-v1:0:128k"
HAIKU = CATALOGUE.find("anthropic.claude-3-haiku-20240307-v1:0:200k")


@pytest.mark.parametrize("model", CATALOGUE.text_models(), ids=lambda model: model.name)
class TestEveryTextModel:
    def test_can_be_rehearsed_on_the_day_for_which_a_source_shows_it_offered(self, model: BaseModel) -> None:
        assert model.state_on(model.lifecycle.offered_as_of) == "ACTIVE"
        assert model.lifecycle.offered_source

    def test_has_hyperparameters_limits_and_a_format_for_each_type_that_the_pipeline_runs(
        self, model: BaseModel
    ) -> None:
        for kind in model.supported_types:
            assert model.hyper_parameters[kind]
            assert kind in model.limits
            assert kind in model.training_format

    def test_can_be_served_in_some_way(self, model: BaseModel) -> None:
        assert model.serving.provisioned_throughput or model.serving.on_demand_regions

    def test_has_defaults_within_its_ranges_and_usual_ranges_within_those(self, model: BaseModel) -> None:
        for parameter in (parameter for kind in model.supported_types for parameter in model.hyper_parameters[kind]):
            inside = [parameter.default, parameter.usual_minimum, parameter.usual_maximum]
            for value in (value for value in inside if value is not None):
                assert parameter.minimum is None or value >= parameter.minimum
                assert parameter.maximum is None or value <= parameter.maximum

    def test_is_asked_the_way_it_was_trained(self, model: BaseModel) -> None:
        plain = {PROMPT_COMPLETION, INPUT_ONLY}
        assert (model.ask_by != "converse") == (set(model.training_format.values()) <= plain)

    def test_is_asked_by_another_id_than_it_is_customized_by(self, model: BaseModel) -> None:
        assert model.inference_model_id != model.base_model_identifier

    def test_that_is_retired_today_has_a_nearest_model_that_is_offered(self, model: BaseModel) -> None:
        nearest = CATALOGUE.nearest_offered(model, TODAY, model.customization_regions[0])
        assert nearest is not None
        assert nearest.state_on(TODAY) == "ACTIVE"
        assert nearest != model


def test_titan_text_command_and_llama_2_are_offered_on_the_day_of_the_tutorial_and_gone_today() -> None:
    names = ("Titan Text", "Command", "Llama 2 ")
    models = [model for model in CATALOGUE.text_models() if model.name.startswith(names)]
    assert {model.state_on(TITAN_DAY) for model in models} == {"ACTIVE"}
    assert {model.state_on(TODAY) for model in models} == {"ENDED"}


def test_today_only_the_nova_models_take_new_jobs() -> None:
    active = {model.name for model in CATALOGUE.text_models() if model.state_on(TODAY) == "ACTIVE"}
    assert active == {"Nova Micro", "Nova Lite", "Nova Pro", "Nova 2 Lite"}


@pytest.mark.parametrize(
    ("day", "state"),
    [
        (date(2024, 3, 12), "NOT_YET"),
        (date(2024, 3, 13), "ACTIVE"),
        (date(2026, 3, 9), "ACTIVE"),
        (date(2026, 3, 10), "LEGACY"),
        (date(2026, 9, 9), "LEGACY"),
        (date(2026, 9, 10), "ENDED"),
    ],
)
def test_published_dates_decide_the_state(day: date, state: str) -> None:
    assert HAIKU.state_on(day) == state


def test_a_model_that_ended_without_a_date_counts_as_ended_from_the_day_after_it_was_last_seen() -> None:
    assert EXPRESS.state_on(date(2025, 1, 19)) == "ENDED"


def test_a_legacy_model_without_a_legacy_date_takes_no_jobs_once_no_source_shows_it_offered() -> None:
    llama = CATALOGUE.find("meta.llama3-3-70b-instruct-v1:0:128k")
    assert [llama.state_on(day) for day in (date(2026, 8, 2), TODAY, date(2027, 3, 30))] == [
        "LEGACY",
        "LEGACY",
        "ENDED",
    ]


def told(model: BaseModel, day: date) -> list[str]:
    return [say(sentence, "en") for sentence in model.describe_lifecycle(day)]


def test_an_end_without_a_date_is_told_as_such() -> None:
    assert told(EXPRESS, TODAY)[0] == "Titan Text G1 - Express is no longer offered."
    assert told(EXPRESS, TODAY)[-1].startswith("AWS publishes no date")


def test_a_published_end_is_told_in_the_tense_of_the_day() -> None:
    assert told(HAIKU, date(2026, 4, 1))[-1].startswith("Its end of life is 2026-09-10")
    assert told(HAIKU, TODAY)[-1].startswith("Its end of life was 2026-09-10")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("amazon.nova-micro-v1:0", "amazon.nova-micro-v1:0:128k"),
        ("Nova Pro", "amazon.nova-pro-v1:0:300k"),
        ("amazon.titan-text-expres-v1", "amazon.titan-text-express-v1:0:8k"),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0:300k"),
    ],
)
def test_an_id_that_is_nearly_right_is_refused_with_the_one_that_is_meant(written: str, meant: str) -> None:
    with pytest.raises(InvalidRunRequest, match=f"did you mean {meant}") as refused:
        CATALOGUE.find(written)
    assert written in str(refused.value)


def test_an_id_like_no_other_is_refused_with_all_that_there_are() -> None:
    with pytest.raises(InvalidRunRequest) as refused:
        CATALOGUE.find("zzz")
    assert all(model.base_model_identifier in str(refused.value) for model in CATALOGUE.text_models())


def test_image_and_reinforcement_models_are_listed_but_none_of_their_types_is_run() -> None:
    for identifier in ("amazon.nova-canvas-v1:0", "amazon.titan-embed-image-v1:0", "openai.gpt-oss-20b"):
        assert CATALOGUE.find(identifier).supported_types == ()


def test_the_nearest_model_keeps_the_size() -> None:
    lite = CATALOGUE.find("amazon.titan-text-lite-v1:0:4k")
    llama = CATALOGUE.find("meta.llama2-70b-v1:0:4k")
    nearest = [CATALOGUE.nearest_offered(model, TODAY, "us-east-1") for model in (lite, llama)]
    assert [model.name for model in nearest if model] == ["Nova Micro", "Nova Pro"]


def test_the_nearest_model_is_one_of_the_same_region_where_there_is_one() -> None:
    day = date(2025, 6, 1)
    in_the_region = CATALOGUE.nearest_offered(EXPRESS, day, "us-west-2")
    assert in_the_region is not None
    assert "us-west-2" in in_the_region.customization_regions
    assert CATALOGUE.nearest_offered(HAIKU, TODAY, "us-west-2") == CATALOGUE.find(NOVA_MICRO)


def test_where_no_model_is_offered_there_is_no_nearest() -> None:
    gone = tuple(model for model in CATALOGUE.models if model.state_on(TODAY) == "ENDED")
    ended = msgspec.structs.replace(CATALOGUE, models=gone)
    assert ended.nearest_offered(EXPRESS, TODAY, "us-east-1") is None


def test_a_larger_batch_shortens_the_records_of_titan_text() -> None:
    limits = EXPRESS.limits["FINE_TUNING"]
    assert [limits.tokens_per_record(batch) for batch in (1, 2, 4, 8)] == [4096, 2048, 2048, 2048]


def test_a_model_without_published_token_limit_has_none() -> None:
    assert Limits().tokens_per_record(1) is None
    assert Limits().tokens_per_record() is None


def test_an_on_demand_deployment_takes_only_models_customized_since_it_exists() -> None:
    micro = CATALOGUE.find("amazon.nova-micro-v1:0:128k")
    assert not micro.serves_on_demand("us-east-1", date(2025, 7, 15))
    assert micro.serves_on_demand("us-east-1", date(2025, 7, 16))
    assert not micro.serves_on_demand("us-west-2", TODAY)
    assert not EXPRESS.serves_on_demand("us-east-1", TODAY)
