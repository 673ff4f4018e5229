"""``batchmax verify``: verify a scored file or folder."""

from __future__ import annotations

from typing import Any

import click

from batchmax.cli import options as shared
from batchmax.cli.command import INPUT, ROWS, make_command, option
from batchmax.cli.completion import PATH, Names
from batchmax.cli.results import show_progress, show_result

EXAMPLE = """\
batchmax verify scored.parquet
batchmax verify scored.parquet logits.parquet --sample 100
"""

COMMON = ("--logits", "--sample", "--seed")


@make_command(example=EXAMPLE, common=COMMON, topic="verify")
@click.argument("file", metavar="FILE", type=PATH)
@click.argument("inputs", metavar="[INPUT...]", nargs=-1, type=PATH)
@option(
    "--logits",
    INPUT,
    "Columns of logits in INPUT.",
    metavar="NAME",
    type=Names(1, several=True),
    default_text="as FILE was scored",
)
@shared.storage
@option("--sample", ROWS, "Number of rows to recompute exactly.", type=int, default_text="20")
@shared.seed("Random seed for the choice of rows to recompute.", ROWS)
@shared.reporting
def command(file: str, inputs: tuple[str, ...], **given: Any) -> None:
    """Verify the checksums and values of a scored file or folder.

    Compares every page of FILE with its checksum, decodes all columns, and checks that the columns
    agree with each other and with the summary. With INPUT, the input of score, also checks that INPUT
    hasn't changed, and recomputes some rows in exact arithmetic (tolerance 3 ULP). Stops at the
    first error and exits with code 1.
    """
    from batchmax.cli.render import verification
    from batchmax.verification import verify

    with show_progress() as progress:
        result = verify.verify(file, inputs, progress=progress, **given)
    show_result(result, lambda: verification.show(result))
