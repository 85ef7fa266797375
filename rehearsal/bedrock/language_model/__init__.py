"""A small neural language model in numpy: what the stand-in trains and asks where AWS has a large one."""

from rehearsal.bedrock.language_model.model import (
    Generation,
    LanguageModel,
    LoggedLoss,
    StopReason,
    TrainingLog,
    TrainingOptions,
    TrainingText,
)

__all__ = [
    "Generation",
    "LanguageModel",
    "LoggedLoss",
    "StopReason",
    "TrainingLog",
    "TrainingOptions",
    "TrainingText",
]
