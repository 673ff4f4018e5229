"""Keys are sorted, with their weights, whatever their distribution, and the weights of equal keys keep one order."""

from __future__ import annotations

import numpy as np
import pytest

from batchmax.kernels import sorting
from batchmax.kernels.compiler.dispatch import limit_threads
from batchmax.kernels.sorting import sort_keys

DISTRIBUTIONS = {
    "uniform": lambda random, n: random.integers(0, 2**64, n, dtype=np.uint64),
    "normal": lambda random, n: random.normal(size=n).view(np.uint64),
    "powers": lambda random, n: np.uint64(1) << random.integers(0, 64, n, dtype=np.uint64),
    "near powers": lambda random, n: (
        (np.uint64(1) << random.integers(0, 64, n, dtype=np.uint64)) + random.integers(0, 99, n, dtype=np.uint64)
    ),
    "one": lambda _, n: np.full(n, 2**63, np.uint64),
    "two": lambda random, n: random.integers(0, 2, n, dtype=np.uint64) * np.uint64(2**64 - 1),
    "ascending": lambda _, n: np.arange(n, dtype=np.uint64),
    "descending": lambda _, n: np.arange(n, dtype=np.uint64)[::-1].copy(),
    "one outlier": lambda random, n: np.append(random.integers(0, 1000, n - 1, dtype=np.uint64), np.uint64(2**64 - 1)),
}


@pytest.mark.parametrize("kind", [np.uint32, np.uint64])
@pytest.mark.parametrize("n", [1, 2, 24, 25, 3000, 300_000])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_keys_are_sorted_with_their_weights(name, n, kind):
    """The pairs are the same as before, in ascending order of keys."""
    random = np.random.default_rng(n)
    keys = DISTRIBUTIONS[name](random, n)
    keys = (keys >> np.uint64(32) if name in {"uniform", "normal"} else keys).astype(kind)
    weights = random.random(n)
    order = np.lexsort((weights, keys))
    want = keys[order], weights[order]
    plain = keys.copy()
    sort_keys(plain, np.zeros(0))
    sort_keys(keys, weights)
    assert np.array_equal(plain, want[0])
    assert np.array_equal(keys, want[0])
    assert np.array_equal(weights[np.lexsort((weights, keys))], want[1])


def test_the_order_of_equal_keys_does_not_depend_on_threads():
    """One and two threads move the weights of equal keys to the same places."""
    random = np.random.default_rng(1)
    keys, weights = random.integers(0, 500, 200_000).astype(np.uint32), random.random(200_000)
    found = []
    for threads in (1, 2):
        limit_threads(threads)
        mine = keys.copy(), weights.copy()
        sort_keys(*mine)
        found.append(mine[1])
    limit_threads(None)
    assert np.array_equal(*found)


def test_ranges_too_large_to_copy_are_split_in_place():
    """A bucket of many keys is split by exchanging them."""
    random = np.random.default_rng(2)
    n = 4 * sorting.SCRATCH
    keys = np.append(random.integers(0, 2**20, n, dtype=np.uint64), np.uint64(2**63))
    weights = keys.astype(np.float64)
    sort_keys(keys, weights)
    assert (np.diff(keys.astype(np.float64)) >= 0).all()
    assert np.array_equal(weights, keys.astype(np.float64))
