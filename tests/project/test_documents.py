"""Tests the documents: code blocks run and print what is shown, and all options, outputs and folders are named."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import shlex
import subprocess
import sys

import pytest

from batchmax import guide
from batchmax.cli.app import COMMANDS, group, main
from tests.support.documents import FENCED, PAGES, README
from tests.support.paths import ROOT
from tests.support.requirements import package

ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES]
UNSTEADY = ("time ", "probs   ", "  probs ", "  loss ")
"""Beginnings of output lines that differ between runs or CPUs."""


def blocks(text):
    """Return the language, code and shown output of each block that is meant to run.

    The output is None if no output is shown below the block.
    """
    found = FENCED.findall(text)
    after = [*found, ("", "")][1:]
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


def outputs_of(block):
    """Return the commands or the query of a block, each with the output shown."""
    kind, body, shown = block
    return [(body, shown)] if kind in {"python", "sql"} else commands(kind, body, shown)


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


@pytest.fixture
def folder(tmp_path):
    """Return a folder with the data, and a command ``./scripts/batchmax`` that runs this copy of the package."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "scripts").mkdir()
    command = tmp_path / "scripts" / "batchmax"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batchmax "$@"\n')
    command.chmod(0o755)
    return tmp_path


def run_in_shell(line, folder):
    """Run a line of a shell block, and return its exit code and its output."""
    path = f"{folder / 'scripts'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    line = line.replace(".venv/bin/python", sys.executable)
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@contextlib.contextmanager
def captured(folder):
    """Change to a folder, and collect what is printed there."""
    text = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        yield text


def run_here(line, folder):
    """Run a command line of batchmax in this process, which takes a tenth of the time of a new one."""
    with captured(folder) as text:
        code = main(shlex.split(line, comments=True)[1:])
        return code, text.getvalue()


def run_python(body, folder):
    """Run a block of Python in this process, and return its output. Warnings are errors."""
    with captured(folder) as text:
        exec(compile(body, "block", "exec"), {"__name__": "__main__"})  # noqa: S102 - it is our own code
        return text.getvalue()


def assert_runs(line, shown, folder):
    """Run a line of a shell block, and check its exit code and the output shown below it."""
    is_plain = line.startswith("batchmax ") and not re.search(r"[<>|&;]", re.sub(r"'[^']*'", "", line))
    code, output = (run_here if is_plain else run_in_shell)(line, folder)
    expected = re.search(r"# exit (\d+)", line)
    assert code == int(expected[1] if expected else 0), f"{line}\n{output}"
    assert_shows(shown or "", output)


@pytest.mark.parametrize("path", [README, *PAGES], ids=lambda path: path.stem)
def test_every_block_runs_and_prints_what_is_shown(path, folder):
    """Commands, Python blocks and queries run in the order of the page, with the exit codes and the output shown.

    The folder has the sample data and the output of the README's first command.
    """
    duckdb, *_ = map(package, ("duckdb", "polars", "torch", "datasets", "scipy", "matplotlib"))
    if path != README:
        run_here("batchmax score data/digits.parquet -o scored.parquet -q", folder)
    for block in blocks(path.read_text()):
        for text, shown in outputs_of(block):
            if block[0] == "sql":
                with contextlib.chdir(folder):
                    assert_shows(shown or "", str(duckdb.sql(text)))
            elif block[0] == "python":
                assert_shows(shown or "", run_python(text, folder))
            elif text != "./scripts/test":
                assert_runs(text, shown, folder)


def test_documents_have_blocks_that_run():
    """The blocks of the README and of the guide are found: dozens of them, many with their output."""
    found = [block for path in (README, *PAGES) for block in blocks(path.read_text())]
    assert len(found) >= 30
    assert sum(bool(shown) for block in found for _, shown in outputs_of(block)) >= 10


def test_the_readme_opens_with_the_two_commands():
    """The first block scores the sample and runs the tests."""
    assert blocks(README.read_text())[0][1].splitlines() == [
        "./scripts/batchmax score data/digits.parquet -o scored.parquet",
        "./scripts/test",
    ]


def test_the_readme_is_short():
    """The README has at most 9000 bytes; the guide has the rest."""
    assert len(README.read_bytes()) <= 9000


def test_documents_name_every_option_output_and_status():
    """README and guide name every option, output, status and gate name of ``score``.

    They name no option that doesn't exist.
    """
    import click

    from batchmax.options.gates import SCORE_FIGURES
    from batchmax.outputs import OUTPUTS
    from batchmax.statuses import STATUS_NAMES

    def options(name):
        command = group.get_command(click.Context(group), name)
        parameters = command.get_params(click.Context(command, **command.context_settings))
        return {name for parameter in parameters for name in parameter.opts if name.startswith("--")}

    text = "\n".join(path.read_text() for path in (README, *PAGES))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text))
    assert options("score") <= named
    assert named <= set().union(*(options(name) for names in COMMANDS.values() for name in names))
    for name in (*OUTPUTS, *STATUS_NAMES, *SCORE_FIGURES):
        assert re.search(rf"`[^`\n]*\b{name}\b", text), name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_has_a_title_and_a_summary_of_one_line(path):
    """A page starts with its only title and a sentence that fits next to its name in 100 columns."""
    text = path.read_text()
    prose = FENCED.sub("", text)
    assert len(re.findall(r"^# .+", prose, re.MULTILINE)) == 1
    assert text.startswith("# ")
    summary = guide.summary(path.stem)
    assert re.fullmatch(r"[A-Z].*[^.]\.", summary)
    assert max(len(page.stem) for page in PAGES) + 2 + len(summary) <= 100


def test_every_page_is_linked_from_the_readme():
    """The README links to every page of the guide."""
    linked = re.findall(r"/batchmax/guide/([\w-]+)\.md\)", README.read_text())
    assert set(linked) == {path.stem for path in PAGES}


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
    for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.(?:py|md))?)", ARCHITECTURE):
        path = ROOT / ("" if name.startswith(("batchmax/", "tests/", "scripts/")) else "batchmax") / name
        known = {
            "commands/",
            "curves/",
            "render/",
            "html/",
            "comparison/",
            "decisions/",
            "commit/",
            "reading/",
            "writing/",
        }
        assert name in known or path.exists() or path.with_suffix(".py").exists(), name
    for name in re.findall(r"`(test_\w+\.py)`", ARCHITECTURE):
        assert list((ROOT / "tests").rglob(name)), name


def headings(path):
    """Return the anchors of the headings of a document."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_links_between_documents_lead_somewhere(path):
    """Relative links lead to existing files, and their anchors to existing headings."""
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if not link.startswith("http"):
            name, _, anchor = link.partition("#")
            target = path.parent / name if name else path
            assert target.is_file(), link
            assert not anchor or anchor in headings(target), link
