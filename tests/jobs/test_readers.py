"""Tests that jobs with several reading threads give the same bytes, errors and statistics as with one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import BadRowError, DataError, GateError
from batchmax.options.score_options import score_options
from batchmax.runtime.progress import Progress
from batchmax.sinks.commit.journal import Journal
from batchmax.sources import chunks
from batchmax.sources.parquet_source import ParquetSource, open_source
from batchmax.sources.part_reader import PartReader
from batchmax.sources.parts import plan_parts
from batchmax.sources.passthrough import ReadPlan
from tests.support.processes import HANGS
from tests.support.rows import lists

SEVERAL = [2, 3, 5]
LIMIT = 2**30


def use_readers(monkeypatch, readers):
    """Have jobs read with this number of threads."""
    monkeypatch.setattr(ParquetSource, "readers", readers)


class Details(Progress):
    """Keeps the details of a job."""

    def __init__(self):
        self.texts = []

    def detail(self, text):
        self.texts.append(text)


def table(n_rows, seed=0, layout="list", n_classes=6):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n_rows, n_classes)).astype(np.float32)
    columns = {"id": pa.array(np.arange(n_rows) + 1000 * seed)}
    if layout == "wide":
        columns |= {f"logit_{k}": logits[:, k] for k in range(n_classes)}
    elif layout == "sequences":
        ends = np.unique([0, n_rows, *generator.integers(0, n_rows, n_rows // 4)])
        offsets = pa.array(ends, pa.int32())
        rows = len(ends) - 1
        columns = {
            "id": pa.array(np.arange(rows)),
            "logits": pa.ListArray.from_arrays(offsets, lists(logits)),
            "label": pa.ListArray.from_arrays(offsets, pa.array(np.arange(n_rows) % n_classes)),
        }
        return pa.table(columns)
    else:
        columns["logits"] = lists(logits)
    columns["label"] = pa.array(np.arange(n_rows) % n_classes)
    columns["text"] = pa.array([f"text {'x' * (row % 50)} {row}" for row in range(n_rows)])
    return pa.table(columns)


@pytest.fixture(params=["list", "wide", "sequences", "ragged"])
def source(request, tmp_path, monkeypatch):
    """Write three files with row groups of different sizes; rows have chunks of 16 rows."""
    monkeypatch.setattr(chunks, "MAX_CHUNK_BYTES", 16 * 6 * 4)
    folder = tmp_path / "in"
    folder.mkdir()
    for number, group in enumerate([7, 40, 90]):
        one = table(200, number, request.param)
        if request.param == "ragged":  # read as a matrix at first, then by pyarrow
            logits = one["logits"].to_pylist()
            logits[150] = None
            one = one.set_column(1, "logits", pa.array(logits, pa.list_(pa.float32())))
        pq.write_table(one, folder / f"{number}.parquet", row_group_size=group, data_page_size=256)
    return folder


OPTIONS = {
    "plain": {},
    "row groups": {"row_group_size": 33},
    "limit": {"limit": 333},
    "limit in the first row group": {"limit": 3},
    "dropped": {"on_bad_row": "drop", "rejects": True, "outputs": "probs,loss,status"},
}


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_number_of_readers_gives_the_same_output(source, options, folder, tmp_path, monkeypatch):
    """Output, rejected rows, summary and read statistics are the same with 1, 2, 3 and 5 readers."""
    found = []
    for readers in [1, *SEVERAL]:
        use_readers(monkeypatch, readers)
        out = tmp_path / f"{readers}" / ("parts" if folder else "out.parquet")
        out.parent.mkdir()
        details = Details()
        given = {"on_bad_row": "null", **options}
        if given.get("rejects"):
            given["rejects"] = str(out.parent / ("rejects" if folder else "rejects.parquet"))
        summary = batchmax.score(source, out, progress=details, **given).as_dict()
        # The manifest of a folder records the duration of the job.
        paths = sorted(one for one in out.parent.rglob("*") if one.is_file() and one.name != "_batchmax.parquet")
        files = {path.relative_to(out.parent).as_posix(): path.read_bytes() for path in paths}
        summary = {name: value for name, value in summary.items() if name not in {"seconds", "output"}}
        found.append((files, str(summary).replace(str(out.parent), ""), details.texts))
    assert found[0][0]
    assert found[1:] == found[:1] * len(SEVERAL)
    assert_all_ended()


def test_results_of_one_pass_commands_are_the_same(source, monkeypatch):
    """``evaluate`` has the same result with any number of readers."""
    found = []
    for readers in [1, *SEVERAL]:
        use_readers(monkeypatch, readers)
        found.append(batchmax.evaluate(str(source), on_bad_row="null").as_dict() | {"seconds": None})
    assert found[1:] == found[:1] * len(SEVERAL)


class KilledError(BaseException):
    """Simulates the kill of a process."""


@pytest.mark.parametrize("readers", SEVERAL)
@pytest.mark.parametrize("n_lines", [1, 2, 5])
def test_a_killed_run_is_resumed(source, n_lines, readers, tmp_path, monkeypatch):
    """A run that is killed and resumed has the bytes of an uninterrupted run; row groups that are done aren't read."""
    use_readers(monkeypatch, 1)
    batchmax.score(source, tmp_path / "whole.parquet", on_bad_row="null")
    use_readers(monkeypatch, readers)
    lines = []

    def write(self, entry, real=Journal._write):
        if len(lines) == n_lines:
            raise KilledError
        lines.append(entry)
        real(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_write", write)
        patch.setattr("batchmax.sinks.commit.commit.Commit.is_resumable_after", lambda *_: True)
        with pytest.raises(KilledError):
            batchmax.score(source, tmp_path / "out.parquet", on_bad_row="null")
    assert_all_ended()
    batchmax.score(source, tmp_path / "out.parquet", on_bad_row="null", if_exists="resume")
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def assert_all_ended(folder=None):
    """Check that no reading thread is left, and that no file of the folder is open."""
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("read")]
    if folder is not None and sys.platform == "linux":
        links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - as text
        assert [link for link in links if os.path.realpath(link).startswith(str(folder))] == []


