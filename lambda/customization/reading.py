"""Reads the lines of a data file in order, many at a time where they are plain and with care where one is not."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from customization.columns import Columns
from customization.formats import PLAIN_READERS, Record
from customization.plain import PlainReader
from customization.problems import Problems
from customization.records import RecordReader, line_lists
from customization.role_cues import RoleCues

# What a line is: without a record; plain, to be written as it stands; plain; for the careful reader
NO_RECORD, AS_WRITTEN, PLAIN, CAREFUL = range(4)

_TOGETHER: Final = 300_000  # bytes: few enough for a processor's cache, enough lines that calls do not count
_FEW_LINES: Final = 8
_CAREFUL_LINES: Final = 250


class Part(NamedTuple):
    """Some neighbouring lines: what each is, and of those with a record its number, counted from 1 in the file."""

    kinds: bytes
    numbers: Sequence[int]
    columns: Columns
    record: Callable[[int], Record]  # by its place in the part


def together(chunks: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines of a stream of bytes in lists of up to about 300 kB, or less where chunks are less."""
    for lines in line_lists(chunks):
        lists = min(-(-sum(map(len, lines)) // _TOGETHER), len(lines))
        if lists == 1:
            yield lines
            continue
        count = -(-len(lines) // lists)
        for start in range(0, len(lines), count):
            yield lines[start : start + count]


class LineReader:
    """Reads one file once; `problems` gets what is wrong with its lines, `cues` sees its first records."""

    def __init__(self, file: str, problems: Problems, field_mapping: Mapping[str, str], cues: RoleCues) -> None:
        self._reader = RecordReader(file, problems, field_mapping)
        self._plain = PlainReader()
        self._cues = cues
        self._line = 1

    @property
    def format(self) -> str:
        """The format of the file as far as it is known."""
        return self._reader.format or ""

    def parts(self, chunks: Iterable[bytes]) -> Iterator[Part]:
        """Yield all parts of the file in order, up to a line that shows that no line can be read."""
        for some in together(chunks):
            yield from self._read(some)
            if self._reader.is_over:
                return
        self._reader.finish()

    def _read(self, lines: Sequence[bytes]) -> Iterator[Part]:
        while lines and not self._reader.is_over and (self._cues.are_stripped or not self._reader.reads_plainly):
            count = _CAREFUL_LINES if self.format else 1  # the first record may tell how to read the others
            yield self._read_carefully(lines[:count])
            lines = lines[count:]
        if self._reader.is_over or not lines:
            return
        if len(lines) > _FEW_LINES:
            yield from self._read_plainly(lines)
        else:
            yield self._read_carefully(lines)

    def _read_plainly(self, lines: Sequence[bytes]) -> Iterator[Part]:
        columns = self._plain.read(lines, self.format)
        if columns is None:  # all but a few lines may be plain
            half = len(lines) // 2
            yield from self._read(lines[:half])
            yield from self._read(lines[half:])
            return
        read = PLAIN_READERS[self.format]
        for line in lines:
            if not self._cues.are_wanted:
                break
            self._cues.take(read(line))
        kind = AS_WRITTEN if columns.is_as_written else PLAIN
        numbers = range(self._line, self._line + len(lines))
        self._line += len(lines)
        yield Part(bytes([kind]) * len(lines), numbers, columns, lambda place: read(lines[place]))

    def _read_carefully(self, lines: Sequence[bytes]) -> Part:
        kinds = bytearray()
        records: list[Record] = []
        numbers: list[int] = []
        for line in lines:
            record = self._reader.read(self._line, line)
            if self._reader.is_over:
                break
            if record is not None:
                records.append(self._cues.take(record))
                numbers.append(self._line)
            kinds.append(NO_RECORD if record is None else CAREFUL)
            self._line += 1
        return Part(bytes(kinds), numbers, Columns.of_records(records), records.__getitem__)
