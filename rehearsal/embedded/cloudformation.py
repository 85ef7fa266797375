"""Creates the resources of templates inside moto's CloudFormation.

Types that moto does not have, or has without effect, are recorded here, and what it drops of the others is added.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from customization.json_types import JsonObject, as_list, as_object, as_text
from rehearsal.embedded.authorization import Place
from rehearsal.embedded.deployed import AsyncSettings, Deployed, Permission, rule_from
from rehearsal.embedded.lambda_runtime import Function
from rehearsal.embedded.moto_services import MotoServices
from rehearsal.embedded.states.definition import check_definition
from rehearsal.embedded.states.machines import Machine
from rehearsal.embedded.template_check import UnsupportedTemplateError, effect_of


@dataclass(frozen=True)
class Resource:
    """A resource to create: `name` is the physical name, `properties` are resolved."""

    logical_id: str
    kind: str
    name: str
    properties: JsonObject


@dataclass(frozen=True)
class Created:
    """What Ref and GetAtt of a recorded resource answer."""

    ref: str
    attributes: Mapping[str, str]
    forget: Callable[[], object] = lambda: None


class RecordedResource:
    """What moto's CloudFormation keeps of a resource that it does not create itself."""

    def __init__(self, resource: Resource, created: Created) -> None:
        self.cf_resource_type = self.type = resource.kind
        self.logical_resource_id = resource.logical_id
        self.physical_resource_id = created.ref
        self.created = created

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:  # noqa: ARG003  the interface of moto's models
        return True

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    def get_cfn_attribute(self, name: str) -> str:
        """Return what GetAtt answers; raises UnsupportedTemplateError for an attribute that is not recorded."""
        try:
            return self.created.attributes[name]
        except KeyError:
            message = f"{self.logical_resource_id}: the rehearsal has no attribute {name}"
            raise UnsupportedTemplateError(message) from None

    def is_created(self) -> bool:
        return True

    def delete(self, *_: str) -> None:
        """Take back what the embedded AWS acts upon; the rest goes with it."""
        self.created.forget()


