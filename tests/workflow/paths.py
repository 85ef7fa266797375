"""The paths that a deployed pipeline can take, each walked by as few runs as show it, with what has to come of it."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING
from unittest.mock import patch

from botocore.exceptions import ClientError

from customization.json_types import Json, JsonObject
from rehearsal.embedded.faults import FunctionFault
from rehearsal.embedded.requests import HttpAnswer
from tests.workflow import data
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from rehearsal.embedded.states.machines import Execution

Path = Callable[[Pipeline], None]
_BROKEN = FunctionFault("Broken", "injected")
_KEPT: JsonObject = {"mode": "provisioned", "keep": 48}


def _succeed(pipeline: Pipeline, execution: "Execution", end: str = "RunSucceeded") -> JsonObject:
    """Return the row of an execution that came to the end it should come to, and told of it."""
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert pipeline.states(execution)[-1] == end
    return pipeline.row_of(execution) if end == "RunSucceeded" else {}


def _fail(pipeline: Pipeline, execution: "Execution", at: str, error: str) -> None:
    """The execution failed where and as it should and nowhere else, and it is recorded and told."""
    assert execution.outcome.status == "FAILED"
    assert _failed_states(execution) == {at}
    rows = [row for row in pipeline.rows() if row.get("executionArn") == execution.arn]
    [row] = [row for row in rows if not str(row["runId"]).startswith("uploads#")]
    assert (row["state"], row.get("failedState"), row.get("error")) == ("FAILED", at, error), row["cause"]
    assert any(told.subject.startswith(f"Failed at {at}") for told in pipeline.told_of(execution))


def _failed_states(execution: "Execution") -> set[str]:
    """Return the states that have failed, those of failure handling too."""
    state, failed = "", set()
    for event in list(execution.history.events):
        if event["details"] is not None and event["type"].endswith("StateEntered"):
            state = str(event["details"][1]["name"])
        if event["type"] in {"TaskFailed", "MapRunFailed"}:
            failed.add(state)
    return failed


def usual(pipeline: Pipeline) -> None:
    execution = pipeline.run(pipeline.folder())
    assert _succeed(pipeline, execution)["verdict"] == "inconclusive"
    assert [subject.split(":")[0] for subject in pipeline.subjects()] == ["Started", "Inconclusive"]
    assert pipeline.what_bills() == []


def provisioned(pipeline: Pipeline) -> None:
    execution = pipeline.run(pipeline.folder(serving={"mode": "provisioned"}))
    _succeed(pipeline, execution)
    assert pipeline.what_bills() == []


def base_model_behind_an_inference_profile(pipeline: Pipeline) -> None:
    model = "amazon.nova-2-lite-v1:0:256k"
    execution = pipeline.run(pipeline.folder(baseModelIdentifier=model, budgetUsd=150))
    _succeed(pipeline, execution)


def estimate(pipeline: Pipeline) -> None:
    _succeed(pipeline, pipeline.run(pipeline.folder(action="estimate")), "EstimateReady")
    assert [subject.split(":")[0] for subject in pipeline.subjects()] == ["Estimate"]


def folder_without_a_request(pipeline: Pipeline) -> None:
    """The request is missing, and so are the files that may: nothing of it is an error."""
    files = pipeline.folder()
    pipeline.run({"train.jsonl": files["train.jsonl"]})
    [execution] = pipeline.executions()
    # Without a request nobody accepts that the price of answers is not known
    _fail(pipeline, execution, "IsWithinBudget", "BudgetExceeded")


def repeated(pipeline: Pipeline) -> None:
    """The same data while they are trained on, and again when that is done."""
    entered = pipeline.entering("WaitForCustomizationJob")
    with pipeline.clock.hold():
        pipeline.drop(pipeline.dataset, pipeline.folder())
        entered.wait(86_400)
        second = pipeline.start(pipeline.request())
    pipeline.finish()
    _succeed(pipeline, pipeline.aws.wait_for_execution(second), "DuplicateRun")
    _succeed(pipeline, pipeline.ask(pipeline.request()), "DuplicateRun")
    assert [subject.split(":")[0] for subject in pipeline.subjects()].count("Already done") == 2
    assert len(pipeline.jobs()) == 1


def earlier_data_of_a_run_that_nobody_knows(pipeline: Pipeline) -> None:
    execution = pipeline.ask(pipeline.request(data=f"{pipeline.dataset}-0123456789"))
    _fail(pipeline, execution, "PlanRun", "InvalidRunRequest")


def stopped_before_the_folder_settled(pipeline: Pipeline) -> None:
    files = pipeline.folder(action="estimate")
    pipeline.interrupt("WaitForUploads", {"train.jsonl": files["train.jsonl"]}, pipeline.stop)
    _succeed(pipeline, pipeline.run({"run.json": files["run.json"]}), "EstimateReady")


def invalid_data(pipeline: Pipeline) -> None:
    execution = pipeline.run({**pipeline.folder(), "train.jsonl": b"{}\n" * 100})
    _fail(pipeline, execution, "PrepareDataset", "InvalidDataset")


def pinned_file_vanishes(pipeline: Pipeline) -> None:
    def remove(_: "Execution") -> None:
        s3, bucket = pipeline.aws.session().client("s3"), pipeline.outputs["DataBucketName"]
        key = f"incoming/{pipeline.dataset}/train.jsonl"
        for version in s3.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]:
            s3.delete_object(Bucket=bucket, Key=key, VersionId=version["VersionId"])

    execution = pipeline.interrupt("CheckPreconditions", pipeline.folder(action="estimate"), remove)
    _fail(pipeline, execution, "PrepareDataset", "ResourceNotFound")


def large_file_whose_upload_breaks(pipeline: Pipeline) -> None:
    """What was sent of it is dropped, and it is sent again."""
    many = [{**pair, "completion": str(pair["completion"]) * 30} for pair in data.pairs(9_000)]
    files = {**pipeline.folder(action="estimate"), "train.jsonl": data.lines(many)}
    s3, bucket = pipeline.aws.session().client("s3"), pipeline.outputs["ArtifactBucketName"]
    answer, aborted = pipeline.aws._moto.answer, threading.Event()

    def break_second_part(environ: "WSGIEnvironment") -> HttpAnswer:
        if environ["REQUEST_METHOD"] == "DELETE":
            aborted.set()
        second = "partNumber=2" in str(environ["QUERY_STRING"])
        return HttpAnswer(503, {}, b"") if second and not aborted.is_set() else answer(environ)

    with patch.object(pipeline.aws._moto, "answer", break_second_part):
        execution = pipeline.run(files)
    _succeed(pipeline, execution, "EstimateReady")
    assert aborted.is_set()
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def job_fails(pipeline: Pipeline) -> None:
    pipeline.inject("job-fails")
    _fail(pipeline, pipeline.run(pipeline.folder()), "PollCustomizationJob", "CustomizationJobFailed")


def job_stalls(pipeline: Pipeline) -> None:
    pipeline.inject("job-stalls")
    with pipeline.without_sweeps():
        execution = pipeline.run(pipeline.folder())
    _fail(pipeline, execution, "PollCustomizationJob", "CustomizationJobStalled")
    pipeline.pass_time(minutes=30)
    assert [job["status"] for job in pipeline.jobs()] == ["Stopped"]


def job_under_way_is_stopped_by_the_failure(pipeline: Pipeline) -> None:
    pipeline.function_faults.strike("poll_customization_job", before=_BROKEN)
    _fail(pipeline, pipeline.run(pipeline.folder()), "PollCustomizationJob", "Broken")
    pipeline.pass_time(minutes=30)
    assert [job["status"] for job in pipeline.jobs()] == ["Stopped"]


def answers_are_refused(pipeline: Pipeline) -> None:
    pipeline.inject("refuse:6=Converse/AccessDeniedException")
    execution = pipeline.run(pipeline.folder())
    _fail(pipeline, execution, "EvaluateBaseline", "States.ExceedToleratedFailureThreshold")
    assert "AccessDenied: Converse" in str(pipeline.row_of(execution)["cause"])


def _serving_fails(pipeline: Pipeline, mode: str, at: str) -> None:
    pipeline.inject("serving-fails")
    _fail(pipeline, pipeline.run(pipeline.folder(serving={"mode": mode})), at, "ServingFailed")
    assert pipeline.what_bills() == []
    pipeline.inject()
    _succeed(pipeline, pipeline.ask(pipeline.request(serving={"mode": mode})))
    assert len(pipeline.jobs()) == 1


def deployment_fails_and_the_next_attempt_adopts_the_model(pipeline: Pipeline) -> None:
    _serving_fails(pipeline, "on-demand", "PollModelDeployment")


def throughput_fails_and_the_next_attempt_adopts_the_model(pipeline: Pipeline) -> None:
    _serving_fails(pipeline, "provisioned", "PollProvisionedThroughput")


def _failed_serving_is_made_anew(pipeline: Pipeline, mode: str, function: str) -> None:
    """A call that is repeated for an hour, a quarter of it between two, finds what it had made failed."""
    pipeline.inject("serving-fails")
    waits = FunctionFault("QuotaUnavailable", "injected")
    pipeline.function_faults.strike(function, after=waits, do=pipeline.inject, times=4)
    _succeed(pipeline, pipeline.run(pipeline.folder(serving={"mode": mode})))
    assert pipeline.function_faults.broken == [function] * 4
    assert pipeline.what_bills() == []


def failed_deployment_is_made_anew(pipeline: Pipeline) -> None:
    _failed_serving_is_made_anew(pipeline, "on-demand", "create_model_deployment")


def failed_throughput_is_made_anew(pipeline: Pipeline) -> None:
    _failed_serving_is_made_anew(pipeline, "provisioned", "create_provisioned_throughput")


def _stopped(pipeline: Pipeline, state: str, mode: str, after: timedelta = timedelta()) -> None:
    execution = pipeline.interrupt(state, pipeline.folder(serving={"mode": mode}), pipeline.stop, after=after)
    pipeline.pass_time(hours=1)
    row = pipeline.row_of(execution)
    assert row["state"] == "ABORTED"
    assert f"Aborted: {row['runId']}" in pipeline.subjects()
    [month] = [row for row in pipeline.rows() if str(row["runId"]).startswith("month#")]
    assert "settled" in month.values()
    assert pipeline.what_bills() == []


def stopped_in_training(pipeline: Pipeline) -> None:
    _stopped(pipeline, "WaitForCustomizationJob", "on-demand", after=timedelta(minutes=30))
    assert [job["status"] for job in pipeline.jobs()] == ["Stopped"]


def stopped_while_a_deployment_serves(pipeline: Pipeline) -> None:
    _stopped(pipeline, "WaitForModelDeployment", "on-demand")


def stopped_while_a_throughput_serves(pipeline: Pipeline) -> None:
    _stopped(pipeline, "WaitForProvisionedThroughput", "provisioned")


def _orphaned(pipeline: Pipeline, state: str, mode: str, after: timedelta = timedelta()) -> None:
    """Something bears this deployment's name, and no lease stands for it."""

    def lose_leases(execution: "Execution") -> None:
        database, table = pipeline.aws.session().client("dynamodb"), pipeline._variable("LEASES_TABLE")
        for item in database.scan(TableName=table)["Items"]:
            database.delete_item(TableName=table, Key={"resourceName": item["resourceName"]})
        pipeline.stop(execution)

    pipeline.interrupt(state, pipeline.folder(serving={"mode": mode}), lose_leases, after=after)
    pipeline.pass_time(hours=1)
    assert pipeline.what_bills() == []


