"""PrepareDataset: from the pinned files to what Bedrock reads, the test records, the profile and the estimate."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from customization import notices
from customization.catalogue import CONTINUED_PRE_TRAINING, FINE_TUNING, load_catalogue
from customization.dataset import PreparationRequest, Stage, prepare_dataset
from customization.evaluation import shard_count
from customization.files import Sink
from customization.json_types import Json, JsonObject
from customization.links import Links
from customization.model_in_use import read_served
from customization.money import AnswersUsage, TrainingUsage, Usage, estimate, load_prices
from customization.problems import Findings, InvalidDataset, Problem
from customization.profile import Profile
from customization.runs import Call, PinnedFile, Plan, note

if TYPE_CHECKING:
    from customization.gateway import Gateway

# Training and validation file of each customization type, by the names of the prepared files.
STAGE_FILES = {
    FINE_TUNING: ("train", "validation"),
    CONTINUED_PRE_TRAINING: ("pretrain", "pretrain-validation"),
}
# A throughput is made in some 20 minutes, and a test split is answered well within the rest of the hour.
EVALUATION_HOURS = 1.0


class _Uploaded:
    """A pinned version of an uploaded file."""

    def __init__(self, gateway: "Gateway", name: str, pinned: PinnedFile) -> None:
        self.name = name
        self.size = pinned.size
        self._gateway = gateway
        self._pinned = pinned

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start; memory holds a few pieces of the object."""
        return self._gateway.data.chunks(self._pinned.key, self._pinned.version_id)


def data_key(plan: Plan, name: str) -> str:
    """Return where a prepared file lies."""
    return f"{plan.prefix}data/{name}.jsonl"


def _profile_key(plan: Plan) -> str:
    return f"{plan.prefix}data/profile.json"


def _findings_key(plan: Plan) -> str:
    return f"{plan.prefix}data/problems.json"


def _put_findings(gateway: "Gateway", plan: Plan, problems: Sequence[Problem]) -> None:
    document = msgspec.json.format(msgspec.json.encode(Findings.of(problems)), indent=1)
    gateway.artifacts.put(_findings_key(plan), document)


def read_profile(gateway: "Gateway", plan: Plan) -> Profile:
    """Return what PrepareDataset found in the run's data."""
    return gateway.artifacts.decoded(_profile_key(plan), Profile)


