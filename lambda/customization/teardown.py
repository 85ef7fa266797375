"""Taking a deployment down: `python -m customization.teardown destroy|left|purge`.

    destroy  releases what bills by the hour, takes models out of use and lifts the protection of the stacks, once the
             name of the stage is typed, so that `cdk destroy` deletes them
    left     lists what is kept once the stacks are gone, with its price a month; drops into what stayed start runs
    purge    removes what is kept, for good

Exit codes: 0 done; 1 refused, or something is left that bills; 2 wrong use.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from customization import leases, leftovers, model_in_use
from customization.cdk_settings import add_place
from customization.errors import PipelineError, ResourceNotFound, TransientError
from customization.gateway.bedrock import ON_DEMAND, PROVISIONED
from customization.gateway.operator import DeployedStack, Operator
from customization.leases import Lease

if TYPE_CHECKING:
    from customization.gateway import Gateway

DONE, REFUSED = 0, 1
_BY_THE_HOUR = (leases.JOB, ON_DEMAND, PROVISIONED)
_POLL_S = 20
_WHY = "The deployment is being taken down."


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _ask(question: str) -> str:
    sys.stdout.write(question)
    sys.stdout.flush()
    return sys.stdin.readline().strip()


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """What a command needs of the world beside AWS; tests give their own time."""

    say: Callable[[str], None] = _say
    ask: Callable[[str], str] = _ask
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, kw_only=True)
class Open:
    """What runs or bills by the hour; `strays` bear this deployment's name or tag at Bedrock without an open lease."""

    executions: list[str] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.executions or self.leases or self.strays)

    def names(self) -> set[str]:
        return {*self.executions, *(lease.resource_name for lease in self.leases), *self.strays}

    def lines(self) -> list[str]:
        """Return a line for each, with its price an hour."""
        return [
            *(f"  execution    {arn} is running" for arn in self.executions),
            *(f"  {lease.kind:12} {lease.resource_name}  {_hourly(lease)}, {_until(lease)}" for lease in self.leases),
            *(f"  {name}  price unknown, no lease stands for it" for name in self.strays),
        ]


def _hourly(lease: Lease) -> str:
    if lease.kind == leases.JOB:
        return "bills what it trains"
    if lease.kind == ON_DEMAND:
        return "0.00 USD an hour, bills what it answers"
    return "price unknown" if lease.hourly_usd is None else f"{lease.hourly_usd:.2f} USD an hour"


def _until(lease: Lease) -> str:
    if lease.keep_until is None:
        return f"for run {lease.run_id}"
    return f"kept for run {lease.run_id} until {lease.keep_until:%Y-%m-%d %H:%M} UTC"


class Deployment:
    """One deployment as its stacks' outputs describe it; parts of it may be gone already."""

    def __init__(self, operator: Operator, stage: str, storage: DeployedStack, stacks: Sequence[DeployedStack]) -> None:
        self._operator = operator
        self._outputs = {name: value for stack in stacks for name, value in stack.outputs.items()}
        if "LeasesTableName" not in self._outputs:
            raise ResourceNotFound(f"{storage.name} has no output LeasesTableName; run make deploy once, then this")
        self._gateway: Gateway = operator.gateway(stage, stacks)

    def what_is_open(self) -> Open:
        machine = self._outputs.get("StateMachineArn", "")
        open_leases = leases.open_leases(self._gateway)
        known = {identifier for lease in open_leases for identifier in (lease.resource_name, lease.identifier)}
        settings, bedrock = self._gateway.settings, self._operator.bedrock
        jobs = (job for job in bedrock.jobs_in_progress() if job.name.startswith(settings.name_prefix))
        found = [(leases.JOB, job.name) for job in jobs if job.name not in known]
        unleased = (served for served in bedrock.all_served() if known.isdisjoint((served.name, served.arn)))
        found += [(it.mode, it.name) for it in unleased if settings.may_own(it.name, bedrock.tags(it.arn))]
        return Open(
            executions=self._operator.running_executions(machine) if machine else [],
            leases=[lease for lease in open_leases if lease.kind in _BY_THE_HOUR],
            strays=[f"{kind:12} {name}" for kind, name in found],
        )

    def release(self, found: Open, now: datetime) -> str:
        """Stop what runs, end every lease now and let the sweeper take it away; returns what it complains about."""
        for arn in found.executions:
            self._operator.stop_execution(arn, _WHY)
        for lease in found.leases:
            leases.end(self._gateway, lease.resource_name, now)
        sweeper = self._outputs.get("SweepFunctionName")
        if sweeper:
            return self._operator.call(sweeper, {"time": now.isoformat()})
        # The functions are gone, from an earlier attempt: nobody else is left to do it
        refused: list[str] = []
        for lease in leases.in_release_order(found.leases):
            try:
                leases.release(self._gateway, lease, now, _WHY)
            except PipelineError as error:
                refused.append(str(error))
        return "\n".join(refused)

    def models_in_use(self) -> list[str]:
        """Return a line for each parameter by which applications find a model."""
        datasets = model_in_use.datasets_in_use(self._gateway)
        return [f"  model in use {model_in_use.parameter_of(self._gateway, dataset)}" for dataset in datasets]

    def withdraw_models_in_use(self) -> list[str]:
        """Remove every parameter that names a model in use, and return their names."""
        datasets = model_in_use.datasets_in_use(self._gateway)
        for dataset in datasets:
            model_in_use.remove_in_use(self._gateway, dataset)
        return [model_in_use.parameter_of(self._gateway, dataset) for dataset in datasets]


