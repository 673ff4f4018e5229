"""Options that several commands share, so that they have the same meaning and help everywhere.

Each is a decorator. An option that isn't given is None; :mod:`batchmax.options` has the defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import click

from batchmax.activations import WITH_CALIBRATION
from batchmax.cli.command import FILES, INPUT, MODEL, RESULTS, ROWS, RUNNING, F, choice, option, remember_flag, stack
from batchmax.cli.completion import COLUMN, COLUMNS, PATH
from batchmax.options import input_options, score_options


def _flag(name: str, help: str, *aliases: str) -> Callable[[F], F]:  # noqa: A002
    """Declare a flag of every command, for :func:`is_set`; eager, so that errors in other options obey it."""
    eager = {"is_flag": True, "is_eager": True, "expose_value": False, "callback": remember_flag}
    return option(name, RUNNING, help, aliases=aliases, **eager)


reporting = stack(
    _flag("--quiet", "Show only warnings and errors.", "-q"),
    _flag("--verbose", "Show details of the run, and the reasons for its choices.", "-v"),
    _flag("--json", "Print the result or the error as JSON on stdout."),
    _flag("--debug", "Show the traceback of an error."),
)
"""The options of every command that has a result; commands show it with :mod:`batchmax.cli.results`."""

inputs = click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=PATH)

storage = option(
    "--storage-option",
    INPUT,
    "Option for object stores, such as region=eu-west-1; can be repeated.",
    aliases=("storage_options",),
    metavar="K=V",
    multiple=True,
    more="Values are never printed or stored.",
)

find_logits = stack(
    option(
        "--logits",
        INPUT,
        "Column or columns of logits.",
        metavar="NAME",
        type=COLUMNS,
        more="For one column per class: a pattern, 'logit_*', or a list, A,B,C. For a field of a struct: "
        "outputs.logits. Detected: logits, else logit_*, else the only list of floats.",
        default_text="detected",
    ),
    option(
        "--n-classes",
        INPUT,
        "Number of classes; rows with another number of logits are bad.",
        type=int,
        more="Detected: the fixed size of the lists, else the length of the first row.",
        default_text="detected",
    ),
    choice(
        "--logits-dtype",
        "TYPE",
        get_args(input_options.BinaryName),
        INPUT,
        "Type of the numbers in binary or uint16 columns",
    ),
    storage,
)

find_labels = stack(
    option(
        "--label",
        INPUT,
        "Column of labels, or 'none'.",
        type=COLUMN,
        more="Labels are class indices, class names or distributions; of multi-label rows, lists, or one column per "
        "class: a pattern, 'label_*'. With 'none', labels aren't read. Detected: label, else labels, else target.",
        default_text="detected",
    ),
    choice(
        "--label-format",
        "FORMAT",
        get_args(input_options.LabelFormat),
        INPUT,
        "Content of lists of integers, the labels of multi-label rows",
        more="With khot, a list has a 0 or 1 for each class; with indices, it lists the right classes.",
        default_text="by the first rows",
    ),
    option(
        "--classes",
        INPUT,
        "Class names, or a file.",
        metavar="NAMES|PATH",
        type=PATH,
        more="Names are a list, A,B,C. A file has one name per line, or is a Hugging Face config.json.",
        default_text="from the metadata",
    ),
    option(
        "--ignore-index",
        INPUT,
        "Label of rows that have no loss and don't count in means.",
        type=int,
        more="Of multi-label rows, the label of classes that have no loss.",
        default_text="-100",
    ),
    option(
        "--shift",
        INPUT,
        "In sequences, compare each token with the label of the next; for labels that are token IDs.",
        is_flag=True,
        default=None,
    ),
)

activation = choice(
    "--activation",
    "NAME",
    WITH_CALIBRATION,
    MODEL,
    "Activation function",
    more="By default sigmoid for multi-label rows, else softmax.",
    default_text="by the labels",
)

text_bytes = option(
    "--bytes", INPUT, "In sequences, column of the texts or of their sizes in bytes, for bits per byte.", type=COLUMN
)

kind = choice(
    "--input",
    "KIND",
    get_args(input_options.InputKind),
    MODEL,
    "Content of the logits column",
    more="Detected: by the metadata of scored files and by the name of the column, else logits.",
    default_text="detected",
)

temperature = option("--temperature", MODEL, "Divide the logits by X.", type=float, default_text="1")

beta = option("--beta", MODEL, "Multiply the logits by X, the inverse temperature.", type=float)

calibration = option("--calibration", MODEL, "Apply a calibration that batchmax calibrate wrote.", type=PATH)

scale = stack(temperature, beta, calibration, kind)

limit = option("--limit", ROWS, "Read only the first N rows.", type=int, default_text="all")


def out(help: str, more: str = "", *, required: bool = True) -> Callable[[F], F]:  # noqa: A002
    """Declare ``--out``."""
    return option("--out", FILES, help, aliases=("-o",), metavar="OUT", type=PATH, more=more, required=required)


def worst(help: str, default: int | None = None, group: str = RESULTS, more: str = "") -> Callable[[F], F]:  # noqa: A002
    """Declare ``--worst``."""
    return option("--worst", group, help, type=int, default=default, more=more)


def seed(help: str, group: str, default: int | None = 0) -> Callable[[F], F]:  # noqa: A002
    """Declare ``--seed``."""
    return option("--seed", group, help, type=int, default=default, default_text="0")


def copied(columns: str, exclude: str, more: str = "") -> Callable[[F], F]:
    """Declare ``--columns`` and ``--exclude`` with their help."""
    return stack(
        option("--columns", RESULTS, columns, type=COLUMNS, more=more, default_text="all but the logits"),
        option("--exclude", RESULTS, exclude, type=COLUMNS),
    )


carried = copied("Input columns to copy.", "Input columns not to copy.", "With '*', all are copied.")

by = option(
    "--by", RESULTS, "Columns to group by.", type=COLUMNS, default="", more="Metrics are also computed for each group."
)

bins = option("--bins", RESULTS, "Number of confidence bins for calibration errors.", type=int, default=15)
positive = option("--positive", INPUT, "Positive class of two.", metavar="NAME", default_text="the second")


def layout(text: str, **attributes: Any) -> Callable[[F], F]:
    """Declare ``--layout``."""
    more = "With fixed, lists have a fixed size; with wide, each class has a column."
    return choice("--layout", "LAYOUT", get_args(score_options.Layout), RESULTS, text, more=more, **attributes)


def _if_exists(actions: Sequence[str], more: str = "") -> Callable[[F], F]:
    return choice("--if-exists", "ACTION", actions, FILES, "If the output exists", more=more, default_text="error")


if_exists = _if_exists(get_args(score_options.IfExists), "With resume, an unfinished run continues.")

replace = _if_exists(("error", "overwrite"))

compression = choice(
    "--compression",
    "CODEC",
    get_args(score_options.Compression),
    FILES,
    "Compression codec",
    more="By default, copied columns keep their codecs.",
    default_text="as the logits",
)

durability = choice(
    "--durability",
    "LEVEL",
    get_args(score_options.Durability),
    FILES,
    "Whether the output is on the disk when the command ends",
    more="With none, the system writes it later, as with most other tools. That is faster if the disk is slow, but a "
    "power failure soon after may leave the output, or the file that it replaced, empty or truncated. A killed run is "
    "safe with both.",
    default_text="sync",
)

row_group_size = option(
    "--row-group-size",
    FILES,
    "Number of rows per row group.",
    type=int,
    more="By default, a row group also has at most 64 MiB of computed numbers.",
    default_text="as the input",
)


def _on_bad_row(more: str) -> Callable[[F], F]:
    policies = get_args(input_options.BadRowPolicy)
    return choice("--on-bad-row", "POLICY", policies, ROWS, "For bad rows", more=more, default_text="error")


on_bad_row = _on_bad_row("With error, the first stops the command; with null or drop, they are left out and counted.")

bad_rows = stack(
    _on_bad_row("With error, the first stops the job; with null, they have null values; with drop, they are left out."),
    option(
        "--rejects",
        ROWS,
        "Write the dropped rows to this file or folder, with the input file, row number and status of each.",
        type=PATH,
    ),
)


def fail_if(help: str, more: str = "") -> Callable[[F], F]:  # noqa: A002
    """Declare ``--fail-if``."""
    return option("--fail-if", RUNNING, help, metavar="CONDITION", more=more)


resources = stack(
    option("--threads", RUNNING, "Number of compute threads.", type=int, default_text="all usable cores"),
    option(
        "--memory-limit", RUNNING, "Memory limit of the process, such as 512MiB.", metavar="SIZE", default_text="1GiB"
    ),
)
