"""Selection of tests: groups need ``--all`` or ``--group``, where missing packages are errors; otherwise they skip."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.processes import HANGS

TESTS = """
import pytest
from tests.support.requirements import optional, package

duckdb = optional("duckdb")

def test_plain(): pass

@pytest.mark.ray
def test_ray(): pass

@pytest.mark.sweep(keep=lambda codec: codec == "zstd")
@pytest.mark.parametrize("codec", ["zstd", "gzip"])
@pytest.mark.parametrize("version", [1, 2])
def test_grid(codec, version, everything): print("everything:", everything)

def test_package(): package("duckdb.typing")

def test_optional(): duckdb.sql("SELECT 1")
"""
NOT_INSTALLED = """
import tests.support.requirements as requirements
requirements.is_missing = lambda name: name in {"duckdb", "java"}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a function that runs tests of every kind, with neither DuckDB nor Java installed."""
    folder = tmp_path_factory.mktemp("selection")
    (folder / "test_kinds.py").write_text(TESTS)
    (folder / "not_installed.py").write_text(NOT_INSTALLED)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers -rs\n")
    path = os.pathsep.join([str(ROOT), str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])

    def ran(*words):
        command = [sys.executable, "-m", "pytest", "-p", "not_installed", "-p", "tests.conftest", *words]
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider", "-s", "test_kinds.py"],
            capture_output=True, text=True, check=False, cwd=folder, timeout=HANGS,
            env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return ran


def test_the_default_run_says_what_it_leaves_out(run):
    """The header names each group with its time, and each package that isn't installed; skips have reasons."""
    code, out = run("-v")
    assert code == 0
    for group in ("browser", "faults", "ray", "slow", "spark", "sweep"):
        assert f"\n  {group} " in out
    assert "test_plain PASSED" in out.replace("\n", " ")
    assert "everything: False" in out
    assert "[1-zstd]" in out
    assert "[2-zstd]" in out
    assert "gzip" not in out
    assert "test_ray" not in out
    assert "not installed, and the tests that need it are skipped: duckdb (" in out
    assert "duckdb.typing is not installed: " in out
    assert "duckdb is not installed: " in out
    assert "3 passed, 2 skipped, 3 deselected" in out


def test_with_all_nothing_may_be_missing(run):
    """With ``--all``, a missing package or program ends the run before the first test, with the command to install."""
    code, out = run("--all")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "not installed: duckdb, java; run: " in out
    assert "-m pip install 'duckdb' && apt-get install default-jre-headless" in out
    code, out = run("--group", "spark")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "not installed: java; run: apt-get install default-jre-headless" in out


def test_a_group_runs_alone_and_whole(run):
    """``--group`` runs every test of the groups that it names, and no other."""
    code, out = run("--group", "sweep", "--group", "ray")
    assert code == 0
    assert "groups: sweep, ray, nothing else" in out
    assert "everything: True" in out
    assert "5 passed, 3 deselected" in out


def test_no_test_has_a_time_limit_that_load_could_exceed():
    """Every timeout for a process or a thread is ``HANGS`` seconds."""
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "timeout":
                limit = ast.unparse(node.value)
                assert limit == "HANGS", f"{path}:{node.value.lineno}: {limit}"


def test_no_test_is_skipped_silently_for_a_package():
    """Tests import optional packages through ``tests.support.requirements``, which gives a reason for skips."""
    for path in (ROOT / "tests").rglob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert "importorskip" not in names, path
