"""Ids and names: the same request on the same bytes gives the same ids, and no name outlives or meets another's.

Bedrock takes 63 characters for the names of jobs, custom models, deployments and provisioned throughputs, with letters,
digits and single dashes in all of them (CreateModelCustomizationJob, CreateCustomModelDeployment and
CreateProvisionedModelThroughput in the service model).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

from customization.json_types import Json, JsonObject

ID_DIGITS = 10
LONGEST_NAME = 63
OWN_TAGS = ("deployment", "stage", "run", "dataset")


def digest(value: Json) -> str:
    """Return 10 hex digits of a hash over the canonical JSON of `value`: the order of its keys does not matter."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:ID_DIGITS]


def training_id(
    *,
    checksums: Mapping[str, str],
    base: str,
    customization_type: str,
    hyper_parameters: Mapping[str, str],
    subset: Mapping[str, float] | None,
    field_mapping: Mapping[str, str],
    strip_role_cues: bool,
    split_seed: int,
) -> str:
    """Return the id of a training: everything that decides what the model learns, and nothing of how it is evaluated.

    `checksums` maps the names of the files that the stage reads to checksums of their content; `base` is the base
    model's id or, for a second stage, the trainingId of the first.
    """
    # Texts that come under one key are joined in the order of the mapping
    joined: JsonObject = {
        target: [key for key, other in field_mapping.items() if other == target]
        for target in set(field_mapping.values())
    }
    return digest(
        {
            "checksums": dict(checksums),
            "base": base,
            "customizationType": customization_type,
            "hyperParameters": dict(hyper_parameters),
            "subset": dict(subset) if subset else None,
            "fieldMapping": joined,
            "stripRoleCues": strip_role_cues,
            "splitSeed": split_seed,
        }
    )


def run_id(
    *, dataset: str, training_ids: Sequence[str], inference: JsonObject, evaluation: JsonObject, serving: JsonObject
) -> str:
    """Return `<dataset>-<10 hex>`: two requests with the same run id would do the same work."""
    content: JsonObject = {
        "trainingIds": list(training_ids),
        "inference": inference,
        "evaluation": evaluation,
        "serving": serving,
    }
    return f"{dataset}-{digest(content)}"


def answers_id(*, model: str, inference: JsonObject, test_records: str) -> str:
    """Return the id under which answers are kept and found again.

    `model` is the inference id of a base model or the name of a custom one, `test_records` a checksum of the test
    records.
    """
    return digest({"model": model, "inference": inference, "testRecords": test_records})


def job_name(prefix: str, training: str, number: int) -> str:
    """Return the name of a customization job and of its model; `prefix` is `<stage>-<deployment id>-`."""
    return _checked(f"{prefix}{training}-{number}")


def serving_name(prefix: str, run: str, number: int) -> str:
    """Return the name of what serves a run's model; a long data set name is cut, the id never.

    `number` is above 1 where an earlier attempt has kept what serves another model.
    """
    dataset, _, unique = run.rpartition("-")
    unique += f"-{number}" if number > 1 else ""
    room = LONGEST_NAME - len(prefix) - len(unique) - 1
    return _checked(f"{prefix}{dataset[: max(room, 0)].rstrip('-')}-{unique}")


def _checked(name: str) -> str:
    if len(name) > LONGEST_NAME:
        raise ValueError(f"name {name}: {len(name)} characters, Bedrock takes {LONGEST_NAME}; shorten the stage")
    return name


def request_token(*parts: str | int) -> str:
    """Return a clientRequestToken: the same parts give the same token, so a repeated call creates nothing twice."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:32]


def parameter_name(stage: str, deployment_id: str, dataset: str) -> str:
    """Return the SSM parameter that names the model in use for a data set."""
    return f"/{stage}/{deployment_id}/datasets/{dataset}/model"


def resource_tags(
    stage: str, deployment_id: str, run: str, dataset: str, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the tags of a Bedrock resource: those of the request, then this project's own, which win."""
    return {**(extra or {}), "deployment": deployment_id, "stage": stage, "run": run, "dataset": dataset}
