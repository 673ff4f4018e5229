"""Worker that runs damaged inputs, one per line of JSON with a seed and a number, and reports the outcome of each.

A case passes if the result has the values that pyarrow reads from the same bytes, or the values from before the damage,
or if the command fails with a one-line error. Any other outcome is a failure, and the answer describes it.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import batchmax
from batchmax.cli.app import main
from batchmax.errors import BatchmaxError
from tests.faults.damages import Case, case

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_PEAK = "5"
SHARED = Path("/dev/shm")  # noqa: S108 - a private folder is made in it
LIMIT = "500MiB"
SAME = {"rtol": 2e-5, "atol": 1e-6}
NAMES = {"probs", "loss"}


class Failed(Exception):  # noqa: N818 - the outcome of a case
    """A case ended in a forbidden way."""


def attempt(found: Case, folder: Path, choose: random.Random) -> str:
    """Run a case, and return its outcome.

    Raises
    ------
    Failed
        If the outcome is not allowed.
    """
    out = folder / "out.parquet"
    out.unlink(missing_ok=True)
    if isinstance(found.data, pa.Table):
        return _try_table(found.data, choose)
    score = ["-o", str(out), "--on-bad-row", "null", "--memory-limit", LIMIT, "--quiet"]
    if found.kind == "stream":
        sys.stdin = SimpleNamespace(buffer=io.BytesIO(found.data))  # type: ignore[assignment]
        code = _run(["score", "-", *score, *choose.choice([[], [], [], ["--exclude", "x"]])])
        if code == 0:
            _compare(pq.read_table(out), lambda: _read_stream(found.data), found.original)  # type: ignore[arg-type]
        return f"score {code}"
    path = folder / "in.parquet"
    path.write_bytes(found.data)
    code = _run(
        ["score", str(path), *score, *choose.choice([[], [], ["--row-group-size", "7"], ["--columns", "id,text"]])]
    )
    if code == 0:
        _compare_files(out, path, found.original)
    others = {
        "inspect": [],
        "evaluate": [],
        "show": ["--row", "3"],
        "verify": [],
        "convert": ["-o", str(folder / "c.parquet"), "--layout", "wide", "--if-exists", "overwrite"],
        "compare": [str(path)],
        "report": ["-o", str(folder / "r.html"), "--if-exists", "overwrite"],
    }
    weights = [4, 2, 2, 1, 1, 1, 0.2]
    command = choose.choices(list(others), weights)[0]
    other = _run([command, str(path), *others[command]])
    left = sorted(one.name for one in folder.iterdir() if one.name.startswith("."))
    if left:
        raise Failed(f"left behind: {left}")
    return f"score {code}, {command} {other}"


def _run(words: list[str]) -> int:
    """Run a command line, which must end with exit code 0, or with 1 or 2 and a one-line error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    text = err.getvalue()
    lines = [line for line in text.splitlines() if not line.startswith(("batchmax: warning: ", "batchmax: note: "))]
    if code not in {0, 1, 2} or "is a bug" in text or "Traceback" in text or (code and len(lines) != 1):
        raise Failed(f"{' '.join(words)}: {code}: {text}")
    if code and not lines[0].startswith("batchmax: error: "):
        raise Failed(f"{' '.join(words)}: {text}")
    if any(not char.isprintable() for char in out.getvalue() + text if char != "\n"):
        raise Failed(f"{' '.join(words)}: not printable: {text!r} {out.getvalue()[:2000]!r}")
    return code


def _try_table(table: pa.Table, choose: random.Random) -> str:
    entries = {
        "scan": lambda: batchmax.scan(table, on_bad_row="null").read_all(),
        "score_batch": lambda: batchmax.score_batch(table, on_bad_row="null"),
        "score_batch of a batch": lambda: pa.table(batchmax.score_batch(table.to_batches()[0], on_bad_row="null")),
        "evaluate": lambda: batchmax.evaluate(table),
        "compare": lambda: batchmax.compare(table, table),
        "evaluate by": lambda: batchmax.evaluate(table, by="x"),
    }
    entry = choose.choice(list(entries))
    try:
        result = entries[entry]()
    except BatchmaxError as error:
        if "\n" in str(error):
            raise Failed(f"{entry}: {error}") from error
        return f"{entry} {error.exit_code}"
    if isinstance(result, pa.Table):
        _compare(result, lambda: table, table)
    else:
        for column in table.columns:
            column.validate(full=True)
    return f"{entry} 0"


def _read_stream(data: bytes) -> pa.Table:
    table = pa.ipc.open_stream(data).read_all()
    table.validate(full=True)
    return table


