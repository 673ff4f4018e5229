"""Tests the columns of ``score_batch``, and slices, tables and empty batches."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from batchmax import BadRowError, DataError, UsageError, score_batch
from batchmax.options.score_options import ScoreOptions
from tests.support.batches import batch_of, batch_of_every_status
from tests.support.outputs import SOFTMAX_OUTPUTS
from tests.support.rows import columns_of, lists, some_logits

ALL = tuple(name for name in SOFTMAX_OUTPUTS if name != "sample")
"""All outputs that depend only on the row; draws are tested in test_sampling."""


# Columns


@pytest.mark.parametrize("layout", ["list", "fixed", "wide"])
@pytest.mark.parametrize("kind", ["list", "large_list", "fixed", "wide"])
def test_layouts_have_the_same_values(kind, layout):
    """Results are bit-identical for all layouts of logits and probabilities."""
    logits, labels = some_logits(20, 4), np.arange(20) % 4
    kinds = {"large_list": pa.large_list(pa.float32()), "fixed": pa.list_(pa.float32(), 4)}
    if kind == "wide":
        batch = pa.record_batch({f"logit_{j}": logits[:, j].copy() for j in range(4)} | {"label": labels})
    else:
        batch = batch_of(lists(logits, kinds.get(kind)), labels)
    plain = score_batch(batch_of(logits, labels), outputs="probs,log_probs,loss")
    got = score_batch(batch, outputs="probs,log_probs,loss", layout=layout)
    for name in ("probs", "log_probs"):
        if layout == "wide":
            values = np.column_stack([columns_of(got, f"{name[:-1]}_{j}") for j in range(4)])
        else:
            values = columns_of(got, name)
            assert pa.types.is_fixed_size_list(got.schema.field(name).type) == (layout == "fixed")
        assert_array_equal(values, columns_of(plain, name))
    assert got["loss"].equals(plain["loss"])


def test_default_layout_is_that_of_the_input():
    """By default, probabilities have the layout of the logits; suffixes of wide columns are the class names."""
    wide = pa.record_batch({"logit_cat": [1.0, 0.0], "logit_dog": [0.0, 1.0], "label": ["dog", "dog"]})
    got = score_batch(wide, outputs="probs,pred,loss")
    assert got.schema.names == ["label", "prob_cat", "prob_dog", "pred", "loss"]
    assert got["pred"].to_pylist() == ["cat", "dog"]
    large = score_batch(batch_of(lists(np.zeros((1, 2), np.float32), pa.large_list(pa.float32()))))
    assert large.schema.field("probs").type == pa.large_list(pa.float32())


def test_carried_columns_are_chosen_by_name():
    """All columns but the logits are carried; ``--columns`` and ``--exclude`` change that; ``*`` keeps the logits."""
    batch = pa.record_batch({"id": [1], "logits": [[1.0, 2.0]], "label": [0], "x": ["a"]})
    names = lambda **options: score_batch(batch, outputs="loss", **options).schema.names
    assert names() == ["id", "label", "x", "loss"]
    assert names(columns="x,id") == ["id", "x", "loss"]
    assert names(exclude="label,x") == ["id", "loss"]
    assert names(columns="*") == ["id", "logits", "label", "x", "loss"]
    assert names(columns="*", exclude="id") == ["logits", "label", "x", "loss"]
    assert names(columns=("logits",), prefix="new_") == ["logits", "new_loss"]
    for option in ("columns", "exclude"):
        with pytest.raises(UsageError, match=r"no column 'labl'.*did you mean 'label'"):
            names(**{option: "labl"})


def test_existing_column_name_needs_a_prefix():
    """A new column never replaces a carried one."""
    batch = pa.record_batch({"logits": [[1.0, 2.0]], "probs": [0.5]})
    with pytest.raises(UsageError, match=r"already has a column 'probs'.*--prefix.*--exclude probs"):
        score_batch(batch)
    assert score_batch(batch, prefix="my_").schema.names == ["probs", "my_probs"]
    assert score_batch(batch, exclude="probs").schema.names == ["probs"]
    wide = pa.record_batch({"logit_0": [1.0], "logit_1": [2.0], "prob_1": [0.5]})
    with pytest.raises(UsageError, match="already has a column 'prob_1'"):
        score_batch(wide)


def test_two_columns_of_one_name_are_refused():
    """A name that occurs twice can't be carried, but can be excluded."""
    batch = pa.RecordBatch.from_arrays([lists(np.zeros((1, 2))), pa.array([1]), pa.array([2])], ["logits", "x", "x"])
    with pytest.raises(UsageError, match="two columns 'x'"):
        score_batch(batch)
    assert score_batch(batch, exclude="x").schema.names == ["probs"]


def test_nested_logits_are_removed_from_their_struct():
    """Logits inside a struct are removed from it; its other fields and its nulls stay."""
    inner = pa.StructArray.from_arrays(
        [lists(np.zeros((3, 2), np.float32)), pa.array([1, 2, 3])], ["z", "n"], mask=pa.array([False, True, False])
    )
    batch = pa.record_batch({"out": inner, "label": [0, 1, 1]})
    got = score_batch(batch, logits="out.z", outputs="probs,status", on_bad_row="null")
    assert got["out"].to_pylist() == [{"n": 1}, None, {"n": 3}]
    assert got["status"].to_pylist() == ["ok", "null_logits", "ok"]
    alone = pa.record_batch({"out": pa.StructArray.from_arrays([lists(np.zeros((1, 2)))], ["z"])})
    assert score_batch(alone, logits="out.z").schema.names == ["probs"]


def test_top_k_above_the_classes_is_refused():
    """A top_k greater than the number of classes is refused."""
    with pytest.raises(UsageError, match="3 exceeds the 2 classes"):
        score_batch(batch_of(np.zeros((1, 2))), top_k=3)


