"""The command line as a whole: help, one-line errors, exit codes, JSON, and environment variables."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from batchmax.cli.app import COMMANDS, group, main
from batchmax.cli.command import HEADINGS
from batchmax.cli.commands.score import command as score
from batchmax.cli.errors import explain
from batchmax.cli.signals import Terminated
from batchmax.errors import BadRowError, DataError, GateError, OutputError, UsageError
from tests.support.paths import ROOT
from tests.support.processes import HANGS

NAMES = [name for names in COMMANDS.values() for name in names]
WITHOUT_RESULT = {"completion", "guide"}
"""Commands that print a text, and so have neither ``--json`` nor ``--quiet``."""

SCORE_FLAGS = {param.name: param.help for param in score.params if isinstance(param, click.Option)}


def python(*words, env=None):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=HANGS, env=env)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["-h"],
        [],
        ["score", "-h"],
        ["--version"],
        ["score"],
        ["nonsense"],
        ["guide"],
        ["guide", "formats"],
        ["guide", "s3"],
    ],
    ids=" ".join,
)
def test_help_and_usage_errors_import_nothing_heavy(words):
    """Help, version, the guide and usage errors don't import Numba, pyarrow, NumPy or rich."""
    code = f"import sys; from batchmax.cli.app import main; main({words}); print(*sys.modules)"
    modules = python("-c", code).stdout.splitlines()[-1].split()
    assert "click" in modules
    assert not {"numba", "pyarrow", "numpy", "rich", "llvmlite"} & set(modules)


def test_a_job_with_compiled_kernels_imports_only_what_it_uses(tmp_path):
    """A small job imports neither what only compilations need, nor Arrow's compute functions, tables or Ray."""
    code = "import sys; from batchmax.cli.app import main; main(); print(*sys.modules)"
    for name in ("first.parquet", "second.parquet"):
        modules = python("-c", code, "score", str(ROOT / "data/digits.parquet"), "-o", str(tmp_path / name)).stdout
    loaded = set(modules.splitlines()[-1].split())
    assert {"numba", "pyarrow"} <= loaded
    unused = {"numba.np.arrayobj", "numba.np.linalg", "numba.cpython.listobj", "numpy.ma", "scipy", "pandas"}
    unused |= {"pyarrow.compute", "pyarrow.dataset", "rich.console", "rich.table", "ray", "fsspec"}
    assert not unused & loaded


