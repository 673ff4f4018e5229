"""Rows of logits of several kinds, and their exact probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.requirements import optional

mpmath = optional("mpmath")

Matrix = NDArray[Any]


def normal(rng: np.random.Generator, shape: tuple[int, int], dtype: Any) -> Matrix:
    return rng.standard_normal(shape).astype(dtype)


def wide(rng: np.random.Generator, shape: tuple[int, int], dtype: Any) -> Matrix:
    return (30 * rng.standard_normal(shape)).astype(dtype)


def huge(rng: np.random.Generator, shape: tuple[int, int], dtype: Any) -> Matrix:
    return (1e30 * rng.standard_normal(shape)).astype(dtype)


def tiny(rng: np.random.Generator, shape: tuple[int, int], dtype: Any) -> Matrix:
    return (1e-30 * rng.standard_normal(shape)).astype(dtype)


def equal(rng: np.random.Generator, shape: tuple[int, int], dtype: Any) -> Matrix:
    return np.repeat(rng.standard_normal((shape[0], 1)).astype(dtype), shape[1], axis=1)


def dominant(rng: np.random.Generator, shape: tuple[int, int], dtype: Any) -> Matrix:
    """Return rows with one logit about 70 above the others: its loss is about 1e-30 and must keep its digits."""
    logits = rng.standard_normal(shape)
    logits[:, 0] = 70
    return logits.astype(dtype)


def masked(rng: np.random.Generator, shape: tuple[int, int], dtype: Any) -> Matrix:
    logits = (5 * rng.standard_normal(shape)).astype(dtype)
    logits[rng.random(shape) < 0.4] = -np.inf
    logits[:, -1] = 0.25
    return logits


def subnormal(rng: np.random.Generator, shape: tuple[int, int], dtype: Any) -> Matrix:
    """Return rows with probabilities around the smallest normal number, down to the smallest subnormal one."""
    lowest, normal_edge = (-104, -86) if dtype == np.float32 else (-745, -706)
    logits = rng.uniform(lowest, normal_edge, shape)
    logits[:, shape[1] // 2] = rng.uniform(-0.5, 0.5)
    return logits.astype(dtype)


def offset(rng: np.random.Generator, shape: tuple[int, int], dtype: Any) -> Matrix:
    """Return logits far from zero, whose differences to the maximum are small compared with the logits."""
    return (1000 + 8 * rng.standard_normal(shape)).astype(dtype)


def mixed(rng: np.random.Generator, shape: tuple[int, int], dtype: Any) -> Matrix:
    """Return logits of magnitudes so different that ``z - max`` isn't representable in the same type."""
    return (rng.standard_normal(shape) * 10.0 ** rng.uniform(-9, 2, shape)).astype(dtype)


SCALES = [normal, wide, huge, tiny, equal, dominant, masked, subnormal, offset, mixed]


def exact_row(logits: list[float], temperature: float) -> tuple[list[Any], list[Any]]:
    """Return the probabilities and log-probabilities of one row, to 50 digits."""
    beta = mpmath.mpf(1.0 / temperature)
    largest = max(mpmath.mpf(z) for z in logits)
    powers = [mpmath.exp(beta * (mpmath.mpf(z) - largest)) for z in logits]
    rest = mpmath.fsum(sorted(powers)[:-1])
    return (
        [power / (1 + rest) for power in powers],
        [beta * (mpmath.mpf(z) - largest) - mpmath.log1p(rest) for z in logits],
    )
