#!/usr/bin/env python3
"""Lists the packages of an extra of pyproject.toml: as requirements for pip and uv, or with their installed versions.

It needs nothing but Python, because it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import platform
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Print requirements or versions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["requirements", "versions"])
    parser.add_argument("extra")
    parser.add_argument("--without", default="", metavar="PACKAGE,…", help="packages to leave out")
    arguments = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    left_out = {normalized(name) for name in arguments.without.split(",")}
    found = requirements(project, arguments.extra)
    if arguments.action == "requirements":
        print(*(line for line in found if normalized(line) not in left_out), sep="\n")
    else:
        print(*versions([*project["dependencies"], *found]), sep=", ")


def requirements(project: dict[str, Any], extra: str) -> list[str]:
    """Return the requirements of an extra, with the names of other extras replaced by their requirements."""
    found = []
    for line in project["optional-dependencies"][extra]:
        name, _, marker = line.partition(";")
        included = re.fullmatch(rf"{project['name']}\[(.+)\]", name.strip())
        if included is None:
            found.append(line)
        else:
            end = f";{marker}" if marker else ""
            found += [inner + end for other in included[1].split(",") for inner in requirements(project, other)]
    return found


def normalized(requirement: str) -> str:
    """Return the package name at the start of a requirement, normalized for comparison."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]).lower()


def versions(lines: list[str]) -> list[str]:
    """Return the interpreter and each package with its installed version."""
    free_threaded = "t" if "free-threading" in sys.version else ""
    found = [f"Python {platform.python_version()}{free_threaded}"]
    for name in dict.fromkeys(map(normalized, lines)):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return found


if __name__ == "__main__":
    main()