@pytest.mark.parametrize("words", [["--help"], ["-h"], []])
def test_help_lists_the_commands_by_group(run, words):
    """Help lists the groups in order, and each command with its short help."""
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    places = [out.index(f"{heading}:") for heading in COMMANDS]
    assert places == sorted(places)
    for names in COMMANDS.values():
        for name, meaning in names.items():
            assert f"  {name:<8}" in out
            assert meaning in out
    assert "batchmax score logits.parquet -o scored.parquet" in out


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flag", ["-h", "--help", "--help-all"])
def test_every_command_has_grouped_help_with_examples(run, name, flag):
    """A command's help has its options under headings, in order, and ends with examples."""
    code, out, err = run(name, flag)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: batchmax {name}")
    headings = [line[:-1] for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings[-1] == "Examples"
    last = ["Environment"] if flag == "--help-all" and name not in WITHOUT_RESULT else []
    assert [heading for heading in HEADINGS if heading in headings] + last == headings[:-1]
    assert f"batchmax {name}" in out[out.index("Examples:") :]


@pytest.mark.parametrize("name", NAMES)
def test_help_fits_on_a_screen(run, name, monkeypatch):
    """``-h`` has at most 40 lines in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run(name, "-h")[1].count("\n") <= 40


def listed(text):
    """Return the long names of the options that a help page lists."""
    return set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_all_options_are_in_the_full_help(run, name):
    """``--help-all`` lists every option, and ``-h`` the common ones, or all if there are few."""
    command = group.get_command(click.Context(group), name)
    short, full = listed(run(name, "-h")[1]), listed(run(name, "--help-all")[1])
    declared = {max(param.opts, key=len) for param in command.params if isinstance(param, click.Option)}
    assert full - {"--help-all"} == declared | {"--help"}
    assert short <= full
    if command.common:
        assert short == set(command.common)
        assert short < full


@pytest.mark.parametrize("name", NAMES)
def test_texts_of_options_have_one_form(name):
    """A help text is one or several sentences.

    Defaults are all declared in one way, and metavariables are in capitals.
    """
    command = group.get_command(click.Context(group), name)
    for param in command.params:
        if isinstance(param, click.Option):
            for text in filter(None, (param.help, param.more)):
                assert text[0].isupper(), text
                assert text.endswith("."), text
                assert "[default" not in text
            metavar = param.make_metavar(click.Context(command))
            assert param.is_flag or re.fullmatch(r"[A-Z]+(?:[=|/,][A-Z]+)*(?:,\.\.\.)?", metavar), metavar


def test_options_of_every_command_with_a_result():
    """Every command with a result has the same options for what is printed; they aren't arguments of its function."""
    for name in NAMES:
        command = group.get_command(click.Context(group), name)
        flags = {param.name: param for param in command.params if isinstance(param, click.Option)}
        if name not in WITHOUT_RESULT:
            for flag in ("quiet", "verbose", "json", "debug"):
                assert not flags[flag].expose_value
                assert flags[flag].help == SCORE_FLAGS[flag]


@pytest.mark.parametrize("name", NAMES)
def test_the_short_help_in_the_list_is_the_commands_own(name):
    """The command list, which doesn't import commands, has the first line of each command's help."""
    context = click.Context(group)
    command = group.get_command(context, name)
    listed = next(names[name] for names in COMMANDS.values() if name in names)
    assert command.help.splitlines()[0] == listed


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_help_and_a_heading(name):
    """Every option has a help text and belongs to a heading."""
    command = group.get_command(click.Context(group), name)
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, param.name
            assert param.group in HEADINGS


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("columns", ["80", "120"])
def test_help_fits_the_terminal(name, columns):
    """No line of a help page, except examples, is wider than the terminal."""
    env = {**os.environ, "COLUMNS": columns}
    text = python("-m", "batchmax", name, "--help-all", env=env).stdout
    page = text[: text.index("Examples:")]
    assert max(map(len, page.splitlines())) <= int(columns)


def test_version(run):
    """``--version`` prints the version of the package."""
    import batchmax

    assert run("--version") == (0, f"batchmax {batchmax.__version__}\n", "")


USAGE_ERRORS = [
    (["score"], "INPUT is missing; try: batchmax score -h"),
    (["score", "a"], "--out is missing; try: batchmax score -h"),
    (["scor", "a"], "no command is called 'scor'; did you mean 'score'?; try: batchmax -h"),
    (["xyz"], "no command is called 'xyz'; try: batchmax -h"),
    (["--bar"], "no such option '--bar'; try: batchmax -h"),
    (["score", "--verbos"], "no such option '--verbos'; did you mean '--verbose'?; try: batchmax score -h"),
    (["score", "a", "-o", "b", "--top-k", "x"], "--top-k: 'x' is not a valid integer; try: batchmax score -h"),
    (["score", "a", "-o", "b", "--beta", "x"], "--beta: 'x' is not a valid float; try: batchmax score -h"),
    (
        ["score", "a", "-o", "b", "--layout", "x"],
        "--layout: 'x' is not one of 'list', 'fixed', 'wide'; try: batchmax score -h",
    ),
    (["score", "a", "-o"], "option '-o' requires an argument; try: batchmax score -h"),
    (["score", "a", "-o", "b", "--dry-run=1"], "option '--dry-run' does not take a value; try: batchmax score -h"),
    (["inspect"], "INPUT is missing; try: batchmax inspect -h"),
    (["warmup", "a"], "got unexpected extra argument (a); try: batchmax warmup -h"),
    (["convert", "a", "-o", "b"], "--layout is missing; try: batchmax convert -h"),
    (["score", "a", "-o", "b", "--n-classes", "0"], "--n-classes: 0 is less than 1; try: batchmax score -h"),
]


@pytest.mark.parametrize(("words", "message"), USAGE_ERRORS, ids=lambda value: " ".join(value)[:40])
def test_usage_errors_are_one_line(run, words, message):
    """Usage errors, Click's and ours, exit with 2 and print one line on stderr that ends with a command to run."""
    assert run(*words) == (2, "", f"batchmax: error: {message}\n")


def test_unknown_option_suggests(run):
    """For a misspelled option, the error suggests the right one."""
    code, out, err = run("score", "a", "-o", "b", "--topk", "3")
    assert (code, out) == (2, "")
    assert "--top-k" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("words", "message"), USAGE_ERRORS, ids=lambda value: " ".join(value)[:40])
