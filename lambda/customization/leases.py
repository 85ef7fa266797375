"""Leases: what is billed while it exists, who needs it, and who takes it away.

A lease is written before its resource is created, so that a creator that dies leaves a trace. The sweeper trusts
nothing else: it asks Step Functions whether the execution still runs and Bedrock whether the resource is still there.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import msgspec

from customization.errors import Conflict, ReleaseRefused, RequestRejected, ResourceNotFound
from customization.gateway.bedrock import ON_DEMAND, PROVISIONED
from customization.gateway.tables import Attr, Condition
from customization.json_types import JsonObject
from customization.money import billed_hours
from customization.runs import MOST_STAGES, RUNNING, SUCCEEDED, Call, Plan, note

if TYPE_CHECKING:
    from customization.gateway import Gateway

JOB = "job"
MODEL = "model"
SERVING = (ON_DEMAND, PROVISIONED)
MODEL_SUFFIX = "/model"
_OPEN = "OPEN"
_IS_OPEN = Attr("state").eq(_OPEN)

# A creating function is stopped by then (AWS Lambda quotas: 900 s), so what is absent later was never created.
CREATOR_TIMEOUT = timedelta(minutes=15)
# Models are kept this long for a later attempt to adopt, unless somebody keeps or promotes them.
MODEL_RETENTION = timedelta(days=14)
# What a person asked to keep without an end: the lease stays open and is shown as billing until somebody releases it.
WITHOUT_END = timedelta(days=3650)


class Lease(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One billable resource.

    `arn` is that of what serves a model, "" until it is known: a name can be changed. `created_at` is when Bedrock made
    it, None until that is known. `keep_until` is when it stops being needed though no execution runs, `hard_end` the
    last moment that the budget pays for; `hourly_usd` is None where no source gives a price. `end_told` is the coming
    end of which people were told, `releasing_since` when its release was first tried.
    """

    resource_name: str
    kind: str
    run_id: str
    dataset: str
    execution_arn: str
    opened_at: datetime
    hard_end: datetime
    arn: str = ""
    created_at: datetime | None = None
    keep_until: datetime | None = None
    hourly_usd: float | None = None
    end_told: datetime | None = None
    releasing_since: datetime | None = None
    state: str = _OPEN
    closed_at: datetime | None = None
    closed_because: str = ""

    @property
    def bedrock_name(self) -> str:
        """Return the name that Bedrock knows: a job and its model share theirs."""
        return self.resource_name.removesuffix(MODEL_SUFFIX)

    @property
    def identifier(self) -> str:
        """Return what Bedrock finds the resource by, whatever its name is by now."""
        return self.arn or self.bedrock_name

    def hours(self, now: datetime) -> int:
        """Return the hours that are billed for what serves a model, those to come until `keep_until` included."""
        end = self.closed_at or max(now, self.keep_until or now)
        return billed_hours(self.created_at, end) if self.created_at else 0

    def paid_until(self, until: datetime) -> datetime:
        """Return `until`, or the hard end before it where hours are billed: nobody pays for more of them."""
        return min(until, self.hard_end) if self.hourly_usd else until


class Release(msgspec.Struct, frozen=True, rename="camel"):
    """What became of one lease: released, stopping (gone soon), absent, refused or handedOver to another run."""

    resource_name: str
    kind: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.kind} {self.resource_name}: {self.outcome}"


def kept_for(plan: Plan) -> timedelta | None:
    """Return how long the request keeps what serves its model after the run, or None."""
    if plan.keep is True:
        return WITHOUT_END
    return timedelta(hours=plan.keep) if plan.keep else None


def open_lease(gateway: "Gateway", lease: Lease) -> None:
    """Write the lease; one that is open is taken over, with its times where somebody was promised later ones.

    Raises ArtifactUnreadable where the row that is there is damaged.
    """
    row = gateway.leases.get(lease.resource_name) or {}
    if row.get("state") == _OPEN:
        values = msgspec.to_builtins(_later(gateway.leases.decoded(row, Lease), lease))
        unchanged = _IS_OPEN & Attr("keepUntil").eq(row["keepUntil"])
    else:
        values = msgspec.to_builtins(lease)
        unchanged = Attr("state").not_exists() | Attr("state").ne(_OPEN)
    if not gateway.leases.put(values, unchanged):
        open_lease(gateway, lease)


def _later(before: Lease, lease: Lease) -> Lease:
    """Return `lease` with the times of `before` where they promise more."""
    if before.keep_until is None:
        return lease
    until = max(before.keep_until, lease.keep_until or before.keep_until)
    hard_end = max(before.hard_end, lease.hard_end)
    return msgspec.structs.replace(lease, keep_until=until, hard_end=hard_end, end_told=before.end_told)


def open_leases(gateway: "Gateway") -> list[Lease]:
    """Return every lease that is not closed; raises ArtifactUnreadable where a row is damaged."""
    return [gateway.leases.decoded(row, Lease) for row in open_rows(gateway)]


def open_rows(gateway: "Gateway") -> list[JsonObject]:
    """Return the rows of the leases that are not closed, damaged ones too."""
    return gateway.leases.scan(_IS_OPEN)


