"""``batchmax score``: score logits, with the options of a scoring job, and print the summary."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, get_args

from batchmax.activations import ACTIVATIONS, LOSSES
from batchmax.cli import options as shared
from batchmax.cli.command import FILES, MODEL, RESULTS, RUNNING, choice, make_command, option
from batchmax.cli.completion import PATH, Names
from batchmax.cli.results import show_progress, show_result
from batchmax.errors import UsageError
from batchmax.options.score_options import Engine, FloatName, score_options
from batchmax.outputs import OUTPUTS

EXAMPLE = """\
batchmax score logits.parquet -o scored.parquet
batchmax score run/ -o scored/ --outputs loss,pred,correct --fail-if 'mean_loss > 1.2'
"""

COMMON = (
    *("--logits", "--label", "--classes", "--temperature", "--outputs", "--top-k", "--columns"),
    *("--on-bad-row", "--out", "--if-exists", "--fail-if"),
)


@make_command(example=EXAMPLE, common=COMMON, topic="score")
@shared.inputs
@shared.find_logits
@shared.find_labels
@shared.text_bytes
@shared.scale
@shared.limit
@choice(
    "--activation",
    "NAME",
    list(ACTIVATIONS),
    MODEL,
    "Activation function",
    more="By default sigmoid for multi-label rows, else softmax.",
    default_text="by the labels",
)
@choice("--loss", "NAME", list(LOSSES), MODEL, "Loss function", default_text="that of the activation")
@option(
    "--class-weights",
    MODEL,
    "File with the weight of each class in the loss: one number per line, or name,number.",
    type=PATH,
)
@option(
    "--pos-weight",
    MODEL,
    "File with the weight of each class where it is a label, for binary cross-entropy.",
    type=PATH,
    more="As for --class-weights.",
)
@option(
    "--label-smoothing",
    MODEL,
    "Share of the uniform distribution to mix into the labels.",
    type=float,
    default_text="0",
)
@option(
    "--outputs",
    RESULTS,
    "Columns to compute.",
    type=Names(OUTPUTS, several=True),
    more=f"Names: {', '.join(OUTPUTS)}. Without labels, the default is probs.",
    default_text="probs,loss",
)
@option(
    "--top-k",
    RESULTS,
    "Also write the N most probable classes.",
    type=int,
    more="The columns are top_k_classes and top_k_probs; for sequences top_k_classes, top_k_log_probs and tail_mass.",
)
@option(
    "--decision",
    RESULTS,
    "Also write the decisions of a rule that batchmax decide wrote.",
    type=PATH,
    more="The columns are decision, or decisions for multi-label rows; decision_reason; with costs, expected_cost.",
)
@shared.carried
@shared.seed("Random seed for the output column sample.", RESULTS, default=None)
@shared.layout("Layout of probs, log_probs and losses", default_text="as the logits")
@choice(
    "--dtype",
    "TYPE",
    get_args(FloatName),
    RESULTS,
    "Type of the computed numbers",
    more="Losses are at least float32.",
    default_text="float32, or float64 for float64 logits",
)
@option("--prefix", RESULTS, "Prefix for the names of computed columns.")
@shared.out(
    "File (.parquet), folder, or -.", "Files may also end in .pq or .parq. As INPUT and OUT, - is an Arrow stream."
)
@shared.if_exists
@option(
    "--shard",
    FILES,
    "Compute only every N-th part of an output folder, from part I on, counted from 0.",
    metavar="I/N",
    more="A last run with --if-exists resume and without --shard computes missing parts and publishes the output.",
)
@shared.durability
@shared.compression
@shared.row_group_size
@shared.bad_rows
@shared.fail_if(
    "Condition for exit code 4, such as 'mean_loss > 1.2'.",
    "Names are those of --json. If it is true, the output is kept at OUT.held.",
)
@choice(
    "--engine",
    "NAME",
    get_args(Engine),
    RUNNING,
    "Where the parts of an output folder are computed",
    more="With ray, on the cluster at RAY_ADDRESS, with --threads CPUs per task.",
    default_text="local",
)
@shared.resources
@option("--dry-run", RUNNING, "Show the plan of the run, and write nothing.", is_flag=True)
@shared.reporting
def command(inputs: tuple[str, ...], out: str, dry_run: bool, **given: Any) -> None:
    """Compute probabilities and losses from logits.

    Reads INPUT (files, folders, quoted globs, or - for stdin) and writes its rows, in the same order,
    with their probabilities and losses.
    """
    from batchmax.cli.render import summaries
    from batchmax.jobs import score

    if out == "-" and sys.stdout.isatty():
        what = "an Arrow stream can't be shown in a terminal"
        raise UsageError(what, where="--out", remedy="pipe it to a program, or name a file: -o scored.parquet")
    options = score_options(**given)
    if dry_run:
        plan = score.dry_run(list(inputs), out, options)
        show_result(plan, lambda: summaries.show_plan(plan))
        return
    with show_progress() as progress:
        summary = score.score(list(inputs), out, options, progress=progress)
    # With -o -, the data is on stdout.
    with contextlib.redirect_stdout(sys.stderr) if out == "-" else contextlib.nullcontext():
        show_result(summary, lambda: summaries.show_summary(summary, out))
