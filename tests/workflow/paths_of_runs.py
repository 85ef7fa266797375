"""The paths of runs: from dropped files to a result, a failure or a stop, each with what has to come of it."""

import threading
from datetime import timedelta
from typing import TYPE_CHECKING
from unittest.mock import patch

from customization.json_types import JsonObject
from rehearsal.embedded.faults import FunctionFault
from rehearsal.embedded.requests import HttpAnswer
from tests.workflow import data
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from rehearsal.embedded.states.machines import Execution

_BROKEN = FunctionFault("Broken", "injected")


def succeed(pipeline: Pipeline, execution: "Execution", end: str = "RunSucceeded") -> JsonObject:
    """Return the row of an execution that came to the end it should come to, and told of it."""
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    assert pipeline.states(execution)[-1] == end
    return pipeline.row_of(execution) if end == "RunSucceeded" else {}


def fail(pipeline: Pipeline, execution: "Execution", at: str, error: str) -> None:
    """The execution failed where and as it should and nowhere else, and it is recorded and told."""
    assert execution.outcome.status == "FAILED"
    assert _failed_states(execution) == {at}
    rows = [row for row in pipeline.rows() if row.get("executionArn") == execution.arn]
    [row] = [row for row in rows if not str(row["runId"]).startswith("uploads#")]
    assert (row["state"], row.get("failedState"), row.get("error")) == ("FAILED", at, error), row["cause"]
    [told] = [told for told in pipeline.told_of(execution) if told.subject.startswith(f"Failed at {at}")]
    # What prevents its report does not prevent the rest of failure handling: it shows here alone
    assert at == "PlanRun" or f"/runs/{row['runId']}/report.html" in told.message


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
    assert succeed(pipeline, execution)["verdict"] == "inconclusive"
    assert [subject.split(":")[0] for subject in pipeline.subjects()] == ["Started", "Inconclusive"]
    assert pipeline.what_bills() == []


def provisioned(pipeline: Pipeline) -> None:
    execution = pipeline.run(pipeline.folder(serving={"mode": "provisioned"}))
    succeed(pipeline, execution)
    assert pipeline.what_bills() == []


def base_model_behind_an_inference_profile(pipeline: Pipeline) -> None:
    model = "amazon.nova-2-lite-v1:0:256k"
    execution = pipeline.run(pipeline.folder(baseModelIdentifier=model, budgetUsd=150))
    succeed(pipeline, execution)


def estimate(pipeline: Pipeline) -> None:
    succeed(pipeline, pipeline.run(pipeline.folder(action="estimate")), "EstimateReady")
    assert [subject.split(":")[0] for subject in pipeline.subjects()] == ["Estimate"]


def folder_without_a_request(pipeline: Pipeline) -> None:
    """The request is missing, and so are the files that may: nothing of it is an error."""
    files = pipeline.folder()
    pipeline.run({"train.jsonl": files["train.jsonl"]})
    [execution] = pipeline.executions()
    # Without a request nobody accepts that the price of answers is not known
    fail(pipeline, execution, "IsWithinBudget", "BudgetExceeded")


def repeated(pipeline: Pipeline) -> None:
    """The same data while they are trained on, and again when that is done."""
    entered = pipeline.entering("WaitForCustomizationJob")
    with pipeline.clock.hold():
        pipeline.drop(pipeline.dataset, pipeline.folder())
        assert entered.wait(86_400)
        second = pipeline.start(pipeline.request())
    pipeline.finish()
    succeed(pipeline, pipeline.aws.wait_for_execution(second), "DuplicateRun")
    succeed(pipeline, pipeline.ask(pipeline.request()), "DuplicateRun")
    assert [subject.split(":")[0] for subject in pipeline.subjects()].count("Already done") == 2
    assert len(pipeline.jobs()) == 1


def earlier_data_of_a_run_that_nobody_knows(pipeline: Pipeline) -> None:
    execution = pipeline.ask(pipeline.request(data=f"{pipeline.dataset}-0123456789"))
    fail(pipeline, execution, "PlanRun", "InvalidRunRequest")


