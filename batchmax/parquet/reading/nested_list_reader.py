"""Reads a column of lists of equally long lists into matrices: the inner lists, and the rows that contain them.

:class:`SequenceReader` reads one column chunk in order, any number of inner lists (tokens) at a time, independently of
row boundaries. It raises :class:`~batchmax.parquet.reading.raw_pages.PageError` for all data that isn't known to be
lists of lists of K values without nulls in them; another reader must then read the column.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax.kernels.parquet.nested_levels import CONTINUES, inner_length, walk_levels
from batchmax.parquet.footer import OPTIONAL, REPEATED, REPETITION, SchemaColumn
from batchmax.parquet.format import DICTIONARY_PAGE
from batchmax.parquet.reading.page_reader import Page, PageReader
from batchmax.parquet.reading.raw_pages import MAX_PAGE_BYTES, PageError
from batchmax.parquet.reading.value_reader import NumberReader, chunk_properties
from batchmax.parquet.thrift import Struct

NESTED_ELEMENTS = 5
"""The number of schema elements of a list of lists: two groups for each list, and the number."""


class NestedLevels:
    """Checks the levels of lists of lists of K values.

    Attributes
    ----------
    events
        Events of the pages that were checked and not taken yet: for each token, and each row without tokens, one of
        ``BEGINS``, ``CONTINUES``, ``NULL`` and ``EMPTY`` of :mod:`batchmax.kernels.parquet.nested_levels`.
    """

    def __init__(self, n_rows: int, n_classes: int, level: int, *, optional: bool) -> None:
        self._n_rows = n_rows
        self._n_classes = n_classes
        self._level = level
        self._optional = optional
        self._place = 0
        self.events: deque[NDArray[np.uint8]] = deque()

    def check(self, page: Page) -> int:
        """Return the number of numbers in a page, and append its events."""
        # A token may continue from the previous page, and only a row can be without numbers.
        most = page.n_values // self._n_classes + 1 + min(self._n_rows, page.n_values)
        found = np.empty(most, np.uint8)
        self._place, n_events, n_numbers = walk_levels(
            page.repetition,
            page.definition,
            page.n_values,
            self._n_classes,
            self._place,
            self._level,
            self._level.bit_length(),
            self._optional,
            found,
        )
        if self._place < 0:
            raise PageError("inner lists have different lengths, or nulls")
        if n_events:
            self.events.append(found[:n_events].copy())
        return int(n_numbers)


class SequenceReader(NumberReader):
    """The tokens of one column chunk of lists of lists, in order, and the rows that contain them.

    Parameters
    ----------
    descriptor, chunk, workers, max_page_bytes
        As for :class:`NumberReader`.
    column
        The column in the schema.
    n_rows, n_classes
        The number of rows, and the required length K of every inner list.

    Raises
    ------
    PageError
        If the type, nesting or codec is another.
    """

    def __init__(
        self,
        descriptor: int,
        chunk: Struct,
        column: SchemaColumn,
        n_rows: int,
        n_classes: int,
        workers: Executor | None = None,
        max_page_bytes: int = MAX_PAGE_BYTES,
    ) -> None:
        _check_nested(column)
        optional = column.elements[0][REPETITION].value == OPTIONAL
        self._nested = NestedLevels(n_rows, n_classes, column.leaves[0].definition, optional=optional)
        super().__init__(descriptor, chunk, self._nested, workers, max_page_bytes)
        self._token_bytes = n_classes * self.dtype.itemsize

    def read_into(self, out: NDArray[Any]) -> NDArray[np.uint8]:
        """Fill an (n, K) C-contiguous array of the column's type with the next n tokens, or with those that are left.

        Returns
        -------
        the events of these tokens, and of rows without tokens before each of them, in order; at the end of the column
        also those of rows after the last token. The number of tokens is the number of ``BEGINS`` and ``CONTINUES``.

        Raises
        ------
        PageError
            If the pages aren't lists of lists of K values in a supported form.
        OSError
            If the file can't be read.
        """
        target = out.reshape(-1).view(np.uint8)
        got = self.fill(target)
        tokens, rest = divmod(got, self._token_bytes)
        if rest:
            raise PageError("the last inner list is too short")
        return self._take(tokens, everything=got < len(target))

    def continues(self) -> bool:
        """Return whether the next token belongs to the same row as the last one."""
        while not self._nested.events:
            if not self.look_ahead():
                return False
        return bool(self._nested.events[0][0] == CONTINUES)

    def _take(self, tokens: int, *, everything: bool) -> NDArray[np.uint8]:
        taken: list[NDArray[np.uint8]] = []
        while self._nested.events and (tokens or everything):
            events = self._nested.events.popleft()
            are_tokens = np.cumsum(events <= CONTINUES)
            if are_tokens[-1] > tokens:
                if everything:
                    raise PageError("there are fewer numbers than lists")
                count = int(np.searchsorted(are_tokens, tokens)) + 1
                self._nested.events.appendleft(events[count:])
                events = events[:count]
            taken.append(events)
            tokens -= int(np.count_nonzero(events <= CONTINUES))
        if tokens:
            raise PageError("there are more numbers than lists")
        return np.concatenate(taken) if taken else np.empty(0, np.uint8)


def first_inner_length(
    descriptor: int, chunk: Struct, column: SchemaColumn, max_page_bytes: int = MAX_PAGE_BYTES
) -> int | None:
    """Return the length of the first innermost list that isn't empty; None if all are empty.

    Only the first pages are read, and only the levels of large pages: their values may be 100 MB.

    Raises
    ------
    PageError
        If the column isn't one of lists, or lists of lists, of floats, or its pages aren't supported.
    OSError
        If the file can't be read.
    """
    kinds = [element[REPETITION].value for element in column.elements]
    leaf = column.leaves[0]
    if leaf.repetition not in {1, 2} or len(column.leaves) > 1 or leaf.definition < 1:
        raise PageError("not a list of floats, or a list of lists of floats")
    level, filled = leaf.definition, leaf.definition - (kinds[-1] == OPTIONAL)
    _, codec, _, start, size = chunk_properties(chunk, descriptor)
    length, is_complete = 0, False
    for page in PageReader(descriptor, start, start + size, codec, None, max_page_bytes):
        if page.kind != DICTIONARY_PAGE:
            length, is_complete = inner_length(
                page.repetition, page.definition, page.n_values, leaf.repetition, filled, level.bit_length(), length
            )
        if length < 0:
            raise PageError("levels are damaged")
        if is_complete:
            break
    return length or None


def _check_nested(column: SchemaColumn) -> None:
    kinds = [element[REPETITION].value for element in column.elements]
    if len(kinds) != NESTED_ELEMENTS or [kinds[1], kinds[3]] != [REPEATED] * 2 or REPEATED in kinds[::2]:
        raise PageError("not a list of lists of floats")
