"""Damaged Arrow IPC streams and tables, made from valid ones by changing their structure."""

from __future__ import annotations

import decimal
import io
import random
from functools import cache

import numpy as np
import pyarrow as pa

from tests.faults.byte_changes import change_bytes, change_words


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


def damaged_stream(choose: random.Random) -> tuple[bytes, pa.Table]:
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


def damaged_table(choose: random.Random) -> tuple[pa.Table, pa.Table]:
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
