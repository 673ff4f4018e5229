"""Tests the NumPy API against PyTorch in float64, SciPy and the exact oracle, over a grid of arguments.

Where batchmax deliberately differs from PyTorch or SciPy, a test is named after the deviation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import batchmax
from batchmax.functional import softmax
from tests.support import oracle
from tests.support.pytorch import torch_cross_entropy
from tests.support.requirements import optional

scipy = optional("scipy")

torch = optional("torch")

Array = NDArray[Any]

FLOATS = [np.float16, np.float32, np.float64]
REDUCTIONS = ["none", "mean", "sum"]


def tolerance(dtype: Any) -> float:
    """Return a relative tolerance for results of this type compared with rounded float64 results."""
    return 1e-12 if dtype == np.float64 else 4 * float(np.finfo(dtype).eps)


def result_type(dtype: Any) -> Any:
    """Return the documented result type: float32 for float16 and float32, else float64."""
    return np.float32 if dtype in (np.float16, np.float32) else np.float64


@pytest.mark.parametrize("dtype", [*FLOATS, np.int8, np.int32, np.int64, np.uint8])
@pytest.mark.parametrize("shape", [(7,), (5, 7), (3, 4, 7), (2, 3, 4, 5), (6, 100), (40, 3)])
def test_softmax_log_softmax_logsumexp_along_every_axis(
    rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]
) -> None:
    """Along any axis of any shape, the three functions agree with PyTorch and SciPy and return the documented type."""
    logits = np.asarray(rng.uniform(0, 20, shape)).astype(dtype)
    wide = logits.astype(np.float64)
    kind = result_type(dtype)
    for axis in range(-len(shape), len(shape)):
        compared = [
            (batchmax.softmax(logits, axis=axis), torch.softmax(torch.tensor(wide), axis).numpy()),
            (batchmax.softmax(logits, axis=axis), scipy.special.softmax(wide, axis=axis)),
            (batchmax.log_softmax(logits, axis=axis), torch.log_softmax(torch.tensor(wide), axis).numpy()),
            (batchmax.log_softmax(logits, axis=axis), scipy.special.log_softmax(wide, axis=axis)),
            (batchmax.logsumexp(logits, axis=axis), torch.logsumexp(torch.tensor(wide), axis).numpy()),
            (batchmax.logsumexp(logits, axis=axis), scipy.special.logsumexp(wide, axis=axis)),
        ]
        for got, expected in compared:
            assert np.asarray(got).dtype == kind
            assert np.shape(got) == expected.shape
            # PyTorch and SciPy compute log-probabilities near 0 less accurately, as log S - z + max.
            np.testing.assert_allclose(got, expected, rtol=tolerance(kind), atol=1e-13)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("kind", ["indices", "some ignored", "ignored inside", "distributions"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_cross_entropy_agrees_with_pytorch(
    rng: np.random.Generator,
    dtype: Any,
    kind: str,
    weighted: bool,
    smoothing: float,
    reduction: str,
) -> None:
    """Weights, smoothing, ignored labels, soft targets and reductions mean the same as in PyTorch."""
    for n_rows, n_classes in ((37, 5), (9, 70), (1, 1), (3, 33)):
        logits = (3 * rng.standard_normal((n_rows, n_classes))).astype(dtype)
        options: dict[str, Any] = {"label_smoothing": smoothing, "reduction": reduction}
        if weighted:
            options["class_weights"] = rng.uniform(0.1, 3, n_classes)
        labels: Array = rng.integers(0, n_classes, n_rows)
        if kind == "distributions":
            labels = rng.dirichlet(np.ones(n_classes), n_rows)
        elif kind == "some ignored":
            labels[::3] = -100
        elif kind == "ignored inside":
            options["ignore_index"] = n_classes // 2
        expected = torch_cross_entropy(logits, labels, **options)
        got = batchmax.cross_entropy(logits, labels, **options)
        compared = [got]
        if options.pop("reduction") == "none":
            probs, both = batchmax.softmax_cross_entropy(logits, labels, **options)
            np.testing.assert_allclose(probs, scipy.special.softmax(logits.astype(float), axis=1), rtol=5e-7)
            compared.append(both)
        for losses in compared:
            assert np.asarray(losses).dtype == result_type(dtype)
            assert np.shape(losses) == expected.shape
            np.testing.assert_allclose(losses, expected, rtol=tolerance(result_type(dtype)), atol=1e-13)


@pytest.mark.parametrize("shape", [(7,), (4, 7), (3, 4, 7), (2, 3, 4, 5)])
@pytest.mark.parametrize("soft", [False, True], ids=["indices", "distributions"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_along_every_axis(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    soft: bool,
    reduction: str,
) -> None:
    """Classes may be on any axis; labels have the other axes, soft targets all of them."""
    logits = rng.standard_normal(shape)
    labels: Any = rng.dirichlet(np.ones(shape[-1]), shape[:-1]) if soft else rng.integers(0, shape[-1], shape[:-1])
    options: dict[str, Any] = {"reduction": reduction, "class_weights": rng.uniform(0.1, 3, shape[-1])}
    expected = torch_cross_entropy(logits, labels, **options)
    for axis in range(-len(shape), len(shape)):
        moved = np.moveaxis(logits, -1, axis)
        moved_labels = np.moveaxis(labels, -1, axis) if soft else labels
        got = batchmax.cross_entropy(moved, moved_labels, axis=axis, **options)
        assert np.shape(got) == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        probs, losses = batchmax.softmax_cross_entropy(
            moved, moved_labels, axis=axis, class_weights=options["class_weights"]
        )
        each = batchmax.cross_entropy(moved, moved_labels, axis=axis, class_weights=options["class_weights"])
        np.testing.assert_array_equal(losses, each)
        np.testing.assert_allclose(probs, scipy.special.softmax(moved, axis=axis), rtol=1e-12)


def test_ignored_rows_have_zero_loss() -> None:
    """As in PyTorch, an ignored row has loss 0 even if its logits are NaN, and doesn't affect sums and means."""
    logits = np.array([[np.nan, 0], [np.inf, 0], [-np.inf, -np.inf], [1, 2]])
    labels = np.array([-100, -100, -100, 0])
    for smoothing in (0.0, 0.1):
        expected = torch_cross_entropy(logits, labels, label_smoothing=smoothing)
        got = batchmax.cross_entropy(logits, labels, label_smoothing=smoothing)
        np.testing.assert_allclose(got, expected, rtol=1e-14)
        mean = batchmax.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="mean")
        np.testing.assert_allclose(mean, expected[3], rtol=1e-14)


