"""Damaged Parquet files, Arrow IPC streams, tables and metadata, made from valid ones by changing their structure.

A case is a function of a seed and a number. Footers, page headers and messages are parsed and written again with fields
that are changed, of another type, missing, duplicated or reordered. Page bodies are decompressed, changed and
compressed again. Checksums and sizes are right unless they are the damage. Nothing of batchmax is used, so its parsers
are tested against an independent one.
"""

from __future__ import annotations

import contextlib
import decimal
import io
import itertools
import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.paths import DATA

ROWS, CLASSES = 40, 5
NUMBERS = [
    0,
    1,
    2,
    3,
    -1,
    -2,
    5,
    40,
    127,
    255,
    1 << 15,
    (1 << 31) - 1,
    1 << 31,
    1 << 32,
    1 << 40,
    1 << 60,
    (1 << 63) - 1,
]
BYTES = [0, 1, 2, 3, 0x7F, 0x80, 0xFF]
TEXTS = [b"", b"\xff\xfe", b"\x1b[2J", b"logits", b"label", b"x" * 5000]
TRUE, FALSE, BYTE, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 1, 2, 3, 6, 7, 8, 9, 10, 11, 12
OTHERS = [(TRUE, True), (BYTE, 7), (I64, 7), (DOUBLE, bytes(8)), (BINARY, b"text"), (LIST, (I64, [1, 2])), (STRUCT, [])]
"""Values of other types."""
DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 2, 3
CODECS = {0: None, 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}


@dataclass(frozen=True)
class Case:
    """A damaged input: its kind, its bytes or table, and the table before the damage."""

    kind: str
    data: bytes | pa.Table
    original: pa.Table


def case(seed: int, number: int) -> Case:
    """Return one of the cases of a seed."""
    for attempt in itertools.count():
        choose = random.Random(f"{seed} {number} {attempt}")
        kind = choose.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
        with contextlib.suppress(Exception):  # a second change may find nothing to parse
            return Case(kind, *KINDS[kind][1](choose))
    raise AssertionError


# Parquet


@cache
def parquet_files() -> list[tuple[bytes, pa.Table]]:
    """Return valid files with many options, and their rows."""
    found = []
    options: list[dict[str, Any]] = [
        {"compression": codec, "write_page_checksum": checksum, "data_page_version": version, "use_dictionary": repeat}
        for codec in ("snappy", "zstd", "gzip", "brotli", "lz4", "none")
        for checksum, version, repeat in [(True, "1.0", True), (False, "2.0", True), (False, "1.0", False)]
    ]
    for number, chosen in enumerate(options):
        table = rows(nulls=number % 2 == 1)
        stream = io.BytesIO()
        pq.write_table(table, stream, row_group_size=16, **chosen)
        found.append((stream.getvalue(), table))
    paths = sorted((DATA / "layouts").glob("*.parquet"))
    return found + [(path.read_bytes(), pq.read_table(path)) for path in paths]


def rows(*, nulls: bool = False) -> pa.Table:
    """Return rows with an id, logits, a label, a text and a list."""
    logits = np.random.default_rng(0).normal(size=(ROWS, CLASSES)).astype(np.float32)
    lists: list[Any] = list(logits)
    if nulls:
        lists[7] = None
    return pa.table(
        {
            "id": pa.array(range(ROWS)),
            "logits": pa.array(lists, pa.list_(pa.float32())),
            "label": pa.array([None if nulls and row % 9 == 0 else row % CLASSES for row in range(ROWS)], pa.int32()),
            "text": pa.array([None if nulls and row % 5 == 0 else f"text {row % 3}" for row in range(ROWS)]),
            "more": pa.array([[row] * (row % 3) for row in range(ROWS)], pa.list_(pa.int16())),
        }
    )


def _file(choose: random.Random) -> tuple[bytes, pa.Table]:
    return choose.choice(parquet_files())


def _damaged_footer(choose: random.Random) -> tuple[bytes, pa.Table]:
    data, table = _file(choose)
    body, fields = split_footer(data)
    for _ in range(choose.choice([1, 1, 2, 3])):
        change_fields(fields, choose)
    return join_footer(body, fields), table


