"""One sequence: its tokens as a table with a strip of their losses, or one token as a row of its own.

The sequence is read in chunks, as for scoring; only a few numbers per token are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pyarrow as pa
from rich.text import Text

from batchmax.cli.render import tables
from batchmax.cli.render.formatting import ABSENT, number
from batchmax.columns.job import Job
from batchmax.errors import UsageError
from batchmax.jobs.score_stage import ScoreWork
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.buffers import Buffers
from batchmax.runtime.progress import Progress
from batchmax.runtime.text import printable
from batchmax.sources.chunks import limited
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.parts import plan_parts
from batchmax.sources.passthrough import Reading
from batchmax.sources.token_chunks import TokenChunk

TOP = 10
"""Number of tokens shown by default: those with the largest loss."""

LEVELS = "▁▂▃▄▅▆▇█"
GAP = "·"
"""Symbol for tokens without a loss."""


def is_sequence(inputs: list[str], options: ScoreOptions) -> bool:
    """Return whether the rows of files are sequences."""
    return ParquetSource(inputs, options).job.nesting is not None


def show(
    inputs: list[str], row: int, options: ScoreOptions, progress: Progress, *, everything: bool, as_json: bool
) -> str | None:
    """Print a sequence, or return it as JSON."""
    asked = ("pred", "confidence", *(() if options.label == "none" else ("loss", "rank")), "status")
    source = ParquetSource(inputs, replace(options, outputs=None))
    if source.job.label is None:
        asked = ("pred", "confidence", "status")
    source = ParquetSource(inputs, replace(options, outputs=asked, columns=(), on_bad_row="null", prefix=""))
    if source.job.assumed:
        progress.assumed(source.job.assumed)
    work = ScoreWork(source, progress)
    batches = [work(chunk, Buffers()).batch for chunk in _chunks(source, row)]
    found = pa.Table.from_batches(batches).to_pylist()[0]
    record = {"row": row, **{name: value for name, value in found.items() if name != "status"}}
    if as_json:
        return json.dumps(record | {"status": found["status"]}, allow_nan=False)
    _print(f"{printable(_file_of(source, row))}: row {row:,}", found, everything=everything)
    return None


def token_of(inputs: list[str], row: int, token: int, options: ScoreOptions) -> tuple[str, pa.RecordBatch, Job]:
    """Return where a token is, the token as a batch of one row with its logits and label, and its job."""
    source = ParquetSource(inputs, replace(options, columns=(), outputs=("status",), on_bad_row="null"))
    count = 0
    for chunk in _chunks(source, row):
        first = chunk.tokens.first
        count = first + chunk.batch.num_rows
        if first <= token < count:
            origin = f"{printable(chunk.origin.file)}: row {row:,}, token {token:,}"
            return origin, chunk.unit(token - first, source.job), source.job
    raise UsageError(
        f"token {token:,} is not one of the {count:,} of row {row:,}", where="--token", remedy="tokens count from 0"
    )


def _chunks(source: ParquetSource, row: int) -> Iterator[TokenChunk]:
    if row >= source.n_rows:
        raise UsageError(
            f"row {row:,} is not one of the {source.n_rows:,} rows", where="--row", remedy="rows count from 0"
        )
    parts = plan_parts(source.group_rows(), source.row_bytes)
    chunks = source.chunks(parts, Reading(source.job.columns_read), row)
    return limited(cast("Iterator[TokenChunk]", chunks), 1)


def _file_of(source: ParquetSource, row: int) -> str:
    for file in source.files:
        if row < file.metadata.num_rows:
            return file.path
        row -= file.metadata.num_rows
    return ""


def _print(origin: str, found: dict[str, Any], *, everything: bool) -> None:
    console = tables.console()
    console.print(Text(origin, style="bold"))
    statuses = found["statuses"]
    if statuses is None:
        console.print("the logits are null")
        return
    losses = found.get("losses")
    names = ["preds", "confidences", *(("ranks", "losses") if losses is not None else ())]
    headings = {"preds": "pred", "confidences": "p(pred)", "ranks": "rank", "losses": "loss"}
    shown = list(range(len(statuses)))
    if losses is not None and not everything:
        known = np.array([-np.inf if loss is None else loss for loss in losses])
        shown = sorted(np.argsort(-known, kind="stable")[:TOP].tolist())
    elif not everything:
        shown = shown[:TOP]
    if losses is not None and losses:
        console.print(Text(strip(losses, console.width)))
    table = tables.new_table()
    for heading in ("token", *(headings[name] for name in names)):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for token in shown:
        cells = [ABSENT if found[name][token] is None else number(found[name][token]) for name in names]
        table.add_row(f"{token:,}", *cells, statuses[token])
    console.print(table)
    if len(shown) < len(statuses):
        console.print(
            Text(f"and {len(statuses) - len(shown):,} more tokens: --all; one of them: --token N", style="dim")
        )
    figures = [("tokens", number(len(statuses)))]
    if losses is not None:
        figures += [
            ("with a loss", number(found["n_tokens"])),
            ("mean loss", number(found["mean_loss"])),
            ("perplexity", number(found["perplexity"])),
        ]
    tables.show_pairs([*figures, ("status", found["status"])])


def strip(losses: Sequence[float | None], width: int) -> str:
    """Return losses as a line of block characters; if there are more than ``width``, each is the largest of several."""
    step = -(-len(losses) // max(width, 1))
    largest = []
    for start in range(0, len(losses), step):
        known = [loss for loss in losses[start : start + step] if loss is not None]
        largest.append(max(known, default=None))
    top = max((value for value in largest if value is not None and np.isfinite(value)), default=0.0) or 1.0
    last = len(LEVELS) - 1
    return "".join(
        GAP if value is None else LEVELS[min(last, int(value / top * last + 0.5))] if np.isfinite(value) else LEVELS[-1]
        for value in largest
    )
