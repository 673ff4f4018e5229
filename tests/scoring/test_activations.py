"""``score --activation`` and ``--loss``: every pair against PyTorch, rows without an answer, and ``verify``."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.activations import ACTIVATIONS
from batchmax.cli.app import main
from batchmax.errors import BadRowError, DataError, OutputError, UsageError
from tests.support.activations import PAIRS, some_rows, torch_loss, torch_probs
from tests.support.paths import DATA
from tests.support.requirements import optional

torch = optional("torch")

DIGITS = str(DATA / "digits.parquet")
K = 9
OF_ANY = "probs,loss,status"
OF_CLASS = f"{OF_ANY},pred,rank,correct"
OF_DISTRIBUTIONS = f"{OF_CLASS},log_probs,confidence,margin,entropy,el2n,sample"
OF_INDEPENDENT = f"{OF_ANY},losses,preds"


def written(path, activation, dtype=np.float32, labels=None, n=300, **columns):
    """Write rows for which the activation has an answer; return the path, the logits and the labels."""
    logits = some_rows(K, activation, n).astype(dtype)
    labels = np.random.default_rng(5).integers(0, K, n) if labels is None else labels
    given = list(labels) if np.ndim(labels) == 2 else labels
    pq.write_table(pa.table({"logits": list(logits), "label": given, **columns}), path, row_group_size=70)
    return str(path), torch.from_numpy(logits.astype(np.float64)), labels


def scored(src, tmp_path, **given):
    out = str(tmp_path / "scored.parquet")
    summary = batchmax.score(src, out, if_exists="overwrite", **given)
    return out, pq.read_table(out), summary


def column(table, name):
    return np.array(table[name].to_pylist())


@pytest.mark.sweep(
    keep=lambda dtype, activation, loss: dtype == (np.float32, np.float64)[PAIRS.index((activation, loss)) % 2]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("activation", "loss"), PAIRS)
def test_every_pair_is_pytorchs_and_verifies(activation, loss, dtype, tmp_path):
    """Probabilities, losses, predictions, ranks and the summary match PyTorch; ``verify`` accepts every row."""
    src, z, labels = written(tmp_path / "a.parquet", activation, dtype)
    temperature = 1.7
    outputs = OF_DISTRIBUTIONS if ACTIVATIONS[activation].is_distribution else OF_INDEPENDENT
    out, table, summary = scored(
        src, tmp_path, activation=activation, loss=loss, temperature=temperature, outputs=outputs
    )
    x = z / temperature
    probs = torch_probs(x, z, activation).numpy()
    one_hot = torch.from_numpy(np.eye(K)[labels])
    losses = torch_loss(z, one_hot, activation, loss, temperature).numpy()
    tolerance = {"rtol": 4e-7 if dtype == np.float32 else 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(column(table, "probs"), probs, **tolerance)
    np.testing.assert_allclose(column(table, "loss"), losses, **tolerance)
    ordered = z.numpy() if activation == "sigmoid" else probs
    own = ordered[np.arange(len(z)), labels][:, None]
    if ACTIVATIONS[activation].is_distribution:
        assert (column(table, "pred") == ordered.argmax(1)).all()
        if activation != "argmax":  # under argmax, all classes but one have equal probabilities
            assert (column(table, "rank") == 1 + (ordered > own).sum(1)).all()
    else:
        assert table["preds"].to_pylist() == [np.flatnonzero(row > 0).tolist() for row in z.numpy()]
        np.testing.assert_allclose(column(table, "losses").sum(1), losses, **tolerance)
    assert summary.mean_loss == pytest.approx(losses.mean(), rel=1e-6)
    assert summary.accuracy == pytest.approx((ordered.argmax(1) == labels).mean())
    assert set(table["status"].to_pylist()) == {"ok"}
    if ACTIVATIONS[activation].is_distribution:
        np.testing.assert_allclose(np.exp(column(table, "log_probs")), probs, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(column(table, "confidence"), probs.max(1), **tolerance)
        np.testing.assert_allclose(column(table, "el2n"), np.linalg.norm(probs - one_hot.numpy(), axis=1), rtol=1e-6)
    found = batchmax.verify(out, inputs=[src], sample=300)
    assert found.sampled_rows == 300
    assert found.largest_errors["loss"]["ulp"] <= 3


@pytest.mark.parametrize(("activation", "loss"), [pair for pair in PAIRS if "hinge" not in pair[1]])
def test_targets(activation, loss, tmp_path):
    """Losses of soft targets, and of multi-hot targets under sigmoid, match PyTorch."""
    random = np.random.default_rng(3)
    targets = random.dirichlet(np.ones(K), 300)
    if activation == "sigmoid":
        targets = (random.random((300, K)) < 0.4).astype(float)
    targets = targets.astype(np.float32).astype(float)
    src, z, _ = written(tmp_path / "a.parquet", activation, labels=targets)
    out, table, summary = scored(src, tmp_path, activation=activation, loss=loss)
    want = torch_loss(z, torch.from_numpy(targets), activation, loss, 1.0).numpy()
    np.testing.assert_allclose(column(table, "loss"), want, rtol=1e-6)
    assert summary.bad_rows == 0
    assert batchmax.verify(out, inputs=[src], sample=300).largest_errors["loss"]["ulp"] <= 3


def test_the_likelihood_is_the_activations(tmp_path):
    """The log-likelihood depends on the activation, not on the loss.

    Under softmax it is the usual one, under sigmoid the sum over all classes, and under argmax null if a prediction is
    wrong.
    """
    src, z, labels = written(tmp_path / "a.parquet", "softmax")
    usual = batchmax.score(src, str(tmp_path / "u.parquet"))
    for loss in ("mse", "hinge"):
        _, _, summary = scored(src, tmp_path, loss=loss)
        assert summary.log_likelihood == pytest.approx(usual.log_likelihood, rel=1e-6)
        assert summary.perplexity == pytest.approx(usual.perplexity, rel=1e-6)
    want = torch_loss(z, torch.from_numpy(np.eye(K)[labels]), "sigmoid", "binary_cross_entropy", 1.0).sum()
    for loss in ("mse", "binary_cross_entropy"):
        _, _, summary = scored(src, tmp_path, activation="sigmoid", loss=loss)
        assert summary.log_likelihood == pytest.approx(-float(want), rel=1e-6)
    _, _, summary = scored(src, tmp_path, activation="argmax")
    assert (summary.log_likelihood, summary.perplexity, summary.infinite_losses) == (None, None, 0)


def test_class_weights_and_smoothing_go_with_cross_entropy(tmp_path):
    """Class weights and label smoothing work with cross-entropy under any activation that gives a distribution."""
    src, z, labels = written(tmp_path / "a.parquet", "taylor")
    weights = np.linspace(0.5, 2, K)
    given = {"activation": "taylor", "class_weights": weights.tolist(), "label_smoothing": 0.1}
    out, table, summary = scored(src, tmp_path, **given)
    logs = torch_probs(z, z, "taylor").log()
    want = torch.nn.functional.cross_entropy(
        logs, torch.from_numpy(labels), torch.from_numpy(weights), label_smoothing=0.1, reduction="none"
    )
    np.testing.assert_allclose(column(table, "loss"), want, rtol=1e-6)
    assert summary.mean_loss == pytest.approx(float(want.sum()) / weights[labels].sum(), rel=1e-6)
    assert batchmax.verify(out, inputs=[src], sample=300).largest_errors["loss"]["ulp"] <= 3


ODD = {
    "softmax": {},
    "argmax": {(math.nan, 1, 2): "nan_logit", (math.inf, 1, 2): "inf_logit", (-math.inf,) * 3: "all_masked"},
    "sigmoid": {(math.nan, 1, 2): "nan_logit", (math.inf, 1, 2): "ok", (-math.inf,) * 3: "masked_label"},
    "sum": {
        (math.nan, 1, 2): "nan_logit",
        (math.inf, 1, 2): "inf_logit",
        (-math.inf,) * 3: "all_masked",
        (-math.inf, 1, 2): "no_answer",
        (1, -1, 2): "no_answer",
        (1, -1e-30, 2): "no_answer",
        (0, 0, 0): "no_answer",
        (-1, -1, -2): "ok",
        (0, 1, 2): "masked_label",
        (1e308, 1e308, 1e308): "ok",
        None: "null_logits",
    },
    "taylor": {(math.nan, 1, 2): "nan_logit", (-math.inf, 1, 2): "no_answer", (1e300, -1e300, 5): "ok"},
    "spherical": {(0, 0, 0): "no_answer", (0, 1, 2): "masked_label", (1e-200, 1e-300, 1e-200): "ok"},
}


@pytest.mark.parametrize("activation", ODD)
def test_rows_without_an_answer_have_a_status(activation, tmp_path):
    """Rows without an answer have a status, null results, and are bad rows; ``verify`` accepts the output.

    A label of probability 0 has an infinite loss.
    """
    rows, wanted = [(1.0, 2.0, 3.0), *ODD[activation]], ["ok", *ODD[activation].values()]
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"logits": pa.array(rows, pa.list_(pa.float64())), "label": [0] * len(rows)}), path)
    given = {"activation": activation, "outputs": OF_ANY}
    out, table, summary = scored(path, tmp_path, on_bad_row="null", **given)
    assert table["status"].to_pylist() == wanted
    without = [one not in {"ok", "masked_label"} for one in wanted]
    for name in ("probs", "loss"):
        assert table[name].is_null().to_pylist() == without
    assert summary.bad_rows == sum(without)
    if "cross_entropy" in ACTIVATIONS[activation].losses[0]:
        infinite = [one == math.inf for one in table["loss"].to_pylist()]
        assert infinite == [one == "masked_label" for one in wanted]
    assert batchmax.verify(out, inputs=[path]).sampled_rows == len(rows)
    dropped, table, _ = scored(path, tmp_path, on_bad_row="drop", **given)
    assert len(table) == len(rows) - sum(without)
    batchmax.verify(dropped, inputs=[path])
    if "no_answer" in wanted:
        with pytest.raises(BadRowError, match=f"row {without.index(True)}"):
            scored(path, tmp_path, **given)
        batch = pa.record_batch({"logits": [[0.0, 0.0, 0.0] if activation != "taylor" else [-math.inf, 0.0, 0.0]]})
        with pytest.raises(BadRowError, match=f"{activation} is undefined for this row: "):
            batchmax.score_batch(batch, activation=activation)


def test_labels_are_odd_as_ever():
    """Ignored, missing and out-of-range labels have the same status under every activation.

    Under sigmoid, targets outside 0 to 1 are bad rows.
    """
    labels = pa.array([0, -100, None, 3, -1, 2])
    table = pa.table({"logits": [[1.0, 2.0, 3.0]] * 6, "label": labels})
    for activation in ACTIVATIONS:
        found = pa.Table.from_batches(
            batchmax.scan(table, activation=activation, outputs=OF_ANY, on_bad_row="null", ignore_index=-100)
        )
        assert found["status"].to_pylist() == ["ok", "ignored", "unlabelled", "bad_label", "bad_label", "ok"]
        assert found["loss"].is_null().to_pylist() == [False, True, True, True, True, False]
        assert found["probs"].null_count == 0
    bad = pa.table({"logits": [[1.0, 2.0]] * 4, "label": [[1.0, 1.0], [0.0, 0.0], [2.0, 0.0], [-0.5, 1.0]]})
    found = pa.Table.from_batches(
        batchmax.scan(bad, activation="sigmoid", outputs=OF_ANY.split(",")[:2], on_bad_row="null")
    )
    assert found["loss"].is_null().to_pylist() == [False, False, True, True]
    with pytest.raises(BadRowError, match="not 2 numbers from 0 to 1"):
        batchmax.scan(bad, activation="sigmoid").read_all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--activation", "sigmoid", "--loss", "cross_entropy"], "choose binary_cross_entropy, mse"),
        (["--activation", "softmin"], "softmin"),
        (["--loss", "binary_cross_entropy"], "'softmax' does not support loss"),
        (["--activation", "taylor", "--outputs", "logsumexp"], "taylor has no logsumexp"),
        (["--activation", "sigmoid", "--outputs", "entropy"], "sigmoid has no entropy"),
        (["--activation", "sigmoid", "--top-k", "2"], "sigmoid has no most probable classes"),
        (["--activation", "sum", "--input", "probs"], "not from probs"),
        (["--loss", "mse", "--label-smoothing", "0.1"], "loss mse supports neither class weights nor label smoothing"),
    ],
)
def test_what_makes_no_sense_is_refused(given, message, tmp_path, capsys):
    """Options that contradict the activation or loss exit with 2 before anything is written."""
    assert main(["score", DIGITS, "-o", str(tmp_path / "x.parquet"), *given]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_margin_needs_a_class(tmp_path):
    """Hinge loss needs class labels, so soft targets are rejected."""
    src, _, _ = written(tmp_path / "a.parquet", "softmax", labels=np.full((300, K), 1 / K))
    with pytest.raises(UsageError, match="hinge needs class labels"):
        batchmax.score(src, str(tmp_path / "o.parquet"), loss="hinge")


def test_the_usual_pair_by_name_is_the_default(tmp_path):
    """Naming softmax and cross-entropy gives the same bytes as the default.

    Another activation is another job for ``resume``, and its bytes don't depend on the number of threads.
    """
    one, other, sum_ = (str(tmp_path / name) for name in ("a.parquet", "b.parquet", "c.parquet"))
    batchmax.score(DIGITS, one)
    batchmax.score(DIGITS, other, activation="softmax", loss="cross_entropy")
    assert Path(one).read_bytes() == Path(other).read_bytes()
    with pytest.raises(OutputError, match="activation"):
        batchmax.score(DIGITS, one, activation="taylor", if_exists="resume")
    batchmax.score(DIGITS, other, activation="taylor", if_exists="overwrite", threads=1)
    batchmax.score(DIGITS, sum_, activation="taylor", threads=2, memory_limit="256MiB")
    assert Path(sum_).read_bytes() == Path(other).read_bytes() != Path(one).read_bytes()


def test_verify_sees_another_number(tmp_path):
    """``verify`` detects a loss, a rank or a prediction that doesn't follow from the activation."""
    src, _, _ = written(tmp_path / "a.parquet", "taylor")
    out, table, _ = scored(src, tmp_path, activation="taylor", loss="mse", outputs=OF_CLASS)
    metadata = table.schema.metadata
    for name, edit in (("loss", lambda x: x * 1.00001), ("rank", lambda x: x % K + 1), ("pred", lambda x: (x + 1) % K)):
        values = table[name].to_pylist()
        values[7] = edit(values[7])
        place = table.schema.get_field_index(name)
        damaged = table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
        pq.write_table(damaged.replace_schema_metadata(metadata), out, write_page_checksum=True)
        with pytest.raises(DataError, match=name):
            batchmax.verify(out, inputs=[src], sample=300)


