"""What was computed of tokens, put together again as rows: lists of values, and what is said of a row as a whole.

Tokens come in pieces that end anywhere. A row is given when its last token is there; until then its values are kept.
Matrices need not be kept: they may be handed on as they come, as pieces of pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax import kernels
from batchmax.columns_out import status_column, vector_column
from batchmax.job import Job
from batchmax.losses import perplexities
from batchmax.outputs import LAST_BAD, LAST_WITHOUT_PROBS, Status
from batchmax.parquet import TokenRows
from batchmax.scoring import Scores, carried_columns, computed_columns
from batchmax.sequences import Tokens

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Piece:
    """Tokens of a matrix on their way to a file.

    Attributes
    ----------
    name
        Of the column.
    rows
        The tokens, and the rows that they are in.
    begins
        Whether this is the beginning of a row that may have to be taken back.
    """

    name: str
    rows: TokenRows
    begins: bool


@dataclass(frozen=True, eq=False)
class Ended:
    """Rows whose last token was computed: their columns, the worst status of each, and matrices on their way.

    ``taken_back`` is whether the matrices of the row that was begun before are to be taken out again.
    """

    batch: pa.RecordBatch
    status: NDArray[np.uint8]
    pieces: Sequence[Piece] = ()
    taken_back: bool = False


class SequenceRows:
    """Puts rows together.

    Parameters
    ----------
    job
        Of sequences.
    streams
        Whether matrices are handed on as they come, and not columns of the rows.
    """

    def __init__(self, job: Job, *, streams: bool) -> None:
        self._job = job
        self._streamed = job.matrices if streams else ()
        self._kept = tuple(name for name in (*job.outputs, *job.top_k_outputs) if name not in self._streamed)
        self._drops = job.options.on_bad_row == "drop"
        self._open: list[dict[str, pa.Array]] = []
        self._row: pa.RecordBatch | None = None
        self._length = 0
        self._worst = int(Status.OK)
        self._sums = np.zeros((3, 3))
        self._counted = 0

    def add(self, tokens: Tokens, scores: Scores) -> Ended:
        """Take what was computed of some tokens; return the rows that end with them."""
        worst = self._worst_of(tokens, scores.status)
        columns = dict.fromkeys(self._kept, pa.nulls(0))
        for name in self._kept:
            ((_, columns[name]),) = computed_columns(scores, self._job, names=[name])
        batch = self._rows(tokens, columns, self._scalars(tokens, scores, worst))
        was_open_bad = self._drops and tokens.continues and self._worst <= LAST_BAD
        pieces, taken_back = (
            self._pieces(tokens, scores, worst, was_bad=was_open_bad) if self._streamed else ([], False)
        )
        self._worst = int(Status.OK) if tokens.ends else int(worst[-1])
        return Ended(batch, worst[: tokens.n_ended], pieces, taken_back)

    def _worst_of(self, tokens: Tokens, status: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the worst status of each row until now; of a row that is null its own."""
        worst = np.full(tokens.n_rows, Status.OK, np.uint8)
        row, _ = tokens.places()
        if self._job.nesting is not None and self._job.nesting.shift:
            # The last token of a row has no label by design; that says nothing of the row.
            status = status.copy()
            ends = np.cumsum(tokens.lengths)[: tokens.n_ended][tokens.lengths[: tokens.n_ended] > 0] - 1
            status[ends[status[ends] == Status.UNLABELLED]] = Status.OK
        np.minimum.at(worst, row, status)
        worst[tokens.missing] = Status.NULL_LOGITS
        if tokens.continues:
            worst[0] = min(int(worst[0]), self._worst)
        return worst

    def _scalars(self, tokens: Tokens, scores: Scores, worst: NDArray[np.uint8]) -> dict[str, pa.Array]:
        """Return what is said of the rows that end as a whole."""
        n_ended = tokens.n_ended
        found: dict[str, pa.Array] = {}
        if "status" in self._job.outputs:
            found["status"] = status_column(worst[:n_ended])
        if "loss" not in self._job.outputs or scores.losses is None or scores.nll is None:
            return found
        counted = scores.status >= Status.MASKED_LABEL
        weights = np.ones(len(counted)) if scores.weights is None else scores.weights
        sums = np.zeros((3, tokens.n_rows, 3))
        sums[:, 0] = self._sums if tokens.n_rows else 0.0
        counts = np.zeros(tokens.n_rows, np.int64)
        if tokens.n_rows:
            counts[0] = self._counted
        row, _ = tokens.places()
        np.add.at(counts, row, counted)
        for one, values in zip(sums, (scores.losses, scores.nll, weights), strict=True):
            kernels.sum_lists(values, counted, tokens.lengths, one)
        self._sums = sums[:, -1].copy() if not tokens.ends else np.zeros((3, 3))
        self._counted = 0 if tokens.ends else int(counts[-1])
        loss, nll, weight = (one[:n_ended, 0] + one[:n_ended, 1] for one in sums)
        infinite = sums[0, :n_ended, 2] > 0
        counts = counts[:n_ended]
        bad = worst[:n_ended] <= LAST_BAD
        nothing = bad | (counts == 0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            total = np.where(infinite, np.inf, loss)
            mean = total / weight
            perplexity = perplexities(np.where(sums[1, :n_ended, 2] > 0, np.inf, nll) / counts)
        columns = {"mean_loss": (mean, nothing), "sum_loss": (total, bad), "perplexity": (perplexity, nothing)}
        for name, (numbers, missing) in columns.items():
            found[name] = vector_column(numbers, missing if missing.any() else None)
        found["n_tokens"] = vector_column(counts, bad if bad.any() else None)
        return found

    def _rows(self, tokens: Tokens, columns: dict[str, pa.Array], scalars: dict[str, pa.Array]) -> pa.RecordBatch:
        """Return the rows that end here, and keep what is there of one that does not."""
        n_ended = tokens.n_ended
        lengths = tokens.lengths.copy()
        rows = tokens.rows
        if tokens.continues:
            lengths[0] += self._length
        at = int(tokens.lengths[:n_ended].sum())
        n_tokens = int(tokens.lengths.sum())
        whole = {}
        for name, array in columns.items():
            before = [open_[name] for open_ in self._open]
            here = array.slice(0, at) if n_ended else array.slice(0, 0)
            whole[name] = pa.concat_arrays([*before, here]) if before and n_ended else _copied(here)
        if n_ended:
            self._open, self._length = [], 0
        if not tokens.ends and n_tokens > at:
            self._open.append({name: _copied(array.slice(at)) for name, array in columns.items()})
        self._length = 0 if tokens.ends else int(lengths[-1])
        fields = list(carried_columns(rows.slice(0, n_ended), self._job))
        job, missing = self._job, tokens.missing[:n_ended]
        prefix = job.options.prefix
        arrays = {field.name: array for field, array in fields}
        for name, array in whole.items():
            field = job.list_field(name)
            arrays[field.name] = _lists(array, lengths[:n_ended], missing, field.type)
        arrays |= {prefix + name: array for name, array in scalars.items()}
        present = [field for field in job.schema if field.name in arrays]
        return pa.RecordBatch.from_struct_array(
            pa.Array.from_buffers(
                pa.struct(present), n_ended, [None], children=[arrays[field.name] for field in present]
            )
        )

    def _pieces(
        self, tokens: Tokens, scores: Scores, worst: NDArray[np.uint8], *, was_bad: bool
    ) -> tuple[list[Piece], bool]:
        """Return the matrices of these tokens, and whether what was handed on of the first row is to be taken back."""
        taken_back = self._drops and tokens.continues and not was_bad and int(worst[0]) <= LAST_BAD
        keep = worst > LAST_BAD if self._drops else np.ones(tokens.n_rows, np.bool_)
        runs = [(0, tokens.n_rows)]
        if self._drops and not tokens.ends and not (tokens.continues and tokens.n_rows == 1):
            runs = [(0, tokens.n_rows - 1), (tokens.n_rows - 1, tokens.n_rows)]
        starts = np.concatenate([[0], np.cumsum(tokens.lengths)])
        pieces = []
        for name in self._streamed:
            matrix = scores.values[name]
            for number, (low, high) in enumerate(runs):
                begin, end = int(starts[low]), int(starts[high])
                kept_tokens = np.repeat(keep[low:high], tokens.lengths[low:high])
                missing = scores.status[begin:end] <= LAST_WITHOUT_PROBS
                rows = TokenRows.of(
                    _present(matrix[begin:end], kept_tokens & ~missing, self._job.dtype),
                    missing[kept_tokens],
                    tokens.lengths[low:high][keep[low:high]],
                    tokens.missing[low:high][keep[low:high]],
                    goes_on=low == 0 and tokens.continues and bool(keep[0]),
                )
                pieces.append(Piece(name, rows, number == 1))
        return pieces, taken_back


def _present(matrix: Array, present: NDArray[np.bool_], dtype: np.dtype[Any]) -> Array:
    found = matrix if present.all() else matrix[present]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return found if found.dtype == dtype else found.astype(dtype)


def _lists(values: pa.Array, lengths: Array, missing: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    """Return values as lists of some lengths, null where rows are missing."""
    dtype = np.int64 if pa.types.is_large_list(kind) else np.int32
    total = int(lengths.sum())
    if total > np.iinfo(dtype).max:
        raise ValueError(f"{total:,} tokens are too many for one array of {kind}")
    offsets = np.zeros(len(lengths) + 1, dtype)
    np.cumsum(lengths, out=offsets[1:])
    bitmap = pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None
    return pa.Array.from_buffers(kind, len(lengths), [bitmap, pa.py_buffer(offsets)], children=[values])


def _copied(array: pa.Array) -> pa.Array:
    """Return an array in memory of its own: that of what was computed is used again before rows are written."""
    return pa.concat_arrays([array, array.slice(0, 0)]) if len(array) else array
