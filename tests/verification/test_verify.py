"""``verify`` accepts every correct output of ``score``, and refuses damaged or changed ones."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import BatchmaxError, DataError, UsageError
from tests.support import oracle
from tests.support.paths import DATA
from tests.support.rows import lists, odd_rows, some_logits

EVERYTHING = "probs,log_probs,loss,pred,confidence,margin,entropy,logsumexp,rank,correct,el2n,status"
K = 6


def written(path, n=60, dtype=np.float32, groups=25, **columns):
    """Write rows of K classes with every tenth label ignored, and return the path."""
    logits = some_logits(n, K, dtype)
    labels = np.where(np.arange(n) % 10 == 7, -100, np.arange(n) % K)
    table = pa.table({"id": range(n), "logits": lists(logits), "label": labels, **columns})
    pq.write_table(table, path, row_group_size=groups)
    return str(path)


@pytest.fixture
def logits(tmp_path):
    return written(tmp_path / "logits.parquet")


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "scored.parquet")


def change(path, **columns):
    """Rewrite a scored file with changed columns, correct checksums and the same metadata."""
    table = pq.read_table(path)
    for name, edit in columns.items():
        place = table.schema.get_field_index(name)
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(edit(table.column(name).to_pylist()), field.type))
    pq.write_table(table, path, row_group_size=25, write_page_checksum=True)


def put(row, value, at=None):
    """Return an edit that replaces the value of one row, or one number in its list."""

    def edit(values):
        if at is None:
            values[row] = value(values[row]) if callable(value) else value
        else:
            values[row][at] = value(values[row][at]) if callable(value) else value
        return values

    return edit


def swap(first, second):
    def edit(values):
        values[first], values[second] = values[second], values[first]
        return values

    return edit


def refused(file, *inputs, **options):
    """Return the one-line error with which the output is refused."""
    with pytest.raises(DataError) as caught:
        batchmax.verify(file, list(inputs), **options)
    assert caught.value.exit_code == 1
    assert caught.value.where
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Correct outputs


WAYS = [
    {},
    {"label_smoothing": 0.1},
    {"class_weights": [0.5, 2, 1, 0, 1, 3], "temperature": 0.7, "prefix": "b_", "compression": "zstd"},
]


@pytest.mark.parametrize("layout", ["list", "fixed", "wide"])
@pytest.mark.parametrize(
    ("computed", "dtype"), list(itertools.product(["f2", "f4", "f8"], ["float16", "float32", "float64"]))
)
def test_what_score_writes_passes(tmp_path, out, computed, dtype, layout):
    """Outputs of every type and layout are consistent, and every row is within 3 ULP of the exact values."""
    logits = written(tmp_path / "logits.parquet", 30, np.dtype(computed))
    for given in WAYS:
        batchmax.score(
            logits, out, outputs=EVERYTHING, layout=layout, dtype=dtype, top_k=3, if_exists="overwrite", **given
        )
        found = batchmax.verify(out, logits, sample=30)
        assert found.sampled_rows == found.n_rows == 30
        measured = {"probs", "log_probs", "loss", "confidence", "logsumexp", "top_k_probs"}
        assert found.largest_errors.keys() == measured
        assert 0 < max(error["ulp"] for error in found.largest_errors.values()) <= 3
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
@pytest.mark.parametrize("outputs", [EVERYTHING, "probs,loss", "loss", "probs", "status", "log_probs,loss", "rank"])
def test_odd_rows_pass_under_each_policy(tmp_path, policy, name, outputs):
    """Null and dropped rows are verified against their logits and labels; kept rows are matched to their inputs."""
    rows, labels, _ = odd_rows()
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
def test_inputs_of_every_form_are_read_as_they_were_scored(out, name, given):
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
def test_one_column_a_class_is_found_again(tmp_path, out, names, pattern):
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
    assert "only the inputs say" in alone.notes[0]
    found = batchmax.verify(out, source)
    assert found.compared["loss"] == ["probs"]
    assert found.notes == []


def test_without_the_labels_losses_are_looked_at_alone(logits, out):
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
    source = written(tmp_path / "in.parquet", 0)
    out = str(tmp_path / name)
    batchmax.score(source, out, n_classes=3)
    found = batchmax.verify(out, source)
    assert (found.n_rows, found.sampled_rows) == (0, 0)


def test_what_pyarrow_writes_passes(logits, out, monkeypatch):
    """Outputs that pyarrow writes have checksums on all pages as well."""
    monkeypatch.setenv("BATCHMAX_PARQUET", "pyarrow")
    batchmax.score(logits, out, outputs=EVERYTHING)
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


def test_the_result_speaks_json_and_html(logits, out):
    """The result converts to one line of JSON and to HTML."""
    batchmax.score(logits, out)
    found = batchmax.verify(out, logits)
    assert json.loads(found.to_json()) == found.as_dict()
    assert "sampled_rows" in found._repr_html_()


# Damaged outputs


def flipped(path, place, bit=0x10):
    data = bytearray(Path(path).read_bytes())
    data[place] ^= bit
    Path(path).write_bytes(data)


@pytest.mark.parametrize("column", ["probs", "loss"])
def test_a_flipped_byte_in_a_page_is_found(logits, out, column):
    """A flipped byte anywhere in a page's body is an error that names the column and the row group."""
    batchmax.score(logits, out, compression="none")
    metadata = pq.read_metadata(out)
    leaf = next(
        leaf for leaf in range(metadata.num_columns) if metadata.schema.column(leaf).path.split(".")[0] == column
    )
    chunk = metadata.row_group(1).column(leaf)
    whole = Path(out).read_bytes()
    end = chunk.data_page_offset + chunk.total_compressed_size
    for place in np.linspace(end - 90, end - 1, 12).astype(int):
        flipped(out, place)
        said = refused(out)
        assert f"column {column}" in said
        assert "row group 1" in said
        assert "checksum" in said
        Path(out).write_bytes(whole)
    batchmax.verify(out)


