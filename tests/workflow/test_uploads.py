"""From files in S3 to one run, however slowly and in whatever order they come."""

from datetime import timedelta
from itertools import permutations

import pytest

from customization.json_types import as_object
from tests.workflow import data
from tests.workflow.conftest import Rehearse
from tests.workflow.pipeline import Pipeline

FOLDER = {
    "train.jsonl": data.lines(data.pairs(100)),
    "validation.jsonl": data.lines(data.pairs(10, start=5_000)),
    "test.jsonl": data.lines(data.pairs(6, start=10_000)),
}


def arrive(pipeline: Pipeline, dataset: str, files: dict[str, bytes], every: timedelta) -> None:
    """Let the files arrive one after another, in the order given."""
    with pipeline.clock.hold():
        for name, content in files.items():
            pipeline.put(f"incoming/{dataset}/{name}", content)
            pipeline.clock.sleep(every.total_seconds())
    pipeline.finish()


def pinned(pipeline: Pipeline) -> list[str]:
    """Return the files that the only run uses."""
    [run] = pipeline.runs()
    manifest = pipeline.document(pipeline.aws.executions()[0], "manifest.json")
    assert manifest["runId"] == run["runId"]
    return sorted(as_object(manifest["files"], "files"))


ORDERS = [list(order) for order in permutations([*FOLDER, "run.json"])][::5]


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_files_that_come_within_the_settling_time_make_one_run_in_any_order(
    rehearse: Rehearse, order: list[str]
) -> None:
    pipeline = rehearse()
    files = {**FOLDER, "run.json": data.request(action="estimate")}
    arrive(pipeline, "shop", {name: files[name] for name in order}, every=timedelta(seconds=45))
    assert pinned(pipeline) == sorted(FOLDER)
    assert [run["state"] for run in pipeline.runs()] == ["ESTIMATED"]


@pytest.mark.parametrize("order", [list(FOLDER), list(reversed(FOLDER))], ids=" ".join)
def test_a_request_that_comes_first_waits_for_the_files_it_expects(rehearse: Rehearse, order: list[str]) -> None:
    pipeline = rehearse()
    files = {"run.json": data.request(action="estimate", expect=[*FOLDER]), **{name: FOLDER[name] for name in order}}
    arrive(pipeline, "shop", files, every=timedelta(minutes=10))
    assert pinned(pipeline) == sorted(FOLDER)


def test_a_multipart_upload_that_is_under_way_is_waited_for(rehearse: Rehearse) -> None:
    pipeline = rehearse()
    s3, bucket, key = (
        pipeline.aws.session().client("s3"),
        pipeline.outputs["DataBucketName"],
        "incoming/shop/test.jsonl",
    )
    with pipeline.clock.hold():
        upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        pipeline.drop("shop", {"train.jsonl": FOLDER["train.jsonl"], "run.json": data.request(action="estimate")})
        pipeline.clock.sleep(1800)
        body = FOLDER["test.jsonl"]
        part = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=body)["ETag"]
        s3.complete_multipart_upload(
            Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}
        )
    pipeline.finish()
    assert pinned(pipeline) == ["test.jsonl", "train.jsonl"]


def test_a_folder_whose_waiting_execution_was_stopped_is_run_when_another_file_comes(rehearse: Rehearse) -> None:
    pipeline = rehearse()
    files = {"train.jsonl": FOLDER["train.jsonl"]}
    pipeline.stop_at("WaitForUploads", lambda: pipeline.drop("shop", files))
    execution = pipeline.run("shop", {"run.json": data.request(action="estimate")})
    assert execution.outcome.status == "SUCCEEDED"
    assert [run["state"] for run in pipeline.runs()] == ["ESTIMATED"]


def test_a_start_from_the_console_while_the_same_data_are_trained_on_joins_that_run(rehearse: Rehearse) -> None:
    pipeline = rehearse()
    entered = pipeline.entering("WaitForCustomizationJob")
    with pipeline.clock.hold():
        pipeline.drop("shop", data.labelled())
        entered.wait(86_400)
        second = pipeline.start({"dataset": "shop", "acceptUnknownPrices": data.ACCEPTED})
    pipeline.finish()
    assert pipeline.states(pipeline.aws.wait_for_execution(second))[-1] == "DuplicateRun"
    assert [run["state"] for run in pipeline.runs()] == ["SUCCEEDED"]
    assert len(pipeline.jobs()) == 1
