"""Why a line of a data file is no JSON that can be used: what the fast parser does not tell, or lets pass."""

import json
import re
from collections.abc import Iterator

import msgspec

from customization.json_types import Json
from customization.problems import excerpt
from customization.texts import Sentence

# Python's names of the Japanese encodings, and those that people know
_ENCODINGS = (("cp932", "Shift_JIS (CP932)"), ("euc_jp", "EUC-JP"))
_KANA_AND_KANJI = re.compile("[\u3000-\u30ff\u4e00-\u9fff\uff00-\uff60]")
_POSITION = re.compile(r"\(byte (\d+)\)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_KEY = re.compile(rb'(?<!\\)"\s*:')
_ESCAPED_NUL = b"\\u0000"
# What the parser says, and the code of our words for it
_REASONS = (
    ("truncated", "json.truncated"),
    ("trailing comma", "json.trailingComma"),
    ("trailing characters", "json.trailing"),
    ("object keys", "json.quotes"),
    ("expected ','", "json.comma"),
    ("expected ':'", "json.colon"),
    ("escape", "json.escape"),
    ("number", "json.number"),
    ("out of range", "json.number"),
)
_LITERALS = (b"True", b"False", b"None")


class _RepeatedKeyError(Exception):
    """An object has the key twice."""


class Malformation(msgspec.Struct, frozen=True):
    """The code of the problem, with what was found and the values of its wording."""

    code: str
    field: str = ""
    found: str | Sentence = ""
    values: dict[str, Sentence] = {}


def explain_error(line: bytes, error: Exception) -> Malformation:
    """Return why the parser refused the line; what is wrong with its characters is told before its JSON."""
    if isinstance(error, RecursionError):
        return Malformation("deep_nesting")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return Malformation("not_utf8", found=_encoding(line))
    place = _place(line, str(error))
    found = excerpt(line[max(0, place - 20) : place + 20].decode("utf-8", "replace").strip())
    if "\0" in text:
        return Malformation("nul")
    constants: list[str] = []
    try:
        value = json.loads(text, parse_constant=constants.append)
    except RecursionError:
        return Malformation("deep_nesting")
    except ValueError:
        reason = "json.constant" if constants else _reason(line, place, str(error))
    else:
        if any(_SURROGATE.search(part) for part in _texts(value)):
            return Malformation("lone_surrogate")
        reason = "json.constant" if constants else "json.number"
    return Malformation("invalid_json", found=found, values={"reason": Sentence(reason)})


def find_fault(line: bytes, value: Json) -> Malformation | None:
    """Return what is wrong with a line that the parser took: a key that an object has twice, or the character NUL."""
    if _ESCAPED_NUL in line and any("\0" in text for text in _texts(value)):
        return Malformation("nul")
    if len(_KEY.findall(line)) == sum(len(part) for part in _parts(value) if isinstance(part, dict)):
        return None
    try:
        json.loads(line, object_pairs_hook=_refuse_repeated)
    except _RepeatedKeyError as error:
        return Malformation("duplicate_key", field=excerpt(str(error))[1:-1])
    except (ValueError, RecursionError):
        return None  # the one parser took what the other does not: nothing that has to do with keys
    return None


def _refuse_repeated(pairs: list[tuple[str, Json]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise _RepeatedKeyError(key)
        seen.add(key)


def _parts(value: Json) -> Iterator[Json]:
    """Yield the value and all within it; without recursion, which deep values would exhaust."""
    rest = [value]
    while rest:
        part = rest.pop()
        yield part
        if isinstance(part, dict):
            rest.extend(part.values())
        elif isinstance(part, list):
            rest.extend(part)


def _texts(value: Json) -> Iterator[str]:
    """Yield every string within the value, keys too."""
    for part in _parts(value):
        if isinstance(part, dict):
            yield from part
        elif isinstance(part, str):
            yield part


def _encoding(line: bytes) -> str | Sentence:
    """Name the Japanese encoding that the line is in; both where both read it alike well, none where none does."""
    likeness: dict[str, int] = {}
    for encoding, name in _ENCODINGS:
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError:
            continue
        likeness[name] = len(_KANA_AND_KANJI.findall(text)) - sum("\uff61" <= letter <= "\uff9f" for letter in text)
    best = [name for name, count in likeness.items() if count > 0 and count == max(likeness.values())]
    return Sentence("found.encoding", {"name": " / ".join(best)}) if best else ""


def _place(line: bytes, error: str) -> int:
    """Return the place in the line that the parser names, or its end."""
    position = _POSITION.search(error)
    return int(position[1]) if position else len(line)


def _reason(line: bytes, place: int, error: str) -> str:
    rest = line[place:]
    if "invalid character" in error:
        if rest[:1] == b"'":
            return "json.quotes"
        if rest.startswith(_LITERALS):
            return "json.python"
        if rest[:1] < b" ":
            return "json.control"
    return next((code for said, code in _REASONS if said in error), "json.character")
