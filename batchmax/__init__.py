"""Softmax probabilities and cross-entropy losses of large Parquet files of logits.

The names in ``__all__`` and the modules :mod:`batchmax.ray` and :mod:`batchmax.spark` are public. All but the
experimental parts, which the page "Python" of the user guide lists, are stable. Notes and warnings of the functions go
to the logger ``batchmax``.

Public names are imported when they are first used, so that ``batchmax --help`` loads neither Numba nor Arrow.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    # Editors and type checkers don't see names that __getattr__ imports.
    from batchmax import ray as ray
    from batchmax import spark as spark
    from batchmax.errors import BadRowError as BadRowError
    from batchmax.errors import BatchmaxError as BatchmaxError
    from batchmax.errors import DataError as DataError
    from batchmax.errors import GateError as GateError
    from batchmax.errors import InputTypeError as InputTypeError
    from batchmax.errors import OutputError as OutputError
    from batchmax.errors import UsageError as UsageError
    from batchmax.evaluation.calibrate import Calibration as Calibration
    from batchmax.evaluation.calibrate import calibrate as calibrate
    from batchmax.evaluation.comparison.compare import compare as compare
    from batchmax.evaluation.comparison.result import Comparison as Comparison
    from batchmax.evaluation.decisions.decide import decide as decide
    from batchmax.evaluation.decisions.result import DecisionRule as DecisionRule
    from batchmax.evaluation.evaluate import evaluate as evaluate
    from batchmax.evaluation.result import Evaluation as Evaluation
    from batchmax.evaluation.worst_rows import worst_rows as worst_rows
    from batchmax.functional.activations import activate as activate
    from batchmax.functional.activations import loss as loss
    from batchmax.functional.softmax import cross_entropy as cross_entropy
    from batchmax.functional.softmax import log_softmax as log_softmax
    from batchmax.functional.softmax import logsumexp as logsumexp
    from batchmax.functional.softmax import softmax as softmax
    from batchmax.functional.softmax import softmax_cross_entropy as softmax_cross_entropy
    from batchmax.jobs.convert import convert as convert
    from batchmax.jobs.score import scan as scan
    from batchmax.jobs.score import score as score
    from batchmax.jobs.score_batch import score_batch as score_batch
    from batchmax.options.input_options import InputOptions as InputOptions
    from batchmax.options.score_options import ConvertOptions as ConvertOptions
    from batchmax.options.score_options import ScoreOptions as ScoreOptions
    from batchmax.options.score_options import score_options as score_options
    from batchmax.reports.report import Report as Report
    from batchmax.reports.report import report as report
    from batchmax.runtime.progress import Progress as Progress
    from batchmax.scoring.summary import ScoreSummary as ScoreSummary
    from batchmax.verification.verify import Verification as Verification
    from batchmax.verification.verify import verify as verify

__version__ = "0.1.0"

_NAMES = {
    "functional.softmax": ("softmax", "log_softmax", "logsumexp", "cross_entropy", "softmax_cross_entropy"),
    "functional.activations": ("activate", "loss"),
    "jobs.score": ("score", "scan"),
    "jobs.score_batch": ("score_batch",),
    "jobs.convert": ("convert",),
    "verification.verify": ("verify", "Verification"),
    "evaluation.evaluate": ("evaluate",),
    "evaluation.result": ("Evaluation",),
    "evaluation.calibrate": ("calibrate", "Calibration"),
    "evaluation.decisions.decide": ("decide",),
    "evaluation.decisions.result": ("DecisionRule",),
    "evaluation.comparison.compare": ("compare",),
    "evaluation.comparison.result": ("Comparison",),
    "evaluation.worst_rows": ("worst_rows",),
    "reports.report": ("report", "Report"),
    "options.score_options": ("score_options", "ScoreOptions", "ConvertOptions"),
    "options.input_options": ("InputOptions",),
    "runtime.progress": ("Progress",),
    "scoring.summary": ("ScoreSummary",),
    "errors": ("BatchmaxError", "UsageError", "InputTypeError", "DataError", "BadRowError", "OutputError", "GateError"),
}
"""The public names by the module that defines them, relative to ``batchmax``."""

_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

_ENGINES = ("ray", "spark")
"""Submodules that are imported when they are first used; not in ``__all__``, because Ray and Spark are optional."""

__all__ = ["__version__", *_MODULE_OF]  # noqa: PLE0604 - the names are strings


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name in _ENGINES:
        return import_module(f"batchmax.{name}")
    if name not in _MODULE_OF:
        message = f"module 'batchmax' has no attribute {name!r}"
        raise AttributeError(message)
    found = getattr(import_module(f"batchmax.{_MODULE_OF[name]}"), name)
    if inspect.isfunction(found) and "given" in inspect.signature(found).parameters:
        from batchmax.options.signatures import name_options

        return name_options(found)
    return found


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted([*__all__, *_ENGINES])
