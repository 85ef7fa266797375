"""Takes a stack from one template to another, as CloudFormation does.

Resources are kept, changed in place, replaced or made, and what is left over goes last; whatever fails on the way is
taken back, and the stack tells why.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from customization.json_types import Json, JsonObject, as_list, as_object
from rehearsal.embedded.cloudformation import Resource
from rehearsal.embedded.template_check import UnsupportedTemplateError, effect_of

if TYPE_CHECKING:
    from moto.cloudformation.models import Stack
    from moto.cloudformation.parsing import OutputMap, ResourceMap

NO_CHANGES = "No updates are to be performed."
_REPLACEMENT = "Requested update requires the creation of a new physical resource; hence creating one."


class StackUpdateError(Exception):
    """An update that CloudFormation refuses; the text is its own."""


class Maker(Protocol):
    """What makes and changes single resources; `known` has those of each stack by their logical ids."""

    known: dict[tuple[str, str], Resource]

    def make(self, resource: Resource, resource_json: JsonObject, resources_map: "ResourceMap") -> object:
        """Create a resource and return what moto keeps of it."""

    def change(self, created: object, before: Resource, after: Resource) -> object:
        """Change a resource in place and return what moto keeps of it."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a stack is to become."""

    text: str
    template: JsonObject
    parameters: dict[str, str]
    tags: dict[str, str] | None


@dataclass(frozen=True)
class _Leftover:
    logical_id: str
    resource_json: JsonObject
    created: object
    policy: str

    @property
    def is_retained(self) -> bool:
        return str(self.resource_json.get(self.policy, "Delete")).startswith("Retain")


