"""``batchmax calibrate``: fit a temperature, or a scale and a bias per class."""

from __future__ import annotations

from typing import Any

import click

from batchmax.cli import options as shared
from batchmax.cli.options import COMPUTE, READ, WRITE, option

EXAMPLE = """\
batchmax calibrate validation.parquet -o calibration.json
batchmax score logits.parquet -o scored.parquet --calibration calibration.json
"""


@shared.command(example=EXAMPLE, topic="calibration")
@shared.inputs
@shared.find_logits
@shared.storage
@shared.find_labels
@shared.kind
@shared.limit
@option(
    "--method",
    metavar="METHOD",
    type=click.Choice(["temperature", "vector"]),
    default="temperature",
    group=COMPUTE,
    help="temperature, or vector: a scale and a bias for each class.  [default: temperature]",
)
@option(
    "--holdout",
    metavar="SHARE",
    type=float,
    default=0.2,
    group=READ,
    help="Share of the rows that is not fitted to, but judged; 0: all are both.  [default: 0.2]",
)
@option("--seed", metavar="S", type=int, default=0, group=READ, help="What chooses these rows.  [default: 0]")
@option("--bins", metavar="N", type=int, default=15, group=COMPUTE, help="Bins of the ECE.  [default: 15]")
@option("-o", "--out", metavar="OUT", required=True, group=WRITE, help="A file for the calibration, JSON.")
@shared.replace
@shared.on_bad_row
@shared.resources
@shared.loudness
@shared.reporting
def command(inputs: tuple[str, ...], out: str, quiet: bool, verbose: bool, json: bool, **given: Any) -> None:
    """Fit a temperature that makes probabilities calibrated.

    Looks for the T by which the logits of INPUT must be divided so that the mean loss against their labels is least
    (Guo et al. 2017), within fixed bounds, and says what that does to the loss and to the calibration error of rows
    that were held out. The predicted classes stay the same.
    """
    from batchmax.cli.progress import Progress
    from batchmax.cli.render import evaluation
    from batchmax.evaluation import calibrate

    with Progress(quiet=quiet, verbose=verbose) as progress:
        found = calibrate.calibrate(list(inputs), out, progress=progress, **given)
    if json:
        click.echo(found.to_json())
    elif not quiet:
        evaluation.show_calibration(found, out)
