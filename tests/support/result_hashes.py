"""Prints hashes of results by name, as JSON, to compare processes and machines.

Inputs are made of integers, so they are the same on every machine.

    python -m tests.support.result_hashes [--flush] [--short] [--each]

``--flush`` first makes the CPU flush subnormal numbers to zero, as some libraries do, in this thread and in Numba's.
``--short`` computes only functions of the NumPy API, for a few numbers of classes.
``--each`` prints a hash for each number of classes, to find out where two machines differ.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import batchmax
from batchmax.activations import ACTIVATIONS, LOSSES
from batchmax.kernels.compiler import dispatch
from batchmax.kernels.compiler.float_mode import STANDARD

N_ROWS = 75
WITH_COLUMNS = (2, 10, 33, 100)
SHORT = (3, 10, 33, 1000)
CLASSES = (1, 2, 3, 7, 10, 12, 13, 16, 17, 31, 32, 33, 64, 100, 1000, 5000)
FLUSH = 0x8040 if STANDARD else 1 << 24
"""The bits of MXCSR or FPCR that flush subnormal results and operands to zero."""
OUTPUTS = "probs,log_probs,loss,pred,confidence,margin,entropy,logsumexp,rank,correct,el2n,sample,status"
PAYLOADS = {
    "float32": (np.uint32, (0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF)),
    "float64": (np.uint64, (0x7FF8 << 48, 0xFFF8 << 48, (0x7FF0 << 48) + 1, 2**64 - 1)),
}


def logits_of(n_classes: int, dtype: str) -> NDArray[Any]:
    """Return ordinary rows and, in between, rows that take other code paths or allow several results (NaN, -0)."""
    steps = np.random.default_rng(n_classes).integers(-(2**22), 2**22, (N_ROWS, n_classes))
    z = steps.astype(dtype) * np.dtype(dtype).type(2.0**-19)
    z[5::9] *= 16
    z[6::19] *= np.dtype(dtype).type(2.0**-120)
    z[7] *= np.dtype(dtype).type(2.0**90)
    z[8] = 0.0
    z[8, ::2] = -0.0
    z[9] = -0.0
    z[10, 1:] = -np.inf
    z[11, 0] += 60  # its loss is tiny
    z[12, 0] = np.inf
    z[13] = -np.inf
    z[14, -1] = np.finfo(dtype).max
    z[15] = np.finfo(dtype).smallest_subnormal * np.arange(n_classes)
    z[16, :] = np.linspace(-100, 0, n_classes, dtype=np.float64).round(1)  # subnormal probabilities
    bits, payloads = PAYLOADS[dtype]
    for row, payload in zip((20, 31, 42, 53), payloads, strict=True):
        z.view(bits)[row, row % n_classes] = payload
    z.view(bits)[64] = payloads[1]
    return z


def array_results(z: NDArray[Any], *, short: bool) -> Iterator[tuple[str, Any]]:
    """Yield the results of the NumPy API for rows of logits, as (name, result)."""
    n, k = z.shape
    labels = np.arange(n) * 7 % k
    targets = np.full(z.shape, 0.25 / k, z.dtype)
    targets[np.arange(n), labels] += 0.75
    weights = np.linspace(0.5, 2, k).astype(z.dtype)
    options: dict[str, Any] = {"class_weights": weights, "label_smoothing": 0.125, "temperature": 0.7}
    yield "softmax", batchmax.softmax(z)
    yield "softmax T=0.7", batchmax.softmax(z, temperature=0.7)
    yield "log_softmax", batchmax.log_softmax(z, temperature=1.5)
    yield "logsumexp", batchmax.logsumexp(z)
    yield "cross_entropy", batchmax.cross_entropy(z, labels)
    yield "cross_entropy, weights and smoothing", batchmax.cross_entropy(z, labels, **options)
    finite, finite_labels = np.tile(z[:5], (60, 1)), np.tile(labels[:5], 60)
    yield "mean cross_entropy", batchmax.cross_entropy(finite, finite_labels, reduction="mean")
    yield "sum of cross_entropy", batchmax.cross_entropy(finite, finite_labels, reduction="sum", **options)
    probs, losses = batchmax.softmax_cross_entropy(z, targets, **options)
    yield "softmax of both", probs
    yield "cross_entropy of distributions", losses
    if short or k > 100:
        return
    for activation, kind in ACTIVATIONS.items():
        yield f"activate {activation}", batchmax.activate(z, activation, temperature=0.7)
        for loss in kind.losses:
            for name, y in (("labels", labels), ("targets", targets)):
                if name == "labels" or not LOSSES[loss].needs_class:
                    losses, gradient = batchmax.loss(z, y, activation=activation, loss=loss, grad=True)
                    yield f"{loss} of {activation}, {name}", losses
                    yield f"gradient of {loss} of {activation}, {name}", gradient


def column_results(z: NDArray[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the columns that ``score`` computes, and the metrics of ``evaluate`` and ``compare``."""
    n, k = z.shape
    label = pa.array(np.arange(n) * 7 % k)
    rows = pa.record_batch({"logits": pa.FixedSizeListArray.from_arrays(z.ravel(), k), "label": label})
    options: dict[str, Any] = {"on_bad_row": "null", "seed": 3, "top_k": min(3, k)}
    finite = pa.record_batch({"logits": pa.FixedSizeListArray.from_arrays(z[:5].ravel(), k), "label": label[:5]})
    probs = batchmax.softmax(z[:5]).ravel()
    inputs = {
        "": (rows, {"outputs": OUTPUTS}),
        "float16 ": (rows, {"outputs": "probs", "dtype": "float16"}),
        "sigmoid ": (rows, {"outputs": "probs,loss,losses,preds,status", "activation": "sigmoid", "top_k": None}),
        "from probs ": (
            pa.record_batch({"logits": pa.FixedSizeListArray.from_arrays(probs, k), "label": label[:5]}),
            {"outputs": "log_probs,loss", "input": "probs"},
        ),
    }
    for prefix, (batch, given) in inputs.items():
        scored = batchmax.score_batch(batch, **options | given)
        for name in scored.schema.names[2:]:
            yield f"{prefix}column {name}", scored.column(name)
    passing = {"seconds", "version", "files", "bytes_read", "warnings", "notes", "unified", "unified_a", "unified_b"}
    other = pa.record_batch({"logits": finite.column("logits").take(pa.array([0, 2, 1, 3, 4])), "label": label[:5]})
    for name, found in (
        ("evaluate", batchmax.evaluate(pa.table(rows), on_bad_row="null")),
        ("compare", batchmax.compare(pa.table(finite), pa.table(other))),
        ("compare sigmoid", batchmax.compare(pa.table(finite), pa.table(other), activation="sigmoid")),
    ):
        for figure, value in found.as_dict().items():
            if figure not in passing:
                yield f"{name} {figure}", json.dumps(value).encode()


