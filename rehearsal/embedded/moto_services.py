"""moto in this process: what it is asked for, each private name it is asked through, and the check that they exist.

moto keeps buckets, tables, topics, queues, parameters, keys, roles, sessions and stacks. It is pinned exactly; a name
that another version moved is reported at start-up instead of being missed silently.
"""

import importlib
import json
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, cast

from werkzeug.test import run_wsgi_app

from customization.json_types import Json
from rehearsal.clock import VirtualClock
from rehearsal.embedded.moto_backends import get_backend
from rehearsal.embedded.requests import HttpAnswer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment
    from moto.iam.models import Role

_BOOTSTRAP_VERSION = "30"  # of the CDK's bootstrap stack; templates ask for 6 at least
_SEAMS = {
    "moto.cloudformation.models": (
        "ChangeSet._parse_template",
        "ChangeSet.apply",
        "CloudFormationBackend.create_stack",
        "CloudFormationBackend.delete_stack",
        "CloudFormationBackend.describe_change_set",
        "CloudFormationBackend.execute_change_set",
        "CloudFormationBackend.get_stack",
        "Stack._create_output_map",
        "Stack._create_resource_map",
        "Stack.parse_template",
        "Stack.update",
    ),
    "moto.cloudformation.parsing": (
        "clean_json",
        "generate_resource_name",
        "get_model_map",
        "parse_and_create_resource",
        "ResourceMap._delete_resource",
    ),
    "moto.cloudformation.responses": (
        "CloudFormationResponse.delete_change_set",
        "CloudFormationResponse.describe_change_set",
        "CloudFormationResponse.execute_change_set",
        "CloudFormationResponse.cloudformation_backend",
    ),
    "moto.backends": ("get_backend", "list_of_moto_modules"),
    "moto.core.base_backend": ("BackendDict.reset",),
    "moto.core.serialize": ("BaseJSONSerializer._serialize_type_structure",),
    "moto.dynamodb.models.dynamo_type": ("DynamoType",),
    "moto.core.model_instances": ("reset_model_data",),
    "moto.core.utils": ("utcnow",),
    "moto.iam.models": ("iam_backends",),
    "moto.kms.models": ("kms_backends", "KmsBackend.put_key_policy", "KmsBackend.tag_resource"),
    "moto.moto_server.werkzeug_app": ("DomainDispatcherApplication", "create_backend_app"),
    "moto.s3.models": ("utcnow", "s3_backends", "S3Backend.put_bucket_versioning", "S3Backend.put_public_access_block"),
    "moto.ssm.models": ("ssm_backends", "SimpleSystemManagerBackend.put_parameter"),
    "moto.sts.models": ("sts_backends", "STSBackend.assume_role"),
}
# CloudFormation imports the models of every service it can create, which takes seconds; these are not deployed here.
# fmt: off
_LEFT_OUT = frozenset({
    "apigateway", "autoscaling", "awslambda", "batch", "cloudwatch", "datapipeline", "ec2", "ecr", "ecs", "efs", "elb",
    "elbv2", "emr", "iot", "kinesis", "organizations", "rds", "redshift", "route53", "sagemaker",
    "stepfunctions",
})
# fmt: on


class MovedSeamError(RuntimeError):
    """moto lacks a private name that the embedded AWS goes through."""


class _Placeholders(MetaPathFinder, Loader):
    """Answers an import of a left-out service with an empty module whose every name is an empty class."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  importlib's interface
        target: types.ModuleType | None = None,  # noqa: ARG002  importlib's interface
    ) -> ModuleSpec | None:
        parts = fullname.split(".")
        left_out = parts[0] == "moto" and len(parts) > 1 and parts[1] in _LEFT_OUT
        return ModuleSpec(fullname, self, is_package=True) if left_out else None

    def exec_module(self, module: types.ModuleType) -> None:
        def placeholder(name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

        module.__dict__["__getattr__"] = placeholder


def _import_without_left_out(*names: str) -> None:
    before = set(sys.modules)
    placeholders = _Placeholders()
    sys.meta_path.insert(0, placeholders)
    try:
        for name in names:
            importlib.import_module(name)
    finally:
        sys.meta_path.remove(placeholders)
        for added in set(sys.modules) - before:
            specification = sys.modules[added].__spec__
            if specification is not None and specification.loader is placeholders:
                del sys.modules[added]


def _missing_seams() -> Iterator[str]:
    for module_name, names in _SEAMS.items():
        module = importlib.import_module(module_name)
        for name in names:
            found: object = module
            for part in name.split("."):
                found = getattr(found, part, None)
            if found is None:
                yield f"{module_name}.{name}"


@cache
def load() -> None:
    """Import moto once; raises MovedSeamError naming every private name that this version lacks."""
    _import_without_left_out("moto.cloudformation.models", "moto.logs.models")
    missing = list(_missing_seams())
    if missing:
        raise MovedSeamError(f"moto has moved: {', '.join(missing)}; the embedded AWS is written for moto 5.2.5")
    _read_templates_as_json()
    _list_services_once()
    _answer_items_as_they_are()


def _read_templates_as_json() -> None:
    """Parse templates as JSON: moto's YAML parser takes seconds for the same text."""
    from moto.cloudformation.models import ChangeSet, Stack  # noqa: PLC0415  after the placeholders

    def parse(template: str) -> Json:
        parsed: Json = json.loads(template) if template.lstrip().startswith("{") else original(template)
        return parsed

    def parse_change_set(change_set: ChangeSet) -> None:
        setattr(change_set, "template_dict", parse(change_set.template))  # noqa: B010  a seam

    original = Stack.parse_template
    setattr(ChangeSet, "_parse_template", parse_change_set)  # noqa: B010  a seam
    setattr(Stack, "parse_template", staticmethod(parse))  # noqa: B010  a seam


