"""Object stores, tested with an S3 server and a failing proxy: requests are retried, or end with a one-line error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import BadRowError, DataError, OutputError, UsageError
from batchmax.jobs import pipeline as loop
from batchmax.jobs import score
from batchmax.storage import object_store
from batchmax.storage.input_files import find_files
from batchmax.storage.manifest import MANIFEST, read_manifest
from batchmax.storage.object_store import store_of
from batchmax.storage.range_cache import coalesced
from tests.support.failing_proxy import Fault
from tests.support.paths import DATA
from tests.support.requirements import package
from tests.support.s3_server import SECRET, below, get, keys, put, s3_proxy, s3_server, stored, without_run  # noqa: F401 - fixtures

package("moto")


@pytest.fixture
def big(tmp_path):
    """Write a file of many row groups with an unneeded column, and return its path."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(60_000, 50)).astype(np.float32)
    table = pa.table(
        {
            "id": np.arange(len(logits)),
            "large": random.bytes(1) and pa.array([random.bytes(200) for _ in range(len(logits))]),
            "logits": pa.FixedSizeListArray.from_arrays(logits.ravel(), 50),
            "label": random.integers(0, 50, len(logits)),
        }
    )
    path = tmp_path / "big.parquet"
    pq.write_table(table, path, row_group_size=6000)
    return path


# Reading


def test_from_a_store_as_from_a_disk(proxy, tmp_path):
    """Every layout of the sample data gives the same bytes from the store as from disk."""
    paths = sorted(path for path in DATA.rglob("*.parquet") if "spark" not in path.name)
    assert len(paths) > 5
    for number, path in enumerate(paths):
        put(proxy, path, f"in/{number}.parquet")
        options = {"logits_dtype": "bfloat16"} if "bfloat16" in path.name else {}
        here, there = (str(tmp_path / f"{name}.parquet") for name in ("here", "there"))
        try:
            batchmax.score(str(path), here, if_exists="overwrite", **options)
        except (UsageError, DataError):
            continue
        batchmax.score(f"s3://bucket/in/{number}.parquet", there, if_exists="overwrite", **options)
        assert Path(here).read_bytes() == Path(there).read_bytes(), path


def test_what_a_uri_names(proxy):
    """A prefix gives its visible objects in bytewise order; ``*`` doesn't match slashes, ``**`` does."""
    for key in (
        "in/b.parquet",
        "in/a.parquet",
        "in/_tmp/x.parquet",
        "in/day=1/c.parquet",
        "in/.hidden",
        "in-other/d.parquet",
    ):
        proxy.client.put_object(Bucket="bucket", Key=key, Body=b"x")
    assert find_files(["s3://bucket/in"]) == [f"s3://bucket/in/{name}.parquet" for name in ("a", "b", "day=1/c")]
    assert find_files(["s3://bucket/in/*.parquet"]) == [f"s3://bucket/in/{name}.parquet" for name in ("a", "b")]
    assert find_files(["s3://bucket/in*/**/[cd].parquet"]) == [
        "s3://bucket/in-other/d.parquet",
        "s3://bucket/in/day=1/c.parquet",
    ]
    assert find_files(["s3://bucket/in/a.parquet"]) == ["s3://bucket/in/a.parquet"]
    # A folder that matches is read, as in a file system.
    assert find_files(["s3://bucket/i*"]) == [
        *("s3://bucket/in-other/d.parquet", "s3://bucket/in/a.parquet", "s3://bucket/in/b.parquet"),
        "s3://bucket/in/day=1/c.parquet",
    ]
    assert find_files(["s3://bucket/in/d*"]) == find_files(["s3://bucket/in/*/"]) == ["s3://bucket/in/day=1/c.parquet"]
    assert find_files(["s3://bucket/in/**"]) == find_files(["s3://bucket/in"])
    for nothing in ("s3://bucket/none", "s3://bucket/no*", "s3://nobucket/x"):
        with pytest.raises(DataError, match=r"no such object|no files match"):
            find_files([nothing])
    assert find_files([(DATA / "digits.parquet").as_uri()]) == [str(DATA / "digits.parquet")]


