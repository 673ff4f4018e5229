"""The exceptions that batchmax raises.

::

    BatchmaxError            the job failed; the output path is unchanged          exit 1
    ├── UsageError           an invalid option or column                           exit 2
    │   └── InputTypeError   an input that is neither paths nor a table            exit 2
    ├── DataError            input data that can't be read or are invalid          exit 1
    │   ├── BadRowError      a bad row, under the policy ``error``                 exit 1
    │   ├── SparseVectorError    a sparse Spark vector (`matrices`)                exit 1
    │   └── WrongRowError    a wrong value in a scored row (`column_reader`)       exit 1
    ├── OutputError          the output exists, is an input, or can't be written   exit 1
    └── GateError            a ``--fail-if`` condition is true                     exit 4

Every message says where the error is, what is wrong and what to do about it. These are separate attributes: a terminal
shows them on one line, and a program reads each of them.
"""

from __future__ import annotations


class BatchmaxError(Exception):
    """Base class of all errors that batchmax raises on purpose.

    Parameters
    ----------
    what
        What is wrong, in a few words.
    where
        The file, row, column or option that is wrong; empty if there is none.
    remedy
        What to run or to change; empty if nothing helps.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        """Return the message on one line."""
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}; {self.remedy}" if self.remedy else line


class UsageError(BatchmaxError, ValueError):
    """An invalid option or column."""

    exit_code = 2


class InputTypeError(UsageError, TypeError):
    """A Python input that is neither paths nor a table."""


class DataError(BatchmaxError):
    """Input data that can't be read or are invalid."""


class BadRowError(DataError):
    """A bad row, under the policy ``error``."""


class OutputError(BatchmaxError):
    """An output that can't be written to its path."""


class GateError(BatchmaxError):
    """A ``--fail-if`` condition is true; the finished output is held."""

    exit_code = 4
