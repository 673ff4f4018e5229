"""Tests file names: file systems that ignore case, the Unicode forms NFC and NFD, and files that macOS creates."""

from __future__ import annotations

import os
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchmax
from batchmax.cli.app import main
from batchmax.errors import OutputError, UsageError
from batchmax.storage.file_names import composed, folded, is_of_macos, name_order
from batchmax.storage.hive import are_mirrored, partitions_of
from batchmax.storage.input_files import find_files, find_inputs
from batchmax.storage.manifest import find_manifest
from batchmax.storage.output_paths import refuse_inputs_as_output


def nfd(name):
    """Return a name with separate accents (NFD)."""
    return unicodedata.normalize("NFD", name)


NFC, NFD = "größe", nfd("größe")


def write(path, seed=0):
    """Write a file of 20 rows."""
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    logits = pa.array(list(random.normal(size=(20, 4)).astype(np.float32)), pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": range(20), "logits": logits, "label": random.integers(0, 4, 20)}), path)


class FoldingSystem:
    """Replaces ``os.stat`` by that of a file system that ignores case."""

    def __init__(self, monkeypatch):
        self._stat = os.stat
        monkeypatch.setattr(os, "stat", self.stat)

    def stat(self, path, **how):
        try:
            return self._stat(path, **how)
        except FileNotFoundError:
            found = Path(path.anchor if isinstance(path, Path) else "/")
            for part in Path(path).absolute().parts[1:]:
                names = {folded(item.name): item.name for item in found.iterdir()}
                if folded(part) not in names:
                    raise
                found /= names[folded(part)]
            return self._stat(found, **how)


# Names


@given(st.text())
def test_forms_of_a_name(name):
    """``composed`` and ``folded`` are idempotent and give the same result for NFC and NFD."""
    assert composed(composed(name)) == composed(composed(name, "NFD")) == composed(name)
    assert folded(folded(name)) == folded(name)
    assert folded(nfd(name)) == folded(name)


def test_the_order_of_names_does_not_depend_on_accents():
    """Names are sorted in the same order whether the file system returns NFC or NFD."""
    names = ["a", "z", "é", "éa", "e", "ez", "ё", "Z", "ﬁ", "\udcff"]
    want = sorted(names, key=os.fsencode)
    apart = list(map(nfd, names))
    assert sorted(apart, key=name_order) == list(map(nfd, want))
    assert sorted(names, key=name_order) == want
    assert sorted([NFD, NFC], key=name_order) == sorted([NFC, NFD], key=name_order)


def test_files_of_macos():
    """Only .DS_Store and ._NAME count as files of macOS; other hidden files may be the user's."""
    assert all(map(is_of_macos, [".DS_Store", "._part-00000.parquet", "._.DS_Store"]))
    assert not any(map(is_of_macos, ["DS_Store", ".x", "_x", "x._y", ".DS_Store.parquet"]))


# Output and input


@pytest.mark.parametrize("out", ["IN.parquet", "Sub/in.parquet", "sub/IN.PARQUET", "SUB"])
def test_an_output_that_is_an_input_in_another_case(tmp_path, monkeypatch, out):
    """An output that is an input, or a folder that contains one, is found by its inode if its case differs."""
    for name in ("in.parquet", "sub/in.parquet"):
        write(tmp_path / name)
    FoldingSystem(monkeypatch)
    with pytest.raises(OutputError, match="the output is also an input"):
        refuse_inputs_as_output([str(tmp_path / "in.parquet"), str(tmp_path / "sub" / "in.parquet")], tmp_path / out)
    refuse_inputs_as_output([str(tmp_path / "in.parquet")], tmp_path / "SUB", tmp_path / "other.parquet")


def test_a_folder_around_an_input_that_is_mounted_twice(tmp_path):
    """An output folder that is a bind mount of a folder around an input is found by its inode."""
    write(tmp_path / "data" / "deep" / "in.parquet")
    (tmp_path / "other").mkdir()
    mount = ["mount", "--bind", tmp_path / "data", tmp_path / "other"]
    if os.getuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a folder a second time, and not everywhere")
    try:
        with pytest.raises(OutputError, match="the output is also an input"):
            refuse_inputs_as_output([str(tmp_path / "data" / "deep" / "in.parquet")], tmp_path / "other")
    finally:
        subprocess.run(["umount", tmp_path / "other"], check=True)


@pytest.mark.parametrize("rejects", ["OUT.parquet", "out.PARQUET"])
def test_rejects_that_differ_from_the_output_in_case(tmp_path, rejects):
    """Paths of rejects and output that differ only in case are refused on every file system."""
    write(tmp_path / "in.parquet")
    with pytest.raises(UsageError, match="rejects and output are the same path"):
        batchmax.score(
            str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"),
            on_bad_row="drop", rejects=str(tmp_path / rejects),
        )  # fmt: skip


# Files that macOS leaves in folders


def leave_files_of_macos(folder):
    """Create the files that Finder, and macOS on file systems without extended attributes, leave in folders."""
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        (path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        for file in [item for item in path.iterdir() if item.suffix == ".parquet"]:
            file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7")


def test_an_input_folder_with_files_of_macos(tmp_path, monkeypatch):
    """Files of macOS are not inputs of a folder, a glob or Hive partitions."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.parquet", "in/k=1/b.parquet"):
        write(Path(name))
    want = find_files(["in"])
    leave_files_of_macos(Path("in"))
    assert find_files(["in"]) == find_files(["in/**"]) == find_files(["i*"]) == want
    assert find_files(["in/*.parquet"]) == ["in/a.parquet"]
    assert batchmax.score("in", "out.parquet").n_rows == 40


def test_an_output_folder_with_files_of_macos(tmp_path, monkeypatch):
    """An output folder with files of macOS can be verified, resumed and replaced; other hidden files prevent it."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        write(Path(f"in/{number}.parquet"), number)
    batchmax.score("in", "out")
    want = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    leave_files_of_macos(Path("out"))
    assert batchmax.verify("out", "in").n_rows == 40
    assert main(["score", "in", "-o", "out", "--if-exists", "resume", "--quiet"]) == 0
    batchmax.score("in", "out", if_exists="overwrite")
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == want
    (Path("out") / ".secret").write_text("somebody's")
    with pytest.raises(OutputError, match="not an output of batchmax"):
        batchmax.score("in", "out", if_exists="resume")


# Accents


def test_globs_match_either_encoding_of_accents(tmp_path, monkeypatch):
    """A glob in NFC or NFD matches names in both forms; two files that differ only in form are both found."""
    monkeypatch.chdir(tmp_path)
    for name in (f"{NFD}/{NFD}1.parquet", f"{NFC}/{NFC}2.parquet", f"x/{NFC}.parquet", f"x/{NFD}.parquet"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system takes both forms for one name")
    for pattern in (NFC, NFD):
        assert find_files([f"{pattern}/*"]) == [f"{NFD}/{NFD}1.parquet", f"{NFC}/{NFC}2.parquet"]
        assert find_files([f"*/{pattern}?.parquet"]) == [f"{NFD}/{NFD}1.parquet", f"{NFC}/{NFC}2.parquet"]
        assert find_files([f"x/{pattern}*"]) == [f"x/{NFD}.parquet", f"x/{NFC}.parquet"]


def test_a_file_of_two_spellings_counts_once(tmp_path, monkeypatch):
    """If a file system finds one file under both forms of its name, a glob returns it once."""
    monkeypatch.chdir(tmp_path)
    write(Path(NFC) / "a.parquet")
    Path(NFD).symlink_to(NFC)  # simulates a file system that treats both forms as equal
    assert len(find_files([f"{NFC}/*.parquet"])) == len(find_files([f"{NFD}/*.parquet"])) == 1


def test_partitions_have_composed_accents(tmp_path, monkeypatch):
    """Keys and values of Hive partitions are in NFC, whichever form the file system returns."""
    monkeypatch.chdir(tmp_path)
    (one,), (other,) = (partitions_of([f"{name}={name}"], []).fields for name in (NFC, NFD))
    assert one == other
    assert partitions_of([f"{NFD}={NFD}"], []).values == ((NFC,),)
    assert partitions_of([f"{NFD}=1"], [NFC]).fields == ()
    write(Path(f"in/k={NFD}") / "a.parquet")
    for path in ("in", f"in/*={NFC}/*"):
        found = find_inputs([path])
        assert (found.files, found.folders) == ([f"in/k={NFD}/a.parquet"], [f"k={NFD}"])
    batchmax.score("in", "out.parquet")
    assert pq.read_table("out.parquet")["k"].unique().to_pylist() == [NFC]


def test_folders_that_differ_in_case_are_not_mirrored(tmp_path, monkeypatch):
    """If partition folders differ only in case or Unicode form, the output has one folder and a partition column.

    On a file system that ignores case they would be one folder, and parts would replace each other.
    """
    assert are_mirrored(["k=DE", "k=EN"])
    assert not are_mirrored(["k=DE", "k=de"])
    assert not are_mirrored([f"k={NFD}", f"k={NFC}"])
    monkeypatch.chdir(tmp_path)
    for number, value in enumerate(("DE", "de")):
        write(Path(f"in/k={value}") / "a.parquet", number)
    batchmax.score("in", "out")
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "_SUCCESS",
        "_batchmax.parquet",
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert pq.read_table("out")["k"].to_pylist() == ["DE"] * 20 + ["de"] * 20


def test_a_run_is_resumed_whatever_the_form_of_names(tmp_path, monkeypatch):
    """A run resumes with the parts that it has if all names, of inputs and parts, have changed from NFC to NFD."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write(Path(f"in/k={NFC}{number}/{NFC}.parquet"), number)
    batchmax.score("in", "whole")
    made = []

    def record_part(self, part, real=batchmax.sinks.commit.journal.Journal.record_part):
        real(self, part)
        made.append(part.name)
        if len(made) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("batchmax.sinks.commit.journal.Journal.record_part", record_part)
        with pytest.raises(KeyboardInterrupt):
            batchmax.score("in", "out")
    for root in (Path("in"), Path(".out.batchmax/output")):
        for path in sorted(root.rglob("*"), reverse=True):  # files before their folders
            path.rename(path.with_name(nfd(path.name)))
    made.clear()
    monkeypatch.setattr("batchmax.sinks.commit.journal.Journal.record_part", record_part)
    batchmax.score("in", "out", if_exists="resume")
    assert len(made) == 1
    ours, theirs = (
        {nfd(str(path.relative_to(root))): path.read_bytes() for path in Path(root).rglob("part-*.parquet")}
        for root in ("out", "whole")
    )
    assert ours == theirs
    (_, ours), (_, theirs) = (find_manifest(Path(root)) for root in ("out", "whole"))
    assert [(nfd(name), size) for name, size in ours.parts.items()] == [
        (nfd(name), size) for name, size in theirs.parts.items()
    ]
    assert (ours.summary, ours.job) == (theirs.summary, theirs.job)
    assert batchmax.verify("out", "in").n_rows == 60