def test_only_what_is_needed_is_fetched(proxy, big, tmp_path):
    """Few requests are made per row group, and columns that aren't needed aren't fetched."""
    put(proxy, big, "big.parquet")
    proxy.seen.clear()
    batchmax.score("s3://bucket/big.parquet", str(tmp_path / "o.parquet"), outputs="loss", columns="id")
    ranges = [range_ for method, _, range_ in proxy.seen if method == "GET" and range_]
    fetched = sum(int(end) - int(start) + 1 for start, end in (one[6:].split("-") for one in ranges))
    assert fetched < big.stat().st_size * 0.7
    assert len(ranges) <= 3 * 10 + 2
    batchmax.score(str(big), str(tmp_path / "l.parquet"), outputs="loss", columns="id")
    assert (tmp_path / "o.parquet").read_bytes() == (tmp_path / "l.parquet").read_bytes()


def test_ranges_that_are_near_go_together():
    """Ranges with gaps of up to 1 MiB are merged, in order."""
    assert list(coalesced([])) == []
    assert list(coalesced([(5, 9), (0, 3)])) == [(0, 9)]
    far = 2 << 20
    assert list(coalesced([(far, far + 2), (0, 3), (1, 2), (3, 8)])) == [(0, 8), (far, far + 2)]


@pytest.mark.parametrize("kind", ["500", "cut", "slow"])
def test_what_may_pass_is_tried_again(proxy, big, tmp_path, kind):
    """After errors, interrupted connections and slow answers, the output has the same bytes."""
    put(proxy, big, "big.parquet")
    batchmax.score(str(big), str(tmp_path / "l.parquet"))
    proxy.faults = [Fault(kind, times=4, after=3), Fault(kind, "HEAD", times=1)]
    batchmax.score("s3://bucket/big.parquet", str(tmp_path / "o.parquet"))
    assert proxy.faults[0].times == 0
    assert (tmp_path / "o.parquet").read_bytes() == (tmp_path / "l.parquet").read_bytes()


@pytest.mark.parametrize("kind", ["500", "cut"])
def test_what_does_not_pass_is_one_line(proxy, big, tmp_path, kind, capsys, monkeypatch):
    """A failing store ends with exit code 1, the URI, no credentials, and no output."""
    monkeypatch.setattr(object_store, "MAX_ATTEMPTS", 2)
    put(proxy, big, "big.parquet")
    proxy.faults = [Fault(kind, times=10_000, after=2)]
    assert main(["score", "s3://bucket/big.parquet", "-o", str(tmp_path / "o.parquet")]) == 1
    err = capsys.readouterr().err.strip()
    assert err.splitlines()[-1].startswith("batchmax: error: s3://bucket/big.parquet")
    assert "the object store failed" in err
    assert SECRET not in err
    assert not (tmp_path / "o.parquet").exists()


def test_an_object_that_changes_meanwhile(proxy, big, tmp_path, monkeypatch):
    """An object that changes while it is read is an error."""
    put(proxy, big, "big.parquet")
    real = object_store.Store.info

    def found(self):
        info = real(self)
        n_reads = sum(range_ is not None for method, _, range_ in proxy.seen if method == "GET")
        # The footer is the first read.
        return info if n_reads < 2 else object_store.ObjectInfo(info.uri, info.size, info.mtime_ns + 1)

    monkeypatch.setattr(object_store.Store, "info", found)
    with pytest.raises(DataError, match="was changed while it was being read"):
        batchmax.score("s3://bucket/big.parquet", str(tmp_path / "o.parquet"))


def test_a_table_in_a_store(proxy, big):
    """Delta Lake and Iceberg tables are refused for any path in them, with requests bounded by the path's depth."""
    put(proxy, big, "lake/table/day=1/a.parquet")
    put(proxy, big, "lake/other/data/b.parquet")
    for key in ("lake/table/_delta_log/00000000000000000000.json", "lake/other/metadata/v1.metadata.json"):
        proxy.client.put_object(Bucket="bucket", Key=key, Body=b"{}")
    for given in (
        "lake/table",
        "lake/table/",
        "lake/table/day=1",
        "lake/table/day=1/a.parquet",
        "lake/t*/**/*.parquet",
    ):
        with pytest.raises(UsageError, match="is a Delta Lake table"):
            find_files([f"s3://bucket/{given}"])
    for given in ("lake/other", "lake/other/data/b.parquet"):
        with pytest.raises(UsageError, match="is an Iceberg table"):
            find_files([f"s3://bucket/{given}"])
    put(proxy, big, "plain/a.parquet")
    for number in range(4):
        proxy.client.put_object(Bucket="bucket", Key=f"plain/sub{number}/x.parquet", Body=b"x")
    for given, n_files, n_folders in (("plain", 5, 1), ("plain/*/x.parquet", 4, 1), ("plain/sub1/x.parquet", 1, 3)):
        proxy.seen.clear()
        assert len(find_files([f"s3://bucket/{given}"])) == n_files
        assert len(proxy.seen) <= 4 + 6 * n_folders


