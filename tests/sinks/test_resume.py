"""Tests resuming: after a run is killed, the next one gives the same bytes and summary as an uninterrupted run."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import BadRowError, DataError, GateError, OutputError, UsageError
from batchmax.jobs import pipeline as loop
from batchmax.jobs import score
from batchmax.options.score_options import score_options
from batchmax.sinks.commit import journal as journals
from batchmax.sinks.commit.journal import Journal, read_journal

N_FILES, N_ROWS, N_GROUPS = 3, 600, 5


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Write three files of five row groups, with some flagged rows, and change to their parent folder."""
    generator = np.random.default_rng(3)
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(N_FILES):
        logits = generator.normal(size=(N_ROWS, 20)).astype(np.float32)
        logits[generator.integers(0, N_ROWS, 9), 3] = np.nan
        logits[17, 4:] = -np.inf
        table = pa.table(
            {
                "id": pa.array(np.arange(N_ROWS)),
                "logits": pa.array(list(logits), pa.list_(pa.float32())),
                "label": pa.array(np.minimum(generator.integers(0, 22, N_ROWS), 19)),
                "text": pa.array([f"text {row % 7}" for row in range(N_ROWS)]),
            }
        )
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=N_ROWS // N_GROUPS)
    monkeypatch.chdir(tmp_path)
    return "in"


class Killed(BaseException):
    """Simulates the kill of a process."""


def nothing_is_cleaned_up(patch):
    """Disable cleanup, as if the process were killed."""
    patch.setattr("batchmax.sinks.commit.commit.Commit.is_resumable_after", lambda *_: True)
    patch.setattr("batchmax.sinks.commit.atomic_rename.Rename.undo", lambda *_: None)


