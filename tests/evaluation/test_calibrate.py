"""Calibration: the best temperature and the best vectors against SciPy on all data in memory.

Also calibration files and their use by other commands.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import BatchmaxError, DataError, OutputError, UsageError
from batchmax.evaluation import calibration_rows as module
from tests.support.paths import DATA
from tests.support.requirements import optional

duckdb = optional("duckdb")
optimize = optional("scipy.optimize")
pl = optional("polars")
special = optional("scipy.special")

DIGITS = DATA / "digits.parquet"


def drawn(n=20_000, k=7, seed=0, factor=1.0):
    """Return logits multiplied by a factor, and labels drawn from the softmax of the logits without the factor."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, k)) * 2
    labels = (logits + random.gumbel(size=(n, k))).argmax(1)
    return (logits * factor).astype(np.float32), labels


def table_of(logits, labels):
    rows = pa.array(list(logits), pa.list_(pa.from_numpy_dtype(logits.dtype)))
    return pa.table({"logits": rows, "label": pa.array(labels)})


def mean_loss(logits, labels, log_t):
    z = logits.astype(np.float64) / math.exp(log_t)
    return float((special.logsumexp(z, axis=1) - z[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize("factor", [0.05, 0.4, 1.0, 3.0, 40.0])
def test_a_known_factor_is_found(factor):
    """The temperature of logits that were multiplied by a factor is that factor, to 1%."""
    logits, labels = drawn(200_000, factor=factor)
    found = batchmax.calibrate(table_of(logits, labels))
    assert found.temperature == pytest.approx(factor, rel=0.01)
    assert not found.at_bound
    assert found.n_holdout == pytest.approx(40_000, rel=0.02)
    if factor != 1.0:
        assert found.nll_after < found.nll_before
        assert found.ece_after < found.ece_before


@pytest.mark.parametrize("case", ["drawn", "digits", "float64"])
def test_the_temperature_is_that_of_scipys_minimizer(case):
    """The temperature is that of SciPy's minimizer on all data in memory, which uses only values of the loss."""
    if case == "digits":
        table = pq.read_table(DIGITS)
        logits, labels = np.array(table["logits"].to_pylist(), np.float32), np.array(table["label"])
    else:
        logits, labels = drawn(factor=2.5, seed=3)
        logits = logits.astype(np.float64) if case == "float64" else logits
    want = optimize.minimize_scalar(
        lambda log_t: mean_loss(logits, labels, log_t), bounds=(-5, 5), method="bounded", options={"xatol": 1e-9}
    )
    found = batchmax.calibrate(table_of(logits, labels), holdout=0.0)
    assert found.temperature == pytest.approx(math.exp(want.x), rel=1e-4)
    assert found.nll_after == pytest.approx(want.fun, rel=1e-6)
    assert "no rows were held out" in found.notes[-1]


def test_separable_and_one_class_data_stay_within_bounds():
    """If every row is right by a margin, T is the lower bound; if labels are the smallest logits, the upper bound.

    If all labels are one class, T is within the bounds.
    """
    random = np.random.default_rng(0)
    logits = random.normal(size=(500, 4)).astype(np.float32)
    logits[np.arange(500), logits.argmax(1)] += 3
    for labels, bound in ((logits.argmax(1), 1e-3), (logits.argmin(1), 1e3)):
        found = batchmax.calibrate(table_of(logits, labels))
        assert (found.temperature, found.at_bound) == (bound, True)
        assert found.warnings
        assert math.isfinite(found.nll_after)
    one = batchmax.calibrate(table_of(logits, np.zeros(500, np.int64)))
    assert 1e-3 <= one.temperature <= 1e3


def test_vector_scaling_is_scipys_optimum():
    """Scales and biases of classes reach the loss of SciPy's optimum, which is found without our gradient."""
    logits, labels = drawn(3000, k=3)
    true_scale, true_bias = np.array([0.5, 2.0, 1.0]), np.array([1.0, -1.0, 0.0])
    logits = ((logits - true_bias) / true_scale).astype(np.float32)
    found = batchmax.calibrate(table_of(logits, labels), method="vector", holdout=0.0)

    def loss(x):
        return mean_loss(logits * x[:3] + x[3:], labels, 0.0)

    want = optimize.minimize(loss, np.array([1, 1, 1, 0, 0, 0.0]), method="BFGS")
    assert found.nll_after == pytest.approx(want.fun, rel=1e-5)
    np.testing.assert_allclose(found.scale, want.x[:3], rtol=0.02)
    np.testing.assert_allclose(np.diff(found.bias), np.diff(want.x[3:]), rtol=0.02)


def test_it_depends_on_neither_row_groups_nor_memory_nor_threads(tmp_path):
    """The same rows are held out and the same T is found with any row groups and threads.

    It doesn't matter whether rows are kept in memory or read again.
    """
    logits, labels = drawn(4000, factor=2.0)
    found = []
    for number, (size, share, threads) in enumerate(((100, 4, 1), (4000, 4, 2), (333, 10**9, 2))):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(table_of(logits, labels), path, row_group_size=size)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "SHARE", share)
            found.append(batchmax.calibrate(str(path), threads=threads))
    for one in found[1:]:
        assert (one.n_fit, one.n_holdout) == (found[0].n_fit, found[0].n_holdout)
        assert one.temperature == pytest.approx(found[0].temperature, rel=1e-9)
    other = batchmax.calibrate(str(path), seed=1)
    assert other.n_fit + other.n_holdout == 4000
    assert other.nll_before != found[0].nll_before


@pytest.mark.parametrize("kind", ["batch", "polars", "pandas", "duckdb"])
@pytest.mark.parametrize("share", [1, 10**9])
def test_data_frames_give_the_result_of_tables(kind, share, monkeypatch):
    """Inputs that can be read several times are calibrated, whether or not their rows are kept in memory."""
    monkeypatch.setattr(module, "SHARE", share)
    table = table_of(*drawn(500))
    frames = {
        "batch": lambda: table.combine_chunks().to_batches()[0],
        "polars": lambda: pl.from_arrow(table),
        "pandas": table.to_pandas,
        "duckdb": lambda: duckdb.connect().from_arrow(table),
    }
    expected, found = batchmax.calibrate(table), batchmax.calibrate(frames[kind]())
    assert (found.n_fit, found.n_holdout, found.temperature) == (
        expected.n_fit,
        expected.n_holdout,
        pytest.approx(expected.temperature, rel=1e-6),
    )


def test_a_reader_is_refused():
    """A reader of record batches is rejected, and the error names the types that are accepted."""
    with pytest.raises(UsageError, match=r"only once, and calibration needs several passes; give paths, or a table or"):
        batchmax.calibrate(table_of(*drawn(50)).to_reader())


@pytest.mark.parametrize("bins", [0, -1, 1001, 2.5])
def test_the_number_of_bins_is_checked(bins):
    """A number of bins that isn't from 1 to 1000 is rejected."""
    with pytest.raises(UsageError, match=r"--bins: .* is out of range; give a number from 1 to 1000"):
        batchmax.calibrate(table_of(*drawn(50)), bins=bins)


def test_odd_rows_are_left_out():
    """Ignored, unlabelled, masked and dropped bad rows are counted, but don't affect the fit."""
    logits, labels = drawn(1000, factor=2.0)
    want = batchmax.calibrate(table_of(logits, labels), holdout=0.0)
    odd = logits[:4].copy()
    odd[0, 0] = np.nan
    odd[1, 2] = -np.inf
    labels = [*labels.tolist(), 0, 2, None, -100]
    table = table_of(np.concatenate([logits, odd]), labels)
    with pytest.raises(DataError, match="NaN"):
        batchmax.calibrate(table)
    found = batchmax.calibrate(table, holdout=0.0, on_bad_row="drop")
    assert (found.n_rows, found.n_fit) == (1004, 1000)
    assert found.temperature == want.temperature


def test_a_calibration_is_applied(tmp_path, capsys):
    """``score``, ``scan``, ``evaluate`` and ``verify`` accept a calibration file.

    Results are those of the temperature, or of the scaled logits.
    """
    logits, labels = drawn(500, factor=3.0)
    pq.write_table(table_of(logits, labels), tmp_path / "a.parquet")
    source, out = str(tmp_path / "a.parquet"), str(tmp_path / "o.parquet")
    for method in ("temperature", "vector"):
        file = str(tmp_path / f"{method}.json")
        found = batchmax.calibrate(source, file, method=method)
        batchmax.score(source, out, calibration=file, if_exists="overwrite")
        scores = pq.read_table(out)
        if method == "temperature":
            want = batchmax.softmax(logits, temperature=found.temperature)
        else:
            want = special.softmax(logits.astype(np.float64) * found.scale + found.bias, axis=1)
        np.testing.assert_allclose(np.array(scores["probs"].to_pylist()), want, rtol=1e-6)
        (batch,) = batchmax.scan(source, calibration=file)
        assert batch["probs"].equals(scores["probs"].chunk(0))
        assert batchmax.evaluate(source, calibration=file).mean_loss == pytest.approx(
            float(np.mean(scores["loss"])), rel=1e-6
        )
        assert main(["verify", out, source]) == 0
        assert main(["score", source, "-o", out, "--calibration", file, "--if-exists", "resume"]) == 0
        assert main(["score", source, "-o", out, "--if-exists", "resume"]) == 1
        with pytest.raises(UsageError, match="score computed with a temperature"):
            batchmax.evaluate(out, calibration=file)
    capsys.readouterr()


def test_what_does_not_fit_together(tmp_path):
    """Contradictions raise an error.

    They are another number of classes, a temperature next to a calibration, an existing output, and a stream.
    """
    logits, labels = drawn(200)
    table, file = table_of(logits, labels), str(tmp_path / "c.json")
    batchmax.calibrate(table, file)
    with pytest.raises(UsageError, match="for 7 classes"):
        batchmax.score_batch(table_of(logits[:, :5], labels % 5).to_batches()[0], calibration=file)
    for given in ({"temperature": 2.0}, {"beta": 2.0}):
        with pytest.raises(UsageError):
            batchmax.score_options(calibration=file, **given)
    with pytest.raises(OutputError, match="exists"):
        batchmax.calibrate(table, file)
    batchmax.calibrate(table, file, if_exists="overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]
    for given, what in (
        ({"holdout": 1.0}, "share"),
        ({"label": "none"}, "labels"),
        ({"temperature": 2.0}, "temperature is fitted"),
        ({"method": "magic"}, "method"),
    ):
        with pytest.raises(UsageError, match=what):
            batchmax.calibrate(table, **given)
    with pytest.raises(DataError, match="no rows to fit to"):
        batchmax.calibrate(table_of(logits[:3], pa.array([None] * 3, pa.int64())))
    with pytest.raises(UsageError, match="once"):
        batchmax.calibrate(table.to_reader())


GOOD = {"n_classes": 2, "temperature": 2.0, "classes": None, "scale": None, "bias": None}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        "\xff",
        "[" * 100_000,
        json.dumps(GOOD | {"temperature": 0}),
        json.dumps(GOOD | {"temperature": "1"}),
        json.dumps(GOOD | {"temperature": math.nan}),
        json.dumps(GOOD | {"temperature": 10**400}),
        json.dumps(GOOD | {"n_classes": True}),
        json.dumps(GOOD | {"scale": [1.0, 1.0]}),
        json.dumps(GOOD | {"scale": [1.0, -1.0], "bias": [0, 0]}),
        json.dumps(GOOD | {"scale": [1.0], "bias": [0]}),
        json.dumps(GOOD | {"classes": ["a"]}),
        json.dumps({"n_classes": 2}),
    ],
)
def test_a_file_that_is_no_calibration_is_one_line(content, tmp_path, capsys):
    """Any file that isn't a calibration is a one-line error with exit code 2."""
    path = tmp_path / "c.json"
    path.write_bytes(content.encode("latin-1"))
    assert main(["score", str(DIGITS), "-o", str(tmp_path / "o.parquet"), "--calibration", str(path)]) == 2
    err = capsys.readouterr().err
    assert "--calibration" in err
    assert err.count("\n") == 1
    with pytest.raises(BatchmaxError):
        batchmax.score_options(calibration=str(tmp_path / "none.json"))


def test_the_command_says_what_it_found(tmp_path, capsys):
    """``calibrate`` prints the temperature and the option that applies the file; ``--json`` prints the whole result."""
    file = str(tmp_path / "c d.json")
    assert main(["calibrate", str(DIGITS), "-o", file]) == 0
    out = capsys.readouterr().out
    assert "temperature  0.985682" in out
    assert f"--calibration '{file}'" in out
    assert main(["calibrate", str(DIGITS), "-o", file, "--json", "--if-exists", "overwrite", "--method", "vector"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads(Path(file).read_text())["scale"] == found["scale"]
    assert found["classes"][0] == "zero"
