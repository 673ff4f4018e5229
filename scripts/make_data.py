#!/usr/bin/env python3
"""Make the files in ``data/``, or one large file of synthetic logits.

::

    scripts/make_data.py                                            # remake data/
    scripts/make_data.py big.parquet --rows 400000 --classes 1000   # 1.6 GB in row groups of 16 MiB
    scripts/make_data.py huge.parquet --rows 1000000 --classes 1000 --row-group-size 1000000
    scripts/make_data.py text.parquet --rows 40 --tokens 512 --classes 32000    # 2.6 GB, a sequence a row

A layout is a function from a matrix to Arrow columns, and a line in the table ``LAYOUTS``; both tasks use the same
layouts. The script imports nothing from batchmax, so the files never depend on the code that they test.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import importlib
import io
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

REMEDY = "set up with ./scripts/test --version, then run .venv/bin/python scripts/make_data.py"
try:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray
except ModuleNotFoundError as missing:
    sys.exit(f"make_data: {missing}; {REMEDY}")

DATA = Path(__file__).resolve().parent.parent / "data"
DIGIT_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
FEW_ROWS = 60
BLOCK_VALUES = 2**18
ROW_GROUP_BYTES = 16 * 2**20
SPOOLED_BYTES = 256 * 2**20
SPARK_VERSION = "4.0.0"
ORDER = 5
"""Length of the longest context of the text model, in characters."""
MIXED = 2.0
"""Weight of the shorter context's prediction, as a number of characters."""

Matrix = NDArray[Any]
Columns = dict[str, Any]
"""Arrow arrays by column name."""


def as_list(logits: Matrix) -> Columns:
    """Make one ``list`` per row, with 32-bit offsets."""
    offsets = np.arange(0, logits.size + 1, logits.shape[1], dtype=np.int32)
    return {"logits": pa.ListArray.from_arrays(pa.array(offsets), pa.array(logits.ravel()))}


def as_large_list(logits: Matrix) -> Columns:
    """Make one ``large_list`` per row, with 64-bit offsets."""
    offsets = np.arange(0, logits.size + 1, logits.shape[1], dtype=np.int64)
    return {"logits": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(logits.ravel()))}


def as_fixed(logits: Matrix) -> Columns:
    """Make one ``fixed_size_list`` per row."""
    return {"logits": pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), logits.shape[1])}


def as_tensor(logits: Matrix) -> Columns:
    """Make a column of Arrow's canonical tensor type with one dimension."""
    storage = as_fixed(logits)["logits"]
    kind = pa.fixed_shape_tensor(storage.type.value_type, [logits.shape[1]])
    return {"logits": pa.ExtensionArray.from_storage(kind, storage)}


def as_wide(logits: Matrix) -> Columns:
    """Make one column per class."""
    return {f"logit_{k}": pa.array(np.ascontiguousarray(logits[:, k])) for k in range(logits.shape[1])}


def as_binary(logits: Matrix) -> Columns:
    """Put the little-endian bytes of a row into one ``fixed_size_binary`` value."""
    n_rows, n_classes = logits.shape
    little = logits.astype(logits.dtype.newbyteorder("<"), copy=False)
    kind = pa.binary(n_classes * logits.dtype.itemsize)
    return {"logits": pa.FixedSizeBinaryArray.from_buffers(kind, n_rows, [None, pa.py_buffer(little)])}


def as_bfloat16(logits: Matrix) -> Columns:
    """Make lists of the upper 16 bits of float32, rounded to nearest even, because Parquet has no bfloat16."""
    bits = logits.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return as_list(rounded.astype(np.uint16))


def as_spark(logits: Matrix) -> Columns:
    """Make dense vectors of Spark ML: ``type`` is 1, ``size`` and ``indices`` are null."""
    values = as_list(logits)["logits"].cast(pa.list_(pa.field("element", pa.float64(), nullable=False)))
    indices = pa.list_(pa.field("element", pa.int32(), nullable=False))
    n_rows = len(logits)
    parts = {
        pa.field("type", pa.int8(), nullable=False): pa.array(np.ones(n_rows, dtype=np.int8)),
        pa.field("size", pa.int32()): pa.nulls(n_rows, pa.int32()),
        pa.field("indices", indices): pa.nulls(n_rows, indices),
        pa.field("values", values.type): values,
    }
    return {"logits": pa.StructArray.from_arrays(list(parts.values()), fields=list(parts))}


