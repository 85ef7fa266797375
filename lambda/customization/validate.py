"""The command that checks data files for a base model on any machine, as PrepareDataset does in a run.

    python -m customization.validate train.jsonl --model amazon.nova-micro-v1:0:128k

Exit codes: 0 the files are accepted, perhaps with warnings; 1 they are rejected; 2 wrong use.
"""

import argparse
import re
import sys
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec

from customization import quality, splits
from customization.catalogue import (
    CONTINUED_PRE_TRAINING,
    FINE_TUNING,
    SUPPORTED_TYPES,
    BaseModel,
    Limits,
    load_catalogue,
)
from customization.checks import Amount, Bounds, asking_demands, check_amount, training_demands
from customization.dataset import PreparationRequest, Stage, prepare_dataset
from customization.errors import InvalidRunRequest
from customization.files import Scan, Sink, Source, distribute
from customization.formats import RawText
from customization.problems import Findings, Group, InvalidDataset, Problem, Problems, group, hidden
from customization.profile import FileProfile, Profile
from customization.records import RecordReader, split_lines
from customization.texts import LANGUAGES, Language, Sentence, say, wording

ROLES = ("train", "validation", "test")
_FIRST_LINES = 1_000  # the kind of customization is told by the first record that is among them
_CHUNK_BYTES = 1 << 20
_PROGRESS_SECONDS = 3.0
_MEGABYTE = 1_000_000


class WrongUseError(Exception):
    """The command cannot run as it was called."""


class Options(msgspec.Struct, frozen=True):
    """What the command was asked to do."""

    files: list[str]
    model: str
    role: str
    validation: str | None
    test: str | None
    type: str | None
    batch_size: int | None
    field_mapping: dict[str, str]
    strip_role_cues: bool
    language: Language
    format: Literal["text", "json"]


class Result(msgspec.Struct, frozen=True):
    """What the command prints as JSON; `profile` has what each accepted file holds, by its name as it was given."""

    verdict: str
    problems: tuple[Problem, ...]
    counts: dict[str, int]
    profile: dict[str, Profile | FileProfile | None]


