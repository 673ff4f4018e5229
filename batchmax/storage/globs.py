"""Lists folders and matches globs, in an order that doesn't depend on the file system."""

from __future__ import annotations

import contextlib
import glob
import heapq
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from batchmax.errors import DataError
from batchmax.storage.file_names import composed, name_order
from batchmax.storage.hive import folder_of
from batchmax.storage.manifest import MANIFEST, OLD_SUFFIX, read_manifest, without_other_runs
from batchmax.storage.paths import file_identity


def matching_files(pattern: str) -> list[tuple[str, str]]:
    """Return the files that match a glob or are below a folder that matches, each once, with their folders.

    ``**`` matches a folder and all below it. Accents match however the pattern and the names encode them.
    """
    first_sign = min(pattern.index(sign) for sign in "*?[" if sign in pattern)
    root = pattern[: pattern.rfind("/", 0, first_sign) + 1]
    roots: dict[str, str] = {}
    in_folders: dict[str, None] = {}
    # The spellings of one folder have the same identity where the file system ignores how accents are encoded.
    spellings = {file_identity(Path(one)): one for one in (composed(root, "NFD"), composed(root), root)}
    for spelled in spellings.values():
        for match in _matches(spelled, pattern[len(root) :].split("/")):
            is_folder = os.path.isdir(match)  # noqa: PTH112 - keeps the spelling
            for file in _all_files(match) if is_folder else [match]:
                roots.setdefault(file, spelled.rstrip("/"))
                if is_folder:
                    in_folders[file] = None
    # Folders are checked together, because the parts of one output may be in several of them.
    unpublished = in_folders.keys() - without_other_runs(list(in_folders), read_manifest, whole=True)
    files: dict[str, str] = {}
    for file in roots.keys() - unpublished:
        name = file if root else file.removeprefix("./")
        files.setdefault(name, folder_of(name, roots[file]))
    return sorted(files.items(), key=lambda item: name_order(item[0]))


def files_below(folder: str) -> list[str]:
    """Return the files below a folder, without hidden ones and parts that aren't published."""
    return sorted(without_other_runs(_all_files(folder), read_manifest, whole=True), key=name_order)


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Return the regular expression for a glob of URIs: ``**`` matches slashes, ``*`` and ``?`` don't.

    It also matches what is below a folder that matches, and captures that in the group ``below``.
    """
    if pattern.endswith("/**"):
        pattern = pattern.removesuffix("**")
    words = re.split(r"(\*\*/?|\*|\?|\[[^]]*\])", pattern.rstrip("/"))
    known = {"**": ".*", "**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    expression = "".join(
        known.get(word)
        or (
            f"[{'^' if word[1:2] == '!' else ''}{word[1:-1].removeprefix('!')}]" if word[:1] == "[" else re.escape(word)
        )
        for word in words
    )
    return re.compile(f"{expression}(?P<below>/.*){'' if pattern.endswith('/') else '?'}", re.DOTALL)


def _matches(folder: str, parts: Sequence[str]) -> Iterator[str]:
    """Yield the paths in a folder that match the parts of a glob; a path may be yielded several times."""
    path = folder or "."
    if not os.path.isdir(path):  # noqa: PTH112 - keeps the spelling of the path
        return
    if not any(parts):  # after the last part, or after a slash at the end
        yield path
        return
    part, *others = parts
    if part == "**" and any(others):
        for below, _ in _tree(path):
            yield from _matches(f"{below.rstrip('/')}/", others)
    elif part == "**":
        yield path
    else:
        # Other names have several spellings, so the folder is listed for them too.
        is_one_name = part.isascii() and not glob.has_magic(part)
        for name in [part] if is_one_name else _names(path):
            is_hidden = name.startswith(("_", ".")) and name[0] != part[0]
            if is_hidden or not (is_one_name or fnmatchcase(composed(name), composed(part))):
                continue
            if others:
                yield from _matches(f"{folder}{name}/", others)
            elif os.path.lexists(f"{folder}{name}"):
                yield f"{folder}{name}"


def _all_files(folder: str) -> list[str]:
    """Return the files below a folder, without hidden ones except manifests."""
    return [file for _, files in _tree(folder) for file in files]


def _names(folder: str) -> list[str]:
    """Return the names in a folder."""
    with _listing(folder):
        return sorted(os.listdir(folder), key=name_order)  # noqa: PTH208 - keeps the spelling of the path


def _tree(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and all folders below it, each once, with the paths of its files. Symbolic links are followed.

    Hidden files are skipped, except manifests of outputs, and so are manifests of earlier versions next to their
    folders.
    """
    # Each folder is reached through as few links as possible, so that no path exceeds the system's limit of links.
    waiting = [(0, name_order(folder), folder)]
    entered = set[tuple[int, int]]()
    while waiting:
        n_links, _, path = heapq.heappop(waiting)
        number = file_identity(Path(path))
        if number in entered:
            continue
        if number is not None:
            entered.add(number)
        files, old_manifests = [], set()
        with _listing(path), os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(("_", ".")) and entry.name != MANIFEST:
                    continue
                if entry.is_dir():
                    heapq.heappush(waiting, (n_links + entry.is_symlink(), name_order(entry.path), entry.path))
                    old_manifests.add(f"{entry.path}{OLD_SUFFIX}")
                else:
                    files.append(entry.path)
        yield path, [file for file in files if file not in old_manifests]


@contextlib.contextmanager
def _listing(folder: str) -> Iterator[None]:
    """Refuse a folder that can't be listed, so that its rows aren't missing unnoticed."""
    try:
        yield
    except OSError as error:
        where = str(error.filename or folder)
        remedy = f"see: ls -la {shlex.quote(where)}"
        raise DataError(f"the folder cannot be listed: {error.strerror}", where=where, remedy=remedy) from error
