"""Every text model of the catalogue, customized and asked in each way that it has."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date

import pytest

from customization.catalogue import CONTINUED_PRE_TRAINING, FINE_TUNING, BaseModel, load_catalogue
from customization.texts import say
from tests.workflow import data
from tests.workflow.checks import assert_refused
from tests.workflow.conftest import TODAY, Deploy
from tests.workflow.pipeline import Pipeline, sides_answered, stages_of

BOTH = (CONTINUED_PRE_TRAINING, FINE_TUNING)
SERVED_BY = {"on-demand": "CreateModelDeployment", "provisioned": "CreateProvisionedThroughput"}
CATALOGUE = load_catalogue()
RETIRED = [
    ((TODAY, model.customization_regions[0]), model)
    for model in CATALOGUE.text_models()
    if model.state_on(TODAY) != "ACTIVE"
]

Place = tuple[date, str]
Way = tuple[Place, BaseModel, tuple[str, ...], str]


@pytest.fixture(scope="module")
def deployed_at(deploy: Deploy) -> Iterator[Callable[[Place], Pipeline]]:
    """Return a function for the pipeline of a day and a Region, which lasts until one of another place is asked for."""
    with ExitStack() as opened:
        latest: dict[Place, Pipeline] = {}

        def deployed_at(place: Place) -> Pipeline:
            if place not in latest:
                latest.clear()
                opened.close()
                latest[place] = opened.enter_context(deploy(*place))
            return latest[place]

        yield deployed_at


@pytest.fixture
def deployed(deployed_at: Callable[[Place], Pipeline], place: Place) -> Pipeline:
    return deployed_at(place)


def _modes(model: BaseModel) -> Iterator[str]:
    if model.serves_on_demand(model.customization_regions[0], model.lifecycle.offered_as_of):
        yield "on-demand"
    if model.serving.provisioned_throughput:
        yield "provisioned"


def _ways() -> Iterator[Way]:
    for model in CATALOGUE.text_models():
        place = (model.lifecycle.offered_as_of, model.customization_regions[0])
        stages = [(kind,) for kind in model.supported_types]
        for types in [*stages, BOTH] if len(stages) > 1 else stages:
            for mode in _modes(model):
                yield place, model, types, mode


def _name(value: object) -> str:
    if isinstance(value, BaseModel):
        return value.base_model_identifier
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _folder(pipeline: Pipeline, types: tuple[str, ...], model: BaseModel, mode: str) -> dict[str, bytes]:
    files = pipeline.folder(
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


def _shape(way: Way) -> tuple[str, tuple[str, ...], str]:
    _, model, types, mode = way
    return model.ask_by, types, mode


# Sorted, so that those of one place follow each other and share its pipeline
WAYS = sorted(_ways(), key=lambda way: way[0])
# What make test takes: one for each way to ask, to train and to serve
SAMPLED = {_shape(way): way for way in reversed(WAYS)}


@pytest.mark.parametrize(
    ("place", "model", "types", "mode"),
    [pytest.param(*way, marks=() if SAMPLED[_shape(way)] is way else pytest.mark.exhaustive) for way in WAYS],
    ids=_name,
)
def test_a_model_is_customized_served_asked_and_released(
    pipeline: Pipeline, model: BaseModel, types: tuple[str, ...], mode: str
) -> None:
    calls_before = len(pipeline.aws.calls)
    execution = pipeline.run(_folder(pipeline, types, model, mode))
    jobs = pipeline.jobs()

    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert [job["customizationType"] for job in jobs] == list(types)
    assert SERVED_BY[mode] in pipeline.states(execution)
    assert sides_answered(pipeline.predictions(execution)) == {"base": 6, "custom": 6}
    assert pipeline.row_of(execution)["verdict"] in {"better", "worse", "inconclusive"}
    assert pipeline.what_bills() == []

    bases = [model.base_model_identifier, *(job["outputModelArn"] for job in jobs)]
    stages = stages_of(pipeline.document(execution, "report.json"))
    assert [stage["baseModel"] for stage in stages] == bases[: len(types)]
    assert [stage["modelArn"] for stage in stages] == bases[1:]
    create = "bedrock:CreateModelCustomizationJob"
    asked = [call.resource.rsplit("/", 1)[-1] for call in pipeline.aws.calls[calls_before:] if call.action == create]
    assert all(base.rsplit("/", 1)[-1] in asked for base in bases[: len(types)])


@pytest.mark.parametrize(("place", "model"), sorted(RETIRED, key=str), ids=_name)
def test_a_model_that_takes_no_jobs_any_more_stops_the_run_before_anything_is_started(
    pipeline: Pipeline, place: Place, model: BaseModel
) -> None:
    execution = pipeline.run(pipeline.folder(baseModelIdentifier=model.base_model_identifier))
    region = place[1]
    nearest = CATALOGUE.nearest_offered(model, TODAY, region)
    assert nearest is not None
    fix = f"set baseModelIdentifier to {nearest.base_model_identifier}"
    if region not in nearest.customization_regions:
        fix = f"({nearest.base_model_identifier}) in {', '.join(nearest.customization_regions)}: deploy there"
    known = " ".join(say(sentence, "en") for sentence in model.describe_lifecycle(TODAY))
    for says in (known, fix):
        assert_refused(pipeline, execution, at="CheckPreconditions", error="PreconditionFailed", says=says)
