"""Whether a base model takes a record: roles, empty texts, reserved words, what conversion would lose, and length."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from customization.catalogue import FINE_TUNING, BaseModel, Limits
from customization.formats import ASSISTANT, OPENAI_CHAT, PROMPT_COMPLETION, Example, RawText, Record, roles_alternate
from customization.problems import Problems, excerpt
from customization.profile import Size, estimate_tokens, most_tokens

_NO_LIMITS = Limits()


class Demands(msgspec.Struct, frozen=True):
    """What one file's records must be; `limits` is empty for a test file, which Bedrock never trains on."""

    model: str
    labelled: bool
    single_turn: bool
    limits: Limits
    record_tokens: int | None


def training_demands(model: BaseModel, customization_type: str, batch_size: int | None) -> Demands:
    """Return what training and validation records must be for that kind of customization."""
    limits = model.limits[customization_type]
    return Demands(
        model.name,
        labelled=customization_type == FINE_TUNING,
        single_turn=model.training_format[customization_type] == PROMPT_COMPLETION,
        limits=limits,
        record_tokens=limits.tokens_per_record(batch_size),
    )


def asking_demands(model: BaseModel) -> Demands:
    """Return what the records of a given test file must be: askable, without the limits of training."""
    return Demands(
        model.name, labelled=True, single_turn=model.ask_by != "converse", limits=_NO_LIMITS, record_tokens=None
    )


class _ReservedWord(NamedTuple):
    word: str
    is_exact: bool


