"""Prints the result of a command as ``--json``, ``--quiet`` and ``--verbose`` say, with one meaning in all commands.

Imports nothing that is slow to import, so that commands can import it at the top.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from batchmax.cli.command import is_set

if TYPE_CHECKING:
    from batchmax.cli.progress import TerminalProgress


def show_progress() -> TerminalProgress:
    """Return a context manager that prints the progress, notes and warnings of a job."""
    from batchmax.cli.progress import TerminalProgress

    return TerminalProgress(quiet=is_set("quiet"), verbose=is_set("verbose"))


def show_result(result: Any, as_text: Callable[[], None]) -> None:
    """Print a result: as one line of JSON, or as text for people, or with ``--quiet`` not at all.

    Parameters
    ----------
    result
        An object with a method ``to_json``, or a value for JSON.
    as_text
        Prints the text.
    """
    if is_set("json"):
        # Numbers that aren't finite become null.
        click.echo(result.to_json() if hasattr(result, "to_json") else json.dumps(_finite(result), allow_nan=False))
    elif not is_set("quiet"):
        as_text()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
