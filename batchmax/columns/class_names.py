"""Finds the names of the classes, and numbers that are given for each class, from a schema and options."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import column_types, is_list, plain_type
from batchmax.columns.class_columns import LABEL_NAMES
from batchmax.columns.logits_layout import LogitsColumn
from batchmax.errors import UsageError
from batchmax.options.input_options import ClassWeights
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.text import quantity
from batchmax.storage.json_fields import JsonError, json_list, json_object, parse_json

FROM_OPTION = "--classes"
"""The origin of class names that the option gives."""


def find_classes(schema: pa.Schema, options: ScoreOptions, logits: LogitsColumn) -> tuple[tuple[str, ...] | None, str]:
    """Return the class names and their origin; None and an empty string if the classes have no names.

    The names are those of ``--classes``, or those of the columns of a wide layout, or the Hugging Face ``ClassLabel``
    names in the schema's metadata of the label column (of its items if rows are sequences). Numbers in the names of
    wide columns count only without a ``ClassLabel``.

    Raises
    ------
    UsageError
        The metadata have a name twice, or the number of names differs from ``--n-classes``.
    """
    names, where = _class_names(schema, options, logits)
    given = None if logits.is_one_logit else options.n_classes
    if given is not None and names is not None and len(names) != given:
        raise UsageError(
            f"{given:,} given, but there are {quantity(len(names), 'class name')}, from {where}",
            where="--n-classes",
            remedy=f"leave it out, or give {len(names)}",
        )
    return names, where


def check_classes(classes: tuple[str, ...] | None, n_classes: int, origin: str = FROM_OPTION) -> None:
    """Check that there is one name for each class; ``origin`` is the one that :func:`find_classes` returned.

    Raises
    ------
    UsageError
        The number of names differs.
    """
    if classes is not None and len(classes) != n_classes:
        is_given = origin == FROM_OPTION
        names = quantity(len(classes), "class name")
        raise UsageError(
            f"{names if is_given else f'{origin} has {names}'}, but the logits have {quantity(n_classes, 'class')}",
            where=FROM_OPTION if is_given else "",
            remedy="give one name per class, in the order of the logits"
            + ("" if is_given else ": --classes A,B,C; or choose another label column: --label NAME"),
        )


def label_name(types: Mapping[str, pa.DataType], options: ScoreOptions) -> str | None:
    """Return the name of the label column: the one that ``--label`` names, or the first common one, or None."""
    if options.label is not None:
        return None if options.label == "none" else options.label
    return next((name for name in LABEL_NAMES if name in types and name != options.logits), None)


def weights_of_classes(
    given: ClassWeights | None, classes: tuple[str, ...] | None, n_classes: int, option: str
) -> NDArray[np.float64] | None:
    """Return the weights that an option gives, in the order of the classes; None if it isn't given.

    Raises
    ------
    UsageError
        A class has no weight, or a weight has no class.
    """
    if given is None:
        return None
    if isinstance(given, dict):
        names = classes or tuple(str(index) for index in range(n_classes))
        unknown = sorted(set(given) - set(names))
        lacking = [name for name in names if name not in given]
        if unknown or lacking:
            what = f"there is no class {unknown[0]!r}" if unknown else f"class {lacking[0]!r} has no weight"
            remedy = "give one line NAME,WEIGHT per class"
            if classes is None:
                remedy += ", and the class names in the order of the logits: --classes A,B,C"
            raise UsageError(what, where=option, remedy=remedy)
        given = tuple(given[name] for name in names)
    if len(given) != n_classes:
        raise UsageError(
            f"{quantity(len(given), 'weight')} for {quantity(n_classes, 'class')}",
            where=option,
            remedy="give one weight per class, in the order of the logits",
        )
    return np.asarray(given, np.float64)


def _class_names(schema: pa.Schema, options: ScoreOptions, logits: LogitsColumn) -> tuple[tuple[str, ...] | None, str]:
    if options.classes is not None:
        return options.classes, FROM_OPTION
    label = label_name(column_types(schema), options)
    names = None if label is None else class_label_names(schema, label)
    # Numbers in the names of logits columns are class names only if no ClassLabel names the classes.
    if logits.class_names and (names is None or not are_integers(logits.class_names)):
        return logits.class_names, "the names of the logits columns"
    if names is None:
        return None, ""
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise UsageError(
            f"the ClassLabel of column {label!r} has the name {twice!r} twice",
            where="--classes",
            remedy="give the names: --classes A,B,C",
        )
    return names, f"the Hugging Face ClassLabel of column {label!r}"


def class_label_names(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """Return the names of a column's Hugging Face ``ClassLabel``, or of the one of its items if these are labels."""
    try:
        found = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
        for name in ("info", "features"):
            found = json_object(found, {name: dict})[name]
        found = json_object(found, {label: dict | list})[label]
        kind = plain_type(schema.field(label).type) if label in schema.names else None
        if kind is not None and (not is_list(kind) or is_integer_list(kind)):
            found = _item_feature(found)
        json_object(found, {"_type": str, "names": list})
        return tuple(json_list(found["names"], str)) if found["_type"] == "ClassLabel" else None
    except JsonError:
        # No such feature, or metadata of another program: these are optional, so this isn't an error.
        return None


def _item_feature(feature: Any) -> Any:
    """Return the Hugging Face feature of the items of a list feature, in any version; other features unchanged."""
    if isinstance(feature, list):
        return feature[0] if len(feature) == 1 else feature
    is_list_feature = feature.get("_type") in ("List", "LargeList", "Sequence")
    return json_object(feature, {"feature": dict})["feature"] if is_list_feature else feature


def is_integer_list(kind: pa.DataType) -> bool:
    """Return whether a type, unwrapped by ``plain_type``, is a list of any number of integers."""
    if not is_list(kind) or pa.types.is_fixed_size_list(kind):
        return False
    return bool(pa.types.is_integer(plain_type(kind.value_type)))


def are_integers(classes: tuple[str, ...]) -> bool:
    """Return whether all class names are integers."""
    return all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in classes)
