"""Puts the recorder into moto's CloudFormation, so that every stack goes through it, the CDK CLI's too.

The CLI creates stacks through change sets, whose outputs and exports moto would drop, and updates them.
"""

import copy
import json
from collections import defaultdict
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, cast

from customization.json_types import Json, JsonObject, as_object
from rehearsal.embedded.cloudformation import Created, RecordedResource, Recorder, Resource
from rehearsal.embedded.in_place import InPlace
from rehearsal.embedded.moto_backends import get_backend
from rehearsal.embedded.moto_services import load
from rehearsal.embedded.stack_updates import NO_CHANGES, StackUpdate, StackUpdateError, Target
from rehearsal.embedded.supported import SUPPORTED
from rehearsal.embedded.template_check import check_resource

if TYPE_CHECKING:
    from moto.cloudformation.models import ChangeSet, CloudFormationBackend, Stack
    from moto.cloudformation.parsing import ResourceMap
    from moto.cloudformation.responses import CloudFormationResponse
    from moto.core.responses import ActionResult

_TYPES = as_object(SUPPORTED["resources"], "resources")
_LONGEST_NAME = 64  # IAM quotas, role name; Lambda CreateFunction, FunctionName


def record_with(recorder: Recorder | None) -> None:
    """Let `recorder` take part in every resource that moto's CloudFormation creates from now on; None ends that."""
    _seam().recorder = recorder
    _seam().known.clear()


def create_stack(name: str, template: JsonObject, account: str, region: str) -> dict[str, str]:
    """Create a stack and return its outputs; whatever a resource refuses is raised as it is."""
    _seam()
    stack = get_backend("cloudformation")[account][region].create_stack(name, json.dumps(template), {})
    if stack.status != "CREATE_COMPLETE":
        raise RuntimeError(f"{name}: {stack.status}")
    return {output.key: output.value for output in stack.output_map.values() if output is not None}


@cache
def _seam() -> "_Seam":
    return _Seam()


def _create_stack_of_change_set(change_set: "ChangeSet") -> None:
    stack = change_set.stack
    exports = get_backend("cloudformation")[stack.account_id][stack.region_name].exports
    stack.template, stack.template_dict = change_set.template, change_set.template_dict
    stack.parameters, stack.cross_stack_resources = change_set.parameters, exports
    stack.resource_map = stack._create_resource_map()  # noqa: SLF001  a seam
    stack.output_map = stack._create_output_map()  # noqa: SLF001  a seam
    exports.update({export.name: export for export in stack.exports})
    stack.create_resources()


def _change_set_id(response: "CloudFormationResponse") -> str:
    """Return the id of the change set that a request names; moto looks a name up among those of all stacks."""
    name, stack = response._get_param("ChangeSetName"), response._get_param("StackName")  # noqa: SLF001  a seam
    found = [
        change_set.change_set_id
        for change_set in response.cloudformation_backend.change_sets.values()
        if name == change_set.change_set_id
        or (name == change_set.change_set_name and stack in {change_set.stack_name, change_set.stack_id})
    ]
    if not found:
        from moto.cloudformation.exceptions import CloudFormationError  # noqa: PLC0415  after the placeholders

        raise CloudFormationError("ChangeSetNotFoundException", f"ChangeSet [{name}] does not exist")
    return str(found[-1])


def _describe_change_set(response: "CloudFormationResponse") -> "ActionResult":
    from moto.core.responses import ActionResult  # noqa: PLC0415  after the placeholders

    return ActionResult(response.cloudformation_backend.describe_change_set(_change_set_id(response)))


def _delete_change_set(response: "CloudFormationResponse") -> "ActionResult":
    from moto.cloudformation.exceptions import CloudFormationError  # noqa: PLC0415  after the placeholders
    from moto.core.responses import EmptyResult  # noqa: PLC0415  after the placeholders

    with suppress(CloudFormationError):  # AWS deletes what is not there, too
        response.cloudformation_backend.delete_change_set(_change_set_id(response))
    return EmptyResult()


def _answer_to_execution(response: "CloudFormationResponse") -> "ActionResult":
    from moto.core.responses import EmptyResult  # noqa: PLC0415  after the placeholders

    response.cloudformation_backend.execute_change_set(_change_set_id(response))
    return EmptyResult()


