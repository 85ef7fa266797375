"""The hyperparameters of a job, checked by the catalogue, and what they mean to the language model."""

from collections.abc import Mapping
from dataclasses import dataclass

from customization.catalogue import BaseModel, HyperParameter
from rehearsal.bedrock.errors import ServiceError, validation

# For models whose pages publish no default, and for what a family does not let its users choose.
DEFAULT_EPOCHS = 2.0
DEFAULT_BATCH_SIZE = 8.0
DEFAULT_LEARNING_RATE = 1e-5


@dataclass(frozen=True)
class TrainingPlan:
    """`learning_rate_factor`: rate divided by the base model's default; `held_out`: share of the training file."""

    epochs: int
    batch_size: int
    learning_rate_factor: float
    warmup_steps: int
    held_out: float


def read_hyper_parameters(base: BaseModel, customization_type: str, given: Mapping[str, str]) -> TrainingPlan:
    """Return what `given` asks for; raises ServiceError (ValidationException) naming the first wrong hyperparameter."""
    known = {parameter.name: parameter for parameter in base.hyper_parameters[customization_type]}
    values = {name: _value(known, name, text) for name, text in given.items()}

    def value(name: str, otherwise: float) -> float:
        default = known[name].default if name in known else None
        return values.get(name, otherwise if default is None else default)

    if "learningRateMultiplier" in known:
        factor = value("learningRateMultiplier", 1.0)
    else:
        default_rate = known["learningRate"].default if "learningRate" in known else None
        factor = value("learningRate", DEFAULT_LEARNING_RATE) / (default_rate or DEFAULT_LEARNING_RATE)
    return TrainingPlan(
        epochs=int(value("epochCount", DEFAULT_EPOCHS)),
        batch_size=int(value("batchSize", DEFAULT_BATCH_SIZE)),
        learning_rate_factor=factor,
        warmup_steps=int(value("learningRateWarmupSteps", 0.0)),
        held_out=value("evalPercentage", 0.0) / 100,
    )


def _value(known: Mapping[str, HyperParameter], name: str, text: str) -> float:
    parameter = known.get(name)
    if parameter is None:
        raise validation(f"Hyperparameter {name} is not supported; supported are {', '.join(known)}.")
    try:
        value = float(int(text)) if parameter.type == "integer" else float(text)
    except ValueError:
        raise _out_of_range(parameter, text) from None
    if not _within(parameter, value):
        raise _out_of_range(parameter, text)
    return value


def _within(parameter: HyperParameter, value: float) -> bool:
    least, most = parameter.minimum, parameter.maximum
    # Comparisons with NaN are all false, so that it is refused wherever there is a bound.
    return (least is None or value >= least) and (most is None or value <= most)


def _out_of_range(parameter: HyperParameter, text: str) -> ServiceError:
    bounds = f"between {parameter.minimum:g} and {parameter.maximum:g}" if parameter.maximum is not None else ""
    return validation(
        f"Hyperparameter {parameter.name} has the value {text!r}; it must be of type {parameter.type} {bounds}".rstrip()
    )
