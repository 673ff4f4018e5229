"""``batchmax warmup``: compile the kernels before the first job."""

from __future__ import annotations

from batchmax.cli import options as shared
from batchmax.cli.command import make_command
from batchmax.cli.results import show_progress, show_result

EXAMPLE = """\
batchmax warmup
BATCHMAX_CACHE_DIR=/opt/batchmax batchmax warmup --quiet
"""


@make_command(example=EXAMPLE, topic="performance")
@shared.reporting
def command() -> None:
    """Compile the kernels ahead of time.

    By default, kernels are compiled on first use, and stored in ~/.cache/batchmax. Run this when you
    build a container image, or before a benchmark.
    """
    from batchmax.cli.render import summaries
    from batchmax.functional.warmup import warmup

    with show_progress() as progress:
        result = warmup(progress)
    show_result(result, lambda: summaries.show_warmup(result))
