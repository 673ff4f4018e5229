"""``score`` of multi-label rows: layouts, files, folders, streams and shards, and ``verify`` of the outputs."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import BadRowError, DataError, OutputError, UsageError
from batchmax.jobs.plan import Plan, run_part
from batchmax.jobs.stage import ONE_LABEL
from batchmax.options.score_options import score_options
from batchmax.sinks.commit.staging import PartFolder
from batchmax.sources.parquet_source import ParquetSource

K, N = 5, 1500
ALL = "probs,loss,losses,preds,status"
RANDOM = np.random.default_rng(11)
Z = (RANDOM.standard_normal((N, K)) * 4).astype(np.float32)
Y = (1 / (1 + np.exp(-Z)) > RANDOM.random((N, K))).astype(int)
LOSSES = np.logaddexp(0, np.where(Y == 1, -1, 1) * Z.astype(np.float64))
KHOT = [row.tolist() for row in Y]
INDICES = [np.flatnonzero(row).tolist() for row in Y]
NAMES = ("ant", "bee", "cat", "dog", "emu")


def rows(labels, **more):
    logits = pa.array(list(Z), pa.list_(pa.float32()))
    return pa.table({"id": range(N), "logits": logits, "labels": pa.array(labels), **more})


def write(path, table, row_group_size=400):
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return str(path)


def values(table, name):
    return np.array(table[name].to_pylist(), dtype=np.float64)


def verified(out, inputs, sample=100):
    """Verify an output, alone or with its inputs."""
    return batchmax.verify(out, inputs=inputs, **({"sample": sample} if inputs else {}))


LABELS = {
    "K-hot": (KHOT, {}),
    "bool": ([row.astype(bool).tolist() for row in Y], {}),
    "fixed": (pa.array(KHOT, pa.list_(pa.int8(), K)), {}),
    "indices": (INDICES, {}),
    "names": ([[NAMES[index] for index in row] for row in INDICES], {"classes": NAMES}),
    "floats": (pa.array(KHOT, pa.list_(pa.float32())), {"activation": "sigmoid"}),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("layout", ["list", "fixed", "wide"])
def test_every_kind_of_label_in_every_layout(kind, layout, tmp_path):
    """Losses, their sums and predictions are the same for all kinds; ``verify`` recomputes them."""
    labels, given = LABELS[kind]
    src, out = write(tmp_path / "a.parquet", rows(labels)), str(tmp_path / "o.parquet")
    summary = batchmax.score(src, out, outputs=ALL, layout=layout, **given)
    table = pq.read_table(out)
    named = dict(enumerate(given.get("classes", range(K))))
    assert table["preds"].to_pylist() == [[named[index] for index in np.flatnonzero(row > 0)] for row in Z]
    np.testing.assert_allclose(values(table, "loss"), LOSSES.sum(1), rtol=1e-6)
    if layout == "wide":
        losses = np.stack([values(table, f"loss_{index}") for index in range(K)], axis=1)
    else:
        losses = values(table, "losses")
    np.testing.assert_allclose(losses, LOSSES, rtol=3e-7)
    assert summary.mean_loss == pytest.approx(LOSSES.sum(1).mean())
    assert (summary.accuracy, summary.bad_rows, summary.warnings) == (None, 0, [])
    for inputs in ((), [src]):
        found = verified(out, inputs)
        assert "losses" in found.compared["loss"] or layout == "wide"
    assert max(found.largest_errors[name]["ulp"] for name in ("loss", "losses", "probs")) <= 3


def test_columns_of_classes_are_labels(tmp_path):
    """One column of labels per class is read with one column of logits per class, and carried to the output."""
    columns = {f"logit_{name}": Z[:, at] for at, name in enumerate(NAMES)}
    columns |= {f"label_{name}": pa.array(Y[:, at].astype(bool)) for at, name in reversed(list(enumerate(NAMES)))}
    src, out = write(tmp_path / "a.parquet", pa.table(columns)), str(tmp_path / "o.parquet")
    batchmax.score(src, out, label="label_*", outputs=ALL)
    table = pq.read_table(out)
    np.testing.assert_allclose(values(table, "loss"), LOSSES.sum(1), rtol=1e-6)
    np.testing.assert_allclose(values(table, "loss_cat"), LOSSES[:, 2], rtol=3e-7)
    assert {f"label_{name}" for name in NAMES} <= set(table.column_names)
    assert batchmax.verify(out, inputs=[src], sample=50).sampled_rows == 50
    assert "probs" in batchmax.verify(out).compared["loss"]


def test_missing_labels_count_nowhere(tmp_path):
    """A class without a label has a null loss; a row without any is unlabelled; a bad one is a bad row."""
    labels = [list(row) for row in KHOT]
    labels[0], labels[1], labels[2], labels[3] = [1, None, 0, -100, 1], None, [None] * K, [1, 0]
    src, out = write(tmp_path / "a.parquet", rows(labels)), str(tmp_path / "o.parquet")
    with pytest.raises(BadRowError, match=r"row 3.*2 labels, not one for each of the 5 classes.*label-format indices"):
        batchmax.score(src, out, label_format="khot")
    for layout in ("list", "fixed", "wide"):
        batchmax.score(src, out, label_format="khot", outputs=ALL, on_bad_row="null", layout=layout,
                       if_exists="overwrite")  # fmt: skip
        table = pq.read_table(out)
        assert table["status"].to_pylist()[:5] == ["ok", "unlabelled", "unlabelled", "bad_label", "ok"]
        assert table["loss"].is_null().to_pylist()[:5] == [False, True, True, True, False]
        if layout != "wide":
            first = table["losses"][0].as_py()
            assert [one is None for one in first] == [False, True, False, True, False]
            assert table["loss"][0].as_py() == pytest.approx(sum(one for one in first if one is not None), rel=1e-6)
            assert table["losses"].is_null().to_pylist()[:4] == [False, True, True, True]
        assert batchmax.verify(out, inputs=[src], sample=N).sampled_rows == N
        batchmax.verify(out)


@pytest.mark.parametrize("kind", ["list", "wide"])
@pytest.mark.parametrize(("name", "with_inputs"), [("loss", False), ("losses", False), ("preds", False), ("loss", True),
                                                   ("losses", True)])  # fmt: skip
def test_verify_sees_a_changed_number(kind, name, with_inputs, tmp_path):
    """``verify`` detects a loss or a prediction that was changed, also without the inputs."""
    src, out = write(tmp_path / "a.parquet", rows(KHOT)), str(tmp_path / "o.parquet")
    outputs = "loss,losses" if with_inputs else ALL
    batchmax.score(src, out, outputs=outputs, layout=kind)
    inputs = [src] if with_inputs else ()
    verified(out, inputs, N)
    table = pq.read_table(out)
    largest = int(LOSSES[7].argmax())
    column = f"loss_{largest}" if (name, kind) == ("losses", "wide") else name
    changed, place = table[column].to_pylist(), table.schema.get_field_index(column)
    if name == "preds":
        changed[7] = changed[7][1:] if changed[7] else [0]
    elif column == "losses":
        changed[7][largest] *= 1.00001
    else:
        changed[7] *= 1.00001
    field = table.schema.field(place)
    damaged = table.set_column(place, field, pa.array(changed, field.type))
    pq.write_table(damaged, out, write_page_checksum=True)
    with pytest.raises(DataError, match=r"loss|preds"):
        verified(out, inputs, N)


@pytest.mark.parametrize("labels", [KHOT, INDICES], ids=["K-hot", "indices"])
def test_the_choice_does_not_depend_on_how_rows_are_read(labels, tmp_path):
    """Files with any row groups, streams with any batches, folders, shards and threads read labels alike."""
    table = rows(labels)
    want = batchmax.scan(table, outputs="loss").read_all()["loss"].to_pylist()
    for size in (7, 400, N):
        src = write(tmp_path / f"{size}.parquet", table, size)
        out = tmp_path / f"o{size}.parquet"
        summary = batchmax.score(src, out, outputs="loss", threads=1)
        assert pq.read_table(out)["loss"].to_pylist() == want
        stream = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=size))
        assert batchmax.scan(stream, outputs="loss").read_all()["loss"].to_pylist() == want
        metadata = json.loads(pq.read_schema(out).metadata[b"batchmax"])
        assert metadata["options"]["label_format"] == ("khot" if labels is KHOT else "indices")
        assert any("as in the first 1,000 rows" in note for note in summary.notes)
    folder = tmp_path / "in"
    for number in range(3):
        write(folder / f"{number}.parquet", table.slice(number * 500, 500), 100)
    for shard in ("1/2", "0/2"):
        batchmax.score(str(folder), tmp_path / "out", outputs="loss", shard=shard)
    batchmax.score(str(folder), tmp_path / "out", outputs="loss", if_exists="resume")
    assert pq.read_table(tmp_path / "out")["loss"].to_pylist() == want


def test_parts_of_a_plan_have_the_format_of_the_whole(tmp_path):
    """A part that is computed elsewhere reads its lists as the first rows of all files decide."""
    folder = tmp_path / "in"
    write(folder / "0.parquet", rows(KHOT).slice(0, 1000))
    write(folder / "1.parquet", rows([[1]] * N).slice(0, 10))
    for name in ("making", "output"):
        (tmp_path / "w" / name).mkdir(parents=True)
    options = score_options(outputs="loss,status", on_bad_row="null", pos_weight=[2.0] * K)
    plan = Plan.from_json(json.dumps(Plan.of(ParquetSource([str(folder)], options)).as_dict()))
    for number, status in enumerate(["ok", "bad_label"]):
        run_part(plan, number, PartFolder(tmp_path / "w"))
        part = pq.read_table(tmp_path / "w" / "output" / f"part-0000{number}.parquet")
        assert set(part["status"].to_pylist()) == {status}
    batchmax.score(str(folder), tmp_path / "o", options)
    assert pq.read_table(tmp_path / "o")["status"].to_pylist() == ["ok"] * 1000 + ["bad_label"] * 10


def test_rows_without_labels_do_not_decide(tmp_path):
    """If the first row groups or batches have no labels, the next ones decide."""
    table = rows([None] * 500 + INDICES[500:])
    src = write(tmp_path / "a.parquet", table, 7)
    want = batchmax.scan(table, outputs="loss,status").read_all().select(["loss", "status"])
    assert set(want["status"].to_pylist()) == {"ok", "unlabelled"}
    stream = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=7))
    for source in (src, stream):
        found = batchmax.scan(source, outputs="loss,status").read_all()
        assert found["loss"].to_pylist() == want["loss"].to_pylist()


def test_another_format_is_another_job(tmp_path):
    """Resuming with the format that was chosen is the same job, with the other one it isn't."""
    src, out = write(tmp_path / "a.parquet", rows(INDICES)), str(tmp_path / "o.parquet")
    batchmax.score(src, out, outputs="loss")
    batchmax.score(src, out, outputs="loss", label_format="indices", if_exists="resume")
    with pytest.raises(OutputError, match="label_format"):
        batchmax.score(src, out, outputs="loss", label_format="khot", on_bad_row="null", if_exists="resume")


