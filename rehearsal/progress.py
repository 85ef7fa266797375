"""What a person sees of a rehearsal: states with their virtual time; in a terminal polls and answers renew one line."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

from customization.json_types import Json, JsonObject
from customization.money import load_prices
from customization.texts import printable
from rehearsal.embedded.states.history import Happening

if TYPE_CHECKING:
    from rich.status import Status

    from rehearsal.run import Rehearsal

# Polls and choices would bury what is done.
_UNTOLD = ("InitializeRun", "Poll", "WaitFor")
# Each file of a folder starts an execution; those that leave the folder to the first one have nothing to tell.
_JOINED = "JoinedWaitingRun"
_VERDICT_STYLES = {"better": "bold green", "worse": "bold red"}


class Progress:
    """Safe to call from several threads."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._lock = threading.Lock()
        self._answered: defaultdict[str, int] = defaultdict(int)
        self._last_phase = ""

    def say(self, text: str) -> None:
        """Print one line."""
        with self._lock:
            self._print(text)

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(printable(text), style=style, markup=False)

    def watch(self, happening: Happening) -> None:
        """Show one thing that happened in the embedded AWS."""
        with self._lock:
            match happening.kind:
                case "state-entered":
                    self._entered(happening)
                case "state-exited":
                    self._exited(happening)
                case "state-retried" | "state-caught":
                    self._print(f"{_time(happening)}  {happening.name}: {happening.detail.get('error')}", "yellow")
                case "execution-ended":
                    self._ended()

    def _entered(self, happening: Happening) -> None:
        if happening.name == _JOINED:
            return
        text = f"{_time(happening)}  {happening.name}"
        is_choice = happening.detail.get("type") == "Choice"
        if not is_choice and not happening.name.startswith(_UNTOLD) and not happening.name.endswith("Shard"):
            self._print(text)
        self._renew(text)

    def _exited(self, happening: Happening) -> None:
        output = happening.detail.get("output")
        if not isinstance(output, dict):
            return
        if happening.name.endswith("Shard"):
            side = happening.name.removesuffix("Shard")
            self._answered[side] += _count(output.get("answered")) + _count(output.get("failed"))
            self._renew(f"{_time(happening)}  {side}: {self._answered[side]} records evaluated")
        elif output.get("phase") and output["phase"] != self._last_phase:
            self._last_phase = str(output["phase"])
            self._print(f"{_time(happening)}    job {self._last_phase}")

    def _renew(self, text: str) -> None:
        """Renew the line under the others in a terminal; elsewhere it would only be noise."""
        if not self._console.is_terminal:
            return
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def _ended(self) -> None:
        for side, count in self._answered.items():
            self._print(f"          {side}: {count} records evaluated")
        self._answered.clear()
        if self._status is not None:
            self._status.stop()
            self._status = None

    def succeeded(self, row: JsonObject, rehearsal: "Rehearsal", folder: Path) -> None:
        """Print verdict, reason, cost and where the report is."""
        verdict = str(row.get("verdict") or row["state"]).lower()
        self._print("")
        self._print(f"Verdict: {verdict}", _VERDICT_STYLES.get(verdict, "bold"))
        if row.get("reason"):
            self._print(str(row["reason"]))
        self._print(f"On AWS it would have cost {_money(row)}; this rehearsal billed nothing.")
        day = rehearsal.clock.now().date()
        for line in what_is_left(rehearsal.bedrock.live_resources(), rehearsal.aws.place.region, day):
            self._print(line)
        report = folder / "report.html"
        self._print(f"Report: {report.resolve() if report.is_file() else folder.resolve()}")

    def failed(self, row: JsonObject, cause: str | None) -> None:
        """Print what failed, why, and what to do."""
        self._print("")
        self._print(
            f"Failed at {row.get('failedState', 'the start')}: {row.get('error', row.get('state', ''))}", "bold red"
        )
        self._print(str(row.get("cause") or cause or "no execution was started"))
        if row.get("fix"):
            self._print(f"What to do: {row['fix']}")


def what_is_left(arns: Sequence[str], region: str, day: date) -> Iterator[str]:
    """Yield a line for each resource that goes on billing, with why it stays and what it costs, or one that none is."""
    price = load_prices().find("*", "storage", region, day)
    cost = f"{price.usd:.2f} USD a month" if price else "an unknown amount"
    for arn in arns:
        if ":custom-model/" in arn:
            yield f"The custom model is kept, so that it can be put into use; its storage costs {cost} on AWS: {arn}"
        else:
            yield f"Still in use, and billed as long as it is: {arn}"
    if not arns:
        yield "Nothing is left that bills."


def _time(happening: Happening) -> str:
    return f"{happening.at:%m-%d %H:%M:%S}"


def _count(value: Json) -> int:
    return value if isinstance(value, int) else 0


def _money(row: JsonObject) -> str:
    spent = row.get("spentUsd")
    return f"{spent:.2f} USD at known prices" if isinstance(spent, int | float) else "an unknown amount"
