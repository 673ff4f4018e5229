"""Finds labels and class names, and converts labels to class indices or target distributions.

:func:`find_classes` and :func:`find_label` read the schema, :func:`read_labels` a batch of rows. A label is an index, a
class name, or a distribution over the classes (soft targets). The kernels check the range of indices, because they read
every label anyway. Doesn't know files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS
from batchmax.columns.arrow import (
    column_array,
    column_types,
    is_list,
    is_text_or_bytes,
    number_values,
    plain_array,
    plain_type,
    type_text,
    valid_rows,
)
from batchmax.columns.class_columns import LABEL_NAMES, check_unique
from batchmax.columns.logits_layout import LogitsColumn, list_column
from batchmax.columns.matrices import Matrix, Statuses, read_matrix
from batchmax.columns.scored_input import written_by_score
from batchmax.errors import UsageError
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.buffers import Take
from batchmax.runtime.lazy_imports import ImportedWhenUsed
from batchmax.runtime.text import close_match, quantity
from batchmax.statuses import Status
from batchmax.storage.json_fields import JsonError, json_list, json_object, parse_json

pc = ImportedWhenUsed("pyarrow.compute")

LabelKind = Literal["index", "name", "distribution"]

SUM_TOLERANCE = 1e-3
"""Maximum deviation of the sum of a target distribution from 1."""

FROM_OPTION = "--classes"
"""The origin of class names that the option gives."""

IGNORED_INDEX = int(np.iinfo(np.int64).min)
"""An index that no row has: it stands for ``--ignore-index`` if labels are class names that are numbers."""


@dataclass(frozen=True)
class LabelColumn:
    """The label column: the kind of its labels, and the lookup table from names to indices.

    ``sums_to_1`` is whether target distributions must sum to 1; with sigmoid, each class has a target of its own.
    ``ignores_names`` is whether labels are indices although class names are numbers.
    """

    name: str
    kind: LabelKind
    lookup: dict[str, int] | None
    why: str
    sums_to_1: bool = True
    ignores_names: bool = False


@dataclass(frozen=True)
class Labels:
    """The labels of a batch: either indices or target distributions.

    Attributes
    ----------
    indices
        Shape (n_rows,), int64, read-only; 0 where the status isn't ``OK``. Not checked against the range.
    targets
        Shape (n_rows, n_classes), read-only; undefined where the status isn't ``OK``.
    status
        Shape (n_rows,), ``BAD_LABEL``, ``UNLABELLED`` or ``OK``; None if all are ``OK``.
    ignore_index
        The index that means "ignored" in ``indices``: that of ``--ignore-index``, unless labels are looked up as class
        names that are numbers. Then ``--ignore-index`` is a label, not an index.
    """

    indices: NDArray[np.int64] | None
    targets: Matrix | None
    status: Statuses | None
    ignore_index: int


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
    if options.n_classes is not None and names is not None and len(names) != options.n_classes:
        raise UsageError(
            f"{options.n_classes:,} given, but there are {quantity(len(names), 'class name')}, from {where}",
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


def find_label(schema: pa.Schema, options: ScoreOptions, classes: tuple[str, ...] | None) -> LabelColumn | None:
    """Find the label column: the one that ``--label`` names, or one named ``label``, ``labels`` or ``target``.

    Raises
    ------
    UsageError
        No such column, a type that can't hold labels, or text without class names.
    """
    types = column_types(schema)
    name = label_name(types, options)
    if name is None:
        return None
    if name not in types:
        raise UsageError(
            f"there is no column {name!r}",
            where="--label",
            remedy=close_match(name, types) + "batchmax inspect FILE shows the columns",
        )
    check_unique(schema, name, "--label")
    what = f"column {name!r} ({type_text(types[name])})"
    why = f"{what}, {'named with --label' if options.label else 'by its name'}"
    plain = plain_type(types[name])
    if is_text_or_bytes(plain):
        if classes is None:
            raise UsageError(
                f"{what} holds text, and the class names are unknown",
                where="--label",
                remedy="give them in the order of the logits: --classes A,B,C; or use no labels: --label none",
            )
        return LabelColumn(name, "name", {class_: index for index, class_ in enumerate(classes)}, why)
    if pa.types.is_integer(plain) or pa.types.is_floating(plain) or pa.types.is_boolean(plain):
        # A Hugging Face ClassLabel column holds indices, even if its names are numbers.
        if classes is None or not _are_integers(classes):
            return LabelColumn(name, "index", None, why)
        if _class_label_names(schema, name) == classes or _are_indices(schema, name, classes):
            return LabelColumn(name, "index", None, why, ignores_names=True)
        lookup = {str(int(class_)): index for index, class_ in enumerate(classes)}
        if len(lookup) < len(classes):
            raise UsageError(
                "two class names are the same number",
                where="--classes",
                remedy="give each number once",
            )
        return LabelColumn(name, "name", lookup, why)
    if pa.types.is_null(plain):
        return LabelColumn(name, "index", None, why)
    remedy = "choose another column: --label NAME; or use no labels: --label none"
    if is_list(plain):
        try:
            list_column(name, types[name])
        except UsageError as error:
            raise UsageError(error.what, where="--label", remedy=remedy) from error
        return LabelColumn(name, "distribution", None, why, ACTIVATIONS[options.activation].is_distribution)
    raise UsageError(f"{what} cannot hold labels", where="--label", remedy=remedy)


def read_labels(
    batch: pa.RecordBatch,
    label: LabelColumn,
    n_classes: int,
    dtype: np.dtype[Any],
    ignore_index: int,
    take: Take = np.empty,
) -> Labels:
    """Return the labels of a batch.

    Parameters
    ----------
    batch
        Rows with the column ``label.name``.
    label
        What :func:`find_label` found.
    n_classes
        The length of a target distribution.
    dtype
        The type of target distributions: that of the logits.
    ignore_index
        The label of rows to ignore: an index, or a class name if class names are numbers.
    take
        Allocator of memory, used if target distributions must be copied.
    """
    if label.kind == "distribution":
        targets, status = _read_targets(batch, label, n_classes, dtype, take)
        return Labels(None, targets, status, ignore_index)
    array = column_array(batch, label.name)
    lookup = label.lookup or {}
    if label.kind == "name" and is_text_or_bytes(plain_type(array.type)):
        indices, status = _look_up_text(array, lookup)
        return Labels(indices, None, status, ignore_index)
    indices, status = _whole_numbers(plain_array(array))
    if label.kind == "name":
        return _look_up_numbers(indices, status, lookup, ignore_index)
    return Labels(indices, None, status, ignore_index)


def label_name(types: Mapping[str, pa.DataType], options: ScoreOptions) -> str | None:
    """Return the name of the label column: the one that ``--label`` names, or the first common one, or None."""
    if options.label is not None:
        return None if options.label == "none" else options.label
    return next((name for name in LABEL_NAMES if name in types and name != options.logits), None)


def _class_names(schema: pa.Schema, options: ScoreOptions, logits: LogitsColumn) -> tuple[tuple[str, ...] | None, str]:
    if options.classes is not None:
        return options.classes, FROM_OPTION
    label = label_name(column_types(schema), options)
    names = None if label is None else _class_label_names(schema, label)
    # Numbers in the names of logits columns are class names only if no ClassLabel names the classes.
    if logits.class_names and (names is None or not _are_integers(logits.class_names)):
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


def _class_label_names(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    try:
        found = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
        for name in ("info", "features"):
            found = json_object(found, {name: dict})[name]
        found = json_object(found, {label: dict | list})[label]
        if label in schema.names and not is_list(plain_type(schema.field(label).type)):
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


def _are_indices(schema: pa.Schema, name: str, classes: tuple[str, ...]) -> bool:
    """Return whether the metadata of an output of ``score`` say that labels are indices, not names that are numbers."""
    written = written_by_score(schema)
    return written is not None and written.has_indices and (written.label, written.classes) == (name, classes)


def _are_integers(classes: tuple[str, ...]) -> bool:
    return all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in classes)


def _whole_numbers(array: pa.Array) -> tuple[NDArray[np.int64], Statuses | None]:
    """Return labels as int64; 0 if they are null, not whole numbers, or out of the range of int64."""
    if pa.types.is_null(array.type):
        return np.zeros(len(array), np.int64), np.full(len(array), Status.UNLABELLED, np.uint8)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    values = number_values(array)
    if array.null_count == 0 and values.dtype.kind != "f" and values.dtype != np.uint64:
        return np.require(values, np.int64, "A"), None
    missing = ~valid_rows(array)
    unfit = np.zeros(len(array), np.bool_)
    if values.dtype.kind == "f":
        values = values.astype(np.float64, copy=False)
        missing |= np.isnan(values)
        # 2**63 is a float, and the first that doesn't fit into int64. Null entries may have any value.
        unfit = ~missing & ~((np.abs(values) < 2.0**63) & (np.trunc(values) == values))
        values = np.where(missing | unfit, 0, values)
    elif values.dtype == np.uint64:
        unfit = values > np.uint64(np.iinfo(np.int64).max)
    indices = values.astype(np.int64, copy=False)
    status = _statuses(missing, unfit)
    if status is None:
        return indices if indices.flags.aligned else indices.copy(), None
    return np.where(status == Status.OK, indices, 0), status


def _statuses(missing: NDArray[np.bool_], bad: NDArray[np.bool_]) -> Statuses | None:
    """Return the statuses of labels that are missing or bad; None if none are."""
    if not (missing | bad).any():
        return None
    return np.select([missing, bad], [Status.UNLABELLED, Status.BAD_LABEL], Status.OK).astype(np.uint8)


def _look_up_text(array: pa.Array, lookup: dict[str, int]) -> tuple[NDArray[np.int64], Statuses | None]:
    """Return the index of each name. Dictionary codes aren't class indices: each dictionary entry is looked up once."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if isinstance(array, pa.DictionaryArray):
        codes, names = array.indices, plain_array(array.dictionary)
        found = _index_of(names, lookup).take(codes)
        valid = valid_rows(codes if names.null_count == 0 else names.take(codes))
    else:
        names = plain_array(array)
        found, valid = _index_of(names, lookup), valid_rows(names)
    return found.fill_null(0).cast(pa.int64()).to_numpy(), _statuses(~valid, ~valid_rows(found))


