"""The paths of models: kept, promoted, rolled back, released and withdrawn, each with what has to come of it."""

from datetime import timedelta

from customization.json_types import Json, JsonObject
from tests.workflow import data
from tests.workflow.paths_of_runs import succeed
from tests.workflow.pipeline import Pipeline

_LONGEST_WAIT = timedelta(days=1).total_seconds()
_KEPT: JsonObject = {"mode": "provisioned", "keep": 48}


def _better(pipeline: Pipeline, fields: JsonObject | None = None) -> JsonObject:
    """Run this test's data with enough test records for a verdict."""
    execution = pipeline.run({**pipeline.folder(test=32), "run.json": data.request(**(fields or {}))})
    row = succeed(pipeline, execution)
    assert row["verdict"] == "better"
    return row


def _ask(pipeline: Pipeline, action: str, end: str, **fields: Json) -> None:
    succeed(pipeline, pipeline.ask({"dataset": pipeline.dataset, "action": action, **fields}), end)


def _arn_in_use(pipeline: Pipeline) -> Json:
    return (pipeline.parameter() or {"arn": None})["arn"]


def promoted_kept_and_withdrawn(pipeline: Pipeline) -> None:
    _better(pipeline, {"promote": "if-better", "serving": {"keep": 2}})
    assert ":custom-model-deployment/" in str(_arn_in_use(pipeline))
    pipeline.pass_time(hours=2, minutes=30)
    assert pipeline.what_bills() == []
    assert pipeline.parameter() is None
    assert pipeline.subjects()[-1].startswith("No longer in use")


def kept_throughput_is_released_when_asked(pipeline: Pipeline) -> None:
    _better(pipeline, {"promote": "if-better", "serving": _KEPT, "budgetUsd": 300})
    _ask(pipeline, "release", "RunReleased")
    assert pipeline.parameter() is None
    assert [subject.split(":")[0] for subject in pipeline.subjects()[-2:]] == ["No longer in use", "Released"]
    assert pipeline.bedrock.live_resources() == []
    assert pipeline.open_leases() == []


def model_that_nobody_keeps(pipeline: Pipeline) -> None:
    succeed(pipeline, pipeline.run(pipeline.folder(keepModel="never")))
    assert pipeline.models() == []
    assert pipeline.open_leases() == []


def promoted_rolled_back_and_expired(pipeline: Pipeline) -> None:
    first = _better(pipeline)
    second = succeed(pipeline, pipeline.ask(pipeline.request(hyperParameters={"epochCount": 3})))
    _ask(pipeline, "promote", "ModelInUseChanged", data=first["runId"])
    _ask(pipeline, "promote", "ModelInUseChanged", data=second["runId"])
    assert _arn_in_use(pipeline) == second["modelArn0"]
    _ask(pipeline, "rollback", "ModelInUseChanged")
    assert _arn_in_use(pipeline) == first["modelArn0"]
    pipeline.pass_time(minutes=16)
    pipeline.skip_time(days=13, hours=23)
    pipeline.pass_time(hours=2)
    assert len(pipeline.models()) == 1
    _ask(pipeline, "release", "RunReleased")
    assert pipeline.models() == []


def _rolled_back_to_what_still_serves(pipeline: Pipeline, serving: JsonObject) -> None:
    fields: JsonObject = {"promote": "if-better", "budgetUsd": 300}
    _better(pipeline, {**fields, "serving": serving})
    second = succeed(pipeline, pipeline.ask(pipeline.request(**fields, hyperParameters={"epochCount": 3})))
    _ask(pipeline, "promote", "ModelInUseChanged", data=second["runId"])
    _ask(pipeline, "rollback", "ModelInUseChanged")


def rolled_back_to_a_deployment_that_still_serves(pipeline: Pipeline) -> None:
    _rolled_back_to_what_still_serves(pipeline, {"keep": 40})
    assert ":custom-model-deployment/" in str(_arn_in_use(pipeline))


def rolled_back_to_a_throughput_that_still_serves(pipeline: Pipeline) -> None:
    _rolled_back_to_what_still_serves(pipeline, _KEPT)
    assert ":provisioned-model/" in str(_arn_in_use(pipeline))


