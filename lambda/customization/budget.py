"""The month's budget: each run reserves its estimate before it spends and gives back the rest."""

import math
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from customization import leases, notices
from customization.answering import tokens_asked_for
from customization.errors import BudgetExceeded
from customization.evaluation import BASE, CUSTOM, IN_USE
from customization.gateway.bedrock import PROVISIONED
from customization.gateway.tables import Attr
from customization.json_types import Json, JsonObject
from customization.links import Links
from customization.model_in_use import read_served
from customization.money import PROVISIONED_THROUGHPUT, Estimate, Usage, check_budget, estimate, load_prices
from customization.prepared import read_profile, usage_of
from customization.runs import RUNNING, Call, Plan, note

if TYPE_CHECKING:
    from customization.gateway import Gateway
    from customization.leases import Lease


_MONTH = "month#"
_SETTLED = "settled"


def month_key(call: Call) -> str:
    """Return the key of the month's row in the table of runs."""
    return f"{_MONTH}{call.now:%Y-%m}"


def _reservation(run_id: str, attempt: int) -> str:
    return f"reserved#{run_id}#{attempt}"


def _settlement(run_id: str, attempt: int) -> str:
    return f"spent#{run_id}#{attempt}"


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def read_estimate(gateway: "Gateway", plan: Plan) -> Estimate:
    """Return what PrepareDataset estimated."""
    return gateway.artifacts.decoded(f"{plan.prefix}estimate.json", Estimate)


