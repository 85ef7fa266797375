"""Refuses a template that holds what the embedded AWS would drop silently."""

from collections.abc import Iterator

from customization.json_types import Json, JsonObject, as_list, as_object
from rehearsal.embedded.policies import policy_problems
from rehearsal.embedded.supported import SUPPORTED

_TYPES = as_object(SUPPORTED["resources"], "resources")
_ATTRIBUTES = ("Type", "Properties", "Condition", "DependsOn", "DeletionPolicy", "UpdateReplacePolicy", "Metadata")


class UnsupportedTemplateError(ValueError):
    """A template holds what is in no list of supported.json; the message lists every type and property."""


def check_resource(logical_id: str, resource: JsonObject) -> None:
    """Raise UnsupportedTemplateError when the resource's type or a property is in no list."""
    problems = list(_problems(logical_id, resource))
    if problems:
        raise UnsupportedTemplateError("\n".join(problems))


def check_template(name: str, template: JsonObject) -> None:
    """Raise UnsupportedTemplateError listing all that is wrong with a template, conditions of its policies included."""
    problems: list[str] = []
    for logical_id, item in as_object(template["Resources"], name).items():
        resource = as_object(item, logical_id)
        problems += _problems(logical_id, resource)
        for document in _policies(resource):
            problems += [f"{logical_id}: {problem} is not evaluated here" for problem in policy_problems(document)]
    if problems:
        raise UnsupportedTemplateError(f"{name} holds what the rehearsal would drop silently:\n" + "\n".join(problems))


def effect_of(kind: str) -> JsonObject:
    """Return the entry of a resource type in supported.json; raises KeyError for a type that is in no list."""
    return as_object(_TYPES[kind], kind)


def _problems(logical_id: str, resource: JsonObject) -> Iterator[str]:
    kind = str(resource["Type"])
    if kind not in _TYPES:
        yield f"{logical_id}: resource type {kind}"
        return
    yield from (f"{logical_id}: attribute {name}" for name in resource if name not in _ATTRIBUTES)
    known = effect_of(kind)
    if "withoutEffect" in known:
        return
    properties = as_object(resource.get("Properties", {}), logical_id)
    listed = [*as_list(known["works"], kind), *as_object(known.get("withoutEffectHere", {}), kind)]
    yield from (f"{logical_id}: property {kind} {name}" for name in properties if name not in listed)


def _policies(resource: JsonObject) -> Iterator[JsonObject]:
    if resource["Type"] not in (
        "AWS::IAM::Role",
        "AWS::IAM::Policy",
        "AWS::IAM::ManagedPolicy",
        "AWS::S3::BucketPolicy",
    ):
        return
    properties = as_object(resource.get("Properties", {}), "Properties")
    documents: list[Json] = [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
    inline = as_list(properties.get("Policies", []), "Policies")
    documents += [as_object(policy, "Policies")["PolicyDocument"] for policy in inline]
    yield from (as_object(document, "PolicyDocument") for document in documents)
