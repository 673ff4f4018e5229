"""Suites of the benchmark.

They measure jobs, files of other writers, sequences, kernels, start-up, a series of sizes, and the cost of safety. Each
suite is a function from a `Setting` to measurements: dictionaries for the results, by keys such as
``jobs/k1000/4/snappy/polars``. This module knows commands and files; `processes` measures them, `results` keeps the
figures, and `bars` defines the targets.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.processes import Contender, Failed, measure, remove, run_rounds, settle
from benchmarks.results import measurement, spread

SCRIPTS = Path(__file__).resolve().parent.parent
DIGITS = SCRIPTS.parent / "data" / "digits.parquet"
PEERS, KERNELS = str(SCRIPTS / "benchmarks" / "peers.py"), str(SCRIPTS / "benchmarks" / "kernels.py")
FILE_WRITERS = str(SCRIPTS / "benchmarks" / "writers.py")
UNSAFE = str(SCRIPTS / "benchmarks" / "unsafe.py")
CASES = {"k10": (10_000_000, 10), "k1000": (400_000, 1000), "k32k": (12_000, 32_000)}
"""Rows and classes of each input at scale 1: 0.4, 1.6 and 1.5 GB of logits. A further case is ``digits``."""
WRITERS = ["polars", "duckdb", "torch", "torch-ahead", "scipy", "pyarrow-copy"]
SYNCED = ["cp", "cp-out", "polars", "duckdb", "torch", "torch-ahead"]
"""Contenders that also run with their output synced at the end, as batchmax does by default: ``polars-sync``."""
SEQUENCE_WRITERS = ["polars", "torch", "torch-ahead"]
SEQUENCES = (40, 512, 32_000)
"""Sequences, tokens of each, and classes: 2.6 GB of logits."""
READERS = ["pyarrow-read", "pyarrow-scan"]
OUTPUTS = ["snappy", "none", "loss"]
"""Groups of jobs: probabilities and losses in a codec, or only the loss."""
WRITTEN = {
    "polars": ["zstd"],
    "duckdb": ["snappy", "zstd"],
    "pyarrow": ["zstd", "snappy", "lz4"],
}
"""The libraries whose files are read by the suite of writers, and the codecs of these files."""
WRITTEN_ROWS = 150_000
SIZES = [0.1, 0.3, 1.0, 3.0, 10.0]
"""Gigabytes of logits, 1000 classes."""
WIDTHS = [10, 100, 1000, 32_000, 131_072]
KERNEL_BYTES = 200_000_000
KERNEL_TIMEOUT = 3600.0
QUICK_ROWS = 20_000
"""Divisor of the number of rows of a case for ``--quick``."""

SAFETY = {
    "safe": "timed",
    "no-syncs": "syncs",
    "no-journal": "syncs,journal",
    "nothing": "syncs,journal,checksums",
}
"""The safety features that each variant leaves out."""

Measurements = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """Settings of a run; ``peers`` are the contenders besides batchmax, which always runs."""

    folder: Path
    rounds: int
    timeout: float
    cases: list[str]
    scales: list[int]
    outputs: list[str]
    peers: list[str]
    threads: list[int]
    sizes: list[float]
    quick: bool
    keep: bool

    def say(self, line: str) -> None:
        """Print a line of progress."""
        print(line, file=sys.stderr, flush=True)

    def race(self, contenders: list[Contender]) -> None:
        """Run the contenders in rounds."""
        for one in contenders:
            one.write_back = not self.quick
        run_rounds(contenders, self.rounds, self.timeout, self.say)


def batchmax(*arguments: str | Path) -> list[str]:
    """Return a command line of batchmax, as users start it."""
    script = Path(sys.executable).with_name("batchmax")
    start = [str(script)] if script.exists() else [sys.executable, "-m", "batchmax"]
    return [*start, *map(str, arguments)]


def installed(peers: Iterable[str], say: Any) -> list[str]:
    """Return the peers whose library is installed."""
    found = []
    for peer in peers:
        module = peer.partition("-")[0]
        if module == "cp" or find_spec(module):
            found.append(peer)
        else:
            say(f"{peer} is left out: no {module} here")
    return found


def make_input(path: Path, n_rows: int, n_classes: int, say: Any, *, n_tokens: int | None = None) -> None:
    """Make a file of logits with ``make_data.py``, of sequences if ``n_tokens`` is given, unless it exists."""
    if path.exists():
        return
    say(f"making {path}: {n_rows:,} rows of {f'{n_tokens:,} × ' if n_tokens else ''}{n_classes:,} classes")
    unfinished = path.with_name(f".{path.name}")
    made = [sys.executable, str(SCRIPTS / "make_data.py"), str(unfinished)]
    made += ["--tokens", str(n_tokens)] if n_tokens else []
    subprocess.run([*made, "--rows", str(n_rows), "--classes", str(n_classes)], check=True)
    unfinished.rename(path)


# Whole jobs


def jobs(setting: Setting) -> Iterator[Measurements]:
    """Score the same files with batchmax and all peers; yield one group of measurements after another."""
    for case in setting.cases:
        for scale in setting.scales if case in CASES else [1]:
            if case in CASES:
                n_rows, n_classes = CASES[case]
                source = setting.folder / (f"{case}.parquet" if scale == 1 else f"{case}x{scale}.parquet")
                n_rows = max(2, n_rows // QUICK_ROWS) if setting.quick else n_rows
                make_input(source, scale * n_rows, n_classes, setting.say)
            else:
                source, n_classes = DIGITS, 10
            for output in setting.outputs:
                setting.say(f"{case}, {scale} x the rows, {output}")
                group = f"jobs/{case}/{scale}/{output}"
                where = {"suite": "jobs", "case": case, "scale": scale, "output": output}
                found = race_jobs(setting, source, n_classes, output)
                input_bytes = source.stat().st_size
                yield {f"{group}/{one.name}": measurement(one, **where, input_bytes=input_bytes) for one in found}


def race_jobs(setting: Setting, source: Path, n_classes: int, output: str) -> list[Contender]:
    """Run one group of jobs in rounds."""
    ours, target = setting.folder / "ours.parquet", setting.folder / "out.parquet"
    options = {"snappy": [], "loss": ["--outputs", "loss"]} | {
        codec: ["--compression", codec] for codec in ("none", "zstd")
    }
    score = batchmax("score", source, "--quiet", *options[output])
    add = partial(Contender, source=source, target=target)
    found = [add("batchmax", [*score, "-o", str(target)])]
    if output != "loss":
        found.append(add("batchmax-none", [*score, "--durability", "none", "-o", str(target)]))
    if output in {"snappy", "loss"}:
        found += [add(f"batchmax-{n}", [*score, "--threads", str(n), "-o", str(target)]) for n in setting.threads]

    # Not measured: it compiles the kernels, makes the reference output, and makes the file that `cp` copies.
    settle(source, ours, write_back=not setting.quick)
    try:
        measure([*score, "-o", str(ours)], setting.timeout)
    except Failed as failure:
        setting.say(f"  batchmax: {failure}")
        remove(ours)

    def agrees() -> None:
        if ours.exists():
            measure([sys.executable, PEERS, "check", str(ours), str(target)], setting.timeout)

    try:
        if "cp" in setting.peers and output != "loss":
            for name, path in [("cp", source), ("cp-out", ours)][: 2 if ours.exists() else 1]:
                found.append(add(name, ["cp", str(path), str(target)], source=path))
                synced = ["sh", "-c", 'cp "$0" "$1" && sync "$1" "${1%/*}"', str(path), str(target)]
                found.append(add(f"{name}-sync", synced, source=path))
        for peer in setting.peers:
            if peer not in (READERS if output == "loss" else WRITERS):
                continue
            command = [sys.executable, PEERS, peer, str(source), str(target), output, str(n_classes)]
            if output == "loss":
                found.append(add(peer, command, target=None))
            else:
                inspect = None if peer == "pyarrow-copy" else agrees
                found.append(add(peer, command, inspect=inspect))
                if peer in SYNCED:
                    found.append(add(f"{peer}-sync", [*command, "sync"], inspect=inspect))
        setting.race(found)
    finally:
        remove(ours)
        remove(target)
    return found


# Files of other writers


def writers(setting: Setting) -> Iterator[Measurements]:
    """Score files that other libraries wrote with their own defaults, with zstd output."""
    plain = setting.folder / "written.parquet"
    for library, codecs in WRITTEN.items():
        if not installed([library], setting.say):
            continue
        for codec in codecs:
            source = setting.folder / f"written-{library}-{codec}.parquet"
            if not source.exists():
                make_input(
                    plain, max(2, WRITTEN_ROWS // QUICK_ROWS) if setting.quick else WRITTEN_ROWS, 1000, setting.say
                )
                unfinished = source.with_name(f".{source.name}")
                made = [sys.executable, FILE_WRITERS, library, str(plain), str(unfinished), codec]
                subprocess.run(made, check=True)
                unfinished.rename(source)
            setting.say(f"1000 classes as written by {library} ({codec}), zstd output")
            few = replace(setting, peers=[peer for peer in setting.peers if peer == "polars"])
            found = race_jobs(few, source, 1000, "zstd")
            where = {"suite": "writers", "library": library, "codec": codec, "input_bytes": source.stat().st_size}
            yield {f"writers/{library}-{codec}/{one.name}": measurement(one, **where) for one in found}


# Sequences


def sequences(setting: Setting) -> Iterator[Measurements]:
    """Write the losses of the tokens of sequences and their means; most of the work is reading."""
    source, target = setting.folder / "sequences.parquet", setting.folder / "out.parquet"
    n_rows, n_tokens, n_classes = (2, 3, SEQUENCES[2]) if setting.quick else SEQUENCES
    make_input(source, n_rows, n_classes, setting.say, n_tokens=n_tokens)
    setting.say("sequences")
    ours = setting.folder / "ours.parquet"
    score = batchmax("score", source, "--label", "labels", "--outputs", "loss", "--quiet")
    found = [Contender("batchmax", [*score, "-o", str(target)], source=source, target=target)]

    def agrees() -> None:
        measure([sys.executable, PEERS, "check-sequences", str(ours), str(target)], setting.timeout)

    for peer in setting.peers:
        command = [sys.executable, PEERS, peer, str(source), str(target), "snappy", str(n_classes)]
        if peer in SEQUENCE_WRITERS:
            command[2] += "-sequences"
            found.append(Contender(peer, command, source=source, target=target, inspect=agrees))
        elif peer == "pyarrow-read":
            found.append(Contender(peer, command, source=source))
    try:
        measure([*score, "-o", str(ours)], setting.timeout)
        setting.race(found)
        where = {"suite": "sequences", "input_bytes": source.stat().st_size}
        yield {f"sequences/{one.name}": measurement(one, **where) for one in found}
    finally:
        remove(ours)
        remove(target)


# Start-up


def startup(setting: Setting) -> Iterator[Measurements]:
    """Time what happens before the first row: Python, import, help, and a small job with cold and warm kernels."""
    setting.say("start-up")
    target = setting.folder / "out.parquet"
    with tempfile.TemporaryDirectory(prefix="batchmax-bench-") as scratch:
        cold, warm = Path(scratch, "cold"), Path(scratch, "warm")
        score = batchmax("score", DIGITS, "-o", target, "--quiet")
        add = partial(Contender, source=DIGITS, target=target)
        found = [
            Contender("python", [sys.executable, "-c", "pass"]),
            Contender("help", batchmax("--help")),
            Contender("import", [sys.executable, "-c", "import batchmax"]),
            add("digits-warm", score, environment={"BATCHMAX_CACHE_DIR": str(warm)}),
            add("digits-cold", score, environment={"BATCHMAX_CACHE_DIR": str(cold)}, prepare=partial(remove, cold)),
        ]
        try:
            settle(DIGITS, target, write_back=not setting.quick)
            measure(score, setting.timeout, {"BATCHMAX_CACHE_DIR": str(warm)})
        except Failed as failure:
            setting.say(f"  batchmax: {failure}")
        setting.race(found)
    remove(target)
    yield {f"startup/{one.name}": measurement(one, suite="startup") for one in found}


# Sizes


def sizes(setting: Setting) -> Iterator[Measurements]:
    """Score files from 0.1 to 10 GB one after another, because rounds over all sizes would need all files at once."""
    target = setting.folder / "out.parquet"
    for size in [0.001] if setting.quick else setting.sizes:
        source = setting.folder / f"size-{size:g}.parquet"
        make_input(source, round(size * 1e9 / 4000), 1000, setting.say)
        setting.say(f"{size:g} GB")
        one = Contender("batchmax", batchmax("score", source, "-o", target, "--quiet"), source=source, target=target)
        try:
            setting.race([one])
            input_bytes = source.stat().st_size
        finally:
            if not setting.keep:
                remove(source)
        yield {f"sizes/{size:g}": measurement(one, suite="sizes", gigabytes=size, input_bytes=input_bytes)}


# Safety


def safety(setting: Setting) -> Iterator[Measurements]:
    """Score k1000 with all safety features and with some or all of them left out; time the syncs themselves."""
    target, seconds = setting.folder / "out.parquet", setting.folder / "syncs"
    n_rows, n_classes = CASES["k1000"]
    for scale in setting.scales:
        source = setting.folder / ("k1000.parquet" if scale == 1 else f"k1000x{scale}.parquet")
        make_input(source, scale * (n_rows // QUICK_ROWS if setting.quick else n_rows), n_classes, setting.say)
        remove(seconds)
        setting.say(f"safety, {scale} x the rows of k1000")

        def one(name: str, left_out: str, source: Path = source) -> Contender:
            command = [sys.executable, UNSAFE, left_out, "score", str(source), "-o", str(target), "--quiet"]
            return Contender(name, command, source=source, target=target, environment={"BENCH_SYNCS": str(seconds)})

        found = [one(name, left_out) for name, left_out in SAFETY.items()]
        setting.race(found)
        for contender in found:
            entry = measurement(contender, suite="safety", scale=scale)
            if contender is found[0] and seconds.exists():
                entry["syncs"] = spread([float(line) for line in seconds.read_text(encoding="ascii").split()])
            yield {f"safety/{scale}/{contender.name}": entry}
        remove(seconds)


# Kernels


def kernels(setting: Setting) -> Iterator[Measurements]:
    """Time the kernels alone, one process per width and number of threads."""
    for threads in setting.threads:
        for width in [1000] if setting.quick else WIDTHS:
            setting.say(f"kernels, {width:,} classes, threads: {threads}")
            size = 400_000 if setting.quick else KERNEL_BYTES
            numbers = (threads, setting.rounds, size, width)
            command = [sys.executable, KERNELS, *map(str, numbers)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=KERNEL_TIMEOUT)
            except subprocess.TimeoutExpired:
                setting.say(f"  not done after {KERNEL_TIMEOUT:g} s")
                continue
            except subprocess.CalledProcessError as failure:
                setting.say(f"  failed: {failure.stderr}")
                continue
            found = {}
            for line in json.loads(done.stdout):
                seconds = spread(line.pop("seconds"))
                setting.say(f"  {line['who']}: {line['bytes'] / seconds['median'] / 1e9:.2f} GB/s")
                found[f"kernels/{threads}/{width}/{line['who']}"] = measurement(
                    None, suite="kernels", threads=threads, seconds=seconds, **line
                )
            yield found


SUITES = {
    "jobs": jobs,
    "writers": writers,
    "sequences": sequences,
    "kernels": kernels,
    "startup": startup,
    "sizes": sizes,
    "safety": safety,
}
