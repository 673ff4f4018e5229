"""Finds the command that ``inspect`` suggests for files.

Files of logits are scored. Outputs of ``score`` are evaluated, or verified if they can't be evaluated.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from batchmax.columns.job import Job
from batchmax.columns.logits_layout import LogitsColumn
from batchmax.columns.scored_input import written_by_score
from batchmax.errors import BatchmaxError, DataError, UsageError
from batchmax.options.parsing import option_words
from batchmax.options.score_options import ScoreOptions
from batchmax.parquet import Footer, FooterError, ThriftError
from batchmax.parquet.footer import TYPE
from batchmax.parquet.writing.column_chunk import ENCRYPTION, METADATA, STATISTICS
from batchmax.runtime.text import shell_word
from batchmax.sources.inspection.first_rows import bad_statuses, label_indices, may_be_probabilities
from batchmax.sources.parquet_file import open_file
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.read_errors import encrypted
from batchmax.statuses import Status
from batchmax.storage.input_files import find_files

PREFIX = "batchmax_"
"""Prefix of new columns, if the file already has columns with their names."""

INTEGERS = {1: 4, 2: 8}
"""Widths in bytes of Parquet's physical integer types."""

MIN_MAX = (5, 6)
"""Field numbers of the largest and the smallest value in Parquet statistics."""

MAX_LISTED = 10
"""Maximum number of classes that are listed in a command; more are written to a file."""


class Suggestion(NamedTuple):
    """What to do with files: ``score``, ``evaluate`` or ``verify``, with the command; or the problem that prevents it.

    ``job`` is how the files are read, None if they can't be. ``unified`` has the columns that differ between files.
    """

    job: Job | None
    task: str = ""
    command: str = ""
    problem: BatchmaxError | None = None
    unified: Sequence[dict[str, Any]] = ()


def suggest(inputs: list[str], options: ScoreOptions, given: Mapping[str, Any]) -> Suggestion:
    """Return what to do with files; ``given`` are the options that the user typed."""
    try:
        storage = options.storage_options
        if written_by_score(open_file(find_files(inputs, storage)[0], storage).schema) is not None:
            return _for_scored(inputs, options, given)
        trial = _Trial(inputs, options)
        trial.add(_kind_words(trial.source.job.logits, options))
        trial.add(_encryption_words(trial.source))
        if may_be_probabilities(trial.source):
            trial.add({"logits": trial.source.job.logits.names[0], "input": "probs"})
        job = trial.source.job
        trial.add(_label_words(trial.source))
        trial.add_row_words()
    except (UsageError, DataError) as error:
        return Suggestion(None, problem=error)
    first, extra = "", trial.extra
    if "classes" in extra and job.n_classes > MAX_LISTED:
        extra["classes"] = _free("classes.txt")
        first = f"seq 1 {job.n_classes} >{extra['classes']} && "
    words = [
        "score",
        *map(shell_word, inputs),
        "-o",
        _free("scored.parquet"),
        *map(shell_word, option_words({**given, **extra})),
    ]
    return Suggestion(job, "score", f"{first}batchmax {' '.join(words)}", unified=trial.source.unified)


def _for_scored(inputs: list[str], options: ScoreOptions, given: Mapping[str, Any]) -> Suggestion:
    """Return what to do with outputs of ``score``."""
    named = [*map(shell_word, inputs)]
    verify = " && ".join(f"batchmax verify {name}" for name in named)
    try:
        trial = _Trial(inputs, replace(options, columns=(), outputs=("status",)))
        job = trial.source.job
        if job.label is None:
            return Suggestion(job, "verify", verify)
        trial.add_row_words()
    except (UsageError, DataError) as error:
        return Suggestion(None, "verify", verify, error)
    words = ["evaluate", *named, *map(shell_word, option_words({**given, **trial.extra}))]
    return Suggestion(job, "evaluate", f"batchmax {' '.join(words)}")


class _Trial:
    """Files opened with the user's options and more that the command needs, in ``extra``."""

    def __init__(self, inputs: list[str], options: ScoreOptions) -> None:
        self.extra: dict[str, Any] = {}
        self._inputs = inputs
        self._options = options
        try:
            self.source = ParquetSource(inputs, options)
        except UsageError as error:
            if not error.where.endswith("--outputs"):
                raise
            self.add({"prefix": PREFIX})

    def add(self, extra: Mapping[str, Any]) -> None:
        """Open the files with more options."""
        if extra:
            self._options = replace(self._options, **extra)
            self.source = ParquetSource(self._inputs, self._options)
            self.extra |= extra

    def add_row_words(self) -> None:
        """Add the options that the first rows need: for several right classes in a row, and for bad rows."""
        job, bad = self.source.job, bad_statuses(self.source)
        is_multi_label = job.label is not None and job.label.kind == "distribution" and job.label.sums_to_1
        if is_multi_label and Status.BAD_LABEL in bad and job.computed:
            source = ParquetSource(self._inputs, replace(self._options, activation="sigmoid"))
            others = bad_statuses(source)
            if Status.BAD_LABEL not in others:
                self.source, bad = source, others
                self.extra["activation"] = "sigmoid"
        if bad:
            self.extra["on_bad_row"] = "null"