def orphaned_job(pipeline: Pipeline) -> None:
    _orphaned(pipeline, "WaitForCustomizationJob", "on-demand", after=timedelta(minutes=5))
    assert [job["status"] for job in pipeline.jobs()] == ["Stopped"]


def orphaned_deployment(pipeline: Pipeline) -> None:
    _orphaned(pipeline, "WaitForModelDeployment", "on-demand")


def orphaned_throughput(pipeline: Pipeline) -> None:
    _orphaned(pipeline, "WaitForProvisionedThroughput", "provisioned")


def _better(pipeline: Pipeline, **fields: Json) -> JsonObject:
    """Run this test's data with enough test records for a verdict."""
    execution = pipeline.run(pipeline.folder(test=32, **fields))
    row = _succeed(pipeline, execution)
    assert row["verdict"] == "better"
    return row


def _ask(pipeline: Pipeline, action: str, end: str, **fields: Json) -> None:
    _succeed(pipeline, pipeline.ask({"dataset": pipeline.dataset, "action": action, **fields}), end)


def _arn_in_use(pipeline: Pipeline) -> Json:
    return (pipeline.parameter() or {"arn": None})["arn"]


def promoted_kept_and_withdrawn(pipeline: Pipeline) -> None:
    _better(pipeline, promote="if-better", serving={"keep": 2})
    assert ":custom-model-deployment/" in str(_arn_in_use(pipeline))
    pipeline.pass_time(hours=2, minutes=30)
    assert pipeline.what_bills() == []
    assert pipeline.parameter() is None
    assert pipeline.subjects()[-1].startswith("No longer in use")


