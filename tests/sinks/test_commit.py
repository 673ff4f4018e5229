"""Publishing: the output path has its previous content or the whole new output, and nothing else is left."""

from __future__ import annotations

import json
import os
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.errors import OutputError, UsageError
from batchmax.sinks.commit.commit import Commit
from batchmax.sinks.commit.local_destination import LocalDestination
from batchmax.sinks.commit.staging import StagingDirectory
from batchmax.storage.manifest import MANIFEST_KEY, Manifest, read_manifest
from batchmax.storage.output_paths import is_file_path
from tests.support.processes import HANGS

SUMMARY = {"n_rows": 1, "status_counts": {"ok": 1}, "version": "1"}


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def destination(path, if_exists, *, gated=False):
    is_file = is_file_path(os.fspath(path))
    return LocalDestination(StagingDirectory(path), if_exists, is_file=is_file, gated=gated)


def commit_to(path, if_exists, *, gated=False):
    """Return the commit of an output."""
    return Commit(destination(path, if_exists, gated=gated))


def filled(output, write, name="part-00000.parquet"):
    """Write the file of an output, or a part of a folder."""
    path = output.staging.output if output.is_file else output.parts.new_path(name)
    write(path)
    if not output.is_file:
        output.parts.add(path, name)


def write_manifest(path, manifest):
    """Write a manifest as a job does, but with a top-level column."""
    metadata = {MANIFEST_KEY: manifest.to_json(), "batchmax": "{}"}
    pq.write_table(pa.table({"n": pa.array([], pa.int64())}).replace_schema_metadata(metadata), path)


def build(commit, text="new", *, summary=SUMMARY, before=lambda: None):
    """Build an output of a file or of two parts, and publish it."""
    with commit.building():
        output = commit.main
        for name in ["part-00000.parquet"] if output.is_file else ["part-00000.parquet", "part-00001.parquet"]:
            filled(output, lambda path: path.write_text(text), name)
            output.part_sizes[name] = len(text)
        before()
        output.prepare(write_manifest, summary)
        commit.publish()


def put(path, text):
    """Write at the path what another program might write."""
    if path.suffix:
        path.write_text(text)
        return
    path.mkdir()
    for name in ("_SUCCESS", "part-00000.parquet", "part-00001.parquet"):
        (path / name).write_text(text)


def test_a_file_is_published_whole(tmp_path):
    """Nothing is at the path until the file is published, and nothing but the file is there afterwards."""
    path = tmp_path / "out.parquet"
    build(commit_to(path, "error"), before=lambda: [pytest.fail("early") for _ in [0] if path.exists()])
    assert names(tmp_path) == ["out.parquet"]
    assert path.read_text() == "new"


def test_a_folder_is_published_whole(tmp_path):
    """A folder has its parts, an empty _SUCCESS, and the manifest, which lists the parts."""
    path = tmp_path / "out"
    build(commit_to(str(path), "error"), summary={"n_rows": 3, "name": "é"})
    assert names(path) == ["_SUCCESS", "_batchmax.parquet", "part-00000.parquet", "part-00001.parquet"]
    assert names(tmp_path) == ["out", *(f"out/{name}" for name in names(path))]
    assert (path / "_SUCCESS").stat().st_size == 0
    parts = {"part-00000.parquet": 3, "part-00001.parquet": 3}
    assert read_manifest(path / "_batchmax.parquet") == Manifest(parts, {"n_rows": 3, "name": "é"})
    assert pq.read_table(path / "_batchmax.parquet").num_rows == 0


def test_a_slash_at_the_end_makes_a_folder(tmp_path):
    """A path that ends with a slash is that of a folder, even with the suffix of a file."""
    build(commit_to(f"{tmp_path}/out.parquet/", "error"))
    assert (tmp_path / "out.parquet" / "_SUCCESS").is_file()


