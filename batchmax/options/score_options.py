"""Options of commands that write rows, and how options are made from keyword arguments.

Every command-line option and every keyword argument of the Python functions is a field of the options of its command.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal, TypeVar

from batchmax.activations import ACTIVATIONS, ActivationName
from batchmax.errors import UsageError
from batchmax.options.calibration_file import read_calibration
from batchmax.options.decision_file import parse_rule, read_rule
from batchmax.options.gates import SCORE_FIGURES, Gate
from batchmax.options.input_options import InputOptions, Options, ReadOptions, RunOptions, check_beta, option_types
from batchmax.options.parsing import (
    check_at_least,
    check_type,
    check_unique,
    names_of,
    parse_bytes,
    read_class_weights,
    read_classes,
    refuse_if,
)
from batchmax.outputs import OUTPUTS
from batchmax.runtime.text import quantity

Layout = Literal["list", "fixed", "wide"]
FloatName = Literal["float32", "float64", "float16"]
IfExists = Literal["error", "overwrite", "resume"]
Engine = Literal["local", "ray"]
Compression = Literal["snappy", "zstd", "lz4", "gzip", "brotli", "none"]
Durability = Literal["sync", "none"]

INDEPENDENT = "its classes are independent, and those above 0.5 are the output preds"
"""Why outputs about one class don't exist for an activation without a distribution, as a remedy."""

ONE_CLASS = "only sigmoid, for multi-label rows, has it"
"""The same for outputs of independent classes, for other activations."""

O = TypeVar("O", bound=Options)  # noqa: E741 - a type


