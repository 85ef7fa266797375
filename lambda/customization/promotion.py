"""Which model is put in use for a data set, by a run, by a person, or where the one in use goes."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from customization import leases, notices
from customization.errors import (
    Conflict,
    InvalidRunRequest,
    PipelineError,
    RequestRejected,
    ServingFailed,
    TransientError,
)
from customization.gateway.bedrock import ON_DEMAND
from customization.json_types import JsonObject
from customization.leases import Lease
from customization.links import Links
from customization.model_in_use import (
    ModelInUse,
    SwapRequest,
    is_held_by,
    kind_of_serving,
    missing_of,
    model_name_of,
    note_swap,
    parameter_of,
    previous_living,
    put_in_use,
    read_in_use,
    remove_in_use,
    serving_at,
    serving_name_of,
)
from customization.notices import state_machine_input
from customization.runs import RUNNING, SUCCEEDED, Call, Plan, note, read_plan
from customization.texts import Sentence

if TYPE_CHECKING:
    from customization.gateway import Gateway

# What a deployment may take to serve another model under its ARN: making one takes about 8 minutes.
SWAPPED_WITHIN = timedelta(hours=3)
SWAP_POLL_SECONDS = 60
_SWAPPING: JsonObject = {
    "status": "Updating",
    "waitSeconds": SWAP_POLL_SECONDS,
    "modelArn": "",
    "subject": "",
    "message": "",
}
_DOUBTS = {
    "inconclusive": Sentence("notice.doubtInconclusive"),
    "not compared": Sentence("notice.doubtNotCompared"),
}


def promote(gateway: "Gateway", plan: Plan, call: Call, *, serving_arn: str, model_arn: str) -> JsonObject:
    """Make the model the one in use and return {status, waitSeconds, arn, until}.

    `arn` is that of the deployment of the model in use, which then serves this model, else that of the run's own where
    the request keeps it, it is still there and the budget pays for that, else the model itself. With the status
    Updating the same call is to be made again after `waitSeconds`: until then the model before is in use.

    Raises:
        ServingFailed: the deployment of the model in use did not take the model.
    """
    # Since the last answer the sweeper or a person may have taken it away
    until = _kept_until(gateway, plan, call) if serving_at(gateway, serving_arn) else None
    own_name = serving_name_of(gateway, plan)
    model = ModelInUse(
        promoted_run_id=plan.run_id,
        training_id=plan.training_id,
        base_model_identifier=plan.base_model_identifier,
        model_name=model_name_of(gateway, plan),
        model_arn=model_arn,
        serving_arn=serving_arn if until else None,
        serving_name=own_name if until else "",
        until=until,
        changed_by=call.execution_arn,
    )
    current = read_in_use(gateway, plan.dataset)
    chosen = swap(gateway, plan.dataset, model.after(current), call)
    if chosen is None:
        return {"status": "Updating", "waitSeconds": SWAP_POLL_SECONDS}
    if chosen.until:
        leases.keep(gateway, chosen.serving_name, chosen.until)
    value = put_in_use(gateway, plan.dataset, chosen, call.now, instead_of=current)
    if value is None:
        return promote(gateway, plan, call, serving_arn=serving_arn, model_arn=model_arn)
    note(gateway, call, {"promoted": True})
    if chosen.serving_name != own_name:
        leases.release_run(gateway, call, leases.SERVING, "another deployment serves its model")
    return {"status": "Active", "waitSeconds": 0, **value}


def _kept_until(gateway: "Gateway", plan: Plan, call: Call) -> datetime | None:
    """Return until when what serves the run's own model is kept, or None where it is not or nobody pays any more."""
    kept = leases.kept_for(plan)
    if kept is None:
        return None
    lease = leases.find(gateway, plan.run_id, serving_name_of(gateway, plan))
    until = lease.paid_until(call.now + kept) if lease else call.now + kept
    return until if until > call.now else None


def swap(gateway: "Gateway", dataset: str, chosen: ModelInUse, call: Call) -> ModelInUse | None:
    """Let the deployment that serves the model in use serve `chosen`, so that callers keep their ARN.

    Returns None while the deployment is being updated, so that the same call is to be made again later; else `chosen`,
    served by that deployment where the model in use has one and is of the same base model.

    Raises:
        ServingFailed: the update failed or did not end within three hours; the model in use is the one before.
    """
    current = read_in_use(gateway, dataset)
    arn = current.serving_arn if current else None
    if current is None or not arn or ":custom-model-deployment/" not in arn:
        return chosen
    served = gateway.bedrock.served(ON_DEMAND, arn)
    if served is None or current.base_model_identifier != chosen.base_model_identifier:
        return chosen
    if served.update_status != "Updating" and served.model_arn == chosen.model_arn:
        ends = [end for end in (current.until, chosen.until) if end]
        return msgspec.structs.replace(chosen, serving_arn=arn, serving_name=served.name, until=max(ends, default=None))
    asked = current.swap if current.swap and current.swap.asked_by == call.execution_arn else None
    is_over = served.update_status == "UpdateFailed" or (asked and call.now - asked.asked_at > SWAPPED_WITHIN)
    if asked and is_over:
        raise ServingFailed.of(
            "error.swapFailed",
            name=served.name,
            model=chosen.model_arn,
            status=served.update_status or "?",
            runId=current.promoted_run_id,
            request=state_machine_input(dataset, "promote", chosen.promoted_run_id),
        )
    if not asked and served.update_status != "Updating":
        _begin_swap(gateway, dataset, current, arn, chosen.model_arn, call)
    return None


