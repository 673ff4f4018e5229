"""Sums of pairs of rows: of all, and of those of each value of a column, whose pairs both inputs have in common.

Knows pairs of rows; doesn't know which metrics are computed from the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from batchmax.errors import DataError
from batchmax.evaluation.cluster_keys import hash_numbers
from batchmax.evaluation.comparison.changes import Both, PairedMetrics
from batchmax.evaluation.comparison.row_cursor import Side
from batchmax.evaluation.comparison.row_groups import RowGroups
from batchmax.evaluation.curves.area_intervals import is_near
from batchmax.evaluation.curves.exact_curve import Areas
from batchmax.evaluation.jackknife import GroupSums, Jackknife
from batchmax.functional.losses import Rows
from batchmax.kernels.score_bins import AUROC, PRECISION

Array = NDArray[Any]
LeftOut = tuple[Array, Array]
"""A metric of a and of b without each group of pairs, (g,) each."""

ChangedAreas = dict[str, tuple[Both, LeftOut | None]]
"""Areas under curves of a and b by name, and without each group if that is possible."""

N_BINS = 15
"""Bins of the calibration error."""
SCORES = {"auroc": AUROC, "average_precision": PRECISION}
"""The areas under curves, with their column in areas from bins of scores."""
SMALLER = 4
"""The sums of all values of a column may take 1 / SMALLER of the memory limit, and scores as much again."""


class Sums(PairedMetrics, Protocol):
    """The sums of some pairs, from which the metrics of both inputs are computed."""

    jackknife: Jackknife
    has_clusters: bool

    @property
    def n_bytes(self) -> int:
        """The memory of the sums."""

    @property
    def of_classes(self) -> list[PairedMetrics]:
        """The metrics of each class of multi-label rows."""

    def add(self, a: Any, b: Any, matrices: tuple[Array, ...], hashes: Array) -> None:
        """Add some pairs: with the same counted rows, with their logits, and the hashes of their clusters."""


class SumsOfB:
    """Sums of b that are added to together with those of a, whose rows they are given."""

    def __init__(self, sums: GroupSums) -> None:
        self._sums = sums
        self.some: Any = None

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays of the sums of b."""
        return self._sums.arrays

    def add(self, some: Any, rows: slice, groups: Array) -> None:  # noqa: ARG002 - those of b are known
        """Add the same rows of b."""
        self._sums.add(self.some, rows, groups)


class PairSums:
    """The sums of all pairs, and of those of each value of a column.

    Parameters
    ----------
    make
        Returns new sums: of all pairs, or, given True, of those of a value.
    groups
        The columns of clusters and groups.
    memory
        Bytes that the sums of all values may take.
    """

    def __init__(self, make: Callable[[bool], Sums], groups: RowGroups, memory: int) -> None:
        self._make, self.groups = make, groups
        self.all = make(False)
        self.of_values: list[Sums] = []
        n_bytes = 0 if groups.by is None else make(True).n_bytes
        self._most = max(1, memory // max(1, n_bytes))

    def add(self, a: Any, b: Any, matrices: tuple[Array, ...], of_a: Side) -> None:
        """Add some pairs: their metrics, with the logits if sums need them, and the rows of a.

        Raises
        ------
        DataError
            There are more values than fit in memory.
        """
        hashes = hash_numbers(of_a.numbers) if of_a.clusters is None else of_a.clusters
        self.all.add(a, b, matrices, hashes)
        values = of_a.groups
        if values is None:
            return
        order = np.argsort(values, kind="stable")
        starts = np.flatnonzero(np.diff(values[order], prepend=-1))
        for rows in np.split(order, starts[1:]) if len(order) else ():
            value = int(values[rows[0]])
            while value >= len(self.of_values):
                if len(self.of_values) == self._most:
                    raise DataError(
                        f"there are more than {self._most:,} groups, which don't fit in memory",
                        where="--by",
                        remedy="name a column with fewer values, or raise the limit: --memory-limit SIZE",
                    )
                self.of_values.append(self._make(True))
            some = tuple(matrix[rows] for matrix in matrices)
            self.of_values[value].add(_some(a, rows), _some(b, rows), some, hashes[rows])


def count_flips(rows: Array, right_a: Array, right_b: Array) -> Array:
    """Return the number of rows along the last axis, and of those that are right in b alone, and in a alone, (3, ...).

    All arguments are (..., n) bool; only ``rows`` count.
    """
    flipped = rows, rows & right_b & ~right_a, rows & right_a & ~right_b
    return np.array([np.count_nonzero(one, axis=-1) for one in flipped])


def changed_areas(exact: Sequence[Areas], binned: Sequence[tuple[Array, Array]]) -> ChangedAreas:
    """Return the areas of a and b, and those without each group, by name.

    ``exact`` are those of a and of b, and ``binned`` what
    :func:`batchmax.evaluation.curves.area_intervals.binned_areas` returns for a and for b, or nothing.
    """
    found: ChangedAreas = {}
    for name, which in SCORES.items():
        a, b = (getattr(areas, name) for areas in exact)
        found[name] = (a, b), left_out_of((a, b), *((whole[:, which], left[:, which]) for whole, left in binned))
    return found


def left_out_of(exact: Both, *binned: tuple[Array, Array]) -> LeftOut | None:
    """Return the areas of a and b without each group, (g,) each, from bins of scores.

    ``binned`` are those of all pairs, (1,), and without each group; the result is None if they are too far from the
    exact ones.
    """
    a, b = exact
    if a is None or b is None or not binned:
        return None
    if a != b and not all(is_near(float(one[0]), value) for (one, _), value in zip(binned, (a, b), strict=True)):
        return None
    return binned[0][1], binned[1][1]


def bytes_of(*sums: GroupSums) -> int:
    """Return the memory of some sums."""
    return sum(array.nbytes for one in sums for array in one.arrays)


def _some(one: Any, rows: Array) -> Any:
    """Return some of the rows of ``RowMetrics``, ``Rows`` or ``EntryMetrics``."""
    chosen: dict[str, Any] = {
        name: _some(array, rows) if isinstance(array, Rows) else array[rows] if len(array) else array
        for name, array in vars(one).items()
    }
    return replace(one, **chosen)
