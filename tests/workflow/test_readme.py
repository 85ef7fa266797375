"""From bootstrap to destroy by the real CDK CLI against the embedded AWS: what README.md and the Makefile say."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rehearsal.run import Rehearsal, Setting
from tests.workflow.data import labelled

ROOT = Path(__file__).parents[2]
DEPLOY = re.compile(r"<!-- deploy: .* -->\n```sh\n(.*?)```", re.DOTALL)
# What of a clone is synthesized and deployed
PROJECT = ("Makefile", "README.md", "app.py", "cdk.json", "package.json", "package-lock.json", "requirements.txt")
_APPROVED = {"CDK_REQUIRE_APPROVAL": "never"}  # a person answers the CLI's question
# What a test has no need to run again
INSTALLED = ("make install", "npm ci")
BIN = str(ROOT / ".venv" / "bin")
FOLDERS = ("stacks", "lambda")
STACKS = [f"Customization-dev-{name}" for name in ("Storage", "Pipeline", "Operations")]


def deploy_lines() -> list[str]:
    found = DEPLOY.search((ROOT / "README.md").read_text())
    assert found is not None
    return found[1].splitlines()


def recipe(target: str, *variables: str) -> list[str]:
    """Return the lines that make would run for a target of the Makefile, without those of the targets before it."""
    done = subprocess.run(  # noqa: S603  the targets are those of the tests below
        ["make", "--no-print-directory", "--dry-run", "--assume-old=install", target, *variables],  # noqa: S607  make is on the path
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


class Clone:
    """A copy of the project in which a person runs commands, against the embedded AWS of a rehearsal."""

    def __init__(self, folder: Path, rehearsal: Rehearsal) -> None:
        self.folder = folder
        self.rehearsal = rehearsal
        folder.mkdir()
        for name in PROJECT:
            shutil.copy(ROOT / name, folder / name)
        for name in FOLDERS:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in (".venv", "node_modules", ".cache"):
            (folder / name).symlink_to(ROOT / name)
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_", "PYTEST"))
        } | {
            "AWS_ENDPOINT_URL": rehearsal.aws.endpoint_url,
            "AWS_ACCESS_KEY_ID": "AKIAREHEARSALDEPLOYR",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_REGION": "us-east-1",
            # A person's shell knows nothing of .venv until it is told
            "PATH": os.pathsep.join(place for place in os.environ["PATH"].split(os.pathsep) if place != BIN),
        }

    def run(self, lines: str, typed: str = "", **environment: str) -> tuple[int, str]:
        """Return the exit code of lines of a shell and what they wrote."""
        done = subprocess.run(  # noqa: S603  the lines are those of the README and of the Makefile
            ["bash", "-euo", "pipefail", "-c", lines],  # noqa: S607  bash is on the path
            cwd=self.folder,
            env=self._environment | environment,
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def make(self, target: str, *variables: str, typed: str = "", **environment: str) -> tuple[int, str]:
        """Run a target as make would, but for what is installed already."""
        lines = [line for line in recipe(target, *variables) if not line.startswith("npm ci")]
        return self.run("\n".join(lines), typed, PATH=self._path_of_make(), **environment)

    def _path_of_make(self) -> str:
        code, said = self.run("make --no-print-directory --eval='path:; @echo \"$$PATH\"' path")
        assert code == 0, said
        return said.strip()

    def change(self, path: str, old: str, new: str) -> None:
        """Replace one text of a file."""
        written = (self.folder / path).read_text()
        assert written.count(old) == 1, (path, old)
        (self.folder / path).write_text(written.replace(old, new))

    def statuses(self) -> dict[str, str]:
        """Return the status of each stack."""
        found = self.rehearsal.aws.session().client("cloudformation").describe_stacks()["Stacks"]
        return {stack["StackName"]: stack["StackStatus"] for stack in found if stack["StackName"] != "CDKToolkit"}


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    date = datetime(2026, 11, 22, 9, tzinfo=UTC)
    setting = Setting(assembly=None, region="us-east-1", date=date, log_dir=tmp_path / "logs")
    if not (ROOT / "node_modules" / ".bin" / "cdk").exists():
        subprocess.run(["npm", "ci", "--silent"], cwd=ROOT, check=True)  # noqa: S607  comes with the environment
    with Rehearsal(setting) as rehearsal:
        yield Clone(tmp_path / "clone", rehearsal)
        assert rehearsal.aws.problems == []


def test_the_readme_deploys_with_the_pinned_cli_and_names_targets_that_exist() -> None:
    assert [line for line in deploy_lines() if not line.startswith("export ")] == [
        "make install",
        "npm ci",
        "npx cdk bootstrap",
        "npx cdk deploy --all",
    ]
    pinned = json.loads((ROOT / "package.json").read_text())["devDependencies"]["aws-cdk"]
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"]["node_modules/aws-cdk"]["version"]
    assert pinned == locked
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"install", "deploy", "doctor", "destroy", "purge", "run"} <= named
    assert [target for target in sorted(named) if f"\n{target}:" not in makefile] == []


def test_make_deploy_checks_the_bootstrap_shows_the_changes_and_asks_before_it_deploys_what_it_has_shown() -> None:
    installed, checked, shown, asked, deployed = recipe("deploy", "STAGE=prod", "REGION=us-west-2", "OUT=out")
    assert installed == "npm ci --silent"
    assert checked.endswith("customization.doctor --stage prod --region us-west-2 --before-deploy")
    assert shown == "npx cdk diff --all --method template --output out -c stage=prod -c region=us-west-2"
    assert deployed == "npx cdk deploy --all --app out --require-approval never"
    for typed, code in (("yes\n", 0), ("no\n", 1), ("", 1)):
        done = answer(asked, typed)
        assert (done.returncode, "Nothing was deployed." in done.stdout) == (code, code == 1)
    assert answer(recipe("deploy", "YES=yes")[3], "").returncode == 0


def answer(line: str, typed: str) -> "subprocess.CompletedProcess[str]":
    """Run a line of the Makefile in its shell and type something."""
    command = ["sh", "-c", line]
    return subprocess.run(command, input=typed, capture_output=True, text=True, check=False)  # noqa: S603  our Makefile


def run_a_dropped_file(rehearsal: Rehearsal, dataset: str, files: Mapping[str, bytes]) -> None:
    rehearsal.find_outputs()
    rehearsal.drop(dataset, files)
    rehearsal.finish()
    assert [row["state"] for row in rehearsal.runs() if row["dataset"] == dataset] == ["SUCCEEDED"]


def deploy_again_with_changes(clone: Clone) -> None:
    """Change a setting, people and the code of a handler, look at what that changes, decline, then deploy it."""
    clone.change("cdk.json", '"settleSeconds": 60', '"settleSeconds": 30')
    clone.change("cdk.json", '"notificationEmails": []', '"notificationEmails": ["team@example.com"]')
    clone.change("cdk.json", '"logRetentionDays": 90', '"logRetentionDays": 30')
    clone.change("lambda/customization/handlers/plan_run.py", '"""PlanRun: ', '"""PlanRun, changed: ')
    code, said = clone.make("deploy", typed="no\n")
    assert code != 0
    assert "teamexamplecom" in said
    assert "Nothing was deployed." in said
    assert set(clone.statuses().values()) == {"CREATE_COMPLETE"}
    code, said = clone.make("deploy", typed="yes\n")
    assert code == 0, said
    assert clone.statuses() == dict(zip(STACKS, ["CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_COMPLETE"], strict=True))


def assert_is_changed(clone: Clone) -> None:
    deployed = clone.rehearsal.aws.deployed
    versions = {function.version for function in deployed.functions.values() if function.label == "plan_run"}
    assert versions == {"$LATEST", "1", "2"}
    newest = next(f for f in deployed.functions.values() if (f.label, f.version) == ("plan_run", "2"))
    assert json.loads(dict(newest.environment)["DEFAULTS"])["settleSeconds"] == 30
    groups = clone.rehearsal.aws.session().client("logs").describe_log_groups()["logGroups"]
    assert {group["retentionInDays"] for group in groups} == {30}


def assert_is_taken_down(clone: Clone) -> None:
    """Run make destroy, while people still hold their policies, and make purge."""
    code, said = clone.make("destroy", "RELEASE=yes", typed="dev\n")
    assert code == 0, said
    assert "The policy DataContributor was detached from the role Person-" in said
    assert "USD a month" in said
    assert clone.statuses() == {}
    code, said = clone.make("purge", typed="dev\n")
    assert code == 0, said
    assert clone.rehearsal.aws.session().client("dynamodb").list_tables()["TableNames"] == []


@pytest.mark.exhaustive
def test_a_clone_is_bootstrapped_deployed_used_deployed_again_with_a_change_and_destroyed(clone: Clone) -> None:
    code, said = clone.make("deploy", "YES=yes")
    assert (code != 0, clone.statuses()) == (True, {})
    assert "npx cdk bootstrap aws://123456789012/us-east-1" in said
    code, said = clone.run("\n".join(line for line in deploy_lines() if line not in INSTALLED), **_APPROVED)
    assert code == 0, said
    for output in (
        "DropLocation = s3://",
        "StateMachineUrl = https://us-east-1.console",
        "RunOperatorPolicyArn = arn:",
    ):
        assert output in said
    run_a_dropped_file(clone.rehearsal, "support", labelled())
    deploy_again_with_changes(clone)
    assert_is_changed(clone)
    run_a_dropped_file(clone.rehearsal, "again", labelled(start=5_000))
    code, said = clone.make("deploy", "YES=yes")
    assert (code, said.count("(no changes)")) == (0, len(STACKS)), said
    assert_is_taken_down(clone)
