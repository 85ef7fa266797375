from datetime import UTC, date, datetime

import msgspec
import pytest

from customization.catalogue import load_catalogue
from customization.errors import BudgetExceeded
from customization.money import (
    ITEM_NAMES,
    AnswersUsage,
    Estimate,
    Price,
    PriceBook,
    PriceItem,
    TrainingUsage,
    Usage,
    check_budget,
    estimate,
    hourly_serving_usd,
    load_prices,
    settle,
)
from customization.texts import say

NOW = datetime(2026, 11, 22, tzinfo=UTC)
MODEL = "amazon.nova-2-lite-v1:0:256k"


def price(
    item: PriceItem, usd: float, *, model: str = "m", region: str = "us-east-1", dated: str = "2026-11-01"
) -> Price:
    return Price(model=model, item=item, usd=usd, unit="1K tokens", region=region, dated=dated, source="a test")


def usage(**changes: object) -> Usage:
    full = Usage(
        model="m",
        region="us-east-1",
        training=(TrainingUsage("FINE_TUNING", 10_000, 2),),
        baseline=AnswersUsage(3_000, 1_000),
        custom=AnswersUsage(3_000, 1_000),
        serving_mode="on-demand",
        stored_models=1,
    )
    return msgspec.structs.replace(full, **changes)


BOOK = PriceBook(
    (
        price("trainingTokens", 0.5),
        price("inputTokens", 0.1),
        price("outputTokens", 0.2),
        price("customInputTokens", 0.3),
        price("customOutputTokens", 0.4),
        price("provisionedThroughput", 7.0),
        price("storage", 1.95, model="*", region="*"),
    )
)


def amounts(estimated: Estimate) -> dict[tuple[str, str], float | None]:
    return {(item.name, item.part): item.usd for item in estimated.items}


def test_training_costs_its_tokens_in_every_epoch_and_answers_cost_by_the_token() -> None:
    estimated = estimate(usage(), BOOK, NOW)
    assert amounts(estimated) == {
        ("training", "FINE_TUNING"): 10.0,
        ("baselineAnswers", "input"): 0.3,
        ("baselineAnswers", "output"): 0.2,
        ("customAnswers", "input"): 0.9,
        ("customAnswers", "output"): 0.4,
        ("customModelStorage", ""): 1.95,
    }
    assert estimated.known_usd == pytest.approx(13.75)
    assert (estimated.unknown, estimated.warnings) == ((), ())


def test_a_provisioned_throughput_bills_units_by_the_hour_and_no_tokens() -> None:
    estimated = estimate(usage(serving_mode="provisioned", model_units=2, serving_hours=1.5), BOOK, NOW)
    assert amounts(estimated)["provisionedThroughput", "no commitment"] == 21.0
    assert not any(item.name == "customAnswers" for item in estimated.items)


def test_answers_of_the_model_in_use_are_lines_of_their_own_at_the_prices_of_its_own_base_model() -> None:
    book = PriceBook(
        (*BOOK.rows, price("customInputTokens", 5.0, model="n"), price("customOutputTokens", 6.0, model="n"))
    )
    asked = usage(in_use=AnswersUsage(2_000, 1_000), in_use_model="n")
    lines = {item.part: item.usd for item in estimate(asked, book, NOW).items if item.name == "customAnswers"}
    assert lines == {
        "input": pytest.approx(0.9),
        "output": pytest.approx(0.4),
        "model in use: input": pytest.approx(10.0),
        "model in use: output": pytest.approx(6.0),
    }
    assert estimate(usage(in_use=AnswersUsage(2_000, 1_000)), book, NOW) == estimate(usage(), book, NOW)


def test_each_stage_is_a_line_of_its_own() -> None:
    stages = (TrainingUsage("CONTINUED_PRE_TRAINING", 100_000, 1), TrainingUsage("FINE_TUNING", 10_000, 1))
    estimated = estimate(usage(training=stages, stored_models=2), BOOK, NOW)
    assert amounts(estimated)["training", "CONTINUED_PRE_TRAINING"] == 50.0
    assert amounts(estimated)["training", "FINE_TUNING"] == 5.0
    assert amounts(estimated)["customModelStorage", ""] == 3.9


def test_an_item_without_a_price_is_unknown_and_neither_zero_nor_in_the_sum() -> None:
    without = PriceBook(tuple(row for row in BOOK.rows if row.item != "trainingTokens"))
    estimated = estimate(usage(), without, NOW)
    assert amounts(estimated)["training", "FINE_TUNING"] is None
    assert estimated.unknown == ("training",)
    assert estimated.known_usd == pytest.approx(3.75)


def test_an_epoch_count_that_aws_chooses_leaves_the_training_unknown_though_its_price_is_known() -> None:
    estimated = estimate(usage(training=(TrainingUsage("FINE_TUNING", 10_000, None),)), BOOK, NOW)
    assert estimated.unknown == ("training",)


def test_a_price_of_another_region_is_never_taken() -> None:
    assert BOOK.find("m", "trainingTokens", "us-west-2", NOW.date()) is None


