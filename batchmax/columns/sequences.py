"""Sequences: finds the columns that hold a list per row with one item per token, and maps tokens to rows and back.

A sequence is a row whose logits are a list of rows of numbers, one for each token. Tokens are computed as if each were
a row; results become lists again when columns are written. Knows schemas and arrays; doesn't know files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import (
    column_array,
    is_large,
    is_list,
    is_text_or_bytes,
    plain_array,
    plain_type,
    type_text,
    valid_rows,
)
from batchmax.columns.class_names import label_name
from batchmax.columns.logits_layout import LogitsColumn
from batchmax.errors import UsageError
from batchmax.options.score_options import ScoreOptions
from batchmax.outputs import SCALARS
from batchmax.statuses import Status


@dataclass(frozen=True)
class Nesting:
    """Which columns of sequences have one item per token.

    Attributes
    ----------
    logits, label
        The names of the list columns of logits and labels; ``label`` is None without labels.
    schema
        Schema of tokens: that of the input, with these columns as the items of their lists.
    is_large
        Whether the lists of logits have 64-bit offsets.
    shift
        Whether a token's label is the next item of the list of labels, so that the last token has none.
    """

    logits: str
    label: str | None
    schema: pa.Schema
    is_large: bool
    shift: bool


def find_sequences(schema: pa.Schema, options: ScoreOptions, logits: LogitsColumn) -> Nesting | None:
    """Return how rows are sequences; None if they aren't.

    Raises
    ------
    UsageError
        Labels that aren't lists, an invalid ``--bytes`` column, the layout ``wide``, or an option for sequences
        although rows aren't sequences.
    """
    if not logits.nested:
        for option, given in (("--shift", options.shift), ("--bytes", options.bytes is not None)):
            if given:
                what = "the rows aren't sequences: each has one list of logits"
                raise UsageError(what, where=option, remedy="leave it out; it applies to lists of lists of logits")
        return None
    name = logits.names[0]
    types = {field.name: field.type for field in schema}
    label = label_name(types, options)
    if label is not None and label in types and not is_list(plain_type(types[label])):
        raise UsageError(
            f"column {label!r} ({type_text(types[label])}) has one label per row, but the rows are sequences",
            where="--label",
            remedy="name a column of lists with one label per token; or use no labels: --label none",
        )
    if options.layout == "wide":
        raise UsageError(
            "sequences can't be written as one column per class", where="--layout", remedy="use list or fixed"
        )
    _check_bytes(types, options)
    items = {one: plain_type(types[one]).value_type for one in (name, label) if one in types}
    fields = [field.with_type(items.get(field.name, field.type)) for field in schema]
    tokens = pa.schema(fields, schema.metadata)
    return Nesting(name, label, tokens, is_large(plain_type(types[name])), options.shift)


def row_fields(names: tuple[str, ...]) -> list[pa.Field]:
    """Return the fields with one value per row that accompany some outputs of its tokens."""
    fields = []
    if "loss" in names:
        types = (pa.float64(), pa.float64(), pa.float64(), pa.int64())
        fields += [pa.field(name, kind) for name, kind in zip(SCALARS, types, strict=True)]
    if "status" in names:
        fields.append(pa.field("status", pa.dictionary(pa.int8(), pa.string())))
    return fields


@dataclass(frozen=True, eq=False)
class Tokens:
    """Maps consecutive tokens to their rows.

    Attributes
    ----------
    rows
        The rows that have tokens here, and adjacent empty or null rows: their columns, with whole lists.
    lengths
        Shape (n_rows,), int64: how many tokens of each row are here.
    missing
        Shape (n_rows,): whether a row is null.
    first
        Index of the first token in its row: 0, unless the first row began earlier.
    ends
        Whether the last row ends here.
    """

    rows: pa.RecordBatch
    lengths: NDArray[np.int64]
    missing: NDArray[np.bool_]
    first: int
    ends: bool

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return len(self.lengths)

    @property
    def continues(self) -> bool:
        """Whether the first row began earlier."""
        return self.first > 0

    @property
    def n_ended(self) -> int:
        """The number of rows that end here."""
        return self.n_rows - (not self.ends)

    def numbered(self, first_row: int) -> Iterator[tuple[slice, int]]:
        """Yield for each row the slice of its tokens and the number of its first token; the first row is ``first_row``.

        Numbers are consecutive within a row, and unique over all rows.
        """
        at = 0
        for row, length in enumerate(self.lengths.tolist()):
            yield slice(at, at + length), (first_row + row << 32) + (self.first if row == 0 else 0)
            at += length

    def split(self, rows: int) -> tuple[Tokens, Tokens]:
        """Split after the first ``rows`` rows, all of which must end here."""
        lengths, missing = self.lengths, self.missing
        return (
            Tokens(self.rows.slice(0, rows), lengths[:rows], missing[:rows], self.first, ends=True),
            Tokens(self.rows.slice(rows), lengths[rows:], missing[rows:], 0, self.ends),
        )

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return for each token its row, counted from the first row here, and its index in that row."""
        row = np.repeat(np.arange(self.n_rows), self.lengths)
        starts = np.cumsum(self.lengths) - self.lengths
        place = np.arange(len(row)) - starts[row]
        place[: self.lengths[0] if self.n_rows else 0] += self.first
        return row, place


