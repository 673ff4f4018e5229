"""Tests statuses, and how bad rows are handled."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from batchmax import BadRowError, score_batch
from tests.support.batches import batch_of, batch_of_every_status
from tests.support.outputs import SOFTMAX_OUTPUTS
from tests.support.rows import BAD, INF, LABELS_BY_STATUS, NAN, PRECEDENCE, WITHOUT_LOSS, WITHOUT_PROBS

ALL = tuple(name for name in SOFTMAX_OUTPUTS if name != "sample")
"""All outputs that depend only on the row; draws are tested in test_sampling."""
NEED_LABEL = ("loss", "rank", "correct", "el2n")


def test_statuses_take_precedence_as_listed():
    """If a row has several defects, its status is the one that comes first in the list."""
    batch, statuses = batch_of_every_status()
    got = score_batch(batch, outputs="status", on_bad_row="null")
    assert got["status"].to_pylist() == statuses
    assert set(statuses) == set(PRECEDENCE)


@pytest.mark.parametrize("options", [{}, {"layout": "fixed"}, {"layout": "wide"}, {"dtype": "float64"}])
def test_policy_null_writes_nulls(options):
    """With ``null``, rows without probabilities have only a status; rows without a loss have nulls in label outputs."""
    batch, statuses = batch_of_every_status()
    got = score_batch(batch, outputs=ALL, top_k=2, on_bad_row="null", **options)
    assert got.num_rows == batch.num_rows
    assert got["label"].equals(batch["label"])
    for name in got.schema.names[1:]:
        if name == "status":
            assert got[name].null_count == 0
            continue
        without = WITHOUT_LOSS if name in NEED_LABEL else WITHOUT_PROBS
        assert got[name].is_null().to_pylist() == [status in without for status in statuses], name


def test_bad_rows_do_not_change_other_rows():
    """Bad rows don't change the results of other rows."""
    batch, statuses = batch_of_every_status()
    got = score_batch(batch, outputs=ALL, top_k=2, on_bad_row="null")
    for row, status in enumerate(statuses):
        if status not in BAD:
            alone = score_batch(batch.slice(row, 1), outputs=ALL, top_k=2)
            assert alone.to_pylist() == got.slice(row, 1).to_pylist()


def test_masked_labels_have_an_infinite_loss():
    """A masked label has loss +inf, the last rank, and probability 0."""
    got = score_batch(batch_of(np.array([[-INF, 0.0, 1.0]], np.float32), [0]), outputs=ALL)
    row = got.to_pylist()[0]
    assert (row["loss"], row["rank"], row["probs"][0], row["log_probs"][0]) == (INF, 3, 0.0, -INF)
    assert (row["status"], row["correct"]) == ("masked_label", False)


def test_policy_drop_leaves_out_only_bad_rows():
    """With ``drop``, bad rows are removed; the others are the same as with ``null``, in the same order."""
    batch, statuses = batch_of_every_status()
    kept = [row for row, status in enumerate(statuses) if status not in BAD]
    for layout in ("list", "fixed", "wide"):
        options = {"outputs": ALL, "top_k": 2, "layout": layout}
        nulled = score_batch(batch, on_bad_row="null", **options).to_pylist()
        dropped = score_batch(batch, on_bad_row="drop", **options)
        assert dropped.to_pylist() == [nulled[row] for row in kept]


@pytest.mark.parametrize(
    ("logits", "label", "says"),
    [
        (None, 0, "the logits are null"),
        ([1.0, None, 2.0], 0, "the logits are null"),
        ([1.0, 2.0], 0, "2 logits, not 3"),
        ([], 0, "0 logits, not 3"),
        ([1.0, NAN, 2.0], 0, "NaN at class 1"),
        ([1.0, 2.0, INF], 0, "+inf at class 2"),
        ([-INF, -INF, -INF], 0, "every logit is -inf"),
        ([1.0, 2.0, 3.0], 4, "label 4 is not a class: valid labels are 0 to 2"),
        ([1.0, 2.0, 3.0], -1, "label -1 is not a class: valid labels are 0 to 2"),
        ([1.0, 2.0, 3.0], 3, "if labels start at 1: --classes 1,2,3"),
    ],
)
def test_policy_error_names_the_first_bad_row(logits, label, says):
    """With ``error``, the first bad row is named, with what is wrong and the remedy."""
    good = [0.0, 1.0, 2.0]
    batch = batch_of(pa.array([good, good, logits, None], pa.list_(pa.float32())), pa.array([0, 1, label, 0]))
    with pytest.raises(BadRowError) as caught:
        score_batch(batch)
    assert str(caught.value).startswith("row 2 of the batch: ")
    assert says in str(caught.value)
    assert str(caught.value).endswith("to write nulls instead: --on-bad-row null")


@pytest.mark.parametrize("status", [name for name in LABELS_BY_STATUS if name != "bad_label"])
def test_policy_error_accepts_flagged_rows(status):
    """Ignored, unlabelled and masked labels aren't errors."""
    batch = batch_of(pa.array([[-INF, 1.0], [0.0, 1.0]]), pa.array([LABELS_BY_STATUS[status], 1]))
    assert score_batch(batch).num_rows == 2


def test_unused_labels_may_be_bad():
    """Bad labels are accepted if no output needs labels."""
    batch = batch_of(np.zeros((2, 2), np.float32), [7, -3])
    assert score_batch(batch, outputs="probs,entropy").num_rows == 2
    with pytest.raises(BadRowError, match="label 7"):
        score_batch(batch, outputs="status")
