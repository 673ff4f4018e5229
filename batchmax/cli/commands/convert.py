"""``batchmax convert``: write logits in another layout, with all other columns."""

from __future__ import annotations

from typing import Any, get_args

import click

from batchmax.cli import options as shared
from batchmax.cli.options import WRITE, option
from batchmax.options import score_options as domain

EXAMPLE = """\
batchmax convert wide.parquet -o lists.parquet --layout list
"""


@shared.command(example=EXAMPLE, topic="formats")
@shared.inputs
@shared.find_logits
@shared.storage
@shared.limit
@shared.out()
@option(
    "--layout",
    metavar="LAYOUT",
    type=click.Choice(get_args(domain.Layout)),
    required=True,
    group=WRITE,
    help="list: rows of any length; fixed: rows of one length; wide: one column per class.",
)
@shared.carried
@shared.if_exists
@shared.compression
@shared.row_group_size
@shared.bad_rows
@shared.resources
@shared.loudness
@shared.reporting
def command(
    inputs: tuple[str, ...], out: str, layout: domain.Layout, quiet: bool, verbose: bool, json: bool, **given: Any
) -> None:
    """Write logits in another layout.

    Reads INPUT (files, folders, quoted globs) and writes its columns to OUT as they are, but the logits in the layout
    asked for. Rows keep their order. Class names in the metadata of Hugging Face describe the old columns and are left
    behind: give them to score with --classes.
    """
    from batchmax.cli.progress import Progress
    from batchmax.cli.render import tables
    from batchmax.jobs import convert
    from batchmax.options.score_options import score_options

    options = score_options(**given)
    with Progress(quiet=quiet, verbose=verbose) as progress:
        summary = convert.convert(list(inputs), out, layout, options, progress=progress)
    if json:
        click.echo(summary.to_json())
    elif not quiet:
        tables.show_summary(summary, out, scored=False)
