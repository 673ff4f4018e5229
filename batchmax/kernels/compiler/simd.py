"""SIMD vectors of 16 float32 or float64 as Numba types, with the operations that kernels need.

LLVM vectorizes loops automatically, and most kernels rely on that. But it computes up to 15 numbers at the end of a row
one by one, which costs as much as the rest of a row of a hundred classes, and it offers neither prefetching nor the
transposition of a few rows. CPUs with narrower registers process a vector in pieces, with the same results.

Rows are passed as addresses instead of arrays: passing an array to a function changes its reference count atomically,
which takes longer than a short row.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

from batchmax.kernels.compiler.intrinsics import call_llvm

WIDTH = 16
"""Numbers in a vector: as many float32 as the widest registers hold."""

INT32 = ir.IntType(32)
INTS = ir.VectorType(INT32, WIDTH)
SINGLES = ir.VectorType(ir.FloatType(), WIDTH)
DOUBLES = ir.VectorType(ir.DoubleType(), WIDTH)
LANES = ir.Constant(INTS, list(range(WIDTH)))
ALIGN = 4


class Vector(types.Type):  # type: ignore[misc]
    """The Numba type of a vector of 16 float32 or float64."""


singles, doubles = Vector("singles"), Vector("doubles")


@register_model(Vector)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, SINGLES if vector == singles else DOUBLES)


def broadcast(builder: Any, value: Any) -> Any:
    """Broadcast a scalar to a vector; return a vector unchanged."""
    if isinstance(value.type, ir.VectorType):
        return value
    kind = ir.VectorType(value.type, WIDTH)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, INT32(0))
    return builder.shuffle_vector(one, one, ir.Constant(INTS, [0] * WIDTH))


def _vector_at(builder: Any, row: Any, j: Any, kind: Any = SINGLES) -> Any:
    return builder.bitcast(builder.gep(row, [j]), kind.as_pointer())


# Memory


@intrinsic
def address(typing_context: Any, matrix: Any, i: Any) -> Any:
    """Return the address of row i of a C-contiguous (n, K) array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        n_columns = cgutils.unpack_tuple(builder, array.shape)[1]
        return builder.gep(array.data, [builder.mul(arguments[1], n_columns)])

    return types.CPointer(matrix.dtype)(matrix, types.intp), generate


