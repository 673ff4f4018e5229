"""``batchmax show``: print the computation for one row, from a file or from the command line; or the worst rows.

Rows go through the same function as in ``score``, so the probabilities are those that it would write.
"""

from __future__ import annotations

from typing import Any

import click

from batchmax.cli import options as shared
from batchmax.cli.options import COMPUTE, READ, WRITE, is_quiet, is_typed, option
from batchmax.cli.render.formatting import number
from batchmax.errors import UsageError
from batchmax.options.score_options import IfExists, ScoreOptions
from batchmax.runtime.text import printable

EXAMPLE = """\
batchmax show logits.parquet --row 18223
batchmax show sequences.parquet --row 3 --token 17
batchmax show --values 0.95,0.99,0.98 --beta 1,500
batchmax show --values 2,-inf,0.5 --label 2
batchmax show --values 1,2 --alternatives --label 0
batchmax show logits.parquet --worst 20 -o worst.parquet
"""

WITH_WORST = ("out", "if_exists", "columns", "exclude", "limit", "on_bad_row")
"""Options that apply only to ``--worst``."""


@shared.command(example=EXAMPLE, topic="inspect")
@click.argument("inputs", metavar="[INPUT...]", nargs=-1)
@option("--row", metavar="N", type=int, group=READ, help="Row to show, from 0, over all of INPUT.")
@option("--token", metavar="N", type=int, group=READ, help="Token to show of a row that is a sequence, from 0.")
@option("--worst", metavar="N", type=int, group=READ, help="Show the N rows of largest loss instead.")
@option("--values", metavar="Z,Z,...", group=READ, help="Logits to show instead of a row.")
@shared.find_logits
@shared.storage
@shared.find_labels
@shared.limit
@shared.scale
@option("--beta", metavar="B,B,...", group=COMPUTE, help="Multiply the logits by B; several: side by side.")
@shared.calibration
@option("--all", is_flag=True, group=WRITE, help="Every class.  [default: the top 10 and the label]")
@option(
    "--alternatives", is_flag=True, group=WRITE, help="The row under softmax and what it is chosen over, side by side."
)
@option("-o", "--out", metavar="OUT", group=WRITE, help="Write the worst rows to a file (.parquet) instead.")
@shared.carried
@shared.replace
@shared.on_bad_row
@shared.resources
@shared.quiet
@shared.reporting
def command(
    inputs: tuple[str, ...],
    row: int | None,
    token: int | None,
    worst: int | None,
    values: str | None,
    beta: str | None,
    json: bool,
    **given: Any,
) -> None:
    """Show the arithmetic of one row, step by step, or the worst rows.

    From logits z to softmax and cross-entropy: the naive powers, what is subtracted so that they do not
    overflow, the probabilities, their logarithms and the loss. With --values, --label is a class.

    Of a sequence, a line a token and a strip of their losses, or with --token one of them like a row.

    With --worst, INPUT may also be what score wrote, and the rows of largest loss come with their columns.
    """
    from batchmax.cli.progress import Progress
    from batchmax.cli.render import row as row_table
    from batchmax.cli.render import rows, tables

    everything, side_by_side = given.pop("all"), given.pop("alternatives")
    betas = numbers("--beta", beta) if beta is not None else [None]
    if worst is not None:
        if row is not None or token is not None or values is not None or everything or len(betas) > 1:
            what = "--worst goes with none of --row, --token, --values, --all and several --beta"
            raise UsageError(what, remedy="leave one of them out")
        _show_worst(list(inputs), worst, beta=betas[0], json=json, **given)
        return
    chosen = {name: given.pop(name) for name in WITH_WORST}
    if unused := next((name for name, value in chosen.items() if value is not None and is_typed(name)), None):
        raise UsageError(
            "this goes with --worst", where=f"--{unused.replace('_', '-')}", remedy="leave it out, or add --worst 20"
        )
    if values is not None:
        if inputs or row is not None:
            raise UsageError("--values and a file are both given", remedy="give one of them")
        shown = rows.from_values(numbers("--values", values), betas, **given)
    elif not inputs:
        raise UsageError("nothing to show", remedy="try: batchmax show --values 1,2,3")
    elif row is None or row < 0:
        what = "which row?" if row is None else f"there is no row {row}"
        raise UsageError(what, where="--row", remedy="the first is --row 0")
    elif token is None and (found := rows.sequence(list(inputs), betas, **given)) is not None:
        _show_sequence(list(inputs), row, found, everything=everything or side_by_side, json=json)
        return
    else:
        shown = rows.from_files(list(inputs), row, betas, token=token, **given)
    with Progress(quiet=is_quiet()) as progress:
        if shown.assumed:
            progress.assumed(shown.assumed)
        for doubt in shown.doubts:
            progress.warn(doubt)
    if side_by_side:
        record = rows.alternatives(shown)
        click.echo(tables.json_line(record)) if json else row_table.show_alternatives(shown, record)
    elif json:
        click.echo(tables.json_line(rows.as_record(shown)))
    else:
        row_table.show(shown, everything=everything)


def _show_sequence(inputs: list[str], row: int, options: ScoreOptions, *, everything: bool, json: bool) -> None:
    from batchmax.cli.progress import Progress
    from batchmax.cli.render import tokens

    with Progress(quiet=is_quiet()) as progress:
        line = tokens.show(inputs, row, options, progress, everything=everything, as_json=json)
    if line is not None:
        click.echo(line)


def _show_worst(
    inputs: list[str], n: int, *, out: str | None, if_exists: IfExists | None, json: bool, **given: Any
) -> None:
    from batchmax.cli.progress import Progress
    from batchmax.cli.render import tables
    from batchmax.cli.render import worst_rows as worst_table
    from batchmax.evaluation.worst_rows import worst_rows
    from batchmax.sinks import table_file
    from batchmax.storage.paths import find_files

    if out is None and if_exists is not None and is_typed("if_exists"):
        raise UsageError("nothing is written", where="--if-exists", remedy="add -o worst.parquet, or leave it out")
    storage, output = given["storage_options"] or (), None
    if out is not None:
        output = table_file.table_output(out, if_exists or "error", find_files(inputs, storage), storage)
    with Progress(quiet=is_quiet()) as progress:
        found = worst_rows(inputs, n, progress=progress, **given)
        if output is not None:
            table_file.save_table(found, output)
    if json:
        click.echo(tables.json_line(worst_table.as_records(found)))
    elif out is None:
        worst_table.show(found)
    elif not is_quiet():
        largest = found["loss"][0].as_py() if found.num_rows else None
        tables.show_pairs(
            [("rows", number(found.num_rows)), ("largest loss", number(largest)), ("output", printable(out))]
        )


def numbers(option_name: str, text: str) -> list[float]:
    """Parse comma-separated numbers, including inf, -inf and nan."""
    found = []
    for word in text.split(","):
        try:
            found.append(float(word))
        except ValueError:
            raise UsageError(
                f"{word.strip()!r} is not a number", where=option_name, remedy="write it like 0.5,1,-inf"
            ) from None
    return found