def test_usage_errors_as_json(run, words, message):
    """With ``--json``, stdout has one line with where, what and remedy.

    Stderr has the same error as text.
    """
    command, *rest = words
    code, out, err = run(command, "--json", *rest) if rest else run(command, "--json")
    if command == "--bar":
        message = "no such option '--bar'; try: batchmax -h"
    assert code == 2
    assert out.count("\n") == 1
    error = json.loads(out)["error"]
    assert list(error) == ["where", "what", "remedy"]
    line = f"{error['where']}: {error['what']}" if error["where"] else error["what"]
    assert f"{line}; {error['remedy']}" == message
    assert err == f"batchmax: error: {message}\n"


FAILURES = [
    (DataError("is empty", where="a.parquet", remedy="check it"), 1, "a.parquet: is empty; check it"),
    (UsageError("no column", where="--logits", remedy="look"), 2, "--logits: no column; look"),
    (UsageError("no column"), 2, "no column; try: batchmax score -h"),
    (BadRowError("NaN", where="row 3"), 1, "row 3: NaN"),
    (OutputError("is there", where="b"), 1, "b: is there"),
    (GateError("mean_loss is 2", where="--fail-if"), 4, "--fail-if: mean_loss is 2"),
    (KeyboardInterrupt(), 130, "interrupted, the output is unchanged; run the command again"),
    (Terminated(), 143, "terminated, the output is unchanged; run the command again"),
    (
        FileNotFoundError(2, "No such file or directory", "x/y"),
        1,
        "x/y: no such file or directory; check the path and its parent folder",
    ),
    (
        OSError(28, "No space left on device", "b"),
        1,
        "b: no space left on device; free some space (df -h) or choose another location",
    ),
    (OSError("Corrupt snappy data."), 1, "a: corrupt snappy data; for the traceback: add --debug"),
    (MemoryError(), 1, "a: out of memory; use less memory with --memory-limit, or a machine with more"),
    (
        ZeroDivisionError("division\nby zero"),
        1,
        "a: unexpected ZeroDivisionError: division by zero; this is a bug in batchmax; for the traceback: add --debug",
    ),
]


@pytest.mark.parametrize(("error", "code", "line"), FAILURES, ids=lambda value: type(value).__name__)
def test_every_failure_has_its_exit_code_and_one_line(run, failing, error, code, line):
    """Any exception from a command is one line on stderr, with the exit code of its kind."""
    failing(error)
    assert run("score", "a", "-o", "b") == (code, "", f"batchmax: error: {line}\n")


def test_no_remedy_is_an_option_that_the_command_lacks():
    """Commands without ``--memory-limit`` don't suggest it."""
    assert "--memory-limit" in explain(MemoryError(), command="score").remedy
    assert explain(MemoryError(), command="verify").remedy == "use a machine with more memory"


@pytest.mark.parametrize(("error", "code", "line"), FAILURES, ids=lambda value: type(value).__name__)
def test_every_failure_is_one_line_of_json(run, failing, error, code, line):
    """With ``--json``, stdout has exactly one line for any exception."""
    failing(error)
    found, out, err = run("score", "a", "-o", "b", "--json")
    assert found == code
    assert json.loads(out)["error"].keys() == {"where", "what", "remedy"}
    assert out.count("\n") == 1
    assert err == f"batchmax: error: {line}\n"


