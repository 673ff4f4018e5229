"""Evaluate a model: metrics of logits, or of scored output, in one pass, and gates on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS
from batchmax.columns.arrow import column_array, column_types
from batchmax.columns.job import check_token_figures
from batchmax.errors import GateError, UsageError
from batchmax.evaluation.class_metrics import ClassMetrics
from batchmax.evaluation.curves.curves import MEMORY_SHARE, MEMORY_SHARE_WITH_GROUPS, CurveMethod, Curves
from batchmax.evaluation.curves.label_curves import LabelCurves
from batchmax.evaluation.curves.points_file import PointsFile
from batchmax.evaluation.groups import Groups
from batchmax.evaluation.interval_sums import IntervalSums, check_level
from batchmax.evaluation.label_groups import LabelGroups
from batchmax.evaluation.label_intervals import LabelIntervalSums
from batchmax.evaluation.label_result import add_label_metrics, add_sample_areas
from batchmax.evaluation.labeled_input import LabeledInput
from batchmax.evaluation.metric_intervals import MetricIntervals
from batchmax.evaluation.metric_table import SCHEMA, metric_rows
from batchmax.evaluation.metrics import (
    CONFIDENCE_BINS,
    LOSS_BINS,
    MetricSums,
    RowMetrics,
    check_bins,
    positive_class,
    top_k_values,
)
from batchmax.evaluation.multi_label import EntryMetrics, EntrySums, check_independent
from batchmax.evaluation.result import EVALUATION_GATES, Evaluation
from batchmax.evaluation.row_stream import row_batches
from batchmax.jobs.pipeline import report_source
from batchmax.jobs.row_batch import RowBatch
from batchmax.kernels.compiler.dispatch import limit_threads
from batchmax.kernels.jackknife_sums import GROUPS
from batchmax.options.gates import TOKEN_FIGURES, Gate, infinite_losses
from batchmax.options.input_options import InputOptions
from batchmax.options.parsing import names_of
from batchmax.options.score_options import IfExists, resolve_options
from batchmax.runtime.cores import usable_cores
from batchmax.runtime.progress import Progress
from batchmax.scoring.sequence_totals import SequenceTally, text_bytes
from batchmax.scoring.tally import Tally, named_counts
from batchmax.sinks.table_file import table_output, table_sink
from batchmax.sources.chunks import Chunk
from batchmax.sources.token_chunks import TokenChunk
from batchmax.storage.paths import local_path

MOST_LISTED = 10_000
"""Largest number of groups that a result lists."""


def evaluate(
    src: Any,
    options: InputOptions | None = None,
    *,
    out: str | None = None,
    if_exists: IfExists | None = None,
    bins: int = 15,
    positive: str | None = None,
    top_k: int | Iterable[int] | None = None,
    sample_weight: str | None = None,
    confidence_level: float = 0.95,
    cluster: str | None = None,
    by: str | Iterable[str] = (),
    curves: CurveMethod | None = None,
    max_fpr: float | None = None,
    curves_out: str | None = None,
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
        Number of bins of the calibration errors, 1 to 1000: of the largest probability of a row or, with two classes,
        of that of the positive one.
    positive
        The positive class of two, by name, or number if classes have no names. None: the second.
    top_k
        One or several k for ``top_k_accuracy``; by default 5 if there are more than 5 classes.
    sample_weight
        Column with a weight per row.
    confidence_level
        Confidence level of the intervals of the metrics; 0 for no intervals.
    cluster
        Column of clusters of rows that depend on each other, such as rows of one patient; null is a cluster too. By
        default, rows are independent, and each sequence is a cluster of tokens.
    by
        Columns to group rows by.
    curves
        How AUROC and average precision are computed: ``exact`` sorts the scores, ``binned`` counts them in 64 MiB and
        gives bounds, ``none`` leaves both out. None: ``exact`` for up to 100 classes, otherwise ``none``.
    max_fpr
        False positive rate up to which ``partial_auroc`` is computed, above 0 and up to 1.
    curves_out
        Output file for points of the curves, Parquet or CSV, or None. ``if_exists`` applies to it too.
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
    how: dict[str, Any] = {"method": curves, "max_fpr": max_fpr, "keeps_points": curves_out is not None}
    check_level(confidence_level)
    if curves_out is not None and out is not None and local_path(str(out)) == local_path(str(curves_out)):
        raise UsageError("it is also the file of the metrics: -o", where="--curves-out", remedy="name another file")
    job = _EvaluationPass(
        src,
        options,
        bins,
        positive,
        top_k,
        sample_weight,
        by,
        how,
        progress or Progress(),
        confidence_level=confidence_level,
        cluster=cluster,
    )
    inputs, storage = [file.path for file in job.source.files], options.storage_options
    points = None if curves_out is None else PointsFile(curves_out, if_exists, inputs, storage)
    if out is None:
        result = job.run(gate)
        job.write_points(points)
        return result
    output = table_output(out, if_exists or "error", inputs, storage)
    with table_sink(output, job.schema) as sink:
        result = job.run(gate, sink.write)
        sink.write(job.table(result))
        job.write_points(points)
        sink.publish()
    return result


class _EvaluationPass:
    def __init__(
        self,
        src: Any,
        options: InputOptions,
        bins: int,
        positive: str | None,
        top_k: int | Iterable[int] | None,
        sample_weight: str | None,
        by: str | Iterable[str],
        curves: dict[str, Any],
        progress: Progress,
        *,
        confidence_level: float,
        cluster: str | None,
    ) -> None:
        self._started = time.monotonic()
        self._progress = progress
        check_bins(bins)
        columns = list(dict.fromkeys(names_of("by", by)))
        self._input = LabeledInput(src, options, columns, sample_weight, cluster)
        self.source = self._input.source
        job = self.source.job
        self._is_independent = not ACTIVATIONS[job.options.activation_name].is_distribution
        if self._is_independent:
            check_independent(job, top_k=top_k, positive=positive, max_fpr=curves["max_fpr"])
        self._positive = positive_class(job, positive)
        # Groups may take two thirds of the memory limit.
        share = MEMORY_SHARE_WITH_GROUPS if columns else MEMORY_SHARE
        weighted = sample_weight is not None
        if self._is_independent:
            self._counts: MetricSums | EntrySums = EntrySums(job.n_classes, bins)
            del curves["max_fpr"]
            schema = self.source.schema
            self._curves: Curves | LabelCurves = LabelCurves(job, schema, is_weighted=weighted, share=share, **curves)
        else:
            self._curves = Curves(job, self._positive, is_weighted=weighted, share=share, **curves)
            self._counts = MetricSums(job.n_classes, top_k_values(top_k, job.n_classes), bins, self._positive)
        types = column_types(self.source.schema)
        memory = options.memory_limit // max(1, len(columns))
        nested, text = job.nesting is not None, options.bytes is not None
        how: dict[str, Any] = {"positive": self._positive, "nested": nested, "has_text": text}
        of_values = LabelGroups if self._is_independent else Groups
        self._groups = [of_values(name, types[name], bins, memory, **how) for name in columns]
        self._level = confidence_level
        of_rows: dict[str, Any] = {"cluster": cluster, "nested": nested, "weighted": weighted, "by": columns}
        self._intervals = self._interval_sums(**of_rows) if confidence_level else None
        self._computed: MetricIntervals | None = None
        self._tally, self._one_label = Tally(), 0
        self._warnings: list[str] = []
        self._sequences = SequenceTally(shift=job.options.shift, n_sums=1)

    def _interval_sums(self, *, by: list[str], cluster: str | None, nested: bool, weighted: bool) -> IntervalSums:
        if isinstance(self._counts, EntrySums):
            return LabelIntervalSums(self._counts, cluster=cluster, weighted=weighted)
        scores = self._curves.group_sums() if isinstance(self._curves, Curves) else None
        of_rows: dict[str, Any] = {"cluster": cluster, "nested": nested, "weighted": weighted}
        return IntervalSums(self._counts, self._positive, scores=scores, by=by, **of_rows)

    @property
    def schema(self) -> pa.Schema:
        """The columns of the table of metrics."""
        return self._groups[0].schema if len(self._groups) == 1 else SCHEMA

    def table(self, result: Evaluation) -> pa.RecordBatch:
        """Return the metrics as a table, without the groups that were already written."""
        if len(self._groups) == 1:
            return self._groups[0].table()
        return metric_rows(
            result.as_dict()
            | {"slices": {group.name: group.metrics(self._intervals_of_group) for group in self._groups}}
        )

    def write_points(self, file: PointsFile | None) -> None:
        """Write the points of the curves, if there is a file for them."""
        if file is not None:
            file.write(self._curves, self.source.job.classes)

    def run(self, gate: Gate | None, write: Callable[[pa.RecordBatch], None] | None = None) -> Evaluation:
        """Read every row; ``write`` receives groups that don't fit in memory."""
        if gate is not None and "top_k_accuracy" in gate.metrics and not getattr(self._counts, "top_k", ()):
            what = f"no top-k accuracy is computed for {self.source.job.n_classes} classes"
            raise gate.unknown("top_k_accuracy", what, "choose k: --top-k 2")
        if gate is not None:
            check_token_figures(gate, self.source.job.options, self.source.job.nesting, TOKEN_FIGURES)
        report_source(self.source, self._progress)
        if len(self._groups) == 1:
            self._groups[0].give = write
        # Sums and those of groups have a thread each, while the kernels compute the next rows. Log-odds use all cores.
        threads = self.source.job.options.threads or usable_cores()
        with ThreadPoolExecutor(2, "count", limit_threads, (threads,)) as counter:
            counting: list[Future[None]] = []
            for batch in row_batches(self.source, self._progress, self._warnings):
                some = self._input.class_metrics(batch) if self._is_independent else self._input.metrics(batch)
                scores = None
                if isinstance(some, RowMetrics) and isinstance(self._curves, Curves):
                    scores = self._curves.scores(batch, some)
                for one in counting:
                    one.result()
                counting = [counter.submit(self._count, batch, some, scores)]
                if self._intervals is not None:
                    counting.append(counter.submit(self._intervals.add, batch.chunk, some, scores))
            for one in counting:
                one.result()
        result = self._result(writes=write is not None)
        if gate is not None and (reason := gate.failure(result.metrics())):
            raise GateError(reason, where=", ".join(result.files))
        return result

    def _count(self, batch: RowBatch, some: RowMetrics | EntryMetrics, scores: NDArray[Any] | None) -> None:
        chunk, status, counts = batch.chunk, batch.scores.status, self._counts
        if isinstance(some, EntryMetrics) and isinstance(counts, EntrySums) and isinstance(self._curves, LabelCurves):
            counts.add(some)
            self._curves.add(some)
            self._one_label += batch.scores.n_with_one_label
            self._tally.add(status)
            for group in self._groups:
                if isinstance(group, LabelGroups):
                    group.add_labels(chunk.values(group.name), some)
        elif isinstance(some, RowMetrics) and isinstance(counts, MetricSums) and isinstance(self._curves, Curves):
            counts.add(some)
            self._curves.add(scores, some)
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
            **(counts.metrics() if isinstance(counts, MetricSums) else counts.errors()),
            n_rows=tally.rows,
            task="multilabel" if self._is_independent else "multiclass" if self._positive is None else "binary",
            positive=None if self._positive is None else (job.classes or ("0", "1"))[self._positive],
            n_classes=job.n_classes,
            classes=None if job.classes is None else list(job.classes),
            bad_rows=tally.bad_rows,
            bad_rate=tally.bad_rows / tally.rows if tally.rows else None,
            infinite_losses=counts.infinite_losses,
            status_counts=named_counts(tally.row_statuses),
            files=[file.path for file in source.files],
            bytes_read=source.size or 0,
            unified=list(source.unified),
            notes=list(job.notes),
        )
        if job.nesting is not None:
            result.n_tokens, result.token_status_counts = tally.judged, named_counts(tally.statuses)
            result.bits_per_token, result.bits_per_byte = tally.bits()
        edges = [tenth / 10 for tenth in range(LOSS_BINS)]
        result.losses = {"edges": edges, "counts": counts.losses.tolist()}
        if isinstance(counts, EntrySums):
            add_label_metrics(result, counts, job, self._one_label)
        elif job.label is not None and not job.label.has_class:
            result.warnings.append("labels are distributions, which have a loss and a Brier score, and no class")
        else:
            of_classes = ClassMetrics(counts.classes, job.classes, result.mean_loss, self._positive)
            vars(result).update(of_classes.values)
            result.per_class, result.undefined = of_classes.of_classes(), of_classes.undefined()
            result.bins = counts.reliability()
            result.confusion = counts.confusion_matrix()
            wrong, right = counts.confidences.tolist()
            widths = [at / CONFIDENCE_BINS for at in range(CONFIDENCE_BINS + 1)]
            result.confidences = {"edges": widths, "right": right, "wrong": wrong}
        self._curves.complete(result)
        if isinstance(counts, EntrySums):
            add_sample_areas(result, counts)
        if self._intervals is not None:
            self._add_intervals(result, self._intervals)
        for group in self._groups:
            listed = not group.given and len(group) <= MOST_LISTED
            result.slices[group.name] = of_groups = group.metrics(self._intervals_of_group) if listed else []
            if self._intervals is not None and of_groups and "intervals" not in of_groups[0]:
                what = "more than 256 groups" if len(group) > GROUPS else "so many bins"
                why = "the rows are multi-label" if self._is_independent else f"{what} would need too much memory"
                result.notes.append(f"groups by {group.name!r} have no intervals: {why}")
            if not listed:
                where = "they are in the table" if writes else "to write them to a file: -o groups.parquet"
                result.warnings.append(f"{len(group):,} groups by {group.name!r} are too many to list; {where}")
        if rows := infinite_losses(result.infinite_losses, "row" if job.nesting is None else "token"):
            why = ", or another class has logit inf" if self._is_independent else ""
            what = f"{rows}, because a class of the label has logit -inf{why}; the mean loss is not defined"
            result.warnings.append(what)
        result.warnings[:0] = self._warnings
        for warning in result.warnings:
            self._progress.warn(warning)
        result.warnings[:0] = source.warnings
        result.seconds = round(time.monotonic() - self._started, 3)
        return result

    def _intervals_of_group(self, name: str, values: pa.Array) -> list[dict[str, Any]] | None:
        if self._intervals is None or self._computed is None:
            return None
        return self._intervals.of_values(name, values, self._computed)

    def _add_intervals(self, result: Evaluation, intervals: IntervalSums) -> None:
        self._computed = computed = intervals.computed(self._level)
        vars(result).update(intervals.fields(computed))
        if result.per_class:
            for one, found in zip(result.per_class, computed.of_classes(), strict=True):
                one["intervals"] = found
            if isinstance(self._curves, Curves):
                self._curves.add_intervals(result, intervals.scores, computed)
        result.notes += intervals.notes()
        if warning := intervals.warning():
            result.warnings.append(warning)
