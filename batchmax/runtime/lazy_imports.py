"""Delays or blocks imports of packages that are slow to import.

``pyarrow.compute`` is imported when it is used, because it creates a Python function for each of Arrow's functions.
Imports that dependencies make of packages which the command line doesn't use are blocked.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any


class ImportedWhenUsed:
    """A module that is imported when its first attribute is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        """Import the module, and return its attribute."""
        return getattr(import_module(self._name), attribute)


def allow_imports() -> None:
    """Allow the imports again, for code that needs these packages."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, UnusedPackages)]


NUMBA_SETTINGS = ".numba_config.yaml"
"""The settings file that Numba looks for in the current directory."""


class UnusedPackages:
    """An import hook that makes unused packages appear not to be installed.

    Numba imports SciPy for matrix products, CFFI for C functions, and PyYAML to read a settings file. pyarrow imports
    pandas to check whether an object is one of its types. Importing SciPy and pandas takes a sixth of a second.
    """

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:  # noqa: ARG002  the protocol
        """Raise for an unused package; leave all others to the next hook."""
        if fullname in {"cffi", "pandas", "scipy"} or (fullname == "yaml" and not os.access(NUMBA_SETTINGS, os.F_OK)):
            raise ModuleNotFoundError(f"{fullname} is not used", name=fullname)
