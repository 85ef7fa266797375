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
from customization.texts import Language, Sentence, say, wording

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
    """A request with nothing left open; `warnings` are sentences in its language for the person who wrote it."""

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
    words = _Words(request.language, today)
    model = _model(request, catalogue, words)
    resolver = _Resolver(request=request, model=model, files=files, catalogue=catalogue, region=region, words=words)
    resolver.check_expected()
    types = resolver.types()
    resolver.check_offer(types)
    stages = tuple(resolver.stage(kind) for kind in types if kind in model.supported_types)
    is_evaluated = FINE_TUNING in types or "test.jsonl" in files
    mode = resolver.serving_mode(is_evaluated=is_evaluated)
    promote = resolver.promote(is_evaluated=is_evaluated and mode != "none")
    if resolver.problems:
        raise refusal(list(dict.fromkeys(resolver.problems)), request.language)
    return ResolvedRequest(
        request=request,
        model=model,
        stages=stages,
        serving_mode=mode,
        promote=promote,
        warnings=tuple(dict.fromkeys(resolver.warnings)),
    )


@dataclass(frozen=True)
class _Words:
    """Puts what is to be said into the language of the request; choices of models hold for `today`."""

    language: Language
    today: date

    def __call__(self, code: str, **values: str) -> str:
        return say(Sentence(code, values), self.language)

    def either(self, names: Sequence[str]) -> str:
        return wording("request.or", self.language).join(names)

    def both(self, names: Sequence[str]) -> str:
        return wording("request.and", self.language).join(names)

    def choice(self, models: Sequence[BaseModel]) -> str:
        """Return what can be chosen among the models that would do, or why nothing can."""
        offered = [model.base_model_identifier for model in models if model.state_on(self.today) == "ACTIVE"]
        if offered:
            return self("resolution.choose", models=self.either(offered))
        retired = ", ".join(model.base_model_identifier for model in models)
        return self("resolution.retired", models=retired) if retired else self("resolution.noModel")

    def hint(self, near: Sequence[str], names: Sequence[str]) -> str:
        if near:
            return self("request.didYouMean", near=self.either(near))
        return self("request.oneOf", names=", ".join(names))

    def range(self, minimum: float | None, maximum: float | None) -> str:
        lower, upper = ("" if bound is None else plain_number(bound) for bound in (minimum, maximum))
        if lower == upper:
            return self("resolution.only", value=lower)
        if lower and upper:
            return self("resolution.between", lower=lower, upper=upper)
        return self("resolution.atMost", upper=upper) if upper else self("resolution.atLeast", lower=lower)


def _model(request: RunRequest, catalogue: Catalogue, words: _Words) -> BaseModel:
    """Return the model of the request; raises InvalidRunRequest where this pipeline cannot customize it."""
    wanted = request.base_model_identifier
    try:
        model = catalogue.find(wanted)
    except InvalidRunRequest as error:
        hint = words.hint(catalogue.near(wanted), catalogue.identifiers())
        problem = words("resolution.unknownModel", found=wanted, hint=hint)
        raise refusal([problem], request.language) from error
    unusable = why_unusable(model, words.choice(catalogue.text_models()))
    if unusable:
        raise refusal([say(unusable, request.language)], request.language)
    return model


def why_unusable(model: BaseModel, choice: str) -> Sentence | None:
    """Return why this pipeline never customizes `model`, with the `choice` there is instead, or None where it does."""
    if model.supported_types:
        return None
    values = {"model": model.name, "identifier": model.base_model_identifier, "choice": choice}
    if model.modality == "image":
        return Sentence("resolution.imageModel", values)
    return Sentence("resolution.otherTypes", {**values, "types": ", ".join(model.customization_types)})


