"""Tests scoring of Ray datasets against ``scan`` and ``score``, with Ray on this machine."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
import batchmax.ray
from tests.support.documents import blocks_of, example_of
from tests.support.engines import expected, table_of
from tests.support.outputs import SOFTMAX_OUTPUTS
from tests.support.paths import ROOT
from tests.support.requirements import optional, package
from tests.support.rows import rows_of_every_status, sequences

pd = optional("pandas")

DIGITS = str(ROOT / "data" / "digits.parquet")
ALL = ",".join(name for name in SOFTMAX_OUTPUTS if name != "sample")

pytestmark = [
    pytest.mark.ray,
    # Ray warns about its own settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


@pytest.fixture(scope="module")
def ray():
    """Yield ``ray.data``, with one small cluster for all tests because it takes seconds to start."""
    ray = package("ray")
    package("ray.data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=200 << 20,
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        ray.data.DataContext.get_current().execution_options.preserve_order = True
        yield ray.data
        ray.shutdown()


def rows_of(dataset):
    """Return the rows of a dataset as dictionaries, in the order of their ids."""
    tables = [table for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow") if table.num_rows]
    return sorted((row for table in tables for row in table.to_pylist()), key=lambda row: row["id"])


@pytest.mark.parametrize("how", [{}, {"batch_size": 100}, {"num_cpus": 2, "concurrency": 1}], ids=["", "100", "2 cpus"])
def test_rows_of_a_file_are_those_of_score(ray, tmp_path, how):
    """All outputs have the bits that ``score`` writes, for any blocks, batch sizes and threads."""
    names = "zero,one,two,three,four,five,six,seven,eight,nine"
    given = {"outputs": ALL, "top_k": 3, "temperature": 1.3, "label_smoothing": 0.1, "classes": names}
    batchmax.score(DIGITS, str(tmp_path / "want.parquet"), **given)
    want = pq.read_table(tmp_path / "want.parquet")
    got = batchmax.ray.score(ray.read_parquet(DIGITS).repartition(3), **given, **how)
    assert got.schema().names == want.schema.names
    assert rows_of(got) == want.to_pylist()


def test_sequences_are_scored(ray, tmp_path):
    """Sequences have the results that ``scan`` gives, for any blocks."""
    path = tmp_path / "in.parquet"
    table = sequences([5, 0, 12, None, 1, 30] * 5, 7)
    pq.write_table(table, path, row_group_size=4)
    given = {"outputs": "probs,loss,pred,status", "top_k": 2, "on_bad_row": "null", "shift": True}
    for dataset in (ray.read_parquet(str(path)), ray.from_arrow(table).repartition(7)):
        got = batchmax.ray.score(dataset, **given)
        assert [
            {name: list(value) if name == "losses" and value is not None else value for name, value in row.items()}
            for row in rows_of(got)
        ] == expected(table, **given)


def test_odd_rows_are_nulled_or_dropped(ray):
    """The policies ``null`` and ``drop`` give the same rows as elsewhere, even if blocks lose all rows."""
    logits, labels, statuses = rows_of_every_status()
    table = pa.table(
        {
            "id": range(len(logits)),
            "logits": pa.array(logits, pa.list_(pa.float32())),
            "label": pa.array(labels, pa.int64()),
            "want": statuses,
        }
    )
    for policy in ("null", "drop"):
        given = {"on_bad_row": policy, "outputs": "probs,loss,status"}
        got = rows_of(batchmax.ray.score(ray.from_arrow(table).repartition(9), **given))
        assert got == expected(table, **given)
        assert all(row["status"] == row["want"] for row in got)


def test_a_bad_row_fails_as_a_bad_row(ray):
    """The error that Ray raises for a bad row is also a ``BadRowError``, with the cause and the remedy."""
    table = table_of().set_column(2, "label", pa.array([0] * 39 + [7]))
    with pytest.raises(batchmax.BadRowError) as raised:
        batchmax.ray.score(ray.from_arrow(table)).materialize()
    line = next(line for line in str(raised.value).splitlines() if line.startswith("batchmax."))
    assert line.startswith(
        "batchmax.errors.BadRowError: row 39 of a batch: label 7 is not a class: valid labels are 0 to 5"
    )
    assert line.endswith("to write nulls instead: --on-bad-row null")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_tensors_are_rows_of_logits(ray, dtype):
    """Matrices from NumPy are read as rows of logits; the probabilities are lists."""
    matrix = np.random.default_rng(3).standard_normal((30, 7)).astype(dtype)
    dataset = ray.from_numpy(matrix).repartition(4)
    got = batchmax.ray.score(dataset, logits="data")
    wide = np.exp(matrix.astype(np.float64))
    want = wide / wide.sum(axis=1, keepdims=True)
    kind = pa.float64() if dtype == "float64" else pa.float32()
    assert got.schema().base_schema == pa.schema([("probs", pa.list_(kind))])
    np.testing.assert_allclose([row["probs"] for row in got.take_all()], want, rtol=1e-6)


def test_tensors_of_several_lengths(ray):
    """Tensors whose length differs from the first row's have the status bad_length, in any block."""
    rows = [{"id": number, "logits": np.arange(2.0 + number % 2)} for number in range(6)]
    got = rows_of(batchmax.ray.score(ray.from_items(rows), on_bad_row="null", outputs="probs,status"))
    assert [row["status"] for row in got] == ["ok", "bad_length"] * 3
    assert got[0]["probs"] == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)])
    assert got[1]["probs"] is None


