"""Mean losses of sequences against PyTorch in float64, and outputs of tokens against exact arithmetic."""

from decimal import Decimal, localcontext

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from tests.support.paths import DATA
from tests.support.requirements import package


def random_sequences(k, spread, lengths=(40, 1, 7, 2, 90)):
    rng = np.random.default_rng(k)
    n = sum(lengths)
    offsets = np.cumsum([0, *lengths])
    values = pa.array((rng.standard_normal(n * k) * spread).astype(np.float32))
    tokens = pa.ListArray.from_arrays(pa.array(np.arange(n + 1) * k, pa.int32()), values)
    ids = pa.array(rng.integers(0, k, n), pa.int64())
    return pa.table(
        {
            "logits": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), tokens),
            "ids": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), ids),
        }
    )


def torch_means(table):
    """Return the mean loss of each sequence from PyTorch in float64: position t against id t + 1."""
    torch = package("torch")
    F = torch.nn.functional

    means = []
    for row in table.select(["logits", "ids"]).to_pylist():
        z = torch.tensor(row["logits"], dtype=torch.float64)
        ids = torch.tensor(row["ids"])
        means.append(None if len(ids) < 2 else F.cross_entropy(z[:-1], ids[1:]).item())
    return means


def ulps(found, wanted):
    """Return the distance of two numbers in units in the last place of float32."""
    return abs(found - wanted) / float(np.spacing(np.float32(abs(wanted))))


@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("k", [2, 10, 1000, 50_257])
def test_means_are_those_of_pytorch(tmp_path, k, spread):
    """The mean loss of each sequence agrees with PyTorch to 3 float32 ULP, for any number of classes and any spread."""
    table = random_sequences(k, spread, (40, 1, 7, 2, 90) if k < 50_000 else (6, 1, 3))
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", label="ids", shift=True, outputs="loss")
    found = pq.read_table(tmp_path / "out.parquet")["mean_loss"].to_pylist()
    for one, wanted in zip(found, torch_means(table), strict=True):
        assert (one is None) == (wanted is None)
        assert one is None or ulps(one, wanted) <= 3


def test_means_of_a_language_model_are_those_of_pytorch(tmp_path):
    """The mean losses of a model of real text agree with PyTorch to 3 float32 ULP, for lines that it hasn't seen."""
    table = pq.read_table(DATA / "sequences.parquet")
    batchmax.score(DATA / "sequences.parquet", tmp_path / "out.parquet", label="ids", shift=True, outputs="loss")
    found = pq.read_table(tmp_path / "out.parquet")["mean_loss"].to_pylist()
    wanted = torch_means(table)
    assert len(found) == 19
    assert max(ulps(one, other) for one, other in zip(found, wanted, strict=True)) <= 3
    assert 2.9 < np.mean(found) < 3.6  # nats per character, typical of a model that has learned some English


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spread", [1.0, 20.0])
def test_tokens_are_exact(tmp_path, dtype, spread):
    """Losses, log-probabilities of the top classes, and tail_mass are within 3 ULP of the exact values."""
    k, kept = 200, 5
    table = random_sequences(k, spread, (6, 3))
    pq.write_table(table, tmp_path / "in.parquet")
    given = {"label": "ids", "outputs": "loss", "top_k": kept, "dtype": dtype}
    batchmax.score(tmp_path / "in.parquet", tmp_path / "out.parquet", **given)
    unit = np.dtype(dtype).type
    with localcontext() as context:
        context.prec = 50
        for row, found in zip(table.to_pylist(), pq.read_table(tmp_path / "out.parquet").to_pylist(), strict=True):
            for token, (z, label) in enumerate(zip(row["logits"], row["ids"], strict=True)):
                powers = [Decimal(one).exp() for one in z]
                total = sum(powers)
                order = found["top_k_classes"][token]
                wanted = [total.ln() - Decimal(z[label]), sum(powers[j] for j in range(k) if j not in order) / total]
                got = [found["losses"][token], found["tail_mass"][token]]
                wanted += [Decimal(z[j]) - total.ln() for j in order]
                got += found["top_k_log_probs"][token]
                for one, exact in zip(got, wanted, strict=True):
                    off = abs(Decimal(float(one)) - exact) / Decimal(float(np.spacing(unit(abs(float(exact))))))
                    assert off <= 3, (row, token)
