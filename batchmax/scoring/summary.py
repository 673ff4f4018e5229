"""The summary of a scoring job, computed from its :class:`Tally`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from batchmax.options.gates import NO_LABELS, NO_ROWS, TOKEN_FIGURES, Figure, figure, infinite_losses, without_loss
from batchmax.results import CommandResult
from batchmax.scoring.tally import Tally, finite, named_counts

TOKEN_FIELDS = frozenset({*TOKEN_FIGURES, "token_status_counts"})
"""Fields that only summaries of sequences have."""


@dataclass(kw_only=True)
class ScoreSummary(CommandResult):
    """The result of a scoring job. A value that is missing or not finite is None.

    ``log_likelihood`` and ``perplexity`` are computed from the plain loss, without class weights and smoothing;
    ``mean_loss`` is the sum of the loss column in nats, divided by the number of rows with a loss, or with class
    weights by the summed weights of their labels.

    If rows are sequences, all metrics are over tokens, except ``n_rows``, ``bad_rows``, ``bad_rate`` and
    ``status_counts``; ``n_tokens`` counts tokens with a loss. Otherwise the fields about tokens are absent in JSON.
    ``bits_per_byte`` is the total loss in bits divided by the total number of bytes, of the rows that have a loss and
    no bad token.

    ``unified`` has the columns that differ between files: for each, the type that it was read as, the number of files
    with each type, and the number of files without it.

    Examples
    --------
    >>> import batchmax
    >>> summary = batchmax.score("data/digits.parquet", "scored.parquet")
    >>> summary.status_counts
    {'ok': 899}
    >>> print(summary)
    n_rows      899
    n_classes   10
    mean_loss   0.108442
    accuracy    0.965517
    perplexity  1.11454
    bad_rows    0
    """

    SHOWN = ("n_rows", "n_classes", "mean_loss", "accuracy", "perplexity", "n_tokens", "bad_rows")

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
    """Fields that a stored summary doesn't have, so their values are unknown; not in JSON."""

    def count(self, tally: Tally, *, has_hits: bool, is_nested: bool = False) -> None:
        """Set the fields from a tally; the fields of tokens only with ``is_nested``."""
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
            self.mean_loss = finite((tally.loss[0] + tally.loss[1]) / weight)
        _, self.log_likelihood, self.perplexity = tally.plain_figures()
        if has_hits:
            self.accuracy = tally.hits / tally.judged

    @classmethod
    def stored(cls, values: Mapping[str, Any], files: list[str]) -> ScoreSummary:
        """Return the summary that was stored with an output."""
        known = {one.name for one in fields(cls)}
        return cls(
            **{name: value for name, value in values.items() if name in known}
            | {"files": files, "unrecorded": frozenset(known - values.keys())}
        )

    def lasting(self) -> str:
        """Return as JSON the fields that depend on the data only; they are stored in the output itself."""
        passing = {"files", "seconds", "bytes_written", "held"}
        values = {name: value for name, value in self.as_dict().items() if name not in passing}
        return json.dumps(values, allow_nan=False, ensure_ascii=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as a dictionary with the names of its JSON."""
        values = asdict(self)
        del values["unrecorded"]
        return (
            values if self.token_status_counts is not None else {k: values[k] for k in values if k not in TOKEN_FIELDS}
        )

    def metrics(self, *, has_labels: bool = True) -> dict[str, Figure]:
        """Return the metrics that a condition may name, in the order in which they are listed."""
        is_nested = self.token_status_counts is not None
        of, counts = ("token", self.token_status_counts or {}) if is_nested else ("row", self.status_counts)
        no_loss = without_loss(counts, of) if has_labels else NO_LABELS
        infinite = infinite_losses(self.infinite_losses, of)
        no_rows = "" if self.n_rows else NO_ROWS
        no_classes = "labels are distributions or multi-label, which have no class" if self.accuracy is None else ""
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


def without_text(status_counts: Mapping[str, int]) -> str:
    """Return why there are no bits per byte; ``status_counts`` counts sequences by status."""
    return without_loss(status_counts, "row") or "the number of bytes is not known or 0"
