"""Tests results against values derived by hand: published examples, closed forms, and a row for each row status."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import batchmax

INF = math.inf
NAN = math.nan

DTYPES = [np.float32, np.float64]

WORKED = [
    ([0.95, 0.99, 0.98], 500.0, [2.05e-9, 0.993307, 0.00669285]),
    ([0.95, 0.99, 0.98], 1.0, [0.3256, 0.3389, 0.3355]),
    ([1.5, 0.8, -0.2], 1.0, [0.5955, 0.2957, 0.1088]),
    ([-1.0, 1.0, 2.0, 3.0], 1.0, [0.0120, 0.0889, 0.2418, 0.6572]),
    ([1.0, 2.0], 1.0, [0.26894142, 0.73105858]),
    ([10.0, 20.0], 1.0, [4.53978687e-05, 0.999954602]),
    ([2.0, 1.0, 0.5], 1.0, [0.6285, 0.2312, 0.1402]),
]


def last_digit(x: float) -> float:
    """Return half a unit of the last decimal digit in the number's repr."""
    return 0.5 * 10.0 ** -len(repr(x).split("e")[0].split(".")[1]) * 10.0 ** int(f"{x!r}e0".split("e")[1])


@pytest.mark.parametrize(("logits", "beta", "expected"), WORKED)
def test_worked_examples(logits: list[float], beta: float, expected: list[float]) -> None:
    """Published examples are reproduced to every published digit."""
    got = batchmax.softmax(np.array(logits), temperature=1 / beta)
    for p, x in zip(got, expected, strict=True):
        assert abs(p - x) <= 1.02 * last_digit(x)


def test_first_of_four() -> None:
    """The first element of softmax([3.2, 1.3, 0.2, 0.8]) is 0.775."""
    assert batchmax.softmax(np.array([3.2, 1.3, 0.2, 0.8]))[0] == pytest.approx(0.775, abs=5e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logs_of_integers(dtype: Any) -> None:
    """Logits log 1, 2, 3, 4 give the probabilities 0.1, 0.2, 0.3, 0.4 and the losses log 10, 5, 10/3, 5/2."""
    logits = np.log(np.array([[1, 2, 3, 4]] * 4, dtype))
    probs, losses = batchmax.softmax_cross_entropy(logits, np.arange(4))
    rel = 4 * float(np.finfo(dtype).eps)
    assert probs[0] == pytest.approx(np.array([0.1, 0.2, 0.3, 0.4], dtype), rel=rel)
    assert losses == pytest.approx(np.log(np.array([10, 5, 10 / 3, 2.5])).astype(dtype), rel=rel)
    assert batchmax.logsumexp(logits) == pytest.approx(np.full(4, math.log(10), dtype), rel=rel)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [1, 2, 4, 32, 64, 1024])
