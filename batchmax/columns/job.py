"""Plans a scoring job: which columns are read, computed and written.

:func:`plan_scoring` combines a schema and options once, so that later code doesn't interpret options again. Knows
schemas, not data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchmax.activations import ACTIVATIONS, LOSSES
from batchmax.columns.carried_columns import carried_columns
from batchmax.columns.class_names import check_classes, find_classes, weights_of_classes
from batchmax.columns.find_logits import find_logits
from batchmax.columns.job_options import check_groups, choose_outputs, pos_weight_of, with_activation, with_rule
from batchmax.columns.label_column import LabelColumn
from batchmax.columns.label_lists import FORMAT_ROWS, FORMAT_TEXTS, decide_format, with_kind
from batchmax.columns.labels import find_label
from batchmax.columns.logits_layout import INPUT_TEXTS, LogitsColumn, OutputLayout, one_logit
from batchmax.columns.result_arrays import REASON_TYPE, STATUS_TYPE, matrix_fields
from batchmax.columns.scored_input import as_written
from batchmax.columns.sequences import Nesting, find_sequences, row_fields
from batchmax.errors import DataError, UsageError
from batchmax.options.decision_file import AppliedRule, parse_rule
from batchmax.options.gates import LABEL_FIGURES, SCORE_FIGURES, TOKEN_FIGURES, Gate
from batchmax.options.score_options import ScoreOptions, binary_options
from batchmax.outputs import CLASS_OUTPUTS, DECISION_OUTPUTS, FLOAT_OUTPUTS, OUTPUTS, column_name, top_k_outputs
from batchmax.runtime.text import quantity


@dataclass(frozen=True, eq=False)
class Job:
    """A planned scoring job.

    ``nesting`` is set if rows are sequences. Then logits, labels and classes describe one token instead of one row,
    while carried and computed columns are those of whole rows. ``assumed`` is a note that the numbers are read as
    probabilities although ``--input`` wasn't given, or empty.
    """

    options: ScoreOptions
    logits: LogitsColumn
    label: LabelColumn | None
    classes: tuple[str, ...] | None
    n_classes: int
    outputs: tuple[str, ...]
    layout: OutputLayout
    dtype: np.dtype[Any]
    loss_dtype: np.dtype[Any]
    class_weights: NDArray[np.float64] | None
    pos_weights: NDArray[np.float64] | None
    carried: pa.Schema
    computed: pa.Schema
    notes: tuple[str, ...]
    nesting: Nesting | None = None
    assumed: str = ""
    rule: AppliedRule | None = None

    @cached_property
    def schema(self) -> pa.Schema:
        """The fields of the output: carried columns, then computed ones."""
        return pa.schema([*self.carried, *self.computed])

    @property
    def n_logits(self) -> int:
        """The number of logits that a row has: the number of classes, or 1."""
        return self.logits.width(self.n_classes)

    @property
    def label_weights(self) -> NDArray[np.float64] | None:
        """The factor on the loss of a row by its only label; None for 1. Positive weights are those of one logit."""
        return self.pos_weights if self.class_weights is None else self.class_weights

    @property
    def row_bytes(self) -> int:
        """The bytes of one row of logits in the type that is computed in."""
        return self.n_classes * self.logits.dtype.itemsize

    @property
    def result_bytes(self) -> int:
        """The approximate bytes of one row of results: matrices as computed, and as written if the type differs."""
        matrices = sum(OUTPUTS[name].kind == "matrix" for name in self.outputs)
        if not ACTIVATIONS[self.options.activation_name].is_log_linear:
            matrices += 2
        if self.label is not None and self.label.is_multi_label:
            matrices += 1
        written = 0 if self.dtype == self.logits.dtype else self.dtype.itemsize
        name = 4 if self.classes is None else sum(map(len, self.classes)) // len(self.classes) + 4
        top_k = (name + 16 + self.dtype.itemsize) * (self.options.top_k or 0) + name
        if "preds" in self.outputs:
            top_k += (name + 2) * self.n_classes
        if self.rule is not None:
            # Probabilities in float64 for the expected costs, or log-odds.
            top_k += (name + 2 if self.rule.task == "multilabel" else 16) * self.n_classes + name + 10
        return matrices * self.n_classes * (self.logits.dtype.itemsize + written) + 8 * len(self.outputs) + top_k

    @property
    def columns_read(self) -> tuple[str, ...]:
        """The names of the columns that are read, dotted if nested."""
        names = [*self.logits.names, *self.label_columns, *self.carried.names]
        names += [name for name in (self.options.bytes, self.group_column) if name is not None]
        return tuple(dict.fromkeys(names))

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of labels, dotted if nested; none without labels."""
        return () if self.label is None else self.label.names

    @property
    def group_column(self) -> str | None:
        """The column of the groups of a decision rule, or None."""
        return None if self.rule is None else self.rule.by

    @property
    def is_undecided(self) -> bool:
        """Whether the first rows must decide what the labels contain; see :meth:`with_label_format`."""
        return self.label is not None and self.label.kind == "integers"

    def with_label_format(self, first_rows: pa.RecordBatch | None) -> Job:
        """Return the job with the format of its lists of integers decided; unchanged if it is known already.

        ``first_rows`` has the first 1,000 rows of the whole input, or all if there are fewer; None if there are none.

        Raises
        ------
        UsageError
            The rows can be read both ways.
        """
        if self.label is None or not self.is_undecided:
            return self
        found = decide_format(first_rows, self.label, self.n_classes, self.options.ignore_index)
        label = with_kind(self.label, found)
        note = f"label format: {FORMAT_TEXTS[found]}, as in the first {FORMAT_ROWS:,} rows"
        undecided = f"labels: {self.label.why}"
        notes = [f"labels: {label.why}" if one == undecided else one for one in self.notes]
        options = replace(self.options, label_format=found)
        return replace(self, label=label, options=options, notes=(*notes, note))

    def can_exclude(self, name: str) -> bool:
        """Return whether ``--exclude`` leaves out a column: no option names it, and it is only copied."""
        return self.options.columns is None and name in self.carried.names and name not in self.columns_computed_on

    @property
    def columns_computed_on(self) -> frozenset[str]:
        """The columns of logits, labels, groups and ``--bytes``, and the top-level columns that contain them."""
        names = [*self.logits.names, *self.label_columns, self.options.bytes or "", self.group_column or ""]
        return frozenset(part for name in names for part in (name, name.split(".")[0]))

    @property
    def top_k_outputs(self) -> tuple[str, ...]:
        """The columns that ``--top-k`` adds; none if it isn't given."""
        return top_k_outputs(self.options.top_k, nested=self.nesting is not None)

    @property
    def added_outputs(self) -> tuple[str, ...]:
        """The columns that other options than ``--outputs`` add."""
        return (*self.top_k_outputs, *(() if self.rule is None else self.rule.outputs))

    def list_field(self, name: str) -> pa.Field:
        """Return the list field that a row of sequences has for an output of its tokens."""
        assert self.nesting is not None  # noqa: S101 - only called for sequences
        (field,) = computed_fields(name, self)
        make = pa.large_list if self.nesting.is_large else pa.list_
        return pa.field(self.options.prefix + column_name(field.name, nested=True), make(field.type))

    @property
    def matrices(self) -> tuple[str, ...]:
        """The outputs with one number per class."""
        return tuple(name for name in self.outputs if OUTPUTS[name].kind == "matrix")


