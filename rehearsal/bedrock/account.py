"""What one account has in one Region: its resources, tags and idempotency tokens, and how they are listed in pages."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import RLock
from typing import TYPE_CHECKING, TypeVar

from customization.json_types import Json, JsonObject, as_list, as_object, as_text
from rehearsal.bedrock.errors import ServiceError, not_found, validation

if TYPE_CHECKING:
    from customization.catalogue import BaseModel
    from rehearsal.bedrock.jobs import Job
    from rehearsal.bedrock.language_model import LanguageModel

MAX_TAGS = 50
PAGE_SIZE = 100

Item = TypeVar("Item")


@dataclass(kw_only=True)
class CustomModel:
    """A custom model; `source_arn` is what it was customized from, `base` the foundation model at the root."""

    arn: str
    name: str
    base: "BaseModel"
    source_arn: str
    job: "Job"
    created: datetime
    language_model: "LanguageModel"


@dataclass(kw_only=True)
class Serving:
    """A deployment or a provisioned throughput; `ready_at` None stands for never.

    `model_arn` is a custom model's ARN, or a base model's for a throughput. While `update_ends` lies ahead requests go
    to `model_arn` still, from then on to `desired_arn` unless the update has failed.
    """

    arn: str
    name: str
    model_arn: str
    base: "BaseModel"
    created: datetime
    expected_at: datetime
    ready_at: datetime | None
    units: int = 1
    failure: str = ""
    commitment: str = ""
    description: str = ""
    desired_arn: str = ""
    update_ends: datetime | None = None
    update_fails: bool = False
    updated: datetime | None = None
    loaded: bool = False

    def is_ready(self, now: datetime) -> bool:
        return not self.failure and self.ready_at is not None and now >= self.ready_at

    def has_failed(self, now: datetime) -> bool:
        return bool(self.failure) and now >= self.expected_at

    def is_updating(self, now: datetime) -> bool:
        return self.update_ends is not None and now < self.update_ends

    def current_arn(self, now: datetime) -> str:
        is_old = self.update_ends is None or self.is_updating(now) or self.update_fails
        return self.model_arn if is_old else self.desired_arn

    def models_in_use(self, now: datetime) -> set[str]:
        return {self.current_arn(now), self.desired_arn or self.model_arn}


@dataclass
class Account:
    """`lock` guards everything here; `names_used` counts the ids made from a name, so that each is new.

    `model_units` is the quota of model units without commitment.
    """

    region: str
    number: str
    seed: int
    model_units: int = 10
    lock: RLock = field(default_factory=RLock)
    jobs: dict[str, "Job"] = field(default_factory=dict)
    models: dict[str, CustomModel] = field(default_factory=dict)
    throughputs: dict[str, Serving] = field(default_factory=dict)
    deployments: dict[str, Serving] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    tokens: dict[tuple[str, str], str] = field(default_factory=dict)
    names_used: dict[tuple[str, str], int] = field(default_factory=dict)

    def arn(self, kind: str, rest: str) -> str:
        owner = "" if kind == "foundation-model" else self.number
        return f"arn:aws:bedrock:{self.region}:{owner}:{kind}/{rest}"

    def next_id(self, kind: str, name: str) -> str:
        """Return the id, 12 characters, that the next resource of that name gets."""
        count = self.names_used.get((kind, name), 0)
        return hashlib.sha256(f"{self.seed}/{self.region}/{kind}/{name}/{count}".encode()).hexdigest()[:12]

    def take_id(self, kind: str, name: str) -> str:
        """Return the next id of that name and mark it as used."""
        identifier = self.next_id(kind, name)
        self.names_used[kind, name] = self.names_used.get((kind, name), 0) + 1
        return identifier

    def uniform(self, what: str, low: float, high: float) -> float:
        """Return a number in [low, high) that depends on the seed and `what` alone."""
        digest = hashlib.sha256(f"{self.seed}/{what}".encode()).digest()
        return low + (high - low) * int.from_bytes(digest[:8], "big") / 2**64

    def minutes(self, what: str, low: float, high: float) -> timedelta:
        """Return a duration between `low` and `high` minutes that depends on the seed and `what` alone."""
        return timedelta(minutes=self.uniform(what, low, high))

    def known_token(self, operation: str, parameters: JsonObject) -> str | None:
        """Return the ARN of what an earlier call with the same clientRequestToken made, None when there was none."""
        return self.tokens.get((operation, str(parameters.get("clientRequestToken"))))

    def remember_token(self, operation: str, parameters: JsonObject, arn: str) -> None:
        """Make later calls with the same clientRequestToken answer `arn`, even after it has been deleted."""
        if "clientRequestToken" in parameters:
            self.tokens[operation, str(parameters["clientRequestToken"])] = arn

    def find_job(self, identifier: str) -> "Job":
        """Return the job of that ARN or name; raises ServiceError (ResourceNotFoundException)."""
        return _find(self.jobs, identifier, "The provided job identifier is invalid.")

    def find_model(self, identifier: str) -> CustomModel:
        """Return the custom model of that ARN or name; raises ServiceError (ResourceNotFoundException)."""
        return _find(self.models, identifier, "The provided model identifier is invalid.")

    def find_throughput(self, identifier: str) -> Serving:
        """Return the throughput of that ARN, id or name; raises ServiceError (ResourceNotFoundException)."""
        return _find(self.throughputs, identifier, "The provided provisioned model identifier is invalid.")

    def find_deployment(self, identifier: str) -> Serving:
        """Return the deployment of that ARN, id or name; raises ServiceError (ResourceNotFoundException)."""
        return _find(self.deployments, identifier, "The provided custom model deployment identifier is invalid.")

    def tag(self, arn: str, tags: Mapping[str, str]) -> None:
        """Add tags; raises ServiceError (TooManyTagsException) above 50, Bedrock's limit for one resource."""
        merged = {**self.tags.get(arn, {}), **tags}
        if len(merged) > MAX_TAGS:
            raise ServiceError(
                "TooManyTagsException", f"A resource has at most {MAX_TAGS} tags; this one would have {len(merged)}."
            )
        self.tags[arn] = merged


