"""Publishing: the path holds what it held, or the whole new output, and nothing else is left behind."""

from __future__ import annotations

import json

import pytest

from batchmax.commit import Output
from batchmax.errors import OutputError


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def build(output, text="new", *, manifest=None, before=lambda: None):
    """Build an output of one or two parts and publish it."""
    with output.building():
        for name in ["part-00000.parquet"] if output.is_file else ["part-00000.parquet", "part-00001.parquet"]:
            output.file_of(name).write_text(text)
        before()
        output.publish(manifest or {"n_rows": 1})


def test_a_file_is_published_whole(tmp_path):
    """Nothing is at the path until it is published, and nothing but the file is there afterwards."""
    path = tmp_path / "out.parquet"
    build(Output(path, "error"), before=lambda: [pytest.fail("early") for _ in [0] if path.exists()])
    assert names(tmp_path) == ["out.parquet"]
    assert path.read_text() == "new"


def test_a_folder_is_published_whole(tmp_path):
    """A folder has its parts and an empty _SUCCESS; the manifest lies beside."""
    path = tmp_path / "out"
    build(Output(str(path), "error"), manifest={"n_rows": 3, "name": "é"})
    assert names(tmp_path) == [
        "out", "out.batchmax.json", "out/_SUCCESS", "out/part-00000.parquet", "out/part-00001.parquet",
    ]  # fmt: skip
    assert (path / "_SUCCESS").stat().st_size == 0
    assert json.loads((tmp_path / "out.batchmax.json").read_text()) == {"n_rows": 3, "name": "é"}


@pytest.mark.parametrize("name", ["out.parquet", "out"])
def test_what_is_there_is_not_replaced_unasked(tmp_path, name):
    """A file, a folder, and a link to nothing are each in the way."""
    path = tmp_path / name
    for make, clear in [
        (path.touch, path.unlink),
        (path.mkdir, path.rmdir),
        (lambda: path.symlink_to(tmp_path / "nothing"), path.unlink),
    ]:
        make()
        with pytest.raises(OutputError, match="the output exists; replace it: --if-exists overwrite"):
            Output(path, "error")
        clear()


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_appears_meanwhile_is_not_replaced(tmp_path, is_folder):
    """If somebody else puts an output there while ours is built, theirs stays and ours goes."""
    path = tmp_path / ("out" if is_folder else "out.parquet")

    def appear():
        if is_folder:
            path.mkdir()
            (path / "theirs").touch()
        else:
            path.write_text("theirs")

    with pytest.raises(OutputError) as caught:
        build(Output(path, "error"), before=appear)
    assert caught.value.where == str(path)
    assert names(tmp_path) == (["out", "out/theirs"] if is_folder else ["out.parquet"])
    assert is_folder or path.read_text() == "theirs"


def test_overwriting_a_file(tmp_path):
    """The old file is there until the new one is whole; a link is replaced, not what it leads to."""
    path = tmp_path / "out.parquet"
    path.write_text("old")
    build(Output(path, "overwrite"), before=lambda: [pytest.fail("early") for _ in [0] if path.read_text() != "old"])
    assert path.read_text() == "new"
    other = tmp_path / "other"
    path.rename(other)
    path.symlink_to(other)
    build(Output(path, "overwrite"), "newer")
    assert (other.read_text(), path.read_text(), path.is_symlink()) == ("new", "newer", False)
    assert names(tmp_path) == ["other", "out.parquet"]


def test_overwriting_a_folder(tmp_path):
    """A folder that batchmax wrote is swapped for the new one; of the old one nothing is left."""
    path = tmp_path / "out"
    build(Output(path, "error"), "old")
    (path / "part-00007.parquet").touch()
    build(Output(path, "overwrite"), manifest={"n_rows": 2})
    assert names(path) == ["_SUCCESS", "part-00000.parquet", "part-00001.parquet"]
    assert (path / "part-00000.parquet").read_text() == "new"
    assert names(tmp_path)[:2] == ["out", "out.batchmax.json"]
    assert json.loads((tmp_path / "out.batchmax.json").read_text()) == {"n_rows": 2}


@pytest.mark.parametrize("missing", ["out.batchmax.json", "out/_SUCCESS"])
def test_a_folder_of_somebodys_is_never_replaced(tmp_path, missing):
    """Without manifest or _SUCCESS a folder is not known to be ours, and stays."""
    build(Output(tmp_path / "out", "error"), "old")
    (tmp_path / missing).unlink()
    before = names(tmp_path)
    with pytest.raises(OutputError, match="not a folder that batchmax wrote"):
        Output(tmp_path / "out", "overwrite")
    assert names(tmp_path) == before


def test_a_file_and_a_folder_do_not_replace_each_other(tmp_path):
    """A folder in the way of a file stays, and a file in the way of a folder."""
    (tmp_path / "out.parquet").mkdir()
    (tmp_path / "out").write_text("old")
    for name in ("out.parquet", "out"):
        with pytest.raises(OutputError):
            Output(tmp_path / name, "overwrite")
    assert names(tmp_path) == ["out", "out.parquet"]


@pytest.mark.parametrize("name", ["out.parquet", "out"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(tmp_path, name, error):
    """Whatever stops the job, the path is as it was and the hidden leftovers are gone."""
    build(Output(tmp_path / name, "error"), "old")
    before = names(tmp_path)

    def fail():
        raise error

    with pytest.raises(error):
        build(Output(tmp_path / name, "overwrite"), before=fail)
    assert names(tmp_path) == before


@pytest.mark.parametrize("name", ["out.parquet", "out"])
def test_holding_back(tmp_path, name):
    """A held output lies beside the path, whole; the next one that is held takes its place."""
    build(Output(tmp_path / name, "error"), "old")
    before = set(names(tmp_path))
    for text in ("first", "second"):
        output = Output(tmp_path / name, "overwrite")
        with output.building():
            output.file_of("part-00000.parquet").write_text(text)
            held = output.hold()
        assert held == tmp_path / f"{name}.held"
        part = held if output.is_file else held / "part-00000.parquet"
        assert part.read_text() == text
    parts = set() if name == "out.parquet" else {"out.held/_SUCCESS", "out.held/part-00000.parquet"}
    assert set(names(tmp_path)) == before | {f"{name}.held"} | parts


def test_the_folder_must_be_there(tmp_path):
    """An output in a folder that is not there is refused, with what makes it."""
    with pytest.raises(OutputError, match=r"there is no folder .*; make it: mkdir -p '.*far away'$"):
        Output(tmp_path / "far away" / "out.parquet", "error")


@pytest.mark.parametrize("out", ["", ".", "..", "/", "sub/.."])
def test_an_output_has_a_name(out):
    """What is no name of a file or folder to make is refused in one line."""
    with pytest.raises(OutputError, match="no file or folder can be made under this name"):
        Output(out, "overwrite")


def test_a_name_that_the_system_refuses(tmp_path):
    """A name that is too long is an output error when the job begins, not a traceback."""
    with (
        pytest.raises(OutputError, match="cannot be written: File name too long"),
        Output(tmp_path / ("x" * 250), "error").building(),
    ):
        pytest.fail("the folder was made")
