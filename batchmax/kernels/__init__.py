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
The float32 loops are written in vectors
    LLVM would compute up to fifteen classes at the end of a row one by one, and can't fetch the next row meanwhile. The
    last vector of a row overlaps the one before it. Rejected: masked loads and stores, which take several times as long
    on CPUs without AVX-512.
Across rows or along a row
    A row of few classes does not fill vector registers. Up to 56 classes of float32 and 32 of float64, a tile of rows
    is transposed and the registers hold rows; with more classes, they hold classes. Type and number of classes alone
    decide, and tiles are padded, so the bits of a row do not depend on its neighbors. Rejected: a choice by the size of
    the batch as well.
Losses without branches
    Whether the label is the predicted class can't be predicted by a CPU, and a wrong guess takes as long as the softmax
    of several classes. Losses, hits and statuses are therefore computed by selecting between results.
Row metrics have a kernel of their own
    It gives the prediction, the label's rank and the Brier score of a row that is still in the cache; one thread adds
    them up in the order of the rows. Rejected: the kernels of ``pred``, ``rank`` and ``el2n``, and parallel sums, which
    would depend on the number of threads.
KL divergence without cancellation
    Σ p (e^d − 1 − d) with d = log q − log p equals Σ p log(p/q), because both sum to 1, and has no negative terms.
    Rejected: the textbook sum, which is noise below 1e-16, and float64 throughout for float32 logits, which takes four
    to twelve times as long.
Samples without state
    The random number of a row is a hash of seed and row, and the draw inverts the cumulative distribution. Rejected:
    generators with a state per thread, and the Gumbel-max trick, which takes a random number and a logarithm per class.
One lock around all kernels
    Numba's ``workqueue`` layer aborts the process when two threads enter, and each kernel uses all cores anyway.
No threads after a fork
    GNU OpenMP ends a forked child that starts threads, or never returns when PyTorch used the same runtime in the
    parent. The child runs the same functions compiled without threads. Rejected: an error that asks for ``spawn``.
Kernels are compiled in a thread of their own
    A signal raises in the main thread, and an exception inside LLVM crashes the process later.
Machine code of kernels only
    Numba generates machine code for each function that a kernel calls, and optimizes the loop of a parallel kernel four
    times; a third of the compilation was for code that nothing runs. :mod:`batchmax.kernels.compiler.machine_code`
    leaves it out. Rejected: a process that compiles some kernels meanwhile (signals, and a child to end).
Kernels are called without Numba's dispatcher
    The types of their arguments are declared, so the compiled function is called directly. Numba's dispatcher and its
    function to load from the cache import what only compilations need, which takes longer than loading ten kernels.
A cache folder of our own, keyed by the text of all kernel sources
    Numba's cache is keyed by the time stamp of one file and misses changes in the functions that a kernel calls.

For Intel CPUs with AVX-512, LLVM prefers registers of 256 bits; ``NUMBA_CPU_FEATURES`` with ``-prefer-256-bit`` at its
end changes that. ``NUMBA_CPU_NAME=generic`` compiles for any CPU of the architecture.
"""
