"""Synthesizes app.py the way a person does, in a process of its own, and reads what came out."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from customization.json_types import Json, JsonObject, as_object

ROOT = Path(__file__).parents[2]


def run_app(outdir: Path, settings: Mapping[str, Json] | None = None, **environment: str) -> tuple[int, str]:
    """Run app.py with `settings` as `cdk -c` would hand them over; return its exit code and what it wrote to stderr."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_", "PYTEST"))}
    context = {"CDK_CONTEXT_JSON": json.dumps(settings or {}), "CDK_OUTDIR": str(outdir)}
    done = subprocess.run(  # noqa: S603  this interpreter, this project
        [sys.executable, str(ROOT / "app.py")],
        env=inherited | context | environment,
        cwd=outdir.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def synthesize(outdir: Path, settings: Mapping[str, Json] | None = None, **environment: str) -> dict[str, JsonObject]:
    """Return the templates by the last word of their stack's name in lower case: storage, pipeline, operations."""
    code, problems = run_app(outdir, settings, **environment)
    assert code == 0, problems
    return {path.name.split(".")[0].rpartition("-")[2].lower(): read(path) for path in outdir.glob("*.template.json")}


def read(path: Path) -> JsonObject:
    value: Json = json.loads(path.read_bytes())
    return as_object(value, path.name)


def resources(template: JsonObject, kind: str | None = None) -> dict[str, JsonObject]:
    """Return the resources of type `kind`, or all of them, by logical id."""
    found = {name: as_object(value, name) for name, value in as_object(template["Resources"], "Resources").items()}
    return {name: value for name, value in found.items() if kind in (None, value["Type"])}


def at(value: Json, *path: str | int) -> Json:
    """Return what lies at `path`; raises KeyError or IndexError when nothing does."""
    for step in path:
        match value, step:
            case dict(), str():
                value = value[step]
            case list(), int():
                value = value[step]
            case _:
                raise KeyError(f"{step} in {value}")
    return value


def listed(value: Json) -> list[Json]:
    """Return `value` as a list: policies write a single action or resource without one."""
    return value if isinstance(value, list) else [value]