def test_folders_around_an_object_that_may_not_be_looked_at(proxy, big, monkeypatch):
    """An object is read even if the store refuses to list the folders around it."""
    put(proxy, big, "deep/a.parquet")
    put(proxy, big, "deep/_delta_log/0.json")

    def refuse(_):
        raise PermissionError(13, "ACCESS_DENIED")

    monkeypatch.setattr("batchmax.storage.table_search._markers_at", refuse)
    assert find_files(["s3://bucket/deep/a.parquet"]) == ["s3://bucket/deep/a.parquet"]


# Writing


def uploaded(proxy, folder, *names):
    """Return whether the outputs in the store equal those in a folder, and nothing else is there."""
    assert {key.split("/")[0] for key in keys(proxy.client)} == set(names)
    for name in names:
        path = folder / name
        if path.is_file():
            assert get(proxy, name) == path.read_bytes()
            continue
        here, there = below(path), stored(proxy, name)
        assert here.keys() == there.keys() == {"part-00000.parquet", "_SUCCESS", MANIFEST}
        ours, theirs = (read_manifest(one.pop(MANIFEST)) for one in (here, there))
        assert here == there
        assert theirs.summary == ours.summary
        assert list(map(without_run, theirs.parts)) == list(ours.parts)
        assert list(theirs.parts.values()) == list(ours.parts.values())
    return True


@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_what_arrives_is_what_is_made_here(proxy, tmp_path, out):
    """A file or folder in the store equals the local one; it can be refused, resumed or overwritten."""
    source = str(DATA / "digits.parquet")
    here = str(tmp_path / out)
    local_rejects = str(tmp_path / f"rejects{out[3:]}")
    options = {"on_bad_row": "drop", "label": "id", "rejects": local_rejects}
    batchmax.score(source, here, **options)
    uri, options["rejects"] = f"s3://bucket/{out}", f"s3://bucket/rejects{out[3:]}"
    batchmax.score(source, uri, **options)
    assert uploaded(proxy, tmp_path, out, f"rejects{out[3:]}")
    with pytest.raises(OutputError, match="the output exists"):
        batchmax.score(source, uri, **options)
    assert batchmax.score(source, uri, if_exists="resume", **options).n_rows == 899
    with pytest.raises(OutputError, match="another job, and complete: temperature"):
        batchmax.score(source, uri, if_exists="resume", temperature=2.0, **options)
    batchmax.score(source, uri, if_exists="overwrite", temperature=2.0, **options)
    batchmax.score(source, here, if_exists="overwrite", temperature=2.0, **options | {"rejects": local_rejects})
    assert uploaded(proxy, tmp_path, out, f"rejects{out[3:]}")
    assert batchmax.evaluate(uri, label="id", on_bad_row="null").n_rows > 0
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_a_failure_in_the_middle_shows_nothing(proxy, big, monkeypatch, tmp_path):
    """If an upload of several pieces fails, the old object stays, and the next run uploads the file."""
    monkeypatch.setattr(object_store, "MAX_ATTEMPTS", 2)
    proxy.client.put_object(Bucket="bucket", Key="out.parquet", Body=b"years of work")
    proxy.faults = [Fault("500", "PUT", "out.parquet", times=10_000, after=1)]
    options = {"outputs": "probs,log_probs,loss", "dtype": "float64", "if_exists": "overwrite", "compression": "none"}
    with pytest.raises(OutputError, match=r"s3://bucket/out\.parquet: the object store failed") as caught:
        batchmax.score(str(big), "s3://bucket/out.parquet", **options)
    assert "resume" in "".join(getattr(caught.value, "__notes__", ()))
    assert get(proxy, "out.parquet") == b"years of work"
    proxy.faults = []
    batchmax.score(str(big), str(tmp_path / "l.parquet"), **options)
    batchmax.score(str(big), "s3://bucket/out.parquet", **options | {"if_exists": "resume"})
    assert get(proxy, "out.parquet") == (tmp_path / "l.parquet").read_bytes()


