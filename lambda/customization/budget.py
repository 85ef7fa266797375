"""The month's budget: each run reserves its estimate before it spends and gives back the rest."""

from typing import TYPE_CHECKING

import msgspec

from customization import line, notices
from customization.errors import BudgetExceeded
from customization.gateway.tables import Attr
from customization.json_types import Json, JsonObject
from customization.links import Links
from customization.money import TRAINING, Estimate, check_budget
from customization.prepared import read_profile
from customization.runs import Call, Plan, note

if TYPE_CHECKING:
    from customization.gateway import Gateway


_SETTLED = "settled"


def month_key(call: Call) -> str:
    """Return the key of the month's row in the table of runs."""
    return f"month#{call.now:%Y-%m}"


def _reservation(run_id: str, attempt: int) -> str:
    return f"reserved#{run_id}#{attempt}"


def _settlement(run_id: str, attempt: int) -> str:
    return f"spent#{run_id}#{attempt}"


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


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
    has_room = Attr("committedUsd").not_exists() | Attr("committedUsd").lte(monthly - estimate.known_usd)
    note(
        gateway,
        call,
        {"month": month_key(call), "estimatedUsd": estimate.known_usd, "trainingUsd": _training_usd(estimate)},
    )
    before = _number((gateway.runs.get(month_key(call)) or {}).get(_settlement(plan.run_id, call.attempt)))
    if estimate.known_usd > monthly or not gateway.runs.update(
        month_key(call),
        {reserved_under: estimate.known_usd},
        add={"committedUsd": estimate.known_usd - before},
        condition=(Attr(reserved_under).not_exists() | Attr(reserved_under).eq(_SETTLED)) & has_room,
    ):
        month = gateway.runs.get(month_key(call)) or {}
        if month.get(reserved_under) in {None, _SETTLED}:
            raise _month_exceeded(call, estimate.known_usd, month.get("committedUsd", 0), monthly)
    defaults = gateway.settings.defaults
    return notices.started(
        plan,
        read_profile(gateway, plan),
        estimate,
        attempt=call.attempt,
        job_hours=(defaults.job_start_hours, defaults.job_end_hours),
        links=Links.of(gateway.settings),
    ).payload()


def _month_exceeded(call: Call, needed_usd: float, committed_usd: Json, monthly_usd: float) -> BudgetExceeded:
    return BudgetExceeded(
        f"monthlyBudgetUsd: this run needs {needed_usd:.2f} USD, and {committed_usd} of {monthly_usd:.2f} USD are "
        f"spent or reserved in {call.now:%Y-%m}; wait for other runs to end, or raise monthlyBudgetUsd in cdk.json and "
        "deploy"
    )


def renew(gateway: "Gateway", plan: Plan, call: Call) -> None:
    """Reserve the estimate again where it was given back: the execution had died and somebody has redriven it.

    Raises:
        BudgetExceeded: as `reserve` does.
    """
    month = str((gateway.runs.get(plan.run_id) or {}).get("month") or "")
    if month and (gateway.runs.get(month) or {}).get(_reservation(plan.run_id, call.attempt)) == _SETTLED:
        reserve(gateway, plan, call)


def _training_usd(estimate: Estimate) -> float:
    return sum(item.usd or 0.0 for item in estimate.items if item.name == TRAINING)


def give_back(gateway: "Gateway", run_id: str, attempt: int, spent_usd: float | None = None) -> None:
    """Replace a run's reservation by what it spent; doing so twice changes nothing.

    Where `spent_usd` is not known, training counts as spent once a job was asked for, since a stopped job bills too. An
    execution that was redriven after that may still tell what it spent.
    """
    row = gateway.runs.get(run_id) or {}
    month = str(row.get("month") or "")
    known = (gateway.runs.get(month) or {}) if month else {}
    reserved_under, settled_under = _reservation(run_id, attempt), _settlement(run_id, attempt)
    reserved = known.get(reserved_under)
    if reserved is None or (reserved == _SETTLED and spent_usd is None):
        return
    spent = _spent_so_far(row) if spent_usd is None else spent_usd
    counted_under = settled_under if reserved == _SETTLED else reserved_under
    counted = _number(known.get(counted_under))
    if counted_under == settled_under and counted == spent:
        return
    gateway.runs.update(
        month,
        {reserved_under: _SETTLED, settled_under: spent},
        add={"committedUsd": spent - counted},
        condition=Attr(counted_under).eq(counted),
    )


def _spent_so_far(row: JsonObject) -> float:
    waits_for_first_job = row.get("waitingFor") == line.JOB and not row.get("jobArn0")
    has_asked = bool(row.get("jobName0")) and not waits_for_first_job
    return float(str(row.get("trainingUsd") or 0)) if has_asked else 0.0