def test_a_fresher_row_replaces_the_bundled_one() -> None:
    fresh = PriceBook((*BOOK.rows, price("trainingTokens", 0.6, dated="2026-11-21")))
    assert amounts(estimate(usage(), fresh, NOW))["training", "FINE_TUNING"] == 12.0


def test_the_price_known_on_the_day_comes_before_one_that_came_later() -> None:
    book = PriceBook((price("storage", 1.0, dated="2024"), price("storage", 2.0, dated="2026-08")))
    found = [book.find("m", "storage", "us-east-1", day) for day in (date(2023, 1, 1), date(2025, 1, 18), NOW.date())]
    assert [row.usd for row in found if row] == [1.0, 1.0, 2.0]


def test_a_row_of_the_very_model_comes_before_a_fresher_one_for_all() -> None:
    book = PriceBook((*BOOK.rows, price("storage", 3.0, dated="2020")))
    row = book.find("m", "storage", "us-east-1", NOW.date())
    assert row is not None
    assert row.usd == 3.0


def test_a_price_older_than_90_days_warns_with_its_date_and_source() -> None:
    old = PriceBook((price("storage", 0.000035, dated="2026-08"),))
    (found,) = estimate(Usage(model="m", region="us-east-1", stored_models=1), old, NOW).warnings
    warning = say(found, "en")
    assert "2026-08" in warning
    assert "0.000035 USD" in warning
    assert "a test" in warning


def test_a_price_of_89_days_does_not_warn() -> None:
    recent = PriceBook((price("storage", 1.0, dated="2026-08-25"),))
    assert estimate(Usage(model="m", region="us-east-1", stored_models=1), recent, NOW).warnings == ()


def test_an_estimate_within_the_budget_passes() -> None:
    check_budget(estimate(usage(), BOOK, NOW), 13.75, [])


def test_an_estimate_above_the_budget_names_the_items_the_amounts_and_what_to_change() -> None:
    with pytest.raises(BudgetExceeded) as refused:
        check_budget(estimate(usage(), BOOK, NOW), 13.74, [])
    message = str(refused.value)
    assert "budgetUsd: found 13.74, the estimate is 13.75 USD (training 10.00, customModelStorage 1.95" in message
    assert "epochCount" in message


def test_unknown_items_are_refused_one_by_one_until_they_are_accepted_by_name() -> None:
    estimated = estimate(usage(serving_mode="provisioned", serving_hours=2), PriceBook(()), NOW)
    with pytest.raises(BudgetExceeded) as refused:
        check_budget(estimated, 20, ["training"])
    message = str(refused.value)
    assert "provisionedThroughput (2 x model unit hour)" in message
    assert "customModelStorage" in message
    assert "'training'" not in message
    check_budget(estimated, 20, ITEM_NAMES)


def test_accepting_an_item_does_not_lift_the_budget_of_what_is_known() -> None:
    with pytest.raises(BudgetExceeded, match="budgetUsd"):
        check_budget(estimate(usage(), BOOK, NOW), 1, ITEM_NAMES)


def test_settling_puts_estimate_and_use_side_by_side() -> None:
    estimated = estimate(usage(), BOOK, NOW)
    actual = estimate(usage(training=(TrainingUsage("FINE_TUNING", 8_000, 2),), custom=AnswersUsage()), BOOK, NOW)
    settled = {(item.name, item.part): item for item in settle(estimated, actual).items}
    assert (settled["training", "FINE_TUNING"].estimated_usd, settled["training", "FINE_TUNING"].actual_usd) == (10, 8)
    assert (settled["customAnswers", "input"].estimated_usd, settled["customAnswers", "input"].actual_usd) == (0.9, 0)


def test_what_was_used_at_an_unknown_price_stays_unknown_when_settled() -> None:
    actual = estimate(usage(), PriceBook(()), NOW)
    settlement = settle(estimate(usage(), BOOK, NOW), actual)
    assert "training" in settlement.unknown
    assert settlement.items[0].actual_usd is None


def test_an_estimate_survives_being_kept_as_json() -> None:
    estimated = estimate(usage(), BOOK, NOW)
    kept = msgspec.json.encode(estimated)
    assert msgspec.json.decode(kept, type=Estimate) == estimated
    assert b'"knownUsd"' in kept


def test_serving_costs_by_the_hour_only_where_units_are_provisioned() -> None:
    assert hourly_serving_usd(MODEL, "on-demand", 1, "us-east-1", NOW) == 0
    assert hourly_serving_usd(MODEL, "provisioned", 2, "us-east-1", NOW) == 121.0
    assert hourly_serving_usd("amazon.nova-pro-v1:0:300k", "provisioned", 1, "us-east-1", NOW) is None


def test_every_bundled_row_is_of_a_catalogued_model_has_a_source_and_a_date_before_its_catalogue() -> None:
    known = {model.base_model_identifier for model in load_catalogue().models} | {"*"}
    for row in load_prices().rows:
        assert row.model in known
        assert row.source
        assert row.usd > 0
        assert row.day <= NOW.date()


def test_what_no_source_prices_is_unknown_for_the_default_model() -> None:
    micro = usage(model="amazon.nova-micro-v1:0:128k")
    assert estimate(micro, load_prices(), NOW).unknown == ("customAnswers",)
