"""Fixtures for fault injection: the jobs, and the table of outcomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import forge
from tests.faults.harness import Job, Table
from tests.faults.watched import Watched
from tests.support.processes import HANGS

HEAD = """\
# Faults

What was injected into the real command, how often, and what came of it; written by

    ./scripts/test tests/faults --group faults --fault-table

`none`, `old` and `new` are what lay at the output path afterwards: nothing, the older output as it was, or the whole
new one. Then the same command was run again with `--if-exists resume`, and its output compared, byte by byte, with that
of a run to which nothing happened. Exit codes below 0 are signals.

"""


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest):
    """Return the table that counts outcomes; it is written with ``--fault-table``."""
    outcomes = Table()
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
    watched = Watched("commands.py")
    path = tmp_path_factory.mktemp("warm") / "x.parquet"
    path.write_bytes(forge.file_of(forge.table(), row_group_size=24, compression="none", use_dictionary=False))
    for words in (["inspect", str(path)], ["score", str(path), "-o", str(path.with_name("o.parquet")), "--quiet"]):
        assert watched.ask({"words": words}, seconds=HANGS)["code"] == 0
    yield watched
    watched.stop()
