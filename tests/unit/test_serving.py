"""One deployment or throughput for each run, whatever is retried."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from customization import serving
from customization.errors import QuotaUnavailable, RequestRejected, ServingFailed
from customization.leases import Lease
from customization.runs import Call, Plan
from tests.unit.fakes import NOW, BedrockInMemory, GatewayInMemory, settled

MODEL = "arn:model"
ENTERED = NOW.isoformat()


@pytest.fixture(params=["on-demand", "provisioned"])
def either(plan: Plan, request: pytest.FixtureRequest) -> Plan:
    return msgspec.structs.replace(plan, serving_mode=request.param)


def test_a_retry_of_the_state_creates_nothing_twice(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, either: Plan, call: Call
) -> None:
    first = serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)
    assert serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED) == first
    assert len(bedrock.created) == 1


def test_retries_of_one_entry_into_the_state_create_by_one_token_and_another_entry_by_its_own(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, either: Plan, call: Call
) -> None:
    for minutes, entered in ((0, ENTERED), (5, ENTERED), (60, "later")):
        now = NOW + timedelta(minutes=minutes)
        with suppress(ServingFailed):  # the second creates nothing, and finds nothing
            serving.create_serving(claimed, either, replace(call, now=now), MODEL, entered_at=entered)
        bedrock.serving.clear()  # as if each answer were lost, and Bedrock did not know the name yet
    first, retried, redriven = bedrock.tokens
    assert first == retried != redriven


def test_the_lease_knows_what_was_made_by_its_arn_since_names_can_be_changed(
    claimed: GatewayInMemory, either: Plan, call: Call
) -> None:
    for _ in range(2):
        arn = serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)["servingArn"]
        lease = claimed.leases.get("dev-0a1b2c3d-support-0123456789")
        assert lease is not None
        assert lease["arn"] == arn


def test_the_lease_is_written_before_anything_is_created(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, either: Plan, call: Call
) -> None:
    bedrock.refusals.append(QuotaUnavailable("no commitment model units reserved"))
    with pytest.raises(QuotaUnavailable, match="no commitment model units"):
        serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)
    lease = claimed.leases.get("dev-0a1b2c3d-support-0123456789")
    assert lease is not None
    assert lease["state"] == "OPEN"


SERVED = "dev-0a1b2c3d-support-0123456789"
MONTH = "month#2026-11"


def hours_paid(gateway: GatewayInMemory) -> object:
    """Return the hours until the hard end of what serves the model, as the lease has it."""
    lease = msgspec.convert(gateway.leases.get(SERVED), Lease)
    return (lease.hard_end - NOW) / timedelta(hours=1)


@pytest.fixture
def titan(claimed: GatewayInMemory, plan: Plan, call: Call) -> Plan:
    """A run that may spend 71 USD and has reserved 20 for training and answers, and 7.10 for an hour of serving."""
    claimed.runs.update(call.run_id, {"month": MONTH, "estimatedUsd": 27.1, "servingUsd": 7.1, "reservedUsd": 27.1})
    claimed.runs.put({"runId": MONTH, "committedUsd": 27.1, f"reserved#{call.run_id}#1": 27.1})
    identifier = "amazon.titan-text-lite-v1:0:4k"
    return msgspec.structs.replace(plan, serving_mode="provisioned", base_model_identifier=identifier, budget_usd=71.0)


@pytest.mark.parametrize(("committed", "hours", "together"), [(27.1, 6.75, 69.7), (190, 1.75, 197.1), (200, 0.75, 200)])
def test_a_throughput_stands_no_longer_than_the_run_and_the_month_have_reserved(
    claimed: GatewayInMemory, titan: Plan, call: Call, committed: float, hours: float, together: float
) -> None:
    claimed.runs.update(MONTH, {"committedUsd": committed})
    serving.create_serving(claimed, titan, call, MODEL, entered_at=ENTERED)
    # 51 USD are left of the run's beside training and answers: 7 hours, and the last sweep in them
    assert hours_paid(claimed) == hours
    assert (claimed.runs.get(MONTH) or {})["committedUsd"] == pytest.approx(together)


def test_a_retry_moves_no_end_and_reserves_nothing_twice(claimed: GatewayInMemory, titan: Plan, call: Call) -> None:
    for minutes in (0, 90):
        later = replace(call, now=NOW + timedelta(minutes=minutes))
        serving.create_serving(claimed, titan, later, MODEL, entered_at=ENTERED)
        assert hours_paid(claimed) == 6.75
        assert (claimed.runs.get(MONTH) or {})["committedUsd"] == pytest.approx(69.7)


def test_a_redriven_run_reserves_again_before_it_asks_a_model_that_is_served_already(
    claimed: GatewayInMemory, either: Plan, call: Call
) -> None:
    serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)
    month = settled(claimed, call.run_id, reserved_usd=12.5)
    serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)
    assert (claimed.runs.get(month) or {})["committedUsd"] == 12.5


def test_whoever_waits_in_line_for_a_throughput_reserves_no_more_than_the_estimate(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, titan: Plan, call: Call
) -> None:
    bedrock.refusals.append(QuotaUnavailable("no commitment model units reserved"))
    with pytest.raises(QuotaUnavailable):
        serving.create_serving(claimed, titan, call, MODEL, entered_at=ENTERED)
    assert (claimed.runs.get(MONTH) or {})["committedUsd"] == pytest.approx(27.1)


def test_no_evaluation_stands_for_more_than_a_day_whatever_its_budget(
    claimed: GatewayInMemory, titan: Plan, call: Call
) -> None:
    claimed.runs.update(MONTH, {"committedUsd": -1000})
    rich = msgspec.structs.replace(titan, budget_usd=1000.0)
    serving.create_serving(claimed, rich, call, MODEL, entered_at=ENTERED)
    assert hours_paid(claimed) == 23.75


def test_what_failed_is_made_anew(claimed: GatewayInMemory, bedrock: BedrockInMemory, either: Plan, call: Call) -> None:
    serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)
    name = next(iter(bedrock.serving))
    bedrock.serving[name] = msgspec.structs.replace(bedrock.serving[name], status="Failed")
    serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)
    assert bedrock.serving[name].status == "Creating"
    first, anew = bedrock.tokens
    assert first != anew


def test_another_model_under_the_runs_name_is_never_asked(claimed: GatewayInMemory, either: Plan, call: Call) -> None:
    serving.create_serving(claimed, either, call, "arn:another", entered_at=ENTERED)
    with pytest.raises(ServingFailed, match="arn:another"):
        serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)


def test_a_refused_creation_fails_with_what_aws_said(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, either: Plan, call: Call
) -> None:
    bedrock.refusals.append(RequestRejected("The model is not Active"))
    with pytest.raises(ServingFailed, match="not Active"):
        serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)


def test_a_failed_one_ends_the_run_with_bedrocks_reason(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, either: Plan, call: Call
) -> None:
    arn = str(serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)["servingArn"])
    name = next(iter(bedrock.serving))
    bedrock.serving[name] = msgspec.structs.replace(
        bedrock.serving[name], status="Failed", failure_message="No capacity"
    )
    with pytest.raises(ServingFailed, match="No capacity"):
        serving.poll_serving(claimed, either, call, arn)


def test_one_that_stays_in_creating_is_given_up(claimed: GatewayInMemory, either: Plan, call: Call) -> None:
    arn = str(serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)["servingArn"])
    assert serving.poll_serving(claimed, either, call, arn)["status"] == "Creating"
    with pytest.raises(ServingFailed, match="is Creating since"):
        serving.poll_serving(claimed, either, replace(call, now=NOW + timedelta(hours=4)), arn)


def test_one_that_somebody_deleted_ends_the_run(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, either: Plan, call: Call
) -> None:
    arn = str(serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)["servingArn"])
    bedrock.serving.clear()
    with pytest.raises(ServingFailed, match="somebody deleted it"):
        serving.poll_serving(claimed, either, call, arn)


def claim_again(gateway: GatewayInMemory, call: Call) -> Call:
    """Let a second attempt own the run and return its call."""
    gateway.runs.put({"runId": call.run_id, "executionArn": "arn:again", "attempt": 2, "state": "RUNNING"})
    return replace(call, attempt=2, execution_arn="arn:again")


def test_another_attempt_serves_its_model_beside_what_an_earlier_one_has_kept(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, either: Plan, call: Call
) -> None:
    serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)
    second = claim_again(claimed, call)
    again = msgspec.structs.replace(either, attempt=2, force=True)
    first = serving.create_serving(claimed, again, second, "arn:another-model", entered_at=ENTERED)
    assert serving.create_serving(claimed, again, second, "arn:another-model", entered_at=ENTERED) == first
    assert sorted(item.model_arn for item in bedrock.serving.values()) == ["arn:another-model", MODEL]
    kept = claimed.leases.get("dev-0a1b2c3d-support-0123456789")
    assert kept is not None
    assert kept["executionArn"] == call.execution_arn


def test_another_attempt_adopts_what_an_earlier_one_has_had_made_for_the_same_model(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, either: Plan, call: Call
) -> None:
    serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)
    second = claim_again(claimed, call)
    serving.create_serving(claimed, msgspec.structs.replace(either, attempt=2), second, MODEL, entered_at=ENTERED)
    assert len(bedrock.created) == 1
    taken_over = claimed.leases.get("dev-0a1b2c3d-support-0123456789")
    assert taken_over is not None
    assert taken_over["executionArn"] == second.execution_arn


def test_a_lease_tells_when_bedrock_created_what_bills(claimed: GatewayInMemory, either: Plan, call: Call) -> None:
    serving.create_serving(claimed, either, call, MODEL, entered_at=ENTERED)
    # The same state again, an hour later, finds what it has made
    serving.create_serving(claimed, either, replace(call, now=NOW + timedelta(hours=1)), MODEL, entered_at=ENTERED)
    lease = claimed.leases.get("dev-0a1b2c3d-support-0123456789")
    assert lease is not None
    assert lease["createdAt"] == NOW.isoformat().replace("+00:00", "Z")
