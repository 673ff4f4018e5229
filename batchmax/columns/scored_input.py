"""Reads the metadata of outputs of ``score`` that are inputs: columns of probabilities, their labels and classes.

Knows schemas and options. Module ``find_logits`` chooses the columns of files without this metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import pyarrow as pa

from batchmax.activations import ACTIVATIONS, Activation, ActivationName
from batchmax.columns.arrow import column_types
from batchmax.errors import UsageError
from batchmax.options.decision_file import parse_rule
from batchmax.options.input_options import InputKind, InputOptions
from batchmax.options.score_options import ScoreOptions
from batchmax.outputs import (
    DECISION_OUTPUTS,
    OUTPUTS,
    PLURALS,
    SCALARS,
    TOP_K_OF_TOKENS,
    TOP_K_OUTPUTS,
    column_name,
    singular,
    top_k_outputs,
)
from batchmax.storage.json_fields import JsonError, json_list, json_object, parse_json

METADATA = {
    "command": str,
    "logits": list | str,
    "label": str | None,
    "classes": list | None,
    "outputs": list,
    "layout": str,
    "class_weights": list | None,
    "options": dict,
}
OPTIONS = {"prefix": str, "label_smoothing": float | int, "top_k": int | None, "input": str}
"""Members of an output's metadata that are read, and of the options in it, with their types."""

KINDS: dict[str, InputKind] = {"log_probs": "log_probs", "probs": "probs"}
"""What columns with these names hold; the more precise kind comes first."""

COMPUTED = frozenset({*OUTPUTS, *PLURALS.values(), *TOP_K_OUTPUTS, *TOP_K_OF_TOKENS, *DECISION_OUTPUTS})
"""Names of columns that ``score`` computes."""

DEFAULT_PATTERN = "logit_*"
"""The pattern of logits columns if there is one for each class and ``--logits`` isn't given."""

DOUBTFUL = re.compile(r"prob|softmax|sigmoid|confidence|likelihood", re.IGNORECASE)
"""Matches names that suggest something other than logits."""


@dataclass(frozen=True)
class ScoredInput:
    """The metadata of an output of ``score``.

    Attributes
    ----------
    logits, input
        The column that was scored, None if there were several, and what it held.
    outputs
        The computed outputs, with those that ``top_k`` adds.
    activation
        The activation that computed the probabilities.
    layout
        How matrices are stored; see :data:`batchmax.columns.logits_layout.OutputLayout`.
    is_plain
        Whether losses are the negative logarithms of the labels' probabilities.
    has_indices
        Whether labels are class indices although class names are numbers.
    is_nested, shift
        Whether rows are sequences, and whether a token's label is the next item of the list of labels.
    """

    logits: str | None
    input: InputKind
    label: str | None
    classes: tuple[str, ...] | None
    outputs: tuple[str, ...]
    layout: str
    prefix: str
    is_nested: bool
    shift: bool
    activation: Activation
    is_plain: bool
    has_indices: bool

    def pattern(self, output: str) -> str:
        """Return the column name of an output, or a pattern for its columns if there is one per class."""
        if self.layout in {"wide", "single"} and output in OUTPUTS and OUTPUTS[output].kind == "matrix":
            return f"{self.prefix}{singular(output)}{'_*' if self.layout == 'wide' else ''}"
        return self.prefix + column_name(output, nested=self.is_nested)

    def output_of(self, name: str) -> str | None:
        """Return the output that a column, or the columns of a pattern, hold; None if they hold none."""
        for output in self.outputs:
            pattern = self.pattern(output)
            if name in {pattern, *self._whole_rows(output)} or fnmatchcase(name, pattern):
                return output
        return None

    def _whole_rows(self, output: str) -> list[str]:
        """Return the columns with one value per row that accompany an output of tokens."""
        if not self.is_nested or output not in {"loss", "status"}:
            return []
        return [self.prefix + name for name in (SCALARS if output == "loss" else ("status",))]


def written_by_score(schema: pa.Schema) -> ScoredInput | None:
    """Return the metadata of an output of ``score``; None for other files, and for metadata of other versions."""
    raw = (schema.metadata or {}).get(b"batchmax")
    if raw is None:
        return None
    try:
        metadata = json_object(parse_json(raw), METADATA)
        options = json_object(metadata["options"], OPTIONS)
        outputs, classes = json_list(metadata["outputs"], str), metadata["classes"]
        logits = metadata["logits"]
        logits = json_list(logits, str) if isinstance(logits, list) else [logits]
        activation = ACTIVATIONS.get(options.get("activation", "softmax"))
        if metadata["command"] != "score" or not set(outputs) <= OUTPUTS.keys() or activation is None:
            return None
        is_plain = options.get("loss", "cross_entropy") == "cross_entropy"
        is_weighted = metadata["class_weights"] is not None or "pos_weight" in options
        return ScoredInput(
            logits=logits[0] if len(logits) == 1 else None,
            input=KINDS.get(options["input"], "logits"),
            label=metadata["label"],
            classes=None if classes is None else tuple(json_list(classes, str)),
            outputs=(
                *outputs,
                *top_k_outputs(options["top_k"], nested="shift" in options),
                *(parse_rule(options["rule"]).outputs if "rule" in options else ()),
            ),
            layout=metadata["layout"],
            prefix=options["prefix"],
            is_nested="shift" in options,
            shift=options.get("shift", False) is True,
            activation=activation,
            has_indices=metadata.get("label_kind") == "index",
            is_plain=is_plain and not is_weighted and not options["label_smoothing"],
        )
    except (JsonError, TypeError, UsageError):
        return None


