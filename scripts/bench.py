#!/usr/bin/env python3
"""Benchmark batchmax and other libraries on the same files in one run, and generate the tables and plots.

::

    .venv/bin/python -m pip install -e '.[bench]'
    .venv/bin/python scripts/bench.py                                   # everything: some hours, 40 GB of disk
    .venv/bin/python scripts/bench.py --only jobs --cases k1000 --scale 1 --rounds 3 --peers polars,cp
    .venv/bin/python scripts/bench.py --quick                           # does it all work? figures void
    .venv/bin/python scripts/bench.py --readme                          # tables and plots again, from the results
    .venv/bin/python scripts/bench.py --assembly                        # code of the kernels for several CPUs

Each group of measurements is written to the file of this machine's CPU in ``data/bench`` when it is complete.
Measurements that a run doesn't repeat stay as they were, so a benchmark can be run in parts. The last output is the
table of targets and whether they are met. Tables show the CPUs that have results side by side.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import assembly, bars, tables
from benchmarks.results import Results, file_name, read_all, these_versions, this_machine
from benchmarks.suites import CASES, OUTPUTS, READERS, SIZES, SUITES, WRITERS, Setting, installed

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
GUIDE = ROOT / "batchmax" / "guide" / "performance.md"
RESULTS = ROOT / "data" / "bench"


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark that the arguments select, and show the results."""
    given = parse(arguments)
    if given.assembly:
        print(assembly.report(given.assembly, list(assembly.KERNELS)[: 1 if given.quick else None]))
        return
    folder: Path = given.results or (given.folder / "quick-results" if given.quick else RESULTS)
    path = folder / file_name(this_machine())
    if not given.readme:
        run(given, Results.read(path), path)
    found = read_all(folder)
    plots = show(found, folder)
    if given.readme:
        tables.replace_section(README, tables.headline(found, plots))
        tables.replace_section(GUIDE, tables.section(found, plots))
    for results in found if given.readme else [Results.read(path)]:
        print(f"{results.label}\n{bars.as_text(results)}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the checked arguments, with the settings that ``--quick`` implies."""
    parser = argparse.ArgumentParser(description="Measure batchmax beside its peers.")

    def some_of(known: list[str]) -> dict[str, object]:
        def parts(text: str) -> list[str]:
            asked = text.split(",")
            if strange := set(asked) - set(known):
                message = f"{', '.join(sorted(strange))}: not of {', '.join(known)}"
                raise argparse.ArgumentTypeError(message)
            return [name for name in known if name in asked]

        return {"type": parts, "default": known, "metavar": "A,B", "help": f"of {', '.join(known)}; default: all"}

    def gigabytes(text: str) -> list[float]:
        return [float(part) for part in text.split(",")]

    def numbers(text: str) -> list[int]:
        found = [int(part) for part in text.split(",")]
        if min(found) < 1:
            raise ValueError(text)
        return found

    known_cases = [*CASES, "digits"]
    temporary = Path(tempfile.gettempdir()) / "batchmax-bench"
    parser.add_argument("--only", **some_of(list(SUITES)))  # type: ignore[arg-type]
    parser.add_argument("--cases", **{**some_of(known_cases), "default": None})  # type: ignore[arg-type]
    parser.add_argument("--outputs", **some_of(OUTPUTS))  # type: ignore[arg-type]
    parser.add_argument("--peers", **some_of(["cp", *WRITERS, *READERS]))  # type: ignore[arg-type]
    parser.add_argument("--scale", type=numbers, default=[1, 4], metavar="N,M", help="times the rows; default: 1,4")
    parser.add_argument("--threads", type=numbers, default=[1, 2], metavar="N,M", help="told apart; default: 1,2")
    parser.add_argument(
        "--sizes", type=gigabytes, default=SIZES, metavar="X,Y", help="GB of the series; default: 0.1 to 10"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="runs of each; default: 5")
    parser.add_argument("--timeout", type=float, default=300, metavar="S", help="seconds for one run; default: 300")
    parser.add_argument(
        "--folder", type=Path, default=temporary, help=f"of inputs, which are kept, and outputs; default: {temporary}"
    )
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="of results and tables; default: data/bench")
    parser.add_argument("--keep", action="store_true", help="the files of the size series, too")
    parser.add_argument("--quick", action="store_true", help="tiny inputs, one round, results under --folder")
    parser.add_argument(
        "--assembly",
        **{**some_of(list(assembly.CPUS)), "default": None, "const": list(assembly.CPUS), "nargs": "?"},  # type: ignore[arg-type]
    )
    parser.add_argument("--readme", action="store_true", help="measure nothing; write tables, plots, README and guide")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds is at least 1")
    if given.quick and given.readme:
        parser.error("--quick measures nothing that the README could show")
    if given.quick:
        given.folder /= "quick"
        given.rounds, given.scale, given.threads = 1, [1], [1]
        given.cases = given.cases or ["k1000"]
    given.cases = given.cases or known_cases
    given.folder = given.folder.resolve()
    return given


def run(given: argparse.Namespace, results: Results, path: Path) -> None:
    """Run the selected suites, and save each group of measurements when it is complete."""
    machine, versions = this_machine(), these_versions()
    for what, kept, now in (("machine", results.machine, machine), ("versions", results.versions, versions)):
        if kept and kept != now:
            sys.exit(f"bench: {path} holds figures of other {what}: {kept}; now: {now}; move it, or name --results")
    results.machine, results.versions = machine, versions
    given.folder.mkdir(parents=True, exist_ok=True)
    setting = Setting(
        folder=given.folder,
        rounds=given.rounds,
        timeout=given.timeout,
        cases=given.cases,
        scales=given.scale,
        outputs=given.outputs,
        peers=installed(given.peers, lambda line: print(line, file=sys.stderr)),
        threads=given.threads,
        sizes=given.sizes,
        quick=given.quick,
        keep=given.keep,
    )
    for name in given.only:
        for found in SUITES[name](setting):
            results.measurements.update(found)
            results.write(path)


def show(found: list[Results], folder: Path) -> list[str]:
    """Write the page of all figures, draw the plots of the first CPU, and return the names of the plots that exist."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(tables.everything(found), encoding="utf-8")
    try:
        from benchmarks import plots

        for results in found[:1]:
            plots.draw(results, folder)
    except ModuleNotFoundError as missing:
        print(f"no plots are drawn: {missing}", file=sys.stderr)
    return [name for name in tables.PLOTS if (folder / name).exists()]


if __name__ == "__main__":
    main()
