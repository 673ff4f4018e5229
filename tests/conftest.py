"""Which tests run: all of them with ``--all``, otherwise those that do not belong to a group that is left to it.

Tests of a group have the group's name as their marker. Of a grid, the default run may keep some cases:
``@pytest.mark.sweep(keep=lambda codec: codec == "zstd")``; ``keep`` takes parameters of the test by their names. A test
that loops over many cases asks the fixture ``everything`` whether to run all of them; the default run keeps it by
``keep=lambda: True``.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from dataclasses import dataclass

# Threads of OpenMP that wait for work spin by default and take the cores from the other processes of the test run.
# libgomp reads this once, so it is set before anything imports Numba or PyTorch. Child processes inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from hypothesis import HealthCheck, settings

from tests.requirements import PACKAGES, PROGRAMS, install, is_missing

# Neither a first call, which compiles, nor a busy machine is a failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default run", PATIENT, max_examples=60)
settings.register_profile("thorough", PATIENT, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default run"))


@dataclass(frozen=True)
class Group:
    """Tests that the default run leaves out, how long they take on two cores, and what they need."""

    tests: str
    minutes: float
    needs: tuple[str, ...] = ()


GROUPS = {
    "browser": Group("HTML reports in headless Chromium", 0.5, ("chromium",)),
    "faults": Group("a fault at every system call, in every byte, at every length", 40, ("strace",)),
    "ray": Group("Ray Data, and jobs on a Ray cluster", 2, ("ray",)),
    "slow": Group("inputs of gigabytes, kernels of other CPUs, workers of other libraries, a quick benchmark", 4),
    "spark": Group("Spark data frames, and files written and read by Spark", 3, ("pyspark", "java")),
    "sweep": Group("every case of grids of types, codecs, layouts and sizes", 2),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose groups."""
    options = parser.getgroup("groups", "groups of tests that the default run leaves out")
    options.addoption(
        "--all",
        action="store_true",
        help="run every test; it is an error if a package or a program that some test needs is not installed. "
        "Without this option, tests with one of the markers "
        f"{', '.join(GROUPS)} are deselected, also in files and among tests that are named",
    )
    options.addoption(
        "--group",
        action="append",
        default=[],
        choices=list(GROUPS),
        help="run every test of this group and no other; may be repeated",
    )
    options.addoption(
        "--fault-table", action="store_true", help="with --all or --group faults: write tests/faults/README.md"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the groups' markers; fail where something is not installed that the run must not do without."""
    for name, group in GROUPS.items():
        config.addinivalue_line("markers", f"{name}(keep): {group.tests}; only with --all, or where keep(…) is true")
    needed = [*PACKAGES, *PROGRAMS] if config.getoption("all") else []
    needed += [name for group in config.getoption("group") for name in GROUPS[group].needs]
    if missing := [name for name in needed if is_missing(name)]:
        raise pytest.UsageError(f"not installed: {', '.join(missing)}; run: {install(*missing)}")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Fill the cache of kernels before several workers compile the same ones."""
    config = session.config
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput") and not config.option.collectonly:
        subprocess.run([sys.executable, "-m", "batchmax", "warmup", "--quiet"], check=False)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what the run leaves out, how long it would take, and what is not installed."""
    if config.getoption("all"):
        return []
    if chosen := config.getoption("group"):
        return [f"groups: {', '.join(chosen)}, nothing else"]
    width = max(map(len, GROUPS))
    lines = ["left to --all (or to --group NAME):"]
    lines += [f"  {name:{width}}  {group.minutes:4g} min  {group.tests}" for name, group in GROUPS.items()]
    for name in PACKAGES:
        if is_missing(name) and not any(name in group.needs for group in GROUPS.values()):
            lines.append(f"not installed, and the tests that need it are skipped: {name} ({install(name)})")
    return lines


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is left to ``--all``, or what is in no group that was chosen."""
    if config.getoption("all"):
        return
    chosen = config.getoption("group")
    left = []
    for item in items:
        marks = [mark for mark in item.iter_markers() if mark.name in GROUPS]
        if not marks and "everything" in item.fixturenames:
            raise pytest.UsageError(f"{item.nodeid}: asks for everything, but belongs to no group")
        runs = any(mark.name in chosen for mark in marks) if chosen else all(keeps(mark, item) for mark in marks)
        if not runs:
            left.append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        gone = set(map(id, left))
        items[:] = [item for item in items if id(item) not in gone]


def keeps(mark: pytest.Mark, item: pytest.Item) -> bool:
    """Return whether the default run keeps a test of a group."""
    keep = mark.kwargs.get("keep")
    if keep is None:
        return False
    return bool(keep(**{name: item.callspec.params[name] for name in inspect.signature(keep).parameters}))


@pytest.fixture(scope="session")
def everything(request: pytest.FixtureRequest) -> bool:
    """Whether a test runs all its cases, rather than some of each kind."""
    return bool(request.config.getoption("all") or request.config.getoption("group"))
