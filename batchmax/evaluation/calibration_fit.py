"""Fits a temperature, or a scale and a bias per class, to rows with labels.

With beta = 1/T the mean loss is convex in beta. The best temperature is the root of its derivative by log beta: under
softmax, the derivative of a row's loss is the loss minus the entropy of the probabilities. The root is bracketed within
fixed bounds, so the search can't diverge. Each step is a pass over the rows.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.errors import UsageError
from batchmax.evaluation.calibration_rows import CalibrationRows, Scaling
from batchmax.options.calibration_file import LARGEST_T, SMALLEST_T, scipy_optimize

Array = NDArray[Any]

STEP = 4.0
"""Factor by which the bracket of the temperature grows."""
PRECISION = 1e-7
"""Absolute tolerance of log T."""
MOST_VECTOR_CLASSES = 10_000
LARGEST_SCALE, LARGEST_BIAS = 1000.0, 1000.0
MOST_NAMED = 10
"""Most classes that a warning names."""
NO_LOSS = 1e-12
"""A mean loss below this can't be improved: every row is right with a confidence of about 1."""


def fit_temperature(data: CalibrationRows) -> tuple[float, bool]:
    """Return the temperature with the smallest mean loss, and whether it is a bound of the search."""

    @functools.cache
    def slope(log_t: float) -> float:
        """Return the derivative of the mean loss by log beta; negative if a smaller temperature is better."""
        return data.mean(lambda matrix, labels: data.loss.slopes(matrix, labels, math.exp(-log_t)))

    before = slope(0.0)
    if before == 0.0:
        return 1.0, False
    # A smaller temperature is better where the slope is negative.
    direction = -1.0 if before < 0 else 1.0
    bound = math.log(SMALLEST_T if before < 0 else LARGEST_T)
    at = 0.0
    while at != bound:
        after = at + direction * math.log(STEP)
        after = bound if direction * (after - bound) > 0 else after
        if direction * slope(after) < -NO_LOSS:
            root = scipy_optimize().root_scalar(slope, bracket=sorted((at, after)), method="brentq", xtol=PRECISION)
            return math.exp(root.root), False
        if abs(slope(after)) <= NO_LOSS:
            break
        at = after
    return (SMALLEST_T if direction < 0 else LARGEST_T), True


def fit_scale_and_bias(data: CalibrationRows, beta: float) -> tuple[Scaling, bool, list[str]]:
    """Return the scale and bias per class that minimize the mean loss, whether one is at a bound, and warnings.

    The search starts from the best temperature, as ``beta``.

    Raises
    ------
    UsageError
        There are too many classes.
    """
    k = data.source.job.n_classes
    if k > MOST_VECTOR_CLASSES:
        raise UsageError(
            f"{k:,} classes are more than the {MOST_VECTOR_CLASSES:,} that this method supports",
            where="--method",
            remedy="choose temperature",
        )

    def loss_and_gradient(x: Array) -> tuple[float, Array]:
        scaling = Scaling(1.0, x[:k], x[k:])
        total, gradient = 0.0, np.zeros(2 * k)
        for matrix, labels in data.fitted():
            losses, gradients = data.loss.gradients(scaling.scaled(matrix.astype(np.float64)), labels)
            total += float(losses.sum())
            gradient[k:] += gradients.sum(axis=0)
            # A class with an infinite logit has derivative 0, and the logit can't be multiplied.
            gradient[:k] += (gradients * np.where(np.isfinite(matrix), matrix, 0.0)).sum(axis=0)
        return total / data.n_fit, gradient / data.n_fit

    bounds = [(1.0 / LARGEST_SCALE, LARGEST_SCALE)] * k + [(-LARGEST_BIAS, LARGEST_BIAS)] * k
    start = np.concatenate([np.full(k, min(max(beta, 1.0 / LARGEST_SCALE), LARGEST_SCALE)), np.zeros(k)])
    result = scipy_optimize().minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds)
    low, high = np.array(bounds).T
    at_bound = np.isclose(result.x, low, rtol=1e-9, atol=0.0) | np.isclose(result.x, high, rtol=1e-9, atol=0.0)
    warnings = []
    if at_bound.any():
        names = data.source.job.classes or [str(number) for number in range(k)]
        classes = [name for name, is_at in zip(names, at_bound[:k] | at_bound[k:], strict=True) if is_at]
        more = f" and {len(classes) - MOST_NAMED:,} more" if len(classes) > MOST_NAMED else ""
        warnings.append(
            f"the scale or bias of class {', '.join(classes[:MOST_NAMED])}{more} is at a bound of the search, "
            f"{1 / LARGEST_SCALE:g} to {LARGEST_SCALE:g} and {-LARGEST_BIAS:g} to {LARGEST_BIAS:g}: the rows don't "
            "determine it; give more or other rows, or use --method temperature"
        )
    if not result.success:
        warnings.append(f"the search for scales and biases ended before it converged: {result.message}")
    return Scaling(1.0, result.x[:k], result.x[k:]), bool(at_bound.any()), warnings
