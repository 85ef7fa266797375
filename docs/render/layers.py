"""Which part of the code imports which, read from the import statements."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PARTS = {
    "tests": ("tests",),
    "benchmarks": ("benchmarks",),
    "docs": ("docs/render",),
    "samples": ("samples",),
    "rehearsal": ("rehearsal",),
    "stacks": ("stacks", "app"),
    "handlers": ("lambda/customization/handlers",),
    "gateway": ("lambda/customization/gateway",),
    "domain": ("lambda/customization",),
    "contract": tuple(f"lambda/customization/{name}" for name in ("errors", "json_types", "settings", "texts")),
}
_LABELS = {
    "docs": "docs/render",
    "stacks": "app.py, stacks",
    "handlers": "lambda: handlers",
    "domain": "lambda: domain",
    "gateway": "lambda: gateway",
    "contract": "lambda: errors, json_types, settings, texts",
}


def layers() -> str:
    """Return the parts as a diagram, an arrow for every import but those that a longer way implies.

    Raises:
        ValueError: parts import each other, so that nothing is above anything.
    """
    arrows = {
        (part, target)
        for path in sorted(_modules())
        for part in (_part(path.relative_to(ROOT).with_suffix("").as_posix()),)
        for name in _imported(path)
        for target in (_part(_place(name)),)
        if part and target and part != target
    }
    nodes = [f'  {part}["{_LABELS.get(part, part)}"]' for part in _PARTS]
    lines = [f"  {source} --> {target}" for source, target in sorted(without_shortcuts(arrows), key=_order)]
    return "\n".join(("```mermaid", "flowchart TD", *nodes, *lines, "```"))


def without_shortcuts(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the arrows that no longer way implies.

    Raises:
        ValueError: they lead in a circle, where each arrow would be implied by the others.
    """
    reached = set(arrows)
    for _ in arrows:
        reached |= {(source, end) for source, middle in reached for start, end in arrows if start == middle}
    circle = sorted(source for source, end in reached if source == end)
    if circle:
        raise ValueError(f"these parts import each other: {', '.join(circle)}")
    implied = {(source, end) for source, middle in arrows for start, end in reached if start == middle}
    return arrows - implied


def _order(arrow: tuple[str, str]) -> tuple[int, int]:
    names = list(_PARTS)
    return names.index(arrow[0]), names.index(arrow[1])


def _modules() -> Iterator[Path]:
    for places in _PARTS.values():
        for place in places:
            module = ROOT / f"{place}.py"
            yield from [module] if module.is_file() else (ROOT / place).rglob("*.py")


def _part(place: str) -> str:
    """Return the part with the longest folder that holds `place`, or nothing for what is installed."""
    found = [(len(p), part) for part, places in _PARTS.items() for p in places if (place + "/").startswith(p + "/")]
    return max(found)[1] if found else ""


def _place(module: str) -> str:
    path = module.replace(".", "/")
    return f"lambda/{path}" if path.startswith("customization") else path


def _imported(path: Path) -> Iterator[str]:
    for node in _run_time(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node but those below `if TYPE_CHECKING`, which import nothing when the code runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from _run_time(child)
