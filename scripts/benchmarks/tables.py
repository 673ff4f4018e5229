"""Results as Markdown: all figures, and the sections of the README and of the guide between their marks.

A figure that wasn't measured is a dash, so a section can be generated from any results.
"""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import STARTS, Results

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
LINE = 120
"""Maximum length of a line of text."""
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
PLOTS = {
    "jobs.png": "Seconds for the whole job, by tool and input",
    "kernels.png": "Speed of the kernels over the number of classes",
    "sizes.png": "Time and peak memory over the size of the file",
}
WHO = {
    "batchmax": "**batchmax**",
    "batchmax-none": "batchmax, `--durability none`",
    "batchmax-2": "batchmax, 2 threads",
    "batchmax-1": "batchmax, 1 thread",
    "polars": "Polars, streaming",
    "polars-sync": "Polars, streaming, then fsync",
    "duckdb": "DuckDB, SQL",
    "duckdb-sync": "DuckDB, SQL, then fsync",
    "torch": "PyTorch and pyarrow",
    "torch-sync": "PyTorch and pyarrow, then fsync",
    "torch-ahead": "PyTorch and pyarrow, reading ahead",
    "torch-ahead-sync": "PyTorch and pyarrow, reading ahead, then fsync",
    "scipy": "SciPy and pyarrow",
    "pyarrow-copy": "pyarrow, no arithmetic",
    "cp": "`cp` of the input",
    "cp-sync": "`cp` of the input, then fsync",
    "cp-out": "`cp` of the output",
    "cp-out-sync": "`cp` of the output, then fsync",
    "pyarrow-read": "pyarrow, only reading the logits",
    "pyarrow-scan": "pyarrow dataset, only reading the logits",
}
CASES = {"k10": "10 classes", "k1000": "1000 classes", "k32k": "32,000 classes", "digits": "digits"}
WRITES = {"snappy": "snappy input and output", "none": "uncompressed output", "loss": "only the loss as output"}
KERNELS = {
    "copy": "`np.copyto`, one thread",
    "batchmax": "**batchmax**, softmax and loss, `out=`",
    "batchmax-softmax": "batchmax, softmax, `out=`",
    "torch-out": "PyTorch, softmax, `out=`",
    "torch": "PyTorch, softmax and cross_entropy",
    "scipy": "SciPy, softmax",
}
Rows = list[list[str]]


def table(head: list[str], rows: Rows) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None) -> str:
    """Return a figure with three digits and without an exponent."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def failed(entry: dict[str, Any]) -> str | None:
    """Return a short reason why there is no figure, or None if no run failed."""
    if "failure" not in entry:
        return None
    return "too long" if entry["failure"].startswith("not done") else "failed"


def job_cell(results: Results, key: str) -> str:
    """Return seconds and peak memory of a job."""
    entry = results.measurements.get(key, {})
    seconds, peak = results.median(key), results.median(key, "peak")
    return failed(entry) or ("–" if seconds is None or peak is None else f"{number(seconds)} s, {peak / 1e9:.2f} GB")


def jobs(found: Sequence[Results], scale: int, output: str, cases: list[str]) -> str:
    """Return the table of one group of jobs, the CPUs side by side, without peers that weren't measured."""
    measured = {
        one["who"]
        for results in found
        for one in results.of_suite("jobs")
        if (one["scale"], one["output"]) == (scale, output)
    }
    rows = [
        [words, *(job_cell(results, f"jobs/{case}/{scale}/{output}/{who}") for case in cases for results in found)]
        for who, words in WHO.items()
        if who in measured or who == "batchmax"
    ]
    heads = [CASES[case] + (f", {results.label}" if len(found) > 1 else "") for case in cases for results in found]
    return table(["", *heads], rows)


def sequences(results: Results) -> str:
    """Return the table of sequences."""
    measured = {one["who"] for one in results.of_suite("sequences")}
    rows = [[words, job_cell(results, f"sequences/{who}")] for who, words in WHO.items() if who in measured]
    return table(["", "seconds, peak memory"], rows)


def kernels(results: Results, threads: int) -> str:
    """Return the table of kernels, in GB/s of logits."""
    measured = [one for one in results.of_suite("kernels") if one["threads"] == threads]
    widths = sorted({one["n_classes"] for one in measured})
    rows = [
        [words, *(number(results.speed(threads, width, who)) for width in widths)] for who, words in KERNELS.items()
    ]
    return table(["K", *(f"{width:,}" for width in widths)], rows)


