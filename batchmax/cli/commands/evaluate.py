"""``batchmax evaluate``: compute metrics in one pass and print them as tables."""

from __future__ import annotations

from typing import Any

from batchmax.cli import options as shared
from batchmax.cli.command import FILES, INPUT, RESULTS, choice, make_command, option
from batchmax.cli.completion import COLUMN, PATH
from batchmax.cli.results import show_progress, show_result
from batchmax.errors import UsageError

EXAMPLE = """\
batchmax evaluate logits.parquet
batchmax evaluate scored.parquet --by language -o by-language.parquet
batchmax evaluate logits/ --fail-if 'ece > 0.05 or accuracy < 0.9'
"""

COMMON = (
    *("--logits", "--label", "--classes", "--temperature", "--calibration", "--by", "--top-k"),
    *("--on-bad-row", "--out", "--fail-if"),
)


@make_command(example=EXAMPLE, common=COMMON, topic="evaluation")
@shared.inputs
@shared.find_logits
@shared.find_labels
@shared.positive
@shared.text_bytes
@shared.activation
@option("--sample-weight", INPUT, "Column of row weights.", type=COLUMN, default_text="1")
@option(
    "--cluster",
    INPUT,
    "Column of clusters, for intervals.",
    type=COLUMN,
    more="Rows of a cluster, such as those of one patient, depend on each other. By default, rows are independent, "
    "and the tokens of a sequence are a cluster.",
)
@shared.scale
@shared.limit
@shared.by
@option(
    "--top-k",
    RESULTS,
    "Values of k for top-k accuracy.",
    metavar="K,K,...",
    more="The default needs more than 5 classes.",
    default_text="5",
)
@shared.bins
@choice(
    "--curves",
    "METHOD",
    ("exact", "binned", "none"),
    RESULTS,
    "How AUROC and average precision are computed",
    more="With binned, memory is 64 MiB, and bounds are given.",
    default_text="exact; none for more than 100 classes",
)
@option(
    "--max-fpr", RESULTS, "False positive rate up to which the partial AUROC is computed.", metavar="RATE", type=float
)
@option(
    "--curves-out",
    FILES,
    "Parquet or CSV file for points of the ROC and of precision and recall.",
    metavar="FILE",
    type=PATH,
    more="Up to 4,000 per class, with the counts of rows.",
)
@option(
    "--confidence-level",
    RESULTS,
    "Confidence level of the intervals of metrics.",
    type=float,
    more="With 0, there are none.",
    default=0.95,
)
@shared.out("Parquet file for the metrics, one row per group.", required=False)
@shared.replace
@shared.on_bad_row
@shared.fail_if(
    "Condition for exit code 4, such as 'accuracy < 0.9'.",
    "Names are those of --json. If it is true, no file is written.",
)
@shared.resources
@shared.reporting
def command(inputs: tuple[str, ...], top_k: str | None, **given: Any) -> None:
    """Compute accuracy, calibration and per-class metrics.

    Computes accuracy, top-k accuracy, mean loss, perplexity, Brier score, calibration errors, AUROC,
    and precision, recall and F1 of each class, or of each label of multi-label rows. INPUT is logits
    or scored files.
    """
    from batchmax.cli.render import evaluation as figures
    from batchmax.evaluation import evaluate

    places = None if top_k is None else whole_numbers(top_k)
    with show_progress() as progress:
        result = evaluate.evaluate(list(inputs), top_k=places, progress=progress, **given)
    show_result(result, lambda: figures.show_evaluation(result))


def whole_numbers(text: str) -> list[int]:
    """Parse the comma-separated integers of ``--top-k``."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        what = f"{text!r} is not a list of integers"
        raise UsageError(what, where="--top-k", remedy="separate them by commas: --top-k 1,5") from None