def test_a_folder_is_not_whole_without_its_last_file(proxy, tmp_path, monkeypatch):
    """Parts are uploaded as they are made, _SUCCESS last; a failed run resumes without uploading them again."""
    monkeypatch.setattr(object_store, "MAX_ATTEMPTS", 2)
    table = pq.read_table(DATA / "digits.parquet")
    (tmp_path / "in").mkdir()
    for number in range(4):
        pq.write_table(table.slice(200 * number, 200), tmp_path / "in" / f"{number}.parquet")
    proxy.faults = [Fault("500", "PUT", "part-00002", times=10_000)]
    with pytest.raises(OutputError, match="part-00002"):
        batchmax.score(str(tmp_path / "in"), "s3://bucket/out")
    assert list(map(without_run, keys(proxy.client))) == ["out/part-00000.parquet", "out/part-00001.parquet"]
    proxy.faults, proxy.seen[:] = [], []
    batchmax.score(str(tmp_path / "in"), "s3://bucket/out", if_exists="resume")
    assert not [path for method, path, _ in proxy.seen if method in {"PUT", "POST"} and "part-00000" in path]
    batchmax.score(str(tmp_path / "in"), str(tmp_path / "here"))
    here, there = below(tmp_path / "here"), stored(proxy, "out")
    manifests = [one.pop(MANIFEST) for one in (here, there)]
    assert here == there
    assert len({json.dumps(read_manifest(one).summary) for one in manifests}) == 1


def test_a_gate_holds_it_back(proxy):
    """A failed gate uploads the output under the name of a held output; the old object stays."""
    proxy.client.put_object(Bucket="bucket", Key="out.parquet", Body=b"old")
    gate = ["--if-exists", "overwrite", "--fail-if", "n_rows > 1"]
    assert main(["score", str(DATA / "digits.parquet"), "-o", "s3://bucket/out.parquet", *gate]) == 4
    assert get(proxy, "out.parquet") == b"old"
    assert keys(proxy.client) == ["out.parquet", "out.parquet.held"]


# Folders that are replaced


@pytest.fixture
def four(tmp_path):
    """Write four files, and return their folder."""
    table = pq.read_table(DATA / "digits.parquet")
    (tmp_path / "in").mkdir()
    for number in range(4):
        pq.write_table(table.slice(200 * number, 200), tmp_path / "in" / f"{number}.parquet")
    return tmp_path / "in"


def parts_below(client, prefix="out/"):
    return [key for key in keys(client) if key.startswith(prefix) and "part-" in key]


def test_an_overwriting_run_that_fails_leaves_the_old_output(proxy, four, monkeypatch):
    """Until the manifest is replaced, commands read the old parts; a run that resumes replaces them."""
    monkeypatch.setattr(object_store, "MAX_ATTEMPTS", 1)
    old = batchmax.score(four, "s3://bucket/out", temperature=2.0)
    before = {key: get(proxy, key) for key in keys(proxy.client)}
    proxy.faults = [Fault("500", "PUT", "part-00002", times=10_000)]
    with pytest.raises(OutputError, match="part-00002"):
        batchmax.score(four, "s3://bucket/out", if_exists="overwrite")
    assert len(parts_below(proxy.client)) == 6
    assert find_files(["s3://bucket/out"]) == [
        f"s3://bucket/{key}" for key in parts_below(proxy.client) if key in before
    ]
    assert find_files(["s3://bucket/out/*.parquet", "s3://bucket/o*/part*"]) == find_files(["s3://bucket/out"])
    assert batchmax.evaluate("s3://bucket/out").mean_loss == pytest.approx(old.mean_loss)
    proxy.faults = []
    new = batchmax.score(four, "s3://bucket/out", if_exists="resume")
    assert batchmax.evaluate("s3://bucket/out").mean_loss == pytest.approx(new.mean_loss)
    assert len(parts_below(proxy.client)) == 4
    assert not set(parts_below(proxy.client)) & before.keys()


