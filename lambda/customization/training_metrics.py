"""What Bedrock's metrics files say of the training: losses by step and epoch, and what to change next time.

Bedrock writes `training_artifacts/step_wise_training_metrics.csv` and, with validation data,
`validation_artifacts/post_fine_tuning_validation/validation_metrics.csv`, with or without a folder `validation` in
between (user guide, "Analyze the results of a model customization job"; samples show both). Losses are mean nats a
token; perplexity is exp(loss).
"""

import csv
import io
import itertools
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter

import msgspec

from customization.catalogue import HyperParameter
from customization.texts import Sentence

OVERFITTING = "overfitting"
DIVERGENCE = "divergence"
UNDER_TRAINING = "underTraining"

_LEARNING_RATE = "learningRate"
_EPOCH_COUNT = "epochCount"
_TRAINING_FILE = "step_wise_training_metrics.csv"
_VALIDATION_FILE = "validation_metrics.csv"
_MAXIMUM_LOGARITHM = 700.0
_LARGEST_NUMBER = 2.0**53

# Changes smaller than these are noise.
_RISE_OF_VALIDATION = 0.01
_RISE_OF_TRAINING = 0.10
_SMALL_FALL = 0.05
_STEEP_END = 0.08
_LEARNT_LOSS = 0.05
_MINIMUM_STEPS = 8
_STANDARD_ERRORS = 4.0
_LONGEST_NOTE = 200
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


class LossPoint(msgspec.Struct, frozen=True, rename="camel"):
    """One row of a metrics file, `epoch` counted as Bedrock does; `perplexity` is the file's or else exp(loss)."""

    step: int
    epoch: float
    loss: float
    perplexity: float | None = None


class EpochLosses(msgspec.Struct, frozen=True, rename="camel"):
    """An epoch, counted from 1: the mean training loss of its steps, its last validation loss, and exp of both."""

    epoch: int
    training_loss: float | None
    validation_loss: float | None
    training_perplexity: float | None = None
    validation_perplexity: float | None = None


class Finding(msgspec.Struct, frozen=True, rename="camel"):
    """overfitting, divergence or underTraining: at which epoch it began, what it means and which value to change."""

    kind: str
    epoch: int
    meaning: Sentence
    advice: Sentence


