"""Decides, as IAM does, whether policies allow a call."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from customization.json_types import Json, JsonObject, as_list, as_object
from rehearsal.embedded.supported import SUPPORTED

_IAM = as_object(SUPPORTED["iam"], "iam")
_CONDITION_KEYS = [str(key) for key in as_list(_IAM["conditionKeys"], "iam/conditionKeys")]
_IF_EXISTS = "IfExists"
_NEGATED = ("StringNotEquals", "StringNotLike", "ArnNotLike")
_WITH_WILDCARDS = ("StringLike", "StringNotLike", "ArnLike", "ArnEquals", "ArnNotLike")
# Of keys with several values, which nothing here has: one value is in the set, or there is none to be outside of it
_FOR_ALL = "ForAllValues:StringEquals"
_OPERATORS = ("StringEquals", "Bool", "Null", _FOR_ALL, *_WITH_WILDCARDS, *_NEGATED)


@dataclass(frozen=True)
class Demand:
    """One permission that a call needs; `context` holds the condition keys known about it."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """`denied` is a Deny statement's; what is neither allowed nor denied is refused all the same."""

    allowed: bool
    denied: bool
    because: str


def evaluate(documents: Iterable[str], demand: Demand, principal: str | None = None) -> Verdict:
    """Return whether policy documents (JSON texts) allow `demand`: a Deny wins, and nothing is allowed by silence.

    With `principal` the documents are resource policies, whose statements must name it.
    """
    allowed = False
    for document in documents:
        for statement in _statements(document):
            if principal is not None and not _names_principal(statement, principal):
                continue
            if not _covers(statement, demand):
                continue
            if statement["Effect"] == "Deny":
                return Verdict(allowed=False, denied=True, because="with an explicit deny")
            allowed = True
    because = "" if allowed else f"because no identity-based policy allows the {demand.action} action"
    return Verdict(allowed, denied=False, because=because)


def policy_problems(document: JsonObject) -> Iterator[str]:
    """Yield what in a policy document the evaluation above does not know."""
    for item in _as_list(document["Statement"]):
        statement = as_object(item, "Statement")
        for operator, keys in as_object(statement.get("Condition", {}), "Condition").items():
            if operator.removesuffix(_IF_EXISTS) not in _OPERATORS:
                yield f"condition operator {operator}"
            for key in as_object(keys, operator):
                if not any(_pattern(known).fullmatch(key) for known in _CONDITION_KEYS):
                    yield f"condition key {key}"
        if "${" in json.dumps(statement):
            yield "policy variables"
        if "NotPrincipal" in statement:
            yield "NotPrincipal"


@lru_cache(maxsize=512)
def _statements(document: str) -> tuple[JsonObject, ...]:
    statements = _as_list(as_object(json.loads(document), "policy")["Statement"])
    return tuple(as_object(statement, "Statement") for statement in statements)


def _covers(statement: JsonObject, demand: Demand) -> bool:
    return (
        _selected(statement, "Action", demand.action.lower(), lower=True)
        and _selected(statement, "Resource", demand.resource)
        and _conditions_hold(as_object(statement.get("Condition", {}), "Condition"), demand.context)
    )


def _selected(statement: JsonObject, field_name: str, value: str, *, lower: bool = False) -> bool:
    negated = f"Not{field_name}" in statement
    # Trust policies have no Resource: the role itself is meant.
    patterns = _as_list(statement.get(f"Not{field_name}" if negated else field_name, "*"))
    texts = [str(pattern).lower() if lower else str(pattern) for pattern in patterns]
    return any(_pattern(text).fullmatch(value) for text in texts) is not negated


def _names_principal(statement: JsonObject, principal: str) -> bool:
    named = statement.get("Principal")
    names = (
        [named]
        if isinstance(named, str)
        else [name for kind in as_object(named, "Principal").values() for name in _as_list(kind)]
    )
    return any(name in ("*", principal) for name in names)


def _conditions_hold(conditions: JsonObject, context: Mapping[str, str]) -> bool:
    return all(
        _holds(operator, context.get(key), [str(item) for item in _as_list(expected)])
        for operator, keys in conditions.items()
        for key, expected in as_object(keys, operator).items()
    )


def _holds(operator: str, found: str | None, expected: list[str]) -> bool:
    plain = operator.removesuffix(_IF_EXISTS)
    if plain not in _OPERATORS:
        raise ValueError(f"condition operator {operator} is not supported by the rehearsal")
    if plain == "Null":
        return [str(found is None).lower()] == [text.lower() for text in expected]
    if found is None:
        return operator.endswith(_IF_EXISTS) or plain in (*_NEGATED, _FOR_ALL)
    if plain in _WITH_WILDCARDS:
        equal = any(_pattern(text).fullmatch(found) for text in expected)
    elif plain == "Bool":
        equal = found.lower() in [text.lower() for text in expected]
    else:
        equal = found in expected
    return equal is not (plain in _NEGATED)


@lru_cache(maxsize=4096)
def wildcard_pattern(text: str, wildcards: str) -> re.Pattern[str]:
    """Return the pattern of a text in which the characters of `wildcards` (* and ?) stand for others."""
    meanings = {"*": ".*", "?": "."}
    parts = [meanings[character] if character in wildcards else re.escape(character) for character in text]
    return re.compile("".join(parts), re.DOTALL)


def _pattern(text: str) -> re.Pattern[str]:
    return wildcard_pattern(text, "*?")


def _as_list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [value]
