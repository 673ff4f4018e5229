"""How bad rows are handled: ``--on-bad-row`` and ``--rejects``."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.job import Job
from batchmax.jobs.stage import Result
from batchmax.options.parsing import option_words
from batchmax.options.score_options import ScoreOptions
from batchmax.scoring.bad_rows import bad_row, describe_bad_row
from batchmax.scoring.score_rows import narrowed
from batchmax.sinks.metadata import REJECT_FIELDS, rejects_schema
from batchmax.sources.chunks import Chunk
from batchmax.sources.token_chunks import TokenChunk
from batchmax.statuses import LAST_BAD, STATUS_NAMES

Array = NDArray[Any]

MOST_CLASSES_SHOWN = 80
"""Maximum length of the class names that a suggested command repeats, in characters."""


class BadRowHandler:
    """Applies ``--on-bad-row`` and ``--rejects`` to the results of a chunk.

    Parameters
    ----------
    job
        The job that computes the results.
    schema
        Schema of the input, for rejected rows.
    remedy
        How to find a bad row that isn't in a file.
    """

    def __init__(self, job: Job, schema: pa.Schema | None = None, remedy: str = "") -> None:
        self._job = job
        self._fields = rejects_schema(schema or pa.schema([]), nesting=job.nesting)
        self._remedy = remedy

    def refuse(self, chunk: Chunk, status: Array) -> None:
        """Raise for the first bad row under the policy ``error``.

        Raises
        ------
        BadRowError
            It names the file and the row, says what is wrong, and suggests a command that shows a row of a file.
        """
        bad = status <= LAST_BAD
        if self._job.options.on_bad_row != "error":
            return
        if isinstance(chunk, TokenChunk) and (row := chunk.null_row(status)) is not None:
            raise bad_row(chunk.origin.place(row), "the logits are null", "", self._remedy)
        if not bad.any():
            return
        unit = int(np.argmax(bad))
        what, hint = describe_bad_row(chunk.unit(unit, self._job), 0, int(status[unit]), self._job)
        remedy = self._remedy
        if chunk.origin.row_group is not None:
            words = ["batchmax", "show", chunk.origin.file, "--row", str(chunk.rows_of(np.array([unit]))[0])]
            remedy = "to see the row: " + shlex.join([*words, *_read_options(self._job.options)])
        raise bad_row(chunk.place(unit), what, hint, remedy)

    def apply(self, chunk: Chunk, result: Result, status: Array) -> Result:
        """Return the result of a chunk without bad rows under the policy ``drop``, and with the rejected rows.

        ``status`` has the status of each row; of sequences, of those that end with the chunk. Rejected sequences don't
        have their logits, which may no longer be in memory.
        """
        bad = status <= LAST_BAD
        options = self._job.options
        if options.on_bad_row != "drop" or not bad.any():
            return result
        rejects = None if options.rejects is None else self._rejected(chunk, np.flatnonzero(bad), status)
        return replace(result, batch=result.batch.filter(pa.array(~bad)), rejects=rejects)

    def _rejected(self, chunk: Chunk, rows: Array, status: Array) -> pa.RecordBatch:
        """Return some rows of a chunk with their file, their row numbers in the file, and their statuses."""
        batch = chunk.tokens.rows if isinstance(chunk, TokenChunk) else chunk.batch
        names = self._fields.names[: -len(REJECT_FIELDS)]
        whole = batch.select(names).take(pa.array(rows))
        columns = [narrowed(whole.column(name), self._fields.field(name).type) for name in names]
        columns.append(pa.array([chunk.origin.file] * len(rows), pa.string()))
        columns.append(pa.array(chunk.origin.first_row + rows, pa.int64()))
        columns.append(pa.array([STATUS_NAMES[status[row]] for row in rows], pa.string()))
        fields = [field.with_type(column.type) for field, column in zip(self._fields, columns, strict=True)]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _read_options(options: ScoreOptions) -> list[str]:
    """Return the options that make a command read rows as a job does, without class names if they are long."""
    defaults = ScoreOptions(input="logits")
    names = ("logits", "label", "n_classes", "ignore_index", "logits_dtype", "input")
    given = {name: getattr(options, name) for name in names if getattr(options, name) != getattr(defaults, name)}
    classes = ",".join(options.classes or ())
    if classes and len(classes) <= MOST_CLASSES_SHOWN:
        given["classes"] = classes
    return option_words(given)
