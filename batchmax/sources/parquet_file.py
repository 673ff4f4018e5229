"""Opens Parquet files, local or in an object store, for pyarrow and for positioned reads; detects changes to them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.errors import DataError
from batchmax.parquet import Footer
from batchmax.parquet.footer import MAGIC, TAIL
from batchmax.parquet.int96 import footer_without_int96, has_int96
from batchmax.runtime.text import quantity
from batchmax.sources.content_sample import sampled_ranges
from batchmax.sources.read_errors import DAMAGED, ENCRYPTED_MAGIC, encrypted, read_errors
from batchmax.sources.schemas.file_columns import FileColumns
from batchmax.sources.streams.arrow_batches import decoded_batch, decoded_schema
from batchmax.storage.object_store import ObjectInfo, Store, store_of
from batchmax.storage.paths import is_uri
from batchmax.storage.range_cache import PREFETCH_BYTES, RangeCache, coalesced

READ_BUFFER = 1 << 20
END_BYTES = 64 << 10
"""Bytes read at once from the end of an object: most footers fit."""

T = TypeVar("T")


class FileStat(NamedTuple):
    """Attributes of a file that change when it is replaced or written to, as ``stat`` reports them.

    Only the system sets the change time (ctime): a program that writes to a file and then restores its modification
    time (``touch -r``, ``rsync -t``) changes it too. It also changes with the file's mode, owner and number of links.
    Not detected are: a write within the same tick of the system's clock (a few milliseconds) as the previous write; a
    write through a memory map that the system hasn't noted yet; a write by another machine whose attributes a network
    file system hasn't fetched yet; and a write after the clock was set back. An object in a store has only a size and a
    modification time, often in whole seconds.
    """

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


@dataclass(frozen=True)
class InputFile:
    """One Parquet file of an input; for an object in a store, also the store and the bytes of the footer.

    ``columns`` is how its columns are read: as they are, unless it is one of several files.
    """

    path: str
    metadata: pq.FileMetaData
    size: int
    stat: FileStat
    columns: FileColumns
    store: Store | None = None
    tail: bytes = b""

    def conform(self, batch: pa.RecordBatch, names: Collection[str] | None = None) -> pa.RecordBatch:
        """Return a batch of the file with the columns of all files; see :meth:`FileColumns.conform`."""
        return self.columns.conform(decoded_batch(batch), self.path, names)

    @property
    def schema(self) -> pa.Schema:
        """The schema of the file itself; without its metadata if it is one of several files."""
        return self.columns.own

    def with_timestamps(
        self, batch: pa.RecordBatch, names: Collection[str], convert: Callable[[pa.Array, pa.Field], pa.Array]
    ) -> pa.RecordBatch:
        """Return a batch in which columns of INT96 bytes are converted to timestamps.

        ``convert`` gets the bytes and the field of the file's schema.
        """
        for number, field in enumerate(batch.schema):
            if field.name in names:
                array = convert(batch.column(number), self.schema.field(field.name))
                batch = batch.set_column(number, field.with_type(array.type), array)
        return batch

    def read_as_stored(self, names: Iterable[str]) -> frozenset[str]:
        """Return the given columns that aren't cast to another type."""
        return frozenset(names) - self.columns.cast

    @cached_property
    def footer(self) -> Footer:
        """The footer as it is stored; parsed when it is needed.

        Raises
        ------
        DataError
            It is damaged, although pyarrow can read it.
        """
        with read_errors(self.path):
            if self.store is not None:
                return Footer(self.tail)
            with open(self.path, "rb") as stream:  # noqa: PTH123 - avoids a Path object for every file
                return Footer.read(stream.fileno())

    @cached_property
    def int96_columns(self) -> frozenset[str]:
        """Columns that contain INT96 timestamps."""
        return frozenset(column.name for column in self.footer.columns if has_int96(column))

    @cached_property
    def metadata_for_pyarrow(self) -> pq.FileMetaData:
        """The metadata for pyarrow: INT96 is declared as 12 bytes, since pyarrow would narrow the timestamps."""
        changed = footer_without_int96(self.footer) if self.int96_columns else None
        return self.metadata if changed is None else pq.read_metadata(changed)

    @contextlib.contextmanager
    def opened(self) -> Iterator[OpenFile]:
        """Open the file for positioned reads, and for pyarrow in bounded memory with page checksums checked.

        Raises
        ------
        DataError
            The file was changed since its footer was read, or before the end of the ``with`` block.
        """
        if self.store is not None:
            with _open_cached(self, self.store) as opened:
                yield opened
                opened.check_unchanged()
            return
        with (
            open(self.path, "rb", buffering=0) as stream,  # noqa: PTH123 - the path as it was given
            _parquet_file(self.path, self.metadata_for_pyarrow) as parquet,
        ):
            opened = OpenFile(self, parquet, stream.fileno())
            opened.check_unchanged()
            try:
                yield opened
            except Exception:
                with contextlib.suppress(OSError):
                    opened.check_unchanged()  # a change may have caused the error
                raise
            opened.check_unchanged()

    def footer_digest(self) -> str:
        """Return a digest of the footer. Files with equal footers can differ in data: see :attr:`sample_digest`."""
        if self.store is not None:
            return hashlib.sha256(self.tail).hexdigest()
        with open(self.path, "rb") as stream:  # noqa: PTH123 - as above
            stream.seek(-TAIL, os.SEEK_END)
            length = int.from_bytes(stream.read(4), "little")
            stream.seek(-TAIL - length, os.SEEK_END)
            return hashlib.sha256(stream.read(length)).hexdigest()

    @cached_property
    def sample_digest(self) -> str:
        """A digest of a sample of the data; see :mod:`batchmax.sources.content_sample`."""
        ranges = sampled_ranges(self.footer, self.size)
        digest = hashlib.sha256()
        with read_errors(self.path):
            if self.store is not None:
                pieces = self.store.read_ranges(list(coalesced(ranges)))
                for start, end in ranges:
                    first = next(one for one in pieces if one <= start < one + len(pieces[one]))
                    digest.update(pieces[first][start - first : end - first])
                return digest.hexdigest()
            with open(self.path, "rb", buffering=0) as stream:  # noqa: PTH123 - as above
                for start, end in ranges:
                    digest.update(os.pread(stream.fileno(), end - start, start))
        return digest.hexdigest()


