"""Tests the rules of the repository: import layers, versions, docstrings, and the scripts."""

from __future__ import annotations

import ast
import collections
import fcntl
import graphlib
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib

import numba
import pytest

from tests.support.paths import ROOT
from tests.support.processes import HANGS
from tests.support.requirements import PACKAGES

PACKAGE = ROOT / "batchmax"
SCRIPTS = ROOT / "scripts"

LAYERS = [
    {"__main__"},
    {"cli"},
    {"__init__"},
    {"ray", "spark"},
    {"reports"},
    {"evaluation"},
    {"verification", "jobs"},
    {"sinks"},
    {"scoring"},
    {"sources"},
    {"columns"},
    {"functional"},
    {"parquet"},
    {"kernels"},
    {"options"},
    {"storage"},
    {"runtime"},
    {"errors", "outputs", "statuses", "activations", "results", "guide"},
]
"""The folders and modules of the package, from the top. Each imports from itself and from lower layers only."""
LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}


def folder_of(path):
    """Return the top-level folder or module that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_of(path):
    """Return the dotted name of a module relative to ``batchmax``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def is_module(name):
    """Return whether a dotted name relative to ``batchmax`` is a module or a folder of modules."""
    path = PACKAGE.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported_modules(path):
    """Yield the names, relative to ``batchmax``, of all modules that a module imports from, nested imports included."""
    package = ("batchmax", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [(alias.name, [""]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            found = [(".".join(filter(None, (base, node.module))), [alias.name for alias in node.names])]
        else:
            continue
        for module, names in found:
            first, _, rest = module.partition(".")
            for name in names if first == "batchmax" else ():
                inner = ".".join(filter(None, (rest, name)))
                if inner != "__version__":  # every module may import it
                    yield inner if name and is_module(inner) else rest or "__init__"


def imported_folders(path):
    """Return the top-level folders and modules that a module imports from."""
    return {module.partition(".")[0] for module in imported_modules(path)}


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    """Every module has a layer, and imports from its own folder or from lower layers."""
    folder = folder_of(path)
    assert folder in LAYER_OF, f"give {folder} a place in LAYERS"
    for other in imported_folders(path):
        assert other in LAYER_OF, f"give {other} a place in LAYERS"
        assert other == folder or LAYER_OF[other] > LAYER_OF[folder], f"{folder} imports {other}"


def test_modules_of_a_folder_do_not_import_each_other_in_a_circle():
    """There is no import cycle between modules, including imports in functions."""
    graph = graphlib.TopologicalSorter()
    for path in MODULES:
        module = module_of(path)
        graph.add(module, *(set(imported_modules(path)) - {module}))
    graph.prepare()


def test_the_command_line_computes_nothing():
    """``cli`` imports no kernels, and neither NumPy nor Arrow: what it prints is computed in lower layers."""
    for path in (PACKAGE / "cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found = {name.partition(".")[0] for name in names} & {"numpy", "pyarrow", "numba", "llvmlite", "scipy"}
            assert not found, f"{path}:{node.lineno} imports {found}"
        assert "kernels" not in imported_folders(path), path


def test_the_package_is_navigable():
    """The package has at most 16 folders and 9 modules at the top, and every ``__init__`` has a docstring."""
    folders = [path for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert len(folders) <= 16
    assert len(list(PACKAGE.glob("*.py"))) <= 9
    for path in PACKAGE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_files_are_short_and_class_names_unique():
    """No file of the package has more than 400 lines, and no class name occurs twice."""
    classes = collections.Counter()
    for path in MODULES:
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        classes.update(node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef))
    assert [name for name, count in classes.items() if count > 1] == []


def test_the_layer_test_sees_every_form_of_import(tmp_path, monkeypatch):
    """Plain, from, relative and nested imports are found."""
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "kernels").mkdir()
    for name in ("errors", "sink", "plan", "source"):
        (tmp_path / f"{name}.py").touch()
    module = tmp_path / "kernels" / "x.py"
    module.write_text(
        textwrap.dedent("""
        import numpy, batchmax.errors as e
        from batchmax import sink, score, __version__
        from ..plan import thing
        from . import neighbor
        def f():
            from .. import source
        """)
    )
    assert sorted(imported_folders(module)) == ["__init__", "errors", "kernels", "plan", "sink", "source"]
    assert sorted(imported_modules(module)) == ["__init__", "errors", "kernels", "plan", "sink", "source"]


def test_version_is_one():
    """The package and pyproject.toml have the same version."""
    import batchmax

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert batchmax.__version__ == declared


def test_no_kernel_gives_up_nan_and_infinity():
    """No kernel is compiled with `fastmath=True`, `fast`, `nnan` or `ninf`: row statuses need NaN and infinities."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "fastmath":
                flags = ast.unparse(node.value)
                assert flags != "True", f"{path}:{node.value.lineno}"
                assert not re.search(r"\b(fast|nnan|ninf)\b", flags), f"{path}:{node.value.lineno}"


def test_every_test_says_what_is_true():
    """Every test has a docstring."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name}"


def test_files_of_tests_are_short_and_independent():
    """No file of the tests is longer than 500 lines, and none imports from a test file."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 500, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
                assert not node.module.rpartition(".")[2].startswith("test_"), f"{path}:{node.lineno}"


def test_packages_that_may_be_missing_are_asked_for():
    """Tests import optional packages with ``tests.support.requirements``, which skips the test if one is missing.

    Spark is an exception: its tests run only on request, and then it must be installed.
    """
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            missing = {name.partition(".")[0] for name in names} & (PACKAGES.keys() - {"pyspark"})
            assert not missing, f"{path}:{node.lineno} imports {missing}"


def test_help_loads_neither_numba_nor_pyarrow():
    """`batchmax --help` doesn't import Numba, pyarrow or pandas, which take long to load."""
    code = """
    import sys
    from batchmax.cli.app import main
    sys.argv = ["batchmax", "--help"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
    print("LOADED", sorted({"numba", "llvmlite", "pyarrow", "pandas"} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "score" in done.stdout
    assert done.stdout.rstrip().endswith("LOADED []")


# The scripts


def test_scripts_are_executable_and_parse():
    """Every file in scripts/ parses; it is executable unless it is a .sh file, which others source."""
    for path in SCRIPTS.iterdir():
        if path.is_dir():
            continue
        assert os.access(path, os.X_OK) == (path.suffix != ".sh"), path
        if "python" in path.read_text().split("\n", 1)[0]:
            ast.parse(path.read_text())
        else:
            subprocess.run(["bash", "-n", path], check=True)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.name)
def test_python_scripts_have_help(path):
    """Every Python script has --help and runs without being installed."""
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.lower().startswith("usage")


FAKE_PYTHON = r"""#!/usr/bin/env bash
# Stands in for Python: makes a virtual environment that holds this very file, and writes down each call of pip.
if [[ ${FAKE_OLD:-} && $1 == -c && $2 == *version_info* ]]; then exit 1; fi
case "$1 ${2:-} ${3:-}" in
    "-V "*) echo "Python 3.9.2" ;;
    "-m venv "*)
        venv=${!#}
        rm -rf "$venv"
        mkdir -p "$venv/bin"
        cp "$0" "$venv/bin/python" ;;
    "-m pip --version") ;;
    "-m pip install")
        echo "${!#}" >>"$FAKE_LOG"
        if [[ ${FAKE_BROKEN:-} ]]; then exit 1; fi
        sleep 0.3
        bin=$(dirname "$0")
        printf '#!/usr/bin/env bash\nprintf "[%%s]" ran "$@"\n' >"$bin/batchmax"
        printf '#!/usr/bin/env bash\necho uv "$@" >>"$FAKE_LOG"\n' >"$bin/uv"
        chmod +x "$bin/batchmax" "$bin/uv" ;;
    "-m pytest "*) printf "[%s]" "$@" ;;
    "-m ruff "* | "-m mypy "*) echo "$2" ;;
    *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


