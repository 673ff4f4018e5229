"""Calibration: fit a temperature, or a scale and a bias per class, so that probabilities match observed frequencies.

With beta = 1/T the mean loss is convex in beta, and the derivative of a row's loss by log beta is its loss minus the
entropy of its probabilities. So the best temperature is the root where the mean loss equals the mean entropy. The root
is bracketed within fixed bounds, so the search can't diverge. Each step is a pass over the rows, which are kept in
memory if they fit.

See Also
--------
Guo et al. 2017, "On calibration of modern neural networks", arXiv 1706.04599.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from batchmax import __version__, kernels
from batchmax.columns.scored_input import written_by_score
from batchmax.errors import DataError, UsageError
from batchmax.evaluation.metrics import Counts, Judged
from batchmax.evaluation.row_stream import open_rows, refuse_bytes, rows_of
from batchmax.functional.losses import Rows, softmax_rows
from batchmax.jobs.pipeline import tell_of
from batchmax.options.calibration_file import LARGEST_T, SMALLEST_T, scipy_optimize
from batchmax.options.score_options import ScoreOptions, resolve_options
from batchmax.outputs import LAST_WITHOUT_LOSS, STATUS_NAMES, Status
from batchmax.results import CommandResult
from batchmax.runtime.progress import Progress
from batchmax.scoring.sequence_totals import SequenceTally
from batchmax.scoring.tally import Tally
from batchmax.sinks.text_file import TextFile
from batchmax.sources.token_chunks import TokenChunk

Array = NDArray[Any]

SHARE = 4
"""Rows are kept in memory if they take at most 1/SHARE of the memory limit."""
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


@dataclass(kw_only=True)
class Calibration(CommandResult):
    """The result of a calibration. A missing value is None.

    Attributes
    ----------
    temperature
        Divisor of the logits.
    scale, bias
        One number per class: logits z become scale * z + bias, and the temperature is 1. None for the method
        ``temperature``.
    nll_before, nll_after, ece_before, ece_after
        Mean loss in nats and expected calibration error of the held-out rows, before and after calibration.
    n_rows, bad_rows
        Number of rows, and of bad rows.
    n_fit, n_holdout
        Number of rows with a finite loss that were fitted to, and that were held out; for sequences, of tokens.
    infinite_losses
        Number of rows whose loss is infinite at any temperature because the label's class is masked. They are left out.
    at_bound
        Whether the temperature, a scale or a bias is at a bound of the search: the best value may lie beyond it.

    Examples
    --------
    >>> import batchmax
    >>> found = batchmax.calibrate("data/digits.parquet", method="temperature")
    >>> found.n_fit + found.n_holdout
    899
    >>> 0.5 < found.temperature < 2, found.at_bound
    (True, False)
    """

    SHOWN = ("method", "temperature", "nll_before", "nll_after", "ece_before", "ece_after")

    method: str = "temperature"
    temperature: float = 1.0
    scale: list[float] | None = None
    bias: list[float] | None = None
    nll_before: float | None = None
    nll_after: float | None = None
    ece_before: float | None = None
    ece_after: float | None = None
    n_rows: int = 0
    bad_rows: int = 0
    n_classes: int = 0
    n_fit: int = 0
    n_holdout: int = 0
    infinite_losses: int = 0
    at_bound: bool = False
    classes: list[str] | None = None
    files: list[str] = field(default_factory=list)
    unified: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    version: str = __version__


def calibrate(
    src: Any,
    out: str | None = None,
    options: ScoreOptions | None = None,
    *,
    method: Literal["temperature", "vector"] = "temperature",
    holdout: float = 0.2,
    seed: int = 0,
    bins: int = 15,
    if_exists: Literal["error", "overwrite"] | None = None,
    progress: Progress | None = None,
    **given: Any,
) -> Calibration:
    """Fit the calibration that minimizes the mean loss.

    Parameters
    ----------
    src
        One or several paths of files or folders, or globs.
    out
        Output file for the calibration: JSON that ``score --calibration`` reads. None writes no file.
    options, given
        How rows are read, as for :func:`batchmax.score`.
    method
        ``temperature``, or ``vector``: a scale and a bias per class, for up to 10,000 classes.
    holdout
        Share of the rows to hold out from fitting and compute the metrics on: from 0 to below 1. A hash of the row
        number selects them. With 0, all rows are used for both. For sequences, all tokens of a row stay together.
    seed
        Random seed for selecting the held-out rows.
    bins
        Number of bins of the expected calibration error.
    if_exists
        What to do if ``out`` exists: ``error`` or ``overwrite``.
    progress
        Progress callbacks.

    Raises
    ------
    UsageError
        Invalid option or column, or no labels that are classes.
    DataError
        Unreadable input, a bad row with the policy ``error``, or no row to fit to.
    OutputError
        The file can't be written.

    Examples
    --------
    >>> import batchmax
    >>> found = batchmax.calibrate("data/digits.parquet", "calibration.json")
    >>> summary = batchmax.score("data/digits.parquet", "scored.parquet", calibration="calibration.json")
    """
    options = resolve_options(options, given)
    progress = progress or Progress()
    started = time.monotonic()
    file = None if out is None else TextFile(out, (".json",), if_exists or "error", options.storage_options)
    data = _Data(src, options, holdout, seed, progress)
    if file is not None:
        file.refuse_inputs(data.files)
    if method not in {"temperature", "vector"}:
        raise UsageError(f"{method!r} is no method", where="--method", remedy="choose temperature or vector")
    found = Calibration(
        method=method,
        n_classes=data.n_classes,
        classes=data.classes,
        files=data.files,
        unified=data.unified,
        notes=data.notes,
    )
    before = data.judged(bins)
    found.n_rows, found.n_fit, found.n_holdout = data.n_rows, data.n_fit, data.n_holdout
    found.infinite_losses, found.bad_rows = data.infinite_losses, data.bad_rows
    if not data.n_fit:
        raise data.nothing_to_fit()
    found.warnings += data.doubts
    if found.infinite_losses:
        rows = "row has" if found.infinite_losses == 1 else "rows have"
        found.warnings.append(
            f"{found.infinite_losses:,} {rows} an infinite loss at every temperature: the figures leave them out"
        )
    found.temperature, found.at_bound = _temperature(data)
    after = _Scaling(beta=1.0 / found.temperature)
    if method == "vector":
        after, found.at_bound, trouble = _vector(data, after.beta)
        found.temperature = 1.0
        assert after.scale is not None  # noqa: S101 - for the type checker
        assert after.bias is not None  # noqa: S101
        found.scale, found.bias = after.scale.tolist(), after.bias.tolist()
        found.warnings += trouble
    elif found.at_bound:
        is_small = found.temperature < 1.0
        why = "every label is that of the largest logit" if is_small else "the labels do not follow the logits"
        found.warnings.append(
            f"the best temperature is at the bound of the search, {found.temperature:g}, because {why}; "
            "more or other rows may help"
        )
    if holdout and not data.n_holdout:
        found.warnings.append(
            f"none of the {data.n_fit:,} rows was held out, so there are no figures before and after: give more rows, "
            "or judge the rows that were fitted to: --holdout 0"
        )
    if not holdout:
        found.notes.append("no rows were held out: the figures are of the rows that were fitted to")
    found.nll_before, found.ece_before = before
    found.nll_after, found.ece_after = data.judged(bins, after)
    found.seconds = round(time.monotonic() - started, 3)
    for warning in found.warnings:
        progress.warn(warning)
    found.warnings[:0] = data.warnings
    if file is not None:
        file.write(json.dumps(found.as_dict(), indent=1, ensure_ascii=False) + "\n")
    return found


@dataclass(frozen=True)
class _Scaling:
    beta: float = 1.0
    scale: Array | None = None
    bias: Array | None = None


class _Data:
    """The rows of an input with a label and a finite loss, for repeated passes."""

    def __init__(self, src: Any, options: ScoreOptions, holdout: float, seed: int, progress: Progress) -> None:
        if hasattr(src, "__arrow_c_stream__") and not hasattr(src, "num_rows"):
            raise UsageError("a stream can be read only once", remedy="write it into a file first")
        if not 0.0 <= holdout < 1.0:
            raise UsageError(f"{holdout:g} of the rows", where="--holdout", remedy="give a share from 0 to below 1")
        if options.label == "none":
            raise UsageError("there is nothing to calibrate to without labels", where="--label", remedy="name them")
        if options.beta != 1.0:
            raise UsageError("the temperature is what is looked for", where="--temperature", remedy="leave it out")
        refuse_bytes(options)
        self._options = replace(options, outputs=("loss",), columns=())
        self._src = src
        self._progress = progress
        source = open_rows(src, self._options)
        job = source.job
        written = written_by_score(source.schema)
        if written is not None and not written.activation.is_log_linear and job.options.input != "logits":
            raise UsageError(
                f"calibration applies to softmax, not to activation {written.activation.name}, which score used",
                where=", ".join(file.path for file in source.files),
                remedy="give a file of logits",
            )
        if job.label is None or job.label.kind == "distribution":
            what = "there is no label column" if job.label is None else "labels that are distributions have no class"
            raise UsageError(what, where="--label", remedy="name a column of classes: --label NAME")
        tell_of(source, progress)
        self.warnings, self.unified = list(source.warnings), list(source.unified)
        self.files = [file.path for file in source.files]
        self.notes = list(job.notes)
        self.doubts: list[str] = []
        self.n_classes = job.n_classes
        self.classes = None if job.classes is None else list(job.classes)
        self._first: Any = source
        self._holdout, self._seed = holdout, seed
        self.n_rows = self.bad_rows = self.n_fit = self.n_holdout = self.infinite_losses = 0
        self._statuses = np.zeros(len(Status), np.int64)
        # None once the rows take more than their share of memory.
        self._kept: list[tuple[Array, Array, Array, Array]] | None = []
        self._room = options.memory_limit // SHARE
        self._is_kept = False

    def judged(self, bins: int, how: _Scaling | None = None) -> tuple[float | None, float | None]:
        """Return the mean loss and the calibration error of the held-out rows, or of all rows if none are held out."""
        how = how or _Scaling()
        counts = Counts(self.n_classes, (), bins)
        for matrix, labels, is_held, is_fit in self._rows():
            rows = _softmax(matrix, labels, how)
            n = len(matrix)
            pred, rank, brier = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n)
            z = _scaled(matrix, how)
            kernels.metric_rows(z, labels, how.beta, rows.maxima, rows.rests, rows.nll, pred, rank, brier)
            judged = is_held if self._holdout else is_fit
            counts.add(Judged(rows, labels, pred, rank, brier, np.zeros(0), judged & (rows.nll < np.inf)))
        figures = counts.figures()
        return figures["mean_loss"], figures["ece"]

    def nothing_to_fit(self) -> DataError:
        """Return the error for input without rows to fit to."""
        where = ", ".join(self.files)
        if self.n_holdout:
            rows = f"all {self.n_holdout:,} rows" if self.n_holdout > 1 else "the only row"
            what = f"{rows} with a label and a finite loss {'are' if self.n_holdout > 1 else 'is'} held out"
            return DataError(
                f"{what}, so there is nothing to fit to", where=where, remedy="give more rows, or --holdout 0"
            )
        counts = zip(STATUS_NAMES, self._statuses.tolist(), strict=True)
        listed = ", ".join(f"{count:,} {name}" for name, count in counts if count)
        what = f"no row has a label and a finite loss ({listed})" if listed else "there are no rows"
        what += ", so there is nothing to fit to"
        return DataError(what, where=where, remedy="give rows with a label and logits")

    def mean(self, of: Callable[[Array, Array], Array]) -> float:
        """Return the mean of a function over the rows to fit to."""
        sums = np.zeros(3)
        for matrix, labels, _, is_fit in self._rows():
            kernels.sum_counted(of(matrix, labels), is_fit, sums)
        return float(sums[0] + sums[1]) / self.n_fit

    def fitted(self) -> Iterator[tuple[Array, Array]]:
        """Yield the logits and labels of the rows to fit to."""
        for matrix, labels, _, is_fit in self._rows():
            yield matrix[is_fit], labels[is_fit]

    def _rows(self) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Yield logits, labels, and masks of the held-out rows and of the rows to fit to."""
        if self._is_kept:
            yield from self._kept or ()
            return
        source = self._first or open_rows(self._src, self._options)
        self._first = None
        tally, sequences = Tally(), SequenceTally(shift=source.job.options.shift)
        self.n_fit = self.n_holdout = self.infinite_losses = 0
        self.doubts = []
        for seen in rows_of(source, self._progress, self.doubts):
            assert seen.labels.indices is not None  # noqa: S101 - labels are classes
            chunk, status, first = seen.chunk, seen.scores.status, tally.rows
            numbers = first + np.arange(len(status))
            tally.add(status)
            if isinstance(chunk, TokenChunk):
                numbers = first + chunk.tokens.places()[0]
                tally.add_sequences(sequences.add(chunk.tokens, status).first(chunk.rows_done).status)
            good = (status == Status.OK) & np.isfinite(seen.scores.rows.nll)
            self.infinite_losses += int(np.count_nonzero((status > LAST_WITHOUT_LOSS) & ~good))
            held = good & _held_out(numbers, self._seed, self._holdout)
            one = (seen.matrix, seen.labels.indices, held, good & ~held)
            self.n_fit += int(one[3].sum())
            self.n_holdout += int(held.sum())
            self._room -= sum(array.nbytes for array in one)
            if self._room < 0:
                self._kept = None
            if self._kept is not None:
                one = tuple(array.copy() for array in one)  # type: ignore[assignment]
                self._kept.append(one)
            yield one
        self.n_rows, self.bad_rows, self._statuses = tally.rows, tally.bad_rows, tally.statuses
        self._is_kept = self._kept is not None


