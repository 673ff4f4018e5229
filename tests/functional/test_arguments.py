"""Tests arguments of the NumPy API: memory layouts, label types, ``out``, and invalid arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import batchmax
from tests.support.pytorch import torch_cross_entropy

Array = NDArray[Any]

FLOATS = [np.float16, np.float32, np.float64]
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


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
def test_inputs_are_not_changed(rng: np.random.Generator, dtype: Any) -> None:
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


def test_lists_and_scalars(rng: np.random.Generator) -> None:
    """Lists are accepted like arrays; a single row may have a plain integer as its label, and gives a scalar loss."""
    row = rng.standard_normal(5)
    assert batchmax.softmax(row.tolist()).tobytes() == batchmax.softmax(row).tobytes()
    assert batchmax.softmax([1, 2]).dtype == np.float64
    loss = batchmax.cross_entropy(row, 3)
    assert np.shape(loss) == ()
    np.testing.assert_allclose(loss, torch_cross_entropy(row, 3), rtol=1e-14)
    assert np.shape(batchmax.logsumexp(row)) == ()


# Labels


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


# The argument out


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
def test_out_of_probabilities_and_losses(rng: np.random.Generator, n_classes: int) -> None:
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", [0, 1])
def test_out_may_overlap_any_argument(rng, dtype, place):
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


def test_invalid_out() -> None:
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
def test_invalid_labels_and_options(function: Any, labels: Array, options: dict[str, Any], error: Any) -> None:
    """Wrong shapes and values raise ValueError, wrong types TypeError, labels out of range IndexError."""
    with pytest.raises(error):
        function(np.zeros((5, 3)), labels, **options)


def test_invalid_reductions() -> None:
    """A reduction other than none, mean and sum raises ValueError."""
    with pytest.raises(ValueError, match="reduction"):
        batchmax.cross_entropy(np.zeros((5, 3)), np.zeros(5, int), reduction="average")


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_invalid_logits(name: str) -> None:
    """Complex, text and object logits raise TypeError; an axis that doesn't exist raises ValueError."""
    function = getattr(batchmax, name)
    for logits in (np.zeros((2, 2), complex), np.array([["a", "b"]]), np.array([[object()]])):
        with pytest.raises(TypeError):
            function(logits)
    for axis in (2, -3):
        with pytest.raises(ValueError, match="axis"):
            function(np.zeros((2, 2)), axis=axis)


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_invalid_temperatures(temperature: float) -> None:
    """A temperature that isn't positive and finite raises ValueError."""
    for function in (batchmax.softmax, batchmax.log_softmax):
        with pytest.raises(ValueError, match="temperature"):
            function(np.zeros((2, 2)), temperature=temperature)
