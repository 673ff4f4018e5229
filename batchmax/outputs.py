"""One table for every output column, and one for every row status.

The rest of the package asks these tables instead of knowing names: what type a column has, whether it
needs a label, which arithmetic it takes, and which statuses count as bad. Knows neither Arrow nor NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

Kind = Literal["matrix", "float", "int32", "bool", "status"]
Stage = Literal["core", "order", "moments"]


@dataclass(frozen=True)
class Output:
    """One output column.

    ``kind`` is its shape and type: ``matrix`` is one number per class, ``float`` is at least float32.
    ``stage`` is the pass over a row that computes it: ``core`` is the softmax itself, ``order`` compares
    logits with one another, ``moments`` sums over probabilities.
    """

    kind: Kind
    needs_label: bool
    stage: Stage
    meaning: str


OUTPUTS: dict[str, Output] = {
    "probs": Output("matrix", False, "core", "softmax of the logits"),
    "log_probs": Output("matrix", False, "core", "log-softmax of the logits"),
    "loss": Output("float", True, "core", "cross-entropy in nats"),
    "pred": Output("int32", False, "order", "class of the largest logit, ties to the lower index"),
    "confidence": Output("float", False, "core", "the largest probability"),
    "margin": Output("float", False, "order", "largest minus second largest probability"),
    "entropy": Output("float", False, "moments", "entropy of the probabilities in nats"),
    "logsumexp": Output("float", False, "core", "log of the sum of exp(logits / temperature)"),
    "rank": Output("int32", True, "order", "place of the label by logit, from 1, ties to the lower index"),
    "correct": Output("bool", True, "order", "whether the label is the predicted class"),
    "el2n": Output("float", True, "moments", "Euclidean norm of probs minus the one-hot label"),
    "status": Output("status", False, "core", "ok, or what is odd about the row"),
}
"""What ``--outputs`` may name, in the order in which the columns are written."""

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
