"""People do what their managed policy is for, with that policy alone, and nothing else."""

from collections.abc import Iterator

import pytest

from docs.render.missed_by import noted
from tests.permission_names import PEOPLE, UNSEEN_OF_PEOPLE, by_permission, note
from tests.workflow.conftest import Deploy
from tests.workflow.people import ACTS, REFUSED, Place, is_refused, serve_a_model
from tests.workflow.permissions import Permissions
from tests.workflow.pipeline import Pipeline


@pytest.fixture(scope="module")
def deployed(deploy: Deploy) -> Iterator[Pipeline]:
    with deploy() as pipeline:
        pipeline.forget()
        yield pipeline


@pytest.fixture(scope="module")
def place(deployed: Pipeline) -> Place:
    return serve_a_model(deployed)


@pytest.mark.parametrize("kind", PEOPLE)
def test_a_policy_allows_what_it_is_for_and_refuses_the_rest(deployed: Pipeline, place: Place, kind: str) -> None:
    person = deployed.person(kind)
    assert [name for name, act in ACTS[kind].items() if is_refused(act, person, place)] == []
    assert [name for name, act in REFUSED[kind].items() if not is_refused(act, person, place)] == []


def test_every_permission_of_people_is_needed_for_something_that_they_do(deployed: Pipeline, place: Place) -> None:
    permissions = Permissions(deployed, only=PEOPLE)
    needed: dict[str, dict[str, str]] = {kind: {} for kind in PEOPLE}
    for kind, name in ((kind, name) for kind, acts in ACTS.items() for name in acts):
        before = len(deployed.aws.calls)
        assert not is_refused(ACTS[kind][name], deployed.person(kind), place)
        for permission in permissions.used(deployed.aws.calls[before:]):
            if permission.role == kind:
                with permissions.without(permission):
                    if is_refused(ACTS[kind][name], deployed.person(kind), place):
                        needed[kind].setdefault(permission.name, name)
    granted = {str(permission) for permission in permissions.granted if permission.role in PEOPLE}
    missed = {f"{kind}: {permission}" for kind in PEOPLE for permission in needed[kind]}
    assert sorted(granted - missed) == sorted(UNSEEN_OF_PEOPLE)
    expected = {kind: by_permission(noted("runs")[kind]) for kind in PEOPLE}
    assert needed == expected, "\n".join(note("runs", kind, needed[kind]) for kind in PEOPLE)
