"""What is wrong with the data files, doubtful or mended: each kind has a code, its wording lives in data."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Literal, NamedTuple, get_args

import msgspec

from customization import errors
from customization.texts import Language, Sentence, say, wording

Severity = Literal["error", "warning", "note"]

SHOWN_PER_KIND = 20
# Step Functions takes 32,768 characters of cause, where Lambda writes three bytes of Japanese as six characters; people
# read far less with comfort.
MESSAGE_BYTES = 8_000
EXCERPT_CHARACTERS = 60

_PERSONAL = re.compile(r"[^\s@\"'<>()]+@[^\s@\"'<>()]*|\+?\d(?:[ ().-]{0,2}\d){7,}")
_LABELS = {"error": "", "warning": "problem.warning", "note": "problem.note"}


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is wrong, what is allowed and what to do, in one language; places ($name) are filled by `Problems.add`."""

    what: str
    allowed: str = ""
    fix: str = ""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of problem in every language."""

    severity: Severity
    en: Words
    ja: Words

    def words(self, language: Language) -> Words:
        return self.ja if language == "ja" else self.en


@lru_cache(maxsize=1)
def load_rules() -> dict[str, Rule]:
    """Return code → rule, from data/problems.json; the file is read once a process."""
    return msgspec.json.decode((Path(__file__).parent / "data" / "problems.json").read_bytes(), type=dict[str, Rule])


class Problem(msgspec.Struct, frozen=True, rename="camel"):
    """One problem, worded in `language`; JSON has `what` as message.

    `line` counts from 1 by LF with blank lines, as editors do. `total`: how many of the kind the file has.
    """

    severity: Severity
    code: str
    file: str
    what: str = msgspec.field(name="message")
    line: int | None = None
    field: str = ""
    found: str = ""
    allowed: str = ""
    fix: str = ""
    total: int = 1
    language: Language = "en"

    def text(self, *lines: int) -> str:
        """Return the problem as a sentence: where, what, what is allowed and what to do; `lines` it is met in too."""
        numbers = [] if self.line is None else [self.line, *lines]
        place = self._part("problem.lines" if len(numbers) > 1 else "problem.line", _ranges(numbers))
        values = {"file": self.file, "place": place, "field": self._part("problem.field", self.field)}
        return say(Sentence("problem.sentence", {**values, "told": self.told()}), self.language)

    def told(self) -> str:
        """Return the problem as a sentence without the place where it is."""
        values = {
            "what": self.what,
            "found": self._part("problem.found", self.found),
            "allowed": self._part("problem.allowed", self.allowed),
            "fix": self._part("problem.fix", self.fix),
        }
        return say(Sentence("problem.told", values), self.language)

    def _part(self, code: str, value: str) -> str:
        return say(Sentence(code, {"value": value}), self.language) if value else ""


class InvalidDataset(errors.InvalidDataset):
    """The data files break a rule; `problems` has every kind with at most 20 examples and the total of each.

    The message has no notes. With `address`, where all of them are found, it ends with that and quotes nothing: what a
    function raises is in its log, and no log shall have data.
    """

    def __init__(self, problems: Sequence[Problem], language: Language = "en", address: str = "") -> None:
        listed = [problem for problem in problems if problem.severity != "note"]
        message = describe([_unquoted(problem) for problem in listed] if address else listed, language)
        end = f"\n{say(Sentence('problem.address', {'address': address}), language)}" if address else ""
        super().__init__(message + end)
        self.problems = list(problems)


def _unquoted(problem: Problem) -> Problem:
    """Return the problem without what was found where that quotes the data, as `excerpt` does."""
    return msgspec.structs.replace(problem, found="") if problem.found.startswith(("'", '"')) else problem


class Problems:
    """Collects problems in one language, of each kind and file the first 20 (of notes the first) and the total."""

    def __init__(self, language: Language = "en") -> None:
        self.language = language
        self._kinds: dict[tuple[str, str], list[Problem]] = {}
        self._totals: dict[tuple[str, str], int] = {}

    def add(
        self,
        code: str,
        file: str,
        line: int | None = None,
        *,
        field: str = "",
        found: str | Sentence = "",
        **values: str | int | Sentence,
    ) -> None:
        """Add a problem of the kind `code`, whose places are filled with `values`.

        Sentences are put into the language. Raises KeyError for a code without a rule or a place without a value.
        """
        kind = (code, file)
        self._totals[kind] = self._totals.get(kind, 0) + 1
        rule = load_rules()[code]
        examples = self._kinds.setdefault(kind, [])
        if len(examples) >= (1 if rule.severity == "note" else SHOWN_PER_KIND):
            return
        words = rule.words(self.language)
        said = {name: self._said(value) for name, value in values.items()}
        what, allowed, fix = (Template(text).substitute(said) for text in (words.what, words.allowed, words.fix))
        place = (line, field, self._said(found))
        examples.append(
            Problem(rule.severity, code, file, what, *place, allowed=allowed, fix=fix, language=self.language)
        )

    def _said(self, value: str | int | Sentence) -> str:
        return say(value, self.language) if isinstance(value, Sentence) else str(value)

    def of(self, *severities: Severity) -> list[Problem]:
        """Return the problems of these severities with their totals: by file, kinds in the order of their lines."""
        files = {file: order for order, file in enumerate(dict.fromkeys(file for _, file in self._kinds))}
        kinds = sorted(self._kinds.items(), key=lambda kind: (files[kind[0][1]], kind[1][0].line or 0))
        return [
            msgspec.structs.replace(problem, total=self._totals[kind])
            for kind, examples in kinds
            for problem in examples
            if problem.severity in severities
        ]

    def raise_errors(self) -> None:
        """Raise InvalidDataset when there is an error; warnings are listed after the errors."""
        found = self.of("error")
        if found:
            raise InvalidDataset([*found, *self.of("warning"), *self.of("note")], self.language)


Verdict = Literal["accept", "warn", "reject"]


class Findings(msgspec.Struct, frozen=True):
    """What is known of the problems of some files, as JSON has it; `counts` by severity are those of all problems."""

    verdict: Verdict
    problems: tuple[Problem, ...]
    counts: dict[str, int]

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> "Findings":
        listed = tuple(problems)
        counts: dict[str, int] = dict.fromkeys(get_args(Severity), 0)
        for problem in {(problem.code, problem.file): problem for problem in listed}.values():
            counts[problem.severity] += problem.total
        verdict: Verdict = "reject" if counts["error"] else "warn" if counts["warning"] else "accept"
        return cls(verdict, listed, counts)


def excerpt(value: str) -> str:
    """Return a short quotation of `value`: at most 60 characters, control characters escaped, personal data hidden.

    Hidden are e-mail addresses and numbers of eight digits or more, as telephones, cards and people have.
    """
    shown = _PERSONAL.sub("…", value[: 4 * EXCERPT_CHARACTERS])
    quoted = repr(shown)
    if len(value) <= 4 * EXCERPT_CHARACTERS and len(quoted) <= EXCERPT_CHARACTERS:
        return quoted
    kept = min(len(shown), EXCERPT_CHARACTERS - 3)
    while len(quoted := repr(shown[:kept] + "…")) > EXCERPT_CHARACTERS:
        kept -= max(1, (len(quoted) - EXCERPT_CHARACTERS) // 10)
    return quoted


def _ranges(numbers: Sequence[int]) -> str:
    """Return `7` or `1-20, 23` for ascending numbers."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return ", ".join("-".join(map(str, bounds)) for bounds in ranges)


