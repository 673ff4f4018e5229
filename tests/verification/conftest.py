"""Files of logits and of their scores."""

from __future__ import annotations

import pytest

import batchmax
from tests.support.scored_outputs import ALL_OUTPUTS, write_rows


@pytest.fixture
def logits(tmp_path):
    return write_rows(tmp_path / "logits.parquet")


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "scored.parquet")


@pytest.fixture(scope="module")
def all_outputs(tmp_path_factory):
    """Score some rows with every output; return the paths of input and output."""
    folder = tmp_path_factory.mktemp("everything")
    logits, out = write_rows(folder / "logits.parquet"), str(folder / "scored.parquet")
    batchmax.score(logits, out, outputs=ALL_OUTPUTS, top_k=3)
    return logits, out


@pytest.fixture
def folder(tmp_path):
    """Score three files into a folder of three parts."""
    sources = [write_rows(tmp_path / f"in-{number}.parquet", 20 + number) for number in range(3)]
    out = tmp_path / "scored"
    batchmax.score(sources, str(out), outputs="probs,loss,status,correct")
    return out, sources, out / "_batchmax.parquet"
