"""A column of lists of equally long lists into matrices: the inner lists, and which rows they are in.

:class:`SequenceReader` reads one column chunk in order, as many inner lists, tokens, at a time as are asked for,
wherever rows end. Whatever it does not know to be lists of lists of K values without a null it refuses with
:class:`~batchmax.parquet.reading.raw_pages.NotAMatrix`; then another reader must do the work.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmax import kernels
from batchmax.kernels.parquet.nested_levels import GOES_ON
from batchmax.parquet.footer import OPTIONAL, REPEATED, REPETITION, SchemaColumn
from batchmax.parquet.format import DICTIONARY_PAGE
from batchmax.parquet.reading.page_reader import Page, PageReader
from batchmax.parquet.reading.raw_pages import MOST_PAGE_BYTES, NotAMatrix
from batchmax.parquet.reading.value_reader import NumberReader, described
from batchmax.parquet.thrift import Struct

NESTED_ELEMENTS = 5
"""Elements of the schema of a list of lists: two groups for each list, and the number."""


class NestedLevels:
    """Levels of lists of lists of K values.

    Attributes
    ----------
    events
        What pages said and nobody took yet: of each token, and of each row without any, one of ``BEGINS``,
        ``GOES_ON``, ``NULL`` and ``EMPTY`` of :mod:`batchmax.kernels.parquet.nested_levels`.
    """

    def __init__(self, n_rows: int, n_classes: int, level: int, *, optional: bool) -> None:
        self._n_rows = n_rows
        self._n_classes = n_classes
        self._level = level
        self._optional = optional
        self._place = 0
        self.events: deque[NDArray[np.uint8]] = deque()

    def check(self, page: Page) -> int:
        """Return how many numbers a page holds."""
        # A token may have begun on the page before, and only a row can be without numbers.
        most = page.n_values // self._n_classes + 1 + min(self._n_rows, page.n_values)
        found = np.empty(most, np.uint8)
        self._place, n_events, n_numbers = kernels.walk_levels(
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
            raise NotAMatrix("inner lists are not all of one length, or something in them is null")
        if n_events:
            self.events.append(found[:n_events].copy())
        return int(n_numbers)


class SequenceReader:
    """The tokens of one column chunk of lists of lists, in order, and the rows that they are in.

    Parameters
    ----------
    descriptor, chunk, workers, most_page_bytes
        As for :class:`NumberReader`.
    column
        What the schema says of the column.
    n_rows, n_classes
        How many rows there are, and the length K that every inner list must have.

    Raises
    ------
    NotAMatrix
        Another type, nesting or codec.
    """

    def __init__(
        self,
        descriptor: int,
        chunk: Struct,
        column: SchemaColumn,
        n_rows: int,
        n_classes: int,
        workers: Executor | None = None,
        most_page_bytes: int = MOST_PAGE_BYTES,
    ) -> None:
        _check_nested(column)
        optional = column.elements[0][REPETITION].value == OPTIONAL
        self._levels = NestedLevels(n_rows, n_classes, column.leaves[0].definition, optional=optional)
        self._numbers = NumberReader(descriptor, chunk, self._levels, workers, most_page_bytes)
        self._token_bytes = n_classes * self._numbers.dtype.itemsize

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the values are: float32 or float64."""
        return self._numbers.dtype

    def read_into(self, out: NDArray[Any]) -> NDArray[np.uint8]:
        """Fill (n, K) C-contiguous memory of the column's type with the next n tokens, or those that are left.

        Returns
        -------
        the events of these tokens, in order, and of the rows without tokens before each of them; at the end of the
        column also of those after the last. There are as many tokens as ``BEGINS`` and ``GOES_ON``.

        Raises
        ------
        NotAMatrix
            The pages do not hold lists of lists of K values, or not in a way that is read here.
        OSError
            The file cannot be read.
        """
        target = out.reshape(-1).view(np.uint8)
        got = self._numbers.fill(target)
        tokens, rest = divmod(got, self._token_bytes)
        if rest:
            raise NotAMatrix("the last inner list is too short")
        return self._take(tokens, everything=got < len(target))

    def goes_on(self) -> bool:
        """Return whether the next token belongs to the row of the last one."""
        while not self._levels.events:
            if not self._numbers.look_ahead():
                return False
        return bool(self._levels.events[0][0] == GOES_ON)

    def check_end(self) -> None:
        """Check that all tokens were read.

        Raises
        ------
        NotAMatrix
            More pages follow.
        """
        self._numbers.check_end()

    def _take(self, tokens: int, *, everything: bool) -> NDArray[np.uint8]:
        taken: list[NDArray[np.uint8]] = []
        while self._levels.events and (tokens or everything):
            events = self._levels.events.popleft()
            are_tokens = np.cumsum(events <= GOES_ON)
            if are_tokens[-1] > tokens:
                if everything:
                    raise NotAMatrix("there are fewer numbers than lists")
                count = int(np.searchsorted(are_tokens, tokens)) + 1
                self._levels.events.appendleft(events[count:])
                events = events[:count]
            taken.append(events)
            tokens -= int(np.count_nonzero(events <= GOES_ON))
        if tokens:
            raise NotAMatrix("there are more numbers than lists")
        return np.concatenate(taken) if taken else np.empty(0, np.uint8)


def first_inner_length(
    descriptor: int, chunk: Struct, column: SchemaColumn, most_page_bytes: int = MOST_PAGE_BYTES
) -> int | None:
    """Return the length of the first inner list that is not empty in a column of lists of lists; None without one.

    No more is read than the first pages, and of long ones no more than their levels.

    Raises
    ------
    NotAMatrix
        Pages, or a column, that are not read here.
    OSError
        The file cannot be read.
    """
    _check_nested(column)
    level = column.leaves[0].definition
    _, codec, _, start, size = described(chunk, descriptor)
    length, ended = 0, False
    for page in PageReader(descriptor, start, start + size, codec, None, most_page_bytes):
        if page.kind != DICTIONARY_PAGE:
            length, ended = kernels.inner_length(
                page.repetition, page.definition, page.n_values, level, level.bit_length(), length
            )
        if length < 0:
            raise NotAMatrix("levels are damaged")
        if ended:
            break
    return length or None


def _check_nested(column: SchemaColumn) -> None:
    kinds = [element[REPETITION].value for element in column.elements]
    if len(kinds) != NESTED_ELEMENTS or [kinds[1], kinds[3]] != [REPEATED] * 2 or REPEATED in kinds[::2]:
        raise NotAMatrix("no list of lists of numbers")
