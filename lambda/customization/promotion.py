"""What stays after a run: the model in use for a data set, and what a request keeps. Everything else is released."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from customization import budget, leases, notices
from customization.errors import ArtifactUnreadable, PipelineError, ResourceNotFound, TransientError
from customization.json_types import Json, JsonObject
from customization.leases import Lease, Release
from customization.model_in_use import (
    SWAP_POLL_SECONDS,
    WITHOUT_END,
    ModelInUse,
    datasets_holding,
    is_held_by,
    keep_on,
    missing_of,
    model_name_of,
    parameter_of,
    previous_living,
    put_in_use,
    read_in_use,
    remove_in_use,
    swap,
)
from customization.runs import RUNNING, Call, Plan, note, read_plan

if TYPE_CHECKING:
    from customization.gateway import Gateway


def _kept_for(plan: Plan) -> timedelta | None:
    """Return how long serving is kept after the run, or None."""
    if plan.keep is True:
        return WITHOUT_END
    return timedelta(hours=plan.keep) if plan.keep else None


def promote(gateway: "Gateway", plan: Plan, call: Call, *, serving_arn: str, model_arn: str) -> JsonObject:
    """Make the model the one in use and return {status, waitSeconds, arn, until}.

    `arn` is that of the deployment of the model in use, which then serves this model, else that of the run's own where
    the request keeps it, else the model itself. With the status Updating the same call is to be made again after
    `waitSeconds`: until then the model before is in use.

    Raises:
        ServingFailed: the deployment of the model in use did not take the model.
    """
    kept, own_name = _kept_for(plan), _serving_name(gateway, plan)
    model = ModelInUse(
        promoted_run_id=plan.run_id,
        training_id=plan.training_id,
        base_model_identifier=plan.base_model_identifier,
        model_name=model_name_of(gateway, plan),
        model_arn=model_arn,
        serving_arn=serving_arn if kept else None,
        serving_name=own_name if kept else "",
        until=call.now + kept if kept else None,
        changed_by=call.execution_arn,
    )
    chosen = swap(gateway, plan.dataset, model.after(read_in_use(gateway, plan.dataset)), call)
    if chosen is None:
        return {"status": "Updating", "waitSeconds": SWAP_POLL_SECONDS}
    if chosen.until:
        leases.keep(gateway, chosen.serving_name, chosen.until)
    value = put_in_use(gateway, plan.dataset, chosen, call.now)
    note(gateway, call, {"promoted": True})
    if chosen.serving_name != own_name:
        _told(gateway, call, leases.release_run(gateway, call, leases.SERVING, "another deployment serves its model"))
    return {"status": "Active", "waitSeconds": 0, **value}


def _serving_name(gateway: "Gateway", plan: Plan) -> str:
    return str((gateway.runs.get(plan.run_id) or {}).get("servingName") or "")


def _keep_serving(gateway: "Gateway", plan: Plan, until: datetime) -> None:
    name = _serving_name(gateway, plan)
    if name:
        leases.keep(gateway, name, until)


def _keep_model(gateway: "Gateway", plan: Plan, until: datetime) -> None:
    name = model_name_of(gateway, plan)
    if name:
        leases.keep(gateway, f"{name}{leases.MODEL_SUFFIX}", until)


def release_serving(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Release what served the model unless the request keeps it; return {released}."""
    kept = _kept_for(plan)
    if kept:
        _keep_serving(gateway, plan, call.now + kept)
        return {"released": []}
    return _told(gateway, call, leases.release_run(gateway, call, leases.SERVING, "its last record was answered"))


def release_model(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Release the custom models of the run, or keep the last one where the request and the verdict say so.

    With keepModel if-better a worse model goes at once and every other stays for 14 days, and longer while it is one of
    the best of its data set: training it took hours, and deleting it cannot be undone. A model that is in use or that
    another run has kept stays as long as promised there, whatever this run thinks of it.
    """
    if _keeps(plan, gateway.runs.get(plan.run_id) or {}):
        stays = WITHOUT_END if plan.keep_model == "always" else leases.MODEL_RETENTION
        _keep_model(gateway, plan, call.now + max(stays, _kept_for(plan) or stays))
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
    return _told(gateway, call, released)


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
    budget.give_back(gateway, call.run_id, call.attempt, call.now)
    held = leases.of_run(gateway, call.run_id)
    told = notices.after_release(message, released, held, notices.language_of(gateway, call.run_id))
    return {**_told(gateway, call, released), "message": told}


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
        done.append(leases.release(gateway, lease, now, "somebody asked for it"))
        budget.settle_release(gateway, lease, now)
    told = notices.released(dataset=dataset, outcomes=done, language=gateway.settings.defaults.language)
    gateway.publish(told.subject, told.message)
    return {"released": _names(done)}


def _is_held_elsewhere(gateway: "Gateway", lease: Lease, dataset: str) -> bool:
    return lease.kind == leases.MODEL and not {dataset}.issuperset(datasets_holding(gateway, lease.bedrock_name))


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
    if current is not None and is_held_by(current, lease):
        _replace(gateway, lease.dataset, current, now, (lease.kind, lease.bedrock_name), is_gone=False)


def withdraw_gone(gateway: "Gateway", dataset: str, now: datetime) -> str:
    """Do as `withdraw` where somebody else has deleted what is in use; return kind and name of that, else ""."""
    current = read_in_use(gateway, dataset)
    gone = missing_of(gateway, current) if current else None
    if current and gone:
        _replace(gateway, dataset, current, now, gone, is_gone=True)
    return " ".join(gone or ())


def _replace(
    gateway: "Gateway", dataset: str, current: ModelInUse, now: datetime, what: tuple[str, str], *, is_gone: bool
) -> None:
    previous = previous_living(gateway, current, now)
    kind, name = what
    told = notices.withdrawn(
        run_id=current.promoted_run_id,
        dataset=dataset,
        kind=kind,
        name=name,
        is_gone=is_gone,
        previous_arn=(previous.serving_arn or previous.model_arn) if previous else "",
        parameter=parameter_of(gateway, dataset),
        language=notices.language_of(gateway, current.promoted_run_id),
    ).payload()
    key = f"withdrawn#{current.promoted_run_id}"
    gateway.runs.put({"runId": key, notices.UNTOLD: told})
    if previous:
        put_in_use(gateway, dataset, previous, now)
    else:
        remove_in_use(gateway, dataset)
    with suppress(PipelineError, TransientError):  # the sweeper tells it, and what bills must not wait for that
        notices.tell(gateway, key, told)
