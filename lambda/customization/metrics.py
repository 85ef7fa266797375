"""What CloudWatch is told: the metrics by name, and their values for a run that ended, an account and a sweep.

A metric costs by the month as long as values come for it. Those of a sweep come all the time; the others come when a
run ends, and a metric that has no value for an hour is not billed for that hour.
"""

from typing import TYPE_CHECKING

from customization.evaluation import BASE, CUSTOM
from customization.gateway.bedrock import PROVISIONED
from customization.leases import MODEL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from customization.history import RunSummary
    from customization.json_types import JsonObject
    from customization.sweeper import Swept

THROTTLES = "Throttles"
RUNS_FAILED = "RunsFailed"
LEGACY_MODELS = "LegacyModels"
# Everything else is counted. CloudWatch has no unit for money, and minutes read better than its seconds
WITHOUT_UNIT = {
    *("EstimatedUsd", "SpentUsd", "LiveUsdPerHour"),
    *("TrainingLoss", "ValidationLoss", "BaseModelScore", "CustomModelScore"),
    *("MinutesBeforeTraining", "MinutesOfTraining", "MinutesOfServing"),
}
_LEGACY = {"LEGACY", "ENDED"}
_OUTCOMES = {
    "better": "RunsBetter",
    "worse": "RunsWorse",
    "inconclusive": "RunsInconclusive",
    "not compared": "RunsNotCompared",
}
_SCORES = {BASE: "BaseModelScore", CUSTOM: "CustomModelScore"}


def of_run(run: "RunSummary") -> dict[str, float]:
    """Return how a run ended well, what it was estimated at and spent in USD, its last losses, scores and minutes.

    Scores are those of the run's primary metric, from 0 to 1. What did not come to pass has no value.
    """
    known: dict[str, float | None] = {
        "EstimatedUsd": run.estimated_usd,
        "SpentUsd": run.spent_usd,
        "TrainingLoss": run.training_loss,
        "ValidationLoss": run.validation_loss,
        **{name: run.scores[side].mean for side, name in _SCORES.items() if side in run.scores},
        **{f"Minutes{part[0].upper()}{part[1:]}": minutes for part, minutes in run.minutes.items()},
    }
    return {_OUTCOMES[run.verdict]: 1, **{name: value for name, value in known.items() if value is not None}}


def of_spend(run: "RunSummary") -> dict[str, float]:
    """Return what a run that ended without a report was estimated at and spent in USD; nothing before its budget."""
    known = {"EstimatedUsd": run.estimated_usd, "SpentUsd": run.spent_usd}
    return {name: value for name, value in known.items() if value is not None} if run.spent_usd is not None else {}


def about_run(run: "RunSummary") -> "JsonObject":
    """Return which run the metrics of `of_run` are of."""
    return {
        "runId": run.run_id,
        "dataset": run.dataset,
        "baseModelIdentifier": run.base_model_identifier,
        "verdict": run.verdict,
        "metric": run.metric,
        "executionArn": run.execution_arn,
    }


def of_sweep(swept: "Swept") -> dict[str, float]:
    """Return what bills after a sweep, in USD an hour where a price is known, and what the sweep had to do.

    What seldom happens has no value where it did not: a metric without values costs nothing.
    """
    running = [lease for lease in swept.live if lease.kind != MODEL]
    seldom = {
        "UnpricedResources": sum(1 for lease in running if lease.kind == PROVISIONED and lease.hourly_usd is None),
        "SweeperActions": len(swept.released),
        "RunsStopped": len(swept.runs),
    }
    return {
        "LiveResources": len(running),
        "LiveUsdPerHour": sum(lease.hourly_usd or 0.0 for lease in running),
        "StoredModels": len(swept.live) - len(running),
        "OverdueLeases": len(swept.overdue),
        **{name: count for name, count in seldom.items() if count},
        **of_lifecycles(swept.lifecycles),
    }


def of_lifecycles(statuses: "Iterable[str | None]") -> dict[str, float]:
    """Return how many models are legacy, which means that AWS will end them, or have ended; nothing where none is."""
    count = sum(1 for status in statuses if status in _LEGACY)
    return {LEGACY_MODELS: count} if count else {}
