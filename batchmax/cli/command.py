"""Commands and options of Click with headings, a short and a full help, examples, and flags that every command has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

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

METAVARS: dict[Any, str] = {int: "N", float: "X"}
"""What stands for a value in the help, by the type of the option."""

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
        The default, as it's shown in the help. None: the option's default, if it has one.
    """

    def __init__(
        self,
        *args: Any,
        group: str = RUNNING,
        more: str = "",
        default_text: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **{"metavar": METAVARS.get(kwargs.get("type")), **kwargs})
        self.group = group
        self.more = more
        if default_text is None and kwargs.get("default") not in {None, ""}:
            default_text = str(kwargs["default"])
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


class ShortHelp(click.Command):
    """A command with another text for ``-h`` than Click's."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return ``-h`` with its text."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.help = "Show this help."
        return option


class Command(ShortHelp):
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
                formatter.write_text(f"Each option can also be set by a variable: --json by {variable}.")

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


def make_command(example: str, topic: str = "", common: Sequence[str] = ()) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command with these examples, page of the guide and common options; see :class:`Command`."""
    return click.command(cls=Command, example=example, topic=topic, common=common)


def option(name: str, group: str, help: str, *, aliases: Sequence[str] = (), **attributes: Any) -> Callable[[F], F]:  # noqa: A002
    """Declare an option under a heading; see :class:`Option`. ``aliases`` has its short name, or its parameter."""
    return click.option(name, *aliases, cls=Option, group=group, help=help, **attributes)


def choice(
    name: str, metavar: str, choices: Sequence[str], group: str, text: str, **attributes: Any
) -> Callable[[F], F]:
    """Declare an option that takes one of several values, which are listed at the end of its help."""
    text = f"{text}: {', '.join(choices)}."
    return option(name, group, text, metavar=metavar, type=click.Choice(choices), **attributes)


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


def remember_flag(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Store the value of a flag for :func:`is_set`."""
    ctx.meta[meta_key(str(param.name))] = value


def _shows_all(ctx: click.Context) -> bool:
    return bool(ctx.meta.get(meta_key("help_all")))


def _show_all(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        remember_flag(ctx, param, value)
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
