"""Callbacks of a job: progress, notes and warnings."""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("batchmax")
# Without a handler, logging prints warnings to stderr.
LOGGER.addHandler(logging.NullHandler())


class Progress:
    """Callbacks of a job, for its progress, notes and warnings. Experimental: releases may add and change methods.

    Subclasses override what they need. By default, texts are logged by the logger ``batchmax``, and the callbacks with
    numbers do nothing. They may be called from any thread.

    Examples
    --------
    >>> import batchmax
    >>> class Counter(batchmax.Progress):
    ...     rows = 0
    ...
    ...     def advance(self, rows, n_bytes):
    ...         self.rows += rows
    >>> counter = Counter()
    >>> summary = batchmax.score("data/digits.parquet", "counted.parquet", progress=counter)
    >>> counter.rows
    899
    """

    def start(self, total_rows: int | None, total_bytes: int | None) -> None:
        """Report the size of the job; None if unknown."""

    def skip(self, rows: int) -> None:
        """Report the rows that an earlier run has completed."""

    def published(self) -> None:
        """Report that the output is published, so that nothing can fail anymore."""

    def advance(self, rows: int, n_bytes: int) -> None:
        """Report the rows and bytes that were completed since the last call."""

    def note(self, text: str) -> None:
        """Report a choice that the job made. The level of the log is INFO."""
        LOGGER.info("%s", text)

    def assumed(self, text: str) -> None:
        """Report an assumption about the input that only the user can verify. The level of the log is INFO."""
        LOGGER.info("%s", text)

    def detail(self, text: str) -> None:
        """Report a detail of the execution. The level of the log is DEBUG."""
        LOGGER.debug("%s", text)

    def warn(self, text: str) -> None:
        """Report a problem that doesn't stop the job. The level of the log is WARNING."""
        LOGGER.warning("%s", text)
