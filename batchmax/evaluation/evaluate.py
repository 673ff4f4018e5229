"""Evaluate a model: metrics of logits, or of scored output, in one pass, and gates on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax import __version__
from batchmax.activations import ACTIVATIONS
from batchmax.columns.arrow import column_array, column_types
from batchmax.columns.job import check_token_figures
from batchmax.errors import GateError
from batchmax.evaluation.groups import Groups
from batchmax.evaluation.labeled_input import LabeledInput
from batchmax.evaluation.metric_table import SCHEMA, metric_rows
from batchmax.evaluation.metrics import CONFIDENCE_BINS, LOSS_BINS, MetricSums, RowMetrics, check_bins, top_k_values
from batchmax.evaluation.multi_label import MULTI_LABEL_NOTE, ClassMetrics, ClassSums, check_independent
from batchmax.evaluation.row_stream import row_batches
from batchmax.jobs.pipeline import report_source
from batchmax.jobs.row_batch import RowBatch
from batchmax.options.gates import NO_ROWS, TOKEN_FIGURES, Figure, Gate, figure, infinite_losses, without_loss
from batchmax.options.input_options import InputOptions
from batchmax.options.parsing import names_of
from batchmax.options.score_options import IfExists, resolve_options
from batchmax.results import CommandResult
from batchmax.runtime.progress import Progress
from batchmax.scoring.sequence_totals import SequenceTally, text_bytes
from batchmax.scoring.summary import TOKEN_FIELDS, without_text
from batchmax.scoring.tally import Tally, named_counts
from batchmax.sinks.table_file import table_output, table_sink
from batchmax.sources.chunks import Chunk
from batchmax.sources.token_chunks import TokenChunk

MOST_LISTED = 10_000
"""Largest number of groups that a result lists."""


@dataclass(kw_only=True)
class Evaluation(CommandResult):
    """The result of an evaluation. A value that is missing or not finite is None.

    If labels are distributions, there are losses and Brier scores; metrics that need a class are None or empty. For
    multi-label rows, there are losses, and a Brier score and calibration errors over the classes of all rows.

    Attributes
    ----------
    n_rows
        Number of rows, including those without a label or a result. All other metrics are over rows with a loss,
        weighted by ``sample_weight`` as in scikit-learn: supports, the confusion matrix and the rows of bins are then
        sums of weights. Statuses, histograms and the rows of slices are counts.
    n_tokens, bits_per_token, bits_per_byte, token_status_counts
        For sequences, otherwise None: the number of tokens with a loss, the loss in bits per token and per byte, and
        the number of tokens with each status. For sequences, all metrics are over tokens, except ``n_rows``,
        ``bad_rows``, ``bad_rate`` and ``status_counts``, as in :class:`batchmax.scoring.summary.ScoreSummary`.
        ``bits_per_byte`` needs ``bytes``.
    mean_loss, log_likelihood, perplexity
        Mean cross-entropy in nats, its negative sum, and exp of the mean.
    top_k_accuracy
        By k: share of rows whose label is among the k largest logits; of equal logits, the lower index comes first.
    brier
        Mean over rows of the sum over classes of (p - y)**2, not halved. For multi-label rows, the mean over classes.
    ece, mce, rmsce
        Expected, maximum and root mean square calibration error: distance of confidence and accuracy over bins of equal
        width. A confidence of 1 is in the last bin. For multi-label rows, distance of the mean probability and the
        share of labels, over bins of the probabilities of all classes.
    bins
        The bins: borders, weight, mean confidence, accuracy.
    per_class
        Support, number of predictions, precision, recall, F1 and mean loss, in the order of the logits. Recall is None
        for a class without rows, precision for a class that was never predicted; scikit-learn returns
        ``zero_division``.
    confusion
        Rows by label and predicted class; None for more than 1000 classes.
    slices
        By column: metrics of the rows of each value, the largest group first; empty for more than 10,000 groups, which
        only the table ``out`` lists. For sequences, ``n_tokens`` is the number of tokens with a loss.
    losses, confidences
        Histograms: of the loss in tenths of a nat, with all larger losses in the last bin, and of the confidence of
        right and wrong rows.

    Examples
    --------
    >>> import batchmax
    >>> result = batchmax.evaluate("data/digits.parquet")
    >>> result.top_k_accuracy
    {'5': 0.99...}
    >>> result.per_class[0]["support"]
    89
    >>> result.to_json()
    '{"n_rows": 899, ...}'
    """

    SHOWN = ("n_rows", "n_classes", "mean_loss", "accuracy", "perplexity", "brier", "ece", "bad_rows")

    n_rows: int = 0
    n_classes: int | None = None
    classes: list[str] | None = None
    mean_loss: float | None = None
    log_likelihood: float | None = None
    accuracy: float | None = None
    top_k_accuracy: dict[str, float | None] = field(default_factory=dict)
    perplexity: float | None = None
    brier: float | None = None
    ece: float | None = None
    mce: float | None = None
    rmsce: float | None = None
    bins: list[dict[str, Any]] = field(default_factory=list)
    per_class: list[dict[str, Any]] = field(default_factory=list)
    confusion: list[list[float]] | None = None
    slices: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    confidences: dict[str, list[float]] = field(default_factory=dict)
    bad_rows: int = 0
    bad_rate: float | None = None
    infinite_losses: int = 0
    status_counts: dict[str, int] = field(default_factory=dict)
    n_tokens: int | None = None
    bits_per_token: float | None = None
    bits_per_byte: float | None = None
    token_status_counts: dict[str, int] | None = None
    files: list[str] = field(default_factory=list)
    unified: list[dict[str, Any]] = field(default_factory=list)
    bytes_read: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    version: str = __version__

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary, with the names of the JSON."""
        hidden = TOKEN_FIELDS if self.token_status_counts is None else ()
        return {name: value for name, value in vars(self).items() if name not in hidden}

    def metrics(self) -> dict[str, Figure]:
        """Return the metrics that a condition can name; ``top_k_accuracy`` is the one with the largest k."""
        no_rows = "" if self.n_rows else NO_ROWS
        tokens = self.token_status_counts
        of, counts = ("row", self.status_counts) if tokens is None else ("token", tokens)
        no_loss = without_loss(counts, of)
        # Every row with a loss has a Brier score, so it is None only without such rows or without weight.
        no_weight = "the weights of the rows sum to 0, or are too large" if self.brier is None else ""
        infinite = infinite_losses(self.infinite_losses, of)
        no_tokens = "the rows are not sequences" if tokens is None else ""
        no_bytes = without_text(self.status_counts) if self.bits_per_byte is None else ""
        no_classes = "" if self.per_class else "labels are distributions or multi-label, which have no class"
        no_bins = "" if self.bins else no_classes
        too_large = "exp of the mean loss is too large" if self.perplexity is None else ""
        largest = max(self.top_k_accuracy, key=int, default=None)
        no_top_k = "no top-k accuracy is computed" if largest is None else ""
        return {
            "n_rows": figure(self.n_rows),
            "n_classes": figure(self.n_classes),
            "mean_loss": figure(self.mean_loss, no_loss, no_weight, infinite),
            "log_likelihood": figure(self.log_likelihood, no_loss, no_weight, infinite),
            "accuracy": figure(self.accuracy, no_loss, no_weight, no_classes),
            "perplexity": figure(self.perplexity, no_loss, no_weight, infinite, too_large),
            "bad_rows": figure(self.bad_rows, no_rows),
            "bad_rate": figure(self.bad_rate, no_rows),
            "infinite_losses": figure(self.infinite_losses, no_loss, no_weight),
            "n_tokens": figure(self.n_tokens, no_tokens),
            "bits_per_token": figure(self.bits_per_token, no_tokens, no_loss, infinite),
            "bits_per_byte": figure(self.bits_per_byte, no_tokens, no_loss, infinite, no_bytes),
            "brier": figure(self.brier, no_loss, no_weight),
            "ece": figure(self.ece, no_loss, no_weight, no_bins),
            "mce": figure(self.mce, no_loss, no_weight, no_bins),
            "rmsce": figure(self.rmsce, no_loss, no_weight, no_bins),
            "top_k_accuracy": figure(self.top_k_accuracy.get(largest or ""), no_loss, no_weight, no_classes, no_top_k),
            "bytes_read": figure(self.bytes_read, "" if self.files else "the size of a stream is not known"),
            "seconds": figure(self.seconds),
        }


