"""Answers: kept under what they depend on, so that no answer is paid for twice, whichever run or attempt asks.

The answers of a model to the same test records with the same inference settings lie in one folder, those of a shard in
one folder in it. Each call writes a file of its own there, again and again while it asks, so that a call that dies
loses only what was under way, and two calls for the same shard never overwrite each other's answers: they ask no record
that was answered when they began, and whoever reads the folder takes one answer a record.
"""

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from customization.catalogue import BaseModel, load_catalogue
from customization.errors import AccessDenied, PipelineError, ResourceNotFound, TransientError
from customization.evaluation import (
    BASE,
    CUSTOM,
    IN_USE,
    Pace,
    Prediction,
    answer_records,
    asker,
    encode_predictions,
    shard_range,
)
from customization.formats import TestRecord
from customization.gateway.tables import Attr
from customization.identity import answers_id
from customization.json_types import JsonObject
from customization.model_in_use import ServedModelInUse, model_name_of, serving_at
from customization.money import AnswersUsage
from customization.prepared import data_key, read_profile
from customization.runs import SHARD_ERROR, SHARD_ERROR_OF, Call, Plan, note

if TYPE_CHECKING:
    from customization.gateway import Gateway

# The function is stopped after 900 seconds (stacks/functions.py), a question under way may take two minutes and a
# quarter, and its answer has to be kept.
ASKING_SECONDS = 740.0


def read_test_records(gateway: "Gateway", plan: Plan) -> list[TestRecord]:
    """Return the test records of a run, in their order."""
    return gateway.artifacts.decoded_lines(data_key(plan, "test"), TestRecord)


def model_of(gateway: "Gateway", plan: Plan, side: str) -> str:
    """Return what tells the answers of one model from those of another: an inference id, or a custom model's name.

    A trainingId would not do, since force trains another model with the same one.
    """
    if side == BASE:
        return load_catalogue().find(plan.base_model_identifier).inference_model_id
    return model_name_of(gateway, plan)


def _folder(gateway: "Gateway", plan: Plan, model: str) -> str:
    kept_under = answers_id(
        model=model,
        inference=msgspec.to_builtins(plan.inference),
        test_records=read_profile(gateway, plan).test_digest,
    )
    return f"answers/{kept_under}/"


def _stored(gateway: "Gateway", folder: str) -> dict[str, Prediction]:
    """Return what is stored in a folder and below, by record; an answer comes before an error."""
    found: dict[str, Prediction] = {}
    for item in gateway.artifacts.listed(folder):
        for prediction in gateway.artifacts.decoded_lines(item.key, Prediction):
            if prediction.record_id not in found or found[prediction.record_id].error:
                found[prediction.record_id] = prediction
    return found


@dataclass(frozen=True, kw_only=True)
class AskedModel:
    """A model to be asked: `kept_under` tells its answers from those of others, `model_id` is what Bedrock is given."""

    side: str
    kept_under: str
    model_id: str
    base: BaseModel


def asked_model(
    gateway: "Gateway", plan: Plan, side: str, serving_arn: str, in_use: ServedModelInUse | None
) -> AskedModel:
    """Return the model of one side of the run; `in_use` is the model in use where it is its turn."""
    base = load_catalogue().find(plan.base_model_identifier)
    if side == IN_USE and in_use is not None:
        base = load_catalogue().find(in_use.base_model_identifier)
        return AskedModel(side=side, kept_under=in_use.model_name, model_id=in_use.serving_arn, base=base)
    model_id = base.inference_model_id if side == BASE else serving_arn
    return AskedModel(side=side, kept_under=model_of(gateway, plan, side), model_id=model_id, base=base)


def answer_side(
    gateway: "Gateway",
    plan: Plan,
    call: Call,
    *,
    side: str,
    serving_arn: str,
    in_use: ServedModelInUse | None,
    shard: int,
) -> JsonObject:
    """Do as `answer_shard` with the model of one side of the run, as `asked_model` finds it."""
    return answer_shard(gateway, plan, call, asked_model(gateway, plan, side, serving_arn, in_use), shard)