def as_nested(logits: Matrix) -> Columns:
    """Put a list inside a struct: the column ``outputs.logits``."""
    return {"outputs": pa.StructArray.from_arrays([as_list(logits)["logits"]], names=["logits"])}


@dataclass(frozen=True)
class Layout:
    """Layout of logits in a file: the columns, the element type, and whether other element types are possible."""

    columns: Callable[[Matrix], Columns]
    dtype: str = "float32"
    any_dtype: bool = False

    def of(self, logits: Matrix, dtype: str | None = None) -> Columns:
        """Return ``logits`` (n_rows, n_classes) as columns; integers are rounded to nearest."""
        kind = np.dtype(dtype or self.dtype)
        rounded = np.rint(logits) if kind.kind == "i" else logits
        return self.columns(np.ascontiguousarray(rounded, dtype=kind))


LAYOUTS = {
    "list": Layout(as_list, any_dtype=True),
    "large_list": Layout(as_large_list, any_dtype=True),
    "fixed": Layout(as_fixed, any_dtype=True),
    "tensor": Layout(as_tensor, any_dtype=True),
    "wide": Layout(as_wide, any_dtype=True),
    "nested": Layout(as_nested, any_dtype=True),
    "binary": Layout(as_binary, any_dtype=True),
    "bfloat16": Layout(as_bfloat16),
    "spark": Layout(as_spark, dtype="float64"),
    "list_float16": Layout(as_list, dtype="float16"),
    "list_float64": Layout(as_list, dtype="float64"),
    "list_int": Layout(as_list, dtype="int32"),
}


def spark_metadata(schema: Any, n_classes: int) -> dict[str, str]:
    """Return the footer keys that Spark writes for a vector column and reads its schema from."""
    vector = {
        "type": "udt",
        "class": "org.apache.spark.ml.linalg.VectorUDT",
        "pyClass": "pyspark.ml.linalg.VectorUDT",
        "sqlType": _spark_struct(
            _spark_field("type", "byte", nullable=False),
            _spark_field("size", "integer"),
            _spark_field("indices", {"type": "array", "elementType": "integer", "containsNull": False}),
            _spark_field("values", {"type": "array", "elementType": "double", "containsNull": False}),
        ),
    }
    fields = [
        _spark_field(field.name, vector, metadata={"ml_attr": {"num_attrs": n_classes}})
        if field.name == "logits"
        else _spark_field(field.name, "long")
        for field in schema
    ]
    return {
        "org.apache.spark.version": SPARK_VERSION,
        "org.apache.spark.sql.parquet.row.metadata": json.dumps(_spark_struct(*fields), separators=(",", ":")),
    }


def _spark_struct(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "struct", "fields": list(fields)}


def _spark_field(
    name: str, kind: Any, *, nullable: bool = True, metadata: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"name": name, "type": kind, "nullable": nullable, "metadata": metadata or {}}


def hugging_face_metadata(names: list[str]) -> dict[str, str]:
    """Return the footer key in which Hugging Face ``datasets`` stores the class names."""
    features = {
        "id": {"dtype": "int64", "_type": "Value"},
        "logits": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"},
        "label": {"names": names, "_type": "ClassLabel"},
    }
    return {"huggingface": json.dumps({"info": {"features": features}})}


# Large files


@lru_cache(maxsize=1)
def block(number: int, n_classes: int, seed: int) -> tuple[Matrix, NDArray[np.int64]]:
    """Return logits (float32) and labels of one block of rows: noise, with the label's logit raised.

    The logit is raised by an amount that grows like the largest of K normal numbers, so that about every second row is
    classified correctly for any K. The rows depend only on the arguments, not on the layout or the row groups.
    """
    rng = np.random.default_rng([seed, number])
    n_rows = rows_a_block(n_classes)
    logits = rng.standard_normal((n_rows, n_classes), dtype=np.float32)
    labels = rng.integers(0, n_classes, n_rows)
    logits[np.arange(n_rows), labels] += np.float32(math.sqrt(2 * math.log(n_classes)))
    logits *= np.float32(2)
    return logits, labels