def test_wide_columns_counted_from_one():
    """If columns are numbered from 1, so are labels, predictions and new columns."""
    logits = np.array([[3, 1, 0], [0, 1, 2], [1, 3, 0]], np.float32)
    columns = {f"logit_{i + 1}": logits[:, i] for i in range(3)}
    batch = pa.record_batch({**columns, "label": pa.array([1, 3, 1])})
    got = score_batch(batch, outputs="probs,loss,pred,correct")
    assert got.schema.names == ["label", "prob_1", "prob_2", "prob_3", "loss", "pred", "correct"]
    assert got["pred"].to_pylist() == ["1", "3", "2"]
    assert got["correct"].to_pylist() == [True, True, False]
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[[0, 1, 2], [0, 2, 0]]
    np.testing.assert_allclose(got["loss"].to_numpy(), expected, rtol=1e-6)
    with pytest.raises(BadRowError, match="row 0 of the batch: label 0"):
        score_batch(pa.record_batch({**columns, "label": pa.array([0, 1, 2])}))


# Batches


def test_scoring_is_pure():
    """The same batch gives the same bytes again, and isn't changed."""
    batch, _ = batch_of_every_status()
    before = batch.serialize().to_pybytes()
    for options in ({"on_bad_row": "null"}, {"on_bad_row": "drop"}, {"input": "probs", "on_bad_row": "null"}):
        first = score_batch(batch, outputs=ALL, top_k=2, **options)
        kept = first.serialize().to_pybytes()
        assert score_batch(batch, outputs=ALL, top_k=2, **options).equals(first)
        assert first.serialize().to_pybytes() == kept
    assert batch.serialize().to_pybytes() == before


@pytest.mark.parametrize("policy", ["error", "null", "drop"])
def test_an_empty_batch_keeps_its_schema(policy):
    """Zero rows give zero rows with the same schema, if the number of classes is known."""
    batch = batch_of(some_logits(5, 4), np.zeros(5, np.int64))
    full = score_batch(batch, outputs=ALL, top_k=2, on_bad_row=policy)
    empty = score_batch(batch.slice(0, 0), outputs=ALL, top_k=2, on_bad_row=policy, n_classes=4)
    assert empty.num_rows == 0
    assert empty.schema.equals(full.schema)
    with pytest.raises(DataError, match="--n-classes"):
        score_batch(batch.slice(0, 0))


SLICED, _ = batch_of_every_status()
SLICED = pa.concat_batches([SLICED, batch_of(lists(some_logits(200, 3)), np.arange(200) % 3)])
WHOLE = {
    (policy, layout): score_batch(SLICED, outputs=ALL, top_k=2, on_bad_row=policy, layout=layout)
    for policy, layout in itertools.product(["null"], ["list", "fixed", "wide"])
}


@given(st.integers(0, SLICED.num_rows), st.integers(1, SLICED.num_rows), st.sampled_from(["list", "fixed", "wide"]))
def test_slice_gives_the_rows_of_the_whole_batch(start, length, layout):
    """The position of a row in a batch doesn't change its results."""
    rows = SLICED.slice(start, length)
    got = score_batch(rows, outputs=ALL, top_k=2, on_bad_row="null", layout=layout, n_classes=3)
    assert got.to_pylist() == WHOLE["null", layout].slice(start, length).to_pylist()


def test_limit_takes_the_first_rows():
    """``limit=N`` takes the first N rows."""
    batch = batch_of(some_logits(9, 3))
    assert score_batch(batch, limit=4).equals(score_batch(batch.slice(0, 4)))


@pytest.mark.parametrize("given", [{"fail_if": "bad_rows > 0"}, {"on_bad_row": "drop", "rejects": "r.parquet"}])
def test_options_for_files_are_refused(given):
    """Options that need files or the end of the input are refused."""
    with pytest.raises(UsageError, match="score_batch doesn't support this; leave it out, or use score"):
        score_batch(pa.record_batch({"logits": [[1.0, 2.0]]}), **given)


def test_invalid_inputs_of_score_batch_are_refused():
    """Other input types are refused with a remedy, and so is an options object together with keyword arguments."""
    table = pa.table({"logits": [[1.0, 2.0]]})
    with pytest.raises(UsageError, match=r"not a dict; use batchmax\.scan"):
        score_batch({"logits": [[1.0, 2.0]]})
    with pytest.raises(UsageError, match="both options and 'temperature'"):
        score_batch(table.to_batches()[0], ScoreOptions(), temperature=100, typo=3)


def test_a_table_is_scored_as_one_batch():
    """The chunks of a table don't change classes, draws, limits or the numbers of bad rows."""
    logits = [None, None, [1.0, 2.0, 0.5], [0.3, 0.1, 0.2], [2.0, 0.0, 1.0]]
    batch = pa.record_batch({"logits": pa.array(logits, pa.list_(pa.float32())), "label": [0, 0, 0, 1, 7]})
    table = pa.Table.from_batches([batch.slice(0, 1), batch.slice(1, 2), batch.slice(3)])
    given = {"outputs": "probs,loss,sample,status", "on_bad_row": "null"}
    for limit in (None, 4, 1, 0):
        got = score_batch(table, limit=limit, **given)
        assert isinstance(got, pa.Table)
        assert got.to_pylist() == score_batch(batch, limit=limit, **given).to_pylist()
    with pytest.raises(BadRowError, match="row 4 of the batch: label 7"):
        score_batch(pa.concat_tables([table.slice(2, 2), table.slice(2)]))
    empty = score_batch(table.slice(0, 0), n_classes=3)
    assert (empty.num_rows, empty.schema.names) == (0, ["label", "probs", "loss"])
