"""What a deployment costs while nobody uses it stays small, and the README says it."""

from datetime import date
from pathlib import Path

import pytest

from customization import idle_cost
from customization.money import load_prices
from docs.render import costs

DOCUMENT = Path(__file__).parents[2] / "docs" / "cost.md"


@pytest.mark.parametrize("page", ["README.md", "README.ja.md"])
def test_the_readme_names_the_idle_cost_and_its_largest_items(page: str) -> None:
    [said] = [part for part in (DOCUMENT.parents[1] / page).read_text().split("\n- ") if "docs/cost.md" in part]
    today = costs.as_of().date()
    usd = {line.what: line.usd for line in idle_cost.idle_lines(costs.REGION, today) if line.usd and line.usd >= 1}
    assert f"{idle_cost.idle_cost(costs.REGION, today)[0]:.2f} USD" in said
    assert all(f" {amount:.2f}" in said for amount in usd.values())


def test_an_idle_deployment_costs_at_most_ten_dollars_a_month_with_every_price_known() -> None:
    usd, unknown = idle_cost.idle_cost(costs.REGION, costs.as_of().date())
    assert (0 < usd <= 10, unknown) == (True, 0)


def test_a_price_that_no_source_gives_for_the_region_is_unknown_and_not_taken_from_another() -> None:
    usd, unknown = idle_cost.idle_cost("ap-northeast-1", date(2026, 11, 22))
    assert usd < idle_cost.idle_cost(costs.REGION, date(2026, 11, 22))[0]
    assert unknown == sum(line.usd is None for line in idle_cost.idle_lines("ap-northeast-1", date(2026, 11, 22))) > 0


def test_every_item_of_the_idle_cost_is_one_of_the_price_table() -> None:
    assert {quantity.item for quantity in idle_cost.QUANTITIES} <= {row.item for row in load_prices().rows}
