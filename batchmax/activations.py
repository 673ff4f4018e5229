"""The tables of activations and losses. Knows neither Arrow nor NumPy.

The objects in these tables say in what activations and losses differ; the rest of the package asks them and doesn't
compare names. To add an activation, add a row here, its arithmetic to :mod:`batchmax.kernels.activations`, and its
definition to :mod:`batchmax.verification.exact`. The same holds for a loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ActivationName = Literal["softmax", "argmax", "sigmoid", "sum", "taylor", "spherical"]
LossName = Literal["cross_entropy", "hinge", "squared_hinge", "mse", "brier", "binary_cross_entropy"]


@dataclass(frozen=True)
class Loss:
    """A loss function.

    Attributes
    ----------
    number
        Its number in the kernels.
    needs_class
        Whether it's defined for one label only, not for a target distribution.
    has_weights, has_smoothing, has_positive_weights
        Whether class weights, label smoothing, and weights of the positive part of each class apply to it.
    is_bounded
        Whether it's finite for all probabilities.
    """

    number: int
    needs_class: bool = False
    has_weights: bool = False
    has_smoothing: bool = False
    has_positive_weights: bool = False
    is_bounded: bool = False


@dataclass(frozen=True)
class Activation:
    """An activation function.

    Attributes
    ----------
    name
        Its name in the options.
    number
        Its number in the kernels.
    losses
        The losses that can be combined with it, the default first.
    is_distribution
        Whether the probabilities of a row sum to 1. Only then do a predicted class, its rank, log-probabilities,
        entropy, samples and the most probable classes exist. If not, classes are independent: several can be right.
    is_log_linear
        Whether the log-probabilities are beta times the logits plus a number for each row. Only then are
        log-probabilities logits themselves: the softmax kernels apply to the logits, inputs can be probabilities,
        and logsumexp exists.
    undefined
        Which rows have no probabilities, apart from those with a NaN, +inf, or nothing but -inf.
    """

    name: ActivationName
    number: int
    losses: tuple[LossName, ...]
    is_distribution: bool = True
    is_log_linear: bool = False
    undefined: str = ""

    @property
    def likelihood(self) -> LossName:
        """The loss that is the negative log-likelihood of a row; it may not be one of ``losses``."""
        return "cross_entropy" if self.is_distribution else "binary_cross_entropy"

    def supports(self, required: Literal["any", "distribution", "softmax", "independent"]) -> bool:
        """Return whether outputs exist that require this of the activation; see :class:`batchmax.outputs.Output`."""
        return {
            "any": True,
            "distribution": self.is_distribution,
            "softmax": self.is_log_linear,
            "independent": not self.is_distribution,
        }[required]


_MSE = Loss(3, is_bounded=True)

LOSSES: dict[LossName, Loss] = {
    "cross_entropy": Loss(0, has_weights=True, has_smoothing=True),
    "hinge": Loss(1, needs_class=True),
    "squared_hinge": Loss(2, needs_class=True),
    "mse": _MSE,
    "binary_cross_entropy": Loss(4, has_weights=True, has_positive_weights=True),
    "brier": _MSE,
}
"""All losses, by name; ``brier`` is another name for ``mse``."""

_OF_DISTRIBUTIONS: tuple[LossName, ...] = ("cross_entropy", "mse", "brier")

ACTIVATIONS: dict[ActivationName, Activation] = {
    activation.name: activation
    for activation in (
        Activation("softmax", 0, (*_OF_DISTRIBUTIONS, "hinge", "squared_hinge"), is_log_linear=True),
        Activation("argmax", 1, ("hinge", "squared_hinge", "mse", "brier")),
        Activation("sigmoid", 2, ("binary_cross_entropy", "mse", "brier"), is_distribution=False),
        Activation(
            "sum",
            3,
            _OF_DISTRIBUTIONS,
            undefined="the logits are all 0, or some are below 0 and some above, or one is -inf",
        ),
        Activation(
            "taylor", 4, _OF_DISTRIBUTIONS, undefined="a logit is -inf, or infinite when divided by the temperature"
        ),
        Activation("spherical", 5, _OF_DISTRIBUTIONS, undefined="the logits are all 0, or one is -inf"),
    )
}
"""All activations, by name."""

WITH_CALIBRATION: tuple[ActivationName, ...] = ("softmax", "sigmoid")
"""The activations that can be calibrated: their probabilities depend on the temperature, and their losses fit one."""


def loss_of(activation: ActivationName, loss: LossName | None) -> LossName:
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
        raise ValueError(f"activation {activation!r} does not support loss {loss!r}; choose {', '.join(losses)}")
    return loss or losses[0]
