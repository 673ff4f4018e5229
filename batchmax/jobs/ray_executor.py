"""Makes parts on a Ray cluster: tasks get descriptions of parts and return their counts; only the driver publishes.

Logits never pass through Ray. Each task reads its row groups and writes its file itself, so the output must be in a
place that every machine can access. If a worker dies, its part is made again, with the same bytes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from batchmax import errors
from batchmax.errors import BatchmaxError, OutputError, UsageError
from batchmax.jobs.plan import Plan, run_part
from batchmax.runtime.cores import usable_cores
from batchmax.runtime.installation import missing_package
from batchmax.runtime.lazy_imports import allow_imports
from batchmax.runtime.progress import Progress
from batchmax.runtime.signal_guard import SIGNALS
from batchmax.sinks.commit.commit import Commit
from batchmax.sinks.commit.journal import CompletedPart
from batchmax.sinks.commit.remote_destination import RemoteParts
from batchmax.sinks.commit.resume import is_transient
from batchmax.sinks.commit.staging import PartFolder
from batchmax.sources.parquet_source import Source
from batchmax.sources.parts import Part
from batchmax.storage.object_store import store_of

MOST_TRIES = 3
"""Attempts at a part that fails because of the system, not because of the data."""

PAUSE_SECONDS = 2.0
"""Pause before the second attempt; it doubles with each attempt."""

WORKER_DEATHS = 20
"""Workers that may die while they make the same part. Ray itself would start new ones forever."""

MOST_TASKS = 10_000
"""Maximum number of tasks. If there are more parts, a task makes several."""

WAIT_SECONDS = 30.0
"""Seconds between two warnings while no node is large enough."""

TRIES = "tries-"
"""Prefix of files in the staging directory that have one byte for each attempt at a part."""

PROBE = "probe"
"""File in the staging directory by which workers check that it is the driver's, not a local one of the same path."""


def check_ray() -> None:
    """Check that Ray is installed.

    Raises
    ------
    UsageError
        Ray isn't installed.
    """
    if find_spec("ray") is None:
        raise missing_package("Ray", "ray", where="--engine")


def make_parts(source: Source, parts: Sequence[Part], commit: Commit, progress: Progress) -> Iterator[CompletedPart]:
    """Make parts on a Ray cluster.

    The cluster is the one that this process is connected to, or the one at ``RAY_ADDRESS``, or started on this machine.

    Parameters
    ----------
    source
        The source of the job; its options have the CPUs that a task reserves, and the memory limit of a task.
    parts
        The parts to make.
    commit
        The output and its rejected rows, in folders that all machines must be able to access, or at URIs.
    progress
        Progress callbacks.

    Yields
    ------
    CompletedPart
        The parts, in the order in which they are finished.

    Raises
    ------
    BatchmaxError
        A part failed, with the error of its task; there is no cluster; or a worker can't access the folder.
    """
    if not parts:
        return
    allow_imports()
    import ray.data  # noqa: PLC0415 - it is large, and may not be installed

    token = secrets.token_hex(8)
    for output in commit.outputs:
        (output.parts.folder / PROBE).write_text(token)
        for path in output.parts.folder.glob(f"{TRIES}*"):
            path.unlink()
    plan, options = Plan.of(source), source.job.options
    cpus = options.threads or 1
    common = {
        "plan": plan.header(),
        "outputs": [
            {"folder": str(one.parts.folder.absolute()), "uri": one.uri, "durable": one.staging.durable}
            for one in commit.outputs
        ],
        "token": token,
        "storage": list(options.storage_options),
        "run": commit.main.run,
        "cpus": cpus,
        "memory_limit": options.memory_limit,
    }
    items = [{"part": json.dumps([asdict(plan.inputs[part.file]), asdict(part)])} for part in parts]
    with _connected():
        grows = check_cpus(cpus, where="--threads")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        dataset = ray.data.from_items(items, override_num_blocks=min(len(items), MOST_TASKS))
        task = functools.partial(_task, common=json.dumps(common))
        with _warning_while_waiting(cpus, progress) if grows else contextlib.nullcontext():
            for row in dataset.map(task, num_cpus=cpus).iter_rows():
                part = _completed_part(json.loads(row["part"]))
                progress.advance(part.rows, part.rows * source.job.row_bytes)
                yield part


def check_cpus(cpus: float, *, where: str) -> bool:
    """Check that the connected cluster can run a task that needs a number of CPUs.

    Returns
    -------
    bool
        Whether no node is large enough yet, but the cluster can start one that is.

    Raises
    ------
    UsageError
        No node is large enough, and the cluster can't start one that is.
    """
    largest = largest_node()
    if cpus <= largest:
        return False
    if cpus <= _largest_possible_node():
        return True
    raise UsageError(
        f"a task needs {cpus:g} CPUs, and the largest node of the Ray cluster has {largest:g}",
        where=where,
        remedy=f"give at most {largest:g}, or add a larger node to the cluster",
    )


