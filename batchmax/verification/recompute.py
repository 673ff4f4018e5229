"""Compare an output with its inputs: the same files, as many rows, and a sample of rows recomputed exactly.

The status of a row is derived from its logits and label by definition, its numbers come from ``exact``: no kernels are
used. For sequences, some tokens of a row are recomputed, and the row's status follows from the statuses of all tokens.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import plain_array
from batchmax.errors import BatchmaxError, DataError
from batchmax.outputs import MOST_ULPS, OUTPUTS
from batchmax.parquet.int96 import converted, raw_of
from batchmax.runtime.text import quantity
from batchmax.scoring.score_rows import carried_columns, read_rows
from batchmax.scoring.sequence_totals import SequenceTally
from batchmax.sinks.metadata import input_fingerprints
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.parts import plan_parts
from batchmax.sources.passthrough import ReadPlan
from batchmax.sources.row_lookup import rows_by_number
from batchmax.sources.sequence_source import from_columns
from batchmax.sources.token_chunks import TokenChunk
from batchmax.statuses import LAST_BAD, STATUS_NAMES, Status
from batchmax.verification.column_reader import RowValues, last_without
from batchmax.verification.expected_values import MEASURED, ExpectedRow, row_statuses
from batchmax.verification.invariants import RowChecks
from batchmax.verification.output_metadata import SCORE_AGAIN, output_error
from batchmax.verification.scored_output import ScoredOutput

Array = NDArray[Any]

Pair = tuple[RowValues, ExpectedRow, int | None]
"""The values of a row of the output, what they must be, and for sequences the number of the token."""

SAME_INPUTS = "name the files that were scored, in the same order"


class Recomputation:
    """Compares one output with its inputs, and recomputes rows.

    Parameters
    ----------
    output
        The output.
    checks
        The checks of its rows; they use the label column of the inputs from then on.
    inputs
        The inputs that were scored: files, folders, globs.
    logits
        The column or pattern of logits; None: as the metadata of the output record it.
    storage
        Storage options for URIs.
    sample
        How many rows are recomputed, and of sequences about how many tokens.
    seed
        Random seed for sampling tokens.

    Attributes
    ----------
    n_files, n_rows
        The numbers of input files, and of input rows that were scored.
    sampled_tokens
        How many tokens were recomputed.
    errors
        The largest error so far of each output measured in ULP: ``ulp``, its ``row``, and for sequences its ``token``.

    Raises
    ------
    UsageError
        A column doesn't exist.
    DataError
        The inputs aren't those that were scored.
    """

    def __init__(
        self,
        output: ScoredOutput,
        checks: RowChecks,
        inputs: Sequence[str | os.PathLike[str]],
        logits: str | None,
        storage: Sequence[str],
        *,
        sample: int,
        seed: int,
    ) -> None:
        self.errors: dict[str, dict[str, Any]] = {}
        self.sampled_tokens = 0
        self._output = output
        self._checks = checks
        self._tokens_of_row = max(1, math.ceil(sample / max(output.n_rows, 1)))
        self._random = np.random.default_rng(seed)
        stored = output.metadata.options
        options = replace(stored, logits=logits or stored.logits, storage_options=tuple(storage))
        self._source = ParquetSource([os.fspath(path) for path in inputs], options, mirrors=output.is_folder)
        self._job = self._source.job
        self._parts = plan_parts(self._source.group_rows(), self._source.row_bytes)
        self.n_files = len(self._source.files)
        self.n_rows = min(self._source.n_rows, sys.maxsize if options.limit is None else options.limit)
        checks.reader.use_label(self._job.label)
        self._check_inputs()
        self._check_counts()

    def check(self, numbers: Sequence[int]) -> None:
        """Recompute these rows of the output and compare; their numbers are in ascending order.

        Raises
        ------
        DataError
            The first row that differs from what its input determines.
        """
        kept = self._input_rows(numbers)
        rows = zip(rows_by_number(self._output.files, numbers), rows_by_number(self._source.files, kept), strict=True)
        for output_row, input_row in rows:
            where = f"{output_row.place}, from {input_row.place}"
            for field, array in carried_columns(input_row.batch, self._job):
                if not _same(array, output_row.batch.column(field.name)):
                    raise output_error(f"{field.name} differs from the input", where)
            compare = self._compare_row if self._checks.tokens is None else self._compare_sequence
            try:
                pairs = compare(output_row.batch, input_row.batch)
            except BatchmaxError as error:
                raise output_error(error.what, where) from error
            for given, expected, token in pairs:
                self._check_values(given, expected, where, output_row.number, token)

    def _check_inputs(self) -> None:
        """Compare the inputs with their fingerprints in the output's metadata."""
        files, known = self._source.files, self._output.metadata.inputs
        if not known:
            return
        where = self._output.path
        count = sum(one.get("files", 1) for one in known)
        if len(files) != count:
            what = f"the output was made from {quantity(count, 'file')}, not from {len(files):,}"
            raise DataError(what, where=where, remedy=SAME_INPUTS)
        if count != len(known):
            if known not in (input_fingerprints(files), input_fingerprints(files, samples=False)):
                raise DataError("the output was made from other files", where=where, remedy=SAME_INPUTS)
            return
        for file, stored in zip(files, known, strict=True):
            sample = stored.get("sample_sha256")
            if file.size != stored["size"]:
                what = f"the file has {quantity(file.size, 'byte')}, but had {stored['size']:,}"
            elif file.footer_digest() != stored["footer_sha256"]:
                what = "the footer is not the same as"
            elif sample is not None and file.sample_digest != sample:
                what = "the data are not the same as"
            else:
                continue
            remedy = f"{SAME_INPUTS}, or {SCORE_AGAIN}"
            raise DataError(f"{what} when {where} was made", where=file.path, remedy=remedy)

    def _check_counts(self) -> None:
        """Compare the columns, the number of rows and the number of parts."""
        output, job = self._output, self._job
        if job.schema.names != output.schema.names:
            raise DataError(
                "the columns are not those that score makes from these inputs",
                where=output.path,
                remedy=f"{SAME_INPUTS}; or name the logits with --logits",
            )
        dropped = self.n_rows - output.n_rows
        if dropped and (dropped < 0 or job.options.on_bad_row != "drop"):
            what = f"the output has {quantity(output.n_rows, 'row')}, but the inputs have {self.n_rows:,}"
            raise output_error(what, output.path)
        if not output.is_folder or job.options.limit is not None:
            return
        if len(self._parts) != len(output.files):
            made = quantity(len(output.files), "part")
            what = f"the output has {made}, but score makes {len(self._parts):,} from these inputs"
            raise output_error(what, output.path)

    def _input_rows(self, numbers: Sequence[int]) -> list[int]:
        """Return the input row of each output row; bad rows that were dropped have no output row."""
        if self._output.n_rows == self.n_rows:
            return list(numbers)
        input_rows: list[int] = []
        wanted = np.array(numbers, np.int64)
        tally = SequenceTally(shift=self._job.options.shift)
        first = kept = 0
        for chunk in self._source.chunks(self._parts, ReadPlan((*self._job.logits.names, *self._job.label_columns))):
            status, _ = self._expected_rows(chunk.batch, chunk.known, [], chunk.logits)
            if isinstance(chunk, TokenChunk):
                status = tally.add(chunk.tokens, status).first(chunk.rows_done).status
            rows = np.flatnonzero(status[: self.n_rows - first] > LAST_BAD)
            here = wanted[(wanted >= kept) & (wanted < kept + len(rows))]
            input_rows += (first + rows[here - kept]).tolist()
            first += len(status)
            kept += len(rows)
            if first >= self.n_rows:
                break
        if kept != self._output.n_rows:
            what = f"the output has {quantity(self._output.n_rows, 'row')}, but "
            what += f"{quantity(kept, 'row of the inputs is', 'rows of the inputs are')} not bad"
            raise output_error(what, self._output.path)
        return input_rows

    def _compare_row(self, output_row: pa.RecordBatch, input_row: pa.RecordBatch) -> list[Pair]:
        """Return the values of a row, and those it must have."""
        _, (expected,) = self._expected_rows(input_row, None, [0])
        return [(self._checks.reader.read(output_row), expected, None)]

    def _compare_sequence(self, output_row: pa.RecordBatch, input_row: pa.RecordBatch) -> list[Pair]:
        """Check the columns for a whole row; return the values of some of its tokens, and those they must have."""
        view, tally = self._checks.tokens, SequenceTally(shift=self._job.options.shift)
        assert view is not None  # noqa: S101 - only called for sequences
        chunks = list(from_columns(iter([input_row]), self._job))
        given = view.flatten(output_row)
        count = sum(chunk.batch.num_rows for chunk in chunks)
        if given.num_rows != count:
            raise DataError(f"the row has {quantity(given.num_rows, 'token')}, but {count:,} in the input")
        chosen = sorted(self._random.choice(count, min(self._tokens_of_row, count), replace=False).tolist())
        pairs: list[Pair] = []
        first = 0
        for chunk in chunks:
            here = [token for token in chosen if first <= token < first + chunk.batch.num_rows]
            statuses, rows = self._expected_rows(chunk.batch, chunk.known, [token - first for token in here])
            totals = tally.add(chunk.tokens, statuses)
            read = self._checks.reader.read
            pairs += [(read(given.slice(token, 1)), row, token) for token, row in zip(here, rows, strict=True)]
            first += chunk.batch.num_rows
        is_null = bool(chunks[0].tokens.missing[0])
        view.check_row(output_row, int(totals.status[0]), int(totals.counts[0]), is_null=is_null)
        self.sampled_tokens += len(chosen)
        return pairs

    def _expected_rows(
        self, batch: pa.RecordBatch, known: Array | None, rows: Sequence[int], logits: Array | None = None
    ) -> tuple[Array, list[ExpectedRow]]:
        """Return the statuses of all rows of a batch of inputs, and what some of them must have in the output."""
        matrix, labels, known = read_rows(batch, self._job, logits=logits, known=known)
        statuses = row_statuses(matrix, labels, known, self._job.options)
        return statuses, [ExpectedRow(matrix, labels, row, Status(statuses[row]), self._job) for row in rows]

    def _check_values(self, given: RowValues, expected: ExpectedRow, where: str, row: int, token: int | None) -> None:
        """Compare the outputs of a row or token with the exact values."""
        place = {"row": row}
        if token is not None:
            where, place = f"{where}, token {token:,}", {"row": row, "token": token}
        status, name = expected.status, STATUS_NAMES[expected.status]
        if given.status is not None and given.status[0] != status:
            raise output_error(f"status is {STATUS_NAMES[given.status[0]]}, expected {name}", where)
        for output, values in given.values.items():
            present = bool(given.present(output)[0])
            if present != (status > last_without(output)):
                what = f"{output} is {'not ' * present}null, but the status of the row is {name}"
                raise output_error(what, where)
            if not present:
                continue
            error, text = expected.compare(output, values[0])
            if not error <= (OUTPUTS[output].ulps if output in OUTPUTS else MOST_ULPS):
                raise output_error(f"{output} {text}", where)
            if output in MEASURED and (output not in self.errors or error > self.errors[output]["ulp"]):
                self.errors[output] = {"ulp": error, **place}


def _same(first: pa.Array, second: pa.Array) -> bool:
    """Return whether two arrays of one value are equal; NaN equals NaN."""
    # Either may hold INT96 timestamps as bytes, which can represent every INT96 value.
    kinds = raw_of(first.type, second.type), raw_of(second.type, first.type)
    first, second = plain_array(converted(first, kinds[0])), plain_array(converted(second, kinds[1]))
    if first.equals(second):
        return True
    try:
        return repr(first[0].as_py()) == repr(second[0].as_py())
    except (ValueError, ImportError, pa.ArrowException):
        return False
