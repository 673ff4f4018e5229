"""``batchmax inspect``: print what a file contains, and the command that scores it."""

from __future__ import annotations

from typing import Any

from batchmax.cli import options as shared
from batchmax.cli.command import make_command
from batchmax.cli.results import show_result

EXAMPLE = """\
batchmax inspect logits.parquet
batchmax inspect logits.parquet --json
"""

COMMON = ("--logits", "--label", "--classes", "--input")


@make_command(example=EXAMPLE, common=COMMON, topic="inspect")
@shared.inputs
@shared.find_logits
@shared.find_labels
@shared.temperature
@shared.kind
@shared.beta
@shared.reporting
def command(inputs: tuple[str, ...], **given: Any) -> None:
    """Show the contents of files, and the command that scores them.

    Shows the columns, row groups, codecs and encodings of INPUT (files, folders, quoted globs), the
    columns detected as logits and labels with the reasons, and the number and names of the classes.
    """
    from batchmax.cli.render import inspection
    from batchmax.sources.inspection.facts import inspect_files

    result = inspect_files(inputs, given)
    show_result(result, lambda: inspection.show(result))
