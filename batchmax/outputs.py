"""One table for every output column, and one for every row status.

The rest of the package asks these tables instead of knowing names: what type a column has, whether it
needs a label, and which statuses count as bad. Knows neither Arrow nor NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

Kind = Literal["matrix", "float", "int32", "bool", "status"]


@dataclass(frozen=True)
class Output:
    """One output column.

    ``kind`` is its shape and type: ``matrix`` is one number per class, ``float`` is at least float32.
    """

    kind: Kind
    needs_label: bool


OUTPUTS: dict[str, Output] = {
    "probs": Output("matrix", False),
    "log_probs": Output("matrix", False),
    "loss": Output("float", True),
    "pred": Output("int32", False),
    "confidence": Output("float", False),
    "margin": Output("float", False),
    "entropy": Output("float", False),
    "logsumexp": Output("float", False),
    "rank": Output("int32", True),
    "correct": Output("bool", True),
    "el2n": Output("float", True),
    "sample": Output("int32", False),
    "status": Output("status", False),
}
"""What ``--outputs`` may name. Columns are written in the order they are asked for, not in this one."""

CLASS_OUTPUTS = ("pred", "sample")
"""Columns that hold a class: its name where the classes have names."""

TOP_K_OUTPUTS = ("top_k_classes", "top_k_probs")
"""The two columns ``--top-k`` adds."""


class Status(IntEnum):
    """What a row is, most severe first: where several hold, the smallest number wins."""

    NULL_LOGITS = 0
    BAD_LENGTH = 1
    NAN_LOGIT = 2
    INF_LOGIT = 3
    ALL_MASKED = 4
    BAD_LABEL = 5
    IGNORED = 6
    UNLABELLED = 7
    MASKED_LABEL = 8
    OK = 9


STATUS_NAMES: tuple[str, ...] = tuple(status.name.lower() for status in Status)
"""The text of the ``status`` column, by number."""

LAST_WITHOUT_PROBS = Status.ALL_MASKED
"""Rows up to this status have no probabilities."""

LAST_BAD = Status.BAD_LABEL
"""Rows up to this status are bad; those after it are not."""

LAST_WITHOUT_LOSS = Status.UNLABELLED
"""Rows up to this status have no loss."""
