"""Open the two inputs of a comparison, and check that their rows can be compared.

Knows how rows are read; doesn't know how they are paired or compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from batchmax.activations import ACTIVATIONS
from batchmax.columns.arrow import column_types, type_text
from batchmax.columns.class_columns import refuse_as_class
from batchmax.columns.row_values import check_by
from batchmax.errors import UsageError
from batchmax.evaluation.cluster_keys import check_cluster
from batchmax.evaluation.comparison.join_keys import check_key, comparable_type
from batchmax.evaluation.comparison.options_of_b import for_b, named_for_b
from batchmax.evaluation.comparison.row_pairing import name_of
from batchmax.evaluation.row_stream import open_rows, read_if_stdin
from batchmax.options.input_options import InputOptions
from batchmax.runtime.text import quantity
from batchmax.sources.memory_check import check_memory
from batchmax.sources.parquet_source import Source

READING_SHARE = 0.75
"""Memory of reading relative to the estimate for a job that also writes. The largest measured share was two thirds."""

WhoseLabels = Literal["a", "b"]


def open_inputs(
    a: Any,
    b: Any,
    options: InputOptions,
    *,
    of_b: Mapping[str, Any],
    key: str | None,
    labels_from: WhoseLabels | None,
    columns: dict[str, str | None],
) -> tuple[Source, Source]:
    """Open both inputs.

    Parameters
    ----------
    a, b
        Paths, or objects with ``__arrow_c_stream__``.
    options
        How both are read.
    of_b
        The options that differ for b: ``logits``, ``input`` and ``label``; None if they don't.
    key
        The column that pairs rows, or None.
    labels_from
        Whose labels to use.
    columns
        The columns of a to keep, by the option that names each, ``--cluster`` or ``--by``; None for none.

    Raises
    ------
    UsageError
        Invalid option or column, different classes or kinds of labels, or a job that doesn't fit in the memory limit.
    DataError
        Unreadable input.
    """
    own: dict[str, Any] = {name: value for name, value in of_b.items() if value is not None}
    if "logits" in own and "input" not in own:
        own["input"] = None  # a's option doesn't apply to another column
    shared = [name for name in of_b if name not in own and getattr(options, name) is not None]
    a, b = read_if_stdin(a, options), read_if_stdin(b, options)
    options_of = _with_labels(options, labels_from, "a"), _with_labels(replace(options, **own), labels_from, "b")

    def opened(side: int, **more: Any) -> Source:
        given = replace(options_of[side], **more)
        if side == 0:
            return _open(a, given, key, columns)
        with named_for_b(shared):
            source = _open(b, given, key)
        notes = tuple(for_b(note, shared) for note in source.job.notes)
        source.job = replace(source.job, notes=notes, assumed=for_b(source.job.assumed))
        return source

    sources = [opened(0), opened(1)]
    labelled = [source for source in sources if source.job.label is not None]
    for side, source in enumerate(sources):
        # The labels of the other input, which are used for both, decide the activation.
        differs = labelled and is_independent(labelled[0]) and not is_independent(source)
        if source.job.label is None and differs and options.activation is None:
            _check_reopening((a, b)[side], source)
            sources[side] = opened(side, activation="sigmoid")
    _check_agreement(sources[0], sources[1], key)
    return sources[0], sources[1]


def is_independent(source: Source) -> bool:
    """Return whether the classes of a row are independent, as those of multi-label rows are."""
    return not ACTIVATIONS[source.job.options.activation_name].is_distribution


def _check_reopening(src: Any, source: Source) -> None:
    if hasattr(src, "__arrow_c_stream__") and not hasattr(src, "__len__"):
        raise UsageError(
            "the labels of the other input are multi-label, and a stream can be opened only once",
            where=name_of(source),
            remedy="choose the activation: --activation sigmoid",
        )


def _with_labels(options: InputOptions, labels_from: WhoseLabels | None, name: str) -> InputOptions:
    """Return the options of an input, without labels if those of the other are used."""
    return options if labels_from in {None, name} else replace(options, label="none")


def _open(src: Any, options: InputOptions, key: str | None, columns: dict[str, str | None] | None = None) -> Source:
    """Open an input with its key, and with the columns that these options name."""
    if key is not None and hasattr(src, "__arrow_c_stream__"):
        raise UsageError(
            "keys are read before the rows, and a stream can be read only once",
            where="--key",
            remedy="write it into a file first, or pair rows by position",
        )
    named = {} if key is None else {key: "--key"}
    for option, name in (columns or {}).items():
        if name is not None:
            named.setdefault(name, option)
    source = open_rows(src, options, ("pred", "status"), named)
    types = column_types(source.schema)
    for option, name in (columns or {}).items():
        if name is not None:
            refuse_as_class(source.job.logits, option, [name])
            (check_cluster if option == "--cluster" else check_by)(name, types[name])
    return source


def _check_agreement(a: Source, b: Source, key: str | None) -> None:
    """Check that the classes are the same, that labels are of one kind, and that reading both fits in memory."""
    names = name_of(a), name_of(b)
    if (a.job.nesting is None) != (b.job.nesting is None):
        nested = names[a.job.nesting is None]
        raise UsageError(
            f"the rows of {nested} are sequences, and those of the other input aren't",
            where="--logits",
            remedy="compare sequences with sequences",
        )
    if is_independent(a) != is_independent(b):
        several = is_independent(b)
        raise UsageError(
            f"the rows of {names[several]} are multi-label, and those of {names[not several]} aren't",
            where="--activation",
            remedy="choose one for both: --activation sigmoid; or whose labels to use: --labels-from a, or b",
        )
    if a.job.n_classes != b.job.n_classes:
        raise UsageError(
            f"{quantity(b.job.n_classes, 'class')}, but {a.job.n_classes:,} in {names[0]}",
            where=names[1],
            remedy="compare inputs with the same classes; to see them: batchmax inspect FILE",
        )
    if a.job.classes and b.job.classes and a.job.classes != b.job.classes:
        order = "in another order" if set(a.job.classes) == set(b.job.classes) else "named differently"
        raise UsageError(
            f"the classes are {order} than in {names[0]}",
            where=names[1],
            remedy="reorder the logits, or, if only names differ, give them: --classes A,B,C",
        )
    kinds = [not source.job.label.has_class for source in (a, b) if source.job.label is not None]
    if len(set(kinds)) > 1:
        kind = "sets of classes" if is_independent(a) else "distributions"
        raise UsageError(
            f"labels are {kind} in {names[not kinds[0]]} and classes in {names[kinds[0]]}",
            where="--label",
            remedy="choose whose labels to use: --labels-from a, or b",
        )
    if key is not None:
        types = [source.schema.field(key).type for source in (a, b)]
        for source, type_, name in zip((a, b), types, names, strict=True):
            check_key(type_, key, name)
            refuse_as_class(source.job.logits, "--key", [key])
        if comparable_type(types[0]) != comparable_type(types[1]):
            words = [type_text(one) for one in types]
            raise UsageError(
                f"column {key!r} is {words[0]} in {names[0]} and {words[1]} in {names[1]}, so no keys are equal",
                where="--key",
                remedy="write it with the same type in both inputs, or name another column",
            )
    check_memory(a, b, what="reading both takes", share=READING_SHARE)
