"""Tests that the sample data are as described in ``data/README.md``, and that ``scripts/make_data.py`` makes them."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.paths import ROOT
from tests.support.requirements import package

DATA = ROOT / "data"


def load_script():
    """Import ``scripts/make_data.py``, which isn't in a package."""
    spec = importlib.util.spec_from_file_location("make_data", ROOT / "scripts" / "make_data.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


make_data = load_script()


@pytest.fixture(autouse=True)
def _no_block_of_another_size():
    make_data.block.cache_clear()


def read_logits(path, layout):
    """Return the logits of a file in any layout as float64 (n_rows, n_classes)."""
    table = pq.read_table(path)
    if layout == "wide":
        names = [name for name in table.column_names if name.startswith("logit_")]
        assert names == [f"logit_{k}" for k in range(len(names))]
        return np.array([table[name].to_pylist() for name in names], dtype=np.float64).T
    if layout == "nested":
        return np.array([row["logits"] for row in table["outputs"].to_pylist()], dtype=np.float64)
    rows = table["logits"].to_pylist()
    if layout == "binary":
        return np.array([struct.unpack(f"<{len(row) // 4}f", row) for row in rows], dtype=np.float64)
    if layout == "bfloat16":
        return np.array([[struct.unpack("<f", struct.pack("<I", bits << 16))[0] for bits in row] for row in rows])
    if layout == "spark":
        assert all((row["type"], row["size"], row["indices"]) == (1, None, None) for row in rows)
        return np.array([row["values"] for row in rows])
    return np.array([list(row) for row in rows], dtype=np.float64)


def as_stored(logits, layout):
    """Return float32 logits rounded to a layout's element type; bfloat16 isn't rounded, only compared within 2^-8."""
    if layout == "list_int":
        return np.rint(logits)
    return logits.astype(np.float16).astype(np.float64) if layout == "list_float16" else logits


def assert_holds(path, layout, logits):
    got = read_logits(path, layout)
    if layout == "bfloat16":
        np.testing.assert_allclose(got, logits, rtol=2**-8, atol=0)
    else:
        np.testing.assert_array_equal(got, as_stored(logits, layout))


def test_remaking_changes_nothing(tmp_path):
    """Two runs of the script give the same bytes, and the same file names and digits as ``data/`` without bench."""
    for name in ("one", "two"):
        make_data.make_data(tmp_path / name)
    made = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    kept = sorted(path.relative_to(DATA) for path in DATA.rglob("*.*") if path.name != "README.md")
    kept = [path for path in kept if path.parts[0] != "bench"]
    assert made == kept
    for path in made:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path
    remade, digits = (
        pq.read_table(tmp_path / "one" / "digits.parquet"),
        pq.read_table(DATA / "digits.parquet"),
    )
    assert remade.drop(["logits"]).equals(digits.drop(["logits"]))
    # Not bit-identical: another BLAS adds in another order, and training amplifies the difference.
    np.testing.assert_allclose(
        read_logits(tmp_path / "one" / "digits.parquet", "list"),
        read_logits(DATA / "digits.parquet", "list"),
        atol=0.05,
    )


def test_digits_are_a_real_model_on_images_it_has_not_seen():
    """The logits in ``digits.parquet`` agree with a scikit-learn network trained on the images that aren't in it."""
    load_digits = package("sklearn.datasets").load_digits
    classifier = package("sklearn.neural_network").MLPClassifier
    images, labels = load_digits(return_X_y=True)
    table = pq.read_table(DATA / "digits.parquet")
    ids = table["id"].to_numpy()
    np.testing.assert_array_equal(table["label"].to_numpy(), labels[ids])
    seen = np.setdiff1d(np.arange(len(labels)), ids)
    assert (len(ids), len(seen)) == (899, 898)
    logits = read_logits(DATA / "digits.parquet", "list")
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    accuracy = np.mean(logits.argmax(axis=1) == labels[ids])
    assert 0.9 < accuracy < 1.0
    # A network trained here on the other images gives similar predictions.
    network = classifier(hidden_layer_sizes=(32,), max_iter=1000, random_state=1)
    network.fit(images[seen] / 16.0, labels[seen])
    assert np.mean(network.predict(images[ids] / 16.0) == logits.argmax(axis=1)) > 0.9
    assert np.abs(network.predict_proba(images[ids] / 16.0) - probs).mean() < 0.03


@pytest.mark.parametrize("layout", make_data.LAYOUTS)
def test_each_layout_holds_the_same_digits(layout):
    """Each file in ``data/layouts`` has the first rows of ``digits.parquet``, rounded to its element type."""
    path = DATA / "layouts" / f"digits_{layout}.parquet"
    whole = pq.read_table(DATA / "digits.parquet")
    few = pq.read_table(path)
    assert few["id"].to_pylist() == whole["id"].to_pylist()[: len(few)]
    assert few["label"].to_pylist() == whole["label"].to_pylist()[: len(few)]
    assert_holds(path, layout, read_logits(DATA / "digits.parquet", "list")[: len(few)])


def test_labels_come_in_every_form():
    """Labels as strings and dictionaries equal the class names of the integer labels; soft labels sum to 1."""
    names = (DATA / "labels" / "classes.txt").read_text().split()
    expected = [names[label] for label in pq.read_table(DATA / "layouts/digits_list.parquet")["label"].to_pylist()]
    assert pq.read_table(DATA / "labels/digits_string.parquet")["label"].to_pylist() == expected
    assert pq.read_table(DATA / "labels/digits_dictionary.parquet")["label"].to_pylist() == expected
    soft = np.array(pq.read_table(DATA / "labels/digits_distribution.parquet")["label"].to_pylist())
    assert soft.min() >= 0
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
    config = json.loads((DATA / "labels/config.json").read_text())
    assert [config["id2label"][str(k)] for k in range(10)] == names


def test_class_names_lie_in_the_metadata():
    """The metadata of ``digits.parquet`` has its class names as a Hugging Face ClassLabel."""
    metadata = json.loads(pq.read_schema(DATA / "digits.parquet").metadata[b"huggingface"])
    label = metadata["info"]["features"]["label"]
    assert label["_type"] == "ClassLabel"
    assert label["names"] == (DATA / "labels" / "classes.txt").read_text().split()


@pytest.mark.spark
def test_spark_metadata_are_what_spark_writes():
    """The metadata of ``digits_spark.parquet`` equal the schema that pyspark writes."""
    sql = package("pyspark.sql.types")
    from pyspark.ml.linalg import VectorUDT

    schema = sql.StructType(
        [
            sql.StructField("id", sql.LongType()),
            sql.StructField("logits", VectorUDT(), True, {"ml_attr": {"num_attrs": 10}}),
            sql.StructField("label", sql.LongType()),
        ]
    )
    footer = pq.read_metadata(DATA / "layouts" / "digits_spark.parquet").metadata
    assert b"ARROW:schema" not in footer
    assert json.loads(footer[b"org.apache.spark.sql.parquet.row.metadata"]) == json.loads(schema.json())


def test_data_stay_small():
    """All sample data take less than 1 MB."""
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 1_000_000


@pytest.mark.parametrize("layout", make_data.LAYOUTS)
def test_large_files_hold_the_same_logits_in_every_layout(tmp_path, layout, monkeypatch):
    """Generated rows don't depend on the layout, the row group size, or the number of rows."""
    monkeypatch.setattr(make_data, "BLOCK_VALUES", 100)
    reference, path = tmp_path / "reference.parquet", tmp_path / "layout.parquet"
    make_data.make_large(reference, 300, 7)
    make_data.make_large(path, 250, 7, layout=layout, row_group_size=33)
    footer = pq.read_metadata(path)
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [33] * 7 + [19]
    assert_holds(path, layout, read_logits(reference, "list")[:250])
    for name in ("id", "label"):
        assert pq.read_table(path)[name].to_pylist() == pq.read_table(reference)[name].to_pylist()[:250]
    assert pq.read_table(path)["id"].to_pylist() == list(range(250))


def test_one_large_row_group_is_spooled(tmp_path, monkeypatch):
    """A row group above the spooling limit is still one row group, and no temporary file is left."""
    plain, spooled = tmp_path / "plain.parquet", tmp_path / "spooled.parquet"
    make_data.make_large(plain, 500, 100, row_group_size=500)
    monkeypatch.setattr(make_data, "SPOOLED_BYTES", 0)
    make_data.make_large(spooled, 500, 100, row_group_size=500)
    assert pq.read_metadata(spooled).num_row_groups == 1
    assert pq.read_metadata(spooled).num_rows == 500
    assert pq.read_table(spooled).equals(pq.read_table(plain))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain.parquet", "spooled.parquet"]


def test_large_sequences_hold_the_same_tokens(tmp_path, monkeypatch):
    """Sequences have the tokens and labels of a file of rows, one row group per sequence, and no dictionaries."""
    monkeypatch.setattr(make_data, "BLOCK_VALUES", 70)
    plain, path = tmp_path / "plain.parquet", tmp_path / "sequences.parquet"
    make_data.make_large(plain, 60, 7)
    make_data.main([str(path), "--rows", "3", "--tokens", "20", "--classes", "7"])
    footer, table = pq.read_metadata(path), pq.read_table(path)
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [1, 1, 1]
    assert not any(footer.row_group(i).column(j).has_dictionary_page for i in range(3) for j in range(3))
    assert table["id"].to_pylist() == [0, 1, 2]
    assert [len(row) for row in table["logits"]] == [20, 20, 20]
    for many, one in (("logits", "logits"), ("labels", "label")):
        tokens = [token for row in table[many].to_pylist() for token in row]
        assert tokens == pq.read_table(plain)[one].to_pylist()


@pytest.mark.parametrize("n_classes", [2, 10, 1000])
def test_labels_go_with_the_logits(tmp_path, n_classes):
    """The accuracy of generated data is well above chance and below 0.95 for 2, 10 and 1,000 classes."""
    make_data.make_large(tmp_path / "x.parquet", 2000, n_classes, seed=3)
    labels = pq.read_table(tmp_path / "x.parquet")["label"].to_numpy()
    accuracy = np.mean(read_logits(tmp_path / "x.parquet", "list").argmax(axis=1) == labels)
    assert max(0.3, 1.2 / n_classes) < accuracy < 0.95


def test_edges(tmp_path):
    """Files without rows and with one class can be made."""
    make_data.main([str(tmp_path / "none.parquet"), "--rows", "0", "--classes", "3"])
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
    make_data.main([str(tmp_path / "one.parquet"), "--rows", "5", "--classes", "1", "--dtype", "float64"])
    assert pq.read_table(tmp_path / "one.parquet")["label"].to_pylist() == [0] * 5
    assert read_logits(tmp_path / "one.parquet", "list").shape == (5, 1)


def test_a_dtype_that_cannot_be_is_refused(capsys):
    """--dtype is refused for a layout with a fixed element type."""
    with pytest.raises(SystemExit):
        make_data.main(["x.parquet", "--layout", "spark", "--dtype", "float16"])
    assert "--dtype cannot be chosen for the layout spark" in capsys.readouterr().err
