"""A deployment is taken down only when nothing bills any more; what stays is told, priced and removed on request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import boto3
import msgspec
import pytest

from customization import leases, leftovers, teardown
from customization.errors import RequestRejected
from customization.gateway.bedrock import ON_DEMAND, PROVISIONED
from customization.gateway.operator import STACKS, DeployedStack, Operator
from customization.json_types import JsonObject
from customization.leases import Lease
from customization.model_in_use import ModelInUse, parameter_of, put_in_use
from customization.sweeper import sweep
from customization.teardown import DONE, REFUSED, Terminal
from tests.unit.fakes import EXECUTION, NOW, BedrockInMemory, GatewayInMemory, job

if TYPE_CHECKING:
    from customization.gateway import Gateway

NAME = "dev-0a1b2c3d-support-0123456789"
MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:machine"
OWN: dict[str, str] = {"deployment": "0a1b2c3d", "stage": "dev"}


@dataclass
class Person:
    """A terminal whose time passes only while a command waits; `at` is done at the end of that many waits."""

    typed: str = "dev"
    at: dict[int, Callable[[], None]] = field(default_factory=dict)
    now: datetime = NOW
    said: list[str] = field(default_factory=list)
    waits: int = 0

    @property
    def terminal(self) -> Terminal:
        return Terminal(say=self.said.append, ask=lambda _: self.typed, now=lambda: self.now, sleep=self._sleep)

    @property
    def text(self) -> str:
        return "\n".join(self.said)

    def _sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.waits += 1
        self.at.get(self.waits, lambda: None)()


class OperatorInMemory(Operator):
    """moto's S3, DynamoDB, KMS, SSM and tags; stacks, executions and functions are in memory."""

    def __init__(self, gateway: GatewayInMemory, bedrock: BedrockInMemory, stacks: tuple[str, ...]) -> None:
        super().__init__("us-east-1")
        self.bedrock = bedrock  # type: ignore[assignment]  # what the commands call of it
        self._known = gateway
        self.protected = [f"Customization-dev-{name}" for name in stacks]
        self._names = list(self.protected)
        self.complaint = ""

    def stacks(self, stage: str, names: Sequence[str] = STACKS) -> list[DeployedStack]:
        outputs = {
            "Storage": {"RunsTableName": "runs", "LeasesTableName": "leases"},
            "Pipeline": {"StateMachineArn": MACHINE, "SweepFunctionName": "sweep"},
        }
        return [
            DeployedStack(
                name=name,
                stack_id=f"arn:aws:cloudformation:us-east-1:123456789012:stack/{name}/0a1b2c3d-1111-2222-3333-444444444444",
                is_protected=name in self.protected,
                outputs=outputs.get(name.rpartition("-")[2], {}),
            )
            for name in self._names
            if name in {f"Customization-{stage}-{part}" for part in names}
        ]

    def lift_protection(self, stack: DeployedStack) -> None:
        self.protected.remove(stack.name)

    def gateway(self, stage: str, stacks: Sequence[DeployedStack]) -> "Gateway":
        assert (stage, {stack.deployment_id for stack in stacks}) == ("dev", {"0a1b2c3d"})
        return self._known

    def running_executions(self, state_machine: str) -> list[str]:
        assert state_machine == MACHINE
        return [arn for arn, status in self._known.executions.items() if status == "RUNNING"]

    def stop_execution(self, arn: str, cause: str) -> None:
        assert cause
        self._known.executions[arn] = "ABORTED"

    def call(self, function: str, payload: JsonObject) -> str:
        assert function == "sweep"
        sweep(self._known, datetime.fromisoformat(str(payload["time"])))
        return self.complaint


RULE = "StartRun"


