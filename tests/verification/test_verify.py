"""Tests that ``verify`` accepts every correct output."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from tests.support.paths import DATA
from tests.support.rows import lists, rows_of_every_status, some_logits
from tests.support.scored_outputs import ALL_OUTPUTS, write_rows

OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"class_weights": [0.5, 2, 1, 0, 1, 3], "temperature": 0.7, "prefix": "b_", "compression": "zstd"},
]


@pytest.mark.parametrize("layout", ["list", "fixed", "wide"])
@pytest.mark.parametrize(
    ("computed", "dtype"), list(itertools.product(["f2", "f4", "f8"], ["float16", "float32", "float64"]))
)
def test_correct_outputs_pass(tmp_path, out, computed, dtype, layout):
    """Outputs of every type and layout are consistent, and every row is within 3 ULP of the exact values."""
    logits = write_rows(tmp_path / "logits.parquet", 30, np.dtype(computed))
    for given in OPTIONS:
        batchmax.score(
            logits, out, outputs=ALL_OUTPUTS, layout=layout, dtype=dtype, top_k=3, if_exists="overwrite", **given
        )
        found = batchmax.verify(out, logits, sample=30)
        assert found.sampled_rows == found.n_rows == 30
        errors = {name: error["ulp"] for name, error in found.largest_errors.items()}
        rough = {"margin", "entropy", "el2n"}
        assert errors.keys() == rough | {"probs", "log_probs", "loss", "confidence", "logsumexp", "top_k_probs"}
        assert 0 < max(errors[name] for name in errors.keys() - rough) <= 3
        assert 0 < max(errors[name] for name in rough) <= 32
        against = {"probs": ["log_probs"], "correct": ["pred", "rank"], "log_probs": [], "logsumexp": [], "status": []}
        assert found.compared == {name: against.get(name, ["probs"]) for name in found.outputs}
        assert found.notes == []


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_every_codec_passes(logits, out, codec):
    """Pages of every codec are decoded and checked."""
    batchmax.score(logits, out, compression=codec)
    assert batchmax.verify(out, logits).pages >= 4 * 3


@pytest.mark.parametrize("policy", ["null", "drop"])
@pytest.mark.parametrize("name", ["scored.parquet", "scored"])
@pytest.mark.parametrize("outputs", [ALL_OUTPUTS, "probs,loss", "loss", "probs", "status", "log_probs,loss", "rank"])
def test_bad_rows_pass_under_each_policy(tmp_path, policy, name, outputs):
    """Null and dropped rows are verified against their logits and labels; kept rows are matched to their inputs."""
    rows, labels, _ = rows_of_every_status()
    source, out = tmp_path / "odd.parquet", str(tmp_path / name)
    table = pa.table({"id": range(56), "logits": pa.array(rows * 2, pa.list_(pa.float32())), "label": labels * 2})
    pq.write_table(table, source, row_group_size=9)
    again = shutil.copy(source, tmp_path / "again.parquet")
    summary = batchmax.score([source, again], out, on_bad_row=policy, outputs=outputs, top_k=2, limit=100)
    found = batchmax.verify(out, [source, again], sample=100)
    dropped = summary.bad_rows if policy == "drop" else 0
    assert found.n_rows == found.sampled_rows == 100 - dropped
    assert any("dropped" in note for note in found.notes) == bool(dropped)
    if name == "scored":
        assert {"n_rows", "n_classes"} <= set(found.summary)
        assert ("status_counts" in found.summary) == ("status" in outputs)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *((f"layouts/digits_{name}", {}) for name in ("fixed", "large_list", "list_int", "spark", "tensor", "wide")),
        ("layouts/digits_nested", {"logits": "outputs.logits"}),
        ("layouts/digits_bfloat16", {"logits_dtype": "bfloat16"}),
        ("layouts/digits_binary", {"logits_dtype": "float32"}),
        *((f"labels/digits_{name}", {"classes": DATA / "labels/classes.txt"}) for name in ("string", "dictionary")),
        ("labels/digits_distribution", {"class_weights": list(range(10)), "label_smoothing": 0.2}),
    ],
)
def test_metadata_says_how_to_read_the_inputs(out, name, given):
    """The output's metadata says how to read its inputs, so only their paths are needed."""
    source = DATA / f"{name}.parquet"
    batchmax.score(source, out, **given)
    found = batchmax.verify(out, source)
    assert found.sampled_rows == 20
    assert found.compared["loss"] == ["probs"]
    assert 0 < found.unchecked_pages < found.pages  # carried columns are copied without checksums


