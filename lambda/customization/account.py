"""CheckPreconditions: what AWS says of the account, and whether that is enough for the run."""

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from customization.catalogue import BaseModel, load_catalogue
from customization.errors import AccessDenied, RequestRejected, ResourceNotFound
from customization.gateway.bedrock import ON_DEMAND, PROVISIONED
from customization.identity import job_name, serving_name
from customization.json_types import Json, JsonObject
from customization.model_in_use import served_in_use
from customization.preconditions import (
    CUSTOM_MODELS_CODE,
    DEPLOYMENTS_CODE,
    MODEL_UNITS_CODE,
    AccountFacts,
    Needs,
    Quotas,
    check,
)
from customization.runs import Call, Plan, note
from customization.texts import Sentence, say
from customization.training import adoptable_job

if TYPE_CHECKING:
    from customization.gateway import Gateway
    from customization.gateway.bedrock import Bedrock


def check_preconditions(gateway: "Gateway", plan: Plan, call: Call, facts: AccountFacts) -> JsonObject:
    """Return {baselineAvailable, notes, modelInUse} when the run can be done; `facts` are those of `facts_of_run`.

    The model in use is settled on here, so that all of the run is compared with the same one; {} where none answers.

    Raises:
        PreconditionFailed: naming every miss with its fix.
    """
    in_use = served_in_use(gateway, plan)
    model_in_use: JsonObject = msgspec.to_builtins(in_use) if in_use else {}
    note(gateway, call, {"modelInUse": model_in_use})
    model = load_catalogue().find(plan.base_model_identifier)
    adopted = [adoptable_job(gateway, plan, stage) is not None for stage in range(len(plan.stages))]
    needs = Needs(
        model=model,
        catalogue=load_catalogue(),
        today=call.now.date(),
        new_jobs=adopted.count(False),
        serving_mode=plan.serving_mode,
        model_units=plan.model_units,
        asks_base_model=plan.serving_mode != "none",
    )
    findings = check(facts, needs)
    assumed = [
        Sentence("precondition.quotaUnknown", {"quota": code, "usual": str(usual)})
        for code, usual in facts.assumed_quotas.items()
    ]
    notes: list[Json] = [say(warning, plan.language) for warning in (*findings.warnings, *assumed)]
    note(gateway, call, {"notes": notes})
    return {"baselineAvailable": findings.baseline_available, "notes": notes, "modelInUse": model_in_use}


def facts_of_run(gateway: "Gateway", plan: Plan) -> AccountFacts:
    """Return what AWS says of the account, the base model and the names that the run needs."""
    model = load_catalogue().find(plan.base_model_identifier)
    facts = replace(account_facts(gateway.bedrock, model, plan.region), foreign_names=_foreign_names(gateway, plan))
    adjustable = {"custom_models": CUSTOM_MODELS_CODE}
    if plan.serving_mode == ON_DEMAND:
        adjustable["deployments"] = DEPLOYMENTS_CODE
    known = {name: gateway.bedrock_quota(code) for name, code in adjustable.items()}
    read = {name: value for name, value in known.items() if value is not None}
    units = gateway.bedrock_quota(MODEL_UNITS_CODE) if plan.serving_mode == PROVISIONED else None
    return replace(
        facts,
        quotas=replace(Quotas(model_units=units), **read),
        assumed_quotas={adjustable[name]: getattr(Quotas(), name) for name in adjustable if name not in read},
    )


def account_facts(bedrock: "Bedrock", model: BaseModel, region: str) -> AccountFacts:
    """Return what Bedrock says of the account and of a base model, with the quotas that every account has at first."""
    found = bedrock.foundation_model(model.base_model_identifier)
    served = list(bedrock.all_served())
    deployments = [item for item in served if item.mode == ON_DEMAND]
    return AccountFacts(
        region=region,
        model_status=found.lifecycle_status if found else None,
        inference_model_status=_inference_status(bedrock, model),
        jobs_in_progress=len(bedrock.jobs_in_progress()),
        custom_models=len(bedrock.model_names()),
        deployments=len(deployments),
        deployments_in_progress=sum(1 for item in deployments if item.status == "Creating"),
        model_units_in_use=sum(item.units for item in served if item.mode == PROVISIONED),
    )


def _inference_status(bedrock: "Bedrock", model: BaseModel) -> str | None:
    """Return the state of the model that answers, None where it is not there or the account has no access to it.

    An inference profile is asked about through its foundation model.
    """
    identifier = model.inference_model_id
    prefix, _, rest = identifier.partition(".")
    if prefix in {"us", "eu", "apac", "global"}:
        identifier = rest
    found = bedrock.foundation_model(identifier)
    return found.lifecycle_status if found and bedrock.has_access(identifier) else None


def _foreign_names(gateway: "Gateway", plan: Plan) -> dict[str, str]:
    """Return the names of this run that something of another deployment has."""
    prefix = gateway.settings.name_prefix
    arns: dict[str, str] = {}
    for stage in plan.stages:
        name = job_name(prefix, stage.training_id, 1)
        job = gateway.bedrock.job(name)
        if job is not None:
            arns[name] = job.arn
    name = serving_name(prefix, plan.run_id, 1)
    served = gateway.bedrock.served(plan.serving_mode, name) if plan.serving_mode != "none" else None
    if served is not None:
        arns[name] = served.arn
    return {name: arn for name, arn in arns.items() if not _is_ours(gateway, arn)}


def _is_ours(gateway: "Gateway", arn: str) -> bool:
    try:
        return gateway.settings.owns(gateway.bedrock.tags(arn))
    except (AccessDenied, RequestRejected, ResourceNotFound):
        return False
