"""The policies of the templates by lines: each action, resource, service and condition that could be taken away."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

from customization.json_types import Json, JsonObject, as_object, as_text
from rehearsal.templates import at, function_modules, listed, resources
from tests.infra.test_permissions import text_of
from tests.permission_names import CUSTOMIZATION_ROLE, EVERY_FUNCTION, MACHINE, RULE, is_taken_away_by_runs

Templates = Mapping[str, JsonObject]
Place = tuple[str | int, ...]
_VIA = "kms:ViaService"
_DOCUMENTS = ("AssumeRolePolicyDocument", "KeyPolicy", "PolicyDocument")
_REFERENCE = re.compile(r"<(?:ExportsOutput(?:FnGetAtt|Ref))?(\w+?)[0-9A-F]{8}(?:\.?(Arn|Name)(?:[0-9A-F]{8})?)?>")
# As tests/workflow/permissions.py calls them
_WORDS = {
    "ArtifactBucket": "artifacts",
    "CustomizationRole": "role",
    "CustomizationStateMachine": "stateMachine:machine",
    "DataBucket": "data",
    "DeadLetterQueue": "queue",
    "Key": "key",
    "LeasesTable": "table/leases",
    "RunsTable": "table/runs",
    "Topic": "topic",
}


@dataclass(frozen=True)
class Line:
    """Something in a policy, without which `permissions` are gone; `place` is where it lies in the template."""

    stack: str
    place: Place
    holder: str
    text: str
    permissions: frozenset[str] = frozenset()

    @property
    def is_left_to_tables(self) -> bool:
        """Return whether no run misses all that it stands for; passing roles and using keys is held by both."""
        by_runs = self.permissions and all(map(is_taken_away_by_runs, self.permissions))
        return not by_runs or self.text.startswith(("iam:PassRole", "kms:"))


def lines_of(templates: Templates) -> list[Line]:
    """Return every line of every policy, of roles, of people, of resources and of what may assume roles."""
    return [*identity_lines(templates), *_lines_of_resources(templates)]


def identity_lines(templates: Templates) -> list[Line]:
    """Return the lines of the policies of roles and of people."""
    found: list[Line] = []
    for stack, template in templates.items():
        modules, holders = _modules(template), _holders(template)
        for name, policy in resources(template, "AWS::IAM::ManagedPolicy").items():
            roles = listed(as_object(policy["Properties"], name).get("Roles", [])) or [{"Ref": name}]
            names = [as_text(at(role, "Ref"), name) for role in roles]
            held_by = {holders.get(role, _plain(role)) for role in names}
            holder = EVERY_FUNCTION if held_by == {*modules.values()} else ", ".join(sorted(held_by))
            for number, statement in enumerate(listed(at(policy, "Properties", "PolicyDocument", "Statement"))):
                place = ("Resources", name, "Properties", "PolicyDocument", "Statement", number)
                whole = Line(stack, place, holder, "")
                found += _of_statement(whole, as_object(statement, name), modules)
    return found


def _of_statement(whole: Line, statement: JsonObject, modules: Mapping[str, str]) -> Iterator[Line]:
    actions = [as_text(action, "Action") for action in listed(statement["Action"])]
    named = [_word(text_of(resource), modules) for resource in listed(statement["Resource"])]
    via = [f" via {service.split('.')[0]}" for service in _services(statement)] or [""]
    on = f"{', '.join(sorted(named))}{','.join(via)}"
    single = len(actions) == 1
    for number, action in enumerate(actions):
        place = whole.place if single else (*whole.place, "Action", number)
        yield _line(whole, place, f"{action} {on}", product([action], named, via))
    for number, resource in enumerate(named if len(named) > 1 else []):
        place = (*whole.place, "Resource", number)
        yield _line(whole, place, f"{', '.join(actions)} {resource}", product(actions, [resource], via))
    for number, service in enumerate(via if len(via) > 1 else []):
        place = (*whole.place, "Condition", "StringEquals", _VIA, number)
        yield _line(whole, place, f"{', '.join(actions)} {named[0]}{service}", product(actions, named, [service]))
    yield from _conditions(whole, statement, ", ".join(actions))


def _line(whole: Line, place: Place, text: str, permissions: Iterator[tuple[str, str, str]]) -> Line:
    each = product(whole.holder.split(", "), permissions)
    names = frozenset(f"{holder}: {action} {resource}{via}" for holder, (action, resource, via) in each)
    return replace(whole, place=place, text=text, permissions=names)


def _conditions(whole: Line, statement: JsonObject, what: str) -> Iterator[Line]:
    for operator, keys in as_object(statement.get("Condition", {}), "Condition").items():
        for key in as_object(keys, operator):
            place = (*whole.place, "Condition", operator, key)
            yield replace(whole, place=place, text=f"{what} if {key}")


def _lines_of_resources(templates: Templates) -> Iterator[Line]:
    for stack, template in templates.items():
        for name, resource in resources(template).items():
            if resource["Type"] == "AWS::Lambda::Permission":
                yield from _of_lambda_permission(stack, name, as_object(resource["Properties"], name))
            elif resource["Type"] != "AWS::IAM::ManagedPolicy":
                for place, statement in _statements(resource, ("Resources", name)):
                    yield from _of_resource(Line(stack, place, _plain(name), ""), statement)


def _of_lambda_permission(stack: str, name: str, properties: JsonObject) -> Iterator[Line]:
    whole = Line(stack, ("Resources", name), "functions that rules call", "")
    assert "SourceArn" in properties
    text = f"{properties['Principal']}: {properties['Action']}"
    yield replace(whole, text=text)
    yield replace(whole, text=f"{text} if SourceArn", place=(*whole.place, "Properties", "SourceArn"))


def _of_resource(whole: Line, statement: JsonObject) -> Iterator[Line]:
    actions = [as_text(action, "Action") for action in listed(statement["Action"])]
    who = f"{'not ' if statement['Effect'] == 'Deny' else ''}{_principal(statement)}"
    for number, action in enumerate(actions):
        place = whole.place if len(actions) == 1 else (*whole.place, "Action", number)
        yield replace(whole, place=place, text=f"{who}: {action}")
    named = listed(statement.get("Resource", "*"))
    for number, resource in enumerate(named if len(named) > 1 else []):
        yield replace(whole, place=(*whole.place, "Resource", number), text=f"{who}: on {_word(text_of(resource), {})}")
    yield from _conditions(whole, statement, f"{who}: {', '.join(actions)}")


def _principal(statement: JsonObject) -> str:
    principal = statement["Principal"]
    (who,) = principal.values() if isinstance(principal, dict) else [principal]
    return "everybody" if who == "*" else _word(text_of(who), {})


def _statements(value: Json, place: Place, *, inside: bool = False) -> Iterator[tuple[Place, JsonObject]]:
    """Yield every statement of every policy inside of a resource, with its place."""
    match value:
        case {"Statement": list(statements)} if inside:
            for number, statement in enumerate(statements):
                yield (*place, "Statement", number), as_object(statement, "Statement")
        case dict():
            for name, inner in value.items():
                yield from _statements(inner, (*place, name), inside=inside or name in _DOCUMENTS)
        case list():
            for number, inner in enumerate(value):
                yield from _statements(inner, (*place, number), inside=inside)


def _services(statement: JsonObject) -> list[str]:
    equal = as_object(as_object(statement.get("Condition", {}), "Condition").get("StringEquals", {}), "StringEquals")
    return [as_text(service, _VIA) for service in listed(equal.get(_VIA, []))]


def _holders(template: JsonObject) -> dict[str, str]:
    """Return who stands behind each role: a function's module, or a word."""
    holders = {
        as_text(at(resources(template)[name], "Properties", "Role", "Fn::GetAtt", 0), name): module
        for name, module in _modules(template).items()
    }
    for name, machine in resources(template, "AWS::StepFunctions::StateMachine").items():
        holders[as_text(at(machine, "Properties", "RoleArn", "Fn::GetAtt", 0), name)] = MACHINE
    for name, role in resources(template, "AWS::IAM::Role").items():
        services = {"events.amazonaws.com": RULE, "bedrock.amazonaws.com": CUSTOMIZATION_ROLE}
        (statement,) = listed(at(role, "Properties", "AssumeRolePolicyDocument", "Statement"))
        service = as_text(at(statement, "Principal", "Service"), name)
        if service in services:
            holders[name] = services[service]
    return holders


def _modules(template: JsonObject) -> dict[str, str]:
    return function_modules(template) if resources(template, "AWS::Lambda::Function") else {}


def _word(resource: str, modules: Mapping[str, str]) -> str:
    """Return a resource without account and Region, and without what CDK and CloudFormation add to names."""

    def word(found: re.Match[str]) -> str:
        logical_id = found[1]
        for name, module in modules.items():
            if _plain(name) == logical_id:
                return f"function:{module}"
        if logical_id.endswith("Logs"):
            return "its own log"
        return "machine" if found[2] == "Name" else _WORDS.get(logical_id, logical_id)

    named = _REFERENCE.sub(word, resource.replace("<DeploymentId>", "own").replace("<AWS::AccountId>", "account"))
    return re.sub(r"^arn:aws:(?:[\w-]+:[\w-]*:\w+:|bedrock:|s3:::)", "", named)


def _plain(logical_id: str) -> str:
    return re.sub("[0-9A-F]{8}$", "", logical_id)
