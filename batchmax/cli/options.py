"""Options that several commands share, so that they have the same meaning and help everywhere.

Each is a decorator. An option that isn't given is None; :mod:`batchmax.options` has the defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import click

from batchmax.cli import completion
from batchmax.cli.command import FILES, INPUT, MODEL, RESULTS, ROWS, RUNNING, F, choice, option, remember_flag, stack
from batchmax.options import input_options, score_options


def _flag(*names: str, help: str) -> Callable[[F], F]:  # noqa: A002
    """Declare a flag of every command, for :func:`is_set`; eager, so that errors in other options obey it."""
    return option(
        *names,
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=remember_flag,
        group=RUNNING,
        help=help,
    )


reporting = stack(
    _flag("-q", "--quiet", help="Show only warnings and errors."),
    _flag("-v", "--verbose", help="Show details of the run, and the reasons for its choices."),
    _flag("--json", help="Print the result or the error as JSON on stdout."),
    _flag("--debug", help="Show the traceback of an error."),
)
"""The options of every command that has a result; commands show it with :mod:`batchmax.cli.results`."""

inputs = click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, shell_complete=completion.paths)

find_logits = stack(
    option(
        "--logits",
        metavar="NAME",
        group=INPUT,
        shell_complete=completion.columns(several=True),
        help="Column or columns of logits.",
        more="For one column per class: a pattern, 'logit_*', or a list, A,B,C. For a field of a struct: "
        "outputs.logits. Detected: logits, else logit_*, else the only list of floats.",
        default_text="detected",
    ),
    option(
        "--n-classes",
        metavar="N",
        type=int,
        group=INPUT,
        help="Number of classes; rows with another number of logits are bad.",
        more="Detected: the fixed size of the lists, else the length of the first row.",
        default_text="detected",
    ),
    choice(
        "--logits-dtype",
        metavar="TYPE",
        choices=get_args(input_options.BinaryName),
        group=INPUT,
        help="Type of the numbers in binary or uint16 columns",
    ),
)

storage = option(
    "--storage-option",
    "storage_options",
    metavar="K=V",
    multiple=True,
    group=INPUT,
    help="Option for object stores, such as region=eu-west-1; can be repeated.",
    more="Values are never printed or stored.",
)

find_labels = stack(
    option(
        "--label",
        metavar="NAME",
        group=INPUT,
        shell_complete=completion.columns(),
        help="Column of labels, or 'none'.",
        more="Labels are class indices, class names or distributions. With 'none', labels aren't read. "
        "Detected: label, else labels, else target.",
        default_text="detected",
    ),
    option(
        "--classes",
        metavar="NAMES|PATH",
        group=INPUT,
        shell_complete=completion.paths,
        help="Class names, or a file.",
        more="Names are a list, A,B,C. A file has one name per line, or is a Hugging Face config.json.",
        default_text="from the metadata",
    ),
    option(
        "--ignore-index",
        metavar="N",
        type=int,
        group=INPUT,
        help="Label of rows that have no loss and don't count in means.",
        default_text="-100",
    ),
    option(
        "--shift",
        is_flag=True,
        default=None,
        group=INPUT,
        help="In sequences, compare each token with the label of the next; for labels that are token IDs.",
    ),
)

text_bytes = option(
    "--bytes",
    metavar="NAME",
    group=INPUT,
    shell_complete=completion.columns(),
    help="In sequences, column of the texts or of their sizes in bytes, for bits per byte.",
)

kind = choice(
    "--input",
    metavar="KIND",
    choices=get_args(input_options.InputKind),
    group=MODEL,
    help="Content of the logits column",
    more="Detected: by the metadata of scored files and by the name of the column, else logits.",
    default_text="detected",
)

scale = stack(
    option(
        "--temperature",
        metavar="X",
        type=float,
        group=MODEL,
        help="Divide the logits by X.",
        default_text="1",
    ),
    kind,
)

calibration = option(
    "--calibration",
    metavar="PATH",
    group=MODEL,
    shell_complete=completion.paths,
    help="Apply a calibration that batchmax calibrate wrote.",
)

beta = option("--beta", metavar="X", type=float, group=MODEL, help="Multiply the logits by X, the inverse temperature.")

limit = option("--limit", metavar="N", type=int, group=ROWS, help="Read only the first N rows.", default_text="all")


def out(help: str, more: str = "", *, required: bool = True) -> Callable[[F], F]:  # noqa: A002
    """Declare ``--out``."""
    return option(
        "-o",
        "--out",
        metavar="OUT",
        required=required,
        group=FILES,
        shell_complete=completion.paths,
        help=help,
        more=more,
    )


def worst(help: str, default: int | None = None, group: str = RESULTS, more: str = "") -> Callable[[F], F]:  # noqa: A002
    """Declare ``--worst``."""
    shown = None if default is None else str(default)
    return option(
        "--worst", metavar="N", type=int, default=default, group=group, help=help, more=more, default_text=shown
    )


carried = stack(
    option(
        "--columns",
        metavar="NAMES",
        group=RESULTS,
        shell_complete=completion.columns(several=True),
        help="Input columns to copy.",
        more="With '*', all are copied.",
        default_text="all but the logits",
    ),
    option(
        "--exclude",
        metavar="NAMES",
        group=RESULTS,
        shell_complete=completion.columns(several=True),
        help="Input columns not to copy.",
    ),
)

by = option(
    "--by",
    metavar="NAMES",
    default="",
    group=RESULTS,
    shell_complete=completion.columns(several=True),
    help="Columns to group by.",
    more="Metrics are also computed for each group.",
)

bins = option(
    "--bins",
    metavar="N",
    type=int,
    default=15,
    group=RESULTS,
    help="Number of confidence bins for calibration errors.",
    default_text="15",
)

if_exists = choice(
    "--if-exists",
    metavar="ACTION",
    choices=get_args(score_options.IfExists),
    group=FILES,
    help="If the output exists",
    more="With resume, an unfinished run continues.",
    default_text="error",
)

replace = choice(
    "--if-exists",
    metavar="ACTION",
    choices=("error", "overwrite"),
    group=FILES,
    help="If the output exists",
    default_text="error",
)

compression = choice(
    "--compression",
    metavar="CODEC",
    choices=get_args(score_options.Compression),
    group=FILES,
    help="Compression codec",
    more="By default, copied columns keep their codecs.",
    default_text="as the logits",
)

row_group_size = option(
    "--row-group-size",
    metavar="N",
    type=int,
    group=FILES,
    help="Number of rows per row group.",
    more="The default is at most 64 MiB of computed numbers.",
    default_text="as the input",
)


def _on_bad_row(more: str) -> Callable[[F], F]:
    return choice(
        "--on-bad-row",
        metavar="POLICY",
        choices=get_args(input_options.BadRowPolicy),
        group=ROWS,
        help="For bad rows",
        more=more,
        default_text="error",
    )


on_bad_row = _on_bad_row("With error, the first stops the command; with null or drop, they are left out and counted.")

bad_rows = stack(
    _on_bad_row("With error, the first stops the job; with null, they have null values; with drop, they are left out."),
    option(
        "--rejects",
        metavar="PATH",
        group=ROWS,
        shell_complete=completion.paths,
        help="Write the dropped rows to this file or folder, with the input file, row number and status of each.",
    ),
)


def fail_if(help: str, more: str = "") -> Callable[[F], F]:  # noqa: A002
    """Declare ``--fail-if``."""
    return option("--fail-if", metavar="CONDITION", group=RUNNING, help=help, more=more)


resources = stack(
    option(
        "--threads",
        metavar="N",
        type=int,
        group=RUNNING,
        help="Number of compute threads.",
        default_text="all usable cores",
    ),
    option(
        "--memory-limit",
        metavar="SIZE",
        group=RUNNING,
        help="Memory limit of the process, such as 512MiB.",
        default_text="1GiB",
    ),
)
