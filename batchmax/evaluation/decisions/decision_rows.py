"""Reads the rows that decision rules are chosen on: scores, right classes, weights, groups, and which are held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS
from batchmax.columns.arrow import column_types
from batchmax.columns.row_values import check_by, number_texts
from batchmax.errors import DataError, UsageError
from batchmax.evaluation.calibration_rows import is_held_out
from batchmax.evaluation.cluster_keys import hash_values
from batchmax.evaluation.curves.class_scores import ClassScores
from batchmax.evaluation.decisions.costs import Costs, read_costs
from batchmax.evaluation.labeled_input import LabeledInput
from batchmax.evaluation.metrics import positive_class
from batchmax.evaluation.row_stream import refuse_bytes, row_batches
from batchmax.functional.log_odds import probabilities
from batchmax.functional.losses import softmax_rows
from batchmax.jobs.pipeline import report_source
from batchmax.jobs.row_batch import RowBatch
from batchmax.jobs.threads import use_threads
from batchmax.options.decision_file import ABSTAIN
from batchmax.options.input_options import InputOptions
from batchmax.runtime.progress import Progress
from batchmax.runtime.text import quantity
from batchmax.scoring.tally import Tally
from batchmax.statuses import LAST_WITHOUT_LOSS

Array = NDArray[Any]

SORT_BYTES = 64
"""Memory for each row while the scores of a class are sorted and counted."""
MOST_GROUPS = 10_000


@dataclass(frozen=True, eq=False)
class DecisionRows:
    """Rows with labels: n rows of L scores, where L is the number of labels of multi-label rows, otherwise 1.

    Attributes
    ----------
    scores : (n, L) float64
        Log-odds, or what the file stores; with costs of more than two classes, the cost of the best decision.
    right : (n, L) int8
        1 for the positive class, a right label, or a right prediction; 0 for others; -1 where a target is missing.
    weights : (n,) float64, or (0,) for weights of 1
    held_out : (n,) bool
    hashes : (n,) uint64, or (0,)
        Of clusters.
    codes : (n,) int64, or (0,)
        The number of the group.
    decided : (n,) bool, or (0,)
        With costs of more than two classes: whether the best decision isn't to abstain.
    """

    scores: Array
    right: Array
    weights: Array
    held_out: Array
    hashes: Array
    codes: Array
    decided: Array

    def select(self, rows: Array) -> DecisionRows:
        """Return some of the rows, by index or mask."""
        return DecisionRows(*(array[rows] if len(array) else array for array in vars(self).values()))

    def of_label(self, at: int) -> DecisionRows:
        """Return the rows that have a target for a label, with the scores of that label only."""
        has_target = self.right[:, at] >= 0
        some = self if has_target.all() else self.select(has_target)
        one = {"scores": some.scores[:, at : at + 1], "right": some.right[:, at : at + 1]}
        return DecisionRows(**(vars(some) | one))


@dataclass
class _Collected:
    parts: list[list[Array]] = field(default_factory=list)
    n_rows: int = 0
    n_bytes: int = 0


class DecisionInput:
    """Opens the input and collects its rows.

    Parameters
    ----------
    src, options
        What to read, and how.
    positive, sample_weight, cluster, by
        As for :func:`batchmax.evaluation.decisions.decide.decide`.
    progress
        Progress callbacks.

    Attributes
    ----------
    source
        The opened input.
    task
        ``binary``, ``multilabel`` or ``multiclass``.
    positive
        The positive class of two, or None.
    costs
        Costs that :meth:`use_costs` read, or None.
    group_values
        The values of the column ``by`` in order of first occurrence, as in JSON.
    tally
        Counts of all rows.

    Raises
    ------
    UsageError
        Invalid option or column, no labels, or rows that are sequences.
    """

    def __init__(
        self,
        src: Any,
        options: InputOptions,
        *,
        positive: str | None,
        sample_weight: str | None,
        cluster: str | None,
        by: str | None,
        progress: Progress,
    ) -> None:
        refuse_bytes(options)
        self._input = LabeledInput(src, options, [] if by is None else [by], sample_weight, cluster)
        self.source = self._input.source
        job = self.job = self.source.job
        self._is_independent = not ACTIVATIONS[job.options.activation_name].is_distribution
        if not self._is_independent and job.label is not None and not job.label.has_class:
            what = "labels are distributions, which have no class"
            raise UsageError(what, where="--label", remedy="name a column of classes: --label NAME")
        self.positive = positive_class(job, positive)
        self.task = "multilabel" if self._is_independent else "multiclass" if self.positive is None else "binary"
        if by is not None:
            check_by(by, column_types(self.source.schema)[by], allows_bytes=False)
        self.scores = None if self._is_independent else ClassScores(job, self.positive)
        self.costs: Costs | None = None
        self.group_values: list[Any] = []
        self.tally = Tally()
        self._weight, self._cluster, self._by = sample_weight, cluster, by
        self._limit, self._progress = options.memory_limit, progress
        self._storage = options.storage_options

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, or their numbers as text."""
        return self.job.classes or tuple(map(str, range(self.job.n_classes)))

    def use_costs(self, path: Any) -> Costs:
        """Read the costs of decisions from a file.

        Raises
        ------
        UsageError
            The file is invalid, or rows are multi-label.
        """
        if self.task == "multilabel":
            what = "costs are of decisions between classes, and labels are independent of each other"
            raise UsageError(what, where="--costs", remedy="use --maximize or --at")
        self.costs = read_costs(path, self.class_names, self._storage)
        return self.costs

    def read(self, holdout: float, seed: int, warnings: list[str]) -> DecisionRows:
        """Read all rows.

        Raises
        ------
        DataError
            Unreadable input, a bad row with the policy ``error``, or more rows or groups than fit in memory.
        """
        report_source(self.source, self._progress)
        found = _Collected()
        codes: dict[Any, int] = {}
        first = 0
        for batch in row_batches(self.source, self._progress, warnings):
            status = batch.scores.status
            self.tally.add(status)
            counted = status > LAST_WITHOUT_LOSS
            scores, right, weights, decided = self._of(batch, counted)
            hashes = np.zeros(0, np.uint64)
            if self._cluster is not None:
                hashes = hash_values(batch.chunk.values(self._cluster))[counted]
            keys = hashes if self._cluster is not None else (first + np.arange(len(status)))[counted]
            first += len(status)
            group = np.zeros(0, np.int64)
            if self._by is not None:
                group = self._codes(batch.chunk.values(self._by), codes)[counted]
            held_out = is_held_out(keys, seed, holdout)
            arrays = [scores, right, weights, held_out, hashes, group, decided]
            found.parts.append(arrays)
            found.n_rows += len(held_out)
            found.n_bytes += sum(array.nbytes for array in arrays)
            # Joining the batches needs their memory twice.
            if 2 * found.n_bytes + SORT_BYTES * found.n_rows > self._limit:
                raise DataError(
                    f"more than {quantity(found.n_rows, 'row')} don't fit in memory",
                    where=", ".join(file.path for file in self.source.files),
                    remedy="raise the limit: --memory-limit SIZE, or read fewer rows: --limit N",
                )
        self.group_values = list(codes)
        if not found.parts:
            n_labels = self.job.n_classes if self._is_independent else 1
            empty: list[Array] = [
                np.zeros((0, n_labels)),
                np.zeros((0, n_labels), np.int8),
                *(np.zeros(0) for _ in range(5)),
            ]
            return DecisionRows(*empty)
        return DecisionRows(*(np.concatenate(arrays) for arrays in zip(*found.parts, strict=True)))

    def logit_and_threshold(self, score: float) -> tuple[float, float]:
        """Return the log-odds and the probability of a score."""
        largest = float(np.finfo(np.float64).max)
        if abs(score) == largest:
            return score, float(score > 0)
        if self.scores is None:
            return score, float(probabilities(np.array([score]))[0])
        logits, thresholds = self.scores.logits_and_thresholds(np.array([score]))
        return float(np.clip(logits[0], -largest, largest)), float(thresholds[0])

    def _of(self, batch: RowBatch, counted: Array) -> tuple[Array, Array, Array, Array]:
        none = np.zeros(0)
        job = self.job
        if self.scores is None:
            entries = self._input.class_metrics(batch)
            with np.errstate(over="ignore"):
                scores = batch.matrix[counted].astype(np.float64) * job.options.beta
            weights = entries.weights[counted] if len(entries.weights) else none
            return scores, self._targets(batch, entries.targets, entries.labels, counted), weights, none
        some = self._input.metrics(batch)
        labels = some.labels[counted]
        weights = some.weights[counted] if len(some.weights) else none
        if self.positive is None and self.costs is not None:
            scores, right, decided = self._least_expected(batch, labels, counted, self.costs)
            return scores, right, weights, decided
        with use_threads(job.options):
            scores = self.scores.of(batch, counted)
        if self.positive is None:
            best, right = scores.max(axis=0), some.pred[counted] == labels
        else:
            best, right = scores[0][counted], labels == self.positive
        return best.astype(np.float64)[:, np.newaxis], right.astype(np.int8)[:, np.newaxis], weights, none

    def _targets(self, batch: RowBatch, targets: Array, labels: Array, counted: Array) -> Array:
        k = self.job.n_classes
        if len(labels):
            return np.asarray(labels[counted][:, np.newaxis] == np.arange(k), np.int8)
        known = targets[counted]
        is_missing = np.isnan(known)
        is_soft = ~is_missing & (known != 0.0) & (known != 1.0)
        if is_soft.any():
            row = int(np.flatnonzero(counted)[np.argmax(is_soft.any(axis=1))])
            what, remedy = "a target is neither 0 nor 1", "give labels that are 0 or 1"
            raise DataError(what, where=batch.chunk.place(row), remedy=remedy)
        return np.asarray(np.where(is_missing, -1, known).astype(np.int8))

    def _least_expected(
        self, batch: RowBatch, labels: Array, counted: Array, costs: Costs
    ) -> tuple[Array, Array, Array]:
        matrix = np.ascontiguousarray(batch.matrix[counted], np.float64)
        matrix.flags.writeable = False
        probs = np.empty(matrix.shape)
        with use_threads(self.job.options):
            softmax_rows(matrix, self.job.options.beta, probs=probs)
        chosen = costs.expected(probs).argmin(axis=1)
        names = {name: at for at, name in enumerate(self.class_names)}
        numbers = np.array([names.get(name, -1) for name in costs.decisions])
        decided = np.array([name != ABSTAIN for name in costs.decisions])[chosen]
        right = (numbers[chosen] == labels).astype(np.int8)
        return costs.matrix[labels, chosen][:, np.newaxis], right[:, np.newaxis], decided

    def _codes(self, column: pa.Array, codes: dict[Any, int]) -> Array:
        """Return the group number of each value."""
        found = number_texts(column, codes)
        if len(codes) > MOST_GROUPS:
            what, remedy = f"there are more than {MOST_GROUPS:,} groups", "name a column with fewer values"
            raise DataError(what, where=f"column {self._by!r}", remedy=remedy)
        return found


def in_groups(rows: DecisionRows, n_groups: int) -> Iterator[DecisionRows]:
    """Yield the rows of each group."""
    order = np.argsort(rows.codes, kind="stable")
    ends = np.searchsorted(rows.codes[order], np.arange(n_groups + 1))
    for start, stop in pairwise(ends):
        yield rows.select(order[start:stop])
