"""Compare an output with its inputs: the same files, as many rows, and a sample of rows recomputed exactly.

The status of a row is derived from its logits and label by definition, its numbers come from ``exact``: no kernels are
used. For sequences, some tokens of a row are recomputed, and the row's status follows from the statuses of all tokens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import plain_array
from batchmax.columns.labels import LabelColumn, Labels
from batchmax.errors import BatchmaxError, DataError, UsageError
from batchmax.outputs import LAST_BAD, LAST_WITHOUT_LOSS, LAST_WITHOUT_PROBS, OUTPUTS, STATUS_NAMES
from batchmax.parquet.int96 import converted, raw_of
from batchmax.scoring.score_rows import carried_columns, read_rows
from batchmax.scoring.sequence_totals import SequenceTally
from batchmax.sinks.metadata import input_identities
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.parts import plan_parts
from batchmax.sources.passthrough import ReadPlan
from batchmax.sources.row_lookup import FileRow, rows_by_number
from batchmax.sources.sequence_source import TokenSizes, from_columns
from batchmax.sources.token_chunks import TokenChunk
from batchmax.verification.column_reader import RowReader, RowValues
from batchmax.verification.exact import MOST_ULPS
from batchmax.verification.expected_values import MEASURED, exact_answer, row_statuses
from batchmax.verification.scored_output import AGAIN, Scored
from batchmax.verification.token_view import ScoredTokens

Array = NDArray[Any]

SAME_INPUTS = "name the files that were scored, in their order"


@dataclass(frozen=True)
class Worst:
    """The largest error of an output: in ULP, with its row, and for sequences its token."""

    ulp: float
    row: int
    token: int | None = None


class Recomputation:
    """Compares one output with its inputs and recomputes rows.

    Parameters
    ----------
    scored
        The output.
    inputs
        The inputs that were scored: files, folders, globs.
    logits
        The column or pattern of logits, needed if the output doesn't record it: with one column per class.
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
        scored: Scored,
        inputs: Sequence[str | os.PathLike[str]],
        logits: str | None = None,
        storage: Sequence[str] = (),
        tokens: ScoredTokens | None = None,
        *,
        of_each: int = 1,
        seed: int = 0,
    ) -> None:
        self.errors: dict[str, Worst] = {}
        self.sampled_tokens = 0
        self._scored = scored
        self._tokens = tokens
        self._of_each = of_each
        self._random = np.random.default_rng(seed)
        self._source = _open(scored, [os.fspath(path) for path in inputs], logits, storage)
        self._job = self._source.job
        self._reader = RowReader(scored if tokens is None else tokens.scored)
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
        theirs = rows_by_number(self._source.files, kept)
        for ours, its_input in zip(rows_by_number(self._scored.files, numbers), theirs, strict=True):
            self._check_carried(ours, its_input)
            if self._tokens is None:
                self._check_row(ours, its_input)
            else:
                self._check_sequence(ours, its_input, self._tokens)

    def _check_inputs(self) -> None:
        """Compare the inputs with the sizes and digests in the output's metadata."""
        files, known = self._source.files, self._scored.claims.inputs
        where = self._scored.path
        if not known:
            return
        count = sum(told.files for told in known)
        if len(files) != count:
            raise DataError(f"was made of {count:,} files, not {len(files):,}", where=where, remedy=SAME_INPUTS)
        if count != len(known):
            told = [{"files": count, "size": known[0].size, "footer_sha256": known[0].digest}]
            if told not in (input_identities(files), input_identities(files, samples=False)):
                raise DataError("was made of other files", where=where, remedy=SAME_INPUTS)
            return
        for file, (size, digest, sample, _) in zip(files, known, strict=True):
            if file.size != size:
                what = f"has {file.size:,} bytes, but had {size:,} when {where} was made of it"
                raise DataError(what, where=file.path, remedy=f"{SAME_INPUTS}, or {AGAIN}")
            if file.footer_digest() != digest:
                what = f"has another footer than when {where} was made of it"
                raise DataError(what, where=file.path, remedy=f"{SAME_INPUTS}, or {AGAIN}")
            if sample is not None and file.sample_digest != sample:
                what = f"has other data than when {where} was made of it"
                raise DataError(what, where=file.path, remedy=f"{SAME_INPUTS}, or {AGAIN}")

    def _check_counts(self) -> None:
        """Compare the columns, the number of rows and the number of parts."""
        scored, job = self._scored, self._job
        if job.schema.names != scored.schema.names:
            raise DataError("has other columns than these inputs make", where=scored.path, remedy=SAME_INPUTS)
        dropped = self.n_rows - scored.n_rows
        if dropped and (dropped < 0 or job.options.on_bad_row != "drop"):
            what = f"has {scored.n_rows:,} rows, and its inputs {self.n_rows:,}"
            raise DataError(what, where=scored.path, remedy=AGAIN)
        if not scored.is_folder or job.options.limit is not None:
            return
        parts = plan_parts(self._source.group_rows(), self._source.row_bytes)
        if len(parts) != len(scored.files):
            what = f"has {len(scored.files):,} parts, and its inputs make {len(parts):,}"
            raise DataError(what, where=scored.path, remedy=AGAIN)

    def _input_rows(self, numbers: Sequence[int]) -> list[int]:
        """Return the input row of each output row; bad rows that were dropped have no output row."""
        if self._scored.n_rows == self.n_rows:
            return list(numbers)
        found: list[int] = []
        wanted = sorted(numbers)
        first = kept = 0
        for status in self._statuses():
            rows = np.flatnonzero(status > LAST_BAD)
            while len(found) < len(wanted) and wanted[len(found)] < kept + len(rows):
                found.append(first + int(rows[wanted[len(found)] - kept]))
            first += len(status)
            kept += len(rows)
        if kept != self._scored.n_rows:
            what = f"has {self._scored.n_rows:,} rows, and {kept:,} rows of its inputs are not bad"
            raise DataError(what, where=self._scored.path, remedy=AGAIN)
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

    def _check_carried(self, ours: FileRow, its_input: FileRow) -> None:
        """Compare the carried columns with the input's."""
        for field, array in carried_columns(its_input.batch, self._job):
            if not _same(array, ours.batch.column(field.name)):
                where = _places(ours, its_input)
                raise DataError(f"{field.name} is not that of the input", where=where, remedy=AGAIN)

    def _check_row(self, ours: FileRow, its_input: FileRow) -> None:
        """Compare one output row with its input row."""
        where = _places(ours, its_input)
        try:
            unit = read_rows(its_input.batch, self._job)
            given = self._reader.read(ours.batch)
        except BatchmaxError as error:
            raise DataError(error.what, where=where, remedy=AGAIN) from error
        self._check_values(unit, given, where, (ours.number, None))

    def _check_sequence(self, ours: FileRow, its_input: FileRow, tokens: ScoredTokens) -> None:
        """Compare one sequence of the output with its input row: the status, and some tokens."""
        job, where = self._job, _places(ours, its_input)
        tally = SequenceTally(shift=job.options.shift)
        units: list[tuple[Array, Labels, Array | None]] = []
        try:
            chunks = list(from_columns(iter([its_input.batch]), job, TokenSizes.of(job), (0, 0)))
            mine = tokens.of(ours.batch)
            count = sum(chunk.batch.num_rows for chunk in chunks)
            if mine.num_rows != count:
                raise DataError(f"has {mine.num_rows:,} tokens, and {count:,} in the input", where="")
            chosen = sorted(self._random.choice(count, min(self._of_each, count), replace=False).tolist())
            whole, first = None, 0
            for chunk in chunks:
                matrix, labels, known = read_rows(chunk.batch, job, known=chunk.known)
                whole = tally.add(chunk.tokens, row_statuses(matrix, labels, known, job.options))
                for token in chosen:
                    if first <= token < first + len(matrix):
                        at = token - first
                        one = None if chunk.known is None else chunk.known[at : at + 1]
                        units.append(read_rows(chunk.unit(at, job), job, known=one))
                first += len(matrix)
            given = [self._reader.read(mine.slice(token, 1)) for token in chosen]
            if whole is not None:
                is_null = bool(chunks[0].tokens.missing[0])
                tokens.check_row(ours.batch, int(whole.status[0]), int(whole.counts[0]), is_null=is_null)
        except BatchmaxError as error:
            raise DataError(error.what, where=where, remedy=AGAIN) from error
        for token, unit, values in zip(chosen, units, given, strict=True):
            self._check_values(unit, values, f"{where}, token {token:,}", (ours.number, token))
        self.sampled_tokens += len(chosen)

    def _check_values(
        self, unit: tuple[Array, Labels, Array | None], given: RowValues, where: str, place: tuple[int, int | None]
    ) -> None:
        """Compare the outputs of a row or token with the exact values."""
        matrix, labels, known = unit
        status = int(row_statuses(matrix, labels, known, self._job.options)[0])
        self._check_presence(given, status, where)
        if status <= LAST_WITHOUT_PROBS:
            return
        row = exact_answer(matrix[0], labels if status > LAST_WITHOUT_LOSS else None, self._job)
        for name, values in given.values.items():
            if name in OUTPUTS and OUTPUTS[name].needs_label and status <= LAST_WITHOUT_LOSS:
                continue
            off, text = row.compare(name, values[0])
            if not off <= MOST_ULPS:
                raise DataError(f"{name} {text}", where=where, remedy=AGAIN)
            if name not in MEASURED:
                continue
            if name not in self.errors or off > self.errors[name].ulp:
                self.errors[name] = Worst(off, *place)

    def _check_presence(self, given: RowValues, status: int, where: str) -> None:
        """Compare the status and the nulls with the expected status."""
        name = STATUS_NAMES[status]
        if given.status is not None and given.status[0] != status:
            raise DataError(f"status is {STATUS_NAMES[given.status[0]]}, not {name}", where=where, remedy=AGAIN)
        for output in given.values:
            with_label = output in OUTPUTS and OUTPUTS[output].needs_label
            present = bool((given.has_loss if with_label else given.has_probs)[0])
            if present != (status > (LAST_WITHOUT_LOSS if with_label else LAST_WITHOUT_PROBS)):
                what = f"{output} is {'there' if present else 'null'}, but the row is {name}"
                raise DataError(what, where=where, remedy=AGAIN)


