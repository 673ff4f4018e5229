"""``batchmax decide``: choose a threshold, or another rule that makes decisions."""

from __future__ import annotations

from typing import Any

from batchmax.cli import options as shared
from batchmax.cli.command import INPUT, MODEL, RESULTS, ROWS, choice, make_command, option
from batchmax.cli.completion import COLUMN, PATH
from batchmax.cli.results import show_progress, show_result

EXAMPLE = """\
batchmax decide validation.parquet --maximize f1 -o decision.json
batchmax decide validation.parquet --at 'alert_rate<=0.01' -o decision.json
batchmax decide validation.parquet --costs costs.csv -o decision.json
batchmax score logits.parquet -o scored.parquet --decision decision.json
"""

COMMON = (
    *("--logits", "--label", "--positive", "--maximize", "--at", "--costs", "--confidence-level", "--by"),
    *("--holdout", "--out"),
)


@make_command(example=EXAMPLE, common=COMMON, topic="decisions")
@shared.inputs
@shared.find_logits
@shared.find_labels
@shared.positive
@choice(
    "--activation",
    "NAME",
    ("softmax", "sigmoid"),
    MODEL,
    "Activation function",
    more="By default sigmoid for multi-label rows, else softmax.",
    default_text="by the labels",
)
@option("--sample-weight", INPUT, "Column of row weights; not with --at.", type=COLUMN, default_text="1")
@option(
    "--cluster",
    INPUT,
    "Column of clusters, such as patients, which are held out as a whole.",
    type=COLUMN,
    more="Rows of a cluster depend on each other. By default, rows are independent.",
)
@shared.scale
@shared.limit
@choice(
    "--maximize",
    "METRIC",
    ("f1", "f0.5", "f2", "accuracy", "balanced_accuracy", "mcc"),
    RESULTS,
    "Choose the threshold with the largest",
    more="For two classes and multi-label rows.",
)
@option(
    "--at",
    RESULTS,
    "Meet 'precision>=0.95', 'recall>=0.9', 'fpr<=0.01' or 'alert_rate<=0.01' (1% alerts), with confidence.",
    metavar="CONSTRAINT",
    more="With more than two classes, 'accuracy>=0.98': the confidence from which a row is decided.",
)
@option(
    "--costs",
    RESULTS,
    "Choose decisions with the least cost, from a CSV file.",
    metavar="FILE",
    type=PATH,
    more="Its header is 'true' and the decisions, one of which may be abstain; each line has a class and its costs.",
)
@option(
    "--confidence-level",
    RESULTS,
    "Confidence of --at.",
    type=float,
    default=0.95,
)
@option("--by", RESULTS, "Column of groups, each with a rule of its own.", type=COLUMN)
@option(
    "--holdout",
    ROWS,
    "Share of rows to hold out as a test.",
    type=float,
    default=0.5,
    more="With 0, it is measured on the rows that it was chosen on; not with --at.",
)
@shared.seed("Random seed for the choice of held-out rows.", ROWS)
@shared.out("JSON file for the rule.")
@shared.replace
@shared.on_bad_row
@shared.resources
@shared.reporting
def command(inputs: tuple[str, ...], out: str, **given: Any) -> None:
    """Choose a threshold, and write it to a file.

    Chooses a threshold on one part of the labeled rows, and shows its metrics on the held-out part.
    Give one of --maximize, --at and --costs.
    """
    from batchmax.cli.render import decision
    from batchmax.evaluation.decisions import decide

    with show_progress() as progress:
        result = decide.decide(list(inputs), out, progress=progress, **given)
    show_result(result, lambda: decision.show_decision(result, out))