def destroy(operator: Operator, stage: str, terminal: Terminal, *, release: bool, wait: timedelta) -> int:
    """Release what bills and is in use, or refuse while something is; then list what stays, and let the stacks go.

    Nothing is changed before the name of the stage has been typed. From the release on no drop starts a run, which
    nobody would end once the stacks go; it does again where they stay.
    """
    stacks = operator.stacks(stage)
    place = f"{stage} in {operator.region}"
    if not stacks:
        terminal.say(f"Nothing is deployed as {place}. What an earlier deployment left goes with make purge.")
        return REFUSED
    storage = next((stack for stack in stacks if stack.name.endswith("-Storage")), None)
    deployment = None if storage is None else Deployment(operator, stage, storage, stacks)
    if deployment and not release and _is_refused(deployment, terminal, place):
        return REFUSED
    going = [f"  stack        {stack.name}" for stack in stacks]
    if deployment:
        going += [*deployment.what_is_open().lines(), *deployment.models_in_use()]
    terminal.say("\n".join([f"All this of {place} goes:", *going]))
    if not _is_confirmed(stage, terminal):
        terminal.say("Not destroyed: the name of the stage was not typed. Nothing was changed.")
        return REFUSED
    outcome = REFUSED
    _hold_drops(operator, stacks, terminal)
    try:
        if deployment is None or _is_released(deployment, terminal, place, wait if release else None):
            _let_go(operator, stage, stacks, terminal)
            outcome = DONE
    finally:
        if outcome != DONE:
            _let_drops_start_runs(operator, stacks, terminal)
    return outcome


def _is_refused(deployment: Deployment, terminal: Terminal, place: str) -> bool:
    """Return whether something runs, bills or is in use, and say what."""
    found = [*deployment.what_is_open().lines(), *deployment.models_in_use()]
    if found:
        terminal.say("\n".join([f"Not destroyed: this still runs, bills or is in use in {place}:", *found]))
        terminal.say(
            "Wait until it has ended, or stop and release all of it and take the models out of use: "
            "make destroy RELEASE=yes"
        )
    return bool(found)


def _is_confirmed(stage: str, terminal: Terminal) -> bool:
    return terminal.ask(f"Type the name of the stage, {stage}, to delete it: ") == stage


def _is_released(deployment: Deployment, terminal: Terminal, place: str, wait: timedelta | None) -> bool:
    """Return whether nothing is open any more and no model in use; without `wait` nothing is released for it."""
    if wait is None:
        if _is_refused(deployment, terminal, place):
            return False
    elif deployment.what_is_open() and not _release(deployment, terminal, wait):
        return False
    for name in deployment.withdraw_models_in_use():
        terminal.say(f"The parameter {name} is gone: no model is in use any more.")
    return True


def _let_go(operator: Operator, stage: str, stacks: Sequence[DeployedStack], terminal: Terminal) -> None:
    """Say what stays, and take away what would keep the stacks from being deleted."""
    _tell_what_stays(leftovers.find(operator, stage, terminal.now().date()), terminal)
    _detach_policies(operator, stacks, terminal)
    for stack in stacks:
        if stack.is_protected:
            operator.lift_protection(stack)
            terminal.say(f"{stack.name} is no longer protected from deletion; make deploy would protect it again.")


def _machines(stacks: Sequence[DeployedStack]) -> list[str]:
    return [stack.outputs["StateMachineArn"] for stack in stacks if "StateMachineArn" in stack.outputs]


def _hold_drops(operator: Operator, stacks: Sequence[DeployedStack], terminal: Terminal) -> None:
    for machine in _machines(stacks):
        if operator.disable_rules(machine):
            terminal.say("From now on a drop starts no run any more; where the stacks stay after all, it does again.")


def _let_drops_start_runs(operator: Operator, stacks: Sequence[DeployedStack], terminal: Terminal) -> None:
    for machine in _machines(stacks):
        if operator.enable_rules(machine):
            terminal.say("Drops start runs again; what was dropped meanwhile has to be dropped again.")