@pytest.mark.parametrize("n_classes", [3, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_infinite_rows_agree_with_pytorch_and_scipy(n_classes: int, dtype: Any) -> None:
    """Rows with NaN, +inf or -inf, and rows of only -inf, give what PyTorch and SciPy give."""
    logits = np.zeros((8, n_classes), dtype)
    logits[0, 0] = np.nan
    logits[1, 1] = np.inf
    logits[2, :] = np.inf
    logits[3, 2] = -np.inf
    logits[4, :] = -np.inf
    logits[5, :2] = np.inf, -np.inf
    logits[6, :2] = np.nan, -np.inf
    z = torch.tensor(logits)
    np.testing.assert_allclose(batchmax.softmax(logits), torch.softmax(z, 1).numpy(), rtol=1e-6)
    np.testing.assert_allclose(batchmax.log_softmax(logits), torch.log_softmax(z, 1).numpy(), rtol=1e-6)
    np.testing.assert_allclose(batchmax.logsumexp(logits), torch.logsumexp(z, 1).numpy(), rtol=1e-6)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(batchmax.logsumexp(logits), scipy.special.logsumexp(logits, axis=1), rtol=1e-6)
    for label in range(3):
        labels = np.full(8, label)
        np.testing.assert_allclose(
            batchmax.cross_entropy(logits, labels), torch_cross_entropy(logits, labels), rtol=1e-6
        )


@pytest.mark.parametrize("temperature", [0.01, 0.5, 2.0, 1e5])
def test_temperature_divides_the_logits(rng: np.random.Generator, temperature: float) -> None:
    """In every function, temperature T has the same effect as dividing the logits by T."""
    logits = rng.standard_normal((30, 8))
    labels, soft = rng.integers(0, 8, 30), rng.dirichlet(np.ones(8), 30)
    cold = torch.tensor(logits / temperature)
    np.testing.assert_allclose(batchmax.softmax(logits, temperature=temperature), torch.softmax(cold, 1), rtol=1e-11)
    np.testing.assert_allclose(
        batchmax.log_softmax(logits, temperature=temperature),
        torch.log_softmax(cold, 1),
        rtol=1e-11,
        atol=1e-13,
    )
    for y in (labels, soft):
        got = batchmax.cross_entropy(logits, y, temperature=temperature, label_smoothing=0.1)
        expected = torch_cross_entropy(logits / temperature, y, label_smoothing=0.1)
        np.testing.assert_allclose(got, expected, rtol=1e-11)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(0, 5), (0, 100), (2, 0, 3), (0, 1)])
