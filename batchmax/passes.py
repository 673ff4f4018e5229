"""One look at every row, for commands that count and compare: inputs read ahead, rows computed, nothing written.

Inputs are logits, or files that ``score`` wrote: of these the probabilities are read, and what their metadata say of
labels and classes holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from batchmax.chunks import Chunk, limited
from batchmax.copying import Reading
from batchmax.errors import DataError, UsageError
from batchmax.json_fields import JsonError, json_list, json_object, parse_json
from batchmax.labels import Labels
from batchmax.loop import READ_AHEAD, BadRows, Progress, check_memory
from batchmax.matrices import SparseVectorError
from batchmax.memory import Buffers, usable_cores
from batchmax.options import ScoreOptions
from batchmax.outputs import OUTPUTS, TOP_K_OUTPUTS
from batchmax.parquet_files import InputFile, arrow_schema, open_file
from batchmax.plan import plan_parts
from batchmax.scoring import Scores, read_rows, score_rows
from batchmax.sequence_source import flattened
from batchmax.source import ParquetSource, open_source
from batchmax.storage import find_files
from batchmax.stream_source import StreamSource
from batchmax.threads import use_threads

Array = NDArray[Any]

METADATA = {
    "command": str,
    "label": str | None,
    "classes": list | None,
    "outputs": list,
    "layout": str,
    "class_weights": list | None,
    "options": dict,
}
OPTIONS = {"prefix": str, "label_smoothing": float | int, "top_k": int | None}
"""The members of an output's metadata that are read, and of the options in it, with their types."""

OWN_PREFIX = "\0"
"""Before the names of what is computed, where it is not written: no column of a file is in its way."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Some rows going by. The arrays are overwritten when the rows after the next come; copy what is to be kept.

    Attributes
    ----------
    chunk
        Where the rows are from, and the columns that were asked for.
    matrix
        The logits, (n_rows, n_classes), read-only.
    labels, scores
        Of the same rows; bad rows are among them, as their status says.
    """

    chunk: Chunk
    matrix: Array
    labels: Labels
    scores: Scores


def open_rows(src: Any, options: ScoreOptions) -> ParquetSource | StreamSource:
    """Open logits, or what ``score`` wrote: one or several paths, or an object with ``__arrow_c_stream__``.

    ``options.outputs`` are what :func:`rows_of` computes, and ``options.columns`` what it reads besides.

    Raises
    ------
    DataError
        Nothing is there, or it is no Parquet file, or files do not agree.
    UsageError
        Columns that cannot be what they are asked to be, or a job that does not fit into the memory it may use.
    """
    if not options.is_usual:
        raise UsageError(
            "this is computed with softmax and cross-entropy alone",
            where="--activation" if options.activation != "softmax" else "--loss",
            remedy="leave it out, or give what score --activation wrote",
        )
    if options.logits is None and not hasattr(src, "__arrow_c_stream__"):
        options = _as_written(open_file(find_files(_paths(src))[0]), options)
    source = open_source(src, options)
    check_memory(source)
    return source


def rows_of(source: ParquetSource | StreamSource, progress: Progress | None = None) -> Iterator[Seen]:
    """Compute every row, in order, with two chunks read ahead.

    Raises
    ------
    DataError
        An input that cannot be read.
    BadRowError
        A bad row under the policy ``error``. Under the others bad rows are handed on with their status.
    """
    job, options = source.job, source.job.options
    progress = progress or Progress()
    bad_rows = BadRows(source, job)
    total = source.n_rows
    if total is not None and options.limit is not None:
        total = min(total, options.limit)
    progress.start(total, None if total is None else total * source.row_bytes)
    parts = plan_parts(source.group_rows(), source.row_bytes)
    both = deque([Buffers(), Buffers()])
    with (
        use_threads(options),
        ThreadPoolExecutor(options.threads or usable_cores(), "pages") as workers,
        ThreadPoolExecutor(1, "read") as reader,
    ):
        chunks = limited(source.chunks(parts, Reading(job.columns_read, workers)), options.limit)
        if job.nesting is not None:
            chunks = flattened(chunks, tuple(job.carried.names))
        ahead = deque(reader.submit(next, chunks, None) for _ in range(READ_AHEAD))
        while (chunk := ahead.popleft().result()) is not None:
            ahead.append(reader.submit(next, chunks, None))
            buffers = both[0]
            both.rotate()
            buffers.reset()
            try:
                matrix, labels, known = read_rows(chunk.batch, job, buffers.take, chunk.logits, chunk.known)
            except SparseVectorError as error:
                raise DataError(error.what, where=chunk.place(error.row), remedy=error.remedy) from error
            scores = score_rows(matrix, labels, known, job, buffers.take)
            bad_rows.refuse(chunk, scores.status)
            yield Seen(chunk, matrix, labels, scores)
            progress.advance(chunk.rows_done, chunk.batch.num_rows * job.row_bytes)


