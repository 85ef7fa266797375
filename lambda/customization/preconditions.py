"""What an account, a Region and a base model must offer before a run spends anything: one list of checks.

A check answers one question from facts that somebody else asked AWS for. What only time mends is a warning, since the
states that create things wait for it; what needs a person is a miss with the fix.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal, NamedTuple

from customization.catalogue import BaseModel, Catalogue
from customization.errors import PreconditionFailed
from customization.texts import Sentence, say

# Amazon Bedrock endpoints and quotas, AWS General Reference. The first is not adjustable.
SCHEDULED_JOBS = 10
CUSTOM_MODELS = 100
CUSTOM_MODELS_CODE = "L-CB5B847D"
# With less than this share left people are told in time, since no model is deleted in its first 14 days.
_NEARLY_FULL = 0.1
DEPLOYMENTS = 10
DEPLOYMENTS_CODE = "L-1EF80F3E"
DEPLOYMENTS_IN_PROGRESS = 2
MODEL_UNITS_CODE = "L-BE77399C"


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """The account's quotas; `model_units` are those of custom models without commitment, None where it is not known."""

    jobs: int = SCHEDULED_JOBS
    custom_models: int = CUSTOM_MODELS
    deployments: int = DEPLOYMENTS
    deployments_in_progress: int = DEPLOYMENTS_IN_PROGRESS
    model_units: int | None = None


