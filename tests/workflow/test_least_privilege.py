"""Every role may do what it does and nothing else: the calls of every path, held against the deployed policies."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from docs.render.missed_by import noted
from rehearsal.templates import read_templates
from stacks.functions import FUNCTIONS
from tests.infra.policy_lines import identity_lines
from tests.permission_names import (
    CUSTOMIZATION_ROLE,
    MACHINE,
    RULE,
    UNSEEN,
    by_permission,
    is_taken_away_by_runs,
    note,
)
from tests.workflow.conftest import Assemble, Deploy
from tests.workflow.paths import PATHS, Path, clear
from tests.workflow.permissions import Permission, Permissions
from tests.workflow.pipeline import Pipeline

pytestmark = pytest.mark.exhaustive

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


def test_the_templates_are_read_as_what_is_deployed(assemble: Assemble, permissions: Permissions) -> None:
    lines = identity_lines(read_templates(assemble("us-east-1")))
    assert {name for line in lines for name in line.permissions} == set(map(str, permissions.granted))


def test_every_permission_is_used_by_a_path_or_has_a_reason(permissions: Permissions, walks: list[Walk]) -> None:
    unused = {str(permission) for permission in permissions.granted - _used(walks)}
    with_reason = {name for name in unused if any(re.fullmatch(pattern, name) for pattern in UNSEEN)}
    assert sorted(unused - with_reason) == []
    assert [pattern for pattern in UNSEEN if not any(re.fullmatch(pattern, name) for name in unused)] == []


@pytest.mark.parametrize("role", [*FUNCTIONS, MACHINE, RULE, CUSTOMIZATION_ROLE])
def test_a_permission_that_is_taken_away_is_missed(
    pipeline: Pipeline, permissions: Permissions, walks: list[Walk], role: str
) -> None:
    expected = by_permission(noted("runs").get(role, {}))
    found = {
        permission: _missed_by(pipeline, permissions, walks, permission, expected.get(permission.name, ""))
        for permission in sorted(_used(walks))
        if permission.role == role
    }
    taken = {permission: path for permission, path in found.items() if is_taken_away_by_runs(str(permission))}
    assert [str(permission) for permission, path in taken.items() if not path] == []
    needed = {(walk.path.__name__, permission.name) for walk in walks for permission in walk.used}
    astray = [name for name, path in expected.items() if (path, name) not in needed]
    missed = {permission.name: path for permission, path in taken.items()}
    assert (set(expected), astray) == (set(missed), []), note("runs", role, missed)


def _used(walks: list[Walk]) -> set[Permission]:
    return {permission for walk in walks for permission in walk.used}


def _missed_by(
    pipeline: Pipeline, permissions: Permissions, walks: list[Walk], taken: Permission, expected: str
) -> str:
    """Return the path that needs it and without it ends otherwise or has a problem to report, or nothing."""
    needing = sorted((walk.path for walk in walks if taken in walk.used), key=lambda path: path.__name__ != expected)
    for path in [*needing, *needing][:_MOST_WALKS]:
        if _ends_otherwise(pipeline, permissions, path, taken):
            return path.__name__
    return ""


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
