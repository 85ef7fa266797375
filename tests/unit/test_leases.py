"""Whatever bills has a lease, and no lease is closed before its resource is proven gone."""

from datetime import timedelta

import msgspec
import pytest
from botocore.client import BaseClient

from customization import leases, releasing
from customization.errors import (
    AccessDenied,
    ReleaseRefused,
    RequestRejected,
    ResourceNotFound,
    ServiceUnavailable,
    Throttled,
)
from customization.gateway import ExecutionEnd
from customization.gateway.bedrock import ON_DEMAND, PROVISIONED, ServedModel
from customization.gateway.tables import Condition, Items
from customization.json_types import JsonObject
from customization.leases import Lease
from customization.runs import Call
from customization.sweeper import Swept, sweep
from tests.unit.fakes import EXECUTION, NOW, BedrockInMemory, GatewayInMemory, job

JOB = "dev-0a1b2c3d-aaaaaaaaaa-1"
NAME = "dev-0a1b2c3d-support-0123456789"


def lease(kind: str = PROVISIONED, *, name: str = NAME, execution: str = EXECUTION, hours: float = 4) -> Lease:
    return Lease(
        resource_name=name,
        kind=kind,
        run_id="support-0123456789",
        dataset="support",
        execution_arn=execution,
        opened_at=NOW,
        hard_end=NOW + timedelta(hours=hours),
    )


def serve(bedrock: BedrockInMemory, *, mode: str = PROVISIONED, name: str = NAME, deployment: str = "0a1b2c3d") -> None:
    bedrock.serve(mode=mode, name=name, model_arn="arn:model", tags={"deployment": deployment}, units=1, token=name)


def open_names(gateway: GatewayInMemory) -> list[str]:
    return [found.resource_name for found in leases.open_leases(gateway)]


def test_what_a_running_execution_needs_is_left_alone(gateway: GatewayInMemory, bedrock: BedrockInMemory) -> None:
    serve(bedrock)
    leases.open_lease(gateway, lease())
    assert sweep(gateway, NOW + timedelta(hours=1)).released == ()
    assert NAME in bedrock.serving


@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT", "FAILED", "SUCCEEDED", "GONE"])
@pytest.mark.parametrize("mode", [ON_DEMAND, PROVISIONED])
def test_what_served_for_an_execution_that_ended_is_released(
    gateway: GatewayInMemory, bedrock: BedrockInMemory, status: str, mode: str
) -> None:
    serve(bedrock, mode=mode)
    leases.open_lease(gateway, lease(mode))
    gateway.executions[EXECUTION] = status
    sweep(gateway, NOW + timedelta(hours=1))
    assert bedrock.serving == {}
    assert open_names(gateway) == []


