"""Every role may do what it does and nothing else: the calls of every path, held against the deployed policies."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from stacks.functions import FUNCTIONS
from tests.workflow import people
from tests.workflow.conftest import Deploy
from tests.workflow.paths import PATHS, Path, clear
from tests.workflow.permissions import CUSTOMIZATION_ROLE, MACHINE, RULE, Permission, Permissions
from tests.workflow.pipeline import Pipeline

pytestmark = pytest.mark.exhaustive

# What no call of a rehearsal needs, with the reason; tests/infra/test_permission_tables.py says which test watches it
UNSEEN = {
    **{re.escape(name): reason for name, reason in people.UNSEEN.items()},
    r"\w+: (logs:(CreateLogStream|PutLogEvents) its own log"
    r"|xray:(PutTraceSegments|PutTelemetryRecords) \*)": "Lambda itself delivers logs and traces",
    rf"{MACHINE}: (logs:\w+|xray:\w+) \*": "Step Functions itself delivers logs and traces",
    rf"{MACHINE}: states:(Describe|Stop|Redrive)Execution .*": "Step Functions itself follows the children of its maps",
    r"\w+: states:DescribeExecution .*-\*:\*": "the machines of stacks that were deleted",
    rf"{CUSTOMIZATION_ROLE}: kms:\w+ key via bedrock": "Bedrock itself encrypts the model that a job makes",
    rf"{CUSTOMIZATION_ROLE}: s3:GetObject artifacts/runs/\*/bedrock/\*": "Bedrock's guide asks for it; the stand-in "
    "does not read what it has written",
    r"create_provisioned_throughput: bedrock:CreateProvisionedModelThroughput us-east-1::foundation-model/\*": "the "
    "Service Authorization Reference requires it beside the custom model, and does not say when it is looked at",
}
# What is done without, by design
SPARED = {
    r"check_preconditions: servicequotas:GetServiceQuota bedrock/L-\w+": "a quota that cannot be read is not "
    "checked beforehand: Bedrock refuses what is above it"
}
# What is gone has no tags, so that IAM denies the question to it
OF_WHAT_IS_GONE = {
    "deployment_is_deleted_while_it_is_asked": "evaluate_shard: bedrock:InvokeModel custom-model-deployment/",
    "throughput_is_deleted_while_it_is_asked": "evaluate_shard: bedrock:InvokeModel provisioned-model/",
}
_MOST_WALKS = 4


@dataclass(frozen=True)
class Walk:
    """What one path took and needed."""

    path: Path
    seconds: float
    used: frozenset[Permission]
    denied: tuple[str, ...]


@pytest.fixture(scope="module")
def pipeline(deploy: Deploy) -> Iterator[Pipeline]:
    with deploy() as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def permissions(pipeline: Pipeline) -> Permissions:
    return Permissions(pipeline)


@pytest.fixture(scope="module")
def walks(pipeline: Pipeline, permissions: Permissions) -> list[Walk]:
    """Return every path, walked once with all permissions, the quickest first."""
    return sorted((_walk(pipeline, permissions, path) for path in PATHS), key=lambda walk: walk.seconds)


def _walk(pipeline: Pipeline, permissions: Permissions, path: Path) -> Walk:
    clear(pipeline)
    before, began = len(pipeline.aws.calls), time.monotonic()
    path(pipeline)
    seconds = time.monotonic() - began
    assert pipeline.aws.problems == [], path.__name__
    calls = pipeline.aws.calls[before:]
    denied = tuple(permissions.describe(call) for call in calls if not call.allowed)
    return Walk(path, seconds, frozenset(permissions.used(calls)), denied)


def test_no_path_needs_what_a_role_may_not(walks: list[Walk]) -> None:
    denied = {(walk.path.__name__, call) for walk in walks for call in walk.denied}
    assert {(path, call) for path, call in denied if not re.match(OF_WHAT_IS_GONE.get(path, "$"), call)} == set()
    assert {path for path, _ in denied} == set(OF_WHAT_IS_GONE)


def test_every_permission_is_used_by_a_path_or_has_a_reason(permissions: Permissions, walks: list[Walk]) -> None:
    unused = {str(permission) for permission in permissions.granted - _used(walks)}
    with_reason = {name for name in unused if any(re.fullmatch(pattern, name) for pattern in UNSEEN)}
    assert sorted(unused - with_reason) == []
    assert [pattern for pattern in UNSEEN if not any(re.fullmatch(pattern, name) for name in unused)] == []


@pytest.mark.parametrize("role", [*FUNCTIONS, MACHINE, RULE, CUSTOMIZATION_ROLE])
def test_a_permission_that_is_taken_away_is_missed(
    pipeline: Pipeline, permissions: Permissions, walks: list[Walk], role: str
) -> None:
    spared = {
        str(permission)
        for permission in sorted(_used(walks))
        if permission.role == role and not _is_missed(pipeline, permissions, walks, permission)
    }
    with_reason = {name for name in spared if any(re.fullmatch(pattern, name) for pattern in SPARED)}
    assert sorted(spared - with_reason) == []


def _used(walks: list[Walk]) -> set[Permission]:
    return {permission for walk in walks for permission in walk.used}


def _is_missed(pipeline: Pipeline, permissions: Permissions, walks: list[Walk], taken: Permission) -> bool:
    """Return whether a path that needs the permission ends otherwise without it, or has a problem to report."""
    needing = [walk.path for walk in walks if taken in walk.used]
    return any(_ends_otherwise(pipeline, permissions, path, taken) for path in [*needing, *needing][:_MOST_WALKS])


def _ends_otherwise(pipeline: Pipeline, permissions: Permissions, path: Path, taken: Permission) -> bool:
    clear(pipeline)
    before, problems = len(pipeline.aws.calls), []
    with permissions.without(taken):
        try:
            path(pipeline)
        except (AssertionError, ValueError) as error:  # to unpack is to expect a number, too
            problems.append(str(error))
        pipeline.finish()
    denied = [call for call in pipeline.aws.calls[before:] if not call.allowed]
    # A path that ended before it came to the permission, since a verdict is a matter of chance, tells nothing
    return any(taken.allows(call) for call in denied) and [*problems, *pipeline.aws.problems] != []
