"""Outputs are the same without system calls that only Linux has: each is removed, and then all of them."""

from __future__ import annotations

import ast
import errno
import fcntl
import json
import os
import struct
import subprocess
import sys
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmax.storage import system_calls
from tests.support.paths import ROOT
from tests.support.processes import HANGS

JOB = """
import hashlib, io, json, os, signal, sys
from contextlib import redirect_stdout
from pathlib import Path

{early}

import numba, numpy, pyarrow, pyarrow.parquet

{late}

from batchmax.cli.app import main
from batchmax.sinks.commit.journal import Journal
from batchmax.parquet.writing import direct_io

direct_io.SYNC_BYTES = 1  # each write is made durable


def run(*words):
    out = io.StringIO()
    with redirect_stdout(out):
        assert main([*words]) == 0, words
    return out.getvalue()


def run_killed(n_lines, *words):
    pid = os.fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        return
    lines, write = iter(range(n_lines)), Journal._write
    Journal._write = lambda self, entry: (
        os.kill(os.getpid(), signal.SIGKILL) if next(lines, None) is None else write(self, entry)
    )
    os._exit(main([*words]))


for name in ("killed.parquet", "killed"):
    run_killed(9 if name.endswith("parquet") else 3, "score", "in", "-o", name)
    assert Path(f".{{name}}.batchmax").is_dir() and not Path(name).exists()
    run("score", "in", "-o", name, "--if-exists", "resume", "--quiet")
for name in ("new.parquet", "new"):
    run("score", "in", "-o", name, "--quiet", "--temperature", "2")
    run("score", "in", "-o", name, "--quiet", "--if-exists", "overwrite")
    run("verify", name, "in")
figures = json.loads(run("evaluate", "in", "--json"))
figures.pop("seconds")
digests = {{
    str(path): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(Path().rglob("*.parquet")) if path.is_file() and path.parts[0] != "in"
}}
left = [path.name for path in Path().iterdir() if path.name.startswith(".")]
print(json.dumps({{"digests": digests, "figures": figures, "left": left}}))
"""

WITHOUT_FILES = """
def refuse(event, arguments):
    if event == "open" and str(arguments[0]).startswith(("/proc", "/sys")):
        raise FileNotFoundError(2, "No such file or directory", str(arguments[0]))
sys.addaudithook(refuse)
"""

NO_LIBRARY = """
import ctypes
class CDLL(ctypes.CDLL):
    def __init__(self, name, *arguments, **options):
        if name is None:
            raise OSError("no library")
        super().__init__(name, *arguments, **options)
ctypes.CDLL = CDLL
"""

NO_FUNCTIONS = """
import ctypes
class CDLL(ctypes.CDLL):
    def __getattr__(self, name):
        if self._name is None and name in {"renameat2", "fallocate"}:
            raise AttributeError(name)
        return super().__getattr__(name)
ctypes.CDLL = CDLL
"""

FULL_SYNC = """
import fcntl
def call(descriptor, command, argument=0, real=fcntl.fcntl):
    return os.fsync(descriptor) if command == 51 else real(descriptor, command, argument)
fcntl.F_FULLFSYNC, fcntl.fcntl = 51, call
"""


def without(*names):
    """Return code that deletes names of the module ``os`` if they exist."""
    return "\n".join(f"if hasattr(os, {name!r}): del os.{name}" for name in names)