class Clone:
    """A copy of the scripts in a folder whose name has a space, with a fake Python that logs installations."""

    def __init__(self, folder):
        self.root = folder / "my clone"
        self.log = folder / "pip.log"
        self.log.touch()
        shutil.copytree(SCRIPTS, self.root / "scripts")
        shutil.copy(ROOT / "pyproject.toml", self.root)
        python = folder / "python"
        python.write_text(FAKE_PYTHON)
        python.chmod(0o755)
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHON": str(python),
            "REAL_PYTHON": sys.executable,
            "FAKE_LOG": str(self.log),
        }

    def start(self, *command, cwd=None, **environment):
        return subprocess.Popen(
            [str(self.root / "scripts" / command[0]), *command[1:]],
            cwd=cwd or self.root,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command, **how):
        process = self.start(*command, **how)
        out, err = process.communicate(timeout=HANGS)
        return process.returncode, out, err

    def installed(self):
        return self.log.read_text().split()


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


def test_the_first_call_sets_up_and_the_next_only_runs(clone, tmp_path):
    """The first call installs once and prints one line to stderr; later calls, from any folder, only run.

    Arguments and stdout are passed through unchanged.
    """
    code, out, err = clone.run("batchmax", "score", "a b", "")
    assert (code, out) == (0, "[ran][score][a b][]")
    assert err.count("\n") == 1
    assert "setting up" in err
    link = tmp_path / "link"
    link.symlink_to(clone.root / "scripts" / "batchmax")
    again = subprocess.run([link, "x"], cwd=tmp_path, env=clone.environment, capture_output=True, text=True, check=True)
    assert (again.stdout, again.stderr) == ("[ran][x]", "")
    assert clone.installed() == [".[insight]"]


def test_a_script_says_that_it_waits_for_another_set_up(clone):
    """A script that waits 2 seconds for another process's lock prints a line; it continues once it has the lock."""
    with (clone.root / "pyproject.toml").open() as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        process = clone.start("batchmax", "x")
        assert process.stderr.readline() == (
            f"batchmax: waiting for another process that is setting up {clone.root / '.venv'}\n"
        )
        assert process.poll() is None
    assert process.communicate(timeout=HANGS)[0] == "[ran][x]"
    assert process.returncode == 0


