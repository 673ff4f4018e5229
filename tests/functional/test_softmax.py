"""The NumPy API against PyTorch in float64, SciPy and the exact oracle, over a grid of arguments.

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
from tests.support.requirements import optional

scipy = optional("scipy")

torch = optional("torch")

Array = NDArray[Any]

FLOATS = [np.float16, np.float32, np.float64]
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
REDUCTIONS = ["none", "mean", "sum"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


def tolerance(dtype: Any) -> float:
    """Return a relative tolerance for results of this type compared with rounded float64 results."""
    return 1e-12 if dtype == np.float64 else 4 * float(np.finfo(dtype).eps)


def result_type(dtype: Any) -> Any:
    """Return the documented result type: float32 for float16 and float32, else float64."""
    return np.float32 if dtype in (np.float16, np.float32) else np.float64


def torch_cross_entropy(logits: Array, labels: Any, *, reduction: str = "none", **options: Any) -> Array:
    """Return PyTorch's float64 cross-entropy of logits with classes on the last axis."""
    labels = np.asarray(labels)
    z = torch.tensor(np.moveaxis(logits, -1, min(1, logits.ndim - 1)).astype(np.float64))
    if labels.shape == logits.shape:
        y = torch.tensor(np.moveaxis(labels, -1, min(1, logits.ndim - 1)).astype(np.float64))
    else:
        y = torch.tensor(labels.astype(np.int64))
    weights = options.pop("class_weights", None)
    if weights is not None:
        options["weight"] = torch.tensor(np.asarray(weights, np.float64))
    return torch.nn.functional.cross_entropy(z, y, reduction=reduction, **options).numpy()


def variants(logits: Array) -> dict[str, Array]:
    """Return the same numbers in every memory layout that a NumPy user may pass."""
    read_only = logits.copy()
    read_only.flags.writeable = False
    padded = np.zeros((*logits.shape[:-1], logits.shape[-1] * 2), logits.dtype)
    padded[..., ::2] = logits
    unaligned = np.frombuffer(b"\0" + logits.tobytes(), np.uint8)[1:].view(logits.dtype).reshape(logits.shape)
    return {
        "contiguous": logits.copy(),
        "read-only": read_only,
        "Fortran": np.asfortranarray(logits),
        "every second": padded[..., ::2],
        "negative strides": logits[..., ::-1].copy()[..., ::-1],
        "rows backwards": logits[::-1].copy()[::-1],
        "unaligned": unaligned,
        "other byte order": logits.astype(logits.dtype.newbyteorder()),
        "read-only broadcast": np.broadcast_to(logits[:1].copy(), logits.shape),
    }


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


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(11, 5), (70, 33), (2, 3, 300)])
def test_memory_layout_changes_no_bit(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> None:
    """Strides, byte order, alignment and read-only memory don't change any bit of the results."""
    base = rng.standard_normal(shape).astype(dtype)
    labels = rng.integers(0, shape[-1], shape[:-1])
    for name, logits in variants(base).items():
        same = np.ascontiguousarray(logits.astype(dtype))
        assert batchmax.softmax(logits).tobytes() == batchmax.softmax(same).tobytes(), name
        assert batchmax.log_softmax(logits).tobytes() == batchmax.log_softmax(same).tobytes(), name
        assert batchmax.logsumexp(logits).tobytes() == batchmax.logsumexp(same).tobytes(), name
        losses = batchmax.cross_entropy(logits, labels)
        assert losses.tobytes() == batchmax.cross_entropy(same, labels).tobytes(), name
        assert losses.dtype.isnative


@pytest.mark.parametrize("dtype", FLOATS)
def test_inputs_are_left_alone(rng: np.random.Generator, dtype: Any) -> None:
    """No function writes to its logits, labels or weights."""
    logits, weights = rng.standard_normal((50, 9)).astype(dtype), rng.uniform(0.5, 2, 9)
    labels = rng.dirichlet(np.ones(9), 50).astype(dtype)
    kept = [a.copy() for a in (logits, weights, labels)]
    batchmax.softmax(logits, temperature=0.5)
    batchmax.log_softmax(logits)
    batchmax.logsumexp(logits)
    batchmax.softmax_cross_entropy(logits, labels, class_weights=weights, label_smoothing=0.1)
    batchmax.cross_entropy(logits, labels, class_weights=weights, label_smoothing=0.1, reduction="mean")
    for before, after in zip(kept, (logits, weights, labels), strict=True):
        assert before.tobytes() == after.tobytes()


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("n_classes", [5, 100])
def test_labels_of_every_integer_type(rng: np.random.Generator, dtype: Any, n_classes: int) -> None:
    """Labels may have any integer type, be strided, read-only or byte-swapped, or be a list."""
    logits = rng.standard_normal((20, n_classes))
    labels = rng.integers(0, n_classes, 20)
    expected = batchmax.cross_entropy(logits, labels)
    typed = labels.astype(dtype)
    strided = np.repeat(typed, 2)[::2]
    typed.flags.writeable = False
    for same in (typed, strided, typed.astype(typed.dtype.newbyteorder()), labels.tolist()):
        assert batchmax.cross_entropy(logits, same).tobytes() == expected.tobytes()


def test_unsigned_labels_do_not_wrap() -> None:
    """Unsigned labels that would be -100 in a signed type are out of range, not ignored."""
    logits = np.zeros((2, 5))
    for labels in (
        np.array([0, 2**63 + 1], np.uint64),
        np.array([0, 2**64 - 100], np.uint64),
        np.array([0, 156], np.uint8),
    ):
        with pytest.raises(IndexError):
            batchmax.cross_entropy(logits, labels)


def test_ignore_index_outside_the_classes() -> None:
    """A padding label such as 255 is ignored if ``ignore_index`` names it, and out of range otherwise."""
    logits, labels = np.zeros((3, 5)), np.array([0, 255, 4], np.uint8)
    assert batchmax.cross_entropy(logits, labels, ignore_index=255)[1] == 0
    with pytest.raises(IndexError):
        batchmax.cross_entropy(logits, labels)


def test_ignored_rows_cost_zero_whatever_they_hold() -> None:
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
def test_odd_rows_agree_with_pytorch_and_scipy(n_classes: int, dtype: Any) -> None:
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


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [4, 77])
def test_out(rng: np.random.Generator, name: str, dtype: Any, n_classes: int) -> None:
    """``out`` receives the result and is returned; it may be strided, or the logits themselves."""
    function = getattr(batchmax, name)
    logits = rng.standard_normal((50, n_classes)).astype(dtype)
    expected = function(logits)
    plain = np.full_like(logits, 7)
    strided = np.full((50, 2 * n_classes), 7, dtype)[:, ::2]
    fortran = np.asfortranarray(plain)
    for out in (plain, strided, fortran, logits.copy()):
        source = logits if out.base is not None or out is plain or out is fortran else out
        result = function(source, out=out)
        assert result is out
        assert out.tobytes() == expected.tobytes()
    transposed = logits.copy().T
    assert function(transposed, axis=0, out=transposed) is transposed
    assert transposed.T.tobytes() == expected.tobytes()


