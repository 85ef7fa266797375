"""Every error that a state can end with.

A class name here is the error name that Retry and Catch of the state machine match: renaming one changes the machine.
"""


class PipelineError(Exception):
    """What a person can act on: the message names the field, line or resource, what was expected and what to do."""


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


class EvaluationFailed(PipelineError):
    """Too many records could not be answered, or the answers of two models do not pair up."""


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
