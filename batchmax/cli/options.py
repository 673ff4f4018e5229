"""Declaration of commands: options grouped under headings, a short and a full help, and examples.

Options shared by several commands are decorators in this module, so that they have the same meaning and help
everywhere. Defaults are in :mod:`batchmax.options`; an option that isn't given is passed as None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args

import click
from click.core import ParameterSource

from batchmax.cli import completion
from batchmax.options import input_options, score_options

INPUT = "Input"
MODEL = "Model output"
RESULTS = "Results"
ROWS = "Rows"
FILES = "Files"
RUNNING = "Running"
HEADINGS = (INPUT, MODEL, RESULTS, ROWS, FILES, RUNNING)

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

ALWAYS_COMMON = ("--quiet", "--json", "--help", "--help-all")

READING = "batchmax.cli.reading"
"""Key of the inputs in Click's ``meta``, which remains available after a command has failed."""

F = TypeVar("F", bound=Callable[..., Any])


class Option(click.Option):
    """An option with the heading that it's listed under.

    Parameters
    ----------
    group
        The heading.
    more
        Sentences about details, which only ``--help-all`` shows.
    default_text
        The default, as it's shown in the help. None: no default is shown.
    """

    def __init__(
        self,
        *args: Any,
        group: str = RUNNING,
        more: str = "",
        default_text: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.group = group
        self.more = more
        self.default_text = default_text

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the option's names and its help text, with details if ``--help-all`` was given."""
        record = super().get_help_record(ctx)
        if record is None:
            return None
        names, text = record
        if self.more and _shows_all(ctx):
            text = f"{self.help} {self.more}{text.removeprefix(self.help or '')}"
        return names, text if self.default_text is None else f"{text}  [default: {self.default_text}]"


class Command(click.Command):
    """A command whose help groups options under headings and ends with examples and a page of the guide.

    Parameters
    ----------
    example
        The examples, one per line.
    topic
        The topic of the page in the guide.
    common
        The options that ``-h`` lists, in this order, so that it fits on a screen; ``--help-all`` lists all, these
        first. Empty: both list all.
    """

    def __init__(
        self, *args: Any, example: str = "", topic: str = "", common: Sequence[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings = {**CONTEXT, **self.context_settings}
        self.example = example
        self.topic = topic
        self.common = (*common, *ALWAYS_COMMON) if common else ()

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return ``-h`` with its text."""
        return with_short_help(super().get_help_option(ctx))

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters, with ``--help-all`` at the end."""
        return [*super().get_params(ctx), _HELP_ALL]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings, the common ones first, with columns aligned across headings."""
        options = {max(one.opts, key=len): one for one in self.get_params(ctx) if isinstance(one, click.Option)}
        listed = list(self.common)
        if not self.common or _shows_all(ctx):
            listed += [name for name in options if name not in self.common]
        if not self.common:
            listed.remove("--help-all")  # it lists the same
        records: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for name in sorted(listed, key=lambda name: name.startswith("--help")):
            record = options[name].get_help_record(ctx)
            if record is not None:
                records[getattr(options[name], "group", RUNNING)].append(record)
        width = max(len(term) for terms in records.values() for term, _ in terms)
        for heading, terms in records.items():
            if terms:
                with formatter.section(heading):
                    formatter.write_dl([(f"{term:<{width}}", meaning) for term, meaning in terms])
        if _shows_all(ctx) and "--json" in options:
            with formatter.section("Environment"):
                variable = f"{ctx.auto_envvar_prefix}_JSON"
                formatter.write_text(f"Each option is also read from a variable: --json from {variable}.")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  Click's
        """Write the examples without wrapping, so that they can be copied, and the page of the guide."""
        with formatter.section("Examples"):
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


def command(example: str, topic: str = "", common: Sequence[str] = ()) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command with these examples, page of the guide and common options; see :class:`Command`."""
    return click.command(cls=Command, example=example, topic=topic, common=common)


def option(*names: str, group: str, help: str, **attributes: Any) -> Callable[[F], F]:  # noqa: A002  Click's name
    """Declare an option under a heading; see :class:`Option`."""
    return click.option(*names, cls=Option, group=group, help=help, **attributes)


def choice(*names: str, choices: Sequence[str], help: str, **attributes: Any) -> Callable[[F], F]:  # noqa: A002
    """Declare an option that takes one of several values, which are listed at the end of its help."""
    return option(*names, type=click.Choice(choices), help=f"{help}: {', '.join(choices)}.", **attributes)


def stack(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Combine decorators into one; help lists the options in this order."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def meta_key(name: str) -> str:
    """Return the key in Click's ``meta`` for ``json``, ``debug``, ``quiet``, ``verbose``, ``help_all``, ``signals``."""
    return f"batchmax.cli.{name}"


def is_set(flag: str) -> bool:
    """Return whether the running command was given a flag: ``quiet``, ``verbose``, ``json`` or ``debug``."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(meta_key(flag)))


def is_typed(name: str) -> bool:
    """Return whether an option was given on the command line, rather than in the environment."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def with_short_help(option: click.Option | None) -> click.Option | None:
    """Return Click's ``-h`` with the text that it has everywhere."""
    if option is not None:
        option.help = "Show this help."
    return option


def _remember(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[meta_key(str(param.name))] = value


def _shows_all(ctx: click.Context) -> bool:
    return bool(ctx.meta.get(meta_key("help_all")))


def _show_all(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        _remember(ctx, param, value)
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


_HELP_ALL = Option(
    ["--help-all"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    allow_from_autoenv=False,
    callback=_show_all,
    help="Show all options.",
)


def _flag(*names: str, help: str) -> Callable[[F], F]:  # noqa: A002
    """Declare a flag of every command, for :func:`is_set`; eager, so that errors in other options obey it."""
    return option(
        *names,
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_remember,
        group=RUNNING,
        help=help,
    )


reporting = stack(
    _flag("-q", "--quiet", help="Hide the result and progress; show warnings and errors."),
    _flag("-v", "--verbose", help="Show details of the run and the reasons for choices."),
    _flag("--json", help="Print the result, or the error, as one line of JSON on stdout."),
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
        help="Column of logits, or columns: 'logit_*' or A,B,C.",
        more="Several columns have one class each. The field of a struct is outputs.logits. "
        "Detected: logits, else logit_*, else the only list of floats.",
        default_text="detected",
    ),
    option(
        "--n-classes",
        metavar="N",
        type=int,
        group=INPUT,
        help="Number of classes; rows of another length are bad.",
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
        help="Column of labels; none for no labels.",
        more="Labels are class indices, class names or distributions. Detected: label, labels, target.",
        default_text="detected",
    ),
    option(
        "--classes",
        metavar="NAMES|PATH",
        group=INPUT,
        shell_complete=completion.paths,
        help="Class names: A,B,C or a file.",
        more="A file has one name per line, or is a Hugging Face config.json.",
        default_text="from the metadata",
    ),
    option(
        "--ignore-index",
        metavar="N",
        type=int,
        group=INPUT,
        help="Label of rows without a loss.",
        default_text="-100",
    ),
    option(
        "--shift",
        is_flag=True,
        default=None,
        group=INPUT,
        help="In sequences, compare each token with the next label; for labels that are token IDs.",
    ),
)

text_bytes = option(
    "--bytes",
    metavar="NAME",
    group=INPUT,
    shell_complete=completion.columns(),
    help="In sequences, column of texts or of their sizes in bytes, for bits per byte.",
)

kind = choice(
    "--input",
    metavar="KIND",
    choices=get_args(input_options.InputKind),
    group=MODEL,
    help="Content of the logits column",
    more="Detected by the metadata of scored files and the name of the column; else logits.",
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
        metavar="PATH",
        required=required,
        group=FILES,
        shell_complete=completion.paths,
        help=help,
        more=more,
    )


def worst(help: str, default: int | None = None, group: str = RESULTS) -> Callable[[F], F]:  # noqa: A002
    """Declare ``--worst``."""
    shown = None if default is None else str(default)
    return option("--worst", metavar="N", type=int, default=default, group=group, help=help, default_text=shown)


carried = stack(
    option(
        "--columns",
        metavar="NAMES",
        group=RESULTS,
        shell_complete=completion.columns(several=True),
        help="Input columns to copy; '*' for all.",
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
    help="Columns to group by; metrics are computed for each group.",
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
    help="Codec for computed columns and, if set, for copied ones",
    default_text="as the logits",
)

row_group_size = option(
    "--row-group-size",
    metavar="N",
    type=int,
    group=FILES,
    help="Number of rows per row group.",
    more="The default is limited to 64 MiB of computed numbers.",
    default_text="as the input",
)


def _on_bad_row(more: str) -> Callable[[F], F]:
    return choice(
        "--on-bad-row",
        metavar="POLICY",
        choices=get_args(input_options.BadRowPolicy),
        group=ROWS,
        help="How bad rows are handled",
        more=more,
        default_text="error",
    )


on_bad_row = _on_bad_row("With null and drop, they are left out and counted.")

bad_rows = stack(
    _on_bad_row("With null, their results are null; with drop, they are left out."),
    option(
        "--rejects",
        metavar="PATH",
        group=ROWS,
        shell_complete=completion.paths,
        help="Write the dropped rows here, with their file, row number and status.",
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
