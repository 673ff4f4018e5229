"""Tables of Delta Lake, Iceberg, Hudi and others, which may contain deleted rows, are refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchmax.cli.app import main
from batchmax.errors import DataError, UsageError
from batchmax.storage.input_files import find_files, find_inputs

UUID = "0199a2f4-1c2d-7e3f-8a4b-5c6d7e8f9a0b"

TABLES = {
    "Delta Lake": ("_delta_log/00000000000000000000.json", "part-00000.snappy.parquet", "delta_scan"),
    "Delta Lake, with a checkpoint alone": ("_delta_log/_last_checkpoint", "date=1/part-00000.parquet", "delta_scan"),
    "Iceberg": (f"metadata/00001-{UUID}.metadata.json", "data/00000-0-1.parquet", "iceberg_scan"),
    "Iceberg of a Hadoop catalog": ("metadata/v1.metadata.json", "data/day=1/00000-0-1.parquet", "iceberg_scan"),
    "Iceberg, compressed": (f"metadata/00001-{UUID}.gz.metadata.json", "data/0.parquet", "iceberg_scan"),
    "Iceberg, compressed, older": ("metadata/v3.metadata.json.gz", "data/0.parquet", "iceberg_scan"),
    "Hudi": (".hoodie/hoodie.properties", "2026/11/30/a_0-1-2_3.parquet", "hudi"),
    "Paimon": ("snapshot/snapshot-1", "bucket-0/data-1-0.parquet", "paimon"),
    "Spark structured streaming": ("_spark_metadata/0", "part-00000-c000.snappy.parquet", "spark.read"),
    "DuckLake": ("main", f"rows/ducklake-{UUID}.parquet", "ducklake:"),
    "DuckLake, its deletes": ("main", f"rows/ducklake-{UUID}-delete.parquet", "ducklake:"),
}
"""By name of the format and layout: a file of the log, a data file, and a word of the remedy."""


@pytest.fixture(params=TABLES)
def table(request, tmp_path, monkeypatch):
    """Make a table of each format in ``lake/table``; return the format, a data file and a word of the remedy."""
    log, data, remedy = TABLES[request.param]
    for name in (log, data):
        path = tmp_path / "lake" / "table" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return request.param.split(",")[0].split(" of")[0], data, remedy


def inputs_in_the_table(data):
    """Return inputs that name the table, a folder around it, or something in it."""
    folder = os.path.dirname(f"lake/table/{data}")  # noqa: PTH120 - a path as text
    return [
        "lake",
        "lake/table",
        "lake/table/",
        "./lake/../lake/table",
        folder,
        f"lake/table/{data}",
        f"{folder}/*",
        "lake/**/*.parquet",
        "lake/*",
        str(Path("lake/table", data).absolute()),
        Path("lake/table").absolute().as_uri(),
    ]


def test_a_table_is_refused_by_the_name_of_its_format(table):
    """A table is refused with exit code 2, its format and a remedy, for any path, glob or URI that includes it."""
    name, data, remedy = table
    for given in inputs_in_the_table(data):
        with pytest.raises(UsageError, match=rf"{name} table, and batchmax does not read its log") as caught:
            find_files([given])
        assert caught.value.exit_code == 2
        assert remedy in caught.value.remedy
        assert caught.value.where in {given, str(Path("lake/table").absolute())}


def test_a_table_is_found_behind_links_and_from_within(table, monkeypatch):
    """A table is detected through links to its files and folders, and from a working directory inside it."""
    name, data, _ = table
    Path("file.parquet").symlink_to(Path("lake/table", data))
    Path("folder").symlink_to(Path("lake/table", data).parent)
    for given in ("file.parquet", "folder", "folder/*.parquet"):
        with pytest.raises(UsageError, match=f"{name} table"):
            find_files([given])
    monkeypatch.chdir(Path("lake/table", data).parent)
    for given in (Path(data).name, ".", "*.parquet"):
        with pytest.raises(UsageError, match=f"{name} table"):
            find_files([given])


def test_files_next_to_a_table_are_read(table):
    """Files next to a table are read."""
    del table
    Path("lake/a.parquet").touch()
    assert find_files(["lake/a.parquet"]) == find_files(["lake/*.parquet"]) == ["lake/a.parquet"]


@pytest.mark.parametrize(
    "name", ["metadata/notes.json", "metadata/schema.parquet", "snapshot/a.parquet", "delta_log/0.json"]
)
def test_similar_names_are_no_table(tmp_path, name):
    """Folders named ``metadata`` or ``snapshot`` are Iceberg or Paimon tables only with files of these formats."""
    for one in (name, "data/a.parquet"):
        (tmp_path / one).parent.mkdir(exist_ok=True)
        (tmp_path / one).touch()
    assert str(tmp_path / "data/a.parquet") in find_files([tmp_path])


def test_folders_that_may_not_be_listed_around_an_input(tmp_path, monkeypatch):
    """An input is read even if a folder near it can't be listed."""
    (tmp_path / "metadata").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.parquet").touch()
    listdir = os.listdir

    def locked(path):
        if os.fspath(path).endswith("metadata"):
            raise PermissionError(13, "Permission denied", path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", locked)
    assert find_files([tmp_path / "data"]) == [str(tmp_path / "data/a.parquet")]


# Links and names


def test_each_folder_is_entered_once_through_links(tmp_path, monkeypatch):
    """Cyclic links end, and each file is found once, by its own path."""
    monkeypatch.chdir(tmp_path)
    for name in ("t/a.parquet", "t/sub/b.parquet", "t/sub/deep/c.parquet", "far/d.parquet"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("t/self").symlink_to(".")
    Path("t/sub/up").symlink_to("..")
    Path("t/sub/deep/over").symlink_to("../../../far")
    Path("t/again").symlink_to("sub")
    want = ["t/a.parquet", "t/sub/b.parquet", "t/sub/deep/c.parquet", "t/sub/deep/over/d.parquet"]
    for given in ("t", "t/", "t/**", "t/**/*.parquet", "t/**/**/*.parquet"):
        assert find_files([given]) == want
    assert find_files(["t/self/self/*.parquet"]) == ["t/self/self/a.parquet"]
    assert find_files(["t/*/b.parquet"]) == ["t/again/b.parquet"]
    assert find_files(["t/**/over/*"]) == ["t/sub/deep/over/d.parquet"]


def test_many_links_that_lead_around_end(tmp_path):
    """30 folders that all link to each other give each file once."""
    for number in range(30):
        (tmp_path / f"{number:02}").mkdir()
        (tmp_path / f"{number:02}/x.parquet").touch()
        for other in range(30):
            (tmp_path / f"{number:02}/to{other:02}").symlink_to(f"../{other:02}")
    want = [str(tmp_path / f"{number:02}/x.parquet") for number in range(30)]
    assert find_files([tmp_path]) == find_files([f"{tmp_path}/**/*.parquet"]) == want
    assert len(find_files([tmp_path / "00/to01/to02"])) == 30


def test_a_file_of_several_names_is_read_once_with_a_warning(tmp_path, monkeypatch):
    """The same path spelled differently, a symbolic link and a hard link are read once, under the first name."""
    monkeypatch.chdir(tmp_path)
    Path("a.parquet").write_text("a")
    Path("copy.parquet").write_text("a")
    Path("soft.parquet").symlink_to("a.parquet")
    Path("hard.parquet").hardlink_to("a.parquet")
    for again in (
        "a.parquet",
        "./a.parquet",
        "../" + tmp_path.name + "/a.parquet",
        "soft.parquet",
        "hard.parquet",
        "[a]*",
    ):
        found = find_inputs(["a.parquet", again, "copy.parquet"])
        assert found.files == ["a.parquet", "copy.parquet"]
        (warning,) = found.warnings
        assert warning.startswith("inputs that are named more than once are read once: ")
        assert again.strip("[]*") in warning
    found = find_inputs(["."])
    assert found.files == ["./a.parquet", "./copy.parquet"]
    assert "./hard.parquet (the same file as ./a.parquet), ./soft.parquet (the same" in found.warnings[0]
    assert find_inputs(["a.parquet", "copy.parquet"]).warnings == []


def test_a_warning_names_few_files(tmp_path):
    """The warning about repeated files names five, and the number of the others."""
    for number in range(30):
        (tmp_path / f"{number}.parquet").touch()
    (warning,) = find_inputs([tmp_path, tmp_path]).warnings
    assert warning.count(".parquet") == 5
    assert warning.endswith(" and 25 more")


def test_a_name_that_is_not_utf8(tmp_path):
    """A name that isn't valid UTF-8 is an error that shows the name in ASCII, however the file is named."""
    name = os.fsdecode(b"caf\xe9.parquet")
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    for given in (tmp_path / name, tmp_path, tmp_path / "*.parquet"):
        with pytest.raises(DataError, match="the name is not valid UTF-8") as caught:
            find_files([given])
        assert caught.value.where == rf"{tmp_path}/caf\xe9.parquet"


@pytest.mark.parametrize("command", [["-o", "X.parquet"], ["-o", "X"], ["-o", "o.parquet", "--rejects", "X.parquet"]])
def test_an_output_whose_name_is_not_utf8(command, tmp_path, monkeypatch, capsys):
    """An output whose name isn't valid UTF-8 is refused before anything is written."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"logits": [[0.0, 1.0]]}), "in.parquet")
    words = [word.replace("X", os.fsdecode(b"caf\xe9")) for word in command]
    assert main(["score", "in.parquet", *words, "--on-bad-row", "drop"]) == 1
    assert r"batchmax: error: caf\xe9" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]