SAFETY = {
    "safe": "default",
    "no-syncs": "without syncs",
    "no-journal": "without syncs and journal",
    "nothing": "without syncs, journal and checksums",
}


def safety(results: Results, scale: int) -> str:
    """Return the table of the cost of syncs, journal and checksums."""
    whole = results.median(f"safety/{scale}/nothing")
    rows = []
    for who, words in SAFETY.items():
        seconds = results.median(f"safety/{scale}/{who}")
        share = "–" if seconds is None or not whole else f"{100 * (seconds / whole - 1):+.1f} %"
        rows.append([words, number(seconds), number(results.median(f"safety/{scale}/{who}", "cpu")), share])
    syncs = results.median(f"safety/{scale}/safe", "syncs")
    rows.append(["in syncs, on all threads", number(syncs), "", ""])
    return table(["", "seconds", "CPU seconds", "compared with the fourth row"], rows)


def thread_counts(results: Results) -> list[int]:
    """Return the numbers of threads that the kernels were measured with, the largest first."""
    return sorted({one["threads"] for one in results.of_suite("kernels")}, reverse=True)


def sizes(results: Results) -> str:
    """Return the table of the size series."""
    found = sorted(results.of_suite("sizes"), key=lambda one: float(one["gigabytes"]))
    keys = [f"sizes/{one['gigabytes']:g}" for one in found]
    return table(
        ["logits, GB", *(f"{one['gigabytes']:g}" for one in found)],
        [
            ["seconds", *(number(results.median(key)) for key in keys)],
            ["peak memory, GB", *(number(ratio_of(results.median(key, "peak"))) for key in keys)],
        ],
    )


def ratio_of(value: float | None) -> float | None:
    """Return bytes as gigabytes."""
    return None if value is None else value / 1e9


def startup(results: Results) -> str:
    """Return the table of start-up times."""
    return table(["", "seconds"], [[words, number(results.median(f"startup/{key}"))] for key, words in STARTS.items()])


def where(found: Sequence[Results]) -> str:
    """Return the machines and the versions, in a sentence for each machine."""
    return " ".join(map(_where, found)) or "Not measured yet."


def _where(results: Results) -> str:
    machine = results.machine
    names = ["Python", *(name for name in results.versions if name != "python")]
    versions = [results.versions[name.lower()] for name in names]
    libraries = ", ".join(f"{name} {version}" for name, version in zip(names, versions, strict=True))
    return f"Measured on {machine['cores']} cores of {results.label}, {machine['memory']} GiB, with {libraries}."


def headline(found: Sequence[Results], plots: list[str]) -> str:
    """Return the README's section: the largest jobs; ``plots`` are the plots that exist."""
    return f"""
{textwrap.fill(f"{where(found)} The table has medians of the seconds and the peak memory of whole processes.", LINE)}

{_large_jobs(found, plots)}
"""


def section(found: Sequence[Results], plots: list[str]) -> str:
    """Return the guide's section, starting with its first heading; ``plots`` are the plots that exist.

    Jobs and kernels are those of all CPUs; the other tables are of the first.
    """
    results = found[0] if found else Results()
    large = ["k10", "k1000", "k32k"]
    safe, size_series, kernel_speed, nested = "", "", "", ""
    others = _other_outputs(found, large)
    if results.of_suite("sequences"):
        nested = f"""
### Sequences

40 sequences of 512 tokens × 32,000 classes (2.6 GB, nested lists). The output has losses of tokens and means of rows:

{sequences(results)}
"""
    if results.of_suite("safety"):
        safe = f"""
## Cost of durability

6.4 GB of logits with 1000 classes:

{safety(results, 4)}
"""
    if results.of_suite("sizes"):
        size_series = f"""
## File size

The time grows with the size of the file; the memory doesn't:

{sizes(results)}{_image("sizes.png", plots)}
"""
    if tables := [(one, threads) for one in found for threads in thread_counts(one)[:1]]:
        of_cpus = "\n\n".join(
            f"""Speed from memory to memory{f" on {one.label}" if len(found) > 1 else ""}, in GB/s of float32 logits \
(threads: {threads}):

{kernels(one, threads)}"""
            for one, threads in tables
        )
        kernel_speed = f"""
## Kernels

{of_cpus}{_image("kernels.png", plots)}
"""
    return f"""## Jobs

{textwrap.fill(where(found), LINE)}

All programs read the same files (a list of float32 logits, an id and a label; snappy; row groups of 16 MiB) and
write id, label, probabilities and losses. The tables have the seconds and the peak resident memory of whole processes,
including start-up: medians of interleaved runs, with the input in the page cache. By default, batchmax syncs its
output to the disk; the others don't, nor does `--durability none`. Rows with fsync sync the output and its folder.

To repeat the measurements, run `.venv/bin/python -m pip install -e '.[bench]'` and `.venv/bin/python scripts/bench.py`.
All results, with their spread and CPU seconds, are in
[data/bench]({_link("blob", "README.md")}).

{_large_jobs(found, plots)}

{others}A quarter of these rows, and `data/digits.parquet`, whose time is mostly start-up ({WRITES["snappy"]}):

{jobs(found, 1, "snappy", [*large, "digits"])}
{nested}
## Start-up

{startup(results)}
{safe}{size_series}{kernel_speed}"""


