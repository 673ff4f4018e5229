"""Creates the destination of an output from its path or URI."""

from __future__ import annotations

import os
from collections.abc import Sequence

from batchmax.options.score_options import IfExists
from batchmax.sinks.commit.destination import Destination
from batchmax.sinks.commit.local_destination import LocalDestination
from batchmax.sinks.commit.remote_destination import RemoteDestination
from batchmax.sinks.commit.staging import StagingDirectory, local_path_of
from batchmax.storage.object_store import store_of
from batchmax.storage.output_paths import is_file_path
from batchmax.storage.paths import is_uri


def make_destination(
    out: str | os.PathLike[str],
    if_exists: IfExists,
    *,
    storage: Sequence[str] = (),
    gated: bool = False,
    durable: bool = True,
) -> Destination:
    """Return the destination of an output.

    Parameters
    ----------
    out
        The path or the URI.
    storage
        The options of the file system of a URI.

    Other parameters and errors are those of :class:`batchmax.sinks.commit.local_destination.LocalDestination` and
    :class:`batchmax.sinks.commit.staging.StagingDirectory`.
    """
    out = os.fspath(out)
    if not is_uri(out):
        staging = StagingDirectory(out, durable=durable)
        return LocalDestination(staging, if_exists, is_file=is_file_path(out), gated=gated)
    store = store_of(out.rstrip("/"), storage)
    staging = StagingDirectory(local_path_of(store.uri), durable=durable)
    return RemoteDestination(store, storage, staging, if_exists, gated=gated)
