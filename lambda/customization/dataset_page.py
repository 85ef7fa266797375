"""The page of a data set: all its runs compared, in one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from markupsafe import Markup

from customization.bootstrap import Interval
from customization.charts import Captions, bar_chart
from customization.figures import Text
from customization.history import Change, RunSummary
from customization.pages import environment
from customization.texts import Language, Sentence, say, term

_MOST_RUNS_IN_CHART = 12
_LONGEST_VALUE = 80


class DatasetPage(msgspec.Struct, frozen=True, kw_only=True):
    """`runs` are newest first; `links` are the addresses of their reports in the console, by runId."""

    dataset: str
    language: Language
    is_rehearsal: bool
    now: datetime
    runs: tuple[RunSummary, ...]
    links: Mapping[str, str]


def render_dataset(page: DatasetPage) -> str:
    """Return the page: HTML in UTF-8 with its style and charts inside, no script, nothing fetched.

    A report is linked by its place beside the page, for a copy of the bucket on a laptop, and in the console.
    """

    def text(code: str, **values: str) -> str:
        return say(Sentence(code, values), page.language)

    def name(family: str, code: str) -> str:
        return term(family, code, page.language)

    # Scores of different metrics do not compare: the latest run decides which is drawn
    compared = [run for run in page.runs if "custom" in run.scores]
    shown = [run for run in compared if run.metric == compared[0].metric][:_MOST_RUNS_IN_CHART]
    return (
        environment()
        .get_template("dataset.html.j2")
        .render(
            page=page,
            t=text,
            term=name,
            chart=_scores(shown, text) if shown else "",
            chart_metric=shown[0].metric if shown else "",
            change=lambda item: _change(item, text),
        )
    )


def _scores(shown: Sequence[RunSummary], text: Text) -> Markup:
    """Return the scores of runs that were compared by one metric."""
    told = "; ".join(f"{run.run_id}: {run.scores['custom'].mean:.0%}" for run in shown)
    metric = text(f"metricName.{shown[0].metric}")
    sides = [side for side in ("base", "custom") if all(side in run.scores for run in shown)]
    return bar_chart(
        Captions(f"{text('runs.chart')} ({metric})", told),
        [f"{run.started_at[5:16].replace('T', ' ')} {run.name}"[:24] for run in shown],
        {
            text(f"side.{side}"): [
                Interval(run.scores[side].mean, run.scores[side].low, run.scores[side].high) for run in shown
            ]
            for side in sides
        },
        horizontal=True,
        form=lambda value: f"{value * 100:.0f} %",
        highest=1.0,
    )


def _change(change: Change, text: Text) -> str:
    """Return what differs from the run before, in words; of data only that they differ is told."""
    if change.setting.startswith("data."):
        kind = "dataChanged" if change.before and change.after else ("dataAdded" if change.after else "dataLeftOut")
        return text(f"runs.{kind}", file=change.setting.removeprefix("data."))
    before, after = (value[:_LONGEST_VALUE] or text("runs.unset") for value in (change.before, change.after))
    return text("runs.change", setting=change.setting, before=before, after=after)
