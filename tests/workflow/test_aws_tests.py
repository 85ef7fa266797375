"""The tests on AWS run through against the embedded AWS: what fails on an account is then the account's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.conftest import Deploy

ROOT = Path(__file__).parents[2]


def run_tests(**environment: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTEST"))}
    inherited.pop("CUSTOMIZATION_ON_AWS", None)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/aws"],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_the_variable_no_test_on_aws_is_even_collected() -> None:
    done = run_tests()
    assert (done.returncode, "no tests ran" in done.stdout) == (5, True), done.stdout


@pytest.mark.exhaustive
def test_the_tests_on_aws_pass_where_everything_is_as_documented(deploy: Deploy) -> None:
    with deploy() as pipeline:
        pipeline.forget()
        done = run_tests(
            CUSTOMIZATION_ON_AWS="123456789012",
            AWS_ENDPOINT_URL=pipeline.aws.endpoint_url,
            AWS_ACCESS_KEY_ID="AKIAREHEARSALDEPLOYR",
            AWS_SECRET_ACCESS_KEY="none",  # noqa: S106  there is none
        )
        assert done.returncode == 0, done.stdout
        assert "6 passed" in done.stdout
        assert pipeline.aws.problems == []
        known = sum(usd for _, usd in pipeline.billed().values())
        assert "its items come to less than 0.05 USD" in (ROOT / "docs" / "first-deployment.md").read_text()
        assert 0.01 < known < 0.05


@pytest.mark.exhaustive
def test_credentials_of_another_account_than_the_one_named_reach_nothing(deploy: Deploy) -> None:
    with deploy() as pipeline:
        done = run_tests(
            CUSTOMIZATION_ON_AWS="999999999999",
            AWS_ENDPOINT_URL=pipeline.aws.endpoint_url,
            AWS_ACCESS_KEY_ID="AKIAREHEARSALDEPLOYR",
            AWS_SECRET_ACCESS_KEY="none",  # noqa: S106  there is none
        )
        assert "names another account than the credentials" in done.stdout
        assert pipeline.aws.executions() == []
