"""The language model as the stand-in uses it: pre-trained once, copied, trained on records, asked."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from rehearsal.bedrock.language_model.batches import (
    PROMPT_WINDOW,
    Example,
    beginning,
    context_rows,
    examples_of,
    make_batch,
)
from rehearsal.bedrock.language_model.network import Floats, Reader, Weights, forward, gradients, initial_weights
from rehearsal.bedrock.language_model.optimizer import Adagrad, add
from rehearsal.bedrock.language_model.tokenizer import END, Tokenizer, learn_pieces

StopReason = Literal["end_turn", "max_tokens", "stop_sequence"]

_BASE_TEXT = Path(__file__).with_name("base_text.tsv")
# The step size of Adagrad at learning_rate_factor 1.
_LEARNING_RATE = 0.06
# More target tokens than this are computed in several parts, which bounds the memory of large batches.
_TOKENS_AT_ONCE = 4096


class TrainingText(NamedTuple):
    """A labelled record; a record of raw text has the prompt ""."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class TrainingOptions:
    """`learning_rate_factor` is 1 for the base model's default rate; the rate rises linearly over `warmup_steps`."""

    epochs: int
    batch_size: int = 8
    learning_rate_factor: float = 1.0
    warmup_steps: int = 0
    seed: int = 0


class LoggedLoss(NamedTuple):
    """A mean loss in nats per token; steps and epochs count from 0, as in Bedrock's files."""

    step: int
    epoch: int
    loss: float


@dataclass
class TrainingLog:
    """The training loss of every step's batch before it was learnt, and the validation loss after every epoch."""

    steps: list[LoggedLoss] = field(default_factory=list)
    validation: list[LoggedLoss] = field(default_factory=list)


class Generation(NamedTuple):
    """An answer; `output_tokens` counts the tokens of `text`, and of a stop sequence cut from it."""

    text: str
    input_tokens: int
    output_tokens: int
    stop_reason: StopReason


