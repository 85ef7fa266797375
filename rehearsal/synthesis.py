"""Synthesizes the app as `cdk synth` would, in a process of its own, without the CDK CLI."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from customization.json_types import Json

ROOT = Path(__file__).parents[1]


class SynthesisError(RuntimeError):
    """The app could not be synthesized; the message is what it said."""


def synthesize(folder: Path, settings: Mapping[str, Json], **environment: str) -> Path:
    """Write the cloud assembly into `folder` and return it; `settings` lie over cdk.json as `cdk -c` lays them.

    Nothing of the caller's AWS or CDK environment takes part. Raises SynthesisError.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_", "PYTEST"))}
    context = {"CDK_CONTEXT_JSON": json.dumps(settings), "CDK_OUTDIR": str(folder)}
    done = subprocess.run(  # noqa: S603  this interpreter, this project
        [sys.executable, str(ROOT / "app.py")],
        env=inherited | context | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SynthesisError(done.stderr.strip())
    return folder
