"""What a deployment costs a month while nobody uses it: what its templates make, and the sweeper's calls.

What AWS gives free is not taken off: other applications of the account may have used it. Tests count the quantities in
the templates and in the sweeper's metrics again; what no template says is assumed, and said to be.
"""

from datetime import date
from typing import NamedTuple

from customization.money import PriceItem, load_prices

# A rule calls the sweeper every 15 minutes
SWEEPS = 365 / 12 * 24 * 4
SWEEPER_GB = 0.5
_SWEEP_SECONDS = 3  # assumed: some ten calls to AWS, and a cold start, since nothing calls it for 15 minutes
_SWEEP_READS = 400  # assumed: four scans of a hundred rows of 4 KB
_SWEEP_KEY_REQUESTS = 5  # assumed: DynamoDB and CloudWatch Logs keep data keys for minutes
_SWEEP_LOG_GB = 3e-6  # assumed: its own two lines, and those of Lambda


class Quantity(NamedTuple):
    """How much a deployment has or uses a month, in the unit of the price."""

    what: str
    item: PriceItem
    amount: float


QUANTITIES = (
    Quantity("KMS key; each of its first two yearly rotations adds as much", "key", 1),
    Quantity("dashboard", "dashboard", 1),
    Quantity("alarms", "alarm", 11),
    Quantity("metrics that the sweeper writes whatever happens", "customMetric", 4),
    Quantity("calls of the sweeper", "functionRequests", SWEEPS / 1e6),
    Quantity("its time, 3 seconds a call assumed", "functionTime", SWEEPS * _SWEEP_SECONDS * SWEEPER_GB),
    Quantity("its traces", "traces", SWEEPS / 1e6),
    Quantity("its log", "logs", SWEEPS * _SWEEP_LOG_GB),
    Quantity("its reads of the tables, 100 runs assumed", "tableReads", SWEEPS * _SWEEP_READS / 1e6),
    Quantity("its requests to the key", "keyRequests", SWEEPS * _SWEEP_KEY_REQUESTS / 1e4),
    Quantity("data, results and code in S3, 1 GB assumed", "objectStorage", 1),
    Quantity("tables, 0.01 GB assumed", "tableStorage", 0.01),
    Quantity("their backups", "tableBackup", 0.01),
)


class IdleLine(NamedTuple):
    """A line of the idle cost; `usd` is None where no source gives a price for the Region."""

    what: str
    amount: float
    unit: str
    usd_per_unit: float | None
    usd: float | None


def idle_lines(region: str, today: date) -> tuple[IdleLine, ...]:
    """Return what a deployment in `region` costs a month in USD while nobody uses it, by line."""
    lines = []
    for what, item, amount in QUANTITIES:
        row = load_prices().find("*", item, region, today)
        known = IdleLine(what, amount, row.unit, row.usd, amount * row.usd) if row else None
        lines.append(known or IdleLine(what, amount, "", None, None))
    return tuple(lines)


def idle_cost(region: str, today: date) -> tuple[float, int]:
    """Return the sum of `idle_lines` in USD a month, and how many of them have no price in the Region."""
    costs = [line.usd for line in idle_lines(region, today)]
    return round(sum(usd for usd in costs if usd is not None), 2), costs.count(None)