def test_debug_shows_the_traceback(run, failing):
    """``--debug`` adds the traceback before the error line."""
    failing(ZeroDivisionError("here"))
    code, out, err = run("score", "a", "-o", "b", "--debug")
    assert (code, out) == (1, "")
    assert err.startswith("Traceback (most recent call last)")
    assert err.splitlines()[-1].startswith("batchmax: error: a: unexpected ZeroDivisionError: here")


def test_names_cannot_act_on_the_terminal(run, failing):
    """Control characters, line breaks and direction marks in names are escaped."""
    failing(DataError("is\x1b[2Jbad", where="a\nb\u202e\udc80", remedy="no"))
    assert run("score", "a", "-o", "b")[2] == "batchmax: error: a\\nb\\u202e\\udc80: is\\x1b[2Jbad; no\n"


def test_environment_sets_options(run, monkeypatch):
    """An option can be set by BATCHMAX_<COMMAND>_<OPTION>; the error for an invalid value names the variable."""
    given = {}

    def score(_src, _out, options, **_):
        given.update(outputs=options.outputs, top_k=options.top_k)
        raise DataError("stop")

    monkeypatch.setattr("batchmax.jobs.score.score", score)
    monkeypatch.setenv("BATCHMAX_SCORE_OUTPUTS", "loss,pred")
    monkeypatch.setenv("BATCHMAX_SCORE_TOP_K", "5")
    monkeypatch.setenv("BATCHMAX_SCORE_JSON", "1")
    code, out, _ = run("score", "a", "-o", "b")
    assert code == 1
    assert json.loads(out)["error"]["what"] == "stop"
    assert given == {"outputs": ("loss", "pred"), "top_k": 5}
    monkeypatch.setenv("BATCHMAX_SCORE_TOP_K", "many")
    assert "--top-k (from BATCHMAX_SCORE_TOP_K): 'many'" in run("score", "a", "-o", "b")[2]


def test_environment_of_another_program_is_no_concern(run, monkeypatch):
    """BATCHMAX_VERSION, which container images often set, isn't taken for ``--version``."""
    monkeypatch.setenv("BATCHMAX_VERSION", "9.9")
    assert run("-h")[0] == 0


def test_python_warnings_are_one_line(run, monkeypatch):
    """A library's warning is printed as one line without file and line number, also with ``-q``."""
    import warnings

    def score(*_, **__):
        warnings.simplefilter("default")
        warnings.warn("cache is damaged", RuntimeWarning, stacklevel=1)
        raise DataError("stop")

    monkeypatch.setattr("batchmax.jobs.score.score", score)
    assert run("score", "a", "-o", "b")[2] == "batchmax: warning: cache is damaged\nbatchmax: error: stop\n"
    assert run("score", "a", "-o", "b", "-q")[2] == "batchmax: warning: cache is damaged\nbatchmax: error: stop\n"


def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path):
    """A closed pipe, as in ``batchmax show | head -1``, isn't an error."""
    command = f"'{sys.executable}' -m batchmax show --values {','.join(map(str, range(5000)))} --all"
    script = f"{command} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=HANGS, cwd=tmp_path
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_stdout_is_a_failure():
    """Results that can't be written to stdout are an error with exit code 1."""
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m batchmax show --values 1,2 > /dev/full"],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("batchmax: error: no space left on device")
    assert done.stderr.count("\n") == 1


def test_main_runs_outside_the_main_thread():
    """``main`` works in other threads, where signal handlers can't be installed."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(main, ["-h"]).result() == 0


def test_python_m_batchmax_is_the_command():
    """``python -m batchmax`` has the exit codes and the name of ``batchmax``."""
    done = python("-m", "batchmax", "score")
    assert (done.returncode, done.stderr) == (2, "batchmax: error: INPUT is missing; try: batchmax score -h\n")


def test_completion_scripts_exist():
    """Shell completion works by Click's protocol."""
    done = python("-m", "batchmax", env={**os.environ, "_BATCHMAX_COMPLETE": "bash_source"})
    assert done.returncode == 0
    assert "_BATCHMAX_COMPLETE=bash_complete" in done.stdout


def test_explain_knows_both_names_of_a_rename():
    """An OSError about two files names both."""
    failure = explain(OSError(18, "Invalid cross-device link", "a", None, "b"))
    assert failure.where == "a -> b"
