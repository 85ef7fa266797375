"""Adagrad, which gives each weight a step of its own: rare n-grams learn as fast as frequent ones."""

import numpy as np

from rehearsal.bedrock.language_model.batches import Integers
from rehearsal.bedrock.language_model.network import Floats, Gradients, SparseGradient, Weights

_INITIAL_SQUARE = 1e-8
# The farthest that a weight moves in one step: a far too high learning rate ends in bad losses, not in infinite ones.
_LONGEST_STEP = 0.1


def add(one: Gradients, other: Gradients) -> Gradients:
    """Return the sum of two gradients of the same weights."""
    total: Gradients = {}
    for name, left in one.items():
        right = other[name]
        if isinstance(left, SparseGradient) and isinstance(right, SparseGradient):
            rows = np.concatenate([left.rows, right.rows])
            total[name] = SparseGradient(rows, np.concatenate([left.values, right.values]))
        elif not isinstance(left, SparseGradient) and not isinstance(right, SparseGradient):
            total[name] = left + right
    return total


class Adagrad:
    """Changes `weights` in place."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._squares = {name: np.full_like(weight, _INITIAL_SQUARE) for name, weight in weights.items()}

    def descend(self, gradients: Gradients, rate: float) -> None:
        """Take one step of `rate` against `gradients`."""
        for name, gradient in gradients.items():
            weight, squares = self._weights[name], self._squares[name]
            if not isinstance(gradient, SparseGradient):
                squares += gradient * gradient
                weight -= _step(gradient, squares, rate)
            elif len(gradient.rows):
                rows, values = _merged(gradient)
                squares[rows] += values * values
                weight[rows] -= _step(values, squares[rows], rate)


def _step(gradient: Floats, squares: Floats, rate: float) -> Floats:
    step = (gradient / np.sqrt(squares) * rate).astype(np.float32, copy=False)
    if rate > _LONGEST_STEP:
        np.clip(step, -_LONGEST_STEP, _LONGEST_STEP, out=step)
    return step


def _merged(gradient: SparseGradient) -> tuple[Integers, Floats]:
    """Return each row once, with the sum of its values."""
    order = np.argsort(gradient.rows, kind="stable")
    ordered = gradient.rows[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    return ordered[starts], np.add.reduceat(gradient.values[order], starts, axis=0)
