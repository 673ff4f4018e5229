"""On Windows, the package and the command end at once with a remedy."""

from __future__ import annotations

import subprocess
import sys

import pytest

SENTENCE = (
    "batchmax does not run on Windows; install it in the Windows Subsystem for Linux (WSL): "
    "https://learn.microsoft.com/windows/wsl/install"
)
SCRIPT = """
import sys
sys.platform = "win32"
from batchmax.cli.app import main
sys.exit(main())
"""


def run(*words, env=None):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=env)


def test_the_package_is_not_imported():
    """On Windows, ``import batchmax`` raises ImportError with this sentence, and imports nothing else."""
    code = """
import sys
sys.platform = "win32"
for name in ("batchmax", "batchmax.cli", "batchmax.ray"):
    try:
        __import__(name)
    except ImportError as error:
        print(error)
print({"numba", "pyarrow", "click"} & set(sys.modules))
"""
    assert run("-c", code).stdout.splitlines() == [SENTENCE] * 3 + ["set()"]


@pytest.mark.parametrize("name", ["batchmax", "batchmax.exe", "Batchmax.EXE"])
def test_the_command_ends_with_one_line(tmp_path, name):
    """On Windows, the installed script exits with code 1 and one line, without a traceback."""
    (tmp_path / name).write_text(SCRIPT)
    done = run(tmp_path / name, "score", "in.parquet")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"batchmax: error: {SENTENCE}\n")


def test_the_module_ends_with_one_line(tmp_path, monkeypatch):
    """On Windows, ``python -m batchmax`` exits with code 1 and one line."""
    (tmp_path / "sitecustomize.py").write_text('import sys\nsys.platform = "win32"\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    done = run("-m", "batchmax", "score", "in.parquet")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"batchmax: error: {SENTENCE}\n")


def test_other_systems_are_not_refused():
    """Other systems aren't refused."""
    assert run("-c", "import batchmax; print(batchmax.__version__)").returncode == 0