class _ReservedWords:
    """Finds reserved words, also in another case: Bedrock documents one spelling, AWS's own validators differ."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = tuple(words)
        self._lowered = tuple(word.lower() for word in words)
        self._ends: dict[str, set[str]] = {}
        for word in words:
            self._ends.setdefault(word[-1], set()).update((word[-2].lower(), word[-2].upper()))
        self._longest = max(map(len, words), default=0)

    def find(self, text: str) -> _ReservedWord | None:
        """Return a reserved word that is in the text, rather one that is spelt as documented."""
        variant = None
        for end, before in self._ends.items():  # looking before each ":" is much faster than looking for each word
            position = text.find(end, 1)
            while position > 0:
                if text[position - 1] in before:
                    start = text[max(0, position + 1 - self._longest) : position + 1]
                    if start.endswith(self._words):
                        return _ReservedWord(self._named(start), is_exact=True)
                    if start.lower().endswith(self._lowered):
                        variant = variant or _ReservedWord(self._named(start), is_exact=False)
                position = text.find(end, position + 1)
        return variant

    def _named(self, start: str) -> str:
        return next(word for word in self._words if start.lower().endswith(word.lower()))


class RecordChecks:
    """Checks the records of one file; what is wrong goes to `problems` with its line and field."""

    def __init__(self, file: str, demands: Demands, problems: Problems) -> None:
        self.file = file
        self._demands = demands
        self._problems = problems
        self._reserved = _ReservedWords(demands.limits.reserved_words)
        limits = (demands.record_tokens, demands.limits.max_prompt_tokens, demands.limits.max_completion_tokens)
        self._least_limit = min((limit for limit in limits if limit is not None), default=None)

    def check(self, line: int, record: Record, size: Size, record_format: str | None) -> None:
        """Add a problem for everything that is wrong with the record."""
        if isinstance(record, RawText):
            self._check_raw(line, record)
        else:
            self._check_example(line, record, record_format)
        if self._least_limit is not None and most_tokens(size.utf8_bytes) > self._least_limit:
            self._check_length(line, record, size)

    def _check_raw(self, line: int, record: RawText) -> None:
        if self._demands.labelled:
            self._problems.add("unlabelled", self.file, line, field="input")
        if not record.text or record.text.isspace():
            self._problems.add("empty_text", self.file, line, field="input", found=excerpt(record.text))

    def _check_example(self, line: int, example: Example, record_format: str | None) -> None:
        turns = example.turns
        if not self._demands.labelled:
            self._problems.add("labelled_text", self.file, line)
        if not roles_alternate(turns):
            roles = ", ".join(turn.role for turn in turns[:8]) or "no message"
            self._problems.add("role_order", self.file, line, field="messages", found=excerpt(roles)[1:-1])
        elif self._demands.single_turn and len(turns) > 2:  # noqa: PLR2004 - a prompt and its completion
            found = f"{len(turns)} turns"
            self._problems.add("multi_turn", self.file, line, field="messages", found=found, model=self._demands.model)
        for index, turn in enumerate(turns):
            if not turn.text or turn.text.isspace():
                field = _field(index, example, record_format)
                self._problems.add("empty_text", self.file, line, field=field, found=excerpt(turn.text))
        if example.system.isspace():
            self._problems.add("empty_text", self.file, line, field="system", found=excerpt(example.system))
        if self._demands.limits.reserved_words:
            self._check_words(line, example, record_format)

    def _check_words(self, line: int, example: Example, record_format: str | None) -> None:
        if example.system:
            found = self._reserved.find(example.system)
            if found:
                self._add_word(line, "system", found, is_answer=False)
        for index, turn in enumerate(example.turns):
            found = self._reserved.find(turn.text)
            if found:
                self._add_word(line, _field(index, example, record_format), found, is_answer=turn.role == ASSISTANT)

    def _add_word(self, line: int, field: str, found: _ReservedWord, *, is_answer: bool) -> None:
        spelling = "reserved_word" if found.is_exact else "reserved_word_spelling"
        code = "reserved_word_in_answer" if is_answer else spelling
        self._problems.add(code, self.file, line, field=field, word=found.word, model=self._demands.model)

    def _check_length(self, line: int, record: Record, size: Size) -> None:
        limits = self._demands.limits
        self._check_tokens(line, "", size.characters, size.utf8_bytes, self._demands.record_tokens)
        if isinstance(record, Example):
            prompt_characters = size.characters - size.completion_characters
            prompt_bytes = size.utf8_bytes - size.completion_bytes
            self._check_tokens(line, "prompt", prompt_characters, prompt_bytes, limits.max_prompt_tokens)
            self._check_tokens(
                line, "completion", size.completion_characters, size.completion_bytes, limits.max_completion_tokens
            )

    def _check_tokens(self, line: int, field: str, characters: int, utf8_bytes: int, limit: int | None) -> None:
        """Refuse what is too long even by the low estimate; warn of what probably is."""
        if limit is None:
            return
        tokens = estimate_tokens(characters, utf8_bytes, self._demands.limits.characters_per_token)
        if max(tokens.low, tokens.likely) <= limit:
            return
        code, about = ("record_too_long", tokens.low) if tokens.low > limit else ("maybe_too_long", tokens.likely)
        found = f"{characters:,} characters"
        values = {"tokens": f"{about:,}", "limit": f"{limit:,}", "model": self._demands.model}
        self._problems.add(code, self.file, line, field=field, found=found, **values)


def _field(index: int, example: Example, record_format: str | None) -> str:
    if record_format == PROMPT_COMPLETION:
        return ("prompt", "completion")[index]
    offset = 1 if record_format == OPENAI_CHAT and example.system else 0
    return f"messages[{index + offset}].content"


class Amount(NamedTuple):
    """How many records of a file are used, for training or for validation."""

    file: str
    records: int


def check_amounts(model: str, limits: Limits, training: Amount, validation: Amount, problems: Problems) -> None:
    """Add a problem for each count outside the model's bounds; a validation split names the training file as its."""
    total = training.records + validation.records
    total_most = limits.max_total_records
    bounds = [
        (training, "training", limits.min_training_records or 1, limits.max_training_records),
        (validation, "validation", limits.min_validation_records, limits.max_validation_records),
        (Amount(training.file, total), "training and validation", limits.min_total_records, total_most),
    ]
    if validation.file == training.file:
        del bounds[1]  # the split keeps to its bounds by how it is made
    room = min(limits.max_training_records or total, (total_most or total) - validation.records)
    for amount, use, least, most in bounds:
        found = f"{amount.records:,} {use} records"
        if least is not None and amount.records < least:
            problems.add("too_few_records", amount.file, found=found, model=model, limit=f"{least:,}")
        if most is not None and amount.records > most:
            fix = f'or run with "subset": {{"records": {room}}}' if amount.file == training.file and room > 0 else ""
            problems.add("too_many_records", amount.file, found=found, model=model, limit=f"{most:,}", subset=fix)
