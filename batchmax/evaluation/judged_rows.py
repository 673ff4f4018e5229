"""Metrics of single rows: prediction, rank of the label, loss and Brier score, with the row's weight.

Knows how rows are read; doesn't know how metrics are accumulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax import kernels
from batchmax.columns.arrow import column_types, number_values, plain_array, plain_type, valid_rows
from batchmax.columns.class_columns import refuse_as_class
from batchmax.columns.scored_input import loss_column
from batchmax.columns.sequences import token_values
from batchmax.errors import DataError, UsageError
from batchmax.evaluation.metrics import Judged
from batchmax.evaluation.row_stream import OWN_PREFIX, Seen, open_rows, schema_of
from batchmax.options.score_options import ScoreOptions
from batchmax.outputs import LAST_WITHOUT_LOSS, Status
from batchmax.runtime.text import close_match
from batchmax.sources.parquet_file import arrow_schema
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.streams.stream_source import StreamSource
from batchmax.sources.token_chunks import TokenChunk

Array = NDArray[Any]


class Judging:
    """Opens logits, or scored output, with labels, and computes the metrics of their rows.

    Parameters
    ----------
    src, options
        What to read, and how.
    by
        Additional columns to read.
    sample_weight
        Column of weights; None for weights of 1.

    Attributes
    ----------
    source
        The opened input, for :func:`batchmax.evaluation.row_stream.rows_of`.
    is_dense
        Whether labels are distributions.

    Raises
    ------
    UsageError
        Invalid option or column, or no labels.
    DataError
        Unreadable input.
    """

    def __init__(self, src: Any, options: ScoreOptions, by: Sequence[str], sample_weight: str | None) -> None:
        if options.label == "none":
            raise UsageError(
                "nothing can be judged without labels", where="--label", remedy="name the column of labels"
            )
        for name, value in (("--class-weights", options.class_weights), ("--label-smoothing", options.label_smoothing)):
            if value:
                raise UsageError("a model is judged by its plain losses", where=name, remedy="leave it out")
        written = loss_column(schema_of(src, options), options)
        self.source = _opened(src, options, by, sample_weight, written)
        label = self.source.job.label
        if label is None:
            raise UsageError(
                "there is no label column, and nothing can be judged without labels",
                where="--label",
                remedy=close_match("label", self.source.schema.names) + "name it: --label NAME",
            )
        refuse_as_class(self.source.job.logits, "--by", by)
        if sample_weight is not None:
            refuse_as_class(self.source.job.logits, "--sample-weight", [sample_weight])
            _check_weights(sample_weight, column_types(self.source.schema)[sample_weight])
        self.is_dense = label.kind == "distribution"
        self._weight = sample_weight
        is_same = all(loss_column(arrow_schema(one), options) == written for one in self.source.files)
        self._written = written if is_same else None

    def judge(self, seen: Seen) -> Judged:
        """Return the metrics of some rows.

        Raises
        ------
        DataError
            A weight is null, negative or not finite.
        """
        job, labels, n = self.source.job, seen.labels, len(seen.matrix)
        weights = np.zeros(0) if self._weight is None else self._weights(seen, self._weight)
        pred, rank, brier = np.empty(n, np.int32), np.zeros(n, np.int32), np.empty(n)
        rows, beta, indices = seen.scores.rows, job.options.beta, labels.indices
        if indices is None:
            kernels.soft_metric_rows(seen.matrix, labels.targets, beta, rows.maxima, rows.rests, brier)
            indices = np.zeros(0, np.int64)
        else:
            kernels.metric_rows(seen.matrix, indices, beta, rows.maxima, rows.rests, rows.nll, pred, rank, brier)
        nll = self._losses(seen)
        counted = seen.scores.status > LAST_WITHOUT_LOSS
        return Judged(replace(rows, nll=nll), indices, pred, rank, brier, weights, counted)

    def _losses(self, seen: Seen) -> Array:
        """Return the losses, taken from the input where it contains them."""
        nll, status = seen.scores.nll, seen.scores.status
        if nll is None or self._written is None:
            return np.zeros(0) if nll is None else nll
        name, chunk = self._written, seen.chunk
        column = plain_array(token_values(chunk.tokens, name) if isinstance(chunk, TokenChunk) else chunk.values(name))
        losses = np.where(valid_rows(column), number_values(column).astype(np.float64), nll)
        # The loss was computed before the label's probability was rounded to 0 in the file.
        status[(status == Status.MASKED_LABEL) & np.isfinite(losses)] = Status.OK
        return losses

    def _weights(self, seen: Seen, name: str) -> Array:
        column = plain_array(seen.chunk.values(name))
        weights = number_values(column).astype(np.float64)
        wrong = ~valid_rows(column) | ~(np.isfinite(weights) & (weights >= 0))
        if wrong.any():
            row = int(np.argmax(wrong))
            value = column[row].as_py()
            raise DataError(
                f"the weight is {'null' if value is None else value}",
                where=seen.chunk.place(row),
                remedy="weights are numbers from 0 on; mend them, or leave --sample-weight out",
            )
        return weights


def _opened(
    src: Any, options: ScoreOptions, by: Sequence[str], sample_weight: str | None, written: str | None
) -> ParquetSource | StreamSource:
    """Open the input with the requested columns only."""
    asked = dict.fromkeys(by, "--by")
    if sample_weight is not None:
        asked[sample_weight] = "--sample-weight"
    columns = tuple(asked) if written is None or written in asked else (*asked, written)
    options = replace(options, outputs=("loss",), columns=columns, exclude=(), top_k=None, rejects=None, fail_if=None)
    try:
        return open_rows(src, replace(options, prefix=OWN_PREFIX))
    except UsageError as error:
        if error.where.endswith("--columns"):
            option = next((option for name, option in asked.items() if repr(name) in error.what), "--columns")
            error.where = error.where.removesuffix("--columns") + option
        raise


def _check_weights(name: str, kind: pa.DataType) -> None:
    plain = plain_type(kind)
    if not (pa.types.is_integer(plain) or pa.types.is_floating(plain)):
        raise UsageError(
            f"column {name!r} holds {kind}, not numbers", where="--sample-weight", remedy="name another column"
        )
