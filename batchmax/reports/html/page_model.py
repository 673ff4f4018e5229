"""The content of a page: numbers and text, without layout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from batchmax.evaluation.result import Evaluation

Vector = NDArray[np.floating[Any]]
Pair = tuple[str, str]
T = TypeVar("T")


@dataclass(frozen=True)
class TextTable:
    """A table of text: ``numbers`` are the right-aligned columns, ``text`` is shown above the table."""

    name: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    text: str = ""


def tabulated(
    items: Iterable[T], columns: Mapping[str, Callable[[T], str]]
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return the heading of a table, and a row for each item; ``columns`` has the function for the cells by heading."""
    return tuple(columns), [tuple(cell(one) for cell in columns.values()) for one in items]


@dataclass(frozen=True, eq=False, kw_only=True)
class RowFacts:
    """A row, with its probabilities and losses at several β.

    Attributes
    ----------
    title, text
        A title, and a text about which row it is and why it's shown.
    columns
        The row's carried columns.
    quantity
        What the numbers are: ``logit``, ``scaled logit`` with a scale per class, or ``log-probability`` if the input
        has no logits.
    names, logits
        Names and logits of the shown classes, the largest logit first; shape (n_shown,).
    label
        Index of the label in ``names``; None if there is none or it is a distribution.
    betas, probs, losses
        Shapes (n_betas,), (n_betas, n_shown) and (n_betas,); the report's β is in the middle. Losses are NaN without a
        label.
    n_classes
        The number of all classes.
    place
        The file, the row, and for sequences the position of the shown token.
    strip
        For sequences: the losses of all tokens of the row; otherwise None.
    """

    title: str
    text: str
    columns: Sequence[Pair]
    quantity: str
    names: Sequence[str]
    logits: Vector
    label: int | None
    betas: Vector
    probs: Vector
    losses: Vector
    n_classes: int
    place: dict[str, Any]
    strip: Vector | None = None

    @property
    def quantities(self) -> str:
        """The plural of ``quantity``."""
        return f"{self.quantity.removesuffix('y')}{'ies' if self.quantity.endswith('y') else 's'}"

    @property
    def used(self) -> int:
        """The index of the report's β in ``betas``."""
        return len(self.betas) // 2

    @property
    def p(self) -> Vector:
        """The probabilities of the shown classes at the report's β."""
        return np.asarray(self.probs[self.used])


@dataclass(frozen=True)
class Provenance:
    """The provenance of a page: versions and notes, the command, the inputs, and the metadata of scored inputs."""

    pairs: Sequence[Pair]
    command: str
    inputs: TextTable
    scored: Sequence[Pair]


@dataclass(frozen=True, eq=False, kw_only=True)
class Facts:
    """All content of a page.

    Attributes
    ----------
    metrics
        The metrics, as returned by :func:`batchmax.evaluate`. Without labels, those that need none: counts, and as
        ``confidences`` the histogram of ``all`` rows.
    confused
        Confused pairs (label, prediction, rows), if there are too many classes for a confusion matrix.
    notes
        Notes for the top of the page.
    """

    title: str
    provenance: Provenance
    metrics: Evaluation
    has_labels: bool
    confused: Sequence[tuple[int, int, float]]
    row: RowFacts | None
    worst: TextTable | None
    notes: Sequence[str]

    @property
    def unit(self) -> str:
        """The unit that metrics are over: row or token."""
        return "row" if self.metrics.token_status_counts is None else "token"