_Named = TypeVar("_Named", "Job", CustomModel, Serving)


def _find(resources: dict[str, _Named], identifier: str, otherwise: str) -> _Named:
    found = resources.get(identifier)
    if found:
        return found
    for arn, resource in resources.items():
        if identifier in {resource.name, arn.rsplit("/", 1)[-1]}:
            return resource
    raise not_found(otherwise)


def tag_list(value: Json) -> dict[str, str]:
    """Return the tags of a request's list of {key, value}."""
    entries = [as_object(entry, "tag") for entry in as_list(value or [], "tags")]
    return {as_text(entry["key"], "key"): as_text(entry["value"], "value") for entry in entries}


def timestamp(moment: datetime | None) -> str | None:
    """Return ISO 8601 as Bedrock writes it, None for None."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else None


def page(
    items: Sequence[Item],
    parameters: JsonObject,
    created: Callable[[Item], datetime],
    describe: Callable[[Item], JsonObject],
    key: str,
) -> JsonObject:
    """Return one page of `items` under `key`, sorted by creation time, newest first unless asked otherwise.

    Raises ServiceError (ValidationException) for a nextToken that no earlier page gave.
    """
    after, before = (_moment(parameters, name) for name in (("After"), ("Before")))
    kept = [item for item in items if (not after or created(item) > after) and (not before or created(item) < before)]
    kept.sort(key=created, reverse=parameters.get("sortOrder") != "Ascending")
    start = _offset(parameters.get("nextToken"))
    size = parameters.get("maxResults")
    end = start + (size if isinstance(size, int) else PAGE_SIZE)
    token = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(kept) else None
    return {key: [describe(item) for item in kept[start:end]], "nextToken": token}


def _moment(parameters: JsonObject, which: str) -> datetime | None:
    text = parameters.get(f"creationTime{which}") or parameters.get(f"created{which}")
    if not isinstance(text, str):
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _offset(token: object) -> int:
    if token is None:
        return 0
    try:
        return int(base64.urlsafe_b64decode(str(token)))
    except ValueError:
        raise validation("The provided nextToken is invalid.") from None
