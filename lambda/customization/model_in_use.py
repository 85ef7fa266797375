"""The model in use for a data set: a row in the table of runs, and the SSM parameter that names it to applications."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from customization import leases, notices
from customization.errors import InvalidRunRequest, ServingFailed
from customization.gateway.bedrock import ON_DEMAND, PROVISIONED, ServedModel
from customization.gateway.tables import Attr
from customization.identity import parameter_name
from customization.json_types import Json, JsonObject
from customization.leases import Lease
from customization.links import Links
from customization.notices import state_machine_input
from customization.runs import RUNNING, SUCCEEDED, Call, Plan, read_plan
from customization.texts import Sentence

if TYPE_CHECKING:
    from customization.gateway import Gateway

# What a person asked to keep without an end: the lease stays open and is shown as billing until somebody releases it.
WITHOUT_END = timedelta(days=3650)
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
# An item in DynamoDB holds 400 KB, and nobody goes back further.
_REMEMBERED = 5
_DOUBTS = {
    "inconclusive": Sentence("notice.doubtInconclusive"),
    "not compared": Sentence("notice.doubtNotCompared"),
}


class SwapRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Which execution asked when for another model behind the deployment of the model in use."""

    asked_by: str
    asked_at: datetime


class ModelInUse(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A model that is or was in use, with those before it, latest first.

    `until` is when what serves it goes; without `serving_arn` the parameter names the model itself. `changed_by` is the
    execution that put it in use, and `rolled_back_run_id` the run whose model a rollback took out of use for it.
    """

    promoted_run_id: str
    training_id: str
    base_model_identifier: str
    model_name: str
    model_arn: str
    serving_arn: str | None = None
    serving_name: str = ""
    until: datetime | None = None
    changed_by: str = ""
    rolled_back_run_id: str = ""
    swap: SwapRequest | None = None
    previous: tuple["ModelInUse", ...] = ()

    @property
    def lease_name(self) -> str:
        """Return the name of the lease of the custom model."""
        return f"{self.model_name}{leases.MODEL_SUFFIX}"

    def after(self, current: "ModelInUse | None") -> "ModelInUse":
        """Return this model as the one that takes the place of `current`, which may be this one already."""
        if current is None:
            return self
        others = (msgspec.structs.replace(current, previous=(), swap=None), *current.previous)
        earlier = tuple(model for model in others if model.model_arn != self.model_arn)
        return msgspec.structs.replace(self, previous=earlier[:_REMEMBERED])


def _key(dataset: str) -> str:
    return f"promoted#{dataset}"


def parameter_of(gateway: "Gateway", dataset: str) -> str:
    """Return the name of the parameter that names a data set's model in use."""
    return parameter_name(gateway.settings.stage, gateway.settings.deployment_id, dataset)


def read_in_use(gateway: "Gateway", dataset: str) -> ModelInUse | None:
    """Return the model in use for a data set, or None; raises ArtifactUnreadable where its row is damaged."""
    row = gateway.runs.get(_key(dataset))
    return gateway.runs.decoded(row, ModelInUse) if row else None


def put_in_use(gateway: "Gateway", dataset: str, model: ModelInUse, now: datetime) -> JsonObject:
    """Make `model` the one in use, keep it without an end, and return {arn, until} as the parameter has them.

    The row goes last, so that a change that was cut short is done again.
    """
    leases.keep(gateway, model.lease_name, now + WITHOUT_END)
    value: JsonObject = {
        "arn": model.serving_arn or model.model_arn,
        "until": model.until.isoformat() if model.until else None,
    }
    gateway.put_parameter(parameter_of(gateway, dataset), json.dumps(value))
    known = Attr("runId").exists()
    gateway.runs.update(model.promoted_run_id, {"promotedAt": now.isoformat()}, condition=known)
    _write(gateway, dataset, model)
    return value


def _write(gateway: "Gateway", dataset: str, model: ModelInUse) -> None:
    row: JsonObject = msgspec.json.decode(msgspec.json.encode(model))
    gateway.runs.put({"runId": _key(dataset), **row})


def remove_in_use(gateway: "Gateway", dataset: str) -> None:
    """Let no model be in use; the row goes last here too."""
    gateway.delete_parameter(parameter_of(gateway, dataset))
    gateway.runs.delete(_key(dataset))


def datasets_in_use(gateway: "Gateway") -> list[str]:
    """Return the names of the data sets that have a model in use."""
    return sorted(str(row["runId"]).removeprefix(_key("")) for row in _rows_in_use(gateway))


def base_models(gateway: "Gateway") -> list[str]:
    """Return the baseModelIdentifiers of the models in use, each once."""
    return sorted({str(row["baseModelIdentifier"]) for row in _rows_in_use(gateway)})


def _rows_in_use(gateway: "Gateway") -> Iterable[JsonObject]:
    return gateway.runs.scan(Attr("runId").begins_with(_key("")))


def keep_on(gateway: "Gateway", model_name: str, now: datetime) -> bool:
    """Return whether a custom model is in use or may be put back, and if so keep it without an end."""
    holding = datasets_holding(gateway, model_name)
    if holding:
        leases.keep(gateway, f"{model_name}{leases.MODEL_SUFFIX}", now + WITHOUT_END)
    return bool(holding)


def datasets_holding(gateway: "Gateway", model_name: str) -> list[str]:
    """Return the data sets for which a custom model is in use or may be put back.

    There may be several: the same files in another data set's folder adopt the model.
    """
    return [
        dataset
        for dataset in datasets_in_use(gateway)
        if (in_use := read_in_use(gateway, dataset))
        if model_name in {model.model_name for model in (in_use, *in_use.previous)}
    ]


def is_held_by(model: ModelInUse, lease: Lease) -> bool:
    """Return whether the parameter would point at something gone without the resource of `lease`."""
    if lease.kind == leases.MODEL:
        return lease.bedrock_name == model.model_name
    return lease.kind != leases.JOB and bool(model.serving_arn) and lease.bedrock_name == model.serving_name


def previous_living(gateway: "Gateway", model: ModelInUse, now: datetime) -> ModelInUse | None:
    """Return the latest of the models before `model` that still exists, served only where it still is, or None."""
    for number, earlier in enumerate(model.previous, start=1):
        if not gateway.bedrock.model_is_there(earlier.model_arn):
            continue
        older = model.previous[number:]
        if earlier.until and earlier.until > now and serving_of(gateway, earlier):
            return msgspec.structs.replace(earlier, previous=older)
        return msgspec.structs.replace(earlier, previous=older, serving_arn=None, serving_name="", until=None)
    return None


def _kind_of(serving_arn: str) -> str:
    return PROVISIONED if ":provisioned-model/" in serving_arn else ON_DEMAND


def serving_at(gateway: "Gateway", serving_arn: str) -> ServedModel | None:
    """Return the deployment or throughput of that ARN, or None where it is gone."""
    return gateway.bedrock.served(_kind_of(serving_arn), serving_arn)


def missing_of(gateway: "Gateway", model: ModelInUse) -> tuple[str, str] | None:
    """Return kind and name of what the parameter rests on and Bedrock does not have, or None."""
    if not gateway.bedrock.model_is_there(model.model_arn):
        return leases.MODEL, model.model_name
    if model.serving_arn and serving_at(gateway, model.serving_arn) is None:
        return _kind_of(model.serving_arn), model.serving_name
    return None


def serving_of(gateway: "Gateway", model: ModelInUse) -> ServedModel | None:
    """Return what serves the model, which may have been taken for another one since."""
    arn = model.serving_arn
    served = serving_at(gateway, arn) if arn else None
    return served if served and served.model_arn == model.model_arn else None


class ServedModelInUse(msgspec.Struct, frozen=True, rename="camel"):
    """The model in use as it can be asked; `model_name` is what its answers are kept under."""

    serving_arn: str
    model_name: str
    base_model_identifier: str

    @property
    def billed_model(self) -> str:
        """Return the base model by whose prices answers are billed, empty where hours are billed instead."""
        return self.base_model_identifier if ":custom-model-deployment/" in self.serving_arn else ""


def model_name_of(gateway: "Gateway", plan: Plan) -> str:
    """Return the name of the custom model that the run ends with, empty before its last job is there."""
    row = gateway.runs.get(plan.run_id) or {}
    return str(row.get(f"jobName{len(plan.stages) - 1}") or "")


def served_in_use(gateway: "Gateway", plan: Plan) -> ServedModelInUse | None:
    """Return the model in use where it is another than the one the run trains and is served now, or None."""
    current = read_in_use(gateway, plan.dataset)
    if current is None or (current.training_id == plan.training_id and not plan.force):
        return None
    served = serving_of(gateway, current)
    if served is None or not served.is_ready:
        return None
    return ServedModelInUse(served.arn, current.model_name, current.base_model_identifier)


def read_served(value: Json) -> ServedModelInUse | None:
    """Return the model in use from a Task's payload, where it is an empty object when there is none."""
    return msgspec.convert(value, ServedModelInUse) if value else None


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
        gateway.bedrock.swap_model(arn, chosen.model_arn)
        asked = SwapRequest(call.execution_arn, call.now)
        _write(gateway, dataset, msgspec.structs.replace(current, swap=asked))
    return None


def undo_left_swap(gateway: "Gateway", dataset: str) -> str:
    """Let the deployment serve the model in use again where another was put there; return what was done, else "".

    An execution that was stopped or that has waited too long leaves an update under way. While an execution waits for
    one, or AWS works at one, nothing is done.
    """
    current = read_in_use(gateway, dataset)
    arn = current.serving_arn if current else None
    if current is None or not arn or _kind_of(arn) != ON_DEMAND:
        return ""
    asked = current.swap
    if asked and gateway.execution_status(asked.asked_by)[0] == RUNNING:
        return ""
    served = serving_at(gateway, arn)
    if served is None or served.update_status == "Updating":
        return ""
    if asked:  # else the execution, once it is redriven, would wait for what is undone here
        same = Attr("modelArn").eq(current.model_arn)
        gateway.runs.update(_key(dataset), {"swap": None}, condition=same)
    if served.model_arn == current.model_arn:
        return ""
    gateway.bedrock.swap_model(arn, current.model_arn)
    why = "since nobody waits for the one that was to take its place"
    return f"{ON_DEMAND} {served.name}: serves {current.model_arn} again, {why}"


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
    value = put_in_use(gateway, dataset, chosen, call.now)
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

    The model that it replaces stays for 14 days, so that it can be promoted again.

    Raises:
        InvalidRunRequest: no model is in use, or none of those before it still exists.
        ServingFailed: the deployment of the model in use did not take the other.
    """
    promote = state_machine_input(dataset, "promote", "<runId>")
    current = read_in_use(gateway, dataset)
    if current is None:
        raise InvalidRunRequest.of("error.noneInUse", dataset=dataset, promote=promote)
    earlier: ModelInUse | None = current
    # Step Functions may call twice, and the second call must not go back further
    if current.changed_by != call.execution_arn:
        earlier = previous_living(gateway, current, call.now)
    if earlier is None:
        raise InvalidRunRequest.of(
            "error.noneBefore",
            dataset=dataset,
            runId=current.promoted_run_id,
            promote=promote,
            release=state_machine_input(dataset, "release"),
        )
    if earlier is not current:
        earlier = swap(gateway, dataset, earlier, call)
        if earlier is None:
            return _SWAPPING
        leases.end(gateway, current.lease_name, call.now + leases.MODEL_RETENTION)
        earlier = msgspec.structs.replace(
            earlier, changed_by=call.execution_arn, rolled_back_run_id=current.promoted_run_id
        )
    value = put_in_use(gateway, dataset, earlier, call.now)
    back = {
        "runId": earlier.rolled_back_run_id,
        "until": f"{call.now + leases.MODEL_RETENTION:%Y-%m-%d}",
        "request": state_machine_input(dataset, "promote", earlier.rolled_back_run_id),
    }
    return _told(gateway, dataset, earlier, value, call, Sentence("notice.putBackUntil", back))


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
