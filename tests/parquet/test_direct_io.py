"""Which bytes of a file are written with direct I/O, and when they are synced."""

from __future__ import annotations

import contextlib
import errno
import os

import numpy as np
import pytest

from batchmax.parquet.writing import direct_io
from batchmax.parquet.writing.direct_io import BLOCK_BYTES, DirectWriter
from batchmax.storage import system_calls


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize(("blocks", "direct_blocks"), [(0.5, 0), (2, 0), (3.5, 1), (5, 3)])
def test_only_large_durable_files_are_written_directly(tmp_path, monkeypatch, durable, blocks, direct_blocks):
    """Durable files are written with direct I/O from ``DIRECT_BYTES`` on; the bytes are the same."""
    switches, syncs = [], []
    monkeypatch.setattr(direct_io, "DIRECT_BYTES", 2 * BLOCK_BYTES)
    monkeypatch.setattr(direct_io, "SYNC_BYTES", 4 * BLOCK_BYTES)

    def set_direct(descriptor, *, direct, real=system_calls.set_direct):
        switches.append((direct, os.lseek(descriptor, 0, os.SEEK_CUR) // BLOCK_BYTES))
        return real(descriptor, direct=direct)

    monkeypatch.setattr(system_calls, "set_direct", set_direct)
    monkeypatch.setattr(system_calls, "sync_data", syncs.append)
    data = np.random.default_rng(0).bytes(int(blocks * BLOCK_BYTES))
    descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    writer = DirectWriter(descriptor, durable=durable)
    writer.write([data])
    writer.write_rest()
    writer.close()
    os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == data
    assert len(syncs) == (durable and blocks >= 4)
    if not durable or not direct_blocks:
        assert switches == []
    else:
        assert switches[0] == (True, 2)
        assert switches[1:] in ([(False, 2 + direct_blocks)], [])


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_nothing_is_written_after_a_failed_write(tmp_path, monkeypatch, failing):
    """After a failed write, later calls fail too: their bytes would be in the wrong place."""
    calls = []

    def write(descriptor, data, real=os.write):
        calls.append(len(data))
        if len(calls) == failing:
            raise OSError(errno.EIO, "broken")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    data = np.random.default_rng(0).bytes(3 * BLOCK_BYTES)
    descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    writer = DirectWriter(descriptor)
    with contextlib.suppress(OSError):  # writes happen in another thread, maybe after this call
        writer.write([data])
    with pytest.raises(OSError, match="broken"):
        writer.flush()
    with pytest.raises(OSError, match="broken"):
        writer.write_rest()
    writer.close()
    os.close(descriptor)
    content = (tmp_path / "file").read_bytes()
    assert data.startswith(content)
    assert len(calls) == failing
