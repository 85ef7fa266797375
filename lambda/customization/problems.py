"""What is wrong with the data files, doubtful or mended: each kind has a code and one wording."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from customization import errors

Severity = Literal["error", "warning", "note"]

SHOWN_PER_KIND = 20
MESSAGE_BYTES = 8_000  # Step Functions takes 32,768 characters of cause, an e-mail reader far fewer with comfort
EXCERPT_CHARACTERS = 60


class Rule(msgspec.Struct, frozen=True):
    """The wording of one kind of problem; places in braces are filled when a problem is added."""

    severity: Severity
    what: str
    allowed: str = ""
    fix: str = ""


class Problem(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One problem. `line` counts from 1 with blank lines, as editors do; `total`: how many of the kind the file has."""

    severity: Severity
    code: str
    file: str
    what: str
    line: int | None = None
    field: str = ""
    found: str = ""
    allowed: str = ""
    fix: str = ""
    total: int = 1

    def text(self, *lines: int) -> str:
        """Return the problem as a sentence: where, what, what is allowed and what to do; `lines` it is met in too."""
        place = f" {_ranges([self.line, *lines])}" if self.line is not None else ""
        field = f", {self.field}" if self.field else ""
        found = f" (found {self.found})" if self.found else ""
        allowed = f" Allowed: {self.allowed}." if self.allowed else ""
        fix = f" {self.fix}." if self.fix else ""
        return f"{self.file}{place}{field}: {self.what}{found}.{allowed}{fix}"


class InvalidDataset(errors.InvalidDataset):
    """The data files break a rule; `problems` has every kind with at most 20 examples and the total of each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(describe(problems))
        self.problems = list(problems)


class Problems:
    """Collects problems, of each kind and file the first 20 (of notes the first) and the total."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], list[Problem]] = {}
        self._totals: dict[tuple[str, str], int] = {}

    def add(
        self, code: str, file: str, line: int | None = None, *, field: str = "", found: str = "", **values: str | int
    ) -> None:
        """Add a problem of the kind `code`; raises KeyError for a code without a rule or a place without a value."""
        kind = (code, file)
        self._totals[kind] = self._totals.get(kind, 0) + 1
        rule = RULES[code]
        examples = self._kinds.setdefault(kind, [])
        if len(examples) >= (1 if rule.severity == "note" else SHOWN_PER_KIND):
            return
        what, allowed, fix = (text.format(**values) for text in (rule.what, rule.allowed, rule.fix))
        examples.append(Problem(rule.severity, code, file, what, line, field, found, allowed, fix))

    def of(self, *severities: Severity) -> list[Problem]:
        """Return the problems of these severities in the order in which their kinds were met, with their totals."""
        return [
            msgspec.structs.replace(problem, total=self._totals[kind])
            for kind, examples in self._kinds.items()
            for problem in examples
            if problem.severity in severities
        ]

    def raise_errors(self) -> None:
        """Raise InvalidDataset when there is an error; warnings are listed after the errors."""
        found = self.of("error")
        if found:
            raise InvalidDataset([*found, *self.of("warning")])


def excerpt(value: str) -> str:
    """Return a short quotation of `value`: control characters escaped, cut at 60 characters."""
    cut = value if len(value) <= EXCERPT_CHARACTERS else value[: EXCERPT_CHARACTERS - 1] + "…"
    return repr(cut)