def test_weights_are_those_of_pytorch(tmp_path):
    """Class weights and positive weights change the losses; the mean loss isn't divided by them; ``verify`` agrees."""
    weights, pos_weight = RANDOM.uniform(0.2, 3, (2, K)).round(3)
    src, out = write(tmp_path / "a.parquet", rows(KHOT)), str(tmp_path / "o.parquet")
    files = [tmp_path / "w.txt", tmp_path / "p.csv"]
    files[0].write_text("\n".join(map(str, weights)))
    files[1].write_text("\n".join(f"{name},{one}" for name, one in zip(NAMES, pos_weight, strict=True)))
    words = ["--class-weights", str(files[0]), "--pos-weight", str(files[1]), "--classes", ",".join(NAMES)]
    assert main(["score", src, "-o", out, "--outputs", ALL, "-q", *words]) == 0
    want = LOSSES * weights * np.where(Y == 1, pos_weight, 1)
    table = pq.read_table(out)
    np.testing.assert_allclose(values(table, "losses"), want, rtol=4e-7)
    summary = json.loads(pq.read_metadata(out).metadata[b"batchmax.summary"])
    assert summary["mean_loss"] == pytest.approx(want.sum(1).mean(), rel=1e-6)
    assert summary["log_likelihood"] == pytest.approx(-LOSSES.sum(), rel=1e-6)
    for inputs in ((), [src]):
        verified(out, inputs)


