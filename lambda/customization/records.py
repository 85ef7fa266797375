"""Reads the lines of a data file as records, with care: what is wrong with a line is found here and nowhere else.

Lines that are plainly of their format take the faster way of plain.py, with the same result.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from itertools import chain

import msgspec

from customization.formats import CLAUDE_MESSAGES, MESSAGES, OPENAI_CHAT, Record
from customization.json_types import Json, JsonObject
from customization.malformed import explain_error, find_fault
from customization.problems import Problems, excerpt
from customization.shapes import FORMAT_NAMES, USED_KEYS, format_of, read_record, rename_keys, suggest_mapping
from customization.texts import Sentence

# Far above any record's token limit: 32,000 tokens are at most 1.2 MB even where each character is written as \uXXXX.
MAX_LINE_BYTES = 8_000_000
MOST_HEADER_BYTES = 60

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

_decode: Callable[[bytes], Json] = msgspec.json.Decoder().decode


def line_lists(chunks: Iterable[bytes], limit: int = MAX_LINE_BYTES) -> Iterator[list[bytes]]:
    """Yield the lines of a stream of bytes with their LF, a list of those that end in a chunk at a time.

    Lines longer than `limit` are cut after `limit` + 1 bytes. Memory stays at one chunk and one line, also where a file
    has no line end at all.
    """
    rest = bytearray()
    for chunk in chunks:
        lines = BytesIO(chunk).readlines()  # splits at LF alone, which bytes.splitlines does not
        if rest and lines:
            rest += lines[0].removesuffix(b"\n")[: limit + 1 - len(rest)]
            if not lines[0].endswith(b"\n"):
                continue
            lines[0] = bytes(rest) + b"\n"
            rest = bytearray()
        if lines and not lines[-1].endswith(b"\n"):
            rest = bytearray(lines.pop()[: limit + 1])
        if lines:
            yield lines
    if rest:
        yield [bytes(rest)]


def split_lines(chunks: Iterable[bytes], limit: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    """Yield the lines of `line_lists` one by one."""
    return chain.from_iterable(line_lists(chunks, limit))


class RecordReader:
    """Reads one file, whose format is that of the first record; `problems` gets what is wrong, line by line."""

    def __init__(self, file: str, problems: Problems, field_mapping: Mapping[str, str] | None = None) -> None:
        self.file = file
        self.format: str | None = None
        self._mapping = field_mapping or {}
        self._problems = problems
        self._reads_plainly = False
        self._line = 0
        self._begun = False
        self._unreadable = False

    @property
    def is_over(self) -> bool:
        """Tell whether the file has shown that no line of it can be read."""
        return self._unreadable

    @property
    def reads_plainly(self) -> bool:
        """Tell whether a line of the file's format needs no field mapping, and the format is known."""
        return self._reads_plainly

    def records(self, lines: Iterable[bytes]) -> Iterator[tuple[int, Record]]:
        """Yield the number of the line, from 1 with blank lines counted, and the record of every line that has one."""
        for number, line in enumerate(lines, 1):
            record = self.read(number, line)
            if self._unreadable:
                return
            if record is not None:
                yield number, record
        self.finish()

    def read(self, number: int, line: bytes) -> Record | None:
        """Return the record of the line of that number, None where it has none that can be used."""
        self._line = number
        return self._read_carefully(line)

    def finish(self) -> None:
        """Add a problem when no line has held anything."""
        if not self._begun:
            self._line = 0
            self._report("empty_file")

    def _report(
        self,
        code: str,
        field: str = "",
        found: str | Sentence = "",
        allowed: str | Sentence = "",
        **values: str | int | Sentence,
    ) -> None:
        if code in ("missing_field", "wrong_type"):
            values["allowed"] = allowed
        whole_file = self._unreadable or not self._line
        self._problems.add(code, self.file, None if whole_file else self._line, field=field, found=found, **values)

    def _read_carefully(self, line: bytes) -> Record | None:
        line = self._without_mark(line)
        if not line.strip():
            if line:
                self._report("blank_line")
            return None
        if not self._begun:
            self._begun = True
            code = _unreadable(line)
            if code:
                self._unreadable = True
                self._report(code)
                return None
            if line.endswith(b"\r\n"):
                self._report("cr_lf")
        value = self._decode_object(line)
        return None if value is None else self._read_object(value)

    def _without_mark(self, line: bytes) -> bytes:
        """Return the line without a byte order mark, which files that were joined have within, too."""
        if not line.startswith(_BYTE_ORDER_MARK):
            return line
        self._report("byte_order_mark")
        return line[len(_BYTE_ORDER_MARK) :]

    def _decode_object(self, line: bytes) -> JsonObject | None:
        if len(line) > MAX_LINE_BYTES:
            self._report("long_line", limit=f"{MAX_LINE_BYTES:,}")
            return None
        try:
            value = _decode(line)
            fault = find_fault(line, value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            fault = explain_error(line, error)
        if fault:
            self._report(fault.code, fault.field, fault.found, **fault.values)
            return None
        if not isinstance(value, dict):
            self._report("not_object", found=excerpt(line.strip().decode()))
            return None
        return value

    def _read_object(self, value: JsonObject) -> Record | None:
        renamed = rename_keys(value, self._mapping)
        found = format_of(renamed)
        if found is None:
            mapping = suggest_mapping(renamed)
            suggestion = f': "fieldMapping": {msgspec.json.encode(mapping).decode()}' if mapping else ": fieldMapping"
            self._report("unknown_format", found=_names(renamed), suggestion=suggestion)
            return None
        if not self._is_of_the_file(found):
            names = {"other": FORMAT_NAMES[found], "format": FORMAT_NAMES[self.format or found]}
            self._report("mixed_formats", found=_names(renamed), **names)
            return None
        return read_record(renamed, self.format or found, self._report)

    def _is_of_the_file(self, found: str) -> bool:
        """Tell whether a record's format is the file's; the first record, or a more telling later one, decides that."""
        either = (OPENAI_CHAT, CLAUDE_MESSAGES)
        if self.format is None or (self.format == MESSAGES and found in either):
            self.format = found
            # A mapping that gives a key of the format another meaning must not be passed over
            self._reads_plainly = not any(key in self._mapping for key in USED_KEYS[found])
        return found == self.format or (found == MESSAGES and self.format in either)


def _unreadable(line: bytes) -> str:
    """Return the code of the problem when the first line shows that no line of the file can be read, or nothing."""
    start = line.strip()
    code = ""
    if line.startswith(_COMPRESSED):
        code = "compressed"
    elif line.startswith(_UTF16_MARKS) or b"\0" in line[:4]:
        code = "utf16"
    elif start.startswith(b"["):
        code = "json_array"
    elif b"\r" in start and _is_json(start.partition(b"\r")[0]) and not _is_json(start):
        code = "cr_line_ends"
    elif start.startswith(b"{"):
        code = "pretty_printed" if start.endswith((b",", b"[", b"{", b":")) else ""
    elif _is_header(start):
        code = "tabular"
    return code


def _is_json(line: bytes) -> bool:
    try:
        _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _is_header(line: bytes) -> bool:
    """Tell whether the line looks like the names of columns: a few short texts with commas or tabs between."""
    cells = line.split(b"\t" if b"\t" in line else b",")
    return len(cells) > 1 and all(0 < len(cell.strip()) <= MOST_HEADER_BYTES and b"{" not in cell for cell in cells)


def _names(value: JsonObject) -> Sentence:
    if not value:
        return Sentence("found.noKey")
    return Sentence("found.keys", {"keys": excerpt(", ".join(value))[1:-1]})
