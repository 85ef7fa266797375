from dataclasses import replace
from datetime import date

import pytest

from customization.account import check_preconditions, facts_of_run
from customization.catalogue import load_catalogue
from customization.errors import PreconditionFailed
from customization.preconditions import AccountFacts, Needs, Quotas, check, examine
from customization.runs import Call, Plan
from customization.texts import say
from tests.unit.fakes import BedrockInMemory, GatewayInMemory

CATALOGUE = load_catalogue()
TODAY = date(2026, 11, 22)
FACTS = AccountFacts(region="us-east-1", model_status="ACTIVE", inference_model_status="ACTIVE")
NEEDS = Needs(
    model=CATALOGUE.find("amazon.nova-micro-v1:0:128k"),
    catalogue=CATALOGUE,
    today=TODAY,
    new_jobs=1,
    serving_mode="on-demand",
    model_units=1,
    asks_base_model=True,
)
PROVISIONED = replace(NEEDS, serving_mode="provisioned", model_units=2)


def outcome(name: str, facts: AccountFacts, needs: Needs = NEEDS) -> str:
    return next(finding.outcome for finding in examine(facts, needs).findings if finding.check == name)


def message(name: str, facts: AccountFacts, needs: Needs = NEEDS) -> str:
    return next(finding.message for finding in examine(facts, needs).findings if finding.check == name)


def test_an_account_that_has_everything_passes_every_check_without_a_warning() -> None:
    findings = check(FACTS, NEEDS)
    assert {finding.outcome for finding in findings.findings} == {"ok"}
    assert findings.baseline_available
    assert all(finding.question.endswith("?") for finding in findings.findings)


def test_a_retired_model_is_refused_with_what_is_known_of_its_end_and_the_nearest_model_offered() -> None:
    needs = replace(NEEDS, model=CATALOGUE.find("amazon.titan-text-express-v1:0:8k"))
    with pytest.raises(PreconditionFailed) as refused:
        check(replace(FACTS, model_status=None), needs)
    text = str(refused.value)
    assert "Bedrock does not know amazon.titan-text-express-v1:0:8k in us-east-1" in text
    assert "AWS publishes no date for its end of life" in text
    assert "nearest model still offered is Nova Lite: set baseModelIdentifier to amazon.nova-lite-v1:0:300k" in text


def test_a_legacy_model_takes_no_new_job_and_its_end_is_told() -> None:
    needs = replace(NEEDS, model=CATALOGUE.find("meta.llama3-3-70b-instruct-v1:0:128k"))
    facts = replace(FACTS, region="us-west-2", model_status="LEGACY")
    assert outcome("model", facts, needs) == "miss"
    assert "Its end of life is 2027-03-30" in message("model", facts, needs)


def test_where_no_model_of_the_region_is_offered_any_more_the_refusal_says_where_one_is() -> None:
    needs = replace(NEEDS, model=CATALOGUE.find("meta.llama3-3-70b-instruct-v1:0:128k"))
    facts = replace(FACTS, region="us-west-2", model_status="LEGACY")
    told = "nearest one elsewhere is Nova Pro (amazon.nova-pro-v1:0:300k) in us-east-1: deploy there."
    assert message("model", facts, needs).endswith(told)
    assert "set baseModelIdentifier" not in message("model", facts, needs)


def test_bedrock_comes_before_the_catalogue_when_they_disagree() -> None:
    express = replace(NEEDS, model=CATALOGUE.find("amazon.titan-text-express-v1:0:8k"))
    assert outcome("model", FACTS, express) == "ok"
    assert outcome("model", replace(FACTS, model_status="LEGACY")) == "miss"
    assert "The catalogue expected it to take jobs" in message("model", replace(FACTS, model_status=None))


def test_a_legacy_model_does_no_harm_where_the_model_of_an_earlier_run_is_adopted() -> None:
    assert outcome("model", replace(FACTS, model_status="LEGACY"), replace(NEEDS, new_jobs=0)) == "ok"


def test_where_nothing_is_offered_the_refusal_says_so() -> None:
    needs = replace(NEEDS, catalogue=type(CATALOGUE)((), ""))
    assert "No model of the catalogue is offered any more" in message("model", replace(FACTS, model_status=None), needs)


def test_a_base_model_that_cannot_be_asked_skips_the_baseline_with_a_warning() -> None:
    findings = check(replace(FACTS, inference_model_status=None), NEEDS)
    assert not findings.baseline_available
    assert "amazon.nova-micro-v1:0 cannot be asked in us-east-1" in say(findings.warnings[0], "en")


def test_a_base_model_that_nobody_asks_is_no_matter() -> None:
    facts = replace(FACTS, inference_model_status=None)
    assert outcome("baseline", facts, replace(NEEDS, asks_base_model=False)) == "ok"


