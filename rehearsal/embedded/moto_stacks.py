"""Puts the recorder into moto's CloudFormation, so that every stack is created through it, the CDK CLI's too.

The CLI creates stacks through change sets, whose outputs and exports moto would drop.
"""

import copy
import json
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, cast

from customization.json_types import Json, JsonObject, as_object
from rehearsal.embedded.cloudformation import Created, RecordedResource, Recorder, Resource
from rehearsal.embedded.moto_services import load
from rehearsal.embedded.supported import SUPPORTED
from rehearsal.embedded.template_check import UnsupportedTemplateError, check_resource

if TYPE_CHECKING:
    from moto.cloudformation.models import ChangeSet
    from moto.cloudformation.parsing import ResourceMap
    from moto.iam.models import ManagedPolicy

_TYPES = as_object(SUPPORTED["resources"], "resources")
_LONGEST_NAME = 64  # IAM quotas, role name; Lambda CreateFunction, FunctionName


def record_with(recorder: Recorder | None) -> None:
    """Let `recorder` take part in every resource that moto's CloudFormation creates from now on; None ends that."""
    _seam().recorder = recorder


def create_stack(name: str, template: JsonObject, account: str, region: str) -> dict[str, str]:
    """Create a stack and return its outputs; whatever a resource refuses is raised as it is."""
    _seam()
    from moto.cloudformation.models import cloudformation_backends  # noqa: PLC0415  after the placeholders

    stack = cloudformation_backends[account][region].create_stack(name, json.dumps(template), {})
    if stack.status != "CREATE_COMPLETE":
        raise RuntimeError(f"{name}: {stack.status}")
    return {output.key: output.value for output in stack.output_map.values() if output is not None}


@cache
def _seam() -> "_Seam":
    return _Seam()


def _create_stacks_of_change_sets() -> None:
    from moto.cloudformation.models import ChangeSet, cloudformation_backends  # noqa: PLC0415  after the placeholders

    def apply(change_set: "ChangeSet") -> None:
        stack = change_set.stack
        if change_set.change_set_type != "CREATE":
            raise UnsupportedTemplateError(f"{stack.name}: the rehearsal does not update stacks; start a new one")
        exports = cloudformation_backends[stack.account_id][stack.region_name].exports
        stack.template, stack.template_dict = change_set.template, change_set.template_dict
        stack.parameters, stack.cross_stack_resources = change_set.parameters, exports
        stack.resource_map = stack._create_resource_map()  # noqa: SLF001  a seam
        stack.output_map = stack._create_output_map()  # noqa: SLF001  a seam
        exports.update({export.name: export for export in stack.exports})
        stack.create_resources()

    setattr(ChangeSet, "apply", apply)  # noqa: B010  a seam


def _delete_managed_policies() -> None:
    """Let managed policies go with their stack: moto would keep them, and then refuses to delete their roles."""
    from moto.iam import models  # noqa: PLC0415  after the placeholders

    def delete(policy: "ManagedPolicy", account_id: str, _: str) -> None:
        backend = models.iam_backends[account_id]["aws"]
        for role in backend.roles.values():
            if policy.arn in role.managed_policies:
                policy.detach_from(role)
        backend.delete_policy(policy.arn)

    setattr(models.ManagedPolicy, "delete", delete)  # noqa: B010  a seam


class _Seam:
    """Replaces three functions of moto's CloudFormation, once a process."""

    def __init__(self) -> None:
        load()
        from moto.cloudformation import parsing  # noqa: PLC0415  after the placeholders
        from moto.cloudformation.models import cloudformation_backends  # noqa: PLC0415  after the placeholders

        self._backends = cloudformation_backends
        self.recorder: Recorder | None = None
        self._parsing = parsing
        self._create_in_moto = parsing.parse_and_create_resource
        self._name_in_moto = parsing.generate_resource_name
        for name, replacement in (
            ("parse_and_create_resource", self._create),
            ("parse_and_update_resource", self._update),
            ("generate_resource_name", self._name),
        ):
            setattr(parsing, name, replacement)
        _create_stacks_of_change_sets()
        _delete_managed_policies()
        models = cast("dict[str, type]", parsing.get_model_map())
        for kind in _TYPES:
            models.setdefault(kind, RecordedResource)

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
        recorded = self.recorder.record(resource)
        if recorded is not None:
            return recorded
        asked = self.recorder.without_what_moto_misreads(resource_json)
        created: object = self._create_in_moto(logical_id, asked, resources_map, account_id, region_name)
        self.recorder.add_what_moto_drops(resource, str(getattr(created, "physical_resource_id", "")))
        return created

    def _resolved(self, logical_id: str, resource_json: JsonObject, resources_map: "ResourceMap") -> Resource:
        kind = str(resource_json["Type"])
        written = copy.deepcopy(resource_json.get("Properties", {}))
        properties: Json = self._parsing.clean_json(written, resources_map)
        resolved = as_object(properties, logical_id)
        given = resolved.get(str(as_object(_TYPES[kind], kind).get("nameProperty")))
        stack: object = resources_map["AWS::StackName"]
        name = self._name(kind, str(stack), logical_id) if given is None else str(given)
        return Resource(logical_id, kind, name, resolved)

    def _update(self, logical_id: str, *_: object, **__: object) -> None:
        raise UnsupportedTemplateError(f"{logical_id}: the rehearsal does not update stacks; start a new one")
