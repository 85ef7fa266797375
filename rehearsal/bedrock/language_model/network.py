"""The network: what it gives each token, and the gradient of the cross entropy by its weights.

The next token is either drawn from the vocabulary or copied from the prompt; a learnt gate weighs the two.
Vocabulary: the sum of the embeddings of the last tokens' n-grams, of the answer so far and of the prompt's n-grams,
through one linear layer and a softmax. Copying: attention over the prompt's places.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rehearsal.bedrock.language_model.batches import (
    CONTEXT_ORDERS,
    CONTEXT_ROWS,
    MATCH_ORDERS,
    PROMPT_ROWS,
    Batch,
    Flags,
    Integers,
    prompt_rows,
    shifted,
)

Floats = NDArray[np.float32]
Weights = dict[str, Floats]

WIDTH = 48
KEY_WIDTH = 24
# Which order of a context goes into the memory of the answer so far.
_HISTORY_ORDER = 1
_LEAST_PROBABILITY = np.float32(1e-12)
_FAR_BELOW = np.float32(-1e9)


@dataclass(frozen=True)
class SparseGradient:
    """The gradient of some rows of a weight; a row may come more than once."""

    rows: Integers
    values: Floats


Gradients = dict[str, "Floats | SparseGradient"]


def initial_weights(vocabulary: int, seed: int) -> Weights:
    """Return random output weights and zero embeddings, so that an n-gram never seen says nothing."""
    random = np.random.default_rng(seed)

    def normal(deviation: float, *shape: int) -> Floats:
        return (random.standard_normal(shape) * deviation).astype(np.float32)

    return {
        "context": np.zeros((CONTEXT_ROWS, WIDTH), np.float32),
        "history": np.zeros((CONTEXT_ROWS, WIDTH), np.float32),
        "prompt": np.zeros((PROMPT_ROWS, WIDTH), np.float32),
        "output": normal(0.3, vocabulary, WIDTH),
        "bias": np.zeros(vocabulary, np.float32),
        "key": normal(0.1, vocabulary, KEY_WIDTH),
        "key_before": normal(0.1, vocabulary, KEY_WIDTH),
        "query": normal(0.1, WIDTH, KEY_WIDTH),
        "match": np.arange(MATCH_ORDERS + 1, dtype=np.float32),
        "gate": np.zeros(WIDTH, np.float32),
        "gate_bias": np.full(1, -3, np.float32),
    }


@dataclass(frozen=True)
class Forward:
    """What the backward pass needs again."""

    state: Floats
    prompt: Floats  # B by WIDTH
    scale: Floats  # B: what the sum of a prompt's embeddings is multiplied by
    hidden: Floats
    vocabulary: Floats
    chosen: Floats  # the probability of the target by the vocabulary
    keys: Floats  # B by L by KEY_WIDTH
    query: Floats  # B by T by KEY_WIDTH
    attention: Floats
    hits: Flags
    copied: Floats  # the probability of the target by copying
    gate: Floats
    probability: Floats


def forward(weights: Weights, batch: Batch) -> Forward:
    """Return the probability of each target of `batch`, and the values on the way to it."""
    state = np.sum(weights["context"][batch.context_rows], axis=1) + _history(weights, batch)
    counts = np.bincount(batch.prompt_row_example, minlength=batch.size)
    scale = (1 / np.sqrt(np.maximum(counts, 1))).astype(np.float32)
    prompt = _sum_by(batch.prompt_row_example, weights["prompt"][batch.prompt_rows], batch.size) * scale[:, None]
    of_prompt = prompt[batch.example]
    hidden = state + of_prompt + state * of_prompt
    vocabulary = softmax(hidden @ weights["output"].T + weights["bias"])
    chosen = vocabulary[np.arange(len(batch.targets)), batch.targets]
    keys = _keys(weights, batch)
    query = _spread(batch, hidden @ weights["query"])
    there = batch.prompts[batch.example] >= 0
    scores = _gather(batch, query @ keys.transpose(0, 2, 1)) + weights["match"][batch.matches]
    attention = softmax(np.where(there, scores, _FAR_BELOW))
    hits = batch.prompts[batch.example] == batch.targets[:, None]
    copied = np.sum(attention * hits, axis=1)
    gate = sigmoid(hidden @ weights["gate"] + weights["gate_bias"]) * there[:, 0]
    probability = np.maximum((1 - gate) * chosen + gate * copied, _LEAST_PROBABILITY)
    return Forward(
        state, prompt, scale, hidden, vocabulary, chosen, keys, query, attention, hits, copied, gate, probability
    )


def gradients(weights: Weights, batch: Batch, found: Forward, share: float) -> Gradients:
    """Return the gradient of the targets' summed cross entropy times `share`; spends `found.vocabulary`."""
    share32 = np.float32(share)
    by_vocabulary = (1 - found.gate) * found.chosen / found.probability * share32
    logits = found.vocabulary
    logits *= by_vocabulary[:, None]
    logits[np.arange(len(batch.targets)), batch.targets] -= by_vocabulary
    by_copying = found.gate / found.probability * share32
    scores = found.attention * (found.copied[:, None] - found.hits) * by_copying[:, None]
    gate = (found.chosen - found.copied) * by_copying * (1 - found.gate)
    spread_scores = _spread(batch, scores)
    query = _gather(batch, spread_scores @ found.keys)
    there = batch.prompts >= 0
    keys = (spread_scores.transpose(0, 2, 1) @ found.query)[there]
    before = shifted(batch.prompts, 1)[there]
    hidden = logits @ weights["output"] + query @ weights["query"].T + gate[:, None] * weights["gate"]
    return {
        "output": logits.T @ found.hidden,
        "bias": np.sum(logits, axis=0),
        "query": found.hidden.T @ query,
        "gate": gate @ found.hidden,
        "gate_bias": np.sum(gate, keepdims=True),
        "match": np.bincount(batch.matches.ravel(), scores.ravel(), MATCH_ORDERS + 1).astype(np.float32),
        "key": SparseGradient(batch.prompts[there], keys),
        "key_before": SparseGradient(before[before >= 0], keys[before >= 0]),
        **_embedding_gradients(batch, found, hidden),
    }