def _encryption_words(source: ParquetSource) -> dict[str, Any]:
    """Return the options that leave out encrypted columns.

    Raises
    ------
    DataError
        The logits are encrypted, or labels that the user named.
    """
    job, extra = source.job, dict[str, Any]()
    excluded: dict[str, None] = {}
    for file in source.files:
        for name in _encrypted_columns(file.footer):
            label = None if job.label is None else job.label.name.split(".")[0]
            if name in {logits.split(".")[0] for logits in job.logits.names} or (name == label and job.options.label):
                raise encrypted(file.path, name)
            if name == label:
                extra["label"] = "none"
            excluded |= {name: None} if name in job.carried.names else {}
    return extra | ({"exclude": tuple(excluded)} if excluded else {})


def _encrypted_columns(footer: Footer) -> list[str]:
    if not footer.has_encrypted_columns or not footer.n_row_groups:
        return []
    row_group = footer.row_group(0)
    are_encrypted = [not row_group.chunk(leaf).keys().isdisjoint(ENCRYPTION) for leaf in range(len(footer.leaves))]
    leaves = itertools.compress(footer.leaves, are_encrypted)
    return list(dict.fromkeys(leaf.path[0].decode(errors="replace") for leaf in leaves))


def _kind_words(logits: LogitsColumn, options: ScoreOptions) -> dict[str, Any]:
    """Return the options that state what the columns hold, if that isn't logits."""
    if logits.holds == "logits" or options.input is not None:
        return {}
    return {"logits": options.logits or logits.names[0], "input": logits.holds}


def _label_words(source: ParquetSource) -> dict[str, Any]:
    """Return the options that make a file's labels class indices.

    Raises
    ------
    UsageError
        A label isn't a class.
    """
    job = source.job
    if job.label is None or job.label.kind != "index":
        return {}
    found = label_range(source.files[0].footer, job.label.name) or label_indices(source)
    if not found:
        return {}
    low, high = found[0], found[-1]
    k, ignored = job.n_classes, job.options.ignore_index
    extra: dict[str, Any] = {}
    if low == -1 != ignored:
        extra["ignore_index"] = ignored = -1
    if high == k and low in {ignored, *range(1, k + 1)} and job.classes is None:
        extra["classes"] = tuple(map(str, range(1, k + 1)))
    elif high >= k and high != ignored:
        raise _no_class(source, high)
    if low < 0 and low != ignored:
        raise _no_class(source, low)
    return extra


def label_range(footer: Footer, name: str) -> tuple[int, int] | None:
    """Return the smallest and largest value of an integer column from its statistics; None if it has none."""
    leaves = [leaf for leaf in footer.leaves if leaf.name.split(".")[0] == name]
    if len(leaves) != 1 or leaves[0].element[TYPE].value not in INTEGERS:
        return None
    width, found = INTEGERS[leaves[0].element[TYPE].value], list[int]()
    # Not pyarrow's statistics: it aborts the process if those of a damaged file don't match its schema.
    with contextlib.suppress(FooterError, ThriftError):
        for group in range(footer.n_row_groups):
            metadata = footer.row_group(group).chunk(footer.leaves.index(leaves[0])).get(METADATA)
            statistics = metadata.value.get(STATISTICS) if metadata is not None else None
            for number in MIN_MAX:
                bound = statistics.value.get(number) if statistics is not None else None
                if bound is None or not isinstance(bound.value, bytes) or len(bound.value) != width:
                    return None
                found.append(int.from_bytes(bound.value, "little", signed=True))
        return (min(found), max(found)) if found else None
    return None


def _no_class(source: ParquetSource, label: int) -> UsageError:
    return UsageError(
        f"label {label} is not a class: valid labels are 0 to {source.job.n_classes - 1:,}",
        where=source.files[0].path,
        remedy=f"choose another label column: --label NAME; or ignore that label: --ignore-index {label}",
    )


def _free(name: str) -> str:
    """Return a file name that doesn't exist yet."""
    path, number = Path(name), 2
    while path.exists() or path.is_symlink():
        path, number = path.with_stem(f"{Path(name).stem}-{number}"), number + 1
    return str(path)