@dataclass(frozen=True, kw_only=True)
class WriteOptions(Options):
    """How output files are written.

    Attributes
    ----------
    compression
        The codec to write with: ``snappy``, ``zstd``, ``lz4``, ``gzip``, ``brotli`` or ``none``. None: the input's.
    row_group_size
        The number of rows in a row group of the output, at least 1. None: as in the input.
    if_exists
        What to do if the output, or an unfinished run of this job, exists: ``error`` (the default), ``overwrite``, or
        ``resume``, which continues the run.
    durability
        Whether outputs are synced to the disk before they are published: ``sync`` (the default), or ``none``, which
        leaves that to the operating system. With ``none``, a power failure soon after the run may leave the output, or
        the file that it replaced, empty or truncated. A killed process can be resumed with both. Shards always sync.
    rejects
        The file that dropped rows are written to, with the reason. None: they aren't written.
    """

    compression: Compression | None = None
    row_group_size: int | None = None
    if_exists: IfExists = "error"
    durability: Durability = "sync"
    rejects: str | None = None

    def __post_init__(self) -> None:
        """Check each value."""
        super().__post_init__()
        check_at_least("--row-group-size", self.row_group_size, 1)


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(WriteOptions, RunOptions, ReadOptions):
    """Options of ``convert``: how rows are read, how files are written, and the resources of the job.

    The attributes are those of the base classes; :class:`ScoreOptions` has all of them. A function that takes these
    options also takes :class:`ScoreOptions`, and ignores the others.

    Examples
    --------
    >>> import batchmax
    >>> options = batchmax.ConvertOptions(limit=10, compression="zstd")
    >>> batchmax.convert("data/digits.parquet", "fixed.parquet", "fixed", options).n_rows
    10
    """

    def __post_init__(self) -> None:
        """Check that there are rejected rows if they are to be written."""
        super().__post_init__()
        what = "rejected rows are written only if bad rows are dropped"
        has_none = self.on_bad_row != "drop"
        refuse_if(self.rejects is not None and has_none, "--rejects", what, "add --on-bad-row drop")


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(ConvertOptions, InputOptions):
    """Options of a scoring job: those of :class:`InputOptions` and :class:`ConvertOptions`, and the ones below.

    The fields have the names of the command line's long options, except ``calibrated_classes``, ``scale`` and ``bias``,
    which ``calibration`` sets, and ``rule``, which ``decision`` sets.

    Attributes
    ----------
    outputs
        The columns to compute, in the order to write them; ``batchmax guide score`` lists them. None: ``probs``, and
        ``loss`` if there is a label.
    seed
        Random seed for ``sample``, from 0 to 2**64 - 1. Default: 0.
    top_k
        The number of most probable classes to add to each row, at least 1. None: none.
    decision
        A file written by ``decide``: the decision of each row is added, and why rows have none; with costs, the
        expected cost too. The calibration that the rule was chosen with is applied to the logits. None: no rule.
    rule
        What the file contains, as JSON.
    layout
        How matrices are written: ``list``, ``fixed`` or ``wide``. None: as the logits are stored.
    dtype
        The type of the numbers written: ``float32``, ``float64`` or ``float16``; losses are at least float32. None: the
        type that was computed in.
    prefix
        Prefix of the names of new columns. Default: empty.
    shard
        Which parts of a folder to make: ``"2/8"`` is every eighth part from the third on. A run without a shard and
        with ``if_exists="resume"`` makes the missing parts and publishes the output. None: make all parts, and publish.
    fail_if
        A condition on the summary; the job fails at its end if it is true. None: no condition.
    engine
        What makes the parts of a folder: ``local`` (the default), this process, or ``ray``, a cluster.

    Examples
    --------
    >>> import batchmax
    >>> options = batchmax.score_options(outputs="pred,loss", memory_limit="512MiB")
    >>> summary = batchmax.score("data/digits.parquet", "scored.parquet", options)
    """

    outputs: tuple[str, ...] | None = None
    seed: int = 0
    top_k: int | None = None
    decision: str | None = None
    rule: str | None = None
    layout: Layout | None = None
    dtype: FloatName | None = None
    prefix: str = ""
    shard: str | None = None
    fail_if: str | None = None
    engine: Engine = "local"

    def __post_init__(self) -> None:
        """Check each value, the condition, and that outputs are compatible with the label and the activation."""
        super().__post_init__()
        check_at_least("--top-k", self.top_k, 1)
        check_at_least("--seed", self.seed, 0)
        is_unread = self.decision is not None and self.rule is None
        refuse_if(is_unread, "--decision", "the file isn't read", "make the options with batchmax.score_options")
        refuse_if(self.seed >= 2**64, "--seed", f"{self.seed} is larger than 2**64 - 1", "give a smaller number")
        if self.fail_if is not None:
            Gate(self.fail_if, SCORE_FIGURES)
        check_unique("--outputs", self.outputs or ())
        for name in self.outputs or ():
            refuse_if(name not in OUTPUTS, "--outputs", f"unknown output {name!r}", f"choose from {', '.join(OUTPUTS)}")
            lacks_label = OUTPUTS[name].needs_label and self.label == "none"
            refuse_if(lacks_label, "--outputs", f"{name} needs labels", "name the label column: --label NAME")
        self.check_activation(self._check_outputs)

    def _check_outputs(self, activation: ActivationName) -> None:
        """Check that an activation has the outputs."""
        supports = ACTIVATIONS[activation].supports
        remedy = f"leave it out: {ONE_CLASS if supports('distribution') else INDEPENDENT}"
        for name in self.outputs or ():
            of = OUTPUTS[name].of
            what = f"activation {activation} has no {name}"
            is_of_one = of != "independent" and supports("distribution")
            refuse_if(not supports(of), "--outputs", what, "leave it out" if is_of_one else remedy)
        lacks_order = self.top_k is not None and not supports("distribution")
        what = f"activation {activation} has no most probable classes"
        refuse_if(lacks_order, "--top-k", what, remedy)

    @property
    def is_durable(self) -> bool:
        """Whether outputs are synced. Parts of shards are: the run that publishes them may be on another machine."""
        return self.durability == "sync" or self.shard is not None


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
    options = _from_keywords(ScoreOptions, given)
    if options.outputs == () and options.top_k is None and options.rule is None:
        raise UsageError("no output is selected", where="--outputs", remedy="try probs,loss")
    return options