class LanguageModel:
    """Learns by gradient descent on the cross entropy of the completions' tokens, and answers prompts."""

    def __init__(self, tokenizer: Tokenizer, weights: Weights) -> None:
        self._tokenizer = tokenizer
        self._weights = weights

    @staticmethod
    def pretrained(seed: int) -> "LanguageModel":
        """Return a base model: trained on a small general text, the same for the same seed."""
        return _base_model(seed).copy()

    def copy(self) -> "LanguageModel":
        """Return a model that is trained apart from this one."""
        return LanguageModel(self._tokenizer, {name: weight.copy() for name, weight in self._weights.items()})

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of `text`."""
        return len(self._tokenizer.encode(text))

    def train(
        self,
        records: Sequence[TrainingText],
        validation: Sequence[TrainingText],
        options: TrainingOptions,
        on_step: Callable[[LoggedLoss], None] | None = None,
    ) -> TrainingLog:
        """Learn `records` and return the losses; `on_step` hears of every step and may raise to end the training."""
        encoded = [self._encode(record) for record in records]
        held_out = [example for record in validation for example in self._encode(record)]
        random = np.random.default_rng(options.seed)
        optimizer = Adagrad(self._weights)
        log = TrainingLog()
        for epoch in range(options.epochs):
            order = random.permutation(len(encoded))
            for start in range(0, len(order), options.batch_size):
                step = len(log.steps)
                warmth = min(1.0, (step + 1) / (options.warmup_steps + 1))
                batch = [example for index in order[start : start + options.batch_size] for example in encoded[index]]
                loss = self._learn(batch, optimizer, _LEARNING_RATE * options.learning_rate_factor * warmth)
                log.steps.append(LoggedLoss(step, epoch, loss))
                if on_step:
                    on_step(log.steps[-1])
            if held_out and log.steps:
                log.validation.append(LoggedLoss(log.steps[-1].step, epoch, self._mean_loss(held_out)))
        return log

    def loss(self, records: Sequence[TrainingText]) -> float:
        """Return the mean cross entropy of the completions in nats per token; raises ValueError without records."""
        if not records:
            raise ValueError("a loss needs at least one record")
        return self._mean_loss([example for record in records for example in self._encode(record)])

    def answer(  # noqa: PLR0917 - what every inference API takes
        self,
        prompt: str,
        max_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop_sequences: Sequence[str] = (),
        seed: int = 0,
    ) -> Generation:
        """Return the answer to `prompt`: its likeliest tokens at temperature 0, drawn ones with `seed` above it."""
        encoded = self._tokenizer.encode(prompt)
        reader = Reader(self._weights, np.array(encoded[-PROMPT_WINDOW:], np.int64))
        random = np.random.default_rng(seed)
        last = beginning(encoded)
        tokens: list[int] = []
        while len(tokens) < max_tokens:
            probabilities = reader.next_probabilities(context_rows(last), last)
            token = _choose(probabilities, temperature, top_p, random)
            if token == END:
                return Generation(self._tokenizer.decode(tokens), len(encoded), len(tokens), "end_turn")
            tokens.append(token)
            last = [token, *last[:-1]]
            text = self._tokenizer.decode(tokens) if stop_sequences else ""
            cut = min((text.find(stop) for stop in stop_sequences if stop and stop in text), default=-1)
            if cut >= 0:
                return Generation(text[:cut], len(encoded), len(tokens), "stop_sequence")
        return Generation(self._tokenizer.decode(tokens), len(encoded), len(tokens), "max_tokens")

    def _encode(self, record: TrainingText) -> list[Example]:
        prompt, completion = self._tokenizer.encode(record.prompt), self._tokenizer.encode(record.completion)
        return list(examples_of(prompt, completion))

    def _learn(self, examples: Sequence[Example], optimizer: Adagrad, rate: float) -> float:
        tokens = sum(len(example.targets) for example in examples)
        total = 0.0
        gradient = None
        for part in _parts(examples):
            batch = make_batch(part)
            found = forward(self._weights, batch)
            total -= float(np.log(found.probability).sum())
            found_gradient = gradients(self._weights, batch, found, 1 / tokens)
            gradient = add(gradient, found_gradient) if gradient else found_gradient
        if gradient:
            optimizer.descend(gradient, rate)
        return total / tokens

    def _mean_loss(self, examples: Sequence[Example]) -> float:
        by_length = sorted(examples, key=lambda example: len(example.targets))
        found = [forward(self._weights, make_batch(part)).probability for part in _parts(by_length)]
        return -float(np.log(np.concatenate(found)).mean())


@lru_cache(maxsize=4)
def _base_model(seed: int) -> LanguageModel:
    lines = [line.split("\t") for line in _BASE_TEXT.read_text(encoding="utf-8").splitlines()]
    records = [TrainingText(prompt, completion) for prompt, completion in lines]
    tokenizer = Tokenizer(learn_pieces(text for record in records for text in record))
    weights = initial_weights(tokenizer.size, seed)
    counts = np.ones(tokenizer.size)
    for record in records:
        np.add.at(counts, [*tokenizer.encode(record.completion), END], 10.0)
    weights["bias"][:] = np.log(counts / counts.sum())
    model = LanguageModel(tokenizer, weights)
    model.train(records, [], TrainingOptions(epochs=3, batch_size=16, seed=seed))
    return model


def _parts(examples: Sequence[Example]) -> Iterator[list[Example]]:
    part: list[Example] = []
    longest = 0
    for example in examples:
        longest = max(longest, len(example.targets))
        if part and longest * (len(part) + 1) > _TOKENS_AT_ONCE:
            yield part
            part, longest = [], len(example.targets)
        part.append(example)
    if part:
        yield part


def _choose(probabilities: Floats, temperature: float, top_p: float, random: np.random.Generator) -> int:
    if temperature <= 0:
        return int(probabilities.argmax())
    scores = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float64).tiny)) / temperature
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    likeliest = np.argsort(-weights, kind="stable")
    # The fewest of the likeliest tokens that together reach top_p: those before which less than top_p is summed up.
    kept = likeliest[: max(1, int(np.searchsorted(np.cumsum(weights[likeliest]), top_p)) + 1)]
    return int(random.choice(kept, p=weights[kept] / weights[kept].sum()))
