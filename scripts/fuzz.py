#!/usr/bin/env python3
"""Feed damaged files to ``inspect`` and ``score``, and keep each that ends a process, hangs, or is called a bug.

::

    .venv/bin/python scripts/fuzz.py --minutes 60
    .venv/bin/python scripts/fuzz.py --minutes 1 --seed 7 --finds /tmp/finds

Bytes are changed, cut, doubled and taken from other files; and the footer and page headers, taken apart and put
together again, get fields that are missing, of another type, or far too large, with checksums that are right. Files are
numbered, and each depends on the seed and its number alone; with the same seed and folder, the next run goes on where
the last one ended. The work is done in a process of its own, which is watched:
a signal, ten seconds without an answer, a traceback, and more memory than allowed are finds. Each is written down as
the file, and why. Exits with 1 if there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 10
MEMORY = 3 << 30
"""Address space of the process that does the work, most of which it never touches."""
NUMBERS = [0, 1, 2, 3, -1, -2, 127, 255, 1 << 15, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 40, 1 << 60, (1 << 63) - 1]


def seeds(folder: Path) -> list[bytes]:
    """Return files to damage: of many writers' options, and those that come with the project."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    import batchmax

    logits = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    columns = {
        "id": pa.array(range(40)),
        "logits": pa.array(list(logits), pa.list_(pa.float32())),
        "label": pa.array([row % 5 for row in range(40)], pa.int32()),
        "text": pa.array([f"text {row % 3}" for row in range(40)]),
    }
    options: list[dict[str, Any]] = [
        {"compression": codec, "write_page_checksum": checksum, "data_page_version": version, "use_dictionary": repeat}
        for codec in ("snappy", "zstd", "gzip", "brotli", "lz4", "none")
        for checksum, version, repeat in [(True, "1.0", True), (False, "2.0", True), (False, "1.0", False)]
    ]
    paths = [ROOT / "data" / "digits.parquet", *sorted((ROOT / "data" / "layouts").glob("*.parquet"))]
    for number, chosen in enumerate(options):
        paths.append(folder / f"{number}.parquet")
        pq.write_table(pa.table(columns), paths[-1], row_group_size=16, **chosen)
    batchmax.score(str(paths[-1]), str(folder / "scored.parquet"), columns="*")
    return [path.read_bytes() for path in [*paths, folder / "scored.parquet"]]


def damage(data: bytes, others: list[bytes], choose: random.Random) -> bytes:
    """Return a damaged copy."""
    if choose.random() < 0.6:
        with contextlib.suppress(Exception):  # what was damaged before cannot be taken apart
            return choose.choice([damage_footer, damage_footer, damage_page])(data, choose)
    changed = bytearray(data)
    for _ in range(choose.choice([1, 1, 1, 2, 4, 8])):
        at = choose.randrange(len(changed)) if changed else 0
        match choose.randrange(7):
            case 0:
                del changed[at:]
            case 1:
                size = choose.randrange(1, 64)
                changed[at:at] = changed[max(0, at - size) : at]
            case 2:
                other = choose.choice(others)
                start = choose.randrange(len(other))
                piece = other[start : start + choose.randrange(1, 400)]
                changed[at : at + len(piece)] = piece
            case 3:
                del changed[at : at + choose.randrange(1, 16)]
            case _:
                if changed:
                    changed[at] = choose.choice([0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ (1 << choose.randrange(8))])
    return bytes(changed)


def damage_footer(data: bytes, choose: random.Random) -> bytes:
    """Return a copy in whose footer some fields are missing, wrong, or of another type."""
    from batchmax.parquet.thrift import read_struct, write_struct

    length = int.from_bytes(data[-8:-4], "little")
    fields, _ = read_struct(data[len(data) - 8 - length : -8])
    damage_fields(fields, choose)
    footer = write_struct(fields)
    return data[: len(data) - 8 - length] + footer + len(footer).to_bytes(4, "little") + data[-4:]


def damage_page(data: bytes, choose: random.Random) -> bytes:
    """Return a copy with a column chunk at another place, where one page has another header or body, and checksum."""
    from batchmax.parquet.encoded import DATA_PAGE_AT, DICTIONARY_AT, METADATA, PACKED_BYTES, place_of
    from batchmax.parquet.footer import COLUMNS, ROW_GROUPS
    from batchmax.parquet.thrift import I32, Field, read_struct, write_struct

    length = int.from_bytes(data[-8:-4], "little")
    end = len(data) - 8 - length
    fields, _ = read_struct(data[end:-8])
    metadata = choose.choice(choose.choice(fields[ROW_GROUPS].value.values)[COLUMNS].value.values)[METADATA].value
    at, size = place_of(metadata)
    pages: list[tuple[Any, bytes]] = []
    stop = at + size
    while at < stop:
        header, after = read_struct(data, at)
        at = after + header[3].value
        pages.append((header, data[after:at]))
    number = choose.randrange(len(pages))
    header, body = pages[number]
    if choose.random() < 0.5:
        changed = bytearray(body)
        for _ in range(choose.choice([1, 1, 2, 8])):
            place = choose.randrange(min(len(changed), choose.choice([16, 64, len(changed)])))
            changed[place] = choose.choice([0, 1, 0x7F, 0x80, 0xFF, changed[place] ^ (1 << choose.randrange(8))])
        body = bytes(changed)
    else:
        damage_fields(header, choose)
    if 4 in header and choose.random() < 0.9:
        crc = zlib.crc32(body)
        header[4] = Field(I32, crc - (1 << 32) if crc >> 31 else crc)
    pages[number] = header, body
    chunk = b"".join(write_struct(header) + body for header, body in pages)
    moved = end - place_of(metadata)[0]
    for field in (DATA_PAGE_AT, DICTIONARY_AT):
        if field in metadata:
            metadata[field].value += moved
    if number == 0 and DICTIONARY_AT in metadata:
        metadata[DATA_PAGE_AT].value += len(chunk) - size
    metadata[PACKED_BYTES].value = len(chunk)
    footer = write_struct(fields)
    return data[:end] + chunk + footer + len(footer).to_bytes(4, "little") + data[-4:]


