"""Tests the command that an error suggests for a missing package: it depends on where batchmax is installed."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib

import pytest

from batchmax.runtime.installation import install_command, missing_package
from tests.support.paths import ROOT

DIGITS = ROOT / "data" / "digits.parquet"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a folder with a copy of the package, as in site-packages."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "batchmax", folder / "batchmax", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run_without_ray(site, folder):
    """Return the stderr of `batchmax score --engine ray`, with the package imported from ``site`` and Ray missing."""
    code = "import sys; sys.modules['ray'] = None; from batchmax.cli.app import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "score", DIGITS, "-o", "scored", "--engine", "ray"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    return done.stderr


def test_a_clone_suggests_to_install_the_clone(tmp_path):
    """If pyproject.toml is next to the package, the command installs the current folder."""
    assert install_command("ray") == "pip install '.[ray]'"
    message = run_without_ray(ROOT, tmp_path)
    assert message == "batchmax: error: --engine: Ray is not installed; pip install '.[ray]'\n"


def test_an_installed_package_suggests_the_package(site, tmp_path):
    """Without a pyproject.toml next to the package, the command installs batchmax from the package index."""
    message = run_without_ray(site, tmp_path)
    assert message == "batchmax: error: --engine: Ray is not installed; pip install 'batchmax[ray]'\n"


@pytest.mark.parametrize("text", [b'[project]\nname = "other"\n', b"[tool.x]\n", b"no TOML", b"\xff"])
def test_the_pyproject_of_another_package_is_ignored(text, tmp_path, monkeypatch):
    """A pyproject.toml of another package, which some install into site-packages by mistake, is ignored."""
    path = tmp_path / "pyproject.toml"
    path.write_bytes(text)
    monkeypatch.setattr("batchmax.runtime.installation._PYPROJECT", path)
    assert install_command("spark") == "pip install 'batchmax[spark]'"


def test_the_error_has_what_where_and_remedy():
    """The error for a missing package has its three parts as attributes."""
    error = missing_package("Ray", "ray", where="--engine")
    assert (error.what, error.where, error.remedy) == ("Ray is not installed", "--engine", install_command("ray"))


def test_every_message_takes_its_command_from_one_function():
    """Only ``installation.py`` contains commands that install an extra, and every extra in a message exists."""
    named = set()
    for path in sorted((ROOT / "batchmax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and path.name != "installation.py":
                assert "batchmax[" not in node.value, f"{path}:{node.lineno}"
                assert "pip install '.[" not in node.value, f"{path}:{node.lineno}"
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "missing_package":
                named.add(ast.literal_eval(node.args[1]))
    assert named == {"insight", "ray", "spark"}
    assert named <= EXTRAS.keys()