@pytest.fixture
def start_rule(operator: "OperatorInMemory") -> Callable[[], str]:
    """Make the rule that starts runs, beside one that calls the sweeper; return a function that tells its state."""
    client = boto3.client("events", region_name=operator.region)
    for name, target in ((RULE, MACHINE), ("SweepRegularly", "arn:aws:lambda:us-east-1:123456789012:function:sweep")):
        client.put_rule(Name=name, ScheduleExpression="rate(15 minutes)")
        client.put_targets(Rule=name, Targets=[{"Id": "it", "Arn": target}])

    def state() -> str:
        assert client.describe_rule(Name="SweepRegularly")["State"] == "ENABLED"
        return client.describe_rule(Name=RULE)["State"]

    return state


def lease(kind: str = PROVISIONED, name: str = NAME, usd: float | None = 7.1) -> Lease:
    return Lease(
        resource_name=name,
        kind=kind,
        run_id="support-0123456789",
        dataset="support",
        execution_arn=EXECUTION,
        opened_at=NOW - timedelta(hours=2),
        hard_end=NOW + timedelta(hours=24),
        keep_until=NOW + timedelta(hours=24),
        hourly_usd=usd,
    )


def serve(gateway: GatewayInMemory, bedrock: BedrockInMemory, mode: str = PROVISIONED, name: str = NAME) -> None:
    bedrock.serve(mode=mode, name=name, model_arn="arn:model", tags=OWN, units=1, token=name)
    leases.open_lease(gateway, lease(mode, name))


@pytest.fixture
def operator(gateway: GatewayInMemory, bedrock: BedrockInMemory) -> OperatorInMemory:
    gateway.executions.clear()
    return OperatorInMemory(gateway, bedrock, ("Storage", "Pipeline", "Operations"))


def destroy(operator: Operator, person: Person, *, release: bool = False, minutes: float = 60) -> int:
    wait = timedelta(minutes=minutes)
    return teardown.destroy(operator, "dev", person.terminal, release=release, wait=wait)


