"""``batchmax show``: the arithmetic of one row, from a file or from the command line.

The probabilities shown are those that ``score`` would write: the row goes through the same function.
"""

from __future__ import annotations

from typing import Any

import click

from batchmax.cli import options as shared
from batchmax.cli.options import COMPUTE, READ, WRITE, option
from batchmax.errors import UsageError

EXAMPLE = """\
batchmax show logits.parquet --row 18223
batchmax show --values 0.95,0.99,0.98 --beta 1,500
batchmax show --values 2,-inf,0.5 --label 2
"""


@shared.command(example=EXAMPLE)
@click.argument("inputs", metavar="[INPUT...]", nargs=-1)
@option("--row", metavar="N", type=int, group=READ, help="Row to show, from 0, over all of INPUT.")
@option("--values", metavar="Z,Z,...", group=READ, help="Logits to show instead of a row.")
@shared.find_logits
@shared.find_labels
@shared.scale
@option("--beta", metavar="B,B,...", group=COMPUTE, help="Multiply the logits by B; several: side by side.")
@option("--all", is_flag=True, group=WRITE, help="Every class.  [default: the top 10 and the label]")
@shared.quiet
@shared.reporting
def command(
    inputs: tuple[str, ...],
    row: int | None,
    values: str | None,
    beta: str | None,
    json: bool,
    **given: Any,
) -> None:
    """Show the arithmetic of one row, step by step.

    From logits z to softmax and cross-entropy: the naive powers, what is subtracted so that they do not
    overflow, the probabilities, their logarithms and the loss. With --values, --label is a class.
    """
    from batchmax.cli import row_table, rows, tables

    everything = given.pop("all")
    betas = numbers("--beta", beta) if beta is not None else [None]
    if values is not None:
        if inputs or row is not None:
            raise UsageError("--values and a file are both given", remedy="give one of them")
        shown = rows.from_values(numbers("--values", values), betas, **given)
    elif not inputs:
        raise UsageError("nothing to show", remedy="try: batchmax show --values 1,2,3")
    elif row is None or row < 0:
        what = "which row?" if row is None else f"there is no row {row}"
        raise UsageError(what, where="--row", remedy="the first is --row 0")
    else:
        shown = rows.from_files(list(inputs), row, betas, **given)
    if json:
        click.echo(tables.json_line(rows.as_record(shown)))
    else:
        row_table.show(shown, everything=everything)


def numbers(option_name: str, text: str) -> list[float]:
    """Read numbers between commas; inf, -inf and nan are numbers."""
    found = []
    for word in text.split(","):
        try:
            found.append(float(word))
        except ValueError:
            raise UsageError(
                f"{word.strip()!r} is not a number", where=option_name, remedy="write it like 0.5,1,-inf"
            ) from None
    return found