def _embedding_gradients(batch: Batch, found: Forward, hidden: Floats) -> Gradients:
    state = hidden * (1 + found.prompt[batch.example])
    prompt = _sum_by(batch.example, hidden * (1 + found.state), batch.size) * found.scale[:, None]
    later = _spread(batch, state) * _history_scale(batch.longest)[:, None]
    history = _gather(batch, np.cumsum(later[:, ::-1], axis=1)[:, ::-1])
    return {
        "context": SparseGradient(batch.context_rows.ravel(), np.repeat(state, CONTEXT_ORDERS, axis=0)),
        "history": SparseGradient(batch.context_rows[:, _HISTORY_ORDER], history),
        "prompt": SparseGradient(batch.prompt_rows, prompt[batch.prompt_row_example]),
    }


def _history(weights: Weights, batch: Batch) -> Floats:
    """The memory of the answer so far: a sum over its contexts, which grows with the root of their number."""
    spread = _spread(batch, weights["history"][batch.context_rows[:, _HISTORY_ORDER]])
    return _gather(batch, np.cumsum(spread, axis=1) * _history_scale(batch.longest)[:, None])


def _history_scale(longest: int) -> Floats:
    return (1 / np.sqrt(np.arange(1, longest + 1))).astype(np.float32)


def _keys(weights: Weights, batch: Batch) -> Floats:
    before = shifted(batch.prompts, 1)
    key_before = weights["key_before"][np.maximum(before, 0)] * (before >= 0)[:, :, None]
    keys: Floats = weights["key"][np.maximum(batch.prompts, 0)] + key_before
    return keys


def _spread(batch: Batch, values: Floats) -> Floats:
    """Return one row a token by example and position, zero where an example is shorter."""
    spread = np.zeros((batch.size, batch.longest, values.shape[1]), np.float32)
    spread[batch.example, batch.position] = values
    return spread


def _gather(batch: Batch, values: Floats) -> Floats:
    return values[batch.example, batch.position]


def _sum_by(groups: Integers, values: Floats, count: int) -> Floats:
    """Return the sums of the rows of `values` by their ascending `groups` (0 … count - 1)."""
    sums = np.zeros((count, values.shape[1]), np.float32)
    if len(groups):
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        sums[groups[starts]] = np.add.reduceat(values, starts, axis=0)
    return sums


def softmax(scores: Floats) -> Floats:
    """Return the probabilities along the last axis; spends `scores`."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def sigmoid(values: Floats) -> Floats:
    """Return the logistic function, without overflow."""
    halves: Floats = 1 + np.tanh(0.5 * values)
    return 0.5 * halves


class Reader:
    """A prompt being answered: gives the probabilities of the next token, one token at a time."""

    def __init__(self, weights: Weights, prompt: Integers) -> None:
        self._weights = weights
        self._prompt = prompt
        self._length = 0
        self._history = np.zeros(WIDTH, np.float32)
        rows = prompt_rows(prompt)
        self._of_prompt = np.sum(weights["prompt"][rows], axis=0) / np.sqrt(np.float32(max(len(rows), 1)))
        shifts = [shifted(prompt[None], back)[0] for back in range(1, MATCH_ORDERS + 1)]
        self._shifts = np.stack(shifts) if len(prompt) else np.empty((MATCH_ORDERS, 0), np.int64)
        self._keys = weights["key"][prompt]
        self._keys[1:] += weights["key_before"][prompt[:-1]]

    def next_probabilities(self, rows: list[int], last_tokens: list[int]) -> Floats:
        """Return the probability of each token of the vocabulary; `rows` are the contexts of `last_tokens`."""
        weights = self._weights
        self._length += 1
        self._history += weights["history"][rows[_HISTORY_ORDER]]
        state = np.sum(weights["context"][rows], axis=0) + self._history / np.sqrt(np.float32(self._length))
        hidden = state + self._of_prompt + state * self._of_prompt
        probabilities = softmax(weights["output"] @ hidden + weights["bias"])
        if not len(self._prompt):
            return probabilities
        equal = np.logical_and.accumulate(self._shifts == np.array(last_tokens[:MATCH_ORDERS])[:, None], axis=0)
        scores = self._keys @ (hidden @ weights["query"]) + weights["match"][np.sum(equal, axis=0)]
        gate = sigmoid(hidden @ weights["gate"] + weights["gate_bias"])
        probabilities *= 1 - gate
        np.add.at(probabilities, self._prompt, softmax(scores) * gate)
        return probabilities
