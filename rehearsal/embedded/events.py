"""EventBridge: rules, schedules, and deliveries of which none is lost without somebody seeing it."""

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from customization.json_types import Json, JsonObject
from rehearsal.clock import VirtualClock
from rehearsal.embedded.access import Access, AccessDeniedError
from rehearsal.embedded.deployed import Deployed, Rule, Target
from rehearsal.embedded.event_patterns import matches, pattern_problems, target_input
from rehearsal.embedded.lambda_runtime import Function, LambdaRuntime, ThrottledError
from rehearsal.embedded.policies import Demand, evaluate
from rehearsal.embedded.states.expressions import encode
from rehearsal.embedded.states.history import Happening, Watcher
from rehearsal.embedded.states_api import StatesApi, StatesError
from rehearsal.embedded.template_check import UnsupportedTemplateError

_RETRY_SECONDS = (60, 120)  # Lambda guide, "How Lambda handles errors and retries with asynchronous invocation"
_LONGEST_ERROR = 1024
_UNITS = {"minute": 60, "minutes": 60, "hour": 3600, "hours": 3600, "day": 86400, "days": 86400}


class DeliveryError(Exception):
    """A target did not take an event."""


@dataclass(frozen=True)
class Delivery:
    """What deliveries need; `send_message` puts a text and its attributes into a queue, `problem` tells people."""

    access: Access
    runtime: LambdaRuntime
    states: StatesApi
    send_message: Callable[[str, str, Mapping[str, str]], None]
    watch: Watcher
    problem: Callable[[str], None]


