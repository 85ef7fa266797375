"""Whether a base model takes a record: roles, empty texts, reserved words, what conversion would lose, and length."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, compress, product
from typing import NamedTuple

import msgspec

from customization.catalogue import FINE_TUNING, BaseModel, Limits
from customization.columns import Columns
from customization.formats import ASSISTANT, OPENAI_CHAT, PROMPT_COMPLETION, Example, RawText, Record, roles_alternate
from customization.personal import kinds_in, may_have_numbers
from customization.problems import Problems, excerpt
from customization.profile import estimate_tokens, most_tokens, size_of
from customization.role_cues import without_role_cues
from customization.texts import Sentence

_NO_LIMITS = Limits()
# What models write, or were trained with, where a text ends: in a completion it is learnt as text
END_MARKERS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|im_end|>",
    "<|im_start|>",
    "<|end|>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
)
_END_MARKERS = tuple(marker.encode() for marker in END_MARKERS)


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

    def __init__(self, exact: Sequence[str], doubtful: Sequence[str] = ()) -> None:
        words = (*exact, *doubtful)
        self._exact = tuple(exact)
        self._words = words
        self._lowered = tuple(word.lower() for word in words)
        self._ends: dict[str, set[str]] = {}
        for word in words:
            self._ends.setdefault(word[-1], set()).update((word[-2].lower(), word[-2].upper()))
        self._longest = max(map(len, words), default=0)
        # Reserved words are of ASCII and have four letters and more: bytes are compared as well as characters
        self._quick_ends: dict[bytes, set[bytes]] = {}
        for word in self._lowered:
            cases = product(*((letter, letter.upper()) for letter in word[-4:-1]))
            self._quick_ends.setdefault(word[-1:].encode(), set()).update("".join(case).encode() for case in cases)
        self._quick_words = tuple(word.encode() for word in self._lowered)

    def find(self, text: str) -> _ReservedWord | None:
        """Return a reserved word that is in the text, rather one that is spelt as documented."""
        variant = None
        for end, before in self._ends.items():  # looking before each ":" is much faster than looking for each word
            position = text.find(end, 1)
            while position > 0:
                if text[position - 1] in before:
                    start = text[max(0, position + 1 - self._longest) : position + 1]
                    if self._exact and start.endswith(self._exact):
                        return _ReservedWord(self._named(start), is_exact=True)
                    if start.lower().endswith(self._lowered):
                        variant = variant or _ReservedWord(self._named(start), is_exact=False)
                position = text.find(end, position + 1)
        return variant

    def positions(self, texts: bytes) -> Iterator[int]:
        """Yield, fast, where in the UTF-8 text each reserved word ends, in whatever case."""
        for end, before in self._quick_ends.items():
            position = texts.find(end, 3)
            while position > 0:
                if texts[position - 3 : position] in before:
                    start = texts[max(0, position + 1 - self._longest) : position + 1].lower()
                    if start.endswith(self._quick_words):
                        yield position
                position = texts.find(end, position + 1)

    def _named(self, start: str) -> str:
        return next(word for word in self._words if start.lower().endswith(word.lower()))


class RecordChecks:
    """Checks the records of one file; what is wrong goes to `problems` with its line and field."""

    def __init__(self, file: str, demands: Demands, problems: Problems) -> None:
        self.file = file
        self._demands = demands
        self._problems = problems
        self._reserved = _ReservedWords(demands.limits.reserved_words, demands.limits.doubtful_words)
        limits = (demands.record_tokens, demands.limits.max_prompt_tokens, demands.limits.max_completion_tokens)
        self._least_limit = min((limit for limit in limits if limit is not None), default=None)

    def suspects(self, columns: Columns, with_numbers: Sequence[bool]) -> list[int]:
        """Return the places of all the records with which something may be wrong; `check` tells what.

        `with_numbers` tells of each record whether to look for telephone and other personal numbers in it.
        """
        contents, whole, demands = columns.contents, columns.whole, self._demands
        if not columns.is_plain or demands.labelled == columns.is_raw:
            return list(range(len(contents)))
        found = set(columns.blank)
        if demands.single_turn and columns.turns:
            found.update(index for index, turns in enumerate(columns.turns) if turns > 2)  # noqa: PLR2004 - one pair
        if demands.limits.reserved_words:
            positions = list(self._reserved.positions(whole))
            ends = list(accumulate(map(len, contents), lambda end, size: end + size + 1)) if positions else []
            found.update(bisect_left(ends, position) for position in positions)
        if b"@" in whole:
            found.update([index for index, content in enumerate(contents) if b"@" in content])
        if b"<" in whole:
            marked = [index for index, content in enumerate(contents) if b"<" in content]
            found.update(index for index in marked if any(marker in contents[index] for marker in _END_MARKERS))
        places = compress(range(len(contents)), with_numbers)
        found.update([index for index in places if may_have_numbers(contents[index])])
        most = self._least_limit
        if most is not None and most_tokens(max(map(len, contents), default=0)) > most:
            found.update([index for index, content in enumerate(contents) if most_tokens(len(content)) > most])
        return sorted(found)

    def check(self, line: int, record: Record, record_format: str | None, *, with_numbers: bool) -> None:
        """Add a problem for everything that is wrong with the record."""
        if isinstance(record, RawText):
            self._check_raw(line, record)
            texts: Iterable[tuple[str, str]] = [("input", record.text)]
        else:
            self._check_example(line, record, record_format)
            turns = [(_field(index, record, record_format), turn.text) for index, turn in enumerate(record.turns)]
            texts = [("system", record.system), *turns]
        for field, text in texts:
            for kind in kinds_in(text, numbers=with_numbers):
                self._problems.add(kind, self.file, line, field=field)
        if self._least_limit is not None:
            self._check_length(line, record)

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
            roles = excerpt(", ".join(turn.role for turn in turns[:8]))[1:-1] if turns else Sentence("found.noMessage")
            self._problems.add("role_order", self.file, line, field="messages", found=roles)
        elif self._demands.single_turn and len(turns) > 2:  # noqa: PLR2004 - a prompt and its completion
            found = Sentence("found.turns", {"count": str(len(turns))})
            self._problems.add("multi_turn", self.file, line, field="messages", found=found, model=self._demands.model)
        for index, turn in enumerate(turns):
            if not turn.text or turn.text.isspace():
                field = _field(index, example, record_format)
                self._problems.add("empty_text", self.file, line, field=field, found=excerpt(turn.text))
        if example.system.isspace():
            self._problems.add("empty_text", self.file, line, field="system", found=excerpt(example.system))
        if self._demands.limits.reserved_words:
            self._check_words(line, example, record_format)
        for index, turn in enumerate(turns):
            marker = (
                next((marker for marker in END_MARKERS if marker in turn.text), "") if turn.role == ASSISTANT else ""
            )
            if marker:
                self._problems.add(
                    "end_marker", self.file, line, field=_field(index, example, record_format), word=marker
                )

    def _check_words(self, line: int, example: Example, record_format: str | None) -> None:
        if example.system:
            found = self._reserved.find(example.system)
            if found:
                self._add_word(line, "system", found, is_answer=False)
        for index, turn in enumerate(example.turns):
            found = self._reserved.find(turn.text)
            if found:
                is_cue = found.is_exact and turn.role != ASSISTANT and self._is_mended_without_cues(example)
                field = _field(index, example, record_format)
                self._add_word(line, field, found, is_answer=turn.role == ASSISTANT, is_cue=is_cue)

    def _is_mended_without_cues(self, example: Example) -> bool:
        """Tell whether the prompts hold no reserved word once the role cues are taken off."""
        mended = without_role_cues(example)
        prompts = [mended.system, *(turn.text for turn in mended.turns if turn.role != ASSISTANT)]
        found = [self._reserved.find(prompt) for prompt in prompts]
        return mended is not example and not any(word and word.is_exact for word in found)

    def _add_word(self, line: int, field: str, found: _ReservedWord, *, is_answer: bool, is_cue: bool = False) -> None:
        spelling = "reserved_word" if found.is_exact else "reserved_word_spelling"
        code = "reserved_word_in_answer" if is_answer else "reserved_role_cue" if is_cue else spelling
        self._problems.add(code, self.file, line, field=field, word=found.word, model=self._demands.model)

    def _check_length(self, line: int, record: Record) -> None:
        limits, size = self._demands.limits, size_of(record)
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
        found = Sentence("found.characters", {"count": f"{characters:,}"})
        values = {"tokens": f"{about:,}", "limit": f"{limit:,}", "model": self._demands.model}
        self._problems.add(code, self.file, line, field=field, found=found, **values)


def _field(index: int, example: Example, record_format: str | None) -> str:
    if record_format == PROMPT_COMPLETION:
        return "completion" if index == len(example.turns) - 1 else "prompt"
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
        (training, "found.trainingRecords", limits.min_training_records or 1, limits.max_training_records),
        (validation, "found.validationRecords", limits.min_validation_records, limits.max_validation_records),
        (Amount(training.file, total), "found.allRecords", limits.min_total_records, total_most),
    ]
    if validation.file == training.file:
        del bounds[1]  # the split keeps to its bounds by how it is made
    room = min(limits.max_training_records or total, (total_most or total) - validation.records)
    for amount, use, least, most in bounds:
        found = Sentence(use, {"count": f"{amount.records:,}"})
        cut = room if amount.file == training.file else 0
        check_amount(model, amount, found, Bounds(least, most), problems, room=cut)


class Bounds(NamedTuple):
    """How many records are too few or too many; None where AWS publishes no limit."""

    least: int | None
    most: int | None


def check_amount(
    model: str, amount: Amount, found: Sentence, bounds: Bounds, problems: Problems, *, room: int = 0
) -> None:
    """Add a problem for a count outside its bounds; `room`: to how many records a subset could cut the file."""
    least, most = bounds
    if least is not None and amount.records < least:
        problems.add("too_few_records", amount.file, found=found, model=model, limit=f"{least:,}")
    if most is not None and amount.records > most:
        fix = Sentence("fix.subset", {"room": str(room)}) if room > 0 else ""
        problems.add("too_many_records", amount.file, found=found, model=model, limit=f"{most:,}", subset=fix)
