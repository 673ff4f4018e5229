"""Convert rows, tables and provenance from Arrow and files to the numbers and text that a report shows.

Column values can have any type and size. They are converted to short text here; the page escapes it.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from batchmax import __version__
from batchmax.columns.job import Job
from batchmax.evaluation.worst_rows import figures_of
from batchmax.functional.losses import softmax_rows
from batchmax.kernels.compiler.intrinsics import compiled_by
from batchmax.options.input_options import MAX_BETA, InputOptions
from batchmax.options.parsing import option_words
from batchmax.reports.collectors import SelectedRow
from batchmax.reports.html.formatting import ABSENT, number, printable
from batchmax.reports.html.page_model import Pair, Provenance, RowFacts, TextTable, tabulated
from batchmax.runtime.text import quantity, size
from batchmax.sources.parquet_file import InputFile
from batchmax.sources.parquet_source import Source
from batchmax.storage.json_fields import JsonError, json_list, json_object, json_objects, parse_json

SCORED = {
    "version": str,
    "logits": list | str,
    "temperature": float | int,
    "outputs": list,
    "options": dict,
    "inputs": list,
}
"""The members of an output's metadata that are shown, and their types."""

MOST_CLASSES = 12
"""Classes to draw of a row: those with the largest logits, and the label."""

MOST_COLUMNS = 16
"""Carried columns to show of a row."""

MOST_FILES = 30
MOST_ITEMS = 20
"""Items to show of a list, a struct or a map."""

BETAS = 41
"""Number of betas to show a row at. It is odd, so that the report's beta is in the middle."""

BETA_SPAN = 20.0
"""Ratio of the largest beta to the report's beta, and of that to the smallest."""

SILENT = {"threads", "memory_limit", "storage_options"}
"""Options that don't affect the page, and options that may be secrets."""

CALIBRATED = {"beta", "scale", "bias", "calibrated_activation", "calibrated_classes"}
"""Options that a calibration file sets."""


def row_facts(selected: SelectedRow, job: Job, names: Sequence[str], *, by_number: bool) -> RowFacts:
    """Return a row, which the user may have selected by its number, with its probabilities and losses at each β."""
    z = selected.logits[np.newaxis, :]
    used = BETAS // 2
    with np.errstate(over="ignore"):
        betas = job.options.beta * np.geomspace(1 / BETA_SPAN, BETA_SPAN, BETAS)
    betas = np.clip(betas, 1 / MAX_BETA, MAX_BETA)
    betas[used] = job.options.beta
    shown = np.argsort(-selected.logits, kind="stable")[:MOST_CLASSES]
    if selected.label is not None and selected.label not in shown:
        shown[-1] = selected.label
    labels = None if selected.label is None else np.array([selected.label], np.int64)
    probs, losses = np.empty((BETAS, len(shown))), np.full(BETAS, np.nan)
    whole = np.empty_like(z)
    for at, beta in enumerate(betas.tolist()):
        rows = softmax_rows(z, beta, labels=labels, probs=whole)
        probs[at] = whole[0, shown]
        if labels is not None:
            losses[at] = rows.nll[0]
    token = "" if selected.token is None else f", token {selected.token:,}"
    text = f"{selected.file}: row {selected.row:,}{token}."
    kind = "row" if selected.token is None else "token"
    if by_number:
        title = f"Row {selected.number:,}" + ("" if selected.token is None else f", its token {selected.token:,}")
    else:
        title = f"The {kind} with the {'lowest confidence' if job.label is None else 'largest loss'}"
        text += " For another row: --row N."
    if selected.label is not None:
        text += f" The label is {printable(names[selected.label], 60)}, the loss {number(float(losses[used]))} nats."
    return RowFacts(
        title=title,
        text=printable(text, 4000),
        columns=_row_columns(selected.columns),
        quantity=_quantity(job.options),
        names=[names[at] for at in shown],
        logits=selected.logits[shown].astype(np.float64),
        label=None if selected.label is None else int(np.flatnonzero(shown == selected.label)[0]),
        betas=betas,
        probs=probs,
        losses=losses,
        n_classes=job.n_classes,
        place=selected.place,
        strip=selected.losses,
    )


def _quantity(options: InputOptions) -> str:
    if options.input != "logits":
        return "log-probability"
    return "logit" if options.scale is None else "scaled logit"


def worst_table(table: pa.Table) -> TextTable:
    """Return the rows with the largest loss as a table of text."""
    is_one_file = len(set(table.column("file").to_pylist())) <= 1
    place = ["row", "token"] if "token" in table.schema.names[:3] else ["row"]
    figures = figures_of(table.schema.names)
    first = [*place, *figures] if is_one_file else ["file", *place, *figures]
    carried = [name for name in table.schema.names if name not in {"file", *place, *figures}]
    names = [*first, *carried[:MOST_COLUMNS]]
    columns = [[shown_value(value) for value in table.column(name)] for name in names]
    kind = "token" if len(place) > 1 else "row"
    text = f"The {quantity(table.num_rows, kind)} with the largest loss, in descending order."
    if is_one_file and table.num_rows:
        text += f" All are from {printable(table.column('file')[0].as_py(), 300)}."
    if len(carried) > MOST_COLUMNS:
        text += f" {quantity(len(carried) - MOST_COLUMNS, 'more column')}: batchmax show --worst {table.num_rows}."
    numbers = {at for at, name in enumerate(names) if _is_number(table.schema.field(name).type)}
    return TextTable(
        f"The worst {kind}s",
        [printable(name, 60) for name in names],
        list(zip(*columns, strict=True)),
        frozenset(numbers),
        text,
    )