COPIES = without(
    "copy_file_range", "sendfile", "splice", "memfd_create", "posix_fadvise", "posix_fallocate", "O_TMPFILE"
)
REMOVED = {
    "fdatasync": without("fdatasync"),
    "fdatasync, but with F_FULLFSYNC": without("fdatasync") + FULL_SYNC,
    "O_DIRECT": without("O_DIRECT"),
    "preadv": without("preadv", "pwritev"),
    "sched_getaffinity": without("sched_getaffinity", "sched_setaffinity"),
    "calls that copy, and files without a name": COPIES,
    "/proc and /sys": WITHOUT_FILES,
    "the C library": NO_LIBRARY,
    "renameat2 and fallocate": NO_FUNCTIONS,
}
DARWIN = 'sys.platform = "darwin"'


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Return a folder with three files of five row groups."""
    random = np.random.default_rng(3)
    folder = tmp_path_factory.mktemp("system") / "in"
    folder.mkdir()
    for number in range(3):
        logits = random.normal(size=(100, 20)).astype(np.float32)
        table = pa.table(
            {
                "id": range(100),
                "logits": pa.array(list(logits), pa.list_(pa.float32())),
                "label": random.integers(0, 20, 100),
            }
        )
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=20)
    return folder


def outcome(folder, inputs, early="", late=""):
    """Run all jobs in their own process without some calls; return digests of the outputs, and figures."""
    folder.mkdir()
    (folder / "in").symlink_to(inputs)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", JOB.format(early=early, late=late)],
        cwd=folder, capture_output=True, text=True, timeout=HANGS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def expected(tmp_path_factory, inputs):
    """Return the outcome of the jobs with all calls available."""
    found = outcome(tmp_path_factory.mktemp("system") / "all", inputs)
    parts = ["_batchmax.parquet", *(f"part-0000{number}.parquet" for number in range(3))]
    assert [*found["digests"]] == [
        *(f"killed/{part}" for part in parts), "killed.parquet", *(f"new/{part}" for part in parts), "new.parquet",
    ]  # fmt: skip
    assert found["left"] == []
    assert len(set(found["digests"].values())) == 5
    return found


@pytest.mark.sweep(keep=lambda name: name == "fdatasync")
@pytest.mark.parametrize("name", REMOVED)
def test_a_call_that_is_not_there(tmp_path, inputs, expected, name):
    """Outputs, including resumed and replaced ones, and figures are the same without the call."""
    assert outcome(tmp_path / "job", inputs, REMOVED[name]) == expected


def test_a_simulated_macos(tmp_path, inputs, expected):
    """Outputs are the same without all of these calls at once, when Python reports macOS."""
    early = "\n".join(code for name, code in REMOVED.items() if name not in {"fdatasync", "the C library"})
    assert outcome(tmp_path / "job", inputs, early, DARWIN) == expected


# Durability


class Syncs:
    """Records syncs instead of the calls that do them."""

    def __init__(self, monkeypatch, full_sync=None):
        self.calls = []
        self.error = None
        monkeypatch.setattr(os, "fsync", lambda descriptor: self.calls.append(("fsync", descriptor)))
        monkeypatch.setattr(
            os, "fdatasync", lambda descriptor: self.calls.append(("fdatasync", descriptor)), raising=False
        )
        if full_sync is not None:
            monkeypatch.setattr(fcntl, "F_FULLFSYNC", full_sync, raising=False)
            monkeypatch.setattr(fcntl, "fcntl", self._control)

    def _control(self, descriptor, command):
        self.calls.append((command, descriptor))
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))


def test_what_syncs_on_linux(monkeypatch):
    """On Linux, ``sync_data`` is fdatasync, and ``sync`` is fsync."""
    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    syncs = Syncs(monkeypatch)
    system_calls.sync(7)
    system_calls.sync_data(8)
    assert syncs.calls == [("fsync", 7), ("fdatasync", 8)]


def test_what_syncs_on_macos(monkeypatch):
    """On macOS, both are F_FULLFSYNC, which also flushes the drive's cache, even if there is an fdatasync."""
    syncs = Syncs(monkeypatch, full_sync=51)
    system_calls.sync(7)
    system_calls.sync_data(8)
    monkeypatch.delattr(os, "fdatasync")
    system_calls.sync_data(9)
    assert syncs.calls == [(51, 7), (51, 8), (51, 9)]


@pytest.mark.parametrize("code", sorted(system_calls.UNSUPPORTED))
def test_a_file_system_without_full_sync(monkeypatch, code):
    """If a file system doesn't support F_FULLFSYNC, as network file systems don't, fsync is used."""
    syncs = Syncs(monkeypatch, full_sync=51)
    syncs.error = code
    system_calls.sync_data(7)
    assert syncs.calls == [(51, 7), ("fsync", 7)]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EBADF])
def test_a_failed_full_sync_is_an_error(monkeypatch, code):
    """An I/O error of F_FULLFSYNC is raised, and fsync isn't tried."""
    syncs = Syncs(monkeypatch, full_sync=51)
    syncs.error = code
    with pytest.raises(OSError, match=rf"\[Errno {code}\]"):
        system_calls.sync(7)
    assert syncs.calls == [(51, 7)]


