"""Writes a text file. It is committed like any output: its path has the old file or the whole new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from batchmax.errors import OutputError, UsageError
from batchmax.storage import system_calls
from batchmax.storage.files import hidden_sibling, open_exclusively, sync_path
from batchmax.storage.object_store import store_of
from batchmax.storage.output_paths import (
    make_parents,
    refuse_file_as_folder,
    refuse_inputs_as_output,
    refuse_uris_as_output,
    remove_empty,
    with_suffix,
)
from batchmax.storage.paths import is_uri, local_path, refuse_stream


class TextFile:
    """A text file to write; its path is checked before the text is computed.

    Parameters
    ----------
    out
        The path, or a URI.
    endings
        The suffixes that its name may have.
    if_exists
        ``error`` or ``overwrite``.
    storage
        Options of the file system of a URI.

    Raises
    ------
    UsageError
        The path is a stream or has another suffix, or ``if_exists`` is invalid.
    OutputError
        Something is at the path that may not be replaced.
    """

    def __init__(
        self, out: str | os.PathLike[str], endings: tuple[str, ...], if_exists: str, storage: Sequence[str] = ()
    ) -> None:
        text = local_path(os.fspath(out))
        refuse_stream(text)
        self._store = store_of(text, storage) if is_uri(text) else None
        self.path = Path(text)
        self._where = text
        self._replaces = if_exists == "overwrite"
        if if_exists not in {"error", "overwrite"}:
            raise UsageError(f"{if_exists!r} is not supported", where="--if-exists", remedy="use error or overwrite")
        if not self.path.name.lower().endswith(endings) or self.path.name.lower() in endings:
            raise UsageError(
                f"the file name must end in {' or '.join(endings)}",
                where=text,
                remedy=f"name it {with_suffix(text, endings[0])}",
            )
        if self._store is None:
            refuse_file_as_folder(self.path)
        self._check()

    def refuse_inputs(self, inputs: list[str]) -> None:
        """Refuse a path that is one of the inputs."""
        if self._store is None:
            refuse_inputs_as_output(inputs, self.path)
        else:
            refuse_uris_as_output(inputs, self._store.uri)

    def write(self, text: str) -> int:
        """Write the text, publish the file, and return its size in bytes.

        Raises
        ------
        OutputError
            The file can't be written; an existing file is unchanged.
        """
        content = text.encode()
        if self._store is not None:
            self._check()
            self._store.write(content)
            return len(content)
        temporary = hidden_sibling(self.path)
        parents: list[Path] = []
        try:
            parents = make_parents(self.path)
            with os.fdopen(open_exclusively(temporary), "wb") as file:
                file.write(content)
                file.flush()
                system_calls.sync(file.fileno())
            self._check()
            self._put(temporary)
        except FileExistsError:
            self._refuse()
        except OSError as error:
            raise OutputError(
                f"cannot be written: {error.strerror}", where=str(self.path), remedy="name another file"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            remove_empty(parents)
        with contextlib.suppress(OSError):
            sync_path(self.path.parent)
        return len(content)

    def _put(self, temporary: Path) -> None:
        if not self._replaces:
            try:
                os.link(temporary, self.path)  # unlike a rename, a link never replaces a new file
            except FileExistsError:
                raise
            except OSError:
                """The file system has no hard links."""
            else:
                return
        temporary.replace(self.path)

    def _check(self) -> None:
        if self._store is not None:
            if not self._replaces and self._store.info() is not None:
                self._refuse()
            return
        if self.path.is_dir():
            raise OutputError("a folder with this name exists", where=str(self.path), remedy="name another file")
        if not self._replaces and os.path.lexists(self.path):
            self._refuse()

    def _refuse(self) -> None:
        raise OutputError(
            "the output exists", where=self._where, remedy="replace it: --if-exists overwrite, or name another output"
        )
