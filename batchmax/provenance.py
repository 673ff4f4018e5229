"""What an output says of itself: its metadata, rebuilt rather than copied, and the codecs of its columns."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from batchmax import __version__
from batchmax.job import Job
from batchmax.parquet import Footer
from batchmax.sink import input_codecs, kept_metadata, splits_bytes
from batchmax.source import ParquetSource
from batchmax.stream_source import StreamSource

OPTIONS_THAT_CHANGE_BYTES = (
    "beta",
    "input",
    "logits_dtype",
    "columns",
    "exclude",
    "ignore_index",
    "label_smoothing",
    "limit",
    "on_bad_row",
    "top_k",
    "prefix",
    "row_group_size",
    "compression",
)
REJECT_FIELDS = (pa.field("file", pa.string()), pa.field("row", pa.int64()), pa.field("status", pa.string()))
"""What is added to a row that was rejected; prefixed with ``batchmax_`` where the row has such a column."""


def output_schema(job: Job, source: ParquetSource | StreamSource) -> pa.Schema:
    """Return a job's output schema with the metadata of the file: what is still true of the input's, and our own."""
    metadata: dict[bytes, bytes] = {}
    for file in reversed(source.files):
        metadata.update(kept_metadata(file.metadata.metadata))
    if not source.files:
        metadata = kept_metadata(source.schema.metadata)
    metadata[b"batchmax"] = json.dumps(_provenance(job, source), ensure_ascii=False).encode()
    return job.schema.with_metadata(metadata)


def output_codecs(job: Job, source: ParquetSource | StreamSource) -> dict[str, str]:
    """Return the codec of each column of the output, by the column's name."""
    chosen = None if job.options.compression is None else job.options.compression.upper()
    theirs = input_codecs(_first_filled(source))
    logits = theirs.get(job.logits.names[0].split(".")[0], "SNAPPY")
    codecs = {name: chosen or theirs.get(name, "SNAPPY") for name in job.carried.names}
    return codecs | dict.fromkeys(job.computed.names, chosen or logits)


def output_split(job: Job, source: ParquetSource | StreamSource) -> bool:
    """Return whether matrices of the output have their bytes split: where the logits have."""
    return splits_bytes(_first_filled(source), job.logits.names[0].split(".")[0])


def _first_filled(source: ParquetSource | StreamSource) -> Footer | None:
    """Return the footer of the first file with rows in it."""
    return next((file.footer for file in source.files if file.metadata.num_rows), None)


def rejects_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema of rejected rows: everything of the input, then file, row and status; it is marked as ours."""
    added: list[pa.Field] = []
    for field in REJECT_FIELDS:
        name = field.name
        while name in schema.names:
            name = f"batchmax_{name}"
        added.append(field.with_name(name))
    return pa.schema([*schema, *added], metadata={b"batchmax": json.dumps({"version": __version__}).encode()})


def _provenance(job: Job, source: ParquetSource | StreamSource) -> dict[str, Any]:
    """Return what determines the bytes, and nothing else: no time, host or number of threads."""
    options = {name: getattr(job.options, name) for name in OPTIONS_THAT_CHANGE_BYTES}
    weights = None if job.class_weights is None else job.class_weights.tolist()
    return {
        "version": __version__,
        "logits": list(job.logits.names) if len(job.logits.names) == 1 else job.logits.why,
        "label": job.label.name if job.label else None,
        "n_classes": job.n_classes,
        "classes": job.classes,
        "temperature": 1.0 / job.options.beta,
        "outputs": list(job.outputs),
        "layout": job.layout,
        "dtype": str(job.dtype),
        "class_weights": weights,
        "options": options,
        "inputs": [{"size": file.size, "footer_sha256": file.footer_digest()} for file in source.files],
    }
