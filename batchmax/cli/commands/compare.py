"""``batchmax compare``: compare two inputs row by row, optionally with a gate."""

from __future__ import annotations

from typing import Any, get_args

import click

from batchmax.cli import options as shared
from batchmax.cli.command import INPUT, MODEL, RESULTS, ROWS, choice, is_set, make_command, option
from batchmax.cli.completion import COLUMN, PATH, Names
from batchmax.cli.results import show_progress, show_result
from batchmax.errors import UsageError
from batchmax.options.input_options import InputKind

EXAMPLE = """\
batchmax compare old.parquet new.parquet
batchmax compare old/ new/ --key id --fail-if 'mean_loss_change > 0.01 or right_to_wrong > 100'
batchmax compare old.parquet new.parquet --by hospital --cluster patient
batchmax compare logits.parquet other.parquet --logits z --logits-b probabilities --input-b probs
"""

COMMON = (
    *("--logits", "--label", "--classes", "--temperature", "--calibration", "--worst"),
    *("--key", "--by", "--on-bad-row", "--fail-if"),
)


@make_command(example=EXAMPLE, common=COMMON, topic="compare")
@click.argument("a", metavar="A", type=PATH)
@click.argument("b", metavar="B", type=PATH)
@shared.find_logits
@shared.find_labels
@option(
    "--labels-from",
    INPUT,
    "Use the labels of A or B for both.",
    metavar="A|B",
    type=click.Choice(["a", "b"], case_sensitive=False),
    default_text="both must have the same labels",
)
@option(
    "--logits-b",
    INPUT,
    "Column of logits in B.",
    metavar="NAME",
    type=Names(1, several=True),
    default_text="as --logits",
)
@choice("--input-b", "KIND", get_args(InputKind), MODEL, "Content of the logits column in B", default_text="as --input")
@option("--label-b", INPUT, "Column of labels in B.", type=Names(1), default_text="as --label")
@option("--key", ROWS, "Column that pairs rows.", type=COLUMN, default_text="their position")
@shared.positive
@shared.activation
@option(
    "--cluster",
    INPUT,
    "Column of clusters in A, for intervals.",
    type=COLUMN,
    more="Rows of a cluster, such as those of one patient, depend on each other. By default, rows are independent, "
    "and the tokens of a sequence are a cluster.",
)
@option(
    "--by",
    ROWS,
    "Column of A: compare each of its values too.",
    type=COLUMN,
    more="Their p-values are adjusted by Holm's method.",
)
@shared.limit
@shared.scale
@shared.worst("Number of most changed rows to show.", 10)
@option(
    "--confidence-level",
    RESULTS,
    "Confidence level of the intervals of changes.",
    type=float,
    more="With 0, there are none.",
    default=0.95,
)
@shared.on_bad_row
@shared.fail_if("Condition for exit code 4, such as 'mean_loss_change > 0.01'.", "Names are those of --json.")
@shared.resources
@shared.reporting
def command(a: str, b: str, fail_if: str | None, **given: Any) -> None:
    """Compare the predictions of two models on the same rows.

    A and B are logits or scored files. Shows changes of metrics, also of each label, with
    intervals and p-values; flipped predictions, KL divergence, and the rows that changed most.
    If only one has labels, they are used for both.
    """
    from batchmax.cli.render import comparison as comparison_table
    from batchmax.evaluation.comparison import compare
    from batchmax.evaluation.comparison.result import gate_of

    if a == b == "-":
        raise UsageError("stdin can't be both inputs", where="-", remedy="write one of them to a file")
    gate = None if fail_if is None else gate_of(fail_if)
    with show_progress() as progress:
        result = compare.compare(a, b, progress=progress, **given)
    if gate is not None and is_set("json"):
        result.check(gate)  # before the result is printed, because the line of JSON is either a result or an error
    show_result(result, lambda: comparison_table.show(result))
    if gate is not None:
        result.check(gate)
