"""The sweeper: correctness rests on it, since StopExecution and the machine's timeout skip every Catch."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from customization import budget, leases, model_in_use, notices, promotion, retention
from customization.catalogue import load_catalogue
from customization.errors import PipelineError, ReleaseRefused
from customization.gateway.tables import Attr
from customization.json_types import JsonObject
from customization.leases import Lease, Release
from customization.links import Links
from customization.runs import FAILED, RUNNING, unplanned
from customization.texts import wording

if TYPE_CHECKING:
    from customization.gateway import Gateway

_REFUSED = "refused"
# The statuses of Step Functions, and GONE, that an execution has when its failure handling was skipped
_ENDED = ("ABORTED", "TIMED_OUT", "FAILED", "GONE")
# Runs that are over, and whose failure path did not come to this
_NOT_SETTLED = Attr("usage").exists() & Attr("spentUsd").not_exists() & Attr("state").ne(RUNNING)
# With a sweep every 15 minutes people hear an hour before the end or earlier
_TELL_BEFORE = timedelta(minutes=75)


class LiveLease(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A lease whose resource was there at the end of a sweep.

    `hourly_usd` is what it bills an hour: None where no source gives a price. Jobs bill tokens and models are stored by
    the month, so that these have None as well.
    """

    resource_name: str
    kind: str
    run_id: str
    dataset: str
    hard_end: datetime
    hourly_usd: float | None


