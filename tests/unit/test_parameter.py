"""Row and parameter of a model in use come to the same, whoever writes at the same moment or dies between the two."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from customization import leases, model_in_use, promotion
from customization.errors import Throttled
from customization.leases import Lease
from customization.model_in_use import read_in_use
from customization.promotion import promote_run, roll_back
from customization.runs import Call, Plan
from customization.sweeper import sweep
from tests.unit.fakes import NOW, BedrockInMemory, GatewayInMemory
from tests.unit.test_promotion import PARAMETER, PROMOTE, ROLLBACK, finish, parameter

FIRST, A, B = "support-1111111111", "support-aaaaaaaaaa", "support-bbbbbbbbbb"
ANOTHER = replace(PROMOTE, execution_arn="arn:execution:another")


@pytest.fixture
def shop(gateway: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan) -> GatewayInMemory:
    """The gateway after three runs have succeeded; the model of the first is in use."""
    for run in (FIRST, A, B):
        bedrock.models |= {run, f"arn:model/{run}"}
        finish(gateway, msgspec.structs.replace(plan, run_id=run), name=run)
        lease = Lease(
            resource_name=f"{run}{leases.MODEL_SUFFIX}",
            kind=leases.MODEL,
            run_id=run,
            dataset="support",
            execution_arn=plan.execution_arn,
            opened_at=NOW,
            hard_end=NOW + leases.MODEL_RETENTION,
        )
        leases.open_lease(gateway, lease)
    promote_run(gateway, FIRST, PROMOTE)
    return gateway


def once(monkeypatch: pytest.MonkeyPatch, where: object, name: str, act: Callable[[], object], *, after: bool) -> None:
    """Let `act` happen before or after the next call of a function, and of that one alone."""
    call = getattr(where, name)

    def acting(*args: object, **values: object) -> object:
        monkeypatch.setattr(where, name, call)
        if not after:
            act()
        answer = call(*args, **values)
        if after:
            act()
        return answer

    monkeypatch.setattr(where, name, acting)


def in_use(gateway: GatewayInMemory) -> list[str]:
    """Return the runs whose models are and were in use, after the parameter was found to name the first."""
    model = read_in_use(gateway, "support")
    assert model
    assert parameter(gateway) == {"arn": model.model_arn, "until": None}
    return [model.promoted_run_id, *(earlier.promoted_run_id for earlier in model.previous)]


@pytest.mark.parametrize("is_run", [True, False], ids=["by its run", "by a person"])
def test_of_two_who_promote_at_once_the_second_to_write_the_row_comes_after_the_first(
    shop: GatewayInMemory, plan: Plan, call: Call, monkeypatch: pytest.MonkeyPatch, *, is_run: bool
) -> None:
    once(monkeypatch, promotion, "swap", lambda: promote_run(shop, B, ANOTHER), after=True)
    if is_run:
        shop.runs.update(A, {"jobName0": A})
        own = replace(call, run_id=A)
        promotion.promote(
            shop, msgspec.structs.replace(plan, run_id=A), own, serving_arn="", model_arn=f"arn:model/{A}"
        )
    else:
        promote_run(shop, A, PROMOTE)
    assert in_use(shop) == [A, B, FIRST]


def test_a_parameter_that_is_written_late_names_the_model_that_was_put_in_use_meanwhile(
    shop: GatewayInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(monkeypatch, shop, "put_parameter", lambda: promote_run(shop, B, ANOTHER), after=False)
    promote_run(shop, A, PROMOTE)
    assert in_use(shop) == [B, A, FIRST]


def test_a_rollback_during_a_promotion_goes_back_from_what_is_in_use_then(
    shop: GatewayInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote_run(shop, A, PROMOTE)
    once(monkeypatch, promotion, "swap", lambda: promote_run(shop, B, ANOTHER), after=True)
    roll_back(shop, "support", ROLLBACK)
    assert in_use(shop) == [A, FIRST]


@pytest.mark.parametrize("is_last", [False, True])
def test_the_sweeper_withdraws_no_model_that_was_put_in_use_while_it_looked(
    shop: GatewayInMemory, bedrock: BedrockInMemory, monkeypatch: pytest.MonkeyPatch, *, is_last: bool
) -> None:
    if not is_last:
        promote_run(shop, A, PROMOTE)
        bedrock.models -= {A, f"arn:model/{A}"}
    else:
        bedrock.models -= {FIRST, f"arn:model/{FIRST}"}
    once(monkeypatch, promotion, "previous_living", lambda: promote_run(shop, B, ANOTHER), after=True)
    swept = sweep(shop, NOW)
    assert swept.refused == ()
    assert in_use(shop)[0] == B
    assert shop.published == []
    assert sweep(shop, NOW).released == ()
    assert shop.published == []


def dying_once(monkeypatch: pytest.MonkeyPatch, gateway: GatewayInMemory, name: str) -> None:
    def die() -> None:
        raise Throttled("stopped here")

    once(monkeypatch, gateway, name, die, after=False)


def test_the_sweeper_names_what_a_promotion_has_put_in_use_that_died_before_it_named_it(
    shop: GatewayInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying_once(monkeypatch, shop, "put_parameter")
    with pytest.raises(Throttled):
        promote_run(shop, A, PROMOTE)
    assert parameter(shop) == {"arn": f"arn:model/{FIRST}", "until": None}
    [action] = sweep(shop, NOW).released
    assert in_use(shop) == [A, FIRST]
    assert action.did.startswith(f'parameter {PARAMETER}: says {{"arn": "arn:model/{A}"')
    assert sweep(shop, NOW).released == ()


def test_the_next_sweep_names_the_model_before_where_one_died_that_had_put_it_back(
    shop: GatewayInMemory, bedrock: BedrockInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote_run(shop, A, PROMOTE)
    bedrock.models -= {A, f"arn:model/{A}"}
    dying_once(monkeypatch, shop, "put_parameter")
    swept = sweep(shop, NOW)
    assert [action.did.split(":")[0] for action in swept.refused] == ["the model in use for support"]
    assert in_use(shop) == [FIRST]
    sweep(shop, NOW)
    assert [subject for subject, _ in shop.published] == [f"No longer in use: {A}"]


def test_a_parameter_without_a_row_is_removed_while_a_lease_tells_of_its_data_set(shop: GatewayInMemory) -> None:
    shop.runs.delete("promoted#support")
    [action] = sweep(shop, NOW).released
    assert parameter(shop) is None
    assert action.did.startswith(f"parameter {PARAMETER}: says nothing")


def test_a_removal_that_the_sweeper_takes_for_a_difference_removes_the_parameter_all_the_same(
    shop: GatewayInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(monkeypatch, shop, "delete_parameter", lambda: sweep(shop, NOW + timedelta(minutes=1)), after=True)
    assert model_in_use.remove_in_use(shop, "support", read_in_use(shop, "support"))
    assert parameter(shop) is None
    assert read_in_use(shop, "support") is None


def test_a_parameter_that_somebody_changes_by_hand_is_put_right(shop: GatewayInMemory) -> None:
    shop.put_parameter(PARAMETER, json.dumps({"arn": "arn:by-hand", "until": None}))
    sweep(shop, NOW)
    assert in_use(shop) == [FIRST]
