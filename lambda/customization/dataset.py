"""Turns the uploaded files into what Bedrock trains on and what the models are compared with.

Every file is read twice: once to check, count and hash each record, once to write it where it belongs. What is kept of
a record is 17 bytes: its digest, what becomes of it and, once it is written, a hash of its prompt.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack

import msgspec

from customization import splits
from customization.catalogue import CONTINUED_PRE_TRAINING, FINE_TUNING, BaseModel, Limits
from customization.checks import Amount, Demands, asking_demands, check_amounts, training_demands
from customization.files import Scan, Sink, Source, Writer, distribute
from customization.formats import ENCODERS, Record, encode_test_record
from customization.problems import Problems, excerpt
from customization.profile import PreparedFile, Profile
from customization.splits import SplitRules, Subset

FEW_TRAINING_RECORDS = 1_000
FEW_PRETRAINING_TOKENS = 100_000
DOMINANT_SHARE = 0.9

_TEST_SINK = "test"
_SINKS = {splits.TRAIN: "train", splits.VALIDATION: "validation", splits.TEST: _TEST_SINK}
_PRETRAINING_SINKS = {splits.TRAIN: "pretrain", splits.VALIDATION: "pretrain-validation"}


class Stage(msgspec.Struct, frozen=True):
    """One customization job to come; the batch size bounds the tokens of a record for some base models."""

    customization_type: str
    model: BaseModel
    batch_size: int | None = None


class PreparationRequest(msgspec.Struct, frozen=True):
    """What to prepare for. `system` is the system prompt that the models will be asked with."""

    stages: tuple[Stage, ...]
    subset: Subset | None = None
    field_mapping: dict[str, str] = {}
    system: str = ""
    max_test_records: int = 500
    split_seed: int = 0


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
    problems = Problems()
    corpora = _corpora(request, sources, problems)
    for corpus in corpora:
        for scan in corpus.scans:
            scan.read(problems)
    problems.raise_errors()
    for corpus in corpora:
        corpus.decide()
    problems.raise_errors()
    prepared: dict[str, PreparedFile] = {}
    for corpus in corpora:
        prepared |= corpus.write(open_sink)
    problems.raise_errors()
    test = prepared.get(_TEST_SINK)
    return Profile(
        files=tuple(scan.described() for corpus in corpora for scan in corpus.scans),
        prepared=prepared,
        test_records=test.records if test else 0,
        test_digest=test.sha256 if test else "",
        warnings=tuple(problems.of("warning")),
        notes=tuple(problems.of("note")),
    )


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
        return Scan(source, demands, self._request.field_mapping)

    @property
    def scans(self) -> list[Scan]:
        return [scan for scan in (self._training, self._validation, self._test) if scan is not None]

    def decide(self) -> None:
        """Decide where each record goes: the test file stands above the validation file, both above training."""
        seed, most = self._request.split_seed, self._request.max_test_records
        held_out: set[int] = set()
        if self._test:
            self._test.fates = splits.choose_test_records(self._test.digests, seed, most)
            held_out.update(self._test.digests)
        if self._validation:
            self._validation.fates = bytearray(
                splits.LEAKED if digest in held_out else splits.VALIDATION for digest in self._validation.digests
            )
            held_out.update(self._validation.digests)
        if self._training:
            fates = splits.split_training_file(self._training.digests, held_out, self._split_rules())
            self._training.fates = splits.choose_test_records(self._training.digests, seed, most, fates)
            self._check_amounts(self._training)
        for scan in self.scans:
            for reason, count in scan.dropped().items():
                found = f"{count:,} of {scan.totals.records:,} records"
                self._problems.add(reason, scan.source.name, found=found)

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
                    fate: Writer(stack.enter_context(open_sink(name)), scan, self._encoder(fate))
                    for fate, name in names.items()
                    if fate in scan.fates
                }
                distribute(scan, opened)
            writers |= opened
        self._check_written(writers)
        return {names[fate]: writer.described(names[fate]) for fate, writer in writers.items()}

    def _encoder(self, fate: int) -> Callable[[Record], bytes]:
        if fate == splits.TEST or self._stage is None:
            return encode_test_record
        return ENCODERS[self._model.training_format[self._stage.customization_type]]

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
            found = f"{test.totals.records if test else 0} test records"
            self._problems.add("few_test_records", test.origin if test else "test.jsonl", found=found)
        if training and test:
            known = set(test.prompts).intersection(training.prompts)
            seen = sum(prompt in known for prompt in test.prompts)
            if seen:
                found = f"{seen:,} of {test.totals.records:,} test records"
                self._problems.add("prompt_in_training", test.origin, found=found)

    def _warn_of_training(self, training: Writer) -> None:
        add, file, totals = self._problems.add, training.origin, training.totals
        tokens = totals.tokens().likely
        if self._raw and tokens < FEW_PRETRAINING_TOKENS:
            add("few_tokens", file, found=f"about {tokens:,} tokens")
        if not self._raw and totals.records < FEW_TRAINING_RECORDS:
            add("few_records", file, found=f"{totals.records:,} training records")
        share = training.majority_count / totals.records
        if share >= DOMINANT_SHARE and totals.records > 1:
            add("one_completion", file, found=excerpt(training.majority), share=int(share * 100))
        if self._training and self._training.with_system:
            if self._single_turn:
                add("joined_system", file, model=self._model.name)
        elif self._request.system and not self._raw:
            add("system_not_in_training", file)

    def _add_too_large(self, file: str, size: int, most: int) -> None:
        self._problems.add("file_too_large", file, found=f"{size:,} bytes", model=self._model.name, limit=f"{most:,}")
