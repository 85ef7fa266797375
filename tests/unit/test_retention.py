"""Of the custom models of a data set the best three outlive their 14 days."""

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from customization import leases, releasing, retention
from customization.json_types import JsonObject
from customization.leases import Lease
from customization.promotion import promote_run, roll_back
from customization.runs import Call, Plan, claim_run, save_plan
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


def test_a_best_model_that_somebody_deletes_leaves_its_place_to_one_that_is_there(
    gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    for day in range(4):
        train(gateway, f"model-{day}", day, scored(0.9 - day / 10))
    bedrock.models.remove("model-0")
    for day in (15, 30, 45):
        sweep(gateway, NOW + timedelta(days=day))
    assert bedrock.models == {"model-1", "model-2", "model-3"}
    assert (gateway.leases.get(f"model-0{leases.MODEL_SUFFIX}") or {})["state"] == "CLOSED"


@pytest.mark.parametrize("end", ["RUNNING", "FAILED", "SUCCEEDED"])
def test_the_model_of_an_earlier_attempt_stays_one_of_the_best_though_its_run_is_forced_again(
    gateway: GatewayInMemory, end: str
) -> None:
    train(gateway, "earlier", 0, {"attempt": 1, "executionArn": "arn:ended", **scored(0.9)})
    for number, attempt in enumerate(("later", "last"), start=1):
        row: JsonObject = {"runId": "shop-earlier", "dataset": "shop", "startedAt": f"2027-0{number}-01T00:00:00+00:00"}
        assert claim_run(gateway, row, f"arn:execution:{attempt}", force=True).attempt == number + 1
        train(gateway, attempt, number, {"state": "FAILED"})
        gateway.runs.update("shop-earlier", {"state": end, "jobName0": attempt, **scored(0.9 - number / 10)})
    assert retention.best_models(gateway, "shop") == ["earlier", *(["later", "last"] if end == "SUCCEEDED" else [])]


def put_in_use(gateway: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, name: str, day: int) -> None:
    """Promote the model of a run that `train` let be."""
    run_id = f"shop-{name}"
    bedrock.models.add(f"arn:model/{name}")
    gateway.runs.update(run_id, {"modelArn0": f"arn:model/{name}"})
    save_plan(gateway, msgspec.structs.replace(plan, run_id=run_id, dataset="shop"))
    promote_run(gateway, run_id, by_hand(f"promote-{name}", day))


def by_hand(execution: str, day: int) -> Call:
    return Call(now=NOW + timedelta(days=day), execution_arn=f"arn:execution:{execution}", run_id="", attempt=0)


def there(bedrock: BedrockInMemory) -> list[str]:
    return [name for name in bedrock.model_names() if not name.startswith("arn:")]


def test_of_ten_models_promoted_in_turn_the_one_in_use_five_before_it_and_the_best_three_stay(
    gateway: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan
) -> None:
    for day in range(10):
        train(gateway, f"model-{day}", day, scored(0.9 - day / 100))
        put_in_use(gateway, bedrock, plan, f"model-{day}", day)
        sweep(gateway, NOW + timedelta(days=day))
    sweep(gateway, NOW + timedelta(days=22))
    assert len(there(bedrock)) == 10
    for day in (24, 40, 400):
        sweep(gateway, NOW + timedelta(days=day))
        assert there(bedrock) == [f"model-{number}" for number in range(10) if number != 3]


def promoted_and_rolled_back(
    gateway: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, keep_model: str = "if-better"
) -> None:
    """Let the model `second`, of a run that asks for `keep_model`, be in use for a day, and then `first` again."""
    for name in ("first", "second"):
        train(gateway, name, 0, {"attempt": 1, **scored(0.5)})
        put_in_use(gateway, bedrock, plan, name, 0)
        asked = msgspec.structs.replace(plan, run_id=f"shop-{name}", keep_model=keep_model)
        releasing.release_model(gateway, asked, replace(by_hand("run", 0), run_id=asked.run_id, attempt=1))
    roll_back(gateway, "shop", by_hand("rollback", 1))
    sweep(gateway, NOW + timedelta(days=1))


@pytest.mark.parametrize(("keep_model", "stays"), [("if-better", False), ("always", True)])
def test_a_rollback_takes_a_model_away_in_14_days_unless_its_request_keeps_it_always(
    gateway: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, keep_model: str, *, stays: bool
) -> None:
    promoted_and_rolled_back(gateway, bedrock, plan, keep_model)
    sweep(gateway, NOW + timedelta(days=14, hours=23))
    assert there(bedrock) == ["first", "second"]
    for day in (15, 30):
        sweep(gateway, NOW + timedelta(days=day))
        assert ("second" in there(bedrock)) is stays


def test_a_model_that_left_use_stays_as_long_as_something_serves_it(
    gateway: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan
) -> None:
    bedrock.serve(mode="on-demand", name="own", model_arn="arn:model/second", tags={}, units=1, token="")
    promoted_and_rolled_back(gateway, bedrock, plan)
    sweep(gateway, NOW + timedelta(days=30))
    assert "second" in there(bedrock)
    bedrock.stop_serving("on-demand", "own")
    for day in (30, 44):
        sweep(gateway, NOW + timedelta(days=day))
    assert there(bedrock) == ["first"]


def test_a_model_stays_while_another_data_set_has_it_in_use(
    gateway: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan
) -> None:
    promoted_and_rolled_back(gateway, bedrock, plan)
    gateway.runs.put({**(gateway.runs.get("shop-second") or {}), "runId": "other-second", "dataset": "other"})
    save_plan(gateway, msgspec.structs.replace(plan, run_id="other-second", dataset="other"))
    promote_run(gateway, "other-second", by_hand("promote-other", 2))
    for day in (3, 20, 40):
        sweep(gateway, NOW + timedelta(days=day))
        assert "second" in there(bedrock)
