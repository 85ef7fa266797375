"""What Bedrock would bill for what it was asked to do, priced with the project's price rows or unknown."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock

from customization.money import PriceBook, PriceItem

HOUR = timedelta(hours=1)
# Storage is priced by the month; a month has 30 days here.
MONTH = timedelta(days=30)
UNITS: dict[PriceItem, str] = {
    "trainingTokens": "1K tokens",
    "inputTokens": "1K tokens",
    "outputTokens": "1K tokens",
    "customInputTokens": "1K tokens",
    "customOutputTokens": "1K tokens",
    "provisionedThroughput": "model unit hour",
    "storage": "custom model month",
}


@dataclass(frozen=True)
class Charge:
    """So much of `item`, in its unit, for a resource (an ARN) whose base model has the identifier `model`."""

    resource: str
    model: str
    item: PriceItem
    quantity: float
    since: datetime
    until: datetime


@dataclass(frozen=True)
class LedgerEntry:
    """A charge with its price; `usd` is None where no source gives a price."""

    resource: str
    model: str
    item: PriceItem
    quantity: float
    unit: str
    usd: float | None
    since: datetime
    until: datetime


class Ledger:
    """Charges of one account and Region; those of one resource and item are summed up."""

    def __init__(self, prices: PriceBook, region: str) -> None:
        self._prices = prices
        self._region = region
        self._charges: dict[tuple[str, PriceItem], Charge] = {}
        self._lock = Lock()

    def add(self, charge: Charge) -> None:
        """Book a charge."""
        if charge.quantity <= 0:
            return
        key = charge.resource, charge.item
        with self._lock:
            before = self._charges.get(key, charge)
            quantity = charge.quantity + (before.quantity if key in self._charges else 0.0)
            self._charges[key] = Charge(
                charge.resource, charge.model, charge.item, quantity, before.since, max(before.until, charge.until)
            )

    def entries(self, running: Iterable[Charge]) -> list[LedgerEntry]:
        """Return every booked charge and those of `running`, what still bills, with their prices."""
        with self._lock:
            charges = [*self._charges.values(), *running]
        return [
            self._priced(charge)
            for charge in sorted(charges, key=lambda charge: (charge.since, charge.resource, charge.item))
        ]

    def _priced(self, charge: Charge) -> LedgerEntry:
        row = self._prices.find(charge.model, charge.item, self._region, charge.since.date())
        return LedgerEntry(
            charge.resource,
            charge.model,
            charge.item,
            charge.quantity,
            UNITS[charge.item],
            round(charge.quantity * row.usd, 6) if row else None,
            charge.since,
            charge.until,
        )
