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
from batchmax.storage.file_names import name_order

T = TypeVar("T")

TRIES = 4
FIRST_PAUSE = 0.5
PIECE = 8 << 20
"""Bytes that are passed to an upload stream at a time."""
PIECES_AT_ONCE = 8
LARGEST_COPY = 5 << 30
"""Bytes of the largest object that S3 copies in one request; larger ones are read and uploaded."""
RANGES_AT_ONCE = 8

LONGEST_SAID = 300
"""Maximum number of characters of a store's message that are repeated in an error."""

CONNECT_SECONDS, REQUEST_SECONDS = 10.0, 60.0


@dataclass(frozen=True)
class Found:
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

    def found(self) -> Found | None:
        """Return the object at the URI; None if there is none."""
        info = tried(lambda: self.system.get_file_info(self.path), self.uri)
        return self._found(info) if info.type == fs.FileType.File else None

    def below(self) -> list[Found]:
        """Return the objects below the URI, in bytewise order of their paths."""
        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=True)
        infos = tried(lambda: self.system.get_file_info(selector), self.uri)
        files = [self._found(info) for info in infos if info.type == fs.FileType.File]
        return sorted(files, key=lambda one: name_order(one.uri))

    def read(self, start: int, size: int) -> bytes:
        """Return a byte range of the object."""

        def once() -> bytes:
            with self.system.open_input_file(self.path) as stream:
                return whole(stream, start, size)

        return tried(once, self.uri)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> dict[int, bytes]:
        """Return byte ranges of the object by their starts; each range is given by its start and end."""

        def once() -> dict[int, bytes]:
            with self.system.open_input_file(self.path) as stream, ThreadPoolExecutor(RANGES_AT_ONCE, "ranges") as pool:
                pieces = pool.map(lambda one: whole(stream, one[0], one[1] - one[0]), ranges)
                return dict(zip((start for start, _ in ranges), pieces, strict=True))

        return tried(once, self.uri)

    def delete(self) -> None:
        """Delete the object, if it exists."""

        def once() -> None:
            with contextlib.suppress(FileNotFoundError):
                self.system.delete_file(self.path)

        tried(once, self.uri, OutputError)

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
        found = self.found()
        size = 0 if found is None else found.size
        if size <= LARGEST_COPY:
            tried(lambda: self.system.copy_file(self.path, target.path), uri, OutputError)
            return
        starts = range(0, size, PIECE)
        target.upload(lambda: (self.read(start, min(PIECE, size - start)) for start in starts), size)

    def send(self, local: Path) -> None:
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

        def once() -> None:
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

        tried(once, self.uri, OutputError)
        found = self.found()
        if found is None or found.size != size:
            there = "nothing" if found is None else f"{found.size:,} bytes"
            raise OutputError(f"{there} arrived, not {size:,} bytes", where=self.uri, remedy="run the command again")

    def _found(self, info: fs.FileInfo) -> Found:
        return Found(self.root + info.path.lstrip("/"), info.size, info.mtime_ns or 0)


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
            "a URI has no place for credentials",
            where=f"{parts.scheme}://…@…",
            remedy="put them into the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
        )
    given = tuple(options)
    for one in given:
        if "=" not in one:
            raise UsageError("it is not K=V", where="--storage-option", remedy="try: --storage-option region=eu-west-1")
    try:
        system = _system(parts.scheme, parts.netloc if parts.scheme not in {"s3", "gs"} else "", given)
    except UsageError:
        raise
    except (TypeError, ValueError, pa.ArrowException) as error:
        # The message may contain the value of an option, which may be a secret.
        names = ", ".join(one.partition("=")[0] for one in given) or "none were given"
        what = f"the file system of {parts.scheme}:// does not take the options ({names}): {type(error).__name__}"
        raise UsageError(what, where="--storage-option", remedy="see pyarrow.fs, or fsspec") from error
    return Store(system, _path_of(uri), uri.rstrip("/"), _root(uri))


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
        raise UsageError(what, remedy="pip install fsspec, and what it needs for this") from error
    where = f"{scheme}://{host}"
    try:
        known_fs = fsspec.filesystem(scheme, **given)
    except (ImportError, ValueError) as error:
        what = f"nobody here knows {scheme}://: {_told(error)}"
        raise UsageError(what, where=where, remedy="pip install what it needs") from error
    except OSError as error:
        what = f"the file system does not start: {_told(error)}"
        raise DataError(what, where=where, remedy="install what it needs") from error
    return fs.PyFileSystem(fs.FSSpecHandler(known_fs))


def _told(error: BaseException) -> str:
    """Return the message of an error on one line, shortened."""
    return textwrap.shorten(str(error), LONGEST_SAID, placeholder=" …")


def _path_of(uri: str) -> str:
    parts = urlsplit(uri)
    rest = uri[len(parts.scheme) + 3 :]
    return rest.rstrip("/") if parts.scheme in {"s3", "gs"} else unquote(rest).rstrip("/")


def _root(uri: str) -> str:
    return f"{urlsplit(uri).scheme}://"


def whole(stream: pa.NativeFile, start: int, size: int) -> bytes:
    """Return a byte range of an open object.

    Raises
    ------
    ConnectionError
        Fewer bytes were received.
    """
    data = stream.read_at(size, start)
    if len(data) != size:
        raise ConnectionError(f"{len(data):,} bytes came, not {size:,}")
    return bytes(data)


def tried(action: Callable[[], T], where: str, kind: type[DataError | OutputError] = DataError) -> T:
    """Return the result of an action, which is repeated if that may help.

    Raises
    ------
    DataError, OutputError
        The action failed; the message has that of the store.
    """
    pause = FIRST_PAUSE
    for count in range(1, TRIES + 1):
        try:
            return action()
        except FileNotFoundError as error:
            raise kind("there is no such object, or bucket", where=where, remedy="look at what is there") from error
        except (OSError, pa.ArrowException) as error:
            said = _told(error)
            if isinstance(error, PermissionError) or "ACCESS_DENIED" in said or "AccessDenied" in said:
                remedy = "look at the credentials in the environment, and what they are allowed to do"
                raise kind("the store refuses it", where=where, remedy=remedy) from error
            if count == TRIES:
                raise kind(f"the store fails: {said}", where=where, remedy="run the command again later") from error
        time.sleep(pause * (1 + random.random()))  # noqa: S311 - so that many processes don't try again at once
        pause *= 2
    raise AssertionError
