"""What the roles of a deployed pipeline may do, one permission at a time, and which of it calls have used."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from customization.json_types import Json, JsonObject, as_object
from rehearsal.embedded.access import Call
from rehearsal.embedded.policies import Demand, evaluate
from tests.permission_names import CUSTOMIZATION_ROLE, MACHINE, PEOPLE, RULE
from tests.workflow.pipeline import Pipeline

_POLICY = "Permissions"
_VIA = "kms:ViaService"


@dataclass(frozen=True, order=True)
class Permission:
    """One action on one resource pattern, for keys through one service; `name` says so without what changes."""

    role: str
    name: str
    statement: str

    def allows(self, call: Call) -> bool:
        """Return whether this permission alone would let its role make the call."""
        return evaluate([_document([self])], Demand(call.action, call.resource, call.context)).allowed

    def __str__(self) -> str:
        return f"{self.role}: {self.name}"


class Permissions:
    """The policies of all roles or of `only` some, in single permissions; one can be taken away for a while."""

    def __init__(self, pipeline: Pipeline, only: Collection[str] = ()) -> None:
        self._iam = pipeline.aws.session().client("iam")
        self._labels = {arn: label for arn, label in _labels(pipeline).items() if not only or label in only}
        self._words = _words(pipeline)
        self._of_role: dict[str, list[Permission]] = {}
        for arn in self._labels:
            texts = pipeline.aws._moto.role_policies(arn)
            self._of_role[arn] = sorted({found for text in texts for found in self._split(arn, text)})
            # In one policy each, so that one write takes a permission away wherever it stood
            for policy in self._iam.list_attached_role_policies(RoleName=_name(arn))["AttachedPolicies"]:
                self._iam.detach_role_policy(RoleName=_name(arn), PolicyArn=policy["PolicyArn"])
            self._write(arn, self._of_role[arn])

    @property
    def granted(self) -> set[Permission]:
        return {permission for permissions in self._of_role.values() for permission in permissions}

    def used(self, calls: Iterable[Call]) -> set[Permission]:
        """Return the permissions that one of the calls needed."""
        asked: defaultdict[tuple[str, str], dict[str, Call]] = defaultdict(dict)
        for call in calls:
            asked[call.role, call.action.lower()][f"{call.resource} {sorted(call.context.items())}"] = call
        return {
            permission
            for arn, permissions in self._of_role.items()
            for permission in permissions
            if any(permission.allows(call) for call in asked[arn, _action(permission).lower()].values())
        }

    def describe(self, call: Call) -> str:
        """Return a call in the words of the permissions."""
        return f"{self._labels[call.role]}: {call.action} {self._shorten(call.resource)}"

    @contextmanager
    def without(self, taken: Permission) -> Iterator[None]:
        """Let the role lack one permission inside the block."""
        [arn] = [arn for arn, permissions in self._of_role.items() if taken in permissions]
        self._write(arn, [permission for permission in self._of_role[arn] if permission != taken])
        try:
            yield
        finally:
            self._write(arn, self._of_role[arn])

    def _write(self, arn: str, permissions: list[Permission]) -> None:
        if permissions:
            self._iam.put_role_policy(RoleName=_name(arn), PolicyName=_POLICY, PolicyDocument=_document(permissions))
        else:
            self._iam.delete_role_policy(RoleName=_name(arn), PolicyName=_POLICY)

    def _split(self, arn: str, document: str) -> Iterator[Permission]:
        for item in _listed(as_object(json.loads(document), "policy")["Statement"]):
            statement = as_object(item, "Statement")
            assert statement["Effect"] == "Allow"
            for conditions in _by_service(as_object(statement.get("Condition", {}), "Condition")):
                via = [service.split(".")[0] for service in _services(conditions)]
                for action in _listed(statement["Action"]):
                    for resource in _listed(statement["Resource"]):
                        name = f"{action} {self._shorten(str(resource))}{' via '.join(['', *via])}"
                        single = {"Effect": "Allow", "Action": action, "Resource": resource, "Condition": conditions}
                        yield Permission(self._labels[arn], name, json.dumps(single, sort_keys=True))

    def _shorten(self, resource: str) -> str:
        for text, word in self._words:
            resource = resource.replace(text, word)
        return resource


def _labels(pipeline: Pipeline) -> dict[str, str]:
    """Return what stands behind each role: a function's module, a kind of people, or a word."""
    deployed = pipeline.aws.deployed
    labels = {function.role_arn: function.label for function in deployed.functions.values()}
    labels |= {machine.role_arn: MACHINE for machine in deployed.machines.values()}
    labels |= {pipeline.role_of(kind): kind for kind in PEOPLE}
    labels |= {t.role_arn: RULE for rule in deployed.rules.values() for t in rule.targets if t.role_arn}
    return {**labels, pipeline._variable("CUSTOMIZATION_ROLE_ARN"): CUSTOMIZATION_ROLE}


def _words(pipeline: Pipeline) -> list[tuple[str, str]]:
    """Return what to write for the names that change with every deployment."""
    deployed, place = pipeline.aws.deployed, pipeline.aws.place
    variables = {"DATA_BUCKET": "data", "ARTIFACT_BUCKET": "artifacts", "RUNS_TABLE": "runs", "LEASES_TABLE": "leases"}
    names = [(pipeline._variable(variable), word) for variable, word in variables.items()]
    names += [(pipeline._variable("KEY_ARN"), "key"), (pipeline._variable("DEPLOYMENT_ID"), "own")]
    names += [(pipeline._variable("TOPIC_ARN"), "topic"), (pipeline._variable("CUSTOMIZATION_ROLE_ARN"), "role")]
    names += [(found.failed_arn, "queue") for found in deployed.async_settings.values() if found.failed_arn]
    names += [(place.arn("logs", f"log-group:{f.log_group}"), "its own log") for f in deployed.functions.values()]
    names += [(function.name, function.label) for function in deployed.functions.values()]
    names += [(machine.name, "machine") for machine in deployed.machines.values()]
    services = ("bedrock", "cloudformation", "dynamodb", "lambda", "servicequotas", "sns", "sqs", "ssm", "states")
    return [*names, *((place.arn(name, ""), "") for name in services), ("arn:aws:s3:::", ""), ("arn:aws:bedrock:", "")]


def _document(permissions: list[Permission]) -> str:
    statements = ", ".join(permission.statement for permission in permissions)
    return f'{{"Version": "2012-10-17", "Statement": [{statements}]}}'


def _by_service(conditions: JsonObject) -> Iterator[JsonObject]:
    """Yield the conditions once for each service that they let use a key."""
    services = _services(conditions)
    if not services:
        yield conditions
    for service in services:
        yield {"StringEquals": {_VIA: service}}


def _services(conditions: JsonObject) -> list[str]:
    equal = as_object(conditions.get("StringEquals", {}), "StringEquals")
    return [str(service) for service in _listed(equal.get(_VIA, []))]


def _listed(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [value]


def _action(permission: Permission) -> str:
    return permission.name.partition(" ")[0]


def _name(role_arn: str) -> str:
    return role_arn.rpartition("/")[2]
