"""Every error that a state can end with.

A class name here is the error name that Retry and Catch of the state machine match: renaming one changes the machine.
"""

from collections.abc import Mapping, Sequence
from typing import Self

from customization.texts import Language, Sentence, say

_BETWEEN_SENTENCES = {"en": " ", "ja": ""}


class PipelineError(Exception):
    """What a person can act on: the message names the field, line or resource, what was expected and what to do.

    `said` is text that is worded already, such as AWS's own, or a sentence; each of `reasons` follows on a line. The
    message is in English until `put_into` says otherwise.
    """

    def __init__(self, said: str | Sentence = "", reasons: Sequence[Sequence[Sentence]] = ()) -> None:
        self._said, self._reasons, self._is_worded = said, reasons, False
        super().__init__(self.text("en"))

    @classmethod
    def of(cls, code: str, *, terms: Mapping[str, str] | None = None, **values: str) -> Self:
        """Return the error that says one sentence of data/texts.json."""
        return cls(Sentence(code, values, dict(terms or {})))

    def text(self, language: Language) -> str:
        """Return the message in that language."""
        first = say(self._said, language) if isinstance(self._said, Sentence) else self._said
        between = _BETWEEN_SENTENCES[language]
        lines = (between.join(say(sentence, language) for sentence in reason) for reason in self._reasons)
        return "\n".join((first, *(f"- {line}" for line in lines)))

    def put_into(self, language: Language) -> None:
        """Let the message be in that language from now on; whoever knows it first decides."""
        if not self._is_worded:
            self.args, self._is_worded = (self.text(language),), True


class TransientError(Exception):
    """What passes by itself: Retry of the state machine matches the subclasses by name."""


class Throttled(TransientError):
    """AWS asked to slow down and the client's own attempts were used up."""


class ServiceUnavailable(TransientError):
    """AWS answered with an internal error or could not be reached."""


class ModelNotReady(TransientError):
    """A custom model is still being loaded for inference."""


class UploadsIncomplete(PipelineError):
    """Uploads into the data set's folder did not come to an end."""


class InvalidRunRequest(PipelineError):
    """The run request has unknown, missing or impossible fields."""


class RunSuperseded(PipelineError):
    """Another execution has taken over this run."""


class PreconditionFailed(PipelineError):
    """The account, Region or base model cannot do what the request asks."""


class InvalidDataset(PipelineError):
    """The data files break a rule of the base model or of the format."""


class BudgetExceeded(PipelineError):
    """The estimate is above the run's or the month's budget, or an item has no known price."""


class CustomizationJobFailed(PipelineError):
    """Bedrock ended the model customization job with status Failed."""


class CustomizationJobStopped(PipelineError):
    """Somebody or something stopped the model customization job."""


class CustomizationJobStalled(PipelineError):
    """The model customization job did not start or end in time and was stopped."""


class ServingFailed(PipelineError):
    """The deployment or the provisioned throughput did not become ready."""


class QuotaUnavailable(PipelineError):
    """A service quota of the account leaves no room."""


class EvaluationUnfinished(PipelineError):
    """A shard's time was over before its last record was asked; its answers are stored, and a retry asks the rest."""


class ReleaseRefused(PipelineError):
    """AWS refused for good to release something that bills and that nobody needs."""


class ArtifactUnreadable(PipelineError):
    """What a state has written for later ones is not what it has written any more."""


class AccessDenied(PipelineError):
    """The function's role lacks a permission."""


class ResourceNotFound(PipelineError):
    """AWS knows no resource of that name."""


class Conflict(PipelineError):
    """The resource exists already or is in a state that forbids the call."""


class RequestRejected(PipelineError):
    """AWS refused the parameters of a call."""
