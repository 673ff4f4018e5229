"""Readers of Parquet with a common signature: the path of a file or folder, and the schema of the result.

Each returns a pyarrow table with the columns of the schema, in its order. If a reader returns another type
(a timestamp without a time zone, strings instead of a dictionary), the column is cast, so that values are compared.
"""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.requirements import is_older, optional, package

duckdb = optional("duckdb")
pd = optional("pandas")
pl = optional("polars")


def read_pyarrow(path, schema):
    return in_schema(pq.read_table(path, columns=schema.names), schema)


def read_polars(path, schema):
    return in_schema(pl.read_parquet(path, columns=schema.names).to_arrow(), schema)


def read_polars_streaming(path, schema):
    frame = pl.scan_parquet(path).select(schema.names).collect(engine="streaming")
    return in_schema(frame.to_arrow(), schema)


def duckdb_files(path):
    """Return the table function that reads a file or folder; a folder's rows are in the order of its files."""
    return f"read_parquet('{path}/**/*.parquet')" if Path(path).is_dir() else f"read_parquet('{path}')"


def ask_duckdb(query):
    with duckdb.connect(config={"threads": 1}) as connection:
        return connection.sql(query).to_arrow_table()


def read_duckdb(path, schema):
    names = ", ".join(f'"{name}"' for name in schema.names)
    return in_schema(ask_duckdb(f"SELECT {names} FROM {duckdb_files(path)}"), schema)


def read_pandas(path, schema):
    return pa.Table.from_pandas(pd.read_parquet(path, columns=schema.names), schema, preserve_index=False)


def read_pandas_arrow(path, schema):
    frame = pd.read_parquet(path, columns=schema.names, dtype_backend="pyarrow")
    return in_schema(pa.Table.from_pandas(frame, preserve_index=False), schema)


@contextlib.contextmanager
def fastparquet_file(path):
    """Open a file or folder, and close the files that fastparquet leaves open."""
    fastparquet = package("fastparquet")
    with contextlib.ExitStack() as stack:
        opened = lambda name, mode="rb": stack.enter_context(Path(name).open(mode))
        yield fastparquet.ParquetFile(files_of(path), open_with=opened)


def read_fastparquet(path, schema):
    with fastparquet_file(path) as file:
        frame = file.to_pandas(columns=schema.names, index=False)
    return from_fastparquet(frame, schema)


def from_fastparquet(frame, schema):
    columns = []
    for field in schema:
        values = frame[field.name]
        if pa.types.is_nested(field.type):
            rows = [None if row is None else [None if x is None else x for x in row] for row in values]
            columns.append(pa.array(rows, field.type))
        else:
            columns.append(pa.array(values, from_pandas=True))
    return in_schema(pa.table(columns, schema.names), schema)


@functools.cache
def hugging_face(cache):
    """Import datasets, with its caches in a folder of the tests and without network access."""
    os.environ.update(HF_HOME=cache, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    datasets = package("datasets")
    datasets.disable_progress_bars()
    return datasets


def files_of(path):
    return sorted(str(file) for file in Path(path).rglob("*.parquet")) if Path(path).is_dir() else str(path)


def files_of_datasets(path):
    """Return the files that ``datasets`` reads.

    Before version 5.1 it fails if the first of several files has no rows, so files without rows are left out.
    """
    files = files_of(path)
    if isinstance(files, list) and is_older("datasets", "5.1"):
        files = [file for file in files if pq.read_metadata(file).num_rows]
    return files


def load_dataset(path, schema):
    """Read with ``load_dataset``, which copies the rows into its cache."""
    cache = Path(path).parent / ".hugging_face"
    datasets = hugging_face(str(cache))
    columns = list(schema.names)
    data = datasets.load_dataset(
        "parquet", data_files=files_of_datasets(path), split="train", cache_dir=str(cache), columns=columns
    )
    return in_schema(data.with_format("arrow")[:], schema)


def dataset_from_parquet(path, schema):
    cache = Path(path).parent / ".hugging_face"
    datasets = hugging_face(str(cache))
    data = datasets.Dataset.from_parquet(files_of_datasets(path), cache_dir=str(cache), columns=list(schema.names))
    return in_schema(data.with_format("arrow")[:], schema)


READERS = {
    "pyarrow": read_pyarrow,
    "polars": read_polars,
    "polars_streaming": read_polars_streaming,
    "duckdb": read_duckdb,
    "pandas": read_pandas,
    "pandas_arrow": read_pandas_arrow,
    "fastparquet": read_fastparquet,
    "load_dataset": load_dataset,
    "Dataset.from_parquet": dataset_from_parquet,
}


def in_schema(table, schema):
    """Return the columns of a schema, each in one chunk and of the schema's type."""
    columns = [as_type(table[field.name].combine_chunks(), field.type) for field in schema]
    return pa.table(columns, schema.names)


def as_type(array, kind):
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks else pa.array([], array.type)
    if array.type == kind:
        return array
    if isinstance(array, pa.DictionaryArray) and not pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
    if pa.types.is_decimal(kind) and pa.types.is_floating(array.type):
        return array.cast(kind)
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array
        return array.cast(kind.value_type).dictionary_encode().cast(kind)
    if array.null_count == len(array):
        return pa.nulls(len(array), kind)
    return array.cast(kind)


def same(one, other):
    """Return whether two columns have the same values, including nulls; NaN equals NaN."""
    if pa.types.is_dictionary(one.type):
        one, other = one.cast(one.type.value_type), other.cast(other.type.value_type)
    if one.equals(other):
        return True
    # In Arrow's equality, NaN differs from NaN.
    return one.type == other.type and repr(one.to_pylist()) == repr(other.to_pylist())


def numbers_of(column, n_classes):
    """Return the values of a list column's rows that aren't null, (n, K), and a mask of null rows, (n_rows,)."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    missing = column.is_null().to_numpy(zero_copy_only=False)
    values = column.filter(pa.array(~missing)).flatten()
    assert values.null_count == 0
    return np.asarray(values).reshape(-1, n_classes), missing
