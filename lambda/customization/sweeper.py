"""The sweeper: correctness rests on it, since StopExecution and the machine's timeout skip every Catch."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from customization import budget, leases, model_in_use, notices, promotion, retention
from customization.catalogue import load_catalogue
from customization.errors import ReleaseRefused, ResourceNotFound
from customization.failures import explain
from customization.gateway.tables import Attr, Condition
from customization.history import RunSummary, read_run
from customization.json_types import JsonObject, as_object
from customization.leases import Lease
from customization.links import Links
from customization.runs import FAILED, GREEN, RUNNING, SUCCEEDED, UPLOADS, is_run, unplanned
from customization.texts import Language, read_language, wording

if TYPE_CHECKING:
    from customization.gateway import ExecutionEnd, Gateway

# The statuses of Step Functions that an execution has when its own end was skipped, or when it has told its failure
_BROKEN_OFF = ("ABORTED", "TIMED_OUT", "FAILED")
_ENDED = (*_BROKEN_OFF, SUCCEEDED, "GONE")
# Rows of executions that are under way, or whose end the sweeper has not compared with what the row tells
_END_UNSEEN = Attr("state").exists() & Attr("endedWith").not_exists()
# Runs that are over, and whose failure path did not come to this
_NOT_SETTLED = Attr("usage").exists() & Attr("spentUsd").not_exists() & Attr("state").ne(RUNNING)
# What is being created or updated takes minutes, and nothing else keeps AWS from deleting what serves a model
_RELEASED_WITHIN = timedelta(hours=1)
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


class Action(msgspec.Struct, frozen=True, rename="camel"):
    """What a sweep did, or could not do, in words; `run_id` is empty where it concerns no run."""

    run_id: str
    did: str


class Swept(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What a sweep did and what it left.

    `runs` names those whose end it recorded, and `ended` has what is known of those that were planned. `refused` is
    what failed, which the next sweep tries again. `overdue` names what is there after the sweep though it should have
    been gone by its hardEnd, or an hour after its release was first tried, or has no lease at all. `lifecycles` are, by
    the catalogue, those of the base models under the models in use.
    """

    runs: tuple[str, ...]
    released: tuple[Action, ...]
    refused: tuple[Action, ...]
    live: tuple[LiveLease, ...]
    overdue: tuple[str, ...]
    lifecycles: tuple[str, ...]
    ended: tuple[RunSummary, ...] = ()

    def answer(self) -> JsonObject:
        """Return everything but the runs at length, which are in the table of runs."""
        told: JsonObject = msgspec.to_builtins(self)
        return {name: value for name, value in told.items() if name != "ended"}

    def raise_refused(self) -> None:
        """Raise ReleaseRefused if something failed, so that the alarm on the sweeper's errors goes off."""
        if self.refused:
            raise ReleaseRefused(
                "What follows could not be done and may still bill; look at it in the Bedrock console, and at the "
                "sweeper's role:\n" + "\n".join(action.did for action in self.refused)
            )


def sweep(gateway: "Gateway", now: datetime, ended: "tuple[str, ExecutionEnd] | None" = None) -> Swept:
    """Record ends that nobody has told, release what nobody needs, and return what was done and what is left.

    `ended` is an execution, by ARN, of which an event tells how it has ended. Notices go last, so that nothing bills
    while they fail.
    """
    work = _Sweep(gateway, now)
    work.record_ends()
    if ended:
        work.record_end(*ended)
    work.release()
    work.settle()
    work.tell()
    return work.outcome()


