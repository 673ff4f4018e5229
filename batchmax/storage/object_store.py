"""Object stores: lists objects, reads byte ranges of them, and uploads whole files.

``s3://`` and ``gs://`` use pyarrow's file systems, other schemes use fsspec. Credentials, regions and endpoints come
from the environment, as for other tools, or from ``--storage-option K=V``, and never appear in messages. Requests that
fail are repeated a few times.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from batchmax.errors import DataError, OutputError, UsageError
from batchmax.runtime.lazy_imports import allow_imports
from batchmax.runtime.text import quantity
from batchmax.storage.file_names import name_order

T = TypeVar("T")

MAX_ATTEMPTS = 4
FIRST_PAUSE = 0.5
PIECE = 8 << 20
"""Bytes that are passed to an upload stream at a time."""
PIECES_AT_ONCE = 8
LARGEST_COPY = 5 << 30
"""Bytes of the largest object that S3 copies in one request; larger ones are read and uploaded."""
RANGES_AT_ONCE = 8

MAX_MESSAGE = 300
"""Maximum number of characters of a store's message in an error."""

CONNECT_SECONDS, REQUEST_SECONDS = 10.0, 60.0


@dataclass(frozen=True)
class ObjectInfo:
    """An object: its URI, its size, and its modification time in nanoseconds."""

    uri: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, eq=False)
class Store:
    """A URI in the file system of its store.

    Attributes
    ----------
    system, path
        The file system, and the path in it.
    uri
        The URI, without a slash at its end.
    root
        The prefix that turns paths of the file system into URIs, such as ``s3://``.
    """

    system: fs.FileSystem
    path: str
    uri: str
    root: str

    def at(self, uri: str) -> Store:
        """Return another URI of the same store."""
        return Store(self.system, _path_of(uri), uri, self.root)

    def info(self) -> ObjectInfo | None:
        """Return the object at the URI; None if there is none."""
        info = with_retries(lambda: self.system.get_file_info(self.path), self.uri)
        return self._info(info) if info.type == fs.FileType.File else None

    def list_below(self) -> list[ObjectInfo]:
        """Return the objects below the URI, in bytewise order of their paths."""
        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=True)
        infos = with_retries(lambda: self.system.get_file_info(selector), self.uri)
        files = [self._info(info) for info in infos if info.type == fs.FileType.File]
        return sorted(files, key=lambda one: name_order(one.uri))

    def read(self, start: int, size: int) -> bytes:
        """Return a byte range of the object."""

        def attempt() -> bytes:
            with self.system.open_input_file(self.path) as stream:
                return read_exactly(stream, start, size)

        return with_retries(attempt, self.uri)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> dict[int, bytes]:
        """Return byte ranges of the object by their starts; each range is given by its start and end."""

        def attempt() -> dict[int, bytes]:
            with self.system.open_input_file(self.path) as stream, ThreadPoolExecutor(RANGES_AT_ONCE, "ranges") as pool:
                pieces = pool.map(lambda one: read_exactly(stream, one[0], one[1] - one[0]), ranges)
                return dict(zip((start for start, _ in ranges), pieces, strict=True))

        return with_retries(attempt, self.uri)

    def delete(self) -> None:
        """Delete the object, if it exists."""

        def attempt() -> None:
            with contextlib.suppress(FileNotFoundError):
                self.system.delete_file(self.path)

        with_retries(attempt, self.uri, OutputError)

    def write(self, data: bytes) -> None:
        """Write a small object."""
        self.upload(lambda: iter([data]), len(data))

    def copy(self, uri: str) -> None:
        """Copy the object to another URI of the same store, which is complete or unchanged at any time.

        Raises
        ------
        OutputError
            The object can't be copied.
        """
        target = self.at(uri)
        found = self.info()
        size = 0 if found is None else found.size
        if size <= LARGEST_COPY:
            with_retries(lambda: self.system.copy_file(self.path, target.path), uri, OutputError)
            return
        starts = range(0, size, PIECE)
        target.upload(lambda: (self.read(start, min(PIECE, size - start)) for start in starts), size)

    def upload_file(self, local: Path) -> None:
        """Upload a file; it is visible only when it is complete.

        Raises
        ------
        OutputError
            The file can't be uploaded; an existing object is unchanged.
        """

        def pieces() -> Iterator[bytes]:
            with local.open("rb") as stream:
                while data := stream.read(PIECE):
                    yield data

        self.upload(pieces, local.stat().st_size)

    def upload(self, pieces: Callable[[], Iterator[bytes]], size: int) -> None:
        """Write an object of ``size`` bytes, given in pieces; it is visible only when it is complete."""

        def attempt() -> None:
            # Closing a stream publishes what it has, complete or not, and so does garbage collection. After a failure,
            # the stream is therefore kept forever, and what was uploaded is never visible.
            stream = self.system.open_output_stream(self.path)
            try:
                for number, data in enumerate(pieces(), 1):
                    stream.write(data)
                    if number % PIECES_AT_ONCE == 0:
                        stream.flush()  # waits for pieces that are being uploaded, which take memory
            except BaseException:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))
                raise
            stream.close()

        with_retries(attempt, self.uri, OutputError)
        found = self.info()
        if found is None or found.size != size:
            stored = 0 if found is None else found.size
            what = f"{stored:,} of {quantity(size, 'byte was', 'bytes were')} stored"
            raise OutputError(what, where=self.uri, remedy="run the command again")

    def _info(self, info: fs.FileInfo) -> ObjectInfo:
        return ObjectInfo(self.root + info.path.lstrip("/"), info.size, info.mtime_ns or 0)


