"""Before the first deployment a person learns what is missing in the account, each with its fix."""

import re
from collections.abc import Callable, Sequence
from datetime import date

import pytest

from customization import commands, doctor, teardown
from customization.catalogue import load_catalogue
from customization.doctor import DONE, MISSES, WRONG_USE, Examination
from customization.errors import AccessDenied, RequestRejected, ServiceUnavailable
from customization.gateway.operator import STACKS, Caller, DeployedStack, Operator
from customization.idle_cost import idle_cost
from customization.preconditions import CHECKS, Finding
from tests.unit.fakes import BedrockInMemory

NOVA = "amazon.nova-micro-v1:0:128k"
TITAN = "amazon.titan-text-lite-v1:0:4k"
QUOTAS = {
    "(Model customization) Scheduled customization jobs": 10.0,
    "Custom models per account": 100.0,
    "Total custom model deployments": 10.0,
    "In-progress custom model deployments": 2.0,
    "Model units no-commitment Provisioned Throughputs across custom models": 1.0,
    "Model units per provisioned model for Amazon Titan Text G1 - Lite": 1.0,
    "Model units per provisioned model for Amazon Titan Text G1 - Lite 4K": 0.0,
}


class BedrockOfAccount(BedrockInMemory):
    def has_access(self, identifier: str) -> bool:
        assert identifier
        return True


class Account(Operator):
    """An account that has everything, but for what a test takes away."""

    def __init__(self, region: str = "us-east-1") -> None:
        super().__init__(region)
        self.bedrock = BedrockOfAccount()  # type: ignore[assignment]  # what the checks call of it
        self.error: Exception | None = None
        self.version: int | None = 30
        self.quotas: dict[str, float] = QUOTAS
        self.concurrency = 1000
        self.subscribed: dict[str, bool] | None = None

    def caller(self) -> Caller:
        if self.error:
            raise self.error
        return Caller("123456789012", "arn:aws:iam::123456789012:user/ml")

    def bootstrap_version(self) -> int | None:
        return self.version

    def bedrock_quotas(self) -> dict[str, float]:
        return self.quotas

    def unreserved_concurrency(self) -> int:
        return self.concurrency

    def stacks(self, stage: str, names: Sequence[str] = STACKS) -> list[DeployedStack]:
        assert names == STACKS
        if self.subscribed is None:
            return []
        outputs = {"TopicArn": "arn:topic"}
        return [DeployedStack(name=f"Customization-{stage}", stack_id="x", is_protected=True, outputs=outputs)]

    def subscriptions(self, topic: str) -> dict[str, bool]:
        assert topic == "arn:topic"
        return self.subscribed or {}


@pytest.fixture
def account() -> Account:
    return Account()


def findings(account: Account, model: str = NOVA, today: date = date(2026, 11, 22)) -> dict[str, Finding]:
    found = list(Examination(account, load_catalogue().find(model), "dev", today).findings())
    assert len({finding.check for finding in found}) == len(found)
    return {finding.check: finding for finding in found}


def test_an_account_that_has_everything_misses_nothing(account: Account) -> None:
    found = findings(account)
    assert {finding.outcome for finding in found.values()} == {"ok"}, doctor.table(list(found.values()))
    assert all(finding.question.endswith("?") for finding in found.values())


def test_every_check_of_a_run_that_needs_no_run_is_made(account: Account) -> None:
    assert {check.name for check in CHECKS} - set(findings(account)) == {"names"}


@pytest.mark.parametrize("error", [RequestRejected("Unable to locate credentials"), ServiceUnavailable("no network")])
def test_without_an_answer_to_whose_credentials_these_are_nothing_else_is_asked(
    account: Account, error: Exception
) -> None:
    account.error = error
    [(name, finding)] = findings(account).items()
    assert (name, finding.outcome, finding.message) == ("credentials", "miss", str(error))


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "Unable to locate credentials"),
        ({"AWS_ACCESS_KEY_ID": "testing"}, "missing: AWS_SECRET_ACCESS_KEY"),
        ({"AWS_PROFILE": "ours"}, "The config profile (ours) could not be found"),
    ],
    ids=["none", "half", "profile"],
)
@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (doctor.main, []),
        (commands.main, ["runs", "support"]),
        (commands.main, ["ask", "support", "Where is it?"]),
        (teardown.main, ["destroy"]),
        (teardown.main, ["left"]),
        (teardown.main, ["purge"]),
    ],
    ids=["doctor", "runs", "ask", "destroy", "left", "purge"],
)
def test_every_command_without_credentials_says_how_to_give_them(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    main: Callable[[list[str]], int],
    arguments: list[str],
    environment: dict[str, str],
    said: str,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["--region", "us-east-1", *arguments]) != DONE
    printed = " ".join("".join(capsys.readouterr()).split())
    assert said in printed
    assert "; give the AWS CLI credentials (aws configure, or aws sso login) and run this again" in printed


def test_before_a_deployment_only_credentials_and_bootstrap_are_looked_at(account: Account) -> None:
    model = load_catalogue().find(NOVA)
    found = Examination(account, model, "dev", date(2026, 11, 22)).findings(before_deploy=True)
    assert [(finding.check, finding.outcome) for finding in found] == [("credentials", "ok"), ("bootstrap", "ok")]


def test_a_base_model_without_access_is_told_how_to_get_it(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BedrockOfAccount, "has_access", lambda *_: False)
    finding = findings(account)["baseline"]
    assert finding.outcome == "warning"
    assert finding.message.endswith("see that no policy of the organization denies the model.")


