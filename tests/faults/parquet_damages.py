"""Damaged Parquet files, made from valid ones by changing their structure."""

from __future__ import annotations

import io
import json
import random
import zlib
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.byte_changes import change_bytes
from tests.faults.thrift_structs import (
    change_fields,
    join_footer,
    read_struct,
    set_value,
    split_footer,
    value,
    write_struct,
)
from tests.support.paths import DATA

ROWS, CLASSES = 40, 5
DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 2, 3
CODECS = {0: None, 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}


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


def damaged_footer(choose: random.Random) -> tuple[bytes, pa.Table]:
    data, table = _file(choose)
    body, fields = split_footer(data)
    for _ in range(choose.choice([1, 1, 2, 3])):
        change_fields(fields, choose)
    return join_footer(body, fields), table


def damaged_page(choose: random.Random) -> tuple[bytes, pa.Table]:
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


def damaged_bytes(choose: random.Random) -> tuple[bytes, pa.Table]:
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


def damaged_metadata(choose: random.Random) -> tuple[bytes, pa.Table]:
    """Return a file whose metadata has JSON with some members changed."""
    features = {"label": {"_type": "ClassLabel", "names": list("abcde")}}
    texts = {
        "huggingface": {"info": {"features": features}},
        "batchmax": _own_metadata(),
        "pandas": {"index_columns": [], "columns": [{"name": "id", "metadata": None}]},
    }
    key = choose.choice(list(texts))
    document = json.loads(json.dumps(texts[key]))
    for _ in range(choose.choice([1, 1, 2, 3])):
        document = _changed_json(document, choose)
    text = document if isinstance(document, str) else json.dumps(document)
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
    document: dict[str, Any] = {
        "version": "0",
        "command": "score",
        "logits": ["logits"],
        "label": "label",
        "n_classes": CLASSES,
    }
    document |= {
        "classes": None,
        "temperature": 1.0,
        "outputs": ["probs", "loss"],
        "layout": "list",
        "dtype": "float32",
    }
    return document | {"class_weights": None, "options": options, "inputs": inputs}


def _changed_json(document: Any, choose: random.Random) -> Any:
    odd = [None, True, -1, 0, 1 << 40, 1 << 70, 1e308, float("nan"), float("inf"), "", "x", "\ud800", "\x1b[2J", [], {}]
    odd += [[[]], {"a": 1}, ["a", 1], [1 << 70], [None], _nested(choose.choice([10, 70, 500]))]
    if isinstance(document, dict) and document and choose.random() < 0.9:
        key = choose.choice(list(document))
        changed = dict(document)
        match choose.randrange(8):
            case 0:
                del changed[key]
            case 1:
                changed[choose.choice(["", "x", "\ud800", *document])] = document[key]
            case _:
                changed[key] = _changed_json(document[key], choose)
        return changed
    if isinstance(document, list) and document and choose.random() < 0.7:
        place = choose.randrange(len(document))
        return [*document[:place], _changed_json(document[place], choose), *document[place + choose.choice([0, 1]) :]]
    return choose.choice(odd)


def _nested(depth: int) -> Any:
    found: Any = 1
    for level in range(depth):
        found = [found] if level % 2 else {"a": found}
    return found
