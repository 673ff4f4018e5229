"""Writes columns of a row group in pieces, because the matrices of sequences may not fit into memory."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from batchmax.parquet import EncodedChunk, FileWriter, NestedColumn
from batchmax.scoring.sequence_assembler import Piece
from batchmax.sinks.row_group_encoder import RowGroupEncoder

READ_BYTES = 1 << 20
"""Bytes that are read from a temporary file at a time."""


class SpilledColumns:
    """Columns of a row group that are written in pieces: the first to the output, the others to temporary files.

    A column chunk is contiguous in its file, so only one column can be written to the output directly.
    """

    def __init__(
        self, encoder: RowGroupEncoder, file: FileWriter, folder: Path, dtype: np.dtype[Any], n_classes: int
    ) -> None:
        self._make = functools.partial(encoder.nested_column, dtype=dtype, n_classes=n_classes)
        self._file = file
        self._folder = folder
        self._columns: dict[str, NestedColumn] = {}
        self._waiting: dict[str, IO[bytes]] = {}
        self._start = 0
        self._marks: dict[str, tuple[Any, int]] = {}

    def add(self, pieces: Sequence[Piece]) -> None:
        """Append tokens."""
        for piece in pieces:
            column = self._columns.get(piece.name)
            if column is None:
                if not self._columns:
                    self._start = self._file.size
                elif piece.name not in self._waiting:
                    self._waiting[piece.name] = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - see close
                column = self._columns[piece.name] = self._make(piece.name)
            if piece.begins:
                self._marks[piece.name] = column.mark(), column.n_bytes
            made = column.pages(piece.rows)
            waiting = self._waiting.get(piece.name)
            if waiting is None:
                self._file.write(made)
            else:
                waiting.writelines(made)

    def drop_last_row(self) -> None:
        """Remove the row that was started last."""
        for name, (mark, size) in self._marks.items():
            self._columns[name].restore(mark)
            if name in self._waiting:
                self._waiting[name].seek(size)
                self._waiting[name].truncate()
            else:
                self._file.rewind(self._start + size)

    def end(self) -> dict[str, EncodedChunk]:
        """Return the columns of the row group, and start the next."""
        chunks = {}
        for name, column in self._columns.items():
            if name in self._waiting:
                chunks[name] = column.chunk(_read_and_empty(self._waiting[name]))
            else:
                chunks[name] = column.chunk(at=self._start)
        self._columns, self._marks = {}, {}
        return chunks

    def close(self) -> None:
        """Close the temporary files."""
        for file in self._waiting.values():
            file.close()


def _read_and_empty(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the contents of a file, then empty it."""
    file.seek(0)
    while data := file.read(READ_BYTES):
        yield data
    file.seek(0)
    file.truncate()
