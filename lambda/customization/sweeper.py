"""The sweeper: correctness rests on it, since StopExecution and the machine's timeout skip every Catch."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from customization import budget, leases, model_in_use, promotion, retention
from customization.errors import PipelineError, ReleaseRefused
from customization.gateway.tables import Attr
from customization.json_types import Json, JsonObject
from customization.leases import Lease, Release
from customization.runs import RUNNING

if TYPE_CHECKING:
    from customization.gateway import Gateway

_REFUSED = "refused"
_ENDED = {
    "ABORTED": (
        "Somebody stopped the execution.",
        "Start the run again whenever you like: what was done is adopted.",
    ),
    "TIMED_OUT": (
        "The execution ran longer than the state machine allows.",
        "Look at the job in the Bedrock console, then start the run again: what was done is adopted.",
    ),
    "FAILED": (
        "The execution failed without reaching its own failure handling.",
        "Look at the execution in the Step Functions console, then start the run again.",
    ),
    "GONE": (
        "Step Functions no longer knows the execution.",
        "Start the run again whenever you like: what was done is adopted.",
    ),
}


def sweep(gateway: "Gateway", now: datetime) -> JsonObject:
    """Record runs that died, release what nobody needs, and return {runs, released} as lists of names.

    Raises:
        ReleaseRefused: once everything else is done, so that the alarm on the sweeper's errors goes off.
    """
    runs: list[Json] = list(_record_dead_runs(gateway, now))
    released: list[Json] = []
    for lease, because in leases.overdue(gateway, now):
        released += _released(gateway, lease, now, because)
    for orphan in _orphans(gateway, now):
        released += _released(gateway, orphan, now, "no lease stands for it")
    refused = [str(line) for line in released if _REFUSED in str(line)]
    if refused:
        raise ReleaseRefused(
            "What follows still bills; look at it in the Bedrock console, and at the sweeper's role:\n"
            + "\n".join(refused)
        )
    return {"runs": runs, "released": released}


def _released(gateway: "Gateway", lease: Lease, now: datetime, because: str) -> Iterator[Json]:
    """Release one lease; what cannot be released must not keep the sweeper from the rest."""
    if lease.kind == leases.MODEL and (
        model_in_use.keep_on(gateway, lease.dataset, lease.bedrock_name, now)
        or retention.keep_best(gateway, lease, now)
    ):
        return
    try:
        promotion.withdraw(gateway, lease, now)
        outcome = leases.release(gateway, lease, now, because)
    except PipelineError as error:
        outcome = Release(lease.resource_name, lease.kind, f"{_REFUSED}: {error}")
    if outcome.outcome != "absent":
        yield f"{outcome.kind} {outcome.resource_name}: {outcome.outcome}, since {because}"


def _record_dead_runs(gateway: "Gateway", now: datetime) -> Iterator[str]:
    """Write how a run ended whose execution did not, give its reservation back and tell the topic."""
    for row in gateway.runs.scan(Attr("state").eq(RUNNING)):
        arn, run_id, attempt = str(row["executionArn"]), str(row["runId"]), int(str(row["attempt"]))
        status = gateway.execution_status(arn)[0]
        if status not in _ENDED:
            continue
        cause, fix = _ENDED[status]
        ended: JsonObject = {"state": status, "cause": cause, "fix": fix, "endedAt": now.isoformat()}
        still_dead = Attr("executionArn").eq(arn) & Attr("state").eq(RUNNING)
        if not gateway.runs.update(run_id, ended, condition=still_dead):
            continue
        budget.give_back(gateway, run_id, attempt)
        gateway.publish(
            f"{status.capitalize()}: {run_id}"[:99],
            f"{run_id}: {cause}\n\nWhat to do: {fix}\n\nWhatever it had started that bills is being released.\n"
            f"Execution: {arn}\n",
        )
        yield run_id


def _orphans(gateway: "Gateway", now: datetime) -> Iterator[Lease]:
    """Yield, as leases of nobody, what bears this deployment's name but has no open lease and is no longer new."""
    known = {lease.resource_name for lease in leases.open_leases(gateway)}
    prefix = gateway.settings.name_prefix
    found = [(served.name, served.mode, served.created) for served in gateway.bedrock.all_served()]
    found += [(job.name, leases.JOB, job.created) for job in gateway.bedrock.jobs_in_progress()]
    for name, kind, created in found:
        if name.startswith(prefix) and name not in known and now - created > leases.CREATOR_TIMEOUT:
            yield Lease(
                resource_name=name,
                kind=kind,
                run_id="",
                dataset="",
                execution_arn="",
                opened_at=created,
                hard_end=created + timedelta(0),
            )