@pytest.mark.parametrize("kind", ["probs", "log_probs"])
def test_probabilities_as_inputs_pass(tmp_path, out, kind):
    """Outputs from probabilities, or their logarithms, are recomputed from those."""
    probs = np.random.default_rng(1).dirichlet(np.ones(5), 40)
    values = probs.astype(np.float32) if kind == "probs" else np.log(probs)
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"given": lists(values), "label": np.arange(40) % 5}), source)
    batchmax.score(source, out, input=kind, temperature=0.6)
    assert batchmax.verify(out, source, sample=40).largest_errors["loss"]["ulp"] <= 3


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["score_cat", "score_dog", "score_cow"], "score_*"),
        (["logit_10", "logit_11", "logit_12"], None),
        (["p 0 q", "p 1 q", "p 2 q"], "p * q"),
    ],
)
def test_wide_logits_are_found_from_metadata(tmp_path, out, names, pattern):
    """The columns of wide logits are known from the output's metadata."""
    rng = np.random.default_rng(0)
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({name: rng.standard_normal(30) for name in names}), source)
    batchmax.score(source, out, logits=pattern)
    assert batchmax.verify(out, source).sampled_rows == 20
    if pattern:
        assert batchmax.verify(out, source, logits=pattern).sampled_rows == 20


def test_labels_that_count_from_1_need_the_inputs(tmp_path, out):
    """Numbers as class names are ambiguous in the output; a note says so, and the inputs resolve it."""
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"logits": lists(some_logits(30, 3)), "label": np.arange(30) % 3 + 1}), source)
    batchmax.score(source, out, classes="1,2,3")
    alone = batchmax.verify(out)
    assert alone.compared["loss"] == []
    assert "name the inputs" in alone.notes[0]
    found = batchmax.verify(out, source)
    assert found.compared["loss"] == ["probs"]
    assert found.notes == []


def test_losses_without_labels_are_checked_by_themselves(logits, out):
    """If the label column wasn't carried, losses are checked only by themselves, and a note names the column."""
    batchmax.score(logits, out, columns="id")
    found = batchmax.verify(out)
    assert found.compared["loss"] == []
    assert "'label'" in found.notes[0]
    assert batchmax.verify(out, logits).largest_errors.keys() == {"probs", "loss"}


def test_an_output_of_a_stream_is_compared_by_its_rows(logits, out):
    """An output of a stream has no fingerprints of inputs, but can be compared with the file."""
    batchmax.score(pq.read_table(logits), out)
    assert "stream" in batchmax.verify(out, logits).notes[0]


@pytest.mark.parametrize("name", ["scored.parquet", "scored"])
def test_an_output_without_rows_passes(tmp_path, name):
    """An output without rows passes."""
    source = write_rows(tmp_path / "in.parquet", 0)
    out = str(tmp_path / name)
    batchmax.score(source, out, n_classes=3)
    found = batchmax.verify(out, source)
    assert (found.n_rows, found.sampled_rows) == (0, 0)


def test_outputs_written_by_pyarrow_pass(logits, out, monkeypatch):
    """Outputs that pyarrow writes have checksums on all pages as well."""
    monkeypatch.setenv("BATCHMAX_PARQUET", "pyarrow")
    batchmax.score(logits, out, outputs=ALL_OUTPUTS)
    assert batchmax.verify(out, logits).unchecked_pages == 0


def test_the_seed_chooses_the_rows(logits, out, monkeypatch):
    """The same seed selects the same rows, and another seed others."""
    batchmax.score(logits, out)
    chosen = []
    monkeypatch.setattr(
        "batchmax.verification.recompute.Recomputation.check", lambda _, numbers: chosen.append(list(numbers))
    )
    for seed in (1, 1, 2):
        batchmax.verify(out, logits, seed=seed)
    assert chosen[0] == chosen[1] != chosen[2]
    assert [len(set(numbers)) for numbers in chosen] == [20] * 3


def test_result_converts_to_json_and_html(logits, out):
    """The result converts to one line of JSON and to HTML."""
    batchmax.score(logits, out)
    found = batchmax.verify(out, logits)
    assert json.loads(found.to_json()) == found.as_dict()
    assert "sampled_rows" in found._repr_html_()


@pytest.mark.parametrize("size", [1, 700, 1 << 20])
def test_batch_size_does_not_matter(all_outputs, monkeypatch, size):
    """For batches of any size, each row is compared with its own input."""
    monkeypatch.setattr("batchmax.sources.row_lookup.BATCH_BYTES", size)
    logits, scored = all_outputs
    for number in range(3):
        assert batchmax.verify(scored, logits, sample=9, seed=number).sampled_rows == 9


def test_entropies_near_the_smallest_number_are_accepted(tmp_path):
    """The entropy of a row is as accurate as its exponentials, which may be subnormal."""
    gaps = np.random.default_rng(0).uniform(690, 745, (50, 6))
    gaps[:, 0] = 0.0
    pq.write_table(pa.table({"logits": list(-gaps)}), tmp_path / "z.parquet")
    batchmax.score(str(tmp_path / "z.parquet"), str(tmp_path / "out.parquet"), outputs="entropy")
    batchmax.verify(str(tmp_path / "out.parquet"), str(tmp_path / "z.parquet"))