@pytest.mark.parametrize("name", ["out.parquet", "out"])
def test_what_is_there_is_not_replaced_unasked(tmp_path, name):
    """Without overwrite, a file, a folder or a broken link at the path is an error."""
    path = tmp_path / name
    for make, clear in [
        (path.touch, path.unlink),
        (path.mkdir, path.rmdir),
        (lambda: path.symlink_to(tmp_path / "nothing"), path.unlink),
    ]:
        make()
        with pytest.raises(OutputError, match="the output exists; replace it: --if-exists overwrite"):
            commit_to(path, "error")
        clear()


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_appears_meanwhile_is_not_replaced(tmp_path, is_folder):
    """An output that appears at the path during the run stays, and ours is removed."""
    path = tmp_path / ("out" if is_folder else "out.parquet")

    def appear():
        if is_folder:
            path.mkdir()
            (path / "theirs").touch()
        else:
            path.write_text("theirs")

    with pytest.raises(OutputError) as caught:
        build(commit_to(path, "error"), before=appear)
    assert caught.value.where == str(path)
    assert names(tmp_path) == (["out", "out/theirs"] if is_folder else ["out.parquet"])
    assert is_folder or path.read_text() == "theirs"


def test_overwriting_a_file(tmp_path):
    """The old file stays until the new one is complete; a link is replaced, not its target."""
    path = tmp_path / "out.parquet"
    path.write_text("old")
    build(commit_to(path, "overwrite"), before=lambda: [pytest.fail("early") for _ in [0] if path.read_text() != "old"])
    assert path.read_text() == "new"
    other = tmp_path / "other"
    path.rename(other)
    path.symlink_to(other)
    build(commit_to(path, "overwrite"), "newer")
    assert (other.read_text(), path.read_text(), path.is_symlink()) == ("new", "newer", False)
    assert names(tmp_path) == ["other", "out.parquet"]


def test_overwriting_a_folder(tmp_path):
    """A folder that batchmax wrote is replaced as a whole; nothing of the old one is left."""
    path = tmp_path / "out"
    build(commit_to(path, "error"), "old")
    (path / "part-00007.parquet").touch()
    build(commit_to(path, "overwrite"), summary={"n_rows": 2})
    assert names(path) == ["_SUCCESS", "_batchmax.parquet", "part-00000.parquet", "part-00001.parquet"]
    assert (path / "part-00000.parquet").read_text() == "new"
    assert read_manifest(path / "_batchmax.parquet").summary == {"n_rows": 2}


def test_an_output_of_an_earlier_version_is_replaced(tmp_path):
    """A folder with a manifest next to it, as earlier versions wrote, is replaced together with the manifest."""
    path = tmp_path / "out"
    put(path, "old")
    (tmp_path / "out.batchmax.json").write_text(json.dumps(SUMMARY))
    build(commit_to(path, "overwrite"))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["out"]
    assert (path / "part-00000.parquet").read_text() == "new"


@pytest.mark.parametrize("change", ["_batchmax.parquet", "_SUCCESS", "notes.txt", "table.parquet"])
def test_a_folder_of_somebodys_is_never_replaced(tmp_path, change):
    """A folder without manifest or _SUCCESS, or with a file that isn't ours, is never replaced."""
    build(commit_to(tmp_path / "out", "error"), "old")
    path = tmp_path / "out" / change
    path.unlink() if path.exists() else path.touch()
    before = names(tmp_path)
    with pytest.raises(OutputError, match="not a folder that batchmax wrote"):
        commit_to(tmp_path / "out", "overwrite")
    assert names(tmp_path) == before


def test_a_file_and_a_folder_do_not_replace_each_other(tmp_path):
    """A file never replaces a folder, and a folder never replaces a file."""
    (tmp_path / "out.parquet").mkdir()
    (tmp_path / "out").write_text("old")
    for name in ("out.parquet", "out"):
        with pytest.raises(OutputError):
            commit_to(tmp_path / name, "overwrite")
    assert names(tmp_path) == ["out", "out.parquet"]


