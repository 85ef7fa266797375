"""An account that lacks a permission or a quota is told which one."""

import json
from pathlib import Path

import pytest

from customization.json_types import Json, JsonObject
from tests.workflow.checks import assert_failed, assert_refused
from tests.workflow.conftest import Assemble, Deploy


def _without(action: str, assembly: Path, folder: Path) -> Path:
    """Return a copy of the assembly in which no role may do `action`; one role could."""
    folder.mkdir()
    taken = 0

    def take_away(value: Json) -> Json:
        nonlocal taken
        if isinstance(value, list):
            return [take_away(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        allowed = value.get("Action")
        actions = allowed if isinstance(allowed, list) else [allowed]
        if value.get("Effect") != "Allow" or action not in actions:
            return {name: take_away(inner) for name, inner in value.items()}
        taken += 1
        return {**value, "Action": [other for other in actions if other != action] or ["sts:GetCallerIdentity"]}

    for path in assembly.iterdir():
        if path.name.endswith(".template.json"):
            template: JsonObject = json.loads(path.read_bytes())
            (folder / path.name).write_text(json.dumps(take_away(template)))
        else:
            (folder / path.name).symlink_to(path)
    assert taken == 1
    return folder


@pytest.mark.parametrize(
    ("action", "at"),
    [
        ("bedrock:CreateModelCustomizationJob", "CreateCustomizationJob"),
        ("bedrock:CreateCustomModelDeployment", "CreateModelDeployment"),
    ],
)
def test_a_role_without_a_permission_fails_the_run_at_the_state_that_needs_it(
    deploy: Deploy, assemble: Assemble, tmp_path: Path, action: str, at: str
) -> None:
    with deploy(assembly=_without(action, assemble("us-east-1"), tmp_path / "assembly")) as pipeline:
        pipeline.forget()
        execution = pipeline.run(pipeline.folder())
        pipeline.pass_time(hours=1)
        assert_failed(pipeline, execution, at=at, error="AccessDenied", says=f"not authorized to perform: {action}")
        assert pipeline.aws.problems == []


def test_an_account_without_model_units_is_told_which_quota_to_raise_before_anything_is_started(
    deploy: Deploy,
) -> None:
    with deploy(faults=["no-model-units"]) as pipeline:
        pipeline.forget()
        execution = pipeline.run(pipeline.folder(serving={"mode": "provisioned"}))
        assert_refused(pipeline, execution, at="CheckPreconditions", error="PreconditionFailed", says="L-BE77399C")
        assert pipeline.aws.problems == []
