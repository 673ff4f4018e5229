"""A progress callback that stores what a job reports."""

from __future__ import annotations

from batchmax.runtime.progress import Progress


class Recorder(Progress):
    """Stores the number of rows, and the texts of notes, details and warnings."""

    def __init__(self) -> None:
        self.rows = 0
        self.notes: list[str] = []
        self.details: list[str] = []
        self.warnings: list[str] = []

    def advance(self, rows: int, n_bytes: int) -> None:
        del n_bytes
        self.rows += rows

    def note(self, text: str) -> None:
        self.notes.append(text)

    def detail(self, text: str) -> None:
        self.details.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