@pytest.mark.parametrize("n_classes", [4, 77])
def test_out_may_overlap_the_logits(rng: np.random.Generator, n_classes: int) -> None:
    """An ``out`` that overlaps the logits in memory gets the right result, as in a NumPy ufunc."""
    memory = rng.standard_normal((51, n_classes)).astype(np.float32)
    expected = batchmax.softmax(memory[:-1].copy())
    assert batchmax.softmax(memory[:-1], out=memory[1:]).tobytes() == expected.tobytes()


@pytest.mark.parametrize("n_classes", [4, 77])
def test_out_of_both(rng: np.random.Generator, n_classes: int) -> None:
    """``out=(probs, losses)`` fills and returns the two buffers; ``probs`` may be the logits themselves."""
    logits = rng.standard_normal((50, n_classes)).astype(np.float32)
    labels = rng.integers(0, n_classes, 50)
    expected = batchmax.softmax_cross_entropy(logits, labels)
    for probs in (np.full_like(logits, 7), logits.copy()):
        losses = np.full(50, 7, np.float32)
        source = logits if probs[0, 0] == 7 else probs
        got = batchmax.softmax_cross_entropy(source, labels, out=(probs, losses))
        assert got[0] is probs
        assert got[1] is losses
        assert probs.tobytes() == expected[0].tobytes()
        assert losses.tobytes() == expected[1].tobytes()


