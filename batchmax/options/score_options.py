"""Options of a scoring job, validated once and frozen.

Every command-line option and every keyword argument of the Python functions becomes a field of :class:`ScoreOptions`,
whose constructor checks all values. What depends on the data, such as whether a column exists or how many classes there
are, is checked in ``columns``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Any, Literal, get_type_hints

from batchmax.activations import ACTIVATIONS, LOSSES, ActivationName, LossName, loss_of
from batchmax.errors import UsageError
from batchmax.options.calibration_file import read_calibration
from batchmax.options.parsing import check_type, names_of, parse_bytes, read_class_weights, read_classes
from batchmax.outputs import OUTPUTS

InputKind = Literal["logits", "log_probs", "probs"]
Layout = Literal["list", "fixed", "wide"]
FloatName = Literal["float32", "float64", "float16"]
BinaryName = Literal["float32", "float16", "bfloat16"]
BadRowPolicy = Literal["error", "null", "drop"]
IfExists = Literal["error", "overwrite", "resume"]
Engine = Literal["local", "ray"]
Compression = Literal["snappy", "zstd", "lz4", "gzip", "brotli", "none"]

MAX_BETA = 1e300
MIN_MEMORY = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Options of a scoring job.

    The fields have the names of the command line's long options, except ``calibrated_classes``, ``scale`` and ``bias``,
    which ``calibration`` sets.

    Attributes
    ----------
    logits
        The column of logits, dotted if nested; or one column per class: a pattern with ``*``, ``?`` or ``[…]``, or
        comma-separated names in the order of the classes. None: what the metadata of an output of ``score`` name, else
        ``logits``, else ``logit_*``, else the only list of floats.
    label
        The column of class indices, class names or target distributions; ``"none"`` for no label. None: ``label``,
        ``labels`` or ``target``, if it exists.
    classes
        The class names in the order of the logits. None: those in the file's metadata, if any.
    n_classes
        The number of logits that every row must have, at least 1. None: as in the schema, else as in the first row.
    ignore_index
        The label of rows to exclude from the loss. Default: -100.
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
    beta
        The inverse temperature, from 1e-300 to 1e300. Default: 1.
    calibration
        A file written by ``calibrate``. It sets ``beta``, or ``scale`` and ``bias``; and ``calibrated_classes``, the
        number of classes that the logits must have. None: no calibration.
    scale, bias
        One number per class; the logits become ``scale * z + bias``, in float64. None: unchanged.
    activation, loss
        The activation and the loss function, as for :func:`batchmax.activate` and :func:`batchmax.loss`. Default:
        ``softmax``, and the first loss listed for the activation, ``cross_entropy`` for softmax.
    outputs
        The columns to compute, in the order to write them: ``probs``, ``log_probs``, ``loss``, ``pred``,
        ``confidence``, ``margin``, ``entropy``, ``logsumexp``, ``rank``, ``correct``, ``el2n``, ``sample``, ``status``.
        None: ``probs``, and ``loss`` if there is a label.
    seed
        Random seed for ``sample``, from 0 to 2**64 - 1. Default: 0.
    top_k
        The number of most probable classes to add to each row, at least 1. None: none.
    class_weights
        The factor on each class's loss, finite and not negative: in the order of the logits, or by name. None: 1 each.
    label_smoothing
        The share of the uniform distribution in the target of the loss, from 0 to 1. Default: 0.
    layout
        How matrices are written: ``list``, ``fixed`` or ``wide``. None: as the logits are stored.
    dtype
        The type of the numbers written: ``float32``, ``float64`` or ``float16``; losses are at least float32. None: the
        type that was computed in.
    columns
        The input's columns to copy to the output, ``"*"`` for all. None: all except the logits.
    exclude
        Columns not to copy. Default: none.
    prefix
        Prefix of the names of new columns. Default: empty.
    compression
        The codec to write with: ``snappy``, ``zstd``, ``lz4``, ``gzip``, ``brotli`` or ``none``. None: the input's.
    row_group_size
        The number of rows in a row group of the output, at least 1. None: as in the input.
    if_exists
        What to do if the output, or an unfinished run of this job, exists: ``error`` (the default), ``overwrite``, or
        ``resume``, which continues the run.
    on_bad_row
        How bad rows are handled: ``error`` (the default), ``null`` or ``drop``.
    shard
        Which parts of a folder to make: ``"2/8"`` is every eighth part from the third on. A run without a shard and
        with ``if_exists="resume"`` makes the missing parts and publishes the output. None: make all parts, and publish.
    rejects
        The file that dropped rows are written to, with the reason. None: they aren't written.
    fail_if
        A condition on the summary; the job fails at its end if it is true. None: no condition.
    engine
        What makes the parts of a folder: ``local`` (the default), this process, or ``ray``, a cluster.
    threads
        The number of compute threads, at least 1. None: the number of usable cores.
    memory_limit
        The memory limit in bytes, at least 256 MiB. Default: 1 GiB.

    Raises
    ------
    UsageError
        A value has the wrong type or is outside its domain, or two options contradict each other.

    Examples
    --------
    >>> import batchmax
    >>> options = batchmax.score_options(outputs="pred,loss", memory_limit="512MiB")
    >>> summary = batchmax.score("data/digits.parquet", "scored.parquet", options)
    """

    # Read
    logits: str | None = None
    label: str | None = None
    classes: tuple[str, ...] | None = None
    n_classes: int | None = None
    ignore_index: int = -100
    logits_dtype: BinaryName | None = None
    shift: bool = False
    bytes: str | None = None
    input: InputKind | None = None
    storage_options: tuple[str, ...] = ()
    limit: int | None = None
    # Compute
    beta: float = 1.0
    calibration: str | None = None
    calibrated_classes: int | None = None
    scale: tuple[float, ...] | None = None
    bias: tuple[float, ...] | None = None
    activation: ActivationName = "softmax"
    loss: LossName | None = None
    outputs: tuple[str, ...] | None = None
    seed: int = 0
    top_k: int | None = None
    class_weights: tuple[float, ...] | dict[str, float] | None = None
    label_smoothing: float = 0.0
    # Write
    layout: Layout | None = None
    dtype: FloatName | None = None
    columns: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    prefix: str = ""
    compression: Compression | None = None
    row_group_size: int | None = None
    if_exists: IfExists = "error"
    shard: str | None = None
    # Bad rows
    on_bad_row: BadRowPolicy = "error"
    rejects: str | None = None
    fail_if: str | None = None
    # Run
    engine: Engine = "local"
    threads: int | None = None
    memory_limit: int = 2**30

    def __post_init__(self) -> None:
        """Check each value, and combinations of values."""
        for name, hint in _hints().items():
            check_type(name, getattr(self, name), hint)
        _check_at_least("--n-classes", self.n_classes, 1)
        _check_at_least("--top-k", self.top_k, 1)
        _check_at_least("--seed", self.seed, 0)
        if self.seed >= 2**64:
            raise UsageError(f"{self.seed} is more than 64 bits hold", where="--seed", remedy="give a smaller number")
        _check_at_least("--limit", self.limit, 0)
        _check_at_least("--row-group-size", self.row_group_size, 1)
        _check_at_least("--threads", self.threads, 1)
        if not 1 / MAX_BETA <= self.beta <= MAX_BETA:
            raise UsageError(
                f"{self.beta} is not an inverse temperature",
                where="--beta",
                remedy=f"give a number from {1 / MAX_BETA:g} to {MAX_BETA:g}",
            )
        if (self.scale is None) != (self.bias is None) or len(self.scale or ()) != len(self.bias or ()):
            raise UsageError(
                "scale and bias go together", where="--calibration", remedy="give one number a class of each"
            )
        if (
            not all(math.isfinite(one) for one in (*(self.scale or ()), *(self.bias or ())))
            or min(self.scale or (1,)) <= 0
        ):
            raise UsageError("a scale or a bias is no number", where="--calibration", remedy="calibrate again")
        if not 0.0 <= self.label_smoothing <= 1.0:
            raise UsageError(
                f"{self.label_smoothing:g} is not between 0 and 1", where="--label-smoothing", remedy="try 0.1"
            )
        if self.memory_limit < MIN_MEMORY:
            raise UsageError(
                f"{self.memory_limit:,} bytes is too little to run in",
                where="--memory-limit",
                remedy=f"give at least {MIN_MEMORY // 2**20}MiB",
            )
        for name in self.outputs or ():
            if name not in OUTPUTS:
                raise UsageError(
                    f"no output is called {name!r}", where="--outputs", remedy=f"choose of {', '.join(OUTPUTS)}"
                )
            if OUTPUTS[name].needs_label and self.label == "none":
                raise UsageError(f"{name} needs a label", where="--outputs", remedy="name its column with --label")
        self._check_activation()
        _check_unique("--outputs", self.outputs or ())
        _check_unique("--classes", self.classes or ())
        if self.rejects is not None and self.on_bad_row != "drop":
            raise UsageError(
                "rejected rows are kept only when bad rows are dropped",
                where="--rejects",
                remedy="add --on-bad-row drop",
            )
        weights = self.class_weights or ()
        for weight in weights.values() if isinstance(weights, dict) else weights:
            if not (math.isfinite(weight) and weight >= 0):
                raise UsageError(
                    f"a weight is {weight:g}", where="--class-weights", remedy="weights are finite and not negative"
                )

    @property
    def loss_name(self) -> LossName:
        """The loss function: ``loss``, or the default of the activation."""
        return loss_of(self.activation, self.loss)

    @property
    def is_usual(self) -> bool:
        """Whether the activation is softmax, and the loss cross-entropy."""
        return ACTIVATIONS[self.activation].is_log_linear and self.loss_name == "cross_entropy"

    def _check_activation(self) -> None:
        """Check that the activation and the loss are compatible with each other and with other options."""
        try:
            loss = self.loss_name
        except ValueError as error:
            raise UsageError(str(error), where="--loss", remedy="batchmax show --alternatives compares them") from error
        if not LOSSES[loss].has_weights and (self.class_weights is not None or self.label_smoothing):
            raise UsageError(f"{loss} has neither class weights nor smoothing", where="--loss", remedy="leave them out")
        activation = ACTIVATIONS[self.activation]
        for name in self.outputs or ():
            if not activation.supports(OUTPUTS[name].of):
                raise UsageError(
                    f"activation {self.activation} has no {name}", where="--outputs", remedy="leave it out"
                )
        if self.top_k is not None and not activation.supports("distribution"):
            raise UsageError(
                f"activation {self.activation} has no most probable classes",
                where="--top-k",
                remedy="leave it out",
            )
        if activation.is_log_linear:
            return
        if self.input not in {None, "logits"}:
            raise UsageError(
                f"activation {self.activation} is computed from logits, not from {self.input}",
                where="--activation",
                remedy="give logits",
            )
        if self.calibration is not None or self.scale is not None:
            raise UsageError(
                "a calibration applies to softmax only", where="--calibration", remedy="leave out one of them"
            )


