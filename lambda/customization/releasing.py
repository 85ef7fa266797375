"""What goes once a run is over, and what stays since its request, its verdict or the model in use needs it."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from customization import budget, leases, notices
from customization.errors import ArtifactUnreadable, ResourceNotFound
from customization.json_types import JsonObject
from customization.leases import Lease, Release
from customization.model_in_use import (
    datasets_holding,
    is_held_by,
    keep_on,
    model_name_of,
    read_in_use,
    serving_name_of,
)
from customization.promotion import withdraw
from customization.runs import RUNNING, Call, Plan, note, read_plan
from customization.texts import Sentence, say

if TYPE_CHECKING:
    from customization.gateway import Gateway


def _keep_model(gateway: "Gateway", plan: Plan, until: datetime) -> None:
    name = model_name_of(gateway, plan)
    if name:
        leases.keep(gateway, f"{name}{leases.MODEL_SUFFIX}", until)


def release_serving(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Release what served the model unless the request keeps it and the budget pays for that; return {released}."""
    kept = leases.kept_for(plan)
    lease = leases.find(gateway, plan.run_id, serving_name_of(gateway, plan)) if kept else None
    if kept and lease:
        until = lease.paid_until(call.now + kept)
        # A retry finds what was promised, which is no cut
        if until < call.now + kept and lease.keep_until is None:
            values = {"until": f"{until:%Y-%m-%d %H:%M}", "hours": f"{kept / timedelta(hours=1):g}"}
            note(gateway, call, {"keptShort": say(Sentence("note.keptShort", values), plan.language)})
        if until > call.now:
            budget.renew(gateway, plan, call)
            leases.keep(gateway, lease.resource_name, until)
            return {"released": []}
    return _answer(leases.release_run(gateway, call, leases.SERVING, "its last record was answered"))


def release_model(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Release the custom models of the run, or keep the last one where the request and the verdict say so.

    With keepModel if-better a worse model goes at once and every other stays for 14 days, and longer while it is one of
    the best of its data set: training it took hours, and deleting it cannot be undone. A model that is in use or that
    another run has kept stays as long as promised there, whatever this run thinks of it.
    """
    if _keeps(plan, gateway.runs.get(plan.run_id) or {}):
        # Before the lease has its end, which the sweeper would shorten
        note(gateway, call, {"keepModel": plan.keep_model})
        stays = leases.WITHOUT_END if plan.keep_model == "always" else leases.MODEL_RETENTION
        _keep_model(gateway, plan, call.now + max(stays, leases.kept_for(plan) or stays))
        return {"released": []}
    released = leases.release_run(
        gateway,
        call,
        (leases.MODEL,),
        f"keepModel is {plan.keep_model}",
        spares=lambda lease: (
            keep_on(gateway, lease.bedrock_name, call.now)
            or any(_has_kept(gateway, row) for row in leases.other_runs_with(gateway, lease))
        ),
    )
    return _answer(released)


def _keeps(plan: Plan, row: JsonObject) -> bool:
    is_unwanted = plan.keep_model == "never" or (plan.keep_model == "if-better" and row.get("verdict") == "worse")
    return bool(plan.keep) or not is_unwanted


def _has_kept(gateway: "Gateway", row: JsonObject) -> bool:
    """Return whether a run that has succeeded keeps its model, for the time in the lease, which was taken over."""
    try:
        return _keeps(read_plan(gateway, str(row["runId"])), row)
    except (ArtifactUnreadable, ResourceNotFound):
        return True  # what it was promised is not known; the lease ends it


def release_all(gateway: "Gateway", call: Call, message: str) -> JsonObject:
    """Release what this execution's run holds that bills by the hour and give its reservation back.

    What serves the model in use stays, and so do models: a model lives on so that the next attempt adopts it instead of
    paying for training again; the sweeper ends it.
    Returns {released, message}: the message of the failure, with what was released and what still bills.
    """
    if not call.run_id:
        return {"released": [], "message": message}
    in_use = read_in_use(gateway, str((gateway.runs.get(call.run_id) or {}).get("dataset") or ""))
    released = leases.release_run(
        gateway,
        call,
        (*leases.SERVING, leases.JOB),
        "the run failed",
        spares=lambda lease: in_use is not None and is_held_by(in_use, lease),
    )
    leases.close_unmade_models(gateway, call)
    budget.give_back(gateway, call.run_id, call.attempt, call.now)
    held = leases.of_run_there(gateway, call.run_id)
    told = notices.after_release(message, released, held, notices.language_of(gateway, call.run_id))
    return {**_answer(released), "message": told}


def release_dataset(gateway: "Gateway", dataset: str, now: datetime) -> JsonObject:
    """Release everything that is kept for a data set and that no running execution needs; return {released}."""
    kept = [
        lease
        for lease in leases.open_leases(gateway)
        if lease.dataset == dataset and not _is_held_elsewhere(gateway, lease, dataset)
    ]
    idle = [lease for lease in kept if gateway.execution_status(lease.execution_arn)[0] != RUNNING]
    done: list[Release] = []
    # One at a time: a model put in use as replacement may itself be next to go.
    for lease in leases.in_release_order(idle):
        withdraw(gateway, lease, now)
        done.append(leases.try_release(gateway, lease, now, "somebody asked for it"))
        budget.settle_release(gateway, lease, now)
    told = notices.released(dataset=dataset, outcomes=done, language=gateway.settings.defaults.language)
    gateway.publish(told.subject, told.message)
    return _answer(done)


def _is_held_elsewhere(gateway: "Gateway", lease: Lease, dataset: str) -> bool:
    return lease.kind == leases.MODEL and not {dataset}.issuperset(datasets_holding(gateway, lease.bedrock_name))


def _answer(released: list[Release]) -> JsonObject:
    return {"released": [str(item) for item in released]}
