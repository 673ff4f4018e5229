"""``batchmax evaluate``: compute metrics in one pass and print them as tables."""

from __future__ import annotations

from typing import Any

import click

from batchmax.cli import options as shared
from batchmax.cli.options import BAD_ROWS, COMPUTE, READ, WRITE, option
from batchmax.errors import UsageError

EXAMPLE = """\
batchmax evaluate logits.parquet
batchmax evaluate scored.parquet --by language -o by-language.parquet
batchmax evaluate logits/ --fail-if 'ece > 0.05 or accuracy < 0.9'
"""


@shared.command(example=EXAMPLE, topic="evaluation")
@shared.inputs
@shared.find_logits
@shared.storage
@shared.find_labels
@shared.text_bytes
@option("--sample-weight", metavar="NAME", group=READ, help="Column of weights of the rows.  [default: 1 each]")
@shared.scale
@shared.beta
@shared.calibration
@shared.limit
@option(
    "--bins", metavar="N", type=int, default=15, group=COMPUTE, help="Bins of the calibration errors.  [default: 15]"
)
@option("--top-k", metavar="K,K", group=COMPUTE, help="Places that count as right.  [default: 5, of more classes]")
@option("--by", metavar="A,B", default="", group=COMPUTE, help="Columns whose values cut the rows into groups.")
@option("-o", "--out", metavar="OUT", group=WRITE, help="A file for the figures as a table; with --by a row a group.")
@shared.replace
@shared.on_bad_row
@option(
    "--fail-if",
    metavar="CONDITION",
    group=BAD_ROWS,
    help="Figures against numbers, with and, or. If true: exit 4, and nothing is written.",
)
@shared.resources
@shared.loudness
@shared.reporting
def command(inputs: tuple[str, ...], top_k: str | None, quiet: bool, verbose: bool, json: bool, **given: Any) -> None:
    """Evaluate a model: accuracy, calibration, metrics of classes.

    Compares the probabilities of INPUT, logits or what score wrote, with the labels: accuracy, top-k accuracy, mean
    loss and perplexity, the Brier score, how well confidence is calibrated (ECE, MCE, RMS calibration error), and
    precision, recall and F1 of each class. One pass, in bounded memory. --json has all of it.
    """
    from batchmax.cli.progress import Progress
    from batchmax.cli.render import evaluation as figures
    from batchmax.evaluation import evaluate

    with Progress(quiet=quiet, verbose=verbose) as progress:
        found = evaluate.evaluate(
            list(inputs), top_k=None if top_k is None else places(top_k), progress=progress, **given
        )
    if json:
        click.echo(found.to_json())
    elif not quiet:
        figures.show_evaluation(found)


def places(text: str) -> list[int]:
    """Parse comma-separated integers."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(
            f"{text!r} is not a list of whole numbers", where="--top-k", remedy="write it like 1,5"
        ) from None
