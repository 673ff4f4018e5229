"""Decision files, written by ``decide`` and read by ``score --decision``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from batchmax.activations import WITH_CALIBRATION, ActivationName
from batchmax.errors import UsageError
from batchmax.options.input_options import InputKind
from batchmax.options.parsing import read_json
from batchmax.storage.json_fields import JsonError, is_number, json_list, json_object, json_objects, parse_json

Task = Literal["binary", "multilabel", "multiclass"]

ABSTAIN = "abstain"
"""The decision to make none, in the file of costs."""

NUMBER = float | int | None
OF_GROUP = {"logit": NUMBER, "logit_low": NUMBER, "logit_high": NUMBER, "thresholds": list}
"""Members with thresholds, of the file or of one of its groups, with their types."""
MEMBERS = {
    "task": str,
    "n_classes": int,
    "classes": list | None,
    "positive": str | None,
    "input": str,
    "activation": str,
    "beta": float | int,
    "scale": list | None,
    "bias": list | None,
    **OF_GROUP,
    "costs": dict | None,
    "by": str | None,
    "groups": list,
}
"""Members of a decision file that rows are decided by, with their types."""


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of a rule, for all rows or for those of a group; None is never reached.

    Attributes
    ----------
    logit
        The smallest log-odds of positive rows; with more than two classes, of rows that are decided.
    logit_low
        The smallest log-odds of rows from which a rule of two classes abstains; None if it never abstains.
    logits
        For multi-label rows, the smallest log-odds of each label.
    """

    logit: float | None
    logit_low: float | None
    logits: tuple[float | None, ...]


