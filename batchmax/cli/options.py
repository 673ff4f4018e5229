"""Declaration of commands: options grouped under headings, and help that ends with an example.

Options shared by several commands are decorators in this module, so that they have the same meaning and help
everywhere. Defaults are in :mod:`batchmax.options.score_options`; an option that isn't given is passed as None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click
from click.core import ParameterSource

from batchmax.options import score_options as domain

READ = "What to read"
COMPUTE = "What to compute"
WRITE = "What to write"
BAD_ROWS = "When rows are bad"
RUNNING = "Running"
HEADINGS = (READ, COMPUTE, WRITE, BAD_ROWS, RUNNING)

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

READING = "batchmax.cli.reading"
"""Key of the inputs in Click's ``meta``, which remains available after a command has failed."""

F = TypeVar("F", bound=Callable[..., Any])


class Option(click.Option):
    """An option with the heading that it is listed under."""

    def __init__(self, *args: Any, group: str = RUNNING, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class Command(click.Command):
    """A command whose help groups options under headings and ends with an example and the topic of its guide."""

    def __init__(self, *args: Any, example: str = "", topic: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings = {**CONTEXT, **self.context_settings}
        self.example = example
        self.topic = topic

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings, with columns aligned across headings."""
        records: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and not isinstance(param, click.Argument):
                records[getattr(param, "group", RUNNING)].append(record)
        width = max(len(term) for terms in records.values() for term, _ in terms)
        for heading, terms in records.items():
            if terms:
                with formatter.section(heading):
                    formatter.write_dl([(f"{term:<{width}}", meaning) for term, meaning in terms])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  Click's
        """Write the example without wrapping, so that it can be copied, and the page of the guide."""
        with formatter.section("Example"):
            for line in self.example.splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
        if self.topic:
            formatter.write(f"\nGuide: batchmax guide {self.topic}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and store its inputs for error messages that name no file.

        Of mutually exclusive options, those on the command line take precedence over those in the environment.
        """
        scales = [name for name in ("temperature", "beta", "calibration") if ctx.params.get(name) is not None]
        if any(ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in scales):
            for name in scales:
                if ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
                    ctx.params[name] = None
        ctx.meta[READING] = ", ".join(map(str, ctx.params.get("inputs") or ()))
        return super().invoke(ctx)


def command(example: str, topic: str = "") -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command with this example; ``topic`` is the page of the guide about it."""
    return click.command(cls=Command, example=example, topic=topic)


def option(*names: str, group: str, help: str, **attributes: Any) -> Callable[[F], F]:  # noqa: A002  Click's name
    """Declare an option under a heading."""
    return click.option(*names, cls=Option, group=group, help=help, **attributes)


def stack(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Combine decorators into one; help lists the options in this order."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def meta_key(name: str) -> str:
    """Return the key in Click's ``meta`` for ``json``, ``debug``, ``quiet`` or ``signals``."""
    return f"batchmax.cli.{name}"


def _remember(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    ctx.meta[meta_key(str(param.name))] = value
    return value


def is_typed(name: str) -> bool:
    """Return whether an option was given on the command line, rather than in the environment."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def is_quiet() -> bool:
    """Return whether the running command was given ``--quiet``."""
    return bool(click.get_current_context().meta.get(meta_key("quiet")))


inputs = click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)

find_logits = stack(
    option(
        "--logits",
        metavar="NAME",
        group=READ,
        help="Column of logits (nested: outputs.logits), or one per class: a pattern, 'logit_*', or names, A,B,C."
        "  [default: logits, else logit_*, else the only list of floats]",
    ),
    option(
        "--n-classes",
        metavar="K",
        type=int,
        group=READ,
        help="Length every row must have.  [default: the fixed width, else the first row's length]",
    ),
    option(
        "--logits-dtype",
        metavar="TYPE",
        type=click.Choice(get_args(domain.BinaryName)),
        group=READ,
        help="What binary rows or uint16 lists hold: float32, float16 or bfloat16.",
    ),
)

storage = option(
    "--storage-option",
    "storage_options",
    metavar="K=V",
    multiple=True,
    group=READ,
    help="For the file system of URIs, such as region=eu-west-1; several times for several. Never printed.",
)

find_labels = stack(
    option(
        "--label",
        metavar="NAME",
        group=READ,
        help="Column of class indices, names or distributions; none for no label."
        "  [default: label, labels, target, else none]",
    ),
    option(
        "--classes",
        metavar="NAMES|FILE",
        group=READ,
        help="Class names: a,b,c, a file with one a line, or a Hugging Face config.json."
        "  [default: the names in the file's metadata]",
    ),
    option(
        "--ignore-index",
        metavar="I",
        type=int,
        group=READ,
        help="Label of rows to leave out of the loss.  [default: -100]",
    ),
    option(
        "--shift",
        is_flag=True,
        default=None,
        group=READ,
        help="In sequences, hold each token against the next one's label, as for the token ids themselves.",
    ),
)

text_bytes = option(
    "--bytes",
    metavar="NAME",
    group=READ,
    help="In sequences, column with each row's text, or its number of bytes, for bits per byte.",
)

kind = option(
    "--input",
    metavar="KIND",
    type=click.Choice(get_args(domain.InputKind)),
    group=READ,
    help="What the column holds: logits, log_probs or probs.  [default: logits]",
)

scale = stack(
    option(
        "--temperature",
        metavar="T",
        type=float,
        group=COMPUTE,
        help="Divide the logits by T.  [default: 1]",
    ),
    kind,
)

calibration = option(
    "--calibration",
    metavar="FILE",
    group=COMPUTE,
    help="What batchmax calibrate wrote: a temperature, or a scale and a bias a class.",
)

beta = option("--beta", metavar="B", type=float, group=COMPUTE, help="Multiply the logits by B = 1/T.")

limit = option("--limit", metavar="N", type=int, group=READ, help="Read only the first N rows.")


def out(meaning: str = "A file (.parquet, .pq, .parq) or a folder.") -> Callable[[F], F]:
    """Declare ``--out``."""
    return option("-o", "--out", metavar="OUT", required=True, group=WRITE, help=meaning)


carried = stack(
    option(
        "--columns",
        metavar="A,B",
        group=WRITE,
        help="Input columns to carry through; '*' is all, the logits too.  [default: all but the logits]",
    ),
    option("--exclude", metavar="A,B", group=WRITE, help="Input columns to leave out."),
)

if_exists = option(
    "--if-exists",
    metavar="ACTION",
    type=click.Choice(get_args(domain.IfExists)),
    group=WRITE,
    help="What to do if OUT, or an unfinished run of it, is there: error, overwrite, or resume.  [default: error]",
)

replace = option(
    "--if-exists",
    metavar="ACTION",
    type=click.Choice(["error", "overwrite"]),
    group=WRITE,
    help="What to do if OUT is there: error, or overwrite.  [default: error]",
)

compression = option(
    "--compression",
    metavar="CODEC",
    type=click.Choice(get_args(domain.Compression)),
    group=WRITE,
    help=f"Of computed columns; given, of carried ones too: {', '.join(get_args(domain.Compression))}."
    "  [default: as the input's logits]",
)

row_group_size = option(
    "--row-group-size",
    metavar="ROWS",
    type=int,
    group=WRITE,
    help="Rows a row group.  [default: as the input, at most 64 MiB of computed numbers]",
)

on_bad_row = option(
    "--on-bad-row",
    metavar="POLICY",
    type=click.Choice(get_args(domain.BadRowPolicy)),
    group=BAD_ROWS,
    help="error: stop at the first; null or drop: leave it out, and count.  [default: error]",
)

bad_rows = stack(
    option(
        "--on-bad-row",
        metavar="POLICY",
        type=click.Choice(get_args(domain.BadRowPolicy)),
        group=BAD_ROWS,
        help="error: stop at the first; null: write null, and count; drop: leave the row out.  [default: error]",
    ),
    option("--rejects", metavar="PATH", group=BAD_ROWS, help="Keep dropped rows here: file, row, status."),
)

resources = stack(
    option(
        "--threads",
        metavar="N",
        type=int,
        group=RUNNING,
        help="Threads to compute with.  [default: all allowed]",
    ),
    option(
        "--memory-limit",
        metavar="SIZE",
        group=RUNNING,
        help="Memory of the whole process, such as 512MiB.  [default: 1GiB]",
    ),
)

loudness = stack(
    option(
        "-q",
        "--quiet",
        is_flag=True,
        is_eager=True,
        callback=_remember,
        group=RUNNING,
        help="Hide progress and the summary; warnings and errors are shown.",
    ),
    option("-v", "--verbose", is_flag=True, group=RUNNING, help="Explain what is done, and why."),
)

quiet = option(
    "-q",
    "--quiet",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember,
    group=RUNNING,
    help="Hide progress and notes; the result, warnings and errors are shown.",
)

reporting = stack(
    option(
        "--json",
        is_flag=True,
        is_eager=True,
        callback=_remember,
        group=RUNNING,
        help="Print one line of JSON on stdout, also when failing.",
    ),
    option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_remember,
        group=RUNNING,
        help="Show the traceback of a failure.",
    ),
)