def test_no_rows(dtype: Any, shape: tuple[int, ...]) -> None:
    """Zero rows give empty results of the right shape and type, a sum of 0 and a mean of NaN."""
    logits, labels = np.zeros(shape, dtype), np.zeros(shape[:-1], int)
    kind = result_type(dtype)
    for got in (batchmax.softmax(logits), batchmax.log_softmax(logits)):
        assert (got.shape, got.dtype) == (shape, kind)
    assert batchmax.logsumexp(logits).shape == shape[:-1]
    probs, losses = batchmax.softmax_cross_entropy(logits, labels)
    assert (probs.shape, losses.shape, losses.dtype) == (shape, shape[:-1], kind)
    for y in (labels, np.zeros(shape)):
        assert batchmax.cross_entropy(logits, y, reduction="sum") == 0
        assert np.isnan(batchmax.cross_entropy(logits, y, reduction="mean"))


def test_no_classes() -> None:
    """Zero classes give an empty softmax and a logsumexp of -inf, as in NumPy; losses raise ValueError."""
    logits = np.zeros((4, 0), np.float32)
    assert batchmax.softmax(logits).shape == (4, 0)
    assert batchmax.log_softmax(logits).shape == (4, 0)
    assert batchmax.logsumexp(logits).tolist() == [-np.inf] * 4
    for rows in (4, 0):
        for function in (batchmax.cross_entropy, batchmax.softmax_cross_entropy):
            with pytest.raises(ValueError, match=r"\S"):
                function(np.zeros((rows, 0)), np.zeros(rows, int))


def test_mean_over_nothing_is_nan() -> None:
    """The mean is NaN if all rows are ignored or all labels have weight 0, as in PyTorch."""
    logits = np.zeros((3, 4))
    ignored = np.full(3, -100)
    assert np.isnan(batchmax.cross_entropy(logits, ignored, reduction="mean"))
    assert batchmax.cross_entropy(logits, ignored, reduction="sum") == 0
    weights = np.array([0.0, 1, 1, 1])
    assert np.isnan(batchmax.cross_entropy(logits, np.zeros(3, int), class_weights=weights, reduction="mean"))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_a_mean_over_labels_without_weight_is_nan(rng, smoothing):
    """The mean over labels of weight 0 is NaN, as in PyTorch, even if smoothing makes losses nonzero."""
    logits = rng.normal(size=(2, 3))
    options = {"class_weights": [0.0, 0.0, 1.0], "label_smoothing": smoothing, "reduction": "mean"}
    assert np.isnan(torch_cross_entropy(logits, [0, 1], **options))
    assert np.isnan(batchmax.cross_entropy(logits, [0, 1], **options))


def test_positive_target_on_a_masked_class_has_infinite_loss() -> None:
    """A masked class whose target is above 0, by the target itself or by smoothing, makes the loss +inf."""
    logits = np.array([[-np.inf, 0, 0]])
    assert batchmax.cross_entropy(logits, np.array([[0.1, 0.9, 0]])) == np.inf
    assert batchmax.cross_entropy(logits, np.array([1]), label_smoothing=0.1) == np.inf
    assert torch_cross_entropy(logits, np.array([1]), label_smoothing=0.1) == np.inf


def test_soft_targets_do_not_hide_nan_and_infinite_rows() -> None:
    """A row with NaN or +inf, or of only -inf, has a NaN loss even if all its targets are 0."""
    logits = np.array([[np.nan, 0], [np.inf, 0], [-np.inf, -np.inf]])
    for target in (np.zeros((3, 2)), np.full((3, 2), 0.5)):
        assert np.isnan(batchmax.cross_entropy(logits, target)).all()


@pytest.mark.parametrize("n_rows", [1000, 100_001])
def test_sums_of_many_float32_losses(rng: np.random.Generator, n_rows: int) -> None:
    """Reductions of float32 losses are summed in float64 and are within 3 float32 ULP."""
    logits = rng.standard_normal((n_rows, 3)).astype(np.float32)
    labels = rng.integers(0, 3, n_rows)
    exact = oracle.cross_entropy(logits, labels)
    for reduction in ("sum", "mean"):
        got = batchmax.cross_entropy(logits, labels, reduction=reduction)
        expected = oracle.reduce(exact, labels, reduction)
        assert oracle.ulp_error(got, expected, np.float32).max() <= 3


