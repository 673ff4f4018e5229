"""Callbacks of a job: progress, notes and warnings."""

from __future__ import annotations


class Progress:
    """Progress callbacks. The methods of this class do nothing; subclasses override them."""

    def start(self, total_rows: int | None, total_bytes: int | None) -> None:
        """Report the size of the job; None if unknown."""

    def skip(self, rows: int) -> None:
        """Report the rows that an earlier run has completed."""

    def published(self) -> None:
        """Report that the output is published, so that nothing can fail anymore."""

    def advance(self, rows: int, n_bytes: int) -> None:
        """Report the rows and bytes that were completed since the last call."""

    def note(self, text: str) -> None:
        """Report a choice that the job made."""

    def assumed(self, text: str) -> None:
        """Report an assumption about the input that only the user can verify."""

    def detail(self, text: str) -> None:
        """Report a detail for verbose output."""

    def warn(self, text: str) -> None:
        """Report a problem that doesn't stop the job."""
