"""Choice of the codec and the encoding of each output column."""

from __future__ import annotations

from batchmax.columns.job import Job
from batchmax.parquet import Footer
from batchmax.sinks.parquet_sink import input_codecs, splits_bytes
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.streams.stream_source import StreamSource


def output_codecs(job: Job, source: ParquetSource | StreamSource) -> dict[str, str]:
    """Return the codec of each output column, by name."""
    chosen = None if job.options.compression is None else job.options.compression.upper()
    theirs = input_codecs(_first_filled(source))
    logits = theirs.get(job.logits.names[0].split(".")[0], "SNAPPY")
    codecs = {name: chosen or theirs.get(name, "SNAPPY") for name in job.carried.names}
    return codecs | dict.fromkeys(job.computed.names, chosen or logits)


def plain_columns(job: Job) -> tuple[str, ...]:
    """Return the output columns whose values rarely repeat."""
    everything = "*" in (job.options.columns or ())
    return (*job.computed.names, *(job.logits.names if everything else ()))


def output_split(job: Job, source: ParquetSource | StreamSource) -> bool:
    """Return whether matrices are written with BYTE_STREAM_SPLIT: they are if the logits are."""
    return splits_bytes(_first_filled(source), job.logits.names[0].split(".")[0])


def _first_filled(source: ParquetSource | StreamSource) -> Footer | None:
    """Return the footer of the first file that has rows."""
    return next((file.footer for file in source.files if file.metadata.num_rows), None)
