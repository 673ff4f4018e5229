"""The journal of a run: records what is completed, so that another run can resume after a kill.

A line is JSON with a checksum, and is appended by one write. An incomplete line is ignored, together with all that
follow it. The first line has the job and the boot ID of the machine. For a folder, the other lines are its completed
parts. For one file, they record how much of the file is complete: the last row group, its footer entry, and the counts
up to there. What a killed process wrote exists as long as the machine runs. After a crash of the machine, only what was
synced exists: the parts of a run without syncs are forgotten, unless a later run has synced them.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import uuid
import zlib
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from batchmax.sinks.parquet_sink import FileState, ParquetSink
from batchmax.storage import system_calls
from batchmax.storage.files import open_exclusively
from batchmax.storage.json_fields import JsonError, json_list, json_object, parse_json

HEAD = {"job": dict, "boot": str, "durable": bool, "replaces": bool, "run": str}
SESSION = {"boot": str, "durable": bool}
GROUP = {"position": int, "state": dict, "files": list}
PART = {"number": int, "name": str, "rows": int, "size": int, "rejects": int | None, "state": str}
"""The members of a journal's first entry, of that of a run that resumes, of one for a row group, and of a completed
part, with their types."""


@dataclass(frozen=True, slots=True)
class CompletedPart:
    """A finished part of a folder. It is the same whenever and wherever the part is made.

    Attributes
    ----------
    number, name
        The number of the part, and its path in the folder.
    rows
        The number of rows that were read.
    size, rejects
        The size of its file and of that of its rejected rows, in bytes; None if there is none.
    state
        The counts. They are kept as JSON text because there may be very many parts.
    """

    number: int
    name: str
    rows: int
    size: int
    rejects: int | None
    state: str


def part_sizes(parts: Sequence[CompletedPart]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the names and sizes of the files of parts, and of the files of their rejected rows."""
    rejects = {part.name: part.rejects for part in parts if part.rejects is not None}
    return {part.name: part.size for part in parts}, rejects


@dataclass
class CompletedWork:
    """What is completed of a job.

    Attributes
    ----------
    parts
        Of a folder: the finished parts, by part number.
    position
        Of a file: the number of input rows that are done.
    state
        The counts at this position.
    file
        How much of the file is complete.
    rejects
        How much of the file of rejected rows is complete.
    decision
        The summary of a finished job, and the inodes of what is published next; None if the job wasn't finished.
    replaces
        Whether what is at the output's path may be replaced.
    run
        The id of the run; a run that resumes it keeps it.
    unsynced_parts, is_decision_unsynced
        The numbers of parts that were recorded by runs without syncs, and whether the decision was.
    """

    parts: dict[int, CompletedPart] = field(default_factory=dict)
    position: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    file: FileState = field(default_factory=FileState)
    rejects: FileState = field(default_factory=FileState)
    decision: dict[str, Any] | None = None
    replaces: bool = False
    run: str = ""
    unsynced_parts: set[int] = field(default_factory=set)
    is_decision_unsynced: bool = False

    @property
    def is_durable(self) -> bool:
        """Whether all parts, and a finished output, are synced."""
        return not (self.unsynced_parts or self.is_decision_unsynced)

    @property
    def inodes(self) -> list[int | None]:
        """The inodes of what is published next, the output's first; empty if the job wasn't finished."""
        return [] if self.decision is None else list(self.decision["of"])

    @property
    def rows(self) -> int:
        """The number of input rows that are done, in parts or in a file."""
        return self.position + sum(part.rows for part in self.parts.values())


class Journal:
    """The journal of a running job.

    Parameters
    ----------
    path
        The path of the journal.
    job
        The identity of the job, as JSON values; None to append to an existing journal.
    replaces
        Whether what is at the output's path may be replaced.
    run
        The id of the run.
    durable
        Whether the journal is synced. If it is, everything that an existing journal records must be, too.

    Raises
    ------
    BlockingIOError
        Another process writes to this journal.
    """

    def __init__(
        self,
        path: Path,
        job: Mapping[str, Any] | None,
        *,
        replaces: bool = False,
        run: str = "",
        durable: bool = True,
    ) -> None:
        self._path = path
        self._durable = durable
        self._failed = False
        if job is None:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            self._lock()
            os.ftruncate(self._descriptor, sum(size for _, size in _lines(path.read_bytes())))
            self._write({"boot": _boot(), "durable": durable})
        else:
            # An existing journal is replaced after the first line of the new one is written.
            new = path.with_name(f"new-{path.name}") if path.exists() else path
            if new != path:
                new.unlink(missing_ok=True)
            self._descriptor = open_exclusively(new)
            self._lock()
            self._write({"job": job, "boot": _boot(), "durable": durable, "replaces": replaces, "run": run})
            if new != path:
                new.replace(path)
        self._waiting: deque[tuple[list[tuple[ParquetSink, int]], dict[str, Any]]] = deque()
        self._synced = 0

    def record_row_group(self, files: Sequence[ParquetSink], position: int, state: Mapping[str, Any]) -> None:
        """Record that a row group was handed over to the file, and perhaps to that of rejected rows.

        ``position`` is the number of input rows read until then, and ``state`` has the counts.
        """
        entry = {
            "position": position,
            "state": state,
            "files": [
                [file.size, file.rows, [b64encode(group).decode() for group in file.new_groups()]] for file in files
            ],
        }
        self._waiting.append(([(file, file.size) for file in files], entry))
        self.write_pending()

    def write_pending(self) -> None:
        """Write the entries of row groups that have reached the files."""
        while self._waiting:
            files, entry = self._waiting[0]
            if any(file.written < size for file, size in files):
                return
            # If an entry can't be written, it stays in the queue, and so do all after it: each continues the one
            # before.
            self._write(entry)
            self._waiting.popleft()
            file = files[0][0]
            if file.synced != self._synced:
                for other, _ in files[1:]:
                    other.sync()
                self._synced = file.synced
                self._write({"synced": [file.synced for file, _ in files]})
                self.sync()

    def record_part(self, part: CompletedPart) -> None:
        """Record that a part is finished, and durable if the journal is."""
        self._write({"part": asdict(part)})
        self.sync()

    def record_decision(self, summary: Mapping[str, Any], of: Sequence[int | None]) -> None:
        """Record that the output is finished, with its summary and the inodes of what is published next."""
        self._write({"published": {"summary": summary, "of": of}})
        self.sync()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise
        except OSError:
            """The file system has no locks; a warning was given when the folder was locked."""

    def sync(self) -> None:
        """Make the journal durable, if it should be."""
        if self._durable:
            system_calls.sync(self._descriptor)

    def close(self) -> None:
        """Close the journal."""
        os.close(self._descriptor)

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self._failed:
            return
        text = json.dumps(entry, separators=(",", ":")).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            self._failed = True
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def open_journal(path: Path, job: Mapping[str, Any], *, replaces: bool, run: str, durable: bool) -> Journal:
    """Open a journal to append to it; create it if there is none that can be read."""
    return Journal(path, job if read_journal(path) is None else None, replaces=replaces, run=run, durable=durable)


