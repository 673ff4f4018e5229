"""Files with any byte changed, or cut at any length, give the right values or a one-line error.

They never cause a signal, a traceback or a hang. If pages have checksums, they never give a wrong value.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from tests.faults.supervised_process import SupervisedProcess
from tests.support import crafted
from tests.support.processes import HANGS
from tests.support.rows import sequences

VARIANTS = {
    "pyarrow, snappy, checksums": {"write_page_checksum": True},
    "pyarrow, V2 pages, zstd, checksums": {
        "write_page_checksum": True, "data_page_version": "2.0", "compression": "zstd",
    },
    "pyarrow, no codec, no dictionary, checksums": {
        "write_page_checksum": True, "compression": "none", "use_dictionary": False, "store_schema": False,
    },
    "pyarrow, snappy": {},
    "pyarrow, no codec": {"compression": "none"},
    "batchmax": None,
    "sequences, V2 pages, snappy, checksums": {
        "write_page_checksum": True, "data_page_version": "2.0", "data_page_size": 100, "write_batch_size": 10,
    },
    "sequences, zstd": {"compression": "zstd"},
}  # fmt: skip

COMPUTED = ("values of probs", "values of loss", "values of mean_loss", "values of n_tokens", "rows")
"""Differences that are allowed only if the pages have no checksums."""


@pytest.fixture(params=VARIANTS, scope="module")
def variant(request, tmp_path_factory):
    """Return the name of a variant, its file, and a worker for it."""
    rows, tmp_path = 24, tmp_path_factory.mktemp("variant")
    if request.param.startswith("sequences"):
        table = sequences([row % 4 if row % 7 else None for row in range(rows)], 6)
    else:
        logits = np.random.default_rng(1).normal(size=(rows, 6)).astype(np.float32)
        table = pa.table(
            {
                "id": pa.array(range(rows), pa.int64()),
                "logits": pa.array(list(logits), pa.list_(pa.float32())),
                "label": pa.array([row % 6 for row in range(rows)], pa.int32()),
                "text": pa.array([f"text {row % 3}" for row in range(rows)]),
            }
        )
    path = tmp_path / "original.parquet"
    options = VARIANTS[request.param]
    pq.write_table(table, path, row_group_size=12, **({"write_page_checksum": True} if options is None else options))
    if options is None:
        path.rename(tmp_path / "in.parquet")
        batchmax.convert(str(tmp_path / "in.parquet"), str(path), "list")
    (tmp_path / "work").mkdir()
    worker = SupervisedProcess("damage_worker.py", {"folder": str(tmp_path / "work"), "file": str(path)})
    yield request.param, path, worker
    worker.stop()


def check(answer, checked):
    """Return the kind of an answer; fail if the answer isn't allowed."""
    assert "died" not in answer, answer
    assert answer["inspect"] in {0, 1}, answer
    assert answer["code"] in {0, 1, 2}, answer
    err = str(answer["err"])
    assert "Traceback" not in err, answer
    assert "is a bug" not in err, answer
    assert answer["left"] == [], answer
    if answer["code"]:
        assert err.count("batchmax: error: ") in {1, 2}, answer
        assert err.count("\n") <= 2, answer
        return "refused"
    differs = str(answer["differs"])
    assert not (checked and differs.startswith(COMPUTED)), answer
    return differs or "same values"


@pytest.mark.faults(keep=lambda: True)
def test_every_byte_changed(variant, everything, table):
    """Any changed byte in checksummed pages gives the same values or an error; one in the footer, no wrong result."""
    name, path, worker = variant
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    checked = "checksums" in name or name == "batchmax"
    masks = (0x01, 0x80, 0x10, 0xFF) if everything else (0x01,)
    counts: Counter[str] = Counter()
    for mask in masks:
        for at in range(0, len(data), 1 if everything else 47):
            kind = check(worker.ask({"flips": [[at, mask]]}), checked)
            counts[kind] += 1
            assert not checked or at >= footer or kind in {"refused", "same values"}, (at, mask, kind)
    record(table, f"one changed byte of {len(data):,}: {name}", counts)


@pytest.mark.faults(keep=lambda: True)
def test_truncated_at_every_length(variant, everything, table):
    """A file that is cut short at any length is refused."""
    name, path, worker = variant
    size = path.stat().st_size
    counts: Counter[str] = Counter()
    for cut in range(0, size, 1 if everything else 61):
        counts[check(worker.ask({"cut": cut}), checked=False)] += 1
    assert set(counts) == {"refused"}
    record(table, f"truncated to every length below {size:,} bytes: {name}", counts)


def record(table, damage, counts):
    """Add outcomes to the table of damaged inputs."""
    table.damages[damage] = counts


@pytest.mark.faults(keep=lambda variant: variant in {"pyarrow, snappy, checksums", "sequences, zstd"})
def test_the_real_command(variant, tmp_path, everything):
    """The real command ends with 0, 1 or 2, and a one-line error, on damaged files."""
    name, path, _ = variant
    data = path.read_bytes()
    for at in range(11, len(data), len(data) // (20 if everything else 1)):
        damaged = tmp_path / "damaged.parquet"
        damaged.write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
        command = [
            sys.executable,
            "-m",
            "batchmax",
            "score",
            str(damaged),
            "-o",
            str(tmp_path / "o.parquet"),
            "--quiet",
        ]
        done = subprocess.run(
            [*command, "--if-exists", "overwrite"], capture_output=True, text=True, timeout=HANGS, check=False
        )
        assert done.returncode in {0, 1, 2}, (name, at, done.stderr)
        assert done.stderr.count("\n") == (done.returncode != 0), (name, at, done.stderr)


def test_statistics_of_another_type(tmp_path):
    """``inspect`` and ``score`` survive a footer whose statistics make pyarrow abort the process."""
    table = pa.table(
        {"logits": pa.array([[1.0, 2.0]] * 4, pa.list_(pa.float32())), "label": pa.array([0, 1, 1, 0], pa.int32())}
    )
    path = tmp_path / "x.parquet"

    def edit(fields):
        crafted.chunk(fields, 1)[crafted.CHUNK_METADATA].value[1].value = 0  # the physical type: a boolean

    path.write_bytes(crafted.edited(crafted.file_of(table), edit))
    for words in (["inspect", str(path)], ["score", str(path), "-o", str(tmp_path / "o.parquet"), "--quiet"]):
        done = subprocess.run(
            [sys.executable, "-m", "batchmax", *words], capture_output=True, timeout=HANGS, check=False
        )
        assert done.returncode in {0, 1}, done.stderr
