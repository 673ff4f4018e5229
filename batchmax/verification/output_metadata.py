"""The metadata of a scored output: the options of the job, the computed columns, and the fingerprints of its inputs.

Every output file has them as JSON, written by ``sinks.metadata``. All values are checked before they are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from batchmax.columns.logits_layout import OutputLayout
from batchmax.errors import DataError, UsageError
from batchmax.options.decision_file import AppliedRule, parse_rule
from batchmax.options.score_options import FloatName, ScoreOptions
from batchmax.outputs import OUTPUTS, top_k_outputs
from batchmax.sinks.metadata import OPTIONS_THAT_CHANGE_BYTES
from batchmax.storage.json_fields import JsonError, json_list, json_object, json_objects, parse_json

SCORE_AGAIN = "score the inputs again with --if-exists overwrite"
"""The remedy if an output was changed or damaged."""

MEMBERS = {
    "logits": list | str,
    "label": str | None,
    "classes": list | None,
    "n_classes": int,
    "outputs": list,
    "class_weights": list | None,
    "layout": str,
    "dtype": str,
    "options": dict,
    "inputs": list,
}
"""The members of the metadata, and their types."""

COPIED_MEMBERS = ("classes", "n_classes", "outputs", "class_weights", "dtype")
"""Members that are options of the same name."""

STORED_OPTIONS = tuple(name for name in OPTIONS_THAT_CHANGE_BYTES if name not in {"row_group_size", "compression"})
"""Names in ``options`` that every output has; how files are divided and compressed isn't checked."""

OPTIONAL_OPTIONS = ("seed", "activation", "loss", "scale", "bias", "shift", "label_format", "pos_weight", "rule")
"""Names in ``options`` that only some outputs have."""


@dataclass(frozen=True, kw_only=True)
class OutputMetadata:
    """The metadata of an output.

    Attributes
    ----------
    options
        The options of the job. ``logits`` is the name of the column, or the pattern of one column per class.
    outputs
        The names of the outputs in column order, those of ``top_k`` included.
    inputs
        The fingerprints of the inputs, as :func:`batchmax.sinks.metadata.input_fingerprints` returned them. Those of
        earlier versions have no sample digest.
    nested
        Whether the rows are sequences.
    rule
        The decision rule that was applied, or None.
    """

    options: ScoreOptions
    n_classes: int
    outputs: tuple[str, ...]
    layout: OutputLayout
    dtype: FloatName
    inputs: list[dict[str, Any]]
    nested: bool = False
    rule: AppliedRule | None = None

    @property
    def loss_dtype(self) -> np.dtype[Any]:
        """The type of columns with one float per row."""
        return np.dtype(np.promote_types(self.dtype, np.float32))

    @property
    def n_values(self) -> int:
        """The number of values of a row of a matrix: one per class, or one for two classes."""
        return 1 if self.layout == "single" else self.n_classes

    def is_split(self, output: str) -> bool:
        """Return whether an output is a matrix with a column of numbers for each value of a row."""
        return self.layout in {"wide", "single"} and output in OUTPUTS and OUTPUTS[output].kind == "matrix"


def output_error(what: str, where: str) -> DataError:
    """Return the error for an output that was changed or damaged."""
    return DataError(what, where=where, remedy=SCORE_AGAIN)


def parse_metadata(path: str, text: bytes) -> OutputMetadata:
    """Return the metadata of an output file.

    Parameters
    ----------
    path
        The path of the file, for errors.
    text
        The JSON in its footer.

    Raises
    ------
    DataError
        ``score`` didn't write it, a member is missing, or a value is invalid.
    """
    try:
        members = json_object(parse_json(text), {})
        if members.get("command", "score") != "score":
            what = f"batchmax {members['command']} wrote this file, so it has no computed columns to verify"
            raise DataError(what, where=path, remedy="name an output of score")
        return _parsed(json_object(members, MEMBERS))
    except (JsonError, UsageError) as error:
        raise output_error("the metadata 'batchmax' in the footer are invalid", path) from error


def _parsed(members: dict[str, Any]) -> OutputMetadata:
    stored = json_object(members["options"], dict.fromkeys(STORED_OPTIONS, object))
    logits, layout = members["logits"], members["layout"]
    if isinstance(logits, list) and len(json_list(logits, str)) != 1:
        raise JsonError("logits is not one column")
    if members["n_classes"] < 2:
        raise JsonError("n_classes is less than 2")
    given = {name: members[name] for name in COPIED_MEMBERS}
    given["n_classes"] = members.get("n_logits", members["n_classes"])
    given |= {name: stored[name] for name in (*STORED_OPTIONS, *OPTIONAL_OPTIONS) if name in stored}
    values: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in given.items()}
    # The options check the types of their values.
    options = ScoreOptions(
        logits=logits if isinstance(logits, str) else logits[0],
        label=members["label"] or "none",
        layout=None if layout in {"large_list", "single"} else layout,
        **values,
    )
    for name, count in (("class_weights", members["n_classes"]), ("pos_weight", given["n_classes"])):
        weights = getattr(options, name)
        if weights is not None and len(weights) != count:
            raise JsonError(f"{name} does not have one number per class")
    nested = "shift" in stored
    rule = None if options.rule is None else parse_rule(options.rule)
    return OutputMetadata(
        options=options,
        n_classes=members["n_classes"],
        outputs=(
            *members["outputs"],
            *top_k_outputs(options.top_k, nested=nested),
            *(() if rule is None else rule.outputs),
        ),
        rule=rule,
        nested=nested,
        layout=layout,
        dtype=members["dtype"],
        inputs=json_objects(members["inputs"], {"size": int, "footer_sha256": str}),
    )
