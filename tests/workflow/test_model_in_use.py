"""The model in use is changed by a person: promoted after its run, and rolled back."""

from typing import TYPE_CHECKING

import pytest

from customization.json_types import Json, JsonObject
from tests.workflow.checks import assert_failed
from tests.workflow.pipeline import Pipeline, sides_answered

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution


def change(pipeline: Pipeline, **request: Json) -> "Execution":
    """Ask for another model in use; its execution is told of once."""
    execution = pipeline.ask({"dataset": pipeline.dataset, **request})
    assert pipeline.states(execution)[-1] == "ModelInUseChanged", execution.outcome.cause
    assert [told.subject.split(":")[0] for told in pipeline.told_of(execution)] == ["In use"]
    return execution


def model_of(row: JsonObject) -> JsonObject:
    return {"arn": row["modelArn0"], "until": None}


@pytest.mark.exhaustive
def test_a_run_is_promoted_afterwards_and_a_rollback_puts_the_model_before_back(pipeline: Pipeline) -> None:
    first = pipeline.row_of(pipeline.run(pipeline.folder(test=32)))
    run = pipeline.ask(pipeline.request(hyperParameters={"epochCount": 3}))
    second = pipeline.row_of(run)
    assert first["modelArn0"] != second["modelArn0"]
    assert pipeline.parameter() is None
    assert f'"action": "promote", "data": "{second["runId"]}"' in pipeline.told_of(run)[-1].message

    change(pipeline, action="promote", data=first["runId"])
    assert pipeline.parameter() == model_of(first)
    change(pipeline, action="promote", data=second["runId"])
    assert pipeline.parameter() == model_of(second)
    change(pipeline, action="rollback")
    assert pipeline.parameter() == model_of(first)
    assert pipeline.what_bills() == []

    pipeline.pass_time(minutes=16)
    pipeline.skip_time(days=13, hours=22)
    pipeline.pass_time(hours=1)
    assert len(pipeline.models()) == 2
    pipeline.pass_time(hours=2)
    assert len(pipeline.models()) == 1
    assert pipeline.parameter() == model_of(first)

    released = pipeline.ask({"dataset": pipeline.dataset, "action": "release"})
    assert pipeline.states(released)[-1] == "RunReleased"
    assert pipeline.parameter() is None
    assert pipeline.models() == []


def test_what_cannot_be_put_in_use_is_refused_by_one_message_and_leaves_every_run_alone(pipeline: Pipeline) -> None:
    done = pipeline.row_of(pipeline.run(pipeline.folder(keepModel="never")))
    unknown = f"{pipeline.dataset}-0123456789"
    requests: list[tuple[JsonObject, str]] = [
        ({"action": "promote", "data": unknown}, f"data: no run {unknown} is known; expected the runId"),
        ({"action": "promote", "data": done["runId"]}, f"the custom model of run {done['runId']} does not exist any"),
        ({"action": "rollback"}, f"action: no model is in use for {pipeline.dataset}"),
    ]
    for request, says in requests:
        execution = pipeline.ask({"dataset": pipeline.dataset, **request})
        assert_failed(pipeline, execution, at="ChangeModelInUse", error="InvalidRunRequest", says=says)
        [told] = pipeline.told_of(execution)
        assert told.subject == "Failed at ChangeModelInUse: a request that started no run"
    assert pipeline.parameter() is None
    [row] = pipeline.runs()
    assert row == done | {"endedWith": "SUCCEEDED"}, "the sweeper alone has looked at it"


@pytest.mark.exhaustive
def test_a_model_in_use_that_somebody_deletes_is_withdrawn_by_the_next_sweep(pipeline: Pipeline) -> None:
    done = pipeline.row_of(pipeline.run(pipeline.folder()))
    change(pipeline, action="promote", data=done["runId"])
    pipeline.pass_time(minutes=16)
    assert pipeline.parameter() == model_of(done)
    [model] = pipeline.models()
    pipeline.aws.session().client("bedrock").delete_custom_model(modelIdentifier=model)
    pipeline.pass_time(minutes=16)
    assert pipeline.parameter() is None
    assert pipeline.subjects()[-1] == f"No longer in use: {done['runId']}"


@pytest.mark.parametrize(
    ("mode", "keep"), [("on-demand", True), pytest.param("provisioned", 24, marks=pytest.mark.exhaustive)]
)
def test_a_run_that_is_forced_again_serves_its_new_model_beside_the_one_that_it_has_kept(
    pipeline: Pipeline, mode: str, keep: Json
) -> None:
    serving: JsonObject = {"mode": mode, "keep": keep}
    kept = pipeline.row_of(pipeline.run(pipeline.folder(serving=serving, budgetUsd=100)))
    assert list(pipeline.what_serves().values()) == [kept["modelArn0"]]
    again = pipeline.ask(pipeline.request(serving=serving, budgetUsd=100, force=True))
    assert again.outcome.status == "SUCCEEDED", again.outcome.cause
    forced = pipeline.row_of(again)
    assert (forced["runId"], forced["attempt"]) == (kept["runId"], 2)
    served = pipeline.what_serves()
    assert sorted(served.values()) == sorted(str(row["modelArn0"]) for row in (kept, forced))
    assert sides_answered(pipeline.predictions(again)) == {"base": 6, "custom": 6}

    pipeline.ask({"dataset": pipeline.dataset, "action": "release"})
    assert pipeline.what_bills() == []
