"""One model customization job: what it will go through, and what it looks like at a given moment."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Literal

from customization.catalogue import BaseModel
from customization.json_types import JsonObject
from rehearsal.bedrock.account import Account, CustomModel
from rehearsal.bedrock.hyperparameters import TrainingPlan
from rehearsal.bedrock.training_data import DataRefusedError, DataSource, TrainingData

if TYPE_CHECKING:
    from rehearsal.bedrock.language_model import LanguageModel, TrainingLog

# Seen in 2026: data are validated within 2-4 minutes; 189 records and 2 epochs took 81 minutes from end to end.
VALIDATION_MINUTES = (2.0, 4.0)
PROCESSING_MINUTES = (3.0, 8.0)
RECORDS_PROCESSED_PER_MINUTE = 2_000
QUEUE_MINUTES = (15.0, 45.0)
START_UP_MINUTES = (15.0, 25.0)
TOKENS_TRAINED_PER_MINUTE = 5_000
STOPPING_MINUTES = (2.0, 5.0)

VALIDATION, PROCESSING, TRAINING = range(3)
Fate = Literal["completes", "job-fails", "job-fails-validation", "job-stalls", "job-stopped", "job-stopping"]


@dataclass(frozen=True)
class Trained:
    """`validation_losses` has one entry for each validator, in mean nats per token."""

    language_model: "LanguageModel"
    log: "TrainingLog"
    validation_losses: tuple[float, ...]


@dataclass(frozen=True)
class Phase:
    status: str = "NotStarted"
    started: datetime | None = None
    modified: datetime | None = None


@dataclass(frozen=True)
class Progress:
    """`trained_share` is the share of the training that is done, which is what Bedrock bills of a stopped job."""

    status: str
    phases: tuple[Phase, Phase, Phase]
    modified: datetime
    ended: datetime | None = None
    failure: str = ""
    trained_share: float = 0.0


@dataclass(frozen=True)
class _Timeline:
    validated: datetime
    processed: datetime
    training_starts: datetime | None = None
    training_ends: datetime | None = None

    def half_way(self) -> datetime | None:
        if self.training_starts is None or self.training_ends is None:
            return None
        return self.training_starts + (self.training_ends - self.training_starts) / 2


@dataclass(kw_only=True)
class Job:
    """`failure` is the message of a fate that fails; a fault may give `training_hours` and `stopping_hours`.

    `data` and `trained` come from a worker thread in real time; what they give is seen at its virtual time only.
    """

    arn: str
    name: str
    model_name: str
    model_arn: str
    base: BaseModel
    source: CustomModel | None
    parameters: JsonObject
    role_arn: str
    created: datetime
    data_source: DataSource
    plan: TrainingPlan
    fate: Fate
    failure: str
    training_hours: float | None
    stopping_hours: float | None
    account: Account
    data: "Future[TrainingData]" = field(default_factory=Future)
    trained: "Future[Trained]" = field(default_factory=Future)
    cancelled: Event = field(default_factory=Event)
    stop_requested: datetime | None = None
    output_failure: str = ""
    metrics: JsonObject = field(default_factory=dict)
    settled: bool = False

    @property
    def key_arn(self) -> str | None:
        """The key of the custom model, None for an AWS owned key or for one that was named by an alias."""
        key = str(self.parameters.get("customModelKmsKeyId", ""))
        return key if ":key/" in key else None

    def progress(self, now: datetime) -> Progress:
        """Return what the job looks like at `now`; waits for the worker where its result must be known by then."""
        validated = self.created + self._minutes("validation", VALIDATION_MINUTES)
        stop = self.stop_requested
        if now < validated or (stop and stop < validated):
            return self._cut(_Timeline(validated, validated), now)
        failure = self._validation_failure()
        if failure:
            phases = (Phase("Failed", self.created, validated), Phase(), Phase())
            return Progress("Failed", phases, validated, validated, failure)
        return self._cut(self._timeline(validated), now)

    def billed_tokens(self, progress: Progress) -> int:
        """Return the training tokens that Bedrock bills: tokens of the file times epochs, or a share."""
        tokens = self.data.result().tokens * self.plan.epochs if progress.trained_share else 0
        return round(tokens * progress.trained_share) if progress.status in {"Completed", "Stopped"} else 0

    def _validation_failure(self) -> str:
        if self.fate == "job-fails-validation":
            return self.failure
        try:
            self.data.result()
        except DataRefusedError as failure:
            return str(failure)
        return ""

    def _timeline(self, validated: datetime) -> _Timeline:
        data = self.data.result()
        processing = self._minutes("processing", PROCESSING_MINUTES)
        processed = validated + processing + timedelta(minutes=data.records / RECORDS_PROCESSED_PER_MINUTE)
        if self.fate == "job-stalls":
            return _Timeline(validated, processed)
        starts = processed + self._minutes("queue", QUEUE_MINUTES)
        if self.training_hours is not None:
            return _Timeline(validated, processed, starts, starts + timedelta(hours=self.training_hours))
        tokens = data.tokens * self.plan.epochs
        training = self._minutes("training", START_UP_MINUTES) + timedelta(minutes=tokens / TOKENS_TRAINED_PER_MINUTE)
        return _Timeline(validated, processed, starts, starts + training)

    def _cut(self, timeline: _Timeline, now: datetime) -> Progress:
        """Return the progress at `now`, given what ends the job first: a stop, a fault, or the end of training."""
        half_way = timeline.half_way()
        stop = self.stop_requested
        if self.fate in {"job-stopped", "job-stopping"} and half_way and (stop is None or half_way < stop):
            stop = half_way
        if stop and stop <= now:
            return self._stopping(timeline, stop, now)
        if self.fate == "job-fails" and half_way and half_way <= now:
            return self._ended("Failed", timeline, half_way, self.failure)
        if timeline.training_ends and timeline.training_ends <= now:
            status = "Failed" if self.output_failure else "Completed"
            return self._ended(status, timeline, timeline.training_ends, self.output_failure)
        phases = _phases(timeline, self.created, now, "InProgress")
        return Progress("InProgress", phases, max(phase.modified or self.created for phase in phases))

    def _stopping(self, timeline: _Timeline, stop: datetime, now: datetime) -> Progress:
        stopped = stop + self._minutes("stopping", STOPPING_MINUTES)
        if self.stopping_hours is not None:
            stopped = stop + timedelta(hours=self.stopping_hours)
        share = _share(timeline, stop)
        if now < stopped:
            return Progress("Stopping", _phases(timeline, self.created, stop, "Stopping"), stop, None, "", share)
        return Progress("Stopped", _phases(timeline, self.created, stop, "Stopped"), stopped, stopped, "", share)

    def _ended(self, status: str, timeline: _Timeline, at: datetime, failure: str) -> Progress:
        return Progress(status, _phases(timeline, self.created, at, status), at, at, failure, _share(timeline, at))

    def _minutes(self, what: str, bounds: tuple[float, float]) -> timedelta:
        return self.account.minutes(f"{self.arn}/{what}", *bounds)


def _share(timeline: _Timeline, at: datetime) -> float:
    starts, ends = timeline.training_starts, timeline.training_ends
    if starts is None or ends is None or at <= starts:
        return 0.0
    return min(1.0, (at - starts) / (ends - starts)) if ends > starts else 1.0


def _phases(timeline: _Timeline, created: datetime, at: datetime, last: str) -> tuple[Phase, Phase, Phase]:
    """Return the three phases at `at`; the one under way has the status `last`."""
    spans = (
        (created, timeline.validated),
        (timeline.validated, timeline.processed),
        (timeline.training_starts, timeline.training_ends),
    )
    phases = [Phase(), Phase(), Phase()]
    for number, (start, end) in enumerate(spans):
        if start is None or end is None or at < start or (number == PROCESSING and at <= start):
            continue
        over = at >= end and (number < TRAINING or last == "Completed")
        phases[number] = (
            Phase("Completed", start, end) if over else Phase(last, start, at if last != "InProgress" else start)
        )
    return phases[VALIDATION], phases[PROCESSING], phases[TRAINING]
