"""Every role may do what it does and nothing else: the calls of every path, held against the deployed policies."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from botocore.exceptions import ClientError

from tests.workflow.conftest import Deploy
from tests.workflow.paths import PATHS, Path
from tests.workflow.permissions import Permission, Permissions
from tests.workflow.pipeline import Pipeline

pytestmark = pytest.mark.exhaustive


@dataclass(frozen=True, order=True)
class Walk:
    """What one path took and needed."""

    seconds: float
    path: Path
    used: frozenset[Permission]
    denied: tuple[str, ...]


def _clear(pipeline: Pipeline) -> None:
    """Take away what a walk has left, however it ended, and begin anew."""
    pipeline.inject()
    pipeline.function_faults.clear()
    pipeline.finish()
    bedrock = pipeline.aws.session().client("bedrock")
    for arn in pipeline.bedrock.live_resources():
        try:
            if ":model-customization-job/" in arn:
                bedrock.stop_model_customization_job(jobIdentifier=arn)
            elif ":custom-model-deployment/" in arn:
                bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
            elif ":provisioned-model/" in arn:
                bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
        except ClientError as error:  # it is being made or changed
            assert error.response["Error"]["Code"] == "ConflictException", arn
            pipeline.pass_time(minutes=30)
            return _clear(pipeline)
    pipeline.forget()
    return None


@pytest.fixture(scope="module")
def pipeline(deploy: Deploy) -> Iterator[Pipeline]:
    with deploy() as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def permissions(pipeline: Pipeline) -> Permissions:
    return Permissions(pipeline)


@pytest.fixture(scope="module")
def walks(pipeline: Pipeline, permissions: Permissions) -> list[Walk]:
    return [_walk(pipeline, permissions, path) for path in PATHS]


def _walk(pipeline: Pipeline, permissions: Permissions, path: Path) -> Walk:
    _clear(pipeline)
    before, began = len(pipeline.aws.calls), time.monotonic()
    path(pipeline)
    assert pipeline.aws.problems == [], path.__name__
    calls = pipeline.aws.calls[before:]
    denied = tuple(permissions.describe(call) for call in calls if not call.allowed)
    return Walk(time.monotonic() - began, path, frozenset(permissions.used(calls)), denied)


def test_x(walks, permissions) -> None:
    used = {p for w in walks for p in w.used}
    for w in walks:
        if w.denied: print(w.path.__name__, w.denied)
    for p in sorted(permissions.granted - used): print(p)
    print(len(permissions.granted), len(used))
    for w in walks: print(w.path.__name__, round(w.seconds,1), len(w.used))
    assert 0