EVALUATION_GATES = tuple(Evaluation().metrics())
"""Names that a condition can use."""


def evaluate(
    src: Any,
    options: InputOptions | None = None,
    *,
    out: str | None = None,
    if_exists: IfExists | None = None,
    bins: int = 15,
    top_k: int | Iterable[int] | None = None,
    sample_weight: str | None = None,
    by: str | Iterable[str] = (),
    fail_if: str | None = None,
    progress: Progress | None = None,
    **given: Any,
) -> Evaluation:
    """Compute metrics of logits, or of scored output, in one pass and bounded memory.

    Parameters
    ----------
    src
        One or several paths of files or folders, or globs; or an object with ``__arrow_c_stream__``.
    options, given
        How rows are read, as for :func:`batchmax.score`.
    out
        Output file for the metrics as a Parquet table, or None.
    if_exists
        What to do if ``out`` exists: ``error`` or ``overwrite``.
    bins
        Number of confidence bins of the calibration errors, 1 to 1000.
    top_k
        One or several k for ``top_k_accuracy``; by default 5 if there are more than 5 classes.
    sample_weight
        Column with a weight per row.
    by
        Columns to group rows by.
    fail_if
        Condition on the metrics, as for :func:`batchmax.score`; raises if it is true.
    progress
        Progress callbacks.

    Raises
    ------
    UsageError
        Invalid option or column, no labels, or class weights or label smoothing, which metrics don't use.
    DataError
        Unreadable input, a bad row with the policy ``error``, an invalid weight, or more groups than fit in memory.
    OutputError
        The table can't be written.
    GateError
        The condition is true; nothing is written.

    Examples
    --------
    >>> import batchmax
    >>> result = batchmax.evaluate("data/digits.parquet", bins=10)
    >>> round(result.accuracy, 3), round(result.brier, 3)
    (0.966, 0.049)
    """
    options = resolve_options(InputOptions, options, given)
    gate = None if fail_if is None else Gate(fail_if, EVALUATION_GATES)
    job = _EvaluationPass(src, options, bins, top_k, sample_weight, by, progress or Progress())
    if out is None:
        return job.run(gate)
    inputs = [file.path for file in job.source.files]
    output = table_output(out, if_exists or "error", inputs, options.storage_options)
    with table_sink(output, job.schema) as sink:
        result = job.run(gate, sink.write)
        sink.write(job.table(result))
        sink.publish()
    return result


