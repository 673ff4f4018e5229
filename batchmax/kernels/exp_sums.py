"""Exponentials exp(beta * (z - m)) of float32 logits in float32, for sums that float32 is exact enough for.

For few classes, the exponentials of a tile of 64 rows; a tile may also have float64 logits, which are computed in
float64. For many classes, sums along a row. See :mod:`batchmax.kernels.softmax.exp_float32`.
"""

from numba import types
from numba.extending import overload

from batchmax.kernels.compiler.intrinsics import compiled
from batchmax.kernels.compiler.lanes import without_lane
from batchmax.kernels.compiler.simd import WIDTH, address, fma_lanes, lanes_from, load, store, total, widened
from batchmax.kernels.exp import shifted_exp
from batchmax.kernels.softmax.exp_float32 import bounds, is_ordinary, scale_parts, scaled_exp, scaled_unit
from batchmax.kernels.tiles import LANES


def fill_tile_exps(tile, ms, beta, es, units):
    """Fill es with the exponentials of a tile, and units with what they are multiples of.

    Parameters
    ----------
    tile : (K, 64) float32 or float64
    ms : (1, 64) of the same type
        The largest logits of the rows.
    beta
        The inverse temperature.
    es : (K, 64) float64
        exp(beta * (tile - ms)) * units, with a relative error of 2**-23 if the tile is float32, where less than
        2**-254 becomes 0.
    units : (64,) float64
    """


@overload(fill_tile_exps, inline="never")
def _fill_tile_exps(tile, ms, beta, es, units):
    if tile.dtype == types.float32:
        return lambda tile, ms, beta, es, units: _fill_single(tile, ms, beta, es, units)
    return lambda tile, ms, beta, es, units: _fill_double(tile, ms, beta, es, units)


@compiled
def _fill_single(tile, ms, beta, es, units):
    c, high, low = scale_parts(beta)
    for start in range(0, LANES, WIDTH):
        lowest, rounder = bounds(load(address(ms, 0), start), high)
        for j in range(tile.shape[0]):
            e = scaled_exp(load(address(tile, j), start), high, low, lowest, rounder)
            store(address(es, j), start, widened(e))
    for r in range(LANES):
        units[r] = scaled_unit(ms[0, r], c, high)
    for r in range(LANES):
        if not is_ordinary(ms[0, r], c):
            units[r] = 1.0
            for j in range(tile.shape[0]):
                es[j, r] = shifted_exp(tile[j, r], ms[0, r], beta)


@compiled
def _fill_double(tile, ms, beta, es, units):
    for j in range(tile.shape[0]):
        for r in range(LANES):
            es[j, r] = shifted_exp(tile[j, r], ms[0, r], beta)
    for r in range(LANES):
        units[r] = 1.0


@compiled
def sum_others(row, k, y, high, low, lowest, rounder):
    """Return the sum of the exponentials of all classes but y, and of their squares, for a row of float32 logits."""
    last = k - WIDTH
    e = scaled_exp(load(row, last), high, low, lowest, rounder)
    e = widened(lanes_from((WIDTH - k) % WIDTH, without_lane(e, y - last)))
    sums, squares = e, e * e
    for j in range(0, last, WIDTH):
        e = widened(without_lane(scaled_exp(load(row, j), high, low, lowest, rounder), y - j))
        sums, squares = sums + e, fma_lanes(e, e, squares)
    return total(sums), total(squares)
