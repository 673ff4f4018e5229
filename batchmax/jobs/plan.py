"""A job as JSON: its inputs, its parts, and everything that determines the bytes of the parts.

Making a part is a function of the plan and the part's number: every process makes the same file and returns the
same sums, however often it runs. A remote machine needs only a plan with its part.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import pyarrow as pa

from batchmax import __version__
from batchmax.errors import DataError
from batchmax.jobs.part_writer import PartWriter
from batchmax.jobs.score_stage import ScoreStage
from batchmax.jobs.threads import page_workers
from batchmax.options.score_options import ScoreOptions
from batchmax.runtime.progress import Progress
from batchmax.sinks.codecs import output_codecs, output_split
from batchmax.sinks.commit.journal import CompletedPart
from batchmax.sinks.commit.staging import PartFolder
from batchmax.sinks.metadata import output_schema
from batchmax.sources.parquet_source import DatasetInfo, ParquetSource, Source
from batchmax.sources.parts import Part, plan_parts
from batchmax.storage.hive import Partitions
from batchmax.storage.json_fields import JsonError, json_object, parse_json

OF_ONE_MACHINE = frozenset(
    {
        *("threads", "memory_limit", "if_exists", "durability", "shard", "engine", "fail_if"),
        *("calibration", "decision", "storage_options"),
    }
)
"""Options that don't affect the bytes of a part. What calibration and decision files contain is in other options."""


@dataclass(frozen=True)
class Input:
    """An input file, its size and digests to detect changes, and the values of columns from ``key=value`` folders."""

    path: str
    size: int
    footer_sha256: str
    sample_sha256: str
    values: dict[str, int | str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A scoring job that writes a folder.

    Attributes
    ----------
    version
        The version of batchmax.
    inputs
        The input files.
    options
        The options that affect the bytes of the parts, without those that have their default.
    n_logits
        The number of logits in a row.
    schema, output
        The schemas of the input and of the parts' files, with their metadata: Arrow IPC messages in base64.
    codecs, split
        The codecs of the output columns, and whether matrices are written with BYTE_STREAM_SPLIT.
    parts
        The parts, in the order of their rows.
    """

    version: str
    inputs: tuple[Input, ...]
    options: dict[str, Any]
    n_logits: int
    schema: str
    output: str
    codecs: dict[str, str]
    split: bool
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, source: Source) -> Plan:
        """Return the plan of a job on files."""
        job = source.job
        usual = ScoreOptions()
        options = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(job.options).items()
            if name not in OF_ONE_MACHINE and value != getattr(usual, name)
        }
        return cls(
            version=__version__,
            inputs=tuple(
                Input(file.path, file.size, file.footer_digest(), file.sample_digest, source.partitions.of(number))
                for number, file in enumerate(source.files)
            ),
            options=options,
            n_logits=job.n_logits,
            schema=_packed(source.schema),
            output=_packed(output_schema(job, source)),
            codecs=output_codecs(job, source),
            split=output_split(job, source),
            parts=tuple(
                plan_parts(source.group_rows(), source.row_bytes, limit=job.options.limit, folders=source.folders)
            ),
        )

    def header(self) -> str:
        """Return the plan without inputs and parts, as JSON: this is the same for all parts."""
        return json.dumps(self.as_dict() | {"inputs": [], "parts": []}, ensure_ascii=False)

    @classmethod
    def of_header(cls, text: str, inputs: list[dict[str, Any]], parts: list[dict[str, Any]]) -> Self:
        """Return a plan from a header and the JSON values of some parts and of their inputs.

        Raises
        ------
        DataError
            See :meth:`from_json`.
        """
        plan = cls.from_json(text)
        return replace(plan, inputs=tuple(Input(**one) for one in inputs), parts=tuple(Part(**one) for one in parts))

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the plan from JSON of what :meth:`as_dict` returned.

        Raises
        ------
        DataError
            The text isn't a plan, or was written by another version of batchmax.
        """
        try:
            values = json_object(parse_json(text), {"version": str})
            if values["version"] != __version__:
                what = f"it was made by batchmax {values['version']}, and this is {__version__}"
                raise DataError(what, where="the plan", remedy="install the same version on all machines")
            inputs = tuple(Input(**one) for one in values["inputs"])
            return cls(**values | {"inputs": inputs, "parts": tuple(Part(**one) for one in values["parts"])})
        except (JsonError, KeyError, TypeError) as error:
            raise DataError("it is invalid", where="the plan", remedy="plan the job again") from error


def run_part(
    plan: Plan,
    number: int,
    out: PartFolder,
    rejects: PartFolder | None = None,
    *,
    threads: int | None = None,
    memory_limit: int = ScoreOptions.memory_limit,
    storage: Sequence[str] = (),
) -> CompletedPart:
    """Make one part of a plan.

    Parameters
    ----------
    plan
        A plan that has the part; it need not have others.
    number
        The number of the part.
    out, rejects
        The folders of parts and of their rejected rows.
    threads, memory_limit
        The limits of this process; they don't affect the bytes of the part.
    storage
        Options of the file system of URIs.

    Raises
    ------
    BatchmaxError
        An input has changed or can't be read, a row is bad under the policy ``error``, or a folder can't be written to.
    """
    part = next(one for one in plan.parts if one.number == number)
    given = plan.inputs[part.file]
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in plan.options.items()
    }
    options = ScoreOptions(**values, threads=threads, memory_limit=memory_limit, storage_options=tuple(storage))
    schema = _unpacked(plan.schema)
    partitions = Partitions(tuple(map(schema.field, given.values)), (tuple(given.values.values()),))
    source = ParquetSource([given.path], options, dataset=DatasetInfo(schema, plan.n_logits, partitions))
    file = source.files[0]
    known = (given.size, given.footer_sha256, given.sample_sha256)
    if (file.size, file.footer_digest(), file.sample_digest) != known:
        raise DataError("the file has changed since the job was planned", where=file.path, remedy="plan the job again")
    progress = Progress()
    writer = PartWriter(source, _unpacked(plan.output), plan.codecs, progress, plan.split)
    with page_workers(options) as workers:
        return writer.part(replace(part, file=0), ScoreStage(source, progress, str(out.folder)), out, rejects, workers)


def _packed(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def _unpacked(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
