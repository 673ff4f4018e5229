"""Assembles results of tokens to rows: lists of values, and values of whole sequences.

Chunks of tokens can end inside a row. A row is returned once its last token was computed; until then its values are
kept, except matrices, which can be passed on at once as pieces of pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.job import Job
from batchmax.columns.result_arrays import list_array, status_column, vector_column
from batchmax.columns.sequences import Tokens
from batchmax.functional.losses import perplexities
from batchmax.parquet import TokenRows
from batchmax.scoring.score_rows import ScoredRows, carried_columns, computed_columns
from batchmax.scoring.sequence_totals import SequenceTally, SequenceTotals
from batchmax.statuses import LAST_WITHOUT_PROBS

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Piece:
    """Tokens of a matrix that are passed on to a file.

    Attributes
    ----------
    name
        Name of the column.
    rows
        The tokens and their rows.
    begins
        Whether this is the start of a row that may be removed later, because bad rows are dropped.
    """

    name: str
    rows: TokenRows
    begins: bool


@dataclass(frozen=True, eq=False)
class CompletedRows:
    """Rows whose last token was computed: their columns and totals, and pieces of matrices.

    ``drops_open_row`` says whether the pieces of the first row that were passed on earlier must be removed, because the
    row is bad.
    """

    batch: pa.RecordBatch
    totals: SequenceTotals
    pieces: Sequence[Piece] = ()
    drops_open_row: bool = False


class SequenceRows:
    """Assembles rows.

    Parameters
    ----------
    job
        A job whose rows are sequences.
    streams
        Whether matrices are passed on in pieces, instead of as columns of the rows.
    """

    def __init__(self, job: Job, *, streams: bool) -> None:
        self._job = job
        self._streamed = job.matrices if streams else ()
        self._kept = tuple(name for name in (*job.outputs, *job.top_k_outputs) if name not in self._streamed)
        self._drops = job.options.on_bad_row == "drop"
        self._open: dict[str, list[pa.Array]] = {}
        self._length = 0
        has_losses = job.label is not None
        shift = job.nesting is not None and job.nesting.shift
        self._tally = SequenceTally(shift=shift, n_sums=3 if has_losses else 0)
        self._open_is_bad = False

    def add(self, tokens: Tokens, scores: ScoredRows) -> CompletedRows:
        """Add the results of some tokens; return the rows that end with them."""
        values: tuple[Array, ...] = ()
        if scores.losses is not None and scores.nll is not None:
            weights = np.ones(len(scores.status)) if scores.weights is None else scores.weights
            values = scores.losses, scores.nll, weights
        totals = self._tally.add(tokens, scores.status, values)
        completed = totals.first(tokens.n_ended)
        columns = dict.fromkeys(self._kept, pa.nulls(0))
        for name in self._kept:
            ((_, columns[name]),) = computed_columns(scores, self._job, names=[name])
        batch = self._rows(tokens, columns, self._scalars(completed))
        pieces, drops_open_row = self._pieces(tokens, scores, totals.is_bad) if self._streamed else ([], False)
        self._open_is_bad = not tokens.ends and bool(totals.is_bad[-1])
        return CompletedRows(batch, completed, pieces, drops_open_row)

    def _scalars(self, completed: SequenceTotals) -> dict[str, pa.Array]:
        """Return the columns with one value per row for the rows that end."""
        found: dict[str, pa.Array] = {}
        if "status" in self._job.outputs:
            found["status"] = status_column(completed.status)
        if "loss" not in self._job.outputs:
            return found
        bad, lacks_loss = completed.is_bad, ~completed.is_scored
        loss, nll, weight = completed.sums
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            mean = loss / weight
            perplexity = perplexities(nll / completed.counts)
        columns = {"mean_loss": (mean, lacks_loss), "sum_loss": (loss, bad), "perplexity": (perplexity, lacks_loss)}
        for name, (numbers, missing) in columns.items():
            found[name] = vector_column(numbers, missing if missing.any() else None)
        found["n_tokens"] = vector_column(completed.counts, bad if bad.any() else None)
        return found

    def _rows(self, tokens: Tokens, columns: dict[str, pa.Array], scalars: dict[str, pa.Array]) -> pa.RecordBatch:
        """Return the rows that end here, and keep the values of one that doesn't."""
        n_ended = tokens.n_ended
        lengths = tokens.lengths.copy()
        if tokens.continues:
            lengths[0] += self._length
        at = int(tokens.lengths[:n_ended].sum())
        n_tokens = int(tokens.lengths.sum())
        whole = {}
        for name, array in columns.items():
            pieces, here = self._open.setdefault(name, []), array.slice(0, at)
            whole[name] = here
            if n_ended:
                whole[name] = _copied([*pieces, here])
                pieces.clear()
            if n_tokens > at:
                pieces.append(_copied([array.slice(at)]))
        self._length = 0 if tokens.ends else int(lengths[-1])
        job, missing = self._job, tokens.missing[:n_ended]
        arrays = {field.name: array for field, array in carried_columns(tokens.rows.slice(0, n_ended), job)}
        for name, array in whole.items():
            field = job.list_field(name)
            arrays[field.name] = list_array(array, lengths[:n_ended], missing if missing.any() else None, field.type)
        arrays |= {job.options.prefix + name: array for name, array in scalars.items()}
        present = [field for field in job.schema if field.name in arrays]
        return pa.RecordBatch.from_struct_array(
            pa.Array.from_buffers(
                pa.struct(present), n_ended, [None], children=[arrays[field.name] for field in present]
            )
        )

    def _pieces(self, tokens: Tokens, scores: ScoredRows, bad: NDArray[np.bool_]) -> tuple[list[Piece], bool]:
        """Return the pieces of matrices, and whether those passed on earlier for the first row must be removed."""
        drops_open_row = self._drops and tokens.continues and not self._open_is_bad and bool(bad[0])
        keep = ~bad if self._drops else np.ones(tokens.n_rows, np.bool_)
        runs = [(0, tokens.n_rows)]
        if self._drops and not tokens.ends and not (tokens.continues and tokens.n_rows == 1):
            runs = [(0, tokens.n_rows - 1), (tokens.n_rows - 1, tokens.n_rows)]
        starts = np.concatenate([[0], np.cumsum(tokens.lengths)])
        pieces = []
        for name in self._streamed:
            matrix, column = scores.values[name], self._job.list_field(name).name
            for number, (low, high) in enumerate(runs):
                begin, end = int(starts[low]), int(starts[high])
                kept_tokens = np.repeat(keep[low:high], tokens.lengths[low:high])
                missing = scores.status[begin:end] <= LAST_WITHOUT_PROBS
                rows = TokenRows.of(
                    _present(matrix[begin:end], kept_tokens & ~missing, self._job.dtype),
                    missing[kept_tokens],
                    tokens.lengths[low:high][keep[low:high]],
                    tokens.missing[low:high][keep[low:high]],
                    continues=low == 0 and tokens.continues and bool(keep[0]),
                )
                pieces.append(Piece(column, rows, number == 1))
        return pieces, drops_open_row


def _present(matrix: Array, present: NDArray[np.bool_], dtype: np.dtype[Any]) -> Array:
    found = matrix if present.all() else matrix[present]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return found if found.dtype == dtype else found.astype(dtype)


def _copied(arrays: list[pa.Array]) -> pa.Array:
    """Return arrays as one, as a copy: the memory of results is reused before rows are written."""
    return pa.concat_arrays([*arrays, arrays[0].slice(0, 0)])
