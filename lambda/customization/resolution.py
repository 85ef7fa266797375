"""What a run request comes to on the files that are there: stages, hyperparameters and serving, all checked at once."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Literal

from customization.catalogue import CONTINUED_PRE_TRAINING, FINE_TUNING, BaseModel, Catalogue, HyperParameter
from customization.errors import InvalidRunRequest
from customization.request import RunRequest, plain_number, refusal

ResolvedMode = Literal["on-demand", "provisioned", "none"]
TRAINING_FILES = {FINE_TUNING: "train.jsonl", CONTINUED_PRE_TRAINING: "pretrain.jsonl"}


@dataclass(frozen=True, kw_only=True)
class ResolvedStage:
    """One customization job: `hyper_parameters` as Bedrock takes them, `batch_size` None where the model has none."""

    customization_type: str
    training_file: str
    hyper_parameters: dict[str, str]
    batch_size: int | None


@dataclass(frozen=True, kw_only=True)
class ResolvedRequest:
    """A request with nothing left open; `warnings` are sentences for the person who wrote it."""

    request: RunRequest
    model: BaseModel
    stages: tuple[ResolvedStage, ...]
    serving_mode: ResolvedMode
    promote: str
    warnings: tuple[str, ...]


def resolve(
    request: RunRequest, *, files: Collection[str], catalogue: Catalogue, region: str, today: date
) -> ResolvedRequest:
    """Return what the request comes to with `files` ("train.jsonl", …) in `region` on `today`.

    Whether the model takes jobs on that day is not asked here: CheckPreconditions asks Bedrock.

    Raises:
        InvalidRunRequest: naming every problem, with what is allowed and which models or Regions would do.
    """
    try:
        model = catalogue.find(request.base_model_identifier)
    except InvalidRunRequest as error:
        raise refusal([str(error)]) from error
    if not model.supported_types:
        raise refusal([_unsupported(model, catalogue, today)])
    resolver = _Resolver(request=request, model=model, files=files, catalogue=catalogue, region=region, today=today)
    types = resolver.types()
    resolver.check_offer(types)
    stages = tuple(resolver.stage(kind) for kind in types if kind in model.supported_types)
    is_evaluated = FINE_TUNING in types or "test.jsonl" in files
    mode = resolver.serving_mode(is_evaluated=is_evaluated)
    promote = resolver.promote(is_evaluated=is_evaluated and mode != "none")
    if resolver.problems:
        raise refusal(list(dict.fromkeys(resolver.problems)))
    return ResolvedRequest(
        request=request,
        model=model,
        stages=stages,
        serving_mode=mode,
        promote=promote,
        warnings=tuple(dict.fromkeys(resolver.warnings)),
    )


def _unsupported(model: BaseModel, catalogue: Catalogue, today: date) -> str:
    what = "is an image model" if model.modality == "image" else f"has {', '.join(model.customization_types)} only"
    return (
        f"baseModelIdentifier: {model.name} ({model.base_model_identifier}) {what}, which this pipeline does not run; "
        f"{_choice(today, catalogue.text_models())}"
    )


@dataclass(frozen=True, kw_only=True)
class _Resolver:
    """Collects every problem and warning while it settles one question after another."""

    request: RunRequest
    model: BaseModel
    files: Collection[str]
    catalogue: Catalogue
    region: str
    today: date
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def types(self) -> tuple[str, ...]:
        """Return the customization types in the order in which they run: pre-training first."""
        found = f"incoming/{self.request.dataset}/ holds {', '.join(sorted(self.files)) or 'no files'}"
        wanted = self.request.customization_type
        if wanted:
            if TRAINING_FILES[wanted] not in self.files:
                self.problems.append(
                    f"customizationType: {wanted} trains on {TRAINING_FILES[wanted]}, but {found}; upload it"
                )
            return (wanted,)
        types = tuple(kind for kind in (CONTINUED_PRE_TRAINING, FINE_TUNING) if TRAINING_FILES[kind] in self.files)
        if not types:
            self.problems.append(
                f"dataset: {found}; expected train.jsonl for fine-tuning or pretrain.jsonl for continued pre-training"
            )
        return types

    def check_offer(self, types: tuple[str, ...]) -> None:
        """Note stages that the model or the request lacks, and a Region without the model, each with what would do."""
        model, region, models = self.model, self.region, self.catalogue.text_models()
        for kind in types:
            if kind not in model.supported_types:
                choice = _choice(self.today, [other for other in models if kind in other.supported_types])
                own = model.supported_types[0]
                self.problems.append(
                    f"customizationType: {model.name} has no {kind}, which {TRAINING_FILES[kind]} asks for; "
                    f"{choice}, or use customizationType {own} with {TRAINING_FILES[own]}"
                )
        for kind in TRAINING_FILES.keys() & self.request.hyper_parameters.keys():
            if kind not in types:
                self.problems.append(f"hyperParameters.{kind}: this run has no such stage; expected {', '.join(types)}")
        if region not in model.customization_regions:
            choice = _choice(self.today, [other for other in models if region in other.customization_regions])
            self.problems.append(
                f"baseModelIdentifier: {model.name} cannot be customized in {region}, only in "
                f"{' and '.join(model.customization_regions)}: deploy there; in {region} {choice}"
            )

    def stage(self, kind: str) -> ResolvedStage:
        """Return one stage with every hyperparameter as text: the request's, else the catalogue's default."""
        given = self.request.hyper_parameters_of(kind)
        known = {parameter.name: parameter for parameter in self.model.hyper_parameters[kind]}
        prefix = f"hyperParameters.{kind}." if kind in self.request.hyper_parameters else "hyperParameters."
        for name, text in given.items():
            if name in known:
                self._check_value(known[name], text, prefix + name)
            else:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
                self.problems.append(f"{prefix}{name}: {self.model.name} has none of that name for {kind}; {hint}")
        values = {
            name: given.get(name) or plain_number(parameter.default)
            for name, parameter in known.items()
            if name in given or (parameter.default is not None and not parameter.omitted_with_validation)
        }
        batch_size = values.get("batchSize", "")
        return ResolvedStage(
            customization_type=kind,
            training_file=TRAINING_FILES[kind],
            hyper_parameters=values,
            batch_size=int(batch_size) if batch_size.isdigit() else None,
        )

    def _check_value(self, parameter: HyperParameter, text: str, path: str) -> None:
        value = Decimal(text)
        if parameter.type == "integer" and value != value.to_integral_value():
            self.problems.append(f"{path}: found {text}; expected a whole number")
            return
        if _is_outside(value, parameter.minimum, parameter.maximum):
            allowed = _range(parameter.minimum, parameter.maximum)
            self.problems.append(f"{path}: found {text}; {self.model.name} takes {allowed}")
            return
        if parameter.minimum is None and parameter.maximum is None:
            self.warnings.append(f"{path}: AWS publishes no range for {self.model.name}; {text} is passed on unchecked")
        if _is_outside(value, parameter.usual_minimum, parameter.usual_maximum):
            usual = _range(parameter.usual_minimum, parameter.usual_maximum)
            self.warnings.append(f"{path}: {text} is unusual, {usual} is usual")
        if parameter.omitted_with_validation:
            self.warnings.append(f"{path}: {parameter.note}; this pipeline always gives validation data")

    def serving_mode(self, *, is_evaluated: bool) -> ResolvedMode:
        """Return how the custom model is served; "none" too where there is nothing to ask and nobody wants it kept."""
        serving = self.request.serving
        if serving.mode == "none" or (serving.mode == "auto" and not is_evaluated and serving.keep is False):
            if serving.keep is not False:
                self.problems.append("serving.keep: mode none serves nothing to keep; expected false, or another mode")
            return "none"
        if not is_evaluated:
            self.problems.append(
                "serving: continued pre-training without test.jsonl leaves nothing to ask the model; "
                "upload test.jsonl, or leave serving out"
            )
        modes = self._possible_modes()
        mode: ResolvedMode = next(iter(modes), "none") if serving.mode == "auto" else serving.mode
        if mode not in modes:
            self.problems.append(self._unservable(modes))
            return "none"
        if mode == "provisioned" and serving.keep is True:
            self.problems.append(
                "serving.keep: found true, and a provisioned throughput bills every hour; expected false or hours"
            )
        if mode == "on-demand" and serving.model_units > 1:
            self.warnings.append("serving.modelUnits: an on-demand deployment has none, so the number is not used")
        return mode

    def _possible_modes(self) -> list[ResolvedMode]:
        """Return the ways of serving in this Region for a model customized today, first what bills no hour."""
        modes: list[ResolvedMode] = []
        if self.model.serves_on_demand(self.region, self.today):
            modes.append("on-demand")
        if self.model.serving.provisioned_throughput:
            modes.append("provisioned")
        return modes

    def _unservable(self, modes: list[ResolvedMode]) -> str:
        serving = self.model.serving
        if self.request.serving.mode == "provisioned":
            reason = f"a custom {self.model.name} has no provisioned throughput"
        elif serving.on_demand_regions:
            reason = (
                f"a custom {self.model.name} has an on-demand deployment only in "
                f"{' and '.join(serving.on_demand_regions)}, and only if customized from {serving.on_demand_from} on"
            )
        else:
            reason = f"a custom {self.model.name} has no on-demand deployment"
        return f"serving.mode: {reason}; expected {' or '.join((*modes, 'none'))}"

    def promote(self, *, is_evaluated: bool) -> str:
        """Return the request's promote, or "never" with a warning where no verdict can justify it."""
        if self.request.promote == "never":
            return "never"
        if self.request.subset:
            self.warnings.append("promote: a run on a subset is never promoted")
            return "never"
        if not is_evaluated:
            self.warnings.append("promote: nothing is compared in this run, so nothing is promoted")
            return "never"
        return self.request.promote


def _choice(today: date, models: Sequence[BaseModel]) -> str:
    """Return what can be chosen among the models that would do, or why nothing can."""
    offered = [model.base_model_identifier for model in models if model.state_on(today) == "ACTIVE"]
    if offered:
        return f"choose {' or '.join(offered)}"
    retired = ", ".join(model.base_model_identifier for model in models)
    return f"no model that would do takes new jobs today (retired: {retired})" if retired else "no model would do"


def _is_outside(value: Decimal, minimum: float | None, maximum: float | None) -> bool:
    below = minimum is not None and value < Decimal(str(minimum))
    return below or (maximum is not None and value > Decimal(str(maximum)))


def _range(minimum: float | None, maximum: float | None) -> str:
    lower = "" if minimum is None else f"{plain_number(minimum)} "
    upper = "and more" if maximum is None else f"to {plain_number(maximum)}"
    return f"only {plain_number(minimum)}" if minimum == maximum else (lower + upper)
