"""Metrics: what each verdict, sweep and throttled call tells CloudWatch."""

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, get_args

import msgspec
import pytest

from customization import handlers, metrics
from customization.errors import ServiceUnavailable, Throttled
from customization.history import RunSummary, ScoreInterval
from customization.json_types import JsonObject
from customization.sweeper import Action, LiveLease, Swept
from customization.verdict import Verdict
from tests.unit.fakes import EXECUTION, NOW, SETTINGS

if TYPE_CHECKING:
    from customization.gateway import Gateway

NOTHING = Swept(runs=(), released=(), refused=(), live=(), overdue=(), lifecycles=())


def run(verdict: str) -> RunSummary:
    scores = {"base": ScoreInterval(0.25, 0.2, 0.3), "custom": ScoreInterval(0.75, 0.7, 0.8)}
    return RunSummary(
        run_id="shop-0123456789",
        dataset="shop",
        state="SUCCEEDED",
        verdict=verdict,
        started_at="2026-11-22T09:00:00+00:00",
        spent_usd=1.5,
        estimated_usd=2.0,
        training_loss=0.5,
        scores=scores,
        minutes={"ofTraining": 35.0},
    )


def lease(kind: str, hourly_usd: float | None) -> LiveLease:
    return LiveLease(
        resource_name=f"a-{kind}",
        kind=kind,
        run_id="shop-0123456789",
        dataset="shop",
        hard_end=NOW + timedelta(hours=1),
        hourly_usd=hourly_usd,
    )


def test_each_verdict_counts_as_an_outcome_of_its_own() -> None:
    outcomes = {verdict: next(iter(metrics.of_run(run(verdict)))) for verdict in get_args(Verdict)}
    assert outcomes == {
        "better": "RunsBetter",
        "worse": "RunsWorse",
        "inconclusive": "RunsInconclusive",
        "not compared": "RunsNotCompared",
    }


def test_a_run_tells_what_is_known_of_it_and_nothing_else() -> None:
    assert metrics.of_run(run("better")) == {
        "RunsBetter": 1,
        "EstimatedUsd": 2.0,
        "SpentUsd": 1.5,
        "TrainingLoss": 0.5,
        "BaseModelScore": 0.25,
        "CustomModelScore": 0.75,
        "MinutesOfTraining": 35.0,
    }


def test_a_run_without_a_report_tells_what_it_spent_and_one_that_never_came_to_its_budget_nothing() -> None:
    failed = msgspec.structs.replace(run(""), state="FAILED", spent_usd=0.0)
    assert metrics.of_spend(failed) == {"EstimatedUsd": 2.0, "SpentUsd": 0.0}
    assert metrics.of_spend(msgspec.structs.replace(failed, spent_usd=None)) == {}


def test_a_sweep_prices_what_lives_and_counts_what_has_no_price_by_itself() -> None:
    live = (lease("provisioned", 60.5), lease("provisioned", None), lease("on-demand", 0.0), lease("model", None))
    told = metrics.of_sweep(
        Swept(
            runs=("a",),
            released=(Action("a", "x"),),
            refused=(Action("a", "y"),),
            live=live,
            overdue=("z",),
            lifecycles=("LEGACY", "ACTIVE"),
        )
    )
    assert told == {
        "LiveResources": 3,
        "LiveUsdPerHour": 60.5,
        "StoredModels": 1,
        "OverdueLeases": 1,
        "UnpricedResources": 1,
        "SweeperActions": 1,
        "RunsStopped": 1,
        "LegacyModels": 1,
    }


def test_an_idle_sweep_tells_only_what_the_idle_cost_counts() -> None:
    assert metrics.of_sweep(NOTHING) == dict.fromkeys(
        ("LiveResources", "LiveUsdPerHour", "StoredModels", "OverdueLeases"), 0
    )


@pytest.mark.parametrize(("error", "counted"), [(Throttled("slow down"), [1.0]), (ServiceUnavailable("gone"), [])])
def test_a_throttled_call_is_counted_and_raised_all_the_same(
    error: Exception, counted: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Test")
    monkeypatch.setattr(handlers, "connect", lambda: SimpleNamespace(settings=SETTINGS))

    @handlers.task
    def handler(_event: JsonObject, _gateway: "Gateway") -> JsonObject:
        raise error

    with pytest.raises(type(error)):
        handler({"runId": "shop-1", "executionArn": EXECUTION}, SimpleNamespace(aws_request_id="1"))  # type: ignore[arg-type]  # all it reads of a context
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "_aws" in line]
    assert [said["Throttles"][0] for said in written] == counted
    assert [(said["runId"], said["deployment"]) for said in written] == [("shop-1", "dev-0a1b2c3d")] * len(counted)
