"""The metadata of a scored output: the options of the job, the computed columns, and the fingerprints of its inputs.

Every output file has them as JSON, written by ``sinks.metadata``. All values are checked before they are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from batchmax.columns.logits_layout import OutputLayout
from batchmax.errors import DataError, UsageError
from batchmax.options.parsing import check_type
from batchmax.options.score_options import FloatName, ScoreOptions
from batchmax.outputs import OUTPUTS, top_k_outputs
from batchmax.storage.json_fields import JsonError, json_list, json_object, json_objects, parse_json

SCORE_AGAIN = "score the inputs again with --if-exists overwrite"
"""The remedy if an output was changed or damaged."""

COPIED_OPTIONS = (
    "beta",
    "input",
    "logits_dtype",
    "ignore_index",
    "label_smoothing",
    "limit",
    "on_bad_row",
    "top_k",
    "prefix",
)
"""Options that the metadata store unchanged."""

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


class InputFingerprint(NamedTuple):
    """Size, footer digest and sample digest of an input file, or the total size and one digest of ``files`` files.

    Earlier versions wrote no sample digest.
    """

    size: int
    digest: str
    sample: str | None = None
    files: int = 1


@dataclass(frozen=True, kw_only=True)
class OutputMetadata:
    """The metadata of an output.

    Attributes
    ----------
    options
        The options of the job.
    logits
        The name of the column of logits, or the pattern of one column per class.
    outputs
        The names of the outputs in column order, those of ``top_k`` included.
    inputs
        One fingerprint per input file, or a single one for a large number of files.
    nested
        Whether the rows are sequences.
    """

    options: ScoreOptions
    logits: str
    n_classes: int
    outputs: tuple[str, ...]
    layout: OutputLayout
    dtype: FloatName
    inputs: tuple[InputFingerprint, ...]
    nested: bool = False

    @property
    def loss_dtype(self) -> np.dtype[Any]:
        """The type of columns with one float per row."""
        return np.dtype(np.promote_types(self.dtype, np.float32))

    def is_wide(self, output: str) -> bool:
        """Return whether an output has one column per class."""
        return self.layout == "wide" and output in OUTPUTS and OUTPUTS[output].kind == "matrix"


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
        raise DataError("the metadata 'batchmax' in the footer are invalid", where=path, remedy=SCORE_AGAIN) from error


def _parsed(members: dict[str, Any]) -> OutputMetadata:
    for name, hint in (("n_classes", int), ("dtype", FloatName), ("layout", OutputLayout)):
        check_type(name, members[name], hint)
    types = dict.fromkeys(COPIED_OPTIONS, object) | {"columns": list | None, "exclude": list}
    stored = json_object(members["options"], types)
    logits = members["logits"]
    if isinstance(logits, list) and len(json_list(logits, str)) != 1:
        raise JsonError("logits is not one column")
    options = ScoreOptions(
        label=members["label"] or "none",
        classes=_tuple(members["classes"]),
        n_classes=members["n_classes"],
        outputs=tuple(members["outputs"]),
        class_weights=_tuple(members["class_weights"]),
        layout=None if members["layout"] == "large_list" else members["layout"],
        dtype=members["dtype"],
        seed=stored.get("seed", 0),
        columns=_tuple(stored["columns"]),
        exclude=tuple(stored["exclude"]),
        **{name: stored[name] for name in COPIED_OPTIONS},
        activation=stored.get("activation", "softmax"),
        loss=stored.get("loss"),
        scale=_tuple(stored.get("scale")),
        bias=_tuple(stored.get("bias")),
        shift=stored.get("shift", False),
    )
    nested = "shift" in stored
    files = json_objects(members["inputs"], {"size": int, "footer_sha256": str})
    return OutputMetadata(
        options=options,
        logits=logits if isinstance(logits, str) else logits[0],
        n_classes=members["n_classes"],
        outputs=(*members["outputs"], *top_k_outputs(options.top_k, nested=nested)),
        nested=nested,
        layout=members["layout"],
        dtype=members["dtype"],
        inputs=tuple(
            InputFingerprint(file["size"], file["footer_sha256"], file.get("sample_sha256"), file.get("files", 1))
            for file in files
        ),
    )


def _tuple(values: Any) -> tuple[Any, ...] | None:
    if values is None:
        return None
    if not isinstance(values, list):
        raise JsonError("a member is not a list")
    return tuple(values)
