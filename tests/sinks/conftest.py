"""Files with columns of every type."""

from __future__ import annotations

import functools

import pytest

import batchmax
from tests.support.column_types import INPUTS, OUTPUTS, write_input


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a function that gives the path of an input, or of an output scored from it; each is made once."""
    folder = tmp_path_factory.mktemp("types")

    @functools.cache
    def made(how, what=None):
        path = folder / f"{how} {what}.parquet"
        if what is None:
            write_input(path, **INPUTS[how])
        else:
            batchmax.score(made(how), path, **OUTPUTS[what])
        return path

    return made
