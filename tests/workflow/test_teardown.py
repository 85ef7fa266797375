"""Taking a deployment down while a throughput is alive: nothing that bills survives it, and nothing else is touched."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest

from customization import teardown
from customization.teardown import DONE, REFUSED, Terminal
from tests.workflow.conftest import Deploy
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution

TITAN_LITE = "amazon.titan-text-lite-v1:0:4k"
PLACE = ("--stage", "dev", "--region", "us-east-1")


class Person:
    """Runs the commands in the virtual time of a pipeline, and types what is asked for."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._clock = pipeline.clock
        self._said: list[str] = []

    def run(self, *arguments: str, types: str = "") -> tuple[int, str]:
        self._said.clear()
        terminal = Terminal(say=self._said.append, ask=lambda _: types, now=self._clock.now, sleep=self._clock.advance)
        return teardown.main([*PLACE, *arguments], terminal), "\n".join(self._said)


@pytest.fixture
def deployed(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    with deploy(date(2025, 1, 18)) as pipeline:
        monkeypatch.setenv("AWS_ENDPOINT_URL", pipeline.aws.endpoint_url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREHEARSALDEPLOYR")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
        yield pipeline


def keep_a_throughput(pipeline: Pipeline) -> None:
    files = pipeline.folder(
        test=32,
        baseModelIdentifier=TITAN_LITE,
        serving={"mode": "provisioned", "keep": 24},
        promote="if-better",
        budgetUsd=500,
    )
    execution = pipeline.run(files)
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert any(":provisioned-model/" in arn for arn in pipeline.bedrock.live_resources())


def delete_stacks(pipeline: Pipeline) -> None:
    client = pipeline.aws.session().client("cloudformation")
    for name in ("Operations", "Pipeline", "Storage"):
        client.delete_stack(StackName=f"Customization-dev-{name}")


def kept(pipeline: Pipeline) -> list[str]:
    """Return the tables and buckets that are there, and the keys that nobody has scheduled for deletion."""
    session = pipeline.aws.session()
    keys = session.client("kms")
    states = [keys.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["KeyState"] for key in keys.list_keys()["Keys"]]
    return [
        *session.client("dynamodb").list_tables()["TableNames"],
        *(bucket["Name"] for bucket in session.client("s3").list_buckets()["Buckets"]),
        *(state for state in states if state != "PendingDeletion"),
    ]


def assert_a_drop_starts_nothing(pipeline: Pipeline) -> None:
    before = len(pipeline.executions())
    bucket, late = pipeline.outputs["DataBucketName"], "incoming/late/train.jsonl"
    pipeline.aws.session().client("s3").put_object(Bucket=bucket, Key=late, Body=b"{}")
    pipeline.pass_time(hours=1)
    assert len(pipeline.executions()) == before


def assert_nothing_goes_unasked(pipeline: Pipeline, person: Person) -> None:
    code, refused = person.run("destroy")
    assert (code, pipeline.parameter() is None) == (REFUSED, False)
    assert "7.10 USD an hour" in refused
    assert "model in use /dev/" in refused
    assert "make destroy RELEASE=yes" in refused
    code, said = person.run("destroy", "--release", types="prod")
    assert (code, pipeline.parameter() is None) == (REFUSED, False)
    assert "Nothing was changed" in said
    assert any(":provisioned-model/" in arn for arn in pipeline.bedrock.live_resources())


@pytest.mark.exhaustive
def test_a_deployment_whose_throughput_is_alive_goes_only_when_it_is_released_and_leaves_nothing(
    pipeline: Pipeline,
) -> None:
    person = Person(pipeline)
    keep_a_throughput(pipeline)
    assert_nothing_goes_unasked(pipeline, person)
    code, said = person.run("destroy", "--release", types="dev")
    assert code == DONE, said
    assert pipeline.what_bills() == []
    assert pipeline.parameter() is None
    assert "custom model" in said
    assert "1.95 USD a month" in said
    assert person.run("purge", types="dev")[0] == REFUSED

    assert_a_drop_starts_nothing(pipeline)
    delete_stacks(pipeline)
    assert pipeline.models() != []
    code, said = person.run("left")
    kinds = [line.split("  ")[1] for line in said.splitlines() if line.startswith("  ")]
    assert (code, kinds[:-1]) == (DONE, ["custom model", "table", "table", "bucket", "bucket", "bucket", "key"]), said
    before = kept(pipeline)
    code, said = person.run("purge", types="prod")
    assert code == REFUSED
    assert "Nothing was deleted" in said
    assert kept(pipeline) == before

    code, said = person.run("purge", types="dev")
    assert code == DONE, said
    assert "will be deleted on 2025-01-" in said
    assert (kept(pipeline), pipeline.models()) == ([], [])
    assert "Nothing is left" in person.run("purge", types="dev")[1]


@pytest.mark.exhaustive
def test_a_run_in_training_is_stopped_with_its_job_before_the_stacks_may_go(pipeline: Pipeline) -> None:
    person = Person(pipeline)
    ended: list[tuple[int, str]] = []

    def take_down(_: "Execution") -> None:
        assert person.run("destroy")[0] == REFUSED
        ended.append(person.run("destroy", "--release", types="dev"))

    files = pipeline.folder(baseModelIdentifier=TITAN_LITE)
    execution = pipeline.interrupt("WaitForCustomizationJob", files, take_down, after=timedelta(minutes=30))
    [(code, said)] = ended
    assert code == DONE, said
    assert f"{execution.arn} is running" in said
    assert "job" in said
    assert (execution.outcome.status, pipeline.row_of(execution)["state"]) == ("ABORTED", "ABORTED")
    assert [job["status"] for job in pipeline.jobs()] == ["Stopped"]
    assert pipeline.bedrock.live_resources() == []