@dataclass(frozen=True, kw_only=True)
class AccountFacts:
    """What AWS says. `model_status` and `inference_model_status` come from GetFoundationModel, None for a 404.

    The second is None, too, where the account is not entitled to the model.
    `assumed_quotas` are those, by code, that could not be read, with what every account has at first.
    `foreign_names` maps a name that this run needs, and that something of another deployment has, to what has it.
    """

    region: str
    model_status: str | None
    inference_model_status: str | None
    jobs_in_progress: int = 0
    custom_models: int = 0
    deployments: int = 0
    deployments_in_progress: int = 0
    model_units_in_use: int = 0
    quotas: Quotas = field(default_factory=Quotas)
    assumed_quotas: Mapping[str, int] = field(default_factory=dict)
    foreign_names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a run is going to create; `new_jobs` leaves out stages whose model is adopted."""

    model: BaseModel
    catalogue: Catalogue
    today: date
    new_jobs: int
    serving_mode: str
    model_units: int
    asks_base_model: bool


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`message` is in English; `said` has it as sentences where it is for others than whoever runs the command."""

    check: str
    question: str
    outcome: Literal["ok", "warning", "miss"]
    message: str
    said: tuple[Sentence, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The outcome of every check; `baseline_available` tells whether the base model can be asked."""

    findings: tuple[Finding, ...]
    baseline_available: bool

    @property
    def misses(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.outcome == "miss")

    @property
    def warnings(self) -> tuple[Sentence, ...]:
        return tuple(said for finding in self.findings if finding.outcome == "warning" for said in finding.said)


class Outcome(NamedTuple):
    outcome: Literal["ok", "warning", "miss"]
    message: str
    said: tuple[Sentence, ...] = ()


@dataclass(frozen=True)
class Check:
    name: str
    question: str
    ask: Callable[[AccountFacts, Needs], Outcome]


def examine(facts: AccountFacts, needs: Needs) -> Findings:
    """Return the outcome of every check, in the order of CHECKS."""
    findings = []
    for check in CHECKS:
        outcome, message, said = check.ask(facts, needs)
        findings.append(Finding(check=check.name, question=check.question, outcome=outcome, message=message, said=said))
    return Findings(findings=tuple(findings), baseline_available=facts.inference_model_status is not None)


def check(facts: AccountFacts, needs: Needs) -> Findings:
    """Return the findings when none is a miss.

    Raises:
        PreconditionFailed: naming every miss with what to do about it.
    """
    findings = examine(facts, needs)
    if findings.misses:
        reasons = [(Sentence("precondition.check", {"check": miss.check}), *miss.said) for miss in findings.misses]
        raise PreconditionFailed(Sentence("precondition.failed", {"model": needs.model.name}), reasons)
    return findings


def _ok(message: str) -> Outcome:
    return Outcome("ok", message)


def _warning(code: str, **values: str) -> Outcome:
    warning = Sentence(code, values)
    return Outcome("warning", say(warning, "en"), (warning,))


def _miss(*said: Sentence) -> Outcome:
    return Outcome("miss", " ".join(say(sentence, "en") for sentence in said), said)


def _lifecycle(facts: AccountFacts, needs: Needs) -> Outcome:
    if not needs.new_jobs:
        return _ok("no job is created: the model of an earlier run is used")
    if facts.model_status == "ACTIVE":
        return _ok(f"{needs.model.name} is ACTIVE in {facts.region}")
    place = {"model": needs.model.base_model_identifier, "region": facts.region}
    answer = Sentence("precondition.modelUnknown", place)
    if facts.model_status is not None:
        answer = Sentence("precondition.modelNotActive", {**place, "status": facts.model_status})
    known = needs.model.describe_lifecycle(needs.today)
    if needs.model.state_on(needs.today) == "ACTIVE":
        known = (Sentence("precondition.modelExpected", {"source": needs.model.lifecycle.source}),)
    nearest = needs.catalogue.nearest_offered(needs.model, needs.today, facts.region)
    fix = Sentence("precondition.noModelOffered")
    if nearest:
        regions = ", ".join(nearest.customization_regions)
        values = {"model": nearest.name, "identifier": nearest.base_model_identifier, "regions": regions}
        is_here = facts.region in nearest.customization_regions
        fix = Sentence("precondition.nearestModel" if is_here else "precondition.nearestModelElsewhere", values)
    return _miss(answer, *known, fix)


def _baseline(facts: AccountFacts, needs: Needs) -> Outcome:
    if not needs.asks_base_model or facts.inference_model_status is not None:
        return _ok(f"{needs.model.inference_model_id} answers in {facts.region}")
    return _warning("precondition.noBaseline", model=needs.model.inference_model_id, region=facts.region)


def _jobs(facts: AccountFacts, needs: Needs) -> Outcome:
    limit = facts.quotas.jobs
    if not needs.new_jobs or facts.jobs_in_progress < limit:
        return _ok(f"{facts.jobs_in_progress} of {limit} customization jobs are in progress")
    return _warning("precondition.jobsFull", limit=str(limit))


def _custom_models(facts: AccountFacts, needs: Needs) -> Outcome:
    limit = facts.quotas.custom_models
    room = max(limit - facts.custom_models, 0)
    if needs.new_jobs and 0 <= room - needs.new_jobs < limit * _NEARLY_FULL:
        return _warning(
            "precondition.modelsNearlyFull",
            models=str(facts.custom_models),
            limit=str(limit),
            quota=CUSTOM_MODELS_CODE,
        )
    if needs.new_jobs <= room:
        return _ok(f"{facts.custom_models} of {limit} custom models exist")
    values = {
        "models": str(facts.custom_models),
        "limit": str(limit),
        "new": str(needs.new_jobs),
        "excess": str(needs.new_jobs - room),
        "quota": CUSTOM_MODELS_CODE,
    }
    return _miss(Sentence("precondition.modelsFull", values))


def _deployments(facts: AccountFacts, needs: Needs) -> Outcome:
    quotas = facts.quotas
    if needs.serving_mode != "on-demand":
        return _ok("no deployment is created")
    if facts.deployments >= quotas.deployments:
        return _warning("precondition.deploymentsFull", limit=str(quotas.deployments), quota=DEPLOYMENTS_CODE)
    if facts.deployments_in_progress >= quotas.deployments_in_progress:
        return _warning("precondition.deploymentsInProgress", limit=str(quotas.deployments_in_progress))
    return _ok(f"{facts.deployments} of {quotas.deployments} custom model deployments exist")


def _model_units(facts: AccountFacts, needs: Needs) -> Outcome:
    limit = facts.quotas.model_units
    if needs.serving_mode != "provisioned":
        return _ok("no provisioned throughput is created")
    if limit is None:
        return _warning("precondition.modelUnitsUnknown", quota=MODEL_UNITS_CODE)
    if limit < needs.model_units:
        values = {"limit": str(limit), "needed": str(needs.model_units), "quota": MODEL_UNITS_CODE}
        return _miss(Sentence("precondition.tooFewModelUnits", values))
    if limit - facts.model_units_in_use < needs.model_units:
        used, needed = str(facts.model_units_in_use), str(needs.model_units)
        return _warning("precondition.modelUnitsInUse", used=used, limit=str(limit), needed=needed)
    return _ok(f"{facts.model_units_in_use} of {limit} model units are in use")


def _names(facts: AccountFacts, _needs: Needs) -> Outcome:
    if not facts.foreign_names:
        return _ok("every name that this run gives is free or its own")
    taken = sorted(facts.foreign_names.items())
    return _miss(*(Sentence("precondition.nameTaken", {"name": name, "owner": owner}) for name, owner in taken))


CHECKS = (
    Check("model", "Does the base model take new customization jobs in this Region?", _lifecycle),
    Check("baseline", "Can the base model be asked, so that the custom model is compared with it?", _baseline),
    Check("customizationJobs", "May one more customization job be scheduled?", _jobs),
    Check("customModels", "Is there room for the custom models of this run?", _custom_models),
    Check("deployments", "Is there room for a custom model deployment?", _deployments),
    Check("modelUnits", "Has the account model units for a provisioned throughput?", _model_units),
    Check("names", "Are the names of this run's resources free?", _names),
)