def of_run(gateway: "Gateway", run_id: str) -> list[Lease]:
    """Return every lease of a run, closed ones too."""
    return [gateway.leases.decoded(row, Lease) for row in gateway.leases.scan(Attr("runId").eq(run_id))]


def find(gateway: "Gateway", run_id: str, resource_name: str) -> Lease | None:
    """Return the lease that a run has, or had, of a resource."""
    return next((lease for lease in of_run(gateway, run_id) if lease.resource_name == resource_name), None)


def of_run_there(gateway: "Gateway", run_id: str) -> list[Lease]:
    """Return the leases of a run whose resource Bedrock has, or had until it was released."""
    return [
        lease
        for lease in of_run(gateway, run_id)
        if (_is_there(gateway, lease) if lease.state == _OPEN else lease.created_at is not None)
    ]


def _is_there(gateway: "Gateway", lease: Lease) -> bool:
    if lease.kind == MODEL:
        return gateway.bedrock.model_is_there(lease.bedrock_name)
    if lease.kind == JOB:
        return gateway.bedrock.job(lease.bedrock_name) is not None
    return gateway.bedrock.served(lease.kind, lease.identifier) is not None


def close_unmade_models(gateway: "Gateway", call: Call) -> None:
    """Close the leases of this execution's models whose jobs have ended without making one."""
    for lease in of_run(gateway, call.run_id):
        if lease.kind != MODEL or lease.state != _OPEN or lease.execution_arn != call.execution_arn:
            continue
        job = gateway.bedrock.job(lease.bedrock_name)
        if job and job.status in {"Failed", "Stopped"} and not gateway.bedrock.model_is_there(lease.bedrock_name):
            close(gateway, lease, call.now, f"its job has {job.status.lower()}", was_there=False)


def keep(gateway: "Gateway", resource_name: str, until: datetime) -> None:
    """Let a resource outlive its execution until then, or until later where that was promised before."""
    promised = Attr("keepUntil")
    is_later = promised.eq(None) | promised.lt(until.isoformat())
    gateway.leases.update(resource_name, _until(until), condition=_IS_OPEN & is_later)


def end(gateway: "Gateway", resource_name: str, at: datetime) -> None:
    """Let a resource outlive its execution until then and no longer, whatever was promised before."""
    gateway.leases.update(resource_name, _until(at), condition=_IS_OPEN)


def _until(time: datetime) -> JsonObject:
    return {"keepUntil": time.isoformat(), "hardEnd": time.isoformat()}


def close(gateway: "Gateway", lease: Lease, now: datetime, because: str, *, was_there: bool) -> None:
    """Mark the lease closed; if the resource existed, it bills from opened_at where its creation time is unknown."""
    created = msgspec.to_builtins(lease.created_at or (lease.opened_at if was_there else None))
    gateway.leases.update(
        lease.resource_name,
        {"state": "CLOSED", "closedAt": now.isoformat(), "closedBecause": because, "createdAt": created},
        condition=Attr("openedAt").eq(msgspec.to_builtins(lease.opened_at)),
    )


def release(gateway: "Gateway", lease: Lease, now: datetime, because: str) -> Release:
    """Take the resource of a lease away and close the lease once it is proven gone.

    What AWS refuses for now, while a resource is being created or changed, stays open for the next sweep, and nothing
    keeps it any more. A job or a model that another run under way has adopted is left to that run.

    Raises ReleaseRefused or RequestRejected where AWS will go on refusing until a person does something.
    """
    if now < lease.hard_end and _hand_over(gateway, lease):
        return Release(lease.resource_name, lease.kind, "handedOver")
    _keep_no_longer(gateway, lease, now)
    outcome = _RELEASERS[lease.kind](gateway, lease)
    # What Bedrock has shown once is not being created any more
    is_gone = lease.created_at is not None or now >= lease.opened_at + CREATOR_TIMEOUT
    if outcome == "released" or (outcome == "absent" and is_gone):
        close(gateway, lease, now, because, was_there=outcome == "released")
    return Release(lease.resource_name, lease.kind, outcome)


def try_release(gateway: "Gateway", lease: Lease, now: datetime, because: str) -> Release:
    """Do as `release`, but return a lasting refusal as the outcome: the sweeper meets it again and raises it."""
    try:
        return release(gateway, lease, now, because)
    except (ReleaseRefused, RequestRejected):
        return Release(lease.resource_name, lease.kind, "refused")


def _keep_no_longer(gateway: "Gateway", lease: Lease, now: datetime) -> None:
    """Take back what was promised, so that the next sweep goes on; what was taken over meanwhile keeps its promise."""
    since = (lease.releasing_since if lease.keep_until is None else None) or now
    same = Attr("openedAt").eq(msgspec.to_builtins(lease.opened_at)) & _IS_OPEN
    gateway.leases.update(lease.resource_name, {"keepUntil": None, "releasingSince": since.isoformat()}, condition=same)