def columns_computed(schema: pa.Schema) -> list[str]:
    """Return the columns that ``score`` computed; none if it didn't write the file."""
    written = written_by_score(schema)
    return [] if written is None else [name for name in schema.names if written.output_of(name) is not None]


def loss_column(schema: pa.Schema, options: InputOptions) -> str | None:
    """Return the column in which ``score`` wrote the plain loss of the labels that the options name.

    It is more precise than a loss computed from the rounded probabilities. None if there is no such column, if its
    losses are of other labels or classes or not plain, or if logits are read instead.
    """
    written = written_by_score(schema)
    if written is None or not written.is_plain or "loss" not in written.outputs or options.logits is not None:
        return None
    is_theirs = options.label in {None, written.label} and options.classes in {None, written.classes}
    is_theirs = is_theirs and (written.shift or not options.shift)
    column, is_kept = written.pattern("loss"), kept_logits(column_types(schema), written) is not None
    return column if is_theirs and column in schema.names and not is_kept else None


def kept_logits(names: Iterable[str], written: ScoredInput, activation: ActivationName | None = None) -> str | None:
    """Return the column or pattern of the logits that were scored, if the output has them and they are to be read.

    That is so for softmax, and for activations with independent classes, if ``activation`` isn't another one: their
    probabilities can't be read instead.
    """
    names = list(names)
    is_same = activation in {None, written.activation.name}
    if not (written.activation.is_log_linear or (not written.activation.is_distribution and is_same)):
        return None
    if written.logits in names and written.output_of(written.logits or "") is None:
        return written.logits
    return next((one for one in ("logits", DEFAULT_PATTERN) if any(fnmatchcase(name, one) for name in names)), None)


def as_written(schema: pa.Schema, options: ScoreOptions) -> ScoreOptions:
    """Return options that name the columns of probabilities in an output of ``score``, their labels and classes.

    The options are unchanged for other files, and if they already name logits. For an activation other than softmax,
    the probabilities are read even if the output has the logits.

    Raises
    ------
    UsageError
        A column without probabilities, or probabilities that aren't a distribution.
    """
    if options.input == "logits":
        return options
    written = written_by_score(schema)
    if written is None:
        return options
    if options.logits is not None:
        output = written.output_of(options.logits)
        if output is None and options.logits == written.logits:
            return _as_activated(replace(options, input=options.input or written.input), written)
        if output is not None:
            options = replace(options, input=options.input or _kind_of(output, options.logits))
            _check_distribution(written, "--logits")
        return options
    names = column_types(schema)
    kept = kept_logits(names, written, options.activation)
    if kept is not None and options.input is None:
        options = replace(options, logits=kept, input=written.input if kept == written.logits else "logits")
        return _as_activated(options, written)
    _check_distribution(written)
    asked = [kind for kind in KINDS.values() if options.input in {None, kind}]
    output = next((kind for kind in asked if kind in written.outputs), None)
    if output is None:
        raise UsageError(
            f"this output of score has no {' or '.join(reversed(asked))}",
            remedy="give a file of logits, or score with --outputs probs,loss",
        )
    pattern = written.pattern(output)
    if options.beta != 1.0 or options.calibration is not None:
        raise UsageError(
            "the input has probabilities, which score computed with a temperature",
            where="--temperature" if options.calibration is None else "--calibration",
            remedy=f"leave it out, or give a file of logits; to scale the probabilities again: --logits '{pattern}'",
        )
    return replace(
        options,
        logits=pattern,
        input=KINDS[output],
        label=options.label or (written.label if written.label in names else None),
        shift=options.shift or written.shift,
        classes=options.classes or written.classes,
    )


def _as_activated(options: ScoreOptions, written: ScoredInput) -> ScoreOptions:
    """Return the options with the activation with independent classes that was computed, unless they have one."""
    if options.activation is not None or written.activation.is_distribution:
        return options
    return replace(options, activation=written.activation.name)


def check_unasked(name: str) -> None:
    """Check that the only column that can hold logits may be used by default.

    Raises
    ------
    UsageError
        Its name suggests something else.
    """
    if DOUBTFUL.search(name) or name in COMPUTED:
        raise unclear_content(name, "its name does not suggest logits")


def unclear_content(name: str, why: str) -> UsageError:
    """Return the error that the only column that can hold logits may hold something else."""
    return UsageError(
        f"the only list of floats is column {name!r}, and {why}",
        remedy=f"state what it holds: --logits {name} --input probs, log_probs or logits; or name another column",
    )


def _kind_of(output: str, name: str) -> InputKind:
    if output not in KINDS:
        raise UsageError(
            f"column {name!r} holds {output}, which score computed, not logits",
            where="--logits",
            remedy="name another column; if it holds logits, add --input logits",
        )
    return KINDS[output]


def _check_distribution(written: ScoredInput, where: str = "") -> None:
    if written.activation.is_distribution:
        return
    loss = f"; the losses are in column {written.pattern('loss')!r}" if "loss" in written.outputs else ""
    raise UsageError(
        f"the probabilities were computed with --activation {written.activation.name} and do not sum to 1{loss}",
        where=where,
        remedy="give a file of logits; if this file has them, name their column with --logits",
    )
