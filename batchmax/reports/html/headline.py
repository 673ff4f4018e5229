"""The top of the page: a summary in a few sentences, and tiles with the headline metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping

from batchmax.reports.html.formatting import number, positive_name, rows, share, unit
from batchmax.reports.html.page_model import Facts
from batchmax.runtime.text import quantity

Tile = tuple[str, str, str]
"""A metric: its name, its value and a line below it."""


def lead(facts: Facts) -> str:
    """Return the summary sentences."""
    metrics = facts.metrics
    if not facts.has_labels:
        return f"{_amount(facts)}, without labels."
    if metrics.accuracy is None:
        return f"{_amount(facts)}. Labels are distributions, so there is no accuracy."
    counted = sum(one["n_rows"] for one in metrics.bins)
    text = f"Accuracy {share(metrics.accuracy)} over {rows(counted)}."
    confidence, observed = _mean_of_bins(facts, "confidence"), _mean_of_bins(facts, "accuracy")
    if confidence is not None and observed is not None:
        gap = confidence - observed
        points = quantity(round(abs(100 * gap), 1), "point")
        close = abs(gap) < 0.0005
        if metrics.positive is None:
            text += f" Mean confidence {share(confidence)}"
            text += "." if close else f", {points} {'over' if gap > 0 else 'under'}confident."
        else:
            text += f" The mean probability of {positive_name(metrics)} is {share(confidence)}"
            text += f", and its share {share(observed)}" + ("." if close else f": {points} too {_size(gap)}.")
    chance = math.log(metrics.n_classes or 1)
    if metrics.mean_loss is not None and chance:
        text += f" Mean loss {share(metrics.mean_loss / chance)} of that of uniform guessing."
    return text


def tiles(facts: Facts) -> list[Tile]:
    """Return the tiles with the headline metrics."""
    metrics = facts.metrics
    counts = [("Rows", number(metrics.n_rows), _other_statuses(metrics.status_counts))]
    if (tokens := metrics.token_status_counts) is not None:
        n_tokens = metrics.n_tokens if facts.has_labels else sum(tokens.values())
        name = "Tokens with a loss" if facts.has_labels else "Tokens"
        counts.append((name, number(n_tokens), _other_statuses(tokens)))
    classes = ("Classes", number(metrics.n_classes), "")
    if not facts.has_labels:
        return [*counts, classes]
    top = ", ".join(f"top {k}: {share(value, 2)}" for k, value in metrics.top_k_accuracy.items())
    bad = f"{share(metrics.bad_rate, 2)} of all" if metrics.bad_rows else "none"
    infinite = f"{rows(metrics.infinite_losses)} infinite" if metrics.infinite_losses else ""
    chance = f"uniform guessing: ln {number(metrics.n_classes)} = {number(math.log(metrics.n_classes or 1))}"
    ece = f"largest {number(metrics.mce, 3)}, RMS {number(metrics.rmsce, 3)}"
    return [
        ("Accuracy", share(metrics.accuracy, 2), top),
        ("Mean loss, nats", number(metrics.mean_loss), infinite or chance),
        ("Calibration error (ECE)", number(metrics.ece, 3), ece),
        _mean_probability(facts),
        ("Perplexity", number(metrics.perplexity), "exp of the mean loss"),
        (
            "Brier score",
            number(metrics.brier),
            "0 best, 1 worst" if metrics.positive is not None else "0 best, 2 worst",
        ),
        ("Log-likelihood", number(metrics.log_likelihood, 6), f"sum over {unit()}s, nats"),
        *counts,
        ("Bad rows", number(metrics.bad_rows), bad),
        classes,
    ]


def _amount(facts: Facts) -> str:
    """Return the number of rows, tokens and classes in words."""
    tokens = facts.metrics.token_status_counts
    of = "" if tokens is None else f" with {rows(sum(tokens.values()))}"
    return f"{quantity(facts.metrics.n_rows, 'row')}{of} of {number(facts.metrics.n_classes)} classes"


def _other_statuses(counts: Mapping[str, int]) -> str:
    """Return the numbers of rows or tokens with a status other than ok."""
    others = [f"{number(count)} {name}" for name, count in counts.items() if name != "ok" and count]
    return ", ".join(others) or "all ok"


def _mean_probability(facts: Facts) -> Tile:
    name, mean = positive_name(facts.metrics), share(_mean_of_bins(facts, "confidence"), 2)
    if name is None:
        return "Mean confidence", mean, "largest probability of a row"
    return f"Mean probability of {name}", mean, f"its share: {share(_mean_of_bins(facts, 'accuracy'), 2)}"


def _mean_of_bins(facts: Facts, name: str) -> float | None:
    """Return the mean of a member of the bins over the rows with a loss, or None without any."""
    filled = [one for one in facts.metrics.bins if one["n_rows"]]
    total = sum(one["n_rows"] for one in filled)
    return math.fsum(one["n_rows"] * one[name] for one in filled) / total if total else None


def _size(gap: float) -> str:
    return "large" if gap > 0 else "small"
