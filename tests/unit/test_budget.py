"""Runs reserve before they spend, so that many of them together stay within the month."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Barrier, Lock

import msgspec
import pytest
from botocore.client import BaseClient

from customization import budget, leases, releasing
from customization.errors import BudgetExceeded
from customization.gateway.tables import Attr
from customization.json_types import JsonObject
from customization.leases import Lease
from customization.money import TrainingUsage, Usage, estimate, load_prices
from customization.profile import PreparedFile, Profile, TokenEstimate
from customization.runs import Call, Plan, claim_run, owned_plan, save_plan
from customization.sweeper import sweep
from tests.unit.fakes import NOW, BedrockInMemory, GatewayInMemory, job


def prepare(gateway: GatewayInMemory, plan: Plan, usd: float) -> None:
    """Write an estimate of so many US dollars for two epochs of training."""
    usage = Usage(
        model=plan.base_model_identifier,
        region=plan.region,
        training=(TrainingUsage("FINE_TUNING", usd * 1000 / 0.001, 1.0),),
    )
    estimated = estimate(usage, load_prices(), NOW)
    assert estimated.known_usd == pytest.approx(usd)
    gateway.artifacts.put(f"{plan.prefix}estimate.json", msgspec.json.encode(estimated))
    tokens = TokenEstimate(0, round(usd * 1_000_000 / 2), 0)
    train = PreparedFile("train", "train.jsonl", 100, 0, "", tokens, TokenEstimate(0, 0, 0))
    profile = Profile(files=(), prepared={"train": train}, test_records=0, test_digest="", warnings=(), notes=())
    gateway.artifacts.put(f"{plan.prefix}data/profile.json", msgspec.json.encode(profile))


MONTH = "month#2026-11"


def committed(gateway: GatewayInMemory) -> float:
    row = gateway.runs.get(MONTH) or {}
    return float(str(row.get("committedUsd", 0)))


def test_an_attempt_reserves_once_however_often_it_is_retried(claimed: GatewayInMemory, plan: Plan, call: Call) -> None:
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, plan, call)
    budget.reserve(claimed, plan, call)
    assert committed(claimed) == 12.5


def test_a_run_beyond_the_months_budget_is_refused_naming_it(claimed: GatewayInMemory, plan: Plan, call: Call) -> None:
    claimed.runs.put({"runId": "month#2026-11", "committedUsd": 190})
    prepare(claimed, plan, 12.5)
    with pytest.raises(BudgetExceeded, match=r"monthlyBudgetUsd: this run needs 12\.50 USD, and 190\.00 of 200\.00"):
        budget.reserve(claimed, plan, call)
    assert committed(claimed) == 190


def test_runs_one_after_the_other_cannot_overshoot_together(claimed: GatewayInMemory, plan: Plan, call: Call) -> None:
    refused = 0
    for number in range(15):
        own = replace(call, run_id=f"support-{number:010d}")
        its_plan = msgspec.structs.replace(plan, run_id=own.run_id)
        prepare(claimed, its_plan, 19)
        try:
            budget.reserve(claimed, its_plan, own)
        except BudgetExceeded:
            refused += 1
    assert committed(claimed) == 190
    assert refused == 5


def test_a_run_beyond_its_own_budget_is_refused(claimed: GatewayInMemory, plan: Plan, call: Call) -> None:
    prepare(claimed, plan, 25)
    with pytest.raises(BudgetExceeded, match="budgetUsd"):
        budget.reserve(claimed, plan, call)
    assert committed(claimed) == 0


TITAN = "amazon.titan-text-lite-v1:0:4k"


def job_of(bedrock: BedrockInMemory, *, phase: str = "Completed") -> None:
    name = "dev-0a1b2c3d-aaaaaaaaaa-1"
    bedrock.jobs[name] = msgspec.structs.replace(job(name), phases={"Training": phase})


def test_what_was_not_spent_is_given_back_once(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, plan, call)
    job_of(bedrock, phase="NotStarted")
    claimed.runs.update(call.run_id, {"jobName0": "dev-0a1b2c3d-aaaaaaaaaa-1", "baseInputTokens": 1_000_000})
    budget.give_back(claimed, call.run_id, 1, NOW)
    budget.give_back(claimed, call.run_id, 1, NOW)
    # The answers of the base model were paid, the training had not begun
    assert committed(claimed) == pytest.approx(0.035)
    assert (claimed.runs.get(call.run_id) or {})["spentUsd"] == pytest.approx(0.035)


@pytest.mark.parametrize(
    ("row", "phase", "spent"),
    [
        ({"jobName0": "dev-0a1b2c3d-aaaaaaaaaa-1"}, "InProgress", 12.5),
        ({"jobName0": "dev-0a1b2c3d-aaaaaaaaaa-1", "jobAdopted0": True}, "Completed", 0),
        ({"jobName0": "dev-0a1b2c3d-bbbbbbbbbb-1"}, "Completed", 0),
        ({"jobName0": ""}, "Completed", 0),
    ],
    ids=["begun", "adopted", "never-created", "never-asked-for"],
)
def test_training_counts_as_spent_once_the_runs_own_job_trains(
    claimed: GatewayInMemory,
    bedrock: BedrockInMemory,
    plan: Plan,
    call: Call,
    row: JsonObject,
    phase: str,
    spent: float,
) -> None:
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, plan, call)
    job_of(bedrock, phase=phase)
    claimed.runs.update(call.run_id, row)
    budget.give_back(claimed, call.run_id, 1, NOW)
    assert committed(claimed) == spent


def served_by(call: Call, **times: datetime | None) -> Lease:
    return Lease(
        resource_name="dev-0a1b2c3d-support-0123456789",
        kind="provisioned",
        run_id=call.run_id,
        dataset="support",
        execution_arn=call.execution_arn,
        opened_at=NOW,
        hard_end=NOW + timedelta(hours=24),
        hourly_usd=7.1,
        **times,  # type: ignore[arg-type]  # the moments of a lease
    )


@pytest.mark.parametrize(
    ("times", "hours"),
    [
        ({}, 0),
        ({"created_at": NOW}, 2),
        ({"created_at": NOW, "closed_at": NOW + timedelta(minutes=40)}, 1),
        ({"created_at": NOW, "keep_until": NOW + timedelta(hours=5, minutes=1)}, 6),
    ],
    ids=["never-created", "until-now", "released", "kept"],
)
def test_every_hour_that_a_throughput_has_begun_or_is_kept_counts_as_spent(
    claimed: GatewayInMemory, plan: Plan, call: Call, times: dict[str, datetime | None], hours: int
) -> None:
    titan = msgspec.structs.replace(plan, serving_mode="provisioned", base_model_identifier=TITAN)
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, titan, call)
    leases.open_lease(claimed, served_by(call, **times))
    leases.open_lease(
        claimed,
        msgspec.structs.replace(
            served_by(call, created_at=NOW),
            execution_arn="arn:another",
            resource_name="dev-0a1b2c3d-support-0123456789-2",
        ),
    )
    budget.give_back(claimed, call.run_id, 1, NOW + timedelta(minutes=61))
    assert committed(claimed) == pytest.approx(hours * 7.1)


def test_what_is_released_before_its_time_gives_the_hours_back(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    titan = msgspec.structs.replace(plan, serving_mode="provisioned", base_model_identifier=TITAN)
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, titan, call)
    kept = served_by(call, created_at=NOW, keep_until=NOW + timedelta(hours=10))
    leases.open_lease(claimed, kept)
    bedrock.serve(
        mode="provisioned",
        name=kept.resource_name,
        model_arn="arn:model",
        tags={"deployment": "0a1b2c3d"},
        units=1,
        token="t",  # noqa: S106  no secret
    )
    claimed.runs.update(call.run_id, {"state": "SUCCEEDED"})
    claimed.executions[call.execution_arn] = "SUCCEEDED"
    budget.give_back(claimed, call.run_id, 1, NOW)
    assert committed(claimed) == pytest.approx(71)
    releasing.release_dataset(claimed, "support", NOW + timedelta(hours=2))
    assert committed(claimed) == pytest.approx(14.2)


def claim_again(gateway: GatewayInMemory, call: Call, status: str) -> None:
    """Let the execution end with `status` and a second attempt own the run before anybody has settled the first."""
    gateway.executions |= {call.execution_arn: status, "arn:again": "RUNNING"}
    row: JsonObject = {"runId": call.run_id, "dataset": "support", "startedAt": NOW.isoformat()}
    assert claim_run(gateway, row, "arn:again", force=False).attempt == 2


@pytest.mark.parametrize(("state", "told"), [("RUNNING", ["Aborted: a request that started no run"]), ("FAILED", [])])
def test_an_attempt_that_another_one_has_replaced_is_settled_by_the_sweeper(
    claimed: GatewayInMemory, plan: Plan, call: Call, state: str, told: list[str]
) -> None:
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, plan, call)
    claimed.runs.update(call.run_id, {"baseInputTokens": 1_000_000, "state": state, "error": ""})
    claim_again(claimed, call, "ABORTED")
    budget.give_back(claimed, call.run_id, 1, NOW)
    assert committed(claimed) == 12.5
    again = replace(call, execution_arn="arn:again", attempt=2)
    budget.reserve(claimed, plan, again)
    for _ in range(2):
        assert sweep(claimed, NOW).refused == ()
    assert committed(claimed) == pytest.approx(12.5 + 0.035)
    assert claimed.runs.scan(Attr("replacedOf").exists()) == []
    assert [subject for subject, _ in claimed.published] == told
    assert (claimed.runs.get(call.run_id) or {})["state"] == "RUNNING"


def test_a_replaced_attempt_keeps_its_reservation_while_a_throughput_of_its_own_bills(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    titan = msgspec.structs.replace(plan, serving_mode="provisioned", base_model_identifier=TITAN)
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, titan, call)
    held = served_by(call, created_at=NOW)
    leases.open_lease(claimed, held)
    tags = {"deployment": "0a1b2c3d"}
    bedrock.serve(mode="provisioned", name=held.resource_name, model_arn="m", tags=tags, units=1, token="")
    bedrock.busy.add(held.resource_name)
    claim_again(claimed, call, "ABORTED")
    sweep(claimed, NOW + timedelta(minutes=10))
    assert committed(claimed) == 12.5
    bedrock.busy.clear()
    sweep(claimed, NOW + timedelta(minutes=70))
    assert committed(claimed) == pytest.approx(14.2)


def test_an_attempt_that_was_settled_before_it_was_replaced_leaves_nothing(
    claimed: GatewayInMemory, plan: Plan, call: Call
) -> None:
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, plan, call)
    budget.give_back(claimed, call.run_id, 1, NOW)
    claim_again(claimed, call, "FAILED")
    assert claimed.runs.scan(Attr("replacedOf").exists()) == []


def test_a_run_that_died_before_its_failure_was_handled_is_settled_by_the_sweeper(
    claimed: GatewayInMemory, plan: Plan, call: Call
) -> None:
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, plan, call)
    sweep(claimed, NOW)
    assert committed(claimed) == 12.5
    claimed.runs.update(call.run_id, {"state": "FAILED"})
    sweep(claimed, NOW)
    assert committed(claimed) == 0


def test_a_settlement_that_was_cut_short_is_completed_and_counts_once(
    claimed: GatewayInMemory, plan: Plan, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, plan, call)
    claimed.runs.update(call.run_id, {"state": "FAILED", "baseInputTokens": 1_000_000})
    update = claimed.runs.update

    def die_after(key: str, values: JsonObject, **how: object) -> bool:
        update(key, values, **how)  # type: ignore[arg-type]  # what it was called with
        raise SystemExit

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(claimed.runs, "update", die_after)
            with pytest.raises(SystemExit):
                sweep(claimed, NOW)
    sweep(claimed, NOW)
    assert committed(claimed) == pytest.approx(0.035)
    assert (claimed.runs.get(call.run_id) or {})["spentUsd"] == pytest.approx(0.035)


def test_what_a_redriven_execution_reserves_anew_is_given_back_when_it_dies_again(
    claimed: GatewayInMemory, plan: Plan, call: Call
) -> None:
    prepare(claimed, plan, 12.5)
    save_plan(claimed, plan)
    budget.reserve(claimed, plan, call)
    for _ in range(2):
        budget.renew(claimed, owned_plan(claimed, call), call)
        assert committed(claimed) == 12.5
        claimed.executions[call.execution_arn] = "ABORTED"
        assert sweep(claimed, NOW).runs == (call.run_id,)
        assert committed(claimed) == 0
    assert [subject for subject, _ in claimed.published] == [f"Aborted: {call.run_id}"] * 2


def test_runs_that_reserve_at_once_cannot_overshoot_together(
    claimed: GatewayInMemory, plan: Plan, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A write of DynamoDB is one step; moto's is two
    step, begun = Lock(), Barrier(8)
    one_call = BaseClient._make_api_call  # type: ignore[attr-defined]  # private, and thus not in the stubs

    def in_one_step(client: BaseClient, operation: str, parameters: JsonObject) -> object:
        with step:
            return one_call(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", in_one_step)
    plan = msgspec.structs.replace(plan, budget_usd=60)

    def reserve(number: int) -> bool:
        own = replace(call, run_id=f"support-{number:010d}")
        begun.wait()
        try:
            budget.reserve(claimed, msgspec.structs.replace(plan, run_id=own.run_id), own)
        except BudgetExceeded:
            return False
        return True

    for number in range(8):
        prepare(claimed, msgspec.structs.replace(plan, run_id=f"support-{number:010d}"), 60)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(reserve, range(8))).count(True) == 3
    assert committed(claimed) == 180


def test_the_start_is_told_with_its_cost(claimed: GatewayInMemory, plan: Plan, call: Call) -> None:
    prepare(claimed, plan, 12.5)
    told = budget.reserve(claimed, plan, call)
    assert told["subject"] == "Started: support-0123456789"
    assert "12.5000 USD" in str(told["message"])


def test_what_was_given_back_is_reserved_again_when_the_execution_goes_on(
    claimed: GatewayInMemory, plan: Plan, call: Call
) -> None:
    prepare(claimed, plan, 12.5)
    budget.renew(claimed, plan, call)
    assert committed(claimed) == 0
    budget.reserve(claimed, plan, call)
    budget.renew(claimed, plan, call)
    assert committed(claimed) == 12.5
    budget.give_back(claimed, call.run_id, 1, NOW)
    assert committed(claimed) == 0
    budget.renew(claimed, plan, call)
    budget.renew(claimed, plan, call)
    assert committed(claimed) == 12.5


def test_what_a_redriven_run_has_spent_already_is_no_room_that_it_lacks(
    claimed: GatewayInMemory, plan: Plan, call: Call
) -> None:
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, plan, call)
    claimed.runs.update(call.run_id, {"baseInputTokens": 200_000_000})  # 7 USD
    budget.give_back(claimed, call.run_id, 1, NOW)
    claimed.runs.update(MONTH, {"committedUsd": 194})
    budget.renew(claimed, plan, call)
    assert committed(claimed) == pytest.approx(194 - 7 + 12.5)


def test_a_redriven_run_for_which_others_have_left_no_room_is_refused(
    claimed: GatewayInMemory, plan: Plan, call: Call
) -> None:
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, plan, call)
    budget.give_back(claimed, call.run_id, 1, NOW)
    claimed.runs.update(MONTH, {"committedUsd": 190})
    with pytest.raises(BudgetExceeded, match=r"needs 12\.50 USD, and 190\.00 of 200\.00 USD"):
        budget.renew(claimed, plan, call)
    assert committed(claimed) == 190


def test_a_run_that_is_redriven_in_another_month_counts_where_it_began(
    claimed: GatewayInMemory, plan: Plan, call: Call
) -> None:
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, plan, call)
    budget.give_back(claimed, call.run_id, 1, NOW)
    budget.renew(claimed, plan, replace(call, now=NOW + timedelta(days=10)))
    assert committed(claimed) == 12.5
    assert claimed.runs.get("month#2026-12") is None


def test_the_hours_that_were_reserved_are_reserved_again(claimed: GatewayInMemory, plan: Plan, call: Call) -> None:
    prepare(claimed, plan, 12.5)
    budget.reserve(claimed, plan, call)
    claimed.runs.update(call.run_id, {"estimatedUsd": 12.5, "servingUsd": 2.5})
    assert budget.reserve_hours(claimed, plan, call, 2.5, 24) == 4
    assert committed(claimed) == 20
    budget.give_back(claimed, call.run_id, 1, NOW)
    budget.renew(claimed, plan, call)
    assert committed(claimed) == 20
    assert budget.reserve_hours(claimed, plan, call, 2.5, 24) == 4
    assert committed(claimed) == 20
