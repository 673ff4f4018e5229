"""Tests the cache of compiled kernels: it is private to the user, and a damaged cache never fails a job."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import warnings

import numpy as np
import pytest

from batchmax.kernels.compensated_sums import sum_counted
from batchmax.kernels.compiler import cache
from batchmax.kernels.compiler.dispatch import Kernel
from tests.support.paths import ROOT


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the cache folder of this test; it is created with the first kernel."""
    chosen = tmp_path / "kernels"
    monkeypatch.setenv("BATCHMAX_CACHE_DIR", str(chosen))
    return chosen


def total():
    """Compile or load a kernel, and return its sum of 1, 2 and 4 without the 2."""
    found = np.zeros(3)
    new = Kernel(sum_counted.function, sum_counted.signatures, parallel=False)
    new(np.array([1.0, 2.0, 4.0]), np.array([True, False, True]), found)
    return found[0]


def compiled(folder):
    """Return the paths of compiled code in the cache."""
    return sorted(folder.rglob("*.nbc"))


def test_a_second_process_compiles_nothing(folder):
    """A kernel that one process compiled is loaded by the next."""
    code = """
    import numpy as np
    from batchmax.kernels.compensated_sums import sum_counted
    sum_counted(np.ones(3), np.ones(3, bool), np.zeros(3))
    stats = sum_counted._serial.stats
    print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
    """
    lines = "\n".join(line.strip() for line in code.strip().splitlines())
    for expected in ("0 1", "1 0"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", lines], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert done.stdout.strip() == expected
    assert len(compiled(folder)) == 1


def test_arrays_of_other_types_are_refused():
    """A kernel isn't run on arrays of another type or shape, or on outputs that are strided or can't be written."""
    values, counted, sums = np.ones(3), np.ones(3, bool), np.zeros(3)
    read_only = np.zeros(3)
    read_only.flags.writeable = False
    sum_counted(read_only, counted, sums)
    for wrong in (
        (values.astype(np.float32), counted, sums),
        (values.astype(">f8"), counted, sums),
        (values.reshape(1, 3), counted, sums),
        (values, counted, np.zeros(6)[::2]),
        ([1.0, 2.0, 4.0], counted, sums),
        (values, counted, read_only),
    ):
        with pytest.raises(TypeError, match="no kernel sum_counted for arguments of types"):
            sum_counted(*wrong)


def test_strided_and_unaligned_inputs_are_read():
    """Inputs may be strided or unaligned."""
    unaligned = np.zeros(25, np.uint8)[1:].view(np.float64)
    unaligned[:] = [1.0, 2.0, 4.0]
    for values in (np.array([1.0, 9.0, 2.0, 9.0, 4.0])[::2], unaligned):
        sums = np.zeros(3)
        sum_counted(values, np.ones(6, bool)[::2], sums)
        assert sums[0] == 7.0


def test_the_folder_is_the_users_own(folder):
    """Cache folders have mode 0700: they contain pickles, which run code when loaded."""
    assert total() == 5.0
    for made in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_where_the_folder_is(monkeypatch, tmp_path):
    """The cache folder is $BATCHMAX_CACHE_DIR, else in $XDG_CACHE_HOME, else in ~/.cache."""
    monkeypatch.setenv("BATCHMAX_CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "own"
    monkeypatch.setenv("BATCHMAX_CACHE_DIR", "")
    assert cache.cache_folder() == tmp_path / "xdg" / "batchmax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == tmp_path / ".cache" / "batchmax"


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    middle = len(content) * 2 // 3
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("kind", ["*.nbc", "*.nbi"])
@pytest.mark.parametrize("damage", [cut, lambda _: b"", lambda _: b"garbage" * 100], ids=["cut", "empty", "garbage"])
def test_a_damaged_file_is_a_warning(folder, kind, damage):
    """A damaged cache file gives a warning with a remedy; the kernel is compiled again and its result is right."""
    assert total() == 5.0
    (path,) = folder.rglob(kind)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(RuntimeWarning, match="cannot be read .* compiling again; delete that folder, or name another"):
        assert total() == 5.0


def test_a_flipped_bit_in_compiled_code_is_a_warning(folder):
    """Machine code with a flipped bit is detected by its digest and not run; it is compiled again with a warning."""
    assert total() == 5.0
    (path,) = compiled(folder)
    path.write_bytes(flip(path.read_bytes()))
    with pytest.warns(RuntimeWarning, match="cannot be read .*the file is damaged"):
        assert total() == 5.0


def test_damaged_code_is_replaced(folder):
    """Damaged code is replaced in the cache, so that the next load gives no warning."""
    assert total() == 5.0
    compiled(folder)[0].write_bytes(b"garbage")
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        total()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert total() == 5.0


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_to_is_not_used(folder, mode):
    """A cache folder that others can write to is neither read nor written, with a warning for each."""
    assert total() == 5.0
    before = {path: path.stat().st_mtime_ns for path in compiled(folder)}
    folder.chmod(mode)
    with pytest.warns(RuntimeWarning, match="others can write to it") as said:
        assert total() == 5.0
    assert len(said) == 2  # one for reading, one for writing
    assert {path: path.stat().st_mtime_ns for path in compiled(folder)} == before


def test_a_folder_that_cannot_be_made_is_a_warning(folder):
    """If the cache folder can't be created, a warning is given and the result is right."""
    folder.write_text("in the way")
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        assert total() == 5.0
    assert folder.read_text() == "in the way"


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_a_warning(folder):
    """If the cache folder is read-only, a warning is given and the result is right."""
    folder.mkdir(mode=0o500)
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        assert total() == 5.0


def test_the_stamp_is_that_of_all_sources(tmp_path, monkeypatch):
    """The source fingerprint changes with any file of ``kernels/``, ``statuses.py`` or ``activations.py``."""
    package = tmp_path / "batchmax"
    shutil.copytree(ROOT / "batchmax" / "kernels", package / "kernels")
    tables = [package / "statuses.py", package / "activations.py"]
    for table in tables:
        shutil.copy(ROOT / "batchmax" / table.name, package)
    monkeypatch.setattr(cache, "__file__", str(package / "kernels" / "compiler" / "cache.py"))
    stamp = cache.source_fingerprint.__wrapped__
    seen = {stamp()}
    assert stamp() in seen
    for path in [*sorted((package / "kernels").rglob("*.py")), *tables]:
        path.write_text(path.read_text() + "\n# changed\n")
        assert stamp() not in seen, path
        seen.add(stamp())


def test_after_warming_up_a_job_compiles_nothing(tmp_path):
    """After ``warmup`` no job needs another kernel, for any labels, weights, dtype and activation.

    Another process runs the jobs, with kernels that are loaded from the cache.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    outputs = "probs,log_probs,loss,pred,confidence,margin,entropy,logsumexp,rank,correct,el2n,status"
    warmup = "from batchmax.kernels.compiler.warmup import compile_kernels; compile_kernels()"
    code = (
        "import batchmax, numpy as np\n"
        "from batchmax.runtime.compilation import listening\n"
        "started = []\n"
        "listening(started.append).__enter__()\n"
        f"for dtype in ('float32', 'float64'):\n"
        f"    batchmax.score('data/digits.parquet', r'{tmp_path}/' + dtype + '.parquet', outputs={outputs!r}, top_k=2,"
        " dtype=dtype, label_smoothing=0.1, class_weights=[1.0] * 10)\n"
        f"    batchmax.softmax_cross_entropy(np.ones((3, 50), dtype), np.zeros(3, np.int16))\n"
        f"for activation in ('sigmoid', 'taylor'):\n"
        f"    batchmax.score('data/labels/digits_distribution.parquet', r'{tmp_path}/' + activation + '.parquet',"
        " activation=activation)\n"
        f"batchmax.score('data/labels/digits_distribution.parquet', r'{tmp_path}/d.parquet')\n"
        "batchmax.evaluate('data/labels/digits_distribution.parquet')\n"
        "batchmax.evaluate('data/digits.parquet', by='label')\n"
        "batchmax.compare('data/digits.parquet', 'data/digits.parquet')\n"
        "print(started)\n"
    )
    for step in (warmup, code):
        done = subprocess.run(
            [sys.executable, "-c", step], capture_output=True, text=True, check=True, env=environment, cwd=ROOT
        )
    assert done.stdout == "[]\n"