def test_out_that_cannot_be() -> None:
    """An ``out`` of the wrong shape or type, or a read-only one, is rejected before anything is written."""
    logits = np.zeros((4, 3), np.float32)
    fixed = np.full((4, 3), 7, np.float32)
    fixed.flags.writeable = False
    for out in (
        np.full((3, 4), 7, np.float32),
        np.full((4, 3), 7, np.float64),
        np.full((4, 3), 7),
        fixed,
        np.full(12, 7, np.float32),
    ):
        with pytest.raises((ValueError, TypeError)):
            batchmax.softmax(logits, out=out)
        with pytest.raises((ValueError, TypeError)):
            batchmax.log_softmax(logits, out=out)
        with pytest.raises((ValueError, TypeError)):
            batchmax.softmax_cross_entropy(logits, np.zeros(4, int), out=(out, np.zeros(4, np.float32)))
        assert np.all(out == 7)
    with pytest.raises((ValueError, TypeError)):
        batchmax.softmax_cross_entropy(logits, np.zeros(4, int), out=(np.zeros_like(logits), np.zeros(3, np.float32)))


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


def test_lists_and_scalars(rng: np.random.Generator) -> None:
    """Lists are accepted like arrays; a single row may have a plain integer as its label, and gives a scalar loss."""
    row = rng.standard_normal(5)
    assert batchmax.softmax(row.tolist()).tobytes() == batchmax.softmax(row).tobytes()
    assert batchmax.softmax([1, 2]).dtype == np.float64
    loss = batchmax.cross_entropy(row, 3)
    assert np.shape(loss) == ()
    np.testing.assert_allclose(loss, torch_cross_entropy(row, 3), rtol=1e-14)
    assert np.shape(batchmax.logsumexp(row)) == ()


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


# Invalid arguments


@pytest.mark.parametrize("function", [batchmax.cross_entropy, batchmax.softmax_cross_entropy])
@pytest.mark.parametrize(
    ("labels", "options", "error"),
    [
        (np.zeros(4, int), {}, ValueError),
        (np.zeros((5, 1), int), {}, ValueError),
        (np.zeros((3, 5)), {}, (TypeError, ValueError)),
        (np.zeros(5), {}, (TypeError, ValueError)),
        (np.array(list("abcde")), {}, TypeError),
        (np.zeros(5, complex), {}, (TypeError, ValueError)),
        (np.zeros((5, 3), complex), {}, TypeError),
        (np.array([0, 1, 2, 3, 0]), {}, IndexError),
        (np.array([0, 1, 2, -1, 0]), {}, IndexError),
        (np.zeros(5, int), {"class_weights": np.ones(4)}, ValueError),
        (np.zeros(5, int), {"class_weights": np.ones((1, 3))}, ValueError),
        (np.zeros(5, int), {"class_weights": ["a", "b", "c"]}, (TypeError, ValueError)),
        (np.zeros(5, int), {"label_smoothing": -0.1}, ValueError),
        (np.zeros(5, int), {"label_smoothing": 1.5}, ValueError),
        (np.zeros(5, int), {"label_smoothing": np.nan}, ValueError),
        (np.zeros(5, int), {"temperature": 0}, ValueError),
        (np.zeros(5, int), {"axis": 2}, ValueError),
    ],
)
def test_labels_and_options_that_cannot_be(function: Any, labels: Array, options: dict[str, Any], error: Any) -> None:
    """Wrong shapes and values raise ValueError, wrong types TypeError, labels out of range IndexError."""
    with pytest.raises(error):
        function(np.zeros((5, 3)), labels, **options)


def test_reductions_that_cannot_be() -> None:
    """A reduction other than none, mean and sum raises ValueError."""
    with pytest.raises(ValueError, match="reduction"):
        batchmax.cross_entropy(np.zeros((5, 3)), np.zeros(5, int), reduction="average")


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_logits_that_cannot_be(name: str) -> None:
    """Complex, text and object logits raise TypeError; an axis that doesn't exist raises ValueError."""
    function = getattr(batchmax, name)
    for logits in (np.zeros((2, 2), complex), np.array([["a", "b"]]), np.array([[object()]])):
        with pytest.raises(TypeError):
            function(logits)
    for axis in (2, -3):
        with pytest.raises(ValueError, match="axis"):
            function(np.zeros((2, 2)), axis=axis)


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_temperatures_that_cannot_be(temperature: float) -> None:
    """A temperature that isn't positive and finite raises ValueError."""
    for function in (batchmax.softmax, batchmax.log_softmax):
        with pytest.raises(ValueError, match="temperature"):
            function(np.zeros((2, 2)), temperature=temperature)


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


