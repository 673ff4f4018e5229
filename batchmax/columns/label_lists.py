"""Labels of multi-label rows: finds what a column holds, and reads the target of each class.

A row has any number of right classes: a K-hot list, with a 0 or 1 for each class; a list of the indices or names of the
right classes; or one column per class. All become an (n, K) matrix of targets, NaN where a target is missing: it is
null, NaN or ``--ignore-index``. Module ``labels`` has the labels of rows with one class.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.columns.arrow import (
    column_array,
    column_types,
    is_text_or_bytes,
    number_values,
    plain_array,
    plain_type,
    read_only,
    type_text,
    valid_rows,
)
from batchmax.columns.class_columns import check_unique, matching_columns, pattern_suffixes
from batchmax.columns.label_column import LabelColumn, LabelKind
from batchmax.columns.matrices import Matrix, Statuses, list_offsets
from batchmax.errors import UsageError
from batchmax.options.input_options import LabelFormat
from batchmax.runtime.buffers import Take
from batchmax.runtime.lazy_imports import ImportedWhenUsed
from batchmax.runtime.text import listed, quantity
from batchmax.statuses import Status

pc = ImportedWhenUsed("pyarrow.compute")

FORMAT_ROWS = 1000
"""The first rows, which decide what lists of integers contain."""

MOST_AMBIGUOUS = 2
"""With up to this many classes, a list can be valid as a K-hot list and as a list of indices."""

FORMAT_TEXTS: dict[LabelKind, str] = {"khot": "K-hot", "indices": "class indices", "names": "class names"}


def find_label_lists(
    label: LabelColumn, plain: pa.DataType, given: LabelFormat | None, n_classes: int, *, are_indices: bool
) -> LabelColumn:
    """Return a column of lists of bool or integers with the kind that its type determines.

    Parameters
    ----------
    label
        The column, of kind ``integers``.
    plain
        Its type, unwrapped by ``plain_type``.
    given
        The option ``--label-format``.
    n_classes
        The number of classes.
    are_indices
        Whether the metadata say that the integers are class indices.

    Raises
    ------
    UsageError
        A list of fixed size doesn't have one value per class, or the kind is unknown and can't be decided by the rows.
    """
    size = plain.list_size if pa.types.is_fixed_size_list(plain) else None
    is_bool = pa.types.is_boolean(plain_type(plain.value_type))
    kind: LabelKind = given or ("indices" if are_indices else "khot" if size is not None else "integers")
    if is_bool:
        kind = "khot"
    if kind == "khot" and size not in {None, n_classes}:
        raise UsageError(
            f"{label.why}: the lists have {quantity(size, 'value')}, but the logits have "
            f"{quantity(n_classes, 'class')}",
            where="--label",
            remedy="K-hot labels need one value per class; if they are class indices: --label-format indices",
        )
    if kind == "integers" and n_classes <= MOST_AMBIGUOUS:
        raise UsageError(
            f"{label.why}: with {quantity(n_classes, 'class')}, lists of integers can be K-hot or class indices",
            where="--label-format",
            remedy="state which: --label-format khot, or --label-format indices",
        )
    return with_kind(label, kind)


def with_kind(label: LabelColumn, kind: LabelKind) -> LabelColumn:
    """Return a column of multi-label rows with a kind, and with the reason why it was chosen."""
    text = f"; multi-label, {FORMAT_TEXTS[kind]}" if kind in FORMAT_TEXTS else ""
    lookup = label.lookup if kind in {"indices", "integers"} else None
    return LabelColumn(label.name, kind, lookup, label.why + text, ignores_names=label.ignores_names)


def find_label_columns(
    schema: pa.Schema, pattern: str, classes: tuple[str, ...] | None, n_classes: int, suffixes: tuple[str, ...]
) -> LabelColumn:
    """Return one column of labels per class, which match a pattern.

    They are matched with the classes by the parts of their names that the pattern leaves open: these are the class
    names, the same parts of the logits columns, or the numbers of the classes.

    Raises
    ------
    UsageError
        No column matches, a class has no column or a column no class, or a type can't hold labels.
    """
    types = column_types(schema)
    names = matching_columns(pattern, types)
    if not names:
        raise UsageError(
            f"no column matches {pattern!r}; the columns are {listed(types)}",
            where="--label",
            remedy="quote the pattern, as in --label 'label_*'",
        )
    for name in names:
        check_unique(schema, name, "--label")
        kind = plain_type(types[name])
        if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise UsageError(
                f"column {name!r} ({type_text(types[name])}) cannot hold the labels of a class",
                where="--label",
                remedy="give a pattern that matches only columns of bool, or of 0 and 1",
            )
    found = dict(zip(map(_key, pattern_suffixes(pattern, names)), names, strict=True))
    keys = [tuple(map(_key, some)) for some in (classes or (), suffixes, map(str, range(n_classes)))]
    fitting = next((some for some in keys if set(some) == found.keys()), None)
    if fitting is None or len(found) < len(names):
        wanted = next(filter(None, keys))
        missing = [key for key in wanted if key not in found]
        extra = [name for key, name in found.items() if key not in wanted]
        if missing:
            what = f"class {missing[0]!r} has no column" + (f", and {extra[0]!r} is not of a class" if extra else "")
        else:
            what = f"column {extra[0]!r} is not of a class" if extra else "two columns are of the same class"
        raise UsageError(
            f"{pattern!r} matches {quantity(len(names), 'column')}: {what}",
            where="--label",
            remedy="give a pattern that matches one column per class, named as the columns of logits or the classes",
        )
    columns = tuple(found[key] for key in fitting)
    kind = type_text(types[columns[0]])
    why = f"{quantity(len(names), 'column')} {columns[0]!r} … {columns[-1]!r} ({kind}), one per class"
    return LabelColumn(pattern, "khot", None, f"{why}; multi-label, K-hot", columns=columns)


def first_rows_of(batches: Iterable[pa.RecordBatch], names: Sequence[str] | None = None) -> pa.RecordBatch | None:
    """Return the first rows of batches, for :func:`decide_format`; None without rows.

    ``names`` are the columns to return, dotted if nested; None for all.
    """
    found, n_rows = [], 0
    for batch in batches:
        there = batch.schema.names
        tops = there if names is None else [name if name in there else name.split(".")[0] for name in names]
        found.append(batch.select(tops))
        n_rows += batch.num_rows
        if n_rows >= FORMAT_ROWS:
            break
    return pa.concat_batches(found) if n_rows else None


def decide_format(batch: pa.RecordBatch | None, label: LabelColumn, n_classes: int, ignore_index: int) -> LabelFormat:
    """Return what lists of integers contain: by the first rows, at most 1,000, or None if there are none.

    Raises
    ------
    UsageError
        Every list can be read both ways.
    """
    if batch is None:
        return "khot"
    rows = batch.slice(0, FORMAT_ROWS)
    readings = [read_label_lists(rows, with_kind(label, kind), n_classes, ignore_index) for kind in ("khot", "indices")]
    n_bad = [0 if status is None else int((status == Status.BAD_LABEL).sum()) for _, status in readings]
    if n_bad[0]:
        return "indices"
    has_lists = valid_rows(plain_array(column_array(rows, label.name))).any()
    if has_lists and not n_bad[1]:
        raise UsageError(
            f"{label.why}: the lists of the first rows can be K-hot or class indices",
            where="--label-format",
            remedy="state which: --label-format khot, or --label-format indices",
        )
    return "khot"


def read_label_lists(
    batch: pa.RecordBatch, label: LabelColumn, n_classes: int, ignore_index: int, take: Take = np.empty
) -> tuple[Matrix, Statuses | None]:
    """Return the targets of rows, (n, n_classes) float64, and their statuses; None if all are ``OK``.

    A null is ``UNLABELLED``, and so is a row whose targets are all missing. A list of another length, another value
    than 0 and 1, an index out of range, an unknown name, or a class twice are ``BAD_LABEL``; their targets are 0.
    """
    array = plain_array(column_array(batch, label.name))
    valid, offsets = valid_rows(array), list_offsets(array)
    child = plain_array(array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0])))
    lengths = np.diff(offsets)
    if label.kind in {"indices", "names"}:
        return _from_indices(child, lengths, valid, label, n_classes, ignore_index, take)
    values, missing = _values(child, ignore_index)
    unfit = ~missing & _is_unfit(values, label)
    targets = take((len(array), n_classes), np.float64)
    present = valid & (lengths == n_classes)
    if not present.all():
        targets[~present] = 0.0
        kept = np.repeat(present, lengths)
        values, missing, unfit = values[kept], missing[kept], unfit[kept]
    shape = (-1, n_classes)
    targets[present] = np.where(missing, np.nan, values).reshape(shape)
    bad, empty = valid & ~present, ~valid
    bad[present] = unfit.reshape(shape).any(axis=1)
    empty[present] = missing.reshape(shape).all(axis=1)
    return _finished(targets, bad, empty)


def read_label_columns(
    batch: pa.RecordBatch, label: LabelColumn, ignore_index: int, take: Take = np.empty
) -> tuple[Matrix, Statuses | None]:
    """Return the same for one column per class."""
    targets = take((batch.num_rows, len(label.columns)), np.float64)
    bad, empty = np.zeros(batch.num_rows, np.bool_), np.ones(batch.num_rows, np.bool_)
    for position, name in enumerate(label.columns):
        values, missing = _values(plain_array(column_array(batch, name)), ignore_index)
        bad |= ~missing & _is_unfit(values, label)
        empty &= missing
        targets[:, position] = np.where(missing, np.nan, values)
    return _finished(targets, bad, empty)


def _finished(targets: Matrix, bad: NDArray[np.bool_], empty: NDArray[np.bool_]) -> tuple[Matrix, Statuses | None]:
    """Return targets, 0 in rows without a label, and the statuses of the rows."""
    status = None
    if (bad | empty).any():
        status = np.select([bad, empty], [Status.BAD_LABEL, Status.UNLABELLED], Status.OK).astype(np.uint8)
        targets[status != Status.OK] = 0.0
    return read_only(targets), status


def _values(array: pa.Array, ignore_index: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return numbers or bools, undefined where missing, and which are missing."""
    is_bool = pa.types.is_boolean(array.type)
    missing = ~valid_rows(array)
    values = number_values(array.cast(pa.int8()) if is_bool else array)
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    if values.dtype.kind == "f":
        missing |= np.isnan(values)
    return values, missing if is_bool else missing | (values == ignore_index)


