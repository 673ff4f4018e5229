"""Calibration: fit a temperature, or a scale and a bias per class, so that probabilities match observed frequencies.

``calibration_fit`` searches, ``calibration_rows`` has the rows to fit to.

See Also
--------
Guo et al. 2017, "On calibration of modern neural networks", arXiv 1706.04599.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from batchmax import __version__
from batchmax.errors import UsageError
from batchmax.evaluation.calibration_fit import fit_scale_and_bias, fit_temperature
from batchmax.evaluation.calibration_rows import CalibrationRows, Scaling
from batchmax.evaluation.metrics import check_bins
from batchmax.options.gates import infinite_losses
from batchmax.options.input_options import InputOptions
from batchmax.options.score_options import resolve_options
from batchmax.results import CommandResult
from batchmax.runtime.progress import Progress
from batchmax.sinks.text_file import TextFile


@dataclass(kw_only=True)
class Calibration(CommandResult):
    """The result of a calibration. A missing value is None.

    Attributes
    ----------
    activation
        ``softmax``, or ``sigmoid`` for multi-label rows, whose loss is the sum of the losses of their classes.
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
        Number of rows, or tokens, whose loss is infinite at any temperature because the label's class is masked. They
        are left out.
    at_bound
        Whether the temperature, a scale or a bias is at a bound of the search: the best value may lie beyond it.

    Examples
    --------
    >>> import batchmax
    >>> result = batchmax.calibrate("data/digits.parquet", method="temperature")
    >>> result.n_fit + result.n_holdout
    899
    >>> 0.5 < result.temperature < 2, result.at_bound
    (True, False)
    """

    SHOWN = ("method", "temperature", "nll_before", "nll_after", "ece_before", "ece_after")

    method: str = "temperature"
    activation: str = "softmax"
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
    unit: Literal["row", "token"] = "row"
    """What was fitted to and held out; not in JSON."""

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary with the names of its JSON."""
        return {name: value for name, value in super().as_dict().items() if name != "unit"}


def calibrate(
    src: Any,
    out: str | None = None,
    options: InputOptions | None = None,
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
        One or several paths of files or folders, or globs; or a table, or another object with ``__arrow_c_stream__``
        that can be read several times.
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
    >>> result = batchmax.calibrate("data/digits.parquet", "calibration.json")
    >>> summary = batchmax.score("data/digits.parquet", "scored.parquet", calibration="calibration.json")
    """
    options = resolve_options(InputOptions, options, given)
    progress = progress or Progress()
    started = time.monotonic()
    if method not in {"temperature", "vector"}:
        raise UsageError(f"unknown method {method!r}", where="--method", remedy="choose temperature or vector")
    check_bins(bins)
    file = None if out is None else TextFile(out, (".json",), if_exists or "error", options.storage_options)
    data = CalibrationRows(src, options, holdout, seed, progress)
    job, files = data.source.job, [file.path for file in data.source.files]
    if file is not None:
        file.refuse_inputs(files)
    nll_before, ece_before = data.errors(bins, Scaling())
    if not data.n_fit:
        raise data.nothing_to_fit()
    warnings = list(data.warnings)
    unit: Literal["row", "token"] = "row" if job.nesting is None else "token"
    if rows := infinite_losses(data.infinite_losses, unit):
        what = "it" if data.infinite_losses == 1 else "them"
        warnings.append(f"{rows} at every temperature; the metrics leave {what} out")
    temperature, at_bound = fit_temperature(data)
    scaling = Scaling(beta=1.0 / temperature)
    if method == "vector":
        scaling, at_bound, more = fit_scale_and_bias(data, scaling.beta)
        temperature = 1.0
        warnings += more
    elif at_bound:
        is_small = temperature < 1.0
        why = data.loss.PERFECT if is_small else "labels don't depend on the logits"
        warnings.append(
            f"the best temperature is at the bound of the search, {temperature:g}, because {why}; "
            "more or other rows may help"
        )
    if holdout and not data.n_holdout:
        none = f"the only {unit} was not" if data.n_fit == 1 else f"none of the {data.n_fit:,} {unit}s was"
        warnings.append(
            f"{none} held out, so there are no metrics before and after: give more rows, "
            f"or measure on the {unit}s that were fitted to: --holdout 0"
        )
    notes = list(job.notes)
    if not holdout:
        notes.append(f"no {unit}s were held out: the metrics are of the {unit}s that were fitted to")
    nll_after, ece_after = data.errors(bins, scaling)
    for warning in warnings:
        progress.warn(warning)
    result = Calibration(
        method=method,
        temperature=temperature,
        scale=None if scaling.scale is None else scaling.scale.tolist(),
        bias=None if scaling.bias is None else scaling.bias.tolist(),
        nll_before=nll_before,
        nll_after=nll_after,
        ece_before=ece_before,
        ece_after=ece_after,
        n_rows=data.tally.rows,
        bad_rows=data.tally.bad_rows,
        activation=job.options.activation_name,
        n_classes=job.n_classes,
        n_fit=data.n_fit,
        n_holdout=data.n_holdout,
        infinite_losses=data.infinite_losses,
        at_bound=at_bound,
        classes=None if job.classes is None else list(job.classes),
        files=files,
        unified=list(data.source.unified),
        seconds=round(time.monotonic() - started, 3),
        warnings=[*data.source.warnings, *warnings],
        notes=notes,
        unit=unit,
    )
    if file is not None:
        file.write(json.dumps(result.as_dict(), indent=1, ensure_ascii=False) + "\n")
    return result