def test_tensors_of_several_dimensions_are_refused(ray):
    """A column of matrices isn't read as rows of logits, although it's stored as one list."""
    with pytest.raises(batchmax.UsageError, match="tensors of 2 dimensions"):
        batchmax.ray.score(ray.from_numpy(np.zeros((5, 2, 3))), logits="data")


def test_other_tensors_are_carried_as_they_are(ray):
    """Tensor columns other than the logits are carried unchanged."""
    images = np.random.default_rng(4).standard_normal((5, 2, 3))
    dataset = ray.from_items([{"image": image, "logits": [0.0, 1.0]} for image in images])
    got = batchmax.ray.score(dataset, logits="logits").take_all()
    np.testing.assert_array_equal([row["image"] for row in got], images)


def test_blocks_of_pandas_without_values(ray):
    """A block in which a column has only nulls, and so no type, gets the type of the other blocks."""
    blocks = [
        pd.DataFrame({"id": [0, 1], "logits": [None, None], "label": [None, None]}),
        pd.DataFrame({"id": [2, 3], "logits": [[1.0, 2.0], [3.0, 4.0]], "label": [0, 1]}),
    ]
    got = rows_of(batchmax.ray.score(ray.from_pandas(blocks), on_bad_row="null", outputs="loss,status"))
    assert [row["status"] for row in got] == ["null_logits", "null_logits", "ok", "ok"]
    assert [row["label"] for row in got] == [None, None, 0, 1]
    assert [row["loss"] for row in got][:2] == [None, None]
    assert [row["loss"] for row in got][2:] == pytest.approx([np.log(1 + np.e), np.log(1 + np.e) - 1])


def test_the_number_of_classes_is_looked_for(ray):
    """The number of classes is found if the first rows have no logits.

    If no row has logits, it must be given.
    """
    table = pa.table({"id": [0, 1, 2], "logits": pa.array([None, [], [1.0, 2.0]], pa.list_(pa.float32()))})
    got = rows_of(batchmax.ray.score(ray.from_arrow(table), on_bad_row="null", outputs="status"))
    assert [row["status"] for row in got] == ["null_logits", "bad_length", "ok"]
    with pytest.raises(batchmax.DataError, match="give it: --n-classes N"):
        batchmax.ray.score(ray.from_arrow(table.slice(0, 2)))
    empty = ray.from_arrow(table.slice(0, 0))
    with pytest.raises(batchmax.DataError, match="give it: --n-classes N"):
        batchmax.ray.score(empty)
    assert batchmax.ray.score(empty, n_classes=2).count() == 0


def test_one_column_a_class(ray):
    """Logits with one column per class give probabilities with one column per class."""
    rng = np.random.default_rng(1)
    table = pa.table({"id": range(9)} | {f"logit_{n}": rng.standard_normal(9).astype(np.float32) for n in range(11)})
    got = batchmax.ray.score(ray.from_arrow(table).repartition(2))
    assert got.schema().names == ["id", *(f"prob_{number}" for number in range(11))]
    assert rows_of(got) == expected(table)