def _ranges(numbers: Sequence[int]) -> str:
    """Return `line 7` or `lines 1-20, 23` for ascending numbers."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return f"line{'s' * (len(numbers) > 1)} {', '.join('-'.join(map(str, bounds)) for bounds in ranges)}"


def describe(problems: Sequence[Problem]) -> str:
    """Return the problems as text of at most 8,000 bytes: equal ones in one line, something of every kind first."""
    kinds: dict[tuple[str, str], dict[Problem, list[Problem]]] = {}
    for problem in problems:
        alike = kinds.setdefault((problem.code, problem.file), {})
        alike.setdefault(msgspec.structs.replace(problem, line=None), []).append(problem)
    found = sum(next(iter(alike)).total for alike in kinds.values() if next(iter(alike)).severity == "error")
    heading = f"The data files have {found:,} error{'s' * (found != 1)}; nothing was started."
    sentences = {kind: [_sentence(group) for group in alike.values()] for kind, alike in kinds.items()}
    fitting = _fitting(list(sentences.values()), MESSAGE_BYTES - len(heading.encode()) - 200)
    lines = [heading]
    for (kind, alike), count in zip(kinds.items(), fitting, strict=True):
        lines += sentences[kind][:count]
        shown = sum(len(group) for group in list(alike.values())[:count])
        hidden = next(iter(alike)).total - shown
        if hidden:
            lines.append(f"  … and {hidden:,} more like {'this' if shown == 1 else 'these'} in {kind[1]}.")
    return "\n".join(lines)


def _sentence(group: Sequence[Problem]) -> str:
    lines = [problem.line for problem in group[1:] if problem.line is not None]
    severity = "" if group[0].severity == "error" else f"{group[0].severity}: "
    return f"- {severity}{group[0].text(*lines)}"


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


RULES: dict[str, Rule] = {
    # The file as a whole
    "missing_file": Rule("error", "the file is missing", "a file in JSON Lines", "Upload {name}"),
    "empty_file": Rule(
        "error", "the file holds no record", "one JSON object a line", "Upload the file with its records"
    ),
    "compressed": Rule(
        "error", "the file is compressed", "JSON Lines as plain text", "Decompress it and upload it again"
    ),
    "utf16": Rule("error", "the file is UTF-16 or UTF-32", "UTF-8", "Save it as UTF-8"),
    "json_array": Rule(
        "error",
        "the file is one JSON array",
        "one JSON object a line",
        "Write each element on a line: jq -c '.[]' FILE",
    ),
    "pretty_printed": Rule(
        "error", "a record spreads over several lines", "one JSON object a line", "Write one a line: jq -c . FILE"
    ),
    "cr_line_ends": Rule(
        "error", "the lines end with CR alone", "LF or CR LF", "Convert the line ends: tr '\\r' '\\n' < FILE"
    ),
    "file_too_large": Rule(
        "error", "the file is too large for {model}", "at most {limit} bytes", "Shorten it or run with a subset"
    ),
    # A line
    "not_utf8": Rule("error", "the bytes are not UTF-8", "UTF-8", "Save the file as UTF-8"),
    "long_line": Rule(
        "error", "the line is too long for a record", "at most {limit} bytes", "Split the text into records"
    ),
    "invalid_json": Rule("error", "the line is not JSON: {reason}", "one JSON object", "Mend the line"),
    "deep_nesting": Rule("error", "the values are nested too deeply", "one JSON object", "Mend the line"),
    "not_object": Rule("error", "the line is not a JSON object", "one JSON object", "Wrap the values in an object"),
    "unknown_format": Rule(
        "error",
        "the keys are of no known format",
        "prompt and completion; messages; input",
        "Rename the keys, or name them in the run request{suggestion}",
    ),
    "mixed_formats": Rule(
        "error", "the record is {other}", "{format}, as the records before it", "Use one format in a file"
    ),
    # A field
    "missing_field": Rule("error", "the field is missing", "{allowed}", "Add it or remove the record"),
    "wrong_type": Rule("error", "the value has the wrong type", "{allowed}", "Mend the value"),
    "empty_text": Rule("error", "the text is empty or only white space", "a text", "Fill it in or remove the record"),
    "role_order": Rule(
        "error",
        "the roles are out of order",
        "user and assistant by turns, first user, last assistant, a system prompt only before them",
        "Reorder, join or remove messages",
    ),
    "tools": Rule("error", "tools would be lost", "text only", "Remove the record, or write calls and results as text"),
    "media": Rule("error", "images, video and documents would be lost", "text only", "Remove the record"),
    "reasoning": Rule("error", "the reasoning would be lost", "text only", "Remove the reasoning or the record"),
    "weight": Rule(
        "error", "the weight 0 would be lost: Bedrock trains on every answer", "1", "Remove the message or the record"
    ),
    "reserved_word": Rule(
        "error", "{model} reserves the word {word}", "prompts and system prompts without it", "Replace the word"
    ),
    # Conversion to what the base model takes
    "multi_turn": Rule(
        "error",
        "{model} takes one prompt and one completion, the turns would be lost",
        "one user message and one assistant message",
        "Split the conversation, or choose a base model that takes messages",
    ),
    "unlabelled": Rule(
        "error",
        "raw text has no completion to learn or to compare with",
        "prompt and completion, or messages",
        "Name the file pretrain.jsonl for continued pre-training",
    ),
    "labelled_text": Rule(
        "error",
        "continued pre-training takes raw text, what is prompt and what is completion would be lost",
        '{{"input": …}}',
        "Name the file train.jsonl for fine-tuning, or write the text as input",
    ),
    # Amounts
    "record_too_long": Rule(
        "error",
        "about {tokens} tokens are too many for {model}",
        "at most {limit} tokens",
        "Shorten or split the record",
    ),
    "too_few_records": Rule(
        "error",
        "{model} needs more records",
        "at least {limit}",
        "Add records, or choose a base model that takes fewer",
    ),
    "too_many_records": Rule(
        "error",
        "{model} takes fewer records",
        "at most {limit}",
        "Remove records {subset}",
    ),
    # Doubtful
    "extra_field": Rule("warning", "the field is not used", "", "Map it with fieldMapping if the model should see it"),
    "reserved_word_in_answer": Rule(
        "warning", "an answer holds the reserved word {word}", "", "Replace it if {model} refuses the file"
    ),
    "reserved_word_spelling": Rule(
        "warning",
        "a prompt holds the reserved word {word} in another case",
        "",
        "Replace it if {model} refuses the file",
    ),
    "maybe_too_long": Rule(
        "warning", "about {tokens} tokens may be too many for {model}", "at most {limit} tokens", "Shorten the record"
    ),
    "duplicates": Rule("warning", "records repeat an earlier one", "", "Remove them unless the weight is intended"),
    "few_records": Rule(
        "warning", "few records to learn from", "1,000 and more are recommended", "Expect a small effect"
    ),
    "few_tokens": Rule(
        "warning", "little text to learn from", "100,000 tokens and more are recommended", "Expect a small effect"
    ),
    "one_completion": Rule(
        "warning", "one completion makes up {share} % of the training records", "", "Balance the completions"
    ),
    "few_test_records": Rule(
        "warning", "fewer than 30 test records make the verdict inconclusive", "", "Upload test.jsonl or more records"
    ),
    "prompt_in_training": Rule(
        "warning",
        "test prompts occur in training with another completion",
        "",
        "Hold prompts out if the score should show what the model makes of unseen ones",
    ),
    "category_ignored": Rule("warning", "the category is not used", "a string", "Write it as a string"),
    "system_not_in_training": Rule(
        "warning",
        "inference.system asks with a system prompt that training does not show",
        "",
        "Write it into the records",
    ),
    # Mended or decided
    "byte_order_mark": Rule("note", "a byte order mark was removed"),
    "cr_lf": Rule("note", "CR LF line ends were replaced"),
    "blank_line": Rule("note", "blank lines were skipped"),
    "schema_version": Rule("note", "schemaVersion was set to bedrock-conversation-2024"),
    "joined_blocks": Rule("note", "several text blocks of one message were joined by a line break"),
    "joined_system": Rule(
        "note", "system prompts were put before the prompt, a blank line between, because {model} has no field for them"
    ),
    "leaked": Rule("note", "records were dropped because a held-out file has them too"),
    "subset": Rule("note", "training records were left out by the subset"),
    "repeated": Rule("note", "repeated test records are asked once"),
    "unasked": Rule("note", "held-out records are not asked because of evaluation.maxRecords"),
    "no_split": Rule("note", "too few records to hold any out for {split}"),
    "no_validation": Rule("note", "{model} takes no validation data, so the file was not used"),
}
