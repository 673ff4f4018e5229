"""Arrays grow in memory, and in a file without a name once they take more than their share."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest

from batchmax.errors import OutputError
from batchmax.runtime.spilled_array import SharedMemory, SpilledArray


@pytest.mark.parametrize("limit", [0, 3_000_000, 1 << 40])
def test_values_survive_growth_and_spilling(limit, tmp_path, monkeypatch):
    """Two arrays that share memory have all their elements, and leave no file and no memory behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    memory = SharedMemory(limit)
    arrays, wanted = [SpilledArray(kind, memory) for kind in (np.uint32, np.float64)], []
    for number in range(30):
        some = np.arange(number, number + 100_000)
        wanted.append(some)
        for one in arrays:
            one.append(some.astype(one.values().dtype))
    for one in arrays:
        assert np.array_equal(one.values(), np.concatenate(wanted))
        assert one.is_spilled == (limit < 1 << 30)
    assert memory.left >= 0
    assert not list(tmp_path.iterdir())
    for one in arrays:
        one.close()
        assert len(one) == 0
    assert memory.left == limit


def test_a_missing_folder_is_an_error(monkeypatch):
    """If there is no place for the file, the error names the folder."""
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent/folder")
    one = SpilledArray(np.float64, SharedMemory(0))
    with pytest.raises(OutputError, match=r"/nonexistent/folder.*TMPDIR"):
        one.append(np.zeros(9))
