"""What runs do not take away is missed by a table of the policies: conditions, what only services use, other policies.

Runs miss everything else: tests/workflow/test_least_privilege.py takes it away from roles at work. docs/permissions.md
lists which test or run misses what.
"""

import inspect
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from types import ModuleType
from typing import Protocol

from customization.json_types import Json, JsonObject
from docs.render.missed_by import noted
from stacks.functions import FUNCTIONS
from tests.infra import test_people, test_permissions, test_pipeline, test_settings, test_storage, test_trust
from tests.infra.policy_lines import Line, Place, identity_lines, lines_of
from tests.permission_names import UNSEEN_OF_SETTINGS, by_permission, is_taken_away_by_runs, note

Templates = dict[str, JsonObject]


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
NOWHERE = Line("other", ("taken",), "nobody", "nothing")


def _without(value: Json, place: Place) -> Json:
    """Return a value that lacks what is at `place`, and shares all else with what it was."""
    match value, place:
        case dict(), (step, *rest):
            others = {name: inner for name, inner in value.items() if name != step}
            return {**others, str(step): _without(value[str(step)], tuple(rest))} if rest else others
        case list(), (int(number), *rest):
            kept = [_without(value[number], tuple(rest))] if rest else []
            return [*value[:number], *kept, *value[number + 1 :]]
        case _:
            raise LookupError(place)


def _missed_by(templates: Templates, line: Line, checks: Iterable[Check]) -> str:
    """Return the first test that fails without the line, or nothing."""
    taken = _without(templates[line.stack], line.place)
    assert isinstance(taken, dict)
    changed = {**templates, line.stack: taken}
    arguments = {
        "by_function": test_permissions.statements_by_function(changed["pipeline"]),
        "pipeline": changed["pipeline"],
        "stacks": changed,
        "storage": changed["storage"],
    }
    for check in checks:
        try:
            check(**{name: arguments[name] for name in inspect.signature(check).parameters})
        except (AssertionError, IndexError, KeyError, TypeError, ValueError):
            return check.__name__
    return ""


def _found(templates: Templates, lines: Iterable[Line], checks: Iterable[Check]) -> Mapping[str, dict[str, str]]:
    """Return which test misses each line, by who holds it."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for line in lines:
        missed_by = _missed_by(templates, line, checks)
        assert missed_by, f"nothing misses {line}"
        found[line.holder][line.text] = missed_by
    return found


def _assert_noted(part: str, found: Mapping[str, dict[str, str]]) -> None:
    expected = {who: by_permission(missed_by) for who, missed_by in noted(part).items()}
    assert found == expected, "\n".join(note(part, who, lines) for who, lines in found.items())


def test_the_tables_find_nothing_in_the_templates_as_they_are(templates: Templates) -> None:
    assert _missed_by({**templates, "other": {"Resources": {}, "taken": {}}}, NOWHERE, CHECKS) == ""


def test_nor_do_those_of_the_settings_where_everything_is_switched_on(governed: Templates) -> None:
    with_other: Templates = {**governed, "other": {"Resources": {}, "taken": {}}}
    assert _missed_by(with_other, NOWHERE, CHECKS_OF_SETTINGS) == ""


def test_what_runs_do_not_take_away_is_missed_by_the_test_that_is_noted(templates: Templates) -> None:
    lines = [line for line in lines_of(templates) if line.is_left_to_tables]
    assert {line.holder for line in lines} > {*FUNCTIONS, "Key", "TopicPolicy", "DeadLetterQueuePolicy"}
    _assert_noted("tables", _found(templates, lines, CHECKS))


def test_what_only_a_setting_brings_is_missed_by_the_test_that_is_noted(
    templates: Templates, governed: Templates
) -> None:
    usual = {(line.holder, line.text) for line in lines_of(templates)}
    brought = [line for line in lines_of(governed) if (line.holder, _as_usual(line.text)) not in usual]
    # Which base models are asked goes by the Region
    brought = [line for line in brought if not line.text.startswith("bedrock:InvokeModel ")]
    keys = {"aws:RequestTag/BedrockManaged", "ec2:Subnet", "lambda:SourceFunctionArn", "kms:ViaService"}
    assert keys < {line.place[-1] for line in brought}
    named = sorted(chain.from_iterable(line.permissions for line in brought))
    assert [name for name in named if not any(re.fullmatch(unseen, name) for unseen in UNSEEN_OF_SETTINGS)] == []
    assert [unseen for unseen in UNSEEN_OF_SETTINGS if not any(re.fullmatch(unseen, name) for name in named)] == []
    _assert_noted("settings", _found(governed, brought, CHECKS_OF_SETTINGS))


def _as_usual(text: str) -> str:
    """Return what a line says with the usual names of stage and Region."""
    return text.replace("prod1", "dev").replace("us-west-2", "us-east-1")


def test_every_permission_that_runs_take_away_is_noted_with_the_run_that_misses_it(templates: Templates) -> None:
    named = set(chain.from_iterable(line.permissions for line in identity_lines(templates)))
    taken = {name for name in named if is_taken_away_by_runs(name)}
    found = {f"{who}: {name}" for who, missed_by in noted("runs").items() for name in by_permission(missed_by)}
    assert sorted(found ^ taken) == [], "run the exhaustive tests of tests/workflow/test_least_privilege.py"