class Swept(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What a sweep did and what it left.

    `runs` names those whose end it recorded, `released` and `refused` say a line for each resource. `overdue` names
    what bills and should have been gone by its hardEnd, or has no lease at all, and is there after the sweep.
    `lifecycles` are, by the catalogue, those of the base models under the models in use.
    """

    runs: tuple[str, ...]
    released: tuple[str, ...]
    refused: tuple[str, ...]
    live: tuple[LiveLease, ...]
    overdue: tuple[str, ...]
    lifecycles: tuple[str, ...]

    def raise_refused(self) -> None:
        """Raise ReleaseRefused if AWS refused something, so that the alarm on the sweeper's errors goes off."""
        if self.refused:
            raise ReleaseRefused(
                "What follows still bills; look at it in the Bedrock console, and at the sweeper's role:\n"
                + "\n".join(self.refused)
            )


def sweep(gateway: "Gateway", now: datetime, ended: tuple[str, str, str] | None = None) -> Swept:
    """Record runs that died, release what nobody needs, and return what was done and what is left.

    `ended` is an execution, by ARN, status and error, of which an event tells that it has ended.
    """
    runs = list(_record_dead_runs(gateway, now))
    if ended:
        runs += _record_unplanned(gateway, now, *ended)
    held = leases.open_leases(gateway)
    _tell_of_coming_ends(gateway, held, now)
    released: list[str] = []
    for lease, because in leases.overdue(gateway, held, now):
        released += _released(gateway, lease, now, because)
    held = leases.open_leases(gateway)
    for orphan in _orphans(gateway, held, now):
        released += _released(gateway, orphan, now, "no lease stands for it")
    for lease in leases.vanished(gateway, held, now):
        leases.close(gateway, lease, now, "somebody deleted it", was_there=True)
        budget.settle_release(gateway, lease, now)
    released += promotion.withdraw_gone(gateway, now)
    released += model_in_use.undo_left_swaps(gateway)
    for row in gateway.runs.scan(_NOT_SETTLED):
        released += _settled(gateway, row, now)
    live = _live(gateway, held)
    past_end = [lease.resource_name for lease in live if now >= lease.hard_end]
    return Swept(
        runs=tuple(runs),
        released=tuple(released),
        refused=tuple(line for line in released if _REFUSED in line),
        live=tuple(live),
        overdue=(
            *past_end,
            *(it.resource_name for it in _orphans(gateway, held, now)),
            *_unknown_models(gateway, held),
        ),
        lifecycles=tuple(_lifecycles(gateway, now)),
    )


def _lifecycles(gateway: "Gateway", now: datetime) -> Iterator[str]:
    in_use = model_in_use.base_models(gateway)
    known = load_catalogue().models if in_use else ()
    yield from (model.state_on(now.date()) for model in known if model.base_model_identifier in in_use)


def _live(gateway: "Gateway", held: list[Lease]) -> list[LiveLease]:
    there = {(found.kind, found.name) for found in _billing(gateway)}
    there |= {(leases.MODEL, name) for name in gateway.bedrock.model_names()}
    return [
        LiveLease(
            resource_name=lease.resource_name,
            kind=lease.kind,
            run_id=lease.run_id,
            dataset=lease.dataset,
            hard_end=lease.hard_end,
            hourly_usd=lease.hourly_usd,
        )
        for lease in held
        if (lease.kind, lease.bedrock_name) in there
    ]


def _released(gateway: "Gateway", lease: Lease, now: datetime, because: str) -> Iterator[str]:
    """Release one lease; what cannot be released must not keep the sweeper from the rest."""
    if lease.kind == leases.MODEL and (
        model_in_use.keep_on(gateway, lease.bedrock_name, now) or retention.keep_best(gateway, lease, now)
    ):
        return
    try:
        promotion.withdraw(gateway, lease, now)
        outcome = leases.release(gateway, lease, now, because)
        budget.settle_release(gateway, lease, now)
    except PipelineError as error:
        outcome = Release(lease.resource_name, lease.kind, f"{_REFUSED}: {error}")
    if outcome.outcome != "absent":
        yield f"{outcome.kind} {outcome.resource_name}: {outcome.outcome}, since {because}"


def _settled(gateway: "Gateway", row: JsonObject, now: datetime) -> Iterator[str]:
    """Give back what a run that is over has not spent; until that is possible the month keeps its reservation."""
    try:
        budget.give_back(gateway, str(row["runId"]), int(str(row["attempt"])), now)
    except PipelineError as error:
        yield f"budget of run {row['runId']}: {_REFUSED}: {error}"


def _record_dead_runs(gateway: "Gateway", now: datetime) -> Iterator[str]:
    """Write how a run ended whose execution did not, and tell the topic."""
    for row in gateway.runs.scan(Attr("state").eq(RUNNING)):
        arn, run_id = str(row["executionArn"]), str(row["runId"])
        status = gateway.execution_status(arn)[0]
        if status not in _ENDED:
            continue
        language = str(row.get("language") or gateway.settings.defaults.language)
        ended = _end(status, language, now)
        still_dead = Attr("executionArn").eq(arn) & Attr("state").eq(RUNNING)
        if not gateway.runs.update(run_id, ended, condition=still_dead):
            continue
        _tell_end(gateway, run_id, arn, status, language)
        yield run_id


def _record_unplanned(gateway: "Gateway", now: datetime, arn: str, status: str, error: str) -> Iterator[str]:
    """Record and tell an end that no run stands for, or that came between the record of a failure and its notice.

    Nothing bills then, but whoever has started the execution waits for an answer.
    """
    known = [
        row for row in gateway.runs.scan(Attr("executionArn").eq(arn)) if not str(row["runId"]).startswith("uploads#")
    ]
    if not known:
        name, language = unplanned(arn), gateway.settings.defaults.language
        gateway.runs.put({"runId": name, "executionArn": arn, "attempt": 0, **_end(status, language, now)})
        _tell_end(gateway, "", arn, status, language)
        yield name
    for row in known:
        # The machine's own Fail state ends with the error that the row has
        if row.get("state") == FAILED and row.get("error") != error:
            _tell_failure(gateway, row, arn)


def _end(status: str, language: str, now: datetime) -> JsonObject:
    cause, fix = (wording(f"{family}.{status}", language) for family in ("ended", "endedFix"))
    return {"state": status, "cause": cause, "fix": fix, "endedAt": now.isoformat()}


def _tell_end(gateway: "Gateway", run_id: str, arn: str, status: str, language: str) -> None:
    link = Links.of(gateway.settings).execution(arn)
    told = notices.ended(run_id=run_id, status=status, language=language, link=link)
    gateway.publish(told.subject, told.message)


def _tell_failure(gateway: "Gateway", row: JsonObject, arn: str) -> None:
    told = notices.failed(
        title="" if str(row["runId"]).startswith("unplanned#") else str(row["runId"]),
        state=str(row.get("failedState")),
        error=str(row.get("error")),
        cause=str(row.get("cause")),
        fix=str(row.get("fix")),
        language=str(row.get("language") or gateway.settings.defaults.language),
        link=Links.of(gateway.settings).execution(arn),
    )
    gateway.publish(told.subject, told.message)


def _tell_of_coming_ends(gateway: "Gateway", held: list[Lease], now: datetime) -> None:
    """Tell the topic, once, of each serving lease that ends soon and that a model in use rests on."""
    for lease in held:
        until = lease.keep_until
        if until is None or lease.kind not in leases.SERVING or not now < until <= now + _TELL_BEFORE:
            continue
        current = model_in_use.read_in_use(gateway, lease.dataset)
        if current is None or not model_in_use.is_held_by(current, lease):
            continue
        not_told = Attr("endTold").not_exists() | Attr("endTold").ne(until.isoformat())
        if gateway.leases.update(lease.resource_name, {"endTold": until.isoformat()}, condition=not_told):
            told = notices.ends_soon(
                run_id=current.promoted_run_id,
                lease=lease,
                until=until,
                parameter=model_in_use.parameter_of(gateway, lease.dataset),
                language=notices.language_of(gateway, current.promoted_run_id),
            )
            gateway.publish(told.subject, told.message)


class _Billing(NamedTuple):
    kind: str
    name: str
    arn: str
    created: datetime


def _billing(gateway: "Gateway") -> list[_Billing]:
    """Return everything in the account that is served or trained."""
    served = [_Billing(served.mode, served.name, served.arn, served.created) for served in gateway.bedrock.all_served()]
    return served + [_Billing(leases.JOB, job.name, job.arn, job.created) for job in gateway.bedrock.jobs_in_progress()]


def _unknown_models(gateway: "Gateway", held: list[Lease]) -> Iterator[str]:
    """Yield the names of this deployment's models without an open lease: a person decides whether they may go."""
    known = {lease.bedrock_name for lease in held if lease.kind == leases.MODEL}
    for name in gateway.bedrock.model_names():
        if name.startswith(gateway.settings.name_prefix) and name not in known:
            yield name


def _orphans(gateway: "Gateway", held: list[Lease], now: datetime) -> Iterator[Lease]:
    """Yield, as leases of nobody, what is this deployment's by name but has no open lease and is no longer new.

    What serves a model is ours by its tag, too; jobs can be stopped by that tag alone.
    """
    known = {lease.resource_name for lease in held}
    settings = gateway.settings
    for found in _billing(gateway):
        is_new = now - found.created <= leases.CREATOR_TIMEOUT
        if is_new or found.name in known or not found.name.startswith(settings.name_prefix):
            continue
        if found.kind == leases.JOB or gateway.bedrock.tags(found.arn).get("deployment") == settings.deployment_id:
            yield Lease(
                resource_name=found.name,
                kind=found.kind,
                run_id="",
                dataset="",
                execution_arn="",
                opened_at=found.created,
                hard_end=found.created,
            )
