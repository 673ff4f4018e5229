"""Files of several writers, and comparisons of outputs with what other libraries compute and read."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import batchmax
from tests.support.parquet_anatomy import check_file
from tests.support.parquet_readers import READERS, as_type, files_of, in_schema, numbers_of, same
from tests.support.progress import Recorder
from tests.support.requirements import optional
from tests.support.rows import lists

torch = optional("torch")
special = optional("scipy.special")

CLASSES = (2, 3, 10, 64, 100, 1000)
CODECS = ("snappy", "zstd", "none", "lz4", "gzip", "brotli")
LAYOUTS = ("list", "fixed", "wide")
PAGE_BYTES = 1 << 20
"""The approximate size of the pages that batchmax writes; page borders are near its multiples."""

CASES = [
    # n_classes, rows, rows per row group, layout, codec, null rows
    (2, 500, 200, "list", "snappy", "few"),
    (2, 300_000, 300_000, "list", "zstd", "borders"),
    (2, 400, 100, "list", "none", "few"),
    (3, 150_000, 100_000, "list", "none", "pages"),
    (7, 100, 33, "list", "gzip", "none"),
    (8, 100, 33, "fixed", "lz4", "few"),
    (9, 100, 33, "list", "brotli", "few"),
    (10, 600, 100, "list", "lz4", "none"),
    (10, 40_000, 40_000, "list", "none", "borders"),
    (10, 100, 1, "list", "snappy", "few"),
    (63, 300, 100, "list", "snappy", "few"),
    (63, 15_000, 15_000, "list", "none", "borders"),
    (64, 300, 100, "list", "zstd", "few"),
    (64, 20_000, 20_000, "list", "snappy", "borders"),
    (64, 20_000, 20_000, "fixed", "none", "pages"),
    (65, 300, 100, "list", "none", "few"),
    (65, 15_000, 15_000, "fixed", "lz4", "borders"),
    (100, 300, 299, "list", "gzip", "most"),
    (100, 60, 50, "list", "none", "none"),
    (100, 9_000, 9_000, "fixed", "snappy", "none"),
    (10, 300, 100, "list", "snappy", "all"),
    (10, 300, 100, "fixed", "none", "all"),
    (1000, 40, 40, "fixed", "brotli", "few"),
    (1000, 20, 20, "fixed", "none", "none"),
    (1000, 1000, 900, "list", "none", "pages"),
    (1000, 600, 600, "list", "snappy", "none"),
    (32_000, 25, 20, "list", "zstd", "borders"),
    (300_000, 5, 3, "list", "snappy", "few"),
    (3, 400, 150, "wide", "snappy", "few"),
    (10, 400, 150, "wide", "none", "none"),
    (64, 200, 64, "wide", "gzip", "most"),
    (10, 400, 150, "wide", "zstd", "all"),
]


def matrix_of(n_rows, n_classes, dtype=np.float32, *, few=False, seed=0):
    """Return (n_rows, n_classes) logits: random ones, or few distinct values, so that writers use a dictionary."""
    random = np.random.default_rng([seed, n_rows, n_classes])
    if few:
        return random.integers(-20, 20, (n_rows, n_classes)).astype(dtype) / dtype(4)
    return (4 * random.standard_normal((n_rows, n_classes))).astype(dtype)


def table_of(matrix, **more):
    n_rows, n_classes = matrix.shape
    label = pa.array(np.arange(n_rows) * 7 % n_classes)
    return pa.table({"id": pa.array(np.arange(n_rows)), "logits": lists(matrix), "label": label, **more})


def null_rows(pattern, n_rows, n_classes):
    """Return (n_rows,) bool: which rows are null."""
    missing = np.zeros(n_rows, bool)
    page = max(1, PAGE_BYTES // (4 * n_classes))
    if pattern == "few":
        missing[np.random.default_rng(n_rows).integers(0, n_rows, max(1, n_rows // 100))] = True
    elif pattern == "borders":
        missing[[0, -1]] = True
        for border in range(page, n_rows, page):
            missing[border - 1 : border + 1] = True
    elif pattern == "pages":
        missing[page // 2 : page * 3 + page // 3] = True
    elif pattern == "most":
        missing[:] = True
        missing[n_rows // 2] = False
    elif pattern == "all":
        missing[:] = True
    return missing


def score_with_statistics(path, **options):
    """Score a file; return the read statistics and the output table.

    Read statistics are the numbers of logit chunks read as matrices and by pyarrow, and the detail text.
    """
    out = path.with_name("scored.parquet")
    recorder = Recorder()
    batchmax.score(path, out, if_exists="overwrite", progress=recorder, **options)
    detail = "".join(recorder.details)
    fast, slow = re.search(r"read as matrices: ([\d,]+), by pyarrow: ([\d,]+)", detail).groups()
    return (int(fast.replace(",", "")), int(slow.replace(",", "")), detail), pq.read_table(out)


def probs_and_losses(matrix, label):
    """Return probabilities and losses, computed by PyTorch and SciPy in float64."""
    wide = matrix.astype(np.float64)
    probs = torch.softmax(torch.tensor(wide), 1).numpy()
    with np.errstate(invalid="ignore"):
        losses = -special.log_softmax(wide, axis=1)[np.arange(len(wide)), label]
    return probs, losses


def readers_named(*names):
    return {name: READERS[name] for name in names}


def check_readers_agree(path, matrix, monkeypatch, *, falls_back=None):
    """Check a file's logits, that both readers give the same scores, and which reader was used.

    The fast reader must read every row group unless ``falls_back`` is given, the reason for which pyarrow reads them.
    """
    groups = pq.read_metadata(path).num_row_groups
    n_classes = matrix.shape[1]
    values, missing = numbers_of(pq.read_table(path, columns=["logits"])["logits"], n_classes)
    assert not missing.any()
    assert values.tobytes() == matrix.tobytes()

    wide = torch.tensor(matrix.astype(np.float64))
    tables = {}
    for reader in ("", "pyarrow"):
        monkeypatch.setenv("BATCHMAX_PARQUET", reader)
        statistics, tables[reader] = score_with_statistics(path, outputs="probs,loss,logsumexp")
        slow = reader == "pyarrow" or falls_back
        assert statistics[:2] == ((0, groups) if slow else (groups, 0)), statistics
        assert reader == "pyarrow" or (falls_back or "") in statistics[2]
    assert tables[""].equals(tables["pyarrow"])
    probs, _ = numbers_of(tables[""]["probs"], n_classes)
    assert probs.dtype == matrix.dtype
    tolerance = 1e-6 if matrix.dtype == np.float32 else 1e-14
    np.testing.assert_allclose(probs, torch.softmax(wide, 1), rtol=tolerance)
    np.testing.assert_allclose(tables[""]["logsumexp"], torch.logsumexp(wide, 1), rtol=tolerance, atol=tolerance)


def check_scored(out, source, matrix, missing, readers=READERS, dtype=np.float32):
    """Check every row of an output: copied columns equal the source, computed ones are right, all readers agree."""
    n_classes = matrix.shape[1]
    probs, losses = probs_and_losses(matrix, source["label"].to_numpy())
    whole = pq.read_table(out)
    carried = [name for name in source.column_names if name != "logits"]
    layouts = ["probs"] if "probs" in whole.column_names else [f"prob_{number}" for number in range(n_classes)]
    assert whole.column_names == [*carried, *layouts, "loss"]
    for name in carried:
        assert same(as_type(whole[name], source[name].type), as_type(source[name], source[name].type)), name
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    if layouts == ["probs"]:
        got, nulls = numbers_of(whole["probs"], n_classes)
        assert np.array_equal(nulls, missing)
    else:
        for name in layouts:
            assert np.array_equal(whole[name].is_null().to_numpy(), missing)
        got = np.stack([whole[name].drop_null().to_numpy() for name in layouts], 1)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, probs[~missing], rtol=tolerance, atol=1e-37)
    assert np.array_equal(whole["loss"].is_null().to_numpy(), missing)
    np.testing.assert_allclose(whole["loss"].drop_null().to_numpy(), losses[~missing], rtol=1e-5, atol=1e-7)

    schema = pq.read_schema(files_of(out)[0] if Path(out).is_dir() else out).remove_metadata()
    want = in_schema(whole, schema)
    for reader, read in readers.items():
        found = read(out, schema)
        for name in schema.names:
            assert same(found[name].combine_chunks(), want[name].combine_chunks()), (reader, name)
    for file in [files_of(out)] if not Path(out).is_dir() else files_of(out):
        check_file(file, checksums=[*layouts, "loss"])
