"""Reads an uploaded file, keeping what decides where its records go, and writes a prepared one."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from customization import splits
from customization.checks import Demands, RecordChecks
from customization.formats import Example, Record, digest_of
from customization.problems import Problems
from customization.profile import FileProfile, PreparedFile, Totals, length_quantiles, size_of
from customization.records import RecordReader

MOST_DIGESTS = 250_000  # above the 100,000 records that any base model takes: about 25 MB

_DROPPED = {splits.LEAKED: "leaked", splits.CUT: "subset", splits.REPEATED: "repeated", splits.UNASKED: "unasked"}


class Source(Protocol):
    """An uploaded file: its name as people know it (train.jsonl) and its size in bytes."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def lines(self) -> Iterator[bytes]:
        """Yield the lines from the start, LF kept; long lines may be cut as by `records.split_lines`."""


class Sink(Protocol):
    def write(self, line: bytes) -> None:
        """Take a line with its LF."""


class Scan:
    """The first reading of a file; `fates` is filled in by who decides where its records go."""

    def __init__(self, source: Source, demands: Demands, field_mapping: Mapping[str, str]) -> None:
        self.source = source
        self.totals = Totals()
        # Of a file of n bytes, at most as many different lengths as the square root of 2 n
        self.lengths: Counter[int] = Counter()
        self.digests = array("Q")
        self.fates = bytearray()
        self.duplicates = 0
        self.with_system = 0
        self.likely_majority = ""
        self._demands = demands
        self._field_mapping = field_mapping
        self._format = ""

    def read(self, problems: Problems) -> None:
        """Check, count and hash each record."""
        reader = RecordReader(self.source.name, problems, self._field_mapping)
        checks = RecordChecks(self.source.name, self._demands, problems)
        majority = _Majority()
        seen: set[int] = set()
        for line, record in reader.records(self.source.lines()):
            size = size_of(record)
            checks.check(line, record, size, reader.format)
            self.totals.add(size)
            self.lengths[size.characters] += 1
            digest = digest_of(record)
            self.digests.append(digest)
            if digest in seen:
                self.duplicates += 1
            elif len(seen) < MOST_DIGESTS:
                seen.add(digest)
            if isinstance(record, Example) and record.turns:
                majority.add(record.turns[-1].text)
                self.with_system += bool(record.system)
        self._format = reader.format or ""
        self.likely_majority = majority.candidate
        if self.duplicates:
            problems.add(
                "duplicates", self.source.name, found=f"{self.duplicates:,} of {self.totals.records:,} records"
            )

    def records(self) -> Iterator[tuple[Record, int]]:
        """Yield each record once more, with its fate."""
        reader = RecordReader(self.source.name, Problems(), self._field_mapping)
        for (_, record), fate in zip(reader.records(self.source.lines()), self.fates, strict=True):
            yield record, fate

    def dropped(self) -> dict[str, int]:
        """Return how many records are written nowhere, by reason."""
        return {name: self.fates.count(fate) for fate, name in _DROPPED.items() if fate in self.fates}

    def described(self) -> FileProfile:
        totals = self.totals
        return FileProfile(
            name=self.source.name,
            format=self._format,
            records=totals.records,
            characters=totals.characters,
            tokens=totals.tokens(),
            length=length_quantiles(self.lengths),
            duplicates=self.duplicates,
            dropped=self.dropped(),
        )


class _Majority:
    """Finds the one text that could make up more than half of all (Boyer and Moore's vote), keeping no other."""

    def __init__(self) -> None:
        self.candidate = ""
        self._votes = 0

    def add(self, text: str) -> None:
        if self._votes == 0:
            self.candidate = text
        self._votes += 1 if text == self.candidate else -1


class Writer:
    """Writes the records of one prepared file.

    `prompts` holds a hash of each prompt, valid in this process only; `majority_count`: records with that completion.
    """

    def __init__(self, sink: Sink, scan: Scan, encode: Callable[[Record], bytes]) -> None:
        self.origin = scan.source.name
        self.majority = scan.likely_majority
        self.totals = Totals()
        self.bytes = 0
        self.prompts = array("q")
        self.majority_count = 0
        self._sha256 = hashlib.sha256()
        self._sink = sink
        self._encode = encode

    def write(self, record: Record) -> None:
        line = self._encode(record) + b"\n"
        self._sink.write(line)
        self.bytes += len(line)
        self._sha256.update(line)
        if isinstance(record, Example):
            self.prompts.append(hash((record.system, record.turns[:-1])))
            self.majority_count += record.turns[-1].text == self.majority

    def described(self, name: str) -> PreparedFile:
        return PreparedFile(
            name=name,
            origin=self.origin,
            records=self.totals.records,
            bytes=self.bytes,
            sha256=self._sha256.hexdigest(),
            tokens=self.totals.tokens(),
            completion_tokens=self.totals.completion_tokens(),
        )


def distribute(scan: Scan, writers: Mapping[int, Writer]) -> None:
    """Write each record of the file where its fate sends it, in the order of the file."""
    totals = {fate: Totals() for fate in set(scan.fates) if fate != splits.TRAIN}
    for record, fate in scan.records():
        if fate in writers:
            writers[fate].write(record)
        if fate in totals:
            totals[fate].add(size_of(record))
    totals[splits.TRAIN] = scan.totals.without(totals.values())  # most records: measuring them again would take time
    for fate, writer in writers.items():
        writer.totals = totals[fate]