@pytest.mark.parametrize("labels", [[[2], [0, 1], [], [1]], [[1, 0, 1], [0, 0, 0], None, [1, 1, 1]]])
def test_tasks_read_lists_of_labels_alike(ray, labels):
    """The driver decides whether lists of labels are K-hot or indices, also for blocks that could be either."""
    rows = pa.table({"id": range(400), "logits": [[0.5, -1.0, 2.0]] * 400, "labels": labels * 100})
    given = {"outputs": "loss,losses,preds,status"}
    want = expected(rows, **given)
    assert {row["status"] for row in want} <= {"ok", "unlabelled"}
    dataset = ray.from_arrow([rows.slice(start, 1) for start in range(4)] + [rows.slice(4)])
    assert rows_of(batchmax.ray.score(dataset, **given)) == want


def test_tasks_compute_on_the_cores_they_reserve(ray):
    """A task's threads are those that were asked for, or its CPUs rounded up."""

    class Recorder:
        def __init__(self, dataset):
            self.dataset = dataset

        def limit(self, n_rows):
            return self.dataset.limit(n_rows)

        def map_batches(self, _, **how):
            self.how = how

    dataset = Recorder(ray.from_arrow(table_of()))
    for given, threads in (({}, 1), ({"num_cpus": 0.5}, 1), ({"num_cpus": 2}, 2), ({"threads": 2}, 2)):
        batchmax.ray.score(dataset, **given)
        assert dataset.how["fn_kwargs"]["threads"] == threads
        assert dataset.how["num_cpus"] == given.get("num_cpus", 1)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"fail_if": "n_rows < 3"}, "no task has all rows"),
        ({"outputs": "sample"}, "row's number"),
        ({"logits": "nothing"}, "no column 'nothing'"),
        ({"num_cpus": 0}, "num_cpus is 0"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_cannot_be_is_refused_at_once(ray, given, what):
    """The driver refuses invalid options and columns before any task runs."""
    with pytest.raises(batchmax.UsageError, match=what):
        batchmax.ray.score(ray.from_arrow(table_of()), **given)


@pytest.mark.usefixtures("ray")
def test_something_else_than_a_dataset_is_refused():
    """Data that aren't a dataset are refused, and the error names the type that was given."""
    with pytest.raises(batchmax.UsageError, match=r"takes a ray\.data\.Dataset, not a Table"):
        batchmax.ray.score(table_of())


@pytest.mark.usefixtures("ray")
def test_the_block_in_the_guide_runs(tmp_path):
    """The example for Ray in the guide runs."""
    (block,) = [block for block in blocks_of("py") if "batchmax.ray" in block]
    # Ray resolves relative paths in the folder in which it was started.
    block = block.replace('"data/', f'"{ROOT}/data/').replace('"scored-by', f'"{tmp_path}/scored-by')
    exec(compile(block, "block", "exec"), {})  # noqa: S102 - the code is from this repository
    assert pq.read_table(tmp_path / "scored-by-ray").num_rows == 899


@pytest.mark.usefixtures("ray")
def test_the_example_of_the_docstring_runs():
    """The example in the docstring of ``batchmax.ray.score`` prints the mean loss of the sample."""
    *lines, last = example_of(batchmax.ray.score).splitlines()
    names = {}
    exec("\n".join(lines), names)  # noqa: S102 - the code is from this repository
    assert eval(last, names) == pytest.approx(0.10844, abs=1e-5)  # noqa: S307 - as above


@pytest.mark.usefixtures("ray")
def test_a_block_without_rows_has_the_columns():
    """A block without rows has the output's columns, also with tensor and dictionary columns."""
    tensors = package("ray.data.extensions").ArrowTensorTypeV2
    kinds = {"logits": tensors((3,), pa.float32()), "name": pa.dictionary(pa.int8(), pa.string())}
    empty = pa.schema(list(kinds.items())).empty_table()
    (got,) = batchmax.ray.score_block(empty, empty.schema, batchmax.score_options(n_classes=3), 1)
    assert (got.num_rows, got.schema.names) == (0, ["name", "probs"])