@pytest.mark.parametrize("over", [False, True])
def test_a_bad_row_in_the_last_file_leaves_nothing_of_the_run(proxy, four, over):
    """A run that fails for good deletes the parts that it uploaded, and no others."""
    if over:
        batchmax.score(four, "s3://bucket/out", temperature=2.0)
    before = {key: get(proxy, key) for key in keys(proxy.client)}
    table = pq.read_table(four / "3.parquet")
    labels = pa.array([99] * len(table), table.schema.field("label").type)
    position = table.schema.get_field_index("label")
    pq.write_table(table.set_column(position, table.schema.field("label"), labels), four / "3.parquet")
    with pytest.raises(BadRowError):
        batchmax.score(four, "s3://bucket/out", if_exists="overwrite")
    assert [path for method, path, _ in proxy.seen if method == "PUT" and "part-00002" in path]
    assert {key: get(proxy, key) for key in keys(proxy.client)} == before


@pytest.mark.parametrize("name", ["_batchmax.parquet", "_SUCCESS"])
@pytest.mark.parametrize("over", [False, True])
def test_a_run_that_ends_before_its_last_object_is_finished(proxy, four, monkeypatch, name, over):
    """If only the manifest or _SUCCESS is missing, a run that resumes uploads only these."""
    monkeypatch.setattr(object_store, "MAX_ATTEMPTS", 1)
    if over:
        batchmax.score(four, "s3://bucket/out", temperature=2.0)
    proxy.faults = [Fault("500", "POST", f"out/{name}", times=10_000)]
    with pytest.raises(OutputError, match=name) as caught:
        batchmax.score(four, "s3://bucket/out", if_exists="overwrite" if over else "error")
    assert "resume" in "".join(caught.value.__notes__)
    proxy.faults, proxy.seen[:] = [], []
    assert batchmax.score(four, "s3://bucket/out", if_exists="resume").n_rows == 800
    assert not [path for method, path, _ in proxy.seen if method in {"PUT", "POST"} and "part-" in path]
    assert batchmax.evaluate("s3://bucket/out").n_rows == 800
    assert list(map(without_run, keys(proxy.client))) == [
        "out/_SUCCESS", f"out/{MANIFEST}", *(f"out/part-0000{number}.parquet" for number in range(4)),
    ]  # fmt: skip


@pytest.mark.parametrize("if_exists", ["error", "overwrite", "resume"])
@pytest.mark.parametrize("name", ["table.parquet", "part-00000.parquet", "deep/notes.txt"])
def test_objects_of_somebody_else_are_never_deleted(proxy, if_exists, name):
    """A folder isn't written where foreign objects exist, and they stay."""
    proxy.client.put_object(Bucket="bucket", Key=f"out/{name}", Body=b"years of work")
    with pytest.raises(OutputError, match=rf"batchmax did not write everything that is there \({name}\)"):
        batchmax.score(str(DATA / "digits.parquet"), "s3://bucket/out", if_exists=if_exists)
    assert keys(proxy.client) == [f"out/{name}"]
    assert get(proxy, f"out/{name}") == b"years of work"


def test_an_output_of_an_earlier_version(proxy, four, tmp_path):
    """An output of an earlier version, with no run in the names of its parts, is read and replaced."""
    batchmax.score(four, str(tmp_path / "out"))
    summary = read_manifest(tmp_path / "out" / MANIFEST).summary
    (tmp_path / "out" / MANIFEST).unlink()
    for path in (tmp_path / "out").iterdir():
        put(proxy, path, f"out/{path.name}")
    proxy.client.put_object(Bucket="bucket", Key="out.batchmax.json", Body=json.dumps(summary).encode())
    assert batchmax.evaluate("s3://bucket/out").n_rows == 800
    assert batchmax.score(four, "s3://bucket/out", if_exists="resume").n_rows == 800
    assert len(find_files(["s3://bucket"])) == 5
    batchmax.score(four, "s3://bucket/out", if_exists="overwrite")
    assert len(keys(proxy.client)) == 6
    assert all(key == without_run(key) or "part-" in key for key in keys(proxy.client))
    assert len(find_files(["s3://bucket/out"])) == 4


