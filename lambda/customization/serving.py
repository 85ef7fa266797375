"""Serving a custom model through an on-demand deployment or a provisioned throughput, created once for each run."""

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from customization import budget, leases, quota_queue
from customization.errors import Conflict, QuotaUnavailable, RequestRejected, ServingFailed
from customization.gateway.bedrock import ON_DEMAND, ServedModel
from customization.identity import request_token, resource_tags, serving_name
from customization.json_types import JsonObject
from customization.leases import Lease
from customization.money import hourly_serving_usd
from customization.runs import Call, Plan, note

if TYPE_CHECKING:
    from customization.gateway import Gateway

POLL_SECONDS = 60
# A deployment takes about 8 minutes, a throughput somewhat longer; what is not ready after this never will be.
READY_WITHIN = timedelta(hours=3)
# stacks/triggers.py calls the sweeper so often
SWEEP_INTERVAL = timedelta(minutes=15)
# What serves an evaluation goes after this, whatever the budget would pay.
LONGEST_EVALUATION = timedelta(hours=24)


def create_serving(gateway: "Gateway", plan: Plan, call: Call, model_arn: str, *, entered_at: str) -> JsonObject:
    """Serve the custom model and return {servingArn, status, waitSeconds}; a repeated call adopts what is there.

    `entered_at` is when the state was entered: what all retries of one entry send, so that they create one thing.

    Raises:
        QuotaUnavailable: the account has no room for another one, or other runs wait longer for the next.
        ServingFailed: another model is served under this run's name.
    """
    wanted = quota_queue.DEPLOYMENT if plan.serving_mode == ON_DEMAND else quota_queue.MODEL_UNITS
    name = _choose(gateway, plan, call, model_arn)
    served = _existing(gateway, plan, call, name, model_arn)
    with quota_queue.turn(gateway, call, wanted, is_there=served is not None):
        budget.renew(gateway, plan, call)
        if served is None:
            leases.open_lease(gateway, _lease(gateway, plan, call, name, None))
            token = _token(gateway, plan, call, name, entered_at)
            served = _create(gateway, plan, call, name, model_arn, token=token)
        leases.open_lease(gateway, _lease(gateway, plan, call, name, served))
    return {"servingArn": served.arn, "status": served.status, "waitSeconds": POLL_SECONDS}


def _choose(gateway: "Gateway", plan: Plan, call: Call, model_arn: str) -> str:
    """Return the name that this attempt serves the model under: the first that is free or serves it already."""
    recorded = (gateway.runs.get(plan.run_id) or {}).get("servingName")
    if recorded:
        return str(recorded)
    number = 1
    while True:
        name = serving_name(gateway.settings.name_prefix, plan.run_id, number)
        served = gateway.bedrock.served(plan.serving_mode, name)
        if served is None or served.model_arn == model_arn:
            break
        number += 1
    note(gateway, call, {"servingName": name})
    return name


def _lease(gateway: "Gateway", plan: Plan, call: Call, name: str, served: ServedModel | None) -> Lease:
    hourly = hourly_serving_usd(plan.base_model_identifier, plan.serving_mode, plan.model_units, plan.region, call.now)
    hard_end = call.now + LONGEST_EVALUATION
    if hourly:
        hard_end = _paid_until(gateway, plan, call, hourly, served)
    return Lease(
        resource_name=name,
        kind=plan.serving_mode,
        run_id=plan.run_id,
        dataset=plan.dataset,
        execution_arn=call.execution_arn,
        opened_at=call.now,
        hard_end=hard_end,
        arn=served.arn if served else "",
        created_at=served.created if served else None,
        hourly_usd=hourly,
    )


