"""Accumulates what the intervals of an evaluation need: the sums of groups of rows or clusters.

Knows chunks of rows and of tokens; doesn't know metrics. The tokens of a sequence depend on each other, so without a
column of clusters, each sequence is a cluster.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import column_array
from batchmax.errors import UsageError
from batchmax.evaluation.cluster_keys import hash_values
from batchmax.evaluation.curves.area_intervals import ScoreGroupSums
from batchmax.evaluation.group_intervals import SumsByValue
from batchmax.evaluation.intervals import FEWEST_GROUPS
from batchmax.evaluation.jackknife import GroupSums, Hashes, Jackknife, MetricGroupSums, row_hashes
from batchmax.evaluation.metric_intervals import MetricIntervals, mapped
from batchmax.evaluation.metrics import MetricSums, RowMetrics
from batchmax.evaluation.multi_label import EntryMetrics
from batchmax.runtime.text import quantity
from batchmax.sources.chunks import Chunk
from batchmax.sources.token_chunks import TokenChunk

Array = NDArray[Any]

FEW_CLUSTERS = 30
"""Below this number of clusters, intervals are known to be too short."""


def check_level(level: float) -> None:
    """Check a confidence level.

    Raises
    ------
    UsageError
        It isn't below 1, or is negative.
    """
    if not 0.0 <= level < 1.0:
        remedy = "give a number between 0 and 1, such as 0.95, or 0 for no intervals"
        raise UsageError(f"{level} is out of range", where="--confidence-level", remedy=remedy)


class IntervalSums:
    """The sums of groups of the rows of an evaluation.

    Parameters
    ----------
    counts
        The sums of all rows.
    positive
        The positive class of a binary task, or None.
    cluster
        The column of clusters; None if each row, or each sequence, is independent of the others.
    nested, weighted
        Whether rows are sequences, and whether they have weights.
    groups
        The sums of groups of rows; None for those of one class per row.
    by
        Columns with groups of rows, which also have intervals.
    scores
        Counts the scores of groups; None if there are no curves.
    """

    def __init__(
        self,
        counts: MetricSums,
        positive: int | None,
        *,
        cluster: str | None,
        nested: bool,
        weighted: bool,
        groups: MetricGroupSums | None = None,
        scores: ScoreGroupSums | None = None,
        by: Iterable[str] = (),
    ) -> None:
        self._counts, self._positive = counts, positive
        self._cluster, self._nested, self._weighted = cluster, nested, weighted
        self._first_row = 0
        self._has_clusters = cluster is not None or nested
        self._groups = groups or MetricGroupSums(counts.n_classes, counts.top_k, counts.n_bins, positive)
        self.scores = scores
        self._by_value = [SumsByValue(name, counts.n_bins, positive, self._hashes_of) for name in by]
        sums: list[GroupSums] = [self._groups, *([] if scores is None else [scores]), *self._by_value]
        self.jackknife = Jackknife(sums, counts_clusters=self._has_clusters)

    def add(self, chunk: Chunk, some: RowMetrics | EntryMetrics, scores: Array | None) -> None:
        """Add the rows or tokens of a chunk, with the scores that order them; chunks are in the order of the input."""
        if self.scores is not None and scores is not None and isinstance(some, RowMetrics):
            self.scores.prepare(some, scores)
        for values in self._by_value:
            values.prepare(chunk)
        self.jackknife.add(some, self._hashes(chunk))
        self._first_row += chunk.rows_done

    def _hashes(self, chunk: Chunk) -> Hashes:
        if self._cluster is not None:
            return self._hashes_of(chunk, self._cluster)
        if isinstance(chunk, TokenChunk):
            return _Repeated(row_hashes(self._first_row)(0, chunk.tokens.n_rows), chunk.tokens.lengths)
        return row_hashes(self._first_row)

    def _hashes_of(self, chunk: Chunk, name: str) -> Hashes:
        """Return the hashes of the values of a column."""
        if isinstance(chunk, TokenChunk):
            return _Repeated(hash_values(column_array(chunk.tokens.rows, name)), chunk.tokens.lengths)
        column = chunk.values(name)
        return lambda start, stop: hash_values(column[start:stop])

    def fields(self, computed: MetricIntervals) -> dict[str, Any]:
        """Return the fields of the result: intervals of all metrics, clusters, and the test of calibration."""
        intervals = computed.of_all()
        # Bits per token don't use weights.
        if self._nested and not self._weighted and "mean_loss" in intervals:
            intervals["bits_per_token"] = mapped(intervals["mean_loss"], lambda loss: loss / math.log(2.0))
        return {
            "confidence_level": computed.level,
            "n_clusters": self.jackknife.n_clusters if self._has_clusters else None,
            "calibration_p": computed.calibration_p,
            "intervals": intervals,
        }

    def of_values(self, name: str, values: pa.Array, computed: MetricIntervals) -> list[dict[str, Any]] | None:
        """Return the intervals of the groups of these values of a column; None without, or for too many groups."""
        sums = next((one for one in self._by_value if one.name == name), None)
        return None if sums is None or not sums.is_complete else sums.intervals(values, computed)

    def warning(self) -> str:
        """Return a warning that there are few clusters, or an empty string."""
        n = self.jackknife.n_clusters
        if self._cluster is None or n >= FEW_CLUSTERS:
            return ""
        few = quantity(n, "cluster has", "clusters have")
        if n < FEWEST_GROUPS:
            return f"only {few} rows with a loss; intervals need {FEWEST_GROUPS}"
        return f"only {few} rows with a loss; with fewer than {FEW_CLUSTERS}, intervals may be too short"

    def notes(self) -> list[str]:
        """Return what is missing or approximate in the intervals."""
        notes = []
        if not self._groups.classes.shape[1]:
            notes.append(
                f"averages over {self._counts.n_classes:,} classes have no intervals, which would need too much memory"
            )
        if self._cluster is None and self._nested and self.jackknife.n_clusters < FEWEST_GROUPS:
            notes.append(f"there are no intervals, which need {FEWEST_GROUPS} sequences with a loss")
        if self.jackknife.is_estimated and self._has_clusters:
            notes.append("the number of clusters is an estimate, with an error of about 0.1%")
        return notes

    @property
    def _kind(self) -> type[MetricIntervals]:
        """What computes the intervals."""
        return MetricIntervals

    def computed(self, level: float) -> MetricIntervals:
        """Return the intervals of all rows that were added."""
        n_units = self.jackknife.n_clusters if self._has_clusters else self._counts.n_counted
        independent = not (self._has_clusters or self._weighted)
        return self._kind(self._counts, self._groups, self._positive, level, n_units, independent, self._has_clusters)


class _Repeated:
    """The hashes of tokens, from those of their rows."""

    def __init__(self, hashes: Array, lengths: Array) -> None:
        self._hashes, self._ends = hashes, np.cumsum(lengths)

    def __call__(self, start: int, stop: int) -> Array:
        rows = np.searchsorted(self._ends, np.arange(start, stop), side="right")
        return self._hashes[rows]
