"""Print decision rules as tables on stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from batchmax.cli.render.formatting import ABSENT, duration, number
from batchmax.cli.render.summaries import show_pairs
from batchmax.cli.render.tables import Column, console
from batchmax.runtime.text import printable, quantity, shell_word

MOST_ROWS = 20
"""Labels and groups to print; the JSON contains all."""
SHOWN = ("alert_rate", "precision", "recall", "fpr", "f1", "accuracy", "coverage", "mean_cost")
METRICS = {
    "alert_rate": "alert rate",
    "precision": "precision",
    "recall": "recall",
    "fpr": "FPR",
    "f1": "F1",
    "f0.5": "F0.5",
    "f2": "F2",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "mcc": "MCC",
    "coverage": "coverage",
    "mean_cost": "mean cost",
}


def show_decision(result: Any, out: str) -> None:
    """Print a rule: a :class:`batchmax.evaluation.decisions.result.DecisionRule`."""
    pairs = [("rule", _rule(result))]
    if not result.groups and not result.thresholds:
        pairs += _threshold(result)
        if result.constraint is not None:
            pairs.append(
                (
                    "p-value",
                    f"{number(result.constraint['p_value'])}  (of the hypothesis that the constraint isn't met)",
                )
            )
    pairs.append(("rows", number(result.n_rows)))
    show_pairs(pairs)
    if result.thresholds:
        _show_rules(result, "", "class", result.thresholds)
    elif result.groups:
        for name, rows in _tables(result):
            _show_rules(result, f"by {printable(result.by)}{name}", "by", rows)
    else:
        _show_metrics(result)
    click.echo()
    apply = f"batchmax score INPUT -o scored.parquet --decision {shell_word(out)}"
    show_pairs([("time", duration(result.seconds)), ("output", shell_word(out)), ("next", apply)])


def _rule(result: Any) -> str:
    if result.rule == "costs":
        return "least mean cost" if result.task == "binary" else "least expected cost of each row"
    constraints = [
        one["constraint"]
        for one in (vars(result), *result.thresholds, *result.groups, *_labels(result.groups))
        if one["constraint"] is not None
    ]
    if constraints:
        return f"{result.rule} with a confidence of {constraints[0]['confidence_level']:g}"
    return f"largest {METRICS[result.rule]}"


def _labels(groups: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [label for group in groups for label in group["thresholds"]]


def _threshold(result: Any) -> list[tuple[str, str]]:
    """Return the thresholds of a rule in words."""
    if result.task == "multiclass":
        if result.rule == "costs":
            return [("decisions", ", ".join(map(printable, result.costs["decisions"])))]
        if result.logit is None:
            return [("threshold", "none: no row is decided")]
        text = f"decided if the confidence is at least {number(result.threshold)}  (log-odds {number(result.logit)})"
        return [("threshold", text)]
    name = printable(result.positive)
    if result.logit_low is not None:
        high = "never" if result.logit_high is None else f"if they are at least {number(result.logit_high)}"
        names = result.classes or ("0", "1")
        other = printable(next(one for one in names if one != result.positive))
        texts = [f"{other} if the log-odds are below {number(result.logit_low)}", f"{name} {high}", "otherwise abstain"]
        return [("thresholds", "\n".join(texts))]
    if result.logit is None:
        return [("threshold", f"none: no row is {name}")]
    return [
        ("threshold", f"{name} if the probability is at least {number(result.threshold)}"),
        ("log-odds", number(result.logit)),
    ]


def _show_metrics(result: Any) -> None:
    """Print the metrics of both parts next to each other."""
    fitted, held_out = result.fitted, result.held_out
    names = [name for name in SHOWN if fitted[name] is not None or held_out[name] is not None]
    names += [result.rule] if result.rule in METRICS and result.rule not in names else []
    if result.logit_low is None and result.task == "binary":
        names = [name for name in names if name != "coverage"]
    cells = [["rows", *(METRICS[name] for name in names)]]
    cells += [[number(part[name]) for name in ("n_rows", *names)] for part in (fitted, held_out)]
    click.echo()
    columns = [Column("", cells[0], "left"), Column("fitted", cells[1])]
    if result.holdout:
        columns.append(Column("held out", cells[2]))
    else:
        columns[1] = Column("all rows", cells[1])
    console().print_columns(columns)
    if result.holdout and result.optimism is not None:
        of = METRICS["mean_cost" if result.rule == "costs" else result.rule]
        click.echo()
        show_pairs([("optimism", f"{number(result.optimism)}  ({of} of fitted minus held-out rows)")])


def _tables(result: Any) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the groups as rows of tables, with a title each: one table, or one for each group of several labels."""
    if result.task != "multilabel":
        return [("", result.groups)]
    return [
        (f": {printable(group['by'])}", [{**label, "by": label["class"]} for label in group["thresholds"]])
        for group in result.groups[:MOST_ROWS]
    ]


def _show_rules(result: Any, title: str, first: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a rule per line, with its metrics on held-out rows."""
    click.echo()
    more = f"{MOST_ROWS} of {quantity(len(rows), 'rule')}" if len(rows) > MOST_ROWS else ""
    of = "metrics of held-out rows" if result.holdout else "metrics of all rows"
    click.echo(", ".join(filter(None, (title, more, of))))
    some = rows[:MOST_ROWS]
    parts = [row["held_out"] for row in some]
    names = [name for name in SHOWN if any(part[name] is not None for part in parts)]
    if result.task != "multiclass" and all(row.get("logit_low") is None for row in some):
        names = [name for name in names if name != "coverage"]
    columns = [Column("class" if first == "class" else "", [_name(row[first]) for row in some], "left")]
    columns += [
        Column(member.replace("_", " "), [_rounded(row.get(member), 4) for row in some])
        for member in ("threshold", "logit_low", "logit_high")
        if any(row.get(member) is not None for row in some)
    ]
    columns += [Column("rows", [number(part["n_rows"]) for part in parts])]
    columns += [Column(METRICS[name], [_rounded(part[name], 3) for part in parts]) for name in names]
    console().print_columns(columns)


def _rounded(value: float | None, digits: int) -> str:
    return ABSENT if value is None else f"{value:.{digits}g}"


def _name(value: Any) -> str:
    return "null" if value is None else printable(value) or ABSENT
