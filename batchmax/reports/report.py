"""Write an HTML report in two passes over the rows: one for metrics, one for single rows.

Gathers the facts of the page and writes it; ``html.page`` renders it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from batchmax import __version__
from batchmax.errors import DataError, UsageError
from batchmax.evaluation.evaluate import Evaluation, evaluate
from batchmax.evaluation.metrics import check_bins
from batchmax.evaluation.row_stream import open_rows, refuse_bytes, refuse_single_pass, row_batches, rows_in
from batchmax.evaluation.worst_rows import NEEDED, WorstRows
from batchmax.jobs.pipeline import report_source
from batchmax.options.input_options import InputOptions
from batchmax.options.parsing import names_of
from batchmax.options.score_options import resolve_options
from batchmax.outputs import STATUS_NAMES
from batchmax.reports.collectors import ConfidenceHistogram, ConfusedPairs, RowSelector, SelectedRow
from batchmax.results import CommandResult
from batchmax.runtime.installation import missing_package
from batchmax.runtime.progress import Progress
from batchmax.runtime.text import quantity
from batchmax.scoring.tally import named_counts
from batchmax.sinks.text_file import TextFile
from batchmax.sources.parquet_source import Source
from batchmax.storage.input_files import paths_of

if TYPE_CHECKING:
    from batchmax.reports.html.page import Facts

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
    >>> found = batchmax.report("data/digits.parquet", "digits.html", worst=5)
    >>> found.n_rows, found.worst_rows
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
    >>> found = batchmax.report("data/digits.parquet", "digits.html", title="Digits")
    >>> found.out
    'digits.html'
    """
    started = time.monotonic()
    progress = progress or Progress()
    options = resolve_options(InputOptions, options, given)
    place = TextFile(out, ENDINGS, if_exists or "error", options.storage_options)
    _check(src, row, worst, bins)
    refuse_bytes(options)
    _need_libraries()
    data = _PageData(src, options, row, worst, tuple(names_of("by", by)), bins, progress)
    place.refuse_inputs([file.path for file in data.source.files])
    facts = data.facts(title)
    from batchmax.reports.html.page import page  # noqa: PLC0415 - slow to import, and may not be installed

    size = place.write(page(facts))
    progress.published()
    found, kept = data.evaluation or Evaluation(), data.selector.selected
    return Report(
        out=str(out),
        n_rows=facts.n_rows,
        n_classes=facts.n_classes,
        n_tokens=found.n_tokens,
        bad_rows=data.bad_rows,
        mean_loss=found.mean_loss,
        accuracy=found.accuracy,
        ece=found.ece,
        row=None if facts.row is None or kept is None else _place(kept),
        worst_rows=len(facts.worst.rows) if facts.worst is not None else 0,
        bytes_written=size,
        files=[file.path for file in data.source.files],
        bytes_read=(data.source.size or 0) * (2 if data.evaluation else 1),
        seconds=round(time.monotonic() - started, 3),
        unified=list(data.source.unified),
        warnings=list(data.warnings),
        notes=[*data.source.job.notes, *facts.notes],
    )