class OpenFile:
    """An open file.

    Attributes
    ----------
    file
        The file.
    parquet
        The file for pyarrow.
    descriptor
        File descriptor for positioned reads of ranges that :meth:`need` made available.
    """

    def __init__(
        self, file: InputFile, parquet: pq.ParquetFile, descriptor: int, cache: RangeCache | None = None
    ) -> None:
        self.file = file
        self.parquet = parquet
        self.descriptor = descriptor
        self._cache = cache

    def need(self, group: int, names: Collection[str] | None = None, *, ahead: bool = True) -> None:
        """Make columns of a row group available for reading: dotted names if nested, or None for all.

        From a store, they are fetched, and earlier row groups are freed; with ``ahead``, fetching the following row
        groups begins.
        """
        if self._cache is None:
            return
        self._cache.free_before(group)
        self._cache.wait_for(group, self._ranges(group, names))
        following = group + 1
        while ahead and following < self.parquet.num_row_groups and self._cache.prefetched_bytes < PREFETCH_BYTES:
            self._cache.prefetch(following, self._ranges(following, names))
            following += 1

    def need_start(self) -> None:
        """Make the first bytes available for reading."""
        if self._cache is not None:
            self._cache.wait_for(-1, [(0, len(MAGIC))])

    def check_unchanged(self) -> None:
        """Check that the file is as it was when its footer was read; see :class:`FileStat` for what isn't detected.

        Raises
        ------
        DataError
            It was replaced or written to.
        """
        file = self.file
        if file.store is not None:
            found = file.store.info()
            same = found is not None and _object_stat(found) == file.stat
        else:
            same = _local_stat(os.fstat(self.descriptor)) == _local_stat(os.stat(file.path)) == file.stat  # noqa: PTH116
        if not same:
            raise DataError(
                "the file was changed while it was being read",
                where=file.path,
                remedy="wait until the program that writes it has finished, then run the command again",
            )

    def checked(self, chunks: Iterator[T]) -> Iterator[T]:
        """Yield what is read from the file, each item after a check that a local file is unchanged.

        A consumer that stops early, as with ``--limit``, therefore never gets a mix of old and new bytes. Objects in a
        store are checked only when the file is closed, since each check is a request.
        """
        for chunk in chunks:
            if self._cache is None:
                self.check_unchanged()
            yield chunk

    def _ranges(self, group: int, names: Collection[str] | None) -> list[tuple[int, int]]:
        footer, whole = self.file.footer, [(0, self.file.size)]
        ranges = footer.row_group(group).ranges.clip(max=self.file.size)
        tops = None if names is None else {name.split(".")[0] for name in names} | set(names)
        columns = [column for column in footer.columns if tops is None or column.name in tops]
        leaves = [column.first_leaf + number for column in columns for number in range(len(column.leaves))]
        found: list[tuple[int, int]] = ranges[leaves].tolist()
        if any(start < 0 for start, _ in found):  # encrypted
            return whole
        return [(start, end) for start, end in found if start < end]


