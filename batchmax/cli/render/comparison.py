"""Print a comparison: the metrics of both inputs and their changes, then the rows with the largest change.

Knows the names of the metrics, not how they are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchmax.cli.render import summaries, tables
from batchmax.cli.render.formatting import ABSENT, NO_CLASS, change_of, duration, number, shortened
from batchmax.cli.render.tables import Column
from batchmax.evaluation.comparison.result import Comparison, change_in
from batchmax.runtime.text import printable, quantity

LONGEST = 40
"""Most characters to show of a name."""
MOST_GROUPS = 20
"""Groups to print; the JSON contains all."""
SHOWN = {
    "mean_loss": "mean loss",
    "brier": "Brier score",
    "ece": "ECE",
    "accuracy": "accuracy",
    "subset_accuracy": "subset accuracy",
    "hamming_loss": "Hamming loss",
    "label_ranking_average_precision": "LRAP",
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "mcc": "MCC",
    "macro.f1": "macro F1",
    "micro.f1": "micro F1",
    "macro.auroc": "macro AUROC",
    "macro.average_precision": "macro AP",
}
"""The metrics whose changes are printed; the JSON contains more."""
OF_LABELS = ("micro.f1",)
"""The metrics that equal accuracy if rows have one class."""
SHOWN_OF_GROUPS = ("mean_loss", "accuracy", "f1", "auroc")
SHOWN_OF_LABELS = ("mean_loss", "hamming_loss", "macro.f1", "macro.auroc")
SHOWN_OF_CLASSES = ("f1", "auroc")
LOWER_IS_BETTER = ("mean_loss", "hamming_loss")


def show(result: Comparison) -> None:
    """Print the comparison."""
    summaries.show_pairs(
        [
            ("A", _files(result.files_a)),
            ("B", _files(result.files_b)),
            ("rows", _rows(result)),
            *_losses(result),
            *_flips(result),
            ("agreement", _agreement(result)),
            ("mean KL(A‖B)", _divergence(result)),
            ("time", duration(result.seconds)),
        ]
    )
    if result.changes:
        _show_changes(result)
    if classes := result.changes.get("per_class"):
        _show_classes(result, classes)
    if result.groups:
        _show_groups(result)
    if result.moved:
        _show_moved(result)


def _files(files: Sequence[str]) -> str:
    if not files:
        return "a stream"
    return printable(files[0]) + (f" and {number(len(files) - 1)} more" if len(files) > 1 else "")


def _rows(result: Comparison) -> str:
    pairs = ("pair", None) if result.tokens_only_a is None else ("pair of sequences", "pairs of sequences")
    parts = [quantity(result.n_rows, *pairs) + (f" by {printable(result.key)}" if result.key is not None else "")]
    for count, what in (
        (result.only_a, "only in A"),
        (result.only_b, "only in B"),
        (result.bad_rows, "left out because a row is bad" if result.tokens_only_a is None else "with a bad token"),
    ):
        if count:
            parts.append(f"{number(count)} {what}")
    parts += [
        f"{quantity(count, 'token')} only in {name}"
        for count, name in ((result.tokens_only_a, "A"), (result.tokens_only_b, "B"))
        if count
    ]
    if result.tokens_only_a is not None and result.mean_loss_a is not None:
        parts.append(f"{quantity(result.n_judged, 'token')} with a loss")
    elif result.mean_loss_a is not None and result.n_judged < result.n_rows - result.bad_rows:
        parts.append(f"{number(result.n_judged)} with a label")
    return ", ".join(parts)


def _agreement(result: Comparison) -> str:
    if result.agreement is None:
        return ABSENT
    what = "of rows have the same predicted labels" if result.task == "multilabel" else "of predictions"
    return f"{100 * result.agreement:.6g} % {what}"


def _losses(result: Comparison) -> list[tuple[str, str]]:
    if result.infinite_losses_a is None:
        return [("losses", "none, because there are no labels")]
    pairs = [("mean loss", _change(result.mean_loss_a, result.mean_loss_b, result.mean_loss_change))]
    if result.infinite_losses_a or result.infinite_losses_b:
        counts = f"{number(result.infinite_losses_a)} in A, {number(result.infinite_losses_b)} in B"
        pairs.append(("infinite losses", counts))
    return pairs


def _flips(result: Comparison) -> list[tuple[str, str]]:
    if result.accuracy_a is None or result.accuracy_b is None:
        return []
    flips = f"{number(result.right_to_wrong)} right → wrong, {number(result.wrong_to_right)} wrong → right"
    return [
        ("accuracy", _change(result.accuracy_a, result.accuracy_b, result.accuracy_b - result.accuracy_a)),
        ("flips", flips),
        ("  McNemar", f"p = {result.mcnemar_p:.3g} ({result.mcnemar_method})"),
    ]


def _divergence(result: Comparison) -> str:
    text = ABSENT if result.mean_kl is None else f"{number(result.mean_kl)} nats"
    if not result.infinite_kl:
        return text
    infinite = f"infinite for {number(result.infinite_kl)}, where B masks a class and A doesn't"
    return f"{text} over the pairs where it is finite; {infinite}"


def _change(a: float | None, b: float | None, change: float | None) -> str:
    return change_of(a, b) + ("" if change is None else f"  ({_signed(change)})")


def _signed(value: float | None) -> str:
    return ABSENT if value is None else f"{value:+.4g}" if value else "0"


def _show_changes(result: Comparison) -> None:
    names = (name for name in SHOWN if result.task == "multilabel" or name not in OF_LABELS)
    found = [(SHOWN[name], change) for name in names if (change := result.change(name)) is not None]
    level = f"{100 * (result.confidence_level or 0.0):g} %"
    tables.console().print_line(f"\nchanges, with {level} intervals", "bold")
    columns = [Column("metric", [text for text, _ in found], "left"), *_change_columns([one for _, one in found])]
    columns.append(Column("p", [_rounded(one["p_value"], 2) for _, one in found]))
    columns.append(Column("mde", [_rounded(one["mde"], 2) for _, one in found]))
    tables.console().print_columns(columns)


def _show_groups(result: Comparison) -> None:
    """Print a table of the groups for each of some metrics, with a verdict."""
    groups = result.groups[:MOST_GROUPS]
    more = f", {MOST_GROUPS} largest groups of {len(result.groups):,}" if len(result.groups) > MOST_GROUPS else ""
    values = [
        Column("value", [printable(_cell(group["by"])) for group in groups], "left"),
        Column("pairs", [number(group["n_rows"]) for group in groups]),
    ]
    for name in SHOWN_OF_LABELS if result.task == "multilabel" else SHOWN_OF_GROUPS:
        changes = [found for group in groups if (found := change_in(group["changes"], name)) is not None]
        if len(changes) == len(groups):
            _show_verdicts(result, name, f"by {printable(str(result.by))}{more}", values, changes)


def _show_classes(result: Comparison, classes: Sequence[dict[str, Any]]) -> None:
    """Print a table of the classes for each of some metrics, the worst changes first, with a verdict."""
    for name in SHOWN_OF_CLASSES:
        some = [one for one in classes if one.get(name, {}).get("change") is not None]
        some = sorted(some, key=lambda one: one[name]["change"])[:MOST_GROUPS]
        more = f", {MOST_GROUPS} worst changes of {len(classes):,}" if len(classes) > MOST_GROUPS else ", worst first"
        names = Column("class", [printable(_cell(one["class"])) for one in some], "left")
        _show_verdicts(result, name, f"by class{more}", [names], [one[name] for one in some])


def _show_verdicts(
    result: Comparison, name: str, by: str, columns: Sequence[Column], changes: Sequence[dict[str, Any]]
) -> None:
    """Print a table of changes of a metric, with these columns first."""
    if all(one["change"] is None for one in changes):
        return
    alpha = 1.0 - (result.confidence_level or 0.0)
    tables.console().print_line(f"\nchange of {SHOWN[name]} {by}", "bold")
    verdicts = [_verdict(one, alpha, is_lower_better=name in LOWER_IS_BETTER) for one in changes]
    adjusted = Column("adj. p", [_rounded(one["p_adjusted"], 2) for one in changes])
    tables.console().print_columns([*columns, *_change_columns(changes), adjusted, Column("B is", verdicts, "left")])


def _change_columns(changes: Sequence[dict[str, Any]]) -> list[Column]:
    # With these digits, the table fits in 80 columns.
    metrics = [Column(text, [_rounded(one[name], 3) for one in changes]) for name, text in (("a", "A"), ("b", "B"))]
    digits = {"change": 3, "lower": 2, "upper": 2}
    return metrics + [
        Column(name, [_rounded(one[name], some, sign="+") for one in changes]) for name, some in digits.items()
    ]


def _verdict(change: dict[str, Any], alpha: float, *, is_lower_better: bool) -> str:
    if change["p_adjusted"] is None:
        return ABSENT
    if change["p_adjusted"] >= alpha:
        return "unclear"
    return "better" if (change["change"] < 0) == is_lower_better else "worse"


def _rounded(value: float | None, digits: int, *, sign: str = "") -> str:
    return ABSENT if value is None else f"{value:{sign if value else ''}.{digits}g}"


def _show_moved(result: Comparison) -> None:
    console = tables.console()
    measure = "change of the loss" if result.moved_by == "loss" else "KL(A‖B)"
    console.print_line(f"\nlargest changes, by {measure}", "bold")
    columns = []
    for name in _shown(result):
        values = [row[name] for row in result.moved]
        is_text = any(isinstance(value, str | list) for value in values)
        columns.append(Column(name.replace("_", " "), list(map(_cell, values)), "left" if is_text else "right"))
    console.print_columns(columns, overflow="fold")


def _shown(result: Comparison) -> list[str]:
    """Return the names of the columns to show, without empty ones."""
    rows = result.moved
    names = ["file", "row"] if len(result.files_a) > 1 else ["row"]
    names += ["token"] if "token" in rows[0] else []
    if result.key is not None:
        names += ["file_b", "row_b", "key"] if len(result.files_b) > 1 else ["row_b", "key"]
    names += ["label"] if any(row["label"] is not None for row in rows) else []
    names += ["pred_a", "pred_b"]
    return [*names, "loss_a", "loss_b", "kl"] if result.moved_by == "loss" else [*names, "kl"]


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return shortened(", ".join(map(str, value)) or NO_CLASS, LONGEST)
    if isinstance(value, int):
        return str(value)  # no separators: row numbers and indices are typed again
    return shortened(number(value), LONGEST)