def _damaged_page(choose: random.Random) -> tuple[bytes, pa.Table]:
    """Return a file in which one page of a column chunk is changed and the chunk is moved."""
    data, table = _file(choose)
    body, fields = split_footer(data)
    metadata = choose.choice(value(choose.choice(value(fields, 4)[1]), 1)[1])
    metadata = value(metadata, 3)
    starts = [value(metadata, 9), *([value(metadata, 11)] if value(metadata, 11) else [])]
    start, size = min(starts), value(metadata, 7)
    codec = CODECS.get(value(metadata, 4))
    pages, at = [], start
    while at < start + size:
        header, after = read_struct(data, at)
        at = after + value(header, 3)
        pages.append([header, data[after:at]])
    number = choose.randrange(len(pages))
    header, page = pages[number]
    match choose.randrange(6):
        case 0:
            change_fields(header, choose)
        case 1 | 2:
            page = change_bytes(page, choose, choose.choice([8, 16, len(page)]))
        case 3:
            pages.insert(number, [header, page])
        case 4:
            pages.pop(number)
            pages.insert(choose.randrange(len(pages) + 1), [header, page])
        case _:
            page = _changed_inside(header, page, codec, choose)
    if number < len(pages) and pages[number][0] is header:
        set_value(header, 3, len(page)) if choose.random() < 0.9 else None
        if value(header, 4) is not None and choose.random() < 0.95:
            crc = zlib.crc32(page)
            set_value(header, 4, crc - (1 << 32) if crc >> 31 else crc)
        pages[number][1] = page
    chunk = b"".join(write_struct(header) + page for header, page in pages)
    first = len(write_struct(pages[0][0])) + len(pages[0][1]) if pages else 0
    set_value(metadata, 9, len(body) + (first if value(metadata, 11) else 0))
    if value(metadata, 11):
        set_value(metadata, 11, len(body))
    set_value(metadata, 7, len(chunk))
    return join_footer(body + chunk, fields), table


def _changed_inside(header: list[Any], page: bytes, codec: str | None, choose: random.Random) -> bytes:
    """Return a page whose levels, indices or values were changed before compression."""
    v2 = value(header, 8)
    levels = (value(v2, 5) or 0) + (value(v2, 6) or 0) if v2 else 0
    size = value(header, 2) - levels
    packed = page[levels:]
    plain = packed if codec is None else pa.decompress(packed, size, codec, asbytes=True)
    if choose.random() < 0.2:
        return change_bytes(page[:levels], choose, 8) + packed
    changed = change_bytes(plain, choose, choose.choice([4, 8, 16, len(plain)]))
    if choose.random() < 0.1:
        changed = changed[: choose.randrange(len(changed) + 1)]
        set_value(header, 2, levels + len(changed))
    return page[:levels] + (changed if codec is None else pa.compress(changed, codec, asbytes=True))


def _damaged_bytes(choose: random.Random) -> tuple[bytes, pa.Table]:
    """Return a file in which bytes are changed, cut off, duplicated, removed or taken from another file."""
    data, table = _file(choose)
    for _ in range(choose.choice([1, 1, 2, 8])):
        at = choose.randrange(len(data)) if data else 0
        size = choose.randrange(1, 64)
        match choose.randrange(5):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + data[max(0, at - size) : at] + data[at:]
            case 2:
                other, _ = _file(choose)
                start = choose.randrange(len(other))
                data = data[:at] + other[start : start + size] + data[at + size :]
            case 3:
                data = data[:at] + data[at + size :]
            case _:
                data = change_bytes(data, choose, len(data))
    return data, table


def _damaged_metadata(choose: random.Random) -> tuple[bytes, pa.Table]:
    """Return a file whose metadata has JSON with some members changed."""
    features = {"label": {"_type": "ClassLabel", "names": list("abcde")}}
    texts = {
        "huggingface": {"info": {"features": features}},
        "batchmax": _own_metadata(),
        "pandas": {"index_columns": [], "columns": [{"name": "id", "metadata": None}]},
    }
    key = choose.choice(list(texts))
    said = json.loads(json.dumps(texts[key]))
    for _ in range(choose.choice([1, 1, 2, 3])):
        said = _changed_json(said, choose)
    text = said if isinstance(said, str) else json.dumps(said)
    table = rows().replace_schema_metadata({key: text.encode(errors="surrogatepass")})
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue(), table


