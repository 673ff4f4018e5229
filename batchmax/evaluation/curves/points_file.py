"""Writes the points of curves to a Parquet or CSV file."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from batchmax.evaluation.class_metrics import whole
from batchmax.evaluation.curves.curves import Curves
from batchmax.evaluation.curves.label_curves import LabelCurves
from batchmax.options.score_options import IfExists
from batchmax.runtime.lazy_imports import ImportedWhenUsed
from batchmax.sinks.table_file import save_table, table_output
from batchmax.sinks.text_file import TextFile

csv = ImportedWhenUsed("pyarrow.csv")


class PointsFile:
    """A file for points, which is checked before they are computed.

    Parameters
    ----------
    out
        The path, or a URI: CSV if it ends in ``.csv``, otherwise Parquet.
    if_exists, inputs, storage
        As for :func:`batchmax.sinks.table_file.table_output`.

    Raises
    ------
    UsageError
        The path has another ending, or ``if_exists`` is invalid.
    OutputError
        The file exists and may not be replaced, or is one of the inputs.
    """

    def __init__(
        self, out: str, if_exists: IfExists | None, inputs: Sequence[str], storage: Sequence[str] = ()
    ) -> None:
        self._text = self._table = None
        if str(out).lower().endswith(".csv"):
            self._text = TextFile(out, (".csv",), if_exists or "error", storage)
            self._text.refuse_inputs(list(inputs))
            return
        self._table = table_output(out, if_exists or "error", inputs, storage, endings=".parquet or .csv")

    def write(self, curves: Curves | LabelCurves, names: Sequence[str] | None) -> None:
        """Write the points of all classes; ``names`` are the names of the classes.

        Raises
        ------
        OutputError
            The file can't be written.
        """
        table = points_table(curves, names)
        if self._text is not None:
            stream = io.BytesIO()
            csv.write_csv(table, stream)
            self._text.write(stream.getvalue().decode())
        elif self._table is not None:
            save_table(table, self._table)


def points_table(curves: Curves | LabelCurves, names: Sequence[str] | None) -> pa.Table:
    """Return the points of all classes: class, logit, threshold, and the weights of rows by result.

    The first point of a class has no logit: no row is positive. At the others, rows are positive if their log-odds are
    at least ``logit``, which is the same as a probability of at least ``threshold``.
    """
    columns: dict[str, list[object]] = {name: [] for name in ("class", "logit", "threshold", "tn", "fp", "fn", "tp")}
    for number, points, areas, logits, thresholds in curves.points():
        tp, fp = (np.concatenate([[0.0], one]) for one in (points.true_positives, points.false_positives))
        columns["class"] += [str(number) if names is None else names[number]] * len(tp)
        columns["logit"] += [None, *logits.tolist()]
        columns["threshold"] += [None, *thresholds.tolist()]
        for name, values in (("tn", areas.negatives - fp), ("fp", fp), ("fn", areas.positives - tp), ("tp", tp)):
            columns[name] += map(whole, values.tolist())
    counts = [columns[name] for name in ("tn", "fp", "fn", "tp")]
    kind = pa.int64() if all(isinstance(value, int) for values in counts for value in values) else pa.float64()
    types = [pa.string(), pa.float64(), pa.float64(), kind, kind, kind, kind]
    arrays = [pa.array(values, type_) for values, type_ in zip(columns.values(), types, strict=True)]
    return pa.Table.from_arrays(arrays, names=list(columns))
