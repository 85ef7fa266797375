"""What stays after a run is what somebody asked for, and a parameter never points at something gone."""

import json
from datetime import timedelta

import msgspec
import pytest

from customization import leases, promotion
from customization.leases import Lease
from customization.runs import Call, Plan
from tests.unit.fakes import NOW, BedrockInMemory, GatewayInMemory

JOB = "dev-0a1b2c3d-aaaaaaaaaa-1"
SERVED = "dev-0a1b2c3d-support-0123456789"
PARAMETER = "/dev/0a1b2c3d/datasets/support/model"


@pytest.fixture
def trained(claimed: GatewayInMemory, bedrock: BedrockInMemory, call: Call) -> GatewayInMemory:
    """The gateway after a run has trained a model and serves it."""
    claimed.runs.update(call.run_id, {"jobName0": JOB, "verdict": "better"})
    bedrock.models |= {JOB, f"arn:model/{JOB}"}
    tags = {"deployment": "0a1b2c3d"}
    bedrock.serve(mode="on-demand", name=SERVED, model_arn=f"arn:model/{JOB}", tags=tags, units=1, token=SERVED)
    for name, kind in ((f"{JOB}{leases.MODEL_SUFFIX}", leases.MODEL), (SERVED, "on-demand")):
        leases.open_lease(
            claimed,
            Lease(
                resource_name=name,
                kind=kind,
                run_id=call.run_id,
                dataset="support",
                execution_arn=call.execution_arn,
                opened_at=NOW,
                hard_end=NOW + timedelta(days=30),
                keep_until=NOW + leases.MODEL_RETENTION if kind == leases.MODEL else None,
            ),
        )
    return claimed


def lease(gateway: GatewayInMemory, name: str) -> Lease:
    return msgspec.convert(gateway.leases.get(name), Lease)


def parameter(gateway: GatewayInMemory) -> object:
    value = gateway.parameter(PARAMETER)
    return None if value is None else json.loads(value)


def test_what_served_an_evaluation_is_gone_after_it(
    trained: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    promotion.release_serving(trained, plan, call)
    assert bedrock.serving == {}
    assert lease(trained, SERVED).state == "CLOSED"


def test_kept_serving_has_an_end(trained: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call) -> None:
    promotion.release_serving(trained, msgspec.structs.replace(plan, keep=6.0), call)
    assert SERVED in bedrock.serving
    assert lease(trained, SERVED).keep_until == NOW + timedelta(hours=6)


@pytest.mark.parametrize(
    ("keep_model", "verdict", "days"),
    [
        ("never", "better", 0),
        ("if-better", "worse", 0),
        ("if-better", "inconclusive", 14),
        ("if-better", "better", 3650),
        ("if-better", "not compared", 3650),
        ("always", "worse", 3650),
    ],
)
def test_a_model_stays_as_long_as_request_and_verdict_say(
    trained: GatewayInMemory,
    bedrock: BedrockInMemory,
    plan: Plan,
    call: Call,
    keep_model: str,
    verdict: str,
    days: int,
) -> None:
    trained.runs.update(call.run_id, {"verdict": verdict})
    promotion.release_model(trained, msgspec.structs.replace(plan, keep_model=keep_model), call)
    kept = lease(trained, f"{JOB}{leases.MODEL_SUFFIX}")
    assert (JOB in bedrock.models) is (days > 0)
    assert kept.state == ("OPEN" if days else "CLOSED")
    if days:
        assert kept.keep_until == NOW + timedelta(days=days)


def test_a_promoted_model_that_is_kept_served_is_named_with_its_end(
    trained: GatewayInMemory, plan: Plan, call: Call
) -> None:
    kept = msgspec.structs.replace(plan, keep=6.0)
    arn = "arn:aws:bedrock:us-east-1:123456789012:served/x"
    promotion.promote(trained, kept, call, serving_arn=arn, model_arn=f"arn:model/{JOB}")
    assert parameter(trained) == {"arn": arn, "until": (NOW + timedelta(hours=6)).isoformat()}


def test_a_promoted_model_that_is_not_kept_served_is_named_itself(
    trained: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    promotion.promote(trained, plan, call, serving_arn="arn:served", model_arn=f"arn:model/{JOB}")
    promotion.release_serving(trained, plan, call)
    assert parameter(trained) == {"arn": f"arn:model/{JOB}", "until": None}
    assert f"arn:model/{JOB}" in bedrock.models


def test_a_parameter_is_removed_before_what_it_names_and_people_are_told(
    trained: GatewayInMemory, plan: Plan, call: Call
) -> None:
    kept = msgspec.structs.replace(plan, keep=6.0)
    promotion.promote(trained, kept, call, serving_arn="arn:served", model_arn=f"arn:model/{JOB}")
    promotion.withdraw(trained, lease(trained, SERVED), NOW + timedelta(hours=6))
    assert parameter(trained) is None
    assert len(trained.published) == 1


def test_the_previous_living_model_takes_the_place_of_one_that_goes(
    trained: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    bedrock.models.add("arn:model/older")
    older = msgspec.structs.replace(plan, run_id="support-9999999999")
    promotion.promote(trained, older, call, serving_arn="", model_arn="arn:model/older")
    kept = msgspec.structs.replace(plan, keep=6.0)
    promotion.promote(trained, kept, call, serving_arn="arn:served", model_arn=f"arn:model/{JOB}")
    promotion.withdraw(trained, lease(trained, SERVED), NOW + timedelta(hours=6))
    assert parameter(trained) == {"arn": "arn:model/older", "until": None}
    assert "is in use again" in trained.published[0][1]


def test_another_runs_lease_does_not_withdraw_the_model_in_use(
    trained: GatewayInMemory, plan: Plan, call: Call
) -> None:
    promotion.promote(trained, plan, call, serving_arn="", model_arn=f"arn:model/{JOB}")
    other = msgspec.structs.replace(lease(trained, SERVED), run_id="support-9999999999")
    promotion.withdraw(trained, other, NOW)
    assert parameter(trained) is not None


def test_everything_kept_for_a_data_set_can_be_released_at_once(
    trained: GatewayInMemory, bedrock: BedrockInMemory, call: Call
) -> None:
    trained.executions[call.execution_arn] = "SUCCEEDED"
    released = promotion.release_dataset(trained, "support", NOW)["released"]
    assert isinstance(released, list)
    assert len(released) == 2
    assert bedrock.serving == {}
    assert JOB not in bedrock.models
