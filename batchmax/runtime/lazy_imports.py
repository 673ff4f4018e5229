"""Packages that the command line keeps other packages from importing, because they are unused and slow to import."""

from __future__ import annotations

import os
import sys


def allow_imports() -> None:
    """Allow the imports again, for code that needs these packages."""
    for finder in [finder for finder in sys.meta_path if getattr(finder, "keeps_out", False)]:
        sys.meta_path.remove(finder)


NUMBA_SETTINGS = ".numba_config.yaml"
"""A file that Numba looks for in the current directory."""


class UnusedPackages:
    """An import hook for which the unused packages are not installed.

    Numba imports SciPy for products of matrices, CFFI for functions in C, and PyYAML to read a file of settings;
    pyarrow imports pandas to ask whether something is one of its objects. SciPy and pandas take a sixth of a second.
    """

    keeps_out = True

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:  # noqa: ARG002  the protocol
        """Raise for an unused package; leave all others to the next hook."""
        if fullname in {"cffi", "pandas", "scipy"} or (fullname == "yaml" and not os.access(NUMBA_SETTINGS, os.F_OK)):
            raise ModuleNotFoundError(f"{fullname} is not used", name=fullname)
