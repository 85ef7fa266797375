"""The model in use for a data set: a row in the table of runs, and the SSM parameter that names it to applications."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from customization import leases
from customization.gateway.bedrock import ON_DEMAND, PROVISIONED, ServedModel
from customization.gateway.tables import Attr, Condition
from customization.identity import parameter_name
from customization.json_types import Json, JsonObject
from customization.leases import Lease
from customization.runs import Plan

if TYPE_CHECKING:
    from customization.gateway import Gateway

# An item in DynamoDB holds 400 KB, and nobody goes back further.
_REMEMBERED = 5
_MOST_TURNS = 3


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


def put_in_use(
    gateway: "Gateway", dataset: str, model: ModelInUse, now: datetime, *, instead_of: ModelInUse | None
) -> JsonObject | None:
    """Make `model` the one in use instead of what was read, keep it, and return {arn, until} as the parameter has them.

    Returns None, with nothing changed, where another was put in use since that was read. The parameter follows the row;
    `settle_parameter` does it for whoever dies in between.
    """
    leases.keep(gateway, f"{model.model_name}{leases.MODEL_SUFFIX}", now + leases.WITHOUT_END)
    row: JsonObject = msgspec.json.decode(msgspec.json.encode(model))
    if not gateway.runs.put({"runId": _key(dataset), **row}, _unchanged(instead_of)):
        return None
    known = Attr("runId").exists()
    gateway.runs.update(model.promoted_run_id, {"promotedAt": now.isoformat()}, condition=known)
    _name(gateway, dataset, model)
    return _value(model)


def _unchanged(model: ModelInUse | None) -> Condition:
    """Return the condition that the row is the one that was read, or that there still is none."""
    if model is None:
        return Attr("runId").not_exists()
    is_same_model = Attr("modelArn").eq(model.model_arn) & Attr("servingArn").eq(model.serving_arn)
    return is_same_model & Attr("changedBy").eq(model.changed_by)


def _value(model: ModelInUse) -> JsonObject:
    until = model.until.isoformat() if model.until else None
    return {"arn": model.serving_arn or model.model_arn, "until": until}


def _name(gateway: "Gateway", dataset: str, model: ModelInUse) -> None:
    """Let the parameter name `model`, or the one that was put in use while it was written."""
    gateway.put_parameter(parameter_of(gateway, dataset), json.dumps(_value(model)))
    current = read_in_use(gateway, dataset)
    if current and _value(current) != _value(model):
        _name(gateway, dataset, current)


def settle_parameter(gateway: "Gateway", dataset: str) -> str:
    """Let the parameter say what the row says, or remove it where there is no row; return what was done, else "".

    They differ where somebody died between the two, or changed one of them by hand.
    """
    name, done = parameter_of(gateway, dataset), ""
    # Another may be put in use or removed meanwhile; what differs after so many turns is for the next sweep
    for _ in range(_MOST_TURNS):
        # Whoever puts a model in use writes the row first: what differs in this order is no promotion under way
        found, current = gateway.parameter(name), read_in_use(gateway, dataset)
        expected = json.dumps(_value(current)) if current else None
        if found == expected:
            break
        if expected is None:
            gateway.delete_parameter(name)
        else:
            gateway.put_parameter(name, expected)
        says, instead_of = expected or "nothing", found or "nothing"
        done = done or f"parameter {name}: says {says}, as the table of runs does, instead of {instead_of}"
    return done


def note_swap(gateway: "Gateway", dataset: str, current: ModelInUse, asked: SwapRequest | None) -> None:
    """Note who waits for another model behind the deployment of `current`, while that is the model in use."""
    same = Attr("modelArn").eq(current.model_arn)
    gateway.runs.update(_key(dataset), {"swap": msgspec.to_builtins(asked)}, condition=same)


def remove_in_use(gateway: "Gateway", dataset: str, current: ModelInUse | None = None) -> bool:
    """Let no model be in use, or not `current` where that was read; return False where another is by now.

    The row goes after the parameter, so that a removal that was cut short is done again.
    """
    gateway.delete_parameter(parameter_of(gateway, dataset))
    is_removed = gateway.runs.delete(_key(dataset), _unchanged(current) if current else None)
    settle_parameter(gateway, dataset)
    return is_removed


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
        leases.keep(gateway, f"{model_name}{leases.MODEL_SUFFIX}", now + leases.WITHOUT_END)
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


def held_models(gateway: "Gateway") -> set[str]:
    """Return the names of the custom models that are in use or may be put back, for whatever data set."""
    held = (read_in_use(gateway, dataset) for dataset in datasets_in_use(gateway))
    return {model.model_name for in_use in held if in_use for model in (in_use, *in_use.previous)}


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


def kind_of_serving(serving_arn: str) -> str:
    return PROVISIONED if ":provisioned-model/" in serving_arn else ON_DEMAND


def serving_at(gateway: "Gateway", serving_arn: str) -> ServedModel | None:
    """Return the deployment or throughput of that ARN, or None where it is gone."""
    return gateway.bedrock.served(kind_of_serving(serving_arn), serving_arn)


def missing_of(gateway: "Gateway", model: ModelInUse) -> tuple[str, str] | None:
    """Return kind and name of what the parameter rests on and Bedrock does not have, or None."""
    if not gateway.bedrock.model_is_there(model.model_arn):
        return leases.MODEL, model.model_name
    if model.serving_arn and serving_at(gateway, model.serving_arn) is None:
        return kind_of_serving(model.serving_arn), model.serving_name
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


def serving_name_of(gateway: "Gateway", plan: Plan) -> str:
    """Return the name of what serves the custom model of the run, empty before it is asked for."""
    return str((gateway.runs.get(plan.run_id) or {}).get("servingName") or "")


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
