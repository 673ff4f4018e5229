"""Held outputs in object stores: they are published without scoring again, replaced, or refused."""

from __future__ import annotations

import os
import shutil

import pytest

import batchmax
from batchmax.errors import GateError, OutputError
from batchmax.jobs import part_writer
from batchmax.storage import object_store
from tests.support.paths import DATA
from tests.support.requirements import package
from tests.support.s3_server import get, keys, s3_proxy, s3_server, without_run  # noqa: F401 - fixtures

package("moto")

DIGITS = str(DATA / "digits.parquet")
GATE = "n_rows > 1"
OUTPUTS = {"out.parquet": "rejects.parquet", "out": "rejects"}


@pytest.fixture
def computed(monkeypatch):
    """Return a list that gets an item for every file that is computed."""
    calls = []
    run = part_writer.run_pipeline
    monkeypatch.setattr(part_writer, "run_pipeline", lambda *given, **named: calls.append(1) or run(*given, **named))
    return calls


def objects(proxy):
    return {without_run(key): get(proxy, key) for key in keys(proxy.client)}


def scored(proxy, out, rejects, **options):
    """Score the sample, whose column ``id`` isn't a valid label, and return the objects."""
    names = {"rejects": f"s3://bucket/{rejects}", "on_bad_row": "drop", "label": "id"}
    batchmax.score(DIGITS, f"s3://bucket/{out}", **names, **options)
    return objects(proxy)


def values(found):
    """Return the objects without manifests, which have the id of their run."""
    return {name: data for name, data in found.items() if not name.endswith("_batchmax.parquet")}


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same machine", "another machine"])
@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("exists", [False, True], ids=["new", "over another"])
def test_resume_publishes_a_held_output(proxy, computed, tmp_path, out, exists, elsewhere):
    """A run with ``resume`` whose gate passes publishes the held output without scoring again.

    On another machine, which doesn't have the journal, an existing output isn't replaced.
    """
    want = scored(proxy, out, OUTPUTS[out], temperature=1.0)
    for key in keys(proxy.client):
        proxy.client.delete_object(Bucket="bucket", Key=key)
    old = scored(proxy, out, OUTPUTS[out], temperature=2.0) if exists else {}
    with pytest.raises(GateError):
        scored(proxy, out, OUTPUTS[out], temperature=1.0, fail_if=GATE, if_exists="overwrite")
    held = objects(proxy)
    assert {name: held[name] for name in old} == old
    renamed = {name.replace(".held", ""): data for name, data in held.items() if ".held" in name}
    assert values(renamed) == values(want)
    with pytest.raises(GateError):
        scored(proxy, out, OUTPUTS[out], temperature=1.0, fail_if=GATE, if_exists="resume")
    assert objects(proxy) == held
    assert computed
    computed.clear()
    if elsewhere:
        for folder in tmp_path.glob("batchmax-*"):
            shutil.rmtree(folder)
        if exists:
            with pytest.raises(OutputError, match="another job, and complete: temperature"):
                scored(proxy, out, OUTPUTS[out], temperature=1.0, if_exists="resume")
            assert objects(proxy) == held
            return
    assert values(scored(proxy, out, OUTPUTS[out], temperature=1.0, if_exists="resume")) == values(want)
    assert not computed
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    assert batchmax.evaluate(f"s3://bucket/{out}", label="id", on_bad_row="null").n_rows > 0


def test_a_held_output_is_replaced_only_on_request(proxy):
    """Another run that may hold its output refuses to replace a held one, unless it overwrites."""
    for if_exists in ("error", "overwrite"):
        with pytest.raises(GateError):
            batchmax.score(DIGITS, "s3://bucket/out", fail_if=GATE, if_exists=if_exists)
    held = objects(proxy)
    with pytest.raises(OutputError, match=r"bucket/out\.held: there is already a held output"):
        batchmax.score(DIGITS, "s3://bucket/out", fail_if=GATE)
    with pytest.raises(OutputError, match="another job, and complete: temperature"):
        batchmax.score(DIGITS, "s3://bucket/out", fail_if=GATE, temperature=2.0, if_exists="resume")
    assert objects(proxy) == held


def test_an_interrupted_hold_is_completed(proxy, monkeypatch):
    """If the upload of ``_SUCCESS`` of a held folder fails, a run with ``resume`` repeats it."""
    write = object_store.Store.write

    def fail(store, data):
        if store.uri.startswith("s3://bucket/out.held"):
            raise OutputError("the store is full", where=store.uri)
        write(store, data)

    with monkeypatch.context() as patch:
        patch.setattr(object_store.Store, "write", fail)
        with pytest.raises(OutputError, match="the store is full"):
            scored(proxy, "out", "rejects", fail_if=GATE)
    assert "out.held/_SUCCESS" not in objects(proxy)
    with pytest.raises(GateError):
        scored(proxy, "out", "rejects", fail_if=GATE, if_exists="resume")
    found = objects(proxy)
    assert {"out.held/_SUCCESS", "rejects.held/_SUCCESS"} < found.keys()
    assert not any(name.startswith(("out/", "rejects/")) for name in found)


def test_an_output_that_was_published_after_the_hold_stays(proxy, tmp_path):
    """If a run on another machine has published since the output was held, the held output isn't published over it."""
    batchmax.score(DIGITS, "s3://bucket/out", temperature=2.0)
    with pytest.raises(GateError):
        batchmax.score(DIGITS, "s3://bucket/out", fail_if=GATE, if_exists="overwrite")
    (folder,) = tmp_path.glob("batchmax-*")
    folder.rename(tmp_path / "kept")
    batchmax.score(DIGITS, "s3://bucket/out", temperature=3.0, if_exists="overwrite")
    shutil.rmtree(folder)
    (tmp_path / "kept").rename(folder)
    there = objects(proxy)
    with pytest.raises(OutputError, match="another run has published here since the output was held"):
        batchmax.score(DIGITS, "s3://bucket/out", if_exists="resume")
    assert objects(proxy) == there


@pytest.mark.parametrize("over", [False, True])
def test_rejected_rows_in_a_store_are_held_with_a_local_output(proxy, tmp_path, over):
    """Rejected rows at a URI are held, and published, together with an output in a local folder."""
    out = str(tmp_path / "out")
    names = {"rejects": "s3://bucket/rejects", "on_bad_row": "drop", "label": "id"}
    if over:
        batchmax.score(DIGITS, out, temperature=2.0, **names)
    old = objects(proxy)
    with pytest.raises(GateError):
        batchmax.score(DIGITS, out, fail_if=GATE, if_exists="overwrite", **names)
    held = objects(proxy)
    assert {name: held[name] for name in old} == old
    batchmax.score(DIGITS, out, if_exists="resume", **names)
    renamed = {name.replace(".held", ""): data for name, data in held.items() if ".held" in name}
    assert values(objects(proxy)) == values(renamed)
    assert {path.name for path in tmp_path.iterdir()} <= {"out", f"batchmax-{os.getuid()}"}


@pytest.mark.parametrize("largest", [5 << 30, 1000], ids=["within the store", "through this machine"])
def test_copies_are_equal(proxy, monkeypatch, largest):
    """Objects larger than a store copies in one request are read and uploaded."""
    monkeypatch.setattr(object_store, "LARGEST_COPY", largest)
    monkeypatch.setattr(object_store, "PIECE", 300)
    data = bytes(range(250)) * 10
    store = object_store.store_of("s3://bucket/a")
    store.write(data)
    proxy.seen.clear()
    store.copy("s3://bucket/b")
    assert get(proxy, "b") == data
    assert any(method == "GET" for method, *_ in proxy.seen) == (largest < len(data))
