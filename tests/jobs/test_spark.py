"""Scoring of Spark data frames, in a local JVM."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
import batchmax.spark
from tests.support.documents import blocks_of, example_of
from tests.support.engines import expected, table_of
from tests.support.outputs import SOFTMAX_OUTPUTS
from tests.support.paths import ROOT
from tests.support.processes import HANGS
from tests.support.rows import rows_of_every_status, sequences
from tests.support.spark import local_session

pytestmark = [
    pytest.mark.spark,
    # pyspark warns about itself whenever Arrow is used.
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]

DIGITS = str(ROOT / "data" / "digits.parquet")
CLASSES = "zero,one,two,three,four,five,six,seven,eight,nine"
"""The class names of the file's metadata, which Spark doesn't pass on."""
ALL = ",".join(name for name in SOFTMAX_OUTPUTS if name != "sample")


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    """Return one session for all tests, because starting it takes seconds."""
    with local_session(tmp_path_factory.mktemp("spark"), cores=2) as session:
        yield session


def rows_of(frame):
    """Return the rows of a data frame as dictionaries, sorted by id."""
    return sorted(frame.toArrow().to_pylist(), key=lambda row: row["id"])


def test_rows_of_a_file_are_those_of_score(spark, tmp_path):
    """Every output of every row is bit-identical to the output of `score`, for any partitions."""
    given = {"outputs": ALL, "top_k": 3, "temperature": 1.3, "label_smoothing": 0.1, "classes": CLASSES}
    batchmax.score(DIGITS, str(tmp_path / "want.parquet"), **given)
    want = pq.read_table(tmp_path / "want.parquet").to_pylist()
    frame = spark.read.parquet(DIGITS).repartition(3)
    got = batchmax.spark.score(frame, **given)
    names = ["id", "label", *ALL.split(","), "top_k_classes", "top_k_probs"]
    assert got.columns == names
    assert got.rdd.getNumPartitions() == 3
    assert rows_of(got) == want


def test_sequences_are_scored(spark, tmp_path):
    """Sequences that Spark wrote give the same rows from a data frame and from files, and Spark reads our output."""
    given = {"outputs": "probs,loss,pred,status", "top_k": 2, "on_bad_row": "null", "shift": True}
    table = sequences([5, 0, 12, None, 1, 30] * 5, 7)
    pq.write_table(table, tmp_path / "in.parquet")
    frame = spark.read.parquet(str(tmp_path / "in.parquet"))
    want = expected(table, **given)
    assert rows_of(batchmax.spark.score(frame.repartition(3), **given)) == want
    frame.repartition(2).write.parquet(str(tmp_path / "theirs"))
    batchmax.score(str(tmp_path / "theirs"), str(tmp_path / "out.parquet"), **given)
    assert sorted(pq.read_table(tmp_path / "out.parquet").to_pylist(), key=lambda row: row["id"]) == want
    assert rows_of(spark.read.parquet(str(tmp_path / "out.parquet"))) == want


@pytest.mark.parametrize("labels", [[[2], [0, 1], [], [1]], [[1, 0, 1], [0, 0, 0], None, [1, 1, 1]]])
def test_tasks_read_lists_of_labels_alike(spark, labels):
    """The driver decides whether lists of labels are K-hot or indices, also for partitions that could be either."""
    rows = pa.table({"id": range(40), "logits": [[0.5, -1.0, 2.0]] * 40, "labels": labels * 10})
    given = {"outputs": "loss,losses,preds,status"}
    want = expected(rows, **given)
    assert {row["status"] for row in want} <= {"ok", "unlabelled"}
    frame = spark.createDataFrame(rows).repartition(20)
    assert rows_of(batchmax.spark.score(frame, **given)) == want


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_comes_out_has_spark_types(spark, dtype):
    """Types are those of the file that `score` writes, as Spark types, and computed columns are nullable."""
    frame = spark.createDataFrame(table_of(dtype=dtype))
    got = batchmax.spark.score(frame, outputs=ALL, top_k=2, classes="a,b,c,d,e,f", label="label")
    kind = {"float32": "float", "float64": "double"}[dtype]
    types = dict(got.dtypes)
    assert types == {
        "id": "bigint",
        "label": "bigint",
        **dict.fromkeys(("probs", "log_probs"), f"array<{kind}>"),
        **dict.fromkeys(("loss", "confidence", "margin", "entropy", "logsumexp", "el2n"), kind),
        "pred": "string",
        "rank": "int",
        "correct": "boolean",
        "status": "string",
        "top_k_classes": "array<string>",
        "top_k_probs": f"array<{kind}>",
    }
    assert all(got.schema[name].nullable for name in ALL.split(","))
    assert got.where("status = 'ok'").count() == 40


def test_odd_rows_are_nulled_or_dropped(spark):
    """Both policies give the same rows in Spark as in a file."""
    logits, labels, statuses = rows_of_every_status()
    table = pa.table(
        {
            "id": range(len(logits)),
            "logits": pa.array(logits, pa.list_(pa.float32())),
            "label": pa.array(labels, pa.int64()),
            "want": statuses,
        }
    )
    frame = spark.createDataFrame(table).repartition(2)
    for policy in ("null", "drop"):
        given = {"on_bad_row": policy, "outputs": "probs,loss,status"}
        got = rows_of(batchmax.spark.score(frame, n_classes=3, **given))
        assert got == expected(table, n_classes=3, **given)
        assert all(row["status"] == row["want"] for row in got)


def test_a_bad_row_fails_the_task_with_our_message(spark):
    """The exception in Spark names the row and partition, what is wrong, and the remedy."""
    rows = [(number, [0.0, 1.0], 7 if number == 15 else 0) for number in range(20)]
    frame = spark.sparkContext.parallelize(rows, 2).toDF("id long, logits array<float>, label int")
    scored = batchmax.spark.score(frame)
    with pytest.raises(Exception, match="Python worker") as raised:
        scored.collect()
    line = next(line for line in str(raised.value).splitlines() if line.startswith("batchmax."))
    assert line.startswith(
        "batchmax.errors.BadRowError: row 5 of partition 1: label 7 is not a class: valid labels are 0 to 1"
    )
    assert line.endswith("to write nulls instead: --on-bad-row null")


def test_vectors_of_spark_ml_are_arrays(spark):
    """Dense and sparse vectors give the same results, null stays null, and carried vectors stay vectors."""
    from pyspark.ml.linalg import DenseVector, Vectors, VectorUDT
    from pyspark.sql.types import DoubleType, LongType, StructField, StructType

    fields = [("id", LongType()), ("rawPrediction", VectorUDT()), ("features", VectorUDT()), ("label", DoubleType())]
    schema = StructType([StructField(name, kind) for name, kind in fields])
    seen = Vectors.dense([5.0, 6.0])
    rows = [
        (0, None, seen, 0.0),
        (1, Vectors.dense([1.0, 0.0, 3.0]), seen, 2.0),
        (2, Vectors.sparse(3, {2: 3.0, 0: 1.0}), seen, 2.0),
    ]
    frame = spark.createDataFrame(rows, schema)
    got = batchmax.spark.score(frame, logits="rawPrediction", on_bad_row="null", outputs="probs,loss,status")
    null, dense, sparse = got.orderBy("id").collect()
    assert isinstance(dense["features"], DenseVector)
    assert (null["probs"], null["status"]) == (None, "null_logits")
    assert dense[2:] == sparse[2:]
    z = np.array([1.0, 0.0, 3.0])
    np.testing.assert_allclose(dense["probs"], np.exp(z) / np.exp(z).sum(), rtol=1e-14)
    np.testing.assert_allclose(dense["loss"], np.log(np.exp(z).sum()) - 3, rtol=1e-12)
    everything = batchmax.spark.score(frame, logits="rawPrediction", on_bad_row="null", columns="*")
    assert everything.orderBy("id").collect()[2]["rawPrediction"] == [1.0, 0.0, 3.0]


def test_one_column_a_class(spark):
    """The wide layout is read and written."""
    names = [f"logit_{number}" for number in (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)]
    rng = np.random.default_rng(1)
    table = pa.table({"id": range(9)} | {name: rng.standard_normal(9).astype(np.float32) for name in names})
    got = batchmax.spark.score(spark.createDataFrame(table))
    assert got.columns == ["id", *(f"prob_{number}" for number in range(11))]
    assert rows_of(got) == expected(table)


def test_logits_within_structs_under_any_name(spark):
    """A dotted name selects a field of a struct, and its other fields are carried; names may have dots or backticks."""
    inner = pa.array([[0.5, 1.0], [2.0, 1.0]], pa.list_(pa.float32()))
    for outer, name in (("a.b`c", "z"), ("outputs", "x.y")):
        rest = pa.array([1, 2])
        struct = pa.StructArray.from_arrays([inner, rest], [name, "rest"])
        table = pa.table({"id": [0, 1], outer: struct})
        got = batchmax.spark.score(spark.createDataFrame(table), logits=f"{outer}.{name}")
        assert rows_of(got) == expected(table, logits=f"{outer}.{name}")
    table = pa.table({"id": [0, 1], "a.b`c": inner})
    assert rows_of(batchmax.spark.score(spark.createDataFrame(table))) == expected(table)


def test_rows_of_bytes(spark):
    """For binary logits, the number of classes comes from the first non-null row and ``logits_dtype``."""
    matrix = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)
    table = pa.table({"id": range(4), "logits": pa.array([None, *map(bytes, matrix)], pa.binary())})
    given = {"logits_dtype": "float32", "on_bad_row": "null"}
    assert rows_of(batchmax.spark.score(spark.createDataFrame(table), **given)) == expected(table, n_classes=4, **given)


def test_the_number_of_classes_is_looked_for(spark):
    """Null and empty rows don't determine the number of classes; without rows, it must be given, and that's enough."""
    rows = [(0, None), (1, []), (2, [1.0, 2.0])]
    frame = spark.createDataFrame(rows, "id long, logits array<float>")
    got = rows_of(batchmax.spark.score(frame, on_bad_row="null", outputs="status"))
    assert [row["status"] for row in got] == ["null_logits", "bad_length", "ok"]
    empty = frame.where("id > 2")
    with pytest.raises(batchmax.DataError, match="give it: --n-classes N"):
        batchmax.spark.score(empty)
    scored = batchmax.spark.score(empty, n_classes=3)
    assert scored.columns == ["id", "probs"]
    assert scored.toArrow().num_rows == 0


def test_columns_of_every_type_are_carried_as_they_are(spark):
    """Times, decimals, maps, structs and required columns keep their Spark types and values."""
    frame = spark.sql("""
        SELECT id, array(float(id), 1f) AS logits, timestamp '2026-11-20 10:00:00' AS t,
            timestamp_ntz '2026-11-20 10:00:00' AS n,
            date '2026-11-20' AS d, 1.50bd AS m, map('a', id) AS k, struct(id AS i, array('x') AS s) AS st,
            binary('b') AS b, interval '1' second AS iv
        FROM range(3)
    """)
    got = batchmax.spark.score(frame)
    assert got.schema.fields[:-1] == [field for field in frame.schema if field.name != "logits"]
    assert got.drop("probs").orderBy("id").collect() == frame.drop("logits").orderBy("id").collect()


def test_a_stream_is_scored(spark, tmp_path):
    """Structured Streaming works if ``n_classes`` is given, because a stream can't be sampled."""
    table = table_of()
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "x.parquet")
    schema = spark.read.parquet(str(tmp_path / "in")).schema
    stream = spark.readStream.schema(schema).parquet(str(tmp_path / "in"))
    with pytest.raises(batchmax.UsageError, match="give n_classes"):
        batchmax.spark.score(stream)
    query = (
        batchmax.spark.score(stream, n_classes=6)
        .writeStream.trigger(availableNow=True)
        .option("checkpointLocation", str(tmp_path / "state"))
        .start(str(tmp_path / "out"), format="parquet")
    )
    assert query.awaitTermination(HANGS)
    assert rows_of(spark.read.parquet(str(tmp_path / "out"))) == expected(table)


