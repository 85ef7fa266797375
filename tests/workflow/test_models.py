"""Every text model of the catalogue, customized and asked in each way that it has."""

from collections.abc import Iterator

import pytest

from customization.catalogue import CONTINUED_PRE_TRAINING, FINE_TUNING, BaseModel, load_catalogue
from tests.workflow import data
from tests.workflow.conftest import TODAY, Rehearse
from tests.workflow.pipeline import sides_answered, stages_of

BOTH = (CONTINUED_PRE_TRAINING, FINE_TUNING)
SERVED_BY = {"on-demand": "CreateModelDeployment", "provisioned": "CreateProvisionedThroughput"}
CATALOGUE = load_catalogue()


def _modes(model: BaseModel) -> Iterator[str]:
    if model.serves_on_demand(model.customization_regions[0], model.lifecycle.offered_as_of):
        yield "on-demand"
    if model.serving.provisioned_throughput:
        yield "provisioned"


def _ways() -> Iterator[object]:
    for model in CATALOGUE.text_models():
        stages = [(kind,) for kind in model.supported_types]
        for types in [*stages, BOTH] if len(stages) > 1 else stages:
            for mode in _modes(model):
                name = f"{model.base_model_identifier} {' then '.join(types)} {mode}"
                yield pytest.param(model, types, mode, id=name)


def _folder(types: tuple[str, ...], model: BaseModel, mode: str) -> dict[str, bytes]:
    files = data.labelled(
        baseModelIdentifier=model.base_model_identifier,
        serving={"mode": mode},
        hyperParameters={"epochCount": 1},
        budgetUsd=150,
    )
    if CONTINUED_PRE_TRAINING in types:
        files["pretrain.jsonl"] = data.lines(data.texts(40))
    if FINE_TUNING not in types:
        del files["train.jsonl"]
    return files


@pytest.mark.parametrize(("model", "types", "mode"), list(_ways()))
def test_a_model_is_customized_served_asked_and_released(
    rehearse: Rehearse, model: BaseModel, types: tuple[str, ...], mode: str
) -> None:
    pipeline = rehearse(model.lifecycle.offered_as_of, model.customization_regions[0])
    execution = pipeline.run("shop", _folder(types, model, mode))

    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert [job["customizationType"] for job in pipeline.jobs()] == list(types)
    assert SERVED_BY[mode] in pipeline.states(execution)
    assert sides_answered(pipeline.predictions(execution)) == {"base": 6, "custom": 6}
    assert pipeline.row_of(execution)["verdict"] in {"better", "worse", "inconclusive"}
    assert pipeline.what_bills() == []

    bases = [model.base_model_identifier, *(job["outputModelArn"] for job in pipeline.jobs())]
    stages = stages_of(pipeline.document(execution, "report.json"))
    assert [stage["baseModel"] for stage in stages] == bases[: len(types)]
    assert [stage["modelArn"] for stage in stages] == bases[1:]
    create = "bedrock:CreateModelCustomizationJob"
    asked = [call.resource.rsplit("/", 1)[-1] for call in pipeline.aws.calls if call.action == create]
    assert all(base.rsplit("/", 1)[-1] in asked for base in bases[: len(types)])


@pytest.mark.parametrize(
    "model",
    [model for model in CATALOGUE.text_models() if model.state_on(TODAY) != "ACTIVE"],
    ids=lambda model: model.base_model_identifier,
)
def test_a_model_that_takes_no_jobs_any_more_stops_the_run_before_anything_is_started(
    rehearse: Rehearse, model: BaseModel
) -> None:
    pipeline = rehearse(TODAY, model.customization_regions[0])
    execution = pipeline.run("shop", data.labelled(baseModelIdentifier=model.base_model_identifier))

    assert execution.outcome.error == "PreconditionFailed"
    assert pipeline.row_of(execution)["failedState"] == "CheckPreconditions"
    nearest = CATALOGUE.nearest_offered(model, TODAY)
    assert nearest is not None
    assert model.describe_lifecycle(TODAY) in str(execution.outcome.cause)
    assert f"set baseModelIdentifier to {nearest.base_model_identifier}" in str(execution.outcome.cause)
    assert pipeline.jobs() == []
    assert pipeline.bedrock.ledger() == []
    assert len(pipeline.told_of(execution)) == 1
