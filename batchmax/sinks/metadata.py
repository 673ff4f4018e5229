"""The schemas of outputs, and the metadata in them, which are rebuilt, not copied from the input."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from batchmax import __version__
from batchmax.columns.job import Job
from batchmax.columns.scored_input import DEFAULT_PATTERN
from batchmax.columns.sequences import Nesting
from batchmax.kernels.compiler.cache import source_fingerprint
from batchmax.options.score_options import ScoreOptions
from batchmax.sinks.parquet_sink import kept_metadata
from batchmax.sources.parquet_file import InputFile, pyarrow_only
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.streams.stream_source import StreamSource
from batchmax.storage.file_names import composed

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
SAMPLES_AT_ONCE = 16
MAX_INPUTS = 1000
"""The maximum number of input files that the metadata describe one by one; every part of a folder repeats this list."""

REJECT_FIELDS = (pa.field("file", pa.string()), pa.field("row", pa.int64()), pa.field("status", pa.string()))
"""The columns added to rejected rows, with the prefix ``batchmax_`` if the input has a column of the same name."""


def output_schema(job: Job, source: ParquetSource | StreamSource, command: str = "score") -> pa.Schema:
    """Return the schema of a job's output with the file's metadata: the input's that still apply, and the job's own."""
    metadata: dict[bytes, bytes] = {}
    for file in reversed(source.files):
        metadata.update(kept_metadata(file.metadata.metadata))
    if not source.files:
        metadata = kept_metadata(source.schema.metadata)
    metadata[b"batchmax"] = json.dumps(_provenance(job, source.files, command), ensure_ascii=False).encode()
    return job.schema.with_metadata(metadata)


def batch_metadata(job: Job, schema: pa.Schema) -> dict[bytes, bytes]:
    """Return the metadata of a scored batch, given the schema of its input; they are those of a stream."""
    description = json.dumps(_provenance(job, (), "score"), ensure_ascii=False).encode()
    return kept_metadata(schema.metadata) | {b"batchmax": description}


def job_identity(
    source: ParquetSource | StreamSource, schema: pa.Schema, options: ScoreOptions
) -> dict[str, Any] | None:
    """Return what must be equal for a run to resume another, as JSON values; None if the job can't be resumed.

    ``output`` is also in the metadata of the finished output.
    """
    if not source.files:
        return None
    return {
        "output": json.loads(schema.metadata[b"batchmax"]),
        "inputs": [[composed(file.path), file.stat.size, file.stat.modified_ns] for file in source.files],
        "rejects": options.rejects is not None,
        "versions": {"numpy": np.__version__, "pyarrow": pa.__version__, "kernels": source_fingerprint()},
        "parquet": "pyarrow" if pyarrow_only() else "batchmax",
    }


def rejects_schema(schema: pa.Schema, output: pa.Schema | None = None, nesting: Nesting | None = None) -> pa.Schema:
    """Return the schema of rejected rows: all columns of the input, then file, row and status.

    ``output`` is the schema whose metadata describe the job. Rejected sequences don't have their logits, which may not
    fit into memory.
    """
    if nesting is not None:
        schema = pa.schema([field for field in schema if field.name != nesting.logits])
    added: list[pa.Field] = []
    for field in REJECT_FIELDS:
        name = field.name
        while name in schema.names:
            name = f"batchmax_{name}"
        added.append(field.with_name(name))
    kept = output.metadata if output is not None else {}
    return pa.schema([*schema, *added], metadata={key: value for key, value in kept.items() if key == b"batchmax"})


def input_fingerprints(files: Sequence[InputFile], *, samples: bool = True) -> list[dict[str, Any]]:
    """Return the size, footer digest and sample digest of each input, or one digest of very many inputs.

    Without ``samples``, the result is that of earlier versions.
    """
    each: list[dict[str, Any]] = [{"size": file.size, "footer_sha256": file.footer_digest()} for file in files]
    if samples:
        # In an object store, each sample takes a few requests.
        with ThreadPoolExecutor(SAMPLES_AT_ONCE if any(file.store for file in files) else 1, "samples") as pool:
            for entry, sample in zip(each, pool.map(lambda file: file.sample_digest, files), strict=True):
                entry["sample_sha256"] = sample
    if len(each) <= MAX_INPUTS:
        return each
    digest = hashlib.sha256(json.dumps(each).encode()).hexdigest()
    return [{"files": len(each), "size": sum(file.size for file in files), "footer_sha256": digest}]


def _provenance(job: Job, files: Sequence[InputFile], command: str) -> dict[str, Any]:
    """Return all that determines the bytes of an output, and nothing else: no time, host or number of threads."""
    options = {name: getattr(job.options, name) for name in OPTIONS_THAT_CHANGE_BYTES}
    if "sample" in job.outputs:
        options["seed"] = job.options.seed
    if not job.options.is_usual:
        options |= {"activation": job.options.activation_name, "loss": job.options.loss_name}
    if job.options.label_format is not None:
        options["label_format"] = job.options.label_format
    if job.rule is not None:
        options["rule"] = job.options.rule
    if job.pos_weights is not None:
        options["pos_weight"] = job.pos_weights[-job.n_logits :].tolist()
    if job.options.scale is not None:
        options |= {"scale": job.options.scale, "bias": job.options.bias}
    if job.nesting is not None:
        options |= {"shift": job.options.shift}
    names = job.logits.names
    weights = None if job.class_weights is None else job.class_weights.tolist()
    # Class names that are numbers could be the labels themselves, or names that labels index.
    label_kind = {"label_kind": "index"} if job.label is not None and job.label.ignores_names else {}
    n_logits = {"n_logits": 1} if job.logits.is_one_logit else {}
    return {
        **label_kind,
        **n_logits,
        "version": __version__,
        "command": command,
        "logits": list(names) if len(names) == 1 else job.options.logits or DEFAULT_PATTERN,
        "label": job.label.name if job.label else None,
        "n_classes": job.n_classes,
        "classes": job.classes,
        "temperature": 1.0 / job.options.beta,
        "outputs": list(job.outputs),
        "layout": job.layout,
        "dtype": str(job.dtype),
        "class_weights": weights,
        "options": options,
        "inputs": input_fingerprints(files),
    }
