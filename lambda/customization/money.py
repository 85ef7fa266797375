"""What a run costs: estimated before it spends, settled afterwards with the same items.

An item without a price row is unknown: it is never counted as zero and never guessed.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from customization.errors import BudgetExceeded
from customization.texts import Sentence, load_texts

PriceItem = Literal[
    "trainingTokens",
    "inputTokens",
    "outputTokens",
    "customInputTokens",
    "customOutputTokens",
    "provisionedThroughput",
    "storage",
    "objectStorage",
    "tableStorage",
    "tableBackup",
    "tableReads",
    "key",
    "keyRequests",
    "dashboard",
    "alarm",
    "customMetric",
    "logs",
    "traces",
    "functionRequests",
    "functionTime",
    "stateTransitions",
    "objectWrites",
    "objectReads",
    "tableWrites",
    "emails",
]
TRAINING = "training"
BASELINE_ANSWERS = "baselineAnswers"
CUSTOM_ANSWERS = "customAnswers"
PROVISIONED_THROUGHPUT = "provisionedThroughput"
CUSTOM_MODEL_STORAGE = "customModelStorage"
ITEM_NAMES = (TRAINING, BASELINE_ANSWERS, CUSTOM_ANSWERS, PROVISIONED_THROUGHPUT, CUSTOM_MODEL_STORAGE)

STALE_AFTER_DAYS = 90
_CUSTOM_ITEMS: tuple[PriceItem, PriceItem] = ("customInputTokens", "customOutputTokens")


class Price(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A price row; `model` and `region` may be `*`, `dated` is as precise as its source: a day, a month or a year."""

    model: str
    item: PriceItem
    usd: float
    unit: str
    region: str
    dated: str = msgspec.field(name="date")
    source: str
    confidence: str = "published"

    @property
    def day(self) -> date:
        """The first day that `dated` can mean."""
        return date.fromisoformat((self.dated + "-01-01")[:10])


class PriceBook(msgspec.Struct, frozen=True):
    rows: tuple[Price, ...]

    def find(self, model: str, item: PriceItem, region: str, day: date) -> Price | None:
        """Return the row that holds on `day`, or None when no source gives one for that model, item and Region.

        A row for the very model comes before one for all, then the latest that was known on `day`, else the earliest
        after it. A price of another Region is never taken.
        """

        def rank(row: Price) -> tuple[bool, bool, int]:
            known = row.day <= day
            return row.model == model, known, row.day.toordinal() * (1 if known else -1)

        rows = [
            row for row in self.rows if row.item == item and row.model in (model, "*") and row.region in (region, "*")
        ]
        return max(rows, key=rank, default=None)


@lru_cache(maxsize=1)
def load_prices() -> PriceBook:
    """Return the bundled rows, each with date and source; they are read once a process."""
    document = msgspec.json.decode((Path(__file__).parent / "data" / "prices.json").read_bytes(), type=_Document)
    return PriceBook(document.rows)


class _Document(msgspec.Struct, frozen=True):
    rows: tuple[Price, ...]


class TrainingUsage(msgspec.Struct, frozen=True, rename="camel"):
    """One stage; None where it is not known, such as an epochCount that AWS chooses."""

    customization_type: str
    tokens: float | None
    epochs: float | None


class AnswersUsage(msgspec.Struct, frozen=True, rename="camel"):
    input_tokens: float = 0
    output_tokens: float = 0


