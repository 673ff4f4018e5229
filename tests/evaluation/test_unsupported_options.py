"""Options of metrics that some rows don't have are refused, with a remedy that helps; none is ignored."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import batchmax
from batchmax.errors import GateError, UsageError

Z = np.random.default_rng(0).normal(size=(60, 3))
MULTI_LABEL = pa.table({"logits": Z.tolist(), "labels": (Z > 0).tolist()})
SOFT = pa.table({"logits": Z.tolist(), "label": [[0.5, 0.25, 0.25]] * 60})
ROWS = pa.table({"logits": Z.tolist(), "label": [0, 1, 2] * 20})


@pytest.mark.parametrize(
    "given",
    [
        {"positive": "1"},
        {"max_fpr": 0.5},
        {"top_k": 0},
        {"top_k": 2},
    ],
    ids=str,
)
def test_multi_label_rows_have_no_options_of_one_class(given):
    """Metrics of multi-label rows refuse options about one class per row, by their names."""
    with pytest.raises(UsageError, match="metrics of multi-label rows don't support this") as caught:
        batchmax.evaluate(MULTI_LABEL, **given)
    assert caught.value.where.removeprefix("--").replace("-", "_") in given
    assert caught.value.remedy == "leave it out"


@pytest.mark.parametrize(
    "given", [{"curves": "exact"}, {"curves": "binned"}, {"curves_out": "curves.parquet"}], ids=str
)
def test_distributions_have_no_curves(given):
    """Curves of labels that are distributions are refused; using exact ones is not proposed."""
    with pytest.raises(UsageError, match="labels are distributions") as caught:
        batchmax.evaluate(SOFT, **given)
    assert caught.value.remedy == "leave it out"
    assert batchmax.evaluate(SOFT).curves == {"method": "none"}


@pytest.mark.parametrize("bound", ["", ".lower", ".upper"])
def test_bounds_of_metrics_that_rows_do_not_have(bound):
    """A condition on a bound is checked before rows are read, as one on the metric is."""
    with pytest.raises(UsageError, match="no top-k accuracy is computed for 3 classes"):
        batchmax.evaluate(ROWS, fail_if=f"top_k_accuracy{bound} > 2")
    with pytest.raises(UsageError, match="bits_per_token is a metric of sequences"):
        batchmax.evaluate(ROWS, fail_if=f"bits_per_token{bound} > 2")


def test_the_reason_of_a_missing_bound():
    """A condition on a bound of a metric that rows don't have fails, with the reason."""
    batchmax.evaluate(MULTI_LABEL, fail_if="mean_loss.upper > 100")
    with pytest.raises(GateError, match="the rows are multi-label"):
        batchmax.evaluate(MULTI_LABEL, fail_if="accuracy.upper > 100")
    with pytest.raises(GateError, match="--confidence-level 0 computes no intervals"):
        batchmax.evaluate(MULTI_LABEL, confidence_level=0, fail_if="mean_loss.upper > 100")


def test_weighted_tokens_have_no_interval_of_bits():
    """Bits per token don't use weights, so the interval of the weighted mean loss isn't theirs."""
    rows = {
        "logits": pa.array(np.random.default_rng(1).normal(size=(40, 5, 4)).tolist(), pa.list_(pa.list_(pa.float64()))),
        "label": pa.array(np.random.default_rng(2).integers(0, 4, (40, 5)).tolist(), pa.list_(pa.int64())),
        "w": np.linspace(0.1, 9.0, 40),
    }
    plain = batchmax.evaluate(pa.table(rows))
    interval = plain.intervals["bits_per_token"]
    assert interval["lower"] < plain.bits_per_token < interval["upper"]
    weighted = batchmax.evaluate(pa.table(rows), sample_weight="w")
    assert "bits_per_token" not in weighted.intervals
    assert weighted.intervals["mean_loss"] is not None


def test_both_tables_in_one_file(tmp_path):
    """The points of curves can't be written to the file of the metrics; nothing is read or written."""
    out = str(tmp_path / "out.parquet")
    with pytest.raises(UsageError, match=r"--curves-out: it is also the file of the metrics: -o"):
        batchmax.evaluate(ROWS, out=out, curves_out=out)
    assert list(tmp_path.iterdir()) == []


def test_a_report_without_labels_has_no_positive_class(tmp_path):
    """``report`` refuses a positive class without labels, as it refuses groups."""
    with pytest.raises(UsageError, match=r"--positive: a positive class needs labels"):
        batchmax.report(ROWS.select(["logits"]), str(tmp_path / "r.html"), positive="1")


def test_a_report_computes_no_curves(tmp_path, monkeypatch):
    """The page shows neither curves nor intervals, so they aren't computed for it."""
    calls = []
    for name in ("curves.class_scores.ClassScores.of", "interval_sums.IntervalSums.add"):
        monkeypatch.setattr(f"batchmax.evaluation.{name}", lambda *given: calls.append(given))
    batchmax.report(ROWS, str(tmp_path / "r.html"))
    assert calls == []
