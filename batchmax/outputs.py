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

    ``kind`` is its shape and type: ``matrix`` is one number per class, ``float`` is at least float32. ``of`` is what it
    is computed of: any activation, one whose numbers sum to 1, or softmax alone.
    """

    kind: Kind
    needs_label: bool
    of: Literal["any", "distribution", "softmax"] = "any"


OUTPUTS: dict[str, Output] = {
    "probs": Output("matrix", False),
    "log_probs": Output("matrix", False, "distribution"),
    "loss": Output("float", True),
    "pred": Output("int32", False),
    "confidence": Output("float", False, "distribution"),
    "margin": Output("float", False, "distribution"),
    "entropy": Output("float", False, "distribution"),
    "logsumexp": Output("float", False, "softmax"),
    "rank": Output("int32", True),
    "correct": Output("bool", True),
    "el2n": Output("float", True, "distribution"),
    "sample": Output("int32", False, "distribution"),
    "status": Output("status", False),
}
"""What ``--outputs`` may name. Columns are written in the order they are asked for, not in this one."""

CLASS_OUTPUTS = ("pred", "sample")
"""Columns that hold a class: its name where the classes have names."""

TOP_K_OUTPUTS = ("top_k_classes", "top_k_probs")
"""The two columns ``--top-k`` adds."""

TOP_K_OF_TOKENS = ("top_k_classes", "top_k_log_probs", "tail_mass")
"""The three columns that it adds to sequences: ``tail_mass`` is the probability of all other classes."""

PLURALS: dict[str, str] = {
    "loss": "losses",
    "pred": "preds",
    "confidence": "confidences",
    "margin": "margins",
    "entropy": "entropies",
    "logsumexp": "logsumexps",
    "rank": "ranks",
    "correct": "corrects",
    "el2n": "el2ns",
    "sample": "samples",
    "status": "statuses",
}
"""What a column is called where a row holds a list of its values, one for each token."""


SCALARS = ("mean_loss", "sum_loss", "perplexity", "n_tokens")
"""The columns of a row of sequences as a whole, beside the losses of its tokens."""


def column_name(output: str, *, nested: bool) -> str:
    """Return what the column of an output is called, without a prefix; ``nested`` where rows are sequences."""
    return PLURALS.get(output, output) if nested else output


def top_k_outputs(top_k: int | None, *, nested: bool) -> tuple[str, ...]:
    """Return the columns that ``--top-k`` adds; none where it isn't given."""
    if not top_k:
        return ()
    return TOP_K_OF_TOKENS if nested else TOP_K_OUTPUTS


class Status(IntEnum):
    """What a row is, most severe first: where several hold, the smallest number wins."""

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
"""The text of the ``status`` column, by number."""

LAST_WITHOUT_PROBS = Status.NO_ANSWER
"""Rows up to this status have no probabilities."""

LAST_BAD = Status.BAD_LABEL
"""Rows up to this status are bad; those after it are not."""

LAST_WITHOUT_LOSS = Status.UNLABELLED
"""Rows up to this status have no loss."""
