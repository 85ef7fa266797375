"""Reads an uploaded file, keeping what decides where its records go, and writes a prepared one."""

import hashlib
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, groupby
from operator import itemgetter
from typing import Protocol

from customization import splits
from customization.checks import Demands, RecordChecks
from customization.formats import ENCODERS, PLAIN_READERS, Example, Record, encode_test_record
from customization.problems import Problems, excerpt
from customization.profile import CompletionShare, FileProfile, PreparedFile, Totals, histogram, length_quantiles
from customization.reading import AS_WRITTEN, CAREFUL, NO_RECORD, LineReader, Part, together
from customization.records import RecordReader
from customization.respelling import are_of_format, converted
from customization.role_cues import RoleCues
from customization.sample import COMPARED_RECORDS, SAMPLED_RECORDS, SampledRecord, Sampler, bigrams_of, measure
from customization.texts import Sentence

# Above the 100,000 records that any base model takes; to count so many takes about 25 MB.
MOST_COUNTED = 250_000
# Telephone, card and My Numbers are looked for in so many records and in one of 32 of the rest: a slow search.
NUMBERS_IN_ALL_OF = 1_000
MOST_CATEGORIES = 100  # of a file, in the order in which they occur; the rest count as one
SHOWN_COMPLETIONS = 10
SHORT_CHARACTERS = 3

_DROPPED = {splits.LEAKED: "leaked", splits.CUT: "subset", splits.REPEATED: "repeated", splits.UNASKED: "unasked"}
# For each fate the table that makes 1 of it and 0 of all others
_ONE_FOR = [bytes(fate == other for other in range(256)) for fate in range(len(_DROPPED) + 3)]
_sha256 = hashlib.sha256  # what processors compute fastest of hashlib's functions


class Source(Protocol):
    """An uploaded file: its name as people know it (train.jsonl) and its size in bytes."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start, in pieces of any size; a quarter to a whole megabyte are read fast."""


class Sink(Protocol):
    def write(self, line: bytes) -> None:
        """Take one or more whole lines, each with its LF."""


