"""Writes the results of chunks to the file of an output, or to the file of a part.

Knows which columns are read, how they are encoded and where bytes go, but not which parts there are or who publishes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from batchmax.jobs.pipeline import Group, run_pipeline
from batchmax.jobs.stage import Result, Stage
from batchmax.parquet import FileSchema
from batchmax.runtime.progress import Progress
from batchmax.sinks.codecs import plain_columns
from batchmax.sinks.commit.commit import Commit
from batchmax.sinks.commit.journal import CompletedPart, CompletedWork, Journal
from batchmax.sinks.commit.staging import PartFolder, remove
from batchmax.sinks.metadata import REJECT_FIELDS, rejects_schema
from batchmax.sinks.parquet_sink import SUMMARY_KEY, FileState, ParquetSink
from batchmax.sinks.row_group_encoder import RowGroupEncoder
from batchmax.sources.chunks import Chunk, limited
from batchmax.sources.parquet_file import InputFile, pyarrow_only
from batchmax.sources.parquet_source import Source
from batchmax.sources.parts import Part
from batchmax.sources.passthrough import CopyPlan, ReadPlan
from batchmax.sources.schemas.declared_types import declared_schema
from batchmax.storage.manifest import MANIFEST_KEY, Manifest


@dataclass(frozen=True, eq=False)
class PartWriter:
    """Writes the rows of a source that a stage computes.

    Attributes
    ----------
    schema, codecs
        The schema of the output with its metadata, and the codec of each column.
    split
        Whether the numbers of computed columns are written with BYTE_STREAM_SPLIT.
    """

    source: Source
    schema: pa.Schema
    codecs: Mapping[str, str]
    progress: Progress
    split: bool = False

    @property
    def columns(self) -> Sequence[str] | None:
        """The columns that are read; None for all.

        Rejected rows have all columns of the input; rejected sequences have all but the logits.
        """
        job = self.source.job
        if job.options.rejects is None:
            return job.columns_read
        return None if job.nesting is None else self.source.schema.names

    def file(
        self, parts: Sequence[Part], stage: Stage, commit: Commit, completed: CompletedWork, workers: ThreadPoolExecutor
    ) -> int:
        """Write all parts to the file of an output, from where an earlier run stopped; return the number of bytes."""
        if completed.position:
            stage.restore(completed.state)
        with contextlib.ExitStack() as stack:
            like = self.source.files[0] if self.source.files else None
            durable, rejects = commit.main.staging.durable, None
            if commit.rejects is not None:
                path = commit.rejects.staging.output
                rejects = stack.enter_context(self._sink(path, like, workers, durable, completed.rejects, rejects=True))
            sink = stack.enter_context(self._sink(commit.main.staging.output, like, workers, durable, completed.file))
            chunks = self.source.chunks(parts, self._reading(like, workers), completed.position)
            limit = self.source.job.options.limit
            left = None if limit is None else limit - completed.position
            journal = commit.journal
            self._run(limited(chunks, left), stage, sink, rejects, journal, completed.position)
            size = sink.close({SUMMARY_KEY: stage.summary().lasting()})
            if journal is not None:
                journal.write_pending()
            return size + (rejects.close() if rejects is not None else 0)

    def part(
        self, part: Part, stage: Stage, out: PartFolder, rejects_out: PartFolder | None, workers: ThreadPoolExecutor
    ) -> CompletedPart:
        """Write the files of a part and of its rejected rows, and move them to the finished parts."""
        stage.begin(part)
        like = self.source.files[part.file] if self.source.files else None
        with contextlib.ExitStack() as stack:
            path, rejects = out.new_path(part.name), None
            stack.callback(remove, path)
            if rejects_out is not None:
                rejects = self._sink(rejects_out.new_path(part.name), like, workers, out.durable, rejects=True)
                stack.callback(remove, rejects.path)
                stack.enter_context(rejects)
            sink = stack.enter_context(self._sink(path, like, workers, out.durable))
            chunks = self.source.chunks([part], self._reading(like, workers))
            chunks = limited(chunks, part.rows if self.source.files else self.source.job.options.limit)
            rows = self._run(chunks, stage, sink, rejects, None, 0)
            size, rejects_size = sink.close(), None
            if rejects_out is not None and rejects is not None and (rejects.rows or part.number == 0):
                rejects_size = rejects.close()
                rejects_out.add(rejects.path, part.name)
            out.add(path, part.name)
        return CompletedPart(part.number, part.name, rows, size, rejects_size, json.dumps(stage.state()))

    def manifest(self, path: Path, manifest: Manifest, *, rejects: bool) -> None:
        """Write the manifest of a folder of parts or of rejected rows: it has their columns, but no rows."""
        like = self.source.files[0] if self.source.files else None
        durable = self.source.job.options.is_durable
        with (
            ThreadPoolExecutor(1, "pages") as workers,
            self._sink(path, like, workers, durable, rejects=rejects) as sink,
        ):
            sink.close({MANIFEST_KEY: manifest.to_json()})

    def _sink(
        self,
        path: Path,
        like: InputFile | None,
        workers: ThreadPoolExecutor,
        durable: bool,
        done: FileState | None = None,
        *,
        rejects: bool = False,
    ) -> ParquetSink:
        """Open a file of the output or of rejected rows.

        ``like`` is the input file whose Parquet schema the carried columns keep. ``done`` is how much of the file an
        earlier run has completed.
        """
        codecs, plain = self.codecs, plain_columns(self.source.job)
        if rejects:
            codecs, plain = dict.fromkeys(self._rejects_schema().names, "SNAPPY"), ()
        encoder = RowGroupEncoder(
            self._stored(like, rejects=rejects), codecs, frozenset(plain), self.split and not rejects, workers.map
        )
        return ParquetSink(path, encoder, done, durable=durable)

    def _reading(self, like: InputFile | None, workers: ThreadPoolExecutor) -> ReadPlan:
        """Return how the source is read."""
        options, stored = self.source.job.options, self._stored(like)
        copies = None
        # Copied columns keep their row groups and their codec.
        if options.compression is None and options.row_group_size is None and not pyarrow_only():
            everything = options.limit is None and options.on_bad_row != "drop"
            copies = CopyPlan(stored, self.source.job.carried.names, everything)
        int96 = stored.int96
        if options.rejects is not None:
            int96 |= self._stored(like, rejects=True).int96
        return ReadPlan(self.columns, workers, copies, int96, self.source.readers)

    def _stored(self, like: InputFile | None, *, rejects: bool = False) -> FileSchema:
        """Return the schema of a file whose carried columns are stored as in an input."""
        schema, names = self.schema, self.source.job.carried.names
        if rejects:
            schema = self._rejects_schema()
            names = schema.names[: -len(REJECT_FIELDS)]
        if like is None:
            return FileSchema(schema)
        names = [name for name in names if name not in like.columns.recoded]
        return FileSchema(declared_schema(schema, like, names), like.footer, names)

    def _rejects_schema(self) -> pa.Schema:
        return rejects_schema(self.source.schema, self.schema, nesting=self.source.job.nesting)

    def _run(
        self,
        chunks: Generator[Chunk, None, None],
        stage: Stage,
        sink: ParquetSink,
        rejects: ParquetSink | None,
        journal: Journal | None,
        position: int,
    ) -> int:
        """Read, compute and write at the same time; return the number of input rows that are done."""
        results: list[Result] = []
        job = self.source.job

        def write(group: Group) -> None:
            for result in group.results:
                rows = result.completed
                if rows is not None and (rows.pieces or rows.drops_open_row):
                    sink.stream(rows.pieces, job.dtype, job.n_classes, drops_last_row=rows.drops_open_row)
            results.extend(group.results)
            if not group.ends:
                return
            sink.write([result.batch for result in results], group.copied)
            if rejects is not None:
                rejects.write([result.rejects for result in results if result.rejects is not None])
            results.clear()
            if journal is not None:
                if rejects is not None:
                    rejects.flush()
                journal.record_row_group([sink] if rejects is None else [sink, rejects], group.position, group.state)

        return run_pipeline(chunks, stage, write, self.progress, job.row_bytes, position)
