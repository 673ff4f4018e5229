"""``batchmax report``: write an HTML report."""

from __future__ import annotations

from typing import Any

from batchmax.cli import options as shared
from batchmax.cli.command import RESULTS, make_command, option
from batchmax.cli.results import show_progress, show_result

EXAMPLE = """\
batchmax report logits.parquet -o report.html
batchmax report scored.parquet -o report.html --by language --worst 50
batchmax report logits/ -o report.html --row 18223 --columns id,text
"""

COMMON = (
    *("--logits", "--label", "--classes", "--temperature", "--calibration", "--by", "--worst", "--columns"),
    *("--on-bad-row", "--out"),
)


@make_command(example=EXAMPLE, common=COMMON, topic="report")
@shared.inputs
@shared.find_logits
@shared.find_labels
@shared.scale
@shared.limit
@shared.by
@shared.worst("Number of rows to list, those with the largest loss.", 20)
@option(
    "--row",
    RESULTS,
    "Row to draw, counted from 0 over all inputs.",
    type=int,
    default_text="the row with the largest loss",
)
@shared.bins
@shared.out("HTML file to write.")
@option("--title", RESULTS, "Title of the page.", default_text="name of the first file")
@shared.copied("Columns to show for single rows.", "Columns not to show.")
@shared.replace
@shared.on_bad_row
@shared.resources
@shared.reporting
def command(inputs: tuple[str, ...], out: str, **given: Any) -> None:
    """Write an HTML report about a model.

    The report is one file without external resources: metrics; charts of loss, calibration,
    confidence and classes; the computation of one row; the rows with the largest loss; groups.
    INPUT, logits or scored files, is read twice.
    """
    from batchmax.cli.render import tables
    from batchmax.reports import report

    with show_progress() as progress:
        result = report.report(list(inputs), out, progress=progress, **given)
    show_result(result, lambda: tables.show_report(result))
