"""What a run has done, line by line, so that another run can go on after it was killed.

A line is JSON and its checksum, appended in one write. A line that is torn, and whatever follows it, did not happen.
The first line says which job it is and on which boot of the machine it ran. Of a folder the others are receipts of
parts. Of one file they say how far it is whole: after which row group, with what the footer will say of it, and what
was counted until then. While the machine runs, what a killed process has written is there. After a crash of the machine
only what was synced is.
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
from typing import Any, Protocol

from batchmax.sinks.parquet_sink import FileState
from batchmax.storage import system_calls
from batchmax.storage.files import open_exclusively
from batchmax.storage.json_fields import JsonError, json_list, json_object, parse_json

HEAD = {"job": dict, "boot": str, "replaces": bool, "run": str}
GROUP = {"position": int, "state": dict, "files": list}
PART = {"number": int, "name": str, "rows": int, "size": int, "rejects": int | None, "state": str}
"""The members of the first entry of a journal, of one about a row group, and of a receipt, with their types."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a part of a folder came to; the same whenever and wherever it is run.

    Attributes
    ----------
    number, name
        The part.
    rows
        How many rows were read.
    size, rejects
        The bytes of its file, and of that of its rejected rows; None if there is none.
    state
        What was counted, as JSON: there may be very many receipts.
    """

    number: int
    name: str
    rows: int
    size: int
    rejects: int | None
    state: str


@dataclass
class Done:
    """What is done of a job.

    Attributes
    ----------
    receipts
        Of the parts of a folder that are finished, by their numbers.
    position
        Of one file, how many rows of the inputs.
    state
        What was counted until there.
    file
        How far the file is.
    rejects
        How far the file of rejected rows is.
    published
        What the summary says and which files or folders are published (their inodes), where the job came to that.
    replaces
        Whether what lies at the output's path may be replaced.
    run
        The id of the run, which a run that resumes it keeps.
    """

    receipts: dict[int, Receipt] = field(default_factory=dict)
    position: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    file: FileState = field(default_factory=FileState)
    rejects: FileState = field(default_factory=FileState)
    published: dict[str, Any] | None = None
    replaces: bool = False
    run: str = ""

    @property
    def rows(self) -> int:
        """How many rows of the inputs, in whatever files."""
        return self.position + sum(receipt.rows for receipt in self.receipts.values())


class Growing(Protocol):
    """A file that is being written, row group by row group."""

    @property
    def rows(self) -> int:
        """How many rows were handed over."""

    @property
    def size(self) -> int:
        """How many bytes they take."""

    @property
    def written(self) -> int:
        """How many bytes the system has got."""

    @property
    def synced(self) -> int:
        """How many bytes outlast the machine."""

    def new_groups(self) -> list[bytes]:
        """Return the row groups that came since this was asked last."""

    def sync(self) -> None:
        """Make durable what is written."""


class Journal:
    """The journal of a run that is under way.

    Parameters
    ----------
    path
        Of the file.
    job
        What makes the job this job, as JSON has it; None to go on with the journal that is there.
    replaces
        Whether what lies at the output's path may be replaced.
    run
        The id of the run.

    Raises
    ------
    BlockingIOError
        Another process writes it.
    """

    def __init__(self, path: Path, job: Mapping[str, Any] | None, *, replaces: bool = False, run: str = "") -> None:
        self._path = path
        self._failed = False
        if job is None:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            self._lock()
            os.ftruncate(self._descriptor, sum(size for _, size in _lines(path.read_bytes())))
            self._write({"boot": _boot()})
        else:
            # One that is there is replaced when the first line of the new one is written.
            new = path.with_name(f"new-{path.name}") if path.exists() else path
            if new != path:
                new.unlink(missing_ok=True)
            self._descriptor = open_exclusively(new)
            self._lock()
            self._write({"job": job, "boot": _boot(), "replaces": replaces, "run": run})
            if new != path:
                new.replace(path)
        self._waiting: deque[tuple[list[tuple[Growing, int]], dict[str, Any]]] = deque()
        self._synced = 0

    def group(self, files: Sequence[Growing], position: int, state: Mapping[str, Any]) -> None:
        """Say that row groups were handed over to the file, and perhaps to that of rejected rows.

        ``position`` is how many rows of the inputs were read until then, ``state`` what was counted.
        """
        entry = {
            "position": position,
            "state": state,
            "files": [
                [file.size, file.rows, [b64encode(group).decode() for group in file.new_groups()]] for file in files
            ],
        }
        self._waiting.append(([(file, file.size) for file in files], entry))
        self.settle()

    def settle(self) -> None:
        """Write down what has reached the files."""
        while self._waiting:
            files, entry = self._waiting[0]
            if any(file.written < size for file, size in files):
                return
            # An entry that cannot be written stays, and none comes after it: each goes on where the one before ends.
            self._write(entry)
            self._waiting.popleft()
            file = files[0][0]
            if file.synced != self._synced:
                for other, _ in files[1:]:
                    other.sync()
                self._synced = file.synced
                self._write({"synced": [file.synced for file, _ in files]})
                self.sync()

    def part(self, receipt: Receipt) -> None:
        """Say that a part is finished and durable."""
        self._write({"part": asdict(receipt)})
        self.sync()

    def publishing(self, summary: Mapping[str, Any], of: Sequence[int | None]) -> None:
        """Write that the output is finished: its summary, and the inodes of what is published from now on."""
        self._write({"published": {"summary": summary, "of": of}})
        self.sync()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise
        except OSError:
            """The file system has no locks, which was said when the folder was locked."""

    def sync(self) -> None:
        """Make the journal durable."""
        system_calls.sync(self._descriptor)

    def close(self) -> None:
        """Let go of the file."""
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


def read_journal(path: Path) -> tuple[dict[str, Any], Done] | None:
    """Return the job that a journal is of and what is done of it; None if that cannot be told."""
    try:
        lines = (line for line, _ in _lines(path.read_bytes()))
        first = next(lines, {})
        return (first["job"], _replay(first, lines)) if "job" in first else None
    except (OSError, JsonError):
        return None


def read_journals(paths: Iterable[Path]) -> tuple[dict[str, Any], Done] | None:
    """Return the job that the first of several journals is of, and what all that are of this job say is done.

    The first that there is tells most; the receipts of the others are added to its own.
    """
    found = [one for one in map(read_journal, paths) if one is not None]
    if not found:
        return None
    job, done = found[0]
    for theirs, other in found[1:]:
        if theirs == job:
            done.receipts |= other.receipts
            done.replaces |= other.replaces
    return job, done


def _lines(data: bytes) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the lines that are whole, and how many bytes each has."""
    for line in io.BytesIO(data):
        if not line.endswith(b"\n"):
            return
        checksum, _, text = line[:-1].partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            return
        yield json_object(parse_json(text), {}), len(line)


