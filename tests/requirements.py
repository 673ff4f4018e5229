"""What the tests need besides what batchmax itself needs, and how to install it."""

from __future__ import annotations

import functools
import shutil
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest

PACKAGES = {
    "PIL": "pillow",
    "boto3": "boto3",
    "datasets": "datasets",
    "duckdb": "duckdb",
    "fastparquet": "fastparquet",
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
"""Modules that some tests import, and the names under which they are installed."""

PROGRAMS = {
    "chromium": (("chromium", "chromium-browser", "google-chrome"), "chromium"),
    "java": (("java",), "default-jre-headless"),
    **({"strace": (("strace",), "strace")} if sys.platform == "linux" else {}),
}
"""Programs that some tests run: the names that they may have, and Debian's package."""


@functools.cache
def is_missing(name: str) -> bool:
    """Return whether a package or a program is not installed."""
    return find_spec(name) is None if name in PACKAGES else program(name) is None


def program(name: str) -> str | None:
    """Return the path of a program, or None if it is not installed."""
    names, _ = PROGRAMS.get(name, ((name,), name))
    return next(filter(None, map(shutil.which, names)), None)


def install(*names: str) -> str:
    """Return the commands that install packages and programs."""
    packages = [f"'{PACKAGES[name]}'" for name in names if name in PACKAGES]
    programs = [PROGRAMS[name][1] for name in names if name in PROGRAMS]
    pip = [f"{sys.executable} -m pip install {' '.join(packages)}"] if packages else []
    apt = [f"apt-get install {' '.join(programs)}"] if programs else []
    return " && ".join(pip + apt)


def package(name: str) -> ModuleType:
    """Import a module, or skip the test (or the test file) that needs it where its package is not installed."""
    if is_missing(name.partition(".")[0]):
        pytest.skip(f"{name} is not installed: {install(name.partition('.')[0])}", allow_module_level=True)
    return __import__(name, fromlist=["_"])
