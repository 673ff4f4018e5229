"""``batchmax guide``: list the topics of the user guide, or print a page."""

from __future__ import annotations

import re
import sys

import click
from click.shell_completion import CompletionItem

from batchmax import guide
from batchmax.cli.command import make_command
from batchmax.errors import UsageError

EXAMPLE = """\
batchmax guide
batchmax guide formats
batchmax guide formats | less
"""

MOST_COLUMNS = 100
"""Lines longer than this are hard to read, however wide the terminal is."""


def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001  Click's
    """Return the topics that start with what was typed, with their summaries."""
    names = [name for name in guide.topics() if name.startswith(incomplete)]
    return [CompletionItem(name, help=guide.summary(name)) for name in names]


@make_command(example=EXAMPLE)
@click.argument("topic", required=False, shell_complete=complete)
def command(topic: str | None) -> None:
    """Show the user guide: one page for each topic.

    Without TOPIC, lists the topics. Pages are formatted in a terminal, and printed as Markdown elsewhere.
    """
    names = guide.topics()
    if topic is None:
        width = max(map(len, names))
        for name in names:
            click.echo(f"{name:<{width}}  {guide.summary(name)}")
    elif topic not in names:
        nearest = ", ".join(map(repr, guide.similar_topics(topic)))
        hint = f"; did you mean {nearest}?" if nearest else ""
        raise UsageError(f"the guide has no page {topic!r}{hint}", remedy="list the topics: batchmax guide")
    elif sys.stdout.isatty():
        _show(guide.page(topic))
    else:
        click.echo(guide.page(topic), nl=False)


def _show(text: str) -> None:
    """Print a page, formatted for the terminal."""
    from rich.console import Console
    from rich.markdown import Markdown

    text = re.sub(r"<!--.*?-->\n?", "", text)
    text = re.sub(r"!\[", "[", text)  # an image becomes its address
    # A link to another page becomes the command that shows it.
    text = re.sub(r"\[([^]]+)\]\(([\w-]+)\.md(?:#[\w-]*)?\)", r"\1 (`batchmax guide \2`)", text)
    # A link to a heading of the same page leads nowhere in a terminal.
    text = re.sub(r"\[([^]]+)\]\(#[\w-]+\)", r"\1", text)
    console = Console()
    console.print(Markdown(text, hyperlinks=False), width=min(console.width, MOST_COLUMNS))
