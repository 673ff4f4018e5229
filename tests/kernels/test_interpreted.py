"""Tests of kernels that are interpreted for the first small arrays: Python and compiled code do the same."""

import numpy as np

from batchmax.kernels.compiler.dispatch import Kernel
from batchmax.kernels.parquet.nested_levels import inner_length
from batchmax.kernels.parquet.rle import check_repetition, count_levels
from batchmax.kernels.parquet.thrift_skip import BINARY, LIST, STRUCT, find_structs, read_integers
from batchmax.parquet.thrift import I32, Field, List, write_struct


def two(kernel, *, interpreted):
    """Return the kernel as it's interpreted, and as it's compiled."""
    return [Kernel(kernel.function, kernel.signatures, parallel=False, interpreted=size) for size in (interpreted, 0)]


def same(results):
    """Return whether two results are equal, and of the same types."""
    flat = [result if isinstance(result, tuple) else (result,) for result in results]
    return flat[0] == flat[1] and list(map(type, flat[0])) == list(map(type, flat[1]))


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
            whole = find(data, 0, starts)
            read(data, starts[:-1].copy(), ends, fields, values)
            results.append((whole, starts.tolist(), ends.tolist(), values.tolist()))
        assert results[0] == results[1]
        found += results[0][0]
    assert 100 < found < 500


def test_levels_are_read_as_by_compiled_code():
    """Lists are measured, checked and counted alike in whole and in damaged levels."""
    rng = np.random.default_rng(0)
    kernels, checks, counts = (two(one, interpreted=1 << 40) for one in (inner_length, check_repetition, count_levels))
    found = set()
    for _ in range(500):
        k = int(rng.integers(1, 20))
        levels = np.tile(np.r_[0, np.ones(k - 1, np.int64)], 8).astype(np.uint8)
        packed = np.packbits(levels, bitorder="little")
        repetition = damaged(np.r_[np.uint8((len(packed) << 1) | 1), packed], rng)
        definition = damaged(np.array([(8 * k << 1) & 0x7F | 0x80, 8 * k >> 6, 3], np.uint8), rng)
        length = int(rng.integers(0, 3))
        results = [kernel(repetition, definition, 8 * k, 1, 2, 2, length) for kernel in kernels]
        assert same(results)
        found.add(tuple(map(int, results[0])))
        # For each place in a row, the next eight levels as a byte.
        next_levels = np.packbits([levels[place:][:8] for place in range(k)], axis=1, bitorder="little")[:, 0].copy()
        results = [kernel(repetition, 8 * k, k, 0, next_levels) for kernel in checks]
        assert same(results)
        found.add(int(results[0]))
        for data, width, wanted in ((repetition, 1, 1), (repetition, 1, 0), (definition, 2, 3)):
            results = [kernel(data, 8 * k, width, wanted) for kernel in counts]
            assert same(results)
    assert len(found) > 20
    assert {0, -1} <= found


def test_only_the_first_small_arrays_are_interpreted():
    """After a number of bytes the kernel is compiled, and isn't interpreted again."""
    data = structs()
    kernel, _ = two(find_structs, interpreted=2 * len(data))
    starts = np.zeros(4, np.int64)
    for expected in (0, 0, 1, 1):
        assert kernel(data, 0, starts)
        assert len(kernel._entries) == expected
