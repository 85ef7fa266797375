"""What the network computes on: records as arrays of tokens, and batches of them with their hashed n-grams."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rehearsal.bedrock.language_model.tokenizer import ANSWER, END, Tokenizer

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

# Contexts are the last 1, 2 and so on up to CONTEXT_ORDERS tokens; a prompt is a bag of n-grams of up to PROMPT_ORDERS.
CONTEXT_ORDERS = 5
PROMPT_ORDERS = 3
CONTEXT_ROWS = 1 << 15
PROMPT_ROWS = 1 << 14
# A place of the prompt can be copied; up to this many equal tokens before it speak for it.
MATCH_ORDERS = 3
# The tokens of a prompt that are read (its end), and those of an answer that are learnt in one stretch.
PROMPT_WINDOW = 512
STRETCH = 512

# A polynomial hash: every intermediate value stays below 2**63, in numpy and in Python alike.
_MULTIPLIER = 1_000_003
_MODULUS = 2_147_483_647
_NO_TOKEN = -1
# Before the last token of a context all digits are alike, so that what follows a number does not depend on it.
_ZERO, _NINE = Tokenizer([]).encode("09")


@dataclass(frozen=True)
class Example:
    """A stretch of an answer (`targets`), the CONTEXT_ORDERS tokens `before` it, and its prompt."""

    prompt: Integers
    before: Integers
    targets: Integers


@dataclass(frozen=True)
class Batch:
    """N target tokens of B examples; arrays of one row a token unless their comment says otherwise."""

    example: Integers
    position: Integers
    longest: int
    targets: Integers
    context_rows: Integers  # N by CONTEXT_ORDERS
    prompts: Integers  # B by L tokens, _NO_TOKEN after the end of a prompt
    prompt_rows: Integers  # the hashed n-grams of all prompts, one after the other
    prompt_row_example: Integers  # to which example each of prompt_rows belongs
    matches: NDArray[np.int8]  # N by L: how many tokens before a place of the prompt equal those before the target

    @property
    def size(self) -> int:
        return len(self.prompts)


def beginning(prompt: Sequence[int]) -> list[int]:
    """Return what stands before the first token of the answer to `prompt`."""
    return [ANSWER if prompt else END] * CONTEXT_ORDERS


def examples_of(prompt: Sequence[int], answer: Sequence[int]) -> Iterator[Example]:
    """Yield the record's answer and its END in stretches of at most STRETCH tokens."""
    prompt_tokens = np.array(prompt[-PROMPT_WINDOW:], np.int64)
    padded = np.array([*beginning(prompt), *answer, END], np.int64)
    for start in range(0, len(answer) + 1, STRETCH):
        targets_at = start + CONTEXT_ORDERS
        yield Example(prompt_tokens, padded[start:targets_at], padded[targets_at : targets_at + STRETCH])


def context_rows(last_tokens: Sequence[int]) -> list[int]:
    """Return the rows of the contexts that end now; `last_tokens` are the CONTEXT_ORDERS last ones, latest first."""
    rows = []
    value = 0
    for order, token in enumerate(last_tokens, start=1):
        alike = _ZERO if order > 1 and _ZERO <= token <= _NINE else token
        value = (value * _MULTIPLIER + alike + order) % _MODULUS
        rows.append(value % CONTEXT_ROWS)
    return rows


def prompt_rows(prompt: Integers) -> Integers:
    """Return the rows of the n-grams of `prompt`."""
    rows = []
    padded = np.concatenate([np.full(PROMPT_ORDERS - 1, END), prompt])
    value = np.zeros(len(prompt), np.int64)
    for order in range(PROMPT_ORDERS):
        start = PROMPT_ORDERS - 1 - order
        value = (value * _MULTIPLIER + padded[start : start + len(prompt)] + order + 1) % _MODULUS
        rows.append(value % PROMPT_ROWS)
    return np.concatenate(rows)


def shifted(prompts: Integers, by: int) -> Integers:
    """Return `prompts` (B by L) moved to the right: at each place the token `by` places before it."""
    moved = np.full_like(prompts, _NO_TOKEN)
    moved[:, by:] = prompts[:, : max(prompts.shape[1] - by, 0)]
    return moved


def make_batch(examples: Sequence[Example]) -> Batch:
    """Return `examples` as one batch."""
    longest = max(len(example.targets) for example in examples)
    padded = np.full((len(examples), CONTEXT_ORDERS + longest), _NO_TOKEN)
    prompts = np.full((len(examples), max(1, *(len(example.prompt) for example in examples))), _NO_TOKEN)
    for row, example in enumerate(examples):
        padded[row, :CONTEXT_ORDERS] = example.before
        padded[row, CONTEXT_ORDERS : CONTEXT_ORDERS + len(example.targets)] = example.targets
        prompts[row, : len(example.prompt)] = example.prompt
    which, position = np.nonzero(padded[:, CONTEXT_ORDERS:] != _NO_TOKEN)
    preceding = [padded[which, position + CONTEXT_ORDERS - back] for back in range(1, CONTEXT_ORDERS + 1)]
    rows = [prompt_rows(example.prompt) for example in examples]
    return Batch(
        example=which,
        position=position,
        longest=longest,
        targets=padded[which, position + CONTEXT_ORDERS],
        context_rows=_context_rows(preceding),
        prompts=prompts,
        prompt_rows=np.concatenate(rows),
        prompt_row_example=np.repeat(np.arange(len(examples)), [len(each) for each in rows]),
        matches=_matches(prompts, which, preceding),
    )


def _context_rows(preceding: Sequence[Integers]) -> Integers:
    """Do the same as `context_rows` for many targets: `preceding` holds their last tokens, then the ones before."""
    rows = np.empty((len(preceding[0]), CONTEXT_ORDERS), np.int64)
    value = np.zeros(len(rows), np.int64)
    for order, tokens in enumerate(preceding, start=1):
        alike = np.where((order > 1) & (tokens >= _ZERO) & (tokens <= _NINE), _ZERO, tokens)
        value = (value * _MULTIPLIER + alike + order) % _MODULUS
        rows[:, order - 1] = value % CONTEXT_ROWS
    return rows


def _matches(prompts: Integers, which: Integers, preceding: Sequence[Integers]) -> NDArray[np.int8]:
    count = np.zeros((len(which), prompts.shape[1]), np.int8)
    equal: Flags = np.ones(count.shape, np.bool_)
    for back in range(1, MATCH_ORDERS + 1):
        equal &= shifted(prompts, back)[which] == preceding[back - 1][:, None]
        count += equal
    return count
