"""Opens the outputs of a job: the output and its rejected rows, with the checks of their paths and of shards."""

from __future__ import annotations

import re

from batchmax.errors import UsageError
from batchmax.options.score_options import ScoreOptions
from batchmax.sinks.commit.commit import Commit
from batchmax.sinks.commit.destination import Destination
from batchmax.sinks.commit.local_destination import output_paths
from batchmax.sinks.commit.make_destination import make_destination
from batchmax.sinks.commit.shared_commit import SharedCommit
from batchmax.sources.memory_check import check_memory
from batchmax.sources.parquet_source import Source
from batchmax.sources.streams.arrow_batches import check_parquet_types
from batchmax.storage.file_names import folded
from batchmax.storage.output_paths import (
    is_file_path,
    refuse_inputs_as_output,
    refuse_other_formats,
    refuse_uris_as_output,
)
from batchmax.storage.paths import is_uri

SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


def open_outputs(source: Source, out: str, options: ScoreOptions, *, can_stream: bool) -> Commit:
    """Return the commit of the output and of the rejected rows; nothing is written yet.

    ``can_stream`` says whether the command can also write a stream, for messages.

    Raises
    ------
    OutputError
        One of them is an input, or exists and may not be replaced.
    UsageError
        One is a file and the other a folder, both have the same path, a column can't be written, or the job needs more
        memory than its limit.
    """
    check_memory(source, writes_groups=True)
    check_parquet_types(source.job.carried if options.rejects is None else source.schema)
    gated = options.fail_if is not None
    inputs = [file.path for file in source.files]
    for path in (out, options.rejects):
        if path is not None and is_uri(path):
            refuse_uris_as_output(inputs, path)
    written = [] if is_uri(out) else output_paths(out, gated=gated)
    rejected = [] if options.rejects is None or is_uri(options.rejects) else output_paths(options.rejects, gated=gated)
    refuse_inputs_as_output(inputs, *written, *rejected)
    output = _destination(out, options, can_stream=can_stream)
    rejects = None if options.rejects is None else _destination(options.rejects, options)
    if rejects is not None and rejects.is_file != output.is_file:
        raise UsageError(
            "the rejects of a file must be a file, and those of a folder a folder",
            where="--rejects",
            remedy="name rejects.parquet" if output.is_file else "name a folder",
        )
    if {folded(str(path.resolve())) for path in written} & {folded(str(path.resolve())) for path in rejected}:
        raise UsageError("rejects and output are the same path", where="--rejects", remedy="name another")
    if options.shard is None:
        return Commit(output, rejects)
    return SharedCommit(output, rejects, parse_shard(options.shard))


def _destination(out: str, options: ScoreOptions, *, can_stream: bool = False) -> Destination:
    """Return the destination of the output or of the rejected rows; refuse what shards and Ray can't write to."""
    refuse_other_formats(out, can_stream=can_stream)
    gated = options.fail_if is not None
    if options.shard is not None and is_uri(out):
        what = "shards meet in a folder that all of them see"
        raise UsageError(what, where="--shard", remedy="name a folder of a file system, or use --engine ray")
    if options.shard is not None and parse_shard(options.shard) and is_file_path(out):
        raise UsageError("a file is made by one run", where="--shard", remedy=f"name a folder, not {out}")
    if gated and options.engine == "ray" and is_uri(out) and not is_file_path(out):
        raise UsageError(
            "an output at a URI can't be held when Ray makes its parts: the tasks upload them",
            where="--fail-if",
            remedy="name a folder that all nodes see, or check the output with batchmax evaluate --fail-if",
        )
    return make_destination(
        out, options.if_exists, storage=options.storage_options, gated=gated, durable=options.is_durable
    )


def parse_shard(text: str) -> tuple[int, int]:
    """Return the number of a shard and the number of shards, from a text such as ``2/8``.

    Raises
    ------
    UsageError
        The text isn't a shard.
    """
    found = SHARD.fullmatch(text)
    if found is None or int(found[2]) == 0:
        raise UsageError(f"{text!r} is no shard", where="--shard", remedy="give its number and of how many: 0/8")
    number, of = int(found[1]), int(found[2])
    if number >= of:
        raise UsageError(f"there is no shard {text}", where="--shard", remedy=f"shards run 0/{of} … {of - 1}/{of}")
    return number, of