@pytest.mark.parametrize("name", ["out.parquet", "out"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(tmp_path, name, error):
    """After any exception the path is unchanged, and no hidden files are left."""
    build(commit_to(tmp_path / name, "error"), "old")
    before = names(tmp_path)

    def fail():
        raise error

    with pytest.raises(error):
        build(commit_to(tmp_path / name, "overwrite"), before=fail)
    assert names(tmp_path) == before


def write(path, number, *, ours=True):
    """Write a Parquet file of one number, with or without our metadata."""
    table = pa.table({"n": [number]})
    pq.write_table(table.replace_schema_metadata({"batchmax": "{}"}) if ours else table, path)


def hold(path, number, if_exists="overwrite"):
    commit = commit_to(path, if_exists, gated=True)
    with commit.building():
        filled(commit.main, lambda path: write(path, number))
        commit.main.part_sizes["part-00000.parquet"] = 1
        commit.main.prepare(write_manifest, SUMMARY)
        return commit.hold()


@pytest.mark.parametrize("name", ["out.parquet", "out"])
def test_holding_back(tmp_path, name):
    """A held output is complete, next to the path; with overwrite, the next held output replaces it."""
    build(commit_to(tmp_path / name, "error"), "old")
    before = set(names(tmp_path))
    for number in (1, 2):
        held = hold(tmp_path / name, number)
        assert held == str(tmp_path / f"{name}.held")
        assert pq.read_table(held)["n"].to_pylist() == [number]
    inside = {"_SUCCESS", "_batchmax.parquet", "part-00000.parquet"}
    parts = set() if name == "out.parquet" else {f"out.held/{one}" for one in inside}
    assert set(names(tmp_path)) == before | {f"{name}.held"} | parts


@pytest.mark.parametrize("name", ["out.parquet", "out"])
def test_a_held_output_is_not_replaced_unasked(tmp_path, name):
    """Without overwrite, an existing held output is an error before the job starts, with the command to remove it."""
    hold(tmp_path / name, 1, "error")
    before = names(tmp_path)
    message = r"there is already a held output; check it again: .*; or delete it: rm -r .*held$"
    with pytest.raises(OutputError, match=message):
        commit_to(tmp_path / name, "error", gated=True)
    assert names(tmp_path) == before
    commit_to(tmp_path / name, "error")


def theirs(held, kind):
    """Write something that isn't ours at the path of a held output."""
    if kind == "text":
        held.write_text("years of work")
    elif kind == "table":
        write(held, 1, ours=False)
    elif kind == "link":
        held.symlink_to("nothing")
    else:
        held.mkdir()
        write(held / "part-00000.parquet", 1, ours=kind != "tables")
        if kind != "no mark":
            (held / "_SUCCESS").touch()
        if kind == "notes":
            (held / "notes.txt").write_text("years of work")


@pytest.mark.parametrize("kind", ["text", "table", "link", "tables", "no mark", "notes"])
@pytest.mark.parametrize("name", ["out.parquet", "out"])
def test_what_somebody_called_held_is_never_replaced(tmp_path, name, kind):
    """A file or folder that batchmax didn't write is never replaced by a held output, even with overwrite."""
    theirs(tmp_path / f"{name}.held", kind)
    before = names(tmp_path)
    with pytest.raises(OutputError, match=r"is not one that batchmax wrote; move it: mv .*held .*held\.old, or name"):
        commit_to(tmp_path / name, "overwrite", gated=True)
    commit_to(tmp_path / name, "overwrite")
    assert names(tmp_path) == before


@pytest.mark.parametrize("content", ["years of work", '{"n_rows": 1}', "[1]", "[" * 100_000])
def test_only_a_manifest_of_an_earlier_version_is_removed(tmp_path, content):
    """A file with the manifest name of earlier versions stays unless it is such a manifest."""
    build(commit_to(tmp_path / "out", "error"))
    path = tmp_path / "out.batchmax.json"
    path.write_text(content)
    build(commit_to(tmp_path / "out", "overwrite"))
    assert path.read_text() == content


def content(folder):
    return {name: (folder / name).read_bytes() for name in names(folder) if (folder / name).is_file()}


@pytest.mark.parametrize("name", ["out.parquet", "out"])
@pytest.mark.parametrize("was_there", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_was_published_is_taken_back(tmp_path, name, was_there, error):
    """If the job fails after publishing, the previous content is restored, with its manifest."""
    if was_there:
        build(commit_to(tmp_path / name, "error"), "old", summary={"n_rows": 5})
    before = content(tmp_path)
    commit = commit_to(tmp_path / name, "overwrite")
    with pytest.raises(error), commit.building():  # noqa: PT012 - the block is what fails
        filled(commit.main, lambda path: path.write_text("new"))
        commit.main.prepare(write_manifest, SUMMARY)
        commit.publish()
        assert content(tmp_path) != before
        raise error
    assert content(tmp_path) == before


def test_an_output_of_an_earlier_version_is_restored(tmp_path):
    """If the job fails after replacing a folder of an earlier version, the folder and its manifest are restored."""
    put(tmp_path / "out", "old")
    (tmp_path / "out.batchmax.json").write_text(json.dumps(SUMMARY))
    before = content(tmp_path)
    commit = commit_to(tmp_path / "out", "overwrite")
    with pytest.raises(RuntimeError), commit.building():  # noqa: PT012 - the block is what fails
        filled(commit.main, lambda path: path.write_text("new"))
        commit.main.prepare(write_manifest, SUMMARY)
        commit.publish()
        raise RuntimeError
    assert content(tmp_path) == before


@pytest.mark.parametrize("suffix", [".parquet", ""])
@pytest.mark.parametrize("was_there", [False, True])
def test_rejects_go_with_the_output(tmp_path, suffix, was_there):
    """If the second of two outputs can't be published, the first is undone."""
    paths = [tmp_path / f"{stem}{suffix}" for stem in ("out", "rejects")]
    if was_there:
        build(commit_to(paths[1], "error"), "old")
    out, rejects = destination(paths[0], "error"), destination(paths[1], "overwrite")
    commit = Commit(out, rejects)
    before = content(tmp_path)
    with pytest.raises(OutputError, match="another run"), commit.building():  # noqa: PT012
        for output in commit.outputs:
            filled(output, lambda path: path.write_text("new"))
            output.prepare(write_manifest, SUMMARY)
        put(paths[0], "theirs")
        before |= {name: text for name, text in content(tmp_path).items() if name.startswith("out")}
        commit.publish()
    assert content(tmp_path) == before


def test_what_others_published_since_is_not_taken_back(tmp_path):
    """Undoing doesn't remove what another program has put at the path since."""
    path = tmp_path / "out.parquet"
    commit = commit_to(path, "error")
    with pytest.raises(RuntimeError), commit.building():  # noqa: PT012 - the block is what fails
        filled(commit.main, lambda path: path.write_text("new"))
        commit.main.prepare(write_manifest, SUMMARY)
        commit.publish()
        path.unlink()
        put(path, "theirs")
        raise RuntimeError
    assert content(tmp_path) == {"out.parquet": b"theirs"}


def test_a_manifest_that_cannot_be_written_leaves_the_old_folder(tmp_path):
    """If the manifest can't be written, the old folder stays unchanged."""
    build(commit_to(tmp_path / "out", "error"), "old")
    before = content(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    commit = commit_to(tmp_path / "out", "overwrite")
    with pytest.raises(OutputError, match="cannot be written: No space left on device"), commit.building():
        commit.main.prepare(full, SUMMARY)
    assert content(tmp_path) == before


def test_racing_runs_leave_one_whole_output(tmp_path):
    """Of concurrent runs that replace a folder, each publishes or fails because another run is making this output.

    The folder is of one run, and nothing else is left.
    """
    path = tmp_path / "out"
    build(commit_to(path, "error"), "old")
    said = []

    def run(number):
        for turn in range(20):
            try:
                build(commit_to(path, "overwrite"), f"{number} {turn}")
            except OutputError as error:
                said.append(str(error))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANGS)
        assert not thread.is_alive()
    assert len({(path / f"part-0000{part}.parquet").read_text() for part in (0, 1)} - {"old"}) == 1
    assert said
    assert all("another run is making this output" in line for line in said)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("name", ["out.parquet", "out"])
def test_two_runs_on_one_output(tmp_path, name):
    """A second run on an output fails, and doesn't change what the first one wrote."""
    with commit_to(tmp_path / name, "error").building():
        before = names(tmp_path)
        for if_exists in ("error", "overwrite", "resume"):
            with pytest.raises(OutputError, match="another run is making this output; wait for it"):
                build(commit_to(tmp_path / name, if_exists))
        assert names(tmp_path) == before
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["out.parquet", "out"])
def test_what_was_published_meanwhile_is_named_so(tmp_path, name):
    """If another run publishes first, the error says so, not that a directory isn't empty."""
    path = tmp_path / name
    with pytest.raises(OutputError, match=r"another run has published here in the meantime, and its output stays"):
        build(commit_to(path, "error"), before=lambda: put(path, "theirs"))
    assert set(content(tmp_path).values()) == {b"theirs"}
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", ["file", "link", "others"])
def test_a_hidden_folder_that_is_not_ours(tmp_path, kind):
    """A file, a link or another user's folder in place of the staging directory is neither used nor removed."""
    hidden = tmp_path / ".out.parquet.batchmax"
    if kind == "file":
        hidden.write_text("years of work")
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir()
        hidden.symlink_to(tmp_path / "elsewhere")
    else:
        hidden.mkdir()
        try:
            os.chown(hidden, 12345, 12345)
        except PermissionError:
            pytest.skip("only root gives folders away")
    before = names(tmp_path)
    with pytest.raises(OutputError, match=r"what is there is not a folder of yours; move it: mv "):
        build(commit_to(tmp_path / "out.parquet", "overwrite"))
    assert names(tmp_path) == before


@pytest.mark.parametrize("out", ["-", "s3://bucket/out", "gs://b/x.parquet", "file:///tmp/x"])
def test_what_is_no_path_is_refused(tmp_path, monkeypatch, out):
    """``-`` and URIs are rejected, and no folder with such a name is created."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"(must be a local path|or the output of score); name a path"):
        commit_to(out, "error")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["out.parquet", "out"])
def test_missing_parents_are_created(tmp_path, name):
    """Missing parent folders are created, and removed again if the job fails.

    Parents that existed before stay.
    """
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "far away" / "deep" / name

    def fail():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        build(commit_to(path, "error"), before=fail)
    assert names(tmp_path) == ["there"]
    build(commit_to(path, "error"), before=lambda: [pytest.fail("early") for _ in [0] if path.exists()])
    assert path.exists()
    assert names(path.parent)[0] == name


@pytest.mark.skipif(not os.access("/proc/self", os.F_OK), reason="needs /proc")
def test_a_parent_that_cannot_be_created():
    """A file system that reports a missing folder when one is created ends the run with an error."""
    with pytest.raises(OutputError, match="No such file or directory"):
        build(commit_to("/proc/x/out.parquet", "error"))


def test_a_parent_that_is_a_file(tmp_path):
    """A path below a file is an error before the job starts."""
    (tmp_path / "file").touch()
    for name in ("out.parquet", "out", "deep/out"):
        with pytest.raises(OutputError, match="file is not a folder, so nothing can be written below it"):
            commit_to(tmp_path / "file" / name, "error")


@pytest.mark.parametrize("out", ["", ".", "..", "/", "sub/.."])
def test_an_output_has_a_name(out):
    """A path that can't name a new file or folder is an error."""
    with pytest.raises(OutputError, match="no file or folder can be made under this name"):
        commit_to(out, "overwrite")


def test_a_name_that_the_system_refuses(tmp_path):
    """A name that is too long is an OutputError when the job starts."""
    with (
        pytest.raises(OutputError, match="cannot be written: File name too long"),
        commit_to(tmp_path / ("x" * 250), "error").building(),
    ):
        pytest.fail("the folder was made")