def stopped_before_the_folder_settled(pipeline: Pipeline) -> None:
    files = pipeline.folder(action="estimate")
    pipeline.interrupt("WaitForUploads", {"train.jsonl": files["train.jsonl"]}, pipeline.stop)
    succeed(pipeline, pipeline.run({"run.json": files["run.json"]}), "EstimateReady")


def invalid_data(pipeline: Pipeline) -> None:
    execution = pipeline.run({**pipeline.folder(), "train.jsonl": b"{}\n" * 100})
    fail(pipeline, execution, "PrepareDataset", "InvalidDataset")


def pinned_file_vanishes(pipeline: Pipeline) -> None:
    def remove(_: "Execution") -> None:
        s3, bucket = pipeline.aws.session().client("s3"), pipeline.outputs["DataBucketName"]
        key = f"incoming/{pipeline.dataset}/train.jsonl"
        for version in s3.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]:
            s3.delete_object(Bucket=bucket, Key=key, VersionId=version["VersionId"])

    execution = pipeline.interrupt("CheckPreconditions", pipeline.folder(action="estimate"), remove)
    fail(pipeline, execution, "PrepareDataset", "ResourceNotFound")


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
    succeed(pipeline, execution, "EstimateReady")
    assert aborted.is_set()
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def job_fails(pipeline: Pipeline) -> None:
    pipeline.inject("job-fails")
    fail(pipeline, pipeline.run(pipeline.folder()), "PollCustomizationJob", "CustomizationJobFailed")


def job_stalls(pipeline: Pipeline) -> None:
    pipeline.inject("job-stalls")
    with pipeline.without_sweeps():
        execution = pipeline.run(pipeline.folder())
    fail(pipeline, execution, "PollCustomizationJob", "CustomizationJobStalled")
    pipeline.pass_time(minutes=30)
    assert [job["status"] for job in pipeline.jobs()] == ["Stopped"]


def job_under_way_is_stopped_by_the_failure(pipeline: Pipeline) -> None:
    pipeline.function_faults.strike("poll_customization_job", before=_BROKEN)
    fail(pipeline, pipeline.run(pipeline.folder()), "PollCustomizationJob", "Broken")
    pipeline.pass_time(minutes=30)
    assert [job["status"] for job in pipeline.jobs()] == ["Stopped"]


def answers_are_refused(pipeline: Pipeline) -> None:
    pipeline.inject("refuse:6=Converse/AccessDeniedException")
    execution = pipeline.run(pipeline.folder())
    fail(pipeline, execution, "EvaluateBaseline", "States.ExceedToleratedFailureThreshold")
    assert "AccessDenied: Converse" in str(pipeline.row_of(execution)["cause"])


def _serving_fails(pipeline: Pipeline, mode: str, at: str) -> None:
    pipeline.inject("serving-fails")
    fail(pipeline, pipeline.run(pipeline.folder(serving={"mode": mode})), at, "ServingFailed")
    assert pipeline.what_bills() == []
    pipeline.inject()
    succeed(pipeline, pipeline.ask(pipeline.request(serving={"mode": mode})))
    assert len(pipeline.jobs()) == 1


def deployment_fails_and_the_next_attempt_adopts_the_model(pipeline: Pipeline) -> None:
    _serving_fails(pipeline, "on-demand", "PollModelDeployment")


def throughput_fails_and_the_next_attempt_adopts_the_model(pipeline: Pipeline) -> None:
    _serving_fails(pipeline, "provisioned", "PollProvisionedThroughput")


def _failed_serving_is_made_anew(pipeline: Pipeline, mode: str, function: str) -> None:
    """A call that is repeated for an hour, a quarter of it between two, finds what it had made failed."""
    pipeline.inject("serving-fails")
    waits = FunctionFault("QuotaUnavailable", "injected")
    pipeline.function_faults.strike(function, after=waits, do=lambda _: pipeline.inject(), times=4)
    succeed(pipeline, pipeline.run(pipeline.folder(serving={"mode": mode})))
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


