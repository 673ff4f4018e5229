"""``batchmax convert``: write logits in another layout, with all other columns."""

from __future__ import annotations

from typing import Any

from batchmax.cli import options as shared
from batchmax.cli.command import make_command
from batchmax.cli.results import show_progress, show_result
from batchmax.options.score_options import Layout

EXAMPLE = """\
batchmax convert wide.parquet -o lists.parquet --layout list
batchmax convert logits/ -o fixed/ --layout fixed --on-bad-row drop
"""

COMMON = ("--logits", "--layout", "--columns", "--on-bad-row", "--out", "--if-exists")


@make_command(example=EXAMPLE, common=COMMON, topic="formats")
@shared.inputs
@shared.find_logits
@shared.limit
@shared.out("File (.parquet) or folder.", "Files may also end in .pq or .parq.")
@shared.layout("New layout of the logits", required=True)
@shared.carried
@shared.if_exists
@shared.durability
@shared.compression
@shared.row_group_size
@shared.bad_rows
@shared.resources
@shared.reporting
def command(inputs: tuple[str, ...], out: str, layout: Layout, **given: Any) -> None:
    """Convert logits to another layout.

    Reads INPUT (files, folders, quoted globs, or - for stdin) and writes its rows, in the same order.
    Other columns are copied. Hugging Face metadata isn't copied: pass class names to score with
    --classes.
    """
    from batchmax.cli.render import summaries
    from batchmax.jobs import convert

    with show_progress() as progress:
        summary = convert.convert(list(inputs), out, layout, progress=progress, **given)
    show_result(summary, lambda: summaries.show_summary(summary, out, scored=False))
