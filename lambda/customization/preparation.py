"""PrepareDataset: from the pinned files to what Bedrock reads, the test records, the profile and the estimate."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from customization import notices
from customization.catalogue import load_catalogue
from customization.dataset import PreparationRequest, Stage, prepare_dataset
from customization.evaluation import shard_count
from customization.files import Sink
from customization.json_types import Json, JsonObject
from customization.links import Links
from customization.model_in_use import read_served
from customization.money import estimate, load_prices
from customization.prepared import STAGE_FILES, data_key, profile_key, usage_of
from customization.problems import Findings, InvalidDataset, Problem
from customization.profile import Profile
from customization.runs import Call, PinnedFile, Plan, note

if TYPE_CHECKING:
    from customization.gateway import Gateway


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


def _findings_key(plan: Plan) -> str:
    return f"{plan.prefix}data/problems.json"


def _put_findings(gateway: "Gateway", plan: Plan, problems: Sequence[Problem]) -> None:
    document = msgspec.json.format(msgspec.json.encode(Findings.of(problems)), indent=1)
    gateway.artifacts.put(_findings_key(plan), document)


def prepare(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
    """Validate, convert and split the run's data, and return {testShards, estimatedUsd, subject, message}.

    Where only an estimate is asked for, its report is written and the message says where.

    Raises:
        InvalidDataset: with every problem, by file and line; data/problems.json of the run has them as JSON.
    """
    answer = _prepare(gateway, plan, call)
    if plan.action != "estimate":
        return answer
    # Only an estimate is drawn here; a run that goes on need not wait for the modules that draw
    from customization.publishing import publish_estimate  # noqa: PLC0415  as said above

    report = publish_estimate(gateway, plan, call)
    return {**answer, "message": notices.with_report(gateway, plan.run_id, str(answer["message"]), report)}


def _prepare(gateway: "Gateway", plan: Plan, call: Call) -> JsonObject:
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
    gateway.artifacts.put(profile_key(plan), msgspec.json.format(msgspec.json.encode(profile), indent=1))
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
