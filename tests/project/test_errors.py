"""Tests the exceptions: their messages, base classes and exit codes."""

from __future__ import annotations

import pytest

from batchmax import errors
from batchmax.errors import BadRowError, BatchmaxError, DataError, GateError, InputTypeError, OutputError, UsageError


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({}, "what"),
        ({"where": "x.parquet"}, "x.parquet: what"),
        ({"remedy": "run y"}, "what; run y"),
        ({"where": "x.parquet", "remedy": "run y"}, "x.parquet: what; run y"),
    ],
)
def test_the_line_is_where_what_and_remedy(parts, line):
    """A message joins its parts without punctuation for missing ones, and each part is an attribute."""
    error = BatchmaxError("what", **parts)
    assert str(error) == line
    assert (error.what, error.where, error.remedy) == ("what", parts.get("where", ""), parts.get("remedy", ""))


@pytest.mark.parametrize(
    ("kind", "code", "base"),
    [
        (BatchmaxError, 1, Exception),
        (UsageError, 2, ValueError),
        (InputTypeError, 2, UsageError),
        (InputTypeError, 2, TypeError),
        (DataError, 1, BatchmaxError),
        (BadRowError, 1, DataError),
        (OutputError, 1, BatchmaxError),
        (GateError, 4, BatchmaxError),
    ],
)
def test_each_error_has_its_exit_code_and_base(kind, code, base):
    """Each exception has its documented exit code and base classes; a usage error is also a ValueError."""
    assert kind.exit_code == code
    assert issubclass(kind, base)
    assert issubclass(kind, BatchmaxError)


def test_the_drawn_tree_is_whole():
    """Every exception of the module is in the tree of the module docstring, with its exit code."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BatchmaxError)]
    assert len(kinds) == 7
    for kind in kinds:
        (line,) = [line for line in (errors.__doc__ or "").splitlines() if f"{kind.__name__} " in line]
        assert line.endswith(f"exit {kind.exit_code}")