def test_all_syncs_go_through_one_module():
    """Only one module calls fsync and fdatasync, so that syncs are as durable on macOS; other programs may, too."""
    for path in [*(ROOT / "batchmax").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        if path.name not in {"system_calls.py", "peers.py"}:
            for node in ast.walk(ast.parse(path.read_text())):
                name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
                assert name not in {"fsync", "fdatasync", "F_FULLFSYNC"}, f"{path}:{node.lineno}"


# Reads


@given(
    data=st.binary(max_size=50),
    sizes=st.lists(st.integers(0, 9), max_size=8),
    at=st.integers(0, 60),
    most=st.integers(1, 60),
    vectored=st.booleans(),
)
def test_reads_into_buffers(tmp_path_factory, data, sizes, at, most, vectored):
    """Buffers are filled in order from a position, at most ``MAX_READ`` bytes per call, with and without preadv."""
    path = tmp_path_factory.mktemp("reads") / "file"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file:
        patch.setattr(system_calls, "MAX_READ", most)
        if not vectored:
            patch.delattr(os, "preadv")
        buffers, done = [memoryview(bytearray(size)) for size in sizes], 0
        rest = buffers
        while rest := [buffer for buffer in rest if len(buffer)]:
            got = system_calls.read_into(file.fileno(), rest, at + done)
            assert got <= most or sum(map(len, rest)) <= most
            if not got:
                break
            done += got
            while got:
                count = min(got, len(rest[0]))
                rest[0] = rest[0][count:]
                got -= count
                rest = rest if len(rest[0]) else rest[1:]
        assert b"".join(buffers)[:done] == data[at : at + sum(sizes)]
        assert done == len(data[at : at + sum(sizes)])
        assert system_calls.read_at(file.fileno(), sum(sizes), at) == data[at : at + sum(sizes)]


# Space, renames and boots


def test_a_hole_frees_its_space(tmp_path):
    """If the file system supports it, the blocks of a range are freed, and the range reads as zeros."""
    with (tmp_path / "file").open("wb+") as file:
        file.write(b"x" * (1 << 20))
        file.flush()
        os.fsync(file.fileno())
        before = os.fstat(file.fileno()).st_blocks
        system_calls.punch_hole(file.fileno(), 1 << 16, 1 << 19)
        if os.fstat(file.fileno()).st_blocks == before:
            pytest.skip("this file system keeps the blocks")
        assert os.fstat(file.fileno()).st_size == 1 << 20
        file.seek(0)
        assert file.read() == b"x" * (1 << 16) + bytes(1 << 19) + b"x" * ((1 << 20) - (1 << 16) - (1 << 19))


def test_a_hole_on_macos_has_whole_blocks(tmp_path, monkeypatch):
    """F_PUNCHHOLE gets the whole blocks within the range; if there are none, it isn't called."""
    calls = []
    monkeypatch.setattr(system_calls, "_library_function", lambda _: None)
    monkeypatch.setattr(fcntl, "fcntl", lambda *arguments: calls.append(arguments))
    with (tmp_path / "file").open("wb") as file:
        block = os.fstat(file.fileno()).st_blksize
        system_calls.punch_hole(file.fileno(), 1, 3 * block)
        system_calls.punch_hole(file.fileno(), 0, 2 * block)
        system_calls.punch_hole(file.fileno(), 1, block)
        number = file.fileno()
    assert [(call[:2], struct.unpack("=IIqq", call[2])) for call in calls] == [
        ((number, 99), (0, 0, block, 2 * block)), ((number, 99), (0, 0, 0, 2 * block)),
    ]  # fmt: skip


def test_folders_are_exchanged(tmp_path):
    """Two folders are exchanged if the system supports it; otherwise nothing happens."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    done = system_calls.exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "b").exists() == (tmp_path / "b" / "a").exists() == done
    if done:
        with pytest.raises(FileNotFoundError):
            system_calls.exchange(tmp_path / "a", tmp_path / "none")


@pytest.mark.parametrize(("code", "answer"), [(0, True), (errno.ENOTSUP, False), (errno.EXDEV, None)])
def test_folders_are_exchanged_on_macos(tmp_path, monkeypatch, code, answer):
    """On macOS, folders are exchanged with renamex_np and RENAME_SWAP."""
    calls = []

    def swap(*arguments):
        calls.append(arguments)
        return -bool(code)

    monkeypatch.setattr(system_calls, "_library_function", {"renamex_np": swap}.get)
    monkeypatch.setattr(system_calls.ctypes, "get_errno", lambda: code)
    if answer is None:
        with pytest.raises(OSError, match=os.strerror(code)):
            system_calls.exchange(tmp_path / "a", tmp_path / "b")
    else:
        assert system_calls.exchange(tmp_path / "a", tmp_path / "b") is answer
    assert calls == [(os.fsencode(tmp_path / "a"), os.fsencode(tmp_path / "b"), 2)]


def test_a_boot_has_an_identifier(tmp_path, monkeypatch):
    """The boot identifier is read from a file, on macOS from sysctl; if neither works, it is None."""
    boot = str(uuid.uuid4())
    (tmp_path / "boot_id").write_text(f"{boot}\n")
    monkeypatch.setattr(system_calls, "BOOT_ID", tmp_path / "boot_id")
    assert system_calls.boot_id() == boot

    def sysctl(name, text, size, new, new_size):
        assert (name, size._obj.value, new, new_size.value) == (b"kern.bootsessionuuid", 64, None, 0)
        text.value = b"ABCD-12"
        return 0

    monkeypatch.setattr(system_calls, "BOOT_ID", tmp_path / "none")
    monkeypatch.setattr(system_calls, "_library_function", {"sysctlbyname": sysctl}.get)
    assert system_calls.boot_id() == "ABCD-12"
    monkeypatch.setattr(system_calls, "_library_function", {"sysctlbyname": lambda *_: -1}.get)
    assert system_calls.boot_id() is None
    monkeypatch.setattr(system_calls, "_library_function", lambda _: None)
    assert system_calls.boot_id() is None
