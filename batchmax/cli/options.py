"""Options that several commands share, so that they have the same meaning and help everywhere.

Each is a decorator. An option that isn't given is None; :mod:`batchmax.options` has the defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import click

from batchmax.cli.command import FILES, INPUT, MODEL, RESULTS, ROWS, RUNNING, F, choice, option, remember_flag, stack
from batchmax.cli.completion import COLUMN, COLUMNS, PATH
from batchmax.options import input_options, score_options


def _flag(name: str, help: str, *aliases: str) -> Callable[[F], F]:  # noqa: A002
    """Declare a flag of every command, for :func:`is_set`; eager, so that errors in other options obey it."""
    eager = {"is_flag": True, "is_eager": True, "expose_value": False, "callback": remember_flag}
    return option(name, RUNNING, help, aliases=aliases, **eager)


reporting = stack(
    _flag("--quiet", "Hide the result and progress; show warnings and errors.", "-q"),
    _flag("--verbose", "Show details of the run and the reasons for choices.", "-v"),
    _flag("--json", "Print the result, or the error, as one line of JSON on stdout."),
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
        "Column of logits, or columns: 'logit_*' or A,B,C.",
        metavar="NAME",
        type=COLUMNS,
        more="Several columns have one class each. The field of a struct is outputs.logits. "
        "Detected: logits, else logit_*, else the only list of floats.",
        default_text="detected",
    ),
    option(
        "--n-classes",
        INPUT,
        "Number of classes; rows of another length are bad.",
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
        "Column of labels; none for no labels.",
        type=COLUMN,
        more="Labels are class indices, class names or distributions. Detected: label, labels, target.",
        default_text="detected",
    ),
    option(
        "--classes",
        INPUT,
        "Class names: A,B,C or a file.",
        metavar="NAMES|PATH",
        type=PATH,
        more="A file has one name per line, or is a Hugging Face config.json.",
        default_text="from the metadata",
    ),
    option("--ignore-index", INPUT, "Label of rows without a loss.", type=int, default_text="-100"),
    option(
        "--shift",
        INPUT,
        "In sequences, compare each token with the next label; for labels that are token IDs.",
        is_flag=True,
        default=None,
    ),
)

text_bytes = option(
    "--bytes", INPUT, "In sequences, column of texts or of their sizes in bytes, for bits per byte.", type=COLUMN
)

kind = choice(
    "--input",
    "KIND",
    get_args(input_options.InputKind),
    MODEL,
    "Content of the logits column",
    more="Detected by the metadata of scored files and the name of the column; else logits.",
    default_text="detected",
)

temperature = option("--temperature", MODEL, "Divide the logits by X.", type=float, default_text="1")

beta = option("--beta", MODEL, "Multiply the logits by X, the inverse temperature.", type=float)

calibration = option("--calibration", MODEL, "Apply a calibration that batchmax calibrate wrote.", type=PATH)

scale = stack(temperature, kind, beta, calibration)

limit = option("--limit", ROWS, "Read only the first N rows.", type=int, default_text="all")


def out(help: str, more: str = "", *, required: bool = True) -> Callable[[F], F]:  # noqa: A002
    """Declare ``--out``."""
    return option("--out", FILES, help, aliases=("-o",), type=PATH, more=more, required=required)


def worst(help: str, default: int | None = None, group: str = RESULTS) -> Callable[[F], F]:  # noqa: A002
    """Declare ``--worst``."""
    return option("--worst", group, help, type=int, default=default)


def seed(help: str, group: str, default: int | None = 0) -> Callable[[F], F]:  # noqa: A002
    """Declare ``--seed``."""
    return option("--seed", group, help, type=int, default=default, default_text="0")


def copied(columns: str, exclude: str) -> Callable[[F], F]:
    """Declare ``--columns`` and ``--exclude`` with their help."""
    return stack(
        option("--columns", RESULTS, columns, type=COLUMNS, default_text="all but the logits"),
        option("--exclude", RESULTS, exclude, type=COLUMNS),
    )


carried = copied("Input columns to copy; '*' for all.", "Input columns not to copy.")

by = option("--by", RESULTS, "Columns to group by; metrics are computed for each group.", type=COLUMNS, default="")

bins = option("--bins", RESULTS, "Number of confidence bins for calibration errors.", type=int, default=15)


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
    "Codec for computed columns and, if set, for copied ones",
    default_text="as the logits",
)

row_group_size = option(
    "--row-group-size",
    FILES,
    "Number of rows per row group.",
    type=int,
    more="The default is limited to 64 MiB of computed numbers.",
    default_text="as the input",
)


def _on_bad_row(more: str) -> Callable[[F], F]:
    policies = get_args(input_options.BadRowPolicy)
    return choice("--on-bad-row", "POLICY", policies, ROWS, "How bad rows are handled", more=more, default_text="error")


on_bad_row = _on_bad_row("With null and drop, they are left out and counted.")

bad_rows = stack(
    _on_bad_row("With null, their results are null; with drop, they are left out."),
    option("--rejects", ROWS, "Write the dropped rows here, with their file, row number and status.", type=PATH),
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
