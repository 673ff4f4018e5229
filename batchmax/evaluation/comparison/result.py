"""The result of a comparison: metrics of two inputs and of the changes between them, for programs and gates.

Knows the sums over pairs; doesn't know how rows were read or paired.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from batchmax.errors import GateError
from batchmax.evaluation.class_metrics import nested
from batchmax.evaluation.comparison.change_sums import CHANGED
from batchmax.evaluation.comparison.changes import FIELDS, adjust, changes_of
from batchmax.evaluation.comparison.label_change_sums import LABEL_CHANGED
from batchmax.evaluation.comparison.pair_metrics import PairMetrics
from batchmax.evaluation.comparison.pair_sums import PairSums
from batchmax.evaluation.comparison.paired_tests import mcnemar
from batchmax.evaluation.comparison.token_pairing import SequencePairs
from batchmax.evaluation.interval_sums import FEW_CLUSTERS, few_clusters
from batchmax.evaluation.intervals import FEWEST_GROUPS
from batchmax.options.gates import NO_LABELS, Figure, Gate, figure, infinite_losses
from batchmax.results import CommandResult
from batchmax.runtime.text import quantity

OF_TOKENS = ("tokens_only_a", "tokens_only_b")
"""Metrics that exist only for sequences."""


@dataclass(kw_only=True)
class Comparison(CommandResult):
    """The result of a comparison of b with a. A value that is missing or not finite is None.

    Attributes
    ----------
    files_a, files_b, key
        The inputs, and the column that paired the rows; None if rows were paired by position.
    unified_a, unified_b
        The columns that differ between the files of an input, as in the summary of ``score``.
    n_rows, only_a, only_b, bad_rows
        Number of pairs, of rows without a partner, and of pairs with a bad row in either input, which are left out. In
        sequences, good tokens count even if another token of their row is bad.
    task
        ``binary``, ``multiclass`` or ``multilabel``.
    n_compared, n_judged
        Number of pairs of rows (or tokens of sequences) without a bad one, and of pairs with a loss in both inputs.
        Agreement and divergence are computed over the former, losses and accuracy over the latter.
    tokens_only_a, tokens_only_b
        For sequences: the number of tokens by which one sequence of a pair is longer than the other; otherwise None.
    mean_loss_a, mean_loss_b, mean_loss_change
        Plain cross-entropy in nats; the change is b minus a.
    mean_loss_change_low, mean_loss_change_high, interval
        The bounds of the confidence interval of the change, as in ``changes``, and how they are computed.
    infinite_losses_a, infinite_losses_b
        Number of losses of +inf. If there is one, the mean is None.
    accuracy_a, accuracy_b, right_to_wrong, wrong_to_right, mcnemar_p, mcnemar_method
        Accuracy of both, how many correct predictions became wrong and vice versa, and the p-value of the hypothesis
        that both changes are equally likely, with its method.
    confidence_level, n_clusters
        The confidence level of ``changes``, None without them, and the number of clusters or sequences that have pairs
        with a loss, None if rows are independent.
    changes
        By metric, as named by :func:`batchmax.evaluate`, a dictionary: ``a`` and ``b``, the metric over the pairs with
        a loss; ``change``, b minus a, with the bounds ``lower`` and ``upper`` of its interval; ``p_value`` of the
        hypothesis that there is no change; ``p_adjusted``, only in ``groups`` and ``per_class``; ``mde``, the smallest
        change that 80 % of such comparisons would detect at 5 %, 2.8 standard errors. ``macro``, ``micro`` and
        ``weighted`` have a dictionary of metrics each. Of multi-label rows, so has ``samples``, and ``per_class`` is a
        list of the changes of each ``class``, where ``p_adjusted`` is the p-value adjusted by Holm's method over the
        classes.
    by, groups
        The column that groups pairs, and for each of its values, the largest group first: the value ``by``, the number
        ``n_rows`` of pairs with a loss, ``n_clusters``, and ``changes``, where ``p_adjusted`` is the p-value adjusted
        by Holm's method over the groups.
    agreement
        Share of pairs with the same prediction; of multi-label rows, with the same set of predicted classes.
    mean_kl, infinite_kl
        Mean of KL(a || b) in nats over the pairs where it is finite, and the number of pairs where it is infinite
        because b masks a class that a doesn't; of multi-label rows, the divergence is the sum over the classes. A
        condition on the mean is true if there is an infinite one.
    moved_by, moved
        The rows with the largest change, the largest first, and the measure: ``loss``, the absolute change of the loss,
        or ``kl`` if there are no labels. Labels and predictions of multi-label rows are lists. Row
        numbers count within a file. Infinite numbers are null in JSON.

    Examples
    --------
    >>> import batchmax
    >>> import pyarrow as pa
    >>> a = pa.table({"logits": [[2.0, 0.0], [0.0, 1.0]], "label": [0, 0]})
    >>> b = pa.table({"logits": [[2.0, 0.0], [1.0, 0.0]]})
    >>> result = batchmax.compare(a, b)
    >>> result.agreement, [row["row"] for row in result.moved]
    (0.5, [1])
    """

    SHOWN = ("n_rows", "mean_loss_a", "mean_loss_b", "mean_loss_change", "accuracy_a", "accuracy_b", "mean_kl")

    files_a: list[str] = field(default_factory=list)
    files_b: list[str] = field(default_factory=list)
    unified_a: list[dict[str, Any]] = field(default_factory=list)
    unified_b: list[dict[str, Any]] = field(default_factory=list)
    key: str | None = None
    n_rows: int = 0
    only_a: int = 0
    only_b: int = 0
    bad_rows: int = 0
    n_compared: int = 0
    n_judged: int = 0
    tokens_only_a: int | None = None
    tokens_only_b: int | None = None
    n_classes: int = 0
    task: str = "multiclass"
    mean_loss_a: float | None = None
    mean_loss_b: float | None = None
    mean_loss_change: float | None = None
    mean_loss_change_low: float | None = None
    mean_loss_change_high: float | None = None
    interval: str | None = None
    infinite_losses_a: int | None = None
    infinite_losses_b: int | None = None
    accuracy_a: float | None = None
    accuracy_b: float | None = None
    right_to_wrong: int | None = None
    wrong_to_right: int | None = None
    mcnemar_p: float | None = None
    mcnemar_method: str | None = None
    confidence_level: float | None = None
    n_clusters: int | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    by: str | None = None
    groups: list[dict[str, Any]] = field(default_factory=list)
    agreement: float | None = None
    mean_kl: float | None = None
    infinite_kl: int = 0
    moved_by: Literal["loss", "kl"] = "loss"
    moved: list[dict[str, Any]] = field(default_factory=list)
    bytes_read: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    version: str = ""

    def add_changes(self, sums: PairSums, level: float, names: Sequence[str] | None) -> None:
        """Set the changes of metrics; before :meth:`count`. ``names`` are those of the classes, or None."""
        everything, values = sums.all, sums.groups.values
        has_clusters, self.confidence_level, self.by = everything.has_clusters, level, sums.groups.by
        of_groups = [
            (value, one, changes_of(one, level))
            for value, one in zip(values, sums.of_values, strict=False)
            if one.n_pairs
        ]
        of_groups.sort(key=lambda group: -group[1].n_pairs)
        adjust([changes for *_, changes in of_groups])
        self.changes = nested(changes_of(everything, level))
        of_classes = [changes_of(one, level) for one in everything.of_classes]
        adjust(of_classes)
        if of_classes:
            found = enumerate(of_classes)
            self.changes["per_class"] = [{"class": at if names is None else names[at], **one} for at, one in found]
        self.groups = [
            {
                "by": value,
                "n_rows": one.n_pairs,
                "n_clusters": one.jackknife.n_clusters if has_clusters else None,
                "changes": nested(changes),
            }
            for value, one, changes in of_groups
        ]
        method = "jackknife of clusters" if has_clusters else "paired t-test"
        self.interval = f"{100 * level:g} %, {method}"
        if has_clusters:
            self.n_clusters = everything.jackknife.n_clusters
            self.warnings += few_clusters(self.n_clusters, of_sequences=sums.groups.cluster is None)
            few = sum(FEWEST_GROUPS <= group["n_clusters"] < FEW_CLUSTERS for group in self.groups)
            if few:
                have = quantity(few, "group has", "groups have")
                self.warnings.append(
                    f"{have} fewer than {FEW_CLUSTERS} clusters, so that intervals and p-values may be too small"
                )

    def count(self, pairs: PairMetrics) -> None:
        """Set the metrics from the sums over pairs."""
        self.n_rows, self.bad_rows, self.n_judged = pairs.pairs, pairs.bad, pairs.counted
        compared = self.n_compared = pairs.pairs - pairs.bad
        self.infinite_kl = int(pairs.divergence[2])
        if compared:
            self.agreement = pairs.agreed / compared
        if compared > self.infinite_kl:
            total = float(pairs.divergence[0] + pairs.divergence[1])
            self.mean_kl = _finite(total / (compared - self.infinite_kl))
        self.warnings += pairs.warnings()
        self.moved_by = "loss" if pairs.has_labels else "kl"
        if pairs.has_labels:
            self._count_losses(pairs)
        if pairs.has_classes and pairs.counted:
            self.accuracy_a, self.accuracy_b = (hits / pairs.counted for hits in pairs.hits)
            self.right_to_wrong, self.wrong_to_right = pairs.right_to_wrong, pairs.wrong_to_right
            self.mcnemar_p, self.mcnemar_method = mcnemar(pairs.right_to_wrong, pairs.wrong_to_right)
        if self.infinite_kl:
            self.warnings.append(
                f"{self._infinite('KL divergence')}: b masks a class that a does not; the mean is over the other pairs"
            )

    def count_sequences(self, pairs: SequencePairs) -> None:
        """Set the metrics of sequences, if the pairs are of tokens."""
        self.n_rows, self.bad_rows = len(pairs.is_bad), int(np.count_nonzero(pairs.is_bad))
        more = np.where(pairs.is_uneven, pairs.lengths[0] - pairs.lengths[1], 0)
        self.tokens_only_a, self.tokens_only_b = int(more[more > 0].sum()), int(-more[more < 0].sum())

    def _count_losses(self, pairs: PairMetrics) -> None:
        self.infinite_losses_a, self.infinite_losses_b = (int(sums[2]) for sums in pairs.losses)
        means = [
            float(sums[0] + sums[1]) / pairs.counted if pairs.counted and not sums[2] else None for sums in pairs.losses
        ]
        self.mean_loss_a, self.mean_loss_b = means
        if means[0] is not None and means[1] is not None:
            self.mean_loss_change = means[1] - means[0]
        if change := self.changes.get("mean_loss"):
            # These sums are compensated.
            change["a"], change["b"] = means
            self.mean_loss_change = change["change"]
            self.mean_loss_change_low, self.mean_loss_change_high = change["lower"], change["upper"]
        for name, infinite in (("a", self.infinite_losses_a), ("b", self.infinite_losses_b)):
            if infinite:
                rows = infinite_losses(infinite, "token" if pairs.of_tokens else "row")
                self.warnings.append(f"{rows} in {name}; the mean loss is not defined")

    def change(self, name: str) -> dict[str, Any] | None:
        """Return the change of a metric, such as ``macro.f1``; None if there is none."""
        return change_in(self.changes, name)

    def check(self, gate: Gate) -> None:
        """Raise if a condition is true.

        Raises
        ------
        GateError
            The condition is true; the error names its metrics.
        """
        if reason := gate.failure(self.metrics()):
            words = [(self.files_a or ["A"])[0], (self.files_b or ["B"])[0]]
            words += [] if self.key is None else ["--key", self.key]
            raise GateError(
                reason,
                where=(self.files_b or ["the stream"])[0],
                remedy=f"to see the rows: batchmax compare {shlex.join(words)} --worst 20",
            )

    def metrics(self) -> dict[str, Figure]:
        """Return the metrics that a condition can name."""
        no_pairs = "" if self.n_rows else "there are no pairs of rows"
        all_bad = "the only pair has a bad row" if self.n_rows == 1 else f"all {self.n_rows:,} pairs have a bad row"
        if self.tokens_only_a is not None:
            all_bad = "all pairs of tokens have a bad one" if self.bad_rows else "there are no pairs of tokens"
        not_compared = no_pairs or ("" if self.n_compared else all_bad)
        no_loss = "" if self.n_judged else not_compared or "no pair has a loss in both inputs"
        if self.infinite_losses_a is None:
            no_loss = NO_LABELS
        no_classes = "labels are distributions, which have no class" if self.accuracy_a is None else ""
        if self.task == "multilabel":
            no_classes = "the rows are multi-label: see changes.subset_accuracy"
        infinite_a, infinite_b = (
            f"{side} has {quantity(count, 'infinite loss')}" if count else ""
            for side, count in (("a", self.infinite_losses_a), ("b", self.infinite_losses_b))
        )
        has_bounds = self.mean_loss_change_low is not None
        too_few = "" if has_bounds else f"an interval needs at least {FEWEST_GROUPS} clusters"
        one_pair = "an interval needs at least two pairs" if self.n_judged < 2 else ""
        no_changes = "" if self.changes else "--confidence-level 0 computes no changes"
        no_kl = self._infinite("divergence") if self.infinite_kl else ""
        reasons = {
            ("only_a",): ("" if self.n_rows + self.only_a else "a has no rows",),
            ("only_b",): ("" if self.n_rows + self.only_b else "b has no rows",),
            ("bad_rows", *OF_TOKENS): (no_pairs,),
            ("mean_loss_a",): (no_loss, infinite_a),
            ("mean_loss_b",): (no_loss, infinite_b),
            ("mean_loss_change",): (no_loss, infinite_a, infinite_b),
            ("mean_loss_change_low", "mean_loss_change_high"): (
                *(no_loss, no_changes, infinite_a, infinite_b, one_pair, too_few),
            ),
            ("infinite_losses_a", "infinite_losses_b"): (no_loss,),
            ("accuracy_a", "accuracy_b", "right_to_wrong", "wrong_to_right", "mcnemar_p"): (no_loss, no_classes),
            ("agreement", "infinite_kl"): (not_compared,),
            ("mean_kl",): (not_compared, no_kl),
            ("bytes_read",): ("" if self.files_a and self.files_b else "the size of a stream is not known",),
        }
        by_name = {name: some for names, some in reasons.items() for name in names}
        found = {name: figure(getattr(self, name), *by_name.get(name, ())) for name in OWN_NAMES}
        return found | {name: self._change(name, no_loss) for name in CHANGE_NAMES}

    def _change(self, name: str, no_loss: str) -> Figure:
        """Return a number of ``changes``, such as ``changes.macro.f1.upper``."""
        metric, _, of = name.removeprefix("changes.").rpartition(".")
        found = self.change(metric) or {}
        no_changes = "" if self.changes else "--confidence-level 0 computes no changes"
        no_metric = "" if found else "the rows don't have this metric"
        undefined = (
            "it is not defined" if of in {"a", "b", "change"} else "there are too few pairs, or they are all alike"
        )
        value = found.get(of)
        return figure(value, *((no_loss, no_changes, no_metric, undefined) if value is None else ()))

    def _infinite(self, what: str) -> str:
        have = "has" if self.infinite_kl == 1 else "have"
        return f"{self.infinite_kl:,} of {quantity(self.n_compared, 'pair')} {have} an infinite {what}"

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary, with the names of the JSON."""
        moved = [{name: _finite(value) for name, value in row.items()} for row in self.moved]
        return {**vars(self), "moved": moved}


def change_in(changes: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return the change of a metric, such as ``macro.f1``, of nested changes; None if there is none."""
    found: dict[str, Any] | None = changes
    for one in name.split("."):
        found = (found or {}).get(one)
    return found


OF_RUN = {"confidence_level", "n_clusters"}
OWN_NAMES = tuple(
    one.name
    for one in fields(Comparison)
    if str(one.type).split(" |")[0] in {"int", "float"} and one.name not in OF_RUN
)
"""The numeric attributes that are metrics."""
OF_CHANGES = tuple(dict.fromkeys((*CHANGED, *LABEL_CHANGED)))
CHANGE_NAMES = tuple(f"changes.{name}.{of}" for name in OF_CHANGES for of in FIELDS if of != "p_adjusted")
COMPARISON_NAMES = OWN_NAMES + CHANGE_NAMES
"""Names that a condition can use."""


def gate_of(condition: str) -> Gate:
    """Return a gate for a condition on the numbers of a comparison.

    Raises
    ------
    UsageError
        The condition is invalid.
    """
    return Gate(condition, COMPARISON_NAMES)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