def test_what_looks_at_models_wants_softmax(tmp_path):
    """``evaluate`` rejects activations but softmax and sigmoid, and reads files that were scored with any.

    It computes cross-entropy even if the file's loss column holds another loss.
    """
    with pytest.raises(UsageError, match="only softmax and sigmoid, and their cross-entropy"):
        batchmax.evaluate(DIGITS, activation="taylor")
    src, _, _ = written(tmp_path / "a.parquet", "taylor")
    plain, _, want = scored(src, tmp_path, activation="taylor")
    assert batchmax.evaluate(plain).mean_loss == pytest.approx(want.mean_loss, rel=1e-6)
    squared, _, _ = scored(src, tmp_path, activation="taylor", loss="mse")
    assert batchmax.evaluate(squared).mean_loss == pytest.approx(want.mean_loss, rel=1e-5)


def test_several_right_classes_at_once_in_a_command(tmp_path, capsys):
    """The command line accepts multi-hot targets under sigmoid."""
    src, _, _ = written(tmp_path / "a.parquet", "sigmoid", labels=np.eye(K)[np.zeros(300, int)] + np.eye(K)[[3] * 300])
    assert main(["score", src, "-o", str(tmp_path / "o.parquet"), "--activation", "sigmoid", "--json"]) == 0
    assert '"bad_rows": 0' in capsys.readouterr().out
