"""Checks of an account and Region before the first deployment and after it, reading only.

    python -m customization.doctor --region us-east-1 --model amazon.nova-micro-v1:0:128k

They are the checks of CheckPreconditions that do not need a run, and those that only a deployment needs; make deploy
asks for the latter with --before-deploy.
Exit codes: 0 nothing is missing, perhaps with warnings; 1 something is missing; 2 wrong use.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import starmap

from customization.account import account_facts
from customization.catalogue import BaseModel, load_catalogue
from customization.cdk_settings import add_place
from customization.errors import InvalidRunRequest, PipelineError, TransientError
from customization.gateway.bedrock import ON_DEMAND, PROVISIONED
from customization.gateway.operator import Caller, Operator
from customization.idle_cost import idle_cost
from customization.preconditions import MODEL_UNITS_CODE, Finding, Needs, Outcome, Quotas, examine
from customization.resolution import why_unusable
from customization.texts import Sentence, say

DONE, MISSES, WRONG_USE = 0, 1, 2
# What the templates ask of the CDK's bootstrap stack; a test compares them
BOOTSTRAP_VERSION = 6
_ENOUGH_CONCURRENCY = 100
# Some names are listed with the feature in brackets before them
_QUOTA_NAMES = {
    "jobs": "Scheduled customization jobs",
    "custom_models": "Custom models per account",
    "deployments": "Total custom model deployments",
    "deployments_in_progress": "In-progress custom model deployments",
    "model_units": "Model units no-commitment Provisioned Throughputs across custom models",
}
_UNITS_OF_MODEL = "Model units per provisioned model for"
# For what warns without saying what to do
_FIXES = {
    "baseline": "Ask it once in the playground of the Bedrock console, as somebody who may subscribe in Marketplace "
    "(aws-marketplace:Subscribe), and see that no policy of the organization denies the model."
}
_OF_A_RUN = {"names"}
# What the questions to Bedrock need; a test compares them with the calls
ACTIONS = (
    "bedrock:GetFoundationModel",
    "bedrock:GetFoundationModelAvailability",
    "bedrock:ListCustomModelDeployments",
    "bedrock:ListCustomModels",
    "bedrock:ListModelCustomizationJobs",
    "bedrock:ListProvisionedModelThroughputs",
    "servicequotas:ListServiceQuotas",
)


class Examination:
    """The checks for one base model in the account and Region of `operator`."""

    def __init__(self, operator: Operator, model: BaseModel, stage: str, today: date) -> None:
        self._operator = operator
        self._model = model
        self._stage = stage
        self._today = today

    def findings(self, *, before_deploy: bool = False) -> Iterator[Finding]:
        """Yield the outcome of every check, or of those without which nothing can be deployed.

        Without credentials there is only that one.
        """
        try:
            caller = self._operator.caller()
        except (PipelineError, TransientError) as error:
            yield _credentials(Outcome("miss", str(error)))
            return
        yield _credentials(Outcome("ok", f"{caller.arn} in account {caller.account}"))
        yield _checked("bootstrap", "Has the Region the CDK's bootstrap stack?", lambda: self._bootstrap(caller))
        if before_deploy:
            return
        usable = self._usable()
        yield _finding("baseModel", "Does this pipeline customize the base model?", usable)
        if usable.outcome == "ok":
            yield _finding("region", "Can the base model be customized in this Region?", self._region())
            yield from self._preconditions()
        yield _checked("concurrency", "May enough functions run at once?", self._concurrency)
        yield _checked("notifications", "Is somebody told?", self._notifications)
        yield _finding("idleCost", "What does a deployment cost while nobody uses it?", self._idle_cost())

    def _bootstrap(self, caller: Caller) -> Outcome:
        version = self._operator.bootstrap_version()
        in_clone = 'export PATH="$PWD/.venv/bin:$PATH" && npm ci'  # Node comes with .venv
        fix = f"run {in_clone} && npx cdk bootstrap aws://{caller.account}/{self._operator.region}"
        if version is None:
            return Outcome("miss", f"there is none in {self._operator.region}; {fix}")
        if version < BOOTSTRAP_VERSION:
            return Outcome("miss", f"its version is {version} and {BOOTSTRAP_VERSION} is needed; {fix}")
        return Outcome("ok", f"its version is {version}")

    def _usable(self) -> Outcome:
        catalogue = load_catalogue()
        nearest = catalogue.nearest_offered(self._model, self._today, self._operator.region)
        choice = Sentence("resolution.noModel")
        if nearest:
            choice = Sentence("resolution.choose", {"models": nearest.base_model_identifier})
        unusable = why_unusable(self._model, say(choice, "en"))
        if unusable:
            return Outcome("miss", say(unusable, "en"))
        return Outcome("ok", f"{self._model.name} by {' or '.join(self._model.supported_types)}")

    def _region(self) -> Outcome:
        regions, model = self._model.customization_regions, self._model.name
        if self._operator.region in regions:
            return Outcome("ok", f"{model} is customized in {self._operator.region} and served {self._mode}")
        fix = f"set region in cdk.json to {' or '.join(regions)}, or choose another baseModelIdentifier"
        return Outcome("miss", f"{model} cannot be customized in {self._operator.region}; {fix}")

    @property
    def _mode(self) -> str:
        if self._model.serves_on_demand(self._operator.region, self._today):
            return ON_DEMAND
        return PROVISIONED if self._model.serving.provisioned_throughput else "none"

    def _preconditions(self) -> Iterator[Finding]:
        try:
            quotas, missing = self._quotas()
        except (PipelineError, TransientError) as error:
            quotas, missing = {}, (f"quotas could not be listed: {error}",)
        try:
            facts = account_facts(self._operator.bedrock, self._model, self._operator.region)
        except (PipelineError, TransientError) as error:
            fix = f"allow these credentials {', '.join(ACTIONS)}, or run this again if Bedrock did not answer"
            said = Outcome("miss", f"neither the base model nor quotas could be looked at: {error}; {fix}")
            yield _finding("bedrock", "Does Bedrock answer?", said)
            return
        numbers = {field: int(quotas[name]) for field, name in _QUOTA_NAMES.items() if name in quotas}
        needs = Needs(
            model=self._model,
            catalogue=load_catalogue(),
            today=self._today,
            new_jobs=1,
            serving_mode=self._mode,
            model_units=1,
            asks_base_model=True,
        )
        examined = examine(replace(facts, quotas=replace(Quotas(), **numbers)), needs)
        yield from (_with_fix(finding) for finding in examined.findings if finding.check not in _OF_A_RUN)
        if self._mode == PROVISIONED:
            yield _finding("modelUnitsOfModel", "Has it model units of this base model?", self._units_of_model(quotas))
        said = Outcome("warning", "; ".join(missing)) if missing else Outcome("ok", "each quota was found by its name")
        yield _finding("quotas", "Are the quotas known?", said)

    def _quotas(self) -> tuple[dict[str, float], tuple[str, ...]]:
        """Return the quotas by name, and a sentence for each that is not among them."""
        listed = {_plain(name): value for name, value in self._operator.bedrock_quotas().items()}
        usual = Quotas()
        absent = {name: getattr(usual, field) for field, name in _QUOTA_NAMES.items() if name not in listed}
        return listed, tuple(starmap(_absence, absent.items()))

    def _units_of_model(self, quotas: Mapping[str, float]) -> Outcome:
        of_models = {name: value for name, value in quotas.items() if name.startswith(_UNITS_OF_MODEL)}
        found = {name: value for name, value in of_models.items() if self._model.name in name}
        if not found:
            name = f"{_UNITS_OF_MODEL} {self._model.provider} {self._model.name}"
            return Outcome("warning", f"no quota like {name!r} is listed; look in Service Quotas before the first run")
        name, value = min(found.items(), key=lambda item: len(item[0]))
        if value < 1:
            return Outcome("miss", f"{name!r} is {value:.0f}; ask for 1 or more in Service Quotas")
        return Outcome("ok", f"{name!r} is {value:.0f}")

    def _concurrency(self) -> Outcome:
        free = self._operator.unreserved_concurrency()
        if free >= _ENOUGH_CONCURRENCY:
            return Outcome("ok", f"{free} without a concurrency of their own")
        fix = "have quota L-B99A9384 of Lambda (Concurrent executions) raised"
        return Outcome("warning", f"{free} only, so evaluations and other applications wait for each other; {fix}")

    def _idle_cost(self) -> Outcome:
        usd, unknown = idle_cost(self._operator.region, self._today)
        rest = f", and {unknown} items whose price here no source gives" if unknown else ""
        return Outcome("ok", f"about {usd:.2f} USD a month while nobody uses it{rest}; docs/cost.md has the items")

    def _notifications(self) -> Outcome:
        stacks = self._operator.stacks(self._stage)
        topic = next((stack.outputs["TopicArn"] for stack in stacks if "TopicArn" in stack.outputs), None)
        if topic is None:
            return Outcome("ok", f"nothing is deployed as {self._stage} yet; set notificationEmails in cdk.json")
        known = self._operator.subscriptions(topic)
        pending = sorted(endpoint for endpoint, confirmed in known.items() if not confirmed)
        if pending:
            fix = "open the mail with the subject AWS Notification - Subscription Confirmation and follow its link"
            return Outcome("miss", f"{', '.join(pending)} has not confirmed; {fix}")
        if not known:
            fix = "set notificationEmails in cdk.json and deploy"
            return Outcome("warning", f"nobody is subscribed to {topic}; {fix}")
        return Outcome("ok", ", ".join(sorted(known)))


def _plain(name: str) -> str:
    return name.partition(") ")[2] if name.startswith("(") else name


def _absence(name: str, usual: int | None) -> str:
    if usual is None:
        unknown = Sentence("precondition.modelUnitsUnknown", {"quota": MODEL_UNITS_CODE})
        return f"{name!r} is not listed: {say(unknown, 'en')}"
    return f"{name!r} is not listed; {usual} is assumed, as every account has at first"


def _finding(check: str, question: str, said: Outcome) -> Finding:
    return Finding(check=check, question=question, outcome=said.outcome, message=said.message)


def _credentials(said: Outcome) -> Finding:
    return _finding("credentials", "Are there credentials?", said)


def _with_fix(finding: Finding) -> Finding:
    fix = "" if finding.outcome == "ok" else _FIXES.get(finding.check, "")
    return replace(finding, message=f"{finding.message} {fix}".rstrip())


def _checked(check: str, question: str, ask: Callable[[], Outcome]) -> Finding:
    """Return what `ask` finds; what these credentials may not look at is a warning."""
    try:
        return _finding(check, question, ask())
    except (PipelineError, TransientError) as error:
        return _finding(check, question, Outcome("warning", f"could not be asked: {error}"))


def table(findings: Sequence[Finding]) -> str:
    """Return the findings as aligned lines, and how many of them are to be mended."""
    wide = max(len(finding.check) for finding in findings)
    lines = [f"{finding.outcome:8} {finding.check:{wide}}  {finding.message}" for finding in findings]
    counts = {kind: sum(1 for finding in findings if finding.outcome == kind) for kind in ("miss", "warning")}
    return "\n".join([*lines, f"{counts['miss']} missing, {counts['warning']} to look at"])


def main(arguments: Sequence[str] | None = None, today: date | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m customization.doctor",
        description="Check an account and Region, reading only. Credentials are those of the AWS CLI.",
        epilog="Exit codes: 0 nothing is missing, perhaps with warnings; 1 something is missing; 2 wrong use.",
    )
    default = add_place(parser).base_model_identifier
    parser.add_argument("--model", default=default, metavar="ID", help=f"baseModelIdentifier (default: {default})")
    parser.add_argument("--before-deploy", action="store_true", help="check only what cdk deploy needs")
    options = parser.parse_args(arguments)
    try:
        model = load_catalogue().find(options.model)
    except InvalidRunRequest as error:
        sys.stderr.write(f"--model: {error}\n")
        return WRONG_USE
    try:
        operator = Operator(options.region)
    except PipelineError as error:
        findings = [_credentials(Outcome("miss", str(error)))]
    else:
        examination = Examination(operator, model, options.stage, today or datetime.now(UTC).date())
        findings = list(examination.findings(before_deploy=options.before_deploy))
    sys.stdout.write(f"{table(findings)}\n")
    return MISSES if any(finding.outcome == "miss" for finding in findings) else DONE


if __name__ == "__main__":
    sys.exit(main())
