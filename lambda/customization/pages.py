"""The templates of the pages, and how they write numbers and moments.

`python -m customization.pages FOLDER` compiles the templates into a folder. Synthesis puts it beside them in what is
deployed, since compiling takes as long as drawing a report; elsewhere each process compiles them itself.
"""

import sys
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, ModuleLoader, StrictUndefined

_TEMPLATES = Path(__file__).parent / "templates"
_COMPILED = _TEMPLATES / "compiled"
_LONGEST_TEXT = 2000


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return what renders the pages: everything in them is escaped, and what is missing is an error."""
    environment = Environment(
        loader=ModuleLoader(_COMPILED) if _COMPILED.exists() else FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "first_upper": _first_upper,
        "percent": lambda value: f"{value * 100:.1f} %",
        "points": lambda value: f"{value * 100:+.1f}",
        "number": lambda value: f"{value:,.6g}" if isinstance(value, float) else f"{value:,}",
        "usd": lambda value: f"{value:,.2f}" if value == 0 or abs(value) >= 0.01 else f"{value:.6f}",  # noqa: PLR2004 - a cent
        "short": _short,
        "moment": lambda moment: f"{moment:%Y-%m-%d %H:%M}",
        "duration": _duration,
    }
    return environment


def _first_upper(text: str) -> str:
    """Return the text as a heading begins; names such as chrF stay as they are."""
    return text if any(character.isupper() for character in text.partition(" ")[0][1:]) else text[:1].upper() + text[1:]


def _short(text: str, length: int = _LONGEST_TEXT) -> str:
    return text if len(text) <= length else f"{text[:length]} …"


def _duration(span: float) -> str:
    """Return seconds as people say them."""
    minutes = round(span / 60)
    if minutes < 60:  # noqa: PLR2004 - an hour
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


if __name__ == "__main__":
    environment().compile_templates(sys.argv[1], zip=None, ignore_errors=False)
