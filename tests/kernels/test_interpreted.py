"""Tests of kernels that are interpreted for the first small arrays: Python and compiled code do the same."""

import numpy as np

from batchmax.kernels.compiler.dispatch import Kernel
from batchmax.kernels.parquet.thrift_skip import BINARY, LIST, STRUCT, find_structs, read_integers
from batchmax.parquet.thrift import I32, Field, List, write_struct


def two(kernel, *, interpreted):
    """Return the kernel as it's interpreted, and as it's compiled."""
    return [Kernel(kernel.function, kernel.signatures, parallel=False, interpreted=size) for size in (interpreted, 0)]


def damaged(data, rng):
    """Return a copy of bytes of which some are random."""
    copy = data.copy()
    places = rng.integers(0, len(copy), rng.integers(0, 4))
    copy[places] = rng.integers(0, 256, len(places))
    return copy


def structs():
    """Return the bytes of three structs of integers, texts, lists and structs."""
    inner = {1: Field(I32, 7), 2: Field(BINARY, b"abc")}
    one = {1: Field(I32, 300), 3: Field(STRUCT, inner), 4: Field(LIST, List(I32, [1, 2, 3])), 9: Field(I32, 1 << 20)}
    return np.frombuffer(write_struct(one) * 3, np.uint8)


def test_the_results_are_those_of_compiled_code():
    """Whole and damaged structs are found and read alike."""
    rng = np.random.default_rng(0)
    fields = np.array([1, 9, 256 * 3 + 1])
    kernels = list(zip(two(find_structs, interpreted=1 << 40), two(read_integers, interpreted=1 << 40), strict=True))
    found = 0
    for _ in range(500):
        data = damaged(structs(), rng)
        results = []
        for find, read in kernels:
            starts, ends, values = np.zeros(4, np.int64), np.zeros(3, np.int64), np.zeros((3, 3), np.int64)
            whole = bool(find(data, 0, starts))
            read(data, starts[:-1].copy(), ends, fields, values)
            results.append((whole, starts.tolist(), ends.tolist(), values.tolist()))
        assert results[0] == results[1]
        found += results[0][0]
    assert 100 < found < 500


def test_only_the_first_small_arrays_are_interpreted():
    """After a number of bytes the kernel is compiled, and isn't interpreted again."""
    data = structs()
    kernel, _ = two(find_structs, interpreted=2 * len(data))
    starts = np.zeros(4, np.int64)
    for expected in (0, 0, 1, 1):
        assert kernel(data, 0, starts)
        assert len(kernel._entries) == expected