def test_more_rows_than_one_block() -> None:
    """Rows after the first block are computed like rows in it, for class labels and soft targets."""
    random = np.random.default_rng(5)
    n = softmax.BLOCK_ROWS + 3
    logits = random.standard_normal((n, 4)).astype(np.float32)
    labels = random.integers(0, 4, n)
    probs, losses = batchmax.softmax_cross_entropy(logits, labels)
    assert np.array_equal(probs, batchmax.softmax(logits))
    assert np.array_equal(losses[-10:], batchmax.cross_entropy(logits[-10:], labels[-10:]))
    targets = np.eye(4, dtype=np.float32)[labels]
    assert np.array_equal(
        batchmax.cross_entropy(logits, targets)[-10:], batchmax.cross_entropy(logits[-10:], targets[-10:])
    )
    mean = batchmax.cross_entropy(logits, labels, reduction="mean")
    assert mean == pytest.approx(batchmax.cross_entropy(logits.astype(np.float64), labels).mean(), rel=1e-6)


# Deviations from PyTorch and SciPy


def test_deviation_float16_gives_float32(rng: np.random.Generator) -> None:
    """float16 logits give float32 results within 3 float32 ULP; PyTorch and SciPy round to float16."""
    logits = rng.standard_normal((9, 50)).astype(np.float16)
    labels = rng.integers(0, 50, 9)
    probs, losses = batchmax.softmax_cross_entropy(logits, labels)
    assert probs.dtype == losses.dtype == np.float32
    assert oracle.ulp_error(probs, oracle.softmax(logits), np.float32).max() <= 3
    assert oracle.ulp_error(losses, oracle.cross_entropy(logits, labels), np.float32).max() <= 3
    assert torch.softmax(torch.tensor(logits), 1).dtype == torch.float16


def test_deviation_integers_are_accepted() -> None:
    """Integer logits are converted to float64; PyTorch rejects them."""
    assert batchmax.softmax(np.array([1, 2])).dtype == np.float64
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.softmax(torch.tensor([1, 2]), 0)


def test_deviation_classes_are_last() -> None:
    """Classes are on the last axis; PyTorch's cross-entropy has them on the second."""
    logits = np.random.default_rng(1).standard_normal((2, 3, 4))
    labels = np.array([[0, 1, 2], [3, 0, 1]])
    second = torch.nn.functional.cross_entropy(
        torch.tensor(logits).movedim(-1, 1), torch.tensor(labels), reduction="none"
    )
    np.testing.assert_allclose(batchmax.cross_entropy(logits, labels), second.numpy(), rtol=1e-13)


def test_deviation_reduction_is_none_by_default() -> None:
    """By default there is a loss for every row; PyTorch returns their mean."""
    assert batchmax.cross_entropy(np.zeros((4, 3)), np.zeros(4, int)).shape == (4,)


@pytest.mark.parametrize("n_classes", [3, 33])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_deviation_zero_target_times_infinity_is_zero(n_classes: int, weighted: bool) -> None:
    """A masked class whose target is 0 adds nothing to the loss; PyTorch returns NaN."""
    logits, target = np.zeros((2, n_classes)), np.zeros((2, n_classes))
    logits[:, 0] = -np.inf
    target[:, 1:3] = 0.5
    weights = np.ones(n_classes) if weighted else None
    got = batchmax.cross_entropy(logits, target, class_weights=weights)
    np.testing.assert_allclose(got, np.log(n_classes - 1), rtol=1e-14)
    np.testing.assert_array_equal(batchmax.softmax_cross_entropy(logits, target, class_weights=weights)[1], got)
    assert np.isnan(torch_cross_entropy(logits, target)).all()


def test_deviation_loss_near_zero_is_accurate() -> None:
    """A loss of about 1e-20 isn't rounded to 0; PyTorch and SciPy lose it because they compute log S as a whole."""
    logits = np.array([[46.0, 0.0]])
    assert batchmax.cross_entropy(logits, np.array([0]))[0] == pytest.approx(np.exp(-46.0), rel=1e-12, abs=0)
    assert torch_cross_entropy(logits, np.array([0]))[0] != pytest.approx(np.exp(-46.0), rel=1e-12, abs=0)