class TrainingMetrics(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Losses are None where Bedrock wrote none; `skipped_rows` counts rows without a finite loss.

    The first and the last are those of the steps. `notes` say why a file that is there gave no losses.
    """

    training: tuple[LossPoint, ...] = ()
    validation: tuple[LossPoint, ...] = ()
    epochs: tuple[EpochLosses, ...] = ()
    first_training_loss: float | None = None
    final_training_loss: float | None = None
    first_validation_loss: float | None = None
    final_validation_loss: float | None = None
    first_training_perplexity: float | None = None
    final_training_perplexity: float | None = None
    first_validation_perplexity: float | None = None
    final_validation_perplexity: float | None = None
    findings: tuple[Finding, ...] = ()
    notes: tuple[Sentence, ...] = ()
    skipped_rows: int = 0


class _Losses:
    """The usable rows of a file, how many are not, and the epoch of the first whose loss is NaN or infinite."""

    def __init__(self) -> None:
        self.points: list[LossPoint] = []
        self.skipped = 0
        self.lost_at: float | None = None
        self.notes: list[Sentence] = []

    def add(self, number: int, row: Mapping[str, str | None], column: str) -> None:
        """Take a row; one without a step number gets its own number."""
        loss, epoch = _number(row.get(column)), _number(row.get("epoch_number")) or 0.0
        if loss is None:
            self.skipped += 1
            if self.lost_at is None and _NOT_FINITE.fullmatch((row.get(column) or "").strip()):
                self.lost_at = epoch
            return
        step, shown = _number(row.get("step_number")), _number(row.get("perplexity"))
        self.points.append(
            LossPoint(number if step is None else int(step), epoch, loss, perplexity(loss) if shown is None else shown)
        )


class _Job:
    """The hyperparameters of a job, and the bounds within which its base model takes others."""

    def __init__(self, hyper_parameters: Mapping[str, str], known: Iterable[HyperParameter], epochs: int) -> None:
        self._known = {item.name: item for item in known}
        self._values = {name: item.default for name, item in self._known.items() if item.default is not None}
        self._values |= {_EPOCH_COUNT: float(epochs)} if epochs and _EPOCH_COUNT not in self._values else {}
        self._values |= {name: value for name in hyper_parameters if (value := _number(hyper_parameters[name]))}

    def advice(self, *changes: tuple[str, float]) -> Sentence:
        """Return the advice to make the first of these changes, (name, factor), that the base model's bounds allow."""
        for name, factor in changes:
            now = self._values.get(name)
            if now is None:
                continue
            aim = self._bounded(name, now * factor)
            if f"{aim:g}" != f"{now:g}":
                direction = "raise" if aim > now else "lower"
                return Sentence(f"advice.{direction}To", {"name": name, "now": f"{now:g}", "try": f"{aim:g}"})
        if any(name in self._values for name, _ in changes):
            return Sentence("advice.atLimits")
        name, factor = changes[0]
        return Sentence(f"advice.{'raise' if factor > 1 else 'lower'}", {"name": name})

    def learning_rate(self, factor: float) -> tuple[str, float]:
        """Return the change of the learning rate by `factor`, under the name that the base model has for it."""
        names = (_LEARNING_RATE, "learningRateMultiplier")
        return next((name for name in names if name in self._values), _LEARNING_RATE), factor

    def _bounded(self, name: str, value: float) -> float:
        known = self._known.get(name)
        if known is None:
            return value
        lowest = -math.inf if known.minimum is None else known.minimum
        highest = math.inf if known.maximum is None else known.maximum
        return min(max(value, lowest), highest)


def find_metrics_files(keys: Iterable[str]) -> tuple[str | None, str | None]:
    """Return the keys of the training and the validation metrics among those that a job wrote; None where missing."""
    found = sorted(keys)
    training = next((key for key in found if key.endswith(f"/{_TRAINING_FILE}")), None)
    validation = next((key for key in found if key.endswith(f"/{_VALIDATION_FILE}")), None)
    return training, validation


def read_training_metrics(
    training_csv: bytes | None,
    validation_csv: bytes | None,
    hyper_parameters: Mapping[str, str] | None = None,
    known: Iterable[HyperParameter] = (),
) -> TrainingMetrics:
    """Return what the two files say; either may be missing or lack the columns, then its losses are None.

    `hyper_parameters` are those of the job, `known` those of its base model: advice names values within their bounds.
    """
    read, checked = _read_points(training_csv, "training_loss"), _read_points(validation_csv, "validation_loss")
    training, validation = read.points, checked.points
    epochs = _by_epoch(training, validation)
    job = _Job(hyper_parameters or {}, known, len(epochs))
    return TrainingMetrics(
        training=tuple(training),
        validation=tuple(validation),
        epochs=tuple(epochs),
        first_training_loss=training[0].loss if training else None,
        final_training_loss=training[-1].loss if training else None,
        first_validation_loss=validation[0].loss if validation else None,
        final_validation_loss=validation[-1].loss if validation else None,
        first_training_perplexity=training[0].perplexity if training else None,
        final_training_perplexity=training[-1].perplexity if training else None,
        first_validation_perplexity=validation[0].perplexity if validation else None,
        final_validation_perplexity=validation[-1].perplexity if validation else None,
        findings=tuple(_findings(read, epochs, job)),
        notes=(*read.notes, *checked.notes),
        skipped_rows=read.skipped + checked.skipped,
    )


def perplexity(loss: float) -> float | None:
    """Return exp(loss), or None where that is no finite number."""
    return math.exp(loss) if loss < _MAXIMUM_LOGARITHM else None


def _read_points(content: bytes | None, column: str) -> _Losses:
    """Return the rows that have a finite loss in `column`, in the order of their steps."""
    losses = _Losses()
    if content is None:
        return losses
    text = content.decode("utf-8-sig", errors="replace")
    rows = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        names = [name.strip().lower() for name in rows.fieldnames or ()]
        rows.fieldnames = names
        if column not in names:
            shown = ", ".join(names)[:_LONGEST_NOTE] or "-"
            losses.notes.append(Sentence("finding.noLossColumn", {"column": column, "found": shown}))
        for number, row in enumerate(rows):
            losses.add(number, row, column)
    except csv.Error:
        # A cell beyond the parser's limit: what follows it cannot be trusted.
        losses.skipped += 1
        losses.notes.append(Sentence("finding.brokenFile", {"column": column, "line": str(rows.line_num)}))
    if not (losses.points or losses.skipped or losses.notes):
        # Nothing but a header, or a quote in it that is never closed
        losses.notes.append(Sentence("finding.noRows", {"column": column}))
    losses.points.sort(key=lambda point: (point.epoch, point.step))
    return losses


def _number(cell: str | None) -> float | None:
    """Return the cell as a finite number that JSON can carry, or None."""
    try:
        value = float(cell or "")
    except ValueError:
        return None
    return value if abs(value) < _LARGEST_NUMBER else None


def _by_epoch(training: Sequence[LossPoint], validation: Sequence[LossPoint]) -> list[EpochLosses]:
    """Return the losses by epoch; files that count epochs from 0 are counted from 1 here."""
    first = min((int(point.epoch) for point in (*training, *validation)), default=0)
    seen: dict[int, list[float]] = defaultdict(list)
    checked: dict[int, float] = {}
    for point in training:
        seen[int(point.epoch) - first + 1].append(point.loss)
    for point in validation:
        checked[int(point.epoch) - first + 1] = point.loss
    epochs = []
    for epoch in sorted(seen.keys() | checked.keys()):
        losses = statistics.fmean(seen[epoch]) if epoch in seen else None, checked.get(epoch)
        epochs.append(EpochLosses(epoch, *losses, *(None if loss is None else perplexity(loss) for loss in losses)))
    return epochs


def _findings(training: _Losses, epochs: Sequence[EpochLosses], job: _Job) -> list[Finding]:
    found = [_overfitting(epochs), _divergence(training, job)]
    if not any(found):
        found.append(_under_training(training, job))
    return [finding for finding in found if finding]


def _overfitting(epochs: Sequence[EpochLosses]) -> Finding | None:
    """Return overfitting when the validation loss ends above its best while the training loss went on falling."""
    checked = [
        (epoch.epoch, epoch.training_loss, epoch.validation_loss)
        for epoch in epochs
        if epoch.training_loss is not None and epoch.validation_loss is not None
    ]
    if not checked:
        return None
    (best, training_at_best, lowest), (_, training, last) = min(checked, key=itemgetter(2)), checked[-1]
    if last <= lowest + abs(lowest) * _RISE_OF_VALIDATION or training >= training_at_best:
        return None
    began = next(epoch for epoch, _, _ in checked if epoch > best)
    values = {"epoch": str(began), "best": f"{lowest:.3f}", "last": f"{last:.3f}", "epochCount": str(best)}
    return Finding(OVERFITTING, began, Sentence("finding.overfitting", values), Sentence("advice.fewerEpochs", values))


def _divergence(training: _Losses, job: _Job) -> Finding | None:
    """Return divergence when a loss is no finite number, or when the losses end well above where they once were."""
    advice = job.advice(job.learning_rate(0.1), ("batchSize", 2))
    if training.lost_at is not None:
        began = _epoch_of(training.lost_at, training.points)
        return Finding(DIVERGENCE, began, Sentence("finding.notFinite", {"epoch": str(began)}), advice)
    smooth, noise = _smoothed(training.points)
    if not smooth:
        return None
    lowest, last = min(smooth, key=lambda point: point.loss), smooth[-1]
    if last.loss - lowest.loss <= max(lowest.loss * _RISE_OF_TRAINING + _LEARNT_LOSS, noise):
        return None
    began = _epoch_of(lowest.epoch, training.points)
    values = {"epoch": str(began), "low": f"{lowest.loss:.3f}", "last": f"{last.loss:.3f}"}
    return Finding(DIVERGENCE, began, Sentence("finding.divergence", values), advice)


def _under_training(training: _Losses, job: _Job) -> Finding | None:
    """Return underTraining when the loss hardly fell at all, or still falls steeply at the end."""
    smooth, noise = _smoothed(training.points)
    if not smooth or smooth[-1].loss < _LEARNT_LOSS:
        return None
    first, last = smooth[0].loss, smooth[-1].loss
    ended = _epoch_of(smooth[-1].epoch, training.points)
    values = {"first": f"{first:.3f}", "last": f"{last:.3f}", "epoch": str(ended)}
    if last > first * (1 - _SMALL_FALL):
        advice = job.advice(job.learning_rate(10), (_EPOCH_COUNT, 2))
        return Finding(UNDER_TRAINING, 1, Sentence("finding.hardlyLearnt", values), advice)
    fall = smooth[len(smooth) * 3 // 4].loss - last
    if fall > max(last * _STEEP_END, noise):
        advice = job.advice((_EPOCH_COUNT, 2), job.learning_rate(2))
        return Finding(UNDER_TRAINING, ended, Sentence("finding.stillFalling", values), advice)
    return None


def _smoothed(points: Sequence[LossPoint]) -> tuple[list[LossPoint], float]:
    """Return the running mean over a tenth of the steps, and the difference of two means that noise alone can make.

    Nothing for a training too short to judge. The noise is that from step to step: a trend hardly adds to it.
    """
    if len(points) < _MINIMUM_STEPS:
        return [], 0.0
    width = max(len(points) // 10, 4)
    sums = [0.0, *itertools.accumulate(point.loss for point in points)]
    means = [
        LossPoint(points[end - 1].step, points[end - 1].epoch, (sums[end] - sums[end - width]) / width)
        for end in range(width, len(points) + 1)
    ]
    steps = [after.loss - before.loss for before, after in itertools.pairwise(points)]
    return means, _STANDARD_ERRORS * statistics.stdev(steps) / math.sqrt(2 * width)


def _epoch_of(epoch: float, training: Sequence[LossPoint]) -> int:
    """Return an epoch of Bedrock's file counted from 1."""
    return int(epoch) - int(min((point.epoch for point in training), default=epoch)) + 1