def _begin_swap(  # noqa: PLR0917  two say where, three what, one who
    gateway: "Gateway", dataset: str, current: ModelInUse, arn: str, model_arn: str, call: Call
) -> None:
    """Ask for another model behind a deployment; an update that has begun meanwhile is waited for instead.

    Step Functions may call twice at once, and another execution may swap, too.
    """
    try:
        gateway.bedrock.swap_model(arn, model_arn)
    except (Conflict, RequestRejected):
        served = gateway.bedrock.served(ON_DEMAND, arn)
        if served is None or served.update_status != "Updating":
            raise
    else:
        note_swap(gateway, dataset, current, SwapRequest(call.execution_arn, call.now))


def undo_left_swap(gateway: "Gateway", dataset: str) -> str:
    """Let the deployment serve the model in use again where another was put there; return what was done, else "".

    An execution that was stopped or that has waited too long leaves an update under way. While an execution waits for
    one, or AWS works at one, nothing is done.
    """
    current = read_in_use(gateway, dataset)
    arn = current.serving_arn if current else None
    if current is None or not arn or kind_of_serving(arn) != ON_DEMAND:
        return ""
    asked = current.swap
    if asked and gateway.execution_status(asked.asked_by)[0] == RUNNING:
        return ""
    served = serving_at(gateway, arn)
    if served is None or served.update_status == "Updating":
        return ""
    if asked:  # else the execution, once it is redriven, would wait for what is undone here
        note_swap(gateway, dataset, current, None)
    if served.model_arn == current.model_arn:
        return ""
    gateway.bedrock.swap_model(arn, current.model_arn)
    why = "since nobody waits for the one that was to take its place"
    return f"{ON_DEMAND} {served.name}: serves {current.model_arn} again, {why}"


def change_model_in_use(gateway: "Gateway", call: Call, *, action: str, dataset: str, run_id: str) -> JsonObject:
    """Do as `roll_back` for the action rollback of a data set, else as `promote_run` for the model of a run."""
    return roll_back(gateway, dataset, call) if action == "rollback" else promote_run(gateway, run_id, call)


def promote_run(gateway: "Gateway", run_id: str, call: Call) -> JsonObject:
    """Put the model of a run that has succeeded in use; return {status, waitSeconds, modelArn, subject, message}.

    With the status Updating the same call is to be made again after `waitSeconds`. Nothing new is served for the model:
    where no deployment of the model in use can serve it, the parameter names the custom model itself.

    Raises:
        InvalidRunRequest: the run or its model cannot be used, with what to do instead.
        ServingFailed: the deployment of the model in use did not take it.
    """
    row = gateway.runs.get(run_id)
    if row is None:
        raise InvalidRunRequest.of("error.promotesUnknown", runId=run_id)
    if row["state"] != SUCCEEDED:
        raise InvalidRunRequest.of("error.promotesUnfinished", runId=run_id, state=str(row["state"]))
    model = _model_of(gateway, row, run_id, call)
    dataset = str(row["dataset"])
    current = read_in_use(gateway, dataset)
    # What is in use already stays as it is, served or not; Step Functions may call twice
    is_in_use = current is not None and current.model_arn == model.model_arn
    chosen = current if is_in_use else swap(gateway, dataset, model.after(current), call)
    if chosen is None:
        return _SWAPPING
    value = put_in_use(gateway, dataset, chosen, call.now, instead_of=current)
    if value is None:
        return promote_run(gateway, run_id, call)
    doubt = _DOUBTS.get(str(row.get("verdict")))
    undo = None
    if chosen.previous:
        back = {"runId": chosen.previous[0].promoted_run_id, "request": state_machine_input(dataset, "rollback")}
        undo = Sentence("notice.putBack", back)
    return _told(gateway, dataset, chosen, value, call, doubt, undo)


