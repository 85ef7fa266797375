"""What stays after a run: the model in use for a data set, and what a request keeps. Everything else is released."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from customization import budget, leases
from customization.identity import serving_name
from customization.json_types import Json, JsonObject
from customization.leases import Lease, Release
from customization.model_in_use import (
    WITHOUT_END,
    ModelInUse,
    is_held_by,
    keep_on,
    parameter_of,
    previous_living,
    put_in_use,
    read_in_use,
    remove_in_use,
)
from customization.runs import Call, Plan, note

if TYPE_CHECKING:
    from customization.gateway import Gateway

SERVING = ("on-demand", "provisioned")


def _kept_for(plan: Plan) -> timedelta | None:
    """Return how long serving is kept after the run, or None."""
    if plan.keep is True:
        return WITHOUT_END
    return timedelta(hours=plan.keep) if plan.keep else None


def promote(gateway: "Gateway", plan: Plan, call: Call, *, serving_arn: str, model_arn: str) -> JsonObject:
    """Make the model the one in use and return {arn, until}: the deployment where it is kept, else the model itself."""
    kept = _kept_for(plan)
    model = ModelInUse(
        promoted_run_id=plan.run_id,
        training_id=plan.training_id,
        model_name=_model_name(gateway, plan),
        model_arn=model_arn,
        serving_arn=serving_arn if kept else None,
        until=call.now + kept if kept else None,
        changed_by=call.execution_arn,
    )
    if kept:
        _keep_serving(gateway, plan, call.now + kept)
    current = read_in_use(gateway, plan.dataset)
    value = put_in_use(gateway, plan.dataset, model.after(current), call.now)
    note(gateway, call, {"promoted": True})
    return value


def _keep_serving(gateway: "Gateway", plan: Plan, until: datetime) -> None:
    leases.keep(gateway, serving_name(gateway.settings.name_prefix, plan.run_id), until, until)


def _keep_model(gateway: "Gateway", plan: Plan, until: datetime) -> None:
    name = _model_name(gateway, plan)
    if name:
        leases.keep(gateway, f"{name}{leases.MODEL_SUFFIX}", until, until)


def _model_name(gateway: "Gateway", plan: Plan) -> str:
    row = gateway.runs.get(plan.run_id) or {}
    return str(row.get(f"jobName{len(plan.stages) - 1}") or "")


def release_serving(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Release what served the model unless the request keeps it; return {released}."""
    kept = _kept_for(plan)
    if kept:
        _keep_serving(gateway, plan, call.now + kept)
        return {"released": []}
    return _told(gateway, call, leases.release_run(gateway, call, SERVING, "its last record was answered"))


def release_model(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Release the custom models of the run, or keep the last one where the request and the verdict say so.

    With keepModel if-better a worse model goes at once and every other stays for 14 days, and longer while it is one of
    the best of its data set: training it took hours, and deleting it cannot be undone. A model that the run adopted and
    that an earlier run put in use stays, whatever this run thinks of it.
    """
    if keep_on(gateway, plan.dataset, _model_name(gateway, plan), call.now):
        return {"released": []}
    row = gateway.runs.get(plan.run_id) or {}
    is_worse = plan.keep_model == "never" or (plan.keep_model == "if-better" and row.get("verdict") == "worse")
    if not is_worse or plan.keep:
        stays = WITHOUT_END if plan.keep_model == "always" else leases.MODEL_RETENTION
        _keep_model(gateway, plan, call.now + max(stays, _kept_for(plan) or stays))
        return {"released": []}
    return _told(gateway, call, leases.release_run(gateway, call, (leases.MODEL,), f"keepModel is {plan.keep_model}"))


def release_all(gateway: "Gateway", call: Call) -> JsonObject:
    """Release what this execution's run holds that bills by the hour and give its reservation back; models stay.

    A model lives on so that the next attempt adopts it instead of paying for training again; the sweeper ends it.
    """
    if not call.run_id:
        return {"released": []}
    released = leases.release_run(gateway, call, (*SERVING, leases.JOB), "the run failed")
    budget.give_back(gateway, call.run_id, call.attempt)
    return _told(gateway, call, released)


def release_dataset(gateway: "Gateway", dataset: str, now: datetime) -> JsonObject:
    """Release everything that is kept for a data set and that no running execution needs; return {released}."""
    kept = [lease for lease in leases.open_leases(gateway) if lease.dataset == dataset]
    idle = [lease for lease in kept if gateway.execution_status(lease.execution_arn)[0] != "RUNNING"]
    done: list[Release] = []
    # One by one: what is put in place of the one has to be withdrawn before it goes itself
    for lease in leases.in_release_order(idle):
        withdraw(gateway, lease, now)
        done.append(leases.release(gateway, lease, now, "somebody asked for it"))
    return {"released": _names(done)}


def _told(gateway: "Gateway", call: Call, released: list[Release]) -> JsonObject:
    names = _names(released)
    if names and call.run_id:
        note(gateway, call, {"released": [*_released_before(gateway, call), *names]})
    return {"released": names}


def _names(released: list[Release]) -> list[Json]:
    return [f"{item.kind} {item.resource_name}: {item.outcome}" for item in released]


def _released_before(gateway: "Gateway", call: Call) -> list[Json]:
    before = (gateway.runs.get(call.run_id) or {}).get("released")
    return before if isinstance(before, list) else []


def withdraw(gateway: "Gateway", lease: Lease, now: datetime) -> None:
    """Before a promoted resource goes, put the previous living model in its place or remove the parameter; say so."""
    current = read_in_use(gateway, lease.dataset) if lease.dataset else None
    if current is None or not is_held_by(current, lease):
        return
    previous = previous_living(gateway, current, now)
    if previous:
        arn = put_in_use(gateway, lease.dataset, previous, now)["arn"]
        told = f"{arn} is in use again"
    else:
        remove_in_use(gateway, lease.dataset)
        name = parameter_of(gateway, lease.dataset)
        told = f"no model is in use any more and the parameter {name} has been removed"
    gateway.publish(
        f"No longer in use: {current.promoted_run_id}"[:99],
        f"The {lease.kind} {lease.resource_name}, in use for {lease.dataset}, is being released; {told}.\n",
    )