def test_a_resource_past_its_hard_end_is_released_though_its_execution_runs(
    gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    serve(bedrock)
    leases.open_lease(gateway, lease(hours=2))
    sweep(gateway, NOW + timedelta(hours=2))
    assert bedrock.serving == {}


def test_a_kept_resource_outlives_its_execution_until_its_time(
    gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    serve(bedrock)
    leases.open_lease(gateway, lease())
    gateway.executions[EXECUTION] = "SUCCEEDED"
    until = NOW + timedelta(hours=3)
    leases.keep(gateway, NAME, until)
    sweep(gateway, NOW + timedelta(hours=2, minutes=59))
    assert NAME in bedrock.serving
    sweep(gateway, until)
    assert bedrock.serving == {}


@pytest.mark.parametrize("hours", [1, 100])
def test_a_lease_that_is_taken_over_is_kept_as_long_as_was_promised_before(
    gateway: GatewayInMemory, hours: float
) -> None:
    leases.open_lease(gateway, lease())
    until = NOW + timedelta(hours=hours)
    leases.keep(gateway, NAME, until)
    gateway.leases.update(NAME, {"endTold": until.isoformat()})
    leases.open_lease(gateway, lease(execution="arn:again"))
    [taken_over] = leases.open_leases(gateway)
    assert (taken_over.execution_arn, taken_over.keep_until) == ("arn:again", until)
    assert taken_over.hard_end == max(until, lease().hard_end)
    assert taken_over.end_told == until

    leases.keep(gateway, NAME, until - timedelta(minutes=1))
    assert leases.open_leases(gateway)[0].keep_until == until
    leases.end(gateway, NAME, NOW)
    assert leases.open_leases(gateway)[0].keep_until == NOW


def test_a_lease_that_was_closed_promises_nothing(gateway: GatewayInMemory) -> None:
    leases.open_lease(gateway, lease())
    leases.keep(gateway, NAME, NOW + timedelta(hours=100))
    leases.close(gateway, leases.open_leases(gateway)[0], NOW, "somebody deleted it", was_there=True)
    leases.keep(gateway, NAME, NOW + timedelta(hours=200))
    leases.open_lease(gateway, lease())
    assert leases.open_leases(gateway) == [lease()]


def test_a_promise_that_is_made_while_a_lease_is_taken_over_is_not_lost(
    gateway: GatewayInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases.open_lease(gateway, lease())
    until = NOW + timedelta(hours=100)
    put = type(gateway.leases).put

    def put_late(items: Items, item: "JsonObject", condition: Condition | None = None) -> bool:
        leases.keep(gateway, NAME, until)
        return put(items, item, condition)

    monkeypatch.setattr(Items, "put", put_late)
    leases.open_lease(gateway, lease(execution="arn:again"))
    assert leases.open_leases(gateway)[0].keep_until == until


def test_the_lease_of_something_absent_stays_open_while_its_creator_may_still_run(gateway: GatewayInMemory) -> None:
    leases.open_lease(gateway, lease())
    gateway.executions[EXECUTION] = "ABORTED"
    sweep(gateway, NOW + timedelta(minutes=14))
    assert open_names(gateway) == [NAME]
    sweep(gateway, NOW + timedelta(minutes=15))
    assert open_names(gateway) == []


def test_the_lease_of_what_was_there_and_is_gone_is_closed_at_once(gateway: GatewayInMemory) -> None:
    """Else those who are told what still bills would be told of it."""
    leases.open_lease(gateway, msgspec.structs.replace(lease(), created_at=NOW))
    gateway.executions[EXECUTION] = "ABORTED"
    sweep(gateway, NOW + timedelta(minutes=2))
    assert open_names(gateway) == []


def test_what_aws_refuses_to_delete_for_now_is_tried_again(gateway: GatewayInMemory, bedrock: BedrockInMemory) -> None:
    serve(bedrock)
    bedrock.busy.add(NAME)
    leases.open_lease(gateway, lease())
    gateway.executions[EXECUTION] = "ABORTED"
    sweep(gateway, NOW + timedelta(minutes=20))
    assert open_names(gateway) == [NAME]
    bedrock.busy.clear()
    sweep(gateway, NOW + timedelta(minutes=35))
    assert bedrock.serving == {}
    assert open_names(gateway) == []


@pytest.fixture
def kept(gateway: GatewayInMemory, bedrock: BedrockInMemory) -> Lease:
    """The lease of what a run that is over has kept for 720 hours, and what AWS does not delete yet."""
    serve(bedrock)
    bedrock.busy.add(NAME)
    leases.open_lease(gateway, known(bedrock))
    leases.keep(gateway, NAME, NOW + timedelta(hours=720))
    gateway.executions[EXECUTION] = "SUCCEEDED"
    [found] = leases.open_leases(gateway)
    return found


def test_what_somebody_asked_to_release_is_tried_again_though_it_was_kept(
    gateway: GatewayInMemory, bedrock: BedrockInMemory, kept: Lease
) -> None:
    released = releasing.release_dataset(gateway, kept.dataset, NOW)
    assert released == {"released": [f"provisioned {NAME}: stopping"]}
    assert sweep(gateway, NOW + timedelta(minutes=15)).overdue == ()
    bedrock.busy.clear()
    sweep(gateway, NOW + timedelta(minutes=30))
    assert (bedrock.serving, open_names(gateway)) == ({}, [])


def test_what_aws_does_not_delete_for_an_hour_is_overdue_and_not_while_another_run_needs_or_keeps_it(
    gateway: GatewayInMemory, kept: Lease
) -> None:
    releasing.release_dataset(gateway, kept.dataset, NOW)
    assert sweep(gateway, NOW + timedelta(minutes=59)).overdue == ()
    assert sweep(gateway, NOW + timedelta(hours=1)).overdue == (NAME,)
    leases.keep(gateway, NAME, NOW + timedelta(hours=10))
    assert sweep(gateway, NOW + timedelta(hours=2)).overdue == ()
    assert sweep(gateway, NOW + timedelta(hours=9)).overdue == ()

    heir = msgspec.structs.replace(kept, execution_arn="arn:heir", opened_at=LATER, keep_until=None)
    gateway.executions["arn:heir"] = "RUNNING"
    leases.open_lease(gateway, heir)
    assert sweep(gateway, NOW + timedelta(hours=9)).overdue == ()


def test_a_release_takes_no_promise_from_whoever_has_taken_the_lease_over_meanwhile(
    gateway: GatewayInMemory, kept: Lease
) -> None:
    leases.open_lease(gateway, msgspec.structs.replace(kept, execution_arn="arn:heir", opened_at=LATER))
    leases.release(gateway, kept, LATER, "somebody asked for it")
    assert leases.open_leases(gateway)[0].keep_until == kept.keep_until


@pytest.mark.parametrize(
    ("status", "update", "is_for_now"),
    [("Creating", "", True), ("Updating", "", True), ("Active", "Updating", True), ("InService", "", False)],
)
def test_a_refusal_of_what_does_not_change_is_lasting_and_never_called_a_release(
    gateway: GatewayInMemory,
    bedrock: BedrockInMemory,
    kept: Lease,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    update: str,
    *,
    is_for_now: bool,
) -> None:
    def refuse(_mode: str, _identifier: str) -> None:
        raise RequestRejected("DeleteProvisionedModelThroughput: not like this (ValidationException)")

    bedrock.serving[NAME] = msgspec.structs.replace(bedrock.serving[NAME], status=status, update_status=update)
    monkeypatch.setattr(bedrock, "stop_serving", refuse)
    outcome = "stopping" if is_for_now else "refused"
    assert releasing.release_dataset(gateway, kept.dataset, NOW) == {"released": [f"provisioned {NAME}: {outcome}"]}
    assert bool(sweep(gateway, NOW).refused) != is_for_now
    assert open_names(gateway) == [NAME]


def test_a_lasting_refusal_keeps_a_failed_run_from_releasing_nothing_else(
    gateway: GatewayInMemory, bedrock: BedrockInMemory, call: Call
) -> None:
    serve(bedrock)
    leases.open_lease(gateway, known(bedrock))
    bedrock.tag_sets.clear()
    bedrock.jobs[JOB] = job(JOB)
    leases.open_lease(gateway, lease(leases.JOB, name=JOB))
    done = leases.release_run(gateway, call, (*leases.SERVING, leases.JOB), "the run failed")
    assert [item.outcome for item in done] == ["refused", "stopping"]


def test_the_job_of_a_dead_run_is_stopped_and_its_lease_closed_once_it_has(
    gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    bedrock.jobs["dev-0a1b2c3d-aaaaaaaaaa-1"] = job("dev-0a1b2c3d-aaaaaaaaaa-1")
    leases.open_lease(gateway, lease(leases.JOB, name="dev-0a1b2c3d-aaaaaaaaaa-1"))
    gateway.executions[EXECUTION] = "ABORTED"
    sweep(gateway, NOW + timedelta(minutes=20))
    assert bedrock.jobs["dev-0a1b2c3d-aaaaaaaaaa-1"].status == "Stopping"
    assert open_names(gateway) == ["dev-0a1b2c3d-aaaaaaaaaa-1"]
    bedrock.jobs["dev-0a1b2c3d-aaaaaaaaaa-1"] = job("dev-0a1b2c3d-aaaaaaaaaa-1", status="Stopped")
    sweep(gateway, NOW + timedelta(minutes=35))
    assert open_names(gateway) == []


@pytest.mark.parametrize("kind", [leases.JOB, leases.MODEL])
def test_a_job_or_a_model_that_another_run_works_with_is_left_to_that_run_until_its_hard_end(
    gateway: GatewayInMemory, bedrock: BedrockInMemory, kind: str
) -> None:
    name, other = "dev-0a1b2c3d-aaaaaaaaaa-1", EXECUTION.replace("first", "second")
    bedrock.jobs[name] = job(name, status="InProgress" if kind == leases.JOB else "Completed")
    bedrock.models = {name}
    held = lease(kind, name=name if kind == leases.JOB else f"{name}{leases.MODEL_SUFFIX}")
    leases.open_lease(gateway, held)
    gateway.executions.update({EXECUTION: "ABORTED", other: "RUNNING"})
    row: JsonObject = {"dataset": "other", "executionArn": other, "attempt": 1, "state": "RUNNING", "jobName0": name}
    gateway.runs.put({"runId": "other-0123456789", **row})

    assert leases.release(gateway, held, NOW, "its execution is ABORTED").outcome == "handedOver"
    [handed] = leases.open_leases(gateway)
    assert (handed.run_id, handed.dataset, handed.execution_arn) == ("other-0123456789", "other", other)
    sweep(gateway, NOW + timedelta(hours=1))
    assert bedrock.jobs[name].status != "Stopping"
    assert bedrock.models == {name}

    gateway.runs.update("other-0123456789", {"state": "FAILED"})
    outcome = leases.release(gateway, handed, NOW, "the run failed").outcome
    assert outcome == ("stopping" if kind == leases.JOB else "released")


def test_a_lease_that_is_over_is_left_to_nobody(gateway: GatewayInMemory, bedrock: BedrockInMemory) -> None:
    name = "dev-0a1b2c3d-aaaaaaaaaa-1"
    bedrock.jobs[name] = job(name)
    row: JsonObject = {"dataset": "other", "executionArn": "other", "attempt": 1, "state": "RUNNING", "jobName0": name}
    gateway.runs.put({"runId": "other-0123456789", **row})
    held = lease(leases.JOB, name=name)
    assert leases.release(gateway, held, held.hard_end, "the budget").outcome == "stopping"


def test_another_deployments_resource_of_the_same_name_is_left_alone(
    gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    serve(bedrock, deployment="ffffffff")
    leases.open_lease(gateway, lease())
    gateway.executions[EXECUTION] = "ABORTED"
    sweep(gateway, NOW + timedelta(hours=1))
    assert NAME in bedrock.serving


def rename(bedrock: BedrockInMemory, name: str = "support-desk") -> str:
    """Do as UpdateProvisionedModelThroughput does with another name, and return it."""
    bedrock.serving[name] = msgspec.structs.replace(bedrock.serving.pop(NAME), name=name)
    return name


def known(bedrock: BedrockInMemory) -> Lease:
    """Return the lease of what `serve` serves, as it is once Bedrock has shown it."""
    return msgspec.structs.replace(lease(), arn=bedrock.serving[NAME].arn, created_at=NOW)


def test_what_somebody_renames_is_still_known_and_released_at_its_end(
    gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    serve(bedrock)
    leases.open_lease(gateway, known(bedrock))
    rename(bedrock)
    swept = sweep(gateway, NOW + timedelta(hours=1))
    assert ([live.resource_name for live in swept.live], swept.overdue) == ([NAME], ())
    assert open_names(gateway) == [NAME]
    sweep(gateway, NOW + timedelta(hours=4))
    assert (bedrock.serving, open_names(gateway)) == ({}, [])


@pytest.mark.parametrize("tags", [{"deployment": "cost-centre-7"}, {}])
def test_what_a_lease_has_made_and_somebody_else_has_tagged_is_refused_and_overdue_and_never_closed(
    gateway: GatewayInMemory, bedrock: BedrockInMemory, tags: dict[str, str]
) -> None:
    serve(bedrock)
    leases.open_lease(gateway, known(bedrock))
    bedrock.tag_sets[bedrock.serving[NAME].arn] = tags
    rename(bedrock)
    swept = sweep(gateway, NOW + timedelta(hours=4))
    with pytest.raises(ReleaseRefused, match="Set its tag deployment to 0a1b2c3d again"):
        swept.raise_refused()
    assert swept.overdue == (NAME,)
    assert (open_names(gateway), len(bedrock.serving)) == ([NAME], 1)


@pytest.mark.parametrize(
    ("name", "tags", "is_told"),
    [
        ("support-desk", {"deployment": "0a1b2c3d"}, True),
        (NAME, {}, True),
        (NAME, {"deployment": "ffffffff"}, False),
        ("support-desk", {}, False),
    ],
)
def test_what_serves_without_a_lease_under_our_name_or_tag_alone_is_overdue_and_left_to_a_person(
    gateway: GatewayInMemory, bedrock: BedrockInMemory, name: str, tags: dict[str, str], *, is_told: bool
) -> None:
    bedrock.serve(mode=PROVISIONED, name=name, model_arn="arn:model", tags=tags, units=1, token=name)
    swept = sweep(gateway, LATER)
    assert swept.overdue == (name,) * is_told
    assert list(bedrock.serving) == [name]


def test_a_resource_of_this_deployment_without_a_lease_is_released_once_it_is_no_longer_new(
    gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    serve(bedrock)
    serve(bedrock, name="somebody-elses")
    sweep(gateway, NOW + timedelta(minutes=10))
    assert NAME in bedrock.serving
    sweep(gateway, NOW + timedelta(minutes=20))
    assert list(bedrock.serving) == ["somebody-elses"]


REFUSALS = [
    AccessDenied("no permission"),
    RequestRejected("the identifier is invalid"),
    Throttled("slow down"),
    ServiceUnavailable("internal error"),
]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_aws_refuses_for_one_lease_keeps_the_sweeper_from_no_other(
    gateway: GatewayInMemory, bedrock: BedrockInMemory, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    serve(bedrock)
    leases.open_lease(gateway, lease())
    leases.open_lease(gateway, lease(leases.JOB, name="dev-0a1b2c3d-aaaaaaaaaa-1"))
    gateway.executions[EXECUTION] = "ABORTED"

    def refuse(_name: str) -> None:
        raise refusal

    # Jobs are released after what serves a model and before the models
    monkeypatch.setattr(bedrock, "job", refuse)
    leases.open_lease(gateway, lease(leases.MODEL, name="dev-0a1b2c3d-aaaaaaaaaa-1/model"))
    bedrock.models.add("dev-0a1b2c3d-aaaaaaaaaa-1")
    swept = sweep(gateway, NOW + timedelta(hours=1))
    told = f"job dev-0a1b2c3d-aaaaaaaaaa-1: refused: {type(refusal).__name__}: {refusal}"
    with pytest.raises(ReleaseRefused, match=told):
        swept.raise_refused()
    assert [action.run_id for action in swept.refused] == ["support-0123456789"]
    assert not bedrock.serving
    assert not bedrock.models


@pytest.fixture
def broken(gateway: GatewayInMemory, bedrock: BedrockInMemory) -> GatewayInMemory:
    """Two dead executions, each with something that serves; the first one's is what a test breaks."""
    for number, execution in ((1, "arn:first"), (2, "arn:second")):
        name = f"{NAME}-{number}"
        serve(bedrock, name=name)
        leases.open_lease(gateway, lease(name=name, execution=execution))
        gateway.executions[execution] = "ABORTED"
    return gateway


LATER = NOW + timedelta(hours=1)


def assert_the_second_alone_was_released(swept: Swept, bedrock: BedrockInMemory, said: str) -> None:
    assert list(bedrock.serving) == [f"{NAME}-1"]
    with pytest.raises(ReleaseRefused, match=said):
        swept.raise_refused()


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_execution_whose_status_cannot_be_read_keeps_its_own_lease_alone_and_that_until_its_hard_end(
    broken: GatewayInMemory, bedrock: BedrockInMemory, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    ask = broken.execution_status

    def refuse(arn: str) -> ExecutionEnd:
        if arn == "arn:first":
            raise refusal
        return ask(arn)

    monkeypatch.setattr(broken, "execution_status", refuse)
    assert_the_second_alone_was_released(sweep(broken, LATER), bedrock, f"{NAME}-1: refused: .*{refusal}")
    assert sweep(broken, NOW + timedelta(hours=4)).refused == ()
    assert bedrock.serving == {}


def test_a_damaged_lease_is_named_and_keeps_no_other_and_its_resource_is_no_orphan(
    broken: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    broken.leases.update(f"{NAME}-1", {"hardEnd": "soon"})
    swept = sweep(broken, LATER)
    assert_the_second_alone_was_released(swept, bedrock, f"Table leases, resourceName {NAME}-1: .*hardEnd")
    assert len(swept.refused) == 1


def test_a_damaged_model_in_use_is_named_and_keeps_its_data_set_alone_and_that_until_the_hard_end(
    broken: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    broken.runs.put({"runId": "promoted#support", "promotedRunId": 1})
    broken.leases.update(f"{NAME}-2", {"dataset": "other"})
    swept = sweep(broken, LATER)
    assert_the_second_alone_was_released(swept, bedrock, "Table runs, runId promoted#support: .*point-in-time recovery")
    sweep(broken, NOW + timedelta(hours=4))
    assert bedrock.serving == {}


def test_a_damaged_run_keeps_nothing_from_being_released(broken: GatewayInMemory, bedrock: BedrockInMemory) -> None:
    broken.runs.put({"runId": "support-0123456789", "state": "RUNNING"})
    broken.runs.put({"runId": "support-9999999999", "state": "FAILED", "usage": {}})
    swept = sweep(broken, LATER)
    assert bedrock.serving == {}
    with pytest.raises(ReleaseRefused, match=r"(?s)run support-0123456789: refused.*run support-9999999999: refused"):
        swept.raise_refused()


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_notice_that_is_refused_keeps_nothing_billing_and_is_told_by_the_next_sweep(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    serve(bedrock)
    leases.open_lease(claimed, lease())
    claimed.executions[EXECUTION] = "ABORTED"

    def refuse(_subject: str, _message: str) -> None:
        raise refusal

    with monkeypatch.context() as patch:
        patch.setattr(claimed, "publish", refuse)
        swept = sweep(claimed, LATER)
    assert bedrock.serving == {}
    with pytest.raises(ReleaseRefused, match=f"notice about support-0123456789: refused: .*{refusal}"):
        swept.raise_refused()
    assert sweep(claimed, LATER).refused == ()
    sweep(claimed, LATER)
    assert [subject for subject, _ in claimed.published] == ["Aborted: support-0123456789"]


def test_a_sweep_that_is_killed_at_any_call_is_completed_by_the_next(
    claimed: GatewayInMemory, bedrock: BedrockInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(bedrock)
    leases.open_lease(claimed, lease())
    bedrock.models.add(JOB)
    leases.open_lease(claimed, lease(leases.MODEL, name=f"{JOB}/model"))
    claimed.executions[EXECUTION] = "ABORTED"
    one_call = BaseClient._make_api_call  # type: ignore[attr-defined]  # private, and thus not in the stubs
    left = 0

    def die(client: BaseClient, operation: str, parameters: JsonObject) -> object:
        nonlocal left
        if not left:
            raise SystemExit
        left -= 1
        return one_call(client, operation, parameters)

    deaths = 0
    while True:
        left = deaths
        with monkeypatch.context() as patch:
            patch.setattr(BaseClient, "_make_api_call", die)
            try:
                sweep(claimed, LATER)
            except SystemExit:
                deaths += 1
            else:
                break
    assert deaths > 10
    assert (bedrock.serving, bedrock.models, open_names(claimed)) == ({}, set(), [])
    assert (claimed.runs.get("support-0123456789") or {})["state"] == "ABORTED"
    assert "Aborted: support-0123456789" in [subject for subject, _ in claimed.published]


def test_a_data_set_may_be_named_refused(gateway: GatewayInMemory, bedrock: BedrockInMemory) -> None:
    name = "dev-0a1b2c3d-refused-loans-0123456789"
    serve(bedrock, name=name)
    leases.open_lease(gateway, lease(name=name, execution="arn:gone"))
    swept = sweep(gateway, LATER)
    assert ([action.run_id for action in swept.released], swept.refused) == (["support-0123456789"], ())


def test_a_sweep_tells_what_is_live_and_what_it_bills_an_hour(
    gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    serve(bedrock)
    leases.open_lease(gateway, msgspec.structs.replace(lease(), hourly_usd=20.5))
    leases.open_lease(gateway, lease(ON_DEMAND, name="dev-0a1b2c3d-not-created-yet"))
    swept = sweep(gateway, NOW + timedelta(hours=1))
    assert [(found.resource_name, found.hourly_usd) for found in swept.live] == [(NAME, 20.5)]
    assert swept.overdue == ()


def test_what_bills_past_its_hard_end_and_cannot_be_released_is_overdue(
    gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    serve(bedrock)
    bedrock.busy.add(NAME)
    leases.open_lease(gateway, lease(hours=2))
    assert sweep(gateway, NOW + timedelta(hours=1)).overdue == ()
    assert sweep(gateway, NOW + timedelta(hours=2)).overdue == (NAME,)
    bedrock.busy.clear()
    assert sweep(gateway, NOW + timedelta(hours=2, minutes=15)).overdue == ()


def test_what_bills_without_a_lease_and_cannot_be_released_is_overdue(
    gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    serve(bedrock)
    bedrock.busy.add(NAME)
    assert sweep(gateway, NOW + timedelta(hours=1)).overdue == (NAME,)


def test_a_model_of_this_deployment_without_a_lease_is_overdue_and_left_to_a_person(
    gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    bedrock.models |= {"dev-0a1b2c3d-aaaaaaaaaa-1", "somebody-elses"}
    assert sweep(gateway, NOW + timedelta(days=30)).overdue == ("dev-0a1b2c3d-aaaaaaaaaa-1",)
    assert len(bedrock.models) == 2


def test_what_has_our_name_and_another_deployments_tag_is_neither_released_nor_overdue(
    gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    serve(bedrock, deployment="ffffffff")
    swept = sweep(gateway, NOW + timedelta(days=1))
    assert (swept.released, swept.overdue) == ((), ())
    assert NAME in bedrock.serving


def test_a_job_that_is_stopping_bills_no_more(gateway: GatewayInMemory, bedrock: BedrockInMemory) -> None:
    bedrock.jobs["dev-0a1b2c3d-aaaaaaaaaa-1"] = job("dev-0a1b2c3d-aaaaaaaaaa-1")
    leases.open_lease(gateway, lease(leases.JOB, name="dev-0a1b2c3d-aaaaaaaaaa-1", hours=2))
    assert [found.kind for found in sweep(gateway, NOW + timedelta(hours=1)).live] == [leases.JOB]
    swept = sweep(gateway, NOW + timedelta(hours=2))
    assert (swept.live, swept.overdue) == ((), ())


def test_a_run_that_died_without_its_catch_is_recorded_and_told_once(claimed: GatewayInMemory, call: Call) -> None:
    claimed.executions[EXECUTION] = "ABORTED"
    assert sweep(claimed, NOW).runs == (call.run_id,)
    assert sweep(claimed, NOW).runs == ()
    row = claimed.runs.get(call.run_id)
    assert row is not None
    assert row["state"] == "ABORTED"
    assert row["cause"] == "Somebody stopped the execution."
    assert len(claimed.published) == 1


@pytest.mark.parametrize("state", ["SUCCEEDED", "ESTIMATED"])
def test_a_result_whose_execution_was_stopped_before_its_notice_is_told_once(
    claimed: GatewayInMemory, call: Call, state: str
) -> None:
    claimed.runs.update(call.run_id, {"state": state, "reportKey": "runs/x/report.html"})
    claimed.executions[EXECUTION] = "ABORTED"
    for _ in range(2):  # an event may come twice
        sweep(claimed, NOW, (EXECUTION, ExecutionEnd("ABORTED")))
    [(subject, message)] = claimed.published
    assert subject == "Done: support-0123456789"
    assert "runs/x/report.html" in message
    assert (claimed.runs.get(call.run_id) or {})["state"] == state


def test_an_execution_that_failed_without_failure_handling_is_told_once(claimed: GatewayInMemory) -> None:
    claimed.executions[EXECUTION] = "FAILED"
    for _ in range(2):
        sweep(claimed, NOW, (EXECUTION, ExecutionEnd("FAILED", "States.Runtime")))
        sweep(claimed, NOW, (EXECUTION.replace("first", "second"), ExecutionEnd("FAILED", "States.Runtime")))
    assert [subject.partition(":")[0] for subject, _ in claimed.published] == ["Failed", "Failed"]


def test_a_model_goes_only_after_what_serves_it(gateway: GatewayInMemory, bedrock: BedrockInMemory) -> None:
    serve(bedrock)
    bedrock.models.add("dev-0a1b2c3d-aaaaaaaaaa-1")
    leases.open_lease(gateway, lease(leases.MODEL, name="dev-0a1b2c3d-aaaaaaaaaa-1/model"))
    leases.open_lease(gateway, lease())
    released = sweep(gateway, NOW + timedelta(days=1)).released
    assert [action.did.partition(" ")[0] for action in released] == [PROVISIONED, leases.MODEL]


def test_an_attempt_releases_only_its_own(gateway: GatewayInMemory, bedrock: BedrockInMemory, call: Call) -> None:
    serve(bedrock)
    leases.open_lease(gateway, lease(execution="arn:another"))
    assert leases.release_run(gateway, call, (PROVISIONED,), "the run failed") == []
    assert NAME in bedrock.serving


def test_a_served_model_is_ready_only_when_active_or_in_service() -> None:
    served = ServedModel(
        arn="a", name="n", mode=ON_DEMAND, status="Creating", model_arn="m", failure_message="", created=NOW
    )
    assert not served.is_ready


def test_what_somebody_else_deletes_before_its_tags_are_read_is_absent(
    gateway: GatewayInMemory, bedrock: BedrockInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: str) -> dict[str, str]:
        raise ResourceNotFound("ListTagsForResource: not found")

    serve(bedrock)
    leases.open_lease(gateway, lease())
    monkeypatch.setattr(bedrock, "tags", gone)
    later = NOW + timedelta(hours=1)
    assert leases.release(gateway, lease(), later, "the run failed").outcome == "absent"
    assert open_names(gateway) == []


@pytest.mark.parametrize("mode", [ON_DEMAND, PROVISIONED])
def test_what_serves_without_a_lease_is_released_though_no_run_is_known_to_settle(
    gateway: GatewayInMemory, bedrock: BedrockInMemory, mode: str
) -> None:
    tags = {"deployment": gateway.settings.deployment_id}
    bedrock.serve(mode=mode, name=NAME, model_arn="arn:model/x", tags=tags, units=1, token="")
    swept = sweep(gateway, NOW + timedelta(hours=2))
    assert (bedrock.serving, swept.refused, len(swept.released)) == ({}, (), 1)
