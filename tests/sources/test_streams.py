"""Streams, tables and batches from outside: valid ones are scored, invalid ones refused before they are used."""

from __future__ import annotations

import contextlib
import io
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import DataError, UsageError
from batchmax.evaluation.worst_rows import worst_rows
from batchmax.jobs.engine_task import plan_tasks, score_batches
from batchmax.options.score_options import score_options
from batchmax.sources.streams.arrow_batches import decoded_batch, decoded_batches
from batchmax.sources.streams.ipc_reader import IncomingStream
from tests.support.arrow_damage import ARRAYS, N, batch_with, int32s, replaced, stream_of

GOOD = batch_with(pa.array(range(N)))
DEFAULTS = score_options()
MIB = 1 << 20
ENTRIES = {
    "score": lambda table, folder: batchmax.score(table, folder / "o.parquet"),
    "scan": lambda table, _: batchmax.scan(table).read_all(),
    "score_batch of a table": lambda table, _: batchmax.score_batch(table),
    "score_batch of a batch": lambda table, _: batchmax.score_batch(table.to_batches()[0]),
    "evaluate": lambda table, _: batchmax.evaluate(table),
    "compare": lambda table, _: batchmax.compare(table, pa.table(GOOD)),
    "compare, the other": lambda table, _: batchmax.compare(pa.table(GOOD), table),
    "calibrate": lambda table, _: batchmax.calibrate(table),
    "report": lambda table, folder: batchmax.report(table, folder / "r.html"),
    "convert": lambda table, folder: batchmax.convert(table, str(folder / "c.parquet"), "fixed"),
    "worst_rows": lambda table, _: worst_rows(table, 2),
    "tasks": lambda table, _: list(
        score_batches(table.to_batches(), plan_tasks(GOOD.schema, score_options(), GOOD), 1)
    ),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_refuses_arrays_that_are_not_valid(entry, tmp_path):
    """Every function that takes a table or a batch refuses an invalid array, and names the column."""
    for name, make in ARRAYS.items():
        table = pa.Table.from_batches([batch_with(make())])
        with pytest.raises(DataError, match=r"column 'x' \(.*\) is invalid"):
            ENTRIES[entry](table, tmp_path)
        assert not list(tmp_path.iterdir()), name


@pytest.mark.parametrize("column", ["logits", "label"])
def test_logits_and_labels_are_checked_too(column):
    """Offsets of logits and indices of labels are validated like those of any other column."""
    bad = {"logits": "list, decreasing offsets", "label": "dictionary, index past the end"}[column]
    batch = batch_with(pa.array(range(N)))
    batch = batch.set_column(batch.schema.get_field_index(column), column, ARRAYS[bad]())
    for entry in ("scan", "score_batch of a table", "evaluate"):
        with pytest.raises(DataError, match=f"column '{column}'"):
            ENTRIES[entry](pa.table(batch), None)


def test_the_batch_is_named():
    """The error names the batch of a stream, counted from 0."""
    bad = batch_with(ARRAYS["text, offset past the end"]())
    good = batch_with(pa.array(["a"] * N))
    reader = batchmax.scan(pa.Table.from_batches([good, good, bad]), outputs="loss")
    with pytest.raises(DataError, match=r"the stream: batch 2: column 'x' \(string\)"):
        reader.read_all()


# Arrow IPC


def run(data, *words, monkeypatch):
    """Run a command on a stream; return its exit code."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    return main([*words, "--quiet"])


def damaged_streams():
    """Return streams with a few bytes changed, by what is changed."""
    plain = stream_of(batch_with(pa.array(["ab", "c"] * 3)))
    offsets = int32s(0, 2, 3, 5, 6, 8, 9)
    dictionary = stream_of(batch_with(pa.array(["ab", "c", "ab", "ab", "c", "c"]).dictionary_encode()))
    indices = int32s(0, 1, 0, 0, 1, 1)
    texts = [f"some text that is longer than a view, {row}" for row in range(N)]
    views = stream_of(batch_with(pa.array(texts, pa.string_view())))
    at = views.index(b"some") - 4
    logits = int32s(0, 2, 4, 6, 8, 10, 12)
    return {
        "offset of a list": replaced(plain, logits, int32s(0, 2, 2_000_000_000, 6, 8, 10, 12)),
        "last offset of a list": replaced(plain, logits, int32s(0, 2, 4, 6, 8, 10, 2_000_000_000)),
        "first offset of a list": replaced(plain, logits, int32s(-4, 2, 4, 6, 8, 10, 12)),
        "decreasing offsets": replaced(plain, logits, int32s(0, 6, 4, 8, 2, 10, 12)),
        "offset of a text": replaced(plain, offsets, int32s(0, 2, 2_000_000_000, 5, 6, 8, 9)),
        "text that is not UTF-8": replaced(plain, b"abcabcabc", b"\xffbcabcabc"),
        "index of a dictionary": replaced(dictionary, indices, int32s(0, 1, 0x7FFFFFF0, 0, 1, 1)),
        "length of a view": views[:at] + int32s(4000) + views[at + 4 :],
        "buffer of a view": views[: at + 8] + int32s(7) + views[at + 12 :],
        "offset of a view": views[: at + 12] + int32s(2_000_000_000) + views[at + 16 :],
    }


def test_streams_that_refer_to_what_is_not_there(tmp_path, monkeypatch, capsys):
    """A stream with invalid references ends with a one-line error that names batch and column, and writes nothing."""
    words = ["score", "-", "-o", str(tmp_path / "o.parquet")]
    for kind, data in damaged_streams().items():
        assert run(data, *words, monkeypatch=monkeypatch) == 1, kind
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("batchmax: error: -: batch 0: column '"), (kind, line)
        assert "is invalid" in line, (kind, line)
        assert not list(tmp_path.iterdir())


def test_a_map_without_keys():
    """Maps with null keys, which make Arrow abort the process, are refused before Arrow decodes the batch."""
    key, value = pa.field("key", pa.string(), nullable=False), pa.field("value", pa.int64())
    entries = pa.StructArray.from_arrays([pa.array(["a", None, "c"]), pa.array([1, 2, 3])], fields=[key, value])
    lists = pa.ListArray.from_arrays(
        pa.array([0, 1, 2, 3, 3, 3, 3], pa.int32()),
        entries,
        pa.list_(pa.field("entries", entries.type, nullable=False)),
    )
    data = stream_of(batch_with(lists))
    refused = 0
    # In a schema, 12 is the type of a list and 17 that of a map, with the same physical layout; 3 is a struct.
    for at in (at for at, byte in enumerate(data[:1000]) if byte == 12):
        with contextlib.suppress(DataError):
            try:
                stream = IncomingStream(io.BytesIO(data[:at] + bytes([17]) + data[at + 1 :]), "-")
            except pa.ArrowException:
                continue
            if not pa.types.is_map(stream.schema.types[-1]):
                continue
            with pytest.raises(DataError, match=r"batch 0, column 'x': .*1 map key or run end is null"):
                list(stream)
            refused += 1
    assert refused == 1


@pytest.mark.parametrize("inner", [False, True])
def test_names_that_are_not_utf8(inner, tmp_path, monkeypatch, capsys):
    """A name of a column or nested field that isn't valid UTF-8 is a one-line error."""
    column = pa.StructArray.from_arrays([pa.array(range(N))], ["inner"])
    data = stream_of(batch_with(column, "outer"))
    changed = replaced(data, *((b"inner", b"in\xffer") if inner else (b"outer", b"ou\xffer")))
    assert run(changed, "score", "-", "-o", str(tmp_path / "o.parquet"), monkeypatch=monkeypatch) == 1
    assert "a column name is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("size", [1 << 20, (1 << 31) - 8])
def test_a_message_that_claims_more_than_is_there(size, tmp_path, monkeypatch, capsys):
    """A message that declares more bytes than follow, or more than the memory limit, is a one-line error."""
    data = stream_of(GOOD)
    for at in (0, data.index(b"\xff\xff\xff\xff", 4)):
        changed = data[: at + 4] + int32s(size) + data[at + 8 :]
        assert run(changed, "score", "-", "-o", str(tmp_path / "o.parquet"), monkeypatch=monkeypatch) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "it takes 2,048 MiB, and the limit is 1,024" in line or "incomplete message" in line, line


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_buffer_that_claims_to_be_large(codec):
    """The declared size of a compressed buffer is compared with the limit before decompression."""
    numbers = np.arange(6000)
    batch = pa.record_batch({"logits": pa.FixedSizeListArray.from_arrays(pa.array(numbers / 7), 6)})
    data = stream_of(batch, compression=codec)
    honest = np.array([48_000], "<i8").tobytes()
    claims = {
        1 << 40: "it takes 1,048,576 MiB, and the limit is 600",
        -7: "size of -7 bytes",
        1000: "damaged or incomplete",
    }
    for claim, what in claims.items():
        changed = replaced(data, honest, np.array([claim], "<i8").tobytes())
        with pytest.raises(DataError, match=what):
            list(IncomingStream(io.BytesIO(changed), "-", 600 * MIB))
    (found,) = IncomingStream(io.BytesIO(data), "-", MIB)
    assert found.equals(batch)


def test_two_streams_one_after_the_other(tmp_path, monkeypatch, capsys):
    """Data after the end of a stream is an error."""
    data = stream_of(GOOD)
    assert run(data + data, "score", "-", "-o", str(tmp_path / "o.parquet"), monkeypatch=monkeypatch) == 1
    assert "bytes after the end of the stream" in capsys.readouterr().err
    assert not (tmp_path / "o.parquet").exists()


def test_dictionaries_that_grow_and_change(tmp_path, monkeypatch):
    """Deltas and replacements of a dictionary between batches give each row its own text."""
    out, texts = io.BytesIO(), [["a", "b"], ["a", "b", "c"], ["x", "y"]]
    batches = [batch_with(pa.array([one[row % len(one)] for row in range(N)]).dictionary_encode()) for one in texts]
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    with pa.ipc.new_stream(out, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    assert run(out.getvalue(), "score", "-", "-o", str(tmp_path / "o.parquet"), monkeypatch=monkeypatch) == 0
    found = pq.read_table(tmp_path / "o.parquet")["x"].to_pylist()
    assert found == [one[row % len(one)] for one in texts for row in range(N)]


def test_dictionaries_that_grow_without_end():
    """All dictionaries and their deltas together must stay below the memory limit; a replaced one counts once."""
    out = io.BytesIO()
    values = pa.array([str(number) * 40_000 for number in range(8)])
    batches = [
        batch_with(pa.DictionaryArray.from_arrays([number] * N, values[: number + 1])) for number in range(len(values))
    ]
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    with pa.ipc.new_stream(out, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    assert len(list(IncomingStream(io.BytesIO(out.getvalue()), "-", 400_000))) == len(batches)
    with pytest.raises(DataError, match=r"batch 6: its dictionaries take 0 MiB.*--memory-limit 1MiB"):
        list(IncomingStream(io.BytesIO(out.getvalue()), "-", 250_000))
    replacing = stream_of(*(batch_with(pa.array([text] * N).dictionary_encode()) for text in values.to_pylist()))
    assert len(list(IncomingStream(io.BytesIO(replacing), "-", 50_000))) == len(batches)


# Types that Parquet doesn't have

RUNS = pa.RunEndEncodedArray.from_arrays(pa.array([1, 4, 6], pa.int32()), pa.array(["a", None, "c"]))
VIEWS = pa.array(["a", None, "a text that is longer than a view"] * 2, pa.string_view())
DECODED = {
    "runs": RUNS,
    "runs of lists": pa.RunEndEncodedArray.from_arrays(pa.array([2, 6], pa.int32()), pa.array([[1.0], [2.0, 3.0]])),
    "runs of views": pa.RunEndEncodedArray.from_arrays(pa.array([3, 6], pa.int64()), VIEWS[1:3]),
    "lists of runs": pa.ListArray.from_arrays(pa.array(range(N + 1), pa.int32()), RUNS),
    "views in maps": pa.array(
        [[("k", "v")], None, [], [("a", None)], [], []], pa.map_(pa.string_view(), pa.string_view())
    ),
    "views in lists of one length": pa.array([["a"], None, ["b"], [None], ["c"], ["d"]], pa.list_(pa.string_view(), 1)),
    "views in list views": pa.array([["a"], None, ["b"], [None], [], ["d", "e"]], pa.list_view(pa.string_view())),
    "views in structs": pa.StructArray.from_arrays([VIEWS], ["a"]),
    "dictionary of lists": pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 1, 0, 0]), pa.array([[1], [2, 3]])),
    "dictionary of views": pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 1, 0, 0]), VIEWS[2:4]),
    "dictionary with a null entry": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, None, 1, 0, 0]), pa.array(["a", None])
    ),
    "dictionary of durations": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, None, 1, 0, 0]), pa.array([1, 2], pa.duration("s"))
    ),
    "opaque over views": pa.ExtensionArray.from_storage(pa.opaque(pa.string_view(), "a", "b"), VIEWS),
}