def damage_fields(fields: Any, choose: random.Random) -> None:
    """Take fields out of a struct and what is in it, or make them something else."""
    for _ in range(choose.choice([1, 1, 2, 3])):
        at: Any = fields
        while True:
            key = choose.choice(list(at))
            field = at[key]
            inner = field.value
            if hasattr(inner, "values") and not isinstance(inner, dict) and inner.values:
                structs = [value for value in inner.values if isinstance(value, dict)]
                if structs and choose.random() < 0.9:
                    at = choose.choice(structs)
                    continue
                if choose.random() < 0.5:
                    inner.values.pop(choose.randrange(len(inner.values)))
                else:
                    inner.values.append(choose.choice(inner.values))
            elif isinstance(inner, dict) and inner and choose.random() < 0.9:
                at = inner
                continue
            elif isinstance(inner, bool) or choose.random() < 0.15:
                del at[key]
            elif isinstance(inner, int):
                at[key] = type(field)(field.kind, choose.choice([*NUMBERS, inner + 1, inner - 1]))
            elif isinstance(inner, bytes):
                at[key] = type(field)(
                    field.kind, choose.choice([b"", b"\xff\xfe", inner[::-1], inner * 50, b"\x1b[2J"])
                )
            break


def work() -> None:
    """Answer lines that name files, until there are no more."""
    from batchmax.cli import main

    if sys.platform == "linux":  # macOS refuses limits of the address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out = str(Path(sys.stdin.readline().strip()) / "out.parquet")
    answers = sys.stdout
    for line in sys.stdin:
        codes, said = [], ""
        for words in (
            ["inspect", line.strip()],
            ["score", line.strip(), "-o", out, "--if-exists", "overwrite", "--on-bad-row", "null", "--quiet"],
        ):
            error = io.StringIO()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
                codes.append(main(words))
            said += error.getvalue()
        answers.write(json.dumps({"codes": codes, "said": said}) + "\n")
        answers.flush()


class Worker:
    """The process that does the work."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start()

    def ask(self, path: Path) -> tuple[str, str]:
        """Return what kind of end a file had, and what was said."""
        self._in.write(f"{path}\n".encode())
        self._in.flush()
        ready, _, _ = select.select([self._out], [], [], SECONDS)
        line = self._out.readline() if ready else b""
        if not line:
            self._process.kill()
            _, said = self._process.communicate()
            ended = f"signal or exit {self._process.returncode}" if ready else "hangs"
            self._start()
            return ended, said.decode(errors="replace")[-2000:]
        answer = json.loads(line)
        if "Traceback" in answer["said"] or "is a bug in batchmax" in answer["said"]:
            return "called a bug", answer["said"]
        memory = " for want of memory" if "out of memory" in answer["said"] else ""
        return f"exits {answer['codes']}{memory}", ""

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - pipes
        self._in, self._out = self._process.stdin, self._process.stdout
        self._in.write(f"{self._folder}\n".encode())
        self._in.flush()


def main() -> int:
    """Fuzz for as long as was asked for."""
    parser = argparse.ArgumentParser(description="Feed damaged files to inspect and score.")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long; default: 1")
    parser.add_argument("--seed", type=int, default=0, help="of the damages; default: 0")
    parser.add_argument("--finds", type=Path, default=Path("fuzz-finds"), help="where to keep what is found")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work()
        return 0
    sys.path.insert(0, str(ROOT))
    given.finds.mkdir(parents=True, exist_ok=True)
    record = given.finds / f"{given.seed}.json"
    counts: Counter[str] = Counter(json.loads(record.read_text()) if record.exists() else {})
    number = sum(counts.values())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "seeds").mkdir()
        files = seeds(folder / "seeds")
        worker = Worker(folder)
        end = time.monotonic() + 60 * given.minutes
        said = time.monotonic()
        while time.monotonic() < end:
            number += 1
            choose = random.Random(f"{given.seed} {number}")  # noqa: S311 - nothing is to be kept secret
            data = damage(choose.choice(files), files, choose)
            path = folder / "damaged.parquet"
            path.write_bytes(data)
            kind, text = worker.ask(path)
            counts[kind] += 1
            if not kind.startswith("exits"):
                find = given.finds / f"{given.seed}-{number}"
                find.with_suffix(".parquet").write_bytes(data)
                find.with_suffix(".txt").write_text(f"{kind}\n{text}")
                print(f"{find}.parquet: {kind}: {text.strip().splitlines()[-1:]}", flush=True)
            if time.monotonic() - said > 60:
                said = time.monotonic()
                print(f"{number:,} files: {dict(counts)}", flush=True)
                record.write_text(json.dumps(counts))
        worker.stop()
    record.write_text(json.dumps(counts))
    print(f"{number:,} files: {dict(counts)}")
    return int(any(not kind.startswith("exits") for kind in counts))


if __name__ == "__main__":
    sys.exit(main())