def _execute_change_set(backend: "CloudFormationBackend", change_set_name: str, stack_name: str | None = None) -> None:
    change_set = backend.describe_change_set(change_set_name)
    if change_set is None or change_set.change_set_type == "CREATE":
        _seam().execute_in_moto(backend, change_set_name, stack_name)
        return
    change_set.execution_status = "EXECUTE_COMPLETE"
    template, parameters = change_set.template_dict, _given_parameters(change_set)
    target = Target(text=change_set.template, template=template, parameters=parameters, tags=change_set.tags)
    _seam().update(change_set.stack, target)


def _given_parameters(change_set: "ChangeSet") -> dict[str, str]:
    """Return the parameters as somebody gave them: for a previous value moto takes what it resolved that to."""
    before, resolved = change_set.stack.parameters, change_set.stack.stack_parameters
    kept = {name for name, value in change_set.parameters.items() if name in resolved and resolved[name] == value}
    given = {name: value for name, value in change_set.parameters.items() if name not in kept}
    return given | {name: before[name] for name in kept if name in before}


def _update_stack(
    stack: "Stack",
    template: str,
    role_arn: str | None = None,  # noqa: ARG001  the interface of moto's stacks
    parameters: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> None:
    from moto.cloudformation.exceptions import ValidationError  # noqa: PLC0415  after the placeholders

    parsed = as_object(stack.parse_template(template), stack.name)
    parameters = parameters or stack.parameters
    if (parsed, parameters, tags or stack.tags) == (stack.template_dict, stack.parameters, stack.tags):
        raise ValidationError(stack.name, message=NO_CHANGES)
    _seam().update(stack, Target(text=template, template=parsed, parameters=parameters, tags=tags))


def _delete_stack(backend: "CloudFormationBackend", name_or_stack_id: str) -> None:
    """Delete a stack, or leave it there as a stack whose deletion failed, with the reason."""
    found = [stack for stack in backend.stacks.values() if name_or_stack_id in {stack.name, stack.stack_id}]
    try:
        _seam().delete_in_moto(backend, name_or_stack_id)
    except StackUpdateError as error:
        for stack in found:
            backend.stacks[stack.stack_id] = stack
            stack.status = "DELETE_FAILED"
            stack._add_stack_event("DELETE_FAILED", str(error))  # noqa: SLF001  a seam


def _delete_resource(resources_map: "ResourceMap", created: object, resource_json: JsonObject) -> None:
    """Delete a resource as moto does, and managed policies, which it forgets."""
    if resource_json["Type"] == "AWS::IAM::ManagedPolicy" and not isinstance(created, RecordedResource):
        backend = get_backend("iam")[resources_map._account_id]["aws"]  # noqa: SLF001  a seam
        policy = backend.get_policy(_reference(created))
        for role in backend.roles.values():
            # From the roles of its stack a policy goes by itself
            if policy.arn in role.managed_policies and role in resources_map._parsed_resources.values():  # noqa: SLF001  a seam
                policy.detach_from(role)
        if policy.attachment_count > 0:
            raise StackUpdateError("Cannot delete a policy attached to entities.")
        backend.delete_policy(policy.arn)
        return
    _seam().delete_resource_in_moto(resources_map, created, resource_json)


class _Seam:
    """Replaces functions of moto's CloudFormation, once a process."""

    def __init__(self) -> None:
        load()
        from moto.cloudformation import models as stacks  # noqa: PLC0415  after the placeholders
        from moto.cloudformation import parsing  # noqa: PLC0415  after the placeholders
        from moto.cloudformation.responses import CloudFormationResponse  # noqa: PLC0415  after the placeholders

        self._backends = stacks.cloudformation_backends
        self.recorder: Recorder | None = None
        self.known: dict[tuple[str, str], Resource] = {}
        self._update: StackUpdate | None = None
        self._parsing = parsing
        self.execute_in_moto = stacks.CloudFormationBackend.execute_change_set
        self.delete_in_moto = stacks.CloudFormationBackend.delete_stack
        self.delete_resource_in_moto = parsing.ResourceMap._delete_resource  # noqa: SLF001  a seam
        self._create_in_moto = parsing.parse_and_create_resource
        self._name_in_moto = parsing.generate_resource_name
        for place, name, replacement in (
            (parsing, "parse_and_create_resource", self._create),
            (parsing, "generate_resource_name", self._name),
            (stacks.ChangeSet, "apply", _create_stack_of_change_set),
            (stacks.CloudFormationBackend, "execute_change_set", _execute_change_set),
            (stacks.CloudFormationBackend, "delete_stack", _delete_stack),
            (CloudFormationResponse, "delete_change_set", _delete_change_set),
            (CloudFormationResponse, "describe_change_set", _describe_change_set),
            (CloudFormationResponse, "execute_change_set", _answer_to_execution),
            (stacks.Stack, "update", _update_stack),
            (parsing.ResourceMap, "_delete_resource", _delete_resource),
        ):
            setattr(place, name, replacement)
        kinds = cast("dict[str, type]", parsing.get_model_map())
        for kind in _TYPES:
            kinds.setdefault(kind, RecordedResource)

    def update(self, stack: "Stack", target: Target) -> None:
        """Bring a stack to `target`, with what it exports; its status says whether it came there."""
        backend = self._backends[stack.account_id][stack.region_name]
        others = [other for other in backend.stacks.values() if other is not stack]
        self._update = StackUpdate(stack, self, others)
        try:
            self._update.run(target)
        finally:
            self._update = None
        for name in [name for name, export in backend.exports.items() if export.exporting_stack_id == stack.stack_id]:
            del backend.exports[name]
        backend.exports.update({export.name: export for export in stack.exports})

    def _name(self, kind: str, stack: str, logical_id: str) -> str:
        generated = self._name_in_moto(kind, stack, logical_id)
        if len(generated) <= _LONGEST_NAME:
            return generated
        start, _, suffix = generated.rpartition("-")
        return f"{start[: _LONGEST_NAME - len(suffix) - 1]}-{suffix}"

    def _create(
        self,
        logical_id: str,
        resource_json: JsonObject,
        resources_map: "ResourceMap",
        account_id: str,
        region_name: str,
    ) -> object:
        if self.recorder is None:
            return self._create_in_moto(logical_id, resource_json, resources_map, account_id, region_name)
        condition = resource_json.get("Condition")
        if condition is not None and not resources_map.lazy_condition_map[str(condition)]:
            return None
        if resources_map.stack_id in self._backends[account_id][region_name].deleted_stacks:
            # Describing a deleted stack evaluates its outputs, for which moto would create the resources anew.
            gone = Resource(logical_id, str(resource_json["Type"]), "", {})
            return RecordedResource(gone, Created("deleted", defaultdict(lambda: "deleted")))
        check_resource(logical_id, resource_json)
        resource = self._resolved(logical_id, resource_json, resources_map)
        if self._update is not None and self._update.map is resources_map:
            return self._update.place(resource, resource_json, resources_map)
        return self.make(resource, resource_json, resources_map)

    def _resolved(self, logical_id: str, resource_json: JsonObject, resources_map: "ResourceMap") -> Resource:
        kind = str(resource_json["Type"])
        written = copy.deepcopy(resource_json.get("Properties", {}))
        properties: Json = self._parsing.clean_json(written, resources_map)
        resolved = as_object(properties, logical_id)
        given = resolved.get(str(as_object(_TYPES[kind], kind).get("nameProperty")))
        stack: object = resources_map["AWS::StackName"]
        name = self._name(kind, str(stack), logical_id) if given is None else str(given)
        return Resource(logical_id, kind, name, resolved)

    def make(self, resource: Resource, resource_json: JsonObject, resources_map: "ResourceMap") -> object:
        """Create a resource and return what moto keeps of it."""
        recorder = self._chosen()
        created: object = recorder.record(resource)
        if created is None:
            asked = recorder.without_what_moto_misreads(resource_json)
            place = recorder.place
            created = self._create_in_moto(resource.logical_id, asked, resources_map, place.account, place.region)
            recorder.add_what_moto_drops(resource, _reference(created))
        self.known[resources_map.stack_id, resource.logical_id] = resource
        return created

    def change(self, created: object, before: Resource, after: Resource) -> object:
        """Change a resource in place and return what moto keeps of it."""
        recorder = self._chosen()
        if isinstance(created, RecordedResource):
            return recorder.change(created, after)
        InPlace(recorder.place.account, recorder.place.region).change(_reference(created), before, after)
        recorder.add_what_moto_drops(after, _reference(created))
        return created

    def _chosen(self) -> Recorder:
        if self.recorder is None:
            raise RuntimeError("no embedded AWS runs that could make resources")
        return self.recorder


def _reference(created: object) -> str:
    return str(getattr(created, "physical_resource_id", ""))