class _Sweep:
    """One sweep under way. What fails for one thing is written down and keeps the sweeper from no other."""

    def __init__(self, gateway: "Gateway", now: datetime) -> None:
        self._gateway, self._now = gateway, now
        self._runs: list[str] = []
        self._released: list[Action] = []
        self._refused: list[Action] = []

    @contextmanager
    def _trying(self, what: str, run_id: str = "") -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  a damaged row or a bug must not keep everything else billing
            action = Action(run_id, f"{what}: refused: {type(error).__name__}: {error}")
            if action not in self._refused:
                self._refused.append(action)

    def record_ends(self) -> None:
        """Write how each execution ended that did not tell it itself, with the notice about it."""
        with self._trying("the ends of executions"):
            rows = self._gateway.runs.scan(_END_UNSEEN)
            planned = {row.get("executionArn") for row in rows if is_run(str(row["runId"]))}
            for row in rows:
                key = str(row["runId"])
                with self._trying(f"the end of run {key}", key if is_run(key) else ""):
                    if not is_run(key) and row["state"] == RUNNING and row["executionArn"] in planned:
                        # PlanRun was stopped between the row of the run and this one
                        self._gateway.runs.delete(key, _as_read(row))
                    else:
                        self._record_end(row, self._gateway.execution_status(str(row["executionArn"])))

    def record_end(self, arn: str, end: "ExecutionEnd") -> None:
        """Record the end of an execution of which an event tells, and of which Step Functions may not tell yet.

        Where no row stands for it nothing bills, but whoever has started it waits for an answer.
        """
        with self._trying(f"the end of {arn}"):
            rows = self._gateway.runs.scan(Attr("executionArn").eq(arn))
            known = [row for row in rows if not str(row["runId"]).startswith(UPLOADS)]
            if not known:
                row: JsonObject = {"runId": unplanned(arn), "executionArn": arn, "attempt": 0}
                self._gateway.runs.put(row | self._broken_off("", arn, end, row))
                self._runs.append(unplanned(arn))
            for row in known:
                # One that is RUNNING may have been redriven since
                if row["state"] != RUNNING and "endedWith" not in row:
                    self._record_end(row, end)

    def _record_end(self, row: JsonObject, end: "ExecutionEnd") -> None:
        """Record once that the execution of a row has ended, and what it has not told of that."""
        key, arn = str(row["runId"]), str(row["executionArn"])
        if end.status not in _ENDED:
            return
        if row["state"] != RUNNING:
            notice = self._missing_notice(row, end)
            told: JsonObject = {notices.UNTOLD: notice} if notice else {}
            self._gateway.runs.update(key, {"endedWith": end.status, **told}, condition=_as_read(row))
        elif end.status != SUCCEEDED:
            ended = self._broken_off(key if is_run(key) else "", arn, end, row)
            if self._gateway.runs.update(key, ended, condition=_as_read(row)):
                self._runs.append(key)
        elif not is_run(key):
            self._gateway.runs.delete(key, _as_read(row))

    def _broken_off(self, run_id: str, arn: str, end: "ExecutionEnd", row: JsonObject) -> JsonObject:
        """Return what the table of runs says of an end, and the notice of it; `run_id` is empty where there is none."""
        language, status = self._language(row), end.status
        cause, fix = (wording(f"{family}.{status}", language) for family in ("ended", "endedFix"))
        ended: JsonObject = {"state": status, "endedAt": self._now.isoformat(), "endedWith": status}
        if status == FAILED and end.error:
            # What no Catch sees, such as States.DataLimitExceeded, or what failed while a failure was handled
            failure = explain(end.error.removesuffix(notices.NOT_TOLD), end.cause, language)
            cause, fix, ended["error"] = failure.cause, failure.fix, failure.error
        told = notices.ended(
            run_id=run_id, status=status, cause=cause, fix=fix, language=language, link=self._link(arn)
        )
        return {**ended, "cause": cause, "fix": fix, notices.UNTOLD: told.payload()}

    def _language(self, row: JsonObject) -> Language:
        return read_language(row.get("language")) or self._gateway.settings.defaults.language

    def _link(self, arn: str) -> str:
        return Links.of(self._gateway.settings).execution(arn)

    def _missing_notice(self, row: JsonObject, end: "ExecutionEnd") -> JsonObject | None:
        """Return the notice of an end that is recorded, where its execution came to another end before telling it."""
        run_id = str(row["runId"]) if is_run(str(row["runId"])) else ""
        link, language = self._link(str(row["executionArn"])), self._language(row)
        if end.status not in _BROKEN_OFF:
            return None
        if row["state"] in GREEN:
            done = notices.done(run_id=run_id, language=language, link=link)
            key = str(row.get("reportKey") or "")
            return {**done.payload(), "message": notices.with_report(self._gateway, run_id, done.message, key)}
        # The machine's own Fail state ends with the error that the row has
        if row["state"] != FAILED or row.get("error") == end.error:
            return None
        return notices.failed(
            title=run_id,
            state=str(row.get("failedState")),
            error=str(row.get("error")),
            cause=str(row.get("cause")),
            fix=str(row.get("fix")),
            language=language,
            link=link,
        ).payload()

    def release(self) -> None:
        """Release what nobody needs or nobody pays for, and close the leases of what is gone."""
        for lease in leases.in_release_order(self._open_leases()):
            with self._trying(_name(lease), lease.run_id):
                because = leases.reason_to_release(self._gateway, lease, self._now)
                if because:
                    self._release(lease, because)
        with self._trying("what has no lease"):
            for orphan in list(self._orphans()):
                with self._trying(_name(orphan)):
                    self._release(orphan, "no lease stands for it")
        for lease in self._open_leases():
            with self._trying(_name(lease), lease.run_id):
                if leases.has_vanished(self._gateway, lease, self._now):
                    leases.close(self._gateway, lease, self._now, "somebody deleted it", was_there=True)
                    budget.settle_release(self._gateway, lease, self._now)
        with self._trying("the models in use"):
            for dataset in model_in_use.datasets_in_use(self._gateway):
                with self._trying(f"the model in use for {dataset}"):
                    gone = promotion.withdraw_gone(self._gateway, dataset, self._now)
                    if gone:
                        self._released.append(Action("", f"{gone}: not there any more, though in use for {dataset}"))
                with self._trying(f"the model in use for {dataset}"):
                    undone = promotion.undo_left_swap(self._gateway, dataset)
                    if undone:
                        self._released.append(Action("", undone))
        self._settle_parameters()
        with self._trying("the models that left use"):
            retention.end_left(self._gateway, self._open_leases(), self._now)

    def _settle_parameters(self) -> None:
        """Let each parameter say what its row says, or go where there is none: a lease tells of the data set then."""
        with self._trying("the parameters"):
            leased = {lease.dataset for lease in self._open_leases() if lease.dataset}
            for dataset in sorted(leased.union(model_in_use.datasets_in_use(self._gateway))):
                with self._trying(f"the parameter of {dataset}"):
                    settled = model_in_use.settle_parameter(self._gateway, dataset)
                    if settled:
                        self._released.append(Action("", settled))

    def _open_leases(self) -> list[Lease]:
        held: list[Lease] = []
        for row in leases.open_rows(self._gateway):
            with self._trying(f"lease {row['resourceName']}", str(row.get("runId") or "")):
                held.append(self._gateway.leases.decoded(row, Lease))
        return held

    def _release(self, lease: Lease, because: str) -> None:
        if lease.kind == leases.MODEL and (
            model_in_use.keep_on(self._gateway, lease.bedrock_name, self._now)
            or retention.keep_best(self._gateway, lease, self._now)
        ):
            return
        is_withdrawn = False
        with self._trying(f"{_name(lease)}, which may be in use for {lease.dataset}", lease.run_id):
            promotion.withdraw(self._gateway, lease, self._now)
            is_withdrawn = True
        # What nobody pays for goes even so: the next sweep finds it gone and puts another in use
        if not is_withdrawn and self._now < lease.hard_end:
            return
        done = leases.release(self._gateway, lease, self._now, because)
        if done.outcome != "absent":
            self._released.append(Action(lease.run_id, f"{_name(lease)}: {done.outcome}, since {because}"))
        budget.settle_release(self._gateway, lease, self._now)

    def settle(self) -> None:
        """Give back what runs that are over have not spent; until that is possible the month keeps the reservation."""
        with self._trying("the budget"):
            for row in self._gateway.runs.scan(_NOT_SETTLED):
                run_id = str(row["runId"])
                with self._trying(f"budget of run {run_id}", run_id):
                    if is_run(run_id):
                        budget.give_back(self._gateway, run_id, int(str(row["attempt"])), self._now)
                    else:
                        budget.settle_replaced(self._gateway, row, self._now)

    def tell(self) -> None:
        """Publish the notices that are written down, and those of the ends that come soon: each at least once."""
        with self._trying("the notices"):
            for row in self._gateway.runs.scan(Attr(notices.UNTOLD).exists()):
                key = str(row["runId"])
                with self._trying(f"the notice about {key}"):
                    notices.tell(self._gateway, key, as_object(row[notices.UNTOLD], notices.UNTOLD), self._now)
        for lease in self._open_leases():
            with self._trying(f"the notice about {_name(lease)}", lease.run_id):
                _tell_of_coming_end(self._gateway, lease, self._now)

    def outcome(self) -> Swept:
        """Return what was done and what is left; a lease counts as live where Bedrock cannot be asked."""
        held = self._open_leases()
        there = {(lease.kind, lease.identifier) for lease in held}
        overdue: list[str] = []
        lifecycles: list[str] = []
        with self._trying("what bills"):
            models = {(leases.MODEL, name) for name in self._gateway.bedrock.model_names()}
            billing = _billing(self._gateway)
            there = {(found.kind, identifier) for found in billing for identifier in (found.name, found.arn)} | models
            overdue += [found.name for found, _ in self._unleased(billing)] + self._unknown_models()
        with self._trying("the base models of the models in use"):
            lifecycles += _lifecycles(self._gateway, self._now)
        live = [lease for lease in held if (lease.kind, lease.identifier) in there]
        ended = self._ended_runs()
        return Swept(
            runs=tuple(self._runs),
            released=tuple(self._released),
            refused=tuple(self._refused),
            live=tuple(_live(lease) for lease in live),
            overdue=(*(lease.resource_name for lease in live if _is_overdue(lease, self._now)), *overdue),
            lifecycles=tuple(lifecycles),
            ended=ended,
        )

    def _ended_runs(self) -> tuple[RunSummary, ...]:
        """Return the runs whose end was recorded, with what they have spent."""
        ended: list[RunSummary] = []
        for run_id in filter(is_run, self._runs):
            with self._trying(f"what run {run_id} has spent", run_id):
                ended.append(read_run(self._gateway, run_id))
        return tuple(ended)

    def _unknown_models(self) -> list[str]:
        """Return the names of this deployment's models without an open lease: a person decides whether they may go."""
        known = {str(row["resourceName"]) for row in leases.open_rows(self._gateway)}
        prefix = self._gateway.settings.name_prefix
        names = (name for name in self._gateway.bedrock.model_names() if name.startswith(prefix))
        return [name for name in names if f"{name}{leases.MODEL_SUFFIX}" not in known]

    def _orphans(self) -> Iterator[Lease]:
        """Yield, as leases of nobody, what is this deployment's by name and tag but has no open lease.

        What is so by one of the two alone is for a person to decide: somebody has renamed it or changed its tags.
        """
        for found, is_ours in self._unleased(_billing(self._gateway)):
            if is_ours:
                yield Lease(
                    resource_name=found.name,
                    kind=found.kind,
                    run_id="",
                    dataset="",
                    execution_arn="",
                    opened_at=found.created,
                    hard_end=found.created,
                )

    def _unleased(self, billing: "list[_Billing]") -> Iterator[tuple["_Billing", bool]]:
        """Yield what may be this deployment's, has no open lease and is no longer new, and whether it surely is.

        Jobs keep their names and can be stopped by the tag alone. A damaged row is a lease.
        """
        rows = leases.open_rows(self._gateway)
        known = {str(row.get(identifier)) for row in rows for identifier in ("resourceName", "arn")}
        settings = self._gateway.settings
        for found in billing:
            is_new = self._now - found.created <= leases.CREATOR_TIMEOUT
            if is_new or found.name in known or found.arn in known:
                continue
            is_named = found.name.startswith(settings.name_prefix)
            if found.kind == leases.JOB:
                if is_named:
                    yield found, True
                continue
            is_ours = may_be_ours = False
            with self._trying(f"{found.kind} {found.name}"), suppress(ResourceNotFound):
                tags = self._gateway.bedrock.tags(found.arn)
                is_ours, may_be_ours = is_named and settings.owns(tags), settings.may_own(found.name, tags)
            if may_be_ours:
                yield found, is_ours


