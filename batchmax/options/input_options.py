"""Options of every command that reads logits: what is read, how it's interpreted, and with which resources.

Each class checks its own fields. What depends on the data, such as whether a column exists or how many classes there
are, is checked in ``columns``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_type_hints

from batchmax.activations import ACTIVATIONS, LOSSES, WITH_CALIBRATION, ActivationName, LossName, loss_of
from batchmax.errors import UsageError
from batchmax.options.parsing import check_at_least, check_type, check_unique, refuse_if

InputKind = Literal["logits", "log_probs", "probs"]
BinaryName = Literal["float32", "float16", "bfloat16"]
BadRowPolicy = Literal["error", "null", "drop"]
LabelFormat = Literal["khot", "indices"]

MAX_BETA = 1e300
MIN_MEMORY = 256 * 2**20


ClassWeights = tuple[float, ...] | dict[str, float]
"""Numbers in the order of the classes, or by their names."""

option_types: Callable[[type], dict[str, Any]] = cache(get_type_hints)
"""Returns the names of a class's options with their annotated types."""


class Options:
    """The base of all options: checks the types of the fields.

    Raises
    ------
    UsageError
        A value has the wrong type or is outside its domain, or two options contradict each other.
    """

    def __post_init__(self) -> None:
        """Check the type of each value. Subclasses check the values."""
        for name, hint in option_types(type(self)).items():
            check_type(name, getattr(self, name), hint)


