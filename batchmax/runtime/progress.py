"""Callbacks of a job: its progress, notes and warnings."""

from __future__ import annotations


class Progress:
    """Who is told how far a job is. This one does not listen."""

    def start(self, total_rows: int | None, total_bytes: int | None) -> None:
        """Say how much there is to do."""

    def skip(self, rows: int) -> None:
        """Say how much an earlier run has done."""

    def published(self) -> None:
        """Say that the output is in its place, and nothing can fail any more."""

    def advance(self, rows: int, n_bytes: int) -> None:
        """Say what was done since the last time."""

    def note(self, text: str) -> None:
        """Say what was chosen."""

    def assumed(self, text: str) -> None:
        """Say what was assumed about the input, which only the user can know."""

    def detail(self, text: str) -> None:
        """Say what only the curious want to know."""

    def warn(self, text: str) -> None:
        """Say what looks wrong."""
