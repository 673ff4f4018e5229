"""Paths: the files that inputs name and their order, and the allowed paths of outputs."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import DataError, OutputError, UsageError
from batchmax.storage.files import hidden_sibling, open_exclusively
from batchmax.storage.input_files import find_files
from batchmax.storage.output_paths import is_file_path, refuse_inputs_as_output


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Make a folder of visible and hidden files, and change to it."""
    for name in (
        "d/b.parquet",
        "d/a.parquet",
        "d/B.parquet",
        "d/é.parquet",
        "d/sub/a.parquet",
        "d/sub.parquet",
        "d/sub-1/z.parquet",
        "d/_SUCCESS",
        "d/.crc",
        "d/_temporary/x.parquet",
        "d/.hidden/x.parquet",
        "_own/a.parquet",
        "we[i]rd.parquet",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


ALL = [
    "d/B.parquet",
    "d/a.parquet",
    "d/b.parquet",
    "d/sub-1/z.parquet",
    "d/sub.parquet",
    "d/sub/a.parquet",
    "d/é.parquet",
]


@pytest.mark.parametrize("given", ["d", "d/", "d/**", "d/**/*.parquet", "d/*", "[d]"])
@pytest.mark.usefixtures("tree")
def test_a_folder_is_its_files_in_bytewise_order(given):
    """Nested files are included, hidden ones aren't; a glob that matches folders and files gives each file once."""
    assert find_files([given]) == ALL


@pytest.mark.usefixtures("tree")
def test_the_given_order_is_kept():
    """Inputs are read in the given order, and a repeated file only the first time."""
    assert find_files(["d/b.parquet", "d/a.parquet", "d/b.parquet"]) == ["d/b.parquet", "d/a.parquet"]
    assert find_files(["d/sub", "d/a.parquet"]) == ["d/sub/a.parquet", "d/a.parquet"]


@pytest.mark.usefixtures("tree")
def test_what_is_spelled_out_is_not_hidden():
    """A hidden file is read if it is named, or if the pattern starts with the underscore."""
    assert find_files(["_own"]) == find_files(["_own/*"]) == find_files(["_o*"]) == ["_own/a.parquet"]
    assert find_files(["d/_SUCCESS"]) == ["d/_SUCCESS"]
    assert find_files(["d/_temp*/*"]) == ["d/_temporary/x.parquet"]


def test_globs(tree):
    """Globs give files in bytewise order and may be absolute; an existing file whose name is a pattern is that file."""
    assert find_files(["d/?.parquet"]) == ["d/B.parquet", "d/a.parquet", "d/b.parquet", "d/é.parquet"]
    assert find_files([str(tree / "d" / "sub*" / "*.parquet")]) == [
        str(tree / "d/sub-1/z.parquet"),
        str(tree / "d/sub/a.parquet"),
    ]
    assert find_files(["we[i]rd.parquet"]) == ["we[i]rd.parquet"]
    assert find_files([tree / "d" / "a.parquet"]) == [str(tree / "d" / "a.parquet")]


@pytest.mark.parametrize("given", ["out", "ou*", "out/*", "out/**", "out/*/*"])
def test_globs_of_an_output_with_folders(tmp_path, monkeypatch, given):
    """A glob that matches the folders of an output reads it, although its manifest is in only one of them."""
    monkeypatch.chdir(tmp_path)
    for day in ("day=1", "day=2"):
        (tmp_path / "in" / day).mkdir(parents=True)
        pq.write_table(pa.table({"logits": [[1.0, 2.0]]}), tmp_path / "in" / day / "a.parquet")
    batchmax.score("in", "out")
    assert find_files([given]) == ["out/day=1/part-00000.parquet", "out/day=2/part-00000.parquet"]


@pytest.mark.parametrize("given", ["nothing.parquet", "d/*.csv", "d/_*.parquet", "**/*.csv", "far/away/x"])
@pytest.mark.usefixtures("tree")
def test_what_is_not_there(given):
    """A path or pattern without a file is an error whose remedy names an existing folder."""
    with pytest.raises(DataError) as caught:
        find_files(["d", given])
    assert caught.value.where == given
    folder = caught.value.remedy.removeprefix("see: ls ")
    assert Path(folder).is_dir()


def test_a_folder_without_files(tree):
    """A folder with only hidden files is empty, and the remedy shows how to list them."""
    (tree / "my own").mkdir()
    (tree / "my own" / "_x.parquet").touch()
    with pytest.raises(DataError, match=r"see: ls -a 'my own'$"):
        find_files(["my own"])


@pytest.mark.usefixtures("tree")
def test_streams_are_not_found():
    """A stream among files is a usage error with a remedy; a file named - can be given as ./-."""
    with pytest.raises(UsageError, match=r"a stream can only be the only input.*; name a path"):
        find_files(["d", "-"])
    Path("-").touch()
    assert find_files(["./-"]) == ["./-"]


@pytest.mark.usefixtures("tree")
def test_no_input():
    """No paths at all is a usage error."""
    with pytest.raises(UsageError, match="no input is given"):
        find_files([])


@pytest.mark.usefixtures("tree")
def test_a_folder_that_cannot_be_listed(monkeypatch):
    """A subfolder that can't be listed is an error, so that its rows aren't missing unnoticed."""
    scandir = os.scandir

    def locked(path):
        if os.fspath(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(DataError, match=r"^d/sub: the folder cannot be listed: Permission denied; see: ls -la d/sub$"):
        find_files(["d"])


@pytest.mark.parametrize(
    ("out", "is_file"),
    [("a.parquet", True), ("A.PARQUET", True), ("a.pq", True), ("a.parq", True), ("a", False), ("a.parquet/", False)],
)
def test_what_an_output_path_means(out, is_file):
    """The extension decides between a file and a folder."""
    assert is_file_path(out) == is_file


def test_hidden_siblings_are_hidden_and_differ(tmp_path):
    """A temporary name is in the same folder, begins with a dot, and is unique."""
    path = tmp_path / "out.parquet"
    names = {hidden_sibling(path) for _ in range(100)}
    assert len(names) == 100
    assert all(name.parent == tmp_path and name.name.startswith(".out.parquet.") for name in names)


def test_files_are_made_not_opened(tmp_path):
    """Existing files and links, including dangling ones, are never opened for writing."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            open_exclusively(tmp_path / name)
    assert (tmp_path / "file").read_text() == "old"
    assert not (tmp_path / "target").exists()
    os.close(open_exclusively(tmp_path / "new"))
    assert (tmp_path / "new").stat().st_size == 0


@pytest.mark.parametrize(
    "out",
    ["in.parquet", "sub/../in.parquet", "soft.parquet", "hard.parquet", "../place/in.parquet", "linked/in.parquet"],
)
def test_an_output_that_is_an_input_is_refused(tmp_path, monkeypatch, out):
    """An output that is an input is refused, however the file is named."""
    work = tmp_path / "place"
    (work / "sub").mkdir(parents=True)
    (work / "in.parquet").write_text("rows")
    (work / "soft.parquet").symlink_to("in.parquet")
    (work / "hard.parquet").hardlink_to(work / "in.parquet")
    (work / "linked").symlink_to(work)
    monkeypatch.chdir(work)
    with pytest.raises(OutputError, match=r"the output is also an input \(in\.parquet\); name another output"):
        refuse_inputs_as_output(["in.parquet"], work / "else.parquet", work / out)


def test_a_folder_around_an_input_is_refused(tmp_path):
    """An output folder that contains an input is refused, because replacing it would delete the input."""
    (tmp_path / "run" / "deep").mkdir(parents=True)
    file = tmp_path / "run" / "deep" / "in.parquet"
    file.touch()
    with pytest.raises(OutputError):
        refuse_inputs_as_output([str(file)], tmp_path / "run")
    refuse_inputs_as_output([str(file)], tmp_path / "run2", tmp_path / "run" / "out.parquet")
