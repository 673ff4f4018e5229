"""Runs are killed before each of their changes of the file system, and a run with ``resume`` finishes the output.

For every kind of output and previous content of its path, the resuming run ends with the exit code and the bytes of a
run that wasn't killed, and leaves no other files.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import pytest

from tests.faults.kill_commands import GATE, NO_SYNC, OVERWRITE, RESUME, SCORE
from tests.support.processes import HANGS

FOREIGN = ("a foreign file",)


@dataclass(frozen=True)
class Scenario:
    """Commands: some that run before, one that is killed, and the one that resumes it."""

    before: tuple[tuple[str, ...], ...]
    killed: tuple[str, ...]
    resumes: tuple[str, ...]


def scenarios():
    """Return every kind of output, alone and with rejected rows, new and over another, published and held."""
    found = {}
    for out, rejects in [("o.parquet", ""), ("o.parquet", "r.parquet"), ("o", ""), ("o", "r")]:
        words = (*SCORE, "-o", out, *(("--rejects", rejects) if rejects else ()))
        kind = f"{'file' if out.endswith('.parquet') else 'folder'}{' and rejects' if rejects else ''}"
        for over in (False, True):
            name = f"{kind}, {'over another' if over else 'new'}"
            before = ((*words, "--temperature", "2"),) if over else ()
            first = (*words, *OVERWRITE) if over else words
            resumes = (*words, *RESUME)
            found[name] = Scenario(before, first, resumes)
            found[f"{name}, held back"] = Scenario(before, (*first, *GATE), (*resumes, *GATE))
            found[f"{name}, held back, then released"] = Scenario(before, (*first, *GATE), resumes)
            found[f"{name}, being released"] = Scenario((*before, (*first, *GATE)), resumes, resumes)
            if not out.endswith(".parquet"):
                shards = [(*first, "--shard", f"{number}/2") for number in range(2)]
                found[f"{name}, a shard"] = Scenario((*before, shards[0]), shards[1], resumes)
                found[f"{name}, of shards"] = Scenario((*before, *shards), resumes, resumes)
    for out, rejects in [("o.parquet", "r.parquet"), ("o", "r")]:
        words = (*SCORE, "-o", out, "--rejects", rejects)
        kind = "file" if out.endswith(".parquet") else "folder"
        found[f"{kind} and rejects, without syncs"] = Scenario((), (*words, *NO_SYNC), (*words, *NO_SYNC, *RESUME))
        found[f"{kind} and rejects, without syncs, then with"] = Scenario((), (*words, *NO_SYNC), (*words, *RESUME))
        found[f"{kind} and rejects, with syncs, then without"] = Scenario((), words, (*words, *NO_SYNC, *RESUME))
    words = (*SCORE, "-o", "o.parquet")
    found["file, over a foreign one"] = Scenario((FOREIGN,), (*words, *OVERWRITE), (*words, *RESUME))
    deep = (*SCORE, "-o", "new/folders/o", "--rejects", "other/new/r")
    found["folder and rejects, in new folders"] = Scenario((), deep, (*deep, *RESUME))
    return found


SCENARIOS = scenarios()
IN_DEFAULT_RUN = {
    "file and rejects, over another": 6,
    "folder and rejects, over another, held back, then released": 11,
    "folder, over another, of shards": 9,
    "folder and rejects, in new folders": 17,
    "folder and rejects, without syncs, then with": 13,
}
"""Scenarios of the default run, and the step between its kill points."""


def contents(folder):
    """Return every file except inputs, and every folder; for journals, only that they exist."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and path.name != "journal" else b""
        for path in sorted(folder.rglob("*"))
        if path.relative_to(folder).parts[0] != "in"
    }


@pytest.mark.faults(keep=lambda name: name in IN_DEFAULT_RUN)
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_before_every_change(tmp_path, inputs, forks, table, everything, name):
    """The run that resumes gives the output of a run that wasn't killed, and leaves no other files."""
    scenario = SCENARIOS[name]
    ready, job = tmp_path / "ready", tmp_path / "job"

    def run(words, at=None):
        return forks.ask({"words": words, "folder": str(job), "at": at}, seconds=HANGS)

    def begin():
        shutil.rmtree(job, ignore_errors=True)
        job.mkdir()
        shutil.copytree(inputs, job / "in")
        for words in scenario.before:
            if words == FOREIGN:
                (job / "o.parquet").write_text("years of work")
                continue
            assert run(words)["code"] in {0, 4}

    def restart():
        if name.endswith("being released") and list(ready.glob(".*")):
            # A journal identifies files by inode, and a copy has another one.
            begin()
            return
        shutil.rmtree(job, ignore_errors=True)
        shutil.copytree(ready, job)

    begin()
    job.rename(ready)
    restart()
    whole = run(scenario.killed)
    assert whole["code"] in {0, 4}, whole["err"]
    changes = whole["changes"]
    whole = run(scenario.resumes)
    assert whole["code"] in {0, 4}, whole["err"]
    want = contents(job)
    step = 1 if everything else IN_DEFAULT_RUN[name]
    for at in range(1, changes + 1, step):
        restart()
        assert run(scenario.killed, at)["code"] == -9
        row = table.rows["SIGKILL before change number 1, 2, …", name]
        row.runs += 1
        row.exits["-9"] += 1
        recorded = any(path.read_bytes() for path in job.rglob(".*.batchmax/journal*"))
        again = run(scenario.resumes)
        if "over" in name and not recorded and again["code"] == 1:
            # The killed run hadn't recorded yet that it may replace the existing output.
            assert "another job, and complete" in again["err"] or "not an output of batchmax" in again["err"]
            row.found["refused before the journal's first line"] += 1
            assert run(scenario.killed)["code"] in {0, 4}
            again = run(scenario.resumes)
        assert again["code"] == whole["code"], (at, again["err"])
        assert contents(job) == want, at
        row.resumed += 1
