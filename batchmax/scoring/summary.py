"""What a job counts while it runs, and the summary at its end.

:class:`Tally` adds up over batches and merges, so that a job cut into parts counts the same as one that was not. Sums
are kept with what their roundings lost.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax import kernels
from batchmax.functional.losses import perplexities
from batchmax.options.gates import NO_LABELS, NO_ROWS, Figure, figure, infinite_losses, without_loss
from batchmax.outputs import LAST_BAD, STATUS_NAMES, Status

LABEL_FIGURES = frozenset(
    {
        "mean_loss",
        "log_likelihood",
        "accuracy",
        "perplexity",
        "infinite_losses",
        "n_tokens",
        "bits_per_token",
        "bits_per_byte",
    }
)
"""Names of the summary that have no value without labels."""


@dataclass(eq=False)
class Tally:
    """Counts and sums over rows; where rows are sequences, over tokens.

    Of sequences, ``sequences`` are the statuses of rows, and ``bytes`` the bytes of text of those that have a loss as a
    whole, whose tokens have the losses ``text_nll``.
    """

    statuses: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(Status), np.int64))
    sequences: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(Status), np.int64))
    loss: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    nll: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    weight: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    text_nll: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    judged: int = 0
    hits: int = 0
    bytes: int = 0
    nested: bool = False

    @property
    def row_statuses(self) -> NDArray[np.int64]:
        """How many rows there are of each status."""
        return self.sequences if self.nested else self.statuses

    @property
    def rows(self) -> int:
        """How many rows were counted."""
        return int(self.row_statuses.sum())

    @property
    def bad_rows(self) -> int:
        """How many of them were bad."""
        return int(self.row_statuses[: LAST_BAD + 1].sum())

    @property
    def infinite_losses(self) -> int:
        """How many of them had a loss of +inf."""
        return int(self.loss[2])

    def state(self) -> dict[str, Any]:
        """Return everything as JSON has it; numbers keep all their digits."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Tally:
        """Return what was counted when :meth:`state` was asked."""
        tally = cls()
        for name, value in vars(tally).items():
            kept = state[name]
            setattr(tally, name, np.array(kept, value.dtype) if isinstance(value, np.ndarray) else kept)
        return tally

    @classmethod
    def merged(cls, tallies: Iterable[Tally]) -> Tally:
        """Return what was counted by all of them, in their order."""
        total = cls()
        for one in tallies:
            total.statuses += one.statuses
            total.sequences += one.sequences
            total.judged += one.judged
            total.hits += one.hits
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
        """Count a batch: its statuses, and where there are labels the losses, their plain form, and who was right."""
        self.statuses += np.bincount(status, minlength=len(Status))
        if losses is None or nll is None:
            return
        counted = status >= Status.MASKED_LABEL
        kernels.sum_counted(losses, counted, self.loss)
        kernels.sum_counted(nll, counted, self.nll)
        self.judged += int(np.count_nonzero(counted))
        kernels.sum_counted(np.ones(len(counted)) if weights is None else weights, counted, self.weight)
        if hits is not None:
            self.hits += int(np.count_nonzero(hits & counted))

    def add_sequences(self, status: NDArray[np.uint8]) -> None:
        """Count sequences by their statuses."""
        self.nested = True
        self.sequences += np.bincount(status, minlength=len(Status))

    def add_text(self, n_bytes: NDArray[np.int64], nll: NDArray[np.float64], counted: NDArray[np.bool_]) -> None:
        """Count the bytes of text of sequences, and the sums of their plain losses, of those that count."""
        self.bytes += sum(n_bytes[counted].tolist())
        kernels.sum_counted(nll, counted, self.text_nll)

    def bits(self) -> tuple[float | None, float | None]:
        """Return the plain losses in bits, of a token and of a byte; None for what is not finite, or not known."""
        return (_bits(self.nll, self.judged), _bits(self.text_nll, self.bytes))

    def plain_figures(self) -> tuple[float | None, float | None, float | None]:
        """Return the mean of the plain losses, minus their sum, and exp of the mean; None for what is not finite."""
        if not self.judged or self.nll[2]:
            return None, None, None
        total = self.nll[0] + self.nll[1]
        mean = total / self.judged
        return _finite(mean), _finite(-total), _finite(float(perplexities(np.array([mean]))[0]))