def _list_services_once() -> None:
    """Read the folder of moto's services once: moto does so for each request, in a fifth of the time for its answer."""
    from moto import backends  # noqa: PLC0415  after the placeholders

    names = tuple(backends.list_of_moto_modules())
    setattr(backends, "list_of_moto_modules", lambda: names)  # noqa: B010  a seam


def _answer_items_as_they_are() -> None:
    """Answer DynamoDB's attributes without looking for each of their ten types: a tenth of the time of a rehearsal."""
    from moto.core.model import StructureShape  # noqa: PLC0415  after the placeholders
    from moto.core.serialize import BaseJSONSerializer  # noqa: PLC0415  after the placeholders
    from moto.dynamodb.models.dynamo_type import DynamoType  # noqa: PLC0415  after the placeholders

    def plain(value: object) -> Json:
        if isinstance(value, DynamoType):
            return {value.type: plain(value.value)}
        if isinstance(value, dict):
            return {str(name): plain(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [plain(inner) for inner in value]
        return cast("Json", value)

    def serialize(
        serializer: BaseJSONSerializer, serialized: dict[str, Json], value: object, shape: StructureShape, key: str
    ) -> None:
        if shape.name == "AttributeValue" and key:
            serialized[key] = plain(value)
        else:
            original(serializer, serialized, value, shape, key)

    original = BaseJSONSerializer._serialize_type_structure  # noqa: SLF001  a seam
    setattr(BaseJSONSerializer, "_serialize_type_structure", serialize)  # noqa: B010  a seam


@cache
def _moto_time() -> "_Time":
    """Give every moto module the virtual time; modules imported later find it in moto.core.utils."""
    from moto.core import utils  # noqa: PLC0415  after the placeholders

    original = utils.utcnow
    time = _Time(original)
    for name, module in list(sys.modules.items()):
        if name.startswith("moto.") and getattr(module, "utcnow", None) is original:
            setattr(module, "utcnow", time.utcnow)  # noqa: B010  a seam
    return time


@dataclass
class _Time:
    real: Callable[[], datetime]
    clock: VirtualClock | None = None

    def utcnow(self) -> datetime:
        """Return naive UTC, as moto's own function of this name does; real time unless an embedded AWS is up."""
        return self.real() if self.clock is None else self.clock.now().replace(tzinfo=None)


@dataclass(frozen=True)
class Session:
    """Credentials of a role."""

    access_key: str
    secret_key: str
    token: str
    role_arn: str
    name: str


class MotoServices:
    """moto's state and its web application; there is one a process, so starting it again forgets the last one's."""

    def __init__(self, clock: VirtualClock, region: str) -> None:
        load()
        from moto.core.base_backend import BackendDict  # noqa: PLC0415  after the placeholders
        from moto.core.model_instances import reset_model_data  # noqa: PLC0415  after the placeholders
        from moto.core.models import DEFAULT_ACCOUNT_ID  # noqa: PLC0415  after the placeholders
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: PLC0415  after the placeholders

        BackendDict.reset()
        reset_model_data()
        _moto_time().clock = clock
        self.account: str = DEFAULT_ACCOUNT_ID
        self._region = region
        self._application: WSGIApplication = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()  # moto checks conditions and writes in two steps

    def answer(self, environ: "WSGIEnvironment") -> HttpAnswer:
        """Return moto's answer to a request."""
        with self._one_at_a_time:
            chunks, status, headers = run_wsgi_app(self._application, environ, buffered=True)
        return HttpAnswer(int(status.split(" ", 1)[0]), dict(headers), b"".join(chunks))

    def close(self) -> None:
        """Give moto back its own time."""
        _moto_time().clock = None

    def role_policies(self, role_arn: str) -> list[str]:
        """Return the texts of the policies of a role, inline and managed; raises LookupError for an unknown role."""
        role = self._role(role_arn)
        versions = [version for policy in role.managed_policies.values() for version in policy.versions]
        managed = [version.document for version in versions if version.is_default]
        # CloudFormation leaves inline policies as objects here, the API leaves texts.
        policies: dict[str, object] = dict(role.policies)
        inline = [policy if isinstance(policy, str) else json.dumps(policy) for policy in policies.values()]
        return [*inline, *managed]

    def trust_policy(self, role_arn: str) -> str:
        """Return the text of a role's trust policy; raises LookupError for an unknown role."""
        return str(self._role(role_arn).assume_role_policy_document)

    def _role(self, role_arn: str) -> "Role":
        for role in get_backend("iam")[self.account]["aws"].roles.values():
            if role.arn == role_arn:
                return role
        raise LookupError(f"there is no role {role_arn}")

    def role_of_people(self, policy_arn: str) -> str:
        """Return the ARN of a role that this account trusts and that has one managed policy; made when not there.

        Raises LookupError for an unknown policy.
        """
        backend = get_backend("iam")[self.account]["aws"]
        if policy_arn not in backend.managed_policies:
            raise LookupError(f"there is no policy {policy_arn}")
        name = f"Person-{policy_arn.rpartition('/')[2]}"[:64]  # IAM quotas, role name
        arn = f"arn:aws:iam::{self.account}:role/{name}"
        if not any(role.arn == arn for role in backend.roles.values()):
            people = {"AWS": f"arn:aws:iam::{self.account}:root"}
            trust = {"Statement": [{"Effect": "Allow", "Principal": people, "Action": "sts:AssumeRole"}]}
            backend.create_role(name, json.dumps(trust), "/", None, "", [], "3600")
            backend.attach_role_policy(policy_arn, name)
        return arn

    def session(self, role_arn: str, name: str) -> Session:
        """Return new credentials of a role, which sts:GetCallerIdentity knows."""
        session = get_backend("sts")[self.account]["aws"].assume_role(
            region_name=self._region,
            role_session_name=name,
            role_arn=role_arn,
            policy="",
            duration=43_200,
            external_id="",
        )
        return Session(session.access_key_id, session.secret_access_key, session.session_token, role_arn, name)

    def set_bucket_options(
        self, bucket: str, versioning: str | None, public_access_block: dict[str, bool] | None
    ) -> None:
        """Apply the properties of a bucket that moto's CloudFormation drops."""
        backend = get_backend("s3")[self.account]["aws"]
        if versioning is not None:
            backend.put_bucket_versioning(bucket, versioning)
        if public_access_block is not None:
            backend.put_public_access_block(bucket, public_access_block)

    def complete_key(self, key_id: str, policy: str, tags: dict[str, str]) -> None:
        """Apply the properties of a key that moto's CloudFormation misreads: its policy, as text, and its tags."""
        backend = get_backend("kms")[self.account][self._region]
        backend.put_key_policy(key_id, policy)
        if tags:
            backend.tag_resource(key_id, tags)

    def tag_topic(self, topic_arn: str, tags: dict[str, str]) -> None:
        """Put tags on a topic, which moto's CloudFormation drops."""
        if tags:
            get_backend("sns")[self.account][self._region].tag_resource(topic_arn, tags)

    def read_object(self, bucket: str, key: str) -> bytes:
        """Return the content of an object; raises LookupError when there is none."""
        found = get_backend("s3")[self.account]["aws"].get_object(bucket, key)
        if found is None:
            raise LookupError(f"there is no object {bucket}/{key}")
        return bytes(found.value)

    def protect_stack(self, name_or_id: str, *, enabled: bool) -> str:
        """Set the termination protection of a stack and return the stack's id."""
        stack = get_backend("cloudformation")[self.account][self._region].get_stack(name_or_id)
        stack.enable_termination_protection = enabled
        return str(stack.stack_id)

    def is_protected(self, name_or_id: str) -> bool:
        """Return whether a stack is protected from deletion; moto keeps that but does not act upon it."""
        stacks = get_backend("cloudformation")[self.account][self._region].stacks.values()
        return any(name_or_id in (s.name, s.stack_id) and s.enable_termination_protection for s in stacks)

    def bootstrap(self) -> None:
        """Put the parameter there that `cdk bootstrap` leaves and every template asks for."""
        get_backend("ssm")[self.account][self._region].put_parameter(
            name="/cdk-bootstrap/hnb659fds/version",
            description="",
            value=_BOOTSTRAP_VERSION,
            parameter_type="String",
            allowed_pattern="",
            keyid="",
            overwrite=True,
            tags=[],
            data_type="text",
            tier=None,
            policies=None,
        )

    def stored_object(self, bucket: str, key: str) -> "StoredObject":
        """Return what S3 keeps of the newest version of an object; raises LookupError when there is none."""
        found = get_backend("s3")[self.account]["aws"].get_object(bucket, key)
        if found is None:
            raise LookupError(f"there is no object {bucket}/{key}")
        version = found.version_id if get_backend("s3")[self.account]["aws"].get_bucket(bucket).is_versioned else None
        return StoredObject(int(found.size), str(found.etag).strip('"'), version)


@dataclass(frozen=True)
class StoredObject:
    size: int
    etag: str
    version_id: str | None
