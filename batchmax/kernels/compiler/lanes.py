"""Operations that treat the lanes of a vector of 16 float32 differently; see :mod:`.simd`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from batchmax.kernels.compiler.simd import INT32, LANES, SINGLES, WIDTH, broadcast, singles


@intrinsic
def choose_less(typing_context: Any, low: Any, high: Any, a: Any, b: Any) -> Any:
    """Return a where low < high, and b elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        low, high, a, b = (broadcast(builder, argument) for argument in arguments)
        return builder.select(builder.fcmp_ordered("<", low, high), a, b)

    return singles(low, high, a, b), generate


@intrinsic
def without_lane(typing_context: Any, a: Any, lane: Any) -> Any:
    """Return a, with 0 in one lane, if there is a lane of this number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, lane = arguments
        is_lane = builder.icmp_signed("==", LANES, broadcast(builder, builder.trunc(lane, INT32)))
        return builder.select(is_lane, ir.Constant(SINGLES, None), a)

    return singles(singles, types.intp), generate


@intrinsic
def with_lane(typing_context: Any, a: Any, lane: Any, value: Any) -> Any:
    """Return a, with a value in one lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, lane, value = arguments
        is_lane = builder.icmp_signed("==", LANES, broadcast(builder, builder.trunc(lane, INT32)))
        return builder.select(is_lane, broadcast(builder, value), a)

    return singles(singles, types.intp, types.float32), generate


@intrinsic
def below(typing_context: Any, a: Any, value: Any, lane: Any, first: Any) -> Any:
    """Return a where it is less than a value, or equal and after a lane; elsewhere and before lane ``first``, -inf."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, *others = arguments
        value = broadcast(builder, others[0])
        lane, first = (broadcast(builder, builder.trunc(number, INT32)) for number in others[1:])
        is_next = builder.and_(builder.fcmp_ordered("==", a, value), builder.icmp_signed(">", LANES, lane))
        is_below = builder.or_(builder.fcmp_ordered("<", a, value), is_next)
        is_below = builder.and_(is_below, builder.icmp_signed(">=", LANES, first))
        return builder.select(is_below, a, ir.Constant(SINGLES, [float("-inf")] * WIDTH))

    return singles(singles, types.float32, types.intp, types.intp), generate


@intrinsic
def first_lane(typing_context: Any, a: Any, value: Any) -> Any:
    """Return the number of the first lane that equals a value; 16 if none does."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, value = arguments
        is_equal = builder.bitcast(builder.fcmp_ordered("==", a, broadcast(builder, value)), ir.IntType(WIDTH))
        found = builder.or_(builder.zext(is_equal, INT32), INT32(1 << WIDTH))
        return builder.zext(builder.cttz(found, ir.IntType(1)(1)), ir.IntType(64))

    return types.int64(singles, types.float32), generate
