"""Write an HTML report in two passes over the rows: one for metrics, one for single rows.

Gathers the facts of the page and writes it; ``html.page`` renders it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from batchmax import __version__
from batchmax.errors import DataError, UsageError
from batchmax.evaluation.evaluate import evaluate
from batchmax.evaluation.metrics import check_bins
from batchmax.evaluation.result import Evaluation
from batchmax.evaluation.row_stream import (
    open_rows,
    refuse_bytes,
    refuse_multi_label,
    refuse_single_pass,
    row_batches,
    rows_in,
)
from batchmax.evaluation.worst_rows import NEEDED, WorstRows
from batchmax.jobs.pipeline import report_source
from batchmax.options.input_options import InputOptions
from batchmax.options.parsing import names_of
from batchmax.options.score_options import resolve_options
from batchmax.reports.collectors import ConfusedPairs, RowSelector, UnlabeledMetrics
from batchmax.reports.facts import provenance, row_facts, worst_table
from batchmax.reports.html.formatting import printable
from batchmax.reports.html.page_model import Facts, Provenance
from batchmax.results import CommandResult
from batchmax.runtime.installation import missing_package
from batchmax.runtime.progress import Progress
from batchmax.runtime.text import quantity
from batchmax.sinks.text_file import TextFile
from batchmax.sources.parquet_source import Source
from batchmax.sources.row_lookup import check_row
from batchmax.statuses import STATUS_NAMES
from batchmax.storage.input_files import paths_of

ENDINGS = (".html", ".htm")
LONGEST_TITLE = 300
MOST_WORST = 100
"""Most rows that a page lists; ``show --worst`` lists any number."""


@dataclass(kw_only=True)
class Report(CommandResult):
    """The result of writing a report. A missing value is None.

    Attributes
    ----------
    out, bytes_written
        The page's path and size.
    mean_loss
        Mean cross-entropy in nats.
    row
        The drawn row: its ``file``, and ``row`` in the file; for sequences also ``token``. None if no row can be drawn.
    n_tokens
        For sequences, the number of tokens with a loss, which the metrics are over; otherwise None.
    worst_rows
        The number of listed rows or tokens.

    Examples
    --------
    >>> import batchmax
    >>> result = batchmax.report("data/digits.parquet", "digits.html", worst=5)
    >>> result.n_rows, result.worst_rows
    (899, 5)
    """

    SHOWN = ("out", "n_rows", "n_classes", "n_tokens", "mean_loss", "accuracy", "ece", "bad_rows")

    out: str = ""
    n_rows: int = 0
    n_classes: int | None = None
    n_tokens: int | None = None
    bad_rows: int = 0
    mean_loss: float | None = None
    accuracy: float | None = None
    ece: float | None = None
    row: dict[str, Any] | None = None
    worst_rows: int = 0
    bytes_written: int = 0
    files: list[str] = field(default_factory=list)
    bytes_read: int = 0
    seconds: float = 0.0
    unified: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    version: str = __version__


def report(
    src: Any,
    out: str,
    options: InputOptions | None = None,
    *,
    row: int | None = None,
    worst: int = 20,
    by: str | Iterable[str] = (),
    bins: int = 15,
    positive: str | None = None,
    title: str | None = None,
    progress: Progress | None = None,
    if_exists: Literal["error", "overwrite"] | None = None,
    **given: Any,
) -> Report:
    """Write an HTML report about logits, or scored output: metrics, charts, one row, the worst rows.

    The page is a single file without scripts that loads nothing from the network. The same input and options give the
    same bytes, on the same type of CPU and with the same library versions.

    Parameters
    ----------
    src
        One or several paths of files or folders, or globs; or a table, or another object with ``__arrow_c_stream__``
        that can be read twice.
    out
        Path of the page, ending in ``.html`` or ``.htm``.
    options, given
        How rows are read, as for :func:`batchmax.score`. ``columns`` and ``exclude`` choose the columns to show of
        single rows.
    row
        Row to draw, counted from 0 over all inputs. None draws the row with the largest loss, or without labels the one
        with the lowest confidence.
    worst
        Number of rows with the largest loss to list, 0 to 100.
    by
        Columns to group rows by.
    bins
        Number of bins of the reliability diagram.
    positive
        The positive class of two, as for :func:`batchmax.evaluate`.
    title
        Title of the page; by default the first file's name.
    progress
        Progress callbacks.
    if_exists
        What to do if ``out`` exists: ``error`` or ``overwrite``.

    Raises
    ------
    UsageError
        Invalid option or column, or a required package isn't installed.
    DataError
        Unreadable input, a bad row with the policy ``error``, or input that changed between the two passes.
    OutputError
        The page can't be written.

    See Also
    --------
    batchmax.evaluate : the metrics alone, and gates on them.

    Examples
    --------
    >>> import batchmax
    >>> result = batchmax.report("data/digits.parquet", "digits.html", title="Digits")
    >>> result.out
    'digits.html'
    """
    started = time.monotonic()
    progress = progress or Progress()
    options = resolve_options(InputOptions, options, given)
    place = TextFile(out, ENDINGS, if_exists or "error", options.storage_options)
    _check(src, row, worst, bins)
    refuse_bytes(options)
    page = _import_page()
    groups = tuple(names_of("by", by))
    source = open_rows(src, options, NEEDED)
    refuse_multi_label(source, "have no report")
    files, has_labels = [file.path for file in source.files], source.job.label is not None
    if groups and not has_labels:
        raise UsageError("metrics of groups need labels", where="--by", remedy="name their column: --label NAME")
    if positive is not None and not has_labels:
        raise UsageError("a positive class needs labels", where="--positive", remedy="name their column: --label NAME")
    _check_row(row, rows_in(source))
    place.refuse_inputs(files)
    passes, metrics = _SharedProgress(progress, 2 if has_labels else 1), None
    if has_labels:
        # The page shows neither areas under curves nor intervals.
        unused: dict[str, Any] = {"curves": "none", "confidence_level": 0.0}
        metrics = evaluate(src, options, bins=bins, positive=positive, by=groups, progress=passes, **unused)
    else:
        report_source(source, progress)
    asked = {"row": row, "worst": worst, "by": groups, "bins": bins, "positive": positive}
    origin = provenance(source, options, asked)
    facts = _facts(source, metrics, row, worst, _title(source) if title is None else title, origin, passes)
    size, metrics = place.write(page(facts)), facts.metrics
    progress.published()
    return Report(
        out=str(out),
        n_rows=metrics.n_rows,
        n_classes=metrics.n_classes,
        n_tokens=metrics.n_tokens,
        bad_rows=metrics.bad_rows,
        mean_loss=metrics.mean_loss,
        accuracy=metrics.accuracy,
        ece=metrics.ece,
        row=None if facts.row is None else facts.row.place,
        worst_rows=len(facts.worst.rows) if facts.worst is not None else 0,
        bytes_written=size,
        files=files,
        bytes_read=(source.size or 0) * (2 if has_labels else 1),
        seconds=round(time.monotonic() - started, 3),
        unified=list(source.unified),
        warnings=metrics.warnings,
        notes=[*source.job.notes, *facts.notes],
    )


def _facts(
    source: Source,
    metrics: Evaluation | None,
    row: int | None,
    worst: int,
    title: str,
    origin: Provenance,
    progress: Progress,
) -> Facts:
    """Read all rows, and return the content of the page; without ``metrics``, there are no labels."""
    job, warnings = source.job, list[str]()
    names = job.classes or tuple(map(str, range(job.n_classes)))
    has_labels = metrics is not None
    selector, unlabeled = RowSelector(job, row), UnlabeledMetrics(job)
    worst_rows = WorstRows(job, worst) if worst and has_labels else None
    has_pairs = metrics is not None and metrics.per_class and metrics.confusion is None
    pairs = ConfusedPairs(job.n_classes) if has_pairs else None
    for batch in row_batches(source, progress, warnings):
        for one in (selector, worst_rows, pairs, None if has_labels else unlabeled):
            if one is not None:
                one.add(batch)
    if metrics is None:
        for warning in warnings:
            progress.warn(warning)
        metrics = unlabeled.result([*source.warnings, *warnings])
    if selector.rows != metrics.n_rows:
        first = quantity(metrics.n_rows, "row")
        raise DataError(
            f"the input had {first} in the first pass, and {selector.rows:,} in the second",
            where=", ".join(file.path for file in source.files) or "the stream",
            remedy="give a file or a table that doesn't change meanwhile",
        )
    _check_row(row, selector.rows)
    notes = list(metrics.warnings)
    if not has_labels:
        notes.append(
            "There are no labels, so there are no losses, accuracy and calibration. Name their column with --label."
        )
    if job.nesting is not None:
        notes.append("The rows are sequences, and metrics are over their tokens.")
    if pairs is not None and not pairs.is_exact:
        notes.append("Too many pairs of classes were confused to count all of them; rare ones are left out.")
    drawn, shown = None, selector.selected
    if shown is not None and shown.has_probs:
        drawn = row_facts(shown, job, names, by_number=row is not None)
    elif shown is not None:
        notes.append(f"Row {shown.number:,} has no probabilities: its status is {STATUS_NAMES[shown.status]}.")
    elif row is not None:
        notes.append(f"Row {row:,} has no tokens.")
    return Facts(
        title=printable(title, LONGEST_TITLE),
        metrics=metrics,
        has_labels=has_labels,
        provenance=origin,
        confused=pairs.pairs if pairs is not None else (),
        row=drawn,
        worst=None if worst_rows is None else worst_table(worst_rows.table),
        notes=notes,
    )


def _title(source: Source) -> str:
    files = source.files
    if not files:
        return "A stream of logits"
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    return f"{files[0].path.rsplit('/', 1)[-1]}{more}"


class _SharedProgress(Progress):
    """Reports several passes over the same rows to one progress callback, as one job."""

    def __init__(self, to: Progress, passes: int) -> None:
        self._to, self._passes, self._is_started = to, passes, False
        for name in ("advance", "note", "assumed", "warn"):
            setattr(self, name, getattr(to, name))

    def start(self, total_rows: int | None, total_bytes: int | None) -> None:
        """Start with the total of all passes, when the first pass starts."""
        if not self._is_started:
            times = self._passes
            self._to.start(total_rows and times * total_rows, total_bytes and times * total_bytes)
        self._is_started = True


def _check(src: Any, row: int | None, worst: int, bins: int) -> None:
    why = "a report needs two passes"
    refuse_single_pass(src, why)
    if not hasattr(src, "__arrow_c_stream__") and "-" in paths_of(src):
        raise UsageError(f"a stream can be read only once, and {why}", remedy="write it to a file")
    if row is not None and row < 0:
        raise UsageError(f"there is no row {row}", where="--row", remedy="the first is --row 0")
    if not 0 <= worst <= MOST_WORST:
        raise UsageError(
            f"{worst:,} is out of range",
            where="--worst",
            remedy=f"give a number from 0 to {MOST_WORST}; or: batchmax show --worst {worst}",
        )
    check_bins(bins)


def _check_row(row: int | None, n_rows: int | None) -> None:
    if row is not None and n_rows is not None:
        check_row(row, n_rows)


def _import_page() -> Callable[[Facts], str]:
    """Return the function that renders the page; its libraries are slow to import, and may not be installed."""
    for name in ("jinja2", "matplotlib"):
        if find_spec(name) is None:
            raise missing_package(name, "insight", where="report")
    # On import, matplotlib may log remarks about its cache folder; don't show them.
    remarks = logging.getLogger("matplotlib")
    level = remarks.level
    remarks.setLevel(logging.ERROR)
    try:
        from batchmax.reports.html.page import page  # noqa: PLC0415
    finally:
        remarks.setLevel(level)
    return page