@pytest.fixture
def files(tmp_path):
    """Write two files of 20 row groups each."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        pq.write_table(table(200, number), folder / f"{number}.parquet", row_group_size=10, use_dictionary=False)
    return folder


def damage(path, group, column="logits.list.element"):
    """Overwrite the page headers of a column chunk."""
    row_group = pq.read_metadata(path).row_group(group)
    chunk = next(one for one in map(row_group.column, range(row_group.num_columns)) if one.path_in_schema == column)
    with path.open("r+b") as stream:
        stream.seek(chunk.data_page_offset)
        stream.write(b"\xff" * 16)


@pytest.mark.parametrize("readers", SEVERAL)
def test_the_error_of_the_earliest_row_is_raised(files, readers, tmp_path, monkeypatch):
    """With several damaged row groups and bad rows, the error is that of one reader; files are closed, threads end."""
    path = files / "1.parquet"
    bad = table(200, 0)
    labels = bad["label"].to_pylist()
    errors = []
    for damaged, bad_row in [((3, 4, 5, 6, 7), None), ((7, 6), 12), ((2,), 199), ((1, 19), 5)]:
        changed = [99 if row == bad_row else label for row, label in enumerate(labels)]
        pq.write_table(bad.set_column(2, "label", [changed]), path, row_group_size=10, use_dictionary=False)
        for group in damaged:
            damage(path, group)
        for count in [1, readers]:
            use_readers(monkeypatch, count)
            with pytest.raises((DataError, BadRowError)) as caught:
                batchmax.score(files, tmp_path / "out.parquet", on_bad_row="error")
            errors.append((type(caught.value), str(caught.value)))
            if count > 1:
                assert_all_ended(files)
        assert errors[-1] == errors[-2]
    assert len(set(errors)) == 4


@pytest.mark.parametrize("readers", [1, *SEVERAL])
def test_damage_after_the_limit_is_not_read(files, readers, tmp_path, monkeypatch):
    """With ``limit``, row groups after the last row aren't read."""
    read = []
    use_readers(monkeypatch, readers)
    groups_of = PartReader._groups_of
    monkeypatch.setattr(PartReader, "_groups_of", lambda *a: [read.append(g.number) or g for g in groups_of(*a)])
    for group in range(3, 20):
        damage(files / "0.parquet", group)
    for path in [tmp_path / "out.parquet", tmp_path / "parts"]:
        assert batchmax.score(files, path, limit=25).n_rows == 25
    assert batchmax.evaluate(str(files), limit=25).as_dict()["n_rows"] == 25
    assert read == [0, 1, 2] * 3
    assert_all_ended(files)


