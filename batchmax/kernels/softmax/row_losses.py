"""Cross-entropy, hits and statuses of a block of rows, from the results of a softmax kernel."""

import numpy as np

from batchmax.kernels.compiler.intrinsics import compiled
from batchmax.kernels.compiler.simd import address, prefetch
from batchmax.kernels.exp import log1p, shifted_logit
from batchmax.statuses import Status

NAN_LOGIT = int(Status.NAN_LOGIT)
INF_LOGIT = int(Status.INF_LOGIT)
ALL_MASKED = int(Status.ALL_MASKED)
BAD_LABEL = int(Status.BAD_LABEL)
IGNORED = int(Status.IGNORED)
MASKED_LABEL = int(Status.MASKED_LABEL)
OK = int(Status.OK)

SOME_TIE = 0.99
"""Below this sum of exponentials without one maximum, no second class has the maximum: it would add about 1."""


NUMBERS_PER_LINE = 8
"""Labels or losses in a cache line."""


@compiled
def prefetch_losses(labels, nll, start, end):
    """Prefetch the labels and the memory of the losses of these rows; both arrays are (n, 1)."""
    for r in range(start, end, NUMBERS_PER_LINE):
        prefetch(address(labels, r), 0)
        prefetch(address(nll, r), 0)


@compiled
def block_losses(z, labels, beta, ignore_index, first, end, ties, bound, maxima, rests, nll, hits, status):
    """Fill nll and hits, and lower status, for the rows from first to before end.

    ``ties`` has a number for each of these rows: only if it is above ``bound`` may the row contain its maximum twice.
    See :func:`.softmax_float64.softmax_float64` for the other arguments.
    """
    # Loops without branches, because hits and labels are unpredictable. All but the first vectorize.
    k = z.shape[1]
    n = end - first
    logits = z.reshape(-1)
    labels, maxima, rests = labels[first:end], maxima[first:end], rests[first:end]
    nll, hits, status = nll[first:end], hits[first:end], status[first:end]
    chosen = np.empty(n, z.dtype)
    for r in range(n):
        y = np.uint64(labels[r])
        chosen[r] = logits[np.uint64((first + r) * k) + (y if y < np.uint64(k) else np.uint64(0))]
    for r in range(n):
        y = labels[r]
        high, low = shifted_logit(chosen[r], z.dtype.type(maxima[r]), beta)
        loss = (log1p(rests[r]) - low) - high
        loss = loss if (y >= 0) & (y < k) & (rests[r] == rests[r]) else np.nan
        nll[r] = 0.0 if y == ignore_index else loss
    for r in range(n):
        y = labels[r]
        is_class = (y >= 0) & (y < k)
        is_number = rests[r] == rests[r]
        hits[r] = is_class & is_number & (chosen[r] == maxima[r])
        why = MASKED_LABEL if is_number & (chosen[r] == -np.inf) else OK
        why = why if is_class else BAD_LABEL
        why = IGNORED if y == ignore_index else why
        status[r] = min(status[r], np.uint8(why))
    n_ties = 0
    for r in range(n):
        n_ties += ties[r] > bound
    if n_ties != 0:
        for r in range(n):
            if ties[r] > bound and hits[r]:
                earlier = 0
                for j in range(labels[r]):
                    earlier += z[first + r, j] == maxima[r]
                hits[r] = earlier == 0


@compiled
def why_nan(z, i):
    """Return the status of a row that has no probabilities."""
    status = ALL_MASKED
    for j in range(z.shape[1]):
        if z[i, j] != z[i, j]:
            return NAN_LOGIT
        if z[i, j] == np.inf:
            status = INF_LOGIT
    return status
