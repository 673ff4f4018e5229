"""One row of logits and its results for each β.

The results come from :func:`batchmax.jobs.score_batch.score_batch`, as for the rows of a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS
from batchmax.cli.render import tokens
from batchmax.columns.job import plan_scoring
from batchmax.errors import DataError, UsageError
from batchmax.functional.activations import activate, loss
from batchmax.jobs.score_batch import score_batch
from batchmax.options.score_options import ScoreOptions, score_options
from batchmax.outputs import LAST_BAD, Status
from batchmax.runtime.text import printable
from batchmax.scoring.bad_rows import describe_bad_row
from batchmax.scoring.score_rows import doubts_about, read_rows
from batchmax.sources.parquet_source import ParquetSource

Vector = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scores:
    """The results of a row for one β; None where the row has no such value."""

    beta: float
    probs: Vector | None
    log_probs: Vector | None
    logsumexp: float | None
    loss: float | None
    status: str


@dataclass(frozen=True)
class Row:
    """A row of logits, its label and its results.

    ``trouble`` describes what is wrong with a bad row, ``doubts`` are warnings, and ``assumed`` is a note on what the
    numbers were assumed to be.
    """

    origin: str
    logits: Vector | None
    classes: tuple[str, ...]
    label: int | None
    scores: tuple[Scores, ...]
    trouble: str | None = None
    doubts: tuple[str, ...] = ()
    assumed: str = ""

    def class_name(self, index: int) -> str:
        """Return the name of a class, or an empty string if classes have no names."""
        return self.classes[index] if index < len(self.classes) else ""


def from_values(values: Sequence[float], betas: Sequence[float | None], **given: Any) -> Row:
    """Return a row from numbers on the command line; ``given["label"]`` is a class, not a column."""
    label = given.pop("label", None)
    given["logits"] = "logits"
    given["label"] = "none" if label in {None, "none"} else "label"
    columns = {"logits": pa.array([list(values)], pa.list_(pa.float64()))}
    if given["label"] == "label":
        is_index = label.removeprefix("-").isdecimal() and given.get("classes") is None
        columns["label"] = pa.array([int(label) if is_index else label])
    options = _options(betas, given | {"n_classes": len(values)})
    if len(values) == 1:
        what = "there is one number, whose softmax is always 1"
        raise UsageError(what, where="--values", remedy=f"for a binary classifier give two: --values 0,{values[0]:g}")
    return _row("", pa.record_batch(columns), options)


def sequence(inputs: list[str], betas: Sequence[float | None], **given: Any) -> ScoreOptions | None:
    """Return the options for reading the rows if they are sequences, otherwise None."""
    options = _options(betas, given)
    if not tokens.is_sequence(inputs, options[0]):
        return None
    if len(options) > 1:
        raise UsageError("several of them go with one token", where="--beta", remedy="name it: --token 0")
    return options[0]


def from_files(
    inputs: list[str], number: int, betas: Sequence[float | None], *, token: int | None = None, **given: Any
) -> Row:
    """Return a row, counted from 0 over all files, or one token of a sequence."""
    options = _options(betas, given)
    if token is not None:
        if not tokens.is_sequence(inputs, options[0]):
            raise UsageError("the rows are no sequences", where="--token", remedy="leave it out")
        origin, batch, job = tokens.token_of(inputs, number, token, options[0])
        # ``token_of`` has already applied the shift to the label.
        k, classes = job.n_classes, job.classes
        return _row(origin, batch, [replace(one, n_classes=k, classes=classes, shift=False) for one in options])
    source = ParquetSource(inputs, options[0])
    file, batch = source.row(number)
    options = [replace(one, n_classes=source.job.n_classes, classes=source.job.classes) for one in options]
    return _row(f"{printable(file)}: row {number:,}", batch, options)


def as_record(row: Row) -> dict[str, Any]:
    """Return the row as a dictionary for ``--json``."""
    return {
        "row": row.origin or None,
        "logits": _listed(row.logits),
        "classes": list(row.classes) or None,
        "label": row.label,
        "trouble": row.trouble,
        "scores": [
            {
                "beta": scores.beta,
                "probs": _listed(scores.probs),
                "log_probs": _listed(scores.log_probs),
                "logsumexp": scores.logsumexp,
                "loss": scores.loss,
                "status": scores.status,
            }
            for scores in row.scores
        ],
    }


def alternatives(row: Row) -> dict[str, Any]:
    """Return the row under every activation, with the activation's losses if there is a label, for ``--json``."""
    if row.logits is None:
        raise DataError(row.trouble or "the row has no logits", where=row.origin, remedy="show another")
    z, temperature = np.asarray(row.logits, np.float64), 1.0 / row.scores[0].beta
    found: dict[str, Any] = {}
    for name, activation in ACTIVATIONS.items():
        probs = activate(z, name, temperature=temperature)  # type: ignore[arg-type]
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
    # No columns are carried, so that a column of the file that is named probs can't collide.
    fixed = {"layout": "list", "columns": (), "outputs": ("status",), "on_bad_row": "null"}
    return [score_options(**given, **fixed, beta=beta) for beta in betas]


def _row(origin: str, batch: pa.RecordBatch, options: Sequence[ScoreOptions]) -> Row:
    job = plan_scoring(batch.schema, options[0])
    matrix, labels, known = read_rows(batch, job)
    is_read = known is None or known[0] > Status.BAD_LENGTH
    label = None
    if labels.indices is not None and (labels.status is None or labels.status[0] == Status.OK):
        label = int(labels.indices[0]) if 0 <= labels.indices[0] < job.n_classes else None
    wanted = ("probs", "log_probs", "logsumexp", *(("loss",) if job.label else ()), "status")
    scores = []
    for one in options:
        result = score_batch(batch, replace(one, outputs=wanted))
        found = {name: result.column(name)[0].as_py() for name in wanted}
        scores.append(
            Scores(
                one.beta,
                _vector(found["probs"], matrix.dtype),
                _vector(found["log_probs"], matrix.dtype),
                found["logsumexp"],
                found.get("loss"),
                found["status"],
            )
        )
    status = Status[scores[0].status.upper()]
    trouble = describe_bad_row(batch, 0, status, job)[0] if status <= LAST_BAD else None
    logits = matrix[0] if is_read else None
    doubts = () if logits is None else tuple(doubts_about(matrix, job))
    return Row(origin, logits, job.classes or (), label, tuple(scores), trouble, doubts, job.assumed)


def _vector(values: Sequence[float] | None, dtype: np.dtype[Any]) -> Vector | None:
    return None if values is None else np.asarray(values, dtype)


def _listed(vector: Vector | None) -> list[float] | None:
    return None if vector is None else [float(value) for value in vector]
