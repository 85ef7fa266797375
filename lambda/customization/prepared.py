"""What a run has prepared, and how much of everything it is expected to use.

Most states ask for this; what prepares the data is several times as much code, which only one of them needs.
"""

from typing import TYPE_CHECKING

from customization.catalogue import CONTINUED_PRE_TRAINING, FINE_TUNING
from customization.money import AnswersUsage, TrainingUsage, Usage
from customization.profile import Profile
from customization.runs import Plan

if TYPE_CHECKING:
    from customization.gateway import Gateway

# Training and validation file of each customization type, by the names of the prepared files.
STAGE_FILES = {
    FINE_TUNING: ("train", "validation"),
    CONTINUED_PRE_TRAINING: ("pretrain", "pretrain-validation"),
}
# A throughput is made in some 20 minutes, and a test split is answered well within the rest of the hour.
EVALUATION_HOURS = 1.0


def data_key(plan: Plan, name: str) -> str:
    """Return where a prepared file lies."""
    return f"{plan.prefix}data/{name}.jsonl"


def profile_key(plan: Plan) -> str:
    """Return where the profile of the run's data lies."""
    return f"{plan.prefix}data/profile.json"


def read_profile(gateway: "Gateway", plan: Plan) -> Profile:
    """Return what PrepareDataset found in the run's data."""
    return gateway.artifacts.decoded(profile_key(plan), Profile)


def usage_of(plan: Plan, profile: Profile) -> Usage:
    """Return what the run is expected to use; answers are reckoned as long as the references."""
    test = profile.prepared.get("test")
    is_asked = test is not None and plan.serving_mode != "none"
    answers = AnswersUsage()
    if test is not None and is_asked:
        longest = test.records * plan.inference.max_tokens
        prompts = test.tokens.likely - test.completion_tokens.likely
        answers = AnswersUsage(prompts, min(test.completion_tokens.likely, longest))
    kept_hours = 0.0 if plan.keep is True else float(plan.keep)
    return Usage(
        model=plan.base_model_identifier,
        region=plan.region,
        training=tuple(
            TrainingUsage(
                stage.customization_type,
                float(profile.prepared[STAGE_FILES[stage.customization_type][0]].tokens.likely),
                float(stage.hyper_parameters["epochCount"]) if "epochCount" in stage.hyper_parameters else None,
            )
            for stage in plan.stages
        ),
        baseline=answers,
        custom=answers,
        serving_mode=plan.serving_mode,
        model_units=plan.model_units,
        serving_hours=EVALUATION_HOURS + kept_hours if plan.serving_mode == "provisioned" else 0.0,
        stored_models=0 if plan.keep_model == "never" else len(plan.stages),
    )
