"""A small job, run as the real command in its own process with an injected fault, and the checks of its outcome.

After any fault, the output path holds its previous content or the whole new output. Then the job is resumed, and must
produce the same bytes as an undisturbed run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.processes import HANGS

N_ROWS, N_CLASSES, N_GROUPS = 1500, 2000, 6


@dataclass
class Outcomes:
    """Outcomes of one kind of fault, over all its injections."""

    times: int = 0
    exits: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    resumed: int = 0


class Table:
    """Outcomes of all faults, by kind."""

    def __init__(self) -> None:
        self.rows: defaultdict[tuple[str, str], Outcomes] = defaultdict(Outcomes)
        self.damages: dict[str, Counter[str]] = {}

    def text(self, earlier: str = "") -> str:
        """Return the tables in Markdown; rows of ``earlier`` stay if this run has none of their kind."""
        known = [line for line in earlier.splitlines() if line.startswith("| ") and "---" not in line]
        faults = {tuple(line[2:].split(" | ")[:2]): line for line in known if line.count(" | ") == 5}
        damages = {line[2:].split(" | ")[0]: line for line in known if line.count(" | ") == 1}
        for (fault, how), row in self.rows.items():
            exits, found = (", ".join(f"{name}: {n}" for name, n in sorted(c.items())) for c in (row.exits, row.found))
            faults[fault, how] = f"| {fault} | {how} | {row.times} | {exits} | {found} | {row.resumed} of {row.times} |"
        for what, counts in self.damages.items():
            damages[what] = f"| {what} | {', '.join(f'{kind}: {n:,}' for kind, n in counts.most_common())} |"
        head = "| fault | injected | times | exit codes | at the output path afterwards | gone on with, same bytes |"
        faults.pop(("fault", "injected"), None)
        damages.pop("damage", None)
        lines = [head, "| --- | --- | --- | --- | --- | --- |", *faults.values()]
        lines += [
            "",
            "## Damaged inputs",
            "",
            "| damage | what came of it, times |",
            "| --- | --- |",
            *damages.values(),
        ]
        return "\n".join(lines) + "\n"


class Job:
    """A job in a folder: from ``in.parquet`` to a file or a folder, with or without an existing output."""

    def __init__(self, folder: Path, out: str, *, replacing: bool) -> None:
        folder.mkdir()
        self.folder = folder
        self.out = folder / out
        self.staging = folder / f".{out}.batchmax"
        self.replacing = replacing
        self._write_input()
        self.old = self._made("--temperature", "2")
        self.new = self._made()
        self.restart()

    @property
    def name(self) -> str:
        """Description of the kind of job."""
        return f"{'file' if self.out.suffix else 'folder'}, {'over an older one' if self.replacing else 'new'}"

    def command(self, *more: str) -> list[str]:
        """Return the words of the command."""
        words = [sys.executable, "-m", "batchmax", "score", str(self.folder / "in.parquet"), "-o", str(self.out)]
        return [*words, "--quiet", *(["--if-exists", "overwrite"] if self.replacing else []), *more]

    def run(self, *more: str, wrap: tuple[str, ...] = (), **how: Any) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return subprocess.run(
            [*wrap, *self.command(*more)], capture_output=True, text=True, timeout=HANGS, check=False, **how
        )

    def restart(self) -> None:
        """Restore the state before the job."""
        for path in self.folder.iterdir():
            if path.name != "in.parquet":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, data in (self.old if self.replacing else {}).items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)

    def found(self) -> str:
        """Return which output is at the path: none, the old one, the new one, or neither."""
        data = self._data()
        before = self.old if self.replacing else {}
        if data == before:
            return "old" if self.replacing else "none"
        return "new" if data == self.new else "NEITHER"

    def judge(
        self, done: subprocess.CompletedProcess[str], fault: str, how: str, table: Table, *, says: bool = True
    ) -> None:
        """Check the state after a fault, resume the job, and check its output.

        ``says`` is whether a failure must print a one-line error of batchmax; it is false if Python itself couldn't
        start.
        """
        row = table.rows[fault, how]
        row.times += 1
        row.exits[str(done.returncode)] += 1
        found = self.found()
        row.found[found] += 1
        assert found != "NEITHER", (done.returncode, done.stderr, sorted(self._data()))
        if says:
            assert "Traceback" not in done.stderr, done.stderr
        if says and done.returncode > 0:
            assert done.stderr.count("\n") == done.stderr.count("batchmax: "), done.stderr
            assert done.stderr.strip().splitlines()[-1].startswith("batchmax: error: "), done.stderr
            assert found != "new", done.stderr
        if done.returncode == 0:
            assert found == "new", done.stderr
        again = self.run("--if-exists", "resume")
        if found == "old" and "the output of another job, and complete" in again.stderr:
            # The run was killed before it wrote its journal.
            again = self.run()
        assert again.returncode == 0, again.stderr
        assert self.found() == "new"
        left = sorted(path.name for path in self.folder.iterdir())
        assert left == sorted({"in.parquet", *(Path(name).parts[0] for name in self.new)})
        row.resumed += 1

    def _write_input(self) -> None:
        logits = np.random.default_rng(0).normal(size=N_ROWS * N_CLASSES).astype(np.float32)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(logits), N_CLASSES).cast(pa.list_(pa.float32()))
        table = pa.table({"id": np.arange(N_ROWS), "logits": lists, "label": np.arange(N_ROWS) % N_CLASSES})
        pq.write_table(table, self.folder / "in.parquet", row_group_size=N_ROWS // N_GROUPS, compression="none")

    def _made(self, *more: str) -> dict[str, bytes]:
        """Return the output of an undisturbed run."""
        done = subprocess.run(
            [*self.command(*more), "--if-exists", "overwrite"],
            capture_output=True,
            text=True,
            timeout=HANGS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != "in.parquet"
        }

    def _data(self) -> dict[str, bytes]:
        paths = [self.out] if self.out.is_file() else sorted(self.out.rglob("*")) if self.out.is_dir() else []
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


def strace(call: str, action: str, number: int, *paths: Path) -> tuple[str, ...]:
    """Return the words that inject a fault into the nth such system call of a thread on these paths."""
    chosen = [word for path in paths for word in ("-P", str(path))]
    inject = f"inject={call}:{action}:when={number}"
    return ("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", inject, *chosen)


def strace_works() -> bool:
    """Return whether strace works here."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], check=False, timeout=HANGS).returncode == 0
    return False
