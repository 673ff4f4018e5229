"""``batchmax calibrate``: fit a temperature, or a scale and a bias per class."""

from __future__ import annotations

from typing import Any

from batchmax.cli import options as shared
from batchmax.cli.command import MODEL, ROWS, choice, make_command, option
from batchmax.cli.results import show_progress, show_result

EXAMPLE = """\
batchmax calibrate validation.parquet -o calibration.json
batchmax score logits.parquet -o scored.parquet --calibration calibration.json
"""

COMMON = ("--logits", "--label", "--classes", "--method", "--holdout", "--on-bad-row", "--out")


@make_command(example=EXAMPLE, common=COMMON, topic="calibration")
@shared.inputs
@shared.find_logits
@shared.find_labels
@shared.activation
@shared.kind
@shared.limit
@choice(
    "--method",
    "METHOD",
    ("temperature", "vector"),
    MODEL,
    "What to fit",
    default="temperature",
    more="With vector, a scale and a bias for each class.",
)
@option(
    "--holdout",
    ROWS,
    "Share of rows to hold out, to measure the effect.",
    type=float,
    default=0.2,
    more="With 0, the effect is measured on the rows of the fit.",
)
@shared.seed("Random seed for the choice of held-out rows.", ROWS)
@shared.bins
@shared.out("JSON file for the calibration.")
@shared.replace
@shared.on_bad_row
@shared.resources
@shared.reporting
def command(inputs: tuple[str, ...], out: str, **given: Any) -> None:
    """Fit a temperature to calibrate probabilities.

    Finds the temperature with the smallest mean loss (Guo et al. 2017), and shows the loss and the
    calibration error of held-out rows before and after. A temperature doesn't change predictions. For
    multi-label rows, the loss is that of all classes.
    """
    from batchmax.cli.render import evaluation
    from batchmax.evaluation import calibrate

    with show_progress() as progress:
        result = calibrate.calibrate(list(inputs), out, progress=progress, **given)
    show_result(result, lambda: evaluation.show_calibration(result, out))