def contents(folder):
    """Return the contents of every file below a folder except inputs, by relative path, including hidden ones."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and "in" not in path.relative_to(folder).parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def lasting(summary):
    """Return a summary without its duration."""
    return {name: value for name, value in summary.as_dict().items() if name != "seconds"}


@pytest.fixture
def killed_after(monkeypatch):
    """Return a function that runs a job and simulates a kill when its journal has the given number of lines.

    It returns whether the job was killed.
    """

    def run(n_lines, *arguments, **options):
        lines = 0

        def write(self, entry, real=Journal._write):
            nonlocal lines
            if lines >= n_lines:
                raise Killed
            lines += 1
            real(self, entry)

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "_write", write)
            nothing_is_cleaned_up(patch)
            try:
                batchmax.score(*arguments, **options)
            except Killed:
                return True
        return False

    return run


OPTIONS = [
    {},
    {"on_bad_row": "drop", "rejects": True},
    {"on_bad_row": "drop", "row_group_size": 77, "layout": "wide"},
    {"limit": 1300, "compression": "zstd"},
    {"outputs": "loss,status", "columns": "*"},
]


@pytest.mark.sweep(keep=lambda options, out: OPTIONS.index(options) % 2 == (out == "out"))
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_after_every_line_of_the_journal(inputs, tmp_path, killed_after, out, options):
    """Wherever a run is killed, the next one gives the bytes and the summary of an uninterrupted run."""
    options = {"on_bad_row": "null"} | options
    if options.get("rejects"):
        options["rejects"] = f"rejects{out[3:]}"
    goes_on_anywhere(tmp_path, killed_after, inputs, out, options)


SEQUENCE_OPTIONS = [
    {"outputs": "probs,loss,status", "top_k": 3},
    {"on_bad_row": "drop", "rejects": True, "shift": True},
    {"row_group_size": 7, "limit": 50},
]


@pytest.mark.sweep(keep=lambda options, out: SEQUENCE_OPTIONS.index(options) % 2 == (out == "out"))
@pytest.mark.parametrize("options", SEQUENCE_OPTIONS, ids=str)
@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_sequences_after_every_line_of_the_journal(tmp_path, monkeypatch, killed_after, out, options):
    """The same holds for sequences.

    Their matrices are in the file before their row group is complete.
    """
    generator = np.random.default_rng(4)
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(N_FILES):
        lengths = generator.integers(0, 9, 30)
        rows = [generator.normal(size=(length, 20)).astype(np.float32) for length in lengths]
        rows[11][:1, 3] = np.nan
        nested = pa.array([list(map(list, row)) for row in rows], pa.list_(pa.list_(pa.float32())))
        labels = pa.array([generator.integers(0, 20, length) for length in lengths], pa.list_(pa.int64()))
        table = pa.table({"id": range(30), "logits": nested, "labels": labels})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=6)
    monkeypatch.chdir(tmp_path)
    # Chunks of a few tokens, so that chunks end inside rows.
    monkeypatch.setattr("batchmax.sources.sequence_source.MAX_CHUNK_BYTES", 700)
    options = {"on_bad_row": "null"} | options
    if options.get("rejects"):
        options["rejects"] = f"rejects{out[3:]}"
    goes_on_anywhere(tmp_path, killed_after, "in", out, options)


def goes_on_anywhere(folder, killed_after, inputs, out, options):
    """Check that a run that is killed after any line of its journal and resumed equals an uninterrupted run."""
    whole = lasting(batchmax.score(inputs, out, **options))
    want = contents(folder)
    clear(folder)
    went_on = n_lines = 0
    while killed_after(n_lines, inputs, out, **options):
        said = Said()
        summary = score.score(inputs, out, **options, if_exists="resume", progress=said)
        assert contents(folder) == want, n_lines
        assert lasting(summary) == whole, n_lines
        went_on += said.skipped > 0
        clear(folder)
        n_lines += 1
    assert went_on >= 2
    assert n_lines >= 4


class Said(loop.Progress):
    """Records the number of rows that were skipped."""

    skipped = 0

    def skip(self, rows):
        self.skipped += rows


def clear(folder):
    for path in folder.iterdir():
        if path.name != "in":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_a_torn_journal(inputs, tmp_path, killed_after, out):
    """If a journal is truncated or has a flipped bit, its valid lines are used, and the output has the same bytes."""
    batchmax.score(inputs, out, on_bad_row="null")
    want = contents(tmp_path)
    clear(tmp_path)
    assert killed_after(9 if out.endswith(".parquet") else 3, inputs, out, on_bad_row="null")
    kept = tmp_path / "kept"
    left = tmp_path / f".{out}.batchmax"
    shutil.copytree(left, kept)
    data = (kept / "journal").read_bytes()
    cuts = [data[:cut] for cut in range(0, len(data), len(data) // 12)]
    flips = [data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :] for at in range(5, len(data), len(data) // 12)]
    for damaged in [*cuts, *flips]:
        clear(tmp_path) if not kept.exists() else None
        shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(kept, left)
        (left / "journal").write_bytes(damaged)
        batchmax.score(inputs, out, on_bad_row="null", if_exists="resume")
        got = {name: data for name, data in contents(tmp_path).items() if not name.startswith("kept")}
        assert got == want
        path = tmp_path / out
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_an_unfinished_run_of_this_job_is_discarded_only_on_request(inputs, tmp_path, killed_after):
    """An unfinished run of the same job is an error by default; ``overwrite`` discards it with a warning."""
    assert killed_after(9, inputs, "out.parquet", on_bad_row="null")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=r"an unfinished run of this job, with [\d,]+ completed rows; resume it"):
        batchmax.score(inputs, "out.parquet", on_bad_row="null")
    assert contents(tmp_path) == before
    with pytest.warns(RuntimeWarning, match="an unfinished run is discarded$"):
        batchmax.score(inputs, "out.parquet", on_bad_row="null", if_exists="overwrite")
    assert set(contents(tmp_path)) == {"out.parquet"}


@pytest.mark.parametrize("if_exists", ["error", "resume"])
@pytest.mark.parametrize("change", ["option", "input", "version"])
def test_an_unfinished_run_of_another_job_is_discarded(inputs, tmp_path, killed_after, monkeypatch, if_exists, change):
    """An unfinished run of another job is discarded with a warning.

    A job is another one if its options, the inputs or the kernels' source differ.
    """
    assert killed_after(9, inputs, "out.parquet", on_bad_row="null")
    options = {"on_bad_row": "null", "if_exists": if_exists}
    if change == "option":
        options["temperature"] = 2.0
    elif change == "input":
        os.utime(tmp_path / "in" / "1.parquet")
    else:
        monkeypatch.setattr("batchmax.sinks.metadata.source_fingerprint", lambda: "other kernels")
    with pytest.warns(RuntimeWarning, match="an unfinished run is discarded: it was of another job"):
        batchmax.score(inputs, "out.parquet", **options)
    assert set(contents(tmp_path)) == {"out.parquet"}


@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_a_complete_output_says_its_summary(inputs, tmp_path, out):
    """Resuming a complete job changes nothing, returns the same summary, and checks the gates again."""
    summary = batchmax.score(inputs, out, on_bad_row="null")
    before = contents(tmp_path)
    again = batchmax.score(inputs, out, on_bad_row="null", if_exists="resume")
    assert lasting(again) | {"bytes_written": 0} == lasting(summary) | {"bytes_written": 0}
    with pytest.raises(GateError, match=r"the output is already complete, and is left unchanged; .*bad_rows is 25"):
        batchmax.score(inputs, out, on_bad_row="null", if_exists="resume", fail_if="bad_rows > 3")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_a_complete_output_of_another_job_is_refused(inputs, tmp_path, out):
    """Resuming with the complete output of another job is an error that says what differs; nothing is replaced."""
    batchmax.score(inputs, out, on_bad_row="null")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=r"the output of another job, and complete: .*temperature is 2.0, was 1.0"):
        batchmax.score(inputs, out, on_bad_row="null", temperature=2.0, if_exists="resume")
    os.utime(tmp_path / "in" / "1.parquet", ns=(2**62, 2**62))
    with pytest.raises(OutputError, match=r"complete: an input has changed since; replace it"):
        batchmax.score(inputs, out, on_bad_row="null", if_exists="resume")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_a_held_output_is_released_by_another_condition(inputs, tmp_path, out):
    """Resuming checks a held output against the current gate.

    If the gate fails, the output stays held; otherwise it's published.
    """
    with pytest.raises(GateError):
        batchmax.score(inputs, out, on_bad_row="null", fail_if="mean_loss > 0")
    before = contents(tmp_path)
    with pytest.raises(GateError, match="mean_loss > 1' is true"):
        batchmax.score(inputs, out, on_bad_row="null", fail_if="mean_loss > 1", if_exists="resume")
    assert contents(tmp_path) == before
    summary = batchmax.score(inputs, out, on_bad_row="null", fail_if="bad_rows > 100", if_exists="resume")
    assert (summary.n_rows, summary.held) == (N_FILES * N_ROWS, None)
    assert contents(tmp_path) == {name.replace("out.held", "out").replace("parquet.held", "parquet"): data
                                  for name, data in before.items()}  # fmt: skip


def test_rejects_are_released_with_their_output(inputs, tmp_path):
    """Held rejects are published together with the held output."""
    options = {"on_bad_row": "drop", "rejects": "bad.parquet"}
    with pytest.raises(GateError):
        batchmax.score(inputs, "out.parquet", **options, fail_if="mean_loss > 0")
    assert set(contents(tmp_path)) == {"out.parquet.held", "bad.parquet.held"}
    batchmax.score(inputs, "out.parquet", **options, if_exists="resume")
    assert set(contents(tmp_path)) == {"out.parquet", "bad.parquet"}


def test_nothing_there_runs(inputs, tmp_path):
    """With nothing to resume, the job starts from the beginning."""
    assert batchmax.score(inputs, "out.parquet", on_bad_row="null", if_exists="resume").n_rows == N_FILES * N_ROWS
    assert set(contents(tmp_path)) == {"out.parquet"}


def test_an_error_of_the_data_leaves_nothing(inputs, tmp_path):
    """A data error leaves no staging directory, because the next run would fail at the same row."""
    with pytest.raises(BadRowError):
        batchmax.score(inputs, "out.parquet")
    assert contents(tmp_path) == {}
    assert list(tmp_path.glob(".*")) == []


def test_a_stream_cannot_be_gone_on_with(inputs):
    """Streams can't be resumed, because nothing tells whether a stream is the same."""
    with pytest.raises(UsageError, match="a run over a stream can't be resumed"):
        batchmax.score(pq.read_table(f"{inputs}/0.parquet"), "out.parquet", if_exists="resume", on_bad_row="null")


