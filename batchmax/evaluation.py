"""Whether a model is any good: one pass over logits, or over what ``score`` wrote, and figures for people and gates."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax import __version__, kernels
from batchmax.arrow import number_values, plain_array, valid_rows
from batchmax.columns import close_match
from batchmax.errors import DataError, GateError, UsageError
from batchmax.groups import Groups
from batchmax.loop import Progress
from batchmax.metric_tables import SCHEMA, metric_rows
from batchmax.metrics import CONFIDENCE_BINS, LOSS_BINS, Counts, Judged
from batchmax.option_values import names_of
from batchmax.options import IfExists, ScoreOptions, resolve_options
from batchmax.outputs import STATUS_NAMES, Status
from batchmax.passes import Seen, open_rows, rows_of
from batchmax.summary import GATE_NAMES, Gate, Tally
from batchmax.tables_out import table_sink

Array = NDArray[Any]

MOST_BINS = 1000
EVALUATION_GATES = (*GATE_NAMES, "brier", "ece", "mce", "rmsce", "top_k_accuracy")
"""What a condition may name; ``top_k_accuracy`` is that of the largest k."""


@dataclass(kw_only=True)
class Evaluation:
    """What an evaluation found. A value that does not exist or is not finite is None.

    Attributes
    ----------
    n_rows
        All rows, those without a label or an answer too; every other figure is over those that have both, and
        weighted where there are weights, as scikit-learn does with ``sample_weight``.
    mean_loss, log_likelihood, perplexity
        Of the cross-entropy in nats: its mean, minus its sum, and exp of the mean.
    top_k_accuracy
        By k: the share of rows whose label is among the k largest logits, ties to the lower index.
    brier
        The mean of the sum over classes of (p - y)**2, not halved.
    ece, mce, rmsce
        The expected, the largest, and the root mean squared distance of confidence and accuracy over bins of equal
        width; a confidence of 1 is in the last bin.
    bins
        Those: borders, weight, mean confidence, accuracy.
    per_class
        Support, how often predicted, precision, recall, F1 and mean loss, in the order of the logits.
    confusion
        Rows by label and predicted class; None for more than a thousand classes.
    slices
        By column: the figures of the rows of each value, the largest group first.
    losses, confidences
        Histograms: of the loss by tenths of a nat, the last for all above; of the confidence of right and wrong rows.
    """

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
    files: list[str] = field(default_factory=list)
    bytes_read: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    version: str = __version__

    def as_dict(self) -> dict[str, Any]:
        """Return everything under the names that it has in JSON."""
        return asdict(self)

    def to_json(self) -> str:
        """Return everything as one line of JSON."""
        return json.dumps(self.as_dict(), allow_nan=False, ensure_ascii=False)

    def _repr_html_(self) -> str:
        shown = ("n_rows", "n_classes", "mean_loss", "accuracy", "perplexity", "brier", "ece", "bad_rows")
        cells = "".join(f"<tr><th>{name}</th><td>{html.escape(str(getattr(self, name)))}</td></tr>" for name in shown)
        return f"<table>{cells}</table>"


def evaluate(
    src: Any,
    options: ScoreOptions | None = None,
    *,
    out: str | None = None,
    if_exists: IfExists = "error",
    bins: int = 15,
    top_k: int | Iterable[int] | None = None,
    sample_weight: str | None = None,
    by: str | Iterable[str] = (),
    fail_if: str | None = None,
    progress: Progress | None = None,
    **given: Any,
) -> Evaluation:
    """Judge logits, or what ``score`` wrote, against their labels, in one pass and bounded memory.

    Parameters
    ----------
    src
        Paths of files and folders and globs, one or several; or anything with ``__arrow_c_stream__``.
    options, given
        How rows are read: as for :func:`batchmax.score`.
    out
        A file for the figures as a table, if any; see :mod:`batchmax.metric_tables`.
    if_exists
        What to do where something is there: ``error`` or ``overwrite``.
    bins
        The bins of confidence, 1 to 1000, of the calibration errors.
    top_k
        The k of ``top_k_accuracy``, one or several; 5 where there are more than 5 classes.
    sample_weight
        A column of weights, one a row.
    by
        Columns whose values cut the rows into groups.
    fail_if
        A condition under which it fails, of the names in :data:`EVALUATION_GATES`.
    progress
        Who is told how far it is.

    Raises
    ------
    UsageError
        An option or a column that cannot be, or no label.
    DataError
        An input that cannot be read; a bad row under the policy ``error``; a weight that is none; more groups than
        there is memory for.
    OutputError
        The table cannot be written.
    GateError
        The condition is true; then nothing is written.
    """
    options = resolve_options(options, given)
    gate = None if fail_if is None else Gate(fail_if, EVALUATION_GATES)
    job = _Evaluating(src, options, bins, top_k, sample_weight, by, progress or Progress())
    if out is None:
        return job.run(gate)
    with table_sink(out, job.schema, if_exists, job.inputs) as sink:
        found = job.run(gate, sink.write)
        sink.write(job.table(found))
        sink.publish()
    return found


class _Evaluating:
    def __init__(
        self,
        src: Any,
        options: ScoreOptions,
        bins: int,
        top_k: int | Iterable[int] | None,
        sample_weight: str | None,
        by: str | Iterable[str],
        progress: Progress,
    ) -> None:
        self._started = time.monotonic()
        self._progress = progress
        if not isinstance(bins, int) or not 1 <= bins <= MOST_BINS:
            raise UsageError(f"{bins} bins", where="--bins", remedy=f"give a number from 1 to {MOST_BINS}")
        if options.label == "none":
            raise UsageError(
                "nothing can be judged without labels", where="--label", remedy="name the column of labels"
            )
        columns = list(dict.fromkeys(names_of("by", by)))
        read = [*columns, *([sample_weight] if sample_weight is not None else [])]
        options = replace(options, outputs=("loss",), columns=tuple(dict.fromkeys(read)))
        self._source = open_rows(src, options)
        job = self._source.job
        if job.label is None:
            raise UsageError(
                "there is no label column, and nothing can be judged without labels",
                where="--label",
                remedy=close_match("label", self._source.schema.names) + "name it: --label NAME",
            )
        self._is_dense = job.label.kind == "distribution"
        self._weight = sample_weight
        self._counts = Counts(job.n_classes, _top_k(top_k, job.n_classes), bins)
        self._groups = [Groups(self._source.schema.field(name), options.memory_limit) for name in columns]
        self._tally = Tally()

    @property
    def inputs(self) -> list[str]:
        """The files that are read."""
        return [file.path for file in self._source.files]

    @property
    def schema(self) -> pa.Schema:
        """The columns of the table of figures."""
        return self._groups[0].schema if len(self._groups) == 1 else SCHEMA

    def table(self, found: Evaluation) -> pa.RecordBatch:
        """Return the figures as a table, without the groups that were written already."""
        return self._groups[0].table() if len(self._groups) == 1 else metric_rows(found.as_dict())

    def run(self, gate: Gate | None, write: Callable[[pa.RecordBatch], None] | None = None) -> Evaluation:
        """Look at every row; ``write`` takes groups that are too many to hold."""
        for note in self._source.job.notes:
            self._progress.note(note)
        if len(self._groups) == 1:
            self._groups[0].give = write
        # Counting takes one core, and the next rows' arithmetic all of them.
        with ThreadPoolExecutor(1, "count") as counter:
            counting: Future[None] | None = None
            for seen in rows_of(self._source, self._progress):
                some = self._judge(seen)
                if counting is not None:
                    counting.result()
                counting = counter.submit(self._count, seen, some)
            if counting is not None:
                counting.result()
        found = self._found()
        if gate is not None:
            largest = max(found.top_k_accuracy, key=int, default=None)
            values = found.as_dict() | {"top_k_accuracy": found.top_k_accuracy[largest] if largest else None}
            if gate.is_true(values):
                figures = ", ".join(f"{name} is {values[name]}" for name in gate.names)
                raise GateError(f"--fail-if {gate.condition!r} is true: {figures}", where=", ".join(found.files))
        return found

    def _judge(self, seen: Seen) -> Judged | None:
        """Return what there is to count besides statuses."""
        scores, labels = seen.scores, seen.labels.indices
        if labels is None:
            return None
        n = len(seen.matrix)
        weights = np.zeros(0) if self._weight is None else self._weights(seen)
        pred, rank, brier = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n)
        rows, beta = scores.rows, self._source.job.options.beta
        kernels.judge_rows(seen.matrix, labels, beta, rows.maxima, rows.rests, rows.nll, pred, rank, brier)
        return Judged(rows, labels, pred, rank, brier, weights, scores.status >= Status.MASKED_LABEL)

    def _count(self, seen: Seen, some: Judged | None) -> None:
        scores = seen.scores
        if some is None:
            self._tally.add(scores.status, scores.losses, scores.nll)
            return
        self._tally.add(scores.status)
        self._counts.add(some)
        for group in self._groups:
            group.add(seen.chunk.batch.column(group.field.name), some)

    def _weights(self, seen: Seen) -> Array:
        column = plain_array(seen.chunk.batch.column(self._weight))
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise UsageError(
                f"column {self._weight!r} holds no numbers", where="--sample-weight", remedy="name another"
            )
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

    def _found(self) -> Evaluation:
        source, job, tally = self._source, self._source.job, self._tally
        found = Evaluation(
            n_rows=tally.rows,
            n_classes=job.n_classes,
            classes=None if job.classes is None else list(job.classes),
            bad_rows=tally.bad_rows,
            bad_rate=tally.bad_rows / tally.rows if tally.rows else None,
            infinite_losses=tally.infinite_losses if self._is_dense else self._counts.infinite_losses,
            status_counts={name: int(count) for name, count in zip(STATUS_NAMES, tally.statuses, strict=True) if count},
            files=[file.path for file in source.files],
            bytes_read=source.size or 0,
            seconds=round(time.monotonic() - self._started, 3),
            notes=list(job.notes),
        )
        if self._is_dense:
            figures = tally.plain_figures()
            found.mean_loss, found.log_likelihood, found.perplexity = figures
            found.warnings.append("labels are distributions, which have no class: there is nothing but their loss")
        else:
            counts = self._counts
            for name, value in counts.figures().items():
                setattr(found, name, value)
            found.bins, found.per_class = counts.reliability(), counts.per_class(job.classes)
            found.confusion = counts.confusion_matrix()
            edges = [tenth / 10 for tenth in range(LOSS_BINS)]
            found.losses = {"edges": edges, "counts": counts.losses.tolist()}
            wrong, right = counts.confidences.tolist()
            widths = [at / CONFIDENCE_BINS for at in range(CONFIDENCE_BINS + 1)]
            found.confidences = {"edges": widths, "right": right, "wrong": wrong}
            found.slices = {group.field.name: group.figures() for group in self._groups}
        if found.infinite_losses:
            rows = f"{found.infinite_losses:,} rows have an infinite loss"
            found.warnings.append(f"{rows}: their label's logit is -inf; so there is no mean loss")
        for warning in found.warnings:
            self._progress.warn(warning)
        return found


def _top_k(given: int | Iterable[int] | None, n_classes: int) -> tuple[int, ...]:
    if given is None:
        return (5,) if n_classes > 5 else ()
    asked = sorted({given} if isinstance(given, int) else set(given))
    if any(k < 1 or k > n_classes for k in asked):
        raise UsageError(
            f"{asked} of {n_classes} classes", where="--top-k", remedy=f"give numbers from 1 to {n_classes}"
        )
    return tuple(asked)
