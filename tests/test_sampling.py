"""Draws from probabilities: right in distribution, and the same whatever the threads, batches and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax import kernels
from batchmax.errors import UsageError
from batchmax.losses import softmax_rows
from tests.requirements import optional

stats = optional("scipy.stats")

DIGITS = Path(__file__).resolve().parent.parent / "data" / "digits.parquet"


def drawn(logits, seed=0, first=0, beta=1.0):
    rows = softmax_rows(logits, beta)
    classes = np.empty(len(logits), np.int32)
    kernels.sample_rows(logits, beta, rows.maxima, rows.rests, np.uint64(seed), np.uint64(first), classes)
    return classes


@pytest.mark.parametrize(
    ("draws", "probs"),
    [
        (2_000_000, [0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02]),
        (2_000_000, [0.999, 0.0009, 0.0001]),
        (2_000_000, [1 / 3] * 3),
        (400_000, [1 / 40] * 40),
        pytest.param(100_000_000, [0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02], marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_draws_from_a_known_row_pass_a_chi_square_test(draws, probs, dtype):
    """At the 0.1 % level, over row numbers in sequence."""
    logits = np.log(np.array(probs)).astype(dtype)
    step = min(draws, 1_000_000)
    counts = np.zeros(len(probs))
    rows = np.broadcast_to(logits, (step, len(probs))).copy()
    for first in range(0, draws, step):
        counts += np.bincount(drawn(rows, first=first), minlength=len(probs))
    exact = np.exp(logits.astype(np.float64))
    assert stats.chisquare(counts, exact / exact.sum() * draws).pvalue > 0.001


def test_draws_of_rows_and_of_seeds_are_independent():
    """Neighbouring rows, and the same rows under neighbouring seeds, agree as often as chance has them."""
    logits = np.zeros((300_000, 4), np.float32)
    one, other = drawn(logits, seed=1), drawn(logits, seed=2)
    for a, b in ((one, other), (one[1:], one[:-1]), (one[2:], one[:-2])):
        table = np.histogram2d(a, b, bins=4)[0]
        assert stats.chi2_contingency(table).pvalue > 0.001


def test_temperature_and_masks_count():
    """A masked class is never drawn; a large beta draws the largest; a row without probabilities has no draw."""
    logits = np.array([[1.0, -np.inf, 0.5], [np.nan, 0.0, 0.0], [-np.inf] * 3], np.float32)
    many = np.repeat(logits, 1000, axis=0)
    found = drawn(many)
    assert set(found[:1000]) == {0, 2}
    assert set(found[1000:]) == {-1}
    assert set(drawn(many[:1000], beta=1e4)) == {0}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    """At any number of threads, in any row groups and files, and after a limit; another seed gives others."""
    table = pq.read_table(DIGITS)
    found = []
    for number, (size, threads) in enumerate(((899, 1), (100, 2), (7, 2))):
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=size)
        out = tmp_path / f"out-{number}.parquet"
        batchmax.score(str(tmp_path / f"{number}.parquet"), str(out), outputs="sample", seed=5, threads=threads)
        found.append(pq.read_table(out)["sample"].to_pylist())
    (tmp_path / "two").mkdir()
    for name, part in (("a", table.slice(0, 300)), ("b", table.slice(300))):
        pq.write_table(part, tmp_path / "two" / f"{name}.parquet")
    found.append(
        [
            row
            for batch in batchmax.scan(str(tmp_path / "two"), outputs="sample", seed=5)
            for row in batch["sample"].to_pylist()
        ]
    )
    assert found[1:] == found[:1] * 3
    other = batchmax.score_batch(table.to_batches()[0], outputs="sample", seed=6)["sample"].to_pylist()
    agree = np.mean([a == b for a, b in zip(found[0], other, strict=True)])
    assert 0.8 < agree < 1.0  # the digits are mostly certain
    assert set(found[0]) <= {*["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]}


def test_a_bad_row_has_no_draw_and_a_dropped_one_shifts_none(tmp_path):
    """Rows keep their draws whichever rows before them are bad."""
    rows = pa.array([[1.0, 2.0, 3.0]] * 50, pa.list_(pa.float32())).to_pylist()
    want = batchmax.score_batch(pa.record_batch({"logits": rows}), outputs="sample")["sample"].to_pylist()
    rows[7] = [float("nan"), 0.0, 0.0]
    batch = pa.record_batch({"logits": rows})
    null = batchmax.score_batch(batch, outputs="sample", on_bad_row="null")["sample"].to_pylist()
    assert null == [*want[:7], None, *want[8:]]
    pq.write_table(pa.Table.from_batches([batch]), tmp_path / "a.parquet", row_group_size=10)
    batchmax.score(str(tmp_path / "a.parquet"), str(tmp_path / "o.parquet"), outputs="sample", on_bad_row="drop")
    assert pq.read_table(tmp_path / "o.parquet")["sample"].to_pylist() == [*want[:7], *want[8:]]
    assert batchmax.verify(str(tmp_path / "o.parquet")).n_rows == 49


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5])
def test_seeds_have_64_bits(seed):
    """Anything else is refused."""
    with pytest.raises(UsageError):
        batchmax.score_options(seed=seed)