@dataclass(frozen=True, kw_only=True)
class ReadOptions(Options):
    """Which rows and columns are read, and what they contain.

    Attributes
    ----------
    logits
        The column of logits, dotted if nested; or one column per class: a pattern with ``*``, ``?`` or ``[…]``, or
        comma-separated names in the order of the classes. None: what the metadata of an output of ``score`` name, else
        ``logits``, else ``logit_*``, else the only list of floats.
    label
        The column of class indices, class names, target distributions, or lists of the labels of multi-label rows; for
        the latter also a pattern of one column per class. ``"none"`` for no label. None: ``label``, ``labels`` or
        ``target``, if it exists.
    label_format
        What lists of integers of multi-label rows contain: ``khot``, a 0 or 1 for each class; or ``indices``, the
        classes that are right. None: K-hot if the first 1,000 rows have only lists of 0 and 1 for each class, otherwise
        indices.
    classes
        The class names in the order of the logits. None: those in the file's metadata, if any.
    n_classes
        The number of logits that every row must have, at least 1. None: as in the schema, else as in the first row.
    ignore_index
        The label of rows to exclude from the loss; of multi-label rows, of classes to exclude. Default: -100.
    logits_dtype
        The type of the numbers in binary rows and in lists of uint16: ``float32``, ``float16`` or ``bfloat16``. None:
        the columns have neither type.
    shift
        For sequences: whether a token's label is the next item of its row's labels, so that the last token has none.
        Default: False, the item at the same index.
    bytes
        For sequences: the column with each row's text, or its number of bytes, for bits per byte. None: unknown.
    input
        What the numbers are: ``logits``, ``log_probs`` or ``probs``. None: as in the metadata of an output of ``score``
        or by the column's name, else logits.
    storage_options
        ``K=V`` for the file system of URIs, such as an endpoint or a region. They may be secrets, so they are never
        written to outputs or messages.
    limit
        The maximum number of rows to read. None: all.
    columns
        The other columns of the input to keep, ``"*"`` for all. None: all except the logits.
    exclude
        Columns not to keep. Default: none.
    on_bad_row
        How bad rows are handled: ``error`` (the default), ``null`` or ``drop``.
    """

    logits: str | None = None
    label: str | None = None
    label_format: LabelFormat | None = None
    classes: tuple[str, ...] | None = None
    n_classes: int | None = None
    ignore_index: int = -100
    logits_dtype: BinaryName | None = None
    shift: bool = False
    bytes: str | None = None
    input: InputKind | None = None
    storage_options: tuple[str, ...] = ()
    limit: int | None = None
    columns: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    on_bad_row: BadRowPolicy = "error"

    def __post_init__(self) -> None:
        """Check each value."""
        super().__post_init__()
        check_at_least("--n-classes", self.n_classes, 1)
        check_at_least("--limit", self.limit, 0)
        check_unique("--classes", self.classes or ())


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """How probabilities and losses are computed from logits.

    Attributes
    ----------
    beta
        The inverse temperature, from 1e-300 to 1e300. Default: 1.
    calibration
        A file written by ``calibrate``. It sets ``beta``, or ``scale`` and ``bias``; and ``calibrated_classes`` and
        ``calibrated_activation``, the number of classes and the activation that it is for. None: no calibration.
    scale, bias
        One number per class; the logits become ``scale * z + bias``, in float64. None: unchanged.
    activation, loss
        The activation and the loss function, as for :func:`batchmax.activate` and :func:`batchmax.loss`. None:
        ``sigmoid`` for multi-label rows, by the type of the label column, otherwise ``softmax``; and the first loss
        listed for the activation, ``cross_entropy`` for softmax.
    class_weights
        The factor on each class's loss, finite and not negative: in the order of the logits, or by name. None: 1 each.
    pos_weight
        For binary cross-entropy: the factor on the part of each class's loss that counts if the class is right; as for
        ``class_weights``.
    label_smoothing
        The share of the uniform distribution in the target of the loss, from 0 to 1. Default: 0.
    """

    beta: float = 1.0
    calibration: str | None = None
    calibrated_classes: int | None = None
    calibrated_activation: str | None = None
    scale: tuple[float, ...] | None = None
    bias: tuple[float, ...] | None = None
    activation: ActivationName | None = None
    loss: LossName | None = None
    class_weights: ClassWeights | None = None
    pos_weight: ClassWeights | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Check each value, and that the activation, the loss and the calibration are compatible."""
        super().__post_init__()
        check_beta("--beta", self.beta)
        scale, bias = self.scale or (), self.bias or ()
        is_half = (self.scale is None) != (self.bias is None) or len(scale) != len(bias)
        what = "scale and bias must both have one number per class"
        refuse_if(is_half, "--calibration", what, "calibrate again")
        is_outside = not all(map(math.isfinite, (*scale, *bias))) or min(scale, default=1) <= 0
        what = "scales and biases must be finite, and scales above 0"
        refuse_if(is_outside, "--calibration", what, "calibrate again")
        share = self.label_smoothing
        refuse_if(not 0.0 <= share <= 1.0, "--label-smoothing", f"{share:g} is not between 0 and 1", "try 0.1")
        for option, given in (("--class-weights", self.class_weights), ("--pos-weight", self.pos_weight)):
            weights = given or ()
            for weight in weights.values() if isinstance(weights, dict) else weights:
                if not math.isfinite(weight) or weight < 0:  # there may be many weights, so no text is made for each
                    what, remedy = f"weight {weight:g} is invalid", "weights must be finite and not negative"
                    raise UsageError(what, where=option, remedy=remedy)
        self.check_activation(self._check_loss)

    def check_activation(self, check: Callable[[ActivationName], None]) -> None:
        """Check the activation, or if the labels determine it, that the options suit one of the possible ones.

        Raises
        ------
        UsageError
            What ``check`` raises for the activation; for softmax if the activation isn't known yet.
        """
        if self.activation is not None:
            check(self.activation)
            return
        try:
            check("softmax")
        except UsageError as error:
            try:
                check("sigmoid")
            except UsageError:
                raise error from None

    def _check_loss(self, activation: ActivationName) -> None:
        """Check that an activation, the loss, the weights and the calibration are compatible."""
        try:
            loss = loss_of(activation, self.loss)
        except ValueError as error:
            raise UsageError(str(error), where="--loss", remedy="batchmax show --alternatives compares them") from error
        has = LOSSES[loss]
        is_refused = (self.class_weights is not None and not has.has_weights) or (
            self.label_smoothing != 0 and not has.has_smoothing
        )
        neither = "no label smoothing" if has.has_weights else "neither class weights nor label smoothing"
        refuse_if(is_refused, "--loss", f"loss {loss} supports {neither}", "leave them out")
        is_refused = self.pos_weight is not None and not has.has_positive_weights
        what, remedy = f"loss {loss} has no positive weights", "use --class-weights, or --activation sigmoid"
        refuse_if(is_refused, "--pos-weight", what, remedy)
        is_calibrated = self.calibration is not None or self.scale is not None
        fitted = (self.calibrated_activation,) if self.calibrated_activation else WITH_CALIBRATION
        what = f"the calibration is for {' or '.join(fitted)}, not for {activation}"
        is_other = is_calibrated and activation not in fitted
        refuse_if(is_other, "--calibration", what, "leave it out, or calibrate again")

    @property
    def activation_name(self) -> ActivationName:
        """The activation; softmax if it isn't set. That of a job is set if it isn't softmax."""
        return self.activation or "softmax"

    @property
    def loss_name(self) -> LossName:
        """The loss function: ``loss``, or the default of the activation."""
        return loss_of(self.activation_name, self.loss)

    @property
    def is_usual(self) -> bool:
        """Whether the activation is softmax, and the loss cross-entropy."""
        return ACTIVATIONS[self.activation_name].is_log_linear and self.loss_name == "cross_entropy"


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """The resources of a job.

    Attributes
    ----------
    threads
        The number of compute threads, at least 1. None: the number of usable cores.
    memory_limit
        The memory limit in bytes, at least 256 MiB. Default: 1 GiB.
    """

    threads: int | None = None
    memory_limit: int = 2**30

    def __post_init__(self) -> None:
        """Check each value."""
        super().__post_init__()
        check_at_least("--threads", self.threads, 1)
        what, remedy = f"{self.memory_limit:,} bytes is too small", f"give at least {MIN_MEMORY // 2**20}MiB"
        refuse_if(self.memory_limit < MIN_MEMORY, "--memory-limit", what, remedy)


# Fields are in the order of the bases from last to first.
@dataclass(frozen=True, kw_only=True)
class InputOptions(RunOptions, ModelOptions, ReadOptions):
    """Options of commands that read logits and write no rows, such as ``evaluate``.

    The attributes are those of the base classes; :class:`ScoreOptions` has all of them. A function that takes these
    options also takes :class:`ScoreOptions`, and ignores the others.

    Examples
    --------
    >>> import batchmax
    >>> options = batchmax.InputOptions(beta=0.5, limit=100)
    >>> batchmax.evaluate("data/digits.parquet", options).n_rows
    100
    """

    def __post_init__(self) -> None:
        """Check that the activation fits to the input."""
        super().__post_init__()
        self.check_activation(self._check_input)

    def _check_input(self, activation: ActivationName) -> None:
        is_other = not ACTIVATIONS[activation].is_log_linear
        what = f"activation {activation} is computed from logits, not from {self.input}"
        refuse_if(is_other and self.input not in {None, "logits"}, "--activation", what, "give logits")


def check_beta(option: str, value: float) -> None:
    """Check the range of a temperature or an inverse temperature.

    Raises
    ------
    UsageError
        The value is out of range.
    """
    remedy = f"give a number from {1 / MAX_BETA:g} to {MAX_BETA:g}"
    refuse_if(not 1 / MAX_BETA <= value <= MAX_BETA, option, f"{value} is out of range", remedy)
