"""Outcomes of faults and damaged inputs, and the tables of them in README.md."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass
class Outcomes:
    """Outcomes of all runs with one fault and one kind of job."""

    runs: int = 0
    exits: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    resumed: int = 0


class OutcomeTable:
    """Outcomes by fault and kind of job, and outcomes of damaged inputs by damage."""

    def __init__(self) -> None:
        self.rows: defaultdict[tuple[str, str], Outcomes] = defaultdict(Outcomes)
        self.damages: dict[str, Counter[str]] = {}

    def text(self, earlier: str = "") -> str:
        """Return the tables in Markdown; rows of ``earlier`` are kept unless this run has the same ones."""
        known = [line for line in earlier.splitlines() if line.startswith("| ") and "---" not in line]
        faults = {tuple(line[2:].split(" | ")[:2]): line for line in known if line.count(" | ") == 5}
        damages = {line[2:].split(" | ")[0]: line for line in known if line.count(" | ") == 1}
        for (fault, job), row in self.rows.items():
            exits, found = (", ".join(f"{name}: {n}" for name, n in sorted(c.items())) for c in (row.exits, row.found))
            faults[fault, job] = f"| {fault} | {job} | {row.runs} | {exits} | {found} | {row.resumed} of {row.runs} |"
        for damage, counts in self.damages.items():
            damages[damage] = f"| {damage} | {', '.join(f'{kind}: {n:,}' for kind, n in counts.most_common())} |"
        head = "| fault | job | runs | exit codes | content of the output path | resumed, same bytes |"
        faults.pop(("fault", "job"), None)
        damages.pop("damage", None)
        lines = [head, "| --- | --- | --- | --- | --- | --- |", *faults.values()]
        lines += [
            "",
            "## Damaged inputs",
            "",
            "| damage | outcomes |",
            "| --- | --- |",
            *damages.values(),
        ]
        return "\n".join(lines) + "\n"