def loss_of_score(file: InputFile, options: ScoreOptions) -> str | None:
    """Return the column of a file in which ``score`` wrote the plain loss of the labels that these options name.

    It has digits that the probabilities beside it have lost. None if there is no such column, or the losses are those
    of other labels or classes, or not plain, or the file has its logits too.
    """
    said = _said(file)
    if said is None:
        return None
    is_plain = said["class_weights"] is None and not said["options"]["label_smoothing"]
    is_plain = is_plain and "loss" not in said["options"]
    is_theirs = options.label in {None, said["label"]} and options.classes in {None, tuple(said["classes"] or ())}
    column, names = said["options"]["prefix"] + "loss", arrow_schema(file).names
    is_there = "loss" in said["outputs"] and column in names and options.logits is None and "logits" not in names
    return column if is_plain and is_theirs and is_there else None


def columns_of_score(src: Any) -> list[str]:
    """Return the columns that ``score`` computed in the first file of an input; none if it did not write it."""
    file = first_file(src)
    if file is None:
        return []
    said = _said(file)
    if said is None:
        return []
    prefix, outputs = said["options"]["prefix"], [*said["outputs"]]
    outputs += TOP_K_OUTPUTS if said["options"]["top_k"] else ()
    is_wide = said["layout"] == "wide"
    matrices = [f"{prefix}{name.removesuffix('s')}_" for name in outputs if is_wide and OUTPUTS[name].kind == "matrix"]
    names = {prefix + name for name in outputs}
    return [name for name in arrow_schema(file).names if name in names or name.startswith(tuple(matrices))]


def first_file(src: Any) -> InputFile | None:
    """Open the first file of an input; None for what is no file."""
    return None if hasattr(src, "__arrow_c_stream__") else open_file(find_files(_paths(src))[0])


def _said(file: InputFile) -> dict[str, Any] | None:
    """Return the metadata of a file that ``score`` wrote; None for any other file, or metadata of another version."""
    raw = (file.metadata.metadata or {}).get(b"batchmax")
    if raw is None:
        return None
    try:
        said = json_object(parse_json(raw), METADATA)
        json_object(said["options"], OPTIONS)
        is_known = set(json_list(said["outputs"], str)) <= OUTPUTS.keys()
        json_list(said["classes"] or [], str)
    except JsonError:
        return None
    return said if said["command"] == "score" and is_known else None


def _paths(src: Any) -> list[str]:
    return [str(path) for path in ([src] if not isinstance(src, Sequence) or isinstance(src, str) else src)]


def _as_written(file: InputFile, options: ScoreOptions) -> ScoreOptions:
    """Return the options with which to read a file that ``score`` wrote; the same for any other file."""
    said = _said(file)
    if said is None:
        return options
    prefix, outputs, layout = said["options"]["prefix"], said["outputs"], said["layout"]
    label, classes = said["label"], said["classes"]
    shift = options.shift or said["options"].get("shift", False)
    column = next((name for name in ("log_probs", "probs") if name in outputs), None)
    names = set(arrow_schema(file).names)
    if "logits" in names:
        return options
    if column is None:
        raise UsageError(
            "score wrote neither probs nor log_probs into this file",
            where=file.path,
            remedy="give the logits themselves, or score with --outputs probs,loss",
        )
    if options.beta != 1.0 or options.calibration is not None:
        raise UsageError(
            "these are probabilities, whose temperature was chosen when they were scored",
            where="--temperature" if options.calibration is None else "--calibration",
            remedy="leave it out, or give the logits",
        )
    pattern = f"{prefix}{column.removesuffix('s')}_*" if layout == "wide" else prefix + column
    return replace(
        options,
        logits=pattern,
        input="log_probs" if column == "log_probs" else "probs",
        label=options.label or label,
        shift=shift,
        classes=options.classes or (tuple(classes) if classes else None),
    )