@dataclass(kw_only=True)
class ScoreSummary:
    """What a scoring job did. A value that does not exist or is not finite is None.

    ``log_likelihood`` and ``perplexity`` are the plain ones, without class weights and smoothing; ``mean_loss`` is the
    mean of the loss column, over the summed weights of the labels if there are class weights.

    Where rows are sequences, every figure is one of tokens, but ``n_rows``, ``bad_rows``, ``bad_rate`` and
    ``status_counts``; ``n_tokens`` are those with a loss. Otherwise what is said of tokens is not there.
    ``bits_per_byte`` is over the rows that are not bad and have a loss: the losses of these, and all bytes of their
    text.

    ``unified`` are the columns that are not the same in all files: each with the type that it was read as, in how many
    files it has which type, and in how many it is missing.
    """

    n_rows: int = 0
    n_classes: int | None = None
    mean_loss: float | None = None
    log_likelihood: float | None = None
    accuracy: float | None = None
    perplexity: float | None = None
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
    bytes_written: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    version: str = ""
    held: str | None = None
    unrecorded: frozenset[str] = frozenset()
    """Fields whose values the summary does not know, because a stored one lacks them; not in JSON."""

    def count(self, tally: Tally, *, has_hits: bool, is_nested: bool = False) -> None:
        """Take over what was counted; of sequences also where there is none."""
        self.n_rows = tally.rows
        self.bad_rows = tally.bad_rows
        self.bad_rate = tally.bad_rows / tally.rows if tally.rows else None
        self.infinite_losses = tally.infinite_losses
        self.status_counts = named_counts(tally.row_statuses)
        if is_nested:
            self.n_tokens, self.token_status_counts = tally.judged, named_counts(tally.statuses)
            self.bits_per_token, self.bits_per_byte = tally.bits()
        if not tally.judged:
            return
        weight = tally.weight[0] + tally.weight[1]
        if not tally.infinite_losses and weight:
            self.mean_loss = _finite((tally.loss[0] + tally.loss[1]) / weight)
        _, self.log_likelihood, self.perplexity = tally.plain_figures()
        if has_hits:
            self.accuracy = tally.hits / tally.judged

    @classmethod
    def stored(cls, values: Mapping[str, Any], files: list[str]) -> ScoreSummary:
        """Return a summary that was stored with an output."""
        known = {one.name for one in fields(cls)}
        return cls(
            **{name: value for name, value in values.items() if name in known}
            | {"files": files, "unrecorded": frozenset(known - values.keys())}
        )

    def lasting(self) -> str:
        """Return what the data alone decide, as JSON, to be kept in the output itself."""
        passing = {"files", "seconds", "bytes_written", "held"}
        values = {name: value for name, value in self.as_dict().items() if name not in passing}
        return json.dumps(values, allow_nan=False, ensure_ascii=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the summary under the names that it has in JSON."""
        values = asdict(self)
        del values["unrecorded"]
        return values if self.token_status_counts is not None else {k: values[k] for k in values if k not in OF_TOKENS}

    def figures(self, *, has_labels: bool = True) -> dict[str, Figure]:
        """Return the figures that a condition may name, in the order in which they are listed."""
        is_nested = self.token_status_counts is not None
        of, counts = ("token", self.token_status_counts or {}) if is_nested else ("row", self.status_counts)
        no_loss = without_loss(counts, of) if has_labels else NO_LABELS
        infinite = infinite_losses(self.infinite_losses, of)
        no_rows = "" if self.n_rows else NO_ROWS
        no_classes = "labels are distributions, which have no class" if self.accuracy is None else ""
        rows = "" if is_nested else "the rows are not sequences"
        no_bytes = without_text(self.status_counts) if self.bits_per_byte is None else ""
        no_mean = "the weights of the labels sum to 0, or the losses are too large" if self.mean_loss is None else ""
        no_likelihood = "a label has probability 0" if self.log_likelihood is None else ""
        too_large = "exp of the mean loss is too large" if self.perplexity is None else ""

        def recorded(name: str) -> str:
            return "the finished output does not record it" if name in self.unrecorded else ""

        return {
            "n_rows": figure(self.n_rows),
            "n_classes": figure(self.n_classes),
            "mean_loss": figure(self.mean_loss, no_loss, infinite, no_mean),
            "log_likelihood": figure(self.log_likelihood, no_loss, infinite, no_likelihood),
            "accuracy": figure(self.accuracy, no_loss, no_classes),
            "perplexity": figure(self.perplexity, no_loss, infinite, no_likelihood, too_large),
            "bad_rows": figure(self.bad_rows, no_rows),
            "bad_rate": figure(self.bad_rate, no_rows),
            "infinite_losses": figure(self.infinite_losses, no_loss),
            "n_tokens": figure(self.n_tokens, rows, "" if has_labels else NO_LABELS),
            "bits_per_token": figure(self.bits_per_token, rows, no_loss, infinite, no_likelihood),
            "bits_per_byte": figure(self.bits_per_byte, rows, no_loss, infinite, no_likelihood, no_bytes),
            "bytes_read": figure(self.bytes_read, "" if self.files else "the size of a stream is not known"),
            "bytes_written": figure(self.bytes_written, recorded("bytes_written")),
            "seconds": figure(self.seconds, recorded("seconds")),
        }

    def to_json(self) -> str:
        """Return the summary as one line of JSON."""
        return json.dumps(self.as_dict(), allow_nan=False, ensure_ascii=False)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in self.as_dict().items()
        )
        return f"<table>{rows}</table>"


def without_text(status_counts: Mapping[str, int]) -> str:
    """Return why there are no bits per byte. ``status_counts`` are sequences by their status."""
    return without_loss(status_counts, "row") or "the number of bytes is not known or 0"


GATE_NAMES = tuple(ScoreSummary().figures())
"""What a condition on a summary may name."""

OF_TOKENS = ("n_tokens", "bits_per_token", "bits_per_byte", "token_status_counts")
"""What a summary says only where rows are sequences."""


def named_counts(statuses: NDArray[np.int64]) -> dict[str, int]:
    """Return counts by the names of statuses, without those that are 0."""
    return {name: int(number) for name, number in zip(STATUS_NAMES, statuses, strict=True) if number}


def _bits(nll: NDArray[np.float64], count: int) -> float | None:
    return None if nll[2] or not count else _finite((nll[0] + nll[1]) / math.log(2) / count)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _add_exactly(total: NDArray[np.float64], more: NDArray[np.float64]) -> None:
    """Add a sum, what its roundings lost, and a count, to others in place; of this sum's rounding, too."""
    added = total[0] + more[0]
    taken = added - total[0]
    total[1] += more[1] + ((total[0] - (added - taken)) + (more[0] - taken))
    total[0] = added
    total[2] += more[2]
