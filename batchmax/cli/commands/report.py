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
@shared.positive
@shared.scale
@shared.limit
@shared.by
@shared.worst("Number of rows with the largest losses.", 20)
@option(
    "--row",
    RESULTS,
    "Row whose computation is shown, counted from 0 over all inputs.",
    type=int,
    default_text="the row with the largest loss",
)
@shared.bins
@shared.out("HTML file to write.")
@option("--title", RESULTS, "Title of the page.", default_text="name of the first file")
@shared.copied("Columns to show.", "Columns not to show.")
@shared.replace
@shared.on_bad_row
@shared.resources
@shared.reporting
def command(inputs: tuple[str, ...], out: str, **given: Any) -> None:
    """Write an HTML report about a model.

    The page has metrics, charts of losses, calibration, confidence and classes, the computation of
    one row, the rows with the largest losses, and groups. It is one file that loads no others. INPUT
    is logits or scored files.
    """
    from batchmax.cli.render import summaries
    from batchmax.reports import report

    with show_progress() as progress:
        result = report.report(list(inputs), out, progress=progress, **given)
    show_result(result, lambda: summaries.show_report(result))