def _held_out(numbers: Array, seed: int, share: float) -> Array:
    """Return which rows are held out: row r is if output r of SplitMix64, scaled to [0, 1), is below the share.

    SplitMix64 (Steele et al. 2014) is seeded with its own output 0 for ``seed``. Used directly, neighboring seeds would
    select shifted rows.
    """
    bits = _split_mix(_split_mix(np.array([seed % 2**64], np.uint64), np.uint64(0)), numbers.astype(np.uint64))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share


def _split_mix(seed: NDArray[np.uint64], n: Any) -> NDArray[np.uint64]:
    """Return output n, counted from 0, of SplitMix64 with a seed."""
    with np.errstate(over="ignore"):
        x = seed + (n + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return found


def _scaled(matrix: Array, how: _Scaling) -> Array:
    if how.scale is None or how.bias is None:
        return matrix
    scaled = matrix * how.scale + how.bias
    scaled.flags.writeable = False
    return np.ascontiguousarray(scaled)


def _softmax(matrix: Array, labels: Array, how: _Scaling) -> Rows:
    return softmax_rows(_scaled(matrix, how), how.beta, labels=labels)


def _temperature(data: _Data) -> tuple[float, bool]:
    """Return the temperature with the smallest mean loss, and whether it is a bound of the search."""
    known: dict[float, float] = {}

    def slope(log_t: float) -> float:
        """Return the derivative of the mean loss by log beta; negative if a smaller temperature is better."""
        if log_t not in known:
            known[log_t] = data.mean(lambda matrix, labels: _slopes(matrix, labels, math.exp(-log_t)))
        return known[log_t]

    before = slope(0.0)
    if before == 0.0:
        return 1.0, False
    # A smaller temperature is better where the slope is negative.
    way = -1.0 if before < 0 else 1.0
    bound = math.log(SMALLEST_T if before < 0 else LARGEST_T)
    at = 0.0
    while at != bound:
        after = at + way * math.log(STEP)
        after = bound if way * (after - bound) > 0 else after
        if way * slope(after) < -NO_LOSS:
            root = scipy_optimize().root_scalar(slope, bracket=sorted((at, after)), method="brentq", xtol=PRECISION)
            return math.exp(root.root), False
        if abs(slope(after)) <= NO_LOSS:
            break
        at = after
    return (SMALLEST_T if way < 0 else LARGEST_T), True


def _slopes(matrix: Array, labels: Array, beta: float) -> Array:
    rows = softmax_rows(matrix, beta, labels=labels)
    entropy = np.empty(len(matrix))
    kernels.row_moments(matrix, labels, beta, rows.maxima, rows.rests, entropy, np.empty(0))
    return np.nan_to_num(rows.nll - entropy)


def _vector(data: _Data, beta: float) -> tuple[_Scaling, bool, list[str]]:
    """Return the scale and bias per class that minimize the mean loss, whether one is at a bound, and warnings.

    The search starts from the best temperature, as ``beta``.
    """
    k = data.n_classes
    if k > MOST_VECTOR_CLASSES:
        raise UsageError(
            f"{k:,} classes are more than the {MOST_VECTOR_CLASSES:,} that can have a scale each",
            where="--method",
            remedy="choose temperature",
        )

    def loss_and_gradient(x: Array) -> tuple[float, Array]:
        how = _Scaling(1.0, x[:k], x[k:])
        total, gradient = 0.0, np.zeros(2 * k)
        for matrix, labels in data.fitted():
            z = _scaled(matrix.astype(np.float64), how)
            probs = np.empty_like(z)
            rows = softmax_rows(z, 1.0, labels=labels, probs=probs)
            total += float(rows.nll.sum())
            probs[np.arange(len(labels)), labels] -= 1.0
            gradient[k:] += probs.sum(axis=0)
            # A masked class has probability 0, and its logit of -inf can't be multiplied.
            gradient[:k] += (probs * np.where(np.isfinite(matrix), matrix, 0.0)).sum(axis=0)
        return total / data.n_fit, gradient / data.n_fit

    bounds = [(1.0 / LARGEST_SCALE, LARGEST_SCALE)] * k + [(-LARGEST_BIAS, LARGEST_BIAS)] * k
    start = np.concatenate([np.full(k, min(max(beta, 1.0 / LARGEST_SCALE), LARGEST_SCALE)), np.zeros(k)])
    found = scipy_optimize().minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds)
    low, high = np.array(bounds).T
    at_bound = np.isclose(found.x, low, rtol=1e-9, atol=0.0) | np.isclose(found.x, high, rtol=1e-9, atol=0.0)
    trouble = []
    if at_bound.any():
        names = data.classes or [str(number) for number in range(k)]
        classes = [name for name, is_at in zip(names, at_bound[:k] | at_bound[k:], strict=True) if is_at]
        more = f" and {len(classes) - MOST_NAMED:,} more" if len(classes) > MOST_NAMED else ""
        trouble.append(
            f"the best scale or bias is at a bound of the search, {1 / LARGEST_SCALE:g} to {LARGEST_SCALE:g} and "
            f"{-LARGEST_BIAS:g} to {LARGEST_BIAS:g}, for class {', '.join(classes[:MOST_NAMED])}{more}: these rows "
            "determine none; more or other rows may help, or --method temperature"
        )
    if not found.success:
        trouble.append(f"the search for scales and biases ended before it converged: {found.message}")
    return _Scaling(1.0, found.x[:k], found.x[k:]), bool(at_bound.any()), trouble
