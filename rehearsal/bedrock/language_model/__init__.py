"""A small neural language model in numpy: what the stand-in trains and asks where AWS has a large one."""

import os

# Read when numpy is loaded for the first time. Its matrices are so small that a second thread waits more than it helps:
# beside other busy processes a training took five times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

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
