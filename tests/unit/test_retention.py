"""Of the custom models of a data set the best three outlive their 14 days."""

from datetime import timedelta

from customization import leases, retention
from customization.json_types import JsonObject
from customization.leases import Lease
from customization.sweeper import sweep
from tests.unit.fakes import NOW, BedrockInMemory, GatewayInMemory


def train(gateway: GatewayInMemory, name: str, day: int, row: JsonObject, dataset: str = "shop") -> None:
    """Let there be a run that has succeeded, its model and the model's lease of 14 days."""
    began = NOW + timedelta(days=day)
    known: JsonObject = {"runId": f"{dataset}-{name}", "dataset": dataset, "state": "SUCCEEDED", "jobName0": name}
    gateway.runs.put({**known, "startedAt": began.isoformat(), "verdict": "better", **row})
    gateway.__dict__["bedrock"].models.add(name)
    leases.open_lease(
        gateway,
        Lease(
            resource_name=f"{name}{leases.MODEL_SUFFIX}",
            kind=leases.MODEL,
            run_id=f"{dataset}-{name}",
            dataset=dataset,
            execution_arn="arn:ended",
            opened_at=began,
            hard_end=began + leases.MODEL_RETENTION,
            keep_until=began + leases.MODEL_RETENTION,
        ),
    )


def scored(mean: float, test: str = "a") -> JsonObject:
    return {"metric": "exactMatch", "testDigest": test, "scores": {"custom": {"mean": mean, "low": 0, "high": 1}}}


def test_the_best_by_score_come_first_and_then_the_latest_without_one(gateway: GatewayInMemory) -> None:
    train(gateway, "middling", 0, scored(0.5))
    train(gateway, "unscored", 1, {"verdict": "not compared"})
    train(gateway, "best", 2, scored(0.9))
    assert retention.best_models(gateway, "shop") == ["best", "middling", "unscored"]
    train(gateway, "good", 3, scored(0.7))
    train(gateway, "worse", 4, {"verdict": "worse", **scored(1.0)})
    assert retention.best_models(gateway, "shop") == ["best", "good", "middling"]


def test_scores_on_other_test_records_than_the_latest_count_as_none(gateway: GatewayInMemory) -> None:
    for day in range(3):
        train(gateway, f"old-{day}", day, scored(0.9))
    train(gateway, "new", 3, scored(0.1, "b"))
    assert retention.best_models(gateway, "shop") == ["new", "old-2", "old-1"]


def test_a_model_of_several_runs_counts_once_and_one_that_is_gone_not_at_all(gateway: GatewayInMemory) -> None:
    train(gateway, "shared", 0, scored(0.9))
    gateway.runs.put({**(gateway.runs.get("shop-shared") or {}), "runId": "shop-again"})
    train(gateway, "gone", 1, scored(0.8))
    gateway.leases.update(f"gone{leases.MODEL_SUFFIX}", {"state": "CLOSED"})
    train(gateway, "two-stages", 2, {"jobName1": "second", **scored(0.7)})
    assert retention.best_models(gateway, "shop") == ["shared"]


def test_the_sweeper_keeps_what_is_young_or_one_of_the_best_three_and_nothing_else(
    gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    for day in range(6):
        train(gateway, f"model-{day}", day, scored(0.9 - day / 10))
    train(gateway, "other", 0, {"verdict": "not compared"}, "another")
    train(gateway, "failed", 0, {"state": "FAILED"})
    sweep(gateway, NOW + timedelta(days=13))
    assert len(bedrock.models) == 8
    sweep(gateway, NOW + timedelta(days=18))
    assert bedrock.models == {"model-0", "model-1", "model-2", "model-5", "other"}
    sweep(gateway, NOW + timedelta(days=60))
    assert bedrock.models == {"model-0", "model-1", "model-2", "other"}

    train(gateway, "better", 61, scored(0.99))
    sweep(gateway, NOW + timedelta(days=62, hours=1))
    assert bedrock.models == {"better", "model-0", "model-1", "other"}