def rows_a_block(n_classes: int) -> int:
    """Return the number of rows of a block: about 1 MiB of float32."""
    return max(1, BLOCK_VALUES // n_classes)


def make_large(
    path: Path,
    n_rows: int,
    n_classes: int,
    *,
    layout: str = "list",
    dtype: str | None = None,
    row_group_size: int | None = None,
    compression: str = "snappy",
    seed: int = 0,
) -> None:
    """Write ``n_rows`` synthetic rows to ``path``, one row group at a time.

    ``row_group_size`` is in rows; the default holds about 16 MiB of logits. Memory stays small for any size: pyarrow
    needs a row group as a whole, so a large one is spooled to a file next to the output and memory-mapped.
    """
    shape = LAYOUTS[layout]
    row_bytes = n_classes * np.dtype(dtype or shape.dtype).itemsize
    group = max(1, row_group_size or ROW_GROUP_BYTES // row_bytes)

    def record(start: int, logits: Matrix, labels: NDArray[np.int64]) -> Any:
        ids = np.arange(start, start + len(labels), dtype=np.int64)
        return pa.record_batch({"id": ids, **shape.of(logits, dtype), "label": labels})

    def records(start: int, stop: int) -> Iterator[Any]:
        size = rows_a_block(n_classes)
        while start < stop:
            logits, labels = block(start // size, n_classes, seed)
            rows = slice(start % size, min(size, start % size + stop - start))
            yield record(start, logits[rows], labels[rows])
            start += rows.stop - rows.start

    plain = record(0, np.empty((0, n_classes), np.float32), np.empty(0, np.int64)).schema
    schema = plain.with_metadata(spark_metadata(plain, n_classes)) if layout == "spark" else plain
    with (
        open_writer(path, schema, compression) as writer,
        tempfile.TemporaryDirectory(prefix=".spool-", dir=path.parent) as folder,
    ):
        for start in range(0, n_rows, group):
            stop = min(start + group, n_rows)
            if (stop - start) * row_bytes <= SPOOLED_BYTES:
                table = pa.Table.from_batches(records(start, stop), plain)
            else:
                table = spool(records(start, stop), plain, Path(folder) / "rows.arrow")
            writer.write_table(table, row_group_size=stop - start)


def make_large_sequences(
    path: Path, n_rows: int, n_tokens: int, n_classes: int, *, compression: str = "snappy", seed: int = 0
) -> None:
    """Write ``n_rows`` sequences of ``n_tokens`` synthetic tokens to ``path``, one row group per sequence.

    The tokens and their labels are consecutive rows of `block`. Dictionaries are disabled: pyarrow decides about them
    only between rows, so it would keep one that holds every logit of a sequence.
    """
    token = pa.list_(pa.float32())
    schema = pa.schema({"id": pa.int64(), "logits": pa.list_(token), "labels": pa.list_(pa.int64())})
    n_blocks = -(-n_tokens // rows_a_block(n_classes))
    offsets = pa.array([0, n_tokens], pa.int32())
    with pq.ParquetWriter(path, schema, compression=compression, use_dictionary=False) as writer:
        for row in range(n_rows):
            blocks = [block(row * n_blocks + number, n_classes, seed) for number in range(n_blocks)]
            logits, labels = (np.concatenate(parts)[:n_tokens] for parts in zip(*blocks, strict=True))
            columns = {
                "id": pa.array([row]),
                "logits": pa.ListArray.from_arrays(offsets, as_list(logits)["logits"]),
                "labels": pa.ListArray.from_arrays(offsets, pa.array(labels)),
            }
            writer.write_table(pa.table(columns, schema))


def spool(records: Iterator[Any], schema: Any, path: Path) -> Any:
    """Write ``records`` to the Arrow file ``path``, and return them as one memory-mapped table."""
    with pa.ipc.new_file(path, schema) as sink:
        for record in records:
            sink.write_batch(record)
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def open_writer(path: Path, schema: Any, compression: str = "snappy") -> Any:
    """Open a Parquet writer; files that imitate Spark get no Arrow schema, because Spark writes none."""
    footer = schema.metadata or {}
    from_spark = any(key.startswith(b"org.apache.spark") for key in footer)
    writer = pq.ParquetWriter(path, schema, compression=compression, store_schema=not from_spark)
    if from_spark:  # without the Arrow schema, pyarrow doesn't write the schema's metadata either
        writer.add_key_value_metadata({key.decode(): value.decode() for key, value in footer.items()})
    return writer


# The digits


@dataclass(frozen=True)
class Digits:
    """Held-out images: their numbers in scikit-learn's data set, labels, and the outputs of two models.

    ``ids`` and ``labels`` are (n_rows,), ``logits`` (n_rows, 10) float32, ``soft_labels`` (n_rows, 10) float32.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    logits: Matrix
    soft_labels: Matrix


def train_on_digits() -> Digits:
    """Train a small network on one half of the images, and return its logits for the other half.

    The soft labels are the probabilities of a second model, a logistic regression, as in distillation from a teacher.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import train_test_split
        from sklearn.neural_network import MLPClassifier
    except ModuleNotFoundError as missing:
        sys.exit(f"make_data: {missing}; {REMEDY}")

    images, labels = load_digits(return_X_y=True)
    images /= 16.0
    train, held_out = train_test_split(np.arange(len(labels)), test_size=0.5, random_state=0, stratify=labels)
    held_out.sort()
    network = MLPClassifier(hidden_layer_sizes=(32,), max_iter=500, random_state=0)
    network.fit(images[train], labels[train])
    (to_hidden, to_logits), (hidden_bias, logit_bias) = network.coefs_, network.intercepts_
    hidden = np.maximum(images[held_out] @ to_hidden + hidden_bias, 0.0)
    logits = hidden @ to_logits + logit_bias
    teacher = LogisticRegression(max_iter=1000).fit(images[train], labels[train])
    return Digits(
        held_out.astype(np.int64),
        labels[held_out].astype(np.int64),
        logits.astype(np.float32),
        teacher.predict_proba(images[held_out]).astype(np.float32),
    )


@dataclass(frozen=True)
class Zen:
    """Lines of text, and the predictions of a character model.

    ``texts`` are the lines. For each line, ``ids`` (n_tokens,) are the indices of its characters in ``characters``, and
    ``logits`` (n_tokens, n_characters) float32 predict the character after each.
    """

    characters: list[str]
    texts: list[str]
    ids: list[NDArray[np.int32]]
    logits: list[Matrix]


def train_on_license() -> Zen:
    """Train a character model on the text of the license, and return its predictions for the Zen of Python.

    The model is an interpolated n-gram model (Jelinek and Mercer): the counts of characters after a context of up to
    ``ORDER`` characters are mixed with the prediction of the context that is one character shorter, down to the uniform
    distribution. The logits are the logarithms of the probabilities.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        zen = importlib.import_module("this")
    texts = [line for line in codecs.decode(zen.s, "rot13").lower().splitlines()[2:] if line]
    seen = " ".join((DATA.parent / "LICENSE").read_text("utf-8").lower().split())
    characters = sorted({*seen, *"".join(texts)})
    place = {character: number for number, character in enumerate(characters)}
    counts: dict[str, NDArray[np.float64]] = {}
    for at, character in enumerate(seen):
        for length in range(min(ORDER, at) + 1):
            counts.setdefault(seen[at - length : at], np.zeros(len(characters)))[place[character]] += 1

    def probabilities(context: str) -> NDArray[np.float64]:
        shorter = probabilities(context[1:]) if context else np.full(len(characters), 1 / len(characters))
        found = counts.get(context)
        return shorter if found is None else (found + MIXED * shorter) / (found.sum() + MIXED)

    ids = [np.array([place[character] for character in text], np.int32) for text in texts]
    logits = [
        np.log([probabilities(text[max(0, at + 1 - ORDER) : at + 1]) for at in range(len(text))]).astype(np.float32)
        for text in texts
    ]
    return Zen(characters, texts, ids, logits)


def make_sequences(path: Path) -> None:
    """Write ``sequences.parquet``: one line of text per row, one list of logits per character."""
    zen = train_on_license()
    rows = [pa.array(list(row), pa.list_(pa.float32())) for row in zen.logits]
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    columns = {
        "id": np.arange(len(rows)),
        "text": pa.array(zen.texts),
        "logits": pa.ListArray.from_arrays(pa.array(offsets), pa.concat_arrays(rows)),
        "ids": pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(zen.ids))),
    }
    _write(path, columns, {"characters": "".join(zen.characters)})


def make_data(folder: Path) -> None:
    """Write the digits, the sequences, ``layouts/``, ``labels/`` and the class names into ``folder``."""
    digits = train_on_digits()
    for name in ("layouts", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    whole = {"id": digits.ids, **LAYOUTS["list"].of(digits.logits), "label": digits.labels}
    _write(folder / "digits.parquet", whole, hugging_face_metadata(DIGIT_NAMES))
    make_sequences(folder / "sequences.parquet")

    few = slice(FEW_ROWS)
    ids, labels, logits = digits.ids[few], digits.labels[few], digits.logits[few]
    for name, layout in LAYOUTS.items():
        columns = {"id": ids, **layout.of(logits), "label": labels}
        schema = pa.record_batch(columns).schema
        metadata = spark_metadata(schema, logits.shape[1]) if name == "spark" else None
        _write(folder / "layouts" / f"digits_{name}.parquet", columns, metadata)

    names = pa.array([DIGIT_NAMES[label] for label in labels])
    soft = as_list(digits.soft_labels[few])["logits"]
    for name, label in {
        "string": names,
        "dictionary": names.dictionary_encode(),
        "distribution": soft,
    }.items():
        columns = {"id": ids, **LAYOUTS["list"].of(logits), "label": label}
        _write(folder / "labels" / f"digits_{name}.parquet", columns)
    (folder / "labels" / "classes.txt").write_text("".join(f"{name}\n" for name in DIGIT_NAMES))
    config = {"id2label": {str(k): name for k, name in enumerate(DIGIT_NAMES)}}
    (folder / "labels" / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _write(path: Path, columns: Columns, metadata: dict[str, str] | None = None) -> None:
    table = pa.table(columns).replace_schema_metadata(metadata)
    with open_writer(path, table.schema) as writer:
        writer.write_table(table)


# The command line


def main(arguments: list[str] | None = None) -> None:
    """Remake ``data/``, or write the file that the arguments describe."""
    parser = argparse.ArgumentParser(description="Remake data/, or write PATH: synthetic logits with labels.")
    parser.add_argument("path", nargs="?", type=Path, metavar="PATH", help="a file to write; default: remake data/")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--tokens", type=int, metavar="N", help="a sequence of N tokens a row, as nested lists")
    parser.add_argument("--layout", choices=LAYOUTS, default="list")
    parser.add_argument("--dtype", choices=["float16", "float32", "float64", "int32"], help="of the elements")
    parser.add_argument("--row-group-size", type=int, metavar="ROWS", help="default: 16 MiB of logits")
    parser.add_argument("--compression", default="snappy", help="snappy, zstd, lz4, gzip, brotli or none")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.path is None:
        make_data(DATA)
        return
    if given.dtype and not LAYOUTS[given.layout].any_dtype:
        parser.error(f"--dtype cannot be chosen for the layout {given.layout}")
    if given.classes < 1 or given.rows < 0:
        parser.error("--classes is at least 1, --rows at least 0")
    if given.tokens is not None:
        if given.tokens < 1:
            parser.error("--tokens is at least 1")
        if given.layout != "list" or given.dtype or given.row_group_size:
            parser.error("--tokens writes nested lists of float32, a row group each; leave out the other options")
        make_large_sequences(
            given.path, given.rows, given.tokens, given.classes, compression=given.compression, seed=given.seed
        )
        return
    make_large(
        given.path,
        given.rows,
        given.classes,
        layout=given.layout,
        dtype=given.dtype,
        row_group_size=given.row_group_size,
        compression=given.compression,
        seed=given.seed,
    )


if __name__ == "__main__":
    main()