def prepare(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Validate, convert and split the run's data, and return {testShards, estimatedUsd, subject, message}.

    Raises:
        InvalidDataset: with every problem, by file and line; data/problems.json of the run has them as JSON.
    """

    def open_sink(name: str) -> AbstractContextManager[Sink]:
        return gateway.artifacts.writer(data_key(plan, name))

    sources = {
        name.removesuffix(".jsonl"): _Uploaded(gateway, name, pinned) for name, pinned in _wanted_files(plan).items()
    }
    try:
        profile = prepare_dataset(_request(plan), sources, open_sink)
    except InvalidDataset as error:
        _put_findings(gateway, plan, error.problems)
        address = gateway.artifacts.uri(_findings_key(plan))
        raise InvalidDataset(error.problems, plan.language, address) from None
    _put_findings(gateway, plan, [*profile.warnings, *profile.notes])
    profile = _with_epoch_costs(plan, profile, call.now)
    gateway.artifacts.put(_profile_key(plan), msgspec.json.format(msgspec.json.encode(profile), indent=1))
    gateway.artifacts.put(f"{plan.prefix}data/files.json", msgspec.json.encode(_stage_files(gateway, plan, profile)))
    in_use = read_served((gateway.runs.get(plan.run_id) or {}).get("modelInUse"))
    expected = usage_of(plan, profile)
    if in_use is not None:
        expected = msgspec.structs.replace(expected, in_use=expected.custom, in_use_model=in_use.billed_model)
    estimated = estimate(expected, load_prices(), call.now)
    gateway.artifacts.put(f"{plan.prefix}estimate.json", msgspec.json.encode(estimated))
    records: JsonObject = {name: prepared.records for name, prepared in profile.prepared.items()}
    note(gateway, call, {"records": records, **({"state": "ESTIMATED"} if plan.action == "estimate" else {})})
    return {
        "testShards": shard_count(profile.test_records) if plan.serving_mode != "none" else 0,
        "estimatedUsd": estimated.known_usd,
        **notices.estimated(plan, profile, estimated, Links.of(gateway.settings)).payload(),
    }


def _with_epoch_costs(plan: Plan, profile: Profile, now: datetime) -> Profile:
    """Return the profile with what an epoch costs for each training file whose price is known."""
    price = load_prices().find(plan.base_model_identifier, "trainingTokens", plan.region, now.date())
    trained = {STAGE_FILES[stage.customization_type][0] for stage in plan.stages} if price else set()
    prepared = {
        name: msgspec.structs.replace(file, epoch_usd=round(file.tokens.likely / 1000 * price.usd, 6))
        if price and name in trained
        else file
        for name, file in profile.prepared.items()
    }
    return msgspec.structs.replace(profile, prepared=prepared)


def _wanted_files(plan: Plan) -> dict[str, PinnedFile]:
    """Return the files that the run's stages use: a pre-training file is not read by a run that only fine-tunes."""
    types = {stage.customization_type for stage in plan.stages}
    unused = {f"{files[0]}.jsonl" for kind, files in STAGE_FILES.items() if kind not in types}
    return {name: pinned for name, pinned in plan.files.items() if name not in unused}


def _request(plan: Plan) -> PreparationRequest:
    model = load_catalogue().find(plan.base_model_identifier)
    return PreparationRequest(
        stages=tuple(
            Stage(stage.customization_type, model, _batch_size(stage.hyper_parameters)) for stage in plan.stages
        ),
        subset=plan.subset,
        field_mapping=plan.field_mapping,
        strip_role_cues=plan.strip_role_cues,
        system=plan.inference.system,
        max_test_records=plan.evaluation.max_records,
        language=plan.language,
    )


def _batch_size(hyper_parameters: dict[str, str]) -> int | None:
    return int(hyper_parameters["batchSize"]) if "batchSize" in hyper_parameters else None


def _stage_files(gateway: "Gateway", plan: Plan, profile: Profile) -> list[Json]:
    """Return for each stage the S3 URIs of its training and, where there is one, validation file."""
    stages: list[Json] = []
    for stage in plan.stages:
        training, validation = STAGE_FILES[stage.customization_type]
        uris: JsonObject = {"training": gateway.artifacts.uri(data_key(plan, training))}
        if validation in profile.prepared:
            uris["validation"] = gateway.artifacts.uri(data_key(plan, validation))
        stages.append(uris)
    return stages


def usage_of(plan: Plan, profile: Profile) -> Usage:
    """Return what the run is expected to use; answers are reckoned as long as the references."""
    test = profile.prepared.get("test")
    is_asked = test is not None and plan.serving_mode != "none"
    answers = AnswersUsage()
    if test is not None and is_asked:
        longest = test.records * plan.inference.max_tokens
        prompts = test.tokens.likely - test.completion_tokens.likely
        answers = AnswersUsage(prompts, min(test.completion_tokens.likely, longest))
    kept_hours = 0.0 if plan.keep is True else float(plan.keep)
    return Usage(
        model=plan.base_model_identifier,
        region=plan.region,
        training=tuple(
            TrainingUsage(
                stage.customization_type,
                float(profile.prepared[STAGE_FILES[stage.customization_type][0]].tokens.likely),
                float(stage.hyper_parameters["epochCount"]) if "epochCount" in stage.hyper_parameters else None,
            )
            for stage in plan.stages
        ),
        baseline=answers,
        custom=answers,
        serving_mode=plan.serving_mode,
        model_units=plan.model_units,
        serving_hours=EVALUATION_HOURS + kept_hours if plan.serving_mode == "provisioned" else 0.0,
        stored_models=0 if plan.keep_model == "never" else len(plan.stages),
    )
