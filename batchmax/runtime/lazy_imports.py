"""What the command line keeps from being imported in vain, and how who needs it lets it in."""

from __future__ import annotations

import sys


def allow_imports() -> None:
    """Let everything be imported that the command line keeps out, because others import it in vain."""
    for finder in [finder for finder in sys.meta_path if getattr(finder, "keeps_out", False)]:
        sys.meta_path.remove(finder)