def _detach_policies(operator: Operator, stacks: Sequence[DeployedStack], terminal: Terminal) -> None:
    """Take the managed policies of the outputs from people and applications: they go with the stacks."""
    policies = {name: arn for stack in stacks for name, arn in stack.outputs.items() if name.endswith("PolicyArn")}
    for name, arn in policies.items():
        for holder in operator.detach_policy(arn):
            terminal.say(f"The policy {name.removesuffix('PolicyArn')} was detached from the {holder}.")


def _release(deployment: Deployment, terminal: Terminal, wait: timedelta) -> bool:
    """Return whether nothing is open any more; AWS refuses for a while what is being created or changed."""
    deadline = terminal.now() + wait
    told: set[str] = set()
    while found := deployment.what_is_open():
        now = terminal.now()
        lines = "\n".join(found.lines())
        if now >= deadline:
            minutes = wait.total_seconds() / 60
            terminal.say(f"Not destroyed: after {minutes:.0f} minutes this still runs or bills:\n{lines}")
            terminal.say("Run the command again; what AWS refuses to release is told by the sweeper's log.")
            return False
        if found.names() != told:
            terminal.say(f"{now:%H:%M:%S} releasing, which takes minutes while something is being created:\n{lines}")
            told = found.names()
        complaint = deployment.release(found, now)
        if complaint:
            terminal.say(f"The sweeper says: {complaint}")
        if deployment.what_is_open():
            terminal.sleep(_POLL_S)
    terminal.say(f"{terminal.now():%H:%M:%S} nothing runs or bills by the hour any more.")
    return True


def _tell_what_stays(found: list[leftovers.Leftover], terminal: Terminal) -> None:
    if not found:
        terminal.say("Nothing stays.")
        return
    terminal.say(
        "\n".join(["This stays and costs what is said until make purge removes it:", *leftovers.describe(found)])
    )
    terminal.say("Log groups go with the stacks.")


def left(operator: Operator, stage: str, terminal: Terminal) -> int:
    """List what stays of a stage; 1 when something of it bills by the hour. Drops into what was kept start runs."""
    stacks = operator.stacks(stage)
    for stack in stacks:
        terminal.say(f"The stack {stack.name} is still there.")
    _let_drops_start_runs(operator, [stack for stack in stacks if not stack.is_being_deleted], terminal)
    found = leftovers.find(operator, stage, terminal.now().date())
    _tell_what_stays(found, terminal)
    return REFUSED if any(item.bills_by_hour for item in found) else DONE


def purge(operator: Operator, stage: str, terminal: Terminal) -> int:
    """Remove for good what stays of a stage, once its name has been typed; never while its stacks exist."""
    stacks = operator.stacks(stage)
    if stacks:
        names = ", ".join(stack.name for stack in stacks)
        terminal.say(f"Not purged: {names} still exist in {operator.region}. Delete them first: make destroy")
        return REFUSED
    found = leftovers.find(operator, stage, terminal.now().date())
    if not found:
        terminal.say(f"Nothing is left of {stage} in {operator.region}.")
        return DONE
    terminal.say("\n".join([f"All this of {stage} in {operator.region} goes for good:", *leftovers.describe(found)]))
    if not _is_confirmed(stage, terminal):
        terminal.say("Not purged: the name of the stage was not typed. Nothing was deleted.")
        return REFUSED
    outcomes = []
    for item in found:
        outcomes.append(leftovers.remove(operator, item))
        terminal.say(f"  {item.kind:13} {item.name}: {outcomes[-1]}")
    if any(outcome.startswith(leftovers.REFUSED) for outcome in outcomes):
        terminal.say("Not all of it is gone; run make purge again in some minutes.")
        return REFUSED
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m customization.teardown",
        description="Take a deployment down. Credentials are those of the AWS CLI.",
        epilog="Exit codes: 0 done; 1 refused, or something is left that bills; 2 wrong use.",
    )
    add_place(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser(
        "destroy", help="release what bills, and let cdk destroy delete the stacks, once the name of the stage is typed"
    )
    first.add_argument("--release", action="store_true", help="stop the runs and end what bills, instead of refusing")
    first.add_argument(
        "--wait-minutes", type=float, default=60, metavar="N", help="how long AWS may take to release it (60)"
    )
    commands.add_parser("left", help="list what stays when the stacks are gone")
    commands.add_parser("purge", help="remove what stays, once the name of the stage is typed")
    return parser


def main(arguments: Sequence[str] | None = None, terminal: Terminal | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    terminal = terminal or Terminal()
    try:
        operator = Operator(options.region)
        if options.command == "destroy":
            wait = timedelta(minutes=options.wait_minutes)
            return destroy(operator, options.stage, terminal, release=options.release, wait=wait)
        if options.command == "left":
            return left(operator, options.stage, terminal)
        return purge(operator, options.stage, terminal)
    except (PipelineError, TransientError) as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    except KeyboardInterrupt:
        sys.stderr.write("Stopped by you; what was released stays released, and the command can be run again.\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