def test_what_lies_there_and_is_not_ours_is_refused(inputs, tmp_path):
    """A file that batchmax didn't write is neither resumed nor replaced."""
    (tmp_path / "out.parquet").write_text("years of work")
    with pytest.raises(OutputError, match="what is there is not an output of batchmax"):
        batchmax.score(inputs, "out.parquet", on_bad_row="null", if_exists="resume")
    assert (tmp_path / "out.parquet").read_text() == "years of work"


@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_after_a_crash_of_the_machine_what_was_synced_counts(inputs, tmp_path, killed_after, monkeypatch, out):
    """After a reboot, row groups that weren't synced are written again."""
    batchmax.score(inputs, out, on_bad_row="null")
    want = contents(tmp_path)
    clear(tmp_path)
    assert killed_after(9 if out.endswith(".parquet") else 3, inputs, out, on_bad_row="null")
    journal = tmp_path / f".{out}.batchmax" / "journal"
    there = read_journal(journal)[1]
    monkeypatch.setattr(journals, "_boot", lambda: "another")
    synced = read_journal(journal)[1]
    if out.endswith(".parquet"):
        assert 0 == synced.position < there.position
    else:
        assert synced.rows == there.rows == len(synced.parts) * N_ROWS
    batchmax.score(inputs, out, on_bad_row="null", if_exists="resume")
    assert contents(tmp_path) == want


