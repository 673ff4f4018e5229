"""Writes a table to a Parquet file. It is committed like any output: its path has the old file or the new one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pyarrow as pa

from batchmax.errors import UsageError
from batchmax.options.score_options import IfExists
from batchmax.parquet import FileSchema
from batchmax.sinks.commit.commit import Commit
from batchmax.sinks.commit.local_destination import output_paths
from batchmax.sinks.commit.make_destination import make_destination
from batchmax.sinks.parquet_sink import ParquetSink
from batchmax.sinks.row_group_encoder import RowGroupEncoder
from batchmax.storage.output_paths import is_file_path, refuse_inputs_as_output, refuse_uris_as_output
from batchmax.storage.paths import is_uri, local_path

CODEC = "SNAPPY"


def table_output(
    out: str, if_exists: IfExists, inputs: Sequence[str], storage: Sequence[str] = (), *, endings: str = ".parquet"
) -> Commit:
    """Return the commit of a table, and check that it can be written, before the table is computed.

    Parameters
    ----------
    out
        A path or a URI.
    if_exists
        ``error`` or ``overwrite``.
    inputs
        Files that must not be replaced.
    storage
        Options of the file system of a URI.
    endings
        The endings to propose if the path has another one.

    Raises
    ------
    UsageError
        The path isn't that of a Parquet file, or ``if_exists`` is ``resume``.
    OutputError
        The file exists and may not be replaced, or is one of the inputs.
    """
    out = local_path(out)
    if not is_file_path(out):
        raise UsageError("a table is written to one file", where=out, remedy=f"name a file that ends in {endings}")
    if if_exists == "resume":
        raise UsageError(
            "a table is written in one step, so there is nothing to resume",
            where="--if-exists",
            remedy="use --if-exists overwrite",
        )
    if is_uri(out):
        refuse_uris_as_output(inputs, out)
    else:
        refuse_inputs_as_output(inputs, *output_paths(out, gated=False))
    return Commit(make_destination(out, if_exists, storage=storage))


class TableSink:
    """A table that is being written; nothing is at its path until :meth:`publish`."""

    def __init__(self, commit: Commit, sink: ParquetSink) -> None:
        self._commit, self._sink = commit, sink

    def write(self, *batches: pa.RecordBatch) -> None:
        """Append rows."""
        self._sink.write(batches)

    def publish(self) -> int:
        """Publish the table, and return the size of the file in bytes."""
        size = self._sink.close()
        self._commit.main.prepare()
        self._commit.publish()
        return size


@contextlib.contextmanager
def table_sink(commit: Commit, schema: pa.Schema) -> Iterator[TableSink]:
    """Open a commit of :func:`table_output` for writing.

    Raises
    ------
    OutputError
        The file can't be written; an existing file is unchanged.
    """
    encoder = RowGroupEncoder(FileSchema(schema), dict.fromkeys(schema.names, CODEC))
    with commit.building(), ParquetSink(commit.main.staging.output, encoder) as sink:
        yield TableSink(commit, sink)


def save_table(table: pa.Table, commit: Commit) -> int:
    """Write a table to a commit of :func:`table_output`, and return the size of the file in bytes.

    Raises
    ------
    OutputError
        See :func:`table_sink`.
    """
    with table_sink(commit, table.schema) as sink:
        sink.write(*table.to_batches())
        return sink.publish()