@pytest.mark.parametrize("readers", SEVERAL)
def test_an_early_stop_ends_the_readers(files, readers, tmp_path, monkeypatch):
    """After a gate stops a job, and after a consumer closes the chunks, threads have ended and files are closed."""
    use_readers(monkeypatch, readers)
    labels = pa.array([99] * 200)
    bad = table(200, 0)
    pq.write_table(bad.set_column(2, "label", labels), files / "0.parquet", row_group_size=10)
    with pytest.raises(GateError) as caught:
        batchmax.score(files, tmp_path / "out.parquet", on_bad_row="null", fail_if="bad_rows>3")
    assert_all_ended(files)  # although the traceback refers to the frames of the job
    del caught


@pytest.mark.parametrize("limit", [25, 1000])
def test_the_end_of_a_limit_ends_the_readers(files, limit):
    """After the rows of a limit, threads have ended, although the source's generator is still referred to."""
    source = open_source([str(files)], score_options())
    plan = ReadPlan(source.job.columns_read, readers=3)
    chunks_read = source.chunks(plan_parts(source.group_rows(), source.row_bytes), plan)
    assert sum(chunk.n_rows for chunk in chunks.limited(chunks_read, limit)) == min(limit, 400)
    assert_all_ended(files)
    del chunks_read


@pytest.mark.parametrize("number", [0, 3, 39])
@pytest.mark.parametrize("readers", SEVERAL)
def test_an_interrupt_ends_the_readers(files, readers, number, tmp_path, monkeypatch):
    """Ctrl-C while a row group is computed ends the threads and closes the files."""
    use_readers(monkeypatch, readers)

    class Interrupting(Progress):
        left = number

        def advance(self, rows, n_bytes):
            del rows, n_bytes
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1

    with pytest.raises(KeyboardInterrupt) as caught:
        batchmax.score(files, tmp_path / "out.parquet", progress=Interrupting())
    assert_all_ended(files)
    del caught


def readers_of(path, **given):
    return open_source([str(path)], score_options(**given)).readers


def test_readers_depend_on_threads_files_and_memory(files, tmp_path):
    """Up to four cores have one reader, eight and more have four, at most one for each row group."""
    found = [readers_of(files, threads=threads) for threads in (1, 2, 4, 5, 6, 8, 64)]
    assert found == [1, 1, 1, 2, 3, 4, 4]
    pq.write_table(table(20), tmp_path / "one.parquet")
    assert readers_of(tmp_path / "one.parquet", threads=8) == 1
    pq.write_table(table(400, layout="sequences"), tmp_path / "sequences.parquet", row_group_size=10)
    assert readers_of(tmp_path / "sequences.parquet", threads=8) == 1
    assert open_source(pa.table({"logits": lists(np.ones((3, 2), np.float32))}), score_options(threads=8)).readers == 1


