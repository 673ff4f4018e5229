"""The result of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from batchmax import __version__
from batchmax.evaluation.class_metrics import AREAS, AVERAGES, OF_ALL, OF_CLASS, OF_POSITIVE
from batchmax.evaluation.multi_label_metrics import OF_ROWS
from batchmax.options.gates import NO_ROWS, Figure, figure, infinite_losses, without_loss
from batchmax.results import CommandResult
from batchmax.scoring.summary import TOKEN_FIELDS, without_text

WITH_INTERVAL = (
    *("mean_loss", "accuracy", "perplexity", "bits_per_token", "brier", *OF_POSITIVE, *AREAS, *OF_ALL),
    *(f"{average}.{name}" for average in (*AVERAGES, "samples") for name in OF_CLASS),
    *(f"{average}.{name}" for average in ("macro", "weighted") for name in AREAS),
    *("ece", "top_k_accuracy", *OF_ROWS, "mean_label_loss"),
)
"""The metrics that have confidence intervals."""


@dataclass(kw_only=True)
class Evaluation(CommandResult):
    """The result of an evaluation. A value that is missing or not finite is None.

    If labels are distributions, there are losses and Brier scores; metrics that need a class are None or empty. For
    multi-label rows, an entry is a class of a row that has a label; all other entries count nowhere.

    Attributes
    ----------
    n_rows
        Number of rows, including those without a label or a result. All other metrics are over rows with a loss,
        weighted by ``sample_weight`` as in scikit-learn: supports, the confusion matrix and the rows of bins are then
        sums of weights. Statuses, histograms and the rows of slices are counts.
    n_tokens, bits_per_token, bits_per_byte, token_status_counts
        For sequences, otherwise None: the number of tokens with a loss, the loss in bits per token and per byte, and
        the number of tokens with each status. For sequences, all metrics are over tokens, except ``n_rows``,
        ``bad_rows``, ``bad_rate`` and ``status_counts``, as in :class:`batchmax.scoring.summary.ScoreSummary`.
        ``bits_per_byte`` needs ``bytes``.
    mean_loss, log_likelihood, perplexity
        Mean cross-entropy in nats, its negative sum, and exp of the mean.
    top_k_accuracy
        By k: share of rows whose label is among the k largest logits; of equal logits, the lower index comes first.
    task, positive
        ``binary``, ``multiclass`` or ``multilabel``, and the positive class of a binary task.
    brier
        Mean over rows of the sum over classes of (p - y)**2; in a binary task, of that of the positive class alone. For
        multi-label rows, the mean over entries.
    ece, mce, rmsce
        Expected, maximum and root mean square calibration error: distance of confidence and accuracy over bins of equal
        width. A confidence of 1 is in the last bin. In a binary task, the confidence is the probability of the positive
        class, and the accuracy is its share of the rows. For multi-label rows, distance of the mean probability and the
        share of labels, over bins of the probabilities of all classes.
    bins
        The bins: borders, weight, mean confidence, accuracy.
    prevalence, precision, recall, specificity, f1
        Of the positive class of a binary task, otherwise None: its share of the rows, and scikit-learn's metrics.
        Specificity is the recall of the other class.
    balanced_accuracy, kappa, mcc, d2_log_loss
        As in scikit-learn, under these names: ``mcc`` is ``matthews_corrcoef``, ``kappa`` is ``cohen_kappa_score``.
    auroc, average_precision, partial_auroc
        Of the positive class of a binary task, otherwise None: areas under the ROC and under the steps of precision
        against recall, as in scikit-learn. Rows are ordered by log-odds, or by the probabilities of scored files.
        ``partial_auroc`` is standardized, up to the false positive rate ``max_fpr``.
    subset_accuracy, hamming_loss, label_ranking_average_precision, mean_label_loss
        Of multi-label rows, otherwise None: the share of rows whose entries are all right, the share of wrong entries,
        scikit-learn's ``label_ranking_average_precision_score``, and the mean loss of an entry.
    curves, bounds
        ``curves`` has the ``method`` of the areas. If it is ``binned``, ``bounds`` has by metric the ``lower`` and
        ``upper`` bound of the exact value.
    macro, micro, weighted, samples
        Averages over classes of precision, recall, F1 and Jaccard index. 0/0 of a class counts as 0; ``macro`` is over
        the classes that are a label or a prediction of some row. ``macro`` and ``weighted`` also have AUROC and average
        precision of each class against the others, over the classes for which they are defined. For multi-label rows,
        ``macro`` is over all classes, ``micro`` over all entries, ``samples`` over rows, and all have both areas.
    per_class
        Support, number of predictions, precision, recall, F1, Jaccard index and mean loss, in the order of the logits;
        with curves also AUROC and average precision. For multi-label rows also the prevalence, the specificity, and
        ``n_rows``, the rows with a label of the class; the mean loss is over these.
        Recall is None for a class without rows, precision for a class that was never predicted; scikit-learn returns
        ``zero_division``.
    confidence_level, intervals
        The confidence level, or None without intervals, and the interval of each metric that has one: ``lower``,
        ``upper`` and ``method``, or None; ``per_class`` has those of classes. Proportions of independent rows without
        weights have Wilson intervals (``wilson``), their AUROC has DeLong's (``delong``), others that have one
        ``jackknife`` intervals.
    n_clusters
        The number of clusters that have rows with a loss, or of sequences that have; None if rows are independent.
    calibration_p
        The p-value of the hypothesis that the probabilities are calibrated.
    undefined
        The metrics that are 0/0, and therefore None: ``metric``, and the ``class``, None for a metric of all classes.
    confusion
        Rows by label and predicted class; None for more than 1000 classes.
    slices
        By column: metrics of the rows of each value, the largest group first; empty for more than 10,000 groups, which
        only the table ``out`` lists. For sequences, ``n_tokens`` is the number of tokens with a loss. Up to 256 groups
        have ``intervals``.
    losses, confidences
        Histograms: of the loss in tenths of a nat, with all larger losses in the last bin, and of the confidence of
        right and wrong rows.

    Examples
    --------
    >>> import batchmax
    >>> result = batchmax.evaluate("data/digits.parquet")
    >>> result.top_k_accuracy
    {'5': 0.99...}
    >>> result.per_class[0]["support"]
    89
    >>> result.to_json()
    '{"n_rows": 899, ...}'
    """

    SHOWN = ("n_rows", "n_classes", "mean_loss", "accuracy", "perplexity", "brier", "ece", "bad_rows")

    n_rows: int = 0
    task: str = "multiclass"
    positive: str | None = None
    n_classes: int | None = None
    classes: list[str] | None = None
    mean_loss: float | None = None
    log_likelihood: float | None = None
    accuracy: float | None = None
    top_k_accuracy: dict[str, float | None] = field(default_factory=dict)
    perplexity: float | None = None
    prevalence: float | None = None
    precision: float | None = None
    recall: float | None = None
    specificity: float | None = None
    f1: float | None = None
    auroc: float | None = None
    average_precision: float | None = None
    partial_auroc: float | None = None
    balanced_accuracy: float | None = None
    kappa: float | None = None
    mcc: float | None = None
    d2_log_loss: float | None = None
    macro: dict[str, float | None] = field(default_factory=dict)
    micro: dict[str, float | None] = field(default_factory=dict)
    weighted: dict[str, float | None] = field(default_factory=dict)
    samples: dict[str, float | None] = field(default_factory=dict)
    subset_accuracy: float | None = None
    hamming_loss: float | None = None
    label_ranking_average_precision: float | None = None
    mean_label_loss: float | None = None
    undefined: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, str] = field(default_factory=dict)
    bounds: dict[str, dict[str, float]] = field(default_factory=dict)
    confidence_level: float | None = None
    n_clusters: int | None = None
    calibration_p: float | None = None
    intervals: dict[str, Any] = field(default_factory=dict)
    brier: float | None = None
    ece: float | None = None
    mce: float | None = None
    rmsce: float | None = None
    bins: list[dict[str, Any]] = field(default_factory=list)
    per_class: list[dict[str, Any]] = field(default_factory=list)
    confusion: list[list[float]] | None = None
    slices: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    confidences: dict[str, list[float]] = field(default_factory=dict)
    bad_rows: int = 0
    bad_rate: float | None = None
    infinite_losses: int = 0
    status_counts: dict[str, int] = field(default_factory=dict)
    n_tokens: int | None = None
    bits_per_token: float | None = None
    bits_per_byte: float | None = None
    token_status_counts: dict[str, int] | None = None
    files: list[str] = field(default_factory=list)
    unified: list[dict[str, Any]] = field(default_factory=list)
    bytes_read: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    version: str = __version__

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary, with the names of the JSON."""
        hidden = TOKEN_FIELDS if self.token_status_counts is None else ()
        return {name: value for name, value in vars(self).items() if name not in hidden}

    def metrics(self) -> dict[str, Figure]:
        """Return the metrics that a condition can name; ``top_k_accuracy`` is the one with the largest k."""
        no_rows = "" if self.n_rows else NO_ROWS
        tokens = self.token_status_counts
        of, counts = ("row", self.status_counts) if tokens is None else ("token", tokens)
        no_loss = without_loss(counts, of)
        # Every row with a loss has a Brier score, so it is None only without such rows or without weight.
        no_weight = "the weights of the rows sum to 0, or are too large" if self.brier is None else ""
        infinite = infinite_losses(self.infinite_losses, of)
        no_tokens = "the rows are not sequences" if tokens is None else ""
        no_bytes = without_text(self.status_counts) if self.bits_per_byte is None else ""
        is_multi_label = self.task == "multilabel"
        no_labels = "" if self.per_class else "targets are distributions, or neither 0 nor 1, which have no class"
        no_class = "the rows are multi-label, which have no single class" if is_multi_label else no_labels
        not_multi_label = "" if is_multi_label else "the rows are not multi-label"
        no_bins = "" if self.bins else no_labels
        too_large = "exp of the mean loss is too large" if self.perplexity is None else ""
        largest = max(self.top_k_accuracy, key=int, default=None)
        no_positive = "" if self.task == "binary" else "there are more than two classes, so none is the positive one"
        no_curves = "no curves are computed" if self.curves.get("method") == "none" else ""
        no_area = no_loss, no_weight, no_labels, no_curves
        no_top_k = "no top-k accuracy is computed" if largest is None else ""
        found = {
            "n_rows": figure(self.n_rows),
            "n_classes": figure(self.n_classes),
            "mean_loss": figure(self.mean_loss, no_loss, no_weight, infinite),
            "log_likelihood": figure(self.log_likelihood, no_loss, no_weight, infinite),
            "accuracy": figure(self.accuracy, no_loss, no_weight, no_class),
            "perplexity": figure(self.perplexity, no_loss, no_weight, infinite, too_large),
            "bad_rows": figure(self.bad_rows, no_rows),
            "bad_rate": figure(self.bad_rate, no_rows),
            "infinite_losses": figure(self.infinite_losses, no_loss, no_weight),
            "n_tokens": figure(self.n_tokens, no_tokens),
            "bits_per_token": figure(self.bits_per_token, no_tokens, no_loss, infinite),
            "bits_per_byte": figure(self.bits_per_byte, no_tokens, no_loss, infinite, no_bytes),
            "brier": figure(self.brier, no_loss, no_weight),
            **{name: figure(getattr(self, name), no_loss, no_weight, no_class, no_positive) for name in OF_POSITIVE},
            **{name: figure(getattr(self, name), no_loss, no_weight, no_class) for name in OF_ALL},
            **{
                f"{average}.{name}": figure(value, no_loss, no_weight, no_labels, no_samples, _zero_divided(value))
                for average in (*AVERAGES, "samples")
                for no_samples in ["" if average != "samples" else not_multi_label]
                for name in OF_CLASS
                for value in [getattr(self, average).get(name)]
            },
            **{name: figure(getattr(self, name), no_loss, no_weight, not_multi_label, no_labels) for name in OF_ROWS},
            "mean_label_loss": figure(self.mean_label_loss, no_loss, no_weight, not_multi_label, infinite),
            "auroc": figure(self.auroc, no_class, *no_area, no_positive, _lacking(self.auroc)),
            "average_precision": figure(
                self.average_precision, no_class, *no_area, no_positive, _lacking(self.average_precision)
            ),
            "partial_auroc": figure(
                self.partial_auroc,
                *(no_class, *no_area, no_positive, _lacking(self.auroc)),
                "" if self.partial_auroc is not None else "no rate is given: --max-fpr",
            ),
            **{
                f"{average}.{name}": figure(value, *no_area, no_pairs, _lacking(value))
                for average in (*AVERAGES, "samples")
                for no_pairs in ["" if average in {"macro", "weighted"} else not_multi_label]
                for name in AREAS
                for value in [getattr(self, average).get(name)]
            },
            "ece": figure(self.ece, no_loss, no_weight, no_bins),
            "mce": figure(self.mce, no_loss, no_weight, no_bins),
            "rmsce": figure(self.rmsce, no_loss, no_weight, no_bins),
            "top_k_accuracy": figure(self.top_k_accuracy.get(largest or ""), no_loss, no_weight, no_class, no_top_k),
            "bytes_read": figure(self.bytes_read, "" if self.files else "the size of a stream is not known"),
            "seconds": figure(self.seconds),
        }
        return (
            found
            | {
                f"{name}.{bound}": self._bound(name, bound, found[name].missing)
                for name in WITH_INTERVAL
                for bound in ("lower", "upper")
            }
            | {"calibration_p": self._of_interval(self.calibration_p, no_loss or no_weight or no_bins)}
        )

    def interval(self, *names: str) -> dict[str, Any] | None:
        """Return the interval of a metric, such as ``macro``, ``f1``; None if it has none."""
        found: dict[str, Any] | None = self.intervals
        for name in names:
            found = (found or {}).get(name)
        return found

    def _bound(self, name: str, bound: str, missing: str) -> Figure:
        """Return a bound of the interval of a metric; that of ``top_k_accuracy`` is the one with the largest k."""
        names = name.split(".")
        if name == "top_k_accuracy":
            names.append(max(self.top_k_accuracy, key=int, default=""))
        interval = self.interval(*names)
        return self._of_interval(None if interval is None else interval[bound], missing)

    def _of_interval(self, value: float | None, missing: str) -> Figure:
        """Return a figure that only exists with intervals; ``missing`` is why the metric itself doesn't."""
        if value is not None:
            return figure(value)
        no_intervals = "" if self.confidence_level is not None else "--confidence-level 0 computes no intervals"
        return figure(None, no_intervals, missing, "there are too few rows or clusters, or they are all alike")


def _zero_divided(value: float | None) -> str:
    """Return why an average isn't defined, or an empty string if it is."""
    return "" if value is not None else "there are no labels and no predictions"


def _lacking(area: float | None) -> str:
    """Return why an area isn't defined, or an empty string if it is."""
    return "" if area is not None else "the labels lack a class"


EVALUATION_GATES = tuple(Evaluation().metrics())
"""Names that a condition can use."""
