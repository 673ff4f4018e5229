"""Verify a scored output: its bytes, the consistency of its numbers and, if given, its inputs.

:func:`verify` reads the files once, page by page and then row by row, in bounded memory, and stops at the first failed
check. :class:`Verification` lists what was checked and the largest errors.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batchmax import __version__
from batchmax.errors import DataError, UsageError
from batchmax.options.parsing import check_at_least, names_of
from batchmax.parquet.footer import MAGIC
from batchmax.parquet.reading.checksums import DamagedPageError, check_pages
from batchmax.results import CommandResult
from batchmax.runtime.progress import Progress
from batchmax.runtime.text import quantity
from batchmax.sources.decode_budget import whole_batches
from batchmax.sources.parquet_file import InputFile, OpenFile
from batchmax.sources.read_errors import read_errors
from batchmax.sources.row_lookup import batch_rows
from batchmax.storage.system_calls import read_at
from batchmax.verification.column_reader import WrongRowError
from batchmax.verification.invariants import RowChecks
from batchmax.verification.output_metadata import SCORE_AGAIN
from batchmax.verification.recompute import Recomputation
from batchmax.verification.scored_output import ScoredOutput, open_scored_output
from batchmax.verification.summary_check import check_summary

SAMPLE = 20
"""The default number of recomputed rows."""

DAMAGED = f"the file is damaged; {SCORE_AGAIN}"
CHANGED = f"the file was changed after it was written; {SCORE_AGAIN}"


@dataclass(kw_only=True)
class Verification(CommandResult):
    """The result of a successful verification.

    Attributes
    ----------
    pages, unchecked_pages
        The number of pages, and of those without a checksum, which are pages of carried columns.
    sums
        For ``probs`` and ``log_probs``: ``off``, the largest distance of a row's sum from 1, and ``bound``, its limit.
    compared
        For each computed column, the columns that it was compared with.
    summary
        The members of the output's summary that agree with the rows; empty if there is no summary.
    inputs
        The number of input files that the output was compared with; None without inputs.
    sampled_rows, sampled_tokens, seed
        The number of recomputed rows, for sequences the number of recomputed tokens, and the random seed for both.
    largest_errors
        For each output measured in ULP: the largest error (``ulp``), with its ``row`` and ``token``.

    Examples
    --------
    >>> import batchmax
    >>> summary = batchmax.score("data/digits.parquet", "scored.parquet")
    >>> result = batchmax.verify("scored.parquet")
    >>> result.outputs, result.sampled_rows
    (['probs', 'loss'], 0)
    """

    SHOWN = ("file", "n_rows", "n_classes", "sampled_rows", "sampled_tokens")

    file: str
    files: list[str] = field(default_factory=list)
    n_rows: int = 0
    n_classes: int = 0
    row_groups: int = 0
    pages: int = 0
    unchecked_pages: int = 0
    outputs: list[str] = field(default_factory=list)
    sums: dict[str, dict[str, float]] = field(default_factory=dict)
    compared: dict[str, list[str]] = field(default_factory=dict)
    summary: list[str] = field(default_factory=list)
    inputs: int | None = None
    sampled_rows: int = 0
    sampled_tokens: int | None = None
    seed: int | None = None
    largest_errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    bytes_read: int = 0
    seconds: float = 0.0
    version: str = __version__


def verify(
    file: str | os.PathLike[str],
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    *,
    sample: int | None = None,
    seed: int = 0,
    logits: str | None = None,
    storage_options: str | Sequence[str] = (),
    progress: Progress | None = None,
) -> Verification:
    """Verify a file or folder that :func:`batchmax.score` wrote.

    Compares every page with its checksum and decodes every column. Checks that the numbers of each row are consistent,
    and compares counts with footers, summary and manifest. If inputs are given, checks that they are the ones that were
    scored, and recomputes a sample of rows in exact arithmetic, with a tolerance of 3 ULP.

    Parameters
    ----------
    file
        The output: a file, or a folder of parts; a path or a URI.
    inputs
        The inputs that were scored: files, folders or globs, in the same order.
    sample
        Number of rows to recompute, at most all; 20 by default if inputs are given.
    seed
        Random seed for the sample.
    logits
        The column or pattern of the logits in the inputs. Default: as in the metadata of the output.
    storage_options
        Storage options for URIs, as for :func:`batchmax.score`.
    progress
        Progress callbacks.

    Raises
    ------
    DataError
        A check failed; the error says where.
    UsageError
        Invalid option.

    Examples
    --------
    >>> import batchmax
    >>> summary = batchmax.score("data/digits.parquet", "scored.parquet")
    >>> result = batchmax.verify("scored.parquet", "data/digits.parquet", sample=10)
    >>> result.n_rows, result.sampled_rows
    (899, 10)
    >>> result.largest_errors["loss"]["ulp"] <= 3
    True
    """
    started = time.monotonic()
    named = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    _check_options(named, sample, seed, logits)
    sample = SAMPLE if sample is None else sample
    progress = progress or Progress()
    storage = names_of("storage_options", storage_options)
    output = open_scored_output(os.fspath(file), storage)
    checks = RowChecks(output)
    recomputation = None
    if named:
        recomputation = Recomputation(output, checks, named, logits, storage, sample=sample, seed=seed)
    result = Verification(
        file=output.path,
        files=[one.path for one in output.files],
        n_rows=output.n_rows,
        n_classes=output.metadata.n_classes,
        row_groups=sum(one.metadata.num_row_groups for one in output.files),
        outputs=list(checks.compared),
        sums=checks.sums,
        notes=[checks.reader.label_note] if checks.reader.label_note else [],
        bytes_read=output.size,
    )
    progress.start(output.n_rows, output.size)
    for one in output.files:
        progress.note(f"checking {one.path}: {quantity(one.metadata.num_rows, 'row')}")
        _check_file(one, output, checks, result, progress)
    result.summary = check_summary(output, checks.counts)
    result.compared = {name: sorted(others) for name, others in checks.compared.items()}
    if output.metadata.nested and output.metadata.options.top_k:
        result.notes.append("the values of the --top-k columns are not checked for sequences")
    if output.metadata.rule is not None:
        result.notes.append("the values of the --decision columns are not checked")
    if recomputation is not None:
        progress.note(f"recomputing rows of {recomputation.n_files:,} input files")
        _recompute(output, recomputation, sample, seed, result)
    result.seconds = round(time.monotonic() - started, 3)
    return result


def _check_options(inputs: Sequence[Any], sample: int | None, seed: int, logits: str | None) -> None:
    check_at_least("--sample", sample, 0)
    check_at_least("--seed", seed, 0)
    for option, given in (("--sample", sample), ("--logits", logits)):
        if given is not None and not inputs:
            raise UsageError(
                "this option needs inputs to recompute rows from",
                where=option,
                remedy="name the files that were scored: batchmax verify FILE INPUT...",
            )


def _check_file(
    file: InputFile, output: ScoredOutput, checks: RowChecks, result: Verification, progress: Progress
) -> None:
    """Check the pages of a file, decode its columns and check its rows."""
    footer = file.footer
    computed = {name for names in output.columns.values() for name in names}
    first = 0
    with read_errors(file.path), file.opened() as opened:
        opened.need_start()
        if read_at(opened.descriptor, len(MAGIC), 0) != MAGIC:
            raise DataError("the file does not start with the magic bytes of Parquet", where=file.path, remedy=DAMAGED)
        n_groups = opened.parquet.num_row_groups
        for group in range(n_groups):
            opened.need(group)
            for column in footer.columns:
                for leaf in range(column.first_leaf, column.first_leaf + len(column.leaves)):
                    where = f"{file.path}: column {footer.leaves[leaf].name} (row group {group})"
                    try:
                        count = check_pages(opened.descriptor, footer, group, leaf)
                    except DamagedPageError as error:
                        raise DataError(str(error), where=where, remedy=DAMAGED) from error
                    if count.unchecked and column.name in computed:
                        raise DataError("a page has no checksum", where=where, remedy=CHANGED)
                    result.pages += count.pages
                    result.unchecked_pages += count.unchecked
            rows = _check_rows(file, opened, group, first, checks)
            first += rows
            progress.advance(rows, file.size // n_groups)


def _check_rows(file: InputFile, opened: OpenFile, group: int, first: int, checks: RowChecks) -> int:
    """Decode a row group, check its rows, and return their number."""
    metadata = opened.parquet.metadata.row_group(group)
    rows = 0
    for batch in whole_batches(opened, group, batch_rows(metadata)):
        try:
            checks.add(batch)
        except WrongRowError as error:
            where = f"{file.path}: row {first + rows + error.row:,} (row group {group})"
            raise DataError(error.what, where=where, remedy=CHANGED) from error
        rows += batch.num_rows
    if rows != metadata.num_rows:
        what = f"row group {group} has {quantity(rows, 'row')}, but the footer lists {metadata.num_rows:,}"
        raise DataError(what, where=file.path, remedy=DAMAGED)
    return rows


def _recompute(
    output: ScoredOutput, recomputation: Recomputation, sample: int, seed: int, result: Verification
) -> None:
    """Recompute a random sample of rows, and add the results to ``result``."""
    rows = min(sample, output.n_rows)
    chosen = np.random.default_rng(seed).choice(output.n_rows, rows, replace=False).tolist() if rows else []
    recomputation.check(sorted(chosen))
    result.inputs, result.sampled_rows, result.seed = recomputation.n_files, rows, seed
    result.largest_errors = {
        name: error | {"ulp": round(error["ulp"], 3)} for name, error in recomputation.errors.items()
    }
    if output.metadata.nested:
        result.sampled_tokens = recomputation.sampled_tokens
    if not output.metadata.inputs:
        result.notes.append("the output was made from a stream, so only rows are compared with the inputs")
    if output.metadata.options.input == "probs":
        result.notes.append("rows are recomputed from the float64 logarithms of the probabilities, as score does")
    if dropped := recomputation.n_rows - output.n_rows:
        result.notes.append(f"{dropped:,} bad rows of the inputs were dropped; row numbers are those of the output")
