"""Choose a decision rule: thresholds, or the decisions with the least expected cost. Writes the decision file."""

from __future__ import annotations

import json
import math
import os
import time
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from batchmax.errors import BatchmaxError, DataError, UsageError
from batchmax.evaluation.class_metrics import ratio
from batchmax.evaluation.decisions.choice import NOTHING, Chooser
from batchmax.evaluation.decisions.costs import Costs, binary_costs
from batchmax.evaluation.decisions.decision_rows import DecisionInput, DecisionRows, in_groups
from batchmax.evaluation.decisions.result import NOT_IN_FILE, DecisionRule
from batchmax.evaluation.decisions.rules import (
    MAXIMIZED,
    OF_CLASSES,
    OF_POSITIVE,
    Constraint,
    Maximized,
    parse_constraint,
)
from batchmax.evaluation.decisions.score_counts import listed
from batchmax.evaluation.interval_sums import FEW_CLUSTERS
from batchmax.evaluation.intervals import FEWEST_GROUPS
from batchmax.options.decision_file import ABSTAIN
from batchmax.options.input_options import InputOptions
from batchmax.options.score_options import resolve_options
from batchmax.runtime.progress import Progress
from batchmax.runtime.text import quantity
from batchmax.sinks.text_file import TextFile


def decide(
    src: Any,
    out: str | os.PathLike[str] | None = None,
    options: InputOptions | None = None,
    *,
    maximize: Maximized | None = None,
    at: str | None = None,
    costs: str | os.PathLike[str] | None = None,
    confidence_level: float = 0.95,
    holdout: float = 0.5,
    seed: int = 0,
    positive: str | None = None,
    sample_weight: str | None = None,
    cluster: str | None = None,
    by: str | None = None,
    if_exists: Literal["error", "overwrite"] | None = None,
    progress: Progress | None = None,
    **given: Any,
) -> DecisionRule:
    """Choose a threshold, or another rule that makes decisions, on some rows, and measure it on others.

    Parameters
    ----------
    src
        One or several paths of files or folders, or globs; or an object with ``__arrow_c_stream__``.
    out
        Output file for the rule, as JSON. None writes no file.
    options, given
        How rows are read, as for :func:`batchmax.score`.
    maximize
        The metric to maximize: ``f1``, ``f0.5``, ``f2``, ``accuracy``, ``balanced_accuracy`` or ``mcc``.
    at
        The constraint to meet with confidence: ``precision>=0.95``, ``recall>=0.9``, ``fpr<=0.01`` or
        ``alert_rate<=0.01``; with more than two classes, ``accuracy>=0.98`` of the rows that are decided.
    costs
        A CSV file with the cost of each decision: a header ``true`` and the decisions, and a line for each class.
    confidence_level
        For ``at``: the probability that the constraint is met, at least.
    holdout
        Share of the rows to hold out, from 0 to below 1: a hash of the row number selects them. With 0, all rows are
        used for both.
    seed
        Random seed for selecting the held-out rows.
    positive
        The positive class of two, by name, or number if classes have no names. None: the second.
    sample_weight
        Column with a weight per row; not with ``at``.
    cluster
        Column of clusters of rows that depend on each other; whole clusters are held out.
    by
        Column of groups, each of which gets a rule of its own.
    if_exists
        What to do if ``out`` exists: ``error`` or ``overwrite``.
    progress
        Progress callbacks.

    Raises
    ------
    UsageError
        Invalid option or column, no labels, or costs that aren't valid.
    DataError
        Unreadable input, a bad row with the policy ``error``, no row to choose the rule on, more rows than fit in
        memory, or no threshold that meets the constraint.
    OutputError
        The file can't be written.

    Examples
    --------
    >>> import batchmax
    >>> rule = batchmax.decide("data/digits.parquet", "decision.json", at="accuracy>=0.95")
    >>> rule.held_out["accuracy"] > 0.95, rule.held_out["coverage"] > 0.9
    (True, True)
    """
    options = resolve_options(InputOptions, options, given)
    progress = progress or Progress()
    started = time.monotonic()
    constraint = _checked(maximize, at, costs, confidence_level, holdout, sample_weight)
    file = None if out is None else TextFile(out, (".json",), if_exists or "error", options.storage_options)
    data = DecisionInput(
        src,
        options,
        positive=positive,
        sample_weight=sample_weight,
        cluster=cluster,
        by=by,
        progress=progress,
    )
    files = [one.path for one in data.source.files]
    if file is not None:
        file.refuse_inputs(files)
    _check_task(data, maximize, constraint)
    read = None if costs is None else data.use_costs(costs)
    of_two = None
    if read is not None and data.positive is not None:
        of_two = binary_costs(read, data.class_names, data.positive)
    warnings: list[str] = []
    rows = data.read(holdout, seed, warnings)
    if not len(rows.held_out):
        raise DataError(
            "no row has a label and a loss", where=", ".join(files), remedy="give rows with logits and labels"
        )
    chooser = Chooser(
        maximize=maximize,
        constraint=constraint,
        costs=of_two,
        is_confidence=data.task == "multiclass",
        holds_out=holdout > 0,
        convert=data.logit_and_threshold,
    )
    rules = _Rules(data, chooser, read, warnings)
    members = rules.all(rows, by)
    job, model = data.job, data.job.options
    result = DecisionRule(
        task=data.task,
        rule=maximize or (constraint.text if constraint is not None else "costs"),
        n_classes=job.n_logits,
        classes=None if job.classes is None else list(job.classes),
        positive=None if data.positive is None else data.class_names[data.positive],
        activation=model.activation_name,
        input=model.input or "logits",
        temperature=1.0 / model.beta,
        beta=model.beta,
        scale=None if model.scale is None else list(model.scale),
        bias=None if model.bias is None else list(model.bias),
        **members,
        costs=None if read is None else read.as_dict(),
        by=by,
        holdout=holdout,
        seed=seed,
        n_rows=data.tally.rows,
        files=files,
        bad_rows=data.tally.bad_rows,
        notes=[*job.notes, *([] if holdout else [ALL_ROWS])],
    )
    if cluster is not None and constraint is not None:
        _check_clusters(len(np.unique(rows.hashes)), warnings)
    for warning in warnings:
        progress.warn(warning)
    result.warnings = [*data.source.warnings, *warnings]
    result.seconds = round(time.monotonic() - started, 3)
    if file is not None:
        text = {name: value for name, value in result.as_dict().items() if name not in NOT_IN_FILE}
        file.write(json.dumps(text, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return result


Array = NDArray[Any]

ALL_ROWS = "no rows were held out: the metrics are of the rows that the rule was chosen on"


class _Rules:
    """Chooses the rules of all rows, groups and labels."""

    def __init__(self, data: DecisionInput, chooser: Chooser, costs: Costs | None, warnings: list[str]) -> None:
        self._data, self._chooser, self._warnings = data, chooser, warnings
        self._costs = costs if data.task == "multiclass" else None
        self._n_rules, self._failed = 0, []  # type: tuple[int, list[tuple[str, float | None]]]

    def all(self, rows: DecisionRows, by: str | None) -> dict[str, Any]:
        """Return the members of the file with thresholds.

        Raises
        ------
        DataError
            No threshold meets the constraint, or there are no rows to choose a rule on.
        """
        if by is None:
            members: dict[str, Any] = self._of(rows, "")
        else:
            values = self._data.group_values
            groups = [
                {"by": value, **self._of(some, f"{by} {'null' if value is None else value}")}
                for value, some in zip(values, in_groups(rows, len(values)), strict=True)
            ]
            members = NOTHING | {"groups": groups}
        self._check_failures()
        return members

    def _of(self, rows: DecisionRows, where: str) -> dict[str, Any]:
        if self._costs is not None:
            return self._least_expected(rows)
        if self._data.task != "multilabel":
            return self._one(rows, where)
        found = []
        for at, name in enumerate(self._data.class_names):
            text = f"label {name}" if not where else f"{where}, label {name}"
            one = self._one(rows.of_label(at), text)
            listed_members = ("threshold", "logit", "constraint", "fitted", "held_out", "optimism")
            found.append({"class": name if self._data.job.classes else at} | {key: one[key] for key in listed_members})
        return NOTHING | {"thresholds": found}

    def _one(self, rows: DecisionRows, where: str) -> dict[str, Any]:
        choice = self._chooser.choose(rows)
        self._n_rules += 1
        constraint = self._chooser.constraint
        prefix = f"{where}: " if where else ""
        if not where and not choice.n_fitted:
            raise DataError("all rows are held out", remedy="give more rows, or a smaller share: --holdout 0.5")
        if not choice.n_held_out and constraint is None:
            self._warnings.append(f"{prefix}no rows are held out, so the rule isn't measured on other rows")
        if choice.failed and constraint is not None:
            self._failed.append((where, choice.bound))
            if constraint.metric == "recall":
                raise self._failure()
        elif not choice.has_both and constraint is None:
            self._warnings.append(f"{prefix}the rows that the rule was chosen on have only one class")
        return choice.members

    def _least_expected(self, rows: DecisionRows) -> dict[str, Any]:
        """Return the members of the rule of the least expected cost, which has no thresholds."""
        assert self._costs is not None  # noqa: S101 - the caller checks that
        named = {name for name in self._costs.decisions if name != ABSTAIN} <= set(self._data.class_names)
        parts = [rows.select(~rows.held_out), rows.select(rows.held_out)] if self._chooser.holds_out else [rows, rows]
        metrics = []
        for part in parts:
            n = len(part.held_out)
            weights = part.weights if len(part.weights) else np.ones(n)
            total, decided = _sum(weights), _sum(weights * part.decided)
            right = _sum(weights * part.right[:, 0] * part.decided) if named else None
            metrics.append(
                listed(
                    {
                        "n_rows": n,
                        "coverage": ratio(decided, total),
                        "accuracy": None if right is None else ratio(right, decided),
                        "mean_cost": ratio(_sum(weights * part.scores[:, 0]), total),
                    }
                )
            )
        fitted, held_out = metrics
        return NOTHING | {"fitted": fitted, "held_out": held_out}

    def _check_failures(self) -> None:
        if not self._failed:
            return
        if len(self._failed) == self._n_rules:
            raise self._failure()
        names = [name for name, _ in self._failed]
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
        what = "abstains from all rows of" if self._chooser.is_confidence else "has no positive rows for"
        self._warnings.append(f"no threshold meets the constraint with confidence, so the rule {what}: {shown}")

    def _failure(self) -> BatchmaxError:
        """Return the error that no threshold meets the constraint, with the best bound of all."""
        constraint = self._chooser.constraint
        assert constraint is not None  # noqa: S101 - only constraints fail
        kind = "lower" if constraint.is_lower else "upper"
        bounds = [bound for _, bound in self._failed if bound is not None]
        what = f"no threshold has {constraint.text} with a confidence of {constraint.level:g}"
        if bounds:
            best = max(bounds) if constraint.is_lower else min(bounds)
            what += f"; the best {kind} bound of {constraint.metric} on held-out rows is {best:.4g}"
        where = ", ".join(file.path for file in self._data.source.files)
        remedy = "give more rows, or another target or confidence level"
        if len(self._failed) < self._n_rules or len(self._failed) == 1:
            where = ": ".join(filter(None, (where, self._failed[-1][0])))
        return DataError(what, where=where, remedy=remedy)


def _sum(values: Array) -> float:
    """Return a sum that is rounded once, so that it has the same bits on every CPU."""
    return math.fsum(values.tolist())


def _checked(
    maximize: str | None,
    at: str | None,
    costs: Any,
    confidence_level: float,
    holdout: float,
    sample_weight: str | None,
) -> Constraint | None:
    """Check the options that don't depend on the input; return the constraint, if there is one."""
    given = [name for name, value in (("--maximize", maximize), ("--at", at), ("--costs", costs)) if value is not None]
    remedy = "give one of --maximize f1, --at 'precision>=0.95' and --costs FILE"
    if len(given) != 1:
        what = f"{' and '.join(given)} exclude each other" if given else "it isn't said what the rule is for"
        raise UsageError(what, where=given[0] if given else "--maximize", remedy=remedy)
    if maximize is not None and maximize not in MAXIMIZED:
        raise UsageError(f"unknown metric {maximize!r}", where="--maximize", remedy=f"choose {', '.join(MAXIMIZED)}")
    if not 0.0 <= holdout < 1.0:
        raise UsageError(f"{holdout:g} is out of range", where="--holdout", remedy="give a share from 0 to below 1")
    if at is None:
        return None
    constraint = parse_constraint(at, confidence_level)
    if holdout == 0.0:
        what = "a constraint is tested on rows that the candidates don't depend on, which have to be held out"
        raise UsageError(what, where="--holdout", remedy="leave it out, or use --maximize")
    if sample_weight is not None:
        what = "the tests of a constraint count rows, which have no weights"
        raise UsageError(what, where="--sample-weight", remedy="leave it out, or use --maximize")
    return constraint


def _check_task(data: DecisionInput, maximize: str | None, constraint: Constraint | None) -> None:
    """Check that the rule can be chosen for these rows."""
    n = data.job.n_classes
    if data.task == "multiclass" and maximize is not None:
        what = f"there are {quantity(n, 'class')}, and a threshold that maximizes {maximize} needs a positive one"
        raise UsageError(what, where="--maximize", remedy="use --at 'accuracy>=0.98' or --costs")
    model = data.job.options
    if model.input != "logits" and (model.beta, model.scale) != (1.0, None):
        what = "a calibration or temperature would change the probabilities of the rows"
        raise UsageError(what, where="--input", remedy="leave it out, or give rows of logits")
    if data.job.nesting is not None:
        what = "rows are sequences, and decisions are made for single rows"
        raise UsageError(what, where="--logits", remedy="name a column with one list of logits per row")
    if constraint is None:
        return
    is_several = data.task == "multiclass"
    if constraint.metric not in (OF_CLASSES if is_several else OF_POSITIVE):
        if is_several:
            what = f"there are {quantity(n, 'class')}, and {constraint.metric} is that of a positive one"
            raise UsageError(what, where="--at", remedy="use --at 'accuracy>=0.98', of the rows that are decided")
        what = f"{constraint.metric} has no threshold from which it is met"
        raise UsageError(what, where="--at", remedy=f"constrain one of {', '.join(OF_POSITIVE)}")


def _check_clusters(n_clusters: int, warnings: list[str]) -> None:
    """Warn if there are few clusters; under 10 in a part, no threshold passes."""
    if n_clusters < FEW_CLUSTERS:
        warnings.append(
            f"only {quantity(n_clusters, 'cluster')}: with fewer than {FEW_CLUSTERS}, the test of the constraint is "
            f"inaccurate, and none passes with fewer than {FEWEST_GROUPS} in a part"
        )
