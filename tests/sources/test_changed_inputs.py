"""Inputs that change while they are read: the run fails even if the change is hidden, and nothing is published."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import DataError
from batchmax.jobs import pipeline
from batchmax.sources.parquet_file import open_file
from tests.support.rows import lists

CHANGED = r"x\.parquet: the file was changed while it was being read; wait until the program"


def table(seed):
    logits = np.random.default_rng(seed).normal(size=(400, 3)).astype(np.float32)
    return pa.table({"id": np.arange(400) + 1000 * seed, "logits": lists(logits), "label": np.arange(400) % 3})


def write(path, seed):
    """Write a file whose size and footer don't depend on the seed."""
    options = {"row_group_size": 20, "compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table(seed), path, **options)


@pytest.fixture
def change(tmp_path):
    """Return a function that overwrites a file in place with other rows and restores its modification time."""
    write(tmp_path / "x.parquet", 0)
    write(tmp_path / "other", 1)
    new = (tmp_path / "other").read_bytes()
    (tmp_path / "other").unlink()
    path = tmp_path / "x.parquet"
    assert len(new) == path.stat().st_size

    def change():
        before = path.stat()
        with path.open("r+b") as stream:
            stream.write(new)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = path.stat()
        assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)

    return change


class Listener(pipeline.Progress):
    """A progress callback that calls a function once, after the first rows."""

    def __init__(self, call):
        self._call = call

    def advance(self, rows, n_bytes):
        del n_bytes
        if rows and self._call is not None:
            self._call()
            self._call = None


@pytest.mark.parametrize("out", ["out.parquet", "out"])
@pytest.mark.parametrize("options", [{}, {"limit": 300}, {"row_group_size": 70}, {"on_bad_row": "drop"}])
def test_a_change_in_place_with_the_old_modification_time_is_noticed(out, options, change, tmp_path):
    """A change in place is detected by the change time even if the modification time is restored.

    No output is left, so no output mixes old and new rows.
    """
    with pytest.raises(DataError, match=CHANGED):
        batchmax.score(tmp_path / "x.parquet", tmp_path / out, progress=Listener(change), **options)
    assert not (tmp_path / out).exists()


@pytest.mark.parametrize("command", [batchmax.evaluate, batchmax.calibrate, batchmax.report])
def test_every_command_notices(command, change, tmp_path):
    """Commands that only aggregate rows detect the change too."""
    given = (tmp_path / "r.html",) if command is batchmax.report else ()
    with pytest.raises(DataError, match=CHANGED):
        command(tmp_path / "x.parquet", *given, progress=Listener(change))


def test_a_reader_never_yields_rows_of_two_versions(change, tmp_path):
    """A reader doesn't return rows that were read after the change."""
    reader = batchmax.scan(tmp_path / "x.parquet")
    rows = reader.read_next_batch()["id"].to_pylist()
    change()
    with pytest.raises(DataError, match=CHANGED):
        rows.extend(row for batch in reader for row in batch["id"].to_pylist())
    assert 0 < len(rows) < 400
    assert rows == list(range(len(rows)))


def test_a_file_that_is_replaced_is_noticed(tmp_path):
    """A new file with the bytes and modification time of the old one is detected as a change."""
    path = tmp_path / "x.parquet"
    write(path, 0)
    file, before = open_file(str(path)), path.stat()
    path.rename(tmp_path / "old")
    write(path, 0)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match=CHANGED), file.opened():
        pass


def test_an_error_that_a_change_caused_names_the_change(tmp_path):
    """An error caused by the change is reported as a changed file, not as a damaged one."""
    path = tmp_path / "x.parquet"
    write(path, 0)
    file = open_file(str(path))

    def read():
        with file.opened():
            os.truncate(path, 100)
            raise DataError("cannot be read", where=str(path))

    with pytest.raises(DataError, match=CHANGED):
        read()


def test_the_change_time_is_no_part_of_a_jobs_identity(tmp_path):
    """For ``resume``, a copy of a file, or a file with another mode, is the same input."""
    path, out = tmp_path / "x.parquet", tmp_path / "out.parquet"
    write(path, 0)
    batchmax.score(path, out)
    before = path.stat()
    path.chmod(0o600)
    path.rename(tmp_path / "y")
    (tmp_path / "x.parquet").write_bytes((tmp_path / "y").read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    written = out.stat().st_mtime_ns
    assert batchmax.score(path, out, if_exists="resume").n_rows == 400
    assert out.stat().st_mtime_ns == written