def score_options(**given: Any) -> ScoreOptions:
    """Return validated :class:`ScoreOptions` from keyword arguments.

    Lists may be comma-separated text or iterables of strings. ``temperature`` is ``1 / beta``. ``memory_limit`` may be
    text such as ``"512MiB"``. ``None`` means the default.

    Parameters
    ----------
    given
        ``temperature``, and any attributes of :class:`ScoreOptions`. ``classes`` and ``class_weights`` may also be the
        path of a file, as on the command line.

    Raises
    ------
    UsageError
        A name is unknown, or a value has the wrong type or is outside its domain.

    Examples
    --------
    >>> import batchmax
    >>> options = batchmax.score_options(outputs="pred,loss", temperature=2.0)
    >>> options.outputs, options.beta
    (('pred', 'loss'), 0.5)
    """
    known = set(_hints())
    storage = names_of("storage_options", given.get("storage_options") or ())
    values = {name: _plain(value) for name, value in given.items() if value is not None}
    temperature = values.pop("temperature", None)
    if temperature is not None:
        if "beta" in values:
            raise UsageError("both --temperature and --beta are given", remedy="give one: beta is 1/temperature")
        check_type("temperature", temperature, float)
        if not 1 / MAX_BETA <= temperature <= MAX_BETA:
            raise UsageError(
                f"{temperature} is not a temperature",
                where="--temperature",
                remedy=f"give a number from {1 / MAX_BETA:g} to {MAX_BETA:g}",
            )
        values["beta"] = 1.0 / float(temperature)
    if values.get("calibration") is not None:
        _apply(values, temperature, storage)
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(
            f"no option is called {unknown[0]!r}", remedy=f"choose of {', '.join(sorted({*known, 'temperature'}))}"
        )
    for name in ("outputs", "columns", "exclude", "storage_options"):
        if name in values:
            values[name] = names_of(name, values[name])
    if "classes" in values:
        values["classes"] = read_classes(given["classes"], storage)
    if "memory_limit" in values:
        values["memory_limit"] = parse_bytes(values["memory_limit"])
    if "class_weights" in values:
        values["class_weights"] = read_class_weights(values["class_weights"], storage)
    if "outputs" in values and not values["outputs"] and "top_k" not in values:
        raise UsageError("nothing is asked for", where="--outputs", remedy="try probs,loss")
    return ScoreOptions(**values)