@dataclass(frozen=True, kw_only=True)
class _Resolver:
    """Collects every problem and warning, in words, while it settles one question after another."""

    request: RunRequest
    model: BaseModel
    files: Collection[str]
    catalogue: Catalogue
    region: str
    words: _Words
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def _refuse(self, code: str, **values: str) -> None:
        self.problems.append(self.words(code, **values))

    def _warn(self, code: str, **values: str) -> None:
        self.warnings.append(self.words(code, **values))

    def check_expected(self) -> None:
        """Note the files that the request expects and that are not there: a start from the console waits for none."""
        request = self.request
        missing = {"missing": ", ".join(sorted(set(request.expect) - set(self.files)))}
        if missing["missing"] and request.data == "newest":
            self._refuse("resolution.notExpected", folder=f"incoming/{request.dataset}/", **missing)
        elif missing["missing"]:
            self._refuse("resolution.notExpectedOfRun", runId=request.data, **missing)

    def types(self) -> tuple[str, ...]:
        """Return the customization types in the order in which they run: pre-training first."""
        files = ", ".join(sorted(self.files)) or self.words("request.noFiles")
        found = {"folder": f"incoming/{self.request.dataset}/", "files": files}
        wanted = self.request.customization_type
        if wanted:
            file = TRAINING_FILES[wanted]
            if file not in self.files:
                self._refuse("resolution.noTrainingFile", kind=wanted, file=file, **found)
            return (wanted,)
        types = tuple(kind for kind in (CONTINUED_PRE_TRAINING, FINE_TUNING) if TRAINING_FILES[kind] in self.files)
        if not types:
            self._refuse("resolution.noTraining", **found)
        return types

    def check_offer(self, types: tuple[str, ...]) -> None:
        """Note stages that the model or the request lacks, and a Region without the model, each with what would do."""
        model, region, models = self.model, self.region, self.catalogue.text_models()
        for kind in types:
            if kind not in model.supported_types:
                choice = self.words.choice([other for other in models if kind in other.supported_types])
                own = model.supported_types[0]
                files = {"file": TRAINING_FILES[kind], "ownFile": TRAINING_FILES[own]}
                self._refuse("resolution.typeMissing", model=model.name, kind=kind, own=own, choice=choice, **files)
        for kind in TRAINING_FILES.keys() & self.request.hyper_parameters.keys():
            if kind not in types:
                self._refuse("resolution.noStage", kind=kind, types=", ".join(types))
        if region not in model.customization_regions:
            choice = self.words.choice([other for other in models if region in other.customization_regions])
            regions = self.words.both(model.customization_regions)
            self._refuse("resolution.noRegion", model=model.name, region=region, regions=regions, choice=choice)

    def stage(self, kind: str) -> ResolvedStage:
        """Return one stage with every hyperparameter as text: the request's, else the catalogue's default."""
        given = self.request.hyper_parameters_of(kind)
        known = {parameter.name: parameter for parameter in self.model.hyper_parameters[kind]}
        prefix = f"hyperParameters.{kind}." if kind in self.request.hyper_parameters else "hyperParameters."
        for name, text in given.items():
            if name in known:
                self._check_value(known[name], text, prefix + name)
            else:
                hint = self.words.hint(difflib.get_close_matches(name, known, n=1), [*known])
                self._refuse("resolution.noParameter", path=prefix + name, model=self.model.name, kind=kind, hint=hint)
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
        value, found = Decimal(text), {"path": path, "found": text}
        if parameter.type == "integer" and value != value.to_integral_value():
            self._refuse("resolution.wholeNumber", **found)
            return
        if _is_outside(value, parameter.minimum, parameter.maximum):
            allowed = self.words.range(parameter.minimum, parameter.maximum)
            self._refuse("resolution.outside", model=self.model.name, range=allowed, **found)
            return
        if parameter.minimum is None and parameter.maximum is None:
            self._warn("resolution.noRange", model=self.model.name, **found)
        if _is_outside(value, parameter.usual_minimum, parameter.usual_maximum):
            usual = self.words.range(parameter.usual_minimum, parameter.usual_maximum)
            self._warn("resolution.unusual", range=usual, **found)
        if parameter.omitted_with_validation:
            self._warn("resolution.omitted", path=path)

    def serving_mode(self, *, is_evaluated: bool) -> ResolvedMode:
        """Return how the custom model is served; "none" too where there is nothing to ask and nobody wants it kept."""
        serving = self.request.serving
        if serving.mode == "none" or (serving.mode == "auto" and not is_evaluated and serving.keep is False):
            if serving.keep is not False:
                self._refuse("resolution.keepNothing")
            return "none"
        if not is_evaluated:
            self._refuse("resolution.nothingToAsk")
        modes = self._possible_modes()
        mode: ResolvedMode = next(iter(modes), "none") if serving.mode == "auto" else serving.mode
        if mode not in modes:
            self._refuse_mode(modes)
            return "none"
        if mode == "provisioned" and serving.keep is True:
            self._refuse("resolution.keepBills")
        if mode == "on-demand" and serving.model_units > 1:
            self._warn("resolution.unitsUnused")
        return mode

    def _possible_modes(self) -> list[ResolvedMode]:
        """Return the ways of serving in this Region for a model customized today, first what bills no hour."""
        modes: list[ResolvedMode] = []
        if self.model.serves_on_demand(self.region, self.words.today):
            modes.append("on-demand")
        if self.model.serving.provisioned_throughput:
            modes.append("provisioned")
        return modes

    def _refuse_mode(self, modes: Sequence[str]) -> None:
        serving = self.model.serving
        values = {"model": self.model.name, "modes": self.words.either((*modes, "none"))}
        if self.request.serving.mode == "provisioned":
            self._refuse("resolution.noThroughput", **values)
        elif serving.on_demand_regions:
            regions, day = self.words.both(serving.on_demand_regions), str(serving.on_demand_from)
            self._refuse("resolution.lateDeployment", regions=regions, day=day, **values)
        else:
            self._refuse("resolution.noDeployment", **values)

    def promote(self, *, is_evaluated: bool) -> str:
        """Return the request's promote, or "never" with a warning where no verdict can justify it."""
        if self.request.promote == "never":
            return "never"
        if self.request.subset:
            self._warn("resolution.subsetNotPromoted")
            return "never"
        if not is_evaluated:
            self._warn("resolution.nothingCompared")
            return "never"
        return self.request.promote


def _is_outside(value: Decimal, minimum: float | None, maximum: float | None) -> bool:
    below = minimum is not None and value < Decimal(str(minimum))
    return below or (maximum is not None and value > Decimal(str(maximum)))
