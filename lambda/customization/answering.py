"""Answers: kept under what they depend on, so that no answer is paid for twice, whichever run or attempt asks."""

import time
from typing import TYPE_CHECKING

import msgspec

from customization.catalogue import load_catalogue
from customization.errors import PipelineError, TransientError
from customization.evaluation import BASE, Prediction, answer_records, asker, decode_predictions, encode_predictions
from customization.formats import TestRecord
from customization.identity import answers_id
from customization.json_types import JsonObject
from customization.preparation import SHARD_RECORDS, data_key, read_profile, shard_count
from customization.runs import Call, Plan, note

if TYPE_CHECKING:
    from customization.gateway import Gateway

CONCURRENCY = 8


def read_test_records(gateway: "Gateway", plan: Plan) -> list[TestRecord]:
    """Return the test records of a run, in their order."""
    return msgspec.json.Decoder(TestRecord).decode_lines(gateway.artifacts.read(data_key(plan, "test")))


def model_of(plan: Plan, side: str) -> str:
    """Return what tells the answers of one model from those of another: an inference id, or a trainingId."""
    return load_catalogue().find(plan.base_model_identifier).inference_model_id if side == BASE else plan.training_id


def _answers_key(gateway: "Gateway", plan: Plan, model: str, shard: int) -> str:
    kept_under = answers_id(
        model=model,
        inference=msgspec.to_builtins(plan.inference),
        test_records=read_profile(gateway, plan).test_digest,
    )
    return f"answers/{kept_under}/{shard:04d}.jsonl"


def answer_shard(gateway: "Gateway", plan: Plan, call: Call, *, side: str, shard: int, serving_arn: str) -> JsonObject:
    """Ask a model one shard, unless its answers are kept already, and return {answered, failed} records.

    What ends the shard is written into the run's row: the Map that runs the shards tells only that one of them failed.

    Raises:
        Throttled, ModelNotReady, AccessDenied, ResourceNotFound: what concerns every record of the shard.
    """
    try:
        return _answer_shard(gateway, plan, side, shard, serving_arn)
    except (PipelineError, TransientError) as error:
        note(gateway, call, {"shardError": f"{type(error).__name__}: {error}"})
        raise


def _answer_shard(gateway: "Gateway", plan: Plan, side: str, shard: int, serving_arn: str) -> JsonObject:
    key = _answers_key(gateway, plan, model_of(plan, side), shard)
    kept = gateway.artifacts.read_if_there(key)
    if kept is None:
        base = load_catalogue().find(plan.base_model_identifier)
        model_id = base.inference_model_id if side == BASE else serving_arn
        predictions = _ask(gateway, plan, model_id, side, shard)
        gateway.artifacts.put(key, encode_predictions(predictions), "application/x-ndjson")
    else:
        predictions = decode_predictions(kept)
    failed = sum(1 for prediction in predictions if prediction.error)
    return {"answered": len(predictions) - failed, "failed": failed}


def _ask(gateway: "Gateway", plan: Plan, model_id: str, side: str, shard: int) -> list[Prediction]:
    base = load_catalogue().find(plan.base_model_identifier)
    records = read_test_records(gateway, plan)[shard * SHARD_RECORDS : (shard + 1) * SHARD_RECORDS]
    # Made here: threads may share a client, but not make one at the same time (Boto3 guide, "Clients")
    runtime = gateway.runtime
    ask = asker(
        model=base,
        model_id=model_id,
        side=side,
        inference=plan.inference,
        send=lambda call: runtime.ask(call.operation, call.parameters),
        timer=time.perf_counter,
    )
    return answer_records(records, ask, CONCURRENCY, time.sleep)


def read_answers(gateway: "Gateway", plan: Plan, model: str, records: int) -> list[Prediction]:
    """Return the kept answers of one model to the run's test records, in their order; empty where it was not asked."""
    answers: list[Prediction] = []
    for shard in range(shard_count(records)):
        kept = gateway.artifacts.read_if_there(_answers_key(gateway, plan, model, shard))
        answers += decode_predictions(kept) if kept else []
    return answers
