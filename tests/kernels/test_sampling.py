"""Random draws have the right distribution, and don't depend on threads, batches and files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import UsageError
from batchmax.functional.losses import softmax_rows
from batchmax.kernels.sampling import sample_rows
from tests.support.paths import DATA
from tests.support.requirements import optional
from tests.support.split_mix import split_mix

stats = optional("scipy.stats")

DIGITS = DATA / "digits.parquet"


def drawn(logits, seed=0, first=0, beta=1.0):
    rows = softmax_rows(logits, beta)
    classes = np.empty(len(logits), np.int32)
    sample_rows(logits, beta, rows.maxima, rows.rests, np.uint64(seed), np.uint64(first), classes)
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
    """Draws over consecutive row numbers pass a chi-square test at the 0.1 % level."""
    logits = np.log(np.array(probs)).astype(dtype)
    step = min(draws, 1_000_000)
    counts = np.zeros(len(probs))
    rows = np.broadcast_to(logits, (step, len(probs))).copy()
    for first in range(0, draws, step):
        counts += np.bincount(drawn(rows, first=first), minlength=len(probs))
    exact = np.exp(logits.astype(np.float64))
    assert stats.chisquare(counts, exact / exact.sum() * draws).pvalue > 0.001


def first_draws(k, seeds, row):
    """Return the draw of one row of k equal logits under each seed."""
    logits = np.zeros((1, k), np.float32)
    rows = softmax_rows(logits, 1.0)
    classes = np.empty((len(seeds), 1), np.int32)
    for number, seed in enumerate(seeds):
        sample_rows(logits, 1.0, rows.maxima, rows.rests, np.uint64(seed), np.uint64(row), classes[number])
    return classes[:, 0]


def test_split_mix_has_its_published_outputs():
    """The oracle's first outputs for the seed 1234567 equal those of the reference implementation."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [split_mix(1234567, n) for n in range(4)] == published


def documented_draw(probs, u):
    """Return the first class whose cumulative probability is above u, in the documented order of the classes."""
    k = len(probs)
    whole = (k - 1) // 16 * 16
    lanes = [[*range(lane, whole, 16), *([k - 16 + lane] if k - 16 + lane >= whole else [])] for lane in range(16)]
    order = [j for lane in lanes for j in lane]
    assert sorted(order) == list(range(k))
    sums = np.cumsum(probs[order])
    return order[int(np.argmax(sums > u * sums[-1]))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 2, 9, 15, 16, 17, 31, 32, 33, 48, 49, 63, 64, 65, 100, 1000])
@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_the_draws_are_those_of_the_documented_algorithm(k, dtype, scale):
    """Draws invert the cumulative distribution, with u from SplitMix64 in exact integers; also for huge logits."""
    logits = (np.random.default_rng(7).normal(size=(150, k)) * 2).astype(dtype)
    logits[::7, k // 2] = -np.inf if k > 1 else 0
    huge = (logits * scale).astype(dtype)
    beta = 1 / scale
    probs = np.exp(beta * (huge.astype(np.float64) - huge.max(axis=1, keepdims=True)))
    for seed in (0, 1, 2**64 - 1):
        for first in (0, 10**9, 2**63):
            uniform = [(split_mix(split_mix(seed, 0), first + row) >> 11) / 2**53 for row in range(150)]
            want = [documented_draw(p, u) for p, u in zip(probs, uniform, strict=True)]
            assert drawn(huge, seed, first, beta).tolist() == want


@pytest.mark.parametrize("k", [2, 10, 1000])
@pytest.mark.parametrize("row", [0, 1, 2**32, 10**12])
def test_the_draws_of_one_row_over_seeds_are_uniform(row, k):
    """Over the seeds 0, 1, 2, …, the draws of a row of equal logits are uniform."""
    counts = np.bincount(first_draws(k, range(max(4000, 12 * k)), row), minlength=k)
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("k", [2, 10, 1000])
@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_the_draws_of_one_seed_over_rows_are_uniform(seed, k):
    """Over rows from row 0 on, the draws of equal logits with one seed are uniform."""
    counts = np.bincount(drawn(np.zeros((40 * k + 20_000, k), np.float32), seed), minlength=k)
    assert stats.chisquare(counts).pvalue > 0.001


def test_tokens_draw_as_rows_of_their_own_numbers():
    """Token t of row r has the draw of row 2**32 * r + t, and the draws of equal logits are uniform."""
    tokens = np.zeros((3, 400, 5), np.float32)
    batch = pa.record_batch({"logits": tokens.tolist()}, pa.schema([("logits", pa.list_(pa.list_(pa.float32())))]))
    found = np.array(batchmax.score_batch(batch, outputs="sample")["samples"].to_pylist())
    assert found.tolist() == [drawn(rows, first=2**32 * row).tolist() for row, rows in enumerate(tokens)]
    assert stats.chisquare(np.bincount(found.ravel(), minlength=5)).pvalue > 0.001
    short = pa.record_batch({"logits": np.zeros((4000, 1, 5)).tolist()}, batch.schema)
    first = [row[0] for row in batchmax.score_batch(short, outputs="sample")["samples"].to_pylist()]
    assert stats.chisquare(np.bincount(first, minlength=5)).pvalue > 0.001


def test_draws_of_rows_and_of_seeds_are_independent():
    """Draws of neighboring rows, of neighboring seeds, and of both together are independent."""
    logits = np.zeros((300_000, 4), np.float32)
    draws = [drawn(logits, seed) for seed in (0, 1, 2)]
    none, one, other = draws
    pairs = [(one, other), (none, one), (one[1:], one[:-1]), (one[2:], one[:-2]), (one[1:], other[:-1])]
    for a, b in [*pairs, (one[:-1], other[1:]), (none[4:], none[:-4])]:
        table = np.histogram2d(a, b, bins=4)[0]
        assert stats.chi2_contingency(table).pvalue > 0.001
    by_seed = first_draws(4, range(20_000), 0)
    for a, b in ((by_seed[1:], by_seed[:-1]), (by_seed, first_draws(4, range(20_000), 1))):
        assert stats.chi2_contingency(np.histogram2d(a, b, bins=4)[0]).pvalue > 0.001


def test_temperature_and_masks_count():
    """A masked class is never drawn, a large beta draws the largest logit, and a bad row has no draw."""
    logits = np.array([[1.0, -np.inf, 0.5], [np.nan, 0.0, 0.0], [-np.inf] * 3], np.float32)
    many = np.repeat(logits, 1000, axis=0)
    found = drawn(many)
    assert set(found[:1000]) == {0, 2}
    assert set(found[1000:]) == {-1}
    assert set(drawn(many[:1000], beta=1e4)) == {0}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    """The same seed gives the same draws for any threads, row groups and files; another seed gives others."""
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
    assert 0.8 < agree < 1.0  # most predictions of the digits are nearly certain
    assert set(found[0]) <= {*["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]}


def test_a_bad_row_has_no_draw_and_a_dropped_one_shifts_none(tmp_path):
    """Rows keep their draws whichever rows before them are bad or dropped."""
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
    """A seed outside 0 … 2**64 - 1, or not an integer, is refused."""
    with pytest.raises(UsageError):
        batchmax.score_options(seed=seed)
