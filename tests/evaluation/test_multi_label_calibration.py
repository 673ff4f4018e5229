"""Calibration of multi-label rows, and their worst rows, against SciPy, scikit-learn and brute force."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

import batchmax
from batchmax.errors import UsageError
from tests.support.requirements import optional

optimize = optional("scipy.optimize")
linear_model = optional("sklearn.linear_model")

NAMES = ("cat", "dog", "fish", "bird")
N, K = 600, len(NAMES)


def _table(missing: float = 0.0, *, masked: bool = False) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Return rows whose logits are twice as large as they should be, with the logits and targets."""
    random = np.random.default_rng(5)
    z = random.normal(size=(N, K)) * 3
    y = (random.random((N, K)) < 1 / (1 + np.exp(-z / 2))).astype(float)
    if masked:
        z[:50, 0] = np.where(y[:50, 0] == 1, np.inf, -np.inf)
    y[random.random((N, K)) < missing] = np.nan
    labels = [[None if np.isnan(one) else bool(one) for one in row] for row in y]
    return pa.table({"logits": z.tolist(), "label": labels}), z, y


def _losses(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the binary cross-entropy of each class of rows with a target; 0 where one is missing."""
    with np.errstate(invalid="ignore"):
        losses = np.where(np.isinf(z), 0.0, np.maximum(z, 0) - z * y + np.log1p(np.exp(-abs(z))))
    return np.nan_to_num(losses)[~np.isnan(y).all(axis=1)]


@pytest.mark.parametrize(("missing", "masked"), [(0.0, False), (0.3, False), (0.2, True)])
def test_temperature(missing, masked, tmp_path):
    """The temperature has the smallest mean loss; ``score`` and ``evaluate`` with it have that loss."""
    rows, z, y = _table(missing, masked=masked)
    best = optimize.minimize_scalar(
        lambda t: _losses(z / np.exp(t), y).sum(axis=1).mean(),
        bounds=(-3, 3),
        method="bounded",
        options={"xatol": 1e-9},
    )
    path = tmp_path / "c.json"
    found = batchmax.calibrate(rows, path, holdout=0)
    assert found.activation == "sigmoid"
    assert found.temperature == pytest.approx(np.exp(best.x), rel=1e-5)
    assert found.nll_before == pytest.approx(_losses(z, y).sum(axis=1).mean(), rel=1e-12)
    assert found.nll_after == pytest.approx(best.fun, rel=1e-9)
    before, after = batchmax.evaluate(rows), batchmax.evaluate(rows, calibration=str(path))
    assert (found.ece_before, found.ece_after) == (before.ece, after.ece)
    assert after.mean_loss == pytest.approx(found.nll_after, rel=1e-12)
    assert batchmax.score(rows, tmp_path / "s.parquet", calibration=str(path)).mean_loss == after.mean_loss
    batchmax.verify(str(tmp_path / "s.parquet"))


def test_scale_and_bias(tmp_path):
    """With the method ``vector``, each class has the parameters of a logistic regression of its labels."""
    rows, z, y = _table()
    found = batchmax.calibrate(rows, tmp_path / "c.json", method="vector", holdout=0)
    for at in range(K):
        model = linear_model.LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(z[:, [at]], y[:, at])
        assert found.scale[at] == pytest.approx(model.coef_[0, 0], abs=1e-4)
        assert found.bias[at] == pytest.approx(model.intercept_[0], abs=1e-4)
    probs = batchmax.score(rows, tmp_path / "s.parquet", calibration=str(tmp_path / "c.json"))
    assert probs.mean_loss == pytest.approx(found.nll_after, rel=1e-12)


def test_rows_of_one_class_with_sigmoid():
    """Labels that are classes are targets of 1, and 0 for all others."""
    rows, z, _ = _table()
    labels = np.argmax(z, axis=1)
    one = batchmax.calibrate(
        pa.table({"logits": rows["logits"], "label": labels}), holdout=0, activation="sigmoid", method="vector"
    )
    sets = pa.array([[at == label for at in range(K)] for label in labels])
    assert (
        one.scale
        == batchmax.calibrate(pa.table({"logits": rows["logits"], "label": sets}), holdout=0, method="vector").scale
    )


def test_one_logit_equals_two():
    """Rows of one logit have the temperature of two logits, the first of them 0."""
    random = np.random.default_rng(1)
    z = random.normal(size=500) * 4
    labels = (random.random(500) < 1 / (1 + np.exp(-z / 2))).astype(int)
    one = batchmax.calibrate(pa.table({"logit": z, "label": labels}))
    two = batchmax.calibrate(pa.table({"logits": [[0.0, value] for value in z], "label": labels}))
    assert one.temperature == two.temperature
    assert (one.activation, one.nll_after, one.ece_after) == ("softmax", two.nll_after, two.ece_after)


def test_a_calibration_is_for_one_activation(tmp_path):
    """A calibration of sigmoid sets the activation, and is refused for another; files without one are of softmax."""
    rows, z, _ = _table()
    classes = pa.table({"logits": rows["logits"], "label": np.argmax(z, axis=1)})
    unlabeled, out = pa.table({"logits": rows["logits"]}), tmp_path / "s.parquet"
    batchmax.calibrate(rows, tmp_path / "sigmoid.json")
    batchmax.calibrate(classes, tmp_path / "softmax.json")
    old = json.loads((tmp_path / "softmax.json").read_text())
    del old["activation"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    sigmoid = str(tmp_path / "sigmoid.json")
    batchmax.score(unlabeled, out, calibration=sigmoid, outputs="probs,preds")
    for name in ("softmax.json", "old.json"):
        batchmax.evaluate(classes, calibration=str(tmp_path / name))
        with pytest.raises(UsageError, match="the calibration is for softmax, not for sigmoid"):
            batchmax.evaluate(rows, calibration=str(tmp_path / name))
    with pytest.raises(UsageError, match="the calibration is for sigmoid, not for softmax"):
        batchmax.score(classes, out, calibration=sigmoid, activation="softmax")
    with pytest.raises(UsageError, match="and there is one logit"):
        batchmax.score(pa.table({"logit": z[:, 0]}), out, calibration=sigmoid)


def test_worst_rows():
    """The rows with the largest losses have lists of their labels and predictions."""
    rows, z, y = _table(missing=0.1)
    assert not np.isnan(y).all(axis=1).any()
    losses = _losses(z, y).sum(axis=1)
    first = np.argsort(-losses, kind="stable")[:7]
    found = batchmax.worst_rows(rows, 7, classes=NAMES)
    assert found.column_names == ["file", "row", "label", "pred", "loss"]
    assert found["row"].to_pylist() == first.tolist()
    assert found["loss"].to_pylist() == pytest.approx(losses[first].tolist())
    for name, is_in in (("label", y == 1), ("pred", z > 0)):
        assert found[name].to_pylist() == [[NAMES[at] for at in np.flatnonzero(is_in[row])] for row in first]
    numbers = batchmax.worst_rows(rows, 1)["label"].to_pylist()
    assert numbers == [np.flatnonzero(y[first[0]] == 1).tolist()]


def test_report_refuses_multi_label_rows(tmp_path):
    """``report`` refuses multi-label rows, by their labels or the activation."""
    rows, z, _ = _table()
    classes = pa.table({"logits": rows["logits"], "label": np.argmax(z, axis=1)})
    for given in ((rows, {}), (classes, {"activation": "sigmoid"})):
        with pytest.raises(UsageError, match=r"multi-label rows have no report; name a column with one class per row"):
            batchmax.report(given[0], str(tmp_path / "r.html"), **given[1])
