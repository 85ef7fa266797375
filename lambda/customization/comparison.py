"""What a comparison of models says: which is better, by how much, and on which records it rests."""

import msgspec

from customization.bootstrap import Interval
from customization.evaluation import Prediction
from customization.texts import Sentence
from customization.training_metrics import Finding
from customization.verdict import Verdict

HISTOGRAM_BINS = 10


class PrimaryMetric(msgspec.Struct, frozen=True, rename="camel"):
    """The score that decides, and why it was chosen."""

    metric: str
    reason: Sentence


class ComparisonSettings(msgspec.Struct, frozen=True, rename="camel"):
    """`minimum_gain` is in score (0.02 is two points); `max_tokens` is what the models were asked with.

    `findings` are those of the training that made the custom model.
    """

    minimum_gain: float = 0.0
    primary_metric: str | None = None
    max_tokens: int = 256
    findings: tuple[Finding, ...] = ()
    seed: int = 0


class RecordResult(msgspec.Struct, frozen=True, rename="camel"):
    """A test record with every model's answer and scores by side; a failed answer has no scores.

    The model of another run has an answer only where that run asked the same record.
    """

    record_id: str
    category: str
    prompt: str
    reference: str
    predictions: dict[str, Prediction]
    scores: dict[str, dict[str, float]]


class ModelResult(msgspec.Struct, frozen=True, rename="camel"):
    """One model's scores over the records that were compared, and how its answers went over all records."""

    side: str
    scores: dict[str, Interval]
    histogram: tuple[int, ...]
    answered: int
    failed: int
    cut: int
    median_latency_ms: float
    input_tokens: int | None
    output_tokens: int | None
    commonest_error: str = ""


class Difference(msgspec.Struct, frozen=True, rename="camel"):
    """The primary metric of the custom model minus that of `side`, over the pairs that both answered."""

    side: str
    pairs: int
    wins: int
    losses: int
    ties: int
    gain: Interval
    deviation: float


class CategoryResult(msgspec.Struct, frozen=True, rename="camel"):
    category: str
    pairs: int
    baseline: float
    custom: float
    gain: Interval


class Example(msgspec.Struct, frozen=True, rename="camel"):
    """A record for the reader; `scores` are those of the primary metric, by side."""

    record_id: str
    category: str
    prompt: str
    reference: str
    answers: dict[str, str]
    scores: dict[str, float]


class Confusion(msgspec.Struct, frozen=True, rename="camel"):
    """How often a model answered which label for each expected one, over the pairs that were compared.

    `counts` has a row for each of `labels`, the expected ones, and in each row a column for each of `labels`, the
    answered ones, and a last column for answers that name no label.
    """

    side: str
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class Comparison(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The verdict with what it rests on.

    `baseline` is the side compared with: the base model, else the one in use, else that of the run in compareWith.
    `primary` is None without a pair.
    `against_in_use` says how the custom model stands against the model in use, where that is not the baseline.
    `confusions` are there when the references are labels; `signatures` say how a library computed a metric.
    """

    verdict: Verdict
    reason: Sentence
    next_step: Sentence
    records: int = 0
    minimum_gain: float = 0.0
    baseline: str = ""
    primary: PrimaryMetric | None = None
    signatures: dict[str, str] = {}
    models: tuple[ModelResult, ...] = ()
    differences: tuple[Difference, ...] = ()
    against_in_use: Sentence | None = None
    confusions: tuple[Confusion, ...] = ()
    categories: tuple[CategoryResult, ...] = ()
    best: tuple[Example, ...] = ()
    worst: tuple[Example, ...] = ()
    most_changed: tuple[Example, ...] = ()

    def difference(self, side: str) -> Difference | None:
        """Return how the custom model differs from `side`, or None when that side answered nothing."""
        return next((difference for difference in self.differences if difference.side == side), None)

    def is_worse_than(self, side: str) -> bool:
        """Return whether the custom model is worse than `side` with 95 % confidence."""
        difference = self.difference(side)
        return difference is not None and difference.gain.high < 0
