"""Worker that runs each command line in a fork, and kills the fork before its nth change of the file system.

A request is a line of JSON: ``words``, the command line; ``folder``, where it runs; ``at``, the number of the change
before which the fork is killed, or null. Optional are ``environment``, variables for the fork, and ``pid``, a file that
gets its process id. The answer has the exit code, the standard error, and the number of changes.

A request with only ``warm`` is a command line that runs in this process, so that every fork has its imports and
compiled kernels.

A change is a call that creates, writes, truncates, syncs, renames or removes a file or folder below ``folder``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

from batchmax.cli.app import main
from batchmax.sinks.commit import atomic_rename

NAMES = {"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.symlink"}
"""Audit events of calls that change names."""

ON_DESCRIPTORS = ("write", "pwrite", "pwritev", "fsync", "fdatasync", "ftruncate", "posix_fallocate")


class Killer:
    """Counts the changes that this process makes, and kills it before one of them."""

    def __init__(self, folder: str, at: int | None) -> None:
        self.count = 0
        self._folder = folder
        self._at = at
        self._lock = threading.Lock()

    def install(self) -> None:
        """Intercept every change from now on."""
        sys.addaudithook(self._audit)
        for name in ON_DESCRIPTORS:
            setattr(os, name, self._intercepted(getattr(os, name)))
        exchange = atomic_rename.exchange

        def exchanged(one: Path, other: Path) -> bool:
            self._change()
            return exchange(one, other)

        atomic_rename.exchange = exchanged

    def _intercepted(self, call: Any) -> Any:
        def intercepted(descriptor: int, *arguments: Any) -> Any:
            if self._is_here(Path(f"/proc/self/fd/{descriptor}").readlink()):
                self._change()
            return call(descriptor, *arguments)

        return intercepted

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in NAMES:
            # A relative name comes with the descriptor of its open folder.
            is_relative = event in {"os.remove", "os.rmdir"} and arguments[1] >= 0
            if is_relative or self._is_here(arguments[0]):
                self._change()
        elif event == "open" and arguments[2] & os.O_CREAT and self._is_here(arguments[0]):
            self._change()

    def _is_here(self, path: Any) -> bool:
        return isinstance(path, str | Path) and os.path.abspath(path).startswith(self._folder)  # noqa: PTH100

    def _change(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)


def run(
    words: list[str],
    folder: str,
    at: int | None = None,
    environment: dict[str, str] | None = None,
    pid: str | None = None,
) -> dict[str, Any]:
    """Run a command line in a fork; the exit code of a killed fork is -9."""
    with tempfile.TemporaryFile("w+") as answer:
        child = os.fork()
        if not child:
            os.chdir(folder)
            os.environ.update(environment or {})
            tempfile.tempdir = None
            if pid is not None:
                Path(pid).write_text(str(os.getpid()), encoding="ascii")
            out, err = io.StringIO(), io.StringIO()
            killer = Killer(folder, at)
            killer.install()
            code = 99
            try:
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    code = main(words)
            except BaseException:  # noqa: BLE001 - the fork must not serve requests
                err.write(traceback.format_exc())
            json.dump({"err": err.getvalue(), "changes": killer.count}, answer)
            answer.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answer.seek(0)
        text = answer.read()
        return {"code": code, **(json.loads(text) if text else {"err": "", "changes": at})}


for line in sys.stdin:
    request = json.loads(line)
    reply = {"code": main(request["warm"])} if "warm" in request else run(**request)
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()
