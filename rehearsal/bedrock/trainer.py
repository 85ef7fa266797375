"""The worker thread that reads a job's data and trains on them, and what a finished job leaves in S3."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from rehearsal.bedrock.account import CustomModel
from rehearsal.bedrock.jobs import Job, Trained
from rehearsal.bedrock.language_model import LanguageModel, TrainingOptions, TrainingText
from rehearsal.bedrock.training_data import DataRefusedError, TrainingData, read_training_data, split_uri, write_refused

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# A pipeline of 2026 reads validation_metrics.csv one folder deeper than the user guide shows it.
NESTED_VALIDATION_SINCE = 2026


class TrainingCancelledError(Exception):
    """The job was stopped before its training was done."""


class Trainer:
    """One thread: jobs are read and trained in the order of their creation, whatever the virtual clock does."""

    def __init__(
        self, s3_client_for_role: "Callable[[str], S3Client]", pretrained: Callable[[], LanguageModel], seed: int
    ) -> None:
        self._s3 = s3_client_for_role
        self._seed = seed
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bedrock-training")
        self.base_model: Future[LanguageModel] = self._executor.submit(pretrained)

    def start(self, job: Job) -> None:
        """Let the worker read the job's data and, unless a fault ends the job before, train on them."""
        job.data = self._executor.submit(self._read, job)
        if job.fate == "completes":
            job.trained = self._executor.submit(self._train, job)

    def close(self) -> None:
        """Drop what has not begun; the caller cancels the job under way."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _read(self, job: Job) -> TrainingData:
        try:
            s3 = self._s3(job.role_arn)
        except PermissionError as error:
            raise DataRefusedError(f"Could not assume provided IAM role {job.role_arn}.") from error
        return read_training_data(s3, job.data_source)

    def _train(self, job: Job) -> Trained:
        try:
            data = job.data.result()
        except DataRefusedError as failure:
            raise TrainingCancelledError from failure
        training, validation = _hold_out(data, job.plan.held_out)

        def on_step(*_: object) -> None:
            if job.cancelled.is_set():
                raise TrainingCancelledError

        on_step()
        model = _starting_point(job.source, self.base_model).copy()
        options = TrainingOptions(
            epochs=job.plan.epochs,
            batch_size=job.plan.batch_size,
            learning_rate_factor=job.plan.learning_rate_factor,
            warmup_steps=job.plan.warmup_steps,
            seed=self._seed,
        )
        log = model.train(training, [text for texts in validation for text in texts], options, on_step)
        return Trained(model, log, tuple(model.loss(texts) for texts in validation))


def _starting_point(source: CustomModel | None, base_model: "Future[LanguageModel]") -> LanguageModel:
    return source.language_model if source else base_model.result()


def _hold_out(data: TrainingData, share: float) -> tuple[Sequence[TrainingText], Sequence[Sequence[TrainingText]]]:
    """Return training and validation texts; a model with evalPercentage sets part of the training file aside."""
    if data.validation or not share:
        return data.training, data.validation
    count = math.floor(len(data.training) * share)
    return data.training[: len(data.training) - count], [data.training[len(data.training) - count :]] if count else []


def write_outputs(s3_client_for_role: "Callable[[str], S3Client]", job: Job, trained: Trained, ended: datetime) -> str:
    """Write the documented CSV files; returns the failureMessage when the role may not, "" otherwise."""
    bucket, prefix = split_uri(job.data_source.output_uri)
    folder = f"{prefix.rstrip('/')}/".lstrip("/") + f"model-customization-job-{job.arn.rsplit('/', 1)[-1]}/"
    nested = "validation/" if ended.year >= NESTED_VALIDATION_SINCE else ""
    files = {"training_artifacts/step_wise_training_metrics.csv": _csv("training_loss", trained.log.steps)}
    if trained.log.validation:
        key = f"validation_artifacts/post_fine_tuning_validation/{nested}validation_metrics.csv"
        files[key] = _csv("validation_loss", trained.log.validation)
    key = ""
    try:
        s3 = s3_client_for_role(job.role_arn)
        for key, content in files.items():
            s3.put_object(Bucket=bucket, Key=folder + key, Body=content)
    except (ClientError, PermissionError):
        return write_refused(bucket, folder + key)
    return ""


def _csv(loss_name: str, rows: Sequence[tuple[int, int, float]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step_number", "epoch_number", loss_name, "perplexity"])
    writer.writerows([step, epoch, f"{loss:.6f}", f"{math.exp(min(loss, 700.0)):.6f}"] for step, epoch, loss in rows)
    return text.getvalue().encode()
