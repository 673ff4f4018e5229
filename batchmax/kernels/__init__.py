"""Numba kernels: arrays in, arrays out, rows in parallel. They don't know Arrow or files.

Importing this package imports Numba. A kernel is compiled when it is first called.

Decisions
---------
The same bits on every CPU
    The order of sums is written out (lanes, then halves), NaN results are one constant, exp and log are our own, and
    each block of rows sets the floating-point mode. Rejected: LLVM's ``reassoc`` flag for sums, whose order follows the
    width of the registers, and NumPy's ``exp`` and ``log``, which choose an implementation by CPU.
No ``fastmath`` on a function
    NaN and infinity keep their meaning, and nothing is reordered or contracted.
An exponential of our own
    Numba no longer ships SVML, so ``math.exp`` in a loop is a scalar call. Ours is plain arithmetic (range reduction, a
    polynomial, the bits of the exponent), which LLVM vectorizes. Rejected: a table (gathers) and a C extension (wheels
    for every platform).
float32 rows are computed in float32, their sums in float64
    The logits are not shifted by the maximum: β/ln 2 · z, split into an integer and a remainder by fused multiply-adds,
    has the same two rounding errors at any distance, and the maximum's share cancels in the division by the sum. Rows
    whose maximum is very large, NaN or infinite are computed in float64. Rejected: float64 throughout (1.5 instead of
    2.6 ULP at worst, at half the speed), and compensated float32 (as many operations as float64).
float64 rows keep what is rounded away
    A two-sum for z − m, a product with its fused remainder for β(z − m), compensated sums. Rejected: plain float64
    (tens to hundreds of ULP far from the maximum), and longer types, which do not vectorize.
The float32 loop is written in vectors
    LLVM would compute up to fifteen classes at the end of a row one by one, and can't fetch the next row meanwhile.
    Masked loads and stores end a row of any length.
Across rows or along a row
    A row of few classes does not fill vector registers. Up to 12 classes of float32 (computed in float64) and 32 of
    float64, 64 rows are transposed into a tile and the registers hold rows (*tall*); with more classes, they hold
    classes (*wide*). Type and number of classes alone decide, and tiles are padded, so the bits of a row do not depend
    on its neighbors. Rejected: a choice by the size of the batch as well.
Row metrics have a kernel of their own
    One pass gives the prediction, the label's rank and the Brier score; one thread adds them up in the order of the
    rows. Rejected: the kernels of ``pred``, ``rank`` and ``el2n`` (three passes in float64), and parallel sums, which
    would depend on the number of threads.
KL divergence without cancellation
    Σ p (e^d − 1 − d) with d = log q − log p equals Σ p log(p/q), because both sum to 1, and has no negative terms.
    Rejected: the textbook sum, which is noise below 1e-16.
Samples without state
    The random number of a class is a hash of seed, row and class. Rejected: generators with a state per thread.
One lock around all kernels
    Numba's ``workqueue`` layer aborts the process when two threads enter, and each kernel uses all cores anyway.
No threads after a fork
    GNU OpenMP ends a forked child that starts threads, or never returns when PyTorch used the same runtime in the
    parent. The child runs the same functions compiled without threads. Rejected: an error that asks for ``spawn``.
Kernels are compiled in a thread of their own
    A signal raises in the main thread, and an exception inside LLVM crashes the process later.
A cache folder of our own, keyed by the text of all kernel sources
    Numba's cache is keyed by the time stamp of one file and misses changes in the functions that a kernel calls.

For Intel CPUs with AVX-512, LLVM prefers registers of 256 bits; ``NUMBA_CPU_FEATURES`` with ``-prefer-256-bit`` at its
end changes that. ``NUMBA_CPU_NAME=generic`` compiles for any CPU of the architecture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from batchmax.kernels import (
    activations,
    compensated_sums,
    elementwise,
    kl_divergence,
    metric_sums,
    moments,
    ranking,
    row_metrics,
    sampling,
    soft_targets,
    softmax_float32,
)
from batchmax.kernels import softmax as _softmax
from batchmax.kernels.cache import cache_folder, source_fingerprint
from batchmax.kernels.dispatch import Kernel, limit_threads, standard_floats
from batchmax.kernels.intrinsics import compiled_by
from batchmax.kernels.parquet import nested_levels, rle, snappy, thrift_skip

__all__ = [
    "activate_rows",
    "check_repetition",
    "compiled_by",
    "count_levels",
    "count_texts",
    "decompress_snappy",
    "divergence_rows",
    "exp_values",
    "find_structs",
    "inner_length",
    "limit_threads",
    "log1p_values",
    "log_matrix",
    "look_up",
    "loss_rows",
    "metric_rows",
    "order_rows",
    "read_integers",
    "row_moments",
    "sample_rows",
    "soft_cross_entropy",
    "soft_metric_rows",
    "softmax_rows",
    "source_fingerprint",
    "standard_floats",
    "stored",
    "sum_counted",
    "sum_lists",
    "tail_rows",
    "tally_groups",
    "tally_rows",
    "text_lengths",
    "top_k_rows",
    "walk_levels",
    "warmup",
]

_single = Kernel(softmax_float32.softmax_single, 4)
_wide = Kernel(_softmax.softmax_wide, 4)
_tall = Kernel(_softmax.softmax_tall, 4)
_metrics_float32 = Kernel(row_metrics.metrics_float32, 6)
_metrics = Kernel(row_metrics.metrics, 6)
soft_metric_rows = Kernel(row_metrics.soft_metrics, 5)

order_rows = Kernel(ranking.order, 5)
top_k_rows = Kernel(ranking.top_k, 4)
tail_rows = Kernel(ranking.tails, 5)
row_moments = Kernel(moments.moments, 5)
activate_rows = Kernel(activations.activate, 3)
loss_rows = Kernel(activations.losses, 6)
sample_rows = Kernel(sampling.sample, 4)
soft_cross_entropy = Kernel(soft_targets.soft_cross_entropy, 7)
divergence_rows = Kernel(kl_divergence.divergence, 4)
log_matrix = Kernel(elementwise.log_matrix, 1)
exp_values = Kernel(elementwise.exp_values, 1, parallel=False)
log1p_values = Kernel(elementwise.log1p_values, 1, parallel=False)
check_repetition = Kernel(rle.check_repetition, 5, parallel=False)
look_up = Kernel(rle.look_up, 4, parallel=False)
decompress_snappy = Kernel(snappy.decompress_snappy, 2, parallel=False)
inner_length = Kernel(nested_levels.inner_length, 2, parallel=False)
walk_levels = Kernel(nested_levels.walk_levels, 2, parallel=False)
count_levels = Kernel(rle.count_levels, 4, parallel=False)
count_texts = Kernel(rle.count_texts, 1, parallel=False)
text_lengths = Kernel(rle.text_lengths, 1, parallel=False)
stored = Kernel(snappy.stored, 2, parallel=False)
find_structs = Kernel(thrift_skip.find_structs, 2, parallel=False)
read_integers = Kernel(thrift_skip.read_integers, 2, parallel=False)
sum_lists = Kernel(compensated_sums.sum_lists, 3, parallel=False)
sum_counted = Kernel(compensated_sums.sum_counted, 2, parallel=False)
tally_rows = Kernel(metric_sums.tally_rows, 9, parallel=False)
tally_groups = Kernel(metric_sums.tally_groups, 7, parallel=False)


def softmax_rows(logits: Any, *arguments: Any) -> None:
    """Run the softmax kernel for these logits; see :func:`batchmax.kernels.softmax.softmax_wide`."""
    by_row = _single if logits.dtype == np.float32 else _wide
    (_tall if logits.shape[1] <= _softmax.MAX_TALL_CLASSES[logits.dtype.name] else by_row)(logits, *arguments)


def metric_rows(logits: Any, *arguments: Any) -> None:
    """Compute row metrics with the kernel for these logits; see :func:`batchmax.kernels.row_metrics.metrics`."""
    is_wide = logits.dtype == np.float32 and logits.shape[1] > _softmax.MAX_TALL_CLASSES["float32"]
    (_metrics_float32 if is_wide else _metrics)(logits, *arguments)


def warmup(progress: Any = None) -> Path:
    """Compile every kernel for float32 and float64, and return the cache folder."""
    with standard_floats():
        pass
    for dtype in (np.float32, np.float64):
        for k in (2, 1 + max(_softmax.MAX_TALL_CLASSES.values())):
            if progress is not None:
                progress.note(f"compiling for {np.dtype(dtype)}, {'many' if k > 2 else 'few'} classes")
            z = np.zeros((1, k), dtype)
            none, label, ints = np.empty((0, k), dtype), np.zeros(1, np.int64), np.zeros((2, 1), np.int32)
            maxima, rests, one, two = np.zeros((4, 1))
            softmax_rows(
                z, label, 1.0, -100, none, none, maxima, rests, one, np.zeros(1, np.bool_), np.zeros(1, np.uint8)
            )
            order_rows(z, label, 1.0, maxima, rests, ints[0], one, ints[1])
            top_k_rows(z, 1.0, maxima, rests, np.zeros((1, 1), np.int32), np.zeros((1, 1)))
            tail_rows(z, 1.0, maxima, rests, np.zeros((1, 1), np.int32), one)
            row_moments(z, label, 1.0, maxima, rests, one, two)
            sample_rows(z, 1.0, maxima, rests, np.uint64(0), np.uint64(0), ints[0])
            metric_rows(z, label, 1.0, maxima, rests, one, ints[0], ints[1], two)
            soft_metric_rows(z, z, 1.0, maxima, rests, two)
            soft_cross_entropy(z, none, np.ones(k), 0.0, 1.0, maxima, rests, one)
            divergence_rows(z, z, 1.0, 1.0, one)
            log_matrix(z, z.copy())
        look_up(np.zeros(8, np.uint8), True, 0, np.zeros(1, dtype), np.zeros(0, dtype), np.zeros(4, np.int64))
    exp_values(np.zeros(1), np.zeros(1))
    log1p_values(np.zeros(1), np.zeros(1))
    few = np.zeros((1, 2))
    activate_rows(few, 0, 1.0, few.copy(), few.copy())
    loss_rows(few, np.zeros(1, np.int64), few[:0], 0, 0, 1.0, np.zeros(1), few.copy())
    sum_counted(np.zeros(1), np.zeros(1, np.bool_), np.zeros(3))
    sum_lists(np.zeros(1), np.zeros(1, np.bool_), np.ones(1, np.int64), np.zeros((1, 3)))
    empty, places, none = np.zeros(0), np.zeros(0, np.int32), np.zeros((0, 0))
    labels, counted = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    tally_rows(
        empty, empty, places, places, empty, labels, empty, counted, labels,
        np.zeros((5, 2)), empty, none, none, none, labels, np.zeros((2, 0), np.int64),
    )  # fmt: skip
    tally_groups(empty, empty, places, empty, empty, counted, labels, np.zeros((0, 9)))
    packed = np.zeros(1, np.uint8)
    count_texts(packed[:0])
    text_lengths(packed[:0], np.zeros(0))
    stored(packed, 0, packed, np.zeros((1, 2), np.int64))
    find_structs(packed, 0, np.zeros(2, np.int64))
    read_integers(packed, labels, labels, labels, np.zeros((0, 0), np.int64))
    check_repetition(packed, 0, 1, 0, packed)
    walk_levels(packed, packed, 0, 1, 0, 5, 3, True, packed)
    inner_length(packed, packed, 0, 5, 3, 0)
    decompress_snappy(packed, True, packed[:0], 0, packed, np.zeros(3, np.int64))
    count_levels(packed, 0, 1, 1)
    return cache_folder()
