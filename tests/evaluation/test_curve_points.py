"""The points of curves are exact, and lines between them are near the curves."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import GateError, OutputError, UsageError
from tests.support.curve_rows import binary, exact_log_odds, several, table

near = lambda value: pytest.approx(value, abs=1e-12)


def interpolation_error(x, y, points):
    """Return the largest distance of curve points from the lines between some of them, above or below.

    Where a line is vertical, a point on it has the distance 0.
    """
    worst, at = 0.0, 0
    for a, b in itertools.pairwise(points):
        for i in range(a + 1, b):
            if x[a] != x[b]:
                line = y[a] + (y[b] - y[a]) * (x[i] - x[a]) / (x[b] - x[a])
                worst = max(worst, abs(line - y[i]))
        at = b
    assert at == len(x) - 1
    return worst


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(("n", "ties", "weighted"), [(30, 0, False), (2000, 2, True), (200_000, None, False)])
def test_points_are_exact_and_enough(n, ties, weighted, ending, tmp_path):
    """Each point has the counts at its threshold, and lines between points are near all other points."""
    z, labels = binary(n, ties=ties)
    weights = np.random.default_rng(1).integers(1, 5, n) / 4 if weighted else np.ones(n)
    out = tmp_path / f"curves.{ending}"
    given = {"sample_weight": "w"} if weighted else {}
    batchmax.evaluate(table(z, labels, weights), curves_out=str(out), **given)
    rows = pq.read_table(out) if ending == "parquet" else pc.read_csv(out)
    assert rows.column_names == ["class", "logit", "threshold", "tn", "fp", "fn", "tp"]
    assert rows.num_rows <= 4000
    points = rows.to_pylist()
    first, *points = points
    assert (first["logit"], first["threshold"], first["tp"], first["fp"]) == (None, None, 0, 0)
    order = np.argsort(-z, kind="stable")
    ends = np.flatnonzero(np.diff(z[order], append=np.nan) != 0)
    tp, fp = (np.cumsum((weights * (labels == which))[order])[ends] for which in (1, 0))
    scores = z[order][ends]
    places = [int(np.flatnonzero(scores == np.float32(one["logit"]))[0]) for one in points]
    for at, one in zip(places, points, strict=True):
        assert (one["tp"], one["fp"]) == (near(tp[at]), near(fp[at]))
        assert (one["fn"], one["tn"]) == (pytest.approx(tp[-1] - tp[at]), pytest.approx(fp[-1] - fp[at]))
        assert one["threshold"] == pytest.approx(1 / (1 + math.exp(-one["logit"])), rel=1e-12)
    recall, precision = tp / tp[-1], tp / (tp + fp)
    assert interpolation_error(fp / fp[-1], recall, places) <= 0.001 + 1e-12
    assert interpolation_error(recall, precision, places) <= 0.001 + 1e-12
    assert places[0] == 0


def test_points_of_several_classes(tmp_path):
    """Each class has its points, under its name."""
    z, labels = several(3000, 3)
    out = tmp_path / "curves.parquet"
    batchmax.evaluate(table(z, labels), curves_out=str(out), classes="cat,dog,owl")
    rows = pq.read_table(out).to_pylist()
    assert {one["class"] for one in rows} == {"cat", "dog", "owl"}
    scores = exact_log_odds(z)
    for at, name in enumerate(("cat", "dog", "owl")):
        for one in [one for one in rows if one["class"] == name and one["logit"] is not None]:
            is_positive = scores[:, at] >= one["logit"] - 1e-12
            assert one["tp"] == np.count_nonzero(is_positive & (labels == at))
            assert one["tn"] == np.count_nonzero(~is_positive & (labels != at))


@pytest.mark.parametrize("positive", ["0", "1"])
@pytest.mark.parametrize("outputs", ["probs", "log_probs"])
def test_points_of_stored_probabilities(outputs, positive, tmp_path):
    """The threshold is the stored probability of the positive class, and the logit its log-odds."""
    z, labels = binary(500, dtype=np.float64)
    pq.write_table(table(z, labels), tmp_path / "in.parquet")
    batchmax.score(str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), outputs=(outputs,))
    points = tmp_path / "curves.parquet"
    batchmax.evaluate(str(tmp_path / "out.parquet"), positive=positive, curves_out=str(points))
    sign = 1 if positive == "1" else -1
    for one in pq.read_table(points).to_pylist()[1:]:
        assert one["threshold"] == pytest.approx(1 / (1 + math.exp(-one["logit"])), rel=1e-6)
        is_positive = sign * z >= one["logit"] - 1e-9
        assert one["tp"] == np.count_nonzero(is_positive & (labels == int(positive)))


def test_the_file_of_points_is_checked_first(tmp_path):
    """An existing file, another ending or curves that aren't exact are refused, and a gate writes nothing."""
    rows = table(*binary(100))
    out = tmp_path / "curves.csv"
    with pytest.raises(GateError, match="auroc is"):
        batchmax.evaluate(rows, curves_out=str(out), fail_if="auroc < 1")
    assert not out.exists()
    batchmax.evaluate(rows, curves_out=str(out))
    with pytest.raises(OutputError, match="exists"):
        batchmax.evaluate(rows, curves_out=str(out))
    batchmax.evaluate(rows, curves_out=str(out), if_exists="overwrite")
    with pytest.raises(UsageError, match=r"curves\.txt"):
        batchmax.evaluate(rows, curves_out=str(tmp_path / "curves.txt"))
    with pytest.raises(UsageError, match="curves are not exact"):
        batchmax.evaluate(rows, curves="binned", curves_out=str(out), if_exists="overwrite")
