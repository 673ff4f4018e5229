"""Column chunks of one file for another: the bytes as they are, without decoding them.

The pages are walked all the same: their headers must lead from the first byte of the chunk to the last, their checksums
must be right, and their values must be as many as the footer says. What is not certain is refused, and then somebody
else must decode it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchmax.parquet.encoded import CODEC, N_VALUES, PATH, TYPE, EncodedChunk, movable, place_of
from batchmax.parquet.file_writer import FileSchema, Sorting
from batchmax.parquet.footer import COLUMNS, GROUP_ROWS, SORTING, TAIL, Footer, SchemaColumn
from batchmax.parquet.pages import DATA_PAGE, DATA_PAGE_V2, DICTIONARY_PAGE, NotAMatrix, Window, number, packed_pages
from batchmax.parquet.thrift import Struct

FILE_PATH, METADATA, ENCRYPTION = 1, 3, (8, 9)
MAGIC_BYTES = 4


class NotCopyable(ValueError):  # noqa: N818 - says what a chunk is, and nothing went wrong
    """A column chunk that cannot be known to be good elsewhere."""


@dataclass(frozen=True, eq=False)
class CopiedColumns:
    """What a row group of the output has from one of the input.

    Attributes
    ----------
    n_rows
        Of the input's row group. Chunks fit a row group of the output that has all of them, and no other.
    chunks
        By the column's name, one chunk for each leaf.
    sorting
        By what the rows are sorted, also where only some of them are taken.
    """

    n_rows: int
    chunks: Mapping[str, Sequence[EncodedChunk]]
    sorting: Sequence[Sorting]


def copy_column(descriptor: int, footer: Footer, group: int, column: SchemaColumn) -> list[EncodedChunk]:
    """Return the chunks of a top-level column in a row group, one for each leaf.

    Raises
    ------
    NotCopyable
        A chunk lies in another file, is encrypted, or its pages are not what the footer says.
    OSError
        The file cannot be read.
    """
    with _doubtful():
        row_group = footer.row_groups[group]
        entries: Sequence[Struct] = row_group[COLUMNS].value.values
        if len(entries) != len(footer.ordered):
            raise NotCopyable("the row group has another number of columns than the schema")
        chunks = [
            _copy(descriptor, entries[leaf], path, ordered=footer.ordered[leaf])
            for leaf, path in enumerate(column.leaves, start=column.first_leaf)
        ]
        if len(column.elements) == 1 and chunks[0].metadata[N_VALUES].value != row_group[GROUP_ROWS].value:
            raise NotCopyable("a column has another number of values than there are rows")
        return chunks


def sorting_of(footer: Footer, group: int, schema: FileSchema) -> list[Sorting]:
    """Return by what rows of a row group are still sorted in a file of another schema.

    Raises
    ------
    NotCopyable
        The footer is damaged.
    """
    keys: list[Sorting] = []
    with _doubtful():
        found = footer.row_groups[group].get(SORTING)
        for element in found.value.values if found else ():
            leaf = element[1].value
            column = next(one for one in footer.columns if 0 <= leaf - one.first_leaf < len(one.leaves))
            if not schema.takes(column):
                break
            keys.append(Sorting(column.name, leaf - column.first_leaf, element))
    return keys


@contextlib.contextmanager
def _doubtful() -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, AttributeError, TypeError, StopIteration) as error:
        raise NotCopyable(f"the footer is damaged: {error}") from error
    except NotAMatrix as error:
        raise NotCopyable(str(error)) from error


def _copy(descriptor: int, entry: Struct, path: tuple[bytes, ...], *, ordered: bool) -> EncodedChunk:
    if FILE_PATH in entry:
        raise NotCopyable("the column lies in another file")
    if any(field in entry for field in ENCRYPTION):
        raise NotCopyable("the column is encrypted")
    metadata: Struct = entry[METADATA].value
    if tuple(metadata[PATH].value.values) != path or not all(field in metadata for field in (TYPE, CODEC)):
        raise NotCopyable("the column has another name than in the schema")
    start, size = place_of(metadata)
    if start < MAGIC_BYTES or size < 0 or start + size > os.fstat(descriptor).st_size - TAIL:
        raise NotCopyable("the column reaches beyond the file")
    window = Window(descriptor, start, start + size, size)
    whole = window.bytes(start, size)
    values = 0
    for page in packed_pages(window):
        page.check()
        kind = page.header[1].value
        if kind in {DATA_PAGE, DATA_PAGE_V2}:
            header: Any = page.header[5 if kind == DATA_PAGE else 8].value
            values += number(header, 1)
        elif kind != DICTIONARY_PAGE:
            raise NotCopyable(f"page type {kind}")
    if values != metadata[N_VALUES].value:
        raise NotCopyable("the pages hold another number of values than the footer says")
    return EncodedChunk([whole], movable(metadata, ordered=ordered))