class Group(NamedTuple):
    """Problems that differ in nothing but their line."""

    problem: Problem
    lines: list[int]

    @property
    def place(self) -> str:
        """The lines, such as `1-20, 23`; empty for a problem of the whole file."""
        return _ranges(self.lines)

    def text(self) -> str:
        label = _LABELS[self.problem.severity]
        return f"- {label and wording(label, self.problem.language)}{self.problem.text(*self.lines[1:])}"


def group(problems: Iterable[Problem]) -> dict[tuple[str, str], list[Group]]:
    """Return (code, file) → its problems, those alike together, in the order in which they were met."""
    kinds: dict[tuple[str, str], dict[Problem, Group]] = {}
    for problem in problems:
        alike = kinds.setdefault((problem.code, problem.file), {})
        lines = alike.setdefault(msgspec.structs.replace(problem, line=None), Group(problem, [])).lines
        lines += [] if problem.line is None else [problem.line]
    return {kind: list(alike.values()) for kind, alike in kinds.items()}


def hidden(groups: Sequence[Group]) -> int:
    """Return how many problems of one kind are not among the groups."""
    return groups[0].problem.total - sum(max(1, len(group.lines)) for group in groups)


def describe(problems: Sequence[Problem], language: Language = "en") -> str:
    """Return the problems as text of at most 8,000 bytes: equal ones in one line, something of every kind first."""
    kinds = group(problems)
    found = Findings.of(problems).counts["error"]
    heading = say(Sentence("problem.oneError" if found == 1 else "problem.errors", {"count": f"{found:,}"}), language)
    sentences = {kind: [alike.text() for alike in groups] for kind, groups in kinds.items()}
    fitting = _fitting(list(sentences.values()), MESSAGE_BYTES - len(heading.encode()) - 400)
    lines = [heading]
    for (kind, groups), count in zip(kinds.items(), fitting, strict=True):
        lines += sentences[kind][:count]
        more = hidden(groups[:count]) if count else groups[0].problem.total
        if more:
            lines.append(say(Sentence("problem.more", {"count": f"{more:,}", "file": kind[1]}), language))
    return "\n".join(lines)


def _fitting(sentences: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return how many sentences of each kind fit when the first of each kind comes first, then the second ones."""
    counts = [0] * len(sentences)
    for turn in range(SHOWN_PER_KIND):
        for kind, of_kind in enumerate(sentences):
            if counts[kind] == turn < len(of_kind):
                room -= len(of_kind[turn].encode()) + 60
                if room < 0:
                    return counts
                counts[kind] += 1
    return counts
