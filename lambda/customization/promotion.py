"""What stays after a run: the model in use for a data set, and what a request keeps. Everything else is released."""

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from customization import budget, leases
from customization.identity import parameter_name, serving_name
from customization.json_types import Json, JsonObject
from customization.leases import Lease, Release
from customization.runs import Call, Plan, note

if TYPE_CHECKING:
    from customization.gateway import Gateway

SERVING = ("on-demand", "provisioned")
# What a person asked to keep without an end: the lease stays open and is shown as billing until somebody releases it.
WITHOUT_END = timedelta(days=3650)


def promoted_key(dataset: str) -> str:
    """Return the key of a data set's model in use in the table of runs."""
    return f"promoted#{dataset}"


def _kept_for(plan: Plan) -> timedelta | None:
    """Return how long serving is kept after the run, or None."""
    if plan.keep is True:
        return WITHOUT_END
    return timedelta(hours=plan.keep) if plan.keep else None


def promote(gateway: "Gateway", plan: Plan, call: Call, *, serving_arn: str, model_arn: str) -> JsonObject:
    """Make the model the one in use and return {arn, until}: the deployment where it is kept, else the model itself."""
    kept = _kept_for(plan)
    until = (call.now + kept).isoformat() if kept else None
    previous = gateway.runs.get(promoted_key(plan.dataset))
    row: JsonObject = {
        "runId": promoted_key(plan.dataset),
        "promotedRunId": plan.run_id,
        "trainingId": plan.training_id,
        "modelArn": model_arn,
        "servingArn": serving_arn if kept else None,
        "until": until,
        "previous": previous if previous and previous.get("promotedRunId") != plan.run_id else None,
    }
    if kept:
        _keep_serving(gateway, plan, call.now + kept)
    _keep_model(gateway, plan, call.now)
    gateway.runs.put(row)
    arn = serving_arn if kept else model_arn
    gateway.put_parameter(_parameter(gateway, plan.dataset), json.dumps({"arn": arn, "until": until}))
    note(gateway, call, {"promoted": True})
    return {"arn": arn, "until": until}


def _parameter(gateway: "Gateway", dataset: str) -> str:
    return parameter_name(gateway.settings.stage, gateway.settings.deployment_id, dataset)


def _keep_serving(gateway: "Gateway", plan: Plan, until: datetime) -> None:
    leases.keep(gateway, serving_name(gateway.settings.name_prefix, plan.run_id), until, until)


def _keep_model(gateway: "Gateway", plan: Plan, now: datetime) -> None:
    name = _model_lease_name(gateway, plan)
    if name:
        leases.keep(gateway, name, now + WITHOUT_END, now + WITHOUT_END)


def _model_lease_name(gateway: "Gateway", plan: Plan) -> str:
    row = gateway.runs.get(plan.run_id) or {}
    job_name = row.get(f"jobName{len(plan.stages) - 1}")
    return f"{job_name}{leases.MODEL_SUFFIX}" if job_name else ""


def release_serving(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Release what served the model unless the request keeps it; return {released}."""
    kept = _kept_for(plan)
    if kept:
        _keep_serving(gateway, plan, call.now + kept)
        return {"released": []}
    return _told(gateway, call, leases.release_run(gateway, call, SERVING, "its last record was answered"))


def release_model(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Release the custom models of the run, or keep the last one where the request and the verdict say so.

    With keepModel if-better a worse model goes at once, a better one and one that nothing could be compared with stays,
    and an inconclusive one stays for 14 days: training it took hours, and deleting it cannot be undone.
    """
    row = gateway.runs.get(plan.run_id) or {}
    is_worse = plan.keep_model == "never" or (plan.keep_model == "if-better" and row.get("verdict") == "worse")
    if not is_worse or row.get("promoted") or plan.keep:
        if plan.keep_model == "always" or row.get("verdict") in {"better", "not compared"}:
            _keep_model(gateway, plan, call.now)
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
    for lease in idle:
        withdraw(gateway, lease, now)
    done = [leases.release(gateway, lease, now, "somebody asked for it") for lease in leases.in_release_order(idle)]
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
    row = gateway.runs.get(promoted_key(lease.dataset)) if lease.dataset else None
    if row is None or row.get("promotedRunId") != lease.run_id or lease.kind == leases.JOB:
        return
    if lease.kind in SERVING and not row.get("servingArn"):
        return
    if (
        lease.kind == leases.MODEL
        and lease.bedrock_name not in str(row["modelArn"])
        and not _is_model(gateway, row, lease)
    ):
        return
    previous = row.get("previous")
    name = _parameter(gateway, lease.dataset)
    if isinstance(previous, dict) and gateway.bedrock.model_is_there(str(previous["modelArn"])):
        served = previous.get("servingArn") if str(previous.get("until") or "") > now.isoformat() else None
        arn, until = served or previous["modelArn"], previous.get("until") if served else None
        gateway.runs.put({**previous, "servingArn": served, "until": until})
        gateway.put_parameter(name, json.dumps({"arn": arn, "until": until}))
        told = f"{arn} is in use again"
    else:
        gateway.runs.delete(promoted_key(lease.dataset))
        gateway.delete_parameter(name)
        told = f"no model is in use any more and the parameter {name} has been removed"
    gateway.publish(
        f"No longer in use: {lease.run_id}"[:99],
        f"The {lease.kind} {lease.resource_name}, in use for {lease.dataset}, is being released; {told}.\n",
    )


def _is_model(gateway: "Gateway", row: JsonObject, lease: Lease) -> bool:
    job = gateway.bedrock.job(lease.bedrock_name)
    return job is not None and job.output_model_arn == row["modelArn"]