def test_parts_that_another_run_deleted(proxy, four, monkeypatch):
    """A manifest that lists missing objects is never published."""

    class Deleter(loop.Progress):
        def advance(self, rows, n_bytes):
            del rows, n_bytes
            for key in parts_below(proxy.client):
                proxy.client.delete_object(Bucket="bucket", Key=key)

    with pytest.raises(OutputError, match="parts of the output were deleted while the run was going on"):
        score.score(four, "s3://bucket/out", progress=Deleter())
    assert not [key for key in keys(proxy.client) if "part-" not in key]
    monkeypatch.undo()


# Messages


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["s3://key:secret@bucket/x", "-o", "o.parquet"], "URI contains credentials"),
        (["nowhere://x", "-o", "o.parquet"], "nowhere:// is not supported"),
        (["s3://bucket/x", "-o", "o.parquet", "--storage-option", "secret"], "expected K=V"),
        (
            ["s3://bucket/x", "-o", "o.parquet", "--storage-option", "nonsense=secret"],
            "invalid options of s3:// (nonsense)",
        ),
        (["in.parquet", "-o", "s3://bucket/out", "--shard", "0/2"], "shards meet in a folder"),
    ],
)
@pytest.mark.usefixtures("proxy")
def test_what_cannot_be(words, message, tmp_path, monkeypatch, capsys):
    """Invalid arguments end with exit code 2, and the message contains no secret."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.parquet").write_bytes((DATA / "digits.parquet").read_bytes())
    assert main(["score", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "secret" not in err.replace("AWS_SECRET_ACCESS_KEY", "")


def test_options_of_the_store_are_said_nowhere(proxy, tmp_path, capsys, monkeypatch):
    """Storage options work, and appear neither in the messages nor in the plan nor in the output."""
    put(proxy, DATA / "digits.parquet", "in.parquet")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    options = [f"endpoint_override={proxy.url[7:]}", "scheme=http", "access_key=key", f"secret_key={SECRET}"]
    words = [word for option in options for word in ("--storage-option", option)]
    out = tmp_path / "o.parquet"
    assert main(["score", "s3://bucket/in.parquet", "-o", str(out), *words, "-v"]) == 0
    plan = ["--dry-run", "--json", "--if-exists", "overwrite"]
    assert main(["score", "s3://bucket/in.parquet", "-o", str(out), *words, *plan]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["plan"]["inputs"][0]["path"] == "s3://bucket/in.parquet"
    assert SECRET not in said.out + said.err
    assert SECRET.encode() not in out.read_bytes()


@pytest.mark.usefixtures("proxy")
def test_the_store_itself():
    """Small objects are written, read, found, listed and deleted."""
    store = store_of("s3://bucket/a/b.txt")
    assert store.info() is None
    store.write(b"hello")
    assert (store.info().size, store.read(1, 3)) == (5, b"ell")
    assert [one.uri for one in store_of("s3://bucket/a").list_below()] == ["s3://bucket/a/b.txt"]
    store.delete()
    store.delete()
    assert store.info() is None
    with pytest.raises(DataError, match="no such object"):
        store.read(0, 1)
    memory = store_of("memory://x/y.txt")
    memory.write(b"abc")
    assert memory.read(0, 3) == b"abc"


FILE_SYSTEM = """
import pandas, scipy
from fsspec.implementations.memory import MemoryFileSystem
"""
COMMAND = """
import fsspec, sys
from batchmax.cli.app import main
fsspec.register_implementation("mine", "mine.MemoryFileSystem")
sys.argv[1:] = ["inspect", "mine://nowhere/x.parquet"]
sys.exit(main())
"""


def test_file_systems_import_what_the_command_line_does_not_need(tmp_path):
    """Packages hidden from Numba and pyarrow can be imported by file systems."""
    package("fsspec")
    package("pandas")
    package("scipy")
    (tmp_path / "mine.py").write_text(FILE_SYSTEM)
    ran = subprocess.run([sys.executable, "-c", COMMAND], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    assert "no such object" in ran.stderr
