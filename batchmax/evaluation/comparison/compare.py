"""Compare the logits of two models on the same rows, pair by pair.

Losses are compared as pairs, which is far more precise than comparing two means, because a row tends to be hard or easy
for both models. ``row_pairing`` finds the pairs, ``pair_metrics`` accumulates the metrics.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from batchmax import __version__
from batchmax.columns.job import check_token_figures
from batchmax.errors import DataError, UsageError
from batchmax.evaluation.comparison.change_sums import BINS, BINS_OF_GROUP, ChangeSums
from batchmax.evaluation.comparison.inputs import WhoseLabels, is_independent, open_inputs
from batchmax.evaluation.comparison.join_keys import values_at
from batchmax.evaluation.comparison.label_change_sums import MOST_BYTES_OF_GROUP, LabelChangeSums
from batchmax.evaluation.comparison.label_pairs import LabelPairMetrics
from batchmax.evaluation.comparison.options_of_b import for_b
from batchmax.evaluation.comparison.pair_metrics import PairMetrics
from batchmax.evaluation.comparison.pair_sums import SMALLER, PairSums
from batchmax.evaluation.comparison.result import OF_TOKENS, Comparison, gate_of
from batchmax.evaluation.comparison.row_groups import RowGroups
from batchmax.evaluation.comparison.row_pairing import RowPairs
from batchmax.evaluation.comparison.token_pairing import SequencePairs, TokenPairs
from batchmax.evaluation.curves.area_intervals import bins_of
from batchmax.evaluation.curves.curves import MOST_CLASSES
from batchmax.evaluation.curves.label_curves import stored_dtype
from batchmax.evaluation.interval_sums import check_level
from batchmax.evaluation.metrics import positive_class
from batchmax.evaluation.multi_label import check_independent
from batchmax.evaluation.row_stream import refuse_bytes
from batchmax.jobs.pipeline import report_source
from batchmax.jobs.threads import use_threads
from batchmax.options.input_options import InputKind, InputOptions
from batchmax.options.parsing import check_at_least, check_type, refuse
from batchmax.options.score_options import resolve_options
from batchmax.runtime.progress import Progress
from batchmax.runtime.spilled_array import SharedMemory
from batchmax.runtime.text import quantity
from batchmax.sources.parquet_source import Source
from batchmax.sources.row_lookup import place_of


def compare(
    a: Any,
    b: Any,
    options: InputOptions | None = None,
    *,
    key: str | None = None,
    labels_from: WhoseLabels | None = None,
    logits_b: str | None = None,
    input_b: InputKind | None = None,
    label_b: str | None = None,
    positive: str | None = None,
    confidence_level: float = 0.95,
    cluster: str | None = None,
    by: str | None = None,
    worst: int = 10,
    fail_if: str | None = None,
    progress: Progress | None = None,
    **given: Any,
) -> Comparison:
    """Compare the losses and predictions of two models on the same rows.

    Parameters
    ----------
    a, b
        Logits or scored output, one or several paths or an object with ``__arrow_c_stream__``. If one has no labels,
        the labels of the other are used for both.
    options
        How both are read, as made by :func:`batchmax.score_options`; or pass its keyword arguments directly. Options
        that only affect the output are ignored.
    key
        Column of integers, text or times that identifies rows; each value occurs once. None pairs rows by position. In
        sequences, tokens are paired by position.
    labels_from
        Whose labels to use if both have labels. None requires them to be equal.
    logits_b, input_b, label_b
        Columns of b, and what its logits column holds, if they differ from a's. None means the same as for a, except
        that ``logits_b`` without ``input_b`` doesn't take over what a's column holds.
    positive
        The positive class of two, by name, or number if classes have no names. None: the second.
    confidence_level
        Confidence level of the intervals of ``changes``; 0 for no ``changes``.
    cluster
        Column of a with clusters of rows that depend on each other, such as rows of one patient; null is a cluster too.
        By default, rows are independent, and each sequence is a cluster of tokens.
    by
        Column of a to group rows by: ``groups`` then has the changes of each value, with p-values adjusted by Holm's
        method over the groups.
    worst
        Number of rows with the largest change to return.
    fail_if
        Condition on the numbers of the result, as for :func:`batchmax.score`.
    progress
        Progress callbacks.

    Raises
    ------
    UsageError
        Invalid option or column, different classes in a and b, or more rows to keep than fit in memory.
    DataError
        Unreadable input; without a key, different numbers of rows, or of tokens in a row; a duplicate key; different
        labels; a bad row with the policy ``error``. With the other policies, pairs with a bad row are left out and
        counted.
    GateError
        The condition is true.

    Notes
    -----
    Mean losses and Brier scores of independent rows are compared by a paired t-test. Accuracy, recall and specificity
    have the interval of Bonett and Price (2012), and the p-value of McNemar's test, which is exact for up to 10,000
    flips; of multi-label rows, so do subset accuracy, and recall and specificity of a class. All other changes,
    including the Brier score of multi-label rows, have intervals by the delete-a-group jackknife, with Student's t
    distribution. The KL divergence is computed in float64 from the logits.

    Examples
    --------
    >>> import batchmax
    >>> import pyarrow as pa
    >>> a = pa.table({"logits": [[2.0, 0.0], [0.0, 1.0]], "label": [0, 0]})
    >>> b = pa.table({"logits": [[2.0, 0.0], [1.0, 0.0]]})
    >>> result = batchmax.compare(a, b)
    >>> result.wrong_to_right, round(result.mean_loss_change, 3)
    (1, -0.5)
    """
    started = time.monotonic()
    gate = None if fail_if is None else gate_of(fail_if)
    options = resolve_options(InputOptions, options, given)
    refuse_bytes(options)
    refuse(
        "losses are compared as plain cross-entropy",
        "leave it out",
        class_weights=options.class_weights,
        label_smoothing=options.label_smoothing,
        pos_weight=options.pos_weight,
    )
    check_type("worst", worst, int)
    check_at_least("--worst", worst, 0)
    check_type("labels_from", labels_from, WhoseLabels | None)
    check_level(confidence_level)
    given_b = {"logits": logits_b, "input": input_b, "label": label_b}
    named = {"--cluster": cluster, "--by": by}
    sources = open_inputs(a, b, options, of_b=given_b, key=key, labels_from=labels_from, columns=named)
    of_a, of_b = sources
    has_sets = is_independent(of_a)
    if has_sets:
        check_independent(of_a.job, positive=positive)
    if gate is not None:
        check_token_figures(gate, of_a.job.options, of_a.job.nesting, OF_TOKENS)
    row_groups = RowGroups(cluster, by)
    changes = _change_sums(of_a, of_b, positive, confidence_level, row_groups)
    metrics = (LabelPairMetrics if has_sets else PairMetrics)(of_a.job, of_b.job, worst, changes)
    if changes is not None and metrics.has_classes:
        # The kernel for changes also computes predictions.
        for one in sources:
            one.job = replace(one.job, outputs=("status",))
    progress = progress or Progress()
    for name, source in zip("ab", sources, strict=True):
        report_source(source, progress, name)
    pairs = (RowPairs if of_a.job.nesting is None else TokenPairs)(of_a, of_b, key, progress, row_groups)
    with use_threads(options):
        for rows_of_a, rows_of_b in pairs:
            metrics.add(rows_of_a, rows_of_b)
        if metrics.first_difference is not None:
            raise _different_labels(metrics, sources, *metrics.first_difference)
        result = Comparison(
            files_a=[file.path for file in of_a.files],
            files_b=[file.path for file in of_b.files],
            unified_a=list(of_a.unified),
            unified_b=list(of_b.unified),
            key=key,
            only_a=pairs.only_a,
            only_b=pairs.only_b,
            n_classes=of_a.job.n_classes,
            task="multilabel" if has_sets else "binary" if of_a.job.n_classes == 2 else "multiclass",
            bytes_read=(of_a.size or 0) + (of_b.size or 0),
            version=__version__,
        )
        if changes is not None:
            result.add_changes(changes, confidence_level, of_a.job.classes or of_b.job.classes)
    result.count(metrics)
    if isinstance(pairs, TokenPairs) and pairs.sequences is not None:
        result.count_sequences(pairs.sequences)
        _check_lengths(pairs.sequences, result, sources)
    result.moved = _moved(metrics.moved, sources, key)
    result.seconds = round(time.monotonic() - started, 3)
    of_each = pairs.warnings[0], map(for_b, pairs.warnings[1])
    for name, texts in zip("ab", of_each, strict=True):
        result.warnings += [f"{name}: {text}" for text in dict.fromkeys(texts)]
    for text in result.warnings:
        progress.warn(text)
    result.warnings[:0] = [f"{name}: {text}" for name, one in zip("ab", sources, strict=True) for text in one.warnings]
    if gate is not None:
        result.check(gate)
    return result


def _change_sums(a: Source, b: Source, positive: str | None, level: float, groups: RowGroups) -> PairSums | None:
    """Return the sums for changes of metrics; None if there are no labels, or no intervals.

    Raises
    ------
    UsageError
        An option is given that has no effect then.
    """
    given = {"--cluster": groups.cluster, "--by": groups.by, "--positive": positive}
    option = next((option for option, name in given.items() if name is not None), None)
    if a.job.label is None and b.job.label is None:
        if option is not None:
            raise UsageError("metrics need labels", where=option, remedy="name the column of labels: --label NAME")
        return None
    if not level:
        if option is not None:
            what = "no changes of metrics are computed: --confidence-level 0"
            raise UsageError(what, where=option, remedy="leave one of the two out")
        return None
    nested, memory = a.job.nesting is not None, a.job.options.memory_limit
    has_clusters = nested or groups.cluster is not None
    n_classes, at, shared = a.job.n_classes, positive_class(a.job, positive), SharedMemory(memory // SMALLER)
    if is_independent(a):
        return _label_sums(a, b, groups, shared)
    has_classes = all(one.job.label is None or one.job.label.has_class for one in (a, b))
    bins = (BINS, BINS_OF_GROUP) if has_classes else (0, 0)
    return PairSums(
        lambda is_group: ChangeSums(n_classes, at, bins[is_group], shared, has_clusters=has_clusters),
        groups,
        memory // SMALLER,
    )


def _label_sums(a: Source, b: Source, groups: RowGroups, shared: SharedMemory) -> PairSums:
    """Return the sums for changes of multi-label rows; areas are computed for as many classes as by ``evaluate``."""
    n_classes = a.job.n_classes
    has_areas = n_classes <= MOST_CLASSES
    dtypes = [stored_dtype(one.job, one.schema) for one in (a, b)] if has_areas else []
    bins = (bins_of(n_classes), bins_of(n_classes, MOST_BYTES_OF_GROUP)) if has_areas else (0, 0)
    has_clusters = groups.cluster is not None
    return PairSums(
        lambda is_group: LabelChangeSums(n_classes, dtypes, bins[is_group], shared, has_clusters=has_clusters),
        groups,
        a.job.options.memory_limit // SMALLER,
    )


def _check_lengths(pairs: SequencePairs, result: Comparison, sources: tuple[Source, Source]) -> None:
    """Check that paired sequences have equal numbers of tokens: raise without a key, warn with one.

    Raises
    ------
    DataError
        Rows are paired by position, and a sequence is longer in one input.
    """
    uneven = np.flatnonzero(pairs.is_uneven)
    if not len(uneven):
        return
    at = uneven[0]
    (file_a, row_a), (file_b, row_b) = _places(sources, *(rows[at] for rows in pairs.rows))
    in_a, in_b = (int(lengths[at]) for lengths in pairs.lengths)
    what = f"{quantity(in_a, 'token')}, and {in_b:,} in {file_b} (row {row_b:,})"
    if result.key is None:
        raise DataError(
            f"row {row_a:,} has {what}",
            where=file_a,
            remedy="pair rows by a column of unique values: --key COLUMN",
        )
    result.warnings.append(
        f"{quantity(len(uneven), 'sequence has', 'sequences have')} a different number of tokens in b; tokens without "
        f"a partner are left out; the first is row {row_a:,} of {file_a}: {what}"
    )


def _different_labels(
    metrics: PairMetrics, sources: tuple[Source, Source], a: int, b: int, token: int | None
) -> DataError:
    """Return the error for different labels, given the first rows that have them."""
    (file_a, row_a), (file_b, row_b) = _places(sources, a, b)
    unit, at = ("row", "") if token is None else ("token", f", token {token:,}")
    many = metrics.different_labels > 1
    count = f"{metrics.different_labels:,} of {metrics.counted:,} {unit}s have" if many else f"a {unit} has"
    return DataError(
        f"{count} a different label in {file_b}, first in row {row_a:,}{at} (there row {row_b:,})",
        where=file_a,
        remedy="pair rows by a column of unique values: --key COLUMN; or use the labels of one: --labels-from a",
    )


def _places(sources: tuple[Source, Source], *numbers: int) -> list[tuple[str, int]]:
    """Return the files of a row of a and a row of b that are numbered over all files, and their numbers in these."""
    return [place_of(source.files, number) for source, number in zip(sources, numbers, strict=True)]


def _moved(table: pa.Table, sources: tuple[Source, Source], key: str | None) -> list[dict[str, Any]]:
    """Return the rows with the largest change, with their places, class names and keys."""
    rows, of_a = table.to_pylist(), sources[0]
    classes = of_a.job.classes or sources[1].job.classes
    keys: dict[int, int | str] = {}
    if key is not None:
        keys = values_at(of_a.files, key, [row["number_a"] for row in rows], of_a.job.options.memory_limit)
    result = []
    for row in rows:
        a, b = row.pop("number_a"), row.pop("number_b")
        (file, at), (file_b, at_b) = _places(sources, a, b)
        for name in ("label", "pred_a", "pred_b"):
            found = row[name]
            if classes is not None and found is not None:
                row[name] = [classes[one] for one in found] if isinstance(found, list) else classes[found]
        token = {"token": row.pop("token")} if "token" in row else {}
        result.append({"file": file, "row": at, "file_b": file_b, "row_b": at_b, **token, "key": keys.get(a), **row})
    return result
