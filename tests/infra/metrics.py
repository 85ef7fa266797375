"""Reads from a template of the operations stack which metrics its alarms and its dashboard name."""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from customization.json_types import Json, JsonObject, as_list, as_object
from tests.infra.synthesis import at, resources

_IMPORT = "import:"


class Named(NamedTuple):
    """A metric with its dimensions; the import of another stack's value stands as `import:<export>` in them."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]


def _text(value: Json) -> str:
    """Return the text that CloudFormation would make of `value`, with imports and references by their names."""
    if isinstance(value, str):
        return value
    [(function, argument)] = as_object(value, "value").items()
    if function == "Fn::Join":
        separator, parts = as_list(argument, "Fn::Join")
        return str(separator).join(_text(part) for part in as_list(parts, "Fn::Join"))
    return f"{_IMPORT}{argument}" if function == "Fn::ImportValue" else f"{function}:{argument}"


def dashboard_widgets(template: JsonObject) -> list[JsonObject]:
    """Return the widgets of the one dashboard."""
    (dashboard,) = resources(template, "AWS::CloudWatch::Dashboard").values()
    body: Json = json.loads(_text(at(dashboard, "Properties", "DashboardBody")))
    return [as_object(widget, "widget") for widget in as_list(at(body, "widgets"), "widgets")]


def _rows(widget: JsonObject) -> Iterator[list[Json]]:
    """Yield namespace, name and dimensions of each metric, or the expression that finds some."""
    properties = as_object(widget["properties"], "properties")
    for item in as_list(properties.get("metrics", []), "metrics"):
        row = as_list(item, "metric")
        yield row[:-1] if isinstance(row[-1], dict) and len(row) > 1 else row


def names_in(widget: JsonObject) -> list[str]:
    """Return the names of the metrics that a widget draws, those that it searches for too."""
    searched = re.findall(r'MetricName=\\"?"?(\w+)', json.dumps(widget))
    return [str(row[1]) for row in _rows(widget) if len(row) > 1] + searched


def named_metrics(template: JsonObject) -> set[Named]:
    """Return the metrics that an alarm or the dashboard names."""
    found = set()
    for widget in dashboard_widgets(template):
        for row in _rows(widget):
            if len(row) > 1:
                texts = [str(part) for part in row]
                found.add(Named(texts[0], texts[1], tuple(sorted(zip(texts[2::2], texts[3::2], strict=True)))))
    for alarm in resources(template, "AWS::CloudWatch::Alarm").values():
        properties = as_object(alarm["Properties"], "alarm")
        dimensions = [as_object(item, "dimension") for item in as_list(properties["Dimensions"], "dimensions")]
        pairs = sorted((str(item["Name"]), _text(item["Value"])) for item in dimensions)
        found.add(Named(str(properties["Namespace"]), str(properties["MetricName"]), tuple(pairs)))
    return found
