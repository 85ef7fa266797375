"""What stays after a run is what somebody asked for, and a parameter never points at something gone."""

import json
from dataclasses import replace
from datetime import datetime, timedelta

import msgspec
import pytest

from customization import leases, promotion, releasing, results
from customization.errors import InvalidRunRequest
from customization.json_types import JsonObject
from customization.leases import Lease
from customization.model_in_use import read_in_use
from customization.promotion import promote_run, roll_back
from customization.runs import Call, Plan, save_plan
from customization.serving import create_serving
from customization.splits import Subset
from customization.sweeper import sweep
from customization.texts import Language, say
from tests.unit.fakes import NOW, BedrockInMemory, GatewayInMemory, settled

JOB = "dev-0a1b2c3d-aaaaaaaaaa-1"
SERVED = "dev-0a1b2c3d-support-0123456789"
PARAMETER = "/dev/0a1b2c3d/datasets/support/model"
ROLLBACK = Call(now=NOW, execution_arn="arn:execution:rollback", run_id="", attempt=0)
PROMOTE = Call(now=NOW, execution_arn="arn:execution:promote", run_id="", attempt=0)


@pytest.fixture
def trained(claimed: GatewayInMemory, bedrock: BedrockInMemory, call: Call) -> GatewayInMemory:
    """The gateway after a run has trained a model and serves it."""
    claimed.runs.update(call.run_id, {"jobName0": JOB, "verdict": "better", "servingName": SERVED})
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
    releasing.release_serving(trained, plan, call)
    assert bedrock.serving == {}
    assert lease(trained, SERVED).state == "CLOSED"


def test_kept_serving_has_an_end(trained: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call) -> None:
    releasing.release_serving(trained, msgspec.structs.replace(plan, keep=6.0), call)
    assert SERVED in bedrock.serving
    assert lease(trained, SERVED).keep_until == NOW + timedelta(hours=6)


def test_a_redriven_run_reserves_again_before_it_keeps_what_serves_its_model(
    trained: GatewayInMemory, plan: Plan, call: Call
) -> None:
    month = settled(trained, call.run_id, reserved_usd=12.5)
    releasing.release_serving(trained, msgspec.structs.replace(plan, keep=6.0), call)
    assert (trained.runs.get(month) or {})["committedUsd"] == 12.5


def paid_for(gateway: GatewayInMemory, bedrock: BedrockInMemory, until: datetime) -> str:
    """Let what serves the model bill by the hour, and the budget pay for it until then; return its ARN."""
    arn = "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abc"
    bedrock.serving[SERVED] = msgspec.structs.replace(bedrock.serving[SERVED], mode="provisioned", arn=arn)
    billed = msgspec.structs.replace(lease(gateway, SERVED), kind="provisioned", hourly_usd=60.5, hard_end=until)
    leases.open_lease(gateway, billed)
    return arn