def _started_again(pipeline: Pipeline, state: str, mode: str) -> None:
    """What a stopped attempt is having made is known as this deployment's, and the next one adopts it."""

    def stop_and_start(execution: "Execution") -> None:
        pipeline.stop(execution)
        pipeline.start(pipeline.request(serving={"mode": mode}))

    pipeline.interrupt(state, pipeline.folder(serving={"mode": mode}), stop_and_start)
    row = _succeed(pipeline, pipeline.executions()[-1])
    assert row["attempt"] == 2
    assert pipeline.what_bills() == []


def started_again_while_a_deployment_is_made(pipeline: Pipeline) -> None:
    _started_again(pipeline, "WaitForModelDeployment", "on-demand")


def started_again_while_a_throughput_is_made(pipeline: Pipeline) -> None:
    _started_again(pipeline, "WaitForProvisionedThroughput", "provisioned")


def kept_throughput_is_released_when_asked(pipeline: Pipeline) -> None:
    _better(pipeline, promote="if-better", serving=_KEPT, budgetUsd=300)
    _ask(pipeline, "release", "RunReleased")
    assert pipeline.parameter() is None
    assert pipeline.subjects()[-1].startswith("No longer in use")
    assert pipeline.bedrock.live_resources() == []
    assert pipeline.open_leases() == []


