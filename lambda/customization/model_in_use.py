"""The model in use for a data set: a row in the table of runs, and the SSM parameter that names it to applications."""

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from customization import leases
from customization.errors import InvalidRunRequest
from customization.gateway.bedrock import ON_DEMAND, PROVISIONED
from customization.gateway.tables import Attr
from customization.identity import parameter_name
from customization.json_types import JsonObject
from customization.leases import Lease
from customization.runs import SUCCEEDED, Call, read_plan

if TYPE_CHECKING:
    from customization.gateway import Gateway

# What a person asked to keep without an end: the lease stays open and is shown as billing until somebody releases it.
WITHOUT_END = timedelta(days=3650)
# An item in DynamoDB holds 400 KB, and nobody goes back further.
_REMEMBERED = 5
_DOUBTS = {
    "inconclusive": "Its verdict is inconclusive: nothing shows that it answers better than its base model. It is in "
    "use because you asked for it.",
    "not compared": "It was not compared with its base model. It is in use because you asked for it.",
}


class ModelInUse(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A model that is or was in use, with those before it, latest first.

    `until` is when what serves it goes; without `serving_arn` the parameter names the model itself. `changed_by` is the
    execution that put it in use, and `rolled_back_run_id` the run whose model a rollback took out of use for it.
    """

    promoted_run_id: str
    training_id: str
    model_name: str
    model_arn: str
    serving_arn: str | None = None
    until: datetime | None = None
    changed_by: str = ""
    rolled_back_run_id: str = ""
    previous: tuple["ModelInUse", ...] = ()

    def after(self, current: "ModelInUse | None") -> "ModelInUse":
        """Return this model as the one that takes the place of `current`, which may be this one already."""
        if current is None:
            return self
        others = (msgspec.structs.replace(current, previous=()), *current.previous)
        earlier = tuple(model for model in others if model.model_arn != self.model_arn)
        return msgspec.structs.replace(self, previous=earlier[:_REMEMBERED])


def _key(dataset: str) -> str:
    return f"promoted#{dataset}"


def parameter_of(gateway: "Gateway", dataset: str) -> str:
    """Return the name of the parameter that names a data set's model in use."""
    return parameter_name(gateway.settings.stage, gateway.settings.deployment_id, dataset)


def read_in_use(gateway: "Gateway", dataset: str) -> ModelInUse | None:
    """Return the model in use for a data set, or None."""
    row = gateway.runs.get(_key(dataset))
    return msgspec.convert(row, ModelInUse) if row else None


def put_in_use(gateway: "Gateway", dataset: str, model: ModelInUse, now: datetime) -> JsonObject:
    """Make `model` the one in use, keep it without an end, and return {arn, until} as the parameter has them.

    The row goes last, so that a change that was cut short is done again.
    """
    _keep(gateway, model, now + WITHOUT_END)
    row: JsonObject = msgspec.json.decode(msgspec.json.encode(model))
    value: JsonObject = {
        "arn": model.serving_arn or model.model_arn,
        "until": model.until.isoformat() if model.until else None,
    }
    gateway.put_parameter(parameter_of(gateway, dataset), json.dumps(value))
    gateway.runs.put({"runId": _key(dataset), **row})
    return value


def remove_in_use(gateway: "Gateway", dataset: str) -> None:
    """Let no model be in use; the row goes last here too."""
    gateway.delete_parameter(parameter_of(gateway, dataset))
    gateway.runs.delete(_key(dataset))


def datasets_in_use(gateway: "Gateway") -> list[str]:
    """Return the names of the data sets that have a model in use."""
    rows = gateway.runs.scan(Attr("runId").begins_with(_key("")))
    return sorted(str(row["runId"]).removeprefix(_key("")) for row in rows)


def _keep(gateway: "Gateway", model: ModelInUse, until: datetime) -> None:
    if model.model_name:
        leases.keep(gateway, f"{model.model_name}{leases.MODEL_SUFFIX}", until, until)


def keep_on(gateway: "Gateway", dataset: str, model_name: str, now: datetime) -> bool:
    """Return whether a custom model is in use or may be put back, and if so keep it without an end.

    A later run that adopts the model opens its lease anew, with an end.
    """
    in_use = read_in_use(gateway, dataset) if dataset else None
    models = (in_use, *in_use.previous) if in_use else ()
    wanted = next((model for model in models if model_name and model.model_name == model_name), None)
    if wanted is not None:
        _keep(gateway, wanted, now + WITHOUT_END)
    return wanted is not None


def is_held_by(model: ModelInUse, lease: Lease) -> bool:
    """Return whether the parameter would point at something gone without the resource of `lease`."""
    if lease.kind == leases.MODEL:
        return lease.bedrock_name == model.model_name
    return lease.kind != leases.JOB and bool(model.serving_arn) and lease.run_id == model.promoted_run_id


def previous_living(gateway: "Gateway", model: ModelInUse, now: datetime) -> ModelInUse | None:
    """Return the latest of the models before `model` that still exists, served only where it still is, or None."""
    for number, earlier in enumerate(model.previous, start=1):
        if not gateway.bedrock.model_is_there(earlier.model_arn):
            continue
        older = model.previous[number:]
        if earlier.until and earlier.until > now and _is_served(gateway, earlier.serving_arn or ""):
            return msgspec.structs.replace(earlier, previous=older)
        return msgspec.structs.replace(earlier, previous=older, serving_arn=None, until=None)
    return None


def _is_served(gateway: "Gateway", arn: str) -> bool:
    return gateway.bedrock.served(PROVISIONED if ":provisioned-model/" in arn else ON_DEMAND, arn) is not None


def promote_run(gateway: "Gateway", run_id: str, call: Call) -> JsonObject:
    """Put the model of a run that has succeeded in use; return {modelArn, subject, message}.

    Nothing is served for it: the parameter names the custom model itself.

    Raises:
        InvalidRunRequest: the run or its model cannot be used, with what to do instead.
    """
    row = gateway.runs.get(run_id)
    if row is None:
        raise InvalidRunRequest(
            f"data: no run {run_id} is known; expected the runId of a run that has succeeded, as its notification and "
            "its report give it"
        )
    if row["state"] != SUCCEEDED:
        raise InvalidRunRequest(
            f"data: run {run_id} has not succeeded, its state is {row['state']}; expected a run that trained a model "
            "and ended with a report, so wait for its end or start it again"
        )
    model = _model_of(gateway, row, run_id, call)
    dataset = str(row["dataset"])
    current = read_in_use(gateway, dataset)
    # What is in use already stays as it is, served or not; Step Functions may call twice
    chosen = current if current and current.model_arn == model.model_arn else model.after(current)
    value = put_in_use(gateway, dataset, chosen, call.now)
    doubt = _DOUBTS.get(str(row.get("verdict")), "")
    undo = (
        f"To put the model of run {chosen.previous[0].promoted_run_id} back, start {_request(dataset, 'rollback')}."
        if chosen.previous
        else ""
    )
    return _told(gateway, dataset, chosen, value, call, doubt, undo)


def _model_of(gateway: "Gateway", row: JsonObject, run_id: str, call: Call) -> ModelInUse:
    """Return the model of a run that has succeeded; raises InvalidRunRequest where it is not fit for use."""
    plan = read_plan(gateway, run_id)
    if plan.subset is not None:
        raise InvalidRunRequest(
            f"data: run {run_id} trained on a subset, and such a run is never promoted; start it without subset and "
            "promote that run"
        )
    if row.get("verdict") == "worse":
        raise InvalidRunRequest(
            f"data: the verdict of run {run_id} is worse: its model answers worse than the model it was compared with; "
            "promote another run, or train with other data or hyperParameters"
        )
    last = len(plan.stages) - 1
    name, arn = str(row.get(f"jobName{last}") or ""), str(row.get(f"modelArn{last}") or "")
    if not arn or not gateway.bedrock.model_is_there(arn):
        raise InvalidRunRequest(
            f"data: the custom model of run {run_id} does not exist any more; promote another run, or train anew with "
            "changed hyperParameters and keepModel always"
        )
    return ModelInUse(
        promoted_run_id=run_id,
        training_id=plan.training_id,
        model_name=name,
        model_arn=arn,
        changed_by=call.execution_arn,
    )


def roll_back(gateway: "Gateway", dataset: str, call: Call) -> JsonObject:
    """Put the model back that was in use before; return {modelArn, subject, message}.

    The model that it replaces stays for 14 days, so that it can be promoted again.

    Raises:
        InvalidRunRequest: no model is in use, or none of those before it still exists.
    """
    promote = _request(dataset, "promote", "<runId>")
    current = read_in_use(gateway, dataset)
    if current is None:
        raise InvalidRunRequest(
            f"action: no model is in use for {dataset}, so there is nothing to roll back; to put one in use, start "
            f"{promote}"
        )
    earlier: ModelInUse | None = current
    # Step Functions may call twice, and the second call must not go back further
    if current.changed_by != call.execution_arn:
        earlier = previous_living(gateway, current, call.now)
    if earlier is None:
        raise InvalidRunRequest(
            f"action: {dataset} had no model in use before that of run {current.promoted_run_id}, or none that still "
            f"exists; to put another in use, start {promote}; to use none, start {_request(dataset, 'release')}"
        )
    if earlier is not current:
        _keep(gateway, current, call.now + leases.MODEL_RETENTION)
        earlier = msgspec.structs.replace(
            earlier, changed_by=call.execution_arn, rolled_back_run_id=current.promoted_run_id
        )
    value = put_in_use(gateway, dataset, earlier, call.now)
    undo = _request(dataset, "promote", earlier.rolled_back_run_id)
    stays = f"The model of run {earlier.rolled_back_run_id} stays until {call.now + leases.MODEL_RETENTION:%Y-%m-%d}"
    return _told(gateway, dataset, earlier, value, call, f"{stays}; to put it in use again, start {undo}.")


def _request(dataset: str, action: str, data: str = "") -> str:
    request = {"dataset": dataset, "action": action, **({"data": data} if data else {})}
    return f"the state machine with {json.dumps(request)}"


def _told(
    gateway: "Gateway", dataset: str, model: ModelInUse, value: JsonObject, call: Call, *sentences: str
) -> JsonObject:
    served = (
        f"It is served until {value['until']}."
        if model.serving_arn
        else "That is the custom model itself, which the pipeline does not serve: an application asks it through a "
        "custom model deployment or a provisioned throughput."
    )
    first = (
        f"The model of run {model.promoted_run_id} is in use for {dataset}: the parameter "
        f"{parameter_of(gateway, dataset)} names {value['arn']}."
    )
    lines = (first, served, *sentences, f"Execution: {call.execution_arn}")
    return {
        "modelArn": model.model_arn,
        "subject": f"In use: {model.promoted_run_id}"[:99],
        "message": "\n\n".join(line for line in lines if line) + "\n",
    }
