"""Counts and sums over rows, which can be merged over the parts of a job.

Sums are compensated: the accumulated rounding error is added at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.functional.losses import perplexities
from batchmax.kernels.compensated_sums import count_rows, sum_counted
from batchmax.statuses import LAST_BAD, LAST_WITHOUT_LOSS, STATUS_NAMES, Status

N_CODES = 256
"""The number of values of a status code, of which only the first few are used."""


@dataclass(eq=False)
class Tally:
    """Counts and sums over rows; over tokens if rows are sequences.

    Each sum is an array of 3 numbers: the sum, its accumulated rounding error, and the number of infinite values, which
    aren't summed. ``judged`` counts rows with a loss, ``hits`` those that were predicted correctly, and if classes are
    independent, ``one_label`` those with exactly one label. For sequences, ``sequences`` counts the statuses of rows,
    ``bytes`` is the bytes of text of rows with a loss, and ``text_nll`` sums the plain losses of these rows.
    """

    statuses: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(Status), np.int64))
    sequences: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(Status), np.int64))
    loss: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    nll: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    weight: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    text_nll: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    judged: int = 0
    hits: int = 0
    one_label: int = 0
    bytes: int = 0
    nested: bool = False

    @property
    def row_statuses(self) -> NDArray[np.int64]:
        """The number of rows of each status."""
        return self.sequences if self.nested else self.statuses

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.row_statuses.sum())

    @property
    def bad_rows(self) -> int:
        """The number of bad rows."""
        return int(self.row_statuses[: LAST_BAD + 1].sum())

    @property
    def infinite_losses(self) -> int:
        """The number of rows, or tokens, with a loss of +inf."""
        return int(self.loss[2])

    def state(self) -> dict[str, Any]:
        """Return all fields, serializable as JSON without loss of precision."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Tally:
        """Return a tally from what :meth:`state` returned."""
        tally = cls()
        for name, value in vars(tally).items():
            kept = state.get(name, value)  # parts of earlier versions don't have every field
            setattr(tally, name, np.array(kept, value.dtype) if isinstance(value, np.ndarray) else kept)
        return tally

    @classmethod
    def merged(cls, tallies: Iterable[Tally]) -> Tally:
        """Return the sum of several tallies, added in their order."""
        total = cls()
        for one in tallies:
            total.statuses += one.statuses
            total.sequences += one.sequences
            total.judged += one.judged
            total.hits += one.hits
            total.one_label += one.one_label
            total.bytes += one.bytes
            total.nested |= one.nested
            for name in ("loss", "nll", "weight", "text_nll"):
                _add_exactly(getattr(total, name), getattr(one, name))
        return total

    def add(
        self,
        status: NDArray[np.uint8],
        losses: NDArray[np.float64] | None = None,
        nll: NDArray[np.float64] | None = None,
        hits: NDArray[np.bool_] | None = None,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Count a batch: its statuses; and with labels, losses, plain losses, correct predictions and weights."""
        counts = np.zeros(N_CODES, np.int64)
        is_same_sum = nll is losses and np.array_equal(self.nll, self.loss)
        self.hits += count_rows(
            status,
            np.empty(0) if losses is None else losses,
            np.empty(0, np.bool_) if hits is None else hits,
            counts,
            self.loss,
        )
        self.statuses += counts[: len(Status)]
        if losses is None or nll is None:
            return
        judged = int(counts[LAST_WITHOUT_LOSS + 1 :].sum())
        self.judged += judged
        if is_same_sum and weights is None:
            self.nll[:] = self.loss
            self.weight[0] += judged
            return
        counted = status > LAST_WITHOUT_LOSS
        sum_counted(nll, counted, self.nll)
        sum_counted(np.ones(len(counted)) if weights is None else weights, counted, self.weight)

    def add_sequences(self, status: NDArray[np.uint8]) -> None:
        """Count sequences by status."""
        self.nested = True
        self.sequences += np.bincount(status, minlength=len(Status))

    def add_text(self, n_bytes: NDArray[np.int64], nll: NDArray[np.float64], counted: NDArray[np.bool_]) -> None:
        """Add the bytes of text and the sums of plain losses of the sequences that ``counted`` selects."""
        self.bytes += sum(n_bytes[counted].tolist())
        sum_counted(nll, counted, self.text_nll)

    def bits(self) -> tuple[float | None, float | None]:
        """Return the plain loss in bits per token and per byte; None if it isn't finite, or there are none."""
        return (_bits(self.nll, self.judged), _bits(self.text_nll, self.bytes))

    def plain_figures(self) -> tuple[float | None, float | None, float | None]:
        """Return the mean plain loss, the log-likelihood and the perplexity; None where not finite."""
        if not self.judged or self.nll[2]:
            return None, None, None
        total = self.nll[0] + self.nll[1]
        mean = total / self.judged
        return finite(mean), finite(-total), finite(float(perplexities(np.array([mean]))[0]))


def named_counts(statuses: NDArray[np.int64]) -> dict[str, int]:
    """Return nonzero counts by the name of the status."""
    return {name: int(number) for name, number in zip(STATUS_NAMES, statuses, strict=True) if number}


def _bits(nll: NDArray[np.float64], count: int) -> float | None:
    return None if nll[2] or not count else finite((nll[0] + nll[1]) / math.log(2) / count)


def finite(value: float) -> float | None:
    """Return a number, or None if it isn't finite."""
    return float(value) if math.isfinite(value) else None


def _add_exactly(total: NDArray[np.float64], more: NDArray[np.float64]) -> None:
    """Add a compensated sum and its number of infinite values to another in place, with the rounding error of this."""
    added = total[0] + more[0]
    taken = added - total[0]
    total[1] += more[1] + ((total[0] - (added - taken)) + (more[0] - taken))
    total[0] = added
    total[2] += more[2]
