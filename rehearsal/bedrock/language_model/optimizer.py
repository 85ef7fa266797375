"""Adagrad, which gives each weight a step of its own: rare n-grams learn as fast as frequent ones."""

import numpy as np

from rehearsal.bedrock.language_model.batches import Integers
from rehearsal.bedrock.language_model.network import Floats, Gradients, SparseGradient, Weights

_INITIAL_SQUARE = 1e-8
# Keeps a training with a far too high learning rate finite: its losses become bad, not infinite.
_LARGEST_WEIGHT = np.float32(50)


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
            if isinstance(gradient, SparseGradient):
                if not len(gradient.rows):
                    continue
                rows, values = _merged(gradient)
                total = squares[rows] + values * values
                squares[rows] = total
                step = values / np.sqrt(total) * np.float32(rate)
                weight[rows] = np.clip(weight[rows] - step, -_LARGEST_WEIGHT, _LARGEST_WEIGHT)
            else:
                squares += gradient * gradient
                weight -= gradient / np.sqrt(squares) * np.float32(rate)
                np.clip(weight, -_LARGEST_WEIGHT, _LARGEST_WEIGHT, out=weight)


def _merged(gradient: SparseGradient) -> tuple[Integers, Floats]:
    """Each row once, with the sum of its values."""
    order = np.argsort(gradient.rows, kind="stable")
    ordered = gradient.rows[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    return ordered[starts], np.add.reduceat(gradient.values[order], starts, axis=0)
