"""Errors for packages of an extra that are not installed, and the command that installs the extra.

Knows where batchmax itself is installed; does not import or inspect any other package.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from batchmax.errors import UsageError

_PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
"""Next to the package in a clone, an editable installation and an unpacked sdist; not in site-packages."""


def missing_package(name: str, extra: str, *, where: str = "") -> UsageError:
    """Return the error for a package that is not installed, with the command that installs its extra."""
    return UsageError(f"{name} is not installed", where=where, remedy=install_command(extra))


def install_command(extra: str) -> str:
    """Return the pip command that installs an extra of batchmax.

    Code that runs from a clone gets the command for the clone: the package index may have another version, or none.
    """
    return f"pip install '{'.' if _is_clone() else 'batchmax'}[{extra}]'"


def _is_clone() -> bool:
    try:
        with _PYPROJECT.open("rb") as file:
            project = tomllib.load(file).get("project", {})
    except (OSError, ValueError):
        return False
    # A package may install its pyproject.toml into site-packages by mistake, so the name counts.
    return bool(project.get("name") == "batchmax")