def test_what_bills_by_the_hour_is_kept_and_named_no_longer_than_the_budget_pays_for(
    trained: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    end = NOW + timedelta(hours=2, minutes=45)
    arn = paid_for(trained, bedrock, end)
    kept = msgspec.structs.replace(plan, keep=2.0)
    for minutes in (150, 152):  # Step Functions may call twice
        releasing.release_serving(trained, kept, replace(call, now=NOW + timedelta(minutes=minutes)))
    assert (lease(trained, SERVED).keep_until, lease(trained, SERVED).hard_end) == (end, end)
    assert "until 2026-11-22 11:45 UTC, not for all of the 2 hours" in str(
        (trained.runs.get(call.run_id) or {})["keptShort"]
    )
    later = replace(call, now=NOW + timedelta(minutes=160))
    promotion.promote(trained, kept, later, serving_arn=arn, model_arn=f"arn:model/{JOB}")
    assert parameter(trained) == {"arn": arn, "until": end.isoformat()}
    assert (lease(trained, SERVED).keep_until, lease(trained, SERVED).hard_end) == (end, end)


def test_what_is_kept_within_the_budget_is_no_shorter_for_a_second_call(
    trained: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    paid_for(trained, bedrock, NOW + timedelta(hours=9))
    for minutes in (0, 2):
        later = replace(call, now=NOW + timedelta(minutes=minutes))
        releasing.release_serving(trained, msgspec.structs.replace(plan, keep=2.0), later)
    assert lease(trained, SERVED).keep_until == lease(trained, SERVED).hard_end == NOW + timedelta(hours=2)
    assert "keptShort" not in (trained.runs.get(call.run_id) or {})


def test_what_nobody_pays_for_any_more_is_neither_kept_nor_named(
    trained: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    arn = paid_for(trained, bedrock, NOW)
    kept, later = msgspec.structs.replace(plan, keep=8.0), replace(call, now=NOW + timedelta(minutes=1))
    promotion.promote(trained, kept, later, serving_arn=arn, model_arn=f"arn:model/{JOB}")
    assert parameter(trained) == {"arn": f"arn:model/{JOB}", "until": None}
    releasing.release_serving(trained, kept, replace(call, now=NOW + leases.CREATOR_TIMEOUT))
    assert lease(trained, SERVED).state == "CLOSED"


@pytest.mark.parametrize(
    ("keep_model", "verdict", "days"),
    [
        ("never", "better", 0),
        ("if-better", "worse", 0),
        ("if-better", "inconclusive", 14),
        ("if-better", "better", 14),
        ("if-better", "not compared", 14),
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
    releasing.release_model(trained, msgspec.structs.replace(plan, keep_model=keep_model), call)
    kept = lease(trained, f"{JOB}{leases.MODEL_SUFFIX}")
    assert (JOB in bedrock.models) is (days > 0)
    assert kept.state == ("OPEN" if days else "CLOSED")
    if days:
        assert kept.keep_until == NOW + timedelta(days=days)


def test_a_promoted_model_that_is_kept_served_is_named_with_its_end(
    trained: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    kept = msgspec.structs.replace(plan, keep=6.0)
    arn = bedrock.serving[SERVED].arn
    promotion.promote(trained, kept, call, serving_arn=arn, model_arn=f"arn:model/{JOB}")
    assert parameter(trained) == {"arn": arn, "until": (NOW + timedelta(hours=6)).isoformat()}


@pytest.mark.parametrize("mode", ["on-demand", "provisioned"])
def test_a_promoted_model_that_was_to_be_kept_served_and_is_not_any_more_is_named_itself(
    trained: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call, mode: str
) -> None:
    own = f"{SERVED}-own"
    arn = bedrock.serve(mode=mode, name=own, model_arn=f"arn:model/{JOB}", tags={}, units=1, token=own)
    bedrock.stop_serving(mode, own)
    kept = msgspec.structs.replace(plan, keep=6.0)
    told = promotion.promote(trained, kept, call, serving_arn=arn, model_arn=f"arn:model/{JOB}")
    assert told == {"status": "Active", "waitSeconds": 0, "arn": f"arn:model/{JOB}", "until": None}
    assert parameter(trained) == {"arn": f"arn:model/{JOB}", "until": None}


def test_a_promoted_model_that_is_not_kept_served_is_named_itself(
    trained: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    promotion.promote(trained, plan, call, serving_arn="arn:served", model_arn=f"arn:model/{JOB}")
    releasing.release_serving(trained, plan, call)
    assert parameter(trained) == {"arn": f"arn:model/{JOB}", "until": None}
    assert f"arn:model/{JOB}" in bedrock.models


def test_a_parameter_is_removed_before_what_it_names_and_people_are_told(
    trained: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    kept = msgspec.structs.replace(plan, keep=6.0)
    promotion.promote(trained, kept, call, serving_arn=bedrock.serving[SERVED].arn, model_arn=f"arn:model/{JOB}")
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
    promotion.promote(trained, kept, call, serving_arn=bedrock.serving[SERVED].arn, model_arn=f"arn:model/{JOB}")
    promotion.withdraw(trained, lease(trained, SERVED), NOW + timedelta(hours=6))
    assert parameter(trained) == {"arn": "arn:model/older", "until": None}
    assert "is in use again" in trained.published[0][1]


@pytest.mark.parametrize("what", ["the deployment", "the model"])
def test_the_sweeper_withdraws_what_somebody_else_has_deleted_and_says_so_once(
    trained: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call, what: str
) -> None:
    bedrock.models.add("arn:model/older")
    older = msgspec.structs.replace(plan, run_id="support-9999999999")
    promotion.promote(trained, older, PROMOTE, serving_arn="", model_arn="arn:model/older")
    kept = msgspec.structs.replace(plan, keep=6.0)
    promotion.promote(trained, kept, call, serving_arn=bedrock.serving[SERVED].arn, model_arn=f"arn:model/{JOB}")
    trained.executions[call.execution_arn] = "SUCCEEDED"
    trained.runs.update(call.run_id, {"state": "SUCCEEDED"})
    leases.open_lease(trained, msgspec.structs.replace(lease(trained, SERVED), created_at=NOW))
    sweep(trained, NOW + timedelta(hours=1))
    assert trained.published == []

    if what == "the deployment":
        bedrock.stop_serving("on-demand", SERVED)
    else:
        bedrock.models -= {JOB, f"arn:model/{JOB}"}
    swept = [sweep(trained, NOW + timedelta(hours=hours)) for hours in (1.25, 1.5)]
    assert [len(done.released) for done in swept] == [1, 0]
    assert parameter(trained) == {"arn": "arn:model/older", "until": None}
    [(subject, message)] = trained.published
    assert subject == f"No longer in use: {call.run_id}"
    assert "somebody deleted it" in message
    assert (lease(trained, SERVED).state == "CLOSED") == (what == "the deployment")


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
    released = releasing.release_dataset(trained, "support", NOW)["released"]
    assert isinstance(released, list)
    assert len(released) == 2
    assert bedrock.serving == {}
    assert JOB not in bedrock.models


@pytest.fixture
def finished(trained: GatewayInMemory, plan: Plan, call: Call) -> GatewayInMemory:
    """The gateway after the run has succeeded."""
    finish(trained, plan, name=JOB)
    trained.executions[call.execution_arn] = "SUCCEEDED"
    return trained


@pytest.fixture
def older(finished: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan) -> Plan:
    """An earlier run whose model is in use."""
    earlier = msgspec.structs.replace(plan, run_id="support-9999999999")
    bedrock.models |= {"older", "arn:model/older"}
    finish(finished, earlier, name="older")
    model = lease(finished, f"{JOB}{leases.MODEL_SUFFIX}")
    older = msgspec.structs.replace(model, resource_name=f"older{leases.MODEL_SUFFIX}", run_id=earlier.run_id)
    leases.open_lease(finished, older)
    promote_run(finished, earlier.run_id, PROMOTE)
    return earlier


def finish(gateway: GatewayInMemory, plan: Plan, *, name: str) -> None:
    row: JsonObject = {"runId": plan.run_id, "dataset": plan.dataset, "executionArn": plan.execution_arn, "attempt": 1}
    ended: JsonObject = {"state": "SUCCEEDED", "verdict": "better", "jobName0": name, "modelArn0": f"arn:model/{name}"}
    gateway.runs.put({**row, **ended})
    save_plan(gateway, plan)


def in_use(gateway: GatewayInMemory) -> tuple[str, list[str]]:
    """Return the run whose model is in use and those before it."""
    found = read_in_use(gateway, "support")
    assert found
    return found.promoted_run_id, [model.promoted_run_id for model in found.previous]


def remove(gateway: GatewayInMemory, bedrock: BedrockInMemory, name: str) -> None:
    bedrock.models -= {name, f"arn:model/{name}"}
    leases.close(gateway, lease(gateway, f"{name}{leases.MODEL_SUFFIX}"), NOW, "somebody deleted it", was_there=False)


def test_the_model_of_a_run_that_has_succeeded_is_put_in_use_and_kept_without_an_end(
    finished: GatewayInMemory, plan: Plan
) -> None:
    told = promote_run(finished, plan.run_id, PROMOTE)
    assert parameter(finished) == {"arn": f"arn:model/{JOB}", "until": None}
    assert lease(finished, f"{JOB}{leases.MODEL_SUFFIX}").keep_until == NOW + timedelta(days=3650)
    assert in_use(finished) == (plan.run_id, [])
    assert told["subject"] == f"In use: {plan.run_id}"
    assert f"{PARAMETER} names arn:model/{JOB}" in str(told["message"])
    assert "verdict" not in str(told["message"])


@pytest.mark.parametrize(
    ("verdict", "says"),
    [("inconclusive", "nothing shows that it answers better"), ("not compared", "was not compared")],
)
def test_a_person_may_promote_what_was_not_shown_to_be_better_and_is_told_so(
    finished: GatewayInMemory, plan: Plan, verdict: str, says: str
) -> None:
    finished.runs.update(plan.run_id, {"verdict": verdict})
    assert says in str(promote_run(finished, plan.run_id, PROMOTE)["message"])
    assert parameter(finished) is not None


def refused(gateway: GatewayInMemory, run_id: str, says: str) -> None:
    with pytest.raises(InvalidRunRequest, match=says):
        promote_run(gateway, run_id, PROMOTE)
    assert parameter(gateway) is None
    assert read_in_use(gateway, "support") is None


def test_a_run_that_nobody_knows_cannot_be_promoted(finished: GatewayInMemory) -> None:
    refused(finished, "support-aaaaaaaaaa", "no run support-aaaaaaaaaa is known; expected the runId of a run that has")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": "RUNNING"}, "its state is RUNNING"),
        ({"state": "FAILED"}, "its state is FAILED"),
        ({"verdict": "worse"}, "is worse"),
    ],
)
def test_a_run_that_failed_or_ended_worse_cannot_be_promoted(
    finished: GatewayInMemory, plan: Plan, changes: JsonObject, says: str
) -> None:
    finished.runs.update(plan.run_id, changes)
    refused(finished, plan.run_id, says)


def test_a_run_on_a_subset_cannot_be_promoted(finished: GatewayInMemory, plan: Plan) -> None:
    save_plan(finished, msgspec.structs.replace(plan, subset=Subset(records=100)))
    refused(finished, plan.run_id, "trained on a subset")


def test_a_model_that_is_gone_cannot_be_promoted(
    finished: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan
) -> None:
    remove(finished, bedrock, JOB)
    refused(finished, plan.run_id, "does not exist any more")


def test_promoting_what_is_in_use_changes_nothing(finished: GatewayInMemory, plan: Plan, older: Plan) -> None:
    promote_run(finished, plan.run_id, PROMOTE)
    promote_run(finished, plan.run_id, PROMOTE)
    assert in_use(finished) == (plan.run_id, [older.run_id])


def test_a_rollback_puts_the_model_before_back_and_keeps_the_other_for_14_days(
    finished: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, older: Plan
) -> None:
    promote_run(finished, plan.run_id, PROMOTE)
    told = str(roll_back(finished, "support", ROLLBACK)["message"])
    assert parameter(finished) == {"arn": "arn:model/older", "until": None}
    assert in_use(finished) == (older.run_id, [])
    assert f'"action": "promote", "data": "{plan.run_id}"' in told
    assert "until 2026-12-06" in told

    sweep(finished, NOW)
    sweep(finished, NOW + timedelta(days=13, hours=23))
    assert JOB in bedrock.models
    sweep(finished, NOW + timedelta(days=14))
    assert JOB not in bedrock.models
    assert parameter(finished) == {"arn": "arn:model/older", "until": None}


def test_a_rollback_that_is_called_twice_goes_back_once(
    finished: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, older: Plan
) -> None:
    bedrock.models |= {"arn:model/newest"}
    newest = msgspec.structs.replace(plan, run_id="support-7777777777")
    finish(finished, newest, name="newest")
    promote_run(finished, plan.run_id, PROMOTE)
    promote_run(finished, newest.run_id, PROMOTE)
    assert roll_back(finished, "support", ROLLBACK) == roll_back(finished, "support", ROLLBACK)
    assert in_use(finished) == (plan.run_id, [older.run_id])
    roll_back(finished, "support", replace(ROLLBACK, execution_arn="arn:execution:another"))
    assert in_use(finished) == (older.run_id, [])


def test_a_rollback_passes_over_models_that_are_gone(
    finished: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, older: Plan
) -> None:
    bedrock.models |= {"arn:model/newest"}
    newest = msgspec.structs.replace(plan, run_id="support-7777777777")
    finish(finished, newest, name="newest")
    promote_run(finished, plan.run_id, PROMOTE)
    promote_run(finished, newest.run_id, PROMOTE)
    remove(finished, bedrock, JOB)
    roll_back(finished, "support", ROLLBACK)
    assert in_use(finished) == (older.run_id, [])


def test_a_rollback_names_what_serves_the_model_only_where_it_still_serves(
    finished: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call, older: Plan
) -> None:
    # A deployment would be swapped in place
    served = "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abc"
    bedrock.serving[SERVED] = msgspec.structs.replace(bedrock.serving[SERVED], mode="provisioned", arn=served)
    kept = msgspec.structs.replace(plan, keep=6.0)
    promotion.promote(finished, kept, call, serving_arn=served, model_arn=f"arn:model/{JOB}")
    promote_run(finished, older.run_id, PROMOTE)
    roll_back(finished, "support", ROLLBACK)
    assert parameter(finished) == {"arn": served, "until": (NOW + timedelta(hours=6)).isoformat()}
    promote_run(finished, older.run_id, PROMOTE)
    bedrock.serving.clear()
    roll_back(finished, "support", replace(ROLLBACK, execution_arn="arn:execution:another"))
    assert parameter(finished) == {"arn": f"arn:model/{JOB}", "until": None}


def test_there_is_nothing_to_roll_back_where_no_model_is_in_use(gateway: GatewayInMemory) -> None:
    with pytest.raises(InvalidRunRequest, match="no model is in use for support"):
        roll_back(gateway, "support", ROLLBACK)


def test_the_first_model_in_use_cannot_be_rolled_back(finished: GatewayInMemory, older: Plan) -> None:
    with pytest.raises(InvalidRunRequest, match=f"had no model in use before that of run {older.run_id}"):
        roll_back(finished, "support", ROLLBACK)
    assert parameter(finished) == {"arn": "arn:model/older", "until": None}


@pytest.mark.parametrize("first", ["older", JOB])
def test_the_parameter_is_gone_after_everything_of_a_data_set_was_released(
    finished: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, older: Plan, first: str
) -> None:
    promote_run(finished, older.run_id if first == JOB else plan.run_id, PROMOTE)
    releasing.release_dataset(finished, "support", NOW)
    assert not {"older", JOB} & bedrock.models
    assert parameter(finished) is None
    assert read_in_use(finished, "support") is None


def test_a_run_that_adopts_the_model_in_use_and_ends_worse_or_dies_does_not_take_it_away(
    finished: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    promote_run(finished, plan.run_id, PROMOTE)
    adopting = msgspec.structs.replace(plan, run_id="support-7777777777")
    finish(finished, adopting, name=JOB)
    finished.runs.update(adopting.run_id, {"verdict": "worse"})
    model = lease(finished, f"{JOB}{leases.MODEL_SUFFIX}")
    opened_anew = msgspec.structs.replace(model, run_id=adopting.run_id, keep_until=NOW + timedelta(days=18))
    leases.open_lease(finished, opened_anew)
    releasing.release_model(finished, adopting, replace(call, run_id=adopting.run_id))
    assert JOB in bedrock.models

    leases.open_lease(finished, opened_anew)
    sweep(finished, NOW + timedelta(days=19))
    assert JOB in bedrock.models
    assert parameter(finished) == {"arn": f"arn:model/{JOB}", "until": None}
    releasing.release_dataset(finished, "support", NOW + timedelta(days=20))
    assert parameter(finished) is None


def test_a_model_that_another_data_set_has_in_use_outlives_the_one_whose_run_has_adopted_it(
    finished: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    promote_run(finished, plan.run_id, PROMOTE)
    finished.runs.delete(plan.run_id)
    adopting = msgspec.structs.replace(plan, run_id="copy-7777777777", dataset="copy", keep_model="never")
    finish(finished, adopting, name=JOB)
    model = lease(finished, f"{JOB}{leases.MODEL_SUFFIX}")
    leases.open_lease(finished, msgspec.structs.replace(model, run_id=adopting.run_id, dataset="copy"))
    releasing.release_model(finished, adopting, replace(call, run_id=adopting.run_id))
    releasing.release_dataset(finished, "copy", NOW)
    assert JOB in bedrock.models


@pytest.mark.parametrize(
    ("keep_model", "verdict"), [("never", "better"), ("if-better", "worse"), ("if-better", "inconclusive")]
)
def test_a_run_that_adopts_a_model_which_another_run_keeps_always_leaves_it_so(
    finished: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call, keep_model: str, verdict: str
) -> None:
    releasing.release_model(finished, msgspec.structs.replace(plan, keep_model="always"), call)
    adopting = msgspec.structs.replace(plan, run_id="support-7777777777", keep_model=keep_model)
    finish(finished, adopting, name=JOB)
    finished.runs.update(adopting.run_id, {"verdict": verdict, "state": "RUNNING"})
    model = lease(finished, f"{JOB}{leases.MODEL_SUFFIX}")
    opened = msgspec.structs.replace(model, run_id=adopting.run_id, keep_until=NOW + leases.MODEL_RETENTION)
    leases.open_lease(finished, opened)
    assert releasing.release_model(finished, adopting, replace(call, run_id=adopting.run_id)) == {"released": []}
    assert JOB in bedrock.models
    assert lease(finished, f"{JOB}{leases.MODEL_SUFFIX}").keep_until == NOW + timedelta(days=3650)


def test_a_run_that_is_started_again_after_its_promotion_and_stopped_leaves_what_serves_the_model_in_use(
    trained: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    kept = msgspec.structs.replace(plan, keep=6.0)
    arn = bedrock.serving[SERVED].arn
    promotion.promote(trained, kept, call, serving_arn=arn, model_arn=f"arn:model/{JOB}")
    again = replace(call, execution_arn="arn:execution:again", now=NOW + timedelta(hours=1))
    create_serving(trained, kept, again, f"arn:model/{JOB}", entered_at="")
    trained.executions |= {call.execution_arn: "FAILED", again.execution_arn: "ABORTED"}
    sweep(trained, NOW + timedelta(hours=2))
    assert SERVED in bedrock.serving
    assert parameter(trained) == {"arn": arn, "until": (NOW + timedelta(hours=6)).isoformat()}
    sweep(trained, NOW + timedelta(hours=25))
    assert bedrock.serving == {}


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize(
    ("subset", "is_promoted", "is_improvement", "says"),
    [
        (None, False, True, '{"dataset": "support", "action": "promote", "data": "support-0123456789"}'),
        (None, False, False, '{"dataset": "support", "action": "promote", "data": "support-0123456789"}'),
        (None, True, True, '{"dataset": "support", "action": "rollback"}'),
        (Subset(records=100), False, True, "subset"),
    ],
)
def test_after_a_gain_only_what_would_be_accepted_is_advised(
    plan: Plan, language: Language, subset: Subset | None, *, is_promoted: bool, is_improvement: bool, says: str
) -> None:
    asked = msgspec.structs.replace(plan, subset=subset)
    step = say(results._after_a_gain(asked, is_promoted=is_promoted, is_improvement=is_improvement), language)
    assert says in step
    assert ('"action": "promote"' in step) is (not is_promoted and subset is None)


def test_a_model_that_neither_of_two_runs_keeps_goes_with_the_second(
    finished: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    save_plan(finished, msgspec.structs.replace(plan, keep_model="never"))
    adopting = msgspec.structs.replace(plan, run_id="support-7777777777", keep_model="never")
    finish(finished, adopting, name=JOB)
    model = lease(finished, f"{JOB}{leases.MODEL_SUFFIX}")
    leases.open_lease(finished, msgspec.structs.replace(model, run_id=adopting.run_id))
    releasing.release_model(finished, adopting, replace(call, run_id=adopting.run_id))
    assert JOB not in bedrock.models
