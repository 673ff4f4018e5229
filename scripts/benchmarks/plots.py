"""Plots of the results: three small images in colors for the color-blind; shapes and labels say the same."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from benchmarks.results import Results
from benchmarks.suites import CASES
from benchmarks.tables import number, thread_counts

OURS, OTHERS, FLOOR = "#0072B2", "#B8B8B8", "#E69F00"
LINES = {
    "batchmax": ("batchmax, softmax + loss", OURS, "o", "-"),
    "torch-out": ("PyTorch softmax, out=", "#D55E00", "s", "-"),
    "torch": ("PyTorch, as people write it", "#D55E00", "s", ":"),
    "scipy": ("SciPy softmax", "#009E73", "^", "-"),
    "copy": ("np.copyto, one thread", "#000000", "x", "--"),
}
BARS = {
    "batchmax": "batchmax",
    "polars": "Polars",
    "duckdb": "DuckDB",
    "torch": "PyTorch",
    "torch-ahead": "PyTorch, reading ahead",
    "scipy": "SciPy",
    "pyarrow-copy": "pyarrow, copy only",
    "cp": "cp",
}
DPI = 100
MEMORY_LIMIT = 2**30 / 1e9
"""Default memory limit of batchmax, in GB."""


def draw(results: Results, folder: Path) -> list[str]:
    """Draw the plots that have data, and return the names of the files."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "batchmax"}
    drawn = []
    with mpl.rc_context(style):
        for name, drawing in (("jobs", jobs), ("kernels", kernels), ("sizes", sizes)):
            figure = drawing(results, plt)
            if figure is not None:
                save(figure, folder / f"{name}.png")
                plt.close(figure)
                drawn.append(f"{name}.png")
    return drawn


def save(figure: Any, path: Path) -> None:
    """Write an image in 64 colors, a third of the bytes, and without a date, so equal data give equal files."""
    from PIL import Image

    full = BytesIO()
    figure.savefig(full, dpi=DPI)
    Image.open(full).convert("RGB").quantize(64).save(path, optimize=True)


def jobs(results: Results, plt: Any) -> Any:
    """Draw bars of the wall time, one panel per input, at the largest scale measured."""
    whole = [one for one in results.of_suite("jobs") if one["case"] in CASES and one["output"] == "snappy"]
    if not whole:
        return None
    scale = max(one["scale"] for one in whole)
    cases = [case for case in CASES if case in {one["case"] for one in whole if one["scale"] == scale}]
    figure, panels = plt.subplots(
        1, len(cases), figsize=(1 + 2.7 * len(cases), 2.9), sharey=True, squeeze=False, layout="constrained"
    )
    measured = {one["who"] for one in whole if one["scale"] == scale}
    names = [name for name in BARS if name in measured]
    for axes, case in zip(panels[0], cases, strict=True):
        times = [results.median(f"jobs/{case}/{scale}/snappy/{name}") for name in names]
        colors = [OURS if name == "batchmax" else FLOOR if name == "cp" else OTHERS for name in names]
        bars = axes.barh(range(len(names)), [time or 0 for time in times], color=colors)
        axes.bar_label(bars, [number(time) for time in times], padding=3)
        axes.set_yticks(range(len(names)), [BARS[name] for name in names])
        axes.margins(x=0.18)
        n_rows, n_classes = CASES[case]
        axes.set_title(f"{scale * n_rows:,} rows × {n_classes:,}")
        axes.set_xlabel("seconds")
    panels[0][0].invert_yaxis()
    figure.suptitle("Read, softmax and cross-entropy, write; snappy in and out")
    return figure


def kernels(results: Results, plt: Any) -> Any:
    """Draw GB/s over the number of classes, one panel per number of threads."""
    counts = sorted(thread_counts(results))
    if not counts:
        return None
    figure, panels = plt.subplots(
        1, len(counts), figsize=(4.5 * len(counts), 3.3), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, threads in zip(panels[0], counts, strict=True):
        widths = sorted({one["n_classes"] for one in results.of_suite("kernels") if one["threads"] == threads})
        for who, (label, color, marker, line) in LINES.items():
            points = [(width, results.speed(threads, width, who)) for width in widths]
            known = [(width, speed) for width, speed in points if speed is not None]
            if known:
                axes.plot(*zip(*known, strict=True), color=color, marker=marker, linestyle=line, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(widths, [str(width) if width < 10_000 else f"{width // 1000}k" for width in widths])
        axes.minorticks_off()
        axes.set_yticks([0.1, 0.3, 1, 3, 10, 30], ["0.1", "0.3", "1", "3", "10", "30"])
        axes.grid(axis="y", color="#E5E5E5")
        axes.set_xlabel("classes")
        axes.set_title("1 thread" if threads == 1 else f"{threads} threads")
    panels[0][0].set_ylabel("GB/s of float32 logits")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def sizes(results: Results, plt: Any) -> Any:
    """Draw seconds and peak memory over the size of the input."""
    found = sorted((one["gigabytes"], f"sizes/{one['gigabytes']:g}") for one in results.of_suite("sizes"))
    figures = [(size, results.median(key), results.median(key, "peak")) for size, key in found]
    known = [(size, seconds, peak / 1e9) for size, seconds, peak in figures if seconds is not None and peak is not None]
    if not known:
        return None
    gigabytes, seconds, peaks = zip(*known, strict=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.9), layout="constrained")
    left.plot(gigabytes, seconds, color=OURS, marker="o")
    left.set_ylabel("seconds")
    left.set_title("Time")
    right.plot(gigabytes, peaks, color=OURS, marker="o")
    right.set_ylabel("peak resident memory, GB")
    right.set_title("Memory")
    right.axhline(MEMORY_LIMIT, color="#000000", linestyle=":", linewidth=1)
    right.annotate(
        "--memory-limit, unless given",
        (gigabytes[-1], MEMORY_LIMIT),
        (0, 3),
        textcoords="offset points",
        ha="right",
        va="bottom",
    )
    for axes in (left, right):
        axes.set_xlabel("GB of logits")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    right.set_ylim(top=max(1.3 * MEMORY_LIMIT, 1.1 * max(peaks)))
    return figure
