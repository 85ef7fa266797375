"""Reads the lines of a data file as records: fast where a line is plain, and with care where it is not."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO

import msgspec

from customization.formats import CLAUDE_MESSAGES, MESSAGES, OPENAI_CHAT, PLAIN_READERS, NotPlainError, Record
from customization.json_types import Json, JsonObject
from customization.problems import Problems, excerpt
from customization.shapes import FORMAT_NAMES, USED_KEYS, format_of, read_record, rename_keys, suggest_mapping

# Far above any record's token limit: 32,000 tokens are at most 1.2 MB even where each character is written as \uXXXX.
MAX_LINE_BYTES = 8_000_000

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_ENCODINGS = (("cp932", "Shift_JIS (CP932)"), ("euc_jp", "EUC-JP"))
_NOT_PLAIN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, NotPlainError)
_POSITION = re.compile(r"\(byte (\d+)\)")

_decode: Callable[[bytes], Json] = msgspec.json.Decoder().decode


def split_lines(chunks: Iterable[bytes], limit: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    """Yield the lines of a stream of bytes with their LF; those longer than `limit` are cut after `limit` + 1 bytes.

    Memory stays at one chunk and one line, also where a file has no line end at all.
    """
    rest = b""
    for chunk in chunks:
        lines = BytesIO(chunk).readlines()  # splits at LF alone, which bytes.splitlines does not
        if rest and lines:
            text, end = lines[0].removesuffix(b"\n"), lines[0][-1:] == b"\n"
            lines[0] = rest + text[: limit + 1 - len(rest)] + b"\n" * end
            rest = b""
        if lines and not lines[-1].endswith(b"\n"):
            rest = lines.pop()[: limit + 1]
        yield from lines
    if rest:
        yield rest


class RecordReader:
    """Reads one file, whose format is that of the first record; `problems` gets what is wrong, line by line."""

    def __init__(self, file: str, problems: Problems, field_mapping: Mapping[str, str] | None = None) -> None:
        self.file = file
        self.format: str | None = None
        self._mapping = field_mapping or {}
        self._problems = problems
        self._plain: Callable[[bytes], Record] = _not_yet_known
        self._line = 0
        self._begun = False
        self._unreadable = False

    def records(self, lines: Iterable[bytes]) -> Iterator[tuple[int, Record]]:
        """Yield the number of the line, from 1 with blank lines counted, and the record of every line that has one."""
        for number, line in enumerate(lines, 1):
            try:
                record: Record | None = self._plain(line if len(line) <= MAX_LINE_BYTES else b"")
            except _NOT_PLAIN:
                self._line = number
                record = self._read_carefully(line)
                if self._unreadable:
                    return
            if record is not None:
                yield number, record
        if not self._begun:
            self._line = 0
            self._report("empty_file")

    def _report(self, code: str, field: str = "", found: str = "", allowed: str = "", **values: str | int) -> None:
        if code in ("missing_field", "wrong_type"):
            values["allowed"] = allowed
        whole_file = self._unreadable or not self._line
        self._problems.add(code, self.file, None if whole_file else self._line, field=field, found=found, **values)

    def _read_carefully(self, line: bytes) -> Record | None:
        if not self._begun:
            line = self._without_mark(line)
        if not line.strip():
            if line:
                self._report("blank_line")
            return None
        if not self._begun:
            self._begun = True
            if self._is_unreadable(line):
                return None
            if line.endswith(b"\r\n"):
                self._report("cr_lf")
        value = self._decode_object(line)
        return None if value is None else self._read_object(value)

    def _without_mark(self, line: bytes) -> bytes:
        if not line.startswith(_BYTE_ORDER_MARK):
            return line
        self._report("byte_order_mark")
        return line[len(_BYTE_ORDER_MARK) :]

    def _is_unreadable(self, line: bytes) -> bool:
        """Tell, and report, whether the first line shows that no line of the file can be read."""
        start = line.strip()
        if line.startswith(_COMPRESSED):
            code = "compressed"
        elif line.startswith(_UTF16_MARKS) or b"\0" in line[:64]:
            code = "utf16"
        elif start.startswith(b"["):
            code = "json_array"
        elif start == b"{":
            code = "pretty_printed"
        elif b"\r" in start and not _is_json(start):
            code = "cr_line_ends"
        else:
            return False
        self._unreadable = True
        self._report(code)
        return True

    def _decode_object(self, line: bytes) -> JsonObject | None:
        if len(line) > MAX_LINE_BYTES:
            self._report("long_line", limit=MAX_LINE_BYTES)
            return None
        try:
            value = _decode(line)
        except UnicodeDecodeError:
            self._report("not_utf8", found=_encoding_of(line))
        except RecursionError:
            self._report("deep_nesting")
        except msgspec.MsgspecError as error:
            self._report("invalid_json", found=_around(line, str(error)), reason=_reason(line, str(error)))
        else:
            if isinstance(value, dict):
                return value
            self._report("not_object", found=excerpt(line.strip().decode()))
        return None

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
            if not any(key in self._mapping for key in USED_KEYS[found]):
                self._plain = PLAIN_READERS[found]
        return found == self.format or (found == MESSAGES and self.format in either)


def _not_yet_known(_line: bytes) -> Record:
    raise NotPlainError


def _is_json(line: bytes) -> bool:
    try:
        _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _encoding_of(line: bytes) -> str:
    """Name the Japanese encodings in which the line can be read, of which one is likely the file's."""
    names = []
    for encoding, name in _ENCODINGS:
        try:
            line.decode(encoding)
        except UnicodeDecodeError:
            continue
        names.append(name)
    return f"what looks like {' or '.join(names)}" if names else ""


def _reason(line: bytes, error: str) -> str:
    position = _POSITION.search(error)
    rest = line[int(position[1]) :] if position else b""
    if rest.startswith((b"NaN", b"Infinity", b"-Infinity")) or line[max(0, len(line) - len(rest) - 1) :].startswith(
        b"-Inf"
    ):
        return "JSON has no NaN and no Infinity"
    reason = error.removeprefix("JSON is malformed: ")
    return "it ends in the middle of a value" if "truncated" in reason else reason


def _around(line: bytes, error: str) -> str:
    """Return a short piece of the line around the place that the parser names, or its end."""
    position = _POSITION.search(error)
    place = int(position[1]) if position else len(line)
    return excerpt(line[max(0, place - 20) : place + 20].decode("utf-8", "replace").strip())


def _names(value: JsonObject) -> str:
    keys = [excerpt(key)[1:-1] for key in list(value)[:8]]
    return f"the keys {', '.join(keys)}" + (" …" if len(value) > len(keys) else "") if keys else "no key"