def _other_outputs(found: Sequence[Results], cases: list[str]) -> str:
    """Return the tables of the large jobs that write other outputs, if any were measured."""
    measured = {one["output"] for results in found for one in results.of_suite("jobs") if one["scale"] == 4}
    return "".join(
        f"The same input, {WRITES[output]}:\n\n{jobs(found, 4, output, cases)}\n\n"
        for output in ("none", "loss")
        if output in measured
    )


def _large_jobs(found: Sequence[Results], plots: list[str]) -> str:
    """Return the table of the largest jobs that write all outputs, with its plot."""
    return f"""6.4 GB of logits (1.6 GB with 10 classes), {WRITES["snappy"]}:

{jobs(found, 4, "snappy", ["k10", "k1000", "k32k"])}{_image("jobs.png", plots)}"""


def _image(name: str, plots: list[str]) -> str:
    """Return a paragraph with a plot, or nothing if it doesn't exist."""
    return f"\n\n![{PLOTS[name]}]({_link('raw', name)})" if name in plots else ""


def everything(found: Sequence[Results]) -> str:
    """Return all figures as a Markdown page, one CPU after another: median (smallest – largest)."""
    return "\n\n".join(["# All figures", *map(_everything, found)]) + "\n"


def _everything(results: Results) -> str:

    def cell(entry: dict[str, Any], what: str, unit: float) -> str:
        if what not in entry:
            return failed(entry) or "–"
        low, middle, high = (number(entry[what][name] / unit) for name in ("min", "median", "max"))
        return f"{middle} ({low} – {high})"

    parts = [f"{_where(results)} Median (smallest – largest)."]
    for suite in ("jobs", "writers", "sequences", "startup", "sizes"):
        entries = {key: entry for key, entry in results.measurements.items() if entry["suite"] == suite}
        if suite == "writers" and not entries:
            continue
        rows = [
            [
                key.removeprefix(f"{suite}/"),
                *(cell(entry, what, unit) for what, unit in (("seconds", 1), ("cpu", 1), ("peak", 1e9))),
                str(len(entry.get("seconds", {}).get("all", []))),
            ]
            for key, entry in entries.items()
        ]
        parts.append(f"## {suite}\n\n" + table(["", "seconds", "CPU seconds", "peak, GB", "runs"], rows))
    scales = sorted({one["scale"] for one in results.of_suite("safety")})
    parts += [f"## cost of durability, k1000, {scale} × rows\n\n{safety(results, scale)}" for scale in scales]
    parts += [f"## kernels, threads: {n}, GB/s\n\n{kernels(results, n)}" for n in thread_counts(results)]
    return "\n\n".join(parts)


def _link(view: str, name: str) -> str:
    """Return the URL of a file in data/bench; relative links don't work on the package index.

    ``view`` is ``"blob"`` for a page with the file, ``"raw"`` for its bytes (images).
    """
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    return f"{project['urls']['Repository']}/{view}/main/data/bench/{name}"


def replace_section(page: Path, text: str) -> None:
    """Replace the text between the marks in a page."""
    whole = page.read_text(encoding="utf-8")
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        message = f"{page} has no {BEGIN} … {END}"
        raise ValueError(message)
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")