def _compare_files(out: Path, path: Path, original: pa.Table) -> None:
    """Compare an output with its input; copied columns without checksums keep their damage."""

    def there() -> pa.Table:
        return pq.read_table(path, page_checksum_verification=True)

    try:
        result = pq.read_table(out)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        try:
            there()
        except (OSError, pa.ArrowException, UnicodeDecodeError):
            result = pq.read_table(out, columns=[name for name in pq.read_schema(out).names if name in NAMES])
        else:
            raise Failed(f"the output cannot be read, and the input can: {error}") from error
    _compare(result, there, original)


def _compare(result: pa.Table, read: Any, original: pa.Table) -> None:
    """Compare a result with the values that pyarrow reads, or with the values before the damage."""
    differences = []
    for source in (read, lambda: original):
        try:
            differences.append(_difference(result, source()))
        except (OSError, pa.ArrowException, UnicodeDecodeError, ValueError, IndexError) as error:
            differences.append(f"not read: {error}")
        if not differences[-1]:
            return
    raise Failed(f"wrong values: {differences}")


def _difference(result: pa.Table, table: pa.Table) -> str:
    if result.num_rows != table.num_rows:
        return f"{result.num_rows} rows instead of {table.num_rows}"
    for name in result.schema.names:
        if name in table.schema.names and name not in NAMES and result.schema.names.count(name) == 1:
            here, there = (_texts(one[name]) for one in (result, table))
            if here != there:
                row = next(row for row, (one, other) in enumerate(zip(here, there, strict=True)) if one != other)
                return f"{name}, row {row}: {here[row][:100]} instead of {there[row][:100]}"
    if "probs" not in result.schema.names or not _are_lists_of_floats(table.schema):
        return ""
    return _wrong_probs(result, table)


def _are_lists_of_floats(schema: pa.Schema) -> bool:
    kind = schema.field("logits").type if "logits" in schema.names else pa.null()
    is_list = any(is_kind(kind) for is_kind in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))
    return is_list and pa.types.is_floating(kind.value_type)


def _wrong_probs(result: pa.Table, table: pa.Table) -> str:
    labels = table["label"].to_pylist() if "label" in table.schema.names else None
    losses = result["loss"].to_pylist() if "loss" in result.schema.names else None
    probs = result["probs"].to_pylist()
    n_classes = next((len(row) for row in probs if row is not None), 0)
    for row, logits in enumerate(table["logits"].to_pylist()):
        z = np.array([np.nan if one is None else one for one in logits or []], np.float64)
        if len(z) != n_classes or np.isnan(z).any() or np.isposinf(z).any() or np.isneginf(z).all():
            if probs[row] is not None:
                return f"row {row}: {probs[row]} of {logits}"
            continue
        with np.errstate(all="ignore"):
            log_probs = z - z.max() - np.log(np.exp(z - z.max()).sum())
        if probs[row] is None or not np.allclose(probs[row], np.exp(log_probs), **SAME):
            return f"row {row}: {probs[row]} instead of {np.exp(log_probs)}"
        if labels is None or losses is None:
            continue
        label = labels[row]
        if not isinstance(label, int) or not 0 <= label < n_classes:
            if losses[row] is not None:
                return f"row {row}: loss {losses[row]} of label {label}"
        elif losses[row] is None or not np.isclose(losses[row], -log_probs[label], rtol=2e-5, atol=1e-6):
            return f"row {row}: loss {losses[row]} instead of {-log_probs[label]}"
    return ""


def _texts(column: pa.ChunkedArray) -> list[str]:
    """Return values as texts, because NaN doesn't equal NaN and Python can't represent some times."""
    return [str(value) if not value.is_valid else _text(value) for value in column]


def _text(value: pa.Scalar) -> str:
    try:
        return str(value.as_py())
    except UnicodeDecodeError:  # the column was copied without decoding
        return str(value.as_buffer().to_pybytes())
    except (ValueError, OverflowError):
        return str(value)


def peak() -> int:
    """Return the peak resident memory in bytes, or 0 if it is unknown."""
    with contextlib.suppress(OSError):
        lines = STATUS.read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return 0


def serve() -> None:
    """Answer requests until the input ends."""
    warnings.simplefilter("ignore")
    # In memory if possible: the files are temporary.
    with tempfile.TemporaryDirectory(dir=SHARED if SHARED.is_dir() else None) as name:
        for line in sys.stdin:
            question = json.loads(line)
            seed, number = question["seed"], question["number"]
            found = case(seed, number)
            pa.default_memory_pool().release_unused()
            with contextlib.suppress(OSError):
                CLEAR.write_text(FORGET_PEAK, encoding="ascii")
            start, answer = time.process_time(), {"kind": found.kind}
            before = peak()
            try:
                answer["end"] = attempt(found, Path(name), random.Random(f"{seed} {number} how"))
            except Exception as error:  # noqa: BLE001 - any other exception is a finding
                answer["failed"] = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            answer |= {"cpu": time.process_time() - start, "peak": peak(), "before": before}
            sys.__stdout__.write(json.dumps(answer) + "\n")
            sys.__stdout__.flush()


if __name__ == "__main__":
    serve()
