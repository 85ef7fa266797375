"""The model in use is swapped behind its deployment, so that whoever calls it keeps the ARN."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from customization import leases, promotion, releasing
from customization.errors import RequestRejected, ServingFailed
from customization.json_types import JsonObject
from customization.leases import Lease
from customization.model_in_use import read_in_use, served_in_use
from customization.promotion import promote_run, roll_back
from customization.runs import Call, Plan, save_plan
from customization.sweeper import sweep
from tests.unit.fakes import NOW, BedrockInMemory, GatewayInMemory

OLD, NEW = "dev-0a1b2c3d-bbbbbbbbbb-1", "dev-0a1b2c3d-aaaaaaaaaa-1"
OLD_RUN = "support-9999999999"
DEPLOYMENT, OWN = f"dev-0a1b2c3d-{OLD_RUN}", "dev-0a1b2c3d-support-0123456789"
ARN = f"arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/{DEPLOYMENT}"
UNTIL = NOW + timedelta(hours=100)
LATER = timedelta(minutes=5)


def open_lease(gateway: GatewayInMemory, name: str, kind: str, run: str, execution: str) -> None:
    lease = Lease(
        resource_name=name,
        kind=kind,
        run_id=run,
        dataset="support",
        execution_arn=execution,
        opened_at=NOW,
        hard_end=NOW + timedelta(hours=24),
    )
    leases.open_lease(gateway, lease)


@pytest.fixture
def served(claimed: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call) -> GatewayInMemory:
    """The gateway with an earlier run's model in use by a deployment, and this run's model served by its own."""
    bedrock.models |= {OLD, f"arn:model/{OLD}", NEW, f"arn:model/{NEW}"}
    tags = {"deployment": "0a1b2c3d"}
    for run, name, model in ((OLD_RUN, DEPLOYMENT, OLD), (plan.run_id, OWN, NEW)):
        bedrock.serve(mode="on-demand", name=name, model_arn=f"arn:model/{model}", tags=tags, units=1, token=name)
        bedrock.serving[name] = msgspec.structs.replace(bedrock.serving[name], status="Active")
        execution = call.execution_arn if run == plan.run_id else "arn:execution:earlier"
        open_lease(claimed, name, "on-demand", run, execution)
        open_lease(claimed, f"{model}{leases.MODEL_SUFFIX}", leases.MODEL, run, execution)
    earlier = finished_run(claimed, plan, OLD_RUN, OLD, "bbbbbbbbbb")
    kept = msgspec.structs.replace(earlier, keep=100.0)
    put = replace(call, run_id=OLD_RUN, execution_arn="arn:execution:earlier")
    claimed.runs.update(OLD_RUN, {"servingName": DEPLOYMENT})
    promotion.promote(claimed, kept, put, serving_arn=ARN, model_arn=f"arn:model/{OLD}")
    claimed.runs.update(call.run_id, {"jobName0": NEW, "servingName": OWN, "verdict": "better"})
    assert read_in_use(claimed, "support")
    return claimed


def finished_run(gateway: GatewayInMemory, plan: Plan, run: str, name: str, training: str) -> Plan:
    stage = msgspec.structs.replace(plan.stages[0], training_id=training)
    earlier = msgspec.structs.replace(plan, run_id=run, stages=(stage,))
    row: JsonObject = {"runId": run, "dataset": "support", "executionArn": "arn:execution:earlier", "attempt": 1}
    ended: JsonObject = {"state": "SUCCEEDED", "verdict": "better", "jobName0": name, "modelArn0": f"arn:model/{name}"}
    gateway.runs.put({**row, **ended})
    save_plan(gateway, earlier)
    return earlier


def promote(gateway: GatewayInMemory, plan: Plan, call: Call, after: timedelta = timedelta()) -> JsonObject:
    now = replace(call, now=NOW + after)
    own = f"arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/{OWN}"
    return promotion.promote(gateway, plan, now, serving_arn=own, model_arn=f"arn:model/{NEW}")


def in_use(gateway: GatewayInMemory) -> tuple[str, str | None]:
    found = read_in_use(gateway, "support")
    assert found
    return found.model_arn, found.serving_arn


@pytest.mark.parametrize("keep", [False, 6.0, 500.0])
def test_promotion_swaps_the_model_behind_the_deployment_and_then_deletes_the_runs_own(
    served: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call, *, keep: float
) -> None:
    plan = msgspec.structs.replace(plan, keep=keep)
    assert promote(served, plan, call) == {"status": "Updating", "waitSeconds": 60}
    assert promote(served, plan, call, LATER)["status"] == "Updating"
    assert bedrock.swaps == [(ARN, f"arn:model/{NEW}")]
    assert in_use(served) == (f"arn:model/{OLD}", ARN)
    assert OWN in bedrock.serving

    bedrock.end_swap()
    until = max(UNTIL, NOW + 2 * LATER + timedelta(hours=keep))
    assert promote(served, plan, call, 2 * LATER) == {
        "status": "Active",
        "waitSeconds": 0,
        "arn": ARN,
        "until": until.isoformat(),
    }
    assert in_use(served) == (f"arn:model/{NEW}", ARN)
    assert list(bedrock.serving) == [DEPLOYMENT]
    lease = msgspec.convert(served.leases.get(DEPLOYMENT), Lease)
    assert (lease.state, lease.keep_until) == ("OPEN", until)
    assert promote(served, plan, call, 3 * LATER)["arn"] == ARN
    assert len(bedrock.swaps) == 1


@pytest.mark.parametrize("status", ["UpdateFailed", "Updating"])
def test_an_update_that_fails_or_never_ends_leaves_the_model_before_in_use(
    served: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call, status: str
) -> None:
    promote(served, plan, call)
    bedrock.end_swap(status)
    with pytest.raises(ServingFailed, match=f"its update is {status}. The model of run {OLD_RUN} stays in use"):
        promote(served, plan, call, timedelta(hours=3, minutes=1))
    assert in_use(served) == (f"arn:model/{OLD}", ARN)
    promote(served, plan, replace(call, execution_arn="arn:execution:again"))
    assert len(bedrock.swaps) == (2 if status == "UpdateFailed" else 1)


@pytest.mark.parametrize("is_updating", [True, False])
def test_a_swap_that_is_refused_since_one_has_begun_meanwhile_is_waited_for(
    served: GatewayInMemory,
    bedrock: BedrockInMemory,
    plan: Plan,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_updating: bool,
) -> None:
    swap_model = bedrock.swap_model

    def refuse(deployment_arn: str, model_arn: str) -> None:
        if is_updating:  # the other of two calls at once
            swap_model(deployment_arn, model_arn)
        raise RequestRejected("The custom model deployment must be Active and not under update to be updated.")

    monkeypatch.setattr(bedrock, "swap_model", refuse)
    with nullcontext() if is_updating else pytest.raises(RequestRejected):
        assert promote(served, plan, call)["status"] == "Updating"
    assert in_use(served) == (f"arn:model/{OLD}", ARN)


@pytest.mark.parametrize("status", ["ABORTED", "FAILED"])
def test_a_swap_that_nobody_waits_for_any_more_is_undone_by_the_sweeper(
    served: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call, status: str
) -> None:
    served.executions["arn:execution:earlier"] = "SUCCEEDED"
    promote(served, plan, call)
    bedrock.end_swap()
    assert sweep(served, NOW).released == ()
    assert len(bedrock.swaps) == 1

    served.executions[call.execution_arn] = status
    bedrock.serving[DEPLOYMENT] = msgspec.structs.replace(bedrock.serving[DEPLOYMENT], update_status="Updating")
    sweep(served, NOW)
    assert len(bedrock.swaps) == 1
    bedrock.end_swap()
    [line] = [action.did for action in sweep(served, NOW).released if "again" in action.did]
    assert line.startswith(f"on-demand {DEPLOYMENT}: serves arn:model/{OLD} again")
    assert bedrock.swaps[1:] == [(ARN, f"arn:model/{OLD}")]
    assert in_use(served) == (f"arn:model/{OLD}", ARN)
    bedrock.end_swap()
    assert sweep(served, NOW).released == ()
    assert bedrock.serving[DEPLOYMENT].model_arn == f"arn:model/{OLD}"

    # Redriven, the execution begins anew
    served.executions[call.execution_arn] = "RUNNING"
    promote(served, plan, call, timedelta(hours=4))
    assert bedrock.swaps[2:] == [(ARN, f"arn:model/{NEW}")]


def test_a_model_that_cannot_be_swapped_back_sets_the_sweepers_alarm_off(
    served: GatewayInMemory, bedrock: BedrockInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.executions["arn:execution:earlier"] = "SUCCEEDED"
    bedrock.serving[DEPLOYMENT] = msgspec.structs.replace(bedrock.serving[DEPLOYMENT], model_arn="arn:model/another")

    def refuse(*_: str) -> None:
        raise RequestRejected("The model is not Active")

    monkeypatch.setattr(bedrock, "swap_model", refuse)
    [refused] = sweep(served, NOW).refused
    assert "The model is not Active" in refused.did


def test_a_rollback_swaps_back_behind_the_same_arn(
    served: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    promote(served, plan, call)
    bedrock.end_swap()
    promote(served, plan, call)
    rollback = Call(now=NOW, execution_arn="arn:execution:rollback", run_id="", attempt=0)
    assert roll_back(served, "support", rollback)["status"] == "Updating"
    assert in_use(served) == (f"arn:model/{NEW}", ARN)
    bedrock.end_swap()
    assert roll_back(served, "support", rollback)["modelArn"] == f"arn:model/{OLD}"
    assert in_use(served) == (f"arn:model/{OLD}", ARN)
    assert roll_back(served, "support", rollback)["modelArn"] == f"arn:model/{OLD}"
    assert len(bedrock.swaps) == 2


def test_promoting_a_finished_run_swaps_too(served: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan) -> None:
    finished_run(served, plan, plan.run_id, NEW, plan.training_id)
    by_hand = Call(now=NOW, execution_arn="arn:execution:promote", run_id="", attempt=0)
    assert promote_run(served, plan.run_id, by_hand)["status"] == "Updating"
    bedrock.end_swap()
    assert promote_run(served, plan.run_id, by_hand)["modelArn"] == f"arn:model/{NEW}"
    assert in_use(served) == (f"arn:model/{NEW}", ARN)
    assert promote_run(served, plan.run_id, replace(by_hand, execution_arn="arn:execution:again"))["status"] == "Active"
    assert len(bedrock.swaps) == 1


def test_a_model_of_another_base_model_is_not_put_behind_the_deployment(
    served: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    other = msgspec.structs.replace(plan, base_model_identifier="meta.llama3-1-8b-instruct-v1:0:128k", keep=6.0)
    assert promote(served, other, call)["status"] == "Active"
    assert bedrock.swaps == []
    assert in_use(served)[1] != ARN
    assert OWN in bedrock.serving


def test_when_the_deployment_that_was_swapped_goes_the_parameter_names_a_model_that_is_there(
    served: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    promote(served, plan, call)
    bedrock.end_swap()
    promote(served, plan, call)
    promotion.withdraw(served, msgspec.convert(served.leases.get(DEPLOYMENT), Lease), UNTIL)
    assert in_use(served) == (f"arn:model/{OLD}", None)


def test_a_failure_after_promotion_does_not_release_what_serves_the_model_in_use(
    served: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    bedrock.stop_serving("on-demand", DEPLOYMENT)
    promote(served, msgspec.structs.replace(plan, keep=6.0), call)
    releasing.release_all(served, call, "failed")
    assert list(bedrock.serving) == [OWN]


def test_the_model_in_use_can_be_asked_only_while_it_is_served_and_another_than_the_runs(
    served: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan
) -> None:
    found = served_in_use(served, plan)
    assert found
    assert (found.serving_arn, found.model_name) == (ARN, OLD)
    assert found.billed_model == plan.base_model_identifier
    same = msgspec.structs.replace(plan.stages[0], training_id="bbbbbbbbbb")
    assert served_in_use(served, msgspec.structs.replace(plan, stages=(same,))) is None
    assert served_in_use(served, msgspec.structs.replace(plan, stages=(same,), force=True)) == found
    bedrock.serving[DEPLOYMENT] = msgspec.structs.replace(bedrock.serving[DEPLOYMENT], model_arn="arn:model/another")
    assert served_in_use(served, plan) is None
    bedrock.stop_serving("on-demand", DEPLOYMENT)
    assert served_in_use(served, plan) is None