def _model_of(gateway: "Gateway", row: JsonObject, run_id: str, call: Call) -> ModelInUse:
    """Return the model of a run that has succeeded; raises InvalidRunRequest where it is not fit for use."""
    plan = read_plan(gateway, run_id)
    if plan.subset is not None:
        raise InvalidRunRequest.of("error.promotesSubset", runId=run_id)
    if row.get("verdict") == "worse":
        raise InvalidRunRequest.of("error.promotesWorse", runId=run_id)
    last = len(plan.stages) - 1
    name, arn = str(row.get(f"jobName{last}") or ""), str(row.get(f"modelArn{last}") or "")
    if not arn or not gateway.bedrock.model_is_there(arn):
        raise InvalidRunRequest.of("error.promotesGone", runId=run_id)
    return ModelInUse(
        promoted_run_id=run_id,
        training_id=plan.training_id,
        base_model_identifier=plan.base_model_identifier,
        model_name=name,
        model_arn=arn,
        changed_by=call.execution_arn,
    )


def roll_back(gateway: "Gateway", dataset: str, call: Call) -> JsonObject:
    """Put the model back that was in use before; return what `promote_run` does.

    The model that it replaces stays for 14 days at least, so that it can be promoted again.

    Raises:
        InvalidRunRequest: no model is in use, or none of those before it still exists.
        ServingFailed: the deployment of the model in use did not take the other.
    """
    current = read_in_use(gateway, dataset)
    if current is None:
        promote = state_machine_input(dataset, "promote", "<runId>")
        raise InvalidRunRequest.of("error.noneInUse", dataset=dataset, promote=promote)
    earlier = _one_before(gateway, dataset, current, call)
    if earlier is not current:
        swapped = swap(gateway, dataset, earlier, call)
        if swapped is None:
            return _SWAPPING
        taken = current.promoted_run_id
        earlier = msgspec.structs.replace(swapped, changed_by=call.execution_arn, rolled_back_run_id=taken)
    value = put_in_use(gateway, dataset, earlier, call.now, instead_of=current)
    if value is None:
        return roll_back(gateway, dataset, call)
    back = {
        "runId": earlier.rolled_back_run_id,
        "until": f"{call.now + leases.MODEL_RETENTION:%Y-%m-%d}",
        "request": state_machine_input(dataset, "promote", earlier.rolled_back_run_id),
    }
    return _told(gateway, dataset, earlier, value, call, Sentence("notice.putBackUntil", back))


def _one_before(gateway: "Gateway", dataset: str, current: ModelInUse, call: Call) -> ModelInUse:
    """Return the model to put back instead of `current`, which is it where this very execution has put it back already.

    Step Functions may call twice, and the second call must not go back further. Raises InvalidRunRequest.
    """
    if current.changed_by == call.execution_arn:
        return current
    earlier = previous_living(gateway, current, call.now)
    if earlier is None:
        raise InvalidRunRequest.of(
            "error.noneBefore",
            dataset=dataset,
            runId=current.promoted_run_id,
            promote=state_machine_input(dataset, "promote", "<runId>"),
            release=state_machine_input(dataset, "release"),
        )
    return earlier


def _told(
    gateway: "Gateway", dataset: str, model: ModelInUse, value: JsonObject, call: Call, *sentences: Sentence | None
) -> JsonObject:
    told = notices.in_use(
        run_id=model.promoted_run_id,
        dataset=dataset,
        parameter=parameter_of(gateway, dataset),
        value=value,
        lines=[sentence for sentence in sentences if sentence],
        language=notices.language_of(gateway, model.promoted_run_id),
        link=Links.of(gateway.settings).execution(call.execution_arn),
    )
    return {"status": "Active", "waitSeconds": 0, "modelArn": model.model_arn, **told.payload()}


def withdraw(gateway: "Gateway", lease: Lease, now: datetime) -> None:
    """Before a promoted resource goes, put the previous living model in its place or remove the parameter; say so."""
    current = read_in_use(gateway, lease.dataset) if lease.dataset else None
    if current is None or not is_held_by(current, lease):
        return
    if not _replace(gateway, lease.dataset, current, now, (lease.kind, lease.bedrock_name), is_gone=False):
        withdraw(gateway, lease, now)


def withdraw_gone(gateway: "Gateway", dataset: str, now: datetime) -> str:
    """Do as `withdraw` where somebody else has deleted what is in use; return kind and name of that, else ""."""
    current = read_in_use(gateway, dataset)
    gone = missing_of(gateway, current) if current else None
    if current and gone and not _replace(gateway, dataset, current, now, gone, is_gone=True):
        return withdraw_gone(gateway, dataset, now)
    return " ".join(gone or ())


def _replace(
    gateway: "Gateway", dataset: str, current: ModelInUse, now: datetime, what: tuple[str, str], *, is_gone: bool
) -> bool:
    """Put the previous living model in use, or none, and say so; return False where another is in use by now."""
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
        is_replaced = put_in_use(gateway, dataset, previous, now, instead_of=current) is not None
    else:
        is_replaced = remove_in_use(gateway, dataset, current)
    if not is_replaced:
        gateway.runs.delete(key)
        return False
    with suppress(PipelineError, TransientError):  # the sweeper tells it, and what bills must not wait for that
        notices.tell(gateway, key, told, now)
    return True
