"""Shell completion: the scripts, and the words that are completed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.cli.app import COMMANDS, main
from batchmax.cli.completion import SHELLS
from batchmax.outputs import OUTPUTS
from batchmax.sources.inspection.column_names import column_names
from tests.support.paths import ROOT
from tests.support.processes import HANGS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Make a folder with a file of several columns the current folder."""
    monkeypatch.chdir(tmp_path)
    columns = {
        "id": [1],
        "logits": [[1.0, 2.0]],
        "label": [0],
        "language": ["en"],
        "outputs": [{"logits": [1.0], "other": 1}],
        "two words": [1],
        "$(touch gone)": [1],
        "x\nfile,y": [1],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    pq.write_table(pa.table({"z": [[1.0, 2.0]], "y": [1]}), tmp_path / "b.parquet")
    return tmp_path


@pytest.fixture
def complete(monkeypatch, capfd):
    """Return a function that completes the last word of a line as bash asks for it; nothing may be on stderr."""

    def complete_words(*words):
        monkeypatch.setenv("_BATCHMAX_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", "\n".join(["batchmax", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        assert main([]) == 0
        out, err = capfd.readouterr()
        assert err == ""
        return [tuple(line.split(",", 1)) for line in out.splitlines() if line]

    return complete_words


def values(found):
    return [value for _, value in found]


def test_commands_options_and_choices_are_completed(complete):
    """Commands, options and the values of choices are completed."""
    assert values(complete("")) == [name for names in COMMANDS.values() for name in names]
    assert values(complete("sc")) == ["score"]
    assert values(complete("score", "--on")) == ["--on-bad-row"]
    assert values(complete("score", "--help")) == ["--help", "--help-all"]
    assert values(complete("score", "a.parquet", "--layout", "")) == ["list", "fixed", "wide"]
    assert values(complete("completion", "")) == ["bash", "zsh", "fish"]


@pytest.mark.parametrize(
    "words",
    [
        ["score", ""],
        ["score", "a.parquet", "-o", ""],
        ["score", "a.parquet", "--calibration", ""],
        ["compare", "a.parquet", ""],
        ["verify", ""],
        ["show", "--classes", ""],
    ],
)
def test_the_shell_completes_paths(complete, words):
    """For inputs, outputs and options that name a file, the shell is told to complete a path."""
    assert complete(*words) == [("file", "")]


def test_columns_of_the_first_input_are_completed(complete, folder):
    """Columns are those of the first input before the option; fields of structs have dotted names.

    Names that a shell would split or expand aren't offered.
    """
    names = ["id", "logits", "label", "language", "outputs", "outputs.logits", "outputs.other"]
    assert values(complete("score", "a.parquet", "--logits", "")) == names
    assert values(complete("score", "a.parquet", "b.parquet", "-o", "x.parquet", "--label", "la")) == [
        "label",
        "language",
    ]
    assert values(complete("score", "-o", "x.parquet", "a.parquet", "--logits", "outputs.")) == names[5:]
    assert values(complete("score", str(folder), "--logits", "")) == names
    assert values(complete("score", "[b].parquet", "--logits", "")) == ["z", "y"]
    assert values(complete("evaluate", "a.parquet", "--by", "language,")) == [
        f"language,{name}" for name in names if name != "language"
    ]
    assert not (folder / "gone").exists()


@pytest.mark.usefixtures("folder")
def test_columns_of_the_other_inputs_are_completed(complete):
    """Options about the second input complete its columns."""
    assert values(complete("compare", "a.parquet", "b.parquet", "--logits-b", "")) == ["z", "y"]
    assert values(complete("compare", "a.parquet", "b.parquet", "--label-b", "")) == ["z", "y"]
    assert values(complete("compare", "a.parquet", "b.parquet", "--label", "la")) == ["label", "language"]
    assert values(complete("verify", "a.parquet", "b.parquet", "--logits", "")) == ["z", "y"]


def test_outputs_are_completed_after_commas(complete):
    """``--outputs`` completes the last name of a list, without the names that are already in it."""
    assert values(complete("score", "a.parquet", "--outputs", "")) == list(OUTPUTS)
    assert values(complete("score", "a.parquet", "--outputs", "loss,pr")) == ["loss,probs", "loss,pred", "loss,preds"]
    assert values(complete("score", "a.parquet", "--outputs", "probs,pr")) == ["probs,pred", "probs,preds"]


@pytest.mark.parametrize(
    "given", ["nothing.parquet", "text", "pipe", "empty", "s3://bucket/a.parquet", "-", "*.nothing", "~nobody/a"]
)
def test_without_a_file_nothing_is_completed(complete, folder, given):
    """Without a local Parquet file, nothing is completed and no error is printed."""
    (folder / "text").write_text("no Parquet")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    assert stat.S_ISFIFO((folder / "pipe").stat().st_mode)
    assert complete("score", given, "--logits", "") == []
    assert complete("score", "--logits", "") == []


def test_folders_of_partitions_are_columns(folder):
    """The first file of a folder is found below hidden files and ``key=value`` folders, whose keys are columns too."""
    below = folder / "p" / "year=2024" / "lang=en"
    below.mkdir(parents=True)
    (folder / "p" / "_SUCCESS").touch()
    shutil.copy("b.parquet", below)
    assert column_names("p") == ["z", "y", "year", "lang"]


def test_names_are_read_without_kernels(folder):
    """Completing columns imports neither Numba nor the kernels, and completing outputs not even pyarrow."""
    code = "import sys; from batchmax.cli.app import main; main([]); print(*sys.modules, file=sys.stderr)"
    for words, absent in ((["--logits", ""], {"numba", "batchmax.kernels"}), (["--outputs", ""], {"numba", "pyarrow"})):
        line = "\n".join(["batchmax", "score", "a.parquet", *words])
        env = os.environ | {"_BATCHMAX_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": "4"}
        env["PYTHONPATH"] = str(ROOT)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env, cwd=folder
        )
        assert done.stdout
        assert not absent & set(done.stderr.split())


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_printed(shell, capfd):
    """``completion`` prints the script of the shell, which asks the program by an environment variable."""
    assert main(["completion", shell]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert f"_BATCHMAX_COMPLETE={shell}_complete" in out


def test_an_unknown_shell_is_a_usage_error(capfd):
    """The error for another shell names the known ones."""
    assert main(["completion", "tcsh"]) == 2
    assert "SHELL: 'tcsh' is not one of 'bash', 'zsh', 'fish'" in capfd.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_script(folder):
    """After the script is evaluated, bash completes columns, outputs and paths with it."""
    command = folder / "bin" / "batchmax"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m batchmax "$@"\n')
    command.chmod(0o755)
    script = """
    eval "$(batchmax completion bash)"
    complete -p batchmax
    ask() {
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
        _batchmax_completion batchmax
        echo "${COMPREPLY[*]}"
    }
    ask batchmax score a.parquet --label la
    ask batchmax score a.parquet --outputs loss,en
    ask batchmax ver
    """
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANGS,
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(command).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.stderr == ""
    declared, *found = done.stdout.splitlines()
    assert "_batchmax_completion batchmax" in declared
    assert found == ["label language", "loss,entropy", "verify"]
