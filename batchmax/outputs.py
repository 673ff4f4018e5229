"""The table of output columns: the type of each, and whether it needs a label. Knows neither Arrow nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["matrix", "float", "int32", "bool", "classes", "status"]

MOST_ULPS = 3.0
"""The largest error of an output, in units in the last place of its type."""

ROUGH_ULPS = 32.0
"""The largest error of outputs whose sums don't keep their rounding errors."""


@dataclass(frozen=True)
class Output:
    """An output column.

    Attributes
    ----------
    kind
        Its shape and type: ``matrix`` has one number per class, ``float`` is at least float32, ``classes`` is a list of
        classes.
    needs_label
        Whether it can be computed only with labels.
    of
        The activations it is defined for: any, those whose values sum to 1, only softmax, or those with independent
        classes.
    ulps
        The largest error, in units in the last place of its type.
    """

    kind: Kind
    needs_label: bool
    of: Literal["any", "distribution", "softmax", "independent"] = "any"
    ulps: float = MOST_ULPS


OUTPUTS: dict[str, Output] = {
    "probs": Output("matrix", False),
    "log_probs": Output("matrix", False, "distribution"),
    "loss": Output("float", True),
    "losses": Output("matrix", True, "independent"),
    "pred": Output("int32", False, "distribution"),
    "preds": Output("classes", False, "independent"),
    "confidence": Output("float", False, "distribution"),
    "margin": Output("float", False, "distribution", ROUGH_ULPS),
    "entropy": Output("float", False, "distribution", ROUGH_ULPS),
    "logsumexp": Output("float", False, "softmax"),
    "rank": Output("int32", True, "distribution"),
    "correct": Output("bool", True, "distribution"),
    "el2n": Output("float", True, "distribution", ROUGH_ULPS),
    "sample": Output("int32", False, "distribution"),
    "status": Output("status", False),
}
"""The names that ``--outputs`` accepts. Columns are written in the order of ``--outputs``, not in this one."""

CLASS_OUTPUTS = ("pred", "sample")
"""Columns that contain a class: its name if the classes have names, otherwise its index."""

FLOAT_OUTPUTS = frozenset(name for name, output in OUTPUTS.items() if output.kind == "float") | {"losses"}
"""Columns of numbers that are at least float32."""

TOP_K_OUTPUTS = ("top_k_classes", "top_k_probs")
"""The columns that ``--top-k`` adds."""

TOP_K_OF_TOKENS = ("top_k_classes", "top_k_log_probs", "tail_mass")
"""The columns that ``--top-k`` adds to sequences. ``tail_mass`` is the total probability of all other classes."""

DECISION_OUTPUTS = ("decision", "decisions", "decision_reason", "expected_cost")
"""The columns that ``--decision`` may add."""

PLURALS: dict[str, str] = {
    name: f"{name}s" for name, output in OUTPUTS.items() if output.kind not in {"matrix", "classes"}
}
PLURALS |= {"loss": "losses", "entropy": "entropies", "status": "statuses"}
"""The names of columns that contain a list of values per row, one for each token."""

SCALARS = ("mean_loss", "sum_loss", "perplexity", "n_tokens")
"""The columns with one value for a whole sequence."""


def singular(matrix: str) -> str:
    """Return the beginning of the names of the columns of a matrix that has one column per class, such as ``prob``."""
    return "loss" if matrix == "losses" else matrix.removesuffix("s")


def column_name(output: str, *, nested: bool) -> str:
    """Return the column name of an output, without a prefix; ``nested`` says whether rows are sequences."""
    return PLURALS.get(output, output) if nested else output


def top_k_outputs(top_k: int | None, *, nested: bool) -> tuple[str, ...]:
    """Return the columns that ``--top-k`` adds; none without this option."""
    if not top_k:
        return ()
    return TOP_K_OF_TOKENS if nested else TOP_K_OUTPUTS