def test_each_script_installs_its_extra(clone):
    """``scripts/test`` and ``scripts/check`` each install their extra once, when first used."""
    assert clone.run("test", "-k", "a b")[1] == "[-m][pytest][-k][a b]"
    assert clone.run("check")[1].split()[:3] == ["ruff", "ruff", "mypy"]
    clone.run("test")
    clone.run("check")
    assert clone.installed() == [".[test]", ".[check]"]


@pytest.mark.parametrize(
    ("option", "choice"), [("--floor", "--resolution lowest-direct"), ("--newest", "--prerelease allow")]
)
def test_other_versions_have_an_environment_of_their_own(clone, option, choice):
    """--floor and --newest install versions resolved by uv into their own environment, print them, and keep .venv."""
    clone.run("batchmax")
    folder = clone.root / f".venv-{option[2:]}"
    code, out, err = clone.run("test", "-k", "a b", option)
    assert code == 0, err
    versions, ran = out.splitlines()
    assert versions.startswith(f"Python {platform.python_version()}")
    assert f", numba {numba.__version__}, " in versions
    assert ran == "[-m][pytest][-k][a b]"
    first, uv, *resolved, last = clone.log.read_text().splitlines()
    assert (first, uv, last) == (".[insight]", "uv", str(folder / "versions.txt"))
    *compiled, installed = resolved
    assert compiled
    assert all(line.startswith("uv pip compile ") and choice in line for line in compiled)
    assert installed.startswith("uv pip install ")
    assert clone.run("batchmax")[2] == ""
    assert clone.run("test", option)[2] == ""


def test_a_package_can_be_left_out(clone):
    """--without=NAMES leaves only these packages out of the installed requirements."""
    clone.run("test", "--without=torch,Scikit_Learn", "x.py")
    found = (clone.root / ".venv" / "requirements.txt").read_text().splitlines()
    names = {re.split(r"[^\w-]", line)[0] for line in found}
    assert {"pytest", "pytest-xdist", "scipy", "ray", "torchmetrics"} < names
    assert not {"torch", "scikit-learn", "batchmax"} & names
    assert "setting up" in clone.run("test", "x.py")[2]
    assert clone.log.read_text().splitlines()[-1] == ".[test]"


def test_another_python_is_another_environment(clone, tmp_path):
    """If PYTHON names another interpreter, the environment is created again."""
    clone.run("batchmax")
    other = tmp_path / "other"
    other.write_text("#!/usr/bin/env bash\n[[ $1 != -c || $2 != *base_prefix* ]] || exec echo other\n" + FAKE_PYTHON)
    other.chmod(0o755)
    assert clone.run("batchmax")[2] == ""
    assert "setting up" in clone.run("batchmax", PYTHON=str(other))[2]
    assert clone.run("batchmax", PYTHON=str(other))[2] == ""
    assert clone.installed() == [".[insight]", ".[insight]"]


def test_a_changed_pyproject_is_installed_again(clone):
    """A change of pyproject.toml installs again."""
    clone.run("batchmax")
    with (clone.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert "setting up" in clone.run("batchmax")[2]
    assert clone.run("batchmax")[2] == ""
    assert clone.installed() == [".[insight]", ".[insight]"]


def test_a_failed_or_interrupted_installation_starts_afresh(clone):
    """An incomplete .venv is deleted by the next call; the failure says in one line what to run."""
    code, out, err = clone.run("batchmax", FAKE_BROKEN="yes")
    assert (code, out) == (1, "")
    assert "run" in err.splitlines()[-1]
    leftover = clone.root / ".venv" / "leftover"
    leftover.touch()
    assert clone.run("batchmax")[:2] == (0, "[ran]")
    assert not leftover.exists()


def test_a_moved_folder_is_set_up_again(clone):
    """After its folder was moved, .venv, which contains its own path, is installed again."""
    clone.run("batchmax")
    clone.root = clone.root.rename(clone.root.with_name("moved"))
    assert clone.run("batchmax")[:2] == (0, "[ran]")
    assert clone.installed() == [".[insight]", ".[insight]"]


def test_two_first_calls_at_once_install_once(clone):
    """Of two simultaneous first calls, one installs and the other waits for it."""
    both = [clone.start("batchmax", str(number)) for number in range(2)]
    assert [process.communicate(timeout=HANGS)[0] for process in both] == ["[ran][0]", "[ran][1]"]
    assert clone.installed() == [".[insight]"]


def test_an_old_python_is_refused_in_one_line(clone):
    """A Python that is too old or missing fails with one line that names it; no environment is created."""
    code, out, err = clone.run("batchmax", FAKE_OLD="yes")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "3.11 or later" in err
    assert "Python 3.9.2" in err
    code, _, err = clone.run("batchmax", PYTHON="no-such-python")
    assert code == 1
    assert err.count("\n") == 1
    assert "no-such-python" in err
    assert not (clone.root / ".venv").exists()
