"""PlanRun: from an event or a request to a plan with pinned files and ids, owned by one execution."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from customization import notices
from customization.catalogue import CONTINUED_PRE_TRAINING, FINE_TUNING, load_catalogue
from customization.errors import InvalidRunRequest, ResourceNotFound
from customization.gateway.bedrock import ON_DEMAND, PROVISIONED
from customization.identity import run_id, training_id
from customization.inference import InferenceSettings
from customization.json_types import Json, JsonObject
from customization.links import Links
from customization.money import AnswersUsage, TrainingUsage, Usage, estimate, load_prices
from customization.request import DATASET, RunRequest, asked_language, parse_request
from customization.resolution import ResolvedRequest, ResolvedStage, resolve
from customization.runs import (
    Call,
    EvaluationPlan,
    PinnedFile,
    Plan,
    Stage,
    claim_run,
    read_plan,
    save_plan,
    trace,
    unplanned,
)
from customization.splits import Subset
from customization.texts import Language, Sentence, say
from customization.uploads import DATA_FILES, INCOMING, Drop, dataset_of, read_drop, read_request_file

if TYPE_CHECKING:
    from customization.gateway import Gateway

# Fixed, so that the same data always give the same splits.
SPLIT_SEED = 0
# A folder without either has nothing to run on
_TRAINING_FILES = {"train.jsonl", "pretrain.jsonl"}
_TEST_FILE = "test.jsonl"
# A message of so many lines is read, and fits Step Functions
_MOST_INPUTS = 100
# What `history` compares between runs
_TRIED = ("stages", "subset", "fieldMapping", "stripRoleCues", "inference", "evaluation", "servingMode")
_ACTS_ON_EARLIER_RUNS = {"promote", "rollback", "release"}


def plan_run(gateway: "Gateway", event: Json, call: Call) -> JsonObject:
    """Plan and claim the run that an S3 event or a request from the console asks for.

    Returns {outcome, runId, attempt, dataset, action, data, language, stages, servingMode, subject, message}; outcome
    is planned or duplicate. What acts on earlier runs is no run itself: it has no runId, and `data` is handed on.

    Raises:
        InvalidRunRequest: naming every problem of the request, the folder or the files.
    """
    drop = read_drop(event)
    document = _read_document(gateway, event, drop, call.now)
    language = asked_language(document, gateway.settings.defaults)
    trace(gateway, call.execution_arn, language)
    try:
        return _plan_run(gateway, document, call, drop.at if drop else None)
    except InvalidRunRequest as error:
        error.put_into(language)
        raise


def _plan_run(gateway: "Gateway", document: JsonObject, call: Call, asked_at: datetime | None) -> JsonObject:
    request = parse_request(document, gateway.settings.defaults)
    if request.action in _ACTS_ON_EARLIER_RUNS:
        return _planned("", 0, request, stages=0, serving_mode="none")
    files = _pin_earlier(gateway, request) if request.data != "newest" else _pin_newest(gateway, request.dataset)
    resolved = resolve(
        request,
        files=files,
        catalogue=load_catalogue(),
        region=gateway.settings.region,
        today=call.now.date(),
    )
    plan = _plan(gateway, resolved, files, call)
    claim = claim_run(gateway, _row(plan), call.execution_arn, force=plan.force, asked_at=asked_at)
    if claim.duplicate_of is not None:
        return _duplicate(gateway, plan, claim.duplicate_of)
    plan = msgspec.structs.replace(plan, attempt=claim.attempt)
    save_plan(gateway, plan)
    gateway.runs.delete(unplanned(call.execution_arn))
    return _planned(plan.run_id, plan.attempt, request, stages=len(plan.stages), serving_mode=resolved.serving_mode)


def _planned(run: str, attempt: int, request: RunRequest, *, stages: int, serving_mode: str) -> JsonObject:
    return {
        "outcome": "planned",
        "runId": run,
        "attempt": attempt,
        "dataset": request.dataset,
        "action": request.action,
        "data": request.data,
        "language": request.language,
        "stages": stages,
        "servingMode": serving_mode,
        "subject": "",
        "message": "",
    }


def _read_document(gateway: "Gateway", event: Json, drop: Drop | None, now: datetime) -> JsonObject:
    if drop is not None:
        dataset = dataset_of(drop)
        return {**read_request_file(gateway, dataset), "dataset": dataset}
    if not isinstance(event, dict) or not event.get("dataset"):
        language = asked_language(event, gateway.settings.defaults)
        raise InvalidRunRequest(_ready_inputs(gateway, language, now))
    return event


def _ready_inputs(gateway: "Gateway", language: Language, now: datetime) -> str:
    """Return what to type into the console for each folder that has data to train on."""
    found: dict[str, set[str]] = {}
    for item in gateway.data.listed(INCOMING):
        dataset, _, name = item.key.removeprefix(INCOMING).partition("/")
        if name in DATA_FILES and re.fullmatch(DATASET, dataset):
            found.setdefault(dataset, set()).add(name)
    head = say(Sentence("request.whichDataset"), language)
    found = {dataset: files for dataset, files in found.items() if files & _TRAINING_FILES}
    if not found:
        place = f"s3://{gateway.data.bucket}/{INCOMING}"
        return f"{head}\n{say(Sentence('request.nothingThere', {'place': place}), language)}"
    accepted: JsonObject = {"acceptUnknownPrices": [*_unpriced(gateway, now)]}
    rest = accepted if accepted["acceptUnknownPrices"] else {}
    inputs = {name: json.dumps({"dataset": name, **rest}) for name in sorted(found)}
    lines = [f"{ready}   ({', '.join(sorted(found[name]))})" for name, ready in inputs.items()]
    if len(lines) > _MOST_INPUTS:
        more = Sentence("request.moreFolders", {"folders": f"{len(lines) - _MOST_INPUTS:,}"})
        lines[_MOST_INPUTS:] = [say(more, language)]
    return "\n".join((head, say(Sentence("request.readyInputs"), language), *lines))


def _unpriced(gateway: "Gateway", now: datetime) -> tuple[str, ...]:
    """Return the items that a run of the default base model bills and whose price no source gives in this Region."""
    region = gateway.settings.region
    model = load_catalogue().find(gateway.settings.defaults.base_model_identifier)
    some = AnswersUsage(input_tokens=1, output_tokens=1)
    usage = Usage(
        model=model.base_model_identifier,
        region=region,
        training=(TrainingUsage(FINE_TUNING, tokens=1, epochs=1),),
        baseline=some,
        custom=some,
        serving_mode=ON_DEMAND if model.serves_on_demand(region, now.date()) else PROVISIONED,
        serving_hours=1,
        stored_models=1,
    )
    return estimate(usage, load_prices(), now).unknown


def _pin_newest(gateway: "Gateway", dataset: str) -> dict[str, PinnedFile]:
    """Return the newest version of each data file of the folder, with the checksum of its content."""
    pinned: dict[str, PinnedFile] = {}
    for name in DATA_FILES:
        found = gateway.data.newest(f"{INCOMING}{dataset}/{name}")
        if found is not None:
            checksum = gateway.data.sha256(found.key, found.version_id)
            pinned[name] = PinnedFile(found.key, found.version_id, found.size, checksum)
    return pinned


def _pin_earlier(gateway: "Gateway", request: RunRequest) -> dict[str, PinnedFile]:
    try:
        return read_plan(gateway, request.data).files
    except ResourceNotFound as error:
        raise InvalidRunRequest.of("request.unknownRun", runId=request.data) from error


def _learnt_from(resolved: ResolvedRequest, stage: ResolvedStage) -> set[str]:
    """Return the files that decide what Bedrock is given for the stage, as `prepare_dataset` parts them.

    Fine-tuning leaves out what is in the test file, and makes its own splits where a file is missing; pre-training has
    the validation file where it is alone.
    """
    if stage.customization_type == FINE_TUNING:
        return {stage.training_file, "validation.jsonl", _TEST_FILE}
    return {stage.training_file, "validation.jsonl"} if len(resolved.stages) == 1 else {stage.training_file}


def _stages(resolved: ResolvedRequest, files: Mapping[str, PinnedFile]) -> tuple[Stage, ...]:
    request = resolved.request
    stages: list[Stage] = []
    for stage in resolved.stages:
        read, mapping = _learnt_from(resolved, stage), request.field_mapping
        is_raw = stage.customization_type == CONTINUED_PRE_TRAINING
        if is_raw:  # one key and no roles
            mapping = {key: target for key, target in mapping.items() if "input" in (key, target)}
        base = stages[-1].training_id if stages else request.base_model_identifier
        identity = training_id(
            checksums={name: pinned.sha256 for name, pinned in files.items() if name in read},
            base=base,
            customization_type=stage.customization_type,
            hyper_parameters=stage.hyper_parameters,
            subset=request.subset.model_dump(exclude_none=True) if request.subset else None,
            field_mapping=mapping,
            strip_role_cues=request.strip_role_cues and not is_raw,
            split_seed=SPLIT_SEED,
        )
        stages.append(Stage(stage.customization_type, stage.hyper_parameters, identity))
    return tuple(stages)


def _run_id(resolved: ResolvedRequest, stages: Sequence[Stage], files: Mapping[str, PinnedFile]) -> str:
    request = resolved.request
    evaluation: JsonObject = request.evaluation.model_dump(mode="json")
    if _TEST_FILE in files and not any(_TEST_FILE in _learnt_from(resolved, stage) for stage in resolved.stages):
        evaluation["testFile"] = files[_TEST_FILE].sha256
    serving: JsonObject = {
        "mode": resolved.serving_mode,
        **request.serving.model_dump(mode="json", include={"keep", "model_units"}),
        # An estimate must not stand in the way of the run that it is about.
        **({"action": "estimate"} if request.action == "estimate" else {}),
    }
    return run_id(
        dataset=request.dataset,
        training_ids=[stage.training_id for stage in stages],
        inference=request.inference.model_dump(mode="json"),
        evaluation=evaluation,
        serving=serving,
    )


def _plan(gateway: "Gateway", resolved: ResolvedRequest, files: dict[str, PinnedFile], call: Call) -> Plan:
    request = resolved.request
    stages = _stages(resolved, files)
    inference = InferenceSettings(**request.inference.model_dump())
    return Plan(
        run_id=_run_id(resolved, stages, files),
        attempt=0,
        execution_arn=call.execution_arn,
        started_at=call.now,
        action=request.action,
        dataset=request.dataset,
        name=request.name,
        region=gateway.settings.region,
        language=request.language,
        base_model_identifier=request.base_model_identifier,
        stages=stages,
        files=files,
        serving_mode=resolved.serving_mode,
        model_units=request.serving.model_units,
        keep=request.serving.keep,
        promote=resolved.promote,
        keep_model=request.keep_model,
        inference=inference,
        evaluation=EvaluationPlan(**request.evaluation.model_dump()),
        subset=Subset(**request.subset.model_dump()) if request.subset else None,
        field_mapping=request.field_mapping,
        strip_role_cues=request.strip_role_cues,
        budget_usd=request.budget_usd,
        accept_unknown_prices=request.accept_unknown_prices,
        force=request.force,
        tags=request.tags,
        warnings=resolved.warnings,
    )


def _row(plan: Plan) -> JsonObject:
    kinds = " then ".join(stage.customization_type for stage in plan.stages)
    asked: JsonObject = msgspec.json.decode(msgspec.json.encode(plan))
    return {
        "runId": plan.run_id,
        "dataset": plan.dataset,
        "name": plan.name,
        "language": plan.language,
        "startedAt": plan.started_at.isoformat(),
        "summary": f"{kinds} of {plan.base_model_identifier}",
        "baseModelIdentifier": plan.base_model_identifier,
        "trainingId": plan.training_id,
        "files": {name: pinned.sha256 for name, pinned in plan.files.items()},
        **{name: asked[name] for name in _TRIED},
    }


def _duplicate(gateway: "Gateway", plan: Plan, first: JsonObject) -> JsonObject:
    return {
        "outcome": "duplicate",
        "runId": plan.run_id,
        "attempt": 0,
        "dataset": plan.dataset,
        "action": plan.action,
        "data": "newest",
        "language": plan.language,
        "stages": len(plan.stages),
        "servingMode": plan.serving_mode,
        **notices.duplicate(plan, first, Links.of(gateway.settings)).payload(),
    }
