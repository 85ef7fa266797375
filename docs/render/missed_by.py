"""What misses a permission that is taken away, as the tests have found it and hold it."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from docs.render.pages import table

LIST = Path(__file__).with_name("missed_by.json")

# Who, then the path, act or test, then the permissions
MissedBy = Mapping[str, Mapping[str, list[str]]]


@cache
def noted(part: str) -> MissedBy:
    """Return a part of the list: `runs`, `tables`, or what only `settings` bring."""
    parts: Mapping[str, MissedBy] = json.loads(LIST.read_text())
    return parts[part]


def rows(part: str, what: str) -> str:
    """Return a part as a table; holders that lack the same and are missed by the same share a row."""
    holders: dict[tuple[str, str], list[str]] = {}
    for who, found in noted(part).items():
        for name, permissions in found.items():
            holders.setdefault((", ".join(f"`{permission}`" for permission in permissions), f"`{name}`"), []).append(
                who
            )
    return table(("who", "without", what), ((", ".join(who), *row) for row, who in holders.items()))