def _as_read(row: JsonObject) -> Condition:
    """Return the condition that a row still tells of the same execution, and of its end what it told."""
    is_unseen = Attr("executionArn").eq(row["executionArn"]) & Attr("endedWith").not_exists()
    return Attr("state").eq(row["state"]) & is_unseen


def _is_overdue(lease: Lease, now: datetime) -> bool:
    """Return whether nobody pays for it any more, or its release has been tried in vain for longer than a change takes.

    A job that was stopped still trains for a while, and a model waits for whatever serves it.
    """
    since = lease.releasing_since
    if since is None or lease.keep_until is not None or lease.kind not in leases.SERVING:
        return now >= lease.hard_end
    return now >= min(lease.hard_end, since + _RELEASED_WITHIN)


def _name(lease: Lease) -> str:
    return f"{lease.kind} {lease.resource_name}"


def _lifecycles(gateway: "Gateway", now: datetime) -> Iterator[str]:
    in_use = model_in_use.base_models(gateway)
    known = load_catalogue().models if in_use else ()
    yield from (model.state_on(now.date()) for model in known if model.base_model_identifier in in_use)


def _live(lease: Lease) -> LiveLease:
    return LiveLease(
        resource_name=lease.resource_name,
        kind=lease.kind,
        run_id=lease.run_id,
        dataset=lease.dataset,
        hard_end=lease.hard_end,
        hourly_usd=lease.hourly_usd,
    )