def _lost(pipeline: Pipeline, mode: str) -> None:
    def delete(_: "Execution") -> None:
        bedrock = pipeline.aws.session().client("bedrock")
        [arn] = pipeline.what_serves()
        if mode == "on-demand":
            bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
        else:
            bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)

    execution = pipeline.interrupt("EvaluateCustomModel", pipeline.folder(serving={"mode": mode}), delete)
    row = succeed(pipeline, execution)
    assert (row["verdict"], bool(row.get("modelLost"))) == ("inconclusive", True)
    assert pipeline.what_bills() == []


def deployment_is_deleted_while_it_is_asked(pipeline: Pipeline) -> None:
    _lost(pipeline, "on-demand")


def throughput_is_deleted_while_it_is_asked(pipeline: Pipeline) -> None:
    _lost(pipeline, "provisioned")


def _forgotten(pipeline: Pipeline, state: str, mode: str) -> None:
    """What a stopped run is having made is known as ours by its tag, its row or not; who starts again adopts it."""

    def forget_and_start(execution: "Execution") -> None:
        row = pipeline.row_of(execution)
        pipeline.stop(execution)
        database, table = pipeline.aws.session().client("dynamodb"), pipeline._variable("RUNS_TABLE")
        database.delete_item(TableName=table, Key={"runId": {"S": str(row["runId"])}})
        pipeline.start(pipeline.request(serving={"mode": mode}))

    pipeline.interrupt(state, pipeline.folder(serving={"mode": mode}), forget_and_start)
    row = succeed(pipeline, pipeline.executions()[-1])
    assert row["attempt"] == 1
    assert pipeline.what_bills() == []


def forgotten_while_a_deployment_is_made(pipeline: Pipeline) -> None:
    _forgotten(pipeline, "WaitForModelDeployment", "on-demand")


def forgotten_while_a_throughput_is_made(pipeline: Pipeline) -> None:
    _forgotten(pipeline, "WaitForProvisionedThroughput", "provisioned")


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


def _redriven(pipeline: Pipeline, state: str, mode: str) -> None:
    """What was reserved for a run that was stopped is given back, and reserved again when it is redriven."""
    execution = pipeline.interrupt(state, pipeline.folder(serving={"mode": mode}), pipeline.stop)
    pipeline.pass_time(hours=1)
    pipeline.person("RunOperator").client("stepfunctions").redrive_execution(executionArn=execution.arn)
    pipeline.finish()
    succeed(pipeline, execution)
    assert pipeline.what_bills() == []


def redriven_before_the_job(pipeline: Pipeline) -> None:
    _redriven(pipeline, "EvaluateBaseline", "on-demand")


def redriven_before_a_deployment(pipeline: Pipeline) -> None:
    _redriven(pipeline, "CollectTrainingMetrics", "on-demand")


def redriven_before_a_throughput(pipeline: Pipeline) -> None:
    _redriven(pipeline, "CollectTrainingMetrics", "provisioned")


def training_metrics_vanish(pipeline: Pipeline) -> None:
    """Somebody tidies up too early: the run is compared and reported without them."""

    def remove(execution: "Execution") -> None:
        s3, bucket = pipeline.aws.session().client("s3"), pipeline.outputs["ArtifactBucketName"]
        key = f"runs/{pipeline.row_of(execution)['runId']}/training-metrics-1.json"
        s3.delete_object(Bucket=bucket, Key=key)

    succeed(pipeline, pipeline.interrupt("WaitForModelDeployment", pipeline.folder(), remove))


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
    assert [problem.partition(":")[0] for problem in pipeline.aws.problems] == [f"{function} failed 3 times"]
    pipeline.aws.problems.clear()


def sweep_that_fails(pipeline: Pipeline) -> None:
    _event_that_nobody_handles(pipeline, "sweep")


def explanation_that_fails(pipeline: Pipeline) -> None:
    _event_that_nobody_handles(pipeline, "explain_unused_upload")