def reserve(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Reserve the estimate against the month, once an attempt, and return the {subject, message} of the start.

    The check and the reservation are one conditional write, so that many runs at once cannot overshoot together.

    Raises:
        BudgetExceeded: the run's or the month's budget is too small, or an item without a price was not accepted.
    """
    estimated = read_estimate(gateway, plan)
    check_budget(estimated, plan.budget_usd, plan.accept_unknown_prices)
    profile = read_profile(gateway, plan)
    expected: JsonObject = msgspec.json.decode(msgspec.json.encode(usage_of(plan, profile)))
    hourly = sum(item.usd or 0.0 for item in estimated.items if item.name == PROVISIONED_THROUGHPUT)
    costs: JsonObject = {"estimatedUsd": estimated.known_usd, "servingUsd": hourly, "usage": expected}
    note(gateway, call, {"month": month_key(call), "reservedUsd": estimated.known_usd, **costs})
    _commit(gateway, month_key(call), plan.run_id, call.attempt, estimated.known_usd)
    defaults = gateway.settings.defaults
    return notices.started(
        plan,
        profile,
        estimated,
        attempt=call.attempt,
        job_hours=(defaults.job_start_hours, defaults.job_end_hours),
        links=Links.of(gateway.settings),
    ).payload()


def _commit(gateway: "Gateway", month: str, run_id: str, attempt: int, usd: float) -> None:
    """Reserve `usd` for an attempt that has reserved nothing, or in the place of what it was settled with."""
    monthly = gateway.settings.defaults.monthly_budget_usd
    reserved_under, settled_under = _reservation(run_id, attempt), _settlement(run_id, attempt)
    known = gateway.runs.get(month) or {}
    before = _number(known.get(settled_under))
    is_settled = Attr(reserved_under).eq(_SETTLED) & Attr(settled_under).eq(before)
    has_room = Attr("committedUsd").not_exists() | Attr("committedUsd").lte(monthly - usd + before)
    if usd - before <= monthly and gateway.runs.update(
        month,
        {reserved_under: usd},
        add={"committedUsd": usd - before},
        condition=(Attr(reserved_under).not_exists() | is_settled) & has_room,
    ):
        return
    known = gateway.runs.get(month) or {}
    if known.get(reserved_under) not in {None, _SETTLED}:
        return
    if _number(known.get(settled_under)) != before:
        _commit(gateway, month, run_id, attempt, usd)
        return
    raise BudgetExceeded.of(
        "budget.monthExceeded",
        needed=f"{usd - before:.2f}",
        committed=f"{_number(known.get('committedUsd')):.2f}",
        budget=f"{monthly:.2f}",
        month=month.removeprefix(_MONTH),
    )


def renew(gateway: "Gateway", plan: Plan, call: Call) -> None:
    """Reserve again what was given back: the execution had died and somebody has redriven it.

    A run counts in the month in which it reserved first.

    Raises:
        BudgetExceeded: the month's budget has no room for it any more.
    """
    row = gateway.runs.get(plan.run_id) or {}
    month = str(row.get("month") or "")
    if month and (gateway.runs.get(month) or {}).get(_reservation(plan.run_id, call.attempt)) == _SETTLED:
        _commit(gateway, month, plan.run_id, call.attempt, _number(row["reservedUsd"]))


def reserve_hours(gateway: "Gateway", plan: Plan, call: Call, hourly_usd: float, most: int) -> int:
    """Reserve hours of what serves the run's model, as many as both budgets leave up to `most`, and return them.

    The estimate has one at least. What is reserved beyond it goes back when the run is settled.
    """
    renew(gateway, plan, call)
    row = gateway.runs.get(plan.run_id) or {}
    month, reserved_under = str(row["month"]), _reservation(plan.run_id, call.attempt)
    known = gateway.runs.get(month) or {}
    monthly = gateway.settings.defaults.monthly_budget_usd
    reserved, committed = _number(known.get(reserved_under)), _number(known.get("committedUsd"))
    beside = _number(row.get("estimatedUsd")) - _number(row.get("servingUsd"))
    left = min(plan.budget_usd, reserved + max(0.0, monthly - committed)) - beside
    for hours in range(min(most, math.floor(round(left / hourly_usd, 6))), 1, -1):
        usd = max(reserved, round(beside + hours * hourly_usd, 6))
        # Where this does not hold, another run has taken the room meanwhile
        if usd == reserved or gateway.runs.update(
            month,
            {reserved_under: usd},
            add={"committedUsd": usd - reserved},
            condition=Attr(reserved_under).eq(reserved) & Attr("committedUsd").lte(round(monthly - usd + reserved, 6)),
        ):
            note(gateway, call, {"reservedUsd": usd})
            return hours
    return 1


def used(gateway: "Gateway", row: JsonObject, expected: Usage, now: datetime) -> Usage:
    """Return what the run of `row` has used up to `now`, where it is known beforehand as `expected`.

    Training counts whole once Bedrock has begun it, since a stopped job bills too and does not say how much; that of an
    adopted job was another run's. Serving counts up to the end of the time for which it is kept.
    """
    held = [lease for lease in leases.of_run(gateway, str(row["runId"])) if lease.execution_arn == row["executionArn"]]
    in_use = read_served(row.get("modelInUse"))
    models = sum(1 for lease in held if lease.kind == leases.MODEL and lease.state == "OPEN")
    return msgspec.structs.replace(
        expected,
        training=tuple(usage for stage, usage in enumerate(expected.training) if _has_trained(gateway, row, stage)),
        baseline=tokens_asked_for(row, BASE),
        custom=tokens_asked_for(row, CUSTOM),
        in_use=tokens_asked_for(row, IN_USE),
        in_use_model=in_use.billed_model if in_use else "",
        serving_hours=sum(lease.hours(now) for lease in held if lease.kind == PROVISIONED),
        stored_models=min(models, sum(1 for stage in range(len(expected.training)) if row.get(f"modelArn{stage}"))),
    )


def settle_release(gateway: "Gateway", lease: "Lease", now: datetime) -> None:
    """Settle anew what the run of a lease has spent, which is over and was reckoned with hours that now are known."""
    row = (gateway.runs.get(lease.run_id) if lease.run_id else None) or {}
    if lease.kind == PROVISIONED and row.get("executionArn") == lease.execution_arn and row.get("state") != RUNNING:
        give_back(gateway, lease.run_id, int(str(row["attempt"])), now)


def _has_trained(gateway: "Gateway", row: JsonObject, stage: int) -> bool:
    name = row.get(f"jobName{stage}")
    job = gateway.bedrock.job(str(name)) if name and not row.get(f"jobAdopted{stage}") else None
    return job is not None and job.has_started


def give_back(gateway: "Gateway", run_id: str, attempt: int, now: datetime) -> None:
    """Replace the reservation of an attempt by what it has spent up to `now`, which the run's row tells as spentUsd.

    Doing so twice changes nothing, and an execution that was redriven after that tells anew what it spent. An attempt
    that another one has replaced is settled by `settle_replaced`.
    """
    row = gateway.runs.get(run_id) or {}
    month = str(row.get("month") or "")
    if not month or row.get("attempt") != attempt or not row.get("usage"):
        return
    spent = _spent(gateway, row, now)
    # The run's row goes last: a run without spentUsd is settled again, by the sweeper
    if _settle(gateway, month, run_id, attempt, spent):
        gateway.runs.update(run_id, {"spentUsd": spent}, condition=Attr("attempt").eq(attempt))


def settle_replaced(gateway: "Gateway", row: JsonObject, now: datetime) -> None:
    """Settle the attempt of `row`, which another one has replaced, once nothing of it bills by the hour any more."""
    run_id, attempt = str(row["replacedOf"]), int(str(row["attempt"]))
    own = {**row, "runId": run_id}
    held = [lease for lease in leases.of_run(gateway, run_id) if lease.execution_arn == row["executionArn"]]
    if any(lease.kind == PROVISIONED and lease.state == "OPEN" for lease in held):
        return
    # The notice of its end, where there is one, has to be told before
    if _settle(gateway, str(row["month"]), run_id, attempt, _spent(gateway, own, now)) and notices.UNTOLD not in row:
        gateway.runs.delete(str(row["runId"]))


def _spent(gateway: "Gateway", row: JsonObject, now: datetime) -> float:
    return estimate(used(gateway, row, msgspec.convert(row["usage"], Usage), now), load_prices(), now).known_usd


def _settle(gateway: "Gateway", month: str, run_id: str, attempt: int, spent: float) -> bool:
    """Count `spent` for the attempt in its month; returns False where somebody else has settled it at the same time."""
    known = gateway.runs.get(month) or {}
    reserved_under, settled_under = _reservation(run_id, attempt), _settlement(run_id, attempt)
    counted_under = settled_under if known.get(reserved_under) == _SETTLED else reserved_under
    counted = _number(known.get(counted_under))
    if reserved_under not in known or (counted_under == settled_under and counted == spent):
        return True
    return gateway.runs.update(
        month,
        {reserved_under: _SETTLED, settled_under: spent},
        add={"committedUsd": spent - counted},
        condition=Attr(counted_under).eq(counted),
    )