@pytest.mark.parametrize("n_lines", [3, 6])
@pytest.mark.parametrize("out", ["out.parquet", "out"])
@pytest.mark.parametrize("values", [("none", "none"), ("none", "sync"), ("sync", "none")])
def test_durability_may_change_between_runs(inputs, tmp_path, killed_after, out, values, n_lines):
    """A killed run resumes with either value of ``durability``, and the output has the same bytes."""
    batchmax.score(inputs, out, on_bad_row="null")
    want = contents(tmp_path)
    clear(tmp_path)
    first, second = values
    assert killed_after(n_lines, inputs, out, on_bad_row="null", durability=first) or n_lines == 6
    batchmax.score(inputs, out, on_bad_row="null", durability=second, if_exists="resume")
    assert contents(tmp_path) == want


def test_parts_that_were_not_synced_are_made_again_after_a_crash_of_the_machine(
    inputs, tmp_path, killed_after, monkeypatch
):
    """After a reboot, parts of a run without syncs don't count, unless a run with syncs has resumed it since."""
    batchmax.score(inputs, "out", on_bad_row="null")
    want = contents(tmp_path)
    clear(tmp_path)
    journal = tmp_path / ".out.batchmax" / "journal"
    assert killed_after(3, inputs, "out", on_bad_row="null", durability="none")
    done = read_journal(journal)[1]
    assert (len(done.parts), done.unsynced_parts, done.is_durable) == (2, set(done.parts), False)
    with monkeypatch.context() as patch:
        patch.setattr(journals, "_boot", lambda: "another")
        assert read_journal(journal)[1].parts == {}
    synced = []
    monkeypatch.setattr("batchmax.storage.files.sync_path", lambda path: synced.append(path.name))
    assert killed_after(1, inputs, "out", on_bad_row="null", if_exists="resume")
    monkeypatch.setattr(journals, "_boot", lambda: "another")
    done = read_journal(journal)[1]
    assert (len(done.parts), done.is_durable) == (2, True)
    assert {part.name for part in done.parts.values()} | {"output"} <= set(synced)
    batchmax.score(inputs, "out", on_bad_row="null", if_exists="resume")
    assert contents(tmp_path) == want


def test_a_decision_that_was_not_synced_is_forgotten_after_a_crash_of_the_machine(tmp_path, monkeypatch):
    """After a reboot, an output that was prepared without syncs is not published from what is staged."""
    for durable in (False, True):
        path = tmp_path / f"journal-{durable}"
        journal = Journal(path, {"a": 1}, durable=durable)
        journal.record_decision({}, [7])
        journal.close()
        assert read_journal(path)[1].inodes == [7]
        with monkeypatch.context() as patch:
            patch.setattr(journals, "_boot", lambda: "another")
            assert read_journal(path)[1].inodes == ([7] if durable else [])


