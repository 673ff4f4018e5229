"""The statuses of rows, and which of them are bad. Knows neither Arrow nor NumPy."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """The status of a row, most severe first. If several apply, the row gets the smallest number."""

    NULL_LOGITS = 0
    BAD_LENGTH = 1
    NAN_LOGIT = 2
    INF_LOGIT = 3
    ALL_MASKED = 4
    NO_ANSWER = 5
    BAD_LABEL = 6
    IGNORED = 7
    UNLABELLED = 8
    MASKED_LABEL = 9
    OK = 10


STATUS_NAMES: tuple[str, ...] = tuple(status.name.lower() for status in Status)
"""The values of the ``status`` column, by number."""

# Plain numbers: NumPy compares an array of uint8 with them as it is. With a member of an enumeration, it converts the
# array to int64 first, which takes 20 times as long.

LAST_WITHOUT_PROBS = int(Status.NO_ANSWER)
"""Rows with a status up to this one have no probabilities."""

LAST_BAD = int(Status.BAD_LABEL)
"""Rows with a status up to this one are bad."""

LAST_WITHOUT_LOSS = int(Status.UNLABELLED)
"""Rows with a status up to this one have no loss."""
