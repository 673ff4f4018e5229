"""Reference implementations of softmax, log-softmax, logsumexp and cross-entropy, accurate to about 2**-60.

They use plain arithmetic in NumPy's widest float (at least 64 bits of mantissa) and import nothing of batchmax. To keep
the digits that this float alone would lose, ``z - max`` and its product with beta are each a sum of two wide
floats, so that the exponential of an exponent of several hundred is still correct in its last digits. Every sum has
terms of one sign, so there is no cancellation. ``test_accuracy`` compares these functions with 50-digit arithmetic:
their error is about a hundredth of a unit in the last place (ULP) of float64.

All functions take rows of logits of shape (n_rows, n_classes) and return wide floats. Beta is the float64
nearest to ``1 / temperature``, taken as exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

Wide = NDArray[np.longdouble]

_MANTISSA = np.finfo(np.longdouble).nmant + 1
if _MANTISSA < 64:  # pragma: no cover
    pytest.skip(
        "macOS on ARM has no long double wider than float64, which the exact oracle needs; "
        "tests/kernels/test_reproducibility.py shows that results have the bits that were compared with it on Linux",
        allow_module_level=True,
    )
_SPLITTER = np.longdouble(2) ** ((_MANTISSA + 1) // 2) + 1


def softmax(logits: ArrayLike, temperature: float = 1.0) -> Wide:
    """Return the probabilities; NaN for rows that contain NaN or +inf, or only -inf."""
    _, _, powers, rest = _terms(logits, temperature)
    return powers / (1 + rest)


def log_softmax(logits: ArrayLike, temperature: float = 1.0) -> Wide:
    """Return the log-probabilities, computed as minus the sum of two nonnegative terms."""
    high, low, _, rest = _terms(logits, temperature)
    return high - np.log1p(rest) + low


def logsumexp(logits: ArrayLike) -> Wide:
    """Return the log of the sum of exponentials, (n_rows,): +inf for rows with +inf, -inf for rows of only -inf."""
    rows = np.asarray(logits, np.longdouble)
    if rows.shape[1] == 0:
        return np.full(len(rows), -np.inf, np.longdouble)
    _, _, _, rest = _terms(rows, 1.0)
    largest = rows.max(axis=1)
    return np.where(np.isinf(largest), largest, largest + np.log1p(rest[:, 0]))


def cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: float = 1.0,
    class_weights: ArrayLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Wide:
    """Return the loss of every row, (n_rows,), in nats.

    Labels of shape (n_rows,) are class indices; labels of shape (n_rows, n_classes) are target distributions. Label
    smoothing and class weights are those of ``torch.nn.functional.cross_entropy`` with ``reduction='none'``, with one
    exception: a class with target 0 adds nothing to the loss, even if its log-probability is -inf.
    """
    costs = -log_softmax(logits, temperature)
    n_rows, n_classes = costs.shape
    labels = np.asarray(labels)
    ignored = np.zeros(n_rows, bool)
    if labels.ndim == 1:
        ignored = labels == ignore_index
        targets = np.zeros(costs.shape, np.longdouble)
        targets[np.arange(n_rows), np.where(ignored, 0, labels).astype(np.intp)] = 1
    else:
        targets = labels.astype(np.longdouble)
    smoothing = np.longdouble(label_smoothing)
    shares = targets * (1 - smoothing) + smoothing / n_classes
    if class_weights is not None:
        shares = shares * np.asarray(class_weights, np.longdouble)
    with np.errstate(invalid="ignore"):
        parts = np.where((shares == 0) & ~np.isnan(costs), 0, shares * costs)
    return np.where(ignored, 0, parts.sum(axis=1))


def reduce(
    losses: Wide,
    labels: ArrayLike,
    reduction: str,
    *,
    class_weights: ArrayLike | None = None,
    ignore_index: int = -100,
) -> Any:
    """Reduce the losses of :func:`cross_entropy` as PyTorch does.

    For class indices, the mean is divided by the sum of the weights of the labels that aren't ignored; for target
    distributions, by the number of rows. The mean of no rows is NaN.
    """
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    labels = np.asarray(labels)
    divisor: Any = len(losses)
    if labels.ndim == 1:
        counted = labels[labels != ignore_index].astype(np.intp)
        divisor = len(counted) if class_weights is None else np.asarray(class_weights)[counted].sum()
    return losses.sum() / divisor if divisor else np.longdouble(np.nan)


def ulp_error(got: ArrayLike, exact: ArrayLike, dtype: Any, *, unit_at: ArrayLike | None = None) -> Wide:
    """Return the distance of each number from its exact value, in units in the last place (ULP) of ``dtype``.

    A unit is the distance between adjacent floats at the exact value (or at ``unit_at``), and at least the smallest
    subnormal. The error is 0 if both are NaN, and if the result is an infinity of the right sign and the exact value is
    infinite or too large for ``dtype``; any other mismatch of NaN or infinity is an infinite error. In float64, the
    error is also 0 if the exact value is subnormal and the result isn't larger than the smallest normal number.
    """
    info = np.finfo(dtype)
    got, exact = np.broadcast_arrays(np.asarray(got, np.longdouble), np.asarray(exact, np.longdouble))
    unit_at = exact if unit_at is None else np.asarray(unit_at, np.longdouble)
    smallest = math.frexp(float(info.smallest_subnormal))[1] - 1
    exponent = np.frexp(unit_at)[1] - (info.nmant + 1)
    exponent = np.where((unit_at == 0) | (exponent < smallest), smallest, exponent)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(got - exact) / np.ldexp(np.longdouble(1), exponent)
        too_large = np.abs(exact) > np.longdouble(info.max) * (1 - 2 * np.longdouble(info.eps))
        if np.dtype(dtype) == np.float64:
            error = np.where((np.abs(exact) < info.tiny) & (np.abs(got) <= info.tiny), 0, error)
        error = np.where(np.isinf(got) & too_large & (got * exact > 0), 0, error)
    error = np.where((got == exact) | (np.isnan(got) & np.isnan(exact)), 0, error)
    return np.where(np.isnan(error), np.inf, error)


def _terms(logits: ArrayLike, temperature: float) -> tuple[Wide, Wide, Wide, Wide]:
    """Return beta * (z - max) as two terms, its exponential, and the sum of the exponentials without the maximum's."""
    rows = np.asarray(logits).astype(np.longdouble)
    beta = np.longdouble(1.0 / float(temperature))
    if rows.shape[1] == 0:
        return rows, rows, rows, np.zeros((len(rows), 1), np.longdouble)
    where_largest = rows.argmax(axis=1)[:, None]
    largest = np.take_along_axis(rows, where_largest, axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        difference, lost = _two_sum(rows, -largest)
        high, low = _two_product(difference, beta)
        low += lost * beta
        low = np.where(np.isfinite(high), low, 0)
        powers = np.exp(high)
        powers += powers * low
    others = powers.copy()
    np.put_along_axis(others, where_largest, 0, axis=1)
    rest = others.sum(axis=1, keepdims=True)
    rest = np.where(np.isfinite(largest), rest, np.nan)
    return high, low, powers, rest


def _two_sum(a: Wide, b: Wide) -> tuple[Wide, Wide]:
    """Return the rounded sum and its rounding error (Knuth, TAOCP 2, theorem 4.2.2 B)."""
    total = a + b
    shadow = total - a
    return total, (a - (total - shadow)) + (b - shadow)


def _two_product(a: Wide, b: np.longdouble) -> tuple[Wide, Wide]:
    """Return the rounded product and its rounding error (Dekker 1971, with Veltkamp's splitting)."""
    product = a * b
    a_high = a * _SPLITTER - (a * _SPLITTER - a)
    b_high = b * _SPLITTER - (b * _SPLITTER - b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
