"""Fixtures for fault injection: the jobs, and the table of outcomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults.kill_commands import SCORE
from tests.faults.outcomes import OutcomeTable
from tests.faults.score_job import Job
from tests.faults.supervised_process import SupervisedProcess
from tests.support import crafted
from tests.support.processes import HANGS

HEAD = """\
# Fault injection

Faults that were injected into the command, the number of runs, and their outcomes. Written by

    ./scripts/test tests/faults --group faults --fault-table

`none`, `old` and `new` are the content of the output path after the fault: nothing, the unchanged previous output, or
the complete new output. Then the same command ran with `--if-exists resume`, and its output was compared, byte by byte,
with the output of a run without faults. Negative exit codes are signals.

"""


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest):
    """Return the table that counts outcomes; it is written with ``--fault-table``."""
    outcomes = OutcomeTable()
    yield outcomes
    if request.config.getoption("--fault-table"):
        path = Path(__file__).with_name("README.md")
        earlier = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(HEAD + outcomes.text(earlier), encoding="utf-8")


@pytest.fixture(scope="session")
def jobs(tmp_path_factory):
    """Return a function that returns a job, ready to run."""
    made: dict[tuple[str, bool], Job] = {}

    def job(out: str, *, replacing: bool) -> Job:
        if (out, replacing) not in made:
            folder = tmp_path_factory.mktemp("faults") / "job"
            made[out, replacing] = Job(folder, out, replacing=replacing)
        made[out, replacing].restart()
        return made[out, replacing]

    return job


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """Return a process that runs commands, with everything compiled and imported."""
    process = SupervisedProcess("command_worker.py")
    path = tmp_path_factory.mktemp("warm") / "x.parquet"
    path.write_bytes(crafted.file_of(crafted.table(), row_group_size=24, compression="none", use_dictionary=False))
    for words in (["inspect", str(path)], ["score", str(path), "-o", str(path.with_name("o.parquet")), "--quiet"]):
        assert process.ask({"words": words}, seconds=HANGS)["code"] == 0
    yield process
    process.stop()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Write three files, each with a bad row, and return their folder."""
    folder = tmp_path_factory.mktemp("kills") / "in"
    folder.mkdir()
    random = np.random.default_rng(1)
    for number in range(3):
        logits = random.normal(size=(40, 5)).astype(np.float32)
        logits[7, 2] = np.nan
        table = pa.table({"id": np.arange(40), "logits": list(logits), "label": random.integers(0, 5, 40)})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=20)
    return folder


@pytest.fixture(scope="module")
def forks(inputs):
    """Return a process that runs commands and kills them."""
    process = SupervisedProcess("kill_worker.py")
    out = inputs.with_name("warm.parquet")
    assert process.ask({"warm": [*SCORE[:1], str(inputs), *SCORE[2:], "-o", str(out)]}, seconds=HANGS)["code"] == 0
    yield process
    process.stop()