def _index_of(names: pa.Array, lookup: dict[str, int]) -> pa.Array:
    # Compared as bytes, so that text, large text and unannotated bytes are looked up in the same way.
    known = pa.array([name.encode() for name in lookup], pa.large_binary())
    return pc.index_in(names.cast(pa.large_binary()), value_set=known)


def _look_up_numbers(
    numbers: NDArray[np.int64], status: Statuses | None, lookup: dict[str, int], ignore_index: int
) -> Labels:
    # The classes are in the order of their indices.
    found = pc.index_in(pa.array(numbers), value_set=pa.array([int(name) for name in lookup], pa.int64()))
    ignored = numbers == ignore_index
    indices = np.where(ignored, IGNORED_INDEX, found.fill_null(0).cast(pa.int64()).to_numpy())
    statuses = np.where(valid_rows(found) | ignored, Status.OK, Status.BAD_LABEL).astype(np.uint8)
    if status is not None:
        indices[status != Status.OK] = 0
        statuses = np.where(status == Status.OK, statuses, status)
    return Labels(indices, None, statuses if (statuses != Status.OK).any() else None, IGNORED_INDEX)


def _read_targets(
    batch: pa.RecordBatch, label: LabelColumn, n_classes: int, dtype: np.dtype[Any], take: Take
) -> tuple[Matrix, Statuses | None]:
    form = LogitsColumn((label.name,), "list", None, dtype)
    targets, found = read_matrix(batch, form, n_classes, take)
    # NaN makes both comparisons false, infinity the second.
    with np.errstate(invalid="ignore"):
        sums = targets.sum(axis=1, dtype=np.float64)
    fits = np.abs(sums - 1) <= SUM_TOLERANCE if label.sums_to_1 else targets.max(axis=1, initial=0.0) <= 1
    good = (targets.min(axis=1, initial=np.inf) >= 0) & fits
    if found is None and good.all():
        return targets, None
    status = np.where(good, Status.OK, Status.BAD_LABEL).astype(np.uint8)
    if found is not None:
        status[found != Status.OK] = Status.BAD_LABEL
        status[~valid_rows(column_array(batch, label.name))] = Status.UNLABELLED
    return targets, status
