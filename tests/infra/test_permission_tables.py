"""What no run can miss, a condition or a permission that only services use, is missed by a table of the policies.

Runs miss everything else: tests/workflow/test_least_privilege.py takes it away from roles at work.
"""

import inspect
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Protocol

from customization.json_types import Json, JsonObject, as_object
from tests.infra import test_people, test_permissions, test_pipeline, test_settings, test_storage, test_trust
from tests.infra.synthesis import listed, resources

Templates = dict[str, JsonObject]
Place = tuple[str | int, ...]
# Logs, traces and the children of maps are the services' own affair, and so is what Bedrock does with the model's key
_BY_SERVICES = ("iam:PassRole", "kms:", "logs:", "states:DescribeE", "states:RedriveE", "states:StopE", "xray:")
_DOCUMENTS = ("AssumeRolePolicyDocument", "KeyPolicy", "PolicyDocument")


class Check(Protocol):
    __name__: str

    def __call__(self, **arguments: object) -> None: ...


def _checks(module: ModuleType) -> Iterator[Check]:
    known = {"by_function", "pipeline", "stacks", "storage"}
    for name, check in vars(module).items():
        if name.startswith("test_") and {*inspect.signature(check).parameters} <= known:
            yield check


CHECKS = [check for module in (test_permissions, test_people, test_storage, test_pipeline) for check in _checks(module)]
CHECKS_OF_SETTINGS = [check for module in (test_settings, test_trust) for check in _checks(module)]


def _statements(template: JsonObject) -> Iterator[tuple[Place, JsonObject]]:
    """Yield every statement of every policy with its place."""

    def search(value: Json, place: Place, *, inside: bool) -> Iterator[tuple[Place, JsonObject]]:
        match value:
            case {"Statement": list(statements)} if inside:
                for number, statement in enumerate(statements):
                    yield (*place, "Statement", number), as_object(statement, "Statement")
            case dict():
                for name, inner in value.items():
                    yield from search(inner, (*place, name), inside=inside or name in _DOCUMENTS)
            case list():
                for number, inner in enumerate(value):
                    yield from search(inner, (*place, number), inside=inside)

    yield from search(template["Resources"], ("Resources",), inside=False)


def _conditions(templates: Templates) -> Iterator[tuple[str, Place]]:
    """Yield the place of every key of every condition."""
    for stack, template in templates.items():
        for place, statement in _statements(template):
            for operator, keys in as_object(statement.get("Condition", {}), "Condition").items():
                yield from ((stack, (*place, "Condition", operator, key)) for key in as_object(keys, operator))
        for name, permission in resources(template, "AWS::Lambda::Permission").items():
            assert "SourceArn" in as_object(permission["Properties"], name)
            yield stack, ("Resources", name, "Properties", "SourceArn")


def _unseen(templates: Templates) -> Iterator[tuple[str, Place]]:
    """Yield the place of every action and resource that no call of a rehearsal needs."""
    for stack, template in templates.items():
        for place, statement in _statements(template):
            actions = [str(action) for action in listed(statement["Action"])]
            chosen = [number for number, action in enumerate(actions) if action.startswith(_BY_SERVICES)]
            whole = len(actions) == 1
            yield from ((stack, place if whole else (*place, "Action", number)) for number in chosen)
            if actions == ["bedrock:CreateProvisionedModelThroughput"]:
                yield stack, place


def _without(template: JsonObject, place: Place) -> JsonObject:
    """Return a copy that lacks what is at `place`."""
    copy: JsonObject = json.loads(json.dumps(template))
    holder: Json = copy
    for step in place[:-1]:
        holder = holder[step]  # type: ignore[index]  # the place was found in this very document
    del holder[place[-1]]  # type: ignore[union-attr, arg-type]  # as above
    return copy


def _missed_by(templates: Templates, stack: str, place: Place, checks: list[Check] = CHECKS) -> str:
    """Return the first test that fails without what is at `place`, or nothing."""
    changed = {**templates, stack: _without(templates[stack], place)}
    by_function = test_permissions.statements_by_function(changed["pipeline"])
    for check in checks:
        arguments = {
            "by_function": by_function,
            "pipeline": changed["pipeline"],
            "stacks": changed,
            "storage": changed["storage"],
        }
        try:
            check(**{name: arguments[name] for name in inspect.signature(check).parameters})
        except (AssertionError, IndexError, KeyError, TypeError, ValueError):
            return check.__name__
    return ""


def test_the_tables_find_nothing_in_the_templates_as_they_are(templates: Templates) -> None:
    assert _missed_by({**templates, "other": {"Resources": {}, "taken": {}}}, "other", ("taken",)) == ""


def test_nor_do_those_of_the_settings_where_everything_is_switched_on(governed: Templates) -> None:
    with_other: Templates = {**governed, "other": {"Resources": {}, "taken": {}}}
    assert _missed_by(with_other, "other", ("taken",), CHECKS_OF_SETTINGS) == ""


def test_a_condition_that_is_taken_away_is_missed(templates: Templates) -> None:
    places = list(_conditions(templates))
    assert places
    assert [(stack, place) for stack, place in places if not _missed_by(templates, stack, place)] == []


def test_a_condition_that_only_a_setting_brings_is_missed_when_it_is_taken_away(
    templates: Templates, governed: Templates
) -> None:
    usual = {_unnumbered(place) for _, place in _conditions(templates)}
    places = [(stack, place) for stack, place in _conditions(governed) if _unnumbered(place) not in usual]
    brought = {place[-1] for _, place in places}
    assert {"aws:RequestTag/BedrockManaged", "ec2:Subnet", "lambda:SourceFunctionArn", "kms:ViaService"} <= brought
    found = [(stack, place) for stack, place in places if not _missed_by(governed, stack, place, CHECKS_OF_SETTINGS)]
    assert found == []


def _unnumbered(place: Place) -> tuple[str, ...]:
    """Return a place without the numbers of statements, which a setting shifts."""
    return tuple(step for step in place if isinstance(step, str))


def test_a_permission_that_only_services_use_is_missed_when_it_is_taken_away(templates: Templates) -> None:
    places = list(_unseen(templates))
    assert places
    assert [(stack, place) for stack, place in places if not _missed_by(templates, stack, place)] == []