def test_infinite_logits_are_valid():
    """+-inf is a probability of 1 or 0; a loss of +inf is masked_label, and NaN is nan_logit."""
    z = [[math.inf, -math.inf, 0.0], [math.inf, 0.0, 0.0], [math.nan, 0.0, 0.0], [-math.inf] * 3]
    table = pa.table({"logits": z, "labels": [[1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]]})
    found = batchmax.score_batch(table, outputs=ALL, on_bad_row="null").to_pylist()
    assert [row["status"] for row in found] == ["ok", "masked_label", "nan_logit", "ok"]
    assert [row["loss"] for row in found] == [pytest.approx(math.log(2)), math.inf, None, 0.0]
    assert found[1]["losses"] == [math.inf, pytest.approx(math.log(2)), pytest.approx(math.log(2))]
    assert [row["preds"] for row in found] == [[0], [0], None, []]


def test_float64_losses_keep_their_digits():
    """In float64, a loss of exp(-40) isn't rounded to 0."""
    table = pa.table({"logits": [[-40.0, -41.0, -42.0]], "labels": [[False, False, False]]})
    loss = batchmax.score_batch(table, outputs="loss")["loss"][0].as_py()
    assert loss == pytest.approx(sum(math.exp(-one) for one in (40, 41, 42)), rel=1e-15)


