"""Print the tables of docs/cost.md: what runs cost, and what a deployment costs while nobody uses it.

    python -m customization.costs

Everything is computed from the dated prices in data/prices.json as a run computes its estimate; a test compares.
"""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, time
from typing import NamedTuple

from customization.idle import idle_cost, idle_lines
from customization.money import AnswersUsage, Item, TrainingUsage, Usage, estimate, load_prices, plain

REGION = "us-east-1"
_TUNING = "FINE_TUNING"


class Example(NamedTuple):
    """A usage with what it stands for."""

    title: str
    usage: Usage


EXAMPLES = (
    Example(
        "Nova Micro on demand: 1,000 records of 250 tokens, 2 epochs; 200 questions of 200 tokens, answers of 50",
        Usage(
            model="amazon.nova-micro-v1:0:128k",
            region=REGION,
            training=(TrainingUsage(_TUNING, 250_000, 2),),
            baseline=AnswersUsage(40_000, 10_000),
            custom=AnswersUsage(40_000, 10_000),
            serving_mode="on-demand",
            stored_models=1,
        ),
    ),
    Example(
        "Nova 2 Lite on demand: 5,000 records of 400 tokens, 3 epochs; 500 questions of 300 tokens, answers of 100",
        Usage(
            model="amazon.nova-2-lite-v1:0:256k",
            region=REGION,
            training=(TrainingUsage(_TUNING, 2_000_000, 3),),
            baseline=AnswersUsage(150_000, 50_000),
            custom=AnswersUsage(150_000, 50_000),
            serving_mode="on-demand",
            stored_models=1,
        ),
    ),
    Example(
        "Nova 2 Lite kept on demand for a month: 1,000 questions a day of 300 tokens, answers of 100",
        Usage(
            model="amazon.nova-2-lite-v1:0:256k",
            region=REGION,
            custom=AnswersUsage(1_000 * 30 * 300, 1_000 * 30 * 100),
            serving_mode="on-demand",
            stored_models=1,
        ),
    ),
    Example(
        "Nova 2 Lite by provisioned throughput: one model unit for the hour of the evaluation",
        Usage(model="amazon.nova-2-lite-v1:0:256k", region=REGION, serving_mode="provisioned", serving_hours=1),
    ),
    Example(
        "What must not happen: the same throughput forgotten for a month",
        Usage(model="amazon.nova-2-lite-v1:0:256k", region=REGION, serving_mode="provisioned", serving_hours=730),
    ),
)


def as_of() -> datetime:
    """Return the day of the latest price, so that the same prices give the same tables."""
    return datetime.combine(max(row.day for row in load_prices().rows), time(), UTC)


def run_tables() -> str:
    """Return a table for each example, in Markdown."""
    return "\n\n".join("\n".join(_example_lines(example)) for example in EXAMPLES)


def _example_lines(example: Example) -> Iterator[str]:
    estimated = estimate(example.usage, load_prices(), as_of())
    yield f"**{example.title}**\n"
    yield "| item | quantity | price, USD | USD |\n|---|---:|---:|---:|"
    yield from (_item_line(item) for item in estimated.items)
    unknown = f", without {', '.join(estimated.unknown)}" if estimated.unknown else ""
    yield f"| **together{unknown}** | | | **{estimated.known_usd:,.2f}** |"


def _item_line(item: Item) -> str:
    name = f"{item.name}, {item.part}" if item.part else item.name
    price = "unknown" if item.usd_per_unit is None else f"{plain(item.usd_per_unit)} ({item.price_date})"
    usd = "unknown" if item.usd is None else f"{item.usd:,.2f}"
    return f"| {name} | {item.quantity:,.0f} x {item.unit} | {price} | {usd} |"


def idle_table() -> str:
    """Return the idle cost a month, in Markdown."""
    today = as_of().date()
    lines = ["| what | a month | price, USD | USD a month |", "|---|---:|---:|---:|"]
    for line in idle_lines(REGION, today):
        price = "unknown" if line.usd_per_unit is None else _short(line.usd_per_unit)
        usd = "unknown" if line.usd is None else f"{line.usd:.2f}"
        lines.append(f"| {line.what} | {line.amount:,.6g} x {line.unit} | {price} | {usd} |")
    return "\n".join([*lines, f"| **together** | | | **{idle_cost(REGION, today)[0]:.2f}** |"])


def _short(usd: float) -> str:
    return f"{usd:.10f}".rstrip("0").rstrip(".")


def main() -> None:
    """Print both parts as docs/cost.md has them."""
    sys.stdout.write(f"{run_tables()}\n\n{idle_table()}\n")


if __name__ == "__main__":
    main()
