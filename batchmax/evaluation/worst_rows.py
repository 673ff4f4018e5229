"""Find the rows with the largest loss in one pass, with only that many rows in memory.

Of equal losses, the first row is taken, so that the result depends only on the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS
from batchmax.columns.job import Job
from batchmax.columns.label_column import LABEL_SETS
from batchmax.columns.result_arrays import classes_column, pred_column
from batchmax.errors import UsageError
from batchmax.evaluation.row_stream import open_rows, refuse_bytes, row_batches
from batchmax.evaluation.top_rows import TopRows, decoded, decoded_type
from batchmax.jobs.pipeline import report_source
from batchmax.jobs.row_batch import RowBatch
from batchmax.kernels.elementwise import exp_values
from batchmax.options.input_options import InputOptions
from batchmax.options.score_options import resolve_options
from batchmax.runtime.progress import Progress
from batchmax.scoring.score_rows import carried_columns
from batchmax.sources.token_chunks import TokenChunk
from batchmax.statuses import LAST_WITHOUT_LOSS

NEEDED = ("pred", "confidence", "status", "preds")
"""Outputs to compute for every row, besides the loss."""

PLACE = ("file", "row")
"""Columns for the origin of a row; a token has a third."""

FIGURES = ("label", "pred", "p_label", "p_pred", "loss")
"""Columns after the carried ones."""

FIGURES_OF_SETS = ("label", "pred", "loss")
"""The same for multi-label rows, whose labels and predictions are lists of classes."""

HALF = 0.5
"""Classes with larger targets are listed as labels."""


def worst_rows(
    src: Any, n: int, options: InputOptions | None = None, *, progress: Progress | None = None, **given: Any
) -> pa.Table:
    """Return the rows with the largest losses over all inputs.

    Parameters
    ----------
    src
        Logits or scored output: one or several paths, or an object with ``__arrow_c_stream__``.
    n
        Number of rows, at least 1. Fewer are returned if fewer have a loss: bad, ignored and unlabeled rows have none.
    options
        As made by :func:`batchmax.score_options`; or pass its keyword arguments directly. ``columns`` and ``exclude``
        choose the carried columns. Columns that ``score`` computed are left out unless ``columns`` names them.
    progress
        Progress callbacks.

    Returns
    -------
    pyarrow.Table
        A table sorted by descending loss, +inf first, equal losses in input order. Its columns are ``file`` and ``row``
        (the row's number in the file, from 0), and for sequences ``token``; the carried columns, with the prefix
        ``input_`` if a name is already used; ``label`` and ``pred``, as names if the classes have names; ``p_label``
        and ``p_pred``, their probabilities (float64); and ``loss`` in nats (float64). ``label`` and ``p_label`` are
        null if labels are distributions. Of multi-label rows, ``label`` and ``pred`` are lists, the former
        of the classes with a target above 0.5, and there are no probabilities.

    Raises
    ------
    UsageError
        Invalid option or column, no labels, or more rows than fit in memory.
    DataError
        Unreadable input, or a bad row with the policy ``error``.

    See Also
    --------
    batchmax.compare : the rows that changed most from one model to another.

    Examples
    --------
    >>> import batchmax
    >>> import pyarrow as pa
    >>> table = pa.table({"logits": [[1.0, 2.0], [5.0, 0.0]], "label": [1, 1]})
    >>> batchmax.worst_rows(table, 1).select(["row", "label", "pred"]).to_pylist()
    [{'row': 1, 'label': 1, 'pred': 0}]
    """
    options = resolve_options(InputOptions, options, given)
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise UsageError(
            f"{n!r} is not a positive integer", where="--worst", remedy="give a number of rows: --worst 20"
        )
    refuse_bytes(options)
    source = open_rows(src, options, NEEDED)
    if source.job.label is None:
        raise UsageError("losses need labels", where="--worst", remedy="name their column: --label NAME")
    progress = progress or Progress()
    report_source(source, progress)
    rows = WorstRows(source.job, n)
    for batch in row_batches(source, progress):
        rows.add(batch)
    return rows.table


def figures_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns after the carried ones, given the names of all columns of a table of :func:`worst_rows`."""
    return FIGURES if names[-2] == FIGURES[-2] else FIGURES_OF_SETS


class WorstRows:
    """Collects the rows with the largest loss from the rows of a job."""

    def __init__(self, job: Job, n: int) -> None:
        self._job = job
        self._place = PLACE if job.nesting is None else (*PLACE, "token")
        self._has_sets = not ACTIVATIONS[job.options.activation_name].is_distribution
        self._figures = FIGURES_OF_SETS if self._has_sets else FIGURES
        is_shown = job.label is not None and (job.label.has_class or job.label.kind in LABEL_SETS)
        left_out = set(job.label_columns) if is_shown else set[str]()
        if job.nesting is not None:
            left_out.add(job.nesting.logits)  # not a column of tokens
        of_units = {} if job.nesting is None else {field.name: field for field in job.nesting.schema}
        self._carried = [of_units.get(one.name, one) for one in job.carried if one.name not in left_out]
        self._top = TopRows(n, self._schema(), job.options.memory_limit // 4)

    @property
    def table(self) -> pa.Table:
        """The rows so far, the largest loss first; see :func:`worst_rows`."""
        return self._top.table

    def add(self, batch: RowBatch) -> None:
        """Add some rows."""
        if batch.scores.losses is not None:
            has_loss = batch.scores.status > LAST_WITHOUT_LOSS
            losses = np.where(has_loss, batch.scores.losses, np.nan)
            self._top.add(losses, lambda rows: self._columns(batch, losses, rows))

    def _schema(self) -> pa.Schema:
        names = {*self._place, *self._figures}
        carried = [
            pa.field(f"input_{field.name}" if field.name in names else field.name, decoded_type(field.type))
            for field in self._carried
        ]
        by_name = self._job.classes is not None
        types: tuple[pa.DataType, ...] = pa.string() if by_name else pa.int64(), pa.string() if by_name else pa.int32()
        if self._has_sets:
            types = (pa.list_(types[1]),) * 2
        types += (pa.float64(),) * (len(self._figures) - 2)
        return pa.schema(
            [
                *(pa.field(name, pa.string() if name == "file" else pa.int64()) for name in self._place),
                *carried,
                *(pa.field(name, kind) for name, kind in zip(self._figures, types, strict=True)),
            ]
        )

    def _columns(self, batch: RowBatch, losses: NDArray[np.float64], rows: NDArray[np.intp]) -> list[pa.Array]:
        """Return the columns of the schema for some of the rows."""
        job, n = self._job, len(rows)
        taken = batch.chunk.take(rows, [field.name for field in self._carried])
        carried = {field.name: array for field, array in carried_columns(taken, job)}
        places = [batch.chunk.rows_of(rows)]
        if isinstance(batch.chunk, TokenChunk):
            places.append(batch.chunk.tokens.places()[1][rows])
        return [
            pa.array([batch.chunk.origin.file] * n, pa.string()),
            *(pa.array(place, pa.int64()) for place in places),
            *(decoded(carried[field.name]) for field in self._carried),
            *(self._sets(batch, rows) if self._has_sets else self._classes(batch, rows)),
            pa.array(losses[rows]),
        ]

    def _classes(self, batch: RowBatch, rows: NDArray[np.intp]) -> list[pa.Array]:
        """Return the labels and predictions of rows, and their probabilities."""
        job, scores, indices, n = self._job, batch.scores, batch.labels.indices, len(rows)
        label, p_label = pa.nulls(n, pa.int64() if job.classes is None else pa.string()), pa.nulls(n, pa.float64())
        if indices is not None and scores.nll is not None:
            label = pa.array(indices[rows])
            if job.classes is not None:
                label = pa.array(job.classes, pa.string()).take(label)
            probs = np.empty(n)
            exp_values(-scores.nll[rows], probs)
            p_label = pa.array(probs)
        pred = pred_column(scores.values["pred"][rows], job.classes)
        return [label, pred, p_label, pa.array(scores.values["confidence"][rows])]

    def _sets(self, batch: RowBatch, rows: NDArray[np.intp]) -> list[pa.Array]:
        """Return the labels and predictions of multi-label rows."""
        job, labels = self._job, batch.labels
        if labels.targets is not None:
            is_label = labels.targets[rows] > HALF
        else:
            assert labels.indices is not None  # noqa: S101 - rows with a loss have labels
            is_label = labels.indices[rows][:, np.newaxis] == np.arange(job.n_classes)
        return [classes_column(one, job.classes) for one in (is_label, batch.scores.values["preds"][rows])]