def test_any_flipped_bit_is_found_or_harmless(tmp_path, out):
    """With any flipped bit, the file is refused with one line, or its computed columns are unchanged."""
    batchmax.score(written(tmp_path / "in.parquet", 4), out, compression="none")
    whole, table = Path(out).read_bytes(), pq.read_table(out)
    passed = 0
    for place in range(4, len(whole) - 8, 13):
        flipped(out, place, 1 << place % 8)
        try:
            batchmax.verify(out)
        except BatchmaxError as error:
            line = str(error)
        else:
            passed += 1
            line = ""
            assert pq.read_table(out).columns[-2:] == table.columns[-2:], place
        assert "\n" not in line, place
        Path(out).write_bytes(whole)
    # Harmless flips are in the footer: carried columns, statistics, and created_by.
    assert passed < (len(whole) // 13) / 2


def test_a_page_that_lost_its_checksum_is_found(logits, out):
    """A file that was rewritten without checksums is refused."""
    batchmax.score(logits, out)
    pq.write_table(pq.read_table(out), out)
    assert "lost its checksum" in refused(out)


def test_the_first_bytes_are_looked_at(logits, out):
    """A file with wrong magic bytes at the start is refused."""
    batchmax.score(logits, out)
    flipped(out, 2)
    assert "does not begin as Parquet" in refused(out)


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_a_file_that_was_cut_short_is_found(logits, out, cut):
    """A truncated file is refused."""
    batchmax.score(logits, out)
    whole = Path(out).read_bytes()
    Path(out).write_bytes(whole[: max(len(whole) - cut, 4)])
    assert "cut short" in refused(out)


CHANGES = {
    "one probability": ("probs", put(31, lambda p: p + 1e-4, 2), "sum of probs"),
    "a negative one": ("probs", put(31, -1e-9, 0), "not between 0 and 1"),
    "one above 1": ("probs", put(31, 1.5, 0), "not between 0 and 1"),
    "NaN": ("probs", put(31, np.nan, 0), "not between 0 and 1"),
    "a null probability": ("probs", put(31, None, 0), "has not 6 numbers"),
    "a null row": ("probs", put(31, None), "null"),
    "a short row": ("probs", put(31, lambda row: row[:-1]), "has not 6 numbers"),
    "two probabilities swapped": ("probs", put(31, lambda row: [row[1], row[0], *row[2:]]), "log_probs disagree"),
    "a log-probability": ("log_probs", put(31, lambda row: [x - 0.1 for x in row]), "exponentials sum"),
    "one above 0": ("log_probs", put(31, 0.5, 0), "not 0 or less"),
    "one loss": ("loss", put(31, lambda loss: loss + 1e-4), "by the probabilities"),
    "a loss of NaN": ("loss", put(31, np.nan), "loss is nan"),
    "a negative loss": ("loss", put(31, -1.0), "loss is -1"),
    "an infinite loss": ("loss", put(31, np.inf), "loss is inf"),
    "a null loss": ("loss", put(31, None), "one is null"),
    "losses swapped": ("loss", swap(31, 32), "loss is"),
    "a prediction": ("pred", put(31, lambda pred: (pred + 1) % K), "pred is class"),
    "no class": ("pred", put(31, K), "pred is 6"),
    "a confidence": ("confidence", put(31, lambda p: p * 0.999), "confidence is"),
    "a margin": ("margin", put(31, lambda p: p * 0.999), "margin is"),
    "an entropy": ("entropy", put(31, lambda h: h * 0.999), "entropy is"),
    "a rank": ("rank", put(31, lambda rank: rank % K + 1), "rank is"),
    "correct": ("correct", put(31, lambda it: not it), "correct is"),
    "a distance": ("el2n", put(31, lambda d: d * 0.999), "el2n is"),
    "a logsumexp": ("logsumexp", put(31, np.nan), "logsumexp is nan"),
    "a status": ("status", put(31, "ignored"), "status is ignored"),
    "no status": ("status", put(31, "fine"), "fine"),
    "a bad status": ("status", put(31, "nan_logit"), "policy"),
    "a class of the top": ("top_k_classes", put(31, K, 1), "no class"),
    "a class twice": ("top_k_classes", put(31, lambda row: [row[0], row[0], row[2]]), "top_k_"),
    "a probability of the top": ("top_k_probs", put(31, lambda p: p * 0.999, 0), "top_k_probs"),
    "a short top": ("top_k_probs", put(31, lambda row: row[:2]), "has 2 values"),
    "a label": ("label", put(31, lambda label: (label + 1) % K), "is"),
    "an ignored label": ("label", put(31, -100), "ignored"),
    "no label": ("label", put(31, None), "unlabelled"),
    "a bad label": ("label", put(31, 77), "bad_label"),
}


@pytest.fixture(scope="module")
def with_everything(tmp_path_factory):
    """Score some rows with every output; return the paths of input and output."""
    folder = tmp_path_factory.mktemp("everything")
    logits, out = written(folder / "logits.parquet"), str(folder / "scored.parquet")
    batchmax.score(logits, out, outputs=EVERYTHING, top_k=3)
    return logits, out


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_number_is_found(with_everything, out, what):
    """A changed value in any column is an error that names the row, without the inputs."""
    column, edit, says = CHANGES[what]
    shutil.copy(with_everything[1], out)
    change(out, **{column: edit})
    said = refused(out)
    assert f"{out}: row 31 (row group 1)" in said
    assert says in said
    assert says not in {"", "row"}


def test_a_class_twice_is_found_by_itself(with_everything, out):
    """A class that occurs twice in the top k is refused, even if its probability is right."""
    shutil.copy(with_everything[1], out)
    twice = put(31, lambda row: [row[0], row[0], row[2]])
    change(out, top_k_classes=twice, top_k_probs=twice)
    assert "top_k_classes are not the most probable ones" in refused(out)


@pytest.mark.parametrize("size", [1, 700, 1 << 20])
def test_rows_are_the_same_in_batches_of_any_size(with_everything, monkeypatch, size):
    """For batches of any size, each row is compared with its own input."""
    monkeypatch.setattr("batchmax.sources.row_lookup.BATCH_BYTES", size)
    logits, scored = with_everything
    for number in range(3):
        assert batchmax.verify(scored, logits, sample=9, seed=number).sampled_rows == 9


def test_writing_again_changes_nothing(with_everything, out):
    """Rewriting a file with pyarrow, with checksums and unchanged values, doesn't make it fail."""
    shutil.copy(with_everything[1], out)
    change(out)
    batchmax.verify(out, with_everything[0], sample=60)


def test_swapped_rows_are_found_with_the_inputs(with_everything, out):
    """Two swapped rows are consistent, and are found by comparison with the inputs."""
    logits, scored = with_everything
    shutil.copy(scored, out)
    names = pq.read_schema(out).names
    change(out, **dict.fromkeys(names, swap(31, 32)))
    batchmax.verify(out)
    assert f"{out}: row 31, from {logits}: row 31: id is not that of the input" in refused(out, logits, sample=60)
    change(out, id=swap(31, 32), label=swap(31, 32))
    assert "row 31" in refused(out, logits, sample=60)


def test_an_error_of_a_few_units_is_found_with_the_inputs(tmp_path, out):
    """Compared with the inputs, an error of 2 ULP passes, and one of 5 ULP is refused with its size."""
    source = tmp_path / "in.parquet"
    values = some_logits(20, 40, np.float32)
    pq.write_table(pa.table({"logits": lists(values)}), source)
    batchmax.score(source, out)
    exact = oracle.softmax(values)[5, 3].astype(np.float32)
    unit = np.spacing(exact)
    for units, passes in ((2, True), (-2, True), (5, False), (-5, False)):
        change(out, probs=put(5, float(exact + units * unit), 3))
        if passes:
            assert batchmax.verify(out, source, sample=20).largest_errors["probs"]["ulp"] == pytest.approx(2, abs=0.6)
        else:
            assert "probs at 3" in (said := refused(out, source, sample=20))
            assert "ULP from the exact" in said


# Changed folders, footers and inputs


@pytest.fixture
def folder(tmp_path):
    """Score three files into a folder of three parts."""
    sources = [written(tmp_path / f"in-{number}.parquet", 20 + number) for number in range(3)]
    out = tmp_path / "scored"
    batchmax.score(sources, str(out), outputs="probs,loss,status,correct")
    return out, sources, out / "_batchmax.parquet"


def alter(manifest, **changed):
    """Rewrite a manifest with other figures in its summary."""
    metadata = dict(pq.read_metadata(manifest).metadata)
    said = json.loads(metadata[b"batchmax.manifest"])
    said["summary"] |= changed
    kept = {key: value for key, value in metadata.items() if key != b"ARROW:schema"}
    table = pq.read_table(manifest).replace_schema_metadata(kept | {b"batchmax.manifest": json.dumps(said)})
    pq.write_table(table, manifest)


def test_a_folder_passes_with_its_summary(folder):
    """The rows of all parts agree with the summary in the manifest."""
    out, sources, _ = folder
    found = batchmax.verify(out, sources, sample=63)
    assert [Path(file).name for file in found.files] == [f"part-0000{number}.parquet" for number in range(3)]
    assert found.summary == [
        "n_rows",
        "n_classes",
        "status_counts",
        "bad_rows",
        "infinite_losses",
        "mean_loss",
        "accuracy",
    ]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_part_is_found(folder, number):
    """A missing part is found at any position."""
    out, _, _ = folder
    (out / f"part-0000{number}.parquet").unlink()
    assert f"part-0000{number}.parquet is missing" in refused(out)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_output_of_an_earlier_version_passes(folder, number):
    """For an output of an earlier version, with a JSON manifest next to the folder, a missing part is found."""
    out, sources, manifest = folder
    said = json.loads(pq.read_metadata(manifest).metadata[b"batchmax.manifest"])
    manifest.unlink()
    out.with_name("scored.batchmax.json").write_text(json.dumps(said["summary"]))
    assert len(batchmax.verify(out, sources, sample=63).files) == 3
    assert batchmax.evaluate(str(out.parent / "scored")).n_rows == 63
    (out / f"part-0000{number}.parquet").unlink()
    assert ("is missing" if number < 2 else "rows are there") in refused(out)


def test_a_folder_must_be_whole_and_alone(folder):
    """A folder without _SUCCESS, without a valid manifest, or with a foreign file is refused."""
    out, _, manifest = folder
    (out / "notes.txt").touch()
    assert "notes.txt" in refused(out)
    (out / "notes.txt").unlink()
    (out / "_SUCCESS").unlink()
    assert "_SUCCESS" in refused(out)
    (out / "_SUCCESS").touch()
    said = manifest.read_bytes()
    for data in (b"", b"PAR1", said[:-1], (out / "part-00000.parquet").read_bytes()):
        manifest.write_bytes(data)
        assert "no manifest" in refused(out)
    manifest.write_bytes(said)
    batchmax.verify(out)
    manifest.unlink()
    assert "no manifest" in refused(out)


def test_a_part_of_another_job_is_found(folder, tmp_path):
    """A part of another job is refused."""
    out, sources, _ = folder
    other = tmp_path / "other"
    batchmax.score(sources, str(other), outputs="probs,loss,status,correct", temperature=2)
    shutil.copy(other / "part-00001.parquet", out)
    assert "another job" in refused(out)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_rows", 64),
        ("n_rows", None),
        ("n_classes", 7),
        ("bad_rows", 1),
        ("status_counts", {"ok": 62, "ignored": 1}),
        ("mean_loss", 1.0),
        ("accuracy", 0.5),
        ("infinite_losses", 77),
    ],
)
def test_altered_figures_of_the_manifest_are_found(tmp_path, name, value):
    """Every figure of the manifest that the columns determine is compared."""
    source = tmp_path / "in.parquet"
    rng = np.random.default_rng(0)
    pq.write_table(pa.table({"logits": lists(rng.standard_normal((63, K))), "label": np.arange(63) % K}), source)
    batchmax.score(
        source, str(tmp_path / "scored"), outputs="probs,loss,status,correct", class_weights=[1, 2, 3, 4, 5, 6]
    )
    found = batchmax.verify(tmp_path / "scored")
    assert name in found.summary
    alter(tmp_path / "scored" / "_batchmax.parquet", **{name: value})
    line = refused(tmp_path / "scored")
    assert "manifest" in line
    assert str(value) in line or "does not say" in line


