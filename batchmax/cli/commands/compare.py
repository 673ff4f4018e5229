"""``batchmax compare``: compare two inputs row by row, optionally with a gate."""

from __future__ import annotations

from typing import Any, get_args

import click

from batchmax.cli import options as shared
from batchmax.cli.options import BAD_ROWS, READ, WRITE, option
from batchmax.options.score_options import InputKind

EXAMPLE = """\
batchmax compare old.parquet new.parquet
batchmax compare old/ new/ --key id --fail-if 'mean_loss_change > 0.01 or right_to_wrong > 100'
batchmax compare logits.parquet other.parquet --logits z --logits-b probabilities --input-b probs
"""


@shared.command(example=EXAMPLE, topic="compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@option(
    "--key",
    metavar="COLUMN",
    group=READ,
    help="Column whose values pair the rows of A and B.  [default: the first row with the first]",
)
@shared.find_logits
@shared.storage
@shared.find_labels
@option(
    "--labels-from",
    metavar="A|B",
    type=click.Choice(["a", "b"], case_sensitive=False),
    group=READ,
    help="Judge both by the labels of this one.  [default: they must be the same]",
)
@option("--logits-b", metavar="NAME", group=READ, help="Column of logits of B.  [default: as --logits]")
@option(
    "--input-b",
    metavar="KIND",
    type=click.Choice(get_args(InputKind)),
    group=READ,
    help="What the column of B holds.  [default: as --input]",
)
@option("--label-b", metavar="NAME", group=READ, help="Column of labels of B.  [default: as --label]")
@shared.limit
@shared.scale
@shared.beta
@shared.calibration
@option(
    "--worst",
    metavar="N",
    type=int,
    default=10,
    group=WRITE,
    help="Rows to show of those that moved most.  [default: 10]",
)
@shared.on_bad_row
@option(
    "--fail-if",
    metavar="CONDITION",
    group=BAD_ROWS,
    help="Names of the figures in --json against numbers, with and, or. If true: exit 4.",
)
@shared.resources
@shared.loudness
@shared.reporting
def command(a: str, b: str, fail_if: str | None, quiet: bool, verbose: bool, json: bool, **given: Any) -> None:
    """Compare two files of the same rows.

    A and B are logits, or what score wrote, for the same rows. Compares their losses pair by pair, with a confidence
    interval of the change; which predictions became wrong, and which right; how far the probabilities are apart; and
    shows the rows that moved most. Where one has no labels, those of the other hold for both.
    """
    from batchmax.cli.progress import Progress
    from batchmax.cli.render import comparison as comparison_table
    from batchmax.evaluation.comparison import compare
    from batchmax.evaluation.comparison.result import gate_of

    gate = None if fail_if is None else gate_of(fail_if)
    with Progress(quiet=quiet, verbose=verbose) as progress:
        found = compare.compare(a, b, progress=progress, **given)
    if not json and not quiet:
        comparison_table.show(found)
    if gate is not None:
        found.judge(gate)
    if json:
        click.echo(found.to_json())