def token_labels(tokens: Tokens, nesting: Nesting) -> tuple[pa.Array | None, NDArray[np.uint8] | None]:
    """Return the labels of tokens, and their statuses; None without labels, and None if all are ``OK``.

    A token beyond the end of its row's labels has status ``BAD_LABEL``, and so does the last token of a row with more
    labels than tokens. A row whose labels are null has no labels.
    """
    if nesting.label is None:
        return None, None
    row, place = tokens.places()
    wanted = place + nesting.shift
    labels, inside, known, counts = _items(tokens, nesting.label, row, wanted)
    last = np.zeros(len(row), np.bool_)
    last_of_row = np.cumsum(tokens.lengths) - 1
    ended = np.flatnonzero((tokens.lengths > 0) & (np.arange(tokens.n_rows) < tokens.n_ended))
    last[last_of_row[ended]] = True
    beyond = ~inside & known[row]
    if nesting.shift:
        beyond &= ~(last & (wanted == counts[row]))
    too_many = last & known[row] & (counts[row] > place + 1)
    bad = beyond | too_many
    if not bad.any():
        return labels, None
    return labels, np.where(bad, Status.BAD_LABEL, Status.OK).astype(np.uint8)


def token_values(tokens: Tokens, name: str) -> pa.Array:
    """Return the values for tokens from a column that has a list per row with one item per token.

    A token beyond the end of its row's list gets null.
    """
    return _items(tokens, name, *tokens.places())[0]


def _items(
    tokens: Tokens, name: str, row: NDArray[np.int64], place: NDArray[np.int64]
) -> tuple[pa.Array, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """Return items of the lists of rows, null beyond the end of a list, and which items exist.

    Also returns for each row whether its list isn't null, and the length of the list.
    """
    lists = plain_array(column_array(tokens.rows, name))
    known = valid_rows(lists)
    starts, counts = extents(lists)
    counts = np.where(known, counts, 0)
    inside = place < counts[row]
    items = lists.values.take(pa.array(np.where(inside, starts[row] + place, 0), pa.int64(), mask=~inside))
    return items, inside, known, counts


def extents(lists: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the start of each list in the child array, and its length."""
    if isinstance(lists, pa.FixedSizeListArray):
        size = lists.type.list_size
        return (np.arange(len(lists)) + lists.offset) * size, np.full(len(lists), size)
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return offsets[:-1], np.diff(offsets)


def _check_bytes(types: dict[str, Any], options: ScoreOptions) -> None:
    if options.bytes is None:
        return
    kind = plain_type(types[options.bytes]) if options.bytes in types else None
    if kind is None:
        remedy = f"the columns are {', '.join(list(types)[:20])}"
        raise UsageError(f"there is no column {options.bytes!r}", where="--bytes", remedy=remedy)
    if not (pa.types.is_integer(kind) or is_text_or_bytes(kind)):
        raise UsageError(
            f"column {options.bytes!r} ({type_text(types[options.bytes])}) is neither text nor an integer",
            where="--bytes",
            remedy="name a column of texts or of their sizes in bytes",
        )
