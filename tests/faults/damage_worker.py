"""Worker that scores damaged copies of a file, one per line of JSON, and reports the outcome of each.

The first line of input has the folder to work in and the path of the file. Every other line is a damage: bytes to
change, and a length to cut to. Each answer is a line of JSON. The caller checks for timeouts and crashes.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.cli.app import main


def run(*words: str) -> tuple[int, str]:
    """Run a command line; return its exit code and its standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    return code, err.getvalue()


def difference(got: pa.Table, wanted: pa.Table) -> str:
    """Return a description of how two tables differ, or an empty string."""
    if got.num_rows != wanted.num_rows:
        return "rows"
    if got.schema.names != wanted.schema.names:
        return "names"
    for name in wanted.schema.names:
        here, there = got[name].combine_chunks(), wanted[name].combine_chunks()
        if here.type != there.type:
            return f"type of {name}: {here.type}"
        # NaN doesn't equal NaN, so the texts are compared as well.
        if here.to_pylist() != there.to_pylist() and str(here.to_pylist()) != str(there.to_pylist()):
            return f"values of {name}"
    return ""


def attempt(folder: Path, data: bytes, wanted: pa.Table | None) -> dict[str, object]:
    """Inspect and score a file with these bytes."""
    path, out = folder / "x.parquet", folder / "out.parquet"
    path.write_bytes(data)
    inspected = run("inspect", str(path))
    code, err = run("score", str(path), "-o", str(out), "--quiet", "--if-exists", "overwrite", "--on-bad-row", "null")
    answer: dict[str, object] = {"inspect": inspected[0], "code": code, "err": inspected[1] or err}
    if code == 0 and wanted is not None:
        try:
            answer["differs"] = difference(pq.read_table(out), wanted)
        except (OSError, pa.ArrowException, UnicodeDecodeError):
            # A carried column without page checksums is copied as it is.
            answer["differs"] = "copied with the damage"
    answer["left"] = [item.name for item in folder.iterdir() if item.name not in {"x.parquet", "out.parquet"}]
    return answer


def serve() -> None:
    """Answer requests until the input ends."""
    warnings.simplefilter("ignore")
    setup = json.loads(sys.stdin.readline())
    folder, original = Path(setup["folder"]), Path(setup["file"]).read_bytes()
    first = attempt(folder, original, None)
    assert first["code"] == 0, first
    wanted = pq.read_table(folder / "out.parquet")
    sys.stdout.write(json.dumps(first) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        damage = json.loads(line)
        data = bytearray(original)
        for at, mask in damage.get("flips", ()):
            data[at] ^= mask
        start = time.process_time()
        answer = attempt(folder, bytes(data[: damage.get("cut", len(data))]), wanted)
        answer["cpu"] = time.process_time() - start
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