def _apply(values: dict[str, Any], temperature: Any, storage: Sequence[str]) -> None:
    """Set the options that a calibration file determines."""
    if temperature is not None or "beta" in values:
        raise UsageError(
            "both --calibration and a temperature are given", remedy="give one: the calibration has a temperature"
        )
    check_type("calibration", values["calibration"], str)
    found = read_calibration(values["calibration"], storage)
    values |= {"calibrated_classes": found.n_classes, "beta": 1.0 / found.temperature}
    values |= {"scale": found.scale, "bias": found.bias} if found.scale is not None else {}


def resolve_options(options: ScoreOptions | None, given: Mapping[str, Any]) -> ScoreOptions:
    """Return the options that a function was called with: an options object, or keyword arguments.

    Raises
    ------
    UsageError
        Both are given, ``options`` has the wrong type, or as :func:`score_options`.
    """
    if options is None:
        return score_options(**given)
    if not isinstance(options, ScoreOptions):
        raise UsageError(
            f"options is of type {type(options).__name__}", remedy="make it with batchmax.score_options(...)"
        )
    if given:
        raise UsageError(
            f"both options and {next(iter(given))!r} are given",
            remedy="give one: put the rest into score_options(...)",
        )
    return options


def _plain(value: Any) -> Any:
    """Return NumPy numbers as Python numbers, and paths as text: options are serialized as JSON."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(ScoreOptions)


def _check_at_least(option: str, value: int | None, smallest: int) -> None:
    if value is not None and value < smallest:
        raise UsageError(f"{value} is less than {smallest}", where=option)


def _check_unique(option: str, names: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"{name!r} is named twice", where=option, remedy="name it once")
        seen.add(name)
