"""One job for each training, whatever is retried, repeated or adopted."""

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from customization import leases, training
from customization.errors import (
    Conflict,
    CustomizationJobFailed,
    CustomizationJobStalled,
    CustomizationJobStopped,
    QuotaUnavailable,
)
from customization.gateway.bedrock import JobRequest
from customization.runs import Call, Plan
from tests.unit.fakes import NOW, BedrockInMemory, GatewayInMemory, job, settled

NAME = "dev-0a1b2c3d-aaaaaaaaaa-1"
MINE = {"deployment": "0a1b2c3d"}


@pytest.fixture
def prepared(claimed: GatewayInMemory, plan: Plan) -> GatewayInMemory:
    files = [{"training": f"s3://artifacts/{plan.prefix}data/train.jsonl"}]
    claimed.artifacts.put(f"{plan.prefix}data/files.json", msgspec.json.encode(files))
    return claimed


def there(bedrock: BedrockInMemory, status: str, name: str = NAME) -> None:
    arn = f"arn:job/{name}"
    bedrock.jobs[name] = job(name, status=status, arn=arn)
    bedrock.tag_sets[arn] = MINE
    if status == "Completed":
        bedrock.models.add(f"arn:model/{name}")


def test_a_retry_of_the_state_creates_no_second_job(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    first = training.create_job(prepared, plan, call, 0)
    assert training.create_job(prepared, plan, call, 0) == first
    assert bedrock.created == [NAME]


def test_a_retry_creates_no_second_job_even_when_training_is_forced(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    there(bedrock, "Completed")
    forced = msgspec.structs.replace(plan, force=True)
    training.create_job(prepared, forced, call, 0)
    training.create_job(prepared, forced, call, 0)
    assert bedrock.created == ["dev-0a1b2c3d-aaaaaaaaaa-2"]


@pytest.mark.parametrize("status", ["Completed", "InProgress"])
def test_a_job_of_the_same_training_is_adopted(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call, status: str
) -> None:
    there(bedrock, status)
    assert training.create_job(prepared, plan, call, 0)["jobArn"] == f"arn:job/{NAME}"
    assert bedrock.created == []
    assert (prepared.runs.get(plan.run_id) or {})["jobAdopted0"] is True


def test_the_job_of_a_redriven_execution_is_not_taken_for_another_runs(
    prepared: GatewayInMemory, plan: Plan, call: Call
) -> None:
    training.create_job(prepared, plan, call, 0)
    training.create_job(prepared, plan, replace(call, now=NOW + timedelta(hours=2)), 0)
    assert "jobAdopted0" not in (prepared.runs.get(plan.run_id) or {})


def test_a_redriven_run_reserves_again_before_it_goes_on_with_a_job_that_is_there(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    there(bedrock, "InProgress")
    month = settled(prepared, call.run_id, reserved_usd=12.5)
    training.create_job(prepared, plan, call, 0)
    assert (prepared.runs.get(month) or {})["committedUsd"] == 12.5


@pytest.mark.parametrize("status", ["Failed", "Stopped", "Stopping"])
def test_a_job_that_failed_or_was_stopped_makes_the_next_number(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call, status: str
) -> None:
    there(bedrock, status)
    training.create_job(prepared, plan, call, 0)
    assert bedrock.created == ["dev-0a1b2c3d-aaaaaaaaaa-2"]


def test_a_completed_job_whose_model_is_gone_is_not_adopted(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    there(bedrock, "Completed")
    bedrock.models.clear()
    training.create_job(prepared, plan, call, 0)
    assert bedrock.created == ["dev-0a1b2c3d-aaaaaaaaaa-2"]


def test_another_deployments_job_of_the_same_name_is_not_adopted(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    there(bedrock, "Completed")
    bedrock.tag_sets.clear()
    training.create_job(prepared, plan, call, 0)
    assert bedrock.created == ["dev-0a1b2c3d-aaaaaaaaaa-2"]


def test_the_lease_is_written_before_the_job_is_created(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    bedrock.refusals.append(QuotaUnavailable("Number of jobs"))
    with pytest.raises(QuotaUnavailable, match=plan.base_model_identifier):
        training.create_job(prepared, plan, call, 0)
    lease = prepared.leases.get(NAME)
    assert lease is not None
    assert lease["state"] == "OPEN"


def test_a_model_of_a_run_that_dies_is_kept_no_longer_than_one_of_a_run_that_ends(
    prepared: GatewayInMemory, plan: Plan, call: Call
) -> None:
    training.create_job(prepared, plan, call, 0)
    lease = msgspec.convert(prepared.leases.get(f"{NAME}{leases.MODEL_SUFFIX}"), leases.Lease)
    assert lease.keep_until == NOW + leases.MODEL_RETENTION < lease.hard_end


def test_a_job_that_exists_after_a_conflict_is_adopted_and_one_that_does_not_fails_the_run(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    bedrock.refusals.append(Conflict("The provided job name is currently in use."))
    with pytest.raises(CustomizationJobFailed, match="currently in use"):
        training.create_job(prepared, plan, call, 0)


@pytest.mark.parametrize("calls", [1, 2])
def test_a_job_that_another_run_creates_at_the_same_moment_is_that_runs(
    prepared: GatewayInMemory,
    bedrock: BedrockInMemory,
    plan: Plan,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    calls: int,
) -> None:
    def conflict(_: JobRequest) -> str:
        there(bedrock, "InProgress")
        raise Conflict("The provided job name is currently in use.")

    monkeypatch.setattr(bedrock, "create_job", conflict)
    for _ in range(calls):
        assert training.create_job(prepared, plan, call, 0)["jobArn"] == f"arn:job/{NAME}"
    assert (prepared.runs.get(plan.run_id) or {})["jobAdopted0"] is True


def test_the_poll_interval_grows_from_one_to_twenty_minutes(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, call: Call
) -> None:
    there(bedrock, "InProgress")
    waits, now = [], NOW
    while now < NOW + timedelta(hours=24):
        wait = training.poll_job(prepared, replace(call, now=now), NAME)["waitSeconds"]
        assert isinstance(wait, int)
        waits.append(wait)
        now += timedelta(seconds=wait)
    assert (waits[0], waits[-1]) == (60, 1200)
    assert len(waits) * 9 < 850


def test_a_failed_job_ends_the_run_with_bedrocks_message(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, call: Call
) -> None:
    bedrock.jobs[NAME] = msgspec.structs.replace(
        job(NAME, status="Failed"), failure_message="Input size exceeded in file train.jsonl"
    )
    with pytest.raises(CustomizationJobFailed, match=r"Input size exceeded in file train\.jsonl"):
        training.poll_job(prepared, call, NAME)


def test_what_bedrock_quotes_of_a_record_is_not_raised_but_kept_in_the_row(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    message = "Input size exceeded in file train.jsonl for record starting with Where is my lamp"
    bedrock.jobs[NAME] = msgspec.structs.replace(job(NAME, status="Failed"), failure_message=message)
    with pytest.raises(CustomizationJobFailed) as raised:
        training.poll_job(prepared, call, NAME)
    assert str(raised.value) == f"{NAME}: Input size exceeded in file train.jsonl for record starting with..."
    assert (prepared.runs.get(plan.run_id) or {})["jobFailure"] == message


def test_a_stopped_job_is_not_waited_for(prepared: GatewayInMemory, bedrock: BedrockInMemory, call: Call) -> None:
    there(bedrock, "Stopped")
    with pytest.raises(CustomizationJobStopped):
        training.poll_job(prepared, call, NAME)


@pytest.mark.parametrize(
    ("hours", "training_status", "setting"), [(24, "NotStarted", "jobStartHours"), (96, "InProgress", "jobEndHours")]
)
def test_a_job_that_stalls_is_stopped(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, call: Call, *, hours: int, training_status: str, setting: str
) -> None:
    phases = {"Validation": "Completed", "Data processing": "Completed", "Training": training_status}
    bedrock.jobs[NAME] = msgspec.structs.replace(job(NAME), phases=phases)
    late = replace(call, now=NOW + timedelta(hours=hours))
    with pytest.raises(CustomizationJobStalled, match=setting):
        training.poll_job(prepared, late, NAME)
    assert bedrock.jobs[NAME].status == "Stopping"


def test_a_job_that_has_started_is_given_its_time(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, call: Call
) -> None:
    phases = {"Validation": "Completed", "Data processing": "Completed", "Training": "InProgress"}
    bedrock.jobs[NAME] = msgspec.structs.replace(job(NAME), phases=phases)
    late = replace(call, now=NOW + timedelta(hours=95))
    assert training.poll_job(prepared, late, NAME)["status"] == "InProgress"


def test_a_model_is_kept_from_when_it_is_there_however_long_its_job_took(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call
) -> None:
    training.create_job(prepared, plan, call, 0)
    there(bedrock, "Completed")
    done = NOW + timedelta(hours=96)
    training.collect_metrics(prepared, plan, replace(call, now=done), 0, NAME)
    lease = msgspec.convert(prepared.leases.get(f"{NAME}{leases.MODEL_SUFFIX}"), leases.Lease)
    assert lease.keep_until == done + leases.MODEL_RETENTION


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_metrics_of_this_job_are_found_however_bedrock_joins_its_folder_to_the_prefix(
    prepared: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call, slash: str
) -> None:
    there(bedrock, "Completed")
    file = "training_artifacts/step_wise_training_metrics.csv"
    for folder, loss in ((f"model-customization-job-{NAME}", 1.25), ("model-customization-job-other", 9.0)):
        body = f"step_number,epoch_number,training_loss,perplexity\n0,0,{loss},3.49\n".encode()
        prepared.artifacts.put(f"runs/x/bedrock/1/{slash}{folder}/{file}", body, "text/csv")
    collected = training.collect_metrics(prepared, plan, call, 0, NAME)
    assert collected == {"modelArn": f"arn:model/{NAME}"}
    kept = prepared.artifacts.read(f"{plan.prefix}training-metrics-1.json")
    assert b'"loss":1.25' in kept
    assert b'"loss":9.0' not in kept
