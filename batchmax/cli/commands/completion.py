"""``batchmax completion``: print the script that adds completion to a shell."""

from __future__ import annotations

import click

from batchmax.cli import completion
from batchmax.cli.command import make_command

EXAMPLE = """\
eval "$(batchmax completion bash)"                                      # in ~/.bashrc
eval "$(batchmax completion zsh)"                                       # in ~/.zshrc
batchmax completion fish >~/.config/fish/completions/batchmax.fish
"""


@make_command(example=EXAMPLE, topic="completion")
@click.argument("shell", metavar="SHELL", type=click.Choice(list(completion.SHELLS)))
def command(shell: str) -> None:
    """Print a script for shell completion.

    SHELL is bash, zsh or fish. The script completes commands, options and their values, and paths;
    names of columns are those of the first input on the line, if that is a local Parquet file.
    """
    click.echo(completion.script(shell))
