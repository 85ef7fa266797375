"""What the templates deploy, and what their policies let each principal do."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from customization.json_types import Json, JsonObject, as_list, as_object, as_text
from docs.render.pages import table
from rehearsal.templates import at, function_modules, listed, resources

Templates = Mapping[str, JsonObject]

_HASH = re.compile(r"[0-9A-F]{8}$")
_ARN = re.compile(r"^arn:(?:aws|<partition>):([\w-]+):[^:]*:[^:]*:")
_PSEUDO = {"AWS::AccountId": "<account>", "AWS::Partition": "<partition>", "AWS::Region": "<region>"}
# Columns of the data flow: how a resource of a policy is told, by its beginning
_PLACES = {
    "DataBucket": "data bucket",
    "ArtifactBucket": "artifact bucket",
    "RunsTable": "runs table",
    "LeasesTable": "leases table",
    "bedrock:": "Bedrock",
    "ssm:": "SSM parameter",
    "Topic": "topic",
}
_VERBS = {
    "read": ("Get", "List", "Query", "Scan", "Describe"),
    "ask": ("Invoke", "Converse"),
    "write": ("Put", "Update", "Create", "Stop", "Tag", "Publish"),
    "delete": ("Delete",),
}


def stacks(templates: Templates) -> str:
    """Return what each stack holds, by type of resource."""
    rows = []
    for name in ("storage", "pipeline", "operations"):
        template = templates[name]
        kinds = Counter(as_text(resource["Type"], name) for resource in resources(template).values())
        held = ", ".join(f"{count} {kind.removeprefix('AWS::')}" for kind, count in sorted(kinds.items()))
        rows.append((f"`{name.capitalize()}`", as_text(template["Description"], "Description"), held))
    return table(("stack", "what it is", "resources"), rows)


def outputs(templates: Templates) -> str:
    """Return what the stacks print for people; exports from stack to stack have no description."""
    rows = []
    for name in ("storage", "pipeline", "operations"):
        for output, value in as_object(templates[name].get("Outputs", {}), name).items():
            described = as_object(value, output)
            if "Description" in described:
                rows.append((f"`{output}`", name.capitalize(), as_text(described["Description"], output)))
    return table(("output", "stack", "what it is for"), rows)


class Policies:
    """The statements of every policy, told in the words of the templates."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates
        self._exports: dict[str, Json] = {}
        for template in templates.values():
            for output in as_object(template.get("Outputs", {}), "Outputs").values():
                export = as_object(output, "output").get("Export")
                if isinstance(export, dict):
                    self._exports[as_text(export["Name"], "Export")] = at(output, "Value")

    def permissions(self, stack: str) -> str:
        """Return every statement of a stack: who may do what on which resources, and under which condition."""
        rows = []
        for holder, statement in sorted(self._statements(self._templates[stack]), key=lambda row: row[0]):
            actions = ", ".join(f"`{action}`" for action in listed(statement["Action"]))
            on = ", ".join(f"`{self._tell(resource)}`" for resource in listed(statement["Resource"]))
            rows.append((_plain(holder), actions, on, self._conditions(statement)))
        return table(("who", "may", "on", "if"), rows)

    def trust(self) -> str:
        """Return who may assume the roles, and under which condition; roles that do not differ share a row."""
        roles: dict[tuple[str, str], list[str]] = {}
        for stack, template in self._templates.items():
            for name, role in resources(template, "AWS::IAM::Role").items():
                for statement in as_list(at(role, "Properties", "AssumeRolePolicyDocument", "Statement"), name):
                    fields = as_object(statement, name)
                    trusted = f"`{at(fields, 'Principal', 'Service')}`", self._conditions(fields)
                    roles.setdefault(trusted, []).append(f"{stack.capitalize()}: {_plain(name)}")
        rows = [(service, condition, ", ".join(names)) for (service, condition), names in roles.items()]
        return table(("service", "if", "may assume"), rows)

    def data_flow(self) -> str:
        """Return which function reads, writes or deletes what."""
        roles = {
            as_text(at(function, "Properties", "Role", "Fn::GetAtt", 0), name): name
            for name, function in resources(self._templates["pipeline"], "AWS::Lambda::Function").items()
        }
        modules = function_modules(self._templates["pipeline"])
        uses: dict[str, dict[str, set[str]]] = {}
        for role, statement in self._statements(self._templates["pipeline"]):
            if role in roles:
                of_function = uses.setdefault(modules[roles[role]], {})
                for place in {place for resource in listed(statement["Resource"]) for place in self._places(resource)}:
                    of_function.setdefault(place, set()).update(_verbs(statement))
        rows = [
            (
                f"`{module}`",
                *(", ".join(verb for verb in _VERBS if verb in places.get(p, ())) for p in _PLACES.values()),
            )
            for module, places in uses.items()
        ]
        return table(("function", *_PLACES.values()), rows)

    def _places(self, resource: Json) -> Iterator[str]:
        told = self._tell(resource)
        yield from (place for beginning, place in _PLACES.items() if told.startswith(beginning))

    def _statements(self, template: JsonObject) -> Iterator[tuple[str, JsonObject]]:
        for name, role in resources(template, "AWS::IAM::Role").items():
            for policy in listed(as_object(role["Properties"], name).get("Policies", [])):
                yield from ((name, as_object(s, name)) for s in listed(at(policy, "PolicyDocument", "Statement")))
        for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            for name, policy in resources(template, kind).items():
                properties = as_object(policy["Properties"], name)
                holders = [as_text(at(role, "Ref"), name) for role in listed(properties.get("Roles", []))] or [name]
                for statement in listed(at(properties, "PolicyDocument", "Statement")):
                    yield from ((holder, as_object(statement, name)) for holder in holders)

    def _conditions(self, statement: JsonObject) -> str:
        told = []
        for operator, keys in as_object(statement.get("Condition", {}), "Condition").items():
            for key, value in as_object(keys, operator).items():
                values = " or ".join(self._tell(one) for one in listed(value))
                told.append(f"`{key}` {operator} `{values}`")
        return "; ".join(told)

    def _tell(self, value: Json) -> str:
        """Return a resource or value as a reader would name it: no account, no Region, logical ids without hash."""
        match value:
            case str():
                text = value
            case {"Ref": str(name)}:
                text = _PSEUDO.get(name) or _plain(name)
            case {"Fn::GetAtt": [str(name), *_]}:
                text = _plain(name)
            case {"Fn::ImportValue": str(name)}:
                text = "<deploymentId>" if name.endswith(":DeploymentId") else self._tell(self._exports[name])
            case {"Fn::Join": [str(separator), list(parts)]}:
                text = separator.join(self._tell(part) for part in parts)
            case _:
                raise ValueError(f"no words for {value}: add them to docs/render/deployment.py")
        return _ARN.sub(r"\1:", text)


def _plain(logical_id: str) -> str:
    return _HASH.sub("", logical_id)


def _verbs(statement: JsonObject) -> Iterator[str]:
    for action in listed(statement["Action"]):
        operation = as_text(action, "Action").partition(":")[2]
        yield from (verb for verb, beginnings in _VERBS.items() if operation.startswith(beginnings))