class Progress:
    """Tells on standard error how far the reading is, every few seconds, so that short files stay silent."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._read = 0
        self._told = time.monotonic()
        self._is_open = False

    def add(self, count: int) -> None:
        self._read += count
        now = time.monotonic()
        if now - self._told < _PROGRESS_SECONDS:
            return
        self._told = now
        share = 100 * min(self._read, self._total) // max(1, self._total)
        text = f"{share} %, {self._read / _MEGABYTE:,.0f} of {self._total / _MEGABYTE:,.0f} MB"
        self._is_open = sys.stderr.isatty()
        sys.stderr.write(f"\r{text}" if self._is_open else f"{text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        if self._is_open:
            sys.stderr.write("\n")


class LocalFile:
    """A file of this machine, under the name that the user gave it."""

    def __init__(self, name: str, progress: Progress | None = None) -> None:
        path = Path(name)
        if not path.is_file():
            raise WrongUseError(f"{name!r}: found {'a folder' if path.is_dir() else 'no file'}; expected a file.")
        self.name = "".join(character if character.isprintable() else "?" for character in name)
        self.size = path.stat().st_size
        self.progress = progress
        self._path = path

    def chunks(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                if self.progress:
                    self.progress.add(len(chunk))
                yield chunk


class _Nowhere:
    """Takes the prepared lines: the command writes no file."""

    def write(self, line: bytes) -> None:
        pass


@contextmanager
def _open_nowhere(_name: str) -> Iterator[Sink]:
    yield _Nowhere()


class Examination:
    """The checks of the files for one base model, as the options ask for them."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.model = _model(options.model)
        self.language = options.language

    def type_of(self, source: Source) -> str:
        """Return the kind of customization: as asked, else what the first record is for and the model offers."""
        asked = self._options.type
        if asked and asked not in self.model.supported_types:
            offered = " or ".join(self.model.supported_types)
            raise WrongUseError(f"--type: {self.model.name} offers no {asked}; expected {offered}.")
        if asked:
            return asked
        reader = RecordReader(source.name, Problems(), self._options.field_mapping)
        first = next(reader.records(islice(split_lines(source.chunks()), _FIRST_LINES)), None)
        is_raw = first is not None and isinstance(first[1], RawText)
        if is_raw and CONTINUED_PRE_TRAINING in self.model.supported_types:
            return CONTINUED_PRE_TRAINING
        return FINE_TUNING if FINE_TUNING in self.model.supported_types else self.model.supported_types[0]

    def of(
        self, file: Source, beside: Mapping[str, Source], kind: str
    ) -> tuple[list[Problem], Profile | FileProfile | None]:
        """Return the problems of a file and of those beside it, and what it holds where none of them is an error."""
        if self._options.role == "train":
            return self.of_data_set({"train" if kind == FINE_TUNING else "pretrain": file, **beside}, kind)
        return self.of_file(file, kind, self._options.role)

    def of_data_set(self, sources: Mapping[str, Source], kind: str) -> tuple[list[Problem], Profile | None]:
        """Return the problems of files that belong together, and their profile where none of them is an error."""
        request = PreparationRequest(
            stages=(Stage(kind, self.model, self._options.batch_size),),
            field_mapping=self._options.field_mapping,
            strip_role_cues=self._options.strip_role_cues,
            language=self.language,
        )
        try:
            profile = prepare_dataset(request, sources, _open_nowhere)
        except InvalidDataset as refusal:
            return refusal.problems, None
        listed = [*profile.warnings, *profile.notes]
        return listed, msgspec.structs.replace(profile, warnings=(), notes=())

    def of_file(self, source: Source, kind: str, role: str) -> tuple[list[Problem], FileProfile | None]:
        """Return the problems of a validation or test file alone, and its profile where none of them is an error."""
        problems, options = Problems(self.language), self._options
        is_test = role == "test"
        demands = asking_demands(self.model) if is_test else training_demands(self.model, kind, options.batch_size)
        scan = Scan(source, demands, options.field_mapping, strip_role_cues=options.strip_role_cues)
        scan.read(problems)
        if not is_test:
            self._check_validation(scan, self.model.limits[kind], problems)
        profile = None
        if not problems.of("error"):
            scan.fates = bytearray([splits.TEST if is_test else splits.VALIDATION]) * scan.records
            distribute(scan, {})
            profile = scan.described()
            quality.warn_of_file(profile, problems)
        return problems.of("error", "warning", "note"), profile

    def _check_validation(self, scan: Scan, limits: Limits, problems: Problems) -> None:
        """Add a problem for a validation file with too few or too many records or bytes."""
        file, most = scan.source.name, limits.max_validation_bytes
        if scan.records:
            amount = Amount(file, scan.records)
            found = Sentence("found.validationRecords", {"count": f"{amount.records:,}"})
            bounds = Bounds(limits.min_validation_records, limits.max_validation_records)
            check_amount(self.model.name, amount, found, bounds, problems)
        if most is not None and scan.source.size > most:
            size = Sentence("found.bytes", {"count": f"{scan.source.size:,}"})
            problems.add("file_too_large", file, found=size, model=self.model.name, limit=f"{most:,}")


def _model(identifier: str) -> BaseModel:
    try:
        model = load_catalogue().find(identifier)
    except InvalidRunRequest as error:
        raise WrongUseError(f"--model: {error}") from None
    if not model.supported_types:
        expected = ", ".join(load_catalogue().identifiers())
        raise WrongUseError(f"--model: {model.name} is not customized with text records; expected one of {expected}.")
    return model


def examine(options: Options) -> tuple[Result, list[str]]:
    """Check the files and return the result with one line about each; raises WrongUseError and OSError."""
    examination = Examination(options)
    files = [LocalFile(name) for name in options.files]
    given = {"validation": options.validation, "test": options.test}
    beside = {role: LocalFile(name) for role, name in given.items() if name}
    if beside and (len(files) > 1 or options.role != "train"):
        raise WrongUseError("--validation and --test go with one training file; expected one FILE and no other --role.")
    everything = [*files, *beside.values()]
    progress = Progress(sum(file.size for file in everything) * 2)
    problems: list[Problem] = []
    profiles: dict[str, Profile | FileProfile | None] = {}
    told: list[str] = []
    for file in files:
        kind = examination.type_of(file)
        for source in (file, *beside.values()):
            source.progress = progress
        found, profile = examination.of(file, beside, kind)
        found += _of_name(file.name, options.language)
        problems += found
        profiles[file.name] = profile
        told += [_heading(file.name, examination, kind, found), *_described(profile, options.language)]
    progress.close()
    findings = Findings.of(problems)
    return Result(findings.verdict, findings.problems, findings.counts, profiles), told


