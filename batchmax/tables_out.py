"""Small tables as Parquet files, written as every output is: the old file, or the whole new one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pyarrow as pa

from batchmax.commit import Output
from batchmax.errors import UsageError
from batchmax.options import IfExists
from batchmax.sink import ParquetSink
from batchmax.storage import FILE_ENDINGS, refuse_inputs_as_output


class TableSink:
    """A table in the making, batch by batch; nothing is at its path until :meth:`publish`."""

    def __init__(self, output: Output, sink: ParquetSink) -> None:
        self._output, self._sink = output, sink

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self._sink.write([batch])

    def publish(self) -> None:
        """Put the table in its place."""
        self._sink.close()
        self._output.publish({})


@contextlib.contextmanager
def table_sink(out: str, schema: pa.Schema, if_exists: IfExists, inputs: list[str]) -> Iterator[TableSink]:
    """Make room for a table of this schema.

    Raises
    ------
    UsageError
        The path is not that of a file.
    OutputError
        Something is there, or it is an input, or cannot be written.
    """
    output = Output(out, if_exists)
    if not output.is_file:
        raise UsageError("the table goes into one file", where=out, remedy=f"end its name in {FILE_ENDINGS[0]}")
    if if_exists == "resume":
        raise UsageError("a table is not gone on with", where="--if-exists", remedy="give error or overwrite")
    refuse_inputs_as_output(inputs, output.path)
    with output.building():
        codecs = dict.fromkeys(schema.names, "SNAPPY")
        with ParquetSink(output.file_of(""), schema, codecs, ()) as sink:
            yield TableSink(output, sink)
