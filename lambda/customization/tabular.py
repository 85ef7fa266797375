"""Makes train.jsonl from a table: `python -m customization.tabular FILE.csv [--mapping 質問=prompt,回答=completion]`.

Reads CSV and TSV with a header row, in UTF-8 (also with a byte order mark) or CP932, row by row. Exit codes: 0 written,
1 the table has mistakes and nothing was written, 2 wrong use.
"""

import argparse
import codecs
import csv
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from customization.json_types import JsonObject
from customization.problems import Problems, excerpt
from customization.records import MAX_LINE_BYTES
from customization.shapes import FORMAT_KEYS, rename_keys, suggest_mapping
from customization.texts import LANGUAGES, Language, Sentence, say

WRITTEN, MISTAKES, WRONG_USE = 0, 1, 2

_ENCODINGS = {"utf-8-sig": "UTF-8", "cp932": "CP932"}
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_DELIMITERS = {",": "table.comma", ";": "table.semicolon", "\t": "table.tab"}
_TAB_ENDINGS = (".tsv", ".tab")
_PAIR_KEYS = ("prompt", "completion", "system", "category")
_TEXT_KEYS = ("input",)
_TARGETS = (*_PAIR_KEYS, *_TEXT_KEYS)
_CHUNK_BYTES = 1 << 20


class Table(NamedTuple):
    """How a table is to be read: `mapping` leads from its columns to the keys of a record."""

    path: Path
    encoding: str
    delimiter: str
    header: list[str]
    mapping: dict[str, str]

    @property
    def required(self) -> tuple[str, ...]:
        """Return the keys that every record must have."""
        return _TEXT_KEYS if "input" in self.mapping.values() else _PAIR_KEYS[:2]


def open_table(path: Path, mapping: Mapping[str, str], problems: Problems) -> Table | None:
    """Return how the table is read, with the mapping that was given or is apparent; None with a problem."""
    encoding = _encoding_of(path, problems)
    if encoding is None:
        return None
    delimiter, header = _header_of(path, encoding)
    found = excerpt(", ".join(header))[1:-1]
    names = [name for name in header if name]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if not names:
        problems.add("empty_file", path.name)
    elif doubled:
        problems.add("table_same_columns", path.name, 1, found=", ".join(doubled))
    elif missing := [name for name in mapping if name not in names]:
        problems.add("table_no_column", path.name, 1, found=found, names=", ".join(missing))
    else:
        used = _columns(names, mapping)
        if used:
            return Table(path, encoding, delimiter, header, used)
        problems.add("table_columns", path.name, 1, found=found)
    return None


