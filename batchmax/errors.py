"""The exceptions that batchmax raises.

::

    BatchmaxError            the job failed; the output path is unchanged          exit 1
    ├── UsageError           an invalid option or column                           exit 2
    │   └── InputTypeError   an input that is neither paths nor a table            exit 2
    ├── DataError            input data that can't be read or is invalid           exit 1
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
    column
        The column that is wrong, if a job that doesn't need it can leave it out; empty if there is none.

    Examples
    --------
    >>> import batchmax
    >>> try:
    ...     batchmax.evaluate("missing.parquet")
    ... except batchmax.BatchmaxError as error:
    ...     print(error.where)
    missing.parquet
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "", column: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy
        self.column = column

    def __str__(self) -> str:
        """Return the message on one line."""
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}; {self.remedy}" if self.remedy else line


class UsageError(BatchmaxError, ValueError):
    """An invalid option or column.

    Examples
    --------
    >>> import batchmax
    >>> batchmax.score_options(top_k=0)
    Traceback (most recent call last):
        ...
    batchmax.errors.UsageError: --top-k: ...
    """

    exit_code = 2


class InputTypeError(UsageError, TypeError):
    """A Python input that is neither paths nor a table.

    Examples
    --------
    >>> import batchmax
    >>> batchmax.evaluate(5)
    Traceback (most recent call last):
        ...
    batchmax.errors.InputTypeError: ...
    """


class DataError(BatchmaxError):
    """Input data that can't be read or is invalid.

    Examples
    --------
    >>> import batchmax
    >>> batchmax.evaluate("missing.parquet")
    Traceback (most recent call last):
        ...
    batchmax.errors.DataError: missing.parquet: ...
    """


class BadRowError(DataError):
    """A bad row, under the policy ``error``.

    Examples
    --------
    >>> import batchmax
    >>> import pyarrow as pa
    >>> batchmax.score_batch(pa.record_batch({"logits": [[1.0, float("nan")]]}))
    Traceback (most recent call last):
        ...
    batchmax.errors.BadRowError: row 0 ...
    """


class OutputError(BatchmaxError):
    """An output that can't be written to its path.

    Examples
    --------
    >>> import batchmax
    >>> for _ in range(2):
    ...     summary = batchmax.score("data/digits.parquet", "scored.parquet")
    Traceback (most recent call last):
        ...
    batchmax.errors.OutputError: scored.parquet: ...
    """


class GateError(BatchmaxError):
    """A ``--fail-if`` condition is true; a finished output of ``score`` is held.

    Examples
    --------
    >>> import batchmax
    >>> batchmax.evaluate("data/digits.parquet", fail_if="accuracy < 0.99")
    Traceback (most recent call last):
        ...
    batchmax.errors.GateError: data/digits.parquet: ...
    """

    exit_code = 4
