"""Outputs of ``score`` as inputs: which columns hold probabilities, of which labels and classes, as their metadata say.

Knows schemas and options; which column is taken where no metadata say it, ``columns`` knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import pyarrow as pa

from batchmax.activations import ACTIVATIONS
from batchmax.columns.arrow import column_types
from batchmax.errors import UsageError
from batchmax.options.score_options import InputKind, ScoreOptions
from batchmax.outputs import OUTPUTS, PLURALS, SCALARS, TOP_K_OF_TOKENS, TOP_K_OUTPUTS, column_name, top_k_outputs
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
"""The members of an output's metadata that are read, and of the options in it, with their types."""

KINDS: dict[str, InputKind] = {"log_probs": "log_probs", "probs": "probs"}
"""What columns of these names hold, the more exact one first."""

COMPUTED = frozenset({*OUTPUTS, *PLURALS.values(), *TOP_K_OUTPUTS, *TOP_K_OF_TOKENS})
"""Names of columns that ``score`` computes."""

DOUBTFUL = re.compile(r"prob|softmax|sigmoid|confidence|likelihood", re.IGNORECASE)
"""Names that do not suggest logits."""


@dataclass(frozen=True)
class Written:
    """What the metadata of an output of ``score`` say of it.

    Attributes
    ----------
    logits, input
        The column that was scored, None for several columns, and what it held.
    outputs
        What was computed, with what ``top_k`` adds.
    activation
        What the probabilities were computed with.
    is_plain
        Whether the losses are the negative logarithms of the labels' probabilities.
    has_indices
        Whether the labels are indices of classes whose names are numbers.
    is_nested, shift
        Whether the rows are sequences, and the label of a token is that of the next one.
    """

    logits: str | None
    input: InputKind
    label: str | None
    classes: tuple[str, ...] | None
    outputs: tuple[str, ...]
    is_wide: bool
    prefix: str
    is_nested: bool
    shift: bool
    activation: str
    is_plain: bool
    has_indices: bool

    @property
    def is_distribution(self) -> bool:
        """Whether the probabilities of a row sum to 1."""
        return ACTIVATIONS[self.activation].is_distribution

    def pattern(self, output: str) -> str:
        """Return the name of an output's column, or a pattern for its columns, one for each class."""
        if self.is_wide and output in OUTPUTS and OUTPUTS[output].kind == "matrix":
            return f"{self.prefix}{output.removesuffix('s')}_*"
        return self.prefix + column_name(output, nested=self.is_nested)

    def output_of(self, name: str) -> str | None:
        """Return which output a column holds, or the columns of a pattern; None if it is none of them."""
        for output in self.outputs:
            pattern = self.pattern(output)
            if name in {pattern, *self._whole_rows(output)} or fnmatchcase(name, pattern):
                return output
        return None

    def _whole_rows(self, output: str) -> list[str]:
        """Return the columns of sequences as a whole that come with an output of their tokens."""
        if not self.is_nested or output not in {"loss", "status"}:
            return []
        return [self.prefix + name for name in (SCALARS if output == "loss" else ("status",))]


def written_by_score(schema: pa.Schema) -> Written | None:
    """Return what an output of ``score`` says of itself; None for anything else, and for metadata of other versions."""
    raw = (schema.metadata or {}).get(b"batchmax")
    if raw is None:
        return None
    try:
        said = json_object(parse_json(raw), METADATA)
        given = json_object(said["options"], OPTIONS)
        outputs, classes = json_list(said["outputs"], str), said["classes"]
        logits = said["logits"] if isinstance(said["logits"], list) else []
        activation = given.get("activation", "softmax")
        if said["command"] != "score" or not set(outputs) <= OUTPUTS.keys() or activation not in ACTIVATIONS:
            return None
        is_plain = given.get("loss", "cross_entropy") == "cross_entropy"
        return Written(
            logits=json_list(logits, str)[0] if len(logits) == 1 else None,
            input=KINDS.get(given["input"], "logits"),
            label=said["label"],
            classes=None if classes is None else tuple(json_list(classes, str)),
            outputs=(*outputs, *top_k_outputs(given["top_k"], nested="shift" in given)),
            is_wide=said["layout"] == "wide",
            prefix=given["prefix"],
            is_nested="shift" in given,
            shift=given.get("shift", False) is True,
            activation=activation,
            has_indices=said.get("label_kind") == "index",
            is_plain=is_plain and said["class_weights"] is None and not given["label_smoothing"],
        )
    except (JsonError, TypeError):
        return None


