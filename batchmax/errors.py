"""The exceptions batchmax raises, and nothing else.

::

    BatchmaxError            failed: the output path is as it was            exit 1
    ├── UsageError           an option or a column that cannot be            exit 2
    │   └── InputTypeError   an input that is neither paths nor a table      exit 2
    ├── DataError            the data are not what they must be              exit 1
    │   ├── BadRowError      one row, under the policy ``error``             exit 1
    │   ├── SparseVectorError    a Spark vector of few values (`matrices`)   exit 1
    │   └── WrongRowError    a scored row that cannot be (`row_values`)      exit 1
    ├── OutputError          the output exists, is the input, cannot be      exit 1
    └── GateError            a ``--fail-if`` condition is true               exit 4

Every message says where, what, and what to do about it. The three parts are kept apart, so that a
terminal gets one line and a program gets three fields.
"""

from __future__ import annotations


class BatchmaxError(Exception):
    """Base of every error that batchmax raises on purpose.

    Parameters
    ----------
    what
        What is wrong, in a few words.
    where
        The file, row, column or option it is wrong in; empty when there is none.
    remedy
        What to do: something to run or to change; empty when nothing helps.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        """Return the one line that a person reads."""
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}; {self.remedy}" if self.remedy else line


class UsageError(BatchmaxError, ValueError):
    """An option or a column that cannot be."""

    exit_code = 2


class InputTypeError(UsageError, TypeError):
    """An input from Python that is neither paths nor a table."""


class DataError(BatchmaxError):
    """The input cannot be read, or does not hold what it must."""


class BadRowError(DataError):
    """A row without an answer, met under the policy ``error``."""


class OutputError(BatchmaxError):
    """The output cannot be written where it was asked for."""


class GateError(BatchmaxError):
    """A ``--fail-if`` condition is true; the finished output is held back."""

    exit_code = 4
