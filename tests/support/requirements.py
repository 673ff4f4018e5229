"""Packages and programs that the tests need in addition to batchmax's own dependencies, and how to install them.

Tests import these packages with :func:`package` or :func:`optional`, so that every skip names the command that
installs what is missing.
"""

from __future__ import annotations

import functools
import importlib
import shutil
import sys
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NoReturn

import pytest
from packaging.version import Version

PACKAGES = {
    "PIL": "pillow",
    "boto3": "boto3",
    "datasets": "datasets",
    "duckdb": "duckdb",
    "fastparquet": "fastparquet",
    "fsspec": "fsspec",
    "matplotlib": "matplotlib",
    "moto": "moto[server,s3]",
    "mpmath": "mpmath",
    "pandas": "pandas",
    "polars": "polars",
    "pyspark": "pyspark",
    "ray": "ray[data]",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torch": "torch",
    "torchmetrics": "torchmetrics",
}
"""Modules that some tests import, and the requirements that install them."""

PROGRAMS = {
    "chromium": (("chromium", "chromium-browser", "google-chrome"), "chromium"),
    "java": (("java",), "default-jre-headless"),
    **({"strace": (("strace",), "strace")} if sys.platform == "linux" else {}),
}
"""Programs that some tests run: the possible names of the executable, and the Debian package."""


@functools.cache
def is_missing(name: str) -> bool:
    """Return whether a package or a program is not installed."""
    return find_spec(name) is None if name in PACKAGES else program(name) is None


def is_older(name: str, bound: str) -> bool:
    """Return whether a package is installed in a version below the bound."""
    return not is_missing(name) and Version(version(PACKAGES[name].partition("[")[0])) < Version(bound)


def program(name: str) -> str | None:
    """Return the path of a program, or None if it is not installed."""
    names, _ = PROGRAMS.get(name, ((name,), name))
    return next(filter(None, map(shutil.which, names)), None)


def install(*names: str) -> str:
    """Return the shell command that installs packages and programs."""
    packages = [f"'{PACKAGES[name]}'" for name in names if name in PACKAGES]
    programs = [PROGRAMS[name][1] for name in names if name in PROGRAMS]
    pip = [f"{sys.executable} -m pip install {' '.join(packages)}"] if packages else []
    apt = [f"apt-get install {' '.join(programs)}"] if programs else []
    return " && ".join(pip + apt)


def package(name: str) -> ModuleType:
    """Import a module; if its package isn't installed, skip the test or the test file that needs it."""
    if is_missing(name.partition(".")[0]):
        _skip(name)
    return importlib.import_module(name)


def optional(name: str) -> Any:
    """Import a module for a whole test file; if its package isn't installed, tests that use the module are skipped."""
    return _Missing(name) if is_missing(name.partition(".")[0]) else package(name)


class _Missing:
    """A placeholder for a module that isn't installed. Access to any attribute skips the test."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest looks for its own attributes
            raise AttributeError(attribute)
        return _skip(self._name)


def _skip(name: str) -> NoReturn:
    pytest.skip(f"{name} is not installed: {install(name.partition('.')[0])}", allow_module_level=True)
