"""Softmax probabilities and cross-entropy losses of large Parquet files of logits.

Public names are imported when they are first used, so that ``batchmax --help`` loads neither Numba nor Arrow.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

if sys.platform == "win32":
    _SENTENCE = (
        "batchmax does not run on Windows; install it in the Windows Subsystem for Linux (WSL): "
        "https://learn.microsoft.com/windows/wsl/install"
    )
    # The command imports this package before it can handle errors, so it exits here, without a traceback.
    _words = [word.replace("\\", "/").rpartition("/")[2].lower().removesuffix(".exe") for word in sys.argv[:1]]
    if _words == ["batchmax"] or (_words == ["-m"] and "batchmax" in sys.orig_argv):
        raise SystemExit(f"batchmax: error: {_SENTENCE}")
    raise ImportError(_SENTENCE)

__version__ = "0.1.0"

_HOMES = {
    "softmax": "functional.softmax",
    "log_softmax": "functional.softmax",
    "logsumexp": "functional.softmax",
    "cross_entropy": "functional.softmax",
    "softmax_cross_entropy": "functional.softmax",
    "activate": "functional.activations",
    "loss": "functional.activations",
    "score": "jobs.score",
    "scan": "jobs.score",
    "convert": "jobs.convert",
    "verify": "verification.verify",
    "evaluate": "evaluation.evaluate",
    "calibrate": "evaluation.calibrate",
    "compare": "evaluation.comparison.compare",
    "worst_rows": "evaluation.worst_rows",
    "report": "reports.report",
    "score_batch": "jobs.score_batch",
    "score_options": "options.score_options",
    "ScoreOptions": "options.score_options",
    "BatchmaxError": "errors",
    "UsageError": "errors",
    "InputTypeError": "errors",
    "DataError": "errors",
    "BadRowError": "errors",
    "OutputError": "errors",
    "GateError": "errors",
}

_ENGINES = ("ray", "spark")
"""Submodules that are imported when they are first used; not in ``__all__``, because Ray and Spark are optional."""

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - the names are strings


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name in _ENGINES:
        return import_module(f"batchmax.{name}")
    if name not in _HOMES:
        message = f"module 'batchmax' has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"batchmax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted(__all__)
