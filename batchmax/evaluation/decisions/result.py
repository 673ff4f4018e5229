"""The result of ``decide``, with the members of a decision file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from batchmax import __version__
from batchmax.results import CommandResult

NOT_IN_FILE = ("seconds", "warnings", "notes", "bad_rows")


@dataclass(kw_only=True)
class DecisionRule(CommandResult):
    """A rule that makes decisions from scores. A missing value is None; with ``by``, groups have the thresholds.

    Attributes
    ----------
    task
        ``binary``, ``multilabel`` or ``multiclass``.
    rule
        What the rule was chosen for: a metric, a constraint such as ``precision>=0.95``, or ``costs``.
    n_classes, classes, positive
        The number of logits of a row, the names of the classes, and the positive class of two.
    input
        What the rule was chosen on: ``logits``, ``probs`` or ``log_probs``.
    activation, temperature, beta, scale, bias
        How probabilities are computed, with the calibration that was applied; ``beta`` is 1 / ``temperature``.
    threshold, logit
        A row is positive if its probability is at least ``threshold``, which is the same as log-odds of at least
        ``logit``; None if no row is. With more than two classes: a row is decided if the log-odds of the predicted
        class are at least ``logit``; otherwise the rule abstains.
    logit_low, logit_high
        If the rule of two classes abstains: a row is negative below ``logit_low``, and positive from ``logit_high`` on
        (None: never); between them, the rule abstains.
    thresholds
        For multi-label rows, a dictionary per label: ``class``, ``threshold``, ``logit``, ``constraint``, ``fitted``,
        ``held_out`` and ``optimism``.
    costs
        ``decisions`` and ``matrix``: the cost of each decision for each true class. With more than two classes, the
        decision with the least expected cost is made.
    by, groups
        The column of groups, and a dictionary per group, with its value as ``by`` and its thresholds.
    constraint
        ``metric``, ``op``, ``target``, ``confidence_level`` and ``p_value``.
    fitted, held_out
        The metrics of the rows that the rule was chosen on, and of the others.
    optimism
        The maximized metric of the fitted rows, minus that of the held-out rows.
    n_rows, bad_rows
        Number of rows, and of bad rows.

    Examples
    --------
    >>> import batchmax
    >>> import pyarrow as pa
    >>> rows = pa.table({"logit": [-2.0, -1.0, 0.5, 3.0] * 50, "label": [0, 1, 0, 1] * 50})
    >>> rule = batchmax.decide(rows, maximize="f1")
    >>> rule.logit, round(rule.threshold, 3)
    (-1.0, 0.269)
    """

    SHOWN = ("task", "rule", "threshold", "logit", "logit_low", "logit_high", "optimism")

    task: str = "binary"
    rule: str = ""
    n_classes: int = 0
    classes: list[str] | None = None
    positive: str | None = None
    input: str = "logits"
    activation: str = "softmax"
    temperature: float = 1.0
    beta: float = 1.0
    scale: list[float] | None = None
    bias: list[float] | None = None
    threshold: float | None = None
    logit: float | None = None
    logit_low: float | None = None
    logit_high: float | None = None
    thresholds: list[dict[str, Any]] = field(default_factory=list)
    costs: dict[str, Any] | None = None
    by: str | None = None
    groups: list[dict[str, Any]] = field(default_factory=list)
    constraint: dict[str, Any] | None = None
    fitted: dict[str, Any] | None = None
    held_out: dict[str, Any] | None = None
    optimism: float | None = None
    holdout: float = 0.5
    seed: int = 0
    n_rows: int = 0
    files: list[str] = field(default_factory=list)
    version: str = __version__
    bad_rows: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