class StackUpdate:
    """One update of one stack; moto asks `place` for each resource of the new template, in the order of references."""

    def __init__(self, stack: "Stack", maker: Maker, others: "list[Stack]") -> None:
        self._stack = stack
        self._maker = maker
        self._others = others
        self._old_map: ResourceMap = stack.resource_map
        self._old_exports = {export.name: export.value for export in stack.exports}
        self._old_json = {
            name: as_object(item, name) for name, item in as_object(stack.template_dict["Resources"], "R").items()
        }
        self._before = {name: maker.known[stack.stack_id, name] for name in self._old_json if self._is_known(name)}
        self._undo: list[Callable[[], object]] = []
        self._replaced: list[_Leftover] = []
        self.map: ResourceMap | None = None

    def _is_known(self, logical_id: str) -> bool:
        return (self._stack.stack_id, logical_id) in self._maker.known

    def run(self, target: Target) -> None:
        """Bring the stack to `target`; its status and events say whether it came there."""
        stack = self._stack
        old = (stack.template, stack.template_dict, stack.parameters, stack.tags, stack.resource_map)
        stack.status = "UPDATE_IN_PROGRESS"
        self._tell(stack.name, "UPDATE_IN_PROGRESS", "User Initiated")
        try:
            self._place_all(target)
        except Exception as error:  # noqa: BLE001  whatever a resource refuses is why CloudFormation takes all of it back
            stack.template, stack.template_dict, stack.parameters, stack.tags, stack.resource_map = old
            self._roll_back(str(error))
            return
        stack.template = target.text
        self._tell(stack.name, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
        for leftover in self._leftovers():
            self._remove(leftover)
        stack.status = "UPDATE_COMPLETE"
        self._tell(stack.name, "UPDATE_COMPLETE")

    def place(self, resource: Resource, resource_json: JsonObject, resources_map: "ResourceMap") -> object:
        """Return what moto keeps of a resource of the new template, made, kept or changed."""
        name, before = resource.logical_id, self._before.get(resource.logical_id)
        if before is None or before.kind != resource.kind:
            return self._make(resource, resource_json, resources_map, "CREATE_COMPLETE")
        created = self._old_map[name]
        after = Resource(name, resource.kind, before.name, resource.properties)
        changed = sorted(_changed(before, after))
        if not changed:
            return created
        if _replaces(resource.kind, changed):
            self._replaced.append(_Leftover(name, self._old_json[name], created, "UpdateReplacePolicy"))
            self._tell(name, "UPDATE_IN_PROGRESS", _REPLACEMENT, resource.kind)
            return self._make(resource, resource_json, resources_map, "UPDATE_COMPLETE")
        return self._change(created, before, after, changed)

    def _make(self, resource: Resource, resource_json: JsonObject, resources_map: "ResourceMap", status: str) -> object:
        try:
            made = self._maker.make(resource, resource_json, resources_map)
        except Exception as error:  # told as CloudFormation's event, then raised
            self._tell(resource.logical_id, status.replace("COMPLETE", "FAILED"), str(error), resource.kind)
            raise
        leftover = _Leftover(resource.logical_id, resource_json, made, "")
        self._undo.append(lambda: self._remove(leftover))
        self._tell(resource.logical_id, status, None, resource.kind)
        return made

    def _change(self, created: object, before: Resource, after: Resource, changed: list[str]) -> object:
        try:
            _check_changes(after, changed)
            updated = self._maker.change(created, before, after)
            self._maker.known[self._stack.stack_id, after.logical_id] = after
        except Exception as error:  # told as CloudFormation's event, then raised
            self._tell(after.logical_id, "UPDATE_FAILED", str(error), after.kind)
            raise
        self._undo.append(lambda: self._maker.change(updated, after, before))
        self._tell(after.logical_id, "UPDATE_COMPLETE", None, after.kind)
        return updated

    def _place_all(self, target: Target) -> None:
        stack = self._stack
        stack.template_dict, stack.parameters = target.template, target.parameters
        stack.tags = stack.tags if target.tags is None else target.tags
        self.map = stack.resource_map = stack._create_resource_map()  # noqa: SLF001  a seam
        self.map.create(target.template)
        outputs: OutputMap = stack._create_output_map()  # noqa: SLF001  a seam
        new_exports = {export.name: export.value for export in outputs.exports}
        for name, value in self._old_exports.items():
            users = [other.name for other in self._others if name in _imports(other.template_dict)]
            if users and new_exports.get(name) != value:
                verb = "updated" if name in new_exports else "deleted"
                raise StackUpdateError(f"Export {name} cannot be {verb} as it is in use by {', '.join(users)}")
        stack.output_map = outputs

    def _leftovers(self) -> Iterator[_Leftover]:
        """Yield what the new template does not have any more, dependents before what they depend on."""
        new = as_object(self._stack.template_dict["Resources"], "Resources")
        replaced = {leftover.logical_id: leftover for leftover in self._replaced}
        for name, resource_json in reversed(self._old_json.items()):
            if name in replaced:
                yield replaced[name]
            elif name not in new or as_object(new[name], name)["Type"] != resource_json["Type"]:
                yield _Leftover(name, resource_json, self._old_map[name], "DeletionPolicy")

    def _remove(self, leftover: _Leftover) -> None:
        kind = str(leftover.resource_json["Type"])
        if leftover.created is None:
            return
        if leftover.is_retained:
            self._tell(leftover.logical_id, "DELETE_SKIPPED", None, kind)
            return
        self._old_map._delete_resource(leftover.created, leftover.resource_json)  # noqa: SLF001  a seam
        self._tell(leftover.logical_id, "DELETE_COMPLETE", None, kind)

    def _roll_back(self, reason: str) -> None:
        self._stack.status = "UPDATE_ROLLBACK_IN_PROGRESS"
        self._tell(self._stack.name, "UPDATE_ROLLBACK_IN_PROGRESS", reason)
        for undo in reversed(self._undo):
            undo()
        for name, resource in self._before.items():
            self._maker.known[self._stack.stack_id, name] = resource
        self._stack.status = "UPDATE_ROLLBACK_COMPLETE"
        self._stack.stack_status_reason = reason  # type: ignore[attr-defined]  # moto's answers carry what is there
        self._tell(self._stack.name, "UPDATE_ROLLBACK_COMPLETE", reason)

    def _tell(
        self, name: str, status: str, reason: str | None = None, kind: str = "AWS::CloudFormation::Stack"
    ) -> None:
        from moto.cloudformation.models import Event  # noqa: PLC0415  after the placeholders

        stack = self._stack
        found: object = stack.resource_map._parsed_resources.get(name)  # noqa: SLF001  a seam
        physical = stack.stack_id if name == stack.name else str(getattr(found, "physical_resource_id", ""))
        stack.events.append(Event(stack.stack_id, stack.name, name, physical, kind, status, reason, None))


def _changed(before: Resource, after: Resource) -> Iterator[str]:
    for name in before.properties.keys() | after.properties.keys():
        old, new = before.properties.get(name), after.properties.get(name)
        if json.dumps(old, sort_keys=True, default=str) != json.dumps(new, sort_keys=True, default=str):
            yield name


def _replaces(kind: str, changed: list[str]) -> bool:
    listed = as_list(effect_of(kind).get("replaces", []), kind)
    return "*" in listed or any(name in listed for name in changed)


def _check_changes(resource: Resource, changed: list[str]) -> None:
    """Raise UnsupportedTemplateError for a property that cannot be changed here."""
    kind, effect = resource.kind, effect_of(resource.kind)
    known = [*as_object(effect.get("withoutEffectHere", {}), kind), *as_list(effect.get("changes", []), kind)]
    unknown = [] if "withoutEffect" in effect else [name for name in changed if name not in known]
    if unknown:
        raise UnsupportedTemplateError(
            f"{resource.logical_id}: the rehearsal cannot change {', '.join(unknown)} of {kind}"
        )


def _imports(value: Json) -> set[str]:
    """Return the names of all exports that a template imports."""
    match value:
        case {"Fn::ImportValue": str(name)}:
            return {name}
        case dict():
            return {name for inner in value.values() for name in _imports(inner)}
        case list():
            return {name for inner in value for name in _imports(inner)}
        case _:
            return set()