def test_large_batches_are_warned_of(spark):
    """Settings that allow large batches cause a warning that names the setting; Spark's defaults cause none."""
    frame = spark.createDataFrame(table_of()).selectExpr("id", "array_repeat(1f, 20000) AS logits")
    name = batchmax.spark.BYTES_SETTING
    before = spark.conf.get(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        batchmax.spark.score(frame)
    try:
        for given, expected_size in (("2047m", "763 MiB"), (str(2**29), "512 MiB")):
            spark.conf.set(name, given)
            with pytest.warns(UserWarning, match=f"up to {expected_size} .*{name}") as caught:
                batchmax.spark.score(frame)
            (warning,) = [warning for warning in caught if warning.category is UserWarning]
            assert warning.filename == __file__
            setting = re.search(r'spark\.conf\.set\("(.+)", ([0-9]+)\)', str(warning.message))
            assert setting[1] == name
        spark.conf.set(name, setting[2])
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            batchmax.spark.score(frame)
    finally:
        spark.conf.set(name, before)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"layout": "fixed"}, "no lists of fixed size"),
        ({"dtype": "float16"}, "no float16"),
        ({"limit": 3}, "no task has all rows"),
        ({"outputs": "sample"}, "row's number"),
        ({"logits": "nothing"}, "no column 'nothing'"),
        ({"label": "nothing"}, "nothing"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_cannot_be_is_refused_at_once(spark, given, what):
    """Invalid options and columns are refused by the driver, before any task runs."""
    with pytest.raises(batchmax.UsageError, match=what):
        batchmax.spark.score(spark.createDataFrame(table_of()), **given)


@pytest.mark.usefixtures("spark")
def test_something_else_than_a_data_frame_is_refused():
    """The error names the type and a remedy."""
    with pytest.raises(batchmax.UsageError, match=r"takes a pyspark\.sql\.DataFrame, not a Table"):
        batchmax.spark.score(table_of())


def test_the_block_in_the_guide_runs(spark, tmp_path):
    """The Spark example of the guide runs."""
    (block,) = [block for block in blocks_of("py") if "batchmax.spark" in block]
    # The engine's working directory differs, so paths are made absolute.
    block = block.replace('"data/', f'"{ROOT}/data/').replace('"scored-by', f'"{tmp_path}/scored-by')
    exec(compile(block, "block", "exec"), {"spark": spark})  # noqa: S102 - it is our own code
    assert pq.read_table(tmp_path / "scored-by-spark").num_rows == 899


@pytest.mark.usefixtures("spark")
def test_the_example_of_the_docstring_runs():
    """The example in the docstring of ``batchmax.spark.score`` prints the mean loss of the sample."""
    *lines, last = example_of(batchmax.spark.score).splitlines()
    names = {}
    exec("\n".join(lines), names)  # noqa: S102 - the code is from this repository
    assert eval(last, names) == pytest.approx(0.10844, abs=1e-5)  # noqa: S307 - as above