@pytest.mark.parametrize("kind", DECODED)
def test_types_that_become_plain_values(kind, tmp_path):
    """Run-end encoded, view and dictionary columns are carried with their values, also with dropped rows and slices."""
    array = DECODED[kind]
    batch = batch_with(array)
    logits = pa.array([[1.0, 2.0], [1.0, np.nan], *[[1.0, 2.0]] * (N - 2)], pa.list_(pa.float32()))
    batch = batch.set_column(0, "logits", logits)
    kept = [value for row, value in enumerate(array.to_pylist()) if row != 1]
    batchmax.score(pa.table(batch), tmp_path / "o.parquet", on_bad_row="drop", rejects=str(tmp_path / "r.parquet"))
    assert pq.read_table(tmp_path / "o.parquet")["x"].to_pylist() == kept
    assert pq.read_table(tmp_path / "r.parquet")["x"].to_pylist() == array.to_pylist()[1:2]
    found = batchmax.scan(pa.table(batch.slice(2)), outputs="probs").read_all()
    assert found["x"].to_pylist() == array.to_pylist()[2:]
    assert decoded_batch(batch.slice(3, 2))["x"].to_pylist() == array.to_pylist()[3:5]


def test_runs_of_logits_and_labels():
    """Logits and labels may be run-end encoded."""
    ends = pa.array([2, 6], pa.int32())
    batch = pa.record_batch(
        {
            "logits": pa.RunEndEncodedArray.from_arrays(ends, pa.array([[0.0, 0.0], [3.0, 0.0]])),
            "label": pa.RunEndEncodedArray.from_arrays(ends, pa.array([0, 1])),
        }
    )
    losses = batchmax.score_batch(batch, outputs="loss")["loss"].to_pylist()
    np.testing.assert_allclose(losses, [np.log(2)] * 2 + [np.log1p(np.exp(3.0))] * 4, rtol=1e-12)


