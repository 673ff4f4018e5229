"""Finds labels, and converts them to class indices, target distributions or targets of classes.

:func:`find_label` reads the schema, :func:`read_labels` a batch of rows. A label is an index, a class name, or a
distribution over the classes (soft targets); module ``label_lists`` has the labels of multi-label rows. The kernels
check the range of indices, because they read every label anyway. Doesn't know files.
"""

from __future__ import annotations

from typing import Any

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
from batchmax.columns.class_columns import check_unique, is_pattern
from batchmax.columns.class_names import are_integers, class_label_names, label_name
from batchmax.columns.label_column import LABEL_SETS, LabelColumn, Labels
from batchmax.columns.label_lists import find_label_columns, find_label_lists, read_label_columns, read_label_lists
from batchmax.columns.logits_layout import LogitsColumn, list_column
from batchmax.columns.matrices import Matrix, Statuses, read_matrix
from batchmax.columns.scored_input import written_by_score
from batchmax.errors import UsageError
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.buffers import Take
from batchmax.runtime.lazy_imports import ImportedWhenUsed
from batchmax.runtime.text import close_match
from batchmax.statuses import Status

pc = ImportedWhenUsed("pyarrow.compute")

SUM_TOLERANCE = 1e-3
"""Maximum deviation of the sum of a target distribution from 1."""

IGNORED_INDEX = int(np.iinfo(np.int64).min)
"""An index that no row has: it stands for ``--ignore-index`` if labels are class names that are numbers."""


def find_label(
    schema: pa.Schema,
    options: ScoreOptions,
    classes: tuple[str, ...] | None,
    n_classes: int,
    suffixes: tuple[str, ...] = (),
    *,
    is_one_logit: bool = False,
) -> LabelColumn | None:
    """Find the label column: the one that ``--label`` names, or one named ``label``, ``labels`` or ``target``.

    Parameters
    ----------
    schema, options
        The schema of the input, and the options of the job.
    classes
        The class names, if classes have names.
    n_classes
        The number of classes.
    suffixes
        The parts in which the names of the logits columns differ, if each class has one.

    Raises
    ------
    UsageError
        No such column, a type that can't hold labels, text without class names, or an option that doesn't apply to the
        type.
    """
    types = column_types(schema)
    name = label_name(types, options)
    if name is None:
        return None
    if is_one_logit and _has_several(name, types):
        raise UsageError(
            f"{name!r} has several labels per row, and rows of one logit have one",
            where="--label",
            remedy="store each label as a number, bool or name: 0 or 1; or use no labels: --label none",
        )
    if name in types:
        check_unique(schema, name, "--label")
        found = _label_in(schema, name, types[name], options, classes, n_classes)
    elif is_pattern(name):
        found = find_label_columns(schema, name, classes, n_classes, suffixes)
    else:
        raise UsageError(
            f"there is no column {name!r}",
            where="--label",
            remedy=close_match(name, types) + "batchmax inspect FILE shows the columns",
        )
    what = f"column {name!r} ({type_text(types[name])})" if name in types else f"the columns {name!r}"
    if options.label_format is not None and found.kind != options.label_format:
        raise UsageError(
            f"{what}: these are not lists of integers",
            where="--label-format",
            remedy="leave it out; the type of the column determines what the labels are",
        )
    if found.kind in LABEL_SETS and options.activation is not None and ACTIVATIONS[options.activation].is_distribution:
        raise UsageError(
            f"{what}: these are labels of multi-label rows, and activation {options.activation} has one class per row",
            where="--activation",
            remedy="leave it out; if these are target distributions, write them as lists of floats",
        )
    return found


def _has_several(name: str, types: dict[str, pa.DataType]) -> bool:
    """Return whether a column or pattern has labels of multi-label rows."""
    if name not in types:
        return is_pattern(name)
    plain = plain_type(types[name])
    return is_list(plain) and not pa.types.is_floating(plain_type(plain.value_type))


