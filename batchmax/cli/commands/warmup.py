"""``batchmax warmup``: compile the kernels before the first job."""

from __future__ import annotations

import time

import click

from batchmax.cli import options as shared

EXAMPLE = """\
batchmax warmup && batchmax score logits.parquet -o scored.parquet
"""


@shared.command(example=EXAMPLE, topic="performance")
@shared.loudness
@shared.reporting
def command(quiet: bool, verbose: bool, json: bool) -> None:
    """Compile the kernels ahead of time.

    Kernels are compiled when they are first used and kept in a cache folder of your own. This compiles all of
    them now: for images, or before a benchmark.
    """
    from batchmax import kernels
    from batchmax.cli.progress import Progress
    from batchmax.cli.render.formatting import duration
    from batchmax.cli.render.tables import json_line
    from batchmax.runtime.text import printable

    started = time.perf_counter()
    with Progress(quiet=quiet, verbose=verbose) as progress:
        folder = str(kernels.warmup(progress))
    seconds = time.perf_counter() - started
    if json:
        click.echo(json_line({"seconds": seconds, "cache": folder}))
    elif not quiet:
        click.echo(f"Kernels ready after {duration(seconds)}, in {printable(folder)}")
