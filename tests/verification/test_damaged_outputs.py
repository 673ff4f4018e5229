"""Tests that ``verify`` refuses damaged pages and changed values."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.errors import BatchmaxError
from tests.support import oracle
from tests.support.rows import lists, some_logits
from tests.support.scored_outputs import K, put, refusal, rewrite, swap, write_rows

# Damaged pages


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
        message = refusal(out)
        assert f"column {column}" in message
        assert "row group 1" in message
        assert "checksum" in message
        Path(out).write_bytes(whole)
    batchmax.verify(out)


def test_any_flipped_bit_is_found_or_harmless(tmp_path, out):
    """With any flipped bit, the file is refused with one line, or its computed columns are unchanged."""
    batchmax.score(write_rows(tmp_path / "in.parquet", 4), out, compression="none")
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
    assert "has no checksum" in refusal(out)


def test_wrong_magic_bytes_are_found(logits, out):
    """A file with wrong magic bytes at the start is refused."""
    batchmax.score(logits, out)
    flipped(out, 2)
    assert "does not start with the magic bytes" in refusal(out)


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_truncated_file_is_found(logits, out, cut):
    """A truncated file is refused."""
    batchmax.score(logits, out)
    whole = Path(out).read_bytes()
    Path(out).write_bytes(whole[: max(len(whole) - cut, 4)])
    assert "incomplete" in refusal(out)


# Changed values


CHANGES = {
    "one probability": ("probs", put(31, lambda p: p + 1e-4, 2), "sum of probs"),
    "a negative one": ("probs", put(31, -1e-9, 0), "not between 0 and 1"),
    "one above 1": ("probs", put(31, 1.5, 0), "not between 0 and 1"),
    "NaN": ("probs", put(31, np.nan, 0), "not between 0 and 1"),
    "a null probability": ("probs", put(31, None, 0), "does not have 6 numbers"),
    "a null row": ("probs", put(31, None), "null"),
    "a short row": ("probs", put(31, lambda row: row[:-1]), "does not have 6 numbers"),
    "two probabilities swapped": ("probs", put(31, lambda row: [row[1], row[0], *row[2:]]), "log_probs differ"),
    "a log-probability": ("log_probs", put(31, lambda row: [x - 0.1 for x in row]), "sum of exponentials"),
    "one above 0": ("log_probs", put(31, 0.5, 0), "not at most 0"),
    "one loss": ("loss", put(31, lambda loss: loss + 1e-4), "the probabilities give"),
    "a loss of NaN": ("loss", put(31, np.nan), "loss is nan"),
    "a negative loss": ("loss", put(31, -1.0), "loss is -1"),
    "an infinite loss": ("loss", put(31, np.inf), "loss is inf"),
    "a null loss": ("loss", put(31, None), "is null"),
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
    "a bad status": ("status", put(31, "nan_logit"), "--on-bad-row was"),
    "a class of the top": ("top_k_classes", put(31, K, 1), "not a class"),
    "a class twice": ("top_k_classes", put(31, lambda row: [row[0], row[0], row[2]]), "top_k_"),
    "a probability of the top": ("top_k_probs", put(31, lambda p: p * 0.999, 0), "top_k_probs"),
    "a short top": ("top_k_probs", put(31, lambda row: row[:2]), "has 2 values"),
    "a label": ("label", put(31, lambda label: (label + 1) % K), "is"),
    "an ignored label": ("label", put(31, -100), "ignored"),
    "no label": ("label", put(31, None), "unlabelled"),
    "a bad label": ("label", put(31, 77), "bad_label"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_number_is_found(all_outputs, out, what):
    """A changed value in any column is an error that names the row, without the inputs."""
    column, edit, expected = CHANGES[what]
    shutil.copy(all_outputs[1], out)
    rewrite(out, **{column: edit})
    message = refusal(out)
    assert f"{out}: row 31 (row group 1)" in message
    assert expected in message
    assert expected not in {"", "row"}


def test_duplicate_class_in_top_k_is_found_without_inputs(all_outputs, out):
    """A class that occurs twice in the top k is refused, even if its probability is right."""
    shutil.copy(all_outputs[1], out)
    twice = put(31, lambda row: [row[0], row[0], row[2]])
    rewrite(out, top_k_classes=twice, top_k_probs=twice)
    assert "top_k_classes are not the most probable classes" in refusal(out)


def test_rewritten_file_passes(all_outputs, out):
    """Rewriting a file with pyarrow, with checksums and unchanged values, doesn't make it fail."""
    shutil.copy(all_outputs[1], out)
    rewrite(out)
    batchmax.verify(out, all_outputs[0], sample=60)