def store_of(uri: str, options: Sequence[str] = ()) -> Store:
    """Return the store of a URI.

    Parameters
    ----------
    uri
        A URI such as ``s3://bucket/key``.
    options
        ``K=V`` for the file system: arguments of ``pyarrow.fs.S3FileSystem``, ``GcsFileSystem`` or fsspec's.

    Raises
    ------
    UsageError
        The scheme is unknown, an option is invalid, or the URI has credentials.
    DataError
        The file system of the scheme can't be started.
    """
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        raise UsageError(
            "the URI contains credentials",
            where=f"{parts.scheme}://…@…",
            remedy="set them in the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
        )
    given = tuple(options)
    for one in given:
        if "=" not in one:
            raise UsageError("expected K=V", where="--storage-option", remedy="try: --storage-option region=eu-west-1")
    try:
        system = _system(parts.scheme, parts.netloc if parts.scheme not in {"s3", "gs"} else "", given)
    except UsageError:
        raise
    except (TypeError, ValueError, pa.ArrowException) as error:
        # The message may contain the value of an option, which may be a secret.
        names = ", ".join(one.partition("=")[0] for one in given) or "none given"
        what = f"invalid options of {parts.scheme}:// ({names}): {type(error).__name__}"
        raise UsageError(what, where="--storage-option", remedy="see the documentation of its file system") from error
    return Store(system, _path_of(uri), uri.rstrip("/"), f"{parts.scheme}://")


@cache
def _system(scheme: str, host: str, options: tuple[str, ...]) -> fs.FileSystem:
    given: dict[str, Any] = {name: value for name, _, value in (one.partition("=") for one in options)}
    given |= {name: value == "true" for name, value in given.items() if value in {"true", "false"}}
    if scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint and "endpoint_override" not in given:
            found = urlsplit(endpoint)
            given |= {"endpoint_override": found.netloc or endpoint, "scheme": found.scheme or "https"}
        retries = fs.AwsStandardS3RetryStrategy(max_attempts=2)
        limits = {"connect_timeout": CONNECT_SECONDS, "request_timeout": REQUEST_SECONDS}
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        known = {"region": region} if region else {}
        return fs.S3FileSystem(**{**known, **limits, "retry_strategy": retries, **given})
    if scheme == "gs":
        return fs.GcsFileSystem(**given)
    allow_imports()  # file systems import the packages that they need
    try:
        import fsspec  # noqa: PLC0415 - need not be installed
    except ImportError as error:
        what = f"{scheme}:// needs fsspec, which is not installed"
        raise UsageError(what, remedy=f"pip install fsspec, and the package that it needs for {scheme}://") from error
    where = f"{scheme}://{host}"
    try:
        known_fs = fsspec.filesystem(scheme, **given)
    except (ImportError, ValueError) as error:
        what = f"{scheme}:// is not supported: {_message_of(error)}"
        raise UsageError(what, where=where, remedy="install the package that fsspec needs for it") from error
    except OSError as error:
        what = f"the file system cannot be opened: {_message_of(error)}"
        raise DataError(what, where=where, remedy="check its packages and settings") from error
    return fs.PyFileSystem(fs.FSSpecHandler(known_fs))


def _message_of(error: BaseException) -> str:
    """Return the message of an error on one line, shortened."""
    return textwrap.shorten(str(error), MAX_MESSAGE, placeholder=" …")


def _path_of(uri: str) -> str:
    parts = urlsplit(uri)
    rest = uri[len(parts.scheme) + 3 :]
    return rest.rstrip("/") if parts.scheme in {"s3", "gs"} else unquote(rest).rstrip("/")


def read_exactly(stream: pa.NativeFile, start: int, size: int) -> bytes:
    """Return a byte range of an open object.

    Raises
    ------
    ConnectionError
        Fewer bytes were received.
    """
    data = stream.read_at(size, start)
    if len(data) != size:
        raise ConnectionError(f"received {len(data):,} of {quantity(size, 'byte')}")
    return bytes(data)


def with_retries(action: Callable[[], T], where: str, kind: type[DataError | OutputError] = DataError) -> T:
    """Return the result of an action, which is repeated if that may help.

    Raises
    ------
    DataError, OutputError
        The action failed; the message has that of the store.
    """
    pause = FIRST_PAUSE
    for count in range(1, MAX_ATTEMPTS + 1):
        try:
            return action()
        except FileNotFoundError as error:
            raise kind("no such object or bucket", where=where, remedy="check the URI") from error
        except (OSError, pa.ArrowException) as error:
            message = _message_of(error)
            if isinstance(error, PermissionError) or "ACCESS_DENIED" in message or "AccessDenied" in message:
                remedy = "check the credentials in the environment, and their permissions"
                raise kind("access denied", where=where, remedy=remedy) from error
            if count == MAX_ATTEMPTS:
                raise kind(
                    f"the object store failed: {message}", where=where, remedy="run the command again later"
                ) from error
        time.sleep(pause * (1 + random.random()))  # noqa: S311 - so that many processes don't try again at once
        pause *= 2
    raise AssertionError