UNION = pa.UnionArray.from_sparse(pa.array([0, 1] * 3, pa.int8()), [pa.array(range(N)), pa.array(list("abcdef"))])
NOT_IN_PARQUET = {
    "union": UNION,
    "interval": pa.array([pa.MonthDayNano([1, 2, 3])] * N),
    "list of intervals": pa.array([[pa.MonthDayNano([1, 2, 3])]] * N),
    "struct of a union": pa.StructArray.from_arrays([UNION], ["u"]),
    "struct of nothing": pa.array([{}] * N, pa.struct([])),
}


@pytest.mark.parametrize("kind", NOT_IN_PARQUET)
def test_types_that_parquet_does_not_have(kind, tmp_path):
    """Writing to Parquet refuses a type that Parquet lacks, with the column and a remedy; other functions carry it."""
    table = pa.table(batch_with(NOT_IN_PARQUET[kind]))
    for entry in ("score", "convert"):
        with pytest.raises(UsageError, match=r"column 'x' \(.*can't be written to Parquet.*--exclude x"):
            ENTRIES[entry](table, tmp_path)
    assert not list(tmp_path.iterdir())
    batchmax.score(table, tmp_path / "o.parquet", exclude=["x"])
    for entry in ("evaluate", "compare", "calibrate", "report", "worst_rows"):
        ENTRIES[entry](table, tmp_path)
    assert batchmax.scan(table).read_all()["x"].to_pylist() == table["x"].to_pylist()