class _PageData:
    """The two passes over the rows, and what they collect."""

    def __init__(
        self,
        src: Any,
        options: InputOptions,
        row: int | None,
        worst: int,
        by: tuple[str, ...],
        bins: int,
        progress: Progress,
    ) -> None:
        self._given = options
        self._arguments = {"row": row, "worst": worst, "by": ",".join(by) or None, "bins": bins}
        self.source = open_rows(src, options, NEEDED)
        job = self.source.job
        if by and job.label is None:
            raise UsageError("metrics of groups need labels", where="--by", remedy="name their column: --label NAME")
        _check_row(self.source, row)
        self.evaluation: Evaluation | None = None
        self.warnings: list[str] = []
        self.selector = RowSelector(job, row)
        self._confidences = ConfidenceHistogram(job)
        self._worst = WorstRows(job, worst) if worst and job.label is not None else None
        self._pairs: ConfusedPairs | None = None
        passes = _SharedProgress(progress, 1 if job.label is None else 2)
        if job.label is None:
            report_source(self.source, progress)
        else:
            self.evaluation = evaluate(src, options, bins=bins, by=by, progress=passes)
            if self.evaluation.confusion is None and job.label.kind != "distribution":
                self._pairs = ConfusedPairs(job.n_classes)
        for batch in row_batches(self.source, passes, self.warnings):
            for one in (self.selector, self._confidences, self._worst, self._pairs):
                if one is not None:
                    one.add(batch)
        if self.evaluation is not None:
            self.warnings = list(self.evaluation.warnings)
        else:
            for warning in self.warnings:
                passes.warn(warning)
            self.warnings[:0] = self.source.warnings
        n_rows = self.evaluation.n_rows if self.evaluation is not None else self.selector.rows
        if n_rows != self.selector.rows:
            raise DataError(
                f"it had {quantity(n_rows, 'row')} in the first pass, and {self.selector.rows:,} in the second",
                where=", ".join(file.path for file in self.source.files) or "the stream",
                remedy="give a file or a table that doesn't change meanwhile",
            )
        if row is not None and row >= self.selector.rows:
            raise UsageError(
                f"row {row:,} is out of range for {quantity(self.selector.rows, 'row')}",
                where="--row",
                remedy="rows count from 0",
            )

    @property
    def bad_rows(self) -> int:
        """The number of bad rows."""
        return self._confidences.tally.bad_rows

    def facts(self, title: str | None) -> Facts:
        """Return the content of the page."""
        from batchmax.reports import facts as report_facts  # noqa: PLC0415 - as above
        from batchmax.reports.html.formatting import printable  # noqa: PLC0415
        from batchmax.reports.html.page import Facts  # noqa: PLC0415

        job, found = self.source.job, self.evaluation
        names = job.classes or tuple(map(str, range(job.n_classes)))
        notes = list(self.warnings)
        if found is None:
            notes.append(
                "There are no labels, so there are no losses, accuracy and calibration. Name their column with --label."
            )
        if job.nesting is not None:
            notes.append("The rows are sequences, and metrics are over their tokens.")
        if self._pairs is not None and not self._pairs.is_exact:
            notes.append("Too many pairs of classes were confused to count all of them; rare ones are left out.")
        kept, row = self.selector.selected, None
        if kept is not None and report_facts.has_probs(kept):
            row = report_facts.row_facts(kept, job, names, was_asked=self._arguments["row"] is not None)
        elif kept is not None:
            notes.append(f"Row {kept.number:,} has no probabilities: its status is {STATUS_NAMES[kept.status]}.")
        elif self._arguments["row"] is not None:
            notes.append(f"Row {self._arguments['row']:,} has no tokens.")
        tally = self._confidences.tally
        return Facts(
            title=printable(title if title is not None else self._title(), LONGEST_TITLE),
            n_rows=self.selector.rows,
            n_classes=job.n_classes,
            names=names,
            provenance=report_facts.provenance(self.source, self._given, self._arguments),
            evaluation=found,
            status_counts=named_counts(tally.row_statuses),
            token_status_counts=None if job.nesting is None else named_counts(tally.statuses),
            confidences={"edges": self._confidences.edges, "counts": self._confidences.counts.tolist()},
            confused=self._pairs.pairs if self._pairs is not None else (),
            row=row,
            worst=None if self._worst is None else report_facts.worst_table(self._worst.table),
            notes=notes,
            version=__version__,
        )

    def _title(self) -> str:
        files = self.source.files
        if not files:
            return "A stream of logits"
        more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
        return f"{files[0].path.rsplit('/', 1)[-1]}{more}"


def _place(kept: SelectedRow) -> dict[str, Any]:
    """Return the file, the row and for sequences the token of a kept row."""
    place: dict[str, Any] = {"file": kept.file, "row": kept.row}
    return place if kept.token is None else place | {"token": kept.token}


class _SharedProgress(Progress):
    """Reports several passes over the same rows to one progress callback, as one job."""

    def __init__(self, to: Progress, passes: int) -> None:
        self._to, self._passes, self._is_started = to, passes, False

    def start(self, total_rows: int | None, total_bytes: int | None) -> None:
        """Start with the total of all passes, when the first pass starts."""
        if not self._is_started:
            times = self._passes
            self._to.start(total_rows and times * total_rows, total_bytes and times * total_bytes)
        self._is_started = True

    def advance(self, rows: int, n_bytes: int) -> None:
        """Add what was done since the last call, in any pass."""
        self._to.advance(rows, n_bytes)

    def note(self, text: str) -> None:
        """Pass on a note about a choice."""
        self._to.note(text)

    def assumed(self, text: str) -> None:
        """Pass on an assumption about the input."""
        self._to.assumed(text)

    def warn(self, text: str) -> None:
        """Pass on a warning."""
        self._to.warn(text)


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


def _check_row(source: Source, row: int | None) -> None:
    total = rows_in(source)
    if row is not None and total is not None and row >= total:
        raise UsageError(
            f"row {row:,} is out of range for {quantity(total, 'row')}", where="--row", remedy="rows count from 0"
        )


def _need_libraries() -> None:
    for name in ("jinja2", "matplotlib"):
        if find_spec(name) is None:
            raise missing_package(name, "insight", where="report")
    # On import, matplotlib may log remarks about its cache folder; don't show them.
    remarks = logging.getLogger("matplotlib")
    level = remarks.level
    remarks.setLevel(logging.ERROR)
    try:
        import_module("batchmax.reports.html.page")
    finally:
        remarks.setLevel(level)
