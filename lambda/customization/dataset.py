"""Turns the uploaded files into what Bedrock trains on and what the models are compared with.

Every file is read twice: once to check, count and hash each record, once to write it where it belongs. What is kept of
a record is 42 bytes and, of a sample of the records, the beginnings of their texts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack

import msgspec

from customization import quality, splits
from customization.catalogue import CONTINUED_PRE_TRAINING, FINE_TUNING, BaseModel, Limits
from customization.checks import Amount, Demands, asking_demands, check_amounts, training_demands
from customization.files import Scan, Sink, Source, Writer, distribute
from customization.problems import Problems
from customization.profile import PreparedFile, Profile
from customization.sample import seen_share
from customization.splits import SplitRules, Subset
from customization.texts import Language, Sentence

_TEST_SINK = "test"
_SINKS = {splits.TRAIN: "train", splits.VALIDATION: "validation", splits.TEST: _TEST_SINK}
_PRETRAINING_SINKS = {splits.TRAIN: "pretrain", splits.VALIDATION: "pretrain-validation"}


class Stage(msgspec.Struct, frozen=True):
    """One customization job to come; the batch size bounds the tokens of a record for some base models."""

    customization_type: str
    model: BaseModel
    batch_size: int | None = None


class PreparationRequest(msgspec.Struct, frozen=True):
    """What to prepare for. `system`: what the models will be asked with; `language`: of the problems.

    `compare_similar`: whether to look for records that nearly repeat another one, among 1,000 sampled ones of a file.
    """

    stages: tuple[Stage, ...]
    subset: Subset | None = None
    field_mapping: dict[str, str] = {}
    strip_role_cues: bool = False
    system: str = ""
    max_test_records: int = 500
    split_seed: int = 0
    language: Language = "en"
    compare_similar: bool = True


def prepare_dataset(
    request: PreparationRequest,
    sources: Mapping[str, Source],
    open_sink: Callable[[str], AbstractContextManager[Sink]],
) -> Profile:
    """Check the files, write what Bedrock trains on and what the models are asked, and return the profile.

    `sources` are the uploaded files by the names train, validation, test and pretrain; sinks are opened by the names
    train, validation, test, pretrain and pretrain-validation, each at most once and only for at least one record.
    Limits are those of the catalogue for each stage's base model. Raises InvalidDataset with all problems; nothing is
    written before every record was checked.
    """
    problems = Problems(request.language)
    corpora = _corpora(request, sources, problems)
    for corpus in corpora:
        for scan in corpus.scans:
            scan.read(problems)
        corpus.check_whole()
    problems.raise_errors()
    for corpus in corpora:
        corpus.decide()
    problems.raise_errors()
    prepared: dict[str, PreparedFile] = {}
    for corpus in corpora:
        prepared |= corpus.write(open_sink)
    problems.raise_errors()
    return _profile(corpora, prepared, problems)


def _profile(corpora: Sequence["_Corpus"], prepared: dict[str, PreparedFile], problems: Problems) -> Profile:
    scans = [scan for corpus in corpora for scan in corpus.scans]
    files = tuple(scan.described() for scan in scans)
    for file in files:
        quality.warn_of_file(file, problems)
    share = seen_share(_sampled(scans, splits.TEST), _sampled(scans, splits.TRAIN))
    test = prepared.get(_TEST_SINK)
    if test and share is not None:
        quality.warn_of_test(test.origin, share, problems)
    return Profile(
        files=files,
        prepared=prepared,
        test_records=test.records if test else 0,
        test_digest=test.sha256 if test else "",
        representativeness=share,
        prompts_in_training=sum(corpus.prompts_in_training for corpus in corpora),
        warnings=tuple(problems.of("warning")),
        notes=tuple(problems.of("note")),
    )


def _sampled(scans: Iterable[Scan], fate: int) -> Iterator[Sequence[tuple[str, str] | int]]:
    """Yield the bigrams of each sampled record with that fate."""
    for scan in scans:
        for record, bigrams in zip(scan.sample, scan.bigrams, strict=False):
            if scan.fates[record.place] == fate:
                yield bigrams


def _corpora(request: PreparationRequest, sources: Mapping[str, Source], problems: Problems) -> list["_Corpus"]:
    """Return which files belong to which stage.

    Validation and test files belong to fine-tuning where there is such a stage. Continued pre-training alone takes the
    validation file as its own, its text also from train.jsonl, and is compared on test.jsonl.
    """
    stages = {stage.customization_type: stage for stage in request.stages}
    corpora = []
    for kind, stage in stages.items():
        alone = FINE_TUNING not in stages
        if kind == FINE_TUNING:
            files = {name: sources.get(name) for name in ("train", "validation", "test")}
        else:
            text = sources.get("pretrain") or (sources.get("train") if alone else None)
            files = {"train": text, "validation": sources.get("validation") if alone else None}
            if alone and "test" in sources:
                corpora.append(_Corpus(stage.model, None, {"test": sources["test"]}, request, problems))
        corpora.append(_Corpus(stage.model, stage, files, request, problems))
    return corpora


def _most_records(limits: Limits) -> int | None:
    """Return beyond how many records a training file is refused whatever part of it is held out or repeats that."""
    bounds = [most for most in (limits.max_training_records, limits.max_total_records) if most is not None]
    return 2 * min(bounds) + splits.MAX_SPLIT_RECORDS if bounds else None


class _Corpus:
    """The files that belong together: those of one stage, or a test file alone where no stage trains on examples."""

    def __init__(
        self,
        model: BaseModel,
        stage: Stage | None,
        files: Mapping[str, Source | None],
        request: PreparationRequest,
        problems: Problems,
    ) -> None:
        self._model = model
        self._stage = stage
        self._request = request
        self._problems = problems
        self._raw = stage is not None and stage.customization_type == CONTINUED_PRE_TRAINING
        self._limits = model.limits[stage.customization_type] if stage else Limits()
        demands = (
            training_demands(model, stage.customization_type, stage.batch_size) if stage else asking_demands(model)
        )
        self._single_turn = demands.single_turn
        self.prompts_in_training = 0
        self._training = self._scan(files.get("train"), demands)
        self._test = self._scan(files.get("test"), asking_demands(model))
        self._validation = None
        if model.validation_data:
            self._validation = self._scan(files.get("validation"), demands)
        elif files.get("validation"):
            problems.add("no_validation", "validation.jsonl", model=model.name)
        if stage and self._training is None:
            name = "pretrain.jsonl" if self._raw else "train.jsonl"
            problems.add("missing_file", name, name=name)

    def _scan(self, source: Source | None, demands: Demands) -> Scan | None:
        if source is None:
            return None
        most = demands.limits.max_training_bytes
        if most is not None and source.size > most and self._request.subset is None:
            self._add_too_large(source.name, source.size, most)
        request = self._request
        return Scan(
            source,
            demands,
            request.field_mapping,
            strip_role_cues=request.strip_role_cues,
            compare_similar=request.compare_similar,
            most=None if request.subset else _most_records(demands.limits),
        )

    @property
    def scans(self) -> list[Scan]:
        return [scan for scan in (self._training, self._validation, self._test) if scan is not None]

    def decide(self) -> None:
        """Decide where each record goes: the test file stands above the validation file, both above training."""
        seed, most = self._request.split_seed, self._request.max_test_records
        held_out: set[int] = set()
        if self._test:
            categories = self._test.categories.codes
            self._test.fates = splits.choose_test_records(self._test.digests, seed, most, categories=categories)
            held_out.update(self._test.digests)
        if self._validation:
            self._validation.fates = bytearray(
                splits.LEAKED if digest in held_out else splits.VALIDATION for digest in self._validation.digests
            )
            held_out.update(self._validation.digests)
        if self._training:
            digests, categories = self._training.digests, self._training.categories.codes
            fates = splits.split_training_file(digests, held_out, self._split_rules(), categories)
            self._training.fates = splits.choose_test_records(digests, seed, most, fates, categories)
            self._check_amounts(self._training)
        for scan in self.scans:
            for reason, count in scan.dropped().items():
                found = Sentence("found.share", {"count": f"{count:,}", "total": f"{scan.records:,}"})
                self._problems.add(reason, scan.source.name, found=found)

    def check_whole(self) -> None:
        """Add a problem for a training file with more records than any split or held-out file would make fit."""
        training = self._training
        if training and not training.is_whole:
            amount, none = Amount(training.source.name, training.records), Amount(training.source.name, 0)
            check_amounts(self._model.name, self._limits, amount, none, self._problems)

    def _split_rules(self) -> SplitRules:
        limits = self._limits
        most = min(limits.max_validation_records or splits.MAX_SPLIT_RECORDS, splits.MAX_SPLIT_RECORDS)
        return SplitRules(
            seed=self._request.split_seed,
            test=self._test is None and not self._raw,
            validation=self._validation is None and self._model.validation_data,
            min_training=limits.min_training_records or 1,
            min_validation=limits.min_validation_records or 1,
            max_validation=most,
            min_total=limits.min_total_records or 0,
            subset=self._request.subset,
        )

    def _check_amounts(self, training: Scan) -> None:
        rules, file = self._split_rules(), training.source.name
        for wanted, fate, name in (
            (rules.test, splits.TEST, "test"),
            (rules.validation, splits.VALIDATION, "validation"),
        ):
            if wanted and fate not in training.fates:
                self._problems.add("no_split", file, field=name, split=name)
        held = self._validation or training
        check_amounts(
            self._model.name,
            self._limits,
            Amount(file, training.fates.count(splits.TRAIN)),
            Amount(held.source.name, held.fates.count(splits.VALIDATION)),
            self._problems,
        )

    def write(self, open_sink: Callable[[str], AbstractContextManager[Sink]]) -> dict[str, PreparedFile]:
        """Write each record where it belongs, in the order of the file, and return the files by their sinks' names."""
        names = _PRETRAINING_SINKS if self._raw else _SINKS
        writers: dict[int, Writer] = {}
        for scan in self.scans:
            with ExitStack() as stack:
                opened = {
                    fate: Writer(stack.enter_context(open_sink(name)), scan, self._target(fate))
                    for fate, name in names.items()
                    if fate in scan.fates
                }
                distribute(scan, opened)
            writers |= opened
        self._check_written(writers)
        return {names[fate]: writer.described(names[fate], fate) for fate, writer in writers.items()}

    def _target(self, fate: int) -> str:
        if fate == splits.TEST or self._stage is None:
            return ""
        return self._model.training_format[self._stage.customization_type]

    def _check_written(self, writers: Mapping[int, Writer]) -> None:
        """Add what shows only in the written files: their sizes, and what makes a good result unlikely."""
        sizes = (
            (splits.TRAIN, self._limits.max_training_bytes),
            (splits.VALIDATION, self._limits.max_validation_bytes),
        )
        for fate, most in sizes:
            if most is not None and fate in writers and writers[fate].bytes > most:
                self._add_too_large(writers[fate].origin, writers[fate].bytes, most)
        training, test = writers.get(splits.TRAIN), writers.get(splits.TEST)
        if training:
            self._warn_of_training(training)
        if not self._raw and (test is None or test.totals.records < splits.MIN_TEST_RECORDS):
            found = Sentence("found.testRecords", {"count": str(test.totals.records if test else 0)})
            origin = test.origin if test else "test.jsonl"
            self._problems.add("few_test_records", origin, found=found, limit=splits.MIN_TEST_RECORDS)
        tested = self._test or self._training
        if training and test and tested and self._training:
            prompts = list(tested.prompts_of(splits.TEST))
            known = set(prompts).intersection(self._training.prompts_of(splits.TRAIN))
            self.prompts_in_training = sum(prompt in known for prompt in prompts)
            if self.prompts_in_training:
                values = {"count": f"{self.prompts_in_training:,}", "total": f"{test.totals.records:,}"}
                self._problems.add("prompt_in_training", test.origin, found=Sentence("found.testShare", values))

    def _warn_of_training(self, training: Writer) -> None:
        add, file, totals = self._problems.add, training.origin, training.totals
        tokens, least_tokens = totals.tokens().likely, self._limits.recommended_training_tokens
        if least_tokens and tokens < least_tokens:
            found = Sentence("found.tokens", {"count": f"{tokens:,}"})
            add("few_tokens", file, found=found, limit=f"{least_tokens:,}")
        least_records = self._limits.recommended_training_records
        if least_records and totals.records < least_records:
            found = Sentence("found.trainingRecords", {"count": f"{totals.records:,}"})
            add("few_records", file, found=found, limit=f"{least_records:,}")
        text, share = self._training.share_of_one() if self._training and not self._raw else ("", 0.0)
        if share >= quality.DOMINANT_SHARE and totals.records > 1:
            add("one_completion", file, found=repr(text), share=int(share * 100))
        if self._training and self._training.with_system:
            if self._single_turn:
                add("joined_system", file, model=self._model.name)
        elif self._request.system and not self._raw:
            add("system_not_in_training", file)

    def _add_too_large(self, file: str, size: int, most: int) -> None:
        found = Sentence("found.bytes", {"count": f"{size:,}"})
        self._problems.add("file_too_large", file, found=found, model=self._model.name, limit=f"{most:,}")