class Recorder:
    """Knows what to do for each type that moto's CloudFormation does not create, and what it drops of those it does."""

    def __init__(self, deployed: Deployed, moto: MotoServices) -> None:
        self._deployed = deployed
        self._moto = moto
        self._versions: dict[str, int] = {}
        self._configured: set[str] = set()  # functions with an EventInvokeConfig
        self._create: dict[str, Callable[[Resource], Created]] = {
            "AWS::Events::Rule": self._rule,
            "AWS::Lambda::EventInvokeConfig": self._event_invoke_config,
            "AWS::Lambda::Function": self._function,
            "AWS::Lambda::Permission": self._permission,
            "AWS::Lambda::Version": self._version,
            "AWS::Lambda::Alias": self._alias,
            "AWS::S3::BucketPolicy": self._bucket_policy,
            "AWS::SQS::QueuePolicy": self._queue_policy,
            "AWS::StepFunctions::StateMachine": self._state_machine,
        }
        self._complete: dict[str, Callable[[Resource, str], None]] = {
            "AWS::DynamoDB::Table": self._table_key,
            "AWS::KMS::Key": self._key,
            "AWS::S3::Bucket": self._bucket,
            "AWS::SNS::Topic": self._topic,
            "AWS::SQS::Queue": self._queue_key,
        }

    def record(self, resource: Resource) -> RecordedResource | None:
        """Return what stands for a resource that moto does not create, or None for one that it creates."""
        if resource.kind in self._create:
            return RecordedResource(resource, self._create[resource.kind](resource))
        effect = effect_of(resource.kind)
        if "withoutEffect" not in effect:
            return None
        names = {"name": resource.name, "account": self._deployed.place.account, "region": self._deployed.place.region}
        arn = str(effect.get("arn", "{name}")).format(**names)
        return RecordedResource(resource, Created(arn if effect.get("refIsArn") else resource.name, {"Arn": arn}))

    @property
    def place(self) -> Place:
        return self._deployed.place

    def change(self, recorded: RecordedResource, after: Resource) -> RecordedResource:
        """Apply what a template changes of a resource that is recorded here, under the name it has."""
        made = self._create[after.kind](after) if after.kind in self._create else recorded.created
        return RecordedResource(after, made)

    def without_what_moto_misreads(self, resource_json: JsonObject) -> JsonObject:
        """Return a resource of a template as moto can create it: it looks for KMS's names in the tags of a key."""
        if resource_json["Type"] != "AWS::KMS::Key":
            return resource_json
        properties = as_object(resource_json.get("Properties", {}), "Properties")
        return {**resource_json, "Properties": {name: properties[name] for name in properties if name != "Tags"}}

    def add_what_moto_drops(self, resource: Resource, reference: str) -> None:
        """Apply what moto's CloudFormation drops of a resource it has created; `reference` is what Ref answers."""
        complete = self._complete.get(resource.kind)
        if complete is not None:
            complete(resource, reference)

    def _rule(self, resource: Resource) -> Created:
        rule = rule_from(resource.name, self._deployed.place, resource.properties)
        self._deployed.rules[rule.arn] = rule
        self._deployed.on_rule(rule)
        return Created(resource.name, {"Arn": rule.arn}, lambda: self._deployed.rules.pop(rule.arn))

    def _function(self, resource: Resource) -> Created:
        if not str(resource.properties.get("Runtime")).startswith("python"):
            raise UnsupportedTemplateError(f"{resource.logical_id}: only Python runtimes run here")
        arn = self._deployed.place.arn("lambda", f"function:{resource.name}")
        configured = self._deployed.async_settings.get(arn)
        self._deployed.add_function(resource.name, arn, resource.properties)
        if configured is not None and arn in self._configured:
            self._deployed.async_settings[arn] = configured
        return Created(resource.name, {"Arn": arn}, lambda: self._deployed.functions.pop(arn))

    def _version(self, resource: Resource) -> Created:
        function = self._named_function(resource)
        # A number is not given again, whatever becomes of its version
        self._versions[function.arn] = number = self._versions.get(function.arn, 0) + 1
        arn = f"{function.arn}:{number}"
        self._deployed.functions[arn] = replace(function, arn=arn, version=str(number))
        answers = {"Version": str(number), "FunctionArn": arn}
        return Created(arn, answers, lambda: self._deployed.functions.pop(arn))

    def _alias(self, resource: Resource) -> Created:
        function = self._named_function(resource)
        name, version = as_text(resource.properties["Name"], "Name"), resource.properties["FunctionVersion"]
        target = self._deployed.functions[f"{function.arn}:{version}"]
        arn = f"{function.arn}:{name}"
        self._deployed.functions[arn] = target
        return Created(arn, {"AliasArn": arn}, lambda: self._deployed.functions.pop(arn))

    def _permission(self, resource: Resource) -> Created:
        source = resource.properties.get("SourceArn")
        permission = Permission(
            self._named_function(resource).arn,
            as_text(resource.properties["Principal"], "Principal"),
            None if source is None else str(source),
        )
        self._deployed.permissions.append(permission)
        return Created(resource.name, {"Id": resource.name}, lambda: self._deployed.permissions.remove(permission))

    def _event_invoke_config(self, resource: Resource) -> Created:
        function = self._named_function(resource)
        found = self._deployed.async_settings[function.arn]
        destinations = as_object(resource.properties.get("DestinationConfig", {}), "DestinationConfig")
        failed = as_object(destinations.get("OnFailure", {}), "OnFailure").get("Destination", found.failed_arn)
        retries = int(str(resource.properties.get("MaximumRetryAttempts", found.retries)))
        self._deployed.async_settings[function.arn] = AsyncSettings(retries, None if failed is None else str(failed))
        self._configured.add(function.arn)
        return Created(resource.name, {}, lambda: self._configured.discard(function.arn))

    def _named_function(self, resource: Resource) -> Function:
        name = as_text(resource.properties["FunctionName"], "FunctionName")
        function = self._deployed.function(name)
        if function is None:
            raise UnsupportedTemplateError(f"{resource.logical_id}: there is no function {name}")
        return function

    def _bucket_policy(self, resource: Resource) -> Created:
        bucket = as_text(resource.properties["Bucket"], "Bucket")
        self._deployed.bucket_policies[bucket] = json.dumps(resource.properties["PolicyDocument"])
        return Created(resource.name, {}, lambda: self._deployed.bucket_policies.pop(bucket))

    def _queue_policy(self, resource: Resource) -> Created:
        queues = [str(queue).rpartition("/")[2] for queue in as_list(resource.properties["Queues"], "Queues")]
        arns = [self._deployed.place.arn("sqs", queue) for queue in queues]
        self._deployed.queue_policies.update(dict.fromkeys(arns, json.dumps(resource.properties["PolicyDocument"])))
        return Created(resource.name, {}, lambda: [self._deployed.queue_policies.pop(arn) for arn in arns])

    def _state_machine(self, resource: Resource) -> Created:
        definition = as_object(json.loads(as_text(resource.properties["DefinitionString"], "DefinitionString")), "ASL")
        check_definition(definition)
        arn = self._deployed.place.arn("states", f"stateMachine:{resource.name}")
        role = as_text(resource.properties["RoleArn"], "RoleArn")
        self._deployed.machines[arn] = Machine(arn, resource.name, role, definition)
        answers = {"Arn": arn, "Name": resource.name}
        return Created(arn, answers, lambda: self._deployed.machines.pop(arn))

    def _bucket(self, resource: Resource, reference: str) -> None:
        properties = resource.properties
        versioning = as_object(properties.get("VersioningConfiguration", {}), "VersioningConfiguration").get("Status")
        block = as_object(properties.get("PublicAccessBlockConfiguration", {}), "PublicAccessBlockConfiguration")
        self._moto.set_bucket_options(
            reference,
            None if versioning is None else str(versioning),
            {name: str(value).lower() == "true" for name, value in block.items()} or None,
        )
        self._deployed.event_buckets.discard(reference)
        notifications = as_object(properties.get("NotificationConfiguration", {}), "NotificationConfiguration")
        events = as_object(notifications.get("EventBridgeConfiguration", {}), "EventBridgeConfiguration")
        if str(events.get("EventBridgeEnabled", "EventBridgeConfiguration" in notifications)).lower() == "true":
            self._deployed.event_buckets.add(reference)
        encryption = as_object(properties.get("BucketEncryption", {}), "BucketEncryption")
        for item in as_list(encryption.get("ServerSideEncryptionConfiguration", []), "BucketEncryption"):
            default = as_object(as_object(item, "rule")["ServerSideEncryptionByDefault"], "rule")
            if "KMSMasterKeyID" in default:
                self._deployed.keys[f"arn:aws:s3:::{reference}"] = str(default["KMSMasterKeyID"])

    def _table_key(self, resource: Resource, reference: str) -> None:
        encryption = as_object(resource.properties.get("SSESpecification", {}), "SSESpecification")
        if "KMSMasterKeyId" in encryption:
            arn = self._deployed.place.arn("dynamodb", f"table/{reference}")
            self._deployed.keys[arn] = str(encryption["KMSMasterKeyId"])

    def _queue_key(self, resource: Resource, reference: str) -> None:
        if "KmsMasterKeyId" in resource.properties:
            arn = self._deployed.place.arn("sqs", reference.rsplit("/", 1)[-1])
            self._deployed.keys[arn] = str(resource.properties["KmsMasterKeyId"])

    def _key(self, resource: Resource, reference: str) -> None:
        self._moto.complete_key(reference, json.dumps(resource.properties["KeyPolicy"]), tags_of(resource))

    def _topic(self, resource: Resource, reference: str) -> None:
        self._moto.tag_topic(reference, tags_of(resource))
        if "KmsMasterKeyId" in resource.properties:
            self._deployed.keys[reference] = str(resource.properties["KmsMasterKeyId"])


def tags_of(resource: Resource) -> dict[str, str]:
    """Return the tags that a template puts on a resource."""
    listed = [as_object(tag, "Tags") for tag in as_list(resource.properties.get("Tags", []), "Tags")]
    return {str(tag["Key"]): str(tag["Value"]) for tag in listed}
