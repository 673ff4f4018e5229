"""Record batches into a Parquet file in the making, a row group at a time.

Knows where the bytes go and how they are encoded; not what they mean, nor when the file is published.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchmax import __version__
from batchmax.errors import OutputError
from batchmax.parquet import CopiedColumns, FileWriter, Footer, FooterError, ThriftError
from batchmax.parquet.footer import footer_of_schema
from batchmax.parquet.format import BYTE_STREAM_SPLIT
from batchmax.parquet.writing.column_chunk import CODEC, ENCODINGS, METADATA
from batchmax.parquet.writing.list_writer import CODEC_NUMBERS
from batchmax.scoring.sequence_assembler import Piece
from batchmax.sinks.row_group_encoder import RowGroupEncoder, writer_options
from batchmax.sinks.spilled_columns import StreamedColumns
from batchmax.sources.parquet_file import read_footer
from batchmax.storage import system_calls
from batchmax.storage.files import open_again, open_exclusively

SUMMARY_KEY = "batchmax.scoring.summary"
"""The metadata that say what came out, in JSON."""

STALE_KEYS = (b"pandas", b"huggingface", b"ARROW:schema", b"batchmax", SUMMARY_KEY.encode())
"""Metadata that describe the input's columns, and would be wrong of the output's."""

STALE_PREFIX = b"org.apache.spark."
"""Spark believes this schema rather than the file's, and would not show new columns."""

CREATED_BY = f"batchmax version {__version__}"

CODEC_NAMES = {number: name for name, number in CODEC_NUMBERS.items()}