def test_a_summary_in_the_footer_is_compared(with_everything, out):
    """A summary in a file's metadata is compared with the rows."""
    table = pq.read_table(with_everything[1])
    summary = {"n_rows": 60, "bad_rows": 0, "status_counts": {"ok": 54, "ignored": 6}}
    for said, holds in ((summary, True), (summary | {"n_rows": 61}, False), ([], False)):
        metadata = table.schema.metadata | {b"batchmax.summary": json.dumps(said).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), out, write_page_checksum=True)
        masked = pq.read_table(out).column("status").to_pylist().count("masked_label")
        if holds and not masked:
            assert batchmax.verify(out).summary == ["n_rows", "status_counts", "bad_rows"]
        else:
            assert "summary in" in refused(out)


METADATA = [
    b"",
    b"{",
    b"[]",
    b'"x"',
    b"[" * 5000,
    {"n_classes": "six"},
    {"n_classes": 7},
    {"outputs": ["nothing"]},
    {"outputs": [["probs"]]},
    {"outputs": ["probs"]},
    {"layout": "wide"},
    {"layout": []},
    {"dtype": "float64"},
    {"logits": []},
    {"classes": 5},
    {"class_weights": [-1]},
    {"inputs": [{}]},
    {"options": {}},
]


@pytest.mark.parametrize("said", METADATA, ids=lambda said: str(said)[:30])
def test_metadata_that_make_no_sense_are_one_line(with_everything, out, said):
    """Invalid metadata in the footer are refused with one line."""
    table = pq.read_table(with_everything[1])
    if isinstance(said, dict):
        said = json.dumps(json.loads(table.schema.metadata[b"batchmax"]) | said).encode()
    table = table.replace_schema_metadata(table.schema.metadata | {b"batchmax": said})
    pq.write_table(table, out, write_page_checksum=True)
    assert out in refused(out)


