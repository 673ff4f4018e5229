"""Tests the manifest of an output folder: all readers accept it, and batchmax reads the parts that it lists."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import DataError
from batchmax.storage.input_files import find_files
from batchmax.storage.manifest import MANIFEST, Manifest, read_manifest, run_part, without_other_runs
from tests.support.requirements import is_older, package

N_ROWS = 30
RUNS = ("0a1b2c3d", "ffffffff")


@pytest.fixture
def inputs(tmp_path):
    """Write a file in each of the Hive partitions day=1 and day=2, and return the folder that contains them."""
    random = np.random.default_rng(0)
    for day in (1, 2):
        folder = tmp_path / "in" / f"day={day}"
        folder.mkdir(parents=True)
        columns = {
            "id": np.arange(N_ROWS),
            "text": pa.array([f"text {row % 3}" for row in range(N_ROWS)]).dictionary_encode(),
            "when": pa.array(np.arange(N_ROWS), pa.timestamp("us", "UTC")),
            "logits": list(random.normal(size=(N_ROWS, 4)).astype(np.float32)),
            "label": random.integers(0, 4, N_ROWS),
        }
        pq.write_table(pa.table(columns), folder / "x.parquet")
    return tmp_path / "in"


@pytest.fixture(params=["plain", "partitioned"])
def parent(request, inputs, tmp_path):
    """Score into a plain or partitioned folder; return its parent folder and the number of parts."""
    out = tmp_path / "parent" / "run"
    batchmax.score(inputs if request.param == "partitioned" else inputs / "day=1", out, outputs="probs,loss,status")
    return out.parent, 1 + (request.param == "partitioned")


def by_pandas(path):
    return len(package("pandas").read_parquet(path))


def by_polars(path):
    return package("polars").scan_parquet(f"{path}/").collect().height


def by_polars_glob(path):
    return package("polars").read_parquet(f"{path}/**/*.parquet").height


def by_duckdb(path):
    return package("duckdb").sql(f"select count(*) from '{path}/**/*.parquet'").fetchall()[0][0]


def by_dataset(path):
    return ds.dataset(path, partitioning="hive").to_table().num_rows


def by_parquet(path):
    return pq.read_table(path).num_rows


def by_datasets(path):
    load = package("datasets").load_dataset
    return load("parquet", data_files=f"{path}/**/*.parquet", split="train", cache_dir=f"{path}-cache").num_rows


def by_evaluate(path):
    return batchmax.evaluate(str(path)).n_rows


def by_files(path):
    return sum(pq.read_metadata(file).num_rows for file in find_files([path]))


READERS = [by_pandas, by_polars, by_polars_glob, by_duckdb, by_dataset, by_parquet, by_evaluate, by_files]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("below", ["run", "."])
def test_every_reader_accepts_it(parent, reader, below):
    """Every reader reads the rows of all parts, from the output folder and from its parent folder."""
    folder, n_files = parent
    assert reader(folder / below) == n_files * N_ROWS


def test_folders_named_key_value_stay_a_table(inputs, tmp_path):
    """The manifest of a partitioned output is in the folder of the first part, so that readers find all partitions."""
    out = tmp_path / "out"
    batchmax.score(inputs, out)
    assert [path.relative_to(out).as_posix() for path in out.rglob(MANIFEST)] == [f"day=1/{MANIFEST}"]
    sql = (
        f"select day, count(*) from read_parquet('{out}/**/*.parquet', hive_partitioning = true) group by 1 order by 1"
    )
    assert package("duckdb").sql(sql).fetchall() == [(1, N_ROWS), (2, N_ROWS)]
    frame = package("polars").scan_parquet(f"{out}/", hive_partitioning=True).collect()
    assert sorted(frame["day"].value_counts().rows()) == [(1, N_ROWS), (2, N_ROWS)]
    batchmax.verify(out, inputs)


def test_datasets_accepts_it(inputs, tmp_path):
    """Hugging Face datasets reads the parts; versions before 5.1 refuse a folder whose first file has no rows."""
    package("datasets")
    batchmax.score(inputs / "day=1", tmp_path / "out", outputs="probs,loss")
    if is_older("datasets", "5.1"):
        with pytest.raises(package("datasets.exceptions").DatasetGenerationError):
            by_datasets(tmp_path / "out")
    else:
        assert by_datasets(tmp_path / "out") == N_ROWS


def test_rejected_rows_have_one_too(inputs, tmp_path):
    """The folder of rejected rows has a manifest too, and readers accept it."""
    batchmax.score(inputs / "day=1", tmp_path / "out", on_bad_row="drop", rejects=str(tmp_path / "rejects"), label="id")
    manifest = read_manifest(tmp_path / "rejects" / MANIFEST)
    size = (tmp_path / "rejects" / "part-00000.parquet").stat().st_size
    assert manifest.parts == {"part-00000.parquet": size}
    for reader in READERS:
        if reader is not by_evaluate:
            assert reader(tmp_path / "rejects") == N_ROWS - 4


def test_a_part_that_is_missing_is_named(inputs, tmp_path):
    """A missing part that the manifest lists raises DataError, unless files are named or matched by a glob."""
    batchmax.score(inputs, tmp_path / "out")
    (tmp_path / "out" / "day=2" / "part-00000.parquet").unlink()
    for path in (tmp_path / "out", tmp_path):
        with pytest.raises(DataError, match=r"day=2/part-00000\.parquet: 1 part that the manifest lists is missing"):
            find_files([path])
    assert find_files([tmp_path / "out" / "*" / "part*"]) == [str(tmp_path / "out" / "day=1" / "part-00000.parquet")]


def test_parts_of_other_runs_are_left_out(inputs, tmp_path):
    """Of parts with run ids in their names, as in a copy of an object store, only those in the manifest are read."""
    out = tmp_path / "out"
    batchmax.score(inputs / "day=1", out)
    sizes = {}
    for run in RUNS:
        part = out / run_part("part-00000.parquet", run)
        shutil.copy(out / "part-00000.parquet", part)
        sizes[run] = {part.name: part.stat().st_size}
    (out / "part-00000.parquet").unlink()
    (out / MANIFEST).unlink()
    for _ in RUNS:
        with pytest.raises(
            DataError, match="out: the folder has parts of an output that isn't published, and no manifest"
        ):
            find_files([out])
        assert len(find_files([out / "part*"])) == 2
    schema = pq.read_schema(out / next(iter(sizes[RUNS[0]])))
    for generation, run in enumerate(RUNS, 1):
        text = Manifest(sizes[run], {}, run, generation).to_json()
        metadata = {"batchmax.manifest": text, "batchmax": "{}"}
        pq.write_table(schema.empty_table().replace_schema_metadata(metadata), out / MANIFEST)
        assert find_files([out]) == [str(out / next(iter(sizes[run])))]
        assert find_files([tmp_path / "o*"]) == [str(out / next(iter(sizes[run])))]
    (out / "notes.parquet").touch()
    assert len(find_files([out])) == 2


def test_the_latest_of_two_manifests_counts():
    """If two manifests exist, as while a partitioned output is replaced, that of the later generation counts."""
    old = Manifest({"day=1/part-00000-aaaaaaaa.parquet": 1}, {}, "aaaaaaaa", 4)
    new = Manifest({"day=2/part-00000-bbbbbbbb.parquet": 1}, {}, "bbbbbbbb", 5)
    manifests = {f"s3://b/out/{one.path}": one for one in (old, new)}
    names = [*manifests, *(f"s3://b/out/{part}" for one in (old, new) for part in one.parts)]
    for order in (names, names[::-1]):
        assert without_other_runs(order, manifests.get, whole=True) == ["s3://b/out/day=2/part-00000-bbbbbbbb.parquet"]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1PAR1", b"not Parquet"])
def test_what_is_no_manifest(inputs, data):
    """A file with the manifest's name that isn't a manifest is skipped like other hidden files."""
    (inputs / "day=1" / MANIFEST).write_bytes(data)
    assert read_manifest(inputs / "day=1" / MANIFEST) is None
    assert len(find_files([inputs])) == 2


def test_a_manifest_of_an_earlier_version_is_skipped(inputs, tmp_path):
    """A manifest of an earlier version is skipped if its folder is next to it; without a folder it is an input."""
    out = tmp_path / "parent" / "run"
    batchmax.score(inputs / "day=1", out)
    old = out.with_name("run.batchmax.json")
    old.write_text("{}")
    assert batchmax.evaluate(str(out.parent)).n_rows == N_ROWS
    shutil.rmtree(out)
    assert find_files([out.parent]) == [str(old)]


@pytest.mark.parametrize("words", [["calibrate", "-o"], ["evaluate", "-o"], ["show", "--worst", "3", "-o"]])
def test_every_output_gets_its_parents(inputs, tmp_path, words, capsys):
    """Commands create the missing parent folders of their output."""
    ending = "json" if words[0] == "calibrate" else "parquet"
    out = tmp_path / "new" / "deep" / f"o.{ending}"
    assert main([*words[:1], str(inputs / "day=1" / "x.parquet"), *words[1:], str(out), "-q"]) == 0, capsys.readouterr()
    assert [path.name for path in out.parent.iterdir()] == [out.name]
