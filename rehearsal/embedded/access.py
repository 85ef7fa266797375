"""Enforces IAM for the sessions of roles, and records every call; whoever is no such session is the deployer."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rehearsal.embedded.deployed import Deployed
from rehearsal.embedded.moto_services import MotoServices, Session
from rehearsal.embedded.policies import Demand, evaluate

_KEY_ACTIONS = {  # what a service does with the key of an encrypted resource in the name of the caller
    "s3:GetObject": ("kms:Decrypt",),
    "s3:GetObjectVersion": ("kms:Decrypt",),
    "s3:PutObject": ("kms:GenerateDataKey",),
    "sns:Publish": ("kms:Decrypt", "kms:GenerateDataKey"),
    "sqs:SendMessage": ("kms:Decrypt", "kms:GenerateDataKey"),
}
_ALWAYS_ALLOWED = ("sts:GetCallerIdentity",)


@dataclass(frozen=True)
class Call:
    """One permission that a role's session needed; `context` holds the condition keys known about it."""

    role: str
    action: str
    resource: str
    allowed: bool
    context: Mapping[str, str] = field(default_factory=dict)


class AccessDeniedError(Exception):
    """A session lacks a permission; the text is IAM's own."""


class Access:
    """The sessions of the roles of functions, machines, rules and people, and what they may do."""

    def __init__(self, moto: MotoServices, deployed: Deployed) -> None:
        self._moto = moto
        self._deployed = deployed
        self._lock = threading.Lock()
        self._by_role: dict[tuple[str, str], Session] = {}
        self._by_key: dict[str, Session] = {}
        self.calls: list[Call] = []

    def session(self, role_arn: str, name: str, service: str, source_arn: str) -> Session:
        """Return the session of a role for a function, machine or rule with the ARN `source_arn`.

        Raises AccessDeniedError unless the role's trust policy lets `service` assume it.
        """
        context = {"aws:SourceAccount": self._deployed.place.account, "aws:SourceArn": source_arn}
        return self._assume(role_arn, name, f"{service}.amazonaws.com", context)

    def session_of_person(self, role_arn: str, name: str) -> Session:
        """Return the session of a role that people of this account assume; raises AccessDeniedError unless they may."""
        return self._assume(role_arn, name, f"arn:aws:iam::{self._deployed.place.account}:root", {})

    def _assume(self, role_arn: str, name: str, principal: str, context: Mapping[str, str]) -> Session:
        with self._lock:
            if (role_arn, name) not in self._by_role:
                demand = Demand("sts:AssumeRole", role_arn, context)
                if not evaluate([self._moto.trust_policy(role_arn)], demand, principal).allowed:
                    raise AccessDeniedError(f"{principal} is not authorized to perform: sts:AssumeRole on {role_arn}")
                session = self._moto.session(role_arn, name)
                self._by_role[role_arn, name] = self._by_key[session.access_key] = session
            return self._by_role[role_arn, name]

    def session_of(self, access_key: str) -> Session | None:
        """Return the session that an access key belongs to, or None for the deployer's."""
        return self._by_key.get(access_key)

    def require(self, session: Session, demands: Iterable[Demand]) -> None:
        """Raise AccessDeniedError unless the role may do all of `demands`, and what the keys need for them."""
        policies = self._moto.role_policies(session.role_arn)
        for demand in demands:
            if demand.action in _ALWAYS_ALLOWED:
                continue
            for single in (demand, *self._key_demands(demand)):
                self._require_one(session, policies, single)

    def _require_one(self, session: Session, policies: list[str], demand: Demand) -> None:
        verdict = evaluate([*policies], demand)
        bucket = demand.resource.removeprefix("arn:aws:s3:::").split("/")[0]
        if demand.action.startswith("s3:") and bucket in self._deployed.bucket_policies:
            of_bucket = evaluate([self._deployed.bucket_policies[bucket]], demand, session.role_arn)
            if of_bucket.allowed or of_bucket.denied:
                verdict = of_bucket
        self.calls.append(Call(session.role_arn, demand.action, demand.resource, verdict.allowed, demand.context))
        if not verdict.allowed:
            account, role = session.role_arn.split(":")[4], session.role_arn.rsplit("/", 1)[-1]
            raise AccessDeniedError(
                f"User: arn:aws:sts::{account}:assumed-role/{role}/{session.name} is not authorized to perform: "
                f"{demand.action} on resource: {demand.resource} {verdict.because}",
            )

    def _key_demands(self, demand: Demand) -> Iterator[Demand]:
        service = demand.action.split(":")[0]
        owner = demand.resource.split("/")[0] if service == "s3" else demand.resource.split("/index/")[0]
        key = self._deployed.keys.get(owner)
        if key is not None:
            actions = ("kms:Decrypt",) if service == "dynamodb" else _KEY_ACTIONS.get(demand.action, ())
            via = f"{service}.{self._deployed.place.region}.amazonaws.com"
            yield from (Demand(action, key, {"kms:ViaService": via}) for action in actions)