def plan_scoring(
    schema: pa.Schema, options: ScoreOptions, first_length: int | None = None, *, writes: bool = True
) -> Job:
    """Plan a job from a schema and options.

    Parameters
    ----------
    schema
        Schema of the input.
    options
        Options of the job.
    first_length
        Length of the first row that isn't null or empty; used if neither the schema nor the options determine the
        number of classes.
    writes
        Whether the job has output columns. If not, ``computed`` is empty, and columns of the input may have any name.

    Raises
    ------
    UsageError
        A column or an option is invalid for this schema.
    DataError
        The number of classes is unknown, because no row has logits.
    """
    given, options = options, as_written(schema, options)
    logits = find_logits(schema, given)
    assumed = "" if given.input is not None else _assumed(logits, is_written=options.input is not None)
    options = replace(options, input=logits.holds)
    whole, nesting = schema, find_sequences(schema, options, logits)
    schema = schema if nesting is None else nesting.schema
    n_classes = logits.n_classes or first_length
    if not n_classes:
        raise DataError("no row has logits, so the number of classes is unknown", remedy="give it: --n-classes N")
    if n_classes == 1:
        logits, n_classes = one_logit(logits), 2
    classes, classes_from = find_classes(schema, options, logits)
    check_classes(classes, n_classes, classes_from)
    if logits.is_one_logit:
        options = binary_options(options)
    label = find_label(schema, options, classes, n_classes, logits.suffixes, is_one_logit=logits.is_one_logit)
    if not logits.is_one_logit:
        options = with_activation(options, label, nesting)
    rule = None if options.rule is None else parse_rule(options.rule)
    if rule is not None:
        options = with_rule(options, rule, classes, logits.width(n_classes), nesting)
        check_groups(rule, schema)
    dtype = np.dtype(options.dtype or logits.dtype)
    if options.dtype == "float64" or options.input == "probs" or options.scale is not None or not options.is_usual:
        # Logarithms of probabilities and scaled logits need more digits than the input has. Activations and losses
        # other than the defaults are always computed in float64.
        logits = replace(logits, dtype=np.dtype(np.float64))
    fitted = options.calibrated_classes or (n_classes if options.scale is None else len(options.scale))
    if fitted != n_classes:
        raise UsageError(
            f"the calibration is for {quantity(fitted, 'class')}, and the logits have {n_classes:,}",
            where="--calibration",
            remedy="use a calibration that was fitted to logits of this model",
        )
    notes = [f"logits: {logits.why}, {quantity(n_classes, 'class')}", *([assumed] if assumed else [])]
    outputs = choose_outputs(options, label, nesting)
    if label is not None and label.kind == "distribution" and LOSSES[options.loss_name].needs_class:
        raise UsageError(
            f"{options.loss_name} needs class labels, and column {label.name!r} holds distributions",
            where="--loss",
            remedy="choose another loss, or another label column: --label NAME",
        )
    if options.outputs is None and label is None and options.label != "none":
        notes.append("no label column, so only probs are written; for losses, name the column: --label NAME")
    is_gated = options.fail_if is not None and _needs_labels(options.fail_if, options, nesting)
    if not is_gated and not any(OUTPUTS[name].needs_label or OUTPUTS[name].kind == "status" for name in outputs):
        label = None
    if label is not None:
        notes.append(f"labels: {label.why}")
    if classes is not None:
        notes.append(f"class names: {classes_from}")
    if options.top_k is not None and options.top_k > n_classes:
        raise UsageError(
            f"{options.top_k} exceeds the {n_classes} classes",
            where="--top-k",
            remedy=f"give at most {n_classes}",
        )
    job = Job(
        options=options,
        logits=logits,
        label=label,
        classes=classes,
        n_classes=n_classes,
        outputs=outputs,
        layout=options.layout or logits.output_layout,
        dtype=dtype,
        loss_dtype=np.dtype(np.promote_types(dtype, np.float32)),
        class_weights=weights_of_classes(options.class_weights, classes, n_classes, "--class-weights"),
        pos_weights=weights_of_classes(pos_weight_of(options, logits, classes), classes, n_classes, "--pos-weight"),
        carried=carried_columns(whole, options, logits),
        computed=pa.schema([]),
        notes=tuple(notes),
        nesting=nesting,
        assumed=assumed,
        rule=rule,
    )
    if not writes:
        return job
    computed = list(_computed(job))
    taken = set(job.carried.names)
    for field in computed:
        if field.name in taken:
            raise UsageError(
                f"the input already has a column {field.name!r}",
                where="--outputs",
                remedy=f"add a prefix to the new columns: --prefix batchmax_; or leave it out: --exclude {field.name}",
            )
    return replace(job, computed=pa.schema(computed))