class _EvaluationPass:
    def __init__(
        self,
        src: Any,
        options: InputOptions,
        bins: int,
        top_k: int | Iterable[int] | None,
        sample_weight: str | None,
        by: str | Iterable[str],
        progress: Progress,
    ) -> None:
        self._started = time.monotonic()
        self._progress = progress
        check_bins(bins)
        columns = list(dict.fromkeys(names_of("by", by)))
        self._input = LabeledInput(src, options, columns, sample_weight)
        self.source = self._input.source
        job = self.source.job
        self._is_independent = not ACTIVATIONS[job.options.activation_name].is_distribution
        if self._is_independent:
            check_independent(columns, top_k, job)
            self._counts: MetricSums | ClassSums = ClassSums(bins)
        else:
            self._counts = MetricSums(job.n_classes, top_k_values(top_k, job.n_classes), bins)
        types = column_types(self.source.schema)
        memory = options.memory_limit // max(1, len(columns))
        nested, text = job.nesting is not None, options.bytes is not None
        self._groups = [Groups(name, types[name], bins, memory, nested=nested, has_text=text) for name in columns]
        self._tally = Tally()
        self._warnings: list[str] = []
        self._sequences = SequenceTally(shift=job.options.shift, n_sums=1)

    @property
    def schema(self) -> pa.Schema:
        """The columns of the table of metrics."""
        return self._groups[0].schema if len(self._groups) == 1 else SCHEMA

    def table(self, result: Evaluation) -> pa.RecordBatch:
        """Return the metrics as a table, without the groups that were already written."""
        if len(self._groups) == 1:
            return self._groups[0].table()
        return metric_rows(result.as_dict() | {"slices": {group.name: group.metrics() for group in self._groups}})

    def run(self, gate: Gate | None, write: Callable[[pa.RecordBatch], None] | None = None) -> Evaluation:
        """Read every row; ``write`` receives groups that don't fit in memory."""
        if gate is not None and "top_k_accuracy" in gate.names and not getattr(self._counts, "top_k", ()):
            what = f"no top-k accuracy is computed for {self.source.job.n_classes} classes"
            raise gate.unknown("top_k_accuracy", what, "choose k: --top-k 2")
        if gate is not None:
            check_token_figures(gate, self.source.job.options, self.source.job.nesting, TOKEN_FIGURES)
        report_source(self.source, self._progress)
        if len(self._groups) == 1:
            self._groups[0].give = write
        # Counting uses one core, while the kernels compute the next rows on all of them.
        with ThreadPoolExecutor(1, "count") as counter:
            counting = counter.submit(lambda: None)
            for batch in row_batches(self.source, self._progress, self._warnings):
                some = self._input.class_metrics(batch) if self._is_independent else self._input.metrics(batch)
                counting.result()
                counting = counter.submit(self._count, batch, some)
            counting.result()
        result = self._result(writes=write is not None)
        if gate is not None and (reason := gate.failure(result.metrics())):
            raise GateError(reason, where=", ".join(result.files))
        return result

    def _count(self, batch: RowBatch, some: RowMetrics | ClassMetrics) -> None:
        chunk, status, counts = batch.chunk, batch.scores.status, self._counts
        if isinstance(some, ClassMetrics) and isinstance(counts, ClassSums):
            counts.add(some)
            self._tally.add(status)
        elif isinstance(some, RowMetrics) and isinstance(counts, MetricSums):
            counts.add(some)
            self._count_in_groups(chunk, status, some)

    def _count_in_groups(self, chunk: Chunk, status: NDArray[np.uint8], some: RowMetrics) -> None:
        if isinstance(chunk, TokenChunk):
            self._count_sequences(chunk, status, some)
            return
        self._tally.add(status)
        for group in self._groups:
            group.add(chunk.values(group.name), some)

    def _count_sequences(self, chunk: TokenChunk, status: NDArray[np.uint8], some: RowMetrics) -> None:
        nll, tokens, name = some.rows.nll, chunk.tokens, self.source.job.options.bytes
        self._tally.add(status, nll, nll)
        totals = self._sequences.add(tokens, status, (nll,)).first(tokens.n_ended)
        self._tally.add_sequences(totals.status)
        n_bytes = np.zeros(len(totals.status), np.int64)
        if name is not None:
            n_bytes = text_bytes(chunk, name, totals)
            self._tally.add_text(n_bytes, totals.sums[0], totals.is_scored)
        for group in self._groups:
            group.add(column_array(tokens.rows, group.name), some, (tokens.lengths, totals, n_bytes))

    def _result(self, *, writes: bool) -> Evaluation:
        source, job, tally, counts = self.source, self.source.job, self._tally, self._counts
        result = Evaluation(
            **counts.metrics(),
            n_rows=tally.rows,
            n_classes=job.n_classes,
            classes=None if job.classes is None else list(job.classes),
            bad_rows=tally.bad_rows,
            bad_rate=tally.bad_rows / tally.rows if tally.rows else None,
            infinite_losses=counts.infinite_losses,
            status_counts=named_counts(tally.row_statuses),
            files=[file.path for file in source.files],
            bytes_read=source.size or 0,
            seconds=round(time.monotonic() - self._started, 3),
            unified=list(source.unified),
            notes=list(job.notes),
        )
        if job.nesting is not None:
            result.n_tokens, result.token_status_counts = tally.judged, named_counts(tally.statuses)
            result.bits_per_token, result.bits_per_byte = tally.bits()
        edges = [tenth / 10 for tenth in range(LOSS_BINS)]
        result.losses = {"edges": edges, "counts": counts.losses.tolist()}
        if isinstance(counts, ClassSums):
            result.bins = counts.reliability()
            result.notes.append(MULTI_LABEL_NOTE)
        elif job.label is not None and not job.label.has_class:
            result.warnings.append("labels are distributions, which have a loss and a Brier score, and no class")
        else:
            result.bins, result.per_class = counts.reliability(), counts.per_class(job.classes)
            result.confusion = counts.confusion_matrix()
            wrong, right = counts.confidences.tolist()
            widths = [at / CONFIDENCE_BINS for at in range(CONFIDENCE_BINS + 1)]
            result.confidences = {"edges": widths, "right": right, "wrong": wrong}
        for group in self._groups:
            listed = not group.given and len(group) <= MOST_LISTED
            result.slices[group.name] = group.metrics() if listed else []
            if not listed:
                where = "they are in the table" if writes else "to write them to a file: -o groups.parquet"
                result.warnings.append(f"{len(group):,} groups by {group.name!r} are too many to list; {where}")
        if rows := infinite_losses(result.infinite_losses, "row" if job.nesting is None else "token"):
            result.warnings.append(f"{rows}, because a class of the label has logit -inf; the mean loss is not defined")
        result.warnings[:0] = self._warnings
        for warning in result.warnings:
            self._progress.warn(warning)
        result.warnings[:0] = source.warnings
        return result