def columns_computed(schema: pa.Schema) -> list[str]:
    """Return the columns that ``score`` computed; none if it did not write this."""
    written = written_by_score(schema)
    return [] if written is None else [name for name in schema.names if written.output_of(name) is not None]


def loss_column(schema: pa.Schema, options: ScoreOptions) -> str | None:
    """Return the column in which ``score`` wrote the plain loss of the labels that these options name.

    It has digits that the probabilities beside it have lost. None if there is no such column, or the losses are those
    of other labels or classes, or not plain, or the logits themselves are read.
    """
    written = written_by_score(schema)
    if written is None or not written.is_plain or "loss" not in written.outputs or options.logits is not None:
        return None
    is_theirs = options.label in {None, written.label} and options.classes in {None, written.classes}
    is_theirs = is_theirs and (written.shift or not options.shift)
    column, is_kept = written.pattern("loss"), kept_logits(column_types(schema), written) is not None
    return column if is_theirs and column in schema.names and not is_kept else None


def kept_logits(names: Iterable[str], written: Written) -> str | None:
    """Return the column or the pattern of the logits that softmax was computed of, if they were kept."""
    names = list(names)
    if written.activation != "softmax":
        return None
    if written.logits in names and written.output_of(written.logits or "") is None:
        return written.logits
    return next((one for one in ("logits", "logit_*") if any(fnmatchcase(name, one) for name in names)), None)


def as_written(schema: pa.Schema, options: ScoreOptions) -> ScoreOptions:
    """Return options that name the columns of probabilities in an output of ``score``, their labels and classes.

    The options stay as they are for any other schema, and where they say already what the logits are. An activation
    other than softmax has its probabilities read, whether or not the logits were kept.

    Raises
    ------
    UsageError
        A column without probabilities, or probabilities that are no distribution.
    """
    if options.input == "logits":
        return options
    written = written_by_score(schema)
    if written is None:
        return options
    if options.logits is not None:
        output = written.output_of(options.logits)
        if output is None and options.logits == written.logits:
            return replace(options, input=options.input or written.input)
        if output is not None:
            options = replace(options, input=options.input or _kind_of(output, options.logits))
            _check_distribution(written, "--logits")
        return options
    names = column_types(schema)
    kept = kept_logits(names, written)
    if kept is not None and options.input is None:
        return replace(options, logits=kept, input=written.input if kept == written.logits else "logits")
    _check_distribution(written)
    asked = [kind for kind in KINDS.values() if options.input in {None, kind}]
    output = next((kind for kind in asked if kind in written.outputs), None)
    if output is None:
        raise UsageError(
            f"score wrote {'neither ' * (len(asked) > 1)}{' nor '.join(reversed(asked))} into this file",
            remedy="give the logits themselves, or score with --outputs probs,loss",
        )
    pattern = written.pattern(output)
    if options.beta != 1.0 or options.calibration is not None:
        raise UsageError(
            "these are probabilities, whose temperature was chosen when they were scored",
            where="--temperature" if options.calibration is None else "--calibration",
            remedy=f"leave it out, or give the logits; to scale probabilities again, name them: --logits '{pattern}'",
        )
    return replace(
        options,
        logits=pattern,
        input=KINDS[output],
        label=options.label or (written.label if written.label in names else None),
        shift=options.shift or written.shift,
        classes=options.classes or written.classes,
    )


def check_unasked(name: str) -> None:
    """Check that the only column that can hold logits may be taken without being asked for.

    Raises
    ------
    UsageError
        Its name says that it holds something else.
    """
    if DOUBTFUL.search(name) or name in COMPUTED:
        raise UsageError(
            f"the only list of floats is column {name!r}, and its name does not suggest logits",
            remedy=f"say what it holds: --logits {name} --input probs, log_probs or logits; or name another column",
        )


def _kind_of(output: str, name: str) -> InputKind:
    if output not in KINDS:
        raise UsageError(
            f"column {name!r} holds {output}, which score computed, not logits",
            where="--logits",
            remedy="name another column; if it does hold logits, add --input logits",
        )
    return KINDS[output]


def _check_distribution(written: Written, where: str = "") -> None:
    if written.is_distribution:
        return
    loss = f"; the losses are in column {written.pattern('loss')!r}" if "loss" in written.outputs else ""
    raise UsageError(
        f"score --activation {written.activation} wrote this: each class has a probability of its own, and they do not "
        f"sum to 1{loss}",
        where=where,
        remedy="give a file with the logits themselves; if this one has them, name their column with --logits",
    )