def computed_fields(name: str, job: Job) -> list[pa.Field]:
    """Return the fields of one output, several if wide; for sequences, those of a token without a prefix."""
    prefix = "" if job.nesting is not None else job.options.prefix
    if name in OUTPUTS and OUTPUTS[name].kind == "matrix":
        dtype = job.loss_dtype if name in FLOAT_OUTPUTS else job.dtype
        return matrix_fields(name, job.n_classes, job.layout, dtype, job.logits.suffixes, prefix)
    return [pa.field(prefix + name, output_type(name, job.dtype, job.rule, has_names=job.classes is not None))]


def output_type(name: str, dtype: np.dtype[Any], rule: AppliedRule | None = None, *, has_names: bool) -> pa.DataType:
    """Return the type of an output that isn't a matrix; matrices have ``dtype``, and classes may have names."""
    number, label = pa.from_numpy_dtype(dtype), pa.string() if has_names else pa.int32()
    at_least_float32 = pa.from_numpy_dtype(np.promote_types(dtype, np.float32))
    if name in DECISION_OUTPUTS:
        has_others = rule is not None and rule.other_decisions is not None
        return {
            "decision": pa.string() if has_others else label,
            "decisions": pa.list_(label),
            "decision_reason": REASON_TYPE,
            "expected_cost": at_least_float32,
        }[name]
    if name == "tail_mass":
        return number
    if name.startswith("top_k"):
        return pa.list_(label if name == "top_k_classes" else number)
    types = {
        "float": at_least_float32,
        "int32": label if name in CLASS_OUTPUTS else pa.int32(),
        "bool": pa.bool_(),
        "classes": pa.list_(label),
        "status": STATUS_TYPE,
    }
    return types[OUTPUTS[name].kind]