def test_one_label_in_every_row_is_a_warning(tmp_path):
    """If every row has exactly one label, the rows may have one class each."""
    table = rows([[index % K] for index in range(N)])
    assert batchmax.score(table, tmp_path / "a.parquet").warnings == [ONE_LABEL]
    table = rows([[index % K] for index in range(N - 1)] + [[]])
    assert batchmax.score(table, tmp_path / "b.parquet").warnings == []
    src = write(tmp_path / "in" / "a.parquet", rows([[index % K] for index in range(N)]))
    assert batchmax.score([src], tmp_path / "folder").warnings == [ONE_LABEL]


@pytest.mark.parametrize(
    ("labels", "given", "message"),
    [
        ([[1, 2], [7]], {}, "label 7 is not a class: valid labels are 0 to 4; .*--label-format khot"),
        ([[3], [2, 2]], {}, "label 2 is listed twice"),
        ([["ant"], ["bea"]], {"classes": NAMES}, "label 'bea' is not a class name; did you mean 'bee'"),
        ([["ant"], ["ant", "ant"]], {"classes": NAMES}, "label 'ant' is listed twice"),
        ([[1, 0, 1, 0, 0], [1, 0, 1, 0, 2]], {"label_format": "khot"}, "label 2 at class 4 is not 0 or 1"),
        ([[True] * 5, [True] * 4], {}, "4 labels, not one for each of the 5 classes"),
        ([[0.5] * 5, [1.5] * 5], {"activation": "sigmoid"}, "the labels are not 5 numbers from 0 to 1"),
    ],
)
def test_a_bad_row_says_which_label(labels, given, message):
    """The error of a bad row names the label, and the option if the format may be wrong."""
    table = rows([labels[0]] * (N - 1) + [labels[1]])
    with pytest.raises(BadRowError, match=f"row 1,499.*{message}"):
        batchmax.scan(table, **given).read_all()


def test_dry_run_lists_the_columns(tmp_path):
    """``--dry-run`` decides the format as a run does, and lists the columns."""
    src = write(tmp_path / "a.parquet", rows(INDICES))
    assert main(["score", src, "-o", str(tmp_path / "o.parquet"), "--outputs", ALL, "--dry-run", "--json"]) == 0
    assert not (tmp_path / "o.parquet").exists()


def test_show_and_inspect(tmp_path, capsys):
    """``show`` prints the sigmoid, the label and the loss of each class; ``inspect`` says what the labels are."""
    src = write(tmp_path / "a.parquet", rows(KHOT))
    assert main(["show", src, "--row", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"] == KHOT[3]
    assert found["label"] is None
    np.testing.assert_allclose(found["scores"][0]["losses"], LOSSES[3], rtol=3e-7)
    assert main(["show", src, "--row", "3"]) == 0
    out = capsys.readouterr().out
    assert "sigmoid" in out
    assert "softmax" not in out
    assert main(["inspect", src]) == 0
    assert "multi-label, K-hot" in capsys.readouterr().out


def test_report_refuses_them(tmp_path):
    """The message says what to do."""
    src = write(tmp_path / "a.parquet", rows(KHOT))
    with pytest.raises(UsageError, match=r"--label: multi-label rows .*one class per row.*batchmax evaluate"):
        batchmax.report(src, tmp_path / "r.html")
