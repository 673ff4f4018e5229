"""Conversions between log-odds and probabilities, with the same bits on every CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.kernels.elementwise import exp_values, expm1_values, log_matrix
from batchmax.kernels.multi_label import sigmoid_rows

Array = NDArray[Any]

LARGEST = np.finfo(np.float64).max


def probabilities(logits: Array) -> Array:
    """Return 1 / (1 + exp(-z)) of log-odds z, (n,) float64."""
    found = np.empty((1, len(logits)))
    sigmoid_rows(np.ascontiguousarray(logits, np.float64)[np.newaxis], 1.0, found, np.empty(1, np.bool_))
    return found.reshape(-1)


def difference(matrix: Array, positive: int, dtype: np.dtype[Any]) -> Array:
    """Return the log-odds of one of two classes, (n,), from logits, (n, 2)."""
    z, other = matrix[:, positive], matrix[:, 1 - positive]
    with np.errstate(invalid="ignore", over="ignore"):
        scores = np.subtract(z, other, dtype=dtype)
    if matrix.dtype == np.float64 and np.isinf(scores).any():
        # Differences that overflow are below those with an infinite logit.
        is_over = np.isinf(scores) & np.isfinite(z) & np.isfinite(other)
        scores[is_over] = np.copysign(LARGEST, scores[is_over])
    return scores


def log_odds_of_probabilities(probs: Array) -> Array:
    """Return log(p / (1 - p)) of probabilities, (n,) float64; the bits are those of their logarithms' log-odds."""
    return log_odds_of_logarithms(_log(probs))[0]


def log_odds_of_logarithms(logs: Array) -> tuple[Array, Array]:
    """Return log(p / (1 - p)) and p, given log(p), (n,) float64."""
    logs = np.ascontiguousarray(logs, np.float64)
    probs, below = np.empty(len(logs)), np.empty(len(logs))
    exp_values(logs, probs)
    expm1_values(logs, below)
    # Rounded probabilities may exceed 1.
    return logs - _log(np.maximum(-below, 0.0)), probs


def _log(values: Array) -> Array:
    out = np.empty((1, len(values)))
    log_matrix(np.ascontiguousarray(values, np.float64)[np.newaxis], out)
    return out.reshape(-1)