def test_less_memory_means_fewer_readers_and_no_error(tmp_path):
    """The memory limit reduces the number of readers, to one at the limit that a job with one reader needs."""
    path = tmp_path / "in.parquet"
    logits = np.random.default_rng(0).normal(size=(8 * 4000, 1000)).astype(np.float32)
    pq.write_table(pa.table({"logits": lists(logits)}), path, row_group_size=4000, compression="none")
    del logits
    plan = batchmax.score_options(threads=8)
    needed = open_source([str(path)], plan).memory_needed() + (250 << 20)
    found = []
    for more in (0, 100, 200, 300, 4000):
        options = {"threads": 8, "memory_limit": needed + (more << 20)}
        found.append(readers_of(path, **options))
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, 4)
    assert len(set(found)) >= 3
    batchmax.score(path, tmp_path / "out.parquet", threads=8, memory_limit=needed)


def test_a_row_group_that_exceeds_its_share_is_read_by_one_reader(tmp_path, monkeypatch):
    """Long text that appears after the first rows ends concurrent reading instead of taking more memory or failing."""
    path = tmp_path / "in.parquet"
    one = table(400)
    text = pa.array(["short"] * 200 + ["long " * 400_000] * 10 + ["short"] * 190)
    one = one.set_column(one.schema.get_field_index("text"), "text", text)
    pq.write_table(one, path, row_group_size=20)
    plans = []
    runs = PartReader._runs

    def recorded(self, groups, plan, reader):
        groups = list(groups)
        plans.append((plan.readers, groups[0].number if groups else None))
        return runs(self, groups, plan, reader)

    monkeypatch.setattr(PartReader, "_runs", recorded)
    monkeypatch.setattr(chunks, "MAX_CHUNK_BYTES", 16 * 6 * 4)
    found = []
    for readers in (1, 4):
        use_readers(monkeypatch, readers)
        plans.clear()
        out = tmp_path / f"{readers}.parquet"
        # With this option, the text is decoded.
        batchmax.score(path, out, row_group_size=30, memory_limit=320 << 20)
        found.append((out.read_bytes(), list(plans)))
    assert found[0][0] == found[1][0]
    assert_all_ended(tmp_path)
    assert found[0][1] == [(1, 0)]
    # Text in row group 10 is long, so one reader reads this row group and all later ones.
    assert sorted(found[1][1]) == [(1, 10), (4, 0), (4, 1), (4, 2), (4, 3)]


STREAM = """
import sys, threading
import batchmax

try:
    batchmax.score(sys.argv[1], "-", threads=8, on_bad_row=sys.argv[2])
except BaseException as error:
    kept = error  # with its frames, and what these hold
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
    print(type(error).__name__, threads, file=sys.stderr)
    raise
"""


@pytest.mark.parametrize(("policy", "error"), [("error", "BadRowError"), ("null", "BrokenPipeError")])
def test_a_stream_that_ends_early(tmp_path, policy, error):
    """After a bad row, or if the reader of stdout goes away, the reading threads end, and so does the process."""
    path = tmp_path / "in.parquet"
    logits = np.random.default_rng(0).normal(size=(40_000, 6)).astype(np.float32)
    logits[30_000, 2] = np.nan
    pq.write_table(pa.table({"logits": lists(logits)}), path, row_group_size=1000)
    command = [sys.executable, "-c", STREAM, str(path), policy]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1000)
        if policy == "null":
            process.stdout.close()
        else:
            process.stdout.read()
        said = process.stderr.read()
        code = process.wait(timeout=HANGS)
    assert code == 1, said
    assert f"{error} []" in said.decode(), said


def test_a_generator_that_is_never_closed(tmp_path):
    """A program that keeps a generator of chunks after an uncaught error ends all the same."""
    path = tmp_path / "in.parquet"
    pq.write_table(table(4000), path, row_group_size=100)
    program = """
import sys
from batchmax.sources.parquet_source import open_source
from batchmax.options.score_options import score_options
from batchmax.evaluation.row_stream import row_batches

kept = row_batches(open_source(sys.argv[1], score_options(threads=8)))
next(kept)
raise ValueError("not caught")
"""
    ended = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, timeout=HANGS, check=False)
    assert ended.returncode == 1
    assert b"ValueError: not caught" in ended.stderr
