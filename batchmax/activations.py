"""One table of the activations, and of the losses that go with each. Knows neither Arrow nor NumPy.

To add one is to give it a number and a line here, and a short function in ``kernels.alternatives``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

ActivationName = Literal["softmax", "argmax", "sigmoid", "sum", "taylor", "spherical"]
LossName = Literal["cross_entropy", "hinge", "squared_hinge", "mse", "brier", "binary_cross_entropy"]


class Activation(IntEnum):
    """Numbers of activations in the kernels."""

    SOFTMAX = 0
    ARGMAX = 1
    SIGMOID = 2
    SUM = 3
    TAYLOR = 4
    SPHERICAL = 5


class Loss(IntEnum):
    """Numbers of losses in the kernels."""

    CROSS_ENTROPY = 0
    HINGE = 1
    SQUARED_HINGE = 2
    MSE = 3
    BINARY_CROSS_ENTROPY = 4


@dataclass(frozen=True)
class Kind:
    """An activation: its number, the losses that go with it, the usual one first, and whether its numbers sum to 1."""

    number: Activation
    losses: tuple[str, ...]
    is_distribution: bool = True


NORMALISED = ("cross_entropy", "mse", "brier")

ACTIVATIONS: dict[str, Kind] = {
    "softmax": Kind(Activation.SOFTMAX, ("cross_entropy", "mse", "brier", "hinge", "squared_hinge")),
    "argmax": Kind(Activation.ARGMAX, ("hinge", "squared_hinge", "mse", "brier")),
    "sigmoid": Kind(Activation.SIGMOID, ("binary_cross_entropy", "mse", "brier"), is_distribution=False),
    "sum": Kind(Activation.SUM, NORMALISED),
    "taylor": Kind(Activation.TAYLOR, NORMALISED),
    "spherical": Kind(Activation.SPHERICAL, NORMALISED),
}
"""All there are, and the pairs that make sense."""

LOSSES: dict[str, Loss] = {loss.name.lower(): loss for loss in Loss} | {"brier": Loss.MSE}
"""The losses' numbers; ``brier`` is another name of ``mse``."""

OF_A_MARGIN = frozenset({"hinge", "squared_hinge"})
"""Losses of the logits of one label, which a target distribution is not."""


def loss_of(activation: str, loss: str | None) -> str:
    """Return the loss of an activation: the one asked for, else the usual one.

    Raises
    ------
    KeyError
        No activation is called that.
    ValueError
        The two do not go together.
    """
    losses = ACTIVATIONS[activation].losses
    if loss is not None and loss not in losses:
        raise ValueError(f"loss {loss!r} does not go with activation {activation!r}: choose of {', '.join(losses)}")
    return loss or losses[0]