def _places(ours: FileRow, its_input: FileRow) -> str:
    return f"{ours.place}, from {its_input.place}"


def _open(scored: Scored, inputs: list[str], logits: str | None, storage: Sequence[str]) -> ParquetSource:
    """Open the inputs with the options of the scoring job."""
    options = replace(scored.claims.options, storage_options=tuple(storage))
    if logits is not None or options.logits is not None:
        return ParquetSource(inputs, replace(options, logits=logits or options.logits), mirrors=scored.is_folder)
    # With one column per class, the output records only a text with the first and the last name. Try patterns that
    # match both until one gives the same text.
    for pattern in (None, *_patterns(scored.claims.logits)):
        try:
            source = ParquetSource(inputs, replace(options, logits=pattern), mirrors=scored.is_folder)
        except UsageError:
            continue
        if source.job.logits.why == scored.claims.logits:
            return source
    raise UsageError(
        f"which columns hold the logits is not known: they were {scored.claims.logits}",
        where="--logits",
        remedy="give the pattern that they were scored with, such as --logits 'score_*'",
    )


def _patterns(why: str) -> Iterator[str]:
    """Yield patterns that match the first and the last column named in ``why``, from the narrowest to the widest."""
    names = re.findall(r"'(.*?)'(?= |$)", why)
    if len(names) != 2:
        return
    opening = _common_start(*names)
    closing = _common_start(*(name[len(opening) :][::-1] for name in names))[::-1]
    for length in range(len(opening), -1, -1):
        yield f"{_literal(opening[:length])}*{_literal(closing)}"


def _common_start(first: str, second: str) -> str:
    same = [a == b for a, b in zip(first, second, strict=False)]
    return first[: same.index(False)] if False in same else first[: len(same)]


def _literal(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def _same(ours: pa.Array, theirs: pa.Array) -> bool:
    """Return whether two arrays of one value are equal; NaN equals NaN."""
    # Either may hold INT96 timestamps as bytes, which can represent every INT96 value.
    kinds = raw_of(ours.type, theirs.type), raw_of(theirs.type, ours.type)
    ours, theirs = plain_array(converted(ours, kinds[0])), plain_array(converted(theirs, kinds[1]))
    if ours.equals(theirs):
        return True
    try:
        return repr(ours[0].as_py()) == repr(theirs[0].as_py())
    except (ValueError, ImportError, pa.ArrowException):
        return False
