"""The base models that Amazon Bedrock customizes: read from data/catalogue.json, which holds the dates and sources."""

import difflib
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from customization.errors import InvalidRunRequest
from customization.texts import Sentence

FINE_TUNING = "FINE_TUNING"
CONTINUED_PRE_TRAINING = "CONTINUED_PRE_TRAINING"
SUPPORTED_TYPES = (FINE_TUNING, CONTINUED_PRE_TRAINING)

State = Literal["ACTIVE", "LEGACY", "ENDED", "NOT_YET"]
_SIZES = ("small", "medium", "large")
_LEAST_LIKENESS = 0.6


class HyperParameter(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """`minimum` and `maximum` are Bedrock's bounds (None: AWS publishes none), `usual_*` what rarely needs leaving."""

    name: str
    type: Literal["integer", "float"]
    minimum: float | None = None
    maximum: float | None = None
    default: float | None = None
    usual_minimum: float | None = None
    usual_maximum: float | None = None
    omitted_with_validation: bool = False
    note: str = ""


class Lifecycle(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """`offered_as_of`: the last day for which a source shows the model offered; `state`: what it was at `as_of`."""

    state: Literal["ACTIVE", "LEGACY", "ENDED"]
    as_of: str
    source: str
    offered_as_of: date
    offered_source: str
    offered_from: date | None = None
    legacy_from: date | None = None
    end_of_life: date | None = None

    @property
    def ended(self) -> bool:
        return self.state == "ENDED"


class Serving(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """`on_demand_from`: a deployment takes only models that were customized on that day or later."""

    provisioned_throughput: bool
    on_demand_regions: tuple[str, ...] = ()
    on_demand_from: date | None = None


class Limits(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What Bedrock takes in one job; None where AWS publishes no limit. Sizes are bytes.

    `reserved_words`: Bedrock fails a job for them in a prompt. `doubtful_words`: only AWS's validator refuses them.
    """

    min_training_records: int | None = None
    max_training_records: int | None = None
    min_validation_records: int | None = None
    max_validation_records: int | None = None
    min_total_records: int | None = None
    max_total_records: int | None = None
    tokens_by_batch_size: tuple[tuple[int | None, int], ...] = ()
    max_prompt_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_training_bytes: int | None = None
    max_validation_bytes: int | None = None
    characters_per_token: float = 6.0
    reserved_words: tuple[str, ...] = ()
    doubtful_words: tuple[str, ...] = ()
    recommended_training_records: int | None = None
    recommended_training_tokens: int | None = None

    def tokens_per_record(self, batch_size: int | None = None) -> int | None:
        """Return how many tokens a record may have; above the last published batch size its bound still holds."""
        if batch_size is None:
            return self.tokens_by_batch_size[0][1] if self.tokens_by_batch_size else None
        for upper, tokens in self.tokens_by_batch_size:
            if upper is None or batch_size <= upper:
                return tokens
        return self.tokens_by_batch_size[-1][1] if self.tokens_by_batch_size else None


class BaseModel(msgspec.Struct, frozen=True, rename="camel"):
    """One base model: `base_model_identifier` is for customizing it, `inference_model_id` for asking it."""

    provider: str
    name: str
    base_model_identifier: str
    inference_model_id: str
    modality: Literal["text", "image"]
    size: Literal["small", "medium", "large"]
    customization_types: tuple[str, ...]
    customization_regions: tuple[str, ...]
    hyper_parameters: dict[str, tuple[HyperParameter, ...]]
    training_format: dict[str, str]
    ask_by: str
    limits: dict[str, Limits]
    validation_data: bool
    serving: Serving
    lifecycle: Lifecycle
    sources: str
    confidence: str
    notes: tuple[str, ...] = ()

    @property
    def supported_types(self) -> tuple[str, ...]:
        """The customization types that this pipeline runs: none for image models and reinforcement fine-tuning."""
        if self.modality != "text":
            return ()
        return tuple(kind for kind in self.customization_types if kind in SUPPORTED_TYPES)

    def state_on(self, day: date) -> State:
        """Return the model's lifecycle state on `day`; only ACTIVE takes new customization jobs.

        Published dates decide. Where AWS publishes none, the model is ACTIVE up to the last day for which a source
        shows it offered (`offered_as_of`), and from then on in the state that a source last gave it, so that no job
        is started on a guess: a model that is gone without a date counts as ENDED from the day after.
        """
        lifecycle = self.lifecycle
        if lifecycle.end_of_life and day >= lifecycle.end_of_life:
            return "ENDED"
        if lifecycle.offered_from and day < lifecycle.offered_from:
            return "NOT_YET"
        if lifecycle.legacy_from:
            return "LEGACY" if day >= lifecycle.legacy_from else "ACTIVE"
        if day <= lifecycle.offered_as_of or lifecycle.state == "ACTIVE":
            return "ACTIVE"
        return "ENDED" if lifecycle.ended and not lifecycle.end_of_life else "LEGACY"

    def describe_lifecycle(self, day: date) -> tuple[Sentence, ...]:
        """Return what is known of the model's life, as a refusal on `day` needs it."""
        lifecycle = self.lifecycle
        end, legacy = lifecycle.end_of_life, lifecycle.legacy_from
        known = {"model": self.name, "source": lifecycle.source, "asOf": str(lifecycle.as_of)}
        state = Sentence(f"lifecycle.{self.state_on(day)}", {**known, "date": str(lifecycle.offered_from)})
        since = (Sentence("lifecycle.legacySince", {"date": str(legacy)}),) if legacy and day >= legacy else ()
        published = Sentence("lifecycle.noEnd", known)
        if end:
            published = Sentence("lifecycle.ended" if day >= end else "lifecycle.ends", {**known, "date": str(end)})
        return state, *since, published

    def serves_on_demand(self, region: str, customized_on: date) -> bool:
        """Tell whether a model customized that day can have an on-demand deployment in `region`."""
        earliest = self.serving.on_demand_from
        return region in self.serving.on_demand_regions and (earliest is None or customized_on >= earliest)


class Catalogue(msgspec.Struct, frozen=True):
    """`s3_key_characters`: what the keys of data files may have, as the inside of a regular expression's set."""

    models: tuple[BaseModel, ...]
    s3_key_characters: str

    def find(self, identifier: str) -> BaseModel:
        """Return the model with that baseModelIdentifier; raises InvalidRunRequest naming the nearest ones."""
        for model in self.models:
            if model.base_model_identifier == identifier:
                return model
        near = " or ".join(self.near(identifier))
        hint = f"did you mean {near}?" if near else f"expected one of {', '.join(self.identifiers())}"
        raise InvalidRunRequest(f'baseModelIdentifier: found "{identifier}", which the catalogue does not hold; {hint}')

    def near(self, identifier: str) -> list[str]:
        """Return the baseModelIdentifiers, at most three, whose id, inference id or name resembles `identifier`."""
        matcher = difflib.SequenceMatcher(b=identifier.lower().rsplit("/")[-1])
        likeness = {}
        for model in self.text_models():
            ratios = []
            for spelling in (model.base_model_identifier, model.inference_model_id, model.name):
                matcher.set_seq1(spelling.lower())
                ratios.append(matcher.ratio())
            likeness[model.base_model_identifier] = max(ratios)
        enough = max(_LEAST_LIKENESS, max(likeness.values()) - 0.05)
        near = [name for name, ratio in likeness.items() if ratio >= enough]
        return sorted(near, key=lambda name: -likeness[name])[:3]

    def identifiers(self) -> list[str]:
        return [model.base_model_identifier for model in self.text_models()]

    def text_models(self) -> tuple[BaseModel, ...]:
        """Return the models that this pipeline can customize on some day in some Region."""
        return tuple(model for model in self.models if model.supported_types)

    def nearest_offered(self, model: BaseModel, day: date, region: str) -> BaseModel | None:
        """Return the text model most like `model` that takes jobs on `day`, or None when there is none.

        One that is customized in `region` comes before all others. Then size counts first, then the provider, the
        shared customization types and the shared Regions.
        """

        def distance(other: BaseModel) -> tuple[bool, int, bool, int, int]:
            return (
                region not in other.customization_regions,
                abs(_SIZES.index(other.size) - _SIZES.index(model.size)),
                other.provider != model.provider,
                -len(set(other.supported_types) & set(model.customization_types)),
                -len(set(other.customization_regions) & set(model.customization_regions)),
            )

        offered = [other for other in self.text_models() if other.state_on(day) == "ACTIVE" and other != model]
        return min(offered, key=distance, default=None)


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    """The data file: models name their sets of hyperparameters and limits, which several of them share.

    `recommended` amounts hold for every model, by the kind of customization.
    """

    s3_key_characters: str
    recommended: dict[str, dict[str, int]]

    hyper_parameter_sets: dict[str, tuple[HyperParameter, ...]]
    limit_sets: dict[str, Limits]
    models: tuple[dict[str, msgspec.Raw], ...]


@lru_cache(maxsize=1)
def load_catalogue() -> Catalogue:
    """Return the catalogue beside this module; it is read once a process."""
    document = msgspec.json.decode((Path(__file__).parent / "data" / "catalogue.json").read_bytes(), type=_Document)
    return Catalogue(tuple(_model(entry, document) for entry in document.models), document.s3_key_characters)


def _model(entry: dict[str, msgspec.Raw], document: _Document) -> BaseModel:
    """Return the entry with the names of its sets replaced by what they hold."""
    hyper_parameters = msgspec.json.decode(entry["hyperParameters"], type=dict[str, str])
    limits = msgspec.json.decode(entry["limits"], type=dict[str, str])
    resolved = entry | {
        "hyperParameters": _raw({kind: document.hyper_parameter_sets[name] for kind, name in hyper_parameters.items()}),
        "limits": _raw({kind: _limits(kind, name, document) for kind, name in limits.items()}),
    }
    return msgspec.json.decode(msgspec.json.encode(resolved), type=BaseModel)


def _limits(kind: str, name: str, document: _Document) -> Limits:
    recommended = msgspec.convert(document.recommended.get(kind, {}), Limits)
    return msgspec.structs.replace(
        document.limit_sets[name],
        recommended_training_records=recommended.recommended_training_records,
        recommended_training_tokens=recommended.recommended_training_tokens,
    )


def _raw(value: dict[str, Limits] | dict[str, tuple[HyperParameter, ...]]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