def test_full_job_slots_only_warn_because_the_run_waits_for_one() -> None:
    assert outcome("customizationJobs", replace(FACTS, jobs_in_progress=9)) == "ok"
    assert outcome("customizationJobs", replace(FACTS, jobs_in_progress=10)) == "warning"


def test_custom_models_must_have_room_for_every_stage_before_it_starts() -> None:
    assert outcome("customModels", replace(FACTS, custom_models=89)) == "ok"
    assert outcome("customModels", replace(FACTS, custom_models=90)) == "warning"
    facts = replace(FACTS, custom_models=99)
    assert outcome("customModels", facts) == "warning"
    assert outcome("customModels", facts, replace(NEEDS, new_jobs=2)) == "miss"
    assert "delete 1 or more" in message("customModels", facts, replace(NEEDS, new_jobs=2))
    assert outcome("customModels", replace(FACTS, custom_models=120), replace(NEEDS, new_jobs=0)) == "ok"


@pytest.mark.parametrize("full", [{"deployments": 10}, {"deployments_in_progress": 2}])
def test_full_deployments_warn_where_one_is_needed_and_not_elsewhere(full: dict[str, int]) -> None:
    facts = replace(FACTS, **full)  # type: ignore[arg-type] # both are counts
    assert outcome("deployments", facts) == "warning"
    assert outcome("deployments", facts, PROVISIONED) == "ok"


@pytest.mark.parametrize(
    ("quota", "in_use", "expected"),
    [(None, 0, "warning"), (0, 0, "miss"), (1, 0, "miss"), (2, 1, "warning"), (2, 0, "ok")],
)
def test_model_units_are_refused_where_the_quota_can_never_hold_them(
    quota: int | None, in_use: int, expected: str
) -> None:
    facts = replace(FACTS, quotas=Quotas(model_units=quota), model_units_in_use=in_use)
    assert outcome("modelUnits", facts, PROVISIONED) == expected
    assert outcome("modelUnits", facts) == "ok"


def test_missing_model_units_name_the_quota_to_ask_for() -> None:
    facts = replace(FACTS, quotas=Quotas(model_units=0))
    assert "L-BE77399C" in message("modelUnits", facts, PROVISIONED)


def test_a_name_that_another_deployment_has_is_refused_with_its_owner() -> None:
    facts = replace(FACTS, foreign_names={"dev-01234567-0123456789-1": "arn:aws:bedrock:job"})
    assert outcome("names", facts) == "miss"
    assert "dev-01234567-0123456789-1 is the name of arn:aws:bedrock:job" in message("names", facts)


def test_every_miss_is_named_at_once() -> None:
    foreign = {"dev-01234567-0123456789-1": "arn:aws:bedrock:job"}
    facts = replace(FACTS, model_status=None, custom_models=100, foreign_names=foreign)
    with pytest.raises(PreconditionFailed) as refused:
        check(facts, NEEDS)
    assert [line.split(":")[0] for line in str(refused.value).splitlines()[1:]] == [
        "- model",
        "- customModels",
        "- names",
    ]


@pytest.fixture
def account(gateway: GatewayInMemory, bedrock: BedrockInMemory, monkeypatch: pytest.MonkeyPatch) -> GatewayInMemory:
    """An account that holds 120 custom models and whose base models answer."""
    bedrock.models |= {f"model-{number}" for number in range(120)}
    monkeypatch.setattr(bedrock, "has_access", lambda _: True, raising=False)
    return gateway


def test_a_run_is_judged_by_the_quotas_that_the_account_was_raised_to(
    account: GatewayInMemory, plan: Plan, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = {"L-CB5B847D": 500, "L-1EF80F3E": 30}
    monkeypatch.setattr(account, "bedrock_quota", raised.get)
    facts = facts_of_run(account, plan)
    assert (facts.custom_models, facts.quotas.custom_models, facts.quotas.deployments) == (120, 500, 30)
    assert check_preconditions(account, plan, call, facts)["notes"] == []


def test_a_quota_that_cannot_be_read_is_assumed_to_be_the_usual_one_and_that_is_told(
    account: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "bedrock_quota", lambda _: None)
    with pytest.raises(PreconditionFailed, match="120 of 100 custom models exist"):
        check_preconditions(account, plan, call, facts_of_run(account, plan))
    bedrock.models.clear()
    assert check_preconditions(account, plan, call, facts_of_run(account, plan))["notes"] == [
        "Quota L-CB5B847D could not be read; 100 is assumed, as every account has at first.",
        "Quota L-1EF80F3E could not be read; 10 is assumed, as every account has at first.",
    ]