def read_journal(path: Path) -> tuple[dict[str, Any], CompletedWork] | None:
    """Return the job of a journal and what is completed of it; None if the journal can't be read."""
    try:
        lines = (line for line, _ in _lines(path.read_bytes()))
        first = next(lines, {})
        return (first["job"], _replay(first, lines)) if "job" in first else None
    except (OSError, JsonError):
        return None


def read_journals(paths: Iterable[Path]) -> tuple[dict[str, Any], CompletedWork] | None:
    """Return the job of the first readable journal, and what is completed of it; None if none can be read.

    Other journals of this job add their parts, and whether the output may replace what is at its path.
    """
    found = [one for one in map(read_journal, paths) if one is not None]
    if not found:
        return None
    job, done = found[0]
    for theirs, other in found[1:]:
        if theirs == job:
            done.parts |= other.parts
            done.unsynced_parts |= other.unsynced_parts
            done.replaces |= other.replaces
    return job, done


def _lines(data: bytes) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the complete lines and their sizes in bytes."""
    for line in io.BytesIO(data):
        if not line.endswith(b"\n"):
            return
        checksum, _, text = line[:-1].partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            return
        yield json_object(parse_json(text), {}), len(line)


def _replay(first: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> CompletedWork:
    json_object(first, HEAD)
    done = CompletedWork(replaces=first["replaces"], run=first["run"])
    waiting: list[tuple[Mapping[str, Any], list[FileState]]] = []

    def take(count: int) -> None:
        for entry, files in waiting[:count]:
            done.position, done.state = entry["position"], entry["state"]
            for state, file in zip((done.file, done.rejects), files, strict=False):
                state.size, state.rows = file.size, file.rows
                state.groups += file.groups
        del waiting[:count]

    def forget_unsynced() -> None:
        """Forget what wasn't synced before the machine went down."""
        waiting.clear()
        for number in done.unsynced_parts:
            del done.parts[number]
        if done.is_decision_unsynced:
            done.decision = None
        done.unsynced_parts, done.is_decision_unsynced = set(), False

    boot, durable = first["boot"], first["durable"]
    for line in lines:
        if "boot" in line:
            session = json_object(line, SESSION)
            if session["boot"] != boot:
                forget_unsynced()
            boot, durable = session["boot"], session["durable"]
            if durable:
                # This run has synced what it resumed.
                done.unsynced_parts, done.is_decision_unsynced = set(), False
        elif "position" in line:
            waiting.append((json_object(line, GROUP), _files(line)))
        elif "synced" in line:
            sizes = json_list(json_object(line, {"synced": list})["synced"], int)
            take(sum(all(file.size <= size for size, file in zip(sizes, files, strict=False)) for _, files in waiting))
        elif "part" in line:
            part = json_object(line["part"], PART)
            done.parts[part["number"]] = CompletedPart(**{name: part[name] for name in PART})
            if not durable:
                done.unsynced_parts.add(part["number"])
        elif "published" in line:
            done.decision = json_object(line["published"], {"summary": dict, "of": list})
            done.is_decision_unsynced = not durable
    if boot == _boot():
        take(len(waiting))
    else:
        forget_unsynced()
    return done


def _files(entry: Mapping[str, Any]) -> list[FileState]:
    """Return how much of the files is complete, from an entry for a row group."""
    files = []
    for file in json_list(entry["files"], list):
        if [type(value) for value in file] != [int, int, list]:
            raise JsonError("a file is not described by its size, its rows and its row groups")
        size, rows, groups = file
        try:
            files.append(FileState(size, rows, [b64decode(group) for group in json_list(groups, str)]))
        except ValueError as error:
            raise JsonError("a row group is not in base64") from error
    return files


def _boot() -> str:
    """Return an identifier of the current boot of the machine; a new one if it can't be determined."""
    return system_calls.boot_id() or str(uuid.uuid4())
