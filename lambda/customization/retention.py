"""Which custom models outlive the 14 days that every model is kept: the best three of each data set.

The model in use and those before it are `model_in_use`'s affair, and what a request keeps always stays anyway.
"""

from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING

from customization import leases
from customization.gateway.tables import Attr
from customization.json_types import Json, JsonObject
from customization.model_in_use import held_models, read_in_use
from customization.runs import SUCCEEDED, former_results, last_job_name

if TYPE_CHECKING:
    from customization.gateway import Gateway
    from customization.leases import Lease

KEPT = 3
# How long the answer holds for a model that stays: better ones may come.
LOOK_AGAIN = timedelta(days=1)


def end_left(gateway: "Gateway", held: "list[Lease]", now: datetime) -> None:
    """Let the models go in 14 days that left use and can no longer be put back; `held` are the open leases.

    What a request keeps always stays, and so does what is served: Bedrock would refuse to delete it.
    """
    soon = now + leases.MODEL_RETENTION
    lasting = {
        lease.bedrock_name: lease
        for lease in held
        if lease.kind == leases.MODEL and lease.keep_until and lease.keep_until > soon
    }
    left = lasting.keys() - held_models(gateway)
    if not left:
        return
    for name in left - _kept_always(gateway) - _served(gateway):
        leases.end(gateway, lasting[name].resource_name, soon)


def _kept_always(gateway: "Gateway") -> set[str]:
    rows = gateway.runs.scan(Attr("keepModel").exists() | Attr("former").exists())
    results = [result for row in rows for result in (row, *former_results(row))]
    return {last_job_name(result) for result in results if result.get("keepModel") == "always"}


def _served(gateway: "Gateway") -> set[str]:
    arns = {served.model_arn for served in gateway.bedrock.all_served()}
    return {name for name, arn in gateway.bedrock.model_arns().items() if arn in arns}


def keep_best(gateway: "Gateway", lease: "Lease", now: datetime) -> bool:
    """Return whether the model of `lease` is one of the best of its data set, and if so keep it for another day."""
    if not lease.dataset or lease.bedrock_name not in best_models(gateway, lease.dataset):
        return False
    leases.keep(gateway, lease.resource_name, now + LOOK_AGAIN)
    return True


def best_models(gateway: "Gateway", dataset: str) -> list[str]:
    """Return the names of the best models of a data set that still exist, best first, at most three.

    Scores are compared where metric and test records are those of the latest run that has a score; models without such
    a score come after those, the latest first. A run that was forced again has a model of each attempt. A model that is
    worse than what it was compared with is never one, nor is the one that a rollback took out of use.
    """
    # A lease outlives a model that somebody deletes
    living = {
        lease.bedrock_name
        for lease in leases.open_leases(gateway)
        if lease.kind == leases.MODEL and lease.dataset == dataset
    }.intersection(gateway.bedrock.model_names())
    in_use = read_in_use(gateway, dataset)
    rolled_back = in_use.rolled_back_run_id if in_use else ""
    has_result = Attr("state").eq(SUCCEEDED) | Attr("former").exists()
    runs = [row for row in gateway.runs.scan(Attr("dataset").eq(dataset) & has_result) if row["runId"] != rolled_back]
    results = [*(row for row in runs if row["state"] == SUCCEEDED), *chain.from_iterable(map(former_results, runs))]
    good = (row for row in results if row.get("verdict") != "worse")
    rows = sorted(good, key=lambda row: str(row.get("startedAt")))
    test = next((_test(row) for row in reversed(rows) if _score(row) is not None), None)
    ranked = sorted(rows, key=lambda row: _rank(row, test), reverse=True)
    names = dict.fromkeys(name for name in map(last_job_name, ranked) if name in living)
    return list(names)[:KEPT]


def _rank(row: JsonObject, test: tuple[Json, Json] | None) -> tuple[bool, float, str]:
    score = _score(row)
    is_comparable = score is not None and _test(row) == test
    return is_comparable, score if is_comparable and score is not None else 0.0, str(row.get("startedAt"))


def _test(row: JsonObject) -> tuple[Json, Json]:
    return row.get("metric"), row.get("testDigest")


def _score(row: JsonObject) -> float | None:
    scores = row.get("scores")
    custom = scores.get("custom") if isinstance(scores, dict) else None
    value = custom.get("mean") if isinstance(custom, dict) else None
    return float(value) if isinstance(value, int | float) else None
