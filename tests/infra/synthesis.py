"""Synthesizes app.py the way a person does, in a process of its own, and reads what came out."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from customization.json_types import Json, JsonObject
from rehearsal.templates import at, listed, read, read_templates, resources

__all__ = ["ROOT", "at", "listed", "read", "resources", "run_app", "synthesize"]

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
    return read_templates(outdir)
