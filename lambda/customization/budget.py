"""The month's budget: each run reserves its estimate before it spends and gives back the rest."""

from typing import TYPE_CHECKING

import msgspec

from customization import notices
from customization.errors import BudgetExceeded
from customization.gateway.tables import Attr, number
from customization.json_types import JsonObject
from customization.links import Links
from customization.money import TRAINING, Estimate, check_budget
from customization.preparation import read_profile
from customization.runs import Call, Plan, note

if TYPE_CHECKING:
    from customization.gateway import Gateway


def month_key(call: Call) -> str:
    """Return the key of the month's row in the table of runs."""
    return f"month#{call.now:%Y-%m}"


def _reservation(run_id: str, attempt: int) -> str:
    return f"reserved#{run_id}#{attempt}"


def read_estimate(gateway: "Gateway", plan: Plan) -> Estimate:
    """Return what PrepareDataset estimated."""
    return msgspec.json.decode(gateway.artifacts.read(f"{plan.prefix}estimate.json"), type=Estimate)


def reserve(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Reserve the estimate against the month, once an attempt, and return the {subject, message} of the start.

    The check and the reservation are one conditional write, so that many runs at once cannot overshoot together.

    Raises:
        BudgetExceeded: the run's or the month's budget is too small, or an item without a price was not accepted.
    """
    estimate = read_estimate(gateway, plan)
    check_budget(estimate, plan.budget_usd, plan.accept_unknown_prices)
    monthly = gateway.settings.defaults.monthly_budget_usd
    reserved_under = _reservation(plan.run_id, call.attempt)
    has_room = Attr("committedUsd").not_exists() | Attr("committedUsd").lte(number(monthly - estimate.known_usd))
    note(
        gateway,
        call,
        {"month": month_key(call), "estimatedUsd": estimate.known_usd, "trainingUsd": _training_usd(estimate)},
    )
    if estimate.known_usd > monthly or not gateway.runs.update(
        month_key(call),
        {reserved_under: estimate.known_usd},
        add={"committedUsd": estimate.known_usd},
        condition=Attr(reserved_under).not_exists() & has_room,
    ):
        month = gateway.runs.get(month_key(call)) or {}
        if reserved_under not in month:
            raise BudgetExceeded(
                f"monthlyBudgetUsd: this run needs {estimate.known_usd:.2f} USD, and {month.get('committedUsd', 0)} of "
                f"{monthly:.2f} USD are spent or reserved in {call.now:%Y-%m}; wait for other runs to end, or raise "
                "monthlyBudgetUsd in cdk.json and deploy"
            )
    defaults = gateway.settings.defaults
    return notices.started(
        plan,
        read_profile(gateway, plan),
        estimate,
        attempt=call.attempt,
        job_hours=(defaults.job_start_hours, defaults.job_end_hours),
        links=Links.of(gateway.settings),
    ).payload()


def _training_usd(estimate: Estimate) -> float:
    return sum(item.usd or 0.0 for item in estimate.items if item.name == TRAINING)


def give_back(gateway: "Gateway", run_id: str, attempt: int, spent_usd: float | None = None) -> None:
    """Replace a run's reservation by what it spent; doing so twice changes nothing.

    Where `spent_usd` is not known, training counts as spent once a job was asked for, since a stopped job bills too.
    """
    row = gateway.runs.get(run_id) or {}
    if spent_usd is None:
        spent_usd = float(str(row.get("trainingUsd") or 0)) if row.get("jobName0") else 0.0
    month = str(row.get("month") or "")
    reserved_under = _reservation(run_id, attempt)
    reserved = (gateway.runs.get(month) or {}).get(reserved_under) if month else None
    if not isinstance(reserved, int | float) or isinstance(reserved, bool):
        return
    gateway.runs.update(
        month,
        {reserved_under: "settled"},
        add={"committedUsd": spent_usd - reserved},
        condition=Attr(reserved_under).eq(number(reserved)),
    )
