"""The table of activations and of the losses that each supports. Knows neither Arrow nor NumPy.

To add one, give it a number and a line here, and write a short function in :mod:`batchmax.kernels.activations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

ActivationName = Literal["softmax", "argmax", "sigmoid", "sum", "taylor", "spherical"]
LossName = Literal["cross_entropy", "hinge", "squared_hinge", "mse", "brier", "binary_cross_entropy"]


class Activation(IntEnum):
    """Numbers of the activations, as the kernels take them."""

    SOFTMAX = 0
    ARGMAX = 1
    SIGMOID = 2
    SUM = 3
    TAYLOR = 4
    SPHERICAL = 5


class Loss(IntEnum):
    """Numbers of the losses, as the kernels take them."""

    CROSS_ENTROPY = 0
    HINGE = 1
    SQUARED_HINGE = 2
    MSE = 3
    BINARY_CROSS_ENTROPY = 4


@dataclass(frozen=True)
class Kind:
    """An activation.

    Attributes
    ----------
    number
        Its number in the kernels.
    losses
        The losses that can be combined with it, the default first.
    is_distribution
        Whether the values of a row sum to 1.
    """

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
"""All activations, by name."""

LOSSES: dict[str, Loss] = {loss.name.lower(): loss for loss in Loss} | {"brier": Loss.MSE}
"""The numbers of the losses, by name; ``brier`` is another name for ``mse``."""

OF_A_MARGIN = frozenset({"hinge", "squared_hinge"})
"""Margin losses: they are defined for one label, not for a target distribution."""


def loss_of(activation: str, loss: str | None) -> str:
    """Return the loss to use with an activation: the given one, or the default.

    Raises
    ------
    KeyError
        There is no activation of this name.
    ValueError
        The loss can't be combined with the activation.
    """
    losses = ACTIVATIONS[activation].losses
    if loss is not None and loss not in losses:
        raise ValueError(f"loss {loss!r} does not go with activation {activation!r}: choose of {', '.join(losses)}")
    return loss or losses[0]