@pytest.mark.parametrize("version", [None, 5])
def test_a_region_that_is_not_bootstrapped_is_told_the_command(account: Account, version: int | None) -> None:
    account.version = version
    finding = findings(account)["bootstrap"]
    assert finding.outcome == "miss"
    assert finding.message.endswith("npm ci && npx cdk bootstrap aws://123456789012/us-east-1")


def test_a_model_that_is_not_customized_in_the_region_is_told_where_it_is() -> None:
    finding = findings(Account("us-west-2"))["region"]
    assert finding.outcome == "miss"
    assert "set region in cdk.json to us-east-1" in finding.message


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("amazon.titan-embed-image-v1:0", "is an image model, which this pipeline does not run; choose amazon.nova-"),
        ("openai.gpt-oss-20b", "has REINFORCEMENT_FINE_TUNING only, which this pipeline does not run; choose amazon."),
    ],
)
def test_a_base_model_that_every_run_refuses_is_missed_with_the_nearest_that_can_be_used(
    account: Account, model: str, told: str
) -> None:
    found = findings(account, model)
    assert found["baseModel"].outcome == "miss"
    assert told in found["baseModel"].message
    nearest = load_catalogue().find(found["baseModel"].message.rpartition("choose ")[2])
    assert findings(account, nearest.base_model_identifier)["baseModel"].outcome == "ok"
    assert not {"region", "model", "quotas"} & found.keys()


def test_quotas_come_from_the_account_by_their_names(account: Account) -> None:
    account.quotas = {**QUOTAS, "Custom models per account": 0.0}
    assert findings(account)["customModels"].outcome == "miss"
    assert "0 of 0 custom models exist" in findings(account)["customModels"].message


def test_a_quota_that_is_not_listed_is_a_warning_with_what_is_assumed(account: Account) -> None:
    account.quotas = {}
    found = findings(account)
    assert found["quotas"].outcome == "warning"
    assert "'Custom models per account' is not listed; 100 is assumed" in found["quotas"].message
    assert "across custom models' is not listed: The quota of model units" in found["quotas"].message
    assert "(L-BE77399C) could not be read, and it is 0 in a new account: ask for 1 or more" in found["quotas"].message
    assert found["customModels"].outcome == "ok"


def test_model_units_are_missed_by_account_and_by_model_where_no_deployment_is_possible(account: Account) -> None:
    today = date(2025, 1, 18)
    assert findings(account, TITAN, today)["modelUnits"].outcome == "ok"
    no_units = {name: 0.0 for name in QUOTAS if name.startswith("Model units")}
    account.quotas = {**QUOTAS, **no_units}
    found = findings(account, TITAN, today)
    assert [found[name].outcome for name in ("modelUnits", "modelUnitsOfModel")] == ["miss", "miss"]
    account.quotas = {name: value for name, value in QUOTAS.items() if "per provisioned model" not in name}
    assert findings(account, TITAN, today)["modelUnitsOfModel"].outcome == "warning"


def test_a_new_accounts_concurrency_is_a_warning_with_the_quota_to_raise(account: Account) -> None:
    account.concurrency = 10
    finding = findings(account)["concurrency"]
    assert finding.outcome == "warning"
    assert "L-B99A9384" in finding.message


def test_a_subscription_that_is_not_confirmed_is_missed_once_something_is_deployed(account: Account) -> None:
    assert findings(account)["notifications"].outcome == "ok"
    account.subscribed = {}
    assert findings(account)["notifications"].outcome == "warning"
    account.subscribed = {"team@example.com": True, "new@example.com": False}
    finding = findings(account)["notifications"]
    assert finding.outcome == "miss"
    assert finding.message.startswith("new@example.com has not confirmed; open the mail")


def test_what_the_credentials_may_not_look_at_is_a_warning_but_for_bedrock_itself(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(_: object) -> int:
        raise AccessDenied("GetAccountSettings: not allowed")

    monkeypatch.setattr(Account, "unreserved_concurrency", deny)
    monkeypatch.setattr(Account, "bedrock_quotas", deny)
    monkeypatch.setattr(BedrockOfAccount, "all_served", deny)
    found = findings(account)
    assert [found[name].outcome for name in ("concurrency", "bedrock")] == ["warning", "miss"]
    assert "GetAccountSettings: not allowed" in found["concurrency"].message
    assert "allow these credentials bedrock:GetFoundationModel, " in found["bedrock"].message


def test_the_exit_code_says_whether_something_is_missing(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "Operator", lambda _: account)
    arguments = ["--region", "us-east-1", "--model", NOVA]
    account.concurrency = 10
    assert doctor.main(arguments, date(2026, 11, 22)) == DONE
    said = capsys.readouterr().out
    assert said.endswith("0 missing, 1 to look at\n")
    beginnings = [re.match(r"\w+ +\w+ +", line) for line in said.splitlines()[:-1]]
    assert len({found and found.end() for found in beginnings}) == 1
    account.version = None
    assert doctor.main(arguments, date(2026, 11, 22)) == MISSES
    assert doctor.main(["--model", "amazon.nova-mikro"]) == WRONG_USE
    assert "did you mean" in capsys.readouterr().err


def test_what_a_deployment_costs_while_nobody_uses_it_is_told_for_the_region(account: Account) -> None:
    usd, unknown = idle_cost("us-east-1", date(2026, 11, 22))
    assert unknown == 0
    assert f"about {usd:.2f} USD a month while nobody uses it" in findings(account)["idleCost"].message
    assert "whose price here no source gives" in findings(Account("us-west-2"))["idleCost"].message