def test_what_score_did_not_write_is_refused(tmp_path, logits, out):
    """Inputs, missing paths, text, converted files and rejected rows are refused with a specific one-line error."""
    assert "did not write" in refused(logits)
    assert "no such file" in refused(tmp_path / "nothing.parquet")
    assert "no Parquet file" in refused(Path(__file__))
    batchmax.score(
        written(tmp_path / "bad.parquet", 10), out, on_bad_row="drop", rejects=str(tmp_path / "rejects.parquet")
    )
    batchmax.convert([logits], str(tmp_path / "wide.parquet"), "wide")
    assert "batchmax convert wrote this" in refused(tmp_path / "wide.parquet")
    assert "rejected rows" in refused(tmp_path / "rejects.parquet")


def test_other_inputs_are_found(tmp_path, logits, out):
    """A different or changed input, or more inputs than were scored, are refused."""
    batchmax.score(logits, out)
    other = written(tmp_path / "other.parquet", 61)
    assert "bytes" in refused(out, other)
    again = shutil.copy(logits, tmp_path / "again.parquet")
    assert "made of 1 files, not 2" in refused(out, logits, again)
    table = pq.read_table(logits)
    sizes = set()
    for model in ("one", "two"):
        source = tmp_path / f"{model}.parquet"
        pq.write_table(table.replace_schema_metadata({"model": model}), source)
        sizes.add(source.stat().st_size)
    assert len(sizes) == 1
    batchmax.score(tmp_path / "one.parquet", out, if_exists="overwrite")
    batchmax.verify(out, tmp_path / "one.parquet")
    assert "has another footer" in refused(out, tmp_path / "two.parquet")
    with pytest.raises(UsageError):
        batchmax.verify(out, DATA / "labels/digits_string.parquet", logits="nothing")


