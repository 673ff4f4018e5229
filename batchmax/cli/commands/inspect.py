"""``batchmax inspect``: print what a file contains, and the command that scores it."""

from __future__ import annotations

from typing import Any

import click

from batchmax.cli import options as shared

EXAMPLE = """\
batchmax inspect logits.parquet
batchmax inspect logits.parquet --json
"""


@shared.command(example=EXAMPLE, topic="inspect")
@shared.inputs
@shared.find_logits
@shared.storage
@shared.find_labels
@shared.scale
@shared.beta
@shared.quiet
@shared.reporting
def command(inputs: tuple[str, ...], json: bool, **given: Any) -> None:
    """Show the contents of files, and the command that scores them.

    Columns, row groups, codec and encodings of INPUT (files, folders, quoted globs); which column is taken for the
    logits and why, which for the label, how many classes there are and their names; and the command to run.
    """
    from batchmax.cli.render import inspection, tables
    from batchmax.sources.inspection import gather

    found = gather(inputs, given)
    if json:
        click.echo(tables.json_line(found))
    else:
        inspection.show(found)
