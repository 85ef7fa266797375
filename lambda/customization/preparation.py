"""PrepareDataset: from the pinned files to what Bedrock reads, the test records, the profile and the estimate."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import msgspec

from customization.catalogue import CONTINUED_PRE_TRAINING, FINE_TUNING, load_catalogue
from customization.dataset import PreparationRequest, Stage, prepare_dataset
from customization.files import Sink
from customization.json_types import Json, JsonObject
from customization.money import AnswersUsage, TrainingUsage, Usage, describe, estimate, load_prices
from customization.profile import Profile
from customization.records import split_lines
from customization.runs import Call, PinnedFile, Plan, note

if TYPE_CHECKING:
    from customization.gateway import Gateway

# One Lambda call answers a shard; its answers are kept together.
SHARD_RECORDS = 50
# Training and validation file of each customization type, by the names of the prepared files.
STAGE_FILES = {
    FINE_TUNING: ("train", "validation"),
    CONTINUED_PRE_TRAINING: ("pretrain", "pretrain-validation"),
}
# A throughput bills from when it is in service until it is deleted; a test split is answered well within the hour.
EVALUATION_HOURS = 1.0


class _Uploaded:
    """A pinned version of an uploaded file."""

    def __init__(self, gateway: "Gateway", name: str, pinned: PinnedFile) -> None:
        self.name = name
        self.size = pinned.size
        self._gateway = gateway
        self._pinned = pinned

    def lines(self) -> Iterator[bytes]:
        """Yield the lines from the start; memory holds one piece of the object and one line."""
        return split_lines(self._gateway.data.chunks(self._pinned.key, self._pinned.version_id))


def shard_count(records: int) -> int:
    """Return into how many shards that many test records are cut."""
    return -(-records // SHARD_RECORDS)


def data_key(plan: Plan, name: str) -> str:
    """Return where a prepared file lies."""
    return f"{plan.prefix}data/{name}.jsonl"


def _profile_key(plan: Plan) -> str:
    return f"{plan.prefix}data/profile.json"


def read_profile(gateway: "Gateway", plan: Plan) -> Profile:
    """Return what PrepareDataset found in the run's data."""
    return msgspec.json.decode(gateway.artifacts.read(_profile_key(plan)), type=Profile)


def prepare(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Validate, convert and split the run's data, and return {testShards, estimatedUsd, subject, message}.

    Raises:
        InvalidDataset: with every problem, by file and line.
    """

    def open_sink(name: str) -> AbstractContextManager[Sink]:
        return gateway.artifacts.writer(data_key(plan, name))

    sources = {
        name.removesuffix(".jsonl"): _Uploaded(gateway, name, pinned) for name, pinned in _wanted_files(plan).items()
    }
    profile = prepare_dataset(_request(plan), sources, open_sink)
    gateway.artifacts.put(_profile_key(plan), msgspec.json.format(msgspec.json.encode(profile), indent=1))
    gateway.artifacts.put(f"{plan.prefix}data/files.json", msgspec.json.encode(_stage_files(gateway, plan, profile)))
    estimated = estimate(usage_of(plan, profile), load_prices(), call.now)
    gateway.artifacts.put(f"{plan.prefix}estimate.json", msgspec.json.encode(estimated))
    records: JsonObject = {name: prepared.records for name, prepared in profile.prepared.items()}
    note(gateway, call, {"records": records, **({"state": "ESTIMATED"} if plan.action == "estimate" else {})})
    return {
        "testShards": shard_count(profile.test_records) if plan.serving_mode != "none" else 0,
        "estimatedUsd": estimated.known_usd,
        "subject": f"Estimate: {plan.run_id}"[:99],
        "message": f"{plan.run_id}: nothing was started.\n\n{describe(estimated)}\n\n{_told(plan, profile)}",
    }


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
        system=plan.inference.system,
        max_test_records=plan.evaluation.max_records,
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


def _told(plan: Plan, profile: Profile) -> str:
    records = ", ".join(f"{name}: {prepared.records} records" for name, prepared in profile.prepared.items())
    warnings = [*plan.warnings, *(problem.text() for problem in profile.warnings)]
    return "\n".join((f"Data: {records}.", *(f"Warning: {text}" for text in warnings)))


def told_at_start(gateway: "Gateway", plan: Plan) -> str:
    """Return what people hear about the data when a run starts."""
    return _told(plan, read_profile(gateway, plan))