class Categories:
    """The categories of a file's records: a code of each, 0 for none."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.codes = bytearray()
        self.counts: Counter[str] = Counter()

    def add(self, categories: Sequence[str] | None, before: int, count: int) -> None:
        """Take the categories of `count` records, which `before` others precede; None: they have none."""
        if categories is None:
            if self.codes:
                self.codes += bytes(count)
            return
        self.codes = self.codes or bytearray(before)
        for category in categories:
            if category and category not in self.names and len(self.names) < MOST_CATEGORIES:
                self.names[category] = len(self.names) + 1
            self.codes.append(self.names.get(category, MOST_CATEGORIES + 1) if category else 0)
        self.counts.update(category for category in categories if category in self.names)


class Scan:
    """The first reading of a file; `fates` is filled in by who decides where its records go.

    Of each record are kept 41 bytes: its digest, hashes of its prompt and completion that are valid in this process
    only, its sizes, how it is to be read again and what becomes of it. Beyond `most` records nothing is kept: the file
    is going to be refused.
    """

    def __init__(
        self,
        source: Source,
        demands: Demands,
        field_mapping: Mapping[str, str],
        *,
        strip_role_cues: bool = False,
        most: int | None = None,
        compare_similar: bool = True,
    ) -> None:
        self.source = source
        self.records = 0
        self.digests = array("Q")
        self.prompts = array("q")
        self.completions = array("q")
        self.kinds = bytearray()
        self.fates = bytearray()
        self.categories = Categories()
        self.sample: list[SampledRecord] = []
        self.bigrams: list[list[tuple[str, str] | int]] = []  # of the first records of the sample
        self.with_system = 0
        self.short = 0
        self.distinct_completions = 0
        self.duplicates = 0
        self.format = ""
        self.frequent: dict[int, tuple[int, str]] = {}  # hash of a completion → how many have it, an excerpt of it
        self._sizes = (array("I"), array("I"), array("I"), array("I"))
        self._demands = demands
        self._field_mapping = field_mapping
        self._strip_role_cues = strip_role_cues
        self._sampled = COMPARED_RECORDS if compare_similar else SAMPLED_RECORDS
        self._most = sys.maxsize if most is None else most

    @property
    def is_whole(self) -> bool:
        """Tell whether all records were kept."""
        return self.records == len(self.digests)

    @property
    def counted(self) -> int:
        """In how many records, the first of the file, repeated ones and distinct texts are counted."""
        return min(len(self.digests), MOST_COUNTED)

    def read(self, problems: Problems) -> None:
        """Check, count and hash each record."""
        name, model = self.source.name, self._demands.model
        checks, cues = RecordChecks(name, self._demands, problems), RoleCues(strip=self._strip_role_cues)
        reader, sampler = LineReader(name, problems, self._field_mapping, cues), Sampler(self._sampled)
        for part in reader.parts(self.source.chunks()):
            if self.records < self._most:
                self._keep(part, sampler)
            with_numbers = self._with_numbers(len(part.numbers))
            for place in checks.suspects(part.columns, with_numbers):
                checks.check(part.numbers[place], part.record(place), reader.format, with_numbers=with_numbers[place])
            self.records += len(part.numbers)
        self.format = reader.format
        self.sample = sampler.sampled()
        self.bigrams = [bigrams_of(record) for record in self.sample[:SAMPLED_RECORDS]]
        cues.report(name, model, problems, repeated=not self._demands.single_turn)
        self.duplicates = self.counted - len(set(self.digests[: self.counted]))
        if self.duplicates:
            found = Sentence("found.share", {"count": f"{self.duplicates:,}", "total": f"{self.counted:,}"})
            problems.add("duplicates", name, found=found)
        # The texts are taken down when the file is read again
        counts = Counter(self.completions[: self.counted])
        self.frequent = {key: (count, "") for key, count in counts.most_common(SHOWN_COMPLETIONS) if count > 1}
        self.distinct_completions = len(counts)

    def _keep(self, part: Part, sampler: Sampler) -> None:
        columns, before = part.columns, len(self.digests)
        digests = array("Q", b"".join([_sha256(content).digest() for content in columns.contents]))[::4]
        if sys.byteorder == "little":
            digests.byteswap()
        self.digests += digests
        self.prompts += array("q", columns.prompt_hashes)
        self.kinds += part.kinds
        columns_of_sizes = (
            columns.characters,
            columns.utf8_bytes(),
            columns.completion_characters,
            columns.completion_bytes,
        )
        for kept, sizes in zip(self._sizes, columns_of_sizes, strict=True):
            kept.extend(array("I", sizes))
        self.categories.add(columns.categories, before, len(digests))
        sampler.add(digests, columns, before)
        if columns.is_raw:
            return
        self.completions += array("q", list(map(hash, columns.completions)))
        self.with_system += columns.with_system
        if columns.completions and min(columns.completion_characters) < 2 * SHORT_CHARACTERS:
            self.short += sum(len(text.strip()) < SHORT_CHARACTERS for text in columns.completions)

    def _with_numbers(self, records: int) -> list[bool]:
        """Return of each of the next records whether personal numbers are looked for in it."""
        all_of = min(max(0, NUMBERS_IN_ALL_OF - self.records), records)
        digests = self.digests[self.records + all_of : self.records + records]
        tested = [True] * all_of + [not digest & 31 for digest in digests]
        return tested + [False] * (records - len(tested))

    def share_of_one(self) -> tuple[str, float]:
        """Return an excerpt of the most frequent completion among the training records, and its share of them."""
        if 2 * max((count for count, _ in self.frequent.values()), default=0) < self.fates.count(splits.TRAIN):
            return "", 0.0  # not the half of them: no matter
        used = compress(self.completions[: self.counted], self._with(splits.TRAIN))
        counts = Counter(used)
        if not counts:
            return "", 0.0
        key, count = counts.most_common(1)[0]
        return self.frequent.get(key, (0, ""))[1], count / counts.total()

    def _with(self, fate: int) -> bytearray:
        """Return a byte of each record: 1 for those with the fate, else 0."""
        return self.fates.translate(_ONE_FOR[fate])

    def prompts_of(self, fate: int) -> Iterator[int]:
        """Yield the hashes of the prompts of the records that have this fate."""
        return compress(self.prompts, self._with(fate))

    def totals(self, fate: int | None = None) -> Totals:
        """Return the sizes of all records, or of those with this fate, added up."""
        if fate is None:
            return Totals(len(self.digests), *map(sum, self._sizes))
        if fate == splits.TRAIN:  # most records: adding up the others takes less time
            whole, others = self.totals(), [self.totals(other) for other in set(self.fates) if other != fate]
            return Totals(*(total - sum(parts) for total, *parts in zip(whole, *others, strict=True)))
        mask = self._with(fate)
        return Totals(mask.count(1), *(sum(compress(sizes, mask)) for sizes in self._sizes))

    def sha256(self, fate: int) -> str:
        """Return the SHA-256 of the digests of the records that have this fate, in their order."""
        return _sha256(array("Q", compress(self.digests, self._with(fate))).tobytes()).hexdigest()

    def dropped(self) -> dict[str, int]:
        """Return how many records are written nowhere, by reason."""
        return {name: self.fates.count(fate) for fate, name in _DROPPED.items() if fate in self.fates}

    def described(self) -> FileProfile:
        """Return the file's profile, once its records were distributed."""
        totals, lengths = self.totals(), Counter(self._sizes[0])
        return FileProfile(
            name=self.source.name,
            format=self.format,
            records=totals.records,
            characters=totals.characters,
            tokens=totals.tokens(),
            length=length_quantiles(lengths),
            histogram=histogram(lengths),
            counted=self.counted,
            duplicates=self.duplicates,
            dropped=self.dropped(),
            distinct_prompts=len(set(self.prompts[: self.counted])),
            distinct_completions=self.distinct_completions,
            short_completions=self.short,
            completions=tuple(
                CompletionShare(text, count, count / self.counted) for count, text in self.frequent.values()
            ),
            categories=dict(self.categories.counts),
            sample=measure(self.sample, self.bigrams, compare_similar=self._sampled > SAMPLED_RECORDS),
        )

    def again(self, writers: "Mapping[int, Writer]") -> None:
        """Read the file again and write each record where its fate sends it, in the order of the file."""
        reader = RecordReader(self.source.name, Problems(), self._field_mapping)
        cues = RoleCues(strip=self._strip_role_cues)
        wanted = {self.completions.index(key): key for key in self.frequent}
        line = place = 0
        for lines in together(self.source.chunks()):
            for kind, some in _runs(self.kinds[line : line + len(lines)], lines):
                if kind in (NO_RECORD, CAREFUL):
                    read = [reader.read(line + number, text) for number, text in enumerate(some, 1)]
                    records = [cues.take(record) for record in read if record is not None]
                    self._write_records(records, place, writers)
                    count = len(records)
                else:
                    self._write_lines(some, place, writers, is_as_written=kind == AS_WRITTEN)
                    records, count = [], len(some)
                for index in [index for index in wanted if place <= index < place + count]:
                    record = records[index - place] if records else PLAIN_READERS[self.format](some[index - place])
                    self._take_down(wanted.pop(index), record)
                line, place = line + len(some), place + count

    def _take_down(self, key: int, record: Record) -> None:
        if isinstance(record, Example):
            self.frequent[key] = (self.frequent[key][0], excerpt(record.turns[-1].text)[1:-1])

    def _write_records(self, records: Sequence[Record], place: int, writers: "Mapping[int, Writer]") -> None:
        for record, fate in zip(records, self.fates[place : place + len(records)], strict=True):
            if fate in writers:
                writers[fate].write([record])

    def _write_lines(
        self, lines: Sequence[bytes], place: int, writers: "Mapping[int, Writer]", *, is_as_written: bool
    ) -> None:
        fates = self.fates[place : place + len(lines)]
        for fate, writer in writers.items():
            count = fates.count(fate)
            if count:
                chosen = lines if count == len(lines) else list(compress(lines, fates.translate(_ONE_FOR[fate])))
                writer.write_plain(chosen, self.format, is_as_written=is_as_written)