def bits_of(value: Any) -> bytes:
    """Return the bytes of a result; for a column, its null mask and the bytes of the values that aren't null."""
    if isinstance(value, pa.Array):
        nulls = np.asarray(value.is_null()).tobytes()
        if pa.types.is_dictionary(value.type):
            return nulls + json.dumps(value.to_pylist()).encode()
        flat = value.flatten() if hasattr(value, "flatten") and pa.types.is_nested(value.type) else value
        return nulls + np.asarray(pc.drop_null(flat)).tobytes()
    return value if isinstance(value, bytes) else np.asarray(value).tobytes()


def results(*, short: bool) -> Iterator[tuple[str, str, Any]]:
    """Yield all results, as (input, name, result)."""
    inputs = {dtype: {k: logits_of(k, dtype) for k in CLASSES if k in SHORT or not short} for dtype in PAYLOADS}
    if "--flush" in sys.argv:
        dispatch._exchange(STANDARD | FLUSH)
        assert flushes()
        assert (start_threads(np.full(64, 1e-39, np.float32)) == 0).all()
    for dtype, matrices in inputs.items():
        for k, z in matrices.items():
            for name, value in array_results(z, short=short):
                yield f"{dtype}, {k} classes", f"{dtype} {name}", value
            for name, value in column_results(z) if k in WITH_COLUMNS and not short else ():
                yield f"{dtype}, {k} classes", f"{dtype} {name}", value


@numba.njit(parallel=True)
def start_threads(values):
    """Return values times 1, computed in Numba's threads, which take over this thread's floating-point mode."""
    products = np.empty_like(values)
    for i in numba.prange(len(values)):
        products[i] = values[i] * np.float32(1)
    return products


def flushes() -> bool:
    """Return whether this thread treats subnormal numbers as zero."""
    return bool(np.array([1e-39], np.float32) * np.float32(1) == 0)


def hashes(*, short: bool = False, each: bool = False) -> dict[str, str]:
    """Return the hash of each result by name: over all numbers of classes, or with ``each``, per number of classes."""
    found: dict[str, Any] = {}
    for of, name, value in results(short=short):
        found.setdefault(f"{of}: {name}" if each else name, hashlib.sha256()).update(bits_of(value))
    return {name: digest.hexdigest()[:16] for name, digest in found.items()}


def main() -> None:
    """Print the hashes."""
    found = hashes(short="--short" in sys.argv, each="--each" in sys.argv)
    assert flushes() == ("--flush" in sys.argv), "the caller's floating-point mode was not restored"
    json.dump(found, sys.stdout, indent=0)
    print()


if __name__ == "__main__":
    main()