def _hand_over(gateway: "Gateway", lease: Lease) -> bool:
    """Make another run under way that works with the same job or model the holder of the lease, if there is one."""
    if lease.kind not in {JOB, MODEL} or not _is_worked_with(gateway, lease):
        return False
    running = gateway.runs.scan(Attr("state").eq(RUNNING) & _has_job(lease.bedrock_name))
    heir = next((row for row in running if row["executionArn"] != lease.execution_arn), None)
    if heir is None:
        return False
    holder = {field: heir[field] for field in ("runId", "dataset", "executionArn")}
    # Where this does not hold, the other run has opened a lease of its own meanwhile
    gateway.leases.update(lease.resource_name, holder, condition=Attr("executionArn").eq(lease.execution_arn))
    return True


def other_runs_with(gateway: "Gateway", lease: Lease) -> list[JsonObject]:
    """Return the rows of the other runs that have succeeded with the model of `lease`."""
    succeeded = gateway.runs.scan(Attr("state").eq(SUCCEEDED) & _has_job(lease.bedrock_name))
    return [row for row in succeeded if row["runId"] != lease.run_id]


def _has_job(name: str) -> Condition:
    return reduce(or_, (Attr(f"jobName{stage}").eq(name) for stage in range(MOST_STAGES)))


def _is_worked_with(gateway: "Gateway", lease: Lease) -> bool:
    """Return whether a job runs, or a model is there: nobody waits for anything else."""
    if lease.kind == MODEL:
        return gateway.bedrock.model_is_there(lease.bedrock_name)
    job = gateway.bedrock.job(lease.bedrock_name)
    return job is not None and job.status == "InProgress"


def _release_job(gateway: "Gateway", lease: Lease) -> str:
    job = gateway.bedrock.job(lease.bedrock_name)
    if job is None:
        return "absent"
    if job.status == "InProgress":
        gateway.bedrock.stop_job(job.arn)
        return "stopping"
    return "stopping" if job.status == "Stopping" else "released"


def _release_served(gateway: "Gateway", lease: Lease) -> str:
    served = gateway.bedrock.served(lease.kind, lease.identifier)
    if served is None:
        return "absent"
    try:
        if not gateway.settings.owns(gateway.bedrock.tags(served.arn)):
            # Without an ARN nothing tells it from another's that took the name
            if not lease.arn:
                return "absent"
            raise ReleaseRefused.of("error.tagLost", arn=served.arn, deployment=gateway.settings.deployment_id)
        gateway.bedrock.stop_serving(lease.kind, served.arn)
    except ResourceNotFound:
        return "absent"
    except Conflict:
        return "stopping"
    except RequestRejected:
        if not served.is_changing:
            raise
        return "stopping"
    return "released" if gateway.bedrock.served(lease.kind, served.arn) is None else "stopping"


def _release_model(gateway: "Gateway", lease: Lease) -> str:
    if not gateway.bedrock.model_is_there(lease.bedrock_name):
        return "absent"
    try:
        gateway.bedrock.delete_model(lease.bedrock_name)
    except Conflict:
        return "stopping"
    return "released"


_RELEASERS: dict[str, Callable[["Gateway", Lease], str]] = {
    JOB: _release_job,
    MODEL: _release_model,
    ON_DEMAND: _release_served,
    PROVISIONED: _release_served,
}


def release_run(
    gateway: "Gateway",
    call: Call,
    kinds: tuple[str, ...],
    because: str,
    spares: Callable[[Lease], bool] = lambda _: False,
) -> list[Release]:
    """Release what the run of this execution still holds of `kinds`, unless `spares` says that others need it.

    Another attempt's is not touched. What is released is noted in the run's row.
    """
    held = [
        lease
        for lease in open_leases(gateway)
        if lease.run_id == call.run_id and lease.execution_arn == call.execution_arn and lease.kind in kinds
        if not spares(lease)
    ]
    released = [try_release(gateway, lease, call.now, because) for lease in in_release_order(held)]
    if released:
        before = (gateway.runs.get(call.run_id) or {}).get("released")
        note(gateway, call, {"released": [*(before if isinstance(before, list) else ()), *map(str, released)]})
    return released


def in_release_order(leases: list[Lease]) -> list[Lease]:
    """Return `leases` with whatever serves a model before the model: Bedrock refuses the other way round."""
    order = (ON_DEMAND, PROVISIONED, JOB, MODEL)
    return sorted(leases, key=lambda lease: order.index(lease.kind))


def has_vanished(gateway: "Gateway", lease: Lease, now: datetime) -> bool:
    """Return whether the open lease is of what served a model until somebody else deleted it."""
    is_known = lease.created_at is not None and now - lease.created_at > CREATOR_TIMEOUT
    return is_known and gateway.bedrock.served(lease.kind, lease.identifier) is None


def reason_to_release(gateway: "Gateway", lease: Lease, now: datetime) -> str:
    """Return why nobody needs what an open lease is for, or why the budget no longer pays it, else ""."""
    if now >= lease.hard_end:
        return f"the budget paid for it until {lease.hard_end:%Y-%m-%d %H:%M} UTC"
    if lease.keep_until is not None and now < lease.keep_until:
        return ""
    status = gateway.execution_status(lease.execution_arn)[0]
    return "" if status == RUNNING else f"its execution is {status}"
