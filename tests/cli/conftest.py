"""Runs command lines in the process of the tests."""

from __future__ import annotations

import pytest

from batchmax.cli.app import main


@pytest.fixture
def run(capsys, monkeypatch):
    """Return a function that runs a command line and returns exit code, stdout and stderr.

    With ``columns``, the terminal has this width.
    """

    def run_words(*words, columns=None):
        if columns is not None:
            monkeypatch.setenv("COLUMNS", str(columns))
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run_words


@pytest.fixture
def failing(monkeypatch):
    """Return a function that makes ``score`` raise an exception."""

    def fail_with(error):
        def score(*_, **__):
            raise error

        monkeypatch.setattr("batchmax.jobs.score.score", score)

    return fail_with