def test_small_bytes_that_stand_for_many():
    """A batch whose plain values would take gigabytes is decoded a few rows at a time."""
    rows, text = 1 << 16, "a" * (1 << 20)
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([rows], pa.int32()), pa.array([text]))
    pieces = decoded_batches([pa.record_batch({"x": runs})], 8 << 20)
    first = next(pieces)
    assert first.num_rows * len(text) <= 8 << 20
    assert first["x"][0].as_py() == text
    # A single row is never split.
    assert next(decoded_batches([pa.record_batch({"x": runs})], 1)).num_rows == 1


def test_rows_of_all_sizes_are_cut_where_they_are_large():
    """Pieces end where the size of their rows reaches the limit, and no row is lost."""
    sizes = [10, 1000, 10, 10, 3000, 10, 10]
    texts = ["x" * size for size in sizes]
    batch = pa.record_batch({"x": pa.array(texts, pa.string_view())})
    pieces = list(decoded_batches([batch], 1100))
    assert [value for piece in pieces for value in piece["x"].to_pylist()] == texts
    assert [piece.num_rows for piece in pieces] == [4, 1, 2]


def test_the_damage_is_damage():
    """Arrow's full validation refuses every array of these tests."""
    for name, make in ARRAYS.items():
        with pytest.raises((pa.ArrowInvalid, pa.lib.ArrowIndexError)):
            make().validate(full=True)
        assert len(make()) == N, name