def model_that_nobody_keeps(pipeline: Pipeline) -> None:
    _succeed(pipeline, pipeline.run(pipeline.folder(keepModel="never")))
    assert pipeline.models() == []
    assert pipeline.open_leases() == []


def promoted_rolled_back_and_expired(pipeline: Pipeline) -> None:
    first = _better(pipeline)
    second = _succeed(pipeline, pipeline.ask(pipeline.request(hyperParameters={"epochCount": 3})))
    _ask(pipeline, "promote", "ModelInUseChanged", data=first["runId"])
    _ask(pipeline, "promote", "ModelInUseChanged", data=second["runId"])
    assert _arn_in_use(pipeline) == second["modelArn0"]
    _ask(pipeline, "rollback", "ModelInUseChanged")
    assert _arn_in_use(pipeline) == first["modelArn0"]
    pipeline.skip_time(days=13, hours=23)
    pipeline.pass_time(hours=2)
    assert len(pipeline.models()) == 1
    _ask(pipeline, "release", "RunReleased")
    assert pipeline.models() == []


def _two_in_use(pipeline: Pipeline, *, first: JsonObject, second: JsonObject) -> JsonObject:
    """Promote two runs one after the other; return the row of the first."""
    row = _better(pipeline, promote="if-better", budgetUsd=300, **first)
    pipeline.ask(pipeline.request(promote="if-better", budgetUsd=300, hyperParameters={"epochCount": 3}, **second))
    if _arn_in_use(pipeline) == row["modelArn0"]:  # the second is no better
        later = next(run for run in pipeline.runs() if run["runId"] != row["runId"])
        _ask(pipeline, "promote", "ModelInUseChanged", data=later["runId"])
    return row


def rolled_back_to_a_deployment_that_still_serves(pipeline: Pipeline) -> None:
    _two_in_use(pipeline, first={"serving": {"keep": 40}}, second={})
    _ask(pipeline, "rollback", "ModelInUseChanged")
    assert ":custom-model-deployment/" in str(_arn_in_use(pipeline))


def rolled_back_to_a_throughput_that_still_serves(pipeline: Pipeline) -> None:
    _two_in_use(pipeline, first={"serving": _KEPT}, second={})
    _ask(pipeline, "rollback", "ModelInUseChanged")
    assert ":provisioned-model/" in str(_arn_in_use(pipeline))


def served_model_in_use_is_released_and_so_is_the_one_before(pipeline: Pipeline) -> None:
    """Each is put in use when what replaced it goes, until nothing is left."""
    first = _better(pipeline)
    _ask(pipeline, "promote", "ModelInUseChanged", data=first["runId"])
    fields: JsonObject = {"serving": {"keep": 40}, "hyperParameters": {"epochCount": 3}}
    _succeed(pipeline, pipeline.ask(pipeline.request(promote="if-better", **fields)))
    assert ":custom-model-deployment/" in str(_arn_in_use(pipeline))
    _ask(pipeline, "release", "RunReleased")
    told = [told.message for told in pipeline.notifications() if told.subject.startswith("No longer in use")]
    assert "is in use again" in told[0]
    assert "no model is in use any more" in told[-1]
    assert pipeline.parameter() is None
    assert pipeline.models() == []


