"""Verify a scored output: its bytes, the consistency of its numbers and, if given, its inputs.

:func:`verify` reads the files once, page by page and then row by row, in bounded memory, and stops at the first failed
check. :class:`Verification` lists what was checked and the largest errors.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batchmax import __version__
from batchmax.errors import DataError, UsageError
from batchmax.options.parsing import names_of
from batchmax.outputs import LAST_BAD, STATUS_NAMES
from batchmax.parquet import Footer
from batchmax.parquet.footer import MAGIC
from batchmax.parquet.reading.checksums import DamagedPageError, check_pages
from batchmax.results import CommandResult
from batchmax.runtime.progress import Progress
from batchmax.sources.decode_budget import whole_batches
from batchmax.sources.parquet_file import InputFile, OpenFile
from batchmax.sources.read_errors import read_errors
from batchmax.sources.row_lookup import batch_rows
from batchmax.storage.system_calls import read_at
from batchmax.verification.column_reader import WrongRowError
from batchmax.verification.invariants import Counts, RowChecks
from batchmax.verification.recompute import Recomputation
from batchmax.verification.scored_output import AGAIN, Said, Scored, open_scored
from batchmax.verification.token_view import ScoredTokens

SAMPLE = 20
"""The default number of recomputed rows."""

LEAST_SLACK = 1e-11
"""Relative rounding error of a mean over all rows, in addition to the error of its terms."""


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
        Pattern of the logits columns, needed if there is one column per class and the names don't determine it.
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
    """
    started = time.monotonic()
    named = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    _check_options(named, sample, seed, logits)
    progress = progress or Progress()
    storage = names_of("storage_options", storage_options)
    scored = open_scored(os.fspath(file), storage)
    tokens = ScoredTokens(scored) if scored.claims.nested else None
    checks = RowChecks(scored if tokens is None else tokens.scored)
    recomputation = None
    if named:
        # Recompute about as many tokens as rows were asked for.
        of_each = -(-(SAMPLE if sample is None else sample) // max(scored.n_rows, 1))
        recomputation = Recomputation(scored, named, logits, storage, tokens, of_each=max(of_each, 1), seed=seed)
    if recomputation is not None:
        checks.use_label(recomputation.label)
    found = Verification(
        file=scored.path,
        files=[one.path for one in scored.files],
        n_rows=scored.n_rows,
        n_classes=scored.claims.n_classes,
        outputs=list(scored.columns if tokens is None else tokens.scored.columns),
        bytes_read=scored.size,
    )
    progress.start(scored.n_rows, scored.size)
    for one in scored.files:
        progress.note(f"checking {one.path}: {one.metadata.num_rows:,} rows")
        _check_file(one, scored, checks, tokens, found, progress)
    found.summary = _check_summary(scored, checks.counts, tokens)
    found.sums = {name: {"off": off, "bound": checks.bound(name)} for name, off in checks.deviations.items()}
    found.compared = {name: sorted(others) for name, others in checks.compared.items()}
    found.notes = checks.notes
    if tokens is not None and scored.claims.options.top_k:
        found.notes.append("the columns of top k were decoded, and not held against probabilities")
    if recomputation is not None:
        progress.note(f"working out rows of {recomputation.files:,} input files")
        _recompute(scored, recomputation, SAMPLE if sample is None else sample, seed, found)
    found.seconds = round(time.monotonic() - started, 3)
    return found


def _check_options(inputs: Sequence[Any], sample: int | None, seed: int, logits: str | None) -> None:
    for option, value in (("--sample", sample), ("--seed", seed)):
        if value is not None and value < 0:
            raise UsageError(f"{value} is less than 0", where=option)
    for option, given in (("--sample", sample), ("--logits", logits)):
        if given is not None and not inputs:
            raise UsageError(
                "rows are worked out from the inputs, and none is named",
                where=option,
                remedy="name what was scored: batchmax verify FILE INPUT...",
            )


def _check_file(
    file: InputFile,
    scored: Scored,
    checks: RowChecks,
    tokens: ScoredTokens | None,
    found: Verification,
    progress: Progress,
) -> None:
    """Check the pages of a file, decode its columns and check its rows."""
    footer = file.footer
    if footer is None:
        raise DataError("its footer is not understood", where=file.path, remedy=AGAIN)
    computed = {name for names in scored.columns.values() for name in names}
    first = 0
    with read_errors(file.path), file.opened() as opened:
        parquet, descriptor = opened.parquet, opened.descriptor
        opened.need_start()
        if read_at(descriptor, len(MAGIC), 0) != MAGIC:
            raise DataError("does not begin as Parquet does", where=file.path, remedy=f"the file is damaged: {AGAIN}")
        for number in range(parquet.num_row_groups):
            opened.need(number)
            for column in footer.columns:
                for leaf in range(column.first_leaf, column.first_leaf + len(column.leaves)):
                    _check_pages(descriptor, file, footer, number, leaf, found, may_lack=column.name not in computed)
            first += _check_rows(file, opened, number, first, checks, tokens)
            progress.advance(parquet.metadata.row_group(number).num_rows, file.size // parquet.num_row_groups)
    found.row_groups += file.metadata.num_row_groups


def _check_pages(
    descriptor: int, file: InputFile, footer: Footer, group: int, leaf: int, found: Verification, *, may_lack: bool
) -> None:
    """Check every page of a column chunk; pages of computed columns must have checksums."""
    where = f"{file.path}: column {footer.leaves[leaf].name} (row group {group})"
    try:
        count = check_pages(descriptor, footer, group, leaf)
    except DamagedPageError as error:
        raise DataError(str(error), where=where, remedy=f"the file is damaged: {AGAIN}") from error
    if count.unchecked and not may_lack:
        raise DataError("a page has lost its checksum", where=where, remedy=f"the file was changed: {AGAIN}")
    found.pages += count.pages
    found.unchecked_pages += count.unchecked


def _check_rows(
    file: InputFile, opened: OpenFile, group: int, first: int, checks: RowChecks, tokens: ScoredTokens | None
) -> int:
    """Decode a row group, check its rows, and return their number."""
    metadata = opened.parquet.metadata.row_group(group)
    rows = 0
    for batch in whole_batches(file, opened, group, batch_rows(metadata)):
        at_tokens = False
        try:
            own = batch if tokens is None else tokens.of(batch)
            if tokens is not None:
                tokens.count(batch)
            at_tokens = tokens is not None
            checks.add(own)
        except WrongRowError as error:
            at = tokens.row_of(batch, error.row) if tokens is not None and at_tokens else error.row
            row = first + rows + at
            where = f"{file.path}: row {row:,} (row group {group})"
            raise DataError(error.what, where=where, remedy=f"it was not written so: {AGAIN}") from error
        rows += batch.num_rows
    if rows != metadata.num_rows:
        what = f"row group {group} holds {rows:,} rows, not {metadata.num_rows:,} as the footer says"
        raise DataError(what, where=file.path, remedy=f"the file is damaged: {AGAIN}")
    return rows


def _check_summary(scored: Scored, counts: Counts, tokens: ScoredTokens | None) -> list[str]:
    """Compare the counts with the job's summary, and return the names that agree."""
    said = scored.summary
    if said is None:
        return []
    who = "the manifest" if scored.is_folder else "the summary in the footer"
    wanted = _expected(scored, counts, said) if tokens is None else _expected_of_tokens(scored, counts, tokens)
    for name, value in wanted.items():
        if name in said and not _agree(said[name], value, scored):
            raise DataError(f"{who} says {name} {said[name]}, and the rows {value}", where=scored.path, remedy=AGAIN)
    return [name for name in ("n_rows", *wanted) if name in said]


def _expected(scored: Scored, counts: Counts, said: Said) -> dict[str, Any]:
    """Return the expected values of a summary, as far as the output's columns determine them."""
    dropped = scored.claims.options.on_bad_row == "drop"
    wanted: dict[str, Any] = {"n_classes": scored.claims.n_classes}
    if "status" in scored.columns:
        seen = {name: int(count) for name, count in zip(STATUS_NAMES, counts.statuses.tolist(), strict=False) if count}
        bad = STATUS_NAMES[: LAST_BAD + 1]
        known = said.get("status_counts")
        if dropped and isinstance(known, Mapping):
            seen |= {name: count for name, count in known.items() if name in bad}
        wanted["status_counts"] = seen
        if not dropped:
            wanted["bad_rows"] = sum(seen.get(name, 0) for name in bad)
    return wanted | _expected_losses(scored, counts)


def _expected_losses(scored: Scored, counts: Counts) -> dict[str, Any]:
    """Return the expected losses and accuracy of a summary, for rows or tokens."""
    wanted: dict[str, Any] = {}
    if "loss" in scored.columns:
        wanted["infinite_losses"] = counts.infinite_losses
        if not counts.infinite_losses and counts.weight_sum:
            wanted["mean_loss"] = counts.loss_sum / counts.weight_sum
    if "correct" in scored.columns:
        judged = counts.rows - counts.without_loss
        wanted["accuracy"] = counts.hits / judged if judged else None
    return wanted


def _expected_of_tokens(scored: Scored, counts: Counts, tokens: ScoredTokens) -> dict[str, Any]:
    """Return the expected values of a summary of sequences; with dropped rows only ``n_classes`` is known."""
    wanted: dict[str, Any] = {"n_classes": scored.claims.n_classes}
    if scored.claims.options.on_bad_row == "drop":
        return wanted
    if "status" in scored.columns:
        names = STATUS_NAMES[: LAST_BAD + 1]
        rows = {name: int(count) for name, count in zip(STATUS_NAMES, tokens.statuses.tolist(), strict=True) if count}
        of_tokens = {
            name: int(count) for name, count in zip(STATUS_NAMES, counts.statuses.tolist(), strict=False) if count
        }
        wanted |= {"status_counts": rows, "bad_rows": sum(rows.get(name, 0) for name in names)}
        wanted["token_status_counts"] = of_tokens
    if "loss" in scored.columns:
        wanted["n_tokens"] = counts.losses
    return wanted | _expected_losses(scored, counts)


def _agree(said: Any, value: Any, scored: Scored) -> bool:
    if isinstance(value, float) and isinstance(said, float):
        slack = float(np.finfo(scored.claims.loss_dtype).eps) + LEAST_SLACK
        return math.isclose(said, value, rel_tol=slack, abs_tol=float(np.finfo(np.float32).tiny))
    return bool(said == value)


def _recompute(scored: Scored, recomputation: Recomputation, sample: int, seed: int, found: Verification) -> None:
    rows = min(sample, scored.n_rows)
    chosen = np.random.default_rng(seed).choice(scored.n_rows, rows, replace=False).tolist() if rows else []
    recomputation.check(sorted(chosen))
    found.inputs = recomputation.files
    found.sampled_rows, found.seed = rows, seed
    found.largest_errors = {
        name: {"ulp": round(worst.ulp, 3), "row": worst.row} | ({} if worst.token is None else {"token": worst.token})
        for name, worst in recomputation.errors.items()
    }
    if scored.claims.nested:
        found.sampled_tokens = recomputation.sampled_tokens
    if not scored.claims.inputs:
        found.notes.append("the output was made of a stream, so it does not know its inputs; only rows were compared")
    if scored.claims.options.input == "probs":
        found.notes.append("worked out from the float64 logarithms of the probabilities, which is what was scored")
    if scored.n_rows != recomputation.n_rows:
        dropped = recomputation.n_rows - scored.n_rows
        found.notes.append(f"{dropped:,} rows of the inputs were dropped; those that were kept are counted")
