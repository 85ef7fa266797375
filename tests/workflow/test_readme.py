"""The lines that README.md gives for deploying, run as they stand by the real CDK CLI against the embedded AWS."""

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from rehearsal.run import Rehearsal, Setting
from tests.workflow.data import labelled

ROOT = Path(__file__).parents[2]
DEPLOY = re.compile(r"<!-- deploy: .* -->\n```\n(.*?)```", re.DOTALL)


def deploy_lines() -> str:
    found = DEPLOY.search((ROOT / "README.md").read_text())
    assert found is not None
    return found[1]


def test_the_deploy_lines_of_the_readme_deploy_a_pipeline_that_runs(tmp_path: Path) -> None:
    lines = deploy_lines()
    assert "cdk deploy --all" in lines
    date = datetime(2026, 11, 22, 9, tzinfo=UTC)
    setting = Setting(assembly=None, region="us-east-1", date=date, log_dir=tmp_path / "logs")
    with Rehearsal(setting) as rehearsal:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_"))} | {
            "AWS_ENDPOINT_URL": rehearsal.aws.endpoint_url,
            "AWS_ACCESS_KEY_ID": "AKIAREHEARSALDEPLOYR",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_REGION": "us-east-1",
            "CDK_REQUIRE_APPROVAL": "never",  # a person answers the CLI's question
            "CDK_OUTPUT": str(tmp_path / "cdk.out"),
            "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        done = subprocess.run(  # noqa: S603  the lines are those of the README
            ["bash", "-euo", "pipefail", "-c", lines],  # noqa: S607  bash is on the path
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        rehearsal.find_outputs()
        rehearsal.drop("support", labelled())
        rehearsal.finish()
        assert [row["state"] for row in rehearsal.runs()] == ["SUCCEEDED"]
