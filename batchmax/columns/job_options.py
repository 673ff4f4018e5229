"""Options that depend on the columns of the input: the activation, the outputs, weights, and decision rules."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from batchmax.columns.arrow import column_types
from batchmax.columns.label_column import LABEL_SETS, LabelColumn
from batchmax.columns.logits_layout import LogitsColumn
from batchmax.columns.row_values import check_by
from batchmax.columns.sequences import Nesting
from batchmax.errors import UsageError
from batchmax.options.decision_file import AppliedRule
from batchmax.options.input_options import ClassWeights
from batchmax.options.score_options import ScoreOptions
from batchmax.outputs import OUTPUTS
from batchmax.runtime.text import quantity


def pos_weight_of(options: ScoreOptions, logits: LogitsColumn, classes: tuple[str, ...] | None) -> ClassWeights | None:
    """Return the positive weight of each class; of rows of one logit, only that of the second class is given."""
    given = options.pos_weight
    if given is None or not logits.is_one_logit:
        return given
    first = "0" if classes is None else classes[0]
    return {first: 1.0} | given if isinstance(given, dict) else (1.0, *given)


def with_activation(options: ScoreOptions, label: LabelColumn | None, nesting: Nesting | None) -> ScoreOptions:
    """Return the options with sigmoid as the activation if the type of the labels determines it.

    Raises
    ------
    UsageError
        Sequences can't have such labels, or the options don't suit the activation.
    """
    if label is not None and label.kind in LABEL_SETS and nesting is not None:
        raise UsageError(
            f"{label.why}: tokens of sequences can't have several labels",
            where="--label",
            remedy="name a column with one label per token, or use no labels: --label none",
        )
    is_given = options.activation is not None
    if is_given or label is None or label.kind not in LABEL_SETS:
        # Options that suit only the labels of multi-label rows are checked again.
        return options if is_given else replace(replace(options, activation="softmax"), activation=None)
    label_format = "indices" if label.kind == "indices" else options.label_format
    return replace(options, activation="sigmoid", label_format=label_format)


def choose_outputs(options: ScoreOptions, label: LabelColumn | None, nesting: Nesting | None) -> tuple[str, ...]:
    """Return the outputs to compute.

    Raises
    ------
    UsageError
        An output needs other labels.
    """
    if options.outputs is None:
        return ("probs", "loss") if label is not None else ("probs",)
    for name in options.outputs:
        if nesting is not None and OUTPUTS[name].of == "independent":
            raise UsageError(f"tokens of sequences have no {name}", where="--outputs", remedy="leave it out")
        if not OUTPUTS[name].needs_label:
            continue
        if label is None:
            raise UsageError(
                f"{name} needs labels, and no column is named label, labels or target",
                where="--outputs",
                remedy="name the label column: --label NAME",
            )
        if OUTPUTS[name].of != "independent" and name != "loss" and label.kind == "distribution":
            raise UsageError(
                f"{name} needs class labels, and column {label.name!r} holds distributions",
                where="--outputs",
                remedy=f"leave {name} out, or choose another label column: --label NAME",
            )
    return options.outputs


def with_rule(
    options: ScoreOptions, rule: AppliedRule, classes: tuple[str, ...] | None, n_logits: int, nesting: Nesting | None
) -> ScoreOptions:
    """Return the options with the calibration that a decision rule was chosen with, if rows are logits.

    Raises
    ------
    UsageError
        The rule is for other rows, or another calibration is given.
    """
    where, remedy = "--decision", "choose a rule for these rows: batchmax decide INPUT -o FILE"
    if nesting is not None:
        what = "rows are sequences, and decisions are made for single rows"
        raise UsageError(what, where=where, remedy="leave it out")
    n_classes = max(n_logits, 2)
    if max(rule.n_classes, 2) != n_classes:
        what = f"the rule is for {quantity(max(rule.n_classes, 2), 'class')}, and the rows have {n_classes:,}"
        raise UsageError(what, where=where, remedy=remedy)
    if None not in (rule.classes, classes) and rule.classes != classes:
        what = f"the rule is for classes {_listed(rule.classes)}, and the rows have {_listed(classes)}"
        raise UsageError(what, where=where, remedy=remedy)
    if rule.scale is not None and len(rule.scale) != n_logits:
        what = f"the calibration of the rule is for {quantity(len(rule.scale), 'logit')} per row, not for {n_logits:,}"
        raise UsageError(what, where=where, remedy=remedy)
    if options.activation_name != rule.activation:
        what = f"the rule is for activation {rule.activation}, not for {options.activation_name}"
        raise UsageError(what, where=where, remedy=remedy)
    given = options.beta, options.scale, options.bias
    if options.input != "logits":
        # Probabilities were computed with the calibration already.
        if given != (1.0, None, None):
            what = "a calibration would change the probabilities of the rows"
            raise UsageError(what, where=where, remedy="leave out the calibration or temperature, or score the logits")
        return options
    if rule.input != "logits":
        # The rule was chosen on probabilities, with any calibration.
        return options
    of_rule = rule.beta, rule.scale, rule.bias
    if given not in ((1.0, None, None), of_rule):
        what = "the rule was chosen with another calibration or temperature"
        raise UsageError(what, where=where, remedy="leave it out, as that of the rule is applied, or choose a new rule")
    return replace(options, beta=rule.beta, scale=rule.scale, bias=rule.bias)


def check_groups(rule: AppliedRule, schema: pa.Schema) -> None:
    """Check that rows have the column of the groups of a rule.

    Raises
    ------
    UsageError
        There is no such column, or its type can't group rows.
    """
    types = column_types(schema)
    if rule.by is None:
        return
    if rule.by not in types:
        what = f"the rule is for groups of column {rule.by!r}, which the input doesn't have"
        raise UsageError(what, where="--decision", remedy="choose a rule without groups, or add the column")
    check_by(rule.by, types[rule.by], "--decision", allows_bytes=False)


def _listed(names: tuple[str, ...] | None) -> str:
    names = names or ()
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