def _of_name(name: str, language: Language) -> list[Problem]:
    """Warn of a name that Bedrock would refuse in an S3 key; in this pipeline the prepared files have their own."""
    problems = Problems(language)
    odd = sorted(set(re.sub(f"[{load_catalogue().s3_key_characters}]", "", Path(name).name)))
    if odd:
        problems.add("file_name", name, characters=" ".join(map(ascii, odd[:8])))
    return problems.of("warning")


def _heading(name: str, examination: Examination, kind: str, problems: Sequence[Problem]) -> str:
    findings = Findings.of(problems)
    values = {
        "file": name,
        "model": examination.model.name,
        "type": kind,
        **{f"{severity}s": f"{count:,}" for severity, count in findings.counts.items()},
    }
    verdicts = {"accept": "validate.accept", "warn": "validate.warn", "reject": "validate.reject"}
    return say(Sentence("validate.summary", values, {"verdict": verdicts[findings.verdict]}), examination.language)


def _described(profile: Profile | FileProfile | None, language: Language) -> list[str]:
    files = profile.files if isinstance(profile, Profile) else (profile,) if profile else ()
    lines = []
    for file in files:
        values = {
            "name": file.name,
            "records": f"{file.records:,}",
            "characters": f"{file.characters:,}",
            "tokens": f"{file.tokens.likely:,}",
            "duplicates": f"{file.duplicates:,}",
        }
        lines.append(say(Sentence("validate.profile", values), language))
    return lines


def table(problems: Sequence[Problem], language: Language) -> list[str]:
    """Return the problems as aligned plain lines, those alike in one, with what is beyond those shown."""
    severities = {"error": "validate.error", "warning": "validate.warning", "note": "validate.note"}
    rows = [wording("validate.columns", language).split("\t")]
    for (_, file), groups in group(problems).items():
        rows += [_row(alike, wording(severities[alike.problem.severity], language)) for alike in groups]
        more = hidden(groups)
        if more:
            told = say(Sentence("problem.more", {"count": f"{more:,}", "file": file}), language)
            rows.append(["", "", "", told.strip()])
    return _aligned(rows) if problems else []


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(_width, column)) for column in list(zip(*rows, strict=True))[:-1]]
    return [
        "  ".join([*(cell + " " * (wide - _width(cell)) for cell, wide in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]


def _width(text: str) -> int:
    """Return how many columns a terminal takes for the text: two for each Japanese character."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _row(alike: Group, severity: str) -> list[str]:
    problem = alike.problem
    return [severity, f"{problem.file}:{alike.place}" if alike.place else problem.file, problem.field, problem.told()]


def _options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="customization-validate",
        description="Check data files for customizing a base model of Amazon Bedrock, without calling AWS.",
        epilog="Exit codes: 0 accepted, perhaps with warnings; 1 rejected; 2 wrong use.",
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="JSON Lines, each file checked by itself")
    add("--model", required=True, metavar="ID", help="baseModelIdentifier, such as amazon.nova-micro-v1:0:128k")
    add("--role", choices=ROLES, default="train", help="what the files are for (train)")
    add("--validation", metavar="FILE", help="the validation file that goes with FILE, checked with it")
    add("--test", metavar="FILE", help="the test file that goes with FILE, checked with it")
    add("--type", choices=SUPPORTED_TYPES, help="the kind of customization (by the first record)")
    add("--batch-size", type=_batch_size, metavar="N", help="batchSize, on which some models' token limits depend")
    add("--field-mapping", type=_field_mapping, default={}, metavar="JSON", help="as in the run request")
    add("--strip-role-cues", action="store_true", help="as stripRoleCues in the run request")
    add("--language", choices=LANGUAGES, default="en", help="of the problems (en)")
    add("--format", choices=("text", "json"), default="text", help="of the output (text)")
    return msgspec.convert(vars(parser.parse_args(arguments)), Options)


def _batch_size(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1")
    return int(text)


def _field_mapping(text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except msgspec.MsgspecError:
        expected = '{"question": "prompt", "answer": "completion"}'
        raise argparse.ArgumentTypeError(f"found {text!r}, expected JSON such as {expected}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _options(arguments)
    try:
        result, told = examine(options)
    except (WrongUseError, OSError) as error:
        sys.stderr.write(f"customization-validate: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    if options.format == "json":
        text = msgspec.json.format(msgspec.json.encode(result), indent=1).decode()
    else:
        text = "\n".join([*told, *table(result.problems, options.language)])
    try:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # a text stream, whatever the locale
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()  # whoever read the output has seen enough
    return 1 if result.verdict == "reject" else 0


if __name__ == "__main__":
    sys.exit(main())
