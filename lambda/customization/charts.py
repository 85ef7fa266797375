"""Charts as inline SVG without styles or scripts of their own: the page's style sheet colours them, dark or printed."""

import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import msgspec
from markupsafe import Markup

from customization.bootstrap import Interval

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


class _NoPlugins(ModuleType):
    """Stands for the backport that pygal asks for plugins: there are none, and to import it takes longer than pygal."""

    @staticmethod
    def entry_points(**_: str) -> tuple[str, ...]:
        return ()


@contextmanager
def _without_plugins() -> Iterator[None]:
    name = "importlib_metadata"
    before = sys.modules.get(name)
    sys.modules[name] = _NoPlugins(name)
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


with _without_plugins():
    import pygal  # type: ignore[import-untyped]  # pygal publishes no types; what it returns is narrowed in _svg
    from pygal.etree import etree  # type: ignore[import-untyped]  # as above
    from pygal.style import Style  # type: ignore[import-untyped]  # as above

# pygal draws with lxml wherever that is installed, whose elements _svg could not take apart
etree.to_etree()

_WIDTH, _HEIGHT = 460, 270
_BAR_HEIGHT, _AXIS_HEIGHT = 20, 50
_MARGIN = 6
_LONGEST_LABEL = 24
_MOST_POINTS = 150
# pygal adds up the steps of an axis, and does not come to its end where a step is lost beside the values
_HIGHEST, _LOWEST = 1e15, 1e-12
_FONT_SIZE = 12
_UNUSED: set[object] = {"desc", "style", "script", ET.Comment}
_STYLE = Style(
    font_family="sans-serif",
    label_font_size=_FONT_SIZE,
    major_label_font_size=_FONT_SIZE,
    title_font_size=_FONT_SIZE,
    value_font_size=_FONT_SIZE,
    no_data_font_size=_FONT_SIZE + 4,
)


class Captions(msgspec.Struct, frozen=True):
    """What a chart shows: `title` names it, `description` says in words what there is to see."""

    title: str
    description: str
    x: str = ""
    y: str = ""


def line_chart(captions: Captions, series: Mapping[str, Sequence[tuple[float, float]]]) -> Markup:
    """Return lines over finite numbers, which beyond 1e15 are shown there.

    Long series are shown as the means of neighbouring points.
    """
    chart = pygal.XY(**_options(captions), dots_size=2, min_scale=3, max_scale=6, x_value_formatter=_plain)
    for name, points in series.items():
        shown = [(_drawable(x), _drawable(y)) for x, y in _thinned(points)]
        chart.add(name, shown, show_dots=len(shown) < _MOST_POINTS // 5)
    return _svg(chart, captions, series)


def bar_chart(
    captions: Captions,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float | Interval]],
    *,
    horizontal: bool = False,
    form: Callable[[float], str] = str,
    highest: float | None = None,
) -> Markup:
    """Return grouped bars, one a label and series; an Interval is drawn with its bounds.

    `form` writes a value, `highest` is where the axis ends (None: at the highest value).
    """
    options = _options(captions)
    if horizontal:
        options["height"] = _AXIS_HEIGHT + _BAR_HEIGHT * len(labels) * max(len(series), 1)
        options["margin_left"] = max((_unseen_width(label) for label in labels), default=0) + _MARGIN
    kind = pygal.HorizontalBar if horizontal else pygal.Bar
    chart = kind(**options, min_scale=3, max_scale=6, value_formatter=form, zero=0, rounded_bars=2)
    # pygal draws horizontal bars from below.
    order = -1 if horizontal else 1
    chart.x_labels = list(labels)[::order]
    if highest is not None:
        chart.range = (0, highest)
    for name, values in series.items():
        chart.add(name, [_bar(value) for value in values][::order])
    return _svg(chart, captions, series)


# pygal's options, series and values are of many types: `object` stands for what only pygal reads.
def _options(captions: Captions) -> dict[str, object]:
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "style": _STYLE,
        "css": [],
        "js": [],
        "no_prefix": True,
        "x_title": captions.x or None,
        "y_title": captions.y or None,
        "show_legend": False,
        "truncate_label": _LONGEST_LABEL,
        "margin": _MARGIN,
        "margin_right": 16,
        "spacing": 8,
        "show_y_guides": True,
    }


def _bar(value: float | Interval) -> object:
    if isinstance(value, Interval):
        return {"value": value.mean, "ci": {"low": value.low, "high": value.high}}
    return value


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most _MOST_POINTS points, each the mean of its neighbours; the first and the last stay as they are."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    size = -(-len(points) // (_MOST_POINTS - 2))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    means = [(_mean([x for x, _ in group]), _mean([y for _, y in group])) for group in groups]
    return [points[0], *means[1:-1], points[-1]]


def _mean(values: Sequence[float]) -> float:
    return sum(value / len(values) for value in values)


def _drawable(value: float) -> float:
    """Return the value to nine digits, so that what differs does so by more than the steps of an axis may lose."""
    within = max(-_HIGHEST, min(value, _HIGHEST))
    return 0.0 if abs(within) < _LOWEST else float(f"{within:.9g}")


def _unseen_width(label: str) -> int:
    """Return by how much pygal, which takes every character for a Latin one, thinks the label too narrow."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in label[:_LONGEST_LABEL])
    return round(wide * _FONT_SIZE * 0.45)


def _plain(value: float) -> str:
    return f"{value:g}"


# The chart is pygal's, which has no types.
def _svg(chart: object, captions: Captions, series: Iterable[str]) -> Markup:
    """Return the chart's element, named and described for those who do not see it, without pygal's style and script."""
    root: Element = chart.render_tree()  # type: ignore[attr-defined]  # every pygal chart has it
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in _UNUSED:
                _drop(parent, child)
    for element in root.iter():
        # Several charts share a page, and pygal gives each the same ids.
        element.attrib.pop("id", None)
    root.set("role", "img")
    root.set("aria-label", f"{captions.title}. {captions.description}")
    title = root.find("title")
    if title is not None:
        title.text = f"{captions.title} ({', '.join(series)})"
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - serialized by ElementTree, which escapes


def _drop(parent: "Element", child: "Element") -> None:
    """Remove a child; the value that pygal keeps for its script becomes the tooltip that browsers show themselves."""
    if child.get("class") == "value" and child.text:
        title = ET.Element("title")
        title.text = child.text
        parent.insert(0, title)
    parent.remove(child)