def test_destroy_names_what_runs_or_bills_with_its_price_an_hour_and_touches_nothing(
    operator: OperatorInMemory, gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    gateway.executions[EXECUTION] = "RUNNING"
    serve(gateway, bedrock)
    leases.open_lease(gateway, lease(name="dev-0a1b2c3d-other-0123456789", usd=None))
    leases.open_lease(gateway, lease(ON_DEMAND, "dev-0a1b2c3d-third-0123456789", 0.0))
    bedrock.jobs["dev-0a1b2c3d-aaaaaaaaaa-1"] = job("dev-0a1b2c3d-aaaaaaaaaa-1")
    before = leases.open_leases(gateway)
    person = Person()
    assert destroy(operator, person) == REFUSED
    for told in (
        f"execution    {EXECUTION} is running",
        f"{NAME}  7.10 USD an hour, kept for run support-0123456789 until 2026-11-23 09:00 UTC",
        "dev-0a1b2c3d-other-0123456789  price unknown",
        "dev-0a1b2c3d-third-0123456789  0.00 USD an hour",
        "dev-0a1b2c3d-aaaaaaaaaa-1  price unknown, no lease stands for it",
        "make destroy RELEASE=yes",
    ):
        assert told in person.text
    assert leases.open_leases(gateway) == before
    assert gateway.executions == {EXECUTION: "RUNNING"}
    assert len(operator.protected) == 3


def test_destroy_with_release_stops_the_runs_and_ends_every_lease(
    operator: OperatorInMemory, gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    gateway.executions[EXECUTION] = "RUNNING"
    serve(gateway, bedrock)
    serve(gateway, bedrock, ON_DEMAND, "dev-0a1b2c3d-other-0123456789")
    person = Person()
    assert destroy(operator, person, release=True) == DONE
    assert (bedrock.serving, leases.open_leases(gateway)) == ({}, [])
    assert gateway.executions == {EXECUTION: "ABORTED"}
    assert operator.protected == []
    assert person.waits == 0


def test_the_policies_of_the_outputs_are_taken_from_whoever_has_them_since_they_could_not_be_deleted(
    operator: OperatorInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    iam = boto3.Session(region_name="us-east-1").client("iam")
    text = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}'
    policy = iam.create_policy(PolicyName="reader", PolicyDocument=text)["Policy"]["Arn"]
    iam.create_role(RoleName="analyst", AssumeRolePolicyDocument="{}")
    iam.create_user(UserName="ann")
    iam.create_group(GroupName="team")
    iam.attach_role_policy(RoleName="analyst", PolicyArn=policy)
    iam.attach_user_policy(UserName="ann", PolicyArn=policy)
    iam.attach_group_policy(GroupName="team", PolicyArn=policy)
    stacks = operator.stacks("dev")
    with_policy = [replace(stack, outputs={**stack.outputs, "ReportReaderPolicyArn": policy}) for stack in stacks[:1]]
    monkeypatch.setattr(operator, "stacks", lambda _: [*with_policy, *stacks[1:]])
    person = Person()
    assert destroy(operator, person) == DONE
    told = [line for line in person.said if "was detached" in line]
    holders = ("role analyst", "user ann", "group team")
    assert told == [f"The policy ReportReader was detached from the {holder}." for holder in holders]
    iam.delete_policy(PolicyArn=policy)


def test_what_aws_refuses_to_release_while_it_is_created_is_tried_until_it_goes(
    operator: OperatorInMemory, gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    serve(gateway, bedrock)
    bedrock.busy.add(NAME)
    person = Person(at={4: bedrock.busy.clear})
    assert destroy(operator, person, release=True) == DONE
    assert (bedrock.serving, person.waits) == ({}, 4)
    assert person.text.count("releasing") == 1


def test_what_cannot_be_released_in_time_keeps_the_stacks(
    operator: OperatorInMemory, gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    serve(gateway, bedrock)
    bedrock.busy.add(NAME)
    operator.complaint = "What follows still bills"
    person = Person()
    assert destroy(operator, person, release=True, minutes=5) == REFUSED
    assert person.waits == 15
    assert "after 5 minutes this still runs or bills" in person.text
    assert "The sweeper says: What follows still bills" in person.text
    assert len(operator.protected) == 3


def test_a_drop_starts_nothing_from_the_release_on_until_the_stacks_are_gone(
    operator: OperatorInMemory, gateway: GatewayInMemory, bedrock: BedrockInMemory, start_rule: Callable[[], str]
) -> None:
    serve(gateway, bedrock)
    bedrock.busy.add(NAME)
    states: list[str] = []
    person = Person(at={1: lambda: states.append(start_rule()), 2: bedrock.busy.clear})
    assert destroy(operator, person, release=True) == DONE
    assert (states, start_rule()) == (["DISABLED"], "DISABLED")
    assert "a drop starts no run any more" in person.text


def test_drops_start_runs_again_where_the_destroy_is_refused_or_given_up(
    operator: OperatorInMemory, gateway: GatewayInMemory, bedrock: BedrockInMemory, start_rule: Callable[[], str]
) -> None:
    serve(gateway, bedrock)
    assert destroy(operator, Person()) == REFUSED
    assert start_rule() == "ENABLED"
    bedrock.busy.add(NAME)
    person = Person()
    assert destroy(operator, person, release=True, minutes=5) == REFUSED
    assert start_rule() == "ENABLED"
    assert "Drops start runs again" in person.text

    def give_up() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        destroy(operator, Person(at={1: give_up}), release=True)
    assert start_rule() == "ENABLED"


def test_a_run_that_starts_between_the_look_and_the_hold_is_seen(
    operator: OperatorInMemory,
    gateway: GatewayInMemory,
    start_rule: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold = operator.disable_rules

    def drop_before_it(target: str) -> list[str]:
        gateway.executions[EXECUTION] = "RUNNING"
        return hold(target)

    monkeypatch.setattr(operator, "disable_rules", drop_before_it)
    person = Person()
    assert destroy(operator, person) == REFUSED
    assert f"execution    {EXECUTION} is running" in person.text
    assert (start_rule(), len(operator.protected)) == ("ENABLED", 3)


def test_stacks_that_stay_after_all_start_runs_again_and_one_that_is_being_deleted_does_not(
    operator: OperatorInMemory, start_rule: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert destroy(operator, Person()) == DONE
    stacks = operator.stacks("dev")
    with monkeypatch.context() as changed:
        changed.setattr(operator, "stacks", lambda _: [replace(stack, is_being_deleted=True) for stack in stacks])
        teardown.left(operator, "dev", Person().terminal)
    assert start_rule() == "DISABLED"
    person = Person()
    teardown.left(operator, "dev", person.terminal)
    assert start_rule() == "ENABLED"
    assert "Drops start runs again" in person.text
    again = Person()
    teardown.left(operator, "dev", again.terminal)
    assert "Drops start runs again" not in again.text


def test_a_lease_whose_resource_never_came_is_waited_for_until_its_creator_cannot_live_any_more(
    operator: OperatorInMemory, gateway: GatewayInMemory
) -> None:
    leases.open_lease(gateway, msgspec.structs.replace(lease(), opened_at=NOW))
    person = Person()
    assert destroy(operator, person, release=True) == DONE
    assert person.now >= NOW + leases.CREATOR_TIMEOUT
    assert leases.open_leases(gateway) == []


def test_what_serves_under_our_name_or_tag_alone_is_named_and_never_released(
    operator: OperatorInMemory, gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    for name, tags in (("support-desk", OWN), (NAME, {}), ("somebody-elses", {}), (f"{NAME}-2", {"deployment": "x"})):
        bedrock.serve(mode=PROVISIONED, name=name, model_arn="arn:model", tags=tags, units=1, token=name)
    serve(gateway, bedrock, name=f"{NAME}-3")
    leases.open_lease(gateway, msgspec.structs.replace(lease(name=f"{NAME}-3"), arn=bedrock.serving[f"{NAME}-3"].arn))
    bedrock.serving["renamed"] = msgspec.structs.replace(bedrock.serving.pop(f"{NAME}-3"), name="renamed")
    person = Person()
    assert destroy(operator, person, release=True, minutes=1) == REFUSED
    told = person.said[-2]
    assert [name for name in ("support-desk", "somebody-elses", f"{NAME}-2", "renamed") if name in told] == [
        "support-desk"
    ]
    assert f"{NAME}  price unknown, no lease stands for it" in told
    assert sorted(bedrock.serving) == sorted(["support-desk", NAME, "somebody-elses", f"{NAME}-2"])


def test_when_the_functions_are_gone_already_the_command_releases_by_itself(
    gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    operator = OperatorInMemory(gateway, bedrock, ("Storage",))
    serve(gateway, bedrock)
    assert destroy(operator, Person(), release=True) == DONE
    assert (bedrock.serving, operator.protected) == ({}, [])


@pytest.fixture
def in_use(gateway: GatewayInMemory) -> str:
    """Put a model in use and return the name of its parameter."""
    model = ModelInUse(
        promoted_run_id="r",
        training_id="t",
        base_model_identifier="m",
        model_name="",
        model_arn="arn:aws:bedrock:model",
    )
    put_in_use(gateway, "support", model, NOW, instead_of=None)
    return parameter_of(gateway, "support")


def test_a_model_in_use_is_named_and_kept_unless_its_release_is_asked_for(
    operator: OperatorInMemory, gateway: GatewayInMemory, in_use: str
) -> None:
    person = Person()
    assert destroy(operator, person) == REFUSED
    assert f"model in use {in_use}" in person.text
    assert "make destroy RELEASE=yes" in person.text
    assert gateway.parameter(in_use) is not None
    assert len(operator.protected) == 3

    assert destroy(operator, person, release=True) == DONE
    assert gateway.parameter(in_use) is None
    assert f"{in_use} is gone" in person.text


@pytest.mark.parametrize("typed", ["", "DEV", "yes", "y"])
@pytest.mark.parametrize("release", [True, False])
def test_nothing_is_changed_until_the_name_of_the_stage_is_typed(
    operator: OperatorInMemory,
    gateway: GatewayInMemory,
    bedrock: BedrockInMemory,
    request: pytest.FixtureRequest,
    start_rule: Callable[[], str],
    typed: str,
    *,
    release: bool,
) -> None:
    parameter = ""
    if release:
        serve(gateway, bedrock)
        parameter = request.getfixturevalue("in_use")
    person = Person(typed=typed)
    assert destroy(operator, person, release=release) == REFUSED
    assert "the name of the stage was not typed. Nothing was changed." in person.text
    assert "stack        Customization-dev-Storage" in person.text
    assert (list(bedrock.serving) == [NAME]) == release
    assert (parameter in person.text, bool(parameter and gateway.parameter(parameter))) == (True, release)
    assert (start_rule(), len(operator.protected)) == ("ENABLED", 3)


def test_where_nothing_is_deployed_nothing_is_destroyed(gateway: GatewayInMemory, bedrock: BedrockInMemory) -> None:
    person = Person()
    assert destroy(OperatorInMemory(gateway, bedrock, ()), person) == REFUSED
    assert "Nothing is deployed as dev in us-east-1" in person.text


@pytest.fixture
def gone(gateway: GatewayInMemory, bedrock: BedrockInMemory) -> OperatorInMemory:
    return OperatorInMemory(gateway, bedrock, ())


def keep_bucket(name: str, tag: str) -> None:
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": [{"Key": leftovers.TAG, "Value": tag}]})
    for body in (b"x" * 1024, b"y" * 1024):
        s3.put_object(Bucket=name, Key="incoming/support/train.jsonl", Body=body)
    s3.delete_object(Bucket=name, Key="incoming/support/train.jsonl")
    s3.create_multipart_upload(Bucket=name, Key="incoming/support/test.jsonl")


def keep_model(bedrock: BedrockInMemory, name: str, tags: dict[str, str]) -> None:
    bedrock.models.add(name)
    bedrock.tag_sets[f"arn:model/{name}"] = tags


def test_only_what_bears_name_and_tags_of_the_stage_is_its_leftover(
    gone: OperatorInMemory, bedrock: BedrockInMemory
) -> None:
    keep_bucket("own", "dev-0a1b2c3d")
    keep_bucket("of-another-stage", "dev2-0a1b2c3d")
    keep_bucket("of-something-else", "dev-tools")
    keep_model(bedrock, "dev-0a1b2c3d-aaaaaaaaaa-1", OWN)
    keep_model(bedrock, "dev-0a1b2c3d-bbbbbbbbbb-1", {})
    keep_model(bedrock, "dev-ffffffff-aaaaaaaaaa-1", OWN)
    keep_model(bedrock, "support", OWN)
    gone._known.put_parameter("/dev/0a1b2c3d/datasets/support/model", "{}")
    gone._known.put_parameter("/dev/other", "{}")
    found = [(item.kind, item.name) for item in leftovers.find(gone, "dev", NOW.date())]
    assert found == [
        ("custom model", "dev-0a1b2c3d-aaaaaaaaaa-1"),
        ("parameter", "/dev/0a1b2c3d/datasets/support/model"),
        ("bucket", "own"),
    ]


def test_what_serves_under_name_or_tag_of_the_stage_alone_is_told_and_left_to_a_person(
    gone: OperatorInMemory, bedrock: BedrockInMemory
) -> None:
    foreign = {"deployment": "ffffffff", "stage": "prod"}
    for name, tags in ((NAME, {}), ("support-desk", OWN), ("tools", {}), (f"{NAME}-2", foreign)):
        bedrock.serve(mode=PROVISIONED, name=name, model_arn="arn:model", tags=tags, units=1, token=name)
    person = Person(typed="dev")
    assert teardown.left(gone, "dev", person.terminal) == REFUSED
    assert teardown.purge(gone, "dev", person.terminal) == REFUSED
    for name in (NAME, "support-desk"):
        assert f"{name}: refused: it bears the name or the tag alone" in person.text
    assert f"{NAME}-2" not in person.text
    assert len(bedrock.serving) == 4


def test_all_versions_and_open_uploads_are_counted_and_purged_with_their_bucket(
    gone: OperatorInMemory,
) -> None:
    keep_bucket("own", "dev-0a1b2c3d")
    person = Person(typed="dev")
    assert teardown.purge(gone, "dev", person.terminal) == DONE
    assert "2.0 KB in 3 versions of objects" in person.text
    assert "own" not in [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]]


@pytest.mark.parametrize("typed", ["", "DEV", "yes", "dev-0a1b2c3d"])
def test_nothing_is_purged_until_the_name_of_the_stage_is_typed(gone: OperatorInMemory, typed: str) -> None:
    keep_bucket("own", "dev-0a1b2c3d")
    person = Person(typed=typed)
    assert teardown.purge(gone, "dev", person.terminal) == REFUSED
    assert "Nothing was deleted" in person.text
    assert [item.name for item in leftovers.find(gone, "dev", NOW.date())] == ["own"]


def test_nothing_is_purged_while_a_stack_exists(operator: OperatorInMemory) -> None:
    keep_bucket("own", "dev-0a1b2c3d")
    person = Person(typed="dev")
    assert teardown.purge(operator, "dev", person.terminal) == REFUSED
    assert "Customization-dev-Storage, Customization-dev-Pipeline" in person.text


def test_what_still_bills_after_the_stacks_are_gone_is_told_and_purged_before_its_model(
    gone: OperatorInMemory, gateway: GatewayInMemory, bedrock: BedrockInMemory
) -> None:
    serve(gateway, bedrock)
    keep_model(bedrock, "dev-0a1b2c3d-aaaaaaaaaa-1", OWN)
    person = Person(typed="dev")
    assert teardown.left(gone, "dev", person.terminal) == REFUSED
    assert f"{NAME}  BILLS WHILE IT EXISTS" in person.text
    bedrock.busy.update({NAME, "dev-0a1b2c3d-aaaaaaaaaa-1"})
    assert teardown.purge(gone, "dev", person.terminal) == REFUSED
    assert f"{NAME}: refused: {NAME} is being created" in person.text
    assert "run make purge again" in person.text
    bedrock.busy.clear()
    assert teardown.purge(gone, "dev", person.terminal) == DONE
    assert (bedrock.serving, bedrock.models) == ({}, set())
    assert teardown.left(gone, "dev", person.terminal) == DONE


def test_a_price_that_no_source_gives_for_the_region_is_unknown_and_never_zero() -> None:
    assert leftovers.price("us-east-1", NOW.date(), "tableStorage", "tableBackup") == pytest.approx(0.45)
    assert leftovers.price("us-west-2", NOW.date(), "tableStorage", "tableBackup") is None
    kept = [
        leftovers.Leftover(kind="bucket", name="own", monthly_usd=None),
        leftovers.Leftover(kind="key", name="key", monthly_usd=1.0),
    ]
    lines = leftovers.describe(kept)
    assert "price unknown" in lines[0]
    assert "together 1.00 USD a month, without 1 whose price is unknown" in lines[-1]


def test_a_refusal_of_aws_ends_the_command_with_1_and_wrong_use_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Operator, stage: str) -> list[DeployedStack]:
        raise RequestRejected(f"DescribeStacks: {stage} must not be looked at")

    monkeypatch.setattr(Operator, "stacks", refuse)
    assert teardown.main(["--region", "us-east-1", "destroy"]) == REFUSED
    assert "must not be looked at" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        teardown.main(["--region", "us-east-1"])
