"""The charts of the report: what each one shows, and what it says to those who do not see it."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from markupsafe import Markup, escape

from customization.bootstrap import Interval
from customization.charts import Captions, bar_chart, line_chart
from customization.comparison import HISTOGRAM_BINS, ModelResult

if TYPE_CHECKING:
    from customization.profile import FileProfile, PreparedFile
    from customization.report import ReportData
    from customization.training_metrics import TrainingMetrics

_MOST_CATEGORIES_IN_CHART = 12


class Text(Protocol):
    """Puts a code into the language of the page."""

    def __call__(self, code: str, **values: str) -> str: ...


class Figures:
    """The page's charts; the template asks for those that it has data for."""

    def __init__(self, data: "ReportData", text: Text) -> None:
        self._comparison = data.comparison
        self._text = text

    def _side(self, side: str) -> str:
        return self._text(f"side.{side}")

    def _models(self) -> tuple[ModelResult, ...]:
        return self._comparison.models if self._comparison else ()

    def scores(self) -> Markup:
        """Return the mean of each metric for each model, with its interval."""
        models = [model for model in self._models() if model.scores]
        metrics = list(models[0].scores)
        told = "; ".join(
            f"{self._side(model.side)}: "
            + ", ".join(
                f"{self._text(f'metricName.{metric}')} {mean.mean:.0%}" for metric, mean in model.scores.items()
            )
            for model in models
        )
        return bar_chart(
            Captions(self._text("scores.chart"), told),
            [self._text(f"metricName.{metric}") for metric in metrics],
            {self._side(model.side): [model.scores[metric] for metric in metrics] for model in models},
            horizontal=True,
            form=_as_percent,
            highest=1.0,
        )

    def distribution(self) -> Markup:
        """Return how many records have which score."""
        models = [model for model in self._models() if model.scores]
        width = 100 // HISTOGRAM_BINS
        labels = [str(start) for start in range(0, 100, width)]
        told = "; ".join(f"{self._side(model.side)}: {', '.join(map(str, model.histogram))}" for model in models)
        captions = Captions(
            self._text("distribution.chart"),
            told,
            x=self._text("distribution.score"),
            y=self._text("distribution.records"),
        )
        series = {self._side(model.side): list(model.histogram) for model in models}
        return bar_chart(captions, labels, series, form="{:.0f}".format)

    def categories(self) -> Markup:
        """Return the score of both models in the largest categories."""
        comparison = self._comparison
        if comparison is None:
            return Markup()
        shown = sorted(comparison.categories, key=lambda item: -item.pairs)[:_MOST_CATEGORIES_IN_CHART]
        told = "; ".join(f"{item.category}: {item.baseline:.0%} - {item.custom:.0%}" for item in shown)
        return bar_chart(
            Captions(self._text("categories.chart"), told),
            [item.category for item in shown],
            {
                self._side(comparison.baseline): [item.baseline for item in shown],
                self._side("custom"): [item.custom for item in shown],
            },
            horizontal=True,
            form=_as_percent,
            highest=1.0,
        )

    def losses(self, metrics: "TrainingMetrics") -> Markup:
        """Return the losses of one stage by step."""
        series = {
            self._text("training.loss"): [(float(point.step), point.loss) for point in metrics.training],
            self._text("training.validationLoss"): [(float(point.step), point.loss) for point in metrics.validation],
        }
        missing = self._text("report.notAvailable")
        told = self._text(
            "training.chartDescription",
            first=_loss(metrics.first_training_loss, missing),
            last=_loss(metrics.final_training_loss, missing),
            firstValidation=_loss(metrics.first_validation_loss, missing),
            lastValidation=_loss(metrics.final_validation_loss, missing),
        )
        captions = Captions(self._text("training.chart"), told, x=self._text("training.step"))
        return line_chart(captions, {name: points for name, points in series.items() if points})

    def lengths(self, file: "FileProfile") -> Markup:
        """Return how many records of a file have which length."""
        bins = file.histogram
        told = ", ".join(f"{item.least}-{item.most}: {item.records}" for item in bins)
        captions = Captions(
            self._text("data.histogram", file=file.name),
            told,
            x=self._text("data.characters"),
            y=self._text("data.recordsAxis"),
        )
        # Every label of many would run into the next
        every = -(-len(bins) // 6)
        labels = [f"{item.least:,}" if place % every == 0 else "" for place, item in enumerate(bins)]
        return bar_chart(
            captions,
            labels,
            {self._text("data.records"): [item.records for item in bins]},
            form="{:,.0f}".format,
        )

    def scripts(self, files: Sequence["FileProfile"]) -> Markup:
        """Return which scripts the files are written in."""
        shares = {file.name: file.sample.scripts for file in files if file.sample}
        found = dict.fromkeys(script for of_file in shares.values() for script in of_file)
        told = "; ".join(
            f"{name}: "
            + ", ".join(f"{self._text(f'script.{script}')} {share:.0%}" for script, share in of_file.items())
            for name, of_file in shares.items()
        )
        return bar_chart(
            Captions(self._text("data.scripts"), told),
            [self._text(f"script.{script}") for script in found],
            {name: [of_file.get(script, 0.0) for script in found] for name, of_file in shares.items()},
            horizontal=True,
            form=_as_percent,
            highest=1.0,
        )

    def tokens(self, files: Iterable["PreparedFile"]) -> Markup:
        """Return how many tokens the prepared files may have, from few to many."""
        shown = list(files)
        told = "; ".join(f"{file.name}: {file.tokens.low:,} - {file.tokens.high:,}" for file in shown)
        estimates = [Interval(file.tokens.likely, file.tokens.low, file.tokens.high) for file in shown]
        return bar_chart(
            Captions(self._text("data.tokensChart"), told),
            [file.name for file in shown],
            {self._text("data.tokens"): estimates},
            horizontal=True,
            form=_short_number,
            highest=max((file.tokens.high for file in shown), default=1) or 1,
        )

    def legend(self, names: Iterable[str]) -> Markup:
        """Return the colours of the series, which have these names."""
        marks = "".join(f'<span><i class="mark-{place}"></i>{escape(name)}</span>' for place, name in enumerate(names))
        return Markup(f'<p class="legend">{marks}</p>')  # noqa: S704 - the names are escaped


def _as_percent(value: float) -> str:
    return f"{value * 100:.0f} %"


def _short_number(value: float) -> str:
    return next((f"{value / size:g} {unit}" for size, unit in ((1e6, "M"), (1e3, "k")) if value >= size), f"{value:g}")


def _loss(loss: float | None, missing: str) -> str:
    return missing if loss is None else f"{loss:.3f}"