def binary_options(options: ScoreOptions) -> ScoreOptions:
    """Return the options for rows of one logit, which are computed as two logits under softmax.

    The sigmoid of one logit z is the softmax of the logits 0 and z.

    Raises
    ------
    UsageError
        The activation or the loss isn't that of a binary classifier, or there are several positive weights.
    """
    remedy = "leave it out; to use another one, give two logits per row"
    if options.calibrated_activation == "sigmoid":
        what = "the calibration is for two or more classes of multi-label rows, and there is one logit"
        raise UsageError(what, where="--calibration", remedy="leave it out, or calibrate again")
    if options.activation_name not in {"softmax", "sigmoid"}:
        what = f"{options.activation} needs two or more logits per row, and there is one"
        raise UsageError(what, where="--activation", remedy=remedy)
    if options.loss_name not in {"cross_entropy", "binary_cross_entropy"}:
        what = f"{options.loss_name} needs two or more logits per row, and there is one"
        raise UsageError(what, where="--loss", remedy=remedy)
    if options.pos_weight is not None:
        what = f"{quantity(len(options.pos_weight), 'weight')} for rows of one logit"
        refuse_if(len(options.pos_weight) != 1, "--pos-weight", what, "give one number, the weight of class 1")
        what = "--class-weights is given too"
        refuse_if(options.class_weights is not None, "--pos-weight", what, "leave out one of them")
    return replace(options, activation=None, loss=None)


def resolve_options(kind: type[O], options: O | None, given: Mapping[str, Any]) -> O:
    """Return the options that a function was called with: an options object, or keyword arguments.

    Of an object with the options of several commands, such as :class:`ScoreOptions`, only those of ``kind`` are taken.

    Raises
    ------
    UsageError
        Both are given, ``options`` has the wrong type, or as :func:`score_options`.
    """
    if options is None:
        return score_options(**given) if kind is ScoreOptions else _from_keywords(kind, given)  # type: ignore[return-value]
    if not isinstance(options, kind):
        raise UsageError(
            f"options is of type {type(options).__name__}", remedy="make it with batchmax.score_options(...)"
        )
    if given:
        raise UsageError(
            f"both options and {next(iter(given))!r} are given", remedy="pass it to score_options(...) instead"
        )
    if type(options) is kind:
        return options
    return kind(**{name: getattr(options, name) for name in option_types(kind)})


def _from_keywords(kind: type[O], given: Mapping[str, Any]) -> O:
    """Return options of a class from the values that :func:`score_options` accepts."""
    known = option_types(kind)
    storage = names_of("storage_options", given.get("storage_options") or ())
    values = {name: _plain(value) for name, value in given.items() if value is not None}
    if "beta" in known:
        _set_temperature(values, storage)
    if "rule" in known and "decision" in values:
        check_type("decision", values["decision"], str)
        values["rule"] = read_rule(values["decision"], storage)
        if parse_rule(values["rule"]).activation == "sigmoid":
            values.setdefault("activation", "sigmoid")
    for name in values:
        if name not in known:
            names = sorted({*known, *(("temperature",) if "beta" in known else ())})
            raise UsageError(f"unknown option {name!r}", remedy=f"choose from {', '.join(names)}")
    for name in ("outputs", "columns", "exclude", "storage_options"):
        if name in values:
            values[name] = names_of(name, values[name])
    if "classes" in values:
        values["classes"] = read_classes(given["classes"], storage)
    if "memory_limit" in values:
        values["memory_limit"] = parse_bytes(values["memory_limit"])
    for name in ("class_weights", "pos_weight"):
        if name in values:
            values[name] = read_class_weights(values[name], storage, name)
    return kind(**values)


def _set_temperature(values: dict[str, Any], storage: Sequence[str]) -> None:
    """Replace ``temperature`` by ``beta``, and set the options that a calibration file determines."""
    temperature = values.pop("temperature", None)
    if temperature is not None and "beta" in values:
        raise UsageError("both --temperature and --beta are given", remedy="give one: beta is 1/temperature")
    if "calibration" in values:
        if temperature is not None or "beta" in values:
            raise UsageError(
                "both --calibration and a temperature are given", remedy="give one: the calibration has a temperature"
            )
        check_type("calibration", values["calibration"], str)
        values |= read_calibration(values["calibration"], storage)
        if values["calibrated_activation"] == "sigmoid":
            values.setdefault("activation", "sigmoid")
    if temperature is not None:
        check_type("temperature", temperature, float)
        check_beta("--temperature", temperature)
        values["beta"] = 1.0 / float(temperature)


def _plain(value: Any) -> Any:
    """Return NumPy numbers as Python numbers, and paths as text: options are serialized as JSON."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value
