"""``batchmax verify``: verify a scored file or folder."""

from __future__ import annotations

import click

from batchmax.cli import options as shared
from batchmax.cli.options import READ, RUNNING, option

EXAMPLE = """\
batchmax verify scored.parquet
batchmax verify scored.parquet logits.parquet --sample 100
"""


@shared.command(example=EXAMPLE, topic="verify")
@click.argument("file", metavar="FILE")
@click.argument("inputs", metavar="[INPUT...]", nargs=-1)
@option(
    "--logits",
    metavar="NAME",
    group=READ,
    help="Columns of logits in INPUT, where they are one a class and FILE does not know the pattern.",
)
@shared.storage
@option(
    "--sample",
    metavar="N",
    type=int,
    group=RUNNING,
    help="Rows of INPUT to work out again in exact arithmetic.  [default: 20]",
)
@option("--seed", metavar="S", type=int, default=0, group=RUNNING, help="What chooses these rows.  [default: 0]")
@shared.loudness
@shared.reporting
def command(
    file: str,
    inputs: tuple[str, ...],
    logits: str | None,
    storage_options: tuple[str, ...],
    sample: int | None,
    seed: int,
    quiet: bool,
    verbose: bool,
    json: bool,
) -> None:
    """Check a scored file or folder.

    Compares every page of FILE with its checksum, decodes every column, and holds the numbers of each row against
    each other and all of them against the summary. With INPUT, what was scored, it looks whether that is still the
    same, and works some rows out again: probabilities and losses must be within 3 ULP of the exact values. Stops at
    the first thing that does not hold, and exits with 1.
    """
    from batchmax.cli.progress import Progress
    from batchmax.cli.render import tables
    from batchmax.cli.render import verification as checked
    from batchmax.verification import verify

    with Progress(quiet=quiet, verbose=verbose) as progress:
        found = verify.verify(
            file,
            inputs,
            sample=sample,
            seed=seed,
            logits=logits,
            storage_options=storage_options,
            progress=progress,
        )
    if json:
        click.echo(tables.json_line(found.as_dict()))
    elif not quiet:
        checked.show(found)
