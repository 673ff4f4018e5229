"""Selects tests by group: by default, most tests of the groups are deselected; ``--all`` runs every test.

Tests of a group have the group's name as their marker. The default run can keep some cases of a parametrized test:
``@pytest.mark.sweep(keep=lambda codec: codec == "zstd")``. The arguments of ``keep`` are the test's parameters, by
name. A test that loops over many cases uses the fixture ``everything`` to find out whether to run all of them; its
marker has ``keep=lambda: True``, so that the default run includes it.
"""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

# By default, idle OpenMP threads spin and take CPU time from the other processes of the test run. libgomp reads this
# variable once, so it's set before Numba or PyTorch is imported. Child processes inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("tests.support")  # failures of shared checks show the compared values

from tests.support.requirements import PACKAGES, PROGRAMS, install, is_missing  # noqa: E402 - rewritten as well

# No deadline: the first call of a kernel compiles it, and the machine may be busy.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default run", PATIENT, max_examples=60)
settings.register_profile("thorough", PATIENT, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default run"))


@dataclass(frozen=True)
class Group:
    """Tests that the default run leaves out: their description, their duration on two cores, and what they need."""

    tests: str
    minutes: float
    needs: tuple[str, ...] = ()


GROUPS = {
    "browser": Group("HTML reports in headless Chromium", 0.5, ("chromium",)),
    "faults": Group("a fault at every system call, in every byte, at every length", 60, ("strace",)),
    "ray": Group("Ray Data, and jobs on a Ray cluster", 2, ("ray",)),
    "slow": Group("inputs of gigabytes, kernels of other CPUs, workers of other libraries, a quick benchmark", 4),
    "spark": Group("Spark data frames, and files written and read by Spark", 3, ("pyspark", "java")),
    "sweep": Group("every case of grids of types, codecs, layouts and sizes", 2),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that select groups."""
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
    """Register the groups' markers; fail if a package or program that the selected tests need isn't installed.

    A shell starts background jobs with SIGINT ignored, and child processes inherit that; it's restored for tests that
    interrupt processes.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, group in GROUPS.items():
        config.addinivalue_line("markers", f"{name}(keep): {group.tests}; only with --all, or where keep(…) is true")
    needed = [*PACKAGES, *PROGRAMS] if config.getoption("all") else []
    needed += [name for group in config.getoption("group") for name in GROUPS[group].needs]
    if missing := [name for name in needed if is_missing(name)]:
        raise pytest.UsageError(f"not installed: {', '.join(missing)}; run: {install(*missing)}")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Fill the kernel cache first if several workers run, so that they don't all compile the same kernels."""
    config = session.config
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput") and not config.option.collectonly:
        subprocess.run([sys.executable, "-m", "batchmax", "warmup", "--quiet"], check=False)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Return lines that list the groups left out, their durations, and the packages that aren't installed."""
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
    """Deselect the tests of groups, or with ``--group`` the tests of no selected group."""
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
    """Whether a test runs all of its cases, rather than some of each kind."""
    return bool(request.config.getoption("all") or request.config.getoption("group"))


@pytest.fixture(scope="module")
def no_sync() -> Iterator[None]:
    """Replace ``fsync`` by a no-op, for test files that write hundreds of files and don't need durability."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