def _columns(names: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """Return which columns lead to which keys of a record; empty where they make none."""
    chosen = dict(mapping) or suggest_mapping(dict.fromkeys(names, ""))
    chosen |= {name: name.lower() for name in names if name not in chosen and name.lower() in FORMAT_KEYS}
    for keys in (_PAIR_KEYS, _TEXT_KEYS):
        used = {name: target for name, target in chosen.items() if target in keys}
        if {*keys[:2]} <= {*used.values()}:
            return used
    return {}


def convert_table(table: Table, out: BinaryIO, problems: Problems) -> int:
    """Write a JSON line for each row and return their number; a mistake is a problem with its line and column."""
    written = 0
    for line, row in _rows(table, problems):
        record = _record_of(table, line, row, problems)
        if record is not None:
            out.write(msgspec.json.encode(record) + b"\n")
            written += 1
    if not written and not problems.of("error"):
        problems.add("empty_file", table.path.name)
    return written


def _encoding_of(path: Path, problems: Problems) -> str | None:
    """Return the first encoding in which the whole file can be read."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(_UTF16_MARKS) or b"\0" in head:
        problems.add("utf16", path.name)
        return None
    failed_line = None
    for encoding in _ENCODINGS:
        line = _undecodable_line(path, encoding)
        if line is None:
            return encoding
        failed_line = failed_line or line
    problems.add("table_encoding", path.name, failed_line)
    return None


def _undecodable_line(path: Path, encoding: str) -> int | None:
    """Return the line of the first bytes that are not of the encoding, None where all are."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with path.open("rb") as file:
        for chunk in iter(partial(file.read, _CHUNK_BYTES), b""):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                return line + bytes(error.object)[: error.start].count(b"\n")
            line += chunk.count(b"\n")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return line
    return None


def _header_of(path: Path, encoding: str) -> tuple[str, list[str]]:
    """Return the separator that gives the first row most columns, and their names; a tab for .tsv and .tab."""
    candidates = ["\t"] if path.suffix.lower() in _TAB_ENDINGS else [*_DELIMITERS]
    headers = {}
    for delimiter in candidates:
        with path.open(encoding=encoding, newline="") as file:
            try:
                row = next((row for row in csv.reader(file, delimiter=delimiter, strict=True) if any(row)), [])
            except csv.Error:
                row = []
        headers[delimiter] = [name.strip() for name in row]
    best = max(candidates, key=lambda delimiter: len(headers[delimiter]))
    return best, headers[best]


def _rows(table: Table, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows below the header with the line on which each begins; rows without any text are passed over."""
    is_header = True
    with table.path.open(encoding=table.encoding, newline="") as file:
        reader = csv.reader(file, delimiter=table.delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                problems.add("table_quote", table.path.name, line, found=str(error))
                continue
            if not any(cell.strip() for cell in row):
                continue
            if not is_header:
                yield line, row
            is_header = False


def _record_of(table: Table, line: int, row: list[str], problems: Problems) -> JsonObject | None:
    width = len(table.header)
    while len(row) > width and not row[-1]:
        row.pop()
    if len(row) != width:
        found = Sentence("table.cells", {"count": str(len(row))})
        problems.add("table_cells", table.path.name, line, found=found, count=width)
        return None
    cells: JsonObject = {name: cell for name, cell in zip(table.header, row, strict=True) if name in table.mapping}
    record = rename_keys(cells, table.mapping)
    wrong = {key: "empty_text" for key in table.required if not str(record[key]).strip()}
    wrong |= {key: "nul" for key, text in record.items() if "\0" in str(text)}
    for key, code in wrong.items():
        column = next(place for place, name in enumerate(table.header) if table.mapping.get(name) == key)
        values = {"number": str(column + 1), "name": table.header[column]}
        field = say(Sentence("table.column", values), problems.language)
        problems.add(code, table.path.name, line, field=field)
    return None if wrong else {key: record[key] for key in _TARGETS if record.get(key)}


def _read_mapping(text: str) -> dict[str, str]:
    """Return `question=prompt,answer=completion` as a mapping; a column may hold `=`, the key is behind the last."""
    mapping = {}
    for part in text.split(","):
        column, separator, target = part.rpartition("=")
        if not separator or not column.strip() or target.strip() not in _TARGETS:
            raise argparse.ArgumentTypeError(f"{part!r}: expected COLUMN=KEY, the key one of {', '.join(_TARGETS)}")
        mapping[column.strip()] = target.strip()
    return mapping


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m customization.tabular", description="Make train.jsonl from a table in CSV or TSV."
    )
    parser.add_argument("file", type=Path, help="a table with a header row, in UTF-8 or CP932")
    parser.add_argument(
        "--mapping", type=_read_mapping, default={}, help="columns to keys, such as question=prompt,answer=completion"
    )
    parser.add_argument("--out", type=Path, default=Path("train.jsonl"), help="what to write (train.jsonl)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    parser.add_argument("--language", choices=LANGUAGES, default="en", help="of the messages (en)")
    return parser


def _told(table: Table, written: int, out: Path, language: Language) -> str:
    unused = [name for name in table.header if name not in table.mapping]
    sentences = [
        Sentence(
            "table.written",
            {
                "count": f"{written:,}",
                "out": str(out),
                "encoding": _ENCODINGS[table.encoding],
                "mapping": ", ".join(f"{name} → {target}" for name, target in table.mapping.items()),
            },
            {"delimiter": _DELIMITERS[table.delimiter]},
        )
    ]
    if unused:
        sentences.append(Sentence("table.unused", {"columns": ", ".join(unused)}))
    return "\n".join(say(sentence, language) for sentence in sentences)


def _write(source: Path, mapping: dict[str, str], out: Path, problems: Problems) -> str:
    """Write the records and return what was done; leaves nothing behind, and nothing changed, after a problem."""
    table = open_table(source, mapping, problems)
    if table is None:
        return ""
    beginning = out.with_name(f"{out.name}.part")
    try:
        with beginning.open("wb") as file:
            written = convert_table(table, file, problems)
        if not problems.of("error"):
            beginning.replace(out)
            return _told(table, written, out, problems.language)
    finally:
        beginning.unlink(missing_ok=True)
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; wrong options end it with 2, as argparse does."""
    options = _parser().parse_args(arguments)
    out: Path = options.out
    if out.exists() and not options.overwrite:
        sys.stderr.write(say(Sentence("table.exists", {"out": str(out)}), options.language) + "\n")
        return WRONG_USE
    problems = Problems(options.language)
    csv.field_size_limit(MAX_LINE_BYTES)
    try:
        told = _write(options.file, options.mapping, out, problems)
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {os.strerror(error.errno or 0)}\n")
        return WRONG_USE
    found = problems.of("error")
    if not found:
        sys.stdout.write(told + "\n")
        return WRITTEN
    for problem in found:
        sys.stderr.write(problem.text() + "\n")
    total = sum({problem.code: problem.total for problem in found}.values())
    sys.stderr.write(say(Sentence("table.refused", {"count": f"{total:,}"}), options.language) + "\n")
    return MISTAKES


if __name__ == "__main__":
    sys.exit(main())
