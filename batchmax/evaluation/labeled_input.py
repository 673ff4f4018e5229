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

from batchmax.columns.arrow import column_types, number_values, plain_array, plain_type, valid_rows
from batchmax.columns.class_columns import refuse_as_class
from batchmax.columns.scored_input import loss_column
from batchmax.columns.sequences import token_values
from batchmax.errors import DataError, UsageError
from batchmax.evaluation.cluster_keys import check_cluster
from batchmax.evaluation.metrics import RowMetrics, row_metrics
from batchmax.evaluation.multi_label import EntryMetrics, entry_metrics
from batchmax.evaluation.row_stream import open_rows, read_if_stdin, schema_of
from batchmax.jobs.row_batch import RowBatch
from batchmax.options.input_options import InputOptions
from batchmax.options.parsing import refuse
from batchmax.runtime.text import close_match
from batchmax.sources.parquet_file import arrow_schema
from batchmax.sources.token_chunks import TokenChunk
from batchmax.statuses import LAST_WITHOUT_LOSS, Status

Array = NDArray[Any]


class LabeledInput:
    """Opens logits, or scored output, with labels, and computes the metrics of their rows.

    Parameters
    ----------
    src, options
        What to read, and how.
    by
        Additional columns to read.
    sample_weight
        Column of weights; None for weights of 1.
    cluster
        Column of clusters; None if there is none.

    Attributes
    ----------
    source
        The opened input, for :func:`batchmax.evaluation.row_stream.row_batches`.

    Raises
    ------
    UsageError
        Invalid option or column, or no labels.
    DataError
        Unreadable input.
    """

    def __init__(
        self,
        src: Any,
        options: InputOptions,
        by: Sequence[str],
        sample_weight: str | None,
        cluster: str | None = None,
    ) -> None:
        if options.label == "none":
            raise UsageError("metrics need labels", where="--label", remedy="name the column of labels")
        refuse(
            "metrics use plain losses",
            "leave it out",
            class_weights=options.class_weights,
            label_smoothing=options.label_smoothing,
            pos_weight=options.pos_weight,
        )
        src = read_if_stdin(src, options)
        written = loss_column(schema_of(src, options), options)
        columns = dict.fromkeys(by, "--by")
        if sample_weight is not None:
            columns[sample_weight] = "--sample-weight"
        if cluster is not None:
            columns.setdefault(cluster, "--cluster")
        if written is not None:
            columns.setdefault(written, "--columns")
        self.source = open_rows(src, options, ("loss", "losses"), columns)
        job = self.source.job
        if job.label is None:
            raise UsageError(
                "there is no label column, and metrics need labels",
                where="--label",
                remedy=close_match("label", self.source.schema.names) + "name it: --label NAME",
            )
        refuse_as_class(job.logits, "--by", by)
        if cluster is not None:
            refuse_as_class(job.logits, "--cluster", [cluster])
            check_cluster(cluster, column_types(self.source.schema)[cluster])
        if sample_weight is not None:
            refuse_as_class(job.logits, "--sample-weight", [sample_weight])
            kind = column_types(self.source.schema)[sample_weight]
            if not (pa.types.is_integer(plain_type(kind)) or pa.types.is_floating(plain_type(kind))):
                what = f"column {sample_weight!r} has type {kind}, not a number type"
                raise UsageError(what, where="--sample-weight", remedy="name another column")
        self._weight = sample_weight
        is_same = all(loss_column(arrow_schema(one.metadata), options) == written for one in self.source.files)
        self._written = written if is_same else None

    def metrics(self, batch: RowBatch) -> RowMetrics:
        """Return the metrics of some rows.

        Raises
        ------
        DataError
            A weight is null, negative or not finite.
        """
        labels, scores = batch.labels, batch.scores
        weights = self._weights_of(batch)
        beta = self.source.job.options.beta
        some = row_metrics(batch.matrix, labels.indices, labels.targets, beta, scores.rows, weights)
        # The status may change where the input contains the losses.
        rows = replace(scores.rows, nll=self._losses(batch))
        return replace(some, rows=rows, counted=scores.status > LAST_WITHOUT_LOSS)

    def class_metrics(self, batch: RowBatch) -> EntryMetrics:
        """Return the metrics of some rows whose classes are independent; raise as :meth:`metrics`."""
        scores, labels = batch.scores, batch.labels
        counted, nll = scores.status > LAST_WITHOUT_LOSS, np.zeros(0) if scores.nll is None else scores.nll
        losses, weights, beta = scores.values["losses"], self._weights_of(batch), self.source.job.options.beta
        return entry_metrics(batch.matrix, labels.indices, labels.targets, beta, (nll, losses), weights, counted)

    def _weights_of(self, batch: RowBatch) -> Array:
        return np.zeros(0) if self._weight is None else self._weights(batch, self._weight)

    def _losses(self, batch: RowBatch) -> Array:
        """Return the losses, taken from the input where it contains them."""
        nll, status = batch.scores.nll, batch.scores.status
        if nll is None or self._written is None:
            return np.zeros(0) if nll is None else nll
        name, chunk = self._written, batch.chunk
        column = plain_array(token_values(chunk.tokens, name) if isinstance(chunk, TokenChunk) else chunk.values(name))
        losses = np.where(valid_rows(column), number_values(column).astype(np.float64), nll)
        # The loss was computed before the label's probability was rounded to 0 in the file.
        status[(status == Status.MASKED_LABEL) & np.isfinite(losses)] = Status.OK
        return losses

    def _weights(self, batch: RowBatch, name: str) -> Array:
        column = plain_array(batch.chunk.values(name))
        weights = number_values(column).astype(np.float64)
        wrong = ~valid_rows(column) | ~(np.isfinite(weights) & (weights >= 0))
        if wrong.any():
            row = int(np.argmax(wrong))
            value = column[row].as_py()
            raise DataError(
                f"the weight is {'null' if value is None else value}",
                where=batch.chunk.place(row),
                remedy="weights must be finite and not negative; fix them, or leave out --sample-weight",
            )
        return weights
