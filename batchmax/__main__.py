"""Runs the command line: ``python -m batchmax`` is the same as ``batchmax``."""

from __future__ import annotations

import sys

from batchmax.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