def _paid_until(gateway: "Gateway", plan: Plan, call: Call, hourly_usd: float, served: ServedModel | None) -> datetime:
    """Return until when the budget pays for what bills by the hour: one hour before it is there, then what is left.

    Whoever waits in line for a quota thus reserves no more than the estimate. What an earlier attempt had made counts
    from this one's start.
    """
    if served is None:
        return call.now + timedelta(hours=1) - SWEEP_INTERVAL
    most = math.ceil((LONGEST_EVALUATION + (leases.kept_for(plan) or timedelta(0))) / timedelta(hours=1))
    hours = budget.reserve_hours(gateway, plan, call, hourly_usd, most)
    # The sweep after the end must not come in an hour that nobody pays for
    return max(served.created, plan.started_at) + timedelta(hours=hours) - SWEEP_INTERVAL


def _existing(gateway: "Gateway", plan: Plan, call: Call, name: str, model_arn: str) -> ServedModel | None:
    """Return what this run already serves; what failed is removed so that it can be made anew."""
    served = gateway.bedrock.served(plan.serving_mode, name)
    if served is None:
        return None
    if served.model_arn != model_arn:
        raise ServingFailed.of("error.servesOther", name=name, found=served.model_arn, expected=model_arn)
    if served.status != "Failed":
        return served
    note(gateway, call, {"servingFailed": served.arn})
    gateway.bedrock.stop_serving(plan.serving_mode, served.arn)
    return None


def _token(gateway: "Gateway", plan: Plan, call: Call, name: str, entered_at: str) -> str:
    """Return the same token for all retries of a state, but another once what failed has been removed.

    For a token that it has seen Bedrock answers with what it created then, though that is gone.
    """
    failed = (gateway.runs.get(plan.run_id) or {}).get("servingFailed")
    return request_token(name, call.attempt, entered_at, str(failed or ""))


def _create(gateway: "Gateway", plan: Plan, call: Call, name: str, model_arn: str, *, token: str) -> ServedModel:
    try:
        gateway.bedrock.serve(
            mode=plan.serving_mode,
            name=name,
            model_arn=model_arn,
            tags=resource_tags(
                gateway.settings.stage, gateway.settings.deployment_id, plan.run_id, plan.dataset, plan.tags
            ),
            units=plan.model_units,
            token=token,
        )
    except QuotaUnavailable as error:
        raise QuotaUnavailable.of(
            "error.servingQuota", terms=_what(plan), model=plan.base_model_identifier, reason=str(error)
        ) from error
    except (Conflict, RequestRejected) as error:
        # A throughput has no conflict error of its own: only looking tells whether an earlier call had made it.
        served = _existing(gateway, plan, call, name, model_arn)
        if served is None:
            raise ServingFailed.of("error.servingRefused", terms=_what(plan), name=name, reason=str(error)) from error
        return served
    served = gateway.bedrock.served(plan.serving_mode, name)
    if served is None:
        raise ServingFailed.of("error.servingVanished", terms=_what(plan), name=name)
    return served


def _what(plan: Plan) -> dict[str, str]:
    return {"what": f"resourceKind.{plan.serving_mode}"}


def poll_serving(gateway: "Gateway", plan: Plan, call: Call, serving_arn: str) -> JsonObject:
    """Return {status, waitSeconds} of what is being made ready.

    Raises:
        ServingFailed: it failed, vanished, or was not ready within three hours.
    """
    served = gateway.bedrock.served(plan.serving_mode, serving_arn)
    if served is None:
        raise ServingFailed.of("error.servingGone", terms=_what(plan), name=serving_arn)
    if served.status == "Failed":
        if served.failure_message:
            raise ServingFailed.of(
                "error.servingFailed", terms=_what(plan), name=served.name, reason=served.failure_message
            )
        raise ServingFailed.of("error.servingFailedSilently", terms=_what(plan), name=served.name)
    if not served.is_ready and call.now - served.created > READY_WITHIN:
        raise ServingFailed.of(
            "error.servingLate",
            terms=_what(plan),
            name=served.name,
            status=served.status,
            since=f"{served.created:%Y-%m-%d %H:%M}",
            limit=str(READY_WITHIN),
        )
    return {"status": served.status, "waitSeconds": POLL_SECONDS}
