"""Pages with parts that are rendered: what stands between two marks is written by `make docs`, the rest by people."""

import re
from collections.abc import Iterable, Mapping, Sequence

_PART = re.compile(r"(<!-- begin ([\w-]+): [^>]*-->\n).*?(<!-- end \2 -->)", re.DOTALL)


def filled(page: str, parts: Mapping[str, str]) -> str:
    """Return the page with its marked parts rendered anew; raises KeyError naming a mark that no part is for."""
    return _PART.sub(lambda found: f"{found[1]}\n{parts[found[2]]}\n\n{found[3]}", page)


def marks(page: str) -> list[str]:
    """Return the names of the parts of a page."""
    return [found[2] for found in _PART.finditer(page)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a bar within a cell would end it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
