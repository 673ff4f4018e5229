"""Reads small text files that options name, from this machine or an object store."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from batchmax.errors import BatchmaxError, UsageError
from batchmax.storage.paths import is_uri, local_path

MAX_BYTES = 1 << 26
"""Maximum size of a file in bytes; the names or weights of millions of classes take less."""


def read_text(path: str | os.PathLike[str], option: str, storage: Sequence[str] = ()) -> str | None:
    """Return the text of a file; None if it doesn't exist.

    Parameters
    ----------
    path
        A path, a URI, or a glob that matches one file.
    option
        The option that names the file, for messages.
    storage
        Options of the file system of URIs.

    Raises
    ------
    UsageError
        The path is a folder, several files match, or the file is too large, isn't UTF-8 or can't be read.
    """
    text = local_path(os.fspath(path))
    try:
        data = _stored(text, storage) if is_uri(text) else _local(text, option)
        found = None if data is None else data[:MAX_BYTES].decode("utf-8-sig")
    except UsageError:
        raise
    except BatchmaxError as error:
        raise UsageError(f"{error.where}: {error.what}", where=option, remedy=error.remedy) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{text} cannot be read as text", where=option, remedy="give a text file in UTF-8") from error
    if data is not None and len(data) > MAX_BYTES:
        raise UsageError(f"{text} is larger than {MAX_BYTES >> 20} MiB", where=option, remedy="give a text file")
    return found


def _stored(uri: str, storage: Sequence[str]) -> bytes | None:
    from batchmax.storage.object_store import store_of  # noqa: PLC0415 - imports pyarrow, which help doesn't need

    store = store_of(uri, storage)
    found = store.info()
    return None if found is None else store.read(0, min(found.size, MAX_BYTES + 1))


def _local(text: str, option: str) -> bytes | None:
    path = Path(text)
    if not path.exists() and glob.has_magic(text):
        matching = [one for one in glob.glob(text) if Path(one).is_file()]  # noqa: PTH207 - absolute patterns too
        if len(matching) > 1:
            what = f"{len(matching):,} files match {text}"
            raise UsageError(what, where=option, remedy="name one of them")
        path = Path(matching[0]) if matching else path
    if path.is_dir():
        raise UsageError(f"{text} is a folder", where=option, remedy="name a file in it")
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)