def _swapped_behind_the_deployment_in_use(pipeline: Pipeline, mode: str) -> None:
    """The deployment of the model in use takes the better model over, and what the run itself had serve it goes."""
    fields: JsonObject = {"promote": "if-better", "budgetUsd": 300}
    first = _better(pipeline, {**fields, "serving": {"keep": 40}, "hyperParameters": {"epochCount": 1}})
    in_use = _arn_in_use(pipeline)
    fields |= {"serving": {"mode": mode, "keep": 40}, "hyperParameters": {"epochCount": 5}}
    second = succeed(pipeline, pipeline.ask(pipeline.request(**fields)))
    assert second["promotedAt"]
    assert _arn_in_use(pipeline) == in_use
    assert [arn for arn in pipeline.bedrock.live_resources() if ":custom-model/" not in arn] == [in_use]
    compared: JsonObject = {"evaluation": {"compareWith": first["runId"]}, "hyperParameters": {"epochCount": 2}}
    succeed(pipeline, pipeline.ask(pipeline.request(**compared)))


def swapped_behind_the_deployment_in_use(pipeline: Pipeline) -> None:
    _swapped_behind_the_deployment_in_use(pipeline, "on-demand")


def swapped_behind_the_deployment_in_use_and_not_served_by_units(pipeline: Pipeline) -> None:
    _swapped_behind_the_deployment_in_use(pipeline, "provisioned")


def swap_that_nobody_waits_for_is_undone(pipeline: Pipeline) -> None:
    first = _better(pipeline, {"promote": "if-better", "serving": {"keep": 40}, "hyperParameters": {"epochCount": 1}})
    second = succeed(pipeline, pipeline.ask(pipeline.request(hyperParameters={"epochCount": 5})))
    entered = pipeline.entering("WaitForModelInUse")
    with pipeline.clock.hold():
        pipeline.start({"dataset": pipeline.dataset, "action": "promote", "data": second["runId"]})
        assert entered.wait(_LONGEST_WAIT)
        [running] = pipeline.running()
        pipeline.stop(running)
    pipeline.pass_time(hours=1)
    assert pipeline.what_serves() == {_arn_in_use(pipeline): first["modelArn0"]}


def served_model_in_use_is_released_and_so_is_the_one_before(pipeline: Pipeline) -> None:
    """Each is put in use when what replaced it goes, until nothing is left."""
    first = _better(pipeline)
    _ask(pipeline, "promote", "ModelInUseChanged", data=first["runId"])
    fields: JsonObject = {"serving": {"keep": 40}, "hyperParameters": {"epochCount": 3}}
    succeed(pipeline, pipeline.ask(pipeline.request(promote="if-better", **fields)))
    assert ":custom-model-deployment/" in str(_arn_in_use(pipeline))
    _ask(pipeline, "release", "RunReleased")
    told = [told.message for told in pipeline.notifications() if told.subject.startswith("No longer in use")]
    assert "is in use again" in told[0]
    assert "No model is in use any more" in told[-1]
    assert pipeline.parameter() is None
    assert pipeline.models() == []


def serving_in_use_ends_and_the_model_before_takes_its_place(pipeline: Pipeline) -> None:
    first = _better(pipeline)
    _ask(pipeline, "promote", "ModelInUseChanged", data=first["runId"])
    fields: JsonObject = {"serving": {"keep": 2}, "hyperParameters": {"epochCount": 3}}
    succeed(pipeline, pipeline.ask(pipeline.request(promote="if-better", **fields)))
    assert ":custom-model-deployment/" in str(_arn_in_use(pipeline))
    pipeline.pass_time(hours=2, minutes=30)
    assert _arn_in_use(pipeline) == first["modelArn0"]


def other_test_records_than_those_of_the_model_in_use(pipeline: Pipeline) -> None:
    first = _better(pipeline)
    _ask(pipeline, "promote", "ModelInUseChanged", data=first["runId"])
    others = data.lines(data.pairs(20, pipeline._test * 1_000 + 600))
    succeed(pipeline, pipeline.run({**pipeline.folder(), "test.jsonl": others}))
