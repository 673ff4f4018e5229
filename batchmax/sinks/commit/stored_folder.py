"""Lists the objects of an output folder in an object store, and finds its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchmax.sinks.commit.existing_output import SUCCESS
from batchmax.storage.manifest import (
    MANIFEST,
    OLD_SUFFIX,
    PART,
    Manifest,
    read_manifest,
    read_old_manifest,
)
from batchmax.storage.object_store import ObjectInfo, Store


@dataclass(frozen=True)
class StoredFolder:
    """The objects below the URI of a folder.

    Attributes
    ----------
    objects
        The objects, by their paths in the folder.
    manifest
        The manifest of the output that was committed last; None if there is none.
    old
        The manifest of an earlier version of batchmax; None if there is none.
    """

    objects: Mapping[str, ObjectInfo]
    manifest: Manifest | None
    old: Mapping[str, Any] | None

    @property
    def is_finished(self) -> bool:
        """Whether there is a finished output, of any program."""
        return self.manifest is not None or SUCCESS in self.objects

    def foreign(self) -> list[str]:
        """Return the paths of objects that batchmax didn't write, according to their names."""
        return sorted(name for name in self.objects if not self._is_ours(name))

    def stale(self) -> list[str]:
        """Return the paths of objects that don't belong to the output that was committed last."""
        current = {SUCCESS} if self.manifest is None else {SUCCESS, self.manifest.path, *self.manifest.parts}
        return sorted(name for name in self.objects if name not in current and self._is_ours(name))

    def has(self, parts: Mapping[str, int]) -> bool:
        """Return whether all parts exist and have these sizes."""
        return all(name in self.objects and self.objects[name].size == size for name, size in parts.items())

    def _is_ours(self, name: str) -> bool:
        last = name.rpartition("/")[2]
        match = PART.fullmatch(last)
        # Earlier versions wrote parts without the id of a run. Without a manifest, others may have written such
        # objects.
        return last in {SUCCESS, MANIFEST} or (match is not None and (match[2] is not None or self.old is not None))


def stored_folder(store: Store) -> StoredFolder:
    """Return the objects below a URI, with the manifests among them."""
    uri = store.uri
    objects = {one.uri[len(uri) + 1 :]: one for one in store.list_below()}
    paths = [name for name in objects if name.rpartition("/")[2] == MANIFEST]
    found = [(path, read_manifest(store.at(objects[path].uri).read(0, objects[path].size))) for path in paths]
    manifests = [manifest for path, manifest in found if manifest is not None and manifest.path == path]
    committed = max(manifests, key=lambda manifest: manifest.generation, default=None)
    old = None
    matches = (PART.fullmatch(name.rpartition("/")[2]) for name in objects)
    if SUCCESS in objects and any(match is not None and match[2] is None for match in matches):
        beside = store.at(f"{uri}{OLD_SUFFIX}")
        there = beside.info()
        old = None if there is None else read_old_manifest(beside.read(0, there.size))
    return StoredFolder(objects, committed, old)