def _runs(kinds: bytearray, lines: Sequence[bytes]) -> Iterator[tuple[int, Sequence[bytes]]]:
    """Yield neighbouring lines of one kind; those without a record are read as the careful ones beside them."""
    if kinds.count(kinds[0]) == len(lines):
        yield kinds[0], lines
        return
    kinds = kinds.replace(bytes([NO_RECORD]), bytes([CAREFUL]))
    for kind, pairs in groupby(zip(kinds, lines, strict=True), itemgetter(0)):
        yield kind, [line for _, line in pairs]


class Writer:
    """Writes the records of one prepared file in the target format; "" stands for the lines of test.jsonl."""

    def __init__(self, sink: Sink, scan: Scan, target: str) -> None:
        self.origin = scan.source.name
        self.totals = Totals()
        self.bytes = 0
        self._sink = sink
        self._scan = scan
        self._target = target
        self._encode = ENCODERS[target] if target else encode_test_record

    def write(self, records: Iterable[Record]) -> None:
        """Write the records in the target format."""
        self._write(b"".join([self._encode(record) + b"\n" for record in records]))

    def write_plain(self, lines: Sequence[bytes], source: str, *, is_as_written: bool) -> None:
        """Write plain lines of the source format, whose texts stay spelt as they are."""
        if not self._target:
            self.write(map(PLAIN_READERS[source], lines))
        elif is_as_written and are_of_format(source, self._target):
            whole = b"".join(lines)
            self._write(whole if whole.endswith(b"\n") else whole + b"\n")
        else:
            self._write(converted(lines, source, self._target))

    def _write(self, lines: bytes) -> None:
        self._sink.write(lines)
        self.bytes += len(lines)

    def described(self, name: str, fate: int) -> PreparedFile:
        return PreparedFile(
            name=name,
            origin=self.origin,
            records=self.totals.records,
            bytes=self.bytes,
            sha256=self._scan.sha256(fate),
            tokens=self.totals.tokens(),
            completion_tokens=self.totals.completion_tokens(),
        )


def distribute(scan: Scan, writers: Mapping[int, Writer]) -> None:
    """Write each record of the file where its fate sends it, in the order of the file."""
    for fate, writer in writers.items():
        writer.totals = scan.totals(fate)
    scan.again(writers)