def shown_value(value: pa.Scalar) -> str:
    """Return a value of any type as text of bounded length, reading only a bounded part of it."""
    if not value.is_valid:
        return ABSENT
    kind = value.type
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_union(kind):
        return shown_value(value.value)
    if pa.types.is_dictionary(kind):
        return shown_value(value.dictionary[value.index.as_py()])
    if pa.types.is_interval(kind):
        months, days, nanoseconds = value.as_py()
        return printable(f"{months:,} months, {days:,} days, {nanoseconds:,} nanoseconds")
    if pa.types.is_struct(kind):
        inside = ", ".join(
            f"{field.name}: {shown_value(value[at])}" for at, field in enumerate(islice(kind, MOST_ITEMS))
        )
        return printable(f"{{{inside}}}")
    if pa.types.is_nested(kind):
        values = value.values
        inside = ", ".join(shown_value(values[at]) for at in range(min(len(values), MOST_ITEMS)))
        return printable(f"[{inside}]" if len(values) <= MOST_ITEMS else f"[{inside}, …] ({len(values):,})")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        buffer = value.as_buffer()
        return f"{buffer[:16].to_pybytes().hex()}{'…' if buffer.size > 16 else ''} ({size(buffer.size)})"
    if pa.types.is_temporal(kind):
        return _shown_time(value)
    plain = value.as_py()
    return number(plain, 6) if isinstance(plain, float) else printable(plain)


def _shown_time(value: pa.Scalar) -> str:
    """Return a time as Arrow formats it, because Python supports fewer years and not all time zones."""
    try:
        return printable(value.cast(pa.string()).as_py())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return printable(f"{value.cast(pa.int64()).as_py()} ({value.type})")


def provenance(source: Source, options: InputOptions, arguments: dict[str, Any]) -> Provenance:
    """Return the provenance of a report: versions, notes, command, inputs."""
    pairs = [
        ("batchmax", __version__),
        ("kernels", compiled_by()),
        ("NumPy, pyarrow", f"{np.__version__}, {pa.__version__}"),
        *[(note.split(":", 1)[0], printable(note.split(":", 1)[-1].strip(), 300)) for note in source.job.notes],
    ]
    files = source.files
    heading, lines = tabulated(
        files[:MOST_FILES],
        {
            "file": lambda file: printable(file.path, 300),
            "rows": lambda file: number(file.metadata.num_rows),
            "size": lambda file: size(file.size),
            "written by": lambda file: printable(file.metadata.created_by or ABSENT, 60),
            "SHA-256 of the footer": lambda file: file.footer_digest()[:16],
        },
    )
    text = f"and {quantity(len(files) - MOST_FILES, 'more file')}" if len(files) > MOST_FILES else ""
    if not files:
        text = "The rows came as an Arrow stream."
    inputs = TextTable("Inputs", heading, lines, frozenset({1, 2}), text)
    return Provenance(pairs, _command(files, options, arguments), inputs, _scored(files))


def _command(files: Sequence[InputFile], options: InputOptions, arguments: dict[str, Any]) -> str:
    """Return the command that writes the same report."""
    default = InputOptions()
    silent = SILENT if options.calibration is None else SILENT | CALIBRATED
    changed = {
        name: value for name, value in vars(options).items() if name not in silent and value != getattr(default, name)
    }
    words = [file.path for file in files[:MOST_FILES]] + (["…"] if len(files) > MOST_FILES else [])
    words += ["-o", "report.html"]
    words += [printable(word, 300) for word in option_words(changed | arguments)]
    return printable(f"batchmax report {' '.join(map(shlex.quote, words))}", 20_000)


def _scored(files: Sequence[InputFile]) -> list[Pair]:
    """Return the metadata that ``score`` wrote to the first input, or an empty list if there is none."""
    metadata = files[0].metadata.metadata if files else None
    try:
        stored = json_object(parse_json((metadata or {}).get(b"batchmax", b"")), SCORED)
        logits = stored["logits"] if isinstance(stored["logits"], list) else [stored["logits"]]
        described = json_objects(stored["inputs"][:8], {"footer_sha256": str, "size": int})
        shown = {
            "batchmax": stored["version"],
            "logits": ", ".join(json_list(logits, str)),
            "temperature": stored["temperature"],
            "outputs": ", ".join(json_list(stored["outputs"], str)),
            "options": ", ".join(
                f"{name} {value}" for name, value in stored["options"].items() if value not in (None, [], "")
            ),
            "inputs": ", ".join(f"{one['footer_sha256'][:16]} ({size(one['size'])})" for one in described),
        }
    except JsonError:
        return []  # no metadata, or another version's
    return [(name, printable(value, 600)) for name, value in shown.items()]


def _row_columns(columns: Sequence[tuple[pa.Field, pa.Array]]) -> list[Pair]:
    shown = [(printable(field.name, 60), shown_value(array[0])) for field, array in columns[:MOST_COLUMNS]]
    more = len(columns) - MOST_COLUMNS
    return [*shown, *([("", f"and {quantity(more, 'more column')}")] if more > 0 else [])]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