def _is_unfit(values: NDArray[Any], label: LabelColumn) -> NDArray[np.bool_]:
    """Return which values can't be targets: other than 0 and 1, or for lists of floats outside of 0 to 1."""
    if label.kind == "distribution":
        return np.asarray(~((values >= 0) & (values <= 1)))
    return np.asarray((values != 0) & (values != 1))


def _from_indices(
    child: pa.Array,
    lengths: NDArray[Any],
    valid: NDArray[np.bool_],
    label: LabelColumn,
    n_classes: int,
    ignore_index: int,
    take: Take,
) -> tuple[Matrix, Statuses | None]:
    """Return the targets of lists of indices or names, and the statuses of their rows."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    if is_text_or_bytes(child.type):
        counted, indices = valid_rows(child), _look_up(child.cast(pa.large_binary()), label, pa.large_binary())
    else:
        values, missing = _values(child, ignore_index)
        counted, indices = ~missing, values.astype(np.int64)
        is_huge = indices < 0 if values.dtype.kind == "u" else np.False_  # above the range of int64
        if label.lookup is not None:
            indices = _look_up(pa.array(indices), label, pa.int64())
        indices = np.where(is_huge, -1, indices)
    counted &= valid[rows]
    rows, indices = rows[counted], indices[counted]
    known = (indices >= 0) & (indices < n_classes)
    bad = np.zeros(len(lengths), np.bool_)
    bad[rows[~known]] = True
    places = np.sort(rows[known] * n_classes + indices[known])
    bad[places[1:][places[1:] == places[:-1]] // n_classes] = True
    targets = take((len(lengths), n_classes), np.float64)
    targets.fill(0.0)
    targets.reshape(-1)[places] = 1.0
    return _finished(targets, bad, ~valid)


def _look_up(values: pa.Array, label: LabelColumn, kind: pa.DataType) -> NDArray[np.int64]:
    """Return the class of each name, -1 if it is unknown."""
    names = [name.encode() if pa.types.is_large_binary(kind) else int(name) for name in label.lookup or ()]
    found = pc.index_in(values, value_set=pa.array(names, kind))
    return np.asarray(found.fill_null(-1).cast(pa.int64()).to_numpy())


def _key(suffix: str) -> str:
    """Return a suffix without leading zeros if it is a number."""
    return str(int(suffix)) if suffix.isascii() and suffix.isdigit() else suffix
