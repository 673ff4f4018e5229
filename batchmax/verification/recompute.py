"""Compare an output with its inputs: the same files, as many rows, and a sample of rows recomputed exactly.

The status of a row is derived from its logits and label by definition, its numbers come from ``exact``: no kernels are
used. For sequences, some tokens of a row are recomputed, and the row's status follows from the statuses of all tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import plain_array
from batchmax.columns.labels import LabelColumn, Labels
from batchmax.errors import BatchmaxError, DataError
from batchmax.outputs import LAST_BAD, LAST_WITHOUT_LOSS, LAST_WITHOUT_PROBS, OUTPUTS, STATUS_NAMES
from batchmax.parquet.int96 import converted, raw_of
from batchmax.scoring.score_rows import carried_columns, read_rows
from batchmax.scoring.sequence_totals import SequenceTally
from batchmax.sinks.metadata import input_fingerprints
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.parts import plan_parts
from batchmax.sources.passthrough import ReadPlan
from batchmax.sources.row_lookup import FileRow, rows_by_number
from batchmax.sources.sequence_source import from_columns
from batchmax.sources.token_chunks import TokenChunk
from batchmax.verification.column_reader import RowReader, RowValues
from batchmax.verification.exact import MOST_ULPS
from batchmax.verification.expected_values import MEASURED, ExpectedRow, row_statuses
from batchmax.verification.output_metadata import SCORE_AGAIN
from batchmax.verification.scored_output import ScoredOutput
from batchmax.verification.token_view import TokenView

Array = NDArray[Any]

SAME_INPUTS = "name the files that were scored, in the same order"


@dataclass(frozen=True)
class LargestError:
    """The largest error of an output: in ULP, with its row, and for sequences its token."""

    ulp: float
    row: int
    token: int | None = None


class Recomputation:
    """Compares one output with its inputs, and recomputes rows.

    Parameters
    ----------
    output
        The output.
    inputs
        The inputs that were scored: files, folders, globs.
    logits
        The column or pattern of logits; None: as the metadata of the output record it.
    storage
        Storage options for URIs.
    tokens
        The output's tokens if its rows are sequences.
    of_each
        How many tokens of each sampled sequence to recompute.
    seed
        Random seed for sampling tokens.

    Attributes
    ----------
    sampled_tokens
        How many tokens were recomputed.
    errors
        The largest error so far of each output measured in ULP.

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
        inputs: Sequence[str | os.PathLike[str]],
        logits: str | None = None,
        storage: Sequence[str] = (),
        tokens: TokenView | None = None,
        *,
        of_each: int = 1,
        seed: int = 0,
    ) -> None:
        self.errors: dict[str, LargestError] = {}
        self.sampled_tokens = 0
        self._output = output
        self._tokens = tokens
        self._of_each = of_each
        self._random = np.random.default_rng(seed)
        logits = logits or output.metadata.logits
        options = replace(output.metadata.options, logits=logits, storage_options=tuple(storage))
        self._source = ParquetSource([os.fspath(path) for path in inputs], options, mirrors=output.is_folder)
        self._job = self._source.job
        self._reader = RowReader(output if tokens is None else tokens.output)
        self._reader.use_label(self._job.label)
        self._check_inputs()
        self._check_counts()

    @property
    def label(self) -> LabelColumn | None:
        """The label column of the inputs."""
        return self._job.label

    @property
    def files(self) -> int:
        """The number of input files."""
        return len(self._source.files)

    @property
    def n_rows(self) -> int:
        """The number of input rows that were scored."""
        limit = self._job.options.limit
        rows: int = self._source.n_rows
        return rows if limit is None else min(rows, limit)

    def check(self, numbers: Sequence[int]) -> None:
        """Recompute these rows of the output and compare.

        Raises
        ------
        DataError
            The first row that differs from what its input determines.
        """
        kept = self._input_rows(numbers)
        rows = zip(rows_by_number(self._output.files, numbers), rows_by_number(self._source.files, kept), strict=True)
        for output_row, input_row in rows:
            self._check_carried(output_row, input_row)
            if self._tokens is None:
                self._check_row(output_row, input_row)
            else:
                self._check_sequence(output_row, input_row, self._tokens)

    def _check_inputs(self) -> None:
        """Compare the inputs with their fingerprints in the output's metadata."""
        files, known = self._source.files, self._output.metadata.inputs
        if not known:
            return
        where = self._output.path
        count = sum(one.files for one in known)
        if len(files) != count:
            what = f"the output was made from {count:,} files, not from {len(files):,}"
            raise DataError(what, where=where, remedy=SAME_INPUTS)
        if count != len(known):
            stored = [{"files": count, "size": known[0].size, "footer_sha256": known[0].digest}]
            if stored not in (input_fingerprints(files), input_fingerprints(files, samples=False)):
                raise DataError("the output was made from other files", where=where, remedy=SAME_INPUTS)
            return
        for file, (size, digest, sample, _) in zip(files, known, strict=True):
            what = ""
            if file.size != size:
                what = f"the file has {file.size:,} bytes, but had {size:,}"
            elif file.footer_digest() != digest:
                what = "the footer is not the same as"
            elif sample is not None and file.sample_digest != sample:
                what = "the data are not the same as"
            if what:
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
            what = f"the output has {output.n_rows:,} rows, but the inputs have {self.n_rows:,}"
            raise DataError(what, where=output.path, remedy=SCORE_AGAIN)
        if not output.is_folder or job.options.limit is not None:
            return
        parts = plan_parts(self._source.group_rows(), self._source.row_bytes)
        if len(parts) != len(output.files):
            what = f"the output has {len(output.files):,} parts, but score makes {len(parts):,} from these inputs"
            raise DataError(what, where=output.path, remedy=SCORE_AGAIN)

    def _input_rows(self, numbers: Sequence[int]) -> list[int]:
        """Return the input row of each output row; bad rows that were dropped have no output row."""
        if self._output.n_rows == self.n_rows:
            return list(numbers)
        found: list[int] = []
        remaining = sorted(numbers)
        first = kept = 0
        for status in self._statuses():
            rows = np.flatnonzero(status > LAST_BAD)
            while len(found) < len(remaining) and remaining[len(found)] < kept + len(rows):
                found.append(first + int(rows[remaining[len(found)] - kept]))
            first += len(status)
            kept += len(rows)
        if kept != self._output.n_rows:
            what = f"the output has {self._output.n_rows:,} rows, but {kept:,} rows of the inputs are not bad"
            raise DataError(what, where=self._output.path, remedy=SCORE_AGAIN)
        return found

    def _statuses(self) -> Iterator[Array]:
        """Yield the statuses of all input rows that were scored."""
        parts = plan_parts(self._source.group_rows(), self._source.row_bytes)
        label = () if self._job.label is None else (self._job.label.name,)
        left, tally = self.n_rows, SequenceTally(shift=self._job.options.shift)
        for chunk in self._source.chunks(parts, ReadPlan((*self._job.logits.names, *label))):
            matrix, labels, known = read_rows(chunk.batch, self._job, logits=chunk.logits, known=chunk.known)
            status = row_statuses(matrix, labels, known, self._job.options)
            if isinstance(chunk, TokenChunk):
                status = tally.add(chunk.tokens, status).first(chunk.rows_done).status
            status = status[:left]
            left -= len(status)
            yield status
            if not left:
                return

    def _check_carried(self, output_row: FileRow, input_row: FileRow) -> None:
        """Compare the carried columns with the input's."""
        for field, array in carried_columns(input_row.batch, self._job):
            if not _same(array, output_row.batch.column(field.name)):
                where = _places(output_row, input_row)
                raise DataError(f"{field.name} differs from the input", where=where, remedy=SCORE_AGAIN)

    def _check_row(self, output_row: FileRow, input_row: FileRow) -> None:
        """Compare one output row with its input row."""
        where = _places(output_row, input_row)
        try:
            numbers = read_rows(input_row.batch, self._job)
            given = self._reader.read(output_row.batch)
        except BatchmaxError as error:
            raise DataError(error.what, where=where, remedy=SCORE_AGAIN) from error
        self._check_values(numbers, given, where, (output_row.number, None))

    def _check_sequence(self, output_row: FileRow, input_row: FileRow, tokens: TokenView) -> None:
        """Compare one sequence of the output with its input row: the status, and some tokens."""
        job, where = self._job, _places(output_row, input_row)
        tally = SequenceTally(shift=job.options.shift)
        inputs: list[tuple[Array, Labels, Array | None]] = []
        try:
            chunks = list(from_columns(iter([input_row.batch]), job))
            output_tokens = tokens.flatten(output_row.batch)
            count = sum(chunk.batch.num_rows for chunk in chunks)
            if output_tokens.num_rows != count:
                raise DataError(f"the row has {output_tokens.num_rows:,} tokens, but {count:,} in the input", where="")
            chosen = sorted(self._random.choice(count, min(self._of_each, count), replace=False).tolist())
            totals, first = None, 0
            for chunk in chunks:
                matrix, labels, known = read_rows(chunk.batch, job, known=chunk.known)
                totals = tally.add(chunk.tokens, row_statuses(matrix, labels, known, job.options))
                for token in chosen:
                    if first <= token < first + len(matrix):
                        at = token - first
                        one = None if chunk.known is None else chunk.known[at : at + 1]
                        inputs.append(read_rows(chunk.unit(at, job), job, known=one))
                first += len(matrix)
            given = [self._reader.read(output_tokens.slice(token, 1)) for token in chosen]
            if totals is not None:
                is_null = bool(chunks[0].tokens.missing[0])
                tokens.check_row(output_row.batch, int(totals.status[0]), int(totals.counts[0]), is_null=is_null)
        except BatchmaxError as error:
            raise DataError(error.what, where=where, remedy=SCORE_AGAIN) from error
        for token, numbers, values in zip(chosen, inputs, given, strict=True):
            self._check_values(numbers, values, f"{where}, token {token:,}", (output_row.number, token))
        self.sampled_tokens += len(chosen)

    def _check_values(
        self, numbers: tuple[Array, Labels, Array | None], given: RowValues, where: str, place: tuple[int, int | None]
    ) -> None:
        """Compare the outputs of a row or token with the exact values; ``numbers`` are its logits, label and status."""
        matrix, labels, known = numbers
        status = int(row_statuses(matrix, labels, known, self._job.options)[0])
        self._check_presence(given, status, where)
        if status <= LAST_WITHOUT_PROBS:
            return
        row = ExpectedRow(matrix[0], labels if status > LAST_WITHOUT_LOSS else None, self._job)
        for name, values in given.values.items():
            if name in OUTPUTS and OUTPUTS[name].needs_label and status <= LAST_WITHOUT_LOSS:
                continue
            error, text = row.compare(name, values[0])
            if not error <= MOST_ULPS:
                raise DataError(f"{name} {text}", where=where, remedy=SCORE_AGAIN)
            if name not in MEASURED:
                continue
            if name not in self.errors or error > self.errors[name].ulp:
                self.errors[name] = LargestError(error, *place)

    def _check_presence(self, given: RowValues, status: int, where: str) -> None:
        """Compare the status and the nulls with the expected status."""
        name = STATUS_NAMES[status]
        if given.status is not None and given.status[0] != status:
            raise DataError(
                f"status is {STATUS_NAMES[given.status[0]]}, expected {name}", where=where, remedy=SCORE_AGAIN
            )
        for output in given.values:
            with_label = output in OUTPUTS and OUTPUTS[output].needs_label
            present = bool((given.has_loss if with_label else given.has_probs)[0])
            if present != (status > (LAST_WITHOUT_LOSS if with_label else LAST_WITHOUT_PROBS)):
                what = f"{output} is {'not ' * present}null, but the status of the row is {name}"
                raise DataError(what, where=where, remedy=SCORE_AGAIN)


def _places(output_row: FileRow, input_row: FileRow) -> str:
    return f"{output_row.place}, from {input_row.place}"


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