@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_nothing_is_synced_without_durability(inputs, tmp_path, monkeypatch, out):
    """With ``none``, no file and no folder is synced, except by shards."""

    def refuse(_):
        raise AssertionError

    with monkeypatch.context() as patch:
        for name in ("sync", "sync_data"):
            patch.setattr(f"batchmax.storage.system_calls.{name}", refuse)
        batchmax.score(inputs, out, on_bad_row="null", durability="none")
        batchmax.score(inputs, out, on_bad_row="null", durability="none", if_exists="overwrite", temperature=2.0)
    without = contents(tmp_path)
    batchmax.score(inputs, out, on_bad_row="null", if_exists="overwrite", temperature=2.0)
    assert contents(tmp_path) == without
    assert score_options(durability="none", shard="0/2").is_durable
    assert not score_options(durability="none").is_durable


def test_what_was_synced_in_the_middle_of_a_file_counts(tmp_path, monkeypatch):
    """After a reboot, the part of a file that the journal records as synced is kept."""

    class File:
        size = rows = written = synced = 0

        def new_groups(self):
            return [bytes([self.rows])]

        def sync(self):
            self.synced = self.written

    file = File()
    journal = Journal(tmp_path / "journal", {"a": 1})
    for rows, synced in [(1, 0), (2, 0), (3, 200), (4, 200)]:
        file.rows, file.size, file.written, file.synced = rows, rows * 100, rows * 100, synced
        journal.record_row_group([file], rows * 10, {"rows": rows})
    journal.close()
    _, done = read_journal(tmp_path / "journal")
    assert (done.position, done.state, done.file.size, done.file.groups) == (
        40, {"rows": 4}, 400, [b"\1", b"\2", b"\3", b"\4"],
    )  # fmt: skip
    monkeypatch.setattr(journals, "_boot", lambda: "another")
    _, done = read_journal(tmp_path / "journal")
    assert (done.position, done.file.size, done.file.groups) == (20, 200, [b"\1", b"\2"])


def test_a_dry_run_says_what_would_be_skipped(inputs, tmp_path, killed_after):
    """A dry run returns how many rows a resumed run would skip, and changes nothing."""
    options = score_options(on_bad_row="null", if_exists="resume")
    assert score.dry_run(inputs, "out.parquet", options)["rows_done"] == 0
    assert killed_after(9, inputs, "out.parquet", on_bad_row="null")
    before = contents(tmp_path)
    assert 0 < score.dry_run(inputs, "out.parquet", options)["rows_done"] < N_FILES * N_ROWS
    assert contents(tmp_path) == before
    batchmax.score(inputs, "out.parquet", on_bad_row="null", if_exists="resume")
    assert score.dry_run(inputs, "out.parquet", options)["rows_done"] == N_FILES * N_ROWS


def test_a_run_that_was_to_replace_goes_on_to_replace(inputs, tmp_path, killed_after):
    """Resuming a run that had ``overwrite`` replaces the older output of another job."""
    batchmax.score(inputs, "out", on_bad_row="null", temperature=2.0)
    assert killed_after(3, inputs, "out", on_bad_row="null", if_exists="overwrite")
    batchmax.score(inputs, "out", on_bad_row="null", if_exists="resume")
    replaced = contents(tmp_path)
    clear(tmp_path)
    batchmax.score(inputs, "out", on_bad_row="null")
    assert contents(tmp_path) == replaced


def test_a_file_of_pyarrow_that_was_only_to_be_published_is_published(inputs, tmp_path, monkeypatch):
    """A finished file without row groups in its journal, because pyarrow wrote it, is published as it is."""
    monkeypatch.setenv("BATCHMAX_PARQUET", "pyarrow")
    batchmax.score(inputs, "out.parquet", on_bad_row="null")
    want = contents(tmp_path)
    clear(tmp_path)

    def kill(_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("batchmax.sinks.commit.commit.Commit.publish", kill)
        nothing_is_cleaned_up(patch)
        with pytest.raises(Killed):
            batchmax.score(inputs, "out.parquet", on_bad_row="null")
    batchmax.score(inputs, "out.parquet", on_bad_row="null", if_exists="resume")
    assert contents(tmp_path) == want


def test_an_input_that_changes_is_noticed(inputs, tmp_path):
    """A file that changes while it's read is an error, and nothing is published."""

    class Writer(loop.Progress):
        def advance(self, rows, n_bytes):
            del n_bytes
            if rows:
                os.utime(tmp_path / "in" / "2.parquet")

    with pytest.raises(DataError, match=r"in/2\.parquet: the file was changed while it was being read"):
        score.score(inputs, "out.parquet", on_bad_row="null", progress=Writer())
    assert contents(tmp_path) == {}
