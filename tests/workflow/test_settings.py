"""A deployment in which everything is switched on works, and its jobs get what the settings ask for."""

import json
from pathlib import Path

import pytest

from docs.render.settings_page import EXAMPLES
from rehearsal.synthesis import synthesize
from tests.workflow.conftest import Deploy

pytestmark = pytest.mark.exhaustive


def test_a_run_succeeds_with_everything_switched_on_and_its_job_gets_the_network_and_the_key(
    deploy: Deploy, tmp_path: Path
) -> None:
    with deploy(assembly=synthesize(tmp_path / "cdk.out", EXAMPLES)) as pipeline:
        pipeline.forget()
        run = pipeline.run(pipeline.folder())
        assert run.outcome.status == "SUCCEEDED", run.outcome.cause
        assert pipeline.aws.problems == []
        (job,) = pipeline.jobs()
        assert job["vpcConfig"] == json.loads(EXAMPLES["vpc"])
        assert job["outputModelKmsKeyArn"] == pipeline._variable("KEY_ARN")