def _own_metadata() -> dict[str, Any]:
    options: dict[str, Any] = dict.fromkeys(
        ("logits_dtype", "columns", "limit", "top_k", "row_group_size", "compression")
    )
    options |= {"beta": 1.0, "input": "logits", "exclude": [], "ignore_index": -100, "label_smoothing": 0.0}
    options |= {"on_bad_row": "null", "prefix": ""}
    inputs = [{"size": 1000, "footer_sha256": "0" * 64}]
    said: dict[str, Any] = {
        "version": "0",
        "command": "score",
        "logits": ["logits"],
        "label": "label",
        "n_classes": CLASSES,
    }
    said |= {"classes": None, "temperature": 1.0, "outputs": ["probs", "loss"], "layout": "list", "dtype": "float32"}
    return said | {"class_weights": None, "options": options, "inputs": inputs}


def _changed_json(said: Any, choose: random.Random) -> Any:
    odd = [None, True, -1, 0, 1 << 40, 1 << 70, 1e308, float("nan"), float("inf"), "", "x", "\ud800", "\x1b[2J", [], {}]
    odd += [[[]], {"a": 1}, ["a", 1], [1 << 70], [None], _nested(choose.choice([10, 70, 500]))]
    if isinstance(said, dict) and said and choose.random() < 0.9:
        key = choose.choice(list(said))
        changed = dict(said)
        match choose.randrange(8):
            case 0:
                del changed[key]
            case 1:
                changed[choose.choice(["", "x", "\ud800", *said])] = said[key]
            case _:
                changed[key] = _changed_json(said[key], choose)
        return changed
    if isinstance(said, list) and said and choose.random() < 0.7:
        place = choose.randrange(len(said))
        return [*said[:place], _changed_json(said[place], choose), *said[place + choose.choice([0, 1]) :]]
    return choose.choice(odd)


def _nested(depth: int) -> Any:
    found: Any = 1
    for level in range(depth):
        found = [found] if level % 2 else {"a": found}
    return found


def split_footer(data: bytes) -> tuple[bytes, list[Any]]:
    """Return the bytes before the footer of a file, and the fields of the footer."""
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    return data[:end], read_struct(data, end)[0]


def join_footer(body: bytes, fields: list[Any]) -> bytes:
    """Return a file with this body and footer."""
    footer = write_struct(fields)
    return body + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def change_bytes(data: bytes, choose: random.Random, most: int) -> bytes:
    """Return ``data`` with some of the first ``most`` bytes changed."""
    changed = bytearray(data)
    for _ in range(choose.choice([1, 1, 2, 8])):
        if changed and most:
            at = choose.randrange(min(len(changed), most))
            changed[at] = choose.choice([*BYTES, changed[at] ^ (1 << choose.randrange(8)), (changed[at] + 1) % 256])
    return bytes(changed)


# Thrift: a struct is a list of [number, type, value], in any order and with repetitions


def value(fields: list[Any] | None, number: int) -> Any:
    """Return the value of a field, or None if it is missing."""
    return next((field[2] for field in fields or () if field[0] == number), None)


def set_value(fields: list[Any], number: int, new: Any) -> None:
    """Set the value of a field that exists."""
    for field in fields:
        if field[0] == number:
            field[2] = new


def change_fields(fields: list[Any], choose: random.Random) -> None:
    """Change a field of a struct, or of a struct within it."""
    at = fields
    while True:
        field = choose.choice(at)
        inner = field[2]
        if field[1] == STRUCT and inner and choose.random() < 0.9:
            at = inner
            continue
        structs = [one for one in inner[1] if isinstance(one, list)] if field[1] in {LIST, SET} else []
        if structs and choose.random() < 0.85:
            at = choose.choice(structs)
            if at:
                continue
            return
        break
    match choose.randrange(8):
        case 0:
            at.remove(field)
        case 1:
            at.insert(choose.randrange(len(at) + 1), list(field))
        case 2:
            choose.shuffle(at)
        case 3:
            field[0] = choose.choice([field[0] + 1, field[0] + 20, -1, 32767])
        case 4:
            field[1], field[2] = choose.choice(
                [
                    (TRUE, True),
                    (BYTE, 7),
                    (I64, 7),
                    (BINARY, b"text"),
                    (LIST, (I64, [1, 2])),
                    (STRUCT, []),
                    (DOUBLE, bytes(8)),
                ]
            )
        case _:
            field[2] = _changed_value(field[1], inner, choose)


