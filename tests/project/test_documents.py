"""Tests the documents: code blocks run and print what is shown, and all options, outputs and folders are named."""

from __future__ import annotations

import contextlib
import math
import os
import re
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.requirements import package

README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
UNSTEADY = ("time ", "probs   ", "  probs ", "  loss ")
"""Beginnings of output lines that differ between runs or CPUs."""


def blocks(text):
    """Return the language, code and shown output of each block that is meant to run.

    The output is None if no output is shown below the block.
    """
    found = FENCED.findall(text)
    after = [*found[1:], ("", "")]
    return [
        (kind, body, then if kind != "console" and following == "text" else None)
        for (kind, body), (following, then) in zip(found, after, strict=True)
        if kind in {"console", "python", "sh", "sql"}
    ]


def commands(kind, body, shown):
    """Return the commands of a shell block, each with the output shown.

    In a ``console`` block, the output follows each command. The output of an ``sh`` block follows the block and belongs
    to the first command.
    """
    found = []
    for line in body.replace("\\\n", " ").splitlines():
        if kind == "sh":
            found.append((line, "" if found else shown))
        elif line.startswith("$ "):
            found.append((line.removeprefix("$ "), ""))
        else:
            command, shown = found[-1]
            found[-1] = (command, f"{shown}{line}\n")
    return found


def assert_shows(shown, real):
    """Check that every word and number shown is in the real output, in this order.

    Numbers may differ in their last digits.
    """
    wanted = [line for line in shown.splitlines() if not line.startswith(UNSTEADY)]
    words = iter(re.findall(r"[\w.+/-]+", real))
    for word in re.findall(r"[\w.+/-]+", "\n".join(wanted)):
        assert any(is_like(word, other) for other in words), f"{word!r} is not in\n{real}"


def is_like(word, other):
    if word == other:
        return True
    try:
        return math.isclose(float(word), float(other), rel_tol=1e-5)
    except ValueError:
        return False


def test_output_is_compared_word_by_word():
    """``assert_shows`` detects a wrong word, number or order, and ignores times and last digits."""
    assert_shows("a 1.000001\ntime 5 s", "b │ a │ 1.000002\ntime 6 s")
    for wrong in ("a 1.1", "1.000002 a", "c"):
        with pytest.raises(AssertionError):
            assert_shows(wrong, "a 1.000002")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Run the README's blocks in order in one folder.

    Return the block, the output shown, the expected exit code, the exit code and the output of each.
    """
    duckdb = package("duckdb")
    package("polars")
    package("torch")
    folder = tmp_path_factory.mktemp("readme")
    (folder / "data").symlink_to(ROOT / "data")
    (folder / "scripts").mkdir()
    command = folder / "scripts" / "batchmax"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batchmax "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}

    def run(*arguments):
        done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    found = []
    for kind, body, shown in blocks(README):
        if kind == "sql":
            with contextlib.chdir(folder):
                found.append((body, shown, 0, 0, str(duckdb.sql(body))))
        elif kind == "python":
            found.append((body, shown, 0, *run(sys.executable, "-W", "error", "-c", body)))
        else:
            for line, printed in commands(kind, body, shown):
                if re.match(r"(\./scripts/)?batchmax |\.venv/bin/python -c ", line):
                    line = line.replace(".venv/bin/python", sys.executable)  # noqa: PLW2901
                    expected = re.search(r"# exit (\d+)", line)
                    found.append((line, printed, int(expected[1] if expected else 0), *run("bash", "-c", line)))
    return found


def test_the_readme_opens_with_the_two_commands():
    """The first block scores the sample and runs the tests."""
    assert blocks(README)[0][1].splitlines() == [
        "./scripts/batchmax score data/digits.parquet -o scored.parquet",
        "./scripts/test",
    ]


def test_every_block_of_the_readme_runs(outputs):
    """All commands, Python blocks and queries end with the exit codes that the README shows."""
    assert len(outputs) >= 10
    for block, _, expected, code, output in outputs:
        assert code == expected, f"{block}\n{output}"


def test_the_readme_shows_real_output(outputs):
    """The output shown below a command or query is its real output, except for times and last digits."""
    shown = [(text, output) for _, text, _, _, output in outputs if text]
    assert len(shown) >= 5
    for text, output in shown:
        assert_shows(text, output)


def test_the_readme_names_every_option_output_and_status():
    """The README names every option, output, status and gate name of ``score``.

    It names no option that doesn't exist.
    """
    import click

    from batchmax.cli.commands.calibrate import command as calibrate
    from batchmax.cli.commands.compare import command as compare
    from batchmax.cli.commands.convert import command as convert
    from batchmax.cli.commands.evaluate import command as evaluate
    from batchmax.cli.commands.report import command as report
    from batchmax.cli.commands.score import command as score
    from batchmax.cli.commands.show import command as show
    from batchmax.cli.commands.verify import command as verify
    from batchmax.options.gates import SCORE_FIGURES
    from batchmax.outputs import OUTPUTS, STATUS_NAMES

    def options(command):
        parameters = command.get_params(click.Context(command, **command.context_settings))
        return {name for parameter in parameters for name in parameter.opts if name.startswith("--")}

    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", README))
    assert options(score) <= named
    others = (show, compare, convert, verify, evaluate, calibrate, report)
    assert named <= options(score).union(*map(options, others))
    for name in (*OUTPUTS, *STATUS_NAMES, *SCORE_FIGURES):
        assert re.search(rf"`[^`\n]*\b{name}\b", README), name


def test_architecture_lists_every_folder():
    """The table of folders in ARCHITECTURE.md has all folders and modules of the package, and no others."""
    names = {
        path.stem if path.suffix else f"{path.name}/"
        for path in (ROOT / "batchmax").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    } - {"__init__", "__main__"}
    table = ARCHITECTURE.split("## Folders and", 1)[1].split("\n## ", 1)[0]
    first_cells = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`([a-z_]+/?)`", first_cells)) == names


def test_architecture_names_files_that_exist():
    """The modules, folders and test files that ARCHITECTURE.md names exist; it has at most 8000 bytes."""
    assert len(ARCHITECTURE.encode()) <= 8000
    for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.py)?)", ARCHITECTURE):
        path = ROOT / ("" if name.startswith(("batchmax/", "tests/")) else "batchmax") / name
        known = {"commands/", "render/", "html/", "comparison/", "commit/", "reading/", "writing/"}
        assert name in known or path.exists() or path.with_suffix(".py").exists(), name
    for name in re.findall(r"`(test_\w+\.py)`", ARCHITECTURE):
        assert list((ROOT / "tests").rglob(name)), name


@pytest.mark.skipif(os.name != "posix", reason="the block is for a POSIX shell")
def test_the_command_that_shows_registers_runs():
    """The command in ARCHITECTURE.md prints counts of packed operations by register width, for both types."""
    (block,) = [body for kind, body in FENCED.findall(ARCHITECTURE) if kind == "sh"]
    script = block.replace(".venv/bin/python", f'"{sys.executable}"')
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=environment)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["float32", "float64"]
    if os.uname().machine in {"x86_64", "AMD64"}:
        assert all("mm'" in line for line in lines), done.stdout


@pytest.mark.parametrize("name", sorted(path.name for path in ROOT.glob("*.md")))
def test_links_between_documents_lead_somewhere(name):
    """Relative links lead to existing files, and links within a page to existing headings."""
    text = (ROOT / name).read_text()
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("http"):
            assert (ROOT / target).exists(), target
