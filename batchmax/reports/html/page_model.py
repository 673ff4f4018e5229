"""What a page is made of: numbers and text, gathered by whoever has looked at the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]
Pair = tuple[str, str]


@dataclass(frozen=True)
class TextTable:
    """A table as text: ``numbers`` are the columns that are aligned as such, ``said`` stands above it."""

    name: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    said: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class RowFacts:
    """A row and what each β makes of it.

    Attributes
    ----------
    title, said
        Which row it is, and why it is shown.
    columns
        What was carried beside its logits.
    quantity
        What the numbers are: ``logit``, or ``log-probability`` where there are no logits any more.
    names, logits
        Of the classes shown, the largest logit first; shape (n_shown,).
    label, pred
        Which of them the label is, None if there is none or it is a distribution; which is predicted.
    betas, probs, losses
        Shapes (n_betas,), (n_betas, n_shown) and (n_betas,); losses are NaN without a label.
    used
        Which of the betas the report was made with.
    n_classes
        How many there are in all.
    token, strip
        Of a sequence, which of its tokens this is, and the losses of all of them; None of any other row.
    """

    title: str
    said: str
    columns: Sequence[Pair]
    quantity: str
    names: Sequence[str]
    logits: Vector
    label: int | None
    pred: int
    betas: Vector
    probs: Vector
    losses: Vector
    used: int
    n_classes: int
    token: int | None = None
    strip: Vector | None = None

    @property
    def quantities(self) -> str:
        """The plural of what the numbers are."""
        return f"{self.quantity.removesuffix('y')}{'ies' if self.quantity.endswith('y') else 's'}"

    @property
    def p(self) -> Vector:
        """The probabilities of the classes shown, at the β that was used."""
        return np.asarray(self.probs[self.used])


@dataclass(frozen=True)
class Made:
    """How a page came about: what it was made with, the command, the files, and how these were made if they say so."""

    pairs: Sequence[Pair]
    command: str
    inputs: TextTable
    scored: Sequence[Pair] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Facts:
    """Everything on a page.

    Attributes
    ----------
    evaluation
        The figures, as :func:`batchmax.evaluate` returns them; None without labels.
    confidences
        Without labels: ``edges`` and ``counts`` of a histogram of the largest probability.
    confused
        Who was taken for whom how often, (label, prediction, rows), where classes are too many for a matrix.
    names
        Of the classes.
    status_counts, token_status_counts
        How many rows have each status; where rows are sequences, how many tokens too, and None otherwise.
    notes
        What a reader must know before all else.
    """

    title: str
    n_rows: int
    n_classes: int
    names: Sequence[str]
    made: Made
    evaluation: Any = None
    status_counts: Mapping[str, int] = field(default_factory=dict)
    token_status_counts: Mapping[str, int] | None = None
    confidences: Mapping[str, Sequence[float]] | None = None
    confused: Sequence[tuple[int, int, float]] = ()
    row: RowFacts | None = None
    worst: TextTable | None = None
    notes: Sequence[str] = ()
    version: str = ""

    @property
    def unit(self) -> str:
        """What figures are over: rows, or tokens."""
        return "row" if self.token_status_counts is None else "token"