def test_rows_of_a_stream_are_compared_though_its_input_is_not_known(logits, out):
    """Rows from a stream are compared with the named input, and differences are found."""
    batchmax.score(pq.read_table(logits).slice(1), out)
    assert "rows" in refused(out, logits)
    batchmax.score(pq.read_table(logits).take([*range(1, 60), 0]), out, if_exists="overwrite")
    assert "not that of the input" in refused(out, logits)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"sample": 5}, "--sample"),
        ({"logits": "x"}, "--logits"),
        ({"sample": -1}, "--sample"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_options_that_cannot_be(with_everything, options, where):
    """``sample`` and ``logits`` need inputs, and counts can't be negative."""
    with pytest.raises(UsageError, match=where):
        batchmax.verify(with_everything[1], **options)


def test_very_many_inputs_are_told_together(tmp_path, monkeypatch):
    """The metadata of very many inputs is one digest, which ``verify`` compares."""
    monkeypatch.setattr("batchmax.sinks.metadata.MOST_INPUTS", 2)
    (tmp_path / "in").mkdir()
    for number in range(4):
        written(tmp_path / "in" / f"{number}.parquet", n=30 + number)
    out = str(tmp_path / "out")
    batchmax.score(str(tmp_path / "in"), out)
    assert batchmax.verify(out, inputs=[str(tmp_path / "in")]).inputs == 4
    said = json.loads(pq.read_metadata(f"{out}/part-00000.parquet").metadata[b"batchmax"])["inputs"]
    assert [one["files"] for one in said] == [4]
    written(tmp_path / "in" / "2.parquet", n=32, groups=7)
    with pytest.raises(DataError, match="was made of other files"):
        batchmax.verify(out, inputs=[str(tmp_path / "in")])
    (tmp_path / "in" / "3.parquet").unlink()
    with pytest.raises(DataError, match="was made of 4 files, not 3"):
        batchmax.verify(out, inputs=[str(tmp_path / "in")])