def _computed(job: Job) -> Iterator[pa.Field]:
    """Yield the fields of all outputs of rows."""
    for name in (*job.outputs, *job.added_outputs):
        yield from computed_fields(name, job) if job.nesting is None else [job.list_field(name)]
    if job.nesting is not None:
        for field in row_fields(job.outputs):
            yield field.with_name(job.options.prefix + field.name)


def _assumed(logits: LogitsColumn, *, is_written: bool) -> str:
    """Return the note that columns are read as probabilities; an empty string if they are read as logits."""
    if logits.holds == "logits":
        return ""
    names = f"columns {logits.names[0]!r}, … hold" if len(logits.names) > 1 else f"column {logits.names[0]!r} holds"
    if is_written:
        return f"input: {names} {INPUT_TEXTS[logits.holds]}, which score wrote"
    return f"input: {names} {INPUT_TEXTS[logits.holds]}, by the name; if they are logits: --input logits"


def _needs_labels(condition: str, options: ScoreOptions, nesting: Nesting | None) -> bool:
    """Return whether a condition names a metric that needs labels.

    Raises
    ------
    UsageError
        The condition is invalid, or names a metric that these rows don't have.
    """
    gate = Gate(condition, SCORE_FIGURES)
    check_token_figures(gate, options, nesting, TOKEN_FIGURES)
    return not LABEL_FIGURES.isdisjoint(gate.metrics)


def check_token_figures(gate: Gate, options: ScoreOptions, nesting: Nesting | None, names: Collection[str]) -> None:
    """Check that a condition names metrics of sequences (``names``) only if these rows have them.

    Raises
    ------
    UsageError
        The rows aren't sequences, or the number of bytes is unknown.
    """
    for name in gate.metrics:
        if name in names and nesting is None:
            raise gate.unknown(name, f"{name} is a metric of sequences, and the rows are not sequences", "leave it out")
        if name == "bits_per_byte" and options.bytes is None:
            remedy = "name the column of texts or of their sizes in bytes: --bytes NAME"
            raise gate.unknown(name, "the number of bytes is unknown", remedy)
