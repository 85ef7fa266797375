"""How long an evaluation takes beside what its concurrency could do at best, and beside the loop of tutorials.

`python -m benchmarks.evaluation` asks 10,000 records on a virtual clock, with the pipeline's own shards and threads and
its own way of asking; only the model's latency, the start of a function and what Step Functions takes to start a child
are numbers. The virtual clock makes the result the same on every machine.
"""

import argparse
import math
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from customization.evaluation import (
    CONCURRENCY,
    SHARDS_AT_ONCE,
    Pace,
    Prediction,
    answer_records,
    shard_count,
    shard_range,
)
from customization.formats import TestRecord, Turn
from rehearsal.clock import VirtualClock

# At most 15 % more than the ideal, from so many records on
BAR = 1.15
MANY_RECORDS = 10_000
SPREADS = (0.3, 0.6, 1.0)


@dataclass(frozen=True, kw_only=True)
class Service:
    """What things take, in seconds.

    An answer's latency is lognormal: `spread` is the deviation of its logarithm. With 1 one answer in twenty takes more
    than five times as long as the middle one.
    """

    latency: float = 1.0
    spread: float = 0.6
    cold_start: float = 3.0
    child_start: float = 0.5
    reading: float = 0.3
    seed: int = 0

    def latencies(self, records: int) -> list[float]:
        """Return a latency for each record, `latency` on average."""
        random = Random(self.seed)  # noqa: S311  the same every time
        middle = math.log(self.latency) - self.spread**2 / 2
        return [random.lognormvariate(middle, self.spread) for _ in range(records)]


class VirtualEvaluation:
    """Asks all records as the distributed map does: so many shards at once, each by a warm or a new function."""

    def __init__(self, service: Service, records: int) -> None:
        self._service = service
        self._clock = VirtualClock(datetime(2025, 1, 18, 9, 0, tzinfo=UTC))
        self._latencies = service.latencies(records)
        self._records = [TestRecord(str(number), (Turn("user", "?"),), "") for number in range(records)]
        self._shards = iter(range(shard_count(records)))
        self._lock = threading.Lock()

    def seconds(self) -> float:
        """Return how long it takes, in virtual seconds."""
        with self._clock.hold():
            before = self._now()
            self.together([self._function] * SHARDS_AT_ONCE)
            return self._now() - before

    def together(self, works: Sequence[Callable[[], None]]) -> None:
        """Do all of `works` at once in virtual time and return when the last is done."""
        ends = [self._clock.signal("the end of a thread") for _ in works]
        for work, end in zip(works, ends, strict=True):

            def run(work: Callable[[], None] = work, done: Callable[[], None] = end.set) -> None:
                work()
                done()

            self._clock.spawn(run, "asking")
        for end in ends:
            end.wait()

    def _function(self) -> None:
        self._clock.sleep(self._service.cold_start)
        while True:
            with self._lock:
                shard = next(self._shards, None)
            if shard is None:
                return
            self._clock.sleep(self._service.child_start + self._service.reading)
            places = shard_range(len(self._records), shard)
            pace = Pace(timer=self._now, pause=self._clock.sleep, together=self.together)
            answer_records(self._records[places.start : places.stop], self._ask, pace)

    def _ask(self, record: TestRecord) -> Prediction:
        self._clock.sleep(self._latencies[int(record.record_id)])
        return Prediction(record.record_id, "base")

    def _now(self) -> float:
        return self._clock.now().timestamp()


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Virtual seconds that so many answers take: one after the other, at best with this concurrency, and here."""

    records: int
    spread: float
    loop: float
    taken: float

    @property
    def ideal(self) -> float:
        return self.loop / (SHARDS_AT_ONCE * CONCURRENCY)

    @property
    def ratio(self) -> float:
        return self.taken / self.ideal


def compare(service: Service, records: int) -> Compared:
    """Ask so many records on the virtual clock."""
    return Compared(
        records=records,
        spread=service.spread,
        loop=sum(service.latencies(records)),
        taken=VirtualEvaluation(service, records).seconds(),
    )


def main() -> int:
    """Print the table; the exit code is 1 where 10,000 records take more than 15 % above the ideal."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("--records", type=int, nargs="+", default=[100, 500, 2_000, MANY_RECORDS])
    arguments = parser.parse_args()
    is_within = True
    sys.stdout.write(
        f"{SHARDS_AT_ONCE * CONCURRENCY} at once ({SHARDS_AT_ONCE} shards x {CONCURRENCY} threads), virtual seconds\n"
        f"{'records':>8} {'spread':>7} {'loop':>9} {'ideal':>8} {'taken':>8} {'ratio':>6}\n"
    )
    for one in (compare(Service(spread=spread), records) for records in arguments.records for spread in SPREADS):
        is_within &= one.records < MANY_RECORDS or one.ratio <= BAR
        times = f"{one.loop:9,.0f} {one.ideal:8,.1f} {one.taken:8,.1f}"
        sys.stdout.write(f"{one.records:8,} {one.spread:7} {times} {one.ratio:6.3f}\n")
    return 0 if is_within else 1


if __name__ == "__main__":
    sys.exit(main())