def _tell_of_coming_end(gateway: "Gateway", lease: Lease, now: datetime) -> None:
    """Tell the topic of a serving lease that ends soon and that a model in use rests on."""
    until = lease.keep_until
    if until is None or lease.kind not in leases.SERVING or not now < until <= now + _TELL_BEFORE:
        return
    current = model_in_use.read_in_use(gateway, lease.dataset)
    if lease.end_told == until or current is None or not model_in_use.is_held_by(current, lease):
        return
    told = notices.ends_soon(
        run_id=current.promoted_run_id,
        lease=lease,
        until=until,
        parameter=model_in_use.parameter_of(gateway, lease.dataset),
        language=notices.language_of(gateway, current.promoted_run_id),
    )
    gateway.publish(told.subject, told.message)
    gateway.leases.update(lease.resource_name, {"endTold": until.isoformat()})


class _Billing(NamedTuple):
    kind: str
    name: str
    arn: str
    created: datetime


def _billing(gateway: "Gateway") -> list[_Billing]:
    """Return everything in the account that is served or trained."""
    served = [_Billing(served.mode, served.name, served.arn, served.created) for served in gateway.bedrock.all_served()]
    return served + [_Billing(leases.JOB, job.name, job.arn, job.created) for job in gateway.bedrock.jobs_in_progress()]
