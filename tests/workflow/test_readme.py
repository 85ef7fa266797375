"""The lines that README.md gives for deploying, run as they stand by the real CDK CLI against the embedded AWS."""

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from rehearsal.run import Rehearsal, Setting
from tests.workflow.data import labelled

ROOT = Path(__file__).parents[2]
DEPLOY = re.compile(r"<!-- deploy: .* -->\n```sh\n(.*?)```", re.DOTALL)


def deploy_lines() -> str:
    found = DEPLOY.search((ROOT / "README.md").read_text())
    assert found is not None
    return found[1]


def recipe(target: str) -> list[str]:
    """Return the lines that make would run for a target of the Makefile, without those of the targets before it."""
    done = subprocess.run(  # noqa: S603  the targets are those of the tests below
        ["make", "--no-print-directory", "--dry-run", "--assume-old=install", target, "RELEASE=yes"],  # noqa: S607  make is on the path
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def assert_is_taken_down(rehearsal: Rehearsal, environment: dict[str, str]) -> None:
    """Run what make destroy and make purge run, but for what is installed already."""
    lines = [line for line in recipe("destroy") if not line.startswith("npm")]
    assert any("cdk destroy --all" in line for line in lines)
    # A person answers the CLI's question; the app is the one that was synthesized
    app = {"CDK_FORCE": "true", "CDK_APP": environment["CDK_OUTPUT"]}
    destroyed = run("\n".join(lines), environment | app)
    assert destroyed.returncode == 0, destroyed.stdout + destroyed.stderr
    assert "together 2.95 USD a month" in destroyed.stdout
    stacks = rehearsal.aws.session().client("cloudformation").describe_stacks()["Stacks"]
    assert [stack["StackName"] for stack in stacks] == ["CDKToolkit"]
    purged = run("\n".join(recipe("purge")), environment, typed="dev\n")
    assert purged.returncode == 0, purged.stdout + purged.stderr
    assert rehearsal.aws.session().client("dynamodb").list_tables()["TableNames"] == []


def run(lines: str, environment: dict[str, str], typed: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603  the lines are those of the README and of the Makefile
        ["bash", "-euo", "pipefail", "-c", lines],  # noqa: S607  bash is on the path
        cwd=ROOT,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )


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
        done = run(lines, environment)
        assert done.returncode == 0, done.stdout + done.stderr
        rehearsal.find_outputs()
        rehearsal.drop("support", labelled())
        rehearsal.finish()
        assert [row["state"] for row in rehearsal.runs()] == ["SUCCEEDED"]
        assert_is_taken_down(rehearsal, environment)