def _label_in(
    schema: pa.Schema,
    name: str,
    kind: pa.DataType,
    options: ScoreOptions,
    classes: tuple[str, ...] | None,
    n_classes: int,
) -> LabelColumn:
    """Return the labels in one column."""
    what = f"column {name!r} ({type_text(kind)})"
    why = f"{what}, {'named with --label' if options.label else 'by its name'}"
    plain = plain_type(kind)
    if is_text_or_bytes(plain):
        return LabelColumn(name, "name", _names(classes, what), why)
    if pa.types.is_integer(plain) or pa.types.is_floating(plain) or pa.types.is_boolean(plain):
        lookup, ignores_names = _numbers(schema, name, classes)
        return LabelColumn(name, "index" if lookup is None else "name", lookup, why, ignores_names=ignores_names)
    if pa.types.is_null(plain):
        return LabelColumn(name, "index", None, why)
    remedy = "choose another column: --label NAME; or use no labels: --label none"
    if not is_list(plain):
        raise UsageError(f"{what} cannot hold labels", where="--label", remedy=remedy)
    item = plain_type(plain.value_type)
    if is_text_or_bytes(item):
        return LabelColumn(name, "names", _names(classes, what), f"{why}; multi-label, class names")
    if pa.types.is_boolean(item) or pa.types.is_integer(item):
        lookup, ignores_names = _numbers(schema, name, classes)
        label = LabelColumn(name, "integers", lookup, why, ignores_names=ignores_names)
        # The items of a Hugging Face ClassLabel are indices.
        are_indices = ignores_names or class_label_names(schema, name) is not None
        return find_label_lists(label, plain, options.label_format, n_classes, are_indices=are_indices)
    try:
        list_column(name, kind)
    except UsageError as error:
        raise UsageError(error.what, where="--label", remedy=remedy) from error
    return LabelColumn(name, "distribution", None, why, ACTIVATIONS[options.activation_name].is_distribution)


def _names(classes: tuple[str, ...] | None, what: str) -> dict[str, int]:
    """Return the index of each class name."""
    if classes is None:
        raise UsageError(
            f"{what} holds text, and the class names are unknown",
            where="--label",
            remedy="give them in the order of the logits: --classes A,B,C; or use no labels: --label none",
        )
    return {class_: index for index, class_ in enumerate(classes)}


def _numbers(schema: pa.Schema, name: str, classes: tuple[str, ...] | None) -> tuple[dict[str, int] | None, bool]:
    """Return the index of each class name if numbers are names; and whether they're indices in spite of such names."""
    if classes is None or not are_integers(classes):
        return None, False
    # A Hugging Face ClassLabel column holds indices, even if its names are numbers.
    if class_label_names(schema, name) == classes or _are_indices(schema, name, classes):
        return None, True
    lookup = {str(int(class_)): index for index, class_ in enumerate(classes)}
    if len(lookup) < len(classes):
        raise UsageError(
            "two class names are the same number",
            where="--classes",
            remedy="give each number once",
        )
    return lookup, False


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
        Rows with the columns ``label.names``.
    label
        What :func:`find_label` found.
    n_classes
        The length of a target distribution.
    dtype
        The type of target distributions: that of the logits. Targets of multi-label rows are float64.
    ignore_index
        The label of rows to ignore: an index, or a class name if class names are numbers. Of multi-label rows, the
        target of classes to ignore.
    take
        Allocator of memory, used if target distributions must be copied.
    """
    if label.is_multi_label:
        if label.columns:
            targets, status = read_label_columns(batch, label, ignore_index, take)
        else:
            targets, status = read_label_lists(batch, label, n_classes, ignore_index, take)
        return Labels(None, targets, status, ignore_index)
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


def _are_indices(schema: pa.Schema, name: str, classes: tuple[str, ...]) -> bool:
    """Return whether the metadata of an output of ``score`` say that labels are indices, not names that are numbers."""
    written = written_by_score(schema)
    return written is not None and written.has_indices and (written.label, written.classes) == (name, classes)


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
    good = (targets.min(axis=1, initial=np.inf) >= 0) & (np.abs(sums - 1) <= SUM_TOLERANCE)
    if found is None and good.all():
        return targets, None
    status = np.where(good, Status.OK, Status.BAD_LABEL).astype(np.uint8)
    if found is not None:
        status[found != Status.OK] = Status.BAD_LABEL
        status[~valid_rows(column_array(batch, label.name))] = Status.UNLABELLED
    return targets, status