@contextlib.contextmanager
def _open_cached(file: InputFile, store: Store) -> Iterator[OpenFile]:
    cache = RangeCache(store, file.size)
    try:
        ending = file.tail + len(file.tail).to_bytes(4, "little") + MAGIC
        cache.put(file.size - len(ending), ending)
        with _parquet_file(cache.path, file.metadata_for_pyarrow) as parquet:
            cache.unlink()
            yield OpenFile(file, parquet, cache.descriptor, cache)
    finally:
        cache.close()


def open_file(path: str, storage: Sequence[str] = ()) -> InputFile:
    """Read the footer of a file; ``storage`` has the options of its object store.

    Raises
    ------
    DataError
        The file doesn't exist, or isn't a regular file or a Parquet file.
    """
    with read_errors(path):
        if is_uri(path):
            return _open_remote(path, storage)
        info = os.stat(path)  # noqa: PTH116 - as it was given
        if not stat.S_ISREG(info.st_mode):
            # Opening a pipe without a writer would block forever.
            raise DataError("not a regular file", where=path, remedy="write it to a file first: cat INPUT > FILE")
        metadata = read_footer(path)
        return InputFile(path, metadata, info.st_size, _local_stat(info), _checked_columns(path, metadata))


def read_footer(path: str | os.PathLike[str]) -> pq.FileMetaData:
    """Return the footer of a local file; raise pyarrow's own exceptions."""
    # Not by path: pyarrow would parse a colon as the end of a URI scheme, and a tilde as the home folder.
    with pa.OSFile(os.fspath(path)) as stream:
        return pq.read_metadata(stream)


def _open_remote(path: str, storage: Sequence[str]) -> InputFile:
    store = store_of(path, storage)
    found = store.info()
    if found is None:
        raise DataError("no such object", where=path, remedy="check the URI")
    tail = store.read(max(0, found.size - END_BYTES), min(END_BYTES, found.size))
    length = int.from_bytes(tail[-TAIL:-4], "little")
    if tail[-4:] == ENCRYPTED_MAGIC:
        raise encrypted(path)
    if tail[-4:] != MAGIC or length > found.size - TAIL:
        raise DataError(
            "not a Parquet file, or incomplete", where=path, remedy="choose other files with a quoted glob: '*.parquet'"
        )
    if length + TAIL > len(tail):
        tail = store.read(found.size - TAIL - length, length + TAIL)
    footer = tail[-TAIL - length : -TAIL]
    metadata = pq.read_metadata(pa.BufferReader(MAGIC + footer + length.to_bytes(4, "little") + MAGIC))
    columns = _checked_columns(path, metadata)
    return InputFile(path, metadata, found.size, _object_stat(found), columns, store, footer)


def _checked_columns(path: str, metadata: pq.FileMetaData) -> FileColumns:
    """Return the columns of a file, with types that can be computed on and written, after a check of its row count."""
    rows = sum(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    if rows != metadata.num_rows:
        raise DataError(
            f"the row groups have {quantity(rows, 'row')}, not {metadata.num_rows:,} as the footer says",
            where=path,
            remedy=DAMAGED,
        )
    schema = arrow_schema(metadata)
    return FileColumns(schema, schema)


def arrow_schema(metadata: pq.FileMetaData) -> pa.Schema:
    """Return the schema in a footer, with types that can be computed on and written; see :func:`decoded_schema`."""
    return decoded_schema(metadata.schema.to_arrow_schema())


def _object_stat(found: ObjectInfo) -> FileStat:
    return FileStat(0, 0, found.size, found.mtime_ns, 0)


def _local_stat(info: os.stat_result) -> FileStat:
    return FileStat(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


@contextlib.contextmanager
def _parquet_file(path: str, metadata: pq.FileMetaData) -> Iterator[pq.ParquetFile]:
    # Not by path; see read_footer.
    # A small buffer without pre-buffering keeps large row groups out of memory. Memory maps are never used: a file
    # that is truncated while mapped raises a signal, not an error.
    with (
        pa.OSFile(path) as stream,
        pq.ParquetFile(
            stream,
            metadata=metadata,
            memory_map=False,
            pre_buffer=False,
            buffer_size=READ_BUFFER,
            page_checksum_verification=True,
        ) as parquet,
    ):
        yield parquet


def pyarrow_only() -> bool:
    """Return whether pyarrow reads everything (``BATCHMAX_PARQUET=pyarrow``), for debugging."""
    return os.environ.get("BATCHMAX_PARQUET") == "pyarrow"
