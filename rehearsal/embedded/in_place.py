"""Changes in place what moto has created, property by property; supported.json lists which these are."""

import json
from typing import TYPE_CHECKING, Protocol, cast

from customization.json_types import JsonObject, as_list, as_object
from rehearsal.embedded.cloudformation import Resource, tags_of
from rehearsal.embedded.moto_backends import get_backend

if TYPE_CHECKING:
    from collections.abc import Callable

_ARNS = {  # by which the service tags what Ref names otherwise
    "AWS::DynamoDB::Table": "arn:aws:dynamodb:{region}:{account}:table/{reference}",
    "AWS::KMS::Key": "arn:aws:kms:{region}:{account}:key/{reference}",
    "AWS::Logs::LogGroup": "arn:aws:logs:{region}:{account}:log-group:{reference}",
    "AWS::S3::Bucket": "arn:aws:s3:::{reference}",
    "AWS::SNS::Topic": "{reference}",
}


class _Tagger(Protocol):
    def tag_resource(self, arn: str, tags: dict[str, str], /) -> None: ...

    def untag_resource(self, arn: str, keys: list[str], /) -> None: ...


class InPlace:
    """moto's services of one account and Region, seen as a template's properties."""

    def __init__(self, account: str, region: str) -> None:
        self._account, self._region = account, region
        self._changes: dict[str, Callable[[str, JsonObject], None]] = {
            "AWS::DynamoDB::Table": self._table,
            "AWS::IAM::ManagedPolicy": self._managed_policy,
            "AWS::IAM::Policy": self._inline_policy,
            "AWS::IAM::Role": self._role,
            "AWS::KMS::Key": self._key,
            "AWS::Logs::LogGroup": self._log_group,
            "AWS::S3::Bucket": self._bucket,
            "AWS::SNS::Topic": self._topic,
            "AWS::SQS::Queue": self._queue,
            "AWS::SSM::Parameter": self._parameter,
        }

    def change(self, reference: str, before: "Resource", after: "Resource") -> None:
        """Let the resource that Ref answers with `reference` have the properties of `after`."""
        if after.kind in self._changes:
            self._changes[after.kind](reference, after.properties)
        if after.kind == "AWS::IAM::ManagedPolicy":
            self._attach(reference, _roles(before), _roles(after))
        old, new = tags_of(before), tags_of(after)
        if old != new:
            self._tag(after.kind, reference, new, list(old))

    def _table(self, reference: str, properties: JsonObject) -> None:
        table = get_backend("dynamodb")[self._account][self._region].get_table(reference)
        table.deletion_protection_enabled = bool(properties.get("DeletionProtectionEnabled"))

    def _managed_policy(self, reference: str, properties: JsonObject) -> None:
        backend = get_backend("iam")[self._account]["aws"]
        # Five versions are kept (IAM quotas): CloudFormation deletes the one before
        for version in backend.list_policy_versions(reference):
            if not version.is_default:
                backend.delete_policy_version(reference, version.version_id)
        backend.create_policy_version(reference, json.dumps(properties["PolicyDocument"]), set_as_default=True)

    def _attach(self, policy: str, before: set[str], after: set[str]) -> None:
        backend = get_backend("iam")[self._account]["aws"]
        for role in before - after:
            backend.detach_role_policy(policy, role)
        for role in after - before:
            backend.attach_role_policy(policy, role)

    def _inline_policy(self, reference: str, properties: JsonObject) -> None:
        roles = [str(role) for role in as_list(properties.get("Roles", []), "Roles")]
        document, policy = json.dumps(properties["PolicyDocument"]), str(properties["PolicyName"])
        get_backend("iam")[self._account]["aws"].update_inline_policy(reference, policy, document, [], roles, [])

    def _role(self, reference: str, properties: JsonObject) -> None:
        role = get_backend("iam")[self._account]["aws"].get_role(reference)
        role.assume_role_policy_document = json.dumps(properties["AssumeRolePolicyDocument"])
        role.description = str(properties.get("Description", ""))
        inline = [as_object(policy, "Policies") for policy in as_list(properties.get("Policies", []), "Policies")]
        # A policy that is a resource of its own stands in the role all the same
        policies = get_backend("iam")[self._account]["aws"].inline_policies.values()
        attached = {policy.policy_name for policy in policies if reference in (policy.role_names or [])}
        for name in [name for name in role.policies if name not in attached]:
            role.delete_policy(name)
        for policy in inline:
            role.put_policy(str(policy["PolicyName"]), json.dumps(policy["PolicyDocument"]))

    def _key(self, reference: str, properties: JsonObject) -> None:
        backend = get_backend("kms")[self._account][self._region]
        backend.update_key_description(reference, str(properties.get("Description", "")))
        backend.put_key_policy(reference, json.dumps(properties["KeyPolicy"]))

    def _log_group(self, reference: str, properties: JsonObject) -> None:
        backend = get_backend("logs")[self._account][self._region]
        if "RetentionInDays" in properties:
            # moto keeps what it is given, and both CloudFormation and the API give it a number
            backend.put_retention_policy(reference, cast("str", properties["RetentionInDays"]))
        else:
            backend.delete_retention_policy(reference)

    def _bucket(self, reference: str, properties: JsonObject) -> None:
        backend = get_backend("s3")[self._account]["aws"]
        if "VersioningConfiguration" not in properties and backend.get_bucket(reference).is_versioned:
            backend.put_bucket_versioning(reference, "Suspended")

    def _topic(self, reference: str, properties: JsonObject) -> None:
        backend = get_backend("sns")[self._account][self._region]
        for attribute, name in (("display_name", "DisplayName"), ("kms_master_key_id", "KmsMasterKeyId")):
            backend.set_topic_attribute(reference, attribute, str(properties.get(name, "")))

    def _queue(self, reference: str, properties: JsonObject) -> None:
        names = ("KmsMasterKeyId", "VisibilityTimeout")
        attributes = {name: properties[name] for name in names if name in properties}
        get_backend("sqs")[self._account][self._region].set_queue_attributes(reference.rpartition("/")[2], attributes)

    def _parameter(self, reference: str, properties: JsonObject) -> None:
        parameter = get_backend("ssm")[self._account][self._region].get_parameter(reference)
        if parameter is None:
            raise LookupError(f"there is no parameter {reference}")
        parameter.value = str(properties["Value"])
        parameter.description = str(properties.get("Description", ""))

    def _tag(self, kind: str, reference: str, tags: dict[str, str], removed: list[str]) -> None:
        if kind == "AWS::IAM::Role":
            role = get_backend("iam")[self._account]["aws"].get_role(reference)
            role.tags = [{"Key": key, "Value": value} for key, value in tags.items()]
        elif kind == "AWS::SQS::Queue":
            queues, name = get_backend("sqs")[self._account][self._region], reference.rpartition("/")[2]
            queues.untag_queue(name, removed)
            queues.tag_queue(name, tags)
        elif kind == "AWS::SSM::Parameter":
            parameters = get_backend("ssm")[self._account][self._region]
            parameters.remove_tags_from_resource("Parameter", reference, removed)
            parameters.add_tags_to_resource("Parameter", reference, tags)
        else:
            self._tag_by_arn(kind, reference, tags, removed)

    def _tag_by_arn(self, kind: str, reference: str, tags: dict[str, str], removed: list[str]) -> None:
        arn = _ARNS[kind].format(region=self._region, account=self._account, reference=reference)
        backends: dict[str, object] = {
            "AWS::DynamoDB::Table": get_backend("dynamodb")[self._account][self._region],
            "AWS::KMS::Key": get_backend("kms")[self._account][self._region],
            "AWS::Logs::LogGroup": get_backend("logs")[self._account][self._region],
            "AWS::S3::Bucket": get_backend("s3")[self._account]["aws"],
            "AWS::SNS::Topic": get_backend("sns")[self._account][self._region],
        }
        backend = cast("_Tagger", backends[kind])
        if removed:
            backend.untag_resource(arn, removed)
        if tags:
            backend.tag_resource(arn, tags)


def _roles(resource: Resource) -> set[str]:
    return {str(role) for role in as_list(resource.properties.get("Roles", []), "Roles")}
