"""Waiting in line for what the account's quotas leave: whoever asked first is served first.

The ticket lies in the run's row, {waitingFor, queuedAt, runsAhead}, where people see it. It counts while the row's
state is RUNNING, so that a run that died holds up the others only until the sweeper has recorded its end.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from customization.errors import QuotaUnavailable
from customization.gateway.tables import Attr
from customization.runs import RUNNING, Call, note

if TYPE_CHECKING:
    from customization.gateway import Gateway
    from customization.json_types import JsonObject

JOB = "customization job"
DEPLOYMENT = "custom model deployment"
MODEL_UNITS = "provisioned throughput"


@contextmanager
def turn(gateway: "Gateway", call: Call, wanted: str, *, is_there: bool) -> Iterator[None]:
    """Let the body create what is `wanted` when no other run waits for it longer; what `is_there` needs no turn.

    Nobody stands in line until a quota has refused somebody.

    Raises:
        QuotaUnavailable: it is another run's turn, or the body found no room; this run has its place in the line.
    """
    row = gateway.runs.get(call.run_id) or {}
    waits = row.get("waitingFor") == wanted
    since = str(row["queuedAt"]) if waits else call.now.isoformat()
    ahead = 0 if is_there else _ahead(gateway, wanted, (since, call.run_id))
    ticket: JsonObject = {"waitingFor": wanted, "queuedAt": since, "runsAhead": ahead}
    if ahead:
        note(gateway, call, ticket)
        raise QuotaUnavailable.of("error.inLine", wanted=wanted, ahead=str(ahead))
    try:
        yield
    except QuotaUnavailable:
        note(gateway, call, ticket)
        raise
    if waits:
        note(gateway, call, {"waitingFor": "", "runsAhead": 0})


def _ahead(gateway: "Gateway", wanted: str, place: tuple[str, str]) -> int:
    waiting = gateway.runs.scan(Attr("waitingFor").eq(wanted) & Attr("state").eq(RUNNING))
    return sum((str(row["queuedAt"]), str(row["runId"])) < place for row in waiting)