def test_swapped_rows_are_found_with_the_inputs(all_outputs, out):
    """Two swapped rows are consistent, and are found by comparison with the inputs."""
    logits, scored = all_outputs
    shutil.copy(scored, out)
    names = pq.read_schema(out).names
    rewrite(out, **dict.fromkeys(names, swap(31, 32)))
    batchmax.verify(out)
    assert f"{out}: row 31, from {logits}: row 31: id differs from the input" in refusal(out, logits, sample=60)
    rewrite(out, id=swap(31, 32), label=swap(31, 32))
    assert "row 31" in refusal(out, logits, sample=60)


def test_error_of_5_ulp_is_found_with_the_inputs(tmp_path, out):
    """Compared with the inputs, an error of 2 ULP passes, and one of 5 ULP is refused with its size."""
    source = tmp_path / "in.parquet"
    values = some_logits(20, 40, np.float32)
    pq.write_table(pa.table({"logits": lists(values)}), source)
    batchmax.score(source, out)
    exact = oracle.softmax(values)[5, 3].astype(np.float32)
    unit = np.spacing(exact)
    for units, passes in ((2, True), (-2, True), (5, False), (-5, False)):
        rewrite(out, probs=put(5, float(exact + units * unit), 3))
        if passes:
            assert batchmax.verify(out, source, sample=20).largest_errors["probs"]["ulp"] == pytest.approx(2, abs=0.6)
        else:
            assert "probs at 3" in (message := refusal(out, source, sample=20))
            assert "ULP from the exact" in message


TOTALS = {
    "a null sum": ("sum_loss", put(1, None), "sum_loss is null"),
    "a null mean": ("mean_loss", put(1, None), "mean_loss is null"),
    "a null perplexity": ("perplexity", put(1, None), "perplexity is null"),
    "a finite sum of an infinite loss": ("sum_loss", put(0, 3.0), "sum_loss is 3, but the losses sum to inf"),
    "a finite mean of an infinite loss": ("mean_loss", put(0, 3.0), "mean_loss is 3, but the losses give inf"),
    "a number of tokens": ("n_tokens", put(1, 4), "n_tokens is 4, but 2 tokens have a loss"),
}


@pytest.mark.parametrize("what", TOTALS)
def test_a_changed_total_of_a_sequence_is_found(tmp_path, out, what):
    """A changed or missing total of a sequence is an error that names the row."""
    column, edit, expected = TOTALS[what]
    logits = [[[0.0, -np.inf], [1.0, 2.0]], [[1.0, 2.0], [3.0, 1.0]]]
    pq.write_table(pa.table({"logits": logits, "labels": [[1, 0], [1, 0]]}), tmp_path / "in.parquet")
    batchmax.score(tmp_path / "in.parquet", out, outputs="loss")
    rewrite(out, **{column: edit})
    message = refusal(out)
    assert expected in message
    assert f"row {0 if 'infinite' in what else 1} " in message


@pytest.mark.parametrize("name", ["confidence", "margin", "entropy", "el2n", "loss"])
def test_a_number_is_recomputed_without_the_probabilities(logits, out, name):
    """A changed number of a row is found with the input, also if the output has no other column to compare it with."""
    batchmax.score(logits, out, outputs=(name,))
    batchmax.verify(out, logits, sample=60)
    rewrite(out, **{name: put(31, lambda value: value * 1.00001)})
    assert refusal(out, logits, sample=60).startswith(f"{out}: row 31, from {logits}: row 31: {name} is")


def test_numbers_of_nearly_equal_and_nearly_certain_rows_are_exact(tmp_path, out):
    """Margins of nearly equal logits, and entropies and distances of nearly certain rows, agree with the exact ones."""
    logits = [
        [1.0, 1.0 + 2.0**-52],
        [1.0, 1.0],
        [0.0, 5e-324],
        [0.0, -700.0],
        [-700.0, 0.0],
        [0.0, -np.inf],
        [3.0, 1.0],
    ]
    table = pa.table({"logits": logits, "label": [0, 1, 0, 0, 0, 1, 1]})
    pq.write_table(table, tmp_path / "exact.parquet")
    batchmax.score(tmp_path / "exact.parquet", out, outputs=("margin", "entropy", "el2n"))
    errors = batchmax.verify(out, tmp_path / "exact.parquet", sample=7).largest_errors
    assert max(error["ulp"] for error in errors.values()) <= 32
