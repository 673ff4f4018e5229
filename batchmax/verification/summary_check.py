"""Compare the summary of a scored output with its rows, as far as the columns determine it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from batchmax.scoring.tally import named_counts
from batchmax.statuses import LAST_BAD, STATUS_NAMES
from batchmax.verification.invariants import RowCounts
from batchmax.verification.output_metadata import output_error
from batchmax.verification.scored_output import ScoredOutput

SLACK = 1e-11
"""Relative rounding error of a mean over all rows, in addition to the error of its terms."""


def check_summary(output: ScoredOutput, counts: RowCounts) -> list[str]:
    """Compare the summary with the counts of all rows, or of all tokens, and return the names that agree.

    Raises
    ------
    DataError
        A figure differs.
    """
    summary = output.summary
    if summary is None:
        return []
    expected = _expected(output, summary, counts)
    for name, value in expected.items():
        if name in summary and not _is_equal(summary[name], value, output):
            source = "the manifest" if output.is_folder else "the summary in the footer"
            raise output_error(f"{source} has {name} {summary[name]}, but the rows give {value}", output.path)
    return [name for name in ("n_rows", *expected) if name in summary]


def _expected(output: ScoredOutput, summary: Mapping[str, Any], counts: RowCounts) -> dict[str, Any]:
    """Return the figures that follow from the counts; of sequences with dropped rows, only the number of classes."""
    metadata = output.metadata
    expected: dict[str, Any] = {"n_classes": metadata.n_classes}
    drops = metadata.options.on_bad_row == "drop"
    if metadata.nested and drops:
        return expected
    if "status" in output.columns:
        rows = counts.sequences if metadata.nested else counts.statuses
        expected["status_counts"] = named_counts(rows)
        if not drops:
            expected["bad_rows"] = int(rows[: LAST_BAD + 1].sum())
        elif isinstance(stored := summary.get("status_counts"), Mapping):
            bad = STATUS_NAMES[: LAST_BAD + 1]
            expected["status_counts"] |= {name: count for name, count in stored.items() if name in bad}
        if metadata.nested:
            expected["token_status_counts"] = named_counts(counts.statuses)
    if "loss" in output.columns:
        if metadata.nested:
            expected["n_tokens"] = counts.losses
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