class ParquetSink:
    """A Parquet file that is being written; a context manager that closes it.

    Parameters
    ----------
    path
        Where to write; nothing may be there.
    schema
        The fields, and the metadata of the file.
    compression
        The codec of each column, by its name.
    plain
        The columns whose values hardly repeat: written without dictionary and statistics.
    encoder
        What makes row groups, if pyarrow is not to write the file by itself.
    done
        How far the file is already, if an encoder goes on with one that was left unfinished.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        compression: Mapping[str, str],
        plain: Iterable[str],
        encoder: RowGroupEncoder | None = None,
        done: FileState | None = None,
    ) -> None:
        self.path = path
        self.rows = done.rows if done is not None else 0
        self._n_leaves = len((footer_of_schema(schema) if encoder is None else encoder.schema.footer).leaves)
        self._encoder = encoder
        self._streams: StreamedColumns | None = None
        with self._writing():
            descriptor = open_exclusively(path) if done is None or not done.size else open_again(path)
            self._file = os.fdopen(descriptor, "wb", buffering=0)
            if encoder is not None:
                begun = ((), 0) if done is None else (done.groups, done.size)
                self._ours = FileWriter(descriptor, encoder.schema, CREATED_BY, begun)
            else:
                options = writer_options(schema, compression, frozenset(plain))
                self._arrow = pq.ParquetWriter(self._file, schema, **options)

    def stream(self, pieces: Sequence[Piece], dtype: np.dtype[Any], n_classes: int, *, taken_back: bool) -> None:
        """Append tokens of matrices to the row group that :meth:`write` ends.

        ``taken_back`` is whether the row that was begun last is to be taken out again first.
        """
        if self._encoder is None:
            raise ValueError("pyarrow does not write in pieces")
        with self._writing():
            if self._streams is None:
                self._streams = StreamedColumns(self._encoder, self._ours, self.path.parent, dtype, n_classes)
            if taken_back:
                self._streams.take_back()
            self._streams.add(pieces)

    def write(self, batches: Sequence[pa.RecordBatch], copied: CopiedColumns | None = None) -> None:
        """Append a row group made of some batches, and of what was streamed; without rows, append nothing.

        ``copied`` are columns that the batches need not have, if their rows are as many.
        """
        rows = sum(batch.num_rows for batch in batches)
        if not rows:
            return
        streamed = {} if self._streams is None else self._streams.end()
        with self._writing():
            if self._encoder is None:
                self._arrow.write_table(pa.Table.from_batches(batches), row_group_size=rows)
            else:
                whole = copied if copied is not None and copied.n_rows == rows else None
                columns = self._encoder.encode(batches, whole, streamed)
                self._ours.append(rows, columns, copied.sorting if copied is not None else ())
        self.rows += rows

    @property
    def size(self) -> int:
        """How many bytes were handed over. This and what follows need an encoder."""
        return self._ours.size

    @property
    def written(self) -> int:
        """How many bytes the system has got."""
        return self._ours.written

    @property
    def synced(self) -> int:
        """How many bytes are durable."""
        return self._ours.synced

    def new_groups(self) -> list[bytes]:
        """Return the row groups since this was asked last, as the footer will have them."""
        return self._ours.new_groups()

    def sync(self) -> None:
        """Make durable what is written."""
        with self._writing():
            self._ours.sync()

    def push(self) -> None:
        """Write what waits; this is for small files."""
        with self._writing():
            self._ours.push()

    def pause(self) -> None:
        """Write what waits, and leave the file unfinished."""
        with self._writing():
            self._ours.pause()

    def close(self, metadata: Mapping[str, str] = MappingProxyType({})) -> int:
        """Finish the file, make it durable, look at it once more, and return its size.

        ``metadata`` go into the footer, beside those of the schema.

        Raises
        ------
        OutputError
            The file cannot be written, or does not hold what was written to it.
        """
        with self._writing():
            if self._encoder is None:
                self._arrow.add_key_value_metadata(metadata)
                self._arrow.close()
            else:
                self._ours.finish(metadata)
                self._ours.close()
            system_calls.sync(self._file.fileno())
            size = os.fstat(self._file.fileno()).st_size
            self._file.close()
            written = read_footer(self.path)
        if written.num_rows != self.rows or written.num_columns != self._n_leaves:
            raise OutputError("the file does not hold what was written", where=str(self.path), remedy="check the disk")
        return size

    def abandon(self) -> None:
        """Let go of the file, whole or not."""
        # A writer that is still open would try to finish the file when it is collected, and complain that it cannot.
        if self._encoder is not None:
            self._ours.close()
        else:
            with contextlib.suppress(OSError, ValueError, pa.ArrowException):
                self._arrow.close()
        if self._streams is not None:
            self._streams.close()
        self._file.close()

    def __enter__(self) -> Self:
        """Return the sink itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the file, whole or not; after a failure with what was handed over, for who goes on with it."""
        try:
            if error is not None and self._encoder is not None and not self._file.closed:
                with contextlib.suppress(OSError, OutputError):
                    self.pause()
        finally:
            self.abandon()

    def _writing(self) -> Any:
        return _Writing(self.path)


def input_codecs(footer: Footer | None) -> dict[str, str]:
    """Return the codec of each column of a file, by the column's name, as its first row group has it."""
    codecs: dict[str, str] = {}
    if footer is None or not footer.n_row_groups:
        return codecs
    # Not by pyarrow's metadata: where a damaged footer has other levels than the schema, asking it ends the process.
    with contextlib.suppress(FooterError, ThriftError):
        group = footer.row_group(0)
        for column in footer.columns:
            chunk = group.chunk(column.first_leaf)
            if METADATA in chunk:
                codecs[column.name] = CODEC_NAMES.get(chunk[METADATA].value[CODEC].value, "SNAPPY")
    return codecs


def splits_bytes(footer: Footer | None, name: str) -> bool:
    """Return whether a file has the numbers of a column with all their first bytes first (BYTE_STREAM_SPLIT)."""
    column = None if footer is None or not footer.n_row_groups else footer.column(name)
    if footer is None or column is None:
        return False
    with contextlib.suppress(FooterError, ThriftError):
        chunk = footer.row_group(0).chunk(column.first_leaf)
        return METADATA in chunk and BYTE_STREAM_SPLIT in chunk[METADATA].value[ENCODINGS].value.values
    return False


def kept_metadata(metadata: Mapping[bytes, bytes] | None) -> dict[bytes, bytes]:
    """Return the metadata of an input that are still true of an output."""
    return {
        key: value
        for key, value in (metadata or {}).items()
        if key not in STALE_KEYS and not key.startswith(STALE_PREFIX)
    }


class _Writing:
    """Turn what goes wrong while a file is written into errors that name it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError | pa.ArrowException):
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise OutputError(
                f"cannot be written: {reason}",
                where=str(self._path),
                remedy="make room there, or name another place: -o",
            ) from error


@dataclass
class FileState:
    """How far a file is whole: bytes, rows, and its row groups as the footer will have them."""

    size: int = 0
    rows: int = 0
    groups: list[bytes] = field(default_factory=list)
