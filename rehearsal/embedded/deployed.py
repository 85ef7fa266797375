"""What the deployed templates ask for and the embedded AWS acts upon itself, beside what moto keeps."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from customization.json_types import Json, JsonObject, as_list, as_object, as_text
from rehearsal.embedded.authorization import Place
from rehearsal.embedded.lambda_runtime import Function
from rehearsal.embedded.states.machines import Machine


@dataclass(frozen=True)
class Target:
    arn: str
    role_arn: str | None
    dead_letter_arn: str | None
    settings: JsonObject


@dataclass(frozen=True)
class Rule:
    name: str
    arn: str
    pattern: JsonObject | None
    schedule: str | None
    enabled: bool
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class Permission:
    """A statement of a function's own policy."""

    function_arn: str
    principal: str
    source_arn: str | None


@dataclass(frozen=True)
class AsyncSettings:
    """What happens when an asynchronous call fails."""

    retries: int = 2  # Lambda's default
    failed_arn: str | None = None


@dataclass
class Deployed:
    """Everything by its ARN or, for buckets, by its name; `code` finds the folder of a function's code."""

    place: Place
    code: Callable[[str, str], Path]
    functions: dict[str, Function] = field(default_factory=dict)
    async_settings: dict[str, AsyncSettings] = field(default_factory=dict)
    permissions: list[Permission] = field(default_factory=list)
    machines: dict[str, Machine] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    event_buckets: set[str] = field(default_factory=set)
    bucket_policies: dict[str, str] = field(default_factory=dict)
    queue_policies: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    on_rule: Callable[[Rule], None] = lambda _: None

    def function(self, name_or_arn: str) -> Function | None:
        """Return a function by name, name:version or ARN; None when there is none."""
        arn = name_or_arn if name_or_arn.startswith("arn:") else self.place.arn("lambda", f"function:{name_or_arn}")
        return self.functions.get(arn.removesuffix(":$LATEST"))

    def add_function(self, name: str, arn: str, properties: JsonObject) -> None:
        """Record a function from its resolved template properties."""
        environment = as_object(as_object(properties.get("Environment", {}), name).get("Variables", {}), name)
        code = as_object(properties["Code"], name)
        logging = as_object(properties.get("LoggingConfig", {}), name)
        self.functions[arn] = Function(
            name=name,
            version="$LATEST",
            arn=arn,
            runtime=as_text(properties["Runtime"], name),
            handler=as_text(properties["Handler"], name),
            root=self.code(as_text(code["S3Bucket"], name), as_text(code["S3Key"], name)),
            environment=tuple((key, str(value)) for key, value in environment.items()),
            role_arn=as_text(properties["Role"], name),
            timeout_seconds=int(str(properties.get("Timeout", 3))),
            memory_mb=int(str(properties.get("MemorySize", 128))),
            log_group=str(logging.get("LogGroup", f"/aws/lambda/{name}")),
        )
        queue = as_object(properties.get("DeadLetterConfig", {}), name).get("TargetArn")
        self.async_settings[arn] = AsyncSettings(failed_arn=None if queue is None else str(queue))


def rule_from(name: str, place: Place, properties: JsonObject) -> Rule:
    """Return a rule from its resolved template properties."""
    pattern, schedule = properties.get("EventPattern"), properties.get("ScheduleExpression")
    return Rule(
        name=name,
        arn=place.arn("events", f"rule/{name}"),
        pattern=None if pattern is None else as_object(pattern, name),
        schedule=None if schedule is None else as_text(schedule, name),
        enabled=properties.get("State", "ENABLED") == "ENABLED",
        targets=tuple(_target(item) for item in as_list(properties.get("Targets", []), name)),
    )


def _target(item: Json) -> Target:
    settings = as_object(item, "Targets")
    queue = as_object(settings.get("DeadLetterConfig", {}), "DeadLetterConfig").get("Arn")
    role = settings.get("RoleArn")
    return Target(
        arn=as_text(settings["Arn"], "Arn"),
        role_arn=None if role is None else str(role),
        dead_letter_arn=None if queue is None else str(queue),
        settings=settings,
    )
