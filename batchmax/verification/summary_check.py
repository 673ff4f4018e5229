"""Compare the summary of a scored output with its rows, as far as the columns determine it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from batchmax.errors import DataError
from batchmax.scoring.tally import named_counts
from batchmax.statuses import LAST_BAD, STATUS_NAMES
from batchmax.verification.invariants import RowCounts
from batchmax.verification.output_metadata import SCORE_AGAIN
from batchmax.verification.scored_output import ScoredOutput
from batchmax.verification.token_view import TokenView

SLACK = 1e-11
"""Relative rounding error of a mean over all rows, in addition to the error of its terms."""


def check_summary(output: ScoredOutput, counts: RowCounts, tokens: TokenView | None) -> list[str]:
    """Compare the summary with the counts of all rows, or of all tokens, and return the names that agree.

    Raises
    ------
    DataError
        A figure differs.
    """
    summary = output.summary
    if summary is None:
        return []
    source = "the manifest" if output.is_folder else "the summary in the footer"
    expected = {"n_classes": output.metadata.n_classes}
    expected |= _counts(output, counts) if tokens is None else _counts_of_tokens(output, counts, tokens)
    for name, value in expected.items():
        if name in summary and not _is_equal(summary[name], value, output):
            what = f"{source} has {name} {summary[name]}, but the rows give {value}"
            raise DataError(what, where=output.path, remedy=SCORE_AGAIN)
    return [name for name in ("n_rows", *expected) if name in summary]


def _counts(output: ScoredOutput, counts: RowCounts) -> dict[str, Any]:
    expected: dict[str, Any] = {}
    if "status" in output.columns:
        expected["status_counts"] = named_counts(counts.statuses)
        if output.metadata.options.on_bad_row != "drop":
            expected["bad_rows"] = int(counts.statuses[: LAST_BAD + 1].sum())
        elif isinstance(stored := (output.summary or {}).get("status_counts"), Mapping):
            bad = STATUS_NAMES[: LAST_BAD + 1]
            expected["status_counts"] |= {name: count for name, count in stored.items() if name in bad}
    return expected | _losses(output, counts)


def _counts_of_tokens(output: ScoredOutput, counts: RowCounts, tokens: TokenView) -> dict[str, Any]:
    """Return the expected values for sequences; none with dropped rows."""
    expected: dict[str, Any] = {}
    if output.metadata.options.on_bad_row == "drop":
        return expected
    if "status" in output.columns:
        expected["status_counts"] = named_counts(tokens.statuses)
        expected["bad_rows"] = int(tokens.statuses[: LAST_BAD + 1].sum())
        expected["token_status_counts"] = named_counts(counts.statuses)
    if "loss" in output.columns:
        expected["n_tokens"] = counts.losses
    return expected | _losses(output, counts)


def _losses(output: ScoredOutput, counts: RowCounts) -> dict[str, Any]:
    """Return the expected losses and accuracy, of rows or tokens."""
    expected: dict[str, Any] = {}
    if "loss" in output.columns:
        expected["infinite_losses"] = counts.infinite_losses
        if not counts.infinite_losses and counts.weight_sum:
            expected["mean_loss"] = counts.loss_sum / counts.weight_sum
    if "correct" in output.columns:
        labelled = counts.rows - counts.without_loss
        expected["accuracy"] = counts.hits / labelled if labelled else None
    return expected


def _is_equal(stored: Any, value: Any, output: ScoredOutput) -> bool:
    if isinstance(value, float) and isinstance(stored, float):
        slack = float(np.finfo(output.metadata.loss_dtype).eps) + SLACK
        return math.isclose(stored, value, rel_tol=slack, abs_tol=float(np.finfo(np.float32).tiny))
    return bool(stored == value)
