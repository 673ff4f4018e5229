"""Writes a table to a Parquet file. It is committed like any output: its path has the old file or the new one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pyarrow as pa

from batchmax.errors import UsageError
from batchmax.options.score_options import IfExists
from batchmax.sinks.commit.destination import places
from batchmax.sinks.commit.output import Output
from batchmax.sinks.commit.remote_output import RemoteOutput
from batchmax.sinks.parquet_sink import ParquetSink
from batchmax.storage.output_paths import is_file_path, refuse_inputs_as_output, refuse_uris_as_output
from batchmax.storage.paths import is_uri, local_path

CODEC = "SNAPPY"


def table_output(out: str, if_exists: IfExists, inputs: Sequence[str], storage: Sequence[str] = ()) -> Output:
    """Return the output of a table, and check that it can be written, before the table is computed.

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

    Raises
    ------
    UsageError
        The path isn't that of a Parquet file, or ``if_exists`` is ``resume``.
    OutputError
        The file exists and may not be replaced, or is one of the inputs.
    """
    out = local_path(out)
    if not is_file_path(out):
        raise UsageError("a table is written to one file", where=out, remedy="name a file that ends in .parquet")
    if if_exists == "resume":
        raise UsageError(
            "a table is written in one step, so there is nothing to resume",
            where="--if-exists",
            remedy="use --if-exists overwrite",
        )
    if is_uri(out):
        refuse_uris_as_output(inputs, out)
        return RemoteOutput(out, if_exists, storage)
    refuse_inputs_as_output(inputs, *places(out, gated=False))
    return Output(out, if_exists)


class TableSink:
    """A table that is being written; nothing is at its path until :meth:`publish`."""

    def __init__(self, output: Output, sink: ParquetSink) -> None:
        self._output, self._sink = output, sink

    def write(self, *batches: pa.RecordBatch) -> None:
        """Append rows."""
        self._sink.write(batches)

    def publish(self) -> int:
        """Publish the table, and return the size of the file in bytes."""
        size = self._sink.close()
        self._output.prepare()
        self._output.publish()
        return size


@contextlib.contextmanager
def table_sink(output: Output, schema: pa.Schema) -> Iterator[TableSink]:
    """Open an output of :func:`table_output` for writing.

    Raises
    ------
    OutputError
        The file can't be written; an existing file is unchanged.
    """
    codecs = dict.fromkeys(schema.names, CODEC)
    with output.building(), ParquetSink(output.file, schema, codecs, ()) as sink:
        yield TableSink(output, sink)


def save_table(table: pa.Table, output: Output) -> int:
    """Write a table to an output of :func:`table_output`, and return the size of the file in bytes.

    Raises
    ------
    OutputError
        See :func:`table_sink`.
    """
    with table_sink(output, table.schema) as sink:
        sink.write(*table.to_batches())
        return sink.publish()
