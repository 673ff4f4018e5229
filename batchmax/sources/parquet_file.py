"""Opens Parquet files for pyarrow and for positioned reads, and turns read errors into errors that name the file."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import shlex
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from batchmax.errors import BatchmaxError, DataError
from batchmax.parquet import Footer, FooterError, NotAMatrix, ThriftError
from batchmax.parquet.int96 import footer_without_int96, has_int96, readable
from batchmax.parquet.writing.column_chunk import METADATA, place_of
from batchmax.runtime.arrow_errors import is_damage
from batchmax.sources.content_sample import sampled_ranges
from batchmax.sources.file_columns import FileColumns
from batchmax.sources.streams.arrow_batches import decoded_batch, decoded_schema
from batchmax.storage.object_store import ObjectInfo, Store, store_of
from batchmax.storage.paths import is_uri
from batchmax.storage.range_cache import PREFETCH_BYTES, RangeCache, coalesced

READ_BUFFER = 1 << 20
FOOTER_TAIL = 8
TAIL_READ = 64 << 10
"""Bytes read at once from the end of an object: most footers fit."""

MAGIC = b"PAR1"
ENCRYPTED_MAGIC = b"PARE"
"""The first and last four bytes of a file with an encrypted footer."""


T = TypeVar("T")


class Stamp(NamedTuple):
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

    ``columns`` is how its columns are read if it is one of several files; None if they are read as they are.
    """

    path: str
    metadata: pq.FileMetaData
    size: int
    stamp: Stamp
    store: Store | None = None
    tail: bytes = b""
    columns: FileColumns | None = None

    def conform(self, batch: pa.RecordBatch, names: Collection[str] | None = None) -> pa.RecordBatch:
        """Return a batch of the file with the columns of all files; see :meth:`FileColumns.conform`."""
        batch = decoded_batch(batch)
        return batch if self.columns is None else self.columns.conform(batch, self.path, names)

    @property
    def schema(self) -> pa.Schema:
        """The schema of the file itself; without its metadata if it is one of several files."""
        return arrow_schema(self) if self.columns is None else self.columns.own

    @property
    def schema_read(self) -> pa.Schema:
        """The schema that the file is read with."""
        return arrow_schema(self) if self.columns is None else self.columns.schema

    @property
    def recoded(self) -> frozenset[str]:
        """Columns whose stored bytes can't be copied to an output: they are read as another type, or added."""
        return frozenset() if self.columns is None else self.columns.recoded

    def with_readable_timestamps(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with INT96 bytes as timestamps, in a coarser unit where values need it."""
        for number, name in enumerate(batch.schema.names):
            if name in self.int96_columns:
                array = readable(batch.column(number), self.schema.field(name).type)
                batch = batch.set_column(number, batch.schema.field(number).with_type(array.type), array)
        return batch

    def read_as_stored(self, names: Iterable[str]) -> frozenset[str]:
        """Return the given columns that aren't cast to another type."""
        return frozenset(names) if self.columns is None else frozenset(names) - self.columns.cast

    @cached_property
    def footer(self) -> Footer | None:
        """The footer as it is stored; None if it can't be parsed, and then only pyarrow reads the file."""
        try:
            if self.store is not None:
                return Footer(self.tail)
            with open(self.path, "rb") as stream:  # noqa: PTH123 - avoids a Path object for every file
                return Footer.read(stream.fileno())
        except FooterError:
            return None

    @cached_property
    def int96_columns(self) -> frozenset[str]:
        """Columns that contain INT96 timestamps."""
        return frozenset(column.name for column in (self.footer.columns if self.footer else ()) if has_int96(column))

    @cached_property
    def metadata_for_pyarrow(self) -> pq.FileMetaData:
        """The metadata for pyarrow: INT96 is declared as 12 bytes, since pyarrow would narrow the timestamps."""
        changed = footer_without_int96(self.footer) if self.int96_columns and self.footer is not None else None
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
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            with _parquet_file(self.path, self.metadata_for_pyarrow) as parquet:
                opened = OpenFile(self, parquet, descriptor)
                opened.check_unchanged()
                try:
                    yield opened
                except Exception:
                    with contextlib.suppress(OSError):
                        opened.check_unchanged()  # a change may have caused the error
                    raise
                opened.check_unchanged()
        finally:
            os.close(descriptor)

    def footer_digest(self) -> str:
        """Return a digest of the footer. Files with equal footers can differ in data: see :attr:`sample_digest`."""
        if self.store is not None:
            return hashlib.sha256(self.tail).hexdigest()
        with open(self.path, "rb") as stream:  # noqa: PTH123 - as above
            stream.seek(-FOOTER_TAIL, os.SEEK_END)
            length = int.from_bytes(stream.read(4), "little")
            stream.seek(-FOOTER_TAIL - length, os.SEEK_END)
            return hashlib.sha256(stream.read(length)).hexdigest()

    @cached_property
    def sample_digest(self) -> str:
        """A digest of a sample of the data; see :mod:`batchmax.sources.content_sample`."""
        ranges = sampled_ranges(self.footer, self.size)
        digest = hashlib.sha256()
        with reading(self.path):
            if self.store is not None:
                pieces = self.store.read_ranges(list(coalesced(ranges)))
                for start, end in ranges:
                    first = next(one for one in pieces if one <= start < one + len(pieces[one]))
                    digest.update(pieces[first][start - first : end - first])
                return digest.hexdigest()
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                for start, end in ranges:
                    digest.update(os.pread(descriptor, end - start, start))
            finally:
                os.close(descriptor)
        return digest.hexdigest()


class OpenFile:
    """An open file.

    Attributes
    ----------
    parquet
        The file for pyarrow.
    descriptor
        File descriptor for positioned reads of ranges that :meth:`need` made available.
    """

    def __init__(
        self, file: InputFile, parquet: pq.ParquetFile, descriptor: int, cache: RangeCache | None = None
    ) -> None:
        self.parquet = parquet
        self.descriptor = descriptor
        self._file = file
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
        """Check that the file is as it was when its footer was read; see :class:`Stamp` for what isn't detected.

        Raises
        ------
        DataError
            It was replaced or written to.
        """
        file = self._file
        if file.store is not None:
            found = file.store.info()
            same = found is not None and _remote_stamp(found) == file.stamp
        else:
            same = _stamp(os.fstat(self.descriptor)) == _stamp(os.stat(file.path)) == file.stamp  # noqa: PTH116
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
        footer = self._file.footer
        tops = None if names is None else {name.split(".")[0] for name in names} | set(names)
        found = []
        if footer is None:
            return [(0, self._file.size)]
        try:
            row_group = footer.row_group(group)
            for column in footer.columns:
                if tops is None or column.name in tops:
                    for leaf in range(column.first_leaf, column.first_leaf + len(column.leaves)):
                        chunk = row_group.chunk(leaf)
                        if METADATA not in chunk:  # encrypted
                            return [(0, self._file.size)]
                        start, size = place_of(chunk[METADATA].value)
                        found.append((max(0, start), min(start + size, self._file.size)))
        except (FooterError, ThriftError):
            return [(0, self._file.size)]
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
    with reading(path):
        if is_uri(path):
            return _open_remote(path, storage)
        info = os.stat(path)  # noqa: PTH116 - as it was given
        if not stat.S_ISREG(info.st_mode):
            # Opening a pipe without a writer would block forever.
            raise DataError("not a regular file", where=path, remedy="write it into a file first: cat INPUT > FILE")
        metadata = read_footer(path)
        _check_rows(path, metadata)
        return InputFile(path, metadata, info.st_size, _stamp(info))


def read_footer(path: str | os.PathLike[str]) -> pq.FileMetaData:
    """Return the footer of a local file; raise pyarrow's own exceptions."""
    # Not by path: pyarrow would parse a colon as the end of a URI scheme, and a tilde as the home folder.
    with pa.OSFile(os.fspath(path)) as stream:
        return pq.read_metadata(stream)


def _open_remote(path: str, storage: Sequence[str]) -> InputFile:
    store = store_of(path, storage)
    found = store.info()
    if found is None:
        raise DataError("there is no such object", where=path, remedy="look at what is there")
    tail = store.read(max(0, found.size - TAIL_READ), min(TAIL_READ, found.size))
    length = int.from_bytes(tail[-FOOTER_TAIL:-4], "little")
    if tail[-4:] == ENCRYPTED_MAGIC:
        raise encrypted(path)
    if tail[-4:] != MAGIC or length > found.size - FOOTER_TAIL:
        raise DataError("no Parquet file, or cut short", where=path, remedy="choose with a quoted glob: '*.parquet'")
    if length + FOOTER_TAIL > len(tail):
        tail = store.read(found.size - FOOTER_TAIL - length, length + FOOTER_TAIL)
    footer = tail[-FOOTER_TAIL - length : -FOOTER_TAIL]
    metadata = pq.read_metadata(pa.BufferReader(MAGIC + footer + length.to_bytes(4, "little") + MAGIC))
    _check_rows(path, metadata)
    return InputFile(path, metadata, found.size, _remote_stamp(found), store, footer)


def _check_rows(path: str, metadata: pq.FileMetaData) -> None:
    rows = sum(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    if rows != metadata.num_rows:
        raise DataError(
            f"the row groups have {rows:,} rows, not {metadata.num_rows:,} as the footer says",
            where=path,
            remedy="the file is damaged: make it again",
        )


def _remote_stamp(found: ObjectInfo) -> Stamp:
    return Stamp(0, 0, found.size, found.mtime_ns, 0)


def _stamp(info: os.stat_result) -> Stamp:
    return Stamp(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def arrow_schema(file: InputFile) -> pa.Schema:
    """Return the schema of a file with types that can be computed on and written; see :func:`decoded_schema`."""
    with reading(file.path):
        return decoded_schema(file.metadata.schema.to_arrow_schema())


def declared_schema(schema: pa.Schema, file: InputFile, names: Collection[str]) -> pa.Schema:
    """Return a schema in which some columns have the types that the file's Arrow schema declares.

    Parquet has no type for date64 (stored as days), seconds (stored as milliseconds) and dictionaries of numbers
    (stored as these numbers). pyarrow reads the stored types; other readers (Polars, arrow-rs) restore the declared
    ones.
    """
    encoded = (file.metadata.metadata or {}).get(b"ARROW:schema")
    if encoded is None:
        return schema
    try:
        declared = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))
        found = {field.name: field.type for field in declared if len(declared.get_all_field_indices(field.name)) == 1}
        fields = [
            field.with_type(_declared(field.type, found[field.name]))
            if field.name in names and field.name in found
            else field
            for field in schema
        ]
    except (pa.ArrowException, ValueError, OSError):
        return schema  # the Arrow schema is damaged, or a name isn't UTF-8; pyarrow ignores it too
    return pa.schema(fields, schema.metadata)


def _declared(read: pa.DataType, declared: pa.DataType) -> pa.DataType:
    """Return the declared type if it is stored in the same way as the type that is read, otherwise the latter."""
    types = pa.types
    if types.is_struct(read) and types.is_struct(declared):
        if [field.name for field in read] != [field.name for field in declared]:
            return read
        pairs = zip(read, declared, strict=True)
        return pa.struct([mine.with_type(_declared(mine.type, theirs.type)) for mine, theirs in pairs])
    if types.is_map(read) and types.is_map(declared):
        item = _declared(read.item_type, declared.item_type)
        return pa.map_(read.key_field, read.item_field.with_type(item), read.keys_sorted)
    for is_kind, make in ((types.is_list, pa.list_), (types.is_large_list, pa.large_list)):
        if is_kind(read) and is_kind(declared):
            return make(read.value_field.with_type(_declared(read.value_type, declared.value_type)))
    if types.is_fixed_size_list(read) and types.is_fixed_size_list(declared):
        item = _declared(read.value_type, declared.value_type)
        return pa.list_(read.value_field.with_type(item), read.list_size)
    if types.is_dictionary(declared):
        value = read.value_type if types.is_dictionary(read) else read
        return declared if _plain(value) == _plain(declared.value_type) else read
    same = (
        (types.is_date32(read) and types.is_date64(declared))
        or (read == pa.time32("ms") and declared == pa.time32("s"))
        or (types.is_timestamp(read) and read.unit == "ms" and declared == pa.timestamp("s", read.tz))
    )
    return declared if same else read


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type with 32-bit offsets for text or bytes with 64-bit offsets, which are stored in the same way."""
    return {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}.get(kind, kind)


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
    """Return whether pyarrow reads and writes everything (``BATCHMAX_PARQUET=pyarrow``), for debugging."""
    return os.environ.get("BATCHMAX_PARQUET") == "pyarrow"


@contextlib.contextmanager
def about(path: str) -> Iterator[None]:
    """Name the file in errors about its schema, which are raised by code that doesn't know the file."""
    try:
        yield
    except BatchmaxError as error:
        if not error.where.startswith(path):
            error.where = f"{path}: {error.where}" if error.where else path
        error.remedy = error.remedy.replace("batchmax inspect FILE", f"batchmax inspect {shlex.quote(path)}")
        if "'" not in path:
            error.remedy = error.remedy.replace("FROM 'FILE'", f"FROM '{path}'")
        raise


_REMEDIES = {
    errno.EIO: "check the disk, then run the command again",
    errno.EMFILE: "allow more open files: ulimit -n 4096",
}
"""Remedies for system errors, by error number."""

OURS = FooterError, NotAMatrix, ThriftError
"""What batchmax's own Parquet code raises if the bytes of a file are invalid."""


class reading:  # noqa: N801 - reads as a phrase
    """Turn exceptions raised while reading a file into errors that name it.

    Only an exception of a parser, pyarrow's or batchmax's, means that the file is damaged, and only one with an error
    number means that the system can't read it. All other exceptions are bugs and pass unchanged.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        name = shlex.quote(self._path)
        if isinstance(error, FileNotFoundError):
            raise DataError("the file is gone", where=self._path, remedy=f"look: ls -l {name}") from error
        if isinstance(error, PermissionError):
            raise DataError("may not be read", where=self._path, remedy=f"look: ls -l {name}") from error
        if isinstance(error, OSError) and error.errno is not None:
            what = f"cannot be read: {error.strerror or error}"
            remedy = _REMEDIES.get(error.errno, f"look: ls -l {name}")
            raise DataError(what, where=self._path, remedy=remedy) from error
        if not is_damage(error) and not isinstance(error, OURS):
            return
        text = "".join(char if char.isprintable() else "?" for char in " ".join(str(error).split()))
        remedy = f"the file is damaged: make it again; look: batchmax inspect {name}"
        if isinstance(error, pa.ArrowNotImplementedError):
            remedy = f"the file is damaged, or uses a feature that pyarrow does not read; look: batchmax inspect {name}"
        what = f"cannot be read: {text}"
        if any(words in text for words in ("magic bytes", "file size is", "encrypted metadata")):
            what, remedy = _unlike_parquet(self._path)
        raise DataError(what, where=self._path, remedy=remedy) from error


def encrypted(path: str, column: str | None = None) -> DataError:
    """Return the error for an encrypted column, or an encrypted footer."""
    what = "the footer" if column is None else f"column {column!r}"
    remedy = "write the file without encryption first, with a program that has its keys"
    if column is not None:
        remedy += f"; or, if the column is only carried, leave it out: --exclude {shlex.quote(column)}"
    return DataError(f"{what} is encrypted, and encrypted Parquet files are not supported", where=path, remedy=remedy)


def _unlike_parquet(path: str) -> tuple[str, str]:
    """Return what is wrong with a file that has no Parquet footer, and the remedy."""
    with open(path, "rb") as stream:  # noqa: PTH123 - the path as it was given
        head = stream.read(len(MAGIC))
    if head == ENCRYPTED_MAGIC:
        error = encrypted(path)
        return error.what, error.remedy
    if head == MAGIC:
        return "the file is cut short: it begins as Parquet but does not end as such", "copy it, or make it, again"
    what = "no Parquet file" if head else "the file is empty"
    return what, f"look: file {shlex.quote(path)}; among other files, choose with a quoted glob: '*.parquet'"
