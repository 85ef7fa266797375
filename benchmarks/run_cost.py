"""What a run costs in AWS services beside Bedrock, from the calls that a rehearsed run makes.

A run of samples/support-ja is rehearsed, with every sweep that falls into it. Counted are the states that were entered,
children of the maps included, each request of a role with the requests to the key that it causes, the lines of the
logs, and what each call of a function takes of this machine's processor. Assumed, so that the figure is rather too
high: each call is a cold start, a processor of Lambda is as fast as one here and a function with less memory than gives
a whole one takes that much longer, a request to AWS takes 50 ms and an answer of a model a second, every write and read
is of the table's largest row, and all messages go to one e-mail address. What AWS gives free is not taken off.

`python -m benchmarks.run_cost`.
"""

import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from customization.evaluation import CONCURRENCY
from customization.money import PriceItem, load_prices
from rehearsal.run import Rehearsal, Setting
from rehearsal.synthesis import ROOT, synthesize

if TYPE_CHECKING:
    from rehearsal.embedded.states.history import Happening

MOST_USD = 0.05
MOST_EVENTS = 1_000
# A function has one processor at so much memory (Lambda quotas, "Memory")
_ONE_PROCESSOR_MB = 1769
# Of a processor, without bytecode: benchmarks.cold_start
_COLD_SECONDS = 1.3
_REQUEST_SECONDS = 0.05
_ANSWER_SECONDS = 1.0
# START, END and REPORT, which Lambda writes around each call
_LAMBDA_LOG_BYTES = 400
_WRITE_UNIT, _READ_UNIT = 1024, 4096  # bytes; DynamoDB Developer Guide, "Read and write operations"
_ASKED = {"bedrock:InvokeModel"}
_ITEMS: Mapping[str, PriceItem] = {
    **dict.fromkeys(("s3:PutObject", "s3:ListBucket", "s3:ListBucketMultipartUploads"), "objectWrites"),
    **dict.fromkeys(("s3:GetObject", "s3:GetObjectVersion"), "objectReads"),
    **dict.fromkeys(("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"), "tableWrites"),
    **dict.fromkeys(("dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan"), "tableReads"),
    **dict.fromkeys(("kms:Decrypt", "kms:GenerateDataKey"), "keyRequests"),
    "sns:Publish": "emails",
}
# How many single ones the unit of a price has
_UNITS: Mapping[str, float] = {"1K": 1e3, "10K": 1e4, "100K": 1e5, "1M": 1e6, "GB": 1.0}


@dataclass(frozen=True, kw_only=True)
class FunctionCall:
    """One call of a function: what it took of this machine's processor, in seconds, and how much memory it has."""

    function: str
    memory_mb: int
    processor_seconds: float


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """What was counted; `requests` are the IAM actions of roles, `history_events` those of the run's execution."""

    history_events: int
    transitions: int
    requests: Counter[str]
    calls: tuple[FunctionCall, ...]
    log_bytes: int
    largest_row: int

    @property
    def billed_milliseconds(self) -> float:
        """Return the milliseconds of all functions, cold starts and waits included."""
        own = sum(_seconds(call) for call in self.calls)
        return 1000 * (own + self._waits())

    @property
    def starting_milliseconds(self) -> float:
        """Return what remains of them for functions that only start."""
        return 1000 * sum(_seconds(replace(call, processor_seconds=0.0)) for call in self.calls)

    def _waits(self) -> float:
        answers = sum(self.requests[action] for action in _ASKED)
        others = sum(count for action, count in self.requests.items() if not action.startswith("kms:")) - answers
        return others * _REQUEST_SECONDS + answers * _ANSWER_SECONDS / CONCURRENCY

    def quantities(self) -> dict[PriceItem, float]:
        """Return how many of each item the run uses: single requests, transitions and e-mails, GB and GB seconds."""
        counted: Counter[PriceItem] = Counter()
        for action, count in self.requests.items():
            if action in _ITEMS:
                counted[_ITEMS[action]] += count
        largest_mb = max(call.memory_mb for call in self.calls)
        return {
            **counted,
            "tableWrites": counted["tableWrites"] * math.ceil(self.largest_row / _WRITE_UNIT),
            "tableReads": counted["tableReads"] * math.ceil(self.largest_row / _READ_UNIT),
            "stateTransitions": self.transitions,
            "functionRequests": len(self.calls),
            "traces": len(self.calls),
            "functionTime": sum(_seconds(call) * call.memory_mb for call in self.calls) / 1024
            + self._waits() * largest_mb / 1024,
            "logs": (self.log_bytes + _LAMBDA_LOG_BYTES * len(self.calls)) / 1e9,
        }


