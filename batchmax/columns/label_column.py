"""What a column of labels is, and the labels of a batch. Module ``labels`` finds and reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from batchmax.columns.matrices import Matrix, Statuses

LabelKind = Literal["index", "name", "distribution", "khot", "indices", "names", "integers"]

LABEL_SETS = frozenset({"khot", "indices", "names", "integers"})
"""The kinds of labels of which a row has any number."""


@dataclass(frozen=True)
class LabelColumn:
    """The label column: the kind of its labels, and the lookup table from names to indices.

    Attributes
    ----------
    name
        The column; for one column per class, their pattern.
    kind
        ``index``, ``name`` or ``distribution``: one class or one distribution per row. For multi-label rows: ``khot``,
        a 0 or 1 for each class; ``indices`` or ``names``, a list of the classes that are right; ``integers``, either
        ``khot`` or ``indices``, which the first rows decide.
    lookup
        The index of each class name; None if labels aren't names.
    why
        What was chosen and why, for the summary.
    sums_to_1
        Whether the targets of a distribution must sum to 1; with sigmoid, each class has a target of its own.
    ignores_names
        Whether labels are indices although class names are numbers.
    columns
        The columns in the order of the classes, if each class has one; otherwise empty.
    """

    name: str
    kind: LabelKind
    lookup: dict[str, int] | None
    why: str
    sums_to_1: bool = True
    ignores_names: bool = False
    columns: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The columns to read."""
        return self.columns or (self.name,)

    @property
    def is_multi_label(self) -> bool:
        """Whether each class has a target of its own, so that several classes of a row can be right."""
        return self.kind in LABEL_SETS or not self.sums_to_1

    @property
    def has_class(self) -> bool:
        """Whether each row has one class."""
        return self.kind in {"index", "name"}


@dataclass(frozen=True)
class Labels:
    """The labels of a batch: either indices or target distributions.

    Attributes
    ----------
    indices
        Shape (n_rows,), int64, read-only; 0 where the status isn't ``OK``. Not checked against the range.
    targets
        Shape (n_rows, n_classes), read-only; undefined where the status isn't ``OK``. For multi-label rows, NaN where a
        class has no target.
    status
        Shape (n_rows,), ``BAD_LABEL``, ``UNLABELLED`` or ``OK``; None if all are ``OK``.
    ignore_index
        The index that means "ignored" in ``indices``: that of ``--ignore-index``, unless labels are looked up as class
        names that are numbers. Then ``--ignore-index`` is a label, not an index.
    """

    indices: NDArray[np.int64] | None
    targets: Matrix | None
    status: Statuses | None
    ignore_index: int