@intrinsic
def load(typing_context: Any, row: Any, j: Any) -> Any:
    """Load 16 float32 or float64, starting at index j of a row."""
    vector, kind = (singles, SINGLES) if row.dtype == types.float32 else (doubles, DOUBLES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, j = arguments
        return builder.load(_vector_at(builder, row, j, kind), align=ALIGN)

    return vector(row, types.intp), generate


@intrinsic
def store(typing_context: Any, row: Any, j: Any, vector: Any) -> Any:
    """Store 16 float32 or float64, starting at index j of a row."""
    kind = SINGLES if vector == singles else DOUBLES

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, j, vector = arguments
        builder.store(vector, _vector_at(builder, row, j, kind), align=ALIGN)
        return context.get_dummy_value()

    return types.void(row, types.intp, vector), generate


@intrinsic
def prefetch(typing_context: Any, row: Any, j: Any) -> Any:
    """Prefetch the cache line of index j of a row. The index may be out of range."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = builder.bitcast(builder.gep(*arguments[:1], arguments[1:]), ir.IntType(8).as_pointer())
        to_read, into_every_cache, data = INT32(0), INT32(3), INT32(1)
        call_llvm(builder, "llvm.prefetch.p0", ir.VoidType(), [at, to_read, into_every_cache, data])
        return context.get_dummy_value()

    return types.void(row, types.intp), generate


# Columns of 16 rows


def _transposed(builder: Any, vectors: list[Any]) -> list[Any]:
    """Transpose the four 4 x 4 matrices that four vectors hold: each vector has one row of every matrix.

    Only numbers within 128 bits change places, which every CPU does in one instruction. The function is its own
    inverse.
    """

    def shuffled(a: Any, b: Any, *lanes: int) -> Any:
        everywhere = [quad + lane for quad in range(0, WIDTH, 4) for lane in lanes]
        return builder.shuffle_vector(a, b, ir.Constant(INTS, everywhere))

    w = WIDTH  # the first lane of the second vector
    a, b, c, d = vectors
    pairs = [shuffled(x, y, *order) for order in ((0, w, 1, w + 1), (2, w + 2, 3, w + 3)) for x, y in ((a, b), (c, d))]
    return [
        shuffled(x, y, *order) for x, y in (pairs[:2], pairs[2:]) for order in ((0, 1, w, w + 1), (2, 3, w + 2, w + 3))
    ]


QUAD = ir.VectorType(ir.FloatType(), 4)


def _quad_at(builder: Any, row: Any, n_columns: Any, r: int, j: Any) -> Any:
    index = builder.add(builder.mul(n_columns, ir.Constant(n_columns.type, r)), j)
    return builder.bitcast(builder.gep(row, [index]), QUAD.as_pointer())


@intrinsic
def load_columns(typing_context: Any, rows: Any, n_columns: Any, j: Any) -> Any:
    """Load the columns j to j + 3 of 16 rows of float32 that follow each other, as four vectors."""
    returned = types.UniTuple(singles, 4)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, n_columns, j = arguments
        vectors = []
        for i in range(4):
            quads = [
                builder.load(_quad_at(builder, rows, n_columns, 4 * lane + i, j), align=ALIGN) for lane in range(4)
            ]
            while len(quads) > 1:
                n = quads[0].type.count
                both = ir.Constant(ir.VectorType(INT32, 2 * n), list(range(2 * n)))
                quads = [builder.shuffle_vector(a, b, both) for a, b in zip(quads[::2], quads[1::2], strict=True)]
            vectors += quads
        return context.make_tuple(builder, returned, _transposed(builder, vectors))

    return returned(rows, types.intp, types.intp), generate


@intrinsic
def store_columns(typing_context: Any, rows: Any, n_columns: Any, j: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Store four vectors as the columns j to j + 3 of 16 rows of float32 that follow each other."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, n_columns, j, *vectors = arguments
        transposed = _transposed(builder, vectors)
        # Without the fence, LLVM would split the vectors before it shuffles them, which takes more instructions.
        fence = "llvm.arithmetic.fence.v16f32"
        transposed = [call_llvm(builder, fence, SINGLES, [vector]) for vector in transposed]
        for r in range(WIDTH):
            vector, lane = transposed[r % 4], r // 4 * 4
            quad = builder.shuffle_vector(
                vector, vector, ir.Constant(ir.VectorType(INT32, 4), list(range(lane, lane + 4)))
            )
            builder.store(quad, _quad_at(builder, rows, n_columns, r, j), align=ALIGN)
        return context.get_dummy_value()

    return types.void(rows, types.intp, types.intp, singles, singles, singles, singles), generate


# Lanewise operations. Scalar operands are broadcast.


def _of_two(emit: Any) -> Any:
    @intrinsic
    def operation(typing_context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return emit(builder, *(broadcast(builder, argument) for argument in arguments))

        return (a if isinstance(a, Vector) else b)(a, b), generate

    return operation


larger = _of_two(lambda builder, a, b: call_llvm(builder, "llvm.maximum.v16f32", SINGLES, [a, b], ("nsz",)))
"""The larger of a and b; NaN if either is NaN."""

at_least = _of_two(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
"""The larger of a and b, if neither is NaN: one instruction instead of three."""

at_most = _of_two(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
"""The smaller of a and b, if neither is NaN."""

_add = _of_two(lambda builder, a, b: builder.fadd(a, b))
_subtract = _of_two(lambda builder, a, b: builder.fsub(a, b))
_multiply = _of_two(lambda builder, a, b: builder.fmul(a, b))
_divide = _of_two(lambda builder, a, b: builder.fdiv(a, b))


def _has_vector(a: Any, b: Any) -> bool:
    return isinstance(a, Vector) or isinstance(b, Vector)


@overload(operator.add)
def _plus(a, b):
    return (lambda a, b: _add(a, b)) if _has_vector(a, b) else None


@overload(operator.sub)
def _minus(a, b):
    return (lambda a, b: _subtract(a, b)) if _has_vector(a, b) else None


@overload(operator.mul)
def _times(a, b):
    return (lambda a, b: _multiply(a, b)) if _has_vector(a, b) else None


@overload(operator.truediv)
def _over(a, b):
    return (lambda a, b: _divide(a, b)) if _has_vector(a, b) else None


@intrinsic
def fma_lanes(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, rounded once."""
    vector = next(kind for kind in (a, b, c) if isinstance(kind, Vector))
    name, kind = ("llvm.fma.v16f32", SINGLES) if vector == singles else ("llvm.fma.v16f64", DOUBLES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return call_llvm(builder, name, kind, [broadcast(builder, x) for x in arguments])

    return vector(a, b, c), generate


@intrinsic
def add_exponents(typing_context: Any, a: Any, b: Any) -> Any:
    """Return a * 2**n, where n > -256 is in the low bits of b; 0 if the result is subnormal or smaller."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits, exponents = (builder.bitcast(argument, INTS) for argument in arguments)
        shifted = builder.shl(exponents, ir.Constant(INTS, [23] * WIDTH))
        scaled = builder.add(bits, shifted)
        zero = ir.Constant(INTS, None)
        return builder.bitcast(builder.select(builder.icmp_signed(">", scaled, zero), scaled, zero), SINGLES)

    return singles(singles, singles), generate


@intrinsic
def where_less(typing_context: Any, low: Any, high: Any, a: Any) -> Any:
    """Return a where low < high, and 0 elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        low, high, a = (broadcast(builder, argument) for argument in arguments)
        return builder.select(builder.fcmp_ordered("<", low, high), a, ir.Constant(SINGLES, None))

    return singles(low, high, a), generate


@intrinsic
def lanes_from(typing_context: Any, count: Any, a: Any) -> Any:
    """Return a, with 0 in its first ``count`` lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count, a = arguments
        is_after = builder.icmp_signed(">=", LANES, broadcast(builder, builder.trunc(count, INT32)))
        return builder.select(is_after, a, ir.Constant(SINGLES, None))

    return singles(types.intp, singles), generate


@intrinsic
def marked_nan(typing_context: Any, m: Any, a: Any) -> Any:
    """Return m, with NaN where a is NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        m, a = arguments
        nan = ir.Constant(SINGLES, [float("nan")] * WIDTH)
        return builder.select(builder.fcmp_unordered("uno", a, a), nan, m)

    return singles(singles, singles), generate


@intrinsic
def any_above(typing_context: Any, a: Any, limit: Any) -> Any:
    """Return whether any lane is above a limit."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, limit = arguments
        is_above = builder.fcmp_ordered(">", a, broadcast(builder, limit))
        return call_llvm(builder, "llvm.vector.reduce.or.v16i1", ir.IntType(1), [is_above])

    return types.boolean(singles, types.float32), generate


# Conversions and reductions


@intrinsic
def widened(typing_context: Any, a: Any) -> Any:
    """Convert a vector of float32 to float64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(arguments[0], DOUBLES)

    return doubles(singles), generate


@intrinsic
def narrowed(typing_context: Any, a: Any) -> Any:
    """Convert a vector of float64 to float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fptrunc(arguments[0], SINGLES)

    return singles(doubles), generate


def _combined(builder: Any, vector: Any, combine: Any) -> Any:
    """Reduce a vector to one number by combining its halves repeatedly."""
    n = WIDTH
    while n > 1:
        n //= 2
        low, high = (ir.Constant(ir.VectorType(INT32, n), list(range(start, start + n))) for start in (0, n))
        vector = combine(*(builder.shuffle_vector(vector, vector, half) for half in (low, high)))
    return builder.extract_element(vector, INT32(0))


@intrinsic
def largest(typing_context: Any, a: Any) -> Any:
    """Return the largest lane; NaN if any lane is NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (a,) = arguments
        m = _combined(builder, a, lambda x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y))
        odd = call_llvm(builder, "llvm.vector.reduce.or.v16i1", ir.IntType(1), [builder.fcmp_unordered("uno", a, a)])
        return builder.select(odd, ir.Constant(ir.FloatType(), float("nan")), m)

    return types.float32(singles), generate


@intrinsic
def largest_number(typing_context: Any, a: Any) -> Any:
    """Return the largest lane, if none is NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _combined(builder, arguments[0], lambda x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y))

    return types.float32(singles), generate


@intrinsic
def smallest(typing_context: Any, a: Any) -> Any:
    """Return the smallest lane, if none is NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _combined(builder, arguments[0], lambda x, y: builder.select(builder.fcmp_ordered("<", x, y), x, y))

    return types.float32(singles), generate


@intrinsic
def total(typing_context: Any, a: Any) -> Any:
    """Return the sum of the lanes of a float64 vector, in the same order on every CPU."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _combined(builder, arguments[0], builder.fadd)

    return types.float64(doubles), generate