def _seconds(call: FunctionCall) -> float:
    """Return how long a call takes in Lambda, its cold start included and its waits not."""
    return (call.processor_seconds + _COLD_SECONDS) * max(1.0, _ONE_PROCESSOR_MB / call.memory_mb)


def cost(run: RecordedRun, region: str, day: date) -> dict[str, float]:
    """Return USD by item; raises LookupError for an item without a price in the Region."""
    costs: dict[str, float] = {}
    for item, quantity in run.quantities().items():
        row = load_prices().find("*", item, region, day)
        if row is None:
            raise LookupError(f"prices.json has no row for {item} in {region}")
        costs[item] = quantity / _UNITS[row.unit.split()[0]] * row.usd
    return costs


def record(assembly: Path, logs: Path) -> RecordedRun:
    """Rehearse a run of the sample and return what was counted from the drop until nothing is under way."""
    sample = ROOT / "samples" / "support-ja"
    happened: list[Happening] = []
    setting = Setting(assembly=assembly, region="us-east-1", date=datetime.now(UTC), log_dir=logs)
    with Rehearsal(setting) as rehearsal:
        rehearsal.aws.watch(happened.append)
        before = len(rehearsal.aws.calls)
        rehearsal.drop(sample.name, {path.name: path.read_bytes() for path in sample.iterdir() if path.is_file()})
        executions = rehearsal.finish()
        if [row["state"] for row in rehearsal.runs()] != ["SUCCEEDED"]:
            raise RuntimeError(f"the rehearsed run has not succeeded: {rehearsal.runs()}")
        return RecordedRun(
            history_events=max(len(execution.history.events) for execution in executions),
            transitions=sum(happening.kind in {"state-entered", "state-retried"} for happening in happened),
            requests=Counter(call.action for call in rehearsal.aws.calls[before:] if call.allowed),
            calls=tuple(
                FunctionCall(function=function.label, memory_mb=function.memory_mb, processor_seconds=seconds)
                for function, seconds in rehearsal.aws.processor_seconds
            ),
            log_bytes=_bytes(happening.detail["text"] for happening in happened if happening.kind == "log"),
            largest_row=max(len(json.dumps(row).encode()) for row in rehearsal.rows()),
        )


def _bytes(texts: Iterable[object]) -> int:
    return sum(len(str(text).encode()) for text in texts)


def measure() -> RecordedRun:
    """Return what a run of the sample uses."""
    with tempfile.TemporaryDirectory(prefix="run-cost-") as scratch:
        settings = {"region": "us-east-1", "baseModelIdentifier": "amazon.nova-micro-v1:0:128k"}
        return record(synthesize(Path(scratch) / "cdk.out", settings), Path(scratch) / "logs")


def main() -> int:
    """Print each item; return 1 where the sum or the history is above what is promised."""
    run = measure()
    costs = cost(run, "us-east-1", datetime.now(UTC).date())
    quantities = run.quantities()
    for item, usd in sorted(costs.items(), key=lambda line: -line[1]):
        sys.stdout.write(f"{item:18}{quantities[item]:14,.6g}{usd:12.6f} USD\n")  # type: ignore[index]  # the same keys
    total = sum(costs.values())
    sys.stdout.write(
        f"{run.history_events} events in the history (at most {MOST_EVENTS}), {len(run.calls)} calls of functions with "
        f"{run.billed_milliseconds:,.0f} ms\ntogether {total:.4f} USD (at most {MOST_USD})\n"
    )
    return int(total > MOST_USD or run.history_events > MOST_EVENTS)


if __name__ == "__main__":
    sys.exit(main())