@dataclass(frozen=True)
class AppliedRule:
    """A decision rule that is applied to rows.

    Attributes
    ----------
    task
        ``binary``, ``multilabel`` or ``multiclass``.
    n_classes, classes, positive
        The number of logits of a row, the names of the classes or None, and the number of the positive class or None.
    input
        What the rule was chosen on: logits, to which ``beta``, ``scale`` and ``bias`` apply, or probabilities.
    activation
        The activation that the rule is for.
    by, groups
        The column of groups and their values, or None and no values.
    thresholds
        Those of each group; without groups, those of all rows.
    decisions, costs
        The names of decisions, and their costs for each class; both are empty without costs.
    """

    task: Task
    n_classes: int
    classes: tuple[str, ...] | None
    positive: int | None
    input: InputKind
    activation: ActivationName
    beta: float
    scale: tuple[float, ...] | None
    bias: tuple[float, ...] | None
    by: str | None
    groups: tuple[Any, ...]
    thresholds: tuple[Thresholds, ...]
    decisions: tuple[str, ...]
    costs: tuple[tuple[float, ...], ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The columns that the rule adds."""
        decision = "decisions" if self.task == "multilabel" else "decision"
        return (decision, "decision_reason", *(("expected_cost",) if self.decisions else ()))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes that the rule was chosen with, or their numbers as text."""
        return self.classes or tuple(map(str, range(max(self.n_classes, 2))))

    @property
    def other_decisions(self) -> tuple[str, ...] | None:
        """The names of the decisions, if one of them is neither a class nor to abstain; otherwise None."""
        return None if {*self.decisions} <= {*self.class_names, ABSTAIN} else self.decisions


def read_rule(path: str | os.PathLike[str], storage: Sequence[str] = ()) -> str:
    """Return the members of a decision file that rows are decided by, as JSON without spaces.

    ``storage`` has the options of the path's file system.

    Raises
    ------
    UsageError
        The file doesn't exist, is damaged, or isn't a decision file that can be applied.
    """
    remedy = "create it: batchmax decide INPUT -o FILE"
    return read_json(path, "--decision", storage, _rule_text, kind="a decision file", remedy=remedy)


@lru_cache(maxsize=8)
def parse_rule(text: str) -> AppliedRule:
    """Return the rule that :func:`read_rule` read.

    Raises
    ------
    UsageError
        The text isn't such a rule.
    """
    try:
        return _parsed(json_object(parse_json(text), MEMBERS))
    except JsonError as error:
        raise UsageError(f"the rule is invalid: {error}", where="--decision", remedy="read it from a file") from error


def _rule_text(value: Any) -> str:
    members = json_object(value, MEMBERS)
    kept = {one: members[one] for one in MEMBERS}
    kept["groups"] = [
        {one: group[one] for one in ("by", *OF_GROUP)}
        for group in json_objects(members["groups"], OF_GROUP | {"by": object})
    ]
    for one in (kept, *kept["groups"]):
        one["thresholds"] = [{"logit": of["logit"]} for of in json_objects(one["thresholds"], {"logit": NUMBER})]
    _parsed(kept)
    try:
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise JsonError(str(error)) from error


def _parsed(members: Mapping[str, Any]) -> AppliedRule:
    task, n_classes, scale, bias = (members[name] for name in ("task", "n_classes", "scale", "bias"))
    if task not in {"binary", "multilabel", "multiclass"}:
        raise JsonError("task is not binary, multilabel or multiclass")
    if isinstance(n_classes, bool) or n_classes < 1:
        raise JsonError("n_classes is not a positive integer")
    if members["activation"] not in WITH_CALIBRATION:
        raise JsonError(f"activation is not {' or '.join(WITH_CALIBRATION)}")
    if members["input"] not in {"logits", "probs", "log_probs"}:
        raise JsonError("input is not logits, probs or log_probs")
    if not is_number(members["beta"]) or members["beta"] <= 0:
        raise JsonError("beta is not a number above 0")
    width = max(n_classes, 2)
    classes = None if members["classes"] is None else tuple(json_list(members["classes"], str))
    if classes is not None and len(classes) != width:
        raise JsonError("classes is not a list of n_classes names")
    if (scale is None) != (bias is None):
        raise JsonError("scale and bias are not both given")
    for name in ("scale", "bias"):
        if members[name] is not None and not (len(members[name]) == n_classes and all(map(is_number, members[name]))):
            raise JsonError(f"{name} is not a list of n_classes numbers")
    groups = json_objects(members["groups"], OF_GROUP | {"by": object})
    if (members["by"] is None) != (not groups):
        raise JsonError("by and groups are not both given")
    values = tuple(one["by"] for one in groups)
    if any(isinstance(one, list | dict) for one in values) or len(set(values)) < len(values):
        raise JsonError("groups do not have one value each")
    decisions, costs = _costs(members["costs"], width)
    return AppliedRule(
        task=task,
        n_classes=n_classes,
        classes=classes,
        positive=_positive(members["positive"], classes, width) if task == "binary" else None,
        input=members["input"],
        activation=members["activation"],
        beta=float(members["beta"]),
        scale=None if scale is None else tuple(map(float, scale)),
        bias=None if bias is None else tuple(map(float, bias)),
        by=members["by"],
        groups=values,
        thresholds=tuple(_thresholds(one, task, n_classes) for one in groups or (members,)),
        decisions=decisions,
        costs=costs,
    )


def _thresholds(members: Mapping[str, Any], task: str, n_classes: int) -> Thresholds:
    labels = json_objects(members["thresholds"], {"logit": NUMBER})
    logits = tuple(one["logit"] for one in labels)
    if len(logits) != (n_classes if task == "multilabel" else 0):
        raise JsonError("thresholds does not have one per label")
    low = members["logit_low"]
    logit = members["logit"] if low is None else members["logit_high"]
    if not all(one is None or is_number(one) for one in (*logits, logit, low)):
        raise JsonError("a threshold is not a number")
    return Thresholds(logit, low, logits)


def _positive(name: str | None, classes: tuple[str, ...] | None, width: int) -> int:
    of_classes = tuple(map(str, range(width))) if classes is None else classes
    if width != 2 or name not in of_classes:
        raise JsonError("positive is not one of two classes")
    return of_classes.index(name)


def _costs(costs: Mapping[str, Any] | None, width: int) -> tuple[tuple[str, ...], tuple[tuple[float, ...], ...]]:
    if costs is None:
        return (), ()
    costs = json_object(costs, {"decisions": list, "matrix": list})
    decisions = tuple(json_list(costs["decisions"], str))
    rows = costs["matrix"]
    is_matrix = len(rows) == width and all(isinstance(row, list) and len(row) == len(decisions) for row in rows)
    if len(decisions) < 2 or not is_matrix or not all(is_number(one) for row in rows for one in row):
        raise JsonError("costs do not have a number for each class and decision")
    return decisions, tuple(tuple(map(float, row)) for row in rows)
