"""Runs reserve before they spend, so that many of them together stay within the month."""

from dataclasses import replace

import msgspec
import pytest

from customization import budget
from customization.errors import BudgetExceeded
from customization.money import TrainingUsage, Usage, estimate, load_prices
from customization.profile import Profile
from customization.runs import Call, Plan
from tests.unit.fakes import NOW, GatewayInMemory

NO_DATA = Profile(files=(), prepared={}, test_records=0, test_digest="", warnings=(), notes=())


def prepare(gateway: GatewayInMemory, plan: Plan, usd: float) -> None:
    """Write an estimate of so many US dollars for training."""
    usage = Usage(
        model=plan.base_model_identifier,
        region=plan.region,
        training=(TrainingUsage("FINE_TUNING", usd * 1000 / 0.001, 1.0),),
    )
    estimated = estimate(usage, load_prices(), NOW)
    assert estimated.known_usd == pytest.approx(usd)
    gateway.artifacts.put(f"{plan.prefix}estimate.json", msgspec.json.encode(estimated))
    gateway.artifacts.put(f"{plan.prefix}data/profile.json", msgspec.json.encode(NO_DATA))


def committed(gateway: GatewayInMemory) -> float:
    row = gateway.runs.get("month#2026-11") or {}
    return float(str(row.get("committedUsd", 0)))


def test_an_attempt_reserves_once_however_often_it_is_retried(claimed: GatewayInMemory, plan: Plan, call: Call) -> None:
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, plan, call)
    budget.reserve(claimed, plan, call)
    assert committed(claimed) == 12.5


def test_a_run_beyond_the_months_budget_is_refused_naming_it(claimed: GatewayInMemory, plan: Plan, call: Call) -> None:
    claimed.runs.put({"runId": "month#2026-11", "committedUsd": 190})
    prepare(claimed, plan, 12.5)
    with pytest.raises(BudgetExceeded, match=r"monthlyBudgetUsd: this run needs 12\.50 USD, and 190\.00 of 200\.00"):
        budget.reserve(claimed, plan, call)
    assert committed(claimed) == 190


def test_runs_one_after_the_other_cannot_overshoot_together(claimed: GatewayInMemory, plan: Plan, call: Call) -> None:
    refused = 0
    for number in range(15):
        own = replace(call, run_id=f"support-{number:010d}")
        its_plan = msgspec.structs.replace(plan, run_id=own.run_id)
        prepare(claimed, its_plan, 19)
        try:
            budget.reserve(claimed, its_plan, own)
        except BudgetExceeded:
            refused += 1
    assert committed(claimed) == 190
    assert refused == 5


def test_a_run_beyond_its_own_budget_is_refused(claimed: GatewayInMemory, plan: Plan, call: Call) -> None:
    prepare(claimed, plan, 25)
    with pytest.raises(BudgetExceeded, match="budgetUsd"):
        budget.reserve(claimed, plan, call)
    assert committed(claimed) == 0


def test_what_was_not_spent_is_given_back_once(claimed: GatewayInMemory, plan: Plan, call: Call) -> None:
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, plan, call)
    budget.give_back(claimed, call.run_id, 1, 4.25)
    budget.give_back(claimed, call.run_id, 1, 4.25)
    assert committed(claimed) == 4.25


def test_training_counts_as_spent_once_a_job_was_asked_for(claimed: GatewayInMemory, plan: Plan, call: Call) -> None:
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, plan, call)
    claimed.runs.update(call.run_id, {"jobName0": "dev-0a1b2c3d-aaaaaaaaaa-1"})
    budget.give_back(claimed, call.run_id, 1)
    assert committed(claimed) == 12.5


def test_the_start_is_told_with_its_cost(claimed: GatewayInMemory, plan: Plan, call: Call) -> None:
    prepare(claimed, plan, 12.5)
    told = budget.reserve(claimed, plan, call)
    assert told["subject"] == "Started: support-0123456789"
    assert "12.5000 USD" in str(told["message"])


def test_what_was_given_back_is_reserved_again_when_the_execution_goes_on(
    claimed: GatewayInMemory, plan: Plan, call: Call
) -> None:
    prepare(claimed, plan, 12.5)
    budget.renew(claimed, plan, call)
    assert committed(claimed) == 0
    budget.reserve(claimed, plan, call)
    budget.renew(claimed, plan, call)
    assert committed(claimed) == 12.5
    budget.give_back(claimed, call.run_id, 1)
    assert committed(claimed) == 0
    budget.renew(claimed, plan, call)
    budget.renew(claimed, plan, call)
    assert committed(claimed) == 12.5
