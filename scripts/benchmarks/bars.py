"""Targets of the benchmark: ratios to the peers, memory and start-up time, and whether they are met.

A target (`Bar`) is a name, a limit, and a function from the results to the figure that is compared with the limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.results import STARTS, Results
from benchmarks.suites import WRITTEN
from benchmarks.tables import number

JUDGED_AT, ALSO_AT = 4, 1
"""The scale at which the targets for jobs apply, and a second scale that is shown without targets."""

Measured = Callable[[Results], float | None]


@dataclass(frozen=True)
class Bar:
    """One target: ``limit`` is the minimum of the measured value, or the maximum if ``at_most``.

    Without a limit, the value is shown but not checked.
    """

    what: str
    limit: float | None
    aim: float | None
    value: Measured
    at_most: bool = False

    def line(self, results: Results) -> tuple[str, str, str, str]:
        """Return the name, the value, the limit, and the verdict."""
        value = self.value(results)
        if self.limit is None:
            return self.what, number(value), "", ""
        limit = f"{'at most' if self.at_most else 'at least'} {self.limit:g}"
        limit += f", aim {self.aim:g}" if self.aim else ""
        if value is None:
            return self.what, "–", limit, "not measured"
        holds = value <= self.limit if self.at_most else value >= self.limit
        return self.what, number(value), limit, "holds" if holds else "MISSED"


def ratio(above: float | None, below: float | None) -> float | None:
    """Return above / below, or None if either is missing or ``below`` is 0."""
    return None if above is None or not below else above / below


def median_of(key: str, what: str = "seconds") -> Measured:
    """Return a function that looks up a median."""
    return lambda results: results.median(key, what)


def job_ratio(case: str, scale: int, output: str, above: list[str], below: list[str]) -> Measured:
    """Return a function that divides the shortest time of ``above`` by the shortest time of ``below``."""

    def best(results: Results, names: list[str]) -> float | None:
        times = [results.median(f"jobs/{case}/{scale}/{output}/{name}") for name in names]
        return min((time for time in times if time is not None), default=None)

    return lambda results: ratio(best(results, above), best(results, below))


def written_ratio(name: str) -> Measured:
    """Return a function that divides Polars' time by ours, for a file as a library writes it."""
    return lambda results: ratio(results.median(f"writers/{name}/polars"), results.median(f"writers/{name}/batchmax"))


def sequences_ratio(results: Results) -> float | None:
    """Return the time of the fastest peer divided by the time of batchmax, for sequences."""
    times = [results.median(f"sequences/{name}") for name in ("polars", "torch", "torch-ahead")]
    known = [time for time in times if time is not None]
    return ratio(min(known, default=None), results.median("sequences/batchmax"))


def kernel_ratio(n_classes: int) -> Measured:
    """Return a function that divides the kernel's speed by PyTorch's, at the largest number of threads measured."""

    def value(results: Results) -> float | None:
        threads = max((entry["threads"] for entry in results.of_suite("kernels")), default=0)
        return ratio(results.speed(threads, n_classes, "batchmax"), results.speed(threads, n_classes, "torch-out"))

    return value


def bars() -> list[Bar]:
    """Return all targets and their limits."""
    ours, torches = ["batchmax"], ["torch", "torch-ahead"]
    found = []
    for scale in (JUDGED_AT, ALSO_AT):
        at = f"{scale} × rows"
        for case, limit, aim in (("k1000", 3, 4), ("k32k", 6, 8), ("k10", 1.7, 2.5)):
            value = job_ratio(case, scale, "snappy", ["polars"], ours)
            found.append(Bar(f"{case}, {at}: Polars' time / ours", limit, aim, value))
            for what, theirs, mine, least in (
                ("both synced", "polars-sync", "batchmax", 4),
                ("neither synced", "polars", "batchmax-none", 5),
            ):
                limited = least if case != "k10" else None
                value = job_ratio(case, scale, "snappy", [theirs], [mine])
                found.append(Bar(f"{case}, {at}, {what}: Polars' time / ours", limited, None, value))
        for case in ("k1000", "k32k"):
            value = job_ratio(case, scale, "snappy", torches, ours)
            found.append(Bar(f"{case}, {at}: the best PyTorch script's time / ours", 4, 5, value))
        plain = job_ratio("k1000", scale, "none", ours, ["cp-out"])
        found.append(Bar(f"k1000, {at}, plain out: our time / cp of the same bytes", 2, None, plain, at_most=True))
        loss = job_ratio("k1000", scale, "loss", ours, ["pyarrow-read"])
        found.append(Bar(f"k1000, {at}, loss only: our time / pyarrow reading", 0.6, None, loss, at_most=True))
    found += [
        Bar(f"k1000 as written by {name}, zstd out: Polars' time / ours", 3, 4, written_ratio(name))
        for name in (f"{library}-{codec}" for library, codecs in WRITTEN.items() for codec in codecs)
    ]
    found.append(Bar("sequences, loss only: the fastest peer's time / ours", 4, None, sequences_ratio))
    for width, limit, aim in ((10, 4, 8), (100, 1.2, 1.5), (1000, 1, 1.3), (32_000, 1, 1.3), (131_072, 1, 1.3)):
        what = f"kernel, K = {width:,}: GB/s of ours / PyTorch softmax with out="
        found.append(Bar(what, limit, aim, kernel_ratio(width)))
    big, small = median_of("sizes/10", "peak"), median_of("sizes/1", "peak")
    found += [
        Bar("peak memory on 10 GB, in GB", 1.2, None, lambda results: ratio(big(results), 1e9), at_most=True),
        Bar("peak memory, on 10 GB / on 1 GB", 1.1, None, lambda these: ratio(big(these), small(these)), at_most=True),
    ]
    safe, nothing = median_of(f"safety/{JUDGED_AT}/safe"), median_of(f"safety/{JUDGED_AT}/nothing")
    cost = Bar(
        "k1000: time / without syncs, journal, checksums", 1.05, None, lambda these: ratio(safe(these), nothing(these))
    )
    found.append(replace(cost, at_most=True))
    for name, limit in (("help", 0.15), ("digits-warm", 0.8), ("digits-cold", 15)):
        found.append(Bar(f"{STARTS[name]}, seconds", limit, None, median_of(f"startup/{name}"), at_most=True))
    return [replace(bar, limit=None, aim=None) if f" {ALSO_AT} × " in bar.what else bar for bar in found]


def as_text(results: Results) -> str:
    """Return the table of all targets, for a terminal."""
    rows = [("", "measured", "bar", ""), *(bar.line(results) for bar in bars())]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{what:<{widths[0]}}  {value:>{widths[1]}}  {limit:<{widths[2]}}  {verdict}".rstrip()
        for what, value, limit, verdict in rows
    )