def _changed_value(kind: int, inner: Any, choose: random.Random) -> Any:
    if kind in {TRUE, FALSE}:
        return inner
    if kind == DOUBLE:
        return bytes(choose.randrange(256) for _ in range(8))
    if kind == BINARY:
        return choose.choice([*TEXTS, inner[::-1], inner * 50, change_bytes(inner, choose, len(inner))])
    if kind in {LIST, SET}:
        values = list(inner[1])
        if values and choose.random() < 0.5:
            values.pop(choose.randrange(len(values)))
        elif values:
            values.insert(choose.randrange(len(values)), choose.choice(values))
        return (inner[0], values)
    if isinstance(inner, int):
        return choose.choice([*NUMBERS, inner + 1, inner - 1, -inner])
    return inner


def read_struct(data: bytes, at: int) -> tuple[list[Any], int]:
    """Return the fields of a struct, and the position after it."""
    fields, number = [], 0
    while data[at]:
        kind, delta = data[at] & 15, data[at] >> 4
        at += 1
        if delta:
            number += delta
        else:
            number, at = _zigzag(data, at)
        found, at = _read(data, at, kind)
        fields.append([number, kind, found])
    return fields, at + 1


def _read(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in {TRUE, FALSE}:
        return kind == TRUE, at
    if kind == BYTE:
        return data[at], at + 1
    if kind <= I64:
        return _zigzag(data, at)
    if kind == DOUBLE:
        return data[at : at + 8], at + 8
    if kind == BINARY:
        size, at = _varint(data, at)
        return data[at : at + size], at + size
    if kind in {LIST, SET}:
        head = data[at]
        size, at = (head >> 4, at + 1) if head >> 4 < 15 else _varint(data, at + 1)
        values = []
        for _ in range(size):
            found, at = (data[at] == 1, at + 1) if head & 15 in {TRUE, FALSE} else _read(data, at, head & 15)
            values.append(found)
        return (head & 15, values), at
    if kind == STRUCT:
        return read_struct(data, at)
    raise ValueError(f"a field of type {kind}")


def write_struct(fields: list[Any]) -> bytes:
    """Return a struct as bytes, with its fields in any order."""
    out, before = b"", 0
    for number, kind, inner in fields:
        head = (TRUE if inner else FALSE) if kind in {TRUE, FALSE} else kind
        delta = number - before
        out += (
            bytes([delta << 4 | head])
            if 0 < delta < 16
            else bytes([head]) + _to_varint((number << 1 ^ number >> 63) % (1 << 64))
        )
        out += b"" if kind in {TRUE, FALSE} else _write(kind, inner)
        before = number
    return out + b"\0"


def _write(kind: int, inner: Any) -> bytes:
    if kind in {TRUE, FALSE}:
        return bytes([TRUE if inner else FALSE])
    if kind == BYTE:
        return bytes([inner & 255])
    if kind <= I64:
        return _to_varint((inner << 1 ^ inner >> 63) & (1 << 64) - 1)
    if kind == DOUBLE:
        return bytes(inner)
    if kind == BINARY:
        return _to_varint(len(inner)) + b"".join([inner])
    if kind in {LIST, SET}:
        size = len(inner[1])
        head = bytes([size << 4 | inner[0]]) if size < 15 else bytes([0xF0 | inner[0]]) + _to_varint(size)
        return head + b"".join(_write(inner[0], one) for one in inner[1])
    return write_struct(inner)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    found = shift = 0
    while True:
        found |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return found, at


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    found, at = _varint(data, at)
    return (found >> 1) ^ -(found & 1), at


def _to_varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


# Arrow


@cache
def arrow_columns() -> dict[str, pa.Array]:
    """Return a column of each kind of Arrow array."""
    n, numbers = 12, pa.array([1, 2, None, 4, 5, 6, 7, None, 9, 10, 11, 12], pa.int32())
    texts = pa.array(["a", None, "", "text", "a text that is longer than a view", "b"] * 2)
    ends = pa.array([3, 7, n], pa.int32())
    kinds = pa.array([0, 1] * (n // 2), pa.int8())
    lists = pa.array([[1, 2], None, [], [3], [4, 5, 6], [None]] * 2, pa.list_(pa.int32()))
    pairs = pa.array([[("a", 1)], [], None, [("b", None), ("c", 3)]] * 3, pa.map_(pa.string(), pa.int32()))
    return {
        "int": numbers,
        "bool": pa.array([True, None, False] * 4),
        "text": texts,
        "large text": texts.cast(pa.large_string()),
        "bytes": texts.cast(pa.binary()),
        "text view": texts.cast(pa.string_view()),
        "bytes view": texts.cast(pa.binary_view()),
        "fixed bytes": pa.array([b"abc", None, b"def"] * 4, pa.binary(3)),
        "decimal": pa.array([decimal.Decimal("1.5"), None] * 6, pa.decimal128(5, 1)),
        "time": pa.array([1, None, 3] * 4, pa.time64("us")),
        "list": lists,
        "large list": lists.cast(pa.large_list(pa.int32())),
        "fixed list": pa.array([[1, 2], None, [3, None]] * 4, pa.list_(pa.int32(), 2)),
        "list view": pa.array(lists.to_pylist(), pa.list_view(pa.int32())),
        "large list view": pa.array(lists.to_pylist(), pa.large_list_view(pa.int32())),
        "list of text views": pa.array([["a"], None, ["b", "longer than a view"]] * 4, pa.list_(pa.string_view())),
        "struct": pa.StructArray.from_arrays([numbers, texts], ["a", "b"], mask=pa.array([False, True] * 6)),
        "map": pairs,
        "dictionary": texts.dictionary_encode(),
        "dictionary of lists": pa.DictionaryArray.from_arrays(pa.array([0, 1, None] * 4), pa.array([[1], [2, 3]])),
        "runs": pa.RunEndEncodedArray.from_arrays(ends, pa.array(["a", None, "c"])),
        "runs of lists": pa.RunEndEncodedArray.from_arrays(ends, pa.array([[1], [2, 3], []])),
        "sparse union": pa.UnionArray.from_sparse(kinds, [numbers, texts]),
        "dense union": pa.UnionArray.from_dense(kinds, pa.array(np.arange(n, dtype=np.int32) // 2), [numbers, texts]),
        "extension": pa.ExtensionArray.from_storage(pa.json_(), texts),
        "null": pa.nulls(n),
    }  # fmt: skip


def arrow_batch(name: str) -> pa.RecordBatch:
    """Return a batch with one of these columns."""
    column = arrow_columns()[name]
    n = len(column)
    logits = pa.array(np.random.default_rng(1).normal(size=(n, 4)).astype(np.float32).tolist(), pa.list_(pa.float32()))
    label = pa.array([row % 4 for row in range(n)], pa.int32())
    return pa.record_batch({"logits": logits, "label": label, "x": column})


def _damaged_stream(choose: random.Random) -> tuple[bytes, pa.Table]:
    """Return a stream in which a message is changed, removed, duplicated or cut off."""
    batch = arrow_batch(choose.choice(list(arrow_columns())))
    options = pa.ipc.IpcWriteOptions(
        compression=choose.choice([None, None, "lz4", "zstd"]), emit_dictionary_deltas=choose.random() < 0.5
    )
    out = io.BytesIO()
    with pa.ipc.new_stream(out, batch.schema, options=options) as writer:
        for start, size in ((0, 5), (5, 7)):
            writer.write_batch(batch.slice(start, size))
    data = out.getvalue()
    messages = list(split_stream(data))
    for _ in range(choose.choice([1, 1, 1, 2, 4])):
        number = choose.randrange(len(messages))
        head, metadata, body = messages[number]
        match choose.randrange(10):
            case 0:
                messages.insert(number, messages[choose.randrange(len(messages))])
            case 1:
                del messages[number]
                if not messages:
                    messages = [(b"", b"", b"")]
            case 2:
                head = change_bytes(head, choose, 8)
                messages[number] = head, metadata, body
            case 3 | 4 | 5 | 6:
                messages[number] = head, change_words(metadata, choose), body
            case _:
                messages[number] = head, metadata, change_words(body, choose)
    data = b"".join(map(b"".join, messages))
    if choose.random() < 0.05:
        data = data[: choose.randrange(len(data) + 1)]
    return data, pa.Table.from_batches([batch])


def split_stream(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Return the messages of a stream as (prefix, metadata, body), and the end marker."""
    source, messages, at = pa.BufferReader(data), [], 0
    for _ in range(100):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if not size:
            break
        message = pa.ipc.read_message(source)
        body = 0 if message.body is None else message.body.size
        start = at + 8 + size
        messages.append((data[at : at + 8], data[at + 8 : start], data[start : start + body]))
        at = start + body
    return [*messages, (data[at:], b"", b"")]


def change_words(data: bytes, choose: random.Random) -> bytes:
    """Return bytes in which some integers of 1, 2, 4 or 8 bytes are changed."""
    changed = bytearray(data)
    for _ in range(choose.choice([1, 1, 2])):
        width = choose.choice([1, 2, 4, 4, 8, 8])
        if len(changed) < width:
            break
        at = width * choose.randrange(len(changed) // width)
        old = int.from_bytes(changed[at : at + width], "little")
        new = choose.choice([*NUMBERS, old + 1, old - 1, old ^ (1 << choose.randrange(8 * width))])
        changed[at : at + width] = (new % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(changed)


def _damaged_table(choose: random.Random) -> tuple[pa.Table, pa.Table]:
    """Return a table with an array that is made of changed buffers."""
    names = [name for name in arrow_columns() if name not in {"map", "null"}]  # damaged maps make Arrow abort
    name = choose.choice(names)
    batch = arrow_batch(name)
    column = choose.choice(["x", "x", "x", "logits"])
    for _ in range(20):
        try:
            array = _changed_array(batch[column], choose)
            break
        except (pa.ArrowException, ValueError, IndexError):
            continue
    else:
        array = batch[column]
    found = batch.set_column(batch.schema.get_field_index(column), column, array)
    return pa.Table.from_batches([found]), pa.Table.from_batches([batch])


def _changed_array(array: pa.Array, choose: random.Random) -> pa.Array:
    """Return an array in which one buffer of it or of a child is changed."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return pa.ExtensionArray.from_storage(kind, _changed_array(array.storage, choose))
    if isinstance(array, pa.DictionaryArray):
        if choose.random() < 0.3:
            return pa.DictionaryArray.from_arrays(array.indices, _changed_array(array.dictionary, choose), safe=False)
        return pa.DictionaryArray.from_arrays(_changed_array(array.indices, choose), array.dictionary, safe=False)
    children = _children(array)
    own = array.buffers()[: kind.num_buffers if not pa.types.is_string_view(kind) else None]
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        own = array.buffers()
    full = [number for number, buffer in enumerate(own) if buffer is not None and buffer.size]
    if children and (not full or choose.random() < 0.4):
        place = choose.randrange(len(children))
        children[place] = _changed_array(children[place], choose)
    elif full:
        place = choose.choice(full)
        own[place] = pa.py_buffer(change_words(own[place].to_pybytes(), choose))
    return pa.Array.from_buffers(kind, len(array), own, children=children or None)


def _children(array: pa.Array) -> list[pa.Array]:
    kind = array.type
    if pa.types.is_struct(kind) or pa.types.is_union(kind):
        return [array.field(place) for place in range(kind.num_fields)]
    if pa.types.is_run_end_encoded(kind):
        return [array.run_ends, array.values]
    return [array.values] if pa.types.is_nested(kind) else []


KINDS: dict[str, tuple[int, Callable[[random.Random], tuple[bytes | pa.Table, pa.Table]]]] = {
    "footer": (25, _damaged_footer),
    "page": (25, _damaged_page),
    "bytes": (10, _damaged_bytes),
    "metadata": (10, _damaged_metadata),
    "stream": (20, _damaged_stream),
    "table": (10, _damaged_table),
}
"""The kinds of damage, with their weights."""