class EventBus:
    """The default event bus."""

    def __init__(self, clock: VirtualClock, deployed: Deployed, delivery: Delivery) -> None:
        self._clock = clock
        self._deployed = deployed
        self._delivery = delivery
        self._targets: dict[str, Callable[[Rule, Target, JsonObject], None]] = {
            "states": self._start_execution,
            "lambda": self._call_function,
            "sqs": self._send_to_queue,
        }

    def add(self, rule: Rule) -> None:
        """Take a new rule in; raises UnsupportedTemplateError for what is not built."""
        problems = [] if rule.pattern is None else list(pattern_problems(rule.pattern))
        problems += [f"event target {t.arn}" for t in rule.targets if t.arn.split(":")[2] not in self._targets]
        if problems:
            raise UnsupportedTemplateError(f"{rule.name}: " + ", ".join(problems))
        if rule.schedule is not None:
            self._clock.every(_interval(rule), lambda: self._fire(rule))

    def event(self, source: str, detail_type: str, resources: list[str], detail: JsonObject) -> JsonObject:
        """Return an event of an AWS service as of now."""
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": detail_type,
            "source": source,
            "account": self._deployed.place.account,
            "time": self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": self._deployed.place.region,
            "resources": [*resources],
            "detail": detail,
        }

    def publish(self, event: JsonObject) -> None:
        """Deliver an event to the targets of every rule that matches it, each in a thread of its own."""
        for rule in list(self._deployed.rules.values()):
            if rule.enabled and rule.pattern is not None and matches(rule.pattern, event):
                self._deliver(rule, event)

    def names_of_rules(self, target: str) -> list[str]:
        """Return the names of the rules that have a target, by its ARN."""
        rules = self._deployed.rules.values()
        return [rule.name for rule in rules if target in (known.arn for known in rule.targets)]

    def is_enabled(self, name: str) -> bool:
        """Return whether a rule delivers events."""
        return self._deployed.rules[self._arn(name)].enabled

    def switch(self, name: str, *, enabled: bool) -> None:
        """Let a rule deliver events, or none."""
        arn = self._arn(name)
        self._deployed.rules[arn] = replace(self._deployed.rules[arn], enabled=enabled)
        self.add(self._deployed.rules[arn])

    def _arn(self, name: str) -> str:
        return self._deployed.place.arn("events", f"rule/{name}")

    def _fire(self, rule: Rule) -> None:
        # A rule that has been changed since has a schedule of its own
        if rule.enabled and self._deployed.rules.get(rule.arn) is rule:
            self._deliver(rule, self.event("aws.events", "Scheduled Event", [rule.arn], {}))

    def _deliver(self, rule: Rule, event: JsonObject) -> None:
        for target in rule.targets:
            self._clock.spawn(lambda target=target: self._deliver_one(rule, target, event), rule.name)  # type: ignore[misc]  # mypy infers no type for it

    def _deliver_one(self, rule: Rule, target: Target, event: JsonObject) -> None:
        detail: JsonObject = {"target": target.arn, "event": event}
        try:
            self._targets[target.arn.split(":")[2]](rule, target, event)
        except (DeliveryError, AccessDeniedError) as error:
            self._delivery.problem(f"the rule {rule.name} could not deliver to {target.arn}: {error}")
            self._dead_letter(rule, target, event, str(error))
            detail["error"] = str(error)
        self._delivery.watch(Happening(self._clock.now(), "event-delivered", rule.name, "", detail))

    def _dead_letter(self, rule: Rule, target: Target, event: JsonObject, problem: str) -> None:
        # EventBridge guide, "Using dead-letter queues to process undelivered events"
        told = {"RULE_ARN": rule.arn, "TARGET_ARN": target.arn, "ERROR_MESSAGE": problem}
        if target.dead_letter_arn is not None:
            try:
                self._put_into_queue(rule, target.dead_letter_arn, event, told)
            except DeliveryError as error:
                self._delivery.problem(f"the event is lost: {error}")

    def _start_execution(self, rule: Rule, target: Target, event: JsonObject) -> None:
        if target.role_arn is None:
            raise DeliveryError("the target has no role")
        session = self._delivery.access.session(target.role_arn, rule.name[:64], "events", rule.arn)
        self._delivery.access.require(session, [Demand("states:StartExecution", target.arn)])
        name = f"{event['id']}_{uuid.uuid4()}"
        try:
            self._delivery.states.start(target.arn, name, encode(target_input(target.settings, event)))
        except StatesError as error:
            raise DeliveryError(f"{error.code}: {error}") from error

    def _call_function(self, rule: Rule, target: Target, event: JsonObject) -> None:
        function = self._deployed.function(target.arn)
        if function is None:
            raise DeliveryError("there is no such function")
        if not any(
            permission.function_arn == target.arn
            and permission.principal == "events.amazonaws.com"
            and permission.source_arn in (None, rule.arn)
            for permission in self._deployed.permissions
        ):
            raise DeliveryError("the function's policy does not let the rule call it")
        self.call_later(function, target_input(target.settings, event))

    def call_later(self, function: Function, payload: Json) -> None:
        """Call a function asynchronously: with Lambda's two retries, then its dead-letter queue or destination."""
        settings = self._deployed.async_settings[function.arn.removesuffix(f":{function.version}")]
        failure = ""
        for attempt in range(settings.retries + 1):
            if attempt:
                self._clock.sleep(_RETRY_SECONDS[attempt - 1])
            try:
                answer = self._delivery.runtime.invoke(function, payload)
            except ThrottledError as error:
                failure = str(error)
                continue
            if not answer.failed:
                return
            failure = answer.payload
        self._delivery.problem(f"{function.label} failed {settings.retries + 1} times: {failure}")
        if settings.failed_arn is not None:
            session = self._delivery.access.session(function.role_arn, function.name, "lambda", function.arn)
            self._delivery.access.require(session, [Demand("sqs:SendMessage", settings.failed_arn)])
            # Lambda guide, "Adding a dead-letter queue": the attributes of the message
            told = {"ErrorCode": "200", "ErrorMessage": failure[:_LONGEST_ERROR]}
            self._delivery.send_message(settings.failed_arn, json.dumps(payload), told)

    def _send_to_queue(self, rule: Rule, target: Target, event: JsonObject) -> None:
        self._put_into_queue(rule, target.arn, target_input(target.settings, event), {})

    def _put_into_queue(self, rule: Rule, queue_arn: str, message: Json, attributes: Mapping[str, str]) -> None:
        policy = self._deployed.queue_policies.get(queue_arn)
        context = {"aws:SourceArn": rule.arn, "aws:SecureTransport": "true"}
        demand = Demand("sqs:SendMessage", queue_arn, context)
        if policy is None or not evaluate([policy], demand, "events.amazonaws.com").allowed:
            raise DeliveryError(f"the policy of the queue {queue_arn} does not let the rule {rule.name} send")
        self._delivery.send_message(queue_arn, encode(message), attributes)


def _interval(rule: Rule) -> timedelta:
    words = str(rule.schedule).removeprefix("rate(").removesuffix(")").split()
    if len(words) != 2 or words[1] not in _UNITS:  # noqa: PLR2004  rate(value unit)
        raise UnsupportedTemplateError(f"{rule.name}: schedule {rule.schedule}; only rate(...) is built")
    return timedelta(seconds=int(words[0]) * _UNITS[words[1]])
