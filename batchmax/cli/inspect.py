"""``batchmax inspect``: what is in a file, and the command that scores it."""

from __future__ import annotations

from typing import Any

import click

from batchmax.cli import options as shared

EXAMPLE = """\
batchmax inspect logits.parquet
batchmax inspect logits.parquet --json
"""


@shared.command(example=EXAMPLE)
@click.argument("file", metavar="FILE")
@shared.find_logits
@shared.find_labels
@shared.scale
@shared.beta
@shared.quiet
@shared.reporting
def command(file: str, json: bool, **given: Any) -> None:
    """Say what is in a file, and how to score it.

    Columns, row groups, codec and encodings; which column is taken for the logits and why, which for the
    label, how many classes there are and their names; and the command to run.
    """
    from batchmax.cli import facts, tables

    found = facts.gather(file, given)
    if json:
        click.echo(tables.json_line(found))
    else:
        facts.show(found)
