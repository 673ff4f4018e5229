"""``batchmax score``: score logits, with the options of a scoring job, and print the summary."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, get_args

import click

from batchmax.activations import ACTIVATIONS, LOSSES
from batchmax.cli import options as shared
from batchmax.cli.options import BAD_ROWS, COMPUTE, RUNNING, WRITE, option
from batchmax.errors import UsageError
from batchmax.options import score_options as domain
from batchmax.outputs import OUTPUTS

EXAMPLE = """\
batchmax score logits.parquet -o scored.parquet
batchmax score run/ -o scored/ --outputs loss,pred,correct --on-bad-row null
batchmax score a.parquet -o b.parquet --fail-if 'mean_loss > 1.2 or bad_rows > 100'
"""


@shared.command(example=EXAMPLE, topic="score")
@shared.inputs
@shared.find_logits
@shared.storage
@shared.find_labels
@shared.text_bytes
@shared.scale
@shared.beta
@shared.calibration
@shared.limit
@option(
    "--activation",
    metavar="NAME",
    type=click.Choice(list(ACTIVATIONS)),
    group=COMPUTE,
    help=f"What makes probs: {', '.join(ACTIVATIONS)}.  [default: softmax]",
)
@option(
    "--loss",
    metavar="NAME",
    type=click.Choice(list(LOSSES)),
    group=COMPUTE,
    help=f"What loss is: {', '.join(LOSSES)}.  [default: what goes with the activation]",
)
@option(
    "--outputs",
    metavar="LIST",
    group=COMPUTE,
    help=f"Columns to compute, of {', '.join(OUTPUTS)}.  [default: probs,loss; probs without a label]",
)
@option(
    "--top-k",
    metavar="K",
    type=int,
    group=COMPUTE,
    help="Add top_k_classes and top_k_probs; of tokens top_k_log_probs and tail_mass.",
)
@option("--seed", metavar="S", type=int, group=COMPUTE, help="Of the draws of sample.  [default: 0]")
@option(
    "--class-weights",
    metavar="FILE",
    group=COMPUTE,
    help="Weights of the loss: one number a line, or name,number.",
)
@option(
    "--label-smoothing",
    metavar="E",
    type=float,
    group=COMPUTE,
    help="Mix the label with the uniform distribution.  [default: 0]",
)
@shared.out("A file (.parquet, .pq, .parq), a folder, or - for an Arrow stream on stdout.")
@option(
    "--layout",
    metavar="LAYOUT",
    type=click.Choice(get_args(domain.Layout)),
    group=WRITE,
    help="Of probs and log_probs: list, fixed, or wide, one column per class.  [default: as the input]",
)
@option(
    "--dtype",
    metavar="TYPE",
    type=click.Choice(get_args(domain.FloatName)),
    group=WRITE,
    help="Of probabilities: float32, float64 or float16; losses are never below float32."
    "  [default: float32; float64 for float64 logits]",
)
@shared.carried
@option("--prefix", metavar="P", group=WRITE, help="Put before the names of new columns.")
@shared.if_exists
@option(
    "--shard",
    metavar="I/N",
    group=WRITE,
    help="Make only the parts I, I+N, I+2N, ... of a folder; a run without it, with --if-exists resume, publishes.",
)
@shared.compression
@shared.row_group_size
@shared.bad_rows
@option(
    "--fail-if",
    metavar="CONDITION",
    group=BAD_ROWS,
    help="Names of the summary against numbers, with and, or. If true: exit 4, and OUT is kept as OUT.held.",
)
@option(
    "--engine",
    metavar="NAME",
    type=click.Choice(get_args(domain.Engine)),
    group=RUNNING,
    help="Who makes the parts of a folder: local, or ray (a cluster, by RAY_ADDRESS), with --threads CPUs a task."
    "  [default: local]",
)
@shared.resources
@option("--dry-run", is_flag=True, group=RUNNING, help="Say what would be done; do nothing.")
@shared.loudness
@shared.reporting
def command(
    inputs: tuple[str, ...], out: str, dry_run: bool, quiet: bool, verbose: bool, json: bool, **given: Any
) -> None:
    """Compute probabilities and losses from logits.

    Reads the logits and labels of INPUT (files, folders, quoted globs; - for an Arrow stream), computes a
    stable softmax and the cross-entropy of every row, and writes the rows to OUT with the results beside
    them, in their order.

    A value in brackets is what holds without the option. Each option is also read from the environment:
    --top-k from BATCHMAX_SCORE_TOP_K.
    """
    from batchmax.cli.progress import Progress
    from batchmax.cli.render import tables
    from batchmax.jobs import score
    from batchmax.options.score_options import score_options

    if out == "-" and sys.stdout.isatty():
        raise UsageError(
            "stdout is a terminal, which shows no data", where="--out", remedy="pipe it, or name a file: -o"
        )
    options = score_options(**given)
    if dry_run:
        plan = score.dry_run(list(inputs), out, options)
        if json:
            click.echo(tables.json_line(plan))
        else:  # the plan of parts is only in the JSON
            tables.show_plan({name: value for name, value in plan.items() if name != "plan"})
        return
    with Progress(quiet=quiet, verbose=verbose) as progress:
        summary = score.score(list(inputs), out, options, progress=progress)
    if out == "-":  # stdout is used for the data
        with contextlib.redirect_stdout(sys.stderr):
            report(summary, out, json=json, quiet=quiet)
    else:
        report(summary, out, json=json, quiet=quiet)


def report(summary: Any, out: str, *, json: bool, quiet: bool) -> None:
    """Print the summary."""
    from batchmax.cli.render import tables

    if json:
        click.echo(summary.to_json())
    elif not quiet:
        tables.show_summary(summary, out)
