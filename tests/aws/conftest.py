"""Tests on AWS itself: they need credentials and the account's number, and spend what docs/first-deployment.md says.

    CUSTOMIZATION_ON_AWS=<account> .venv/bin/pytest -q tests/aws

Without the variable nothing in here is collected, so that no other test run can reach an account.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import boto3
import pytest

from customization.cdk_settings import Chosen, read_chosen
from customization.gateway import Gateway
from customization.gateway.operator import Operator

ACCOUNT = os.environ.get("CUSTOMIZATION_ON_AWS", "")
_LONGEST_POLL_S = 30

if not ACCOUNT:
    collect_ignore_glob = ["test_*.py"]


@dataclass(frozen=True)
class OnAws:
    """What is deployed in the account, as cdk.json of this clone chooses it."""

    chosen: Chosen
    operator: Operator
    gateway: Gateway
    session: boto3.Session

    @property
    def outputs(self) -> dict[str, str]:
        return {
            name: value for stack in self.operator.stacks(self.chosen.stage) for name, value in stack.outputs.items()
        }

    def start(self, text: str) -> str:
        """Start an execution with an input of the console, wait for its end and return its status."""
        states = self.session.client("stepfunctions")
        started = states.start_execution(stateMachineArn=self.outputs["StateMachineArn"], input=text)["executionArn"]
        wait_until(lambda: states.describe_execution(executionArn=started)["status"] != "RUNNING", hours=12)
        described = states.describe_execution(executionArn=started)
        return described["status"] if described["status"] == "SUCCEEDED" else str(described.get("cause"))


def wait_until(is_so: Callable[[], bool], hours: float) -> None:
    """Return once `is_so`; raises TimeoutError after so many hours."""
    deadline, pause = time.monotonic() + hours * 3600, 1.0
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not after {hours} hours")
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_POLL_S)


@pytest.fixture(scope="session")
def on_aws() -> OnAws:
    """Return the deployment in the account that the variable names; no other is touched."""
    chosen = read_chosen()
    operator = Operator(chosen.region)
    assert operator.caller().account == ACCOUNT, "CUSTOMIZATION_ON_AWS names another account than the credentials"
    session = boto3.Session(region_name=chosen.region)
    return OnAws(chosen, operator, operator.connect(chosen.stage), session)
