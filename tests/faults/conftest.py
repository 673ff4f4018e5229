"""How much is injected, and the table of what came of it: ``--fault-table`` injects it all and writes README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness import Job, Table

HEAD = """\
# Faults

What was injected into the real command, how often, and what came of it; written by

    ./scripts/test tests/faults --fault-table

`none`, `old` and `new` are what lay at the output path afterwards: nothing, the older output as it was, or the whole
new one. Then the same command was run again with `--if-exists resume`, and its output compared, byte by byte, with that
of a run to which nothing happened. Exit codes below 0 are signals.

"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--fault-table", action="store_true", help="inject every fault, and write tests/faults/README.md")


@pytest.fixture(scope="session")
def everything(request: pytest.FixtureRequest) -> bool:
    """Whether every fault is to be injected, rather than some of each kind."""
    return bool(request.config.getoption("--fault-table"))


@pytest.fixture(scope="session")
def table(everything: bool):
    """Return where outcomes are counted; written when all was injected."""
    outcomes = Table()
    yield outcomes
    if everything:
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
