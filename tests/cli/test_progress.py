"""Progress lines, notes and warnings while a job runs."""

from __future__ import annotations

import pytest

from batchmax.cli import progress as module
from batchmax.cli.progress import TerminalProgress


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that tests advance."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_plain_line_a_minute(capsys, clock):
    """Without a terminal, there is at most one line a minute, with rows, speed and time left."""
    with TerminalProgress() as progress:
        progress.start(1000, 4000)
        for _ in range(3):
            clock[0] += 25
            progress.advance(100, 2**20)
        clock[0] += 40
        progress.advance(100, 2**20)
        clock[0] += 30
        progress.advance(100, 2**20)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "batchmax: 300 of 1,000 rows (30%), 41 KiB/s, 2 min 55 s left",
        "batchmax: 500 of 1,000 rows (50%), 35.3 KiB/s, 2 min 25 s left",
    ]


def test_unknown_totals(capsys, clock):
    """Without totals, the line has the rows and the speed."""
    with TerminalProgress() as progress:
        progress.start(None, None)
        clock[0] += 60
        progress.advance(60, 0)
    assert capsys.readouterr().err == "batchmax: 60 rows, 0 B/s\n"


def test_quiet_says_nothing_but_warnings(capsys, clock):
    """``-q`` hides lines, notes and details, even with ``-v``, but no warnings."""
    with TerminalProgress(quiet=True, verbose=True) as progress:
        progress.start(10, 10)
        clock[0] += 1000
        progress.advance(1, 1)
        progress.warn("w")
        progress.note("n")
        progress.detail("d")
    assert capsys.readouterr() == ("", "batchmax: warning: w\n")


@pytest.mark.parametrize(
    ("verbose", "lines"),
    [
        (False, ["batchmax: warning: w\\x1b"]),
        (True, ["batchmax: warning: w\\x1b", "batchmax: note: n", "batchmax: d"]),
    ],
)
def test_warnings_always_notes_and_details_when_asked(capsys, verbose, lines):
    """Warnings are always printed, notes and details only with ``-v``.

    Each is printed once, on stderr, with control characters escaped.
    """
    with TerminalProgress(verbose=verbose) as progress:
        for _ in range(2):
            progress.warn("w\x1b")
            progress.note("n")
            progress.detail("d")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == lines


def test_a_closed_stderr_fails_no_job(monkeypatch):
    """A closed stderr doesn't stop the job."""
    lost = []

    class Gone:
        encoding = "utf-8"

        def write(self, text):
            lost.append(text)
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

        def isatty(self):
            return False

    monkeypatch.setattr("sys.stderr", Gone())
    with TerminalProgress() as progress:
        progress.start(1, 1)
        progress.warn("lost")
    assert "lost" in lost[-1]


def test_a_bar_on_a_terminal(monkeypatch):
    """In a terminal there is a bar with rows, speed and time left, warnings are printed above it, and it is erased."""
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with TerminalProgress() as progress:
        progress.start(1000, 4000)
        progress.advance(500, 2**30)
        progress.warn("look out")
    text = terminal.getvalue()
    assert "500 of 1,000 rows" in text
    assert "iB/s" in text
    assert "50%" in text
    assert "batchmax: \x1b[1;33mwarning:\x1b[0m look out" in text
    assert text.endswith("\x1b[2K")