def serving_in_use_ends_and_the_model_before_takes_its_place(pipeline: Pipeline) -> None:
    first = _better(pipeline)
    _ask(pipeline, "promote", "ModelInUseChanged", data=first["runId"])
    fields: JsonObject = {"serving": {"keep": 2}, "hyperParameters": {"epochCount": 3}}
    _succeed(pipeline, pipeline.ask(pipeline.request(promote="if-better", **fields)))
    assert ":custom-model-deployment/" in str(_arn_in_use(pipeline))
    pipeline.pass_time(hours=2, minutes=30)
    assert _arn_in_use(pipeline) == first["modelArn0"]


def other_test_records_than_those_of_the_model_in_use(pipeline: Pipeline) -> None:
    first = _better(pipeline)
    _ask(pipeline, "promote", "ModelInUseChanged", data=first["runId"])
    others = data.lines(data.pairs(20, pipeline._test * 1_000 + 600))
    _succeed(pipeline, pipeline.run({**pipeline.folder(), "test.jsonl": others}))


def unused_upload(pipeline: Pipeline) -> None:
    for name in ("data.csv", "notes.txt"):
        pipeline.put(f"incoming/{pipeline.dataset}/{name}", b"a,b")
        pipeline.finish()
    assert pipeline.subjects() == ["No run will use a file you dropped"]


def _dead_letters(pipeline: Pipeline) -> int:
    name = pipeline.outputs["ExportsOutputFnGetAttDeadLetterQueue9F481546QueueName66C26014"]
    queues = pipeline.aws.session().client("sqs")
    url = queues.get_queue_url(QueueName=name)["QueueUrl"]
    found = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(found["Attributes"]["ApproximateNumberOfMessages"])


def _event_that_nobody_handles(pipeline: Pipeline, function: str) -> None:
    before = _dead_letters(pipeline)
    pipeline.function_faults.strike(function, before=_BROKEN, times=3)
    pipeline.put(f"incoming/{pipeline.dataset}/data.csv", b"a,b")
    pipeline.pass_time(minutes=20)
    assert _dead_letters(pipeline) == before + 1
    [problem] = pipeline.aws.problems
    assert problem.startswith(f"{function} failed 3 times")
    pipeline.aws.problems.clear()


def sweep_that_fails(pipeline: Pipeline) -> None:
    _event_that_nobody_handles(pipeline, "sweep")


def explanation_that_fails(pipeline: Pipeline) -> None:
    _event_that_nobody_handles(pipeline, "explain_unused_upload")


def clear(pipeline: Pipeline) -> None:
    """Take away what a walk has left, however it ended, and begin anew."""
    pipeline.inject()
    pipeline.function_faults.clear()
    pipeline.finish()
    bedrock = pipeline.aws.session().client("bedrock")
    for arn in pipeline.bedrock.live_resources():
        try:
            if ":model-customization-job/" in arn:
                bedrock.stop_model_customization_job(jobIdentifier=arn)
            elif ":custom-model-deployment/" in arn:
                bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
            elif ":provisioned-model/" in arn:
                bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
        except ClientError as error:  # it is being made or changed
            assert error.response["Error"]["Code"] == "ConflictException", arn
            pipeline.pass_time(minutes=30)
            return clear(pipeline)
    pipeline.forget()
    return None


# Short ones first: a permission is tried out on the first that needs it
PATHS: tuple[Path, ...] = (
    estimate,
    unused_upload,
    explanation_that_fails,
    sweep_that_fails,
    earlier_data_of_a_run_that_nobody_knows,
    stopped_before_the_folder_settled,
    invalid_data,
    pinned_file_vanishes,
    folder_without_a_request,
    answers_are_refused,
    job_fails,
    job_under_way_is_stopped_by_the_failure,
    stopped_in_training,
    orphaned_job,
    usual,
    provisioned,
    stopped_while_a_deployment_serves,
    stopped_while_a_throughput_serves,
    orphaned_deployment,
    orphaned_throughput,
    model_that_nobody_keeps,
    failed_deployment_is_made_anew,
    failed_throughput_is_made_anew,
    repeated,
    deployment_fails_and_the_next_attempt_adopts_the_model,
    throughput_fails_and_the_next_attempt_adopts_the_model,
    base_model_behind_an_inference_profile,
    promoted_kept_and_withdrawn,
    started_again_while_a_deployment_is_made,
    started_again_while_a_throughput_is_made,
    kept_throughput_is_released_when_asked,
    promoted_rolled_back_and_expired,
    rolled_back_to_a_deployment_that_still_serves,
    rolled_back_to_a_throughput_that_still_serves,
    serving_in_use_ends_and_the_model_before_takes_its_place,
    served_model_in_use_is_released_and_so_is_the_one_before,
    other_test_records_than_those_of_the_model_in_use,
    job_stalls,
    large_file_whose_upload_breaks,
)