def test_equal_logits(n_classes: int, dtype: Any) -> None:
    """K equal logits give probabilities of exactly 1/K and a loss of log K; K is 1, 2, 4, 32, 64 or 1024."""
    logits = np.full((3, n_classes), 7.25, dtype)
    probs, losses = batchmax.softmax_cross_entropy(logits, np.zeros(3, int))
    assert probs.tolist() == np.full((3, n_classes), 1 / n_classes).tolist()
    assert losses == pytest.approx(np.full(3, math.log(n_classes)), rel=4 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_class(dtype: Any) -> None:
    """With one class the probability is exactly 1 and the loss exactly 0 for any logit."""
    logits = np.array([[0], [-1e30], [1e30], [3.5]], dtype)
    probs, losses = batchmax.softmax_cross_entropy(logits, np.zeros(4, int))
    assert probs.tolist() == [[1.0]] * 4
    assert losses.tolist() == [0.0] * 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_at_both_ends(dtype: Any) -> None:
    """The loss equals the logit gap for a label far below the maximum, and falls to 0 for a label far above."""
    gaps = np.array([1, 10, 100, 1000, 1e6, 1e30], dtype)
    logits = np.stack([np.zeros_like(gaps), gaps], axis=1)
    falling = batchmax.cross_entropy(logits, np.ones(6, int))
    rising = batchmax.cross_entropy(logits, np.zeros(6, int))
    assert np.all(np.diff(falling) <= 0)
    assert falling[-1] == 0
    assert rising[2:].tolist() == gaps[2:].tolist()


def test_temperature() -> None:
    """Temperature 2 halves the logits; near 0 softmax is one-hot at the maximum, at 1e30 it is uniform."""
    logits = np.array([1.0, 2.0, 4.0])
    assert batchmax.softmax(logits, temperature=2).tolist() == batchmax.softmax(logits / 2).tolist()
    assert batchmax.softmax(logits, temperature=1e-20).tolist() == [0, 0, 1]
    assert batchmax.softmax(logits, temperature=1e30) == pytest.approx([1 / 3] * 3, rel=1e-15)


def test_smoothing_by_hand() -> None:
    """With smoothing 0.3 and two classes the loss is 0.85 of the label's plus 0.15 of the other class's."""
    loss = batchmax.cross_entropy(np.log([[0.25, 0.75]]), np.array([1]), label_smoothing=0.3)
    assert loss[0] == pytest.approx(0.85 * math.log(4 / 3) + 0.15 * math.log(4), rel=1e-14)


def test_weights_by_hand() -> None:
    """A class weight multiplies the loss; the mean is divided by the sum of the labels' weights."""
    logits = np.log([[0.25, 0.75], [0.5, 0.5]])
    options: dict[str, Any] = {"class_weights": np.array([2.0, 6.0])}
    labels = np.array([1, 0])
    assert batchmax.cross_entropy(logits, labels, **options) == pytest.approx([6 * math.log(4 / 3), 2 * math.log(2)])
    mean = batchmax.cross_entropy(logits, labels, reduction="mean", **options)
    assert mean == pytest.approx((6 * math.log(4 / 3) + 2 * math.log(2)) / 8)


def test_distribution_by_hand() -> None:
    """The loss of a soft target that equals the probabilities is their entropy."""
    target = np.array([[0.25, 0.75]])
    loss = batchmax.cross_entropy(np.log(target), target)
    assert loss[0] == pytest.approx(0.25 * math.log(4) + 0.75 * math.log(4 / 3), rel=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [3, 32, 33, 70, 1000])
@pytest.mark.parametrize("where", [0, 1, -1])
class TestStatuses:
    """Results of each kind of flagged row, for every position of the special value, between normal rows."""

    @staticmethod
    def rows(n_classes: int, dtype: Any) -> np.ndarray:
        """Return five rows of zeros; tests change the middle one."""
        return np.zeros((5, n_classes), dtype)

    @staticmethod
    def check_others(probs: np.ndarray, losses: np.ndarray, n_classes: int) -> None:
        """Check that the four other rows are uniform."""
        others = [0, 1, 3, 4]
        assert probs[others] == pytest.approx(np.full((4, n_classes), 1 / n_classes), rel=1e-6)
        assert losses[others] == pytest.approx(np.full(4, math.log(n_classes)), rel=1e-6)

    def test_masked_class(self, n_classes: int, dtype: Any, where: int) -> None:
        """A class with logit -inf has probability 0, and the other classes have the values they have without it."""
        logits = self.rows(n_classes, dtype)
        logits[2, where] = -INF
        labels = np.full(5, 2 if n_classes > 3 else (where + 1) % 3)
        probs, losses = batchmax.softmax_cross_entropy(logits, labels)
        self.check_others(probs, losses, n_classes)
        assert probs[2, where] == 0
        assert np.delete(probs[2], where) == pytest.approx(np.full(n_classes - 1, 1 / (n_classes - 1)), rel=1e-6)
        assert losses[2] == pytest.approx(math.log(n_classes - 1), rel=1e-6)
        assert batchmax.log_softmax(logits)[2, where] == -INF
        assert batchmax.logsumexp(logits)[2] == pytest.approx(math.log(n_classes - 1), rel=1e-6)

    def test_masked_label(self, n_classes: int, dtype: Any, where: int) -> None:
        """A label whose logit is -inf has an infinite loss; the probabilities still sum to 1."""
        logits = self.rows(n_classes, dtype)
        logits[2, where] = -INF
        probs, losses = batchmax.softmax_cross_entropy(logits, np.full(5, where % n_classes))
        self.check_others(probs, losses, n_classes)
        assert losses[2] == INF
        assert probs[2].sum() == pytest.approx(1)

    def test_nan_logit(self, n_classes: int, dtype: Any, where: int) -> None:
        """A NaN logit makes every probability, the loss and the logsumexp of its row NaN."""
        for beside in (0.0, INF, -INF):
            logits = self.rows(n_classes, dtype)
            logits[2] = beside
            logits[2, where] = NAN
            probs, losses = batchmax.softmax_cross_entropy(logits, np.zeros(5, int))
            self.check_others(probs, losses, n_classes)
            assert np.isnan(probs[2]).all()
            assert np.isnan(losses[2])
            assert np.isnan(batchmax.softmax(logits)[2]).all()
            assert np.isnan(batchmax.log_softmax(logits)[2]).all()
            assert np.isnan(batchmax.logsumexp(logits)[2])
            assert np.isnan(batchmax.cross_entropy(logits, np.zeros(5, int))[2])

    def test_inf_logit(self, n_classes: int, dtype: Any, where: int) -> None:
        """A logit of +inf makes every probability and the loss NaN for any label; the logsumexp is +inf."""
        for beside in (0.0, -INF, INF):
            logits = self.rows(n_classes, dtype)
            logits[2] = beside
            logits[2, where] = INF
            for label in (0, n_classes - 1):
                probs, losses = batchmax.softmax_cross_entropy(logits, np.full(5, label))
                self.check_others(probs, losses, n_classes)
                assert np.isnan(probs[2]).all()
                assert np.isnan(losses[2])
                assert np.isnan(batchmax.cross_entropy(logits, np.full(5, label))[2])
            assert np.isnan(batchmax.softmax(logits)[2]).all()
            assert np.isnan(batchmax.log_softmax(logits)[2]).all()
            assert batchmax.logsumexp(logits)[2] == INF

    def test_all_masked(self, n_classes: int, dtype: Any, where: int) -> None:
        """If all logits are -inf, probabilities and loss are NaN and the logsumexp is -inf."""
        logits = self.rows(n_classes, dtype)
        logits[2] = -INF
        probs, losses = batchmax.softmax_cross_entropy(logits, np.full(5, where % n_classes))
        self.check_others(probs, losses, n_classes)
        assert np.isnan(probs[2]).all()
        assert np.isnan(losses[2])
        assert np.isnan(batchmax.log_softmax(logits)[2]).all()
        assert batchmax.logsumexp(logits)[2] == -INF

    def test_bad_label(self, n_classes: int, dtype: Any, where: int) -> None:
        """A label below 0 or above K - 1, in any row, raises IndexError."""
        logits = self.rows(n_classes, dtype)
        for bad in (-1, n_classes, -101, 2**40):
            labels = np.zeros(5, np.int64)
            labels[where] = bad
            for function in (batchmax.cross_entropy, batchmax.softmax_cross_entropy):
                with pytest.raises(IndexError):
                    function(logits, labels)

    def test_ignored(self, n_classes: int, dtype: Any, where: int) -> None:
        """A label equal to the ignore index has loss 0, and its row keeps its probabilities."""
        logits = self.rows(n_classes, dtype)
        labels = np.array([0, 0, -100, 0, 0])
        probs, losses = batchmax.softmax_cross_entropy(logits, labels)
        self.check_others(probs, losses, n_classes)
        assert losses[2] == 0
        assert probs[2, where] == pytest.approx(1 / n_classes, rel=1e-6)