def test_deviation_integers_are_taken() -> None:
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
def test_deviation_nothing_times_infinity_is_nothing(n_classes: int, weighted: bool) -> None:
    """A masked class whose target is 0 adds nothing to the loss; PyTorch returns NaN."""
    logits, target = np.zeros((2, n_classes)), np.zeros((2, n_classes))
    logits[:, 0] = -np.inf
    target[:, 1:3] = 0.5
    weights = np.ones(n_classes) if weighted else None
    got = batchmax.cross_entropy(logits, target, class_weights=weights)
    np.testing.assert_allclose(got, np.log(n_classes - 1), rtol=1e-14)
    np.testing.assert_array_equal(batchmax.softmax_cross_entropy(logits, target, class_weights=weights)[1], got)
    assert np.isnan(torch_cross_entropy(logits, target)).all()


def test_a_share_on_a_masked_class_costs_infinity() -> None:
    """A masked class whose target is above 0, by the target itself or by smoothing, makes the loss +inf."""
    logits = np.array([[-np.inf, 0, 0]])
    assert batchmax.cross_entropy(logits, np.array([[0.1, 0.9, 0]])) == np.inf
    assert batchmax.cross_entropy(logits, np.array([1]), label_smoothing=0.1) == np.inf
    assert torch_cross_entropy(logits, np.array([1]), label_smoothing=0.1) == np.inf


def test_distributions_do_not_hide_odd_rows() -> None:
    """A row with NaN or +inf, or of only -inf, has a NaN loss even if all its targets are 0."""
    logits = np.array([[np.nan, 0], [np.inf, 0], [-np.inf, -np.inf]])
    for target in (np.zeros((3, 2)), np.full((3, 2), 0.5)):
        assert np.isnan(batchmax.cross_entropy(logits, target)).all()


def test_deviation_a_loss_near_zero_keeps_its_digits() -> None:
    """A loss of about 1e-20 isn't rounded to 0; PyTorch and SciPy lose it because they compute log S as a whole."""
    logits = np.array([[46.0, 0.0]])
    assert batchmax.cross_entropy(logits, np.array([0]))[0] == pytest.approx(np.exp(-46.0), rel=1e-12, abs=0)
    assert torch_cross_entropy(logits, np.array([0]))[0] != pytest.approx(np.exp(-46.0), rel=1e-12, abs=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", [0, 1])
def test_out_may_lie_in_any_argument(rng, dtype, place):
    """Soft targets, class indices and class weights are read correctly even if ``out`` overlaps them."""
    logits = rng.normal(size=(6, 6)).astype(dtype)
    targets = rng.dirichlet(np.ones(6), 6).astype(dtype)
    expected = batchmax.softmax_cross_entropy(logits, targets)
    memory = targets.copy()
    buffer = memory if place == 0 else memory[2]
    out = [np.empty_like(logits), np.empty(6, dtype)]
    out[place] = buffer
    got = batchmax.softmax_cross_entropy(logits, memory, out=tuple(out))
    assert got[place] is buffer
    assert [array.tobytes() for array in got] == [array.tobytes() for array in expected]

    for name in ("labels", "class_weights"):
        memory = np.zeros((6, 6), np.float64)
        shared = memory[0].view(np.int64) if name == "labels" else memory[0]
        shared[:] = [4, 0, 1, 5, 2, 3]
        given = {"labels": np.arange(6), "class_weights": np.arange(1.0, 7.0), name: shared}
        expected = batchmax.softmax_cross_entropy(logits, **{key: value.copy() for key, value in given.items()})
        out = [np.empty_like(logits), np.empty(6, dtype)]
        out[place] = memory.view(dtype).ravel()[:36].reshape(6, 6) if place == 0 else memory[0].view(dtype)[:6]
        got = batchmax.softmax_cross_entropy(logits, **given, out=tuple(out))
        assert [array.tobytes() for array in got] == [array.tobytes() for array in expected]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_a_mean_over_labels_without_weight_is_nan(rng, smoothing):
    """The mean over labels of weight 0 is NaN, as in PyTorch, even if smoothing makes losses nonzero."""
    logits = rng.normal(size=(2, 3))
    options = {"class_weights": [0.0, 0.0, 1.0], "label_smoothing": smoothing, "reduction": "mean"}
    assert np.isnan(torch_cross_entropy(logits, [0, 1], **options))
    assert np.isnan(batchmax.cross_entropy(logits, [0, 1], **options))


def test_more_rows_than_are_worked_on_at_a_time() -> None:
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