def answer_shard(gateway: "Gateway", plan: Plan, call: Call, asked: AskedModel, shard: int) -> JsonObject:
    """Ask a model those records of a shard that it has not answered yet, and return {answered, failed} of all.

    What ends the shard is written into the run's row, since the Map that runs the shards tells only that one of them
    failed; it stands there until this shard is asked again.
    A custom model that is gone ends it too, but fails nothing: what was not answered counts as failed, and the
    comparison says why.

    Raises:
        Throttled, ModelNotReady, AccessDenied, ResourceNotFound: what concerns every record of the shard.
        EvaluationUnfinished: the time of one call was not enough.
        BudgetExceeded: the run has been redriven, and the month has no room for it any more.
    """
    shard_name = f"{asked.side}/{shard}"
    if (gateway.runs.get(call.run_id) or {}).get(SHARD_ERROR_OF) == shard_name:
        its_own = Attr(SHARD_ERROR_OF).eq(shard_name) & Attr("attempt").eq(call.attempt)
        gateway.runs.update(call.run_id, {}, remove=(SHARD_ERROR, SHARD_ERROR_OF), condition=its_own)
    try:
        return _answer_shard(gateway, plan, call, asked, shard)
    except (PipelineError, TransientError) as error:
        said = error.text(plan.language) if isinstance(error, PipelineError) else str(error)
        note(gateway, call, {SHARD_ERROR: f"{type(error).__name__}: {said}", SHARD_ERROR_OF: shard_name})
        raise


def _answer_shard(gateway: "Gateway", plan: Plan, call: Call, asked: AskedModel, shard: int) -> JsonObject:
    ends_at = time.monotonic() + ASKING_SECONDS
    places = shard_range(read_profile(gateway, plan).test_records, shard)
    records = gateway.artifacts.decoded_lines(data_key(plan, "test"), TestRecord, places)
    folder = f"{_folder(gateway, plan, asked.kept_under)}{shard:04d}/"
    predictions = _stored(gateway, folder)
    # Whoever comes next asks again what failed: it was not answered, and what failed once may pass
    missing = [item for item in records if item.record_id not in predictions or predictions[item.record_id].error]
    if missing:
        # Not loaded by those who only read answers
        from customization import budget  # noqa: PLC0415  as said above

        budget.renew(gateway, plan, call)
        try:
            new = _ask(gateway, plan, call, asked, missing, folder, ends_at)
            predictions |= {prediction.record_id: prediction for prediction in new}
        except (AccessDenied, ResourceNotFound):
            # IAM finds no tags on what is gone, and so allows no question to it
            if asked.side != CUSTOM or serving_at(gateway, asked.model_id) is not None:
                raise
            note(gateway, call, {"modelLost": asked.model_id})
            predictions |= _stored(gateway, folder)
    answered = [predictions[record.record_id] for record in records if record.record_id in predictions]
    failed = len(records) - sum(1 for prediction in answered if not prediction.error)
    return {"answered": len(records) - failed, "failed": failed}


def _ask(  # noqa: PLR0917  three say who asks, four what
    gateway: "Gateway",
    plan: Plan,
    call: Call,
    asked: AskedModel,
    records: list[TestRecord],
    folder: str,
    ends_at: float,
) -> list[Prediction]:
    key = f"{folder}{uuid.uuid4().hex}.jsonl"
    answered: list[Prediction] = []

    def keep(predictions: list[Prediction]) -> None:
        answered[:] = predictions
        gateway.artifacts.put(key, encode_predictions(predictions), "application/x-ndjson")

    # Made here: threads may share a client, but not make one at the same time (Boto3 guide, "Clients")
    runtime = gateway.runtime
    ask = asker(
        model=asked.base,
        model_id=asked.model_id,
        side=asked.side,
        inference=plan.inference,
        send=lambda question: runtime.ask(question.operation, question.parameters),
        timer=time.perf_counter,
    )
    try:
        return answer_records(records, ask, Pace(timer=time.monotonic, pause=time.sleep, ends_at=ends_at), keep)
    finally:
        _count_tokens(gateway, call, asked.side, answered)


def _count_tokens(gateway: "Gateway", call: Call, side: str, answered: list[Prediction]) -> None:
    """Add what this call's answers bill to the run's row: answers that were found again bill nothing."""
    given = [(answer.input_tokens or 0, answer.output_tokens or 0) for answer in answered]
    if given:
        gateway.runs.update(
            call.run_id,
            {},
            add={
                f"{side}InputTokens": float(sum(tokens for tokens, _ in given)),
                f"{side}OutputTokens": float(sum(tokens for _, tokens in given)),
            },
            condition=Attr("attempt").eq(call.attempt),
        )


def tokens_asked_for(row: JsonObject, side: str) -> AnswersUsage:
    """Return the tokens that the run of `row` has asked for and got from one side."""
    return AnswersUsage(float(str(row.get(f"{side}InputTokens") or 0)), float(str(row.get(f"{side}OutputTokens") or 0)))


def read_answers(gateway: "Gateway", plan: Plan, model: str, side: str) -> list[Prediction]:
    """Return the kept answers of one model to the run's test records, as those of `side`; empty where it has none."""
    stored = _stored(gateway, _folder(gateway, plan, model))
    return [msgspec.structs.replace(prediction, side=side) for prediction in stored.values()]