class Usage(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How much a run uses, expected or measured; `model` is a baseModelIdentifier.

    `in_use_model` is that of the model in use where it bills its answers.
    """

    model: str
    region: str
    training: tuple[TrainingUsage, ...] = ()
    baseline: AnswersUsage = AnswersUsage()
    custom: AnswersUsage = AnswersUsage()
    in_use: AnswersUsage = AnswersUsage()
    in_use_model: str = ""
    serving_mode: str = "none"
    model_units: int = 1
    serving_hours: float = 0
    stored_models: int = 0
    stored_months: float = 1


class Item(msgspec.Struct, frozen=True, rename="camel"):
    """One line: `part` tells the lines of one name apart; `usd` is None where price or quantity is unknown."""

    name: str
    part: str
    quantity: float | None
    unit: str
    usd_per_unit: float | None
    usd: float | None
    price_date: str = ""
    source: str = ""


class Estimate(msgspec.Struct, frozen=True, rename="camel"):
    """The lines, the sum of those whose price is known, in USD, and the names of the others.

    `warnings` name the prices that are old.
    """

    items: tuple[Item, ...]
    known_usd: float
    unknown: tuple[str, ...]
    warnings: tuple[Sentence, ...]


class SettledItem(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    part: str
    unit: str
    estimated_quantity: float | None
    actual_quantity: float | None
    estimated_usd: float | None
    actual_usd: float | None


class Settlement(msgspec.Struct, frozen=True, rename="camel"):
    """The estimate beside what was used; `unknown` names the items whose cost stays unknown."""

    items: tuple[SettledItem, ...]
    estimated_usd: float
    actual_usd: float
    unknown: tuple[str, ...]


def estimate(usage: Usage, prices: PriceBook, now: datetime) -> Estimate:
    """Return what `usage` costs at the prices of `now`, in USD, with a warning for each price older than 90 days."""
    lines = list(_lines(usage))
    rows = [prices.find(line.model, line.item, usage.region, now.date()) for line in lines]
    items = tuple(_item(line, row) for line, row in zip(lines, rows, strict=True))
    stale = [row for row in rows if row and (now.date() - row.day).days > STALE_AFTER_DAYS]
    return Estimate(
        items=items,
        known_usd=round(sum(item.usd for item in items if item.usd is not None), 6),
        unknown=tuple(dict.fromkeys(item.name for item in items if item.usd is None)),
        warnings=tuple(_stale(row) for row in dict.fromkeys(stale)),
    )


def _stale(row: Price) -> Sentence:
    values = {
        "item": row.item,
        "dated": row.dated,
        "days": str(STALE_AFTER_DAYS),
        "usd": plain(row.usd),
        "unit": row.unit,
        "source": row.source,
    }
    unit = f"unit.{row.unit}"
    return Sentence("price.stale", values, {"unit": unit} if unit in load_texts() else {})


def plain(usd: float) -> str:
    """Return a price without an exponent and without zeros at its end."""
    return f"{usd:.10f}".rstrip("0").rstrip(".")


class _Line(NamedTuple):
    """Something that is billed, by the price of `item` for `model`."""

    model: str
    name: str
    part: str
    item: PriceItem
    quantity: float | None
    unit: str


def _lines(usage: Usage) -> Iterator[_Line]:
    """Yield everything that the usage bills."""
    own = usage.model
    for stage in usage.training:
        known = stage.tokens is not None and stage.epochs is not None
        quantity = (stage.tokens or 0) * (stage.epochs or 0) / 1000 if known else None
        yield _Line(own, TRAINING, stage.customization_type, "trainingTokens", quantity, "1K tokens")
    yield from _answers(own, BASELINE_ANSWERS, usage.baseline, ("inputTokens", "outputTokens"))
    # A provisioned throughput bills hours whatever it answers, an on-demand deployment bills tokens only.
    if usage.serving_mode == "on-demand":
        yield from _answers(own, CUSTOM_ANSWERS, usage.custom, _CUSTOM_ITEMS)
    if usage.in_use_model:
        yield from _answers(usage.in_use_model, CUSTOM_ANSWERS, usage.in_use, _CUSTOM_ITEMS, "model in use: ")
    if usage.serving_mode == "provisioned" and usage.serving_hours:
        hours = usage.serving_hours * usage.model_units
        yield _Line(own, PROVISIONED_THROUGHPUT, "no commitment", "provisionedThroughput", hours, "model unit hour")
    if usage.stored_models and usage.stored_months:
        months = usage.stored_models * usage.stored_months
        yield _Line(own, CUSTOM_MODEL_STORAGE, "", "storage", months, "custom model month")


def _answers(
    model: str, name: str, used: AnswersUsage, items: tuple[PriceItem, PriceItem], whose: str = ""
) -> Iterator[_Line]:
    if used.input_tokens or used.output_tokens:
        yield _Line(model, name, f"{whose}input", items[0], used.input_tokens / 1000, "1K tokens")
        yield _Line(model, name, f"{whose}output", items[1], used.output_tokens / 1000, "1K tokens")


def _item(line: _Line, row: Price | None) -> Item:
    name, part, quantity, unit = line.name, line.part, line.quantity, line.unit
    if row is None:
        return Item(name, part, quantity, unit, None, None)
    usd = None if quantity is None else round(quantity * row.usd, 6)
    return Item(name, part, quantity, unit, row.usd, usd, row.dated, row.source)


def billed_hours(created: datetime, deleted: datetime) -> int:
    """Return the hours that a provisioned throughput bills: each that has begun, from its creation to its deletion.

    Bedrock guide, "Increase model invocation capacity with Provisioned Throughput": "billed hourly for a Provisioned
    Throughput that you purchase", "until you delete" it. No source exempts the time until it is in service, or says
    that a part of an hour costs a part of its price.
    """
    return max(0, math.ceil((deleted - created) / timedelta(hours=1)))


def hourly_serving_usd(model: str, serving_mode: str, model_units: int, region: str, now: datetime) -> float | None:
    """Return USD an hour while a model is served: 0 without an hourly price, None where no source gives one."""
    if serving_mode != "provisioned":
        return 0.0
    row = load_prices().find(model, "provisionedThroughput", region, now.date())
    return row.usd * model_units if row else None


def check_budget(estimated: Estimate, budget_usd: float, accepted: Sequence[str]) -> None:
    """Pass when the known items fit the budget and every unknown one is named in `accepted`.

    Raises:
        BudgetExceeded: naming each item, its amount and what to change; all reasons at once.
    """
    problems = [
        Sentence("budget.unknownPrice", {"item": _describe_unknown(estimated, name), "name": name})
        for name in estimated.unknown
        if name not in accepted
    ]
    if estimated.known_usd > budget_usd:
        by_name = {name: sum(item.usd or 0 for item in estimated.items if item.name == name) for name in ITEM_NAMES}
        largest = sorted((name for name in ITEM_NAMES if by_name[name] > 0), key=lambda name: -by_name[name])
        amounts = ", ".join(f"{name} {by_name[name]:.2f}" for name in largest)
        values = {"budget": f"{budget_usd:.2f}", "usd": f"{estimated.known_usd:.2f}", "amounts": amounts}
        problems.append(Sentence("budget.tooSmall", values, {"choice": f"spendLess.{largest[0]}"}))
    if problems:
        raise BudgetExceeded(Sentence("budget.exceeded"), [[problem] for problem in problems])


def _describe_unknown(estimated: Estimate, name: str) -> str:
    lines = [item for item in estimated.items if item.name == name and item.usd is None]
    amounts = [f"{item.quantity:,.6g} x {item.unit}" if item.quantity is not None else "?" for item in lines]
    return f"{name} ({', '.join(amounts)})"


def settle(estimated: Estimate, actual: Estimate) -> Settlement:
    """Return both side by side, line by line; `actual` is `estimate` of the measured usage.

    A line that only one side has was estimated, or came out, as nothing.
    """
    before = {(item.name, item.part): item for item in estimated.items}
    after = {(item.name, item.part): item for item in actual.items}
    lines = before | after
    nothing = Item("", "", 0, "", None, 0)
    return Settlement(
        items=tuple(
            SettledItem(
                name=line.name,
                part=line.part,
                unit=line.unit,
                estimated_quantity=before.get(key, nothing).quantity,
                actual_quantity=after.get(key, nothing).quantity,
                estimated_usd=before.get(key, nothing).usd,
                actual_usd=after.get(key, nothing).usd,
            )
            for key, line in lines.items()
        ),
        estimated_usd=estimated.known_usd,
        actual_usd=actual.known_usd,
        unknown=actual.unknown,
    )