def largest_node() -> float:
    """Return the number of CPUs of the largest node of the connected cluster."""
    import ray  # noqa: PLC0415 - as above

    return max((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)


def _largest_possible_node() -> float:
    """Return the number of CPUs of the largest node that the cluster can start automatically; 0 if it starts none."""
    from ray._private.state import state  # noqa: PLC0415 - there is no public function for it

    config = state.get_cluster_config()
    groups = () if config is None else config.node_group_configs
    return max((float(group.resources.get("CPU", 0)) for group in groups if group.max_count), default=0.0)


@contextlib.contextmanager
def _warning_while_waiting(cpus: int, progress: Progress) -> Iterator[None]:
    """Warn every :data:`WAIT_SECONDS` seconds as long as no node is large enough."""
    is_done = threading.Event()
    started = time.monotonic()

    def warn() -> None:
        while not is_done.wait(WAIT_SECONDS) and (largest := largest_node()) < cpus:
            seconds = time.monotonic() - started
            progress.warn(
                f"waiting for {seconds:,.0f} s for a node with {cpus} CPUs to join the Ray cluster; the largest has "
                f"{largest:g} (--threads)"
            )

    thread = threading.Thread(target=warn, name="nodes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()


def _task(row: dict[str, Any], common: str) -> dict[str, Any]:
    """Make one part in a Ray task. Errors are returned, not raised, because Ray would try bad data again."""
    how = json.loads(common)
    one, part = json.loads(row["part"])
    plan = Plan.of_header(how["plan"], [one], [part | {"file": 0}])
    try:
        for output in how["outputs"]:
            if output["uri"] is None:
                _check_access(output["folder"], how["token"])
        if how["outputs"][0]["uri"] is None:
            _count_try(Path(how["outputs"][0]["folder"]) / f"{TRIES}{part['number']}")
        found = _make_with_retries(plan, part["number"], how)
    except BatchmaxError as error:
        reply = {"error": type(error).__name__, "what": error.what, "where": error.where, "remedy": error.remedy}
        return {"part": json.dumps(reply)}
    return {"part": json.dumps(asdict(found))}


def _make_with_retries(plan: Plan, number: int, how: dict[str, Any]) -> CompletedPart:
    """Make a part, and try again if the system is the cause of a failure."""
    for tries in range(1, MOST_TRIES + 1):
        try:
            with contextlib.ExitStack() as stack:
                folders = [_folder(output, how, stack) for output in how["outputs"]]
                given = {"threads": how["cpus"], "memory_limit": how["memory_limit"]}
                return run_part(plan, number, *folders, **given, storage=how["storage"])
        except Exception as error:
            if not is_transient(error) or tries == MOST_TRIES:
                if isinstance(error, BatchmaxError):
                    raise
                what = f"part {number} failed: {type(error).__name__}: {error}"
                raise OutputError(what, where=socket.gethostname(), remedy="see the log of the worker") from error
        time.sleep(PAUSE_SECONDS * 2 ** (tries - 1))
    raise AssertionError


def _folder(output: dict[str, Any], how: dict[str, Any], stack: contextlib.ExitStack) -> PartFolder:
    """Return the folder of parts: the driver's, or for an output at a URI a temporary one on this machine."""
    if output["uri"] is None:
        return PartFolder(Path(output["folder"]), durable=output["durable"])
    here = stack.enter_context(tempfile.TemporaryDirectory(prefix="batchmax-"))
    parts = RemoteParts(Path(here), store_of(output["uri"], how["storage"]), how["run"])
    parts.create()
    return parts


def _check_access(folder: str, token: str) -> None:
    path = Path(folder) / PROBE
    if not path.is_file() or path.read_text() != token:
        raise OutputError(
            f"the worker on {socket.gethostname()} can't access the folder of the output",
            where=folder,
            remedy="write to a file system that all machines share: -o",
        )


def _count_try(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b".")
        tries = stream.tell()
    if tries > WORKER_DEATHS:
        raise OutputError(
            f"{tries - 1} workers died while they made this part",
            where=path.name.removeprefix(TRIES),
            remedy="see their logs; if memory ran out: a smaller --memory-limit, or fewer tasks per machine",
        )


def _completed_part(reply: dict[str, Any]) -> CompletedPart:
    """Return the part that a task finished, or raise its error."""
    if "error" not in reply:
        return CompletedPart(**reply)
    raise getattr(errors, reply["error"])(reply["what"], where=reply["where"], remedy=reply["remedy"])


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Connect to a cluster, or start one on this machine; an existing connection is used and kept."""
    import ray  # noqa: PLC0415 - as above

    if ray.is_initialized():
        yield
        return
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        given |= {"include_dashboard": False, "num_cpus": usable_cores()}
    try:
        with _own_signal_handlers(), _in_other_process_groups():
            ray.init(**given)
    except (ConnectionError, RuntimeError, ValueError) as error:
        what = f"can't connect to a cluster: {' '.join(str(error).split())}"
        raise UsageError(
            what, where="RAY_ADDRESS", remedy="correct it, or unset it to use only this machine"
        ) from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Ray prints messages about dead workers to stdout, which is for results.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _in_other_process_groups() -> Iterator[None]:
    """Start the processes of a local cluster in process groups of their own.

    A signal to the driver's group, such as Ctrl-C, would otherwise also end Ray's processes. Ray's core ends the driver
    with exit code 1 as soon as it notices, which may be before Python handles the signal.
    """
    global _starts_process_groups  # noqa: PLW0603 - functions that run at a fork can't be unregistered
    _starts_process_groups = True
    try:
        yield
    finally:
        _starts_process_groups = False


def _after_fork_in_child() -> None:
    if _starts_process_groups:
        os.setpgid(0, 0)


_starts_process_groups = False
os.register_at_fork(after_in_child=_after_fork_in_child)


@contextlib.contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep the handlers of SIGINT and SIGTERM: Ray installs its own, which ends the process with ``SystemExit``."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    came = False
    try:
        yield
    except SystemExit as error:
        came = error.code == signal.SIGTERM
        if not came:
            raise
    finally:
        for number, handler in before.items():
            if handler is not None:  # None if it was set outside of Python
                signal.signal(number, handler)
    if came:
        signal.raise_signal(signal.SIGTERM)
