"""The computation of one row of logits, step by step and for one or several β, from softmax to the loss.

The results come from :func:`batchmax.jobs.score_batch.score_batch`, as for the rows of a file. The steps before them
are plain NumPy in float64; they may overflow, and nothing else is computed from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS
from batchmax.columns.job import plan_scoring
from batchmax.columns.label_column import Labels
from batchmax.errors import DataError, UsageError
from batchmax.functional.activations import activate, loss
from batchmax.jobs.score_batch import score_batch
from batchmax.jobs.sequence_trace import is_sequence, read_token
from batchmax.options.score_options import ScoreOptions, score_options
from batchmax.runtime.text import printable
from batchmax.scoring.bad_rows import describe_bad_row
from batchmax.scoring.score_rows import input_warnings, read_rows
from batchmax.sources.parquet_source import ParquetSource
from batchmax.statuses import LAST_BAD, Status

Vector = NDArray[np.floating[Any]]

SCORES = ("beta", "probs", "log_probs", "logsumexp", "loss", "losses", "status")
"""The values of :class:`Steps` that JSON has."""


@dataclass(frozen=True)
class Steps:
    """The computation of a row for one β; None where the row has no such value.

    Attributes
    ----------
    beta
        The factor on the logits.
    scaled, shifted
        βz, and βz minus its maximum, in float64.
    powers
        e^(βz) in the type of the logits: infinite or 0 where it overflows or underflows.
    total
        Σ e^(βz − max).
    probs, log_probs, logsumexp, loss, losses, status
        The outputs of ``score``.
    """

    beta: float
    scaled: Vector | None
    shifted: Vector | None
    powers: Vector | None
    total: float | None
    probs: Vector | None
    log_probs: Vector | None
    logsumexp: float | None
    loss: float | None
    losses: Sequence[float | None] | None
    status: str


@dataclass(frozen=True)
class RowTrace:
    """A row of logits, its label and its computation.

    Attributes
    ----------
    origin
        The file and the row, as text; empty for values of the command line.
    logits, largest
        The logits and their maximum; None if they can't be read.
    order
        The classes by descending logit, the lower index first among ties, and NaN last.
    classes
        The names of the classes; empty if they have none.
    label
        The index of the label; None if there is none, or no single valid one.
    targets
        Of a multi-label row, the target of each class, None where it is missing; None if there are no valid labels.
    is_independent
        Whether classes are independent; then there are no log-probabilities, and no logsumexp.
    steps
        The computation for each β.
    trouble
        What is wrong with a bad row, and a hint.
    warnings, assumed
        Warnings, and a note on what the numbers were assumed to be.
    """

    origin: str
    logits: Vector | None
    largest: float | None
    order: tuple[int, ...]
    classes: tuple[str, ...]
    label: int | None
    steps: tuple[Steps, ...]
    targets: tuple[float | None, ...] | None = None
    is_independent: bool = False
    trouble: str | None = None
    warnings: tuple[str, ...] = ()
    assumed: str = ""

    def class_name(self, index: int) -> str:
        """Return the name of a class, or an empty string if classes have no names."""
        return self.classes[index] if index < len(self.classes) else ""


def trace_values(values: Sequence[float], betas: Sequence[float | None], **given: Any) -> RowTrace:
    """Compute a row of numbers; ``given["label"]`` is a class, not a column.

    Raises
    ------
    UsageError
        An option is invalid.
    """
    label = given.pop("label", None)
    given["logits"] = "logits"
    given["label"] = "none" if label in {None, "none"} else "label"
    columns = {"logits": pa.array([list(values)], pa.list_(pa.float64()))}
    if given["label"] == "label":
        is_index = label.removeprefix("-").isdecimal() and given.get("classes") is None
        columns["label"] = pa.array([int(label) if is_index else label])
    options = _options(betas, given | {"n_classes": len(values)})
    return _trace("", pa.record_batch(columns), options)


def sequence_options(inputs: list[str], betas: Sequence[float | None], **given: Any) -> ScoreOptions | None:
    """Return the options for reading the rows if they are sequences, otherwise None.

    Raises
    ------
    UsageError
        An option is invalid, or there are several β.
    """
    options = _options(betas, given)
    if not is_sequence(inputs, options[0]):
        return None
    if len(options) > 1:
        raise UsageError("a sequence can be shown for only one β", where="--beta", remedy="choose a token: --token 0")
    return options[0]


def trace_row(
    inputs: list[str], number: int, betas: Sequence[float | None], *, token: int | None = None, **given: Any
) -> RowTrace:
    """Compute a row of files, whose number counts from 0 over all files, or one token of a sequence.

    Raises
    ------
    UsageError
        An option is invalid, or there is no such row or token.
    DataError
        A file can't be read.
    """
    options = _options(betas, given)
    if token is not None:
        origin, batch, job = read_token(inputs, number, token, options[0])
        # ``read_token`` has already applied the shift to the label.
        k, classes = job.n_logits, job.classes
        return _trace(origin, batch, [replace(one, n_classes=k, classes=classes, shift=False) for one in options])
    source = ParquetSource(inputs, options[0])
    file, batch = source.row(number)
    job = source.job
    label_format = job.options.label_format
    options = [replace(one, n_classes=job.n_logits, classes=job.classes, label_format=label_format) for one in options]
    return _trace(f"{printable(file)}: row {number:,}", batch, options)


def as_record(row: RowTrace) -> dict[str, Any]:
    """Return the row, serializable as JSON but for infinities and NaN."""
    return {
        "row": row.origin or None,
        "logits": _listed(row.logits),
        "classes": list(row.classes) or None,
        "label": row.label,
        "labels": None if row.targets is None else list(row.targets),
        "trouble": row.trouble,
        "scores": [{name: _listed(getattr(one, name)) for name in SCORES} for one in row.steps],
    }


def alternatives(row: RowTrace) -> dict[str, Any]:
    """Return the row under every activation, with the activation's losses if there is a label, for ``--json``.

    Raises
    ------
    DataError
        The logits can't be read.
    """
    if row.logits is None:
        raise DataError(row.trouble or "the row has no logits", where=row.origin, remedy="choose another row")
    z, temperature = np.asarray(row.logits, np.float64), 1.0 / row.steps[0].beta
    found: dict[str, Any] = {}
    for name, activation in ACTIVATIONS.items():
        probs = activate(z, name, temperature=temperature)
        losses = {}
        for kind in activation.losses if row.label is not None else ():
            if kind == "brier":  # an alias of mse
                continue
            how: dict[str, Any] = {"activation": name, "loss": kind, "temperature": temperature}
            value = float(loss(z, row.label, **how))  # type: ignore[arg-type]
            losses[kind] = None if np.isnan(value) else value
        found[name] = {"probs": None if np.isnan(probs).any() else probs.tolist(), "losses": losses}
    return {"row": row.origin or None, "logits": z.tolist(), "label": row.label, "activations": found}


def _options(betas: Sequence[float | None], given: dict[str, Any]) -> list[ScoreOptions]:
    # No columns are copied, so that a column of the file that is named probs can't collide.
    fixed = {"layout": "list", "columns": (), "outputs": ("status",), "on_bad_row": "null"}
    return [score_options(**given, **fixed, beta=beta) for beta in betas]


def _trace(origin: str, batch: pa.RecordBatch, options: Sequence[ScoreOptions]) -> RowTrace:
    job = plan_scoring(batch.schema, options[0])
    matrix, labels, known = read_rows(batch, job)
    logits = matrix[0] if known is None or known[0] > Status.BAD_LENGTH else None
    label = None
    if labels.indices is not None and (labels.status is None or labels.status[0] == Status.OK):
        label = int(labels.indices[0]) if 0 <= labels.indices[0] < job.n_classes else None
    is_independent = not ACTIVATIONS[job.options.activation_name].is_distribution
    of_row = ("probs",) if is_independent else ("probs", "log_probs", "logsumexp")
    of_label = ("loss", "losses") if is_independent else ("loss",)
    outputs = (*of_row, *(of_label if job.label is not None else ()), "status")
    steps = tuple(_steps(batch, logits, replace(one, outputs=outputs)) for one in options)
    status = Status[steps[0].status.upper()]
    return RowTrace(
        origin=origin,
        logits=logits,
        largest=None if logits is None else float(logits.max()),
        order=() if logits is None else tuple(np.argsort(-logits, kind="stable").tolist()),
        classes=job.classes or (),
        label=label,
        targets=_targets(labels) if is_independent else None,
        is_independent=is_independent,
        steps=steps,
        trouble="; ".join(filter(None, describe_bad_row(batch, 0, status, job))) if status <= LAST_BAD else None,
        warnings=() if logits is None else tuple(input_warnings(matrix, job)),
        assumed=job.assumed,
    )


def _targets(labels: Labels) -> tuple[float | None, ...] | None:
    """Return the target of each class of a row, None where it is missing; None if the row has no valid labels."""
    if labels.targets is None or (labels.status is not None and labels.status[0] != Status.OK):
        return None
    return tuple(None if np.isnan(one) else float(one) for one in labels.targets[0])


def _steps(batch: pa.RecordBatch, logits: Vector | None, options: ScoreOptions) -> Steps:
    result = score_batch(batch, options)
    found = {name: result.column(name)[0].as_py() for name in options.outputs or ()}
    scaled = shifted = powers = total = None
    if logits is not None:
        exact = logits.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            scaled = options.beta * exact
            shifted = options.beta * (exact - exact.max())
            powers = np.exp(scaled.astype(logits.dtype))
            total = float(np.exp(shifted).sum())
    return Steps(
        beta=options.beta,
        scaled=scaled,
        shifted=shifted,
        powers=powers,
        total=total,
        probs=_vector(found["probs"], logits),
        log_probs=_vector(found.get("log_probs"), logits),
        logsumexp=found.get("logsumexp"),
        loss=found.get("loss"),
        losses=found.get("losses"),
        status=found["status"],
    )


def _vector(values: Sequence[float] | None, logits: Vector | None) -> Vector | None:
    """Return values in the type of the logits, so that they have no more digits than were computed."""
    return None if values is None or logits is None else np.asarray(values, logits.dtype)


def _listed(value: Any) -> Any:
    """Return a vector as a list, other values unchanged."""
    return [float(one) for one in value] if isinstance(value, np.ndarray) else value