def _replay(first: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> Done:
    json_object(first, HEAD)
    done = Done(replaces=first["replaces"], run=first["run"])
    waiting: list[tuple[Mapping[str, Any], list[FileState]]] = []

    def take(count: int) -> None:
        for entry, files in waiting[:count]:
            done.position, done.state = entry["position"], entry["state"]
            for state, file in zip((done.file, done.rejects), files, strict=False):
                state.size, state.rows = file.size, file.rows
                state.groups += file.groups
        del waiting[:count]

    boot = first["boot"]
    for line in lines:
        if line.get("boot", boot) != boot:
            # What was not synced when the machine went down is gone.
            waiting.clear()
            boot = line["boot"]
        if "position" in line:
            waiting.append((json_object(line, GROUP), _files(line)))
        elif "synced" in line:
            sizes = json_list(json_object(line, {"synced": list})["synced"], int)
            take(sum(all(file.size <= size for size, file in zip(sizes, files, strict=False)) for _, files in waiting))
        elif "part" in line:
            part = json_object(line["part"], PART)
            receipt = Receipt(**{name: part[name] for name in PART})
            done.receipts[receipt.number] = receipt
        elif "published" in line:
            done.published = json_object(line["published"], {"summary": dict, "of": list})
    if boot == _boot():
        take(len(waiting))
    return done


def _files(entry: Mapping[str, Any]) -> list[FileState]:
    """Return how far the files are that an entry about a row group describes."""
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
    """Return what tells this boot of this machine from all others; where it cannot be known, something new."""
    return system_calls.boot_id() or str(uuid.uuid4())
