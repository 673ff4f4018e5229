"""Other activations and losses than softmax and cross-entropy.

Values are compared with hand-computed ones, SciPy and scikit-learn, gradients with PyTorch's autograd.
"""

from __future__ import annotations

import json
import math
from itertools import product

import numpy as np
import pytest

import batchmax
from batchmax.activations import ACTIVATIONS, LOSSES
from batchmax.cli.app import main
from tests.support.activations import PAIRS, some_rows, torch_loss
from tests.support.requirements import optional

torch = optional("torch")
special = optional("scipy.special")
metrics = optional("sklearn.metrics")


@pytest.mark.parametrize("temperature", [1.0, 0.4])
@pytest.mark.parametrize("k", [1, 2, 5, 50])
@pytest.mark.parametrize(("activation", "kind"), PAIRS)
def test_losses_and_gradients_are_those_of_autograd(activation, kind, k, temperature):
    """Losses and gradients of every pair match autograd in float64 to 1e-10, for class labels and soft targets."""
    z = some_rows(k, activation)
    labels = np.random.default_rng(1).integers(0, k, len(z))
    one_hot = np.eye(k)[labels]
    random = np.random.default_rng(2)
    soft = (
        (random.random(z.shape) < 0.4).astype(float)
        if activation == "sigmoid"
        else random.dirichlet(np.ones(k), len(z))
    )
    for given, targets in ((labels, one_hot), (soft, soft)):
        if given is soft and "hinge" in kind:
            continue
        tensor = torch.tensor(z, requires_grad=True)
        want = torch_loss(tensor, torch.tensor(targets), activation, kind, temperature)
        if want.requires_grad:
            want.sum().backward()
        wanted = np.zeros_like(z) if tensor.grad is None else tensor.grad.numpy()
        losses, gradient = batchmax.loss(z, given, activation=activation, loss=kind, temperature=temperature, grad=True)
        np.testing.assert_allclose(losses, want.detach().numpy(), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(gradient, wanted, rtol=1e-10, atol=1e-10)
    for reduction, share in (("mean", 1 / len(z)), ("sum", 1.0)):
        how = {"activation": activation, "loss": kind, "temperature": temperature, "grad": True}
        total, whole = batchmax.loss(z, labels, reduction=reduction, **how)
        each, every = batchmax.loss(z, labels, **how)
        assert total == pytest.approx(each.sum() * share, rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(whole, every * share, rtol=1e-12, atol=1e-15)


def test_softmax_beside_the_sum():
    """Softmax of (1, 2) and (10, 20) differ; division by the sum gives 1/3 and 2/3 for both."""
    np.testing.assert_allclose(batchmax.activate([1.0, 2.0]), [0.2689, 0.7311], atol=5e-5)
    np.testing.assert_allclose(batchmax.activate([1.0, 2.0], "sum"), [1 / 3, 2 / 3])
    np.testing.assert_allclose(batchmax.activate([10.0, 20.0]), [4.5398e-5, 0.99995], rtol=1e-4)
    np.testing.assert_allclose(batchmax.activate([10.0, 20.0], "sum"), [1 / 3, 2 / 3])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_are_what_they_are_defined_as(dtype):
    """Each activation matches SciPy or its formula to 3 epsilons.

    Softmax tends to argmax at low temperatures; of equal logits, argmax takes the first.
    """
    z = some_rows(9, "sum").astype(dtype)
    wide = z.astype(np.longdouble)
    taylor = 1 + wide + wide**2 / 2
    wanted = {
        "softmax": special.softmax(wide, axis=1),
        "sigmoid": special.expit(wide),
        "sum": wide / wide.sum(1, keepdims=True),
        "taylor": taylor / taylor.sum(1, keepdims=True),
        "spherical": wide**2 / (wide**2).sum(1, keepdims=True),
        "argmax": np.eye(9)[wide.argmax(1)],
    }
    assert set(wanted) == set(ACTIVATIONS)
    for name, want in wanted.items():
        found = batchmax.activate(z, name)
        assert found.dtype == dtype
        np.testing.assert_allclose(
            found, want.astype(np.float64), rtol=3 * np.finfo(dtype).eps, atol=1e-300, err_msg=name
        )
    np.testing.assert_allclose(batchmax.activate(z, temperature=1e-4), wanted["argmax"], atol=1e-12)
    np.testing.assert_array_equal(batchmax.activate([[2.0, 5.0, 5.0]], "argmax"), [[0.0, 1.0, 0.0]])


def test_hinge_is_scikit_learns():
    """The mean hinge loss is that of scikit-learn."""
    z = some_rows(6, "softmax")
    labels = np.random.default_rng(0).integers(0, 6, len(z))
    want = metrics.hinge_loss(labels, z, labels=range(6))
    assert batchmax.loss(z, labels, loss="hinge", reduction="mean") == pytest.approx(want, rel=1e-12)


def test_a_confidently_wrong_row_moves_under_cross_entropy_and_not_under_the_squared_error():
    """Confidently wrong rows have a gradient of about 1 under cross-entropy, and of almost 0 under squared error."""
    sizes = {}
    for kind, far in product(("cross_entropy", "mse"), (5.0, 20.0, 40.0)):
        _, gradient = batchmax.loss([[far, 0.0]], [1], loss=kind, grad=True)
        sizes[kind, far] = float(np.abs(gradient).max())
    assert all(0.99 < sizes["cross_entropy", far] <= 1.0 for far in (5.0, 20.0, 40.0))
    assert sizes["mse", 5.0] < 0.03
    assert sizes["mse", 20.0] < 1e-8
    assert sizes["mse", 40.0] < 1e-16


WITHOUT_ANSWER = {
    "softmax": ([math.nan, 1.0], [math.inf, 1.0], [-math.inf, -math.inf]),
    "argmax": ([math.nan, 1.0], [math.inf, 1.0], [-math.inf, -math.inf]),
    "sigmoid": ([math.nan, 1.0],),
    "sum": ([1.0, -1.0], [2.0, -1.0], [0.0, 0.0], [math.inf, 1.0], [math.nan, 1.0]),
    "taylor": ([math.nan, 1.0], [math.inf, 1.0], [-math.inf, 1.0]),
    "spherical": ([0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_row_without_an_answer_is_nan_and_no_other_is(activation):
    """A row without an answer has NaN probabilities, loss and gradient; other rows aren't affected."""
    good = [1.0, 2.0]
    for odd in WITHOUT_ANSWER[activation]:
        both = np.array([odd, good])
        assert np.isnan(batchmax.activate(both, activation)).tolist() == [[True, True], [False, False]], odd
        losses, gradient = batchmax.loss(both, [0, 1], activation=activation, grad=True)
        alone, its = batchmax.loss([good], [1], activation=activation, grad=True)
        assert np.isnan(losses).tolist() == [True, False]
        assert np.isnan(gradient[0]).all()
        assert (losses[1], gradient[1].tolist()) == (alone[0], its[0].tolist())


def test_masked_classes_and_far_logits():
    """A class with logit -inf has probability 0 and no gradient; large logits don't overflow."""
    losses, gradient = batchmax.loss([[0.0, -math.inf, 0.0]], [0], grad=True)
    assert losses[0] == pytest.approx(math.log(2))
    np.testing.assert_allclose(gradient, [[-0.5, 0.0, 0.5]])
    assert batchmax.loss([[800.0, -800.0]], [1])[0] == 1600.0
    assert batchmax.loss([[800.0, -800.0]], [1], activation="sigmoid")[0] == 1600.0
    assert batchmax.loss([[-math.inf, 5.0]], [1], activation="sigmoid")[0] == pytest.approx(math.log1p(math.exp(-5)))


def test_any_axis_and_shape():
    """Classes may be on any axis; strided arrays, integers, a single row and zero rows are accepted."""
    z = np.random.default_rng(0).normal(size=(3, 4, 5))
    labels = np.random.default_rng(1).integers(0, 4, (3, 5))
    losses, gradient = batchmax.loss(z, labels, axis=1, activation="taylor", grad=True)
    want, turned = batchmax.loss(np.moveaxis(z, 1, -1), labels, activation="taylor", grad=True)
    np.testing.assert_array_equal(losses, want)
    np.testing.assert_array_equal(gradient, np.moveaxis(turned, -1, 1))
    assert batchmax.activate(z[:, ::2, ::-1], "spherical", axis=0).shape == (3, 2, 5)
    assert batchmax.activate([1, 2], "sum").dtype == np.float64
    assert isinstance(batchmax.loss([1.0, 2.0], 1), float)
    assert batchmax.activate(np.zeros((0, 3)), "taylor").shape == (0, 3)
    assert math.isnan(batchmax.loss(np.zeros((0, 3)), np.zeros(0, int), reduction="mean"))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"activation": "softmin"}, ValueError),
        ({"loss": "huber"}, ValueError),
        ({"activation": "sum", "loss": "hinge"}, ValueError),
        ({"activation": "sigmoid", "loss": "cross_entropy"}, ValueError),
        ({"temperature": 0.0}, ValueError),
        ({"reduction": "max"}, ValueError),
        ({"labels": [2]}, IndexError),
        ({"labels": [-1]}, IndexError),
        ({"labels": [0, 1]}, ValueError),
        ({"labels": ["a"]}, TypeError),
        ({"labels": [[0.5, 0.5]], "loss": "hinge"}, ValueError),
        ({"logits": [["a"]]}, TypeError),
        ({"logits": np.zeros((1, 0)), "labels": [0]}, ValueError),
    ],
)
def test_what_cannot_be_is_refused(given, error):
    """Invalid options, labels and logits raise ValueError, TypeError or IndexError."""
    with pytest.raises(error):
        batchmax.loss(**{"logits": [[1.0, 2.0]], "labels": [0], **given})


def test_every_loss_has_a_number_and_a_partner():
    """Every loss goes with at least one activation, and brier equals mse."""
    partners = {kind for one in ACTIVATIONS.values() for kind in one.losses}
    assert partners == set(LOSSES)
    losses = batchmax.loss([[1.0, 2.0]], [0], loss="brier")
    assert losses == batchmax.loss([[1.0, 2.0]], [0], loss="mse")


def test_show_puts_them_side_by_side(capsys):
    """``show --alternatives`` prints a row under every activation, with the losses of its label."""
    assert main(["show", "--values", "10,20", "--alternatives", "--label", "0"]) == 0
    out = capsys.readouterr().out
    assert "4.53979e-05" in out
    assert "0.333333" in out
    assert "binary_cross_entropy" in out
    assert main(["show", "--values", "1,-1", "--alternatives", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["activations"]
    assert found["sum"]["probs"] is None
    assert found["spherical"]["probs"] == [0.5, 0.5]
    assert list(found) == list(ACTIVATIONS)
