"""``batchmax report``: write an HTML report."""

from __future__ import annotations

from typing import Any

import click

from batchmax.cli import options as shared
from batchmax.cli.options import COMPUTE, WRITE, option

EXAMPLE = """\
batchmax report logits.parquet -o report.html
batchmax report scored.parquet -o report.html --by language --worst 50
batchmax report logits/ -o report.html --row 18223 --columns id,text
"""


@shared.command(example=EXAMPLE, topic="report")
@shared.inputs
@shared.find_logits
@shared.storage
@shared.find_labels
@shared.scale
@shared.beta
@shared.calibration
@shared.limit
@option(
    "--bins", metavar="N", type=int, default=15, group=COMPUTE, help="Bins of the reliability diagram.  [default: 15]"
)
@option("--by", metavar="A,B", default="", group=COMPUTE, help="Columns whose values cut the rows into groups.")
@option(
    "--row",
    metavar="N",
    type=int,
    group=COMPUTE,
    help="Row to draw, from 0, over all of INPUT.  [default: the one of largest loss]",
)
@option(
    "--worst", metavar="N", type=int, default=20, group=COMPUTE, help="Rows of largest loss to list.  [default: 20]"
)
@option("-o", "--out", metavar="OUT", required=True, group=WRITE, help="The page, a file that ends in .html.")
@option("--title", metavar="TEXT", group=WRITE, help="The page's title.  [default: the first file's name]")
@option("--columns", metavar="A,B", group=WRITE, help="Columns to show of single rows.  [default: all but the logits]")
@option("--exclude", metavar="A,B", group=WRITE, help="Columns not to show.")
@shared.replace
@shared.on_bad_row
@shared.resources
@shared.loudness
@shared.reporting
def command(inputs: tuple[str, ...], out: str, quiet: bool, verbose: bool, json: bool, **given: Any) -> None:
    """Write an HTML report about a model.

    One file of HTML that opens anywhere and loads nothing: headline figures; loss, reliability, confidence, classes and
    confusion as charts; one row from its logits to its probabilities; the rows of largest loss; groups; and how all of
    it was made. INPUT is logits or what score wrote. It is read twice.
    """
    from batchmax.cli.progress import Progress
    from batchmax.cli.render import tables
    from batchmax.reports import report

    with Progress(quiet=quiet, verbose=verbose) as progress:
        found = report.report(list(inputs), out, progress=progress, **given)
    if json:
        click.echo(found.to_json())
    elif not quiet:
        tables.show_report(found)
