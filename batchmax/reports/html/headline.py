"""The top of the page: a summary in a few sentences, and tiles with the headline metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from batchmax.reports.html.formatting import number, rows, share, unit
from batchmax.reports.html.page_model import Facts
from batchmax.runtime.text import quantity


@dataclass(frozen=True)
class Tile:
    """A metric with its name and a line below it."""

    name: str
    value: str
    under: str = ""


def lead(facts: Facts) -> str:
    """Return the summary sentences."""
    found = facts.evaluation
    if found is None:
        return f"{_amount(facts)}, without labels."
    if found.accuracy is None:
        return f"{_amount(facts)}. Labels are distributions, so there is no accuracy."
    counted = sum(one["n_rows"] for one in found.bins)
    text = f"Accuracy {share(found.accuracy)} over {rows(counted)}."
    confidence = mean_confidence(facts)
    if confidence is not None:
        gap = confidence - found.accuracy
        text += f" Mean confidence {share(confidence)}"
        text += "." if abs(gap) < 0.0005 else f", {_points(gap)} {'over' if gap > 0 else 'under'}confident."
    chance = math.log(facts.n_classes)
    if found.mean_loss is not None and chance:
        text += f" Mean loss {share(found.mean_loss / chance)} of that of uniform guessing."
    return text


def tiles(facts: Facts) -> list[Tile]:
    """Return the tiles with the headline metrics."""
    found = facts.evaluation
    counts = [Tile("Rows", number(facts.n_rows), _other_statuses(facts.status_counts))]
    if facts.token_status_counts is not None:
        n_tokens = sum(facts.token_status_counts.values()) if found is None else found.n_tokens
        name = "Tokens" if found is None else "Tokens with a loss"
        counts.append(Tile(name, number(n_tokens), _other_statuses(facts.token_status_counts)))
    classes = Tile("Classes", number(facts.n_classes))
    if found is None:
        return [*counts, classes]
    top = ", ".join(f"top {k}: {share(value, 2)}" for k, value in found.top_k_accuracy.items())
    bad = f"{share(found.bad_rate, 2)} of all" if found.bad_rows else "none"
    infinite = f"{rows(found.infinite_losses)} infinite" if found.infinite_losses else ""
    chance = f"uniform guessing: ln {number(facts.n_classes)} = {number(math.log(facts.n_classes))}"
    confidence = mean_confidence(facts)
    return [
        Tile("Accuracy", share(found.accuracy, 2), top),
        Tile("Mean loss, nats", number(found.mean_loss), infinite or chance),
        Tile(
            "Calibration error (ECE)",
            number(found.ece, 3),
            f"largest {number(found.mce, 3)}, RMS {number(found.rmsce, 3)}",
        ),
        Tile("Mean confidence", share(confidence, 2), "largest probability of a row"),
        Tile("Perplexity", number(found.perplexity), "exp of the mean loss"),
        Tile("Brier score", number(found.brier), "0 best, 2 worst"),
        Tile("Log-likelihood", number(found.log_likelihood, 6), f"sum over {unit()}s, nats"),
        *counts,
        Tile("Bad rows", number(found.bad_rows), bad),
        classes,
    ]


def _amount(facts: Facts) -> str:
    """Return the number of rows, tokens and classes in words."""
    tokens = facts.token_status_counts
    of = "" if tokens is None else f" with {rows(sum(tokens.values()))}"
    return f"{quantity(facts.n_rows, 'row')}{of} of {number(facts.n_classes)} classes"


def _other_statuses(counts: Mapping[str, int]) -> str:
    """Return the numbers of rows or tokens with a status other than ok."""
    others = [f"{number(count)} {name}" for name, count in counts.items() if name != "ok" and count]
    return ", ".join(others) or "all ok"


def mean_confidence(facts: Facts) -> float | None:
    """Return the mean confidence of the rows with a loss, or None without any."""
    filled = [one for one in facts.evaluation.bins if one["n_rows"]]
    total = sum(one["n_rows"] for one in filled)
    return math.fsum(one["n_rows"] * one["confidence"] for one in filled) / total if total else None


def _points(gap: float) -> str:
    value = f"{abs(100 * gap):.1f}"
    return f"{value} point{'' if value == '1.0' else 's'}"
