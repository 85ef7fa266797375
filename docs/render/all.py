"""Every page that is rendered, wholly or in parts."""

import re
from pathlib import Path

from docs.render import costs, deployment, layers, missed_by, report_schema, run_request
from docs.render.graph import Machine
from docs.render.pages import filled, marks, table
from rehearsal.templates import read_templates

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_OPENING = re.compile(r"# (?P<title>.+)\n\n(?!#)(?P<sentence>(?:.+\n)*?.*?\.)\s")


def index() -> str:
    """Return every page of docs/ with its first sentence; raises ValueError naming a page that begins otherwise."""
    rows = []
    for path in sorted(DOCS.glob("*.md")):
        if path.name == "README.md":
            continue
        opening = _OPENING.match(path.read_text())
        if opening is None:
            raise ValueError(f"{path.name}: begin with a title and with a sentence that says what the page has")
        rows.append((f"[{opening['title']}]({path.name})", " ".join(opening["sentence"].split())))
    return table(("page", "what is in it"), rows)


def rendered(assembly: Path) -> dict[Path, str]:
    """Return each rendered file with what it should hold, from the templates in `assembly` and the code."""
    templates = read_templates(assembly)
    machine, policies = Machine(templates["pipeline"]), deployment.Policies(templates)
    parts = {
        "pages": index(),
        "overview": machine.overview(),
        "sections": machine.sections(),
        "unusual-catches": machine.unusual_catches(),
        "stacks": deployment.stacks(templates),
        "outputs": deployment.outputs(templates),
        "data-flow": policies.data_flow(),
        "trust": policies.trust(),
        "permissions-storage": policies.permissions("storage"),
        "permissions-pipeline": policies.permissions("pipeline"),
        "missed-by-runs": missed_by.rows("runs", "path or act"),
        "missed-by-tables": missed_by.rows("tables", "test"),
        "missed-by-tables-of-settings": missed_by.rows("settings", "test"),
        "layers": layers.layers(),
        "run-costs": costs.run_tables(),
        "idle-cost": costs.idle_table(),
        "run-request": run_request.reference(),
        "inputs": run_request.inputs(),
    }
    pages = {path: path.read_text() for path in (*ROOT.glob("*.md"), *DOCS.glob("*.md"))}
    return {
        **{path: filled(text, parts) for path, text in pages.items() if marks(text)},
        DOCS / "report.schema.json": report_schema.schema_text(),
        DOCS / "run-request.schema.json": run_request.schema_text(),
    }
