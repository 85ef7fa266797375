"""The tables of docs/cost.md: what runs cost, and what a deployment costs while nobody uses it.

Everything is computed from the dated prices in data/prices.json as a run computes its estimate.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, time
from typing import NamedTuple

from customization.catalogue import load_catalogue
from customization.idle_cost import idle_cost, idle_lines
from customization.money import AnswersUsage, Item, TrainingUsage, Usage, estimate, load_prices, plain

REGION = "us-east-1"
_NOVA_MICRO = "amazon.nova-micro-v1:0:128k"
_NOVA_2_LITE = "amazon.nova-2-lite-v1:0:256k"
_DAYS_A_MONTH = 30
_HOURS_A_MONTH = 730


class _Training(NamedTuple):
    """`tokens` are those of a record."""

    records: int
    tokens: int
    epochs: int

    @property
    def text(self) -> str:
        return f"{self.records:,} records of {self.tokens} tokens, {self.epochs} epochs"

    @property
    def usage(self) -> TrainingUsage:
        return TrainingUsage("FINE_TUNING", self.records * self.tokens, self.epochs)


class _Answers(NamedTuple):
    """Tokens are those of a question and of its answer."""

    questions: int
    tokens: int
    answer_tokens: int

    def text(self, period: str = "") -> str:
        return f"{self.questions:,} questions{period} of {self.tokens} tokens, answers of {self.answer_tokens}"

    def usage(self, times: int = 1) -> AnswersUsage:
        questions = self.questions * times
        return AnswersUsage(questions * self.tokens, questions * self.answer_tokens)


class Example(NamedTuple):
    """A usage with what it stands for."""

    title: str
    usage: Usage


def _run(model: str, training: _Training, answers: _Answers) -> Example:
    usage = Usage(
        model=model,
        region=REGION,
        training=(training.usage,),
        baseline=answers.usage(),
        custom=answers.usage(),
        serving_mode="on-demand",
        stored_models=1,
    )
    return Example(f"{_name(model)} on demand: {training.text}; {answers.text()}", usage)


def _month_of_serving(model: str, a_day: _Answers) -> Example:
    custom = a_day.usage(_DAYS_A_MONTH)
    usage = Usage(model=model, region=REGION, custom=custom, serving_mode="on-demand", stored_models=1)
    return Example(f"{_name(model)} kept on demand for a month: {a_day.text(' a day')}", usage)


def _throughput(model: str, hours: float, title: str) -> Example:
    return Example(title, Usage(model=model, region=REGION, serving_mode="provisioned", serving_hours=hours))


def _name(model: str) -> str:
    return load_catalogue().find(model).name


def examples() -> tuple[Example, ...]:
    """Return what docs/cost.md reckons, in its order."""
    hour = f"{_name(_NOVA_2_LITE)} by provisioned throughput: one model unit for the hour of the evaluation"
    return (
        _run(_NOVA_MICRO, _Training(1_000, 250, epochs=2), _Answers(200, 200, answer_tokens=50)),
        _run(_NOVA_2_LITE, _Training(5_000, 400, epochs=3), _Answers(500, 300, answer_tokens=100)),
        _month_of_serving(_NOVA_2_LITE, _Answers(1_000, 300, answer_tokens=100)),
        _throughput(_NOVA_2_LITE, 1, hour),
        _throughput(_NOVA_2_LITE, _HOURS_A_MONTH, "What must not happen: the same throughput forgotten for a month"),
    )


def as_of() -> datetime:
    """Return the day of the latest price, so that the same prices give the same tables."""
    return datetime.combine(max(row.day for row in load_prices().rows), time(), UTC)


def run_tables() -> str:
    """Return a table for each example, in Markdown."""
    return "\n\n".join("\n".join(_example_lines(example)) for example in examples())


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
        price = "unknown" if line.usd_per_unit is None else plain(line.usd_per_unit)
        usd = "unknown" if line.usd is None else f"{line.usd:.2f}"
        lines.append(f"| {line.what} | {line.amount:,.6g} x {line.unit} | {price} | {usd} |")
    return "\n".join([*lines, f"| **together** | | | **{idle_cost(REGION, today)[0]:.2f}** |"])
